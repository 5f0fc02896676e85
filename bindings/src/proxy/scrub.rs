//! Takes secrets out of what a server sends back: a rolling window over every form that [`Form`] knows.
//!
//! ```text
//!  bytes ─▶ per secret and form: units ─▶ match (KMP) ─▶ found: mask the bytes where it stands
//!                │                            └─ partly matched: hold from where the match began
//!                └─ everything before the earliest hold goes out
//! ```
//!
//! A mask is as long as what it hides, so lengths stay true. There is no bound on findings. What is held is bounded: a server
//! that makes the window grow beyond [`HOLD_BYTES_MAX`] gets its answer cut off, not let through.
//!
//! What this cannot see: a server that is in league with the guest and codes the secret in a way that nobody lists here. The
//! proxy's rule, which decides what servers see the secret at all, is the defence against that.

use std::collections::VecDeque;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use zeroize::Zeroizing;

use super::forms::{Form, Units};

/// Shortest secret that can be told from chance, in bytes.
pub const SECRET_BYTES_MIN: usize = 8;
/// Most bytes that wait for a match to be decided.
const HOLD_BYTES_MAX: usize = 128 * 1024;
/// A match that the end of the body cuts off is masked from this many units on.
const CUT_UNITS_MIN: usize = 4;
/// What stands where a secret stood.
const MASK: u8 = b'*';

/// The needles of some secrets, ready to be searched for.
#[derive(Clone)]
pub(super) struct Needles(Arc<[Needle]>);

struct Needle {
    form: Form,
    units: Zeroizing<Vec<u8>>,
    /// For each length of a match that breaks: the longest shorter match that still stands.
    fallback: Vec<usize>,
}

impl Needles {
    /// All forms of these secrets. Those under [`SECRET_BYTES_MIN`] are left out: they would match by chance.
    pub(super) fn new<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut needles = Vec::new();
        for secret in secrets.into_iter().filter(|secret| secret.len() >= SECRET_BYTES_MIN) {
            for form in [Form::Raw, Form::Percent, Form::Backslash, Form::Entity] {
                needles.push(Needle::new(form, secret.to_ascii_lowercase()));
            }
            let hex = secret.iter().flat_map(|byte| {
                [byte >> 4, byte & 15].map(|nibble| b"0123456789abcdef"[usize::from(nibble)])
            });
            needles.push(Needle::new(Form::Hex, hex.collect()));
            needles.extend((0..3).map(|before| Needle::new(Form::Base64, base64_core(secret, before))));
        }
        Self(needles.into())
    }

    pub(super) fn scrubber(&self) -> Scrubber {
        let matchers = (0..self.0.len())
            .map(|index| Matcher { units: Units::new(self.0[index].form), starts: VecDeque::new() });
        Scrubber { needles: self.clone(), matchers: matchers.collect(), window: Vec::new(), base: 0 }
    }

    /// A whole value at once.
    pub(super) fn scrub(&self, value: &[u8]) -> Vec<u8> {
        let mut scrubber = self.scrubber();
        match scrubber.feed(value) {
            Ok(mut out) => {
                out.extend(scrubber.finish());
                out
            }
            Err(TooMuchHeld) => vec![MASK; value.len()],
        }
    }
}

/// The characters of base64 that only the secret decides, when it stands `before` bytes into a group of three.
fn base64_core(secret: &[u8], before: usize) -> Vec<u8> {
    let mut bytes = Zeroizing::new(vec![0; before]);
    bytes.extend_from_slice(secret);
    let text = Zeroizing::new(STANDARD_NO_PAD.encode(&*bytes));
    let (first, end) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
    text.as_bytes()[first..end].to_vec()
}

impl Needle {
    fn new(form: Form, units: Vec<u8>) -> Self {
        let mut fallback = vec![0; units.len()];
        let mut matched = 0;
        for index in 1..units.len() {
            while matched > 0 && units[index] != units[matched] {
                matched = fallback[matched - 1];
            }
            matched += usize::from(units[index] == units[matched]);
            fallback[index] = matched;
        }
        Self { form, units: Zeroizing::new(units), fallback }
    }
}

struct Matcher {
    units: Units,
    /// Where each matched unit begins.
    starts: VecDeque<u64>,
}

impl Matcher {
    fn held(&self) -> Option<u64> {
        self.starts.front().copied().or_else(|| self.units.held())
    }
}

