//! The reader in front of the HTTP/1 parser: it lets through only bytes whose framing is beyond doubt.
//!
//! ```text
//!           ┌───────────── buffered until complete and checked ──────────────┐
//! Head ──▶ Length(n) ──▶ Head            a doubtful head or a slow one ──▶ Refused: a marked request takes
//!   ├────▶ ChunkSize ⇄ ChunkData ─▶ Trailers ─▶ Head          its place, which the service answers, then EOF
//!   └────▶ Upgrading ──accepted──▶ Length(all)                the service refused: nothing ever passes again
//! ```
//!
//! A refused head is replaced by a request with a method only this process knows. So the refusal is answered in
//! its turn, after the answers of pipelined requests before it, and never beside one.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use atoll_loader::limits::URL_BYTES_MAX;
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::head::{self, CHUNK_LINE_BYTES_MAX, Framing, HEAD_BYTES_MAX, Refusal};
use super::linger::Linger;
use super::socket::Upgrade;

/// Bytes asked from the socket at once while a head or chunk line is incomplete.
const READ_BYTES: usize = 4 * 1024;
/// Empty lines before a request line that are forgiven (RFC 9112 section 2.2), in bytes.
const LEADING_BYTES_MAX: usize = 4;
/// Largest trailer section, in bytes.
const TRAILER_BYTES_MAX: usize = 8 * 1024;

/// The method of the marked request.
pub(super) static REFUSED_METHOD: LazyLock<http::Method> = LazyLock::new(|| {
    let mark = format!("REFUSED{:016X}", super::random_u64());
    // Letters and digits are a token.
    http::Method::from_bytes(mark.as_bytes()).unwrap_or(http::Method::TRACE)
});

/// Where the guard leaves the reason for the service.
pub(super) type Verdict = Arc<Mutex<Option<Refusal>>>;

