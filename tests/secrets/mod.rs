//! Secrets, proxies, identities and tokens over the real binary: a real upstream over TLS that says back whatever it hears, a
//! canary for a secret, and a search for it in every byte that anyone sees.

mod canary;
mod endpoint;
mod identity;
mod keep;
mod minted;
mod rows;
mod sandbox;
mod tokens;

use std::io::Write as _;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::outside::{Answer, NameServer, Outside, Web};
use crate::support::atoll::{Atoll, Options, TOKEN};
use crate::support::canary::{CANARY, assert_clean, bytes_of, forms, key_file, secrets_config};
use crate::support::client::{self, Answer as Seen};
use crate::support::worker::Request;

/// Signs as this.
const ISSUER: &str = "https://atoll.test";

/// Heads and bodies that the upstream heard.
pub(crate) type Heard = Arc<Mutex<Vec<(http::request::Parts, Bytes)>>>;

struct World {
    server: Atoll,
    web: Web,
    heard: Heard,
    key: tempfile::NamedTempFile,
    _outside: Outside,
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory is writable");
    encoder.finish().expect("memory is writable")
}

/// Answers with everything that it was sent, in all forms, or with what its path asks for.
pub(crate) fn upstream(heard: &Heard, parts: http::request::Parts, body: Bytes) -> Answer {
    let sent: Vec<String> =
        parts.headers.values().filter_map(|value| value.to_str().ok().map(str::to_owned)).collect();
    let mut said = format!("{} {}\n", parts.method, parts.uri).into_bytes();
    for text in sent.iter().map(String::as_str).chain(parts.uri.query()) {
        let bare = text.strip_prefix("Bearer ").unwrap_or(text);
        forms(bare).iter().for_each(|form| said.extend([&form[..], b"\n"].concat()));
    }
    said.extend(&body);
    said.extend(b"\nthe end");
    let mut answer = Response::new(Full::from(said.clone()));
    for (index, text) in sent.iter().enumerate() {
        if let Ok(value) = text.parse() {
            answer
                .headers_mut()
                .insert(http::HeaderName::try_from(format!("x-echo-{index}")).expect("a name"), value);
        }
    }
    let mut header = |name: &'static str, value: String| {
        answer.headers_mut().insert(name, value.parse().expect("a value"));
    };
    match parts.uri.path() {
        "/redirect" => {
            header("location", format!("https://other.test/?{}", sent.join("&")));
            *answer.status_mut() = StatusCode::FOUND;
        }
        "/error" => *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
        "/refuse" => *answer.status_mut() = StatusCode::UNAUTHORIZED,
        "/gzip" => {
            header("content-encoding", "gzip".into());
            *answer.body_mut() = Full::from(gzip(&said));
        }
        "/unknown" => header("content-encoding", "compress".into()),
        "/decoys" => *answer.body_mut() = Full::from([&said.repeat(300)[..], b"the end"].concat()),
        "/cookie" => {
            header("set-cookie", "session=1".into());
            header("strict-transport-security", "max-age=1".into());
        }
        _ => {}
    }
    heard.lock().expect("no test panicked").push((parts, body));
    answer
}

impl World {
    /// With a proxy `github` of the operator's for all tenants, and whatever `more` configures.
    async fn new(more: &str) -> Self {
        let heard: Heard = Arc::default();
        let listener = heard.clone();
        let web =
            Web::tls(&["api.test", "other.test"], move |parts, body| upstream(&listener, parts, body)).await;
        let names =
            NameServer::new(&[("api.test", &[&["127.0.0.1"]]), ("other.test", &[&["127.0.0.1"]])]).await;
        let outside = Outside::new(&web, &names);
        let key = key_file(0xab);
        let port = web.port;
        let config = format!(
            "{}{}[identity]\nissuer = \"{ISSUER}\"\n\
             [proxy.github]\ntenants = [\"*\"]\norigin = \"api.test:{port}\"\nmethods = [\"GET\", \"POST\", \"DELETE\"]\n\
             secret = \"github\"\ninject = {{ type = \"bearer\" }}\n{}\n",
            outside.config,
            secrets_config(&key),
            more.replace("PORT", &port.to_string()),
        );
        let tenant = "egress = [\"all\", \"narrow\"]".to_owned();
        let classes = format!(
            "[egress.all]\nallow = [\"*:{port}\"]\n[egress.narrow]\nallow = [{{ origin = \"api.test:{port}\", paths = [\"/v1\"] }}]\n"
        );
        let server = Atoll::start(Options { config: config + &classes, tenant, ..Options::default() }).await;
        Self { server, web, heard, key, _outside: outside }
    }

    /// The same with the canary in its place.
    async fn with_canary() -> Self {
        let world = Self::new("").await;
        assert_eq!(world.put(TOKEN, "github", CANARY).await.status, 200);
        world
    }

    /// Sends anything to the gateway.
    async fn send(
        &self,
        token: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Seen {
        let mut request = Request::new(method, path).header("authorization", &format!("Bearer {token}"));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        client::send(self.server.address(), "localhost", &request.body(body)).await.expect("an answer")
    }

    async fn put(&self, token: &str, name: &str, value: &str) -> Seen {
        let kind = [("content-type", "application/octet-stream")];
        self.send(token, "PUT", &format!("/v1/secrets/{name}"), &kind, value).await
    }

    /// Defines a proxy of the tenant's own.
    async fn define(&self, token: &str, name: &str, settings: Value) -> Seen {
        self.server.control_as(token, "PUT", &format!("/v1/proxies/{name}"), Some(settings)).await
    }

    fn url(&self, path: &str) -> String {
        format!("https://api.test:{}{path}", self.web.port)
    }

    fn origin(&self) -> String {
        format!("api.test:{}", self.web.port)
    }

    /// An identity for a proxy, had with an API token.
    async fn identity(&self, token: &str, proxy: &str, more: Value) -> String {
        let mut body = json!({ "audience": format!("{ISSUER}/v1/proxy/{proxy}") });
        for (key, value) in more.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        let answer = self.server.control_as(token, "POST", "/v1/tokens/identity", Some(body)).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()["token"].as_str().expect("a token").to_owned()
    }

    /// The last request that the upstream heard.
    fn last(&self) -> http::request::Parts {
        self.heard.lock().expect("no test panicked").last().expect("a request").0.clone()
    }

    fn last_header(&self, name: &str) -> Vec<String> {
        let last = self.last();
        last.headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default().to_owned()).collect()
    }

    /// Runs code with bindings; its answer.
    async fn execute(&self, token: &str, code: &str, input: Value, bindings: Value) -> Value {
        let body = json!({ "code": code, "input": input, "bindings": bindings });
        self.server.control_as(token, "POST", "/v1/execute", Some(body)).await.json()
    }
}
