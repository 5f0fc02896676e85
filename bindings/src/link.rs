//! The gateway's end of one isolate host.
//!
//! ```text
//!             Start ──▶ Link ── Bundle? Invoke ──▶ HostEndpoint.inbox  ─┐
//!  Running ◀──────────┘  │                                             runtime
//!     ▲                  │ table: id → Invocation                       │
//!     └── answer, logs, ─┴──────────────────────── HostEndpoint.outbox ◀┘
//!         end, bodies        calls ──▶ Channel
//! ```
//!
//! One task reads what the host sends and applies it to the table; nothing on that path waits, and no queue lies between the
//! socket and the table, so a host can make the gateway hold only what credit and limits allow. A host that breaks the protocol
//! loses its link. When a link closes, for whatever reason, every invocation on it ends with `HostFault`: nothing hangs.

mod bundles;
mod calls;
mod convert;
mod fault;
mod inlet;
mod invocation;
mod logs;
mod outlet;
mod running;
mod service;
mod start;
mod transport;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use atoll_loader::bundle::Bundle;
use atoll_loader::limits::{BODY_INLINE_BYTES_MAX, FRAME_BYTES_MAX, MIB};
use http::StatusCode;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

pub use fault::{CloseReason, LinkDown, Violation};
pub use inlet::{GuestBody, GuestBodyError};
pub use invocation::Ended;
pub use logs::Console;
pub use running::{Answer, Running, Suspicion};
pub use service::{Opening, Service, TOO_DEEP, TOO_MANY};
pub use start::{Grant, Start, StartEvent};
pub use transport::{HostEndpoint, host_over_socket, in_process, over_socket};

use bundles::Bundles;
use calls::inline;
use convert::{request_out, response_in};
use inlet::{Inlet, Taken};
use invocation::{Granted, Invocation, RawAnswer, RawBody, TOO_LARGE, UNASKED_SOCKET, Wants, unusable};
use outlet::{Prepared, Pump, prepare};

use crate::body::RequestBody;
use crate::seam::{
    Body, BodyFrame, BodyStep, ChannelId, Condemned, EnvValue, Event, Heartbeat, HttpResponse, Identity,
    InvocationId, Invoke, Outbound, Outcome, StreamId, ToGateway, ToHost, Usage,
};
use crate::socket::handshake::is_wanted;

/// Locks over which the table is spread.
const SHARDS: usize = 16;
/// Room left in a frame for all but its largest part, in bytes.
const FRAME_SLACK_BYTES: usize = MIB;

/// A handle on one isolate host. Cheap to clone; the host is told to go when the last handle and the last [`Running`] are gone.
#[derive(Clone)]
pub struct Link {
    inner: Arc<Inner>,
}

/// What all handles, invocations and tasks of one link share.
pub(crate) struct Inner {
    out: mpsc::UnboundedSender<ToHost>,
    table: [Mutex<HashMap<InvocationId, Arc<Invocation>>>; SHARDS],
    bundles: Mutex<Bundles>,
    next: AtomicU64,
    in_flight: AtomicUsize,
    closing: AtomicBool,
    closed: watch::Sender<Option<CloseReason>>,
    lost: Mutex<Vec<(InvocationId, Identity)>>,
    heartbeat: watch::Sender<Heartbeat>,
    ignored: AtomicU64,
    forged: AtomicU64,
    runtime: Handle,
}

impl Link {
    /// Starts an invocation. Never waits.
    pub fn start(&self, start: Start) -> Result<Running, LinkDown> {
        self.inner.start(start)
    }

    /// Drops the warm isolate of this name once it is idle.
    pub fn evict(&self, key: impl Into<Arc<str>>) {
        self.inner.send(ToHost::Evict { key: key.into() });
    }

    /// Asks the host to finish what runs, then to exit.
    pub fn drain(&self) {
        self.inner.send(ToHost::Drain);
    }

