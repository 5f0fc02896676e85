//! The owner's handle on one invocation.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::Inner;
use super::inlet::{GuestBody, step};
use super::invocation::{Ended, Invocation, RawAnswer, RawBody};
use crate::seam::{BodyStep, InvocationId, LogLine, ToHost};

/// What a worker answered.
#[derive(Debug)]
pub enum Answer {
    /// To `Fetch`. A reason phrase of the guest's own is a [`crate::channel::ReplyMeta`] in the extensions.
    Response(http::Response<GuestBody>),
    /// To `Scheduled` and `Execute`: JSON text.
    Value(String),
}

/// An invocation in flight. Dropping it before the end cancels everything under it.
pub struct Running {
    link: Arc<Inner>,
    invocation: Arc<Invocation>,
}

impl Running {
    pub(super) fn new(link: Arc<Inner>, invocation: Arc<Invocation>) -> Self {
        Self { link, invocation }
    }

    /// Its number on its link.
    #[must_use]
    pub fn id(&self) -> InvocationId {
        self.invocation.id
    }

    /// Waits for the answer, or for the end if none comes. Cancel safe. The answer is given once; asking again waits for the
    /// end.
    pub async fn answer(&mut self) -> Result<Answer, Ended> {
        let answer = poll_fn(|cx| self.invocation.poll_answer(cx)).await?;
        Ok(match answer {
            RawAnswer::Value(json) => Answer::Value(json),
            RawAnswer::Response(head, RawBody::Whole(bytes)) => {
                Answer::Response(head.map(|()| GuestBody::whole(bytes)))
            }
            RawAnswer::Response(head, RawBody::Stream(id, inlet)) => {
                let link = Arc::clone(&self.link);
                Answer::Response(head.map(|()| GuestBody::stream(inlet, link, self.id(), id)))
            }
        })
    }

    /// Console lines, in a bounded queue that ends with the invocation. What does not fit is dropped and counted, and the next
    /// line is marked. `None` if taken before.
    pub fn take_logs(&mut self) -> Option<mpsc::Receiver<LogLine>> {
        self.invocation.lock().logs.take()
    }

    /// Console lines dropped so far.
    #[must_use]
    pub fn logs_dropped(&self) -> u32 {
        self.invocation.lock().logs.dropped()
    }

    /// The end, if it came already.
    #[must_use]
    pub fn poll_ended(&self) -> Option<Ended> {
        self.invocation.ended()
    }

    /// Waits for the end: the guest's last `waitUntil`, a limit, or the loss of its host. An answer that was not taken before
    /// is given up; a [`GuestBody`] that was taken goes on.
    pub async fn ended(mut self) -> Ended {
        self.until_ended().await
    }

    /// As [`Running::ended`], for an owner that keeps the handle. Cancel safe.
    pub async fn until_ended(&mut self) -> Ended {
        if let Some(stream) = self.invocation.discard_answer() {
            self.link.send(step(self.id(), stream, BodyStep::Stop));
        }
        poll_fn(|cx| self.invocation.poll_ended(cx)).await
    }

    /// Stops everything under it, as dropping does; the end, with what was used, still comes.
    pub fn cancel(&self) {
        if self.invocation.cancel() {
            self.link.send(ToHost::Cancel { invocation: self.id() });
        }
    }

    /// Whose doing it was that the host was lost with this invocation inside; `None` while the host lives.
    #[must_use]
    pub fn suspicion(&self) -> Option<Suspicion> {
        self.link.suspicion(&self.invocation)
    }
}

/// How far one invocation's tenant is to blame for the loss of its isolate host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspicion {
    /// The host was replaced because this invocation's isolate would not stop.
    Condemned,
    /// The host was lost while nobody but this tenant was inside.
    Alone,
    /// The host was lost with other tenants inside as well.
    AmongOthers,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("id", &self.id()).finish_non_exhaustive()
    }
}
