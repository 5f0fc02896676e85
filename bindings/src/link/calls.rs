//! Calls of guests on their capabilities: checked, counted, and driven by one task each.

use std::future::Future as _;
use std::sync::Arc;

use atoll_loader::limits::Limits;
use bytes::Bytes;

use super::convert::{request_in, response_out};
use super::fault::Violation;
use super::inlet::{GuestBody, Inlet, step};
use super::invocation::{Invocation, State};
use super::logs::Console;
use super::outlet::{Prepared, Pump, prepare};
use super::{Inner, check_inline};
use crate::body::RequestBody;
use crate::channel::{CallContext, Channel};
use crate::seam::{
    Body, BodyStep, CallError, CallId, ChannelId, HttpRequest, HttpResponse, METHOD_BYTES_MAX,
    METHOD_NAME_BYTES_MAX, MethodError, StreamId, ToHost,
};
use crate::socket::handshake::is_wanted;
use crate::value::{VALUE_BYTES_MAX, Value, ValueError};

/// Calls beyond the limit of subrequests that are still answered. A correct host counts too and makes none; each answer is
/// queued, so a host that goes on and does not read must be stopped.
const CALLS_REFUSED_MAX: u32 = 1_000;

/// Takes a `Call` from the host.
pub(super) fn begin(
    link: &Arc<Inner>,
    invocation: &Arc<Invocation>,
    call: CallId,
    channel: ChannelId,
    request: HttpRequest,
) -> Result<(), Violation> {
    check_inline(&request.body)?;
    let granted = invocation.channel(channel).map(Arc::clone);
    let mut state = invocation.lock();
    let refusal = counted(&mut state, &invocation.limits, call, granted.is_some())?;
    let announced = match &request.body {
        Body::Stream { id, length } => {
            // Bodies of requests have no bound of their own: credit bounds what waits, the capability what passes.
            let inlet = Inlet::new(*length, u64::MAX);
            state.open_inlet(*id, &inlet)?;
            Some((*id, inlet))
        }
        Body::Empty | Body::Inline(_) => None,
    };
    let reply = Reply { link: Arc::clone(link), invocation: Arc::clone(invocation), call, sent: false };
    let (Some(channel), None) = (granted.clone(), &refusal) else {
        drop(state);
        if granted.is_none() {
            link.count_forged();
        }
        refuse(reply, announced, refusal.unwrap_or_else(|| CallError::Denied(String::new())));
        return Ok(());
    };
    // Under the lock, so that the task cannot end before its handle is in the table.
    let task = link.runtime.spawn(run(reply, channel, request, announced));
    state.calls.insert(call, task.abort_handle());
    Ok(())
}

/// Counts a call of whatever kind; why it must be refused, if it must.
pub(super) fn counted(
    state: &mut State,
    limits: &Limits,
    call: CallId,
    granted: bool,
) -> Result<Option<CallError>, Violation> {
    if state.calls.contains_key(&call) {
        return Err(Violation::CallNumber);
    }
    state.calls_made = state.calls_made.saturating_add(1);
    let (made, most) = (state.calls_made, limits.subrequests);
    if made > most.saturating_add(CALLS_REFUSED_MAX) {
        return Err(Violation::TooManyCalls);
    }
    Ok(if state.is_over() {
        Some(CallError::Network("The invocation has ended.".to_owned()))
    } else if made > most {
        Some(CallError::Denied("Too many subrequests by single Worker invocation.".to_owned()))
    } else if !granted {
        Some(CallError::Denied("This capability was not granted.".to_owned()))
    } else {
        None
    })
}

/// Takes a `CallMethod` from the host: the same checks, and the same count.
pub(super) fn begin_method(
    link: &Arc<Inner>,
    invocation: &Arc<Invocation>,
    call: CallId,
    channel: ChannelId,
    method: String,
    arguments: Bytes,
) -> Result<(), Violation> {
    if arguments.len() > METHOD_BYTES_MAX || method.len() > METHOD_NAME_BYTES_MAX {
        return Err(Violation::InlineTooLong);
    }
    let granted = invocation.channel(channel).map(Arc::clone);
    let mut state = invocation.lock();
    let refusal = counted(&mut state, &invocation.limits, call, granted.is_some())?;
    let reply = Reply { link: Arc::clone(link), invocation: Arc::clone(invocation), call, sent: false };
    let (Some(channel), None) = (granted.clone(), &refusal) else {
        drop(state);
        if granted.is_none() {
            link.count_forged();
        }
        reply.refuse(refusal.unwrap_or_else(|| CallError::Denied(String::new())));
        return Ok(());
    };
    if channel.is_immediate() {
        // Its answer is there at once, and takes no place among the calls that run.
        drop(state);
        let mut running = Box::pin(run_method(reply, channel, method, arguments));
        let waker = std::task::Waker::noop();
        let _done = running.as_mut().poll(&mut std::task::Context::from_waker(waker));
        return Ok(());
    }
    // Under the lock, so that the task cannot end before its handle is in the table.
    let task = link.runtime.spawn(run_method(reply, channel, method, arguments));
    state.calls.insert(call, task.abort_handle());
    Ok(())
}

