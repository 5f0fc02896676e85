//! Crossings: every use of a capability that leaves the gateway, told exactly once when it is over.
//!
//! ```text
//!  call ─▶ Telling::new ─▶ policy ─▶ dial ─▶ answer ─▶ body ─▶ (drop) ─▶ Witness::crossing
//!              └──────────── refused or failed anywhere ────────┘
//! ```
//!
//! The telling is by `Drop`, so a call that is cancelled, denied or broken off is told as well. What is told holds no path,
//! no query, no header and no body: those may carry secrets.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::Method;
use http_body::Body as _;
use url::Url;

use crate::body::{ReplyBody, RequestBody};
use crate::channel::CallContext;
use crate::egress::Slot;
use crate::egress::meter::{Received, Sent};

/// The unique name of an execution; an extension of a request on its way through a channel, set by the gateway alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutionId(pub Arc<str>);

/// The sandbox that a use comes from or leads to; an extension of a request on its way through a channel, set by the gateway
/// alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfSandbox {
    /// The tenant's user.
    pub user: Arc<str>,
    /// Its name, unique on the machine.
    pub id: Arc<str>,
}

/// A token that was given out; never the token itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Minted {
    /// By which it is revoked.
    pub id: Arc<str>,
    /// For how long it is good, in seconds.
    pub seconds: u64,
}

/// Why policy said no. Each has one stable code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Denial {
    /// Neither http nor https, or a URL without a host.
    Url,
    /// No rule names the origin.
    Origin,
    /// A rule names the origin, but not with this method.
    Method,
    /// A rule names the origin and the method, but not this path.
    Path,
    /// A rule forbids it.
    Rule,
    /// The name leads to an address that is not the public internet.
    Address,
    /// Too many requests per second.
    Rate,
    /// Too many requests at once.
    Concurrency,
    /// The request's body is too large.
    RequestBytes,
    /// The response's body is too large.
    ResponseBytes,
    /// The answer could not be checked for secrets, so it was held back.
    Unreadable,
    /// There is no credential to use; guests are only told that the upstream failed.
    Credential,
    /// The audit log cannot take records, and the operator asked that nothing happens without one.
    Audit,
    /// A tunnel to a host whose rules need what nobody sees in a tunnel: methods or paths.
    Tunnel,
    /// A tunnel to a port for which there are none.
    Port,
    /// A tunnel was silent, or open, for too long, or its TLS took too long to begin.
    Time,
    /// TLS in a tunnel that asks for another server than the tunnel was opened to, or names none.
    TlsName,
    /// What begins like TLS in a tunnel and cannot be read, or is none where nothing else may be.
    Tls,
}

impl Denial {
    /// Every one, for tables and tests.
    pub const ALL: [Self; 18] = [
        Self::Url,
        Self::Origin,
        Self::Method,
        Self::Path,
        Self::Rule,
        Self::Address,
        Self::Rate,
        Self::Concurrency,
        Self::RequestBytes,
        Self::ResponseBytes,
        Self::Unreadable,
        Self::Credential,
        Self::Audit,
        Self::Tunnel,
        Self::Port,
        Self::Time,
        Self::TlsName,
        Self::Tls,
    ];

    /// The stable code, as guests, logs and audit records say it.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Url => "egress_url",
            Self::Origin => "egress_origin",
            Self::Method => "egress_method",
            Self::Path => "egress_path",
            Self::Rule => "egress_rule",
            Self::Address => "egress_address",
            Self::Rate => "egress_rate",
            Self::Concurrency => "egress_concurrency",
            Self::RequestBytes => "egress_request_bytes",
            Self::ResponseBytes => "egress_response_bytes",
            Self::Unreadable => "egress_unreadable",
            Self::Credential => "egress_credential",
            Self::Audit => "egress_audit",
            Self::Tunnel => "egress_tunnel",
            Self::Port => "egress_port",
            Self::Time => "egress_time",
            Self::TlsName => "egress_tls_name",
            Self::Tls => "egress_tls",
        }
    }
}

/// What became of a crossing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Policy said yes, and this status came back.
    Answered(u16),
    /// Policy said no.
    Denied(Denial),
    /// Policy said yes, but there was no answer.
    Failed,
    /// The caller went away before there was an answer.
    Abandoned,
}

impl Verdict {
    /// The stable code: that of the denial, or `answered`, `failed`, `abandoned`.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Answered(_) => "answered",
            Self::Denied(denial) => denial.code(),
            Self::Failed => "failed",
            Self::Abandoned => "abandoned",
        }
    }
}

