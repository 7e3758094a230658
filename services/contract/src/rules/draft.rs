//! Two schemas side by side, and findings in the making. Pure.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};

use super::reach::Reach;
use crate::schema::{Enum, Field, File, Message, Method, Schema, Service};

/// A finding that does not know its rule yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    pub(super) element: String,
    /// File of the new schema that it points at.
    pub(super) new_file: Option<usize>,
    pub(super) line: Option<u32>,
    /// File of the old schema that it is about.
    pub(super) old_file: Option<usize>,
    pub(super) old: String,
    pub(super) new: String,
    pub(super) message: String,
    pub(super) fix: String,
}

impl Draft {
    pub(super) fn new(element: impl Into<String>, message: impl Into<String>) -> Self {
        Self { element: element.into(), message: message.into(), ..Self::default() }
    }

    /// Points at a line of a file of the new schema.
    pub(super) fn at(mut self, file: usize, line: Option<u32>) -> Self {
        (self.new_file, self.line) = (Some(file), line);
        self
    }

    /// Says which file of the old schema it is about.
    pub(super) fn was_in(mut self, file: usize) -> Self {
        self.old_file = Some(file);
        self
    }

    pub(super) fn changed(mut self, old: impl Into<String>, new: impl Into<String>) -> Self {
        (self.old, self.new) = (old.into(), new.into());
        self
    }

    pub(super) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = fix.into();
        self
    }
}

/// Two schemas side by side.
pub(super) struct Pair<'a> {
    pub(super) old: &'a Schema,
    pub(super) new: &'a Schema,
    new_files: HashMap<&'a str, usize>,
    new_extensions: HashMap<(&'a str, i32), usize>,
    fields: OnceCell<Vec<(&'a Field, &'a Field)>>,
    old_reach: OnceCell<Reach<'a>>,
    new_reach: OnceCell<Reach<'a>>,
}

impl<'a> Pair<'a> {
    pub(super) fn new(old: &'a Schema, new: &'a Schema) -> Self {
        let files = new.files().iter().enumerate();
        let extensions = new.extensions().iter().enumerate();
        Self {
            old,
            new,
            new_files: files.map(|(index, file)| (&*file.name, index)).collect(),
            new_extensions: extensions.map(|(index, one)| ((&*one.extendee, one.number), index)).collect(),
            fields: OnceCell::new(),
            old_reach: OnceCell::new(),
            new_reach: OnceCell::new(),
        }
    }

    /// Which messages of the old schema are asked with and answered with.
    pub(super) fn old_reach(&self) -> &Reach<'a> {
        self.old_reach.get_or_init(|| Reach::new(self.old))
    }

    /// Which messages of the new schema are asked with and answered with.
    pub(super) fn new_reach(&self) -> &Reach<'a> {
        self.new_reach.get_or_init(|| Reach::new(self.new))
    }

    /// Place of a file in the new schema.
    pub(super) fn new_file(&self, name: &str) -> Option<usize> {
        self.new_files.get(name).copied()
    }

    /// Files that are in both schemas, with their places.
    pub(super) fn files(&self) -> impl Iterator<Item = (usize, &'a File, usize, &'a File)> {
        let both = self.old.files().iter().enumerate();
        both.filter_map(|(old_index, old)| {
            let new_index = self.new_file(&old.name)?;
            Some((old_index, old, new_index, self.new.file_at(new_index)))
        })
    }

    /// Messages that are in both.
    pub(super) fn messages(&self) -> impl Iterator<Item = (&'a Message, &'a Message)> {
        self.old.messages().iter().filter_map(|old| Some((old, self.new.message(&old.full)?)))
    }

    /// Enums that are in both.
    pub(super) fn enums(&self) -> impl Iterator<Item = (&'a Enum, &'a Enum)> {
        self.old.enums().iter().filter_map(|old| Some((old, self.new.enumeration(&old.full)?)))
    }

    /// Services that are in both.
    pub(super) fn services(&self) -> impl Iterator<Item = (&'a Service, &'a Service)> {
        self.old.services().iter().filter_map(|old| Some((old, self.new.service(&old.full)?)))
    }

    /// Methods that are in both, with their services.
    pub(super) fn methods(&self) -> impl Iterator<Item = (&'a Service, &'a Method, &'a Service, &'a Method)> {
        self.services().flat_map(|(old, new)| {
            old.methods.iter().filter_map(move |method| Some((old, method, new, new.method(&method.name)?)))
        })
    }

    /// Fields with the same number in the same message, and extensions with the same number of the same message.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&'a Field, &'a Field)> {
        self.fields.get_or_init(|| self.find_fields()).iter().copied()
    }

    fn find_fields(&self) -> Vec<(&'a Field, &'a Field)> {
        let mut both = Vec::new();
        for (old, new) in self.messages() {
            let by_number: BTreeMap<i32, &Field> = new.fields.iter().map(|field| (field.number, field)).collect();
            both.extend(old.fields.iter().filter_map(|field| Some((field, *by_number.get(&field.number)?))));
        }
        for old in self.old.extensions() {
            if let Some(index) = self.new_extensions.get(&(&*old.extendee, old.number)) {
                both.push((old, &self.new.extensions()[*index]));
            }
        }
        both
    }
}

