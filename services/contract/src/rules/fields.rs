//! Rules about fields and extensions. Pure.

use super::defaults;
use super::draft::{Draft, Pair, describe, describe_number, feature_line, field_line, option_line};
use crate::schema::{CppString, Edition, Field, Kind, Label, Oneof, Presence, Schema};

pub(super) fn draft(old: &Field, new: &Field, message: String) -> Draft {
    Draft::new(&*new.full, message).was_in(old.file)
}

fn is_in_entry(schema: &Schema, field: &Field) -> bool {
    !field.is_extension() && field.parent.is_some_and(|parent| schema.messages()[parent].is_map_entry)
}

/// How often a field may be there, with features resolved.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cardinality {
    Explicit,
    Implicit,
    Required,
    Repeated,
    Map,
}

impl Cardinality {
    fn of(field: &Field) -> Self {
        let has_presence = field.is_extension()
            || matches!(field.kind, Kind::Message | Kind::Group)
            || field.oneof.is_some()
            || field.features.presence != Presence::Implicit;
        match field.label {
            Label::Repeated if field.is_map => Self::Map,
            Label::Repeated => Self::Repeated,
            Label::Required => Self::Required,
            Label::Optional if has_presence => Self::Explicit,
            Label::Optional => Self::Implicit,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Explicit => "optional with explicit presence",
            Self::Implicit => "optional with implicit presence",
            Self::Required => "required",
            Self::Repeated => "repeated",
            Self::Map => "map",
        }
    }

    /// Those that read each other's bytes have the same number.
    fn wire(self) -> u8 {
        match self {
            Self::Explicit | Self::Implicit => 1,
            Self::Required => 2,
            Self::Repeated | Self::Map => 3,
        }
    }

    /// Those that read each other's JSON, too.
    fn wire_json(self) -> u8 {
        if self == Self::Map { 4 } else { self.wire() }
    }
}

fn cardinality(pair: &Pair<'_>, differ: fn(Cardinality, Cardinality) -> bool) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for (old, new) in pair.fields() {
        // The fields of an entry are made by the compiler; what they seem to be does not matter.
        if is_in_entry(pair.old, old) && is_in_entry(pair.new, new) {
            continue;
        }
        let (was, is) = (Cardinality::of(old), Cardinality::of(new));
        if differ(was, is) {
            let (was, is) = (was.as_str(), is.as_str());
            let message = format!("{} changed cardinality from {was:?} to {is:?}.", describe(pair.new, new));
            drafts.push(
                draft(old, new, message)
                    .at(new.file, field_line(pair.new, new, &[]))
                    .changed(was, is)
                    .fix(format!("make {} {was} again, or add a field with a number of its own", new.name())),
            );
        }
    }
    drafts
}

pub(super) fn same_cardinality(pair: &Pair<'_>) -> Vec<Draft> {
    cardinality(pair, |old, new| old != new)
}

pub(super) fn wire_cardinality(pair: &Pair<'_>) -> Vec<Draft> {
    cardinality(pair, |old, new| old.wire() != new.wire())
}

pub(super) fn wire_json_cardinality(pair: &Pair<'_>) -> Vec<Draft> {
    cardinality(pair, |old, new| old.wire_json() != new.wire_json())
}

/// The number that `google.protobuf.Edition` gives 2024.
const EDITION_2024: u32 = 1001;

/// The type of a text in C++, with the piece that only the old option knows.
fn cpp_string(schema: &Schema, field: &Field) -> &'static str {
    let edition = schema.file_at(field.file).edition;
    let is_old = !matches!(edition, Edition::Edition(number) if number >= EDITION_2024);
    match schema.field_options(field).number(1).filter(|_| is_old) {
        Some(0) => CppString::String.as_str(),
        Some(1) => CppString::Cord.as_str(),
        Some(2) => "STRING_PIECE",
        Some(_) | None => field.features.cpp_string.as_str(),
    }
}

