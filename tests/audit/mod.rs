//! The audit log of a real server: who did what is there, whole, after whatever happens to the process; and nothing secret is.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};

use crate::outside::{NameServer, Outside, Web};
use crate::support::atoll::{Atoll, NEIGHBOUR_TOKEN, Options, TENANT, TOKEN, TOKEN_SHA256, binary};
use crate::support::canary::{key_file, secrets_config};
use crate::support::client;
use crate::support::worker::{Request, Worker};

/// A bound on waiting for something that must happen, in rounds of 50 ms.
const ROUNDS_MAX: usize = 400;
/// What must never be in the log.
const CANARY: &str = "canary-7f3a9d";

/// `atoll audit verify --json`: the report, and whether the exit code says that all is well.
pub(crate) fn verify(folder: &Path) -> (Value, bool) {
    let (report, code) = verify_with(folder, &[]);
    (report, code == Some(0))
}

/// The same with further arguments, and with the exit code itself.
fn verify_with(folder: &Path, arguments: &[&str]) -> (Value, Option<i32>) {
    let mut command = Command::new(binary());
    let output = command.args(["audit", "verify", "--json"]).args(arguments).arg(folder).output();
    let output = output.expect("atoll runs");
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (report, output.status.code())
}

/// The files with records, in order.
fn log_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the log is there");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|end| end == "jsonl")).collect();
    files.sort();
    files
}

/// Every record, in order.
pub(crate) fn records(folder: &Path) -> Vec<Value> {
    let mut records = vec![];
    each_record(folder, |record| records.push(record));
    records
}

