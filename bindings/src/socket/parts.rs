//! Messages of a WebSocket inside a body: parts, one after another.
//!
//! ```text
//!   tag u8: opcode of RFC 6455 (0 more of the message, 1 text, 2 binary, 8 close), with 0x80 on the last part of its message
//!   length u32, little-endian
//!   that many bytes; of a close: nothing, or the code (u16, big-endian) and the reason, as on the wire
//! ```
//!
//! A guest sends each message as one part, so the gateway knows its length before its bytes; what comes from the network goes
//! on in as many parts as it arrives in. Nothing follows a close. A body that ends without one is a connection that broke.
//!
//! [`Reader`] takes parts from any cut of the bytes; [`Assembler`] makes messages of them. Both are used on both sides of the
//! wall, and both hold to the bounds whatever comes.

use std::collections::VecDeque;

use atoll_loader::limits::SOCKET_MESSAGE_BYTES_MAX;
use bytes::{Buf, Bytes};

use super::Fail;
use super::utf8::Utf8;

/// Bytes of a part's tag and length.
pub const HEAD_BYTES: usize = 5;
/// Largest payload of a close, in bytes (RFC 6455 section 5.5).
pub const CLOSE_BYTES_MAX: usize = 125;
/// Longest reason of a close, in bytes.
pub const REASON_BYTES_MAX: usize = CLOSE_BYTES_MAX - 2;

const LAST: u8 = 0x80;

/// What a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// More of the message that is open.
    More = 0,
    /// The beginning of a text.
    Text = 1,
    /// The beginning of bytes.
    Binary = 2,
    /// The end of the connection.
    Close = 8,
}

impl Kind {
    fn of(tag: u8) -> Option<Self> {
        Some(match tag & !LAST {
            0 => Self::More,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            _ => return None,
        })
    }
}

/// The head of a part.
#[must_use]
pub fn head(kind: Kind, last: bool, length: u32) -> [u8; HEAD_BYTES] {
    let mut head = [kind as u8 | if last { LAST } else { 0 }, 0, 0, 0, 0];
    head[1..].copy_from_slice(&length.to_le_bytes());
    head
}

/// A whole part.
#[must_use]
pub fn part(kind: Kind, last: bool, payload: &[u8]) -> Bytes {
    // Callers keep to `SOCKET_MESSAGE_BYTES_MAX`, and a reader refuses what is longer.
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    [&head(kind, last, length), payload].concat().into()
}

/// Why a connection ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// The status code; 1005 if none was given.
    pub code: u16,
    /// The reason; empty without a code.
    pub reason: String,
}

impl Close {
    /// Without a code.
    pub const NONE: Self = Self { code: 1005, reason: String::new() };

    /// Reads the payload of a Close frame. A code that may not be sent and a reason that is not UTF-8 are the sender's fault.
    pub fn parse(payload: &[u8]) -> Result<Self, Fail> {
        match payload {
            [] => Ok(Self::NONE),
            [_] => Err(Fail::protocol("half a close code")),
            [high, low, reason @ ..] => {
                let code = u16::from_be_bytes([*high, *low]);
                if !may_be_sent(code) {
                    return Err(Fail::protocol("a close code that may not be sent"));
                }
                let reason = std::str::from_utf8(reason).map_err(|_| Fail::TEXT)?;
                Ok(Self { code, reason: reason.to_owned() })
            }
        }
    }

    /// The payload of a Close frame; a reason that is too long is cut.
    #[must_use]
    pub fn payload(&self) -> Vec<u8> {
        if self.code == Self::NONE.code {
            return Vec::new();
        }
        let reason = &self.reason[..self.reason.floor_char_boundary(REASON_BYTES_MAX)];
        [&self.code.to_be_bytes(), reason.as_bytes()].concat()
    }

    /// The part that says it.
    #[must_use]
    pub fn part(&self) -> Bytes {
        part(Kind::Close, true, &self.payload())
    }
}

/// Whether an endpoint may send this code (RFC 6455 section 7.4, and the registry that it opened).
#[must_use]
pub fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// What a [`Reader`] finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A part of a message begins.
    Begin {
        /// Which.
        kind: Kind,
        /// Whether it is the last of its message.
        last: bool,
        /// Its length in bytes.
        length: usize,
    },
    /// Bytes of the part that began; never empty.
    Bytes(Bytes),
    /// The part that began is complete.
    End,
    /// The connection ends; nothing follows.
    Close(Close),
}

#[derive(Clone, Debug)]
enum State {
    Head,
    Payload { left: usize },
    Close { left: usize },
    Closed,
}

