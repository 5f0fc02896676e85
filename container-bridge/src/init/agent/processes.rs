//! Background processes: named, with a bounded log, until they end or are killed.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{mpsc, watch};

use super::{
    Shared,
    exec::pump,
    flow::Flow,
    spawn::{Child, spawn},
};
use crate::{
    error::{Code, Result, SandboxError},
    limits::{GRACE_MAX, NAME_BYTES_MAX, PROCESS_LOG_BYTES_MAX, PROCESSES_KEPT_MAX},
    protocol::{Channel, ExecSpec, ProcessInfo, ProcessStatus},
};

/// Orders waiting for one process.
const ORDERS_QUEUED_MAX: usize = 16;

/// All background processes, by name.
#[derive(Default)]
pub(super) struct Table(Mutex<BTreeMap<String, Arc<Process>>>);

struct Process {
    state: Mutex<State>,
    /// Counts changes of state and log.
    changes: watch::Sender<u64>,
    orders: mpsc::Sender<Order>,
}

struct State {
    info: ProcessInfo,
    log: VecDeque<(Channel, Vec<u8>)>,
    log_bytes: usize,
    /// Pieces that fell out of the ring.
    fallen: u64,
}

enum Order {
    Signal(i32),
    Kill(Duration),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Process {
    fn info(&self) -> ProcessInfo {
        lock(&self.state).info.clone()
    }

    fn running(&self) -> bool {
        lock(&self.state).info.status == ProcessStatus::Running
    }

    fn log(&self, channel: Channel, bytes: Vec<u8>) {
        let mut state = lock(&self.state);
        state.log_bytes += bytes.len();
        state.log.push_back((channel, bytes));
        while state.log_bytes > PROCESS_LOG_BYTES_MAX {
            let Some((_, old)) = state.log.pop_front() else { break };
            state.log_bytes -= old.len();
            state.fallen += 1;
            state.info.log_dropped_bytes += old.len() as u64;
        }
        drop(state);
        self.changes.send_modify(|count| *count += 1);
    }

    fn log_contains(&self, text: &[u8]) -> bool {
        let state = lock(&self.state);
        [Channel::Out, Channel::Err].into_iter().any(|wanted| {
            let pieces = state.log.iter().filter(|(channel, _)| *channel == wanted);
            let all: Vec<u8> = pieces.flat_map(|(_, bytes)| bytes.iter().copied()).collect();
            all.windows(text.len()).any(|window| window == text)
        })
    }
}

impl Table {
    pub(super) fn list(&self) -> Vec<ProcessInfo> {
        lock(&self.0).values().map(|process| process.info()).collect()
    }

    fn find(&self, name: &str) -> Result<Arc<Process>> {
        let found = lock(&self.0).get(name).cloned();
        found.ok_or_else(|| SandboxError::new(Code::ProcessNotFound, format!("no process named {name:?}")))
    }

    /// Nothing happens to a process that has ended.
    pub(super) fn signal(&self, name: &str, signal: i32) -> Result<()> {
        if !(1..=64).contains(&signal) {
            return Err(SandboxError::new(Code::InvalidArgument, "signals are 1 to 64"));
        }
        let process = self.find(name)?;
        match process.orders.try_send(Order::Signal(signal)) {
            Err(mpsc::error::TrySendError::Full(_)) => {
                Err(SandboxError::new(Code::TooMany, "too many signals at once"))
            }
            _ => Ok(()),
        }
    }

