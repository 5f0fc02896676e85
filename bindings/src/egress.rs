//! `fetch()` to the outside world, as a capability: only to origins on its list, only over addresses that were vetted.
//!
//! ```text
//!  request ─▶ list of origins ─▶ resolve ─▶ vet every address ─▶ dial a vetted one ─▶ TLS for the host in the URL
//!     ▲                                                                                     │
//!     └──────────────── redirect: the same checks again, credentials dropped ◀──────────────┘
//! ```
//!
//! Deny by default: an empty list reaches nothing. Each [`Egress`] has its own connections, so two tenants, two policies or
//! two credentials never share one. Answers in a content coding are decoded ([`decode`]); each use is told to a
//! [`Witness`] when it is over.

mod address;
mod connect;
pub(crate) mod decode;
mod gate;
pub mod hello;
mod hosts;
pub(crate) mod meter;
mod path;
mod policy;
mod redirect;
mod resolve;
mod socket;
mod tcp;
mod tunnel;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use atoll_loader::limits::{HEADER_BYTES_MAX, HEADERS_MAX};
use http::header::{self, HeaderMap, HeaderName};
use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use url::Url;

pub use address::{BadPrivateAllow, PrivateAllow, is_public};
pub use decode::{RATIO_FREE_BYTES, RATIO_MAX};
pub(crate) use gate::Slot;
pub use gate::{Caps, Gate};
pub use hosts::{BadPattern, HostPattern, PATTERNS_MAX};
pub use path::{BadPrefix, PathPrefix, is_plain};
pub use policy::{Policy, Rule};
pub use resolve::{Resolver, ResolverSetupError};
pub use tunnel::{Hold, Terms, Tunnel, TunnelRules};

use connect::{ConnectError, Connector};
use meter::{OverCap, Received, Sent};
use redirect::Hops;

use crate::body::{ReplyBody, RequestBody};
use crate::channel::{CallContext, CallFuture, Channel, ReplyMeta};
use crate::crossing::{Denial, Telling, Unwitnessed, Verdict, Witness, origin};
use crate::seam::{CallError, Redirect};
use crate::socket::handshake::is_wanted;

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
#[derive(Clone)]
pub struct EgressNet {
    tls: rustls::ClientConfig,
    connector: Connector,
    witness: Arc<dyn Witness>,
}

/// What one [`Egress`] may reach, and how much.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Every one of these must allow a request: the operator's class, and what the deployment asked for.
    pub policies: Vec<Policy>,
    /// The class's name, for the audit trail.
    pub class: Option<Arc<str>>,
    /// Rates and caps, shared by all that the tenant runs under this class.
    pub gate: Arc<Gate>,
    /// Where tunnels of sandboxes may go, and for how long.
    pub tunnels: Arc<TunnelRules>,
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
        let connector = Connector {
            allow_private: allow_private.into(),
            deny: Arc::default(),
            resolver: Resolver::system(),
        };
        Ok(Self { tls, connector, witness: Arc::new(Unwitnessed) })
    }

    /// With another resolver.
    #[must_use]
    pub fn with_resolver(mut self, resolver: Resolver) -> Self {
        self.connector.resolver = resolver;
        self
    }

    /// Never to these addresses, public or excepted: what the machine's own routes do not tell, such as the address under
    /// which the world sees a gateway behind NAT.
    #[must_use]
    pub fn with_denied(mut self, deny: impl Into<Arc<[PrivateAllow]>>) -> Self {
        self.connector.deny = deny.into();
        self
    }

    /// Tells crossings to this witness.
    #[must_use]
    pub fn with_witness(mut self, witness: Arc<dyn Witness>) -> Self {
        self.witness = witness;
        self
    }

    /// Connections of its own, over the same roots and the same rules for addresses.
    pub(crate) fn client(&self) -> HttpClient {
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(self.tls.clone())
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(self.connector.clone());
        Self::over(connector)
    }

    /// The same for WebSockets, which only HTTP/1.1 can open.
    fn socket_client(&self) -> HttpClient {
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(self.tls.clone())
            .https_or_http()
            .enable_http1()
            .wrap_connector(self.connector.clone());
        Self::over(connector)
    }

    fn over(connector: HttpsConnector<Connector>) -> HttpClient {
        Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_millis(IDLE_MS_MAX))
            .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
            .http1_max_headers(HEADERS_MAX)
            .http1_max_buf_size(HEADER_BYTES_MAX)
            .http2_max_header_list_size(HEADER_BYTES_MAX as u32)
            .build(connector)
    }

    pub(crate) fn witness(&self) -> Arc<dyn Witness> {
        Arc::clone(&self.witness)
    }
}

