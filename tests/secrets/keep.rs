//! Secrets at rest: sealed, shown to nobody, under a master key that can be changed.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use serde_json::json;

use super::{CANARY, World, assert_clean, bytes_of, key_file};
use crate::support::atoll::{NEIGHBOUR_TOKEN, TOKEN, binary};

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_sealed_on_disk_and_shown_to_nobody() {
    let world = World::with_canary().await;
    let get = |token: &'static str, path: &'static str| world.server.control_as(token, "GET", path, None);
    let list = get(TOKEN, "/v1/secrets").await;
    let first = list.json()["secrets"][0].clone();
    assert_eq!(first["name"], "github", "{first}");
    let one = get(TOKEN, "/v1/secrets/github").await;
    assert_eq!(one.json(), first);
    for answer in
        [&list, &one, &world.put(TOKEN, "github", CANARY).await, &get(NEIGHBOUR_TOKEN, "/v1/secrets").await]
    {
        assert_clean(&bytes_of(answer), "an answer");
    }
    let again = get(TOKEN, "/v1/secrets/github").await.json();
    assert!(
        again["version"].as_u64() > first["version"].as_u64() && again["createdMs"] == first["createdMs"]
    );
    // Another tenant has no such secret.
    assert_eq!(get(NEIGHBOUR_TOKEN, "/v1/secrets").await.json(), json!({ "secrets": [] }));
    assert_eq!(get(NEIGHBOUR_TOKEN, "/v1/secrets/github").await.status, 404);
    for entry in std::fs::read_dir(world.server.folder().join("data")).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            assert_clean(&std::fs::read(&path).expect("a file"), &path.display().to_string());
        }
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("access.db")) {
            let mode = std::fs::metadata(&path).expect("a file").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", path.display());
        }
    }
    assert_clean(world.server.log().as_bytes(), "the log");
    assert_eq!(world.server.control("DELETE", "/v1/secrets/github", None).await.status, 204);
    assert_eq!(get(TOKEN, "/v1/secrets/github").await.status, 404);
    assert_eq!(world.server.control("DELETE", "/v1/secrets/github", None).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_secret_is_refused_without_repeating_it() {
    let world = World::new("").await;
    let long = CANARY.repeat(300);
    for (name, kind, value, status, code) in [
        ("x", "application/json", CANARY, 415, "unsupported_media_type"),
        ("x", "text/plain", &CANARY[..7], 422, "secret_size"),
        ("x", "text/plain", &long, 413, "body_too_large"),
        ("X", "text/plain", CANARY, 422, "secret_name"),
        ("..%2fx", "text/plain", CANARY, 422, "secret_name"),
    ] {
        let path = format!("/v1/secrets/{name}");
        let answer = world.send(TOKEN, "PUT", &path, &[("content-type", kind)], value).await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{name} {kind}");
        assert_clean(&bytes_of(&answer), code);
    }
    let answer = world.put("nobody", "x", CANARY).await;
    assert_eq!(answer.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_reads_a_value_from_its_input_and_a_master_key_can_be_changed() {
    let mut world = World::new("").await;
    let url = format!("http://{}", world.server.address());
    let run = |arguments: &[&str], input: &str| {
        use std::io::Write as _;
        let mut child = Command::new(binary())
            .args(arguments)
            .env("ATOLL_URL", &url)
            .env("ATOLL_TOKEN", TOKEN)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("atoll starts");
        // A command that fails early may have closed its input.
        let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
        let out = child.wait_with_output().expect("it ends");
        let text = [out.stdout, out.stderr].concat();
        assert_clean(&text, "the command's output");
        (out.status.code(), String::from_utf8_lossy(&text).into_owned())
    };
    let (code, text) = run(&["secret", "put", "github"], &format!("{CANARY}\n"));
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(run(&["secret", "put", "github"], "").0, Some(2));
    assert!(run(&["secret", "list"], "").1.contains("github"));
    let sent = |world: &World| world.last_header("authorization");
    let token = world.identity(TOKEN, "github", json!({})).await;
    assert_eq!(world.send(&token, "GET", "/v1/proxy/github/x", &[], "").await.status, 200);
    assert_eq!(sent(&world), [format!("Bearer {CANARY}")], "the line's end is not part of the value");

    // Another key under the same name is noticed before anything is served.
    let folder = world.server.folder().to_owned();
    let (config, other) = (folder.join("atoll.toml"), key_file(0xcd));
    let text = std::fs::read_to_string(&config).expect("a file");
    let old = format!("key_file = {:?}", world.key.path());
    let write = |new: String| std::fs::write(&config, text.replace(&old, &new)).expect("writable");
    world.server.stop();
    let serve = ["serve", "--config", config.to_str().expect("a path")];
    write(format!("key_file = {:?}", other.path()));
    let (code, said) = run(&serve, "");
    assert!(code != Some(0) && said.contains("is not the one"), "{said}");
    let renamed = text.replace("key_id = \"one\"", "key_id = \"two\"");
    std::fs::write(&config, renamed.replace(&old, &format!("key_file = {:?}", other.path())))
        .expect("writable");
    let (code, said) = run(&serve, "");
    assert!(code != Some(0) && said.contains("\"one\" is needed"), "{said}");
    // With both, everything is sealed anew; then the old one is not needed.
    let both = format!(
        "key_file = {:?}\nprevious = [{{ key_id = \"one\", key_file = {:?} }}]",
        other.path(),
        world.key.path()
    );
    std::fs::write(&config, renamed.replace(&old, &both)).expect("writable");
    let (code, said) = run(&["secret", "reseal", "--config", config.to_str().expect("a path")], "");
    assert!(code == Some(0) && said.contains("1 secrets"), "{said}");
    std::fs::write(&config, renamed.replace(&old, &format!("key_file = {:?}", other.path())))
        .expect("writable");
    world.server.restart().await;
    let token = world.identity(TOKEN, "github", json!({})).await;
    assert_eq!(world.send(&token, "GET", "/v1/proxy/github/y", &[], "").await.status, 200);
    assert_eq!(sent(&world), [format!("Bearer {CANARY}")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_master_key_there_are_no_secrets() {
    let server = crate::support::atoll::Atoll::start(Default::default()).await;
    let request = crate::support::worker::Request::new("PUT", "/v1/secrets/x")
        .header("authorization", &format!("Bearer {TOKEN}"))
        .header("content-type", "text/plain")
        .body(CANARY);
    let answer =
        crate::support::client::send(server.address(), "localhost", &request).await.expect("an answer");
    assert_eq!((answer.status, answer.json()["code"].as_str()), (501, Some("secrets_not_configured")));
}