    /// Closes the link now: everything on it ends with `HostFault`.
    pub fn close(&self) {
        self.inner.close(CloseReason::Closed);
    }

    /// Waits until the link is closed.
    pub async fn closed(&self) -> CloseReason {
        let mut closed = self.inner.closed.subscribe();
        match closed.wait_for(Option::is_some).await {
            Ok(reason) => reason.unwrap_or(CloseReason::Closed),
            Err(_) => CloseReason::Closed,
        }
    }

    /// Why the link is closed, if it is.
    #[must_use]
    pub fn close_reason(&self) -> Option<CloseReason> {
        *self.inner.closed.borrow()
    }

    /// The latest heartbeat; the default before the first.
    #[must_use]
    pub fn heartbeat(&self) -> Heartbeat {
        self.inner.heartbeat.borrow().clone()
    }

    /// Heartbeats as they come.
    #[must_use]
    pub fn heartbeats(&self) -> watch::Receiver<Heartbeat> {
        self.inner.heartbeat.subscribe()
    }

    /// Ends invocations that the host will never end: each with `HostFault`, and at least the wall time that it took.
    pub fn give_up(&self, condemned: &[Condemned]) {
        for Condemned { invocation, usage } in condemned {
            if let Some(invocation) = self.inner.remove(*invocation) {
                invocation.lock().condemned = true;
                let outcome = Outcome::HostFault("the isolate would not stop".to_owned());
                let usage = Usage { wall_us: usage.wall_us.max(invocation.age_us()), ..*usage };
                invocation.finish(Ended { outcome, usage });
            }
        }
    }

