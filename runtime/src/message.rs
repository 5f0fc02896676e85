//! What isolates of one host, and the host's router, say to each other.
//!
//! The same shapes serve both kinds of caller: the gateway (through the router) and another isolate that loaded
//! this one. A [`Peer`] hides which it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use atoll_bindings::seam::{
    Body, BodyFrame, CallError, CallId, Event, HttpRequest, HttpResponse, InvocationId, Invoke, LogLine,
    MethodError, Outcome, ToGateway, Usage,
};
use atoll_loader::limits::Limits;
use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;

use crate::rpc::{Cap, Props, RpcCall, RpcResult};
use crate::service::{Session, SessionEnd};

/// To an isolate's thread.
#[derive(Debug)]
pub(crate) enum IsolateMsg {
    /// Run something.
    Invoke(Box<Invocation>),
    /// A step of a body to or from this isolate.
    Body(BodyFrame),
    /// The answer to a call this isolate made.
    Reply { invocation: InvocationId, call: CallId, result: Result<HttpResponse, CallError> },
    /// An invocation that this isolate made in another one is over.
    /// `trace` is for its tails.
    ChildDone { invocation: InvocationId, outcome: Outcome, usage: Usage, trace: Option<Arc<str>> },
    /// A call on an object that this isolate handed out.
    Rpc { export: u32, call: RpcCall },
    /// What came of a call that this isolate made.
    Returned { call: u32, result: RpcResult },
    /// What a method of a capability of the gateway gave.
    MethodReturned { invocation: InvocationId, call: CallId, result: Result<Bytes, MethodError> },
    /// Nobody holds a stub for this object any more.
    Released { export: u32 },
    /// Whoever called an object of this isolate is gone: the answer would reach nobody.
    Unwanted { caller: Inbox, call: u32 },
    /// The caller of a session has let go of all that it was given.
    CallerDone { invocation: InvocationId },
    /// The gateway granted what a call of this isolate waits for.
    Opened { invocation: InvocationId, call: CallId, session: Box<Session> },
    /// Nobody wants the answer any more.
    Cancel { invocation: InvocationId },
    /// End once idle.
    Evict,
}

/// Where to reach an isolate.
pub(crate) type Inbox = UnboundedSender<IsolateMsg>;

/// One thing to run.
#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) id: InvocationId,
    pub(crate) root: Arc<Root>,
    pub(crate) peer: Peer,
    pub(crate) entrypoint: Option<String>,
    pub(crate) props: Option<Props>,
    pub(crate) work: Work,
    pub(crate) limits: Limits,
    /// Host clock when it was asked for, in microseconds.
    pub(crate) asked_us: u64,
    /// If it is another worker's call: the duty to tell the gateway of its end, beside the caller.
    pub(crate) session: Option<SessionEnd>,
}

impl Invocation {
    /// Whether a body flows to it from another isolate, which sends it to where the invocation first went.
    pub(crate) fn is_fed(&self) -> bool {
        let streams = |body: &Body| matches!(body, Body::Stream { .. });
        match &self.work {
            Work::Event(Event::Fetch(request)) => {
                matches!(self.peer, Peer::Isolate(_)) && streams(&request.body)
            }
            Work::Rpc(RpcCall { arguments: Some(message), .. }) => {
                message.caps.iter().any(|cap| matches!(cap, Cap::Body { body, .. } if streams(body)))
            }
            _ => false,
        }
    }

    /// Ends it before it began.
    pub(crate) fn end(self, outcome: Outcome) {
        self.peer.done(self.id, outcome.clone(), Usage::default(), None);
        if let Some(session) = self.session {
            session.done(outcome, Usage::default());
        }
    }
}

/// What an invocation does.
#[derive(Debug)]
pub(crate) enum Work {
    /// A handler of the worker runs.
    Event(Event),
    /// A method of an entrypoint is called: the invocation is a session.
    Rpc(RpcCall),
    /// It is told what another invocation did: a trace item as JSON text.
    Tail(Arc<str>),
}

