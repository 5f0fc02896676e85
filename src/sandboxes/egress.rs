//! The way out of a sandbox: an HTTP proxy on a port of its own, empty network, behind which the gateway's policy decides.
//!
//! ```text
//!  program inside ─HTTP_PROXY─▶ 127.0.0.1:3128 ═ the sandbox's socket ═▶ serve ─▶ Outlet: Channel ─▶ policy, vetted addresses
//!                  ◀── 403 with the denial's code ────────────────────────┘
//! ```
//!
//! What may pass is a property of the [`Outlet`] that the sandbox was given, never of what a program says. The proxy takes whole
//! requests (`GET http://host/path`, also with `https`), because the policy knows methods and paths: a tunnel (`CONNECT`) would
//! carry what nobody here can read, so it is refused. A sandbox without an outlet has no listener at all.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use atoll_bindings::body::RequestBody;
use atoll_bindings::channel::{CallContext, Channel};
use atoll_bindings::crossing::Denial;
use atoll_bindings::seam::{CallError, Identity, InvocationId, Redirect};
use atoll_loader::limits::{HEADER_BYTES_MAX, HEADERS_MAX};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::DuplexStream;

use super::lives::Life;
use crate::config::Name;
use crate::problem::Problem;
use crate::server::body::ReplyBody;

/// How long a program inside may take for the head of a request.
const HEAD: Duration = Duration::from_secs(30);
/// Code of a request while the sandbox may reach nothing.
const CODE_NONE: &str = "egress_none";
/// Code of a request for a tunnel.
const CODE_TUNNEL: &str = "egress_connect";

/// What a sandbox may reach, and on whose account.
#[derive(Clone)]
pub struct Outlet {
    channel: Arc<dyn Channel>,
    tenant: Arc<str>,
    worker: Arc<str>,
}

impl Outlet {
    /// Through this channel, told as of this worker or execution.
    #[must_use]
    pub fn new(channel: Arc<dyn Channel>, tenant: &Name, worker: Arc<str>) -> Self {
        Self { channel, tenant: tenant.shared(), worker }
    }
}

impl fmt::Debug for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outlet({})", self.channel.name())
    }
}

impl PartialEq for Outlet {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.channel, &other.channel) && self.worker == other.worker
    }
}

impl Eq for Outlet {}

/// What a program inside must know to find its way out.
pub(super) fn variables(life: &Life) -> impl Iterator<Item = (String, String)> {
    let proxy = format!("http://127.0.0.1:{}", atoll_container_bridge::limits::EGRESS_PORT);
    let names = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"];
    let proxies = names.map(|name| (name.to_owned(), proxy.clone()));
    let own = [("NO_PROXY".to_owned(), "localhost,127.0.0.1,::1".to_owned())];
    let identity = identity(life).map(|token| ("ATOLL_IDENTITY".to_owned(), token));
    proxies.into_iter().chain(own).chain(identity)
}

/// The token with which a sandbox proves whose it is: the one place that knows tenant, user and sandbox, for whoever signs
/// identities. Nobody signs any for sandboxes yet, so there is none; a sandbox holds no other secret.
fn identity(life: &Life) -> Option<String> {
    let _bound_to = (&life.owner().tenant, &life.owner().user, life.id());
    None
}

/// Serves one connection of a program inside.
pub(super) async fn serve(life: Arc<Life>, stream: DuplexStream) {
    let service = service_fn(move |request| {
        let life = Arc::clone(&life);
        async move { Ok::<_, Infallible>(answer(&life, request).await) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD);
    builder.max_headers(HEADERS_MAX).max_buf_size(HEADER_BYTES_MAX);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a sandbox's connection to its proxy ended");
    }
}

async fn answer(life: &Life, request: Request<Incoming>) -> Response<ReplyBody> {
    let forbidden = |code, text: String| Problem::new(StatusCode::FORBIDDEN, code, text).response();
    let Some(outlet) = life.outlet() else {
        return forbidden(CODE_NONE, "This sandbox may reach nothing.".to_owned());
    };
    if request.method() == Method::CONNECT {
        let text =
            "There are no tunnels: the policy looks at whole requests. Ask for the URL itself, `https` too.";
        return forbidden(CODE_TUNNEL, text.to_owned());
    }
    if request.uri().authority().is_none() {
        return Problem::bad_request("This is a proxy: ask it for a whole URL.").response();
    }
    let (mut parts, body) = request.into_parts();
    // A proxy hands redirects on.
    parts.extensions.insert(Redirect::Manual);
    let body =
        if hyper::body::Body::is_end_stream(&body) { RequestBody::Empty } else { RequestBody::stream(body) };
    let identity = Identity { tenant: outlet.tenant, worker: outlet.worker, traceparent: None };
    let context = CallContext::new(identity, InvocationId(0));
    match outlet.channel.fetch(context, Request::from_parts(parts, body)).await {
        Ok(response) => response.map(|body| match body {
            RequestBody::Empty => ReplyBody::empty(),
            RequestBody::Full(bytes) => ReplyBody::full(bytes),
            RequestBody::Stream(body) => ReplyBody::Stream(body),
        }),
        Err(CallError::Denied(text)) => forbidden(denial_code(&text), text),
        Err(CallError::Invalid(text)) => Problem::bad_request(text).response(),
        Err(CallError::Network(text)) => {
            Problem::new(StatusCode::BAD_GATEWAY, "egress_failed", text).response()
        }
    }
}

/// The stable code at the end of a denial's text.
fn denial_code(text: &str) -> &'static str {
    let told = text.rsplit_once('(').map_or("", |(_, code)| code.trim_end_matches(')'));
    Denial::ALL.iter().map(|denial| denial.code()).find(|code| *code == told).unwrap_or("egress_denied")
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
