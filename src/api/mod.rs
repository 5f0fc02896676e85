//! The control API under `/v1`, and the gateway's own health.
//!
//! One table says what exists; the served OpenAPI document is tested against it.

mod audit;
mod auth;
mod deed;
mod events;
mod execute;
mod hosts;
mod identity;
mod input;
mod kv;
mod logs;
mod proxies;
pub(crate) mod proxy;
pub(crate) mod query;
pub(crate) mod sandboxes;
mod secrets;
mod tokens;
mod workers;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use serde::Serialize;

use crate::config::{Name, Scope};
use crate::deploy::now_ms;
use crate::hosts::Sandbox;
use crate::problem::Problem;
use crate::server::body::ReplyBody;
use crate::server::{Gateway, Phase};
use auth::Caller;
use deed::Deed;
use sandboxes::{Op, Target};

/// The OpenAPI document.
const OPENAPI: &str = include_str!("openapi.json");

/// What can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Health,
    Ready,
    Metrics,
    OpenApi,
    Execute,
    ListWorkers,
    GetWorker,
    PutWorker,
    DeleteWorker,
    Versions,
    Rollback,
    Scheduled,
    Logs,
    Sandbox(Op),
    ListSecrets,
    GetSecret,
    PutSecret,
    DeleteSecret,
    ListProxies,
    GetProxy,
    PutProxy,
    DeleteProxy,
    Proxy,
    ListTokens,
    CreateToken,
    DeleteToken,
    Identity,
    Delegation,
    Revoke,
    Keys,
    Issuer,
    ListKv,
    DeleteKv,
    KvKeys,
    GetKv,
    PutKv,
    RemoveKv,
    Audit,
    AuditCheckpoint,
    ListHosts,
    RestartHosts,
}

impl Action {
    /// The name of an action that changes something, as the audit log says it.
    fn changes(self) -> Option<&'static str> {
        match self {
            Self::PutWorker => Some("deploy"),
            Self::DeleteWorker => Some("delete"),
            Self::Rollback => Some("rollback"),
            Self::DeleteKv => Some("delete_kv"),
            Self::PutKv => Some("put_kv_value"),
            Self::RemoveKv => Some("delete_kv_value"),
            Self::PutSecret => Some("put_secret"),
            Self::DeleteSecret => Some("delete_secret"),
            Self::PutProxy => Some("put_proxy"),
            Self::DeleteProxy => Some("delete_proxy"),
            Self::CreateToken => Some("create_token"),
            Self::DeleteToken => Some("revoke_token"),
            Self::Identity => Some("mint_identity"),
            Self::Delegation => Some("mint_delegation"),
            Self::Revoke => Some("revoke"),
            Self::RestartHosts => Some("restart_hosts"),
            _ => None,
        }
    }

    /// Whether the name in its path is that of a worker.
    fn is_about_a_worker(self) -> bool {
        matches!(self, Self::PutWorker | Self::DeleteWorker | Self::Rollback)
    }

    /// Whether it may be done many times a second.
    fn is_frequent(self) -> bool {
        matches!(self, Self::Identity | Self::Delegation | Self::PutKv | Self::RemoveKv)
    }
}

/// Method, path pattern, action, needed scope.
type Entry = (&'static str, &'static str, Action, Option<Scope>);

