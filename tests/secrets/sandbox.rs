//! What a program in a sandbox may do in its user's name: use a secret that it never sees, and say who it is.

use std::time::Duration;

use serde_json::{Value, json};

use super::identity::verified;
use super::{CANARY, ISSUER, World, assert_clean};
use crate::sandbox::backends::{Place, on_each_backend};
use crate::sandbox::can_have_sandboxes;
use crate::support::atoll::{NEIGHBOUR_TOKEN, TOKEN, deployment};
use crate::support::worker::{Request, Worker};

const AUDIENCE: &str = "https://api.example";

/// Looks for a text, told backwards, in every variable, command line and file that a program of a sandbox can read.
const SEARCH: &str = r#"
import glob, os, sys
needles = [text[::-1].encode() for text in sys.argv[1:]]
def look(path):
    try:
        with open(path, "rb") as file: data = file.read(1 << 22)
    except OSError: return
    for needle in needles:
        if needle in data: print("FOUND", path)
count = 0
for pattern in ("environ", "cmdline", "status", "mountinfo"):
    for path in glob.glob("/proc/[0-9]*/" + pattern): look(path); count += 1
for top in ("/workspace", "/tmp", "/etc", "/run", "/home", "/root", "/var", "/dev/shm", "/opt", "/srv"):
    for folder, _, files in os.walk(top):
        for name in files:
            path = os.path.join(folder, name)
            if os.path.isfile(path): look(path); count += 1
print("looked" if count > 10 else "saw nothing")
"#;

async fn world(place: &Place) -> Option<World> {
    let world = World::new(&place.table()).await;
    if !can_have_sandboxes(&world.server).await {
        return None;
    }
    assert_eq!(world.put(TOKEN, "github", CANARY).await.status, 200);
    Some(world)
}

impl World {
    async fn make(&self, user: &str, body: Value) {
        let made = self.server.control("PUT", &format!("/v1/sandboxes/{user}"), Some(body)).await;
        assert!(made.status < 300, "{}", made.text());
    }

    async fn exec(&self, user: &str, command: Value) -> String {
        let path = format!("/v1/sandboxes/{user}/exec");
        let done = self.server.control("POST", &path, Some(json!({ "command": command }))).await;
        assert_eq!(done.status, 200, "{}", done.text());
        assert_clean(&done.body, "an answer");
        done.json()["stdout"].as_str().expect("text").to_owned()
    }

    /// Status and body of what `curl` gets inside.
    async fn curl(&self, user: &str, arguments: &[&str]) -> (u16, String) {
        let command = [&["curl", "-sS", "-w", "\n%{http_code}"], arguments].concat();
        let said = self.exec(user, json!(command)).await;
        let (body, status) = said.rsplit_once('\n').unwrap_or_default();
        (status.parse().unwrap_or_default(), body.to_owned())
    }

    async fn code(&self, user: &str, arguments: &[&str]) -> (u16, String) {
        let (status, body) = self.curl(user, arguments).await;
        let body: Value = serde_json::from_str(&body).unwrap_or_default();
        (status, body["code"].as_str().unwrap_or_default().to_owned())
    }

    /// An identity, asked for inside.
    async fn token(&self, user: &str, audience: &str, more: &str) -> String {
        let url = format!("http://identity.atoll/token?audience={audience}{more}");
        let (status, body) = self.curl(user, &[&url]).await;
        assert_eq!(status, 200, "{body}");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        body["token"].as_str().expect("a token").to_owned()
    }

    /// What the public endpoint of the proxy says to a token.
    async fn outside(&self, token: &str, proxy: &str) -> u16 {
        self.send(token, "GET", &format!("/v1/proxy/{proxy}/v1/x"), &[], "").await.status
    }
}

fn for_proxy(name: &str) -> String {
    format!("{ISSUER}/v1/proxy/{name}")
}

