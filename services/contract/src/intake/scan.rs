//! Reads from a descriptor set what has to be checked: files, imports, names, and what refers to what. Pure.

use std::collections::HashSet;
use std::fmt;
use std::rc::Rc;

use super::{Flaw, Limits, NAME_BYTES_MAX};
use crate::read::{Reader, Value};

/// Syntax or edition of a file; later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Syntax {
    Proto2,
    Proto3,
    /// The number that `google.protobuf.Edition` gives it.
    Edition(u64),
}

impl fmt::Display for Syntax {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proto2 => formatter.write_str("proto2"),
            Self::Proto3 => formatter.write_str("proto3"),
            Self::Edition(1000) => formatter.write_str("2023"),
            Self::Edition(1001) => formatter.write_str("2024"),
            Self::Edition(number) => write!(formatter, "edition {number}"),
        }
    }
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Noun {
    Message,
    Enum,
    /// A service, a method, an extension, or a value of an enum: nothing refers to these.
    Other,
}

/// A name that a file defines.
#[derive(Debug)]
pub(super) struct Name {
    pub(super) full: String,
    pub(super) noun: Noun,
}

/// A place that refers to a name.
#[derive(Debug)]
pub(super) struct Reference<'a> {
    /// What the referring part belongs to.
    pub(super) owner: Rc<str>,
    /// The referring part.
    pub(super) part: &'a str,
    /// The name, with its leading dot.
    pub(super) target: &'a str,
    /// What it has to stand for; `None` where a message or an enum is right.
    pub(super) wanted: Option<Noun>,
}

/// A file.
#[derive(Debug)]
pub(super) struct File<'a> {
    pub(super) name: &'a str,
    pub(super) package: &'a str,
    pub(super) syntax: Syntax,
    pub(super) imports: Vec<&'a str>,
    pub(super) names: Vec<Name>,
    pub(super) references: Vec<Reference<'a>>,
    /// Full names of its services.
    pub(super) services: Vec<String>,
}

/// Reads all files.
pub(super) fn files<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Vec<File<'a>>, Flaw> {
    let (parts, names, services) = (limits.parts_max, limits.names_max, limits.services_max);
    let mut budget = Budget { limits: *limits, parts, names, services };
    let mut files = Vec::new();
    for field in fields("the set", bytes) {
        if let (1, Value::Bytes(bytes)) = field? {
            if files.len() == limits.files_max {
                return Err(Flaw::new("the set", format!("has more than {} files", limits.files_max)));
            }
            let file = head(files.len(), bytes)?;
            files.push(Scan { file, budget: &mut budget }.body(bytes)?);
        }
    }
    if files.is_empty() {
        return Err(Flaw::new("the set", "has no file"));
    }
    Ok(files)
}

/// What a set may still have.
struct Budget {
    limits: Limits,
    parts: usize,
    names: usize,
    services: usize,
}

fn fields<'a>(place: &str, bytes: &'a [u8]) -> impl Iterator<Item = Result<(u64, Value<'a>), Flaw>> {
    let mut reader = Reader::new(bytes);
    std::iter::from_fn(move || reader.next().transpose().map(|field| field.map_err(|what| Flaw::new(place, what))))
}

fn text<'a>(place: &str, bytes: &'a [u8]) -> Result<&'a str, Flaw> {
    let text = std::str::from_utf8(bytes).map_err(|_| Flaw::new(place, "has a text that is not UTF-8"))?;
    if text.len() > NAME_BYTES_MAX {
        return Err(Flaw::new(place, format!("has a name of {} bytes, at most {NAME_BYTES_MAX}", text.len())));
    }
    Ok(text)
}

