//! Identities and delegations: what they say, who takes them, and how they end.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use biscuit_auth::{BlockBuilder, UnverifiedBiscuit};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde_json::{Value, json};

use super::{ISSUER, World};
use crate::support::atoll::{NEIGHBOUR_TOKEN, TOKEN, deployment};
use crate::support::worker::{Request, Worker};

const MINE: &str = "export default async (wishes, env) => {
  const out = [];
  for (const wish of wishes) { try { out.push(await env.IDENTITY.token(wish)); } catch (e) { out.push(`${e.name}: ${e.message}`); } }
  return out;
};";

/// What a verifier elsewhere makes of a token: only the published keys, and a library.
pub(super) async fn verified(world: &World, token: &str, audience: &str) -> Result<Value, String> {
    let keys = world.server.control("GET", "/.well-known/jwks.json", None).await.json();
    let header = jsonwebtoken::decode_header(token).map_err(|error| error.to_string())?;
    let key = keys["keys"]
        .as_array()
        .expect("keys")
        .iter()
        .find(|key| key["kid"].as_str() == header.kid.as_deref());
    let x = key.ok_or("no key")?["x"].as_str().expect("a key").to_owned();
    let mut rules = Validation::new(Algorithm::EdDSA);
    rules.set_audience(&[audience]);
    rules.set_issuer(&[ISSUER]);
    let key = DecodingKey::from_ed_components(&x).map_err(|error| error.to_string())?;
    jsonwebtoken::decode::<Value>(token, &key, &rules)
        .map(|data| data.claims)
        .map_err(|error| error.to_string())
}

