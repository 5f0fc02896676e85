//! `POST /v1/execute`: code in, its result, logs and usage out.
//!
//! ```text
//! request ─▶ plan: build, look through, decide ─┬─▶ isolate ─▶ answer
//!                                               │      └─ lacked something, may be repeated ─┐
//!                                               └─▶ sandbox ◀────────────────────────────────┘
//! ```

mod plan;
mod sandbox;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use atoll_bindings::link::{Answer, Ended, Grant, Start, StartEvent};
use atoll_bindings::seam::{Identity, IsolateKey, LogLine, Outcome, Usage};
use atoll_loader::limits::ENV_BYTES_MAX;
use atoll_loader::{CheckConfig, Modules};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::auth;
use super::events::{self, Events};
use super::input::{self, LimitsInput, Strict, StrictMap, Wanted};
use super::json;
use super::workers::deploy_problem;
use crate::admission::Kind;
use crate::bindings::{Bindings, Under};
use crate::config::Tenant;
use crate::cost::Prices;
use crate::deploy::{check_var_name, to_var};
use crate::dispatch::record::Record;
use crate::dispatch::trace::{Execution, Trace};
use crate::dispatch::{Invocation, LogSink, Unanswered, Var};
use crate::observe::Routed;
use crate::problem::Problem;
use crate::route::{Language, Need, Runtime};
use crate::sandboxes::{Outlet, Rights};
use crate::server::body::ReplyBody;
use crate::server::{Gateway, host_fault, limit_text};

use plan::{Choice, Plan, RouteOutput};
use sandbox::Sink;

/// Lines waiting for a slow reader of events; more are dropped and counted.
const LIVE_LINES_MAX: usize = 1_024;

/// The request.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ExecuteInput {
    code: Option<String>,
    #[serde(default)]
    language: Language,
    #[serde(default)]
    modules: Modules,
    main_module: Option<String>,
    compatibility_date: Option<String>,
    #[serde(default)]
    compatibility_flags: Vec<String>,
    input: Option<Strict>,
    #[serde(default)]
    env: StrictMap,
    /// Further capabilities in `env`; only an isolate has them.
    #[serde(default)]
    bindings: Bindings,
    #[serde(default)]
    limits: LimitsInput,
    #[serde(default)]
    outbound: Vec<String>,
    #[serde(default)]
    egress: Option<String>,
    /// Secret proxies that it may use in a sandbox.
    #[serde(default)]
    proxies: Vec<String>,
    /// For whom it may have identities in a sandbox.
    #[serde(default)]
    audiences: Vec<String>,
    /// Where it runs; decided by the gateway if not given.
    runtime: Option<Choice>,
    /// What it needs, for the decision.
    #[serde(default)]
    needs: BTreeSet<Need>,
    /// Whether running it twice is as good as once.
    #[serde(default)]
    idempotent: bool,
    /// Whose sandbox, within the tenant.
    user: Option<String>,
}

/// The answer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExecuteOutput {
    id: String,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorOutput>,
    logs: Vec<LogOutput>,
    usage: UsageOutput,
    route: RouteOutput,
    /// Of a step in a sandbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<ProcessOutput>,
}

/// What a step's process left in a sandbox. With events, its output came before.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProcessOutput {
    /// `None` if it was ended by a signal or a limit.
    exit_code: Option<u8>,
    stdout: String,
    stderr: String,
    /// Whether output was left out.
    truncated: bool,
    /// Memory held over time.
    memory_byte_seconds: u64,
    /// Bytes sent into the sandbox for it.
    bytes_in: u64,
    /// Bytes received from the sandbox for it.
    bytes_out: u64,
}

#[derive(Serialize)]
struct ErrorOutput {
    code: &'static str,
    name: String,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stack: Option<String>,
}

/// A console line, as clients see it.
#[derive(Clone, Serialize)]
pub(super) struct LogOutput {
    level: atoll_bindings::seam::LogLevel,
    time: u64,
    message: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
    /// Of lines that a logger made.
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<Box<RawValue>>,
}

impl From<&LogLine> for LogOutput {
    fn from(line: &LogLine) -> Self {
        let message = line.message.clone();
        // It was written as JSON here; what does not parse cannot be there.
        let fields = line.fields.as_ref().and_then(|text| RawValue::from_string(text.to_string()).ok());
        Self { level: line.level, time: line.time_ms, message, truncated: line.truncated, fields }
    }
}

