//! What one isolate keeps for calls: objects that it handed out, stubs that it was given, calls that wait.

use std::sync::Arc;

use atoll_bindings::seam::{
    CallId, ChannelId, GuestError, InvocationId, METHOD_BYTES_MAX, METHOD_NAME_BYTES_MAX, MethodError,
    Outcome, StreamId, ToGateway,
};
use bytes::Bytes;

use super::{
    BYTES_WAITING_MAX, CALLS_WAITING_MAX, Cap, EXPORTS_MAX, Export, GONE, Message, Packed, PackedCap, Props,
    ReplyTo, RpcCall, RpcResult,
};
use crate::body::Launch;
use crate::call::CallRefused;
use crate::message::{Inbox, IsolateMsg, Peer, Root};
use crate::service::Errand;
use crate::state::{BodyForm, Capability, IsolateState, Wake};
use crate::stream::Route;

/// A stub that this isolate was given.
#[derive(Debug)]
pub(crate) struct Import {
    pub(crate) owner: u32,
    pub(crate) stub: Arc<Export>,
    /// It came as a parameter of a session, which stays open while it is held.
    pub(crate) holds_session: bool,
}

/// A call that waits for its answer.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) owner: u32,
    bytes: usize,
    /// The isolate whose object was called; it must learn when nobody waits any more. Entrypoints are told otherwise.
    callee: Option<Inbox>,
}

/// What goes on a stub's or an entrypoint's path.
pub(crate) enum Target {
    Stub(u32),
    Capability(u32),
}

/// A capability as the scripts learn of it.
pub(crate) enum Given {
    Stub(u32),
    Service(u32),
    Body(BodyForm),
}

impl IsolateState {
    // ---- Objects handed out ---------------------------------------------------------------------------------

    /// Names an object that leaves; it must be put into a message, or be taken back.
    pub(crate) fn export(&mut self, owner: u32) -> Result<u32, CallRefused> {
        let number = self.next_number();
        let inbox = self.me.clone();
        let running = self.running.get_mut(&owner).ok_or(CallRefused::ForeignRequest)?;
        if running.exports >= EXPORTS_MAX {
            return Err(CallRefused::TooManyStubs);
        }
        running.exports += 1;
        self.exports.insert(number, owner);
        self.fresh.insert(number, Arc::new(Export { inbox, number }));
        Ok(number)
    }

    /// Nobody holds a stub for this object any more. True if it was there.
    pub(crate) fn released(&mut self, number: u32) -> bool {
        let Some(owner) = self.exports.remove(&number) else { return false };
        if let Some(running) = self.running.get_mut(&owner) {
            running.exports -= 1;
            self.finish_if_idle(owner);
        }
        true
    }

    // ---- Stubs ----------------------------------------------------------------------------------------------

    pub(crate) fn import(&mut self, owner: u32, stub: Arc<Export>, holds_session: bool) -> u32 {
        let number = self.next_number();
        let holds_session = holds_session && self.running.get(&owner).is_some_and(|running| running.session);
        if let Some(running) = self.running.get_mut(&owner) {
            running.held += u32::from(holds_session);
            self.imports.insert(number, Import { owner, stub, holds_session });
        }
        number
    }

    pub(crate) fn duplicate(&mut self, number: u32) -> Option<u32> {
        let import = self.imports.get(&number)?;
        let (owner, stub, holds) = (import.owner, Arc::clone(&import.stub), import.holds_session);
        Some(self.import(owner, stub, holds))
    }

    /// The holder of a stub wants it no more.
    pub(crate) fn release(&mut self, number: u32) {
        let Some(import) = self.imports.remove(&number) else { return };
        if import.holds_session
            && let Some(running) = self.running.get_mut(&import.owner)
        {
            running.held -= 1;
            self.finish_if_idle(import.owner);
        }
    }

    /// The caller of a session holds nothing of it any more, and expects no more calls from it.
    pub(crate) fn caller_done(&mut self, id: InvocationId) {
        let Some(&number) = self.by_id.get(&id) else { return };
        if let Some(running) = self.running.get_mut(&number) {
            running.held = 0;
            for import in self.imports.values_mut().filter(|import| import.owner == number) {
                import.holds_session = false;
            }
            self.finish_if_idle(number);
        }
    }

    /// Keeps a session open for as long as somebody holds a service that it gave away.
    fn hold(&mut self, owner: u32) -> Option<Arc<Export>> {
        if !self.running.get(&owner).is_some_and(|running| running.session) {
            return None;
        }
        let number = self.export(owner).ok()?;
        self.fresh.remove(&number)
    }

