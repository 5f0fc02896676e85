//! Sandboxes from this program's own binary: no daemon, no image, nothing to install.
//!
//! ```text
//!  state_dir/slot-N.json   one file per sandbox; N chooses its range of host uids
//!                          locked by the sandbox's keeper for as long as that lives
//!  state_dir/roots/…       unpacked tarballs
//! ```
//!
//! A slot is claimed by creating its file, which the kernel lets only one process do. The keeper holds a lock on the
//! file through a descriptor, so "is it alive" is never answered from a process number, which may belong to somebody
//! else by now. Process number, start time and boot id are in the file for people.

mod roots;

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::Write,
    os::unix::{
        fs::{DirBuilderExt, OpenOptionsExt},
        net::UnixStream as StdUnixStream,
    },
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

use crate::{
    backend::{Backend, BoxFuture, Instance, Launched, SandboxId, SandboxSpec},
    cgroup::{Cgroup, Reading},
    error::{Code, Context, Result, SandboxError},
    frame,
    limits::STOP_MAX,
    link::Link,
    protocol::{Disk, Root, Setup},
};

/// Host uids per sandbox.
pub const UIDS_PER_SANDBOX: u32 = 65_536;
/// First host uid of the first range, unless configured.
pub const UID_BASE_DEFAULT: u32 = 1_000_000;
/// Most slots of one machine: the ranges must end below 2^31.
pub const SLOTS_MAX: u32 = 16_384;

const _: () = assert!(UID_BASE_DEFAULT as u64 + SLOTS_MAX as u64 * (UIDS_PER_SANDBOX as u64) < (1 << 31));

/// Why a sandbox ended, as its keeper saw it: also the keeper's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum End {
    /// The host let it go.
    HostGone = 0,
    /// Its lifetime was over.
    Deadline = 10,
    /// It could not be set up, or its agent gave up.
    Failed = 11,
    /// It was killed: by the kernel for want of memory, or by somebody on the host.
    Killed = 12,
}

/// How to start sandboxes.
#[derive(Clone, Debug)]
pub struct NativeConfig {
    /// The executable that calls [`init::main`](crate::init::main) when started with `args`: usually this program.
    pub program: PathBuf,
    /// Arguments that make it do so.
    pub args: Vec<String>,
    /// Directory for state files and unpacked root filesystems; made if missing.
    pub state_dir: PathBuf,
    /// First host uid of slot 0's range, when running as root.
    pub uid_base: u32,
    /// cgroup under which sandboxes are made, relative to each hierarchy; the own one if absent.
    pub cgroup_parent: Option<String>,
    /// Start sandboxes even if memory, processes and CPU cannot be bounded. For development only.
    pub allow_no_cgroup: bool,
}

impl NativeConfig {
    /// The running program itself, with a hidden subcommand.
    ///
    /// # Errors
    /// If the program cannot find its own path.
    pub fn own_program(subcommand: &str, state_dir: impl Into<PathBuf>) -> Result<Self> {
        Ok(Self {
            program: std::env::current_exe().context("find the own program")?,
            args: vec![subcommand.to_owned()],
            state_dir: state_dir.into(),
            uid_base: UID_BASE_DEFAULT,
            cgroup_parent: None,
            allow_no_cgroup: false,
        })
    }
}

/// The native backend.
pub struct Native {
    config: NativeConfig,
}

/// What a slot's file says.
#[derive(Debug, Serialize, Deserialize)]
struct SlotState {
    id: String,
    cgroup: Option<Cgroup>,
    /// The process that asked for the sandbox, with its start time in clock ticks since boot, and which boot.
    owner_pid: u32,
    owner_start_ticks: u64,
    boot_id: String,
}

