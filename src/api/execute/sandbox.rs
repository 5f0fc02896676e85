//! An execution in a sandbox: its output as it comes, one end, one terminal event.

use std::sync::Arc;

use atoll_bindings::link::Ended;
use atoll_bindings::seam::{GuestError, LimitKind, Outcome, Usage};
use atoll_loader::parse_json;
use http::StatusCode;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::plan::Plan;
use super::{ErrorOutput, ExecuteOutput, LogOutput, UsageOutput};
use crate::admission::Kind;
use crate::api::events::Events;
use crate::api::input::Strict;
use crate::audit::entry::Stepped;
use crate::dispatch::record::Record;
use crate::problem::Problem;
use crate::route::decide;
use crate::route::missing::{Missing, may_repeat};
use crate::route::runner::{
    OUTPUTS_WAITING_MAX, Output, RESULT_BYTES_MAX, StepEnd, StepExit, StepFailed, StepUsage, Stream, Value,
};
use crate::server::Gateway;

/// A piece of output as an event.
#[derive(Serialize)]
struct Piece {
    text: String,
}

/// What a step wrote: kept up to its bound, or handed on to a client.
pub(super) enum Sink<'a> {
    Keep,
    Live(&'a Events),
}

/// Runs the step, and closes its record.
pub(super) async fn run(
    gateway: &Gateway,
    id: &Arc<str>,
    plan: &Plan,
    logs: Vec<LogOutput>,
    sink: Sink<'_>,
    mut record: Record,
) -> Result<ExecuteOutput, Problem> {
    let refuse = |record: Record, problem: Problem| {
        let outcome = Outcome::Refused(problem.code().to_owned());
        record.finish(&Ended { outcome, usage: Usage::default() });
        problem.with("id", id.as_ref())
    };
    record.runs_step(plan.hash.to_string(), plan.limits);
    let Some(runner) = gateway.steps.runner().cloned() else {
        return Err(refuse(record, Problem::internal(&"no runner")));
    };
    let step = match plan.sandbox_step(id) {
        Ok(step) => step,
        Err(problem) => return Err(refuse(record, problem)),
    };
    let mut kept = Kept::new(step.limits.output_bytes as usize);
    let (sender, mut output) = mpsc::channel(OUTPUTS_WAITING_MAX);
    let mut running = runner.run(step, sender);
    let mut open = true;
    let ended = loop {
        tokio::select! {
            biased;
            piece = output.recv(), if open => match piece {
                Some(piece) => kept.take(piece, &sink).await,
                None => open = false,
            },
            ended = &mut running => break ended,
        }
    };
    drop(running);
    while let Ok(piece) = output.try_recv() {
        kept.take(piece, &sink).await;
    }
    match ended {
        Err(failed) => Err(refuse(record, failed_problem(&failed))),
        Ok(end) => {
            let StepUsage { memory_byte_seconds, bytes_in, bytes_out, .. } = end.usage;
            let sandbox = Arc::clone(&end.sandbox);
            record.stepped(Stepped { sandbox, memory_byte_seconds, bytes_in, bytes_out });
            let ended = Ended { outcome: outcome(&end), usage: usage(end.usage) };
            record.finish(&ended);
            let usage = UsageOutput::priced(ended.usage, gateway.config.cost.as_ref());
            Ok(answer(id, plan, &end, &ended.outcome, usage, logs, kept))
        }
    }
}

/// After an end in an isolate: whether the step goes to the sandbox after all, with its new decision and record.
/// What an isolate lacked is remembered in any case.
pub(super) fn again(gateway: &Gateway, id: &Arc<str>, plan: &mut Plan, ended: &Ended) -> Option<Record> {
    let Outcome::GuestError(error) = &ended.outcome else { return None };
    if !plan.decision.retry_in_sandbox {
        return None;
    }
    let missing = Missing::of_error(&error.name, &error.message)?;
    gateway.steps.record(&plan.step.tenant, plan.hash, missing);
    if !may_repeat(Some(missing), ended.usage.subrequests, plan.idempotent) {
        return None;
    }
    // Without a place for a second run, the first one's answer stands.
    let tenant = crate::config::Name::parse(&plan.step.tenant)?;
    let permit = gateway.admission.enter(&tenant, Kind::Execution).ok()?;
    plan.decision = decide::retried(&plan.step, missing);
    super::tell(gateway, id, plan);
    let observer = gateway.observer.clone();
    let mut record = Record::new(observer, tenant.shared(), id.clone(), "sandbox", None, permit);
    record.planned(plan.user().cloned(), (&plan.decision).into());
    Some(record)
}

