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

    /// Starts one. Its standard error goes where ours goes; of our environment it gets nothing but what a log needs, because
    /// secrets live in environments.
    pub(super) fn spawn(&self) -> io::Result<(Link, Child)> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .env_clear()
            .envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true);
        let child = command.spawn()?;
        Ok((over_socket(ours)?, child))
    }
}

/// Variables that an isolate host inherits.
const INHERITED: [&str; 4] = ["RUST_BACKTRACE", "RUST_LOG", "RUST_MIN_STACK", "TZ"];
