//! Tunnels: `CONNECT host:port` of a program inside, for everything that speaks TLS by itself (curl, git, npm, pip).
//!
//! ```text
//!  CONNECT a:443 ─▶ outlet's class: ports, rules, rates ─▶ vetted address ─▶ 200, and from here on bytes, both ways:
//!
//!    program ──▶ upward ──▶ Hello ──▶ queue of one ──▶ the connection's task (egress/tcp.rs) ──▶ peer
//!    program ◀── downward ◀─────────── reply's body ◀────────────┘          ◀── peer
//!         └─ ended by: both sides' ends │ silence │ age │ bytes │ the way out is taken back │ the sandbox's end
//! ```
//!
//! What was said before the 200 is the tunnel's first bytes if there is one, and otherwise nothing: a refused CONNECT closes its
//! connection. Nobody sees what goes through, so the class decides on host and port alone, and only where no rule of it needs more
//! ([`Policy::check_tunnel`]). But whom TLS asks for is said in the open, and must be that host: [`Hello`] holds what a program says
//! first until it is known. Each tunnel is one crossing, told with its bytes when it is over.
//!
//! [`Policy::check_tunnel`]: atoll_bindings::egress::Policy::check_tunnel

mod first;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use atoll_bindings::body::{BoxError, RequestBody};
use atoll_bindings::crossing::Denial;
use atoll_bindings::egress::hello::{Answer, Heard, Hello};
use atoll_bindings::egress::{Hold, Terms, Tunnel};
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{Method, Request, Response, Uri};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot, watch};

use self::first::First;
use super::egress::{Way, failed};
use super::lives::Life;
use crate::problem::Problem;
use crate::server::body::ReplyBody;

/// Tunnels of one sandbox at once.
pub(super) const TUNNELS_MAX: usize = 32;
/// Largest piece that is read from a program at once, in bytes.
const PIECE_BYTES_MAX: usize = 16 * 1024;
/// How often within the longest silence somebody looks whether it is over.
const SILENCE_LOOKS: u32 = 4;

/// Answers a CONNECT.
pub(super) async fn open(life: &Life, mut way: Way, mut request: Request<Incoming>) -> Response<ReplyBody> {
    let target = match target(&request) {
        Ok(target) => target,
        Err(problem) => return problem.response(),
    };
    let Some(channel) = way.outlet.channel().filter(|channel| channel.takes_connections()) else {
        return failed(way.outlet.nowhere());
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let (queue, sending, sent_all) = Sending::new();
    let (tunnel, hold) = Tunnel::new(Arc::clone(life.tunnels()));
    let mut connect = Request::new(RequestBody::stream(sending));
    (*connect.method_mut(), *connect.uri_mut()) = (Method::CONNECT, target);
    connect.extensions_mut().insert(tunnel);
    connect.extensions_mut().insert(life.inside());
    let answer = tokio::select! {
        answer = channel.fetch(way.outlet.context(), connect) => answer,
        () = way.taken_back() => return failed(way.outlet.nowhere()),
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return failed(error),
    };
    let Some(terms) = answer.extensions().get::<Terms>().cloned() else {
        return Problem::internal(&"a tunnel without terms").response();
    };
    let reply = answer.into_body();
    tokio::spawn(async move {
        // It fails if the program left before it got its 200.
        let program = tokio::select! {
            program = upgrade => program,
            () = way.taken_back() => return,
        };
        if let Ok(program) = program {
            relay(program, Ends { queue, sent_all, reply }, terms, &hold, way).await;
        }
    });
    Response::new(ReplyBody::empty())
}

/// Where to: an authority and nothing else, without a body (RFC 9110, section 9.3.6).
fn target(request: &Request<Incoming>) -> Result<Uri, Problem> {
    let bad = || Problem::bad_request("A tunnel is asked for with `CONNECT host:port`, and nothing more.");
    let uri = request.uri();
    let bare = uri.scheme().is_none() && uri.path_and_query().is_none();
    let bodiless =
        [CONTENT_LENGTH, TRANSFER_ENCODING].iter().all(|name| !request.headers().contains_key(name));
    let authority = uri.authority().filter(|_| bare && bodiless).ok_or_else(bad)?;
    format!("tcp://{authority}").parse().map_err(|_| bad())
}

/// The tunnel's ends at the outside.
struct Ends {
    queue: mpsc::Sender<Bytes>,
    sent_all: oneshot::Receiver<()>,
    reply: RequestBody,
}

/// Bytes so far.
#[derive(Default)]
struct Moved {
    up: AtomicU64,
    down: AtomicU64,
}

/// Why a direction ended before its end: a bound, or it broke off.
type Broken = Option<Denial>;

/// Moves bytes until both sides have said all, or until something ends it. Everything is closed with the end of this.
async fn relay(program: Upgraded, ends: Ends, terms: Terms, hold: &Hold, mut way: Way) {
    let Ends { queue, sent_all, mut reply } = ends;
    let moved = Moved::default();
    let (reader, writer) = tokio::io::split(TokioIo::new(program));
    let (told, answer) = watch::channel(None);
    let first = First::new(Hello::new(terms.host, terms.port), answer);
    let bytes = async {
        tokio::try_join!(
            upward(reader, queue, first, &moved.up, terms.sent_bytes_max),
            downward(&mut reply, writer, told, &moved.down, terms.received_bytes_max),
        )?;
        // What the program said last may still be on its way.
        let _gone = sent_all.await;
        Ok::<_, Broken>(())
    };
    let why = tokio::select! {
        biased;
        () = way.taken_back() => None,
        () = tokio::time::sleep(terms.life) => Some(Denial::Time),
        () = silence(&moved, terms.idle) => Some(Denial::Time),
        done = bytes => done.err().flatten(),
    };
    if let Some(why) = why {
        hold.end(why);
    }
}

/// What the program says; its end is passed on, and the peer may go on talking.
async fn upward(
    mut reader: ReadHalf<TokioIo<Upgraded>>,
    queue: mpsc::Sender<Bytes>,
    mut first: First,
    moved: &AtomicU64,
    bytes_max: u64,
) -> Result<(), Broken> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(PIECE_BYTES_MAX);
        let read = tokio::select! {
            read = reader.read_buf(&mut buffer) => read.map_err(|_| None)?,
            // The peer takes no more; it may still talk.
            () = queue.closed() => return Ok(()),
            () = first.late() => return Err(Some(Denial::Time)),
        };
        if read == 0 {
            return if first.is_reading() { Err(Some(Denial::Tls)) } else { Ok(()) };
        }
        if moved.fetch_add(read as u64, Relaxed) + read as u64 > bytes_max {
            return Err(Some(Denial::RequestBytes));
        }
        let mut next = Some(first.pass(buffer.split().freeze()).map_err(Some)?);
        while let Some(piece) = next {
            if !piece.is_empty() && queue.send(piece).await.is_err() {
                return Ok(());
            }
            next = first.more().await.map_err(Some)?;
        }
    }
}

