//! `atoll sandbox`: the command against a real server.

use std::process::Output;

use serde_json::Value;

use super::Server;
use super::backends::{Place, on_each_backend};

fn run(server: &Server, args: &[&str], stdin: &[u8]) -> Output {
    server.command_with(&[&["sandbox"], args].concat(), stdin)
}

/// Standard output of a command that must succeed.
fn ok(server: &Server, args: &[&str], stdin: &[u8]) -> String {
    let output = run(server, args, stdin);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Exit code and standard error of one that must fail.
fn fails(server: &Server, args: &[&str]) -> (Option<i32>, String) {
    let output = run(server, args, b"");
    assert!(!output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

async fn the_command_does_what_the_api_does(place: Place) {
    let Some(server) = place.plain().await else { return };
    tokio::task::spawn_blocking(move || {
        commands(&server);
        files(&server);
        background(&server);
        assert!(ok(&server, &["list"], b"").contains("ann "));
        let usage: Value = serde_json::from_str(&ok(&server, &["usage", "ann"], b"")).expect("JSON");
        assert!(usage["total"]["uses"].as_u64() > Some(5), "{usage}");
        ok(&server, &["delete", "ann"], b"");
        let (code, error) = fails(&server, &["delete", "ann"]);
        assert!(code == Some(4) && error.contains("SANDBOX_NOT_FOUND"), "{code:?} {error}");
        server.finish();
    })
    .await
    .expect("no panic");
}

fn commands(server: &Server) {
    assert!(ok(server, &["create", "ann", "--env", "A=b"], b"").starts_with("ann "));
    ok(server, &["create", "ann", "--audience", "https://api.example"], b"");
    let token =
        ["exec", "ann", "--", "sh", "-c", "curl -sS \"$ATOLL_IDENTITY_URL?audience=https://api.example\""];
    assert!(ok(server, &token, b"").contains("\"token\":\"ey"));
    let output = run(server, &["exec", "ann", "--", "echo $A; echo err >&2; exit 7"], b"");
    assert_eq!(
        (output.status.code(), &*output.stdout, &*output.stderr),
        (Some(7), &b"b\n"[..], &b"err\n"[..])
    );
    let bytes: Vec<u8> = (0..=255).cycle().take(200_000).collect();
    let output = run(server, &["exec", "ann", "-i", "--", "cat"], &bytes);
    assert!(output.status.success() && output.stdout == bytes, "bytes pass as they are");
    assert_eq!(
        ok(
            server,
            &["exec", "ann", "--cwd", "/tmp", "--env", "X=1 2", "--", "sh", "-c", "pwd; echo \"$X\""],
            b""
        ),
        "/tmp\n1 2\n"
    );
    let json: Value =
        serde_json::from_str(&ok(server, &["exec", "ann", "--json", "--", "true"], b"")).expect("JSON");
    assert_eq!(json["exitCode"], 0);
    let (code, error) = fails(server, &["exec", "ann", "--timeout-ms", "100", "--", "sleep", "1000"]);
    assert!(code == Some(3) && error.contains("time was over"), "{code:?} {error}");
    let (code, error) = fails(server, &["exec", "ann", "--", "no-such-program"]);
    assert!(code == Some(4) && error.contains("COMMAND_NOT_FOUND"), "{code:?} {error}");
    ok(server, &["exec", "ann", "--session", "s", "--", "cd /usr && X=5"], b"");
    assert_eq!(ok(server, &["exec", "ann", "--session", "s", "--", "pwd; echo $X"], b""), "/usr\n5\n");
}

fn files(server: &Server) {
    ok(server, &["write", "ann", "d.txt"], b"written\n");
    assert_eq!(ok(server, &["cat", "ann", "d.txt"], b""), "written\n");
    assert_eq!(ok(server, &["ls", "ann"], b"").trim(), "8 d.txt");
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    std::fs::write(path("here"), "from here").expect("writable");
    ok(server, &["cp", &path("here"), "ann:there"], b"");
    ok(server, &["cp", "ann:there", &path("back")], b"");
    assert_eq!(std::fs::read_to_string(path("back")).expect("a file"), "from here");
    let (code, error) = fails(server, &["cp", "a", "b"]);
    assert!(code == Some(2) && error.contains("USER:PATH"), "{code:?} {error}");
    ok(
        server,
        &[
            "exec",
            "ann",
            "--",
            "git init -q -b main r && git -C r -c user.email=a@b -c user.name=a commit -q --allow-empty -m one",
        ],
        b"",
    );
    assert!(ok(server, &["git", "ann", "/workspace/r", "--dir", "copy"], b"").contains("into copy"));
    ok(server, &["snapshot", "ann", "-o", &path("tar")], b"");
    ok(server, &["restore", "bob", &path("tar")], b"");
    assert_eq!(ok(server, &["cat", "bob", "there"], b""), "from here");
    // What `snapshot` prints, `restore` reads.
    ok(server, &["restore", "carl"], &std::fs::read(path("tar")).expect("a file"));
    assert_eq!(ok(server, &["cat", "carl", "there"], b""), "from here");
    ok(server, &["rm", "ann", "-r", "copy"], b"");
    let (code, error) = fails(server, &["cat", "ann", "copy/x"]);
    assert!(code == Some(4) && error.contains("FILE_NOT_FOUND"), "{code:?} {error}");
}

fn background(server: &Server) {
    assert_eq!(ok(server, &["exec", "ann", "-d", "--id", "p", "--", "echo begun; sleep 1000"], b""), "p\n");
    assert!(ok(server, &["ps", "ann"], b"").contains("running"));
    while ok(server, &["logs", "ann", "p"], b"") != "begun\n" {}
    assert!(ok(server, &["kill", "ann", "p"], b"").contains("killed"));
    assert_eq!(ok(server, &["logs", "ann", "p", "-f"], b""), "begun\n");
    assert!(ok(server, &["expose", "ann", "8000"], b"").contains("://preview-"));
    ok(server, &["hide", "ann", "8000"], b"");
    assert_eq!(fails(server, &["hide", "ann", "8000"]).0, Some(4));
}

on_each_backend!(the_command_does_what_the_api_does,);
