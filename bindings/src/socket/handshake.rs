//! The opening handshake, both ends (RFC 6455 section 4, RFC 7692 section 7): header fields in, header fields out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{
    CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderName, Method};
use sha1::{Digest as _, Sha1};

use super::Deflate;

/// What every accept key is made with (section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Bytes of a key, section 4.1.
const KEY_BYTES: usize = 16;
const DEFLATE: &str = "permessage-deflate";
const SERVER_NO_CONTEXT: &str = "server_no_context_takeover";
const CLIENT_NO_CONTEXT: &str = "client_no_context_takeover";

/// What is said here to every offer of compression that can be taken.
const TAKEN: HeaderValue =
    HeaderValue::from_static("permessage-deflate; server_no_context_takeover; client_no_context_takeover");
/// Offers of one request that are looked at.
const OFFERS_MAX: usize = 16;

/// Fields that belong to the handshake of one connection: whoever opens or answers one says them anew.
pub const OF_ONE_CONNECTION: [HeaderName; 4] =
    [SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION];

/// Whether a request asks for a WebSocket, as far as the method and `upgrade` say. Within the seam that is all that is said.
#[must_use]
pub fn is_wanted(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::GET && has_token(headers, &UPGRADE, "websocket")
}

/// Whether a list field has a token, in any case of letters.
#[must_use]
pub fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|each| each.trim().eq_ignore_ascii_case(token))
}

/// Why a client's handshake is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// Not exactly one `Sec-WebSocket-Version: 13`.
    #[error("Only version 13 of the WebSocket protocol is spoken.")]
    Version,
    /// Not exactly one key of sixteen bytes.
    #[error("A WebSocket handshake needs one Sec-WebSocket-Key of sixteen bytes.")]
    Key,
    /// A subprotocol that is no token.
    #[error("Sec-WebSocket-Protocol must be a list of tokens.")]
    Protocol,
}

/// A client's handshake that can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    accept: HeaderValue,
    protocols: Vec<String>,
    deflate: Option<Deflate>,
}

/// The worker chose a subprotocol that the client did not offer (section 4.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("The worker answered with a WebSocket subprotocol that the client did not offer.")]
pub struct NotOffered;

impl Offer {
    /// Checks a client's handshake. `compress`: whether the worker's compatibility settings want compression.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(headers: &HeaderMap, compress: bool) -> Result<Self, BadRequest> {
        if only(headers, &SEC_WEBSOCKET_VERSION) != Some("13") {
            return Err(BadRequest::Version);
        }
        let key = only(headers, &SEC_WEBSOCKET_KEY).ok_or(BadRequest::Key)?;
        let bytes = BASE64.decode(key).map_err(|_| BadRequest::Key)?;
        if bytes.len() != KEY_BYTES {
            return Err(BadRequest::Key);
        }
        let protocols = protocols(headers).ok_or(BadRequest::Protocol)?;
        let deflate = if compress { taken(headers) } else { None };
        Ok(Self { accept: accept(key), protocols, deflate })
    }

    /// Completes the head of a 101 response, and says what was agreed about compression.
    ///
    /// # Errors
    /// The worker's answer does not fit the offer.
    pub fn answer(&self, headers: &mut HeaderMap) -> Result<Option<Deflate>, NotOffered> {
        for name in OF_ONE_CONNECTION {
            headers.remove(name);
        }
        if headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
            let chosen = only(headers, &SEC_WEBSOCKET_PROTOCOL).ok_or(NotOffered)?;
            if !self.protocols.iter().any(|offered| offered == chosen) {
                return Err(NotOffered);
            }
        }
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, self.accept.clone());
        if self.deflate.is_some() {
            headers.insert(SEC_WEBSOCKET_EXTENSIONS, TAKEN);
        }
        Ok(self.deflate)
    }
}

/// The one value of a field.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?.trim();
    values.next().is_none().then_some(value)
}

fn protocols(headers: &HeaderMap) -> Option<Vec<String>> {
    let mut protocols = Vec::new();
    for value in headers.get_all(SEC_WEBSOCKET_PROTOCOL) {
        for token in value.to_str().ok()?.split(',') {
            let token = token.trim();
            if token.is_empty() || !token.bytes().all(is_token_byte) {
                return None;
            }
            protocols.push(token.to_owned());
        }
    }
    Some(protocols)
}

/// RFC 9110 section 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn accept(key: &str) -> HeaderValue {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    // Base64 has only letters that a header value may have.
    HeaderValue::try_from(BASE64.encode(digest)).unwrap_or(HeaderValue::from_static(""))
}

/// A name with its parameters.
type Extension = (String, Vec<(String, Option<String>)>);

/// The offers, or the answer, in `Sec-WebSocket-Extensions`: names with their parameters.
fn extensions(headers: &HeaderMap) -> Vec<Extension> {
    let lists = headers.get_all(SEC_WEBSOCKET_EXTENSIONS).iter().filter_map(|value| value.to_str().ok());
    let extension = |text: &str| {
        let mut fields = text.split(';').map(str::trim);
        let name = fields.next().unwrap_or_default().to_ascii_lowercase();
        let parameter = |field: &str| match field.split_once('=') {
            Some((name, value)) => {
                (name.trim().to_ascii_lowercase(), Some(value.trim().trim_matches('"').to_owned()))
            }
            None => (field.to_ascii_lowercase(), None),
        };
        (name, fields.map(parameter).collect())
    };
    lists.flat_map(|list| list.split(',')).take(OFFERS_MAX).map(extension).collect()
}

