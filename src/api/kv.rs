//! `/v1/kv`: a tenant's key-value namespaces, as an operator of its data sees them.

use http::{Response, StatusCode};
use serde::Serialize;

use super::json;
use super::workers::deploy_problem;
use crate::config::Tenant;
use crate::kv::{KvError, is_namespace_name};
use crate::problem::Problem;
use crate::server::Gateway;
use crate::server::body::ReplyBody;

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
    if !is_namespace_name(name) {
        return Err(problem(KvError::NoNamespace));
    }
    let namespace = gateway.deployer.kv().namespace(tenant.name.as_str(), name, tenant.kv);
    namespace.remove().await.map_err(problem)?;
    let mut response = Response::new(ReplyBody::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}