/// The line of a path that goes on from a part's.
pub(super) fn line(schema: &Schema, file: usize, path: &[i32], more: &[i32]) -> Option<u32> {
    if more.is_empty() {
        return schema.line(file, path);
    }
    let path: Vec<i32> = path.iter().chain(more).copied().collect();
    schema.line(file, &path)
}

/// The line of a message; that of the map for the entry that the compiler made of it.
pub(super) fn message_line(schema: &Schema, message: &Message) -> Option<u32> {
    schema.line(message.file, &message.path).or_else(|| entry_line(schema, message))
}

fn entry_line(schema: &Schema, entry: &Message) -> Option<u32> {
    if !entry.is_map_entry || !schema.has_places(entry.file) {
        return None;
    }
    let parent = &schema.messages()[entry.parent?];
    let map = parent.fields.iter().find(|field| field.is_map && field.type_name == entry.full)?;
    line(schema, map.file, &map.path, &[6])
}

/// The line of a part of a field, such as its name; that of the map for fields of an entry.
pub(super) fn field_line(schema: &Schema, field: &Field, more: &[i32]) -> Option<u32> {
    line(schema, field.file, &field.path, more).or_else(|| {
        let parent = &schema.messages()[field.parent.filter(|_| !field.is_extension())?];
        entry_line(schema, parent)
    })
}

/// The line of an option of a field, or of the field.
pub(super) fn option_line(schema: &Schema, field: &Field, more: &[i32]) -> Option<u32> {
    line(schema, field.file, &field.path, more).or_else(|| field_line(schema, field, &[]))
}

/// The line of a feature, or of what sets it together with others. `more` leads from a part to its options, to the
/// features in them, and on to the one that is meant.
pub(super) fn feature_line(schema: &Schema, file: usize, path: &[i32], more: &[i32]) -> Option<u32> {
    let least = path.len() + 2;
    let path: Vec<i32> = path.iter().chain(more).copied().collect();
    schema.line_near(file, &path, least)
}

/// How findings speak of a field: `field "2" with name "two" on message "Two"`.
pub(super) fn describe(schema: &Schema, field: &Field) -> String {
    let (kind, owner) = owner(schema, field);
    let name = if field.is_extension() { &field.full } else { field.name() };
    format!("{kind} \"{}\" with name {name:?} on message {owner:?}", field.number)
}

/// The same without its name.
pub(super) fn describe_number(schema: &Schema, field: &Field) -> String {
    let (kind, owner) = owner(schema, field);
    format!("{kind} \"{}\" on message {owner:?}", field.number)
}

fn owner<'a>(schema: &'a Schema, field: &'a Field) -> (&'static str, &'a str) {
    if field.is_extension() {
        return ("Extension", &field.extendee);
    }
    ("Field", field.parent.map_or("", |parent| schema.messages()[parent].name()))
}

/// The package that follows one by a version: `catalog.v1` is followed by `catalog.v2`.
pub(super) fn next_version(package: &str) -> String {
    let (head, last) = package.rsplit_once('.').map_or(("", package), |(head, last)| (head, last));
    let digits: String = last.strip_prefix('v').unwrap_or("").chars().take_while(char::is_ascii_digit).collect();
    let next = match digits.parse::<u64>() {
        Ok(version) => format!("v{}", version.saturating_add(1)),
        Err(_) => format!("{last}.v2"),
    };
    if head.is_empty() { next } else { format!("{head}.{next}") }
}