/// What the peer says; its end is passed on as well.
async fn downward(
    reply: &mut RequestBody,
    mut writer: WriteHalf<TokioIo<Upgraded>>,
    told: watch::Sender<Option<Answer>>,
    moved: &AtomicU64,
    bytes_max: u64,
) -> Result<(), Broken> {
    let mut heard = Heard::default();
    while let Some(frame) = reply.frame().await {
        let Ok(bytes) = frame.map_err(|_| None)?.into_data() else { continue };
        if moved.fetch_add(bytes.len() as u64, Relaxed) + bytes.len() as u64 > bytes_max {
            return Err(Some(Denial::ResponseBytes));
        }
        if let Some(answer) = heard.push(&bytes) {
            told.send_replace(Some(answer));
        }
        writer.write_all(&bytes).await.map_err(|_| None)?;
        writer.flush().await.map_err(|_| None)?;
    }
    writer.shutdown().await.map_err(|_| None)
}

/// Waits until no byte has moved for so long, or up to a quarter longer.
async fn silence(moved: &Moved, idle: Duration) {
    let look = || moved.up.load(Relaxed) + moved.down.load(Relaxed);
    let (mut last, mut quiet) = (look(), 0);
    while quiet < SILENCE_LOOKS {
        tokio::time::sleep(idle / SILENCE_LOOKS).await;
        let now = look();
        quiet = if now == last { quiet + 1 } else { 0 };
        last = now;
    }
}

/// The body of a CONNECT: what the program will say.
struct Sending {
    queue: mpsc::Receiver<Bytes>,
    /// Its drop says that nobody sends any more.
    _sent_all: oneshot::Sender<()>,
}

impl Sending {
    fn new() -> (mpsc::Sender<Bytes>, Self, oneshot::Receiver<()>) {
        let (sender, queue) = mpsc::channel(1);
        let (told, sent_all) = oneshot::channel();
        (sender, Self { queue, _sent_all: told }, sent_all)
    }
}

impl Body for Sending {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.queue.poll_recv(cx).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// A way out that may be taken back.
pub(super) fn held() -> (watch::Sender<()>, watch::Receiver<()>) {
    watch::channel(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_is_neither_short_nor_long() {
        let (moved, idle) = (Moved::default(), Duration::from_secs(8));
        let began = tokio::time::Instant::now();
        let talk = async {
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_secs(7)).await;
                moved.down.fetch_add(1, Relaxed);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = silence(&moved, idle) => {}
            () = talk => {}
        }
        let quiet = began.elapsed() - Duration::from_secs(35);
        assert!(quiet >= idle && quiet <= idle + idle / SILENCE_LOOKS, "{quiet:?}");
    }
}
