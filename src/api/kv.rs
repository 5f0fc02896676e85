//! `/v1/kv`: a tenant's key-value namespaces, as an operator of its data sees them.
//!
//! Keys and values are reached by the requests that a worker's own object makes (`bindings/kv.rs`), with the names of
//! [Cloudflare's API](https://developers.cloudflare.com/api/resources/kv/).

use atoll_bindings::body::RequestBody;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde_json::{Value, json as object};

use super::query::Query;
use super::workers::deploy_problem;
use super::{json, no_content};
use crate::bindings::kv::{METADATA, Refused, answer};
use crate::config::Tenant;
use crate::kv::{KvError, Namespace, VALUE_BYTES_MAX, is_namespace_name};
use crate::problem::Problem;
use crate::server::Gateway;
use crate::server::body::{BodyFault, ClientBody, ReplyBody};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NamespacesOutput {
    namespaces: Vec<NamespaceOutput>,
    bytes_max: u64,
    keys_max: u64,
}

#[derive(Serialize)]
struct NamespaceOutput {
    name: String,
    bytes: u64,
    keys: u64,
}

fn problem(error: KvError) -> Problem {
    match error {
        KvError::NoNamespace => Problem::not_found("There is no such namespace."),
        other => deploy_problem(&other.into()),
    }
}

pub(super) async fn list(gateway: &Gateway, tenant: &Tenant) -> Result<Response<ReplyBody>, Problem> {
    let found = gateway.deployer.kv().namespaces(tenant.name.as_str()).await.map_err(problem)?;
    let namespaces = found
        .into_iter()
        .map(|info| NamespaceOutput { name: info.name, bytes: info.bytes, keys: info.keys })
        .collect();
    let (bytes_max, keys_max) = (tenant.kv.bytes_max, tenant.kv.keys_max);
    Ok(json(StatusCode::OK, &NamespacesOutput { namespaces, bytes_max, keys_max }))
}

pub(super) async fn delete(
    gateway: &Gateway,
    tenant: &Tenant,
    name: &str,
) -> Result<Response<ReplyBody>, Problem> {
    namespace(gateway, tenant, name)?.remove().await.map_err(problem)?;
    Ok(no_content())
}

fn namespace(gateway: &Gateway, tenant: &Tenant, name: &str) -> Result<Namespace, Problem> {
    if !is_namespace_name(name) {
        return Err(problem(KvError::NoNamespace));
    }
    Ok(gateway.deployer.kv().namespace(tenant.name.as_str(), name, tenant.kv))
}

/// `GET /v1/kv/{name}/keys`.
pub(super) async fn keys(
    gateway: &Gateway,
    tenant: &Tenant,
    name: &str,
    query: Option<&str>,
) -> Result<Response<ReplyBody>, Problem> {
    let namespace = namespace(gateway, tenant, name)?;
    let query = Query::parse(query, &["prefix", "limit", "cursor"])?;
    // What the service calls them.
    let names = [("prefix", "prefix"), ("limit", "key_count_limit"), ("cursor", "cursor")];
    let request = Request::get(target("", &query, &names)).body(RequestBody::Empty);
    let response = ask(&namespace, request).await?;
    let RequestBody::Full(body) = response.into_body() else {
        return Err(Problem::internal(&"a list without a body"));
    };
    let mut page: Value = serde_json::from_slice(&body).map_err(|error| Problem::internal(&error))?;
    for key in page["keys"].as_array_mut().into_iter().flatten() {
        // Metadata travels as text there, and is JSON here.
        if let Some(metadata) = key["metadata"].as_str().and_then(|text| serde_json::from_str(text).ok()) {
            key["metadata"] = metadata;
        }
    }
    let mut output = object!({ "keys": page["keys"].take(), "complete": page["list_complete"].take() });
    if let Some(cursor) = page.get_mut("cursor") {
        output["cursor"] = cursor.take();
    }
    Ok(json(StatusCode::OK, &output))
}

/// `GET`, `PUT` and `DELETE` of `/v1/kv/{name}/values/{key}`; the key as it stands in the path.
pub(super) async fn value(
    gateway: &Gateway,
    tenant: &Tenant,
    (name, key): (&str, &str),
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Problem> {
    let namespace = namespace(gateway, tenant, name)?;
    match *request.method() {
        Method::PUT => put(gateway, &namespace, key, request).await,
        Method::DELETE => {
            ask(&namespace, Request::delete(format!("/{key}")).body(RequestBody::Empty)).await?;
            Ok(no_content())
        }
        _ => get(&namespace, key).await,
    }
}

async fn get(namespace: &Namespace, key: &str) -> Result<Response<ReplyBody>, Problem> {
    let request = Request::get(format!("/{key}")).body(RequestBody::Empty);
    let mut response = ask(namespace, request).await?.map(|body| match body {
        RequestBody::Empty => ReplyBody::empty(),
        RequestBody::Full(bytes) => ReplyBody::full(bytes),
        stream => ReplyBody::stream(stream),
    });
    let headers = response.headers_mut();
    // Whoever wrote it, it is no page of this origin.
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

async fn put(
    gateway: &Gateway,
    namespace: &Namespace,
    key: &str,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Problem> {
    let query = Query::parse(request.uri().query(), &["expiration", "expiration_ttl", "metadata"])?;
    let names = [("expiration", "expiration"), ("expiration_ttl", "expiration_ttl")];
    let mut put = Request::put(target(key, &query, &names));
    if let Some(metadata) = query.json::<Value>("metadata")? {
        let value = HeaderValue::try_from(metadata.to_string());
        put = put.header(METADATA, value.map_err(|error| Problem::internal(&error))?);
    }
    let timeout = gateway.config.http.body_timeout;
    let body = ClientBody::new(request.into_body(), VALUE_BYTES_MAX, timeout);
    let body = body.map_err(|fault| fault.problem())?;
    let fault = body.fault();
    match ask(namespace, put.body(RequestBody::stream(body))).await {
        Ok(_) => Ok(no_content()),
        Err(problem) => Err(fault.get().map_or(problem, BodyFault::problem)),
    }
}

/// A path of the service: a key, and parameters under the names that it knows.
fn target(key: &str, query: &Query, names: &[(&str, &str)]) -> String {
    let pair = |(own, theirs): &(&str, &str)| {
        let value = query.get(own)?;
        Some(format!("{theirs}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)))
    };
    let pairs: Vec<String> = names.iter().filter_map(pair).collect();
    format!("/{key}?{}", pairs.join("&"))
}

async fn ask(
    namespace: &Namespace,
    request: http::Result<Request<RequestBody>>,
) -> Result<Response<RequestBody>, Problem> {
    let request =
        request.map_err(|_| Problem::bad_request("The key is not percent-encoded as in a path."))?;
    answer(namespace, request).await.map_err(|refused| match refused {
        Refused::Broken => Problem::bad_request("The value broke off."),
        Refused::Status(StatusCode::NOT_FOUND, _) => Problem::new(StatusCode::NOT_FOUND, "no_key", NO_KEY),
        Refused::Status(status, reason) if status.is_server_error() && status != FULL => {
            Problem::new(status, "kv_unavailable", reason)
        }
        Refused::Status(FULL, reason) => Problem::unprocessable("kv_quota", reason),
        Refused::Status(status, reason) => Problem::new(status, "kv_request", reason),
    })
}

/// What the service says when a quota is used up.
const FULL: StatusCode = StatusCode::INSUFFICIENT_STORAGE;
const NO_KEY: &str = "There is no such key in this namespace.";