pub(crate) type HttpClient = Client<HttpsConnector<Connector>, RequestBody>;

/// The capability.
#[derive(Clone)]
pub struct Egress {
    inner: Arc<Inner>,
}

struct Inner {
    name: Arc<str>,
    grant: Grant,
    client: HttpClient,
    /// For WebSockets.
    sockets: HttpClient,
    /// For connections.
    net: EgressNet,
    witness: Arc<dyn Witness>,
}

impl Egress {
    /// Reaches the origins of `hosts`, without a class. `name` is for logs.
    #[must_use]
    pub fn new(net: &EgressNet, hosts: Vec<HostPattern>, name: impl Into<Arc<str>>) -> Self {
        let gate = Arc::new(Gate::new(Caps::default()));
        Self::granted(
            net,
            Grant { policies: vec![Policy::of(hosts)], class: None, gate, tunnels: Arc::default() },
            name,
        )
    }

    /// Reaches what the grant allows.
    #[must_use]
    pub fn granted(net: &EgressNet, grant: Grant, name: impl Into<Arc<str>>) -> Self {
        let (client, sockets, witness) = (net.client(), net.socket_client(), net.witness());
        let net = net.clone();
        Self { inner: Arc::new(Inner { name: name.into(), grant, client, sockets, net, witness }) }
    }
}

impl Channel for Egress {
    fn fetch(&self, context: CallContext, request: Request<RequestBody>) -> CallFuture {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move {
            let class = inner.grant.class.clone();
            let mut telling =
                Telling::new(Arc::clone(&inner.witness), &context, &request, &inner.name, class);
            if is_wanted(request.method(), request.headers()) {
                return inner.socket(request, telling).await.map_err(CallError::from);
            }
            if *request.method() == Method::CONNECT {
                return inner.connect(request, telling).await.map_err(CallError::from);
            }
            match inner.fetch(request, &mut telling).await {
                Ok((response, hops, slot)) => {
                    telling.verdict(Verdict::Answered(response.status().as_u16()));
                    Ok(inner.reply(response, &hops, telling, slot))
                }
                Err(refusal) => {
                    telling.verdict(refusal.verdict());
                    Err(refusal.into())
                }
            }
        })
    }

    fn takes_sockets(&self) -> bool {
        true
    }

    fn takes_connections(&self) -> bool {
        true
    }

    fn name(&self) -> &str {
        &self.inner.name
    }
}

/// Why a request went nowhere.
#[derive(Debug)]
pub(crate) enum Refusal {
    Denied(Denial, String),
    Failed(CallError),
}

impl Refusal {
    pub(crate) fn denied(denial: Denial, url: &Url) -> Self {
        Self::Denied(denial, format!("Not allowed to reach {}.", origin(url)))
    }

    pub(crate) fn verdict(&self) -> Verdict {
        match self {
            Self::Denied(denial, _) => Verdict::Denied(*denial),
            Self::Failed(_) => Verdict::Failed,
        }
    }
}

impl From<CallError> for Refusal {
    fn from(error: CallError) -> Self {
        Self::Failed(error)
    }
}

impl From<Refusal> for CallError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Denied(denial, text) => Self::Denied(format!("{text} ({})", denial.code())),
            Refusal::Failed(error) => error,
        }
    }
}

