//! A secret that nobody may see, and the search for it in whatever anybody sees.
//!
//! ```text
//!  every answer of the tests' HTTP client ─┐
//!  logs, metrics, audit, traces, files ────┼─▶ assert_clean: raw │ base64 in each alignment │ hexadecimal │ percent escapes
//! ```
//!
//! A form is found by its middle: at the ends of base64 a character mixes in bits of its neighbour, and half a secret is one too.

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

use super::client::Answer;

/// The secret that nobody may see. It holds what each of the forms must escape.
pub(crate) const CANARY: &str = "ghp_/Canary+S3cret=0123456789";
/// Characters at a form's beginning and end that need not be there.
const LOOSE_BEGIN: usize = 4;
const LOOSE_END: usize = 5;

/// Every form in which somebody may say something back.
pub(crate) fn forms(text: &str) -> Vec<Vec<u8>> {
    let each = |f: &dyn Fn(u8) -> String| text.bytes().map(f).collect::<String>().into_bytes();
    let mut forms = vec![
        text.as_bytes().to_vec(),
        each(&|b| format!("{b:02x}")),
        each(&|b| format!("{b:02X}")),
        each(&|b| format!("%{b:02X}")),
        // As `encodeURIComponent` has it.
        each(&|b| {
            let plain = b.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&b);
            if plain { char::from(b).to_string() } else { format!("%{b:02X}") }
        }),
    ];
    for before in ["", "x", "xy"] {
        forms.push(STANDARD.encode(format!("{before}{text}")).into_bytes());
        forms.push(URL_SAFE.encode(format!("{before}{text}")).into_bytes());
    }
    forms
}

static SEARCH: LazyLock<AhoCorasick> = LazyLock::new(|| {
    let middles = forms(CANARY).into_iter().map(|form| form[LOOSE_BEGIN..form.len() - LOOSE_END].to_vec());
    AhoCorasick::builder().ascii_case_insensitive(true).build(middles).expect("a few short patterns")
});

/// Where any form of the canary is in these bytes, and the form.
pub(crate) fn find(all: &[u8]) -> Option<(usize, String)> {
    let found = SEARCH.find(all)?;
    Some((found.start(), String::from_utf8_lossy(&all[found.range()]).into_owned()))
}

/// No form of the canary is in it.
pub(crate) fn assert_clean(all: &[u8], what: &str) {
    if let Some((at, form)) = find(all) {
        let around = &all[at.saturating_sub(200)..all.len().min(at + 200)];
        panic!("{what}: the secret is in it as {form:?}, at byte {at}: {}", String::from_utf8_lossy(around));
    }
}

/// Looks through bytes that come in pieces, with no look at the same ones for ever.
#[derive(Debug, Default)]
pub(crate) struct Search {
    /// What a form may have begun in.
    tail: Vec<u8>,
}

impl Search {
    /// No form of the canary ends in this piece.
    pub(crate) fn push(&mut self, piece: &[u8], what: &str) {
        self.tail.extend_from_slice(piece);
        assert_clean(&self.tail, what);
        let old = self.tail.len().saturating_sub(SEARCH.max_pattern_len());
        self.tail.drain(..old);
    }
}

/// Everything of an answer.
pub(crate) fn bytes_of(answer: &Answer) -> Vec<u8> {
    let mut all = answer.reason.clone().into_bytes();
    for (name, value) in &answer.headers {
        all.extend([name.as_bytes(), b": ", value, b"\n"].concat());
    }
    all.extend(&answer.body);
    all
}

/// A file with a master key of this byte; temporary files are their owner's alone.
pub(crate) fn key_file(byte: u8) -> tempfile::NamedTempFile {
    use std::io::Write as _;
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    writeln!(file, "{}", format!("{byte:02x}").repeat(32)).expect("the file is writable");
    file
}

/// `[secrets]` with such a key.
pub(crate) fn secrets_config(key: &tempfile::NamedTempFile) -> String {
    format!("[secrets]\nkey_id = \"one\"\nkey_file = {:?}\n", key.path())
}
