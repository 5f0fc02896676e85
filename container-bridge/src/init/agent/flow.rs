//! One operation's streams: what it sends waits for the host's credit, what it receives gives credit back.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};

use crate::{
    flow::{QUEUED_MAX, cost},
    limits::{CHUNK_BYTES_MAX, WINDOW_BYTES},
    protocol::{Channel, FromAgent, Id, WatchEvent},
};

/// The operation's own end.
pub(super) struct Flow {
    outlet: Outlet,
    input: mpsc::Receiver<Option<Vec<u8>>>,
    ended: bool,
}

/// Sends an operation's bytes; can be cloned for its several streams.
#[derive(Clone)]
pub(super) struct Outlet {
    id: Id,
    frames: mpsc::Sender<FromAgent>,
    credit: Arc<Semaphore>,
}

/// The reader's end for input.
pub(super) struct Inlet(mpsc::Sender<Option<Vec<u8>>>);

/// The reader's end for credit. When it goes, what waits for credit fails.
pub(super) struct Window(Arc<Semaphore>);

/// The operation was cancelled, or the host is gone.
#[derive(Debug)]
pub(super) struct Cancelled;

impl Drop for Window {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Flow {
    pub(super) fn new(id: Id, frames: mpsc::Sender<FromAgent>) -> (Self, Inlet, Window) {
        let credit = Arc::new(Semaphore::new(WINDOW_BYTES));
        let (sender, input) = mpsc::channel(QUEUED_MAX);
        let outlet = Outlet { id, frames, credit: Arc::clone(&credit) };
        (Self { outlet, input, ended: false }, Inlet(sender), Window(credit))
    }

    pub(super) fn id(&self) -> Id {
        self.outlet.id
    }

    pub(super) fn outlet(&self) -> Outlet {
        self.outlet.clone()
    }

    /// The next input; `None` at its end, and for ever after.
    pub(super) async fn receive(&mut self) -> Option<Vec<u8>> {
        if self.ended {
            return None;
        }
        match self.input.recv().await.flatten() {
            Some(bytes) => {
                let credit = FromAgent::Credit { id: self.outlet.id, bytes: cost(bytes.len()) };
                let _ = self.outlet.frames.send(credit).await;
                Some(bytes)
            }
            None => {
                self.ended = true;
                None
            }
        }
    }
}

impl Outlet {
    /// Sends bytes, as fast as the host takes them. Fails when nobody waits for them any more.
    pub(super) async fn send(&self, channel: Channel, bytes: &[u8]) -> Result<(), Cancelled> {
        for chunk in bytes.chunks(CHUNK_BYTES_MAX) {
            self.credit.acquire_many(cost(chunk.len())).await.map_err(|_| Cancelled)?.forget();
            let message = FromAgent::Data { id: self.id, channel, bytes: chunk.to_vec() };
            self.frames.send(message).await.map_err(|_| Cancelled)?;
        }
        Ok(())
    }

    /// The stream has ended: an empty piece, which [`send`](Self::send) never makes.
    pub(super) async fn end(&self) {
        let _ =
            self.frames.send(FromAgent::Data { id: self.id, channel: Channel::Out, bytes: Vec::new() }).await;
    }

    /// Tells that the operation is under way.
    pub(super) async fn started(&self) {
        let _ = self.frames.send(FromAgent::Started { id: self.id }).await;
    }

    /// Tells of a change in a watched directory.
    pub(super) async fn changed(&self, event: WatchEvent) {
        if let Ok(permit) = self.credit.acquire_many(cost(0)).await {
            permit.forget();
        }
        let _ = self.frames.send(FromAgent::Changed { id: self.id, event }).await;
    }
}

impl Inlet {
    /// Input from the host. Fails if there is more than credit was given for.
    pub(super) fn data(&self, bytes: Vec<u8>) -> Result<(), ()> {
        match self.0.try_send(Some(bytes)) {
            Err(mpsc::error::TrySendError::Full(_)) => Err(()),
            _ => Ok(()),
        }
    }

    /// The end of the input. Always has room: a queue is as long as the window holds frames, plus this.
    pub(super) fn end(&self) {
        let _ = self.0.try_send(None);
    }
}

impl Window {
    /// More credit. Bounded, so that a wrong number cannot overflow the count.
    pub(super) fn grant(&self, bytes: u32) {
        let room = WINDOW_BYTES.saturating_sub(self.0.available_permits());
        self.0.add_permits(room.min(bytes as usize));
    }
}
