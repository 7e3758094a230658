//! How options are written: those of Protobuf itself from a table, all others by their definitions in the set. Pure.

use std::fmt::Write as _;

use super::names::Scope;
use crate::read::{Reader, Value};
use crate::schema::{Field, Kind, Options, Schema};

/// What has options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Container {
    File,
    Message,
    Field,
    Oneof,
    Enum,
    Value,
    Service,
    Method,
}

/// How a value of Protobuf's own options is written.
#[derive(Clone, Copy)]
enum Form {
    Flag,
    Text,
    Word(&'static [(u64, &'static str)]),
    Features,
    /// What compilers write for themselves.
    Hidden,
}

const OPTIMIZE: &[(u64, &str)] = &[(1, "SPEED"), (2, "CODE_SIZE"), (3, "LITE_RUNTIME")];
const CTYPE: &[(u64, &str)] = &[(0, "STRING"), (1, "CORD"), (2, "STRING_PIECE")];
const JSTYPE: &[(u64, &str)] = &[(0, "JS_NORMAL"), (1, "JS_STRING"), (2, "JS_NUMBER")];
const RETENTION: &[(u64, &str)] = &[(0, "RETENTION_UNKNOWN"), (1, "RETENTION_RUNTIME"), (2, "RETENTION_SOURCE")];
const IDEMPOTENCY: &[(u64, &str)] = &[(0, "IDEMPOTENCY_UNKNOWN"), (1, "NO_SIDE_EFFECTS"), (2, "IDEMPOTENT")];
const TARGETS: &[(u64, &str)] = &[
    (0, "TARGET_TYPE_UNKNOWN"),
    (1, "TARGET_TYPE_FILE"),
    (2, "TARGET_TYPE_EXTENSION_RANGE"),
    (3, "TARGET_TYPE_MESSAGE"),
    (4, "TARGET_TYPE_FIELD"),
    (5, "TARGET_TYPE_ONEOF"),
    (6, "TARGET_TYPE_ENUM"),
    (7, "TARGET_TYPE_ENUM_ENTRY"),
    (8, "TARGET_TYPE_SERVICE"),
    (9, "TARGET_TYPE_METHOD"),
];

