//! Identities: who asks, for whom, from when to when, signed (RFC 7519, EdDSA only).
//!
//! Strict on the way in: the header may hold nothing but `alg`, `typ` and `kid`; `kid` is compared with our keys and never used
//! as a name of anything; the algorithm is ours, not the header's; every time is a whole number; issuer and audience are one
//! string each, and must be exactly the expected ones.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, Header, Validation};
use serde::{Deserialize, Serialize};

use super::ring::Ring;

/// Longest life of an identity, in seconds.
pub(crate) const IDENTITY_SECONDS_MAX: u64 = 60;
/// Longest token that is looked at, in bytes.
pub(crate) const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Most actors in a chain.
pub(crate) const ACTORS_MAX: usize = 8;

/// Who acts on whose behalf (RFC 8693, section 4.1): the one who acts now, and those before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Actor {
    pub(crate) sub: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) act: Option<Box<Actor>>,
}

/// What an invocation may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Budget {
    pub(crate) cpu_ms: u32,
    pub(crate) wall_ms: u32,
    pub(crate) sub_requests: u32,
}

/// What a token says. Whole numbers are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Claims {
    pub(crate) iss: String,
    /// `tenant/worker`, `tenant/token:ID` for an API token, or `tenant/user:ID` for a user's sandbox.
    pub(crate) sub: String,
    pub(crate) aud: String,
    pub(crate) iat: u64,
    pub(crate) nbf: u64,
    pub(crate) exp: u64,
    pub(crate) jti: String,
    pub(crate) tenant: String,
    /// The worker's name, or the execution's id; of a sandbox, who gave it its rights.
    pub(crate) worker: String,
    /// The invocation; also the name under which it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) inv: Option<String>,
    /// The tenant's user for whom it runs, in a sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    /// The sandbox in which it runs; nothing that it says is true any more when that is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sandbox: Option<String>,
    /// Hash of the code that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<String>,
    /// The egress class that it is under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) egress: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) budget: Option<Budget>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) act: Option<Actor>,
    /// Audiences for which this token may be exchanged; only in tokens for the issuer itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) may: Vec<String>,
    /// Whether it is good for one use.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) once: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StrictHeader {
    alg: String,
    #[serde(default)]
    typ: Option<String>,
    kid: String,
}

/// A token that is none. Why is told to nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forged;

/// Signs.
pub(crate) fn sign(ring: &Ring, claims: &Claims) -> Option<String> {
    let key = ring.signing();
    let header = Header { kid: Some(key.kid.clone()), ..Header::new(Algorithm::EdDSA) };
    jsonwebtoken::encode(&header, claims, &key.encoding).ok()
}

