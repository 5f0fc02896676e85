//! Which server TLS in a tunnel asks for: read before any of it goes out.
//!
//! ```text
//!  program ─▶ First ─▶ no TLS, and not port 443 ───────────────────────────────────────────────────────▶ Open: all passes
//!               └─▶ Reading: held until the ClientHello is whole; its name is the tunnel's host ─▶ passes      ▲
//!                      ▲                                                                            │          │
//!                      │                                                            Between: records pass      │
//!                      └──── the peer asked to try again ◀── a further handshake record waits here ──┴─────────┘
//!                                                             for what the peer said           the peer said anything else
//! ```
//!
//! One address serves many names (a CDN's), so a tunnel to an allowed host could be used for another one. What is in a
//! ClientHello, rustls says ([`Acceptor`]); here are only its outer frames: records (RFC 8446, section 5.1) and the length of the
//! message (section 4). They are read strictly, because what two readers could see differently is refused: a first record of another
//! kind, an empty one, anything behind the hello. After a HelloRetryRequest a second hello follows, which servers read again, so
//! it is read here as well. It comes before the peer's answer is known only from who has something to hide, and waits for it.
//!
//! Not seen: what is inside of encryption. An encrypted ClientHello is judged by its outer name; an HTTP request in TLS may name
//! any host; and so may TLS that begins later (STARTTLS), on ports other than 443.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rustls::server::Acceptor;

use crate::crossing::Denial;

/// Most bytes of a ClientHello, its records' heads included. Those of today are below 4 KiB, also with large keys.
pub const HELLO_BYTES_MAX: usize = 32 * 1024;
/// Longest time from the first byte of a ClientHello to its last, in milliseconds.
pub const HELLO_MS_MAX: u64 = 10_000;

/// Where there is nothing but TLS.
const TLS_PORT: u16 = 443;
/// Kind, version and length of a record.
const RECORD_HEAD_BYTES: usize = 5;
/// Payload of a plain record (RFC 8446, section 5.1).
const RECORD_BYTES_MAX: usize = 1 << 14;
/// Kind and length of a handshake message.
const MESSAGE_HEAD_BYTES: usize = 4;
/// Kinds of records: servers skip some kinds of them in front of a ClientHello, so each means TLS.
const RECORD_KINDS: RangeInclusive<u8> = 20..=24;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;

/// Up to and with the random value of a ServerHello: the heads, a version, 32 bytes.
const ANSWER_BYTES: usize = RECORD_HEAD_BYTES + MESSAGE_HEAD_BYTES + 2 + 32;
/// The random value of a HelloRetryRequest (RFC 8446, section 4.1.3).
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2,
    0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

const _: () = assert!(HELLO_BYTES_MAX > RECORD_HEAD_BYTES + RECORD_BYTES_MAX);

/// What a program says first in a tunnel.
#[derive(Debug)]
pub struct Hello {
    host: Arc<str>,
    tls_only: bool,
    stage: Stage,
    /// Not let out yet.
    held: BytesMut,
}

#[derive(Debug)]
enum Stage {
    /// Nothing was said.
    First,
    Reading(Reading),
    /// Behind a hello; so much is left of a record.
    Between {
        left: usize,
    },
    Open,
}

impl Hello {
    /// In a tunnel to this host and port.
    #[must_use]
    pub fn new(host: Arc<str>, port: u16) -> Self {
        Self { host, tls_only: port == TLS_PORT, stage: Stage::First, held: BytesMut::new() }
    }

    /// What may go out after these bytes; the rest is held.
    ///
    /// # Errors
    ///
    /// [`Denial::TlsName`] if another server is asked for, [`Denial::Tls`] if there is no telling.
    pub fn pass(&mut self, bytes: Bytes, answer: Option<Answer>) -> Result<Bytes, Denial> {
        if matches!(self.stage, Stage::Open) {
            return Ok(bytes);
        }
        self.held.extend_from_slice(&bytes);
        let mut out = BytesMut::new();
        while let Some(free) = self.step(answer)? {
            out.unsplit(self.held.split_to(free));
        }
        Ok(out.freeze())
    }

    /// Whether a hello has begun and is not whole.
    #[must_use]
    pub fn is_reading(&self) -> bool {
        matches!(self.stage, Stage::Reading(_))
    }

    /// Whether nothing more may be read before the peer's answer is known.
    #[must_use]
    pub fn waits(&self) -> bool {
        matches!(self.stage, Stage::Between { left: 0 }) && self.held.first() == Some(&HANDSHAKE)
    }

    /// So many bytes may go out, and there may be more to do; `None`: not without more bytes or an answer.
    fn step(&mut self, answer: Option<Answer>) -> Result<Option<usize>, Denial> {
        match &mut self.stage {
            Stage::First => {
                let Some(first) = self.held.first() else { return Ok(None) };
                let tls = self.tls_only || RECORD_KINDS.contains(first);
                self.stage = if tls { Stage::Reading(Reading::default()) } else { Stage::Open };
                Ok(Some(0))
            }
            Stage::Reading(reading) => {
                let Some(end) = reading.take(&self.held)? else {
                    return if self.held.len() < HELLO_BYTES_MAX { Ok(None) } else { Err(Denial::Tls) };
                };
                if end > HELLO_BYTES_MAX {
                    return Err(Denial::Tls);
                }
                if !asks_for(&self.host, server_name(&reading.message)?.as_deref()) {
                    return Err(Denial::TlsName);
                }
                // A server asks once at most.
                self.stage = if reading.again { Stage::Open } else { Stage::Between { left: 0 } };
                Ok(Some(end))
            }
            Stage::Between { left } => Ok(between(left, &self.held, answer).map(|next| match next {
                Next::Free(count) => count,
                Next::Stage(stage) => {
                    self.stage = stage;
                    0
                }
            })),
            Stage::Open => Ok(Some(self.held.len()).filter(|count| *count > 0)),
        }
    }
}

