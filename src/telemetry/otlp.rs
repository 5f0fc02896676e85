//! OpenTelemetry over OTLP/HTTP with protobuf: traces, metrics and logs, from one task.
//!
//! The message types are the `opentelemetry-proto` crate's. The SDK's pipelines are not used: they would count
//! every metric a second time, and each runs a thread; here the registry that Prometheus reads is the only one.
//!
//! Bounds: the queue, the batch, the time of one export, and the number of attempts. A collector that is slow
//! or gone costs nothing but dropped items, which are counted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::metrics::v1 as proto_metrics;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as SpanRecord, Status};
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};
use tracing_subscriber::layer::{Context, Layer};

use super::Sampling;
use super::events::{Event, key_value};
use super::metrics::{About, BOUNDS_US, Metric, Metrics, seconds};
use super::trace::{Span, SpanKind, unix_ns};

/// Spans and log records waiting for the exporter, at most.
const QUEUE_ITEMS_MAX: usize = 8_192;
/// Spans or log records in one export, at most.
const BATCH_ITEMS_MAX: usize = 512;
/// Longest wait of a span or log record before it is sent, in milliseconds.
const FLUSH_MS: u64 = 1_000;
/// One attempt to send, in milliseconds.
const ATTEMPT_MS_MAX: u64 = 5_000;
/// Attempts per export; what still fails is dropped and counted.
const ATTEMPTS_MAX: u32 = 3;
/// A collector's answer, at most, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Longest log text sent, in bytes.
const LOG_BODY_BYTES_MAX: usize = 8 * 1024;

/// Where and how to export.
#[derive(Clone, Debug)]
pub struct OtlpConfig {
    /// Base URL of the collector, such as `http://127.0.0.1:4318`; `/v1/traces` and so on are appended.
    pub endpoint: String,
    /// Extra request headers, for authentication.
    pub headers: Vec<(String, String)>,
    /// `service.name`.
    pub service: String,
    /// Which requests are traced.
    pub sampling: Sampling,
    /// Time between metric exports.
    pub metrics_every: Duration,
}

impl OtlpConfig {
    /// The usual settings for a collector.
    #[must_use]
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            headers: Vec::new(),
            service: "atoll".into(),
            sampling: Sampling::default(),
            metrics_every: Duration::from_secs(15),
        }
    }

    /// From the standard variables (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_HEADERS`,
    /// `OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER_ARG`); `None` if no endpoint is set.
    #[must_use]
    pub fn from_env(var: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let endpoint = var("OTEL_EXPORTER_OTLP_ENDPOINT").filter(|value| !value.is_empty())?;
        let mut config = Self::new(endpoint);
        config.headers = var("OTEL_EXPORTER_OTLP_HEADERS")
            .unwrap_or_default()
            .split(',')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
            .collect();
        if let Some(name) = var("OTEL_SERVICE_NAME").filter(|name| !name.is_empty()) {
            config.service = name;
        }
        if let Some(ratio) = var("OTEL_TRACES_SAMPLER_ARG").and_then(|value| value.parse::<f64>().ok()) {
            config.sampling.ratio = ratio.clamp(0.0, 1.0);
        }
        Some(config)
    }
}

/// A configuration that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// Not an absolute `http:` URL.
    #[error(
        "the OTLP endpoint {0:?} is not an absolute http:// URL (for https, run a collector next to Atoll)"
    )]
    Endpoint(String),
    /// A header that HTTP does not allow.
    #[error("the OTLP header {0:?} is not a valid HTTP header")]
    Header(String),
}

enum Item {
    Span(Box<SpanRecord>),
    Log(Box<LogRecord>),
    Flush(oneshot::Sender<()>),
}

/// The way into the exporter's queue.
#[derive(Clone, Debug)]
pub(super) struct Exporter {
    queue: mpsc::Sender<Item>,
}

impl Exporter {
    pub(super) fn span(&self, record: SpanRecord, metrics: &Metrics) {
        if self.queue.try_send(Item::Span(Box::new(record))).is_err() {
            metrics.dropped.add("traces", 1);
        }
    }

    fn log(&self, record: LogRecord, metrics: &Metrics) {
        if self.queue.try_send(Item::Log(Box::new(record))).is_err() {
            metrics.dropped.add("logs", 1);
        }
    }
}

/// Sends what is queued before the process ends.
#[derive(Debug)]
pub struct OtlpGuard {
    queue: mpsc::Sender<Item>,
}