/// Takes the reason a marked request stands for.
pub(super) fn verdict(verdict: &Verdict) -> Refusal {
    verdict.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(Refusal::RequestLine)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Within a head; this many bytes hold no line end yet to look at.
    Head {
        scanned: usize,
    },
    Length(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers {
        bytes: usize,
    },
    /// A WebSocket handshake was handed out: what follows is frames if the service accepts it, and nothing otherwise.
    Upgrading,
    /// The marked request was handed out: nothing follows.
    Refused,
    /// The chunked body went wrong: reading fails.
    Broken,
}

/// The guarded stream.
pub(super) struct Guard<S> {
    inner: S,
    /// Bytes read ahead; the first `pass` of them may go on.
    buffer: BytesMut,
    pass: usize,
    state: State,
    verdict: Verdict,
    upgrade: Arc<Upgrade>,
    timer: Timer,
    /// After the last answer.
    linger: Option<Linger>,
}

/// One lazily armed timer for both directions: moved only when it fires, so that requests cost no timer work.
struct Timer {
    head_timeout: Duration,
    write_timeout: Duration,
    head_since: Option<Instant>,
    write_since: Option<Instant>,
    head_sleep: Option<Pin<Box<Sleep>>>,
    write_sleep: Option<Pin<Box<Sleep>>>,
}

impl<S> Guard<S> {
    /// Guards a stream from its first byte; `early` was read from it already.
    pub(super) fn new(inner: S, early: &[u8], head_timeout: Duration, write_timeout: Duration) -> Self {
        Self {
            inner,
            buffer: BytesMut::from(early),
            pass: 0,
            state: State::Head { scanned: 0 },
            verdict: Verdict::default(),
            upgrade: Arc::default(),
            timer: Timer {
                head_timeout,
                write_timeout,
                head_since: None,
                write_since: None,
                head_sleep: None,
                write_sleep: None,
            },
            linger: None,
        }
    }

    /// Lets everything through: for HTTP/2, whose framing is not ours to judge. Only writes are timed.
    pub(super) fn opaque(inner: S, early: &[u8], write_timeout: Duration) -> Self {
        let mut guard = Self::new(inner, early, Duration::MAX, write_timeout);
        guard.state = State::Length(u64::MAX);
        guard
    }

    /// Where a refusal's reason will be.
    pub(super) fn verdict(&self) -> Verdict {
        self.verdict.clone()
    }

    /// Where the service says whether it accepted a handshake.
    pub(super) fn upgrade(&self) -> Arc<Upgrade> {
        self.upgrade.clone()
    }

    fn refuse(&mut self, refusal: Refusal) {
        *self.verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
        self.buffer.truncate(self.pass);
        let mark = REFUSED_METHOD.as_str();
        let request = format!("{mark} / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n");
        self.buffer.extend_from_slice(request.as_bytes());
        self.pass = self.buffer.len();
        self.state = State::Refused;
    }

    /// Moves as many bytes as possible from doubt to `pass`.
    fn advance(&mut self) {
        loop {
            let doubt = self.buffer.len() - self.pass;
            match self.state {
                State::Head { scanned } => {
                    if !self.advance_head(scanned) {
                        return;
                    }
                }
                State::Length(0) => self.state = State::Head { scanned: 0 },
                State::ChunkData(0) => self.state = State::ChunkEnd,
                State::Length(left) | State::ChunkData(left) => {
                    if doubt == 0 {
                        return;
                    }
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(doubt);
                    self.pass += taken;
                    let left = left - taken as u64;
                    let data = matches!(self.state, State::ChunkData(_));
                    self.state = if data { State::ChunkData(left) } else { State::Length(left) };
                }
                State::ChunkSize | State::Trailers { .. } => {
                    if !self.advance_line() {
                        return;
                    }
                }
                State::ChunkEnd => {
                    if doubt < 2 {
                        return;
                    }
                    let fine = self.buffer[self.pass..].starts_with(b"\r\n");
                    self.pass += if fine { 2 } else { 0 };
                    self.state = if fine { State::ChunkSize } else { State::Broken };
                }
                State::Upgrading if self.upgrade.is_accepted() => self.state = State::Length(u64::MAX),
                State::Upgrading | State::Refused | State::Broken => return,
            }
        }
    }

    /// Looks for the end of the head; false if more bytes are needed.
    fn advance_head(&mut self, scanned: usize) -> bool {
        if scanned == 0 {
            let empty = self.buffer[self.pass..]
                .iter()
                .take(LEADING_BYTES_MAX)
                .take_while(|b| matches!(b, b'\r' | b'\n'))
                .count();
            if empty > 0 && self.pass == 0 {
                self.buffer.advance(empty);
            }
        }
        let doubt = &self.buffer[self.pass..];
        let mut at = scanned;
        while let Some(found) = memchr::memchr(b'\n', &doubt[at..]) {
            let end = at + found;
            let bare = end == 0 || doubt[end - 1] != b'\r';
            if bare {
                self.refuse(Refusal::BareLineEnd);
                return true;
            }
            let empty_line = end < 2 || doubt[end - 2] == b'\n';
            if empty_line {
                let checked =
                    if end < HEAD_BYTES_MAX { head::check(&doubt[..=end]) } else { Err(oversize(doubt)) };
                match checked {
                    Ok(framing) => {
                        self.pass += end + 1;
                        self.state = match framing {
                            Framing::Length(length) => State::Length(length),
                            Framing::Chunked => State::ChunkSize,
                            Framing::WebSocket => State::Upgrading,
                        };
                        self.timer.head_since = None;
                    }
                    Err(refusal) => self.refuse(refusal),
                }
                return true;
            }
            at = end + 1;
        }
        if doubt.len() > HEAD_BYTES_MAX {
            let refusal = oversize(doubt);
            self.refuse(refusal);
            return true;
        }
        // Whole lines need not be looked at again, and the unfinished one has no line end yet.
        self.state = State::Head { scanned: doubt.len() };
        false
    }

    /// Takes one chunk-size or trailer line; false if more bytes are needed.
    fn advance_line(&mut self) -> bool {
        let doubt = &self.buffer[self.pass..];
        let Some(end) = memchr::memchr(b'\n', doubt) else {
            if doubt.len() > CHUNK_LINE_BYTES_MAX.max(TRAILER_BYTES_MAX) {
                self.state = State::Broken;
            }
            return self.state == State::Broken;
        };
        let line = &doubt[..end];
        let Some(line) = line.strip_suffix(b"\r").filter(|line| !line.contains(&b'\r')) else {
            self.state = State::Broken;
            return true;
        };
        let next = match self.state {
            State::Trailers { .. } if line.is_empty() => State::Head { scanned: 0 },
            State::Trailers { bytes } if bytes + end > TRAILER_BYTES_MAX => State::Broken,
            State::Trailers { bytes } => State::Trailers { bytes: bytes + end },
            _ if line.len() > CHUNK_LINE_BYTES_MAX => State::Broken,
            _ => match head::chunk_size(line) {
                Ok(0) => State::Trailers { bytes: 0 },
                Ok(size) => State::ChunkData(size),
                Err(_) => State::Broken,
            },
        };
        if next != State::Broken {
            self.pass += end + 1;
        }
        self.state = next;
        true
    }

    /// Whether a head began to arrive and its time is over.
    fn head_late(&mut self, cx: &mut Context<'_>) -> bool {
        let partial = matches!(self.state, State::Head { .. }) && !self.buffer.is_empty();
        if !partial {
            self.timer.head_since = None;
            return false;
        }
        let since = *self.timer.head_since.get_or_insert_with(Instant::now);
        is_late(&mut self.timer.head_sleep, since + self.timer.head_timeout, cx)
    }

    /// Whether the peer has not taken a byte for too long.
    fn write_late(&mut self, cx: &mut Context<'_>) -> bool {
        let since = *self.timer.write_since.get_or_insert_with(Instant::now);
        is_late(&mut self.timer.write_sleep, since + self.timer.write_timeout, cx)
    }

    fn wrote<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match result {
            Poll::Pending if self.write_late(cx) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
            done => {
                self.timer.write_since = None;
                done
            }
        }
    }
}

