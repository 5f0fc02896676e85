//! The makers of sandboxes behind one server: the same tests for each, against real daemons and the tests' cluster.
//!
//! An engine knows the owners of all its sandboxes, and every test has the same tenants. So one test has it at a time.

#[allow(dead_code, clippy::unwrap_used, reason = "of the bridge's tests, which use all of it")]
#[path = "../../container-bridge/tests/all/engines.rs"]
mod engines;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use atoll_container_bridge::native::{NativeConfig, UID_BASE_DEFAULT};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::cluster::{Cluster, Kit, NAMESPACE};
use super::{Server, can_have_sandboxes, is_root};
use crate::support::Kind;
use crate::support::atoll::{Atoll, Options};

/// Users of the cluster's nodes: away from what the other tests of this machine use, and so many for each.
const NODE_UIDS: u32 = UID_BASE_DEFAULT + 900_000_000;
const UIDS_PER_NODE: u32 = 65_536;
/// How long an engine or a cluster may take to finish what is under way.
const CLEAN: Duration = Duration::from_secs(20);

/// Declares the tests of these names once for each maker; each is a function of a [`Place`].
macro_rules! on_each_backend {
    ($($name:ident),* $(,)?) => {
        crate::sandbox::backends::on_each_backend!(@ native Native $($name)*);
        crate::sandbox::backends::on_each_backend!(@ docker Docker $($name)*);
        crate::sandbox::backends::on_each_backend!(@ podman Podman $($name)*);
        crate::sandbox::backends::on_each_backend!(@ kubernetes Kubernetes $($name)*);
    };
    (@ $module:ident $kind:ident $($name:ident)*) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    let kind = crate::support::Kind::$kind;
                    if let Some(place) = crate::sandbox::backends::Place::of(kind).await {
                        Box::pin(super::$name(place)).await;
                    }
                }
            )*
        }
    };
}
pub(crate) use on_each_backend;

/// Where one test's sandboxes are made.
pub(crate) struct Place {
    pub(crate) kind: Kind,
    cluster: Option<Node>,
    _turn: Option<OwnedMutexGuard<()>>,
}

/// A cluster, and the directory of its one node.
struct Node {
    cluster: Cluster,
    _state: tempfile::TempDir,
}

impl Place {
    /// `None` where there is no such maker: said aloud.
    pub(crate) async fn of(kind: Kind) -> Option<Self> {
        let missing = tokio::task::spawn_blocking(move || engines::missing(kind)).await.expect("no panic");
        if let Some(why) = missing {
            eprintln!("SKIPPED: {kind:?}: {why}");
            return None;
        }
        if kind == Kind::Kubernetes && !is_root() {
            eprintln!("SKIPPED: {kind:?}: the nodes of the tests' cluster need root to bound pods");
            return None;
        }
        let cluster = (kind == Kind::Kubernetes).then(|| {
            let state = tempfile::tempdir().expect("a folder");
            Node { cluster: Cluster::start(&node(state.path()), Kit::Sandboxes), _state: state }
        });
        Some(Self { kind, cluster, _turn: turn(kind).await })
    }

    /// What `[sandbox]` says of small sandboxes that are made here.
    fn entries(&self) -> Vec<String> {
        let mut entries = vec!["memory_mib = 192".to_owned(), "disk_mib = 64".to_owned()];
        match (self.kind, &self.cluster) {
            (Kind::Docker | Kind::Podman, _) => {
                let name = if self.kind == Kind::Docker { "docker" } else { "podman" };
                let socket = engines::socket(self.kind);
                entries
                    .extend([format!("backend = \"{name}\""), format!("engine = {{ socket = {socket:?} }}")]);
            }
            (_, Some(node)) => entries.extend(kubernetes(node.cluster.kubeconfig())),
            _ => {}
        }
        entries
    }

    /// The configuration of a server that makes small sandboxes here.
    pub(crate) fn config(&self) -> String {
        self.config_with("")
    }

    /// The same with `more` in the table of sandboxes, as in `, idle_s = 1`.
    pub(crate) fn config_with(&self, more: &str) -> String {
        format!("sandbox = {{ {}{more} }}", self.entries().join(", "))
    }

    /// The same as a table of its own, for the middle of a file.
    pub(crate) fn table(&self) -> String {
        format!("[sandbox]\n{}", self.entries().join("\n"))
    }

    /// Whether it learns of processes that the kernel ended for want of memory: a pod counts in its own control group, and those
    /// of the tests' cluster do not see theirs.
    pub(crate) fn counts_oom_kills(&self) -> bool {
        self.kind != Kind::Kubernetes
    }

    /// Whether the init has a user of its own, whose processes a command does not even see.
    pub(crate) fn separates_users(&self) -> bool {
        matches!(self.kind, Kind::Native | Kind::Kubernetes) && is_root()
    }

    /// Bytes of `/workspace`: an engine gives each place that can be written a share of the disk.
    pub(crate) fn workspace_bytes(&self) -> u64 {
        const DISK: u64 = 64 << 20;
        if matches!(self.kind, Kind::Docker | Kind::Podman) { DISK / 16 * 10 } else { DISK }
    }

    /// A server that makes sandboxes here, or `None` where this user cannot have any. `config` of the options holds
    /// [`config`](Self::config).
    pub(crate) async fn start(self, options: Options) -> Option<Server> {
        let atoll = Atoll::start(options).await;
        can_have_sandboxes(&atoll).await.then_some(Server { atoll, place: self })
    }

    /// With nothing special.
    pub(crate) async fn plain(self) -> Option<Server> {
        let config = self.config();
        self.start(Options { config, ..Options::default() }).await
    }

    /// Waits until neither engine nor cluster has anything of this server's sandboxes.
    pub(super) fn clean(&self, folder: &Path) {
        let began = Instant::now();
        loop {
            let mut left = engines::leftovers(self.kind, &folder.join("data").join("sandboxes"));
            left.extend(self.cluster.as_ref().map(|node| node.cluster.leftovers()).unwrap_or_default());
            if left.is_empty() {
                return;
            }
            assert!(began.elapsed() < CLEAN, "left behind: {left:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Waits for the engine, if it is one.
async fn turn(kind: Kind) -> Option<OwnedMutexGuard<()>> {
    static DOCKER: std::sync::LazyLock<Arc<Mutex<()>>> = std::sync::LazyLock::new(Arc::default);
    static PODMAN: std::sync::LazyLock<Arc<Mutex<()>>> = std::sync::LazyLock::new(Arc::default);
    let turns = match kind {
        Kind::Docker => &DOCKER,
        Kind::Podman => &PODMAN,
        _ => return None,
    };
    Some(Arc::clone(turns).lock_owned().await)
}

/// A node of the tests' cluster with users of its own.
pub(super) fn node(state: &Path) -> NativeConfig {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NativeConfig {
        program: env!("CARGO_BIN_EXE_atoll").into(),
        args: vec!["sandbox-init".to_owned()],
        state_dir: state.to_owned(),
        uid_base: NODE_UIDS + NEXT.fetch_add(1, Relaxed) * UIDS_PER_NODE,
        cgroup_parent: None,
        allow_no_cgroup: !is_root(),
    }
}

/// What `[sandbox]` says of a cluster.
pub(super) fn kubernetes(kubeconfig: &Path) -> [String; 2] {
    let cluster = format!("namespace = \"{NAMESPACE}\", image = \"tools:1\", kubeconfig = {kubeconfig:?}");
    ["backend = \"kubernetes\"".to_owned(), format!("kubernetes = {{ {cluster} }}")]
}
