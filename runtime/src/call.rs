//! Calls: how an isolate uses a capability, and how the answer comes back.

use std::sync::Arc;

use atoll_bindings::seam::{
    CallError, CallId, Event, HttpRequest, HttpResponse, InvocationId, LimitKind, METHOD_BYTES_MAX, Outcome,
    StreamId, ToGateway, Usage,
};

use crate::body::Outgoing;
use crate::message::{Invocation, IsolateMsg, Peer, Root, Work};
use crate::rpc::{Props, RpcResult};
use crate::state::{Call, Capability, IsolateState, Running, Wake};
use crate::stream::Route;
use crate::watchdog::now_us;
use crate::worker::Callee;

/// Why a call did not leave.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallRefused {
    #[error(
        "Too many subrequests by single Worker invocation. To configure this limit, refer to https://developers.cloudflare.com/workers/wrangler/configuration/#limits"
    )]
    TooManySubrequests,
    #[error(
        "Cannot perform I/O on behalf of a different request. I/O objects (such as streams, request/response bodies, and others) created in the context of one request handler cannot be accessed from a different request's handler."
    )]
    ForeignRequest,
    #[error("Too many RPC calls are waiting for their answers.")]
    TooManyCalls,
    #[error("Too many RPC stubs were handed out and not disposed of.")]
    TooManyStubs,
    #[error("This binding takes method calls with at most {METHOD_BYTES_MAX} bytes of plain data.")]
    PlainOnly,
    #[error("Incoming CONNECT on a worker not supported")]
    NoConnections,
    #[error("The capability is gone.")]
    NoCapability,
}

/// The head of a request, without its body.
#[derive(Debug)]
pub(crate) struct RequestHead(pub(crate) HttpRequest);

