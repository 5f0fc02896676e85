//! The OS thread that owns an isolate for life: created, entered, run and dropped here.

use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};

use atoll_bindings::seam::{EnvValue, InvocationId, Outcome};
use atoll_loader::limits::Limits;
use tokio::sync::mpsc;

use crate::helpers::HELPERS_MAX;
use crate::host::HostShared;
use crate::isolate::Isolate;
use crate::message::{Inbox, IsolateMsg};
use crate::modules::Entry;
use crate::platform::THREAD_STACK_BYTES;
use crate::pool::{Duty, Pool};
use crate::rpc::Message;
use crate::state::Capability;
use crate::watchdog::{Slot, Verdict};

/// What makes a pristine isolate into a worker.
#[derive(Clone, Debug)]
pub(crate) struct StartSpec {
    pub(crate) entry: Arc<Entry>,
    pub(crate) env: EnvSpec,
    /// Where global `fetch()` goes.
    pub(crate) outbound: Option<Capability>,
    pub(crate) limits: Limits,
    /// What its invocations do is told to tails.
    pub(crate) traced: bool,
    /// How deep in a chain of dynamic workers.
    pub(crate) depth: usize,
    /// Ends after its first invocation.
    pub(crate) single: bool,
    /// The gateway's invocation for which it starts, to be blamed if the start does not end.
    pub(crate) root: InvocationId,
    /// The name under which the host finds it again.
    pub(crate) warm_key: Option<Arc<str>>,
}

/// `env`, as the one who starts the worker gives it.
#[derive(Clone, Debug)]
pub(crate) enum EnvSpec {
    Named(Vec<(Arc<str>, EnvValue)>),
    /// What a parent isolate gives to a worker that it loads.
    Given(Message),
}

/// How to reach an isolate.
#[derive(Clone, Debug)]
pub(crate) struct IsolateRef {
    pub(crate) inbox: Inbox,
    slot: Arc<OnceLock<Arc<Slot>>>,
    /// Serves one invocation only: cancelling that one may stop the isolate.
    single: bool,
}

impl IsolateRef {
    /// Takes no more calls: it ended, or was stopped and is about to.
    pub(crate) fn is_over(&self) -> bool {
        self.inbox.is_closed() || self.slot.get().is_some_and(|slot| slot.verdict().is_some())
    }

    /// Cancels an invocation, even if its JavaScript never returns to the event loop.
    pub(crate) fn cancel(&self, invocation: InvocationId) {
        let _gone = self.inbox.send(IsolateMsg::Cancel { invocation });
        if self.single
            && let Some(slot) = self.slot.get()
        {
            slot.stop(Verdict::Canceled);
        }
    }
}

/// A worker to be, with the inbox that already takes its messages.
#[derive(Debug)]
pub(crate) struct Job {
    spec: StartSpec,
    isolate: IsolateRef,
    inbox: mpsc::UnboundedReceiver<IsolateMsg>,
}

impl Job {
    pub(crate) fn new(spec: StartSpec) -> (IsolateRef, Self) {
        let (mut isolate, inbox) = channel();
        isolate.single = spec.single;
        (isolate.clone(), Self { spec, isolate, inbox })
    }
}

/// A job that no isolate took answers what was queued for it.
impl Drop for Job {
    fn drop(&mut self) {
        answer_the_rest(&mut self.inbox);
    }
}

/// The tokio runtime of one isolate: time only, no I/O, so no file descriptors.
pub(crate) fn tokio_runtime() -> tokio::runtime::Runtime {
    #[expect(clippy::expect_used, reason = "a runtime without I/O has nothing that can fail")]
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a timer-only runtime")
}

/// The same for an isolate's thread: what it computes elsewhere, it computes on helpers that are watched.
fn isolate_runtime(slot: &Arc<Slot>) -> tokio::runtime::Runtime {
    let (begun, ended) = (Arc::clone(slot), Arc::clone(slot));
    #[expect(clippy::expect_used, reason = "a runtime without I/O has nothing that can fail")]
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .max_blocking_threads(HELPERS_MAX)
        .on_thread_start(move || begun.helpers.begin())
        .on_thread_stop(move || ended.helpers.end())
        .build()
        .expect("a timer-only runtime")
}

