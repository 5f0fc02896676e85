//! A secret within reach of whatever a test does: sealed in the server's store, used through a proxy by the test's workers and by
//! the neighbour, and looked for wherever anybody could see it.
//!
//! ```text
//!  start ─▶ PUT /v1/secrets/vault ─▶ env.VAULT of every execution and deployment ─▶ an upstream that says back what it hears
//!  searched: every answer (by the clients themselves) │ /metrics │ the log, every file, every trace at the end
//! ```

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use serde_json::json;

use crate::outside::{NameServer, Outside, Web};
use crate::secrets::{Heard, upstream};
use crate::support::atoll::{Atoll, NEIGHBOUR_TOKEN, Options, TENANT, TOKEN};
use crate::support::canary::{CANARY, assert_clean, find, key_file, secrets_config};
use crate::support::client;
use crate::support::worker::Request;

/// The origin that the proxy leads to.
const NAME: &str = "vault.test";

/// What holds the secret of a stage, and who may not see it.
pub(crate) struct Vault {
    /// Exports that had the secret in them, and how many there were.
    traces: Arc<Mutex<(Vec<String>, usize)>>,
    heard: Heard,
    _upstream: Web,
    _collector: Web,
    _outside: Outside,
    _key: tempfile::NamedTempFile,
}

