//! The way out of a sandbox: none by default; with one, only what the policy lets through.

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};

use super::Server;
use super::backends::{Place, on_each_backend};
use crate::outside::{Answer, NameServer, Outside, Web};
use crate::support::atoll::{NEIGHBOUR_TOKEN, Options};

fn origin(parts: http::request::Parts, body: Bytes) -> Answer {
    let told = format!("{} {} {}", parts.method, parts.uri.path(), String::from_utf8_lossy(&body));
    Response::new(Full::from(told))
}

/// Asks the proxy of HTTP_PROXY, or dials by itself without one. Prints a status and the code or the body of each answer.
const ASK: &str = r#"
import http.client, json, os, sys, urllib.parse
proxy = urllib.parse.urlparse(os.environ.get("HTTP_PROXY", "http://127.0.0.1:3128"))
for method, url, body in json.loads(sys.argv[1]):
    # A number stands for so many bytes.
    body = b"x" * body if isinstance(body, int) else body
    try:
        connection = http.client.HTTPConnection(proxy.hostname, proxy.port, timeout=20)
        connection.request(method, url, body)
        answer = connection.getresponse()
        text = answer.read().decode()
        print(answer.status, json.loads(text)["code"] if text.startswith("{") else text)
    except OSError as error:
        print("no", type(error).__name__)
"#;

struct World {
    server: Server,
    web: Web,
    _outside: Outside,
}

async fn world(place: Place) -> Option<World> {
    let web = Web::tls(&["api.test"], origin).await;
    let names = NameServer::new(&[("api.test", &[&["127.0.0.1"]]), ("inside.test", &[&["10.0.0.1"]])]).await;
    let outside = Outside::new(&web, &names);
    let port = web.port;
    let classes = format!(
        "[egress.apis]\nallow = [{{ origin = \"api.test:{port}\", methods = [\"GET\", \"POST\"], paths = [\"/v1\"] }}, \"inside.test:{port}\"]\n"
    );
    let config = format!("{}\n{}{classes}", place.config(), outside.config);
    let tenant = "egress = [\"apis\"]".to_owned();
    let server = place.start(Options { config, tenant, ..Options::default() }).await?;
    Some(World { server, web, _outside: outside })
}

impl World {
    fn url(&self, host: &str, path: &str) -> String {
        format!("https://{host}:{}{path}", self.web.port)
    }

    /// What a program in the user's sandbox gets for each (method, URL, body).
    async fn ask(&self, user: &str, requests: Value) -> Vec<String> {
        let done =
            self.server.exec(user, json!({ "command": ["python3", "-c", ASK, requests.to_string()] })).await;
        assert_eq!(done["success"], true, "{done}");
        done["stdout"].as_str().expect("text").lines().map(str::to_owned).collect()
    }
}

async fn a_sandbox_reaches_what_its_class_lets_through_and_nothing_else(place: Place) {
    let Some(world) = world(place).await else { return };
    let good = world.url("api.test", "/v1/x");
    // By default nothing is there: no proxy, no variable, no interface.
    assert_eq!(world.ask("none", json!([["GET", good, null]])).await, ["no ConnectionRefusedError"]);
    assert_eq!(
        world
            .server
            .out("none", "env | grep -ci proxy || true; ls /sys/class/net 2>/dev/null | grep -v lo || true")
            .await,
        "0\n"
    );
    let made = world.server.control("PUT", "/v1/sandboxes/ann", Some(json!({ "egress": "apis" }))).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let rows = [
        ("GET", good.clone(), Value::Null, "200 GET /v1/x "),
        ("POST", good.clone(), json!("body"), "200 POST /v1/x body"),
        ("DELETE", good.clone(), Value::Null, "403 egress_method"),
        ("GET", world.url("api.test", "/v2"), Value::Null, "403 egress_path"),
        ("GET", world.url("api.test", "/v1/..%2fv2"), Value::Null, "403 egress_path"),
        // This client sends all of it before it reads: the refusal must not be overtaken by a reset.
        ("POST", world.url("api.test", "/v2"), json!(20 << 20), "403 egress_path"),
        ("GET", world.url("other.test", "/v1"), Value::Null, "403 egress_origin"),
        ("GET", "http://169.254.169.254/latest".to_owned(), Value::Null, "403 egress_origin"),
        ("GET", world.url("inside.test", "/"), Value::Null, "403 egress_address"),
        ("GET", format!("http://{}/v1/sandboxes", world.server.address()), Value::Null, "403 egress_origin"),
        ("CONNECT", format!("api.test:{}", world.web.port), Value::Null, "403 egress_tunnel"),
        ("GET", "/v1/x".to_owned(), Value::Null, "400 bad_request"),
    ];
    let asked: Vec<Value> = rows.iter().map(|(method, url, body, _)| json!([method, url, body])).collect();
    let told = world.ask("ann", asked.into()).await;
    for ((method, url, _, expected), got) in rows.iter().zip(&told) {
        assert_eq!(got.trim_end(), expected.trim_end(), "{method} {url}");
    }
    assert_eq!(told.len(), rows.len());
    // The host's own loopback is not there, and other users have nothing of it.
    let direct = format!(
        "python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", {}), 5)' 2>&1 | tail -1",
        world.web.port
    );
    assert!(
        world.server.out("ann", &direct).await.contains("ConnectionRefused"),
        "the host's loopback is another one"
    );
    assert_eq!(world.ask("bob", json!([["GET", good, null]])).await, ["no ConnectionRefusedError"]);
    let metrics = world.server.control("GET", "/metrics", None).await.text();
    assert!(metrics.contains("atoll_crossings_total{verdict=\"egress_address\"} 1"), "{metrics}");
    // A tenant names its own classes only.
    let theirs = world
        .server
        .control_as(NEIGHBOUR_TOKEN, "PUT", "/v1/sandboxes/x", Some(json!({ "egress": "none" })))
        .await;
    assert_eq!((theirs.status, &theirs.json()["code"]), (403, &json!("forbidden_setting")));
    world.server.finish();
}

