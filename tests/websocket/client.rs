//! Guests that open WebSockets to servers outside, under the egress policy.

use std::net::TcpListener;

use serde_json::json;
use tungstenite::Message;
use tungstenite::handshake::server::{Request as Asked, Response as Answered};

use super::*;
use crate::support::atoll::deployment;

/// A server that echoes, and closes when told to. It refuses `/refused`.
fn far_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound listener");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

fn serve(stream: TcpStream) {
    let answer = |request: &Asked, mut answer: Answered| {
        if request.uri().path() == "/refused" {
            let body = Some("not here".to_owned());
            return Err(tungstenite::http::Response::builder().status(403).body(body).expect("a response"));
        }
        if request.headers().contains_key("sec-websocket-protocol") {
            let chosen = tungstenite::http::HeaderValue::from_static("b");
            answer.headers_mut().insert("sec-websocket-protocol", chosen);
        }
        Ok(answer)
    };
    let Ok(mut socket) = tungstenite::accept_hdr(stream, answer) else { return };
    while let Ok(message) = socket.read() {
        match message {
            Message::Text(text) if text == "close" => {
                let frame = CloseFrame { code: 4007.into(), reason: "far".into() };
                let _ = socket.close(Some(frame));
            }
            Message::Text(text) if text == "vanish" => return,
            Message::Text(_) | Message::Binary(_) if socket.send(message.clone()).is_err() => return,
            _ => {}
        }
    }
}

const DIALS: &str = r#"
const until = (socket, name) => new Promise((resolve) => socket.addEventListener(name, resolve, { once: true }));
const cases = {
  async constructor(far) {
    const socket = new WebSocket(`ws://${far}/`, ["a", "b"]);
    const before = socket.readyState;
    await until(socket, "open");
    const got = [before, socket.readyState, socket.protocol, socket.url.startsWith("ws://")];
    socket.send("hello");
    got.push((await until(socket, "message")).data);
    socket.binaryType = "arraybuffer";
    socket.send(new Uint8Array([1, 2]));
    got.push((await until(socket, "message")).data.byteLength);
    socket.send("close");
    const { code, reason, wasClean } = await until(socket, "close");
    return [...got, code, reason, wasClean, socket.readyState];
  },
  async fetch(far, scheme) {
    const response = await fetch(`${scheme ?? "http"}://${far}/`, { headers: { Upgrade: "websocket" } });
    const socket = response.webSocket;
    socket.accept();
    socket.send("hello");
    const { data } = await until(socket, "message");
    socket.close(1000, "bye");
    const { code } = await until(socket, "close");
    return [response.status, response.headers.get("upgrade"), data, code];
  },
  ws: (far) => cases.fetch(far, "ws"),
  async refused(far) {
    const response = await fetch(`http://${far}/refused`, { headers: { Upgrade: "websocket" } });
    const socket = new WebSocket(`ws://${far}/refused`);
    const [error, close] = await Promise.all([until(socket, "error"), until(socket, "close")]);
    return [response.status, await response.text(), response.webSocket, error.message.includes("403"), close.code];
  },
  async vanishes(far) {
    const socket = new WebSocket(`ws://${far}/`);
    await until(socket, "open");
    socket.send("vanish");
    const { code, wasClean } = await until(socket, "close");
    return [code, wasClean];
  },
  async denied(far) {
    const closed = until(new WebSocket(`ws://not-on-the-list.example/`), "close");
    const { code } = await closed;
    const error = await fetch(`http://not-on-the-list.example/`, { headers: { Upgrade: "websocket" } }).catch((error) => error);
    return [code, error.message];
  },
  async proxy(far, request) {
    return fetch(`http://${far}/`, request);
  },
};
export default {
  async fetch(request, env) {
    const name = new URL(request.url).pathname.slice(1);
    if (request.headers.get("upgrade") === "websocket") return cases.proxy(env.FAR, request);
    return Response.json(await cases[name](env.FAR));
  },
};
"#;

#[tokio::test(flavor = "multi_thread")]
async fn guests_open_websockets_where_their_policy_lets_them() {
    let far = far_server();
    let config = format!("[outbound]\nallow_private = [\"{far}\"]\n");
    let atoll = Guarded::start(Options { config, ..Options::default() }).await;
    let mut worker = Worker::single("dials", DIALS);
    worker.env.push(("FAR".into(), json!(far.to_string())));
    let mut body = atoll.with_given(deployment(&worker), "vars");
    body["outbound"] = json!([format!("http://{far}")]);
    let deployed = atoll.control("PUT", "/v1/workers/dials", Some(body)).await;
    assert!(deployed.status < 300, "{}", deployed.text());
    for (case, wanted) in [
        ("constructor", json!([0, 1, "b", true, "hello", 2, 4007, "far", true, 3])),
        ("fetch", json!([101, "websocket", "hello", 1000])),
        ("ws", json!([101, "websocket", "hello", 1000])),
        ("refused", json!([403, "not here", null, true, 1006])),
        ("vanishes", json!([1006, false])),
    ] {
        let got = atoll.send("dials", &Request::new("GET", &format!("/{case}"))).await;
        assert_eq!(got.status, 200, "{case}: {}\n{}", got.text(), atoll.log());
        assert_eq!(got.json(), wanted, "{case}");
    }
    let denied = atoll.send("dials", &Request::new("GET", "/denied")).await.json();
    assert_eq!(denied[0], 1006);
    assert!(denied[1].as_str().is_some_and(|text| text.starts_with("Not allowed to reach")), "{denied}");
    // From the client through the guest to the far server, without a look by the guest.
    let mut socket = connect(&atoll, "dials", "/");
    let large = "y".repeat(2 << 20);
    socket.send(Message::text(large.clone())).unwrap();
    assert!(next(&mut socket) == format!("text {large}"));
    socket.send(Message::text("close")).unwrap();
    assert_eq!(next(&mut socket), "close 4007 far");
    drop(socket);
    // The bytes of its messages are in both records, those of the client's side and those of the far one.
    let (sent, received) = (large.len() + "close".len(), large.len());
    for kind in ["execution", "crossing"] {
        let record = record_of(&atoll, kind, sent).await;
        assert_eq!(record["responseBytes"], json!(received), "{record}");
        assert_eq!(
            record["outcome"],
            json!(if kind == "execution" { "done" } else { "answered" }),
            "{record}"
        );
    }
}

/// Waits for the audit record of this kind with so many bytes sent.
async fn record_of(atoll: &Atoll, kind: &str, sent: usize) -> serde_json::Value {
    let mut page = json!(null);
    for _ in 0..600 {
        page = atoll.control("GET", &format!("/v1/audit?kind={kind}"), None).await.json();
        let records = page["records"].as_array().expect("records");
        if let Some(record) = records.iter().find(|record| record["requestBytes"] == json!(sent)) {
            return record.clone();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("no {kind} with {sent} bytes: {page}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_outbound_gets_the_text_of_workers() {
    let mut worker = Worker::single("dials", DIALS);
    worker.env.push(("FAR".into(), json!("127.0.0.1:1")));
    let atoll = site(Options::default(), &worker).await;
    let denied = atoll.send("dials", &Request::new("GET", "/denied")).await.json();
    assert_eq!(denied[0], 1006);
    let text = "This worker is not permitted to access the internet via global functions like fetch().";
    assert!(denied[1].as_str().is_some_and(|got| got.starts_with(text)), "{denied}");
}
