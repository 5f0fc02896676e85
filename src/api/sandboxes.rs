//! `/v1/sandboxes`: everything that can be done with a user's sandbox, for HTTP clients and for workers (`env.SANDBOX`) alike.
//!
//! ```text
//!  client ─▶ token, scope ──┐                       ┌▶ life.rs       make, look, end, usage, variables, sessions, snapshots
//!                           ├─▶ Call ─▶ answer ─────┼▶ commands.rs   exec (git.rs)
//!  worker ─▶ its binding ───┘   │  (Op, user, name) ├▶ processes.rs  background processes
//!                               │                   ├▶ files.rs      files
//!                               ▼                   └▶ ports.rs      previews
//!                        one crossing per use, told when its answer's body is over
//! ```
//!
//! A worker's binding sends the same requests that a client sends, so there is one table of what exists, one set of answers and
//! one set of errors. What differs is who asks, in [`Caller`]. Reading and ending never makes a sandbox; everything else makes
//! it on first use. Errors carry the bridge's codes, which are close to those of Cloudflare's Sandbox SDK, as problem documents.

mod commands;
mod files;
mod git;
mod life;
mod output;
mod ports;
mod processes;
mod told;

use std::sync::{Arc, Mutex, PoisonError};

use atoll_bindings::body::RequestBody;
use atoll_container_bridge::error::{Code, SandboxError};
use atoll_container_bridge::manager::{Lease, Owner};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::auth::{self, Caller as Client};
use super::input::{self, SMALL_BODY_BYTES_MAX};
use super::query::{self, Query};
use crate::admission::Kind;
use crate::config::{Name, Scope};
use crate::problem::Problem;
use crate::sandboxes::{Outlet, Rights, Sandboxes, is_user};
use crate::server::body::{BodyFault, ClientBody, ReplyBody};
use crate::server::{Gateway, Phase};

use told::Told;

/// What can be done with sandboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    List,
    Make,
    Look,
    End,
    Exec,
    SessionExec,
    StartProcess,
    Processes,
    Process,
    KillProcess,
    Logs,
    Wait,
    ReadFile,
    WriteFile,
    DeleteFile,
    ListFiles,
    StatFile,
    MakeDirectory,
    RenameFile,
    WatchFiles,
    GitCheckout,
    Sessions,
    MakeSession,
    EndSession,
    SetEnv,
    Ports,
    Expose,
    Hide,
    WaitPort,
    Snapshot,
    Restore,
    Usage,
}

impl Op {
    /// Its name in the audit trail.
    fn name(self) -> &'static str {
        match self {
            Self::List => "sandbox/list",
            Self::Make => "sandbox/create",
            Self::Look => "sandbox/get",
            Self::End => "sandbox/delete",
            Self::Exec | Self::SessionExec => "sandbox/exec",
            Self::StartProcess => "sandbox/process/start",
            Self::Processes => "sandbox/process/list",
            Self::Process => "sandbox/process/get",
            Self::KillProcess => "sandbox/process/kill",
            Self::Logs => "sandbox/process/logs",
            Self::Wait => "sandbox/process/wait",
            Self::ReadFile => "sandbox/file/read",
            Self::WriteFile => "sandbox/file/write",
            Self::DeleteFile => "sandbox/file/delete",
            Self::ListFiles => "sandbox/file/list",
            Self::StatFile => "sandbox/file/stat",
            Self::MakeDirectory => "sandbox/file/mkdir",
            Self::RenameFile => "sandbox/file/rename",
            Self::WatchFiles => "sandbox/file/watch",
            Self::GitCheckout => "sandbox/git",
            Self::Sessions => "sandbox/session/list",
            Self::MakeSession => "sandbox/session/create",
            Self::EndSession => "sandbox/session/delete",
            Self::SetEnv => "sandbox/env",
            Self::Ports => "sandbox/port/list",
            Self::Expose => "sandbox/port/expose",
            Self::Hide => "sandbox/port/hide",
            Self::WaitPort => "sandbox/port/wait",
            Self::Snapshot => "sandbox/snapshot",
            Self::Restore => "sandbox/restore",
            Self::Usage => "sandbox/usage",
        }
    }

    /// Whether its body is bytes for the sandbox, which may be many, and not JSON.
    fn takes_bytes(self) -> bool {
        matches!(self, Self::WriteFile | Self::Restore | Self::Exec | Self::SessionExec)
    }

    /// Whether it makes a sandbox where there is none.
    fn makes(self) -> bool {
        matches!(
            self,
            Self::Make
                | Self::Exec
                | Self::SessionExec
                | Self::StartProcess
                | Self::WriteFile
                | Self::MakeDirectory
                | Self::GitCheckout
                | Self::MakeSession
                | Self::SetEnv
                | Self::Expose
                | Self::Restore
        )
    }
}

