//! The agent: the one process inside with an event loop. Reads requests, runs each as a task, streams with credit.
//!
//! Its file threads take the workload's file identity when they start ([`sys::set_file_ids`]), so a file operation
//! can do exactly what the workload could; only a snapshot briefly reads as root inside. The agent is never the
//! authority on anything that matters to the host: limits are the cgroup's, the deadline is also the keeper's.

mod exec;
mod files;
mod flow;
mod meter;
mod ports;
mod processes;
mod sessions;
mod snapshot;
mod spawn;
mod watch;

use std::{
    collections::{BTreeMap, HashMap},
    io,
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use flow::{Flow, Inlet, Window};
use rustix::process::Pid;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{UnixStream, unix::pipe},
    sync::mpsc,
    task::AbortHandle,
};

use super::{Ids, contained::is_pipe, sys};
use crate::{
    error::{Code, Result, SandboxError},
    frame,
    limits::{FRAMES_QUEUED_MAX, OPERATIONS_MAX},
    native::End,
    protocol::{Answer, FromAgent, Id, Op, Setup, ToAgent},
};

type Input = Box<dyn AsyncRead + Send + Unpin>;
type Output = Box<dyn AsyncWrite + Send + Unpin>;

/// The agent's way to the host: one socket twice, or two pipes.
pub(super) struct Transport {
    pub(super) input: OwnedFd,
    pub(super) output: OwnedFd,
    /// The process inside that carries the bytes on, if one does.
    pub(super) relay: Option<Pid>,
}

impl Transport {
    fn open(self) -> io::Result<(Input, Output)> {
        let socket = |fd: OwnedFd| {
            let socket = StdUnixStream::from(fd);
            socket.set_nonblocking(true)?;
            UnixStream::from_std(socket)
        };
        let input: Input = if is_pipe(&self.input) {
            Box::new(pipe::Receiver::from_owned_fd(self.input)?)
        } else {
            Box::new(socket(self.input)?)
        };
        let output: Output = if is_pipe(&self.output) {
            Box::new(pipe::Sender::from_owned_fd(self.output)?)
        } else {
            Box::new(socket(self.output)?)
        };
        Ok((input, output))
    }
}

/// Threads for file operations.
const FILE_THREADS_MAX: usize = 4;

/// What all operations share.
pub(super) struct Shared {
    ids: Ids,
    env: Mutex<BTreeMap<String, String>>,
    spawner: spawn::Spawner,
    processes: processes::Table,
    sessions: sessions::Table,
    pause: tokio::sync::Mutex<()>,
    /// A process that must go on when all others are paused: it carries the agent's bytes.
    relay: Option<Pid>,
    meter: meter::Meter,
    frames: mpsc::Sender<FromAgent>,
    running: Mutex<HashMap<Id, Running>>,
}

