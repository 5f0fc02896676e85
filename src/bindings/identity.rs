//! Who this invocation is, for others to check: `await env.IDENTITY.token({ audience: "https://api.example.com" })`.
//!
//! ```text
//!  token({ audience, singleUse?, expiresInSeconds? }) ─▶ audience on the deployment's list? ─▶ signed: tenant, worker, code hash,
//!                                                                                              invocation, class, budget; ≤ 60 s
//! ```
//!
//! What the token says is taken from the deployment and the invocation, never from the guest; the guest chooses among audiences.
//! With the issuer itself on the list, a token for it may be exchanged for any other audience of the list, and no more.

use std::sync::Arc;

use atoll_bindings::body::RequestBody;
use atoll_bindings::channel::{CallContext, CallFuture, Channel, MethodFuture};
use atoll_bindings::crossing::Denial;
use atoll_bindings::link::Grant;
use atoll_bindings::seam::{CallError, MethodError};
use atoll_bindings::value::Value;
use serde::{Deserialize, Serialize};

use super::{Bound, Place, Under};
use crate::access::Access;
use crate::access::identity::jwt::{Budget, Claims, IDENTITY_SECONDS_MAX};
use crate::access::identity::mint::{NotMinted, mint, refuse};
use crate::access::identity::random_id;
use crate::config::Name;
use crate::deploy::{DeployError, invalid};

/// Audiences of one binding.
const AUDIENCES_MAX: usize = 50;
/// Longest audience, in bytes.
pub(crate) const AUDIENCE_BYTES_MAX: usize = 512;

/// Its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// For whom tokens may be made.
    audiences: Vec<String>,
}

/// Whether an audience can be one.
pub(crate) fn is_audience(text: &str) -> bool {
    !text.is_empty() && text.len() <= AUDIENCE_BYTES_MAX && text.bytes().all(|b| b.is_ascii_graphic())
}

impl Identity {
    pub(super) fn check(&self) -> Result<(), DeployError> {
        if self.audiences.is_empty() || self.audiences.len() > AUDIENCES_MAX {
            return Err(invalid("bindings", format!("an identity has 1 to {AUDIENCES_MAX} audiences")));
        }
        match self.audiences.iter().find(|audience| !is_audience(audience)) {
            Some(bad) => Err(invalid("bindings", format!("{bad:?} is no audience"))),
            None => Ok(()),
        }
    }

    pub(super) fn bind(&self, place: &Place<'_>) -> Arc<dyn Bound> {
        Arc::new(Signer {
            access: Arc::clone(place.access),
            tenant: place.tenant.name.clone(),
            worker: place.worker.into(),
            egress: place.egress.map(str::to_owned),
            audiences: self.audiences.clone().into(),
        })
    }
}

struct Signer {
    access: Arc<Access>,
    tenant: Name,
    worker: Arc<str>,
    egress: Option<String>,
    audiences: Arc<[String]>,
}

impl Bound for Signer {
    fn grant(&self, under: Under<'_>) -> Grant {
        let limits = under.limits;
        let claims = Claims {
            iss: String::new(),
            sub: format!("{}/{}", self.tenant, self.worker),
            aud: String::new(),
            iat: 0,
            nbf: 0,
            exp: 0,
            jti: String::new(),
            tenant: self.tenant.to_string(),
            worker: self.worker.to_string(),
            // The id that the audit log and the meters use.
            inv: Some(under.trace.execution.as_ref().map_or_else(random_id, |own| own.id.to_string())),
            user: None,
            sandbox: None,
            code: Some(under.code.to_string()),
            egress: self.egress.clone(),
            budget: Some(Budget {
                cpu_ms: limits.cpu_ms,
                wall_ms: limits.wall_ms,
                sub_requests: limits.subrequests,
            }),
            act: None,
            may: Vec::new(),
            once: false,
        };
        let (access, audiences) = (Arc::clone(&self.access), Arc::clone(&self.audiences));
        Grant::Channel(Arc::new(Mine { access, audiences, claims }))
    }
}

/// The capability of one invocation.
struct Mine {
    access: Arc<Access>,
    audiences: Arc<[String]>,
    claims: Claims,
}

