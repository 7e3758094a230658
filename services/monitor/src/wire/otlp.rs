//! OTLP records to the model. What cannot be kept is counted and told; nothing here can fail or panic.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Metric, ResourceMetrics, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{self as trace, ResourceSpans, status};
use serde_json::Value as Json;

use crate::model::{
    AHEAD_MAX, ATTRIBUTES_MAX, Attributes, Level, Line, Measurement, NAME_BYTES_MAX, Nanos, Origin, SeriesKey, Span,
    SpanId, SpanKind, TEXT_BYTES_MAX, Temporality, TraceId, VALUE_BYTES_MAX, cut,
};
use crate::parse;

/// Name of a service that does not tell its own, as OpenTelemetry words it.
const UNKNOWN_SERVICE: &str = "unknown_service";
/// What a line from beyond [`AHEAD_MAX`] said of its time, in nanoseconds since 1970. It is dated when it came, so that it is
/// forgotten in its turn.
const TOLD_TIME: &str = "log.time.told";
/// What such a span said of when it began.
const TOLD_START: &str = "span.time.told";
/// How many attributes of a record are left out, by its sender or here; as OpenTelemetry names it where there is no field for it.
const DROPPED: &str = "otel.dropped_attributes_count";
/// How many bytes the text of a line had that was cut.
const BODY_BYTES: &str = "log.body.bytes";
/// Why what was measured in the future is refused: it would be the newest of its series until then.
pub(crate) const TOO_NEW: &str = "samples are more than an hour ahead of the node's clock";
/// Set in a data point that says only that the series has ended.
const NO_RECORDED_VALUE: u32 = 1;

/// Records that can be kept, and how many cannot.
#[derive(Debug)]
pub(crate) struct Taken<T> {
    /// Those that can.
    pub(crate) records: Vec<T>,
    /// How many cannot.
    pub(crate) refused: u64,
    /// Why; the last reason where there are several.
    pub(crate) why: &'static str,
}

impl<T> Taken<T> {
    fn none() -> Self {
        Self { records: Vec::new(), refused: 0, why: "" }
    }

    fn add(&mut self, record: Result<T, &'static str>) {
        match record {
            Ok(record) => self.records.push(record),
            Err(why) => {
                self.refused += 1;
                self.why = why;
            }
        }
    }
}

/// Reads lines. `now` stands in for the time of lines that tell none, or one that is yet to come; `printed` is how lines
/// are read that were printed and that nobody has read yet.
pub(crate) fn lines(batches: Vec<ResourceLogs>, now: Nanos, printed: &parse::Config) -> Taken<Line> {
    let mut taken = Taken::none();
    for batch in batches {
        let origin = Arc::new(origin(batch.resource));
        for scoped in batch.scope_logs {
            for record in scoped.log_records {
                let line = line(record, scoped.scope.as_ref(), &origin, now);
                taken.add(Ok(if is_unread(&line) { reread(line, printed) } else { line }));
            }
        }
    }
    taken
}

fn line(record: LogRecord, scope: Option<&InstrumentationScope>, origin: &Arc<Origin>, now: Nanos) -> Line {
    let told = [record.time_unix_nano, record.observed_time_unix_nano].into_iter().find(|time| *time > 0);
    let level = match Level::of_severity(record.severity_number) {
        Level::Unknown => Level::of_word(&record.severity_text).unwrap_or_default(),
        level => level,
    };
    let body = record.body.map(text).filter(|body| !body.is_empty()).unwrap_or(record.event_name);
    let mut attributes = scoped(record.attributes, record.dropped_attributes_count, scope);
    if body.len() > TEXT_BYTES_MAX {
        put(&mut attributes, BODY_BYTES.to_owned(), body.len().to_string());
    }
    let told = told.map(Nanos::said);
    let ahead = told.filter(|told| is_ahead(*told, now));
    if let Some(ahead) = ahead {
        put(&mut attributes, TOLD_TIME.to_owned(), ahead.0.to_string());
    }
    Line {
        time: told.filter(|_| ahead.is_none()).unwrap_or(now),
        origin: origin.clone(),
        level,
        body: cut(body, TEXT_BYTES_MAX),
        trace_id: TraceId::from_bytes(&record.trace_id),
        span_id: SpanId::from_bytes(&record.span_id),
        attributes,
    }
}

/// Whether a time is further on than a clock may be ahead.
fn is_ahead(told: Nanos, now: Nanos) -> bool {
    Duration::from_nanos(told.0.saturating_sub(now.0)) > AHEAD_MAX
}

