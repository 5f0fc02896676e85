//! How bodies enter, leave and pass through an isolate.

use atoll_bindings::seam::{Body, BodyFrame, BodyStep, InvocationId, LimitKind, Outcome};
use atoll_loader::limits::BODY_INLINE_BYTES_MAX;
use bytes::Bytes;

use crate::message::Peer;
use crate::state::{BodyForm, IsolateState, Wake};
use crate::stream::{Inbound, Outbound, Room, Route};

/// A body that leaves, as JavaScript hands it over.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Empty,
    Bytes(Bytes),
    /// An inbound stream that nothing has read: it is spliced.
    Native {
        number: u32,
        length: Option<u64>,
    },
    /// The same, however little lies in it: one half of a WebSocket.
    Splice {
        number: u32,
    },
    /// An outbound stream that JavaScript writes to.
    Stream {
        number: u32,
        length: Option<u64>,
    },
}

/// A stream whose announcement must be sent before its bytes: give it to [`IsolateState::launch`] then.
#[derive(Debug)]
pub(crate) struct Launch {
    number: u32,
    forwarded_from: Option<u32>,
    route: Route,
}

impl IsolateState {
    /// A body that arrives from `peer` under `invocation`.
    pub(crate) fn accept(
        &mut self,
        owner: u32,
        peer: &Peer,
        invocation: InvocationId,
        body: Body,
    ) -> BodyForm {
        match body {
            Body::Empty => BodyForm::Empty,
            Body::Inline(bytes) => BodyForm::Bytes(bytes),
            Body::Stream { id, length } => {
                let number = self.next_number();
                let route = Route { peer: peer.clone(), invocation, stream: id };
                self.streams_in.insert((invocation, id), number);
                self.inbound.insert(number, (owner, Inbound::new(route)));
                BodyForm::Native { number, length }
            }
        }
    }

    /// An outbound stream that JavaScript will write to, or that carries `bytes` alone.
    pub(crate) fn open_outbound(&mut self, owner: u32) -> u32 {
        let number = self.next_number();
        self.outbound.insert(number, (owner, Outbound::new()));
        number
    }

    /// How a body will be announced, and what must follow the announcement. `bytes_max` bounds a response.
    pub(crate) fn announce(
        &mut self,
        owner: u32,
        outgoing: Outgoing,
        response_bytes_max: Option<u64>,
        route: impl FnOnce(&mut Self) -> Route,
    ) -> (Body, Option<Launch>) {
        let (number, length, forwarded_from) = match outgoing {
            Outgoing::Empty => return (Body::Empty, None),
            Outgoing::Bytes(bytes) if bytes.len() <= BODY_INLINE_BYTES_MAX => {
                return (Body::Inline(bytes), None);
            }
            Outgoing::Bytes(bytes) => {
                let number = self.open_outbound(owner);
                if let Some((_, outbound)) = self.outbound.get_mut(&number) {
                    outbound.write(&bytes);
                    outbound.end(BodyStep::End);
                }
                (number, Some(bytes.len() as u64), None)
            }
            Outgoing::Native { number: from, length } => {
                if let Some(bytes) = self.whole(from) {
                    return (Body::Inline(bytes), None);
                }
                (self.open_outbound(owner), length, Some(from))
            }
            Outgoing::Splice { number: from } => {
                if let Some((_, inbound)) = self.inbound.get_mut(&from) {
                    inbound.keeps_open = true;
                }
                (self.open_outbound(owner), None, Some(from))
            }
            Outgoing::Stream { number, length } => (number, length, None),
        };
        if let Some((_, outbound)) = self.outbound.get_mut(&number) {
            outbound.response_bytes_max = response_bytes_max;
        }
        let route = route(self);
        let id = route.stream;
        self.host.remember_stream(&route, &self.me);
        self.streams_out.insert((route.invocation, id), number);
        (Body::Stream { id, length }, Some(Launch { number, forwarded_from, route }))
    }

    /// Lets an announced body flow.
    pub(crate) fn launch(&mut self, launch: Option<Launch>) {
        let Some(Launch { number, forwarded_from, route }) = launch else { return };
        if let Some((_, outbound)) = self.outbound.get_mut(&number) {
            outbound.attach(route);
        }
        match forwarded_from {
            Some(from) => {
                if let Some((_, inbound)) = self.inbound.get_mut(&from) {
                    inbound.forward = Some(number);
                }
                self.forward(from);
            }
            None => self.after_outbound(number),
        }
    }

