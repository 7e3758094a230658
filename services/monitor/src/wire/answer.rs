//! The model to answers of the contract.

use std::collections::HashMap;

use ninefold_proto::ninefold::monitor::v1 as proto;
use prost_types::{Duration, Timestamp};

use crate::forward::Told;
use crate::graph::{Edge, Graph};
use crate::mask::Counts;
use crate::model::{Attributes, Kept, Level, Nanos, Origin, Sample, SeriesKey, Span, SpanKind, Summary, Usage};
use crate::shares::Account;
use crate::tallies::{Facet, Step, Tallies};
use crate::tier::{Elsewhere, Retention, Tally, Trace};
use crate::{compare, critical};

const NANOS: u64 = 1_000_000_000;

/// Writes a line.
pub(crate) fn record(kept: &Kept) -> proto::LogRecord {
    let line = &kept.line;
    proto::LogRecord {
        time: Some(timestamp(line.time)),
        service: line.origin.service.clone(),
        instance_id: line.origin.instance_id.clone(),
        level: level(line.level).into(),
        body: line.body.clone(),
        trace_id: line.trace_id.map(|id| id.to_string()).unwrap_or_default(),
        span_id: line.span_id.map(|id| id.to_string()).unwrap_or_default(),
        attributes: attributes(&line.origin, &line.attributes),
        sequence: kept.sequence,
    }
}

/// Writes a span.
pub(crate) fn span(span: &Span) -> proto::Span {
    let kind = match span.kind {
        SpanKind::Unknown => proto::SpanKind::Unspecified,
        SpanKind::Internal => proto::SpanKind::Internal,
        SpanKind::Server => proto::SpanKind::Server,
        SpanKind::Client => proto::SpanKind::Client,
        SpanKind::Producer => proto::SpanKind::Producer,
        SpanKind::Consumer => proto::SpanKind::Consumer,
    };
    proto::Span {
        trace_id: span.trace_id.to_string(),
        span_id: span.span_id.to_string(),
        parent_span_id: span.parent.map(|id| id.to_string()).unwrap_or_default(),
        name: span.name.clone(),
        service: span.origin.service.clone(),
        instance_id: span.origin.instance_id.clone(),
        kind: kind.into(),
        start_time: Some(timestamp(span.start)),
        duration: Some(between(span.start, span.end)),
        failed: span.failed,
        status_message: span.status_message.clone(),
        attributes: attributes(&span.origin, &span.attributes),
    }
}

/// Writes a trace in a line.
pub(crate) fn summary(summary: Summary) -> proto::TraceSummary {
    proto::TraceSummary {
        trace_id: summary.trace_id.to_string(),
        service: summary.service,
        name: summary.name,
        start_time: Some(timestamp(summary.start)),
        duration: Some(between(summary.start, summary.end)),
        spans: u32::try_from(summary.spans).unwrap_or(u32::MAX),
        failed: summary.failed,
        services: summary.services.into_iter().collect(),
    }
}

/// Writes a trace. Where only lines of it are kept, they tell what can be told in its line.
pub(crate) fn trace(trace: Trace) -> proto::GetTraceResponse {
    let known = trace.summary.map(summary).or_else(|| {
        let (first, last) = (trace.lines.first()?, trace.lines.last()?);
        let services: std::collections::BTreeSet<_> =
            trace.lines.iter().map(|kept| kept.line.origin.service.clone()).collect();
        Some(proto::TraceSummary {
            trace_id: first.line.trace_id.map(|id| id.to_string()).unwrap_or_default(),
            service: first.line.origin.service.clone(),
            name: String::new(),
            start_time: Some(timestamp(first.line.time)),
            duration: Some(between(first.line.time, last.line.time)),
            spans: 0,
            failed: false,
            services: services.into_iter().collect(),
        })
    });
    let step = |step: critical::Step| proto::CriticalStep {
        span_id: step.span_id.to_string(),
        start_time: Some(timestamp(step.start)),
        duration: Some(between(step.start, step.end)),
    };
    proto::GetTraceResponse {
        critical_path: critical::path(&trace.spans).into_iter().map(step).collect(),
        summary: known,
        spans: trace.spans.iter().map(|kept| span(kept)).collect(),
        records: trace.lines.iter().map(|kept| record(kept)).collect(),
        truncated: trace.truncated,
        missing_nodes: Vec::new(),
    }
}

/// Writes two traces beside each other.
pub(crate) fn compared(one: Trace, other: Trace) -> proto::CompareTracesResponse {
    let comparison = compare::compare(&one.spans, &other.spans);
    let took = |nanos: u64| Some(between(Nanos(0), Nanos(nanos)));
    let time = |time: compare::Time| proto::StepTime {
        spans: time.spans,
        failed: time.failed,
        duration: took(time.nanos),
        own_duration: took(time.own_nanos),
    };
    let step = |step: compare::Step| proto::StepComparison {
        depth: i32::try_from(step.depth).unwrap_or(i32::MAX),
        service: step.service,
        name: step.name,
        one: Some(time(step.times[0])),
        other: Some(time(step.times[1])),
    };
    proto::CompareTracesResponse {
        truncated: comparison.is_cut_off || one.truncated || other.truncated,
        steps: comparison.steps.into_iter().map(step).collect(),
        one: one.summary.map(summary),
        other: other.summary.map(summary),
        missing_nodes: Vec::new(),
    }
}

