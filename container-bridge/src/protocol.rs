//! The messages between the host and the agent inside a sandbox.
//!
//! ```text
//!  host                                       agent
//!   Request{id, op}  ───────────────────────▶   starts the operation
//!   Data{id} End{id} ── stdin, file bodies ─▶
//!   Credit{id, n}    ── "send me n more" ───▶
//!   Cancel{id}       ───────────────────────▶   kills, closes
//!                    ◀── Data{id, channel} ──   stdout, stderr, file bodies, tunnel bytes
//!                    ◀── Credit{id, n} ──────   "send me n more"
//!                    ◀── Reply{id, result} ──   exactly one per request, always the last
//! ```
//!
//! One socket carries everything, tunnels to ports and the egress included: so the same protocol serves a sandbox
//! behind a Unix socket and one behind a container engine's attach stream, no thread of the host enters a foreign
//! network namespace, and no descriptor of the host is ever inside. Streams have credit in both directions
//! ([`WINDOW_BYTES`](crate::limits::WINDOW_BYTES)), so one slow reader never blocks another's bytes.
//!
//! Operation numbers are the host's. Streams that the agent opens (egress connections) have the top bit set.
//! Host and agent are always the same build: the protocol has no versions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::SandboxError;

/// The number of an operation or stream.
pub type Id = u32;

/// Set in the numbers of streams that the agent opens.
pub const AGENT_ID: Id = 1 << 31;

/// From host to agent.
#[allow(missing_docs, reason = "the fields are told by the variants' texts")]
#[derive(Debug, Serialize, Deserialize)]
pub enum ToAgent {
    /// Begins an operation.
    Request { id: Id, op: Op },
    /// Bytes for an operation's input.
    Data { id: Id, bytes: Vec<u8> },
    /// The input is complete.
    End { id: Id },
    /// The agent may send this many more bytes.
    Credit { id: Id, bytes: u32 },
    /// Nobody waits for this any more.
    Cancel { id: Id },
}

/// From agent to host.
#[allow(missing_docs, reason = "the fields are told by the variants' texts")]
#[derive(Debug, Serialize, Deserialize)]
pub enum FromAgent {
    /// The sandbox is up. The first frame, unless `Failed` comes instead.
    Ready,
    /// The sandbox could not be made.
    Failed(SandboxError),
    /// An operation has an early answer (a command has started).
    Started { id: Id },
    /// Bytes of an operation.
    Data { id: Id, channel: Channel, bytes: Vec<u8> },
    /// The host may send this many more bytes.
    Credit { id: Id, bytes: u32 },
    /// A change under a watched directory.
    Changed { id: Id, event: WatchEvent },
    /// Somebody inside connected to the egress port.
    Accepted { id: Id },
    /// The end of an operation.
    Reply { id: Id, result: Result<Answer, SandboxError> },
}

/// Which stream some bytes belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Channel {
    /// Standard output, and the only stream of files and tunnels.
    Out,
    /// Standard error.
    Err,
}

/// What to run.
#[allow(missing_docs, reason = "the fields are told by the variants' texts")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// A program and its arguments; looked up in `PATH` unless it has a slash.
    Argv(Vec<String>),
    /// A line for `sh -c`.
    Shell(String),
}

impl Command {
    /// As one line for people, cut at [`COMMAND_SHOWN_BYTES_MAX`](crate::limits::COMMAND_SHOWN_BYTES_MAX).
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = match self {
            Self::Argv(argv) => argv.join(" "),
            Self::Shell(line) => line.clone(),
        };
        line.truncate(line.floor_char_boundary(crate::limits::COMMAND_SHOWN_BYTES_MAX));
        line
    }
}

/// A command and its surroundings.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExecSpec {
    /// What to run.
    pub command: Command,
    /// Variables on top of the sandbox's and the session's.
    pub env: BTreeMap<String, String>,
    /// Working directory; the workspace if absent.
    pub cwd: Option<String>,
    /// Whether `Data` frames will bring standard input; else it is empty.
    pub stdin: bool,
    /// Wall time, in milliseconds, after which the whole tree is ended.
    pub timeout_ms: Option<u64>,
    /// Time from SIGTERM to SIGKILL, in milliseconds.
    pub grace_ms: u64,
    /// Output passed on, both streams together, in bytes; the rest is counted and dropped.
    pub output_bytes_max: u64,
    /// Run inside this session's shell.
    pub session: Option<String>,
}

