//! Calls between isolates with values, functions and objects: stubs that nobody can forge.
//!
//! ```text
//!  caller's isolate                                   callee's isolate
//!  js/rpc.js                                          js/rpc.js
//!    writer ─▶ Message { bytes, caps } ──inbox──▶ reader ─▶ method ─▶ writer
//!    reader ◀──────────────────────────inbox── Message ◀───────────────┘
//!       stub = local number ─▶ Arc<Export> ─ last one dropped ─▶ Released ─▶ disposer
//! ```
//!
//! A guest knows stubs by objects that only our scripts make, the scripts know them by local numbers, and Rust maps each
//! number to an [`Export`]: the inbox of the isolate that has the object, and the number there. A guest can neither name nor
//! make one; a number of another isolate, of an invocation that is over, or used before, finds nothing.
//!
//! A call on an entrypoint is an invocation of its own, the *session*: it ends when it has answered, its `waitUntil` work is
//! done, and no capability that crossed it is held any more. Calls on stubs run under the invocation that exported the object.
//! Every call has a [`ReplyTo`], which answers when it is dropped, so whatever happens to a message or an isolate, the caller
//! hears of it.
//!
//! Pipelined calls wait at the caller until the value they go through is there: all isolates that can be reached without
//! the gateway are threads of one process, so a round trip saved is microseconds, and no isolate keeps answers for others.

mod reader;
mod session;
mod writer;

use std::sync::Arc;

use atoll_bindings::seam::{Body, GuestError, InvocationId, Outcome};

pub(crate) use reader::{Unread, read};
pub(crate) use session::{Given, Import, Target, Waiting};
pub(crate) use writer::{too_large, write};

use crate::body::Outgoing;
use crate::message::{Inbox, IsolateMsg, Peer, Root};
use crate::state::Capability;

/// Calls of one invocation that may wait for their answers at once.
pub(crate) const CALLS_WAITING_MAX: u32 = 4_096;
/// Bytes of arguments that may wait at other isolates, per invocation.
pub(crate) const BYTES_WAITING_MAX: usize = 64 * 1024 * 1024;
/// Objects that one invocation may have handed out at once.
pub(crate) const EXPORTS_MAX: u32 = 100_000;
/// Longest path of one call.
pub(crate) const PATH_MAX: usize = 64;

/// An object that its isolate handed out. Whoever holds the last one tells that isolate by dropping it.
#[derive(Debug)]
pub(crate) struct Export {
    pub(crate) inbox: Inbox,
    pub(crate) number: u32,
}

impl Drop for Export {
    fn drop(&mut self) {
        // An isolate that is gone has no object any more.
        let _gone = self.inbox.send(IsolateMsg::Released { export: self.number });
    }
}

/// A capability on its way.
#[derive(Clone, Debug)]
pub(crate) enum Cap {
    Stub(Arc<Export>),
    /// `hold` keeps the invocation open among whose grants it is.
    Service {
        capability: Capability,
        hold: Option<Arc<Export>>,
    },
    /// A body that flows from the sender.
    Body {
        peer: Peer,
        invocation: InvocationId,
        body: Body,
    },
}

/// A value on its way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    pub(crate) bytes: bytes::Bytes,
    pub(crate) caps: Vec<Cap>,
    /// Its holder drops it when the value is disposed of.
    pub(crate) disposer: Option<Arc<Export>>,
    /// Under which of the gateway's invocations it was written: its services are among the grants of that one. `None` for
    /// what belongs to a worker rather than to an invocation (`env`, `props`): then they are those of whoever uses them.
    pub(crate) origin: Option<Arc<Root>>,
}

/// A value that was written and not sent yet: where its streams go is not known.
#[derive(Debug, Default)]
pub(crate) struct Packed {
    pub(crate) owner: u32,
    pub(crate) bytes: bytes::Bytes,
    pub(crate) caps: Vec<PackedCap>,
    pub(crate) disposer: Option<Arc<Export>>,
}

/// A capability of a value that was not sent yet.
#[derive(Debug)]
pub(crate) enum PackedCap {
    Stub(Arc<Export>),
    Service(Capability),
    Body(Outgoing),
}

/// What `ctx.props` of an invocation is.
#[derive(Clone, Debug)]
pub(crate) enum Props {
    Json(String),
    Message(Message),
}

/// One call.
#[derive(Debug)]
pub(crate) struct RpcCall {
    pub(crate) path: Vec<String>,
    /// The arguments; `None` to get the property.
    pub(crate) arguments: Option<Message>,
    pub(crate) reply: ReplyTo,
}

/// What came of a call.
#[derive(Debug)]
pub(crate) enum RpcResult {
    Value(Message),
    /// The method threw this value.
    Threw(Message),
    /// The start of the worker threw.
    Failed(GuestError),
    /// It was not called, or did not end.
    Broken(String),
}

/// The duty to answer one call.
#[derive(Debug)]
pub(crate) struct ReplyTo {
    inbox: Option<Inbox>,
    call: u32,
}

