//! OTLP in JSON, made regular before it is decoded.
//!
//! Senders may write what the proto3 JSON mapping allows and the decoder of `opentelemetry-proto` refuses: null for any
//! field, lists left out of `arrayValue` and `kvlistValue`, and `"NaN"` or a number in quotes for a float.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Decodes an OTLP request in JSON.
///
/// # Errors
/// The decoder's, with line and column where the text is no JSON at all.
pub(crate) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, serde_json::Error> {
    let mut value: Value = serde_json::from_slice(body)?;
    tidy(&mut value);
    serde_json::from_value(value)
}

/// Goes as deep as the text did, which the parser has bounded to 128.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.iter_mut().for_each(|(name, value)| tidy_field(name, value));
            text_for_strange_double(fields);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn tidy_field(name: &str, value: &mut Value) {
    tidy(value);
    match (name, &mut *value) {
        ("arrayValue" | "kvlistValue", Value::Object(list)) => {
            list.entry("values").or_insert_with(|| Value::Array(Vec::new()));
        }
        ("asDouble" | "sum" | "min" | "max" | "doubleValue" | "zeroThreshold", Value::String(text)) => {
            if let Some(number) = text.parse().ok().and_then(serde_json::Number::from_f64) {
                *value = Value::Number(number);
            }
        }
        _ => {}
    }
}

/// NaN and the infinities have no number in JSON. As an attribute they stay as text; as a measurement they are left out,
/// and the measurement is refused for want of a value.
fn text_for_strange_double(fields: &mut Map<String, Value>) {
    if let Some(Value::String(text)) = fields.get("doubleValue") {
        let text = text.clone();
        fields.remove("doubleValue");
        fields.insert("stringValue".to_owned(), Value::String(text));
    }
    for name in ["asDouble", "sum", "min", "max", "zeroThreshold"] {
        // `sum` is also the name of a kind of metric, which is an object.
        if fields.get(name).is_some_and(Value::is_string) {
            fields.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest as Logs;
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest as Metrics;

    use super::*;

    #[test]
    fn what_the_mapping_allows_is_understood() {
        let body = br#"{"resourceLogs":[{"resource":null,"future":{"a":1},"scopeLogs":[{"scope":{},"logRecords":[{
            "timeUnixNano":1,"observedTimeUnixNano":"2","severityNumber":9,"traceId":"4BF92F3577B34DA6A3CE929D0E0E4736",
            "spanId":"","body":{"kvlistValue":{"values":[{"key":"a","value":{"arrayValue":{}}},{"key":"n","value":null},
            {"key":"d","value":{"doubleValue":"NaN"}},{"key":"e","value":{"doubleValue":"1.5"}},
            {"key":"b","value":{"bytesValue":"AQI="}},{"key":"i","value":{"intValue":"-3"}}]}}}]}]}]}"#;
        let logs: Logs = decode(body).unwrap();
        let record = &logs.resource_logs[0].scope_logs[0].log_records[0];
        assert_eq!((record.trace_id.len(), record.span_id.len(), record.time_unix_nano), (16, 0, 1));
    }

    #[test]
    fn a_measurement_without_a_number_has_no_value() {
        let body = br#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m","sum":{"aggregationTemporality":2,
            "dataPoints":[{"asDouble":"NaN"},{"asInt":"7"},{"asDouble":1}]}}]}]}]}"#;
        let metrics: Metrics = decode(body).unwrap();
        assert!(metrics.resource_metrics[0].scope_metrics[0].metrics[0].data.is_some());
    }
}
