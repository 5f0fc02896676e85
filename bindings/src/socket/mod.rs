//! WebSockets between a peer on the network and a guest behind the seam.
//!
//! ```text
//!            wire (RFC 6455, RFC 7692)             seam: two ordinary bodies of parts
//!  peer ══▶ Decoder ─▶ data, checked and inflated ─▶ parts ─▶ incoming body ──▶ guest   (credit: the guest's pace)
//!  peer ◀══ frames ◀─ Framer ◀─ parts ◀──────────── outgoing body ◀──────────── guest   (credit: the peer's pace)
//!             ▲ pings, pongs, closing, idle and life bounds: `relay`
//! ```
//!
//! A WebSocket crosses the seam as what the seam already has: the body of a request and the body of its 101 response, each a
//! stream of [`parts`]. So credit, forwarding between isolates, cancellation and the end of an invocation are those of bodies,
//! and an isolate that only passes a WebSocket on never looks into it.
//!
//! The gateway parses the wire, because an isolate host has no sockets. It never holds a whole message: pieces go on as they
//! come, so a socket costs the gateway at most the credit of two bodies. Assembling a message happens in the isolate, at its
//! tenant's cost. The library (`tungstenite`) reads and writes frame headers and makes the accept key; its own connection
//! type collects whole messages and knows no compression, which is why the state machine around the headers is here.
//!
//! Compression keeps nothing between messages (`no_context_takeover` both ways): an idle socket costs no window.

pub mod handshake;
pub mod parts;

mod deflate;
mod framer;
mod relay;
mod utf8;
mod wire;

/// For the fuzz targets: what a peer's bytes are read as.
#[doc(hidden)]
pub mod fuzzing {
    use super::wire::Decoder;
    use super::{Deflate, Role};

    /// Reads these bytes in pieces of this length; how many events came before the end or the first fault.
    #[must_use]
    pub fn events(bytes: &[u8], piece: usize, compressed: bool) -> usize {
        let deflate = compressed.then_some(Deflate { peer_keeps_context: false });
        let mut decoder = Decoder::new(Role::Server, deflate);
        let mut events = 0;
        for piece in bytes.chunks(piece.max(1)) {
            decoder.buffer.extend_from_slice(piece);
            loop {
                match decoder.next() {
                    Ok(Some(_)) => events += 1,
                    Ok(None) => break,
                    Err(_) => return events,
                }
            }
        }
        events
    }
}

pub use deflate::Deflate;
pub use relay::{Ended, Incoming, Meter, Relay, SocketBody, incoming};

/// Which end of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The peer connected: its frames are masked.
    Server,
    /// The gateway connected for a guest: its own frames are masked.
    Client,
}

/// Largest piece of a message that is handled at once, in bytes.
const PIECE_BYTES_MAX: usize = 16 * 1024;

/// Why the connection must be failed (RFC 6455 section 7.1.7): the code and the reason of the Close frame that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} ({code})")]
pub struct Fail {
    /// The status code, section 7.4.
    pub code: u16,
    /// For whoever reads it.
    pub reason: &'static str,
}

impl Fail {
    const fn protocol(reason: &'static str) -> Self {
        Self { code: 1002, reason }
    }

    const TEXT: Self = Self { code: 1007, reason: "text is not UTF-8" };
    const TOO_LARGE: Self = Self { code: 1009, reason: "the message is too large" };
}
