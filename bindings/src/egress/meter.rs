//! Bodies that are counted and capped on their way.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::gate::Slot;
use crate::body::{BoxError, ReplyBody, RequestBody};
use crate::crossing::{Denial, Telling, Verdict};

/// A body went over its cap.
#[derive(Debug, thiserror::Error)]
#[error("The body is larger than the policy allows. ({})", .0.code())]
pub(crate) struct OverCap(pub(crate) Denial);

/// A request body on its way out.
pub(crate) struct Sent {
    pub(crate) body: RequestBody,
    pub(crate) count: Arc<AtomicU64>,
    pub(crate) max: u64,
}

impl Sent {
    pub(crate) fn wrap(
        body: RequestBody,
        count: &Arc<AtomicU64>,
        max: Option<u64>,
    ) -> Result<RequestBody, Denial> {
        let max = max.unwrap_or(u64::MAX);
        if body.size_hint().lower() > max {
            return Err(Denial::RequestBytes);
        }
        Ok(match body {
            RequestBody::Empty => RequestBody::Empty,
            RequestBody::Full(bytes) => {
                count.fetch_add(bytes.len() as u64, Relaxed);
                RequestBody::Full(bytes)
            }
            body => RequestBody::stream(Self { body, count: Arc::clone(count), max }),
        })
    }
}

fn count(frame: &Frame<Bytes>, count: &AtomicU64) -> u64 {
    let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
    count.fetch_add(bytes, Relaxed).saturating_add(bytes)
}

impl Body for Sent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(match frame {
            Some(Ok(frame)) if count(&frame, &self.count) > self.max => {
                Some(Err(OverCap(Denial::RequestBytes).into()))
            }
            other => other,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response body on its way back; with its drop the crossing is over and told.
pub(crate) struct Received {
    body: ReplyBody,
    max: u64,
    /// What is held against the bound.
    count: Arc<AtomicU64>,
    telling: Telling,
    _slot: Slot,
}

impl Received {
    /// Counts what is told.
    pub(crate) fn wrap(body: ReplyBody, max: u64, telling: Telling, slot: Slot) -> ReplyBody {
        let count = Arc::clone(&telling.received);
        RequestBody::stream(Self { body, max, count, telling, _slot: slot })
    }

    /// Counts for the bound alone: somebody else counts what is told.
    pub(crate) fn wrap_bounded(body: ReplyBody, max: u64, telling: Telling, slot: Slot) -> ReplyBody {
        RequestBody::stream(Self { body, max, count: Arc::default(), telling, _slot: slot })
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(match frame {
            Some(Ok(frame)) if count(&frame, &self.count) > self.max => {
                self.telling.verdict(Verdict::Denied(Denial::ResponseBytes));
                Some(Err(OverCap(Denial::ResponseBytes).into()))
            }
            Some(Err(error)) => {
                self.telling.verdict(Verdict::Failed);
                Some(Err(error))
            }
            other => other,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
