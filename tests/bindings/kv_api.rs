//! `/v1/kv` and `atoll kv`: what an operator writes, a worker reads, and the other way round.

use std::process::Output;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{deployed, get};
use crate::support::atoll::{Atoll, NEIGHBOUR_TOKEN, Options, TOKEN};
use crate::support::client::{Answer, send};
use crate::support::worker::Request;

const WORKER: &str = r#"
export default { async fetch(request, env) {
  const { pathname, searchParams } = new URL(request.url);
  if (pathname === "/put") await env.KV.put(searchParams.get("k"), searchParams.get("v"), { metadata: { by: "worker" } });
  return Response.json(await env.KV.getWithMetadata(searchParams.get("k")));
} };"#;

async fn started() -> Atoll {
    let server = Atoll::start(Options::default()).await;
    deployed(&server, "kv", WORKER, json!({ "KV": { "type": "kv", "namespace": "shared" } })).await;
    server
}

async fn call(server: &Atoll, token: &str, method: &str, path: &str, body: &[u8]) -> Answer {
    let request =
        Request::new(method, path).header("authorization", &format!("Bearer {token}")).body(body.to_vec());
    send(server.address(), "control", &request).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn values_written_by_the_api_are_the_workers_and_the_other_way_round() {
    let server = started().await;
    let bytes: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    let metadata = "%7B%22n%22%3A%5B1%2C%22%C3%A9%22%5D%7D"; // {"n":[1,"é"]}
    let path = format!("/v1/kv/shared/values/a%2Fb%20c?expiration_ttl=600&metadata={metadata}");
    assert_eq!(call(&server, TOKEN, "PUT", &path, &bytes).await.status, 204);
    let answer = call(&server, TOKEN, "GET", "/v1/kv/shared/values/a%2Fb%20c", b"").await;
    assert_eq!((answer.status, answer.body.len(), answer.body == bytes), (200, bytes.len(), true));
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    assert!(answer.header("cf-expiration").is_some() && answer.header("cf-kv-metadata").is_some());

    assert_eq!(call(&server, TOKEN, "PUT", "/v1/kv/shared/values/plain", b"text").await.status, 204);
    let seen = get(&server, "kv", "/?k=plain").await;
    assert_eq!((&seen["value"], &seen["metadata"]), (&json!("text"), &Value::Null));
    assert_eq!(get(&server, "kv", "/?k=a/b%20c").await["metadata"], json!({ "n": [1, "é"] }));
    get(&server, "kv", "/put?k=w&v=of+worker").await;
    assert_eq!(call(&server, TOKEN, "GET", "/v1/kv/shared/values/w", b"").await.text(), "of worker");

    let list = call(&server, TOKEN, "GET", "/v1/kv/shared/keys?limit=2", b"").await.json();
    assert_eq!(list["keys"][0]["name"], "a/b c");
    assert_eq!(list["keys"][0]["metadata"], json!({ "n": [1, "é"] }));
    assert!(list["keys"][0]["expiration"].as_u64() > Some(1_700_000_000), "{list}");
    let rest = format!("/v1/kv/shared/keys?cursor={}", list["cursor"].as_str().expect("a cursor"));
    let rest = call(&server, TOKEN, "GET", &rest, b"").await.json();
    assert_eq!(rest, json!({ "keys": [{ "name": "w", "metadata": { "by": "worker" } }], "complete": true }));

    assert_eq!(call(&server, TOKEN, "DELETE", "/v1/kv/shared/values/plain", b"").await.status, 204);
    assert_eq!(get(&server, "kv", "/?k=plain").await["value"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_key_no_value_or_somebody_elses_is_refused() {
    let server = started().await;
    let long = format!("/v1/kv/shared/values/{}", "k".repeat(513));
    let value = "/v1/kv/shared/values/k";
    let metadata = format!("{value}?metadata=%22{}%22", "m".repeat(1_025));
    for (method, path, body, status, code) in [
        ("GET", value, &b""[..], 404, "no_key"),
        ("GET", "/v1/kv/no%20name/values/k", b"", 404, "not_found"),
        ("GET", "/v1/kv/shared/keys?limit=0", b"", 400, "kv_request"),
        ("GET", "/v1/kv/shared/keys?cursor=!", b"", 400, "kv_request"),
        ("GET", "/v1/kv/shared/keys?page=2", b"", 400, "bad_request"),
        ("PUT", "/v1/kv/shared/values/.", b"x", 400, "kv_request"),
        ("PUT", "/v1/kv/shared/values/%zz", b"x", 400, "kv_request"),
        ("PUT", &long, b"x", 414, "kv_request"),
        ("PUT", "/v1/kv/shared/values/k?expiration_ttl=59", b"x", 400, "kv_request"),
        ("PUT", "/v1/kv/shared/values/k?metadata=%7B", b"x", 400, "bad_request"),
        ("PUT", &metadata, b"x", 413, "kv_request"),
        ("POST", value, b"", 405, "method_not_allowed"),
    ] {
        let answer = call(&server, TOKEN, method, path, body).await;
        let got = (answer.status, answer.json()["code"].as_str().map(str::to_owned));
        assert_eq!(got, (status, Some(code.to_owned())), "{method} {path:.60}: {}", answer.text());
    }
    // One that declares too much is refused before a byte of it comes.
    let mut stream = tokio::net::TcpStream::connect(server.address()).await.expect("a listener");
    let length = (25 << 20) + 1;
    let head = format!(
        "PUT {value} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("a connection");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 413");
    // A namespace of the same name is another one for another tenant.
    assert_eq!(call(&server, TOKEN, "PUT", value, b"mine").await.status, 204);
    assert_eq!(call(&server, NEIGHBOUR_TOKEN, "GET", value, b"").await.status, 404);
    assert_eq!(call(&server, NEIGHBOUR_TOKEN, "DELETE", value, b"").await.status, 204);
    assert_eq!(call(&server, "nobody", "GET", value, b"").await.status, 401);
    assert_eq!(call(&server, TOKEN, "GET", value, b"").await.text(), "mine");
}

fn run(server: &Atoll, args: &[&str], stdin: &[u8]) -> Output {
    server.command_with(&[&["kv"], args].concat(), stdin)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_reads_and_writes() {
    let server = started().await;
    tokio::task::spawn_blocking(move || {
        let ok = |args: &[&str], stdin: &[u8]| {
            let output = run(&server, args, stdin);
            assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
            output.stdout
        };
        ok(&["put", "shared", "a", "one", "--metadata", "{\"x\":1}", "--ttl", "60"], b"");
        ok(&["put", "shared", "key with / and é"], b"from input");
        ok(&["put", "shared", "file", "--path", "Cargo.toml"], b"");
        assert_eq!(ok(&["get", "shared", "key with / and é"], b""), b"from input");
        assert_eq!(ok(&["get", "shared", "file"], b""), std::fs::read("Cargo.toml").expect("it is here"));
        assert_eq!(String::from_utf8_lossy(&ok(&["list", "shared"], b"")), "a\nfile\nkey with / and é\n");
        let listed: Value =
            serde_json::from_slice(&ok(&["list", "shared", "--prefix", "a", "--json"], b"")).expect("JSON");
        assert_eq!((&listed["name"], &listed["metadata"]), (&json!("a"), &json!({ "x": 1 })));
        assert!(ok(&["namespaces"], b"").starts_with(b"shared "));
        ok(&["delete", "shared", "a"], b"");
        let missing = run(&server, &["get", "shared", "a"], b"");
        assert_eq!(missing.status.code(), Some(4), "{}", String::from_utf8_lossy(&missing.stderr));
        ok(&["drop", "shared"], b"");
        assert_eq!(run(&server, &["drop", "shared"], b"").status.code(), Some(4));
    })
    .await
    .expect("no panic");
}
