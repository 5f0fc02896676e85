//! Workers by host and by path: what they see, what clients get, how it ends.

use std::sync::atomic::Ordering::SeqCst;

use super::*;

#[tokio::test]
async fn a_worker_answers_by_host_by_custom_host_and_by_path() {
    let bench = start().await;
    bench
        .deploy("hello", r#","hosts":["www.acme.dev"],"vars":{"A":"text","B":{"x":[1]}},"loaders":["L"]"#)
        .await;
    for (host, target, url) in [
        ("hello.acme.example.com", "/a/b?c=d", "http://hello.acme.example.com/a/b?c=d"),
        ("HELLO.acme.example.com:81", "/v1/workers", "http://HELLO.acme.example.com:81/v1/workers"),
        ("www.acme.dev", "/healthz", "http://www.acme.dev/healthz"),
        ("example.com", "/w/acme/hello/a?b", "http://example.com/a?b"),
        ("127.0.0.1:80", "/w/acme/hello", "http://127.0.0.1:80/"),
        ("example.com", "/w/acme/hello?q", "http://example.com/?q"),
    ] {
        let reply = bench.send("GET", target, &[("host", host)], "").await;
        assert_eq!(reply.status, 200, "{host} {target}: {reply:?}");
        assert_eq!(reply.json()["url"], url, "{host} {target}");
    }
    let seen = bench.send("GET", "/w/acme/hello/", &[], "").await.json();
    assert_eq!(seen["env"].to_string().matches("Loader").count(), 1, "{seen}");
    assert!(seen["env"][0].as_str().unwrap().starts_with("A=Text(\"text\")"));
    assert!(seen["isolate"].as_str().unwrap().starts_with("Warm(\"acme/hello/1."), "{seen}");
    assert_eq!(seen["outbound"], "Denied");
    for (host, target) in
        [("other.acme.example.com", "/"), ("example.com", "/w/acme/other/"), ("example.com", "/w/x/hello/")]
    {
        let reply = bench.send("GET", target, &[("host", host)], "").await;
        assert_eq!(
            (reply.status, reply.json()["code"].as_str()),
            (404, Some("no_worker")),
            "{host} {target}"
        );
    }
}

#[tokio::test]
async fn what_a_client_says_about_itself_is_not_believed() {
    let bench = start().await;
    bench.deploy("hello", "").await;
    let forged = [
        ("cf-connecting-ip", "6.6.6.6"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-proto", "https"),
        ("x-real-ip", "6.6.6.6"),
        ("forwarded", "for=6.6.6.6"),
        ("x-custom", "kept"),
        ("x-hop", "gone"),
        ("connection", "x-hop"),
        ("te", "trailers"),
    ];
    let seen = bench.send("GET", "/w/acme/hello/", &forged, "").await.json();
    let headers = seen["headers"].to_string();
    assert!(
        !headers.contains("6.6.6.6") && !headers.contains("x-hop") && !headers.contains("\"te\""),
        "{headers}"
    );
    for expected in [
        r#"["cf-connecting-ip","127.0.0.1"]"#,
        r#"["x-forwarded-for","127.0.0.1"]"#,
        r#"["x-forwarded-proto","http"]"#,
        r#"["x-custom","kept"]"#,
    ] {
        assert!(headers.contains(expected), "{expected} in {headers}");
    }
}

#[tokio::test]
async fn the_guest_sees_its_place_in_a_trace_and_never_a_malformed_one() {
    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let bench = start().await;
    bench.deploy("hello", "").await;
    for (parent, seen) in [(PARENT, true), ("nonsense", false)] {
        let sent = [("traceparent", parent), ("tracestate", "a=1")];
        let guest = bench.send("GET", "/w/acme/hello/", &sent, "").await.json();
        let headers = guest["headers"].to_string();
        assert_eq!(headers.contains(&format!(r#"["traceparent","{PARENT}"]"#)), seen, "{headers}");
        assert_eq!(headers.contains(r#"["tracestate","a=1"]"#), seen, "{headers}");
    }
}

#[tokio::test]
async fn each_version_has_isolates_and_loaded_workers_of_its_own() {
    let bench = start().await;
    let mut names = std::collections::BTreeSet::new();
    for settings in [r#","loaders":["L"]"#, r#","loaders":["L"],"vars":{"A":"1"}"#] {
        bench.deploy("hello", settings).await;
        let seen = bench.send("GET", "/w/acme/hello/", &[], "").await.json();
        names.insert(seen["isolate"].to_string());
        let loader = seen["env"].to_string();
        names.insert(loader.split("Loader").nth(1).expect("a loader").to_owned());
    }
    assert_eq!(names.len(), 4, "{names:?}");
}

#[tokio::test]
async fn a_guests_headers_do_not_reach_the_connection() {
    let bench = start().await;
    bench.deploy("hello", "").await;
    let reply = bench.send("GET", "/w/acme/hello/headers", &[], "").await;
    assert!(reply.head.starts_with("HTTP/1.1 299 Fine\r\n"), "{reply:?}");
    assert_eq!(reply.header("content-length"), Some("1"));
    assert_eq!(reply.head.matches("set-cookie").count(), 2);
    assert!(reply.header("x-hop").is_none() && reply.header("transfer-encoding").is_none());
    let head = bench.send("HEAD", "/w/acme/hello/", &[], "").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert!(head.header("content-length").unwrap().parse::<u32>().unwrap() > 10);
}

#[tokio::test]
async fn every_end_has_its_status_and_its_code() {
    let bench = start().await;
    bench.deploy("hello", "").await;
    for (path, status, code) in [
        ("throw", 500, "guest_error"),
        ("cpu", 503, "limit_cpu"),
        ("hung", 500, "hung"),
        ("refused", 422, "refused"),
        ("fault", 503, "host_fault"),
        ("silent", 500, "no_answer"),
    ] {
        let reply = bench.send("GET", &format!("/w/acme/hello/{path}"), &[], "").await;
        assert_eq!((reply.status, reply.json()["code"].as_str()), (status, Some(code)), "{path}");
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
        for secret in ["boom", "main.js", "secret detail"] {
            assert!(!reply.body.contains(secret), "{path}: {}", reply.body);
        }
    }
    let ends: Vec<_> = bench.finished(6).await.into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(ends, ["guest_error", "limit_cpu", "hung", "refused", "host_fault", "done"]);
}

#[tokio::test]
async fn development_mode_shows_the_error() {
    let bench = start_with("dev = true", "").await;
    bench.deploy("hello", "").await;
    let problem = bench.send("GET", "/w/acme/hello/throw", &[], "").await.json();
    assert_eq!(
        (problem["message"].as_str(), problem["stack"].as_str().map(|s| s.contains("main.js"))),
        (Some("boom"), Some(true))
    );
}

#[tokio::test]
async fn bodies_go_through_small_and_large() {
    let bench = start().await;
    bench.deploy("hello", "").await;
    for size in [1, 1_000, 64 * 1024, 64 * 1024 + 1, 200_000] {
        let body = "0123456789".repeat(size / 10 + 1)[..size].to_owned();
        let reply = bench.send("POST", "/w/acme/hello/echo", &[], &body).await;
        assert_eq!((reply.status, reply.body.len()), (200, size));
        assert!(reply.body == body);
    }
    let chunked = "POST /w/acme/hello/echo HTTP/1.1\r\nhost: example.com\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n\
                   5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n";
    assert_eq!(parse_reply(&raw(bench.address(), chunked.as_bytes()).await).body, "hello!");
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_the_guest() {
    let bench = start().await;
    bench.deploy("hello", "").await;
    for path in ["hang", "endless"] {
        let before = bench.host.cancels.load(SeqCst);
        let mut stream = TcpStream::connect(bench.address()).await.unwrap();
        let request = format!("GET /w/acme/hello/{path} HTTP/1.1\r\nhost: example.com\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        while bench.host.invokes.load(SeqCst) == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(stream);
        let cancelled = async {
            while bench.host.cancels.load(SeqCst) == before {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, cancelled).await.expect("the guest is cancelled");
    }
    let ends: Vec<_> = bench.finished(2).await.into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(ends, ["canceled", "canceled"]);
    assert_eq!(*bench.seen.cpu_us.lock().unwrap(), [7, 7], "what was used is on record");
}

#[tokio::test]
async fn a_tenant_has_its_share_and_no_more() {
    let bench = start().await;
    let headers = [("authorization", "Bearer other"), ("content-type", "application/json")];
    let body = r#"{"mainModule":"main.js","modules":{"main.js":"export default {}"}}"#;
    assert_eq!(bench.send("PUT", "/v1/workers/busy", &headers, body).await.status, 201);
    bench.deploy("hello", "").await;
    let held = bench.send("GET", "/w/other/busy/hang", &[], "");
    let others = async {
        while bench.host.invokes.load(SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let denied = bench.send("GET", "/w/other/busy/", &[], "").await;
        assert_eq!((denied.status, denied.json()["code"].as_str()), (429, Some("too_many_requests")));
        assert_eq!(denied.header("retry-after"), Some("1"));
        assert_eq!(bench.send("GET", "/w/acme/hello/", &[], "").await.status, 200, "the neighbour is served");
        assert_eq!(bench.host.release(), 1);
    };
    let (held, ()) = tokio::join!(held, others);
    assert_eq!((held.status, held.body.as_str()), (200, "released"));
    assert_eq!(bench.send("GET", "/w/other/busy/", &[], "").await.status, 200);
}

#[tokio::test]
async fn the_operator_forbids_what_no_source_may_contain() {
    let checks = "[checks]\nsource_bytes_max = 200\nforbidden = [{ text = \"debugger\", name = \"the debugger statement\" }]\n";
    let bench = super::start_with("", checks).await;
    let headers = [("authorization", "Bearer secret"), ("content-type", "application/json")];
    let long = format!("{{\"code\":\"return 1 // {}\"}}", "x".repeat(300));
    for (method, path, body, code) in [
        ("POST", "/v1/execute", r#"{"code":"debugger"}"#, "code_forbidden"),
        (
            "PUT",
            "/v1/workers/w",
            r#"{"mainModule":"m.js","modules":{"m.js":"debugger; export default {}"},"compatibilityDate":"2025-06-01"}"#,
            "code_forbidden",
        ),
        ("POST", "/v1/execute", &long, "code_source_length"),
    ] {
        let reply = bench.send(method, path, &headers, body).await;
        assert_eq!(
            (reply.status, reply.json()["code"].as_str()),
            (422, Some(code)),
            "{path}: {}",
            reply.body
        );
    }
}
