//! WebSockets: messages of the bodies that carry them. `atoll_bindings::socket` says how a WebSocket crosses the seam.
//!
//! Reading is one message per turn: `op_socket_next` asks for a wake of its own when there may be more, so that each message
//! is an event of its own, with microtasks in between, and so that the CPU time of each can be counted.

use atoll_bindings::seam::BodyStep;
use atoll_bindings::socket::parts::{Close, Kind, Message, head};
use atoll_loader::limits::SOCKET_MESSAGE_BYTES_MAX;
use deno_core::{OpState, op2};

use super::{Thrown, isolate};
use crate::socket::Taken;
use crate::stream::Room;
use crate::values::{bytes_of, uint8_array};

/// The stream on which the client of this invocation will send, to be taken once; -1 if it did not ask for a WebSocket.
#[op2(fast)]
#[smi]
pub(crate) fn op_socket_in(state: &mut OpState, #[smi] owner: u32) -> i32 {
    let isolate = isolate(state);
    let number = isolate.borrow_mut().running.get_mut(&owner).and_then(|running| running.socket_in.take());
    number.and_then(|number| i32::try_from(number).ok()).unwrap_or(-1)
}

/// The next message: a string, a Uint8Array, `[code, reason]` of a close, null at an end without one, or undefined: wait. A
/// wake follows when there may be more.
#[op2]
pub(crate) fn op_socket_next<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    state: &mut OpState,
    #[smi] number: u32,
) -> Result<v8::Local<'s, v8::Value>, Thrown> {
    let isolate = isolate(state);
    let taken = isolate.borrow_mut().socket_next(number);
    let memory = || Thrown("Array buffer allocation failed".into());
    Ok(match taken {
        Taken::Wait => v8::undefined(scope).into(),
        Taken::Ended => v8::null(scope).into(),
        Taken::Failed(reason) => return Err(Thrown(reason)),
        Taken::Message(Message::Text(text)) => {
            v8::String::new_from_utf8(scope, &text, v8::NewStringType::Normal).ok_or_else(memory)?.into()
        }
        Taken::Message(Message::Binary(bytes)) => uint8_array(scope, &bytes).ok_or_else(memory)?,
        Taken::Message(Message::Close(close)) => {
            let code = v8::Integer::new(scope, close.code.into()).into();
            let reason = v8::String::new(scope, &close.reason).ok_or_else(memory)?.into();
            v8::Array::new_with_elements(scope, &[code, reason]).into()
        }
    })
}

/// Sends a string or bytes: 0 sent or queued, 1 nobody receives any more, 2 too large, 3 too much waits already.
#[op2(fast)]
#[smi]
pub(crate) fn op_socket_send<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    state: &mut OpState,
    #[smi] number: u32,
    data: v8::Local<'s, v8::Value>,
) -> u32 {
    let isolate = isolate(state);
    // Looked at before anything is copied: a guest must not make the host copy what it will not take.
    let length = match data.try_cast::<v8::String>() {
        Ok(text) => text.utf8_length(scope),
        Err(_) => data.try_cast::<v8::ArrayBufferView>().map_or(0, |view| view.byte_length()),
    };
    if length > SOCKET_MESSAGE_BYTES_MAX {
        return 2;
    }
    if !isolate.borrow_mut().socket_reserve(number, length) {
        return if isolate.borrow().outbound.contains_key(&number) { 3 } else { 1 };
    }
    let kind = if data.is_string() { Kind::Text } else { Kind::Binary };
    let bytes = bytes_of(scope, data);
    // `length` bytes: lone surrogates become U+FFFD, of three bytes as V8 counts them.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let part = [&head(kind, true, length)[..], &bytes].concat();
    match isolate.borrow_mut().socket_write(number, &part.into()) {
        Room::Never => 1,
        Room::Yes | Room::NotYet => 0,
    }
}

/// Sends a close, which is the last word.
#[op2(fast)]
pub(crate) fn op_socket_close(
    state: &mut OpState,
    #[smi] number: u32,
    #[smi] code: u32,
    #[string] reason: String,
) {
    let isolate = isolate(state);
    let mut isolate = isolate.borrow_mut();
    let close = Close { code: u16::try_from(code).unwrap_or(Close::NONE.code), reason };
    isolate.socket_write(number, &close.part());
    isolate.socket_end(number, BodyStep::End);
}

/// Sends no more, and says nothing: the other side sees a connection that broke.
#[op2(fast)]
pub(crate) fn op_socket_drop(state: &mut OpState, #[smi] number: u32) {
    isolate(state).borrow_mut().socket_end(number, BodyStep::End);
}

/// Passes all that arrives on one stream to another, without a look at it.
#[op2(fast)]
pub(crate) fn op_socket_splice(state: &mut OpState, #[smi] from: u32, #[smi] to: u32) {
    isolate(state).borrow_mut().splice(from, to);
}