/// Whether a line was printed by a program and only carried here: nobody said how grave it is.
fn is_unread(line: &Line) -> bool {
    let is_printed = |(name, _): &(String, String)| name == "log.iostream" || name == "log.file.name";
    line.level == Level::Unknown && line.attributes.iter().any(is_printed)
}

/// Reads a line that was printed; what its carrier said of it stays.
fn reread(line: Line, printed: &parse::Config) -> Line {
    let read = parse::read(line.body, line.time, printed);
    let mut attributes = line.attributes;
    read.attributes.into_iter().for_each(|(name, value)| put(&mut attributes, name, value));
    attributes.truncate(ATTRIBUTES_MAX);
    let (trace_id, span_id) = (line.trace_id.or(read.trace_id), line.span_id.or(read.span_id));
    Line { origin: line.origin, attributes, trace_id, span_id, ..read }
}

/// Reads spans. Those without a valid trace id or span id are refused. What its sender says is yet to come ended `now` at the
/// latest: all of one sender are moved alike.
pub(crate) fn spans(batches: Vec<ResourceSpans>, now: Nanos) -> Taken<Span> {
    let mut taken = Taken::none();
    for batch in batches {
        let origin = Arc::new(origin(batch.resource));
        let first = taken.records.len();
        for scoped in batch.scope_spans {
            for record in scoped.spans {
                taken.add(span(record, scoped.scope.as_ref(), &origin));
            }
        }
        let ahead = taken.records[first..].iter_mut().filter(|span| is_ahead(span.end, now));
        let ahead: Vec<&mut Span> = ahead.collect();
        let by = ahead.iter().map(|span| span.end.0).max().unwrap_or_default().saturating_sub(now.0);
        for span in ahead {
            put(&mut span.attributes, TOLD_START.to_owned(), span.start.0.to_string());
            (span.start, span.end) = (Nanos(span.start.0.saturating_sub(by)), Nanos(span.end.0.saturating_sub(by)));
        }
    }
    taken
}

fn span(record: trace::Span, scope: Option<&InstrumentationScope>, origin: &Arc<Origin>) -> Result<Span, &'static str> {
    let kind = record.kind();
    let status = record.status.unwrap_or_default();
    Ok(Span {
        trace_id: TraceId::from_bytes(&record.trace_id).ok_or("a trace id is not 16 bytes or all zero")?,
        span_id: SpanId::from_bytes(&record.span_id).ok_or("a span id is not 8 bytes or all zero")?,
        parent: SpanId::from_bytes(&record.parent_span_id),
        name: cut(record.name, NAME_BYTES_MAX),
        origin: origin.clone(),
        kind: match kind {
            trace::span::SpanKind::Unspecified => SpanKind::Unknown,
            trace::span::SpanKind::Internal => SpanKind::Internal,
            trace::span::SpanKind::Server => SpanKind::Server,
            trace::span::SpanKind::Client => SpanKind::Client,
            trace::span::SpanKind::Producer => SpanKind::Producer,
            trace::span::SpanKind::Consumer => SpanKind::Consumer,
        },
        start: Nanos::said(record.start_time_unix_nano),
        end: Nanos::said(record.end_time_unix_nano.max(record.start_time_unix_nano)),
        failed: status.code() == status::StatusCode::Error,
        status_message: cut(status.message, TEXT_BYTES_MAX),
        attributes: scoped(record.attributes, record.dropped_attributes_count, scope),
    })
}

/// Reads measurements. Those without a value, metrics of an unknown kind, and what is yet to come, are refused; `now` stands in for the time
/// of those that tell none.
pub(crate) fn measurements(batches: Vec<ResourceMetrics>, now: Nanos) -> Taken<Measurement> {
    let mut taken = Taken::none();
    for batch in batches {
        let origin = origin(batch.resource);
        for metric in batch.scope_metrics.into_iter().flat_map(|scoped| scoped.metrics) {
            points(metric, &origin, now, &mut taken);
        }
    }
    taken
}

/// What all kinds of data points have in common.
struct Point {
    attributes: Vec<KeyValue>,
    start: u64,
    time: u64,
    flags: u32,
    value: Option<f64>,
    count: u64,
}

