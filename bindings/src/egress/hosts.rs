//! Which origins a worker may reach: patterns, denied by default.

use std::str::FromStr;

/// Most patterns of one list.
pub const PATTERNS_MAX: usize = 1_000;

/// A pattern of origins: `api.example.com`, `*.example.com`, `*`, each with an optional `:port` (or `:*`) and an optional
/// `http://` for plain text. Without a port it means the scheme's own. `tcp://db.example.com:5432` is for `connect()`, with or
/// without TLS, and always names its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    /// `None`: both; only in patterns that deny.
    scheme: Option<Scheme>,
    host: Host,
    port: Option<u16>,
}

/// What egress speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
    /// Bytes, secured or not.
    Tcp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Any,
    /// Any name below this one, itself not included.
    Below(String),
    Exactly(String),
}

/// A pattern that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a host pattern: {0:?}")]
pub struct BadPattern(pub String);

impl Scheme {
    /// That of a URL; nobody has requests over bare TCP.
    pub(super) fn of(text: &str) -> Option<Self> {
        match text {
            "http" => Some(Self::Http),
            "https" => Some(Self::Https),
            _ => None,
        }
    }

    /// The port of a URL without one; 0, which nobody can dial, where there is no such thing.
    pub(super) fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
            Self::Tcp => 0,
        }
    }
}

impl FromStr for HostPattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        let pattern = Self::denying(text)?;
        let scheme = pattern.scheme.unwrap_or(Scheme::Https);
        if scheme == Scheme::Tcp && !has_port(text) {
            return Err(BadPattern(text.to_owned()));
        }
        let port = if has_port(text) { pattern.port } else { Some(scheme.port()) };
        Ok(Self { scheme: Some(scheme), port, ..pattern })
    }
}

/// The colons inside an IPv6 literal belong to the host.
fn split_port(rest: &str) -> (&str, Option<&str>) {
    match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    }
}

fn has_port(text: &str) -> bool {
    split_port(text.split_once("://").map_or(text, |(_, rest)| rest)).1.is_some()
}

impl HostPattern {
    /// The same text as a pattern that denies: without a scheme it means both, without a port it means all.
    ///
    /// # Errors
    /// If it is no pattern.
    pub fn denying(text: &str) -> Result<Self, BadPattern> {
        let bad = || BadPattern(text.to_owned());
        let (scheme, rest) = match text.split_once("://") {
            None => (None, text),
            Some(("tcp", rest)) => (Some(Scheme::Tcp), rest),
            Some((scheme, rest)) => (Some(Scheme::of(scheme).ok_or_else(bad)?), rest),
        };
        let (host, port) = split_port(rest);
        let port = match port {
            None | Some("*") => None,
            Some(port) => Some(port.parse().map_err(|_| bad())?),
        };
        let host = host.to_ascii_lowercase();
        let host = match host.strip_prefix("*.") {
            _ if host == "*" => Host::Any,
            Some(parent) if is_name(parent) => Host::Below(parent.to_owned()),
            None if is_name(&host) || is_v6_literal(&host) => Host::Exactly(host),
            _ => return Err(bad()),
        };
        Ok(Self { scheme, host, port })
    }
}

fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    text.split('.').all(label)
}

fn is_v6_literal(text: &str) -> bool {
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    inner.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())
}

impl HostPattern {
    /// Whether an origin is in the pattern. `host` is in lower case, without a trailing dot.
    pub(super) fn covers(&self, scheme: Scheme, host: &str, port: u16) -> bool {
        let named = match &self.host {
            Host::Any => true,
            Host::Exactly(name) => host == name,
            Host::Below(parent) => {
                host.strip_suffix(parent.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
        };
        named && self.scheme.is_none_or(|own| own == scheme) && self.port.is_none_or(|own| own == port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_cover_what_they_say() {
        use Scheme::{Http, Https, Tcp};
        let cases = [
            ("api.example.com", Https, "api.example.com", 443, true),
            ("API.example.com", Https, "api.example.com", 443, true),
            ("api.example.com", Http, "api.example.com", 80, false),
            ("api.example.com", Https, "api.example.com", 8443, false),
            ("api.example.com:8443", Https, "api.example.com", 8443, true),
            ("api.example.com:*", Https, "api.example.com", 1, true),
            ("api.example.com", Https, "xapi.example.com", 443, false),
            ("*.example.com", Https, "a.b.example.com", 443, true),
            ("*.example.com", Https, "example.com", 443, false),
            ("*.example.com", Https, ".example.com", 443, false),
            ("*.example.com", Https, "badexample.com", 443, false),
            ("*.example.com", Https, "example.com.evil.net", 443, false),
            ("http://example.com", Http, "example.com", 80, true),
            ("http://example.com", Https, "example.com", 443, false),
            ("https://example.com", Https, "example.com", 443, true),
            ("http://127.0.0.1:8080", Http, "127.0.0.1", 8080, true),
            ("http://[::1]:8080", Http, "[::1]", 8080, true),
            ("[::1]", Https, "[::1]", 443, true),
            ("*", Https, "anything.at.all", 443, true),
            ("*", Http, "anything.at.all", 80, false),
            ("http://*:*", Http, "anything.at.all", 99, true),
            ("*", Tcp, "anything.at.all", 443, false),
            ("tcp://db.example.com:5432", Tcp, "db.example.com", 5432, true),
            ("tcp://db.example.com:5432", Tcp, "db.example.com", 5433, false),
            ("tcp://db.example.com:443", Https, "db.example.com", 443, false),
        ];
        for (pattern, scheme, host, port, expected) in cases {
            let parsed: HostPattern = pattern.parse().expect(pattern);
            assert_eq!(parsed.covers(scheme, host, port), expected, "{pattern} {scheme:?} {host}:{port}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "",
            "a..b",
            "*.",
            "*.*.com",
            "a*.com",
            "ftp://a",
            "a:99999",
            "a b",
            "a/b",
            "user@a",
            ":80",
            "[zz]",
            "tcp://a",
            "tls://a:1",
        ] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad}");
        }
    }
}
