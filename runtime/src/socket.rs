//! WebSockets in an isolate: messages from the bodies that carry them, whose memory and whose time they take.
//!
//! Memory: what waits to be sent, and a message that is being put together, are charged to the isolate like array buffers.
//! Time: while an invocation holds a WebSocket, each message in either direction moves its wall deadline to
//! [`OPEN_MS`] from now; the gateway closes a silent socket before that. A message from a client of the gateway also begins a
//! CPU budget of its own, as a request would: the total is still told in the invocation's usage. Messages from other isolates
//! begin none, or a worker could give one that it loaded any amount of time.

use std::sync::Arc;

use atoll_bindings::seam::{BodyStep, Headers};
use atoll_bindings::socket::parts::{Assembler, Message};
use atoll_loader::limits::{SOCKET_IDLE_MS_MAX, SOCKET_MESSAGE_BYTES_MAX};
use bytes::Bytes;

use crate::memory::External;
use crate::message::Peer;
use crate::state::{BodyForm, IsolateState, Wake};
use crate::stream::Room;
use crate::watchdog::now_us;

/// How long an invocation with a WebSocket may run after a message, in milliseconds: longer than the gateway lets it be idle.
const OPEN_MS: u64 = SOCKET_IDLE_MS_MAX + 60_000;
/// The deadline is moved only when it is this much behind, in milliseconds, so that messages cost no look at all invocations.
const OPEN_STEP_MS: u64 = 30_000;
const _: () = assert!(OPEN_STEP_MS < OPEN_MS - SOCKET_IDLE_MS_MAX);
/// Most bytes that one socket may have waiting to be sent: one message of the largest size, and some others.
const QUEUED_BYTES_MAX: usize = SOCKET_MESSAGE_BYTES_MAX + SOCKET_MESSAGE_BYTES_MAX / 8;

/// Bytes charged to an isolate's external memory until they are released or this is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    external: Arc<External>,
    bytes: usize,
}

impl Charge {
    fn new(external: &Arc<External>) -> Self {
        Self { external: Arc::clone(external), bytes: 0 }
    }

