//! What the store takes and gives: keys, entries, quotas, errors.

use std::path::PathBuf;
use std::sync::Arc;

use atoll_loader::limits::MIB;
use serde::Deserialize;

use super::{KEY_BYTES_MAX, NAMESPACE_NAME_BYTES_MAX, VALUE_BYTES_MAX, Value};

/// Why something could not be stored or read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum KvError {
    /// The data directory cannot be used.
    #[error("cannot use the data directory {path}: {source}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: Arc<std::io::Error>,
    },
    /// SQLite failed.
    #[error("the key-value store failed: {0}")]
    Sqlite(Arc<rusqlite::Error>),
    /// The thread that writes did not start.
    #[error("the key-value store's thread did not start: {0}")]
    Thread(Arc<std::io::Error>),
    /// Written by a newer Atoll.
    #[error("the key-value store has format {0}, which this version does not know")]
    Format(i64),
    /// What is stored is not what was stored.
    #[error("the key-value store is damaged: {0}")]
    Damaged(&'static str),
    /// A quota is used up.
    #[error("{0}")]
    Full(Quota),
    /// The value is larger than [`VALUE_BYTES_MAX`].
    #[error("Value length of {bytes} exceeds limit of {VALUE_BYTES_MAX}.")]
    ValueTooLarge {
        /// Its bytes, as far as they were read.
        bytes: u64,
    },
    /// There is no such namespace.
    #[error("there is no such namespace")]
    NoNamespace,
    /// The value was replaced again and again while it was to be read.
    #[error("the value changes too often to be read")]
    Restless,
    /// The server is shutting down.
    #[error("the server is shutting down")]
    Stopped,
}

impl From<rusqlite::Error> for KvError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(Arc::new(error))
    }
}

/// A quota, with its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Quota {
    /// Bytes of all namespaces.
    #[error("The tenant's KV namespaces may hold {0} bytes.")]
    Bytes(u64),
    /// Keys of all namespaces.
    #[error("The tenant's KV namespaces may hold {0} keys.")]
    Keys(u64),
    /// Bytes of one namespace.
    #[error("A KV namespace may hold {0} bytes.")]
    NamespaceBytes(u64),
    /// Keys of one namespace.
    #[error("A KV namespace may hold {0} keys.")]
    NamespaceKeys(u64),
    /// Namespaces.
    #[error("The tenant may have {0} KV namespaces.")]
    Namespaces(u32),
}

/// What one tenant may store: `kv` of its table in the configuration. Keys, metadata and values count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KvQuota {
    /// Bytes of all its namespaces.
    pub bytes_max: u64,
    /// Keys of all its namespaces.
    pub keys_max: u64,
    /// Its namespaces.
    pub namespaces_max: u32,
    /// Bytes of one namespace.
    pub namespace_bytes_max: u64,
    /// Keys of one namespace.
    pub namespace_keys_max: u64,
}

impl Default for KvQuota {
    fn default() -> Self {
        const GIB: u64 = 1024 * MIB as u64;
        let (bytes_max, keys_max) = (GIB, 1_000_000);
        Self {
            bytes_max,
            keys_max,
            namespaces_max: 100,
            namespace_bytes_max: bytes_max,
            namespace_keys_max: keys_max,
        }
    }
}

/// Why a text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadKey {
    #[error("Key name cannot be empty.")]
    Empty,
    #[error("\".\" is not allowed as a key name.")]
    Dot,
    #[error("\"..\" is not allowed as a key name.")]
    Dots,
    #[error("UTF-8 encoded length of {0} exceeds key length limit of {KEY_BYTES_MAX}.")]
    TooLong(usize),
}

/// A key that was checked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key(Box<str>);

impl Key {
    pub(crate) fn parse(name: &str) -> Result<Self, BadKey> {
        match name {
            "" => Err(BadKey::Empty),
            "." => Err(BadKey::Dot),
            ".." => Err(BadKey::Dots),
            name if name.len() > KEY_BYTES_MAX => Err(BadKey::TooLong(name.len())),
            name => Ok(Self(name.into())),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Whether a text can name a namespace.
#[must_use]
pub fn is_namespace_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    !name.is_empty()
        && name.len() <= NAMESPACE_NAME_BYTES_MAX
        && name != "."
        && name != ".."
        && name.bytes().all(legal)
}

/// An entry that was found.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) value: Value,
    /// Bytes of the value.
    pub(crate) bytes: u64,
    /// JSON text.
    pub(crate) metadata: Option<String>,
    /// Seconds since the Unix epoch.
    pub(crate) expires_s: Option<u64>,
}

/// A key of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListedKey {
    pub(crate) name: String,
    pub(crate) expires_s: Option<u64>,
    pub(crate) metadata: Option<String>,
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) keys: Vec<ListedKey>,
    /// Whether no key comes after.
    pub(crate) complete: bool,
}

/// What goes with a value.
#[derive(Clone, Debug, Default)]
pub(crate) struct PutOptions {
    /// JSON text, at most [`METADATA_BYTES_MAX`].
    pub(crate) metadata: Option<String>,
    /// Seconds since the Unix epoch.
    pub(crate) expires_s: Option<u64>,
}

/// A namespace as told to its tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamespaceInfo {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) keys: u64,
}
