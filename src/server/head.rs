//! The strict reading of an HTTP/1 request head, and of chunk sizes: pure functions over bytes.
//!
//! The HTTP library reads leniently where the standard allows it (bare line feeds, repeated equal lengths, a
//! length beside a transfer coding). Each of these is a way to make two parsers disagree about where a request
//! ends, so here they are all refused. RFC 9112 sections 2.2, 3, 5, 6 and 7.

use atoll_loader::limits::{HEADER_BYTES_MAX, HEADERS_MAX, URL_BYTES_MAX};
use http::StatusCode;

/// Largest request head, in bytes: the request line and the header fields.
pub(super) const HEAD_BYTES_MAX: usize = HEADER_BYTES_MAX + URL_BYTES_MAX;
/// Longest chunk-size line, in bytes, extensions included.
pub(super) const CHUNK_LINE_BYTES_MAX: usize = 256;

/// How the body after a head is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// This many bytes, possibly none.
    Length(u64),
    /// In chunks.
    Chunked,
    /// None, and what follows the answer may be WebSocket frames: nothing more is read until that is decided.
    WebSocket,
}

/// Why a request is answered by the listener itself, and its connection closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Refusal {
    BareLineEnd,
    RequestLine,
    Version,
    UrlTooLong,
    HeaderName,
    HeaderValue,
    Folding,
    TooManyHeaders,
    HeadersTooLarge,
    ContentLength,
    TransferEncoding,
    LengthAndEncoding,
    Host,
    Expect,
    Chunk,
    HeadTimeout,
    Upgrade,
}

impl Refusal {
    /// The status that answers it, and what to tell the client.
    pub(super) fn answer(self) -> (StatusCode, &'static str, &'static str) {
        let bad = StatusCode::BAD_REQUEST;
        match self {
            Self::BareLineEnd => (bad, "bad_request", "Lines of the head must end with CR LF."),
            Self::RequestLine => (bad, "bad_request", "The request line is malformed."),
            Self::Version => (
                StatusCode::HTTP_VERSION_NOT_SUPPORTED,
                "http_version",
                "Only HTTP/1.0, 1.1 and 2 are spoken.",
            ),
            Self::UrlTooLong => (StatusCode::URI_TOO_LONG, "url_too_long", "The URL is too long."),
            Self::HeaderName => (bad, "bad_request", "A header name is malformed."),
            Self::HeaderValue => (bad, "bad_request", "A header value contains a control character."),
            Self::Folding => (bad, "bad_request", "Folded header lines are not accepted."),
            Self::TooManyHeaders => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "too_many_headers",
                "There are too many headers.",
            ),
            Self::HeadersTooLarge => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "headers_too_large",
                "The headers are too large.",
            ),
            Self::ContentLength => (bad, "bad_request", "Content-Length must be one decimal number."),
            Self::TransferEncoding => (bad, "bad_request", "Transfer-Encoding must be exactly `chunked`."),
            Self::LengthAndEncoding => {
                (bad, "bad_request", "Content-Length and Transfer-Encoding exclude each other.")
            }
            Self::Host => (bad, "bad_request", "A request needs exactly one valid Host."),
            Self::Expect => {
                (StatusCode::EXPECTATION_FAILED, "expectation", "Only 100-continue can be expected.")
            }
            Self::Chunk => (bad, "bad_request", "The chunked body is malformed."),
            Self::Upgrade => (bad, "bad_request", "A WebSocket handshake is a GET without a body."),
            Self::HeadTimeout => {
                (StatusCode::REQUEST_TIMEOUT, "head_timeout", "The request head took too long to arrive.")
            }
        }
    }
}

