//! Rules about enums. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::draft::{Draft, Pair, feature_line, line};
use super::ranges::{Owner, holds, losses, merged};
use crate::schema::{Enum, EnumValue, JsonFormat, Schema};

/// Values by number; those of one number sorted by name.
fn by_number(one: &Enum) -> BTreeMap<i32, BTreeMap<&str, &EnumValue>> {
    let mut numbers: BTreeMap<i32, BTreeMap<&str, &EnumValue>> = BTreeMap::new();
    for value in &one.values {
        numbers.entry(value.number).or_default().insert(&value.name, value);
    }
    numbers
}

fn quoted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}

fn enum_line(schema: &Schema, one: &Enum) -> Option<u32> {
    schema.line(one.file, &one.path)
}

fn draft(pair: &Pair<'_>, old: &Enum, new: &Enum, message: String) -> Draft {
    Draft::new(&*new.full, message).at(new.file, enum_line(pair.new, new)).was_in(old.file)
}

pub(super) fn same_type(pair: &Pair<'_>) -> Vec<Draft> {
    let state = |one: &Enum| if one.features.is_enum_closed { "closed" } else { "open" };
    let changed = pair.enums().filter(|(old, new)| state(old) != state(new));
    let drafts = changed.map(|(old, new)| {
        let (was, is) = (state(old), state(new));
        let at = feature_line(pair.new, new.file, &new.path, &[3, 7, 2]).or_else(|| enum_line(pair.new, new));
        draft(pair, old, new, format!("Enum {:?} changed from {was} to {is}.", new.name()))
            .at(new.file, at)
            .changed(was, is)
            .fix(format!("set features.enum_type so that {} stays {was}", new.name()))
    });
    drafts.collect()
}

pub(super) fn same_json_format(pair: &Pair<'_>) -> Vec<Draft> {
    let changed = pair.enums().filter(|(old, new)| is_json_lost(old.features.json_format, new.features.json_format));
    let drafts = changed.map(|(old, new)| {
        let (was, is) = (old.features.json_format.as_str(), new.features.json_format.as_str());
        let at = feature_line(pair.new, new.file, &new.path, &[3, 7, 6]).or_else(|| enum_line(pair.new, new));
        draft(pair, old, new, format!("Enum {:?} JSON format support changed from {was} to {is}.", new.name()))
            .at(new.file, at)
            .changed(was, is)
            .fix("set features.json_format to ALLOW, or go on with the syntax of before")
    });
    drafts.collect()
}

pub(super) fn is_json_lost(old: JsonFormat, new: JsonFormat) -> bool {
    old == JsonFormat::Allow && new != JsonFormat::Allow
}

/// When a value may go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unless {
    Never,
    NumberReserved,
    NameReserved,
}

fn value_deleted(pair: &Pair<'_>, unless: Unless) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for (old, new) in pair.enums() {
        let kept: BTreeSet<i32> = new.values.iter().map(|value| value.number).collect();
        let ranges = merged(&new.reserved);
        let reserved: BTreeSet<&str> = new.reserved_names.iter().map(|name| &**name).collect();
        for (number, values) in by_number(old).into_iter().filter(|(number, _)| !kept.contains(number)) {
            let names = || values.keys().copied();
            let (is_allowed, suffix) = match unless {
                Unless::Never => (false, String::new()),
                Unless::NumberReserved => {
                    (holds(&ranges, number), format!(" without reserving the number \"{number}\""))
                }
                Unless::NameReserved => (
                    names().all(|name| reserved.contains(name)),
                    format!(
                        " without reserving the name{} {}",
                        if values.len() > 1 { "s" } else { "" },
                        quoted(names())
                    ),
                ),
            };
            if is_allowed {
                continue;
            }
            let message =
                format!("Previously present enum value \"{number}\" on enum {:?} was deleted{suffix}.", new.name());
            let fix = match unless {
                Unless::Never => format!("put {} back", names().collect::<Vec<_>>().join(", ")),
                Unless::NumberReserved | Unless::NameReserved => {
                    format!("reserve {number} and {} in {}", quoted(names()), new.name())
                }
            };
            let was = format!("{} = {number}", names().collect::<Vec<_>>().join(", "));
            drafts.push(draft(pair, old, new, message).changed(was, "").fix(fix));
        }
    }
    drafts
}

pub(super) fn value_no_delete(pair: &Pair<'_>) -> Vec<Draft> {
    value_deleted(pair, Unless::Never)
}

pub(super) fn value_no_delete_unless_number_reserved(pair: &Pair<'_>) -> Vec<Draft> {
    value_deleted(pair, Unless::NumberReserved)
}

pub(super) fn value_no_delete_unless_name_reserved(pair: &Pair<'_>) -> Vec<Draft> {
    value_deleted(pair, Unless::NameReserved)
}

pub(super) fn value_same_name(pair: &Pair<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for (old, new) in pair.enums() {
        let now = by_number(new);
        for (number, before) in by_number(old) {
            let Some(values) = now.get(&number) else { continue };
            // More names for a number do no harm; fewer do.
            if before.keys().all(|name| values.contains_key(name)) {
                continue;
            }
            let (was, is) = (quoted(before.keys().copied()), quoted(values.keys().copied()));
            let plural = if before.len() > 1 && values.len() > 1 { "s" } else { "" };
            for value in values.values() {
                let message = format!(
                    "Enum value \"{number}\" on enum {:?} changed name{plural} from {was} to {is}.",
                    new.name()
                );
                drafts.push(
                    draft(pair, old, new, message)
                        .at(new.file, line(pair.new, new.file, &value.path, &[2]))
                        .changed(was.clone(), is.clone())
                        .fix(format!("name {number} {was} again, or give the new name a number of its own")),
                );
            }
        }
    }
    drafts
}

pub(super) fn reserved_no_delete(pair: &Pair<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for (old, new) in pair.enums() {
        let name = new.name();
        for loss in losses(Owner::Enum, &old.reserved, &new.reserved) {
            let message = format!(
                "Previously present reserved range {:?} on enum {name:?} is missing values: {} were removed.",
                loss.range, loss.gone
            );
            let fix = format!("reserve {} in {name} again", loss.written);
            drafts.push(draft(pair, old, new, message).changed(loss.range, "").fix(fix));
        }
        let gone: BTreeSet<&str> = old.reserved_names.iter().map(|name| &**name).collect();
        let kept: BTreeSet<&str> = new.reserved_names.iter().map(|name| &**name).collect();
        for reserved in gone.difference(&kept).copied() {
            let message = format!("Previously present reserved name {reserved:?} on enum {name:?} was deleted.");
            let fix = format!("reserve {reserved:?} in {name} again");
            drafts.push(draft(pair, old, new, message).changed(reserved, "").fix(fix));
        }
    }
    drafts
}
