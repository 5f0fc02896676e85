//! Names that are part of host names.

use std::sync::Arc;

/// Longest tenant or worker name, in bytes: both are DNS labels.
pub const NAME_BYTES_MAX: usize = 63;

/// A tenant's or worker's name: a lower-case DNS label, so that it can be part of a host name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    /// Accepts `[a-z0-9]([a-z0-9-]*[a-z0-9])?` of at most [`NAME_BYTES_MAX`] bytes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = text.as_bytes();
        let fits = !bytes.is_empty() && bytes.len() <= NAME_BYTES_MAX;
        let ends = fits && ok(bytes[0]) && ok(bytes[bytes.len() - 1]);
        (ends && bytes.iter().all(|&b| ok(b) || b == b'-')).then(|| Self(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, shared.
    #[must_use]
    pub fn shared(&self) -> Arc<str> {
        self.0.clone()
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether this is a lower-case DNS host name.
#[must_use]
pub fn is_host_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(|label| Name::parse(label).is_some())
}
