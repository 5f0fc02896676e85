//! A namespace of the key-value store: `env.KV.get("key")`, the API of Workers KV.
//!
//! ```text
//!  env.KV.put(key, stream) ──js/kv.js──▶ PUT https://kv/KEY?expiration_ttl=60   metadata in a header, the value as the body
//!        get, getWithMetadata            GET https://kv/KEY                     404, or the value as the body
//!        get([...])                      POST https://kv/bulk/get               see `bulk`
//!        delete                          DELETE https://kv/KEY
//!        list                            GET https://kv/?prefix=…&cursor=…      JSON
//! ```
//!
//! The same requests that Workers' own object makes of its service, so that values of every size flow as bodies with
//! backpressure. What the store refuses is a status with a reason phrase: the script makes the error of it that Workers give,
//! `KV PUT failed: 413 Value length of …`. Whose namespace it is lies in the object and is never taken from a request.

mod bulk;
mod query;

use std::pin::Pin;
use std::sync::Arc;

use atoll_bindings::body::RequestBody;
use atoll_bindings::channel::{CallContext, CallFuture, Channel, ReplyMeta};
use atoll_bindings::crossing::{Denial, Telling, Verdict, Witness};
use atoll_bindings::link::Grant;
use atoll_bindings::seam::CallError;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use http::header::{HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Bound, Place, Under};
use crate::deploy::{DeployError, invalid};
use crate::kv::{
    BadKey, Key, KvError, LIST_KEYS_MAX, METADATA_BYTES_MAX, NAMESPACE_NAME_BYTES_MAX, Namespace, Page,
    PutOptions, VALUE_BYTES_MAX, is_namespace_name,
};
use query::Query;

/// Where metadata travels, as JSON text.
pub(crate) const METADATA: HeaderName = HeaderName::from_static("cf-kv-metadata");
/// Where the time of expiry travels, in seconds since the Unix epoch.
const EXPIRATION: HeaderName = HeaderName::from_static("cf-expiration");
/// Least time from now to an expiry, in seconds.
const TTL_S_MIN: u64 = 60;
/// Least time for which a value may be cached, in seconds. Nothing is cached; the wish is checked all the same.
const CACHE_TTL_S_MIN: u64 = 30;

/// Its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KvNamespace {
    /// The namespace, among those of the tenant.
    namespace: String,
}

impl KvNamespace {
    pub(super) fn check(&self) -> Result<(), DeployError> {
        if is_namespace_name(&self.namespace) {
            return Ok(());
        }
        let reason = format!(
            "{:?} names no namespace: 1 to {NAMESPACE_NAME_BYTES_MAX} letters, digits, `_`, `-` and `.`",
            self.namespace
        );
        Err(invalid("bindings", reason))
    }

    pub(super) fn bind(&self, place: &Place<'_>) -> Arc<dyn Bound> {
        let (namespace, witness) = (self.of(place), Arc::clone(place.witness));
        let capability = format!("kv:{}", self.namespace).into();
        Arc::new(Store { namespace, witness, capability })
    }

    /// Makes the namespace, if the tenant has none of this name.
    pub(super) async fn prepare(&self, place: &Place<'_>) -> Result<(), DeployError> {
        Ok(self.of(place).create().await?)
    }

    fn of(&self, place: &Place<'_>) -> Namespace {
        place.kv.namespace(place.tenant.name.as_str(), &self.namespace, place.tenant.kv)
    }
}

/// The capability.
#[derive(Clone)]
struct Store {
    namespace: Namespace,
    witness: Arc<dyn Witness>,
    capability: Arc<str>,
}

impl Bound for Store {
    fn grant(&self, _under: Under<'_>) -> Grant {
        Grant::Kv(Arc::new(self.clone()))
    }
}