/// Checks a complete head, final empty line included.
pub(super) fn check(head: &[u8]) -> Result<Framing, Refusal> {
    let mut lines = Lines(head);
    let request_line = lines.next().ok_or(Refusal::RequestLine)??;
    let version_11 = check_request_line(request_line)?;
    let (mut count, mut length, mut encoding, mut hosts) = (0usize, None, None, 0usize);
    let (mut websocket, mut upgrade) = (false, false);
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        count += 1;
        if count > HEADERS_MAX {
            return Err(Refusal::TooManyHeaders);
        }
        let (name, value) = check_field(line)?;
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                hosts += 1;
                check_host(value)?;
            }
            6 if name.eq_ignore_ascii_case(b"expect") && !value.eq_ignore_ascii_case(b"100-continue") => {
                return Err(Refusal::Expect);
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => websocket |= has_token(value, b"websocket"),
            10 if name.eq_ignore_ascii_case(b"connection") => upgrade |= has_token(value, b"upgrade"),
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let one = length.replace(parse_length(value)?).is_none();
                one.then_some(()).ok_or(Refusal::ContentLength)?;
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                let one = encoding.replace(value).is_none();
                (one && value.eq_ignore_ascii_case(b"chunked"))
                    .then_some(())
                    .ok_or(Refusal::TransferEncoding)?;
            }
            _ => {}
        }
    }
    if hosts > 1 || (version_11 && hosts == 0) {
        return Err(Refusal::Host);
    }
    if version_11 && websocket && upgrade {
        let bodiless = length.unwrap_or(0) == 0 && encoding.is_none();
        let plain = bodiless && request_line.starts_with(b"GET ");
        return if plain { Ok(Framing::WebSocket) } else { Err(Refusal::Upgrade) };
    }
    match (length, encoding) {
        (Some(_), Some(_)) => Err(Refusal::LengthAndEncoding),
        // A coding that HTTP/1.0 does not know.
        (None, Some(_)) if !version_11 => Err(Refusal::TransferEncoding),
        (None, Some(_)) => Ok(Framing::Chunked),
        (length, None) => Ok(Framing::Length(length.unwrap_or(0))),
    }
}

/// Whether a list has a token, in any case of letters.
fn has_token(list: &[u8], token: &[u8]) -> bool {
    list.split(|byte| *byte == b',').any(|each| each.trim_ascii().eq_ignore_ascii_case(token))
}

/// Lines of a head; each must end with CR LF and contain neither alone.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = Result<&'a [u8], Refusal>;

    fn next(&mut self) -> Option<Self::Item> {
        let end = memchr::memchr(b'\n', self.0)?;
        let (line, rest) = self.0.split_at(end);
        self.0 = &rest[1..];
        match line.split_last() {
            Some((b'\r', line)) if memchr::memchr(b'\r', line).is_none() => Some(Ok(line)),
            _ => Some(Err(Refusal::BareLineEnd)),
        }
    }
}

/// Whether the version is 1.1.
fn check_request_line(line: &[u8]) -> Result<bool, Refusal> {
    let mut parts = line.split(|&b| b == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Refusal::RequestLine);
    };
    if target.len() > URL_BYTES_MAX {
        return Err(Refusal::UrlTooLong);
    }
    let method_ok = !method.is_empty() && method.len() <= 32 && method.iter().all(|&b| is_token(b));
    let target_ok = !target.is_empty() && target.iter().all(|&b| b > b' ' && b != 0x7f);
    if !method_ok || !target_ok {
        return Err(Refusal::RequestLine);
    }
    match version {
        b"HTTP/1.1" => Ok(true),
        b"HTTP/1.0" => Ok(false),
        _ if version.starts_with(b"HTTP/") => Err(Refusal::Version),
        _ => Err(Refusal::RequestLine),
    }
}

/// A field's name, and its value without surrounding blanks.
fn check_field(line: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    if matches!(line[0], b' ' | b'\t') {
        return Err(Refusal::Folding);
    }
    let colon = memchr::memchr(b':', line).ok_or(Refusal::HeaderName)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().all(|&b| is_token(b)) {
        return Err(Refusal::HeaderName);
    }
    if value.iter().any(|&b| (b < b' ' && b != b'\t') || b == 0x7f) {
        return Err(Refusal::HeaderValue);
    }
    Ok((name, value.trim_ascii()))
}

fn check_host(value: &[u8]) -> Result<(), Refusal> {
    let legal = |&b: &u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    (!value.is_empty() && value.len() <= 261 && value.iter().all(legal)).then_some(()).ok_or(Refusal::Host)
}

fn parse_length(value: &[u8]) -> Result<u64, Refusal> {
    let digits = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
    let number = || value.iter().fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    digits.then(number).ok_or(Refusal::ContentLength)
}