/// Shows every record in order, and keeps none: an hour's log is larger than memory.
pub(crate) fn each_record(folder: &Path, mut look: impl FnMut(Value)) {
    for file in log_files(folder) {
        let file = BufReader::new(File::open(&file).expect("the log is there"));
        let lines = file.lines().map(|line| line.expect("the log is text"));
        lines.filter_map(|line| serde_json::from_str(&line).ok()).for_each(&mut look);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_execution_has_one_record_that_says_who_what_and_how_much() {
    let config = "[cost]\ncpu_ms = 7\nrequest = 100\n".to_owned();
    let mut atoll = Atoll::start(Options { config, ..Options::default() }).await;
    let source = "export default { async fetch(request, env) { await request.text(); console.log(env.KEY);\
                  return new Response('hello') }, scheduled() {} }";
    let worker = Worker::single("hello", source).with_loader("LOADER");
    let worker = Worker { env: vec![("KEY".into(), json!(CANARY))], ..worker };
    atoll.deploy(&worker).await;
    let request = Request::new("POST", &format!("/path?secret={CANARY}"))
        .header("authorization", &format!("Bearer {CANARY}"))
        .header("cookie", CANARY)
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .body(CANARY.to_owned());
    assert_eq!(atoll.send("hello", &request).await.status, 200);
    let ran = atoll.execute(json!({ "code": "return input", "input": CANARY, "env": { "K": CANARY } })).await;
    let failed = atoll.execute(json!({ "code": format!("throw new Error('{CANARY}')") })).await;
    let refused = atoll.execute(json!({ "code": "this is no code" })).await;
    assert_eq!((ran.status, failed.status, refused.status), (200, 200, 422));
    let fired = atoll.control("POST", "/v1/workers/hello/scheduled", Some(json!({}))).await;
    assert_eq!(fired.json()["ok"], json!(true));

    let page = atoll.control("GET", "/v1/audit?kind=execution", None).await.json();
    let found = page["records"].as_array().expect("records").clone();
    let seen: Vec<(&str, &str)> =
        found.iter().map(|r| (r["event"].as_str().unwrap(), r["outcome"].as_str().unwrap())).collect();
    let expected = [
        ("fetch", "done"),
        ("execute", "done"),
        ("execute", "guest_error"),
        ("execute", "refused"),
        ("scheduled", "done"),
    ];
    assert_eq!(seen, expected);
    let fetch = &found[0];
    assert_eq!((&fetch["tenant"], &fetch["worker"]), (&json!(TENANT), &json!("hello")));
    assert_eq!(fetch["granted"], json!(["LOADER:loader"]));
    assert_eq!(fetch["code"].as_str().unwrap().len(), 64);
    assert_eq!(fetch["trace"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!((&fetch["requestBytes"], &fetch["responseBytes"]), (&json!(CANARY.len()), &json!(5)));
    assert_eq!(fetch["limits"]["subRequests"], 50);
    let execute = &found[1];
    assert_eq!(execute["id"], ran.json()["id"]);
    assert_eq!(execute["token"], TOKEN_SHA256[..16]);
    assert_eq!(execute["route"]["runtime"], "isolate");
    let cpu_us = execute["cpuUs"].as_u64().unwrap();
    assert_eq!(execute["cost"], json!((100_000 + 7 * cpu_us).div_ceil(1_000)), "the documented formula");
    assert_eq!(execute["cost"], ran.json()["usage"]["cost"]);
    let ids: std::collections::BTreeSet<_> = found.iter().map(|r| r["id"].to_string()).collect();
    assert_eq!(ids.len(), found.len());

    let control = atoll.control("GET", "/v1/audit?kind=control&worker=hello", None).await.json();
    assert_eq!(control["records"][0]["action"], "deploy");
    let other = atoll.control_as(NEIGHBOUR_TOKEN, "GET", "/v1/audit", None).await.json();
    assert_eq!(other["records"], json!([]), "nobody reads another tenant's records");
    let nothing = atoll.control("GET", "/v1/audit?tenant=neighbour", None).await;
    assert_eq!(nothing.status, 422);

    let folder = atoll.data().join("audit");
    atoll.stop();
    let text: String = records(&folder).iter().map(ToString::to_string).collect();
    assert!(!text.contains(CANARY), "{text}");
    let (report, well) = verify(&folder);
    assert!(well && report["ok"] == json!(true), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn capabilities_are_told_with_their_execution_their_policy_and_their_denial() {
    let web = Web::tls(&["api.test"], |_, _| Response::new(Full::from("reached"))).await;
    let names = NameServer::new(&[("api.test", &[&["127.0.0.1"]])]).await;
    let outside = Outside::new(&web, &names);
    let origin = format!("https://api.test:{}", web.port);
    let class =
        format!("[egress.far]\nallow = [{{ origin = \"api.test:{}\", methods = [\"GET\"] }}]\n", web.port);
    let config = format!("{}{class}", outside.config);
    let tenant = "egress = [\"far\"]".to_owned();
    let atoll = Atoll::start(Options { config, tenant, ..Options::default() }).await;
    let code = format!(
        "const a = await (await fetch('{origin}/secret?q={CANARY}', {{ headers: {{ x: '{CANARY}' }} }})).text();\n\
         try {{ await fetch('{origin}/', {{ method: 'PUT', body: '{CANARY}' }}) }} catch (e) {{ return [a, String(e)] }}"
    );
    let answer = atoll.execute(json!({ "code": code, "egress": "far" })).await.json();
    assert_eq!(answer["result"][0], "reached", "{answer}");
    let page = atoll.control("GET", "/v1/audit", None).await.json();
    let found = page["records"].as_array().expect("records");
    let crossings: Vec<&Value> = found.iter().filter(|r| r["kind"] == "crossing").collect();
    let outcomes: Vec<&str> = crossings.iter().map(|r| r["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["answered", "egress_method"], "{page}");
    for crossing in &crossings {
        assert_eq!(crossing["execution"], answer["id"]);
        assert_eq!(crossing["policy"], "far");
    }
    assert_eq!(crossings[0]["status"], 200);
    assert_eq!(crossings[0]["origin"], origin);
    assert_eq!(crossings[0]["responseBytes"], 7);
    let execution = found.iter().find(|r| r["kind"] == "execution").expect("a terminal record");
    assert_eq!(execution["used"].as_object().expect("uses").values().next(), Some(&json!(2)), "{execution}");
    assert!(!page.to_string().contains(CANARY), "{page}");
}

/// What is done about rights, and to hosts, is on record with who did it; values are not.
#[tokio::test(flavor = "multi_thread")]
async fn changes_of_rights_and_losses_of_hosts_are_on_record() {
    let key = key_file(7);
    let blame = "[blame]\nquarantine_after = 1\nsuspend_after = 2\nsuspend_s = 1\nforget_s = 3\n";
    let config = format!("{}{blame}", secrets_config(&key));
    let atoll = Atoll::start(Options { config, ..Options::default() }).await;
    let secret = |method, body: &str| {
        let path = "/v1/secrets/github";
        let request = Request::new(method, path).header("content-type", "text/plain");
        request.header("authorization", &format!("Bearer {TOKEN}")).body(body.to_owned())
    };
    for (method, status) in [("PUT", 200), ("PUT", 200), ("DELETE", 204), ("DELETE", 404)] {
        let answer = client::send(atoll.address(), "localhost", &secret(method, CANARY)).await;
        assert_eq!(answer.expect("an answer").status, status);
    }
    let body = json!({ "name": "ci", "scopes": ["read", "audit"] });
    let made = atoll.control("POST", "/v1/tokens", Some(body)).await.json();
    let id = made["id"].as_str().expect("an id");
    let own = made["token"].as_str().expect("a token");
    let body = json!({ "audience": "https://api.example.com" });
    let identity = atoll.control("POST", "/v1/tokens/identity", Some(body.clone())).await.json();
    assert_eq!(atoll.control_as(own, "POST", "/v1/tokens/identity", Some(body)).await.status, 403);
    let refused = json!({ "audience": "https://api.example.com", "expiresInSeconds": 61 });
    assert_eq!(atoll.control("POST", "/v1/tokens/identity", Some(refused)).await.status, 422);
    let jti = identity["id"].as_str().expect("an id");
    let revoked = atoll.control("POST", "/v1/tokens/revoke", Some(json!({ "id": jti }))).await;
    assert_eq!(revoked.status, 204);
    assert_eq!(atoll.control("DELETE", &format!("/v1/tokens/{id}"), None).await.status, 204);
    assert_eq!(atoll.control("PUT", "/v1/secrets/NoName%2f", None).await.status, 422);

    let page = atoll.control("GET", "/v1/audit?kind=control", None).await.json();
    let told: Vec<[&str; 4]> = page["records"]
        .as_array()
        .expect("records")
        .iter()
        .map(|r| ["action", "name", "detail", "outcome"].map(|key| r[key].as_str().unwrap_or("")))
        .collect();
    let expected = [
        ["put_secret", "github", "1", "done"],
        ["put_secret", "github", "2", "done"],
        ["delete_secret", "github", "", "done"],
        ["delete_secret", "github", "", "not_found"],
        ["create_token", id, "read audit", "done"],
        ["mint_identity", jti, "https://api.example.com", "done"],
        ["mint_identity", "", "", "invalid_token_request"],
        ["revoke", jti, "", "done"],
        ["revoke_token", id, "", "done"],
        ["put_secret", "", "", "secret_name"],
    ];
    assert_eq!(told, expected, "{page}");
    let first = &page["records"][0];
    assert_eq!((&first["actor"], &first["token"]), (&json!("configured"), &json!(TOKEN_SHA256[..16])));
    let minted = page["records"][5]["actor"].as_str().expect("an actor");
    assert_eq!(minted, format!("{TENANT}/token:configured"));

    // A client that goes away in the middle: whether anything was done or not, it is told that it was tried.
    let mut half = std::net::TcpStream::connect(atoll.address()).expect("a listener");
    let head = format!(
        "PUT /v1/secrets/half HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\
         content-type: text/plain\r\ncontent-length: 100\r\n\r\n{CANARY}"
    );
    std::io::Write::write_all(&mut half, head.as_bytes()).expect("it reads");
    drop(half);
    let mut tried = json!(null);
    for _ in 0..ROUNDS_MAX {
        let page = atoll.control("GET", "/v1/audit?kind=control", None).await.json();
        tried = page["records"][expected.len()].clone();
        if !tried.is_null() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!((&tried["action"], &tried["name"]), (&json!("put_secret"), &json!("half")), "{tried}");
    assert_ne!(tried["outcome"], "done", "{tried}");

    // A host of which one tenant's code makes an end: who was inside, and what it leads to, and what time undoes.
    let host = atoll.control("GET", "/v1/hosts", None).await.json();
    let pid = host["hosts"].as_array().expect("hosts").iter().find(|host| host["place"] == "active");
    let pid = pid.expect("an active host")["pid"].clone();
    let inside = atoll.execute(json!({ "code": "await new Promise((r) => setTimeout(r, 20000))" }));
    let kill = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let killed = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
        assert!(killed.expect("kill runs").success());
    };
    let (answer, ()) = tokio::join!(inside, kill);
    assert_eq!(answer.status, 503, "{}", answer.text());
    let mut penalties = Vec::new();
    for _ in 0..ROUNDS_MAX {
        let page = atoll.control("GET", "/v1/audit?kind=penalty", None).await.json();
        let of = |r: &Value| r["penalty"].as_str().expect("a penalty").to_owned();
        penalties = page["records"].as_array().expect("records").iter().map(of).collect();
        if penalties.iter().any(|penalty| penalty == "released") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(penalties, ["quarantined", "released"]);
    let seen = atoll.control("GET", "/v1/audit?kind=host", None).await.json();
    assert_eq!(seen["records"], json!([]), "it is about others, too");
    let records = records(&atoll.data().join("audit"));
    let lost: Vec<&Value> = records.iter().filter(|record| record["event"] == "lost").collect();
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert_eq!((&lost[0]["event"], &lost[0]["tenants"]), (&json!("lost"), &json!([TENANT])), "{lost:?}");
    assert_eq!((&lost[0]["pid"], &lost[0]["inside"]), (&pid, &json!(1)), "{lost:?}");
    let text: String = records.iter().map(ToString::to_string).collect();
    assert!(!text.contains(CANARY) && !text.contains(own), "{text}");
}

/// Row 116: SIGKILL in mid-write, many times, under load.
#[tokio::test(flavor = "multi_thread")]
async fn row_116_the_chain_verifies_after_kills_in_mid_write() {
    let config = "[audit]\nfile_bytes_max = 16384\nfsync = \"always\"\n".to_owned();
    let mut atoll = Atoll::start(Options { config, ..Options::default() }).await;
    let hello = Worker::single("hello", "export default { fetch: () => new Response('x') }");
    atoll.deploy(&hello).await;
    let folder = atoll.data().join("audit");
    let mut torn = 0;
    for round in 0..4 {
        let address = atoll.address();
        let served = Arc::new(AtomicU64::new(0));
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let served = served.clone();
                tokio::spawn(async move {
                    let host = crate::support::atoll::host_name(TENANT, "hello");
                    let Ok(mut connection) = client::Connection::open(address, &host).await else { return };
                    while let Ok(answer) = connection.send(&Request::new("GET", "/")).await {
                        served.fetch_add(u64::from(answer.status == 200), Relaxed);
                    }
                })
            })
            .collect();
        for _ in 0..ROUNDS_MAX {
            if served.load(Relaxed) >= 100 + 10 * round {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(served.load(Relaxed) >= 100, "there was load");
        atoll.kill();
        for client in clients {
            client.await.expect("no panic");
        }
        // Whatever was being written: the chain and every checkpoint are good.
        let (report, well) = verify(&folder);
        assert!(well, "{report}");
        assert!(report["checkpoints"]["matched"].as_u64() > Some(0), "{report}");
        assert_eq!(report["checkpoints"]["signed"], report["checkpoints"]["read"], "{report}");
        // A kill between two writes leaves no torn line; one is made here, where the kernel would leave it. It would not do so
        // under a checkpoint, which comes after what it covers is on disk.
        let whole = report["lastSeq"].as_u64().expect("lines") + 1;
        if report["torn"].is_null() && report["checkpoints"]["covered"].as_u64() < Some(whole) {
            // A kill between the making of a file and its first line leaves it empty.
            let length_of = |path: &PathBuf| std::fs::metadata(path).expect("a length").len();
            let files = log_files(&folder);
            let last = files.iter().rfind(|path| length_of(path) > 0).expect("a file");
            let length = length_of(last);
            let file = std::fs::OpenOptions::new().write(true).open(last).expect("a file");
            file.set_len(length - 1 - round * 13).expect("it can be cut");
        }
        let (report, well) = verify(&folder);
        assert!(well, "{report}");
        torn += u64::from(report["torn"].is_object());
        atoll.kill_and_restart().await;
        assert_eq!(atoll.send("hello", &Request::new("GET", "/")).await.status, 200);
    }
    atoll.stop();
    let (report, well) = verify(&folder);
    assert!(well && torn > 0, "{report}");
    assert_eq!(report["sealed"], json!(torn), "{report}");
    assert_eq!(report["checkpoints"]["covered"], report["lines"], "the end is covered: {report}");
    // And it is a chain: a changed record is found.
    let path = &log_files(&folder)[0];
    let text = std::fs::read_to_string(path).expect("text");
    std::fs::write(path, text.replacen("\"outcome\":\"done\"", "\"outcome\":\"gone\"", 1)).expect("written");
    let (report, well) = verify(&folder);
    assert!(!well && report["bad"]["file"] == "audit-00000001.jsonl", "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_was_kept_elsewhere_shows_what_the_chain_does_not() {
    let mut atoll = Atoll::start(Options::default()).await;
    assert_eq!(atoll.execute(json!({ "code": "return 1" })).await.status, 200);
    // The newest one covers what ran once a file is full, enough was written, or time passed: here, after a restart.
    atoll.kill_and_restart().await;
    let mut kept = String::new();
    for _ in 0..ROUNDS_MAX {
        let answer = atoll.control("GET", "/v1/audit/checkpoint", None).await;
        if answer.status == 200 {
            assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
            kept = answer.text();
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(kept.starts_with("atoll/audit/") && kept.contains("\n\n\u{2014} atoll/audit/"), "{kept}");
    let by_command = atoll.command(&["audit", "checkpoint"]);
    assert_eq!(String::from_utf8_lossy(&by_command.stdout), format!("{kept}\n"), "{by_command:?}");
    let none = atoll.control_as("no-token", "GET", "/v1/audit/checkpoint", None).await;
    assert_eq!(none.status, 401);
    let metrics = atoll.control("GET", "/metrics", None).await.text();
    assert!(metrics.contains("atoll_audit_records_covered "), "{metrics}");
    let jwks = atoll.control("GET", "/.well-known/jwks.json", None).await.text();
    let elsewhere = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = elsewhere.path().join(name);
        std::fs::write(&path, text).expect("it is written");
        path.to_str().expect("text").to_owned()
    };
    let (given, keys) = (file("kept.txt", &kept), file("jwks.json", &jwks));
    let url = format!("http://{}/.well-known/jwks.json", atoll.address());
    let folder = atoll.data().join("audit");
    let (report, code) = verify_with(&folder, &["--checkpoint", &given, "--jwks", &url]);
    assert_eq!(code, Some(0), "{report}");
    atoll.stop();
    let log = atoll.log();
    assert!(log.contains("audit checkpoint") && log.contains("atoll/audit/"), "it is an event: {log}");

    let with = |given: &str| verify_with(&folder, &["--checkpoint", given, "--jwks", &keys]);
    let (report, code) = with(&given);
    assert_eq!(code, Some(0), "{report}");
    let forged = file("forged.txt", &kept.replacen("\ntime 1", "\ntime 2", 1));
    let (report, code) = with(&forged);
    assert_eq!((code, &report["checkpoints"]["bad"]["code"]), (Some(4), &json!("forged")), "{report}");
    // The files go back to what they were before the last start, and nothing in them says so.
    let size: u64 = kept.lines().nth(1).expect("a size").parse().expect("a number");
    let newest = log_files(&folder).pop().expect("a file");
    std::fs::remove_file(newest).expect("removed");
    std::fs::remove_file(folder.join("checkpoints.txt")).expect("removed");
    let (report, code) = verify_with(&folder, &["--jwks", &keys]);
    assert_eq!(code, Some(0), "{report}");
    let (report, code) = with(&given);
    let bad = &report["checkpoints"]["bad"];
    assert_eq!((code, bad), (Some(1), &json!({ "code": "truncated", "size": size })), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_for_records_nothing_runs_and_nothing_is_lost() {
    let config = "[audit]\nfile_bytes_max = 4096\n".to_owned();
    let mut atoll = Atoll::start(Options { config, ..Options::default() }).await;
    let folder = atoll.data().join("audit");
    // The next file cannot be made: as good as a full disk, and needs no disk.
    let blocked = folder.join("audit-00000002.jsonl");
    std::fs::write(&blocked, "").expect("the folder is writable");
    let mut ran = 0;
    let mut refused = None;
    for _ in 0..ROUNDS_MAX {
        let answer = atoll.execute(json!({ "code": "return 1" })).await;
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
        ran += 1;
    }
    let refused = refused.expect("a full log stops everything");
    assert_eq!((refused.status, &refused.json()["code"]), (503, &json!("audit_unavailable")));
    assert!(refused.header("retry-after").is_some());
    // Nor is anything changed that could not be told.
    let body = json!({ "name": "ci", "scopes": ["read"] });
    let change = atoll.control("POST", "/v1/tokens", Some(body)).await;
    assert_eq!((change.status, &change.json()["code"]), (503, &json!("audit_unavailable")));
    assert_eq!(atoll.control("GET", "/v1/tokens", None).await.json()["tokens"], json!([]));
    let mut told = false;
    for _ in 0..ROUNDS_MAX {
        told = atoll.control("GET", "/metrics", None).await.text().contains("atoll_audit_failing 1\n");
        if told {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(told, "the operator sees it");
    std::fs::remove_file(&blocked).expect("removed");
    let mut again = false;
    for _ in 0..ROUNDS_MAX {
        again = atoll.execute(json!({ "code": "return 1" })).await.status == 200;
        if again {
            ran += 1;
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(again, "it goes on when there is room again");
    atoll.stop();
    let (report, well) = verify(&folder);
    assert!(well, "{report}");
    let told = records(&folder);
    assert_eq!(told.iter().filter(|r| r["kind"] == "execution").count(), ran);
    let counted = told.iter().filter(|r| r["kind"] == "counted" && r["outcome"] == "audit_unavailable");
    assert!(counted.filter_map(|r| r["count"].as_u64()).sum::<u64>() >= 1, "{told:?}");
}
