//! A deployed worker's life, and the gateway's while isolate hosts die.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::atoll::{Atoll, NEIGHBOUR_TOKEN, Options, TENANT, host_name};
use crate::support::client::{self, Connection};
use crate::support::memory;
use crate::support::worker::{Request, Worker};

/// A bound on waiting for a replaced isolate host, in rounds of 50 ms.
const ROUNDS_MAX: usize = 400;

fn saying(words: &str) -> Worker {
    Worker::single("speaker", &format!("export default {{ fetch: () => new Response('{words}') }};"))
}

async fn says(server: &Atoll) -> String {
    server.send("speaker", &Request::new("GET", "/")).await.text()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_deployed_replaced_rolled_back_and_deleted() {
    let server = Atoll::start(Options::default()).await;
    server.deploy(&saying("one")).await;
    assert_eq!(says(&server).await, "one");
    server.deploy(&saying("two")).await;
    assert_eq!(says(&server).await, "two");
    let rolled = server.control("POST", "/v1/workers/speaker/rollback", Some(json!({}))).await;
    assert!((200..300).contains(&rolled.status), "{} {}", rolled.status, rolled.text());
    assert_eq!(says(&server).await, "one");
    let listed = server.control("GET", "/v1/workers", None).await;
    assert!(listed.text().contains("speaker"), "{}", listed.text());
    let deleted = server.control("DELETE", "/v1/workers/speaker", None).await;
    assert!((200..300).contains(&deleted.status), "{} {}", deleted.status, deleted.text());
    assert_eq!(server.send("speaker", &Request::new("GET", "/")).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_answers_by_host_name_and_by_path() {
    let server = Atoll::start(Options::default()).await;
    let echo =
        "export default { fetch: (r) => new Response(new URL(r.url).pathname + new URL(r.url).search) };";
    server.deploy(&Worker::single("echo", echo)).await;
    assert_eq!(server.send("echo", &Request::new("GET", "/a/b?c=d")).await.text(), "/a/b?c=d");
    let by_path = Request::new("GET", &format!("/w/{TENANT}/echo/a/b?c=d"));
    let answer = client::send(server.address(), "localhost", &by_path).await.expect("an answer");
    assert_eq!(answer.text(), "/a/b?c=d");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_deployment_leaves_the_old_version_serving() {
    let server = Atoll::start(Options::default()).await;
    server.deploy(&saying("good")).await;
    let broken = Worker::single("speaker", "export default {{{");
    let answer = server.try_deploy_as(crate::support::atoll::TOKEN, &broken).await;
    assert!((400..500).contains(&answer.status), "{} {}", answer.status, answer.text());
    assert_eq!(says(&server).await, "good");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_cannot_see_or_touch_another_tenants_workers() {
    let server = Atoll::start(Options::default()).await;
    server.deploy(&saying("mine")).await;
    for (method, path) in [("GET", "/v1/workers/speaker"), ("DELETE", "/v1/workers/speaker")] {
        let answer = server.control_as(NEIGHBOUR_TOKEN, method, path, None).await;
        assert_eq!(answer.status, 404, "{method} {path}: {}", answer.text());
    }
    for token in ["", "wrong", "test-token-of-acm", "test-token-of-acme2"] {
        let answer = server.control_as(token, "GET", "/v1/workers", None).await;
        assert_eq!(answer.status, 401, "{token:?}: {}", answer.text());
    }
    assert_eq!(says(&server).await, "mine");
}

#[tokio::test(flavor = "multi_thread")]
async fn deployments_survive_a_restart() {
    let mut server = Atoll::start(Options::default()).await;
    server.deploy(&saying("still here")).await;
    server.restart().await;
    assert_eq!(says(&server).await, "still here");
}

#[tokio::test(flavor = "multi_thread")]
async fn deployments_survive_a_kill() {
    let mut server = Atoll::start(Options::default()).await;
    server.deploy(&saying("still here")).await;
    server.kill_and_restart().await;
    assert_eq!(says(&server).await, "still here");
}

/// Isolate hosts are killed while a request is inside: it is answered, open connections stay open, no listener
/// closes, and a new host serves.
#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_outlives_its_isolate_hosts() {
    let mut server = Atoll::start(Options::default()).await;
    server.deploy(&saying("alive")).await;
    let waits =
        "export default { fetch: () => new Promise((r) => setTimeout(r, 20000, new Response('late'))) };";
    server.deploy(&Worker::single("waiter", waits)).await;
    assert_eq!(says(&server).await, "alive");
    let mut open =
        Connection::open(server.address(), &host_name(TENANT, "speaker")).await.expect("a connection");
    open.send(&Request::new("GET", "/")).await.expect("served");

    let (address, host) = (server.address(), host_name(TENANT, "waiter"));
    let inside = tokio::spawn(async move { client::send(address, &host, &Request::new("GET", "/")).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let hosts: Vec<u32> =
        memory::members(server.pid()).into_iter().filter(|pid| *pid != server.pid()).collect();
    assert!(!hosts.is_empty(), "no isolate host process found");
    for pid in hosts {
        let killed = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
        assert!(killed.expect("kill runs").success());
    }

    let answer = inside.await.expect("no panic").expect("what was inside is answered");
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(crate::hostile::problem_code(&answer).as_deref(), Some("host_fault"), "{}", answer.text());
    let mut rounds = 0;
    loop {
        assert!(server.alive(), "the gateway ended:\n{}", server.log());
        let answer = open.send(&Request::new("GET", "/")).await.expect("the open connection stays open");
        if answer.status == 200 {
            break;
        }
        assert_eq!(answer.status, 503, "{}", answer.text());
        rounds += 1;
        assert!(rounds < ROUNDS_MAX, "no host came back: {}\n{}", answer.text(), server.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Isolate hosts of a server.
fn host_pids(server: &Atoll) -> std::collections::BTreeSet<u32> {
    memory::members(server.pid()).into_iter().filter(|pid| *pid != server.pid()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_replaces_every_isolate_host_and_every_request_is_answered() {
    let server = Atoll::start(Options { isolate_hosts: 2, ..Options::default() }).await;
    under_load(&server, || {
        let status = Command::new("kill").args(["-HUP", &server.pid().to_string()]).status();
        assert!(status.expect("kill runs").success());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_restarts_every_isolate_host_and_every_request_is_answered() {
    let config = "[host_class.apart]\nhosts = 1\n".to_owned();
    let server = Atoll::start(Options { isolate_hosts: 2, config, ..Options::default() }).await;
    let before = server.control("GET", "/v1/hosts", None).await.json();
    assert_eq!((&before["rolling"], &before["generation"]), (&json!(false), &json!(0)), "{before}");
    under_load(&server, || {
        let done = server.command(&["hosts", "restart", "--wait", "--json"]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let status: Value = serde_json::from_slice(&done.stdout).expect("JSON");
        assert_eq!((&status["rolling"], &status["generation"]), (&json!(false), &json!(1)), "{status}");
        let hosts = status["hosts"].as_array().expect("hosts");
        assert!(hosts.len() >= 3 && hosts.iter().all(|host| host["generation"] == 1), "{status}");
        assert!(hosts.iter().any(|host| host["class"] == "apart"), "{status}");
        let pids = |status: &Value| -> std::collections::BTreeSet<u64> {
            status["hosts"]
                .as_array()
                .expect("hosts")
                .iter()
                .filter_map(|host| host["pid"].as_u64())
                .collect()
        };
        assert!(pids(&before).is_disjoint(&pids(&status)), "{before} {status}");
    })
    .await;
    let shown = server.command(&["hosts"]);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(text.contains("active") && text.contains("standby") && text.contains("class apart"), "{text}");
    // Who asked is in the log, and each host that was replaced.
    let asked = server.control("GET", "/v1/audit?kind=control", None).await.json();
    assert_eq!(asked["records"][1]["action"], "restart_hosts", "{asked}");
    let records = crate::audit::records(&server.data().join("audit"));
    let retired = records.iter().filter(|record| record["kind"] == "host" && record["event"] == "retired");
    assert!(retired.count() >= 3, "{records:?}");
    let metrics = server.control("GET", "/metrics", None).await.text();
    assert!(metrics.contains("atoll_isolate_hosts_retired_total "), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_token_for_it_restarts_hosts_and_without_hosts_there_is_nothing_to_restart() {
    let server = Atoll::start(Options { isolate_hosts: 0, ..Options::default() }).await;
    let answer = server.control("POST", "/v1/hosts/restart", None).await;
    assert_eq!((answer.status, &answer.json()["code"]), (409, &json!("no_isolate_hosts")));
    assert_eq!(server.control("GET", "/v1/hosts", None).await.json()["hosts"], json!([]));
    let body = json!({ "name": "ci", "scopes": ["read", "deploy", "tokens"] });
    let made = server.control("POST", "/v1/tokens", Some(body)).await.json();
    let token = made["token"].as_str().expect("a token");
    for (method, path) in [("POST", "/v1/hosts/restart"), ("GET", "/v1/hosts")] {
        assert_eq!(server.control_as(token, method, path, None).await.status, 403, "{path}");
        assert_eq!(server.control_as("nobody", method, path, None).await.status, 401, "{path}");
    }
    let body = json!({ "name": "more", "scopes": ["hosts"] });
    assert_eq!(server.control_as(token, "POST", "/v1/tokens", Some(body)).await.status, 403);
}

/// Replaces all hosts while clients never stop asking; every request is answered.
async fn under_load(server: &Atoll, replace: impl FnOnce() + Send) {
    server.deploy(&saying("here")).await;
    let (stop, address) = (std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)), server.address());
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let stop = stop.clone();
            tokio::spawn(async move {
                let mut connection =
                    Connection::open(address, &host_name(TENANT, "speaker")).await.expect("a listener");
                let mut served = 0u32;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let answer = connection.send(&Request::new("GET", "/")).await.expect("an answer");
                    assert_eq!((answer.status, answer.text().as_str()), (200, "here"));
                    served += 1;
                }
                served
            })
        })
        .collect();
    // One that takes longer than the whole replacement.
    let slow = "await new Promise((r) => setTimeout(r, 2000)); return 'slow'";
    let long = server.execute(json!({ "code": slow }));
    let roll = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let before = host_pids(server);
        assert!(before.len() >= 2);
        tokio::task::block_in_place(replace);
        for _ in 0..ROUNDS_MAX {
            if host_pids(server).is_disjoint(&before) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("hosts were not replaced: {before:?} {:?}\n{}", host_pids(server), server.log());
    };
    let (long, ()) = tokio::join!(long, roll);
    assert_eq!(long.json()["result"], "slow", "{}", long.text());
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for client in clients {
        assert!(client.await.expect("every request is answered") > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_without_compilers_runs_code_and_refuses_webassembly_in_words() {
    let config = "[host_class.plain]\njitless = true\n".to_owned();
    let tenant = "host_class = \"plain\"".to_owned();
    let server = Atoll::start(Options { config, tenant, ..Options::default() }).await;
    let code = "let x = 0; for (let i = 0; i < 1e5; i++) x += i; return [x, typeof WebAssembly]";
    let answer = server.execute(json!({ "code": code })).await;
    assert_eq!(answer.json()["result"], json!([4_999_950_000_u64, "undefined"]), "{}", answer.text());
    let wasm = "AGFzbQEAAAA="; // an empty module
    let body = json!({
        "mainModule": "m.js",
        "modules": { "m.js": "import w from './w.wasm'; export default () => typeof w", "w.wasm": { "wasm": wasm } },
    });
    let answer = server.execute(body).await;
    assert!(answer.text().contains("jitless"), "{} {}", answer.status, answer.text());
    assert_eq!(server.execute(json!({ "code": "return 1" })).await.json()["result"], 1);
}
