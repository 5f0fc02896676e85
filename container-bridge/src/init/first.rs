//! The first process inside: builds the sandbox in a fixed order, starts the agent, then forks what the agent asks
//! for. Single-threaded for its whole life; never allocates threads, never parses anything but the agent's requests.

use std::{
    fs::File,
    io::IoSliceMut,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::net::UnixStream},
};

use landlock::RulesetCreated;
use rustix::{
    fs::{Gid, Uid},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
        recvmsg, socketpair,
    },
    process::{DumpableBehavior, Signal, set_dumpable_behavior, set_parent_process_death_signal},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};
use serde::{Deserialize, Serialize};

use super::{Ids, agent, confine, mounts, shim, sys};
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
    let (agent_end, own_end, rules) = match build(setup, ids) {
        Ok(built) => built,
        Err(error) => {
            let _ = frame::write_blocking(&mut socket, &FromAgent::Failed(error));
            std::process::exit(1);
        }
    };
    match sys::fork() {
        Ok(sys::Fork::Child) => {
            drop((own_end, rules));
            std::process::exit(agent::run(setup, ids, socket, agent_end) as i32);
        }
        Ok(sys::Fork::Parent(_)) => {
            drop((agent_end, socket));
            // The socket is the agent's alone; the number stays taken, as for standard output.
            if File::open("/dev/null").and_then(|null| Ok(rustix::stdio::dup2_stdin(null)?)).is_err() {
                std::process::exit(1);
            }
            // Here and not per command: commands share one domain, so they may see and signal one another. The agent
            // is outside, so they may not signal it.
            if rules.restrict_self().is_err() {
                std::process::exit(1);
            }
            serve(setup, ids, &own_end);
        }
        Err(_) => std::process::exit(1),
    }
}

fn build(setup: &Setup, ids: Ids) -> Result<(OwnedFd, OwnedFd, RulesetCreated)> {
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
    sys::ignore_children();
    let flags = SocketFlags::CLOEXEC;
    let (a, b) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).context("socket pair")?;
    Ok((a, b, rules))
}

/// Forks a shim for each request, until the agent is gone: then this process ends, and with it everything inside.
fn serve(setup: &Setup, ids: Ids, requests: &OwnedFd) -> ! {
    let mut bytes = vec![0; REQUEST_BYTES_MAX];
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(REQUEST_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let length = match recvmsg(requests, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(message) if message.bytes > 0 => message.bytes,
            Err(rustix::io::Errno::INTR) => continue,
            _ => std::process::exit(End::HostGone as i32),
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
