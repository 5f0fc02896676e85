//! One command's guardian: starts it as the workload's user, adopts what it leaves behind, ends the whole tree.
//!
//! ```text
//!  agent ──▶ shim: 'S' signal    to every process of the tree
//!            'K' grace_ms        SIGTERM, grace, SIGKILL
//!  agent ◀── shim: 'P' pid       it runs        'F' errno   it could not be started
//!            'X' status          it ended, and nothing of its tree is left
//!            'Z' 0               the tree could not be ended: the sandbox has to go
//!            'U' cpu_ms          before either: what the tree has used
//! ```
//!
//! A tree ends with its first process: what a command leaves running would belong to nobody. To end a tree that forks
//! as fast as it is killed, all of it is stopped first (a stopped process cannot fork), pass after pass until no new
//! process appears, then killed.

use std::{
    collections::HashSet,
    ffi::CString,
    fs,
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Gid, Mode, Uid},
    process::{Pid, WaitOptions, WaitStatus, set_child_subreaper, wait},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

use super::{Ids, confine, first::Spawn, sys};
use crate::protocol::Setup;

/// How long a tree may resist SIGKILL before the sandbox is given up.
const KILL_MAX: Duration = Duration::from_secs(5);
/// Where programs are looked for when the command's own environment has no `PATH`.
pub(super) const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";

/// Runs one command to its end, as a fresh fork of the first process.
pub(super) fn run(
    spawn: &Spawn,
    [stdin, stdout, stderr, control]: [OwnedFd; 4],
    setup: &Setup,
    ids: Ids,
) -> ! {
    let mut control = UnixStream::from(control);
    let failed = |control: &mut UnixStream, error: &io::Error| -> ! {
        let _ = send(control, b'F', error.raw_os_error().unwrap_or(libc::EIO));
        std::process::exit(1);
    };
    let prepared = sys::child_signals().and_then(|signals| {
        set_child_subreaper(Some(rustix::process::getpid()))?;
        Ok((signals, io::pipe()?))
    });
    let (signals, (mut failure, report)) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => failed(&mut control, &error),
    };
    match sys::fork() {
        Err(error) => failed(&mut control, &error),
        Ok(sys::Fork::Child) => {
            let error = become_program(spawn, [stdin, stdout, stderr], setup, ids);
            let _ = (&report).write_all(&error.raw_os_error().unwrap_or(libc::EIO).to_le_bytes());
            std::process::exit(127);
        }
        Ok(sys::Fork::Parent(pid)) => {
            drop((stdin, stdout, stderr, report));
            let mut errno = [0; 4];
            if failure.read_exact(&mut errno).is_ok() {
                let error = io::Error::from_raw_os_error(i32::from_le_bytes(errno));
                failed(&mut control, &error);
            }
            let _ = send(&mut control, b'P', pid.as_raw_nonzero().get());
            guard(pid, &mut control, &signals)
        }
    }
}

fn send(control: &mut UnixStream, kind: u8, value: i32) -> io::Result<()> {
    let mut message = [kind, 0, 0, 0, 0];
    message[1..].copy_from_slice(&value.to_le_bytes());
    control.write_all(&message)
}

/// Takes the last rights away and executes the program. Returns only if that fails.
fn become_program(
    spawn: &Spawn,
    [stdin, stdout, stderr]: [OwnedFd; 3],
    setup: &Setup,
    ids: Ids,
) -> io::Error {
    let prepare = || -> io::Result<()> {
        sys::default_signals();
        rustix::process::setsid()?;
        rustix::stdio::dup2_stdin(&stdin)?;
        rustix::stdio::dup2_stdout(&stdout)?;
        rustix::stdio::dup2_stderr(&stderr)?;
        confine::lower_resource_limits(&setup.limits).map_err(io::Error::other)?;
        if ids.separate {
            let (uid, gid) = (Uid::from_raw(ids.uid), Gid::from_raw(ids.gid));
            set_thread_groups(&[])?;
            set_thread_res_gid(gid, gid, gid)?;
            set_thread_res_uid(uid, uid, uid)?;
        }
        confine::drop_all_capabilities().map_err(io::Error::other)?;
        rustix::process::umask(Mode::WGRP | Mode::WOTH);
        rustix::process::chdir(spawn.cwd.as_str())?;
        sys::close_others_on_exec()
    };
    if let Err(error) = prepare() {
        return error;
    }
    execute(spawn).unwrap_or_else(|error| error)
}

