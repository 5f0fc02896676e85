//! The system calls that have no safe wrapper. All `unsafe` of this crate is here and in `image.rs`.
//!
//! [`fork`] and [`clone_into`] are sound because the processes that call them (keeper, first process, shims) are
//! single-threaded for their whole life: the child finds no lock held by a thread that does not exist there.

use std::{
    ffi::{CString, c_char},
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr,
    time::Duration,
};

use rustix::process::Pid;

/// Which of the two processes this is after a fork.
pub(super) enum Fork {
    /// The new process.
    Child,
    /// The old one, and the number of the new one.
    Parent(Pid),
}

fn check(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn forked(result: i64) -> io::Result<Fork> {
    Ok(match Pid::from_raw(check(result)? as i32) {
        None => Fork::Child,
        Some(pid) => Fork::Parent(pid),
    })
}

/// Duplicates this single-threaded process.
pub(super) fn fork() -> io::Result<Fork> {
    // JUSTIFICATION: a child must do work of its own before it executes a program, in an init with one thread.
    // SAFETY: the caller is single-threaded (module doc), so every lock of the copied memory is free or its own.
    forked(i64::from(unsafe { libc::fork() }))
}

/// Duplicates this single-threaded process into new namespaces.
pub(super) fn clone_into(namespaces: i32) -> io::Result<Fork> {
    // JUSTIFICATION: entering a pid and a user namespace together at birth needs clone's flags; fork has none.
    // SAFETY: without CLONE_VM and with no new stack this is fork (the child returns here on a copy of this stack);
    // the caller is single-threaded, as for `fork`.
    forked(unsafe { libc::syscall(libc::SYS_clone, i64::from(namespaces | libc::SIGCHLD), 0, 0, 0, 0) })
}

/// CPU time of this process and of all that it has collected, descendants included.
pub(super) fn cpu_time() -> Duration {
    let mut total = Duration::ZERO;
    for who in [libc::RUSAGE_SELF, libc::RUSAGE_CHILDREN] {
        // JUSTIFICATION: `/proc` tells it in ticks only, cut off for each process.
        // SAFETY: a `rusage` is plain numbers, for which zeros are values, and the kernel writes no more than one.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            (libc::getrusage(who, &raw mut usage) == 0).then_some(usage)
        };
        for time in usage.iter().flat_map(|usage| [usage.ru_utime, usage.ru_stime]) {
            total += Duration::from_secs(time.tv_sec.unsigned_abs());
            total += Duration::from_micros(time.tv_usec.unsigned_abs());
        }
    }
    total
}

/// Replaces this process; returns only the reason why not.
pub(super) fn execve(program: &CString, argv: &[CString], env: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const c_char> {
        strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // JUSTIFICATION: std's exec would keep its own rules about signals and environment.
    // SAFETY: both arrays end in null, and they and their strings live until the call returns.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Takes the system's usual share of a processor: the gateway asks for one that answers soon (`sched_setattr(2)`), and
/// what runs in a sandbox computes. Without effect where there is no such thing.
pub(super) fn usual_slices() {
    let size = size_of::<libc::sched_attr>();
    // JUSTIFICATION: no library of the tree has these calls.
    // SAFETY: all fields are integers, for which zero is a value.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes at most `size` bytes to the local, and reads as many in the second call.
    unsafe {
        if libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) == 0 {
            attributes.size = size as u32;
            attributes.sched_runtime = 0;
            libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0);
        }
    }
}

/// Blocks SIGCHLD and gives a descriptor that becomes readable when a child ends.
pub(super) fn child_signals() -> io::Result<OwnedFd> {
    // JUSTIFICATION: waiting for children and for a socket in one poll needs a signal as a descriptor.
    // SAFETY: the set is plain memory, initialised by sigemptyset before use; the descriptor is new and only ours.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        check(i64::from(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut())))?;
        let fd =
            check(i64::from(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)))?;
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}