impl OtlpGuard {
    /// Exports everything recorded so far, metrics included. Bounded by the attempts' timeouts.
    pub async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        if self.queue.send(Item::Flush(done)).await.is_ok() {
            let _ = wait.await; // the exporter ended: nothing is left to wait for
        }
    }
}

pub(super) fn start(config: OtlpConfig, metrics: Arc<Metrics>) -> Result<(Exporter, OtlpGuard), OtlpError> {
    let sender = Sender::new(&config)?;
    let (queue, items) = mpsc::channel(QUEUE_ITEMS_MAX);
    let task = Task { sender, metrics, began_unix_ns: unix_ns(), service: config.service };
    tokio::spawn(task.run(items, config.metrics_every));
    Ok((Exporter { queue: queue.clone() }, OtlpGuard { queue }))
}

/// The one task that talks to the collector.
struct Task {
    sender: Sender,
    metrics: Arc<Metrics>,
    began_unix_ns: u64,
    service: String,
}

impl Task {
    async fn run(self, mut items: mpsc::Receiver<Item>, metrics_every: Duration) {
        let mut spans = Vec::new();
        let mut logs = Vec::new();
        let mut flush = tokio::time::interval(Duration::from_millis(FLUSH_MS));
        let mut measure = tokio::time::interval(metrics_every.max(Duration::from_millis(FLUSH_MS)));
        flush.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        measure.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        measure.reset(); // the first one is of no interest
        loop {
            tokio::select! {
                item = items.recv() => match item {
                    Some(Item::Span(span)) => spans.push(*span),
                    Some(Item::Log(log)) => logs.push(*log),
                    Some(Item::Flush(done)) => {
                        self.export(&mut spans, &mut logs).await;
                        self.export_metrics().await;
                        let _ = done.send(()); // the waiter may have given up
                    }
                    None => {
                        self.export(&mut spans, &mut logs).await;
                        return self.export_metrics().await;
                    }
                },
                _ = flush.tick() => self.export(&mut spans, &mut logs).await,
                _ = measure.tick() => self.export_metrics().await,
            }
            if spans.len() >= BATCH_ITEMS_MAX || logs.len() >= BATCH_ITEMS_MAX {
                self.export(&mut spans, &mut logs).await;
            }
        }
    }

    async fn export(&self, spans: &mut Vec<SpanRecord>, logs: &mut Vec<LogRecord>) {
        if !spans.is_empty() {
            let spans = std::mem::take(spans);
            let lost = spans.len() as u64;
            let scope = ScopeSpans { scope: scope(), spans, ..ScopeSpans::default() };
            let message = ExportTraceServiceRequest {
                resource_spans: vec![ResourceSpans {
                    resource: self.resource(),
                    scope_spans: vec![scope],
                    ..ResourceSpans::default()
                }],
            };
            self.send("traces", &self.sender.traces, message.encode_to_vec(), lost).await;
        }
        if !logs.is_empty() {
            let log_records = std::mem::take(logs);
            let lost = log_records.len() as u64;
            let scope = ScopeLogs { scope: scope(), log_records, ..ScopeLogs::default() };
            let message = ExportLogsServiceRequest {
                resource_logs: vec![ResourceLogs {
                    resource: self.resource(),
                    scope_logs: vec![scope],
                    ..ResourceLogs::default()
                }],
            };
            self.send("logs", &self.sender.logs, message.encode_to_vec(), lost).await;
        }
    }

    async fn export_metrics(&self) {
        let now = unix_ns();
        let metrics =
            self.metrics.all().map(|metric| metric_record(metric, self.began_unix_ns, now)).collect();
        let scope = proto_metrics::ScopeMetrics { scope: scope(), metrics, schema_url: String::new() };
        let message = ExportMetricsServiceRequest {
            resource_metrics: vec![proto_metrics::ResourceMetrics {
                resource: self.resource(),
                scope_metrics: vec![scope],
                schema_url: String::new(),
            }],
        };
        self.send("metrics", &self.sender.metrics, message.encode_to_vec(), 1).await;
    }

    async fn send(&self, signal: &'static str, uri: &Uri, body: Vec<u8>, lost: u64) {
        if !self.sender.post(uri, body.into()).await {
            self.metrics.dropped.add(signal, lost);
        }
    }

