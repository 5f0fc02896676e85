//! Bad input, row by row: each has its status and its code, makes no sandbox that it should not, and harms no neighbour.

use serde_json::{Value, json};

use super::backends::{Place, on_each_backend};
use crate::support::atoll::{NEIGHBOUR_TOKEN, Options};
use crate::support::worker::Request;

/// A request of the table: method, path below `/v1/sandboxes`, JSON body (null: none), status, code.
type Row = (&'static str, &'static str, Value, u16, &'static str);

fn rows(place: &Place) -> Vec<Row> {
    // The init's processes are not even visible where it has a user of its own; elsewhere none looks into them.
    let hidden = if place.separates_users() { (404, "FILE_NOT_FOUND") } else { (403, "PERMISSION_DENIED") };
    let none = Value::Null;
    let run = |command: Value| json!({ "command": command });
    vec![
        // Unknown ids; reading and ending makes nothing.
        ("GET", "/nobody", none.clone(), 404, "SANDBOX_NOT_FOUND"),
        ("DELETE", "/nobody", none.clone(), 404, "SANDBOX_NOT_FOUND"),
        ("GET", "/nobody/processes", none.clone(), 404, "SANDBOX_NOT_FOUND"),
        ("GET", "/nobody/files?path=x", none.clone(), 404, "SANDBOX_NOT_FOUND"),
        ("DELETE", "/nobody/files?path=x", none.clone(), 404, "SANDBOX_NOT_FOUND"),
        ("GET", "/nobody/ports", none.clone(), 404, "SANDBOX_NOT_FOUND"),
        ("GET", "/nobody/snapshot", none.clone(), 404, "SANDBOX_NOT_FOUND"),
        ("POST", "/nobody/files/rename", json!({ "from": "a", "to": "b" }), 404, "SANDBOX_NOT_FOUND"),
        ("GET", "/ann/processes/none", none.clone(), 404, "PROCESS_NOT_FOUND"),
        ("DELETE", "/ann/processes/none", none.clone(), 404, "PROCESS_NOT_FOUND"),
        ("GET", "/ann/processes/none/logs", none.clone(), 404, "PROCESS_NOT_FOUND"),
        ("DELETE", "/ann/sessions/none", none.clone(), 404, "SESSION_NOT_FOUND"),
        ("POST", "/ann/sessions/none/exec", run(json!("true")), 404, "SESSION_NOT_FOUND"),
        ("DELETE", "/ann/ports/8080", none.clone(), 404, "PORT_NOT_EXPOSED"),
        // Ids that are none.
        ("PUT", "/a%20b", none.clone(), 422, "user"),
        ("PUT", "/%00", none.clone(), 422, "user"),
        ("PUT", "/%2e%2e", none.clone(), 422, "user"),
        ("PUT", "/%ff", none.clone(), 400, "bad_request"),
        ("PUT", "/%C3%A4", none.clone(), 422, "user"),
        ("GET", "//exec", none.clone(), 404, "not_found"),
        ("GET", "/ann/../bob", none.clone(), 404, "not_found"),
        ("PATCH", "/ann", none.clone(), 405, "method_not_allowed"),
        // Bodies.
        ("POST", "/ann/exec", none.clone(), 415, "unsupported_media_type"),
        ("POST", "/ann/exec", json!({}), 400, "json_shape"),
        ("POST", "/ann/exec", json!({ "command": "true", "shell": "zsh" }), 400, "json_shape"),
        ("POST", "/ann/exec", run(json!({ "a": 1 })), 400, "json_shape"),
        ("POST", "/ann/exec?spec=1", run(json!("true")), 400, "bad_request"),
        ("POST", "/ann/exec", json!({ "command": "true", "timeoutMs": -1 }), 400, "json_shape"),
        ("PUT", "/ann/env", json!({ "vars": { "A": 1 } }), 400, "json_shape"),
        ("PUT", "/ann/env", json!({ "vars": { "A=B": "x" } }), 400, "INVALID_ARGUMENT"),
        ("PUT", "/ann", json!({ "egress": "none-such" }), 403, "forbidden_setting"),
        ("PUT", "/ann", json!({ "outbound": ["a b"] }), 422, "invalid_setting"),
        // Commands.
        ("POST", "/ann/exec", run(json!([])), 400, "INVALID_ARGUMENT"),
        ("POST", "/ann/exec", run(json!("echo \0")), 400, "INVALID_ARGUMENT"),
        ("POST", "/ann/exec", run(json!(["true", "x".repeat(200_000)])), 400, "INVALID_ARGUMENT"),
        ("POST", "/ann/exec", run(json!(["no-such-program"])), 404, "COMMAND_NOT_FOUND"),
        ("POST", "/ann/exec", run(json!(["/etc/passwd"])), 403, "PERMISSION_DENIED"),
        ("POST", "/ann/exec", json!({ "command": "true", "cwd": "/nowhere" }), 404, "FILE_NOT_FOUND"),
        ("POST", "/ann/exec", json!({ "command": "true", "env": { "A\0": "" } }), 400, "INVALID_ARGUMENT"),
        ("POST", "/ann/exec", json!({ "command": "true", "session": "s", "stdin": "x" }), 400, "bad_request"),
        ("POST", "/ann/processes", json!({ "command": "true", "id": "a b" }), 400, "INVALID_ARGUMENT"),
        ("POST", "/ann/processes", json!({ "command": "true", "id": "../x" }), 400, "INVALID_ARGUMENT"),
        (
            "POST",
            "/ann/processes",
            json!({ "command": "true", "id": "x".repeat(200) }),
            400,
            "INVALID_ARGUMENT",
        ),
        ("POST", "/ann/processes/lives/wait", json!({}), 400, "bad_request"),
        ("POST", "/ann/processes/lives/wait", json!({ "exit": true, "log": "x" }), 400, "bad_request"),
        ("POST", "/ann/processes/lives/wait", json!({ "log": "" }), 400, "INVALID_ARGUMENT"),
        ("DELETE", "/ann/processes/lives?signal=0", none.clone(), 400, "INVALID_ARGUMENT"),
        ("DELETE", "/ann/processes/lives?signal=nine", none.clone(), 400, "bad_request"),
        ("POST", "/ann/git/checkout", json!({ "url": "--upload-pack=sh" }), 400, "INVALID_ARGUMENT"),
        (
            "POST",
            "/ann/git/checkout",
            json!({ "url": "https://example.com/x.git" }),
            422,
            "GIT_CHECKOUT_FAILED",
        ),
        // Paths: where they lead is found out inside, by what runs there.
        ("GET", "/ann/files", none.clone(), 400, "bad_request"),
        ("GET", "/ann/files?path=", none.clone(), 400, "INVALID_PATH"),
        ("GET", "/ann/files?path=a%00b", none.clone(), 400, "INVALID_PATH"),
        ("GET", "/ann/files?path=a&path=b", none.clone(), 400, "bad_request"),
        ("GET", "/ann/files?path=a&mode=1", none.clone(), 400, "bad_request"),
        ("GET", "/ann/files?path=a&offset=-1", none.clone(), 400, "bad_request"),
        ("GET", "/ann/files?path=none", none.clone(), 404, "FILE_NOT_FOUND"),
        ("GET", "/ann/files?path=../../../../etc/shadow", none.clone(), 404, "FILE_NOT_FOUND"),
        ("GET", "/ann/files?path=%2e%2e%2f%2e%2e%2fetc%2fshadow", none.clone(), 404, "FILE_NOT_FOUND"),
        ("GET", "/ann/files?path=/workspace", none.clone(), 400, "IS_DIRECTORY"),
        ("GET", "/ann/files?path=/dev/zero", none.clone(), 400, "NOT_A_FILE"),
        ("GET", "/ann/files?path=/proc/1/environ", none.clone(), hidden.0, hidden.1),
        ("GET", "/ann/files?path=fifo", none.clone(), 400, "NOT_A_FILE"),
        ("GET", "/ann/files?path=loop", none.clone(), 400, "INVALID_PATH"),
        ("GET", "/ann/files/list?path=file", none.clone(), 400, "NOT_DIRECTORY"),
        ("GET", "/ann/files/watch?path=file", none.clone(), 400, "NOT_DIRECTORY"),
        ("DELETE", "/ann/files?path=/&recursive=true", none.clone(), 400, "INVALID_PATH"),
        ("DELETE", "/ann/files?path=/usr/bin/env", none.clone(), 403, "PERMISSION_DENIED"),
        ("POST", "/ann/files/mkdir", json!({ "path": "/usr/x" }), 403, "PERMISSION_DENIED"),
        ("POST", "/ann/files/rename", json!({ "from": "file", "to": "/etc/x" }), 403, "PERMISSION_DENIED"),
        // Ports.
        ("PUT", "/ann/ports/80", none.clone(), 400, "INVALID_ARGUMENT"),
        ("PUT", "/ann/ports/3128", none.clone(), 400, "INVALID_ARGUMENT"),
        ("PUT", "/ann/ports/70000", none.clone(), 400, "INVALID_ARGUMENT"),
        ("PUT", "/ann/ports/+8080", none.clone(), 400, "INVALID_ARGUMENT"),
        ("PUT", "/ann/ports/x", none.clone(), 400, "INVALID_ARGUMENT"),
        ("PUT", "/ann/ports/8080", json!({ "name": "x".repeat(200) }), 400, "INVALID_ARGUMENT"),
    ]
}

async fn each_row_has_its_status_and_its_code(place: Place) {
    let rows = rows(&place);
    let Some(server) = place.plain().await else { return };
    server.out("ann", "echo x > file; mkfifo fifo; ln -s loop loop").await;
    server
        .control(
            "POST",
            "/v1/sandboxes/ann/processes",
            Some(json!({ "command": "sleep 1000", "id": "lives" })),
        )
        .await;
    let mut wrong = vec![];
    for (method, path, body, status, code) in rows {
        let answer = server
            .control(
                method,
                &format!("/v1/sandboxes{path}"),
                Some(body.clone()).filter(|body| !body.is_null()),
            )
            .await;
        let text = answer.text();
        let said = serde_json::from_str::<Value>(&text).unwrap_or_default();
        if (answer.status, said["code"].as_str()) != (status, Some(code)) {
            wrong.push(format!(
                "{method} {path} {body:.100}: {} {text:.200}, not {status} {code}",
                answer.status
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let answer =
        server.control("POST", "/v1/sandboxes/ann/exec", Some(json!({ "command": { "a": 1 } }))).await;
    assert!(
        answer.text().contains("a line for a shell, or a list"),
        "what is wanted is said: {}",
        answer.text()
    );
    let list = server.control("GET", "/v1/sandboxes", None).await.json();
    assert_eq!(list["sandboxes"].as_array().map(Vec::len), Some(1), "no row made another sandbox: {list}");
    assert_eq!(server.out("ann", "cat file; ps -A -o comm= | grep -c '^sleep'").await, "x\n1\n");
    server.finish();
}

async fn bytes_are_bounded_in_every_direction(place: Place) {
    let Some(server) = place.plain().await else { return };
    // A file larger than the disk, declared or not, changes nothing.
    server.out("ann", "echo kept > f").await;
    let huge = server.bytes("PUT", "/v1/sandboxes/ann/files?path=f", vec![b'x'; 65 << 20]).await;
    assert_eq!((huge.status, &huge.json()["code"]), (413, &json!("body_too_large")));
    let full = server.bytes("PUT", "/v1/sandboxes/ann/files?path=f", vec![b'x'; (64 << 20) - 10]).await;
    assert_eq!((full.status, &full.json()["code"]), (507, &json!("NO_SPACE")), "{}", full.text());
    assert_eq!(server.out("ann", "cat f; ls -A").await, "kept\nf\n");
    // A flood of output, told as it is and bounded.
    let flood =
        server.exec("ann", json!({ "command": "head -c 100000000 /dev/zero", "timeoutMs": 60_000 })).await;
    assert!(
        flood["stdout"].as_str().expect("text").len() <= 8 << 20,
        "{}",
        flood["stdout"].as_str().expect("text").len()
    );
    assert!(flood["droppedBytes"].as_u64() >= Some(90_000_000), "{}", flood["droppedBytes"]);
    let filled =
        server.exec("ann", json!({ "command": "head -c 200000000 /dev/zero > fill; rm fill" })).await;
    assert!(filled["stderr"].as_str().expect("text").contains("No space"), "{filled}");
    // Archives: rubbish, nothing, more than the disk.
    for (body, status, code) in [
        (vec![7; 2_000], 422, "ARCHIVE_REFUSED"),
        (vec![], 422, "ARCHIVE_REFUSED"),
        (vec![0; 65 << 20], 413, "body_too_large"),
    ] {
        let answer = server.bytes("POST", "/v1/sandboxes/ann/restore", body).await;
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (status, Some(code)),
            "{}",
            answer.text()
        );
    }
    // JSON is small.
    let line = json!({ "command": "x".repeat(2 << 20) });
    let answer = server.control("POST", "/v1/sandboxes/ann/exec", Some(line)).await;
    assert!([400, 413].contains(&answer.status), "{}", answer.status);
    assert_eq!(server.out("ann", "cat f").await, "kept\n");
    // A fork bomb ends with its time, and its neighbour did not notice.
    let (bomb, neighbour) = tokio::join!(
        server.control(
            "POST",
            "/v1/sandboxes/bomb/exec",
            Some(json!({ "command": "f() { f | f & }; f; sleep 60", "timeoutMs": 2_000 }))
        ),
        async { server.out("ann", "echo fine").await }
    );
    assert!([200, 409, 410, 429, 502].contains(&bomb.status), "{} {}", bomb.status, bomb.text());
    assert_eq!(neighbour, "fine\n");
    server.finish();
}

async fn tokens_reach_their_own_tenants_sandboxes_only(place: Place) {
    let Some(server) = place.plain().await else { return };
    server.out("ann", "echo secret > f").await;
    for (token, status) in [(None, 401), (Some("wrong"), 401), (Some(NEIGHBOUR_TOKEN), 404)] {
        for path in [
            "/v1/sandboxes/ann",
            "/v1/sandboxes/ann/files?path=f",
            "/v1/sandboxes/ann/processes",
            "/v1/sandboxes/ann/snapshot",
        ] {
            let mut request = Request::new("GET", path);
            if let Some(token) = token {
                request = request.header("authorization", &format!("Bearer {token}"));
            }
            let answer = crate::support::client::send(server.address(), "localhost", &request)
                .await
                .expect("an answer");
            assert_eq!(answer.status, status, "{path} {token:?}: {}", answer.text());
        }
    }
    // What the neighbour makes under the same name is the neighbour's.
    let answer = server
        .control_as(
            NEIGHBOUR_TOKEN,
            "POST",
            "/v1/sandboxes/ann/exec",
            Some(json!({ "command": "ls; echo theirs > f" })),
        )
        .await;
    assert_eq!(answer.json()["stdout"], "", "{}", answer.text());
    assert_eq!(server.out("ann", "cat f").await, "secret\n");
    server.finish();
}

async fn a_tenant_has_its_share_and_a_token_its_scope(place: Place) {
    // SHA-256 of "only-execute".
    let hash = sha256("only-execute");
    let tenant = format!(
        "[tenants.scoped]\ntokens = [{{ sha256 = \"{hash}\", scopes = [\"read\", \"deploy\", \"execute\"] }}]"
    );
    let config =
        format!("{}\n{tenant}", place.config_with(", sandboxes_per_tenant_max = 2, sandboxes_max = 3"));
    let Some(server) = place.start(Options { config, ..Options::default() }).await else { return };
    let denied = server.control_as("only-execute", "GET", "/v1/sandboxes", None).await;
    assert_eq!((denied.status, &denied.json()["code"]), (403, &json!("forbidden")));
    for user in ["a", "b"] {
        server.out(user, "true").await;
    }
    let more = server.control("PUT", "/v1/sandboxes/c", None).await;
    assert_eq!((more.status, &more.json()["code"]), (429, &json!("TENANT_SANDBOXES_EXHAUSTED")));
    assert_eq!(server.control_as(NEIGHBOUR_TOKEN, "PUT", "/v1/sandboxes/c", None).await.status, 201);
    let full = server.control_as(NEIGHBOUR_TOKEN, "PUT", "/v1/sandboxes/d", None).await;
    assert_eq!(
        (full.status, &full.json()["code"], full.header("retry-after")),
        (503, &json!("SANDBOX_UNAVAILABLE"), Some("1"))
    );
    assert_eq!(server.control("DELETE", "/v1/sandboxes/a", None).await.status, 204);
    assert_eq!(
        server.control("PUT", "/v1/sandboxes/c", None).await.status,
        201,
        "a place that was given back is free"
    );
    server.finish();
}

fn sha256(text: &str) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_sandboxes_there_is_a_plain_answer() {
    let server = crate::support::atoll::Atoll::start(Options::default()).await;
    for (method, path) in
        [("GET", "/v1/sandboxes"), ("PUT", "/v1/sandboxes/a"), ("GET", "/v1/sandboxes/a/usage")]
    {
        let answer = server.control(method, path, None).await;
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (501, &json!("sandbox_not_configured")),
            "{path}"
        );
    }
    assert_eq!(server.control("GET", "/preview/0000/", None).await.status, 404);
}

async fn sandboxes_end_by_idleness_and_age_and_a_kill_of_the_gateway_leaves_nothing(place: Place) {
    let config = place.config_with(", idle_s = 1, lifetime_s = 4");
    let Some(server) = place.start(Options { config, ..Options::default() }).await else { return };
    server.out("idle", "true").await;
    server.control("PUT", "/v1/sandboxes/old", None).await;
    // In use until its last second: then calls under way are told.
    let cut =
        server.control("POST", "/v1/sandboxes/old/exec", Some(json!({ "command": "sleep 1000" }))).await;
    assert_eq!((cut.status, &cut.json()["code"]), (409, &json!("OPERATION_INTERRUPTED")), "{}", cut.text());
    assert_eq!(
        server.control("GET", "/v1/sandboxes/idle", None).await.status,
        404,
        "nobody used it for a second"
    );
    while server.control("GET", "/v1/sandboxes/old", None).await.status != 404 {}
    let metrics = server.control("GET", "/metrics", None).await.text();
    // Its own clock inside may be faster than the gateway's.
    let old = ["lifetime", "lost"]
        .iter()
        .any(|how| metrics.contains(&format!("atoll_sandboxes_total{{event=\"{how}\"}} 1")));
    assert!(metrics.contains("atoll_sandboxes_total{event=\"idle\"} 1") && old, "{metrics}");
    server
        .control("POST", "/v1/sandboxes/last/processes", Some(json!({ "command": "setsid sleep 1000" })))
        .await;
    server.finish_by_a_kill().await;
}

on_each_backend!(
    each_row_has_its_status_and_its_code,
    bytes_are_bounded_in_every_direction,
    tokens_reach_their_own_tenants_sandboxes_only,
    a_tenant_has_its_share_and_a_token_its_scope,
    sandboxes_end_by_idleness_and_age_and_a_kill_of_the_gateway_leaves_nothing,
);
