//! What the gateway reports about its work: one function per event, one object behind them.

mod recorded;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use atoll_bindings::crossing::Crossing;
use atoll_bindings::seam::{LogLine, Outcome, Usage};
pub use atoll_container_bridge::manager::Usage as SandboxUsage;

use http::HeaderMap;

use crate::admission::{Bucket, Denied};
use crate::audit::Checkpoint;
use crate::dispatch::trace::Trace;
use crate::hosts::Penalty;
use crate::route::Decision;
use crate::telemetry::trace::TraceContext;

pub use recorded::Recorded;
pub(crate) use recorded::{Checkpoints, Crossings};

/// Lines of one tenant's guests that reach the log per second, sustained.
const GUEST_LINES_PER_SECOND: u32 = 50;
/// Lines of one tenant's guests at once after a quiet time.
const GUEST_LINES_BURST: u32 = 200;

/// The terminal event of one admitted request; there is exactly one for each.
#[derive(Debug)]
pub struct Finished<'a> {
    /// Who pays.
    pub tenant: &'a str,
    /// Worker name, or the execution's id.
    pub worker: &'a str,
    /// `fetch`, `scheduled` or `execute`.
    pub event: &'static str,
    /// How it ended.
    pub outcome: &'a Outcome,
    /// What it used, as far as the host could tell.
    pub usage: Usage,
    /// From admission to the end of everything under it.
    pub elapsed: Duration,
    /// The request's place in its trace.
    pub traceparent: Option<&'a str>,
}

/// A step was given a runtime.
#[derive(Clone, Copy, Debug)]
pub struct Routed<'a> {
    /// Who asked.
    pub tenant: &'a str,
    /// The execution's id.
    pub worker: &'a str,
    /// Where, by which rule, why, and at what cost.
    pub decision: &'a Decision,
}

/// A secret, a proxy, a token or an identity was made, changed, taken away or refused. Never holds a value.
#[derive(Clone, Copy, Debug)]
pub struct AccessEvent<'a> {
    /// Whose; empty if nobody knows.
    pub tenant: &'a str,
    /// By whom: the id of an API token, `configured` for one of the configuration, or an identity's subject.
    pub actor: &'a str,
    /// `secret`, `proxy`, `token`, `identity`, `delegation` or `revocation`.
    pub what: &'static str,
    /// Its name or id.
    pub name: &'a str,
    /// `put`, `delete`, `create`, `mint`, `revoke` or `refuse`.
    pub action: &'static str,
    /// The audience, the version, or the code of the refusal.
    pub detail: &'a str,
}

/// What became of an isolate host's process.
#[derive(Clone, Copy, Debug)]
pub enum HostEvent<'a> {
    /// It is ready for work.
    Started {
        /// Its process.
        pid: u32,
        /// From spawn to its first heartbeat.
        start_ms: u64,
        /// Layers of its confinement that could not be applied, separated by spaces.
        unconfined: &'a str,
    },
    /// It died, fell silent or broke the protocol.
    Lost(HostEnd<'a>),
    /// It was replaced because isolates in it would not stop.
    Condemned(HostEnd<'a>),
    /// It was replaced in a rolling restart, or nobody needs it any more; what runs inside may end.
    Retired(HostEnd<'a>),
}

/// How an isolate host came to its end.
#[derive(Clone, Copy, Debug)]
pub struct HostEnd<'a> {
    /// Its process; 0 if it was reaped before anybody asked.
    pub pid: u32,
    /// Why it had to go.
    pub reason: &'a str,
    /// Invocations that were inside.
    pub inside: usize,
    /// Tenants to blame or to suspect, separated by spaces.
    pub tenants: &'a str,
}

/// What became of a container sandbox.
#[derive(Clone, Copy, Debug)]
pub struct SandboxEvent<'a> {
    /// Who pays.
    pub tenant: &'a str,
    /// The tenant's user.
    pub user: &'a str,
    /// Its name, unique on the machine; empty if there is none.
    pub sandbox: &'a str,
    /// `started`, why it ended, or the code with which it was refused.
    pub what: &'static str,
    /// What it used in its life, once it is over.
    pub usage: SandboxUsage,
}

