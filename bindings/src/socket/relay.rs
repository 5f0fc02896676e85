//! One open WebSocket: both directions at once, and how it ends.
//!
//! ```text
//!  open ──guest's Close──▶ we closed ──peer's Close──▶ over            CLOSE_MS_MAX for the peer
//!   │ └──peer's Close───▶ peer closed ──guest's Close─▶ over           HALF_OPEN_MS_MAX, then the close is answered for it
//!   ├── breach, idle, too old, drain: Close with the code ──▶ over     CLOSE_MS_MAX
//!   └── the peer is gone, or silent to pings ───────────▶ over         the guest sees a body without a close: 1006
//! ```
//!
//! After the end the guest still has `GUEST_MS_MAX` to end its side, so that its `close` handlers run; then its body is dropped,
//! which stops it. The two directions never wait for each other: a peer that sends without reading must not block its own pongs.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use atoll_loader::limits::{SOCKET_IDLE_MS_MAX, SOCKET_LIFE_MS_MAX};
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tungstenite::protocol::frame::coding::Control;

use super::framer::Framer;
use super::parts::{Close, head};
use super::wire::{Decoder, Event};
use super::{Deflate, Fail, Role};
use crate::body::BoxError;

/// Pieces that wait between the socket and the body of the guest.
const PIECES_MAX: usize = 4;
/// Answers to pings, and other words of the relay's own, that wait to be written. A peer that sends more is not read until they
/// are out.
const CONTROLS_MAX: usize = 32;
/// How often the peer is asked whether it is there, in milliseconds.
const PING_MS: u64 = 25_000;
/// A peer from which nothing came for this long is gone, in milliseconds: it did not answer two pings.
const SILENT_MS_MAX: u64 = 60_000;
/// How long a peer may take nothing of what it is sent, in milliseconds.
const STALLED_MS_MAX: u64 = 60_000;
/// How long a peer may take to answer a Close, in milliseconds.
const CLOSE_MS_MAX: u64 = 5_000;
/// How long a guest may go on sending after its peer closed, in milliseconds.
const HALF_OPEN_MS_MAX: u64 = 60_000;
/// How long what a peer still sends is taken after the last frame, so that a reset does not overtake it, in milliseconds.
const LINGER_MS_MAX: u64 = 1_000;
/// How long a guest may take to end its side once the connection is over, in milliseconds.
const GUEST_MS_MAX: u64 = 10_000;
/// Bytes asked from the socket at once.
const READ_BYTES: usize = 16 * 1024;

/// Where pieces from the peer go; the other end is a [`SocketBody`].
#[derive(Debug)]
pub struct Incoming(mpsc::Sender<Bytes>);

/// What comes from the peer, as a body of parts. It ends without a close if the connection broke.
#[derive(Debug)]
pub struct SocketBody {
    pieces: mpsc::Receiver<Bytes>,
    /// Whoever looks first must not take the body for one that is already whole.
    looked: bool,
}

/// Both ends of what will come from a peer. The body can be given away before there is a connection; without one it just ends.
#[must_use]
pub fn incoming() -> (Incoming, SocketBody) {
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    (Incoming(sender), SocketBody { pieces, looked: false })
}

impl Body for SocketBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if !std::mem::replace(&mut self.looked, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.pieces.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

/// How a relay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The guest ended its side, rather than being given up.
    pub guest_finished: bool,
}

/// Bytes of messages that passed: as the guest has them, without the heads of frames and before compression, as bodies are counted.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    /// To the guest.
    pub from_peer: Arc<AtomicU64>,
    /// From the guest.
    pub to_peer: Arc<AtomicU64>,
}

/// One end of a connection whose handshake is done.
#[derive(Debug)]
pub struct Relay<I> {
    /// The connection.
    pub io: I,
    /// Which end this is.
    pub role: Role,
    /// What was agreed about compression.
    pub deflate: Option<Deflate>,
    /// Where to put what comes.
    pub incoming: Incoming,
    /// What passed.
    pub meter: Meter,
}

/// A word of the relay's own to the peer.
#[derive(Debug)]
enum Word {
    Ping,
    Pong(Bytes),
    Close(Close),
}

/// What both directions know of each other.
#[derive(Debug)]
struct Shared {
    moved: Mutex<Instant>,
    peer_closed: Mutex<Option<Close>>,
    meter: Meter,
}