enum Next {
    Free(usize),
    Stage(Stage),
}

/// What becomes of records behind a hello: none of the handshake passes before the peer has said what it is.
fn between(left: &mut usize, held: &[u8], answer: Option<Answer>) -> Option<Next> {
    if answer == Some(Answer::Other) {
        return Some(Next::Stage(Stage::Open));
    }
    let &first = held.first()?;
    if *left == 0 {
        if first == HANDSHAKE {
            let again = Reading { again: true, ..Reading::default() };
            return answer.map(|_| Next::Stage(Stage::Reading(again)));
        }
        *left = RECORD_HEAD_BYTES + payload(held)?;
    }
    let free = held.len().min(*left);
    *left -= free;
    Some(Next::Free(free))
}

/// Length of a record's payload, once its head is here.
fn payload(record: &[u8]) -> Option<usize> {
    let &[_, _, _, high, low] = record.first_chunk::<RECORD_HEAD_BYTES>()?;
    Some(usize::from(u16::from_be_bytes([high, low])))
}

/// A ClientHello in records.
#[derive(Debug, Default)]
struct Reading {
    /// The second one.
    again: bool,
    /// Where the next record begins.
    at: usize,
    /// What the records carry.
    message: Vec<u8>,
}

impl Reading {
    /// Where the last record of the hello ends, once it is here.
    fn take(&mut self, held: &[u8]) -> Result<Option<usize>, Denial> {
        loop {
            let record = held.get(self.at..).unwrap_or_default();
            if record.first().is_some_and(|kind| *kind != HANDSHAKE) {
                return Err(Denial::Tls);
            }
            let Some(length) = payload(record) else { return Ok(None) };
            if record[1] != 3 || length == 0 || length > RECORD_BYTES_MAX {
                return Err(Denial::Tls);
            }
            let end = RECORD_HEAD_BYTES + length;
            let Some(carried) = record.get(RECORD_HEAD_BYTES..end) else { return Ok(None) };
            self.message.extend_from_slice(carried);
            self.at += end;
            if self.is_whole()? {
                return Ok(Some(self.at));
            }
        }
    }

    fn is_whole(&self) -> Result<bool, Denial> {
        let Some(&[kind, high, middle, low]) = self.message.first_chunk::<MESSAGE_HEAD_BYTES>() else {
            return Ok(false);
        };
        let length = MESSAGE_HEAD_BYTES + u32::from_be_bytes([0, high, middle, low]) as usize;
        if kind != CLIENT_HELLO || length > HELLO_BYTES_MAX || self.message.len() > length {
            return Err(Denial::Tls);
        }
        Ok(self.message.len() == length)
    }
}

/// The name in a whole ClientHello. It is given in as few records as it can be, so that tiny ones cost nothing.
fn server_name(message: &[u8]) -> Result<Option<String>, Denial> {
    let mut acceptor = Acceptor::default();
    for carried in message.chunks(RECORD_BYTES_MAX) {
        let [high, low] = u16::try_from(carried.len()).map_err(|_| Denial::Tls)?.to_be_bytes();
        let record = [&[HANDSHAKE, 3, 1, high, low][..], carried].concat();
        let mut rest = &record[..];
        while !rest.is_empty() {
            acceptor.read_tls(&mut rest).map_err(|_| Denial::Tls)?;
        }
        if let Some(accepted) = acceptor.accept().map_err(|_| Denial::Tls)? {
            return Ok(accepted.client_hello().server_name().map(str::to_owned));
        }
    }
    Err(Denial::Tls)
}

/// Whether a hello with this name is for this host; one for an address has none.
fn asks_for(host: &str, name: Option<&str>) -> bool {
    match name {
        Some(name) => name.strip_suffix('.').unwrap_or(name).eq_ignore_ascii_case(host),
        None => host.starts_with('[') || host.parse::<Ipv4Addr>().is_ok(),
    }
}

/// What a peer says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A HelloRetryRequest, or there is no telling: a second hello may count.
    Retry,
    /// No further ClientHello can count.
    Other,
}

/// Listens for it.
#[derive(Debug, Default)]
pub struct Heard {
    first: Vec<u8>,
    done: bool,
}

impl Heard {
    /// The answer, once, as soon as these bytes complete it.
    pub fn push(&mut self, bytes: &[u8]) -> Option<Answer> {
        if self.done {
            return None;
        }
        let here = bytes.len().min(ANSWER_BYTES - self.first.len());
        self.first.extend_from_slice(&bytes[..here]);
        let answer = self.answer();
        self.done = answer.is_some();
        answer
    }

    fn answer(&self) -> Option<Answer> {
        if *self.first.first()? != HANDSHAKE {
            return Some(Answer::Other);
        }
        let first = self.first.first_chunk::<ANSWER_BYTES>()?;
        let (heads, random) = first.split_at(ANSWER_BYTES - RETRY.len());
        // No server cuts its first record so small.
        let whole = payload(heads)? >= ANSWER_BYTES - RECORD_HEAD_BYTES;
        let other = whole && (heads[RECORD_HEAD_BYTES] != SERVER_HELLO || random != RETRY);
        Some(if other { Answer::Other } else { Answer::Retry })
    }
}

#[cfg(test)]
mod tests;
