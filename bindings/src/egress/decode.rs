//! Content codings of answers: gzip, br, deflate and zstd are decoded on the way, as `fetch()` does.
//!
//! ```text
//!  body ─▶ BodyReader ─▶ decoder ─▶ (decoder) ─▶ ReaderBody: buffer of fixed size, ratio bounded
//! ```
//!
//! A decoder is only asked for as much as the next frame holds, so a bomb costs one buffer and the CPU for what is read. Its
//! ratio is bounded all the same: beyond the first mebibyte, more than [`RATIO_MAX`] bytes out per byte in is an error.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use async_compression::tokio::bufread::{
    BrotliDecoder, DeflateDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder,
};
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap};
use http_body::{Body, Frame};
use tokio::io::{AsyncBufRead, AsyncRead, BufReader, ReadBuf};

use crate::body::{BoxError, ReplyBody};

/// Most bytes out per byte in, once [`RATIO_FREE_BYTES`] are out.
pub const RATIO_MAX: u64 = 250;
/// Bytes that any answer may decode to.
pub const RATIO_FREE_BYTES: u64 = 1024 * 1024;
/// Bytes of one decoded frame.
const FRAME_BYTES: usize = 16 * 1024;
/// Codings of one answer that are decoded.
const CODINGS_MAX: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Gzip,
    Brotli,
    Deflate,
    Zstd,
}

/// The answer's codings are not among those that are known.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unknown;

/// The codings that were applied, in their order.
fn codings(headers: &HeaderMap) -> Result<Vec<Coding>, Unknown> {
    let mut found = Vec::new();
    for value in headers.get_all(CONTENT_ENCODING) {
        for token in value.to_str().map_err(|_| Unknown)?.split(',') {
            found.push(match token.trim().to_ascii_lowercase().as_str() {
                "" | "identity" => continue,
                "gzip" | "x-gzip" => Coding::Gzip,
                "br" => Coding::Brotli,
                "deflate" => Coding::Deflate,
                "zstd" => Coding::Zstd,
                _ => return Err(Unknown),
            });
        }
    }
    if found.len() > CODINGS_MAX { Err(Unknown) } else { Ok(found) }
}

/// Decodes the body, and takes away the fields that said how it was coded. Without a coding nothing changes.
pub(crate) fn decode(headers: &mut HeaderMap, body: ReplyBody) -> Result<ReplyBody, (Unknown, ReplyBody)> {
    let codings = match codings(headers) {
        Ok(codings) => codings,
        Err(unknown) => return Err((unknown, body)),
    };
    if codings.is_empty() || body.is_end_stream() {
        return Ok(body);
    }
    headers.remove(CONTENT_ENCODING);
    headers.remove(CONTENT_LENGTH);
    let taken = Arc::new(AtomicU64::new(0));
    let mut reader: Reader = Box::pin(BodyReader { body, chunk: Bytes::new(), taken: Arc::clone(&taken) });
    for coding in codings.into_iter().rev() {
        reader = Box::pin(BufReader::with_capacity(FRAME_BYTES, Decoder::Waiting(Some(reader), coding)));
    }
    Ok(ReplyBody::stream(ReaderBody { reader, taken, given: 0 }))
}

type Reader = Pin<Box<dyn AsyncBufRead + Send>>;

/// A body as a reader.
struct BodyReader {
    body: ReplyBody,
    chunk: Bytes,
    taken: Arc<AtomicU64>,
}

impl AsyncBufRead for BodyReader {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        while this.chunk.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                None => break,
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        this.taken.fetch_add(data.len() as u64, Relaxed);
                        this.chunk = data;
                    }
                }
            }
        }
        Poll::Ready(Ok(&this.chunk))
    }

    fn consume(mut self: Pin<&mut Self>, amount: usize) {
        let _ = self.chunk.split_to(amount);
    }
}

impl AsyncRead for BodyReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let bytes = ready!(self.as_mut().poll_fill_buf(cx))?;
        let amount = bytes.len().min(out.remaining());
        out.put_slice(&bytes[..amount]);
        self.consume(amount);
        Poll::Ready(Ok(()))
    }
}

/// A decoder, chosen when the first byte is there: an empty body is empty in every coding, and what HTTP calls deflate comes
/// with a zlib header or, against RFC 9110, without.
enum Decoder {
    Waiting(Option<Reader>, Coding),
    Running(Pin<Box<dyn AsyncRead + Send>>),
    Empty,
}

impl AsyncRead for Decoder {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Self::Waiting(reader, coding) = this {
            let Some(waiting) = reader else { return Poll::Ready(Ok(())) };
            let first = ready!(waiting.as_mut().poll_fill_buf(cx))?.first().copied();
            let Some(reader) = reader.take() else { return Poll::Ready(Ok(())) };
            *this = match first {
                None => Self::Empty,
                Some(first) => Self::Running(start(reader, *coding, first)),
            };
        }
        match this {
            Self::Running(decoder) => decoder.as_mut().poll_read(cx, out),
            Self::Waiting(..) | Self::Empty => Poll::Ready(Ok(())),
        }
    }
}

fn start(reader: Reader, coding: Coding, first: u8) -> Pin<Box<dyn AsyncRead + Send>> {
    match coding {
        Coding::Gzip => {
            let mut decoder = GzipDecoder::new(reader);
            decoder.multiple_members(true);
            Box::pin(decoder)
        }
        Coding::Brotli => Box::pin(BrotliDecoder::new(reader)),
        // The low half of zlib's first byte is 8 (RFC 1950); no encoder begins raw deflate like this.
        Coding::Deflate if first & 0x0f == 8 => Box::pin(ZlibDecoder::new(reader)),
        Coding::Deflate => Box::pin(DeflateDecoder::new(reader)),
        Coding::Zstd => {
            let mut decoder = ZstdDecoder::new(reader);
            decoder.multiple_members(true);
            Box::pin(decoder)
        }
    }
}

/// A reader as a body.
struct ReaderBody {
    reader: Reader,
    taken: Arc<AtomicU64>,
    given: u64,
}

impl Body for ReaderBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let decoded = match ready!(self.reader.as_mut().poll_fill_buf(cx)) {
            // What the decoder says of the bytes is of no use to a guest.
            Err(_) => return Poll::Ready(Some(Err("the answer's coding is broken".into()))),
            Ok(bytes) => Bytes::copy_from_slice(&bytes[..bytes.len().min(FRAME_BYTES)]),
        };
        if decoded.is_empty() {
            return Poll::Ready(None);
        }
        self.reader.as_mut().consume(decoded.len());
        self.given += decoded.len() as u64;
        let allowed = RATIO_FREE_BYTES.saturating_add(self.taken.load(Relaxed).saturating_mul(RATIO_MAX));
        if self.given > allowed {
            return Poll::Ready(Some(Err("the answer expands too far".into())));
        }
        Poll::Ready(Some(Ok(Frame::data(decoded))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codings_are_understood_or_refused() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_ENCODING, value.parse().unwrap());
            }
            codings(&headers)
        };
        assert_eq!(read(&[]), Ok(vec![]));
        assert_eq!(read(&["identity", ""]), Ok(vec![]));
        assert_eq!(read(&["GZip, br", "zstd"]), Ok(vec![Coding::Gzip, Coding::Brotli, Coding::Zstd]));
        for bad in [&["compress"][..], &["gzip, x"], &["gzip, gzip, gzip, gzip"]] {
            assert_eq!(read(bad), Err(Unknown), "{bad:?}");
        }
    }
}
