//! Ports inside that can be seen from outside, each under an unguessable token; `src/server/preview.rs` serves them.

use std::time::{Duration, Instant};

use atoll_bindings::body::RequestBody;
use atoll_container_bridge::error::{Code, SandboxError};
use atoll_container_bridge::manager::Lease;
use http::{Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};

use super::processes::WAIT_DEFAULT_MS;
use super::{Call, no_content, problem};
use crate::api::json;
use crate::problem::Problem;
use crate::router::{PREVIEW_HOST_PREFIX, PREVIEW_PATH_PREFIX};
use crate::sandboxes::{Exposed, Life, PreviewBase, Sandboxes};
use crate::server::body::ReplyBody;

/// Time between two looks whether a port answers well.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// An exposed port as clients see it.
#[derive(Serialize)]
pub(super) struct PortOutput {
    port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    token: String,
    /// Under the gateway's own host name.
    path: String,
    /// A host name of its own.
    host: String,
    url: String,
}

impl PortOutput {
    fn new(base: &PreviewBase, exposed: Exposed) -> Self {
        let Exposed { port, token, name } = exposed;
        let host = format!("{PREVIEW_HOST_PREFIX}{token}.{}", base.domain);
        let url = format!("{}://{host}{}/", base.scheme, base.port);
        Self { port, name, path: format!("{PREVIEW_PATH_PREFIX}{token}/"), host, url, token }
    }
}

#[derive(Serialize)]
struct PortsOutput {
    ports: Vec<PortOutput>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExposeInput {
    name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WaitInput {
    path: Option<String>,
    timeout_ms: Option<u64>,
}

pub(super) fn outputs(sandboxes: &Sandboxes, life: &Life) -> Vec<PortOutput> {
    life.ports().into_iter().map(|exposed| PortOutput::new(sandboxes.preview_base(), exposed)).collect()
}

/// The port that the path names.
fn port(call: &Call) -> Result<u16, Problem> {
    let digits = !call.name.is_empty() && call.name.bytes().all(|b| b.is_ascii_digit());
    let port = call.name.parse().ok().filter(|_| digits);
    port.ok_or_else(|| problem(SandboxError::new(Code::InvalidArgument, "a port is a number below 65536")))
}

fn none() -> Problem {
    problem(SandboxError::new(Code::SandboxNotFound, "this user has no sandbox"))
}

pub(super) fn list(call: &Call) -> Result<Response<ReplyBody>, Problem> {
    call.query(&[])?;
    let life = call.caller.sandboxes.life_of(&call.owner).ok_or_else(none)?;
    Ok(json(StatusCode::OK, &PortsOutput { ports: outputs(&call.caller.sandboxes, &life) }))
}

pub(super) async fn expose(mut call: Call) -> Result<Response<ReplyBody>, Problem> {
    call.query(&[])?;
    let port = port(&call)?;
    let ExposeInput { name } = call.optional_json().await?;
    let lease = call.lease().await?;
    let sandboxes = &call.caller.sandboxes;
    let life = sandboxes.life(&lease).map_err(problem)?;
    let exposed = sandboxes.expose(&life, port, name).map_err(problem)?;
    Ok(json(StatusCode::OK, &PortOutput::new(sandboxes.preview_base(), exposed)))
}

pub(super) fn hide(call: &Call) -> Result<Response<ReplyBody>, Problem> {
    call.query(&[])?;
    let port = port(call)?;
    let life = call.caller.sandboxes.life_of(&call.owner).ok_or_else(none)?;
    if call.caller.sandboxes.hide(&life, port) {
        return Ok(no_content());
    }
    Err(Problem::new(StatusCode::NOT_FOUND, "PORT_NOT_EXPOSED", "That port is not exposed."))
}

pub(super) async fn wait(mut call: Call) -> Result<Response<ReplyBody>, Problem> {
    call.query(&[])?;
    let port = port(&call)?;
    let WaitInput { path, timeout_ms } = call.optional_json().await?;
    let timeout = Duration::from_millis(timeout_ms.unwrap_or(WAIT_DEFAULT_MS));
    let lease = call.lease().await?;
    ready(&lease, port, path.as_deref(), timeout).await.map_err(problem)?;
    Ok(no_content())
}

/// Waits until something listens and, with a path, until it answers well.
pub(super) async fn ready(
    lease: &Lease,
    port: u16,
    path: Option<&str>,
    timeout: Duration,
) -> Result<(), SandboxError> {
    let began = Instant::now();
    lease.wait_for_port(port, timeout).await?;
    let Some(path) = path else { return Ok(()) };
    let uri: Uri = path.parse().map_err(|_| SandboxError::new(Code::InvalidArgument, "`path` is no path"))?;
    let late =
        |_| SandboxError::new(Code::ProcessReadyTimeout, format!("port {port} did not answer well in time"));
    let asking = async {
        while !answers_well(lease, port, &uri).await {
            tokio::time::sleep(ASK_AGAIN).await;
        }
    };
    tokio::time::timeout(timeout.saturating_sub(began.elapsed()), asking).await.map_err(late)
}

async fn answers_well(lease: &Lease, port: u16, uri: &Uri) -> bool {
    let Ok(stream) = lease.connect(port).await else { return false };
    let Ok((mut sender, connection)) =
        hyper::client::conn::http1::handshake::<_, RequestBody>(TokioIo::new(stream)).await
    else {
        return false;
    };
    let request = http::Request::get(uri).header(http::header::HOST, format!("localhost:{port}"));
    let Ok(request) = request.body(RequestBody::Empty) else { return false };
    // The connection lives as long as this look at it.
    tokio::select! {
        answer = sender.send_request(request) => {
            answer.is_ok_and(|answer| answer.status().is_success() || answer.status().is_redirection())
        }
        _ = connection => false,
    }
}
