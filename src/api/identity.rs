//! `/v1/tokens/identity`, `/delegation` and `/revoke`: short-lived tokens, and their end.
//!
//! Who may ask: an API token with the scope `proxy`, or an identity whose audience is this issuer itself. What comes of an
//! identity is never more than it: the same tenant, code, class and budget, only audiences that it names, no later end.

use std::collections::BTreeSet;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};

use super::auth::{self, Caller};
use super::secrets::keep_problem;
use super::{input, json, no_content};
use crate::access::identity::Rejected;
use crate::access::identity::delegation::{DELEGATION_SECONDS_MAX, Rights};
use crate::access::identity::jwt::{ACTORS_MAX, Actor, Claims, IDENTITY_SECONDS_MAX};
use crate::bindings::identity::is_audience;
use crate::config::{Name, Scope};
use crate::deploy::now_ms;
use crate::observe::AccessEvent;
use crate::problem::Problem;
use crate::server::Gateway;
use crate::server::body::ReplyBody;

/// Seconds of a delegation whose end is not said.
const DELEGATION_SECONDS: u64 = 3_600;
/// Most proxies or methods of one delegation.
const RIGHTS_MAX: usize = 32;
/// Longest id that can be revoked, in bytes.
const ID_BYTES_MAX: usize = 256;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct IdentityInput {
    audience: String,
    /// Who acts on behalf of the caller.
    actor: Option<Name63>,
    #[serde(default)]
    single_use: bool,
    expires_in_seconds: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DelegationInput {
    proxies: BTreeSet<Name63>,
    methods: BTreeSet<String>,
    actor: Option<Name63>,
    expires_in_seconds: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RevokeInput {
    id: String,
}

/// A [`Name`] in a document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
struct Name63(String);

impl TryFrom<String> for Name63 {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if Name::parse(&text).is_some() { Ok(Self(text)) } else { Err("not a lower-case DNS label") }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TokenOutput {
    token: String,
    /// By which it is revoked.
    id: String,
    expires_ms: u64,
}

/// Who asks for a token.
enum Asker {
    Api(Caller),
    Identity(Box<Claims>),
}

impl Asker {
    fn tenant(&self) -> &str {
        match self {
            Self::Api(caller) => caller.tenant.name.as_str(),
            Self::Identity(claims) => &claims.tenant,
        }
    }

    fn sub(&self) -> String {
        match self {
            Self::Api(caller) => format!("{}/token:{}", caller.tenant.name, caller.actor),
            Self::Identity(claims) => claims.sub.clone(),
        }
    }

    /// Whether it may pass this audience on.
    fn may(&self, audience: &str) -> bool {
        match self {
            Self::Api(_) => true,
            Self::Identity(claims) => claims.may.iter().any(|own| own == audience),
        }
    }

    fn ends_s(&self) -> Option<u64> {
        match self {
            Self::Api(_) => None,
            Self::Identity(claims) => Some(claims.exp),
        }
    }

    /// What a token for it says, but for the audience.
    fn claims(&self, actor: Option<&Name63>) -> Result<Claims, Problem> {
        let mut claims = match self {
            Self::Identity(claims) => Claims { may: Vec::new(), once: false, ..(**claims).clone() },
            Self::Api(caller) => Claims {
                iss: String::new(),
                sub: self.sub(),
                aud: String::new(),
                iat: 0,
                nbf: 0,
                exp: 0,
                jti: String::new(),
                tenant: caller.tenant.name.to_string(),
                worker: format!("token:{}", caller.actor),
                inv: None,
                user: None,
                sandbox: None,
                code: None,
                egress: None,
                budget: None,
                act: None,
                may: Vec::new(),
                once: false,
            },
        };
        if let Some(Name63(actor)) = actor {
            let (sub, act) = (format!("{}/{actor}", claims.tenant), claims.act.take().map(Box::new));
            claims.act = Some(Actor { sub, act });
        }
        if std::iter::successors(claims.act.as_ref(), |actor| actor.act.as_deref()).count() > ACTORS_MAX {
            return Err(invalid("The chain of actors is too long."));
        }
        Ok(claims)
    }
}

fn invalid(detail: &'static str) -> Problem {
    Problem::unprocessable("invalid_token_request", detail)
}

/// 503 for what could not be checked: the caller may have every right.
pub(super) fn busy() -> Problem {
    let detail = "The token could not be checked in time. Try again.";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "token_check_busy", detail).retry_after(1)
}

fn asker(gateway: &Gateway, request: &Request<Incoming>) -> Result<Asker, Problem> {
    let token = auth::bearer(request.headers()).and_then(|token| std::str::from_utf8(token).ok());
    // API tokens have no dots.
    if let Some(token) = token.filter(|token| token.contains('.')) {
        let issuer = &gateway.access.issuer;
        return match issuer.verify(token, issuer.issuer()) {
            Ok(claims) => Ok(Asker::Identity(Box::new(claims))),
            Err(Rejected::Busy) => Err(busy()),
            Err(_) => Err(Problem::unauthorized()),
        };
    }
    let made = |digest: &[u8; 32]| gateway.access.tokens.find(digest, now_ms());
    auth::authorize(&gateway.config, made, request.headers(), Scope::Proxy).map(Asker::Api)
}

/// A token that is asked for.
pub(super) async fn post(
    gateway: &Gateway,
    delegation: bool,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Problem> {
    let asker = asker(gateway, &request)?;
    let limits = &gateway.config.http;
    if delegation {
        delegate(gateway, &asker, input::small(request, limits).await?)
    } else {
        identity(gateway, &asker, input::small(request, limits).await?)
    }
}

fn identity(gateway: &Gateway, asker: &Asker, wish: IdentityInput) -> Result<Response<ReplyBody>, Problem> {
    let IdentityInput { audience, actor, single_use, expires_in_seconds } = wish;
    if !is_audience(&audience) {
        return Err(invalid("`audience` has 1 to 512 visible ASCII characters."));
    }
    let seconds = expires_in_seconds.unwrap_or(IDENTITY_SECONDS_MAX);
    if !(1..=IDENTITY_SECONDS_MAX).contains(&seconds) {
        return Err(invalid("`expiresInSeconds` is 1 to 60."));
    }
    if !asker.may(&audience) {
        return Err(Problem::forbidden("The identity does not name this audience."));
    }
    let claims = Claims { aud: audience, once: single_use, ..asker.claims(actor.as_ref())? };
    let signed = gateway.access.issuer.sign(claims, seconds, asker.ends_s());
    let (token, claims) = signed.ok_or_else(|| Problem::internal(&"an identity cannot be signed"))?;
    tell(gateway, asker, "identity", &claims.jti, &claims.aud);
    let output = TokenOutput { token, id: claims.jti, expires_ms: claims.exp * 1_000 };
    Ok(json(StatusCode::CREATED, &output))
}

fn delegate(gateway: &Gateway, asker: &Asker, wish: DelegationInput) -> Result<Response<ReplyBody>, Problem> {
    let DelegationInput { proxies, methods, actor, expires_in_seconds } = wish;
    let many = proxies.len().max(methods.len()) > RIGHTS_MAX;
    if proxies.is_empty() || methods.is_empty() || many {
        return Err(invalid("`proxies` and `methods` name 1 to 32 each."));
    }
    if !methods.iter().all(|method| method.bytes().all(|b| b.is_ascii_uppercase()) && !method.is_empty()) {
        return Err(invalid("`methods` are in capital letters."));
    }
    let seconds = expires_in_seconds.unwrap_or(DELEGATION_SECONDS);
    if !(1..=DELEGATION_SECONDS_MAX).contains(&seconds) {
        return Err(invalid("`expiresInSeconds` is 1 to 86400."));
    }
    let issuer = &gateway.access.issuer;
    if !proxies.iter().all(|Name63(proxy)| asker.may(&issuer.proxy_audience(proxy))) {
        return Err(Problem::forbidden("The identity does not name all of these proxies as audiences."));
    }
    let known = |Name63(proxy): &Name63| gateway.access.proxies.exists(asker.tenant(), proxy);
    if !proxies.iter().all(known) {
        return Err(Problem::unprocessable("no_proxy", "There is no such proxy."));
    }
    let sub = match actor {
        Some(Name63(actor)) => format!("{} for {}/{actor}", asker.sub(), asker.tenant()),
        None => asker.sub(),
    };
    let until_s = (now_ms() / 1_000 + seconds).min(asker.ends_s().unwrap_or(u64::MAX));
    let rights = Rights {
        tenant: asker.tenant().to_owned(),
        sub,
        proxies: proxies.into_iter().map(|Name63(name)| name).collect(),
        methods: methods.into_iter().collect(),
        until_s,
    };
    let signed = issuer.delegate(rights);
    let (token, id, rights) = signed.ok_or_else(|| Problem::internal(&"a delegation cannot be signed"))?;
    tell(gateway, asker, "delegation", &id, &rights.proxies.join(" "));
    Ok(json(StatusCode::CREATED, &TokenOutput { token, id, expires_ms: rights.until_s * 1_000 }))
}

fn tell(gateway: &Gateway, asker: &Asker, what: &'static str, name: &str, detail: &str) {
    let (tenant, actor) = (asker.tenant(), asker.sub());
    gateway.access.tell(&AccessEvent { tenant, actor: &actor, what, name, action: "mint", detail });
}

/// From now on, what has this id opens nothing.
pub(super) async fn revoke(
    gateway: &Gateway,
    caller: &Caller,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Problem> {
    let RevokeInput { id } = input::small(request, &gateway.config.http).await?;
    if id.is_empty() || id.len() > ID_BYTES_MAX || !id.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(invalid("`id` is that of an identity, an invocation or a delegation."));
    }
    let tenant = caller.tenant.name.as_str();
    gateway.access.issuer.revoke(tenant, &id).await.map_err(|error| keep_problem(&error))?;
    caller.tell(gateway, "revocation", &id, "revoke", "");
    Ok(no_content())
}
