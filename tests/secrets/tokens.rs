//! API tokens that tenants make: scopes, expiry, revocation, and what is kept of them.

use serde_json::json;

use super::World;
use crate::support::atoll::{Atoll, NEIGHBOUR_TOKEN, Options, TOKEN};

async fn create(server: &Atoll, token: &str, body: serde_json::Value) -> (u16, serde_json::Value) {
    let answer = server.control_as(token, "POST", "/v1/tokens", Some(body)).await;
    (answer.status, answer.json())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_its_scopes_until_it_is_revoked_and_survives_a_restart() {
    let mut server = Atoll::start(Options::default()).await;
    let (status, made) = create(&server, TOKEN, json!({ "name": "ci", "scopes": ["read", "tokens"] })).await;
    assert_eq!(status, 201, "{made}");
    let (token, id) = (made["token"].as_str().expect("a token"), made["id"].as_str().expect("an id"));
    let ask = async |server: &Atoll, token: &str, path: &str| {
        server.control_as(token, "GET", path, None).await.status
    };
    assert_eq!(ask(&server, token, "/v1/workers").await, 200);
    assert_eq!(ask(&server, token, "/v1/secrets").await, 403);
    // It makes no token with rights that it has not.
    let (status, more) = create(&server, token, json!({ "name": "x", "scopes": ["read", "deploy"] })).await;
    assert_eq!(status, 403, "{more}");
    assert_eq!(create(&server, token, json!({ "name": "x", "scopes": ["read"] })).await.0, 201);
    // The list shows what it is, not what opens it; nothing that is kept does.
    let list = server.control("GET", "/v1/tokens", None).await;
    assert!(list.text().contains(id) && !list.text().contains(token), "{}", list.text());
    for entry in std::fs::read_dir(server.folder().join("data")).expect("a folder") {
        let bytes = std::fs::read(entry.expect("an entry").path()).unwrap_or_default();
        assert!(!bytes.windows(token.len()).any(|window| window == token.as_bytes()));
    }
    assert!(!server.log().contains(token));
    server.kill_and_restart().await;
    assert_eq!(ask(&server, token, "/v1/workers").await, 200);
    // Another tenant can neither see nor revoke it.
    assert!(!server.control_as(NEIGHBOUR_TOKEN, "GET", "/v1/tokens", None).await.text().contains(id));
    let path = format!("/v1/tokens/{id}");
    assert_eq!(server.control_as(NEIGHBOUR_TOKEN, "DELETE", &path, None).await.status, 404);
    assert_eq!(server.control("DELETE", &path, None).await.status, 204);
    assert_eq!(ask(&server, token, "/v1/workers").await, 401);
    assert_eq!(server.control("DELETE", &path, None).await.status, 404);
    server.restart().await;
    assert_eq!(ask(&server, token, "/v1/workers").await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_ends_when_it_said_and_nonsense_is_refused() {
    let server = Atoll::start(Options::default()).await;
    let (_, made) =
        create(&server, TOKEN, json!({ "name": "x", "scopes": ["read"], "expiresInSeconds": 1 })).await;
    let token = made["token"].as_str().expect("a token").to_owned();
    // Not a bound on how fast: it only ever goes from open to closed.
    loop {
        let status = server.control_as(&token, "GET", "/v1/workers", None).await.status;
        if status == 401 {
            break;
        }
        assert_eq!(status, 200);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    for (body, status) in [
        (json!({ "name": "", "scopes": ["read"] }), 422),
        (json!({ "name": "x".repeat(101), "scopes": ["read"] }), 422),
        (json!({ "name": "a\nb", "scopes": ["read"] }), 422),
        (json!({ "name": "x", "scopes": [] }), 422),
        (json!({ "name": "x", "scopes": ["root"] }), 400),
        (json!({ "name": "x", "scopes": ["read"], "expiresInSeconds": 0 }), 422),
        (json!({ "name": "x", "scopes": ["read"], "tenant": "neighbour" }), 400),
    ] {
        assert_eq!(create(&server, TOKEN, body.clone()).await.0, status, "{body}");
    }
}

/// Rows 109 and 113: made-up tokens, and names that lead elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn made_up_tokens_and_names_open_nothing() {
    let world = World::with_canary().await;
    for token in
        ["atoll_", "atoll_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "configured", "null", "../../x"]
    {
        for (method, path) in
            [("GET", "/v1/secrets"), ("GET", "/v1/proxy/github/x"), ("POST", "/v1/tokens/identity")]
        {
            let answer = world.send(token, method, path, &[("content-type", "application/json")], "{}").await;
            assert_eq!(answer.status, 401, "{token} {method} {path}: {}", answer.text());
        }
    }
    for path in [
        "/v1/secrets/..",
        "/v1/secrets/%2e%2e",
        "/v1/secrets/../neighbour/github",
        "/v1/secrets/github%00",
        "/v1/secrets/Github",
        "/v1/proxies/..%5cx",
        "/v1/tokens/1%27%20or%201=1",
    ] {
        let method = if path.starts_with("/v1/tokens") { "DELETE" } else { "GET" };
        let answer = world.send(TOKEN, method, path, &[], "").await;
        assert!(matches!(answer.status, 404 | 422), "{path}: {} {}", answer.status, answer.text());
    }
    assert_eq!(world.heard.lock().expect("no test panicked").len(), 0);
}
