//! Pristine isolates, created ahead and never used by anyone.
//!
//! ```text
//!  spawn(job) ──▶ a pristine isolate waits? ──yes──▶ it takes the job
//!                         │ no
//!                         ▼
//!                 waiting jobs, oldest first ◀── each newly created isolate looks here before it waits itself
//! ```
//!
//! Creating an isolate costs a millisecond or two of CPU; a load should not wait for it. At most as many are created
//! at once as there are cores: more would only make each other late, and the youngest load would overtake the oldest.
//! An isolate is given out once and never comes back. As long as half of them wait, new ones are made a moment later: what was just
//! given one has the processor first.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use crate::host::HostShared;
use crate::thread::{IsolateRef, Job, StartSpec};

/// Heap that pooled isolates are created with, in MiB: V8 fixes it at creation. A worker with another limit gets an
/// isolate of its own making.
pub(crate) const POOLED_HEAP_MIB: u32 = 128;

/// How long after one was given out the next is made, while enough wait.
const REFILL_DELAY: Duration = Duration::from_millis(20);

/// The waiting isolates and the jobs that wait for one.
#[derive(Debug)]
pub(crate) struct Pool {
    size: usize,
    creators_max: usize,
    state: Mutex<PoolState>,
    /// One was given out, and nobody is in a hurry.
    given: Notify,
}

#[derive(Debug, Default)]
struct PoolState {
    ready: VecDeque<oneshot::Sender<Job>>,
    waiting: VecDeque<Job>,
    creating: usize,
    closed: bool,
}

/// What a newly created isolate does next.
pub(crate) enum Duty {
    /// Serve this.
    Serve(Job),
    /// Wait for a job; none will come if the channel closes.
    Wait(oneshot::Receiver<Job>),
}

/// Cores that this process may use, counted once: the answer is in files, which a confined process cannot open.
pub(crate) fn count_cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(2, std::num::NonZero::get))
}

impl Pool {
    pub(crate) fn new(size: usize) -> Self {
        Self { size, creators_max: count_cores(), state: Mutex::default(), given: Notify::new() }
    }

    pub(crate) fn ready(&self) -> usize {
        self.lock().ready.len()
    }

    /// Whether there are fewer than are wanted at once.
    pub(crate) fn is_waited_for(&self) -> bool {
        !self.lock().waiting.is_empty()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, PoolState> {
        // Queues of handles stay whole whatever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts creators, as many as are missing and allowed.
    pub(crate) fn fill(host: &Arc<HostShared>) {
        let pool = &host.pool;
        let starting = {
            let mut state = pool.lock();
            let wanted = if state.closed { 0 } else { pool.size + state.waiting.len() };
            let missing = wanted.saturating_sub(state.ready.len() + state.creating);
            let starting = missing.min(pool.creators_max.saturating_sub(state.creating));
            state.creating += starting;
            starting
        };
        for _ in 0..starting {
            if crate::thread::spawn_pristine(host, POOLED_HEAP_MIB).is_err() {
                pool.lock().creating -= 1;
            }
        }
    }

    /// One was given out: refills at once if few are left, else soon.
    fn refill(host: &Arc<HostShared>) {
        let pool = &host.pool;
        let enough = {
            let state = pool.lock();
            state.waiting.is_empty() && state.ready.len() * 2 >= pool.size
        };
        if enough { pool.given.notify_one() } else { Self::fill(host) }
    }

    /// Refills a while after one was given out, again and again.
    pub(crate) async fn keep_full(host: &Arc<HostShared>) -> Infallible {
        loop {
            host.pool.given.notified().await;
            tokio::time::sleep(REFILL_DELAY).await;
            Self::fill(host);
        }
    }

    /// A newly created isolate asks what to do.
    pub(crate) fn report(host: &Arc<HostShared>) -> Duty {
        let duty = {
            let mut state = host.pool.lock();
            state.creating = state.creating.saturating_sub(1);
            match state.waiting.pop_front() {
                Some(job) => Duty::Serve(job),
                None => {
                    let (sender, receiver) = oneshot::channel();
                    if !state.closed {
                        state.ready.push_back(sender);
                    }
                    Duty::Wait(receiver)
                }
            }
        };
        Self::fill(host);
        duty
    }

    /// A creator failed before it could report.
    pub(crate) fn failed(&self) {
        let mut state = self.lock();
        state.creating = state.creating.saturating_sub(1);
    }

    /// Lets all waiting isolates go; the host is ending.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.ready.clear();
        state.waiting.clear();
    }

    fn give(&self, mut job: Job) {
        let mut state = self.lock();
        while let Some(ready) = state.ready.pop_front() {
            match ready.send(job) {
                Ok(()) => return,
                // Its thread is gone.
                Err(back) => job = back,
            }
        }
        state.waiting.push_back(job);
    }
}

/// An isolate for `spec`: a pooled one, as soon as there is one, or one of its own making if the pool's do not fit.
/// Its inbox takes messages at once.
pub(crate) fn spawn(host: &Arc<HostShared>, spec: StartSpec) -> IsolateRef {
    let pooled = spec.limits.heap_mib == POOLED_HEAP_MIB && host.pool.size > 0;
    let (isolate, job) = Job::new(spec);
    if pooled {
        host.pool.give(job);
        Pool::refill(host);
    } else {
        crate::thread::spawn_for(host, job);
    }
    isolate
}
