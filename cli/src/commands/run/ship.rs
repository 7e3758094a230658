//! Sends what the program prints and uses: to this process's own outputs, and to the platform by OTLP.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ninefold::Link;
use ninefold::fault::Kind;
use ninefold::lifecycle::{Scope, Stop};
use ninefold_control::Output;
use ninefold_monitor::Stream;
use ninefold_monitor::parse::{Joiner, Piece};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::proc::{Group, Usage};
use super::queue::{Lines, Printed, Queue};

/// Lines sent at once.
const BATCH_LINES_MAX: usize = 512;
/// How long lines are gathered before they are sent.
const GATHER: Duration = Duration::from_millis(100);
/// How long the platform may take for one batch.
const SEND_WITHIN: Duration = Duration::from_secs(5);
/// Waits after a first and after many failures.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// How long the last batch may take.
const LAST_WITHIN: Duration = Duration::from_secs(1);
/// How often the program's use of the machine is measured.
const MEASURE_EVERY: Duration = Duration::from_secs(2);

/// Sends in the name of one instance.
#[derive(Clone, Debug)]
pub(super) struct Shipping {
    platform: Link,
    resource: Resource,
}

impl Shipping {
    pub(super) fn new(platform: Link, service: &str, instance_id: &str) -> Self {
        let attributes = vec![text("service.name", service), text("service.instance.id", instance_id)];
        Self { platform, resource: Resource { attributes, ..Resource::default() } }
    }

    /// Prints and sends lines as they come. What waits when the scope closes still goes, if it goes soon.
    pub(super) fn ship_lines(&self, lines: Arc<Lines>, scope: &Scope) {
        let echoed = lines.clone();
        scope.run("run.echo", |stop| async move { echo(&echoed.echo, &stop).await });
        let shipping = self.clone();
        scope.run("run.ship", |stop| async move { shipping.ship(&lines.ship, &stop).await });
    }

    /// Measures a process group every two seconds until the scope closes.
    pub(super) fn ship_usage(&self, pid: u32, scope: &Scope) {
        let shipping = self.clone();
        let start = nanos(SystemTime::now());
        scope.run("run.measure", |stop| async move {
            let measure = async {
                let mut group = Group::new(pid);
                let mut tick = tokio::time::interval(MEASURE_EVERY);
                loop {
                    tick.tick().await;
                    let looked = tokio::task::spawn_blocking(move || {
                        let usage = group.look();
                        (group, usage)
                    });
                    let Ok((same, usage)) = looked.await else { return };
                    group = same;
                    if let Some(usage) = usage {
                        shipping.send_usage(start, usage).await;
                    }
                }
            };
            tokio::select! {
                () = stop.asked() => {}
                () = measure => {}
            }
        });
    }

