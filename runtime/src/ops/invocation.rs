//! Invocations: answers, calls, timers, logs.

use atoll_bindings::seam::{Body, HttpRequest, HttpResponse, LogLevel, Outcome, Redirect, StreamId};
use atoll_loader::limits::{HEADER_BYTES_MAX, HEADERS_MAX, URL_BYTES_MAX};
use deno_core::{OpState, op2};

use super::{Thrown, isolate};
use crate::body::Outgoing;
use crate::call::RequestHead;
use crate::message::Peer;
use crate::state::{IsolateState, wall_ms};
use crate::stream::Route;
use crate::values::{bytes_of, guest_error, headers_of};
use crate::watchdog::now_us;

/// A body as the scripts hand it over: (kind, what, declared length or -1).
fn outgoing(scope: &mut v8::PinScope, kind: u32, what: v8::Local<v8::Value>, length: f64) -> Outgoing {
    let length = (length >= 0.0).then_some(length as u64);
    // Converting anything but a number would run the guest's `valueOf` in the middle of an op.
    let number = what.try_cast::<v8::Uint32>().map_or(0, |number| number.value());
    match kind {
        1 => Outgoing::Bytes(bytes_of(scope, what)),
        2 => Outgoing::Native { number, length },
        3 => Outgoing::Stream { number, length },
        4 => Outgoing::Splice { number },
        _ => Outgoing::Empty,
    }
}

fn check_headers(headers: &atoll_bindings::seam::Headers) -> Result<(), Thrown> {
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if headers.len() > HEADERS_MAX || bytes > HEADER_BYTES_MAX {
        return Err(Thrown(format!(
            "Too many headers: at most {HEADERS_MAX} fields and {HEADER_BYTES_MAX} bytes."
        )));
    }
    Ok(())
}

/// The status of an answer that is a WebSocket.
const SWITCHING_PROTOCOLS: u32 = 101;

/// Answers a fetch event.
#[op2(fast)]
pub(crate) fn op_respond<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    state: &mut OpState,
    #[smi] number: u32,
    #[smi] status: u32,
    #[string] status_text: String,
    headers: v8::Local<'s, v8::Array>,
    #[smi] kind: u32,
    body: v8::Local<'s, v8::Value>,
    length: f64,
) -> Result<(), Thrown> {
    let headers = headers_of(scope, headers);
    check_headers(&headers)?;
    let outgoing = outgoing(scope, kind, body, length);
    let isolate = isolate(state);
    let mut isolate = isolate.borrow_mut();
    let Some(running) = isolate.running.get_mut(&number) else { return Ok(()) };
    if std::mem::replace(&mut running.answered, true) {
        return Ok(());
    }
    if let Some(trace) = &mut running.trace {
        trace.responded(status);
    }
    let (id, peer, mut most) = (running.id, running.peer.clone(), running.limits.response_bytes);
    if status == SWITCHING_PROTOCOLS {
        // Messages have bounds of their own.
        most = u64::MAX;
        isolate.socket_opened(number);
    }
    let route_peer = peer.clone();
    let (body, launch) =
        isolate.announce(number, outgoing, Some(most), |isolate| response_route(isolate, number, route_peer));
    if let Body::Inline(bytes) = &body
        && bytes.len() as u64 > most
    {
        isolate.finish(number, Outcome::Limit(atoll_bindings::seam::LimitKind::ResponseBytes));
        return Ok(());
    }
    if launch.is_some()
        && let Some(running) = isolate.running.get_mut(&number)
    {
        running.open_bodies += 1;
    }
    let status = u16::try_from(status).unwrap_or(500);
    peer.respond(
        id,
        HttpResponse { status, status_text, headers, body, url: String::new(), redirected: false },
    );
    isolate.launch(launch);
    Ok(())
}

/// The stream of a response's body: odd numbers, the host's.
fn response_route(isolate: &mut IsolateState, number: u32, peer: Peer) -> Route {
    let (invocation, stream) = match isolate.running.get_mut(&number) {
        Some(running) => {
            let stream = match &running.peer {
                Peer::Gateway(_) => running.root.next_stream(),
                Peer::Isolate(_) => {
                    let stream = running.next_stream;
                    running.next_stream += 2;
                    stream
                }
            };
            (running.id, stream)
        }
        None => (atoll_bindings::seam::InvocationId(0), 1),
    };
    Route { peer, invocation, stream: StreamId(stream) }
}

/// Answers an event whose answer is a value.
#[op2(fast)]
pub(crate) fn op_returned(state: &mut OpState, #[smi] number: u32, #[string] json: String) {
    let isolate = isolate(state);
    let mut isolate = isolate.borrow_mut();
    let Some(running) = isolate.running.get_mut(&number) else { return };
    if json.len() as u64 > running.limits.response_bytes {
        isolate.finish(number, Outcome::Limit(atoll_bindings::seam::LimitKind::ResponseBytes));
        return;
    }
    if !std::mem::replace(&mut running.answered, true) {
        running.peer.returned(running.id, json);
    }
}

