//! What the isolate host's process gives up before it runs anything.
//!
//! ```text
//!  open what is needed ▸ namespaces ▸ user, capabilities ▸ limits ▸ Landlock ▸ system call filter ▸ threads, V8, guests
//!    socket, statm        no network   none is left         no core   no path    what V8 needs, no more
//!                         empty root
//! ```
//!
//! V8 is a large program that runs hostile input. Should a guest break out of it, it finds itself in a process that can compute,
//! allocate, and write to one socket whose other end believes nothing. Every layer stands alone: the filter refuses the calls that
//! open a file or a socket, Landlock refuses the paths, the namespaces hold neither files nor interfaces, and there is no
//! capability to change any of it back. A kernel or a container may refuse a layer; the others are applied all the same, and the
//! report says what is missing, so that the gateway can show it, or refuse to serve.
//!
//! Everything here must run while the process has one thread: namespaces, capabilities and Landlock belong to a thread, and are
//! inherited by the threads that it starts.

mod namespaces;
mod paths;
mod privileges;
pub mod probe;
mod syscalls;

use std::fmt;

/// One way in which the process is confined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// A network namespace with nothing but a loopback that is down, and System V IPC and host names of its own.
    Namespaces,
    /// A mount namespace whose root is empty and read-only.
    Root,
    /// No capabilities, none to be gained, and not the user `root`.
    Privileges,
    /// No core dumps, no files written, few descriptors, no debugger.
    Limits,
    /// Landlock: no path can be opened, no TCP port used, no process outside signalled.
    Landlock,
    /// The system call filter.
    Syscalls,
}

impl Layer {
    /// All, in the order in which they are applied.
    pub const ALL: [Self; 6] =
        [Self::Namespaces, Self::Root, Self::Privileges, Self::Limits, Self::Landlock, Self::Syscalls];

    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Root => "root",
            Self::Privileges => "privileges",
            Self::Limits => "limits",
            Self::Landlock => "landlock",
            Self::Syscalls => "syscalls",
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A layer that could not be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Which.
    pub layer: Layer,
    /// Why not.
    pub reason: String,
}

/// Why a layer could not be applied: which step, and the system's error.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {error}")]
struct Refused {
    step: &'static str,
    error: std::io::Error,
}

/// Names the step that an error belongs to.
trait Step<T> {
    fn step(self, step: &'static str) -> Result<T, Refused>;
}

impl<T, E: Into<std::io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: &'static str) -> Result<T, Refused> {
        self.map_err(|error| Refused { step, error: error.into() })
    }
}

/// Closes every descriptor but the standard streams. The first thing that a host does: it has opened nothing yet.
///
/// # Errors
/// If the kernel is older than 5.9.
pub fn close_inherited() -> std::io::Result<()> {
    privileges::close_inherited()
}

/// Confines this process for good. Returns the layers that could not be applied; the others are.
///
/// The process must have one thread, and must have opened what it wants to use.
#[must_use]
pub fn confine() -> Vec<Missing> {
    confine_with(&Layer::ALL)
}

/// The same with some of the layers only: a probe looks at what each of them holds.
fn confine_with(layers: &[Layer]) -> Vec<Missing> {
    // Read when the process is confined: see there.
    crate::resident::open();
    crate::pool::count_cores();
    let mut missing = Vec::new();
    for &layer in Layer::ALL.iter().filter(|layer| layers.contains(layer)) {
        let applied = match layer {
            Layer::Namespaces => namespaces::leave(),
            Layer::Root => namespaces::empty_root(),
            Layer::Privileges => privileges::drop_all(),
            Layer::Limits => privileges::limit(),
            Layer::Landlock => paths::deny_all(),
            Layer::Syscalls => syscalls::install(),
        };
        if let Err(refused) = applied {
            missing.push(Missing { layer, reason: refused.to_string() });
        }
    }
    missing
}