    async fn ship(&self, queue: &Queue, stop: &Stop) {
        let mut retry = RETRY.0;
        let mut batch = Vec::new();
        let mut dropped = 0;
        while !stop.is_asked() {
            if batch.is_empty() {
                tokio::select! {
                    () = queue.filled() => tokio::time::sleep(GATHER).await,
                    () = stop.asked() => break,
                }
                (batch, dropped) = take(queue);
            }
            let sent = tokio::select! {
                sent = self.send_lines(&batch, dropped, SEND_WITHIN) => sent,
                () = stop.asked() => break,
            };
            if sent {
                retry = RETRY.0;
                (batch, dropped) = take(queue);
            } else {
                tokio::select! {
                    () = tokio::time::sleep(retry) => {}
                    () = stop.asked() => break,
                }
                retry = (retry * 2).min(RETRY.1);
            }
        }
        let last = async {
            while self.send_lines(&batch, dropped, LAST_WITHIN).await {
                (batch, dropped) = take(queue);
                if batch.is_empty() {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(LAST_WITHIN, last).await;
    }

    /// Sends a batch; tells whether it needs not be sent again: it was taken, or will never be.
    async fn send_lines(&self, batch: &[Printed], dropped: u64, within: Duration) -> bool {
        if batch.is_empty() {
            return true;
        }
        let mut log_records: Vec<_> = batch.iter().map(record).collect();
        if dropped > 0 {
            log_records.push(note(&format!("{dropped} lines were dropped: the platform took them too slowly")));
        }
        let scope_logs = ScopeLogs { scope: Some(self.scope()), log_records, ..ScopeLogs::default() };
        let resource_logs = ResourceLogs {
            resource: Some(self.resource.clone()),
            scope_logs: vec![scope_logs],
            ..ResourceLogs::default()
        };
        let request = ExportLogsServiceRequest { resource_logs: vec![resource_logs] };
        let mut client = LogsServiceClient::new(self.platform.clone());
        match tokio::time::timeout(within, client.export(request)).await {
            Ok(Ok(_)) => true,
            Ok(Err(status)) => !Kind::of(status.code()).is_passing(),
            Err(_) => false,
        }
    }

    async fn send_usage(&self, start: u64, usage: Usage) {
        let metrics = vec![
            sum("process.cpu.time", "s", start, Number::AsDouble(usage.cpu_seconds), true),
            sum("process.memory.usage", "By", start, Number::AsInt(usage.memory_bytes), false),
        ];
        let scope_metrics = ScopeMetrics { scope: Some(self.scope()), metrics, ..ScopeMetrics::default() };
        let resource_metrics = ResourceMetrics {
            resource: Some(self.resource.clone()),
            scope_metrics: vec![scope_metrics],
            ..ResourceMetrics::default()
        };
        let request = ExportMetricsServiceRequest { resource_metrics: vec![resource_metrics] };
        let mut client = MetricsServiceClient::new(self.platform.clone());
        // One that is lost is made up for by the next.
        let _ = tokio::time::timeout(SEND_WITHIN, client.export(request)).await;
    }

    fn scope(&self) -> InstrumentationScope {
        InstrumentationScope {
            name: "ninefold.run".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        }
    }
}

/// What waits, lines that belong together joined.
fn take(queue: &Queue) -> (Vec<Printed>, u64) {
    let (batch, dropped) = queue.take(BATCH_LINES_MAX);
    (joined(batch), dropped)
}

/// A line as it was printed: the platform reads what it means, by formats that are central.
fn record(printed: &Printed) -> LogRecord {
    let output = match printed.output {
        Output::Stdout => "stdout",
        Output::Stderr => "stderr",
    };
    let time = nanos(printed.time);
    LogRecord {
        time_unix_nano: time,
        observed_time_unix_nano: time,
        body: Some(string(&printed.text)),
        attributes: vec![text("log.iostream", output)],
        ..LogRecord::default()
    }
}

/// Joins lines that belong together.
fn joined(batch: Vec<Printed>) -> Vec<Printed> {
    let mut joiner = Joiner::default();
    let mut pieces: Vec<Piece> = Vec::new();
    for Printed { output, time, text } in batch {
        let stream = match output {
            Output::Stdout => Stream::Stdout,
            Output::Stderr => Stream::Stderr,
        };
        pieces.extend(joiner.push(Piece { stream, time, text }));
    }
    pieces.extend(joiner.rest());
    let printed = |Piece { stream, time, text }: Piece| {
        let output = match stream {
            Stream::Stdout => Output::Stdout,
            Stream::Stderr => Output::Stderr,
        };
        Printed { output, time, text }
    };
    let mut whole: Vec<Printed> = pieces.into_iter().map(printed).collect();
    whole.sort_by_key(|printed| printed.time);
    whole
}

fn note(words: &str) -> LogRecord {
    let time = nanos(SystemTime::now());
    LogRecord {
        time_unix_nano: time,
        observed_time_unix_nano: time,
        severity_number: SeverityNumber::Warn.into(),
        body: Some(string(words)),
        ..LogRecord::default()
    }
}

fn sum(name: &str, unit: &str, start: u64, value: Number, is_monotonic: bool) -> Metric {
    let point = NumberDataPoint {
        start_time_unix_nano: start,
        time_unix_nano: nanos(SystemTime::now()),
        value: Some(value),
        ..NumberDataPoint::default()
    };
    let sum = Sum {
        data_points: vec![point],
        aggregation_temporality: AggregationTemporality::Cumulative.into(),
        is_monotonic,
    };
    Metric { name: name.to_owned(), unit: unit.to_owned(), data: Some(Data::Sum(sum)), ..Metric::default() }
}

fn string(words: &str) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(words.to_owned())) }
}

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(string(value)), ..KeyValue::default() }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Prints lines where the program printed them. An output that nobody reads any more is not tried again.
async fn echo(queue: &Queue, stop: &Stop) {
    let mut outputs = (Some(tokio::io::stdout()), Some(tokio::io::stderr()));
    loop {
        let is_last = tokio::select! {
            () = queue.filled() => false,
            () = stop.asked() => true,
        };
        loop {
            let (batch, _) = queue.take(BATCH_LINES_MAX);
            if batch.is_empty() {
                break;
            }
            print(&batch, Output::Stdout, &mut outputs.0).await;
            print(&batch, Output::Stderr, &mut outputs.1).await;
        }
        if is_last {
            return;
        }
    }
}

async fn print(batch: &[Printed], output: Output, to: &mut Option<impl AsyncWrite + Unpin>) {
    let Some(writer) = to else { return };
    let lines = batch.iter().filter(|printed| printed.output == output);
    let block: String = lines.flat_map(|printed| [printed.text.as_str(), "\n"]).collect();
    let written = async {
        writer.write_all(block.as_bytes()).await?;
        writer.flush().await
    };
    if written.await.is_err() {
        *to = None;
    }
}
