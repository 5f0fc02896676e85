//! Where steps run: the command that explains it, and the policy's tables held against a real isolate.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use atoll::route::Missing;
use atoll::route::modules::{NODE_MODULES, Offer};
use serde_json::{Value, json};

use crate::support::atoll::{self as process, Atoll, Options};

fn explain(code: &str, args: &[&str]) -> Output {
    let mut child = Command::new(process::binary())
        .args(["route", "explain", "-"])
        .args(args)
        .env_remove("ATOLL_CONFIG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("atoll starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    // A usage error ends it before it reads.
    let _ = stdin.write_all(code.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("atoll ends")
}

#[test]
fn the_command_explains_a_decision() {
    for (code, args, runtime, rule) in [
        ("return 1", &[][..], "isolate", "default"),
        ("return process.env", &[], "sandbox", "globals"),
        ("import 'node:fs'; return 1", &["--language", "ts"], "sandbox", "imports"),
        ("print(1)", &["--language", "python"], "sandbox", "language"),
        ("return 1", &["--needs", "http"], "isolate", "default"),
        ("return 1", &["--needs", "http,native-module"], "sandbox", "needs"),
        ("return 1", &["--memory-mib", "4000000"], "sandbox", "size"),
    ] {
        let plain = explain(code, args);
        let text = String::from_utf8_lossy(&plain.stdout).into_owned();
        assert!(plain.status.success(), "{code}: {plain:?}");
        assert!(text.starts_with(&format!("{runtime}, by the rule `{rule}`\n  because ")), "{code}: {text}");
        let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        let document: Value = serde_json::from_slice(&explain(code, &args).stdout).expect("JSON");
        assert_eq!((&document["runtime"], &document["rule"]), (&json!(runtime), &json!(rule)), "{document}");
        assert!(document["reasons"][0].is_string() && document["cost"]["startMs"].is_u64(), "{document}");
    }
}

#[test]
fn the_command_knows_the_operators_rules_and_names_mistakes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("atoll.toml");
    std::fs::write(&file, "[[route]]\nname = \"acme\"\ntenant = \"acme\"\nruntime = \"sandbox\"\n").unwrap();
    let config = file.to_str().expect("UTF-8");
    for (tenant, rule) in [("acme", "override:acme"), ("other", "default")] {
        let out = explain("return 1", &["--config", config, "--tenant", tenant, "--json"]);
        let document: Value = serde_json::from_slice(&out.stdout).expect("JSON");
        assert_eq!(document["rule"], rule, "{document}");
    }
    std::fs::write(&file, "[[route]]\nname = \"x\"\n").unwrap();
    for (code, args, status) in [
        ("return 1", &["--config", config][..], 2),
        ("return 1", &["--needs", "luck"], 2),
        ("return (", &[], 4),
    ] {
        let out = explain(code, args);
        assert_eq!(out.status.code(), Some(status), "{code} {args:?}: {out:?}");
        assert!(!out.stderr.is_empty() && out.stdout.is_empty(), "{out:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_of_modules_is_true_of_a_real_isolate() {
    let server = Atoll::start(Options::default()).await;
    for (name, offer) in NODE_MODULES {
        let code = format!("await import('node:{name}'); return 'imported'");
        let answer = server.execute(json!({ "code": code, "runtime": "isolate" })).await.json();
        let imported = answer["result"] == json!("imported");
        // Others may be there in name only, for packages that import them without need.
        assert!(imported || *offer != Offer::Isolate, "node:{name} is {offer:?} in the table, but: {answer}");
        if !imported {
            let told = missing(&answer["error"]);
            let expected = match offer {
                Offer::Needs(missing) => Some(*missing),
                Offer::NotOffered | Offer::Isolate => Some(Missing::Module),
            };
            assert_eq!(told, expected, "{answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_errors_of_an_isolate_tell_what_was_missing() {
    let server = Atoll::start(Options::default()).await;
    let wasm = "new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0])";
    for (code, expected) in [
        ("return require('fs')".to_owned(), Some(Missing::Module)),
        ("import fs from 'node:fs'; return fs.readFileSync('x')".into(), Some(Missing::Filesystem)),
        ("import c from 'crypto'; return c.createSign('sha256')".into(), Some(Missing::Module)),
        ("return Deno.pid".into(), Some(Missing::Process)),
        ("return __dirname".into(), Some(Missing::Filesystem)),
        ("import x from 'left-pad'; return x".into(), Some(Missing::Module)),
        ("import x from 'sharp'; return x".into(), Some(Missing::NativeModule)),
        ("return eval('1')".into(), Some(Missing::CodeGeneration)),
        ("return new Function('return 1')()".into(), Some(Missing::CodeGeneration)),
        (format!("return await WebAssembly.compile({wasm})"), Some(Missing::CodeGeneration)),
        ("import x from './missing.js'; return x".into(), None),
        ("return notThere".into(), None),
        ("throw new Error('process is not defined')".into(), None),
    ] {
        let answer = server.execute(json!({ "code": code, "runtime": "isolate" })).await.json();
        assert_eq!(answer["ok"], json!(false), "{code}: {answer}");
        assert_eq!(missing(&answer["error"]), expected, "{code}: {answer}");
        assert_eq!(answer["route"]["rule"], "requested", "{answer}");
    }
}

fn missing(error: &Value) -> Option<Missing> {
    Missing::of_error(error["name"].as_str()?, error["message"].as_str()?)
}
