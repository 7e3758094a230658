//! The tables that SQL sees, and how records become rows. Pure.

use rusqlite::types::Value;

use crate::durable::{kind_word, object};
use crate::grammar::Part;
use crate::model::{Line, Nanos, Span};
use crate::wire::answer::timestamp;
use ninefold_promql::{Labels, NAME, Point, Sample};

/// A column: its name, its type, what it holds.
pub(crate) type Column = (&'static str, &'static str, &'static str);

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    /// Log lines.
    Logs,
    /// Spans.
    Spans,
    /// Samples of metrics.
    Samples,
}

const TIME: Column = ("time", "TEXT", "when, as in 2026-01-31T12:00:00.000000000Z");
const NANOS: Column = ("unix_nanos", "INTEGER", "when, in nanoseconds since 1970");
const SERVICE: Column = ("service", "TEXT", "the service");
const INSTANCE: Column = ("instance_id", "TEXT", "the instance");
const TRACE: Column = ("trace_id", "TEXT", "the trace; NULL where it belongs to none");
const SPAN: Column = ("span_id", "TEXT", "the span; NULL where it belongs to none");
const ATTRIBUTES: Column = ("attributes", "TEXT", "fields as JSON: attributes ->> 'http.route'");
const RESOURCE: Column = ("resource", "TEXT", "what is known of the sender, as JSON");

const LOGS: [Column; 10] = [
    TIME,
    NANOS,
    SERVICE,
    INSTANCE,
    ("level", "TEXT", "unknown, trace, debug, info, warn, error or fatal"),
    ("body", "TEXT", "the text"),
    TRACE,
    SPAN,
    ATTRIBUTES,
    RESOURCE,
];
const SPANS: [Column; 14] = [
    TIME,
    NANOS,
    ("duration_ms", "REAL", "how long it took, in milliseconds"),
    ("trace_id", "TEXT", "the trace"),
    ("span_id", "TEXT", "the span"),
    ("parent_span_id", "TEXT", "the span that it is part of; NULL for the first"),
    ("name", "TEXT", "name of the step"),
    SERVICE,
    INSTANCE,
    ("kind", "TEXT", "unknown, internal, server, client, producer or consumer"),
    ("failed", "INTEGER", "1 if it failed, or 0"),
    ("status_message", "TEXT", "what is known of the failure"),
    ATTRIBUTES,
    RESOURCE,
];
const SAMPLES: [Column; 9] = [
    TIME,
    ("unix_millis", "INTEGER", "when, in milliseconds since 1970"),
    ("metric", "TEXT", "name of the metric, as in PromQL"),
    ("job", "TEXT", "the service"),
    ("instance", "TEXT", "the instance"),
    ("labels", "TEXT", "all labels as JSON: labels ->> 'http_route'"),
    ("value", "REAL", "the value; NULL for a native histogram"),
    ("histogram_count", "REAL", "how many values a native histogram counts, or NULL"),
    ("histogram_sum", "REAL", "the sum of what a native histogram counts, or NULL"),
];

impl Table {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Logs, Self::Spans, Self::Samples];

    /// Its name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Logs => "logs",
            Self::Spans => "spans",
            Self::Samples => "samples",
        }
    }

    /// Its columns, in order.
    pub(crate) const fn columns(self) -> &'static [Column] {
        match self {
            Self::Logs => &LOGS,
            Self::Spans => &SPANS,
            Self::Samples => &SAMPLES,
        }
    }

    /// The statement that makes it.
    pub(crate) fn created(self) -> String {
        let columns: Vec<String> = self.columns().iter().map(|(name, kind, _)| format!("{name} {kind}")).collect();
        format!("CREATE TABLE {} ({});", self.name(), columns.join(", "))
    }
}

/// What of a line a column needs.
pub(crate) fn part(column: &str) -> Option<Part> {
    Some(match column {
        "time" | "unix_nanos" => Part::Time,
        "service" => Part::Service,
        "instance_id" => Part::Instance,
        "level" => Part::Level,
        "body" => Part::Body,
        "trace_id" => Part::Trace,
        "span_id" => Part::Span,
        "attributes" | "resource" => Part::Attributes,
        _ => return None,
    })
}

/// The value of a line in a column.
pub(crate) fn of_line(line: &Line, column: &str) -> Value {
    match column {
        "time" => time(line.time).into(),
        "unix_nanos" => whole(line.time.0).into(),
        "service" => line.origin.service.clone().into(),
        "instance_id" => line.origin.instance_id.clone().into(),
        "level" => line.level.word().to_owned().into(),
        "body" => line.body.clone().into(),
        "trace_id" => line.trace_id.map(|id| id.to_string()).into(),
        "span_id" => line.span_id.map(|id| id.to_string()).into(),
        "attributes" => object(&line.attributes).into(),
        "resource" => object(&line.origin.attributes).into(),
        _ => Value::Null,
    }
}

/// The value of a span in a column.
pub(crate) fn of_span(span: &Span, column: &str) -> Value {
    match column {
        "time" => time(span.start).into(),
        "unix_nanos" => whole(span.start.0).into(),
        "duration_ms" => millis(span.end.0.saturating_sub(span.start.0)).into(),
        "trace_id" => span.trace_id.to_string().into(),
        "span_id" => span.span_id.to_string().into(),
        "parent_span_id" => span.parent.map(|id| id.to_string()).into(),
        "name" => span.name.clone().into(),
        "service" => span.origin.service.clone().into(),
        "instance_id" => span.origin.instance_id.clone().into(),
        "kind" => kind_word(span.kind).to_owned().into(),
        "failed" => i64::from(span.failed).into(),
        "status_message" => span.status_message.clone().into(),
        "attributes" => object(&span.attributes).into(),
        "resource" => object(&span.origin.attributes).into(),
        _ => Value::Null,
    }
}

/// The value of a sample in a column.
pub(crate) fn of_sample(labels: &Labels, sample: &Sample, column: &str) -> Value {
    let label = |name: &str| Some(labels.get(name)).filter(|value| !value.is_empty()).map(str::to_owned);
    match (column, &sample.point) {
        ("time", _) => time(Nanos(u64::try_from(sample.at).unwrap_or(0).saturating_mul(1_000_000))).into(),
        ("unix_millis", _) => sample.at.into(),
        ("metric", _) => label(NAME).into(),
        ("job" | "instance", _) => label(column).into(),
        ("labels", _) => {
            let all = labels.iter().filter(|(name, _)| *name != NAME);
            object(&all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()).into()
        }
        ("value", Point::Float(value)) => (*value).into(),
        ("histogram_count", Point::Histogram(of)) => of.count.into(),
        ("histogram_sum", Point::Histogram(of)) => of.sum.into(),
        _ => Value::Null,
    }
}

/// A time as text that sorts as times do.
fn time(time: Nanos) -> String {
    let mut at = timestamp(time);
    let nanos = std::mem::take(&mut at.nanos);
    format!("{}.{nanos:09}Z", at.to_string().trim_end_matches('Z'))
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "SQL knows no other fractions; years are told to the microsecond")]
fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_texts_that_sort() {
        assert_eq!(time(Nanos(1_000_000_001)), "1970-01-01T00:00:01.000000001Z");
        assert_eq!(time(Nanos(1_764_101_569_120_000_000)), "2025-11-25T20:12:49.120000000Z");
    }

    #[test]
    fn every_column_of_a_line_is_a_part_of_it() {
        assert!(Table::Logs.columns().iter().all(|(name, ..)| part(name).is_some()));
    }
}
