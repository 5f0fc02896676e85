//! The init of a container that somebody else's engine made: Docker, Podman, a Kubernetes pod.
//!
//! ```text
//!  engine          namespaces, limits, files, no capability, no network, an ordinary user
//!    │ starts this program as the container's first process
//!    ▼
//!  first process   checks that, denies system calls, then only forks on request and watches the deadline
//!    ├─ agent      speaks the protocol: over standard input and output (`--contained`), or over one connection to
//!    │             an abstract socket (`--contained-socket`)
//!    └─ shim …     one per command, as in a native sandbox
//!
//!  relay           for engines whose way in is "execute a program": bytes between its streams and that socket
//! ```
//!
//! All have one user, as in a native sandbox of an ordinary user: what keeps the workload from the agent is that the
//! agent is not dumpable, and Landlock's scope for signals. A kernel without that scope lets the workload stop its own
//! agent; the deadline holds even then, because the first process of a pid namespace cannot be stopped from inside.

use std::{
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::FileType,
    process::{DumpableBehavior, set_dumpable_behavior},
    thread::CapabilitySet,
};

use super::{Ids, agent::Transport, confine, first, mounts};
use crate::{
    error::{Code, Context, Result, SandboxError},
    frame,
    kit::Kit,
    limits::START_MAX,
    native::End,
    protocol::{FromAgent, Setup},
};

/// Argument: be a container's init and speak over standard input and output.
pub const CONTAINED: &str = "--contained";
/// Argument: be a container's init and speak with the first that connects to the socket.
pub const CONTAINED_SOCKET: &str = "--contained-socket";
/// Argument: carry bytes between standard streams and the socket of the container's init.
pub const RELAY: &str = "--relay";
/// Argument, followed by a directory: put this program there with all it needs to run.
pub const INSTALL: &str = "--install";

/// The socket's abstract name: visible in the container's own network namespace only.
const SOCKET_NAME: &str = "atoll-sandbox";
/// The agent ends at the deadline by itself; this much later the first process ends.
pub(super) const DEADLINE_SLACK: Duration = Duration::from_millis(500);
/// Bytes that the relay holds in each direction.
const RELAY_BYTES: usize = 64 * 1024;
/// How long the relay waits between two tries to connect.
const RELAY_RETRY: Duration = Duration::from_millis(10);

/// Speaks over standard input and output.
pub(super) fn over_streams() -> ExitCode {
    let started = Instant::now();
    let streams = || {
        let input = io::stdin().as_fd().try_clone_to_owned()?;
        let output = io::stdout().as_fd().try_clone_to_owned()?;
        null_streams()?;
        io::Result::Ok(Transport { input, output, relay: None })
    };
    end(streams().map_or(End::Failed, |transport| attend(transport, started)))
}

/// Speaks over the first connection to the socket.
pub(super) fn over_socket() -> ExitCode {
    let started = Instant::now();
    let accepted = accept().and_then(|(socket, relay)| {
        null_streams().context("/dev/null")?;
        let output = socket.try_clone().context("socket")?;
        Ok(Transport { input: socket.into(), output: output.into(), relay })
    });
    match accepted {
        Ok(transport) => end(attend(transport, started)),
        Err(error) => {
            eprintln!("{error}"); // the pod's log is the only place where somebody may look
            end(End::Failed)
        }
    }
}

fn end(end: End) -> ExitCode {
    ExitCode::from(end as u8)
}

/// Waits for the one connection. The connecting process is spared when the workload is paused.
fn accept() -> Result<(UnixStream, Option<i32>)> {
    let listener = UnixListener::bind_addr(&address()?).context("bind the socket")?;
    if !readable(&listener, START_MAX) {
        return Err(SandboxError::new(Code::SandboxUnavailable, "nobody connected in time"));
    }
    let (socket, _) = listener.accept().context("accept")?;
    let peer = rustix::net::sockopt::socket_peercred(&socket).context("who connected")?;
    Ok((socket, Some(peer.pid.as_raw_nonzero().get())))
}

