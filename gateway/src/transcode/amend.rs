//! Forms of JSON that the mapping allows and the reflection library does not know: integers in quotes with an exponent,
//! and an `Any` that holds nothing.
//!
//! Looked for only where the library would not go on, so that usual bodies pay nothing.

use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, ReflectMessage as _, Value};
use serde_json::{Value as Json, json};

/// Stands before the type of an `Any` that holds nothing, while the library reads or writes it.
const NOTHING: &str = "nothing.invalid/";
const ANY: &str = "google.protobuf.Any";
/// Most digits of an integer.
const DIGITS_MAX: usize = 20;
/// Messages whose JSON is not that of their fields.
const OF_THEIR_OWN: [&str; 6] = [
    "google.protobuf.Struct",
    "google.protobuf.Value",
    "google.protobuf.ListValue",
    "google.protobuf.Timestamp",
    "google.protobuf.Duration",
    "google.protobuf.FieldMask",
];

/// Writes a JSON body so that the library can read it. Whether there was anything to do.
pub(super) fn body(message: &MessageDescriptor, body: &mut Json) -> bool {
    match message.full_name() {
        ANY => any(message, body),
        name if OF_THEIR_OWN.contains(&name) => false,
        _ if is_wrapper(message) => {
            message.get_field_by_name("value").is_some_and(|field| one(&field.kind(), message, body))
        }
        _ => fields(message, body),
    }
}

fn fields(message: &MessageDescriptor, body: &mut Json) -> bool {
    let Json::Object(members) = body else { return false };
    let mut is_changed = false;
    for (name, value) in members {
        let field = message.get_field_by_json_name(name).or_else(|| message.get_field_by_name(name));
        let Some(field) = field else { continue };
        is_changed |= match (field.kind(), value) {
            (Kind::Message(entry), Json::Object(values)) if field.is_map() => {
                let kind = entry.map_entry_value_field().kind();
                values.iter_mut().fold(false, |changed, (_, value)| one(&kind, message, value) | changed)
            }
            (kind, Json::Array(values)) if field.is_list() => {
                values.iter_mut().fold(false, |changed, value| one(&kind, message, value) | changed)
            }
            (kind, value) => one(&kind, message, value),
        };
    }
    is_changed
}

/// One value; `holder` is a message of the same contract.
fn one(kind: &Kind, holder: &MessageDescriptor, value: &mut Json) -> bool {
    match kind {
        Kind::Message(inner)
            if inner.full_name() == ANY && value.as_object().is_some_and(serde_json::Map::is_empty) =>
        {
            *value = json!({"@type": format!("{NOTHING}{}", holder.full_name())});
            true
        }
        Kind::Message(inner) => body(inner, value),
        Kind::Int32
        | Kind::Int64
        | Kind::Uint32
        | Kind::Uint64
        | Kind::Sint32
        | Kind::Sint64
        | Kind::Fixed32
        | Kind::Fixed64
        | Kind::Sfixed32
        | Kind::Sfixed64 => match value.as_str().and_then(plain) {
            Some(text) => {
                *value = Json::String(text);
                true
            }
            None => false,
        },
        Kind::Double | Kind::Float | Kind::Bool | Kind::String | Kind::Bytes | Kind::Enum(_) => false,
    }
}

fn any(any: &MessageDescriptor, value: &mut Json) -> bool {
    let name = value["@type"].as_str().and_then(|kind| kind.rsplit('/').next());
    let Some(inner) = name.and_then(|name| any.parent_pool().get_message_by_name(name)) else { return false };
    let is_of_its_own = is_wrapper(&inner) || inner.full_name() == ANY || OF_THEIR_OWN.contains(&inner.full_name());
    match value.get_mut("value") {
        Some(inside) if is_of_its_own => body(&inner, inside),
        _ => fields(&inner, value),
    }
}

fn is_wrapper(message: &MessageDescriptor) -> bool {
    message.package_name() == "google.protobuf" && message.name().ends_with("Value") && message.fields().len() == 1
}

