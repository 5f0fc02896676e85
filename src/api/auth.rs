//! Bearer tokens: which tenant, and what it may do.

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use crate::access::tokens::Holder;
use crate::config::{Config, Name, Scope, Tenant};
use crate::problem::Problem;

/// Longest token, in bytes: that of an identity or a delegation.
const TOKEN_BYTES_MAX: usize = crate::access::identity::jwt::TOKEN_BYTES_MAX;
/// Bytes of a token's hash that name it: enough to tell all tokens of a configuration apart.
const TOKEN_ID_BYTES: usize = 8;

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// For whom.
    pub(super) tenant: Arc<Tenant>,
    /// Which token: its id, or `configured`.
    pub(super) actor: String,
    /// What it may do.
    pub(super) scopes: Vec<Scope>,
}

/// Who this request's token speaks for, if the token has the scope. `made` looks up the tokens that tenants made.
pub(super) fn authorize(
    config: &Config,
    made: impl FnOnce(&[u8; 32]) -> Option<Holder>,
    headers: &HeaderMap,
    scope: Scope,
) -> Result<Caller, Problem> {
    let digest: [u8; 32] =
        bearer(headers).map(|token| Sha256::digest(token).into()).ok_or_else(Problem::unauthorized)?;
    let caller = match configured(config, &digest) {
        Some(caller) => caller,
        None => {
            let Holder { tenant, id, scopes } = made(&digest).ok_or_else(Problem::unauthorized)?;
            // A tenant that is not configured any more has no rights.
            let tenant = Name::parse(&tenant).and_then(|name| config.tenants.get(&name));
            let tenant = tenant.cloned().ok_or_else(Problem::unauthorized)?;
            Caller { tenant, actor: id, scopes }
        }
    };
    if !caller.scopes.contains(&scope) {
        return Err(Problem::forbidden(format!("This token lacks the scope `{}`.", scope.name())));
    }
    Ok(caller)
}

fn configured(config: &Config, digest: &[u8; 32]) -> Option<Caller> {
    // Every token is compared, in constant time, so that time tells neither how near a guess was nor whose it is.
    let (mut found, mut place, mut index) = (Choice::from(0), 0u32, 0u32);
    for token in config.tenants.values().flat_map(|tenant| &tenant.tokens) {
        let same = token.sha256.ct_eq(digest);
        place.conditional_assign(&index, same);
        found |= same;
        index += 1;
    }
    if !bool::from(found) {
        return None;
    }
    let mut all =
        config.tenants.values().flat_map(|tenant| tenant.tokens.iter().map(move |token| (tenant, token)));
    let (tenant, token) = all.nth(place as usize)?;
    let (tenant, scopes) = (tenant.clone(), token.scopes.clone());
    Some(Caller { tenant, actor: "configured".to_owned(), scopes })
}

/// Names the presented token in the audit log: the beginning of its SHA-256, which the configuration holds whole.
pub(super) fn token_id(headers: &HeaderMap) -> Option<String> {
    let digest = Sha256::digest(bearer(headers)?);
    Some(digest[..TOKEN_ID_BYTES].iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The one bearer token of a request.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.as_bytes();
    if values.next().is_some() || value.len() < 7 || !value[..7].eq_ignore_ascii_case(b"bearer ") {
        return None;
    }
    let token = value[7..].trim_ascii();
    (!token.is_empty() && token.len() <= TOKEN_BYTES_MAX).then_some(token)
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, StatusCode};

    use super::*;
    use crate::config::Overrides;

    #[test]
    fn tokens_open_what_they_are_for_and_nothing_else() {
        let hex = |token: &str| Sha256::digest(token).iter().map(|b| format!("{b:02x}")).collect::<String>();
        let config = format!(
            "[tenants.a]\ntokens = [\"{}\"]\n[tenants.b]\ntokens = [{{ sha256 = \"{}\", scopes = [\"read\"] }}]\n",
            hex("alpha"),
            hex("beta")
        );
        let config = Config::parse(&config, Overrides::default()).unwrap();
        let try_with = |values: &[&str], scope| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            let made = |digest: &[u8; 32]| {
                let tenant = if *digest == <[u8; 32]>::from(Sha256::digest("made")) { "b" } else { "gone" };
                let known =
                    ["made", "orphan"].iter().any(|token| *digest == <[u8; 32]>::from(Sha256::digest(token)));
                let holder = Holder { tenant: tenant.into(), id: "1".into(), scopes: vec![Scope::Secrets] };
                known.then_some(holder)
            };
            let caller = authorize(&config, made, &headers, scope);
            caller.map(|caller| caller.tenant.name.to_string()).map_err(|problem| problem.status())
        };
        let (denied, forbidden) = (Err(StatusCode::UNAUTHORIZED), Err(StatusCode::FORBIDDEN));
        assert_eq!(try_with(&["Bearer alpha"], Scope::Deploy), Ok("a".into()));
        assert_eq!(try_with(&["bearer  alpha "], Scope::Execute), Ok("a".into()));
        assert_eq!(try_with(&["Bearer beta"], Scope::Read), Ok("b".into()));
        assert_eq!(try_with(&["Bearer beta"], Scope::Deploy), forbidden);
        assert_eq!(try_with(&["Bearer made"], Scope::Secrets), Ok("b".into()));
        assert_eq!(try_with(&["Bearer made"], Scope::Read), forbidden);
        assert_eq!(try_with(&["Bearer orphan"], Scope::Secrets), denied);
        // A token without named scopes has those that it always had.
        for scope in [Scope::Secrets, Scope::Tokens, Scope::Proxy] {
            assert_eq!(try_with(&["Bearer alpha"], scope), forbidden);
        }
        let hash = format!("Bearer {}", hex("alpha"));
        let long = format!("Bearer {}", "x".repeat(TOKEN_BYTES_MAX + 1));
        for bad in [
            &[][..],
            &["Bearer gamma"],
            &["Bearer "],
            &["Bearer"],
            &["Basic alpha"],
            &["alpha"],
            &["Bearer ALPHA"],
            &["Bearer alpha beta"],
            &["Bearer alpha", "Bearer alpha"],
            &[hash.as_str()],
            &[long.as_str()],
        ] {
            assert_eq!(try_with(bad, Scope::Read), denied, "{bad:?}");
        }
    }
}
