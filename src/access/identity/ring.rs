//! The signing keys: made here, kept in the data directory, replaced before they grow old.
//!
//! ```text
//!            made            + AHEAD            next one signs     + KEPT
//!  key ───────┼─── published ───┼──── signs ────────┼── published ───┼─── deleted
//! ```
//!
//! A key is published before it signs, so that whoever keeps our keys for a while has it in time, and stays published until
//! nothing that it signed can be valid. One file holds one seed; from it come two keys that have nothing to do with each other:
//! one signs identities (JWT), one delegations (Biscuit). To take a key out of service at once, delete its file: within a minute
//! the ring follows.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use biscuit_auth::{Algorithm, KeyPair, PrivateKey};
use jsonwebtoken::{DecodingKey, EncodingKey};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::audit::{PublicKey, Signed};
use crate::config::parse_hex;

/// How long a key is published before it signs, in milliseconds.
pub(crate) const AHEAD_MS: u64 = 3_600_000;
/// How long a key is published after the next one signs, in milliseconds.
pub(crate) const KEPT_MS: u64 = 25 * 3_600_000;
/// Bytes of a seed.
const SEED_BYTES: usize = 32;
/// Most keys that are read.
const KEYS_MAX: usize = 100;
const SUFFIX: &str = ".seed";

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The folder or a file failed.
    #[error("the signing keys in {path}: {source}")]
    File {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Others could read it.
    #[error("the signing key {0} is readable for others; delete it, and a new one is made")]
    Readable(PathBuf),
    /// No key.
    #[error("{0} is no signing key")]
    Shape(PathBuf),
    /// The library gave up.
    #[error("no signing key can be made")]
    Failed,
}

/// One key.
pub(crate) struct SigningKey {
    pub(crate) created_ms: u64,
    /// Its thumbprint (RFC 7638).
    pub(crate) kid: String,
    /// The public half, as a JWK has it.
    pub(crate) x: String,
    pub(crate) encoding: EncodingKey,
    pub(crate) decoding: DecodingKey,
    /// Signs delegations.
    pub(crate) root: KeyPair,
    /// The pair behind `encoding` and `decoding`, for what is no JWT.
    pair: Ed25519KeyPair,
    path: PathBuf,
}

impl SigningKey {
    /// How delegations name it.
    pub(crate) fn root_id(&self) -> u32 {
        u32::try_from(self.created_ms / 1_000).unwrap_or(u32::MAX)
    }

    /// Signs a checkpoint of the audit log.
    pub(crate) fn sign(&self, text: &[u8]) -> Option<Signed> {
        let signature = self.pair.sign(text).as_ref().try_into().ok()?;
        Some(Signed { public: PublicKey::of_x(&self.x)?, signature })
    }
}

/// The public halves of the keys in this folder, which stays as it is.
pub(crate) fn published(folder: &Path) -> Result<Vec<PublicKey>, RingError> {
    Ok(read(folder)?.iter().filter_map(|key| PublicKey::of_x(&key.x)).collect())
}

/// What is to be done about keys made at these times, in order.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    /// Which one signs.
    signs: Option<usize>,
    /// How many of the first are not needed any more.
    gone: usize,
    /// Whether a new one is due.
    due: bool,
}

fn plan(created_ms: &[u64], now_ms: u64, rotate_ms: u64) -> Plan {
    let ripe = created_ms.iter().rposition(|at| at.saturating_add(AHEAD_MS) <= now_ms);
    let signs = ripe.or((!created_ms.is_empty()).then_some(0));
    let over = |next: &u64| next.saturating_add(AHEAD_MS + KEPT_MS) <= now_ms;
    let gone = created_ms.iter().skip(1).take_while(|next| over(next)).count();
    let due = created_ms.last().is_none_or(|at| at.saturating_add(rotate_ms) <= now_ms);
    Plan { signs, gone, due }
}

/// All keys that are published.
pub(crate) struct Ring {
    /// In the order in which they were made; never empty.
    keys: Vec<SigningKey>,
    signs: usize,
}