/// What a token says, if it is one of ours, for this audience, and now.
pub(crate) fn verify(
    ring: &Ring,
    token: &str,
    issuer: &str,
    audience: &str,
    now_s: u64,
) -> Result<Claims, Forged> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Forged);
    }
    let header = token.split('.').next().unwrap_or_default();
    let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| Forged)?;
    let header: StrictHeader = serde_json::from_slice(&header).map_err(|_| Forged)?;
    if header.alg != "EdDSA" || header.typ.is_some_and(|typ| typ != "JWT") {
        return Err(Forged);
    }
    let key = ring.find(&header.kid).ok_or(Forged)?;
    let mut rules = Validation::new(Algorithm::EdDSA);
    rules.leeway = 0;
    rules.validate_nbf = true;
    rules.set_issuer(&[issuer]);
    rules.set_audience(&[audience]);
    rules.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
    let claims: Claims = jsonwebtoken::decode(token, &key.decoding, &rules).map_err(|_| Forged)?.claims;
    let lives = claims.nbf <= now_s && now_s < claims.exp && claims.iat <= now_s;
    let short = claims.exp.saturating_sub(claims.iat) <= IDENTITY_SECONDS_MAX;
    let exact = claims.iss == issuer && claims.aud == audience && !claims.jti.is_empty();
    if lives && short && exact { Ok(claims) } else { Err(Forged) }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::EncodingKey;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const ISSUER: &str = "https://atoll.example";
    const AUDIENCE: &str = "https://api.example";

    fn ring() -> (tempfile::TempDir, Ring) {
        let folder = tempfile::tempdir().unwrap();
        let ring = Ring::refresh(folder.path(), 1_000_000, u64::MAX).unwrap();
        (folder, ring)
    }

    fn now() -> u64 {
        crate::deploy::now_ms() / 1_000
    }

    fn claims() -> Value {
        let now = now();
        json!({ "iss": ISSUER, "sub": "acme/w", "aud": AUDIENCE, "iat": now, "nbf": now, "exp": now + 60, "jti": "1",
            "tenant": "acme", "worker": "w" })
    }

    fn signed(ring: &Ring, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let key = &ring.signing().encoding;
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, Algorithm::EdDSA).unwrap();
        format!("{message}.{signature}")
    }

    fn check(ring: &Ring, token: &str) -> Result<Claims, Forged> {
        verify(ring, token, ISSUER, AUDIENCE, now())
    }

    #[test]
    fn a_token_of_ours_is_taken_and_nothing_else() {
        let (_folder, ring) = ring();
        let good = json!({ "alg": "EdDSA", "typ": "JWT", "kid": ring.signing().kid });
        assert_eq!(check(&ring, &signed(&ring, &good, &claims())).unwrap().sub, "acme/w");
        let own: Claims = serde_json::from_value(claims()).unwrap();
        assert_eq!(check(&ring, &sign(&ring, &own).unwrap()), Ok(own));
        let now = now();
        for (field, value) in [
            ("exp", json!((now + 60).to_string())),
            ("nbf", json!(now.to_string())),
            ("iat", json!(now as f64 + 0.5)),
            ("exp", json!((now + 30) as f64 + 0.5)),
            ("exp", json!(now)),
            ("exp", json!(now + 61)),
            ("exp", json!(null)),
            ("nbf", json!(now + 30)),
            ("iat", json!(now + 30)),
            ("aud", json!([AUDIENCE])),
            ("aud", json!("https://api.example/")),
            ("iss", json!([ISSUER])),
            ("iss", json!("https://evil.example")),
            ("jti", json!("")),
            ("jti", json!(1)),
            ("tenant", json!(null)),
            ("admin", json!(true)),
        ] {
            let mut bad = claims();
            bad[field] = value.clone();
            assert_eq!(check(&ring, &signed(&ring, &good, &bad)), Err(Forged), "{field} {value}");
        }
        for bad in [
            json!({ "alg": "none", "kid": ring.signing().kid }),
            json!({ "alg": "HS256", "kid": ring.signing().kid }),
            json!({ "alg": "RS256", "kid": ring.signing().kid }),
            json!({ "alg": "EdDSA" }),
            json!({ "alg": "EdDSA", "kid": "../../../dev/null" }),
            json!({ "alg": "EdDSA", "kid": ring.signing().kid, "jku": "https://evil.example" }),
            json!({ "alg": "EdDSA", "kid": ring.signing().kid, "jwk": { "kty": "OKP" } }),
            json!({ "alg": "EdDSA", "kid": ring.signing().kid, "crit": ["exp"] }),
            json!({ "alg": "EdDSA", "kid": ring.signing().kid, "typ": "other" }),
        ] {
            assert_eq!(check(&ring, &signed(&ring, &bad, &claims())), Err(Forged), "{bad}");
        }
    }

    #[test]
    fn the_public_key_is_no_shared_secret_and_no_signature_is_none() {
        let (_folder, ring) = ring();
        let kid = Some(ring.signing().kid.clone());
        let public = URL_SAFE_NO_PAD.decode(&ring.signing().x).unwrap();
        for secret in [public, ring.signing().x.clone().into_bytes()] {
            let header = Header { kid: kid.clone(), ..Header::new(Algorithm::HS256) };
            let forged =
                jsonwebtoken::encode(&header, &claims(), &EncodingKey::from_secret(&secret)).unwrap();
            assert_eq!(check(&ring, &forged), Err(Forged));
        }
        let good = json!({ "alg": "EdDSA", "kid": ring.signing().kid });
        let token = signed(&ring, &good, &claims());
        let (message, _) = token.rsplit_once('.').unwrap();
        for bad in
            [message.to_owned(), format!("{message}."), format!("{token}.x"), String::new(), "..".into()]
        {
            assert_eq!(check(&ring, &bad), Err(Forged), "{bad}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// No single changed character of a token is taken, and no noise either.
        #[test]
        fn changed_tokens_are_refused(at in any::<prop::sample::Index>(), with in "[A-Za-z0-9_.-]", noise in ".{0,200}") {
            let (_folder, ring) = ring();
            let own: Claims = serde_json::from_value(claims()).unwrap();
            let token = sign(&ring, &own).unwrap();
            let at = at.index(token.len());
            // The last character of a part may carry bits that decoding drops; the library refuses those, too.
            prop_assume!(token[at..=at] != with);
            let changed = format!("{}{with}{}", &token[..at], &token[at + 1..]);
            prop_assert_eq!(check(&ring, &changed), Err(Forged));
            prop_assert_eq!(check(&ring, &noise), Err(Forged));
        }
    }
}
