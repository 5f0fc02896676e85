//! The rows: raw bytes and what must come of them.

use super::{Case, Expect};

/// What must never reach the worker as a request of its own.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n";
/// Answers to a request that is malformed before its body.
const BAD: Expect = Expect::Refused(&[400]);
/// A transfer coding that is not understood may also be said to be so.
const BAD_CODING: Expect = Expect::Refused(&[400, 501]);
/// A body that turns out broken after the worker was called: the worker's read fails, and nothing is served.
const BROKEN_BODY: Expect = Expect::RefusedOrClosed(&[400, 500]);
/// Too large a head.
const TOO_LARGE: Expect = Expect::Refused(&[431]);

pub(super) fn all() -> Vec<Case> {
    let mut cases = vec![];
    cases.extend(lengths());
    cases.extend(codings());
    cases.extend(chunks());
    cases.extend(lines());
    cases.extend(hosts_and_targets());
    cases.extend(large_heads());
    cases.extend(upgrades());
    cases.extend(good());
    cases
}

fn case(name: &'static str, expect: Expect, bytes: impl Into<Vec<u8>>) -> Case {
    Case { name, bytes: bytes.into(), expect }
}

/// A POST with these header lines, each ended by CRLF, then these bytes.
fn post(fields: &str, rest: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: {{HOST}}\r\n{fields}\r\n{rest}")
}

fn lengths() -> Vec<Case> {
    let with = |value: &str| post(&format!("Content-Length: {value}\r\n"), &format!("abc{SMUGGLED}"));
    vec![
        case(
            "72 length and chunked",
            BAD,
            post("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", &format!("0\r\n\r\n{SMUGGLED}")),
        ),
        case(
            "72 chunked and length",
            BAD,
            post("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", &format!("0\r\n\r\n{SMUGGLED}")),
        ),
        case(
            "72 two lengths that differ",
            BAD,
            post("Content-Length: 3\r\nContent-Length: 0\r\n", &format!("abc{SMUGGLED}")),
        ),
        case(
            "72 two lengths that agree",
            BAD,
            post("Content-Length: 3\r\nContent-Length: 3\r\n", &format!("abc{SMUGGLED}")),
        ),
        case("72 a list of lengths", BAD, with("3, 0")),
        case("72 a list of equal lengths", BAD, with("3, 3")),
        case("72 length with a plus", BAD, with("+3")),
        case("72 negative length", BAD, with("-1")),
        case("72 hexadecimal length", BAD, with("0x3")),
        case("72 empty length", BAD, with("")),
        case("72 length with a space inside", BAD, with("3 0")),
        case("72 length beyond 64 bits", BAD, with("99999999999999999999")),
        case("72 length that is a word", BAD, with("three")),
        case("72 fractional length", BAD, with("3.0")),
    ]
}

