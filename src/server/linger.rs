//! A connection that closes while its client still sends: read on for a bounded time (RFC 9112 section 9.6).
//!
//! A socket that is closed with unread bytes is reset, and the reset overtakes the answer: a client that sends its
//! whole body before it reads (most libraries do) would see a broken connection in place of the 413 that says why.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// How long such a connection is read at all.
const LINGER_MAX: Duration = Duration::from_secs(10);
/// How long one that sends nothing more is waited for.
const LINGER_SILENCE_MAX: Duration = Duration::from_secs(1);
/// How many bytes are taken and dropped: twice the largest body of code (`CODE_BODY_BYTES_MAX`).
const LINGER_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes taken at once.
const READ_BYTES: usize = 16 * 1024;

/// What is left of a connection after its last answer.
pub(super) struct Linger {
    ends: Instant,
    silence: Pin<Box<Sleep>>,
    bytes_left: usize,
}

impl Linger {
    /// Begins now.
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            ends: now + LINGER_MAX,
            silence: Box::pin(tokio::time::sleep_until(now + LINGER_SILENCE_MAX)),
            bytes_left: LINGER_BYTES_MAX,
        }
    }

    /// Ready when the client is done or a bound is reached.
    pub(super) fn poll(&mut self, stream: &mut (impl AsyncRead + Unpin), cx: &mut Context<'_>) -> Poll<()> {
        let mut sink = [0; READ_BYTES];
        while self.bytes_left > 0 && self.silence.as_mut().poll(cx).is_pending() {
            let mut window = ReadBuf::new(&mut sink);
            let result = ready!(Pin::new(&mut *stream).poll_read(cx, &mut window));
            let read = window.filled().len();
            if result.is_err() || read == 0 {
                break;
            }
            self.bytes_left = self.bytes_left.saturating_sub(read);
            self.silence.as_mut().reset(self.ends.min(Instant::now() + LINGER_SILENCE_MAX));
        }
        Poll::Ready(())
    }
}

/// A stream of HTTP/1 that lingers when it is shut down; one whose client has closed already does not wait.
pub(crate) struct Lingering<S> {
    inner: S,
    linger: Option<Linger>,
    tunnel: Arc<AtomicBool>,
}

impl<S> Lingering<S> {
    /// `tunnel` is set once the connection carries something else than HTTP, which closes by halves.
    pub(crate) fn new(inner: S, tunnel: Arc<AtomicBool>) -> Self {
        Self { inner, linger: None, tunnel }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, out)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
        }
        if this.tunnel.load(Ordering::Acquire) {
            return Poll::Ready(Ok(()));
        }
        this.linger.get_or_insert_with(Linger::new).poll(&mut this.inner, cx).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt as _, DuplexStream};

    use super::*;

    async fn linger(stream: &mut DuplexStream) {
        let mut linger = Linger::new();
        std::future::poll_fn(|cx| linger.poll(stream, cx)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_with_silence_with_time_and_with_the_client() {
        let began = Instant::now();
        let (mut client, mut server) = tokio::io::duplex(64);
        client.write_all(b"a rest").await.unwrap();
        linger(&mut server).await;
        assert_eq!(began.elapsed().as_secs(), LINGER_SILENCE_MAX.as_secs(), "silence");

        let began = Instant::now();
        let drip = tokio::spawn(async move {
            while client.write_all(b"x").await.is_ok() {
                tokio::time::sleep(LINGER_SILENCE_MAX / 2).await;
            }
        });
        linger(&mut server).await;
        assert_eq!(began.elapsed().as_secs(), LINGER_MAX.as_secs(), "a drip");
        drop(server);
        drip.await.unwrap();

        let (client, mut server) = tokio::io::duplex(64);
        drop(client);
        let began = Instant::now();
        linger(&mut server).await;
        assert_eq!(began.elapsed(), Duration::ZERO, "a client that is gone");
    }

    #[tokio::test]
    async fn it_ends_after_so_many_bytes() {
        let (mut client, mut server) = tokio::io::duplex(1 << 20);
        let flood = tokio::spawn(async move {
            let mut sent = 0;
            while let Ok(written) = client.write(&[0; 1 << 16]).await {
                sent += written;
            }
            sent
        });
        linger(&mut server).await;
        drop(server);
        let sent = flood.await.unwrap();
        assert!((LINGER_BYTES_MAX..=LINGER_BYTES_MAX + (2 << 20)).contains(&sent), "{sent}");
    }
}
