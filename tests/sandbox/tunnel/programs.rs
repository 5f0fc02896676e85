//! curl, git, npm and pip over TLS: a site with a repository and two registries, and a sandbox whose programs trust its authority.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use base64::Engine as _;
use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use super::with;
use crate::outside::{Answer, NameServer, Outside, Web};
use crate::sandbox::backends::{Place, on_each_backend};

/// Files below a folder, as a web server gives them; `/npm` says where its packages are.
fn site(folder: &Path, origin: &str, parts: &http::request::Parts) -> Answer {
    let path = parts.uri.path().trim_start_matches('/');
    let plain = path.split('/').all(|name| !name.starts_with('.'));
    let mut file = folder.join(path);
    if file.is_dir() {
        file = file.join("index");
    }
    match std::fs::read(file) {
        Ok(bytes) if plain => {
            let index = path.starts_with("npm/") || path.starts_with("pip/");
            let bytes = match String::from_utf8(bytes) {
                Ok(text) if index => text.replace("ORIGIN", origin).into_bytes(),
                Ok(text) => text.into_bytes(),
                Err(error) => error.into_bytes(),
            };
            let mut answer = Response::new(Full::from(Bytes::from(bytes)));
            if path.starts_with("pip/simple") {
                answer.headers_mut().insert("content-type", http::HeaderValue::from_static("text/html"));
            }
            answer
        }
        _ => {
            let mut answer = Response::new(Full::default());
            *answer.status_mut() = StatusCode::NOT_FOUND;
            answer
        }
    }
}

