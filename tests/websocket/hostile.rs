//! Peers and guests that mean harm: each ends with its code, in bounded memory, and the neighbour is served.

use serde_json::json;
use tungstenite::Message;

use super::*;
use crate::support::atoll::NEIGHBOUR;
use crate::support::atoll::NEIGHBOUR_TOKEN;

/// Growth of the gateway's resident memory that one bad peer or guest may cause, in KiB.
const GROWTH_KIB_MAX: u64 = 64 * 1024;

/// Memory of the gateway alone, in KiB: what guests take is theirs.
fn resident_kib(atoll: &Atoll) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", atoll.pid())).expect("the gateway lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line of its memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn masked(first: u8, length: &[u8], payload: &[u8]) -> Vec<u8> {
    // A mask of zeros changes nothing.
    [&[first][..], length, &[0; 4], payload].concat()
}

/// A connection whose handshake is done, for frames by hand.
fn raw(atoll: &Atoll, worker: &str) -> Line {
    let mut stream = dial(atoll.address());
    let head = format!(
        "GET / HTTP/1.1\r\nhost: {}\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-extensions: permessage-deflate\r\n\r\n",
        host_name(TENANT, worker)
    );
    stream.write_all(head.as_bytes()).expect("the server reads");
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("an answer");
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
    stream
}

/// The code of the Close frame that comes next, past echoes of small messages.
fn close_code(stream: &mut Line) -> u16 {
    loop {
        let mut head = [0; 2];
        stream.read_exact(&mut head).expect("a frame");
        let mut payload = vec![0; usize::from(head[1] & 0x7f)];
        stream.read_exact(&mut payload).expect("its payload");
        if head[0] == 0x88 {
            return u16::from_be_bytes([payload[0], payload[1]]);
        }
    }
}

