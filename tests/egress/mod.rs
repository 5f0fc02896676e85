//! Policy classes through the real binary: a guest's `fetch()` against an origin over TLS, a name server, and a redirect.

mod connect;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::outside::{Answer, NameServer, Outside, Web};
use crate::support::atoll::{Atoll, NEIGHBOUR_TOKEN, Options};
use crate::support::canary::{key_file, secrets_config};

/// An origin with a redirect, a long answer, and a word for everything else.
fn origin(parts: http::request::Parts, _body: Bytes) -> Answer {
    let query = parts.uri.query().unwrap_or_default();
    let mut answer = Response::new(Full::from("reached"));
    match parts.uri.path() {
        "/v1/redirect" => {
            *answer.status_mut() = StatusCode::FOUND;
            answer.headers_mut().insert("location", query.parse().expect("a location"));
        }
        // To whom it was addressed, as the origin sees it.
        "/v1/host" => {
            let host = parts.headers.get("host").and_then(|host| host.to_str().ok());
            let host = host.or_else(|| parts.uri.authority().map(|authority| authority.as_str()));
            *answer.body_mut() = Full::from(host.unwrap_or_default().to_owned());
        }
        "/v1/long" => *answer.body_mut() = Full::from(vec![b'x'; 5_000]),
        _ => {}
    }
    answer
}

pub(crate) struct World {
    pub(crate) server: Atoll,
    pub(crate) web: Web,
    _outside: Outside,
    _key: tempfile::NamedTempFile,
}

pub(crate) async fn world() -> World {
    let web = Web::tls(&["api.test", "other.test"], origin).await;
    let names = NameServer::new(&[
        ("api.test", &[&["127.0.0.1"]]),
        ("other.test", &[&["127.0.0.1"]]),
        ("rebind.test", &[&["127.0.0.1"], &["169.254.169.254"]]),
        ("meta.test", &[&["169.254.169.254"]]),
        ("mixed.test", &[&["10.0.0.1", "127.0.0.1"]]),
        ("inside.test", &[&["10.0.0.1", "fd00::1"]]),
    ])
    .await;
    let outside = Outside::new(&web, &names);
    let port = web.port;
    let classes = format!(
        "[egress.std]\nallow = [{{ origin = \"api.test:{port}\", methods = [\"GET\"], paths = [\"/v1\"] }}, \"*:{port}\"]\n\
         deny = [\"other.test\", {{ origin = \"api.test\", paths = [\"/v1/admin\"] }}]\nresponse_bytes_max = 1000\n\
         request_bytes_max = 10\n\
         [egress.slow]\nallow = [\"api.test:{port}\"]\nrequests_per_second = 1\n\
         [egress.narrow]\nallow = [{{ origin = \"api.test:{port}\", methods = [\"GET\"], paths = [\"/v1\"] }}]\n\
         [egress.all]\nallow = [\"*:*\", \"http://*:*\"]\n[egress.none]\nallow = []\n\
         [egress.theirs]\nallow = [\"*\"]\n"
    );
    let key = key_file(1);
    // For those who look for a secret; it is none before it is kept.
    let proxy = format!(
        "[proxy.vault]\ntenants = [\"*\"]\norigin = \"api.test:{port}\"\nsecret = \"vault\"\ninject = {{ type = \"bearer\" }}\n"
    );
    let config = format!("{}{classes}{}{proxy}", outside.config, secrets_config(&key));
    let tenant = "egress = [\"std\", \"slow\", \"narrow\", \"all\", \"none\"]".to_owned();
    let server = Atoll::start(Options { config, tenant, ..Options::default() }).await;
    World { server, web, _outside: outside, _key: key }
}

/// Fetches each URL in turn; a status and the text, or what the guest caught.
pub(crate) const SNIPPET: &str = "const out = [];
for (const [method, url, body] of input) {
  try {
    const answer = await fetch(url, { method, body });
    out.push(answer.status + ' ' + await answer.text());
  } catch (error) { out.push(String(error.message ?? error)); }
}
return out;";

