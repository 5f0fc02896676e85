//! Where the audit log meets what the gateway reports: crossings, isolate hosts and penalties go to both; checkpoints come back.

use std::fmt;
use std::sync::Arc;

use atoll_bindings::crossing::{Crossing, Witness};
use atoll_bindings::seam::LogLine;
use http::HeaderMap;

use super::{AccessEvent, Finished, HostEvent, Observer, Routed, SandboxEvent};
use crate::access::identity::Issuer;
use crate::admission::Denied;
use crate::audit::entry::{Entry, HostGone, Penalised, TENANTS_MAX};
use crate::audit::{Audit, Checkpoint, Notary, Signed};
use crate::deploy::now_ms;
use crate::dispatch::trace::Trace;
use crate::hosts::Penalty;

/// Signs checkpoints of the audit log with the gateway's key, and tells the observer.
pub(crate) struct Checkpoints {
    pub(crate) issuer: Arc<Issuer>,
    pub(crate) observer: Arc<dyn Observer>,
}

impl Notary for Checkpoints {
    fn sign(&self, text: &[u8]) -> Option<Signed> {
        self.issuer.sign_checkpoint(text)
    }

    fn made(&self, checkpoint: &Checkpoint, note: &str) {
        self.observer.checkpoint(checkpoint, note);
    }
}

/// Observer and audit log as the witness of crossings.
pub(crate) struct Crossings {
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) audit: Audit,
}

impl Witness for Crossings {
    fn crossing(&self, crossing: Crossing) {
        self.observer.crossing(&crossing);
        self.audit.crossing(&crossing);
    }

    fn ready(&self) -> bool {
        self.audit.is_ready()
    }
}

/// An observer, and the audit log of what happens to isolate hosts and to those who end them.
pub struct Recorded {
    observer: Arc<dyn Observer>,
    audit: Audit,
}

impl Recorded {
    /// Tells this observer everything, and the log what it must not miss.
    pub fn new(observer: Arc<dyn Observer>, audit: Audit) -> Self {
        Self { observer, audit }
    }
}

impl Observer for Recorded {
    fn begin(&self, headers: &HeaderMap) -> Trace {
        self.observer.begin(headers)
    }

    fn finished(&self, event: &Finished<'_>) {
        self.observer.finished(event);
    }

    fn denied(&self, tenant: &str, denied: Denied) {
        self.observer.denied(tenant, denied);
    }

    fn routed(&self, event: &Routed<'_>) {
        self.observer.routed(event);
    }

    fn guest_log(&self, tenant: &str, worker: &str, trace: Option<&str>, line: &LogLine) {
        self.observer.guest_log(tenant, worker, trace, line);
    }

    fn crossing(&self, crossing: &Crossing) {
        self.observer.crossing(crossing);
    }

    fn access(&self, event: &AccessEvent<'_>) {
        self.observer.access(event);
    }

    fn host(&self, event: &HostEvent<'_>) {
        self.observer.host(event);
        let (event, end) = match event {
            HostEvent::Started { .. } => return,
            HostEvent::Lost(end) => ("lost", end),
            HostEvent::Condemned(end) => ("condemned", end),
            HostEvent::Retired(end) => ("retired", end),
        };
        self.audit.note(Entry::Host(Box::new(HostGone {
            time: now_ms(),
            event,
            pid: end.pid,
            reason: end.reason.to_owned(),
            inside: end.inside,
            tenants: end.tenants.split_whitespace().take(TENANTS_MAX).map(str::to_owned).collect(),
            tenants_more: end.tenants.split_whitespace().count().saturating_sub(TENANTS_MAX),
        })));
    }

    fn sandbox(&self, event: &SandboxEvent<'_>) {
        self.observer.sandbox(event);
    }

    fn penalty(&self, tenant: &str, penalty: Penalty) {
        self.observer.penalty(tenant, penalty);
        self.audit.note(Entry::Penalty(Box::new(Penalised {
            time: now_ms(),
            tenant: tenant.to_owned(),
            penalty: penalty.name(),
            seconds: penalty.seconds(),
        })));
    }

    fn checkpoint(&self, checkpoint: &Checkpoint, note: &str) {
        self.observer.checkpoint(checkpoint, note);
    }

    fn metrics(&self) -> String {
        self.observer.metrics()
    }
}

impl fmt::Debug for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorded").field("audit", &self.audit).finish_non_exhaustive()
    }
}
