//! What a guest sends, as frames: parts in, bytes for the socket out. No I/O and no clock.

use bytes::{Bytes, BytesMut};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::deflate::{COMPRESSED_BYTES_MIN, Deflater};
use super::parts::{Close, Kind, Piece, Reader};
use super::wire::apply_mask;
use super::{Fail, PIECE_BYTES_MAX, Role};

/// Writes frames.
pub(super) struct Framer {
    role: Role,
    compresses: bool,
    reader: Reader,
    /// The frame that is being written: what its mask is now.
    mask: Option<[u8; 4]>,
    /// The part that is being written.
    part: Option<(Kind, bool)>,
    /// The message that is being compressed, and the opcode of its next frame.
    deflating: Option<(Box<Deflater>, Data)>,
    /// Bytes of messages that were taken in, to be taken over by whoever counts them.
    pub(super) taken: u64,
}

impl Framer {
    pub(super) fn new(role: Role, compresses: bool) -> Self {
        Self {
            role,
            compresses,
            reader: Reader::default(),
            mask: None,
            part: None,
            deflating: None,
            taken: 0,
        }
    }

    /// Appends the frames of what can be read from `input`; gives the close once it comes. A piece at a time, so that `out`
    /// stays small: call it until `input` is empty.
    pub(super) fn next(&mut self, input: &mut Bytes, out: &mut BytesMut) -> Result<Option<Close>, Fail> {
        // A part that ends says so without more input: what is left of that comes out whatever `out` holds.
        while input.is_empty() || out.len() < 4 * PIECE_BYTES_MAX {
            match self.reader.next(input)? {
                None => return Ok(None),
                Some(Piece::Close(close)) => {
                    self.control(Control::Close, &close.payload(), out);
                    return Ok(Some(close));
                }
                Some(Piece::Begin { kind, last, length }) => self.begin(kind, last, length, out),
                Some(Piece::Bytes(bytes)) => self.bytes(&bytes, out)?,
                Some(Piece::End) => self.end(out)?,
            }
        }
        Ok(None)
    }

    pub(super) fn role(&self) -> Role {
        self.role
    }

    /// Whether a frame is written only in part: a control frame may not come now.
    pub(super) fn in_frame(&self) -> bool {
        self.part.is_some() && self.deflating.is_none()
    }

    /// Appends a control frame. Only between frames.
    pub(super) fn control(&mut self, control: Control, payload: &[u8], out: &mut BytesMut) {
        self.header(OpCode::Control(control), true, false, payload.len(), out);
        self.payload(payload, out);
    }

    fn begin(&mut self, kind: Kind, last: bool, length: usize, out: &mut BytesMut) {
        self.part = Some((kind, last));
        let opcode = match kind {
            Kind::Text => Data::Text,
            Kind::Binary => Data::Binary,
            Kind::More | Kind::Close => Data::Continue,
        };
        let worth = !last || length >= COMPRESSED_BYTES_MIN;
        if kind != Kind::More && self.compresses && worth {
            self.deflating = Some((Box::new(Deflater::new()), opcode));
        } else if self.deflating.is_none() {
            self.header(OpCode::Data(opcode), last, false, length, out);
        }
    }

    fn bytes(&mut self, bytes: &[u8], out: &mut BytesMut) -> Result<(), Fail> {
        self.taken = self.taken.saturating_add(bytes.len() as u64);
        let Some((deflater, _)) = &mut self.deflating else {
            self.payload(bytes, out);
            return Ok(());
        };
        for piece in bytes.chunks(PIECE_BYTES_MAX) {
            deflater.push(piece)?;
        }
        if deflater.out.len() >= PIECE_BYTES_MAX {
            self.compressed_frame(false, out);
        }
        Ok(())
    }

    fn end(&mut self, out: &mut BytesMut) -> Result<(), Fail> {
        if let (Some((deflater, _)), Some((_, true))) = (&mut self.deflating, self.part) {
            deflater.finish()?;
            self.compressed_frame(true, out);
            self.deflating = None;
        }
        self.part = None;
        Ok(())
    }