/// Everything that exists. Methods of one path stand together.
const TABLE: &[Entry] = &[
    ("GET", "/healthz", Action::Health, None),
    ("GET", "/readyz", Action::Ready, None),
    ("GET", "/metrics", Action::Metrics, None),
    ("GET", "/v1/openapi.json", Action::OpenApi, None),
    ("POST", "/v1/execute", Action::Execute, Some(Scope::Execute)),
    ("GET", "/v1/workers", Action::ListWorkers, Some(Scope::Read)),
    ("GET", "/v1/workers/{name}", Action::GetWorker, Some(Scope::Read)),
    ("PUT", "/v1/workers/{name}", Action::PutWorker, Some(Scope::Deploy)),
    ("DELETE", "/v1/workers/{name}", Action::DeleteWorker, Some(Scope::Deploy)),
    ("GET", "/v1/workers/{name}/versions", Action::Versions, Some(Scope::Read)),
    ("POST", "/v1/workers/{name}/rollback", Action::Rollback, Some(Scope::Deploy)),
    ("POST", "/v1/workers/{name}/scheduled", Action::Scheduled, Some(Scope::Deploy)),
    ("GET", "/v1/workers/{name}/logs", Action::Logs, Some(Scope::Read)),
    ("GET", "/v1/sandboxes", Action::Sandbox(Op::List), SANDBOX),
    ("GET", "/v1/sandboxes/{user}", Action::Sandbox(Op::Look), SANDBOX),
    ("PUT", "/v1/sandboxes/{user}", Action::Sandbox(Op::Make), SANDBOX),
    ("DELETE", "/v1/sandboxes/{user}", Action::Sandbox(Op::End), SANDBOX),
    ("POST", "/v1/sandboxes/{user}/exec", Action::Sandbox(Op::Exec), SANDBOX),
    ("GET", "/v1/sandboxes/{user}/processes", Action::Sandbox(Op::Processes), SANDBOX),
    ("POST", "/v1/sandboxes/{user}/processes", Action::Sandbox(Op::StartProcess), SANDBOX),
    ("GET", "/v1/sandboxes/{user}/processes/{process}", Action::Sandbox(Op::Process), SANDBOX),
    ("DELETE", "/v1/sandboxes/{user}/processes/{process}", Action::Sandbox(Op::KillProcess), SANDBOX),
    ("GET", "/v1/sandboxes/{user}/processes/{process}/logs", Action::Sandbox(Op::Logs), SANDBOX),
    ("POST", "/v1/sandboxes/{user}/processes/{process}/wait", Action::Sandbox(Op::Wait), SANDBOX),
    ("GET", "/v1/sandboxes/{user}/files", Action::Sandbox(Op::ReadFile), SANDBOX),
    ("PUT", "/v1/sandboxes/{user}/files", Action::Sandbox(Op::WriteFile), SANDBOX),
    ("DELETE", "/v1/sandboxes/{user}/files", Action::Sandbox(Op::DeleteFile), SANDBOX),
    ("GET", "/v1/sandboxes/{user}/files/list", Action::Sandbox(Op::ListFiles), SANDBOX),
    ("GET", "/v1/sandboxes/{user}/files/stat", Action::Sandbox(Op::StatFile), SANDBOX),
    ("POST", "/v1/sandboxes/{user}/files/mkdir", Action::Sandbox(Op::MakeDirectory), SANDBOX),
    ("POST", "/v1/sandboxes/{user}/files/rename", Action::Sandbox(Op::RenameFile), SANDBOX),
    ("GET", "/v1/sandboxes/{user}/files/watch", Action::Sandbox(Op::WatchFiles), SANDBOX),
    ("POST", "/v1/sandboxes/{user}/git/checkout", Action::Sandbox(Op::GitCheckout), SANDBOX),
    ("GET", "/v1/sandboxes/{user}/sessions", Action::Sandbox(Op::Sessions), SANDBOX),
    ("POST", "/v1/sandboxes/{user}/sessions", Action::Sandbox(Op::MakeSession), SANDBOX),
    ("DELETE", "/v1/sandboxes/{user}/sessions/{session}", Action::Sandbox(Op::EndSession), SANDBOX),
    ("POST", "/v1/sandboxes/{user}/sessions/{session}/exec", Action::Sandbox(Op::SessionExec), SANDBOX),
    ("PUT", "/v1/sandboxes/{user}/env", Action::Sandbox(Op::SetEnv), SANDBOX),
    ("GET", "/v1/sandboxes/{user}/ports", Action::Sandbox(Op::Ports), SANDBOX),
    ("PUT", "/v1/sandboxes/{user}/ports/{port}", Action::Sandbox(Op::Expose), SANDBOX),
    ("DELETE", "/v1/sandboxes/{user}/ports/{port}", Action::Sandbox(Op::Hide), SANDBOX),
    ("POST", "/v1/sandboxes/{user}/ports/{port}/wait", Action::Sandbox(Op::WaitPort), SANDBOX),
    ("GET", "/v1/sandboxes/{user}/snapshot", Action::Sandbox(Op::Snapshot), SANDBOX),
    ("POST", "/v1/sandboxes/{user}/restore", Action::Sandbox(Op::Restore), SANDBOX),
    ("GET", "/v1/sandboxes/{user}/usage", Action::Sandbox(Op::Usage), SANDBOX),
    ("GET", "/v1/secrets", Action::ListSecrets, Some(Scope::Secrets)),
    ("GET", "/v1/secrets/{name}", Action::GetSecret, Some(Scope::Secrets)),
    ("PUT", "/v1/secrets/{name}", Action::PutSecret, Some(Scope::Secrets)),
    ("DELETE", "/v1/secrets/{name}", Action::DeleteSecret, Some(Scope::Secrets)),
    ("GET", "/v1/proxies", Action::ListProxies, Some(Scope::Secrets)),
    ("GET", "/v1/proxies/{name}", Action::GetProxy, Some(Scope::Secrets)),
    ("PUT", "/v1/proxies/{name}", Action::PutProxy, Some(Scope::Secrets)),
    ("DELETE", "/v1/proxies/{name}", Action::DeleteProxy, Some(Scope::Secrets)),
    // Any method of the proxy's rule; its tokens are not API tokens, so `answer` takes these paths first.
    ("GET", PROXY_PATTERN, Action::Proxy, Some(Scope::Proxy)),
    ("POST", PROXY_PATTERN, Action::Proxy, Some(Scope::Proxy)),
    ("PUT", PROXY_PATTERN, Action::Proxy, Some(Scope::Proxy)),
    ("PATCH", PROXY_PATTERN, Action::Proxy, Some(Scope::Proxy)),
    ("DELETE", PROXY_PATTERN, Action::Proxy, Some(Scope::Proxy)),
    ("GET", "/v1/tokens", Action::ListTokens, Some(Scope::Tokens)),
    ("POST", "/v1/tokens", Action::CreateToken, Some(Scope::Tokens)),
    ("POST", "/v1/tokens/identity", Action::Identity, Some(Scope::Proxy)),
    ("POST", "/v1/tokens/delegation", Action::Delegation, Some(Scope::Proxy)),
    ("POST", "/v1/tokens/revoke", Action::Revoke, Some(Scope::Tokens)),
    ("DELETE", "/v1/tokens/{name}", Action::DeleteToken, Some(Scope::Tokens)),
    ("GET", "/.well-known/jwks.json", Action::Keys, None),
    ("GET", "/.well-known/openid-configuration", Action::Issuer, None),
    ("GET", "/v1/kv", Action::ListKv, Some(Scope::Read)),
    ("DELETE", "/v1/kv/{name}", Action::DeleteKv, Some(Scope::Deploy)),
    // What a worker's data is, only those may see who may deploy a worker that reads it.
    ("GET", "/v1/kv/{name}/keys", Action::KvKeys, Some(Scope::Deploy)),
    ("GET", "/v1/kv/{name}/values/{key}", Action::GetKv, Some(Scope::Deploy)),
    ("PUT", "/v1/kv/{name}/values/{key}", Action::PutKv, Some(Scope::Deploy)),
    ("DELETE", "/v1/kv/{name}/values/{key}", Action::RemoveKv, Some(Scope::Deploy)),
    ("GET", "/v1/audit", Action::Audit, Some(Scope::Audit)),
    ("GET", "/v1/audit/checkpoint", Action::AuditCheckpoint, Some(Scope::Audit)),
    ("GET", "/v1/hosts", Action::ListHosts, Some(Scope::Hosts)),
    ("POST", "/v1/hosts/restart", Action::RestartHosts, Some(Scope::Hosts)),
];

