//! Rules about validation, which `buf.validate` says. Pure.
//!
//! The options are read as raw bytes, so that no generated code of theirs is needed. Bounds, lists and the usual formats are
//! compared by what they allow; of patterns and expressions only that they are the same.

use std::collections::{BTreeMap, BTreeSet};

use super::draft::{Draft, Pair, field_line, message_line};
use crate::read::Value;
use crate::schema::{Field, Kind, Message, Options, Presence, Schema};

/// The number of the extensions `buf.validate.field`, `.message` and `.oneof`.
pub(super) const RULES: u64 = 1159;
/// The rules for a `google.protobuf.Any`.
pub(super) const ANY: u64 = 20;

/// One thing that values must be.
#[derive(Clone, Debug, PartialEq)]
enum Constraint {
    /// At least this, or more than it.
    Lower { bound: Bound, is_open: bool },
    /// At most this, or less than it.
    Upper { bound: Bound, is_open: bool },
    /// One of these.
    In(BTreeSet<Vec<u8>>),
    /// None of these.
    NotIn(BTreeSet<Vec<u8>>),
    /// It holds or it does not.
    Exact(Vec<u8>),
}

/// An end of what values may be.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    Whole(i128),
    Broken(f64),
}

impl Bound {
    fn is_above(self, other: Self) -> bool {
        match (self, other) {
            (Self::Whole(one), Self::Whole(other)) => one > other,
            (Self::Broken(one), Self::Broken(other)) => one > other,
            // A field that changes its kind is another rule's.
            (Self::Whole(_), Self::Broken(_)) | (Self::Broken(_), Self::Whole(_)) => false,
        }
    }
}

impl Constraint {
    /// Whether all that this allows is allowed by `other`.
    fn is_within(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Lower { bound, is_open }, Self::Lower { bound: looser, is_open: is_looser_open }) => {
                bound.is_above(*looser) || (bound == looser && (*is_open || !is_looser_open))
            }
            (Self::Upper { bound, is_open }, Self::Upper { bound: looser, is_open: is_looser_open }) => {
                looser.is_above(*bound) || (bound == looser && (*is_open || !is_looser_open))
            }
            (Self::In(one), Self::In(other)) => one.is_subset(other),
            (Self::NotIn(one), Self::NotIn(other)) => one.is_superset(other),
            (one, other) => one == other,
        }
    }
}

/// What values of a field must be, by the names of the rules.
type Constraints = BTreeMap<String, Constraint>;

/// How the values of a rule are written.
#[derive(Clone, Copy)]
enum Shape {
    /// Numbers as varints.
    Varint,
    /// Numbers as zigzag varints.
    Zigzag,
    /// Fixed numbers, with or without a sign, whole or not.
    Fixed { is_signed: bool, is_broken: bool },
    /// Durations and timestamps.
    Time,
}

/// The rules of a kind of value: its name, its number in `buf.validate.FieldRules`, how it is written.
const NUMERIC: [(&str, u64, Shape); 14] = [
    ("float", 1, Shape::Fixed { is_signed: true, is_broken: true }),
    ("double", 2, Shape::Fixed { is_signed: true, is_broken: true }),
    ("int32", 3, Shape::Varint),
    ("int64", 4, Shape::Varint),
    ("uint32", 5, Shape::Varint),
    ("uint64", 6, Shape::Varint),
    ("sint32", 7, Shape::Zigzag),
    ("sint64", 8, Shape::Zigzag),
    ("fixed32", 9, Shape::Fixed { is_signed: false, is_broken: false }),
    ("fixed64", 10, Shape::Fixed { is_signed: false, is_broken: false }),
    ("sfixed32", 11, Shape::Fixed { is_signed: true, is_broken: false }),
    ("sfixed64", 12, Shape::Fixed { is_signed: true, is_broken: false }),
    ("duration", 21, Shape::Time),
    ("timestamp", 22, Shape::Time),
];

/// Rules about lengths and counts: kind of value and its number, name and number of the rule, whether it is a lower bound.
const LENGTHS: [(&str, u64, &str, u64, bool); 10] = [
    ("string", 14, "min_len", 2, true),
    ("string", 14, "max_len", 3, false),
    ("string", 14, "min_bytes", 4, true),
    ("string", 14, "max_bytes", 5, false),
    ("bytes", 15, "min_len", 2, true),
    ("bytes", 15, "max_len", 3, false),
    ("repeated", 18, "min_items", 1, true),
    ("repeated", 18, "max_items", 2, false),
    ("map", 19, "min_pairs", 1, true),
    ("map", 19, "max_pairs", 2, false),
];

/// Lists: kind of value and its number, number of `in`, number of `not_in`.
const LISTS: [(&str, u64, u64, u64); 4] =
    [("string", 14, 10, 11), ("bytes", 15, 8, 9), ("enum", 16, 3, 4), ("any", ANY, 2, 3)];