    /// False if the isolate may not have that much.
    fn take(&mut self, bytes: usize) -> bool {
        let taken = self.external.reserve(bytes);
        self.bytes += if taken { bytes } else { 0 };
        taken
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives back this much, or all if it is less.
    pub(crate) fn give_back(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.external.release(bytes);
        self.bytes -= bytes;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

/// Puts messages together.
#[derive(Debug)]
pub(crate) struct Incoming {
    assembler: Assembler,
    charge: Charge,
}

/// What reading a socket gave.
#[derive(Debug)]
pub(crate) enum Taken {
    Message(Message),
    Wait,
    /// Without a close.
    Ended,
    Failed(String),
}

/// Whether a request asks for a WebSocket: its body is then what the caller sends through it.
pub(crate) fn asks_for_socket(method: &str, headers: &Headers) -> bool {
    let wants = |value: &Bytes| value.trim_ascii().eq_ignore_ascii_case(b"websocket");
    method == "GET" && headers.iter().any(|(name, value)| &**name == "upgrade" && wants(value))
}

impl IsolateState {
    /// Keeps the body of a request that asks for a WebSocket until it is answered; the guest sees none.
    pub(crate) fn hold_socket(&mut self, owner: u32, body: BodyForm) -> BodyForm {
        if let (BodyForm::Native { number, .. }, Some(running)) = (&body, self.running.get_mut(&owner)) {
            running.socket_in = Some(*number);
        }
        BodyForm::Empty
    }

    /// The next message of an inbound stream that carries a WebSocket.
    pub(crate) fn socket_next(&mut self, number: u32) -> Taken {
        let external = Arc::clone(&self.external);
        let Some((owner, inbound)) = self.inbound.get_mut(&number) else {
            return Taken::Failed("The WebSocket belongs to a request that is over.".into());
        };
        let owner = *owner;
        let mut socket = inbound.socket.take().unwrap_or_else(|| {
            Box::new(Incoming { assembler: Assembler::default(), charge: Charge::new(&external) })
        });
        let taken = loop {
            match socket.assembler.take() {
                Err(fail) => break Taken::Failed(fail.to_string()),
                Ok(Some(message)) => break Taken::Message(message),
                Ok(None) => {}
            }
            match inbound.take() {
                // Twice: a message that grows is moved, and both places exist for a moment.
                Some(bytes) if !socket.charge.take(2 * bytes.len()) => {
                    break Taken::Failed("The message does not fit into the worker's memory.".into());
                }
                Some(bytes) => socket.assembler.push(bytes),
                None => match inbound.ended {
                    Some(_) => break Taken::Ended,
                    None => break Taken::Wait,
                },
            }
        };
        match &taken {
            Taken::Wait => inbound.waiting = true,
            Taken::Message(message) => {
                if !socket.assembler.has_input() {
                    socket.charge.give_back(usize::MAX);
                }
                inbound.socket = Some(socket);
                if !matches!(message, Message::Close(_)) {
                    self.wakes.push((number, Wake::Stream));
                }
                self.touch_socket(owner);
                return taken;
            }
            Taken::Ended | Taken::Failed(_) => {}
        }
        inbound.socket = Some(socket);
        taken
    }

    /// Whether this much more may wait to be sent on a socket.
    pub(crate) fn socket_reserve(&mut self, number: u32, bytes: usize) -> bool {
        let external = Arc::clone(&self.external);
        let Some((_, outbound)) = self.outbound.get_mut(&number) else { return false };
        if outbound.pending_bytes().saturating_add(bytes) > QUEUED_BYTES_MAX {
            return false;
        }
        outbound.charge.get_or_insert_with(|| Charge::new(&external)).take(bytes)
    }

    pub(crate) fn socket_write(&mut self, number: u32, part: &Bytes) -> Room {
        let Some((owner, outbound)) = self.outbound.get_mut(&number) else { return Room::Never };
        let owner = *owner;
        let room = outbound.write(part);
        self.after_outbound(number);
        self.touch_socket(owner);
        room
    }

    pub(crate) fn socket_end(&mut self, number: u32, step: BodyStep) {
        if let Some((_, outbound)) = self.outbound.get_mut(&number) {
            outbound.end(step);
        }
        self.after_outbound(number);
    }

    /// From now on everything that arrives on `from` goes to `to`.
    pub(crate) fn splice(&mut self, from: u32, to: u32) {
        if let Some((_, inbound)) = self.inbound.get_mut(&from) {
            inbound.forward = Some(to);
            inbound.keeps_open = true;
        }
        self.forward(from);
    }

    /// A message passed: its invocation may go on for as long as a socket may be silent.
    pub(crate) fn touch_socket(&mut self, owner: u32) {
        let now = now_us();
        let Some(running) = self.running.get_mut(&owner).filter(|running| running.socket_open) else {
            return;
        };
        if running.wall_deadline_us < now + (OPEN_MS - OPEN_STEP_MS) * 1_000 {
            running.wall_deadline_us = now + OPEN_MS * 1_000;
            self.watch_wall();
        }
    }

    /// An invocation answered with a WebSocket.
    pub(crate) fn socket_opened(&mut self, owner: u32) {
        if let Some(running) = self.running.get_mut(&owner) {
            running.socket_open = true;
        }
        self.touch_socket(owner);
    }

    /// JavaScript is about to hear of news on a stream: if it is a socket's, its invocation pays.
    pub(crate) fn socket_turn(&mut self, number: u32) {
        let Some((owner, inbound)) = self.inbound.get(&number) else { return };
        if inbound.socket.is_none() {
            return;
        }
        let (owner, from_client) = (*owner, matches!(inbound.route.peer, Peer::Gateway(_)));
        self.current = owner;
        if let Some(running) = self.running.get_mut(&owner)
            && from_client
            && running.socket_open
        {
            running.usage.cpu_us += std::mem::take(&mut running.cpu_us);
        }
    }
}
