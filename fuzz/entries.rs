//! What is fuzzed: every parser that meets bytes from outside, each as a function of bytes that must not panic.
//!
//! The targets (`fuzz_targets/`) call these with what the fuzzer makes up; `tests/fuzz` calls them with the corpus, in every
//! `make test`. To add one: a function, a line in [`ENTRIES`], a target, a folder in `corpus/`.

use atoll_bindings::egress::hello::{Answer, Heard, Hello};
use atoll_bindings::egress::{HostPattern, PathPrefix, Policy, PrivateAllow};
use atoll_bindings::seam::{ToGateway, ToHost};
use atoll_bindings::socket::handshake::Offer;
use atoll_bindings::socket::parts::{Assembler, Close};
use atoll_bindings::value::Value;
use atoll_bindings::{socket, wire};
use atoll_loader::bundle::CodeHash;
use atoll_loader::{Bundle, ConfigFormat, Deployment, Modules, WorkerCode, WranglerConfig};
use bytes::Bytes;

/// A parser by the name of its target and of its corpus.
pub type Entry = (&'static str, fn(&[u8]));

/// All of them.
pub const ENTRIES: &[Entry] = &[
    ("audit_line", audit_line),
    ("audit_note", audit_note),
    ("bridge_frame", bridge_frame),
    ("bundle", bundle),
    ("chunk_size", chunk_size),
    ("egress", egress),
    ("head", head),
    ("hello", hello),
    ("json", json),
    ("module", module),
    ("multipart", multipart),
    ("seam", seam),
    ("socket", socket_wire),
    ("socket_handshake", socket_handshake),
    ("socket_parts", socket_parts),
    ("value", value),
    ("wrangler", wrangler),
];

/// A line of the audit log, as the verifier reads it.
pub fn audit_line(bytes: &[u8]) {
    if let Some(line) = atoll::audit::Line::read(bytes) {
        assert_ne!(line.hash, line.prev, "a line is not its own forerunner");
    }
}

/// Checkpoints of the audit log, as the verifier reads them, and a key set.
pub fn audit_note(bytes: &[u8]) {
    let keys = atoll::audit::PublicKey::of_jwks(bytes).unwrap_or_default();
    for note in atoll::audit::Notes::read(bytes).notes {
        assert!(note.checkpoint.size > 0, "a log has a first line");
        let _ = note.worth(&keys);
    }
}

/// Frames of the agent in a sandbox.
pub fn bridge_frame(bytes: &[u8]) {
    let frames = atoll_container_bridge::fuzzing::frames(bytes);
    assert!(frames <= bytes.len() / 4, "a frame has a length of four bytes");
}

/// A stored or sent bundle. What decodes is itself again when it is encoded.
pub fn bundle(bytes: &[u8]) {
    let encoded = Bytes::copy_from_slice(bytes);
    let hash = CodeHash::of(bytes);
    if let Ok(bundle) = Bundle::decode(encoded, hash) {
        assert_eq!(bundle.hash(), hash);
        assert_eq!(bundle.encode(), bytes, "one bundle has one encoding");
    }
}

/// A pattern, a path prefix, a private destination, and a URL against a policy: one per line.
pub fn egress(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines = text.lines();
    let pattern = lines.next().unwrap_or_default().parse::<HostPattern>();
    let prefix = lines.next().unwrap_or_default().parse::<PathPrefix>();
    let _ = lines.next().unwrap_or_default().parse::<PrivateAllow>();
    let Ok(url) = url::Url::parse(lines.next().unwrap_or_default()) else { return };
    if let Ok(prefix) = prefix {
        let _ = prefix.covers(url.path());
    }
    // An empty list allows nothing, whatever the URL is.
    assert!(Policy::of(vec![]).check(&http::Method::GET, &url).is_err());
    if let Ok(pattern) = pattern {
        let _ = Policy::of(vec![pattern]).check(&http::Method::GET, &url);
    }
}

/// A request's head.
pub fn head(bytes: &[u8]) {
    // The guard gives it whole heads: up to the first empty line.
    let end = bytes.windows(4).position(|end| end == b"\r\n\r\n").map_or(0, |at| at + 4);
    let bytes = &bytes[..end];
    if atoll::server::fuzzing::head(bytes) {
        // What is let through never has what the two usual readings of a head differ about.
        assert!(!bytes.contains(&0), "NUL in a head");
        let bare = bytes.windows(2).any(|pair| pair[1] == b'\n' && pair[0] != b'\r');
        assert!(!bare && bytes.first() != Some(&b'\n'), "a bare line feed in a head");
    }
}

/// What a program says first in a tunnel, whole and in pieces: the same end, and nothing but what was said.
pub fn hello(bytes: &[u8]) {
    let says = |each: usize, answer| {
        let mut hello = Hello::new("a.test".into(), 443);
        let (mut out, mut pieces) = (Vec::new(), bytes.chunks(each));
        let end = loop {
            let piece = match hello.waits() {
                true => &[],
                false => match pieces.next() {
                    Some(piece) => piece,
                    None => break Ok(()),
                },
            };
            match hello.pass(Bytes::copy_from_slice(piece), hello.waits().then_some(answer)) {
                Ok(passed) => out.extend(passed),
                Err(denial) => break Err(denial),
            }
        };
        assert!(bytes.starts_with(&out), "what was not said");
        (end, out)
    };
    for answer in [Answer::Other, Answer::Retry] {
        let (whole, tiny) = (says(bytes.len().max(1), answer), says(1, answer));
        assert_eq!(whole.0, tiny.0, "how it is cut does not matter");
        assert!(whole.0.is_err() || whole.1 == tiny.1);
    }
    let _ = Heard::default().push(bytes);
}

/// A chunk-size line.
pub fn chunk_size(bytes: &[u8]) {
    if let Some(size) = atoll::server::fuzzing::chunk_size(bytes) {
        assert!(size < 1 << 60, "a size that cannot be added to");
    }
}

/// JSON as the control API takes it.
pub fn json(bytes: &[u8]) {
    let _ = atoll_loader::parse_json::<Modules>(bytes);
    let _ = WorkerCode::from_json(bytes);
}

/// Source text as a module, through every check before V8.
pub fn module(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let code = WorkerCode::new("main.js").js("main.js", text).compatibility_date("2026-01-01");
    if let Ok(bundle) = code.build() {
        let again = Bundle::decode(bundle.encode(), bundle.hash());
        assert!(again.is_ok(), "what is built can be stored");
    }
}

/// A form that deploys a worker.
pub fn multipart(bytes: &[u8]) {
    let _ = Deployment::from_multipart("multipart/form-data; boundary=b", &Bytes::copy_from_slice(bytes));
}

/// Messages of the seam, in both directions. What decodes encodes.
pub fn seam(bytes: &[u8]) {
    if let Ok(message) = wire::decode::<ToGateway>(bytes) {
        let mut out = Vec::new();
        let _ = wire::encode(&message, &mut out);
    }
    let _ = wire::decode::<ToHost>(bytes);
}

/// What a WebSocket's peer sends, whole and in pieces, plain and compressed.
pub fn socket_wire(bytes: &[u8]) {
    for compressed in [false, true] {
        let whole = socket::fuzzing::events(bytes, bytes.len(), compressed);
        assert!(whole <= bytes.len(), "an event needs a byte");
        let _ = socket::fuzzing::events(bytes, 3, compressed);
    }
}

/// A handshake's fields: one `name: value` per line.
pub fn socket_handshake(bytes: &[u8]) {
    let mut headers = http::HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n').take(64) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = http::HeaderName::from_bytes(&line[..colon]);
        let value = http::HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    for compress in [false, true] {
        if let Ok(offer) = Offer::read(&headers, compress) {
            let _ = offer.answer(&mut http::HeaderMap::new());
        }
    }
}

/// Parts of messages, as a guest or another isolate sends them.
pub fn socket_parts(bytes: &[u8]) {
    let mut assembler = Assembler::default();
    assembler.push(Bytes::copy_from_slice(bytes));
    while let Ok(Some(_)) = assembler.take() {}
    let _ = Close::parse(bytes);
}

/// A value of a call. What decodes means the same when it is encoded and decoded again.
pub fn value(bytes: &[u8]) {
    if let Ok(value) = Value::decode(bytes) {
        let again = Value::decode(&value.encode()).expect("what was encoded decodes");
        assert_eq!(format!("{value:?}"), format!("{again:?}"));
    }
}

/// A wrangler configuration, in both of its languages.
pub fn wrangler(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = WranglerConfig::parse(text, ConfigFormat::Jsonc);
    let _ = WranglerConfig::parse(text, ConfigFormat::Toml);
}