    fn compressed_frame(&mut self, last: bool, out: &mut BytesMut) {
        let Some((deflater, opcode)) = &mut self.deflating else { return };
        let opcode = std::mem::replace(opcode, Data::Continue);
        let payload = std::mem::take(&mut deflater.out);
        self.header(OpCode::Data(opcode), last, opcode != Data::Continue, payload.len(), out);
        self.payload(&payload, out);
    }

    fn header(&mut self, opcode: OpCode, is_final: bool, rsv1: bool, length: usize, out: &mut BytesMut) {
        self.mask = (self.role == Role::Client).then(random_mask);
        let header = FrameHeader { is_final, rsv1, opcode, mask: self.mask, ..FrameHeader::default() };
        let mut bytes = Vec::with_capacity(14);
        // Writing to a vector cannot fail.
        let _ = header.format(length as u64, &mut bytes);
        out.extend_from_slice(&bytes);
    }

    fn payload(&mut self, bytes: &[u8], out: &mut BytesMut) {
        let start = out.len();
        out.extend_from_slice(bytes);
        if let Some(mask) = &mut self.mask {
            apply_mask(&mut out[start..], mask);
        }
    }
}

/// A mask that a page cannot foretell (RFC 6455 section 10.3).
fn random_mask() -> [u8; 4] {
    let mut mask = [0; 4];
    if getrandom::fill(&mut mask).is_err() {
        // Without entropy nothing can be unguessable: there is no sensible way to go on.
        std::process::abort();
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::super::deflate::Deflate;
    use super::super::parts::part;
    use super::super::wire::{Decoder, Event};
    use super::*;

    /// What the other side reads of what this one writes.
    fn read_back(role: Role, compresses: bool, body: &[u8], cut: usize) -> Vec<(Kind, Vec<u8>)> {
        let other = if role == Role::Server { Role::Client } else { Role::Server };
        let deflate = compresses.then_some(Deflate { peer_keeps_context: false });
        let (mut framer, mut decoder) = (Framer::new(role, compresses), Decoder::new(other, deflate));
        let mut whole: Vec<(Kind, Vec<u8>)> = Vec::new();
        for chunk in body.chunks(cut) {
            let mut input = Bytes::copy_from_slice(chunk);
            loop {
                let closed = framer.next(&mut input, &mut decoder.buffer).unwrap().is_some();
                while let Some(event) = decoder.next().unwrap() {
                    match event {
                        Event::Data { kind, bytes, .. } => {
                            if kind != Kind::More {
                                whole.push((kind, Vec::new()));
                            }
                            whole.last_mut().unwrap().1.extend_from_slice(&bytes);
                        }
                        Event::Close(close) => whole.push((Kind::Close, close.payload())),
                        other => panic!("{other:?}"),
                    }
                }
                if closed || input.is_empty() {
                    break;
                }
            }
        }
        whole
    }

    #[test]
    fn the_other_side_reads_what_was_sent() {
        let long: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
        let close = Close { code: 1000, reason: "done".into() };
        let body = [
            part(Kind::Text, true, b"short"),
            part(Kind::Binary, true, &long),
            part(Kind::Binary, false, &long[..1000]),
            part(Kind::More, false, b""),
            part(Kind::More, true, &long[1000..70_000]),
            part(Kind::Text, true, b""),
            close.part(),
        ]
        .concat();
        let wanted = vec![
            (Kind::Text, b"short".to_vec()),
            (Kind::Binary, long.clone()),
            (Kind::Binary, long[..70_000].to_vec()),
            (Kind::Text, vec![]),
            (Kind::Close, close.payload()),
        ];
        for role in [Role::Server, Role::Client] {
            for compresses in [false, true] {
                for cut in [3, 1000, body.len()] {
                    let got = read_back(role, compresses, &body, cut);
                    assert_eq!(got, wanted, "{role:?} compressing: {compresses}, cut into {cut}");
                }
            }
        }
    }
}