async fn run_method(mut reply: Reply, channel: Arc<dyn Channel>, method: String, arguments: Bytes) {
    let invocation = Arc::clone(&reply.invocation);
    let _slot = match channel.is_immediate() {
        true => None,
        false => match invocation.slots.acquire().await {
            Ok(slot) => Some(slot),
            Err(_) => return,
        },
    };
    let context = context(&invocation);
    let result = match Value::decode(&arguments) {
        Ok(Value::List(arguments)) => channel.call(context, &method, arguments).await,
        Ok(_) => Err(MethodError::usage(ValueError::Malformed.to_string())),
        Err(error) => Err(MethodError::usage(error.to_string())),
    };
    let result = result.map(|value| value.encode()).and_then(|bytes| match bytes.len() {
        0..=VALUE_BYTES_MAX => Ok(bytes),
        _ => Err(MethodError::failed(ValueError::TooLarge.to_string())),
    });
    reply.sent = true;
    reply.link.send(ToHost::Returned { invocation: invocation.id, call: reply.call, result });
}

/// Under which invocation a call happens.
pub(super) fn context(invocation: &Arc<Invocation>) -> CallContext {
    CallContext {
        identity: invocation.identity.clone(),
        invocation: invocation.id,
        console: Console::of(invocation),
    }
}

/// Answers a call that does not happen, and keeps nothing of its body.
fn refuse(reply: Reply, announced: Option<(StreamId, Arc<Inlet>)>, error: CallError) {
    if let Some((id, inlet)) = announced
        && inlet.abandon()
    {
        reply.link.send(step(reply.invocation.id, id, BodyStep::Stop));
    }
    reply.refuse(error);
}

async fn run(
    mut reply: Reply,
    channel: Arc<dyn Channel>,
    request: HttpRequest,
    announced: Option<(StreamId, Arc<Inlet>)>,
) {
    let invocation = Arc::clone(&reply.invocation);
    let Ok(_slot) = invocation.slots.acquire().await else { return };
    let streamed =
        announced.map(|(id, inlet)| GuestBody::stream(inlet, Arc::clone(&reply.link), invocation.id, id));
    let (head, body) = match request_in(request) {
        Ok(parts) => parts,
        Err(bad) => return reply.refuse(CallError::Invalid(bad.to_string())),
    };
    if is_wanted(head.method(), head.headers()) && !channel.takes_sockets() {
        return reply.refuse(CallError::Invalid("This binding does not take WebSockets.".to_owned()));
    }
    if *head.method() == http::Method::CONNECT && !channel.takes_connections() {
        return reply.refuse(CallError::Invalid("This binding does not take TCP connections.".to_owned()));
    }
    let body = match (streamed, body) {
        (Some(streamed), _) => RequestBody::stream(streamed),
        (None, Body::Inline(bytes)) => RequestBody::Full(bytes),
        (None, Body::Empty | Body::Stream { .. }) => RequestBody::Empty,
    };
    let context = context(&invocation);
    match channel.fetch(context, head.map(|()| body)).await {
        Ok(response) => reply.respond(response).await,
        Err(error) => reply.refuse(error),
    }
}

/// The duty to answer one call: dropped unanswered (the capability panicked), it says that the call failed.
struct Reply {
    link: Arc<Inner>,
    invocation: Arc<Invocation>,
    call: CallId,
    sent: bool,
}

impl Reply {
    fn send(&mut self, result: Result<HttpResponse, CallError>) {
        self.sent = true;
        self.link.send(ToHost::Reply { invocation: self.invocation.id, call: self.call, result });
    }

    fn refuse(mut self, error: CallError) {
        self.send(Err(error));
    }

    async fn respond(&mut self, response: http::Response<RequestBody>) {
        let (parts, body) = response.into_parts();
        let (pending, source, length) = match prepare(body) {
            Prepared::Whole(body) => return self.send(Ok(response_out(parts, body))),
            Prepared::Stream { prefix, source, length } => (prefix, source, length),
        };
        let opened = {
            let mut state = self.invocation.lock();
            if state.is_over() { None } else { state.open_outlet() }
        };
        let Some((stream, outlet)) = opened else { return };
        self.send(Ok(response_out(parts, Body::Stream { id: stream, length })));
        let pump = Pump {
            link: Arc::clone(&self.link),
            invocation: self.invocation.id,
            stream,
            outlet,
            pending,
            source,
        };
        pump.run().await;
        self.invocation.lock().outlets.remove(&stream);
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        let over = {
            let mut state = self.invocation.lock();
            state.calls.remove(&self.call);
            state.is_over()
        };
        if !self.sent && !over {
            self.send(Err(CallError::Network("The call failed.".to_owned())));
        }
    }
}

/// The bytes of a body that travels in its head.
pub(super) fn inline(body: Body) -> Bytes {
    match body {
        Body::Inline(bytes) => bytes,
        Body::Empty | Body::Stream { .. } => Bytes::new(),
    }
}
