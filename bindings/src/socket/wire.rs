//! What a peer sends, read strictly: frames in, checked pieces out. No I/O and no clock.
//!
//! ```text
//!  Head ──data frame──▶ Data(left) ──▶ Head        pieces go out as they come, unmasked, inflated, UTF-8 checked
//!   └────control──────▶ Control(length) ─▶ Head    whole; may lie between the frames of a message
//! ```

use std::io::Cursor;

use atoll_loader::limits::SOCKET_MESSAGE_BYTES_MAX;
use bytes::{Buf, Bytes, BytesMut};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::deflate::{Deflate, Inflater};
use super::parts::{Close, Kind};
use super::utf8::Utf8;
use super::{Fail, PIECE_BYTES_MAX, Role};

/// Largest payload of a control frame, in bytes (RFC 6455 section 5.5).
const CONTROL_BYTES_MAX: usize = 125;

/// What a peer said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A piece of a message; `kind` is `More` for all but the first.
    Data { kind: Kind, last: bool, bytes: Bytes },
    /// It wants an answer with the same bytes.
    Ping(Bytes),
    /// It answers a ping.
    Pong,
    /// It closes; nothing follows.
    Close(Close),
}

#[derive(Clone, Copy, Debug)]
struct DataFrame {
    left: usize,
    last: bool,
    mask: Option<[u8; 4]>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Head,
    Data(DataFrame),
    Control { opcode: Control, length: usize, mask: Option<[u8; 4]> },
    Closed,
}

/// The message that is open.
#[derive(Clone, Copy, Debug)]
struct Open {
    kind: Kind,
    compressed: bool,
    /// Whether a piece went out.
    begun: bool,
    bytes: usize,
    utf8: Utf8,
}

/// Reads frames.
#[derive(Debug)]
pub(super) struct Decoder {
    role: Role,
    /// Bytes of the peer that were not looked at.
    pub(super) buffer: BytesMut,
    state: State,
    open: Option<Open>,
    inflater: Option<Inflater>,
    /// The last frame of a compressed message is in: what is left is in the inflater.
    finishing: bool,
}

impl Decoder {
    pub(super) fn new(role: Role, deflate: Option<Deflate>) -> Self {
        Self {
            role,
            buffer: BytesMut::new(),
            state: State::Head,
            open: None,
            inflater: deflate.map(Inflater::new),
            finishing: false,
        }
    }

    /// What the peer said next; `None` if more bytes are needed.
    pub(super) fn next(&mut self) -> Result<Option<Event>, Fail> {
        loop {
            if let Some(event) = self.inflated()? {
                return Ok(Some(event));
            }
            match self.state {
                State::Head => {
                    if !self.head()? {
                        return Ok(None);
                    }
                }
                State::Data(frame) => match self.data(frame)? {
                    Some(event) => return Ok(Some(event)),
                    None if matches!(self.state, State::Data(DataFrame { left: 1.., .. }))
                        && self.buffer.is_empty() =>
                    {
                        return Ok(None);
                    }
                    None => {}
                },
                State::Control { opcode, length, mask } => {
                    if self.buffer.len() < length {
                        return Ok(None);
                    }
                    return self.control(opcode, length, mask).map(Some);
                }
                State::Closed => return Ok(None),
            }
        }
    }

