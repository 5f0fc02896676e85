//! What one isolate keeps beside its JavaScript: invocations, bodies, calls and capabilities.
//!
//! JavaScript knows each of them by a small local number; numbers are never reused, so a stale one finds nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{SystemTime, UNIX_EPOCH};

use atoll_bindings::seam::{
    BodyStep, CallId, ChannelId, GuestError, HttpResponse, InvocationId, LimitKind, LogLevel, LogLine,
    Outcome, StreamId, Usage,
};
use atoll_loader::limits::{LOG_LINE_BYTES_MAX, Limits};
use bytes::Bytes;

use crate::host::HostShared;
use crate::memory::External;
use crate::message::{Inbox, Invocation, IsolateMsg, Peer, Root, Work};
use crate::rpc::{Export, Import, Message, Packed, Props, ReplyTo, Waiting};
use crate::service::{Errand, SessionEnd};
use crate::stream::{Inbound, Outbound};
use crate::trace::Trace;
use crate::watchdog::{Slot, now_us};
use crate::worker::{Callee, ChildWorker};

/// An invocation while it runs here.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) id: InvocationId,
    pub(crate) root: Arc<Root>,
    pub(crate) peer: Peer,
    pub(crate) limits: Limits,
    pub(crate) usage: Usage,
    started_us: u64,
    pub(crate) wall_deadline_us: u64,
    pub(crate) cpu_us: u64,
    pub(crate) answered: bool,
    pub(crate) settled: bool,
    /// Response bodies still on their way.
    pub(crate) open_bodies: u32,
    /// Next number for a stream of a nested invocation (odd: the callee's).
    pub(crate) next_stream: u32,
    /// It is a session: it stays while something that crossed it is held.
    pub(crate) session: bool,
    /// Objects that it handed out and that are still held.
    pub(crate) exports: u32,
    /// Stubs that came as parameters and are still held here.
    pub(crate) held: u32,
    /// Calls on its objects that were not answered yet.
    pub(crate) incoming: u32,
    /// Its own calls that wait for answers, and the bytes of their arguments.
    pub(crate) waiting_calls: u32,
    pub(crate) waiting_bytes: usize,
    /// Bytes of `env` and `props` that it wrote, kept for as long as it runs.
    pub(crate) plain_bytes: usize,
    /// The stream of its client's messages, if it asked for a WebSocket and got no answer yet.
    pub(crate) socket_in: Option<u32>,
    /// It answered with a WebSocket.
    pub(crate) socket_open: bool,
    pub(crate) workers: Vec<Arc<ChildWorker>>,
    /// Numbers of workers and capabilities that were given out for it.
    pub(crate) numbers: Vec<u32>,
    /// It is another worker's call on this one: the gateway must learn of its end.
    pub(crate) session_end: Option<SessionEnd>,
    /// What it does, if its worker is tailed.
    pub(crate) trace: Option<Box<Trace>>,
}

impl Running {
    /// Whether what the gateway answers to its root comes to this isolate by itself.
    pub(crate) fn is_root(&self) -> bool {
        matches!(self.peer, Peer::Gateway(_)) || self.session_end.is_some()
    }
}

/// A call on its way.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) owner: u32,
    /// Key under which its reply comes.
    pub(crate) key: (InvocationId, CallId),
    /// The isolate it went to, if it is another worker.
    pub(crate) child: Option<Callee>,
    pub(crate) replied: bool,
    /// It opened a session, which may go on after the reply.
    pub(crate) rpc: bool,
    pub(crate) wound_down: bool,
    /// What waits until the gateway has opened the way.
    pub(crate) errand: Option<Errand>,
    /// It tells a tail; nobody waits for an answer.
    pub(crate) tail: bool,
    /// Whose CPU time it is, if the capability was lent by another invocation of the gateway's.
    pub(crate) lender: Option<Arc<Root>>,
}

/// Something a guest can call.
#[derive(Clone, Debug)]
pub(crate) enum Capability {
    /// A channel of the gateway.
    Channel(ChannelId),
    /// Another deployed worker: the gateway opens each use.
    Service(ChannelId),
    /// An entrypoint of a worker loaded here.
    Entrypoint { worker: Callee, name: Option<String>, props: Option<Props>, limits: Option<Limits> },
    /// One that was given away under another of the gateway's invocations: its numbers mean something there only, and its
    /// use is on that invocation's account, for as long as it runs.
    Lent { root: Arc<Root>, capability: Box<Capability>, hold: Option<Arc<Export>> },
}

