//! Previews: an exposed port of a sandbox as a web site, for whoever knows its token.
//!
//! ```text
//!  preview-TOKEN.DOMAIN/path  ─┐                            ┌─ answer, streamed
//!  DOMAIN/preview/TOKEN/path  ─┴▶ token ─▶ that sandbox's port ┤
//!                                                           └─ 101: bytes both ways, behind the guard
//! ```
//!
//! A token stands for one port of one sandbox and dies with it; whatever the request says, it leads nowhere else. The program
//! inside sees an ordinary HTTP/1.1 request. The sandbox is in use, and the tenant's place taken, until the answer is over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use atoll_bindings::crossing::{Crossing, Verdict};
use atoll_container_bridge::error::Code;
use atoll_container_bridge::manager::Lease;
use atoll_loader::limits::{HEADER_BYTES_MAX, HEADERS_MAX};
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::uri::Authority;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;

use super::body::{ClientBody, ReplyBody, Watched};
use super::conn::{Peer, reached};
use super::serve::target;
use super::{Gateway, Phase, headers, socket};
use crate::admission::{Kind, Permit};
use crate::config::Name;
use crate::problem::Problem;
use crate::sandboxes::{Life, Sandboxes};

/// How long a program inside may take until its answer begins.
const ANSWER: Duration = Duration::from_secs(60);
/// The name of a preview in the audit trail.
const CAPABILITY: &str = "sandbox/preview";

/// Answers a request to an exposed port.
pub(super) async fn answer(
    gateway: &Arc<Gateway>,
    peer: &Peer,
    (token, strip): (&str, usize),
    authority: &Authority,
    mut request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Problem> {
    // The same for every token that is none: a wrong one, a hidden port, a sandbox that is over.
    let none = || Problem::new(StatusCode::NOT_FOUND, "no_preview", "There is no such preview.");
    let sandboxes = gateway.sandboxes.as_ref().ok_or_else(none)?;
    let (lease, life, port) = sandboxes.preview(token).await.ok_or_else(none)?;
    let tenant = Name::parse(&life.owner().tenant).ok_or_else(none)?;
    let permit = gateway.admission.enter(&tenant, Kind::Warm).map_err(|denied| {
        gateway.observer.denied(tenant.as_str(), denied);
        Problem::from(denied)
    })?;
    let mut visit = Visit::new(Arc::clone(sandboxes), &tenant, &life, request.method().clone(), permit);
    let stream = match lease.connect(port).await {
        Ok(stream) => stream,
        Err(error) if error.code == Code::PortRefused => {
            let text = "Nothing listens on that port in the sandbox.";
            return Err(Problem::new(StatusCode::BAD_GATEWAY, error.code.as_str(), text).retry_after(1));
        }
        Err(error) => return Err(Problem::internal(&error)),
    };
    visit.lease = Some(lease);
    let socket = socket::is_handshake(peer, &request);
    let upgrade = socket.then(|| hyper::upgrade::on(&mut request));
    let request = forwarded(gateway, peer, strip, authority, request, socket)?;
    let mut response = send(stream, request).await?;
    visit.verdict(response.status());
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let (Some(client), Some(accepting)) = (upgrade, &peer.upgrade) else {
            let text = "The program switched to a protocol that nobody asked for.";
            return Err(Problem::new(StatusCode::BAD_GATEWAY, "preview_protocol", text));
        };
        let inside = hyper::upgrade::on(&mut response);
        let mut phase = gateway.draining.clone();
        accepting.accept(Box::pin(async move {
            let (Ok(client), Ok(inside)) = (client.await, inside.await) else { return };
            let (mut client, mut inside) = (TokioIo::new(client), TokioIo::new(inside));
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut client, &mut inside) => {}
                () = reached(&mut phase, Phase::Draining) => {}
            }
            drop(visit);
        }));
        let (mut parts, _) = response.into_parts();
        switching(&mut parts.headers);
        return Ok(Response::from_parts(parts, ReplyBody::empty()));
    }
    let (mut parts, body) = response.into_parts();
    headers::clean_response(&mut parts.headers);
    Ok(Response::from_parts(parts, ReplyBody::stream(Watched::new(body, move |bytes| visit.count(bytes)))))
}

/// The request as the program inside sees it.
fn forwarded(
    gateway: &Gateway,
    peer: &Peer,
    strip: usize,
    authority: &Authority,
    request: Request<Incoming>,
    socket: bool,
) -> Result<Request<ReplyBody>, Problem> {
    let (mut parts, body) = request.into_parts();
    parts.uri = Uri::from(target(&parts.uri, strip)?);
    parts.version = http::Version::HTTP_11;
    headers::clean_request(&mut parts.headers, peer, authority);
    if socket {
        switching(&mut parts.headers);
    }
    let limits = &gateway.config.http;
    let body = if hyper::body::Body::is_end_stream(&body) {
        ReplyBody::empty()
    } else {
        let body = ClientBody::new(body, limits.body_bytes_max, limits.body_timeout);
        ReplyBody::stream(Watched::new(body.map_err(|fault| fault.problem())?, |_| {}))
    };
    Ok(Request::from_parts(parts, body))
}

/// Says again what was taken away as of one connection: this is still about a WebSocket.
fn switching(headers: &mut HeaderMap) {
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
}

async fn send(stream: DuplexStream, request: Request<ReplyBody>) -> Result<Response<Incoming>, Problem> {
    let broken = |error: hyper::Error| {
        tracing::debug!(%error, "a preview got no answer");
        Problem::new(StatusCode::BAD_GATEWAY, "preview_broken", "The program inside gave no whole answer.")
    };
    let mut builder = hyper::client::conn::http1::Builder::new();
    builder.max_headers(HEADERS_MAX).max_buf_size(HEADER_BYTES_MAX);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(broken)?;
    tokio::spawn(connection.with_upgrades());
    match tokio::time::timeout(ANSWER, sender.send_request(request)).await {
        Ok(answer) => answer.map_err(broken),
        Err(_) => {
            let text = "The program inside took too long.";
            Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, "preview_timeout", text))
        }
    }
}

/// One visit: holds the sandbox and the tenant's place while it lasts, and is told when it is over.
struct Visit {
    sandboxes: Arc<Sandboxes>,
    crossing: Option<Crossing>,
    began: Instant,
    bytes: u64,
    lease: Option<Lease>,
    _permit: Permit,
}

impl Visit {
    fn new(
        sandboxes: Arc<Sandboxes>,
        tenant: &Name,
        life: &Life,
        method: http::Method,
        permit: Permit,
    ) -> Self {
        let crossing = Crossing {
            tenant: tenant.shared(),
            worker: "preview".into(),
            execution: None,
            sandbox: Some(life.inside()),
            token: None,
            capability: CAPABILITY.into(),
            policy: Some(life.id().into()),
            method,
            origin: format!("sandbox://{}", life.owner().user),
            minted: None,
            redirects: 0,
            verdict: Verdict::Failed,
            request_bytes: 0,
            response_bytes: 0,
            elapsed: Duration::ZERO,
        };
        Self {
            sandboxes,
            crossing: Some(crossing),
            began: Instant::now(),
            bytes: 0,
            lease: None,
            _permit: permit,
        }
    }

    fn count(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    fn verdict(&mut self, status: StatusCode) {
        if let Some(crossing) = &mut self.crossing {
            crossing.verdict = Verdict::Answered(status.as_u16());
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let Some(mut crossing) = self.crossing.take() {
            crossing.response_bytes = self.bytes;
            crossing.elapsed = self.began.elapsed();
            self.sandboxes.witness().crossing(crossing);
        }
    }
}
