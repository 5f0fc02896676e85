//! Code mode end to end: one POST in; result, console lines and usage out.

use serde_json::{Value, json};

use crate::support::atoll::{Atoll, Options, TOKEN};
use crate::support::client;
use crate::support::worker::Request;

/// A snippet and what must come of it.
struct Case {
    name: &'static str,
    body: Value,
    /// `Ok` with the result, or `Err` with the stable code.
    expect: Result<Value, &'static str>,
}

fn case(name: &'static str, body: Value, expect: Result<Value, &'static str>) -> Case {
    Case { name, body, expect }
}

fn cases() -> Vec<Case> {
    vec![
        case("a body that returns", json!({ "code": "return 1 + 1" }), Ok(json!(2))),
        case("a body without return", json!({ "code": "1 + 1" }), Ok(Value::Null)),
        case(
            "top-level await",
            json!({ "code": "return await Promise.resolve('later')" }),
            Ok(json!("later")),
        ),
        case(
            "an arrow function",
            json!({ "code": "async (input) => input.n * 2", "input": { "n": 21 } }),
            Ok(json!(42)),
        ),
        case(
            "a function",
            json!({ "code": "function run(input) { return typeof input }", "input": "x" }),
            Ok(json!("string")),
        ),
        case(
            "a module",
            json!({ "code": "import { x } from './x.js';\nexport default (input, env) => [x, env.E]", "env": { "E": 1 },
                    "modules": { "x.js": "export const x = 'x'" } }),
            Ok(json!(["x", 1])),
        ),
        case(
            "modules with a main one",
            json!({ "mainModule": "m.js", "modules": { "m.js": "import t from './t.txt'; export default () => t",
                    "t.txt": { "text": "a text" } } }),
            Ok(json!("a text")),
        ),
        case(
            "TypeScript",
            json!({ "code": "const n: number = (input as { n: number }).n; return n satisfies number", "language": "ts",
                    "input": { "n": 7 } }),
            Ok(json!(7)),
        ),
        case(
            "no input",
            json!({ "code": "return [typeof input, Object.keys(env).length]" }),
            Ok(json!(["object", 0])),
        ),
        case(
            "values that JSON changes",
            json!({ "code": "return { date: new Date(0), nan: NaN, gone: undefined, nested: [undefined] }" }),
            Ok(json!({ "date": "1970-01-01T00:00:00.000Z", "nan": null, "nested": [null] })),
        ),
        case(
            "timers",
            json!({ "code": "return await new Promise((r) => setTimeout(r, 5, 'rang'))" }),
            Ok(json!("rang")),
        ),
        case(
            "the web platform",
            json!({ "code": "const r = new Response('a'); return [await r.text(), new URL('https://x/y').pathname, btoa('a'), \
                     new Uint8Array(await crypto.subtle.digest('SHA-256', new Uint8Array())).length]" }),
            Ok(json!(["a", "/y", "YQ==", 32])),
        ),
        case(
            "no network",
            json!({ "code": "try { await fetch('https://example.com/') } catch { return 'denied' }" }),
            Ok(json!("denied")),
        ),
        case("thrown", json!({ "code": "throw new TypeError('no')" }), Err("guest_error")),
        case("rejected", json!({ "code": "await Promise.reject(new Error('no'))" }), Err("guest_error")),
        case(
            "a result that has no JSON",
            json!({ "code": "const a = {}; a.a = a; return a" }),
            Err("guest_error"),
        ),
        case("too much CPU", json!({ "code": "for (;;);", "limits": { "cpuMs": 50 } }), Err("limit_cpu")),
        case(
            "too much time",
            json!({ "code": "await new Promise((r) => setTimeout(r, 60000))", "limits": { "wallMs": 200 } }),
            Err("limit_wall"),
        ),
        case(
            "too much memory",
            json!({ "code": "const a = []; for (;;) a.push(new Array(1000).fill(1.5))",
                    "limits": { "heapMib": 32, "cpuMs": 10_000 } }),
            Err("limit_heap"),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn snippets_give_their_result_or_a_stable_code() {
    let server = Atoll::start(Options::default()).await;
    let mut failures = vec![];
    for Case { name, body, expect } in cases() {
        let answer = server.execute(body).await;
        if answer.status != 200 {
            failures.push(format!("{name}: {} {}", answer.status, answer.text()));
            continue;
        }
        let answer = answer.json();
        let good = match &expect {
            Ok(result) => answer["ok"] == json!(true) && answer["result"] == *result,
            Err(code) => answer["ok"] == json!(false) && answer["error"]["code"] == json!(code),
        };
        // It was 0 for whatever ended in its first turn: the heap was looked at after the usage was told.
        let heap_known = expect.is_err() || answer["usage"]["heapBytesPeak"].as_u64() > Some(100_000);
        if !good || !heap_known || !answer["id"].is_string() || !answer["usage"]["cpuUs"].is_u64() {
            failures.push(format!("{name}: wanted {expect:?}, got {answer}"));
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exception_has_a_name_a_message_and_a_stack_in_the_authors_lines() {
    let server = Atoll::start(Options::default()).await;
    let code = "const helper = () => {\n  throw new RangeError('too far');\n};\nhelper();";
    let error = server.execute(json!({ "code": code })).await.json()["error"].clone();
    assert_eq!(error["name"], json!("RangeError"), "{error}");
    assert_eq!(error["message"], json!("too far"), "{error}");
    let stack = error["stack"].as_str().unwrap_or_default();
    assert!(stack.contains(":2:"), "the throw is on line 2: {stack}");
    assert!(!stack.contains("/src/") && !stack.contains(".rs"), "no file of the host: {stack}");
}

#[tokio::test(flavor = "multi_thread")]
async fn console_lines_come_back_in_order_with_their_levels() {
    let server = Atoll::start(Options::default()).await;
    let code =
        "console.log('one', { a: 1 }); console.warn('two'); console.error(new Error('three')); return 'done'";
    let answer = server.execute(json!({ "code": code })).await.json();
    let logs = answer["logs"].as_array().cloned().unwrap_or_default();
    let levels: Vec<&str> = logs.iter().filter_map(|line| line["level"].as_str()).collect();
    assert_eq!(levels, ["log", "warn", "error"], "{answer}");
    for (line, part) in logs.iter().zip(["one", "two", "three"]) {
        assert!(line["message"].as_str().is_some_and(|text| text.contains(part)), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn executions_share_nothing() {
    let server = Atoll::start(Options::default()).await;
    let leave = "Object.prototype.left = 1; globalThis.left = 1; return 'left'";
    assert_eq!(server.execute(json!({ "code": leave })).await.json()["result"], json!("left"));
    let look = "return [({}).left ?? null, globalThis.left ?? null]";
    assert_eq!(server.execute(json!({ "code": look })).await.json()["result"], json!([null, null]));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_with_a_problem() {
    let server = Atoll::start(Options::default()).await;
    let cases = [
        ("not JSON", "{", &[400, 422][..]),
        ("no code", "{}", &[400, 422]),
        ("unknown field", r#"{"code":"1","colour":1}"#, &[400, 422]),
        ("repeated field", r#"{"code":"1","code":"2"}"#, &[400, 422]),
        ("unknown language", r#"{"code":"1","language":"cobol"}"#, &[400, 422]),
        ("unknown limit", r#"{"code":"1","limits":{"patience":1}}"#, &[400, 422]),
        ("code that does not parse", r#"{"code":"return ("}"#, &[200, 400, 422]),
        (
            "a bare module that is not there",
            r#"{"code":"import x from 'left-pad'; return x"}"#,
            &[200, 400, 422],
        ),
    ];
    for (name, body, statuses) in cases {
        let request = Request::new("POST", "/v1/execute")
            .header("authorization", &format!("Bearer {TOKEN}"))
            .header("content-type", "application/json")
            .body(body);
        let answer = client::send(server.address(), "localhost", &request).await.expect("an answer");
        assert!(statuses.contains(&answer.status), "{name}: {} {}", answer.status, answer.text());
        let answer_json = answer.json();
        let code = if answer.status == 200 { &answer_json["error"]["code"] } else { &answer_json["code"] };
        assert!(code.is_string(), "{name} has no code: {answer_json}");
        assert_ne!(answer_json["ok"], json!(true), "{name}: {answer_json}");
    }
    let nobody = Request::new("POST", "/v1/execute").header("content-type", "application/json").body("{}");
    let answer = client::send(server.address(), "localhost", &nobody).await.expect("an answer");
    assert_eq!(answer.status, 401);
    assert!(answer.header("www-authenticate").is_some());
}

/// A stream's source that had nothing more to say kept its invocation until the wall limit, after the isolate that read from it
/// was done: nobody told the source.
#[tokio::test]
async fn a_stream_that_nobody_wants_is_cancelled_while_its_source_is_silent() {
    let server = Atoll::start(Options::default()).await;
    let code = "import { WorkerEntrypoint } from 'cloudflare:workers';
    export class Reader extends WorkerEntrypoint {
      async first(stream) { return (await stream.getReader().read()).value.byteLength; }
    }
    export default async (input, env, ctx) => {
      let cancelled, n = 0;
      const gone = new Promise((resolve) => cancelled = resolve);
      const silent = new ReadableStream({
        type: 'bytes',
        pull(c) { if (n++ === 0) c.enqueue(new Uint8Array(3)); else return new Promise(() => {}); },
        cancel() { cancelled('cancelled'); },
      });
      return [await ctx.exports.Reader.first(silent), await gone];
    }";
    let answer = server.execute(json!({ "code": code })).await.json();
    assert_eq!(answer["result"], json!([3, "cancelled"]), "{answer}");
}
