//! Between the words in which nodes ask each other and the model, both ways. What is malformed is left out: another node
//! wrote it, of this version or of the next.

use std::collections::HashMap;
use std::sync::Arc;

use ninefold_promql::{Labels, Query, Selection};
use ninefold_proto::ninefold::monitor::v1 as proto;

use super::{answer, query};
use crate::error::Error;
use crate::grammar::{Expression, Part};
use crate::graph::Gathered;
use crate::model::{
    Attributes, Kept, Level, Line, LineFilter, Nanos, Origin, Sample, SeriesKey, Span, SpanId, SpanKind, TraceFilter,
    TraceId, Usage,
};
use crate::summary::Part as TracePart;
use crate::tallies::{Counted, Step, Tallies};
use crate::tier::{LineCursor, MeantTraces, TraceCursor};

/// Writes a line.
pub(crate) fn line(sequence: u64, line: &Line) -> proto::KeptLine {
    proto::KeptLine {
        record: Some(proto::LogRecord {
            time: Some(answer::timestamp(line.time)),
            service: line.origin.service.clone(),
            instance_id: line.origin.instance_id.clone(),
            level: answer::level(line.level).into(),
            body: line.body.clone(),
            trace_id: line.trace_id.map(|id| id.to_string()).unwrap_or_default(),
            span_id: line.span_id.map(|id| id.to_string()).unwrap_or_default(),
            attributes: line.attributes.iter().cloned().collect(),
            sequence,
        }),
        resource: line.origin.attributes.iter().cloned().collect(),
    }
}

/// Reads a line.
pub(crate) fn line_of(line: proto::KeptLine) -> Option<Kept> {
    let record = line.record?;
    let level = record.level();
    Some(Kept {
        sequence: record.sequence,
        line: Line {
            time: record.time.as_ref().and_then(query::moment)?,
            origin: origin(record.service, record.instance_id, line.resource),
            level: level_of(level),
            body: record.body,
            trace_id: TraceId::parse(&record.trace_id),
            span_id: SpanId::parse(&record.span_id),
            attributes: sorted(record.attributes),
        },
    })
}

const fn level_of(level: proto::Level) -> Level {
    match level {
        proto::Level::Unspecified => Level::Unknown,
        proto::Level::Trace => Level::Trace,
        proto::Level::Debug => Level::Debug,
        proto::Level::Info => Level::Info,
        proto::Level::Warn => Level::Warn,
        proto::Level::Error => Level::Error,
        proto::Level::Fatal => Level::Fatal,
    }
}

fn origin(service: String, instance_id: String, resource: HashMap<String, String>) -> Arc<Origin> {
    Arc::new(Origin { service, instance_id, attributes: sorted(resource) })
}

fn sorted(pairs: HashMap<String, String>) -> Attributes {
    let mut pairs: Attributes = pairs.into_iter().collect();
    pairs.sort();
    pairs
}

/// Writes a span.
pub(crate) fn span(span: &Span) -> proto::KeptSpan {
    let attributes = span.attributes.iter().cloned().collect();
    proto::KeptSpan {
        span: Some(proto::Span { attributes, ..answer::span(span) }),
        resource: span.origin.attributes.iter().cloned().collect(),
    }
}

/// Reads a span.
pub(crate) fn span_of(kept: proto::KeptSpan) -> Option<Span> {
    let span = kept.span?;
    let kind = match span.kind() {
        proto::SpanKind::Unspecified => SpanKind::Unknown,
        proto::SpanKind::Internal => SpanKind::Internal,
        proto::SpanKind::Server => SpanKind::Server,
        proto::SpanKind::Client => SpanKind::Client,
        proto::SpanKind::Producer => SpanKind::Producer,
        proto::SpanKind::Consumer => SpanKind::Consumer,
    };
    let start = span.start_time.as_ref().and_then(query::moment)?;
    let took = span.duration.as_ref().and_then(query::length).unwrap_or_default();
    Some(Span {
        trace_id: TraceId::parse(&span.trace_id)?,
        span_id: SpanId::parse(&span.span_id)?,
        parent: SpanId::parse(&span.parent_span_id),
        name: span.name,
        origin: origin(span.service, span.instance_id, kept.resource),
        kind,
        start,
        end: Nanos(start.0.saturating_add(took)),
        failed: span.failed,
        status_message: span.status_message,
        attributes: sorted(span.attributes),
    })
}

/// Writes a place among lines.
pub(crate) const fn line_place(at: LineCursor) -> proto::LinePlace {
    proto::LinePlace { unix_nanos: at.time.0, sequence: at.sequence }
}

/// Reads a place among lines.
pub(crate) const fn line_cursor(at: proto::LinePlace) -> LineCursor {
    LineCursor { time: Nanos(at.unix_nanos), sequence: at.sequence }
}

