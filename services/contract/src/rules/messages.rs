//! Rules about messages. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::draft::{Draft, Pair, describe, feature_line, field_line, line, message_line};
use super::enums::is_json_lost;
use super::ranges::{Owner, holds, losses, merged};
use crate::schema::{Field, Label, Message, Schema};

fn draft(pair: &Pair<'_>, old: &Message, new: &Message, message: String) -> Draft {
    Draft::new(&*new.full, message).at(new.file, message_line(pair.new, new)).was_in(old.file)
}

fn owner(schema: &Schema, message: &Message) -> Owner {
    if schema.message_options(message).flag(1) == Some(true) { Owner::MessageSet } else { Owner::Message }
}

pub(super) fn extension_range_no_delete(pair: &Pair<'_>) -> Vec<Draft> {
    ranges(pair, "extension", |message| &message.extension_ranges)
}

fn ranges(pair: &Pair<'_>, kind: &str, of: fn(&Message) -> &Vec<(i32, i32)>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for (old, new) in pair.messages() {
        let owner = owner(pair.new, new);
        for loss in losses(owner, of(old), of(new)) {
            let message = format!(
                "Previously present {kind} range {:?} on {} {:?} is missing values: {} were removed.",
                loss.range,
                owner.as_str(),
                new.name(),
                loss.gone
            );
            let word = if kind == "extension" { "extensions" } else { kind };
            let fix = format!("write `{word} {};` in {} again", loss.written, new.name());
            drafts.push(draft(pair, old, new, message).changed(loss.range, "").fix(fix));
        }
    }
    drafts
}

pub(super) fn reserved_no_delete(pair: &Pair<'_>) -> Vec<Draft> {
    let mut drafts = ranges(pair, "reserved", |message| &message.reserved);
    for (old, new) in pair.messages() {
        let gone: BTreeSet<&str> = old.reserved_names.iter().map(|name| &**name).collect();
        let kept: BTreeSet<&str> = new.reserved_names.iter().map(|name| &**name).collect();
        for reserved in gone.difference(&kept).copied() {
            let message =
                format!("Previously present reserved name {reserved:?} on message {:?} was deleted.", new.name());
            let fix = format!("reserve {reserved:?} in {} again", new.name());
            drafts.push(draft(pair, old, new, message).changed(reserved, "").fix(fix));
        }
    }
    drafts
}

/// When a field may go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unless {
    Never,
    NumberReserved,
    NameReserved,
}

fn field_deleted(pair: &Pair<'_>, unless: Unless) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for (old, new) in pair.messages() {
        let kept: BTreeSet<i32> = new.fields.iter().map(|field| field.number).collect();
        let ranges = merged(&new.reserved);
        let reserved: BTreeSet<&str> = new.reserved_names.iter().map(|name| &**name).collect();
        for field in old.fields.iter().filter(|field| !kept.contains(&field.number)) {
            let (number, name) = (field.number, field.name());
            let (is_allowed, suffix) = match unless {
                Unless::Never => (false, String::new()),
                Unless::NumberReserved => {
                    (holds(&ranges, number), format!(" without reserving the number \"{number}\""))
                }
                Unless::NameReserved => (reserved.contains(name), format!(" without reserving the name {name:?}")),
            };
            if is_allowed {
                continue;
            }
            let described = describe(pair.old, field).replacen("Field", "field", 1);
            let fix = match unless {
                Unless::Never => format!("put {name} back and mark it deprecated"),
                Unless::NumberReserved | Unless::NameReserved => {
                    format!("reserve {number} and {name:?} in {}", new.name())
                }
            };
            let message = format!("Previously present {described} was deleted{suffix}.");
            let gone = draft(pair, old, new, message).changed(declaration(field), "").fix(fix);
            drafts.push(Draft { element: field.full.to_string(), ..gone });
        }
    }
    drafts
}

/// A field as it would be written, without what its options say.
fn declaration(field: &Field) -> String {
    let kind = if field.kind.is_named() { &field.type_name } else { field.kind.as_str() };
    format!("{kind} {} = {}", field.name(), field.number)
}

