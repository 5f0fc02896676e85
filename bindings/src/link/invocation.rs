//! The gateway's record of one invocation, from `Invoke` to `Done`.
//!
//! ```text
//!  Running ──▶ Invocation ◀── table ◀── frames from the host
//!  (answer,     answer, end, streams,
//!   logs, end)  calls, logs
//! ```
//!
//! The table drops it at `Done`; a `Running` keeps it for as long as its owner wants the outcome.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use atoll_loader::limits::Limits;
use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use super::fault::Violation;
use super::inlet::Inlet;
use super::logs::Logs;
use super::outlet::Outlet;
use super::service::{Lineage, Service};
use crate::channel::Channel;
use crate::seam::{
    CallId, ChannelId, GuestError, Identity, InvocationId, LimitKind, Outcome, StreamId, Usage,
};

/// Calls of one invocation that run at once; more wait their turn.
const CALLS_RUNNING_MAX: usize = 256;

/// How an invocation ended, and what it used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// What it used; no more than its wall time if its host was lost.
    pub usage: Usage,
}

/// Which answer the event wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wants {
    Response,
    /// A response, and it may be a WebSocket.
    Socket,
    Value,
    /// None here: a session answers to the isolate that opened it.
    Nothing,
}

/// A capability of `env`.
pub(super) enum Granted {
    Channel(Arc<dyn Channel>),
    Service(Arc<dyn Service>),
}

pub(super) struct Invocation {
    pub(super) id: InvocationId,
    pub(super) identity: Identity,
    pub(super) limits: Limits,
    pub(super) wants: Wants,
    pub(super) outbound: Option<Arc<dyn Channel>>,
    /// Those of `env`, in order.
    pub(super) granted: Vec<Granted>,
    pub(super) lineage: Lineage,
    pub(super) slots: Semaphore,
    started: Instant,
    state: Mutex<State>,
}

/// What the host answered, before anybody asked for it.
pub(super) enum RawAnswer {
    Response(http::Response<()>, RawBody),
    Value(String),
}

pub(super) enum RawBody {
    Whole(Bytes),
    Stream(StreamId, Arc<Inlet>),
}

impl RawAnswer {
    /// Lets what still comes fall on the floor.
    fn abandon(&self) -> Option<StreamId> {
        let Self::Response(_, RawBody::Stream(id, inlet)) = self else { return None };
        inlet.abandon().then_some(*id)
    }
}

enum Answer {
    Awaited,
    Here(RawAnswer),
    /// Taken, or nobody wants it.
    Gone,
}

pub(super) struct State {
    answer: Answer,
    answered: bool,
    /// The gateway's own judgement, which replaces the host's outcome.
    verdict: Option<Outcome>,
    ended: Option<Ended>,
    canceled: bool,
    /// Its isolate would not stop.
    pub(super) condemned: bool,
    waker: Option<Waker>,
    pub(super) inlets: HashMap<StreamId, Arc<Inlet>>,
    pub(super) outlets: HashMap<StreamId, Arc<Outlet>>,
    pub(super) calls: HashMap<CallId, AbortHandle>,
    pub(super) calls_made: u32,
    next_stream: u32,
    pub(super) logs: Logs,
}

impl State {
    /// Whether nothing more may start under this invocation.
    pub(super) fn is_over(&self) -> bool {
        self.ended.is_some() || self.canceled
    }

    /// A number for a body that the gateway sends, with its credit.
    pub(super) fn open_outlet(&mut self) -> Option<(StreamId, Arc<Outlet>)> {
        let id = StreamId(self.next_stream);
        self.next_stream = self.next_stream.checked_add(2)?;
        let outlet = Outlet::new();
        self.outlets.insert(id, Arc::clone(&outlet));
        Some((id, outlet))
    }

    /// Admits a body that the host announces.
    pub(super) fn open_inlet(&mut self, id: StreamId, inlet: &Arc<Inlet>) -> Result<(), Violation> {
        if id.0.is_multiple_of(2) || self.inlets.contains_key(&id) {
            return Err(Violation::StreamNumber);
        }
        self.inlets.insert(id, Arc::clone(inlet));
        Ok(())
    }