/// Its right reaches files and processes, which no other scope does.
const SANDBOX: Option<Scope> = Some(Scope::Sandbox);
/// Paths that lead to upstreams.
const PROXY_PATTERN: &str = "/v1/proxy/{name}/{path}";

/// The methods of a path, for `Allow`.
fn allow(pattern: &str) -> String {
    let mut methods: Vec<&str> = Vec::new();
    for (method, ..) in TABLE.iter().filter(|entry| entry.1 == pattern) {
        methods.push(method);
        // HEAD is GET without its body, which the HTTP library leaves out.
        if *method == "GET" {
            methods.push("HEAD");
        }
    }
    methods.join(", ")
}

/// What stands in the path where the pattern has names in braces, in order and as it was sent, if the path matches. A name is
/// one segment, and never empty.
fn matches<'a>(pattern: &str, path: &'a str) -> Option<Vec<&'a str>> {
    let mut names = Vec::new();
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(names),
            (Some(wanted), Some(given)) if wanted.starts_with('{') && !given.is_empty() => names.push(given),
            (Some(wanted), Some(given)) if wanted == given => {}
            _ => return None,
        }
    }
}

type Found<'a> = (Action, Option<Scope>, Vec<&'a str>);

fn find<'a>(method: &str, path: &'a str) -> Result<Found<'a>, Problem> {
    let method = if method == "HEAD" { "GET" } else { method };
    let mut other = None;
    for &(candidate, pattern, action, scope) in TABLE {
        let Some(names) = matches(pattern, path) else { continue };
        if candidate == method {
            return Ok((action, scope, names));
        }
        other = Some(pattern);
    }
    Err(match other {
        Some(pattern) => Problem::method_not_allowed(&allow(pattern)),
        None => Problem::not_found("There is nothing here."),
    })
}

