//! The secret proxy: a guest uses a credential and never sees it.
//!
//! ```text
//!  env.GITHUB.fetch(request) ─▶ rule: origin, method, path, rate ─▶ guest's credentials out ─▶ exactly one in ─▶ TLS
//!                                                                                                             │
//!  guest ◀─ secret in any form masked ◀─ headers filtered ◀─ decoded, or held back ◀─ redirect not followed ◀─┘
//! ```
//!
//! Inject, never substitute: nothing that a guest writes is replaced by a secret, so nothing that a guest writes decides where
//! the secret goes. The rule is matched on the URL that is dialled, and Host and SNI come from that URL. One proxy leads to one
//! origin: where two hosts need one credential, there are two proxies.
//!
//! Each [`SecretProxy`] belongs to one tenant and keeps connections for one value of one secret: after a rotation nothing is
//! sent on a connection that an old value opened.
//!
//! Failures behind the rule look all alike to a guest, a missing secret like an unreachable server: what exists is not to be
//! found out by asking. The audit trail has the difference.
//!
//! What it cannot do: a server on an allowed path may itself hand out the secret coded in a way that nobody lists
//! ([`scrub`]), and a guest may do whatever the credential allows there. The proxy stops exfiltration, not misuse.

mod body;
mod filter;
mod forms;
mod inject;
mod mint;
mod scrub;
mod secret;
mod sigv4;

use std::sync::{Arc, Mutex, PoisonError};

use http::{Method, Request, Response, StatusCode};
use url::Url;
use zeroize::Zeroizing;

pub use inject::{Injection, SIGNED_BODY_BYTES_MAX};
pub use mint::Recipe;
pub use scrub::SECRET_BYTES_MIN;
pub use secret::{SECRET_BYTES_MAX, Secret, SecretSource};
pub use sigv4::SigV4;

use body::Scrubbed;
use inject::{InjectError, Naked};
use mint::Mint;
use scrub::Needles;

use crate::body::{ReplyBody, RequestBody};
use crate::channel::{CallContext, CallFuture, Channel, ReplyMeta};
use crate::crossing::{Denial, Telling, Verdict};
use crate::egress::decode;
use crate::egress::meter::{Received, Sent};
use crate::egress::{Caps, EgressNet, Gate, Grant, HttpClient, Policy, Refusal, Slot};
use crate::egress::{check_headers, explain, remove_gateway_headers, remove_hop_by_hop};
use crate::seam::{CallError, Redirect};

/// All that a guest learns of what went wrong behind the rule.
const FAILED: &str = "the upstream failed";

/// A proxy as the operator wrote it.
#[derive(Clone, Debug)]
pub struct ProxyRule {
    /// Its name: that of the capability in the audit trail.
    pub name: Arc<str>,
    /// Which requests it takes; all to one origin.
    pub policy: Policy,
    /// Name of the secret.
    pub secret: Arc<str>,
    /// Where the credential goes.
    pub injection: Injection,
}

/// The capability of one tenant.
#[derive(Clone)]
pub struct SecretProxy {
    inner: Arc<Inner>,
}

struct Inner {
    rule: Arc<ProxyRule>,
    /// The proxy's own rates and caps.
    gate: Arc<Gate>,
    /// The class that must allow a request as well.
    class: Option<Grant>,
    tenant: Arc<str>,
    net: EgressNet,
    source: Arc<dyn SecretSource>,
    /// Connections, and the version of the secret that they were opened for.
    client: Mutex<Option<(u64, HttpClient)>>,
    mint: Mint,
}

impl SecretProxy {
    /// A proxy for this tenant. Make one and keep it: connections, rates and minted credentials are its own.
    #[must_use]
    pub fn new(
        net: &EgressNet,
        rule: Arc<ProxyRule>,
        gate: Arc<Gate>,
        class: Option<Grant>,
        tenant: Arc<str>,
        source: Arc<dyn SecretSource>,
    ) -> Self {
        let (client, mint, net) = (Mutex::default(), Mint::default(), net.clone());
        Self { inner: Arc::new(Inner { rule, gate, class, tenant, net, source, client, mint }) }
    }
}