async fn a_step_has_its_way_out_while_it_runs(place: Place) {
    let Some(world) = world(place).await else { return };
    let good = world.url("api.test", "/v1/step");
    let requests = json!([["GET", good, null], ["DELETE", good, null]]);
    let python = format!("import sys\nsys.argv = ['x', '''{requests}''']\n{ASK}");
    let step = json!({ "language": "python", "user": "ann", "code": python, "egress": "apis" });
    let answer = world.server.execute(step.clone()).await.json();
    assert_eq!(answer["process"]["stdout"], "200 GET /v1/step \n403 egress_method\n", "{answer}");
    // Its way out ends with it: the port is there, and leads nowhere.
    assert_eq!(world.ask("ann", json!([["GET", good, null]])).await, ["403 egress_none"]);
    let mut without = step;
    without["egress"] = Value::Null;
    let answer = world.server.execute(without).await.json();
    assert_eq!(answer["process"]["stdout"], "403 egress_none\n403 egress_none\n", "{answer}");
    let listed = json!({ "language": "python", "user": "bob", "code": python, "outbound": [format!("api.test:{}", world.web.port)] });
    let answer = world.server.execute(listed).await.json();
    assert_eq!(
        answer["process"]["stdout"], "200 GET /v1/step \n403 egress_method\n",
        "a list is narrowed by the class: {answer}"
    );
    world.server.finish();
}

async fn a_workers_binding_says_what_its_sandboxes_reach(place: Place) {
    let Some(world) = world(place).await else { return };
    let source = "export default { async fetch(request, { SANDBOX }) {
        const done = await SANDBOX.get('ann').exec(['python3', '-c', await request.text(), new URL(request.url).searchParams.get('ask')]);
        return new Response(done.stdout + done.stderr);
    } }";
    let worker = crate::support::worker::Worker::single("agent", source);
    let mut body = crate::support::atoll::deployment(&worker);
    for (egress, status) in [("none", 403), ("apis", 201)] {
        body["bindings"] = json!({ "SANDBOX": { "type": "sandbox", "egress": egress } });
        let answer = world.server.control("PUT", "/v1/workers/agent", Some(body.clone())).await;
        assert_eq!(answer.status, status, "{}", answer.text());
    }
    let asked =
        json!([["GET", world.url("api.test", "/v1/w"), null], ["GET", world.url("api.test", "/v2"), null]])
            .to_string();
    let asked: String = form_urlencoded::byte_serialize(asked.as_bytes()).collect();
    let request = crate::support::worker::Request::new("POST", &format!("/?ask={asked}")).body(ASK);
    assert_eq!(world.server.send("agent", &request).await.text(), "200 GET /v1/w \n403 egress_path\n");
    world.server.finish();
}

on_each_backend!(
    a_sandbox_reaches_what_its_class_lets_through_and_nothing_else,
    a_step_has_its_way_out_while_it_runs,
    a_workers_binding_says_what_its_sandboxes_reach,
);
