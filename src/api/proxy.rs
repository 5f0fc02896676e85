//! `/v1/proxy/{name}/…`: a secret proxy for containers and callers outside, with the same rule as the binding's.
//!
//! ```text
//!  client ─▶ token: this proxy, now, not revoked ─▶ place in admission ─▶ https://origin/… ─▶ SecretProxy ─▶ client
//! ```
//!
//! The token is checked before anything else is looked at. It is taken out with all other credentials of the request; the rest of
//! the path goes to the proxy's one origin. Bodies flow both ways as they come: a slow end slows the other.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use atoll_bindings::body::{BoxError, RequestBody};
use atoll_bindings::channel::{CallContext, Channel as _};
use atoll_bindings::crossing::OfSandbox;
use atoll_bindings::egress::is_plain;
use atoll_bindings::seam::{CallError, Identity, InvocationId, Redirect};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use url::Url;

use super::auth::bearer;
use super::identity::busy;
use crate::access::identity::{Bearer, Rejected};
use crate::admission::{Kind, Permit};
use crate::config::Name;
use crate::observe::AccessEvent;
use crate::problem::Problem;
use crate::server::Gateway;
use crate::server::body::{ClientBody, ReplyBody};

/// Longest wait for the head of an upstream's answer, in seconds. Guests have their wall time; callers here have this.
const ANSWER_SECONDS_MAX: u64 = 600;
/// What an upstream may not say in the name of the gateway's own origin.
const NOT_OURS: [HeaderName; 6] = [
    http::header::STRICT_TRANSPORT_SECURITY,
    HeaderName::from_static("clear-site-data"),
    HeaderName::from_static("service-worker-allowed"),
    HeaderName::from_static("nel"),
    HeaderName::from_static("report-to"),
    HeaderName::from_static("reporting-endpoints"),
];

