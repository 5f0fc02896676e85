//! Sessions: a shell that stays, so working directory, variables and functions last from one command to the next.
//!
//! ```text
//!  command ──▶ .atoll file in /tmp, owned by the workload
//!  shell's stdin ◀── ". file; status and a random mark on stdout, the mark on stderr"
//! ```
//!
//! The mark ends a command's output on both streams. It is random per command, so output cannot end a command early
//! by accident; a command that tries on purpose fools only its own session. One command at a time per session. A
//! command that exits the shell, or is over its time, ends the shell; the next one gets a fresh shell.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::Read,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
};

use super::{
    Shared, files,
    flow::{Flow, Outlet},
    processes::check_name,
    spawn::{Child, Control, EndOf, check_env, spawn_argv},
};
use crate::{
    error::{Code, Context, Result, SandboxError},
    limits::{CHUNK_BYTES_MAX, EXEC_BYTES_MAX, SESSIONS_MAX},
    protocol::{Channel, Command, ExecSpec, Exit},
};

/// All sessions, by name.
#[derive(Default)]
pub(super) struct Table(Mutex<BTreeMap<String, Arc<Session>>>);

struct Session {
    env: BTreeMap<String, String>,
    cwd: Option<String>,
    shell: tokio::sync::Mutex<Option<Shell>>,
    /// Cancels what runs when the session is deleted.
    gone: tokio::sync::watch::Sender<bool>,
}

struct Shell {
    stdin: pipe::Sender,
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
    control: Control,
    end: EndOf,
}

impl Table {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Session>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.all().keys().cloned().collect()
    }

    fn find(&self, name: &str) -> Result<Arc<Session>> {
        let found = self.all().get(name).cloned();
        found.ok_or_else(|| SandboxError::new(Code::SessionNotFound, format!("no session named {name:?}")))
    }
}

/// Makes a session; its shell starts with its first command.
pub(super) async fn create(
    shared: &Shared,
    name: String,
    env: BTreeMap<String, String>,
    cwd: Option<String>,
) -> Result<()> {
    check_name(&name)?;
    check_env(env.iter().map(|(name, value)| (name, value.as_str())))?;
    let mut all = shared.sessions.all();
    if all.contains_key(&name) {
        return Err(SandboxError::new(
            Code::SessionAlreadyExists,
            format!("a session named {name:?} exists"),
        ));
    }
    if all.len() >= SESSIONS_MAX {
        return Err(SandboxError::new(Code::TooMany, "too many sessions"));
    }
    let gone = tokio::sync::watch::channel(false).0;
    all.insert(name, Arc::new(Session { env, cwd, shell: tokio::sync::Mutex::new(None), gone }));
    Ok(())
}

/// Ends a session and everything that runs in it.
pub(super) async fn delete(shared: &Shared, name: &str) -> Result<()> {
    let session = shared.sessions.find(name)?;
    shared.sessions.all().remove(name);
    let _ = session.gone.send_replace(true);
    if let Some(mut shell) = session.shell.lock().await.take() {
        shell.control.kill(Duration::ZERO).await;
        shell.end.wait(shared).await;
    }
    Ok(())
}

/// Runs one command in a session's shell.
pub(super) async fn exec(shared: &Arc<Shared>, flow: &mut Flow, spec: ExecSpec) -> Result<Exit> {
    let session = shared.sessions.find(spec.session.as_deref().unwrap_or_default())?;
    let mut gone = session.gone.subscribe();
    let mut place = session.shell.lock().await;
    let text = script(&spec)?;
    let mark = mark()?;
    let mut shell = match place.take() {
        Some(shell) => shell,
        None => start(shared, &session).await?,
    };
    flow.outlet().started().await;
    let file = format!("/tmp/.atoll-{mark}");
    let write = file.clone();
    files::blocking(move || std::fs::write(&write, text).context("write the command")).await?;
    let line = format!(". {file}\nprintf '%s%s\\n' '{mark}' \"$?\"\nprintf '%s' '{mark}' >&2\n");
    let started = Instant::now();
    let (outlet, budget) = (flow.outlet(), AtomicU64::new(spec.output_bytes_max));
    let sent = shell.stdin.write_all(line.as_bytes()).await;
    let (stdout, stderr) = (&mut shell.stdout, &mut shell.stderr);
    let streams = async {
        tokio::join!(
            until_mark(stdout, &mark, &outlet, Channel::Out, &budget, true),
            until_mark(stderr, &mark, &outlet, Channel::Err, &budget, false),
        )
    };
    let late = async {
        match spec.timeout_ms {
            Some(timeout_ms) => tokio::time::sleep(Duration::from_millis(timeout_ms)).await,
            None => std::future::pending().await,
        }
    };
    let mut timed_out = false;
    let mut found = None;
    if sent.is_ok() {
        tokio::select! {
            (out, err) = streams => {
                found = out.status.map(|status| (status, out.dropped + err.dropped));
            }
            () = late => timed_out = true,
            _ = gone.changed() => {
                shell.control.kill(Duration::ZERO).await;
                shell.end.wait(shared).await;
                return Err(SandboxError::new(Code::SessionDestroyed, "the session was deleted"));
            }
        }
    } else {
        drop(streams);
    }
    let _ = files::blocking(move || std::fs::remove_file(file).context("remove the command")).await;
    if let Some((code, dropped_bytes)) = found {
        *place = Some(shell);
        let wall_us = started.elapsed().as_micros() as u64;
        return Ok(Exit { code, signal: None, timed_out: false, dropped_bytes, wall_us });
    }
    let grace = if timed_out { spec.grace_ms } else { 0 };
    shell.control.kill(Duration::from_millis(grace)).await;
    let exit = shell.end.wait(shared).await;
    Ok(Exit { timed_out, wall_us: started.elapsed().as_micros() as u64, ..exit })
}

