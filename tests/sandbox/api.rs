//! `/v1/sandboxes`: what it promises to clients.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::Server;
use super::backends::{Place, on_each_backend};
use crate::support::atoll::{NEIGHBOUR_TOKEN, TOKEN};
use crate::support::worker::Request;

/// Longer than anything takes; only a hang is longer.
const HANG: Duration = Duration::from_secs(30);

async fn a_sandbox_is_made_looked_at_and_ended(place: Place) {
    let workspace_bytes = place.workspace_bytes();
    let Some(server) = place.plain().await else { return };
    let made = server.control("PUT", "/v1/sandboxes/ann", Some(json!({ "env": { "GREETING": "hi" } }))).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let made = made.json();
    assert_eq!((&made["user"], &made["state"]), (&json!("ann"), &json!("running")), "{made}");
    assert!(made["expiresInMs"].as_u64() > Some(500_000) && made["idleMs"] == 120_000, "{made}");
    assert_eq!(server.out("ann", "echo $GREETING").await, "hi\n");
    let again = server.control("PUT", "/v1/sandboxes/ann", None).await;
    assert_eq!((again.status, &again.json()["id"]), (200, &made["id"]));
    let list = server.control("GET", "/v1/sandboxes", None).await.json();
    assert_eq!(
        (list["sandboxes"].as_array().map(Vec::len), &list["sandboxes"][0]["id"]),
        (Some(1), &made["id"])
    );
    // The same user of another tenant is somebody else.
    let theirs = server.control_as(NEIGHBOUR_TOKEN, "GET", "/v1/sandboxes/ann", None).await;
    assert_eq!((theirs.status, &theirs.json()["code"]), (404, &json!("SANDBOX_NOT_FOUND")));
    assert_eq!(
        server.control_as(NEIGHBOUR_TOKEN, "GET", "/v1/sandboxes", None).await.json(),
        json!({ "sandboxes": [] })
    );
    assert_eq!(server.control_as(NEIGHBOUR_TOKEN, "DELETE", "/v1/sandboxes/ann", None).await.status, 404);
    // A user's id may hold what a path cannot.
    server.out("a%2Fb%3Fc%25", "echo odd > f").await;
    let users: Vec<Value> = server.control("GET", "/v1/sandboxes", None).await.json()["sandboxes"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| one["user"].clone())
        .collect();
    assert_eq!(users, ["a/b?c%", "ann"]);
    // An end is an end: the next use gets an empty one, and the bill goes on.
    server.out("ann", "echo mine > f; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done").await;
    let bill = server.control("GET", "/v1/sandboxes/ann/usage", None).await.json();
    assert!(
        bill["sandbox"]["processes"].as_u64() > Some(0) && bill["sandbox"]["diskBytes"] == workspace_bytes,
        "{bill}"
    );
    assert_eq!(server.control("DELETE", "/v1/sandboxes/ann", None).await.status, 204);
    assert_eq!(server.control("DELETE", "/v1/sandboxes/ann", None).await.status, 404);
    let after = server.control("GET", "/v1/sandboxes/ann/usage", None).await.json();
    assert!(after["sandbox"].is_null(), "{after}");
    for what in ["cpuUs", "wallUs", "uses", "bytesOut"] {
        assert!(after["total"][what].as_u64() >= bill["total"][what].as_u64(), "{what}: {bill} {after}");
        assert!(after["total"][what].as_u64() > Some(0), "{what}: {after}");
    }
    assert_eq!(server.out("ann", "ls").await, "");
    let metrics = server.control("GET", "/metrics", None).await.text();
    for line in ["atoll_sandboxes_total{event=\"started\"} 4", "atoll_sandboxes_total{event=\"destroyed\"} 2"]
    {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    server.finish();
}

async fn commands_have_streams_a_status_and_a_bill(place: Place) {
    let counts = place.counts_oom_kills();
    let Some(server) = place.plain().await else { return };
    let done = server
        .exec("ann", json!({ "command": "cat; echo err >&2; pwd; echo $A; exit 3", "stdin": "in\n", "cwd": "/tmp", "env": { "A": "b c" } }))
        .await;
    assert_eq!(
        (&done["success"], &done["exitCode"], &done["stdout"], &done["stderr"]),
        (&json!(false), &json!(3), &json!("in\n/tmp\nb c\n"), &json!("err\n")),
        "{done}"
    );
    assert_eq!(
        (&done["timedOut"], &done["outOfMemory"], &done["droppedBytes"]),
        (&json!(false), &json!(false), &json!(0))
    );
    let argv = server.exec("ann", json!({ "command": ["printf", "%s", "$HOME;"] })).await;
    assert_eq!(argv["stdout"], "$HOME;");
    // Bytes that are no text pass as base64, in both directions.
    let spec = r#"{"command":"cat","encoding":"base64"}"#.replace('"', "%22");
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let echoed =
        server.bytes("POST", &format!("/v1/sandboxes/ann/exec?spec={spec}"), bytes.clone()).await.json();
    use base64::Engine as _;
    let back = base64::engine::general_purpose::STANDARD
        .decode(echoed["stdout"].as_str().expect("text"))
        .expect("base64");
    assert!(back == bytes, "{} bytes came back", back.len());
    // Each of several short commands has a bill of its own.
    for _ in 0..3 {
        let spun = server
            .exec("ann", json!({ "command": "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done" }))
            .await;
        assert!(spun["usage"]["cpuUs"].as_u64() > Some(1_000), "{spun}");
    }
    let hungry =
        json!({ "command": ["sh", "-c", "x=$(head -c 300000000 /dev/zero | tr '\\0' x); echo ${#x}"] });
    let hungry = server.exec("ann", hungry).await;
    assert_eq!((&hungry["success"], &hungry["outOfMemory"]), (&json!(false), &json!(counts)), "{hungry}");
    server.finish();
}

async fn output_comes_as_events_while_the_command_runs(place: Place) {
    let Some(server) = place.plain().await else { return };
    let line = "printf 'a\\303'; sleep 0.3; printf '\\251b'; echo no >&2; exit 2";
    let events = server.events("POST", "/v1/sandboxes/ann/exec", Some(json!({ "command": line }))).await;
    let names: Vec<&str> = events.iter().map(|(name, _)| &**name).collect();
    assert_eq!((names[0], *names.last().expect("an event")), ("start", "complete"), "{events:?}");
    assert!(
        events.iter().all(|(name, data)| data["type"] == **name && data["timestampMs"].is_u64()),
        "{events:?}"
    );
    let text = |wanted: &str| {
        events
            .iter()
            .filter(|(name, _)| name == wanted)
            .map(|(_, data)| data["data"].as_str().expect("text"))
            .collect::<String>()
    };
    assert_eq!(
        (text("stdout"), text("stderr")),
        ("aéb".to_owned(), "no\n".to_owned()),
        "a letter cut in two is one letter"
    );
    let complete = &events.last().expect("an event").1;
    assert_eq!((&complete["exitCode"], &complete["success"]), (&json!(2), &json!(false)));
    let events = server
        .events("POST", "/v1/sandboxes/ann/exec", Some(json!({ "command": ["no-such-program"] })))
        .await;
    let error = events.last().expect("an event");
    assert_eq!(
        (&*error.0, &error.1["code"], &error.1["status"]),
        ("error", &json!("COMMAND_NOT_FOUND"), &json!(404))
    );
    server.finish();
}

async fn a_timeout_and_a_client_that_goes_away_end_the_whole_tree(place: Place) {
    let Some(server) = place.plain().await else { return };
    let tree = "trap '' TERM; (setsid sleep 4242 &) ; sleep 4242 & sleep 4242; true";
    let began = Instant::now();
    let late = server.exec("ann", json!({ "command": tree, "timeoutMs": 300, "graceMs": 100 })).await;
    assert_eq!((&late["timedOut"], &late["success"]), (&json!(true), &json!(false)), "{late}");
    assert!(began.elapsed() < HANG);
    gone(&server, "4242").await;
    for accept in ["application/json", "text/event-stream"] {
        let body = json!({ "command": tree }).to_string();
        let mut socket = tokio::net::TcpStream::connect(server.address()).await.expect("the server listens");
        let head = format!(
            "POST /v1/sandboxes/ann/exec HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\naccept: {accept}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        socket.write_all(head.as_bytes()).await.expect("the server reads");
        while server.out("ann", "ps -A -o args= | grep -c '[s]leep 4242' || true").await == "0\n" {}
        drop(socket);
        gone(&server, "4242").await;
    }
    server.finish();
}

/// Waits until no such sleep is there.
async fn gone(server: &Server, seconds: &str) {
    let began = Instant::now();
    let look = format!("ps -A -o args= | grep -c '[s]leep {seconds}' || true");
    while server.out("ann", &look).await != "0\n" {
        assert!(began.elapsed() < HANG, "it still runs");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn background_processes_are_named_waited_for_and_killed(place: Place) {
    let Some(server) = place.plain().await else { return };
    let base = "/v1/sandboxes/ann/processes";
    let line = "echo ready; echo oops >&2; exec python3 -m http.server 8000 --bind 127.0.0.1";
    let started = server.control("POST", base, Some(json!({ "command": line, "id": "web" }))).await;
    assert_eq!(started.status, 201, "{}", started.text());
    let started = started.json();
    assert_eq!(
        (&started["id"], &started["status"], &started["command"]),
        (&json!("web"), &json!("running"), &json!(line))
    );
    let again = server.control("POST", base, Some(json!({ "command": "true", "id": "web" }))).await;
    assert_eq!((again.status, &again.json()["code"]), (409, &json!("PROCESS_EXISTS")));
    let wait = |what: Value| server.control("POST", "/v1/sandboxes/ann/processes/web/wait", Some(what));
    assert_eq!(wait(json!({ "log": "ready" })).await.status, 200);
    let ready = wait(json!({ "port": 8000, "path": "/", "timeoutMs": 30_000 })).await;
    assert_eq!(ready.status, 200, "{}", ready.text());
    assert_eq!(server.control("POST", "/v1/sandboxes/ann/ports/8000/wait", None).await.status, 204);
    for late in [
        json!({ "exit": true, "timeoutMs": 50 }),
        json!({ "log": "never", "timeoutMs": 50 }),
        json!({ "port": 9, "timeoutMs": 50 }),
    ] {
        let late = wait(late).await;
        assert_eq!((late.status, &late.json()["code"]), (408, &json!("PROCESS_READY_TIMEOUT")));
    }
    let logs = server.control("GET", &format!("{base}/web/logs"), None).await.json();
    assert_eq!(
        (&logs["stdout"], logs["stderr"].as_str().expect("text").starts_with("oops\n")),
        (&json!("ready\n"), true),
        "{logs}"
    );
    let killed = server.control("DELETE", &format!("{base}/web"), None).await.json();
    assert_eq!(killed["status"], "killed", "{killed}");
    assert!(killed["endedMs"].as_i64() >= killed["startedMs"].as_i64(), "{killed}");
    // A log is followed to the end of its process.
    server
        .control(
            "POST",
            base,
            Some(json!({ "command": "for i in 1 2 3; do echo $i; sleep 0.1; done; exit 4", "id": "count" })),
        )
        .await;
    let events = server.events("GET", &format!("{base}/count/logs"), None).await;
    let text: String = events
        .iter()
        .filter(|(name, _)| name == "stdout")
        .map(|(_, data)| data["data"].as_str().expect("text"))
        .collect();
    let exit = events.last().expect("an event");
    assert_eq!(
        (&*text, &*exit.0, &exit.1["exitCode"], &exit.1["status"]),
        ("1\n2\n3\n", "exit", &json!(4), &json!("failed"))
    );
    // One signal, without waiting; a name that is made up; a timeout.
    let named = server.control("POST", base, Some(json!({ "command": ["sleep", "1000"] }))).await.json();
    let id = named["id"].as_str().expect("text");
    server.control("DELETE", &format!("{base}/{id}?signal=15"), None).await;
    let ended =
        server.control("POST", &format!("{base}/{id}/wait"), Some(json!({ "exit": true }))).await.json();
    assert_eq!((&ended["status"], &ended["signal"]), (&json!("killed"), &json!(15)), "{ended}");
    let short = json!({ "command": "sleep 1000", "id": "short", "timeoutMs": 100 });
    server.control("POST", base, Some(short)).await;
    let ended =
        server.control("POST", &format!("{base}/short/wait"), Some(json!({ "exit": true }))).await.json();
    assert_eq!((&ended["timedOut"], &ended["status"]), (&json!(true), &json!("killed")), "{ended}");
    let list = server.control("GET", base, None).await.json();
    assert_eq!(list["processes"].as_array().map(Vec::len), Some(4), "{list}");
    server.finish();
}

async fn files_are_written_read_listed_moved_and_watched(place: Place) {
    let Some(server) = place.plain().await else { return };
    let base = "/v1/sandboxes/ann/files";
    let big: Vec<u8> = (0..3_000_000u32).map(|at| (at % 251) as u8).collect();
    let wrote = server.bytes("PUT", &format!("{base}?path=big&mode=416"), big.clone()).await;
    assert_eq!((wrote.status, &wrote.json()["bytes"]), (200, &json!(3_000_000)), "{}", wrote.text());
    let read = server.control("GET", &format!("{base}?path=/workspace/big"), None).await;
    assert!(read.body == big && read.header("content-type") == Some("application/octet-stream"));
    let part = server.control("GET", &format!("{base}?path=big&offset=251&length=3"), None).await;
    assert_eq!(&part.body[..], [0, 1, 2]);
    let odd = server.bytes("PUT", &format!("{base}?path=a%20b%2525%2Bc"), "odd").await;
    assert_eq!(odd.status, 200, "{}", odd.text());
    assert_eq!(server.out("ann", "cat 'a b%25+c'; stat -c %a big").await, "odd640\n", "decoded once");
    assert_eq!(server.bytes("PUT", &format!("{base}?path=empty"), "").await.status, 200);
    // What is made of directories.
    let post = |what: &str, body: Value| {
        let path = format!("{base}/{what}");
        let server = &server;
        async move { server.control("POST", &path, Some(body)).await }
    };
    assert_eq!(post("mkdir", json!({ "path": "d/e" })).await.status, 404);
    assert_eq!(post("mkdir", json!({ "path": "d/e", "recursive": true })).await.status, 204);
    assert_eq!(post("mkdir", json!({ "path": "d" })).await.json()["code"], "FILE_EXISTS");
    assert_eq!(post("rename", json!({ "from": "big", "to": "d/big" })).await.status, 204);
    let list = server.control("GET", &format!("{base}/list?path=d"), None).await.json();
    let names: Vec<(&Value, &Value)> =
        list["files"].as_array().expect("a list").iter().map(|file| (&file["name"], &file["type"])).collect();
    assert_eq!(names, [(&json!("big"), &json!("file")), (&json!("e"), &json!("directory"))]);
    assert_eq!(list["files"][0]["size"], 3_000_000);
    let stat = |path: &str| {
        let path = format!("{base}/stat?path={path}");
        let server = &server;
        async move { server.control("GET", &path, None).await.json() }
    };
    assert_eq!(stat("d/big").await["file"]["mode"], 0o640);
    assert_eq!(
        (stat("d/none").await, stat("d/big/x").await),
        (json!({ "exists": false }), json!({ "exists": false }))
    );
    let full = server.control("DELETE", &format!("{base}?path=d"), None).await;
    assert_eq!((full.status, &full.json()["code"]), (409, &json!("NOT_EMPTY")));
    assert_eq!(server.control("DELETE", &format!("{base}?path=d&recursive"), None).await.status, 204);
    watched(&server).await;
    server.finish();
}

/// Changes are told while they happen.
async fn watched(server: &Server) {
    let mut socket = tokio::net::TcpStream::connect(server.address()).await.expect("a socket");
    let head = format!(
        "GET /v1/sandboxes/ann/files/watch?path=.&recursive=true HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.expect("a socket");
    let (mut seen, mut buffer, mut made) = (String::new(), vec![0; 4096], false);
    while !(seen.contains("event: create") && seen.contains("event: delete")) {
        let read = tokio::time::timeout(HANG, socket.read(&mut buffer))
            .await
            .expect("events come")
            .expect("a socket");
        assert!(read > 0, "{seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
        if seen.contains("event: watching") && !made {
            made = true;
            server.out("ann", "echo 1 > seen; rm seen").await;
        }
    }
    assert!(seen.contains(r#""path":"#) && seen.contains("seen"), "{seen}");
}

async fn sessions_variables_git_and_archives(place: Place) {
    let Some(server) = place.plain().await else { return };
    let base = "/v1/sandboxes/ann";
    let made = server
        .control(
            "POST",
            &format!("{base}/sessions"),
            Some(json!({ "id": "s", "cwd": "/tmp", "env": { "X": "1" } })),
        )
        .await;
    assert_eq!((made.status, made.json()), (201, json!({ "id": "s" })));
    let run = async |line: &str| {
        server.control("POST", &format!("{base}/sessions/s/exec"), Some(json!({ "command": line }))).await
    };
    assert_eq!(run("pwd; echo $X; cd /usr; f() { echo f$1; }").await.json()["stdout"], "/tmp\n1\n");
    assert_eq!(run("pwd; f 2").await.json()["stdout"], "/usr\nf2\n");
    let dup = server.control("POST", &format!("{base}/sessions"), Some(json!({ "id": "s" }))).await;
    assert_eq!((dup.status, &dup.json()["code"]), (409, &json!("SESSION_ALREADY_EXISTS")));
    assert_eq!(
        server.control("GET", &format!("{base}/sessions"), None).await.json(),
        json!({ "sessions": [{ "id": "s" }] })
    );
    // What runs in a session ends with it.
    let (cut, ended) = tokio::join!(run("sleep 1000"), async {
        while server.out("ann", "ps -A -o args= | grep -c '[s]leep 1000' || true").await == "0\n" {}
        server.control("DELETE", &format!("{base}/sessions/s"), None).await.status
    });
    assert_eq!((cut.status, &cut.json()["code"], ended), (410, &json!("SESSION_DESTROYED"), 204));
    assert_eq!(run("true").await.json()["code"], "SESSION_NOT_FOUND");

    let env = async |vars: Value| {
        server.control("PUT", &format!("{base}/env"), Some(json!({ "vars": vars }))).await
    };
    assert_eq!(env(json!({ "K": "v", "L": "w" })).await.status, 204);
    assert_eq!(env(json!({ "L": null })).await.status, 204);
    assert_eq!(server.out("ann", "echo [$K][$L]").await, "[v][]\n");

    let repository = "git init -q -b trunk src && cd src && git config user.email a@b && git config user.name a \
                      && echo one > f && git add f && git commit -qm one && echo two > f && git commit -qam two";
    server.out("ann", repository).await;
    let git = async |body: Value| server.control("POST", &format!("{base}/git/checkout"), Some(body)).await;
    let done =
        git(json!({ "url": "file:///workspace/src", "targetDir": "copy", "depth": 1, "branch": "trunk" }))
            .await;
    assert_eq!((done.status, &done.json()["targetDir"]), (200, &json!("copy")), "{}", done.text());
    assert_eq!(server.out("ann", "cat copy/f; git -C copy log --oneline | wc -l").await, "two\n1\n");
    let named = git(json!({ "url": "/workspace/src" })).await;
    assert_eq!(
        (named.status, &named.json()["code"]),
        (422, &json!("GIT_CHECKOUT_FAILED")),
        "there is such a directory"
    );
    assert!(named.json()["exitCode"].as_i64() > Some(0));
    assert_eq!(git(json!({ "url": "--upload-pack=x" })).await.json()["code"], "INVALID_ARGUMENT");

    let tar = server.control("GET", &format!("{base}/snapshot"), None).await;
    assert_eq!((tar.status, tar.header("content-type")), (200, Some("application/x-tar")));
    let restored = server.bytes("POST", "/v1/sandboxes/bob/restore", tar.body.to_vec()).await;
    assert_eq!(restored.status, 204, "{}", restored.text());
    assert_eq!(server.out("bob", "cat copy/f; git -C src log --oneline | wc -l").await, "two\n2\n");
    assert_eq!(server.out("ann", "echo goes on").await, "goes on\n");
    server.finish();
}

async fn at_shutdown_tails_end_and_nothing_is_left(place: Place) {
    let Some(server) = place.plain().await else { return };
    server
        .control("POST", "/v1/sandboxes/ann/processes", Some(json!({ "command": "sleep 1000", "id": "p" })))
        .await;
    let tail = |path: &str| {
        let request = Request::new("GET", path)
            .header("accept", "text/event-stream")
            .header("authorization", &format!("Bearer {TOKEN}"));
        let address = server.address();
        tokio::spawn(async move { crate::support::client::send(address, "localhost", &request).await })
    };
    let tails = [tail("/v1/sandboxes/ann/processes/p/logs"), tail("/v1/sandboxes/ann/files/watch?path=.")];
    while server.control("GET", "/v1/sandboxes/ann", None).await.json()["usage"]["uses"].as_u64() < Some(3) {}
    let finishing = tokio::task::spawn_blocking(move || server.finish());
    for tail in tails {
        assert_eq!(tail.await.expect("no panic").expect("an answer").status, 200);
    }
    finishing.await.expect("no panic");
}

on_each_backend!(
    a_sandbox_is_made_looked_at_and_ended,
    commands_have_streams_a_status_and_a_bill,
    output_comes_as_events_while_the_command_runs,
    a_timeout_and_a_client_that_goes_away_end_the_whole_tree,
    background_processes_are_named_waited_for_and_killed,
    files_are_written_read_listed_moved_and_watched,
    sessions_variables_git_and_archives,
    at_shutdown_tails_end_and_nothing_is_left,
);