/// Writes a sample.
pub(crate) fn sample((key, sample): (SeriesKey, Sample)) -> proto::Sample {
    proto::Sample {
        metric: key.metric,
        service: key.service,
        instance_id: key.instance_id,
        labels: key.labels.into_iter().collect(),
        value: sample.value,
        count: sample.count,
        time: Some(timestamp(sample.time)),
    }
}

/// Writes what an instance uses.
pub(crate) fn usage(usage: Usage) -> proto::Usage {
    proto::Usage {
        service: usage.service,
        instance_id: usage.instance_id,
        cpu_cores: usage.cpu_cores,
        memory_bytes: usage.memory_bytes,
        time: Some(timestamp(usage.time)),
    }
}

/// Writes how much is kept.
pub(crate) fn retention(
    retention: Retention,
    masked: Counts,
    senders: Vec<(String, Account)>,
    onward: Option<Told>,
) -> proto::GetRetentionResponse {
    let sender = |(service, account): (String, Account)| proto::Sender {
        service,
        records: account.records,
        bytes: account.bytes,
        refused: account.refused,
    };
    proto::GetRetentionResponse {
        masked: masked.into_iter().map(|(rule, values)| proto::Masked { rule, values }).collect(),
        senders: senders.into_iter().map(sender).collect(),
        forwarding: onward.map(|told| proto::Forwarding {
            endpoint: told.endpoint,
            sent: told.sent,
            dropped: told.dropped,
            waiting_bytes: told.waiting_bytes,
            problem: told.problem,
        }),
        logs: Some(kept(retention.lines)),
        spans: Some(kept(retention.spans)),
        series: Some(kept(retention.series)),
        pending_deletions: retention.pending_deletions,
        problem: retention.problem,
        spoiled_indexes: retention.spoiled_indexes,
        bucket: retention.elsewhere.map(bucket),
    }
}

fn bucket(told: Elsewhere) -> proto::Bucket {
    proto::Bucket {
        url: told.url,
        kept_files: told.kept_files,
        kept_bytes: told.kept_bytes,
        waiting_files: told.waiting_files,
        waiting_bytes: told.waiting_bytes,
        copied_bytes: told.copied_bytes,
        sent_bytes: told.sent_bytes,
        read_bytes: told.read_bytes,
        failures: told.failures,
        spoiled_files: told.spoiled_files,
        problem: told.problem,
    }
}

fn kept(tally: Tally) -> proto::Kept {
    proto::Kept {
        records: tally.records,
        bytes: tally.bytes,
        bytes_max: tally.bytes_max,
        received: tally.received,
        forgotten: tally.forgotten,
        refused: tally.refused,
    }
}

/// Writes what was counted.
pub(crate) fn counted(tallies: Tallies, values_max: usize) -> proto::CountLogsResponse {
    let step = |(start, step): (Nanos, Step)| proto::LogStep {
        start_time: Some(timestamp(start)),
        lines: step.lines,
        warnings: step.warnings,
        errors: step.errors,
    };
    let facet = |facet: Facet| proto::LogFacet {
        field: facet.field,
        values: facet.values.into_iter().map(|(value, lines)| proto::LogFacetValue { value, lines }).collect(),
        others: facet.others,
    };
    proto::CountLogsResponse {
        lines: tallies.lines,
        step: Some(between(Nanos(0), Nanos(tallies.step()))),
        steps: tallies.steps().into_iter().map(step).collect(),
        facets: tallies.facets(values_max).into_iter().map(facet).collect(),
        missing_nodes: Vec::new(),
    }
}

/// Writes who calls whom.
pub(crate) fn graph(graph: &Graph) -> proto::GetServiceGraphResponse {
    let took = |nanos: u64| Some(between(Nanos(0), Nanos(nanos)));
    let edge = |edge: Edge| proto::ServiceEdge {
        caller: edge.caller,
        callee: edge.callee,
        calls: edge.calls,
        failed: edge.failed,
        p50: took(edge.half),
        p95: took(edge.most),
        p99: took(edge.nearly_all),
    };
    let edges = graph.edges().into_iter().map(edge).collect();
    proto::GetServiceGraphResponse { edges, truncated: graph.is_truncated, missing_nodes: Vec::new() }
}

/// Writes how grave a line is.
pub(crate) const fn level(level: Level) -> proto::Level {
    match level {
        Level::Unknown => proto::Level::Unspecified,
        Level::Trace => proto::Level::Trace,
        Level::Debug => proto::Level::Debug,
        Level::Info => proto::Level::Info,
        Level::Warn => proto::Level::Warn,
        Level::Error => proto::Level::Error,
        Level::Fatal => proto::Level::Fatal,
    }
}

/// What the sender is known by, under what the record itself says.
fn attributes(origin: &Origin, own: &Attributes) -> HashMap<String, String> {
    origin.attributes.iter().chain(own).cloned().collect()
}

/// Writes a time.
pub(crate) fn timestamp(time: Nanos) -> Timestamp {
    let (seconds, nanos) = split(time.0);
    Timestamp { seconds, nanos }
}

/// Writes how long it is from one time to another.
pub(crate) fn between(start: Nanos, end: Nanos) -> Duration {
    let (seconds, nanos) = split(end.0.saturating_sub(start.0));
    Duration { seconds, nanos }
}

fn split(nanos: u64) -> (i64, i32) {
    let seconds = i64::try_from(nanos / NANOS).expect("2^64 nanoseconds are fewer than 2^63 seconds");
    (seconds, i32::try_from(nanos % NANOS).expect("less than a second in nanoseconds"))
}
