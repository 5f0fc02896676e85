//! `/v1/secrets`: values in, never out.
//!
//! The value is the body itself and not a member of a JSON document: no parser sees it, so no parser's error can repeat it.

use atoll_bindings::proxy::SECRET_BYTES_MAX;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use serde::Serialize;
use zeroize::Zeroizing;

use super::auth::Caller;
use super::deed::done;
use super::{input, json, no_content};
use crate::access::secrets::{SecretError, SecretInfo};
use crate::access::store::KeepError;
use crate::config::Name;
use crate::problem::Problem;
use crate::server::Gateway;
use crate::server::body::ReplyBody;
use crate::store::StoreError;

#[derive(Serialize)]
struct List {
    secrets: Vec<SecretInfo>,
}

/// What could not be kept, as a client sees it.
pub(super) fn keep_problem(error: &KeepError) -> Problem {
    match error {
        KeepError::NotFound(what) => Problem::not_found(format!("There is no such {what}.")),
        KeepError::TooMany { .. } => Problem::unprocessable("too_many", error.to_string()),
        KeepError::Store(StoreError::Stopped) => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "draining", error.to_string()).retry_after(1)
        }
        other => Problem::internal(other),
    }
}

fn problem(error: SecretError) -> Problem {
    match error {
        SecretError::NotConfigured => {
            let detail = "This server keeps no secrets: it has no master key.";
            Problem::new(StatusCode::NOT_IMPLEMENTED, "secrets_not_configured", detail)
        }
        SecretError::Size => Problem::unprocessable("secret_size", error.to_string()),
        SecretError::Keep(error) => keep_problem(&error),
    }
}

pub(super) fn list(gateway: &Gateway, caller: &Caller) -> Response<ReplyBody> {
    let secrets = gateway.access.vault.list(caller.tenant.name.as_str());
    json(StatusCode::OK, &List { secrets })
}

pub(super) fn get(gateway: &Gateway, caller: &Caller, name: &Name) -> Result<Response<ReplyBody>, Problem> {
    let info = gateway.access.vault.info(caller.tenant.name.as_str(), name.as_str());
    let info = info.ok_or_else(|| Problem::not_found("There is no such secret."))?;
    Ok(json(StatusCode::OK, &info))
}

pub(super) async fn put(
    gateway: &Gateway,
    caller: &Caller,
    name: &Name,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Problem> {
    let kind = input::media_type(request.headers());
    if !matches!(kind.as_deref(), Some("application/octet-stream" | "text/plain")) {
        let detail = "The body is the value itself, as application/octet-stream or text/plain.";
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(Problem::new(status, "unsupported_media_type", detail));
    }
    let body = input::read(request, &gateway.config.http, SECRET_BYTES_MAX as u64).await?;
    let value = Zeroizing::new(body.to_vec());
    drop(body);
    let put = gateway.access.vault.put(caller.tenant.name.as_str(), name.as_str(), value).await;
    let info = put.map_err(problem)?;
    let version = info.version.to_string();
    Ok(done(json(StatusCode::OK, &info), "secret", name.as_str(), "put", &version))
}

pub(super) async fn delete(
    gateway: &Gateway,
    caller: &Caller,
    name: &Name,
) -> Result<Response<ReplyBody>, Problem> {
    let deleted = gateway.access.vault.delete(caller.tenant.name.as_str(), name.as_str()).await;
    deleted.map_err(problem)?;
    Ok(done(no_content(), "secret", name.as_str(), "delete", ""))
}
