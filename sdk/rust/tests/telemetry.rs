//! What a service tells about itself reaches a collector: spans, log lines with their trace, measurements.

#![expect(clippy::unwrap_used, reason = "test support: a panic is the failure")]

#[path = "app/greeter.rs"]
mod greeter;

use std::collections::BTreeMap;
use std::time::Duration;

use greeter::{GREETER, Greeter, ask, bare_client, greeter, settings};
use ninefold::lifecycle::{OnError, Scope};
use ninefold::serve::{self, Listener, ServeConfig};
use ninefold::telemetry::TRACE_ID_HEADER;
use ninefold::tonic::service::Routes;
use ninefold::tonic::{self, Request, Response, Status};
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use tokio::sync::watch;

const PATIENCE: Duration = Duration::from_secs(10);
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

#[derive(Clone, Default)]
struct Told {
    spans: Vec<Span>,
    logs: Vec<LogRecord>,
    measurements: Vec<String>,
    resource: BTreeMap<String, String>,
}

#[derive(Clone)]
struct Collector(watch::Sender<Told>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.send_modify(|told| {
            for resource in request.into_inner().resource_spans {
                told.resource.extend(resource.resource.unwrap().attributes.into_iter().map(text));
                told.spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
        });
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Collector {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let logs = request.into_inner().resource_logs.into_iter().flat_map(|resource| resource.scope_logs);
        self.0.send_modify(|told| told.logs.extend(logs.flat_map(|scope| scope.log_records)));
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let scopes = request.into_inner().resource_metrics.into_iter().flat_map(|resource| resource.scope_metrics);
        let names = scopes.flat_map(|scope| scope.metrics).map(|metric| metric.name);
        self.0.send_modify(|told| told.measurements.extend(names));
        Ok(Response::new(Default::default()))
    }
}

fn text(attribute: KeyValue) -> (String, String) {
    let value = match attribute.value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        other => format!("{other:?}"),
    };
    (attribute.key, value)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn until(told: &watch::Sender<Told>, what: &str, expected: impl FnMut(&Told) -> bool) -> Told {
    let mut told = told.subscribe();
    let found = tokio::time::timeout(PATIENCE, told.wait_for(expected)).await;
    found.unwrap_or_else(|_| panic!("waited in vain for: {what}")).unwrap().clone()
}

/// One test, because a process has one telemetry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_told_as_span_log_line_and_measurement_of_one_trace() {
    let scope = Scope::root("test");
    let told = watch::Sender::new(Told::default());
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.address());
    let collector = Collector(told.clone());
    let routes = Routes::new(TraceServiceServer::new(collector.clone()))
        .add_service(LogsServiceServer::new(collector.clone()))
        .add_service(MetricsServiceServer::new(collector));
    scope.spawn("test.collector", OnError::Log, |stop| async move {
        serve::run(listener, routes, ServeConfig::default(), async move { stop.asked().await }).await
    });

    let mut settings = settings("http://127.0.0.1:1");
    settings.telemetry.endpoints = vec![endpoint.parse().unwrap()];
    settings.telemetry.filter = "info".to_owned();
    settings.telemetry.measure_every = Duration::from_millis(200);
    settings.instance_id = Some("greeter-1".to_owned());
    let free = Listener::bind("127.0.0.1:0").await.unwrap().address().port();
    settings.listen = format!("127.0.0.1:{free}");
    let app = greeter(settings, &Greeter::new());
    scope.spawn("test.app", OnError::Log, |stop| async move { app.run_until(async move { stop.asked().await }).await });
    let listening = async { while tokio::net::TcpStream::connect(("127.0.0.1", free)).await.is_err() {} };
    tokio::time::timeout(PATIENCE, listening).await.expect("the service listens");

    let mut client = bare_client("127.0.0.1", u32::from(free), &scope).await;
    let mut request = Request::new(ask("now"));
    request.metadata_mut().insert("traceparent", format!("00-{TRACE}-{PARENT}-01").parse().unwrap());
    let answer = client.check_contract(request).await.unwrap();
    assert_eq!(answer.metadata().get(TRACE_ID_HEADER).unwrap(), TRACE);
    let answer = client.check_contract(ask("now")).await.unwrap();
    let fresh = answer.metadata().get(TRACE_ID_HEADER).unwrap().to_str().unwrap().to_owned();
    assert!(fresh.len() == 32 && fresh != TRACE, "a call without a trace begins one");

    let name = format!("{GREETER}/CheckContract");
    let of = |trace: &'static str| move |span: &&Span| hex(&span.trace_id) == trace;
    let heard = until(&told, "the span", |told| told.spans.iter().any(|span| of(TRACE)(&span))).await;
    let span = heard.spans.iter().find(of(TRACE)).unwrap();
    assert_eq!((span.name.as_str(), span.kind), (name.as_str(), SpanKind::Server as i32));
    assert_eq!(hex(&span.parent_span_id), PARENT);
    let attributes: BTreeMap<_, _> = span.attributes.iter().cloned().map(text).collect();
    assert_eq!(attributes["rpc.service"], GREETER);
    assert_eq!(attributes["rpc.method"], "CheckContract");
    assert!(attributes["rpc.grpc.status_code"].contains('0'));
    for (key, value) in
        [("service.name", "greeter"), ("service.instance.id", "greeter-1"), ("service.version", "1.2.3")]
    {
        assert_eq!(heard.resource[key], value);
    }
    assert!(heard.resource.contains_key("host.name") && heard.resource.contains_key("process.pid"));

    let is_served = |log: &LogRecord| {
        let body = log.body.clone().and_then(|body| body.value);
        hex(&log.trace_id) == TRACE && body == Some(Value::StringValue("request served".to_owned()))
    };
    let heard = until(&told, "the log line", |told| told.logs.iter().any(is_served)).await;
    let log = heard.logs.iter().find(|log| is_served(log)).unwrap();
    assert_eq!(log.span_id, span.span_id);

    let measured = ["rpc.server.calls", "rpc.server.duration", "process.cpu.time", "process.memory.usage"];
    until(&told, "measurements", |told| {
        measured.iter().all(|name| told.measurements.iter().any(|measured| measured == name))
    })
    .await;
    let strangers: Vec<_> = told.borrow().spans.iter().filter(|span| span.name != name).cloned().collect();
    assert!(strangers.is_empty(), "neither exports nor probes are spans: {strangers:?}");
    scope.close(PATIENCE).await;
}
