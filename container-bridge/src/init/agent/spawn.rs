//! Asking the first process for a command, and holding the shim's control socket.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream as StdUnixStream, process::ExitStatusExt},
    },
    process::ExitStatus,
    time::{Duration, Instant},
};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf, pipe},
    },
    sync::Notify,
};

use super::Shared;
use crate::{
    error::{Code, Context, Result, SandboxError},
    init::{WORKSPACE, first, shim::PATH_DEFAULT},
    limits::{EXEC_BYTES_MAX, PATH_BYTES_MAX},
    protocol::{Command, ExecSpec, Exit},
};

/// The way to the first process.
pub(super) struct Spawner {
    requests: OwnedFd,
    broken: Notify,
}

/// A started command.
pub(super) struct Child {
    pub(super) pid: i32,
    pub(super) stdin: Option<pipe::Sender>,
    pub(super) stdout: pipe::Receiver,
    pub(super) stderr: pipe::Receiver,
    pub(super) control: Control,
    pub(super) end: EndOf,
}

/// Orders to the shim. When this is dropped with its counterpart, the shim ends the tree.
pub(super) struct Control(OwnedWriteHalf);

/// News from the shim.
pub(super) struct EndOf {
    input: OwnedReadHalf,
    started: Instant,
}

impl Spawner {
    pub(super) fn new(requests: OwnedFd) -> Self {
        Self { requests, broken: Notify::new() }
    }

    /// Ends when a tree could not be killed, and the sandbox has to go.
    pub(super) async fn broken(&self) {
        self.broken.notified().await;
    }

    /// Tells [`broken`](Self::broken).
    pub(super) fn give_up(&self) {
        self.broken.notify_one();
    }

    fn ask(&self, request: &first::Spawn, fds: &[OwnedFd; first::REQUEST_FDS]) -> Result<()> {
        let bytes = postcard::to_stdvec(request).map_err(io::Error::other).context("encode a command")?;
        if bytes.len() > first::REQUEST_BYTES_MAX {
            return Err(SandboxError::new(Code::InvalidArgument, "arguments and environment are too long"));
        }
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(first::REQUEST_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&fds));
        // Blocks for as long as a fork takes, at most: the first process does nothing else than take these.
        sendmsg(&self.requests, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)
            .context("ask for a command")?;
        Ok(())
    }
}

/// Refuses names and values that no environment can hold.
pub(super) fn check_env<'a>(env: impl Iterator<Item = (&'a String, &'a str)>) -> Result<()> {
    let mut bytes = 0;
    for (name, value) in env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(SandboxError::new(
                Code::InvalidArgument,
                format!("not an environment variable: {name:?}"),
            ));
        }
        bytes += name.len() + value.len() + 2;
    }
    if bytes > EXEC_BYTES_MAX {
        return Err(SandboxError::new(Code::InvalidArgument, "the environment is too long"));
    }
    Ok(())
}

/// A path from a client: absolute, or below the workspace.
pub(super) fn absolute(path: &str) -> Result<String> {
    if path.is_empty() || path.len() > PATH_BYTES_MAX || path.contains('\0') {
        return Err(SandboxError::new(Code::InvalidPath, "a path is empty, too long, or holds a NUL byte"));
    }
    Ok(if path.starts_with('/') { path.to_owned() } else { format!("{WORKSPACE}/{path}") })
}

/// Starts what `spec` says, with pipes.
pub(super) async fn spawn(shared: &Shared, spec: &ExecSpec) -> Result<Child> {
    let argv = match &spec.command {
        Command::Argv(argv) => argv.clone(),
        Command::Shell(line) => vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()],
    };
    spawn_argv(shared, argv, &spec.env, spec.cwd.as_deref(), spec.stdin).await
}