/// Takes parts from bytes.
#[derive(Clone, Debug)]
pub struct Reader {
    state: State,
    /// A head or a close that has not come whole.
    held: Vec<u8>,
    /// Whether a message is open.
    open: bool,
    message_bytes: usize,
}

impl Default for Reader {
    fn default() -> Self {
        Self { state: State::Head, held: Vec::new(), open: false, message_bytes: 0 }
    }
}

impl Reader {
    /// The next piece in `input`, which is consumed; `None` if it needs more.
    ///
    /// # Errors
    /// Bytes that are no parts, or a message that is too large. Nothing can be read after that.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<Piece>, Fail> {
        match self.state {
            State::Head => self.head(input),
            State::Payload { left: 0 } => {
                self.state = State::Head;
                Ok(Some(Piece::End))
            }
            State::Payload { left } => {
                let taken = left.min(input.len());
                if taken == 0 {
                    return Ok(None);
                }
                self.state = State::Payload { left: left - taken };
                Ok(Some(Piece::Bytes(input.split_to(taken))))
            }
            State::Close { left } => {
                let taken = left.min(input.len());
                self.held.extend_from_slice(&input.split_to(taken));
                self.state = State::Close { left: left - taken };
                if left > taken {
                    return Ok(None);
                }
                self.state = State::Closed;
                Close::parse(&self.held).map(|close| Some(Piece::Close(close)))
            }
            State::Closed if input.is_empty() => Ok(None),
            State::Closed => Err(Fail::protocol("something after the close")),
        }
    }

    fn head(&mut self, input: &mut Bytes) -> Result<Option<Piece>, Fail> {
        let wanted = HEAD_BYTES - self.held.len();
        if input.len() < wanted {
            self.held.extend_from_slice(input);
            input.clear();
            return Ok(None);
        }
        self.held.extend_from_slice(&input.split_to(wanted));
        let mut head = &self.held[..];
        let (tag, length) = (head.get_u8(), head.get_u32_le() as usize);
        self.held.clear();
        let kind = Kind::of(tag).ok_or(Fail::protocol("a part of no known kind"))?;
        let last = tag & LAST != 0;
        if kind == Kind::Close {
            if length > CLOSE_BYTES_MAX {
                return Err(Fail::protocol("a close that is too long"));
            }
            self.state = State::Close { left: length };
            return self.next(input);
        }
        if self.open != (kind == Kind::More) {
            return Err(Fail::protocol("parts of two messages in one"));
        }
        self.message_bytes = self.message_bytes.saturating_add(length);
        if self.message_bytes > SOCKET_MESSAGE_BYTES_MAX {
            return Err(Fail::TOO_LARGE);
        }
        self.open = !last;
        if last {
            self.message_bytes = 0;
        }
        self.state = State::Payload { left: length };
        Ok(Some(Piece::Begin { kind, last, length }))
    }
}

/// A whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// UTF-8.
    Text(Vec<u8>),
    /// Bytes.
    Binary(Vec<u8>),
    /// The connection ends.
    Close(Close),
}

/// Makes messages of the parts in a body.
#[derive(Debug, Default)]
pub struct Assembler {
    reader: Reader,
    input: VecDeque<Bytes>,
    kind: Option<Kind>,
    last: bool,
    message: Vec<u8>,
    utf8: Utf8,
}

impl Assembler {
    /// Takes bytes of the body.
    pub fn push(&mut self, bytes: Bytes) {
        self.input.push_back(bytes);
    }