/// What an invocation used, as clients see it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UsageOutput {
    cpu_us: u64,
    wall_us: u64,
    isolate_wait_us: u64,
    heap_bytes_peak: u64,
    external_bytes_peak: u64,
    #[serde(rename = "subRequests")]
    subrequests: u32,
    log_bytes: u32,
    loads: u32,
    /// In micro-units of the operator's currency.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<u64>,
}

impl UsageOutput {
    /// With its cost, where the operator has prices.
    pub(super) fn priced(usage: Usage, prices: Option<&Prices>) -> Self {
        Self {
            cpu_us: usage.cpu_us,
            wall_us: usage.wall_us,
            isolate_wait_us: usage.isolate_wait_us,
            heap_bytes_peak: usage.heap_bytes_peak,
            external_bytes_peak: usage.external_bytes_peak,
            subrequests: usage.subrequests,
            log_bytes: usage.log_bytes,
            loads: usage.loads,
            cost: prices.map(|prices| prices.execution(&usage)),
        }
    }
}

/// Answers the request.
pub(super) async fn post(
    gateway: &Arc<Gateway>,
    tenant: &Arc<Tenant>,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Problem> {
    let wanted = input::wanted(request.headers())?;
    input::require_json(request.headers())?;
    let headers = request.headers().clone();
    let body = input::read(request, &gateway.config.http, input::CODE_BODY_BYTES_MAX).await?;
    let parsed: ExecuteInput = input::parse(&body)?;
    let permit = gateway.admit(&tenant.name, Kind::Execution)?;
    let id: Arc<str> =
        format!("{:016x}{:016x}", crate::server::random_u64(), crate::server::random_u64()).into();
    let observer = gateway.observer.clone();
    let mut trace = observer.begin(&headers);
    trace.execution = Some(Execution::new(id.clone()));
    let (user, traceparent) = (parsed.user.as_deref().map(Into::into), trace.parent.clone());
    let mut record = Record::new(observer, tenant.name.shared(), id.clone(), "execute", traceparent, permit)
        .of(&trace)
        .by(auth::token_id(&headers));
    record.traffic().request_bytes.store(body.len() as u64, Relaxed);
    let checks = gateway.deployer.checks();
    match prepare(gateway, tenant, &id, parsed, checks, &trace).await {
        Err(problem) => {
            let usage = Usage::default();
            record.finish(&Ended { outcome: Outcome::Refused(problem.code().to_owned()), usage });
            Err(problem)
        }
        Ok(prepared) => {
            record.planned(user, (&prepared.plan.decision).into());
            match wanted {
                Wanted::Json => Ok(whole(gateway, id, prepared, record).await?),
                Wanted::Events => Ok(streamed(gateway, id, prepared, record)),
            }
        }
    }
}

/// A step on its way: where it runs, and what an isolate gets.
struct Prepared {
    plan: Plan,
    /// `None` if it runs in a sandbox.
    start: Option<Start>,
}

/// Checks everything, decides, and makes the invocation if it is to be one.
async fn prepare(
    gateway: &Arc<Gateway>,
    tenant: &Arc<Tenant>,
    id: &Arc<str>,
    mut parsed: ExecuteInput,
    checks: CheckConfig,
    trace: &Trace,
) -> Result<Prepared, Problem> {
    let input = parsed.input.as_ref().map_or_else(|| "null".to_owned(), |Strict(value)| value.to_string());
    let mut env = grants(&parsed.env.0)?;
    if let Some(name) = parsed.bindings.keys().find(|name| parsed.env.0.contains_key(*name)) {
        return Err(Problem::unprocessable(
            "invalid_setting",
            format!("`bindings`: {name:?} is there twice"),
        ));
    }
    let bound = gateway
        .deployer
        .bind(tenant, id, parsed.egress.as_deref(), &parsed.bindings)
        .map_err(|error| deploy_problem(&error))?;
    let outbound = gateway
        .deployer
        .outbound(tenant, id, parsed.egress.as_deref(), &parsed.outbound)
        .map_err(|error| deploy_problem(&error))?;
    // Parsing and stripping is work: not on the threads that move bytes.
    let (shared, payer, told) = (gateway.clone(), tenant.clone(), input.clone());
    let rights = Rights {
        proxies: std::mem::take(&mut parsed.proxies),
        audiences: std::mem::take(&mut parsed.audiences),
    };
    let checked = rights.check(&gateway.access, &tenant.name);
    checked.map_err(|text| Problem::unprocessable("invalid_setting", format!("{text}.")))?;
    let has_rights = !rights.is_none();
    let channel = outbound.as_ref().map(|channel| trace.channel(channel));
    let outlet = Outlet::with(channel, rights, &tenant.name, id.clone());
    let planned =
        tokio::task::spawn_blocking(move || plan::plan(&shared, &payer, parsed, &checks, told, outlet)).await;
    let plan = planned.map_err(|error| Problem::internal(&error))??;
    tell(gateway, id, &plan);
    if !bound.is_empty() && plan.decision.runtime == Runtime::Sandbox {
        let detail = "`bindings` are available in isolates only, and this step runs in a sandbox.";
        return Err(Problem::unprocessable("bindings_in_sandbox", detail));
    }
    if has_rights && plan.decision.runtime == Runtime::Isolate {
        let detail = "`proxies` and `audiences` are for sandboxes, and this step runs in an isolate, which has `bindings`.";
        return Err(Problem::unprocessable("rights_in_isolate", detail));
    }
    if let Some(bundle) = plan.bundle() {
        let under = Under { tenant: &tenant.name, trace, code: bundle.hash(), limits: &plan.limits };
        env.extend(bound.iter().map(|(name, bound)| (name.clone(), bound.grant(under))));
    }
    let start = match (plan.decision.runtime, plan.bundle()) {
        (Runtime::Isolate, Some(bundle)) => Some(Start {
            bundle: bundle.clone(),
            isolate: IsolateKey::Fresh,
            entrypoint: None,
            props: None,
            event: StartEvent::Execute { input },
            identity: Identity {
                tenant: tenant.name.shared(),
                worker: id.clone(),
                traceparent: trace.parent.as_deref().map(str::to_owned),
            },
            limits: plan.limits,
            env,
            outbound: outbound.map(|channel| trace.channel(&channel)),
        }),
        _ => None,
    };
    Ok(Prepared { plan, start })
}

/// Reports a decision.
fn tell(gateway: &Gateway, id: &Arc<str>, plan: &Plan) {
    let event = Routed { tenant: &plan.step.tenant, worker: id, decision: &plan.decision };
    gateway.observer.routed(&event);
}

fn grants(env: &BTreeMap<String, Value>) -> Result<Vec<(Arc<str>, Grant)>, Problem> {
    let mut bytes = 0;
    let mut grants = Vec::with_capacity(env.len());
    for (name, value) in env {
        check_var_name(name).map_err(|error| deploy_problem(&error))?;
        let grant = match to_var(value) {
            Var::Text(text) => {
                bytes += text.len();
                Grant::Text(text)
            }
            Var::Json(json) => {
                bytes += json.len();
                Grant::Json(json)
            }
            Var::Loader => continue,
        };
        grants.push((name.as_str().into(), grant));
    }
    if bytes > ENV_BYTES_MAX {
        return Err(Problem::unprocessable(
            "env_size",
            format!("`env` is larger than {ENV_BYTES_MAX} bytes."),
        ));
    }
    Ok(grants)
}

/// Keeps every line.
#[derive(Default)]
struct Kept(Vec<LogOutput>);

impl LogSink for Kept {
    fn line(&mut self, line: LogLine) {
        // Bounded by the invocation's `log_bytes`.
        self.0.push((&line).into());
    }
}

/// Hands lines on to a stream of events.
struct Live(mpsc::Sender<LogOutput>);

impl LogSink for Live {
    fn line(&mut self, line: LogLine) {
        let _ = self.0.try_send((&line).into());
    }
}

async fn whole(
    gateway: &Gateway,
    id: Arc<str>,
    prepared: Prepared,
    record: Record,
) -> Result<Response<ReplyBody>, Problem> {
    let Prepared { mut plan, start } = prepared;
    let Some(start) = start else {
        let output = sandbox::run(gateway, &id, &plan, Vec::new(), Sink::Keep, record).await?;
        return Ok(json(StatusCode::OK, &output));
    };
    let (answer, end, kept) =
        match Invocation::start(&*gateway.isolates, start, Kept::default(), record).await {
            Err(ended) => (None, Unanswered::from(*ended), None),
            Ok(invocation) => match invocation.answer().await {
                Err((end, kept)) => (None, end, kept),
                Ok((answer, invocation)) => {
                    let (ended, kept) = invocation.ended().await;
                    (Some(answer), ended.into(), kept)
                }
            },
        };
    let prices = gateway.config.cost.as_ref();
    if let Some(problem) = not_an_execution(&end, prices) {
        return Err(problem.with("id", id.as_ref()));
    }
    let logs = kept.unwrap_or_default().0;
    if let Some(record) = sandbox::again(gateway, &id, &mut plan, &end.ended) {
        let output = sandbox::run(gateway, &id, &plan, logs, Sink::Keep, record).await?;
        return Ok(json(StatusCode::OK, &output));
    }
    Ok(json(StatusCode::OK, &output(&id, &plan, answer, end.ended, logs, prices)))
}

/// Ends that are not the guest's doing: the execution never was one.
fn not_an_execution(end: &Unanswered, prices: Option<&Prices>) -> Option<Problem> {
    match &end.ended.outcome {
        Outcome::Refused(reason) => Some(Problem::unprocessable("refused", reason.clone())),
        // What is known of it: a lost host cannot say more than how long it took.
        Outcome::HostFault(_) => Some(host_fault(end.suspicion).with(
            "usage",
            serde_json::to_value(UsageOutput::priced(end.ended.usage, prices)).unwrap_or_default(),
        )),
        _ => None,
    }
}

fn output(
    id: &str,
    plan: &Plan,
    answer: Option<Answer>,
    ended: Ended,
    logs: Vec<LogOutput>,
    prices: Option<&Prices>,
) -> ExecuteOutput {
    let result = match (&ended.outcome, answer) {
        (Outcome::Done, Some(Answer::Value(json))) => {
            // The host is not believed: what it sends must be JSON.
            RawValue::from_string(json).map(Some).unwrap_or_default()
        }
        _ => None,
    };
    let error = result.is_none().then(|| error(&ended.outcome));
    let usage = UsageOutput::priced(ended.usage, prices);
    let (ok, route) = (error.is_none(), (&plan.decision).into());
    ExecuteOutput { id: id.to_owned(), ok, result, error, logs, usage, route, process: None }
}

fn error(outcome: &Outcome) -> ErrorOutput {
    let code = outcome.code();
    let plain =
        |message: &str| ErrorOutput { code, name: "Error".into(), message: message.into(), stack: None };
    match outcome {
        Outcome::GuestError(error) => ErrorOutput {
            code,
            name: error.name.clone(),
            message: error.message.clone(),
            stack: error.stack.clone(),
        },
        Outcome::Limit(kind) => plain(limit_text(*kind)),
        Outcome::Hung => plain("The code waits for something that can never happen."),
        Outcome::Canceled => plain("The execution was cancelled."),
        Outcome::Refused(reason) | Outcome::HostFault(reason) => plain(reason),
        Outcome::Done => ErrorOutput { code: "no_result", ..plain("The code gave no result.") },
    }
}

/// `log` events as they come (`stdout` and `stderr` from a sandbox), then one `result` event or one `problem` event.
fn streamed(gateway: &Arc<Gateway>, id: Arc<str>, prepared: Prepared, record: Record) -> Response<ReplyBody> {
    let (events, response) = events::response();
    let gateway = gateway.clone();
    tokio::spawn(async move {
        // A client that goes away cancels the execution: dropping the run drops what it started.
        let finished = tokio::select! {
            finished = live(&gateway, &id, prepared, record, &events) => finished,
            () = events.gone() => return,
        };
        let _ = match finished {
            Err(problem) => events.send("problem", &problem.document()).await,
            Ok(output) => events.send("result", &output).await,
        };
    });
    response
}

async fn live(
    gateway: &Gateway,
    id: &Arc<str>,
    prepared: Prepared,
    record: Record,
    events: &Events,
) -> Result<ExecuteOutput, Problem> {
    let Prepared { mut plan, start } = prepared;
    let Some(start) = start else {
        return sandbox::run(gateway, id, &plan, Vec::new(), Sink::Live(events), record).await;
    };
    let (lines, mut live) = mpsc::channel(LIVE_LINES_MAX);
    let run = async {
        match Invocation::start(&*gateway.isolates, start, Live(lines), record).await {
            Err(ended) => (None, Unanswered::from(*ended)),
            Ok(invocation) => match invocation.answer().await {
                Err((end, _)) => (None, end),
                Ok((answer, invocation)) => (Some(answer), invocation.ended().await.0.into()),
            },
        }
    };
    let tell = async {
        while let Some(line) = live.recv().await {
            if events.send("log", &line).await.is_err() {
                // Wait to be dropped together with `run`.
                std::future::pending::<Infallible>().await;
            }
        }
    };
    let (answer, end) = tokio::join!(run, tell).0;
    let prices = gateway.config.cost.as_ref();
    if let Some(problem) = not_an_execution(&end, prices) {
        return Err(problem);
    }
    if let Some(record) = sandbox::again(gateway, id, &mut plan, &end.ended) {
        return sandbox::run(gateway, id, &plan, Vec::new(), Sink::Live(events), record).await;
    }
    Ok(output(id, &plan, answer, end.ended, Vec::new(), prices))
}
