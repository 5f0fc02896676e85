//! Identities and delegations: signed here, checked here, revoked here.
//!
//! ```text
//!  invocation ─▶ env.IDENTITY.token({ audience }) ─┐                     ┌─▶ /v1/proxy/NAME/…   audience ISSUER/v1/proxy/NAME
//!  sandbox ────▶ GET http://identity.atoll/token ──┤                     │
//!  API token ──▶ POST /v1/tokens/identity ─────────┼─▶ JWT, ≤ 60 s ──────┼─▶ others: keys at ISSUER/.well-known/jwks.json
//!  JWT for ISSUER itself ── exchanged: same or less┘                     └─▶ exchanged again for a narrower one
//!  API token ──▶ POST /v1/tokens/delegation ─────────▶ Biscuit, ≤ 24 h ──▶ narrowed offline ──▶ /v1/proxy/NAME/…
//! ```

pub(crate) mod delegation;
pub(crate) mod jwt;
pub(crate) mod mint;
pub(crate) mod ring;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use atoll_bindings::crossing::OfSandbox;
use serde_json::{Value, json};

pub use ring::RingError;

use super::store::{AccessStore, KeepError};
use crate::audit::{PublicKey, Signed};
use crate::config::IdentityConfig;
use crate::deploy::now_ms;
use delegation::{Answer, DELEGATION_SECONDS_MAX, Rights, Wish};
use jwt::{Claims, IDENTITY_SECONDS_MAX};
use ring::Ring;

/// The folder of the keys within the data folder.
const FOLDER: &str = "identity";
/// How often the folder of keys is looked at, in seconds.
const REFRESH_SECONDS: u64 = 60;
/// Tokens for one use that are remembered at once.
const SPENT_MAX: usize = 100_000;
/// Fewest of them before the expired ones are looked for.
const SPENT_SWEEP_MIN: usize = 1_024;

/// Why a token is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejected {
    /// None of ours, not for this audience, not now, used up or revoked: all alike.
    Invalid,
    /// One of ours that does not allow this.
    Refused,
    /// It could not be checked now.
    Busy,
}

/// Whom a token speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bearer {
    pub(crate) tenant: String,
    /// `tenant/worker` or what a delegation was made for.
    pub(crate) sub: String,
    /// The invocation behind it.
    pub(crate) inv: Option<String>,
    /// The sandbox that got it.
    pub(crate) sandbox: Option<OfSandbox>,
}

/// Signs and checks.
pub(crate) struct Issuer {
    issuer: String,
    folder: PathBuf,
    rotate_ms: u64,
    ring: RwLock<Arc<Ring>>,
    spent: Mutex<Spent>,
    store: AccessStore,
    revoked: RwLock<Revoked>,
    /// One change of it at a time, so that the table follows the store.
    change: tokio::sync::Mutex<()>,
}

/// By tenant: what was revoked, and until when it matters.
type Revoked = HashMap<String, HashMap<String, u64>>;

async fn revoked(store: &AccessStore) -> Result<Revoked, KeepError> {
    let mut revoked = Revoked::new();
    for (tenant, id, until_ms) in store.revoked().await? {
        revoked.entry(tenant).or_default().insert(id, until_ms);
    }
    Ok(revoked)
}

#[derive(Default)]
struct Spent {
    until_s: HashMap<String, u64>,
    sweep_at: usize,
}

impl Spent {
    /// Uses a token up.
    fn spend(&mut self, jti: &str, until_s: u64, now_s: u64) -> Result<(), Rejected> {
        if self.until_s.len() >= self.sweep_at {
            self.until_s.retain(|_, until| *until > now_s);
            self.sweep_at = (self.until_s.len() * 2).max(SPENT_SWEEP_MIN);
        }
        if self.until_s.contains_key(jti) {
            return Err(Rejected::Invalid);
        }
        if self.until_s.len() >= SPENT_MAX {
            self.sweep_at = 0;
            return Err(Rejected::Busy);
        }
        self.until_s.insert(jti.to_owned(), until_s);
        Ok(())
    }
}

impl Issuer {
    pub(crate) async fn open(
        config: &IdentityConfig,
        data_dir: &Path,
        store: AccessStore,
    ) -> Result<Self, super::AccessError> {
        let rotate_ms = config.rotate_days * 24 * 3_600_000;
        let folder = data_dir.join(FOLDER);
        let ring = Ring::refresh(&folder, now_ms(), rotate_ms)?;
        let revoked = revoked(&store).await?;
        Ok(Self {
            issuer: config.issuer.clone(),
            folder,
            rotate_ms,
            ring: RwLock::new(Arc::new(ring)),
            spent: Mutex::default(),
            store,
            revoked: RwLock::new(revoked),
            change: tokio::sync::Mutex::default(),
        })
    }

