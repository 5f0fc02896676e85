//! Background processes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use atoll_container_bridge::error::{Code, SandboxError};
use atoll_container_bridge::limits::{GRACE_DEFAULT, GRACE_MAX, PROCESS_LOG_BYTES_MAX};
use atoll_container_bridge::manager::Lease;
use atoll_container_bridge::protocol::{Channel, ProcessInfo, ProcessStatus};
use http::{Response, StatusCode};
use serde::{Deserialize, Serialize};

use super::commands::CommandInput;
use super::output::{Piece, Text, send, send_error};
use super::ports::ready;
use super::{Call, problem};
use crate::api::events::{self, Events, Gone};
use crate::api::input::{Wanted, wanted};
use crate::api::json;
use crate::problem::Problem;
use crate::server::Phase;
use crate::server::body::ReplyBody;

/// How long a wait may take unless the caller says otherwise.
pub(super) const WAIT_DEFAULT_MS: u64 = 30_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StartInput {
    command: CommandInput,
    id: Option<String>,
    cwd: Option<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    timeout_ms: Option<u64>,
}

/// A process as clients see it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProcessOutput {
    id: String,
    pid: i32,
    command: String,
    status: &'static str,
    started_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    timed_out: bool,
    log_dropped_bytes: u64,
}

impl From<ProcessInfo> for ProcessOutput {
    fn from(info: ProcessInfo) -> Self {
        let status = match info.status {
            ProcessStatus::Running => "running",
            ProcessStatus::Completed => "completed",
            ProcessStatus::Failed => "failed",
            ProcessStatus::Killed => "killed",
        };
        Self {
            id: info.name,
            pid: info.pid,
            command: info.command,
            status,
            started_ms: info.started_ms,
            ended_ms: info.ended_ms,
            exit_code: info.exit.as_ref().map(|exit| exit.code),
            signal: info.exit.as_ref().and_then(|exit| exit.signal),
            timed_out: info.exit.is_some_and(|exit| exit.timed_out),
            log_dropped_bytes: info.log_dropped_bytes,
        }
    }
}