/// The gateway's invocation at the root of a tree of isolates: what all of them share.
#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) id: InvocationId,
    pub(crate) gateway: UnboundedSender<ToGateway>,
    /// W3C `traceparent` of all of it.
    pub(crate) traceparent: Option<Box<str>>,
    /// Numbers for calls on the gateway's channels.
    pub(crate) calls: AtomicU32,
    /// Numbers for streams towards the gateway (odd).
    pub(crate) streams: AtomicU32,
    pub(crate) subrequests_left: AtomicU32,
    pub(crate) log_bytes_left: AtomicU32,
    pub(crate) loads_left: AtomicU32,
    /// Log lines dropped for want of budget.
    pub(crate) logs_dropped: AtomicU64,
    /// CPU time that others caused by what this invocation handed out, in microseconds.
    pub(crate) foreign_cpu_us: AtomicU64,
    over: AtomicBool,
}

impl Root {
    pub(crate) fn new(invoke: &Invoke, gateway: UnboundedSender<ToGateway>) -> Arc<Self> {
        let limits = &invoke.limits;
        Arc::new(Self {
            id: invoke.id,
            traceparent: invoke.identity.traceparent.as_deref().map(Into::into),
            gateway,
            calls: AtomicU32::new(1),
            streams: AtomicU32::new(1),
            subrequests_left: AtomicU32::new(limits.subrequests),
            log_bytes_left: AtomicU32::new(limits.log_bytes),
            loads_left: AtomicU32::new(limits.loads),
            logs_dropped: AtomicU64::new(0),
            foreign_cpu_us: AtomicU64::new(0),
            over: AtomicBool::new(false),
        })
    }

    /// It is over: the gateway takes no more calls for it.
    pub(crate) fn end(&self) {
        self.over.store(true, Relaxed);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    /// Gives a request to another isolate its place in the trace, unless the caller said one.
    pub(crate) fn trace(&self, request: &mut HttpRequest) {
        const TRACEPARENT: &str = "traceparent";
        if let Some(parent) = &self.traceparent
            && !request.headers.iter().any(|(name, _)| &**name == TRACEPARENT)
        {
            request.headers.push((TRACEPARENT.into(), Bytes::copy_from_slice(parent.as_bytes())));
        }
    }

    /// A number for a stream that the host sends to the gateway.
    pub(crate) fn next_stream(&self) -> u32 {
        self.streams.fetch_add(2, Relaxed)
    }

    /// Takes `amount` from a budget; false if there is not enough.
    pub(crate) fn take(budget: &AtomicU32, amount: u32) -> bool {
        budget.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(amount)).is_ok()
    }

    pub(crate) fn log(&self, line: LogLine) {
        // A gateway that is gone needs no logs.
        let _gone = self.gateway.send(ToGateway::Log(line));
    }
}

/// Who asked for an invocation.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    Gateway(UnboundedSender<ToGateway>),
    /// Another isolate of this host.
    Isolate(Inbox),
}

impl Peer {
    pub(crate) fn respond(&self, invocation: InvocationId, response: HttpResponse) {
        // The receiver may be gone: then nobody wants the answer.
        let _gone = match self {
            Self::Gateway(gateway) => gateway.send(ToGateway::Response { invocation, response }).is_ok(),
            Self::Isolate(inbox) => {
                inbox.send(IsolateMsg::Reply { invocation, call: CallId(0), result: Ok(response) }).is_ok()
            }
        };
    }

    pub(crate) fn returned(&self, invocation: InvocationId, json: String) {
        if let Self::Gateway(gateway) = self {
            let _gone = gateway.send(ToGateway::Returned { invocation, json });
        }
    }

    pub(crate) fn body(&self, frame: BodyFrame) {
        let _gone = match self {
            Self::Gateway(gateway) => gateway.send(ToGateway::Body(frame)).is_ok(),
            Self::Isolate(inbox) => inbox.send(IsolateMsg::Body(frame)).is_ok(),
        };
    }

    pub(crate) fn done(
        &self,
        invocation: InvocationId,
        outcome: Outcome,
        usage: Usage,
        trace: Option<Arc<str>>,
    ) {
        let _gone = match self {
            Self::Gateway(gateway) => gateway.send(ToGateway::Done { invocation, outcome, usage }).is_ok(),
            Self::Isolate(inbox) => {
                inbox.send(IsolateMsg::ChildDone { invocation, outcome, usage, trace }).is_ok()
            }
        };
    }
}
