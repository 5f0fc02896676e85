//! The way out of a sandbox: an HTTP proxy on a port of its own, empty network, behind which the gateway's policy decides.
//!
//! ```text
//!  program inside ─HTTP_PROXY─▶ 127.0.0.1:3128 ═ the sandbox's socket ═▶ serve ─▶ Outlet: Channel ─▶ policy, vetted addresses
//!                  ◀── 403 with the denial's code ────────────────────────┘
//! ```
//!
//! What may pass is a property of the [`Outlet`] that the sandbox was given, never of what a program says. The proxy takes whole
//! requests (`GET http://host/path`, also with `https`), in which the policy sees methods and paths, and tunnels (`CONNECT`, see
//! [`tunnel`]), in which it does not. Two hosts are the gateway itself ([`within`]). A sandbox without an outlet has no listener at all.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use atoll_bindings::body::{BoxBody, BoxError, RequestBody};
use atoll_bindings::channel::{CallContext, Channel};
use atoll_bindings::crossing::{Denial, OfSandbox};
use atoll_bindings::seam::{CallError, Identity, InvocationId, Redirect};
use atoll_loader::limits::{HEADER_BYTES_MAX, HEADERS_MAX};
use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::DuplexStream;
use tokio::sync::watch;

use super::lives::Life;
use super::tunnel;
use super::within::{self, Rights};
use crate::config::Name;
use crate::problem::Problem;
use crate::server::Gateway;
use crate::server::body::ReplyBody;
use crate::server::linger::Lingering;

/// How long a program inside may take for the head of a request.
const HEAD: Duration = Duration::from_secs(30);
/// Code of a request while the sandbox may reach nothing.
const CODE_NONE: &str = "egress_none";

/// What a sandbox may reach, in whose name, and on whose account.
#[derive(Clone)]
pub struct Outlet {
    /// `None`: only what the rights are for.
    channel: Option<Arc<dyn Channel>>,
    rights: Arc<Rights>,
    tenant: Arc<str>,
    worker: Arc<str>,
}

impl Outlet {
    /// Through this channel and with these rights, told as of this worker or execution; `None` if there is neither.
    pub(crate) fn with(
        channel: Option<Arc<dyn Channel>>,
        rights: Rights,
        tenant: &Name,
        worker: Arc<str>,
    ) -> Option<Self> {
        let any = channel.is_some() || !rights.is_none();
        any.then(|| Self { channel, rights: Arc::new(rights), tenant: tenant.shared(), worker })
    }

    pub(super) fn channel(&self) -> Option<&Arc<dyn Channel>> {
        self.channel.as_ref()
    }

    pub(super) fn rights(&self) -> &Rights {
        &self.rights
    }

    pub(super) fn worker(&self) -> &Arc<str> {
        &self.worker
    }

    /// On whose account a request is.
    pub(super) fn context(&self) -> CallContext {
        let (tenant, worker) = (Arc::clone(&self.tenant), Arc::clone(&self.worker));
        // No invocation of a host: numbers of those begin at 1.
        CallContext::new(Identity { tenant, worker, traceparent: None }, InvocationId(0))
    }

    /// The answer to what has no way out.
    pub(super) fn nowhere(&self) -> CallError {
        CallError::Denied(format!("This sandbox may reach nothing. ({CODE_NONE})"))
    }
}

/// An outlet as it holds now.
pub(super) struct Way {
    pub(super) outlet: Outlet,
    held: watch::Receiver<()>,
}

impl Way {
    pub(super) fn new(outlet: Outlet, held: watch::Receiver<()>) -> Self {
        Self { outlet, held }
    }

    /// Waits until the sandbox has it no more.
    pub(super) async fn taken_back(&mut self) {
        // Nothing is ever sent there: its error says that the sender is gone.
        while self.held.changed().await.is_ok() {}
    }
}

impl fmt::Debug for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Outlet({}, {:?})",
            self.channel.as_ref().map_or("none", |channel| channel.name()),
            self.rights
        )
    }
}

impl PartialEq for Outlet {
    fn eq(&self, other: &Self) -> bool {
        let same = match (&self.channel, &other.channel) {
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            (own, other) => own.is_none() && other.is_none(),
        };
        same && self.rights == other.rights && self.worker == other.worker
    }
}

impl Eq for Outlet {}

/// What a program inside must know to find its way out.
pub(super) fn variables(life: &Life) -> impl Iterator<Item = (String, String)> {
    let proxy = format!("http://127.0.0.1:{}", atoll_container_bridge::limits::EGRESS_PORT);
    let names = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"];
    let proxies = names.map(|name| (name.to_owned(), proxy.clone()));
    let own = [("NO_PROXY".to_owned(), "localhost,127.0.0.1,::1".to_owned())];
    proxies.into_iter().chain(own).chain(within::variables(life))
}