/// One use of a capability, when it is over.
#[derive(Clone, Debug)]
pub struct Crossing {
    /// Who pays and is blamed.
    pub tenant: Arc<str>,
    /// Whose code.
    pub worker: Arc<str>,
    /// The execution it belongs to; `None` for a call from outside.
    pub execution: Option<Arc<str>>,
    /// The sandbox that used it, or that was used.
    pub sandbox: Option<OfSandbox>,
    /// The beginning of the hash of the API token with which it was asked for, if it was.
    pub token: Option<Arc<str>>,
    /// The capability's name.
    pub capability: Arc<str>,
    /// The policy class or the secret that ruled it, by name.
    pub policy: Option<Arc<str>>,
    /// The method that was asked for.
    pub method: Method,
    /// Scheme, host and port of the last hop; empty if the URL made no sense. Of a token: for whom it is.
    pub origin: String,
    /// What was given out, if that is what the capability does.
    pub minted: Option<Minted>,
    /// Redirects that were followed.
    pub redirects: u32,
    /// What became of it.
    pub verdict: Verdict,
    /// Body bytes that were sent.
    pub request_bytes: u64,
    /// Body bytes that came back, as they were handed on.
    pub response_bytes: u64,
    /// From the call to the end of the answer's body.
    pub elapsed: Duration,
}

/// Where crossings are told. Must not block.
pub trait Witness: Send + Sync {
    /// A crossing is over.
    fn crossing(&self, crossing: Crossing);

    /// Whether crossings may happen at all now: no if they must be recorded and cannot be.
    fn ready(&self) -> bool {
        true
    }
}

/// Nobody listens.
#[derive(Clone, Copy, Debug)]
pub struct Unwitnessed;

impl Witness for Unwitnessed {
    fn crossing(&self, _crossing: Crossing) {}
}

/// The duty to tell one crossing.
pub struct Telling {
    witness: Arc<dyn Witness>,
    crossing: Option<Crossing>,
    started: Instant,
    late: Option<Arc<OnceLock<Denial>>>,
    pub(crate) sent: Arc<AtomicU64>,
    pub(crate) received: Arc<AtomicU64>,
}

impl Telling {
    /// A use begins.
    pub fn new<B>(
        witness: Arc<dyn Witness>,
        context: &CallContext,
        request: &http::Request<B>,
        capability: &Arc<str>,
        policy: Option<Arc<str>>,
    ) -> Self {
        let execution = request.extensions().get::<ExecutionId>().map(|id| Arc::clone(&id.0));
        let sandbox = request.extensions().get::<OfSandbox>().cloned();
        let crossing = Crossing {
            tenant: context.identity.tenant.clone(),
            worker: context.identity.worker.clone(),
            execution,
            sandbox,
            token: None,
            capability: Arc::clone(capability),
            policy,
            method: request.method().clone(),
            origin: String::new(),
            minted: None,
            redirects: 0,
            verdict: Verdict::Abandoned,
            request_bytes: 0,
            response_bytes: 0,
            elapsed: Duration::ZERO,
        };
        let (sent, received) = Default::default();
        Self { witness, crossing: Some(crossing), started: Instant::now(), late: None, sent, received }
    }

    /// Whether it may happen at all.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.witness.ready()
    }

    /// Where it leads, if that is no origin of a URL.
    pub fn leads_to(&mut self, place: &str) {
        if let Some(crossing) = &mut self.crossing {
            place.clone_into(&mut crossing.origin);
        }
    }

    /// Counts the bytes that go out with it.
    #[must_use]
    pub fn sending(&self, body: RequestBody) -> RequestBody {
        // Without a bound there is nothing that could be refused.
        Sent::wrap(body, &self.sent, None).unwrap_or_default()
    }

    /// The answer, whose body's end is the end of it.
    #[must_use]
    pub fn answered(mut self, response: http::Response<ReplyBody>) -> http::Response<ReplyBody> {
        self.verdict(Verdict::Answered(response.status().as_u16()));
        match response.body() {
            // Small answers stay what they are, so that they need no stream.
            RequestBody::Empty | RequestBody::Full(_) => {
                self.received.fetch_add(response.body().size_hint().lower(), Relaxed);
                response
            }
            RequestBody::Stream(_) => response.map(|body| Received::wrap(body, u64::MAX, self, Slot::free())),
        }
    }

    pub(crate) fn hop(&mut self, url: &Url, redirects: u32) {
        if let Some(crossing) = &mut self.crossing {
            crossing.origin = origin(url);
            crossing.redirects = redirects;
        }
    }

    /// Where a connection leads.
    pub(crate) fn to(&mut self, origin: String) {
        if let Some(crossing) = &mut self.crossing {
            crossing.origin = origin;
        }
    }

    /// Where somebody will say why it was ended, if it is: that counts for more than how it began.
    pub(crate) fn ended_by(&mut self, late: Arc<OnceLock<Denial>>) {
        self.late = Some(late);
    }

    /// What became of it.
    pub fn verdict(&mut self, verdict: Verdict) {
        if let Some(crossing) = &mut self.crossing {
            crossing.verdict = verdict;
        }
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        if let Some(mut crossing) = self.crossing.take() {
            crossing.request_bytes = self.sent.load(Relaxed);
            crossing.response_bytes = self.received.load(Relaxed);
            crossing.elapsed = self.started.elapsed();
            if let Some(denial) = self.late.as_ref().and_then(|late| late.get()) {
                crossing.verdict = Verdict::Denied(*denial);
            }
            self.witness.crossing(crossing);
        }
    }
}

/// Scheme, host and port; nothing that a secret could hide in.
pub(crate) fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}