/// Tries each directory of `PATH`, as execvp(3) does.
fn execute(spawn: &Spawn) -> io::Result<io::Error> {
    let argv = spawn.argv.iter().map(|arg| CString::new(arg.as_str())).collect::<Result<Vec<_>, _>>()?;
    let env = spawn.env.iter().map(|(name, value)| CString::new(format!("{name}={value}")));
    let env = env.collect::<Result<Vec<_>, _>>()?;
    let Some(program) = spawn.argv.first() else { return Err(io::ErrorKind::InvalidInput.into()) };
    if program.contains('/') {
        return Ok(sys::execve(&CString::new(program.as_str())?, &argv, &env));
    }
    let path = spawn.env.iter().find(|(name, _)| name == "PATH").map_or(PATH_DEFAULT, |(_, value)| value);
    let mut worst = io::Error::from_raw_os_error(libc::ENOENT);
    for dir in path.split(':').filter(|dir| !dir.is_empty()) {
        let error = sys::execve(&CString::new(format!("{dir}/{program}"))?, &argv, &env);
        if error.raw_os_error() != Some(libc::ENOENT) && error.raw_os_error() != Some(libc::ENOTDIR) {
            worst = error;
        }
    }
    Ok(worst)
}

/// Waits for the program and for orders; ends the tree; reports.
fn guard(program: Pid, control: &mut UnixStream, signals: &OwnedFd) -> ! {
    let mut status = None;
    let mut kill_at = None;
    let mut open = true;
    while status.is_none() {
        let left = kill_at.map(|at: Instant| at.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) || !open {
            break;
        }
        let timeout = left.map(|left| Timespec {
            tv_sec: left.as_secs().cast_signed(),
            tv_nsec: i64::from(left.subsec_nanos()),
        });
        let mut fds = [PollFd::new(&*control, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        let _ = poll(&mut fds, timeout.as_ref());
        let (order, child) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        if child {
            let mut drain = [0; 512];
            while rustix::io::read(signals, &mut drain).is_ok_and(|length| length > 0) {}
        }
        status = status.or(reap(program));
        if order {
            let mut message = [0; 5];
            open = control.read_exact(&mut message).is_ok();
            let value = i32::from_le_bytes([message[1], message[2], message[3], message[4]]);
            match message[0] {
                b'S' if open => signal_all(&tree(), value),
                b'K' if open && kill_at.is_none() => {
                    signal_all(&tree(), libc::SIGTERM);
                    kill_at = Some(Instant::now() + Duration::from_millis(u64::from(value.cast_unsigned())));
                }
                _ => {}
            }
        }
    }
    let ended = end_tree(program, &mut status);
    let status = status.map_or(libc::SIGKILL, WaitStatus::as_raw);
    // Rounded up, so that many short commands are not for nothing.
    let cpu_ms = sys::cpu_time().as_micros().div_ceil(1000);
    let _ = send(control, b'U', i32::try_from(cpu_ms).unwrap_or(i32::MAX));
    let _ = if ended { send(control, b'X', status) } else { send(control, b'Z', 0) };
    std::process::exit(0);
}

/// Collects every ended child; gives the program's own status when it is among them.
fn reap(program: Pid) -> Option<WaitStatus> {
    let mut found = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == program {
            found = Some(status);
        }
    }
    found
}

fn signal_all(pids: &[Pid], signal: i32) {
    for pid in pids {
        let _ = sys::signal(*pid, signal);
    }
}

/// Stops, then kills, then collects all of the tree. Says whether nothing is left.
fn end_tree(program: Pid, status: &mut Option<WaitStatus>) -> bool {
    let limit = Instant::now() + KILL_MAX;
    let mut stopped = HashSet::new();
    loop {
        let all = tree();
        if all.is_empty() {
            break;
        }
        let new: Vec<Pid> = all.iter().copied().filter(|pid| stopped.insert(pid.as_raw_nonzero())).collect();
        if new.is_empty() {
            signal_all(&all, libc::SIGKILL);
            stopped.clear();
            std::thread::sleep(Duration::from_micros(200));
        } else {
            signal_all(&new, libc::SIGSTOP);
        }
        *status = status.or(reap(program));
        if Instant::now() > limit {
            return false;
        }
    }
    // All are dead; collect them, so that none counts against the sandbox's processes any more.
    while Instant::now() < limit {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, found))) if pid == program => *status = Some(found),
            Ok(Some(_)) => {}
            Ok(None) => std::thread::sleep(Duration::from_micros(200)),
            Err(_) => return true,
        }
    }
    false
}

/// Every living process below this one, found through `/proc`: parents and children, whatever session or group.
fn tree() -> Vec<Pid> {
    let mut parents = Vec::new();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if let Some((state, parent)) = stat(&entry.path())
            && state != 'Z'
            && state != 'X'
        {
            parents.push((pid, parent));
        }
    }
    let mut found = HashSet::from([rustix::process::getpid().as_raw_nonzero().get()]);
    let mut below = Vec::new();
    loop {
        let before = below.len();
        for (pid, parent) in &parents {
            if found.contains(parent) && found.insert(*pid) {
                below.extend(Pid::from_raw(*pid));
            }
        }
        if below.len() == before {
            return below;
        }
    }
}

/// State and parent from `/proc/N/stat` (proc(5)); the name before them may hold anything, even a parenthesis.
fn stat(dir: &Path) -> Option<(char, i32)> {
    let text = fs::read_to_string(dir.join("stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
