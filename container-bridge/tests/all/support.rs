//! One sandbox per test, in a state directory and a range of uids of its own, and the look for leftovers.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use atoll_container_bridge::{
    backend::{Backend, Launched, SandboxId, SandboxSpec},
    error::SandboxError,
    native::{End, Native, NativeConfig},
    protocol::ExecSpec,
    sandbox::{Completed, Sandbox},
};

/// Generous: only a hang is longer.
pub(crate) const HANG: Duration = Duration::from_secs(60);

/// A place for one test's sandboxes.
pub(crate) struct Place {
    /// Removed when the test ends.
    _dir: tempfile::TempDir,
    pub(crate) config: NativeConfig,
    marker: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed) + std::process::id() % 4_000 * 64 % 8_000;
        let dir = tempfile::tempdir().unwrap();
        // The sandbox's root passes through here on its way to a root filesystem.
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let marker = format!("test-{}-{number}", std::process::id());
        let config = NativeConfig {
            program: PathBuf::from(env!("CARGO_BIN_EXE_atoll-sandbox-init")),
            args: vec![marker.clone()],
            state_dir: dir.path().join("state"),
            uid_base: 1_000_000 + number * 65_536,
            cgroup_parent: None,
            allow_no_cgroup: !rustix::process::geteuid().is_root(),
        };
        Self { _dir: dir, config, marker }
    }

    pub(crate) fn native(&self) -> Native {
        Native::new(self.config.clone()).unwrap()
    }

    pub(crate) async fn launch(&self, spec: &SandboxSpec) -> Result<Running<'_>, SandboxError> {
        let id = SandboxId::random()?;
        let launched = self.native().launch(&id, spec).await?;
        Ok(Running { sandbox: Sandbox::new(launched.link.clone()), launched, place: self })
    }

    pub(crate) async fn start(&self) -> Running<'_> {
        self.launch(&SandboxSpec::default()).await.unwrap()
    }

    /// Everything that is left of this place's sandboxes.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
            let uid =
                status.lines().find_map(|line| line.strip_prefix("Uid:\t")?.split('\t').next()?.parse().ok());
            let command = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            let ours = uid.is_some_and(|uid: u32| {
                rustix::process::geteuid().is_root()
                    && (self.config.uid_base..self.config.uid_base + 65_536).contains(&uid)
            });
            if (ours || command.contains(&format!("{}\0", self.marker))) && !status.contains("State:\tZ") {
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
        let start = Instant::now();
        while !self.leftovers().is_empty() && start.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(self.leftovers(), Vec::<String>::new());
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