    fn resource(&self) -> Option<Resource> {
        let text = |value: &str| any_value::Value::StringValue(value.to_owned());
        let attributes = vec![
            key_value("service.name", text(&self.service)),
            key_value("service.version", text(env!("CARGO_PKG_VERSION"))),
            key_value("process.pid", any_value::Value::IntValue(std::process::id().into())),
        ];
        Some(Resource { attributes, ..Resource::default() })
    }
}

fn scope() -> Option<InstrumentationScope> {
    let (name, version) = ("atoll".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    Some(InstrumentationScope { name, version, ..InstrumentationScope::default() })
}

/// The HTTP side.
struct Sender {
    client: Client<HttpConnector, Full<Bytes>>,
    traces: Uri,
    metrics: Uri,
    logs: Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Sender {
    fn new(config: &OtlpConfig) -> Result<Self, OtlpError> {
        let base = config.endpoint.trim_end_matches('/');
        let uri = |signal: &str| {
            let uri = format!("{base}/v1/{signal}").parse::<Uri>().ok();
            uri.filter(|uri| uri.scheme_str() == Some("http") && uri.host().is_some())
                .ok_or_else(|| OtlpError::Endpoint(config.endpoint.clone()))
        };
        let header = |(name, value): &(String, String)| {
            let bad = || OtlpError::Header(name.clone());
            let mut value = HeaderValue::try_from(value).map_err(|_| bad())?;
            value.set_sensitive(true);
            Ok((HeaderName::try_from(name).map_err(|_| bad())?, value))
        };
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(HttpConnector::new()),
            traces: uri("traces")?,
            metrics: uri("metrics")?,
            logs: uri("logs")?,
            headers: config.headers.iter().map(header).collect::<Result<_, OtlpError>>()?,
        })
    }

    /// Whether the collector took it.
    async fn post(&self, uri: &Uri, body: Bytes) -> bool {
        for attempt in 1..=ATTEMPTS_MAX {
            let timeout = Duration::from_millis(ATTEMPT_MS_MAX);
            match tokio::time::timeout(timeout, self.attempt(uri, body.clone())).await {
                Ok(Some(status)) if status.is_success() => return true,
                Ok(Some(status)) if !is_retryable(status) => return false,
                Ok(_) | Err(_) => {}
            }
            if attempt < ATTEMPTS_MAX {
                tokio::time::sleep(Duration::from_millis(100 << attempt)).await;
            }
        }
        false
    }

    async fn attempt(&self, uri: &Uri, body: Bytes) -> Option<StatusCode> {
        let mut request = Request::post(uri).header("content-type", "application/x-protobuf");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let answer = self.client.request(request.body(Full::new(body)).ok()?).await.ok()?;
        let (head, body) = answer.into_parts();
        let _ = Limited::new(body, ANSWER_BYTES_MAX).collect().await; // read it, so that the connection is reused
        Some(head.status)
    }
}

/// The statuses that the OTLP specification calls retryable.
fn is_retryable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

/// The OTLP form of a span and the event that ended it.
pub(super) fn span_record<E: Event>(span: &Span, event: &E) -> SpanRecord {
    let failure = event.failure().map(|code| Status { code: 2, message: code.to_owned() });
    let elapsed_ns = u64::try_from(span.elapsed().as_nanos()).unwrap_or(u64::MAX);
    SpanRecord {
        trace_id: span.context.trace.0.to_vec(),
        span_id: span.context.span.0.to_vec(),
        trace_state: span.context.state.as_deref().unwrap_or_default().to_owned(),
        parent_span_id: span.parent.map_or_else(Vec::new, |parent| parent.0.to_vec()),
        flags: u32::from(span.context.sampled),
        name: E::SPAN.to_owned(),
        kind: match span.kind {
            SpanKind::Internal => 1,
            SpanKind::Server => 2,
            SpanKind::Client => 3,
        },
        start_time_unix_nano: span.start_unix_ns,
        end_time_unix_nano: span.start_unix_ns.saturating_add(elapsed_ns),
        attributes: event.attributes(),
        status: failure,
        ..SpanRecord::default()
    }
}

const CUMULATIVE: i32 = proto_metrics::AggregationTemporality::Cumulative as i32;

