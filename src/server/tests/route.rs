//! Where executions run: by request, by rule, and again after a failure. The runner of these tests starts real
//! processes in a throw-away directory; only the walls of a sandbox are missing.

use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use serde_json::json;
use tokio::process::Command;
use tokio::sync::mpsc;

use super::*;
use crate::route::runner::{
    Output, RESULT_FILE, Run, STEP_DIR, SandboxStep, StepEnd, StepExit, StepFailed, StepRunner, StepUsage,
    Stream, Value,
};

/// Runs steps as plain processes.
#[derive(Debug, Default)]
struct Processes {
    started: AtomicUsize,
}

impl StepRunner for Processes {
    fn run(&self, step: SandboxStep, output: mpsc::Sender<Output>) -> Run<'_> {
        self.started.fetch_add(1, SeqCst);
        Box::pin(process(step, output))
    }
}

async fn process(step: SandboxStep, output: mpsc::Sender<Output>) -> Result<StepEnd, StepFailed> {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in &step.files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let here = |value: &String| value.replace(STEP_DIR, dir.path().to_str().unwrap());
    let child = Command::new(&step.argv[0])
        .args(&step.argv[1..])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs(step.env.iter().map(|(name, value)| (name, here(value))))
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|_| StepFailed::NoProgram(step.argv[0].clone()))?;
    let time = Duration::from_millis(step.limits.wall_ms.into());
    let usage = StepUsage { wall_us: 1, ..StepUsage::default() };
    let Ok(finished) = tokio::time::timeout(time, child.wait_with_output()).await else {
        return Ok(StepEnd { exit: StepExit::WallTime, value: Value::None, usage, sandbox: "s".into() });
    };
    let finished = finished.unwrap();
    for (stream, bytes) in [(Stream::Stdout, finished.stdout), (Stream::Stderr, finished.stderr)] {
        if !bytes.is_empty() {
            output.send(Output { stream, bytes: bytes.into() }).await.unwrap();
        }
    }
    let value = std::fs::read(dir.path().join(RESULT_FILE));
    let value = value.map_or(Value::None, |bytes| Value::Bytes(bytes.into()));
    let code = u8::try_from(finished.status.code().unwrap()).unwrap();
    Ok(StepEnd { exit: StepExit::Code(code), value, usage, sandbox: "s".into() })
}

async fn with_runner(tables: &str) -> (Bench, Arc<Processes>) {
    let runner = Arc::new(Processes::default());
    let bench = start_runner(tempfile::tempdir().unwrap(), "", tables, Some(runner.clone())).await;
    (bench, runner)
}

impl Bench {
    async fn execute(&self, body: serde_json::Value) -> Reply {
        self.api("POST", "/v1/execute", &body.to_string()).await
    }
}