/// What a worker asks of its sandboxes: the same paths, and no others.
fn find_sandbox(method: &str, path: &str) -> Result<Target, Problem> {
    match find(method, path)? {
        (Action::Sandbox(op), _, names) => Target::new(op, &names),
        _ => Err(Problem::not_found("There is nothing here.")),
    }
}

/// Answers a request to the gateway itself.
pub(crate) async fn answer(
    gateway: &Arc<Gateway>,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Problem> {
    let path = request.uri().path().to_owned();
    if let Some(rest) = path.strip_prefix("/v1/proxy/") {
        return proxy::answer(gateway, rest.split('/').next().unwrap_or_default(), request).await;
    }
    let (action, scope, names) = find(request.method().as_str(), &path)?;
    let Some(scope) = scope else { return open(gateway, action).await };
    let (name, headers) = (names.first().copied(), request.headers());
    let (deed, mut answer) = if matches!(action, Action::Identity | Action::Delegation) {
        let asker = identity::asker(gateway, &request)?;
        let deed = Deed::begin(gateway, action, (asker.tenant().into(), asker.sub()), None, headers)?;
        (deed, identity::post(gateway, &asker, action == Action::Delegation, request).await)
    } else {
        let made = |digest: &[u8; 32]| gateway.access.tokens.find(digest, now_ms());
        let caller = auth::authorize(&gateway.config, made, headers, scope)?;
        let who = (caller.tenant.name.shared(), caller.actor.clone());
        let deed = Deed::begin(gateway, action, who, name, headers)?;
        (deed, act(gateway, &caller, action, &names, request).await)
    };
    if let Some(deed) = deed {
        deed.end(gateway, &mut answer);
    }
    answer
}

/// Does what an API token allows.
async fn act(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    action: Action,
    names: &[&str],
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Problem> {
    let tenant = &caller.tenant;
    if let Action::Sandbox(op) = action {
        return sandboxes::http(gateway, caller, Target::new(op, names)?, request).await;
    }
    let name = names.first().copied();
    match action {
        Action::Audit => return audit::get(gateway, tenant, request.uri().query()).await,
        Action::ListHosts => return Ok(hosts::list(gateway)),
        Action::RestartHosts => return hosts::restart(gateway),
        Action::AuditCheckpoint => return audit::checkpoint(gateway),
        Action::ListKv => return kv::list(gateway, tenant).await,
        Action::DeleteKv => return kv::delete(gateway, tenant, name.unwrap_or_default()).await,
        Action::KvKeys => {
            return kv::keys(gateway, tenant, name.unwrap_or_default(), request.uri().query()).await;
        }
        Action::GetKv | Action::PutKv | Action::RemoveKv => {
            let (Some(name), Some(&key)) = (name, names.get(1)) else { return Err(bad_name(action)) };
            return kv::value(gateway, tenant, (name, key), request).await;
        }
        Action::Execute => return execute::post(gateway, tenant, request).await,
        Action::ListWorkers => return workers::list(gateway, tenant).await,
        Action::ListSecrets => return Ok(secrets::list(gateway, caller)),
        Action::ListProxies => return Ok(proxies::list(gateway, caller)),
        Action::ListTokens => return Ok(tokens::list(gateway, caller)),
        Action::CreateToken => return tokens::post(gateway, caller, request).await,
        Action::Revoke => return identity::revoke(gateway, caller, request).await,
        _ => {}
    }
    let name = name.and_then(Name::parse).ok_or_else(|| bad_name(action))?;
    match action {
        Action::PutWorker => workers::put(gateway, tenant, name, request).await,
        Action::DeleteWorker => workers::delete(gateway, tenant, &name).await,
        Action::Versions => workers::versions(gateway, tenant, &name).await,
        Action::Rollback => workers::rollback(gateway, tenant, name, request).await,
        Action::Scheduled => workers::scheduled(gateway, tenant, &name, request).await,
        Action::Logs => logs::get(gateway, tenant, &name, request.headers()),
        Action::GetSecret => secrets::get(gateway, caller, &name),
        Action::PutSecret => secrets::put(gateway, caller, &name, request).await,
        Action::DeleteSecret => secrets::delete(gateway, caller, &name).await,
        Action::GetProxy => proxies::get(gateway, caller, &name),
        Action::PutProxy => proxies::put(gateway, caller, &name, request).await,
        Action::DeleteProxy => proxies::delete(gateway, caller, &name).await,
        Action::DeleteToken => tokens::delete(gateway, caller, &name).await,
        _ => workers::get(gateway, tenant, &name).await,
    }
}

/// What is named wrongly.
fn bad_name(action: Action) -> Problem {
    let (code, what) = match action {
        Action::GetSecret | Action::PutSecret | Action::DeleteSecret => ("secret_name", "A secret's name"),
        Action::GetProxy | Action::PutProxy | Action::DeleteProxy => ("proxy_name", "A proxy's name"),
        Action::DeleteToken => ("token_id", "A token's id"),
        _ => ("worker_name", "A worker's name"),
    };
    Problem::unprocessable(code, format!("{what} is a lower-case DNS label of at most 63 bytes."))
}

/// What needs no token.
async fn open(gateway: &Gateway, action: Action) -> Result<Response<ReplyBody>, Problem> {
    let unready = |detail| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", detail).retry_after(1);
    match action {
        Action::Metrics => Ok(text("text/plain; version=0.0.4; charset=utf-8", gateway.observer.metrics())),
        Action::OpenApi => Ok(text("application/json", OPENAPI)),
        Action::Keys => Ok(published(&gateway.access.issuer.jwks())),
        Action::Issuer => Ok(published(&gateway.access.issuer.document())),
        Action::Ready if *gateway.draining.borrow() != Phase::Serving => {
            Err(unready("The server is draining."))
        }
        Action::Ready if !gateway.isolates.ready() => Err(unready("No isolate host is up.")),
        Action::Ready if !gateway.deployer.store().ready().await => {
            Err(unready("The store does not answer."))
        }
        Action::Ready => Ok(json(StatusCode::OK, &Readiness::of(gateway))),
        _ => Ok(text("text/plain; charset=utf-8", "ok\n")),
    }
}

/// What `/readyz` says when work can be taken.
#[derive(Serialize)]
struct Readiness {
    status: &'static str,
    sandbox: Confinement,
    #[serde(skip_serializing_if = "Option::is_none")]
    sandboxes: Option<Makers>,
}

/// Who makes container sandboxes, and the walls that could not be built so far: meanwhile none is made.
#[derive(Serialize)]
struct Makers {
    backend: &'static str,
    missing: Vec<&'static str>,
}

/// How far the processes that run guests are confined. Why something is missing is in the log: this needs no token.
#[derive(Serialize)]
struct Confinement {
    complete: bool,
    missing: Vec<String>,
}

impl Readiness {
    fn of(gateway: &Gateway) -> Self {
        let sandbox = gateway.isolates.sandbox();
        let complete = sandbox.as_ref().is_some_and(Sandbox::is_complete);
        let missing = sandbox.unwrap_or_default().missing.into_iter().map(|missing| missing.layer).collect();
        let sandboxes = gateway.sandboxes.as_ref().map(|sandboxes| {
            let (backend, missing) = sandboxes.backend();
            Makers { backend, missing }
        });
        Self { status: "ok", sandbox: Confinement { complete, missing }, sandboxes }
    }
}

fn text(media_type: &'static str, body: impl Into<Bytes>) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::full(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// JSON that anyone may keep for a while: less than a key is published before it signs.
fn published(value: &impl Serialize) -> Response<ReplyBody> {
    let mut response = json(StatusCode::OK, value);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=600"));
    response
}

/// An answer without a body.
fn no_content() -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// A JSON answer.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response<ReplyBody> {
    match serde_json::to_vec(value) {
        Ok(body) => {
            let mut response = text("application/json", body);
            *response.status_mut() = status;
            response
        }
        Err(error) => Problem::internal(&error).response(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn the_document_describes_exactly_what_exists() {
        let document: Value = serde_json::from_str(OPENAPI).unwrap();
        let mut described = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let open = operation["security"] == serde_json::json!([]);
                described.insert((method.to_uppercase(), path.clone(), open));
                assert!(operation["operationId"].is_string(), "{method} {path}");
                assert!(operation["responses"].as_object().is_some_and(|r| !r.is_empty()), "{method} {path}");
            }
        }
        let exists = TABLE
            .iter()
            .map(|(method, path, _, scope)| ((*method).to_owned(), (*path).to_owned(), scope.is_none()))
            .collect();
        assert_eq!(described, exists);
    }

    #[test]
    fn every_reference_of_the_document_leads_somewhere() {
        fn walk(value: &Value, references: &mut Vec<String>) {
            match value {
                Value::Object(map) => {
                    if let Some(Value::String(reference)) = map.get("$ref") {
                        references.push(reference.clone());
                    }
                    map.values().for_each(|value| walk(value, references));
                }
                Value::Array(values) => values.iter().for_each(|value| walk(value, references)),
                _ => {}
            }
        }
        let document: Value = serde_json::from_str(OPENAPI).unwrap();
        let mut references = Vec::new();
        walk(&document, &mut references);
        assert!(!references.is_empty());
        for reference in references {
            assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
    }

    #[test]
    fn allow_names_the_methods_of_the_table() {
        assert_eq!(allow("/v1/workers/{name}"), "GET, HEAD, PUT, DELETE");
        assert_eq!(allow("/v1/execute"), "POST");
        let problem = find("PATCH", "/v1/sandboxes/a/files").unwrap_err().response();
        assert_eq!(problem.headers()["allow"], "GET, HEAD, PUT, DELETE");
    }

    #[test]
    fn paths_lead_to_actions() {
        let sandbox = Action::Sandbox;
        for (method, path, expected) in [
            ("GET", "/healthz", Ok((Action::Health, vec![]))),
            ("HEAD", "/healthz", Ok((Action::Health, vec![]))),
            ("PUT", "/v1/workers/a", Ok((Action::PutWorker, vec!["a"]))),
            ("GET", "/v1/workers/a/logs", Ok((Action::Logs, vec!["a"]))),
            ("POST", "/v1/sandboxes/a/exec", Ok((sandbox(Op::Exec), vec!["a"]))),
            ("GET", "/v1/sandboxes/a%2Fb/files/list", Ok((sandbox(Op::ListFiles), vec!["a%2Fb"]))),
            ("DELETE", "/v1/sandboxes/a/processes/p", Ok((sandbox(Op::KillProcess), vec!["a", "p"]))),
            (
                "POST",
                "/v1/sandboxes/../sessions/{session}/exec",
                Ok((sandbox(Op::SessionExec), vec!["..", "{session}"])),
            ),
            ("POST", "/v1/workers", Err(405)),
            ("PATCH", "/v1/workers/a", Err(405)),
            ("GET", "/v1/sandboxes/a/exec", Err(405)),
            ("GET", "/v1/workers/a/b", Err(404)),
            ("GET", "/v1/workers//logs", Err(404)),
            ("GET", "/v1/workers/", Err(404)),
            ("GET", "/v1/sandboxes/a/", Err(404)),
            ("GET", "/v1/sandboxes/a/files/x", Err(404)),
            ("GET", "//v1/sandboxes", Err(404)),
            ("GET", "/v2", Err(404)),
        ] {
            let found = find(method, path).map(|(action, _, names)| (action, names));
            assert_eq!(found.map_err(|problem| problem.status().as_u16()), expected, "{method} {path}");
        }
        assert!(find_sandbox("GET", "/v1/sandboxes").is_ok());
        assert_eq!(find_sandbox("GET", "/v1/workers").unwrap_err().status(), StatusCode::NOT_FOUND);
    }
}
