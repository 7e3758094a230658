//! A monitor of one's own, and words to talk to it.

#![allow(dead_code, reason = "each test file uses its part")]

use axum::body::Body;
use http_body_util::BodyExt as _;
use ninefold::Link;
use ninefold::lifecycle::Scope;
use ninefold::tonic::service::Routes;
use ninefold_monitor::{Config, Monitor};
use ninefold_proto::ninefold::monitor::v1::monitor_service_client::MonitorServiceClient;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use tower::ServiceExt as _;

/// A monitor in this process, without sockets.
pub(crate) struct House {
    pub(crate) monitor: Monitor,
    pub(crate) scope: Scope,
    link: Link,
}

/// A line, as a service says it.
#[derive(Clone, Copy, Default)]
pub(crate) struct LineSaid<'a> {
    pub(crate) service: &'a str,
    pub(crate) time: u64,
    pub(crate) severity: i32,
    pub(crate) body: &'a str,
    pub(crate) trace: &'a str,
    /// `name=value`
    pub(crate) attribute: &'a str,
}

/// A span, as a service tells of it.
#[derive(Clone, Copy, Default)]
pub(crate) struct SpanDone<'a> {
    pub(crate) service: &'a str,
    pub(crate) id: u8,
    pub(crate) parent: u8,
    pub(crate) name: &'a str,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) failed: bool,
}

impl House {
    pub(crate) fn start(config: Config) -> Self {
        let scope = Scope::root("test");
        Self::of(Monitor::start(config, &scope), scope)
    }

    /// A monitor that keeps what it is told in the folder of the settings.
    pub(crate) async fn open(config: Config) -> Self {
        let scope = Scope::root("test");
        Self::of(Monitor::open(config, &scope).await.expect("the folder can be used"), scope)
    }

    /// Ends it as a node does.
    pub(crate) async fn close(self) {
        assert!(self.scope.close(std::time::Duration::from_secs(60)).await.is_empty());
        // A thread that wrote for a sender may hold the folder a moment longer than the sender waits.
        self.monitor.let_go();
    }

    fn of(monitor: Monitor, scope: Scope) -> Self {
        let mut routes = Routes::builder();
        monitor.add_to(&mut routes);
        Self { monitor, scope, link: routes.routes().into() }
    }

    pub(crate) fn monitor(&self) -> MonitorServiceClient<Link> {
        MonitorServiceClient::new(self.link.clone())
    }

    pub(crate) fn link(&self) -> Link {
        self.link.clone()
    }

    pub(crate) fn logs(&self) -> LogsServiceClient<Link> {
        LogsServiceClient::new(self.link.clone())
    }

    pub(crate) fn metrics(&self) -> MetricsServiceClient<Link> {
        MetricsServiceClient::new(self.monitor.otlp_routes().into())
    }

    pub(crate) async fn line(&self, said: LineSaid<'_>) {
        self.logs().export(logs_of(said)).await.expect("a line is taken");
    }

    pub(crate) async fn span(&self, trace: &str, done: SpanDone<'_>) {
        let answer = TraceServiceClient::new(self.link.clone()).export(spans_of(trace, done)).await;
        assert_eq!(answer.expect("a span is taken").into_inner().partial_success, None);
    }
}

pub(crate) fn logs_of(said: LineSaid<'_>) -> ExportLogsServiceRequest {
    let pair = said.attribute.split_once('=');
    let record = LogRecord {
        time_unix_nano: said.time,
        severity_number: said.severity,
        body: Some(text(said.body)),
        trace_id: bytes(said.trace),
        attributes: pair.into_iter().map(|(name, value)| attribute(name, value)).collect(),
        ..LogRecord::default()
    };
    let scope_logs = vec![ScopeLogs { log_records: vec![record], ..ScopeLogs::default() }];
    let batch = ResourceLogs { resource: resource(said.service), scope_logs, ..ResourceLogs::default() };
    ExportLogsServiceRequest { resource_logs: vec![batch] }
}

pub(crate) fn spans_of(trace: &str, done: SpanDone<'_>) -> ExportTraceServiceRequest {
    let span = Span {
        trace_id: bytes(trace),
        span_id: vec![done.id; 8],
        parent_span_id: if done.parent == 0 { Vec::new() } else { vec![done.parent; 8] },
        name: done.name.to_owned(),
        kind: 2,
        start_time_unix_nano: done.start,
        end_time_unix_nano: done.end,
        status: done.failed.then(|| Status { code: 2, message: "it broke".to_owned() }),
        ..Span::default()
    };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
    let batch = ResourceSpans { resource: resource(done.service), scope_spans, ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![batch] }
}

pub(crate) fn resource(service: &str) -> Option<Resource> {
    let attributes =
        vec![attribute("service.name", service), attribute("service.instance.id", &format!("{service}-1"))];
    Some(Resource { attributes, ..Resource::default() })
}

pub(crate) fn attribute(name: &str, value: &str) -> KeyValue {
    KeyValue { key: name.to_owned(), value: Some(text(value)), ..KeyValue::default() }
}

fn text(text: &str) -> AnyValue {
    AnyValue { value: Some(any_value::Value::StringValue(text.to_owned())) }
}

fn bytes(hex: &str) -> Vec<u8> {
    let pairs = (0..hex.len()).step_by(2).map(|at| &hex[at..at + 2]);
    pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hex digits")).collect()
}

/// A time so many nanoseconds after 1970.
pub(crate) fn nanos(nanos: i32) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds: 0, nanos })
}

/// An answer over HTTP.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) kind: String,
    pub(crate) retry_after: String,
    pub(crate) body: Vec<u8>,
}

/// Posts a body, as a sender over HTTP does.
pub(crate) async fn http(house: &House, path: &str, kind: &str, encoding: &str, body: impl Into<Body>) -> Answer {
    let mut request = http::Request::post(path).header("content-type", kind);
    if !encoding.is_empty() {
        request = request.header("content-encoding", encoding);
    }
    let request = request.body(body.into()).expect("a request");
    let response = house.monitor.http_router().oneshot(request).await.expect("a router answers");
    let header = |name: &str| {
        let value = response.headers().get(name);
        value.map(|value| value.to_str().expect("printable").to_owned()).unwrap_or_default()
    };
    let (status, kind, retry_after) = (response.status().as_u16(), header("content-type"), header("retry-after"));
    let body = response.into_body().collect().await.expect("a whole body").to_bytes().to_vec();
    Answer { status, kind, retry_after, body }
}

/// Asks again and again until it is so; at most a minute.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let asked = async {
        let mut tick = tokio::time::interval(std::time::Duration::from_millis(10));
        while !is_so().await {
            tick.tick().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), asked).await.expect(what);
}
