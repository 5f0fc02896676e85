//! `[identity]` of the configuration: as whom the gateway signs what it says about its guests.

use serde::Deserialize;

use super::{ConfigError, ensure};

/// Days after which a new signing key is made, unless the configuration says otherwise.
const ROTATE_DAYS: u64 = 30;
/// Longest issuer, in bytes.
const ISSUER_BYTES_MAX: usize = 256;

/// Who signs, and for how long with one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityConfig {
    /// `iss` of every token, and the URL under which the keys are published.
    pub issuer: String,
    /// Days after which a new key is made.
    pub rotate_days: u64,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawIdentity {
    issuer: Option<String>,
    rotate_days: Option<u64>,
}

impl RawIdentity {
    pub(super) fn check(self, base_domain: &str) -> Result<IdentityConfig, ConfigError> {
        let issuer = self.issuer.unwrap_or_else(|| format!("https://{base_domain}"));
        let rest = issuer.strip_prefix("https://").or_else(|| issuer.strip_prefix("http://"));
        let plain = rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_graphic()));
        let sound = plain && issuer.len() <= ISSUER_BYTES_MAX && !issuer.ends_with('/');
        ensure(
            sound && !issuer.contains(['?', '#', '"', '\\']),
            "identity.issuer",
            "is not an http or https URL without a query and a `/` at its end",
        )?;
        let rotate_days = self.rotate_days.unwrap_or(ROTATE_DAYS);
        ensure((1..=3_650).contains(&rotate_days), "identity.rotate_days", "must be 1 to 3650")?;
        Ok(IdentityConfig { issuer, rotate_days })
    }
}