/// Starts a thread whose isolate asks the pool for its duty.
pub(crate) fn spawn_pristine(host: &Arc<HostShared>, heap_mib: u32) -> std::io::Result<()> {
    let host = Arc::clone(host);
    spawn_thread(move || {
        let reported = Cell::new(false);
        run_thread(&host, heap_mib, !host.pool.is_waited_for(), || {
            reported.set(true);
            match Pool::report(&host) {
                Duty::Serve(job) => Some(job),
                Duty::Wait(job) => job.blocking_recv().ok(),
            }
        });
        if !reported.get() {
            host.pool.failed();
        }
    })
}

/// Starts a thread for one worker, without the pool.
pub(crate) fn spawn_for(host: &Arc<HostShared>, job: Job) {
    let host = Arc::clone(host);
    let heap_mib = job.spec.limits.heap_mib;
    // If no thread can be started the job is dropped, and whoever waits for it is told.
    let _no_thread = spawn_thread(move || run_thread(&host, heap_mib, false, move || Some(job)));
}

fn channel() -> (IsolateRef, mpsc::UnboundedReceiver<IsolateMsg>) {
    #[expect(
        clippy::disallowed_methods,
        reason = "bounded by admission (invocations), credit (bodies) and the subrequest limit (replies)"
    )]
    let (inbox, receiver) = mpsc::unbounded_channel();
    (IsolateRef { inbox, slot: Arc::default(), single: false }, receiver)
}

/// An inbox that nobody reads.
pub(crate) fn dead_inbox() -> Inbox {
    channel().0.inbox
}

fn spawn_thread(run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name("isolate".into()).stack_size(THREAD_STACK_BYTES).spawn(run).map(drop)
}

/// The life of an isolate: create, wait for a worker, serve it, drop. `ahead` if nobody waits for it yet.
fn run_thread(host: &Arc<HostShared>, heap_mib: u32, ahead: bool, duty: impl FnOnce() -> Option<Job>) {
    host.isolates_live.fetch_add(1, Relaxed);
    let slot = Slot::for_this_thread();
    host.watchdog.add(&slot);
    slot.set_aside(ahead);
    let tokio = isolate_runtime(&slot);
    let mut job = None;
    // A fault of ours ends this isolate, never the host.
    let _fault = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let entered = tokio.enter();
        let pristine = Isolate::create(host, &slot, heap_mib);
        slot.set_aside(false);
        let Some(job) = job.insert(duty()) else { return };
        drop(entered);
        let _first = job.isolate.slot.set(Arc::clone(&slot));
        slot.set_inbox(&job.isolate.inbox);
        tokio.block_on(pristine.serve(job.spec.clone(), &job.isolate.inbox, &mut job.inbox));
    }));
    // A helper may still compute: it is watched until it ends, and nobody waits for it but this thread.
    if let Some(Some(job)) = &mut job {
        host.isolate_ended(job.spec.warm_key.as_ref(), &job.isolate.inbox);
        pass_on(host, job);
    }
    drop(job);
    drop(tokio);
    slot.set_aside(false);
    host.watchdog.remove(&slot);
    host.isolates_live.fetch_sub(1, Relaxed);
}

/// Invocations that a warm isolate never began go to its successor, except those whose bodies would still come here.
fn pass_on(host: &Arc<HostShared>, job: &mut Job) {
    job.inbox.close();
    while job.spec.warm_key.is_some()
        && let Ok(message) = job.inbox.try_recv()
    {
        match message {
            IsolateMsg::Invoke(invocation) if invocation.is_fed() => invocation.end(never_served()),
            IsolateMsg::Invoke(invocation) => host.dispatch(job.spec.clone(), *invocation),
            _ => {}
        }
    }
}

pub(crate) fn never_served() -> Outcome {
    Outcome::HostFault("the isolate ended before it could serve".into())
}

/// Answers what was queued for an isolate that is over.
fn answer_the_rest(inbox: &mut mpsc::UnboundedReceiver<IsolateMsg>) {
    inbox.close();
    while let Ok(message) = inbox.try_recv() {
        if let IsolateMsg::Invoke(invocation) = message {
            invocation.end(never_served());
        }
    }
}