/// Reads what a file says of itself, so that what is in it can be named, in whatever order it comes.
fn head(index: usize, bytes: &[u8]) -> Result<File<'_>, Flaw> {
    let place = format!("file {index}");
    let (mut name, mut package, mut syntax, mut edition) = ("", "", "", None);
    let (mut imports, mut indices) = (Vec::new(), Vec::new());
    for field in fields(&place, bytes) {
        match field? {
            (1, Value::Bytes(bytes)) => name = text(&place, bytes)?,
            (2, Value::Bytes(bytes)) => package = text(&place, bytes)?,
            (3, Value::Bytes(bytes)) => imports.push(text(&place, bytes)?),
            (10 | 11, Value::Varint(index)) => indices.push(index),
            (10 | 11, Value::Bytes(packed)) => {
                let mut reader = Reader::new(packed);
                while !reader.is_empty() {
                    indices.push(reader.varint().map_err(|what| Flaw::new(place.as_str(), what))?);
                }
            }
            (12, Value::Bytes(bytes)) => syntax = text(&place, bytes)?,
            (14, Value::Varint(number)) => edition = Some(number),
            _ => {}
        }
    }
    // From here on the file has a name to tell.
    let is_path = !name.is_empty() && !name.chars().any(char::is_control);
    if !is_path {
        return Err(Flaw::new(place, "has no name that a file can have"));
    }
    if !package.is_empty() && !package.split('.').all(is_identifier) {
        return Err(Flaw::new(name, format!("has the package {package:?}, which is no name")));
    }
    if indices.iter().any(|index| usize::try_from(*index).map_or(true, |index| index >= imports.len())) {
        return Err(Flaw::new(name, "calls an import public or weak that it does not have"));
    }
    let syntax = match (syntax, edition) {
        ("" | "proto2", None) => Syntax::Proto2,
        ("proto3", None) => Syntax::Proto3,
        // All that are or will be editions for use; others are for tests, or stand for proto2 and proto3.
        ("editions", Some(number @ 1000..=9998)) => Syntax::Edition(number),
        ("editions", Some(number)) => return Err(Flaw::new(name, format!("is of edition {number}, which is none"))),
        ("editions", None) => return Err(Flaw::new(name, "is of no edition, though its syntax is editions")),
        (_, Some(_)) => return Err(Flaw::new(name, format!("has an edition, though its syntax is {syntax:?}"))),
        (_, None) => return Err(Flaw::new(name, format!("has the syntax {syntax:?}, which is none"))),
    };
    let (names, references, services) = (Vec::new(), Vec::new(), Vec::new());
    Ok(File { name, package, syntax, imports, names, references, services })
}

