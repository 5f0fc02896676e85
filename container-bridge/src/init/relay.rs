//! The way to an init whose engine can only "execute a program" in its container, as Kubernetes does.
//!
//! ```text
//!  gateway ══ WebSocket of an exec ══▶ relay ══ abstract socket ══▶ agent        (one connection, then nobody listens)
//!
//!  install   before that, in a container of its own: copies this program to where the workload's container finds it
//! ```
//!
//! Standard streams of the first process would do, as in Docker, but a cluster keeps what a first process writes in log
//! files on its nodes; it keeps nothing of an exec. The end of the exec ends the relay, the end of the relay ends the
//! connection, and the end of that ends the init: the gateway's lifeline.
//!
//! The socket is there before any workload is, takes one connection and closes; its name exists in the container's own
//! network namespace only. The relay is outside the workload's Landlock domain and not dumpable, as the init is.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use rustix::process::{DumpableBehavior, Pid, set_dumpable_behavior};

use super::contained;
use crate::{
    error::{Code, Context, Result, SandboxError},
    kit::Kit,
    limits::START_MAX,
};

/// Argument: be a container's init and speak with the first that connects to the socket, if that comes soon.
pub const LISTEN: &str = "--contained-socket";
/// Argument: the same for a pod of a warm pool, which waits until somebody needs it.
pub const LISTEN_WARM: &str = "--contained-socket-warm";
/// Argument: carry bytes between standard streams and the socket of the container's init.
pub const RELAY: &str = "--relay";
/// Argument, followed by a directory: put this program there with all it needs to run.
pub const INSTALL: &str = "--install";

/// The socket's abstract name.
const SOCKET_NAME: &str = "atoll-sandbox";
/// Bytes that the relay holds in each direction.
const RELAY_BYTES: usize = 64 * 1024;
/// How long the relay waits between two tries to connect.
const RETRY: Duration = Duration::from_millis(10);

/// How long an init waits for its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// As long as a start may take.
    Start,
    /// For ever: whoever made the container ends it.
    Endless,
}

/// Waits for the one connection. Also says which process made it.
pub(super) fn accept(patience: Patience) -> Result<(UnixStream, Pid)> {
    let listener = UnixListener::bind_addr(&address()?).context("bind the socket")?;
    if patience == Patience::Start && !contained::readable(&listener, START_MAX) {
        return Err(SandboxError::new(Code::SandboxUnavailable, "nobody connected in time"));
    }
    let (socket, _) = listener.accept().context("accept")?;
    let peer = rustix::net::sockopt::socket_peercred(&socket).context("who connected")?;
    Ok((socket, peer.pid))
}

fn address() -> Result<SocketAddr> {
    SocketAddr::from_abstract_name(SOCKET_NAME).context("the socket's name")
}

/// Tells the container's log, which is all there is before the connection.
pub(super) fn complain(error: &SandboxError) {
    let _ = io::Write::write_all(&mut io::stderr(), format!("{error}\n").as_bytes());
}

fn status(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// Carries bytes until the init's side ends. The end of the input is told to the init, which then ends its side.
pub(super) fn run() -> ExitCode {
    let hidden = set_dumpable_behavior(DumpableBehavior::NotDumpable).context("hide the relay");
    status(hidden.and_then(|()| connect()).and_then(|socket| {
        let inward = socket.try_clone().context("socket")?;
        std::thread::spawn(move || {
            let _ = copy(&mut io::stdin().lock(), &mut &inward);
            let _ = inward.shutdown(std::net::Shutdown::Write);
        });
        // The thread may wait for input that never comes; it ends with the process.
        copy(&mut &socket, &mut io::stdout().lock()).context("carry")
    }))
}

fn connect() -> Result<UnixStream> {
    let (address, limit) = (address()?, Instant::now() + START_MAX);
    loop {
        match UnixStream::connect_addr(&address) {
            Ok(socket) => return Ok(socket),
            Err(error) if Instant::now() > limit => return Err(error).context("connect to the init"),
            Err(_) => std::thread::sleep(RETRY), // the init has not bound it yet
        }
    }
}

/// Like [`io::copy`], but what was read is passed on at once.
fn copy(from: &mut impl io::Read, to: &mut impl io::Write) -> io::Result<()> {
    let mut buffer = vec![0; RELAY_BYTES];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            length => to.write_all(&buffer[..length]).and_then(|()| to.flush())?,
        }
    }
}

/// Puts this program into a directory that containers of other images share.
pub(super) fn install(dir: &Path) -> ExitCode {
    let program = std::env::current_exe().context("find the own program");
    status(program.and_then(|program| Kit::of(&program)?.copy_to(dir)))
}
