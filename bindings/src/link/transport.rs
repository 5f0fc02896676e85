//! What carries a link's messages: queues inside one process, or a Unix socket between two.

use std::io;
use std::sync::{Arc, Weak};

use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use super::fault::{CloseReason, Violation};
use super::{Inner, Link};
use crate::seam::{ToGateway, ToHost};
use crate::wire::{FrameReader, WireError, write_all};

/// Messages taken from a queue at once.
const BATCH_MESSAGES: usize = 256;

/// The host's end, which the runtime consumes: the same in one process and through the wall. The link is closed when the inbox
/// ends; dropping both parts closes it from this side.
#[derive(Debug)]
pub struct HostEndpoint {
    /// What the gateway says.
    pub inbox: mpsc::UnboundedReceiver<ToHost>,
    /// What the host says.
    pub outbox: mpsc::UnboundedSender<ToGateway>,
}

#[expect(
    clippy::disallowed_methods,
    reason = "credit, limits and admission bound what each invocation may have queued; a full queue must never block the reader"
)]
fn queue<T>() -> (mpsc::UnboundedSender<T>, mpsc::UnboundedReceiver<T>) {
    mpsc::unbounded_channel()
}

/// A link whose host end is in this process. Must be called within a tokio runtime, as all three.
#[must_use]
pub fn in_process() -> (Link, HostEndpoint) {
    let (out, inbox) = queue();
    let (outbox, mut from_host) = queue::<ToGateway>();
    let inner = Inner::new(out, Handle::current());
    let weak = Arc::downgrade(&inner);
    let mut closed = inner.closed.subscribe();
    tokio::spawn(async move {
        let mut batch = Vec::with_capacity(BATCH_MESSAGES);
        loop {
            let received = tokio::select! {
                received = from_host.recv_many(&mut batch, BATCH_MESSAGES) => received,
                () = until_closed(&mut closed) => return,
            };
            let Some(inner) = weak.upgrade() else { return };
            if received == 0 {
                return inner.close(CloseReason::HostGone);
            }
            if let Err(violation) = batch.drain(..).try_for_each(|message| inner.receive(message)) {
                return inner.close(violation.into());
            }
        }
    });
    (Link { inner }, HostEndpoint { inbox, outbox })
}

/// A link whose host is the process at the other end of `stream`.
pub fn over_socket(stream: std::os::unix::net::UnixStream) -> io::Result<Link> {
    let (read, write) = split(stream)?;
    let (out, queued) = queue();
    let inner = Inner::new(out, Handle::current());
    tokio::spawn(write_to_host(queued, write, Arc::downgrade(&inner), inner.closed.subscribe()));
    tokio::spawn(read_from_host(read, Arc::downgrade(&inner), inner.closed.subscribe()));
    Ok(Link { inner })
}

/// The host end of a link, in the isolate host process. The inbox ends when the gateway is gone.
pub fn host_over_socket(stream: std::os::unix::net::UnixStream) -> io::Result<HostEndpoint> {
    let (read, write) = split(stream)?;
    let (arrived, inbox) = queue();
    let (outbox, mut queued) = queue::<ToGateway>();
    tokio::spawn(async move {
        let mut frames = FrameReader::new(read);
        loop {
            match frames.next().await {
                Ok(Some(message)) => {
                    if arrived.send(message).is_err() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => return tracing::error!(%error, "the gateway cannot be understood"),
            }
        }
    });
    tokio::spawn(async move {
        if let Err(error) = write_all(&mut queued, write).await {
            tracing::debug!(%error, "the gateway is gone");
        }
    });
    Ok(HostEndpoint { inbox, outbox })
}

fn split(stream: std::os::unix::net::UnixStream) -> io::Result<(OwnedReadHalf, OwnedWriteHalf)> {
    stream.set_nonblocking(true)?;
    Ok(UnixStream::from_std(stream)?.into_split())
}

async fn until_closed(closed: &mut watch::Receiver<Option<CloseReason>>) {
    if closed.wait_for(Option::is_some).await.is_err() {
        // Nobody holds the link any more; what is queued still goes out, and the host then closes its end.
        std::future::pending().await
    }
}

/// Applies a message and those that came with it, without going back to the socket.
fn apply(
    inner: &Arc<Inner>,
    mut message: ToGateway,
    frames: &mut FrameReader<OwnedReadHalf>,
) -> Result<(), CloseReason> {
    loop {
        inner.receive(message)?;
        match frames.buffered().map_err(|error| reason(&error))? {
            Some(next) => message = next,
            None => return Ok(()),
        }
    }
}

fn reason(error: &WireError) -> CloseReason {
    match error {
        WireError::TooLong { .. } | WireError::Malformed => CloseReason::Violation(Violation::BadFrame),
        // A host that dies while it writes leaves half a frame.
        WireError::Truncated => CloseReason::HostGone,
        WireError::Io(error) => match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => CloseReason::HostGone,
            kind => CloseReason::Socket(kind),
        },
    }
}

async fn write_to_host(
    mut queued: mpsc::UnboundedReceiver<ToHost>,
    write: OwnedWriteHalf,
    weak: Weak<Inner>,
    mut closed: watch::Receiver<Option<CloseReason>>,
) {
    let written = tokio::select! {
        written = write_all(&mut queued, write) => written,
        () = until_closed(&mut closed) => return,
    };
    if let (Err(error), Some(inner)) = (written, weak.upgrade()) {
        inner.close(reason(&error));
    }
}

async fn read_from_host(
    read: OwnedReadHalf,
    weak: Weak<Inner>,
    mut closed: watch::Receiver<Option<CloseReason>>,
) {
    let mut frames = FrameReader::new(read);
    loop {
        let next = tokio::select! {
            next = frames.next() => next,
            () = until_closed(&mut closed) => return,
        };
        let Some(inner) = weak.upgrade() else { return };
        let applied = match next {
            Ok(Some(message)) => apply(&inner, message, &mut frames),
            Ok(None) => Err(CloseReason::HostGone),
            Err(error) => Err(reason(&error)),
        };
        if let Err(reason) = applied {
            return inner.close(reason);
        }
        drop(inner);
        // A host that always has something to say must not starve the other tasks of this thread.
        tokio::task::consume_budget().await;
    }
}
