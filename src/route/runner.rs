//! What runs a step in a sandbox, as the gateway sees it: one trait, implemented by the bridge to containers.
//!
//! ```text
//!  SandboxStep ──run──▶ Output … Output ──▶ StepEnd            exactly one end
//!                        (stdout, stderr)     └ StepFailed: the sandbox failed, not the step
//! ```
//! The gateway lowers every language to files and a command line (see [`super::lower`]), so a runner knows
//! nothing of languages.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

pub use crate::sandboxes::Outlet;

/// Outputs that wait for a slow reader; a runner that finds the queue full waits, and with it the step.
pub const OUTPUTS_WAITING_MAX: usize = 64;
/// Largest piece of output, in bytes.
pub const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// Largest result file that a runner reads back, in bytes; a larger one is [`Value::TooLarge`].
pub const RESULT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Where the step's files are, inside the sandbox; also its working directory.
pub const STEP_DIR: &str = "/workspace/.atoll-step";
/// The file in [`STEP_DIR`] that holds `input`, as JSON.
pub const INPUT_FILE: &str = "input.json";
/// The file in [`STEP_DIR`] into which the step may write its result, as JSON.
pub const RESULT_FILE: &str = "result.json";

/// A step, ready to run: files, a command line, bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxStep {
    /// Its id, for logs and audit.
    pub id: Arc<str>,
    /// Who pays. Sandboxes of two tenants are never the same.
    pub tenant: Arc<str>,
    /// Whose sandbox within the tenant; steps of the same user find what earlier ones left.
    pub user: Arc<str>,
    /// Program and arguments; never through a shell.
    pub argv: Vec<String>,
    /// Files to put into [`STEP_DIR`] first, by relative path. The directory is empty before.
    pub files: Vec<(String, Bytes)>,
    /// The whole environment, beside what the sandbox itself sets.
    pub env: Vec<(String, String)>,
    /// Bounds.
    pub limits: StepLimits,
    /// What it may reach through the gateway; `None` is no network.
    pub egress: Option<Outlet>,
}

/// Bounds of one step. Reaching one ends its whole process tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepLimits {
    /// Wall time, in milliseconds.
    pub wall_ms: u32,
    /// Memory of all its processes, in MiB; `None` leaves it to the sandbox.
    pub memory_mib: Option<u32>,
    /// Output kept, in bytes, both streams together; more is dropped, and [`StepUsage::output_bytes`] says so.
    pub output_bytes: u32,
}

/// Which stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A piece of what a step writes, as it comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Where to.
    pub stream: Stream,
    /// At most [`OUTPUT_BYTES_MAX`] bytes; a character may be cut in two.
    pub bytes: Bytes,
}

/// How a step's own process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepExit {
    /// By itself, with this code.
    Code(u8),
    /// By this signal.
    Signal(u8),
    /// It ran out of wall time.
    WallTime,
    /// It ran out of memory.
    Memory,
}

/// What the step left in [`RESULT_FILE`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Value {
    /// No such file.
    #[default]
    None,
    /// Its bytes: a stranger's, not yet known to be JSON.
    Bytes(Bytes),
    /// It is larger than [`RESULT_BYTES_MAX`].
    TooLarge,
}

/// What a step used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepUsage {
    /// CPU time of all its processes, in microseconds.
    pub cpu_us: u64,
    /// From the call to the end, in microseconds.
    pub wall_us: u64,
    /// Part of it until the step's process started, in microseconds.
    pub start_us: u64,
    /// Memory held over time, in byte-seconds.
    pub memory_byte_seconds: u64,
    /// Largest memory, in bytes; 0 if unknown.
    pub memory_bytes_peak: u64,
    /// Output written, in bytes, dropped bytes included.
    pub output_bytes: u64,
    /// Bytes sent into the sandbox for it.
    pub bytes_in: u64,
    /// Bytes received from the sandbox for it.
    pub bytes_out: u64,
}

/// A step that ran to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepEnd {
    /// How.
    pub exit: StepExit,
    /// What it left.
    pub value: Value,
    /// What it used.
    pub usage: StepUsage,
    /// The sandbox's name, unique on the machine.
    pub sandbox: Arc<str>,
}

/// A step that the sandbox could not run, or not to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepFailed {
    /// No sandbox can be had now; nothing ran.
    #[error("no sandbox can be had now: {0}")]
    Unavailable(String),
    /// The sandbox does not have the program that the step needs; nothing ran.
    #[error("the sandbox has no {0:?}: install it in the sandbox's image")]
    NoProgram(String),
    /// The sandbox was lost while the step ran.
    #[error("the sandbox was lost while the step ran: {0}")]
    Lost(String),
}

/// A step's future.
pub type Run<'a> = Pin<Box<dyn Future<Output = Result<StepEnd, StepFailed>> + Send + 'a>>;

/// Runs steps in sandboxes.
pub trait StepRunner: Send + Sync + fmt::Debug + 'static {
    /// Runs one step to its end. Output goes to `output` while it runs; a closed channel means that nobody
    /// reads it, not that the step should stop. Dropping the future ends the step's whole process tree.
    fn run(&self, step: SandboxStep, output: mpsc::Sender<Output>) -> Run<'_>;
}
