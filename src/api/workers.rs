//! `/v1/workers`: deploy, list, look, roll back, delete, fire scheduled events.

use std::collections::BTreeMap;
use std::sync::Arc;

use atoll_bindings::seam::Outcome;
use atoll_loader::compat::DEFAULT_COMPATIBILITY_DATE;
use atoll_loader::limits::Limits;
use atoll_loader::{Bundle, CheckConfig, CodeLimits, Deployment, Modules, Var, WorkerCode};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};

use super::execute::UsageOutput;
use super::input::{self, LimitsInput, StrictMap};
use super::json;
use crate::bindings::{Binding, Bindings};
use crate::config::{Name, Tenant};
use crate::deploy::{DeployError, Settings, now_ms, parse_cron};
use crate::kv::KvError;
use crate::problem::Problem;
use crate::server::body::ReplyBody;
use crate::server::{Gateway, fire};
use crate::store::{StoreError, Version};

/// A deployment as JSON: worker code, and beside it what the worker may use.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DeployInput {
    compatibility_date: Option<String>,
    #[serde(default)]
    compatibility_flags: Vec<String>,
    #[serde(default)]
    allow_experimental: bool,
    main_module: String,
    modules: Modules,
    #[serde(default)]
    limits: LimitsInput,
    #[serde(default)]
    vars: StrictMap,
    #[serde(default)]
    loaders: Vec<String>,
    #[serde(default)]
    bindings: BTreeMap<String, Binding>,
    #[serde(default)]
    outbound: Vec<String>,
    #[serde(default)]
    egress: Option<String>,
    #[serde(default)]
    crons: Vec<String>,
    #[serde(default)]
    hosts: Vec<String>,
    #[serde(default)]
    allow_callers: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RollbackInput {
    version: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ScheduledInput {
    cron: Option<String>,
    time_ms: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WorkerOutput {
    name: String,
    version: u64,
    hash: String,
    created_ms: u64,
    active: bool,
    path: String,
    host: String,
    hosts: Vec<String>,
    crons: Vec<String>,
    outbound: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    egress: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allow_callers: Vec<String>,
    /// Names only: values may be nobody's business.
    vars: Vec<String>,
    loaders: Vec<String>,
    /// As they were given: what a binding may use is no secret of its worker's owner.
    bindings: Bindings,
}

#[derive(Serialize)]
struct ListOutput<T> {
    #[serde(skip_serializing_if = "Option::is_none")]
    workers: Option<Vec<T>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    versions: Option<Vec<T>>,
}

#[derive(Serialize)]
struct ScheduledOutput {
    ok: bool,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    usage: UsageOutput,
}

/// A refused deployment, as a client sees it.
pub(super) fn deploy_problem(error: &DeployError) -> Problem {
    match error {
        DeployError::Invalid { .. } => Problem::unprocessable("invalid_setting", error.to_string()),
        DeployError::Forbidden { .. } => {
            Problem::new(StatusCode::FORBIDDEN, "forbidden_setting", error.to_string())
        }
        DeployError::Store(StoreError::NotFound) => Problem::not_found("There is no such worker or version."),
        DeployError::Store(StoreError::HostTaken(_)) => {
            Problem::new(StatusCode::CONFLICT, "host_taken", error.to_string())
        }
        DeployError::Store(StoreError::TooManyWorkers) => {
            Problem::unprocessable("too_many_workers", error.to_string())
        }
        DeployError::Kv(KvError::Full(_)) => Problem::unprocessable("kv_quota", error.to_string()),
        DeployError::Store(StoreError::Stopped) | DeployError::Kv(KvError::Stopped) => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "draining", error.to_string()).retry_after(1)
        }
        other => Problem::internal(other),
    }
}

fn store_problem(error: StoreError) -> Problem {
    deploy_problem(&error.into())
}

fn output(gateway: &Gateway, version: &Version) -> WorkerOutput {
    let settings: Settings = serde_json::from_str(&version.settings).unwrap_or_default();
    let (tenant, name) = (&version.tenant, &version.worker);
    WorkerOutput {
        name: name.clone(),
        version: version.version,
        hash: version.hash.to_string(),
        created_ms: version.created_ms,
        active: version.active,
        path: format!("/w/{tenant}/{name}/"),
        host: format!("{name}.{tenant}.{}", gateway.config.base_domain),
        hosts: settings.hosts,
        crons: settings.crons,
        outbound: settings.outbound,
        egress: settings.egress,
        allow_callers: settings.allow_callers,
        vars: settings.vars.into_keys().collect(),
        loaders: settings.loaders,
        bindings: settings.bindings,
    }
}

