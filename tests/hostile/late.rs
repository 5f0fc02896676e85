//! Rows about what comes late or never ends: 59, 60, 66, 67, 70, 78 and 108.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{Stage, cut, outcome, problem_code};
use crate::support::atoll::{Options, TENANT, host_name};
use crate::support::worker::{Request, Worker};

/// Rows of the table that live here.
pub(super) const ROWS: &[u32] = &[59, 60, 66, 67, 70, 78, 108];

/// A bound on waiting for something that must happen, in rounds of 50 ms.
const ROUNDS_MAX: usize = 400;
/// Crossings of the flood in row 108.
const CROSSINGS: u64 = 3_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_late_stop_never_hits_the_next_request() {
    let mut stage = Stage::open().await;
    let source = "export default { async fetch(r, env, ctx) {\
        const path = new URL(r.url).pathname;\
        if (path === '/spin') for (;;);\
        if (path === '/later') ctx.waitUntil((async () => { await null; for (;;); })());\
        return new Response('ok') } }";
    let deployment = json!({
        "mainModule": "m.js", "modules": { "m.js": source }, "limits": { "cpuMs": 50 },
    });
    stage.atoll.control("PUT", "/v1/workers/late", Some(deployment)).await;
    for round in 0..8 {
        stage.begin();
        let path = if round % 2 == 0 { "/spin" } else { "/later" };
        let spun = stage.atoll.send("late", &Request::new("GET", path)).await;
        let code = problem_code(&spun).unwrap_or_else(|| spun.status.to_string());
        stage.require("59", path, ["limit_cpu", "200"].contains(&code.as_str()), &code);
        for _ in 0..5 {
            let next = stage.atoll.send("late", &Request::new("GET", "/")).await;
            // Behind `/later` the isolate is still in its endless loop: what waits for it ends with it, and says so.
            let own = next.status == 200 || path == "/later" && next.status == 503;
            stage.require(
                "59",
                path,
                own,
                &format!("the next request got {} {}", next.status, cut(&next.text())),
            );
        }
    }
    let after = stage.atoll.send("late", &Request::new("GET", "/")).await;
    stage.require("59", "a late watchdog", after.status == 200, &cut(&after.text()));
    stage.told("59", "a late watchdog", "limit_cpu").await;
    stage.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_execution_began_outside_is_broken_off() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let config = format!("[outbound]\nallow_private = [\"127.0.0.1:{port}\"]\n");
    let mut stage = Stage::open_with(Options { config, ..Options::default() }).await;
    let far = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a call");
        let (mut bytes, mut piece) = (0, [0; 1024]);
        // It never answers; the end of the call is the end of the connection.
        loop {
            match stream.read(&mut piece).await {
                Ok(count @ 1..) => bytes += count,
                Ok(0) | Err(_) => return bytes,
            }
        }
    });
    stage.begin();
    let code = format!(
        "fetch('http://127.0.0.1:{port}/').catch(() => {{}}); await new Promise(r => setTimeout(r, 300)); for(;;);"
    );
    let body =
        json!({ "code": code, "outbound": [format!("http://127.0.0.1:{port}")], "limits": super::limits() });
    let answer = stage.atoll.execute(body).await;
    stage.require("60", "calls of the dead", outcome(&answer) == "limit_cpu", &cut(&answer.text()));
    let ended = tokio::time::timeout(Duration::from_secs(20), far).await;
    let asked = ended.as_ref().is_ok_and(|ended| ended.as_ref().is_ok_and(|bytes| *bytes > 0));
    stage.require("60", "calls of the dead", asked, &format!("{ended:?}"));
    let page = stage.atoll.control("GET", "/v1/audit?kind=crossing", None).await.json();
    stage.require("60", "calls of the dead", page["records"][0]["outcome"] == "abandoned", &page.to_string());
    stage.told("60", "calls of the dead", "limit_cpu").await;
    stage.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn console_lines_cannot_forge_lines_of_the_log() {
    let mut stage = Stage::open().await;
    let source = r"export default { fetch() {
        console.log('a\r\n2026-01-01T00:00:00Z ERROR gateway: forged\x1b[2J\x1b]0;title\x07');
        console.log('b\u2028\u2029\u0085forged\u202e');
        return new Response('ok') } }";
    stage.atoll.deploy(&Worker::single("forger", source)).await;
    stage.begin();
    stage.atoll.send("forger", &Request::new("GET", "/")).await;
    let mut log = String::new();
    for _ in 0..ROUNDS_MAX {
        log = stage.atoll.log();
        if log.contains("title") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stage.require("66", "log forging", log.contains("title"), "the line is not in the log at all");
    let forged = log.lines().any(|line| line.starts_with("2026-01-01T00:00:00Z ERROR gateway"));
    stage.require("66", "log forging", !forged, "a line was forged");
    stage.require(
        "66",
        "log forging",
        !log.contains("\u{1b}[2J") && !log.contains('\u{7}'),
        "control codes got through",
    );
    let answer = stage.atoll.control("GET", "/v1/workers/forger/logs", None).await;
    stage.require("66", "log forging", !answer.text().contains('\u{1b}'), "control codes in JSON");
    stage.told("66", "log forging", "escaped").await;
    stage.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_end_ends_at_its_limit() {
    let mut stage = Stage::open().await;
    let source = "export default { fetch: () => new Response(new ReadableStream({\
        async pull(c) { c.enqueue(new Uint8Array(65536)); await null } })) }";
    let deployment = json!({
        "mainModule": "m.js", "modules": { "m.js": source }, "limits": { "responseBytes": 1_000_000 },
    });
    stage.atoll.control("PUT", "/v1/workers/endless", Some(deployment)).await;
    stage.begin();
    let mut stream = TcpStream::connect(stage.atoll.address()).await.expect("the gateway listens");
    let head = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", host_name(TENANT, "endless"));
    stream.write_all(head.as_bytes()).await.expect("the gateway reads");
    let mut all = vec![];
    let ended = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut all)).await;
    stage.require("67", "endless response", ended.is_ok(), "it never ended");
    stage.require("67", "endless response", all.len() < 1_200_000, &format!("{} bytes came", all.len()));
    stage.require("67", "endless response", !all.ends_with(b"0\r\n\r\n"), "it ended as if it were whole");
    let mut record = Value::Null;
    for _ in 0..ROUNDS_MAX {
        let page = stage.atoll.control("GET", "/v1/audit?kind=execution&worker=endless", None).await.json();
        record = page["records"][0].clone();
        if record.is_object() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stage.require("67", "endless response", record["outcome"] == "limit_response_bytes", &record.to_string());
    stage.told("67", "endless response", "limit_response_bytes").await;
    stage.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_never_go_on_end_with_their_execution() {
    let mut stage = Stage::open().await;
    let hangs: &[&str] = &["hung", "limit_wall", "limit_cpu"];
    let memory: &[&str] = &["limit_external", "limit_heap", "limit_cpu", "limit_wall", "guest_error"];
    let rows = [
        (
            "70a",
            "pull that never resolves",
            hangs,
            "await new Response(new ReadableStream({pull(){return new Promise(()=>{})}})).text()",
        ),
        (
            "70b",
            "tee with one idle half",
            memory,
            "const [a,b]=new ReadableStream({pull(c){c.enqueue(new Uint8Array(1<<20))}}).tee();const r=a.getReader();for(;;)await r.read()",
        ),
        (
            "70c",
            "pipe into a sink that waits",
            hangs,
            "await new ReadableStream({pull(c){c.enqueue('x')}}).pipeTo(new WritableStream({write(){return new Promise(()=>{})}}))",
        ),
    ];
    for (id, name, allowed, code) in rows {
        stage.begin();
        let answer = stage.atoll.execute(json!({ "code": code, "limits": super::limits() })).await;
        let code = outcome(&answer);
        stage.require(
            id,
            name,
            allowed.contains(&code.as_str()),
            &format!("{code}: {}", cut(&answer.text())),
        );
        stage.told(id, name, &code).await;
    }
    stage.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn framing_is_never_the_guests() {
    let mut stage = Stage::open().await;
    let source = "export default { fetch: () => new Response('hello', { headers: {\
        'content-length': '1', 'transfer-encoding': 'chunked', 'connection': 'x-secret, upgrade', 'x-secret': '1',\
        'keep-alive': 'timeout=9', 'upgrade': 'h2c', 'proxy-authenticate': 'x', 'trailer': 'x', 'te': 'x' } }) }";
    stage.atoll.deploy(&Worker::single("framer", source)).await;
    stage.begin();
    let answer = stage.atoll.send("framer", &Request::new("GET", "/")).await;
    stage.require("78a", "framing headers", answer.text() == "hello", &cut(&answer.text()));
    for name in
        ["transfer-encoding", "x-secret", "keep-alive", "upgrade", "proxy-authenticate", "trailer", "te"]
    {
        let passed = answer.header(name);
        stage.require("78a", name, passed.is_none(), &format!("got through: {passed:?}"));
    }
    let length = answer.header("content-length");
    stage.require("78a", "content-length", length == Some("5"), &format!("{length:?}"));
    stage.told("78a", "framing headers", "removed").await;
    stage.close();
}

/// Row 108: a tenant that crosses far too often has counts in the log instead of records, and nothing is missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_crossings_is_counted_and_others_have_their_records() {
    let config =
        "[audit]\ncrossings_per_second = 10\ncrossings_burst = 50\n[egress.none]\nallow = []\n".to_owned();
    let tenant = "egress = [\"none\"]".to_owned();
    let mut stage = Stage::open_with(Options { config, tenant, ..Options::default() }).await;
    stage.begin();
    let code = "let denied = 0; for (let i = 0; i < 50; i++) { try { await fetch('https://example.com/') } catch (e) { denied++ } } return denied";
    let mut denied = 0;
    while denied < CROSSINGS {
        let answer = stage.atoll.execute(json!({ "code": code, "egress": "none" })).await.json();
        let Some(more) = answer["result"].as_u64() else {
            stage.fail("108", "audit flood", &answer.to_string());
            break;
        };
        denied += more;
    }
    let folder = stage.atoll.data().join("audit");
    let sum = |kind: &str| -> u64 {
        let records = crate::audit::records(&folder);
        let of = records.iter().filter(|r| r["kind"] == kind && r["outcome"] == "egress_origin");
        of.map(|record| record["count"].as_u64().unwrap_or(1)).sum()
    };
    let mut told = 0;
    for _ in 0..ROUNDS_MAX {
        told = sum("crossing") + sum("counted");
        if told >= denied {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stage.require("108", "audit flood", told == denied, &format!("{told} of {denied} are in the log"));
    let single = sum("crossing");
    stage.require("108", "audit flood", single < denied / 2, &format!("{single} have records of their own"));
    let (report, well) = crate::audit::verify(&folder);
    stage.require("108", "audit flood", well, &report.to_string());
    stage.told("108", "audit flood", "counted").await;
    stage.close();
}