impl Channel for Store {
    fn fetch(&self, context: CallContext, request: Request<RequestBody>) -> CallFuture {
        let store = self.clone();
        Box::pin(async move {
            let witness = Arc::clone(&store.witness);
            let mut telling = Telling::new(witness, &context, &request, &store.capability, None);
            if !telling.ready() {
                telling.verdict(Verdict::Denied(Denial::Audit));
                return Err(CallError::Denied(format!("KV is not available. ({})", Denial::Audit.code())));
            }
            telling.leads_to("kv");
            let request = request.map(|body| telling.sending(body));
            let response = match answer(&store.namespace, request).await {
                Ok(response) => response,
                Err(Refused::Status(status, reason)) => refusal(status, reason),
                Err(Refused::Broken) => {
                    telling.verdict(Verdict::Failed);
                    return Err(CallError::Network("The value's stream failed.".to_owned()));
                }
            };
            Ok(telling.answered(response))
        })
    }

    fn name(&self) -> &str {
        &self.capability
    }
}

/// Why there is no ordinary answer.
#[derive(Debug)]
pub(crate) enum Refused {
    /// For the caller: a status and a reason phrase.
    Status(StatusCode, String),
    /// The body that is sent broke off.
    Broken,
}

impl From<KvError> for Refused {
    fn from(error: KvError) -> Self {
        let (status, reason) = match &error {
            KvError::Full(quota) => (StatusCode::INSUFFICIENT_STORAGE, quota.to_string()),
            KvError::ValueTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
            KvError::Restless => (StatusCode::CONFLICT, error.to_string()),
            KvError::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable".to_owned()),
            _ => {
                // The operator's to know; a guest learns nothing of files.
                tracing::error!(%error, "the key-value store failed");
                (StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error".to_owned())
            }
        };
        Self::Status(status, reason)
    }
}

impl From<BadKey> for Refused {
    fn from(bad: BadKey) -> Self {
        let status = match bad {
            BadKey::TooLong(_) => StatusCode::URI_TOO_LONG,
            BadKey::Empty | BadKey::Dot | BadKey::Dots => StatusCode::BAD_REQUEST,
        };
        Self::Status(status, bad.to_string())
    }
}

fn bad(reason: impl Into<String>) -> Refused {
    Refused::Status(StatusCode::BAD_REQUEST, reason.into())
}

fn refusal(status: StatusCode, reason: String) -> Response<RequestBody> {
    let mut response = Response::new(RequestBody::Empty);
    *response.status_mut() = status;
    response.extensions_mut().insert(ReplyMeta { status_text: reason, ..ReplyMeta::default() });
    response
}

/// Answers one request to a namespace. Also what the control API asks for its callers.
pub(crate) async fn answer(
    namespace: &Namespace,
    request: Request<RequestBody>,
) -> Result<Response<RequestBody>, Refused> {
    let path = request.uri().path().to_owned();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    match (request.method(), path.as_str()) {
        (&Method::GET, "/") => list(namespace, &query).await,
        (&Method::POST, "/bulk/get") => bulk::get(namespace, request.into_body()).await,
        (&Method::GET, path) => get(namespace, &key(path)?, &query).await,
        (&Method::PUT, path) => put(namespace, key(path)?, &query, request).await,
        (&Method::DELETE, path) => {
            namespace.delete(key(path)?).await?;
            Ok(Response::new(RequestBody::Empty))
        }
        _ => Err(Refused::Status(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed".to_owned())),
    }
}

async fn get(namespace: &Namespace, key: &Key, query: &Query) -> Result<Response<RequestBody>, Refused> {
    cache_ttl(query)?;
    let Some(entry) = namespace.get(key).await? else {
        return Err(Refused::Status(StatusCode::NOT_FOUND, "Not Found".to_owned()));
    };
    let mut response = Response::new(RequestBody::Empty);
    let headers = response.headers_mut();
    if let Some(metadata) = &entry.metadata {
        let value = HeaderValue::from_bytes(metadata.as_bytes());
        headers.insert(METADATA, value.map_err(|_| KvError::Damaged("metadata"))?);
    }
    if let Some(expires_s) = entry.expires_s {
        headers.insert(EXPIRATION, expires_s.into());
    }
    Ok(response.map(|_| entry.value.into()))
}

async fn put(
    namespace: &Namespace,
    key: Key,
    query: &Query,
    request: Request<RequestBody>,
) -> Result<Response<RequestBody>, Refused> {
    let expires_s = expiry(query, namespace.now_s())?;
    let metadata = request.headers().get(METADATA).map(metadata).transpose()?;
    let mut body = request.into_body();
    // A length that was declared is refused before anything is read.
    let bytes = body.size_hint().lower();
    if bytes > VALUE_BYTES_MAX {
        return Err(KvError::ValueTooLarge { bytes }.into());
    }
    let mut upload = namespace.upload();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(bytes) = frame.map_err(|_| Refused::Broken)?.into_data() {
            upload.push(bytes).await?;
        }
    }
    upload.finish(key, PutOptions { metadata, expires_s }).await?;
    Ok(Response::new(RequestBody::Empty))
}

async fn list(namespace: &Namespace, query: &Query) -> Result<Response<RequestBody>, Refused> {
    let page = namespace.list(query.list_options()?).await?;
    let body = listed(&page).to_string();
    Ok(Response::new(RequestBody::Full(body.into())))
}

/// A page as Workers' service writes it: metadata is JSON text in a string.
fn listed(page: &Page) -> serde_json::Value {
    let keys: Vec<_> = page
        .keys
        .iter()
        .map(|key| {
            let mut entry = json!({ "name": key.name });
            if let Some(expires_s) = key.expires_s {
                entry["expiration"] = expires_s.into();
            }
            if let Some(metadata) = &key.metadata {
                entry["metadata"] = metadata.as_str().into();
            }
            entry
        })
        .collect();
    let mut body = json!({ "keys": keys, "list_complete": page.complete });
    if let Some(last) = page.keys.last().filter(|_| !page.complete) {
        body["cursor"] = BASE64.encode(&last.name).into();
    }
    body
}

/// The key that a path names.
fn key(path: &str) -> Result<Key, Refused> {
    let encoded = path.strip_prefix('/').unwrap_or(path);
    let name = query::decode(encoded).ok_or_else(|| bad("Could not URL-decode key name"))?;
    Ok(Key::parse(&name)?)
}

fn metadata(value: &HeaderValue) -> Result<String, Refused> {
    let length = value.len();
    if length > METADATA_BYTES_MAX {
        let reason = format!("Metadata length of {length} exceeds limit of {METADATA_BYTES_MAX}.");
        return Err(Refused::Status(StatusCode::PAYLOAD_TOO_LARGE, reason));
    }
    let text = std::str::from_utf8(value.as_bytes()).map_err(|_| bad("Metadata is not UTF-8"))?;
    Ok(text.to_owned())
}

fn cache_ttl(query: &Query) -> Result<(), Refused> {
    let Some(ttl) = query.get("cache_ttl") else { return Ok(()) };
    match ttl.parse::<i64>().ok().and_then(|ttl| u64::try_from(ttl).ok()) {
        Some(ttl) if ttl >= CACHE_TTL_S_MIN => Ok(()),
        _ => Err(bad(format!("Invalid cache_ttl of {ttl}. Cache TTL must be at least {CACHE_TTL_S_MIN}."))),
    }
}

/// When a value expires, in seconds since the Unix epoch: a time to live goes before a time.
fn expiry(query: &Query, now_s: u64) -> Result<Option<u64>, Refused> {
    let seconds = |text: &str| text.parse::<i64>().ok().and_then(|value| u64::try_from(value).ok());
    if let Some(text) = query.get("expiration_ttl") {
        let ttl = seconds(text).filter(|ttl| *ttl > 0).ok_or_else(|| {
            bad(format!("Invalid expiration_ttl of {text}. Please specify integer greater than 0."))
        })?;
        if ttl < TTL_S_MIN {
            return Err(bad(format!(
                "Invalid expiration_ttl of {text}. Expiration TTL must be at least {TTL_S_MIN}."
            )));
        }
        return Ok(Some(now_s.saturating_add(ttl)));
    }
    let Some(text) = query.get("expiration") else { return Ok(None) };
    let time = seconds(text).filter(|time| *time > now_s).ok_or_else(|| {
        bad(format!(
            "Invalid expiration of {text}. Please specify integer greater than the current number of seconds since the UNIX epoch."
        ))
    })?;
    if time < now_s.saturating_add(TTL_S_MIN) {
        return Err(bad(format!(
            "Invalid expiration of {text}. Expiration times must be at least {TTL_S_MIN} seconds in the future."
        )));
    }
    Ok(Some(time))
}

#[cfg(test)]
mod tests;
