//! The seam's messages as bytes on a Unix socket: a `u32` little-endian length, then that many bytes of postcard.
//!
//! The reader never reserves what a length announces before the bytes are there, refuses lengths beyond the bound of the
//! message's kind before it decodes, and refuses trailing bytes. The writer gathers whatever is queued into one write, so
//! that the cost of a system call is shared by all frames that are ready.

use atoll_loader::limits::{FRAME_BYTES_MAX, KIB};
use bytes::{Buf, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::seam::{ToGateway, ToHost};

/// Bytes of a frame's length prefix.
const LENGTH_BYTES: usize = 4;
/// Bytes asked from the socket at once.
const READ_BYTES: usize = 64 * KIB;
/// Bytes gathered before a write.
const WRITE_BYTES: usize = 256 * KIB;
/// Messages taken from the queue at once.
const WRITE_MESSAGES: usize = 256;
/// Largest frame from a host except `Returned`: a body chunk or inline body, headers and URL fit with room to spare. Small,
/// because a decoded list takes many times its encoded size.
pub const SMALL_FRAME_BYTES_MAX: usize = 512 * KIB;
/// The postcard tag of [`ToGateway::Returned`].
const RETURNED_TAG: u8 = 1;

/// Why bytes from the other side are not messages.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// A length prefix beyond the bound.
    #[error("a frame of {bytes} bytes is beyond the bound")]
    TooLong {
        /// The announced length.
        bytes: usize,
    },
    /// The bytes do not decode, or decode with bytes left over.
    #[error("a frame does not decode")]
    Malformed,
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame")]
    Truncated,
    /// The socket failed.
    #[error("socket: {0}")]
    Io(#[from] std::io::Error),
}

/// A message that travels in one direction of the seam.
pub trait Message: Serialize + DeserializeOwned + Send + 'static {
    /// The largest frame whose first payload byte is `tag`.
    fn frame_bytes_max(tag: u8) -> usize;
}

impl Message for ToHost {
    fn frame_bytes_max(_tag: u8) -> usize {
        FRAME_BYTES_MAX
    }
}

impl Message for ToGateway {
    fn frame_bytes_max(tag: u8) -> usize {
        if tag == RETURNED_TAG { FRAME_BYTES_MAX } else { SMALL_FRAME_BYTES_MAX }
    }
}

/// Appends one frame. Leaves `out` as it was if the message does not encode or is beyond the bound.
pub fn encode<M: Message>(message: &M, out: &mut Vec<u8>) -> Result<(), WireError> {
    let start = out.len();
    let payload = start + LENGTH_BYTES;
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    if postcard::serialize_with_flavor(message, Tail(out)).is_err() {
        out.truncate(start);
        return Err(WireError::Malformed);
    }
    let bytes = out.len() - payload;
    let tag = out.get(payload).copied().unwrap_or_default();
    let Some(prefix) = u32::try_from(bytes).ok().filter(|_| bytes <= M::frame_bytes_max(tag)) else {
        out.truncate(start);
        return Err(WireError::TooLong { bytes });
    };
    out[start..payload].copy_from_slice(&prefix.to_le_bytes());
    Ok(())
}

/// Postcard's output at the end of a buffer that already holds other frames.
struct Tail<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Tail<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Decodes one frame's payload.
pub fn decode<M: Message>(payload: &[u8]) -> Result<M, WireError> {
    match postcard::take_from_bytes(payload) {
        Ok((message, [])) => Ok(message),
        _ => Err(WireError::Malformed),
    }
}

/// Reads frames.
pub struct FrameReader<R> {
    source: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads from `source`.
    pub fn new(source: R) -> Self {
        Self { source, buffer: BytesMut::with_capacity(READ_BYTES) }
    }

    /// The next message; `None` at an end between frames. Cancel safe.
    pub async fn next<M: Message>(&mut self) -> Result<Option<M>, WireError> {
        loop {
            if let Some(message) = self.buffered()? {
                return Ok(Some(message));
            }
            if self.buffer.capacity() - self.buffer.len() < READ_BYTES / 4 {
                self.buffer.reserve(READ_BYTES);
            }
            if self.source.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(WireError::Truncated) };
            }
        }
    }

    /// A message that needs no more bytes from the source.
    pub fn buffered<M: Message>(&mut self) -> Result<Option<M>, WireError> {
        let Some(prefix) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let bytes = u32::from_le_bytes(*prefix) as usize;
        if bytes > FRAME_BYTES_MAX {
            return Err(WireError::TooLong { bytes });
        }
        let Some(tag) = self.buffer.get(LENGTH_BYTES) else {
            return if bytes == 0 { Err(WireError::Malformed) } else { Ok(None) };
        };
        if bytes > M::frame_bytes_max(*tag) {
            return Err(WireError::TooLong { bytes });
        }
        let Some(payload) = self.buffer.get(LENGTH_BYTES..LENGTH_BYTES + bytes) else { return Ok(None) };
        let message = decode(payload)?;
        self.buffer.advance(LENGTH_BYTES + bytes);
        if self.buffer.is_empty() && self.buffer.capacity() > 4 * READ_BYTES {
            // One huge frame must not pin its memory for the life of the link.
            self.buffer = BytesMut::with_capacity(READ_BYTES);
        }
        Ok(Some(message))
    }
}

/// Writes messages from `queue` to `sink` until the queue closes or the sink fails.
pub async fn write_all<M, W>(queue: &mut mpsc::UnboundedReceiver<M>, mut sink: W) -> Result<(), WireError>
where
    M: Message,
    W: AsyncWrite + Unpin,
{
    let mut batch = Vec::with_capacity(WRITE_MESSAGES);
    let mut bytes = Vec::with_capacity(WRITE_BYTES);
    while queue.recv_many(&mut batch, WRITE_MESSAGES).await > 0 {
        for message in batch.drain(..) {
            if let Err(error) = encode(&message, &mut bytes) {
                // The makers of messages bound them; one that slips through must not take the link with it.
                tracing::error!(%error, "a message was not sent");
            }
            if bytes.len() >= WRITE_BYTES {
                flush(&mut bytes, &mut sink).await?;
            }
        }
        flush(&mut bytes, &mut sink).await?;
    }
    sink.shutdown().await?;
    Ok(())
}

async fn flush<W: AsyncWrite + Unpin>(bytes: &mut Vec<u8>, sink: &mut W) -> Result<(), WireError> {
    sink.write_all(bytes).await?;
    bytes.clear();
    // One huge frame must not pin its memory for the life of the link.
    bytes.shrink_to(2 * WRITE_BYTES);
    Ok(())
}
