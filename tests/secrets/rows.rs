//! Rows 88 to 95 and 102 of the hostile table: every way to get at the canary through a binding and through the endpoint. The
//! upstream says back all that it hears; the oracle looks at every byte that a guest, a client or an operator sees.

use serde_json::{Value, json};

use super::{CANARY, World, assert_clean, bytes_of};
use crate::support::atoll::{NEIGHBOUR_TOKEN, TOKEN, deployment};
use crate::support::worker::{Request, Worker};

/// Fetches each request through the binding and says all that it can find out.
const GUEST: &str = "export default async (requests, env) => {
  const seen = [];
  for (const { url, init } of requests) {
    try {
      const answer = await env.GITHUB.fetch(url, init);
      const bytes = new Uint8Array(await answer.arrayBuffer());
      seen.push([answer.status, answer.url, answer.statusText, answer.redirected, [...answer.headers],
        new TextDecoder().decode(bytes)]);
    } catch (error) {
      seen.push([error.name, error.message, error.stack, String(error.cause), JSON.stringify(error)]);
    }
  }
  console.log(JSON.stringify(seen), env, env.GITHUB, Object.keys(env.GITHUB), JSON.stringify(env));
  return seen;
};";

fn bindings() -> Value {
    json!({ "GITHUB": { "type": "secret_proxy", "proxy": "github" } })
}