/// An integer without the exponent that it was written with. `None` for what has none, or is no integer.
fn plain(text: &str) -> Option<String> {
    let (mantissa, exponent) = text.split_once(['e', 'E'])?;
    let (sign, digits) = mantissa.strip_prefix('-').map_or(("", mantissa), |digits| ("-", digits));
    let (whole, part) = match digits.split_once('.') {
        Some((_, "")) => return None,
        Some((whole, part)) => (whole, part),
        None => (digits, ""),
    };
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !are_digits(whole) || !are_digits(part) || (whole.len() > 1 && whole.starts_with('0')) {
        return None;
    }
    let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    if unsigned.is_empty() || !are_digits(unsigned) {
        return None;
    }
    let exponent: i64 = exponent.parse().ok()?;
    let all = format!("{whole}{part}");
    let shift = exponent.checked_sub(i64::try_from(part.len()).ok()?)?;
    let digits = if all.bytes().all(|byte| byte == b'0') {
        "0".to_owned()
    } else if let Ok(zeros) = usize::try_from(shift) {
        if all.trim_start_matches('0').len().checked_add(zeros)? > DIGITS_MAX {
            return None;
        }
        all + &"0".repeat(zeros)
    } else {
        let at = all.len().checked_sub(usize::try_from(shift.unsigned_abs()).ok()?)?;
        let (integer, fraction) = all.split_at_checked(at)?;
        if !fraction.bytes().all(|byte| byte == b'0') {
            return None;
        }
        integer.to_owned()
    };
    let digits = digits.trim_start_matches('0');
    Some(if digits.is_empty() { "0".to_owned() } else { format!("{sign}{digits}") })
}

/// Empties each `Any` that stands for one that holds nothing, or, the other way, has each that holds nothing stand for
/// one, so that the library can write it.
pub(super) fn anys(message: &mut DynamicMessage, stand_in: Option<&str>) {
    if message.descriptor().full_name() == ANY {
        let kind = message.get_field_by_name("type_url").and_then(|kind| kind.as_str().map(str::to_owned));
        let kind = kind.unwrap_or_default();
        match stand_in {
            None if kind.starts_with(NOTHING) => message.clear_field_by_name("type_url"),
            Some(name) if kind.is_empty() => {
                message.set_field_by_name("type_url", Value::String(format!("{NOTHING}{name}")));
            }
            _ => {}
        }
        return;
    }
    for (_, value) in message.fields_mut() {
        match value {
            Value::Message(inner) => anys(inner, stand_in),
            Value::List(values) => {
                values.iter_mut().filter_map(Value::as_message_mut).for_each(|inner| anys(inner, stand_in));
            }
            Value::Map(values) => {
                values.values_mut().filter_map(Value::as_message_mut).for_each(|inner| anys(inner, stand_in));
            }
            _ => {}
        }
    }
}

/// Takes what [`anys`] had stand for nothing out of a JSON text again.
pub(super) fn written(json: &mut Json) {
    match json {
        Json::Object(members) => {
            let stands = members.get("@type").and_then(Json::as_str).is_some_and(|kind| kind.starts_with(NOTHING));
            if stands {
                members.clear();
            }
            members.iter_mut().for_each(|(_, value)| written(value));
        }
        Json::Array(values) => values.iter_mut().for_each(written),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn an_integer_is_the_same_without_its_exponent() {
        for (text, expected) in [
            ("1e5", Some("100000")),
            ("-1E+2", Some("-100")),
            ("1.5e1", Some("15")),
            ("120e-1", Some("12")),
            ("0e0", Some("0")),
            ("-0.0e9", Some("0")),
            ("0.00000e2", Some("0")),
            ("1.5e0", None),
            ("1e99", None),
            ("1e-1", None),
            ("1e", None),
            ("e1", None),
            ("01e1", None),
            ("1.e1", None),
            ("1e+-1", None),
            ("1e99999999999999999999", None),
            ("5", None),
        ] {
            assert_eq!(plain(text).as_deref(), expected, "{text}");
        }
    }
}
