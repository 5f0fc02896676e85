//! The init of a container that somebody else's engine made: Docker, Podman, a Kubernetes pod.
//!
//! ```text
//!  engine          namespaces, limits, files, no capability, no network, an ordinary user
//!    │ starts this program as the container's first process
//!    ▼
//!  first process   checks that, denies system calls, then only forks on request and watches the deadline
//!    ├─ agent      speaks the protocol: over standard input and output, or over one connection to a socket inside
//!    └─ shim …     one per command, as in a native sandbox
//! ```
//!
//! All have one user, as in a native sandbox of an ordinary user: what keeps the workload from the agent is that the
//! agent is not dumpable, and Landlock's scope for signals. A kernel without that scope lets the workload stop its own
//! agent; the deadline holds even then, because the first process of a pid namespace cannot be stopped from inside.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    process::ExitCode,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::FileType,
    process::{DumpableBehavior, set_dumpable_behavior},
    thread::CapabilitySet,
};

use super::{Ids, agent::Transport, confine, first, mounts, relay};
use crate::{
    error::{Code, Context, Result, SandboxError},
    frame,
    limits::START_MAX,
    native::End,
    protocol::{FromAgent, Setup},
};

/// Argument: be a container's init and speak over standard input and output.
pub const CONTAINED: &str = "--contained";
/// The agent ends at the deadline by itself; this much later the first process ends.
pub(super) const DEADLINE_SLACK: Duration = Duration::from_millis(500);

/// Speaks over standard input and output.
pub(super) fn over_streams() -> ExitCode {
    let started = Instant::now();
    let streams = || {
        let input = io::stdin().as_fd().try_clone_to_owned()?;
        let output = io::stdout().as_fd().try_clone_to_owned()?;
        null_streams()?;
        io::Result::Ok(Transport { input, output, relay: None })
    };
    ExitCode::from(streams().map_or(End::Failed, |transport| attend(transport, started)) as u8)
}

/// Speaks over the first connection to the socket that [`relay`] carries bytes to.
pub(super) fn over_socket(patience: relay::Patience) -> ExitCode {
    let accepted = relay::accept(patience).and_then(|(socket, relay)| {
        null_streams().context("/dev/null")?;
        let output = socket.try_clone().context("socket")?;
        Ok(Transport { input: socket.into(), output: output.into(), relay: Some(relay) })
    });
    match accepted {
        // A life begins when somebody comes for it: a pod of a warm pool may have waited for long.
        Ok(transport) => ExitCode::from(attend(transport, Instant::now()) as u8),
        Err(error) => {
            relay::complain(&error);
            ExitCode::from(End::Failed as u8)
        }
    }
}

pub(super) fn readable(fd: &impl AsFd, within: Duration) -> bool {
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
    if std::process::id() != 1 {
        // Pausing signals everyone; the deadline is the first process's, which nobody inside can stop.
        return Err(SandboxError::new(Code::Unsupported, "not the first process of a container"));
    }
    if rustix::process::geteuid().is_root() || rustix::process::getuid().is_root() {
        return Err(SandboxError::new(Code::Unsupported, "the container runs as root, which is never used"));
    }
    let sets = rustix::thread::capabilities(None).context("read capabilities")?;
    if sets.effective.union(sets.permitted).union(sets.inheritable) != CapabilitySet::empty() {
        return Err(SandboxError::new(Code::Unsupported, "the container has capabilities"));
    }
    Ok(())
}

/// Whether these descriptors are pipes (else they are sockets).
pub(super) fn is_pipe(fd: &OwnedFd) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}
