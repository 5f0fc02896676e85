//! One line of the log: a record, chained to the line before it.
//!
//! ```text
//!  {"hash":"<64 hex>","prev":"<64 hex>","seq":7,"time":1764240000000,"kind":"execution",…}
//!          └── SHA-256 of this line with the member "hash" left out, byte for byte as it is written
//! ```
//!
//! What is hashed are the bytes of the line itself, so nobody has to agree on a canonical form of JSON: a verifier needs a
//! SHA-256 and these four fixed members in this order, and no parser.

use std::fmt::{self, Write as _};

use sha2::{Digest as _, Sha256};

/// Longest line, in bytes, its end included. Longer ones are not written, and not read.
pub(super) const LINE_BYTES_MAX: usize = 64 * 1024;

/// What comes before the hash, between it and the hash of the line before, and behind that.
const BEFORE_HASH: &[u8] = b"{\"hash\":\"";
const BEFORE_PREV: &[u8] = b"\",\"prev\":\"";
const BEFORE_SEQ: &[u8] = b"\",\"seq\":";
/// Hexadecimal digits of a hash.
const HEX: usize = 64;

/// A hash of a line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// What the first line of a log has before it.
    pub const NONE: Self = Self([0; 32]);

    fn parse(hex: &[u8]) -> Option<Self> {
        // Digits in lower case only: one hash has one spelling.
        let digit = |d: u8| match d {
            b'0'..=b'9' => Some(d - b'0'),
            b'a'..=b'f' => Some(d - b'a' + 10),
            _ => None,
        };
        let mut out = [0; 32];
        for (byte, pair) in out.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = (digit(pair[0])? << 4) | digit(pair[1])?;
        }
        Some(Self(out))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

/// The end of a chain: what the next line names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// The number that the next line gets.
    pub(super) seq: u64,
    /// The hash of the last line.
    pub(super) prev: Hash,
}

impl Link {
    /// Of a log without a line.
    pub(super) const FIRST: Self = Self { seq: 0, prev: Hash::NONE };

    /// Writes the next line, and moves on. `members` are the record's members as JSON, without braces.
    pub(super) fn append(&mut self, members: &str, out: &mut Vec<u8>) {
        let mut text = String::with_capacity(members.len() + 128);
        // Writing to a string cannot fail.
        let _ = write!(text, "{{\"prev\":\"{}\",\"seq\":{}", self.prev, self.seq);
        if !members.is_empty() {
            text.push(',');
            text.push_str(members);
        }
        text.push('}');
        let hash = Hash(Sha256::digest(text.as_bytes()).into());
        out.extend_from_slice(BEFORE_HASH);
        let _ = write!(Text(out), "{hash}");
        out.extend_from_slice(b"\",");
        out.extend_from_slice(&text.as_bytes()[1..]);
        out.push(b'\n');
        *self = Self { seq: self.seq + 1, prev: hash };
    }
}

/// Formats into bytes.
struct Text<'a>(&'a mut Vec<u8>);

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// A line whose own hash is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number.
    pub seq: u64,
    /// The hash of the line before it.
    pub prev: Hash,
    /// Its own.
    pub hash: Hash,
}

impl Line {
    /// Reads a line without its end; `None` if it is no line of a log, or its hash is wrong.
    #[must_use]
    pub fn read(text: &[u8]) -> Option<Self> {
        let rest = text.strip_prefix(BEFORE_HASH)?;
        let (hash, rest) = rest.split_at_checked(HEX)?;
        let hash = Hash::parse(hash)?;
        let hashed = rest.strip_prefix(b"\",")?;
        let (prev, rest) = rest.strip_prefix(BEFORE_PREV)?.split_at_checked(HEX)?;
        let prev = Hash::parse(prev)?;
        let rest = rest.strip_prefix(BEFORE_SEQ)?;
        let digits = rest.iter().position(|b| !b.is_ascii_digit())?;
        let seq = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
        let mut sha = Sha256::new();
        sha.update(b"{");
        sha.update(hashed);
        let right = sha.finalize().as_slice() == hash.0;
        (right && rest.ends_with(b"}")).then_some(Self { seq, prev, hash })
    }

    /// The end of a chain that ends with this line.
    #[must_use]
    pub(super) fn link(&self) -> Link {
        Link { seq: self.seq.saturating_add(1), prev: self.hash }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(count: usize) -> Vec<Vec<u8>> {
        let mut link = Link::FIRST;
        (0..count)
            .map(|number| {
                let mut line = Vec::new();
                link.append(&format!("\"kind\":\"x\",\"number\":{number}"), &mut line);
                assert_eq!(line.pop(), Some(b'\n'));
                line
            })
            .collect()
    }

    #[test]
    fn lines_are_json_and_name_the_one_before() {
        let lines = lines(3);
        let mut before = Link::FIRST;
        for line in &lines {
            let read = Line::read(line).unwrap();
            assert_eq!((read.seq, read.prev), (before.seq, before.prev));
            let json: serde_json::Value = serde_json::from_slice(line).unwrap();
            assert_eq!(json["number"], read.seq);
            assert_eq!(json["hash"], read.hash.to_string());
            before = read.link();
        }
        let mut bare = Vec::new();
        Link::FIRST.clone().append("", &mut bare);
        assert!(serde_json::from_slice::<serde_json::Value>(&bare).is_ok());
    }

    proptest! {
        /// Whatever one byte of a line becomes, the line is none any more.
        #[test]
        fn a_changed_byte_is_seen(at in 0usize..1_000, to in any::<u8>()) {
            let line = lines(2).pop().unwrap();
            let at = at % line.len();
            let mut changed = line.clone();
            changed[at] = to;
            prop_assert_eq!(Line::read(&changed).is_some(), changed == line);
        }

        /// Reading never panics, and what is cut off is no line.
        #[test]
        fn anything_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..400), cut in 0usize..1_000) {
            prop_assert_eq!(Line::read(&bytes), None);
            let line = lines(1).pop().unwrap();
            prop_assert_eq!(Line::read(&line[..cut % line.len()]), None);
        }
    }
}