impl Shared {
    fn moved(&self) {
        *lock(&self.moved) = Instant::now();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What is under these locks is one value.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// How reading ended.
enum ReadEnd {
    Closed,
    Failed(Fail),
    Gone,
}

/// How writing ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WriteEnd {
    /// A Close went out; `guest`: the guest's side is over too.
    Closed {
        guest: bool,
    },
    Gone,
}

impl<I: AsyncRead + AsyncWrite + Unpin> Relay<I> {
    /// Runs to the end. `outgoing` is what the guest sends; `leave` asks to close with 1001.
    pub async fn run<B>(self, outgoing: B, leave: impl Future<Output = ()>) -> Ended
    where
        B: Body<Data = Bytes>,
    {
        let Self { io, role, deflate, incoming, meter } = self;
        let mut outgoing = pin!(outgoing);
        let (mut read, mut write) = tokio::io::split(io);
        let shared = Shared { moved: Mutex::new(Instant::now()), peer_closed: Mutex::new(None), meter };
        let (words, mut said) = mpsc::channel(CONTROLS_MAX);
        let guest_finished = {
            let mut reading =
                pin!(read_all(&mut read, Decoder::new(role, deflate), incoming, &shared, &words));
            let framer = Framer::new(role, deflate.is_some());
            let mut writing = pin!(write_all(&mut write, framer, outgoing.as_mut(), &shared, &mut said));
            attend(&mut reading, &mut writing, &shared, &words, leave).await
        };
        linger(&mut read, &mut write).await;
        let guest_finished = guest_finished || drain(outgoing).await;
        Ended { guest_finished }
    }
}

/// Watches both directions until the connection is over. Whether the guest's side ended.
async fn attend(
    reading: &mut Pin<&mut impl Future<Output = ReadEnd>>,
    writing: &mut Pin<&mut impl Future<Output = WriteEnd>>,
    shared: &Shared,
    words: &mpsc::Sender<Word>,
    leave: impl Future<Output = ()>,
) -> bool {
    let begun = Instant::now();
    let far = begun + Duration::from_millis(2 * SOCKET_LIFE_MS_MAX);
    let (mut read, mut written, mut leaving, mut half_open) = (false, None, false, false);
    let mut deadline = pin!(sleep_until(far));
    let mut ticks = tokio::time::interval(Duration::from_millis(PING_MS));
    ticks.reset();
    let mut leave = pin!(leave);
    // Without room for the word the peer does not read either, and the deadline ends it.
    let close = |code, reason: &str| {
        let _ = words.try_send(Word::Close(Close { code, reason: reason.to_owned() }));
    };
    loop {
        let end = Instant::now() + Duration::from_millis(CLOSE_MS_MAX);
        tokio::select! {
            biased;
            ended = &mut *reading, if !read => {
                read = true;
                match ended {
                    ReadEnd::Closed if written.is_none() => {
                        half_open = true;
                        deadline.as_mut().reset(Instant::now() + Duration::from_millis(HALF_OPEN_MS_MAX));
                    }
                    ReadEnd::Closed => {}
                    ReadEnd::Gone => return matches!(written, Some(WriteEnd::Closed { guest: true })),
                    ReadEnd::Failed(fail) => {
                        close(fail.code, fail.reason);
                        deadline.as_mut().reset(end);
                    }
                }
            }
            ended = &mut *writing, if written.is_none() => {
                if ended == WriteEnd::Gone {
                    return false;
                }
                written = Some(ended);
                half_open = false;
                deadline.as_mut().reset(end);
            }
            () = deadline.as_mut() => {
                if !std::mem::take(&mut half_open) {
                    return matches!(written, Some(WriteEnd::Closed { guest: true }));
                }
                let answer = lock(&shared.peer_closed).clone().unwrap_or(Close::NONE);
                close(answer.code, &answer.reason);
                deadline.as_mut().reset(end);
            }
            () = leave.as_mut(), if !leaving => {
                (leaving, half_open) = (true, false);
                close(1001, "the server is going away");
                deadline.as_mut().reset(end);
            }
            now = ticks.tick(), if written.is_none() => {
                let idle = now.saturating_duration_since(*lock(&shared.moved));
                if idle > Duration::from_millis(SOCKET_IDLE_MS_MAX) {
                    close(1001, "idle");
                } else if now.saturating_duration_since(begun) > Duration::from_millis(SOCKET_LIFE_MS_MAX) {
                    close(1001, "open for too long");
                } else {
                    let _ = words.try_send(Word::Ping);
                }
            }
        }
        if let (true, Some(WriteEnd::Closed { guest })) = (read, written) {
            return guest;
        }
    }
}

/// Reads frames until the peer closes, breaks the protocol, or is gone.
async fn read_all(
    read: &mut (impl AsyncRead + Unpin),
    mut decoder: Decoder,
    incoming: Incoming,
    shared: &Shared,
    words: &mpsc::Sender<Word>,
) -> ReadEnd {
    // A guest that wants no more, or is over, is not told; the peer is still answered until the guest's side ends.
    let give = async |parts: Bytes| {
        let _ = incoming.0.send(parts).await;
    };
    loop {
        let event = match decoder.next() {
            Ok(event) => event,
            Err(fail) => return ReadEnd::Failed(fail),
        };
        match event {
            Some(Event::Data { kind, last, bytes }) => {
                shared.moved();
                shared.meter.from_peer.fetch_add(bytes.len() as u64, Relaxed);
                // A piece is far below what a length can say.
                let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                give([&head(kind, last, length)[..], &bytes].concat().into()).await;
            }
            Some(Event::Ping(payload)) => {
                // A closed queue means that writing is over, and so is the connection.
                let _ = words.send(Word::Pong(payload)).await;
            }
            Some(Event::Pong) => {}
            Some(Event::Close(close)) => {
                give(close.part()).await;
                *lock(&shared.peer_closed) = Some(close);
                return ReadEnd::Closed;
            }
            None => {
                decoder.buffer.reserve(READ_BYTES);
                let silent = Duration::from_millis(SILENT_MS_MAX);
                match timeout(silent, read.read_buf(&mut decoder.buffer)).await {
                    Ok(Ok(1..)) => {}
                    _ => return ReadEnd::Gone,
                }
            }
        }
    }
}

/// What there is to write next.
enum Next {
    Word(Word),
    Piece(Bytes),
    /// The guest's body ended, or failed.
    End,
}

/// Writes what the guest and the relay say until a Close is out.
async fn write_all<B: Body<Data = Bytes>>(
    write: &mut (impl AsyncWrite + Unpin),
    mut framer: Framer,
    mut outgoing: Pin<&mut B>,
    shared: &Shared,
    said: &mut mpsc::Receiver<Word>,
) -> WriteEnd {
    let mut out = BytesMut::new();
    loop {
        let next = tokio::select! {
            biased;
            // Not within a frame; but a guest that stops in the middle of one must not hold up what ends the connection.
            Some(word) = said.recv(), if !framer.in_frame() => Next::Word(word),
            piece = piece(outgoing.as_mut()) => piece.map_or(Next::End, Next::Piece),
        };
        let ended = match next {
            Next::Word(Word::Ping) => {
                framer.control(Control::Ping, &[], &mut out);
                None
            }
            Next::Word(Word::Pong(payload)) => {
                framer.control(Control::Pong, &payload, &mut out);
                None
            }
            Next::Word(Word::Close(close)) => {
                framer.control(Control::Close, &close.payload(), &mut out);
                Some(WriteEnd::Closed { guest: false })
            }
            Next::Piece(mut input) => {
                shared.moved();
                let written = frames(&mut framer, &mut input, &mut out, write).await;
                shared.meter.to_peer.fetch_add(std::mem::take(&mut framer.taken), Relaxed);
                match written {
                    Ok(closed) => closed.then_some(WriteEnd::Closed { guest: true }),
                    Err(end) => return end,
                }
            }
            // A guest that is gone without a close; half a frame cannot be ended.
            Next::End if framer.in_frame() => return WriteEnd::Gone,
            Next::End => {
                let code = if framer.role() == Role::Server { 1011 } else { 1001 };
                let fallback = Close { code, reason: "the worker ended".to_owned() };
                let close = lock(&shared.peer_closed).clone().unwrap_or(fallback);
                framer.control(Control::Close, &close.payload(), &mut out);
                Some(WriteEnd::Closed { guest: true })
            }
        };
        if !flush(&mut out, write).await {
            return WriteEnd::Gone;
        }
        if let Some(end) = ended {
            return end;
        }
    }
}

/// Writes the frames of one piece. Whether it closed the connection.
async fn frames(
    framer: &mut Framer,
    input: &mut Bytes,
    out: &mut BytesMut,
    write: &mut (impl AsyncWrite + Unpin),
) -> Result<bool, WriteEnd> {
    loop {
        match framer.next(input, out) {
            Ok(Some(_)) => return Ok(true),
            Ok(None) if input.is_empty() => return Ok(false),
            Ok(None) => {
                if !flush(out, write).await {
                    return Err(WriteEnd::Gone);
                }
            }
            // Only a host that breaks the seam's rules sends such parts; its guest's connection is over.
            Err(_) => return Err(WriteEnd::Gone),
        }
    }
}

/// The next bytes of a guest; `None` at the end, however it came.
async fn piece<B: Body<Data = Bytes>>(mut body: Pin<&mut B>) -> Option<Bytes> {
    loop {
        let frame = poll_fn(|cx| body.as_mut().poll_frame(cx)).await?.ok()?;
        if let Ok(bytes) = frame.into_data() {
            return Some(bytes);
        }
    }
}

async fn flush(out: &mut BytesMut, write: &mut (impl AsyncWrite + Unpin)) -> bool {
    let all = async {
        write.write_all(out).await?;
        write.flush().await
    };
    let written = timeout(Duration::from_millis(STALLED_MS_MAX), all).await;
    out.clear();
    matches!(written, Ok(Ok(())))
}

/// Says that nothing follows, and takes what is still on its way for a moment.
async fn linger(read: &mut (impl AsyncRead + Unpin), write: &mut (impl AsyncWrite + Unpin)) {
    let rest = async {
        if write.shutdown().await.is_err() {
            return;
        }
        let mut sink = vec![0; READ_BYTES];
        while matches!(read.read(&mut sink).await, Ok(1..)) {}
    };
    let _ = timeout(Duration::from_millis(LINGER_MS_MAX), rest).await;
}

/// Lets a guest end its side. Whether it did in time.
async fn drain<B: Body<Data = Bytes>>(mut outgoing: Pin<&mut B>) -> bool {
    let rest = async { while piece(outgoing.as_mut()).await.is_some() {} };
    timeout(Duration::from_millis(GUEST_MS_MAX), rest).await.is_ok()
}

#[cfg(test)]
mod tests;
