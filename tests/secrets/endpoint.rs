//! Proxies in use: the binding, the endpoint, tenants' own proxies, rotation, streams, and the rules above them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{CANARY, ISSUER, World, key_file};
use crate::outside::{NameServer, Outside, certificate};
use crate::support::atoll::{Atoll, NEIGHBOUR_TOKEN, Options, TOKEN, deployment};
use crate::support::worker::{Request, Worker};

const FETCH: &str = "export default async ([url, init], env) => {
  try { const a = await env.GITHUB.fetch(url, init); return [a.status, await a.text()]; } catch (e) { return [0, e.message]; }
};";

#[tokio::test(flavor = "multi_thread")]
async fn a_running_worker_uses_a_new_secret_at_once_and_loses_a_deleted_one() {
    let world = World::with_canary().await;
    let source = format!(
        "export default {{ async fetch(request, env) {{
            try {{ return new Response((await env.GITHUB.fetch({:?})).status); }} catch (e) {{ return new Response(e.message); }}
        }} }}",
        world.url("/x")
    );
    let mut body = deployment(&Worker::single("user", &source));
    body["bindings"] = json!({ "GITHUB": { "type": "secret_proxy", "proxy": "github" } });
    let deployed = world.server.control("PUT", "/v1/workers/user", Some(body.clone())).await;
    assert!(deployed.status < 300, "{}", deployed.text());
    let ask = async || world.server.send("user", &Request::new("GET", "/")).await.text();
    assert_eq!(
        (ask().await, world.last_header("authorization")),
        ("200".into(), vec![format!("Bearer {CANARY}")])
    );
    assert_eq!(world.put(TOKEN, "github", "the-second-value").await.status, 200);
    assert_eq!(
        (ask().await, world.last_header("authorization")),
        ("200".into(), vec!["Bearer the-second-value".into()])
    );
    assert_eq!(world.server.control("DELETE", "/v1/secrets/github", None).await.status, 204);
    assert!(ask().await.contains("the upstream failed"));
    // What names no proxy is not deployed.
    body["bindings"] = json!({ "GITHUB": { "type": "secret_proxy", "proxy": "missing" } });
    let refused = world.server.control("PUT", "/v1/workers/user", Some(body)).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (422, Some("invalid_setting")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_defines_a_proxy_changes_it_and_takes_it_away() {
    let world = World::with_canary().await;
    let bindings = json!({ "GITHUB": { "type": "secret_proxy", "proxy": "mine" } });
    let settings = |more: Value| {
        let mut settings = json!({ "origin": world.origin(), "secret": "github", "inject": { "type": "header", "name": "x-token", "before": "T " } });
        for (key, value) in more.as_object().into_iter().flatten() {
            settings[key] = value.clone();
        }
        settings
    };
    let run = async |path: &str, init: Value| {
        world.execute(TOKEN, FETCH, json!([world.url(path), init]), bindings.clone()).await["result"].clone()
    };
    assert_eq!(world.define(TOKEN, "mine", settings(json!({}))).await.status, 200);
    assert_eq!(run("/x", json!({})).await[0], 200);
    assert_eq!(world.last_header("x-token"), [format!("T {CANARY}")]);
    assert!(world.last_header("authorization").is_empty());
    assert!(
        run("/x", json!({ "method": "POST" })).await[1].as_str().expect("text").contains("egress_method")
    );
    // The change counts at once.
    let change = json!({ "methods": ["POST"], "paths": ["/v1"], "inject": { "type": "basic", "user": "me" }, "requestBytesMax": 4 });
    assert_eq!(world.define(TOKEN, "mine", settings(change)).await.status, 200);
    assert_eq!(run("/v1/x", json!({ "method": "POST" })).await[0], 200);
    assert!(world.last_header("authorization")[0].starts_with("Basic "));
    for (path, init, code) in [
        ("/v1/x", json!({}), "egress_method"),
        ("/v2", json!({ "method": "POST" }), "egress_path"),
        ("/v1/x", json!({ "method": "POST", "body": "12345" }), "egress_request_bytes"),
    ] {
        let told = run(path, init).await;
        assert!(told[1].as_str().expect("text").contains(code), "{told}");
    }
    let list = world.server.control("GET", "/v1/proxies", None).await.json();
    let names: Vec<_> = list["proxies"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|p| (p["name"].clone(), p["owner"].clone()))
        .collect();
    assert_eq!(names, [(json!("github"), json!("operator")), (json!("mine"), json!("tenant"))]);
    // Another tenant has no such proxy, and the operator's name is taken.
    let theirs = world.server.control_as(NEIGHBOUR_TOKEN, "GET", "/v1/proxies/mine", None).await;
    assert_eq!(theirs.status, 404);
    let taken = world.define(TOKEN, "github", settings(json!({}))).await;
    assert_eq!((taken.status, taken.json()["code"].as_str()), (409, Some("name_taken")));
    for (bad, status) in [
        (json!({ "origin": format!("http://{}", world.origin()) }), 422),
        (json!({ "origin": "*" }), 422),
        (json!({ "tenants": ["*"] }), 403),
        (json!({ "egress": "missing" }), 403),
        (
            json!({ "inject": { "type": "client_credentials", "tokenUrl": "https://evil.test/token", "clientId": "x" } }),
            403,
        ),
        (json!({ "more": 1 }), 400),
    ] {
        assert_eq!(world.define(TOKEN, "bad", settings(bad.clone())).await.status, status, "{bad}");
    }
    assert_eq!(world.server.control("DELETE", "/v1/proxies/mine", None).await.status, 204);
    let gone = world.execute(TOKEN, FETCH, json!([world.url("/x"), {}]), bindings.clone()).await;
    assert_eq!(gone["code"], "invalid_setting", "{gone}");
    assert_eq!(world.server.control("DELETE", "/v1/proxies/github", None).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_above_a_proxy_must_allow_a_request_too() {
    let world = World::with_canary().await;
    let settings = json!({ "origin": world.origin(), "secret": "github", "egress": "narrow", "inject": { "type": "query", "name": "key" } });
    assert_eq!(world.define(TOKEN, "narrow", settings).await.status, 200);
    let token = world.identity(TOKEN, "narrow", json!({})).await;
    let ask = async |path: &str| world.send(&token, "GET", &format!("/v1/proxy/narrow{path}"), &[], "").await;
    assert_eq!(ask("/v1/x?a=1&key=guest").await.status, 200);
    let query = world.last().uri.query().unwrap_or_default().to_owned();
    assert!(query.starts_with("a=1&key=ghp_") && !query.contains("guest"), "{query}");
    let denied = ask("/v2").await;
    assert_eq!((denied.status, denied.json()["denial"].as_str()), (403, Some("egress_path")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_endpoint_takes_the_methods_of_the_rule_and_takes_the_token_out() {
    let world = World::with_canary().await;
    let token = world.identity(TOKEN, "github", json!({})).await;
    for (method, body, status) in [
        ("GET", "", 200),
        ("POST", "a body", 200),
        ("DELETE", "", 200),
        ("PATCH", "x", 403),
        ("PROPFIND", "", 403),
    ] {
        let answer = world.send(&token, method, "/v1/proxy/github/a/b?c=d", &[], body).await;
        assert_eq!(answer.status, status, "{method}: {}", answer.text());
        if status == 200 {
            let (parts, heard) =
                world.heard.lock().expect("no test panicked").last().cloned().expect("a request");
            assert_eq!((parts.method.as_str(), &heard[..]), (method, body.as_bytes()));
            assert_eq!(parts.uri.path_and_query().map(ToString::to_string), Some("/a/b?c=d".into()));
            assert!(!format!("{parts:?}").contains(&token), "{parts:?}");
        }
    }
    let bare = world.send(&token, "GET", "/v1/proxy/github", &[], "").await;
    assert_eq!((bare.status, world.last().uri.path()), (200, "/"));
    let cookie = world.send(&token, "GET", "/v1/proxy/github/cookie", &[], "").await;
    assert!(cookie.header("set-cookie").is_none() && cookie.header("strict-transport-security").is_none());
    assert_eq!(cookie.header("content-security-policy"), Some("sandbox"));
    assert!(
        world
            .server
            .control("GET", "/metrics", None)
            .await
            .text()
            .contains("atoll_crossings_total{verdict=\"answered\"}")
    );
}

/// What the raw upstream does with a connection after the head.
#[derive(Clone)]
enum Act {
    /// Says back each byte of the body as it comes.
    Echo,
    /// Sends without end, and counts.
    Flood(Arc<AtomicU64>),
}

/// An upstream over TLS that knows chunks and nothing else.
async fn raw(act: Act) -> (Atoll, tempfile::NamedTempFile, Outside) {
    let (root, mut config) = certificate(&["api.test"]);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, act) = (acceptor.clone(), act.clone());
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await?;
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await?);
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
                match act {
                    // The request's chunks are the answer's chunks.
                    Act::Echo => loop {
                        let mut bytes = [0; 1_024];
                        let read = stream.read(&mut bytes).await?;
                        if read == 0 {
                            return Ok::<_, std::io::Error>(());
                        }
                        stream.write_all(&bytes[..read]).await?;
                        stream.flush().await?;
                    },
                    Act::Flood(count) => loop {
                        let chunk = [b"8000\r\n", &[b'x'; 0x8000][..], b"\r\n"].concat();
                        stream.write_all(&chunk).await?;
                        count.fetch_add(0x8000, SeqCst);
                    },
                }
            });
        }
    });
    let names = NameServer::new(&[("api.test", &[&["127.0.0.1"]])]).await;
    let (outside, key) = (Outside::at(port, &root, &names), key_file(1));
    let config = format!(
        "{}[secrets]\nkey_file = {:?}\n[identity]\nissuer = \"{ISSUER}\"\n[proxy.raw]\ntenants = [\"*\"]\norigin = \"api.test:{port}\"\n\
         methods = [\"GET\", \"POST\"]\nsecret = \"raw\"\ninject = {{ type = \"bearer\" }}\n",
        outside.config,
        key.path()
    );
    let server = Atoll::start(Options { config, ..Options::default() }).await;
    let request = Request::new("PUT", "/v1/secrets/raw")
        .header("authorization", &format!("Bearer {TOKEN}"))
        .header("content-type", "text/plain")
        .body(CANARY);
    let put = crate::support::client::send(server.address(), "localhost", &request).await.expect("an answer");
    assert_eq!(put.status, 200, "{}", put.text());
    (server, key, outside)
}