impl Vault {
    /// Starts a server with these options and with the secret in reach of all that runs there.
    pub(crate) async fn start(options: Options) -> (Atoll, Self) {
        let heard: Heard = Arc::default();
        let listener = heard.clone();
        let web = Web::tls(&[NAME], move |parts, body| upstream(&listener, parts, body)).await;
        let names = NameServer::new(&[(NAME, &[&["127.0.0.1"]])]).await;
        let outside = Outside::new(&web, &names);
        let traces = Arc::<Mutex<(Vec<String>, usize)>>::default();
        let told = traces.clone();
        let collector = Web::plain(move |parts, body: Bytes| {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            told.1 += 1;
            if let Some((_, form)) = find(&body) {
                told.0.push(format!("{}: {form}", parts.uri));
            }
            Response::new(Full::from(""))
        });
        let collector = collector.await;
        let key = key_file(0x5a);
        let proxy = format!(
            "[proxy.vault]\ntenants = [\"*\"]\norigin = \"{NAME}:{}\"\nmethods = [\"GET\", \"POST\"]\n\
             secret = \"vault\"\ninject = {{ type = \"bearer\" }}\n",
            web.port
        );
        let config = format!("{}\n{}{proxy}", merged(&options.config, &outside.config), secrets_config(&key));
        let endpoint = format!("http://127.0.0.1:{}", collector.port);
        let mut env = options.env.clone();
        env.push(("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), endpoint));
        let mut atoll = Atoll::start(Options { config, env, ..options }).await;
        keep_secret(&atoll).await;
        let url = format!("https://{NAME}:{}", web.port);
        let binding = json!({ "VAULT": { "type": "secret_proxy", "proxy": "vault" } });
        atoll.give_all(binding, json!({ "VAULT_URL": url }));
        // By the neighbour, so that nothing of it is in what a row counts.
        let code = "return (await env.VAULT.fetch(env.VAULT_URL + '/echo')).status";
        let used = atoll.execute_as(NEIGHBOUR_TOKEN, json!({ "code": code })).await;
        assert_eq!(used.json()["result"], 200, "{}", used.text());
        let vault =
            Self { traces, heard, _upstream: web, _collector: collector, _outside: outside, _key: key };
        (atoll, vault)
    }

    /// Stops the server, which sends its last traces, and looks for the secret in all that it wrote and sent. Makes sure that
    /// there was something to be found.
    pub(crate) fn search(&self, atoll: &mut Atoll) {
        atoll.stop();
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let used = heard.iter().filter(|(parts, _)| {
            parts.headers.get("authorization").is_some_and(|value| find(value.as_bytes()).is_some())
        });
        assert!(used.count() > 0, "the secret was not used, so that it is not seen says nothing");
        search_written(atoll);
        let told = self.traces.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(told.0.is_empty(), "the secret is in what was exported: {:?}", told.0);
        assert!(told.1 > 0, "nothing was exported, so that it is not there says nothing");
    }

    /// What a tenant reads of its own.
    pub(crate) async fn look(atoll: &Atoll) {
        let now = atoll.control("GET", "/v1/workers", None).await.json();
        let workers = now["workers"].as_array().cloned().unwrap_or_default();
        let names = workers.iter().filter_map(|worker| worker["name"].as_str());
        let logs = names.map(|name| format!("/v1/workers/{name}/logs"));
        for path in ["/v1/secrets", "/v1/proxies", "/v1/tokens", "/v1/audit?limit=1000", "/v1/hosts"]
            .into_iter()
            .map(str::to_owned)
            .chain(logs)
        {
            // The client looks through each answer.
            let answer = atoll.control("GET", &path, None).await;
            assert_eq!(answer.status, 200, "{TENANT} {path}: {}", answer.text());
        }
    }
}

/// Looks for the secret in the metrics. It blocks: a drop cannot wait otherwise.
fn search_metrics(atoll: &Atoll) {
    let mut connection = std::net::TcpStream::connect(atoll.address()).expect("the server listens");
    let head = "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let mut metrics = Vec::new();
    connection
        .write_all(head.as_bytes())
        .and_then(|()| connection.read_to_end(&mut metrics))
        .expect("an answer");
    assert!(metrics.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&metrics));
    assert_clean(&metrics, "the metrics");
}

/// Looks for the secret in the log and in every file of a server.
pub(crate) fn search_written(atoll: &Atoll) {
    assert_clean(atoll.log().as_bytes(), "the server's log");
    for path in files(&atoll.data()) {
        // A file may be gone by now.
        let bytes = std::fs::read(&path).unwrap_or_default();
        assert_clean(&bytes, &path.display().to_string());
    }
}

/// Keeps the secret for both tenants, under the name that the proxies of these tests use.
pub(crate) async fn keep_secret(atoll: &Atoll) {
    for token in [TOKEN, NEIGHBOUR_TOKEN] {
        let request = Request::new("PUT", "/v1/secrets/vault")
            .header("authorization", &format!("Bearer {token}"))
            .header("content-type", "text/plain")
            .body(CANARY);
        let kept = client::send(atoll.address(), "localhost", &request).await.expect("an answer");
        assert_eq!(kept.status, 200, "{}", kept.text());
    }
}

/// One `[outbound]` of two.
fn merged(own: &str, outside: &str) -> String {
    const TABLE: &str = "[outbound]\n";
    const LIST: &str = "allow_private = [";
    if !own.contains(TABLE) {
        return format!("{own}\n{outside}");
    }
    let mut lines = outside.trim_start_matches(TABLE).lines();
    let allowed = lines.next().and_then(|line| line.strip_prefix(LIST)?.strip_suffix(']'));
    let allowed = allowed.expect("the first line says what may be dialled");
    let rest = lines.collect::<Vec<_>>().join("\n");
    own.replacen(TABLE, &format!("{TABLE}{rest}\n"), 1).replacen(LIST, &format!("{LIST}{allowed}, "), 1)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { out.extend(files(&path)) } else { out.push(path) }
    }
    out
}

/// A server with such a secret, which is looked for when the test is over.
pub(crate) struct Guarded {
    atoll: Atoll,
    vault: Vault,
}

impl Guarded {
    pub(crate) async fn start(options: Options) -> Self {
        let (atoll, vault) = Vault::start(options).await;
        Self { atoll, vault }
    }
}

impl std::ops::Deref for Guarded {
    type Target = Atoll;

    fn deref(&self) -> &Atoll {
        &self.atoll
    }
}

impl std::ops::DerefMut for Guarded {
    fn deref_mut(&mut self) -> &mut Atoll {
        &mut self.atoll
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            if self.atoll.alive() {
                search_metrics(&self.atoll);
            }
            self.vault.search(&mut self.atoll);
        }
    }
}