/// A git repository for the dumb protocol, an npm package with its metadata, and a wheel with its index.
fn fill(folder: &Path) {
    let script = r#"set -e
    git init -q -b main work; cd work; echo hello > file; git add .
    git -c user.name=a -c user.email=a@b commit -qm first; cd ..
    git clone -q --bare work repo.git; git -C repo.git update-server-info; rm -r work
    mkdir -p npm/package; echo '{"name":"reef","version":"1.0.0","main":"index.js"}' > npm/package/package.json
    echo 'module.exports = "from the reef"' > npm/package/index.js
    tar -C npm -czf npm/reef-1.0.0.tgz package; rm -r npm/package
    sum=$(/usr/bin/python3 -c 'import base64, hashlib; print(base64.b64encode(hashlib.sha512(open("npm/reef-1.0.0.tgz", "rb").read()).digest()).decode())')
    echo "{\"name\":\"reef\",\"dist-tags\":{\"latest\":\"1.0.0\"},\"versions\":{\"1.0.0\":{\"name\":\"reef\",\"version\":\"1.0.0\",\"dist\":{\"tarball\":\"ORIGIN/npm/reef-1.0.0.tgz\",\"integrity\":\"sha512-$sum\"}}}}" > npm/reef
    mkdir -p wheel/reef-1.0.dist-info pip/simple/reef; echo 'WHERE = "from the wheel"' > wheel/reef.py
    printf 'Metadata-Version: 2.1\nName: reef\nVersion: 1.0\n' > wheel/reef-1.0.dist-info/METADATA
    printf 'Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n' > wheel/reef-1.0.dist-info/WHEEL
    printf 'reef.py,,\nreef-1.0.dist-info/METADATA,,\nreef-1.0.dist-info/WHEEL,,\nreef-1.0.dist-info/RECORD,,\n' > wheel/reef-1.0.dist-info/RECORD
    cd wheel; /usr/bin/python3 -m zipfile -c ../pip/reef-1.0-py3-none-any.whl reef.py reef-1.0.dist-info; cd ..; rm -r wheel
    echo '<a href="ORIGIN/pip/reef-1.0-py3-none-any.whl">reef-1.0-py3-none-any.whl</a>' > pip/simple/reef/index
    "#;
    let done = Command::new("sh").args(["-c", script]).current_dir(folder).output().expect("a shell");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

async fn programs_reach_https_through_tunnels(place: Place) {
    if !crate::examples::has_programs("programs_reach_https_through_tunnels", &["curl", "git", "npm", "pip3"])
    {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    fill(folder.path());
    let root = folder.path().to_owned();
    let port = Arc::new(AtomicU16::new(0));
    let told = port.clone();
    let web = Web::tls(&["site.test"], move |parts, _| {
        let origin = format!("https://site.test:{}", told.load(Ordering::SeqCst));
        site(&root, &origin, &parts)
    })
    .await;
    port.store(web.port, Ordering::SeqCst);
    let names = NameServer::new(&[("site.test", &[&["127.0.0.1"]])]).await;
    let outside = Outside::new(&web, &names);
    let Some(server) = with(place, &outside, web.port, "").await else { return };
    let pem = base64::engine::general_purpose::STANDARD.encode(&web.root);
    let pem = format!("-----BEGIN CERTIFICATE-----\n{pem}\n-----END CERTIFICATE-----\n");
    let put = server.bytes("PUT", "/v1/sandboxes/ann/files?path=ca.pem", pem).await;
    assert!(put.status < 300, "{}", put.text());
    let (origin, target) = (format!("https://site.test:{}", web.port), format!("site.test:{}", web.port));
    let ca = "/workspace/ca.pem";
    let metadata = server.out("ann", &format!("curl -sS --fail --cacert {ca} {origin}/npm/reef")).await;
    assert!(metadata.contains("\"name\":\"reef\""), "{metadata}");
    // The certificate is checked inside: nobody on the way has one.
    let untrusted = server.exec("ann", json!({ "command": format!("curl -sS {origin}/") })).await;
    assert!(untrusted["stderr"].as_str().is_some_and(|text| text.contains("certificate")), "{untrusted}");
    let clone = format!("GIT_SSL_CAINFO={ca} git clone -q {origin}/repo.git cloned && cat cloned/file");
    assert_eq!(server.out("ann", &clone).await, "hello\n");
    let npm = format!(
        "mkdir n && cd n && npm install --cafile {ca} --registry {origin}/npm/ --no-audit --no-fund --no-update-notifier \
         --loglevel=error reef >&2 && node -p 'require(\"reef\")'"
    );
    assert_eq!(server.out("ann", &npm).await, "from the reef\n");
    let pip = format!(
        "python3 -m pip --disable-pip-version-check install -q --no-cache-dir --cert {ca} --index-url {origin}/pip/simple \
         --target p reef >&2 && PYTHONPATH=p python3 -c 'import reef; print(reef.WHERE)'"
    );
    assert_eq!(server.out("ann", &pip).await, "from the wheel\n");
    // Each is told with its bytes, by whom and for whom.
    server.out("ann", &format!("curl -sS --fail --cacert {ca} {origin}/npm/reef")).await;
    let page = server.control("GET", "/v1/audit?kind=crossing&limit=1000", None).await.json();
    let sandbox = server.control("GET", "/v1/sandboxes/ann", None).await.json()["id"].clone();
    let through: Vec<&Value> = page["records"]
        .as_array()
        .expect("records")
        .iter()
        .filter(|record| record["origin"] == format!("tcp://{target}"))
        .collect();
    assert!(through.len() >= 6, "{page}");
    for record in through {
        assert_eq!(
            (&record["method"], &record["outcome"], &record["status"]),
            (&json!("CONNECT"), &json!("answered"), &json!(200)),
            "{record}"
        );
        assert!(record["requestBytes"].as_u64() > Some(100), "{record}");
        assert!(record["responseBytes"].as_u64() > Some(500), "{record}");
        assert_eq!((&record["user"], &record["sandbox"]), (&json!("ann"), &sandbox), "{record}");
        assert_eq!((&record["worker"], &record["policy"]), (&json!("api"), &json!("wide")), "{record}");
    }
    server.finish();
}

on_each_backend!(programs_reach_https_through_tunnels,);