impl ReplyTo {
    pub(crate) fn new(inbox: &Inbox, call: u32) -> Self {
        Self { inbox: Some(inbox.clone()), call }
    }

    /// Whether it is this call of this isolate that waits.
    pub(crate) fn is_for(&self, caller: &Inbox, call: u32) -> bool {
        self.call == call && self.inbox.as_ref().is_some_and(|inbox| inbox.same_channel(caller))
    }

    pub(crate) fn peer(&self) -> Option<Peer> {
        self.inbox.clone().map(Peer::Isolate)
    }

    pub(crate) fn send(mut self, result: RpcResult) {
        self.answer(result);
    }

    /// Tells how the invocation ended that should have answered.
    pub(crate) fn outcome(self, outcome: &Outcome) {
        self.send(match outcome {
            Outcome::GuestError(error) => RpcResult::Failed(error.clone()),
            Outcome::Canceled | Outcome::Done => RpcResult::Broken(CANCELED.into()),
            other => RpcResult::Broken(crate::call::child_message(other)),
        });
    }

    fn answer(&mut self, result: RpcResult) {
        if let Some(inbox) = self.inbox.take() {
            let _gone = inbox.send(IsolateMsg::Returned { call: self.call, result });
        }
    }
}

impl Drop for ReplyTo {
    fn drop(&mut self) {
        self.answer(RpcResult::Broken(GONE.into()));
    }
}

/// What a caller is told when the object, or its isolate, is not there any more.
pub(crate) const GONE: &str = "The destination object for this RPC no longer exists.";
/// What a caller is told when the invocation that has the object ended during the call.
const CANCELED: &str =
    "The destination execution context for this RPC was canceled while the call was still running.";

/// The classes of views, as one byte each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ViewKind {
    Int8,
    Uint8,
    Uint8Clamped,
    Int16,
    Uint16,
    Int32,
    Uint32,
    Float32,
    Float64,
    BigInt64,
    BigUint64,
    DataView,
}

impl ViewKind {
    const ALL: [Self; 12] = [
        Self::Int8,
        Self::Uint8,
        Self::Uint8Clamped,
        Self::Int16,
        Self::Uint16,
        Self::Int32,
        Self::Uint32,
        Self::Float32,
        Self::Float64,
        Self::BigInt64,
        Self::BigUint64,
        Self::DataView,
    ];

    fn of(value: v8::Local<v8::Value>) -> Option<Self> {
        let is = [
            value.is_int8_array(),
            value.is_uint8_array(),
            value.is_uint8_clamped_array(),
            value.is_int16_array(),
            value.is_uint16_array(),
            value.is_int32_array(),
            value.is_uint32_array(),
            value.is_float32_array(),
            value.is_float64_array(),
            value.is_big_int64_array(),
            value.is_big_uint64_array(),
            value.is_data_view(),
        ];
        Self::ALL.into_iter().zip(is).find(|(_, is)| *is).map(|(kind, _)| kind)
    }

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(byte as usize).copied()
    }

    /// A view of `length` bytes; `None` if they are no whole number of elements, or lie wrong.
    fn make<'s>(
        self,
        scope: &mut v8::PinScope<'s, '_>,
        buffer: v8::Local<'s, v8::ArrayBuffer>,
        offset: usize,
        length: usize,
    ) -> Option<v8::Local<'s, v8::Value>> {
        let size = match self {
            Self::Int8 | Self::Uint8 | Self::Uint8Clamped | Self::DataView => 1,
            Self::Int16 | Self::Uint16 => 2,
            Self::Int32 | Self::Uint32 | Self::Float32 => 4,
            Self::Float64 | Self::BigInt64 | Self::BigUint64 => 8,
        };
        if !offset.is_multiple_of(size) || !length.is_multiple_of(size) {
            return None;
        }
        let count = length / size;
        Some(match self {
            Self::Int8 => v8::Int8Array::new(scope, buffer, offset, count)?.into(),
            Self::Uint8 => v8::Uint8Array::new(scope, buffer, offset, count)?.into(),
            Self::Uint8Clamped => v8::Uint8ClampedArray::new(scope, buffer, offset, count)?.into(),
            Self::Int16 => v8::Int16Array::new(scope, buffer, offset, count)?.into(),
            Self::Uint16 => v8::Uint16Array::new(scope, buffer, offset, count)?.into(),
            Self::Int32 => v8::Int32Array::new(scope, buffer, offset, count)?.into(),
            Self::Uint32 => v8::Uint32Array::new(scope, buffer, offset, count)?.into(),
            Self::Float32 => v8::Float32Array::new(scope, buffer, offset, count)?.into(),
            Self::Float64 => v8::Float64Array::new(scope, buffer, offset, count)?.into(),
            Self::BigInt64 => v8::BigInt64Array::new(scope, buffer, offset, count)?.into(),
            Self::BigUint64 => v8::BigUint64Array::new(scope, buffer, offset, count)?.into(),
            Self::DataView => v8::DataView::new(scope, buffer, offset, count).into(),
        })
    }
}
