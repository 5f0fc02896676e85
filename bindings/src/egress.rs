//! `fetch()` to the outside world, as a capability: only to origins on its list, only over addresses that were vetted.
//!
//! ```text
//!  request ─▶ list of origins ─▶ resolve ─▶ vet every address ─▶ dial a vetted one ─▶ TLS for the host in the URL
//!     ▲                                                                                     │
//!     └──────────────── redirect: the same checks again, credentials dropped ◀──────────────┘
//! ```
//!
//! Deny by default: an empty list reaches nothing. Each [`Egress`] has its own connections, so two tenants never share one.

mod address;
mod connect;
mod hosts;
mod redirect;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use atoll_loader::limits::{HEADER_BYTES_MAX, HEADERS_MAX};
use http::header::{self, HeaderMap, HeaderName};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use url::Url;

pub use address::{BadPrivateAllow, PrivateAllow, is_public};
pub use hosts::{BadPattern, HostPattern, PATTERNS_MAX};

use connect::{ConnectError, Connector};
use hosts::Scheme;
use redirect::Hops;

use crate::body::{ReplyBody, RequestBody};
use crate::channel::{CallContext, CallFuture, Channel, ReplyMeta};
use crate::seam::{CallError, Redirect};

/// Idle connections kept per origin.
const IDLE_PER_HOST_MAX: usize = 4;
/// How long an idle connection is kept, in milliseconds.
const IDLE_MS_MAX: u64 = 30_000;

/// Header fields that belong to one connection, or that only the gateway may set.
const NOT_FROM_GUESTS: [HeaderName; 9] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::HOST,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
const HOP_BY_HOP_NAMES: [&str; 2] = ["keep-alive", "proxy-connection"];

/// How the gateway reaches the outside: shared by every [`Egress`].
#[derive(Clone, Debug)]
pub struct EgressNet {
    tls: rustls::ClientConfig,
    allow_private: Arc<[PrivateAllow]>,
}

/// The TLS set-up failed.
#[derive(Debug, thiserror::Error)]
#[error("TLS: {0}")]
pub struct EgressSetupError(#[from] rustls::Error);

impl EgressNet {
    /// With the roots of the web, `extra_roots` besides them, and the operator's exceptions for addresses.
    pub fn new(
        allow_private: impl Into<Arc<[PrivateAllow]>>,
        extra_roots: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<Self, EgressSetupError> {
        let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        for root in extra_roots {
            roots.add(root)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls, allow_private: allow_private.into() })
    }
}

type HttpClient = Client<HttpsConnector<Connector>, RequestBody>;

/// The capability.
#[derive(Clone)]
pub struct Egress {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    hosts: Vec<HostPattern>,
    client: HttpClient,
}

impl Egress {
    /// Reaches the origins of `hosts`. `name` is for logs.
    #[must_use]
    pub fn new(net: &EgressNet, hosts: Vec<HostPattern>, name: impl Into<String>) -> Self {
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(net.tls.clone())
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(Connector::new(Arc::clone(&net.allow_private)));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_millis(IDLE_MS_MAX))
            .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
            .http1_max_headers(HEADERS_MAX)
            .http1_max_buf_size(HEADER_BYTES_MAX)
            .http2_max_header_list_size(HEADER_BYTES_MAX as u32)
            .build(connector);
        Self { inner: Arc::new(Inner { name: name.into(), hosts, client }) }
    }
}

impl Channel for Egress {
    fn fetch(&self, _context: CallContext, request: Request<RequestBody>) -> CallFuture {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move { inner.fetch(request).await })
    }

    fn name(&self) -> &str {
        &self.inner.name
    }
}

impl Inner {
    async fn fetch(&self, request: Request<RequestBody>) -> Result<Response<ReplyBody>, CallError> {
        let mode = request.extensions().get::<Redirect>().copied().unwrap_or_default();
        let (mut hops, body) = Hops::new(request)?;
        let mut body = Some(body);
        loop {
            self.check(&hops.url)?;
            let sent = hops.request(body.take())?;
            let response = self.client.request(sent).await.map_err(|error| explain(&error))?;
            check_headers(response.headers())?;
            if mode == Redirect::Manual || !hops.is_redirect(&response) {
                return Ok(reply(response, &hops));
            }
            if mode == Redirect::Error {
                return Err(CallError::Network("unexpected redirect".to_owned()));
            }
            body = Some(hops.follow(response)?);
        }
    }

    /// Whether the list names the URL's origin.
    fn check(&self, url: &Url) -> Result<(), CallError> {
        let refused = || CallError::Denied(format!("Not allowed to reach {}.", origin(url)));
        let scheme = Scheme::of(url.scheme()).ok_or_else(refused)?;
        let host = url.host_str().ok_or_else(refused)?;
        let host = host.strip_suffix('.').unwrap_or(host);
        let port = url.port().unwrap_or(scheme.port());
        if self.hosts.iter().any(|pattern| pattern.covers(scheme, host, port)) {
            Ok(())
        } else {
            Err(refused())
        }
    }
}

fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

fn reply(response: Response<Incoming>, hops: &Hops) -> Response<ReplyBody> {
    let (mut parts, body) = response.into_parts();
    remove_hop_by_hop(&mut parts.headers);
    let reason = parts.extensions.remove::<hyper::ext::ReasonPhrase>();
    let status_text = reason.and_then(|reason| String::from_utf8(reason.as_bytes().to_vec()).ok());
    parts.extensions.insert(ReplyMeta {
        url: hops.url.to_string(),
        redirected: hops.followed > 0,
        status_text: status_text.unwrap_or_default(),
    });
    Response::from_parts(parts, RequestBody::stream(body))
}

fn check_headers(headers: &HeaderMap) -> Result<(), CallError> {
    let bytes = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>();
    if headers.len() > HEADERS_MAX || bytes > HEADER_BYTES_MAX {
        return Err(CallError::Network("the response's headers are too large".to_owned()));
    }
    Ok(())
}

/// Removes what belongs to one connection: the fixed names, and those that `connection` names.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let mut named = Vec::new();
    for value in headers.get_all(header::CONNECTION) {
        let tokens = value.to_str().unwrap_or_default().split(',');
        named.extend(tokens.filter_map(|token| token.trim().parse::<HeaderName>().ok()));
    }
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP_NAMES {
        headers.remove(name);
    }
    for name in [header::CONNECTION, header::TE, header::TRAILER, header::TRANSFER_ENCODING, header::UPGRADE]
    {
        headers.remove(name);
    }
}

/// Removes what a guest may not say to the outside.
fn remove_gateway_headers(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    for name in NOT_FROM_GUESTS {
        headers.remove(name);
    }
}

/// What a guest learns of a failure: its kind, never an address.
fn explain(error: &hyper_util::client::legacy::Error) -> CallError {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(link) = cause {
        if let Some(connect) = link.downcast_ref::<ConnectError>() {
            return match connect {
                ConnectError::Denied => CallError::Denied(connect.to_string()),
                _ => CallError::Network(connect.to_string()),
            };
        }
        if link.is::<rustls::Error>() {
            return CallError::Network(format!("TLS: {link}"));
        }
        // An I/O error may carry either as its inner error, which `source` skips.
        if let Some(inner) = link.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref)
            && let Some(tls) = inner.downcast_ref::<rustls::Error>()
        {
            return CallError::Network(format!("TLS: {tls}"));
        }
        cause = link.source();
    }
    let text = if error.is_connect() { "the connection failed" } else { "the exchange failed" };
    CallError::Network(text.to_owned())
}
