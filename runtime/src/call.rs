//! Calls: how an isolate uses a capability, and how the answer comes back.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use atoll_bindings::seam::{
    CallError, CallId, HttpRequest, HttpResponse, InvocationId, LimitKind, METHOD_BYTES_MAX, Outcome,
    StreamId, ToGateway, Usage,
};
use atoll_loader::limits::Limits;

use crate::body::Outgoing;
use crate::message::{IsolateMsg, Peer, Root};
use crate::rpc::{Props, RpcResult};
use crate::service::{Errand, Way};
use crate::state::{Call, Capability, IsolateState, Running, Wake};
use crate::stream::Route;
use crate::trace::TAIL_WALL_MS_MAX;
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
        let (root, capability) = self.use_capability(owner, capability)?;
        if head.0.method == "CONNECT" && !matches!(capability, Capability::Channel(_)) {
            return Err(CallRefused::NoConnections);
        }
        match capability {
            Capability::Channel(channel) => {
                let key = self.next_call(owner, &root);
                let number = self.register_call(owner, key, None, false);
                let mut request = head.0;
                let peer = Peer::Gateway(root.gateway.clone());
                let (body, launch) = self.announce(owner, outgoing, None, |_| Route {
                    peer,
                    invocation: root.id,
                    stream: StreamId(root.next_stream()),
                });
                request.body = body;
                let _gone =
                    root.gateway.send(ToGateway::Call { invocation: root.id, call: key.1, channel, request });
                self.launch(launch);
                Ok(number)
            }
            Capability::Service(channel) => {
                let errand = Errand::Fetch { request: head.0, body: outgoing };
                Ok(self.open_service(owner, &root, channel, errand))
            }
            Capability::Entrypoint { worker, name, props, limits } => {
                let errand = Errand::Fetch { request: head.0, body: outgoing };
                Ok(self.call_worker(owner, root, worker, (name, props, limits), errand))
            }
            Capability::Lent { .. } => Err(CallRefused::NoCapability),
        }
    }

    /// Counts one use of a capability; gives it with the root among whose grants it is.
    pub(crate) fn use_capability(
        &mut self,
        owner: u32,
        number: u32,
    ) -> Result<(Arc<Root>, Capability), CallRefused> {
        let capability = self.capabilities.get(&number).cloned().ok_or(CallRefused::NoCapability)?;
        let running = self.running.get_mut(&owner).ok_or(CallRefused::ForeignRequest)?;
        let own = Arc::clone(&running.root);
        let (root, capability) = match capability {
            Capability::Lent { root, capability, .. } => (root, *capability),
            capability => (Arc::clone(&own), capability),
        };
        if root.is_over() {
            return Err(CallRefused::NoCapability);
        }
        let lent = !Arc::ptr_eq(&root, &own);
        if running.usage.subrequests >= running.limits.subrequests
            || !Root::take(&own.subrequests_left, 1)
            || (lent && !Root::take(&root.subrequests_left, 1))
        {
            return Err(CallRefused::TooManySubrequests);
        }
        running.usage.subrequests += 1;
        Ok((root, capability))
    }

    /// The name of a call to the gateway, whose answer will find this isolate.
    pub(crate) fn next_call(&self, owner: u32, root: &Arc<Root>) -> (InvocationId, CallId) {
        let key = (root.id, CallId(root.calls.fetch_add(1, Relaxed)));
        let by_itself =
            self.running.get(&owner).is_some_and(|running| running.is_root() && running.root.id == root.id);
        if !by_itself {
            self.host.remember_call(key, &self.me);
        }
        key
    }

    /// What an invocation has left: a worker that it loads never gets more.
    pub(crate) fn left(&self, owner: u32) -> Limits {
        let Some(running) = self.running.get(&owner) else { return Limits::default() };
        let mut limits = running.limits;
        let wall_left = running.wall_deadline_us.saturating_sub(now_us()) / 1_000;
        limits.wall_ms = u32::try_from(wall_left).unwrap_or(u32::MAX).min(limits.wall_ms);
        limits
    }

    /// Sends an errand to a worker of this host that runs on its caller's account.
    pub(crate) fn call_worker(
        &mut self,
        owner: u32,
        root: Arc<Root>,
        callee: Callee,
        (entrypoint, props, limits): (Option<String>, Option<Props>, Option<Limits>),
        errand: Errand,
    ) -> u32 {
        let mut limits =
            limits.map_or(callee.limits(), |own| own.lower_of(callee.limits())).lower_of(self.left(owner));
        if errand.is_tail() {
            limits.wall_ms = limits.wall_ms.min(TAIL_WALL_MS_MAX);
        }
        let id = self.host.next_nested();
        let number = self.register_call(owner, (id, CallId(0)), Some(callee.clone()), errand.is_rpc());
        let lender = self.running.get(&owner).is_none_or(|running| !Arc::ptr_eq(&running.root, &root));
        if let Some(call) = self.calls.get_mut(&number) {
            call.tail = errand.is_tail();
            call.lender = lender.then(|| Arc::clone(&root));
        }
        let way = Way { callee, id, root, entrypoint, props, limits, asked_us: now_us(), end: None };
        self.send_errand(owner, number, way, errand);
        number
    }

    /// Tells each tail what an invocation did. None of them is counted: it was the loader that wanted them.
    fn tell_tails(&mut self, owner: u32, tails: &[Capability], item: &Arc<str>) {
        for tail in tails {
            let Some(running) = self.running.get(&owner) else { return };
            let own = Arc::clone(&running.root);
            let (root, tail) = match tail.clone() {
                Capability::Lent { root, capability, .. } => (root, *capability),
                tail => (own, tail),
            };
            if root.is_over() {
                continue;
            }
            let errand = Errand::Tail(Arc::clone(item));
            match tail {
                Capability::Entrypoint { worker, name, props, limits } => {
                    self.call_worker(owner, root, worker, (name, props, limits), errand);
                }
                Capability::Service(channel) => {
                    self.open_service(owner, &root, channel, errand);
                }
                // Capabilities of the gateway have no `tail`.
                Capability::Channel(_) | Capability::Lent { .. } => {}
            }
        }
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
        self.calls.insert(
            number,
            Call {
                owner,
                key,
                child,
                replied: false,
                rpc,
                wound_down: false,
                errand: None,
                tail: false,
                lender: None,
            },
        );
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
        let (owner, child, rpc, tail) = (entry.owner, entry.child.clone(), entry.rpc, entry.tail);
        if child.is_none() {
            // A child's call stays until its `ChildDone`.
            self.calls.remove(&number);
            self.call_keys.remove(&(invocation, call));
        }
        if tail {
            // A service that is not to be had: the next one is told all the same.
            return self.finish_if_idle(owner);
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
        if let Some(call) = self.calls.get_mut(&number)
            && let Some(child) = call.child.clone()
            && !child.tails().is_empty()
        {
            // Its tails are told how it ended.
            call.replied = true;
            return child.send(IsolateMsg::Cancel { invocation: call.key.0 });
        }
        let Some(call) = self.calls.remove(&number) else { return };
        self.call_keys.remove(&call.key);
        match &call.child {
            Some(child) => child.send(IsolateMsg::Cancel { invocation: call.key.0 }),
            None => self.host.forget_call(call.key),
        }
    }

    /// An invocation in another isolate is over; if it never answered, this is the answer.
    pub(crate) fn child_done(
        &mut self,
        invocation: InvocationId,
        outcome: Outcome,
        usage: Usage,
        trace: Option<Arc<str>>,
    ) {
        let Some(number) = self.call_keys.remove(&(invocation, CallId(0))) else { return };
        let Some(call) = self.calls.remove(&number) else { return };
        if let Some(lender) = &call.lender {
            lender.foreign_cpu_us.fetch_add(usage.cpu_us, Relaxed);
        } else if let Some(running) = self.running.get_mut(&call.owner)
            && !matches!(call.child, Some(Callee::Service(_)))
        {
            running.usage.cpu_us += usage.cpu_us;
            running.usage.subrequests += usage.subrequests;
            running.usage.loads += usage.loads;
            running.usage.heap_bytes_peak = running.usage.heap_bytes_peak.max(usage.heap_bytes_peak);
            running.usage.external_bytes_peak =
                running.usage.external_bytes_peak.max(usage.external_bytes_peak);
        }
        if let (Some(trace), Some(child)) = (trace, &call.child) {
            self.tell_tails(call.owner, child.tails(), &trace);
        }
        if call.replied || call.tail {
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