impl Shared {
    fn running(&self) -> MutexGuard<'_, HashMap<Id, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The variables every command gets.
    fn env(&self) -> BTreeMap<String, String> {
        self.env.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One running operation, as the reader sees it.
struct Running {
    inlet: Inlet,
    window: Window,
    task: AbortHandle,
}

/// Runs until the host goes away or the deadline comes.
pub(super) fn run(setup: &Setup, ids: Ids, transport: Transport, requests: OwnedFd) -> End {
    sys::reset_children();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(FILE_THREADS_MAX)
        .thread_keep_alive(Duration::from_secs(3600))
        .on_thread_start(move || {
            if ids.separate {
                sys::set_file_ids(ids.uid, ids.gid);
            }
        })
        .build();
    let Ok(runtime) = runtime else { return End::Failed };
    let lifetime = Duration::from_millis(setup.limits.lifetime_ms);
    let end = runtime.block_on(async {
        match tokio::time::timeout(lifetime, serve(setup, ids, transport, requests)).await {
            Ok(end) => end,
            Err(_) => End::Deadline,
        }
    });
    runtime.shutdown_background();
    end
}

async fn serve(setup: &Setup, ids: Ids, transport: Transport, requests: OwnedFd) -> End {
    let relay = transport.relay;
    let Ok((input, mut output)) = transport.open() else { return End::Failed };
    let (frames, mut queue) = mpsc::channel::<FromAgent>(FRAMES_QUEUED_MAX);
    tokio::spawn(async move {
        while let Some(message) = queue.recv().await {
            if frame::write(&mut output, &message).await.is_err() {
                break;
            }
        }
    });
    let shared = Arc::new(Shared {
        ids,
        env: Mutex::new(setup.env.clone()),
        spawner: spawn::Spawner::new(requests),
        processes: processes::Table::default(),
        sessions: sessions::Table::default(),
        pause: tokio::sync::Mutex::new(()),
        relay,
        meter: meter::Meter::default(),
        frames: frames.clone(),
        running: Mutex::default(),
    });
    if frames.send(FromAgent::Ready).await.is_err() {
        return End::HostGone;
    }
    read(input, &shared).await
}

/// Hands each frame to its operation. What the host may not send ends the sandbox: it is the host's own bug.
async fn read(mut input: Input, shared: &Arc<Shared>) -> End {
    // One read future for the whole life: a frame must not be lost when another branch is faster.
    let (sender, mut incoming) = mpsc::channel::<ToAgent>(1);
    tokio::spawn(async move {
        while let Ok(Some(message)) = frame::read(&mut input).await {
            if sender.send(message).await.is_err() {
                break;
            }
        }
    });
    loop {
        let message = tokio::select! {
            message = incoming.recv() => match message {
                Some(message) => message,
                None => return End::HostGone,
            },
            () = shared.spawner.broken() => return End::Failed,
        };
        match message {
            ToAgent::Request { id, op } => {
                if shared.running().len() >= OPERATIONS_MAX {
                    let result = Err(SandboxError::new(Code::TooMany, "too many operations at once"));
                    let _ = shared.frames.send(FromAgent::Reply { id, result }).await;
                    continue;
                }
                let (flow, inlet, window) = Flow::new(id, shared.frames.clone());
                let mut running = shared.running(); // held over the spawn: the task must find itself in here
                let task = tokio::spawn(operation(Arc::clone(shared), flow, op)).abort_handle();
                running.insert(id, Running { inlet, window, task });
            }
            ToAgent::Data { id, bytes } => {
                if let Some(Running { inlet, .. }) = shared.running().get(&id)
                    && inlet.data(bytes).is_err()
                {
                    return End::Failed;
                }
            }
            ToAgent::End { id } => {
                if let Some(Running { inlet, .. }) = shared.running().get(&id) {
                    inlet.end();
                }
            }
            ToAgent::Credit { id, bytes } => {
                if let Some(Running { window, .. }) = shared.running().get(&id) {
                    window.grant(bytes);
                }
            }
            ToAgent::Cancel { id } => {
                if let Some(gone) = shared.running().remove(&id) {
                    gone.task.abort();
                }
            }
        }
    }
}

/// Runs one operation and sends its one reply.
async fn operation(shared: Arc<Shared>, mut flow: Flow, op: Op) {
    let id = flow.id();
    let result = perform(&shared, &mut flow, op).await;
    let _ = shared.frames.send(FromAgent::Reply { id, result }).await;
    shared.running().remove(&id);
}

async fn perform(shared: &Arc<Shared>, flow: &mut Flow, op: Op) -> Result<Answer> {
    match op {
        Op::Exec(spec) if spec.session.is_some() => {
            sessions::exec(shared, flow, spec).await.map(Answer::Exit)
        }
        Op::Exec(spec) => exec::exec(shared, flow, &spec).await.map(Answer::Exit),
        Op::Start { name, spec } => processes::start(shared, name, &spec).await.map(Answer::Process),
        Op::Processes => Ok(Answer::Processes(shared.processes.list())),
        Op::Signal { name, signal } => shared.processes.signal(&name, signal).map(|()| Answer::Done),
        Op::Kill { name, grace_ms } => processes::kill(shared, &name, grace_ms).await.map(Answer::Process),
        Op::Logs { name, follow } => {
            processes::logs(shared, flow, &name, follow).await.map(|()| Answer::Done)
        }
        Op::WaitLog { name, text, timeout_ms } => {
            processes::wait_log(shared, &name, &text, timeout_ms).await.map(|()| Answer::Done)
        }
        Op::WaitExit { name, timeout_ms } => {
            processes::wait_exit(shared, &name, timeout_ms).await.map(Answer::Process)
        }
        Op::WaitPort { port, timeout_ms } => ports::wait(port, timeout_ms).await.map(|()| Answer::Done),
        Op::Connect { port } => ports::connect(flow, port).await.map(|()| Answer::Done),
        Op::Egress => ports::egress(shared).await.map(|()| Answer::Done),
        Op::SessionCreate { name, env, cwd } => {
            sessions::create(shared, name, env, cwd).await.map(|()| Answer::Done)
        }
        Op::SessionDelete { name } => sessions::delete(shared, &name).await.map(|()| Answer::Done),
        Op::Sessions => Ok(Answer::Names(shared.sessions.names())),
        Op::SetEnv { env } => {
            spawn::check_env(env.iter().map(|(name, value)| (name, value.as_deref().unwrap_or_default())))?;
            let mut all = shared.env.lock().unwrap_or_else(PoisonError::into_inner);
            for (name, value) in env {
                match value {
                    Some(value) => all.insert(name, value),
                    None => all.remove(&name),
                };
            }
            Ok(Answer::Done)
        }
        Op::Usage => meter::usage(&shared.meter).map(Answer::Usage),
        Op::Snapshot => snapshot::save(shared, flow).await.map(|()| Answer::Done),
        Op::Restore { bytes_max } => snapshot::restore(shared, flow, bytes_max).await.map(|()| Answer::Done),
        Op::Watch { path, recursive } => watch::watch(flow, path, recursive).await.map(|()| Answer::Done),
        Op::Read { path, offset, length } => {
            files::read(flow, path, offset, length).await.map(|()| Answer::Done)
        }
        Op::Write { path, mode, bytes_max } => {
            files::write(flow, path, mode, bytes_max).await.map(|()| Answer::Done)
        }
        Op::Stat { path } => files::blocking(move || files::stat(&path)).await.map(Answer::Stat),
        Op::List { path } => files::blocking(move || files::list(&path)).await.map(Answer::List),
        Op::Mkdir { path, parents } => {
            files::blocking(move || files::mkdir(&path, parents)).await.map(|()| Answer::Done)
        }
        Op::Rename { from, to } => {
            files::blocking(move || files::rename(&from, &to)).await.map(|()| Answer::Done)
        }
        Op::Delete { path, recursive } => {
            files::blocking(move || files::delete(&path, recursive)).await.map(|()| Answer::Done)
        }
    }
}
