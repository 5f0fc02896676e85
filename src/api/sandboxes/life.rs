//! A sandbox as a whole: made, looked at, ended; its variables, its sessions, its workspace as an archive, and its bill.

use std::collections::BTreeMap;
use std::time::Duration;

use atoll_container_bridge::error::{Code, SandboxError};
use atoll_container_bridge::manager::{Description, Owner, Phase, Usage};
use http::{Response, StatusCode};
use serde::{Deserialize, Serialize};

use super::ports::{PortOutput, outputs};
use super::{Call, files, next, no_content, problem};
use crate::api::json;
use crate::problem::Problem;
use crate::sandboxes::{Rights, Sandboxes, sum};
use crate::server::body::ReplyBody;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct MakeInput {
    egress: Option<String>,
    #[serde(default)]
    outbound: Vec<String>,
    #[serde(default)]
    proxies: Vec<String>,
    #[serde(default)]
    audiences: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
}

/// A sandbox as clients see it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SandboxOutput {
    user: String,
    /// Unique on the machine; a successor has another one.
    id: String,
    state: &'static str,
    age_ms: u64,
    /// Until it ends, whatever it does.
    expires_in_ms: u64,
    /// Unused for so long, it ends.
    idle_ms: u64,
    ports: Vec<PortOutput>,
    usage: UsageOutput,
}

#[derive(Serialize)]
struct SandboxesOutput {
    sandboxes: Vec<SandboxOutput>,
}

/// What was used.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UsageOutput {
    cpu_us: u64,
    memory_byte_seconds: u64,
    memory_bytes_peak: u64,
    wall_us: u64,
    bytes_in: u64,
    bytes_out: u64,
    oom_kills: u64,
    uses: u64,
}

impl From<Usage> for UsageOutput {
    fn from(usage: Usage) -> Self {
        Self {
            cpu_us: usage.cpu_us,
            memory_byte_seconds: usage.memory_byte_seconds,
            memory_bytes_peak: usage.memory_bytes_peak,
            wall_us: usage.wall_us,
            bytes_in: usage.bytes_in,
            bytes_out: usage.bytes_out,
            oom_kills: usage.oom_kills,
            uses: usage.uses,
        }
    }
}