/// Makes a way out through a policy class and to a list of hosts, with rights, if the caller may give it.
pub(crate) type MakeOutlet =
    Box<dyn Fn(Option<&str>, &[String], Rights) -> Result<Option<Outlet>, Problem> + Send + Sync>;

/// Who uses sandboxes.
pub(crate) struct Caller {
    pub(crate) sandboxes: Arc<Sandboxes>,
    pub(crate) tenant: Name,
    /// The worker's name or the execution's id; of a client from outside, [`CLIENT`].
    pub(crate) worker: Arc<str>,
    /// A client's token, by the beginning of its hash.
    pub(crate) token: Option<Arc<str>>,
    /// The execution of the worker.
    pub(crate) execution: Option<Arc<str>>,
    /// The way out of every sandbox that it uses.
    pub(crate) egress: Option<Outlet>,
    /// Who may name a way out in a request.
    pub(crate) outlets: Option<MakeOutlet>,
    /// Tails end when the server drains; those of workers end with their invocation.
    pub(crate) draining: Option<watch::Receiver<Phase>>,
}

/// A client from outside, in the audit trail.
pub(crate) const CLIENT: &str = "api";

/// One use.
pub(super) struct Call {
    caller: Caller,
    op: Op,
    owner: Owner,
    /// A process, a session or a port.
    name: String,
    query: Option<String>,
    headers: HeaderMap,
    /// Behind a lock that nobody ever waits for: a body may change threads, but not be shared by them.
    body: Mutex<RequestBody>,
    told: Told,
}

/// Answers a client's request.
pub(super) async fn http(
    gateway: &Arc<Gateway>,
    client: &Client,
    target: Target,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Problem> {
    let tenant = &client.tenant;
    let token = auth::token_id(request.headers()).map(Arc::from);
    let sandboxes = gateway.sandboxes.clone().ok_or_else(not_configured)?;
    let permit = gateway.admission.enter(&tenant.name, Kind::Warm).map_err(|denied| {
        gateway.observer.denied(tenant.name.as_str(), denied);
        Problem::from(denied)
    })?;
    let bytes_max = if target.op.takes_bytes() { sandboxes.disk_bytes() } else { SMALL_BODY_BYTES_MAX };
    let request = if request.body().is_end_stream() {
        request.map(|_| RequestBody::Empty)
    } else {
        let (parts, body) = request.into_parts();
        let body = ClientBody::new(body, bytes_max, gateway.config.http.body_timeout);
        Request::from_parts(parts, RequestBody::stream(body.map_err(|fault| fault.problem())?))
    };
    let (shared, payer) = (Arc::clone(gateway), Arc::clone(tenant));
    let may_lend = client.scopes.contains(&Scope::Proxy);
    let outlets: MakeOutlet = Box::new(move |class, hosts, rights: Rights| {
        if !rights.is_none() && !may_lend {
            let text = "This token lacks the scope `proxy`, so it cannot give its rights to a sandbox.";
            return Err(Problem::forbidden(text));
        }
        let checked = rights.check(&shared.access, &payer.name);
        checked.map_err(|text| Problem::unprocessable("invalid_setting", format!("{text}.")))?;
        let made = shared.deployer.outbound(&payer, CLIENT, class, hosts);
        let channel = made.map_err(|error| super::workers::deploy_problem(&error))?;
        Ok(Outlet::with(channel, rights, &payer.name, CLIENT.into()))
    });
    let caller = Caller {
        sandboxes,
        tenant: tenant.name.clone(),
        worker: CLIENT.into(),
        token,
        execution: None,
        egress: None,
        outlets: Some(outlets),
        draining: Some(gateway.draining.clone()),
    };
    let response = answer(caller, target, request).await?;
    Ok(response.map(|body| told::held(body, permit)))
}

/// Answers a worker's request, whose path is that of the API.
pub(crate) async fn worker(caller: Caller, request: Request<RequestBody>) -> Response<ReplyBody> {
    let answered = match super::find_sandbox(request.method().as_str(), request.uri().path()) {
        Ok(target) => answer(caller, target, request).await,
        Err(problem) => Err(problem),
    };
    answered.unwrap_or_else(Problem::response)
}

/// What a method and a path ask for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    op: Op,
    user: String,
    /// A process, a session or a port.
    name: String,
}

impl Target {
    /// From the names in the path, as they were sent.
    pub(super) fn new(op: Op, names: &[&str]) -> Result<Self, Problem> {
        let name = |at: usize| names.get(at).map_or_else(|| Ok(String::new()), |raw| query::name(raw));
        let (user, name) = (name(0)?, name(1)?);
        if op != Op::List && !is_user(&user) {
            let text = "A user's id is 1 to 128 visible ASCII characters, without blanks.";
            return Err(Problem::unprocessable("user", text));
        }
        Ok(Self { op, user, name })
    }
}