#[tokio::test]
async fn without_a_sandbox_code_runs_in_an_isolate_and_the_rest_is_told_what_is_missing() {
    let bench = start().await;
    for body in [
        json!({ "code": "return 1" }),
        json!({ "code": "return process.pid" }),
        json!({ "code": "return 1", "runtime": "isolate" }),
        json!({ "code": "return 1", "runtime": "auto" }),
        json!({ "code": "return process.pid", "runtime": "isolate" }),
    ] {
        let reply = bench.execute(body.clone()).await;
        assert_eq!(
            (reply.status, &reply.json()["route"]["runtime"]),
            (200, &json!("isolate")),
            "{body}: {reply:?}"
        );
    }
    let rules: Vec<String> = bench.seen.routed.lock().unwrap().clone();
    assert_eq!(rules.len(), 5);
    for (rule, name) in rules.iter().zip(["no-sandbox", "no-sandbox", "requested", "default", "requested"]) {
        assert!(rule.starts_with(&format!("isolate by rule `{name}`: ")), "{rule}");
    }
    for (body, rule) in [
        (json!({ "code": "print(1)", "language": "python" }), "language"),
        (json!({ "code": "ls", "language": "shell" }), "language"),
        (json!({ "code": "ls", "language": "command", "runtime": "auto" }), "language"),
        (json!({ "code": "return 1", "runtime": "sandbox" }), "requested"),
        (json!({ "code": "return 1", "needs": ["filesystem"] }), "needs"),
        (json!({ "code": "import fs from 'node:fs'; return 1", "runtime": "auto" }), "imports"),
        (json!({ "code": "return process.pid", "runtime": "auto" }), "globals"),
    ] {
        let reply = bench.execute(body.clone()).await;
        let problem = reply.json();
        assert_eq!(
            (reply.status, &problem["code"]),
            (501, &json!("sandbox_not_configured")),
            "{body}: {reply:?}"
        );
        assert_eq!(problem["route"]["rule"], rule, "{body}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains("operator must configure"), "{problem}");
    }
    assert_eq!(bench.finished(12).await.len(), 12, "each one has its terminal event");
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let (bench, runner) = with_runner("").await;
    for (body, status, code) in [
        (json!({ "code": "x", "language": "python", "runtime": "isolate" }), 422, "route_contradiction"),
        (json!({ "code": "1", "needs": ["process"], "runtime": "isolate" }), 422, "route_contradiction"),
        (json!({ "code": "1", "runtime": "moon" }), 400, "json_shape"),
        (json!({ "code": "1", "needs": ["luck"] }), 400, "json_shape"),
        (json!({ "code": "1", "language": "cobol" }), 400, "json_shape"),
        (json!({ "code": "1", "user": "a b", "runtime": "sandbox" }), 422, "user"),
        (json!({ "code": "echo 'a", "language": "command" }), 422, "command"),
        (json!({ "code": "no-such-program-here", "language": "command" }), 422, "sandbox_no_program"),
        (json!({ "code": "1", "language": "python", "modules": { "a.js": "1" } }), 400, "bad_request"),
        (json!({ "mainModule": "a", "language": "shell" }), 400, "bad_request"),
    ] {
        let reply = bench.execute(body.clone()).await;
        assert_eq!((reply.status, &reply.json()["code"]), (status, &json!(code)), "{body}: {reply:?}");
    }
    assert_eq!(runner.started.load(SeqCst), 1, "only the program that is not there was looked for");
}

#[tokio::test]
async fn every_language_runs_reads_its_input_and_leaves_a_result() {
    let (bench, _runner) = with_runner("").await;
    let python = "import json, os, sys\nx = json.load(open(os.environ['ATOLL_INPUT']))\n\
                  print('from python', os.environ['NAME'])\nprint('aside', file=sys.stderr)\n\
                  json.dump(x['n'] + 1, open(os.environ['ATOLL_RESULT'], 'w'))";
    let javascript = "import { n } from './lib.js';\nimport { sep } from 'node:path';\nconst os = require('os');\n\
                      console.log('from node', typeof os.cpus); return [input.n + n, sep, env.NAME]";
    for (language, code, modules, result, stdout) in [
        ("python", python, json!({}), json!(42), "from python Ada\n"),
        ("shell", "echo \"hello $NAME\"; echo 7 > $ATOLL_RESULT", json!({}), json!(7), "hello Ada\n"),
        ("command", "printf '%s|' 'a b' c", json!({}), json!(null), "a b|c|"),
        (
            "js",
            javascript,
            json!({ "lib.js": "export const n = 1" }),
            json!([42, "/", "Ada"]),
            "from node function\n",
        ),
        ("ts", "const n: number = process.argv.length; return n as number", json!({}), json!(3), ""),
    ] {
        let body = json!({ "code": code, "language": language, "modules": modules, "input": { "n": 41 },
                           "env": { "NAME": "Ada" } });
        let reply = bench.execute(body).await;
        let out = reply.json();
        assert_eq!((reply.status, &out["ok"]), (200, &json!(true)), "{language}: {reply:?}");
        assert_eq!(out["result"], result, "{language}: {out}");
        assert_eq!(
            (&out["process"]["exitCode"], &out["process"]["stdout"]),
            (&json!(0), &json!(stdout)),
            "{out}"
        );
        assert_eq!(out["route"]["runtime"], "sandbox", "{out}");
    }
}

#[tokio::test]
async fn failures_in_a_sandbox_have_their_codes() {
    let (bench, _runner) = with_runner("").await;
    for (body, code) in [
        (json!({ "code": "echo no >&2; exit 3", "language": "shell" }), "guest_error"),
        (json!({ "code": "sleep 60", "language": "shell", "limits": { "wallMs": 100 } }), "limit_wall"),
        (json!({ "code": "echo '{' > $ATOLL_RESULT", "language": "shell" }), "no_result"),
        (json!({ "code": "echo '{\"a\":1,\"a\":2}' > $ATOLL_RESULT", "language": "shell" }), "no_result"),
        (json!({ "code": "throw new Error('no')", "runtime": "sandbox" }), "guest_error"),
    ] {
        let reply = bench.execute(body.clone()).await;
        let out = reply.json();
        assert_eq!(
            (reply.status, &out["ok"], &out["error"]["code"]),
            (200, &json!(false), &json!(code)),
            "{body}: {out}"
        );
    }
    let loud = json!({ "code": "printf 123456789", "language": "shell", "limits": { "logBytes": 4 } });
    let out = bench.execute(loud).await.json();
    assert_eq!(
        (&out["process"]["stdout"], &out["process"]["truncated"]),
        (&json!("1234"), &json!(true)),
        "{out}"
    );
    let ends: Vec<_> = bench.finished(6).await.into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(ends, ["guest_error", "limit_wall", "done", "done", "guest_error", "done"]);
}

#[tokio::test]
async fn a_step_that_lacks_something_goes_to_the_sandbox_once_and_the_next_time_at_once() {
    let (bench, runner) = with_runner("").await;
    // The analysis does not see through this; the peer fails it as a real isolate would.
    let body = |input: &str, more: serde_json::Value| {
        let mut body = json!({ "code": "return globalThis['pro' + 'cess'].argv.length", "input": input });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let first = bench.execute(body("lacks", json!({}))).await.json();
    assert_eq!((&first["ok"], &first["result"]), (&json!(true), &json!(3)), "{first}");
    assert_eq!((&first["route"]["runtime"], &first["route"]["rule"]), (&json!("sandbox"), &json!("retried")));
    assert_eq!(first["logs"][0]["message"], "running", "what it logged in the isolate is kept");
    let second = bench.execute(body("lacks", json!({}))).await.json();
    assert_eq!((&second["result"], &second["route"]["rule"]), (&json!(3), &json!("learned")), "{second}");
    assert_eq!(bench.host.invokes.load(SeqCst), 1, "the second one saw no isolate");

    // A caller who asked for an isolate gets the isolate's answer.
    let asked = bench.execute(body("lacks", json!({ "runtime": "isolate" }))).await.json();
    assert_eq!((&asked["ok"], &asked["route"]["rule"]), (&json!(false), &json!("requested")), "{asked}");
    assert_eq!(runner.started.load(SeqCst), 2);
    let ends = bench.finished(4).await;
    let events: Vec<_> = ends.iter().map(|(event, outcome)| (*event, outcome.as_str())).collect();
    assert_eq!(
        events,
        [("execute", "guest_error"), ("sandbox", "done"), ("execute", "done"), ("execute", "guest_error")]
    );
}

#[tokio::test]
async fn a_step_that_called_somebody_is_repeated_only_if_its_author_says_so() {
    let (bench, runner) = with_runner("").await;
    let body = |n: u32, idempotent: bool| {
        json!({ "code": format!("return globalThis['pro' + 'cess'].argv.length + {n}"),
                "input": "calls and lacks", "idempotent": idempotent })
    };
    let once = bench.execute(body(1, false)).await.json();
    assert_eq!((&once["ok"], &once["route"]["runtime"]), (&json!(false), &json!("isolate")), "{once}");
    assert_eq!(runner.started.load(SeqCst), 0);
    let learned = bench.execute(body(1, false)).await.json();
    assert_eq!(learned["route"]["rule"], "learned", "it is remembered all the same: {learned}");
    let again = bench.execute(body(2, true)).await.json();
    assert_eq!((&again["result"], &again["route"]["rule"]), (&json!(5), &json!("retried")), "{again}");
}

#[tokio::test]
async fn the_operators_rules_decide_first() {
    let rules = "[[route]]\nname = \"acme-fs\"\ntenant = \"acme\"\nimport = \"fs\"\nruntime = \"isolate\"\n\
                 [[route]]\nname = \"typed\"\nlanguage = \"ts\"\nruntime = \"sandbox\"\n";
    let (bench, _runner) = with_runner(rules).await;
    for (body, runtime, rule) in [
        (json!({ "code": "import 'node:fs'; return 1" }), "isolate", "override:acme-fs"),
        (json!({ "code": "return 1", "language": "ts" }), "sandbox", "override:typed"),
        (json!({ "code": "return 1" }), "isolate", "default"),
        (json!({ "code": "return 1", "language": "ts", "runtime": "isolate" }), "isolate", "requested"),
        (json!({ "code": "import 'node:fs'; return 1", "needs": ["process"] }), "sandbox", "needs"),
    ] {
        let out = bench.execute(body.clone()).await.json();
        assert_eq!(
            (&out["route"]["runtime"], &out["route"]["rule"]),
            (&json!(runtime), &json!(rule)),
            "{body}: {out}"
        );
    }
}

#[tokio::test]
async fn a_step_in_a_sandbox_can_be_followed() {
    let (bench, _runner) = with_runner("").await;
    let headers = [
        ("authorization", "Bearer secret"),
        ("content-type", "application/json"),
        ("accept", "text/event-stream"),
    ];
    let body = json!({ "code": "echo out; echo err >&2; exit 2", "language": "shell" }).to_string();
    let reply = bench.send("POST", "/v1/execute", &headers, &body).await;
    let events: Vec<&str> = reply.body.split("\n\n").filter(|event| !event.is_empty()).collect();
    assert_eq!(events[0], "event: stdout\ndata: {\"text\":\"out\\n\"}");
    assert_eq!(events[1], "event: stderr\ndata: {\"text\":\"err\\n\"}");
    assert!(
        events[2].starts_with("event: result\ndata: {") && events[2].contains("\"exitCode\":2"),
        "{events:?}"
    );
    let lacking =
        json!({ "code": "return globalThis['pro' + 'cess'].argv.length", "input": "lacks" }).to_string();
    let reply = bench.send("POST", "/v1/execute", &headers, &lacking).await;
    assert!(reply.body.contains("\"rule\":\"retried\"") && reply.body.contains("\"result\":3"), "{reply:?}");
}
