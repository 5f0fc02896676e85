//! WebSockets that cross isolates: passed on untouched, relayed message by message, and used by one isolate alone.

use serde_json::json;
use tungstenite::Message;

use super::*;

/// A worker that loads another one, which echoes in capitals.
const PARENT: &str = r#"
const CHILD = `
export class Named { }
export default {
  fetch(request) {
    if (request.headers.get("upgrade") !== "websocket") return new Response("child");
    const [client, server] = Object.values(new WebSocketPair());
    server.accept();
    server.addEventListener("message", ({ data }) => {
      if (data === "hang up") server.close(4000, "child");
      else server.send(data.toUpperCase());
    });
    return new Response(null, { status: 101, webSocket: client, headers: { "x-from": "child" } });
  },
};`;
const load = (env) => env.LOADER.get("child", () => ({
  compatibilityDate: "2026-11-01", mainModule: "child.js", modules: { "child.js": CHILD },
})).getEntrypoint();
export default {
  async fetch(request, env, ctx) {
    const { pathname } = new URL(request.url);
    if (pathname === "/pass") return load(env).fetch(request);
    if (pathname === "/exports") return ctx.exports.default.fetch(new Request(new URL("/pass", request.url), request));
    const headers = { upgrade: "websocket" };
    const response = await load(env).fetch("https://child.example/", { headers });
    if (response.status !== 101) return new Response("no socket", { status: 502 });
    const far = response.webSocket;
    if (pathname === "/splice") return new Response(null, { status: 101, webSocket: far });
    far.accept();
    if (pathname === "/alone") {
      const heard = new Promise((resolve) => far.addEventListener("message", ({ data }) => resolve(data)));
      const closed = new Promise((resolve) => far.addEventListener("close", ({ code, reason }) => resolve([code, reason])));
      far.send("from the parent");
      const first = await heard;
      far.send("hang up");
      return Response.json([response.status, response.headers.get("x-from"), first, await closed]);
    }
    // Message by message, with something added.
    const [client, near] = Object.values(new WebSocketPair());
    near.accept();
    near.addEventListener("message", ({ data }) => far.send(data === "hang up" ? data : `${data}!`));
    far.addEventListener("message", ({ data }) => near.send(data));
    far.addEventListener("close", ({ code, reason }) => near.close(code, reason));
    near.addEventListener("close", () => far.close());
    return new Response(null, { status: 101, webSocket: client });
  },
};
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_loaded_worker_answers_with_a_websocket() {
    let atoll = site(Options::default(), &Worker::single("parent", PARENT).with_loader("LOADER")).await;
    let alone = atoll.send("parent", &Request::new("GET", "/alone")).await;
    assert_eq!(alone.status, 200, "{}\n{}", alone.text(), atoll.log());
    assert_eq!(alone.json(), json!([101, "child", "FROM THE PARENT", [4000, "child"]]));
    for (path, mark) in [("/pass", ""), ("/exports", ""), ("/splice", ""), ("/relay", "!")] {
        let mut socket = connect(&atoll, "parent", path);
        for n in 0..300 {
            socket.write(Message::text(format!("message {n}"))).unwrap();
        }
        socket.flush().unwrap();
        for n in 0..300 {
            assert_eq!(next(&mut socket), format!("text MESSAGE {n}{mark}"), "{path}\n{}", atoll.log());
        }
        let large = "x".repeat(1 << 20);
        socket.send(Message::text(large.clone())).unwrap();
        assert!(next(&mut socket) == format!("text {}{mark}", large.to_uppercase()), "{path}");
        socket.send(Message::text("hang up")).unwrap();
        assert_eq!(next(&mut socket), "close 4000 child", "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loaded_worker_that_is_ended_ends_its_websocket() {
    const LOOPS: &str = r#"
const CHILD = `export default {
  fetch() {
    const [client, server] = Object.values(new WebSocketPair());
    server.accept();
    server.addEventListener("message", ({ data }) => { server.send(data); if (data === "spin") for (;;); });
    return new Response(null, { status: 101, webSocket: client });
  },
};`;
export default {
  fetch(request, env) {
    return env.LOADER.load({
      compatibilityDate: "2026-11-01", mainModule: "child.js", modules: { "child.js": CHILD },
    }).getEntrypoint(null, { limits: { cpuMs: 50 } }).fetch(request);
  },
};
"#;
    let atoll = site(Options::default(), &Worker::single("loops", LOOPS).with_loader("LOADER")).await;
    let mut socket = connect(&atoll, "loops", "/");
    socket.send(Message::text("hello")).unwrap();
    assert_eq!(next(&mut socket), "text hello");
    socket.send(Message::text("spin")).unwrap();
    loop {
        match next(&mut socket).as_str() {
            "text spin" => {}
            end => break assert_eq!(end, "close 1011 the worker ended"),
        }
    }
    let mut socket = connect(&atoll, "loops", "/");
    socket.send(Message::text("a new one")).unwrap();
    assert_eq!(next(&mut socket), "text a new one");
}