impl Inner {
    async fn fetch(
        &self,
        request: Request<RequestBody>,
        telling: &mut Telling,
    ) -> Result<(Response<Incoming>, Hops, gate::Slot), Refusal> {
        let mode = request.extensions().get::<Redirect>().copied().unwrap_or_default();
        let (mut hops, body) = Hops::new(request)?;
        telling.hop(&hops.url, 0);
        if !telling.ready() {
            return Err(Refusal::Denied(Denial::Audit, "The audit log takes no records.".to_owned()));
        }
        self.check(&hops)?;
        let denied = |denial| Refusal::denied(denial, &hops.url);
        let slot = self.grant.gate.enter().map_err(denied)?;
        let max = self.grant.gate.caps().request_bytes_max;
        let mut body = Some(Sent::wrap(body, &telling.sent, max).map_err(denied)?);
        loop {
            let sent = hops.request(body.take())?;
            let response = self.client.request(sent).await.map_err(|error| explain(&error, &hops.url))?;
            check_headers(response.headers())?;
            if mode == Redirect::Manual || !hops.is_redirect(&response) {
                return Ok((response, hops, slot));
            }
            if mode == Redirect::Error {
                return Err(CallError::Network("unexpected redirect".to_owned()).into());
            }
            let again = hops.follow(response)?;
            telling.hop(&hops.url, hops.followed);
            self.check(&hops)?;
            body = Some(
                Sent::wrap(again, &telling.sent, max).map_err(|denial| Refusal::denied(denial, &hops.url))?,
            );
        }
    }

    /// Whether every policy allows the hop.
    fn check(&self, hops: &Hops) -> Result<(), Refusal> {
        let no = |denial| Refusal::denied(denial, &hops.url);
        if self.grant.policies.is_empty() {
            return Err(no(Denial::Origin));
        }
        self.grant.policies.iter().try_for_each(|policy| policy.check(hops.method(), &hops.url)).map_err(no)
    }

    fn reply(
        &self,
        response: Response<Incoming>,
        hops: &Hops,
        telling: Telling,
        slot: gate::Slot,
    ) -> Response<ReplyBody> {
        let (mut parts, body) = response.into_parts();
        remove_hop_by_hop(&mut parts.headers);
        let reason = parts.extensions.remove::<hyper::ext::ReasonPhrase>();
        let status_text = reason.map(|reason| String::from_utf8_lossy(reason.as_bytes()).into_owned());
        parts.extensions.insert(ReplyMeta {
            url: hops.url.to_string(),
            redirected: hops.followed > 0,
            status_text: status_text.unwrap_or_default(),
        });
        let body = if *hops.method() == http::Method::HEAD {
            RequestBody::Empty
        } else {
            // A coding that nobody here knows is the guest's to understand.
            decode::decode(&mut parts.headers, RequestBody::stream(body)).unwrap_or_else(|(_, body)| body)
        };
        let max = self.grant.gate.caps().response_bytes_max.unwrap_or(u64::MAX);
        let body = Received::wrap(body, max, telling, slot);
        Response::from_parts(parts, body)
    }
}

pub(crate) fn check_headers(headers: &HeaderMap) -> Result<(), CallError> {
    let bytes = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>();
    if headers.len() > HEADERS_MAX || bytes > HEADER_BYTES_MAX {
        return Err(CallError::Network("the response's headers are too large".to_owned()));
    }
    Ok(())
}

/// Removes what belongs to one connection: the fixed names, and those that `connection` names.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
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
pub(crate) fn remove_gateway_headers(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    for name in NOT_FROM_GUESTS {
        headers.remove(name);
    }
}

/// What a guest learns of a failure: its kind, never an address.
pub(crate) fn explain(error: &hyper_util::client::legacy::Error, url: &Url) -> Refusal {
    let network = |text: String| Refusal::Failed(CallError::Network(text));
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(link) = cause {
        if let Some(connect) = link.downcast_ref::<ConnectError>() {
            return match connect {
                ConnectError::Denied => Refusal::denied(Denial::Address, url),
                _ => network(connect.to_string()),
            };
        }
        if let Some(over) = link.downcast_ref::<OverCap>() {
            return Refusal::denied(over.0, url);
        }
        if link.is::<rustls::Error>() {
            return network(format!("TLS: {link}"));
        }
        // An I/O error may carry any of these as its inner error, itself an I/O error at times; `source` skips it.
        let inner = link.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause = match inner {
            Some(inner) => Some(inner),
            None => link.source(),
        };
    }
    network(if error.is_connect() { "the connection failed" } else { "the exchange failed" }.to_owned())
}
