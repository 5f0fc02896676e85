//! Steps in container sandboxes, through `/v1/execute` of the real binary: real namespaces, processes and files.

use serde_json::{Value, json};

use crate::support::atoll::{Atoll, Options};

/// A server with sandboxes, or `None` where this user cannot have any: said aloud, never as root.
async fn with_sandboxes() -> Option<Atoll> {
    let config = "sandbox = { memory_mib = 192, disk_mib = 64 }".into();
    let atoll = Atoll::start(Options { config, ..Options::default() }).await;
    let answer = atoll.execute(json!({ "language": "command", "runtime": "sandbox", "code": "true" })).await;
    if answer.status == 503 && !is_root() {
        eprintln!("SKIPPED: an ordinary user cannot bound sandboxes here: {}", answer.text());
        return None;
    }
    assert_eq!(answer.status, 200, "{}", answer.text());
    Some(atoll)
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"))
}

async fn ok(atoll: &Atoll, body: Value) -> Value {
    let answer = atoll.execute(body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_of_every_kind_run_and_a_user_finds_own_files_again() {
    let Some(atoll) = with_sandboxes().await else { return };
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

#[tokio::test(flavor = "multi_thread")]
async fn hostile_steps_end_and_leave_the_server_and_nothing_behind() {
    let Some(mut atoll) = with_sandboxes().await else { return };
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
    let outside =
        json!({ "language": "shell", "runtime": "sandbox", "outbound": ["example.com"], "code": "true" });
    assert_eq!(atoll.execute(outside).await.status, 503, "no network is offered, so none is pretended");
    assert_eq!(atoll.execute(json!({ "code": "return 1" })).await.json()["result"], 1);
    assert!(atoll.alive());

    let gateway = atoll.pid();
    let inside = crate::support::memory::members(gateway);
    assert!(inside.iter().any(|pid| is_sandbox(*pid)), "sandboxes are alive when their gateway is killed");
    atoll.kill();
    // A sandbox without its gateway ends by itself.
    for _ in 0..100 {
        if inside.iter().all(|pid| !runs(*pid)) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("still there: {:?}", inside.into_iter().filter(|pid| runs(*pid)).collect::<Vec<_>>());
}

/// Whether a process belongs to a sandbox.
fn is_sandbox(pid: u32) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).contains("sandbox-init")
}

/// Whether a process is there and no zombie.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}
