//! Relays against a peer of frames written by hand, over an in-memory connection.

use tokio::io::{DuplexStream, duplex};

use super::super::parts::{Assembler, Kind, Message, part};
use super::*;
use crate::body::RequestBody;

/// The guest's end: what it gets, and what it says.
struct Guest {
    says: Incoming,
    hears: SocketBody,
    assembler: Assembler,
}

impl Guest {
    async fn say(&self, parts: Bytes) {
        self.says.0.send(parts).await.unwrap();
    }

    /// The next message; `None` if the body ended without a close.
    async fn hear(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.assembler.take().unwrap() {
                return Some(message);
            }
            self.assembler.push(piece(Pin::new(&mut self.hears)).await?);
        }
    }
}

fn start(buffer_bytes: usize) -> (DuplexStream, Guest, tokio::task::JoinHandle<Ended>, mpsc::Sender<()>) {
    start_metered(buffer_bytes, Meter::default())
}

fn start_metered(
    buffer_bytes: usize,
    meter: Meter,
) -> (DuplexStream, Guest, tokio::task::JoinHandle<Ended>, mpsc::Sender<()>) {
    let (peer, io) = duplex(buffer_bytes);
    let (incoming_end, hears) = incoming();
    let (says, outgoing) = incoming();
    let (leave, mut left) = mpsc::channel::<()>(1);
    let relay = Relay { io, role: Role::Server, deflate: None, incoming: incoming_end, meter };
    let leave_soon = async move {
        if left.recv().await.is_none() {
            std::future::pending().await
        }
    };
    let task = tokio::spawn(relay.run(RequestBody::stream(outgoing), leave_soon));
    (peer, Guest { says, hears, assembler: Assembler::default() }, task, leave)
}

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126);
    [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0][..], payload].concat()
}

async fn expect(peer: &mut DuplexStream, bytes: &[u8]) {
    let mut got = vec![0; bytes.len()];
    peer.read_exact(&mut got).await.unwrap();
    assert_eq!(got, bytes);
}