/// A number, a name, and the words of its values.
type Row = (u64, &'static str, &'static [(u64, &'static str)]);

/// Fields of `google.protobuf.FeatureSet`.
const FEATURES: &[Row] = &[
    (1, "field_presence", &[(1, "EXPLICIT"), (2, "IMPLICIT"), (3, "LEGACY_REQUIRED")]),
    (2, "enum_type", &[(1, "OPEN"), (2, "CLOSED")]),
    (3, "repeated_field_encoding", &[(1, "PACKED"), (2, "EXPANDED")]),
    (4, "utf8_validation", &[(2, "VERIFY"), (3, "NONE")]),
    (5, "message_encoding", &[(1, "LENGTH_PREFIXED"), (2, "DELIMITED")]),
    (6, "json_format", &[(1, "ALLOW"), (2, "LEGACY_BEST_EFFORT")]),
    (7, "enforce_naming_style", &[(1, "STYLE2024"), (2, "STYLE_LEGACY")]),
    (8, "default_symbol_visibility", &[(1, "EXPORT_ALL"), (2, "EXPORT_TOP_LEVEL"), (3, "LOCAL_ALL"), (4, "STRICT")]),
];

/// Protobuf's own options, from `google/protobuf/descriptor.proto`.
fn own(container: Container, number: u64) -> Option<(&'static str, Form)> {
    use Container as C;
    use Form::{Features, Flag, Hidden, Text, Word};
    Some(match (container, number) {
        (C::File, 1) => ("java_package", Text),
        (C::File, 8) => ("java_outer_classname", Text),
        (C::File, 9) => ("optimize_for", Word(OPTIMIZE)),
        (C::File, 10) => ("java_multiple_files", Flag),
        (C::File, 11) => ("go_package", Text),
        (C::File, 16) => ("cc_generic_services", Flag),
        (C::File, 17) => ("java_generic_services", Flag),
        (C::File, 18) => ("py_generic_services", Flag),
        (C::File, 20) => ("java_generate_equals_and_hash", Flag),
        (C::File, 23) | (C::Message | C::Field | C::Enum, 3) | (C::Value, 1) | (C::Service | C::Method, 33) => {
            ("deprecated", Flag)
        }
        (C::File, 27) => ("java_string_check_utf8", Flag),
        (C::File, 31) => ("cc_enable_arenas", Flag),
        (C::File, 36) => ("objc_class_prefix", Text),
        (C::File, 37) => ("csharp_namespace", Text),
        (C::File, 39) => ("swift_prefix", Text),
        (C::File, 40) => ("php_class_prefix", Text),
        (C::File, 41) => ("php_namespace", Text),
        (C::File, 44) => ("php_metadata_namespace", Text),
        (C::File, 45) => ("ruby_package", Text),
        (C::Message, 1) => ("message_set_wire_format", Flag),
        (C::Message, 2) => ("no_standard_descriptor_accessor", Flag),
        (C::Message, 7) => ("map_entry", Hidden),
        (C::Message, 11) | (C::Enum, 6) => ("deprecated_legacy_json_field_conflicts", Flag),
        (C::Field, 1) => ("ctype", Word(CTYPE)),
        (C::Field, 2) => ("packed", Flag),
        (C::Field, 5) => ("lazy", Flag),
        (C::Field, 6) => ("jstype", Word(JSTYPE)),
        (C::Field, 10) => ("weak", Flag),
        (C::Field, 15) => ("unverified_lazy", Flag),
        (C::Field, 16) | (C::Value, 3) => ("debug_redact", Flag),
        (C::Field, 17) => ("retention", Word(RETENTION)),
        (C::Field, 19) => ("targets", Word(TARGETS)),
        (C::Enum, 2) => ("allow_alias", Flag),
        (C::Method, 34) => ("idempotency_level", Word(IDEMPOTENCY)),
        (C::File, 50) | (C::Message, 12) | (C::Field, 21) | (C::Oneof, 1) => ("features", Features),
        (C::Enum, 7) | (C::Value, 2) | (C::Service, 34) | (C::Method, 35) => ("features", Features),
        // Defaults by edition and the support of features: written in descriptor.proto alone.
        (C::Field, 20 | 22) | (C::Value, 4) => ("", Hidden),
        _ => return None,
    })
}

impl Container {
    fn message(self) -> &'static str {
        match self {
            Self::File => "google.protobuf.FileOptions",
            Self::Message => "google.protobuf.MessageOptions",
            Self::Field => "google.protobuf.FieldOptions",
            Self::Oneof => "google.protobuf.OneofOptions",
            Self::Enum => "google.protobuf.EnumOptions",
            Self::Value => "google.protobuf.EnumValueOptions",
            Self::Service => "google.protobuf.ServiceOptions",
            Self::Method => "google.protobuf.MethodOptions",
        }
    }
}

/// Options as names and values, in their order.
///
/// # Errors
/// For an option whose definition is not in the set.
pub(super) fn list(
    schema: &Schema,
    scope: &Scope<'_>,
    options: &Options<'_>,
    container: Container,
) -> Result<Vec<(String, String)>, String> {
    let mut told = Vec::new();
    let mut seen = Vec::new();
    for (number, _) in options.fields() {
        if seen.contains(&number) {
            continue;
        }
        seen.push(number);
        let values = options.values(number);
        match own(container, number) {
            Some((_, Form::Hidden)) => {}
            Some((_, Form::Features)) => told.extend(features(schema, scope, &options.message(number))?),
            Some((name, form)) => {
                for value in &values {
                    told.push((
                        name.to_owned(),
                        word(*value, form).ok_or_else(|| format!("the option {name} is broken"))?,
                    ));
                }
            }
            None => {
                let extension = extension(schema, container.message(), number)?;
                let name = format!("({})", scope.reference(&extension.full));
                let is_whole =
                    matches!(extension.kind, Kind::Message) && extension.label != crate::schema::Label::Repeated;
                if is_whole {
                    told.push((name, braces(schema, &options.message(number), &extension.type_name)?));
                    continue;
                }
                for value in &values {
                    for text in texts(schema, extension, *value)? {
                        told.push((name.clone(), text));
                    }
                }
            }
        }
    }
    Ok(told)
}

fn extension<'a>(schema: &'a Schema, extendee: &str, number: u64) -> Result<&'a Field, String> {
    let is_it = |one: &&Field| &*one.extendee == extendee && u64::try_from(one.number) == Ok(number);
    let unknown = || format!("its option {number} of {extendee} is defined nowhere in the set");
    schema.extensions().iter().find(is_it).ok_or_else(unknown)
}

fn features(schema: &Schema, scope: &Scope<'_>, set: &Options<'_>) -> Result<Vec<(String, String)>, String> {
    let mut told = Vec::new();
    for (number, value) in set.fields() {
        match FEATURES.iter().find(|(known, ..)| *known == number) {
            Some((_, name, words)) => {
                let text = word(value, Form::Word(words)).ok_or_else(|| format!("the feature {name} is broken"))?;
                told.push((format!("features.{name}"), text));
            }
            None => {
                let extension = extension(schema, "google.protobuf.FeatureSet", number)?;
                let text = braces(schema, &set.message(number), &extension.type_name)?;
                told.push((format!("features.({})", scope.reference(&extension.full)), text));
            }
        }
    }
    Ok(told)
}

fn word(value: Value<'_>, form: Form) -> Option<String> {
    match (form, value) {
        (Form::Flag, Value::Varint(number)) => Some(if number == 0 { "false" } else { "true" }.to_owned()),
        (Form::Text, Value::Bytes(bytes)) => Some(quoted(bytes)),
        (Form::Word(words), Value::Varint(number)) => {
            words.iter().find(|(known, _)| *known == number).map(|(_, word)| (*word).to_owned())
        }
        _ => None,
    }
}

