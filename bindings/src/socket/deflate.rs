//! permessage-deflate (RFC 7692): what is agreed, and the two directions.
//!
//! Each message is compressed by itself wherever that can be agreed, so that nothing is kept between messages.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::{Fail, PIECE_BYTES_MAX};

/// Messages below this are sent as they are, in bytes: compressing them costs more than it saves.
pub(super) const COMPRESSED_BYTES_MIN: usize = 16;
/// What ends a message's compressed bytes, and is left out on the wire (section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// What was agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deflate {
    /// The peer's compressor remembers earlier messages.
    pub peer_keeps_context: bool,
}

/// Decompresses what comes.
#[derive(Debug)]
pub(super) struct Inflater {
    agreed: Deflate,
    stream: Option<Box<Decompress>>,
    /// Compressed bytes not used yet, from this place on.
    input: Vec<u8>,
    at: usize,
    /// The last output filled its buffer: there may be more without more input.
    full: bool,
}

impl Inflater {
    pub(super) fn new(agreed: Deflate) -> Self {
        Self { agreed, stream: None, input: Vec::new(), at: 0, full: false }
    }

    /// Takes compressed bytes of the current message.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.input.drain(..self.at);
        self.at = 0;
        self.input.extend_from_slice(bytes);
    }

    /// All of the message was pushed.
    pub(super) fn finish(&mut self) {
        self.push(&TAIL);
    }

    /// The next bytes of the message, at most `PIECE_BYTES_MAX`; empty when more input is needed. A bomb is therefore let out
    /// one piece at a time, and its size is the caller's to bound.
    pub(super) fn pull(&mut self) -> Result<Vec<u8>, Fail> {
        if self.at == self.input.len() && !self.full {
            return Ok(Vec::new());
        }
        let stream = self.stream.get_or_insert_with(|| Box::new(Decompress::new(false)));
        let mut out = Vec::with_capacity(PIECE_BYTES_MAX);
        while out.len() < out.capacity() {
            let before = (stream.total_in(), stream.total_out());
            let status = stream
                .decompress_vec(&self.input[self.at..], &mut out, FlushDecompress::Sync)
                .map_err(|_| Fail { code: 1007, reason: "compressed data is damaged" })?;
            let after = (stream.total_in(), stream.total_out());
            self.at += usize::try_from(after.0 - before.0).unwrap_or(usize::MAX);
            if status == Status::StreamEnd {
                // A final block: what follows is a new stream (section 7.2.3.5).
                stream.reset(false);
            }
            if before == after {
                break;
            }
        }
        self.full = out.len() == out.capacity();
        Ok(out)
    }

    /// The message is over.
    pub(super) fn end(&mut self) {
        self.input = Vec::new();
        (self.at, self.full) = (0, false);
        if !self.agreed.peer_keeps_context {
            self.stream = None;
        }
    }
}

/// Compresses one message.
pub(super) struct Deflater {
    stream: Compress,
    pub(super) out: Vec<u8>,
}

impl Deflater {
    pub(super) fn new() -> Self {
        Self { stream: Compress::new(Compression::fast(), false), out: Vec::new() }
    }

    /// Compresses more of the message onto `out`.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), Fail> {
        self.run(bytes, FlushCompress::None)
    }

    /// Ends the message; `out` has the rest of it.
    pub(super) fn finish(&mut self) -> Result<(), Fail> {
        self.run(&[], FlushCompress::Sync)?;
        if self.out.ends_with(&TAIL) {
            self.out.truncate(self.out.len() - TAIL.len());
        }
        Ok(())
    }

    fn run(&mut self, mut bytes: &[u8], flush: FlushCompress) -> Result<(), Fail> {
        const BROKEN: Fail = Fail { code: 1011, reason: "compression failed" };
        loop {
            self.out.reserve(PIECE_BYTES_MAX.min(bytes.len() + 64));
            let (before_in, room) = (self.stream.total_in(), self.out.capacity() - self.out.len());
            let before_out = self.stream.total_out();
            self.stream.compress_vec(bytes, &mut self.out, flush).map_err(|_| BROKEN)?;
            let taken = usize::try_from(self.stream.total_in() - before_in).unwrap_or(usize::MAX);
            bytes = bytes.get(taken..).ok_or(BROKEN)?;
            let made = usize::try_from(self.stream.total_out() - before_out).unwrap_or(usize::MAX);
            if bytes.is_empty() && made < room {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compress(text: &[u8]) -> Vec<u8> {
        let mut deflater = Deflater::new();
        for chunk in text.chunks(1000) {
            deflater.push(chunk).unwrap();
        }
        deflater.finish().unwrap();
        deflater.out
    }

    fn decompress(inflater: &mut Inflater, bytes: &[u8]) -> Vec<u8> {
        let mut all = Vec::new();
        for chunk in bytes.chunks(7) {
            inflater.push(chunk);
            while let Some(piece) = Some(inflater.pull().unwrap()).filter(|piece| !piece.is_empty()) {
                all.extend(piece);
            }
        }
        inflater.finish();
        while let Some(piece) = Some(inflater.pull().unwrap()).filter(|piece| !piece.is_empty()) {
            all.extend(piece);
        }
        inflater.end();
        all
    }

    #[test]
    fn messages_come_out_as_they_went_in() {
        let mut inflater = Inflater::new(Deflate { peer_keeps_context: false });
        let random: Vec<u8> = (0..100_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for message in [&b""[..], b"a", &[7; 200_000], &random] {
            assert_eq!(decompress(&mut inflater, &compress(message)), message);
        }
    }

    #[test]
    fn the_examples_of_the_standard_are_understood() {
        // RFC 7692 sections 7.2.3.1, 7.2.3.2 (with the context of the first), 7.2.3.3 and 7.2.3.4.
        let mut inflater = Inflater::new(Deflate { peer_keeps_context: true });
        for bytes in [
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
            &[0xf2, 0x00, 0x11, 0x00, 0x00],
            &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        ] {
            assert_eq!(decompress(&mut inflater, bytes), b"Hello");
        }
    }

    #[test]
    fn a_bomb_comes_out_in_pieces() {
        let bomb = compress(&vec![0; 10_000_000]);
        assert!(bomb.len() < 60_000);
        let mut inflater = Inflater::new(Deflate { peer_keeps_context: false });
        inflater.push(&bomb);
        for _ in 0..100 {
            assert!(inflater.pull().unwrap().len() <= PIECE_BYTES_MAX);
        }
    }

    #[test]
    fn damaged_data_is_refused() {
        let mut inflater = Inflater::new(Deflate { peer_keeps_context: false });
        inflater.push(&[0xff; 20]);
        assert_eq!(inflater.pull().map_err(|fail| fail.code), Err(1007));
    }
}
