//! A body that is scrubbed on its way.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::scrub::Scrubber;
use crate::body::{BoxError, ReplyBody};

/// Gives what is decided, and the rest at the end. Trailers are left out: nobody behind the proxy reads them.
pub(super) struct Scrubbed<H> {
    body: ReplyBody,
    scrubber: Scrubber,
    ended: bool,
    /// Released with the body.
    _held: H,
}

impl<H> Scrubbed<H> {
    pub(super) fn new(body: ReplyBody, scrubber: Scrubber, held: H) -> Self {
        Self { body, scrubber, ended: false, _held: held }
    }
}

impl<H: Unpin> Body for Scrubbed<H> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        while !self.ended {
            let decided = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.scrubber.feed(&data),
                    Err(_trailers) => continue,
                },
                // What broke says too much, and what is held is not known to be clean.
                Some(Err(_)) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err("the upstream broke off".into())));
                }
                None => {
                    self.ended = true;
                    Ok(self.scrubber.finish())
                }
            };
            match decided {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => return Poll::Ready(Some(Ok(Frame::data(bytes.into())))),
                Err(_) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err("the answer cannot be checked".into())));
                }
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.ended || (self.body.is_end_stream() && self.scrubber.is_empty())
    }

    /// Masks are as long as what they hide.
    fn size_hint(&self) -> SizeHint {
        if self.scrubber.is_empty() { self.body.size_hint() } else { SizeHint::default() }
    }
}
