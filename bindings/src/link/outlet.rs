//! A body that goes to the host: a source, pumped no faster than the host grants credit.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use atoll_loader::limits::{BODY_CHUNK_BYTES_MAX, BODY_CREDIT_BYTES, BODY_INLINE_BYTES_MAX};
use bytes::Bytes;
use http_body::{Body as _, Frame};

use super::Inner;
use super::fault::Violation;
use crate::body::{BoxBody, BoxError, RequestBody};
use crate::seam::{Body, BodyFrame, BodyStep, InvocationId, StreamId, ToHost};

/// Frames looked at to find out whether a body is complete.
const PEEK_FRAMES_MAX: usize = 16;
/// Longest reason given for a failed source, in bytes.
const REASON_BYTES_MAX: usize = 256;

/// The credit of one body, shared by the link (which adds) and the pump (which takes).
#[derive(Debug)]
pub(super) struct Outlet {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    credit: usize,
    stopped: bool,
    waker: Option<Waker>,
}

impl Outlet {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { credit: BODY_CREDIT_BYTES, stopped: false, waker: None }) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `Credit` from the host, which may only give back what it was sent.
    pub(super) fn grant(&self, bytes: u32) -> Result<(), Violation> {
        let mut state = self.lock();
        let credit = state.credit.saturating_add(bytes as usize);
        if credit > BODY_CREDIT_BYTES {
            return Err(Violation::CreditNotSpent);
        }
        state.credit = credit;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        Ok(())
    }

    /// The pump must stop and drop its source: the host wants no more, or the invocation is over.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// Takes credit for up to `wanted` bytes; `None` once stopped.
    fn poll_credit(&self, wanted: usize, cx: &mut Context<'_>) -> Poll<Option<usize>> {
        let mut state = self.lock();
        if state.stopped {
            return Poll::Ready(None);
        }
        let granted = wanted.min(state.credit);
        // Also with enough credit: a stop must wake a pump that waits for its source.
        state.waker = Some(cx.waker().clone());
        if granted == 0 && wanted > 0 {
            return Poll::Pending;
        }
        state.credit -= granted;
        Poll::Ready(Some(granted))
    }
}

/// A body split into what its head says and what must be pumped.
pub(super) enum Prepared {
    /// Fits in the head.
    Whole(Body),
    /// Goes as a stream, these bytes first.
    Stream {
        /// What was read already.
        prefix: Bytes,
        /// The rest.
        source: Option<BoxBody>,
        /// The declared length.
        length: Option<u64>,
    },
}

/// Looks whether a body is small and already complete, so that it needs neither stream nor task.
pub(super) fn prepare(body: RequestBody) -> Prepared {
    match body {
        RequestBody::Empty => Prepared::Whole(Body::Empty),
        RequestBody::Full(bytes) if bytes.len() <= BODY_INLINE_BYTES_MAX => {
            Prepared::Whole(Body::Inline(bytes))
        }
        RequestBody::Full(bytes) => {
            let length = Some(bytes.len() as u64);
            Prepared::Stream { prefix: bytes, source: None, length }
        }
        RequestBody::Stream(source) => prepare_stream(source),
    }
}

fn prepare_stream(mut source: BoxBody) -> Prepared {
    if source.is_end_stream() {
        return Prepared::Whole(Body::Empty);
    }
    let length = source.size_hint().exact();
    let mut prefix = Bytes::new();
    if length.is_some_and(|length| length > BODY_INLINE_BYTES_MAX as u64) {
        return Prepared::Stream { prefix, source: Some(source), length };
    }
    // The pump polls again with a waker of its own, so nothing is lost by looking with none.
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..PEEK_FRAMES_MAX {
        match source.as_mut().poll_frame(&mut cx) {
            Poll::Ready(Some(Ok(frame))) => append(&mut prefix, frame.into_data().unwrap_or_default()),
            Poll::Ready(Some(Err(error))) => source = Box::pin(Failed(Some(error))),
            Poll::Ready(None) => return Prepared::Whole(Body::Inline(prefix)),
            Poll::Pending => break,
        }
        if prefix.len() > BODY_INLINE_BYTES_MAX {
            break;
        }
        if source.is_end_stream() {
            return Prepared::Whole(Body::Inline(prefix));
        }
    }
    Prepared::Stream { prefix, source: Some(source), length }
}

fn append(whole: &mut Bytes, more: Bytes) {
    *whole = if whole.is_empty() { more } else { [&whole[..], &more[..]].concat().into() };
}

/// A source that failed while it was looked at; the pump meets the error again.
struct Failed(Option<BoxError>);

impl http_body::Body for Failed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.0.take() {
            Some(error) => Poll::Ready(Some(Err(error))),
            None => Poll::Pending,
        }
    }
}

/// Sends one body; owns its source, so that dropping the pump releases it.
pub(super) struct Pump {
    pub(super) link: Arc<Inner>,
    pub(super) invocation: InvocationId,
    pub(super) stream: StreamId,
    pub(super) outlet: Arc<Outlet>,
    pub(super) pending: Bytes,
    pub(super) source: Option<BoxBody>,
}

enum Next {
    Stopped,
    Frame(Option<Result<Frame<Bytes>, BoxError>>),
}

impl Pump {
    /// Runs until the body ended, failed, or is no longer wanted.
    pub(super) async fn run(mut self) {
        loop {
            while !self.pending.is_empty() {
                let wanted = self.pending.len().min(BODY_CHUNK_BYTES_MAX);
                let Some(granted) = poll_fn(|cx| self.outlet.poll_credit(wanted, cx)).await else { return };
                let chunk = self.pending.split_to(granted);
                self.send(BodyStep::Data(chunk));
            }
            match poll_fn(|cx| self.poll_source(cx)).await {
                Next::Stopped => return,
                Next::Frame(None) => return self.send(BodyStep::End),
                // Trailers have no place in the Fetch standard.
                Next::Frame(Some(Ok(frame))) => self.pending = frame.into_data().unwrap_or_default(),
                Next::Frame(Some(Err(error))) => return self.send(BodyStep::Abort(reason(&error))),
            }
        }
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if let Poll::Ready(None) = self.outlet.poll_credit(0, cx) {
            return Poll::Ready(Next::Stopped);
        }
        match &mut self.source {
            None => Poll::Ready(Next::Frame(None)),
            Some(source) => source.as_mut().poll_frame(cx).map(Next::Frame),
        }
    }

    fn send(&self, step: BodyStep) {
        let Self { invocation, stream, .. } = *self;
        self.link.send(ToHost::Body(BodyFrame { invocation, stream, step }));
    }
}

/// What the guest may know of a failed source.
fn reason(error: &BoxError) -> String {
    let mut text = error.to_string();
    text.truncate(text.floor_char_boundary(REASON_BYTES_MAX));
    text
}
