//! The numbers: counters, gauges and histograms as plain atomics, read by Prometheus and by OTLP alike.
//!
//! Recording is a few relaxed atomic additions: no lock, no allocation, no hashing. Labels are a closed, small
//! set of static codes; nothing that a guest or a client chooses ever becomes a label.

use std::fmt::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Most different values of one label; further ones are counted under `other`.
pub const LABEL_VALUES_MAX: usize = 32;

/// A number that only grows, split by one label.
#[derive(Debug)]
pub struct Counter {
    pub(super) about: About,
    slots: [(OnceLock<&'static str>, AtomicU64); LABEL_VALUES_MAX],
    other: AtomicU64,
}

/// A number that goes up and down; one without label.
#[derive(Debug)]
pub struct Gauge {
    pub(super) about: About,
    value: AtomicU64,
}

/// A distribution of durations, in microseconds inside and seconds outside.
#[derive(Debug)]
pub struct Histogram {
    pub(super) about: About,
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

/// Upper bounds of the histograms' buckets, in microseconds.
pub(super) const BOUNDS_US: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 10_000_000, 30_000_000,
];

/// How a metric is presented.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// Prometheus name, unit included.
    pub name: &'static str,
    /// One line of help.
    pub help: &'static str,
    /// Name of its label; empty if it has none.
    pub label: &'static str,
    /// OpenTelemetry unit.
    pub unit: &'static str,
}

impl Counter {
    const fn new(about: About) -> Self {
        Self {
            about,
            slots: [const { (OnceLock::new(), AtomicU64::new(0)) }; LABEL_VALUES_MAX],
            other: AtomicU64::new(0),
        }
    }

    /// Counts `n` under a label's value.
    pub fn add(&self, value: &'static str, n: u64) {
        for (name, count) in &self.slots {
            let name = *name.get_or_init(|| value);
            if std::ptr::eq(name, value) || name == value {
                count.fetch_add(n, Relaxed);
                return;
            }
        }
        self.other.fetch_add(n, Relaxed);
    }

    /// Every value of the label seen so far, with its count.
    pub fn read(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let other = match self.other.load(Relaxed) {
            0 => None,
            n => Some(("other", n)),
        };
        self.slots.iter().filter_map(|(name, count)| Some((*name.get()?, count.load(Relaxed)))).chain(other)
    }

    /// The count under one value.
    #[must_use]
    pub fn get(&self, value: &str) -> u64 {
        self.read().find(|(name, _)| *name == value).map_or(0, |(_, count)| count)
    }
}

impl Gauge {
    const fn new(about: About) -> Self {
        Self { about, value: AtomicU64::new(0) }
    }

    /// Sets the value.
    pub fn set(&self, value: u64) {
        self.value.store(value, Relaxed);
    }

    /// Reads the value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.value.load(Relaxed)
    }
}

/// A histogram at one moment.
#[derive(Clone, Debug)]
pub struct Distribution {
    /// Observations per bucket, not cumulative; the last has no upper bound.
    pub buckets: [u64; BOUNDS_US.len() + 1],
    /// Sum of all observations, in microseconds.
    pub sum_us: u64,
}

impl Distribution {
    /// Number of observations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

impl Histogram {
    const fn new(about: About) -> Self {
        Self { about, buckets: [const { AtomicU64::new(0) }; BOUNDS_US.len() + 1], sum_us: AtomicU64::new(0) }
    }

    /// Adds one duration.
    pub fn observe_us(&self, us: u64) {
        let bucket = BOUNDS_US.partition_point(|&bound| bound < us);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
    }