/// Writes a place among traces.
pub(crate) fn trace_place(at: TraceCursor) -> proto::TracePlace {
    proto::TracePlace { unix_nanos: at.start.0, trace_id: at.trace_id.0.to_vec() }
}

/// Reads a place among traces.
pub(crate) fn trace_cursor(at: &proto::TracePlace) -> Option<TraceCursor> {
    Some(TraceCursor { start: Nanos(at.unix_nanos), trace_id: TraceId::from_bytes(&at.trace_id)? })
}

/// Writes ids of traces.
pub(crate) fn trace_ids(ids: &[TraceId]) -> Vec<Vec<u8>> {
    ids.iter().map(|id| id.0.to_vec()).collect()
}

/// Reads ids of traces.
pub(crate) fn trace_ids_of(ids: &[Vec<u8>]) -> Vec<TraceId> {
    ids.iter().filter_map(|id| TraceId::from_bytes(id)).collect()
}

/// Writes what is known of a trace.
pub(crate) fn part(part: TracePart) -> proto::TracePart {
    proto::TracePart {
        trace_id: part.trace_id.0.to_vec(),
        start_unix_nanos: part.start.0,
        end_unix_nanos: part.end.0,
        has_parent: part.has_parent,
        first_unix_nanos: part.first_start.0,
        service: part.service,
        name: part.name,
        spans: part.spans,
        failed: part.failed,
        services: part.services.into_iter().collect(),
    }
}

/// Reads what is known of a trace.
pub(crate) fn part_of(part: proto::TracePart) -> Option<TracePart> {
    Some(TracePart {
        trace_id: TraceId::from_bytes(&part.trace_id)?,
        start: Nanos(part.start_unix_nanos),
        end: Nanos(part.end_unix_nanos),
        has_parent: part.has_parent,
        first_start: Nanos(part.first_unix_nanos),
        service: part.service,
        name: part.name,
        spans: part.spans,
        failed: part.failed,
        services: part.services.into_iter().collect(),
    })
}

/// Writes a filter of lines.
pub(crate) fn line_filter(filter: &LineFilter) -> proto::LogFilter {
    let LineFilter { service, instance_id, level, text, trace_id, start, end, query } = filter;
    proto::LogFilter {
        service: service.clone().unwrap_or_default(),
        instance_id: instance_id.clone().unwrap_or_default(),
        level: answer::level(*level).into(),
        text: text.as_ref().map(|text| text.lower().to_owned()).unwrap_or_default(),
        trace_id: trace_id.map(|id| id.to_string()).unwrap_or_default(),
        start_time: start.map(answer::timestamp),
        end_time: end.map(answer::timestamp),
        query: query.as_ref().map(Expression::to_string).unwrap_or_default(),
    }
}

/// Reads a filter of lines.
///
/// # Errors
/// [`Error::QueryInvalid`].
pub(crate) fn line_filter_of(filter: Option<proto::LogFilter>) -> Result<LineFilter, Error> {
    let mut filter = filter.unwrap_or_default();
    let text = std::mem::take(&mut filter.query);
    let read = (!text.is_empty()).then(|| Expression::parse_written(&text)).transpose();
    let query = read.map_err(|wrong| query::wrong("filter.query", &wrong.problem))?;
    Ok(LineFilter { query, ..query::line_filter(Some(filter))? })
}

/// Writes a filter of traces.
pub(crate) fn trace_filter(filter: &TraceFilter) -> proto::SearchTracesRequest {
    let length = |nanos: u64| answer::between(Nanos(0), Nanos(nanos));
    proto::SearchTracesRequest {
        service: filter.service.clone().unwrap_or_default(),
        min_duration: (filter.nanos_min > 0).then(|| length(filter.nanos_min)),
        failed_only: filter.failed_only,
        start_time: filter.start.map(answer::timestamp),
        end_time: filter.end.map(answer::timestamp),
        max_duration: filter.nanos_max.map(length),
        operation: filter.operation.clone().unwrap_or_default(),
        attributes: pairs(&filter.attributes),
        ..proto::SearchTracesRequest::default()
    }
}

