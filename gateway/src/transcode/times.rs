//! Times that have a JSON form. The reflection library puts those right that have none, and so writes another time than
//! the service said.

use prost_reflect::{DynamicMessage, ReflectMessage as _, Value};

const NANOS_PER_SECOND: i32 = 1_000_000_000;

/// Whether the nanoseconds of all timestamps and durations in a message are within a second, and those of durations on
/// the side of their seconds.
pub(super) fn are_lawful(message: &DynamicMessage) -> bool {
    match message.descriptor().full_name() {
        "google.protobuf.Timestamp" => (0..NANOS_PER_SECOND).contains(&parts(message).1),
        "google.protobuf.Duration" => {
            let (seconds, nanos) = parts(message);
            nanos.unsigned_abs() < NANOS_PER_SECOND.unsigned_abs() && seconds.signum() * i64::from(nanos.signum()) >= 0
        }
        _ => message.fields().all(|(_, value)| is_lawful(value)),
    }
}

fn is_lawful(value: &Value) -> bool {
    match value {
        Value::Message(message) => are_lawful(message),
        Value::List(values) => values.iter().all(is_lawful),
        Value::Map(values) => values.values().all(is_lawful),
        _ => true,
    }
}

/// Seconds and nanoseconds.
fn parts(message: &DynamicMessage) -> (i64, i32) {
    let value = |number| message.get_field_by_number(number);
    let seconds = value(1).and_then(|value| value.as_i64()).unwrap_or_default();
    (seconds, value(2).and_then(|value| value.as_i32()).unwrap_or_default())
}
