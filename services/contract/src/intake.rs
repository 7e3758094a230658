//! Looks at a descriptor set from a stranger before anything else does. Pure.
//!
//! Reads the wire itself, within bounds, so that no input costs more than a few times its size, or makes a library panic
//! later: reflection libraries trust indices, names and imports that are checked here. What the set means is not judged.

mod link;
mod scan;

use std::fmt;

use prost::Message as _;

use crate::model::Promise;

/// How much a descriptor set may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most files.
    pub files_max: usize,
    /// Most parts: files, fields, options, locations in the source and so on. A decoder makes each of them up to a hundred
    /// times as large as it is on the wire.
    pub parts_max: usize,
    /// Most names that are defined.
    pub names_max: usize,
    /// Most services; their names are kept in the description of a contract.
    pub services_max: usize,
    /// Deepest nesting of messages in messages.
    pub depth_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { files_max: 2000, parts_max: 500_000, names_max: 200_000, services_max: 500, depth_max: 32 }
    }
}

/// Longest full name, and longest name of a file, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 255;

/// What is wrong with a descriptor set, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// File and place in it, such as `shop/product.proto: shop.v1.Product.price`.
    pub place: String,
    /// What is wrong, as a sentence fragment.
    pub what: String,
}

impl Flaw {
    fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.place, self.what)
    }
}

/// Checks a serialized `google.protobuf.FileDescriptorSet` and tells what it promises.
///
/// Files of proto2, proto3 and of editions are taken. All imports must be in the set, all names must be resolved, as
/// compilers do it. Time and memory are linear in the size of the input.
///
/// # Errors
/// The first flaw that is found.
pub(crate) fn look(bytes: &[u8]) -> Result<Promise, Flaw> {
    look_within(bytes, &Limits::default())
}

/// Checks a set against limits of one's own.
///
/// # Errors
/// The first flaw that is found.
pub(crate) fn look_within(bytes: &[u8], limits: &Limits) -> Result<Promise, Flaw> {
    let files = scan::files(bytes, limits)?;
    link::check(&files)?;
    // What was counted above bounds what this costs. It finds what is not looked at there, such as broken options.
    prost_types::FileDescriptorSet::decode(bytes)
        .map_err(|error| Flaw::new("the set", format!("cannot be decoded: {error}")))?;
    Ok(promise(&files))
}

fn promise(files: &[scan::File<'_>]) -> Promise {
    let mut services: Vec<String> = files.iter().flat_map(|file| file.services.iter().cloned()).collect();
    let with_services = files.iter().filter(|file| !file.services.is_empty());
    let mut packages: Vec<String> = with_services.map(|file| file.package.to_owned()).collect();
    services.sort();
    packages.sort();
    packages.dedup();
    packages.retain(|package| !package.is_empty());
    let newest = files.iter().map(|file| file.syntax).max();
    let edition = newest.map(|syntax| syntax.to_string()).unwrap_or_default();
    Promise { packages, protobuf_services: services, edition }
}

#[cfg(test)]
mod tests;
