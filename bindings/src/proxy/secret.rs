//! A secret in memory: never printed, wiped when it is dropped.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

/// Longest secret, in bytes: the private key of an RSA pair of 8,192 bits as PEM.
pub const SECRET_BYTES_MAX: usize = 8 * 1024;

/// A secret's value and which one of its values this is. Cheap to clone; the last clone wipes it.
#[derive(Clone)]
pub struct Secret {
    value: Arc<Zeroizing<Vec<u8>>>,
    version: u64,
}

impl Secret {
    /// This value, under a number that changes with every rotation.
    #[must_use]
    pub fn new(value: Zeroizing<Vec<u8>>, version: u64) -> Self {
        Self { value: Arc::new(value), version }
    }

    /// The number.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The value, for what injects it and for what looks for it in answers; for nobody else.
    pub(super) fn expose(&self) -> &[u8] {
        &self.value
    }

    /// The value as text.
    pub(super) fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.value).ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret(version {})", self.version)
    }
}

/// Where secrets come from. Asked at each use, so that a rotation counts at once.
pub trait SecretSource: Send + Sync {
    /// The tenant's secret of this name.
    fn secret(&self, tenant: &str, name: &str) -> Option<Secret>;
}