async fn start(shared: &Shared, session: &Session) -> Result<Shell> {
    let argv = vec!["/bin/sh".to_owned()];
    let child = spawn_argv(shared, argv, &session.env, session.cwd.as_deref(), true).await?;
    let Child { stdin: Some(stdin), stdout, stderr, control, end, .. } = child else {
        return Err(SandboxError::new(Code::System, "a shell without input"));
    };
    Ok(Shell { stdin, stdout, stderr, control, end })
}

/// The command as text for the shell, its own variables and directory in front.
fn script(spec: &ExecSpec) -> Result<String> {
    check_env(spec.env.iter().map(|(name, value)| (name, value.as_str())))?;
    let quote = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
    let mut text = String::new();
    for (name, value) in &spec.env {
        let _ = writeln!(text, "export {name}={}", quote(value));
    }
    if let Some(cwd) = &spec.cwd {
        let _ = writeln!(text, "cd {} || return 1", quote(cwd));
    }
    match &spec.command {
        Command::Shell(line) => text.push_str(line),
        Command::Argv(argv) => {
            text.push_str(&argv.iter().map(|arg| quote(arg)).collect::<Vec<_>>().join(" "))
        }
    }
    text.push('\n');
    if text.len() > EXEC_BYTES_MAX || text.contains('\0') {
        return Err(SandboxError::new(Code::InvalidArgument, "the command is too long or holds a NUL byte"));
    }
    Ok(text)
}

fn mark() -> Result<String> {
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("random bytes")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

struct Seen {
    status: Option<i32>,
    dropped: u64,
}

/// Passes a stream on until the mark; gives the number behind it.
async fn until_mark(
    pipe: &mut pipe::Receiver,
    mark: &str,
    outlet: &Outlet,
    channel: Channel,
    budget: &AtomicU64,
    numbered: bool,
) -> Seen {
    let mut dropped = 0;
    let mut held: Vec<u8> = Vec::new();
    let mut buffer = vec![0; CHUNK_BYTES_MAX];
    let mark = mark.as_bytes();
    loop {
        let length = pipe.read(&mut buffer).await.unwrap_or(0);
        held.extend(&buffer[..length]);
        let at = held.windows(mark.len()).position(|window| window == mark);
        let tail = at.map(|at| &held[at + mark.len()..]);
        let status = match tail {
            Some(_) if !numbered => Some(0),
            Some(tail) => tail.iter().position(|byte| *byte == b'\n').map(|end| {
                std::str::from_utf8(&tail[..end]).ok().and_then(|text| text.parse().ok()).unwrap_or(1)
            }),
            None => None,
        };
        // What may be the beginning of the mark stays here.
        let pass = at.unwrap_or(if length == 0 { held.len() } else { held.len().saturating_sub(mark.len()) });
        let keep = (pass as u64).min(budget.load(Ordering::Relaxed));
        budget.fetch_sub(keep, Ordering::Relaxed);
        dropped += pass as u64 - keep;
        let _ = outlet.send(channel, &held[..keep as usize]).await;
        held.drain(..pass);
        if status.is_some() || length == 0 {
            return Seen { status, dropped };
        }
    }
}