pub(super) fn field_no_delete(pair: &Pair<'_>) -> Vec<Draft> {
    field_deleted(pair, Unless::Never)
}

pub(super) fn field_no_delete_unless_number_reserved(pair: &Pair<'_>) -> Vec<Draft> {
    field_deleted(pair, Unless::NumberReserved)
}

pub(super) fn field_no_delete_unless_name_reserved(pair: &Pair<'_>) -> Vec<Draft> {
    field_deleted(pair, Unless::NameReserved)
}

pub(super) fn oneof_no_delete(pair: &Pair<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for (old, new) in pair.messages() {
        for oneof in old.oneofs.iter().filter(|oneof| !oneof.is_synthetic) {
            if new.oneofs.iter().all(|kept| kept.name != oneof.name) {
                let name = &oneof.name;
                let message = format!("Previously present oneof {name:?} on message {:?} was deleted.", new.name());
                let gone =
                    draft(pair, old, new, message).changed(&**name, "").fix(format!("put the oneof {name} back"));
                drafts.push(Draft { element: format!("{}.{name}", old.full), ..gone });
            }
        }
    }
    drafts
}

pub(super) fn no_remove_standard_descriptor_accessor(pair: &Pair<'_>) -> Vec<Draft> {
    let is_removed = |schema: &Schema, message: &Message| schema.message_options(message).flag(2) == Some(true);
    let changed = pair.messages().filter(|(old, new)| !is_removed(pair.old, old) && is_removed(pair.new, new));
    let drafts = changed.map(|(old, new)| {
        let message = "Message option \"no_standard_descriptor_accessor\" changed from \"false\" to \"true\".";
        draft(pair, old, new, message.to_owned())
            .at(new.file, line(pair.new, new.file, &new.path, &[7, 2]))
            .changed("false", "true")
            .fix("take no_standard_descriptor_accessor out again")
    });
    drafts.collect()
}

pub(super) fn same_json_format(pair: &Pair<'_>) -> Vec<Draft> {
    let changed = pair.messages().filter(|(old, new)| is_json_lost(old.features.json_format, new.features.json_format));
    let drafts = changed.map(|(old, new)| {
        let (was, is) = (old.features.json_format.as_str(), new.features.json_format.as_str());
        let at = feature_line(pair.new, new.file, &new.path, &[7, 12, 6]).or_else(|| message_line(pair.new, new));
        draft(pair, old, new, format!("Message {:?} JSON format support changed from {was} to {is}.", new.name()))
            .at(new.file, at)
            .changed(was, is)
            .fix("set features.json_format to ALLOW, or go on with the syntax of before")
    });
    drafts.collect()
}

pub(super) fn same_required_fields(pair: &Pair<'_>) -> Vec<Draft> {
    const WHY: &str = "Required fields must always be sent, so if one side does not know about the required field, \
                       this will result in a breakage.";
    let required = |message: &Message| -> BTreeMap<i32, Field> {
        // As it is written, after buf: what an edition requires by a feature is not seen here.
        let fields = message.fields.iter().filter(|field| field.written_label == Label::Required);
        fields.map(|field| (field.number, field.clone())).collect()
    };
    let mut drafts = Vec::new();
    for (old, new) in pair.messages() {
        let (before, now) = (required(old), required(new));
        for (number, field) in before.iter().filter(|(number, _)| !now.contains_key(*number)) {
            let message = format!("Message {:?} had required field \"{number}\" deleted. {WHY}", old.name());
            let fix = format!("make {} required again, or add a field with a number of its own", field.name());
            let gone = draft(pair, old, new, message).changed(format!("required {}", declaration(field)), "").fix(fix);
            drafts.push(Draft { element: field.full.to_string(), ..gone });
        }
        for (number, field) in now.iter().filter(|(number, _)| !before.contains_key(*number)) {
            let message = format!("Message {:?} had required field \"{number}\" added. {WHY}", new.name());
            drafts.push(
                Draft::new(&*field.full, message)
                    .at(field.file, field_line(pair.new, field, &[]))
                    .changed("", format!("required {}", declaration(field)))
                    .fix(format!("make {} optional", field.name())),
            );
        }
    }
    drafts
}