async fn answer(
    caller: Caller,
    Target { op, user, name }: Target,
    request: Request<RequestBody>,
) -> Result<Response<ReplyBody>, Problem> {
    let (parts, body) = request.into_parts();
    let owner = Owner { tenant: caller.tenant.to_string(), user };
    let told = Told::new(&caller, op.name(), &parts.method, &owner);
    let body = Mutex::new(told.count_request(body));
    let query = parts.uri.query().map(str::to_owned);
    let mut outcome = told.outcome();
    let call = Call { caller, op, owner, name, query, headers: parts.headers, body, told };
    let answered = perform(call).await;
    outcome.status(answered.as_ref().map_or_else(Problem::status, Response::status));
    Ok(answered?.map(|body| outcome.count_response(body)))
}

async fn perform(call: Call) -> Result<Response<ReplyBody>, Problem> {
    match call.op {
        Op::List => life::list(&call),
        Op::Make => life::make(call).await,
        Op::Look => life::look(&call),
        Op::End => life::end(&call).await,
        Op::Usage => life::usage(&call).await,
        Op::SetEnv => life::set_env(call).await,
        Op::Sessions => life::sessions(&call).await,
        Op::MakeSession => life::make_session(call).await,
        Op::EndSession => life::end_session(&call).await,
        Op::Snapshot => life::snapshot(&call).await,
        Op::Restore => life::restore(call).await,
        Op::Exec | Op::SessionExec => commands::exec(call).await,
        Op::GitCheckout => git::checkout(call).await,
        Op::StartProcess => processes::start(call).await,
        Op::Processes => processes::list(&call).await,
        Op::Process => processes::look(&call).await,
        Op::KillProcess => processes::kill(&call).await,
        Op::Logs => processes::logs(call).await,
        Op::Wait => processes::wait(call).await,
        Op::ReadFile => files::read(&call).await,
        Op::WriteFile => files::write(call).await,
        Op::DeleteFile => files::delete(&call).await,
        Op::ListFiles => files::list(&call).await,
        Op::StatFile => files::stat(&call).await,
        Op::MakeDirectory => files::mkdir(call).await,
        Op::RenameFile => files::rename(call).await,
        Op::WatchFiles => files::watch(call).await,
        Op::Ports => ports::list(&call),
        Op::Expose => ports::expose(call).await,
        Op::Hide => ports::hide(&call),
        Op::WaitPort => ports::wait(call).await,
    }
}

impl Call {
    /// The sandbox, made if the operation makes one.
    async fn lease(&self) -> Result<Arc<Lease>, Problem> {
        let sandboxes = &self.caller.sandboxes;
        let leased = if self.op.makes() {
            sandboxes.acquire(&self.owner, self.caller.egress.clone()).await
        } else {
            sandboxes.find(&self.owner).await
        };
        let lease = leased.map_err(problem)?;
        self.told.sandbox(lease.id().as_str());
        Ok(Arc::new(lease))
    }

    fn query(&self, allowed: &[&str]) -> Result<Query, Problem> {
        Query::parse(self.query.as_deref(), allowed)
    }

    fn body(&mut self) -> &mut RequestBody {
        self.body.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// The body as JSON; `T`'s default if there is none and `T` may be left out.
    async fn json<T: DeserializeOwned>(&mut self) -> Result<T, Problem> {
        input::require_json(&self.headers)?;
        let body = collect(std::mem::take(self.body()), SMALL_BODY_BYTES_MAX).await?;
        input::parse(&body)
    }

    /// The same for a body that may be left out.
    async fn optional_json<T: DeserializeOwned + Default>(&mut self) -> Result<T, Problem> {
        if self.body().is_end_stream() { Ok(T::default()) } else { self.json().await }
    }
}

/// All of a body within its bound.
async fn collect(mut body: RequestBody, bytes_max: u64) -> Result<Bytes, Problem> {
    let mut whole = BytesMut::new();
    while let Some(bytes) = next(&mut body).await? {
        if whole.len() as u64 + bytes.len() as u64 > bytes_max {
            return Err(Problem::too_large("The request body is too large."));
        }
        whole.extend_from_slice(&bytes);
    }
    Ok(whole.freeze())
}

/// The next bytes of a body.
async fn next(body: &mut RequestBody) -> Result<Option<Bytes>, Problem> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| match error.downcast_ref::<BodyFault>() {
            Some(fault) => fault.problem(),
            None => Problem::bad_request("The request body broke off."),
        })?;
        if let Ok(bytes) = frame.into_data() {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

/// A client's or a worker's view of the bridge's error.
fn problem(error: SandboxError) -> Problem {
    let status = StatusCode::from_u16(error.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let retry = error.is_retryable();
    let problem = Problem::new(status, error.code.as_str(), error.message);
    if retry || error.code == Code::TooMany { problem.retry_after(1) } else { problem }
}

/// 501: the operator did not configure any.
pub(crate) fn not_configured() -> Problem {
    let text = "This server has no sandboxes: its operator must configure `[sandbox]`.";
    Problem::new(StatusCode::NOT_IMPLEMENTED, "sandbox_not_configured", text)
}

/// 204.
fn no_content() -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