    /// The distribution now.
    #[must_use]
    pub fn read(&self) -> Distribution {
        Distribution {
            buckets: std::array::from_fn(|i| self.buckets[i].load(Relaxed)),
            sum_us: self.sum_us.load(Relaxed),
        }
    }
}

/// A metric of any kind, for whoever presents them all.
#[derive(Clone, Copy, Debug)]
pub enum Metric<'a> {
    /// Only grows.
    Counter(&'a Counter),
    /// Up and down.
    Gauge(&'a Gauge),
    /// Durations.
    Histogram(&'a Histogram),
}

macro_rules! metrics {
    ($( $(#[doc = $help:literal])+ $field:ident: $kind:ident($name:literal, label $label:literal, unit $unit:literal), )+) => {
        /// Every metric of the process.
        #[derive(Debug)]
        pub struct Metrics { $( $(#[doc = $help])+ pub $field: $kind, )+ }

        impl Default for Metrics {
            fn default() -> Self {
                Self { $( $field: $kind::new(About {
                    name: $name, help: concat!($($help),+).trim_ascii(), label: $label, unit: $unit,
                }), )+ }
            }
        }

        impl Metrics {
            /// All of them, in the order declared.
            pub fn all(&self) -> impl Iterator<Item = Metric<'_>> {
                [$( Metric::$kind(&self.$field), )+].into_iter()
            }
        }
    };
}

metrics! {
    /// Requests to workers by how they ended.
    requests: Counter("atoll_requests_total", label "code", unit "{request}"),
    /// Time from a request's admission to the end of everything under it.
    request_seconds: Histogram("atoll_request_duration_seconds", label "", unit "s"),
    /// Invocations in isolates (requests, executions, scheduled events) by how they ended.
    invocations: Counter("atoll_invocations_total", label "code", unit "{invocation}"),
    /// CPU time per invocation.
    cpu_seconds: Histogram("atoll_invocation_cpu_seconds", label "", unit "s"),
    /// Time per invocation spent waiting for an isolate.
    isolate_wait_seconds: Histogram("atoll_isolate_wait_seconds", label "", unit "s"),
    /// Dynamic workers loaded.
    loads: Counter("atoll_loads_total", label "", unit "{load}"),
    /// Calls of guests on their channels.
    subrequests: Counter("atoll_subrequests_total", label "", unit "{call}"),
    /// Uses of capabilities that leave the gateway, by what became of them.
    crossings: Counter("atoll_crossings_total", label "verdict", unit "{request}"),
    /// Secrets, proxies, tokens and identities made, changed, taken away or refused, by what was done.
    access: Counter("atoll_access_changes_total", label "action", unit "{change}"),
    /// Requests and executions turned away before they ran, by reason.
    refused: Counter("atoll_admission_refused_total", label "reason", unit "{request}"),
    /// Steps by the runtime that they were given.
    steps_routed: Counter("atoll_steps_routed_total", label "runtime", unit "{step}"),
    /// Steps by the rule that chose their runtime.
    route_rules: Counter("atoll_route_rules_total", label "rule", unit "{step}"),
    /// Container sandboxes that were made, refused or ended, by what became of them.
    sandboxes: Counter("atoll_sandboxes_total", label "event", unit "{sandbox}"),
    /// CPU time of container sandboxes that are over.
    sandbox_cpu_us: Counter("atoll_sandbox_cpu_microseconds_total", label "", unit "us"),
    /// Memory that container sandboxes held over time, of those that are over.
    sandbox_memory_byte_seconds: Counter("atoll_sandbox_memory_byte_seconds_total", label "", unit "By.s"),
    /// Bytes into and out of container sandboxes that are over.
    sandbox_bytes: Counter("atoll_sandbox_bytes_total", label "direction", unit "By"),
    /// Isolate host processes that became ready for work.
    hosts_started: Counter("atoll_isolate_hosts_started_total", label "", unit "{process}"),
    /// Isolate host processes replaced because isolates in them would not stop; also counted as lost.
    hosts_condemned: Counter("atoll_isolate_hosts_condemned_total", label "", unit "{process}"),
    /// Isolate hosts replaced in rolling restarts.
    hosts_retired: Counter("atoll_isolate_hosts_retired_total", label "", unit "{process}"),
    /// Isolate host processes that died, broke the protocol, or had to be replaced.
    hosts_lost: Counter("atoll_isolate_hosts_lost_total", label "", unit "{process}"),
    /// Tenants that were moved to a host of their own, suspended, or released again.
    penalties: Counter("atoll_tenant_penalties_total", label "penalty", unit "{penalty}"),
    /// Lines that guests logged, by level.
    guest_lines: Counter("atoll_guest_log_lines_total", label "level", unit "{line}"),
    /// Guest log lines not passed on because the tenant logged too fast.
    guest_lines_suppressed: Counter("atoll_guest_log_lines_suppressed_total", label "", unit "{line}"),
    /// Telemetry thrown away because the collector was slow or gone, by signal.
    dropped: Counter("atoll_telemetry_dropped_total", label "signal", unit "{item}"),
    /// Isolates alive, idle and pooled ones included.
    isolates_live: Gauge("atoll_isolates_live", label "", unit "{isolate}"),
    /// Pristine isolates waiting to be used.
    isolates_pooled: Gauge("atoll_isolates_pooled", label "", unit "{isolate}"),
    /// Resident memory of the isolate host processes.
    host_resident_bytes: Gauge("atoll_isolate_hosts_resident_bytes", label "", unit "By"),
    /// Layers of confinement that the latest isolate host lacks; 0 where all hold.
    host_layers_missing: Gauge("atoll_isolate_host_layers_missing", label "", unit "{layer}"),
    /// Records of the audit log under its newest checkpoint.
    audit_covered: Gauge("atoll_audit_records_covered", label "", unit "{record}"),
    /// Whether the audit log cannot be written now.
    audit_failing: Gauge("atoll_audit_failing", label "", unit "1"),
    /// Audit records dropped since the start, where the operator allowed it.
    audit_dropped: Gauge("atoll_audit_records_dropped", label "", unit "{record}"),
    /// Resident memory of the gateway.
    resident_bytes: Gauge("process_resident_memory_bytes", label "", unit "By"),
}

impl Metrics {
    /// The Prometheus text exposition format, version 0.0.4.
    #[must_use]
    pub fn prometheus(&self) -> String {
        let mut out = String::with_capacity(8 * 1024);
        for metric in self.all() {
            match metric {
                Metric::Counter(counter) => write_counter(&mut out, counter),
                Metric::Gauge(gauge) => {
                    head(&mut out, &gauge.about, "gauge");
                    line(&mut out, gauge.about.name, "", "", gauge.get());
                }
                Metric::Histogram(histogram) => write_histogram(&mut out, histogram),
            }
        }
        out
    }
}

fn head(out: &mut String, about: &About, kind: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# HELP {0} {1}\n# TYPE {0} {kind}", about.name, about.help);
}

fn line(out: &mut String, name: &str, label: &str, value: &str, n: impl std::fmt::Display) {
    let _ = match label {
        "" => writeln!(out, "{name} {n}"),
        label => writeln!(out, "{name}{{{label}=\"{value}\"}} {n}"),
    };
}

fn write_counter(out: &mut String, counter: &Counter) {
    let about = &counter.about;
    head(out, about, "counter");
    if about.label.is_empty() {
        line(out, about.name, "", "", counter.read().map(|(_, n)| n).sum::<u64>());
        return;
    }
    counter.read().for_each(|(value, n)| line(out, about.name, about.label, value, n));
}

fn write_histogram(out: &mut String, histogram: &Histogram) {
    let name = histogram.about.name;
    head(out, &histogram.about, "histogram");
    let now = histogram.read();
    let mut total = 0;
    for (i, n) in now.buckets.iter().enumerate() {
        total += n;
        let bound = BOUNDS_US.get(i).map_or_else(|| "+Inf".to_owned(), |&us| seconds(us).to_string());
        line(out, &format!("{name}_bucket"), "le", &bound, total);
    }
    line(out, &format!("{name}_sum"), "", "", seconds(now.sum_us));
    line(out, &format!("{name}_count"), "", "", total);
}

/// Microseconds as seconds.
#[expect(clippy::cast_precision_loss, reason = "2^53 microseconds are 285 years")]
pub(super) fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A strict reader of the exposition format: every sample is announced, every line has a number.
    fn samples(text: &str) -> Vec<(String, f64)> {
        let mut announced = Vec::new();
        let mut found = Vec::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                announced.push(name.to_owned());
            } else if !line.starts_with("# HELP ") {
                let (key, value) = line.rsplit_once(' ').unwrap();
                let name = key.split('{').next().unwrap();
                let family = announced.last().unwrap();
                assert!(name.starts_with(family.as_str()), "{name} is not announced");
                assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
                found.push((key.to_owned(), value.parse().unwrap()));
            }
        }
        found
    }

    #[test]
    fn the_prometheus_text_parses_and_says_what_was_recorded() {
        let metrics = Metrics::default();
        metrics.requests.add("done", 2);
        metrics.requests.add("limit_cpu", 1);
        metrics.loads.add("", 7);
        metrics.isolates_live.set(3);
        for us in [50, 100, 101, 40_000_000] {
            metrics.request_seconds.observe_us(us);
        }
        let samples = samples(&metrics.prometheus());
        let get = |key: &str| samples.iter().find(|(k, _)| k == key).unwrap_or_else(|| panic!("no {key}")).1;
        assert_eq!(get("atoll_requests_total{code=\"done\"}"), 2.0);
        assert_eq!(get("atoll_requests_total{code=\"limit_cpu\"}"), 1.0);
        assert_eq!(get("atoll_loads_total"), 7.0);
        assert_eq!(get("atoll_isolates_live"), 3.0);
        assert_eq!(get("atoll_request_duration_seconds_bucket{le=\"0.0001\"}"), 2.0);
        assert_eq!(get("atoll_request_duration_seconds_bucket{le=\"0.00025\"}"), 3.0);
        assert_eq!(get("atoll_request_duration_seconds_bucket{le=\"+Inf\"}"), 4.0);
        assert_eq!(get("atoll_request_duration_seconds_count"), 4.0);
        assert!((get("atoll_request_duration_seconds_sum") - 40.000_251).abs() < 1e-9);
    }

    #[test]
    fn labels_are_bounded() {
        let metrics = Metrics::default();
        for i in 0..LABEL_VALUES_MAX + 5 {
            metrics.requests.add(Box::leak(format!("code_{i}").into_boxed_str()), 1);
        }
        assert_eq!(metrics.requests.get("code_0"), 1);
        assert_eq!(metrics.requests.get("other"), 5);
        assert_eq!(metrics.requests.read().count(), LABEL_VALUES_MAX + 1);
    }

    #[test]
    fn counting_from_many_threads_loses_nothing() {
        let metrics = Metrics::default();
        std::thread::scope(|scope| {
            for code in ["a", "b", "a", "c"] {
                let counter = &metrics.requests;
                scope.spawn(move || (0..1_000).for_each(|_| counter.add(code, 1)));
            }
        });
        assert_eq!(metrics.requests.get("a"), 2_000);
        assert_eq!(metrics.requests.read().map(|(_, n)| n).sum::<u64>(), 4_000);
    }
}