fn constraints(prefix: &str, rules: &Options<'_>, found: &mut Constraints, depth: usize) {
    /// Rules for items within items; two are the most that a message can say.
    const DEPTH_MAX: usize = 4;
    if depth > DEPTH_MAX {
        return;
    }
    let mut known: BTreeSet<(u64, u64)> = BTreeSet::new();
    for (kind, number, shape) in NUMERIC {
        if let Some(rules) = rules.message_if_set(number) {
            numeric(&format!("{prefix}{kind}"), number, shape, &rules, found, &mut known);
        }
    }
    for (kind, number, name, rule, is_lower) in LENGTHS {
        known.insert((number, rule));
        if let Some(bound) = rules.message(number).number(rule).map(|bound| Bound::Whole(i128::from(bound))) {
            let constraint = match is_lower {
                true => Constraint::Lower { bound, is_open: false },
                false => Constraint::Upper { bound, is_open: false },
            };
            found.insert(format!("{prefix}{kind}.{name}"), constraint);
        }
    }
    for (kind, number, within, without) in LISTS {
        lists(&format!("{prefix}{kind}"), number, within, without, &rules.message(number), found, &mut known);
    }
    for (kind, number, rule) in [("items", 18, 4), ("keys", 19, 4), ("values", 19, 5)] {
        known.insert((number, rule));
        if let Some(inner) = rules.message(number).message_if_set(rule) {
            constraints(&format!("{prefix}{kind}."), &inner, found, depth + 1);
        }
    }
    if rules.flag(25) == Some(true) {
        found.insert(format!("{prefix}required"), Constraint::Exact(Vec::new()));
    }
    expressions(prefix, rules, found);
    rest(prefix, rules, &known, found);
}

fn numeric(
    name: &str,
    number: u64,
    shape: Shape,
    rules: &Options<'_>,
    found: &mut Constraints,
    known: &mut BTreeSet<(u64, u64)>,
) {
    // Rules about times have no number 1, and begin one later.
    let (lt, lte, gt, gte, within, without) = match shape {
        Shape::Time if number == 22 => (3, 4, 5, 6, 0, 0),
        Shape::Time => (3, 4, 5, 6, 7, 8),
        Shape::Varint | Shape::Zigzag | Shape::Fixed { .. } => (2, 3, 4, 5, 6, 7),
    };
    let bound = |rule: u64| rules.values(rule).into_iter().next_back().and_then(|value| read(shape, value));
    for (rule, is_open) in [(gt, true), (gte, false)] {
        known.insert((number, rule));
        if let Some(bound) = bound(rule) {
            found.insert(format!("{name}.least"), Constraint::Lower { bound, is_open });
        }
    }
    for (rule, is_open) in [(lt, true), (lte, false)] {
        known.insert((number, rule));
        if let Some(bound) = bound(rule) {
            found.insert(format!("{name}.most"), Constraint::Upper { bound, is_open });
        }
    }
    lists(name, number, within, without, rules, found, known);
}

fn lists(
    name: &str,
    number: u64,
    within: u64,
    without: u64,
    rules: &Options<'_>,
    found: &mut Constraints,
    known: &mut BTreeSet<(u64, u64)>,
) {
    let list = |rule: u64| -> BTreeSet<Vec<u8>> { rules.values(rule).into_iter().flat_map(elements).collect() };
    known.extend([(number, within), (number, without)]);
    let (allowed, refused) = (list(within), list(without));
    if !allowed.is_empty() {
        found.insert(format!("{name}.in"), Constraint::In(allowed));
    }
    if !refused.is_empty() {
        found.insert(format!("{name}.not_in"), Constraint::NotIn(refused));
    }
}

/// The bytes of a value, to be compared only.
fn elements(value: Value<'_>) -> Vec<Vec<u8>> {
    match value {
        Value::Varint(number) => vec![number.to_le_bytes().to_vec()],
        Value::Fixed32(number) => vec![number.to_le_bytes().to_vec()],
        Value::Fixed64(number) => vec![number.to_le_bytes().to_vec()],
        Value::Bytes(bytes) => vec![bytes.to_vec()],
        Value::Group => Vec::new(),
    }
}

