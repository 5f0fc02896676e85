//! Rules for module names: one normal form, nothing that reads differently to a human, a path or JavaScript.

use std::sync::Arc;

use crate::error::{CodeError, NameFault};
use crate::limits::MODULE_NAME_BYTES_MAX;

/// Segments that name something on every JavaScript object.
const PROTOTYPE_SEGMENTS: [&str; 3] = ["__proto__", "constructor", "prototype"];
/// How much of a refused name an error repeats, in characters.
const NAME_ECHO_CHARS_MAX: usize = 128;

/// Brings a name into its normal form (without a leading `./`) or says what is wrong with it.
///
/// # Errors
/// [`CodeError::Name`] with the first fault found.
pub fn normalise(name: &str) -> Result<Arc<str>, CodeError> {
    let bare = name.strip_prefix("./").unwrap_or(name);
    match fault(bare) {
        None => Ok(Arc::from(bare)),
        Some(fault) => Err(CodeError::Name { name: echo(name), fault }),
    }
}

/// As much of a name as an error repeats.
pub(crate) fn echo(name: &str) -> String {
    name.chars().take(NAME_ECHO_CHARS_MAX).collect()
}

/// The first rule that a name breaks. The name is in normal form if there is none.
pub(crate) fn fault(name: &str) -> Option<NameFault> {
    if name.is_empty() {
        return Some(NameFault::Empty);
    }
    if name.len() > MODULE_NAME_BYTES_MAX {
        return Some(NameFault::TooLong);
    }
    if let Some(fault) = name.chars().find_map(char_fault) {
        return Some(fault);
    }
    if has_percent_form(name) {
        return Some(NameFault::Percent);
    }
    if scheme(name).is_some() {
        return Some(NameFault::Scheme);
    }
    if name.starts_with('/') {
        return Some(NameFault::Absolute);
    }
    name.split('/').find_map(segment_fault)
}

fn char_fault(c: char) -> Option<NameFault> {
    match c {
        '\\' => Some(NameFault::Backslash),
        c if c.is_control() => Some(NameFault::Control),
        c if is_invisible(c) => Some(NameFault::Invisible),
        _ => None,
    }
}

/// Bidirectional controls, zero-width and other characters that change how a name reads without being seen.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

fn segment_fault(segment: &str) -> Option<NameFault> {
    match segment {
        "" | "." => Some(NameFault::EmptySegment),
        ".." => Some(NameFault::Escapes),
        segment if PROTOTYPE_SEGMENTS.contains(&segment) => Some(NameFault::Prototype),
        _ => None,
    }
}

fn has_percent_form(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.windows(3).any(|w| w[0] == b'%' && w[1].is_ascii_hexdigit() && w[2].is_ascii_hexdigit())
}

/// The part before `:` if it reads as a URL scheme.
pub(crate) fn scheme(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once(':')?;
    let first_is_letter = scheme.bytes().next().is_some_and(|b| b.is_ascii_alphabetic());
    let rest_fits = scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    (first_is_letter && rest_fits).then_some(scheme)
}

/// What two names have in common if they are twins on a file system that ignores case.
pub(crate) fn twin_key(name: &str) -> String {
    // Upper case first, so that letters such as the final sigma or the dotless i meet.
    name.to_uppercase().to_lowercase()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_each_kind_of_hostile_name() {
        let long = "a".repeat(MODULE_NAME_BYTES_MAX + 1);
        let table = [
            ("", NameFault::Empty),
            ("./", NameFault::Empty),
            (long.as_str(), NameFault::TooLong),
            ("../a.js", NameFault::Escapes),
            ("a/../b.js", NameFault::Escapes),
            ("./../a.js", NameFault::Escapes),
            ("/etc/passwd", NameFault::Absolute),
            ("a//b.js", NameFault::EmptySegment),
            ("a/./b.js", NameFault::EmptySegment),
            ("././a.js", NameFault::EmptySegment),
            ("a/", NameFault::EmptySegment),
            ("%2e%2e/a.js", NameFault::Percent),
            ("a%00.js", NameFault::Percent),
            ("a\0.js", NameFault::Control),
            ("a\n.js", NameFault::Control),
            ("a\u{85}.js", NameFault::Control),
            ("..\\a.js", NameFault::Backslash),
            ("a\u{202e}sj.js", NameFault::Invisible),
            ("a\u{200b}.js", NameFault::Invisible),
            ("\u{feff}a.js", NameFault::Invisible),
            ("node:fs", NameFault::Scheme),
            ("cloudflare:workers", NameFault::Scheme),
            ("file:a.js", NameFault::Scheme),
            ("ext:core/ops", NameFault::Scheme),
            ("__proto__", NameFault::Prototype),
            ("a/__proto__/b.js", NameFault::Prototype),
            ("constructor", NameFault::Prototype),
        ];
        for (name, fault) in table {
            let got = normalise(name);
            assert!(
                matches!(&got, Err(CodeError::Name { fault: f, .. }) if *f == fault),
                "{name:?}: {got:?}"
            );
        }
    }

    #[test]
    fn accepts_ordinary_names_and_drops_the_leading_dot() {
        for name in ["a.js", "./a.js", "lib/ü/日本.js", "a b.js", "50%.txt", "x@1.2/y.mjs", ".hidden", "a:b"]
        {
            let bare = name.trim_start_matches("./");
            if name == "a:b" {
                assert!(normalise(name).is_err());
            } else {
                assert_eq!(&*normalise(name).unwrap(), bare);
            }
        }
    }

    #[test]
    fn twins_meet() {
        for (a, b) in [("A.js", "a.js"), ("ß.js", "SS.js"), ("ς.js", "σ.js")] {
            assert_eq!(twin_key(a), twin_key(b));
        }
        assert_ne!(twin_key("a.js"), twin_key("b.js"));
    }

    proptest! {
        #[test]
        fn normal_form_is_stable_and_safe(name in "\\PC{0,24}|[./a%2eE\\\\:]{0,12}") {
            if let Ok(normal) = normalise(&name) {
                prop_assert_eq!(&normalise(&normal).unwrap(), &normal);
                prop_assert!(!normal.split('/').any(|s| s.is_empty() || s == ".." || s == "."));
                prop_assert!(!normal.contains(['\\', '\0']));
            }
        }
    }
}