fn address() -> Result<SocketAddr> {
    SocketAddr::from_abstract_name(SOCKET_NAME).context("the socket's name")
}

fn readable(fd: &impl AsFd, within: Duration) -> bool {
    let timeout = Timespec { tv_sec: within.as_secs().cast_signed(), tv_nsec: 0 };
    loop {
        match poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(ready) => return ready > 0,
            Err(_) => return false,
        }
    }
}

/// Standard input and output lead nowhere from here on; their numbers stay taken.
pub(super) fn null_streams() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(())
}

/// Takes the set-up, confines this process, and serves until the end.
fn attend(transport: Transport, started: Instant) -> End {
    let Ok(mut output) = transport.output.try_clone().map(File::from) else { return End::Failed };
    if !readable(&transport.input, START_MAX) {
        return End::HostGone;
    }
    let Ok(mut input) = transport.input.try_clone().map(File::from) else { return End::Failed };
    let Ok(setup) = frame::read_blocking::<Setup>(&mut input) else { return End::HostGone };
    drop(input);
    match confine_self(&setup) {
        Ok(rules) => {
            drop(output);
            let deadline = started + Duration::from_millis(setup.limits.lifetime_ms) + DEADLINE_SLACK;
            first::attend(&setup, Ids::new(&setup), transport, rules, Some(deadline))
        }
        Err(error) => {
            let _ = frame::write_blocking(&mut output, &FromAgent::Failed(error));
            End::Failed
        }
    }
}

/// What can be checked and denied from inside. An engine that did not do its part is an error, not a risk to take.
fn confine_self(setup: &Setup) -> Result<first::Parts> {
    if setup.uid_base.is_some() {
        return Err(SandboxError::new(Code::InvalidArgument, "a container has one user"));
    }
    refuse_rights()?;
    let rules = confine::landlock_rules(&mounts::writable_places())?;
    confine::deny_calls()?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("hide the init")?;
    first::parts(rules)
}

/// Root in a container is, without a user namespace, root of the host: then nothing starts.
fn refuse_rights() -> Result<()> {
    if rustix::process::geteuid().is_root() || rustix::process::getuid().is_root() {
        return Err(SandboxError::new(Code::Unsupported, "the container runs as root, which is never used"));
    }
    let sets = rustix::thread::capabilities(None).context("read capabilities")?;
    if sets.effective.union(sets.permitted).union(sets.inheritable) != CapabilitySet::empty() {
        return Err(SandboxError::new(Code::Unsupported, "the container has capabilities"));
    }
    Ok(())
}

/// Carries bytes until either side ends; then both are over.
pub(super) fn relay() -> ExitCode {
    let carried = connect().and_then(|socket| {
        let back = socket.try_clone().context("socket")?;
        let inward = std::thread::spawn(move || {
            let _ = copy(&mut io::stdin().lock(), &mut &socket);
            let _ = socket.shutdown(std::net::Shutdown::Write);
        });
        let result = copy(&mut &back, &mut io::stdout().lock()).context("carry");
        drop(inward); // it may wait for input that never comes; the process ends here
        result
    });
    match carried {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn connect() -> Result<UnixStream> {
    let (address, limit) = (address()?, Instant::now() + START_MAX);
    loop {
        match UnixStream::connect_addr(&address) {
            Ok(socket) => return Ok(socket),
            Err(error) if Instant::now() > limit => return Err(error).context("connect to the init"),
            Err(_) => std::thread::sleep(RELAY_RETRY), // the init has not bound it yet
        }
    }
}

fn copy(from: &mut impl io::Read, to: &mut impl io::Write) -> io::Result<()> {
    let mut buffer = vec![0; RELAY_BYTES];
    loop {
        let length = from.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..length])?;
        to.flush()?;
    }
}

/// Puts this program into a directory that containers of other images share.
pub(super) fn install(dir: &Path) -> ExitCode {
    let installed = std::env::current_exe()
        .context("find the own program")
        .and_then(|program| Kit::of(&program)?.copy_to(dir));
    match installed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether these descriptors are pipes (else they are sockets).
pub(super) fn is_pipe(fd: &OwnedFd) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}