/// More is undecided than may wait.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMuchHeld;

/// Scrubs one stream.
pub(super) struct Scrubber {
    needles: Needles,
    matchers: Vec<Matcher>,
    window: Vec<u8>,
    /// Offset in the stream of the window's first byte.
    base: u64,
}

impl Scrubber {
    /// Whether nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.window.is_empty()
    }

    /// Takes bytes; gives those that are decided.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<u8>, TooMuchHeld> {
        let from = self.base + self.window.len() as u64;
        self.window.extend_from_slice(bytes);
        let Self { needles, matchers, window, base } = self;
        for (needle, matcher) in needles.0.iter().zip(matchers.iter_mut()) {
            let Matcher { units, starts } = matcher;
            for (byte, at) in bytes.iter().zip(from..) {
                units.feed(*byte, at, |(unit, start)| {
                    while !starts.is_empty() && needle.units[starts.len()] != unit {
                        let keep = needle.fallback[starts.len() - 1];
                        starts.drain(..starts.len() - keep);
                    }
                    if needle.units[starts.len()] == unit {
                        starts.push_back(start);
                    }
                    if starts.len() == needle.units.len() {
                        mask(window, *base, starts[0], at + 1);
                        starts.clear();
                    }
                });
            }
        }
        let end = self.base + self.window.len() as u64;
        let decided = self.matchers.iter().filter_map(Matcher::held).min().unwrap_or(end);
        let out: Vec<u8> = self.window.drain(..to_index(decided, self.base)).collect();
        self.base = decided;
        if self.window.len() > HOLD_BYTES_MAX { Err(TooMuchHeld) } else { Ok(out) }
    }

    /// The end of the stream: the rest, with a secret that is cut off masked as far as it goes.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        let end = self.base + self.window.len() as u64;
        for matcher in &self.matchers {
            if matcher.starts.len() >= CUT_UNITS_MIN {
                mask(&mut self.window, self.base, matcher.starts[0], end);
            }
        }
        std::mem::take(&mut self.window)
    }
}

fn to_index(offset: u64, base: u64) -> usize {
    // Offsets that are held are never before the window.
    usize::try_from(offset.saturating_sub(base)).unwrap_or(usize::MAX)
}

