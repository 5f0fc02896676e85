//! Other deployed workers: how a call finds the isolate that serves it.
//!
//! ```text
//!  caller's isolate ── OpenService ──▶ gateway        the call waits here, with its errand
//!        ▲                               │ Invoke{ event: Session }
//!        │◀────── Opened(Session) ── router ── isolate_for(callee)
//!        └── Invoke{ root: the session's own } ──▶ callee's isolate ── Done ──▶ gateway, and the caller
//! ```
//!
//! The gateway decides whether there is a session and what it may do; the router only brings the two together. From then on
//! they talk as a worker does with one that it loaded, under a number of this host's own, so that their bodies cannot be
//! taken for those of the gateway. What differs is the root: the callee's calls, logs and limits are its own invocation's.

use std::sync::{Arc, Weak};

use atoll_bindings::seam::{
    CallId, ChannelId, Event, HttpRequest, InvocationId, Outcome, StreamId, ToGateway, Usage,
};
use atoll_loader::limits::Limits;

use crate::body::Outgoing;
use crate::host::HostShared;
use crate::message::{Inbox, Invocation, IsolateMsg, Peer, Root, Work};
use crate::rpc::{Packed, Props, ReplyTo, RpcCall};
use crate::state::IsolateState;
use crate::stream::Route;
use crate::thread::{IsolateRef, StartSpec};
use crate::trace::TAIL_WALL_MS_MAX;
use crate::watchdog::now_us;
use crate::worker::Callee;

/// What is wanted of another worker.
#[derive(Debug)]
pub(crate) enum Errand {
    /// An answer to a request.
    Fetch { request: HttpRequest, body: Outgoing },
    /// A method, or without arguments a property, of its entrypoint.
    Rpc { path: Vec<String>, arguments: Option<Packed> },
    /// To be told what another invocation did.
    Tail(Arc<str>),
}

impl Errand {
    pub(crate) fn is_rpc(&self) -> bool {
        matches!(self, Self::Rpc { .. })
    }

    pub(crate) fn is_tail(&self) -> bool {
        matches!(self, Self::Tail(_))
    }
}

/// A session that the gateway granted to a call which waits.
#[derive(Debug)]
pub(crate) struct Session {
    callee: IsolateRef,
    /// What the callee is started from, should it be over before the call reaches it.
    spec: StartSpec,
    entrypoint: Option<String>,
    props: Option<Props>,
    limits: Limits,
    asked_us: u64,
    end: SessionEnd,
}

/// The duty to tell the gateway how a session ended. Dropped, it says that nobody wanted it.
#[derive(Debug)]
pub(crate) struct SessionEnd {
    host: Weak<HostShared>,
    root: Arc<Root>,
    told: bool,
}

impl SessionEnd {
    pub(crate) fn done(mut self, outcome: Outcome, usage: Usage) {
        self.tell(outcome, usage);
    }

    fn tell(&mut self, outcome: Outcome, usage: Usage) {
        self.told = true;
        self.root.end();
        if let Some(host) = self.host.upgrade() {
            host.forget_root(self.root.id);
        }
        let _gone = self.root.gateway.send(ToGateway::Done { invocation: self.root.id, outcome, usage });
    }
}

impl Drop for SessionEnd {
    fn drop(&mut self) {
        if !self.told {
            self.tell(Outcome::Canceled, Usage::default());
        }
    }
}

impl Session {
    pub(crate) fn new(
        host: &Arc<HostShared>,
        (entrypoint, props, limits): (Option<String>, Option<String>, Limits),
        root: Arc<Root>,
        (callee, spec): (IsolateRef, StartSpec),
    ) -> Self {
        Self {
            callee,
            spec,
            entrypoint,
            props: props.map(Props::Json),
            limits,
            asked_us: now_us(),
            end: SessionEnd { host: Arc::downgrade(host), root, told: false },
        }
    }

