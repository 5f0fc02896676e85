//! The cases of the Autobahn suite, run by `kosoku` (PyPI) against an echo worker.
//!
//! `scripts/setup.sh test` installs it into `tests/websocket/python`. Where there is no Python the test says so and is skipped,
//! but not where `CI` is set.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use super::*;

/// Cases that are run, and those of them that are about compression.
const CASES: usize = 373;
const COMPRESSION_CASES: usize = 72;

/// Offers that ask for a smaller window and leave no choice: they are declined (RFC 7692 section 7.1.2.1), which the suite
/// calls unimplemented.
const DECLINED: [&str; 2] = ["13.3.", "13.5."];

#[tokio::test(flavor = "multi_thread")]
async fn every_case_of_the_conformance_suite_passes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/websocket");
    if !folder.join("python/kosoku").exists() {
        let reason = "kosoku is not installed: run scripts/setup.sh test";
        assert!(std::env::var_os("CI").is_none(), "{reason}");
        eprintln!("SKIPPED: {reason}");
        return;
    }
    let limits = "limits = { external_mib = 512, heap_mib = 512 }".to_owned();
    let atoll = site(Options { tenant: limits, ..Options::default() }, &Worker::single("echo", ECHO)).await;
    // The suite always asks for `/` at the address itself.
    let address = in_front_of(&atoll);
    let output = Command::new("python3")
        .arg(folder.join("conformance.py"))
        .arg(address.to_string())
        .env("PYTHONPATH", folder.join("python"))
        .output()
        .expect("python3 runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let (mut cases, mut compression, mut failed) = (0, 0, Vec::new());
    for line in text.lines() {
        let (id, behavior, closing, passed): (String, String, String, bool) =
            serde_json::from_str(line).expect("one list per line");
        cases += 1;
        compression += usize::from(id.starts_with("12.") || id.starts_with("13."));
        let declined = behavior == "UNIMPLEMENTED" && DECLINED.iter().any(|prefix| id.starts_with(prefix));
        if !passed && !declined {
            failed.push(format!("{id}: {behavior}, closing {closing}"));
        }
    }
    assert_eq!((cases, compression), (CASES, COMPRESSION_CASES), "the suite is not the one that is pinned");
    assert!(failed.is_empty(), "{} of {cases} cases:\n{}\n{}", failed.len(), failed.join("\n"), atoll.log());
}

/// A port where every request head gets the worker's name as its `host`, and all else passes as it is.
fn in_front_of(atoll: &Atoll) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound listener");
    let target = atoll.address();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(client) = client else { return };
            std::thread::spawn(move || pass(client, target));
        }
    });
    address
}

fn pass(mut client: TcpStream, target: SocketAddr) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match client.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head);
    let named = head.lines().map(|line| match line.split_once(':') {
        Some((name, _)) if name.eq_ignore_ascii_case("host") => {
            format!("host: {}\r\n", host_name(TENANT, "echo"))
        }
        _ => format!("{line}\r\n"),
    });
    let mut server = dial(target);
    server.write_all(named.collect::<String>().as_bytes()).expect("the server reads");
    let (mut from, mut to) = (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
    let up = std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    let _ = std::io::copy(&mut server, &mut client);
    let _ = client.shutdown(std::net::Shutdown::Write);
    let _ = up.join();
}
