//! Workers that answer with a WebSocket, and the handshake in front of them.

use serde_json::json;
use tungstenite::protocol::CloseFrame;
use tungstenite::{HandshakeError, Message};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn messages_come_back_as_they_went() {
    let atoll = echo_site().await;
    let mut socket = connect(&atoll, "echo", "/");
    let large = "ä".repeat(3 << 20);
    for (message, wanted) in [
        (Message::text("hello"), "text hello".to_owned()),
        (Message::text(""), "text ".to_owned()),
        (Message::binary(vec![0, 255, 7]), "binary b\"\\0\\xff\\x07\"".to_owned()),
        (Message::binary(vec![]), "binary b\"\"".to_owned()),
        (Message::text(large.clone()), format!("text {large}")),
    ] {
        socket.send(message).unwrap();
        assert!(next(&mut socket) == wanted);
    }
    for n in 0..1_000 {
        socket.write(Message::text(n.to_string())).unwrap();
    }
    socket.flush().unwrap();
    for n in 0..1_000 {
        assert_eq!(next(&mut socket), format!("text {n}"));
    }
    socket.send(Message::Ping("are you there".into())).unwrap();
    assert_eq!(socket.read().unwrap(), Message::Pong("are you there".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_the_largest_size_passes_and_a_larger_one_is_refused() {
    let options = Options { tenant: "limits = { external_mib = 512 }".into(), ..Options::default() };
    let atoll = site(options, &Worker::single("echo", ECHO)).await;
    let large = vec![7; atoll_loader::limits::SOCKET_MESSAGE_BYTES_MAX];
    let url = format!("ws://{}/", host_name(TENANT, "echo"));
    let address = atoll.address();
    blocking(move || {
        let open = || {
            let config =
                tungstenite::protocol::WebSocketConfig::default().max_message_size(None).max_frame_size(None);
            tungstenite::client::client_with_config(&url, dial(address), Some(config)).unwrap().0
        };
        let mut socket = open();
        socket.send(Message::binary(large.clone())).unwrap();
        assert!(socket.read().unwrap() == Message::binary(large.clone()));
        let mut socket = open();
        // The refusal comes as soon as the length is known, so sending the rest may fail.
        let _ = socket.send(Message::binary([large, vec![0]].concat()));
        assert!(next(&mut socket).starts_with("close 1009"), "too large");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_may_close_and_both_learn_the_code() {
    let atoll = echo_site().await;
    let mut socket = connect(&atoll, "echo", "/");
    socket.close(Some(CloseFrame { code: 4001.into(), reason: "done here".into() })).unwrap();
    assert_eq!(next(&mut socket), "close 4001 done here");
    let mut socket = connect(&atoll, "echo", "/");
    socket.send(Message::text("close")).unwrap();
    assert_eq!(next(&mut socket), "close 4321 as you wish");
    // The library answers with the same; the worker hears of it.
    while socket.read().is_ok() {}
    let mut socket = connect(&atoll, "echo", "/");
    socket.close(None).unwrap();
    assert_eq!(next(&mut socket), "close");
    wait_until_seen(
        &atoll,
        "echo",
        json!([[4001, "done here", true], [4321, "as you wish", true], [1005, "", true]]),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_is_1006() {
    let atoll = echo_site().await;
    let mut socket = connect(&atoll, "echo", "/");
    socket.send(Message::text("hello")).unwrap();
    assert_eq!(next(&mut socket), "text hello");
    drop(socket);
    let gone = json!([[1006, "WebSocket disconnected without sending Close frame.", false]]);
    wait_until_seen(&atoll, "echo", gone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subprotocol_must_be_one_that_was_offered() {
    let atoll = echo_site().await;
    let offered = [("sec-websocket-protocol", "chat, superchat")];
    let (_, answer) = shake_hands(&atoll, "echo", "/?protocol=superchat", &offered).unwrap();
    assert_eq!(answer.headers()["sec-websocket-protocol"], "superchat");
    match shake_hands(&atoll, "echo", "/?protocol=other", &offered) {
        Err(HandshakeError::Failure(tungstenite::Error::Http(answer))) => assert_eq!(answer.status(), 500),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn compression_is_agreed_on_when_the_client_offers_it() {
    let atoll = echo_site().await;
    let head = |extensions: &str| {
        format!(
            "GET / HTTP/1.1\r\nhost: {}\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{extensions}\r\n",
            host_name(TENANT, "echo")
        )
    };
    // A close after the head ends the exchange.
    let close = "\u{8}\0"; // half of a Close, which is none: the server closes
    let plain = exchange(atoll.address(), &format!("{}{close}", head("")));
    assert!(plain.starts_with("HTTP/1.1 101 "), "{plain}");
    assert!(plain.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{plain}");
    assert!(!plain.contains("permessage-deflate"), "{plain}");
    let offer = "sec-websocket-extensions: permessage-deflate; client_max_window_bits\r\n";
    let answer = exchange(atoll.address(), &format!("{}{close}", head(offer)));
    assert!(answer.contains("sec-websocket-extensions: permessage-deflate;"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_are_none_are_refused_and_their_connection_closes() {
    let atoll = echo_site().await;
    let host = host_name(TENANT, "echo");
    let start = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: upgrade\r\nupgrade: websocket\r\n");
    let key = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let version = "sec-websocket-version: 13\r\n";
    for (head, status) in [
        (format!("{start}{key}sec-websocket-version: 8\r\n\r\n"), "426"),
        (format!("{start}{key}\r\n"), "426"),
        (format!("{start}{version}\r\n"), "400"),
        (format!("{start}{version}{key}{key}\r\n"), "400"),
        (format!("{start}{version}{key}sec-websocket-protocol: a b\r\n\r\n"), "400"),
        (format!("{start}{version}{key}content-length: 1\r\n\r\nx"), "400"),
        (format!("{}{version}{key}\r\n", start.replace("GET", "POST")), "400"),
        (format!("{}{version}{key}\r\n", start.replace("GET /", "GET /plain")), "200"),
        (format!("{}{version}{key}\r\n", start.replace("GET /", "GET /throw")), "500"),
    ] {
        // What follows looks like a request, and must never be one.
        let answer = exchange(atoll.address(), &format!("{head}GET /plain HTTP/1.1\r\nhost: {host}\r\n\r\n"));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head}{answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "nothing passed behind it: {head}{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
    }
    let other = exchange(
        atoll.address(),
        &format!("GET / HTTP/1.1\r\nhost: {host}\r\nupgrade: websocket\r\nconnection: close\r\n\r\n"),
    );
    assert!(other.starts_with("HTTP/1.1 500 "), "a socket that nobody asked for: {other}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_an_accepted_handshake_is_frames_only() {
    let atoll = echo_site().await;
    let host = host_name(TENANT, "echo");
    let head = format!(
        "GET / HTTP/1.1\r\nhost: {host}\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let answer = exchange(atoll.address(), &format!("{head}GET /plain HTTP/1.1\r\nhost: {host}\r\n\r\n"));
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(!answer.contains("no socket here"), "{answer}");
    assert!(answer.contains("a frame of no known kind"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_says_going_away() {
    let mut atoll = echo_site().await;
    let mut socket = connect(&atoll, "echo", "/");
    socket.send(Message::text("hello")).unwrap();
    assert_eq!(next(&mut socket), "text hello");
    let reading = std::thread::spawn(move || next(&mut socket));
    atoll.restart().await;
    assert_eq!(reading.join().unwrap(), "close 1001 the server is going away");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_has_a_cpu_budget_of_its_own() {
    const BUSY: &str = r#"
export default {
  fetch() {
    const [client, server] = Object.values(new WebSocketPair());
    server.accept();
    server.addEventListener("message", ({ data }) => {
      let n = 0;
      for (const until = performance.now(); n < 4e7; n++);
      if (data === "for ever") for (;;);
      server.send("done");
    });
    return new Response(null, { status: 101, webSocket: client });
  },
};
"#;
    let options = Options { tenant: "limits = { cpu_ms = 400 }".into(), ..Options::default() };
    let atoll = site(options, &Worker::single("busy", BUSY)).await;
    let mut socket = connect(&atoll, "busy", "/");
    for _ in 0..100 {
        socket.send(Message::text("work")).unwrap();
        assert_eq!(next(&mut socket), "text done", "{}", atoll.log());
    }
    socket.send(Message::text("for ever")).unwrap();
    assert_eq!(next(&mut socket), "close 1011 the worker ended");
}