    /// Invocations that have not ended.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.inner.in_flight.load(Ordering::Relaxed)
    }

    /// Who is inside now; after the link closed, who was inside when it did.
    #[must_use]
    pub fn inside(&self) -> Vec<(InvocationId, Identity)> {
        let lost = lock(&self.inner.lost);
        if !lost.is_empty() {
            return lost.clone();
        }
        drop(lost);
        let mut inside = Vec::new();
        for shard in &self.inner.table {
            inside
                .extend(lock(shard).values().map(|invocation| (invocation.id, invocation.identity.clone())));
        }
        inside
    }

    /// Frames that named an invocation or stream that is gone; some are normal after a cancel.
    #[must_use]
    pub fn frames_ignored(&self) -> u64 {
        self.inner.ignored.load(Ordering::Relaxed)
    }

    /// Calls on channels that were not granted: a correct host makes none.
    #[must_use]
    pub fn calls_forged(&self) -> u64 {
        self.inner.forged.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("in_flight", &self.in_flight())
            .field("closed", &self.close_reason())
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is under these locks is consistent between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn new(out: mpsc::UnboundedSender<ToHost>, runtime: Handle) -> Arc<Self> {
        Arc::new(Self {
            out,
            table: std::array::from_fn(|_| Mutex::default()),
            bundles: Mutex::default(),
            next: AtomicU64::new(1),
            in_flight: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            closed: watch::Sender::new(None),
            lost: Mutex::default(),
            heartbeat: watch::Sender::new(Heartbeat::default()),
            ignored: AtomicU64::new(0),
            forged: AtomicU64::new(0),
            runtime,
        })
    }

    /// Queues a message. On a closed link it goes nowhere, and whoever waits was answered already.
    fn send(&self, message: ToHost) {
        let _ = self.out.send(message);
    }

    fn count_forged(&self) {
        self.forged.fetch_add(1, Ordering::Relaxed);
    }

    fn shard(&self, id: InvocationId) -> MutexGuard<'_, HashMap<InvocationId, Arc<Invocation>>> {
        lock(&self.table[id.0 as usize % SHARDS])
    }

    fn find(&self, id: InvocationId) -> Option<Arc<Invocation>> {
        self.shard(id).get(&id).cloned()
    }

    fn remove(&self, id: InvocationId) -> Option<Arc<Invocation>> {
        let removed = self.shard(id).remove(&id);
        if removed.is_some() {
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
        removed
    }

    /// Who was inside is noted before anybody learns of the loss, so whoever asks after the end gets the final answer.
    fn suspicion(&self, invocation: &Invocation) -> Option<Suspicion> {
        if invocation.lock().condemned {
            return Some(Suspicion::Condemned);
        }
        let reason = (*self.closed.borrow())?;
        let lost = lock(&self.lost);
        if !lost.iter().any(|(id, _)| *id == invocation.id) {
            return None;
        }
        // A host that the gateway itself ended says nothing about who was in it.
        let alone = reason != CloseReason::Closed
            && lost.iter().all(|(_, inside)| inside.tenant == invocation.identity.tenant);
        Some(if alone { Suspicion::Alone } else { Suspicion::AmongOthers })
    }

    fn down(&self) -> Option<LinkDown> {
        if !self.closing.load(Ordering::SeqCst) {
            return None;
        }
        Some(LinkDown { reason: self.closed.borrow().unwrap_or(CloseReason::Closed) })
    }

    fn start(self: &Arc<Self>, start: Start) -> Result<Running, LinkDown> {
        self.begin(start, None)
    }

    /// Starts what a waiting call of an isolate is joined with.
    fn start_session(self: &Arc<Self>, start: Start, opening: &Opening) -> Result<Running, LinkDown> {
        self.begin(Start { event: StartEvent::Session, ..start }, Some(opening))
    }

    fn begin(self: &Arc<Self>, start: Start, opening: Option<&Opening>) -> Result<Running, LinkDown> {
        if let Some(down) = self.down() {
            return Err(down);
        }
        let id = InvocationId(self.next.fetch_add(1, Ordering::Relaxed));
        let (env, granted) = grants(start.env);
        let wants = match &start.event {
            StartEvent::Fetch(request) if is_wanted(request.method(), request.headers()) => Wants::Socket,
            StartEvent::Fetch(_) => Wants::Response,
            StartEvent::Scheduled { .. } | StartEvent::Execute { .. } => Wants::Value,
            StartEvent::Session => Wants::Nothing,
        };
        let outbound = match start.outbound {
            Some(_) => Outbound::Channel(ChannelId(0)),
            None => Outbound::Denied,
        };
        let invocation = Arc::new(Invocation::new(
            id,
            start.identity.clone(),
            start.limits,
            wants,
            start.outbound,
            granted,
            opening.map(Opening::lineage).unwrap_or_default(),
        ));
        let Some((event, pump)) = self.event(&invocation, start.event, opening) else {
            invocation.finish(refused("A session needs a caller."));
            return Ok(Running::new(Arc::clone(self), invocation));
        };
        let invoke = Invoke {
            id,
            isolate: start.isolate,
            bundle: start.bundle.hash(),
            entrypoint: start.entrypoint,
            props: start.props,
            event,
            identity: start.identity,
            limits: start.limits,
            env,
            outbound,
        };
        if !fits(&invoke) {
            invocation.finish(refused("The input is too large."));
            return Ok(Running::new(Arc::clone(self), invocation));
        }
        self.shard(id).insert(id, Arc::clone(&invocation));
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        // After the insertion: either `close` finds the entry, or we see that it ran.
        if let Some(down) = self.down() {
            self.remove(id);
            invocation.finish(lost(down.reason));
            return Err(down);
        }
        let running = Running::new(Arc::clone(self), Arc::clone(&invocation));
        if !self.invoke(&start.bundle, invoke) {
            self.remove(id);
            invocation.finish(refused("The code is too large."));
            return Ok(running);
        }
        if let Some(pump) = pump {
            self.runtime.spawn(async move {
                let stream = pump.stream;
                pump.run().await;
                invocation.lock().outlets.remove(&stream);
            });
        }
        Ok(running)
    }

    fn event(
        self: &Arc<Self>,
        invocation: &Invocation,
        event: StartEvent,
        opening: Option<&Opening>,
    ) -> Option<(Event, Option<Pump>)> {
        Some(match event {
            StartEvent::Scheduled { cron, time_ms } => (Event::Scheduled { cron, time_ms }, None),
            StartEvent::Execute { input } => (Event::Execute { input }, None),
            StartEvent::Session => {
                let (caller, call) = opening?.call();
                (Event::Session { caller, call }, None)
            }
            StartEvent::Fetch(request) => self.fetch_event(invocation, request),
        })
    }

    fn fetch_event(
        self: &Arc<Self>,
        invocation: &Invocation,
        request: http::Request<RequestBody>,
    ) -> (Event, Option<Pump>) {
        let (parts, body) = request.into_parts();
        let (pending, source, length) = match prepare(body) {
            Prepared::Whole(body) => return (Event::Fetch(request_out(&parts, body)), None),
            Prepared::Stream { prefix, source, length } => (prefix, source, length),
        };
        let Some((stream, outlet)) = invocation.lock().open_outlet() else {
            return (Event::Fetch(request_out(&parts, Body::Empty)), None);
        };
        let head = request_out(&parts, Body::Stream { id: stream, length });
        let pump =
            Pump { link: Arc::clone(self), invocation: invocation.id, stream, outlet, pending, source };
        (Event::Fetch(head), Some(pump))
    }

    /// Sends `Invoke`, and before it the bundle if the host does not have it. False if the bundle is beyond a frame.
    fn invoke(&self, bundle: &Bundle, invoke: Invoke) -> bool {
        let encoded = bundle.encode();
        if encoded.len() > FRAME_BYTES_MAX - FRAME_SLACK_BYTES {
            return false;
        }
        let hash = bundle.hash();
        let invoke = ToHost::Invoke(Box::new(invoke));
        // One lock over all three, so that no `Forget` of another caller comes between.
        let mut bundles = lock(&self.bundles);
        if !bundles.touch(&hash) {
            for hash in bundles.insert(hash, encoded.len()) {
                self.send(ToHost::Forget { hash });
            }
            self.send(ToHost::Bundle { hash, encoded });
        }
        self.send(invoke);
        true
    }

    /// Applies one message of the host.
    fn receive(self: &Arc<Self>, message: ToGateway) -> Result<(), Violation> {
        match message {
            ToGateway::Response { invocation, response } => match self.find(invocation) {
                Some(invocation) => return self.response(&invocation, response),
                None => self.ignore(),
            },
            ToGateway::Returned { invocation, json } => match self.find(invocation) {
                Some(invocation) if invocation.wants == Wants::Value => {
                    invocation.answer(RawAnswer::Value(json))?;
                }
                Some(_) => return Err(Violation::WrongAnswer),
                None => self.ignore(),
            },
            ToGateway::Body(frame) => return self.body(frame),
            ToGateway::Call { invocation, call, channel, request } => match self.find(invocation) {
                Some(invocation) => return calls::begin(self, &invocation, call, channel, request),
                None => self.ignore(),
            },
            ToGateway::CallMethod { invocation, call, channel, method, arguments } => {
                match self.find(invocation) {
                    Some(invocation) => {
                        return calls::begin_method(self, &invocation, call, channel, method, arguments);
                    }
                    None => self.ignore(),
                }
            }
            ToGateway::OpenService { invocation, call, channel } => match self.find(invocation) {
                Some(invocation) => return service::begin(self, &invocation, call, channel),
                None => self.ignore(),
            },
            ToGateway::Log(line) => match self.find(line.invocation) {
                Some(invocation) => invocation.lock().logs.push(line),
                None => self.ignore(),
            },
            ToGateway::Done { invocation, outcome, usage } => match self.remove(invocation) {
                Some(invocation) => invocation.finish(Ended { outcome, usage }),
                None => self.ignore(),
            },
            ToGateway::Heartbeat(heartbeat) => {
                // Said once is enough: the next heartbeat may not say it again.
                for condemned in heartbeat.condemned.iter().filter_map(|each| self.find(each.invocation)) {
                    condemned.lock().condemned = true;
                }
                self.heartbeat.send_replace(heartbeat);
            }
        }
        Ok(())
    }

    fn ignore(&self) {
        self.ignored.fetch_add(1, Ordering::Relaxed);
    }

    fn response(&self, invocation: &Invocation, response: HttpResponse) -> Result<(), Violation> {
        if matches!(invocation.wants, Wants::Value | Wants::Nothing) {
            return Err(Violation::WrongAnswer);
        }
        check_inline(&response.body)?;
        let allowed = invocation.limits.response_bytes;
        let (head, body) = match response_in(response) {
            Ok(parts) => parts,
            Err(bad) => {
                self.judge(invocation, unusable(&bad.to_string()));
                return Ok(());
            }
        };
        let allowed = match (head.status(), invocation.wants) {
            // Messages of a WebSocket have bounds of their own, and no end that could be bounded.
            (StatusCode::SWITCHING_PROTOCOLS, Wants::Socket) => u64::MAX,
            (StatusCode::SWITCHING_PROTOCOLS, _) => {
                self.judge(invocation, unusable(UNASKED_SOCKET));
                return Ok(());
            }
            _ => allowed,
        };
        let body = match body {
            Body::Stream { id, length } => RawBody::Stream(id, Inlet::new(length, allowed)),
            whole => RawBody::Whole(inline(whole)),
        };
        if matches!(&body, RawBody::Whole(bytes) if bytes.len() as u64 > allowed) {
            self.judge(invocation, TOO_LARGE);
            return Ok(());
        }
        if let Some(stream) = invocation.answer(RawAnswer::Response(head, body))? {
            self.send(inlet::step(invocation.id, stream, BodyStep::Stop));
        }
        Ok(())
    }

    fn judge(&self, invocation: &Invocation, outcome: Outcome) {
        invocation.judge(outcome);
        self.send(ToHost::Cancel { invocation: invocation.id });
    }

    fn body(&self, BodyFrame { invocation, stream, step }: BodyFrame) -> Result<(), Violation> {
        let Some(invocation) = self.find(invocation) else {
            self.ignore();
            return Ok(());
        };
        match step {
            BodyStep::Data(_) | BodyStep::End | BodyStep::Abort(_) => self.inward(&invocation, stream, step),
            BodyStep::Credit(_) | BodyStep::Stop => self.outward(&invocation, stream, &step),
        }
    }

    /// A step of a body that the host sends.
    fn inward(&self, invocation: &Invocation, stream: StreamId, step: BodyStep) -> Result<(), Violation> {
        if stream.0.is_multiple_of(2) {
            return Err(Violation::Direction);
        }
        let last = !matches!(step, BodyStep::Data(_));
        let inlet = {
            let mut state = invocation.lock();
            if last { state.inlets.remove(&stream) } else { state.inlets.get(&stream).cloned() }
        };
        let Some(inlet) = inlet else {
            self.ignore();
            return Ok(());
        };
        match step {
            BodyStep::Data(bytes) => {
                if inlet.data(bytes)? == Taken::TooLarge {
                    self.judge(invocation, TOO_LARGE);
                }
            }
            BodyStep::Abort(reason) => inlet.abort(reason),
            BodyStep::End | BodyStep::Credit(_) | BodyStep::Stop => inlet.end(),
        }
        Ok(())
    }

    /// Flow control of a body that the gateway sends.
    fn outward(&self, invocation: &Invocation, stream: StreamId, step: &BodyStep) -> Result<(), Violation> {
        if !stream.0.is_multiple_of(2) {
            return Err(Violation::Direction);
        }
        let Some(outlet) = invocation.lock().outlets.get(&stream).cloned() else {
            self.ignore();
            return Ok(());
        };
        match step {
            BodyStep::Credit(bytes) => outlet.grant(*bytes),
            _ => {
                outlet.stop();
                Ok(())
            }
        }
    }

    /// Ends the link, and with it everything on it.
    fn close(&self, reason: CloseReason) {
        let first = self.closed.send_if_modified(|closed| {
            let first = closed.is_none();
            closed.get_or_insert(reason);
            first
        });
        if !first {
            return;
        }
        if let CloseReason::Violation(violation) = reason {
            tracing::error!(%violation, "an isolate host broke the protocol");
        }
        self.closing.store(true, Ordering::SeqCst);
        let mut inside = Vec::new();
        for shard in &self.table {
            inside.extend(std::mem::take(&mut *lock(shard)).into_values());
        }
        self.in_flight.fetch_sub(inside.len(), Ordering::Relaxed);
        *lock(&self.lost) = inside.iter().map(|gone| (gone.id, gone.identity.clone())).collect();
        for invocation in inside {
            let usage = Usage { wall_us: invocation.age_us(), ..Usage::default() };
            invocation.finish(Ended { usage, ..lost(reason) });
        }
    }
}

