//! The gateway's observer: turns what it reports into events.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use atoll_bindings::crossing::Crossing;
use atoll_bindings::seam::{Heartbeat, LogLine};
use http::HeaderMap;

use super::Telemetry;
use super::events::{
    AccessChanged, AdmissionRefused, CapabilityUsed, CheckpointMade, HostCondemned, HostLost, HostRetired,
    HostStarted, InvocationFinished, SandboxChanged, StepRouted, TenantPenalised,
};
use super::guest::GuestLine;
use super::trace::{Span, TraceContext};
use crate::admission::Denied;
use crate::audit::{Audit, Checkpoint};
use crate::dispatch::trace::Trace;
use crate::hosts::Penalty;
use crate::observe::{AccessEvent, Finished, HostEnd, HostEvent, Observer, Routed, SandboxEvent};

/// Most sampled invocations whose span is remembered between begin and end; further ones are not traced.
const SPANS_OPEN_MAX: usize = 10_000;

/// Feeds [`Telemetry`] with what the gateway reports.
#[derive(Debug)]
pub struct TelemetryObserver {
    telemetry: Telemetry,
    /// Spans begun, by the `traceparent` given out. Only sampled ones: without a collector it stays empty.
    open: Mutex<HashMap<Arc<str>, Span>>,
}

impl TelemetryObserver {
    /// An observer that reports here.
    #[must_use]
    pub fn new(telemetry: Telemetry) -> Self {
        Self { telemetry, open: Mutex::default() }
    }

    /// Where it reports.
    #[must_use]
    pub fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// Takes over the isolate hosts' own numbers.
    pub fn hosts(&self, heartbeats: &[Heartbeat]) {
        let metrics = self.telemetry.metrics();
        metrics.isolates_live.set(heartbeats.iter().map(|beat| u64::from(beat.isolates_live)).sum());
        metrics.isolates_pooled.set(heartbeats.iter().map(|beat| u64::from(beat.isolates_pooled)).sum());
        metrics.host_resident_bytes.set(heartbeats.iter().map(|beat| beat.resident_bytes).sum());
    }

    /// Takes over the state of the audit log.
    pub fn audit(&self, audit: &Audit) {
        let metrics = self.telemetry.metrics();
        metrics.audit_failing.set(audit.is_failing().into());
        metrics.audit_dropped.set(audit.dropped());
    }

    fn take(&self, traceparent: Option<&str>) -> Option<Span> {
        if !self.telemetry.is_exporting() {
            return None;
        }
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(traceparent?)
    }
}

impl Observer for TelemetryObserver {
    fn begin(&self, headers: &HeaderMap) -> Trace {
        let incoming = TraceContext::from_headers(headers);
        if !self.telemetry.is_exporting() {
            // Nobody records here, but whoever records before and behind us stays connected.
            return incoming.map(Trace::from).unwrap_or_default();
        }
        let span = self.telemetry.span_under(incoming);
        let trace = Trace::from(span.context().clone());
        if span.context().sampled
            && let Some(parent) = &trace.parent
        {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            if open.len() < SPANS_OPEN_MAX {
                open.insert(Arc::clone(parent), span);
            }
        }
        trace
    }

    fn finished(&self, event: &Finished<'_>) {
        let usage = &event.usage;
        let finished = InvocationFinished {
            tenant: event.tenant,
            worker: event.worker,
            event: event.event,
            code: event.outcome.code(),
            elapsed_us: u64::try_from(event.elapsed.as_micros()).unwrap_or(u64::MAX),
            cpu_us: usage.cpu_us,
            wall_us: usage.wall_us,
            isolate_wait_us: usage.isolate_wait_us,
            heap_bytes_peak: usage.heap_bytes_peak,
            subrequests: usage.subrequests,
            loads: usage.loads,
        };
        match self.take(event.traceparent) {
            Some(span) => self.telemetry.end(&span, &finished),
            None => self.telemetry.emit(&finished),
        }
    }

    fn denied(&self, tenant: &str, denied: Denied) {
        self.telemetry.emit(&AdmissionRefused { tenant, reason: denied.code() });
    }

    fn routed(&self, event: &Routed<'_>) {
        let decision = event.decision;
        self.telemetry.emit(&StepRouted {
            tenant: event.tenant,
            worker: event.worker,
            runtime: decision.runtime.name(),
            rule: decision.rule.name(),
            named: decision.named.as_deref().unwrap_or_default(),
            reasons: &decision.reasons.join("; "),
            start_ms: decision.cost.start_ms,
            memory_mib: decision.cost.memory_mib,
        });
    }

    fn guest_log(&self, tenant: &str, worker: &str, trace: Option<&str>, line: &LogLine) {
        self.telemetry.guest_line(GuestLine {
            tenant,
            worker,
            trace,
            level: line.level,
            message: &line.message,
            fields: line.fields.as_deref(),
            invocation: line.invocation.0,
        });
    }

    fn crossing(&self, crossing: &Crossing) {
        self.telemetry.emit(&CapabilityUsed {
            tenant: &crossing.tenant,
            worker: &crossing.worker,
            capability: &crossing.capability,
            policy: crossing.policy.as_deref().unwrap_or_default(),
            method: crossing.method.as_str(),
            origin: &crossing.origin,
            verdict: crossing.verdict.code(),
            request_bytes: crossing.request_bytes,
            response_bytes: crossing.response_bytes,
            elapsed_us: u64::try_from(crossing.elapsed.as_micros()).unwrap_or(u64::MAX),
        });
    }

    fn access(&self, event: &AccessEvent<'_>) {
        let AccessEvent { tenant, actor, what, name, action, detail } = *event;
        self.telemetry.emit(&AccessChanged { tenant, actor, what, name, action, detail });
    }