/// A message in the text form, within braces.
fn braces(schema: &Schema, message: &Options<'_>, type_name: &str) -> Result<String, String> {
    let definition = schema.message(type_name).ok_or_else(|| format!("{type_name} is not in the set"))?;
    let mut parts = Vec::new();
    for (number, value) in message.fields() {
        let own = i32::try_from(number).ok().and_then(|number| definition.field(number));
        let (field, name) = match own {
            Some(field) if field.kind == Kind::Group => {
                (field, field.type_name.rsplit('.').next().unwrap_or_default().to_owned())
            }
            Some(field) => (field, field.name().to_owned()),
            None => {
                let field = extension(schema, type_name, number)?;
                (field, format!("[{}]", field.full))
            }
        };
        for text in texts(schema, field, value)? {
            let colon = if text.starts_with('{') { "" } else { ":" };
            parts.push(format!("{name}{colon} {text}"));
        }
    }
    Ok(if parts.is_empty() { "{}".to_owned() } else { format!("{{{}}}", parts.join(" ")) })
}

/// A value as it is written; several for a packed one.
fn texts(schema: &Schema, field: &Field, value: Value<'_>) -> Result<Vec<String>, String> {
    let broken = || format!("{} has a value that cannot be read", field.full);
    Ok(match (field.kind, value) {
        (Kind::Message, Value::Bytes(bytes)) => vec![braces(schema, &Options::new(vec![bytes]), &field.type_name)?],
        (Kind::String | Kind::Bytes, Value::Bytes(bytes)) => vec![quoted(bytes)],
        (Kind::Message | Kind::String | Kind::Bytes | Kind::Group, _) => return Err(broken()),
        (_, Value::Bytes(packed)) => {
            let numbers = unpacked(packed, field.kind).ok_or_else(broken)?;
            numbers.into_iter().map(|one| number(schema, field, one).ok_or_else(broken)).collect::<Result<_, _>>()?
        }
        (_, value) => vec![number(schema, field, value).ok_or_else(broken)?],
    })
}

/// The numbers of a packed field.
fn unpacked(bytes: &[u8], kind: Kind) -> Option<Vec<Value<'static>>> {
    match kind {
        Kind::Fixed32 | Kind::Sfixed32 | Kind::Float => {
            let (all, rest) = bytes.as_chunks::<4>();
            rest.is_empty().then(|| all.iter().map(|four| Value::Fixed32(u32::from_le_bytes(*four))).collect())
        }
        Kind::Fixed64 | Kind::Sfixed64 | Kind::Double => {
            let (all, rest) = bytes.as_chunks::<8>();
            rest.is_empty().then(|| all.iter().map(|eight| Value::Fixed64(u64::from_le_bytes(*eight))).collect())
        }
        _ => {
            let mut reader = Reader::new(bytes);
            let mut numbers = Vec::new();
            while !reader.is_empty() {
                numbers.push(Value::Varint(reader.varint().ok()?));
            }
            Some(numbers)
        }
    }
}

fn number(schema: &Schema, field: &Field, value: Value<'_>) -> Option<String> {
    let zigzag = |number: u64| (number >> 1).cast_signed() ^ -(number & 1).cast_signed();
    Some(match (field.kind, value) {
        (Kind::Bool, Value::Varint(number)) => (number != 0).to_string(),
        (Kind::Int32 | Kind::Int64, Value::Varint(number)) => number.cast_signed().to_string(),
        (Kind::Uint32 | Kind::Uint64, Value::Varint(number)) => number.to_string(),
        (Kind::Sint32 | Kind::Sint64, Value::Varint(number)) => zigzag(number).to_string(),
        (Kind::Enum, Value::Varint(number)) => {
            let values = &schema.enumeration(&field.type_name)?.values;
            let is_it = |value: &&crate::schema::EnumValue| i64::from(value.number) == number.cast_signed();
            values.iter().find(is_it).map(|value| value.name.to_string())?
        }
        (Kind::Fixed32, Value::Fixed32(bits)) => bits.to_string(),
        (Kind::Sfixed32, Value::Fixed32(bits)) => bits.cast_signed().to_string(),
        (Kind::Float, Value::Fixed32(bits)) => real(f64::from(f32::from_bits(bits))),
        (Kind::Fixed64, Value::Fixed64(bits)) => bits.to_string(),
        (Kind::Sfixed64, Value::Fixed64(bits)) => bits.cast_signed().to_string(),
        (Kind::Double, Value::Fixed64(bits)) => real(f64::from_bits(bits)),
        _ => return None,
    })
}

fn real(number: f64) -> String {
    if number.is_nan() {
        "nan".to_owned()
    } else if number.is_infinite() {
        if number > 0.0 { "inf" } else { "-inf" }.to_owned()
    } else {
        format!("{number:?}")
    }
}

/// Bytes between quotes, with what is not plain text escaped.
pub(super) fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '"' => text.push_str("\\\""),
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                // Writing to a string cannot fail.
                letter if letter.is_ascii_control() => _ = write!(text, "\\{:03o}", u32::from(letter)),
                letter => text.push(letter),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\{byte:03o}");
        }
    }
    text.push('"');
    text
}