impl Capability {
    /// The same for whoever works under `root`, where it comes from under `origin`.
    pub(crate) fn lent(self, origin: &Arc<Root>, root: &Arc<Root>, hold: Option<Arc<Export>>) -> Self {
        match self {
            Self::Lent { root: lender, capability, .. } if Arc::ptr_eq(&lender, root) => *capability,
            lent @ Self::Lent { .. } => lent,
            own if Arc::ptr_eq(origin, root) => own,
            own => Self::Lent { root: Arc::clone(origin), capability: Box::new(own), hold },
        }
    }
}

/// What a reply looks like to JavaScript.
#[derive(Debug)]
pub(crate) enum Wake {
    /// There is news on a stream.
    Stream,
    Response(HttpResponse, BodyForm),
    Failed {
        message: String,
        denied: bool,
    },
    /// The answer to a call of a method.
    Rpc {
        message: u32,
        threw: bool,
    },
    /// A worker's handler threw.
    Threw(GuestError),
}

/// Milliseconds since the Unix epoch.
pub(crate) fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// A body as JavaScript gets it.
#[derive(Debug)]
pub(crate) enum BodyForm {
    Empty,
    Bytes(Bytes),
    Native { number: u32, length: Option<u64> },
}

/// The state of one isolate.
pub(crate) struct IsolateState {
    pub(crate) host: Arc<HostShared>,
    pub(crate) slot: Arc<Slot>,
    pub(crate) external: Arc<External>,
    pub(crate) me: Inbox,
    pub(crate) running: HashMap<u32, Running>,
    /// Invocation on whose account work is counted.
    pub(crate) current: u32,
    /// CPU time of the start that no invocation was charged for yet, in microseconds.
    pub(crate) startup_cpu_us: u64,
    pub(crate) by_id: HashMap<InvocationId, u32>,
    pub(crate) inbound: HashMap<u32, (u32, Inbound)>,
    pub(crate) outbound: HashMap<u32, (u32, Outbound)>,
    /// Numbers of bodies by their names, apart by direction: a worker that calls itself has both ends.
    pub(crate) streams_in: HashMap<(InvocationId, StreamId), u32>,
    pub(crate) streams_out: HashMap<(InvocationId, StreamId), u32>,
    pub(crate) calls: HashMap<u32, Call>,
    pub(crate) call_keys: HashMap<(InvocationId, CallId), u32>,
    /// What JavaScript can call, by number. Those made for an invocation go with it.
    pub(crate) capabilities: HashMap<u32, Capability>,
    /// Objects handed out, with the invocations that did.
    pub(crate) exports: HashMap<u32, u32>,
    /// Those that are in no message yet.
    pub(crate) fresh: HashMap<u32, Arc<Export>>,
    pub(crate) imports: HashMap<u32, Import>,
    /// Values written and not sent, and values that came and were not read.
    pub(crate) packed: HashMap<u32, Packed>,
    pub(crate) messages: HashMap<u32, Message>,
    /// Calls of methods: of this isolate, and of others on its objects.
    pub(crate) waiting: HashMap<u32, Waiting>,
    pub(crate) incoming: HashMap<u32, (u32, ReplyTo)>,
    /// What this isolate's worker is to those that it gives its own entrypoints.
    pub(crate) own: Option<Callee>,
    pub(crate) flags: Vec<String>,
    next_number: u32,
    /// Host clock at which JavaScript's next timer is due, in microseconds.
    pub(crate) timer_us: Option<u64>,
    /// News for JavaScript, in order.
    pub(crate) wakes: Vec<(u32, Wake)>,
    /// Invocations that ended and that JavaScript must forget.
    pub(crate) ended: Vec<u32>,
    /// How deep this isolate is in a chain of dynamic workers.
    pub(crate) depth: usize,
    pub(crate) workers: HashMap<u32, Arc<ChildWorker>>,
    pub(crate) heap_peak: u64,
    /// Where this worker's own global `fetch()` goes, and whether workers that it loads get the same by default.
    pub(crate) global_outbound: Option<Capability>,
    pub(crate) inherits_outbound: bool,
    /// Somebody wants to know what this worker does.
    pub(crate) traced: bool,
}

impl IsolateState {
    pub(crate) fn new(host: Arc<HostShared>, slot: Arc<Slot>, external: Arc<External>, me: Inbox) -> Self {
        Self {
            host,
            slot,
            external,
            me,
            running: HashMap::new(),
            current: 0,
            startup_cpu_us: 0,
            by_id: HashMap::new(),
            inbound: HashMap::new(),
            outbound: HashMap::new(),
            streams_in: HashMap::new(),
            streams_out: HashMap::new(),
            calls: HashMap::new(),
            call_keys: HashMap::new(),
            capabilities: HashMap::new(),
            exports: HashMap::new(),
            fresh: HashMap::new(),
            imports: HashMap::new(),
            packed: HashMap::new(),
            messages: HashMap::new(),
            waiting: HashMap::new(),
            incoming: HashMap::new(),
            own: None,
            flags: Vec::new(),
            next_number: 1,
            timer_us: None,
            wakes: Vec::new(),
            ended: Vec::new(),
            depth: 0,
            workers: HashMap::new(),
            heap_peak: 0,
            global_outbound: None,
            inherits_outbound: false,
            traced: false,
        }
    }