/// Whether the value is a window size (RFC 7692 section 7.1.2).
fn window(value: Option<&str>) -> Option<u8> {
    let bits = value.filter(|bits| !bits.starts_with(['0', '+']))?.parse().ok()?;
    (8..=15).contains(&bits).then_some(bits)
}

/// The first offer of compression that can be taken. One with a parameter that is unknown, wrong or there twice is declined as
/// the standard asks, and so is one that wants a smaller window of ours, which the library cannot make.
fn taken(headers: &HeaderMap) -> Option<Deflate> {
    let fits = |(name, parameters): &Extension| {
        let known = |at: usize| {
            let (name, value) = &parameters[at];
            let again = parameters[..at].iter().any(|(earlier, _)| earlier == name);
            !again
                && match (name.as_str(), value.as_deref()) {
                    (SERVER_NO_CONTEXT | CLIENT_NO_CONTEXT | "client_max_window_bits", None) => true,
                    ("client_max_window_bits", value) => window(value).is_some(),
                    ("server_max_window_bits", value) => window(value) == Some(15),
                    _ => false,
                }
        };
        name == DEFLATE && (0..parameters.len()).all(known)
    };
    extensions(headers).iter().any(fits).then_some(Deflate { peer_keeps_context: false })
}

/// Opens a connection as a client.
#[derive(Clone, Debug)]
pub struct Opening {
    accept: HeaderValue,
    protocols: Vec<String>,
    offered: bool,
}

/// Why a server's answer is no handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    /// `upgrade` or `connection` do not say so.
    #[error("the server did not switch to the WebSocket protocol")]
    Upgrade,
    /// The accept key is another one.
    #[error("the server's Sec-WebSocket-Accept is wrong")]
    Accept,
    /// A subprotocol that was not offered.
    #[error("the server chose a subprotocol that was not offered")]
    Protocol,
    /// An extension that was not offered, or parameters that do not fit.
    #[error("the server chose an extension that was not offered")]
    Extension,
}

impl Opening {
    /// Completes the head of a request. The guest's own words about subprotocols stay; that it names
    /// `permessage-deflate` means that it wants compression.
    #[must_use]
    pub fn new(headers: &mut HeaderMap) -> Self {
        let offered = extensions(headers).iter().any(|(name, _)| name == DEFLATE);
        for name in OF_ONE_CONNECTION {
            headers.remove(name);
        }
        let mut bytes = [0; KEY_BYTES];
        if getrandom::fill(&mut bytes).is_err() {
            // Without entropy nothing can be unguessable: there is no sensible way to go on.
            std::process::abort();
        }
        let key = BASE64.encode(bytes);
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        if let Ok(key) = HeaderValue::try_from(&key) {
            headers.insert(SEC_WEBSOCKET_KEY, key);
        }
        if offered {
            headers.insert(SEC_WEBSOCKET_EXTENSIONS, TAKEN);
        }
        Self { accept: accept(&key), protocols: protocols(headers).unwrap_or_default(), offered }
    }