fn codings() -> Vec<Case> {
    let with = |field: &str| post(field, &format!("0\r\n\r\n{SMUGGLED}"));
    vec![
        case("72 chunked twice", BAD_CODING, with("Transfer-Encoding: chunked, chunked\r\n")),
        case(
            "72 two coding fields",
            BAD_CODING,
            with("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
        ),
        case("72 chunked is not last", BAD_CODING, with("Transfer-Encoding: chunked, gzip\r\n")),
        case("72 unknown coding", BAD_CODING, with("Transfer-Encoding: xchunked\r\n")),
        case("72 identity coding", BAD_CODING, with("Transfer-Encoding: identity\r\n")),
        case("72 empty coding", BAD_CODING, with("Transfer-Encoding: \r\n")),
        case("72 coding after a vertical tab", BAD_CODING, with("Transfer-Encoding: \x0bchunked\r\n")),
        case("72 coding in quotes", BAD_CODING, with("Transfer-Encoding: \"chunked\"\r\n")),
        case("72 space before the colon", BAD, with("Transfer-Encoding : chunked\r\n")),
        case("72 folded coding", BAD, with("Transfer-Encoding:\r\n chunked\r\n")),
        case(
            "72 chunked in HTTP/1.0",
            BAD,
            format!(
                "POST / HTTP/1.0\r\nHost: {{HOST}}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}"
            ),
        ),
    ]
}

fn chunks() -> Vec<Case> {
    let with = |body: &str| post("Transfer-Encoding: chunked\r\n", body);
    vec![
        case("72 chunk size beyond 64 bits", BROKEN_BODY, with("FFFFFFFFFFFFFFFF1\r\nabc\r\n0\r\n\r\n")),
        case("72 chunk size with a plus", BROKEN_BODY, with("+3\r\nabc\r\n0\r\n\r\n")),
        case("72 negative chunk size", BROKEN_BODY, with("-3\r\nabc\r\n0\r\n\r\n")),
        case("72 chunk size with a prefix", BROKEN_BODY, with("0x3\r\nabc\r\n0\r\n\r\n")),
        case("72 empty chunk size", BROKEN_BODY, with("\r\nabc\r\n0\r\n\r\n")),
        case("72 chunk longer than said", BROKEN_BODY, with("3\r\nabcdef\r\n0\r\n\r\n")),
        case("72 line feed inside a chunk extension", BROKEN_BODY, with("3;a\nb\r\nabc\r\n0\r\n\r\n")),
        case("72 line feed ends a chunk size", BROKEN_BODY, with("3\nabc\r\n0\r\n\r\n")),
        case(
            "72 endless chunk extension",
            BROKEN_BODY,
            with(&format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(100_000))),
        ),
        case("72 endless trailers", BROKEN_BODY, with(&format!("0\r\n{}\r\n", "x: y\r\n".repeat(100_000)))),
    ]
}

