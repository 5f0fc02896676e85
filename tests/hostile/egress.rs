//! Rows 79 to 87: requests to where no guest may get. Each is denied with its code, and told in the audit log under that code.

use serde_json::{Value, json};

use super::cut;
use crate::egress::{SNIPPET, World, world};
use crate::support::atoll::TENANT;
use crate::vault::{keep_secret, search_written};

/// Rows of the table that live here.
pub(super) const ROWS: &[u32] = &[79, 80, 81, 82, 83, 84, 85, 86, 87];

/// One attempt: row, policy class, method, URL, and what must be in what the guest sees.
type Attempt = (&'static str, &'static str, &'static str, String, &'static str);

/// Denied because of the address that the name or the spelling leads to.
const ADDRESS: &str = "egress_address";
const ORIGIN: &str = "egress_origin";

fn attempts(world: &World) -> Vec<Attempt> {
    let port = world.web.port;
    let at = |host: &str| world.url(host, "/v1/x");
    let api = |path: &str| world.url("api.test", path);
    let to = |next: &str| api(&format!("/v1/redirect?{next}"));
    let own = world.server.address().port();
    let mut rows: Vec<Attempt> = vec![
        ("79", "all", "GET", "http://169.254.169.254/latest/meta-data/".into(), ADDRESS),
        ("79", "all", "GET", "http://[fd00:ec2::254]/latest/".into(), ADDRESS),
        ("79", "all", "GET", at("meta.test"), ADDRESS),
        ("81", "all", "GET", at("inside.test"), ADDRESS),
        // Only the vetted address is dialled; the certificate of what is there is for other names.
        ("81", "all", "GET", at("rebind.test"), "TLS"),
        ("81", "all", "GET", at("rebind.test"), ADDRESS),
        ("82", "narrow", "GET", to("http://169.254.169.254/"), ORIGIN),
        ("82", "narrow", "GET", to(&format!("http://api.test:{port}/v1/x")), ORIGIN),
        ("82", "narrow", "GET", to("https://api.test:1/v1/x"), ORIGIN),
        ("82", "narrow", "GET", to(&api("/v2")), "egress_path"),
        ("82", "all", "GET", to(&at("meta.test")), ADDRESS),
        ("83", "narrow", "GET", api("/v1/..%2fv2"), "egress_path"),
        ("83", "narrow", "GET", api("/v1/%2e%2e/v2"), "egress_path"),
        ("83", "narrow", "GET", api("/v1/..;/v2"), "egress_path"),
        ("83", "narrow", "GET", api("/v1%5c..%5cv2"), "egress_path"),
        ("83", "all", "CONNECT", api("/v1/x"), "CONNECT"),
        ("84", "all", "GET", format!("http://127.0.0.1:{own}/healthz"), ADDRESS),
        ("84", "all", "GET", format!("http://localhost:{own}/healthz"), ADDRESS),
        ("84", "all", "GET", format!("http://[::1]:{own}/healthz"), ADDRESS),
        ("86", "narrow", "GET", "unix:/var/run/docker.sock".into(), ""),
        ("86", "narrow", "GET", "file:///etc/passwd".into(), ""),
        ("86", "narrow", "GET", "ftp://api.test/v1".into(), ""),
        ("86", "narrow", "GET", "https://api.test:22/v1".into(), ORIGIN),
        ("87", "none", "GET", api("/v1/x"), ORIGIN),
    ];
    for host in [
        "0xa9fea9fe",
        "2852039166",
        "0251.0376.0251.0376",
        "169.254.43518",
        "169.254.169.254.",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::1]",
        "0.0.0.0",
        "100.64.0.1",
        "10.0.0.1",
        "\u{ff11}69.254.169.254",
    ] {
        rows.push(("80", "all", "GET", at(host), ADDRESS));
    }
    rows.push(("80", "all", "GET", at("api.test@169.254.169.254"), "credentials"));
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn nowhere_that_a_guest_may_not_get_is_reached_and_each_denial_is_told() {
    let mut world = world().await;
    keep_secret(&world.server).await;
    let binding = json!({ "VAULT": { "type": "secret_proxy", "proxy": "vault" } });
    world.server.give_all(binding, json!({ "VAULT_URL": world.url("api.test", "/v1/x") }));
    let used =
        world.server.execute(json!({ "code": "return (await env.VAULT.fetch(env.VAULT_URL)).status" }));
    assert_eq!(used.await.json()["result"], 200, "the secret is in use");
    let mut failures = vec![];
    for (row, class, method, url, expected) in attempts(&world) {
        let body = json!({ "code": SNIPPET, "input": [[method, url, null]], "egress": class });
        let answer = world.server.execute(body).await.json();
        let seen = answer["result"][0].as_str().unwrap_or_default().to_owned();
        println!("{row:<5} {class:<8} {method} {url:<60} {}", cut(&seen));
        let reached = seen.starts_with("200") || !seen.contains(expected) || seen.is_empty();
        if reached {
            failures.push(format!("row {row}: {class} {method} {url}: {answer}"));
        }
        if expected.starts_with("egress_") && !told(&world, &answer["id"], expected).await {
            failures.push(format!("row {row}: {url}: no record of {expected}"));
        }
        if world.server.control("GET", "/healthz", None).await.status != 200 {
            failures.push(format!("row {row}: the gateway does not answer"));
        }
    }
    // Row 85: what a guest says of Host changes nothing.
    let code = format!(
        "return await (await fetch('{}', {{ headers: {{ host: 'evil.test' }} }})).text()",
        world.url("api.test", "/v1/host")
    );
    let answer = world.server.execute(json!({ "code": code, "egress": "narrow" })).await.json();
    let own = format!("api.test:{}", world.web.port);
    if answer["result"] != json!(own) {
        failures.push(format!("row 85: the origin saw another host: {answer}"));
    }
    // Row 87: and without a word about the network there is none.
    let answer = world.server.execute(json!({ "code": "return await fetch('https://api.test/')" })).await;
    if answer.json()["ok"] != json!(false) {
        failures.push(format!("row 87: {}", answer.text()));
    }
    search_written(&world.server);
    assert!(failures.is_empty(), "{} failures for {TENANT}:\n{}", failures.len(), failures.join("\n"));
}

/// Whether the audit log has the denial, under this execution.
async fn told(world: &World, execution: &Value, code: &str) -> bool {
    let page = world.server.control("GET", "/v1/audit?kind=crossing&limit=1000", None).await.json();
    let records = page["records"].as_array().cloned().unwrap_or_default();
    records.iter().any(|record| record["execution"] == *execution && record["outcome"] == code)
}
