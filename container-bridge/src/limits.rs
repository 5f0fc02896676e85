//! Every bound of the bridge, with its unit in its name, and the relations between them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Code, Result, SandboxError};

/// Bytes in a mebibyte.
pub const MIB: u64 = 1024 * 1024;

/// Most sandboxes at once in one manager, unless its configuration says otherwise.
pub const SANDBOXES_MAX: usize = 128;
/// Most sandboxes of one tenant at once, unless the configuration says otherwise.
pub const SANDBOXES_PER_TENANT_MAX: usize = 32;
/// Longest tenant or user id, in bytes.
pub const ID_BYTES_MAX: usize = 256;
/// Longest life of a sandbox by default: 10 minutes.
pub const LIFETIME_DEFAULT: Duration = Duration::from_secs(600);
/// Longest life that may be asked for: 24 hours.
pub const LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// A sandbox that nobody uses for this long is destroyed by default: 2 minutes.
pub const IDLE_DEFAULT: Duration = Duration::from_secs(120);
/// How long a start may take.
pub const START_MAX: Duration = Duration::from_secs(30);
/// How long a stop may take before the sandbox is reported lost.
pub const STOP_MAX: Duration = Duration::from_secs(15);

/// Largest frame between host and agent, in bytes.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;
/// Largest piece of a stream in one frame, in bytes.
pub const CHUNK_BYTES_MAX: usize = 64 * 1024;
/// Bytes of one stream in flight before its receiver must grant more.
pub const WINDOW_BYTES: usize = 256 * 1024;
/// Frames waiting to be written to the socket, either end.
pub const FRAMES_QUEUED_MAX: usize = 64;
/// Most operations at once in one sandbox, streams and tunnels included.
pub const OPERATIONS_MAX: usize = 256;
/// Arguments and environment of one command together, in bytes.
pub const EXEC_BYTES_MAX: usize = 128 * 1024;
/// Longest name of a process or session, in bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// Longest path, in bytes.
pub const PATH_BYTES_MAX: usize = 4096;
/// Most background processes kept, running or ended, per sandbox.
pub const PROCESSES_KEPT_MAX: usize = 64;
/// What is shown of a background process's command, in bytes: a list of all of them must fit into a frame.
pub const COMMAND_SHOWN_BYTES_MAX: usize = 1024;
/// Log kept of one background process, in bytes; older output falls out.
pub const PROCESS_LOG_BYTES_MAX: usize = 1024 * 1024;
/// Most sessions per sandbox.
pub const SESSIONS_MAX: usize = 16;
/// Most entries that one directory listing gives.
pub const LIST_ENTRIES_MAX: usize = 4_000;
/// Most directories that one recursive watch covers.
pub const WATCH_DIRECTORIES_MAX: usize = 1_024;
/// Most watch events waiting for a slow receiver; past it the watcher is told that it missed some.
pub const WATCH_EVENTS_QUEUED_MAX: usize = 1_024;
/// Most entries of an archive to restore.
pub const ARCHIVE_ENTRIES_MAX: u64 = 100_000;
/// Deepest directory of an archive to restore.
pub const ARCHIVE_DEPTH_MAX: usize = 64;
/// Output kept by `Execution::collect`, of stdout and stderr each, in bytes.
pub const COLLECT_BYTES_MAX: u64 = 8 * MIB;
/// Output of one command by default, both streams together, in bytes. What comes after is counted and dropped.
pub const OUTPUT_BYTES_DEFAULT: u64 = 64 * MIB;
/// Time between SIGTERM and SIGKILL by default.
pub const GRACE_DEFAULT: Duration = Duration::from_secs(2);
/// Longest grace that may be asked for.
pub const GRACE_MAX: Duration = Duration::from_secs(60);
/// Smallest memory a sandbox can live in, beside its disk, in bytes.
pub const MEMORY_BESIDE_DISK_BYTES_MIN: u64 = 32 * MIB;
/// The port inside the sandbox on which egress listens.
pub const EGRESS_PORT: u16 = 3128;

const _: () = assert!(CHUNK_BYTES_MAX <= WINDOW_BYTES);
const _: () = assert!(EXEC_BYTES_MAX < FRAME_BYTES_MAX);
const _: () = assert!(CHUNK_BYTES_MAX * 2 < FRAME_BYTES_MAX);
const _: () =
    assert!(PROCESSES_KEPT_MAX * (COMMAND_SHOWN_BYTES_MAX + NAME_BYTES_MAX + 256) < FRAME_BYTES_MAX);
const _: () = assert!(LIST_ENTRIES_MAX * 255 <= FRAME_BYTES_MAX);

/// What one sandbox may use, for its whole life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Memory of all processes, and of the disk where that is in memory, in bytes.
    pub memory_bytes: u64,
    /// CPU share in thousandths of one core.
    pub cpu_millis: u32,
    /// Most processes and threads at once.
    pub pids: u32,
    /// Everything the sandbox can write to, in bytes.
    pub disk_bytes: u64,
    /// Most open files of one process.
    pub open_files: u32,
    /// Life of the sandbox, in milliseconds.
    pub lifetime_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 512 * MIB,
            cpu_millis: 1_000,
            pids: 256,
            disk_bytes: 256 * MIB,
            open_files: 1_024,
            lifetime_ms: LIFETIME_DEFAULT.as_millis() as u64,
        }
    }
}

impl Limits {
    /// Refuses what no sandbox could live in.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` names the limit.
    pub fn check(&self) -> Result<()> {
        let fail = |what: &str| Err(SandboxError::new(Code::InvalidArgument, what));
        if self.memory_bytes < self.disk_bytes.saturating_add(MEMORY_BESIDE_DISK_BYTES_MIN) {
            return fail(
                "memory_bytes must be at least disk_bytes + 32 MiB, because the disk may be in memory",
            );
        }
        if !(10..=1_024_000).contains(&self.cpu_millis) {
            return fail("cpu_millis must be between 10 and 1024000");
        }
        if !(16..=32_768).contains(&self.pids) {
            return fail("pids must be between 16 and 32768");
        }
        if self.disk_bytes < MIB {
            return fail("disk_bytes must be at least 1 MiB");
        }
        if !(64..=1_048_576).contains(&self.open_files) {
            return fail("open_files must be between 64 and 1048576");
        }
        if !(1..=LIFETIME_MAX.as_millis() as u64).contains(&self.lifetime_ms) {
            return fail("lifetime_ms must be between 1 and 86400000");
        }
        Ok(())
    }
}
