//! Messages as JSON Schema, by the Protobuf mapping.

use std::collections::BTreeMap;

use prost_reflect::{EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value as Json, json};

use crate::transcode::notation::Notation;

/// The schemas that a document needs, each once.
#[derive(Debug, Default)]
pub(super) struct Schemas {
    told: BTreeMap<String, Json>,
    /// How the JSON that is told of is written.
    notation: Notation,
}

impl Schemas {
    /// All that was asked for.
    pub(super) fn finish(self) -> Map<String, Json> {
        self.told.into_iter().collect()
    }

    /// Tells of JSON in this notation from here on.
    pub(super) const fn speak(&mut self, notation: Notation) {
        self.notation = notation;
    }

    /// The name that something goes by: what is written in two notations has two.
    fn name(&self, full_name: &str) -> String {
        format!("{full_name}{}", self.notation.mark())
    }

    /// What a comment says of a message.
    pub(super) fn about(&self, message: &MessageDescriptor) -> String {
        comment(&message.parent_file(), message.path())
    }

    /// The schema of a field, which may be repeated or a map.
    pub(super) fn of(&mut self, field: &FieldDescriptor) -> Json {
        match field.kind() {
            Kind::Message(entry) if field.is_map() => {
                let values = self.of_one(&entry.map_entry_value_field());
                json!({"type": "object", "additionalProperties": values})
            }
            _ if field.is_list() => json!({"type": "array", "items": self.of_one(field)}),
            _ => self.of_one(field),
        }
    }

    /// The schema of one value of a field.
    pub(super) fn of_one(&mut self, field: &FieldDescriptor) -> Json {
        match field.kind() {
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                json!({"type": "integer", "format": "int32", "minimum": i32::MIN, "maximum": i32::MAX})
            }
            Kind::Uint32 | Kind::Fixed32 => json!({"type": "integer", "minimum": 0, "maximum": u32::MAX}),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                json!({"type": "string", "format": "int64", "pattern": "^-?[0-9]{1,19}$"})
            }
            Kind::Uint64 | Kind::Fixed64 => json!({"type": "string", "format": "uint64", "pattern": "^[0-9]{1,20}$"}),
            Kind::Double | Kind::Float => {
                json!({"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]})
            }
            Kind::Bool => json!({"type": "boolean"}),
            Kind::String => json!({"type": "string"}),
            Kind::Bytes => json!({"type": "string", "contentEncoding": "base64", "pattern": "^[A-Za-z0-9+/_-]*=*$"}),
            Kind::Enum(kind) => self.of_enum(&kind),
            Kind::Message(message) => self.of_message(&message),
        }
    }

    fn of_enum(&mut self, kind: &EnumDescriptor) -> Json {
        if kind.full_name() == "google.protobuf.NullValue" {
            return json!({"type": "null"});
        }
        let name = self.name(kind.full_name());
        if !self.told.contains_key(&name) {
            let about = comment(&kind.parent_file(), kind.path());
            let schema = if self.notation.has_enum_numbers() {
                json!({"type": "integer", "format": "int32"})
            } else {
                json!({"type": "string", "enum": kind.values().map(|value| value.name().to_owned()).collect::<Vec<_>>()})
            };
            self.told.insert(name.clone(), described(schema, &about));
        }
        reference(&name)
    }

    /// The schema of a message.
    pub(super) fn of_message(&mut self, message: &MessageDescriptor) -> Json {
        if let Some(schema) = self.known(message) {
            return schema;
        }
        let name = self.name(message.full_name());
        if !self.told.contains_key(&name) {
            // Messages may hold themselves.
            self.told.insert(name.clone(), Json::Null);
            let schema = self.without(message, &[]);
            self.told.insert(name.clone(), schema);
        }
        reference(&name)
    }

    /// The schema of a message, in place and without some of its fields.
    pub(super) fn without(&mut self, message: &MessageDescriptor, left_out: &[&str]) -> Json {
        let mut properties = Map::new();
        for field in message.fields().filter(|field| !left_out.contains(&field.name())) {
            let mut schema = described(self.of(&field), &text(&field));
            if field.field_descriptor_proto().options.as_ref().is_some_and(prost_types::FieldOptions::deprecated) {
                schema["deprecated"] = json!(true);
            }
            properties.insert(self.notation.name(&field).to_owned(), schema);
        }
        described(json!({"type": "object", "properties": properties}), &self.about(message))
    }

    /// Messages with a JSON of their own.
    fn known(&mut self, message: &MessageDescriptor) -> Option<Json> {
        Some(match message.full_name() {
            "google.protobuf.Timestamp" => json!({"type": "string", "format": "date-time"}),
            "google.protobuf.Duration" => json!({"type": "string", "pattern": r"^-?[0-9]{1,12}(\.[0-9]{1,9})?s$"}),
            "google.protobuf.FieldMask" => json!({"type": "string"}),
            "google.protobuf.Struct" | "google.protobuf.Empty" => json!({"type": "object"}),
            "google.protobuf.Value" => json!({}),
            "google.protobuf.ListValue" => json!({"type": "array", "items": {}}),
            "google.protobuf.Any" => json!({"type": "object", "properties": {"@type": {"type": "string"}}}),
            "google.protobuf.DoubleValue"
            | "google.protobuf.FloatValue"
            | "google.protobuf.Int64Value"
            | "google.protobuf.UInt64Value"
            | "google.protobuf.Int32Value"
            | "google.protobuf.UInt32Value"
            | "google.protobuf.BoolValue"
            | "google.protobuf.StringValue"
            | "google.protobuf.BytesValue" => {
                let field = message.get_field_by_name("value")?;
                json!({"anyOf": [self.of_one(&field), {"type": "null"}]})
            }
            _ => return None,
        })
    }
}

fn reference(name: &str) -> Json {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn described(mut schema: Json, about: &str) -> Json {
    if !about.is_empty() {
        schema["description"] = json!(about);
    }
    schema
}

/// What a comment says of a field.
pub(super) fn text(field: &FieldDescriptor) -> String {
    comment(&field.parent_message().parent_file(), field.path())
}

/// The comment at a place of a file; empty where there is none.
pub(super) fn comment(file: &FileDescriptor, path: &[i32]) -> String {
    let info = file.file_descriptor_proto().source_code_info.as_ref();
    let place = info.and_then(|info| info.location.iter().find(|location| location.path == path));
    let raw = place.map(|place| match place.leading_comments() {
        "" => place.trailing_comments(),
        leading => leading,
    });
    let lines = raw.unwrap_or_default().lines().map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end());
    lines.collect::<Vec<_>>().join("\n").trim().to_owned()
}