fn is_identifier(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

/// Reads what is in a file.
struct Scan<'a, 'b> {
    file: File<'a>,
    budget: &'b mut Budget,
}

impl<'a> Scan<'a, '_> {
    fn body(mut self, bytes: &'a [u8]) -> Result<File<'a>, Flaw> {
        let scope = self.file.package;
        for field in fields(self.file.name, bytes) {
            let (number, value) = field?;
            self.spend()?;
            match (number, value) {
                (4, Value::Bytes(bytes)) => self.message(scope, bytes, 1)?,
                (5, Value::Bytes(bytes)) => self.enumeration(scope, bytes)?,
                (6, Value::Bytes(bytes)) => self.service(scope, bytes)?,
                (7, Value::Bytes(bytes)) => self.extension(scope, bytes)?,
                (8, Value::Bytes(bytes)) => self.options(bytes, 0)?,
                (9, Value::Bytes(bytes)) => self.locations(bytes)?,
                _ => {}
            }
        }
        Ok(self.file)
    }

    fn flaw(&self, part: &str, what: impl Into<String>) -> Flaw {
        let file = self.file.name;
        Flaw::new(if part.is_empty() { file.to_owned() } else { format!("{file}: {part}") }, what)
    }

    fn spend(&mut self) -> Result<(), Flaw> {
        match self.budget.parts.checked_sub(1) {
            Some(left) => self.budget.parts = left,
            None => return Err(self.flaw("", format!("brings the set over {} parts", self.budget.limits.parts_max))),
        }
        Ok(())
    }

    /// The fields of a part; each counts.
    fn parts(&mut self, part: &str, bytes: &'a [u8]) -> Result<Vec<(u64, Value<'a>)>, Flaw> {
        let mut parts = Vec::new();
        let mut reader = Reader::new(bytes);
        while let Some(field) = reader.next().map_err(|what| self.flaw(part, what))? {
            self.spend()?;
            parts.push(field);
        }
        Ok(parts)
    }

    /// The text of the last field of a number, as decoders take it.
    fn named(&self, owner: &str, parts: &[(u64, Value<'a>)], number: u64) -> Result<&'a str, Flaw> {
        let mut found = "";
        for part in parts {
            if let (field, Value::Bytes(bytes)) = part
                && *field == number
            {
                found = text(&self.flaw(owner, "").place, bytes)?;
            }
        }
        Ok(found)
    }

    fn define(&mut self, scope: &str, name: &str, noun: Noun) -> Result<String, Flaw> {
        if !is_identifier(name) {
            return Err(self.flaw(scope, format!("defines {name:?}, which is no name")));
        }
        let full = if scope.is_empty() { name.to_owned() } else { format!("{scope}.{name}") };
        if full.len() > NAME_BYTES_MAX {
            return Err(self.flaw(scope, format!("defines a name of {} bytes, at most {NAME_BYTES_MAX}", full.len())));
        }
        match self.budget.names.checked_sub(1) {
            Some(left) => self.budget.names = left,
            None => return Err(self.flaw("", format!("brings the set over {} names", self.budget.limits.names_max))),
        }
        self.file.names.push(Name { full: full.clone(), noun });
        Ok(full)
    }

    fn message(&mut self, scope: &str, bytes: &'a [u8], depth: usize) -> Result<(), Flaw> {
        let deepest = self.budget.limits.depth_max;
        if depth > deepest {
            return Err(self.flaw(scope, format!("has messages nested more than {deepest} deep")));
        }
        let parts = self.parts(scope, bytes)?;
        let name = self.named(scope, &parts, 1)?;
        let full = self.define(scope, name, Noun::Message)?;
        let owner: Rc<str> = full.as_str().into();
        let oneofs = parts.iter().filter(|(number, _)| *number == 8).count();
        let mut taken = Members::default();
        for (number, value) in parts {
            let Value::Bytes(bytes) = value else { continue };
            match number {
                2 => self.field(&owner, bytes, oneofs, Some(&mut taken))?,
                3 => self.message(&full, bytes, depth + 1)?,
                4 => self.enumeration(&full, bytes)?,
                5 | 9 => self.range(&full, bytes)?,
                6 => self.extension(&full, bytes)?,
                7 => self.options(bytes, 0)?,
                8 => {
                    let parts = self.parts(&full, bytes)?;
                    let name = self.named(&full, &parts, 1)?;
                    self.member(&full, name, &mut taken)?;
                    self.options_in(&parts, 2)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn member(&self, owner: &str, name: &'a str, taken: &mut Members<'a>) -> Result<(), Flaw> {
        if !is_identifier(name) {
            return Err(self.flaw(owner, format!("has the member {name:?}, which is no name")));
        }
        if !taken.names.insert(name) {
            return Err(self.flaw(owner, format!("has two members named {name}")));
        }
        Ok(())
    }

    fn field(
        &mut self,
        owner: &Rc<str>,
        bytes: &'a [u8],
        oneofs: usize,
        taken: Option<&mut Members<'a>>,
    ) -> Result<(), Flaw> {
        let parts = self.parts(owner, bytes)?;
        let name = self.named(owner, &parts, 1)?;
        let number = last_number(&parts, 3).unwrap_or(0);
        let part = || format!("{owner}.{name}");
        // 19000 to 19999 belong to the implementations.
        // Extensions of a message set go beyond what other fields can have.
        let beyond = if taken.is_some() { 1 << 29 } else { i64::from(i32::MAX) };
        if !(1..beyond).contains(&number) || (19_000..20_000).contains(&number) {
            return Err(self.flaw(&part(), format!("has the number {number}, which no field can have")));
        }
        if let Some(taken) = taken {
            self.member(owner, name, taken)?;
            if !taken.numbers.insert(number) {
                return Err(self.flaw(&part(), format!("has the number {number} of another field")));
            }
        }
        if let Some(index) = last_number(&parts, 9)
            && usize::try_from(index).map_or(true, |index| index >= oneofs)
        {
            return Err(self.flaw(&part(), format!("is in the oneof {index}, which is not there")));
        }
        let kind = last_number(&parts, 5);
        let label = last_number(&parts, 4);
        if kind.is_some_and(|kind| !(1..=18).contains(&kind)) || label.is_some_and(|label| !(1..=3).contains(&label)) {
            return Err(self.flaw(&part(), "has a type or a label that does not exist"));
        }
        let target = self.named(owner, &parts, 6)?;
        let wanted = match kind {
            Some(10 | 11) => Some(Noun::Message),
            Some(14) => Some(Noun::Enum),
            _ => None,
        };
        match (target.is_empty(), kind) {
            (false, Some(10 | 11 | 14) | None) => {
                self.file.references.push(Reference { owner: owner.clone(), part: name, target, wanted });
            }
            (false, Some(_)) => return Err(self.flaw(&part(), format!("names the type {target} but is of another"))),
            (true, Some(10 | 11 | 14) | None) => return Err(self.flaw(&part(), "has no type")),
            (true, Some(_)) => {}
        }
        self.options_in(&parts, 8)
    }

    fn extension(&mut self, scope: &str, bytes: &'a [u8]) -> Result<(), Flaw> {
        let parts = self.parts(scope, bytes)?;
        let name = self.named(scope, &parts, 1)?;
        let owner: Rc<str> = scope.into();
        self.define(scope, name, Noun::Other)?;
        let target = self.named(scope, &parts, 2)?;
        if target.is_empty() {
            return Err(self.flaw(scope, format!("has the extension {name}, which extends nothing")));
        }
        let wanted = Some(Noun::Message);
        self.file.references.push(Reference { owner: owner.clone(), part: name, target, wanted });
        self.field(&owner, bytes, 0, None)
    }

    fn range(&mut self, owner: &str, bytes: &'a [u8]) -> Result<(), Flaw> {
        let parts = self.parts(owner, bytes)?;
        let (start, end) = (last_number(&parts, 1).unwrap_or(0), last_number(&parts, 2).unwrap_or(0));
        if !(1..end).contains(&start) || end > i64::from(i32::MAX) {
            return Err(self.flaw(owner, format!("has the range {start} to {end}, which is none")));
        }
        self.options_in(&parts, 3)
    }

    fn enumeration(&mut self, scope: &str, bytes: &'a [u8]) -> Result<(), Flaw> {
        let parts = self.parts(scope, bytes)?;
        let name = self.named(scope, &parts, 1)?;
        let full = self.define(scope, name, Noun::Enum)?;
        let mut has_value = false;
        for (number, value) in parts {
            let Value::Bytes(bytes) = value else { continue };
            match number {
                2 => {
                    has_value = true;
                    let parts = self.parts(&full, bytes)?;
                    let name = self.named(&full, &parts, 1)?;
                    // Values are neighbours of their enum, after C++.
                    self.define(scope, name, Noun::Other)?;
                    self.options_in(&parts, 3)?;
                }
                3 => self.options(bytes, 0)?,
                4 => _ = self.parts(&full, bytes)?,
                _ => {}
            }
        }
        if has_value { Ok(()) } else { Err(self.flaw(&full, "has no value")) }
    }

    fn service(&mut self, scope: &str, bytes: &'a [u8]) -> Result<(), Flaw> {
        let parts = self.parts(scope, bytes)?;
        let name = self.named(scope, &parts, 1)?;
        let full = self.define(scope, name, Noun::Other)?;
        match self.budget.services.checked_sub(1) {
            Some(left) => self.budget.services = left,
            None => {
                return Err(self.flaw("", format!("brings the set over {} services", self.budget.limits.services_max)));
            }
        }
        let owner: Rc<str> = full.as_str().into();
        let mut taken = Members::default();
        for (number, value) in parts {
            let Value::Bytes(bytes) = value else { continue };
            match number {
                2 => self.method(&owner, bytes, &mut taken)?,
                3 => self.options(bytes, 0)?,
                _ => {}
            }
        }
        self.file.services.push(full);
        Ok(())
    }

    fn method(&mut self, owner: &Rc<str>, bytes: &'a [u8], taken: &mut Members<'a>) -> Result<(), Flaw> {
        let parts = self.parts(owner, bytes)?;
        let name = self.named(owner, &parts, 1)?;
        self.member(owner, name, taken)?;
        for number in [2, 3] {
            let target = self.named(owner, &parts, number)?;
            let wanted = Some(Noun::Message);
            self.file.references.push(Reference { owner: owner.clone(), part: name, target, wanted });
        }
        self.options_in(&parts, 4)
    }

    fn options_in(&mut self, parts: &[(u64, Value<'a>)], number: u64) -> Result<(), Flaw> {
        for part in parts {
            if let (field, Value::Bytes(bytes)) = part
                && *field == number
            {
                self.options(bytes, 0)?;
            }
        }
        Ok(())
    }

    /// Counts options. Those that no compiler has read (field 999) are made of parts of parts.
    fn options(&mut self, bytes: &'a [u8], depth: usize) -> Result<(), Flaw> {
        for (number, value) in self.parts("options", bytes)? {
            match (depth, number, value) {
                (0, 999, Value::Bytes(bytes)) | (1, 2, Value::Bytes(bytes)) => self.options(bytes, depth + 1)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Counts what tells where in the source something stands.
    fn locations(&mut self, bytes: &'a [u8]) -> Result<(), Flaw> {
        for (number, value) in self.parts("source info", bytes)? {
            if let (1, Value::Bytes(bytes)) = (number, value) {
                let mut reader = Reader::new(bytes);
                while reader.next().map_err(|what| self.flaw("source info", what))?.is_some() {
                    self.spend()?;
                }
            }
        }
        Ok(())
    }
}

/// Names and numbers that members of one owner have taken.
#[derive(Default)]
struct Members<'a> {
    names: HashSet<&'a str>,
    numbers: HashSet<i64>,
}

/// The last number of a field, as decoders take it.
fn last_number(parts: &[(u64, Value<'_>)], number: u64) -> Option<i64> {
    parts.iter().rev().find_map(|part| match part {
        (field, Value::Varint(value)) if *field == number => Some(value.cast_signed()),
        _ => None,
    })
}
