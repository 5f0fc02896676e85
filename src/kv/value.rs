//! Values on their way in and out, piece by piece.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use atoll_bindings::body::{BoxError, RequestBody};
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

use super::lease::{Lease, Leases};
use super::table::{self, Stored};
use super::{CHUNK_BYTES, INLINE_BYTES_MAX, Key, KvError, Namespace, PutOptions, VALUE_BYTES_MAX, bury_all};

/// The value of an entry.
#[derive(Debug)]
pub(crate) enum Value {
    /// All of it.
    Whole(Bytes),
    /// To be read piece by piece.
    Pieces(Reader),
}

impl From<Value> for RequestBody {
    fn from(value: Value) -> Self {
        match value {
            Value::Whole(bytes) => Self::Full(bytes),
            pieces => Self::stream(ValuesBody::new([pieces])),
        }
    }
}

/// A large value that is being read. It stays as it is until this is dropped, whatever becomes of its key.
pub(crate) struct Reader {
    namespace: Namespace,
    lease: Lease,
    next: u32,
    left: u64,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reader({} bytes left)", self.left)
    }
}

impl Reader {
    pub(super) fn new(namespace: Namespace, lease: Lease, bytes: u64) -> Self {
        Self { namespace, lease, next: 0, left: bytes }
    }

    /// The next piece; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, KvError> {
        if self.left == 0 {
            return Ok(None);
        }
        let (value, at) = (self.lease.value(), self.next);
        let piece = self.namespace.read(move |db, _, _| table::chunk(db, value, at)).await?;
        let piece = piece.filter(|piece| !piece.is_empty() && piece.len() as u64 <= self.left);
        let piece = piece.ok_or(KvError::Damaged("a piece of a value is missing"))?;
        self.next += 1;
        self.left -= piece.len() as u64;
        Ok(Some(piece.into()))
    }
}

type Piece = Pin<Box<dyn Future<Output = (Reader, Result<Option<Bytes>, KvError>)> + Send>>;

/// Values one after the other, as one body of known length.
pub(crate) struct ValuesBody {
    values: VecDeque<Value>,
    reading: Option<Piece>,
    left: u64,
}

impl ValuesBody {
    pub(crate) fn new(values: impl IntoIterator<Item = Value>) -> Self {
        let values: VecDeque<_> = values.into_iter().collect();
        let bytes = |value: &Value| match value {
            Value::Whole(bytes) => bytes.len() as u64,
            Value::Pieces(reader) => reader.left,
        };
        Self { left: values.iter().map(bytes).sum(), values, reading: None }
    }

    fn frame(&mut self, bytes: Bytes) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.left = self.left.saturating_sub(bytes.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

impl Body for ValuesBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            if let Some(piece) = &mut self.reading {
                let (reader, piece) = ready!(piece.as_mut().poll(cx));
                self.reading = None;
                match piece {
                    Ok(None) => continue,
                    Err(error) => return Poll::Ready(Some(Err(error.into()))),
                    Ok(Some(bytes)) => {
                        self.values.push_front(Value::Pieces(reader));
                        return self.frame(bytes);
                    }
                }
            }
            match self.values.pop_front() {
                None => return Poll::Ready(None),
                Some(Value::Whole(bytes)) if bytes.is_empty() => {}
                Some(Value::Whole(bytes)) => return self.frame(bytes),
                Some(Value::Pieces(mut reader)) => {
                    self.reading = Some(Box::pin(async move {
                        let piece = reader.next().await;
                        (reader, piece)
                    }));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// A value that is being written. Dropped before [`Upload::finish`], it leaves nothing.
pub(crate) struct Upload {
    namespace: Namespace,
    buffer: BytesMut,
    bytes: u64,
    large: Option<Large>,
}

/// What a value has that does not fit into its entry.
struct Large {
    lease: Lease,
    chunks: u32,
    _place: OwnedSemaphorePermit,
}

impl Upload {
    pub(super) fn new(namespace: Namespace) -> Self {
        Self { namespace, buffer: BytesMut::new(), bytes: 0, large: None }
    }

    /// Takes the next bytes.
    pub(crate) async fn push(&mut self, mut bytes: Bytes) -> Result<(), KvError> {
        self.bytes += bytes.len() as u64;
        if self.bytes > VALUE_BYTES_MAX {
            return Err(KvError::ValueTooLarge { bytes: self.bytes });
        }
        while !bytes.is_empty() {
            let room = CHUNK_BYTES - self.buffer.len();
            let taken = bytes.split_to(room.min(bytes.len()));
            self.buffer.extend_from_slice(&taken);
            if self.buffer.len() == CHUNK_BYTES {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Writes what was gathered as the next piece.
    async fn flush(&mut self) -> Result<(), KvError> {
        let piece = self.buffer.split().freeze();
        let large = match &mut self.large {
            Some(large) => large,
            None => self.large.insert(begin(&self.namespace).await?),
        };
        let (value, at) = (large.lease.value(), large.chunks);
        large.chunks += 1;
        let (leases, now_s) = (Arc::clone(&self.namespace.kv.inner.leases), self.namespace.now_s());
        self.namespace
            .write(move |db, owner| {
                table::add_chunk(db, value, at, &piece)?;
                table::fit(db, owner, None, now_s, |db| bury_all(db, &leases, owner.tenant))
            })
            .await
    }

    /// Gives the value to its key.
    pub(crate) async fn finish(mut self, key: Key, options: PutOptions) -> Result<(), KvError> {
        if self.large.is_none() && self.buffer.len() <= INLINE_BYTES_MAX {
            let value = Vec::from(self.buffer.split().freeze());
            return self.namespace.put_whole(key, value, options).await;
        }
        if !self.buffer.is_empty() {
            self.flush().await?;
        }
        let Some(large) = &self.large else { return Err(KvError::Damaged("a value without pieces")) };
        // The lease is held until the entry has the value.
        self.namespace.put_row(key, Stored::Chunks(large.lease.value()), self.bytes, options).await
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.large.take().is_some() {
            self.namespace.kv.inner.wake.notify_one();
        }
    }
}

async fn begin(namespace: &Namespace) -> Result<Large, KvError> {
    let places = namespace.kv.places(&namespace.tenant);
    let place = Arc::clone(&places.uploads).acquire_owned().await;
    let place = place.map_err(|_| KvError::Stopped)?;
    let leases = Arc::clone(&namespace.kv.inner.leases);
    // Leased before anybody else can learn of the number.
    let lease = namespace
        .write(move |db, owner| {
            let value = table::new_value(db, owner.tenant)?;
            Leases::take(&leases, value).ok_or(KvError::Damaged("a value's number was given twice"))
        })
        .await?;
    Ok(Large { lease, chunks: 0, _place: place })
}