/// Output within its bound.
struct Kept {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    left_bytes: usize,
    truncated: bool,
}

impl Kept {
    fn new(left_bytes: usize) -> Self {
        Self { stdout: Vec::new(), stderr: Vec::new(), left_bytes, truncated: false }
    }

    /// The runner bounds output as well; this holds even if it does not.
    async fn take(&mut self, piece: Output, sink: &Sink<'_>) {
        let bytes = &piece.bytes[..piece.bytes.len().min(self.left_bytes)];
        self.truncated |= bytes.len() < piece.bytes.len();
        self.left_bytes -= bytes.len();
        let (name, into) = match piece.stream {
            Stream::Stdout => ("stdout", &mut self.stdout),
            Stream::Stderr => ("stderr", &mut self.stderr),
        };
        match sink {
            Sink::Keep => into.extend_from_slice(bytes),
            // A client that is gone drops this whole run.
            Sink::Live(events) if !bytes.is_empty() => {
                let text = String::from_utf8_lossy(bytes).into_owned();
                let _ = events.send(name, &Piece { text }).await;
            }
            Sink::Live(_) => {}
        }
    }
}

fn outcome(end: &StepEnd) -> Outcome {
    match end.exit {
        StepExit::Code(0) => Outcome::Done,
        StepExit::Code(code) => exited(format!("The step exited with code {code}.")),
        StepExit::Signal(signal) => exited(format!("The step was ended by signal {signal}.")),
        StepExit::WallTime => Outcome::Limit(LimitKind::Wall),
        StepExit::Memory => Outcome::Limit(LimitKind::Heap),
    }
}

fn exited(message: String) -> Outcome {
    Outcome::GuestError(GuestError { name: "ExitError".to_owned(), message, stack: None })
}

fn usage(usage: StepUsage) -> Usage {
    Usage {
        cpu_us: usage.cpu_us,
        wall_us: usage.wall_us,
        isolate_wait_us: usage.start_us,
        external_bytes_peak: usage.memory_bytes_peak,
        log_bytes: u32::try_from(usage.output_bytes).unwrap_or(u32::MAX),
        ..Usage::default()
    }
}

fn answer(
    id: &Arc<str>,
    plan: &Plan,
    end: &StepEnd,
    outcome: &Outcome,
    usage: UsageOutput,
    logs: Vec<LogOutput>,
    kept: Kept,
) -> ExecuteOutput {
    let (result, unreadable) = match &end.value {
        Value::None => (None, None),
        Value::TooLarge => {
            (None, Some(format!("The step's result is larger than {RESULT_BYTES_MAX} bytes.")))
        }
        Value::Bytes(bytes) => match result(bytes) {
            Some(result) => (Some(result), None),
            None => (None, Some("What the step wrote as its result is not JSON.".to_owned())),
        },
    };
    let error = match (outcome, unreadable) {
        (Outcome::Done, None) => None,
        (Outcome::Done, Some(message)) => {
            Some(ErrorOutput { code: "no_result", name: "Error".to_owned(), message, stack: None })
        }
        (outcome, _) => Some(super::error(outcome)),
    };
    let exit_code = match end.exit {
        StepExit::Code(code) => Some(code),
        _ => None,
    };
    ExecuteOutput {
        id: id.to_string(),
        ok: error.is_none(),
        result: if error.is_none() { result } else { None },
        error,
        logs,
        usage,
        route: (&plan.decision).into(),
        process: Some(super::ProcessOutput {
            exit_code,
            stdout: String::from_utf8_lossy(&kept.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&kept.stderr).into_owned(),
            truncated: kept.truncated || end.usage.output_bytes > u64::from(plan.limits.log_bytes),
            memory_byte_seconds: end.usage.memory_byte_seconds,
            bytes_in: end.usage.bytes_in,
            bytes_out: end.usage.bytes_out,
        }),
    }
}

/// A stranger's bytes as JSON: bounded in depth, without repeated keys.
fn result(bytes: &[u8]) -> Option<Box<RawValue>> {
    let Strict(value) = parse_json(bytes).ok()?;
    serde_json::value::to_raw_value(&value).ok()
}

fn failed_problem(failed: &StepFailed) -> Problem {
    match failed {
        StepFailed::Unavailable(_) => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "sandbox_unavailable", format!("{failed}."))
                .retry_after(1)
        }
        StepFailed::NoProgram(_) => Problem::unprocessable("sandbox_no_program", format!("{failed}.")),
        StepFailed::Lost(_) => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "sandbox_lost", format!("{failed}."))
        }
    }
}