/// Answers a request to a proxy.
pub(super) async fn answer(
    gateway: &Arc<Gateway>,
    name: &str,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Problem> {
    let target = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let target = target.get("/v1/proxy/".len() + name.len()..).unwrap_or_default();
    let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
    let bearer = admit(gateway, name, &target, &request).await?;
    let tenant = Name::parse(&bearer.tenant).ok_or_else(Problem::unauthorized)?;
    let asker = Asker { tenant, worker: bearer.sub.into(), sandbox: bearer.sandbox };
    forward(gateway, asker, name, &target, request).await
}

/// Who uses a proxy, and may.
pub(crate) struct Asker {
    pub(crate) tenant: Name,
    /// As whom it is told.
    pub(crate) worker: Arc<str>,
    pub(crate) sandbox: Option<OfSandbox>,
}

/// Sends a request on to a proxy's origin; `target` is what the origin will see as its path and query.
pub(crate) async fn forward(
    gateway: &Arc<Gateway>,
    Asker { tenant, worker, sandbox }: Asker,
    name: &str,
    target: &str,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Problem> {
    let live = gateway.access.proxies.find(tenant.as_str(), name);
    let live =
        live.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "no_proxy", "There is no such proxy."))?;
    let permit = gateway.admit(&tenant, Kind::Warm)?;
    let head_only = request.method() == Method::HEAD;
    let trace = gateway.observer.begin(request.headers());
    let (mut parts, body) = request.into_parts();
    let uri: Result<Uri, _> = format!("{}{target}", live.base).parse();
    parts.uri = uri.map_err(|_| Problem::bad_request("The URL is malformed."))?;
    trace.replace(&mut parts.headers);
    parts.extensions = http::Extensions::new();
    parts.extensions.insert(Redirect::Manual);
    if let Some(sandbox) = sandbox {
        parts.extensions.insert::<OfSandbox>(sandbox);
    }
    let limits = &gateway.config.http;
    let body = match body.is_end_stream() {
        true => RequestBody::Empty,
        false => {
            let body = ClientBody::new(body, limits.body_bytes_max, limits.body_timeout);
            RequestBody::stream(body.map_err(|fault| fault.problem())?)
        }
    };
    let traceparent = trace.parent.as_deref().map(str::to_owned);
    let identity = Identity { tenant: tenant.shared(), worker, traceparent };
    // No invocation of a host: numbers of those begin at 1.
    let context = CallContext::new(identity, InvocationId(0));
    let answer = live.channel.fetch(context, Request::from_parts(parts, body));
    let limit = Duration::from_secs(ANSWER_SECONDS_MAX);
    let answer = tokio::time::timeout(limit, answer).await.map_err(|_| {
        Problem::new(StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", "The upstream does not answer.")
    })?;
    Ok(to_client(answer.map_err(problem)?, permit, head_only))
}

async fn admit(
    gateway: &Gateway,
    name: &str,
    target: &str,
    request: &Request<Incoming>,
) -> Result<Bearer, Problem> {
    let refused = |tenant: &str, detail| {
        let what = "proxy";
        let event = AccessEvent { tenant, actor: "", what, name: "", action: "refuse", detail };
        gateway.access.tell(&event);
    };
    let token = bearer(request.headers()).and_then(|token| std::str::from_utf8(token).ok());
    let Some(token) = token.filter(|_| Name::parse(name).is_some()) else {
        refused("", "no token");
        return Err(Problem::unauthorized());
    };
    // As the proxy will read it: `/a/../b` is `/b`. The host does not matter here.
    let url = Url::parse(&format!("https://proxy.invalid{target}")).ok();
    let path = url.as_ref().map(Url::path).filter(|path| is_plain(path));
    match gateway.access.issuer.admit(token, name, request.method().as_str(), path).await {
        // What a sandbox got is good for as long as it lives and may use the proxy.
        Ok(Bearer { tenant, sandbox: Some(OfSandbox { user, id }), .. })
            if !gateway.sandboxes.as_ref().is_some_and(|all| all.may_use(&tenant, &user, &id, name)) =>
        {
            refused(&tenant, "the sandbox is over, or may not");
            Err(Problem::unauthorized())
        }
        Ok(bearer) => Ok(bearer),
        Err(Rejected::Busy) => Err(busy()),
        Err(Rejected::Invalid) => {
            refused("", "invalid token");
            Err(Problem::unauthorized())
        }
        Err(Rejected::Refused) => {
            refused("", "token does not allow it");
            Err(Problem::forbidden("The token does not allow this."))
        }
    }
}

/// What went wrong, as a client sees it: denials by their code, everything behind the rule alike.
fn problem(error: CallError) -> Problem {
    match error {
        CallError::Denied(text) => {
            let code = text.rsplit_once('(').map_or("", |(_, code)| code.trim_end_matches(')')).to_owned();
            let problem = match code.as_str() {
                "egress_rate" | "egress_concurrency" => {
                    Problem::new(StatusCode::TOO_MANY_REQUESTS, "proxy_denied", text).retry_after(1)
                }
                "egress_request_bytes" => Problem::too_large(text),
                "egress_unreadable" => Problem::new(StatusCode::BAD_GATEWAY, "proxy_denied", text),
                _ => Problem::new(StatusCode::FORBIDDEN, "proxy_denied", text),
            };
            problem.with("denial", code)
        }
        CallError::Invalid(text) => Problem::bad_request(text),
        _ => Problem::new(StatusCode::BAD_GATEWAY, "upstream_failed", "The upstream failed."),
    }
}

fn to_client(response: Response<RequestBody>, permit: Permit, head_only: bool) -> Response<ReplyBody> {
    let (mut parts, body) = response.into_parts();
    parts.extensions = http::Extensions::new();
    parts.headers.remove(CONTENT_LENGTH);
    for name in NOT_OURS {
        parts.headers.remove(name);
    }
    // A page of an upstream must not be one of ours.
    parts.headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    let bodiless = head_only || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let body = if bodiless { ReplyBody::empty() } else { ReplyBody::stream(Held { body, _permit: permit }) };
    Response::from_parts(parts, body)
}

/// A body that keeps its place in admission until it is over.
struct Held {
    body: RequestBody,
    _permit: Permit,
}

impl Body for Held {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