    // ---- Messages -------------------------------------------------------------------------------------------

    /// Makes a message for `peer`. The streams in it must be launched once it was sent.
    pub(crate) fn seal(&mut self, packed: Packed, peer: &Peer) -> (Message, Vec<Launch>) {
        let mut launches = Vec::new();
        let mut caps = Vec::with_capacity(packed.caps.len());
        for cap in packed.caps {
            caps.push(match cap {
                PackedCap::Stub(stub) => Cap::Stub(stub),
                PackedCap::Service(capability) => Cap::Service { hold: self.hold(packed.owner), capability },
                PackedCap::Body(outgoing) => {
                    let invocation = self.host.next_nested();
                    let route = Route { peer: peer.clone(), invocation, stream: StreamId(0) };
                    let (body, launch) = self.announce(packed.owner, outgoing, None, |_| route);
                    launches.extend(launch);
                    Cap::Body { peer: Peer::Isolate(self.me.clone()), invocation, body }
                }
            });
        }
        let origin = self.running.get(&packed.owner).map(|running| Arc::clone(&running.root));
        (Message { bytes: packed.bytes, caps, disposer: packed.disposer, origin }, launches)
    }

    /// Makes a message that outlives its sender: it holds values and services only.
    pub(crate) fn seal_plain(&mut self, packed: Packed) -> Message {
        let service = |cap| match cap {
            PackedCap::Service(capability) => Some(Cap::Service { capability, hold: None }),
            PackedCap::Stub(_) | PackedCap::Body(_) => None,
        };
        let caps = packed.caps.into_iter().filter_map(service).collect();
        Message { bytes: packed.bytes, caps, disposer: None, origin: None }
    }

    /// Counts a value that is kept beyond one call against its writer. False if it has written too many.
    pub(crate) fn charge_plain(&mut self, owner: u32, bytes: usize) -> bool {
        let Some(running) = self.running.get_mut(&owner) else { return false };
        running.plain_bytes = running.plain_bytes.saturating_add(bytes);
        running.plain_bytes <= BYTES_WAITING_MAX
    }

    pub(crate) fn keep_message(&mut self, message: Message) -> u32 {
        let number = self.next_number();
        self.messages.insert(number, message);
        number
    }

    /// Gives the capabilities of a message to an invocation.
    pub(crate) fn open(
        &mut self,
        owner: u32,
        caps: Vec<Cap>,
        origin: Option<&Arc<Root>>,
        parameters: bool,
    ) -> Vec<Given> {
        let mut given = Vec::with_capacity(caps.len());
        let root = self.running.get(&owner).map(|running| Arc::clone(&running.root));
        let lent = |capability: Capability, hold| match (origin, &root) {
            (Some(origin), Some(root)) => capability.lent(origin, root, hold),
            _ => capability,
        };
        for cap in caps {
            given.push(match cap {
                Cap::Stub(stub) => Given::Stub(self.import(owner, stub, parameters)),
                Cap::Service { capability, hold } => {
                    Given::Service(self.add_capability(owner, lent(capability, hold)))
                }
                Cap::Body { peer, invocation, body } => {
                    Given::Body(self.accept(owner, &peer, invocation, body))
                }
            });
        }
        given
    }

    // ---- Calls ----------------------------------------------------------------------------------------------

    /// Sends a call; the number names its answer.
    pub(crate) fn rpc(
        &mut self,
        owner: u32,
        target: &Target,
        path: Vec<String>,
        arguments: Option<Packed>,
    ) -> Result<u32, CallRefused> {
        let bytes = arguments.as_ref().map_or(0, |packed| packed.bytes.len());
        let running = self.running.get_mut(&owner).ok_or(CallRefused::ForeignRequest)?;
        if running.waiting_calls >= CALLS_WAITING_MAX || running.waiting_bytes + bytes > BYTES_WAITING_MAX {
            return Err(CallRefused::TooManyCalls);
        }
        let mut callee = None;
        let number = match target {
            Target::Stub(stub) => {
                let import = self.imports.get(stub).ok_or(CallRefused::NoCapability)?;
                if import.owner != owner {
                    return Err(CallRefused::ForeignRequest);
                }
                let stub = Arc::clone(&import.stub);
                let number = self.next_number();
                let peer = Peer::Isolate(stub.inbox.clone());
                let (arguments, launches) = self.sealed(arguments, &peer);
                let call = RpcCall { path, arguments, reply: ReplyTo::new(&self.me, number) };
                // If nobody is there the call is dropped, and its reply says so.
                let _gone = stub.inbox.send(IsolateMsg::Rpc { export: stub.number, call });
                launches.into_iter().for_each(|launch| self.launch(Some(launch)));
                callee = Some(stub.inbox.clone());
                number
            }
            Target::Capability(capability) => self.call_entrypoint(owner, *capability, path, arguments)?,
        };
        self.waiting.insert(number, Waiting { owner, bytes, callee });
        if let Some(running) = self.running.get_mut(&owner) {
            running.waiting_calls += 1;
            running.waiting_bytes += bytes;
        }
        Ok(number)
    }