    /// Checks a 101 answer (section 4.1), and says what was agreed about compression.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, headers: &HeaderMap) -> Result<Option<Deflate>, BadAnswer> {
        if !has_token(headers, &UPGRADE, "websocket") || !has_token(headers, &CONNECTION, "upgrade") {
            return Err(BadAnswer::Upgrade);
        }
        if headers.get(SEC_WEBSOCKET_ACCEPT) != Some(&self.accept) {
            return Err(BadAnswer::Accept);
        }
        if headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
            let chosen = only(headers, &SEC_WEBSOCKET_PROTOCOL).ok_or(BadAnswer::Protocol)?;
            if !self.protocols.iter().any(|offered| offered == chosen) {
                return Err(BadAnswer::Protocol);
            }
        }
        let extensions = extensions(headers);
        let [(name, parameters)] = extensions.as_slice() else {
            return if extensions.is_empty() { Ok(None) } else { Err(BadAnswer::Extension) };
        };
        let fits = |(name, value): &(String, Option<String>)| match (name.as_str(), value.as_deref()) {
            (SERVER_NO_CONTEXT | CLIENT_NO_CONTEXT, None) => true,
            ("server_max_window_bits", value) => window(value).is_some(),
            _ => false,
        };
        if !self.offered || name != DEFLATE || !parameters.iter().all(fits) {
            return Err(BadAnswer::Extension);
        }
        let peer_keeps_context = !parameters.iter().any(|(name, _)| name == SERVER_NO_CONTEXT);
        Ok(Some(Deflate { peer_keeps_context }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    const KEY: (&str, &str) = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    const VERSION: (&str, &str) = ("sec-websocket-version", "13");

    #[test]
    fn the_example_of_the_standard_is_answered_as_there() {
        let offer = Offer::read(&headers(&[KEY, VERSION]), true).unwrap();
        let mut answer = headers(&[("sec-websocket-accept", "the guest's"), ("x-own", "1")]);
        assert_eq!(offer.answer(&mut answer), Ok(None));
        assert_eq!(answer[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(answer["x-own"], "1");
        assert!(!answer.contains_key(SEC_WEBSOCKET_EXTENSIONS));
    }

    #[test]
    fn bad_handshakes_are_refused() {
        for (fields, wanted) in [
            (vec![KEY], BadRequest::Version),
            (vec![KEY, ("sec-websocket-version", "8")], BadRequest::Version),
            (vec![KEY, VERSION, VERSION], BadRequest::Version),
            (vec![VERSION], BadRequest::Key),
            (vec![VERSION, KEY, KEY], BadRequest::Key),
            (vec![VERSION, ("sec-websocket-key", "c2hvcnQ=")], BadRequest::Key),
            (vec![VERSION, ("sec-websocket-key", "not base64")], BadRequest::Key),
            (vec![VERSION, KEY, ("sec-websocket-protocol", "a, b c")], BadRequest::Protocol),
            (vec![VERSION, KEY, ("sec-websocket-protocol", "")], BadRequest::Protocol),
        ] {
            assert_eq!(Offer::read(&headers(&fields), true), Err(wanted), "{fields:?}");
        }
    }

    #[test]
    fn a_subprotocol_must_have_been_offered() {
        let offer =
            Offer::read(&headers(&[KEY, VERSION, ("sec-websocket-protocol", "chat, superchat")]), true);
        let offer = offer.unwrap();
        let answer = |fields: &[_]| offer.answer(&mut headers(fields));
        assert_eq!(answer(&[("sec-websocket-protocol", "superchat")]), Ok(None));
        assert_eq!(answer(&[("sec-websocket-protocol", "other")]), Err(NotOffered));
        let twice = [("sec-websocket-protocol", "chat"), ("sec-websocket-protocol", "chat")];
        assert_eq!(answer(&twice), Err(NotOffered));
    }

    #[test]
    fn compression_is_taken_where_it_can_be() {
        for (offer, taken) in [
            ("permessage-deflate", true),
            ("permessage-deflate; client_max_window_bits", true),
            ("permessage-deflate; client_max_window_bits=10; server_no_context_takeover", true),
            ("permessage-deflate; server_max_window_bits=15", true),
            ("permessage-deflate; server_max_window_bits=10", false),
            ("permessage-deflate; server_max_window_bits=10, permessage-deflate", true),
            ("permessage-deflate; server_max_window_bits", false),
            ("permessage-deflate; client_max_window_bits=16", false),
            ("permessage-deflate; client_max_window_bits=08", false),
            ("permessage-deflate; unknown", false),
            ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", false),
            ("permessage-deflate; server_no_context_takeover=1", false),
            ("x-webkit-deflate-frame", false),
        ] {
            let fields = headers(&[KEY, VERSION, ("sec-websocket-extensions", offer)]);
            let mut answer = HeaderMap::new();
            let agreed = Offer::read(&fields, true).unwrap().answer(&mut answer).unwrap();
            assert_eq!(agreed.is_some(), taken, "{offer}");
            assert_eq!(answer.contains_key(SEC_WEBSOCKET_EXTENSIONS), taken, "{offer}");
            let off = Offer::read(&fields, false).unwrap().answer(&mut HeaderMap::new()).unwrap();
            assert_eq!(off, None, "the worker does not want it");
        }
    }

    #[test]
    fn both_ends_understand_each_other() {
        let mut request = headers(&[
            ("sec-websocket-extensions", "permessage-deflate"),
            ("sec-websocket-protocol", "a, b"),
        ]);
        let opening = Opening::new(&mut request);
        let offer = Offer::read(&request, true).unwrap();
        let mut answer = headers(&[("sec-websocket-protocol", "b")]);
        let agreed = Some(Deflate { peer_keeps_context: false });
        assert_eq!(offer.answer(&mut answer), Ok(agreed));
        assert_eq!(opening.check(&answer), Ok(agreed));
    }

    #[test]
    fn answers_that_are_no_handshake_are_refused() {
        let opening = Opening::new(&mut HeaderMap::new());
        let accept = opening.accept.to_str().unwrap().to_owned();
        let good = [
            ("upgrade", "WebSocket"),
            ("connection", "keep-alive, Upgrade"),
            ("sec-websocket-accept", &accept[..]),
        ];
        assert_eq!(opening.check(&headers(&good)), Ok(None));
        let with = |field| headers(&[good[0], good[1], good[2], field]);
        assert_eq!(opening.check(&headers(&good[..2])), Err(BadAnswer::Accept));
        assert_eq!(opening.check(&headers(&good[1..])), Err(BadAnswer::Upgrade));
        assert_eq!(opening.check(&with(("sec-websocket-protocol", "a"))), Err(BadAnswer::Protocol));
        let extension = with(("sec-websocket-extensions", "permessage-deflate"));
        assert_eq!(opening.check(&extension), Err(BadAnswer::Extension), "it was not offered");
    }
}