impl Mine {
    fn token(&self, arguments: Vec<Value>) -> Result<Value, MethodError> {
        let wish = Wish::read(arguments)?;
        if !self.audiences.contains(&wish.audience) {
            refuse(&self.access, &self.claims);
            return Err(MethodError::failed("This deployment may not make tokens for this audience."));
        }
        let issuer = &self.access.issuer;
        let mut claims = self.claims.clone();
        if wish.audience == issuer.issuer() {
            claims.may = self.audiences.iter().filter(|other| *other != issuer.issuer()).cloned().collect();
        }
        (claims.aud, claims.once) = (wish.audience, wish.once);
        let minted = mint(&self.access, claims, wish.seconds);
        let (token, _) = minted.map_err(|why| match why {
            NotMinted::Audit => {
                MethodError::failed(format!("No token can be made now. ({})", Denial::Audit.code()))
            }
            NotMinted::Unsigned => MethodError::failed("The token cannot be signed."),
        })?;
        Ok(Value::Text(token))
    }
}

struct Wish {
    audience: String,
    seconds: u64,
    once: bool,
}

impl Wish {
    fn read(arguments: Vec<Value>) -> Result<Self, MethodError> {
        let usage = || {
            MethodError::usage(
                "token() takes { audience: string, singleUse?: boolean, expiresInSeconds?: 1 to 60 }.",
            )
        };
        let [Value::Record(mut wish)] = <[Value; 1]>::try_from(arguments).map_err(|_| usage())? else {
            return Err(usage());
        };
        let Some(Value::Text(audience)) = wish.remove("audience") else { return Err(usage()) };
        let once = match wish.remove("singleUse") {
            None | Some(Value::Undefined) => false,
            Some(Value::Bool(once)) => once,
            Some(_) => return Err(usage()),
        };
        let seconds = match wish.remove("expiresInSeconds") {
            None | Some(Value::Undefined) => IDENTITY_SECONDS_MAX,
            Some(Value::Number(number)) if (1.0..=IDENTITY_SECONDS_MAX as f64).contains(&number) => {
                number as u64
            }
            Some(_) => return Err(usage()),
        };
        if wish.is_empty() { Ok(Self { audience, seconds, once }) } else { Err(usage()) }
    }
}

impl Channel for Mine {
    fn fetch(&self, _context: CallContext, _request: http::Request<RequestBody>) -> CallFuture {
        let error = CallError::Invalid("An identity has token(), and no fetch().".to_owned());
        Box::pin(async move { Err(error) })
    }

    fn call(&self, _context: CallContext, method: &str, arguments: Vec<Value>) -> MethodFuture {
        let result = match method {
            "token" => self.token(arguments),
            _ => Err(MethodError::unknown(method)),
        };
        Box::pin(async move { result })
    }

    fn name(&self) -> &str {
        "identity"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_read_strictly() {
        let record = |pairs: &[(&str, Value)]| {
            Value::Record(pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
        };
        let audience = ("audience", Value::Text("https://a".into()));
        let good =
            Wish::read(vec![record(&[audience.clone(), ("singleUse", Value::Bool(true))])]).ok().unwrap();
        assert_eq!((&*good.audience, good.once, good.seconds), ("https://a", true, 60));
        for bad in [
            vec![],
            vec![Value::Text("https://a".into())],
            vec![record(&[])],
            vec![record(&[("audience", Value::List(vec![Value::Text("https://a".into())]))])],
            vec![record(&[audience.clone(), ("singleUse", Value::Text("no".into()))])],
            vec![record(&[audience.clone(), ("expiresInSeconds", Value::Number(61.0))])],
            vec![record(&[audience.clone(), ("expiresInSeconds", Value::Number(f64::NAN))])],
            vec![record(&[audience.clone(), ("sub", Value::Text("root".into()))])],
            vec![Value::Null, Value::Null],
        ] {
            assert!(Wish::read(bad.clone()).is_err(), "{bad:?}");
        }
        assert!(
            is_audience("https://a.example/x")
                && !is_audience("")
                && !is_audience("a b")
                && !is_audience("ä")
        );
    }
}
