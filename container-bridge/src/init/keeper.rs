//! The keeper: stays in the host's namespaces, holds no secret, parses nothing from inside, and cleans up.
//!
//! It holds a lock on the state file through its standard output for as long as it lives: a lock that can be taken
//! means a keeper that is gone, whatever number its process had.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::net::UnixStream,
    process::ExitCode,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid},
};

use super::{Ids, first, image, sys};
use crate::{
    error::{Code, Context, Result, SandboxError},
    frame,
    native::End,
    protocol::{Disk, FromAgent, Root, Setup},
};

/// The agent ends at the deadline by itself; this much later the keeper ends the agent.
const DEADLINE_SLACK: Duration = Duration::from_millis(500);

pub(super) fn run() -> ExitCode {
    let started = Instant::now();
    sys::usual_slices();
    let mut socket = UnixStream::from(sys::inherited(0));
    let state = File::from(sys::inherited(1));
    // By directory and name: this process may come to have a mount over the place.
    let named = fs::read_link("/proc/self/fd/1").ok();
    let place = named.as_deref().and_then(|path| Some((File::open(path.parent()?).ok()?, path.file_name()?)));
    let _ = rustix::process::setsid(); // a terminal's Ctrl-C is for the gateway; it ends sandboxes itself
    let end = match frame::read_blocking::<Setup>(&mut socket) {
        Ok(setup) => keep(&setup, &mut socket, &state, started),
        Err(_) => End::HostGone,
    };
    // The last thing: while the file is there, a reaper knows what there may be to clean.
    if let Some((dir, name)) = &place {
        let _ = rustix::fs::unlinkat(dir, *name, rustix::fs::AtFlags::empty());
    }
    drop((socket, state));
    ExitCode::from(end as u8)
}

fn keep(setup: &Setup, socket: &mut UnixStream, state: &File, started: Instant) -> End {
    let cgroup = match &setup.cgroup {
        Some(cgroup) => match cgroup.create(&setup.limits) {
            Ok(()) => Some(cgroup),
            Err(_) if setup.allow_no_cgroup => None,
            Err(error) => {
                let text = format!("cannot set the sandbox's limits: {error}");
                report(socket, SandboxError::new(Code::LimitsUnavailable, text));
                return End::Failed;
            }
        },
        None => None,
    };
    let end = match start(setup, socket, state) {
        Ok((pid, mut go)) => {
            let ready = map_ids(setup, pid)
                .and_then(|()| {
                    cgroup.map_or(Ok(()), |group| group.add(pid.as_raw_nonzero().get()).context("cgroup"))
                })
                .and_then(|()| go.write_all(b"g").context("let the sandbox go on"));
            if let Err(error) = ready {
                report(socket, error);
            }
            drop(go);
            watch(pid, socket, started + Duration::from_millis(setup.limits.lifetime_ms) + DEADLINE_SLACK)
        }
        Err(error) => {
            report(socket, error);
            End::Failed
        }
    };
    if let Some(cgroup) = cgroup {
        cgroup.kill();
        cgroup.remove();
    }
    end
}

fn report(socket: &mut UnixStream, error: SandboxError) {
    let _ = frame::write_blocking(socket, &FromAgent::Failed(error));
}

/// Clones the first process. It waits for a byte on the pipe before it does anything.
fn start(setup: &Setup, socket: &UnixStream, state: &File) -> Result<(Pid, std::io::PipeWriter)> {
    if let Root::Directory(path) | Root::Tarball(path) = &setup.root {
        rustix::process::chdir(path).context(&format!("root filesystem {}", path.display()))?;
    }
    if setup.disk == Disk::Image {
        image::mount_store(setup)?;
    }
    let (mut wait, go) = std::io::pipe().context("pipe")?;
    let socket = socket.try_clone().context("socket")?;
    let namespaces = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS;
    let state = state.try_clone().context("state file")?;
    match sys::clone_into(namespaces).context("clone into new namespaces")? {
        sys::Fork::Parent(pid) => Ok((pid, go)),
        sys::Fork::Child => {
            drop((go, state));
            // The state file's lock is the keeper's alone. The number stays taken: a descriptor that moves in there
            // would be overwritten by a command's standard output.
            if File::options()
                .write(true)
                .open("/dev/null")
                .and_then(|null| Ok(rustix::stdio::dup2_stdout(null)?))
                .is_err()
            {
                std::process::exit(1);
            }
            let mut byte = [0];
            if wait.read_exact(&mut byte).is_err() {
                std::process::exit(1);
            }
            drop(wait);
            first::run(setup, Ids::new(setup), socket)
        }
    }
}

/// Tells the kernel which users there are inside (user_namespaces(7)).
fn map_ids(setup: &Setup, pid: Pid) -> Result<()> {
    let dir = format!("/proc/{}", pid.as_raw_nonzero());
    let write = |file: &str, text: String| fs::write(format!("{dir}/{file}"), text).context(file);
    if let Some(base) = setup.uid_base {
        if base == 0 {
            return Err(SandboxError::new(Code::InvalidArgument, "the host's uid 0 is never mapped"));
        }
        write("uid_map", format!("0 {base} 65536\n"))?;
        return write("gid_map", format!("0 {base} 65536\n"));
    }
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if uid.is_root() {
        return Err(SandboxError::new(
            Code::InvalidArgument,
            "root needs a range of uids: its own is never mapped",
        ));
    }
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("{} {} 1\n", Ids::WORKLOAD, uid.as_raw()))?;
    write("gid_map", format!("{} {} 1\n", Ids::WORKLOAD, gid.as_raw()))
}

/// Waits for the sandbox's end, or brings it about.
fn watch(pid: Pid, socket: &UnixStream, deadline: Instant) -> End {
    let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
        let _ = waitpid(Some(pid), WaitOptions::empty());
        return End::Failed;
    };
    let mut why = None;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout =
            Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: i64::from(left.subsec_nanos()) };
        let mut fds =
            [PollFd::new(&handle, PollFlags::IN), PollFd::new(socket, PollFlags::RDHUP | PollFlags::HUP)];
        match poll(&mut fds, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => continue,
            Ok(0) => why = why.or(Some(End::Deadline)),
            _ if !fds[0].revents().is_empty() => break,
            _ => why = why.or(Some(End::HostGone)),
        }
        let _ = pidfd_send_signal(&handle, Signal::KILL);
        let mut only = [PollFd::new(&handle, PollFlags::IN)];
        while poll(&mut only, None) == Err(rustix::io::Errno::INTR) {}
        break;
    }
    let status = waitpid(Some(pid), WaitOptions::empty()).ok().flatten().map(|(_, status)| status);
    // The agent leaves at the deadline by itself, a moment before this process would end it.
    // Its socket ends with it, so the host may hang up first.
    if Instant::now() + DEADLINE_SLACK >= deadline {
        return End::Deadline;
    }
    why.unwrap_or_else(|| match status.and_then(|status| status.exit_status()) {
        Some(0) => End::HostGone,
        Some(_) => End::Failed,
        None => End::Killed,
    })
}
