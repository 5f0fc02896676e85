//! Published npm packages, unchanged, bundled as a user bundles them: code that was written for another server must run here.
//!
//! The versions are those of `tests/packages/package-lock.json`.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::atoll::{Atoll, Options};
use crate::support::worker::{Request, Worker};

/// Bundles a worker of `tests/packages/src` with esbuild.
pub(crate) fn bundle(name: &str) -> String {
    let folder = packages();
    let esbuild = folder.join("node_modules/.bin/esbuild");
    let output = Command::new(esbuild)
        .args(["--bundle", "--format=esm", "--conditions=workerd", "--external:cloudflare:*"])
        .arg(folder.join("src").join(name))
        .output()
        .expect("esbuild runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("a bundle is text")
}

/// The folder of the packages, installed on first use.
pub(crate) fn packages() -> PathBuf {
    static INSTALL: std::sync::Once = std::sync::Once::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/packages");
    INSTALL.call_once(|| {
        if !folder.join("node_modules/ws").exists() {
            let status = Command::new("npm").args(["ci", "--ignore-scripts"]).current_dir(&folder).status();
            assert!(status.expect("npm is needed").success(), "npm ci in tests/packages failed");
        }
    });
    folder
}

async fn answer(name: &str) -> Value {
    let options =
        Options { tenant: "limits = { cpu_ms = 30000, subrequests = 1000 }".into(), ..Options::default() };
    let atoll = Atoll::start(options).await;
    let source = bundle(&format!("{name}.js"));
    atoll.deploy(&Worker::single(name, &source).with_loader("LOADER")).await;
    let answer = atoll.send(name, &Request::new("GET", "/")).await;
    assert_eq!(answer.status, 200, "{}\n{}", answer.text(), atoll.log());
    serde_json::from_str(&answer.text()).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn codemode_runs_code_with_tools() {
    let got = answer("codemode").await;
    for (case, result) in [
        ("value", json!(42)),
        ("tool", json!(3)),
        ("several", json!(["1", { "got": "1", "list": [1, null, true] }])),
        ("parallel", json!([1, 4, 9])),
        ("binary", json!([1, 2, 250])),
        ("toolError", json!("caught no such row")),
        ("namespaces", json!([["a"], 2])),
        ("slowTool", json!("slow")),
        ("gate", json!("gate example.com")),
        ("helper", json!(42)),
    ] {
        assert_eq!(got[case]["result"], result, "{case}: {}", got[case]);
        assert!(got[case].get("error").is_none(), "{case}: {}", got[case]);
    }
    assert_eq!(got["codeError"]["error"], "from the code");
    assert_eq!(got["logs"]["logs"].as_array().map(Vec::len), Some(3), "{}", got["logs"]);
    for (case, part) in [
        ("unknownTool", "nothing"),
        ("timeout", "timed out"),
        ("noNetwork", "not permitted to access the internet"),
    ] {
        let text = got[case].as_str().unwrap_or_default();
        assert!(text.contains(part), "{case}: {}", got[case]);
    }
    assert_eq!(got["syntaxError"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn capnweb_serves_an_http_batch() {
    let got = answer("capnweb").await;
    assert_eq!(got, json!({ "nine": 9, "hello": "Hello, Ada!", "refused": "TypeError: bad token" }));
}