fn metric_record(metric: Metric<'_>, began: u64, now: u64) -> proto_metrics::Metric {
    use proto_metrics::metric::Data;
    let point = |label: &str, value: &str, n: u64| proto_metrics::NumberDataPoint {
        attributes: match label {
            "" => Vec::new(),
            label => vec![key_value(label, any_value::Value::StringValue(value.to_owned()))],
        },
        start_time_unix_nano: began,
        time_unix_nano: now,
        value: Some(proto_metrics::number_data_point::Value::AsInt(i64::try_from(n).unwrap_or(i64::MAX))),
        ..proto_metrics::NumberDataPoint::default()
    };
    let (about, data) = match metric {
        Metric::Counter(counter) => {
            let data_points = counter.read().map(|(value, n)| point(counter.about.label, value, n)).collect();
            let sum =
                proto_metrics::Sum { data_points, aggregation_temporality: CUMULATIVE, is_monotonic: true };
            (counter.about, Data::Sum(sum))
        }
        Metric::Gauge(gauge) => {
            let data_points = vec![point("", "", gauge.get())];
            (gauge.about, Data::Gauge(proto_metrics::Gauge { data_points }))
        }
        Metric::Histogram(histogram) => {
            let read = histogram.read();
            let point = proto_metrics::HistogramDataPoint {
                start_time_unix_nano: began,
                time_unix_nano: now,
                count: read.count(),
                sum: Some(seconds(read.sum_us)),
                bucket_counts: read.buckets.to_vec(),
                explicit_bounds: BOUNDS_US.map(seconds).to_vec(),
                ..proto_metrics::HistogramDataPoint::default()
            };
            let data =
                proto_metrics::Histogram { data_points: vec![point], aggregation_temporality: CUMULATIVE };
            (histogram.about, Data::Histogram(data))
        }
    };
    let About { name, help, unit, .. } = about;
    proto_metrics::Metric {
        name: name.to_owned(),
        description: help.to_owned(),
        unit: unit.to_owned(),
        data: Some(data),
        ..proto_metrics::Metric::default()
    }
}

/// Sends `tracing` events of Atoll (not of its dependencies) as OTLP log records.
pub(super) struct LogLayer {
    exporter: Exporter,
    metrics: Arc<Metrics>,
}

impl LogLayer {
    pub(super) fn new(exporter: Exporter, metrics: Arc<Metrics>) -> Self {
        Self { exporter, metrics }
    }
}

impl<S: tracing::Subscriber> Layer<S> for LogLayer {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let meta = event.metadata();
        // Dependencies' events stay out: among them are those of the HTTP client that this exporter uses.
        if !meta.target().starts_with("atoll") {
            return;
        }
        let (severity, text) = match *meta.level() {
            tracing::Level::ERROR => (SeverityNumber::Error, "ERROR"),
            tracing::Level::WARN => (SeverityNumber::Warn, "WARN"),
            tracing::Level::INFO => (SeverityNumber::Info, "INFO"),
            tracing::Level::DEBUG => (SeverityNumber::Debug, "DEBUG"),
            tracing::Level::TRACE => (SeverityNumber::Trace, "TRACE"),
        };
        let now = unix_ns();
        let mut record = LogRecord {
            time_unix_nano: now,
            observed_time_unix_nano: now,
            severity_number: severity as i32,
            severity_text: text.to_owned(),
            ..LogRecord::default()
        };
        event.record(&mut Fields(&mut record));
        self.exporter.log(record, &self.metrics);
    }
}

/// Copies an event's fields into a log record.
struct Fields<'a>(&'a mut LogRecord);

impl Fields<'_> {
    fn put(&mut self, name: &str, value: any_value::Value) {
        self.0.attributes.push(key_value(name, value));
    }
}

impl tracing::field::Visit for Fields<'_> {
    fn record_u64(&mut self, field: &tracing::field::Field, value: u64) {
        self.put(field.name(), any_value::Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)));
    }

    fn record_i64(&mut self, field: &tracing::field::Field, value: i64) {
        self.put(field.name(), any_value::Value::IntValue(value));
    }

    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        match field.name() {
            "trace_id" => self.0.trace_id = unhex(value),
            "span_id" => self.0.span_id = unhex(value),
            name => self.put(name, any_value::Value::StringValue(value.to_owned())),
        }
    }

    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        let mut text = format!("{value:?}");
        if field.name() != "message" {
            return self.put(field.name(), any_value::Value::StringValue(text));
        }
        text.truncate(text.floor_char_boundary(LOG_BODY_BYTES_MAX));
        self.0.body = Some(AnyValue { value: Some(any_value::Value::StringValue(text)) });
    }
}

/// An id that this process wrote in hexadecimal; anything else gives no id.
fn unhex(text: &str) -> Vec<u8> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    text.as_bytes().chunks(2).map(byte).collect::<Option<_>>().unwrap_or_default()
}
