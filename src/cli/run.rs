//! `atoll run`: one invocation, here, in a fresh isolate, without a server and without network.

use std::sync::Arc;

use atoll_bindings::body::RequestBody;
use atoll_bindings::link::{Answer, Ended, Grant, GuestBody, Link, Start, StartEvent};
use atoll_bindings::seam::{Identity, IsolateKey, LogLine, Outcome};
use atoll_loader::{Deployment, Var};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request};
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::args::local::Run;
use super::exit::{Failure, Kind, Result};
use super::package::{self, Form};
use super::{engine, output};

/// Where requests without a host go, as the guest sees it.
const BASE_URL: &str = "http://localhost";
/// Largest body that `--json` puts into its object, in bytes.
const JSON_BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// `atoll run`.
pub(crate) async fn run(args: Run) -> Result<()> {
    run_on(engine::in_process, args).await
}

/// The same on any isolate host, which is started once the arguments proved usable.
async fn run_on(host: impl FnOnce() -> Result<Link>, args: Run) -> Result<()> {
    let (deployment, looks) = package::runnable(&args.path, args.ts)?;
    let form = match (&args.input, &args.request) {
        (Some(_), _) => Form::Function,
        (None, Some(_)) => Form::Worker,
        (None, None) => looks,
    };
    let event = match form {
        Form::Worker => StartEvent::Fetch(request(&args)?),
        Form::Function => StartEvent::Execute { input: input(&args)? },
    };
    let start = start(&args, deployment, event)?;
    let link = host()?;
    let mut running = link.start(start).map_err(|error| Failure::new(Kind::Internal, error))?;
    let lines = tokio::spawn(logs(running.take_logs(), args.json));
    let answer = running.answer().await;
    let (shown, ended) = match answer {
        Err(ended) => (Shown::Nothing, ended),
        Ok(Answer::Value(json)) => (Shown::Value(json), running.ended().await),
        Ok(Answer::Response(response)) => {
            let shown = show_response(&args, response).await;
            (shown, running.ended().await)
        }
    };
    let logs = lines.await.unwrap_or_default();
    finish(&args, shown, &ended, logs)
}

fn start(args: &Run, deployment: Deployment, event: StartEvent) -> Result<Start> {
    let mut limits = package::limits(&args.guest)?;
    limits.cpu_ms = deployment.code.limits.cpu_ms.map_or(limits.cpu_ms, |ms| ms.min(limits.cpu_ms));
    let mut vars = deployment.vars;
    let given = package::env_values(&args.guest)?;
    vars.retain(|(name, _)| !given.iter().any(|(other, _)| other == name));
    vars.extend(given);
    let grant = |(name, var): (String, Var)| match var {
        Var::Text(text) => (Arc::from(name), Grant::Text(text)),
        Var::Json(json) => (Arc::from(name), Grant::Json(json)),
    };
    let mut env: Vec<(Arc<str>, Grant)> = vars.into_iter().map(grant).collect();
    env.extend(deployment.loaders.into_iter().map(|name| {
        let scope = format!("run/{name}").into();
        (Arc::from(name), Grant::Loader { scope })
    }));
    for (name, _) in &deployment.bindings {
        output::warning(&format!("binding {name}: left out, it needs a server: `atoll dev` starts one"));
    }
    let bundle = deployment.code.build().map_err(|error| Failure::new(Kind::Refused, error))?;
    Ok(Start {
        bundle: Arc::new(bundle),
        isolate: IsolateKey::Fresh,
        entrypoint: None,
        props: None,
        event,
        identity: Identity { tenant: "local".into(), worker: "run".into(), traceparent: None },
        limits,
        env,
        outbound: None,
    })
}

fn input(args: &Run) -> Result<String> {
    match &args.input {
        Some(text) => package::parse_json("--input", text).map(|value| value.to_string()),
        None => Ok("null".into()),
    }
}