fn mask(window: &mut [u8], base: u64, start: u64, end: u64) {
    let (start, end) = (to_index(start, base), to_index(end, base).min(window.len()));
    if let Some(found) = window.get_mut(start..end) {
        found.fill(MASK);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &[u8] = b"ghp_/S3cr\"t+Canary=9";

    fn forms(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
        let each =
            |f: &dyn Fn(u8) -> String| secret.iter().map(|byte| f(*byte)).collect::<String>().into_bytes();
        let b64 = |before: &[u8]| STANDARD_NO_PAD.encode([before, secret, b"tail"].concat()).into_bytes();
        let wrapped = b64(b"").chunks(7).collect::<Vec<_>>().join(&b"\r\n"[..]);
        vec![
            ("raw", secret.to_vec()),
            ("upper", secret.to_ascii_uppercase()),
            ("utf16", secret.iter().flat_map(|byte| [*byte, 0]).collect()),
            ("percent", each(&|b| format!("%{b:02X}"))),
            (
                "half percent",
                each(&|b| if b.is_ascii_alphanumeric() { char::from(b).into() } else { format!("%{b:02x}") }),
            ),
            ("json", serde_json::to_vec(std::str::from_utf8(secret).unwrap()).unwrap()),
            ("unicode", each(&|b| format!("\\u{b:04x}"))),
            ("braces", each(&|b| format!("\\u{{{b:x}}}"))),
            ("backslash x", each(&|b| format!("\\x{b:02x}"))),
            ("entity", each(&|b| format!("&#{b};"))),
            ("entity hex", each(&|b| format!("&#x{b:X};"))),
            ("html", String::from_utf8_lossy(secret).replace('"', "&quot;").into_bytes()),
            ("hex", each(&|b| format!("{b:02x}"))),
            ("HEX", each(&|b| format!("{b:02X}"))),
            ("hex:", each(&|b| format!("{b:02x}:"))),
            ("base64", b64(b"")),
            ("base64 +1", b64(b"x")),
            ("base64 +2", b64(b"xy")),
            (
                "base64 url",
                String::from_utf8(b64(b"xy")).unwrap().replace('+', "-").replace('/', "_").into_bytes(),
            ),
            ("base64 json", String::from_utf8(b64(b"")).unwrap().replace('/', "\\/").into_bytes()),
            (
                "base64 percent",
                String::from_utf8(b64(b"")).unwrap().replace('/', "%2F").replace('+', "%2b").into_bytes(),
            ),
            ("base64 lines", wrapped),
        ]
    }

    fn scrub(pieces: &[&[u8]]) -> Vec<u8> {
        let mut scrubber = Needles::new([SECRET]).scrubber();
        let mut out: Vec<u8> = pieces.iter().flat_map(|piece| scrubber.feed(piece).unwrap()).collect();
        out.extend(scrubber.finish());
        out
    }

    /// Whether the form of the secret is gone, and what stands around it is not.
    fn is_clean(name: &str, form: &[u8], out: &[u8]) {
        assert!(out.starts_with(b"before ") && out.ends_with(b" after"), "{name}");
        let kept = out.iter().filter(|byte| **byte == MASK).count();
        // At the border of a base64 form one character mixes in bits of its neighbour; JSON's quotes stay.
        assert!(kept + 12 >= form.len(), "{name}: {}", String::from_utf8_lossy(out));
        assert_eq!(out.len(), form.len() + 13, "{name}");
    }

    #[test]
    fn every_form_is_found_wherever_it_is_cut() {
        for (name, form) in forms(SECRET) {
            let whole = [b"before ", &form[..], b" after"].concat();
            for cut in 0..=whole.len() {
                is_clean(name, &form, &scrub(&[&whole[..cut], &whole[cut..]]));
            }
            let bytes: Vec<&[u8]> = whole.chunks(1).collect();
            is_clean(name, &form, &scrub(&bytes));
        }
    }

    #[test]
    fn no_number_of_findings_is_too_many_and_a_cut_one_is_masked() {
        let many = SECRET.repeat(5_000);
        assert!(scrub(&[&many]).iter().all(|byte| *byte == MASK));
        assert_eq!(scrub(&[&SECRET[..12]]), [MASK; 12]);
        // A decoy directly before the secret, which a match without fallback would miss.
        let decoy = [&SECRET[..5], SECRET].concat();
        assert_eq!(scrub(&[&decoy])[5..], [MASK; 20]);
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut scrubber = Needles::new([SECRET]).scrubber();
        // The first digits of the secret's hex form, then separators without end.
        scrubber.feed(b"67").unwrap();
        assert_eq!(scrubber.feed(&vec![b' '; HOLD_BYTES_MAX + 1]), Err(TooMuchHeld));
    }

    proptest! {
        /// However a stream is cut, the result is the same; nothing else is touched; lengths stay.
        #[test]
        fn cutting_changes_nothing(
            parts in prop::collection::vec(prop_oneof![
                "[ -~]{0,12}".prop_map(String::into_bytes),
                (0usize..22).prop_map(|index| forms(SECRET)[index].1.clone()),
                (1usize..20).prop_map(|length| SECRET[..length].to_vec()),
            ], 0..8),
            cuts in prop::collection::vec(0usize..200, 0..6),
        ) {
            let whole = parts.concat();
            let once = scrub(&[&whole]);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(whole.len())).collect();
            cuts.extend([0, whole.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &whole[pair[0]..pair[1]]).collect();
            prop_assert_eq!(&scrub(&pieces), &once);
            prop_assert_eq!(once.len(), whole.len());
            prop_assert!(once.iter().zip(&whole).all(|(out, was)| out == was || *out == MASK));
            prop_assert!(!once.windows(SECRET.len()).any(|window| window.eq_ignore_ascii_case(SECRET)));
        }

        #[test]
        fn what_holds_no_secret_is_left_alone(text in "[a-zA-Z0-9 %&;\\\\u{}/+=]{0,300}") {
            let text = text.into_bytes();
            let needle = &SECRET[..CUT_UNITS_MIN];
            prop_assume!(!text.to_ascii_lowercase().windows(CUT_UNITS_MIN).any(|w| w == needle));
            let out = scrub(&[&text, b"."]);
            prop_assert_eq!(&out[..text.len()], &text[..]);
        }
    }
}
