//! A body that comes from the host: a queue that never holds more than the credit granted.
//!
//! ```text
//! host ── Data ──▶ [ queue ≤ BODY_CREDIT_BYTES ] ──▶ poll_frame ──▶ client or capability
//!      ◀── Credit (as much as was taken, in few messages) ──┘
//! ```

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use atoll_loader::limits::{BODY_CHUNK_BYTES_MAX, BODY_CREDIT_BYTES};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::Inner;
use super::fault::Violation;
use crate::seam::{BodyFrame, BodyStep, InvocationId, StreamId, ToHost};

/// Taken bytes are reported once they are this many, so that small chunks do not cost a message each.
const CREDIT_STEP_BYTES: usize = BODY_CREDIT_BYTES / 4;
/// Longest reason of an aborted body that is kept, in bytes.
const ABORT_BYTES_MAX: usize = 1024;

/// Why a body from a guest broke off.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuestBodyError {
    /// The guest's stream failed.
    #[error("the worker's body failed: {0}")]
    Aborted(String),
    /// The invocation ended, or its host was lost, before the body did.
    #[error("the worker ended before its body")]
    Ended,
    /// More bytes than the invocation may send.
    #[error("the body is larger than the worker may send")]
    TooLarge,
    /// More or fewer bytes than the head declared.
    #[error("the body does not have its declared length")]
    Length,
}

/// The receiving end of one body, shared by the link (which fills it) and a [`GuestBody`] (which empties it).
#[derive(Debug)]
pub(super) struct Inlet {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    queue: VecDeque<Bytes>,
    /// Bytes the host may still send.
    credit: usize,
    /// Bytes taken and not yet reported to the host.
    unreported: usize,
    /// Bytes still to come if the head declared a length.
    declared_left: Option<u64>,
    /// Bytes the invocation may still send in this body.
    allowed_left: u64,
    end: Option<Result<(), GuestBodyError>>,
    /// Nobody reads any more: what comes is dropped.
    abandoned: bool,
    waker: Option<Waker>,
}

/// What a step asks the link to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Nothing.
    Fine,
    /// The body went over its bound: end the invocation.
    TooLarge,
}

impl Inlet {
    pub(super) fn new(declared: Option<u64>, allowed: u64) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                queue: VecDeque::new(),
                credit: BODY_CREDIT_BYTES,
                unreported: 0,
                declared_left: declared,
                allowed_left: allowed,
                end: None,
                abandoned: false,
                waker: None,
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `Data` from the host.
    pub(super) fn data(&self, bytes: Bytes) -> Result<Taken, Violation> {
        let mut state = self.lock();
        if bytes.len() > BODY_CHUNK_BYTES_MAX {
            return Err(Violation::ChunkTooLong);
        }
        // After an end of ours (a bound was passed) the host may still have bytes on the way.
        state.credit = state.credit.checked_sub(bytes.len()).ok_or(Violation::BeyondCredit)?;
        if bytes.is_empty() || state.abandoned || state.end.is_some() {
            return Ok(Taken::Fine);
        }
        let length = bytes.len() as u64;
        if let Some(left) = state.declared_left {
            let Some(left) = left.checked_sub(length) else {
                state.finish(Err(GuestBodyError::Length));
                return Ok(Taken::Fine);
            };
            state.declared_left = Some(left);
        }
        let Some(allowed) = state.allowed_left.checked_sub(length) else {
            state.finish(Err(GuestBodyError::TooLarge));
            return Ok(Taken::TooLarge);
        };
        state.allowed_left = allowed;
        state.queue.push_back(bytes);
        state.wake();
        Ok(Taken::Fine)
    }

    /// Takes `End` from the host.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        let whole = state.declared_left.is_none_or(|left| left == 0);
        state.finish(if whole { Ok(()) } else { Err(GuestBodyError::Length) });
    }

    /// Takes `Abort` from the host.
    pub(super) fn abort(&self, mut reason: String) {
        reason.truncate(reason.floor_char_boundary(ABORT_BYTES_MAX));
        self.lock().finish(Err(GuestBodyError::Aborted(reason)));
    }

    /// Nobody reads any more. True if the host must be told.
    pub(super) fn abandon(&self) -> bool {
        let mut state = self.lock();
        state.queue.clear();
        !std::mem::replace(&mut state.abandoned, true) && state.end.is_none()
    }

    /// The invocation is over: a body without an end has none.
    pub(super) fn invocation_ended(&self) {
        self.lock().finish(Err(GuestBodyError::Ended));
    }
}

impl State {
    fn finish(&mut self, end: Result<(), GuestBodyError>) {
        if self.end.is_none() {
            self.end = Some(end);
            self.wake();
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Credit to report now, if enough was taken.
    fn credit_due(&mut self) -> Option<u32> {
        if self.unreported < CREDIT_STEP_BYTES || self.end.is_some() {
            return None;
        }
        let due = std::mem::take(&mut self.unreported);
        self.credit += due;
        u32::try_from(due).ok()
    }
}

/// A body from a guest: a response's, or that of a call on a capability. Backpressure reaches the guest; dropping it before its
/// end tells the guest to stop.
pub struct GuestBody(Source);

enum Source {
    Whole(Bytes),
    Stream(Stream),
}

struct Stream {
    inlet: Arc<Inlet>,
    link: Arc<Inner>,
    invocation: InvocationId,
    stream: StreamId,
    ended: bool,
}

impl GuestBody {
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self(Source::Whole(bytes))
    }

    pub(super) fn stream(
        inlet: Arc<Inlet>,
        link: Arc<Inner>,
        invocation: InvocationId,
        stream: StreamId,
    ) -> Self {
        Self(Source::Stream(Stream { inlet, link, invocation, stream, ended: false }))
    }
}

impl std::fmt::Debug for GuestBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Source::Whole(bytes) => write!(f, "GuestBody({} bytes)", bytes.len()),
            Source::Stream(stream) => write!(f, "GuestBody({:?})", stream.stream),
        }
    }
}

impl Body for GuestBody {
    type Data = Bytes;
    type Error = GuestBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, GuestBodyError>>> {
        match &mut self.0 {
            Source::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Source::Stream(stream) => stream.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Whole(bytes) => bytes.is_empty(),
            Source::Stream(stream) => {
                let state = stream.inlet.lock();
                stream.ended || (state.queue.is_empty() && state.end == Some(Ok(())))
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Stream(stream) => {
                let state = stream.inlet.lock();
                let queued = state.queue.iter().map(|bytes| bytes.len() as u64).sum::<u64>();
                match state.declared_left {
                    Some(left) => SizeHint::with_exact(left.saturating_add(queued)),
                    None => SizeHint::default(),
                }
            }
        }
    }
}

impl Stream {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, GuestBodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let mut state = self.inlet.lock();
        if let Some(bytes) = state.queue.pop_front() {
            state.unreported += bytes.len();
            let due = state.credit_due();
            // Under the lock: two reports must not overtake each other.
            if let Some(due) = due {
                self.link.send(step(self.invocation, self.stream, BodyStep::Credit(due)));
            }
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match state.end.clone() {
            Some(end) => {
                drop(state);
                self.ended = true;
                Poll::Ready(end.err().map(Err))
            }
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.inlet.abandon() {
            self.link.send(step(self.invocation, self.stream, BodyStep::Stop));
        }
    }
}

pub(super) fn step(invocation: InvocationId, stream: StreamId, step: BodyStep) -> ToHost {
    ToHost::Body(BodyFrame { invocation, stream, step })
}