impl Channel for SecretProxy {
    fn fetch(&self, context: CallContext, request: Request<RequestBody>) -> CallFuture {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move {
            let policy = Some(Arc::clone(&inner.rule.secret));
            let mut telling = Telling::new(inner.net.witness(), &context, &request, &inner.rule.name, policy);
            match inner.run(request, &mut telling).await {
                Ok(ready) => {
                    telling.verdict(Verdict::Answered(ready.head.status.as_u16()));
                    Ok(ready.finish(telling))
                }
                Err(refusal) => {
                    telling.verdict(refusal.verdict());
                    Err(told(refusal))
                }
            }
        })
    }

    fn name(&self) -> &str {
        &self.inner.rule.name
    }
}

/// What a guest learns: denials of the rule by their code, everything else alike.
fn told(refusal: Refusal) -> CallError {
    match refusal {
        Refusal::Denied(Denial::Credential | Denial::Address, _) => CallError::Network(FAILED.to_owned()),
        Refusal::Failed(CallError::Invalid(text)) => CallError::Invalid(text),
        Refusal::Failed(_) => CallError::Network(FAILED.to_owned()),
        denied @ Refusal::Denied(..) => denied.into(),
    }
}

/// An answer that was checked, before its body flows.
struct Ready {
    head: http::response::Parts,
    body: ReplyBody,
    needles: Needles,
    url: String,
    max: u64,
    slot: Slot,
    class: Option<Slot>,
}

impl Ready {
    fn finish(self, telling: Telling) -> Response<ReplyBody> {
        let Self { mut head, body, needles, url, max, slot, class } = self;
        filter::response(&mut head.headers, &needles);
        // The reason phrase is left out: it is one more place to reflect something.
        head.extensions = http::Extensions::new();
        head.extensions.insert(ReplyMeta { url, redirected: false, status_text: String::new() });
        let body = RequestBody::stream(Scrubbed::new(body, needles.scrubber(), class));
        let body = Received::wrap(body, max, telling, slot);
        Response::from_parts(head, body)
    }
}