fn pairs(attributes: &Attributes) -> Vec<String> {
    attributes.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// Writes which traces are deleted.
pub(crate) fn meant(meant: &MeantTraces) -> proto::ForgetTracesRequest {
    match meant {
        MeantTraces::With(id, filter) => proto::ForgetTracesRequest {
            filter: Some(proto::DeleteTracesRequest {
                service: filter.service.clone().unwrap_or_default(),
                operation: filter.operation.clone().unwrap_or_default(),
                attributes: pairs(&filter.attributes),
                trace_id: id.map(|id| id.to_string()).unwrap_or_default(),
            }),
            trace_ids: Vec::new(),
        },
        MeantTraces::These(ids) => proto::ForgetTracesRequest { filter: None, trace_ids: trace_ids(ids) },
    }
}

/// Reads which traces are deleted.
///
/// # Errors
/// [`Error::QueryInvalid`].
pub(crate) fn meant_of(request: proto::ForgetTracesRequest) -> Result<MeantTraces, Error> {
    match request.filter {
        Some(filter) => {
            let (id, filter) = query::doomed_traces(filter)?;
            Ok(MeantTraces::With(id, filter))
        }
        None => Ok(MeantTraces::These(trace_ids_of(&request.trace_ids))),
    }
}

/// Writes what was counted.
pub(crate) fn tallied(tallies: Tallies) -> proto::TallyLinesResponse {
    let Counted { step, lines, steps, facets } = tallies.into_counted();
    let told = |(place, step): (u64, Step)| proto::TalliedStep {
        place,
        lines: step.lines,
        warnings: step.warnings,
        errors: step.errors,
    };
    proto::TallyLinesResponse {
        lines,
        step_nanos: step,
        steps: steps.into_iter().map(told).collect(),
        fields: facets.into_iter().map(|(values, others)| proto::TalliedField { values, others }).collect(),
    }
}

/// Reads what was counted.
pub(crate) fn tallies_of(told: proto::TallyLinesResponse) -> Tallies {
    let step = |step: proto::TalliedStep| {
        (step.place, Step { lines: step.lines, warnings: step.warnings, errors: step.errors })
    };
    Tallies::of_counted(Counted {
        step: told.step_nanos,
        lines: told.lines,
        steps: told.steps.into_iter().map(step).collect(),
        facets: told.fields.into_iter().map(|field| (field.values, field.others)).collect(),
    })
}

/// Writes what a graph needs of a span.
pub(crate) fn call(span: Gathered<'_>) -> proto::GraphSpan {
    proto::GraphSpan {
        trace_id: span.trace.0.to_vec(),
        span_id: span.id.0.to_vec(),
        parent_span_id: span.parent.map(|id| id.0.to_vec()).unwrap_or_default(),
        service: span.service.to_owned(),
        nanos: span.nanos,
        failed: span.failed,
    }
}

/// Reads a sample.
pub(crate) fn sample_of(told: proto::Sample) -> Option<(SeriesKey, Sample)> {
    let time = told.time.as_ref().and_then(query::moment)?;
    let labels = sorted(told.labels);
    let key = SeriesKey { metric: told.metric, service: told.service, instance_id: told.instance_id, labels };
    Some((key, Sample { value: told.value, count: told.count, time, rate: None }))
}

/// Reads what an instance uses.
pub(crate) fn usage_of(told: proto::Usage) -> Option<Usage> {
    Some(Usage {
        time: told.time.as_ref().and_then(query::moment)?,
        service: told.service,
        instance_id: told.instance_id,
        cpu_cores: told.cpu_cores,
        memory_bytes: told.memory_bytes,
    })
}

/// The field that stands for a part of a line.
pub(crate) const fn field(part: Part) -> &'static str {
    match part {
        Part::Time => "time",
        Part::Level => "level",
        Part::Service => "service",
        Part::Instance => "instance",
        Part::Body => "body",
        Part::Trace => "trace",
        Part::Span => "span",
        Part::Attributes => "attributes",
    }
}

/// Writes which series are asked for.
pub(crate) fn selection(selection: &Selection) -> proto::SeriesSelection {
    proto::SeriesSelection { selector: selection.text(), from_millis: selection.from, to_millis: selection.to }
}

/// Reads which series are asked for.
///
/// # Errors
/// [`Error::QueryInvalid`].
pub(crate) fn selections_of(told: Vec<proto::SeriesSelection>) -> Result<Vec<Selection>, Error> {
    let read = |told: proto::SeriesSelection| {
        let query = Query::parse(&told.selector).map_err(|error| query::wrong("selector", &error.to_string()))?;
        let mut selector = query.selector().ok_or_else(|| query::wrong("selector", "must be a selector of series"))?;
        (selector.from, selector.to) = (told.from_millis, told.to_millis);
        Ok(selector)
    };
    told.into_iter().map(read).collect()
}

/// Writes labels: names and values in turn.
pub(crate) fn labels(labels: &Labels) -> Vec<String> {
    labels.iter().flat_map(|(name, value)| [name.to_owned(), value.to_owned()]).collect()
}

/// Reads labels.
pub(crate) fn labels_of(told: &[String]) -> Labels {
    Labels::new(told.chunks_exact(2).map(|pair| (pair[0].as_str(), pair[1].as_str())))
}