    fn host(&self, event: &HostEvent<'_>) {
        let inside = |end: &HostEnd<'_>| u64::try_from(end.inside).unwrap_or(u64::MAX);
        match *event {
            HostEvent::Started { pid, start_ms, unconfined } => {
                self.telemetry.emit(&HostStarted { pid, start_ms, unconfined });
            }
            HostEvent::Lost(end) => self.telemetry.emit(&HostLost {
                pid: end.pid,
                reason: end.reason,
                inside: inside(&end),
                tenants: end.tenants,
            }),
            HostEvent::Condemned(end) => self.telemetry.emit(&HostCondemned {
                pid: end.pid,
                reason: end.reason,
                inside: inside(&end),
                tenants: end.tenants,
            }),
            HostEvent::Retired(end) => {
                self.telemetry.emit(&HostRetired { pid: end.pid, reason: end.reason, inside: inside(&end) });
            }
        }
    }

    fn sandbox(&self, event: &SandboxEvent<'_>) {
        let usage = &event.usage;
        self.telemetry.emit(&SandboxChanged {
            tenant: event.tenant,
            user: event.user,
            sandbox: event.sandbox,
            what: event.what,
            cpu_us: usage.cpu_us,
            memory_byte_seconds: usage.memory_byte_seconds,
            memory_bytes_peak: usage.memory_bytes_peak,
            wall_us: usage.wall_us,
            bytes_in: usage.bytes_in,
            bytes_out: usage.bytes_out,
            uses: usage.uses,
        });
    }

    fn penalty(&self, tenant: &str, penalty: Penalty) {
        let seconds = penalty.seconds().unwrap_or(0);
        self.telemetry.emit(&TenantPenalised { tenant, penalty: penalty.name(), seconds });
    }

    fn checkpoint(&self, checkpoint: &Checkpoint, note: &str) {
        let Checkpoint { log, size, hash, .. } = checkpoint;
        let hash = hash.to_string();
        self.telemetry.emit(&CheckpointMade { log, size: *size, hash: &hash, note });
    }

    fn metrics(&self) -> String {
        self.telemetry.prometheus()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use atoll_bindings::seam::{LimitKind, Outcome, Usage};

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(parent: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", parent.parse().unwrap());
        headers.insert("tracestate", "a=1".parse().unwrap());
        headers
    }

    fn finished<'a>(outcome: &'a Outcome, traceparent: Option<&'a str>) -> Finished<'a> {
        let usage = Usage { cpu_us: 700, subrequests: 3, loads: 2, ..Usage::default() };
        Finished {
            tenant: "t",
            worker: "w",
            event: "fetch",
            outcome,
            usage,
            elapsed: Duration::from_millis(3),
            traceparent,
        }
    }

    #[test]
    fn without_a_collector_the_clients_trace_goes_through_and_numbers_are_kept() {
        let observer = TelemetryObserver::new(Telemetry::new());
        let trace = observer.begin(&headers(PARENT));
        assert_eq!((trace.parent.as_deref(), trace.state.as_deref()), (Some(PARENT), Some("a=1")));
        let nowhere = observer.begin(&headers("nonsense"));
        assert_eq!(nowhere, Trace::default(), "a malformed header goes no further");
        observer.finished(&finished(&Outcome::Done, None));
        observer.finished(&finished(&Outcome::Limit(LimitKind::Cpu), None));
        observer.hosts(&[Heartbeat { isolates_live: 9, resident_bytes: 5, ..Heartbeat::default() }]);
        observer.hosts(&[
            Heartbeat { isolates_live: 1, ..Heartbeat::default() },
            Heartbeat { isolates_live: 2, ..Heartbeat::default() },
        ]);
        observer.host(&HostEvent::Started { pid: 1, start_ms: 40, unconfined: "root cgroup" });
        let end = HostEnd { pid: 1, reason: "it exited", inside: 3, tenants: "t" };
        observer.host(&HostEvent::Lost(end));
        observer.host(&HostEvent::Condemned(end));
        let metrics = observer.telemetry().metrics();
        assert_eq!(metrics.requests.get("limit_cpu"), 1);
        assert_eq!(metrics.loads.get(""), 4);
        assert_eq!(metrics.subrequests.get(""), 6);
        let text = observer.metrics();
        assert!(text.contains("atoll_invocations_total{code=\"done\"} 1\n"));
        assert!(text.contains("atoll_isolates_live 3\n"));
        assert!(text.contains("atoll_isolate_hosts_started_total 1\n"));
        assert!(text.contains("atoll_isolate_host_layers_missing 2\n"));
        assert!(text.contains("atoll_isolate_hosts_lost_total 2\n"), "condemned ones are lost too");
        assert!(text.contains("atoll_isolate_hosts_condemned_total 1\n"));
        let resident = text.lines().find_map(|l| l.strip_prefix("process_resident_memory_bytes ")).unwrap();
        assert!(resident.parse::<u64>().unwrap() > 0);
    }

    #[tokio::test]
    async fn with_a_collector_each_span_is_remembered_once_and_forgotten_at_its_end() {
        let config = super::super::OtlpConfig::new("http://127.0.0.1:9"); // never sent within this test
        let (telemetry, _guard) = Telemetry::with_otlp(config).unwrap();
        let observer = TelemetryObserver::new(telemetry);
        let given = observer.begin(&headers(PARENT));
        assert_eq!(given.state.as_deref(), Some("a=1"));
        let given = given.parent.unwrap();
        assert_ne!(&*given, PARENT, "the guest works under our span, not beside it");
        assert!(given.starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
        assert_eq!(observer.open.lock().unwrap().len(), 1);
        observer.finished(&finished(&Outcome::Done, Some(&given)));
        assert!(observer.open.lock().unwrap().is_empty());
    }
}
