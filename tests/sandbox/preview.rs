//! Previews of ports: for whoever knows the token, and for nobody else.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::backends::{Place, on_each_backend};
use crate::support::atoll::BASE_DOMAIN;
use crate::support::client;
use crate::support::worker::Request;

/// Answers with what it was asked; a WebSocket handshake is answered with 101, and then every byte is sent back.
const PROGRAM: &str = r#"
import http.server, json, base64, hashlib
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self):
        if self.headers.get("upgrade") == "websocket":
            self.send_response(101)
            self.send_header("upgrade", "websocket"); self.send_header("connection", "Upgrade")
            key = self.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            self.send_header("sec-websocket-accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
            self.end_headers()
            while True:
                data = self.connection.recv(1000)
                if not data: return
                self.connection.sendall(data.upper())
        length = int(self.headers.get("content-length", 0))
        body = json.dumps({"method": self.command, "path": self.path, "body": self.rfile.read(length).decode(),
            "host": self.headers["host"], "auth": self.headers.get("authorization"), "x": self.headers.get("x-real-ip")}).encode()
        self.send_response(200); self.send_header("content-length", str(len(body))); self.send_header("x-own", "1"); self.end_headers()
        self.wfile.write(body)
    do_GET = do_POST = answer
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
"#;

async fn a_port_is_seen_by_its_token_until_it_is_hidden(place: Place) {
    let Some(server) = place.plain().await else { return };
    assert_eq!(server.bytes("PUT", "/v1/sandboxes/ann/files?path=web.py", PROGRAM).await.status, 200);
    let start = json!({ "command": ["python3", "web.py"], "id": "web" });
    server.control("POST", "/v1/sandboxes/ann/processes", Some(start)).await;
    let exposed = server.control("PUT", "/v1/sandboxes/ann/ports/8000", Some(json!({ "name": "web" }))).await;
    assert_eq!(exposed.status, 200, "{}", exposed.text());
    let exposed = exposed.json();
    let (token, path) = (exposed["token"].as_str().expect("text"), exposed["path"].as_str().expect("text"));
    assert!(token.len() == 32 && path == format!("/preview/{token}/"), "{exposed}");
    let host = format!("preview-{token}.{BASE_DOMAIN}");
    assert_eq!(exposed["host"], *host);
    let ready = server
        .control(
            "POST",
            "/v1/sandboxes/ann/ports/8000/wait",
            Some(json!({ "path": "/", "timeoutMs": 30_000 })),
        )
        .await;
    assert_eq!(ready.status, 204, "{}", ready.text());
    let send = async |host: &str, request: Request| {
        client::send(server.address(), host, &request).await.expect("an answer")
    };
    // By path and by host name; what only the gateway may say is not passed on.
    let by_path = send(
        BASE_DOMAIN,
        Request::new("POST", &format!("{path}a/b?c=%2F")).body("hi").header("x-real-ip", "6.6.6.6"),
    )
    .await;
    assert_eq!((by_path.status, by_path.header("x-own")), (200, Some("1")), "{}", by_path.text());
    let said = by_path.json();
    assert_eq!(
        (&said["method"], &said["path"], &said["body"], &said["x"]),
        (&json!("POST"), &json!("/a/b?c=%2F"), &json!("hi"), &Value::Null)
    );
    let by_host = send(&host, Request::new("GET", "/v1/sandboxes")).await.json();
    assert_eq!((&by_host["path"], &by_host["host"]), (&json!("/v1/sandboxes"), &json!(host)));
    websocket(&server, path).await;
    // A token is all or nothing, and leads to this port of this sandbox only.
    let mut near = token.to_owned();
    near.replace_range(31.., if near.ends_with('0') { "1" } else { "0" });
    for (host, path) in [
        (BASE_DOMAIN, format!("/preview/{near}/")),
        (BASE_DOMAIN, format!("/preview/{}/", token.to_uppercase())),
        ("127.0.0.1", "/preview//".to_owned()),
        ("127.0.0.1", "/preview/".to_owned()),
        (&*format!("preview-{near}.{BASE_DOMAIN}"), "/".to_owned()),
    ] {
        let answer = send(host, Request::new("GET", &path)).await;
        assert_eq!((answer.status, &answer.json()["code"]), (404, &json!("no_preview")), "{host}{path}");
    }
    let silent = server.control("PUT", "/v1/sandboxes/ann/ports/8001", None).await.json();
    let refused = send(BASE_DOMAIN, Request::new("GET", silent["path"].as_str().expect("text"))).await;
    assert_eq!((refused.status, &refused.json()["code"]), (502, &json!("PORT_REFUSED")));
    // Hidden; and over with its sandbox, also for a successor of the same user.
    assert_eq!(server.control("DELETE", "/v1/sandboxes/ann/ports/8000", None).await.status, 204);
    assert_eq!(send(BASE_DOMAIN, Request::new("GET", path)).await.status, 404);
    let again = server.control("PUT", "/v1/sandboxes/ann/ports/8000", None).await.json();
    assert_ne!(again["token"], exposed["token"]);
    let path = again["path"].as_str().expect("text");
    assert_eq!(send(BASE_DOMAIN, Request::new("GET", path)).await.status, 200);
    server.control("DELETE", "/v1/sandboxes/ann", None).await;
    server.out("ann", "true").await;
    assert_eq!(send(BASE_DOMAIN, Request::new("GET", path)).await.status, 404);
    server.finish();
}

async fn websocket(server: &super::Server, path: &str) {
    let mut socket = tokio::net::TcpStream::connect(server.address()).await.expect("a socket");
    let head = format!(
        "GET {path}ws HTTP/1.1\r\nhost: {BASE_DOMAIN}\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.expect("a socket");
    let (mut seen, mut buffer) = (Vec::new(), [0; 1000]);
    while !seen.windows(4).any(|four| four == b"\r\n\r\n") {
        let read = socket.read(&mut buffer).await.expect("a socket");
        assert!(read > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..read]);
    }
    let head = String::from_utf8_lossy(&seen).to_lowercase();
    assert!(head.starts_with("http/1.1 101") && head.contains("s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    socket.write_all(b"bytes both ways").await.expect("a socket");
    let mut back = [0; 15];
    socket.read_exact(&mut back).await.expect("a socket");
    assert_eq!(&back, b"BYTES BOTH WAYS");
}

on_each_backend!(a_port_is_seen_by_its_token_until_it_is_hidden,);