impl IsolateState {
    /// Sends a request through a capability; the number names the reply to JavaScript.
    pub(crate) fn call(
        &mut self,
        owner: u32,
        capability: u32,
        head: RequestHead,
        outgoing: Outgoing,
    ) -> Result<u32, CallRefused> {
        let capability = self.capabilities.get(&capability).cloned().ok_or(CallRefused::NoCapability)?;
        let running = self.running.get_mut(&owner).ok_or(CallRefused::ForeignRequest)?;
        let root = Arc::clone(&running.root);
        if running.usage.subrequests >= running.limits.subrequests || !Root::take(&root.subrequests_left, 1) {
            return Err(CallRefused::TooManySubrequests);
        }
        running.usage.subrequests += 1;
        match capability {
            Capability::Channel(channel) => {
                let call = CallId(root.calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
                let nested = !matches!(running.peer, Peer::Gateway(_));
                let number = self.register_call(owner, (root.id, call), None, false);
                if nested {
                    self.host.remember_call((root.id, call), &self.me);
                }
                let mut request = head.0;
                let peer = Peer::Gateway(root.gateway.clone());
                let (body, launch) = self.announce(owner, outgoing, None, |_| Route {
                    peer,
                    invocation: root.id,
                    stream: StreamId(root.next_stream()),
                });
                request.body = body;
                let _gone =
                    root.gateway.send(ToGateway::Call { invocation: root.id, call, channel, request });
                self.launch(launch);
                Ok(number)
            }
            Capability::Entrypoint { .. } if head.0.method == "CONNECT" => Err(CallRefused::NoConnections),
            Capability::Entrypoint { worker, name, props, limits } => {
                let limits = limits
                    .map_or(worker.limits(), |own| own.lower_of(worker.limits()))
                    .lower_of(self.left(owner));
                Ok(self.call_worker(owner, root, &worker, (name, props, limits), head, outgoing))
            }
        }
    }

    /// What an invocation has left: a worker that it loads never gets more.
    pub(crate) fn left(&self, owner: u32) -> atoll_loader::limits::Limits {
        let Some(running) = self.running.get(&owner) else { return atoll_loader::limits::Limits::default() };
        let mut limits = running.limits;
        let wall_left = running.wall_deadline_us.saturating_sub(now_us()) / 1_000;
        limits.wall_ms = u32::try_from(wall_left).unwrap_or(u32::MAX).min(limits.wall_ms);
        limits
    }

    fn call_worker(
        &mut self,
        owner: u32,
        root: Arc<Root>,
        worker: &Callee,
        (entrypoint, props, limits): (Option<String>, Option<Props>, atoll_loader::limits::Limits),
        head: RequestHead,
        outgoing: Outgoing,
    ) -> u32 {
        let id = self.host.next_nested();
        let number = self.register_call(owner, (id, CallId(0)), Some(worker.clone()), false);
        let peer = worker.peer();
        let (body, launch) =
            self.announce(owner, outgoing, None, |_| Route { peer, invocation: id, stream: StreamId(0) });
        let mut request = head.0;
        request.body = body;
        root.trace(&mut request);
        worker.send(IsolateMsg::Invoke(Box::new(Invocation {
            id,
            root,
            peer: Peer::Isolate(self.me.clone()),
            entrypoint,
            props,
            work: Work::Event(Event::Fetch(request)),
            limits,
            asked_us: now_us(),
        })));
        self.launch(launch);
        number
    }

    pub(crate) fn register_call(
        &mut self,
        owner: u32,
        key: (InvocationId, CallId),
        child: Option<Callee>,
        rpc: bool,
    ) -> u32 {
        let number = self.next_number();
        self.call_keys.insert(key, number);
        self.calls.insert(number, Call { owner, key, child, replied: false, rpc, wound_down: false });
        number
    }

    /// The reply to a call.
    pub(crate) fn reply(
        &mut self,
        invocation: InvocationId,
        call: CallId,
        result: Result<HttpResponse, CallError>,
    ) {
        let Some(&number) = self.call_keys.get(&(invocation, call)) else { return };
        let Some(entry) = self.calls.get_mut(&number) else { return };
        entry.replied = true;
        let (owner, child, rpc) = (entry.owner, entry.child.clone(), entry.rpc);
        if child.is_none() {
            // A child's call stays until its `ChildDone`.
            self.calls.remove(&number);
            self.call_keys.remove(&(invocation, call));
        }
        if rpc {
            // Only refusals of methods come this way.
            let reason = result.err().map_or_else(String::new, |error| error.to_string());
            self.returned(number, RpcResult::Broken(reason));
            return;
        }
        let wake = match result {
            Ok(mut response) => {
                let peer = match &child {
                    Some(child) => child.peer(),
                    None => match self.running.get(&owner) {
                        Some(Running { root, .. }) => Peer::Gateway(root.gateway.clone()),
                        None => return,
                    },
                };
                let body = std::mem::replace(&mut response.body, atoll_bindings::seam::Body::Empty);
                let body = self.accept(owner, &peer, invocation, body);
                Wake::Response(response, body)
            }
            Err(CallError::Denied(message)) => Wake::Failed { message, denied: true },
            Err(error) => Wake::Failed { message: error.to_string(), denied: false },
        };
        self.wakes.push((number, wake));
    }

    /// Nobody waits for a reply any more.
    pub(crate) fn cancel_call(&mut self, number: u32) {
        let Some(call) = self.calls.remove(&number) else { return };
        self.call_keys.remove(&call.key);
        match &call.child {
            Some(child) => child.send(IsolateMsg::Cancel { invocation: call.key.0 }),
            None => self.host.forget_call(call.key),
        }
    }

    /// An invocation in another isolate is over; if it never answered, this is the answer.
    pub(crate) fn child_done(&mut self, invocation: InvocationId, outcome: Outcome, usage: Usage) {
        let Some(number) = self.call_keys.remove(&(invocation, CallId(0))) else { return };
        let Some(call) = self.calls.remove(&number) else { return };
        if let Some(running) = self.running.get_mut(&call.owner) {
            running.usage.cpu_us += usage.cpu_us;
            running.usage.subrequests += usage.subrequests;
            running.usage.loads += usage.loads;
            running.usage.heap_bytes_peak = running.usage.heap_bytes_peak.max(usage.heap_bytes_peak);
            running.usage.external_bytes_peak =
                running.usage.external_bytes_peak.max(usage.external_bytes_peak);
        }
        if call.replied {
            self.finish_if_idle(call.owner);
            return;
        }
        if call.rpc {
            let result = match outcome {
                Outcome::GuestError(error) => RpcResult::Failed(error),
                outcome => RpcResult::Broken(child_message(&outcome)),
            };
            self.returned(number, result);
            return;
        }
        let wake = match outcome {
            Outcome::GuestError(error) => Wake::Threw(error),
            outcome => Wake::Failed { message: child_message(&outcome), denied: true },
        };
        self.wakes.push((number, wake));
    }
}

/// What a caller is told when the worker it called was stopped. The family of texts is that of Workers.
pub(crate) fn child_message(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Limit(LimitKind::Cpu) => "Worker exceeded CPU time limit.".into(),
        Outcome::Limit(LimitKind::Wall) => "Worker exceeded wall time limit.".into(),
        Outcome::Limit(LimitKind::Heap | LimitKind::External) => "Worker exceeded memory limit.".into(),
        Outcome::Limit(LimitKind::ResponseBytes) => "Worker exceeded response size limit.".into(),
        Outcome::Refused(reason) | Outcome::HostFault(reason) => reason.clone(),
        Outcome::Hung => "The Workers runtime canceled this request because it detected that your Worker's code had hung and would never generate a response. Refer to: https://developers.cloudflare.com/workers/observability/errors/".into(),
        Outcome::Done | Outcome::Canceled | Outcome::GuestError(_) => "The worker ended without an answer.".into(),
    }
}
