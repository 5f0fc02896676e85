//! The inside of a native sandbox, and the small process that keeps it.
//!
//! ```text
//!  gateway (tokio, many threads)
//!    │ spawns its own binary again: std::process::Command, no work between fork and exec
//!    ▼
//!  keeper        host namespaces; makes the cgroup, then only waits: for the end of the sandbox, for the
//!    │           gateway to go away, or for the deadline; then kills and removes everything
//!    │ clone into new namespaces
//!    ▼
//!  first process pid 1 inside: builds the files, drops rights, then only forks on request
//!    ├─ agent    the one with an event loop: speaks the protocol with the gateway
//!    └─ shim …   one per command: adopts everything the command leaves behind, so a tree can be killed whole
//!         └─ workload   other uid, no capability
//! ```
//!
//! Why so many: a process that forks must have one thread; an agent that streams many things at once wants an event
//! loop and threads for files; and only a parent that adopts orphans (`PR_SET_CHILD_SUBREAPER`) finds a daemon that
//! forked twice. All but the workload are copies of one small process: they share their memory.
//!
//! Every process has its own reason to die when the one above is gone: the keeper sees the socket hang up, the first
//! process gets SIGKILL when the keeper dies, a pid namespace dies with its first process, the first process leaves
//! when the agent is gone, the agent leaves when the socket ends or the deadline comes. So a gateway killed with
//! SIGKILL leaves nothing behind, and a stopped one (SIGSTOP) cannot prolong a life.
//!
//! The one set-up that never happens is host uid 0 inside: root here is a range of unused uids, an ordinary user
//! is itself. A root that owns `/proc/sys` of the host is not contained by any of the rest.
#![allow(unsafe_code, reason = "forks, namespaces and loop devices have no safe interface; see sys.rs")]

mod agent;
mod confine;
pub mod contained;
mod first;
mod image;
mod keeper;
mod mounts;
pub mod relay;
mod shim;
mod sys;

use std::{path::Path, process::ExitCode};

pub(crate) use mounts::{HOST_DIRS, HOST_ETC, PROC_MASKED, WORKSPACE};
use rustix::fs::{Gid, Uid};

use crate::{
    error::{Context, Result},
    protocol::Setup,
};

/// Runs as a sandbox's init: standard input is the socket to the gateway, standard output the state file.
///
/// For the hidden subcommand that [`Native`](crate::native::Native) starts; must be the first thing a process does
/// (it has to be single-threaded). The arguments of [`contained`] and [`relay`] make it something of a container instead.
#[must_use]
pub fn main() -> ExitCode {
    let mut words = std::env::args_os().rev();
    let (last, before) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    match (before.to_str(), last.to_str()) {
        (Some(relay::INSTALL), _) => relay::install(Path::new(&last)),
        (_, Some(contained::CONTAINED)) => contained::over_streams(),
        (_, Some(relay::LISTEN)) => contained::over_socket(relay::Patience::Start),
        (_, Some(relay::LISTEN_WARM)) => contained::over_socket(relay::Patience::Endless),
        (_, Some(relay::RELAY)) => relay::run(),
        _ => keeper::run(),
    }
}

/// Who the workload is, inside.
#[derive(Clone, Copy)]
struct Ids {
    /// Whether init and workload are different users. An ordinary user can map only itself.
    separate: bool,
    uid: u32,
    gid: u32,
}

impl Ids {
    /// The workload's user and group inside, in either mode.
    const WORKLOAD: u32 = 1000;

    fn new(setup: &Setup) -> Self {
        Self { separate: setup.uid_base.is_some(), uid: Self::WORKLOAD, gid: Self::WORKLOAD }
    }

    /// Gives a path to the workload.
    fn own(self, path: &Path) -> Result<()> {
        if !self.separate {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        rustix::fs::chown(path, Some(uid), Some(gid)).context("give a directory to the workload")
    }
}