impl Ring {
    /// Reads the folder, makes a key if one is due, deletes those that nobody needs.
    pub(crate) fn refresh(folder: &Path, now_ms: u64, rotate_ms: u64) -> Result<Self, RingError> {
        let fail = |source| RingError::File { path: folder.to_owned(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(fail)?;
        let mut keys = read(folder)?;
        let times = |keys: &[SigningKey]| keys.iter().map(|key| key.created_ms).collect::<Vec<_>>();
        let todo = plan(&times(&keys), now_ms, rotate_ms);
        for key in keys.drain(..todo.gone) {
            std::fs::remove_file(&key.path).map_err(fail)?;
        }
        if todo.due {
            keys.push(make(folder, now_ms)?);
        }
        let signs = plan(&times(&keys), now_ms, rotate_ms).signs.ok_or(RingError::Failed)?;
        Ok(Self { keys, signs })
    }

    /// The one that signs now.
    pub(crate) fn signing(&self) -> &SigningKey {
        &self.keys[self.signs]
    }

    /// The one of this name; a name is only ever compared.
    pub(crate) fn find(&self, kid: &str) -> Option<&SigningKey> {
        self.keys.iter().find(|key| key.kid == kid)
    }

    pub(crate) fn all(&self) -> &[SigningKey] {
        &self.keys
    }
}

fn read(folder: &Path) -> Result<Vec<SigningKey>, RingError> {
    let fail = |source| RingError::File { path: folder.to_owned(), source };
    let mut keys = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)?.take(KEYS_MAX) {
        let path = entry.map_err(fail)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(created) = name.strip_suffix(SUFFIX) else { continue };
        let created_ms = created.parse().map_err(|_| RingError::Shape(path.clone()))?;
        let fail = |source| RingError::File { path: path.clone(), source };
        if std::fs::metadata(&path).map_err(fail)?.permissions().mode() & 0o077 != 0 {
            return Err(RingError::Readable(path));
        }
        let text = Zeroizing::new(std::fs::read_to_string(&path).map_err(fail)?);
        let seed = parse_hex(text.trim()).map(Zeroizing::new);
        let seed = seed.ok_or_else(|| RingError::Shape(path.clone()))?;
        keys.push(key(&seed, created_ms, path)?);
    }
    keys.sort_unstable_by_key(|key| key.created_ms);
    Ok(keys)
}

fn make(folder: &Path, now_ms: u64) -> Result<SigningKey, RingError> {
    let mut seed = Zeroizing::new([0; SEED_BYTES]);
    getrandom::fill(&mut *seed).map_err(|_| RingError::Failed)?;
    let path = folder.join(format!("{now_ms}{SUFFIX}"));
    let text = Zeroizing::new(seed.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    let write = || {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| RingError::File { path: path.clone(), source })?;
    key(&seed, now_ms, path)
}

/// A seed of its own for each purpose.
fn derive(seed: &[u8; SEED_BYTES], purpose: &str) -> Zeroizing<Vec<u8>> {
    let key = hmac::Key::new(HMAC_SHA256, seed);
    Zeroizing::new(hmac::sign(&key, purpose.as_bytes()).as_ref().to_vec())
}

fn key(seed: &[u8; SEED_BYTES], created_ms: u64, path: PathBuf) -> Result<SigningKey, RingError> {
    let pair = Ed25519KeyPair::from_seed_unchecked(&derive(seed, "atoll identity 1"));
    let pair = pair.map_err(|_| RingError::Failed)?;
    let pkcs8 = pair.to_pkcs8().map_err(|_| RingError::Failed)?;
    let public = pair.public_key().as_ref();
    let (x, decoding) = (URL_SAFE_NO_PAD.encode(public), DecodingKey::from_ed_der(public));
    let thumb = Sha256::digest(format!("{{\"crv\":\"Ed25519\",\"kty\":\"OKP\",\"x\":\"{x}\"}}"));
    let root = PrivateKey::from_bytes(&derive(seed, "atoll delegation 1"), Algorithm::Ed25519);
    Ok(SigningKey {
        created_ms,
        kid: URL_SAFE_NO_PAD.encode(thumb),
        x,
        encoding: EncodingKey::from_ed_der(pkcs8.as_ref()),
        decoding,
        root: KeyPair::from(&root.map_err(|_| RingError::Failed)?),
        pair,
        path,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROTATE_MS: u64 = 30 * 24 * 3_600_000;

    proptest! {
        /// Over any time, looked at in any steps: somebody always signs, was published long enough unless there was nobody
        /// before, and whoever signed stays published long enough.
        #[test]
        fn keys_overlap(steps in prop::collection::vec(1_000u64..5 * 24 * 3_600_000, 1..200)) {
            let (mut now, mut keys, mut signed): (u64, Vec<u64>, Vec<(u64, u64)>) = (1_700_000_000_000, vec![], vec![]);
            for step in steps {
                let todo = plan(&keys, now, ROTATE_MS);
                keys.drain(..todo.gone);
                if todo.due {
                    keys.push(now);
                }
                let signs = keys[plan(&keys, now, ROTATE_MS).signs.unwrap()];
                prop_assert!(signs + AHEAD_MS <= now || signs == keys[0]);
                signed.push((signs, now));
                for (key, at) in &signed {
                    prop_assert!(at + KEPT_MS < now || keys.contains(key), "{key} signed at {at}, gone at {now}");
                }
                prop_assert!(keys.len() <= 3);
                now += step;
            }
        }
    }

    #[test]
    fn keys_are_files_for_their_owner_alone_and_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("identity");
        let first = Ring::refresh(&folder, 1_000_000, ROTATE_MS).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&first.signing().path), mode(&folder)), (0o600, 0o700));
        let again = Ring::refresh(&folder, 1_000_001, ROTATE_MS).unwrap();
        assert_eq!(again.signing().kid, first.signing().kid);
        assert!(again.find("../../etc/passwd").is_none());
        let later = Ring::refresh(&folder, 1_000_000 + ROTATE_MS, ROTATE_MS).unwrap();
        assert_eq!((later.all().len(), &later.signing().kid), (2, &first.signing().kid));
        let ripe = Ring::refresh(&folder, 1_000_000 + ROTATE_MS + AHEAD_MS, ROTATE_MS).unwrap();
        assert_ne!(ripe.signing().kid, first.signing().kid);
        std::fs::set_permissions(&ripe.signing().path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Ring::refresh(&folder, 1_000_002, ROTATE_MS), Err(RingError::Readable(_))));
    }
}
