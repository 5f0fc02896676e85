//! Checkpoints: how far the log was and with which hash, signed, for somebody who keeps them elsewhere.
//!
//! ```text
//!  atoll/audit/3f09…                      the log's name, also in each file's first line
//!  1042                                   lines in it
//!  CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2…=     the hash of the last of them
//!  time 1764240000000                     when, in milliseconds since 1970
//!
//!  — atoll/audit/3f09… Az3grlgtzPICa5OS…  which key, and its Ed25519 signature over everything before the empty line
//! ```
//!
//! A chain of hashes alone does not show that lines were cut off its end, nor that all of it was computed anew. Whoever has a
//! checkpoint sees both. The form is that of C2SP's [tlog-checkpoint](https://c2sp.org/tlog-checkpoint) over
//! [signed-note](https://c2sp.org/signed-note), so what keeps such notes keeps these. One thing differs: this log is a chain, so
//! the third line is the hash of its last line and not the root of a Merkle tree, and proofs of inclusion do not exist.
//!
//! The key is the one that signs identities. A note cannot be taken for an identity, nor the other way round: what is signed of a
//! JWT is one line, and a note has several.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::line::Hash;

/// What the name of every log begins with.
const ORIGIN: &str = "atoll/audit/";
/// Bytes of a log's id, of which each is two digits.
const LOG_ID_BYTES: usize = 16;
/// What a signature's line begins with: an em dash and a space.
const SIGNED: &str = "\u{2014} ";
/// What the line with the time begins with.
const TIME: &str = "time ";
/// The byte that says Ed25519 in a key's id (signed-note).
const ED25519_TYPE: u8 = 1;
/// Bytes of a key's id.
const KEY_ID_BYTES: usize = 4;
/// Bytes of a public key, and of a signature.
const PUBLIC_BYTES: usize = 32;
const SIGNATURE_BYTES: usize = 64;
/// Most lines with signatures in a note: others may sign with us.
const SIGNATURES_MAX: usize = 16;
/// Longest note, in bytes.
pub(super) const NOTE_BYTES_MAX: usize = 4 * 1024;

/// What a checkpoint says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's id: 32 hexadecimal digits.
    pub log: Arc<str>,
    /// Lines in it; never 0.
    pub size: u64,
    /// The hash of the last of them.
    pub hash: Hash,
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
}

/// A signature and the key that made it.
pub(crate) struct Signed {
    pub(crate) public: PublicKey,
    pub(crate) signature: [u8; SIGNATURE_BYTES],
}

/// Signs checkpoints, and passes them on.
pub(crate) trait Notary: Send + Sync {
    /// Signs with the key that signs now; `None` if it cannot.
    fn sign(&self, text: &[u8]) -> Option<Signed>;
    /// There is a new one. Must not block.
    fn made(&self, checkpoint: &Checkpoint, note: &str);
}

/// Who may sign checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey(pub [u8; PUBLIC_BYTES]);

impl PublicKey {
    /// The Ed25519 keys of a JWK set (RFC 7517, RFC 8037); `None` if it is none.
    #[must_use]
    pub fn of_jwks(text: &[u8]) -> Option<Vec<Self>> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Key>,
        }
        #[derive(Deserialize)]
        struct Key {
            kty: String,
            crv: Option<String>,
            x: Option<String>,
        }
        let set: Set = serde_json::from_slice(text).ok()?;
        let ed25519 = |key: Key| (key.kty == "OKP" && key.crv? == "Ed25519").then_some(key.x?);
        set.keys.into_iter().filter_map(ed25519).map(|x| Self::of_x(&x)).collect()
    }

    /// From `x` of a JWK.
    pub(crate) fn of_x(x: &str) -> Option<Self> {
        Some(Self(URL_SAFE_NO_PAD.decode(x).ok()?.try_into().ok()?))
    }

    /// Its id among those that sign under a name (signed-note, "Signatures").
    fn id(&self, name: &str) -> [u8; KEY_ID_BYTES] {
        let mut sha = Sha256::new();
        sha.update(name);
        sha.update([b'\n', ED25519_TYPE]);
        sha.update(self.0);
        let digest = sha.finalize();
        [digest[0], digest[1], digest[2], digest[3]]
    }

    fn verifies(&self, text: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(text, signature).is_ok()
    }
}

impl Checkpoint {
    fn origin(&self) -> String {
        format!("{ORIGIN}{}", self.log)
    }

    fn text(&self) -> String {
        let hash = STANDARD.encode(self.hash.0);
        format!("{}\n{}\n{hash}\n{TIME}{}\n", self.origin(), self.size, self.time_ms)
    }