/// Lets the kernel reap this process's children by itself.
pub(super) fn ignore_children() {
    // JUSTIFICATION: the first process adopts every orphan and has nothing to learn from them.
    // SAFETY: SIG_IGN installs no handler of ours.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// All signals back to their default, none blocked: what a program expects at its start.
pub(super) fn default_signals() {
    // JUSTIFICATION: ignored and blocked signals survive execve.
    // SAFETY: SIG_DFL installs no handler of ours; the set is initialised before use.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut());
    }
}

/// Marks every descriptor but the three standard ones to be closed at execve.
pub(super) fn close_others_on_exec() -> io::Result<()> {
    // JUSTIFICATION: no descriptor of the init may reach a program, whatever code opened it.
    // SAFETY: only flags of descriptors change; none is closed under an owner.
    check(unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })
        .map(drop)
}

/// The user and group as which the calling *thread* touches files. Leaving 0 also drops the file capabilities.
pub(super) fn set_file_ids(uid: u32, gid: u32) {
    // JUSTIFICATION: files are touched by threads of the agent as the sandbox's user; only these two calls are
    // per thread by design.
    // SAFETY: they change the credentials of the calling thread only and touch no memory.
    unsafe {
        libc::setfsgid(gid);
        libc::setfsuid(uid);
    }
}

/// A signal to every process of this pid namespace but the first and the caller.
pub(super) fn signal_everyone(signal: i32) {
    // JUSTIFICATION: rustix has no way to say "-1".
    // SAFETY: touches no memory; outside of its own pid namespace this would be fatal, and the agent is always in one
    // (it starts only as a child of a namespace's first process).
    unsafe { libc::kill(-1, signal) };
}

/// A signal by number to one process.
pub(super) fn signal(pid: Pid, signal: i32) -> io::Result<()> {
    // JUSTIFICATION: callers choose any signal, rustix takes only named ones without unsafe.
    // SAFETY: touches no memory; a bad number is EINVAL.
    check(i64::from(unsafe { libc::kill(pid.as_raw_nonzero().get(), signal) })).map(drop)
}

/// Switches the loopback interface of this network namespace on.
pub(super) fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    // JUSTIFICATION: interface flags are set by ioctl or netlink, neither of which rustix wraps.
    // SAFETY: ifreq is plain memory, all zeros is valid; the name fits with its end; the kernel reads and writes
    // only this struct.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as c_char;
        request.ifr_name[1] = b'o' as c_char;
        check(i64::from(libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &raw mut request)))?;
        request.ifr_ifru.ifru_flags |= (libc::IFF_UP | libc::IFF_RUNNING) as i16;
        check(i64::from(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request)))?;
    }
    Ok(())
}

/// A copy of an inherited descriptor by its number.
///
/// The caller says that it owns this number: the parent put it there and nothing else in this process took it.
pub(super) fn inherited(number: i32) -> OwnedFd {
    // JUSTIFICATION: descriptors that a parent hands down have no owner in this process yet.
    // SAFETY: used for 0 and 1 only, once each, at the start of the init, where the protocol puts its sockets.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Hides the place of this process's control group from everything inside.
pub(super) fn own_cgroup_namespace() -> io::Result<()> {
    // JUSTIFICATION: it must happen after the process was moved into its group, so not at clone.
    // SAFETY: this flag shares no descriptor table, which is what makes the general call unsafe.
    Ok(unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWCGROUP) }?)
}

/// Mounts of this process are its own from here on.
pub(super) fn own_mount_namespace() -> io::Result<()> {
    // JUSTIFICATION: a store that is mounted for one sandbox must be in no other process's view.
    // SAFETY: this flag shares no descriptor table.
    Ok(unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }?)
}

/// Undoes [`ignore_children`], for a process that inherited it.
pub(super) fn reset_children() {
    // JUSTIFICATION: as for `ignore_children`.
    // SAFETY: SIG_DFL installs no handler of ours.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// A descriptor whose readiness the event loop watches.
pub(super) fn readable(fd: OwnedFd) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    // JUSTIFICATION: tokio has no other way to wait for an inotify queue.
    // SAFETY: an `OwnedFd` gives the same open descriptor for as long as it lives, and the wrapper owns it.
    unsafe { tokio::io::unix::AsyncFd::register_with_interest(fd, tokio::io::Interest::READABLE) }
        .map_err(io::Error::from)
}