fn read(shape: Shape, value: Value<'_>) -> Option<Bound> {
    Some(match (shape, value) {
        (Shape::Varint, Value::Varint(number)) => Bound::Whole(i128::from(number.cast_signed())),
        (Shape::Zigzag, Value::Varint(number)) => {
            let half = i128::from(number >> 1);
            Bound::Whole(if number & 1 == 1 { -half - 1 } else { half })
        }
        (Shape::Fixed { is_broken: true, .. }, Value::Fixed32(bits)) => Bound::Broken(f64::from(f32::from_bits(bits))),
        (Shape::Fixed { is_broken: true, .. }, Value::Fixed64(bits)) => Bound::Broken(f64::from_bits(bits)),
        (Shape::Fixed { is_signed: true, .. }, Value::Fixed32(bits)) => Bound::Whole(i128::from(bits.cast_signed())),
        (Shape::Fixed { is_signed: true, .. }, Value::Fixed64(bits)) => Bound::Whole(i128::from(bits.cast_signed())),
        (Shape::Fixed { is_signed: false, .. }, Value::Fixed32(bits)) => Bound::Whole(i128::from(bits)),
        (Shape::Fixed { is_signed: false, .. }, Value::Fixed64(bits)) => Bound::Whole(i128::from(bits)),
        (Shape::Time, Value::Bytes(time)) => {
            let time = Options::of(time);
            let part = |number| time.number(number).map_or(0, |part| i128::from(part.cast_signed()));
            Bound::Whole(part(1) * 1_000_000_000 + part(2))
        }
        _ => return None,
    })
}

/// Expressions of one's own, by their text.
fn expressions(prefix: &str, rules: &Options<'_>, found: &mut Constraints) {
    for rule in rules.messages(23) {
        let text = rule.text(3).unwrap_or_default();
        found.insert(format!("{prefix}cel {text:?}"), Constraint::Exact(Vec::new()));
    }
    for text in rules.texts(29) {
        found.insert(format!("{prefix}cel {text:?}"), Constraint::Exact(Vec::new()));
    }
}

/// Rules that are compared only for being the same: constants, patterns, formats.
fn rest(prefix: &str, rules: &Options<'_>, known: &BTreeSet<(u64, u64)>, found: &mut Constraints) {
    const KINDS: std::ops::RangeInclusive<u64> = 1..=22;
    /// Examples, which ask for nothing.
    const EXAMPLES: [(u64, u64); 2] = [(14, 34), (15, 14)];
    for (kind, value) in rules.fields().into_iter().filter(|(kind, _)| KINDS.contains(kind)) {
        let Value::Bytes(inner) = value else { continue };
        for (rule, value) in Options::of(inner).fields() {
            let is_off = value == Value::Varint(0);
            if known.contains(&(kind, rule)) || EXAMPLES.contains(&(kind, rule)) || is_off {
                continue;
            }
            let bytes = elements(value).into_iter().flatten().collect();
            found.insert(format!("{prefix}{}", name(kind, rule)), Constraint::Exact(bytes));
        }
    }
}

fn name(kind: u64, rule: u64) -> String {
    let known = match (kind, rule) {
        (14 | 15, 1) | (1..=13 | 16, 1) | (21 | 22, 2) => "const",
        (14, 6) | (15, 4) => "pattern",
        (14, 7) | (15, 5) => "prefix",
        (14, 8) | (15, 6) => "suffix",
        (14, 9) | (15, 7) => "contains",
        (14, 12) => "email",
        (14, 13) => "hostname",
        (14, 14) | (15, 10) => "ip",
        (14, 15) | (15, 11) => "ipv4",
        (14, 16) | (15, 12) => "ipv6",
        (14, 17) => "uri",
        (14, 18) => "uri_ref",
        (14, 19) | (15, 13) => "len",
        (14, 20) => "len_bytes",
        (14, 21) => "address",
        (14, 22) => "uuid",
        (14, 23) => "not_contains",
        (14, 33) => "tuuid",
        (16, 2) => "defined_only",
        (18, 3) => "unique",
        (22, 7) => "lt_now",
        (22, 8) => "gt_now",
        (22, 9) => "within",
        _ => return format!("rule {kind}.{rule}"),
    };
    known.to_owned()
}

/// What the values of a field must be.
fn of_field(schema: &Schema, field: &Field) -> Constraints {
    let mut found = Constraints::new();
    if let Some(rules) = schema.field_options(field).message_if_set(RULES) {
        // A field whose rules are never looked at has none.
        const IGNORE_ALWAYS: u64 = 3;
        if rules.number(27) != Some(IGNORE_ALWAYS) {
            constraints("", &rules, &mut found, 0);
        }
    }
    found
}

/// What a whole message must be.
fn of_message(schema: &Schema, message: &Message) -> Constraints {
    let mut found = Constraints::new();
    let rules = schema.message_options(message).message(RULES);
    for rule in rules.messages(3) {
        let text = rule.text(3).unwrap_or_default();
        found.insert(format!("cel {text:?}"), Constraint::Exact(Vec::new()));
    }
    for text in rules.texts(5) {
        found.insert(format!("cel {text:?}"), Constraint::Exact(Vec::new()));
    }
    for oneof in &message.oneofs {
        if schema.oneof_options(oneof).message(RULES).flag(1) == Some(true) {
            found.insert(format!("oneof {} required", oneof.name), Constraint::Exact(Vec::new()));
        }
    }
    found
}

