//! One request: checked, routed, answered.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use atoll_bindings::body::RequestBody;
use atoll_bindings::channel::ReplyMeta;
use atoll_bindings::link::{GuestBody, StartEvent, Suspicion};
use atoll_bindings::seam::{LimitKind, Outcome};
use atoll_loader::limits::{BODY_INLINE_BYTES_MAX, HEADERS_MAX, URL_BYTES_MAX};
use http::header::{CONTENT_LENGTH, EXPECT, HOST, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::sync::oneshot;

use super::body::{ClientBody, FaultCell, ReplyBody};
use super::conn::Peer;
use super::guard::{REFUSED_METHOD, verdict};
use super::{Gateway, headers, preview, socket};
use crate::admission::Kind;
use crate::dispatch::logs::WorkerLogs;
use crate::dispatch::record::{Record, Traffic};
use crate::dispatch::trace::Execution;
use crate::dispatch::{Deployment, Invocation, Unanswered, fetch};
use crate::problem::Problem;
use crate::router::{Route, host_name, route};

/// Answers one request, whatever it is.
pub(super) async fn serve(
    gateway: Arc<Gateway>,
    peer: Arc<Peer>,
    request: Request<Incoming>,
) -> Response<ReplyBody> {
    answer(&gateway, &peer, request).await.unwrap_or_else(Problem::response)
}

async fn answer(
    gateway: &Arc<Gateway>,
    peer: &Peer,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Problem> {
    let authority = check(peer, &request)?;
    let host =
        host_name(authority.as_str()).ok_or_else(|| Problem::bad_request("The Host is not a host name."))?;
    let host = lower(host);
    let path = request.uri().path();
    let (deployment, strip) = match route(&host, path, &gateway.config.base_domain) {
        Route::Worker { tenant, worker, strip } => (gateway.routes.worker(tenant, worker), strip),
        Route::Custom(host) => match gateway.routes.host(host) {
            Some(deployment) => (Some(deployment), 0),
            None => return crate::api::answer(gateway, request).await,
        },
        Route::Preview { token, strip } => {
            let token = token.to_owned();
            return preview::answer(gateway, peer, (&token, strip), &authority, request).await;
        }
        Route::Gateway => return crate::api::answer(gateway, request).await,
    };
    let deployment = deployment
        .ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "no_worker", "There is no such worker."))?;
    worker(gateway, peer, &deployment, &authority, strip, request).await
}

/// Host names are mostly lower case already.
fn lower(host: &str) -> std::borrow::Cow<'_, str> {
    if host.bytes().any(|b| b.is_ascii_uppercase()) { host.to_ascii_lowercase().into() } else { host.into() }
}

