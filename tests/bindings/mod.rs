//! Bindings of deployed workers, over real servers: what a deployment may ask for, and what each kind does for a guest.

mod kv;
mod kv_api;
mod loaded;
mod logger;
mod service;

use serde_json::{Value, json};

use crate::support::atoll::{Atoll, Options, TOKEN, deployment};
use crate::support::client::Answer;
use crate::support::worker::{Request, Worker};

/// Deploys a worker of one module with these bindings.
async fn deploy(server: &Atoll, token: &str, name: &str, source: &str, bindings: Value) -> Answer {
    let mut body = deployment(&Worker::single(name, source));
    body["bindings"] = bindings;
    server.control_as(token, "PUT", &format!("/v1/workers/{name}"), Some(body)).await
}

/// The same, and it must be taken.
async fn deployed(server: &Atoll, name: &str, source: &str, bindings: Value) {
    let answer = deploy(server, TOKEN, name, source, bindings).await;
    assert!(answer.status < 300, "{name}: {} {}", answer.status, answer.text());
}

/// The JSON that a worker answers to `GET path`.
async fn get(server: &Atoll, worker: &str, path: &str) -> Value {
    let answer = server.send(worker, &Request::new("GET", path)).await;
    assert_eq!(answer.status, 200, "{worker}{path}: {}", answer.text());
    answer.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_make_no_sense_are_refused_and_good_ones_told() {
    let server = Atoll::start(Options::default()).await;
    let source = "export default { fetch() { return new Response('ok') } }";
    for (bindings, status, code) in [
        (json!({ "LOG": { "type": "nothing" } }), 400, "json_shape"),
        (json!({ "LOG": {} }), 400, "json_shape"),
        (json!({ "LOG": { "type": "logger", "extra": 1 } }), 400, "json_shape"),
        (json!({ "a-b": { "type": "logger" } }), 422, "invalid_setting"),
        (json!({ "__proto__": { "type": "logger" } }), 422, "invalid_setting"),
    ] {
        let answer = deploy(&server, TOKEN, "w", source, bindings.clone()).await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{bindings}");
    }
    let many: serde_json::Map<String, Value> =
        (0..101).map(|at| (format!("L{at}"), json!({ "type": "logger" }))).collect();
    let answer = deploy(&server, TOKEN, "w", source, many.into()).await;
    assert_eq!(answer.status, 422, "{}", answer.text());
    let good = json!({ "LOG": { "type": "logger" } });
    deployed(&server, "w", source, good.clone()).await;
    let told = server.control("GET", "/v1/workers/w", None).await.json();
    assert_eq!(told["bindings"], good);
}
