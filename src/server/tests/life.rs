//! HTTP/2, TLS with a certificate that changes, draining, and starting again.

use std::sync::atomic::Ordering::SeqCst;

use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName};

use super::*;

type Client = http2::SendRequest<Empty<bytes::Bytes>>;

async fn h2<S>(stream: S) -> Client
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (client, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn get(client: &mut Client, uri: &str, host: Option<&str>) -> (u16, String) {
    let mut request = http::Request::get(uri);
    if let Some(host) = host {
        request = request.header("host", host);
    }
    let reply = client.send_request(request.body(Empty::new()).unwrap()).await.unwrap();
    let status = reply.status().as_u16();
    let body = reply.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn http2_is_spoken_with_prior_knowledge() {
    let bench = start().await;
    bench.deploy("hello", "").await;
    let mut client = h2(TcpStream::connect(bench.address()).await.unwrap()).await;
    let (status, body) = get(&mut client, "http://hello.acme.example.com/x", None).await;
    assert_eq!(status, 200);
    assert!(body.contains("http://hello.acme.example.com/x"), "{body}");
    let (status, _) = get(&mut client, "http://hello.acme.example.com/x", Some("evil.example.com")).await;
    assert_eq!(status, 400, ":authority and host must agree");
    let (status, _) = get(&mut client, "http://example.com/w/acme/hello/throw", None).await;
    assert_eq!(status, 500);
}

fn certificate(directory: &std::path::Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["example.com".to_owned()]).unwrap();
    std::fs::write(directory.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(directory.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    made.cert.der().clone()
}

async fn tls(
    address: SocketAddr,
    trusted: &CertificateDer<'static>,
    alpn: &[u8],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect(ServerName::try_from("example.com").unwrap(), TcpStream::connect(address).await?).await
}

#[tokio::test]
async fn tls_offers_both_protocols_and_takes_a_new_certificate() {
    let files = tempfile::tempdir().unwrap();
    let old = certificate(files.path());
    let (cert, key) = (files.path().join("cert.pem"), files.path().join("key.pem"));
    let bench = start_with("", &format!("[tls]\ncertificate = {cert:?}\nkey = {key:?}\n")).await;
    let mut client = h2(tls(bench.address(), &old, b"h2").await.unwrap()).await;
    assert_eq!(get(&mut client, "https://example.com/healthz", None).await, (200, "ok\n".into()));
    let mut plain = tls(bench.address(), &old, b"http/1.1").await.unwrap();
    plain
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut text = String::new();
    let _ = plain.read_to_string(&mut text).await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    // A broken file changes nothing.
    std::fs::write(&cert, "nonsense").unwrap();
    tokio::time::sleep(tls::RELOAD_INTERVAL * 2).await;
    assert!(tls(bench.address(), &old, b"h2").await.is_ok());
    let new = certificate(files.path());
    let taken = async {
        while tls(bench.address(), &new, b"h2").await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, taken).await.expect("the new certificate is served");
    assert!(tls(bench.address(), &old, b"h2").await.is_err());
    assert_eq!(get(&mut client, "https://example.com/healthz", None).await.0, 200, "old connections live on");
}

async fn hold(bench: &Bench) -> TcpStream {
    let before = bench.host.invokes.load(SeqCst);
    let mut stream = TcpStream::connect(bench.address()).await.unwrap();
    stream.write_all(b"GET /w/acme/hello/hang HTTP/1.1\r\nHost: example.com\r\n\r\n").await.unwrap();
    while bench.host.invokes.load(SeqCst) == before {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stream
}

#[tokio::test]
async fn draining_finishes_what_runs_and_takes_nothing_new() {
    let bench = start().await;
    bench.deploy("hello", "").await;
    let mut running = hold(&bench).await;
    let mut idle = TcpStream::connect(bench.address()).await.unwrap();
    let address = bench.address();
    let Bench { server, host, .. } = bench;
    let drain = tokio::spawn(server.shutdown());
    let mut byte = [0];
    assert_eq!(idle.read(&mut byte).await.unwrap(), 0, "an idle connection is closed");
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
    assert_eq!(host.release(), 1);
    let mut text = String::new();
    running.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("released"), "{text}");
    assert!(drain.await.unwrap(), "everything finished");
}

#[tokio::test]
async fn draining_is_bounded() {
    let bench = start_with("", "[http]\ndrain_timeout_ms = 200\n").await;
    bench.deploy("hello", "").await;
    let mut running = hold(&bench).await;
    let Bench { server, seen, .. } = bench;
    assert!(!server.shutdown().await, "something was cut off");
    let mut text = String::new();
    let _ = running.read_to_string(&mut text).await;
    assert_eq!(text, "");
    while seen.finished.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(seen.finished.lock().unwrap()[0].1, "canceled");
}

#[tokio::test]
async fn deployments_are_there_after_a_restart() {
    let bench = start().await;
    bench.deploy("hello", r#","vars":{"A":"kept"}"#).await;
    bench.deploy("hello", r#","vars":{"A":"second"}"#).await;
    bench.api("POST", "/v1/workers/hello/rollback", "").await;
    let Bench { server, data, .. } = bench;
    drop(server);
    let bench = start_in(data, "", "").await;
    let seen = bench.send("GET", "/w/acme/hello/", &[], "").await.json();
    assert!(seen["env"][0].as_str().unwrap().contains("kept"), "{seen}");
    assert!(bench.data.path().join("deployments.db").exists());
}