/// The rules of `narrow` that refuse something that `wide` allows.
fn stricter(narrow: &Constraints, wide: &Constraints) -> Vec<String> {
    let is_new = |name: &str, constraint: &Constraint| !wide.get(name).is_some_and(|known| known.is_within(constraint));
    narrow.iter().filter(|(name, constraint)| is_new(name, constraint)).map(|(name, _)| name.clone()).collect()
}

fn show(names: &[String]) -> String {
    names.join(", ")
}

/// Rules that refuse what was valid to send.
pub(super) fn tightened(pair: &Pair<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for (old, new) in pair.messages().filter(|(_, new)| pair.new_reach().is_written_by_callers(new)) {
        for field in &new.fields {
            let now = of_field(pair.new, field);
            let names = match old.field(field.number) {
                Some(before) => stricter(&now, &of_field(pair.old, before)),
                // Who does not know a new field leaves it out.
                None => refuses_absence(field, &now),
            };
            if !names.is_empty() {
                let what = format!(
                    "Field {:?} of message {:?} is validated more strictly: {}.",
                    field.name(),
                    new.name(),
                    show(&names)
                );
                drafts.push(draft(
                    pair,
                    old,
                    field,
                    what,
                    &names,
                    "take the rule out, or refuse such values in a new version",
                ));
            }
        }
        let names = stricter(&of_message(pair.new, new), &of_message(pair.old, old));
        if !names.is_empty() {
            let what = format!("Message {:?} is validated more strictly: {}.", new.name(), show(&names));
            drafts.push(whole(
                pair,
                old,
                new,
                what,
                &names,
                "take the rule out, or refuse such messages in a new version",
            ));
        }
    }
    drafts
}

/// The rules that a field that is not sent breaks.
fn refuses_absence(field: &Field, rules: &Constraints) -> Vec<String> {
    let is_looked_at = field.oneof.is_none()
        && (field.label == crate::schema::Label::Repeated
            || (field.features.presence == Presence::Implicit && field.kind != Kind::Message));
    let zero = Bound::Whole(0);
    let refuses = |constraint: &Constraint| match constraint {
        Constraint::Lower { bound, is_open } => bound.is_above(zero) || (*is_open && *bound == zero),
        Constraint::In(allowed) => !allowed.iter().any(|value| value.iter().all(|byte| *byte == 0)),
        Constraint::Upper { .. } | Constraint::NotIn(_) | Constraint::Exact(_) => false,
    };
    let is_of_the_field = |name: &str| !["items.", "keys.", "values."].iter().any(|inner| name.starts_with(inner));
    let refused = rules.iter().filter(|(name, constraint)| {
        *name == "required" || (is_looked_at && is_of_the_field(name) && refuses(constraint))
    });
    refused.map(|(name, _)| name.clone()).collect()
}

/// Rules that readers could rely on and that do not hold any more.
pub(super) fn loosened(pair: &Pair<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for (old, new) in pair.messages().filter(|(old, _)| pair.old_reach().is_read_by_callers(old)) {
        for field in &new.fields {
            let Some(before) = old.field(field.number) else { continue };
            let names = stricter(&of_field(pair.old, before), &of_field(pair.new, field));
            if !names.is_empty() {
                let what = format!(
                    "Field {:?} of message {:?} is validated less strictly: {}.",
                    field.name(),
                    new.name(),
                    show(&names)
                );
                drafts.push(draft(
                    pair,
                    old,
                    field,
                    what,
                    &names,
                    "keep the rule, or answer such values in a new version",
                ));
            }
        }
        let names = stricter(&of_message(pair.old, old), &of_message(pair.new, new));
        if !names.is_empty() {
            let what = format!("Message {:?} is validated less strictly: {}.", new.name(), show(&names));
            drafts.push(whole(pair, old, new, what, &names, "keep the rule, or answer such messages in a new version"));
        }
    }
    drafts
}

fn draft(pair: &Pair<'_>, old: &Message, field: &Field, what: String, names: &[String], fix: &str) -> Draft {
    let path: Vec<i32> = field.path.iter().copied().chain([8, 1159]).collect();
    let near = pair.new.line_near(field.file, &path, path.len());
    Draft::new(&*field.full, what)
        .at(field.file, near.or_else(|| field_line(pair.new, field, &[])))
        .was_in(old.file)
        .changed("", show(names))
        .fix(fix)
}

fn whole(pair: &Pair<'_>, old: &Message, new: &Message, what: String, names: &[String], fix: &str) -> Draft {
    Draft::new(&*new.full, what)
        .at(new.file, message_line(pair.new, new))
        .was_in(old.file)
        .changed("", show(names))
        .fix(fix)
}
