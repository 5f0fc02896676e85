//! The control API over HTTP.

use super::*;

#[tokio::test]
async fn a_worker_is_deployed_listed_rolled_back_and_deleted() {
    let bench = start().await;
    let first = bench.deploy("hello", r#","crons":["*/5 * * * *"],"vars":{"KEY":"hidden"}"#).await;
    assert_eq!((first.status, first.json()["version"].as_u64()), (201, Some(1)));
    assert!(!first.body.contains("hidden"), "values of vars are not shown");
    let second = bench.deploy("hello", r#","limits":{"cpuMs":5}"#).await;
    assert_eq!((second.status, second.json()["version"].as_u64()), (200, Some(2)));
    assert_eq!(bench.send("GET", "/w/acme/hello/", &[], "").await.json()["cpu_ms"], 5);
    let list = bench.api("GET", "/v1/workers", "").await.json();
    assert_eq!(
        (list["workers"][0]["name"].as_str(), list["workers"][0]["version"].as_u64()),
        (Some("hello"), Some(2))
    );
    let back = bench.api("POST", "/v1/workers/hello/rollback", "").await;
    assert_eq!((back.status, back.json()["version"].as_u64()), (200, Some(1)));
    assert_eq!(bench.send("GET", "/w/acme/hello/", &[], "").await.json()["cpu_ms"], 1000);
    let versions = bench.api("GET", "/v1/workers/hello/versions", "").await.json();
    let active: Vec<_> =
        versions["versions"].as_array().unwrap().iter().map(|v| v["active"] == true).collect();
    assert_eq!(active, [false, true]);
    assert_eq!(
        bench.api("POST", "/v1/workers/hello/rollback", r#"{"version":2}"#).await.json()["version"],
        2
    );
    assert_eq!(bench.api("DELETE", "/v1/workers/hello", "").await.status, 204);
    assert_eq!(bench.api("GET", "/v1/workers/hello", "").await.status, 404);
    assert_eq!(bench.send("GET", "/w/acme/hello/", &[], "").await.status, 404);
}

#[tokio::test]
async fn a_worker_can_be_uploaded_as_a_form() {
    let bench = start().await;
    let body = "--b\r\ncontent-disposition: form-data; name=\"metadata\"\r\n\r\n\
        {\"main_module\":\"main.js\",\"compatibility_date\":\"2026-01-01\",\"bindings\":[{\"type\":\"plain_text\",\"name\":\"A\",\"text\":\"form\"}]}\r\n\
        --b\r\ncontent-disposition: form-data; name=\"main.js\"; filename=\"main.js\"\r\ncontent-type: application/javascript+module\r\n\r\n\
        export default {}\r\n--b--\r\n";
    let headers = [("authorization", "Bearer secret"), ("content-type", "multipart/form-data; boundary=b")];
    let reply = bench.send("PUT", "/v1/workers/formed", &headers, body).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    assert!(bench.send("GET", "/w/acme/formed/", &[], "").await.body.contains("form"));
    let reply = bench.send("PUT", "/v1/workers/formed", &headers, "--b--\r\n").await;
    assert_eq!((reply.status, reply.json()["code"].as_str()), (400, Some("upload_metadata")));
}

#[tokio::test]
async fn tenants_do_not_see_each_other() {
    let bench = start().await;
    bench.deploy("hello", r#","hosts":["www.acme.dev"]"#).await;
    let other = [("authorization", "Bearer other"), ("content-type", "application/json")];
    let list = bench.send("GET", "/v1/workers", &other, "").await.json();
    assert_eq!(list["workers"].as_array().unwrap().len(), 0);
    for (method, target) in [
        ("GET", "/v1/workers/hello"),
        ("DELETE", "/v1/workers/hello"),
        ("GET", "/v1/workers/hello/versions"),
        ("POST", "/v1/workers/hello/rollback"),
        ("POST", "/v1/workers/hello/scheduled"),
        ("GET", "/v1/workers/hello/logs"),
    ] {
        assert_eq!(bench.send(method, target, &other, "").await.status, 404, "{method} {target}");
    }
    let claim = r#"{"mainModule":"m.js","modules":{"m.js":"export default {}"},"hosts":["www.acme.dev"]}"#;
    assert_eq!(bench.send("PUT", "/v1/workers/thief", &other, claim).await.status, 403);
    let dial = r#"{"mainModule":"m.js","modules":{"m.js":"export default {}"},"outbound":["*"]}"#;
    assert_eq!(bench.send("PUT", "/v1/workers/dialer", &other, dial).await.status, 403);
}

#[tokio::test]
async fn every_refusal_is_a_problem_with_its_status() {
    let bench = start().await;
    bench.deploy("hello", "").await;
    let code =
        |extra: &str| format!(r#"{{"mainModule":"m.js","modules":{{"m.js":"export default {{}}"}}{extra}}}"#);
    let secret = ("authorization", "Bearer secret");
    let json = ("content-type", "application/json");
    let deep = format!("{{\"code\":\"1\",\"input\":{}", "[".repeat(100_000));
    type Row<'a> = (&'a str, &'a str, Vec<(&'a str, &'a str)>, String, u16, &'a str);
    let table: Vec<Row<'_>> = vec![
        ("GET", "/nothing", vec![], String::new(), 404, "not_found"),
        ("GET", "/v1/nothing", vec![], String::new(), 404, "not_found"),
        ("POST", "/healthz", vec![], String::new(), 405, "method_not_allowed"),
        ("PATCH", "/v1/workers/a", vec![], String::new(), 405, "method_not_allowed"),
        ("GET", "/v1/workers", vec![], String::new(), 401, "unauthorized"),
        ("GET", "/v1/workers", vec![("authorization", "Bearer wrong")], String::new(), 401, "unauthorized"),
        ("PUT", "/v1/workers/a", vec![("authorization", "Bearer reader"), json], code(""), 403, "forbidden"),
        (
            "POST",
            "/v1/execute",
            vec![("authorization", "Bearer reader"), json],
            String::new(),
            403,
            "forbidden",
        ),
        ("PUT", "/v1/workers/A", vec![secret, json], code(""), 422, "worker_name"),
        ("PUT", "/v1/workers/..%2fx", vec![secret, json], code(""), 422, "worker_name"),
        ("PUT", "/v1/workers/a", vec![secret], code(""), 415, "unsupported_media_type"),
        ("PUT", "/v1/workers/a", vec![secret, json], "{".into(), 400, "json_shape"),
        ("PUT", "/v1/workers/a", vec![secret, json], code(r#","surprise":1"#), 400, "json_shape"),
        ("PUT", "/v1/workers/a", vec![secret, json], code(r#","vars":{"A":1,"A":2}"#), 400, "json_shape"),
        ("PUT", "/v1/workers/a", vec![secret, json], code(r#","crons":["x"]"#), 422, "invalid_setting"),
        ("PUT", "/v1/workers/a", vec![secret, json], code(r#","vars":{"a b":1}"#), 422, "invalid_setting"),
        ("PUT", "/v1/workers/a", vec![secret, json], code(r#","loaders":["A","A"]"#), 422, "invalid_setting"),
        ("PUT", "/v1/workers/a", vec![secret, json], code(r#","outbound":["a b"]"#), 422, "invalid_setting"),
        (
            "PUT",
            "/v1/workers/a",
            vec![secret, json],
            code(r#","hosts":["evil.com"]"#),
            403,
            "forbidden_setting",
        ),
        (
            "PUT",
            "/v1/workers/a",
            vec![secret, json],
            code("").replace("export default", "export ("),
            422,
            "code_syntax",
        ),
        ("GET", "/v1/workers/none", vec![secret], String::new(), 404, "not_found"),
        ("POST", "/v1/workers/none/rollback", vec![secret], String::new(), 404, "not_found"),
        (
            "POST",
            "/v1/workers/hello/rollback",
            vec![secret, json],
            r#"{"version":7}"#.into(),
            404,
            "not_found",
        ),
        (
            "GET",
            "/v1/workers/hello/logs",
            vec![secret, ("accept", "image/png")],
            String::new(),
            406,
            "not_acceptable",
        ),
        (
            "POST",
            "/v1/execute",
            vec![secret, json, ("accept", "image/png")],
            "{}".into(),
            406,
            "not_acceptable",
        ),
        (
            "POST",
            "/v1/execute",
            vec![secret, ("content-type", "text/plain")],
            "{}".into(),
            415,
            "unsupported_media_type",
        ),
        ("POST", "/v1/execute", vec![secret, json], "{}".into(), 400, "bad_request"),
        ("POST", "/v1/execute", vec![secret, json], deep, 400, "json_depth"),
        (
            "POST",
            "/v1/execute",
            vec![secret, json],
            r#"{"code":"1","input":{"a":1,"a":2}}"#.into(),
            400,
            "json_shape",
        ),
        ("POST", "/v1/execute", vec![secret, json], r#"{"code":"return ("}"#.into(), 422, "code_syntax"),
        (
            "POST",
            "/v1/execute",
            vec![secret, json],
            r#"{"code":"1","env":{"__proto__":1}}"#.into(),
            422,
            "invalid_setting",
        ),
        (
            "POST",
            "/v1/execute",
            vec![secret, json],
            format!(r#"{{"code":"1","env":{{"A":"{}"}}}}"#, "x".repeat(1_100_000)),
            422,
            "env_size",
        ),
    ];
    for (method, target, headers, body, status, code) in table {
        let reply = bench.send(method, target, &headers, &body).await;
        let row = format!("{method} {target} {headers:?} {}", &body[..body.len().min(120)]);
        assert_eq!(
            (reply.status, reply.json()["code"].as_str()),
            (status, Some(code)),
            "{row}: {}",
            reply.body
        );
        assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{row}");
        assert_eq!(reply.json()["status"].as_u64(), Some(u64::from(status)), "{row}");
        assert_eq!(
            reply.header("www-authenticate").is_some(),
            matches!(status, 401) || code == "forbidden",
            "{row}"
        );
        assert_eq!(reply.header("allow").is_some(), status == 405, "{row}");
    }
}

#[tokio::test]
async fn code_is_executed_in_a_fresh_isolate() {
    let bench = start().await;
    let reply = bench
        .api(
            "POST",
            "/v1/execute",
            r#"{"code":"return input","input":{"x":1},"env":{"A":"b"},"limits":{"cpuMs":9}}"#,
        )
        .await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let out = reply.json();
    assert_eq!((out["ok"].as_bool(), out["result"]["input"]["x"].as_u64()), (Some(true), Some(1)), "{out}");
    assert_eq!(
        (out["result"]["isolate"].as_str(), out["result"]["cpu_ms"].as_u64()),
        (Some("Fresh"), Some(9))
    );
    assert_eq!(out["logs"][0]["message"], "running");
    assert_eq!(out["usage"]["cpuUs"], 7);
    assert_eq!(out["id"].as_str().unwrap().len(), 32);
    let modules = r#"{"mainModule":"m.js","modules":{"m.js":"export default () => 1"}}"#;
    assert_eq!(bench.api("POST", "/v1/execute", modules).await.json()["ok"], true);
    let typed = r#"{"code":"const n: number = 1; return n","language":"ts"}"#;
    assert_eq!(bench.api("POST", "/v1/execute", typed).await.json()["ok"], true);
    for (input, code) in [("throw", "guest_error"), ("cpu", "limit_cpu")] {
        let reply = bench.api("POST", "/v1/execute", &format!(r#"{{"code":"1","input":"{input}"}}"#)).await;
        let out = reply.json();
        assert_eq!(
            (reply.status, out["ok"].as_bool(), out["error"]["code"].as_str()),
            (200, Some(false), Some(code))
        );
        assert_eq!(out["usage"]["cpuUs"], 7, "usage is told on failure too");
    }
    let fault = bench.api("POST", "/v1/execute", r#"{"code":"1","input":"fault"}"#).await;
    assert_eq!((fault.status, fault.json()["code"].as_str()), (503, Some("host_fault")));
    assert!(!fault.body.contains("secret detail"));
    let ends: Vec<_> = bench.finished(6).await.into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(ends, ["done", "done", "done", "guest_error", "limit_cpu", "host_fault"]);
}

#[tokio::test]
async fn an_execution_can_be_followed() {
    let bench = start().await;
    let headers = [
        ("authorization", "Bearer secret"),
        ("content-type", "application/json"),
        ("accept", "text/event-stream"),
    ];
    let reply = bench.send("POST", "/v1/execute", &headers, r#"{"code":"1","input":5}"#).await;
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    let events: Vec<&str> = reply.body.split("\n\n").filter(|event| !event.is_empty()).collect();
    assert!(events[0].starts_with("event: log\ndata: {\"level\":\"info\""), "{events:?}");
    assert!(
        events[1].starts_with("event: result\ndata: {") && events[1].contains("\"input\":5"),
        "{events:?}"
    );
    assert_eq!(events.len(), 2);
    let reply = bench.send("POST", "/v1/execute", &headers, r#"{"code":"1","input":"fault"}"#).await;
    assert!(reply.body.contains("event: problem\n"), "{reply:?}");
}

#[tokio::test]
async fn going_away_cancels_an_execution() {
    use std::sync::atomic::Ordering::SeqCst;
    let bench = start().await;
    for accept in ["application/json", "text/event-stream"] {
        let before = (bench.host.invokes.load(SeqCst), bench.host.cancels.load(SeqCst));
        let body = r#"{"code":"1","input":"hang"}"#;
        let request = format!(
            "POST /v1/execute HTTP/1.1\r\nhost: example.com\r\nauthorization: Bearer secret\r\naccept: {accept}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(bench.address()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        while bench.host.invokes.load(SeqCst) == before.0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(stream);
        let cancelled = async {
            while bench.host.cancels.load(SeqCst) == before.1 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, cancelled).await.expect(accept);
    }
    bench.finished(2).await;
    assert_eq!(*bench.seen.cpu_us.lock().unwrap(), [7, 7], "what was used is on record");
}

#[tokio::test]
async fn logs_are_kept_and_can_be_followed() {
    let bench = start().await;
    bench.deploy("hello", r#","crons":["0 0 1 1 *"]"#).await;
    bench.send("GET", "/w/acme/hello/log", &[], "").await;
    let fired = bench.api("POST", "/v1/workers/hello/scheduled", "").await;
    assert_eq!((fired.status, fired.json()["outcome"].as_str()), (200, Some("done")), "{fired:?}");
    bench.finished(2).await;
    let logs = bench.api("GET", "/v1/workers/hello/logs", "").await.json();
    assert_eq!(logs["logs"][0]["message"], "line one");
    assert_eq!(logs["logs"][1]["message"], "scheduled 0 0 1 1 *");
    let mut stream = TcpStream::connect(bench.address()).await.unwrap();
    let request = "GET /v1/workers/hello/logs HTTP/1.1\r\nhost: example.com\r\nauthorization: Bearer secret\r\naccept: text/event-stream\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    let read = async |stream: &mut TcpStream, text: &mut String, count: usize| {
        let mut buffer = [0; 4096];
        while text.matches("event: log").count() < count {
            let read = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await.unwrap().unwrap();
            assert!(read > 0, "{text}");
            text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    };
    read(&mut stream, &mut text, 2).await;
    bench.send("GET", "/w/acme/hello/log", &[], "").await;
    read(&mut stream, &mut text, 3).await;
}

#[tokio::test]
async fn health_and_metrics_need_no_token_and_the_document_is_served() {
    let bench = start().await;
    assert_eq!(bench.send("GET", "/healthz", &[], "").await.body, "ok\n");
    let ready = bench.send("GET", "/readyz", &[], "").await.json();
    let unconfined = serde_json::json!({ "complete": false, "missing": ["all"] });
    assert_eq!((&ready["status"], &ready["sandbox"]), (&"ok".into(), &unconfined));
    assert_eq!(bench.send("GET", "/metrics", &[], "").await.body, "atoll_up 1\n");
    assert_eq!(bench.send("GET", "/v1/openapi.json", &[], "").await.json()["openapi"], "3.1.0");
}

#[tokio::test]
async fn without_a_host_the_server_is_alive_but_not_ready() {
    let bench = start().await;
    bench.deploy("hello", "").await;
    bench.link.close();
    assert_eq!(bench.send("GET", "/healthz", &[], "").await.status, 200);
    let unready = bench.send("GET", "/readyz", &[], "").await;
    assert_eq!((unready.status, unready.json()["code"].as_str()), (503, Some("not_ready")));
    let reply = bench.send("GET", "/w/acme/hello/", &[], "").await;
    assert_eq!((reply.status, reply.json()["code"].as_str()), (503, Some("host_fault")));
    assert_eq!(reply.header("retry-after"), Some("1"));
    assert_eq!(bench.finished(1).await, [("fetch", "host_fault".to_owned())]);
}