fn points(metric: Metric, origin: &Origin, now: Nanos, taken: &mut Taken<Measurement>) {
    if metric.name.is_empty() {
        taken.add(Err("a metric has no name"));
        return;
    }
    let name = cut(metric.name, NAME_BYTES_MAX);
    let (temporality, points): (Temporality, Vec<Point>) = match metric.data {
        None => {
            taken.add(Err("a metric has no data of a known kind"));
            return;
        }
        Some(metric::Data::Gauge(gauge)) => (Temporality::Gauge, gauge.data_points.into_iter().map(number).collect()),
        Some(metric::Data::Sum(sum)) => {
            (temporality(sum.aggregation_temporality), sum.data_points.into_iter().map(number).collect())
        }
        Some(metric::Data::Histogram(histogram)) => {
            let points = histogram.data_points.into_iter().map(|point| Point {
                attributes: point.attributes,
                start: point.start_time_unix_nano,
                time: point.time_unix_nano,
                flags: point.flags,
                value: Some(point.sum.unwrap_or_default()),
                count: point.count,
            });
            (temporality(histogram.aggregation_temporality), points.collect())
        }
        Some(metric::Data::ExponentialHistogram(histogram)) => {
            let points = histogram.data_points.into_iter().map(|point| Point {
                attributes: point.attributes,
                start: point.start_time_unix_nano,
                time: point.time_unix_nano,
                flags: point.flags,
                value: Some(point.sum.unwrap_or_default()),
                count: point.count,
            });
            (temporality(histogram.aggregation_temporality), points.collect())
        }
        Some(metric::Data::Summary(summary)) => {
            let points = summary.data_points.into_iter().map(|point| Point {
                attributes: point.attributes,
                start: point.start_time_unix_nano,
                time: point.time_unix_nano,
                flags: point.flags,
                value: Some(point.sum),
                count: point.count,
            });
            (Temporality::Cumulative, points.collect())
        }
    };
    for point in points.into_iter().filter(|point| point.flags & NO_RECORDED_VALUE == 0) {
        taken.add(measurement(point, &name, temporality, origin, now));
    }
}

fn measurement(
    point: Point,
    metric: &str,
    temporality: Temporality,
    origin: &Origin,
    now: Nanos,
) -> Result<Measurement, &'static str> {
    if is_ahead(Nanos::said(point.time), now) {
        return Err(TOO_NEW);
    }
    Ok(Measurement {
        key: SeriesKey {
            metric: metric.to_owned(),
            service: origin.service.clone(),
            instance_id: origin.instance_id.clone(),
            labels: attributes(point.attributes),
        },
        temporality,
        value: point.value.ok_or("a data point has no value")?,
        count: point.count,
        start: Nanos::said(point.start),
        time: if point.time > 0 { Nanos::said(point.time) } else { now },
    })
}

#[expect(clippy::cast_precision_loss, reason = "whole numbers beyond 2^53 are told as the nearest float")]
fn number(point: opentelemetry_proto::tonic::metrics::v1::NumberDataPoint) -> Point {
    Point {
        attributes: point.attributes,
        start: point.start_time_unix_nano,
        time: point.time_unix_nano,
        flags: point.flags,
        value: point.value.map(|value| match value {
            number_data_point::Value::AsDouble(value) => value,
            number_data_point::Value::AsInt(value) => value as f64,
        }),
        count: 0,
    }
}

fn temporality(number: i32) -> Temporality {
    match AggregationTemporality::try_from(number) {
        Ok(AggregationTemporality::Delta) => Temporality::Delta,
        Ok(AggregationTemporality::Cumulative) => Temporality::Cumulative,
        Ok(AggregationTemporality::Unspecified) | Err(_) => Temporality::Gauge,
    }
}

fn origin(resource: Option<Resource>) -> Origin {
    let mut attributes = attributes(resource.unwrap_or_default().attributes);
    let mut take = |name: &str| {
        let at = attributes.iter().position(|(known, _)| known == name)?;
        Some(cut(attributes.remove(at).1, NAME_BYTES_MAX)).filter(|value| !value.is_empty())
    };
    let service = take("service.name").unwrap_or_else(|| UNKNOWN_SERVICE.to_owned());
    let instance_id = take("service.instance.id").unwrap_or_default();
    // Which SDK made a record is the same for all of a sender and of no use in a search.
    attributes.retain(|(name, _)| !name.starts_with("telemetry.sdk."));
    Origin { service, instance_id, attributes }
}

fn scoped(pairs: Vec<KeyValue>, dropped: u32, scope: Option<&InstrumentationScope>) -> Attributes {
    let dropped = u64::from(dropped) + pairs.len().saturating_sub(ATTRIBUTES_MAX) as u64;
    let mut attributes = attributes(pairs);
    if dropped > 0 {
        put(&mut attributes, DROPPED.to_owned(), dropped.to_string());
    }
    if let Some(scope) = scope.filter(|scope| !scope.name.is_empty()) {
        put(&mut attributes, "otel.scope.name".to_owned(), cut(scope.name.clone(), NAME_BYTES_MAX));
    }
    attributes
}

