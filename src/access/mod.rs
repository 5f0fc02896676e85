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
    observer: Arc<dyn Observer>,
}

impl Access {
    pub(crate) async fn open(
        config: &Config,
        outbound: Arc<Outbound>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, AccessError> {
        let store = AccessStore::open(&config.data_dir).await?;
        let vault = Arc::new(Vault::open(config.secrets.as_ref(), store.clone()).await?);
        let proxies = Proxies::open(config, outbound, Arc::clone(&vault), store.clone()).await?;
        let tokens = Tokens::open(store.clone()).await?;
        let issuer = Arc::new(Issuer::open(&config.identity, &config.data_dir, store).await?);
        Ok(Self { vault, proxies, tokens, issuer, observer })
    }

    /// Reports what was done.
    pub(crate) fn tell(&self, event: &AccessEvent<'_>) {
        self.observer.access(event);
    }
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
