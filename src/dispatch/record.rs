//! The record of one admitted request: closed exactly once, whatever happens.

use std::sync::Arc;
use std::time::Instant;

use atoll_bindings::link::Ended;
use atoll_bindings::seam::{Outcome, Usage};

use crate::admission::Permit;
use crate::observe::{Finished, Observer};

/// Open until [`Record::finish`]; a record that is dropped open was cancelled. Holds the place in admission.
pub struct Record {
    observer: Arc<dyn Observer>,
    tenant: Arc<str>,
    worker: Arc<str>,
    event: &'static str,
    traceparent: Option<Arc<str>>,
    started: Instant,
    open: bool,
    _permit: Permit,
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
        let started = Instant::now();
        Self { observer, tenant, worker, event, traceparent, started, open: true, _permit: permit }
    }

    /// Closes it.
    pub fn finish(mut self, ended: &Ended) {
        self.close(&ended.outcome, ended.usage);
    }

    fn close(&mut self, outcome: &Outcome, usage: Usage) {
        self.open = false;
        self.observer.finished(&Finished {
            tenant: &self.tenant,
            worker: &self.worker,
            event: self.event,
            outcome,
            usage,
            elapsed: self.started.elapsed(),
            traceparent: self.traceparent.as_deref(),
        });
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.open {
            self.close(&Outcome::Canceled, Usage::default());
        }
    }
}
