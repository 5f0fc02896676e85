//! Bodies: reading what arrives, writing what leaves.

use atoll_bindings::seam::BodyStep;
use deno_core::{OpState, op2};

use super::{Thrown, isolate};
use crate::stream::Room;
use crate::values::{bytes_of, uint8_array};

/// A new outbound stream; it is attached when a response or request announces it.
#[op2(fast)]
#[smi]
pub(crate) fn op_body_open(state: &mut OpState, #[smi] owner: u32) -> u32 {
    isolate(state).borrow_mut().open_outbound(owner)
}

/// The next bytes of an inbound stream: a Uint8Array, null at its end, or undefined: wait for news.
#[op2]
pub(crate) fn op_body_read<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    state: &mut OpState,
    #[smi] number: u32,
) -> Result<v8::Local<'s, v8::Value>, Thrown> {
    let isolate = isolate(state);
    let mut isolate = isolate.borrow_mut();
    let Some((_, inbound)) = isolate.inbound.get_mut(&number) else {
        return Err(Thrown("The body belongs to a request that is over.".into()));
    };
    if let Some(bytes) = inbound.take() {
        return uint8_array(scope, &bytes).ok_or_else(|| Thrown("Array buffer allocation failed".into()));
    }
    match &inbound.ended {
        Some(Ok(())) => Ok(v8::null(scope).into()),
        Some(Err(reason)) => Err(Thrown(format!("Network connection lost: {reason}"))),
        None => {
            inbound.waiting = true;
            Ok(v8::undefined(scope).into())
        }
    }
}

/// No more bytes are wanted from an inbound stream.
#[op2(fast)]
pub(crate) fn op_body_stop(state: &mut OpState, #[smi] number: u32) {
    let isolate = isolate(state);
    let mut isolate = isolate.borrow_mut();
    if let Some((_, inbound)) = isolate.inbound.get_mut(&number)
        && inbound.ended.is_none()
    {
        inbound.route.send(BodyStep::Stop);
        inbound.queue.clear();
        inbound.ended = Some(Ok(()));
    }
}

/// Writes bytes (or null, to ask again): true: go on; false: wait for news; null: nobody wants more.
#[op2]
pub(crate) fn op_body_write<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    state: &mut OpState,
    #[smi] number: u32,
    chunk: v8::Local<'s, v8::Value>,
) -> v8::Local<'s, v8::Value> {
    let isolate = isolate(state);
    let bytes = bytes_of(scope, chunk);
    let mut isolate = isolate.borrow_mut();
    let room = match isolate.outbound.get_mut(&number) {
        Some((_, outbound)) => {
            let room = if bytes.is_empty() { outbound.room() } else { outbound.write(&bytes) };
            outbound.waiting = room == Room::NotYet;
            room
        }
        None => Room::Never,
    };
    isolate.after_outbound(number);
    match room {
        Room::Yes => v8::Boolean::new(scope, true).into(),
        Room::NotYet => v8::Boolean::new(scope, false).into(),
        Room::Never => v8::null(scope).into(),
    }
}

/// The body is complete.
#[op2(fast)]
pub(crate) fn op_body_end(state: &mut OpState, #[smi] number: u32) {
    end(state, number, BodyStep::End);
}

/// The body's source failed.
#[op2(fast)]
pub(crate) fn op_body_abort(state: &mut OpState, #[smi] number: u32, #[string] reason: &str) {
    /// Longest reason that is passed on, in bytes.
    const REASON_BYTES_MAX: usize = 1_024;
    let reason = &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)];
    end(state, number, BodyStep::Abort(reason.to_owned()));
}

fn end(state: &mut OpState, number: u32, step: BodyStep) {
    let isolate = isolate(state);
    let mut isolate = isolate.borrow_mut();
    if let Some((_, outbound)) = isolate.outbound.get_mut(&number) {
        outbound.end(step);
    }
    isolate.after_outbound(number);
}

/// UTF-8 to a string as the Encoding standard's "UTF-8 decode" does: the byte order mark goes, bad bytes become U+FFFD.
#[op2]
pub(crate) fn op_utf8_decode<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    bytes: v8::Local<'s, v8::Value>,
) -> Result<v8::Local<'s, v8::Value>, Thrown> {
    let bytes = bytes_of(scope, bytes);
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    v8::String::new_from_utf8(scope, text, v8::NewStringType::Normal)
        .map(Into::into)
        .ok_or_else(|| Thrown("Cannot create a string longer than 0x1fffffe8 characters".into()))
}