#[tokio::test(start_paused = true)]
async fn messages_pass_are_counted_and_both_sides_close() {
    let meter = Meter::default();
    let (mut peer, mut guest, task, _leave) = start_metered(1 << 16, meter.clone());
    peer.write_all(&masked(0x81, b"hello")).await.unwrap();
    assert_eq!(guest.hear().await, Some(Message::Text(b"hello".to_vec())));
    guest.say(part(Kind::Binary, true, b"back")).await;
    expect(&mut peer, b"\x82\x04back").await;
    peer.write_all(&masked(0x89, b"ping")).await.unwrap();
    expect(&mut peer, b"\x8a\x04ping").await;
    peer.write_all(&masked(0x88, b"\x03\xe8bye")).await.unwrap();
    let close = Close { code: 1000, reason: "bye".into() };
    assert_eq!(guest.hear().await, Some(Message::Close(close.clone())));
    guest.say(close.part()).await;
    expect(&mut peer, b"\x88\x05\x03\xe8bye").await;
    drop(peer);
    assert!(task.await.unwrap().guest_finished);
    // The messages alone: no heads, no pings, no closes.
    assert_eq!((meter.from_peer.load(Relaxed), meter.to_peer.load(Relaxed)), (5, 4));
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_closes_first_still_hears_until_the_peer_closes() {
    let (mut peer, mut guest, task, _leave) = start(1 << 16);
    guest.say(Close { code: 4001, reason: String::new() }.part()).await;
    expect(&mut peer, b"\x88\x02\x0f\xa1").await;
    peer.write_all(&masked(0x81, b"late")).await.unwrap();
    assert_eq!(guest.hear().await, Some(Message::Text(b"late".to_vec())));
    peer.write_all(&masked(0x88, b"\x0f\xa1")).await.unwrap();
    assert_eq!(guest.hear().await, Some(Message::Close(Close { code: 4001, reason: String::new() })));
    drop(peer);
    assert!(task.await.unwrap().guest_finished);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_answer_a_close_is_left() {
    let (mut peer, mut guest, task, _leave) = start(1 << 16);
    guest.say(Close::NONE.part()).await;
    expect(&mut peer, b"\x88\x00").await;
    assert_eq!(guest.hear().await, None, "1006 for the guest");
    assert!(task.await.unwrap().guest_finished);
    drop(peer);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_vanishes_is_no_close() {
    let (peer, mut guest, task, _leave) = start(1 << 16);
    drop(peer);
    assert_eq!(guest.hear().await, None);
    drop(guest);
    assert!(task.await.unwrap().guest_finished, "the guest ended its side");
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_asked_and_then_left() {
    let (mut peer, mut guest, _task, _leave) = start(1 << 16);
    expect(&mut peer, b"\x89\x00").await;
    expect(&mut peer, b"\x89\x00").await;
    assert_eq!(guest.hear().await, None);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed() {
    let (mut peer, mut guest, _task, _leave) = start(1 << 16);
    let mut pings = 0;
    loop {
        let mut head = [0; 2];
        peer.read_exact(&mut head).await.unwrap();
        if head[0] != 0x89 {
            assert_eq!(head, [0x88, 6], "1001 and `idle`");
            break;
        }
        pings += 1;
        peer.write_all(&masked(0x8a, b"")).await.unwrap();
    }
    assert!(pings >= 20, "{pings}");
    expect(&mut peer, b"\x03\xe9idle").await;
    peer.write_all(&masked(0x88, b"\x03\xe9")).await.unwrap();
    assert!(matches!(guest.hear().await, Some(Message::Close(Close { code: 1001, .. }))));
}

#[tokio::test(start_paused = true)]
async fn a_breach_is_answered_with_its_code() {
    for (bytes, code) in [(&b"\x81\x01a"[..], 1002u16), (&masked(0x81, b"\xff"), 1007)] {
        let (mut peer, mut guest, task, _leave) = start(1 << 16);
        peer.write_all(bytes).await.unwrap();
        let mut head = [0; 4];
        peer.read_exact(&mut head).await.unwrap();
        assert_eq!((head[0], u16::from_be_bytes([head[2], head[3]])), (0x88, code));
        assert_eq!(guest.hear().await, None);
        drop((peer, guest));
        assert!(task.await.unwrap().guest_finished);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_goes_away_says_so() {
    let (mut peer, mut guest, task, leave) = start(1 << 16);
    leave.send(()).await.unwrap();
    let mut head = [0; 4];
    peer.read_exact(&mut head).await.unwrap();
    assert_eq!((head[0], &head[2..]), (0x88, &[3, 233][..]));
    peer.write_all(&masked(0x88, b"\x03\xe9")).await.unwrap();
    assert!(matches!(guest.hear().await, Some(Message::Close(Close { code: 1001, .. }))));
    drop((peer, guest));
    assert!(task.await.unwrap().guest_finished);
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_is_gone_closes_with_1011() {
    let (mut peer, guest, _task, _leave) = start(1 << 16);
    drop(guest);
    let mut head = [0; 4];
    peer.read_exact(&mut head).await.unwrap();
    assert_eq!((head[0], &head[2..]), (0x88, &[3, 243][..]));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_holds_little_and_is_left() {
    let (peer, guest, task, _leave) = start(1 << 10);
    let mut sent = 0;
    while guest.says.0.send(part(Kind::Binary, true, &[0; 1 << 14])).await.is_ok() {
        sent += 1;
        // The relay takes no more than the pipe and its queue hold, until it gives the peer up and drains the guest.
        assert!(sent < 5_000);
        // Time goes on only while nobody has anything to do.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!task.await.unwrap().guest_finished, "it never stopped");
    drop(peer);
}

#[tokio::test(start_paused = true)]
async fn both_may_send_much_at_once_without_reading_first() {
    let (peer, mut guest, _task, _leave) = start(1 << 12);
    let (mut from, mut to) = tokio::io::split(peer);
    let payload = vec![7; 1 << 20];
    let frame = [&[0x82, 0xff][..], &(payload.len() as u64).to_be_bytes(), &[0; 4], &payload].concat();
    let sends = tokio::spawn(async move {
        to.write_all(&frame).await.unwrap();
        to
    });
    for chunk in payload.chunks(1 << 16) {
        // A guest that writes before it reads: the peer takes it, as its own writing is another task.
        let part = part(Kind::Binary, true, chunk);
        let (said, _) = tokio::join!(guest.says.0.send(part), async {
            let mut got = vec![0; chunk.len() + 10];
            from.read_exact(&mut got).await.unwrap();
        });
        said.unwrap();
        if sends.is_finished() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let message = guest.hear().await;
    assert!(matches!(message, Some(Message::Binary(bytes)) if bytes == payload));
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_does_not_answer_a_close_is_answered_for() {
    let (mut peer, mut guest, task, _leave) = start(1 << 16);
    peer.write_all(&masked(0x88, b"\x0f\xa1")).await.unwrap();
    assert!(matches!(guest.hear().await, Some(Message::Close(_))));
    guest.say(part(Kind::Text, true, b"not yet")).await;
    expect(&mut peer, b"\x81\x07not yet\x89\x00\x89\x00\x88\x02\x0f\xa1").await;
    drop(peer);
    assert!(!task.await.unwrap().guest_finished, "it is given up");
    drop(guest);
}
