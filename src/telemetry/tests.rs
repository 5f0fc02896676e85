//! Telemetry against a real OTLP/HTTP collector: a small hyper server that decodes what it is sent.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use prost::Message as _;
use tracing_subscriber::layer::SubscriberExt as _;

use super::events::InvocationFinished;
use super::guest::GuestLine;
use super::trace::SpanKind;
use super::*;

#[derive(Default)]
struct Received {
    traces: Vec<ExportTraceServiceRequest>,
    metrics: Vec<ExportMetricsServiceRequest>,
    logs: Vec<ExportLogsServiceRequest>,
    refusals_left: u32,
    keys: Vec<String>,
}

async fn answer(
    request: Request<Incoming>,
    into: Arc<Mutex<Received>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let mut received = into.lock().unwrap();
    assert_eq!(head.headers["content-type"], "application/x-protobuf");
    let mut response = Response::new(Full::default());
    if received.refusals_left > 0 {
        received.refusals_left -= 1;
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        return Ok(response);
    }
    received.keys.push(head.headers["x-key"].to_str().unwrap().to_owned());
    match head.uri.path() {
        "/v1/traces" => received.traces.push(ExportTraceServiceRequest::decode(body).unwrap()),
        "/v1/metrics" => received.metrics.push(ExportMetricsServiceRequest::decode(body).unwrap()),
        "/v1/logs" => received.logs.push(ExportLogsServiceRequest::decode(body).unwrap()),
        other => panic!("unexpected {other}"),
    }
    Ok(response)
}

async fn collector() -> (String, Arc<Mutex<Received>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let received = Arc::<Mutex<Received>>::default();
    let into = received.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let into = into.clone();
            let service = hyper::service::service_fn(move |request| answer(request, into.clone()));
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    (url, received)
}

fn config(url: String) -> OtlpConfig {
    OtlpConfig { headers: vec![("x-key".into(), "k1".into())], ..OtlpConfig::new(url) }
}

