//! Tenants' secrets: sealed at rest and in memory, open only while they are used.
//!
//! ```text
//!  PUT ─▶ seal ─▶ access.db ─▶ table of sealed secrets ──each use: open──▶ Secret ──dropped──▶ wiped
//! ```
//!
//! What is plain, and how long: the master keys for the life of the process, inside the cipher; a value from the start of a
//! request until its answer's last byte, as it is injected and then searched for; a minted token until it expires. The HTTP
//! library's own copies of a header or a URL are freed with the request and not wiped.

pub(crate) mod master;
pub(crate) mod seal;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use atoll_bindings::proxy::{SECRET_BYTES_MAX, SECRET_BYTES_MIN, Secret, SecretSource};
use serde::Serialize;
use zeroize::Zeroizing;

use super::AccessError;
use super::store::{AccessStore, KeepError, SecretRow};
use crate::config::SecretsConfig;
use crate::deploy::now_ms;
use master::MasterKeys;
use seal::{Label, SealError, is_proof, open, proof, rewrap};

/// What anyone may know of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SecretInfo {
    pub(crate) name: String,
    /// Grows with each new value; never used twice.
    pub(crate) version: u64,
    pub(crate) created_ms: u64,
    pub(crate) changed_ms: u64,
}

impl From<&SecretRow> for SecretInfo {
    fn from(row: &SecretRow) -> Self {
        let (created_ms, changed_ms) = (row.created_ms, row.changed_ms);
        Self { name: row.name.clone(), version: row.sealed.version, created_ms, changed_ms }
    }
}

/// Why a secret could not be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    /// No master key is configured.
    #[error("secrets need a master key: see [secrets] of the configuration")]
    NotConfigured,
    /// Too short to be told from chance in an answer, or too long.
    #[error("a secret has {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes")]
    Size,
    /// The store failed or refused.
    #[error(transparent)]
    Keep(#[from] KeepError),
}

/// All secrets of all tenants, sealed.
pub(crate) struct Vault {
    keys: Option<Arc<MasterKeys>>,
    store: AccessStore,
    held: RwLock<HashMap<String, HashMap<String, SecretRow>>>,
    /// One change at a time, so that the table follows the store.
    change: tokio::sync::Mutex<()>,
}

impl Vault {
    /// Reads the master keys and what is stored. A key that is missing or is not the one that it says it is, is an error: better
    /// no start than credentials that cannot be used.
    pub(crate) async fn open(
        config: Option<&SecretsConfig>,
        store: AccessStore,
    ) -> Result<Self, AccessError> {
        let keys = match config {
            None => None,
            Some(config) => Some(Arc::new(MasterKeys::load(config).await?)),
        };
        let rows = store.secrets().await?;
        if let Some(keys) = &keys {
            prove(keys, &store).await?;
            if let Some(row) = rows.iter().find(|row| keys.find(&row.sealed.key_id).is_none()) {
                return Err(KeepError::from(SealError::UnknownKey(row.sealed.key_id.clone())).into());
            }
        }
        let mut held: HashMap<String, HashMap<String, SecretRow>> = HashMap::new();
        for row in rows {
            held.entry(row.tenant.clone()).or_default().insert(row.name.clone(), row);
        }
        Ok(Self { keys, store, held: RwLock::new(held), change: tokio::sync::Mutex::default() })
    }

    /// Keeps a value; in force for the next use.
    pub(crate) async fn put(
        &self,
        tenant: &str,
        name: &str,
        value: Zeroizing<Vec<u8>>,
    ) -> Result<SecretInfo, SecretError> {
        let keys = self.keys.clone().ok_or(SecretError::NotConfigured)?;
        if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&value.len()) {
            return Err(SecretError::Size);
        }
        let _change = self.change.lock().await;
        let (owner, label) = (tenant.to_owned(), name.to_owned());
        let seal = move |version| seal::seal(&keys, Label { tenant: &owner, name: &label }, version, &value);
        let row = self.store.put_secret(tenant, name, now_ms(), seal).await?;
        let info = SecretInfo::from(&row);
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        held.entry(tenant.to_owned()).or_default().insert(name.to_owned(), row);
        Ok(info)
    }

    /// Forgets a secret.
    pub(crate) async fn delete(&self, tenant: &str, name: &str) -> Result<(), SecretError> {
        let _change = self.change.lock().await;
        self.store.delete_secret(tenant, name).await?;
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        held.get_mut(tenant).and_then(|secrets| secrets.remove(name));
        Ok(())
    }

    /// What there is, by name.
    pub(crate) fn list(&self, tenant: &str) -> Vec<SecretInfo> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let mut list: Vec<SecretInfo> =
            held.get(tenant).into_iter().flat_map(|secrets| secrets.values().map(Into::into)).collect();
        list.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        list
    }

    /// One of them.
    pub(crate) fn info(&self, tenant: &str, name: &str) -> Option<SecretInfo> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.get(tenant)?.get(name).map(Into::into)
    }

    /// Brings every secret under the current master key; how many were not.
    pub(crate) async fn reseal(&self) -> Result<u64, KeepError> {
        let Some(keys) = self.keys.clone() else { return Ok(0) };
        let current = keys.current().id.clone();
        let again =
            move |row: &SecretRow| rewrap(&keys, Label { tenant: &row.tenant, name: &row.name }, &row.sealed);
        self.store.rewrap(&current, again).await
    }
}

/// Each key must be the one that it was.
async fn prove(keys: &MasterKeys, store: &AccessStore) -> Result<(), KeepError> {
    let proofs = store.proofs().await?;
    for key in keys.all() {
        match proofs.iter().find(|(id, _)| *id == key.id) {
            Some((_, made)) if is_proof(&key.key, &key.id, made) => {}
            Some(_) => return Err(SealError::WrongKey(key.id.clone()).into()),
            None => store.put_proof(&key.id, proof(&key.key, &key.id)?).await?,
        }
    }
    Ok(())
}

impl SecretSource for Vault {
    fn secret(&self, tenant: &str, name: &str) -> Option<Secret> {
        let keys = self.keys.as_ref()?;
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let row = held.get(tenant)?.get(name)?;
        match open(keys, Label { tenant, name }, &row.sealed) {
            Ok(value) => Some(Secret::new(value, row.sealed.version)),
            Err(error) => {
                tracing::error!(tenant, secret = name, %error, "a secret cannot be used");
                None
            }
        }
    }
}