fn request(args: &Run) -> Result<Request<RequestBody>> {
    let text = args.request.as_deref().unwrap_or("GET /");
    let (method, target) = text.split_once(' ').unwrap_or(("GET", text));
    let target = target.trim();
    let uri = if target.starts_with('/') { format!("{BASE_URL}{target}") } else { target.to_owned() };
    let body = match &args.data {
        Some(text) => RequestBody::Full(Bytes::from(text.clone())),
        None => RequestBody::Empty,
    };
    let bad = |error: &dyn std::fmt::Display| {
        Failure::usage(format!("the request {text:?} is not valid: {error}"))
            .hint("like --request 'GET /path?query'")
    };
    let mut request = Request::builder().method(method).uri(uri).body(body).map_err(|error| bad(&error))?;
    if !matches!(request.uri().scheme_str(), Some("http" | "https")) {
        return Err(bad(&"the path must begin with / or be a whole URL"));
    }
    for header in &args.headers {
        let bad = || {
            Failure::usage(format!("{header:?} is not a header")).hint("like -H 'content-type: text/plain'")
        };
        let (name, value) = header.split_once(':').ok_or_else(bad)?;
        let name = HeaderName::try_from(name.trim()).map_err(|_| bad())?;
        let value = HeaderValue::try_from(value.trim()).map_err(|_| bad())?;
        request.headers_mut().append(name, value);
    }
    Ok(request)
}

/// Shows lines as they come, or keeps them for the JSON object. The queue and `log_bytes` bound them.
async fn logs(lines: Option<mpsc::Receiver<LogLine>>, keep: bool) -> Vec<LogLine> {
    let mut kept = Vec::new();
    let Some(mut lines) = lines else { return kept };
    while let Some(line) = lines.recv().await {
        if keep {
            kept.push(line);
        } else {
            output::log_line(line.level, &line.message);
        }
    }
    kept
}

/// What came of the answer.
enum Shown {
    Nothing,
    Value(String),
    /// Written already, as it came; or the object for `--json`.
    Response {
        object: Value,
        broken: Option<String>,
    },
}

async fn show_response(args: &Run, response: http::Response<GuestBody>) -> Shown {
    let (head, mut body) = response.into_parts();
    let headers: Vec<[String; 2]> = head
        .headers
        .iter()
        .map(|(name, value)| [name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()])
        .collect();
    let mut object = json!({ "status": head.status.as_u16(), "headers": headers });
    if args.json {
        let read = Limited::new(body, JSON_BODY_BYTES_MAX).collect().await;
        let broken = match read {
            Ok(whole) => {
                let bytes = whole.to_bytes();
                match std::str::from_utf8(&bytes) {
                    Ok(text) => object["body"] = text.into(),
                    Err(_) => object["body_base64"] = STANDARD.encode(&bytes).into(),
                }
                None
            }
            Err(error) => Some(error.to_string()),
        };
        return Shown::Response { object, broken };
    }
    if args.include {
        output::line(&format!("HTTP {}", head.status));
        headers.iter().for_each(|[name, value]| output::line(&format!("{name}: {value}")));
        output::line("");
    }
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => {
                if frame.data_ref().is_some_and(|bytes| !output::bytes(bytes)) {
                    break; // nobody reads our output any more
                }
            }
            Err(error) => return Shown::Response { object, broken: Some(error.to_string()) },
        }
    }
    Shown::Response { object, broken: None }
}

