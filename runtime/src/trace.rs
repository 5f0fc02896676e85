//! What an invocation of a tailed worker did, for its tails.
//!
//! ```text
//!  op_trace_log, op_respond, the end ──▶ Trace (in the worker's isolate) ──ChildDone──▶ its caller ──▶ tail(events) of each
//! ```
//!
//! The caller is the worker that loaded the tailed one: it holds the tails, and its invocation stays open until they have
//! run, so they are on its account, under its limits. A call of a tail is never traced itself.

use std::collections::BTreeMap;

use atoll_bindings::seam::{Event, Headers, LimitKind, LogLevel, Outcome, Usage};
use deno_core::serde_json::{Value, json};

use crate::message::Work;

/// Longest `tails` of one worker.
pub(crate) const TAILS_MAX: usize = 16;
/// How long one tail may take, in milliseconds, if its caller has not less left.
pub(crate) const TAIL_WALL_MS_MAX: u32 = 5_000;
/// Text of console lines and exceptions in one trace, in bytes; the rest is left out and the trace marked.
const TRACE_BYTES_MAX: usize = 256 * 1024;
/// Console lines and exceptions in one trace.
const TRACE_ENTRIES_MAX: usize = 1_000;

/// The trace of one invocation.
#[derive(Debug)]
pub(crate) struct Trace {
    event: Value,
    entrypoint: Option<String>,
    timestamp_ms: u64,
    logs: Vec<Value>,
    exceptions: Vec<Value>,
    bytes: usize,
    truncated: bool,
}

impl Trace {
    /// The trace of an invocation that begins; none for a tail's own.
    pub(crate) fn begin(work: &Work, entrypoint: Option<&str>, now_ms: u64) -> Option<Self> {
        let event = match work {
            Work::Event(Event::Fetch(request)) => json!({
                "url": request.url, "method": request.method, "headers": flat(&request.headers), "status": null,
            }),
            Work::Rpc(call) => json!({ "rpcMethod": call.path.join(".") }),
            Work::Event(_) | Work::Tail(_) => return None,
        };
        let entrypoint = entrypoint.map(str::to_owned);
        let (logs, exceptions) = (Vec::new(), Vec::new());
        Some(Self { event, entrypoint, timestamp_ms: now_ms, logs, exceptions, bytes: 0, truncated: false })
    }

    fn fits(&mut self, bytes: usize) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        let fits =
            self.bytes <= TRACE_BYTES_MAX && self.logs.len() + self.exceptions.len() < TRACE_ENTRIES_MAX;
        self.truncated |= !fits;
        fits
    }

    /// A console line: its arguments as a JSON array, and what the errors among them are.
    pub(crate) fn log(&mut self, level: LogLevel, message: String, error_info: String, now_ms: u64) {
        if self.fits(message.len() + error_info.len()) {
            self.logs.push(
                json!({ "level": level, "message": message, "errorInfo": error_info, "timestamp": now_ms }),
            );
        }
    }

    /// Something that nobody caught.
    pub(crate) fn exception(&mut self, name: &str, message: &str, stack: &str, now_ms: u64) {
        if self.fits(name.len() + message.len() + stack.len()) {
            self.exceptions
                .push(json!({ "name": name, "message": message, "stack": stack, "timestamp": now_ms }));
        }
    }

    /// The worker answered a request.
    pub(crate) fn responded(&mut self, status: u32) {
        self.event["status"] = status.into();
    }

    /// The item, as JSON text.
    pub(crate) fn end(mut self, outcome: &Outcome, usage: &Usage, now_ms: u64) -> String {
        if let Outcome::GuestError(error) = outcome {
            self.exception(&error.name, &error.message, error.stack.as_deref().unwrap_or_default(), now_ms);
        }
        json!({
            "event": self.event, "entrypoint": self.entrypoint, "eventTimestamp": self.timestamp_ms,
            "logs": self.logs, "exceptions": self.exceptions, "truncated": self.truncated,
            "outcome": outcome_name(outcome), "cpuTime": usage.cpu_us / 1_000, "wallTime": usage.wall_us / 1_000,
        })
        .to_string()
    }
}

/// Names and values in turn, in the order of the names; values of one name joined.
fn flat(headers: &Headers) -> Vec<String> {
    let mut joined: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value);
        joined
            .entry(name)
            .and_modify(|all| {
                all.push_str(", ");
                all.push_str(&value);
            })
            .or_insert_with(|| value.clone().into_owned());
    }
    joined.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
}

/// The words of Workers for how an invocation ended.
fn outcome_name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Done => "ok",
        Outcome::Limit(LimitKind::Cpu) => "exceededCpu",
        Outcome::Limit(LimitKind::Heap | LimitKind::External) => "exceededMemory",
        Outcome::Canceled | Outcome::Limit(LimitKind::Wall) => "canceled",
        Outcome::Limit(LimitKind::ResponseBytes) => "responseStreamDisconnected",
        Outcome::GuestError(_) | Outcome::Hung | Outcome::Refused(_) => "exception",
        Outcome::HostFault(_) => "internalError",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use deno_core::serde_json;

    fn fetch() -> Trace {
        let request = atoll_bindings::seam::HttpRequest {
            method: "GET".into(),
            url: "http://x/".into(),
            headers: vec![("a".into(), "1".into()), ("b".into(), "2".into()), ("a".into(), "3".into())],
            body: atoll_bindings::seam::Body::Empty,
            redirect: Default::default(),
        };
        Trace::begin(&Work::Event(Event::Fetch(request)), None, 5).unwrap()
    }

    #[test]
    fn a_trace_is_bounded_and_says_so() {
        let mut trace = fetch();
        for _ in 0..10_000 {
            trace.log(LogLevel::Log, "[1]".into(), String::new(), 1);
        }
        let item: Value = serde_json::from_str(&trace.end(&Outcome::Done, &Usage::default(), 9)).unwrap();
        assert_eq!(item["logs"].as_array().unwrap().len(), TRACE_ENTRIES_MAX);
        assert_eq!((&item["truncated"], &item["outcome"]), (&json!(true), &json!("ok")));
        let mut trace = fetch();
        trace.log(LogLevel::Log, "x".repeat(TRACE_BYTES_MAX + 1), String::new(), 1);
        let text = trace.end(&Outcome::Limit(LimitKind::Cpu), &Usage::default(), 9);
        let item: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&item["logs"], &item["outcome"]), (&json!([]), &json!("exceededCpu")));
    }

    #[test]
    fn headers_of_one_name_are_one() {
        let item: Value = serde_json::from_str(&fetch().end(&Outcome::Done, &Usage::default(), 9)).unwrap();
        assert_eq!(item["event"]["headers"], json!(["a", "1, 3", "b", "2"]));
    }

    #[test]
    fn a_tail_has_no_trace() {
        assert!(Trace::begin(&Work::Tail("[]".into()), None, 0).is_none());
    }
}