/// What a user's sandbox holds now, and what it and its predecessors used.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BillOutput {
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox: Option<NowOutput>,
    /// Of all of the user's sandboxes since the server started.
    total: UsageOutput,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NowOutput {
    id: String,
    memory_bytes: u64,
    processes: u32,
    disk_used_bytes: u64,
    disk_bytes: u64,
    #[serde(flatten)]
    usage: UsageOutput,
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn output(sandboxes: &Sandboxes, owner: &Owner, described: Description) -> SandboxOutput {
    let life = sandboxes.life_of(owner).filter(|life| life.id() == described.id.as_str());
    SandboxOutput {
        user: owner.user.clone(),
        id: described.id.as_str().to_owned(),
        state: match described.state {
            Phase::Starting => "starting",
            Phase::Running => "running",
            Phase::Stopping => "stopping",
        },
        age_ms: ms(described.age),
        expires_in_ms: ms(described.lifetime.saturating_sub(described.age)),
        idle_ms: ms(sandboxes.idle()),
        ports: life.map(|life| outputs(sandboxes, &life)).unwrap_or_default(),
        usage: described.usage.into(),
    }
}

pub(super) fn list(call: &Call) -> Result<Response<ReplyBody>, Problem> {
    call.query(&[])?;
    let sandboxes = &*call.caller.sandboxes;
    let users = sandboxes.users(&call.owner.tenant).into_iter();
    let one = |user| {
        let owner = Owner { tenant: call.owner.tenant.clone(), user };
        // It may have ended since.
        sandboxes.describe(&owner).ok().map(|described| output(sandboxes, &owner, described))
    };
    Ok(json(StatusCode::OK, &SandboxesOutput { sandboxes: users.filter_map(one).collect() }))
}

pub(super) async fn make(mut call: Call) -> Result<Response<ReplyBody>, Problem> {
    call.query(&[])?;
    let MakeInput { egress, outbound, proxies, audiences, env } = call.optional_json().await?;
    let rights = Rights { proxies, audiences };
    if egress.is_some() || !outbound.is_empty() || !rights.is_none() {
        let Some(outlets) = &call.caller.outlets else {
            let text = "A worker's sandboxes have the way out that its binding names, and no other.";
            return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden_setting", text));
        };
        call.caller.egress = outlets(egress.as_deref(), &outbound, rights)?;
    }
    let was_there = call.caller.sandboxes.describe(&call.owner).is_ok();
    let lease = call.lease().await?;
    if !env.is_empty() {
        lease
            .set_env(env.into_iter().map(|(name, value)| (name, Some(value))).collect())
            .await
            .map_err(problem)?;
    }
    let described = call.caller.sandboxes.describe(&call.owner).map_err(problem)?;
    let status = if was_there { StatusCode::OK } else { StatusCode::CREATED };
    Ok(json(status, &output(&call.caller.sandboxes, &call.owner, described)))
}

pub(super) fn look(call: &Call) -> Result<Response<ReplyBody>, Problem> {
    call.query(&[])?;
    let described = call.caller.sandboxes.describe(&call.owner).map_err(problem)?;
    call.told.sandbox(described.id.as_str());
    Ok(json(StatusCode::OK, &output(&call.caller.sandboxes, &call.owner, described)))
}

pub(super) async fn end(call: &Call) -> Result<Response<ReplyBody>, Problem> {
    call.query(&[])?;
    call.caller.sandboxes.destroy(&call.owner).await.map_err(problem)?;
    Ok(no_content())
}

/// Never 404: a user without a sandbox has a bill, too.
pub(super) async fn usage(call: &Call) -> Result<Response<ReplyBody>, Problem> {
    call.query(&[])?;
    let sandboxes = &*call.caller.sandboxes;
    let spent = sandboxes.spent(&call.owner);
    let used = match sandboxes.usage(&call.owner).await {
        Err(error) if error.code == Code::SandboxNotFound => None,
        other => Some(other.map_err(problem)?),
    };
    let now = match (used, sandboxes.find(&call.owner).await) {
        (Some(used), Ok(lease)) => {
            let inside = lease.usage().await.map_err(problem)?;
            Some(NowOutput {
                id: lease.id().as_str().to_owned(),
                memory_bytes: used.memory_bytes,
                processes: inside.processes,
                disk_used_bytes: inside.disk_used_bytes,
                disk_bytes: inside.disk_bytes,
                usage: used.into(),
            })
        }
        _ => None,
    };
    let total = used.map_or(spent, |used| sum(spent, used)).into();
    Ok(json(StatusCode::OK, &BillOutput { sandbox: now, total }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvInput {
    vars: BTreeMap<String, Option<String>>,
}

pub(super) async fn set_env(mut call: Call) -> Result<Response<ReplyBody>, Problem> {
    call.query(&[])?;
    let EnvInput { vars } = call.json().await?;
    call.lease().await?.set_env(vars).await.map_err(problem)?;
    Ok(no_content())
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionInput {
    id: Option<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    cwd: Option<String>,
}

#[derive(Serialize)]
struct SessionOutput {
    id: String,
}

#[derive(Serialize)]
struct SessionsOutput {
    sessions: Vec<SessionOutput>,
}

pub(super) async fn sessions(call: &Call) -> Result<Response<ReplyBody>, Problem> {
    call.query(&[])?;
    let names = call.lease().await?.sessions().await.map_err(problem)?;
    let sessions = names.into_iter().map(|id| SessionOutput { id }).collect();
    Ok(json(StatusCode::OK, &SessionsOutput { sessions }))
}

pub(super) async fn make_session(mut call: Call) -> Result<Response<ReplyBody>, Problem> {
    call.query(&[])?;
    let SessionInput { id, env, cwd } = call.optional_json().await?;
    let id = id.unwrap_or_else(|| format!("s-{:016x}", crate::server::random_u64()));
    call.lease().await?.create_session(&*id, env, cwd).await.map_err(problem)?;
    Ok(json(StatusCode::CREATED, &SessionOutput { id }))
}

pub(super) async fn end_session(call: &Call) -> Result<Response<ReplyBody>, Problem> {
    call.query(&[])?;
    call.lease().await?.delete_session(&*call.name).await.map_err(problem)?;
    Ok(no_content())
}

/// A tar of the workspace. Everything inside stands still meanwhile: a client that reads slowly stops its own sandbox only.
pub(super) async fn snapshot(call: &Call) -> Result<Response<ReplyBody>, Problem> {
    call.query(&[])?;
    let lease = call.lease().await?;
    let download = lease.snapshot().await.map_err(problem)?;
    Ok(files::bytes(lease, download, "application/x-tar"))
}

/// The workspace becomes what the tar holds, or stays as it is.
pub(super) async fn restore(mut call: Call) -> Result<Response<ReplyBody>, Problem> {
    call.query(&[])?;
    let disk_bytes = call.caller.sandboxes.disk_bytes();
    let upload = call.lease().await?.restore(disk_bytes).await.map_err(problem)?;
    let mut any = false;
    while let Some(bytes) = next(call.body()).await? {
        any = true;
        upload.send(&bytes).await.map_err(problem)?;
    }
    if !any {
        let error = SandboxError::new(Code::ArchiveRefused, "an empty body is no archive");
        return Err(problem(error));
    }
    upload.finish().await.map_err(problem)?;
    Ok(no_content())
}
