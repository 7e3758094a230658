//! How names are written so that they are found again. Pure.

use crate::schema::Schema;

/// Largest number of a field.
pub(super) const FIELD_NUMBER_MAX: i32 = 536_870_911;

/// A place in a file, from which names are looked up.
pub(super) struct Scope<'a> {
    schema: &'a Schema,
    full: String,
}

impl<'a> Scope<'a> {
    pub(super) fn new(schema: &'a Schema, full: &str) -> Self {
        Self { schema, full: full.to_owned() }
    }

    /// A name as it can be written here: without the part that is shared with this place, unless that would be read as
    /// something else, and with a leading dot if anything shorter would be.
    pub(super) fn reference(&self, full: &str) -> String {
        let shared = self.scopes().find_map(|scope| full.strip_prefix(scope)?.strip_prefix('.'));
        [shared, Some(full)]
            .into_iter()
            .flatten()
            .find(|short| self.resolves(short, full))
            .map_or_else(|| format!(".{full}"), str::to_owned)
    }

    /// This place and those around it, the innermost first.
    fn scopes(&self) -> impl Iterator<Item = &str> {
        std::iter::successors(Some(self.full.as_str()).filter(|full| !full.is_empty()), |scope| {
            scope.rsplit_once('.').map(|(outer, _)| outer)
        })
    }

    /// Whether a compiler, which settles the first part of a name in the innermost place that knows it, reads `short` as
    /// `full`.
    fn resolves(&self, short: &str, full: &str) -> bool {
        let first = short.split('.').next().unwrap_or_default();
        for scope in self.scopes() {
            if self.is_known(&format!("{scope}.{first}")) {
                return format!("{scope}.{short}") == full;
            }
        }
        short == full
    }

    /// Whether something is called so: a package, a message or enum, or anything else that has a name.
    fn is_known(&self, name: &str) -> bool {
        let schema = self.schema;
        let is_package = |package: &str| crate::names::is_in(package, name);
        schema.message(name).is_some()
            || schema.enumeration(name).is_some()
            || schema.service(name).is_some()
            || schema.extension(name).is_some()
            || self.is_member(name)
            || schema.files().iter().any(|file| is_package(&file.package))
    }

    /// Whether it is a field, a oneof, a method, or a value of an enum.
    fn is_member(&self, name: &str) -> bool {
        let Some((owner, last)) = name.rsplit_once('.') else { return false };
        let schema = self.schema;
        schema.message(owner).is_some_and(|one| {
            one.fields.iter().any(|field| field.name() == last) || one.oneofs.iter().any(|oneof| &*oneof.name == last)
        }) || schema.service(owner).is_some_and(|service| service.method(last).is_some())
    }
}

/// The name in JSON that a field has unless it is told another.
pub(crate) fn json_name(name: &str) -> String {
    let mut json = String::with_capacity(name.len());
    let mut is_after_line = false;
    for letter in name.chars() {
        if letter == '_' {
            is_after_line = true;
        } else if std::mem::take(&mut is_after_line) {
            json.push(letter.to_ascii_uppercase());
        } else {
            json.push(letter);
        }
    }
    json
}