/// Bounds the body that travels in a head.
fn check_inline(body: &Body) -> Result<(), Violation> {
    match body {
        Body::Inline(bytes) if bytes.len() > BODY_INLINE_BYTES_MAX => Err(Violation::InlineTooLong),
        _ => Ok(()),
    }
}

fn lost(reason: CloseReason) -> Ended {
    let outcome = Outcome::HostFault(LinkDown { reason }.to_string());
    Ended { outcome, usage: Usage::default() }
}

fn refused(why: &str) -> Ended {
    Ended { outcome: Outcome::Refused(why.to_owned()), usage: Usage::default() }
}

/// `env` as the host sees it.
type Env = Vec<(Arc<str>, EnvValue)>;

/// Splits `env` into what the host sees and the capabilities behind its numbers. Number 0 is the outbound channel.
fn grants(env: Vec<(Arc<str>, Grant)>) -> (Env, Vec<Granted>) {
    let mut granted = Vec::new();
    let mut number = |capability| {
        granted.push(capability);
        ChannelId(granted.len() as u32)
    };
    let value = |(name, grant)| {
        let value = match grant {
            Grant::Text(text) => EnvValue::Text(text),
            Grant::Json(json) => EnvValue::Json(json),
            Grant::Data(bytes) => EnvValue::Data(bytes),
            Grant::Loader { scope } => EnvValue::Loader { scope },
            Grant::Channel(channel) => EnvValue::Fetcher(number(Granted::Channel(channel))),
            Grant::Kv(channel) => EnvValue::Kv(number(Granted::Channel(channel))),
            Grant::Service(service) => EnvValue::Service(number(Granted::Service(service))),
        };
        (name, value)
    };
    let env = env.into_iter().map(value).collect();
    (env, granted)
}

/// Whether an `Invoke` fits in a frame. Heads are bounded by the listener; these parts come from callers.
fn fits(invoke: &Invoke) -> bool {
    let input = match &invoke.event {
        Event::Execute { input } => input.len(),
        Event::Scheduled { cron, .. } => cron.len(),
        Event::Fetch(_) | Event::Session { .. } => 0,
    };
    let value = |(name, value): &(Arc<str>, EnvValue)| {
        name.len()
            + match value {
                EnvValue::Text(text) | EnvValue::Json(text) => text.len(),
                EnvValue::Data(bytes) => bytes.len(),
                EnvValue::Loader { scope } => scope.len(),
                EnvValue::Fetcher(_) | EnvValue::Kv(_) | EnvValue::Service(_) => 0,
            }
    };
    let env: usize = invoke.env.iter().map(value).sum();
    let props = invoke.props.as_ref().map_or(0, String::len);
    input.saturating_add(env).saturating_add(props) <= FRAME_BYTES_MAX - FRAME_SLACK_BYTES
}
