//! One connection: TLS, which HTTP it speaks, and its life until it closes or the server drains.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use atoll_loader::limits::{HEADER_BYTES_MAX, HEADERS_MAX};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::body::ReplyBody;
use super::guard::{Guard, Verdict};
use super::head::HEAD_BYTES_MAX;
use super::socket::{self, Upgrade};
use super::tls::Tls;
use super::{Gateway, Phase, serve};

/// What an HTTP/2 client says first.
const H2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Streams open at once on one HTTP/2 connection.
const H2_STREAMS_MAX: u32 = 128;
/// Streams that a client may reset before they were taken up (CVE-2023-44487).
const H2_PENDING_RESETS_MAX: usize = 20;
/// Streams that the server had to reset because of the client (CVE-2025-8671).
const H2_LOCAL_RESETS_MAX: usize = 128;
/// Receive window of one HTTP/2 stream, in bytes.
const H2_STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// Receive window of one HTTP/2 connection, in bytes.
const H2_CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// Unsent bytes kept for one HTTP/2 stream.
const H2_SEND_BUFFER_BYTES: usize = 64 * 1024;
/// How often a silent HTTP/2 client is asked whether it is still there, and how long it may take to answer.
const H2_PING: Duration = Duration::from_secs(20);
/// Read buffer of one HTTP/1 connection, in bytes: a whole head must fit.
const H1_BUFFER_BYTES: usize = 2 * HEAD_BYTES_MAX;

/// Who is at the other end.
#[derive(Clone)]
pub(crate) struct Peer {
    /// Its address.
    pub(crate) address: SocketAddr,
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
    /// Where the guard leaves the reason of a refusal; HTTP/1 only.
    pub(super) verdict: Option<Verdict>,
    /// What becomes of the connection after a WebSocket handshake; HTTP/1 only.
    pub(super) upgrade: Option<Arc<Upgrade>>,
}

/// Serves a connection to its end.
pub(super) async fn run(
    gateway: Arc<Gateway>,
    tls: Option<Arc<Tls>>,
    stream: TcpStream,
    address: SocketAddr,
    phase: watch::Receiver<Phase>,
) {
    // A small answer should not wait for more.
    let _ = stream.set_nodelay(true);
    let mut killed = phase.clone();
    let life = async {
        let peer = |scheme| Peer { address, scheme, verdict: None, upgrade: None };
        match tls {
            None => identify(gateway, stream, peer("http"), phase).await,
            Some(tls) => {
                let handshake = tls.acceptor().accept(stream);
                let timeout = gateway.config.http.head_timeout;
                let Ok(Ok(stream)) = tokio::time::timeout(timeout, handshake).await else { return };
                match stream.get_ref().1.alpn_protocol() {
                    Some(b"h2") => http2(gateway, stream, &[], peer("https"), phase).await,
                    Some(_) => http1(gateway, stream, &[], peer("https"), phase).await,
                    None => identify(gateway, stream, peer("https"), phase).await,
                }
            }
        }
    };
    tokio::select! {
        () = life => {}
        () = reached(&mut killed, Phase::Closed) => {}
    }
}

/// Reads as far as needed to tell HTTP/2 with prior knowledge from HTTP/1.
async fn identify<S>(gateway: Arc<Gateway>, mut stream: S, peer: Peer, mut phase: watch::Receiver<Phase>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut early = [0; H2_PREFACE.len()];
    let mut filled = 0;
    let read = async {
        while filled < early.len() && early[..filled] == H2_PREFACE[..filled] {
            match stream.read(&mut early[filled..]).await {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof),
                Ok(read) => filled += read,
                Err(error) => return Err(error.kind()),
            }
        }
        Ok(())
    };
    let silent = tokio::time::timeout(gateway.config.http.head_timeout, read);
    let known = tokio::select! {
        known = silent => matches!(known, Ok(Ok(()))),
        // A connection that has not asked for anything has nothing to finish.
        () = reached(&mut phase, Phase::Draining) => false,
    };
    if !known {
        return;
    }
    let early = &early[..filled];
    if early == H2_PREFACE {
        http2(gateway, stream, early, peer, phase).await;
    } else {
        http1(gateway, stream, early, peer, phase).await;
    }
}

async fn http1<S>(
    gateway: Arc<Gateway>,
    stream: S,
    early: &[u8],
    mut peer: Peer,
    phase: watch::Receiver<Phase>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = gateway.config.http;
    let guard = Guard::new(stream, early, limits.head_timeout, limits.body_timeout);
    peer.verdict = Some(guard.verdict());
    let upgrade = guard.upgrade();
    peer.upgrade = Some(upgrade.clone());
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // The guard answers slow heads with 408 first; this one closes connections that stay idle.
        .header_read_timeout(limits.head_timeout.saturating_mul(2))
        .max_buf_size(H1_BUFFER_BYTES)
        .max_headers(HEADERS_MAX + 1);
    let connection = builder.serve_connection(TokioIo::new(guard), service_fn(service(gateway, peer)));
    let mut connection = std::pin::pin!(connection.with_upgrades());
    let mut phase = phase;
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = reached(&mut phase, Phase::Draining) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    ended(result);
    if let Some(socket) = upgrade.take() {
        socket.await;
    }
}

async fn http2<S>(gateway: Arc<Gateway>, stream: S, early: &[u8], peer: Peer, phase: watch::Receiver<Phase>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = Guard::opaque(stream, early, gateway.config.http.body_timeout);
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS_MAX)
        .max_pending_accept_reset_streams(H2_PENDING_RESETS_MAX)
        .max_local_error_reset_streams(H2_LOCAL_RESETS_MAX)
        .max_header_list_size(u32::try_from(HEADER_BYTES_MAX).unwrap_or(u32::MAX))
        .initial_stream_window_size(H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(H2_SEND_BUFFER_BYTES)
        .keep_alive_interval(H2_PING)
        .keep_alive_timeout(H2_PING);
    let connection = builder.serve_connection(TokioIo::new(stream), service_fn(service(gateway, peer)));
    let mut connection = std::pin::pin!(connection);
    let mut phase = phase;
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = reached(&mut phase, Phase::Draining) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    ended(result);
}

fn service(
    gateway: Arc<Gateway>,
    peer: Peer,
) -> impl Fn(Request<Incoming>) -> ServiceFuture<Response<ReplyBody>> {
    let peer = Arc::new(peer);
    move |request| {
        let (gateway, peer) = (gateway.clone(), peer.clone());
        Box::pin(async move {
            let handshake = socket::is_handshake(&peer, &request);
            let mut response = serve::serve(gateway, peer, request).await;
            if handshake {
                socket::close_after(&mut response);
            }
            Ok(response)
        })
    }
}

type ServiceFuture<T> = std::pin::Pin<Box<dyn Future<Output = Result<T, Infallible>> + Send>>;

/// Waits until the server is at least this far.
pub(super) async fn reached(phase: &mut watch::Receiver<Phase>, at_least: Phase) {
    // A sender that is gone means that the server is, too.
    let _ = phase.wait_for(|phase| *phase >= at_least).await;
}

fn ended(result: hyper::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended");
    }
}