/// Starts a program with pipes.
pub(super) async fn spawn_argv(
    shared: &Shared,
    argv: Vec<String>,
    env: &BTreeMap<String, String>,
    cwd: Option<&str>,
    stdin: bool,
) -> Result<Child> {
    let program = argv.first().cloned().unwrap_or_default();
    if program.is_empty() || argv.iter().any(|arg| arg.contains('\0')) {
        return Err(SandboxError::new(Code::InvalidArgument, "a command is empty or holds a NUL byte"));
    }
    let mut all = BTreeMap::from([
        ("PATH".to_owned(), PATH_DEFAULT.to_owned()),
        ("HOME".to_owned(), "/home/user".to_owned()),
        ("USER".to_owned(), "user".to_owned()),
        ("LANG".to_owned(), "C.UTF-8".to_owned()),
        ("TERM".to_owned(), "dumb".to_owned()),
    ]);
    all.extend(shared.env());
    all.extend(env.clone());
    check_env(all.iter().map(|(name, value)| (name, value.as_str())))?;
    let cwd = absolute(cwd.unwrap_or(WORKSPACE))?;
    let request = first::Spawn { argv, env: all.into_iter().collect(), cwd: cwd.clone() };

    let (child_in, own_in) = if stdin {
        let (reader, writer) = io::pipe().context("pipe")?;
        (OwnedFd::from(reader), Some(OwnedFd::from(writer)))
    } else {
        (OwnedFd::from(OpenOptions::new().read(true).open("/dev/null").context("/dev/null")?), None)
    };
    let (own_out, child_out) = io::pipe().context("pipe")?;
    let (own_err, child_err) = io::pipe().context("pipe")?;
    let (own_control, child_control) = StdUnixStream::pair().context("socket pair")?;
    own_control.set_nonblocking(true).context("socket")?;
    let fds = [child_in, child_out.into(), child_err.into(), child_control.into()];
    shared.spawner.ask(&request, &fds)?;
    drop(fds);

    let started = Instant::now();
    let (mut input, output) = UnixStream::from_std(own_control).context("socket")?.into_split();
    let pid = match news(&mut input).await {
        Ok((b'P', pid)) => pid,
        Ok((_, errno)) => return Err(not_started(&program, &cwd, errno)),
        Err(_) => return Err(SandboxError::new(Code::TooMany, "no room for another process in the sandbox")),
    };
    Ok(Child {
        pid,
        stdin: own_in.map(pipe::Sender::from_owned_fd).transpose().context("pipe")?,
        stdout: pipe::Receiver::from_owned_fd(own_out.into()).context("pipe")?,
        stderr: pipe::Receiver::from_owned_fd(own_err.into()).context("pipe")?,
        control: Control(output),
        end: EndOf { input, started },
    })
}

fn not_started(program: &str, cwd: &str, errno: i32) -> SandboxError {
    let error = io::Error::from_raw_os_error(errno);
    // The working directory and the program fail with the same codes; look which it was.
    if !std::path::Path::new(cwd).is_dir() {
        return SandboxError::new(Code::FileNotFound, format!("working directory {cwd}: {error}"));
    }
    match errno {
        libc::ENOENT | libc::ENOTDIR => {
            SandboxError::new(Code::CommandNotFound, format!("{program}: {error}"))
        }
        libc::EACCES => SandboxError::new(Code::PermissionDenied, format!("{program}: {error}")),
        libc::EAGAIN => SandboxError::new(Code::TooMany, format!("{program}: too many processes")),
        libc::E2BIG => SandboxError::new(Code::InvalidArgument, format!("{program}: {error}")),
        _ => SandboxError::from_io(program, &error),
    }
}

async fn news(input: &mut OwnedReadHalf) -> io::Result<(u8, i32)> {
    let mut message = [0; 5];
    input.read_exact(&mut message).await?;
    Ok((message[0], i32::from_le_bytes([message[1], message[2], message[3], message[4]])))
}

impl Control {
    /// A signal to every process of the tree.
    pub(super) async fn signal(&mut self, signal: i32) {
        self.order(b'S', signal).await;
    }

    /// SIGTERM now, SIGKILL after the grace.
    pub(super) async fn kill(&mut self, grace: Duration) {
        self.order(b'K', i32::try_from(grace.as_millis()).unwrap_or(i32::MAX)).await;
    }

    async fn order(&mut self, kind: u8, value: i32) {
        let mut message = [kind, 0, 0, 0, 0];
        message[1..].copy_from_slice(&value.to_le_bytes());
        let _ = self.0.write_all(&message).await;
    }
}

impl EndOf {
    /// Waits until nothing of the tree is left. Safe to drop and call again only before it starts to read.
    pub(super) async fn wait(&mut self, shared: &Shared) -> Exit {
        let status = loop {
            break match news(&mut self.input).await {
                Ok((b'U', cpu_ms)) => {
                    shared.meter.ended(cpu_ms.unsigned_abs());
                    continue;
                }
                Ok((b'X', status)) => ExitStatus::from_raw(status),
                Ok(_) => {
                    shared.spawner.give_up();
                    ExitStatus::from_raw(libc::SIGKILL)
                }
                // The shim itself was killed: the kernel was out of memory for this sandbox.
                Err(_) => ExitStatus::from_raw(libc::SIGKILL),
            };
        };
        Exit {
            code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            signal: status.signal(),
            timed_out: false,
            dropped_bytes: 0,
            wall_us: self.started.elapsed().as_micros() as u64,
        }
    }
}
