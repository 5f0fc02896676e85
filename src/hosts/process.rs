//! One isolate host as a child process. The socket to the gateway is its standard input: the one descriptor that std can hand to
//! a child, and the child can take, without `unsafe`.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Stdio;

use atoll_bindings::link::{Link, over_socket};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

use super::output;
use super::sandbox::{self, Sandbox};

/// How an isolate host is started.
#[derive(Clone, Debug)]
pub struct HostCommand {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
}

impl HostCommand {
    /// This executable as `isolate-host --fd 0`.
    pub fn own() -> io::Result<Self> {
        Ok(Self {
            program: std::env::current_exe()?,
            args: ["isolate-host", "--fd", "0"].map(OsString::from).into(),
        })
    }

    /// Starts one. What it writes comes to us by pipes; of our environment it gets nothing but what a log needs, because secrets
    /// live in environments.
    pub(super) fn spawn(&self) -> io::Result<Spawned> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .env_clear()
            .envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            // Guests see UTC, as on Workers, wherever the machine stands.
            .env("TZ", "UTC")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let pid = child.id().unwrap_or_default();
        let pipe = || io::Error::other("a pipe to the isolate host is missing");
        output::relay(child.stderr.take().ok_or_else(pipe)?, pid);
        let sandbox = sandbox::reported(child.stdout.take().ok_or_else(pipe)?);
        Ok(Spawned { link: over_socket(ours)?, child, pid, sandbox })
    }
}

/// A host that was started.
#[derive(Debug)]
pub(super) struct Spawned {
    pub(super) link: Link,
    pub(super) child: Child,
    pub(super) pid: u32,
    /// How far it could confine itself.
    pub(super) sandbox: oneshot::Receiver<Sandbox>,
}

/// Variables that an isolate host inherits.
const INHERITED: [&str; 3] = ["RUST_BACKTRACE", "RUST_LOG", "RUST_MIN_STACK"];
