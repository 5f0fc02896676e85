//! API tokens that tenants make and revoke while the server runs, beside those of the configuration.
//!
//! A token is 256 random bits, and only its SHA-256 is kept. A slow hash is for passwords, which can be guessed; nobody guesses
//! 256 random bits, so one fast hash is enough and costs each request nothing. A look-up by the hash tells an attacker no more
//! than the hash of a guess, so it need not be in constant time.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::store::{AccessStore, KeepError, TokenRow};
use crate::config::Scope;
use crate::deploy::now_ms;

/// Randomness in a token, in bytes.
const TOKEN_BYTES: usize = 32;
/// What every token begins with, so that scanners of leaked secrets know it.
const PREFIX: &str = "atoll_";

/// A new token and its hash.
pub struct NewToken {
    /// What the client sends; shown once.
    pub token: Zeroizing<String>,
    /// What is kept.
    pub sha256: [u8; 32],
}

impl NewToken {
    /// Makes one; `None` if the system gives no randomness.
    #[must_use]
    pub fn make() -> Option<Self> {
        let mut random = Zeroizing::new([0; TOKEN_BYTES]);
        getrandom::fill(&mut *random).ok()?;
        let token = Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random.as_slice())));
        let sha256 = Sha256::digest(token.as_bytes()).into();
        Some(Self { token, sha256 })
    }
}

/// What anyone with the right to see tokens sees of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TokenInfo {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) scopes: Vec<Scope>,
    pub(crate) created_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expires_ms: Option<u64>,
}

impl From<&TokenRow> for TokenInfo {
    fn from(row: &TokenRow) -> Self {
        Self {
            id: row.id.clone(),
            name: row.name.clone(),
            scopes: row.scopes.clone(),
            created_ms: row.created_ms,
            expires_ms: row.expires_ms,
        }
    }
}

/// Whom a token speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) tenant: String,
    /// The token's id, for events.
    pub(crate) id: String,
    pub(crate) scopes: Vec<Scope>,
}

/// All tokens of all tenants, by hash.
pub(crate) struct Tokens {
    store: AccessStore,
    held: RwLock<HashMap<[u8; 32], TokenRow>>,
    /// One change at a time, so that the table follows the store.
    change: tokio::sync::Mutex<()>,
}

impl Tokens {
    pub(crate) async fn open(store: AccessStore) -> Result<Self, KeepError> {
        let held = store.tokens().await?.into_iter().map(|row| (row.sha256, row)).collect();
        Ok(Self { store, held: RwLock::new(held), change: tokio::sync::Mutex::default() })
    }

    /// Makes a token for a tenant.
    pub(crate) async fn create(
        &self,
        tenant: &str,
        name: String,
        scopes: Vec<Scope>,
        expires_ms: Option<u64>,
    ) -> Result<(TokenInfo, Zeroizing<String>), KeepError> {
        let NewToken { token, sha256 } = NewToken::make().ok_or(KeepError::Damaged("no randomness"))?;
        let id = format!("{:016x}", crate::server::random_u64());
        let row = TokenRow {
            id,
            tenant: tenant.to_owned(),
            name,
            sha256,
            scopes,
            created_ms: now_ms(),
            expires_ms,
        };
        let _change = self.change.lock().await;
        self.store.put_token(row.clone()).await?;
        let info = TokenInfo::from(&row);
        self.held.write().unwrap_or_else(PoisonError::into_inner).insert(sha256, row);
        Ok((info, token))
    }

    /// Takes over what others made and revoked.
    pub(crate) async fn reread(&self) -> Result<(), KeepError> {
        let _change = self.change.lock().await;
        let held = self.store.tokens().await?.into_iter().map(|row| (row.sha256, row)).collect();
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = held;
        Ok(())
    }

    /// Revokes one; from now on it opens nothing.
    pub(crate) async fn delete(&self, tenant: &str, id: &str) -> Result<(), KeepError> {
        let _change = self.change.lock().await;
        self.store.delete_token(tenant, id).await?;
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, row| row.id != id);
        Ok(())
    }

    /// A tenant's tokens, oldest first. Those that have expired are shown until they are revoked.
    pub(crate) fn list(&self, tenant: &str) -> Vec<TokenInfo> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let mut list: Vec<TokenInfo> =
            held.values().filter(|row| row.tenant == tenant).map(Into::into).collect();
        list.sort_unstable_by(|a, b| (a.created_ms, &a.id).cmp(&(b.created_ms, &b.id)));
        list
    }

    /// Whom the token of this hash speaks for now.
    pub(crate) fn find(&self, sha256: &[u8; 32], now_ms: u64) -> Option<Holder> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let row = held.get(sha256).filter(|row| row.expires_ms.is_none_or(|end| now_ms < end))?;
        Some(Holder { tenant: row.tenant.clone(), id: row.id.clone(), scopes: row.scopes.clone() })
    }
}