/// Where events go. Must not block.
pub trait Observer: Send + Sync + 'static {
    /// An admitted request is about to be dispatched: given the client's headers, its place in a trace.
    fn begin(&self, headers: &HeaderMap) -> Trace;
    /// The terminal event.
    fn finished(&self, event: &Finished<'_>);
    /// Admission said no.
    fn denied(&self, tenant: &str, denied: Denied);
    /// A step was given a runtime.
    fn routed(&self, event: &Routed<'_>);
    /// A guest wrote to its console; `trace` is the id of its trace.
    fn guest_log(&self, tenant: &str, worker: &str, trace: Option<&str>, line: &LogLine);
    /// A capability was used, or its use was denied.
    fn crossing(&self, crossing: &Crossing) {
        let Crossing { tenant, worker, origin, .. } = crossing;
        tracing::debug!(%tenant, %worker, code = crossing.verdict.code(), %origin, "capability used");
    }
    /// Something was done about secrets, proxies, tokens or identities.
    fn access(&self, event: &AccessEvent<'_>) {
        tracing::debug!(?event, "access");
    }
    /// Something became of an isolate host.
    fn host(&self, event: &HostEvent<'_>);
    /// Something became of a container sandbox.
    fn sandbox(&self, event: &SandboxEvent<'_>) {
        tracing::info!(?event, "sandbox");
    }

    /// What a tenant is made to do for ending isolate hosts has changed.
    fn penalty(&self, tenant: &str, penalty: Penalty) {
        tracing::warn!(tenant, penalty = penalty.name(), "penalty");
    }
    /// There is a new checkpoint of the audit log, as a signed note.
    fn checkpoint(&self, checkpoint: &Checkpoint, note: &str) {
        tracing::info!(%checkpoint, note, "audit checkpoint");
    }
    /// The Prometheus text for `/metrics`.
    fn metrics(&self) -> String;
}

/// Events as plain tracing events; guests' lines are rate limited per tenant.
pub struct TracingObserver {
    started: Instant,
    guests: Mutex<HashMap<String, GuestLines>>,
}

struct GuestLines {
    bucket: Bucket,
    suppressed: u64,
}

impl Default for TracingObserver {
    fn default() -> Self {
        Self { started: Instant::now(), guests: Mutex::default() }
    }
}

impl fmt::Debug for TracingObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TracingObserver")
    }
}

impl Observer for TracingObserver {
    fn begin(&self, headers: &HeaderMap) -> Trace {
        TraceContext::from_headers(headers).map(Trace::from).unwrap_or_default()
    }

    fn finished(&self, event: &Finished<'_>) {
        tracing::info!(
            tenant = event.tenant,
            worker = event.worker,
            event = event.event,
            outcome = event.outcome.code(),
            cpu_us = event.usage.cpu_us,
            elapsed_us = u64::try_from(event.elapsed.as_micros()).unwrap_or(u64::MAX),
            "finished"
        );
    }

    fn denied(&self, tenant: &str, denied: Denied) {
        tracing::debug!(tenant, code = denied.code(), "denied");
    }

    fn routed(&self, event: &Routed<'_>) {
        let decision = event.decision.explain();
        tracing::debug!(tenant = event.tenant, worker = event.worker, decision, "step routed");
    }

    fn guest_log(&self, tenant: &str, worker: &str, trace: Option<&str>, line: &LogLine) {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        // The keys are configured tenants, so the map is bounded.
        let mut guests = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
        let guest = guests
            .entry(tenant.to_owned())
            .or_insert_with(|| GuestLines { bucket: Bucket::full(GUEST_LINES_BURST, now_ms), suppressed: 0 });
        if guest.bucket.take(GUEST_LINES_PER_SECOND, GUEST_LINES_BURST, now_ms).is_err() {
            guest.suppressed += 1;
            return;
        }
        let suppressed = std::mem::take(&mut guest.suppressed);
        drop(guests);
        tracing::info!(target: "guest", tenant, worker, trace, level = ?line.level, message = ?line.message, fields = line.fields.as_deref(), suppressed);
    }

    fn host(&self, event: &HostEvent<'_>) {
        match event {
            HostEvent::Started { pid, start_ms, unconfined } => {
                tracing::info!(pid, start_ms, unconfined, "isolate host started");
            }
            HostEvent::Lost(end) => tracing::error!(?end, "isolate host lost"),
            HostEvent::Condemned(end) => tracing::error!(?end, "isolate host condemned"),
            HostEvent::Retired(end) => tracing::info!(?end, "isolate host retired"),
        }
    }

    fn metrics(&self) -> String {
        String::new()
    }
}