/// What to do.
#[allow(missing_docs, reason = "the fields are told by the variants' texts")]
#[derive(Debug, Serialize, Deserialize)]
pub enum Op {
    /// Runs a command to its end: `Started`, `Data`…, then `Answer::Exit`.
    Exec(ExecSpec),
    /// Starts a background process under a name.
    Start { name: String, spec: ExecSpec },
    /// All background processes.
    Processes,
    /// Sends a signal to every process of a background process's tree.
    Signal { name: String, signal: i32 },
    /// SIGTERM, grace, SIGKILL to the whole tree; answers when it is gone.
    Kill { name: String, grace_ms: u64 },
    /// The kept log, then, if asked, what follows until the process ends.
    Logs { name: String, follow: bool },
    /// Waits until something listens.
    WaitPort { port: u16, timeout_ms: u64 },
    /// Waits until this text stands in the log of a background process.
    WaitLog { name: String, text: String, timeout_ms: u64 },
    /// Waits until a background process has ended.
    WaitExit { name: String, timeout_ms: u64 },
    /// Reads a file from `offset`, at most `length` bytes.
    Read { path: String, offset: u64, length: Option<u64> },
    /// Writes `Data` up to `End` beside the file, then puts it in its place.
    Write { path: String, mode: Option<u32>, bytes_max: u64 },
    /// Metadata of one path; the last link is not followed.
    Stat { path: String },
    /// Entries of a directory.
    List { path: String },
    /// Makes a directory.
    Mkdir { path: String, parents: bool },
    /// Moves a file or directory; an existing file is replaced.
    Rename { from: String, to: String },
    /// Deletes a file or directory.
    Delete { path: String, recursive: bool },
    /// Reports changes until cancelled.
    Watch { path: String, recursive: bool },
    /// Makes a session.
    SessionCreate { name: String, env: BTreeMap<String, String>, cwd: Option<String> },
    /// Ends a session and everything that runs in it.
    SessionDelete { name: String },
    /// Names of the sessions.
    Sessions,
    /// Variables for all commands from now on; `None` removes one.
    SetEnv { env: BTreeMap<String, Option<String>> },
    /// What the sandbox uses right now, as seen from inside.
    Usage,
    /// A tar of the workspace, with everything paused.
    Snapshot,
    /// Replaces the workspace by the tar in `Data`, or leaves it as it was.
    Restore { bytes_max: u64 },
    /// Connects to a port inside and carries bytes both ways.
    Connect { port: u16 },
    /// Listens on the egress port; each connection becomes an `Accepted` stream.
    Egress,
}

/// The good end of an operation.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// Nothing to say.
    Done,
    /// A command ended.
    Exit(Exit),
    /// One background process.
    Process(ProcessInfo),
    /// All of them.
    Processes(Vec<ProcessInfo>),
    /// A file's metadata.
    Stat(FileInfo),
    /// A directory's entries.
    List(Vec<FileInfo>),
    /// Names.
    Names(Vec<String>),
    /// Use of resources.
    Usage(InsideUsage),
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit status, or 128 + signal as a shell would say.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// It was ended because its time was over.
    pub timed_out: bool,
    /// Output that was dropped because of the bound, in bytes.
    pub dropped_bytes: u64,
    /// From start to end, in microseconds.
    pub wall_us: u64,
}

/// Where a background process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProcessStatus {
    /// It runs.
    Running,
    /// It ended by itself with status 0.
    Completed,
    /// It ended by itself with another status.
    Failed,
    /// A signal or its timeout ended it.
    Killed,
}

/// A background process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Its name, unique in the sandbox.
    pub name: String,
    /// Its number inside the sandbox.
    pub pid: i32,
    /// What was asked for, as one line, cut.
    pub command: String,
    /// When it started, in milliseconds since 1970.
    pub started_ms: i64,
    /// When it ended.
    pub ended_ms: Option<i64>,
    /// Its state.
    pub status: ProcessStatus,
    /// How it ended.
    pub exit: Option<Exit>,
    /// Log bytes that fell out of the ring.
    pub log_dropped_bytes: u64,
}

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// Device, pipe or socket.
    Other,
}

/// Metadata of one path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileInfo {
    /// The last component.
    pub name: String,
    /// What it is.
    pub kind: FileKind,
    /// Size, in bytes.
    pub size_bytes: u64,
    /// Permission bits.
    pub mode: u32,
    /// Last change, in milliseconds since 1970.
    pub modified_ms: i64,
}

/// A change under a watched directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WatchEvent {
    /// The watch is set: changes from now on are reported.
    Watching,
    /// A new file or directory.
    Created(String),
    /// New content, or changed metadata.
    Modified(String),
    /// It is no longer there.
    Deleted(String),
    /// Events were lost: look again at the whole directory.
    Overflow,
}

/// What a sandbox uses right now, seen from inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InsideUsage {
    /// Processes, the agent's own included.
    pub processes: u32,
    /// Written bytes that the disk holds.
    pub disk_used_bytes: u64,
    /// What the disk can hold, in bytes.
    pub disk_bytes: u64,
    /// For hosts that cannot read it from outside.
    pub reading: crate::cgroup::Reading,
}

/// How a sandbox is to be set up: the first frame, read by the init before anything else.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// The sandbox's own name: part of cgroup names, and the host name's suffix.
    pub id: String,
    /// Bounds.
    pub limits: crate::limits::Limits,
    /// First host uid of the range that becomes 0..65536 inside; `None` maps the one uid of the caller.
    pub uid_base: Option<u32>,
    /// Where the files come from.
    pub root: Root,
    /// Where written bytes go.
    pub disk: Disk,
    /// Environment of every command.
    pub env: BTreeMap<String, String>,
    /// The cgroup to make; `None` when the host has none to offer and the operator allowed that.
    pub cgroup: Option<crate::cgroup::Cgroup>,
    /// Go on without the cgroup if it cannot be made.
    pub allow_no_cgroup: bool,
}

/// Where the files of a sandbox come from.
#[allow(missing_docs, reason = "the fields are told by the variants' texts")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Root {
    /// The host's `/usr`, `/bin`, `/lib`, read-only, over an otherwise empty root: nothing to prepare.
    Host,
    /// A directory with a root filesystem, used read-only under an overlay.
    Directory(std::path::PathBuf),
    /// A tarball of one; unpacked once, then used as a directory.
    Tarball(std::path::PathBuf),
}

/// Where written bytes go.
#[allow(missing_docs, reason = "the fields are told by the variants' texts")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Disk {
    /// A tmpfs of bounded size, charged to the sandbox's memory.
    Memory,
    /// An ext4 image in a deleted file of bounded size; needs root on the host.
    Image,
}
