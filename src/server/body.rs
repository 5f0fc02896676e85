//! Bodies of both directions: what clients send, watched; what they get, cheap when it is already there.

use std::fmt;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::dispatch::record::Traffic;
use crate::problem::Problem;

/// Any error of a streamed body; it ends the connection and nothing else.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer.
pub enum ReplyBody {
    /// All of it, or nothing any more.
    Full(Option<Bytes>),
    /// From somewhere else, piece by piece.
    Stream(Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>),
}

impl ReplyBody {
    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self::Full(None)
    }

    /// These bytes.
    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self::Full(Some(bytes.into()).filter(|bytes: &Bytes| !bytes.is_empty()))
    }

    /// A stream.
    pub fn stream(body: impl Body<Data = Bytes, Error = BoxError> + Send + 'static) -> Self {
        Self::Stream(Box::pin(body))
    }
}

impl fmt::Debug for ReplyBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplyBody")
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_none(),
            Self::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Stream(body) => body.size_hint(),
        }
    }
}

/// What is wrong with a client's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyFault {
    /// More bytes than the listener accepts.
    #[error("the request body is too large")]
    TooLarge,
    /// No byte for too long.
    #[error("the request body took too long")]
    Timeout,
    /// Framing that cannot be trusted, or the client went away within it.
    #[error("the request body is malformed or incomplete")]
    Broken,
}

impl BodyFault {
    /// What to tell the client.
    #[must_use]
    pub fn problem(self) -> Problem {
        match self {
            Self::TooLarge => Problem::too_large("The request body is too large."),
            Self::Timeout => Problem::new(
                http::StatusCode::REQUEST_TIMEOUT,
                "body_timeout",
                "The request body took too long.",
            ),
            Self::Broken => Problem::bad_request("The request body is malformed or incomplete."),
        }
    }
}

/// Remembers the fault of a body that was given away, so that the answer can name it.
#[derive(Clone, Debug, Default)]
pub struct FaultCell(Arc<AtomicU8>);

impl FaultCell {
    fn set(&self, fault: BodyFault) {
        self.0.store(fault as u8 + 1, Relaxed);
    }

    /// The fault, if there was one.
    #[must_use]
    pub fn get(&self) -> Option<BodyFault> {
        match self.0.load(Relaxed) {
            0 => None,
            1 => Some(BodyFault::TooLarge),
            2 => Some(BodyFault::Timeout),
            _ => Some(BodyFault::Broken),
        }
    }
}

/// A client's body within its bounds of size and time.
pub struct ClientBody {
    inner: Incoming,
    left: u64,
    timeout: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
    fault: FaultCell,
    traffic: Option<Arc<Traffic>>,
}

impl ClientBody {
    /// Watches a body; one that declares too much is refused at once.
    pub fn new(inner: Incoming, bytes_max: u64, timeout: Duration) -> Result<Self, BodyFault> {
        if inner.size_hint().lower() > bytes_max {
            return Err(BodyFault::TooLarge);
        }
        Ok(Self {
            inner,
            left: bytes_max,
            timeout,
            waiting: None,
            fault: FaultCell::default(),
            traffic: None,
        })
    }

    /// Counts what passes.
    #[must_use]
    pub fn counted(mut self, traffic: Arc<Traffic>) -> Self {
        self.traffic = Some(traffic);
        self
    }

    /// Where a fault will be seen.
    #[must_use]
    pub fn fault(&self) -> FaultCell {
        self.fault.clone()
    }

    /// All of it.
    pub async fn collect(mut self) -> Result<Bytes, BodyFault> {
        let mut whole = bytes::BytesMut::new();
        let mut first = None;
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut self).poll_frame(cx)).await {
            let Ok(data) = frame?.into_data() else { continue };
            // The usual body is one piece and is not copied.
            match first.take() {
                None if whole.is_empty() => first = Some(data),
                None => whole.extend_from_slice(&data),
                Some(earlier) => {
                    whole.extend_from_slice(&earlier);
                    whole.extend_from_slice(&data);
                }
            }
        }
        Ok(first.unwrap_or_else(|| whole.freeze()))
    }

    fn fail(&mut self, fault: BodyFault) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        self.fault.set(fault);
        self.left = 0;
        Poll::Ready(Some(Err(fault)))
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(frame) => {
                self.waiting = None;
                match frame {
                    None => Poll::Ready(None),
                    Some(Err(_)) => self.fail(BodyFault::Broken),
                    Some(Ok(frame)) => {
                        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                        match self.left.checked_sub(bytes) {
                            None => self.fail(BodyFault::TooLarge),
                            Some(left) => {
                                self.left = left;
                                if let Some(traffic) = &self.traffic {
                                    traffic.request_bytes.fetch_add(bytes, Relaxed);
                                }
                                Poll::Ready(Some(Ok(frame)))
                            }
                        }
                    }
                }
            }
            Poll::Pending => {
                let deadline = Instant::now() + self.timeout;
                let waiting =
                    self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
                if waiting.as_mut().poll(cx).is_ready() {
                    return self.fail(BodyFault::Timeout);
                }
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