fn finish(args: &Run, shown: Shown, ended: &Ended, logs: Vec<LogLine>) -> Result<()> {
    let code = ended.outcome.code();
    let broken = matches!(&shown, Shown::Response { broken: Some(_), .. });
    let kind = Failure::kind_of_code(code).or(broken.then_some(Kind::Guest));
    if args.json {
        output::json_line(&report(shown, ended, kind.is_none(), logs));
        return kind.map_or(Ok(()), |kind| Err(Failure::silent(kind)));
    }
    if let Shown::Value(json) = &shown
        && kind.is_none()
    {
        let value = serde_json::from_str(json).unwrap_or(Value::Null);
        output::json_line(&value);
    }
    let Some(kind) = kind else { return Ok(()) };
    let failure = match (&ended.outcome, shown) {
        (Outcome::Done, Shown::Response { broken: Some(reason), .. }) => {
            Failure::new(kind, format!("the response broke off: {reason}"))
        }
        (outcome, _) => Failure::new(kind, describe(outcome)),
    };
    Err(match kind {
        Kind::Limit => failure.hint("raise it with --limits, for example --limits cpuMs=5000"),
        _ => failure,
    })
}

/// An outcome for people.
fn describe(outcome: &Outcome) -> String {
    match outcome {
        Outcome::GuestError(error) => match &error.stack {
            Some(stack) if !stack.is_empty() => stack.clone(),
            _ => format!("{}: {}", error.name, error.message),
        },
        Outcome::Refused(reason) | Outcome::HostFault(reason) => reason.clone(),
        Outcome::Limit(_) => format!("the guest reached a limit ({})", outcome.code()),
        Outcome::Hung => "the guest waits for something that can never happen (hung)".into(),
        Outcome::Done | Outcome::Canceled => outcome.code().into(),
    }
}