    pub(crate) fn next_number(&mut self) -> u32 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    // ---- Invocations ----------------------------------------------------------------------------------------

    /// Registers an invocation; returns its number and, for a fetch event, the form of its body.
    pub(crate) fn begin(&mut self, invocation: &mut Invocation) -> u32 {
        let number = self.next_number();
        let now = now_us();
        let running = Running {
            id: invocation.id,
            root: Arc::clone(&invocation.root),
            peer: invocation.peer.clone(),
            limits: invocation.limits,
            usage: Usage {
                cpu_us: std::mem::take(&mut self.startup_cpu_us),
                isolate_wait_us: now.saturating_sub(invocation.asked_us),
                ..Usage::default()
            },
            started_us: now,
            wall_deadline_us: invocation.asked_us + u64::from(invocation.limits.wall_ms) * 1_000,
            cpu_us: 0,
            answered: false,
            settled: false,
            open_bodies: 0,
            next_stream: 1,
            session: matches!(invocation.work, Work::Rpc(_)),
            exports: 0,
            held: 0,
            incoming: 0,
            waiting_calls: 0,
            waiting_bytes: 0,
            plain_bytes: 0,
            socket_in: None,
            socket_open: false,
            workers: Vec::new(),
            numbers: Vec::new(),
            session_end: invocation.session.take(),
            trace: if self.traced {
                Trace::begin(&invocation.work, invocation.entrypoint.as_deref(), wall_ms()).map(Box::new)
            } else {
                None
            },
        };
        if running.session_end.is_some() {
            // The gateway knows it by the number of its root.
            self.by_id.insert(running.root.id, number);
        }
        self.by_id.insert(invocation.id, number);
        self.running.insert(number, running);
        self.watch_wall();
        number
    }

    /// Who pays for what happens now: the current invocation, or when that is over, any other.
    pub(crate) fn payer(&self) -> u32 {
        match self.running.contains_key(&self.current) {
            true => self.current,
            false => self.running.keys().next().copied().unwrap_or(0),
        }
    }

    /// Tells the watchdog the earliest wall deadline.
    pub(crate) fn watch_wall(&self) {
        let earliest = self.running.values().map(|running| running.wall_deadline_us).min();
        self.slot.set_wall_deadline(earliest.unwrap_or(u64::MAX));
    }

    pub(crate) fn earliest_wall_deadline(&self) -> Option<u64> {
        self.running.values().map(|running| running.wall_deadline_us).min()
    }

    /// Ends those whose wall time is over, without touching the others.
    pub(crate) fn expire(&mut self, now: u64) {
        let late: Vec<u32> = self
            .running
            .iter()
            .filter(|(_, running)| running.wall_deadline_us <= now)
            .map(|(number, _)| *number)
            .collect();
        for number in late {
            self.finish(number, Outcome::Limit(LimitKind::Wall));
        }
    }

    /// JavaScript says: answered, and nothing waits.
    pub(crate) fn settle(&mut self, number: u32) {
        if let Some(running) = self.running.get_mut(&number) {
            running.settled = true;
            self.finish_if_idle(number);
        }
    }

    pub(crate) fn finish_if_idle(&mut self, number: u32) {
        let idle = |running: &Running| {
            let held = running.session && (running.exports > 0 || running.held > 0);
            running.settled && running.open_bodies == 0 && running.incoming == 0 && !held
        };
        if self.running.get(&number).is_some_and(idle) && self.wind_down(number) {
            self.finish(number, Outcome::Done);
        }
    }

    /// Looks how much heap is used.
    pub(crate) fn note_heap(&mut self, isolate: &mut v8::Isolate) {
        self.heap_peak = self.heap_peak.max(isolate.get_heap_statistics().used_heap_size() as u64);
    }

