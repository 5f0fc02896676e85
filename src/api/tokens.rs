//! `/v1/tokens`: API tokens that tenants make and revoke themselves. Each is shown once.

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};

use super::auth::Caller;
use super::deed::done;
use super::secrets::keep_problem;
use super::{input, json, no_content};
use crate::access::tokens::TokenInfo;
use crate::config::{Name, Scope};
use crate::deploy::now_ms;
use crate::problem::Problem;
use crate::server::Gateway;
use crate::server::body::ReplyBody;

/// Longest name of a token, in bytes.
const NAME_BYTES_MAX: usize = 100;
/// Longest life that can be asked for, in seconds: ten years.
const EXPIRES_SECONDS_MAX: u64 = 10 * 365 * 24 * 3_600;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CreateInput {
    name: String,
    scopes: Vec<Scope>,
    expires_in_seconds: Option<u64>,
}

#[derive(Serialize)]
struct CreateOutput<'a> {
    #[serde(flatten)]
    info: TokenInfo,
    token: &'a str,
}

#[derive(Serialize)]
struct List {
    tokens: Vec<TokenInfo>,
}

pub(super) fn list(gateway: &Gateway, caller: &Caller) -> Response<ReplyBody> {
    json(StatusCode::OK, &List { tokens: gateway.access.tokens.list(caller.tenant.name.as_str()) })
}

pub(super) async fn post(
    gateway: &Gateway,
    caller: &Caller,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Problem> {
    let wish = input::small(request, &gateway.config.http).await?;
    let CreateInput { name, mut scopes, expires_in_seconds } = wish;
    let invalid = |detail: &'static str| Problem::unprocessable("invalid_token_request", detail);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(invalid("`name` has 1 to 100 bytes and no control characters."));
    }
    scopes.sort_unstable();
    scopes.dedup();
    if scopes.is_empty() {
        return Err(invalid("`scopes` names what the token is for."));
    }
    // What a token makes has no right that it has not.
    if let Some(scope) = scopes.iter().find(|scope| !caller.scopes.contains(scope)) {
        let detail = format!("This token lacks the scope `{}` itself.", scope.name());
        return Err(Problem::forbidden(detail));
    }
    if expires_in_seconds.is_some_and(|seconds| seconds == 0 || seconds > EXPIRES_SECONDS_MAX) {
        return Err(invalid("`expiresInSeconds` is at least 1 and at most ten years."));
    }
    let expires_ms = expires_in_seconds.map(|seconds| now_ms() + seconds * 1_000);
    let tenant = caller.tenant.name.as_str();
    let made = gateway.access.tokens.create(tenant, name, scopes, expires_ms).await;
    let (info, token) = made.map_err(|error| keep_problem(&error))?;
    let scopes: Vec<&str> = info.scopes.iter().map(|scope| scope.name()).collect();
    let (id, scopes) = (info.id.clone(), scopes.join(" "));
    let answer = json(StatusCode::CREATED, &CreateOutput { info, token: &token });
    Ok(done(answer, "token", &id, "create", &scopes))
}

pub(super) async fn delete(
    gateway: &Gateway,
    caller: &Caller,
    id: &Name,
) -> Result<Response<ReplyBody>, Problem> {
    let deleted = gateway.access.tokens.delete(caller.tenant.name.as_str(), id.as_str()).await;
    deleted.map_err(|error| keep_problem(&error))?;
    Ok(done(no_content(), "token", id.as_str(), "revoke", ""))
}