async fn a_program_inside_uses_a_secret_that_is_not_there(place: Place) {
    let Some(world) = world(&place).await else { return };
    world.make("ann", json!({ "egress": "all", "proxies": ["github"] })).await;
    world.make("bob", json!({ "egress": "all" })).await;
    let (status, body) = world.curl("ann", &["http://proxy.atoll/github/v1/x?y=1"]).await;
    assert!(
        status == 200 && body.starts_with("GET ") && body.contains("/v1/x?y=1\n") && body.contains("the end"),
        "{status} {body}"
    );
    assert_eq!(world.last_header("authorization"), [format!("Bearer {CANARY}")]);
    // Exactly one credential, whatever the program says; a body goes through.
    let own = ["-H", "authorization: Bearer mine", "-d", "some words", "http://proxy.atoll/github/v1/y"];
    let (status, body) = world.curl("ann", &own).await;
    assert!(status == 200 && body.contains("some words"), "{status} {body}");
    assert_eq!(world.last_header("authorization"), [format!("Bearer {CANARY}")]);
    let heard = world.heard.lock().expect("no test panicked").len();
    let no = |status: u16, code: &str| (status, code.to_owned());
    for (user, arguments, expected) in [
        ("ann", &["-X", "PUT", "http://proxy.atoll/github/v1/x"][..], no(403, "proxy_denied")),
        ("ann", &["http://proxy.atoll/other/v1/x"], no(403, "proxy_not_granted")),
        ("ann", &["http://proxy.atoll/"], no(403, "proxy_not_granted")),
        ("ann", &["--path-as-is", "http://proxy.atoll/x/../github/v1/x"], no(403, "proxy_not_granted")),
        ("ann", &["http://proxy.atoll:81/github/v1/x"], no(403, "egress_origin")),
        ("bob", &["http://proxy.atoll/github/v1/x"], no(403, "proxy_not_granted")),
        ("bob", &["http://identity.atoll/token?audience=https://a.example"], no(403, "audience_not_granted")),
    ] {
        assert_eq!(world.code(user, arguments).await, expected, "{user} {arguments:?}");
    }
    // Another user's token opens nothing in a sandbox, whoever gave it away.
    let anns = world.token("ann", &for_proxy("github"), "").await;
    let stolen = format!("authorization: Bearer {anns}");
    let replayed = world.code("bob", &["-H", &stolen, "http://proxy.atoll/github/v1/x"]).await;
    assert_eq!(replayed, no(403, "proxy_not_granted"));
    let gateway = format!("http://{}/v1/proxy/github/v1/x", world.server.address());
    assert_eq!(
        world.code("bob", &["--noproxy", "", "-H", &stolen, &gateway]).await,
        no(403, "egress_origin")
    );
    assert_eq!(world.heard.lock().expect("no test panicked").len(), heard, "none of it was heard");
    // Neither the secret nor a token is anywhere inside, also after it was used.
    let backwards = |text: &str| text.chars().rev().collect::<String>();
    let needles = [backwards(CANARY), backwards(&CANARY[4..20]), backwards(&anns)];
    let search = [&["python3", "-c", SEARCH][..], &needles.each_ref().map(String::as_str)].concat();
    for user in ["ann", "bob"] {
        assert_eq!(world.exec(user, json!(search)).await, "looked\n");
    }
    let variables = world.exec("ann", json!("env | grep ATOLL_ | sort")).await;
    assert_eq!(
        variables,
        "ATOLL_IDENTITY_URL=http://identity.atoll/token\nATOLL_PROXY_URL=http://proxy.atoll\n"
    );
    // Each use is told with who gave the right and whose sandbox it is.
    let page = world.server.control("GET", "/v1/audit?kind=crossing", None).await.json();
    let sandbox = world.server.control("GET", "/v1/sandboxes/ann", None).await.json()["id"].clone();
    let uses: Vec<&Value> =
        page["records"].as_array().expect("records").iter().filter(|r| r["capability"] == "github").collect();
    assert_eq!(uses.len(), 3, "{page}");
    for record in uses {
        let who = (&record["worker"], &record["user"], &record["sandbox"]);
        assert_eq!(who, (&json!("api"), &json!("ann"), &sandbox), "{record}");
    }
    assert_clean(page.to_string().as_bytes(), "the audit log");
    assert_clean(world.server.log().as_bytes(), "the log");
}

