//! The model to OTLP, for whoever it is handed on to, and masks over what is handed on as it came.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;

use crate::mask::{Counts, Masks};
use crate::model::{Attributes, Level, Line, Origin};

/// Lines as OTLP, those of one sender together as they came.
pub(crate) fn logs(lines: &[Line]) -> ExportLogsServiceRequest {
    let batches = lines.chunk_by(|one, next| Arc::ptr_eq(&one.origin, &next.origin)).map(|lines| {
        let scope = ScopeLogs { log_records: lines.iter().map(record).collect(), ..ScopeLogs::default() };
        let resource = lines.first().map(|line| resource(&line.origin));
        ResourceLogs { resource, scope_logs: vec![scope], ..ResourceLogs::default() }
    });
    ExportLogsServiceRequest { resource_logs: batches.collect() }
}

fn record(line: &Line) -> LogRecord {
    let severity_number = match line.level {
        Level::Unknown => 0,
        Level::Trace => 1,
        Level::Debug => 5,
        Level::Info => 9,
        Level::Warn => 13,
        Level::Error => 17,
        Level::Fatal => 21,
    };
    LogRecord {
        time_unix_nano: line.time.0,
        observed_time_unix_nano: line.time.0,
        severity_number,
        body: Some(text(&line.body)),
        attributes: pairs(&line.attributes),
        trace_id: line.trace_id.map(|id| id.0.to_vec()).unwrap_or_default(),
        span_id: line.span_id.map(|id| id.0.to_vec()).unwrap_or_default(),
        ..LogRecord::default()
    }
}

fn resource(origin: &Origin) -> Resource {
    let mut attributes = pairs(&origin.attributes);
    attributes.push(pair("service.name", &origin.service));
    attributes.push(pair("service.instance.id", &origin.instance_id));
    Resource { attributes, ..Resource::default() }
}

fn pairs(attributes: &Attributes) -> Vec<KeyValue> {
    attributes.iter().map(|(name, value)| pair(name, value)).collect()
}

fn pair(name: &str, value: &str) -> KeyValue {
    KeyValue { key: name.to_owned(), value: Some(text(value)), ..KeyValue::default() }
}

fn text(value: &str) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(value.to_owned())) }
}

/// Masks every text of spans as they came: names, messages, attributes, events.
pub(crate) fn mask_spans(masks: &Masks, request: &mut ExportTraceServiceRequest) {
    // They are counted where they are kept.
    let counts = &mut Counts::new();
    for batch in &mut request.resource_spans {
        batch.resource.iter_mut().for_each(|resource| mask_pairs(masks, &mut resource.attributes, counts));
        for span in batch.scope_spans.iter_mut().flat_map(|scope| &mut scope.spans) {
            masks.text(&mut span.name, counts);
            span.status.iter_mut().for_each(|status| masks.text(&mut status.message, counts));
            mask_pairs(masks, &mut span.attributes, counts);
            for event in &mut span.events {
                masks.text(&mut event.name, counts);
                mask_pairs(masks, &mut event.attributes, counts);
            }
            span.links.iter_mut().for_each(|link| mask_pairs(masks, &mut link.attributes, counts));
        }
    }
}

fn mask_pairs(masks: &Masks, pairs: &mut [KeyValue], counts: &mut Counts) {
    for pair in pairs {
        let Some(value) = &mut pair.value else { continue };
        if let Some(Value::StringValue(text)) = &mut value.value {
            let mut one = vec![(pair.key.clone(), std::mem::take(text))];
            masks.attributes(&mut one, counts);
            *text = one.remove(0).1;
        } else {
            mask_value(masks, value, counts);
        }
    }
}

/// As deep as the decoder let it be.
fn mask_value(masks: &Masks, value: &mut AnyValue, counts: &mut Counts) {
    match &mut value.value {
        Some(Value::StringValue(text)) => masks.text(text, counts),
        Some(Value::ArrayValue(list)) => list.values.iter_mut().for_each(|value| mask_value(masks, value, counts)),
        Some(Value::KvlistValue(list)) => mask_pairs(masks, &mut list.values, counts),
        Some(_) | None => {}
    }
}
