//! The hour: log lines and spans of a landscape of twelve services, the same for every run.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

/// Records of a request, as exporters send them.
pub(crate) const BATCH: u64 = 1000;
/// The word that occurs once.
pub(crate) const RARE: &str = "quokka";
/// The service and level that are asked for.
pub(crate) const SERVICE: &str = "payment";
const HOUR: u64 = 3_600_000_000_000;
const SERVICES: [&str; 12] = [
    "edge",
    "product",
    "review",
    "recommendation",
    "payment",
    "cart",
    "user",
    "search",
    "stock",
    "mail",
    "ship",
    "audit",
];
const PATHS: [&str; 6] = ["/v1/products", "/v1/reviews", "/v1/cart", "/v1/orders", "/v1/users/me", "/v1/search"];

/// A log line, before it is written in any form.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) time: u64,
    pub(crate) service: &'static str,
    pub(crate) instance: String,
    pub(crate) severity: i32,
    pub(crate) level: &'static str,
    pub(crate) body: String,
    pub(crate) trace: Option<u128>,
    pub(crate) path: &'static str,
    pub(crate) status: u32,
}

/// The hour.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hour {
    /// When it begins, in nanoseconds since 1970.
    pub(crate) start: u64,
    /// How many log lines it has; half as many spans.
    pub(crate) lines: u64,
}

impl Hour {
    /// The lines of a batch: of one instance, as a sender has them.
    pub(crate) fn said(self, batch: u64) -> Vec<Said> {
        let mut random = fastrand::Rng::with_seed(batch + 1);
        let service = SERVICES[random.usize(..SERVICES.len())];
        let instance = format!("{service}-{}", random.u8(..3));
        let rows = batch * BATCH..((batch + 1) * BATCH).min(self.lines);
        rows.map(|row| self.line(row, service, &instance, &mut random)).collect()
    }

    fn line(self, row: u64, service: &'static str, instance: &str, random: &mut fastrand::Rng) -> Said {
        let path = PATHS[random.usize(..PATHS.len())];
        let (severity, level) = match random.u8(..100) {
            0 => (17, "error"),
            1..=4 => (13, "warn"),
            5..=24 => (5, "debug"),
            _ => (9, "info"),
        };
        let status = if severity == 17 { 503 } else { 200 };
        let (user, took) = (random.u32(..50_000), random.u32(1..900));
        let body = match random.u8(..6) {
            _ if row == self.lines / 3 => format!("the {RARE} has left the building"),
            0 => format!("request served GET {path} status={status} took={took}ms user={user}"),
            1 => format!("cache lookup for user {user} missed after {took} us"),
            2 => format!("connection to db-{} returned to the pool, {took} idle", user % 7),
            3 => format!("order {user} moved to state {}", ["placed", "paid", "sent", "done"][user as usize % 4]),
            4 => format!("retrying call to {} after {took} ms: connection refused", SERVICES[user as usize % 12]),
            _ => format!("published message {user} to topic orders-{}", took % 9),
        };
        let trace = (random.u8(..10) < 6).then(|| self.trace(row / 20));
        let time = self.start + HOUR / self.lines.max(1) * row;
        Said { time, service, instance: instance.to_owned(), severity, level, body, trace, path, status }
    }

    /// The id of a trace.
    pub(crate) fn trace(self, number: u64) -> u128 {
        fastrand::Rng::with_seed(number ^ 0x5eed).u128(1..)
    }

    /// How many batches of lines there are.
    pub(crate) const fn batches(self) -> u64 {
        self.lines.div_ceil(BATCH)
    }

    /// Lines of a batch, as OTLP.
    pub(crate) fn logs(self, batch: u64) -> ExportLogsServiceRequest {
        let said = self.said(batch);
        let resource = said.first().map(|first| resource(first.service, &first.instance));
        let scope_logs = vec![ScopeLogs { log_records: said.iter().map(record).collect(), ..ScopeLogs::default() }];
        ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs { resource, scope_logs, ..ResourceLogs::default() }],
        }
    }

    /// Spans of a batch, as OTLP: traces of ten spans over several services.
    pub(crate) fn spans(self, batch: u64) -> ExportTraceServiceRequest {
        let mut random = fastrand::Rng::with_seed(!batch);
        let service = SERVICES[random.usize(..SERVICES.len())];
        let rows = batch * BATCH..((batch + 1) * BATCH).min(self.lines / 2);
        let span = |row: u64| {
            let start = self.start + HOUR / (self.lines / 2).max(1) * row;
            let failed = random.u8(..100) == 0;
            let path = PATHS[random.usize(..PATHS.len())];
            Span {
                trace_id: self.trace(row / 10).to_be_bytes().to_vec(),
                span_id: (row + 1).to_be_bytes().to_vec(),
                parent_span_id: if row.is_multiple_of(10) { Vec::new() } else { row.to_be_bytes().to_vec() },
                name: format!("GET {path}"),
                kind: 2,
                start_time_unix_nano: start,
                end_time_unix_nano: start + random.u64(100_000..90_000_000),
                attributes: vec![
                    text("http.route", path),
                    text("http.response.status_code", if failed { "503" } else { "200" }),
                    text("user.id", &random.u32(..50_000).to_string()),
                ],
                status: failed.then(|| Status { code: 2, message: "connection refused".to_owned() }),
                ..Span::default()
            }
        };
        let scope_spans = vec![ScopeSpans { spans: rows.map(span).collect(), ..ScopeSpans::default() }];
        let resource = Some(resource(service, &format!("{service}-{}", batch % 3)));
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }],
        }
    }
}

fn record(said: &Said) -> LogRecord {
    LogRecord {
        time_unix_nano: said.time,
        severity_number: said.severity,
        body: Some(AnyValue { value: Some(Value::StringValue(said.body.clone())) }),
        trace_id: said.trace.map(|id| id.to_be_bytes().to_vec()).unwrap_or_default(),
        attributes: vec![text("http.route", said.path), text("http.response.status_code", &said.status.to_string())],
        ..LogRecord::default()
    }
}

fn resource(service: &str, instance: &str) -> Resource {
    let attributes = vec![text("service.name", service), text("service.instance.id", instance)];
    Resource { attributes, ..Resource::default() }
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}