fn report(shown: Shown, ended: &Ended, ok: bool, logs: Vec<LogLine>) -> Value {
    let logs: Vec<Value> = logs
        .iter()
        .map(|line| json!({ "level": line.level, "time": line.time_ms, "message": line.message }))
        .collect();
    let mut report = json!({ "ok": ok, "logs": logs, "usage": output::usage(&ended.usage) });
    match shown {
        Shown::Nothing => {}
        Shown::Value(json) => report["result"] = serde_json::from_str(&json).unwrap_or(Value::Null),
        Shown::Response { object, .. } => report["response"] = object,
    }
    if !ok {
        let mut error = json!({ "code": ended.outcome.code(), "message": describe(&ended.outcome) });
        if let Outcome::GuestError(thrown) = &ended.outcome {
            error["name"] = thrown.name.clone().into();
            error["message"] = thrown.message.clone().into();
            error["stack"] = thrown.stack.clone().into();
        }
        report["error"] = error;
    }
    report
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use atoll_bindings::link;
    use atoll_bindings::seam::{
        Body, EnvValue, Event, GuestError, HttpResponse, InvocationId, LimitKind, LogLevel, Outbound,
        ToGateway, ToHost, Usage,
    };
    use clap::Parser as _;

    use super::super::args::{Cli, Command};
    use super::*;

    /// An isolate host that speaks the real protocol and answers by what the code says.
    fn host() -> Result<Link> {
        let (link, mut endpoint) = link::in_process();
        tokio::spawn(async move {
            let mut source = String::new();
            while let Some(message) = endpoint.inbox.recv().await {
                match message {
                    ToHost::Bundle { encoded, .. } => source = String::from_utf8_lossy(&encoded).into_owned(),
                    ToHost::Invoke(invoke) => {
                        assert_eq!(invoke.outbound, Outbound::Denied);
                        for reply in replies(&source, invoke.id, &invoke.event, &invoke.env) {
                            endpoint.outbox.send(reply).unwrap();
                        }
                    }
                    _ => {}
                }
            }
        });
        Ok(link)
    }

    fn replies(
        source: &str,
        invocation: InvocationId,
        event: &Event,
        env: &[(Arc<str>, EnvValue)],
    ) -> Vec<ToGateway> {
        let done = |outcome| ToGateway::Done { invocation, outcome, usage: Usage::default() };
        let line = LogLine {
            invocation,
            level: LogLevel::Log,
            time_ms: 1,
            message: "hi".into(),
            truncated: false,
            fields: None,
        };
        if source.contains("THROW") {
            let error = GuestError { name: "Error".into(), message: "thrown".into(), stack: None };
            return vec![ToGateway::Log(line), done(Outcome::GuestError(error))];
        }
        if source.contains("SPIN") {
            return vec![done(Outcome::Limit(LimitKind::Cpu))];
        }
        let answer = match event {
            Event::Execute { input } => {
                let json = format!("[{input},{}]", env.len());
                ToGateway::Returned { invocation, json }
            }
            Event::Fetch(request) => {
                let body = format!("{} {} {:?}", request.method, request.url, request.headers);
                let response = HttpResponse {
                    status: 418,
                    status_text: String::new(),
                    headers: vec![("x-a".into(), Bytes::from_static(b"b"))],
                    body: Body::Inline(body.into()),
                    url: String::new(),
                    redirected: false,
                };
                ToGateway::Response { invocation, response }
            }
            Event::Scheduled { .. } | Event::Session { .. } => unreachable!("`atoll run` has neither"),
        };
        vec![ToGateway::Log(line), answer, done(Outcome::Done)]
    }

    async fn outcome(code: &str, ending: &str, flags: &[&str]) -> Option<Kind> {
        let mut file = tempfile::Builder::new().suffix(ending).tempfile().unwrap();
        file.write_all(code.as_bytes()).unwrap();
        let path = file.path().to_str().unwrap();
        let cli = Cli::try_parse_from(["atoll", "run", path].iter().chain(flags)).unwrap();
        let Command::Run(args) = cli.command else { panic!("{cli:?}") };
        run_on(host, args).await.err().map(|failure| failure.kind)
    }

    #[tokio::test]
    async fn each_ending_has_its_exit_code() {
        for json in [&[][..], &["--json"]] {
            assert_eq!(outcome("return 1", ".js", json).await, None);
            assert_eq!(outcome("export default { fetch() {} }", ".js", json).await, None);
            assert_eq!(outcome("const n: number = 1; return n", ".ts", json).await, None);
            assert_eq!(outcome("'THROW'; return 1", ".js", json).await, Some(Kind::Guest));
            assert_eq!(outcome("'SPIN'; return 1", ".js", json).await, Some(Kind::Limit));
            assert_eq!(outcome("return 1 +", ".js", json).await, Some(Kind::Refused));
        }
    }

    #[tokio::test]
    async fn wrong_arguments_are_usage_errors_and_start_nothing() {
        for flags in [
            &["--input", "{"][..],
            &["--request", "GET nowhere"],
            &["--request", "G ET /"],
            &["--request", "GET /", "-H", "no colon"],
            &["--env-json", "A=nope"],
            &["--limits", "cpuMs=lots"],
        ] {
            assert_eq!(outcome("return 1", ".js", flags).await, Some(Kind::Usage), "{flags:?}");
        }
    }

    #[tokio::test]
    async fn a_host_that_is_gone_is_our_fault_not_the_guests() {
        let cli = Cli::try_parse_from(["atoll", "run", "examples/execute/snippet.js"]).unwrap();
        let Command::Run(args) = cli.command else { panic!("{cli:?}") };
        let gone = || {
            let (link, endpoint) = link::in_process();
            drop(endpoint);
            Ok(link)
        };
        assert_eq!(run_on(gone, args).await.unwrap_err().kind, Kind::Internal);
    }

    #[test]
    fn the_report_says_everything() {
        let thrown = GuestError { name: "RangeError".into(), message: "m".into(), stack: Some("s".into()) };
        let usage = Usage { cpu_us: 5, ..Usage::default() };
        let ended = Ended { outcome: Outcome::GuestError(thrown), usage };
        let report = report(Shown::Nothing, &ended, false, Vec::new());
        assert_eq!(report["ok"], false);
        assert_eq!(
            report["error"],
            json!({ "code": "guest_error", "name": "RangeError", "message": "m", "stack": "s" })
        );
        assert_eq!(report["usage"]["cpuUs"], 5);
    }
}
