//! How a secret is sealed: pure functions over keys and bytes.
//!
//! ```text
//!  value    ──AES-256-GCM under a data key of its own──▶ value at rest      both bound to tenant, name and version
//!  data key ──AES-256-GCM under the master key─────────▶ wrapped            … and to the master key's name
//! ```
//!
//! A data key seals one value once, and nonces are random, so no nonce meets a key twice. What is sealed for one name does not
//! open under another, nor an older version in the place of a newer one. A new master key costs each secret its wrapped data
//! key and leaves the sealed value as it is.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use zeroize::Zeroizing;

use super::master::MasterKeys;

/// Bytes of a key.
pub(crate) const KEY_BYTES: usize = 32;
/// What a master key seals once, to be known again.
const PROOF: &[u8] = b"atoll";

/// A secret at rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    /// Which value of the secret this is.
    pub(crate) version: u64,
    /// Which master key wrapped the data key.
    pub(crate) key_id: String,
    /// Nonce, data key, tag.
    pub(crate) wrapped: Vec<u8>,
    /// Nonce, value, tag.
    pub(crate) value: Vec<u8>,
}

/// Whose secret.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Label<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) name: &'a str,
}

/// Why a secret could not be sealed or opened. Says nothing about its value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It was sealed under a key that the configuration does not name.
    #[error("the master key {0:?} is needed and not configured")]
    UnknownKey(String),
    /// A key of this name, but another one.
    #[error("the master key {0:?} is not the one that sealed what is stored")]
    WrongKey(String),
    /// Not what was sealed, or not for this place.
    #[error("a stored secret does not open: it was changed or moved")]
    Broken,
    /// The library gave up.
    #[error("a secret could not be sealed")]
    Failed,
}

/// Seals a value.
pub(crate) fn seal(
    keys: &MasterKeys,
    label: Label<'_>,
    version: u64,
    value: &[u8],
) -> Result<Sealed, SealError> {
    let mut data_key = Zeroizing::new([0; KEY_BYTES]);
    aws_lc_rs::rand::fill(&mut *data_key).map_err(|_| SealError::Failed)?;
    let key = RandomizedNonceKey::new(&AES_256_GCM, &*data_key).map_err(|_| SealError::Failed)?;
    let key_id = keys.current().id.clone();
    let wrapped = encrypt(&keys.current().key, &bound("data key", label, version, &key_id), &*data_key)?;
    Ok(Sealed { version, wrapped, value: encrypt(&key, &bound("value", label, version, ""), value)?, key_id })
}

/// Opens a sealed value.
pub(crate) fn open(
    keys: &MasterKeys,
    label: Label<'_>,
    sealed: &Sealed,
) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let data_key = unwrap(keys, label, sealed)?;
    let key = RandomizedNonceKey::new(&AES_256_GCM, &data_key).map_err(|_| SealError::Broken)?;
    decrypt(&key, &bound("value", label, sealed.version, ""), &sealed.value)
}

/// The same under the current master key.
pub(crate) fn rewrap(keys: &MasterKeys, label: Label<'_>, sealed: &Sealed) -> Result<Sealed, SealError> {
    let data_key = unwrap(keys, label, sealed)?;
    let key_id = keys.current().id.clone();
    let bound = bound("data key", label, sealed.version, &key_id);
    let wrapped = encrypt(&keys.current().key, &bound, &data_key)?;
    Ok(Sealed { key_id, wrapped, ..sealed.clone() })
}

/// What only this key makes.
pub(crate) fn proof(key: &RandomizedNonceKey, id: &str) -> Result<Vec<u8>, SealError> {
    encrypt(key, &proof_bound(id), PROOF)
}

/// Whether this key made it.
pub(crate) fn is_proof(key: &RandomizedNonceKey, id: &str, proof: &[u8]) -> bool {
    decrypt(key, &proof_bound(id), proof).is_ok_and(|open| *open == PROOF)
}

fn unwrap(keys: &MasterKeys, label: Label<'_>, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let master = keys.find(&sealed.key_id).ok_or_else(|| SealError::UnknownKey(sealed.key_id.clone()))?;
    decrypt(&master.key, &bound("data key", label, sealed.version, &sealed.key_id), &sealed.wrapped)
}

fn proof_bound(id: &str) -> Vec<u8> {
    bound("proof", Label { tenant: "", name: "" }, 0, id)
}

