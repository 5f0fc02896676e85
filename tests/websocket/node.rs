//! A package of npm, unchanged, at the other end: `ws` as client and as server.

use serde_json::{Value, json};

use super::*;
use crate::packages::node::{NodeServer, run};
use crate::support::atoll::deployment;

/// Runs a script of Node against a worker; what it prints is JSON.
async fn node_client(script: &str, atoll: &Atoll, worker: &str, path: &str) -> Value {
    let url = format!("ws://{}{path}", atoll.address());
    let (text, errors) = run(script, &["client", &url, &host_name(TENANT, worker)]).await;
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}\n{errors}\n{}", atoll.log()))
}

/// A server whose workers may reach `far`, with one worker.
async fn site_with_far(name: &str, source: &str, far: &str) -> Guarded {
    let config = format!("[outbound]\nallow_private = [\"{far}\"]\n");
    let atoll = Guarded::start(Options { config, ..Options::default() }).await;
    let mut worker = Worker::single(name, source);
    worker.env.push(("FAR".into(), json!(far)));
    let mut body = atoll.with_given(deployment(&worker), "vars");
    body["outbound"] = json!([format!("http://{far}")]);
    let deployed = atoll.control("PUT", &format!("/v1/workers/{name}"), Some(body)).await;
    assert!(deployed.status < 300, "{}", deployed.text());
    atoll
}

#[tokio::test(flavor = "multi_thread")]
async fn ws_as_a_client_with_compression() {
    let atoll = echo_site().await;
    let got = node_client("ws.mjs", &atoll, "echo", "/").await;
    assert_eq!(got, json!(["permessage-deflate", true, true, true, true, "here?", 4003, "enough"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn ws_as_a_server_with_compression() {
    const ASKS: &str = r#"
const until = (socket, name) => new Promise((resolve) => socket.addEventListener(name, resolve, { once: true }));
export default {
  async fetch(request, env) {
    const socket = new WebSocket(`ws://${env.FAR}/`);
    await until(socket, "open");
    const got = [socket.extensions.split(";")[0]];
    const large = JSON.stringify(Array.from({ length: 20_000 }, (_, n) => ({ n, text: `row ${n}` })));
    for (const message of ["agreed", "small", large]) {
      socket.send(message);
      const { data } = await until(socket, "message");
      got.push(message === "agreed" ? data : data === message);
    }
    socket.binaryType = "arraybuffer";
    const bytes = crypto.getRandomValues(new Uint8Array(50_000));
    socket.send(bytes);
    const { data } = await until(socket, "message");
    got.push(new Uint8Array(data).every((byte, at) => byte === bytes[at]));
    socket.send("close");
    const { code, reason, wasClean } = await until(socket, "close");
    return Response.json([...got, code, reason, wasClean]);
  },
};
"#;
    let far = NodeServer::start("ws.mjs");
    let atoll = site_with_far("asks", ASKS, &far.address).await;
    let got = atoll.send("asks", &Request::new("GET", "/")).await;
    assert_eq!(got.status, 200, "{}\n{}", got.text(), atoll.log());
    let deflate = "permessage-deflate";
    assert_eq!(got.json(), json!([deflate, deflate, true, true, true, 4005, "from ws", true]));
}