pub(super) async fn list(gateway: &Gateway, tenant: &Tenant) -> Result<Response<ReplyBody>, Problem> {
    let active = gateway.deployer.store().active(Some(tenant.name.as_str())).await.map_err(store_problem)?;
    let workers = active.iter().map(|version| output(gateway, version)).collect();
    Ok(json(StatusCode::OK, &ListOutput { workers: Some(workers), versions: None }))
}

pub(super) async fn get(
    gateway: &Gateway,
    tenant: &Tenant,
    name: &Name,
) -> Result<Response<ReplyBody>, Problem> {
    let all = all_versions(gateway, tenant, name).await?;
    let active = all.iter().find(|version| version.active);
    let active = active.ok_or_else(|| Problem::not_found("There is no such worker."))?;
    Ok(json(StatusCode::OK, &output(gateway, active)))
}

pub(super) async fn versions(
    gateway: &Gateway,
    tenant: &Tenant,
    name: &Name,
) -> Result<Response<ReplyBody>, Problem> {
    let all = all_versions(gateway, tenant, name).await?;
    let versions = all.iter().map(|version| output(gateway, version)).collect();
    Ok(json(StatusCode::OK, &ListOutput { workers: None, versions: Some(versions) }))
}

async fn all_versions(gateway: &Gateway, tenant: &Tenant, name: &Name) -> Result<Vec<Version>, Problem> {
    let store = gateway.deployer.store();
    let all = store.versions(tenant.name.as_str(), name.as_str()).await.map_err(store_problem)?;
    if all.is_empty() { Err(Problem::not_found("There is no such worker.")) } else { Ok(all) }
}

pub(super) async fn put(
    gateway: &Gateway,
    tenant: &Tenant,
    name: Name,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Problem> {
    let form = multipart(request.headers());
    if form.is_none() {
        input::require_json(request.headers())?;
    }
    let body = input::read(request, &gateway.config.http, input::CODE_BODY_BYTES_MAX).await?;
    let (checks, limits) = (gateway.deployer.checks(), tenant.limits);
    // Parsing and stripping is work: not on the threads that move bytes.
    let built = tokio::task::spawn_blocking(move || match form {
        Some(content_type) => build_form(&content_type, &body, limits, &checks),
        None => build(&body, limits, &checks),
    });
    let built = built.await;
    let (bundle, settings) = built.map_err(|error| Problem::internal(&error))??;
    let deployed = gateway.deployer.deploy(tenant, name, Arc::new(bundle), settings).await;
    let version = deployed.map_err(|error| deploy_problem(&error))?;
    let status = if version.version == 1 { StatusCode::CREATED } else { StatusCode::OK };
    Ok(json(status, &output(gateway, &version)))
}

/// The content type with its boundary, if the body is an upload in the Workers form.
fn multipart(headers: &http::HeaderMap) -> Option<String> {
    let form = input::media_type(headers).as_deref() == Some("multipart/form-data");
    let value = headers.get(http::header::CONTENT_TYPE).filter(|_| form)?;
    value.to_str().ok().map(str::to_owned)
}

fn build_form(
    content_type: &str,
    body: &Bytes,
    limits: Limits,
    checks: &CheckConfig,
) -> Result<(Bundle, Settings), Problem> {
    let upload = Deployment::from_multipart(content_type, body);
    let upload =
        upload.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.code(), error.to_string()))?;
    let bindings = bindings(upload.bindings)?;
    let asked = LimitsInput::of(upload.code.limits);
    let bundle = upload.code.build_with(checks).map_err(|error| input::code_problem(&error))?;
    let var = |(name, var): (String, Var)| match var {
        Var::Text(text) => Ok((name, text.into())),
        Var::Json(json) => serde_json::from_str(&json).map(|value| (name, value)),
    };
    let vars = upload.vars.into_iter().map(var).collect::<Result<_, _>>();
    let settings = Settings {
        vars: vars.map_err(|error| Problem::unprocessable("invalid_setting", format!("`vars`: {error}")))?,
        loaders: upload.loaders,
        bindings,
        outbound: upload.outbound,
        egress: upload.egress,
        crons: upload.crons,
        hosts: Vec::new(),
        allow_callers: upload.allow_callers,
        limits: asked.lower(limits),
    };
    Ok((bundle, settings))
}

