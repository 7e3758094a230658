//! Rules about behaviour, deprecation and type URLs. Pure.

use std::collections::HashSet;

use super::draft::{Draft, Pair, option_line};
use crate::schema::{Field, Label, Message, Method, Schema, Service};

/// The number of the extension `google.api.field_behavior`.
const FIELD_BEHAVIOR: u64 = 1052;
/// The number of its value `REQUIRED`.
const REQUIRED: u64 = 2;
/// Options of methods and services that say that they are deprecated.
const DEPRECATED: u64 = 33;

/// By its behaviour, or by a feature of an edition, which `MESSAGE_SAME_REQUIRED_FIELDS` does not see.
fn is_required(schema: &Schema, field: &Field) -> bool {
    let by_feature = field.label == Label::Required && field.written_label != Label::Required;
    by_feature || schema.field_options(field).numbers(FIELD_BEHAVIOR).contains(&REQUIRED)
}

/// Fields of requests that have become required by `google.api.field_behavior`.
pub(super) fn no_new_required(pair: &Pair<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for (old, new) in pair.messages().filter(|(_, new)| pair.new_reach().is_written_by_callers(new)) {
        for field in new.fields.iter().filter(|field| is_required(pair.new, field)) {
            let before = old.field(field.number);
            if before.is_some_and(|before| is_required(pair.old, before)) {
                continue;
            }
            let how = if before.is_some() { "became" } else { "is new and" };
            let message =
                format!("Field {:?} of message {:?} {how} required by its field behavior.", field.name(), new.name());
            drafts.push(
                Draft::new(&*field.full, message)
                    .at(field.file, option_line(pair.new, field, &[8, 1052]))
                    .was_in(old.file)
                    .changed(if before.is_some() { "optional" } else { "" }, "REQUIRED")
                    .fix(format!("take REQUIRED from {}, and say what its absence means", field.name())),
            );
        }
    }
    drafts
}

fn is_deprecated(schema: &Schema, service: &Service, method: &Method) -> bool {
    schema.method_options(method).flag(DEPRECATED) == Some(true)
        || schema.service_options(service).flag(DEPRECATED) == Some(true)
}

/// Methods that are gone and were never deprecated.
pub(super) fn deprecated_before_delete(pair: &Pair<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for old in pair.old.services() {
        let new = pair.new.service(&old.full);
        for method in &old.methods {
            let is_kept = new.is_some_and(|new| new.method(&method.name).is_some());
            if is_kept || is_deprecated(pair.old, old, method) {
                continue;
            }
            let message = format!(
                "RPC {:?} on service {:?} was deleted without having been deprecated.",
                method.name,
                old.name()
            );
            let draft = Draft::new(format!("{}.{}", old.full, method.name), message)
                .was_in(old.file)
                .changed(&*method.name, "")
                .fix(format!(
                    "put {} back with `option deprecated = true`, and delete it once nobody calls it",
                    method.name
                ));
            drafts.push(match new {
                Some(new) => draft.at(new.file, pair.new.line(new.file, &new.path)),
                None => match pair.new_file(&pair.old.file_at(old.file).name) {
                    Some(file) => draft.at(file, None),
                    None => draft,
                },
            });
        }
    }
    drafts
}

/// Messages that are gone though something knows them by their type URL: an `Any`, a topic, a store.
pub(super) fn type_url_no_delete(pair: &Pair<'_>) -> Vec<Draft> {
    let listed = listed(pair.old);
    let mut drafts = Vec::new();
    for old in pair.old.messages().iter().filter(|old| !old.is_map_entry && pair.new.message(&old.full).is_none()) {
        // Who is not part of any call is known by its name alone.
        let is_free = old.parent.is_none() && !pair.old_reach().is_of_a_call(old) && !is_extended(pair.old, old);
        if !is_free && !listed.contains(&*old.full) {
            continue;
        }
        let url = format!("type.googleapis.com/{}", old.full);
        let message = format!("Message {:?} was deleted, and with it the type URL {url:?}.", old.nested());
        let draft = Draft::new(&*old.full, message)
            .was_in(old.file)
            .changed(url, "")
            .fix(format!("put {} back and mark it deprecated", old.nested()));
        drafts.push(match pair.new_file(&pair.old.file_at(old.file).name) {
            Some(file) => draft.at(file, None),
            None => draft,
        });
    }
    drafts
}

/// Whether a message is the type of an option: those are never sent.
fn is_extended(schema: &Schema, message: &Message) -> bool {
    schema.extensions().iter().any(|extension| extension.type_name == message.full)
}

/// Messages whose type URLs the validation of an `Any` lists.
fn listed(schema: &Schema) -> HashSet<&str> {
    let mut listed = HashSet::new();
    for field in schema.messages().iter().flat_map(|message| &message.fields) {
        let any = schema.field_options(field).message(super::validate::RULES).message(super::validate::ANY);
        let urls = any.texts(2).into_iter();
        listed.extend(urls.filter_map(|url| schema.message(url.rsplit('/').next()?)).map(|message| &*message.full));
    }
    listed
}