fn lines() -> Vec<Case> {
    let get = |fields: &str| format!("GET / HTTP/1.1\r\nHost: {{HOST}}\r\n{fields}Connection: close\r\n\r\n");
    vec![
        case("72 bare line feeds", BAD, "GET / HTTP/1.1\nHost: {HOST}\nConnection: close\n\n"),
        case(
            "72 one bare line feed",
            BAD,
            "GET / HTTP/1.1\r\nHost: {HOST}\nX-A: b\r\nConnection: close\r\n\r\n",
        ),
        case("72 bare carriage return in a value", BAD, get("X-A: b\rX-B: c\r\n")),
        case("72 folded header", BAD, get("X-A: b\r\n c\r\n")),
        case("72 folded with a tab", BAD, get("X-A: b\r\n\tc\r\n")),
        case("72 header before the first name", BAD, "GET / HTTP/1.1\r\n X-A: b\r\nHost: {HOST}\r\n\r\n"),
        case("73 NUL in a value", BAD, get("X-A: b\0c\r\n")),
        case("73 NUL in a name", BAD, get("X\0A: b\r\n")),
        case("73 NUL in the target", BAD, "GET /\0 HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        case("72 empty header name", BAD, get(": b\r\n")),
        case("72 header without a colon", BAD, get("nothing\r\n")),
        case("72 space in a header name", BAD, get("X A: b\r\n")),
        case("72 no version", BAD, "GET /\r\nHost: {HOST}\r\n\r\n"),
        case("72 unknown version", Expect::Refused(&[400, 505]), "GET / HTTP/9.9\r\nHost: {HOST}\r\n\r\n"),
        case("72 version in lower case", BAD, "GET / http/1.1\r\nHost: {HOST}\r\n\r\n"),
        case("72 two spaces in the request line", BAD, "GET  / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        case("72 a method that is no token", BAD, "G(T / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        case(
            "72 not HTTP at all",
            Expect::RefusedOrClosed(&[400]),
            "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n",
        ),
    ]
}

fn hosts_and_targets() -> Vec<Case> {
    vec![
        case("72 no host", BAD, "GET / HTTP/1.1\r\nConnection: close\r\n\r\n"),
        case("72 two hosts", BAD, "GET / HTTP/1.1\r\nHost: {HOST}\r\nHost: other.example\r\n\r\n"),
        case(
            "72 a host with a path",
            Expect::Refused(&[400, 404, 421]),
            "GET / HTTP/1.1\r\nHost: {HOST}/x\r\nConnection: close\r\n\r\n",
        ),
        case(
            "72 a host with a user",
            Expect::Refused(&[400, 404, 421]),
            "GET / HTTP/1.1\r\nHost: user@{HOST}\r\nConnection: close\r\n\r\n",
        ),
        case(
            "72 an unknown host",
            Expect::Refused(&[404, 421]),
            "GET / HTTP/1.1\r\nHost: nobody.example\r\nConnection: close\r\n\r\n",
        ),
        case(
            "76 a tunnel",
            Expect::RefusedOrClosed(&[400, 404, 405, 501]),
            "CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\nConnection: close\r\n\r\n",
        ),
    ]
}

fn large_heads() -> Vec<Case> {
    let get = |fields: &str| format!("GET / HTTP/1.1\r\nHost: {{HOST}}\r\n{fields}\r\n");
    vec![
        case("74 ten thousand headers", TOO_LARGE, get(&"x: y\r\n".repeat(10_000))),
        case("74 a thousand headers", TOO_LARGE, get(&"x: y\r\n".repeat(1_000))),
        case("74 one header of 1 MB", TOO_LARGE, get(&format!("x: {}\r\n", "y".repeat(1_000_000)))),
        case("74 a name of 1 MB", TOO_LARGE, get(&format!("{}: y\r\n", "x".repeat(1_000_000)))),
        case(
            "74 a target of 1 MB",
            Expect::Refused(&[414, 431]),
            format!("GET /{} HTTP/1.1\r\nHost: {{HOST}}\r\n\r\n", "x".repeat(1_000_000)),
        ),
        case(
            "74 a target of 60 KB",
            Expect::Refused(&[414, 431]),
            format!("GET /{} HTTP/1.1\r\nHost: {{HOST}}\r\nConnection: close\r\n\r\n", "x".repeat(60_000)),
        ),
    ]
}

fn upgrades() -> Vec<Case> {
    let get = |fields: &str| format!("GET / HTTP/1.1\r\nHost: {{HOST}}\r\n{fields}\r\n");
    vec![
        case(
            "76 upgrade to h2c is ignored",
            Expect::Served(200),
            get(
                "Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
            ),
        ),
        case(
            "76 upgrade to nonsense is ignored",
            Expect::Served(200),
            get("Connection: Upgrade, close\r\nUpgrade: nonsense\r\n"),
        ),
        case(
            "76 unknown expectation",
            Expect::Refused(&[417]),
            get("Expect: the-spanish-inquisition\r\nConnection: close\r\n"),
        ),
    ]
}

/// Well-formed requests next to the malformed ones: the table must not pass by refusing everything.
fn good() -> Vec<Case> {
    let served = Expect::Served(200);
    vec![
        case("plain", served, "GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"),
        case("HTTP/1.0", served, "GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n"),
        case("length", served, post("Content-Length: 3\r\nConnection: close\r\n", "abc")),
        case(
            "chunked",
            served,
            post(
                "Transfer-Encoding: chunked\r\nConnection: close\r\n",
                "3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\ntrailer: x\r\n\r\n",
            ),
        ),
        case(
            "chunked in capitals",
            served,
            post("transfer-encoding: CHUNKED\r\nConnection: close\r\n", "0\r\n\r\n"),
        ),
        case(
            "a leading empty line",
            served,
            "\r\nGET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n",
        ),
        case(
            "a port in the host",
            served,
            "GET / HTTP/1.1\r\nHost: {HOST}:8080\r\nConnection: close\r\n\r\n",
        ),
    ]
}