/// What holds for every request; gives the authority it is addressed to.
fn check(peer: &Peer, request: &Request<Incoming>) -> Result<Authority, Problem> {
    if let Some(reason) = peer.verdict.as_ref().filter(|_| request.method() == *REFUSED_METHOD) {
        let (status, code, detail) = verdict(reason).answer();
        return Err(Problem::new(status, code, detail));
    }
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return Err(Problem::method_not_allowed("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    }
    let uri = request.uri();
    if uri.path_and_query().map_or(0, |target| target.as_str().len()) > URL_BYTES_MAX {
        return Err(Problem::new(StatusCode::URI_TOO_LONG, "url_too_long", "The URL is too long."));
    }
    let headers = request.headers();
    if headers.len() > HEADERS_MAX {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(Problem::new(status, "too_many_headers", "There are too many headers."));
    }
    if request.version() == Version::HTTP_2 && headers.contains_key(EXPECT) {
        return Err(Problem::new(
            StatusCode::EXPECTATION_FAILED,
            "expectation",
            "Nothing can be expected here.",
        ));
    }
    authority(uri, headers)
}

/// The authority of the URL and the Host header must not contradict each other.
fn authority(uri: &Uri, headers: &HeaderMap) -> Result<Authority, Problem> {
    let bad = || Problem::bad_request("A request needs exactly one valid Host.");
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().map(|host| host.to_str().map_err(|_| bad())).transpose()?;
    if hosts.next().is_some() {
        return Err(bad());
    }
    match (uri.authority(), host) {
        (Some(authority), _) if authority.as_str().contains('@') => Err(bad()),
        (Some(authority), Some(host)) if !authority.as_str().eq_ignore_ascii_case(host) => Err(bad()),
        (Some(authority), _) => Ok(authority.clone()),
        (None, Some(host)) => host.parse().map_err(|_| bad()),
        // HTTP/1.0 may go without.
        (None, None) => Ok(Authority::from_static("localhost")),
    }
}

async fn worker(
    gateway: &Arc<Gateway>,
    peer: &Peer,
    deployment: &Arc<Deployment>,
    authority: &Authority,
    strip: usize,
    mut request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Problem> {
    let offer = socket::offer(peer, deployment, &request)?;
    let permit = gateway.admit(&deployment.tenant, Kind::Warm)?;
    let mut trace = gateway.observer.begin(request.headers());
    trace.execution = Some(Execution::new(super::execution_id()));
    let record = Record::new(
        gateway.observer.clone(),
        deployment.tenant.shared(),
        deployment.worker.shared(),
        "fetch",
        trace.parent.clone(),
        permit,
    )
    .of(&trace);
    let traffic = record.traffic();
    let head_only = request.method() == Method::HEAD;
    let offer = offer.map(|offer| (offer, hyper::upgrade::on(&mut request)));
    let (mut request, fault) = guest_request(gateway, peer, authority, strip, request, &traffic).await?;
    let mut waiting = None;
    if let Some((offer, upgrade)) = offer {
        let (asking, handshake) = socket::ask(offer, upgrade, request);
        (request, waiting) = (asking, Some(handshake));
    }
    trace.replace(request.headers_mut());
    let start = deployment.start(StartEvent::Fetch(request), &trace);
    let sink = WorkerLogs {
        tenant: deployment.tenant.shared(),
        worker: deployment.worker.shared(),
        trace,
        ring: deployment.logs.clone(),
        observer: gateway.observer.clone(),
    };
    let failed = |end: &Unanswered| match fault.get() {
        Some(fault) => fault.problem(),
        None => outcome_problem(&end.ended.outcome, end.suspicion, gateway.config.dev),
    };
    let invocation = Invocation::start(&*gateway.isolates, start, sink, record)
        .await
        .map_err(|ended| failed(&Unanswered::from(*ended)))?;
    let (response, invocation) = fetch(invocation).await.map_err(|end| failed(&end))?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return socket::open(gateway, peer, response, invocation, waiting, &traffic);
    }
    Ok(client_response(response, invocation, head_only, traffic))
}

/// What the other side is asked for: the path without its first `strip` bytes, and the query.
pub(super) fn target(uri: &Uri, strip: usize) -> Result<PathAndQuery, Problem> {
    let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let target = target.get(strip..).unwrap_or_default();
    let target = if target.starts_with('/') { target.parse() } else { format!("/{target}").parse() };
    target.map_err(|_| Problem::bad_request("The URL is malformed."))
}

/// The request as the guest sees it, and where a fault of its body will be seen.
async fn guest_request(
    gateway: &Gateway,
    peer: &Peer,
    authority: &Authority,
    strip: usize,
    request: Request<Incoming>,
    traffic: &Arc<Traffic>,
) -> Result<(Request<RequestBody>, FaultCell), Problem> {
    let (mut parts, body) = request.into_parts();
    let mut uri = http::uri::Parts::default();
    let scheme = if peer.scheme == "https" { Scheme::HTTPS } else { Scheme::HTTP };
    uri.scheme = Some(scheme);
    uri.authority = Some(authority.clone());
    uri.path_and_query = Some(target(&parts.uri, strip)?);
    parts.uri = Uri::from_parts(uri).map_err(|_| Problem::bad_request("The URL is malformed."))?;
    headers::clean_request(&mut parts.headers, peer, authority);
    let limits = &gateway.config.http;
    if body.is_end_stream() {
        // A declared length of zero is a body too, but an empty one: nothing to send.
        return Ok((Request::from_parts(parts, RequestBody::Empty), FaultCell::default()));
    }
    let body =
        ClientBody::new(body, limits.body_bytes_max, limits.body_timeout).map_err(|fault| fault.problem())?;
    let fault = body.fault();
    let small = body.size_hint().exact().is_some_and(|bytes| bytes <= BODY_INLINE_BYTES_MAX as u64);
    let body = if small {
        let bytes = body.collect().await.map_err(|fault| fault.problem())?;
        traffic.request_bytes.store(bytes.len() as u64, Relaxed);
        RequestBody::Full(bytes)
    } else {
        RequestBody::stream(body.counted(traffic.clone()))
    };
    Ok((Request::from_parts(parts, body), fault))
}

/// The guest's response as the client sees it; the invocation goes on until its end.
fn client_response(
    response: Response<GuestBody>,
    invocation: Invocation<WorkerLogs>,
    head_only: bool,
    traffic: Arc<Traffic>,
) -> Response<ReplyBody> {
    let (mut parts, body) = response.into_parts();
    let length = body.size_hint().exact();
    headers::clean_response(&mut parts.headers);
    if let Some(meta) = parts.extensions.remove::<ReplyMeta>().filter(|meta| !meta.status_text.is_empty())
        && let Ok(reason) = hyper::ext::ReasonPhrase::try_from(meta.status_text.into_bytes())
    {
        parts.extensions.insert(reason);
    }
    let bodiless = head_only
        || matches!(
            parts.status,
            StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
        );
    if bodiless {
        let declared = parts.headers.get(CONTENT_LENGTH).cloned().filter(|_| length == Some(0));
        let declared = declared.or_else(|| length.filter(|_| head_only).map(HeaderValue::from));
        parts.headers.remove(CONTENT_LENGTH);
        if let Some(declared) = declared.filter(|_| parts.status != StatusCode::NO_CONTENT) {
            parts.headers.insert(CONTENT_LENGTH, declared);
        }
        invocation.finish_in_background(None);
        return Response::from_parts(parts, ReplyBody::empty());
    }
    // The framing is ours: the body knows its length, or is sent in chunks.
    parts.headers.remove(CONTENT_LENGTH);
    if body.is_end_stream() {
        invocation.finish_in_background(None);
        return Response::from_parts(parts, ReplyBody::empty());
    }
    // What is there already is sent in one piece, and may outlive the record.
    if let Some(length) = length {
        traffic.response_bytes.store(length, Relaxed);
    }
    let (done, cancel) = oneshot::channel();
    invocation.finish_in_background(Some(cancel));
    Response::from_parts(parts, ReplyBody::stream(Tied { body, done: Some(done), traffic }))
}

/// A guest's body; dropped before its end, it cancels the invocation behind it.
struct Tied {
    body: GuestBody,
    done: Option<oneshot::Sender<()>>,
    traffic: Arc<Traffic>,
}

impl http_body::Body for Tied {
    type Data = bytes::Bytes;
    type Error = super::body::BoxError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        let known = self.body.size_hint().exact().is_some();
        let frame = std::task::ready!(std::pin::Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let (Some(bytes), false) = (frame.data_ref(), known)
        {
            self.traffic.response_bytes.fetch_add(bytes.len() as u64, Relaxed);
        }
        let over = !matches!(&frame, Some(Ok(_))) || self.body.is_end_stream();
        if over && let Some(done) = self.done.take() {
            let _ = done.send(());
        }
        std::task::Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// What a client is told when a worker gave no answer.
fn outcome_problem(outcome: &Outcome, suspicion: Option<Suspicion>, dev: bool) -> Problem {
    let code = outcome.code();
    match outcome {
        Outcome::GuestError(error) => {
            let problem =
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, code, "The worker threw an exception.");
            if !dev {
                return problem;
            }
            let problem = problem.with("name", error.name.as_str()).with("message", error.message.as_str());
            match &error.stack {
                Some(stack) => problem.with("stack", stack.as_str()),
                None => problem,
            }
        }
        Outcome::Limit(kind) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, limit_text(*kind)),
        Outcome::Refused(reason) => {
            let detail = if dev {
                format!("The worker did not start: {reason}")
            } else {
                "The worker did not start.".into()
            };
            Problem::unprocessable(code, detail)
        }
        Outcome::Hung => Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            code,
            "The worker waits for something that can never happen.",
        ),
        Outcome::Canceled => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, "The request was cancelled.")
        }
        Outcome::Done => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "no_answer", "The worker gave no answer.")
        }
        Outcome::HostFault(reason) => {
            tracing::debug!(%reason, "an isolate host was lost with this request inside");
            host_fault(suspicion)
        }
    }
}

/// What a client is told when the isolate host failed: only what concerns its own tenant, nobody else's name.
pub(crate) fn host_fault(suspicion: Option<Suspicion>) -> Problem {
    let problem = |detail| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "host_fault", detail);
    match suspicion {
        Some(Suspicion::Condemned) => problem(
            "This code would not stop when it was told to, and its isolate host was replaced. Trying again will not help.",
        )
        .with("blame", "tenant"),
        Some(Suspicion::Alone) => problem(
            "The isolate host failed while it ran nothing but this tenant's code. Trying again may not help.",
        )
        .with("blame", "tenant")
        .retry_after(1),
        Some(Suspicion::AmongOthers) | None => {
            problem("The isolate host failed while it ran this code. Try again.")
                .with("blame", "unknown")
                .retry_after(1)
        }
    }
}

/// What a client is told about a limit.
pub(crate) fn limit_text(kind: LimitKind) -> &'static str {
    match kind {
        LimitKind::Cpu => "Worker exceeded CPU time limit.",
        LimitKind::Wall => "Worker exceeded wall time limit.",
        LimitKind::Heap | LimitKind::External => "Worker exceeded memory limit.",
        LimitKind::ResponseBytes => "Worker exceeded response size limit.",
    }
}