#[derive(Serialize)]
struct ProcessesOutput {
    processes: Vec<ProcessOutput>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LogsOutput {
    id: String,
    stdout: String,
    stderr: String,
    /// Of the log's beginning, which fell out.
    dropped_bytes: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WaitInput {
    log: Option<String>,
    port: Option<u16>,
    /// With a port: until `GET` of it answers with a status below 400.
    path: Option<String>,
    #[serde(default)]
    exit: bool,
    timeout_ms: Option<u64>,
}

pub(super) async fn start(mut call: Call) -> Result<Response<ReplyBody>, Problem> {
    call.query(&[])?;
    let input: StartInput = call.json().await?;
    let name = input.id.unwrap_or_else(|| format!("p-{:016x}", crate::server::random_u64()));
    let mut spec = input.command.spec();
    (spec.env, spec.cwd, spec.timeout_ms) = (input.env, input.cwd, input.timeout_ms);
    let info = call.lease().await?.start(name, spec).await.map_err(problem)?;
    Ok(json(StatusCode::CREATED, &ProcessOutput::from(info)))
}

pub(super) async fn list(call: &Call) -> Result<Response<ReplyBody>, Problem> {
    call.query(&[])?;
    let all = call.lease().await?.processes().await.map_err(problem)?;
    let processes = all.into_iter().map(Into::into).collect();
    Ok(json(StatusCode::OK, &ProcessesOutput { processes }))
}

async fn find(lease: &Lease, name: &str) -> Result<ProcessInfo, Problem> {
    let all = lease.processes().await.map_err(problem)?;
    let missing = || problem(SandboxError::new(Code::ProcessNotFound, format!("no process named {name:?}")));
    all.into_iter().find(|info| info.name == name).ok_or_else(missing)
}

pub(super) async fn look(call: &Call) -> Result<Response<ReplyBody>, Problem> {
    call.query(&[])?;
    let info = find(&*call.lease().await?, &call.name).await?;
    Ok(json(StatusCode::OK, &ProcessOutput::from(info)))
}

/// Ends the tree and waits for that, or sends one signal to it.
pub(super) async fn kill(call: &Call) -> Result<Response<ReplyBody>, Problem> {
    let query = call.query(&["signal", "graceMs"])?;
    let (signal, grace) = (query.json("signal")?, query.json("graceMs")?);
    let lease = call.lease().await?;
    let info = match signal {
        Some(signal) => {
            lease.signal(&*call.name, signal).await.map_err(problem)?;
            find(&lease, &call.name).await?
        }
        None => {
            let grace = grace.map_or(GRACE_DEFAULT, Duration::from_millis).min(GRACE_MAX);
            lease.kill(&*call.name, grace).await.map_err(problem)?
        }
    };
    Ok(json(StatusCode::OK, &ProcessOutput::from(info)))
}

/// What was logged, and, as events, what will be.
pub(super) async fn logs(call: Call) -> Result<Response<ReplyBody>, Problem> {
    call.query(&[])?;
    let form = wanted(&call.headers)?;
    let lease = call.lease().await?;
    if form == Wanted::Events {
        find(&lease, &call.name).await?; // a stream that has begun cannot say 404
        return Ok(followed(call, lease));
    }
    let mut download = lease.logs(&*call.name, false).await.map_err(problem)?;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let Some((channel, bytes)) = download.next().await.map_err(problem)? {
        // Bounded by the agent; this holds even if it is not.
        if stdout.len() + stderr.len() + bytes.len() > 2 * PROCESS_LOG_BYTES_MAX {
            break;
        }
        if channel == Channel::Err { &mut stderr } else { &mut stdout }.extend(bytes);
    }
    let info = find(&lease, &call.name).await?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let (stdout, stderr) = (text(stdout), text(stderr));
    let output = LogsOutput { id: info.name, stdout, stderr, dropped_bytes: info.log_dropped_bytes };
    Ok(json(StatusCode::OK, &output))
}

fn followed(call: Call, lease: Arc<Lease>) -> Response<ReplyBody> {
    let (events, response) = events::response();
    tokio::spawn(async move {
        tokio::select! {
            _ = follow(&call, &lease, &events) => {}
            () = events.gone() => {}
            () = draining(&call) => {}
        }
    });
    response
}

async fn follow(call: &Call, lease: &Lease, events: &Events) -> Result<(), Gone> {
    let (mut out, mut err) = (Text::default(), Text::default());
    let ended = async {
        let mut download = lease.logs(&*call.name, true).await.map_err(problem)?;
        while let Some((channel, bytes)) = download.next().await.map_err(problem)? {
            let (name, text) =
                if channel == Channel::Err { ("stderr", &mut err) } else { ("stdout", &mut out) };
            let data = text.push(&bytes);
            if !data.is_empty() && send(events, name, &Piece { data }).await.is_err() {
                break;
            }
        }
        find(lease, &call.name).await
    };
    match ended.await {
        Ok(info) => send(events, "exit", &ProcessOutput::from(info)).await,
        Err(problem) => send_error(events, &problem).await,
    }
}

/// Waits until the server drains: a tail has no end of its own, and must not hold up the server's.
pub(super) async fn draining(call: &Call) {
    match call.caller.draining.clone() {
        Some(mut phase) => drop(phase.wait_for(|phase| *phase >= Phase::Draining).await),
        None => std::future::pending().await,
    }
}

pub(super) async fn wait(mut call: Call) -> Result<Response<ReplyBody>, Problem> {
    call.query(&[])?;
    let input: WaitInput = call.json().await?;
    let timeout = Duration::from_millis(input.timeout_ms.unwrap_or(WAIT_DEFAULT_MS));
    let lease = call.lease().await?;
    let name = &*call.name;
    let info = match (input.log, input.port, input.exit) {
        (Some(text), None, false) => {
            lease.wait_for_log(name, text, timeout).await.map_err(problem)?;
            find(&lease, name).await?
        }
        (None, Some(port), false) => {
            find(&lease, name).await?;
            // A process that ends will not listen any more.
            tokio::select! {
                ready = ready(&lease, port, input.path.as_deref(), timeout) => ready.map_err(problem)?,
                Ok(_) = lease.wait_for_exit(name, timeout) => {
                    let text = "the process ended without listening";
                    return Err(problem(SandboxError::new(Code::ProcessReadyTimeout, text)));
                }
            }
            find(&lease, name).await?
        }
        (None, None, true) => lease.wait_for_exit(name, timeout).await.map_err(problem)?,
        _ => return Err(Problem::bad_request("Wait for one thing: `log`, `port` or `exit`.")),
    };
    Ok(json(StatusCode::OK, &ProcessOutput::from(info)))
}