impl World {
    async fn run(&self, class: &str, requests: Value) -> Vec<String> {
        let body = json!({ "code": SNIPPET, "input": requests, "egress": class });
        let answer = self.server.execute(body).await.json();
        let list = answer["result"].as_array().unwrap_or_else(|| panic!("{answer}")).clone();
        list.iter().map(|text| text.as_str().unwrap_or_default().to_owned()).collect()
    }

    pub(crate) fn url(&self, host: &str, path: &str) -> String {
        format!("https://{host}:{}{path}", self.web.port)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_rules_origin_method_path_and_every_hop() {
    let world = world().await;
    let url = |path: &str| world.url("api.test", path);
    let to = |next: &str| url(&format!("/v1/redirect?{next}"));
    let cases = [
        ("narrow", "GET", url("/v1/x"), "200 reached"),
        ("narrow", "DELETE", url("/v1/x"), "egress_method"),
        ("narrow", "GET", url("/v2"), "egress_path"),
        ("narrow", "GET", url("/v1/..%2fv2"), "egress_path"),
        ("narrow", "GET", "https://api.test/v1".to_owned(), "egress_origin"),
        ("narrow", "GET", world.url("other.test", "/v1"), "egress_origin"),
        ("narrow", "GET", to(&url("/v1/x")), "200 reached"),
        ("narrow", "GET", to(&url("/v2")), "egress_path"),
        ("narrow", "GET", to("http://169.254.169.254/"), "egress_origin"),
        ("std", "GET", url("/v1/admin"), "egress_rule"),
        ("std", "GET", to(&world.url("other.test", "/")), "egress_rule"),
        ("std", "GET", url("/v1/long"), "egress_response_bytes"),
        ("std", "GET", world.url("inside.test", "/"), "egress_address"),
        ("std", "GET", world.url("169.254.169.254", "/"), "egress_address"),
        ("std", "GET", world.url("0xa9fea9fe", "/"), "egress_address"),
        ("std", "GET", world.url("[::ffff:7f00:1]", "/"), "egress_address"),
        ("std", "GET", world.url("127.0.0.1.", "/"), "TLS"),
    ];
    for (class, method, url, expected) in cases {
        let told = world.run(class, json!([[method, url, null]])).await;
        assert!(told[0].contains(expected), "{class} {method} {url}: {told:?}");
    }
    let large = world.run("std", json!([["POST", url("/v1/x"), "more than ten bytes"]])).await;
    assert!(large[0].contains("egress_request_bytes"), "{large:?}");
    let metrics = world.server.control("GET", "/metrics", None).await.text();
    assert!(metrics.contains("atoll_crossings_total{verdict=\"egress_address\"} 4"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_changes_is_judged_at_each_dial_and_rates_are_the_tenants() {
    let world = world().await;
    let rebind = world.url("rebind.test", "/");
    // The certificate is for other names: a refused handshake shows that the vetted address was dialled.
    let told = world.run("std", json!([["GET", rebind, null], ["GET", rebind, null]])).await;
    assert!(told[0].contains("TLS") && told[1].contains("egress_address"), "{told:?}");
    // Two executions share the tenant's rate; a burst far over it cannot all pass in the time it takes.
    let url = world.url("api.test", "/v1/x");
    let burst = json!((0..20).map(|_| json!(["GET", url, null])).collect::<Vec<_>>());
    let (one, two) = tokio::join!(world.run("slow", burst.clone()), world.run("slow", burst));
    let denied = one.iter().chain(&two).filter(|text| text.contains("egress_rate")).count();
    assert!(denied > 0, "{one:?} {two:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_names_only_the_classes_that_it_was_given() {
    let world = world().await;
    for (class, code) in [("theirs", "forbidden_setting"), ("missing", "forbidden_setting")] {
        let refused = world.server.execute(json!({ "code": "1", "egress": class })).await;
        assert!(refused.text().contains(code), "{class}: {}", refused.text());
    }
    // A list of hosts is narrowed by the tenant's first class.
    let url = world.url("api.test", "/v1/admin");
    let body = json!({ "code": SNIPPET, "input": [["GET", url, null]], "outbound": [format!("api.test:{}", world.web.port)] });
    let told = world.server.control_as(NEIGHBOUR_TOKEN, "POST", "/v1/execute", Some(body)).await.text();
    assert!(told.contains("egress_rule"), "{told}");
}