async fn tokens(world: &World, audiences: &[&str], wishes: Value) -> Vec<String> {
    let bindings = json!({ "IDENTITY": { "type": "identity", "audiences": audiences } });
    let answer = world.execute(TOKEN, MINE, wishes, bindings).await;
    let list = answer["result"].as_array().unwrap_or_else(|| panic!("{answer}")).clone();
    list.iter().map(|text| text.as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invocation_says_who_it_is_and_anyone_can_check_it() {
    let world = World::new("").await;
    let made = tokens(
        &world,
        &["https://api.example"],
        json!([
            { "audience": "https://api.example" },
            { "audience": "https://api.example", "expiresInSeconds": 5 },
            { "audience": "https://other.example" },
            { "audience": "https://api.example", "sub": "root" },
            {},
        ]),
    )
    .await;
    let claims = verified(&world, &made[0], "https://api.example").await.expect("valid");
    let (iat, exp) = (claims["iat"].as_u64().expect("a number"), claims["exp"].as_u64().expect("a number"));
    assert_eq!((exp - iat, &claims["nbf"]), (60, &claims["iat"]));
    assert_eq!((&claims["tenant"], &claims["egress"]), (&json!("acme"), &json!("all")));
    assert!(
        claims["sub"].as_str().expect("text").starts_with("acme/")
            && claims["code"].is_string()
            && claims["inv"].is_string()
    );
    assert_eq!(claims["budget"], json!({ "cpuMs": 1000, "wallMs": 30000, "subRequests": 50 }));
    let short = verified(&world, &made[1], "https://api.example").await.expect("valid");
    assert_eq!(short["exp"].as_u64().expect("a number") - short["iat"].as_u64().expect("a number"), 5);
    assert_ne!(short["jti"], claims["jti"]);
    assert_eq!(short["inv"], claims["inv"], "one invocation");
    assert!(verified(&world, &made[0], "https://other.example").await.is_err());
    assert!(made[2].contains("may not make tokens for this audience"), "{}", made[2]);
    assert!(made[3].starts_with("TypeError") && made[4].starts_with("TypeError"), "{made:?}");
    // A deployed worker says its name and the hash of its code.
    let source = "export default { async fetch(r, env) { return new Response(await env.ME.token({ audience: 'https://a.example' })) } }";
    let mut body = deployment(&Worker::single("who", source));
    body["bindings"] = json!({ "ME": { "type": "identity", "audiences": ["https://a.example"] } });
    let deployed = world.server.control("PUT", "/v1/workers/who", Some(body)).await;
    assert!(deployed.status < 300, "{}", deployed.text());
    let token = world.server.send("who", &Request::new("GET", "/")).await.text();
    let claims = verified(&world, &token, "https://a.example").await.expect("valid");
    assert_eq!((&claims["sub"], &claims["code"]), (&json!("acme/who"), &deployed.json()["hash"]));
    let issuer = world.server.control("GET", "/.well-known/openid-configuration", None).await.json();
    assert_eq!(
        (&issuer["issuer"], &issuer["jwks_uri"]),
        (&json!(ISSUER), &json!(format!("{ISSUER}/.well-known/jwks.json")))
    );
    for bad in [json!([]), json!(["a b"]), json!([""])] {
        let refused = world
            .execute(TOKEN, MINE, json!([]), json!({ "IDENTITY": { "type": "identity", "audiences": bad } }))
            .await;
        assert_eq!(refused["code"], "invalid_setting", "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_of_an_identity_is_never_more() {
    let world = World::with_canary().await;
    let proxy = format!("{ISSUER}/v1/proxy/github");
    let made = tokens(
        &world,
        &[ISSUER, &proxy, "https://a.example"],
        json!([{ "audience": ISSUER }, { "audience": proxy }]),
    )
    .await;
    let post = async |token: &str, path: &str, body: Value| {
        world.server.control_as(token, "POST", path, Some(body)).await
    };
    let parent = verified(&world, &made[0], ISSUER).await.expect("valid");
    // Exchanged for one of its audiences: the same subject, another actor, no later end.
    let child = post(
        &made[0],
        "/v1/tokens/identity",
        json!({ "audience": "https://a.example", "actor": "container" }),
    )
    .await;
    assert_eq!(child.status, 201, "{}", child.text());
    let claims = verified(&world, child.json()["token"].as_str().expect("a token"), "https://a.example")
        .await
        .expect("valid");
    assert_eq!(
        (&claims["sub"], &claims["inv"], &claims["budget"]),
        (&parent["sub"], &parent["inv"], &parent["budget"])
    );
    assert_eq!(claims["act"], json!({ "sub": "acme/container" }));
    assert!(claims["exp"].as_u64() <= parent["exp"].as_u64() && claims.get("may").is_none());
    // Not for others, not with a token for somebody else, and not as another token that it is not.
    for (token, body, status) in [
        (&made[0], json!({ "audience": "https://b.example" }), 403),
        (&made[0], json!({ "audience": ISSUER }), 403),
        (&made[1], json!({ "audience": "https://a.example" }), 401),
    ] {
        assert_eq!(post(token, "/v1/tokens/identity", body.clone()).await.status, status, "{body}");
    }
    for path in ["/v1/tokens", "/v1/secrets", "/v1/workers"] {
        assert_eq!(world.server.control_as(&made[0], "GET", path, None).await.status, 401, "{path}");
    }
    // A delegation only for proxies among its audiences, and with no later end.
    let rights = |proxy: &str| json!({ "proxies": [proxy], "methods": ["GET"], "expiresInSeconds": 3600 });
    let delegated = post(&made[0], "/v1/tokens/delegation", rights("github")).await.json();
    assert!(
        delegated["expiresMs"].as_u64().expect("a number")
            <= parent["exp"].as_u64().expect("a number") * 1_000,
        "{delegated}"
    );
    assert_eq!(post(&made[0], "/v1/tokens/delegation", rights("other")).await.status, 403);
    assert_eq!(post(TOKEN, "/v1/tokens/delegation", rights("other")).await.status, 422);
    // The chain grows by one actor each time, and not without end.
    let mut token = made[0].clone();
    for depth in 0..12 {
        let body = json!({ "audience": "https://a.example", "actor": format!("agent-{depth}") });
        let answer = post(&token, "/v1/tokens/identity", body).await;
        assert!(matches!((depth, answer.status), (0, 201) | (_, 401)), "{depth}: {}", answer.text());
        if answer.status != 201 {
            break;
        }
        answer.json()["token"].as_str().expect("a token").clone_into(&mut token);
    }
}

/// Rows 109 to 111 at the endpoint.
#[tokio::test(flavor = "multi_thread")]
async fn forged_replayed_and_misdirected_tokens_are_refused_alike() {
    let world = World::with_canary().await;
    let good = world.identity(TOKEN, "github", json!({})).await;
    let [head, claims, signature]: [&str; 3] =
        good.split('.').collect::<Vec<_>>().try_into().expect("three parts");
    let read = |part: &str| -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64")).expect("JSON")
    };
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let (header, own) = (read(head), read(claims));
    let keys = world.server.control("GET", "/.well-known/jwks.json", None).await.json();
    let x = keys["keys"][0]["x"].as_str().expect("a key").to_owned();
    let hs = |secret: &[u8]| {
        let header =
            Header { kid: header["kid"].as_str().map(str::to_owned), ..Header::new(Algorithm::HS256) };
        jsonwebtoken::encode(&header, &own, &EncodingKey::from_secret(secret)).expect("a token")
    };
    let changed = |field: &str, value: Value| {
        let mut claims = own.clone();
        claims[field] = value;
        format!("{head}.{}.{signature}", part(&claims))
    };
    let with_header = |value: Value| format!("{}.{claims}.{signature}", part(&value));
    let elsewhere = world.identity(TOKEN, "other", json!({})).await;
    let cases = [
        ("no signature", format!("{head}.{claims}.")),
        ("alg none", format!("{}.{claims}.", part(&json!({ "alg": "none", "kid": header["kid"] })))),
        ("alg none, signed", with_header(json!({ "alg": "none", "kid": header["kid"] }))),
        ("public key as a shared secret", hs(x.as_bytes())),
        ("public key as a shared secret, raw", hs(&URL_SAFE_NO_PAD.decode(&x).expect("base64"))),
        ("kid traversal", with_header(json!({ "alg": "EdDSA", "kid": "../../dev/null" }))),
        ("kid injection", with_header(json!({ "alg": "EdDSA", "kid": "x' OR 1=1" }))),
        (
            "own key offered",
            with_header(json!({ "alg": "EdDSA", "kid": header["kid"], "jku": "https://evil.test" })),
        ),
        ("another tenant", changed("tenant", json!("neighbour"))),
        ("exp as a string", changed("exp", json!("99999999999"))),
        ("exp far away", changed("exp", json!(99_999_999_999u64))),
        ("nbf as a string", changed("nbf", json!("0"))),
        ("wrong audience", elsewhere),
        ("cut", good[..good.len() - 3].to_owned()),
        ("nothing", ".".to_owned()),
    ];
    let mut texts = std::collections::BTreeSet::new();
    for (what, token) in cases {
        let answer = world.send(&token, "GET", "/v1/proxy/github/x", &[], "").await;
        assert_eq!(answer.status, 401, "{what}: {}", answer.text());
        texts.insert(answer.text());
    }
    assert_eq!(texts.len(), 1, "every reason looks alike: {texts:?}");
    assert_eq!(world.heard.lock().expect("no test panicked").len(), 0);
    // A token for one use is used up by it; another can be used again.
    let once = world.identity(TOKEN, "github", json!({ "singleUse": true })).await;
    let ask = async |token: &str| world.send(token, "GET", "/v1/proxy/github/x", &[], "").await.status;
    assert_eq!((ask(&once).await, ask(&once).await), (200, 401));
    assert_eq!((ask(&good).await, ask(&good).await), (200, 200));
    // A token of the neighbour's uses the neighbour's secret, which is not there.
    let theirs = world.identity(NEIGHBOUR_TOKEN, "github", json!({})).await;
    assert_eq!(ask(&theirs).await, 502);
    // A revoked one opens nothing, for anybody but another tenant's word.
    let id = own["jti"].as_str().expect("an id");
    let revoke = async |token: &str| {
        world.server.control_as(token, "POST", "/v1/tokens/revoke", Some(json!({ "id": id }))).await.status
    };
    assert_eq!((revoke(NEIGHBOUR_TOKEN).await, ask(&good).await), (204, 200));
    assert_eq!((revoke(TOKEN).await, ask(&good).await), (204, 401));
}

/// The token with another block, as a holder makes it who has nothing but the token.
fn narrowed(token: &str, code: &str) -> String {
    let token = UnverifiedBiscuit::from_base64(token).expect("a delegation");
    let block = BlockBuilder::new().code(code).expect("a block");
    token.append(block).and_then(|token| token.to_base64()).expect("a longer delegation")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delegation_is_narrowed_offline_and_revoked_with_all_that_came_of_it() {
    let mut world = World::with_canary().await;
    let body = json!({ "proxies": ["github"], "methods": ["GET", "POST"], "actor": "builder" });
    let made = world.server.control("POST", "/v1/tokens/delegation", Some(body)).await.json();
    let (token, id) = (made["token"].as_str().expect("a token"), made["id"].as_str().expect("an id"));
    let reads = narrowed(token, "check if request_method(\"GET\")");
    let repos = narrowed(&reads, "check if request_path($p), $p.starts_with(\"/repos/\")");
    let greedy = narrowed(token, "method(\"DELETE\"); proxy(\"other\")");
    for (token, method, path, status) in [
        (token, "GET", "/github/x", 200),
        (token, "POST", "/github/x", 200),
        (token, "DELETE", "/github/x", 403),
        (token, "GET", "/other/x", 403),
        (&*reads, "GET", "/github/x", 200),
        (&reads, "POST", "/github/x", 403),
        (&repos, "GET", "/github/repos/x", 200),
        (&repos, "GET", "/github/x", 403),
        (&repos, "GET", "/github/repos/../x", 403),
        (&repos, "GET", "/github/repos/%2e%2e/x", 403),
        (&repos, "GET", "/github/repos/..%2fx", 403),
        (&greedy, "DELETE", "/github/x", 403),
        (&greedy, "GET", "/other/x", 403),
        (&token[1..], "GET", "/github/x", 401),
    ] {
        let answer = world.send(token, method, &format!("/v1/proxy{path}"), &[], "").await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
    }
    // It is no API token, and opens nothing else.
    assert_eq!(world.server.control_as(token, "GET", "/v1/workers", None).await.status, 401);
    let revoked = world.server.control("POST", "/v1/tokens/revoke", Some(json!({ "id": id }))).await;
    assert_eq!(revoked.status, 204);
    for token in [token, &reads, &repos] {
        assert_eq!(world.send(token, "GET", "/v1/proxy/github/repos/x", &[], "").await.status, 401);
    }
    world.server.kill_and_restart().await;
    assert_eq!(world.send(&repos, "GET", "/v1/proxy/github/repos/x", &[], "").await.status, 401);
}