fn finished(code: &'static str) -> InvocationFinished<'static> {
    InvocationFinished {
        tenant: "acme",
        worker: "w",
        event: "fetch",
        code,
        elapsed_us: 1_500,
        cpu_us: 900,
        wall_us: 1_000,
        isolate_wait_us: 10,
        heap_bytes_peak: 1 << 20,
        subrequests: 0,
        loads: 2,
    }
}

#[tokio::test]
async fn a_collector_receives_the_trace_the_metrics_and_the_log() {
    let (url, received) = collector().await;
    received.lock().unwrap().refusals_left = 1; // the first attempt is refused: it must be retried
    let (telemetry, guard) = Telemetry::with_otlp(config(url)).unwrap();

    let mut headers = HeaderMap::new();
    headers.insert("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00".parse().unwrap());
    headers.insert("tracestate", "vendor=1".parse().unwrap());
    let request = telemetry.server_span(&headers);
    let work = request.child(SpanKind::Internal);
    let subscriber = tracing_subscriber::registry().with(telemetry.otlp_layer());
    tracing::subscriber::with_default(subscriber, || {
        telemetry.end(&work, &finished("limit_cpu"));
        telemetry.end(&request, &finished("done"));
        let trace = request.context().trace.to_string();
        telemetry.guest_line(GuestLine {
            tenant: "acme",
            worker: "w",
            trace: Some(&trace),
            level: atoll_bindings::seam::LogLevel::Warn,
            message: "guest\u{1b}[31m says\nhi",
            fields: None,
            invocation: 1,
        });
    });
    guard.flush().await;

    let received = received.lock().unwrap();
    let spans = &received.traces[0].resource_spans[0].scope_spans[0].spans;
    let [work, request] = spans.as_slice() else { panic!("{spans:?}") };
    assert_eq!(request.name, "invocation");
    assert!(request.status.is_none() && work.status.as_ref().is_some_and(|s| s.message == "limit_cpu"));
    assert_eq!(request.trace_id[..2], [0x0a, 0xf7], "the client's trace goes on");
    assert_eq!(request.parent_span_id, [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]);
    assert_eq!(request.trace_state, "vendor=1");
    assert_eq!(work.parent_span_id, request.span_id);
    assert!(request.end_time_unix_nano >= request.start_time_unix_nano);
    let attribute = |key: &str| {
        let found = request.attributes.iter().find(|a| a.key == key)?;
        found.value.clone()?.value
    };
    assert_eq!(attribute("atoll.cpu_us"), Some(Value::IntValue(900)));
    assert_eq!(attribute("atoll.tenant"), Some(Value::StringValue("acme".into())));

    let metrics = &received.metrics[0].resource_metrics[0].scope_metrics[0].metrics;
    let requests = metrics.iter().find(|metric| metric.name == "atoll_requests_total").unwrap();
    let Some(Data::Sum(sum)) = &requests.data else { panic!("{requests:?}") };
    assert!(sum.is_monotonic && sum.data_points.len() == 2);
    let seconds = metrics.iter().find(|metric| metric.name == "atoll_request_duration_seconds").unwrap();
    let Some(Data::Histogram(histogram)) = &seconds.data else { panic!("{seconds:?}") };
    assert_eq!(histogram.data_points[0].count, 2);

    let logs = &received.logs[0].resource_logs[0].scope_logs[0].log_records;
    let guest = logs.iter().find(|log| log.severity_text == "WARN").unwrap();
    assert_eq!(guest.trace_id, request.trace_id, "the log line is tied to the trace");
    let body = guest.body.clone().unwrap().value;
    assert_eq!(
        body,
        Some(Value::StringValue("guest\\u{1b}[31m says\\nhi".into())),
        "control codes are escaped"
    );
    assert!(logs.iter().any(|log| log.span_id == request.span_id), "events are logs, too");
    assert!(received.keys.iter().all(|key| key == "k1"));
}

#[tokio::test]
async fn a_dead_collector_costs_dropped_items_only() {
    // Nobody listens on the port of a listener that is gone.
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let (telemetry, guard) = Telemetry::with_otlp(config(format!("http://127.0.0.1:{port}"))).unwrap();
    let span = telemetry.server_span(&HeaderMap::new());
    telemetry.end(&span, &finished("host_fault"));
    guard.flush().await;
    assert_eq!(telemetry.metrics().dropped.get("traces"), 1);
    assert_eq!(telemetry.metrics().dropped.get("metrics"), 1);
    assert_eq!(telemetry.metrics().requests.get("host_fault"), 1, "the numbers do not depend on it");
}

#[tokio::test]
async fn sampling_is_the_operators_choice_unless_clients_are_trusted() {
    let (url, received) = collector().await;
    let mut settings = config(url);
    settings.sampling = Sampling { ratio: 0.0, trust_parent: true };
    let (telemetry, guard) = Telemetry::with_otlp(settings.clone()).unwrap();
    let mut headers = HeaderMap::new();
    assert!(!telemetry.server_span(&headers).context().sampled);
    headers.insert("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap());
    assert!(telemetry.server_span(&headers).context().sampled);
    settings.sampling.trust_parent = false;
    let (strict, _strict_guard) = Telemetry::with_otlp(settings).unwrap();
    let span = strict.server_span(&headers);
    assert!(!span.context().sampled && span.traceparent().ends_with("-00"));
    strict.end(&span, &finished("done"));
    guard.flush().await;
    assert!(received.lock().unwrap().traces.is_empty());
}

#[test]
fn endpoints_and_headers_are_checked_and_the_standard_variables_are_read() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    for bad in ["", "collector:4318", "https://collector", "/v1"] {
        assert!(matches!(Telemetry::with_otlp(OtlpConfig::new(bad)), Err(OtlpError::Endpoint(_))), "{bad}");
    }
    let vars = |name: &str| match name {
        "OTEL_EXPORTER_OTLP_ENDPOINT" => Some("http://c:4318/".to_owned()),
        "OTEL_EXPORTER_OTLP_HEADERS" => Some("a=1, b=2=3".to_owned()),
        "OTEL_TRACES_SAMPLER_ARG" => Some("0.25".to_owned()),
        _ => None,
    };
    let config = OtlpConfig::from_env(vars).unwrap();
    assert_eq!(config.headers, [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2=3".to_owned())]);
    assert!((config.sampling.ratio - 0.25).abs() < f64::EPSILON);
    assert!(OtlpConfig::from_env(|_| None).is_none());
}