    /// Bytes of the message that is not whole yet.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.message.capacity()
    }

    /// Whether bytes wait to be looked at.
    #[must_use]
    pub fn has_input(&self) -> bool {
        self.input.iter().any(|bytes| !bytes.is_empty())
    }

    /// The next whole message, if there is one.
    ///
    /// # Errors
    /// As [`Reader::next`], and a text that is not UTF-8.
    pub fn take(&mut self) -> Result<Option<Message>, Fail> {
        loop {
            let mut none = Bytes::new();
            let input = self.input.front_mut().unwrap_or(&mut none);
            let piece = self.reader.next(input)?;
            if input.is_empty() {
                self.input.pop_front();
            }
            match piece {
                None if self.input.is_empty() => return Ok(None),
                None => {}
                Some(Piece::Begin { kind, last, .. }) => {
                    self.last = last;
                    if kind != Kind::More {
                        self.kind = Some(kind);
                        self.utf8 = Utf8::default();
                    }
                }
                Some(Piece::Bytes(bytes)) => {
                    if self.kind == Some(Kind::Text) && !self.utf8.push(&bytes) {
                        return Err(Fail::TEXT);
                    }
                    self.message.extend_from_slice(&bytes);
                }
                Some(Piece::End) if self.last => {
                    let message = std::mem::take(&mut self.message);
                    return match self.kind.take() {
                        Some(Kind::Text) if !self.utf8.is_whole() => Err(Fail::TEXT),
                        Some(Kind::Text) => Ok(Some(Message::Text(message))),
                        _ => Ok(Some(Message::Binary(message))),
                    };
                }
                Some(Piece::End) => {}
                Some(Piece::Close(close)) => return Ok(Some(Message::Close(close))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8], cut: usize) -> Result<Vec<Message>, Fail> {
        let mut assembler = Assembler::default();
        let mut messages = Vec::new();
        for chunk in bytes.chunks(cut.max(1)) {
            assembler.push(Bytes::copy_from_slice(chunk));
            while let Some(message) = assembler.take()? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    #[test]
    fn parts_become_messages() {
        let body = [
            part(Kind::Text, false, "hé".as_bytes()),
            part(Kind::More, true, b"llo"),
            part(Kind::Binary, true, b""),
            Close { code: 4000, reason: "bye".into() }.part(),
        ]
        .concat();
        let wanted = vec![
            Message::Text("héllo".into()),
            Message::Binary(vec![]),
            Message::Close(Close { code: 4000, reason: "bye".into() }),
        ];
        for cut in 1..body.len() {
            assert_eq!(all(&body, cut).unwrap(), wanted, "cut into {cut}");
        }
    }

    #[test]
    fn what_is_no_parts_is_refused() {
        let two = [part(Kind::Text, false, b"a"), part(Kind::Text, true, b"b")].concat();
        let after = [Close::NONE.part(), part(Kind::Text, true, b"a")].concat();
        for (body, code) in [
            (vec![3, 0, 0, 0, 0], 1002),
            (part(Kind::More, true, b"a").to_vec(), 1002),
            (two, 1002),
            (after, 1002),
            (part(Kind::Text, true, b"\xff").to_vec(), 1007),
            (head(Kind::Binary, true, SOCKET_MESSAGE_BYTES_MAX as u32 + 1).to_vec(), 1009),
            (head(Kind::Close, true, 126).to_vec(), 1002),
            (part(Kind::Close, true, &[3]).to_vec(), 1002),
            (part(Kind::Close, true, &1005u16.to_be_bytes()).to_vec(), 1002),
        ] {
            assert_eq!(all(&body, 1).map_err(|fail| fail.code), Err(code), "{body:?}");
        }
    }

    #[test]
    fn a_message_in_many_parts_is_bounded_as_a_whole() {
        let half = SOCKET_MESSAGE_BYTES_MAX as u32 / 2 + 1;
        let mut reader = Reader::default();
        let mut first = Bytes::copy_from_slice(&head(Kind::Binary, false, half));
        assert!(matches!(reader.next(&mut first), Ok(Some(Piece::Begin { .. }))));
        let mut payload = Bytes::from(vec![0; half as usize]);
        while reader.next(&mut payload).unwrap() != Some(Piece::End) {}
        let mut second = Bytes::copy_from_slice(&head(Kind::More, true, half));
        assert_eq!(reader.next(&mut second), Err(Fail::TOO_LARGE));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 1usize..50) {
            // What is read does not depend on how it was cut.
            prop_assert_eq!(all(&bytes, cut), all(&bytes, bytes.len()));
        }

        #[test]
        fn messages_survive(
            messages in proptest::collection::vec((any::<bool>(), ".{0,20}", 1usize..5), 0..6),
            cut in 1usize..20,
        ) {
            let (mut body, mut wanted) = (Vec::new(), Vec::new());
            for (text, content, pieces) in messages {
                let kind = if text { Kind::Text } else { Kind::Binary };
                let bytes = content.into_bytes();
                let size = (bytes.len() / pieces).max(1);
                let chunks: Vec<&[u8]> = if bytes.is_empty() { vec![&[]] } else { bytes.chunks(size).collect() };
                for (at, chunk) in chunks.iter().enumerate() {
                    let kind = if at == 0 { kind } else { Kind::More };
                    body.extend_from_slice(&part(kind, at + 1 == chunks.len(), chunk));
                }
                wanted.push(if text { Message::Text(bytes) } else { Message::Binary(bytes) });
            }
            prop_assert_eq!(all(&body, cut).unwrap(), wanted);
        }
    }
}