fn attributes(pairs: Vec<KeyValue>) -> Attributes {
    let mut attributes = Attributes::new();
    for pair in pairs.into_iter().take(ATTRIBUTES_MAX) {
        let value = pair.value.map(text).unwrap_or_default();
        put(&mut attributes, cut(pair.key, NAME_BYTES_MAX), cut(value, VALUE_BYTES_MAX));
    }
    attributes.shrink_to_fit();
    attributes
}

/// Adds an attribute in its place; the first of two with one name stays.
fn put(attributes: &mut Attributes, name: String, value: String) {
    if let Err(at) = attributes.binary_search_by(|(known, _)| known.as_str().cmp(&name)) {
        attributes.insert(at, (name, value));
    }
}

/// A value as text: plain values as they are, lists and maps as JSON, bytes in base64.
pub(crate) fn text(value: AnyValue) -> String {
    match value.value {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::BoolValue(value)) => value.to_string(),
        Some(any_value::Value::IntValue(value)) => value.to_string(),
        Some(any_value::Value::DoubleValue(value)) => value.to_string(),
        other => match json(AnyValue { value: other }) {
            Json::Null => String::new(),
            Json::String(text) => text,
            value => value.to_string(),
        },
    }
}

/// As deep as the decoder let it be: 100 for protobuf, 128 for JSON.
fn json(value: AnyValue) -> Json {
    match value.value {
        None | Some(any_value::Value::StringValueStrindex(_)) => Json::Null,
        Some(any_value::Value::StringValue(text)) => Json::String(text),
        Some(any_value::Value::BoolValue(value)) => Json::Bool(value),
        Some(any_value::Value::IntValue(value)) => value.into(),
        Some(any_value::Value::DoubleValue(value)) => {
            serde_json::Number::from_f64(value).map_or_else(|| Json::String(value.to_string()), Json::Number)
        }
        Some(any_value::Value::BytesValue(bytes)) => {
            Json::String(base64::engine::general_purpose::STANDARD.encode(bytes))
        }
        Some(any_value::Value::ArrayValue(list)) => list.values.into_iter().map(json).collect(),
        Some(any_value::Value::KvlistValue(list)) => {
            list.values.into_iter().map(|pair| (pair.key, pair.value.map_or(Json::Null, json))).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::{ArrayValue, KeyValueList};

    use super::*;

    fn any(value: any_value::Value) -> AnyValue {
        AnyValue { value: Some(value) }
    }

    fn pair(key: &str, value: any_value::Value) -> KeyValue {
        KeyValue { key: key.to_owned(), value: Some(any(value)), ..KeyValue::default() }
    }

    #[test]
    fn values_become_text_that_a_person_would_write() {
        use any_value::Value;
        let list = ArrayValue { values: vec![any(Value::IntValue(1)), any(Value::DoubleValue(f64::NAN))] };
        let map = KeyValueList { values: vec![pair("a", Value::ArrayValue(list)), pair("b", Value::BoolValue(true))] };
        for (value, expected) in [
            (Value::StringValue("as it is".to_owned()), "as it is"),
            (Value::IntValue(-5), "-5"),
            (Value::DoubleValue(0.5), "0.5"),
            (Value::BytesValue(vec![1, 2]), "AQI="),
            (Value::KvlistValue(map), r#"{"a":[1,"NaN"],"b":true}"#),
        ] {
            assert_eq!(text(any(value)), expected);
        }
        assert_eq!(text(AnyValue::default()), "");
    }

    #[test]
    fn a_sender_is_known_by_its_resource() {
        let text = |text: &str| any_value::Value::StringValue(text.to_owned());
        let resource = Resource {
            attributes: vec![
                pair("service.version", text("1.2")),
                pair("service.name", text("pump")),
                pair("service.name", text("again")),
                pair("telemetry.sdk.name", text("x")),
                pair("service.instance.id", text("p-1")),
            ],
            ..Resource::default()
        };
        let known = origin(Some(resource));
        assert_eq!((known.service.as_str(), known.instance_id.as_str()), ("pump", "p-1"));
        assert_eq!(known.attributes, [("service.version".to_owned(), "1.2".to_owned())]);
        assert_eq!(origin(None).service, UNKNOWN_SERVICE);
    }
}