    /// Where the callee takes calls. It may have been let go, for a new version or for idleness, since the grant.
    fn reach(&mut self, host: &Arc<HostShared>) -> Inbox {
        if self.callee.is_over() {
            self.callee = host.isolate_for(self.spec.clone());
            host.move_root(self.end.root.id, &self.callee);
        }
        self.callee.inbox.clone()
    }
}

/// Where an errand goes.
pub(crate) struct Way {
    pub(crate) callee: Callee,
    /// The number under which caller and callee talk.
    pub(crate) id: InvocationId,
    pub(crate) root: Arc<Root>,
    pub(crate) entrypoint: Option<String>,
    pub(crate) props: Option<Props>,
    pub(crate) limits: Limits,
    pub(crate) asked_us: u64,
    /// If the callee runs on its own account.
    pub(crate) end: Option<SessionEnd>,
}

impl IsolateState {
    /// Asks the gateway for a session; the errand waits. The number names the answer.
    pub(crate) fn open_service(
        &mut self,
        owner: u32,
        root: &Arc<Root>,
        channel: ChannelId,
        errand: Errand,
    ) -> u32 {
        let key = self.next_call(owner, root);
        let number = self.register_call(owner, key, None, errand.is_rpc());
        if let Some(call) = self.calls.get_mut(&number) {
            call.tail = errand.is_tail();
            call.errand = Some(errand);
        }
        let _gone = root.gateway.send(ToGateway::OpenService { invocation: key.0, call: key.1, channel });
        number
    }

    /// The session is there: the errand goes to it. If nobody waits any more, dropping it tells the gateway.
    pub(crate) fn opened(&mut self, key: (InvocationId, CallId), mut session: Session) {
        let Some(number) = self.call_keys.remove(&key) else { return };
        let Some(call) = self.calls.get_mut(&number) else { return };
        let Some(errand) = call.errand.take() else { return };
        let id = self.host.next_nested();
        let callee = Callee::Service(session.reach(&self.host));
        call.key = (id, CallId(0));
        call.child = Some(callee.clone());
        let owner = call.owner;
        self.call_keys.insert((id, CallId(0)), number);
        let mut limits = session.limits;
        limits.wall_ms = limits.wall_ms.min(self.left(owner).wall_ms);
        if errand.is_tail() {
            limits.wall_ms = limits.wall_ms.min(TAIL_WALL_MS_MAX);
        }
        let way = Way {
            callee,
            id,
            root: Arc::clone(&session.end.root),
            entrypoint: session.entrypoint,
            props: session.props,
            limits,
            asked_us: session.asked_us,
            end: Some(session.end),
        };
        self.send_errand(owner, number, way, errand);
    }

    /// Sends an errand to the isolate that serves it.
    pub(crate) fn send_errand(&mut self, owner: u32, number: u32, way: Way, errand: Errand) {
        let peer = way.callee.peer();
        let mut launches = Vec::new();
        let work = match errand {
            Errand::Fetch { mut request, body } => {
                let route = Route { peer, invocation: way.id, stream: StreamId(0) };
                let (body, launch) = self.announce(owner, body, None, |_| route);
                launches.extend(launch);
                request.body = body;
                way.root.trace(&mut request);
                Work::Event(Event::Fetch(request))
            }
            Errand::Tail(item) => Work::Tail(item),
            Errand::Rpc { path, arguments } => {
                let (arguments, bodies) = self.sealed(arguments, &peer);
                launches.extend(bodies);
                Work::Rpc(RpcCall { path, arguments, reply: ReplyTo::new(&self.me, number) })
            }
        };
        way.callee.send(IsolateMsg::Invoke(Box::new(Invocation {
            id: way.id,
            root: way.root,
            peer: Peer::Isolate(self.me.clone()),
            entrypoint: way.entrypoint,
            props: way.props,
            work,
            limits: way.limits,
            asked_us: way.asked_us,
            session: way.end,
        })));
        launches.into_iter().for_each(|launch| self.launch(Some(launch)));
    }
}