    /// The one place where an invocation ends: releases all it has and says `Done`.
    pub(crate) fn finish(&mut self, number: u32, outcome: Outcome) {
        let Some(running) = self.running.remove(&number) else { return };
        // What a stopped guest threw on its way out, as from native code that gave up, is not why it ended.
        let outcome = match (outcome, self.slot.verdict()) {
            (Outcome::GuestError(_), Some(verdict)) => crate::isolate::stopped(verdict),
            (outcome, _) => outcome,
        };
        self.by_id.remove(&running.id);
        self.release_streams(number, &outcome);
        self.release_calls(number);
        self.release_rpc(number, &outcome);
        let mut usage = running.usage;
        usage.cpu_us += running.cpu_us;
        if running.is_root() {
            running.root.end();
            usage.cpu_us += running.root.foreign_cpu_us.swap(0, Relaxed);
        }
        if number == self.current {
            usage.cpu_us +=
                if self.slot.is_inside() { self.slot.take_cpu_us() } else { self.slot.helpers.take_us() };
        }
        usage.wall_us = now_us().saturating_sub(running.started_us);
        usage.heap_bytes_peak = usage.heap_bytes_peak.max(self.heap_peak);
        usage.external_bytes_peak = usage.external_bytes_peak.max(self.external.peak_bytes());
        let external = self.slot.external_peak.load(Relaxed);
        usage.external_bytes_peak = usage.external_bytes_peak.max(external);
        // A number kept would keep its worker: a parent that loads one per request would grow for ever.
        for number in running.numbers {
            self.workers.remove(&number);
            self.capabilities.remove(&number);
        }
        for worker in running.workers {
            worker.release();
        }
        if matches!(running.peer, Peer::Gateway(_)) {
            self.host.forget_root(running.id);
        }
        if let Some(session) = running.session_end {
            self.by_id.remove(&running.root.id);
            session.done(outcome.clone(), usage);
        }
        let trace = running.trace.map(|trace| trace.end(&outcome, &usage, wall_ms()).into());
        running.peer.done(running.id, outcome, usage, trace);
        self.ended.push(number);
        self.watch_wall();
    }

    /// Ends everything, as an isolate that will not run again must.
    pub(crate) fn finish_all(&mut self, outcome: &Outcome) {
        let numbers: Vec<u32> = self.running.keys().copied().collect();
        for number in numbers {
            self.finish(number, outcome.clone());
        }
    }

    pub(crate) fn cancel(&mut self, id: InvocationId) {
        if let Some(&number) = self.by_id.get(&id) {
            self.finish(number, Outcome::Canceled);
        }
    }

    fn release_streams(&mut self, owner: u32, outcome: &Outcome) {
        self.inbound.retain(|_, (of, inbound)| {
            if *of == owner {
                self.streams_in.remove(&(inbound.route.invocation, inbound.route.stream));
                if inbound.ended.is_none() {
                    inbound.route.send(BodyStep::Stop);
                }
            }
            *of != owner
        });
        let host = &self.host;
        self.outbound.retain(|_, (of, outbound)| {
            if *of == owner {
                if let Some(route) = &outbound.route {
                    self.streams_out.remove(&(route.invocation, route.stream));
                    host.forget_stream(route);
                }
                outbound.end(BodyStep::Abort(format!("the worker ended: {}", outcome.code())));
            }
            *of != owner
        });
    }

    fn release_calls(&mut self, owner: u32) {
        let host = &self.host;
        let keys = &mut self.call_keys;
        self.calls.retain(|_, call| {
            if call.owner != owner {
                return true;
            }
            keys.remove(&call.key);
            match &call.child {
                // Another worker that has answered finishes its own work; it only loses its caller.
                Some(child @ Callee::Service(_)) if call.replied => {
                    child.send(IsolateMsg::CallerDone { invocation: call.key.0 });
                }
                Some(child) => child.send(IsolateMsg::Cancel { invocation: call.key.0 }),
                None => host.forget_call(call.key),
            }
            false
        });
    }

    /// Makes something callable; `owner` is the invocation with which it goes, 0 for the isolate's whole life.
    pub(crate) fn add_capability(&mut self, owner: u32, capability: Capability) -> u32 {
        let number = self.next_number();
        self.capabilities.insert(number, capability);
        if let Some(running) = self.running.get_mut(&owner) {
            running.numbers.push(number);
        }
        number
    }

    // ---- Logs -----------------------------------------------------------------------------------------------

    /// A console line of an invocation, within its budget of bytes.
    pub(crate) fn log(&mut self, number: u32, level: LogLevel, mut message: String) {
        let Some(running) = self.running.get_mut(&number) else { return };
        let mut truncated = false;
        if message.len() > LOG_LINE_BYTES_MAX {
            message.truncate(message.floor_char_boundary(LOG_LINE_BYTES_MAX));
            truncated = true;
        }
        let bytes = u32::try_from(message.len()).unwrap_or(u32::MAX);
        running.usage.log_bytes = running.usage.log_bytes.saturating_add(bytes);
        if !Root::take(&running.root.log_bytes_left, bytes.max(1)) {
            running.root.logs_dropped.fetch_add(1, Relaxed);
            return;
        }
        truncated |= running.root.logs_dropped.swap(0, Relaxed) > 0;
        let time_ms = wall_ms();
        running.root.log(LogLine {
            invocation: running.root.id,
            level,
            time_ms,
            message,
            truncated,
            fields: None,
        });
    }
}
