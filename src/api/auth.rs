//! Bearer tokens: which tenant, and what it may do.

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use crate::config::{Config, Scope, Tenant};
use crate::problem::Problem;

/// Longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 512;
/// Bytes of a token's hash that name it: enough to tell all tokens of a configuration apart.
const TOKEN_ID_BYTES: usize = 8;

/// The tenant whose token this request carries, if the token has the scope.
pub(super) fn authorize(config: &Config, headers: &HeaderMap, scope: Scope) -> Result<Arc<Tenant>, Problem> {
    let digest = presented(headers).ok_or_else(Problem::unauthorized)?;
    // Every token is compared, in constant time, so that time tells neither how near a guess was nor whose it is.
    let (mut found, mut place, mut index) = (Choice::from(0), 0u32, 0u32);
    for token in config.tenants.values().flat_map(|tenant| &tenant.tokens) {
        let same = token.sha256.ct_eq(&digest);
        place.conditional_assign(&index, same);
        found |= same;
        index += 1;
    }
    if !bool::from(found) {
        return Err(Problem::unauthorized());
    }
    let mut all =
        config.tenants.values().flat_map(|tenant| tenant.tokens.iter().map(move |token| (tenant, token)));
    let (tenant, token) = all.nth(place as usize).ok_or_else(Problem::unauthorized)?;
    if !token.scopes.contains(&scope) {
        return Err(Problem::forbidden(match scope {
            Scope::Read => "This token lacks the scope `read`.",
            Scope::Deploy => "This token lacks the scope `deploy`.",
            Scope::Execute => "This token lacks the scope `execute`.",
            Scope::Sandbox => "This token lacks the scope `sandbox`.",
            Scope::Audit => "This token lacks the scope `audit`.",
        }));
    }
    Ok(tenant.clone())
}

/// Names the presented token in the audit log: the beginning of its SHA-256, which the configuration holds whole.
pub(super) fn token_id(headers: &HeaderMap) -> Option<String> {
    let digest = presented(headers)?;
    Some(digest[..TOKEN_ID_BYTES].iter().map(|byte| format!("{byte:02x}")).collect())
}

fn presented(headers: &HeaderMap) -> Option<[u8; 32]> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.as_bytes();
    if values.next().is_some() || value.len() < 7 || !value[..7].eq_ignore_ascii_case(b"bearer ") {
        return None;
    }
    let token = value[7..].trim_ascii();
    (!token.is_empty() && token.len() <= TOKEN_BYTES_MAX).then(|| Sha256::digest(token).into())
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
            let tenant = authorize(&config, &headers, scope);
            tenant.map(|tenant| tenant.name.to_string()).map_err(|problem| problem.status())
        };
        let (denied, forbidden) = (Err(StatusCode::UNAUTHORIZED), Err(StatusCode::FORBIDDEN));
        assert_eq!(try_with(&["Bearer alpha"], Scope::Deploy), Ok("a".into()));
        assert_eq!(try_with(&["bearer  alpha "], Scope::Execute), Ok("a".into()));
        assert_eq!(try_with(&["Bearer beta"], Scope::Read), Ok("b".into()));
        assert_eq!(try_with(&["Bearer beta"], Scope::Deploy), forbidden);
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
