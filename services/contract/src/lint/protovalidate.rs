//! Whether rules of `buf.validate` fit the fields that they are about. Pure.
//!
//! Kinds, flags and bounds are looked at; patterns and expressions are not compiled.

use super::Slip;
use crate::schema::{Field, Kind, Label, Options, Schema};

/// The number of the extension `buf.validate.field`.
const RULES: u64 = 1159;

/// Kinds of rules: number, name, the kind of field, the message that may stand for it.
#[rustfmt::skip]
const SORTS: [(u64, &str, Option<Kind>, &str); 20] = [
    (1, "float", Some(Kind::Float), "google.protobuf.FloatValue"),
    (2, "double", Some(Kind::Double), "google.protobuf.DoubleValue"),
    (3, "int32", Some(Kind::Int32), "google.protobuf.Int32Value"),
    (4, "int64", Some(Kind::Int64), "google.protobuf.Int64Value"),
    (5, "uint32", Some(Kind::Uint32), "google.protobuf.UInt32Value"),
    (6, "uint64", Some(Kind::Uint64), "google.protobuf.UInt64Value"),
    (7, "sint32", Some(Kind::Sint32), ""),
    (8, "sint64", Some(Kind::Sint64), ""),
    (9, "fixed32", Some(Kind::Fixed32), ""),
    (10, "fixed64", Some(Kind::Fixed64), ""),
    (11, "sfixed32", Some(Kind::Sfixed32), ""),
    (12, "sfixed64", Some(Kind::Sfixed64), ""),
    (13, "bool", Some(Kind::Bool), "google.protobuf.BoolValue"),
    (14, "string", Some(Kind::String), "google.protobuf.StringValue"),
    (15, "bytes", Some(Kind::Bytes), "google.protobuf.BytesValue"),
    (16, "enum", Some(Kind::Enum), ""),
    (20, "any", None, "google.protobuf.Any"),
    (21, "duration", None, "google.protobuf.Duration"),
    (22, "timestamp", None, "google.protobuf.Timestamp"),
    (28, "field_mask", None, "google.protobuf.FieldMask"),
];

pub(super) fn fits(schema: &Schema) -> Vec<Slip> {
    let mut slips = Vec::new();
    let written = schema.messages().iter().filter(|message| !message.is_map_entry);
    for field in written.flat_map(|message| &message.fields).chain(schema.extensions()) {
        if let Some(rules) = schema.field_options(field).message_if_set(RULES) {
            Check { schema, field, slips: &mut slips }.field(&rules);
        }
    }
    slips
}

struct Check<'a> {
    schema: &'a Schema,
    field: &'a Field,
    slips: &'a mut Vec<Slip>,
}

impl Check<'_> {
    fn slip(&mut self, steps: &[i32], message: String) {
        let field = self.field;
        let path: Vec<i32> = field.path.iter().copied().chain([8, 1159]).chain(steps.iter().copied()).collect();
        let slip = Slip::new(&*field.full, field.file, path, message).near(field.path.len() + 2);
        self.slips.push(slip.fix("let the rule fit the field"));
    }

    fn field(&mut self, rules: &Options<'_>) {
        let (field, name) = (self.field, self.field.name());
        let message = field.parent.map(|parent| &self.schema.messages()[parent]);
        let oneof = message.and_then(|message| message.oneofs.get(field.oneof?)).filter(|oneof| !oneof.is_synthetic);
        if let Some(oneof) = oneof
            && rules.flag(25) == Some(true)
        {
            let told = "(buf.validate.field).required";
            let message = format!(
                "Field {name:?} has {told} but is in a oneof ({}). Oneof fields must not have {told}.",
                oneof.name
            );
            self.slip(&[25], message);
        }
        if rules.message_if_set(19).is_some() && !field.is_map {
            self.slip(&[19], format!("Field {name:?} is not a map but has (buf.validate.field).map."));
        }
        let is_list = field.label == Label::Repeated && !field.is_map;
        if rules.message_if_set(18).is_some() && !is_list {
            self.slip(&[18], format!("Field {name:?} is not repeated but has (buf.validate.field).repeated."));
        }
        self.sort(rules);
        for (sort, least, most) in [(14, 2, 3), (14, 4, 5), (15, 2, 3), (18, 1, 2), (19, 1, 2)] {
            self.lengths(rules, sort, least, most);
        }
    }

    /// Whether the rules are about what the field is.
    fn sort(&mut self, rules: &Options<'_>) {
        let (field, name) = (self.field, self.field.name());
        for (number, sort, kind, stand_in) in SORTS {
            if rules.message_if_set(number).is_none() {
                continue;
            }
            let step = i32::try_from(number).unwrap_or(i32::MAX);
            let (kind_name, rule) = (field.kind.as_str(), format!("(buf.validate.field).{sort}"));
            if field.label == Label::Repeated {
                self.slip(&[step], format!("Field {name:?} is of type repeated {kind_name} but has {rule} rules."));
            } else if kind != Some(field.kind) && (stand_in.is_empty() || *field.type_name != *stand_in) {
                self.slip(&[step], format!("Field {name:?} is of type {kind_name} but has {rule} rules."));
            }
        }
    }

    /// Whether the least is not more than the most.
    fn lengths(&mut self, rules: &Options<'_>, sort: u64, least: u64, most: u64) {
        let inner = rules.message(sort);
        let (Some(low), Some(high)) = (inner.number(least), inner.number(most)) else { return };
        if low > high {
            let name = self.field.name();
            for step in [least, most] {
                let message = format!("Field {name:?} must have at least {low} and at most {high}, which nothing has.");
                let steps = [sort, step].map(|step| i32::try_from(step).unwrap_or(i32::MAX));
                self.slip(&steps, message);
            }
        }
    }
}