pub(super) fn same_cpp_string_type(pair: &Pair<'_>) -> Vec<Draft> {
    let is_text = |field: &Field| matches!(field.kind, Kind::String | Kind::Bytes);
    let mut drafts = Vec::new();
    for (old, new) in pair.fields().filter(|(old, new)| is_text(old) && is_text(new)) {
        if is_in_entry(pair.old, old) && is_in_entry(pair.new, new) {
            continue;
        }
        let (was, is) = (cpp_string(pair.old, old), cpp_string(pair.new, new));
        if was == is || (was == "STRING_PIECE" && is == "STRING") {
            continue;
        }
        let at = super::draft::line(pair.new, new.file, &new.path, &[8, 1])
            .or_else(|| feature_line(pair.new, new.file, &new.path, &[8, 21, 1000, 2]))
            .or_else(|| field_line(pair.new, new, &[]));
        let message = format!("{} changed C++ string type from {was:?} to {is:?}.", describe(pair.new, new));
        let fix = format!("set ctype or features.(pb.cpp).string_type to {was} again");
        drafts.push(draft(old, new, message).at(new.file, at).changed(was, is).fix(fix));
    }
    drafts
}

fn verified(is_verified: bool) -> &'static str {
    if is_verified { "VERIFY" } else { "NONE" }
}

fn is_verified_in_java(schema: &Schema, field: &Field) -> bool {
    let file = schema.file_at(field.file);
    let said = schema.file_options(file).flag(27);
    let in_java = match (file.edition, said) {
        (_, Some(said)) => said,
        (Edition::Edition(_), None) => field.features.is_utf8_verified_in_java,
        (Edition::Proto2 | Edition::Proto3, None) => false,
    };
    in_java || field.features.is_utf8_verified
}

fn texts<'a>(pair: &Pair<'a>) -> impl Iterator<Item = (&'a Field, &'a Field)> {
    pair.fields().filter(|(old, new)| old.kind == Kind::String && new.kind == Kind::String)
}

pub(super) fn same_java_utf8_validation(pair: &Pair<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for (old, new) in texts(pair) {
        let (was, is) = (is_verified_in_java(pair.old, old), is_verified_in_java(pair.new, new));
        if was == is {
            continue;
        }
        let (was, is) = (verified(was), verified(is));
        let at = pair
            .new
            .line(new.file, &[8, 27])
            .or_else(|| feature_line(pair.new, new.file, &new.path, &[8, 21, 1001, 2]))
            .or_else(|| field_line(pair.new, new, &[]));
        let message =
            format!("{} changed Java string UTF8 validation from {was:?} to {is:?}.", describe(pair.new, new));
        let fix = "set java_string_check_utf8 or features.(pb.java).utf8_validation as before";
        drafts.push(draft(old, new, message).at(new.file, at).changed(was, is).fix(fix));
    }
    drafts
}

pub(super) fn same_utf8_validation(pair: &Pair<'_>) -> Vec<Draft> {
    let changed = texts(pair).filter(|(old, new)| old.features.is_utf8_verified != new.features.is_utf8_verified);
    let drafts = changed.map(|(old, new)| {
        let (was, is) = (verified(old.features.is_utf8_verified), verified(new.features.is_utf8_verified));
        let at = feature_line(pair.new, new.file, &new.path, &[8, 21, 4]).or_else(|| field_line(pair.new, new, &[]));
        let message = format!("{} changed UTF8 validation from {was} to {is}.", describe(pair.new, new));
        let fix = format!("set features.utf8_validation to {was}, or go on with the syntax of before");
        draft(old, new, message).at(new.file, at).changed(was, is).fix(fix)
    });
    drafts.collect()
}

pub(super) fn same_jstype(pair: &Pair<'_>) -> Vec<Draft> {
    let is_wide = |field: &Field| {
        matches!(field.kind, Kind::Int64 | Kind::Uint64 | Kind::Sint64 | Kind::Fixed64 | Kind::Sfixed64)
    };
    let name = |schema: &Schema, field: &Field| match schema.field_options(field).number(6) {
        Some(1) => "JS_STRING",
        Some(2) => "JS_NUMBER",
        Some(_) | None => "JS_NORMAL",
    };
    let mut drafts = Vec::new();
    for (old, new) in pair.fields().filter(|(old, new)| is_wide(old) && is_wide(new)) {
        let (was, is) = (name(pair.old, old), name(pair.new, new));
        if was != is {
            let message = format!("{} changed option \"jstype\" from {was:?} to {is:?}.", describe(pair.new, new));
            let at = option_line(pair.new, new, &[8, 6]);
            let fix = format!("set jstype to {was} again");
            drafts.push(draft(old, new, message).at(new.file, at).changed(was, is).fix(fix));
        }
    }
    drafts
}

