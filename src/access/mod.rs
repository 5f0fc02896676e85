//! Who may use what beyond code and network: secrets, the proxies that use them, API tokens, and the identities that the
//! gateway signs.
//!
//! ```text
//!  access.db ──▶ AccessStore ─┬─▶ Vault     sealed secrets      ─┐
//!                             ├─▶ Proxies   rules over secrets  ◀┘──▶ env.NAME.fetch(), /v1/proxy/NAME/…
//!                             ├─▶ Tokens    hashes, scopes            /v1/…
//!                             └─▶ revocations ─┐
//!  identity/*.seed ─▶ Ring ──────────────────▶ Issuer  signed, short-lived: who, for whom, from when to when
//! ```
//!
//! Everything is in memory and changes there after it changed at rest, so a check never waits for the disk.

pub mod identity;
pub mod proxies;
pub(crate) mod secrets;
pub(crate) mod store;
pub mod tokens;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use atoll_bindings::crossing::Witness;

use crate::config::{Config, SecretsConfig};
use crate::deploy::outbound::Outbound;
use crate::observe::{AccessEvent, Observer};
use identity::{Issuer, RingError};
use proxies::Proxies;
use secrets::Vault;
use secrets::master::MasterError;
use store::{AccessStore, KeepError};
use tokens::Tokens;

/// Why none of it can be had.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The store failed, or a master key does not fit it.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// A master key cannot be read.
    #[error(transparent)]
    Master(#[from] MasterError),
    /// The signing keys cannot be read or made.
    #[error(transparent)]
    Ring(#[from] RingError),
}

/// All of it.
pub(crate) struct Access {
    pub(crate) vault: Arc<Vault>,
    pub(crate) proxies: Proxies,
    pub(crate) tokens: Tokens,
    pub(crate) issuer: Arc<Issuer>,
    store: AccessStore,
    observer: Arc<dyn Observer>,
    witness: Arc<dyn Witness>,
}

/// How often it is looked for what another gateway on the same data folder revoked, in milliseconds.
const FOLLOW_MS: u64 = 1_000;

impl Access {
    pub(crate) async fn open(
        config: &Config,
        outbound: Arc<Outbound>,
        observer: Arc<dyn Observer>,
        witness: Arc<dyn Witness>,
    ) -> Result<Self, AccessError> {
        let store = AccessStore::open(&config.data_dir).await?;
        let vault = Arc::new(Vault::open(config.secrets.as_ref(), store.clone()).await?);
        let proxies = Proxies::open(config, outbound, Arc::clone(&vault), store.clone()).await?;
        let tokens = Tokens::open(store.clone()).await?;
        let issuer = Arc::new(Issuer::open(&config.identity, &config.data_dir, store.clone()).await?);
        Ok(Self { vault, proxies, tokens, issuer, store, observer, witness })
    }

    /// Follows what others on the same data folder revoke, for as long as the server lives.
    pub(crate) async fn follow(self: Arc<Self>) {
        loop {
            tokio::time::sleep(Duration::from_millis(FOLLOW_MS)).await;
            if let Err(error) = catch_up(&self.store, &self.issuer, &self.tokens).await {
                tracing::error!(%error, "what others revoked cannot be read");
            }
        }
    }

    /// Reports what was done.
    pub(crate) fn tell(&self, event: &AccessEvent<'_>) {
        self.observer.access(event);
    }
}

/// Takes over revocations and API tokens if anybody else changed anything.
async fn catch_up(store: &AccessStore, issuer: &Issuer, tokens: &Tokens) -> Result<(), KeepError> {
    if !store.changed().await? {
        return Ok(());
    }
    let read = match issuer.reread().await {
        Ok(()) => tokens.reread().await,
        failed => failed,
    };
    read.inspect_err(|_| store.look_again())
}

/// Brings all secrets in this data directory under the current master key; how many were not. The server may run meanwhile, if
/// it knows both keys.
///
/// # Errors
/// If a key is missing, or the store fails.
pub async fn reseal(config: &SecretsConfig, data_dir: &Path) -> Result<u64, AccessError> {
    let vault = Vault::open(Some(config), AccessStore::open(data_dir).await?).await?;
    Ok(vault.reseal().await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, Scope};

    /// What a gateway has of it, on a data folder that another one has too.
    async fn gateway(data: &Path) -> (AccessStore, Issuer, Tokens) {
        let config = Config::parse("[tenants.t]\n", Overrides::default()).unwrap();
        let store = AccessStore::open(data).await.unwrap();
        let issuer = Issuer::open(&config.identity, data, store.clone()).await.unwrap();
        (store.clone(), issuer, Tokens::open(store).await.unwrap())
    }

    #[tokio::test]
    async fn what_one_gateway_revokes_is_revoked_on_the_other() {
        let data = tempfile::tempdir().unwrap();
        let (_, issuer, tokens) = gateway(data.path()).await;
        let (store, other, others) = gateway(data.path()).await;
        let (made, token) = tokens.create("t", "ci".into(), vec![Scope::Read], None).await.unwrap();
        let sha256: [u8; 32] =
            sha2::Digest::finalize(<sha2::Sha256 as sha2::Digest>::new_with_prefix(token.as_bytes())).into();
        catch_up(&store, &other, &others).await.unwrap();
        assert!(others.find(&sha256, 0).is_some(), "what was made there is known here");
        assert!(!store.changed().await.unwrap());
        issuer.revoke("t", "abc").await.unwrap();
        tokens.delete("t", &made.id).await.unwrap();
        assert!(!other.is_revoked("t", "abc") && others.find(&sha256, 0).is_some());
        // Own changes are no news, and are not lost by those of others.
        other.revoke("t", "own").await.unwrap();
        catch_up(&store, &other, &others).await.unwrap();
        assert!(other.is_revoked("t", "abc") && other.is_revoked("t", "own"));
        assert!(!other.is_revoked("u", "abc"));
        assert!(others.find(&sha256, 0).is_none());
        assert!(!store.changed().await.unwrap(), "nothing is read again without news");
    }
}
