//! The attach stream's standard output as plain bytes.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bollard::{container::LogOutput, errors::Error};
use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt};
use tokio::io::{AsyncRead, ReadBuf};

type Output = Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>;

/// Bytes of standard output; lines of standard error go to the log, as they come from the init itself.
pub(super) struct Demultiplexed {
    output: Output,
    rest: Bytes,
}

impl Demultiplexed {
    pub(super) fn new(output: Output) -> Self {
        Self { output, rest: Bytes::new() }
    }
}

impl AsyncRead for Demultiplexed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.output.poll_next_unpin(context)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(LogOutput::StdOut { message })) => self.rest = message,
                Some(Ok(other)) => tracing::debug!(message = %other, "a sandbox's init says"),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
            }
        }
        let length = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..length]);
        self.rest.advance(length);
        Poll::Ready(Ok(()))
    }
}