pub(super) fn same_json_name(pair: &Pair<'_>) -> Vec<Draft> {
    let fields = pair.fields();
    let changed = fields.filter(|(old, new)| !old.is_extension() && old.json_name != new.json_name);
    let drafts = changed.map(|(old, new)| {
        let (was, is) = (&*old.json_name, &*new.json_name);
        let message = format!("{} changed option \"json_name\" from {was:?} to {is:?}.", describe(pair.new, new));
        let fix = format!("write `[json_name = {was:?}]` at {}", new.name());
        draft(old, new, message).at(new.file, option_line(pair.new, new, &[10])).changed(was, is).fix(fix)
    });
    drafts.collect()
}

pub(super) fn same_name(pair: &Pair<'_>) -> Vec<Draft> {
    fn name(field: &Field) -> &str {
        if field.is_extension() { &field.full } else { field.name() }
    }
    let changed = pair.fields().filter(|(old, new)| name(old) != name(new));
    let drafts = changed.map(|(old, new)| {
        let (was, is) = (name(old), name(new));
        let message = format!("{} changed name from {was:?} to {is:?}.", describe_number(pair.new, new));
        let fix = format!("name it {was} again, or add {is} with a number of its own");
        draft(old, new, message).at(new.file, field_line(pair.new, new, &[1])).changed(was, is).fix(fix)
    });
    drafts.collect()
}

pub(super) fn same_default(pair: &Pair<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for (old, new) in pair.fields() {
        let (Some(was), Some(is)) = (defaults::of(pair.old, old), defaults::of(pair.new, new)) else { continue };
        if (was.is_zero() && is.is_zero()) || was.is_same(&is) {
            continue;
        }
        let message = format!("{} changed default value from {was} to {is}.", describe(pair.new, new));
        drafts.push(
            draft(old, new, message)
                .at(new.file, option_line(pair.new, new, &[7]))
                .changed(was.to_string(), is.to_string())
                .fix(format!("set the default of {} to {was} again", new.name())),
        );
    }
    drafts
}

fn oneof<'a>(schema: &'a Schema, field: &Field) -> Option<&'a Oneof> {
    let message = &schema.messages()[field.parent?];
    message.oneofs.get(field.oneof?).filter(|oneof| !oneof.is_synthetic)
}

pub(super) fn same_oneof(pair: &Pair<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for (old, new) in pair.fields().filter(|(old, _)| !old.is_extension()) {
        let (was, is) = (oneof(pair.old, old), oneof(pair.new, new));
        if was.map(|oneof| &oneof.name) == is.map(|oneof| &oneof.name) {
            continue;
        }
        let described = describe(pair.new, new);
        let (message, fix) = match (was, is) {
            (None, None) => continue,
            (Some(was), Some(is)) => (
                format!("{described} moved from oneof {:?} to oneof {:?}.", was.name, is.name),
                format!("move {} back to the oneof {}", new.name(), was.name),
            ),
            (Some(was), None) => (
                format!("{described} moved from inside to outside a oneof."),
                format!("move {} back to the oneof {}", new.name(), was.name),
            ),
            (None, Some(_)) => (
                format!("{described} moved from outside to inside a oneof."),
                format!("move {} out again, and add a field with a number of its own to the oneof", new.name()),
            ),
        };
        let name = |oneof: Option<&Oneof>| oneof.map(|oneof| oneof.name.to_string()).unwrap_or_default();
        let at = field_line(pair.new, new, &[]);
        drafts.push(draft(old, new, message).at(new.file, at).changed(name(was), name(is)).fix(fix));
    }
    drafts
}