struct Slot {
    number: u32,
    path: PathBuf,
    file: File,
    keep: bool,
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Native {
    /// Checks the configuration and makes the state directory.
    ///
    /// # Errors
    /// If the uid range would hold the host's own users, or the directory cannot be made.
    pub fn new(config: NativeConfig) -> Result<Self> {
        let last = u64::from(config.uid_base) + u64::from(SLOTS_MAX) * u64::from(UIDS_PER_SANDBOX);
        if config.uid_base < UIDS_PER_SANDBOX || last >= 1 << 31 {
            let text = "uid_base must be at least 65536 and leave room for all slots below 2^31";
            return Err(SandboxError::new(Code::InvalidArgument, text));
        }
        DirBuilder::new().recursive(true).mode(0o755).create(&config.state_dir).context("state directory")?;
        // What cannot be bounded is refused when it is asked for, with the reason.
        if let Err(error) = Cgroup::prepare(config.cgroup_parent.as_deref()) {
            tracing::warn!(%error, "sandboxes cannot be bounded");
        }
        Ok(Self { config })
    }

    fn claim(&self) -> Result<Slot> {
        for number in 0..SLOTS_MAX {
            let path = self.config.state_dir.join(format!("slot-{number}.json"));
            match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
                // A reaper may have been faster with the lock; then the file is gone in a moment.
                Ok(file) if file.try_lock().is_ok() => return Ok(Slot { number, path, file, keep: false }),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).context("claim a slot"),
            }
        }
        Err(SandboxError::new(Code::SandboxUnavailable, "no free slot on this machine"))
    }

    fn setup(&self, id: &SandboxId, spec: &SandboxSpec, root: Root, slot: &Slot) -> Result<Setup> {
        spec.limits.check()?;
        let cgroup = match Cgroup::locate(id.as_str(), self.config.cgroup_parent.as_deref()) {
            Ok(cgroup) => Some(cgroup),
            Err(_) if self.config.allow_no_cgroup => None,
            Err(error) => return Err(SandboxError::new(Code::LimitsUnavailable, error.to_string())),
        };
        let root_user = rustix::process::geteuid().is_root();
        if spec.disk == Disk::Image && !root_user {
            return Err(SandboxError::new(
                Code::Unsupported,
                "a disk image needs a host that is root; use memory",
            ));
        }
        Ok(Setup {
            id: id.as_str().to_owned(),
            limits: spec.limits,
            uid_base: root_user.then(|| self.config.uid_base + slot.number * UIDS_PER_SANDBOX),
            root,
            disk: spec.disk,
            env: spec.env.clone(),
            cgroup,
            allow_no_cgroup: self.config.allow_no_cgroup,
        })
    }

    async fn start(&self, id: &SandboxId, spec: &SandboxSpec) -> Result<Launched> {
        let Opened { setup, mut socket, mut keeper } = self.open(id, spec).await?;
        let opened = match frame::write(&mut socket, &setup).await {
            Ok(()) => {
                let (input, output) = socket.into_split();
                Link::open(input, output).await
            }
            Err(error) => {
                Err(SandboxError::new(Code::BackendFailed, format!("the init does not listen: {error}")))
            }
        };
        match opened {
            Ok(link) => Ok(Launched { link, instance: Box::new(keeper) }),
            Err(error) => {
                keeper.finish().await?;
                Err(error)
            }
        }
    }

    /// A sandbox up to where its init waits to be told what it is to be: for whoever carries the protocol to somebody
    /// else, as a node of a cluster does. Gives what to tell it first, the way there, and the rest of it.
    ///
    /// # Errors
    /// As [`launch`](Backend::launch).
    pub async fn prepare(
        &self,
        id: &SandboxId,
        spec: &SandboxSpec,
    ) -> Result<(Setup, UnixStream, Box<dyn Instance>)> {
        let Opened { setup, socket, keeper } = self.open(id, spec).await?;
        Ok((setup, socket, Box::new(keeper)))
    }

    /// Claims a slot and starts the keeper.
    async fn open(&self, id: &SandboxId, spec: &SandboxSpec) -> Result<Opened> {
        // Unpacking takes long the first time, so it is no work for the event loop's threads.
        let root = match &spec.root {
            Root::Tarball(tarball) => {
                let (state_dir, tarball) = (self.config.state_dir.clone(), tarball.clone());
                let unpacking = tokio::task::spawn_blocking(move || roots::unpacked(&state_dir, &tarball));
                let dropped = |_| SandboxError::new(Code::OperationInterrupted, "the unpacking was dropped");
                Root::Directory(unpacking.await.map_err(dropped)??)
            }
            other => other.clone(),
        };
        let mut slot = self.claim()?;
        let setup = self.setup(id, spec, root, &slot)?;
        let state = SlotState {
            id: setup.id.clone(),
            cgroup: setup.cgroup.clone(),
            owner_pid: std::process::id(),
            owner_start_ticks: start_ticks().unwrap_or(0),
            boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id")
                .unwrap_or_default()
                .trim()
                .to_owned(),
        };
        let json = serde_json::to_vec(&state).map_err(std::io::Error::from).context("state file")?;
        slot.file.write_all(&json).context("state file")?;

        let (own, theirs) = StdUnixStream::pair().context("socket pair")?;
        own.set_nonblocking(true).context("socket")?;
        let hang_up = own.try_clone().context("socket")?;
        let mut command = std::process::Command::new(&self.config.program);
        command.args(&self.config.args).env_clear().current_dir("/");
        let output = slot.file.try_clone().context("state file")?;
        command.stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs))).stdout(Stdio::from(output));
        command.stderr(Stdio::null());
        let mut command = tokio::process::Command::from(command);
        let child = command.spawn().context(&format!("start {}", self.config.program.display()))?;
        drop(command); // it holds the child's ends
        // From here on the keeper removes the file, whatever happens to this process or this future.
        slot.keep = true;
        drop(slot);
        let keeper =
            Keeper { child: Some(child), hang_up, cgroup: setup.cgroup.clone(), disk: image_path(&setup.id) };
        Ok(Opened { setup, socket: UnixStream::from_std(own).context("socket")?, keeper })
    }

    fn reap_now(&self) -> Result<usize> {
        let mut reaped = 0;
        for entry in fs::read_dir(&self.config.state_dir).context("state directory")?.flatten() {
            let path = entry.path();
            if entry.file_name().to_string_lossy().starts_with("slot-") && reap_slot(&path)? {
                reaped += 1;
            }
        }
        roots::remove_partial(&self.config.state_dir);
        Ok(reaped)
    }
}

