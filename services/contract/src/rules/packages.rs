//! Rules about what is gone from a file or a package. Pure.

use std::collections::{BTreeMap, HashSet};

use super::draft::{Draft, Pair, message_line, next_version};
use crate::schema::{Message, Schema};

/// What can be gone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Enum,
    Extension,
    Message,
    Service,
}

impl Sort {
    fn as_str(self) -> &'static str {
        match self {
            Self::Enum => "enum",
            Self::Extension => "extension",
            Self::Message => "message",
            Self::Service => "service",
        }
    }
}

/// A thing of a schema: its full name, its name in its package, its file.
struct Thing<'a> {
    full: &'a str,
    nested: &'a str,
    file: usize,
}

fn things(schema: &Schema, sort: Sort) -> Vec<Thing<'_>> {
    match sort {
        Sort::Enum => {
            let enums = schema.enums().iter();
            enums.map(|one| Thing { full: &one.full, nested: one.nested(), file: one.file }).collect()
        }
        Sort::Extension => {
            let extensions = schema.extensions().iter();
            extensions.map(|one| Thing { full: &one.full, nested: one.nested(), file: one.file }).collect()
        }
        Sort::Message => {
            let messages = schema.messages().iter();
            messages.map(|one| Thing { full: &one.full, nested: one.nested(), file: one.file }).collect()
        }
        Sort::Service => {
            let services = schema.services().iter();
            services.map(|one| Thing { full: &one.full, nested: one.name(), file: one.file }).collect()
        }
    }
}

/// The innermost message that surrounded what is gone and is still there, among some.
fn around<'a>(nested: &str, mut known: impl FnMut(&str) -> Option<&'a Message>) -> Option<&'a Message> {
    let mut rest = nested;
    while let Some((outer, _)) = rest.rsplit_once('.') {
        if let Some(message) = known(outer) {
            return Some(message);
        }
        rest = outer;
    }
    None
}

fn full(package: &str, nested: &str) -> String {
    if package.is_empty() { nested.to_owned() } else { format!("{package}.{nested}") }
}

fn from_file(pair: &Pair<'_>, sort: Sort) -> Vec<Draft> {
    let new = pair.new;
    let kept: HashSet<(usize, &str)> = things(new, sort).iter().map(|thing| (thing.file, thing.nested)).collect();
    let mut drafts = Vec::new();
    for thing in things(pair.old, sort) {
        let old_file = pair.old.file_at(thing.file);
        let Some(file) = pair.new_file(&old_file.name) else { continue };
        if kept.contains(&(file, thing.nested)) {
            continue;
        }
        let package = &new.file_at(file).package;
        let message =
            around(thing.nested, |outer| new.message(&full(package, outer)).filter(|message| message.file == file));
        let line = message.filter(|_| sort != Sort::Service).and_then(|message| message_line(new, message));
        let name = sort.as_str();
        drafts.push(
            Draft::new(thing.full, format!("Previously present {name} {:?} was deleted from file.", thing.nested))
                .at(file, line)
                .was_in(thing.file)
                .changed(thing.full, "")
                .fix(format!("put the {name} {} back into {}", thing.nested, old_file.name)),
        );
    }
    drafts
}

fn from_package(pair: &Pair<'_>, sort: Sort) -> Vec<Draft> {
    let new = pair.new;
    let kept_things = things(new, sort);
    // After buf: of a package that has lost all of a sort, only the services are told.
    let packages: HashSet<&str> = match sort {
        Sort::Service => new.files().iter().map(|file| &*file.package).collect(),
        Sort::Enum | Sort::Extension | Sort::Message => {
            kept_things.iter().map(|thing| &*new.file_at(thing.file).package).collect()
        }
    };
    let kept: HashSet<&str> = kept_things.iter().map(|thing| thing.full).collect();
    let mut drafts = Vec::new();
    for thing in things(pair.old, sort) {
        let old_file = pair.old.file_at(thing.file);
        let package = &*old_file.package;
        if !packages.contains(package) || kept.contains(thing.full) {
            continue;
        }
        let name = sort.as_str();
        let message = format!("Previously present {name} {:?} was deleted from package {package:?}.", thing.nested);
        let draft = Draft::new(thing.full, message).was_in(thing.file).changed(thing.full, "").fix(format!(
            "put the {name} {} back and mark it deprecated, or leave it out of {} instead",
            thing.nested,
            next_version(package)
        ));
        drafts.push(match pair.new_file(&old_file.name) {
            Some(file) => point(pair, draft, sort, &thing, file),
            None => draft,
        });
    }
    drafts
}

/// Points at what surrounded the thing, or at the file that it was in.
fn point(pair: &Pair<'_>, draft: Draft, sort: Sort, thing: &Thing<'_>, file: usize) -> Draft {
    let new = pair.new;
    let package = &pair.old.file_at(thing.file).package;
    let found = match sort {
        Sort::Service => None,
        // A message is looked for in the whole package, what is in a message only in its file.
        Sort::Message => around(thing.nested, |outer| new.message(&full(package, outer))),
        Sort::Enum | Sort::Extension => around(thing.nested, |outer| {
            new.message(&full(&new.file_at(file).package, outer)).filter(|message| message.file == file)
        }),
    };
    match found.and_then(|message| Some((message.file, message_line(new, message)?))) {
        Some((file, line)) => draft.at(file, Some(line)),
        None => draft.at(file, None),
    }
}

pub(super) fn enum_from_file(pair: &Pair<'_>) -> Vec<Draft> {
    from_file(pair, Sort::Enum)
}

pub(super) fn extension_from_file(pair: &Pair<'_>) -> Vec<Draft> {
    from_file(pair, Sort::Extension)
}

pub(super) fn message_from_file(pair: &Pair<'_>) -> Vec<Draft> {
    from_file(pair, Sort::Message)
}

pub(super) fn service_from_file(pair: &Pair<'_>) -> Vec<Draft> {
    from_file(pair, Sort::Service)
}

pub(super) fn enum_from_package(pair: &Pair<'_>) -> Vec<Draft> {
    from_package(pair, Sort::Enum)
}

pub(super) fn extension_from_package(pair: &Pair<'_>) -> Vec<Draft> {
    from_package(pair, Sort::Extension)
}

pub(super) fn message_from_package(pair: &Pair<'_>) -> Vec<Draft> {
    from_package(pair, Sort::Message)
}

pub(super) fn service_from_package(pair: &Pair<'_>) -> Vec<Draft> {
    from_package(pair, Sort::Service)
}

/// Packages that are gone.
pub(super) fn deleted(pair: &Pair<'_>) -> Vec<Draft> {
    let kept: HashSet<&str> = pair.new.files().iter().map(|file| &*file.package).collect();
    let mut gone: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, file) in pair.old.files().iter().enumerate() {
        if !kept.contains(&*file.package) {
            let first = gone.entry(&file.package).or_insert(index);
            if file.name < pair.old.file_at(*first).name {
                *first = index;
            }
        }
    }
    let drafts = gone.into_iter().map(|(package, file)| {
        Draft::new(package, format!("Previously present package {package:?} was deleted."))
            .was_in(file)
            .changed(package, "")
            .fix(format!("keep serving {package} beside {} until nobody calls it", next_version(package)))
    });
    drafts.collect()
}