/// The size in a chunk-size line without its line end.
pub(super) fn chunk_size(line: &[u8]) -> Result<u64, Refusal> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let rest = &line[digits..];
    let extension_ok =
        rest.is_empty() || (rest[0] == b';' && rest.iter().all(|&b| (b >= b' ' || b == b'\t') && b != 0x7f));
    if digits == 0 || digits > 15 || !extension_ok {
        return Err(Refusal::Chunk);
    }
    let nibble = |digit: u8| u64::from(char::from(digit).to_digit(16).unwrap_or(0));
    Ok(line[..digits].iter().fold(0, |sum, &digit| sum * 16 + nibble(digit)))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn heads_are_read_strictly() {
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "x: y\r\n".repeat(HEADERS_MAX));
        let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(URL_BYTES_MAX));
        for (head, expected) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Ok(Framing::Length(0))),
            ("GET / HTTP/1.0\r\n\r\n", Ok(Framing::Length(0))),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: a, Upgrade\r\n\r\n",
                Ok(Framing::WebSocket),
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c, WebSocket\r\nConnection: upgrade\r\n\r\n",
                Ok(Framing::WebSocket),
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
                Ok(Framing::Length(0)),
            ),
            ("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", Ok(Framing::Length(0))),
            (
                "GET / HTTP/1.0\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
                Ok(Framing::Length(0)),
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
                Err(Refusal::Upgrade),
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 1\r\n\r\n",
                Err(Refusal::Upgrade),
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\nTransfer-Encoding: chunked\r\n\r\n",
                Err(Refusal::Upgrade),
            ),
            ("POST /a?b HTTP/1.1\r\nHost: [::1]:80\r\nContent-Length: 5 \r\n\r\n", Ok(Framing::Length(5))),
            ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: Chunked\r\n\r\n", Ok(Framing::Chunked)),
            ("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\n\r\n", Ok(Framing::Length(0))),
            // Row 72: ways to disagree about where the body ends.
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                Err(Refusal::LengthAndEncoding),
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
                Err(Refusal::LengthAndEncoding),
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
                Err(Refusal::ContentLength),
            ),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n", Err(Refusal::ContentLength)),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\n", Err(Refusal::ContentLength)),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\n", Err(Refusal::ContentLength)),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", Err(Refusal::ContentLength)),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
                Err(Refusal::ContentLength),
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
                Err(Refusal::TransferEncoding),
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
                Err(Refusal::TransferEncoding),
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
                Err(Refusal::TransferEncoding),
            ),
            ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Err(Refusal::TransferEncoding)),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n", Err(Refusal::HeaderName)),
            ("GET / HTTP/1.1\nHost: a\n\n", Err(Refusal::BareLineEnd)),
            ("GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", Err(Refusal::BareLineEnd)),
            ("GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", Err(Refusal::BareLineEnd)),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", Err(Refusal::Folding)),
            ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", Err(Refusal::Folding)),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", Err(Refusal::HeaderValue)),
            ("GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", Err(Refusal::HeaderName)),
            ("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", Err(Refusal::HeaderName)),
            ("GET / HTTP/1.1\r\n\r\n", Err(Refusal::Host)),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Err(Refusal::Host)),
            ("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", Err(Refusal::Host)),
            ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Err(Refusal::Host)),
            ("GET / HTTP/1.1\r\nHost: a\r\nExpect: a-gift\r\n\r\n", Err(Refusal::Expect)),
            ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", Err(Refusal::RequestLine)),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", Err(Refusal::Version)),
            ("GET / HTTP/1.1 x\r\nHost: a\r\n\r\n", Err(Refusal::RequestLine)),
            ("GET /\r\n\r\n", Err(Refusal::RequestLine)),
            ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", Err(Refusal::RequestLine)),
            (&many, Err(Refusal::TooManyHeaders)),
            (&long, Err(Refusal::UrlTooLong)),
        ] {
            assert_eq!(check(head.as_bytes()), expected, "{head:?}");
        }
    }

    #[test]
    fn chunk_sizes_are_read_strictly() {
        for (line, expected) in [
            ("0", Ok(0)),
            ("ff", Ok(255)),
            ("A;name=\"value\"", Ok(10)),
            ("", Err(Refusal::Chunk)),
            ("-1", Err(Refusal::Chunk)),
            ("+1", Err(Refusal::Chunk)),
            (" 1", Err(Refusal::Chunk)),
            ("1 ", Err(Refusal::Chunk)),
            ("0x1", Err(Refusal::Chunk)),
            ("1;a\nb", Err(Refusal::Chunk)),
            ("1000000000000000", Err(Refusal::Chunk)),
        ] {
            assert_eq!(chunk_size(line.as_bytes()), expected, "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = check(&bytes);
            let _ = chunk_size(&bytes);
        }
    }
}