    pub(crate) fn sealed(&mut self, packed: Option<Packed>, peer: &Peer) -> (Option<Message>, Vec<Launch>) {
        match packed {
            Some(packed) => {
                let (message, launches) = self.seal(packed, peer);
                (Some(message), launches)
            }
            None => (None, Vec::new()),
        }
    }

    fn call_entrypoint(
        &mut self,
        owner: u32,
        capability: u32,
        path: Vec<String>,
        arguments: Option<Packed>,
    ) -> Result<u32, CallRefused> {
        let (root, capability) = self.use_capability(owner, capability)?;
        match capability {
            Capability::Entrypoint { worker, name, props, limits } => {
                let errand = Errand::Rpc { path, arguments };
                Ok(self.call_worker(owner, root, worker, (name, props, limits), errand))
            }
            Capability::Service(channel) => {
                Ok(self.open_service(owner, &root, channel, Errand::Rpc { path, arguments }))
            }
            Capability::Channel(channel) => self.call_method(owner, &root, channel, path, arguments),
            Capability::Lent { .. } => Err(CallRefused::NoCapability),
        }
    }

    /// Calls a method of a capability of the gateway, which has no V8: plain data only.
    fn call_method(
        &mut self,
        owner: u32,
        root: &Arc<Root>,
        channel: ChannelId,
        mut path: Vec<String>,
        arguments: Option<Packed>,
    ) -> Result<u32, CallRefused> {
        let (Some(packed), Some(method), true) = (arguments, path.pop(), path.is_empty()) else {
            return Err(CallRefused::PlainOnly);
        };
        let plain = packed.caps.is_empty() && packed.bytes.len() <= METHOD_BYTES_MAX;
        if !plain || method.len() > METHOD_NAME_BYTES_MAX {
            return Err(CallRefused::PlainOnly);
        }
        let key = self.next_call(owner, root);
        let number = self.register_call(owner, key, None, true);
        let _gone = root.gateway.send(ToGateway::CallMethod {
            invocation: root.id,
            call: key.1,
            channel,
            method,
            arguments: packed.bytes,
        });
        Ok(number)
    }

    /// What a method of a capability of the gateway gave.
    pub(crate) fn method_returned(
        &mut self,
        key: (InvocationId, CallId),
        result: Result<Bytes, MethodError>,
    ) {
        let Some(number) = self.call_keys.remove(&key) else { return };
        self.calls.remove(&number);
        self.returned(
            number,
            match result {
                Ok(bytes) => RpcResult::Value(Message { bytes, ..Message::default() }),
                Err(MethodError { name, message }) => {
                    RpcResult::Failed(GuestError { name, message, stack: None })
                }
            },
        );
    }

    /// The answer to a call of this isolate.
    pub(crate) fn returned(&mut self, number: u32, result: RpcResult) {
        if let Some(call) = self.calls.get_mut(&number) {
            call.replied = true;
        }
        let Some(waiting) = self.waiting.remove(&number) else { return };
        let Some(running) = self.running.get_mut(&waiting.owner) else { return };
        running.waiting_calls -= 1;
        running.waiting_bytes -= waiting.bytes;
        let wake = match result {
            RpcResult::Value(message) => Wake::Rpc { message: self.keep_message(message), threw: false },
            RpcResult::Threw(message) => Wake::Rpc { message: self.keep_message(message), threw: true },
            RpcResult::Failed(error) => Wake::Threw(error),
            RpcResult::Broken(message) => Wake::Failed { message, denied: true },
        };
        self.wakes.push((number, wake));
        self.finish_if_idle(waiting.owner);
    }

    /// A call came in for an object of this isolate: its owner and the call's number here.
    pub(crate) fn incoming(&mut self, export: u32, reply: ReplyTo) -> Option<(u32, u32)> {
        let owner = self.exports.get(&export).copied();
        let Some((owner, running)) = owner.and_then(|owner| Some((owner, self.running.get_mut(&owner)?)))
        else {
            reply.send(RpcResult::Broken(GONE.into()));
            return None;
        };
        // The scripts hold the invocation until the call is over and what it left to `waitUntil`, and settle it again.
        running.settled = false;
        Some((owner, self.answer_later(owner, reply)))
    }