async fn a_sandbox_says_whose_it_is_for_a_minute(place: Place) {
    let Some(world) = world(&place).await else { return };
    let rights = json!({ "egress": "all", "proxies": ["github"], "audiences": [AUDIENCE] });
    world.make("ann", rights.clone()).await;
    let variables = json!("env | grep -o ATOLL_.*URL= | sort");
    assert_eq!(world.exec("ann", variables.clone()).await, "ATOLL_IDENTITY_URL=\nATOLL_PROXY_URL=\n");
    world.make("ann", json!({ "egress": "all", "audiences": [AUDIENCE] })).await;
    assert_eq!(world.exec("ann", variables).await, "ATOLL_IDENTITY_URL=\n");
    world.make("ann", rights.clone()).await;
    world.make("bob", json!({ "audiences": [AUDIENCE] })).await;
    let id = world.server.control("GET", "/v1/sandboxes/ann", None).await.json()["id"].clone();
    let claims = verified(&world, &world.token("ann", AUDIENCE, "").await, AUDIENCE).await.expect("valid");
    let life = claims["exp"].as_u64().expect("a number") - claims["iat"].as_u64().expect("a number");
    assert_eq!((life, &claims["sub"], &claims["tenant"]), (60, &json!("acme/user:ann"), &json!("acme")));
    assert_eq!((&claims["user"], &claims["sandbox"], &claims["worker"]), (&json!("ann"), &id, &json!("api")));
    // Another user's is another one, and says so.
    let bobs = world.token("bob", AUDIENCE, "").await;
    assert_eq!(verified(&world, &bobs, AUDIENCE).await.expect("valid")["sub"], "acme/user:bob");
    let no = |status: u16, code: &str| (status, code.to_owned());
    let at = |rest: &str| format!("http://identity.atoll/{rest}");
    for (user, arguments, expected) in [
        ("ann", vec![at("token?audience=https://other.example")], no(403, "audience_not_granted")),
        ("ann", vec![at(&format!("token?audience={ISSUER}"))], no(403, "audience_not_granted")),
        ("ann", vec![at(&format!("token?audience={}", for_proxy("other")))], no(403, "audience_not_granted")),
        (
            "bob",
            vec![at(&format!("token?audience={}", for_proxy("github")))],
            no(403, "audience_not_granted"),
        ),
        ("ann", vec![at("token")], no(400, "bad_request")),
        ("ann", vec![at(&format!("token?audience={AUDIENCE}&user=bob"))], no(400, "bad_request")),
        (
            "ann",
            vec![at(&format!("token?audience={AUDIENCE}&expiresInSeconds=3600"))],
            no(400, "bad_request"),
        ),
        (
            "ann",
            vec!["-d".into(), "x".into(), at(&format!("token?audience={AUDIENCE}"))],
            no(405, "method_not_allowed"),
        ),
        ("ann", vec![at("")], no(404, "not_found")),
        // Rights alone are no way to anywhere else.
        ("bob", vec![world.url("/v1/x").replace("https", "http")], no(403, "egress_none")),
    ] {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        assert_eq!(world.code(user, &arguments).await, expected, "{user} {arguments:?}");
    }
    // The public endpoint takes one for its proxy, once, and for nothing else.
    let token = world.token("ann", &for_proxy("github"), "").await;
    assert_eq!(world.outside(&token, "other").await, 401, "the audience is another one");
    assert_eq!(world.outside(&token, "github").await, 200);
    assert_eq!(world.outside(&token, "github").await, 401, "it was used");
    let elsewhere = world.token("ann", AUDIENCE, "").await;
    assert_eq!(world.outside(&elsewhere, "github").await, 401);
    let short = world.token("ann", &for_proxy("github"), "&expiresInSeconds=1").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.outside(&short, "github").await, 401, "its second is over");
    // It is worth nothing without the right, and nothing without the sandbox.
    let without = world.token("ann", &for_proxy("github"), "").await;
    world.make("ann", json!({ "egress": "all", "audiences": [AUDIENCE] })).await;
    assert_eq!(world.outside(&without, "github").await, 401, "the right was taken back");
    world.make("ann", rights.clone()).await;
    let orphan = world.token("ann", &for_proxy("github"), "").await;
    assert_eq!(world.server.control("DELETE", "/v1/sandboxes/ann", None).await.status, 204);
    assert_eq!(world.outside(&orphan, "github").await, 401, "its sandbox is over");
    world.make("ann", rights).await;
    let orphan = world.outside(&orphan, "github").await;
    assert_eq!(orphan, 401, "a successor is another sandbox");
    // Who asks without end is told to ask less.
    let many = "import http.client\nc = http.client.HTTPConnection('127.0.0.1', 3128)\ncodes = set()\n\
                for _ in range(200):\n    c.request('GET', 'http://identity.atoll/x')\n    a = c.getresponse()\n    a.read()\n    codes.add(a.status)\n\
                print(sorted(codes))";
    assert_eq!(world.exec("bob", json!(["python3", "-c", many])).await, "[404, 429]\n");
    // All of a sandbox's identities are revoked by its name.
    let revoked = world.token("ann", &for_proxy("github"), "").await;
    let id = world.server.control("GET", "/v1/sandboxes/ann", None).await.json()["id"].clone();
    assert_eq!(
        world.server.control("POST", "/v1/tokens/revoke", Some(json!({ "id": id }))).await.status,
        204
    );
    assert_eq!(world.outside(&revoked, "github").await, 401);
}

