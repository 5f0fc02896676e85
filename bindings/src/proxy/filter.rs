//! What a guest may say to a server behind the proxy, and what the server may say back, besides bodies.
//!
//! Taken from requests: everything that carries a credential in any spelling, that would make the server see another method or
//! path than the rule saw, or that would cut the answer into pieces too small to be searched.

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};

use super::scrub::Needles;

/// Carry credentials whatever the proxy injects. Compared without punctuation: servers that see `_` for `-` see these too.
const CREDENTIALS: [&str; 12] = [
    "authorization",
    "proxyauthorization",
    "cookie",
    "cookie2",
    "xapikey",
    "apikey",
    "xauthtoken",
    "xauthorization",
    "xaccesstoken",
    "xcsrftoken",
    "xamzsecuritytoken",
    "xforwardedauthorization",
];
/// Make servers see another request than the one that was checked, or only a part of the answer come back.
const MISLEADING: [&str; 14] = [
    "xhttpmethodoverride",
    "xhttpmethod",
    "xmethodoverride",
    "xoriginalurl",
    "xoriginaluri",
    "xrewriteurl",
    "xforwardedhost",
    "xforwardedproto",
    "xforwardedprefix",
    "xhost",
    "forwarded",
    "range",
    "ifrange",
    "acceptencoding",
];
/// Say too much, or are of use to nobody behind the proxy.
const NOT_TO_GUESTS: [HeaderName; 6] = [
    header::SET_COOKIE,
    HeaderName::from_static("set-cookie2"),
    header::ALT_SVC,
    header::WWW_AUTHENTICATE,
    header::PROXY_AUTHENTICATE,
    header::ACCEPT_RANGES,
];

/// A header's name without case and punctuation.
fn bare(name: &str) -> String {
    name.bytes().filter(u8::is_ascii_alphanumeric).map(|b| char::from(b.to_ascii_lowercase())).collect()
}

/// Takes what guests may not say, and every spelling of the `own` names: those that the injection sets.
pub(super) fn request(headers: &mut HeaderMap, own: &[&str]) {
    let own: Vec<String> = own.iter().map(|name| bare(name)).collect();
    let bad = |name: &HeaderName| {
        let name = bare(name.as_str());
        CREDENTIALS.contains(&name.as_str()) || MISLEADING.contains(&name.as_str()) || own.contains(&name)
    };
    let gone: Vec<HeaderName> = headers.keys().filter(|name| bad(name)).cloned().collect();
    gone.into_iter().for_each(|name| drop(headers.remove(name)));
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
}

/// Takes what guests do not see, and scrubs the rest. A field whose very name holds a secret goes.
pub(super) fn response(headers: &mut HeaderMap, needles: &Needles) {
    NOT_TO_GUESTS.iter().for_each(|name| drop(headers.remove(name)));
    let mut clean = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers.iter() {
        if needles.scrub(name.as_str().as_bytes()) != name.as_str().as_bytes() {
            continue;
        }
        let scrubbed = needles.scrub(value.as_bytes());
        // A mask is a legal value, so this only fails for what was none before.
        if let Ok(value) = HeaderValue::from_bytes(&scrubbed) {
            clean.append(name, value);
        }
    }
    *headers = clean;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_credential_goes() {
        let mut headers = HeaderMap::new();
        for name in [
            "authorization",
            "x-api-key",
            "x_api_key",
            "x-token",
            "x_token",
            "X.Token",
            "cookie",
            "x-http-method-override",
            "range",
            "accept-encoding",
            "x-kept",
        ] {
            headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_static("guest"));
        }
        headers.append(header::AUTHORIZATION, HeaderValue::from_static("twice"));
        request(&mut headers, &["x-token"]);
        let left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["x-kept", "accept-encoding"]);
        assert_eq!(headers["accept-encoding"], "identity");
    }

    #[test]
    fn answers_lose_secrets_in_names_and_values() {
        let needles = Needles::new([&b"canary-secret"[..]]);
        let mut headers = HeaderMap::new();
        headers.append("x-echo", HeaderValue::from_static("Bearer canary-secret!"));
        headers.append("x-canary-secret", HeaderValue::from_static("1"));
        headers.append("set-cookie", HeaderValue::from_static("session=1"));
        headers.append("x-kept", HeaderValue::from_static("as it is"));
        response(&mut headers, &needles);
        assert_eq!(headers.len(), 2);
        assert_eq!(headers["x-echo"], "Bearer *************!");
        assert_eq!(headers["x-kept"], "as it is");
    }
}