fn image_path(id: &str) -> PathBuf {
    std::env::temp_dir().join(format!("atoll-disk-{id}"))
}

/// Cleans one slot unless its keeper lives.
fn reap_slot(path: &Path) -> Result<bool> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).context("open a state file"),
    };
    if file.try_lock().is_err() {
        return Ok(false);
    }
    // A file that says nothing belongs to an owner that died before there was anything to clean.
    if let Ok(state) = serde_json::from_reader::<_, SlotState>(&file) {
        if let Some(cgroup) = &state.cgroup {
            cgroup.kill();
            if !cgroup.remove() {
                tracing::warn!(sandbox = state.id, "a dead sandbox's cgroup does not go away");
                return Ok(false);
            }
        }
        let _ = fs::remove_file(image_path(&state.id));
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context("remove a state file")
        }
        _ => Ok(true),
    }
}

/// When this process started, in clock ticks since boot (proc(5), field 22 of `stat`).
fn start_ticks() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    text.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

impl Backend for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    fn launch<'a>(&'a self, id: &'a SandboxId, spec: &'a SandboxSpec) -> BoxFuture<'a, Result<Launched>> {
        Box::pin(self.start(id, spec))
    }

    fn reap(&self) -> BoxFuture<'_, Result<usize>> {
        Box::pin(async move { self.reap_now() })
    }
}

/// A keeper that waits for its set-up.
struct Opened {
    setup: Setup,
    socket: UnixStream,
    keeper: Keeper,
}

/// The host's hold on a keeper process.
struct Keeper {
    child: Option<tokio::process::Child>,
    hang_up: StdUnixStream,
    cgroup: Option<Cgroup>,
    disk: PathBuf,
}

impl Keeper {
    /// Hangs up and waits until the keeper has cleaned up.
    async fn finish(&mut self) -> Result<End> {
        let _ = self.hang_up.shutdown(std::net::Shutdown::Both);
        let Some(mut child) = self.child.take() else { return Ok(End::HostGone) };
        match tokio::time::timeout(STOP_MAX, child.wait()).await {
            Ok(status) => Ok(match status.context("wait for the keeper")?.code() {
                Some(0) => End::HostGone,
                Some(10) => End::Deadline,
                Some(11) => End::Failed,
                _ => {
                    self.clean();
                    End::Killed
                }
            }),
            Err(_) => {
                let _ = child.start_kill();
                let _ = tokio::time::timeout(Duration::from_secs(1), child.wait()).await;
                self.clean();
                Err(SandboxError::new(Code::BackendFailed, "the sandbox did not end in time and was killed"))
            }
        }
    }

    /// What the keeper would have done, for one that was itself killed. Its state file is left to the reaper.
    fn clean(&self) {
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
            cgroup.remove();
        }
        let _ = fs::remove_file(&self.disk);
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.hang_up.shutdown(std::net::Shutdown::Both);
    }
}

impl Instance for Keeper {
    fn reading(&self) -> BoxFuture<'_, Reading> {
        Box::pin(async { self.cgroup.as_ref().map(Cgroup::read).unwrap_or_default() })
    }

    fn stop(mut self: Box<Self>) -> BoxFuture<'static, Result<End>> {
        Box::pin(async move { self.finish().await })
    }
}