    /// Ends every stream and call.
    fn stop_all(&mut self) {
        for (_, inlet) in self.inlets.drain() {
            inlet.invocation_ended();
        }
        for (_, outlet) in self.outlets.drain() {
            outlet.stop();
        }
        for (_, call) in self.calls.drain() {
            call.abort();
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Invocation {
    pub(super) fn new(
        id: InvocationId,
        identity: Identity,
        limits: Limits,
        wants: Wants,
        outbound: Option<Arc<dyn Channel>>,
        granted: Vec<Granted>,
        lineage: Lineage,
    ) -> Self {
        let state = State {
            answer: Answer::Awaited,
            answered: false,
            verdict: None,
            ended: None,
            canceled: false,
            condemned: false,
            waker: None,
            inlets: HashMap::new(),
            outlets: HashMap::new(),
            calls: HashMap::new(),
            calls_made: 0,
            next_stream: 0,
            logs: Logs::new(limits.log_bytes),
        };
        let slots = Semaphore::new(CALLS_RUNNING_MAX);
        let started = Instant::now();
        let state = Mutex::new(state);
        Self { id, identity, limits, wants, outbound, granted, lineage, slots, started, state }
    }

    /// Time since its start, in microseconds.
    pub(super) fn age_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the gateway granted under this number.
    pub(super) fn channel(&self, id: ChannelId) -> Option<&Arc<dyn Channel>> {
        match id.0.checked_sub(1) {
            None => self.outbound.as_ref(),
            Some(index) => match self.granted.get(index as usize)? {
                Granted::Channel(channel) => Some(channel),
                Granted::Service(_) => None,
            },
        }
    }

    /// The other worker that the gateway granted under this number.
    pub(super) fn service(&self, id: ChannelId) -> Option<&Arc<dyn Service>> {
        match self.granted.get(id.0.checked_sub(1)? as usize)? {
            Granted::Service(service) => Some(service),
            Granted::Channel(_) => None,
        }
    }

    /// Takes the answer from the host. Returns its stream if nobody will read it.
    pub(super) fn answer(&self, answer: RawAnswer) -> Result<Option<StreamId>, Violation> {
        let mut state = self.lock();
        if std::mem::replace(&mut state.answered, true) {
            return Err(Violation::SecondAnswer);
        }
        if let RawAnswer::Response(_, RawBody::Stream(id, inlet)) = &answer {
            state.open_inlet(*id, inlet)?;
        }
        if matches!(state.answer, Answer::Awaited) {
            state.answer = Answer::Here(answer);
            state.wake();
            return Ok(None);
        }
        Ok(answer.abandon())
    }

    /// The gateway found the guest's answer unusable. The host's `Done` brings the usage.
    pub(super) fn judge(&self, outcome: Outcome) {
        let mut state = self.lock();
        state.answered = true;
        state.answer = Answer::Gone;
        state.verdict.get_or_insert(outcome);
        state.stop_all();
    }

    /// The end: nothing happens after it.
    pub(super) fn finish(&self, ended: Ended) {
        let mut state = self.lock();
        if state.ended.is_some() {
            return;
        }
        let outcome = state.verdict.take().unwrap_or(ended.outcome);
        state.ended = Some(Ended { outcome, usage: ended.usage });
        state.stop_all();
        state.logs.close();
        state.wake();
    }

    /// Nobody wants the outcome any more. True if the host must be told.
    pub(super) fn cancel(&self) -> bool {
        let mut state = self.lock();
        state.answer = Answer::Gone;
        if state.is_over() {
            return false;
        }
        state.canceled = true;
        state.stop_all();
        true
    }

    /// Nobody will ask for the answer, here or yet to come. Returns its stream, to be stopped.
    pub(super) fn discard_answer(&self) -> Option<StreamId> {
        match std::mem::replace(&mut self.lock().answer, Answer::Gone) {
            Answer::Here(answer) => answer.abandon(),
            Answer::Awaited | Answer::Gone => None,
        }
    }

    /// The answer, or the end that came instead.
    pub(super) fn poll_answer(&self, cx: &mut Context<'_>) -> Poll<Result<RawAnswer, Ended>> {
        let mut state = self.lock();
        if let Answer::Here(answer) = std::mem::replace(&mut state.answer, Answer::Gone) {
            return Poll::Ready(Ok(answer));
        }
        if let Some(ended) = &state.ended {
            return Poll::Ready(Err(ended.clone()));
        }
        if !state.answered {
            state.answer = Answer::Awaited;
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The end.
    pub(super) fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<Ended> {
        let mut state = self.lock();
        if let Some(ended) = &state.ended {
            return Poll::Ready(ended.clone());
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The end, if it came.
    pub(super) fn ended(&self) -> Option<Ended> {
        self.lock().ended.clone()
    }
}

/// The outcome of an answer that HTTP cannot carry.
pub(super) fn unusable(message: &str) -> Outcome {
    Outcome::GuestError(GuestError { name: "TypeError".to_owned(), message: message.to_owned(), stack: None })
}

/// Why a WebSocket is not passed on.
pub(super) const UNASKED_SOCKET: &str =
    "The worker answered with a WebSocket to a request that did not ask for one.";

/// The outcome of a response beyond its bound.
pub(super) const TOO_LARGE: Outcome = Outcome::Limit(LimitKind::ResponseBytes);
