//! The gateway's own hosts inside a sandbox: what a program may do in the name of the sandbox's user.
//!
//! ```text
//!  GET http://identity.atoll/token?audience=A ─▶ A among the rights? ─▶ a JWT of a minute: tenant, user, sandbox
//!  ANY http://proxy.atoll/NAME/path ──────────▶ NAME among the rights? ─▶ the secret proxy NAME ─▶ https://its origin/path
//! ```
//!
//! Who asks is known by the socket: it leads into one sandbox and nowhere else, so there is nothing that a program must hold, keep
//! fresh, or could lose. A token is made when somebody asks and is in no file, variable or `/proc` of the sandbox; secrets are not
//! inside at all. Rights are named when the way out is given, never by a program, and end with it.
//!
//! A token for a proxy of this gateway is for the same proxies, by `/v1/proxy/NAME/` of the public API. It is good for one use, and for
//! as long as its sandbox lives and has the right: whoever takes it along has little.

use std::sync::{Arc, Weak};

use http::{Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use serde::Serialize;

use super::egress::Outlet;
use super::lives::Life;
use crate::access::Access;
use crate::access::identity::Issuer;
use crate::access::identity::jwt::{Claims, IDENTITY_SECONDS_MAX};
use crate::access::identity::mint::{NotMinted, mint, refuse};
use crate::admission::Denied;
use crate::api::proxy::{self, Asker};
use crate::api::query::Query;
use crate::bindings::identity::is_audience;
use crate::config::Name;
use crate::observe::AccessEvent;
use crate::problem::Problem;
use crate::server::Gateway;
use crate::server::body::ReplyBody;

/// Where identities are.
const IDENTITY_HOST: &str = "identity.atoll";
/// Where secret proxies are.
const PROXY_HOST: &str = "proxy.atoll";
/// Proxies, and audiences, that one sandbox may have.
const RIGHTS_MAX: usize = 32;

/// What a sandbox may do in the name of its user. Nothing, by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rights {
    /// Secret proxies, by name.
    pub(crate) proxies: Vec<String>,
    /// For whom its identities may be.
    pub(crate) audiences: Vec<String>,
}

impl Rights {
    pub(crate) fn is_none(&self) -> bool {
        self.proxies.is_empty() && self.audiences.is_empty()
    }