async fn neighbour_is_served(atoll: &Atoll) {
    atoll
        .deploy_as(
            NEIGHBOUR_TOKEN,
            &Worker::single("next-door", "export default { fetch: () => new Response('here') }"),
        )
        .await;
    let answer = atoll.send_to(NEIGHBOUR, "next-door", &Request::new("GET", "/")).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "here"));
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_break_the_protocol_close_with_their_code() {
    let atoll = echo_site().await;
    let bomb = {
        let mut bomb = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        for _ in 0..256 {
            bomb.write_all(&vec![0; 1 << 20]).expect("memory");
        }
        bomb.flush().expect("memory");
        bomb.get_ref().clone()
    };
    assert!(bomb.len() < 1 << 20, "256 MiB in {} bytes", bomb.len());
    let bomb_length = [&[0xff][..], &(bomb.len() as u64).to_be_bytes()].concat();
    let before = resident_kib(&atoll);
    for (what, bytes, code) in [
        ("unmasked", b"\x81\x01a".to_vec(), 1002),
        ("a fragmented ping", masked(0x09, &[0x80], b""), 1002),
        ("a long ping", masked(0x89, &[0xfe, 0, 126], &[0; 126]), 1002),
        ("a reserved opcode", masked(0x83, &[0x80], b""), 1002),
        ("a reserved bit", masked(0xa1, &[0x80], b""), 1002),
        ("a continuation of nothing", masked(0x80, &[0x80], b""), 1002),
        ("bad text", masked(0x81, &[0x81], b"\xff"), 1007),
        ("a frame of a tebibyte", masked(0x82, &[0xff, 0, 0, 1, 0, 0, 0, 0, 0], b""), 1009),
        ("a compression bomb", masked(0xc2, &bomb_length, &bomb), 1009),
    ] {
        let mut stream = raw(&atoll, "echo");
        stream.write_all(&bytes).expect("the server reads");
        assert_eq!(close_code(&mut stream), code, "{what}\n{}", atoll.log());
    }
    let growth = resident_kib(&atoll).saturating_sub(before);
    assert!(growth < GROWTH_KIB_MAX, "the gateway grew by {growth} KiB");
    neighbour_is_served(&atoll).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_an_upstream_says_back_is_masked_in_a_message() {
    let atoll = echo_site().await;
    let mut socket = connect(&atoll, "echo", "/");
    for _ in 0..3 {
        socket.send(Message::text("vault")).expect("the server reads");
        let said = next(&mut socket);
        assert!(
            said.starts_with("text GET ") && said.contains("****") && said.ends_with("the end"),
            "{said}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_tiny_messages_come_back() {
    const MESSAGES: usize = 100_000;
    let options = Options { tenant: "limits = { cpu_ms = 60000 }".into(), ..Options::default() };
    let atoll = site(options, &Worker::single("echo", ECHO)).await;
    let before = resident_kib(&atoll);
    let mut stream = raw(&atoll, "echo");
    let mut writer = stream.try_clone().expect("a socket");
    let writing = std::thread::spawn(move || {
        let many = masked(0x81, &[0x81], b"x").repeat(100);
        for _ in 0..MESSAGES / 100 {
            writer.write_all(&many).expect("the server reads");
        }
    });
    let mut echoes = vec![0; 3 * MESSAGES];
    stream.read_exact(&mut echoes).expect("every echo");
    assert!(echoes.chunks(3).all(|echo| echo == b"\x81\x01x"));
    writing.join().expect("the writer");
    let growth = resident_kib(&atoll).saturating_sub(before);
    assert!(growth < GROWTH_KIB_MAX, "the gateway grew by {growth} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_floods_a_client_that_does_not_read_is_told_to_stop() {
    const FLOODS: &str = r#"
const seen = [];
export default {
  fetch(request) {
    if (new URL(request.url).pathname === "/seen") return Response.json(seen);
    const [client, server] = Object.values(new WebSocketPair());
    server.accept();
    server.addEventListener("message", () => {
      let sent = 0;
      try {
        for (;; sent++) server.send(new Uint8Array(1 << 16));
      } catch (error) {
        seen.push(error.name, sent < 2_000);
      }
    });
    return new Response(null, { status: 101, webSocket: client });
  },
};
"#;
    let atoll = site(Options::default(), &Worker::single("floods", FLOODS)).await;
    let before = resident_kib(&atoll);
    let mut stream = raw(&atoll, "floods");
    stream.write_all(&masked(0x81, &[0x81], b"x")).expect("the server reads");
    wait_until_seen(&atoll, "floods", json!(["RangeError", true])).await;
    let growth = resident_kib(&atoll).saturating_sub(before);
    assert!(growth < GROWTH_KIB_MAX, "the gateway grew by {growth} KiB");
    neighbour_is_served(&atoll).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_sockets_are_bounded_per_tenant() {
    const SOCKETS: usize = 40;
    let tenant = format!("concurrent_max = {SOCKETS}\nexecutions_max = 10");
    let atoll = site(Options { tenant, ..Options::default() }, &Worker::single("echo", ECHO)).await;
    let sockets: Vec<_> = (0..SOCKETS).map(|_| connect(&atoll, "echo", "/")).collect();
    match shake_hands(&atoll, "echo", "/", &[]) {
        Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(answer))) => {
            assert_eq!(answer.status(), 429);
        }
        other => panic!("{other:?}"),
    }
    neighbour_is_served(&atoll).await;
    drop(sockets);
    // Their places are free once they are over.
    for _ in 0..600 {
        if shake_hands(&atoll, "echo", "/", &[]).is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("no place became free\n{}", atoll.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_never_accepts_takes_no_more_than_credit() {
    const NEVER: &str = r#"
let kept;
export default {
  fetch() {
    const [client, server] = Object.values(new WebSocketPair());
    kept = server;
    return new Response(null, { status: 101, webSocket: client });
  },
};
"#;
    let atoll = site(Options::default(), &Worker::single("never", NEVER)).await;
    let before = resident_kib(&atoll);
    let mut stream = raw(&atoll, "never");
    stream.set_write_timeout(Some(Duration::from_secs(2))).expect("a socket");
    let many = masked(0x82, &[0xff, 0, 0, 0, 0, 0, 1, 0, 0], &[0; 1 << 16]);
    let taken = (0..4_000).take_while(|_| stream.write_all(&many).is_ok()).count();
    assert!(taken < 1_000, "the client was held up after {taken} messages");
    let growth = resident_kib(&atoll).saturating_sub(before);
    assert!(growth < GROWTH_KIB_MAX, "the gateway grew by {growth} KiB");
    drop(stream);
    neighbour_is_served(&atoll).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_stopped_in_the_middle_of_a_message_ends_its_sockets() {
    const STOPS: &str = r#"
export default {
  fetch() {
    const [client, server] = Object.values(new WebSocketPair());
    server.accept();
    server.addEventListener("message", () => {
      // More than credit lets out at once, so half of it is on its way when the isolate ends.
      server.send(new Uint8Array(8 << 20));
      for (;;);
    });
    return new Response(null, { status: 101, webSocket: client });
  },
};
"#;
    let atoll = site(Options::default(), &Worker::single("stops", STOPS)).await;
    let mut socket = connect(&atoll, "stops", "/");
    socket.send(Message::text("go")).expect("the server reads");
    std::thread::sleep(Duration::from_millis(100));
    let end = next(&mut socket);
    assert!(end.starts_with("error") || end.starts_with("close 1011") || end.starts_with("binary"), "{end}");
    neighbour_is_served(&atoll).await;
    let mut socket = connect(&atoll, "stops", "/");
    socket.close(None).expect("a new isolate serves");
    assert_eq!(next(&mut socket), "close");
}
