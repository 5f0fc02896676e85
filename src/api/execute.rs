//! `POST /v1/execute`: code in, its result, logs and usage out.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use atoll_bindings::link::{Answer, Ended, Grant, Start, StartEvent};
use atoll_bindings::seam::{Identity, IsolateKey, LogLine, Outcome, Usage};
use atoll_loader::bundle::Bundle;
use atoll_loader::compat::DEFAULT_COMPATIBILITY_DATE;
use atoll_loader::limits::{ENV_BYTES_MAX, Limits};
use atoll_loader::{CheckConfig, CodeError, Language, Modules, Snippet, WorkerCode};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::input::{self, LimitsInput, Strict, StrictMap, Wanted};
use super::workers::deploy_problem;
use super::{events, json};
use crate::admission::Kind;
use crate::config::Tenant;
use crate::deploy::{check_var_name, to_var};
use crate::dispatch::record::Record;
use crate::dispatch::trace::Trace;
use crate::dispatch::{Invocation, LogSink, Unanswered, Var};
use crate::problem::Problem;
use crate::server::body::ReplyBody;
use crate::server::{Gateway, host_fault, limit_text};

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
    #[serde(default)]
    limits: LimitsInput,
    #[serde(default)]
    outbound: Vec<String>,
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
}

impl From<&LogLine> for LogOutput {
    fn from(line: &LogLine) -> Self {
        let message = line.message.clone();
        Self { level: line.level, time: line.time_ms, message, truncated: line.truncated }
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
}

impl From<Usage> for UsageOutput {
    fn from(usage: Usage) -> Self {
        Self {
            cpu_us: usage.cpu_us,
            wall_us: usage.wall_us,
            isolate_wait_us: usage.isolate_wait_us,
            heap_bytes_peak: usage.heap_bytes_peak,
            external_bytes_peak: usage.external_bytes_peak,
            subrequests: usage.subrequests,
            log_bytes: usage.log_bytes,
            loads: usage.loads,
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
    let permit = gateway.admission.enter(&tenant.name, Kind::Execution).map_err(|denied| {
        gateway.observer.denied(tenant.name.as_str(), denied);
        Problem::from(denied)
    })?;
    let id: Arc<str> =
        format!("{:016x}{:016x}", crate::server::random_u64(), crate::server::random_u64()).into();
    let observer = gateway.observer.clone();
    let trace = observer.begin(&headers);
    let record =
        Record::new(observer, tenant.name.shared(), id.clone(), "execute", trace.parent.clone(), permit);
    let checks = gateway.deployer.checks();
    match prepare(gateway, tenant, &id, parsed, checks, &trace).await {
        Err(problem) => {
            let usage = Usage::default();
            record.finish(&Ended { outcome: Outcome::Refused(problem.code().to_owned()), usage });
            Err(problem)
        }
        Ok(start) => match wanted {
            Wanted::Json => Ok(whole(gateway, id, start, record).await?),
            Wanted::Events => Ok(streamed(gateway, id, start, record)),
        },
    }
}

/// Checks everything and makes the invocation.
async fn prepare(
    gateway: &Gateway,
    tenant: &Tenant,
    id: &Arc<str>,
    mut parsed: ExecuteInput,
    checks: CheckConfig,
    trace: &Trace,
) -> Result<Start, Problem> {
    let limits = parsed.limits.lower(tenant.limits);
    let input = parsed.input.as_ref().map_or_else(|| "null".to_owned(), |Strict(value)| value.to_string());
    let env = grants(std::mem::take(&mut parsed.env.0))?;
    let outbound =
        gateway.deployer.outbound(tenant, id, &parsed.outbound).map_err(|error| deploy_problem(&error))?;
    // Parsing and stripping is work: not on the threads that move bytes.
    let built = tokio::task::spawn_blocking(move || build(parsed, limits, &checks)).await;
    let (bundle, limits) = built.map_err(|error| Problem::internal(&error))??;
    Ok(Start {
        bundle: Arc::new(bundle),
        isolate: IsolateKey::Fresh,
        entrypoint: None,
        props: None,
        event: StartEvent::Execute { input },
        identity: Identity {
            tenant: tenant.name.shared(),
            worker: id.clone(),
            traceparent: trace.parent.as_deref().map(str::to_owned),
        },
        limits,
        env,
        outbound: outbound.map(|channel| trace.channel(&channel)),
    })
}

fn grants(env: BTreeMap<String, Value>) -> Result<Vec<(Arc<str>, Grant)>, Problem> {
    let mut bytes = 0;
    let mut grants = Vec::with_capacity(env.len());
    for (name, value) in env {
        check_var_name(&name).map_err(|error| deploy_problem(&error))?;
        let grant = match to_var(&value) {
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

fn build(parsed: ExecuteInput, limits: Limits, checks: &CheckConfig) -> Result<(Bundle, Limits), Problem> {
    let refused = |error: CodeError| input::code_problem(&error);
    let mut code = match (parsed.code, parsed.main_module) {
        (Some(code), None) => {
            let snippet = Snippet { code, language: parsed.language, modules: parsed.modules };
            snippet.into_code().map_err(refused)?
        }
        (None, Some(main)) => {
            let mut code = WorkerCode::new(main);
            code.modules = parsed.modules.0;
            code
        }
        _ => return Err(Problem::bad_request("Give either `code`, or `modules` and `mainModule`.")),
    };
    code.compatibility_date =
        parsed.compatibility_date.unwrap_or_else(|| DEFAULT_COMPATIBILITY_DATE.to_owned());
    code.compatibility_flags = parsed.compatibility_flags;
    Ok((code.build_with(checks).map_err(refused)?, limits))
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
    start: Start,
    record: Record,
) -> Result<Response<ReplyBody>, Problem> {
    let (answer, end, kept) = match Invocation::start(&*gateway.isolates, start, Kept::default(), record) {
        Err(ended) => (None, Unanswered::from(*ended), None),
        Ok(invocation) => match invocation.answer().await {
            Err((end, kept)) => (None, end, kept),
            Ok((answer, invocation)) => {
                let (ended, kept) = invocation.ended().await;
                (Some(answer), ended.into(), kept)
            }
        },
    };
    if let Some(problem) = not_an_execution(&end) {
        return Err(problem.with("id", id.as_ref()));
    }
    Ok(json(StatusCode::OK, &output(&id, answer, end.ended, kept.unwrap_or_default().0)))
}

/// Ends that are not the guest's doing: the execution never was one.
fn not_an_execution(end: &Unanswered) -> Option<Problem> {
    match &end.ended.outcome {
        Outcome::Refused(reason) => Some(Problem::unprocessable("refused", reason.clone())),
        // What is known of it: a lost host cannot say more than how long it took.
        Outcome::HostFault(_) => Some(
            host_fault(end.suspicion)
                .with("usage", serde_json::to_value(UsageOutput::from(end.ended.usage)).unwrap_or_default()),
        ),
        _ => None,
    }
}

fn output(id: &str, answer: Option<Answer>, ended: Ended, logs: Vec<LogOutput>) -> ExecuteOutput {
    let result = match (&ended.outcome, answer) {
        (Outcome::Done, Some(Answer::Value(json))) => {
            // The host is not believed: what it sends must be JSON.
            RawValue::from_string(json).map(Some).unwrap_or_default()
        }
        _ => None,
    };
    let error = result.is_none().then(|| error(&ended.outcome));
    let usage = ended.usage.into();
    ExecuteOutput { id: id.to_owned(), ok: error.is_none(), result, error, logs, usage }
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

/// `log` events as they come, then one `result` event (or one `problem` event).
fn streamed(gateway: &Arc<Gateway>, id: Arc<str>, start: Start, record: Record) -> Response<ReplyBody> {
    let (events, response) = events::response();
    let gateway = gateway.clone();
    tokio::spawn(async move {
        let (lines, mut live) = mpsc::channel(LIVE_LINES_MAX);
        let run = async {
            match Invocation::start(&*gateway.isolates, start, Live(lines), record) {
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
        let both = async { tokio::join!(run, tell).0 };
        // A client that goes away cancels the execution: dropping `both` drops the invocation.
        let (answer, end) = tokio::select! {
            finished = both => finished,
            () = events.gone() => return,
        };
        let _ = match not_an_execution(&end) {
            Some(problem) => events.send("problem", &problem.document()).await,
            None => events.send("result", &output(&id, answer, end.ended, Vec::new())).await,
        };
    });
    response
}