    /// The signed note; `None` if the notary cannot sign.
    pub(super) fn sign(&self, notary: &dyn Notary) -> Option<String> {
        let (mut note, origin) = (self.text(), self.origin());
        let Signed { public, signature } = notary.sign(note.as_bytes())?;
        let signature = [public.id(&origin).as_slice(), &signature].concat();
        // Writing to a string cannot fail.
        let _ = write!(note, "\n{SIGNED}{origin} {}\n", STANDARD.encode(signature));
        Some(note)
    }

    fn read(text: &str) -> Option<Self> {
        let mut lines = text.split('\n');
        let log = lines.next()?.strip_prefix(ORIGIN).filter(|log| is_log_id(log))?;
        let size = number(lines.next()?).filter(|size| *size > 0)?;
        let hash = Hash(STANDARD.decode(lines.next()?).ok()?.try_into().ok()?);
        let time_ms = number(lines.next()?.strip_prefix(TIME)?)?;
        let own = Self { log: log.into(), size, hash, time_ms };
        // One text for one meaning: what is signed is what was understood.
        (own.text() == text).then_some(own)
    }
}

/// An id for a new log.
pub(super) fn new_log_id() -> std::io::Result<Arc<str>> {
    let mut id = [0; LOG_ID_BYTES];
    getrandom::fill(&mut id).map_err(std::io::Error::other)?;
    Ok(id.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into())
}

/// Whether this can be the id of a log.
pub(super) fn is_log_id(text: &str) -> bool {
    text.len() == LOG_ID_BYTES * 2 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn number(digits: &str) -> Option<u64> {
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    plain.then(|| digits.parse().ok()).flatten()
}

/// A checkpoint with its signatures.
#[derive(Clone, Debug)]
pub struct Note {
    /// What it says.
    pub checkpoint: Checkpoint,
    text: String,
    /// Key id and signature, of those made under the log's name.
    signatures: Vec<([u8; KEY_ID_BYTES], Vec<u8>)>,
}

/// What its signatures are worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worth {
    /// A known key signed it.
    Signed,
    /// No known key claims to have signed it.
    UnknownKey,
    /// A known key is said to have signed it, and did not.
    Forged,
}

impl Note {
    /// What the signatures are worth to somebody who knows these keys.
    #[must_use]
    pub fn worth(&self, keys: &[PublicKey]) -> Worth {
        let name = self.checkpoint.origin();
        for key in keys {
            let id = key.id(&name);
            // The first one of a known key decides, as signed-note has it.
            if let Some((_, signature)) = self.signatures.iter().find(|(of, _)| *of == id) {
                let good = key.verifies(self.text.as_bytes(), signature);
                return if good { Worth::Signed } else { Worth::Forged };
            }
        }
        Worth::UnknownKey
    }
}

/// Notes one after the other, each followed by an empty line, as they were read.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// Those that are notes.
    pub notes: Vec<Note>,
    /// Pieces that are none: a writer that was killed leaves such.
    pub unreadable: u64,
}

impl Notes {
    /// Reads them. Nothing in it is an error, as a file may end anywhere.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Self {
        let mut out = Self::default();
        let text = String::from_utf8_lossy(bytes);
        let mut before: Option<&str> = None;
        let pieces = text.split("\n\n").map(|piece| piece.trim_matches('\n'));
        for piece in pieces.filter(|piece| !piece.is_empty()) {
            if !piece.starts_with(SIGNED) {
                out.unreadable += u64::from(before.replace(piece).is_some());
                continue;
            }
            match before.take().and_then(|text| note(text, piece)) {
                Some(note) => out.notes.push(note),
                None => out.unreadable += 1,
            }
        }
        out.unreadable += u64::from(before.is_some());
        out
    }
}

