//! Telemetry: one declaration per event, three ways out.
//!
//! ```text
//!                    ┌─▶ metrics (atomics) ─┬─▶ Prometheus text, GET /metrics
//!  event ─▶ Telemetry┤                      └─▶ OTLP metrics ─┐
//!                    ├─▶ tracing ─▶ log lines, OTLP logs ─────┼─▶ one exporter task ─▶ collector
//!                    └─▶ span of the event ─▶ OTLP traces ────┘
//! ```
//!
//! The hot path never waits and never allocates without an exporter: it adds to atomics. Spans and log
//! records go through bounded queues; when the collector is slow they are dropped and counted.

pub mod events;
pub mod guest;
pub mod metrics;
mod observer;
mod otlp;
mod subscriber;
pub mod trace;

use std::sync::Arc;

use http::HeaderMap;

use self::events::Event;
use self::guest::{GuestLine, GuestLog};
use self::metrics::Metrics;
pub use self::observer::TelemetryObserver;
pub use self::otlp::{OtlpConfig, OtlpError, OtlpGuard};
pub use self::subscriber::{LogFormat, install};
use self::trace::{Span, SpanKind, TraceContext, ratio_of};

/// Which requests are traced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Share of new traces recorded, 0 to 1.
    pub ratio: f64,
    /// Whether a client's `sampled` bit decides instead. Only for clients that the operator controls:
    /// otherwise a stranger could have everything recorded.
    pub trust_parent: bool,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { ratio: 1.0, trust_parent: false }
    }
}

/// Where events go. Cheap to clone; every clone is the same.
#[derive(Clone, Debug)]
pub struct Telemetry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    metrics: Arc<Metrics>,
    guests: GuestLog,
    exporter: Option<otlp::Exporter>,
    sampling: Sampling,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

impl Telemetry {
    /// Without a collector: metrics and `tracing` only.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            metrics: Arc::default(),
            guests: GuestLog::new(),
            exporter: None,
            sampling: Sampling { ratio: 0.0, trust_parent: false },
        }))
    }

    /// With an OTLP collector. Must be called within a tokio runtime, which then runs the exporter; the guard
    /// flushes what is queued at shutdown.
    pub fn with_otlp(config: OtlpConfig) -> Result<(Self, OtlpGuard), OtlpError> {
        let metrics = Arc::<Metrics>::default();
        let sampling = config.sampling;
        let (exporter, guard) = otlp::start(config, metrics.clone())?;
        let inner = Inner { metrics, guests: GuestLog::new(), exporter: Some(exporter), sampling };
        Ok((Self(Arc::new(inner)), guard))
    }

    /// The numbers.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// The body of `GET /metrics` (`text/plain; version=0.0.4`).
    #[must_use]
    pub fn prometheus(&self) -> String {
        if let Some(bytes) = resident_bytes() {
            self.0.metrics.resident_bytes.set(bytes);
        }
        self.0.metrics.prometheus()
    }

    /// Whether a collector is configured.
    #[must_use]
    pub fn is_exporting(&self) -> bool {
        self.0.exporter.is_some()
    }

    /// Begins the span of an incoming request, under the caller's trace if its headers name one.
    #[must_use]
    pub fn server_span(&self, headers: &HeaderMap) -> Span {
        self.span_under(TraceContext::from_headers(headers))
    }

    /// Begins a span for work that a caller elsewhere asked for.
    #[must_use]
    pub fn span_under(&self, parent: Option<TraceContext>) -> Span {
        let mut span = Span::begin(SpanKind::Server, parent.as_ref(), false);
        let sampling = self.0.sampling;
        span.context.sampled = self.is_exporting()
            && match parent {
                Some(parent) if sampling.trust_parent => parent.sampled,
                _ => ratio_of(span.context.trace) < sampling.ratio,
            };
        span
    }

    /// Records an event that is not the end of a span.
    pub fn emit(&self, event: &impl Event) {
        event.measure(&self.0.metrics);
        event.log(None, None);
    }

    /// Records an event that ends a span.
    pub fn end<E: Event>(&self, span: &Span, event: &E) {
        event.measure(&self.0.metrics);
        if tracing::enabled!(target: "atoll::event", tracing::Level::DEBUG) {
            let context = span.context();
            event.log(Some(&context.trace.to_string()), Some(&context.span.to_string()));
        }
        if span.context.sampled
            && let Some(exporter) = &self.0.exporter
        {
            exporter.span(otlp::span_record::<E>(span, event), &self.0.metrics);
        }
    }

    /// Passes a guest's console line on to the operator's log, rate limited per tenant.
    pub fn guest_line(&self, line: GuestLine<'_>) {
        self.0.guests.write(line, &self.0.metrics);
    }

    /// A `tracing` layer that sends log events to the collector; `None` without one.
    fn otlp_layer(&self) -> Option<otlp::LogLayer> {
        let exporter = self.0.exporter.as_ref()?;
        Some(otlp::LogLayer::new(exporter.clone(), self.0.metrics.clone()))
    }
}

/// Resident memory of this process, from the kernel.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests;
