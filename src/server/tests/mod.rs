//! The real server over real sockets, against a link whose host end is a small peer that speaks the protocol.

mod api;
mod framing;
mod host;
mod life;
mod route;
mod workers;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atoll_bindings::link::Link;
use atoll_bindings::seam::LogLine;
use http::HeaderMap;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::admission::Denied;
use crate::config::Overrides;
use crate::dispatch::trace::Trace;
use crate::observe::{Finished, HostEvent, Routed};
use crate::route::runner::StepRunner;
use crate::telemetry::trace::TraceContext;
use host::Host;

/// Longest time a test waits for something that must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// Keeps what was reported.
#[derive(Default)]
pub(super) struct Seen {
    /// Event and outcome of each finished request.
    pub(super) finished: Mutex<Vec<(&'static str, String)>>,
    /// CPU time of each.
    pub(super) cpu_us: Mutex<Vec<u64>>,
    /// Every decision of where a step runs, explained.
    pub(super) routed: Mutex<Vec<String>>,
}

impl Observer for Seen {
    fn begin(&self, headers: &HeaderMap) -> Trace {
        TraceContext::from_headers(headers).map(Trace::from).unwrap_or_default()
    }

    fn finished(&self, event: &Finished<'_>) {
        self.finished.lock().unwrap().push((event.event, event.outcome.code().to_owned()));
        self.cpu_us.lock().unwrap().push(event.usage.cpu_us);
    }

    fn denied(&self, _tenant: &str, _denied: Denied) {}

    fn routed(&self, event: &Routed<'_>) {
        self.routed.lock().unwrap().push(event.decision.explain());
    }

    fn guest_log(&self, _tenant: &str, _worker: &str, _trace: Option<&str>, _line: &LogLine) {}

    fn host(&self, _event: &HostEvent<'_>) {}

    fn metrics(&self) -> String {
        "atoll_up 1\n".to_owned()
    }
}

/// A server, its peer, and what it reported.
pub(super) struct Bench {
    pub(super) server: Server,
    host: Host,
    link: Link,
    pub(super) seen: Arc<Seen>,
    pub(super) data: tempfile::TempDir,
}

fn hex(token: &str) -> String {
    Sha256::digest(token).iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// The configuration of most tests, and what a test adds: top-level keys first, then tables.
fn config_text(top: &str, tables: &str) -> String {
    format!(
        "listen = [\"127.0.0.1:0\"]\nbase_domain = \"example.com\"\n{top}\n\
         [tenants.acme]\ntokens = [\"{}\", {{ sha256 = \"{}\", scopes = [\"read\"] }}]\nhosts = [\"*.acme.dev\"]\n\
         [tenants.other]\ntokens = [\"{}\"]\noutbound = false\nconcurrent_max = 1\nexecutions_max = 1\n{tables}",
        hex("secret"),
        hex("reader"),
        hex("other")
    )
}

pub(super) async fn start_with(top: &str, tables: &str) -> Bench {
    start_in(tempfile::tempdir().unwrap(), top, tables).await
}

pub(super) async fn start_in(data: tempfile::TempDir, top: &str, tables: &str) -> Bench {
    start_runner(data, top, tables, None).await
}

/// With something that runs sandbox steps.
pub(super) async fn start_runner(
    data: tempfile::TempDir,
    top: &str,
    tables: &str,
    runner: Option<Arc<dyn StepRunner>>,
) -> Bench {
    let overrides = Overrides { data_dir: Some(data.path().to_owned()), ..Overrides::default() };
    let config = Config::parse(&config_text(top, tables), overrides).unwrap();
    let (link, endpoint) = atoll_bindings::link::in_process();
    let host = Host::start(endpoint);
    let seen = Arc::new(Seen::default());
    let audit = open_audit(&config).await.unwrap();
    let server =
        Server::start_with(config, audit, Arc::new(link.clone()), seen.clone(), runner, None).await.unwrap();
    Bench { server, host, link, seen, data }
}

pub(super) async fn start() -> Bench {
    start_with("", "").await
}

/// What came back.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Reply {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let field = |line: &'_ str| line.split_once(':').map(|(n, _)| n.eq_ignore_ascii_case(name));
        let line = self.head.lines().find(|line| field(line) == Some(true))?;
        line.split_once(':').map(|(_, value)| value.trim())
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Sends bytes, reads until the server closes.
pub(super) async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut out = Vec::new();
    // A reset after the answer is fine: what was read counts.
    let _ =
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut out)).await.expect("the server must close");
    String::from_utf8_lossy(&out).into_owned()
}

pub(super) fn parse_reply(text: &str) -> Reply {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunk(body) } else { body.to_owned() };
    Reply { status, head: head.to_owned(), body }
}

fn unchunk(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        out.push_str(&rest[..size]);
        body = &rest[size + 2..];
    }
    out
}

impl Bench {
    pub(super) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// One request on its own connection.
    pub(super) async fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Reply {
        let mut request = format!("{method} {target} HTTP/1.1\r\nconnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "host") {
            request.push_str("host: example.com\r\n");
        }
        for (name, value) in headers {
            let _ = write!(request, "{name}: {value}\r\n");
        }
        if !body.is_empty() {
            let _ = write!(request, "content-length: {}\r\n", body.len());
        }
        let _ = write!(request, "\r\n{body}");
        parse_reply(&raw(self.address(), request.as_bytes()).await)
    }

    /// One API request as tenant `acme`.
    pub(super) async fn api(&self, method: &str, target: &str, body: &str) -> Reply {
        let headers = [("authorization", "Bearer secret"), ("content-type", "application/json")];
        self.send(method, target, &headers, body).await
    }

    /// Deploys a worker of tenant `acme`.
    pub(super) async fn deploy(&self, name: &str, settings: &str) -> Reply {
        let code = "export default { fetch() { return new Response('hello') } }";
        let body = format!(r#"{{"mainModule":"main.js","modules":{{"main.js":{code:?}}}{settings}}}"#);
        let reply = self.api("PUT", &format!("/v1/workers/{name}"), &body).await;
        assert!(matches!(reply.status, 200 | 201), "{reply:?}");
        reply
    }

    /// Waits until this many requests are finished; gives all of them.
    pub(super) async fn finished(&self, count: usize) -> Vec<(&'static str, String)> {
        let wait = async {
            loop {
                let finished = self.seen.finished.lock().unwrap().clone();
                if finished.len() >= count {
                    return finished;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("every request ends")
    }
}