/// What each row asks of a guest, and what must be in the answer.
fn rows(world: &World) -> Vec<(u32, Value, &'static str)> {
    let at = |path: &str| world.url(path);
    let get = |path: &str| json!({ "url": at(path) });
    let with = |path: &str, init: Value| json!({ "url": at(path), "init": init });
    vec![
        (88, get("/redirect"), "302"),
        (88, with("/redirect", json!({ "redirect": "follow" })), "302"),
        (88, with("/redirect", json!({ "redirect": "error" })), "the upstream failed"),
        (88, json!({ "url": format!("https://other.test:{}/", world.web.port) }), "egress_origin"),
        (88, json!({ "url": format!("https://sub.api.test:{}/", world.web.port) }), "egress_origin"),
        (88, json!({ "url": format!("http://api.test:{}/", world.web.port) }), "egress_origin"),
        (89, get("/echo"), "the end"),
        (89, with("/echo", json!({ "headers": { "user-agent": "guest", "x-any": "1" } })), "the end"),
        (89, with("/", json!({ "method": "PUT", "body": "x" })), "egress_method"),
        (89, get("/error"), "500"),
        (89, get("/refuse"), "401"),
        (
            90,
            with(
                "/echo?token={{github}}&t=$github",
                json!({ "method": "POST", "body": "{{github}} $github {github}" }),
            ),
            "{{github}}",
        ),
        (
            91,
            with(
                "/echo",
                json!({ "headers": { "Authorization": "Bearer guest", "X-Api-Key": "guest", "cookie": "a=guest" } }),
            ),
            "the end",
        ),
        (91, with("/echo?access_token=guest&API_KEY=guest", json!({})), "the end"),
        (
            92,
            json!({ "url": format!("https://user:pass@api.test:{}/echo", world.web.port) }),
            "cannot be fetched",
        ),
        (93, json!({ "url": "https://api.test:1/" }), "egress_origin"),
        (93, json!({ "url": "nonsense" }), "TypeError"),
        (94, get("/gzip"), "the end"),
        (94, get("/decoys"), "the end"),
        (94, get("/unknown"), "egress_unreadable"),
        (
            94,
            with("/echo", json!({ "headers": { "range": "bytes=0-3", "accept-encoding": "compress" } })),
            "the end",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_guest_sees_the_canary() {
    let world = World::with_canary().await;
    for (row, request, expected) in rows(&world) {
        let body = json!({ "code": GUEST, "input": [request], "bindings": bindings() });
        let answer = world.server.control("POST", "/v1/execute", Some(body)).await;
        let text = answer.text();
        assert_clean(&bytes_of(&answer), &format!("row {row}: {request}"));
        assert!(text.contains(expected), "row {row}: {request}: {text}");
    }
    heard_one_credential(&world);
    surroundings(&world).await;
}

/// What left for the upstream had exactly one credential, and nothing of the guest's.
fn heard_one_credential(world: &World) {
    let heard = world.heard.lock().expect("no test panicked");
    assert!(heard.len() >= 10, "{}", heard.len());
    for (parts, body) in heard.iter() {
        let values: Vec<_> = parts.headers.get_all("authorization").iter().collect();
        assert_eq!(values, [&format!("Bearer {CANARY}")], "{}", parts.uri);
        let all = format!("{:?}", parts.headers);
        assert!(!all.contains("Bearer guest") && !all.contains("a=guest"), "{all}");
        assert!(
            ["x-api-key", "cookie", "range"].iter().all(|name| !parts.headers.contains_key(*name)),
            "{all}"
        );
        assert!(!parts.uri.query().unwrap_or_default().contains("guest"), "{}", parts.uri);
        assert_clean(body, "a request's body");
        assert!(!parts.uri.to_string().contains(CANARY));
    }
}

/// Every other byte that someone may see.
async fn surroundings(world: &World) {
    for path in
        ["/metrics", "/v1/openapi.json", "/v1/secrets", "/v1/proxies", "/v1/tokens", "/v1/workers", "/readyz"]
    {
        assert_clean(&bytes_of(&world.server.control("GET", path, None).await), path);
    }
    assert_clean(world.server.log().as_bytes(), "the server's log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployed_worker_its_logs_and_its_errors_hold_no_canary() {
    let world = World::with_canary().await;
    let source = format!(
        "export default {{ async fetch(request, env) {{
            const answer = await env.GITHUB.fetch({:?}, {{ method: request.method }});
            const text = await answer.text();
            console.log(text, [...answer.headers], env);
            if (new URL(request.url).pathname === '/throw') throw new Error(text);
            return new Response(text, {{ headers: answer.headers }});
        }} }}",
        world.url("/echo?q=1")
    );
    let mut body = deployment(&Worker::single("thief", &source));
    body["bindings"] = bindings();
    let deployed = world.server.control("PUT", "/v1/workers/thief", Some(body)).await;
    assert!(deployed.status < 300, "{}", deployed.text());
    for (path, status) in [("/", 200), ("/throw", 500)] {
        let answer = world.server.send("thief", &Request::new("GET", path)).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        assert_clean(&bytes_of(&answer), path);
    }
    let logs = world.server.control("GET", "/v1/workers/thief/logs", None).await;
    assert!(logs.text().contains("the end"), "{}", logs.text());
    assert_clean(&bytes_of(&logs), "its logs");
    surroundings(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_client_of_the_endpoint_sees_the_canary() {
    let world = World::with_canary().await;
    let token = world.identity(TOKEN, "github", json!({})).await;
    for (row, method, path, status) in [
        (88, "GET", "/redirect", 302),
        (89, "GET", "/echo", 200),
        (89, "PUT", "/echo", 403),
        (89, "OPTIONS", "/echo", 403),
        (90, "POST", "/echo?{{github}}", 200),
        (91, "GET", "/echo?access_token=guest", 200),
        (93, "GET", "/error", 500),
        (94, "GET", "/gzip", 200),
        (94, "GET", "/decoys", 200),
        (94, "GET", "/unknown", 502),
        (113, "GET", "/../../../v1/secrets/github", 200),
        (113, "GET", "/..%2f..%2fv1/secrets/github", 200),
        (113, "GET", "//evil.test/x", 200),
        (113, "GET", "/@evil.test/x", 200),
    ] {
        let headers = [("x-api-key", "guest"), ("cookie", "a=guest"), ("accept-encoding", "br")];
        let answer =
            world.send(&token, method, &format!("/v1/proxy/github{path}"), &headers, "{{github}}").await;
        assert_clean(&bytes_of(&answer), &format!("row {row}: {method} {path}"));
        assert_eq!(answer.status, status, "row {row}: {method} {path}: {}", answer.text());
        if answer.status == 302 {
            assert!(answer.header("location").is_some_and(|to| to.starts_with("https://other.test")));
        }
    }
    for (parts, _) in world.heard.lock().expect("no test panicked").iter() {
        let values: Vec<_> = parts.headers.get_all("authorization").iter().collect();
        assert_eq!(values, [&format!("Bearer {CANARY}")], "{}", parts.uri);
        assert!(!format!("{parts:?}").contains("guest\""), "{parts:?}");
        let authority = parts.uri.authority().map(ToString::to_string);
        let host = parts.headers.get("host").and_then(|host| host.to_str().ok()).map(str::to_owned);
        assert_eq!(authority.or(host), Some(world.origin()), "{}", parts.uri);
    }
    surroundings(&world).await;
}

/// Row 95: a guest cannot find out by asking whether there is a secret.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_secret_and_a_broken_upstream_look_alike() {
    let world = World::new("[proxy.dead]\ntenants = [\"acme\"]\norigin = \"api.test:1\"\nsecret = \"github\"\ninject = { type = \"bearer\" }").await;
    let ask = async |proxy: &str, url: String| {
        let bindings = json!({ "GITHUB": { "type": "secret_proxy", "proxy": proxy } });
        let answer = world.execute(TOKEN, GUEST, json!([{ "url": url }]), bindings).await;
        let seen = answer["result"][0].clone();
        (seen[0].clone(), seen[1].clone())
    };
    let missing = ask("github", world.url("/x")).await;
    assert_eq!(world.put(TOKEN, "github", CANARY).await.status, 200);
    let dead = ask("dead", "https://api.test:1/x".to_owned()).await;
    assert_eq!(missing, dead);
    let token = world.identity(TOKEN, "dead", json!({})).await;
    let broken = world.send(&token, "GET", "/v1/proxy/dead/x", &[], "").await;
    assert_eq!(world.server.control("DELETE", "/v1/secrets/github", None).await.status, 204);
    let gone = world.send(&token, "GET", "/v1/proxy/dead/x", &[], "").await;
    assert_eq!((broken.status, broken.text()), (gone.status, gone.text()));
    assert_eq!(broken.status, 502);
}

/// Row 102: no connection carries two tenants' credentials, nor two values of one.
#[tokio::test(flavor = "multi_thread")]
async fn connections_are_of_one_tenant_and_one_value() {
    let world = World::with_canary().await;
    assert_eq!(world.put(NEIGHBOUR_TOKEN, "github", "the-neighbours-own").await.status, 200);
    let ask = async |token: &str| {
        let short = world.identity(token, "github", json!({})).await;
        let answer = world.send(&short, "GET", "/v1/proxy/github/echo", &[], "").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        (*world.web.connections.lock().expect("no test panicked"), world.last_header("authorization"))
    };
    let first = ask(TOKEN).await;
    let again = ask(TOKEN).await;
    assert_eq!(again.0, first.0, "a tenant keeps its connection");
    let other = ask(NEIGHBOUR_TOKEN).await;
    assert_eq!((other.0, &other.1), (first.0 + 1, &vec!["Bearer the-neighbours-own".to_owned()]));
    assert_eq!(ask(TOKEN).await.0, other.0, "and finds it again");
    assert_eq!(world.put(TOKEN, "github", "a-second-value").await.status, 200);
    let rotated = ask(TOKEN).await;
    assert_eq!((rotated.0, &rotated.1), (other.0 + 1, &vec!["Bearer a-second-value".to_owned()]));
}
