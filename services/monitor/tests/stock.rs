//! The monitor and stock OpenTelemetry: the SDK of another language, over real sockets, knowing nothing of ours.

#[path = "house/house.rs"]
mod house;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use house::House;
use ninefold::Link;
use ninefold::tonic::service::Routes;
use ninefold::tonic::transport::Server;
use ninefold::tonic::transport::server::TcpIncoming;
use ninefold_monitor::Config;
use ninefold_proto::ninefold::monitor::v1::metric_service_client::MetricServiceClient;
use ninefold_proto::ninefold::monitor::v1::{
    GetTraceRequest, Level, ListSamplesRequest, ListUsageRequest, LogFilter, QueryMetricsRequest, SearchLogsRequest,
    SpanKind, metric_point,
};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::process::Command;

/// How long the program may take, the start of its interpreter included.
const PROGRAM_DEADLINE: Duration = Duration::from_secs(60);

/// Says a line inside two spans and measures two things; prints the trace id.
const PROGRAM: &str = r#"
import logging, os, sys
kind, endpoint = sys.argv[1:]
if kind == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as Logs
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as Metrics
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Spans
    logs, metrics, spans = (made(endpoint=endpoint, insecure=True) for made in (Logs, Metrics, Spans))
else:
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as Logs
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as Metrics
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Spans
    logs, metrics, spans = (
        made(endpoint=endpoint + "/v1/" + signal, compression=Compression.Gzip)
        for made, signal in ((Logs, "logs"), (Metrics, "metrics"), (Spans, "traces")))

from opentelemetry.metrics import Observation
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode

resource = Resource.create({"service.name": "stock-" + kind, "service.instance.id": "s-1"})
tracing = TracerProvider(resource=resource)
tracing.add_span_processor(BatchSpanProcessor(spans))
logging_ = LoggerProvider(resource=resource)
logging_.add_log_record_processor(BatchLogRecordProcessor(logs))
from opentelemetry.sdk.metrics import AlwaysOnExemplarFilter, Counter, Histogram
from opentelemetry.sdk.metrics.export import AggregationTemporality
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
# Totals as additions, and one histogram with buckets that grow.
metrics._preferred_temporality = {**metrics._preferred_temporality, Counter: AggregationTemporality.DELTA}
metering = MeterProvider(
    resource=resource, metric_readers=[PeriodicExportingMetricReader(metrics, export_interval_millis=10**9)],
    exemplar_filter=AlwaysOnExemplarFilter(),
    views=[View(instrument_name="wide", aggregation=ExponentialBucketHistogramAggregation())])

logger = logging.getLogger("stock")
logger.addHandler(LoggingHandler(logger_provider=logging_))
metering.get_meter("stock").create_observable_gauge(
    "process.memory.usage", callbacks=[lambda _: [Observation(4096, {})]], unit="By")
metering.get_meter("stock").create_counter("answers").add(3, {"kind": "good"})
tracer = tracing.get_tracer("stock")
with tracer.start_as_current_span("answer", kind=SpanKind.SERVER) as span:
    with tracer.start_as_current_span("look up", attributes={"rows": 2}) as inner:
        inner.set_status(StatusCode.ERROR, "no such row")
        logger.warning("no row %d", 7)
    metering.get_meter("stock").create_histogram("took", unit="s", explicit_bucket_boundaries_advisory=[0.1, 1.0]).record(0.5)
    wide = metering.get_meter("stock").create_histogram("wide")
    for value in (1.5, 3.0, 3.5, 100.0):
        wide.record(value)
    added = metering.get_meter("stock").create_counter("added")
    for value in (2, 5):
        added.add(value)
        metering.force_flush()
    print(format(span.get_span_context().trace_id, "032x"))
for provider in (tracing, logging_, metering):
    provider.shutdown()
"#;