    /// Follows the folder of keys for as long as the server lives.
    pub(crate) async fn refresh(self: Arc<Self>) {
        loop {
            tokio::time::sleep(Duration::from_secs(REFRESH_SECONDS)).await;
            let own = Arc::clone(&self);
            let work = move || Ring::refresh(&own.folder, now_ms(), own.rotate_ms);
            match tokio::task::spawn_blocking(work).await {
                Ok(Ok(ring)) => *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring),
                Ok(Err(error)) => tracing::error!(%error, "the signing keys stay as they were"),
                Err(_) => return,
            }
        }
    }

    fn ring(&self) -> Arc<Ring> {
        Arc::clone(&self.ring.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Signs a checkpoint of the audit log.
    pub(crate) fn sign_checkpoint(&self, text: &[u8]) -> Option<Signed> {
        self.ring().signing().sign(text)
    }

    /// `iss`, and the audience of tokens that are to be exchanged.
    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The audience of tokens for a proxy.
    pub(crate) fn proxy_audience(&self, proxy: &str) -> String {
        format!("{}/v1/proxy/{proxy}", self.issuer)
    }

    /// The public keys (RFC 7517).
    pub(crate) fn jwks(&self) -> Value {
        let ring = self.ring();
        let keys = ring.all().iter().map(|key| {
            json!({ "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": key.kid, "x": key.x })
        });
        json!({ "keys": keys.collect::<Vec<_>>() })
    }

    /// What OpenID Connect Discovery wants to know.
    pub(crate) fn document(&self) -> Value {
        json!({
            "issuer": self.issuer,
            "jwks_uri": format!("{}/.well-known/jwks.json", self.issuer),
            "id_token_signing_alg_values_supported": ["EdDSA"],
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "claims_supported": ["iss", "sub", "aud", "iat", "nbf", "exp", "jti", "tenant", "worker", "inv", "user", "sandbox",
                "code", "egress", "budget", "act", "once"],
        })
    }

    /// Signs an identity that lives for so many seconds, at most [`IDENTITY_SECONDS_MAX`], and not beyond the end of the one it is
    /// made from. Times, issuer and number are set here.
    pub(crate) fn sign(
        &self,
        mut claims: Claims,
        seconds: u64,
        not_beyond_s: Option<u64>,
    ) -> Option<(String, Claims)> {
        let now_s = now_ms() / 1_000;
        claims.iss.clone_from(&self.issuer);
        (claims.iat, claims.nbf) = (now_s, now_s);
        claims.exp = now_s + seconds.clamp(1, IDENTITY_SECONDS_MAX);
        claims.exp = claims.exp.min(not_beyond_s.unwrap_or(u64::MAX));
        claims.jti = random_id();
        Some((jwt::sign(&self.ring(), &claims)?, claims))
    }

    /// Signs a delegation.
    pub(crate) fn delegate(&self, rights: Rights) -> Option<(String, String, Rights)> {
        let end = now_ms() / 1_000 + DELEGATION_SECONDS_MAX;
        let rights = Rights { until_s: rights.until_s.min(end), ..rights };
        let (token, id) = delegation::delegate(&self.ring(), &rights)?;
        Some((token, id, rights))
    }

    /// What an identity says, if it is valid for this audience now. One that is good for one use is used up.
    pub(crate) fn verify(&self, token: &str, audience: &str) -> Result<Claims, Rejected> {
        let now_s = now_ms() / 1_000;
        let claims = jwt::verify(&self.ring(), token, &self.issuer, audience, now_s);
        let claims = claims.map_err(|_| Rejected::Invalid)?;
        let ids = [Some(&claims.jti), claims.inv.as_ref()];
        if ids.into_iter().flatten().any(|id| self.is_revoked(&claims.tenant, id)) {
            return Err(Rejected::Invalid);
        }
        if claims.once {
            let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
            spent.spend(&claims.jti, claims.exp, now_s)?;
        }
        Ok(claims)
    }

    /// Whether a token allows a request to a proxy: an identity for this proxy, or a delegation.
    pub(crate) async fn admit(
        &self,
        token: &str,
        proxy: &str,
        method: &str,
        path: Option<&str>,
    ) -> Result<Bearer, Rejected> {
        if token.contains('.') {
            let claims = self.verify(token, &self.proxy_audience(proxy))?;
            let Claims { tenant, sub, inv, user, sandbox, .. } = claims;
            let sandbox = user.zip(sandbox).map(|(user, id)| OfSandbox { user: user.into(), id: id.into() });
            return Ok(Bearer { tenant, sub, inv, sandbox });
        }
        let ring = self.ring();
        let [token, proxy, method] = [token, proxy, method].map(str::to_owned);
        let path = path.map(str::to_owned);
        // Foreign rules run for a while: not on the threads that move bytes.
        let work = move || {
            let path = path.as_deref();
            let wish = Wish { proxy: &proxy, method: &method, path, now: SystemTime::now() };
            delegation::check(&ring, &token, wish)
        };
        match tokio::task::spawn_blocking(work).await.map_err(|_| Rejected::Busy)? {
            Answer::Allowed { tenant, ids, .. } if ids.iter().any(|id| self.is_revoked(&tenant, id)) => {
                Err(Rejected::Invalid)
            }
            Answer::Allowed { tenant, sub, .. } => Ok(Bearer { tenant, sub, inv: None, sandbox: None }),
            Answer::Forged => Err(Rejected::Invalid),
            Answer::Refused => Err(Rejected::Refused),
            Answer::Busy => Err(Rejected::Busy),
        }
    }

    /// Takes over what others revoked.
    pub(crate) async fn reread(&self) -> Result<(), KeepError> {
        let _change = self.change.lock().await;
        let now = revoked(&self.store).await?;
        *self.revoked.write().unwrap_or_else(PoisonError::into_inner) = now;
        Ok(())
    }

    /// Revokes what has this id: an identity's number, an invocation, or a block of a delegation. From now on, on this server;
    /// others on the same data folder follow soon (`access::FOLLOW_MS`).
    pub(crate) async fn revoke(&self, tenant: &str, id: &str) -> Result<(), KeepError> {
        let _change = self.change.lock().await;
        let now_ms = now_ms();
        let until_ms = now_ms + (DELEGATION_SECONDS_MAX + IDENTITY_SECONDS_MAX) * 1_000;
        self.store.revoke(tenant, id, until_ms, now_ms).await?;
        let mut revoked = self.revoked.write().unwrap_or_else(PoisonError::into_inner);
        let own = revoked.entry(tenant.to_owned()).or_default();
        own.retain(|_, until| *until >= now_ms);
        own.insert(id.to_owned(), until_ms);
        Ok(())
    }

    pub(super) fn is_revoked(&self, tenant: &str, id: &str) -> bool {
        let revoked = self.revoked.read().unwrap_or_else(PoisonError::into_inner);
        revoked.get(tenant).is_some_and(|ids| ids.contains_key(id))
    }
}

/// The public keys of the gateway with this data folder; `None` if it has none.
///
/// # Errors
/// If they cannot be read: they are in the files of the private ones.
pub fn published_keys(data_dir: &Path) -> Result<Option<Vec<PublicKey>>, RingError> {
    let folder = data_dir.join(FOLDER);
    if folder.is_dir() { ring::published(&folder).map(Some) } else { Ok(None) }
}

/// A name that nobody guesses.
pub(crate) fn random_id() -> String {
    format!("{:016x}{:016x}", crate::server::random_u64(), crate::server::random_u64())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A number is taken once for as long as its token lives, and what is remembered does not grow with time.
        #[test]
        fn a_number_is_spent_once(steps in prop::collection::vec((0u64..3, 0u8..30), 1..300)) {
            let (mut spent, mut now_s, mut taken) = (Spent::default(), 1_000, HashMap::<String, u64>::new());
            for (step, number) in steps {
                now_s += step;
                let jti = number.to_string();
                let alive = taken.get(&jti).is_some_and(|until| *until > now_s);
                let result = spent.spend(&jti, now_s + 60, now_s);
                prop_assert!(!alive || result.is_err());
                if result.is_ok() {
                    taken.insert(jti, now_s + 60);
                }
            }
        }
    }

    #[test]
    fn a_full_memory_is_our_failure_and_passes() {
        let mut spent = Spent::default();
        for n in 0..SPENT_MAX {
            spent.spend(&n.to_string(), 60, 0).unwrap();
        }
        assert_eq!(spent.spend("x", 60, 0), Err(Rejected::Busy));
        assert_eq!(spent.spend("x", 160, 100), Ok(()));
    }
}
