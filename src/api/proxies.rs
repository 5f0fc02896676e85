//! `/v1/proxies`: the rules under which a tenant's secrets are used.

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use serde::Serialize;

use super::auth::Caller;
use super::deed::done;
use super::secrets::keep_problem;
use super::{input, json, no_content};
use crate::access::proxies::settings::ProxySettings;
use crate::access::proxies::{Owner, ProxyError};
use crate::config::Name;
use crate::problem::Problem;
use crate::server::Gateway;
use crate::server::body::ReplyBody;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProxyOutput {
    name: String,
    /// `operator` or `tenant`.
    owner: &'static str,
    #[serde(flatten)]
    settings: ProxySettings,
}

#[derive(Serialize)]
struct List {
    proxies: Vec<ProxyOutput>,
}

fn problem(error: ProxyError) -> Problem {
    match error {
        ProxyError::Setting(error) => Problem::unprocessable("invalid_setting", error.to_string()),
        ProxyError::Forbidden { .. } => {
            Problem::new(StatusCode::FORBIDDEN, "forbidden_setting", error.to_string())
        }
        ProxyError::Taken => Problem::new(StatusCode::CONFLICT, "name_taken", error.to_string()),
        ProxyError::Keep(error) => keep_problem(&error),
    }
}

fn all(gateway: &Gateway, caller: &Caller) -> Vec<ProxyOutput> {
    let output = |(name, owner, settings)| {
        let owner = if owner == Owner::Operator { "operator" } else { "tenant" };
        ProxyOutput { name, owner, settings }
    };
    gateway.access.proxies.list(caller.tenant.name.as_str()).into_iter().map(output).collect()
}

pub(super) fn list(gateway: &Gateway, caller: &Caller) -> Response<ReplyBody> {
    json(StatusCode::OK, &List { proxies: all(gateway, caller) })
}

pub(super) fn get(gateway: &Gateway, caller: &Caller, name: &Name) -> Result<Response<ReplyBody>, Problem> {
    let found = all(gateway, caller).into_iter().find(|proxy| proxy.name == name.as_str());
    let found = found.ok_or_else(|| Problem::not_found("There is no such proxy."))?;
    Ok(json(StatusCode::OK, &found))
}

pub(super) async fn put(
    gateway: &Gateway,
    caller: &Caller,
    name: &Name,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Problem> {
    let settings: ProxySettings = input::small(request, &gateway.config.http).await?;
    let origin = settings.origin.clone();
    gateway.access.proxies.put(&caller.tenant, name, settings).await.map_err(problem)?;
    Ok(done(get(gateway, caller, name)?, "proxy", name.as_str(), "put", &origin))
}

pub(super) async fn delete(
    gateway: &Gateway,
    caller: &Caller,
    name: &Name,
) -> Result<Response<ReplyBody>, Problem> {
    let deleted = gateway.access.proxies.delete(caller.tenant.name.as_str(), name.as_str()).await;
    deleted.map_err(problem)?;
    Ok(done(no_content(), "proxy", name.as_str(), "delete", ""))
}