/// The Python with stock OpenTelemetry that `./check` installs, or else the system's.
fn python() -> PathBuf {
    let tools = std::env::var_os("NINEFOLD_TOOLS").map(|tools| PathBuf::from(tools).join("venv/bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = tools.into_iter().chain(std::env::split_paths(&path)).map(|folder| folder.join("python3"));
    found.into_iter().find(|file| file.is_file()).expect("no python3 is found: install python3 or run ./check")
}

async fn run(kind: &str, endpoint: &str) -> String {
    let mut program = Command::new(python())
        .args(["-", kind, endpoint])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("python3 starts");
    let mut stdin = program.stdin.take().expect("it is piped");
    stdin.write_all(PROGRAM.as_bytes()).await.expect("the program is read");
    drop(stdin);
    let output = tokio::time::timeout(PROGRAM_DEADLINE, program.wait_with_output()).await;
    let output = output.expect("the program ends in time").expect("its output is read");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the program failed; is stock OpenTelemetry installed (run ./check)?\n{errors}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

async fn is_understood(house: &House, kind: &str, endpoint: &str) {
    let trace_id = run(kind, endpoint).await;
    let service = format!("stock-{kind}");
    let trace = house.monitor().get_trace(GetTraceRequest { trace_id: trace_id.clone() }).await;
    let trace = trace.expect("the trace is kept").into_inner();
    let spans: Vec<_> = trace.spans.iter().map(|span| (span.name.as_str(), span.kind(), span.failed)).collect();
    assert_eq!(spans, [("answer", SpanKind::Server, false), ("look up", SpanKind::Internal, true)]);
    assert_eq!(trace.spans[1].parent_span_id, trace.spans[0].span_id);
    assert_eq!(
        (trace.spans[1].status_message.as_str(), trace.spans[1].attributes["rows"].as_str()),
        ("no such row", "2")
    );
    assert_eq!(trace.records.len(), 1, "its line is told with it");

    let filter = LogFilter { service: service.clone(), level: Level::Warn.into(), ..LogFilter::default() };
    let request = SearchLogsRequest { filter: Some(filter), ..SearchLogsRequest::default() };
    let lines = house.monitor().search_logs(request).await.expect("it is answered").into_inner().records;
    assert_eq!((lines[0].body.as_str(), lines[0].instance_id.as_str()), ("no row 7", "s-1"));
    assert_eq!(
        (lines[0].trace_id.as_str(), lines[0].span_id.as_str()),
        (trace_id.as_str(), trace.spans[1].span_id.as_str())
    );

    let request = ListUsageRequest { service: service.clone() };
    let usage = house.monitor().list_usage(request).await.expect("it is answered").into_inner().usage;
    assert_eq!((usage.len(), usage[0].memory_bytes), (1, 4096));
    let request = ListSamplesRequest { metric: "answers".to_owned(), service, ..ListSamplesRequest::default() };
    let samples = house.monitor().list_samples(request).await.expect("it is answered").into_inner().samples;
    assert_eq!((samples.len(), samples[0].value, samples[0].labels["kind"].as_str()), (1, 3.0, "good"));
    metrics_are_understood(house, kind, &trace_id).await;
}

/// Who answers questions about metrics.
fn asking(house: &House) -> MetricServiceClient<Link> {
    let mut routes = Routes::builder();
    house.monitor.add_to(&mut routes);
    MetricServiceClient::new(routes.routes().into())
}

async fn metrics_are_understood(house: &House, kind: &str, trace_id: &str) {
    let job = format!("job=\"stock-{kind}\"");
    for (query, expected) in [
        (format!("added_total{{{job}}}"), 7.0),
        (format!("took_seconds_bucket{{{job},le=\"0.1\"}}"), 0.0),
        (format!("took_seconds_bucket{{{job},le=\"1\"}}"), 1.0),
        (format!("took_seconds_sum{{{job}}}"), 0.5),
        (format!("histogram_count(wide{{{job}}})"), 4.0),
        (format!("histogram_sum(wide{{{job}}})"), 108.0),
        (format!("histogram_fraction(0, 10, wide{{{job}}})"), 0.75),
    ] {
        let request = QueryMetricsRequest { query: query.clone(), ..QueryMetricsRequest::default() };
        let answer = asking(house).query_metrics(request).await.expect("it is answered").into_inner();
        let value =
            answer.series.first().and_then(|series| series.points.first()).and_then(|point| point.value.clone());
        assert_eq!(value, Some(metric_point::Value::Number(expected)), "{query}");
    }
    let asked = format!("/api/v1/query_exemplars?query=took_seconds_bucket%7B{}%7D", job.replace('"', "%22"));
    let request = http::Request::get(asked).body(axum::body::Body::empty()).expect("a request");
    let answer = tower::ServiceExt::oneshot(house.monitor.query_router(), request).await.expect("it is answered");
    let bytes = axum::body::to_bytes(answer.into_body(), 1 << 20).await.expect("a body");
    let told: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
    let first = &told["data"][0];
    assert_eq!(first["seriesLabels"]["le"], "1", "{told}");
    assert_eq!(first["exemplars"][0]["labels"]["trace_id"], trace_id, "{told}");
    assert_eq!(first["exemplars"][0]["value"], "0.5", "{told}");
}

#[tokio::test]
async fn what_a_stock_sdk_exports_over_grpc_is_understood() {
    let house = House::start(Config::default());
    let incoming = TcpIncoming::bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a port is free");
    let endpoint = format!("http://{}", incoming.local_addr().expect("it is bound"));
    let routes = house.monitor.otlp_routes();
    house.scope.run("test.serve", |stop| async move {
        let served = Server::builder().add_routes(routes);
        served.serve_with_incoming_shutdown(incoming, async move { stop.asked().await }).await.expect("it serves");
    });
    is_understood(&house, "grpc", &endpoint).await;
    house.scope.close(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn what_a_stock_sdk_exports_over_http_is_understood() {
    let house = House::start(Config::default());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
    let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
    let router = house.monitor.http_router();
    house.scope.run("test.serve", |stop| async move {
        let served = axum::serve(listener, router);
        served.with_graceful_shutdown(async move { stop.asked().await }).await.expect("it serves");
    });
    is_understood(&house, "http", &endpoint).await;
    house.scope.close(Duration::from_secs(5)).await;
}
