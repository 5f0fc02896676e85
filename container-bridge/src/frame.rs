//! Frames on a byte stream: a little-endian length, then that many bytes of postcard.
//!
//! The async half serves both ends once they run; the blocking half serves the init before it has an event loop.

use std::io::{self, Read, Write};

use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::limits::FRAME_BYTES_MAX;

/// One encoded frame, length included.
pub(crate) fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    bytes = postcard::to_extend(message, bytes).map_err(io::Error::other)?;
    let length = bytes.len() - 4;
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::other(format!("a frame of {length} bytes is over the bound")));
    }
    bytes[..4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(bytes)
}

fn checked_length(head: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_le_bytes(head) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes")));
    }
    Ok(length)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    let (message, rest) = postcard::take_from_bytes(bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("not a frame: {error}")))?;
    if !rest.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "bytes after the end of a frame's message"));
    }
    Ok(message)
}

/// The next frame, or `None` at a clean end.
pub(crate) async fn read<T: DeserializeOwned>(input: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<T>> {
    let mut head = [0; 4];
    match input.read_exact(&mut head).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut bytes = vec![0; checked_length(head)?];
    input.read_exact(&mut bytes).await?;
    decode(&bytes).map(Some)
}

/// Writes one frame.
pub(crate) async fn write<T: Serialize>(
    output: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> io::Result<()> {
    output.write_all(&encode(message)?).await
}

/// The next frame, blocking.
pub(crate) fn read_blocking<T: DeserializeOwned>(input: &mut impl Read) -> io::Result<T> {
    let mut head = [0; 4];
    input.read_exact(&mut head)?;
    let mut bytes = vec![0; checked_length(head)?];
    input.read_exact(&mut bytes)?;
    decode(&bytes)
}

/// Writes one frame, blocking.
pub(crate) fn write_blocking<T: Serialize>(output: &mut impl Write, message: &T) -> io::Result<()> {
    output.write_all(&encode(message)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Channel, FromAgent, ToAgent};

    #[test]
    fn frames_round_trip() {
        let mut bytes = Vec::new();
        write_blocking(&mut bytes, &ToAgent::Data { id: 7, bytes: vec![1, 2, 3] }).unwrap();
        let back: ToAgent = read_blocking(&mut bytes.as_slice()).unwrap();
        assert!(matches!(back, ToAgent::Data { id: 7, bytes } if bytes == [1, 2, 3]));
    }

    #[test]
    fn bad_frames_are_refused_before_memory_is_taken() {
        let huge = u32::MAX.to_le_bytes();
        let error = read_blocking::<ToAgent>(&mut huge.as_slice()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);

        let mut long = encode(&ToAgent::End { id: 1 }).unwrap();
        long.push(0);
        let length = (long.len() - 4) as u32;
        long[..4].copy_from_slice(&length.to_le_bytes());
        assert_eq!(
            read_blocking::<ToAgent>(&mut long.as_slice()).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_give_a_frame_or_an_error(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let mut framed = (bytes.len() as u32).to_le_bytes().to_vec();
            framed.extend(&bytes);
            let _: io::Result<FromAgent> = read_blocking(&mut framed.as_slice());
        }

        #[test]
        fn data_survives(id in 0u32.., bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..2000)) {
            let frame = encode(&FromAgent::Data { id, channel: Channel::Err, bytes: bytes.clone() }).unwrap();
            let back: FromAgent = read_blocking(&mut frame.as_slice()).unwrap();
            let FromAgent::Data { id: i, channel: Channel::Err, bytes: b } = back else { panic!("another message") };
            proptest::prop_assert_eq!((i, b), (id, bytes));
        }
    }
}