/// The data that a seal is bound to: every part with its length before it, so that no two places look alike.
fn bound(purpose: &str, label: Label<'_>, version: u64, key_id: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for part in ["atoll secret 1", purpose, label.tenant, label.name, key_id] {
        out.extend_from_slice(&(part.len() as u64).to_be_bytes());
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(&version.to_be_bytes());
    out
}

/// Nonce, ciphertext, tag.
fn encrypt(key: &RandomizedNonceKey, bound: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError> {
    // The plain bytes are overwritten in place, so no copy of them is left behind.
    let mut out = Vec::with_capacity(plain.len() + AES_256_GCM.tag_len());
    out.extend_from_slice(plain);
    let nonce = key.seal_in_place_append_tag(Aad::from(bound), &mut out).map_err(|_| SealError::Failed)?;
    Ok([&nonce.as_ref()[..], &out].concat())
}

fn decrypt(key: &RandomizedNonceKey, bound: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let (nonce, rest) = sealed.split_at_checked(NONCE_LEN).ok_or(SealError::Broken)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Broken)?;
    let mut out = Zeroizing::new(rest.to_vec());
    let length = key.open_in_place(nonce, Aad::from(bound), &mut out).map_err(|_| SealError::Broken)?.len();
    out.truncate(length);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(current: u8, previous: &[u8]) -> MasterKeys {
        MasterKeys::of(
            (format!("k{current}"), [current; KEY_BYTES]),
            previous.iter().map(|key| (format!("k{key}"), [*key; KEY_BYTES])).collect(),
        )
    }

    const LABEL: Label<'_> = Label { tenant: "acme", name: "github" };

    proptest! {
        /// What is sealed opens, and only whole, in its place, under its key.
        #[test]
        fn only_what_was_sealed_opens(value in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let keys = keys(1, &[]);
            let sealed = seal(&keys, LABEL, 7, &value).unwrap();
            prop_assert_eq!(&*open(&keys, LABEL, &sealed).unwrap(), &value);
            prop_assert!(value.len() < 8 || !sealed.value.windows(value.len()).any(|window| window == value));
            for part in [0, 1] {
                let mut changed = sealed.clone();
                let bytes = if part == 0 { &mut changed.wrapped } else { &mut changed.value };
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
                prop_assert_eq!(open(&keys, LABEL, &changed).unwrap_err(), SealError::Broken);
            }
            for moved in [Label { tenant: "acm", name: "egithub" }, Label { tenant: "acme", name: "gitlab" }] {
                prop_assert_eq!(open(&keys, moved, &sealed).unwrap_err(), SealError::Broken);
            }
            let older = Sealed { version: 6, ..sealed.clone() };
            prop_assert_eq!(open(&keys, LABEL, &older).unwrap_err(), SealError::Broken);
        }

        #[test]
        fn no_two_places_are_bound_alike(a in "[a-z]{0,6}", b in "[a-z]{0,6}", c in "[a-z]{0,6}", d in "[a-z]{0,6}") {
            let one = bound("value", Label { tenant: &a, name: &b }, 1, "");
            let two = bound("value", Label { tenant: &c, name: &d }, 1, "");
            prop_assert_eq!(one == two, a == c && b == d);
        }
    }

    #[test]
    fn a_new_master_key_takes_over_and_the_value_stays() {
        let old = keys(1, &[]);
        let sealed = seal(&old, LABEL, 3, b"canary-value").unwrap();
        let both = keys(2, &[1]);
        let again = rewrap(&both, LABEL, &sealed).unwrap();
        assert_eq!((&*again.key_id, &again.value), ("k2", &sealed.value));
        let new = keys(2, &[]);
        assert_eq!(&**open(&new, LABEL, &again).unwrap(), b"canary-value");
        assert_eq!(open(&new, LABEL, &sealed).unwrap_err(), SealError::UnknownKey("k1".into()));
        let other = MasterKeys::of(("k2".into(), [9; KEY_BYTES]), Vec::new());
        assert_eq!(open(&other, LABEL, &again).unwrap_err(), SealError::Broken);
        let made = proof(&new.current().key, "k2").unwrap();
        assert!(is_proof(&new.current().key, "k2", &made) && !is_proof(&other.current().key, "k2", &made));
    }

    #[test]
    fn equal_values_do_not_look_alike() {
        let keys = keys(1, &[]);
        let (a, b) = (seal(&keys, LABEL, 1, b"same-value"), seal(&keys, LABEL, 1, b"same-value"));
        assert_ne!(a.unwrap().value, b.unwrap().value);
    }
}
