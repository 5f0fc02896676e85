//! Attempts to get out, made by a process that confined itself: how the tests see each layer hold.
//!
//! `atoll isolate-host --probe NAME` confines itself as an isolate host does, makes one attempt, and prints what came of it. With
//! the system call filter most attempts end the process; without it (`--without syscalls`) the layers behind it answer.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use libc::c_long;

use super::{Layer, Missing, confine_with};

/// An attempt.
type Attempt = fn() -> io::Result<()>;

/// Every attempt by its name.
const ATTEMPTS: &[(&str, Attempt)] = &[
    ("nothing", || Ok(())),
    ("thread", || std::thread::Builder::new().spawn(|| ())?.join().map_err(|_| io::Error::other("panic"))),
    ("random", || getrandom::fill(&mut [0; 8]).map_err(io::Error::other)),
    ("read-file", || File::open("/etc/passwd").map(drop)),
    ("read-proc", || File::open("/proc/self/environ").map(drop)),
    ("list-root", || match std::fs::read_dir("/")?.next() {
        Some(_) => Ok(()),
        None => Err(io::Error::other("it is empty")),
    }),
    ("write-file", || File::create("/tmp/atoll-probe").map(drop)),
    ("make-folder", || std::fs::create_dir("/tmp/atoll-probe")),
    ("remove-file", || std::fs::remove_file("/etc/atoll-probe-nothing")),
    ("tcp-connect", || {
        let address = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 80));
        TcpStream::connect_timeout(&address, Duration::from_millis(500)).map(drop)
    }),
    ("tcp-listen", || TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).map(drop)),
    ("udp-send", || UdpSocket::bind("0.0.0.0:0")?.send_to(b"x", "192.0.2.1:53").map(drop)),
    ("unix-connect", || std::os::unix::net::UnixStream::connect("/run/docker.sock").map(drop)),
    ("process", || Command::new("/bin/true").status().map(drop)),
    ("exec", || Err(Command::new("/bin/true").exec())),
    ("fork", || {
        // SAFETY: no signature to get wrong, and the child ends at once without touching anything.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: ends the child, which holds nothing that would have to be put away.
            unsafe { libc::_exit(0) };
        }
        if child < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }),
    ("kill-parent", || call(libc::SYS_kill, [parent(), 0, 0, 0])),
    ("ptrace-parent", || call(libc::SYS_ptrace, [libc::PTRACE_ATTACH as c_long, parent(), 0, 0])),
    ("read-parent-memory", || call(libc::SYS_process_vm_readv, [parent(), 0, 0, 0])),
    ("io-uring", || call(libc::SYS_io_uring_setup, [8, 0, 0, 0])),
    ("user-namespace", || call(libc::SYS_unshare, [c_long::from(libc::CLONE_NEWUSER), 0, 0, 0])),
    ("mount", || {
        let target = c"/".as_ptr() as c_long;
        call(libc::SYS_mount, [target, target, c"tmpfs".as_ptr() as c_long, 0])
    }),
    ("chroot", || call(libc::SYS_chroot, [c"/".as_ptr() as c_long, 0, 0, 0])),
    ("bpf", || call(libc::SYS_bpf, [0, 0, 0, 0])),
    ("keyring", || call(libc::SYS_keyctl, [0, -4, 0, 0])),
    ("memory-file", || call(libc::SYS_memfd_create, [c"x".as_ptr() as c_long, 0, 0, 0])),
    ("set-user", || call(libc::SYS_setuid, [0, 0, 0, 0])),
    ("raise-limit", || {
        rustix::process::setrlimit(rustix::process::Resource::Nofile, LOOSE).map_err(Into::into)
    }),
    ("clock-set", || call(libc::SYS_settimeofday, [0, 0, 0, 0])),
    ("perf", || call(libc::SYS_perf_event_open, [0, 0, -1, -1])),
];

/// A limit beyond what the host has.
const LOOSE: rustix::process::Rlimit =
    rustix::process::Rlimit { current: Some(1 << 16), maximum: Some(1 << 16) };

/// A process outside.
fn parent() -> c_long {
    c_long::from(std::os::unix::process::parent_id().cast_signed())
}

/// A raw system call, whose result is thrown away.
fn call(number: c_long, [a, b, c, d]: [c_long; 4]) -> io::Result<()> {
    // SAFETY: the table above passes numbers, null pointers and pointers to constant strings: none of the calls can write to
    // memory of this process through them.
    let result = unsafe { libc::syscall(number, a, b, c, d, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The names of all attempts.
pub fn names() -> impl Iterator<Item = &'static str> {
    ATTEMPTS.iter().map(|(name, _)| *name)
}

/// Confines this process by all layers but those named, then makes one attempt. `None` if there is none of this name.
#[must_use]
pub fn attempt(name: &str, without: &[String]) -> Option<(Vec<Missing>, io::Result<()>)> {
    let (_, attempt) = ATTEMPTS.iter().find(|(known, _)| *known == name)?;
    let layers: Vec<_> = Layer::ALL
        .into_iter()
        .filter(|layer| !without.iter().any(|without| without == layer.name()))
        .collect();
    let missing = confine_with(&layers);
    Some((missing, attempt()))
}