fn note(text: &str, signed: &str) -> Option<Note> {
    if text.len() + signed.len() > NOTE_BYTES_MAX {
        return None;
    }
    let text = format!("{text}\n");
    let checkpoint = Checkpoint::read(&text)?;
    let origin = checkpoint.origin();
    let mut signatures = Vec::new();
    for (number, line) in signed.split('\n').enumerate() {
        let (name, value) = line.strip_prefix(SIGNED)?.split_once(' ')?;
        let value = STANDARD.decode(value).ok()?;
        let (id, signature) = value.split_first_chunk::<KEY_ID_BYTES>()?;
        let own = name == origin;
        if number >= SIGNATURES_MAX || (own && signature.len() != SIGNATURE_BYTES) {
            return None;
        }
        if own {
            signatures.push((*id, signature.to_vec()));
        }
    }
    Some(Note { checkpoint, text, signatures })
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records up to {}", self.size, self.hash)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Mutex;

    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use proptest::prelude::*;

    use super::*;

    /// A key of its own, and what was told to it.
    pub(in crate::audit) struct Key {
        pair: Ed25519KeyPair,
        pub(in crate::audit) told: Mutex<Vec<String>>,
    }

    impl Key {
        pub(in crate::audit) fn new(seed: u8) -> Arc<Self> {
            let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
            Arc::new(Self { pair, told: Mutex::default() })
        }

        pub(in crate::audit) fn public(&self) -> PublicKey {
            PublicKey(self.pair.public_key().as_ref().try_into().unwrap())
        }
    }

    impl Notary for Key {
        fn sign(&self, text: &[u8]) -> Option<Signed> {
            let signature = self.pair.sign(text).as_ref().try_into().unwrap();
            Some(Signed { public: self.public(), signature })
        }

        fn made(&self, _: &Checkpoint, note: &str) {
            self.told.lock().unwrap().push(note.to_owned());
        }
    }

    fn checkpoint(size: u64) -> Checkpoint {
        let log = "0123456789abcdef0123456789abcdef".into();
        Checkpoint { log, size, hash: Hash([7; 32]), time_ms: 1_764_240_000_000 }
    }

    /// The key id and the message are those of the specification: checked against its own example, whose key is public.
    #[test]
    fn a_key_has_the_id_that_signed_note_gives_it() {
        // https://pkg.go.dev/golang.org/x/mod/sumdb/note: "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
        let key = STANDARD.decode("ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW").unwrap();
        let key = PublicKey(key[1..].try_into().unwrap());
        assert_eq!(key.id("PeterNeumann"), [0xc7, 0x4f, 0x20, 0xa3]);
        let text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
        let signature =
            "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=";
        let signature = STANDARD.decode(signature).unwrap();
        assert!(key.verifies(text.as_bytes(), &signature[KEY_ID_BYTES..]));
    }

    #[test]
    fn a_note_is_read_back_and_its_signature_is_that_of_its_key() {
        let (key, other) = (Key::new(1), Key::new(2));
        let note = checkpoint(42).sign(&*key).unwrap();
        let read = Notes::read(note.as_bytes());
        assert_eq!((read.notes.len(), read.unreadable), (1, 0));
        assert_eq!(read.notes[0].checkpoint, checkpoint(42));
        assert_eq!(read.notes[0].worth(&[other.public(), key.public()]), Worth::Signed);
        assert_eq!(read.notes[0].worth(&[other.public()]), Worth::UnknownKey);
        // The same signature under other words.
        let forged = note.replacen("\n42\n", "\n43\n", 1);
        assert_eq!(Notes::read(forged.as_bytes()).notes[0].worth(&[key.public()]), Worth::Forged);
        for bad in ["\n042\n", "\n0\n", "\n-1\n", "\n\n", "\n42\nmore\n"] {
            let bad = note.replacen("\n42\n", bad, 1);
            assert!(Notes::read(bad.as_bytes()).notes.is_empty(), "{bad}");
        }
        // Witnesses may add their lines.
        let line = format!("{SIGNED}witness.example/w {}\n", STANDARD.encode([0; 76]));
        let witnessed = Notes::read(format!("{note}{line}").as_bytes());
        assert_eq!(witnessed.notes[0].worth(&[key.public()]), Worth::Signed);
    }

    #[test]
    fn keys_come_from_a_key_set() {
        let x = URL_SAFE_NO_PAD.encode([3; 32]);
        let set = format!(
            r#"{{"keys":[{{"kty":"RSA","n":"x"}},{{"kty":"OKP","crv":"Ed25519","x":"{x}","kid":"k"}}]}}"#
        );
        assert_eq!(PublicKey::of_jwks(set.as_bytes()), Some(vec![PublicKey([3; 32])]));
        for bad in ["", "{}", "[]", r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA"}]}"#] {
            assert_eq!(PublicKey::of_jwks(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// Whatever one byte becomes, the note is not a signed one that says something else.
        #[test]
        fn a_changed_note_is_worth_nothing(at in any::<prop::sample::Index>(), flip in 1u8..=255) {
            let key = Key::new(1);
            let mut bytes = checkpoint(42).sign(&*key).unwrap().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            for note in Notes::read(&bytes).notes {
                prop_assert!(note.worth(&[key.public()]) != Worth::Signed || note.checkpoint == checkpoint(42));
            }
        }

        /// A file that was cut anywhere and went on: every whole note is found, and nothing panics.
        #[test]
        fn whole_notes_are_found_behind_torn_ones(cut in any::<prop::sample::Index>(), noise in any::<Vec<u8>>()) {
            let key = Key::new(1);
            let [one, two] = [1, 2].map(|size| format!("{}\n", checkpoint(size).sign(&*key).unwrap()));
            let kept = cut.index(one.len());
            let torn = [&one.as_bytes()[..kept], b"\n\n", two.as_bytes()].concat();
            let read = Notes::read(&torn);
            prop_assert_eq!(read.notes.last().map(|note| note.checkpoint.size), Some(2));
            prop_assert!(read.notes.iter().all(|note| note.worth(&[key.public()]) == Worth::Signed));
            let _ = Notes::read(&noise);
        }
    }
}
