//! Steps in container sandboxes, through `/v1/execute` of the real binary: real namespaces, processes and files.

use serde_json::{Value, json};

use super::Server;
use super::backends::{Place, on_each_backend};

async fn ok(atoll: &Server, body: Value) -> Value {
    let answer = atoll.execute(body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

async fn steps_of_every_kind_run_and_a_user_finds_own_files_again(place: Place) {
    let Some(atoll) = place.plain().await else { return };
    let shell = |user: &str, code: &str| json!({ "language": "shell", "runtime": "auto", "user": user, "code": code });

    let wrote = ok(&atoll, shell("ann", "echo kept > /workspace/note; echo out; echo err >&2; id -u")).await;
    assert_eq!(wrote["ok"], true, "{wrote}");
    assert_eq!(wrote["route"]["runtime"], "sandbox", "{wrote}");
    let stdout = wrote["process"]["stdout"].as_str().expect("text");
    assert!(stdout.starts_with("out\n") && !stdout.ends_with("\n0\n"), "never root: {stdout}");
    assert_eq!(wrote["process"]["stderr"], "err\n");

    let again = ok(&atoll, shell("ann", "cat /workspace/note")).await;
    assert_eq!(again["process"]["stdout"], "kept\n", "{again}");
    let other = ok(&atoll, shell("bob", "cat /workspace/note")).await;
    assert_eq!(other["ok"], false, "another user has another sandbox: {other}");
    assert_eq!(other["error"]["name"], "ExitError");

    let python = "import json, os\ninput = json.load(open(os.environ['ATOLL_INPUT']))\n\
                  json.dump(input['a'] * 2, open(os.environ['ATOLL_RESULT'], 'w'))";
    if std::path::Path::new("/usr/bin/python3").exists() {
        let answer = ok(&atoll, json!({ "language": "python", "code": python, "input": { "a": 21 } })).await;
        assert_eq!(answer["result"], 42, "{answer}");
    }
    let isolate = ok(&atoll, json!({ "runtime": "auto", "code": "return 6 * 7" })).await;
    assert_eq!(
        (&isolate["result"], &isolate["route"]["runtime"]),
        (&json!(42), &json!("isolate")),
        "{isolate}"
    );
    let files = "import { writeFileSync, readFileSync } from 'node:fs';\n\
                 export default (input) => { writeFileSync('/workspace/x', input); return readFileSync('/workspace/x', 'utf8') }";
    if std::path::Path::new("/usr/bin/node").exists() {
        let answer = ok(&atoll, json!({ "runtime": "auto", "code": files, "input": "through a file" })).await;
        assert_eq!(answer["route"]["rule"], "imports", "{answer}");
        assert_eq!(answer["result"], "through a file", "{answer}");
    }
}

async fn hostile_steps_end_and_leave_the_server_and_nothing_behind(place: Place) {
    let Some(mut atoll) = place.plain().await else { return };
    let bomb = json!({ "language": "shell", "runtime": "sandbox", "user": "bomb", "limits": { "wallMs": 2_000 },
        "code": "f() { f | f & }; f; sleep 60" });
    let answer = atoll.execute(bomb).await;
    assert!([200, 503].contains(&answer.status), "{}", answer.text());
    if answer.status == 200 {
        assert_eq!(answer.json()["ok"], false, "{}", answer.text());
    }
    let spin = json!({ "language": "shell", "runtime": "sandbox", "user": "spin", "limits": { "wallMs": 500 },
        "code": "while :; do :; done" });
    assert_eq!(ok(&atoll, spin).await["error"]["code"], "limit_wall");
    let flood = json!({ "language": "shell", "runtime": "sandbox", "user": "flood", "limits": { "wallMs": 1_000 },
        "code": "yes" });
    let answer = atoll.execute(flood).await;
    assert!(answer.body.len() < 4 << 20, "the answer is bounded: {}", answer.body.len());
    let network = json!({ "language": "shell", "runtime": "sandbox", "user": "net",
        "code": "cat /proc/net/dev | grep -v lo: | tail -n +3; cat /proc/self/status | grep CapEff" });
    let looked = ok(&atoll, network).await;
    assert_eq!(looked["process"]["stdout"], "CapEff:\t0000000000000000\n", "{looked}");

    let missing = json!({ "language": "command", "runtime": "sandbox", "code": "no-such-program" });
    let answer = atoll.execute(missing).await;
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (422, &json!("sandbox_no_program")),
        "{}",
        answer.text()
    );
    assert_eq!(atoll.execute(json!({ "code": "return 1" })).await.json()["result"], 1);
    assert!(atoll.alive());

    atoll.finish_by_a_kill().await;
}

async fn a_step_has_its_own_bill_and_one_out_of_memory_says_so(place: Place) {
    let counts = place.counts_oom_kills();
    let Some(atoll) = place.plain().await else { return };
    let spin = json!({ "language": "shell", "user": "ann", "code": "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done" });
    for _ in 0..3 {
        let step = ok(&atoll, spin.clone()).await;
        assert!(
            step["usage"]["cpuUs"].as_u64() > Some(1_000),
            "a step shorter than a second has a bill: {step}"
        );
        assert!(
            step["process"]["bytesIn"].as_u64() > Some(0)
                && step["usage"]["externalBytesPeak"].as_u64() > Some(0),
            "{step}"
        );
    }
    let hungry = json!({ "language": "shell", "user": "ann", "code": "x=$(head -c 300000000 /dev/zero | tr '\\0' x); echo ${#x}" });
    let step = ok(&atoll, hungry).await;
    let code = if counts { "limit_heap" } else { "guest_error" };
    assert_eq!((&step["ok"], &step["error"]["code"]), (&json!(false), &json!(code)), "{step}");
    let after = ok(&atoll, json!({ "language": "shell", "user": "ann", "code": "exit 3" })).await;
    assert_eq!(after["error"]["code"], "guest_error", "only the step that it happened to: {after}");
    atoll.finish();
}

on_each_backend!(
    steps_of_every_kind_run_and_a_user_finds_own_files_again,
    hostile_steps_end_and_leave_the_server_and_nothing_behind,
    a_step_has_its_own_bill_and_one_out_of_memory_says_so,
);
