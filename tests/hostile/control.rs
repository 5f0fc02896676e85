//! Rows 112 to 115: the control plane against uploads that explode, names that climb, JSON that two parsers read differently,
//! and changes that race.

use serde_json::{Value, json};

use super::{Stage, cut, problem_code};
use crate::support::atoll::{NEIGHBOUR_TOKEN, TOKEN};
use crate::support::client;
use crate::support::worker::{Request, Worker};

/// Rows of the table that live here; 116 is in `tests/audit`.
pub(super) const ROWS: &[u32] = &[112, 113, 114, 115, 116];

/// Changes at once in the race.
const RACERS: usize = 8;
/// Changes of each.
const CHANGES: usize = 6;

fn put(path: &str, kind: &str, body: Vec<u8>) -> Request {
    Request::new("PUT", path)
        .header("authorization", &format!("Bearer {TOKEN}"))
        .header("content-type", kind)
        .body(body)
}

/// A form with these parts: name, media type, body.
fn form(parts: &[(&str, &str, &str)]) -> Vec<u8> {
    let mut out = String::new();
    for (name, kind, body) in parts {
        out.push_str(&format!(
            "--b\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{name}\"\r\nContent-Type: {kind}\r\n\r\n{body}\r\n"
        ));
    }
    out.push_str("--b--\r\n");
    out.into_bytes()
}

const MAIN: &str = "export default { fetch: () => new Response('ran') }";
const JS: &str = "application/javascript+module";
const META: &str = r#"{"main_module":"main.js","compatibility_date":"2026-01-01"}"#;

