//! The record of one admitted request: closed exactly once, whatever happens. It is the terminal event, and the line in the audit
//! log, for which admission reserved the room.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use atoll_bindings::link::{Ended, Grant, Start};
use atoll_bindings::seam::{Outcome, Usage};
use atoll_loader::limits::Limits;

use super::trace::{Execution, Trace};
use crate::admission::Permit;
use crate::audit::entry::{self, About, Entry, GRANTED_MAX, Routed, Stepped};
use crate::deploy::now_ms;
use crate::observe::{Finished, Observer};

/// Body bytes between a client and a guest, as they pass.
#[derive(Debug, Default)]
pub struct Traffic {
    /// From the client.
    pub request_bytes: AtomicU64,
    /// To the client.
    pub response_bytes: AtomicU64,
}

/// Open until [`Record::finish`]; a record that is dropped open was cancelled. Holds the place in admission.
pub struct Record {
    observer: Arc<dyn Observer>,
    tenant: Arc<str>,
    worker: Arc<str>,
    event: &'static str,
    traceparent: Option<Arc<str>>,
    execution: Option<Arc<Execution>>,
    about: About,
    limits: Option<Limits>,
    traffic: Arc<Traffic>,
    started: Instant,
    open: bool,
    permit: Permit,
}

impl Record {
    /// Opens a record at admission.
    #[must_use]
    pub fn new(
        observer: Arc<dyn Observer>,
        tenant: Arc<str>,
        worker: Arc<str>,
        event: &'static str,
        traceparent: Option<Arc<str>>,
        permit: Permit,
    ) -> Self {
        Self {
            observer,
            tenant,
            worker,
            event,
            traceparent,
            execution: None,
            about: About::default(),
            limits: None,
            traffic: Arc::default(),
            started: Instant::now(),
            open: true,
            permit,
        }
    }

    /// Says which execution it is.
    #[must_use]
    pub fn of(mut self, trace: &Trace) -> Self {
        self.execution.clone_from(&trace.execution);
        self
    }

    /// Says which token asked for it.
    #[must_use]
    pub fn by(mut self, token: Option<String>) -> Self {
        self.about.token = token;
        self
    }

    /// Says for which of the tenant's users it is, where it runs and by which rule.
    pub(crate) fn planned(&mut self, user: Option<Arc<str>>, route: Routed) {
        self.about.user = user;
        self.about.route = Some(route);
    }

    /// Says what runs: the code's hash, its bounds, and what it was given.
    pub(crate) fn runs(&mut self, start: &Start) {
        self.about.code = Some(start.bundle.hash().to_string());
        self.limits = Some(start.limits);
        let fetch = start.outbound.iter().map(|channel| format!("fetch:{}", channel.name()));
        let named = start.env.iter().filter_map(|(name, grant)| match grant {
            Grant::Channel(channel) | Grant::Kv(channel) | Grant::Client(_, channel) => {
                Some(format!("{name}:{}", channel.name()))
            }
            Grant::Service(service) => Some(format!("{name}:{}", service.name())),
            Grant::Loader { .. } => Some(format!("{name}:loader")),
            Grant::Text(_) | Grant::Json(_) | Grant::Data(_) => None,
        });
        let mut granted: Vec<String> = fetch.chain(named).collect();
        self.about.granted_more = granted.len().saturating_sub(GRANTED_MAX);
        granted.truncate(GRANTED_MAX);
        self.about.granted = granted;
    }

    /// The same for a step in a sandbox; what it reaches through its way out is told by itself.
    pub(crate) fn runs_step(&mut self, code: String, limits: Limits) {
        self.about.code = Some(code);
        self.limits = Some(limits);
    }

    /// Says in which sandbox the step ran, and what it took of it.
    pub(crate) fn stepped(&mut self, step: Stepped) {
        self.about.step = Some(step);
    }

    /// Where body bytes are counted.
    pub(crate) fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    /// Closes it.
    pub fn finish(mut self, ended: &Ended) {
        self.close(&ended.outcome, ended.usage);
    }

    fn close(&mut self, outcome: &Outcome, usage: Usage) {
        self.open = false;
        let elapsed = self.started.elapsed();
        let event = Finished {
            tenant: &self.tenant,
            worker: &self.worker,
            event: self.event,
            outcome,
            usage,
            elapsed,
            traceparent: self.traceparent.as_deref(),
        };
        self.observer.finished(&event);
        let place = self.permit.take_place();
        if !place.is_real() {
            return;
        }
        let trace = self.traceparent.as_deref();
        let cost = place.prices().map(|prices| prices.execution(&usage));
        place.write(Entry::Execution(Box::new(entry::Execution {
            time: now_ms(),
            id: self.execution.as_ref().map_or_else(|| self.worker.clone(), |of| of.id.clone()),
            event: self.event,
            tenant: self.tenant.clone(),
            worker: self.worker.clone(),
            about: std::mem::take(&mut self.about),
            used: self.execution.as_ref().map(|of| of.used()).unwrap_or_default(),
            limits: self.limits.map(Into::into),
            outcome: outcome.code(),
            elapsed_us: u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
            cpu_us: usage.cpu_us,
            wall_us: usage.wall_us,
            heap_bytes_peak: usage.heap_bytes_peak,
            external_bytes_peak: usage.external_bytes_peak,
            request_bytes: self.traffic.request_bytes.load(Relaxed),
            response_bytes: self.traffic.response_bytes.load(Relaxed),
            subrequests: usage.subrequests,
            loads: usage.loads,
            cost,
            trace: trace.and_then(|parent| parent.get(super::trace::ID)).map(str::to_owned),
        })));
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.open {
            self.close(&Outcome::Canceled, Usage::default());
        }
    }
}