    /// Reads a frame's head; false if more bytes are needed.
    fn head(&mut self) -> Result<bool, Fail> {
        let mut cursor = Cursor::new(&self.buffer[..]);
        let parsed =
            FrameHeader::parse(&mut cursor).map_err(|_| Fail::protocol("a frame of no known kind"))?;
        let Some((header, length)) = parsed else { return Ok(false) };
        let consumed = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
        self.buffer.advance(consumed.min(self.buffer.len()));
        if header.mask.is_some() != (self.role == Role::Server) {
            return Err(Fail::protocol("frames of a client must be masked, those of a server must not"));
        }
        if header.rsv2 || header.rsv3 {
            return Err(Fail::protocol("a reserved bit is set"));
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        match header.opcode {
            OpCode::Control(opcode) => {
                if header.rsv1 || !header.is_final || length > CONTROL_BYTES_MAX {
                    return Err(Fail::protocol("a control frame must be whole and short"));
                }
                self.state = State::Control { opcode, length, mask: header.mask };
            }
            OpCode::Data(opcode) => {
                self.begin(opcode, header.rsv1, length)?;
                self.state =
                    State::Data(DataFrame { left: length, last: header.is_final, mask: header.mask });
            }
        }
        Ok(true)
    }

    fn begin(&mut self, opcode: Data, compressed: bool, length: usize) -> Result<(), Fail> {
        let kind = match opcode {
            Data::Continue => Kind::More,
            Data::Text => Kind::Text,
            Data::Binary => Kind::Binary,
            Data::Reserved(_) => return Err(Fail::protocol("a frame of no known kind")),
        };
        if (kind == Kind::More) != self.open.is_some() {
            return Err(Fail::protocol("frames of two messages in one"));
        }
        if compressed && (self.inflater.is_none() || kind == Kind::More) {
            return Err(Fail::protocol("a reserved bit is set"));
        }
        let open =
            self.open.get_or_insert(Open { kind, compressed, begun: false, bytes: 0, utf8: Utf8::default() });
        // Known before its bytes are read. Compressed bytes are counted when they come out.
        if !open.compressed && open.bytes.saturating_add(length) > SOCKET_MESSAGE_BYTES_MAX {
            return Err(Fail::TOO_LARGE);
        }
        // A peer may also send compressed bytes that come to nothing, for ever.
        if length > SOCKET_MESSAGE_BYTES_MAX {
            return Err(Fail::TOO_LARGE);
        }
        Ok(())
    }

    /// Takes payload that is there.
    fn data(&mut self, mut frame: DataFrame) -> Result<Option<Event>, Fail> {
        let taken = frame.left.min(self.buffer.len()).min(PIECE_BYTES_MAX);
        let mut bytes = self.buffer.split_to(taken);
        if let Some(mask) = &mut frame.mask {
            apply_mask(&mut bytes, mask);
        }
        frame.left -= taken;
        let frame_ends = frame.left == 0;
        self.state = if frame_ends { State::Head } else { State::Data(frame) };
        let last = frame_ends && frame.last;
        if self.open.as_ref().is_some_and(|open| open.compressed) {
            if let Some(inflater) = &mut self.inflater {
                inflater.push(&bytes);
                if last {
                    inflater.finish();
                    self.finishing = true;
                }
            }
            return self.inflated();
        }
        if taken == 0 && !last {
            return Ok(None);
        }
        self.piece(bytes.freeze(), last).map(Some)
    }

    /// What the inflater has, if a compressed message is open.
    fn inflated(&mut self) -> Result<Option<Event>, Fail> {
        if !self.open.as_ref().is_some_and(|open| open.compressed) {
            return Ok(None);
        }
        let Some(inflater) = &mut self.inflater else { return Ok(None) };
        let bytes = inflater.pull()?;
        if !bytes.is_empty() {
            return self.piece(bytes.into(), false).map(Some);
        }
        if !std::mem::take(&mut self.finishing) {
            return Ok(None);
        }
        inflater.end();
        self.piece(Bytes::new(), true).map(Some)
    }

    fn piece(&mut self, bytes: Bytes, last: bool) -> Result<Event, Fail> {
        const NONE_OPEN: Fail = Fail::protocol("no message is open");
        let open = self.open.as_mut().ok_or(NONE_OPEN)?;
        open.bytes = open.bytes.saturating_add(bytes.len());
        if open.bytes > SOCKET_MESSAGE_BYTES_MAX {
            return Err(Fail::TOO_LARGE);
        }
        if open.kind == Kind::Text && (!open.utf8.push(&bytes) || (last && !open.utf8.is_whole())) {
            return Err(Fail::TEXT);
        }
        let kind = if std::mem::replace(&mut open.begun, true) { Kind::More } else { open.kind };
        if last {
            self.open = None;
        }
        Ok(Event::Data { kind, last, bytes })
    }

    fn control(&mut self, opcode: Control, length: usize, mask: Option<[u8; 4]>) -> Result<Event, Fail> {
        let mut payload = self.buffer.split_to(length);
        if let Some(mut mask) = mask {
            apply_mask(&mut payload, &mut mask);
        }
        self.state = State::Head;
        Ok(match opcode {
            Control::Ping => Event::Ping(payload.freeze()),
            Control::Pong => Event::Pong,
            Control::Close => {
                self.state = State::Closed;
                Event::Close(Close::parse(&payload)?)
            }
            Control::Reserved(_) => return Err(Fail::protocol("a frame of no known kind")),
        })
    }
}

/// Masks or unmasks, and turns the mask so that it fits what follows (RFC 6455 section 5.3).
pub(super) fn apply_mask(bytes: &mut [u8], mask: &mut [u8; 4]) {
    let (words, rest) = bytes.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(*mask)).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.iter()) {
        *byte ^= key;
    }
    mask.rotate_left(rest.len());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(first: u8, payload: &[u8], masked: bool) -> Vec<u8> {
        let mut bytes = vec![first];
        let bit = if masked { 0x80 } else { 0 };
        match payload.len() {
            length @ 0..126 => bytes.push(bit | length as u8),
            length @ 126..65_536 => {
                bytes.push(bit | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            length => {
                bytes.push(bit | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        let mut payload = payload.to_vec();
        if masked {
            let mut mask = [1, 2, 3, 4];
            bytes.extend(mask);
            apply_mask(&mut payload, &mut mask);
        }
        bytes.extend(payload);
        bytes
    }

    fn read(bytes: &[u8], cut: usize, deflate: Option<Deflate>) -> Result<Vec<Event>, Fail> {
        let mut decoder = Decoder::new(Role::Server, deflate);
        let mut events = Vec::new();
        for chunk in bytes.chunks(cut.max(1)) {
            decoder.buffer.extend_from_slice(chunk);
            while let Some(event) = decoder.next()? {
                events.push(event);
            }
        }
        Ok(events)
    }

    /// Whole messages of events, and how many there were.
    fn messages(events: &[Event]) -> Vec<(Kind, Vec<u8>)> {
        let mut whole: Vec<(Kind, Vec<u8>)> = Vec::new();
        for event in events {
            if let Event::Data { kind, bytes, .. } = event {
                if *kind != Kind::More {
                    whole.push((*kind, Vec::new()));
                }
                whole.last_mut().expect("begun").1.extend_from_slice(bytes);
            }
        }
        whole
    }

    #[test]
    fn a_message_may_have_control_frames_in_its_middle() {
        let bytes = [
            frame(0x01, "hé".as_bytes(), true),
            frame(0x89, b"ping", true),
            frame(0x80, b"llo", true),
            frame(0x88, &[&4000u16.to_be_bytes()[..], b"bye"].concat(), true),
            b"whatever comes after a close".to_vec(),
        ]
        .concat();
        for cut in 1..bytes.len() {
            let events = read(&bytes, cut, None).unwrap();
            assert_eq!(messages(&events), vec![(Kind::Text, "héllo".into())], "cut into {cut}");
            assert!(events.contains(&Event::Ping(Bytes::from_static(b"ping"))));
            let close = Close { code: 4000, reason: "bye".into() };
            assert_eq!(events.last(), Some(&Event::Close(close)));
        }
    }

    #[test]
    fn breaches_of_the_protocol_are_told_apart() {
        let huge = [&[0x82, 0xff][..], &(1u64 << 40).to_be_bytes(), &[0; 4]].concat();
        let deep = [&[0x82, 0xff][..], &u64::MAX.to_be_bytes(), &[0; 4]].concat();
        for (what, bytes, code) in [
            ("unmasked", frame(0x81, b"a", false), 1002),
            ("rsv1 without an extension", frame(0xc1, b"a", true), 1002),
            ("rsv2", frame(0xa1, b"a", true), 1002),
            ("reserved opcode", frame(0x83, b"a", true), 1002),
            ("reserved control opcode", frame(0x8b, b"a", true), 1002),
            ("fragmented control frame", frame(0x09, b"a", true), 1002),
            ("long control frame", frame(0x89, &[0; 126], true), 1002),
            ("continuation of nothing", frame(0x80, b"a", true), 1002),
            ("two messages", [frame(0x01, b"a", true), frame(0x81, b"b", true)].concat(), 1002),
            ("bad text", frame(0x81, b"\xff", true), 1007),
            ("unfinished text", frame(0x81, b"\xc3", true), 1007),
            ("half a close code", frame(0x88, &[3], true), 1002),
            ("close code 1005", frame(0x88, &1005u16.to_be_bytes(), true), 1002),
            ("bad close reason", frame(0x88, &[3, 232, 0xff], true), 1007),
            ("huge", huge, 1009),
            ("beyond all bounds", deep, 1009),
        ] {
            assert_eq!(read(&bytes, 1, None).map_err(|fail| fail.code), Err(code), "{what}");
        }
    }

    #[test]
    fn a_bomb_is_stopped_at_the_bound() {
        let mut deflater = super::super::deflate::Deflater::new();
        for _ in 0..40 {
            deflater.push(&vec![b'a'; 1 << 20]).unwrap();
        }
        deflater.finish().unwrap();
        let bytes = frame(0xc1, &deflater.out, true);
        let mut decoder = Decoder::new(Role::Server, Some(Deflate { peer_keeps_context: false }));
        decoder.buffer.extend_from_slice(&bytes);
        let mut out = 0;
        let end = loop {
            match decoder.next() {
                Ok(Some(Event::Data { bytes, .. })) => {
                    assert!(bytes.len() <= PIECE_BYTES_MAX);
                    out += bytes.len();
                }
                Ok(other) => panic!("{other:?}"),
                Err(fail) => break fail,
            }
        };
        assert_eq!(end, Fail::TOO_LARGE);
        assert!(out <= SOCKET_MESSAGE_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_and_cuts_do_not_matter(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            cut in 1usize..40,
            deflate in any::<bool>(),
        ) {
            let deflate = deflate.then_some(Deflate { peer_keeps_context: false });
            let whole = read(&bytes, bytes.len(), deflate);
            let pieces = read(&bytes, cut, deflate);
            match (whole, pieces) {
                (Ok(whole), Ok(pieces)) => {
                    // Of a message that is not whole, more or less may be out.
                    let (mut whole, mut pieces) = (messages(&whole), messages(&pieces));
                    whole.pop();
                    pieces.truncate(whole.len());
                    prop_assert_eq!(whole, pieces);
                }
                (whole, pieces) => prop_assert_eq!(whole.is_err(), pieces.is_err()),
            }
        }

        #[test]
        fn messages_survive_any_framing(
            sent in proptest::collection::vec((any::<bool>(), any::<bool>(), ".{0,40}", 1usize..6), 0..5),
            cut in 1usize..60,
        ) {
            let (mut bytes, mut wanted) = (Vec::new(), Vec::new());
            for (text, compress, content, pieces) in sent {
                let content = content.into_bytes();
                let mut payload = content.clone();
                if compress {
                    let mut deflater = super::super::deflate::Deflater::new();
                    deflater.push(&content).unwrap();
                    deflater.finish().unwrap();
                    payload = deflater.out;
                }
                let size = (payload.len() / pieces).max(1);
                let chunks: Vec<&[u8]> = if payload.is_empty() { vec![&[]] } else { payload.chunks(size).collect() };
                for (at, chunk) in chunks.iter().enumerate() {
                    let opcode = match (at, text) { (0, true) => 1, (0, false) => 2, _ => 0 };
                    let first = opcode | if at == 0 && compress { 0x40 } else { 0 }
                        | if at + 1 == chunks.len() { 0x80 } else { 0 };
                    bytes.extend(frame(first, chunk, true));
                }
                wanted.push((if text { Kind::Text } else { Kind::Binary }, content));
            }
            let events = read(&bytes, cut, Some(Deflate { peer_keeps_context: false })).unwrap();
            prop_assert_eq!(messages(&events), wanted);
        }
    }
}