/// Bodies that must be refused: row, what it is, media type, bytes.
fn bad_bodies() -> Vec<(&'static str, &'static str, &'static str, Vec<u8>)> {
    const FORM: &str = "multipart/form-data; boundary=b";
    const JSON: &str = "application/json";
    let meta = ("metadata", "application/json", META);
    let main = ("main.js", JS, MAIN);
    let many: Vec<String> = (0..5_000).map(|n| format!("m{n}.js")).collect();
    let mut crowd = vec![meta, main];
    crowd.extend(many.iter().map(|name| (name.as_str(), JS, "export default 1")));
    let code = |modules: &str| format!(r#"{{"mainModule":"main.js","modules":{modules}}}"#).into_bytes();
    let main_json = serde_json::to_string(MAIN).expect("a string");
    vec![
        ("112a", "two parts of one name", FORM, form(&[meta, main, main])),
        ("112b", "metadata twice", FORM, form(&[meta, meta, main])),
        ("112c", "five thousand parts", FORM, form(&crowd)),
        (
            "112d",
            "a form without an end",
            FORM,
            b"--b\r\nContent-Disposition: form-data; name=\"a\"".to_vec(),
        ),
        ("112e", "an endless part head", FORM, [b"--b\r\n".to_vec(), vec![b'x'; 1 << 20]].concat()),
        (
            "112f",
            "another boundary",
            FORM,
            form(&[meta, main]).iter().map(|b| if *b == b'b' { b'c' } else { *b }).collect(),
        ),
        ("112g", "a parent folder as a part's name", FORM, form(&[meta, main, ("../x.js", JS, "1")])),
        ("112h", "a compressed upload", "application/zip", b"PK\x03\x04".repeat(1_000)),
        ("114a", "a key twice", JSON, code(&format!(r#"{{"main.js":{main_json},"main.js":{main_json}}}"#))),
        (
            "114b",
            "a key twice, spelled differently",
            JSON,
            code(&format!(r#"{{"main.js":{main_json},"m\u0061in.js":{main_json}}}"#)),
        ),
        (
            "114c",
            "a setting twice",
            JSON,
            format!(
                r#"{{"mainModule":"main.js","mainModule":"main.js","modules":{{"main.js":{main_json}}}}}"#
            )
            .into_bytes(),
        ),
        ("114d", "a million brackets", JSON, "[".repeat(1_000_000).into_bytes()),
        ("114e", "a million braces", JSON, r#"{"a":"#.repeat(1_000_000).into_bytes()),
        (
            "114f",
            "a number of a million digits",
            JSON,
            format!(r#"{{"limits":{{"cpuMs":{}}}}}"#, "9".repeat(1_000_000)).into_bytes(),
        ),
        ("114g", "bytes that are no text", JSON, vec![b'"', 0xff, 0xfe, b'"']),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_two_parsers_could_read_differently_are_refused() {
    let mut stage = Stage::open().await;
    for (id, name, kind, body) in bad_bodies().into_iter().filter(|row| super::selected(row.0)) {
        let answer =
            client::send(stage.atoll.address(), "localhost", &put("/v1/workers/bomb", kind, body)).await;
        match answer {
            Ok(answer) => {
                let refused = (400..500).contains(&answer.status) && problem_code(&answer).is_some();
                let text = format!("{} {}", answer.status, cut(&answer.text()));
                stage.require(id, name, refused, &format!("was not refused: {text}"));
            }
            Err(error) => stage.fail(id, name, &format!("no answer: {error}")),
        }
        stage.told(id, name, "refused").await;
    }
    let stored = stage.atoll.control("GET", "/v1/workers/bomb", None).await;
    stage.require("112", "refused uploads", stored.status == 404, "one was stored");
    stage.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_leads_to_another_tenants_worker() {
    let mut stage = Stage::open().await;
    stage.atoll.deploy(&Worker::single("mine", MAIN)).await;
    for name in [
        "../neighbour/ping",
        "..%2fneighbour%2fping",
        "%2e%2e/neighbour/ping",
        "neighbour/ping",
        "ping",
        "ping%00",
        "PING",
        ".",
        "..",
        "mine/../../neighbour/ping",
        "a%2f..%2fping",
        "\u{ff50}ing",
        "__proto__",
    ] {
        for (method, rest) in
            [("GET", ""), ("DELETE", ""), ("GET", "/logs"), ("GET", "/versions"), ("POST", "/rollback")]
        {
            let path = format!("/v1/workers/{name}{rest}");
            let request = Request::new(method, &path).header("authorization", &format!("Bearer {TOKEN}"));
            // What is no URL does not even leave the client.
            let Ok(answer) = client::send(stage.atoll.address(), "localhost", &request).await else {
                continue;
            };
            let refused = (400..500).contains(&answer.status);
            stage.require(
                "113",
                &path,
                refused,
                &format!("{method} gave {} {}", answer.status, cut(&answer.text())),
            );
        }
    }
    let theirs = stage.atoll.control_as(NEIGHBOUR_TOKEN, "GET", "/v1/workers/ping", None).await;
    stage.require("113", "the neighbour's worker", theirs.status == 200, "it is gone");
    stage.told("113", "ids of others", "refused").await;
    stage.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_race_leave_one_whole_version() {
    let mut stage = Stage::open().await;
    let saying = |n: usize| {
        let text = format!("v{n}");
        // Two modules that must always be of the same version.
        json!({
            "mainModule": "main.js",
            "modules": {
                "main.js": format!("import part from './part.js'; export default {{ fetch: () => new Response('{text} ' + part) }}"),
                "part.js": format!("export default '{text}'"),
            },
        })
    };
    stage.atoll.control("PUT", "/v1/workers/raced", Some(saying(0))).await;
    let address = stage.atoll.address();
    let racers: Vec<_> = (0..RACERS)
        .map(|racer| {
            let bodies: Vec<Value> =
                (0..CHANGES).map(|change| saying(racer * CHANGES + change + 1)).collect();
            tokio::spawn(async move {
                let mut statuses = vec![];
                for (number, body) in bodies.into_iter().enumerate() {
                    let (method, path, body) = match number % 3 {
                        2 => ("POST", "/v1/workers/raced/rollback", json!({})),
                        _ => ("PUT", "/v1/workers/raced", body),
                    };
                    let request = Request::new(method, path)
                        .header("authorization", &format!("Bearer {TOKEN}"))
                        .header("content-type", "application/json")
                        .body(body.to_string());
                    let answer = client::send(address, "localhost", &request).await.expect("an answer");
                    statuses.push(answer.status);
                }
                statuses
            })
        })
        .collect();
    for _ in 0..30 {
        let text = stage.atoll.send("raced", &Request::new("GET", "/")).await.text();
        let whole = text.split_once(' ').is_some_and(|(main, part)| main == part);
        stage.require(
            "115",
            "deploy and rollback at once",
            whole,
            &format!("half a version: {}", cut(&text)),
        );
    }
    for racer in racers {
        let statuses = racer.await.expect("no panic");
        let known = statuses.iter().all(|status| [200, 201, 404, 409, 422].contains(status));
        stage.require("115", "deploy and rollback at once", known, &format!("{statuses:?}"));
    }
    let listed = stage.atoll.control("GET", "/v1/workers/raced/versions", None).await.json();
    let versions = listed["versions"].as_array().cloned().unwrap_or_default();
    let mut numbers: Vec<u64> = versions.iter().filter_map(|version| version["version"].as_u64()).collect();
    let count = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    stage.require(
        "115",
        "deploy and rollback at once",
        count > 0 && numbers.len() == count,
        &listed.to_string(),
    );
    stage.told("115", "deploy and rollback at once", "atomic").await;
    stage.close();
}