async fn open(server: &Atoll, method: &str, more: &str) -> TcpStream {
    let body = json!({ "audience": format!("{ISSUER}/v1/proxy/raw") });
    let token = server.control("POST", "/v1/tokens/identity", Some(body)).await.json();
    let token = token["token"].as_str().expect("a token").to_owned();
    let mut stream = TcpStream::connect(server.address()).await.expect("a connection");
    let head = format!(
        "{method} /v1/proxy/raw/x HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n{more}\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("writable");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_flow_both_ways_as_they_come() {
    let (server, _key, _outside) = raw(Act::Echo).await;
    let mut stream = open(&server, "POST", "transfer-encoding: chunked\r\n").await;
    let mut seen = Vec::new();
    // Each word is sent only after the one before it came back: nothing waits for a whole body. A word ends in a sign that can be
    // no part of a secret in any form: what could be the beginning of one waits for what follows.
    for word in ["first!", "second!", "third!"] {
        let chunk = format!("{:x}\r\n{word}\r\n", word.len());
        stream.write_all(chunk.as_bytes()).await.expect("writable");
        while !seen.windows(word.len()).any(|window| window == word.as_bytes()) {
            let read = stream.read_buf(&mut seen).await.expect("readable");
            assert!(read > 0, "{}", String::from_utf8_lossy(&seen));
        }
    }
    // A secret that goes out as a guest's own words comes back masked, also across chunks.
    for half in [&CANARY[..9], &CANARY[9..]] {
        stream.write_all(format!("{:x}\r\n{half}\r\n", half.len()).as_bytes()).await.expect("writable");
    }
    stream.write_all(b"0\r\n\r\n").await.expect("writable");
    while !seen.ends_with(b"0\r\n\r\n") {
        assert!(stream.read_buf(&mut seen).await.expect("readable") > 0);
    }
    super::assert_clean(&seen, "the answer");
    let text = String::from_utf8_lossy(&seen).into_owned();
    assert!(text.matches('*').count() >= CANARY.len(), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_stops_the_upstream() {
    let count = Arc::new(AtomicU64::new(0));
    let (server, _key, _outside) = raw(Act::Flood(count.clone())).await;
    let stream = open(&server, "GET", "").await;
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = count.load(SeqCst);
        if now > 0 && now == before {
            break;
        }
        // Two sockets' buffers and ours; without backpressure it would go on without end.
        assert!(now < 64 * 1024 * 1024, "{now} bytes were taken for a client that does not read");
        before = now;
    }
    drop(stream);
}