/// What is too large in a head that is too large.
fn oversize(head: &[u8]) -> Refusal {
    let request_line = memchr::memchr(b'\n', head).unwrap_or(head.len());
    if request_line > URL_BYTES_MAX { Refusal::UrlTooLong } else { Refusal::HeadersTooLarge }
}

/// Polls a timer that may have been armed for an earlier deadline.
fn is_late(sleep: &mut Option<Pin<Box<Sleep>>>, deadline: Instant, cx: &mut Context<'_>) -> bool {
    let timer = sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
    while timer.as_mut().poll(cx).is_ready() {
        if Instant::now() >= deadline {
            return true;
        }
        timer.as_mut().reset(deadline);
    }
    false
}

impl<S: AsyncRead + Unpin> Guard<S> {
    /// Reads body bytes, which need no look, straight into the caller's buffer.
    fn read_body(&mut self, left: u64, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(out.remaining());
        let mut window = ReadBuf::new(out.initialize_unfilled_to(want));
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut window))?;
        let read = window.filled().len();
        out.advance(read);
        let left = left - read as u64;
        let chunk = matches!(self.state, State::ChunkData(_));
        self.state = if chunk { State::ChunkData(left) } else { State::Length(left) };
        Poll::Ready(Ok(()))
    }

    /// Reads bytes to be looked at; zero means the end.
    fn read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let before = self.buffer.len();
        self.buffer.resize(before + READ_BYTES, 0);
        let mut window = ReadBuf::new(&mut self.buffer[before..]);
        let result = Pin::new(&mut self.inner).poll_read(cx, &mut window);
        let read = window.filled().len();
        self.buffer.truncate(before + read);
        result.map_ok(|()| read)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.pass == 0 {
                this.advance();
            }
            if this.pass > 0 {
                let taken = this.pass.min(out.remaining());
                out.put_slice(&this.buffer[..taken]);
                this.buffer.advance(taken);
                this.pass -= taken;
                return Poll::Ready(Ok(()));
            }
            match this.state {
                // Not the end: the parser takes that for a client that is gone, and would not answer. The marked
                // request says that the connection closes after its answer.
                State::Refused => return Poll::Pending,
                State::Broken => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                State::Length(left) | State::ChunkData(left) => return this.read_body(left, cx, out),
                // A client that goes away must be seen; one that does not wait for the answer is held back.
                State::Upgrading if this.buffer.len() >= READ_BYTES => return Poll::Pending,
                State::Upgrading
                | State::Head { .. }
                | State::ChunkSize
                | State::ChunkEnd
                | State::Trailers { .. } => {}
            }
            match this.read_ahead(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if this.head_late(cx) => this.refuse(Refusal::HeadTimeout),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.wrote(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.wrote(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_flush(cx);
        self.wrote(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
        }
        // Between requests, nothing is on its way; HTTP/2 has a flow control of its own.
        if matches!(this.state, State::Head { scanned: 0 } | State::Length(u64::MAX)) {
            return Poll::Ready(Ok(()));
        }
        this.linger.get_or_insert_with(Linger::new).poll(&mut this.inner, cx).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// What comes through when the bytes arrive in pieces of this size, up to the end or an error.
    fn through(bytes: &[u8], piece: usize) -> (Vec<u8>, io::Result<()>, Option<Refusal>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (mut client, server) = tokio::io::duplex(piece);
            let mut guard = Guard::new(server, &[], LONG, LONG);
            let verdict = guard.verdict();
            let bytes = bytes.to_vec();
            let write = async move {
                let _ = client.write_all(&bytes).await;
            };
            let read = async move {
                let mut out = Vec::new();
                loop {
                    let result = guard.read_buf(&mut out).await;
                    // After a refusal nothing more comes, not even the end.
                    let over = matches!(guard.state, State::Refused | State::Upgrading) && guard.pass == 0;
                    if over || !matches!(result, Ok(1..)) {
                        return (out, result.map(|_| ()));
                    }
                }
            };
            let ((), (out, result)) = tokio::join!(write, read);
            let refusal = *verdict.lock().unwrap();
            (out, result, refusal)
        })
    }

    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    const HANDSHAKE: &str =
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\nConnection: x, upgrade\r\n\r\n";
    const CHUNKED: &str =
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nT: v\r\n\r\n";

    proptest! {
        /// Whatever the pieces in which bytes arrive, sound requests pass unchanged.
        #[test]
        fn sound_requests_pass_unchanged(order in proptest::collection::vec(0usize..3, 1..6), piece in 1usize..200) {
            let bytes = order.into_iter().map(|i| [GET, POST, CHUNKED][i]).collect::<String>();
            let (out, result, refusal) = through(bytes.as_bytes(), piece);
            prop_assert!(result.is_ok());
            prop_assert_eq!(refusal, None);
            prop_assert_eq!(String::from_utf8(out).unwrap(), bytes);
        }

        /// After sound requests a doubtful one is replaced, and nothing behind it comes through.
        #[test]
        fn nothing_passes_behind_a_doubtful_head(before in 0usize..3, piece in 1usize..200) {
            let sound = POST.repeat(before);
            let bytes = format!("{sound}GET /smuggled HTTP/1.1\nHost: a\r\n\r\n{GET}");
            let (out, result, refusal) = through(bytes.as_bytes(), piece);
            prop_assert!(result.is_ok());
            prop_assert_eq!(refusal, Some(Refusal::BareLineEnd));
            let out = String::from_utf8(out).unwrap();
            let rest = out.strip_prefix(&sound).unwrap();
            prop_assert!(rest.starts_with(REFUSED_METHOD.as_str()) && !rest.contains("smuggled"));
            prop_assert_eq!(rest.matches("HTTP/1.1").count(), 1);
        }

        /// Behind a WebSocket handshake nothing passes before it is accepted, whatever it looks like.
        #[test]
        fn nothing_passes_behind_a_handshake(before in 0usize..3, piece in 1usize..200) {
            let sound = format!("{}{HANDSHAKE}", POST.repeat(before));
            let bytes = format!("{sound}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
            let (out, result, refusal) = through(bytes.as_bytes(), piece);
            prop_assert!(result.is_ok());
            prop_assert_eq!(refusal, None);
            prop_assert_eq!(String::from_utf8(out).unwrap(), sound);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), piece in 1usize..64) {
            let _ = through(&bytes, piece);
        }
    }

    #[test]
    fn broken_chunks_fail_the_body() {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        for body in [
            "x\r\n",
            "5\nhello\r\n",
            "5\r\nhelloX\r\n",
            "+5\r\nhello\r\n",
            "ffffffffffffffffff\r\n",
            "0\r\na\rb: c\r\n\r\n",
        ] {
            let (_, result, _) = through(format!("{head}{body}{GET}").as_bytes(), 1024);
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidData, "{body:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_finish_is_refused_but_an_idle_connection_is_not() {
        let (mut client, server) = tokio::io::duplex(1024);
        let mut guard = Guard::new(server, &[], Duration::from_secs(5), LONG);
        let verdict = guard.verdict();
        let mut out = [0; 256];
        assert!(tokio::time::timeout(LONG, guard.read(&mut out)).await.is_err(), "idle is not late");
        client.write_all(b"GET / HT").await.unwrap();
        let read = guard.read(&mut out).await.unwrap();
        assert!(out[..read].starts_with(REFUSED_METHOD.as_str().as_bytes()));
        assert_eq!(*verdict.lock().unwrap(), Some(Refusal::HeadTimeout));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_cut_off() {
        let (_client, server) = tokio::io::duplex(16);
        let mut guard = Guard::new(server, &[], LONG, Duration::from_secs(5));
        let error = guard.write_all(&[0; 1024]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
