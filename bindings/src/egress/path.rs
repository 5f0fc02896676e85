//! Path prefixes, and which paths can be matched at all.
//!
//! A prefix is only worth something if the gateway and the server behind it read a path alike. The URL parser has removed dot
//! segments in all their spellings before a path comes here; what is left that servers are known to read differently (encoded
//! slashes, backslashes and dots, `..;`, control characters, double encoding) matches no prefix but `/`.

/// A path prefix that ends at a segment's border: `/a` covers `/a` and `/a/b`, not `/ab`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPrefix(String);

/// Longest prefix, in bytes.
const PREFIX_BYTES_MAX: usize = 1_024;

/// A prefix that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a path prefix: {0:?} (it starts with `/` and holds no `..`, `%`, `?` or `#`)")]
pub struct BadPrefix(pub String);

impl std::str::FromStr for PathPrefix {
    type Err = BadPrefix;

    fn from_str(text: &str) -> Result<Self, BadPrefix> {
        let plain = |b: u8| b.is_ascii_graphic() && !b"%?#\\\"<>".contains(&b);
        let dots = text.split('/').any(|segment| segment == "." || segment.starts_with(".."));
        if !text.starts_with('/') || text.len() > PREFIX_BYTES_MAX || !text.bytes().all(plain) || dots {
            return Err(BadPrefix(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl PathPrefix {
    /// Whether a URL's path (as the URL parser gives it) lies under the prefix.
    #[must_use]
    pub fn covers(&self, path: &str) -> bool {
        if self.0 == "/" {
            return true;
        }
        let Some(rest) = path.strip_prefix(self.0.as_str()) else { return false };
        let border = self.0.ends_with('/') || rest.is_empty() || rest.starts_with('/');
        border && is_plain(path)
    }
}

/// Whether every server reads this path alike.
pub fn is_plain(path: &str) -> bool {
    path.split('/').all(|segment| {
        let Some(plain) = decode(segment) else { return false };
        let again = plain.windows(3).any(|w| {
            w[0] == b'%'
                && (w[1..].eq_ignore_ascii_case(b"2e")
                    || w[1..].eq_ignore_ascii_case(b"2f")
                    || w[1..].eq_ignore_ascii_case(b"5c"))
        });
        let odd = |b: &u8| matches!(b, b'/' | b'\\') || b.is_ascii_control();
        !again
            && !plain.starts_with(b"..")
            && plain.as_slice() != b"."
            && !plain.starts_with(b".;")
            && !plain.iter().any(odd)
    })
}

/// Percent-decoded; `None` if an escape is broken, which servers treat in many ways.
fn decode(segment: &str) -> Option<Vec<u8>> {
    let mut bytes = segment.bytes();
    let mut out = Vec::with_capacity(segment.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| char::from(b?).to_digit(16);
        let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
        out.push(u8::try_from(high * 16 + low).ok()?);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use url::Url;

    use super::*;

    fn covers(prefix: &str, path: &str) -> bool {
        let url = Url::parse(&format!("https://a.example{path}")).unwrap();
        prefix.parse::<PathPrefix>().unwrap().covers(url.path())
    }

    #[test]
    fn prefixes_end_at_borders_and_nothing_climbs_out() {
        for inside in
            ["/v1", "/v1/", "/v1/a", "/v1/a%20b", "/x/../v1/a", "/v1?q=../x", "/v1/.well-known", "/v1/a..b"]
        {
            assert!(covers("/v1", inside), "{inside}");
        }
        for outside in [
            "/",
            "/v",
            "/v10",
            "/V1",
            "/v1/../admin",
            "/v1/%2e%2e/admin",
            "/v1/.%2E/admin",
            "/v1/%2e%2e%2fadmin",
            "/v1/..%2fadmin",
            "/v1/..%5cadmin",
            "/v1\\..\\admin",
            "/v1/..;/admin",
            "/v1/%252e%252e%252fadmin",
            "/v1/%2f..%2fadmin",
            "/v1/%00",
            "/v1/%zz",
            "/v1/a%0d%0a",
            "/v1/%2e%2e;x/admin",
            "/%76%31",
        ] {
            assert!(!covers("/v1", outside), "{outside}");
        }
        assert!(covers("/", "/anything/%2f"));
        for bad in ["", "v1", "/a/../b", "/a?b", "/a%20", "/a b", "/./a", "/a\\b"] {
            assert!(bad.parse::<PathPrefix>().is_err(), "{bad}");
        }
    }

    proptest! {
        /// However a path is spelt: if a prefix covers it, then after any number of decodings no segment climbs out.
        #[test]
        fn what_is_covered_stays_under_the_prefix(rest in "[a./%25efEF\\\\;]{0,24}") {
            let Ok(url) = Url::parse(&format!("https://a.example/v1/{rest}")) else { return Ok(()) };
            let prefix: PathPrefix = "/v1/".parse().unwrap();
            if prefix.covers(url.path()) {
                let mut path = url.path().as_bytes().to_vec();
                for _ in 0..2 {
                    let text = String::from_utf8_lossy(&path).into_owned();
                    prop_assert!(text.starts_with("/v1/"));
                    prop_assert!(!text.split(['/', '\\']).any(|s| s == ".." || s.starts_with("..;")), "{}", text);
                    match decode(&text) { Some(next) => path = next, None => break }
                }
            }
        }
    }
}
