//! One sandbox per test, in a state directory and a range of uids of its own, and the look for leftovers.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use atoll_container_bridge::{
    backend::{Backend, Launched, Owner, SandboxId, SandboxSpec},
    engine::Engine,
    error::SandboxError,
    kubernetes::Kubernetes,
    native::{End, Native, NativeConfig},
    protocol::ExecSpec,
    sandbox::{Completed, Sandbox},
};

use crate::{
    cluster::{Cluster, Kit},
    engines, kubernetes,
};

/// Which backend a test runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Native,
    Docker,
    Podman,
    /// The tests' own cluster, with plain pods.
    Kubernetes,
    /// The same with agent-sandbox.
    AgentSandbox,
}

impl Kind {
    pub(crate) const ALL: &[Self] =
        &[Self::Native, Self::Docker, Self::Podman, Self::Kubernetes, Self::AgentSandbox];

    /// Whether this machine is the cluster's node.
    pub(crate) fn is_cluster(self) -> bool {
        matches!(self, Self::Kubernetes | Self::AgentSandbox)
    }

    /// Says loudly why a test cannot run here.
    pub(crate) fn is_there(self) -> bool {
        match engines::missing(self) {
            None => true,
            Some(why) => {
                eprintln!("SKIPPED on {self:?}: {why}");
                false
            }
        }
    }
}

/// The same tests on every backend, as `native::NAME`, `docker::NAME`, ….
macro_rules! for_each_backend {
    ($($name:ident),* $(,)?) => {
        crate::support::for_each_backend!(@ native Native $($name)*);
        crate::support::for_each_backend!(@ docker Docker $($name)*);
        crate::support::for_each_backend!(@ podman Podman $($name)*);
        crate::support::for_each_backend!(@ kubernetes Kubernetes $($name)*);
    };
    (@ $module:ident $kind:ident $($name:ident)*) => {
        mod $module {
            use crate::support::Kind;
            $(
                #[test]
                fn $name() {
                    if Kind::$kind.is_there() {
                        super::$name(Kind::$kind);
                    }
                }
            )*
        }
    };
}
pub(crate) use for_each_backend;

/// The same for what depends on how a cluster makes pods.
macro_rules! for_each_cluster {
    ($($name:ident),* $(,)?) => {
        crate::support::for_each_backend!(@ kubernetes Kubernetes $($name)*);
        crate::support::for_each_backend!(@ agent_sandbox AgentSandbox $($name)*);
    };
}
pub(crate) use for_each_cluster;

/// The same for what only engines do.
macro_rules! for_each_engine {
    ($($name:ident),* $(,)?) => {
        crate::support::for_each_backend!(@ docker Docker $($name)*);
        crate::support::for_each_backend!(@ podman Podman $($name)*);
    };
}
pub(crate) use for_each_engine;

/// Generous: only a hang is longer.
pub(crate) const HANG: Duration = Duration::from_secs(60);
/// How long an end may take that is under way: a bound on waiting, not an expectation.
const GONE_MAX: Duration = Duration::from_secs(20);

/// A place for one test's sandboxes.
pub(crate) struct Place {
    /// Removed when the test ends.
    _dir: tempfile::TempDir,
    pub(crate) kind: Kind,
    pub(crate) config: NativeConfig,
    /// Where pods run; another process of the tests may have it.
    pub(crate) cluster: Option<Cluster>,
    backend: tokio::sync::OnceCell<Arc<dyn Backend>>,
}

