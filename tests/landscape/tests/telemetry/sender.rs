//! A sender of log lines and spans, as exporters of OTLP over gRPC are.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// Longest wait for an answer. Generous: the machine may be busy.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// One connection.
#[derive(Clone, Debug)]
pub(crate) struct Sender {
    logs: LogsServiceClient<Channel>,
    traces: TraceServiceClient<Channel>,
}

impl Sender {
    /// Connects to the door of OTLP over gRPC.
    pub(crate) async fn connect(address: &str) -> Result<Self> {
        let channel = Endpoint::from_shared(format!("http://{address}"))?.timeout(ANSWER_MAX).connect().await?;
        Ok(Self { logs: LogsServiceClient::new(channel.clone()), traces: TraceServiceClient::new(channel) })
    }

    /// Tells a line as it is.
    pub(crate) async fn line(&mut self, service: &str, record: LogRecord) -> Result<(), Status> {
        let scope_logs = vec![ScopeLogs { log_records: vec![record], ..ScopeLogs::default() }];
        let batch = ResourceLogs { resource: resource(service), scope_logs, ..ResourceLogs::default() };
        self.logs.export(ExportLogsServiceRequest { resource_logs: vec![batch] }).await.map(drop)
    }

    /// Tells a span as it is.
    pub(crate) async fn span(&mut self, service: &str, span: Span) -> Result<(), Status> {
        let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
        let batch = ResourceSpans { resource: resource(service), scope_spans, ..ResourceSpans::default() };
        self.traces.export(ExportTraceServiceRequest { resource_spans: vec![batch] }).await.map(drop)
    }

    /// Tells lines of a service, in one request.
    pub(crate) async fn lines(&mut self, service: &str, bodies: &[String]) -> Result<(), Status> {
        let record = |body: &String| LogRecord {
            time_unix_nano: now(),
            severity_number: 9,
            body: text(body.clone()),
            ..LogRecord::default()
        };
        let scope_logs = vec![ScopeLogs { log_records: bodies.iter().map(record).collect(), ..ScopeLogs::default() }];
        let batch = ResourceLogs { resource: resource(service), scope_logs, ..ResourceLogs::default() };
        self.logs.export(ExportLogsServiceRequest { resource_logs: vec![batch] }).await.map(drop)
    }

    /// Tells spans of a service that belong to a trace, by their numbers, in one request; all are part of another, if it is
    /// named. The first to begin is the one without.
    pub(crate) async fn spans(
        &mut self,
        service: &str,
        trace: u128,
        numbers: std::ops::RangeInclusive<u64>,
        parent: Option<u64>,
    ) -> Result<(), Status> {
        let span = |number: u64| Span {
            trace_id: trace.to_be_bytes().to_vec(),
            span_id: number.to_be_bytes().to_vec(),
            parent_span_id: parent.map(|parent| parent.to_be_bytes().to_vec()).unwrap_or_default(),
            name: format!("step {number}"),
            kind: 2,
            start_time_unix_nano: now(),
            end_time_unix_nano: now() + 1_000_000,
            ..Span::default()
        };
        let scope_spans = vec![ScopeSpans { spans: numbers.map(span).collect(), ..ScopeSpans::default() }];
        let batch = ResourceSpans { resource: resource(service), scope_spans, ..ResourceSpans::default() };
        self.traces.export(ExportTraceServiceRequest { resource_spans: vec![batch] }).await.map(drop)
    }

    /// Tells so many spans of a trace, in one request.
    pub(crate) async fn trace(&mut self, trace: u128, spans: usize) -> Result<(), Status> {
        let span = |number: usize| Span {
            trace_id: trace.to_be_bytes().to_vec(),
            span_id: (number as u64 + 1).to_be_bytes().to_vec(),
            name: format!("step {number}"),
            kind: 2,
            start_time_unix_nano: now(),
            end_time_unix_nano: now() + 1_000_000,
            ..Span::default()
        };
        let scope_spans = vec![ScopeSpans { spans: (0..spans).map(span).collect(), ..ScopeSpans::default() }];
        let batch = ResourceSpans { resource: resource("pump"), scope_spans, ..ResourceSpans::default() };
        self.traces.export(ExportTraceServiceRequest { resource_spans: vec![batch] }).await.map(drop)
    }
}

/// The id of a trace that a sender tells of once.
pub(crate) fn trace_of(round: u64, sender: u64, batch: u64) -> u128 {
    (u128::from(round) + 1) << 96 | u128::from(sender) << 64 | u128::from(batch + 1)
}

/// Whether a refusal says when to come back.
pub(crate) fn comes_back(refusal: &Status) -> bool {
    let name = b"google.rpc.RetryInfo";
    refusal.details().windows(name.len()).any(|window| window == name)
}

/// A value of text.
pub(crate) fn text(value: String) -> Option<AnyValue> {
    Some(AnyValue { value: Some(Value::StringValue(value)) })
}

/// Now, in nanoseconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn resource(service: &str) -> Option<Resource> {
    let pair = |key: &str, value: String| KeyValue { key: key.to_owned(), value: text(value), ..KeyValue::default() };
    let attributes =
        vec![pair("service.name", service.to_owned()), pair("service.instance.id", format!("{service}-1"))];
    Some(Resource { attributes, ..Resource::default() })
}