    /// Checks the name and makes room by forgetting the first ended process.
    fn admit(&self, name: &str) -> Result<()> {
        let mut all = lock(&self.0);
        if all.get(name).is_some_and(|process| process.running()) {
            return Err(SandboxError::new(Code::ProcessExists, format!("a process named {name:?} runs")));
        }
        if all.len() >= PROCESSES_KEPT_MAX && !all.contains_key(name) {
            let ended = all.iter().find(|(_, process)| !process.running()).map(|(name, _)| name.clone());
            let Some(ended) = ended else {
                return Err(SandboxError::new(Code::TooMany, "too many background processes"));
            };
            all.remove(&ended);
        }
        Ok(())
    }
}

/// Names are used in answers and paths of clients: short, and printable.
pub(super) fn check_name(name: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(good) {
        let text = "a name is 1 to 128 of letters, digits, '-', '_' and '.'";
        return Err(SandboxError::new(Code::InvalidArgument, text));
    }
    Ok(())
}

/// Starts a background process.
pub(super) async fn start(shared: &Arc<Shared>, name: String, spec: &ExecSpec) -> Result<ProcessInfo> {
    check_name(&name)?;
    shared.processes.admit(&name)?;
    let spec = ExecSpec { stdin: false, ..spec.clone() };
    let child = spawn(shared, &spec).await?;
    let (orders, queue) = mpsc::channel(ORDERS_QUEUED_MAX);
    let info = ProcessInfo {
        name: name.clone(),
        pid: child.pid,
        command: spec.command.line(),
        started_ms: now_ms(),
        ended_ms: None,
        status: ProcessStatus::Running,
        exit: None,
        log_dropped_bytes: 0,
    };
    let state = State { info: info.clone(), log: VecDeque::new(), log_bytes: 0, fallen: 0 };
    let process = Arc::new(Process { state: Mutex::new(state), changes: watch::channel(0).0, orders });
    shared.processes.admit(&name)?; // again: another start of the same name may have been faster
    lock(&shared.processes.0).insert(name, Arc::clone(&process));
    tokio::spawn(attend(Arc::clone(shared), process, child, spec, queue));
    Ok(info)
}

/// For people: nothing is decided by it.
fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Collects the log and carries out orders until the end.
async fn attend(
    shared: Arc<Shared>,
    process: Arc<Process>,
    child: Child,
    spec: ExecSpec,
    mut queue: mpsc::Receiver<Order>,
) {
    let Child { stdout, stderr, mut control, mut end, .. } = child;
    let (over, is_over) = watch::channel(false);
    let logs = async {
        let (out, err) = (Arc::clone(&process), Arc::clone(&process));
        tokio::join!(
            pump(stdout, is_over.clone(), |bytes| {
                out.log(Channel::Out, bytes);
                std::future::ready(())
            }),
            pump(stderr, is_over.clone(), |bytes| {
                err.log(Channel::Err, bytes);
                std::future::ready(())
            }),
        )
    };
    let ending = async {
        let waiting = end.wait(&shared);
        let late = async {
            match spec.timeout_ms {
                Some(timeout_ms) => tokio::time::sleep(Duration::from_millis(timeout_ms)).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(waiting, late);
        let mut timed_out = false;
        let mut exit = loop {
            tokio::select! {
                exit = &mut waiting => break exit,
                () = &mut late, if !timed_out => {
                    timed_out = true;
                    control.kill(Duration::from_millis(spec.grace_ms).min(GRACE_MAX)).await;
                }
                Some(order) = queue.recv() => match order {
                    Order::Signal(signal) => control.signal(signal).await,
                    Order::Kill(grace) => control.kill(grace).await,
                },
            }
        };
        exit.timed_out = timed_out;
        let _ = over.send(true);
        exit
    };
    let (exit, _) = tokio::join!(ending, logs);
    let mut state = lock(&process.state);
    state.info.status = match (exit.signal, exit.code, exit.timed_out) {
        (Some(_), ..) | (_, _, true) => ProcessStatus::Killed,
        (None, 0, _) => ProcessStatus::Completed,
        _ => ProcessStatus::Failed,
    };
    state.info.exit = Some(exit);
    state.info.ended_ms = Some(now_ms());
    drop(state);
    process.changes.send_modify(|count| *count += 1);
}

/// Ends the whole tree and waits for that.
pub(super) async fn kill(shared: &Shared, name: &str, grace_ms: u64) -> Result<ProcessInfo> {
    let process = shared.processes.find(name)?;
    let mut changes = process.changes.subscribe();
    let grace = Duration::from_millis(grace_ms).min(GRACE_MAX);
    let _ = process.orders.try_send(Order::Kill(grace));
    while process.running() {
        let _ = changes.changed().await;
    }
    Ok(process.info())
}

/// Waits for the end of a process.
pub(super) async fn wait_exit(shared: &Shared, name: &str, timeout_ms: u64) -> Result<ProcessInfo> {
    let process = shared.processes.find(name)?;
    until(&process, timeout_ms, "the process to end", |process| (!process.running()).then_some(())).await?;
    Ok(process.info())
}

/// Waits for a text in the log. A process that ends without it is an answer, too.
pub(super) async fn wait_log(shared: &Shared, name: &str, text: &str, timeout_ms: u64) -> Result<()> {
    if text.is_empty() {
        return Err(SandboxError::new(Code::InvalidArgument, "no text to wait for"));
    }
    let process = shared.processes.find(name)?;
    let found = until(&process, timeout_ms, "the text in the log", |process| {
        let running = process.running();
        if process.log_contains(text.as_bytes()) { Some(true) } else { (!running).then_some(false) }
    });
    if found.await? {
        return Ok(());
    }
    Err(SandboxError::new(Code::ProcessReadyTimeout, "the process ended without that text in its log"))
}

async fn until<T>(
    process: &Process,
    timeout_ms: u64,
    what: &str,
    look: impl Fn(&Process) -> Option<T>,
) -> Result<T> {
    /// A flood of output is not searched more often than this.
    const LOOK: Duration = Duration::from_millis(20);
    let mut changes = process.changes.subscribe();
    let waiting = async {
        loop {
            if let Some(found) = look(process) {
                return found;
            }
            let _ = changes.changed().await;
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(Duration::from_millis(timeout_ms), waiting)
        .await
        .map_err(|_| SandboxError::new(Code::ProcessReadyTimeout, format!("waited too long for {what}")))
}

/// Sends the kept log, then, if asked, what follows.
pub(super) async fn logs(shared: &Shared, flow: &mut Flow, name: &str, follow: bool) -> Result<()> {
    let process = shared.processes.find(name)?;
    let mut changes = process.changes.subscribe();
    let outlet = flow.outlet();
    outlet.started().await;
    let mut next = 0;
    loop {
        let (piece, running) = {
            let state = lock(&process.state);
            next = next.max(state.fallen);
            let piece = state.log.get((next - state.fallen) as usize).cloned();
            (piece, state.info.status == ProcessStatus::Running)
        };
        match piece {
            Some((channel, bytes)) => {
                let _ = outlet.send(channel, &bytes).await;
                next += 1;
            }
            None if follow && running => {
                let _ = changes.changed().await;
            }
            None => return Ok(()),
        }
    }
}