/// Bindings of a form, by the same rules as those of a JSON body.
fn bindings(wishes: Vec<(String, serde_json::Value)>) -> Result<Bindings, Problem> {
    let mut bindings = Bindings::new();
    for (name, wish) in wishes {
        let binding = Binding::deserialize(wish).map_err(|error| {
            Problem::unprocessable("invalid_setting", format!("`bindings`: {name:?}: {error}"))
        })?;
        if bindings.insert(name.clone(), binding).is_some() {
            let detail = format!("`bindings`: {name:?} is there twice");
            return Err(Problem::unprocessable("invalid_setting", detail));
        }
    }
    Ok(bindings)
}

fn build(body: &Bytes, limits: Limits, checks: &CheckConfig) -> Result<(Bundle, Settings), Problem> {
    let parsed: DeployInput = input::parse(body)?;
    let code = WorkerCode {
        compatibility_date: parsed
            .compatibility_date
            .unwrap_or_else(|| DEFAULT_COMPATIBILITY_DATE.to_owned()),
        compatibility_flags: parsed.compatibility_flags,
        allow_experimental: parsed.allow_experimental,
        main_module: parsed.main_module,
        modules: parsed.modules.0,
        limits: CodeLimits::default(),
    };
    let bundle = code.build_with(checks).map_err(|error| input::code_problem(&error))?;
    let settings = Settings {
        vars: parsed.vars.0,
        loaders: parsed.loaders,
        bindings: parsed.bindings,
        outbound: parsed.outbound,
        egress: parsed.egress,
        crons: parsed.crons,
        hosts: parsed.hosts,
        allow_callers: parsed.allow_callers,
        limits: parsed.limits.lower(limits),
    };
    Ok((bundle, settings))
}

pub(super) async fn delete(
    gateway: &Gateway,
    tenant: &Tenant,
    name: &Name,
) -> Result<Response<ReplyBody>, Problem> {
    gateway.deployer.delete(tenant, name).await.map_err(|error| deploy_problem(&error))?;
    let mut response = Response::new(ReplyBody::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// A body that may be left out.
async fn optional<T: Default + serde::de::DeserializeOwned>(
    gateway: &Gateway,
    request: Request<Incoming>,
) -> Result<T, Problem> {
    let typed = request.headers().contains_key(http::header::CONTENT_TYPE);
    let json = if typed { input::require_json(request.headers()) } else { Ok(()) };
    let body = input::read(request, &gateway.config.http, input::SMALL_BODY_BYTES_MAX).await?;
    if body.is_empty() {
        return Ok(T::default());
    }
    json?;
    input::parse(&body)
}

pub(super) async fn rollback(
    gateway: &Gateway,
    tenant: &Tenant,
    name: Name,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Problem> {
    let RollbackInput { version } = optional(gateway, request).await?;
    let active = gateway.deployer.rollback(tenant, name, version).await;
    let active = active.map_err(|error| deploy_problem(&error))?;
    Ok(json(StatusCode::OK, &output(gateway, &active)))
}

pub(super) async fn scheduled(
    gateway: &Gateway,
    tenant: &Tenant,
    name: &Name,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Problem> {
    let ScheduledInput { cron, time_ms } = optional(gateway, request).await?;
    let deployment = gateway.routes.worker(tenant.name.as_str(), name.as_str());
    let deployment = deployment.ok_or_else(|| Problem::not_found("There is no such worker."))?;
    let cron = cron.or_else(|| deployment.crons.first().cloned()).unwrap_or_else(|| "* * * * *".to_owned());
    parse_cron(&cron)
        .map_err(|error| Problem::unprocessable("invalid_setting", format!("`cron`: {error}")))?;
    let ended = fire(gateway, &deployment, cron, time_ms.unwrap_or_else(now_ms)).await?;
    let message = match &ended.outcome {
        Outcome::GuestError(error) => Some(format!("{}: {}", error.name, error.message)),
        Outcome::Limit(kind) => Some(crate::server::limit_text(*kind).to_owned()),
        Outcome::Refused(reason) => Some(reason.clone()),
        _ => None,
    };
    let ok = ended.outcome == Outcome::Done;
    let outcome = ended.outcome.code();
    let usage = UsageOutput::priced(ended.usage, gateway.config.cost.as_ref());
    Ok(json(StatusCode::OK, &ScheduledOutput { ok, outcome, message, usage }))
}
