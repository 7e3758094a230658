//! Rules about what fields hold. Pure.

use std::collections::BTreeMap;

use super::draft::{Draft, Pair, describe, field_line};
use super::fields::draft;
use crate::schema::{Edition, Enum, Field, Kind, Schema};

const UPDATING: &str =
    "See https://developers.google.com/protocol-buffers/docs/proto3#updating for wire compatibility rules";
const JSON: &str = "https://developers.google.com/protocol-buffers/docs/proto3#json for JSON compatibility rules";

/// Kinds that read each other's bytes have the same number.
fn wire(kind: Kind) -> u8 {
    match kind {
        Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 | Kind::Bool => 1,
        Kind::Sint32 | Kind::Sint64 => 2,
        Kind::String => 3,
        Kind::Bytes => 4,
        Kind::Fixed32 | Kind::Sfixed32 => 5,
        Kind::Fixed64 | Kind::Sfixed64 => 6,
        Kind::Double => 7,
        Kind::Float => 8,
        Kind::Group => 9,
        Kind::Message => 10,
        Kind::Enum => 11,
    }
}

/// Kinds that read each other's bytes and JSON have the same number. JSON writes 64 bits as a text.
fn wire_json(kind: Kind) -> u8 {
    match kind {
        Kind::Int32 | Kind::Uint32 => 1,
        Kind::Int64 | Kind::Uint64 => 2,
        Kind::Fixed32 | Kind::Sfixed32 => 3,
        Kind::Fixed64 | Kind::Sfixed64 => 4,
        Kind::Bool => 5,
        Kind::Sint32 => 6,
        Kind::Sint64 => 7,
        Kind::String => 8,
        Kind::Bytes => 9,
        Kind::Double => 10,
        Kind::Float => 11,
        Kind::Group => 12,
        Kind::Message => 13,
        Kind::Enum => 14,
    }
}

fn kind_name(schema: &Schema, field: &Field) -> &'static str {
    if field.kind == Kind::Group && schema.file_at(field.file).edition != Edition::Proto2 {
        return "message (delimited encoding)";
    }
    field.kind.as_str()
}

fn changed_kind(pair: &Pair<'_>, old: &Field, new: &Field, more: &str) -> Draft {
    let (was, is) = (kind_name(pair.old, old), kind_name(pair.new, new));
    let at = field_line(pair.new, new, if new.kind.is_named() { &[6] } else { &[5] });
    let message = format!("{} changed type from {was:?} to {is:?}.{more}", describe(pair.new, new));
    draft(old, new, message)
        .at(new.file, at)
        .changed(was, is)
        .fix(format!("make {} {was} again, or add a field with a number of its own", new.name()))
}

fn changed_name(pair: &Pair<'_>, old: &Field, new: &Field) -> Draft {
    let (was, is) = (&*old.type_name, &*new.type_name);
    let message = format!("{} changed type from {was:?} to {is:?}.", describe(pair.new, new));
    draft(old, new, message)
        .at(new.file, field_line(pair.new, new, &[6]))
        .changed(was, is)
        .fix(format!("give {} the type {was} again, or add a field with a number of its own", new.name()))
}

pub(super) fn same(pair: &Pair<'_>) -> Vec<Draft> {
    let drafts = pair.fields().filter_map(|(old, new)| {
        if old.kind != new.kind {
            return Some(changed_kind(pair, old, new, ""));
        }
        (new.kind.is_named() && old.type_name != new.type_name).then(|| changed_name(pair, old, new))
    });
    drafts.collect()
}

/// The finding about a named type that is another one, if there is any.
fn renamed(pair: &Pair<'_>, old: &Field, new: &Field) -> Option<Draft> {
    if old.type_name == new.type_name || !new.kind.is_named() {
        return None;
    }
    let is_harmless = new.kind == Kind::Enum
        && match (pair.old.enumeration(&old.type_name), pair.new.enumeration(&new.type_name)) {
            (Some(old), Some(new)) => old.name() == new.name() && is_subset(old, new),
            (None, _) | (_, None) => false,
        };
    (!is_harmless).then(|| changed_name(pair, old, new))
}

/// Whether each name of an enum has the same number in the other.
fn is_subset(part: &Enum, whole: &Enum) -> bool {
    let numbers: BTreeMap<&str, i32> = whole.values.iter().map(|value| (&*value.name, value.number)).collect();
    part.values.iter().all(|value| numbers.get(&*value.name) == Some(&value.number))
}

pub(super) fn wire_compatible(pair: &Pair<'_>) -> Vec<Draft> {
    let drafts = pair.fields().filter_map(|(old, new)| {
        if wire(old.kind) == wire(new.kind) {
            return renamed(pair, old, new);
        }
        match (old.kind, new.kind) {
            // All texts are bytes.
            (Kind::String, Kind::Bytes) => None,
            (Kind::Bytes, Kind::String) => {
                let more = format!(
                    " {UPDATING}. Note that while string and bytes are compatible if the data is valid UTF-8, there is no way \
                     to enforce that a bytes field is UTF-8, so these fields may be incompatible."
                );
                Some(changed_kind(pair, old, new, &more))
            }
            _ => Some(changed_kind(pair, old, new, &format!(" {UPDATING}."))),
        }
    });
    drafts.collect()
}

pub(super) fn wire_json_compatible(pair: &Pair<'_>) -> Vec<Draft> {
    let drafts = pair.fields().filter_map(|(old, new)| {
        if wire_json(old.kind) != wire_json(new.kind) {
            return Some(changed_kind(pair, old, new, &format!(" {UPDATING} and {JSON}.")));
        }
        renamed(pair, old, new)
    });
    drafts.collect()
}
