//! Values of paths and queries: texts become field values by the string forms of the JSON mapping.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use prost_reflect::{DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, MessageDescriptor, Syntax, Value};
use serde_json::Value as Json;

use crate::binding::FieldPath;

const ANY_PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, ANY_PADDING);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, ANY_PADDING);

/// Whether messages of this type can be written as one text.
pub(crate) fn has_text(message: &MessageDescriptor) -> bool {
    matches!(
        message.full_name(),
        "google.protobuf.Timestamp"
            | "google.protobuf.Duration"
            | "google.protobuf.FieldMask"
            | "google.protobuf.DoubleValue"
            | "google.protobuf.FloatValue"
            | "google.protobuf.Int64Value"
            | "google.protobuf.UInt64Value"
            | "google.protobuf.Int32Value"
            | "google.protobuf.UInt32Value"
            | "google.protobuf.BoolValue"
            | "google.protobuf.StringValue"
            | "google.protobuf.BytesValue"
    )
}

/// Reads one value of a field; of a repeated one, one element.
///
/// # Errors
/// What is wrong and what is expected, as a sentence fragment.
pub(crate) fn parse(field: &FieldDescriptor, text: &str) -> Result<Value, String> {
    match field.kind() {
        Kind::String => Ok(Value::String(text.to_owned())),
        Kind::Bool => parse_bool(text).map(Value::Bool),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => number(text, "a 32-bit integer").map(Value::I32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => number(text, "a 64-bit integer").map(Value::I64),
        Kind::Uint32 | Kind::Fixed32 => number(text, "a 32-bit integer that is not negative").map(Value::U32),
        Kind::Uint64 | Kind::Fixed64 => number(text, "a 64-bit integer that is not negative").map(Value::U64),
        Kind::Float => float(text).and_then(|wide| narrow(text, wide)).map(Value::F32),
        Kind::Double => float(text).map(Value::F64),
        Kind::Bytes => base64(text).map(|bytes| Value::Bytes(bytes.into())),
        Kind::Enum(kind) => enumeration(&kind, text).map(Value::EnumNumber),
        Kind::Message(message) => parse_message(&message, text).map(Value::Message),
    }
}

fn parse_message(message: &MessageDescriptor, text: &str) -> Result<DynamicMessage, String> {
    if !has_text(message) {
        return Err("is a message; name one of its fields".to_owned());
    }
    // Wrappers take the bare scalar, so the scalar's own rules hold.
    if let Some(wrapped) = message.get_field_by_name("value").filter(|_| message.full_name().ends_with("Value")) {
        let mut wrapper = DynamicMessage::new(message.clone());
        wrapper.set_field(&wrapped, parse(&wrapped, text)?);
        return Ok(wrapper);
    }
    let expected = match message.name() {
        "Timestamp" => "an RFC 3339 time such as 2026-01-31T12:00:00Z",
        "Duration" => "seconds such as 3.5s",
        _ => "field names with commas between",
    };
    DynamicMessage::deserialize(message.clone(), Json::String(text.to_owned()))
        .map_err(|_| format!("{text:?} is not {expected}"))
}

fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

fn number<N: std::str::FromStr>(text: &str, expected: &str) -> Result<N, String> {
    // Rust reads a leading plus, which JSON does not have.
    text.parse().ok().filter(|_| !text.starts_with('+')).ok_or_else(|| format!("{text:?} is not {expected}"))
}

fn float(text: &str) -> Result<f64, String> {
    match text {
        "NaN" => Ok(f64::NAN),
        "Infinity" => Ok(f64::INFINITY),
        "-Infinity" => Ok(f64::NEG_INFINITY),
        // Rust reads inf, nan and the like in any case; JSON has only the three above.
        _ if text.contains(|letter: char| !(letter.is_ascii_digit() || ".eE+-".contains(letter))) => {
            Err(format!("{text:?} is not a number"))
        }
        _ => match text.parse::<f64>() {
            Ok(value) if value.is_finite() && !text.starts_with('+') => Ok(value),
            Ok(_) | Err(_) => Err(format!("{text:?} is not a number")),
        },
    }
}

#[expect(clippy::cast_possible_truncation, reason = "rounding is what a float field asks for; overflow is refused")]
fn narrow(text: &str, wide: f64) -> Result<f32, String> {
    let value = wide as f32;
    if value.is_infinite() && wide.is_finite() { Err(format!("{text:?} does not fit a float")) } else { Ok(value) }
}

/// Reads bytes in either alphabet of base64, padded or not.
///
/// # Errors
/// What is wrong, as a sentence fragment.
pub(crate) fn base64(text: &str) -> Result<Vec<u8>, String> {
    // A query may have turned the plus of the standard alphabet into a space.
    let text: Cow<'_, str> = if text.contains(' ') { text.replace(' ', "+").into() } else { text.into() };
    let engine = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    engine.decode(text.as_bytes()).map_err(|_| "is not base64".to_owned())
}

fn enumeration(kind: &EnumDescriptor, text: &str) -> Result<i32, String> {
    if let Some(value) = kind.get_value_by_name(text) {
        return Ok(value.number());
    }
    let is_open = kind.parent_file().syntax() == Syntax::Proto3;
    match number::<i32>(text, "") {
        Ok(value) if is_open || kind.get_value(value).is_some() => Ok(value),
        Ok(_) | Err(_) => Err(format!("{text:?} is no value of {}", kind.full_name())),
    }
}

/// The value at a path, if it is set.
pub(crate) fn at(message: &DynamicMessage, path: &FieldPath) -> Option<Value> {
    let (field, way) = path.split();
    let mut message = Cow::Borrowed(message);
    for step in way {
        if !message.has_field(step) {
            return None;
        }
        message = Cow::Owned(message.get_field(step).as_message()?.clone());
    }
    message.has_field(field).then(|| message.get_field(field).into_owned())
}

/// Sets the value at a path; pushes it if the field is repeated. Messages on the way are made.
///
/// # Errors
/// When the path leads into a second member of a oneof, as a sentence fragment.
pub(crate) fn set(message: &mut DynamicMessage, path: &FieldPath, value: Value) -> Result<(), String> {
    let (field, way) = path.split();
    let message = reach(message, way)?;
    check_oneof(message, field)?;
    if field.is_list() {
        message.get_field_mut(field).as_list_mut().expect("the field is a list").push(value);
    } else {
        message.set_field(field, value);
    }
    Ok(())
}

/// Puts an entry into the map at a path. Messages on the way are made.
///
/// # Errors
/// When the field is no map, holds messages, or has the key, as a sentence fragment.
pub(crate) fn put(message: &mut DynamicMessage, path: &FieldPath, key: &str, text: &str) -> Result<(), String> {
    let (field, way) = path.split();
    let entry = match field.kind() {
        Kind::Message(entry) if field.is_map() => entry,
        _ => return Err("is no map, and has no keys".to_owned()),
    };
    let key = match parse(&entry.map_entry_key_field(), key).map_err(|why| format!("its key {why}"))? {
        Value::String(key) => MapKey::String(key),
        Value::Bool(key) => MapKey::Bool(key),
        Value::I32(key) => MapKey::I32(key),
        Value::I64(key) => MapKey::I64(key),
        Value::U32(key) => MapKey::U32(key),
        Value::U64(key) => MapKey::U64(key),
        _ => return Err("has keys that have no text".to_owned()),
    };
    let value = parse(&entry.map_entry_value_field(), text)?;
    let message = reach(message, way)?;
    let entries = message.get_field_mut(field).as_map_mut().expect("the field is a map");
    match entries.insert(key, value) {
        None => Ok(()),
        Some(_) => Err("is given twice".to_owned()),
    }
}

/// The message at the end of a way. Messages on it are made.
fn reach<'m>(message: &'m mut DynamicMessage, way: &[FieldDescriptor]) -> Result<&'m mut DynamicMessage, String> {
    let mut message = message;
    for step in way {
        check_oneof(message, step)?;
        message = message.get_field_mut(step).as_message_mut().expect("every step of a field path is a message");
    }
    Ok(message)
}

fn check_oneof(message: &DynamicMessage, field: &FieldDescriptor) -> Result<(), String> {
    let Some(oneof) = field.containing_oneof() else { return Ok(()) };
    let other = oneof.fields().find(|other| other.number() != field.number() && message.has_field(other));
    match other {
        Some(other) => Err(format!("{} is set already, and only one of them can be", other.name())),
        None => Ok(()),
    }
}