async fn rights_are_given_by_who_has_them(place: Place) {
    let Some(world) = world(&place).await else { return };
    let make = |token: String, body: Value| {
        let server = &world.server;
        async move { server.control_as(&token, "PUT", "/v1/sandboxes/ann", Some(body)).await }
    };
    // A token for sandboxes alone gives no rights that it does not have.
    let made =
        world.server.control("POST", "/v1/tokens", Some(json!({ "name": "s", "scopes": ["sandbox"] }))).await;
    let plain = made.json()["token"].as_str().unwrap_or_else(|| panic!("{}", made.text())).to_owned();
    for (token, body, status, code) in [
        (&*plain, json!({ "proxies": ["github"] }), 403, "forbidden"),
        (&*plain, json!({ "audiences": [AUDIENCE] }), 403, "forbidden"),
        (TOKEN, json!({ "proxies": ["missing"] }), 422, "invalid_setting"),
        (TOKEN, json!({ "audiences": [""] }), 422, "invalid_setting"),
        (TOKEN, json!({ "audiences": [ISSUER] }), 422, "invalid_setting"),
        (TOKEN, json!({ "audiences": [for_proxy("github")] }), 422, "invalid_setting"),
        (TOKEN, json!({ "audiences": vec![AUDIENCE; 33] }), 422, "invalid_setting"),
        (TOKEN, json!({ "rights": ["github"] }), 400, "json_shape"),
    ] {
        let answer = make(token.to_owned(), body.clone()).await;
        assert_eq!((answer.status, &answer.json()["code"]), (status, &json!(code)), "{body}");
    }
    assert_eq!(make(plain, json!({})).await.status, 201);
    // A neighbour's user of the same name is somebody else, with the neighbour's own secret, which there is not.
    let theirs = make(NEIGHBOUR_TOKEN.to_owned(), json!({ "proxies": ["github"] })).await;
    assert_eq!(theirs.status, 201, "{}", theirs.text());
    let command = json!({ "command": ["curl", "-sS", "http://proxy.atoll/github/v1/x"] });
    let heard = world.heard.lock().expect("no test panicked").len();
    let done = world
        .server
        .control_as(NEIGHBOUR_TOKEN, "POST", "/v1/sandboxes/ann/exec", Some(command))
        .await
        .json();
    assert!(done["stdout"].as_str().is_some_and(|text| text.contains("upstream_failed")), "{done}");
    assert_eq!(world.heard.lock().expect("no test panicked").len(), heard);
    // A step has its rights while it runs, and in a sandbox only.
    let code = "curl -sS http://proxy.atoll/github/v1/step";
    let mut step = json!({ "language": "shell", "user": "steps", "code": code, "proxies": ["github"], "audiences": [AUDIENCE] });
    let answer = world.server.execute(step.clone()).await;
    assert_clean(&answer.body, "a step's answer");
    let answer = answer.json();
    let said = answer["process"]["stdout"].as_str().unwrap_or_else(|| panic!("{answer}"));
    assert!(said.contains("/v1/step\n") && said.contains("the end"), "{answer}");
    let after = json!({ "command": "curl -sS -x http://127.0.0.1:3128 http://proxy.atoll/github/v1/step" });
    let after = world.server.control("POST", "/v1/sandboxes/steps/exec", Some(after)).await.json();
    assert!(after["stdout"].as_str().is_some_and(|text| text.contains("egress_none")), "{after}");
    step["proxies"] = json!(["missing"]);
    assert_eq!(world.server.execute(step).await.json()["code"], "invalid_setting");
    let isolate = json!({ "code": "return 1", "proxies": ["github"], "runtime": "isolate" });
    assert_eq!(world.server.execute(isolate).await.json()["code"], "rights_in_isolate");
    // A worker's binding names what its sandboxes may do.
    let source = "export default { async fetch(request, { SANDBOX }) {
        const done = await SANDBOX.get('carl').exec(['curl', '-sS', await request.text()]);
        return new Response(done.stdout + done.stderr);
    } }";
    let mut body = deployment(&Worker::single("agent", source));
    for (proxy, status) in [("missing", 422), ("github", 201)] {
        body["bindings"] =
            json!({ "SANDBOX": { "type": "sandbox", "proxies": [proxy], "audiences": [AUDIENCE] } });
        let answer = world.server.control("PUT", "/v1/workers/agent", Some(body.clone())).await;
        assert_eq!(answer.status, status, "{}", answer.text());
    }
    let ask = Request::new("POST", "/").body("http://proxy.atoll/github/v1/w");
    let answer = world.server.send("agent", &ask).await;
    assert!(answer.text().starts_with("GET ") && answer.text().contains("/v1/w\n"), "{}", answer.text());
    assert_clean(&answer.body, "the worker's answer");
    let ask = Request::new("POST", "/").body(format!("http://identity.atoll/token?audience={AUDIENCE}"));
    let token = world.server.send("agent", &ask).await.json()["token"].as_str().expect("a token").to_owned();
    let claims = verified(&world, &token, AUDIENCE).await.expect("valid");
    assert_eq!((&claims["sub"], &claims["worker"]), (&json!("acme/user:carl"), &json!("agent")));
    // Both hops are told with both: the worker, and the user's sandbox.
    let page = world.server.control("GET", "/v1/audit?kind=crossing&worker=agent", None).await.json();
    let records = page["records"].as_array().expect("records");
    for capability in ["sandbox/exec", "github", "identity"] {
        let record = records.iter().find(|record| record["capability"] == capability);
        let record = record.unwrap_or_else(|| panic!("{capability}: {page}"));
        assert_eq!(record["user"], "carl", "{record}");
        assert!(record["sandbox"].is_string(), "{record}");
    }
    let made = records.iter().find(|record| record["capability"] == "identity").expect("found above");
    let minted = json!({ "id": claims["jti"], "seconds": 60 });
    assert_eq!((&made["origin"], &made["minted"]), (&json!(AUDIENCE), &minted), "{made}");
    assert_eq!(made["execution"], Value::Null, "it is the sandbox's, of no invocation: {made}");
    let exec = records.iter().find(|record| record["capability"] == "sandbox/exec").expect("found above");
    assert!(exec["execution"].is_string(), "{exec}");
}

on_each_backend!(
    a_program_inside_uses_a_secret_that_is_not_there,
    a_sandbox_says_whose_it_is_for_a_minute,
    rights_are_given_by_who_has_them,
);