/// Serves one connection of a program inside.
pub(super) async fn serve(life: Arc<Life>, gateway: Weak<Gateway>, stream: DuplexStream) {
    let tunnelled = Arc::new(AtomicBool::new(false));
    let stream = Lingering::new(stream, Arc::clone(&tunnelled));
    let service = service_fn(move |request| {
        let (life, gateway, tunnelled) = (Arc::clone(&life), Weak::clone(&gateway), Arc::clone(&tunnelled));
        async move {
            let tunnel = *request.method() == Method::CONNECT;
            let mut response = answer(&life, &gateway, request).await;
            if tunnel && response.status().is_success() {
                tunnelled.store(true, Ordering::Release);
            } else if tunnel {
                // What a program sent for the tunnel is no request.
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD);
    builder.max_headers(HEADERS_MAX).max_buf_size(HEADER_BYTES_MAX);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await {
        tracing::debug!(%error, "a sandbox's connection to its proxy ended");
    }
}

async fn answer(life: &Life, gateway: &Weak<Gateway>, request: Request<Incoming>) -> Response<ReplyBody> {
    let Some(mut way) = life.way_out() else {
        let text = "This sandbox may reach nothing.";
        return Problem::new(StatusCode::FORBIDDEN, CODE_NONE, text).response();
    };
    if request.method() == Method::CONNECT {
        return tunnel::open(life, way, request).await;
    }
    if request.uri().authority().is_none() {
        return Problem::bad_request("This is a proxy: ask it for a whole URL.").response();
    }
    let outlet = way.outlet.clone();
    let exchange = async {
        match within::Place::of(request.uri()) {
            Some(place) => within::answer(life, gateway, &outlet, place, request).await,
            None => outside(life, &outlet, request).await,
        }
    };
    let response = tokio::select! {
        response = exchange => response,
        () = way.taken_back() => return failed(outlet.nowhere()),
    };
    response.map(|body| match body {
        ReplyBody::Full(_) => body,
        ReplyBody::Stream(body) => ReplyBody::stream(Cut::new(body, way)),
    })
}

async fn outside(life: &Life, outlet: &Outlet, request: Request<Incoming>) -> Response<ReplyBody> {
    let (mut parts, body) = request.into_parts();
    // A proxy hands redirects on, and keeps what is about one connection: whoever wants another protocol takes a tunnel.
    parts.extensions.insert(Redirect::Manual);
    parts.headers.remove(UPGRADE);
    parts.extensions.insert::<OfSandbox>(life.inside());
    let body =
        if hyper::body::Body::is_end_stream(&body) { RequestBody::Empty } else { RequestBody::stream(body) };
    let Some(channel) = outlet.channel() else { return failed(outlet.nowhere()) };
    match channel.fetch(outlet.context(), Request::from_parts(parts, body)).await {
        Ok(response) => response.map(|body| match body {
            RequestBody::Empty => ReplyBody::empty(),
            RequestBody::Full(bytes) => ReplyBody::full(bytes),
            RequestBody::Stream(body) => ReplyBody::Stream(body),
        }),
        Err(error) => failed(error),
    }
}

/// An answer's body that ends with the way out through which it comes.
struct Cut {
    body: BoxBody,
    taken_back: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Cut {
    fn new(body: BoxBody, mut way: Way) -> Self {
        Self { body, taken_back: Box::pin(async move { way.taken_back().await }) }
    }
}

impl Body for Cut {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.taken_back.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err("the way out was taken back".into())));
        }
        self.body.as_mut().poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What a program reads of a failure.
pub(super) fn failed(error: CallError) -> Response<ReplyBody> {
    let problem = match error {
        CallError::Denied(text) => Problem::new(StatusCode::FORBIDDEN, denial_code(&text), text),
        CallError::Invalid(text) => Problem::bad_request(text),
        CallError::Network(text) => Problem::new(StatusCode::BAD_GATEWAY, "egress_failed", text),
    };
    problem.response()
}

/// The stable code at the end of a denial's text.
fn denial_code(text: &str) -> &'static str {
    let told = text.rsplit_once('(').map_or("", |(_, code)| code.trim_end_matches(')'));
    let mut known = Denial::ALL.iter().map(|denial| denial.code()).chain([CODE_NONE]);
    known.find(|code| *code == told).unwrap_or("egress_denied")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denials_keep_their_code() {
        for denial in Denial::ALL {
            assert_eq!(denial_code(&format!("Not allowed to reach x. ({})", denial.code())), denial.code());
        }
        assert_eq!(denial_code("no"), "egress_denied");
        assert_eq!(denial_code("(invented)"), "egress_denied");
    }
}