/// The handler answered and no `waitUntil` work is left.
#[op2(fast)]
pub(crate) fn op_settled(scope: &mut v8::PinScope, state: &mut OpState, #[smi] number: u32) {
    let isolate = isolate(state);
    let mut isolate = isolate.borrow_mut();
    // The usage is told at once, while the guest's turn goes on: later would be too late to look.
    isolate.note_heap(scope);
    isolate.settle(number);
}

/// The handler threw.
#[op2(fast, reentrant)]
pub(crate) fn op_invocation_failed<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    #[smi] number: u32,
    error: v8::Local<'s, v8::Value>,
) {
    // Reading the error may run the guest's getters: the state must not be borrowed meanwhile.
    let error = guest_error(scope, error);
    let state = deno_core::JsRuntime::op_state_from(scope);
    let isolate = isolate(&state.borrow());
    let mut isolate = isolate.borrow_mut();
    isolate.note_heap(scope);
    isolate.finish(number, Outcome::GuestError(error));
}

/// Sends a request through a capability; the number is that of the reply.
#[op2(fast)]
pub(crate) fn op_call<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    state: &mut OpState,
    #[smi] owner: u32,
    #[smi] capability: u32,
    #[string] method: String,
    #[string] url: String,
    headers: v8::Local<'s, v8::Array>,
    #[smi] kind: u32,
    body: v8::Local<'s, v8::Value>,
    length: f64,
    #[string] redirect: &str,
) -> Result<u32, Thrown> {
    if url.len() > URL_BYTES_MAX {
        return Err(Thrown(format!("The URL is longer than {URL_BYTES_MAX} bytes.")));
    }
    let headers = headers_of(scope, headers);
    check_headers(&headers)?;
    let outgoing = outgoing(scope, kind, body, length);
    let redirect = match redirect {
        "manual" => Redirect::Manual,
        "error" => Redirect::Error,
        _ => Redirect::Follow,
    };
    let head = RequestHead(HttpRequest { method, url, headers, body: Body::Empty, redirect });
    let isolate = isolate(state);
    isolate
        .borrow_mut()
        .call(owner, capability, head, outgoing)
        .map_err(|refused| Thrown(refused.to_string()))
}

/// Nobody waits for a reply any more.
#[op2(fast)]
pub(crate) fn op_call_cancel(state: &mut OpState, #[smi] number: u32) {
    isolate(state).borrow_mut().cancel_call(number);
}

/// Milliseconds on the host's monotonic clock.
#[op2(fast)]
pub(crate) fn op_clock_ms() -> f64 {
    now_us() as f64 / 1_000.0
}

/// When the next timer is due, on the clock of `op_clock_ms`; negative for never.
#[op2(fast)]
pub(crate) fn op_timer_set(state: &mut OpState, at_ms: f64) {
    isolate(state).borrow_mut().timer_us = (at_ms >= 0.0).then_some((at_ms * 1_000.0).ceil() as u64);
}

/// A console line.
#[op2(fast)]
pub(crate) fn op_log(state: &mut OpState, #[smi] number: u32, #[smi] level: u32, #[string] message: String) {
    isolate(state).borrow_mut().log(number, level_of(level), message);
}

fn level_of(number: u32) -> LogLevel {
    match number {
        0 => LogLevel::Debug,
        1 => LogLevel::Log,
        2 => LogLevel::Info,
        3 => LogLevel::Warn,
        _ => LogLevel::Error,
    }
}

/// A console line of a tailed worker: its arguments as a JSON array, and what the errors among them are, or nothing.
#[op2(fast)]
pub(crate) fn op_trace_log(
    state: &mut OpState,
    #[smi] number: u32,
    #[smi] level: u32,
    #[string] message: String,
    #[string] error_info: String,
) {
    let isolate = isolate(state);
    let mut isolate = isolate.borrow_mut();
    if let Some(trace) = isolate.running.get_mut(&number).and_then(|running| running.trace.as_mut()) {
        trace.log(level_of(level), message, error_info, wall_ms());
    }
}

/// A rejection of a tailed worker that nobody caught.
#[op2(fast)]
pub(crate) fn op_trace_exception(
    state: &mut OpState,
    #[smi] number: u32,
    #[string] name: &str,
    #[string] message: &str,
    #[string] stack: &str,
) {
    let isolate = isolate(state);
    let mut isolate = isolate.borrow_mut();
    if let Some(trace) = isolate.running.get_mut(&number).and_then(|running| running.trace.as_mut()) {
        trace.exception(name, message, stack, wall_ms());
    }
}

/// The serialised form of an absolute URL, or null.
#[op2]
#[string]
pub(crate) fn op_url_parse_href(#[string] input: &str) -> Option<String> {
    url::Url::parse(input).ok().map(String::from)
}