    /// An incoming body that already lies here whole and small, taken.
    fn whole(&mut self, number: u32) -> Option<Bytes> {
        let (_, inbound) = self.inbound.get_mut(&number)?;
        if inbound.ended != Some(Ok(())) || inbound.queue.len() > 1 {
            return None;
        }
        let small = inbound.queue.front().is_none_or(|bytes| bytes.len() <= BODY_INLINE_BYTES_MAX);
        small.then(|| inbound.take().unwrap_or_default())
    }

    /// Moves what has arrived on a forwarded stream, in step with what its outbound can take.
    pub(crate) fn forward(&mut self, from: u32) {
        let Some((_, inbound)) = self.inbound.get_mut(&from) else { return };
        let Some(to) = inbound.forward else { return };
        let Some((_, outbound)) = self.outbound.get_mut(&to) else { return };
        while outbound.room() == Room::Yes {
            let Some(bytes) = inbound.take() else { break };
            outbound.write(&bytes);
        }
        if outbound.stopped && inbound.ended.is_none() {
            inbound.route.send(BodyStep::Stop);
            inbound.ended = Some(Ok(()));
        } else if inbound.queue.is_empty() {
            match inbound.ended.take() {
                Some(Ok(())) => outbound.end(BodyStep::End),
                Some(Err(reason)) => outbound.end(BodyStep::Abort(reason)),
                None => {}
            }
        }
        self.after_outbound(to);
    }

    /// Looks at an outbound stream after it moved: limits, waiters, end of its invocation.
    pub(crate) fn after_outbound(&mut self, number: u32) {
        let Some((owner, outbound)) = self.outbound.get_mut(&number) else { return };
        let owner = *owner;
        if outbound.over_limit() {
            self.finish(owner, Outcome::Limit(LimitKind::ResponseBytes));
            return;
        }
        if outbound.waiting && outbound.room() != Room::NotYet {
            outbound.waiting = false;
            self.wakes.push((number, Wake::Stream));
        }
        if outbound.finished
            && let Some((_, outbound)) = self.outbound.remove(&number)
            && let Some(route) = outbound.route
        {
            self.streams_out.remove(&(route.invocation, route.stream));
            self.host.forget_stream(&route);
            if outbound.response_bytes_max.is_some()
                && let Some(running) = self.running.get_mut(&owner)
            {
                running.open_bodies = running.open_bodies.saturating_sub(1);
                self.finish_if_idle(owner);
            }
        }
    }

    /// A body frame from a peer.
    pub(crate) fn body_frame(&mut self, frame: BodyFrame) {
        let key = (frame.invocation, frame.stream);
        let streams = match frame.step {
            BodyStep::Credit(_) | BodyStep::Stop => &self.streams_out,
            BodyStep::Data(_) | BodyStep::End | BodyStep::Abort(_) => &self.streams_in,
        };
        let Some(&number) = streams.get(&key) else { return };
        match frame.step {
            BodyStep::Credit(bytes) => {
                if let Some((_, outbound)) = self.outbound.get_mut(&number) {
                    outbound.credit(bytes as usize);
                }
                self.after_credit(number);
            }
            BodyStep::Stop => {
                if let Some((_, outbound)) = self.outbound.get_mut(&number) {
                    outbound.waiting = false;
                    outbound.stop();
                }
                self.after_credit(number);
                // Whoever pumps into it may be waiting for its source, and not for room.
                self.wakes.push((number, Wake::Stream));
            }
            step => self.body_arrived(number, step),
        }
    }

    /// Credit may let a forwarded body go on.
    fn after_credit(&mut self, number: u32) {
        let source = self
            .inbound
            .iter()
            .find(|(_, (_, inbound))| inbound.forward == Some(number))
            .map(|(from, _)| *from);
        match source {
            Some(from) => self.forward(from),
            None => self.after_outbound(number),
        }
    }

    fn body_arrived(&mut self, number: u32, step: BodyStep) {
        let Some((owner, inbound)) = self.inbound.get_mut(&number) else { return };
        match step {
            BodyStep::Data(bytes) => inbound.queue.push_back(bytes),
            BodyStep::End => inbound.ended = Some(Ok(())),
            BodyStep::Abort(reason) => inbound.ended = Some(Err(reason)),
            BodyStep::Credit(_) | BodyStep::Stop => {}
        }
        if inbound.forward.is_some() {
            let keeps_open = inbound.keeps_open.then_some(*owner);
            self.forward(number);
            if let Some(owner) = keeps_open {
                self.touch_socket(owner);
            }
        } else if std::mem::take(&mut inbound.waiting) {
            self.wakes.push((number, Wake::Stream));
        }
    }
}
