//! Bodies that flow, as one isolate sees them. Credit bounds what lies in any queue.
//!
//! ```text
//!  peer ──Data──▶ Inbound.queue ──read──▶ JavaScript        (credit is given back as it reads)
//!                      └──forward──▶ Outbound               (never touches JavaScript)
//!  JavaScript ──write──▶ Outbound.pending ──within credit──Data──▶ peer
//! ```

use std::collections::VecDeque;

use atoll_bindings::seam::{BodyFrame, BodyStep, InvocationId, StreamId};
use atoll_loader::limits::{BODY_CHUNK_BYTES_MAX, BODY_CREDIT_BYTES};
use bytes::Bytes;

use crate::message::Peer;
use crate::socket::{Charge, Incoming};

/// How to name a stream to the other side.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) peer: Peer,
    pub(crate) invocation: InvocationId,
    pub(crate) stream: StreamId,
}

impl Route {
    pub(crate) fn send(&self, step: BodyStep) {
        self.peer.body(BodyFrame { invocation: self.invocation, stream: self.stream, step });
    }
}

/// Bytes on their way in.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) route: Route,
    pub(crate) queue: VecDeque<Bytes>,
    pub(crate) ended: Option<Result<(), String>>,
    /// JavaScript waits for news.
    pub(crate) waiting: bool,
    /// Goes straight to this outbound stream.
    pub(crate) forward: Option<u32>,
    /// It carries a WebSocket that is read here.
    pub(crate) socket: Option<Box<Incoming>>,
    /// It is one half of a WebSocket that passes through: what arrives keeps the invocation going.
    pub(crate) keeps_open: bool,
}

impl Inbound {
    pub(crate) fn new(route: Route) -> Self {
        Self {
            route,
            queue: VecDeque::new(),
            ended: None,
            waiting: false,
            forward: None,
            socket: None,
            keeps_open: false,
        }
    }

    /// Takes the next bytes and lets the sender send as many more.
    pub(crate) fn take(&mut self) -> Option<Bytes> {
        let bytes = self.queue.pop_front()?;
        if self.ended.is_none() {
            self.route.send(BodyStep::Credit(u32::try_from(bytes.len()).unwrap_or(u32::MAX)));
        }
        Some(bytes)
    }
}

/// How much of a write found room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// Go on.
    Yes,
    /// Wait for credit.
    NotYet,
    /// The receiver wants no more.
    Never,
}

/// Bytes on their way out.
#[derive(Debug)]
pub(crate) struct Outbound {
    /// `None` until the message that announces it is sent.
    pub(crate) route: Option<Route>,
    credit: usize,
    pending: VecDeque<Bytes>,
    ending: Option<BodyStep>,
    pub(crate) stopped: bool,
    pub(crate) waiting: bool,
    /// Finished: everything, the end included, was sent, or the receiver stopped it.
    pub(crate) finished: bool,
    pub(crate) bytes: u64,
    /// Most bytes it may carry, if it is a response.
    pub(crate) response_bytes_max: Option<u64>,
    /// What waits here is a WebSocket's, and charged to the isolate.
    pub(crate) charge: Option<Charge>,
}

impl Outbound {
    pub(crate) fn new() -> Self {
        Self {
            route: None,
            credit: BODY_CREDIT_BYTES,
            pending: VecDeque::new(),
            ending: None,
            stopped: false,
            waiting: false,
            finished: false,
            bytes: 0,
            response_bytes_max: None,
            charge: None,
        }
    }

    /// Queues bytes and sends what credit allows.
    pub(crate) fn write(&mut self, bytes: &Bytes) -> Room {
        if self.stopped {
            return Room::Never;
        }
        self.bytes += bytes.len() as u64;
        for at in (0..bytes.len()).step_by(BODY_CHUNK_BYTES_MAX) {
            self.pending.push_back(bytes.slice(at..bytes.len().min(at + BODY_CHUNK_BYTES_MAX)));
        }
        self.flush();
        self.room()
    }

    /// Bytes that wait for credit.
    pub(crate) fn pending_bytes(&self) -> usize {
        match &self.charge {
            Some(charge) => charge.bytes(),
            None => self.pending.iter().map(Bytes::len).sum(),
        }
    }

    pub(crate) fn room(&self) -> Room {
        match () {
            () if self.stopped => Room::Never,
            () if self.pending.is_empty() => Room::Yes,
            () => Room::NotYet,
        }
    }

    /// No more bytes: `End` or `Abort`, sent after what is queued.
    pub(crate) fn end(&mut self, step: BodyStep) {
        if self.ending.is_none() && !self.finished {
            if matches!(step, BodyStep::Abort(_)) {
                self.pending.clear();
            }
            self.ending = Some(step);
            self.flush();
        }
    }

    pub(crate) fn credit(&mut self, bytes: usize) {
        // A peer that grants more than it may is bounded here.
        self.credit = self.credit.saturating_add(bytes).min(BODY_CREDIT_BYTES);
        self.flush();
    }

    pub(crate) fn stop(&mut self) {
        self.stopped = true;
        self.finished = true;
        self.pending.clear();
        self.charge = None;
    }

    pub(crate) fn attach(&mut self, route: Route) {
        self.route = Some(route);
        self.flush();
    }

    pub(crate) fn over_limit(&self) -> bool {
        self.response_bytes_max.is_some_and(|most| self.bytes > most)
    }

    fn flush(&mut self) {
        let Some(route) = &self.route else { return };
        while let Some(next) = self.pending.front_mut() {
            if self.credit == 0 {
                return;
            }
            let bytes =
                if next.len() > self.credit { next.split_to(self.credit) } else { std::mem::take(next) };
            if next.is_empty() {
                self.pending.pop_front();
            }
            self.credit -= bytes.len();
            if let Some(charge) = &mut self.charge {
                charge.give_back(bytes.len());
            }
            if !bytes.is_empty() {
                route.send(BodyStep::Data(bytes));
            }
        }
        if let Some(step) = self.ending.take() {
            route.send(step);
            self.finished = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atoll_bindings::seam::ToGateway;

    #[test]
    fn bytes_wait_for_credit_and_the_end_comes_last() {
        #[expect(clippy::disallowed_methods, reason = "a test reads it empty")]
        let (sender, mut sent) = tokio::sync::mpsc::unbounded_channel();
        let mut out = Outbound::new();
        out.attach(Route { peer: Peer::Gateway(sender), invocation: InvocationId(1), stream: StreamId(1) });
        let body = Bytes::from(vec![7; BODY_CREDIT_BYTES + 10]);
        assert_eq!(out.write(&body), Room::NotYet);
        out.end(BodyStep::End);
        assert!(!out.finished);
        out.credit(1_000);
        assert!(out.finished);
        let mut total = 0;
        let mut ended = false;
        while let Ok(ToGateway::Body(frame)) = sent.try_recv() {
            match frame.step {
                BodyStep::Data(bytes) => {
                    assert!(!ended && bytes.len() <= BODY_CHUNK_BYTES_MAX);
                    total += bytes.len();
                }
                BodyStep::End => ended = true,
                step => panic!("unexpected {step:?}"),
            }
        }
        assert_eq!((total, ended), (body.len(), true));
    }

    #[test]
    fn a_stopped_stream_takes_nothing() {
        let mut out = Outbound::new();
        out.stop();
        assert_eq!(out.write(&Bytes::from_static(b"x")), Room::Never);
        assert!(out.finished);
    }
}