    /// Nobody waits for the answer to this call any more: its number here, if it still runs.
    pub(crate) fn unwanted(&mut self, caller: &Inbox, call: u32) -> Option<u32> {
        let (&number, &(owner, _)) =
            self.incoming.iter().find(|(_, (_, reply))| reply.is_for(caller, call))?;
        self.incoming.remove(&number);
        if let Some(running) = self.running.get_mut(&owner) {
            running.incoming -= 1;
        }
        Some(number)
    }

    /// Keeps the duty to answer.
    pub(crate) fn answer_later(&mut self, owner: u32, reply: ReplyTo) -> u32 {
        let number = self.next_number();
        if let Some(running) = self.running.get_mut(&owner) {
            running.incoming += 1;
        }
        self.incoming.insert(number, (owner, reply));
        number
    }

    /// Answers a call. The value may be missing: then it could not be written.
    pub(crate) fn rpc_return(&mut self, number: u32, packed: Packed, threw: bool) {
        let Some((owner, reply)) = self.incoming.remove(&number) else { return };
        if let Some(peer) = reply.peer() {
            let (message, launches) = self.seal(packed, &peer);
            reply.send(if threw { RpcResult::Threw(message) } else { RpcResult::Value(message) });
            launches.into_iter().for_each(|launch| self.launch(Some(launch)));
        }
        if let Some(running) = self.running.get_mut(&owner) {
            running.incoming -= 1;
            self.finish_if_idle(owner);
        }
    }

    // ---- The end of an invocation -----------------------------------------------------------------------------

    /// Sessions that owe an answer and wait for nothing that could come: no call, no body, nobody who could call them.
    /// Timers are the scripts' to know.
    pub(crate) fn stuck_sessions(&self) -> Vec<u32> {
        let waits = |number: u32| {
            self.calls.values().any(|call| call.owner == number)
                || self.waiting.values().any(|waiting| waiting.owner == number)
                || self.inbound.values().any(|(owner, inbound)| *owner == number && inbound.ended.is_none())
                || self.outbound.values().any(|(owner, outbound)| *owner == number && !outbound.finished)
        };
        self.running
            .iter()
            .filter(|(_, running)| running.session && running.incoming > 0 && running.exports == 0)
            .map(|(number, _)| *number)
            .filter(|number| !waits(*number))
            .collect()
    }

    /// Lets go of the sessions that this invocation opened. True once all of them are over.
    pub(crate) fn wind_down(&mut self, owner: u32) -> bool {
        self.imports.retain(|_, import| import.owner != owner);
        if let Some(running) = self.running.get(&owner) {
            for number in &running.numbers {
                if matches!(self.capabilities.get(number), Some(Capability::Lent { hold: Some(_), .. })) {
                    self.capabilities.remove(number);
                }
            }
        }
        let mut over = true;
        for call in self.calls.values_mut() {
            let tailed = call.child.as_ref().is_some_and(|child| !child.tails().is_empty());
            if call.owner != owner || !(call.tail || call.replied && (call.rpc || tailed)) {
                continue;
            }
            over = false;
            if call.rpc
                && !std::mem::replace(&mut call.wound_down, true)
                && let Some(worker) = &call.child
            {
                worker.send(IsolateMsg::CallerDone { invocation: call.key.0 });
            }
        }
        over
    }

    /// Forgets what an ended invocation handed out and was given, and answers who waits for it.
    pub(crate) fn release_rpc(&mut self, owner: u32, outcome: &Outcome) {
        self.exports.retain(|_, of| *of != owner);
        self.imports.retain(|_, import| import.owner != owner);
        for (call, waiting) in self.waiting.extract_if(|_, waiting| waiting.owner == owner) {
            if let Some(callee) = waiting.callee {
                let _gone = callee.send(IsolateMsg::Unwanted { caller: self.me.clone(), call });
            }
        }
        self.packed.retain(|_, packed| packed.owner != owner);
        let calls: Vec<u32> =
            self.incoming.iter().filter(|(_, (of, _))| *of == owner).map(|(number, _)| *number).collect();
        for number in calls {
            if let Some((_, reply)) = self.incoming.remove(&number) {
                reply.outcome(outcome);
            }
        }
    }

    /// The form of `ctx.props` for the scripts: JSON text, or the number of a message.
    pub(crate) fn keep_props(&mut self, props: Option<Props>) -> (Option<String>, u32) {
        match props {
            None => (None, 0),
            Some(Props::Json(text)) => (Some(text), 0),
            Some(Props::Message(message)) => (None, self.keep_message(message)),
        }
    }
}