    /// Refuses what makes no sense, and what the tenant does not have.
    pub(crate) fn check(&self, access: &Access, tenant: &Name) -> Result<(), String> {
        let Self { proxies, audiences } = self;
        if proxies.len().max(audiences.len()) > RIGHTS_MAX {
            return Err(format!("at most {RIGHTS_MAX} `proxies` and as many `audiences` are allowed"));
        }
        if let Some(bad) = proxies.iter().find(|proxy| !access.proxies.exists(tenant.as_str(), proxy)) {
            return Err(format!("there is no proxy {bad:?}"));
        }
        let issuer = access.issuer.issuer();
        // Rights of this gateway are named as what they are.
        let own = |audience: &str| {
            audience.strip_prefix(issuer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        match audiences.iter().find(|audience| !is_audience(audience) || own(audience)) {
            Some(bad) => Err(format!("{bad:?} is no audience for a sandbox")),
            None => Ok(()),
        }
    }

    pub(super) fn has_proxy(&self, name: &str) -> bool {
        self.proxies.iter().any(|own| own == name)
    }

    /// Whether an identity may be for this audience, and if so, whether for one use only.
    fn audience(&self, audience: &str, issuer: &Issuer) -> Option<bool> {
        if self.audiences.iter().any(|own| own == audience) {
            return Some(false);
        }
        self.proxies.iter().any(|proxy| issuer.proxy_audience(proxy) == audience).then_some(true)
    }
}

/// Names of the variables in which a program finds its rights.
pub(super) const VARIABLES: [&str; 2] = ["ATOLL_PROXY_URL", "ATOLL_IDENTITY_URL"];

/// Where a program finds its rights.
pub(super) fn variables(life: &Life) -> Vec<(String, String)> {
    let [proxy, identity] = VARIABLES;
    let rights = life.way_out().map(|way| way.outlet.rights().clone()).unwrap_or_default();
    let proxies = (!rights.proxies.is_empty()).then(|| (proxy, format!("http://{PROXY_HOST}")));
    let any = !rights.is_none();
    let identity = any.then(|| (identity, format!("http://{IDENTITY_HOST}/token")));
    proxies.into_iter().chain(identity).map(|(name, value)| (name.to_owned(), value)).collect()
}

/// One of these hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Identity,
    Proxy,
}

impl Place {
    pub(super) fn of(uri: &Uri) -> Option<Self> {
        let plain = uri.scheme_str() == Some("http") && matches!(uri.port_u16(), None | Some(80));
        let host = uri.host().filter(|_| plain)?;
        let host = host.strip_suffix('.').unwrap_or(host);
        match host.to_ascii_lowercase().as_str() {
            IDENTITY_HOST => Some(Self::Identity),
            PROXY_HOST => Some(Self::Proxy),
            _ => None,
        }
    }
}

/// Answers a program inside.
pub(super) async fn answer(
    life: &Life,
    gateway: &Weak<Gateway>,
    outlet: &Outlet,
    place: Place,
    request: Request<Incoming>,
) -> Response<ReplyBody> {
    // It is going down, or there is none: a program's own fault it is not.
    let Some(gateway) = gateway.upgrade() else {
        let text = "The gateway does not serve now.";
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", text).response();
    };
    let answered = match place {
        Place::Identity => often(life).and_then(|()| identity(life, &gateway, outlet, &request)),
        Place::Proxy => through(life, &gateway, outlet, request).await,
    };
    answered.unwrap_or_else(Problem::response)
}

/// 429 for who asks too often.
fn often(life: &Life) -> Result<(), Problem> {
    let text = "This sandbox asks too often.";
    let slower = || Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", text).retry_after(1);
    life.may_ask().then_some(()).ok_or_else(slower)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TokenOutput {
    token: String,
    /// By which it is revoked.
    id: String,
    expires_ms: u64,
}

fn identity(
    life: &Life,
    gateway: &Gateway,
    outlet: &Outlet,
    request: &Request<Incoming>,
) -> Result<Response<ReplyBody>, Problem> {
    if request.uri().path() != "/token" {
        return Err(Problem::not_found("There is nothing here but /token."));
    }
    if request.method() != Method::GET {
        return Err(Problem::method_not_allowed("GET"));
    }
    let (audience, seconds) = wish(request.uri())?;
    let issuer = &gateway.access.issuer;
    let owner = life.owner();
    let mut claims = Claims {
        iss: String::new(),
        sub: format!("{}/user:{}", owner.tenant, owner.user),
        aud: String::new(),
        iat: 0,
        nbf: 0,
        exp: 0,
        jti: String::new(),
        tenant: owner.tenant.clone(),
        worker: outlet.worker().to_string(),
        // So that all of a sandbox's identities can be revoked at once.
        inv: Some(life.id().to_owned()),
        user: Some(owner.user.clone()),
        sandbox: Some(life.id().to_owned()),
        code: None,
        egress: None,
        budget: None,
        act: None,
        may: Vec::new(),
        once: false,
    };
    let Some(once) = outlet.rights().audience(&audience, issuer) else {
        refuse(&gateway.access, &claims);
        let (tenant, actor, name) = (owner.tenant.as_str(), owner.user.as_str(), life.id());
        let event =
            AccessEvent { tenant, actor, what: "identity", name, action: "refuse", detail: "audience" };
        gateway.access.tell(&event);
        let text = "This sandbox may have no identity for this audience.";
        return Err(Problem::new(StatusCode::FORBIDDEN, "audience_not_granted", text));
    };
    (claims.aud, claims.once) = (audience, once);
    let (token, claims) = mint(&gateway.access, claims, seconds).map_err(|why| match why {
        NotMinted::Audit => Problem::from(Denied::Audit),
        NotMinted::Unsigned => Problem::internal(&"an identity cannot be signed"),
    })?;
    let output = TokenOutput { token, id: claims.jti, expires_ms: claims.exp * 1_000 };
    Ok(crate::api::json(StatusCode::OK, &output))
}

/// For whom, and for how many seconds: `audience` and, if it is to be less than the longest, `expiresInSeconds`.
fn wish(uri: &Uri) -> Result<(String, u64), Problem> {
    let query = Query::parse(uri.query(), &["audience", "expiresInSeconds"])?;
    let audience = query.need("audience")?.to_owned();
    let seconds = query.json("expiresInSeconds")?.unwrap_or(IDENTITY_SECONDS_MAX);
    if is_audience(&audience) && (1..=IDENTITY_SECONDS_MAX).contains(&seconds) {
        return Ok((audience, seconds));
    }
    let text = "`audience` has 1 to 512 visible ASCII characters, `expiresInSeconds` is 1 to 60.";
    Err(Problem::bad_request(text))
}

async fn through(
    life: &Life,
    gateway: &Arc<Gateway>,
    outlet: &Outlet,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Problem> {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str()).trim_start_matches('/');
    let at = target.find(['/', '?']).unwrap_or(target.len());
    let (name, rest) = target.split_at(at);
    if !outlet.rights().has_proxy(name) {
        often(life)?;
        let (tenant, actor) = (life.owner().tenant.as_str(), life.owner().user.as_str());
        let event =
            AccessEvent { tenant, actor, what: "proxy", name: "", action: "refuse", detail: "sandbox" };
        gateway.access.tell(&event);
        let text = "This sandbox may not use a proxy of this name.";
        return Err(Problem::new(StatusCode::FORBIDDEN, "proxy_not_granted", text));
    }
    let (name, target) =
        (name.to_owned(), if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") });
    let tenant = Name::parse(&life.owner().tenant).ok_or_else(Problem::unauthorized)?;
    let asker = Asker { tenant, worker: Arc::clone(outlet.worker()), sandbox: Some(life.inside()) };
    proxy::forward(gateway, asker, &name, &target, request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateways_hosts_are_these_two() {
        let of = |text: &str| Place::of(&text.parse().unwrap());
        for (text, place) in [
            ("http://identity.atoll/token", Some(Place::Identity)),
            ("http://IDENTITY.atoll.:80/token", Some(Place::Identity)),
            ("http://proxy.atoll/github/x", Some(Place::Proxy)),
            ("https://proxy.atoll/github/x", None),
            ("http://proxy.atoll:8080/github/x", None),
            ("http://x.proxy.atoll/", None),
            ("http://identity.atoll.example.com/", None),
            ("identity.atoll:80", None),
        ] {
            assert_eq!(of(text), place, "{text}");
        }
    }

    #[test]
    fn wishes_are_read_strictly() {
        let of = |query: &str| wish(&format!("http://identity.atoll/token{query}").parse().unwrap()).ok();
        assert_eq!(of("?audience=https%3A%2F%2Fa"), Some(("https://a".to_owned(), 60)));
        assert_eq!(of("?audience=a&expiresInSeconds=5"), Some(("a".to_owned(), 5)));
        for bad in [
            "",
            "?",
            "?audience=",
            "?audience=a&audience=b",
            "?audience=a&x=1",
            "?Audience=a",
            "?audience=a%20b",
            "?audience=a&expiresInSeconds=0",
            "?audience=a&expiresInSeconds=61",
            "?audience=a&expiresInSeconds=-1",
            "?audience=a&expiresInSeconds=x",
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