impl Inner {
    async fn run(&self, request: Request<RequestBody>, telling: &mut Telling) -> Result<Ready, Refusal> {
        let mode = request.extensions().get::<Redirect>().copied().unwrap_or_default();
        let (mut parts, body) = request.into_parts();
        let mut url = parse(&parts.uri.to_string())?;
        telling.hop(&url, 0);
        let denied = |denial| Refusal::denied(denial, &url);
        if !telling.ready() {
            return Err(denied(Denial::Audit));
        }
        self.check(&parts.method, &url).map_err(denied)?;
        let class = self.class.as_ref().map(|class| class.gate.enter()).transpose().map_err(denied)?;
        let slot = self.gate.enter().map_err(denied)?;
        let body =
            Sent::wrap(body, &telling.sent, self.cap(|caps| caps.request_bytes_max)).map_err(denied)?;

        let secret = self.source.secret(&self.tenant, &self.rule.secret);
        let secret = secret.ok_or_else(|| self.unusable(&url, &"there is no such secret"))?;
        let client = self.client(secret.version());
        remove_gateway_headers(&mut parts.headers);
        filter::request(&mut parts.headers, &self.rule.injection.headers());
        self.rule.injection.strip(&mut url);
        let shown = url.to_string();
        let token = self.token(&secret, &client, &url).await?;
        let text = token.as_ref().map(|token| token.as_str());
        let naked = Naked { method: &parts.method, url: &mut url, headers: &mut parts.headers, body };
        let (body, worn) = match self.rule.injection.dress(naked, &secret, text).await {
            Ok(dressed) => dressed,
            Err(InjectError::BodyTooLarge) => return Err(Refusal::denied(Denial::RequestBytes, &url)),
            Err(InjectError::Body) => return Err(CallError::Network(FAILED.to_owned()).into()),
            Err(error) => return Err(self.unusable(&url, &error)),
        };
        let mut sent = Request::new(body);
        *sent.method_mut() = parts.method;
        let unusable = |_| CallError::Invalid("Invalid URL.".to_owned());
        // The URL may hold the credential: no error and no log line repeats it.
        *sent.uri_mut() = Zeroizing::new(String::from(url.clone())).parse().map_err(unusable)?;
        *sent.headers_mut() = parts.headers;
        let head_only = *sent.method() == Method::HEAD;
        let response = client.request(sent).await.map_err(|error| explain(&error, &url))?;
        check_headers(response.headers())?;
        if response.status() == StatusCode::UNAUTHORIZED
            && let Some(token) = &token
        {
            self.mint.forget(token);
        }
        if mode == Redirect::Error && response.status().is_redirection() {
            return Err(CallError::Network(FAILED.to_owned()).into());
        }
        let (mut head, body) = response.into_parts();
        remove_hop_by_hop(&mut head.headers);
        let body = if head_only {
            RequestBody::Empty
        } else {
            // What cannot be decoded cannot be searched.
            decode::decode(&mut head.headers, RequestBody::stream(body))
                .map_err(|_| Refusal::denied(Denial::Unreadable, &url))?
        };
        let needles = Needles::new(worn.iter().map(|bytes| bytes.as_slice()));
        let max = self.cap(|caps| caps.response_bytes_max).unwrap_or(u64::MAX);
        Ok(Ready { head, body, needles, url: shown, max, slot, class })
    }

    /// Whether the rule, and the class above it, allow the request.
    fn check(&self, method: &Method, url: &Url) -> Result<(), Denial> {
        // TRACE is made to reflect headers; CONNECT is no request to the origin.
        if matches!(*method, Method::TRACE | Method::CONNECT) {
            return Err(Denial::Method);
        }
        self.rule.policy.check(method, url)?;
        let mut class = self.class.iter().flat_map(|class| &class.policies);
        class.try_for_each(|policy| policy.check(method, url))
    }

    /// The lower of the proxy's and the class's cap.
    fn cap(&self, of: fn(Caps) -> Option<u64>) -> Option<u64> {
        let class = self.class.as_ref().and_then(|class| of(class.gate.caps()));
        of(self.gate.caps()).into_iter().chain(class).min()
    }

    /// Connections that no other value of the secret has used.
    fn client(&self, version: u64) -> HttpClient {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        match &*client {
            Some((own, client)) if *own == version => client.clone(),
            _ => client.insert((version, self.net.client())).1.clone(),
        }
    }

    async fn token(
        &self,
        secret: &Secret,
        client: &HttpClient,
        url: &Url,
    ) -> Result<Option<Arc<Zeroizing<String>>>, Refusal> {
        match &self.rule.injection {
            Injection::Minted(recipe) => match self.mint.token(recipe, secret, client).await {
                Ok(token) => Ok(Some(token)),
                Err(error) => Err(self.unusable(url, &error)),
            },
            _ => Ok(None),
        }
    }

    /// The operator learns why there is no credential; the guest does not.
    fn unusable(&self, url: &Url, reason: &dyn std::fmt::Display) -> Refusal {
        tracing::debug!(tenant = &*self.tenant, proxy = &*self.rule.name, %reason, "no credential for a request");
        Refusal::denied(Denial::Credential, url)
    }
}

fn parse(text: &str) -> Result<Url, CallError> {
    let mut url = Url::parse(text).map_err(|_| CallError::Invalid("Invalid URL.".to_owned()))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(CallError::Invalid("A URL with credentials cannot be fetched.".to_owned()));
    }
    url.set_fragment(None);
    Ok(url)
}