impl Place {
    pub(crate) fn of(kind: Kind) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed) + std::process::id() % 4_000 * 64 % 8_000;
        let dir = tempfile::tempdir().unwrap();
        // The sandbox's root passes through here on its way to a root filesystem.
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let config = NativeConfig {
            program: PathBuf::from(env!("CARGO_BIN_EXE_atoll-sandbox-init")),
            args: vec![format!("test-{}-{number}", std::process::id())],
            state_dir: dir.path().join("state"),
            uid_base: 1_000_000 + number * 65_536,
            cgroup_parent: None,
            allow_no_cgroup: !rustix::process::geteuid().is_root(),
        };
        let kit = if kind == Kind::AgentSandbox { Kit::Sandboxes } else { Kit::Plain };
        let own = kind.is_cluster() && engines::inherited().is_none();
        let cluster = own.then(|| Cluster::start(&config, kit));
        Self { _dir: dir, kind, config, cluster, backend: tokio::sync::OnceCell::new() }
    }

    pub(crate) async fn backend(&self) -> Arc<dyn Backend> {
        let backend = self.backend.get_or_init(|| async {
            match self.kind {
                Kind::Native => Arc::new(Native::new(self.config.clone()).unwrap()) as Arc<dyn Backend>,
                Kind::Docker | Kind::Podman => {
                    let config = engines::config(self.kind, &self.config);
                    Arc::new(Engine::connect(config).await.unwrap())
                }
                Kind::Kubernetes | Kind::AgentSandbox => {
                    Arc::new(Kubernetes::connect(kubernetes::config(self)).await.unwrap())
                }
            }
        });
        Arc::clone(backend.await)
    }

    /// An owner that no other test's is: an engine knows the owners of all.
    pub(crate) fn owner(&self, tenant: &str, user: &str) -> Owner {
        let unique =
            if tenant.is_empty() { String::new() } else { format!("{tenant}-{}", self.config.args[0]) };
        Owner { tenant: unique, user: user.to_owned() }
    }

    /// Where the engine or the cluster answers; empty for what has none.
    pub(crate) fn address(&self) -> String {
        if self.kind.is_cluster() {
            return self.kubeconfig().display().to_string();
        }
        engines::socket(self.kind).display().to_string()
    }

    /// How the cluster is reached.
    pub(crate) fn kubeconfig(&self) -> &Path {
        self.cluster.as_ref().map_or_else(|| engines::inherited().unwrap(), Cluster::kubeconfig)
    }

    /// Whether the init has a user of its own, beside the workload's.
    pub(crate) fn separates_users(&self) -> bool {
        (self.kind == Kind::Native || self.kind.is_cluster()) && rustix::process::geteuid().is_root()
    }

    pub(crate) async fn launch(&self, spec: &SandboxSpec) -> Result<Running<'_>, SandboxError> {
        let id = SandboxId::random()?;
        let launched = self.backend().await.launch(&id, spec).await?;
        Ok(Running { sandbox: Sandbox::new(launched.link.clone()), launched, place: self })
    }

    pub(crate) async fn start(&self) -> Running<'_> {
        self.launch(&SandboxSpec::default()).await.unwrap()
    }

    /// Everything that is left of this place's sandboxes.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let objects = self.cluster.as_ref().map(Cluster::leftovers).unwrap_or_default();
        [objects, self.running()].concat()
    }

    /// What of it uses this machine: what has ended may still be written down in a cluster.
    fn running(&self) -> Vec<String> {
        let mut left = engines::leftovers(self.kind, &self.config.state_dir);
        let marker = format!("{}\0", self.config.args[0]);
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
            let uid =
                status.lines().find_map(|line| line.strip_prefix("Uid:\t")?.split('\t').next()?.parse().ok());
            let command = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            let ours = uid.is_some_and(|uid: u32| {
                self.separates_users() && (self.config.uid_base..self.config.uid_base + 65_536).contains(&uid)
            });
            if (ours || command.contains(&marker)) && !status.contains("State:\tZ") {
                left.push(format!("process {}: {command}", entry.path().display()));
            }
        }
        for entry in fs::read_dir(&self.config.state_dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("slot-") {
                let state = fs::read_to_string(entry.path()).unwrap_or_default();
                left.push(format!("{name}: {state}"));
            }
        }
        left
    }

    /// Waits (for the kernel to finish what is under way), then insists.
    pub(crate) fn assert_clean(&self) {
        self.assert_empty(Self::leftovers);
    }

    /// The same after what a start and a running manager do about leftovers: look, and look again.
    pub(crate) async fn assert_reaped(&self) {
        let (backend, start) = (self.backend().await, Instant::now());
        loop {
            backend.reap().await.unwrap();
            if self.leftovers().is_empty() || start.elapsed() > GONE_MAX {
                return self.assert_clean();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The same but for what costs nothing.
    pub(crate) fn assert_nothing_runs(&self) {
        self.assert_empty(Self::running);
    }

    fn assert_empty(&self, left: fn(&Self) -> Vec<String>) {
        let start = Instant::now();
        while !left(self).is_empty() && start.elapsed() < GONE_MAX {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(left(self), Vec::<String>::new());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&*self.config.state_dir.to_string_lossy()), "{mounts}");
    }
}

/// cgroup directories of a sandbox.
pub(crate) fn cgroups(id: &str) -> Vec<PathBuf> {
    fn find(dir: PathBuf, name: &str, depth: u32, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy() == name {
                    found.push(entry.path());
                } else if depth < 4 {
                    find(entry.path(), name, depth + 1, found);
                }
            }
        }
    }
    let mut found = Vec::new();
    find(PathBuf::from("/sys/fs/cgroup"), &format!("atoll-{id}"), 0, &mut found);
    found
}

/// A sandbox of a test.
pub(crate) struct Running<'a> {
    pub(crate) sandbox: Sandbox,
    pub(crate) launched: Launched,
    place: &'a Place,
}

impl std::ops::Deref for Running<'_> {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.sandbox
    }
}

impl Running<'_> {
    pub(crate) async fn sh(&self, line: &str) -> Completed {
        let spec = ExecSpec::shell(line).timeout(HANG);
        let done = self.sandbox.run(spec).await.unwrap();
        assert!(!done.exit.timed_out, "{line}: hung");
        done
    }

    /// Standard output of a line that must succeed.
    pub(crate) async fn out(&self, line: &str) -> String {
        let done = self.sh(line).await;
        assert_eq!(done.exit.code, 0, "{line}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    pub(crate) async fn stop(self) -> End {
        let end = self.launched.instance.stop().await.unwrap();
        self.place.assert_clean();
        end
    }
}

/// Runs an async test.
pub(crate) fn block<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(2 * HANG, test).await.expect("the test hangs") })
}
