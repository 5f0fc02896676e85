//! `[secrets]` of the configuration: where the master key comes from, under which secrets are sealed.
//!
//! ```toml
//! [secrets]
//! key_id = "2026-11"                     # named in each sealed secret; change it together with the key
//! key_file = "/etc/atoll/master.key"     # or key_env = "NAME", or key_command = ["kms", "decrypt", "…"]
//! previous = [{ key_id = "2025-11", key_env = "ATOLL_OLD_KEY" }]
//! ```
//!
//! A key is 32 bytes, written as 64 hexadecimal digits or in base64. The configuration never holds the key itself.

use std::path::PathBuf;

use serde::Deserialize;

use super::{ConfigError, Name, ensure};

/// Most keys that are only there to open what they sealed.
const PREVIOUS_MAX: usize = 16;

/// The master key, and those before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretsConfig {
    /// Seals.
    pub current: KeySource,
    /// Only open.
    pub previous: Vec<KeySource>,
}

/// A key by its name, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySource {
    /// Its name; no secret.
    pub id: String,
    /// Where it comes from.
    pub from: KeyFrom,
}

/// Where a key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyFrom {
    /// A file that only its owner can read.
    File(PathBuf),
    /// An environment variable.
    Env(String),
    /// What this command prints.
    Command(Vec<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSecrets {
    #[serde(default = "default_id")]
    key_id: String,
    key_file: Option<PathBuf>,
    key_env: Option<String>,
    key_command: Option<Vec<String>>,
    #[serde(default)]
    previous: Vec<RawSecrets>,
}

fn default_id() -> String {
    "default".to_owned()
}

impl RawSecrets {
    pub(super) fn check(self) -> Result<SecretsConfig, ConfigError> {
        let key = "secrets.previous";
        ensure(self.previous.len() <= PREVIOUS_MAX, key, "has too many entries")?;
        let (current, previous) = self.split("secrets")?;
        let previous: Vec<KeySource> = previous
            .into_iter()
            .map(|raw| {
                ensure(raw.previous.is_empty(), key, "has an entry with a `previous` of its own")?;
                raw.split(key).map(|(source, _)| source)
            })
            .collect::<Result<_, _>>()?;
        let mut ids: Vec<&str> = previous.iter().map(|source| source.id.as_str()).collect();
        ids.push(&current.id);
        ids.sort_unstable();
        ensure(ids.windows(2).all(|pair| pair[0] != pair[1]), "secrets.key_id", "is there twice")?;
        Ok(SecretsConfig { current, previous })
    }

    fn split(self, key: &str) -> Result<(KeySource, Vec<Self>), ConfigError> {
        ensure(Name::parse(&self.key_id).is_some(), &format!("{key}.key_id"), "is not a lower-case label")?;
        let from = match (self.key_file, self.key_env, self.key_command) {
            (Some(path), None, None) => KeyFrom::File(path),
            (None, Some(name), None) if !name.is_empty() => KeyFrom::Env(name),
            (None, None, Some(command)) if !command.is_empty() => KeyFrom::Command(command),
            _ => {
                let reason = "needs exactly one of `key_file`, `key_env` and `key_command`";
                return Err(ConfigError::Value { key: key.into(), reason });
            }
        };
        Ok((KeySource { id: self.key_id, from }, self.previous))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Overrides};

    #[test]
    fn a_key_has_one_source_and_a_name_of_its_own() {
        let text =
            "[secrets]\nkey_id = \"b\"\nkey_env = \"K\"\nprevious = [{ key_id = \"a\", key_file = \"/k\" }]";
        let secrets = Config::parse(text, Overrides::default()).unwrap().secrets.unwrap();
        assert_eq!(secrets.current, KeySource { id: "b".into(), from: KeyFrom::Env("K".into()) });
        assert_eq!(secrets.previous[0].from, KeyFrom::File("/k".into()));
        for bad in [
            "[secrets]",
            "[secrets]\nkey_env = \"\"",
            "[secrets]\nkey_env = \"K\"\nkey_file = \"/k\"",
            "[secrets]\nkey_command = []",
            "[secrets]\nkey_env = \"K\"\nkey_id = \"A b\"",
            "[secrets]\nkey_env = \"K\"\nprevious = [{ key_env = \"L\" }]",
            "[secrets]\nkey = \"00\"",
        ] {
            assert!(Config::parse(bad, Overrides::default()).is_err(), "{bad}");
        }
    }
}
