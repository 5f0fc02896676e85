//! WebSockets of clients: the handshake around the worker's answer, and what becomes of the connection.
//!
//! ```text
//!  GET + upgrade ─▶ Offer (checked before the worker sees anything) ─▶ worker ─▶ 101? ─▶ Upgrade::accept
//!        │                                                               │ no: an ordinary answer, then the connection closes
//!        └─ the guard lets nothing through behind that head ◀────────────┘ until accepted; then all of it is frames
//! ```
//!
//! Only HTTP/1.1 clients can ask: HTTP/2 needs extended CONNECT (RFC 8441), which is not offered, so browsers open an HTTP/1.1
//! connection for a WebSocket by themselves. The connection's own task runs the relay, so a socket keeps the place of its
//! connection and ends with the server; the invocation behind it keeps its place in admission until it ends.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use atoll_bindings::body::RequestBody;
use atoll_bindings::link::GuestBody;
use atoll_bindings::socket::handshake::{BadRequest, Offer, has_token, is_wanted};
use atoll_bindings::socket::{Incoming, Meter, Relay, Role, incoming};
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{Request, Response, StatusCode, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

use super::body::ReplyBody;
use super::conn::{Peer, reached};
use super::{Gateway, Phase, headers};
use crate::dispatch::logs::WorkerLogs;
use crate::dispatch::record::Traffic;
use crate::dispatch::{Deployment, Invocation};
use crate::problem::Problem;

/// The compatibility switch under which Workers compress messages.
const COMPRESSION_FLAG: &str = "web_socket_compression";

type SocketFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What becomes of a connection whose client asked for a WebSocket; shared by the guard, the service and the connection.
#[derive(Default)]
pub(crate) struct Upgrade {
    accepted: AtomicBool,
    socket: Mutex<Option<SocketFuture>>,
}

impl Upgrade {
    /// Whether what the client sends from here on is frames.
    pub(super) fn is_accepted(&self) -> bool {
        self.accepted.load(Ordering::Acquire)
    }

    /// What the client sends from here on is the socket's.
    pub(super) fn accept(&self, socket: SocketFuture) {
        *self.socket.lock().unwrap_or_else(PoisonError::into_inner) = Some(socket);
        self.accepted.store(true, Ordering::Release);
    }

    /// What is to be run once the HTTP connection is over.
    pub(super) fn take(&self) -> Option<SocketFuture> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Whether a request is what the guard takes for a WebSocket handshake: behind it, only an accepted upgrade lets bytes through.
pub(super) fn is_handshake<B>(peer: &Peer, request: &Request<B>) -> bool {
    peer.upgrade.is_some()
        && request.version() == Version::HTTP_11
        && is_wanted(request.method(), request.headers())
        && has_token(request.headers(), &CONNECTION, "upgrade")
}

/// A handshake that waits for the worker's answer.
pub(super) struct Waiting {
    offer: Offer,
    upgrade: OnUpgrade,
    incoming: Incoming,
}

/// What a client offered, if it asks for a WebSocket.
pub(super) fn offer<B>(
    peer: &Peer,
    deployment: &Deployment,
    request: &Request<B>,
) -> Result<Option<Offer>, Problem> {
    if !is_handshake(peer, request) {
        return Ok(None);
    }
    let flags = &deployment.bundle.compatibility().flags;
    let compress = flags.iter().any(|flag| flag == COMPRESSION_FLAG);
    match Offer::read(request.headers(), compress) {
        Ok(offer) => Ok(Some(offer)),
        Err(bad @ BadRequest::Version) => {
            let status = StatusCode::UPGRADE_REQUIRED;
            let problem = Problem::new(status, "websocket_version", bad.to_string());
            Err(problem.header(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")))
        }
        Err(bad) => Err(Problem::bad_request(bad.to_string())),
    }
}

/// Makes the worker's request one that asks for a WebSocket: its body is what the client will send.
pub(super) fn ask(
    offer: Offer,
    upgrade: OnUpgrade,
    request: Request<RequestBody>,
) -> (Request<RequestBody>, Waiting) {
    let (incoming, body) = incoming();
    let mut request = request.map(|_| RequestBody::stream(body));
    request.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    (request, Waiting { offer, upgrade, incoming })
}

/// The 101 that opens the socket; its connection runs on as a relay until either side ends it.
pub(super) fn open(
    gateway: &Gateway,
    peer: &Peer,
    response: Response<GuestBody>,
    invocation: Invocation<WorkerLogs>,
    waiting: Option<Waiting>,
    traffic: &Traffic,
) -> Result<Response<ReplyBody>, Problem> {
    let wrong = |text: String| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "guest_error", text);
    let (Some(waiting), Some(upgrade)) = (waiting, &peer.upgrade) else {
        let text = "The worker answered with a WebSocket to a request that did not ask for one.";
        return Err(wrong(text.into()));
    };
    let (mut parts, body) = response.into_parts();
    headers::clean_response(&mut parts.headers);
    for name in OF_A_BODY {
        parts.headers.remove(name);
    }
    let Waiting { offer, upgrade: connection, incoming } = waiting;
    let deflate = offer.answer(&mut parts.headers).map_err(|error| wrong(error.to_string()))?;
    let meter = Meter { from_peer: traffic.request_bytes.clone(), to_peer: traffic.response_bytes.clone() };
    let (done, cancel) = oneshot::channel();
    invocation.finish_in_background(Some(cancel));
    let mut phase = gateway.draining.clone();
    upgrade.accept(Box::pin(async move {
        let Ok(io) = connection.await else { return };
        let relay = Relay { io: TokioIo::new(io), role: Role::Server, deflate, incoming, meter };
        let ended = relay.run(body, reached(&mut phase, Phase::Draining)).await;
        if ended.guest_finished {
            let _ = done.send(());
        }
    }));
    Ok(Response::from_parts(parts, ReplyBody::empty()))
}

/// A 101 has no body, whatever the worker says.
const OF_A_BODY: [HeaderName; 1] = [CONTENT_LENGTH];

/// A connection whose handshake was refused closes: a proxy in front may take what follows for frames.
pub(super) fn close_after(response: &mut Response<ReplyBody>) {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}
