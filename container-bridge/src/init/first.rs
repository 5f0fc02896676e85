//! The first process inside: builds the sandbox in a fixed order, starts the agent, then forks what the agent asks
//! for. Single-threaded for its whole life; never allocates threads, never parses anything but the agent's requests.

use std::{
    io::IoSliceMut,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::net::UnixStream},
    time::Instant,
};

use landlock::RulesetCreated;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Gid, Uid},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
        recvmsg, socketpair,
    },
    process::{
        DumpableBehavior, Pid, Signal, kill_process, set_dumpable_behavior, set_parent_process_death_signal,
    },
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};
use serde::{Deserialize, Serialize};

use super::{
    Ids,
    agent::{self, Transport},
    confine, contained, mounts, shim, sys,
};
use crate::{
    error::{Context, Result},
    frame,
    limits::EXEC_BYTES_MAX,
    native::End,
    protocol::{FromAgent, Setup},
};

/// Bytes of one request of the agent at most: arguments and environment with their lengths.
pub(super) const REQUEST_BYTES_MAX: usize = EXEC_BYTES_MAX + 32 * 1024;
/// Descriptors with each request: the command's three, and the shim's control socket.
pub(super) const REQUEST_FDS: usize = 4;

/// What the agent asks the first process to start.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Spawn {
    pub(super) argv: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) cwd: String,
}

pub(super) fn run(setup: &Setup, ids: Ids, mut socket: UnixStream) -> ! {
    let built = build(setup, ids).and_then(|rules| {
        let output = socket.try_clone().context("socket")?;
        Ok((parts(rules)?, output))
    });
    let (parts, output) = match built {
        Ok(built) => built,
        Err(error) => {
            let _ = frame::write_blocking(&mut socket, &FromAgent::Failed(error));
            std::process::exit(1);
        }
    };
    let transport = Transport { input: socket.into(), output: output.into(), relay: None };
    std::process::exit(attend(setup, ids, transport, parts, None) as i32)
}

/// What [`attend`] needs that can fail to be made.
pub(super) struct Parts {
    agent_end: OwnedFd,
    own_end: OwnedFd,
    rules: RulesetCreated,
}

/// Makes the socket between the first process and the agent.
pub(super) fn parts(rules: RulesetCreated) -> Result<Parts> {
    sys::ignore_children();
    let flags = SocketFlags::CLOEXEC;
    let (agent_end, own_end) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).context("socket pair")?;
    Ok(Parts { agent_end, own_end, rules })
}

/// Starts the agent, then serves it. Gives the end as the agent saw it, or the deadline that this process saw.
pub(super) fn attend(
    setup: &Setup,
    ids: Ids,
    transport: Transport,
    Parts { agent_end, own_end, rules }: Parts,
    deadline: Option<Instant>,
) -> End {
    match sys::fork() {
        Ok(sys::Fork::Child) => {
            drop((own_end, rules));
            std::process::exit(agent::run(setup, ids, transport, agent_end) as i32);
        }
        Ok(sys::Fork::Parent(agent)) => {
            drop((agent_end, transport));
            // The streams are the agent's alone; the numbers stay taken.
            if contained::null_streams().is_err() {
                return End::Failed;
            }
            // Here and not per command: commands share one domain, so they may see and signal one another. The agent
            // is outside, so they may not signal it.
            if rules.restrict_self().is_err() {
                return End::Failed;
            }
            serve(setup, ids, &own_end, agent, deadline)
        }
        Err(_) => End::Failed,
    }
}

fn build(setup: &Setup, ids: Ids) -> Result<RulesetCreated> {
    if ids.separate {
        let (root_user, root_group) = (Uid::ROOT, Gid::ROOT);
        set_thread_groups(&[]).context("drop groups")?;
        set_thread_res_gid(root_group, root_group, root_group).context("become root inside")?;
        set_thread_res_uid(root_user, root_user, root_user).context("become root inside")?;
    }
    set_parent_process_death_signal(Some(Signal::KILL)).context("die with the keeper")?;
    sys::own_cgroup_namespace().context("cgroup namespace")?;
    rustix::system::sethostname(b"sandbox").context("host name")?;
    sys::loopback_up().context("loopback interface")?;
    let writable = mounts::build(setup, ids)?;
    let rules = confine::landlock_rules(&writable)?;
    confine::drop_capabilities()?;
    confine::deny_calls()?;
    // Nobody inside may read or trace this process, not even where the workload has the same user.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("hide the init")?;
    Ok(rules)
}

/// Forks a shim for each request, until the agent is gone: then this process ends, and with it everything inside.
fn serve(setup: &Setup, ids: Ids, requests: &OwnedFd, agent: Pid, deadline: Option<Instant>) -> End {
    let mut bytes = vec![0; REQUEST_BYTES_MAX];
    loop {
        if !wait_until(requests, deadline) {
            let _ = kill_process(agent, Signal::KILL); // it may have been stopped
            return End::Deadline;
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(REQUEST_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let length = match recvmsg(requests, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(message) if message.bytes > 0 => message.bytes,
            Err(rustix::io::Errno::INTR) => continue,
            // The agent leaves at the deadline by itself, a moment before this process would.
            _ if deadline.is_some_and(|at| Instant::now() + contained::DEADLINE_SLACK >= at) => {
                return End::Deadline;
            }
            _ => return End::HostGone,
        };
        let fds: Vec<OwnedFd> = control
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                _ => None,
            })
            .flatten()
            .collect();
        let (Ok(spawn), Ok(fds)) =
            (postcard::from_bytes::<Spawn>(&bytes[..length]), <[OwnedFd; REQUEST_FDS]>::try_from(fds))
        else {
            continue; // the descriptors are closed, which the agent sees as a failed start
        };
        // A failed fork (no more processes) closes the descriptors too.
        if let Ok(sys::Fork::Child) = sys::fork() {
            shim::run(&spawn, fds, setup, ids);
        }
    }
}

/// Waits for a request. Says whether it came before the deadline.
fn wait_until(requests: &OwnedFd, deadline: Option<Instant>) -> bool {
    let Some(deadline) = deadline else { return true };
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout =
            Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::new(requests, PollFlags::IN)], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) => return false,
            _ => return true,
        }
    }
}
