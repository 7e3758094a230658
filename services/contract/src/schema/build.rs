//! Reads a schema from bytes that were looked at. Pure.
//!
//! Nothing here fails: what is broken was refused before. Should it not have been, then a part is missing, or empty.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use super::options::{Options, Span, Spans};
use super::parts::{Enum, EnumValue, Field, File, Import, Kind, Label, Message, Method, Oneof, Service};
use super::places::Places;
use super::{Edition, Features, Noun, Presence, Schema};

/// Where in a set a slice of it lies.
pub(super) fn span_in(set: &[u8], part: &[u8]) -> Span {
    let start = part.as_ptr().addr().saturating_sub(set.as_ptr().addr());
    let narrow = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
    Span { start: narrow(start), end: narrow(start + part.len()) }
}

/// Reads a schema.
pub(super) fn schema(bytes: Bytes) -> Schema {
    let mut build =
        Build { set: &bytes, file: 0, package: String::new(), edition: Edition::Proto2, parts: Parts::default() };
    for file in message(&bytes).messages(1) {
        build.file(&file);
    }
    let mut parts = build.parts;
    parts.link();
    let names = parts.names();
    let Parts { files, messages, enums, services, extensions } = parts;
    Schema { files, messages, enums, services, extensions, names, bytes }
}

/// Reads fields of a message as if they were options: by number, the last one wins.
fn message(bytes: &[u8]) -> Options<'_> {
    Options::new(vec![bytes])
}

#[derive(Default)]
struct Parts {
    files: Vec<File>,
    messages: Vec<Message>,
    enums: Vec<Enum>,
    services: Vec<Service>,
    extensions: Vec<Field>,
}

impl Parts {
    fn names(&self) -> HashMap<Box<str>, Noun> {
        let messages = self.messages.iter().enumerate().map(|(index, one)| (one.full.clone(), Noun::Message(index)));
        let enums = self.enums.iter().enumerate().map(|(index, one)| (one.full.clone(), Noun::Enum(index)));
        let services = self.services.iter().enumerate().map(|(index, one)| (one.full.clone(), Noun::Service(index)));
        let extensions =
            self.extensions.iter().enumerate().map(|(index, one)| (one.full.clone(), Noun::Extension(index)));
        messages.chain(enums).chain(services).chain(extensions).collect()
    }

    /// What can be told only when everything is read: what a field of an untold kind holds, and which fields are maps.
    fn link(&mut self) {
        let entries: HashSet<Box<str>> =
            self.messages.iter().filter(|one| one.is_map_entry).map(|one| one.full.clone()).collect();
        let enums: HashSet<Box<str>> = self.enums.iter().map(|one| one.full.clone()).collect();
        let resolve = |field: &mut Field, in_entry: bool| {
            if field.written_kind == Kind::Message && enums.contains(&field.type_name) {
                (field.written_kind, field.kind) = (Kind::Enum, Kind::Enum);
            }
            field.is_map = field.label == Label::Repeated && entries.contains(&field.type_name);
            if field.written_kind == Kind::Message && field.features.is_delimited && !field.is_map && !in_entry {
                field.kind = Kind::Group;
            }
        };
        for message in &mut self.messages {
            let in_entry = message.is_map_entry;
            message.fields.iter_mut().for_each(|field| resolve(field, in_entry));
        }
        self.extensions.iter_mut().for_each(|field| resolve(field, false));
    }
}

struct Build<'a> {
    set: &'a [u8],
    file: usize,
    package: String,
    edition: Edition,
    parts: Parts,
}

/// What surrounds a part.
struct Scope<'a> {
    /// Full name of what it is in.
    full: &'a str,
    /// Message that it is in.
    parent: Option<usize>,
    features: Features,
    path: &'a [i32],
}

impl Scope<'_> {
    fn name(&self, own: &str) -> Box<str> {
        if self.full.is_empty() { own.into() } else { format!("{}.{own}", self.full).into() }
    }

    fn step(&self, kind: i32, index: usize) -> Box<[i32]> {
        self.path.iter().copied().chain([kind, i32::try_from(index).unwrap_or(i32::MAX)]).collect()
    }
}

fn text(part: &Options<'_>, number: u64) -> Box<str> {
    part.text(number).unwrap_or_default().into()
}

/// A full name without its leading dot.
fn reference(part: &Options<'_>, number: u64) -> Box<str> {
    part.text(number).unwrap_or_default().trim_start_matches('.').into()
}

fn number(part: &Options<'_>, field: u64) -> Option<i32> {
    // A negative number has ten bytes on the wire; its lower half is the number.
    part.number(field).and_then(|wide| i32::try_from(wide.cast_signed()).ok())
}

impl<'a> Build<'a> {
    fn spans(&self, part: &Options<'a>, number: u64) -> Spans {
        Spans(part.bytes(number).into_iter().map(|piece| span_in(self.set, piece)).collect())
    }

    /// Features of what surrounds a part, and what the part itself says in field `features` of its options.
    fn features(&self, outer: Features, options: &Options<'a>, features: u64) -> Features {
        let mut resolved = outer;
        if let Edition::Edition(_) = self.edition {
            for set in options.bytes(features) {
                resolved.take(set);
            }
        }
        resolved
    }

    fn package_bytes(&self) -> usize {
        if self.package.is_empty() { 0 } else { self.package.len() + 1 }
    }

    fn file(&mut self, file: &Options<'a>) {
        self.file = self.parts.files.len();
        self.package = file.text(2).unwrap_or_default().to_owned();
        self.edition = match file.text(12) {
            Some("proto3") => Edition::Proto3,
            Some("editions") => {
                Edition::Edition(file.number(14).and_then(|number| u32::try_from(number).ok()).unwrap_or(0))
            }
            Some(_) | None => Edition::Proto2,
        };
        let options = file.message(8);
        let features = self.features(Features::of(self.edition), &options, 50);
        let mut places = Places::default();
        for info in file.bytes(9) {
            places.index(self.set, span_in(self.set, info));
        }
        // What an image of buf says beyond descriptors; others leave it out.
        let image = file.message(8042);
        self.parts.files.push(File {
            name: text(file, 1),
            package: self.package.as_str().into(),
            edition: self.edition,
            has_syntax: file.text(12).is_some() && image.flag(3) != Some(true),
            is_import: image.flag(1) == Some(true),
            imports: imports(file, &image),
            features,
            options: self.spans(file, 8),
            places,
        });
        let package = self.package.clone();
        let scope = Scope { full: &package, parent: None, features, path: &[] };
        for (index, part) in file.messages(4).into_iter().enumerate() {
            self.message(&scope, &part, &scope.step(4, index));
        }
        for (index, part) in file.messages(5).into_iter().enumerate() {
            self.enumeration(&scope, &part, scope.step(5, index));
        }
        for (index, part) in file.messages(6).into_iter().enumerate() {
            self.service(&scope, &part, scope.step(6, index));
        }
        for (index, part) in file.messages(7).into_iter().enumerate() {
            let extension = self.field(&scope, &part, scope.step(7, index), features);
            self.parts.extensions.push(extension);
        }
    }

    fn message(&mut self, outer: &Scope<'_>, part: &Options<'a>, path: &[i32]) {
        let full = outer.name(part.text(1).unwrap_or_default());
        let options = part.message(7);
        let features = self.features(outer.features, &options, 12);
        let index = self.parts.messages.len();
        self.parts.messages.push(Message {
            full: full.clone(),
            package_bytes: self.package_bytes(),
            file: self.file,
            parent: outer.parent,
            path: path.into(),
            fields: Vec::new(),
            oneofs: Vec::new(),
            reserved: ranges(part, 9, 1),
            reserved_names: part.texts(10).into_iter().map(Into::into).collect(),
            extension_ranges: ranges(part, 5, 1),
            features,
            by_number: Box::default(),
            is_map_entry: options.flag(7) == Some(true),
            options: self.spans(part, 7),
        });
        let scope = Scope { full: &full, parent: Some(index), features, path };
        let (fields, oneofs) = self.members(&scope, part);
        let message = &mut self.parts.messages[index];
        message.by_number = sorted(&fields, |field| field.number);
        (message.fields, message.oneofs) = (fields, oneofs);
        for (index, part) in part.messages(3).into_iter().enumerate() {
            self.message(&scope, &part, &scope.step(3, index));
        }
        for (index, part) in part.messages(4).into_iter().enumerate() {
            self.enumeration(&scope, &part, scope.step(4, index));
        }
        for (index, part) in part.messages(6).into_iter().enumerate() {
            let extension = self.field(&scope, &part, scope.step(6, index), features);
            self.parts.extensions.push(extension);
        }
    }

    fn members(&self, scope: &Scope<'_>, part: &Options<'a>) -> (Vec<Field>, Vec<Oneof>) {
        let mut oneofs: Vec<Oneof> = Vec::new();
        let mut inner = Vec::new();
        for (index, part) in part.messages(8).into_iter().enumerate() {
            inner.push(self.features(scope.features, &part.message(2), 1));
            let (name, options) = (text(&part, 1), self.spans(&part, 2));
            oneofs.push(Oneof { name, path: scope.step(8, index), is_synthetic: false, options });
        }
        let fields = part.messages(2).into_iter().enumerate().map(|(index, part)| {
            let around = number(&part, 9).and_then(|oneof| inner.get(usize::try_from(oneof).ok()?).copied());
            self.field(scope, &part, scope.step(2, index), around.unwrap_or(scope.features))
        });
        let fields: Vec<Field> = fields.collect();
        for field in fields.iter().filter(|field| field.is_proto3_optional) {
            if let Some(oneof) = field.oneof.and_then(|index| oneofs.get_mut(index)) {
                oneof.is_synthetic = true;
            }
        }
        (fields, oneofs)
    }

    fn field(&self, scope: &Scope<'_>, part: &Options<'a>, path: Box<[i32]>, around: Features) -> Field {
        let name = part.text(1).unwrap_or_default();
        let options = part.message(8);
        let features = self.features(around, &options, 21);
        let kind = number(part, 5).and_then(Kind::of).unwrap_or(Kind::Message);
        let written_label = match number(part, 4) {
            Some(2) => Label::Required,
            Some(3) => Label::Repeated,
            Some(_) | None => Label::Optional,
        };
        let label = match (written_label, features.presence) {
            (Label::Optional, Presence::Required) => Label::Required,
            (label, _) => label,
        };
        Field {
            full: scope.name(name),
            package_bytes: self.package_bytes(),
            file: self.file,
            parent: scope.parent,
            path,
            number: number(part, 3).unwrap_or_default(),
            label,
            written_label,
            kind,
            written_kind: kind,
            type_name: reference(part, 6),
            extendee: reference(part, 2),
            oneof: number(part, 9).and_then(|index| usize::try_from(index).ok()),
            is_proto3_optional: part.flag(17) == Some(true),
            is_map: false,
            json_name: part.text(10).map_or_else(|| json_name(name), Into::into),
            default: part.text(7).map(Into::into),
            features,
            options: self.spans(part, 8),
        }
    }

    fn enumeration(&mut self, scope: &Scope<'_>, part: &Options<'a>, path: Box<[i32]>) {
        let features = self.features(scope.features, &part.message(3), 7);
        let values = part.messages(2).into_iter().enumerate().map(|(index, value)| EnumValue {
            name: text(&value, 1),
            number: number(&value, 2).unwrap_or_default(),
            path: path.iter().copied().chain([2, i32::try_from(index).unwrap_or(i32::MAX)]).collect(),
            options: self.spans(&value, 3),
        });
        let made = Enum {
            full: scope.name(part.text(1).unwrap_or_default()),
            package_bytes: self.package_bytes(),
            file: self.file,
            parent: scope.parent,
            values: values.collect(),
            path,
            reserved: ranges(part, 4, 0),
            reserved_names: part.texts(5).into_iter().map(Into::into).collect(),
            features,
            options: self.spans(part, 3),
        };
        self.parts.enums.push(made);
    }

    fn service(&mut self, scope: &Scope<'_>, part: &Options<'a>, path: Box<[i32]>) {
        let methods = part.messages(2).into_iter().enumerate().map(|(index, method)| Method {
            name: text(&method, 1),
            path: path.iter().copied().chain([2, i32::try_from(index).unwrap_or(i32::MAX)]).collect(),
            input: reference(&method, 2),
            output: reference(&method, 3),
            is_client_streaming: method.flag(5) == Some(true),
            is_server_streaming: method.flag(6) == Some(true),
            options: self.spans(&method, 4),
        });
        let methods: Vec<Method> = methods.collect();
        let made = Service {
            full: scope.name(part.text(1).unwrap_or_default()),
            file: self.file,
            by_name: sorted(&methods, |method| method.name.clone()),
            methods,
            path,
            options: self.spans(part, 3),
        };
        self.parts.services.push(made);
    }
}

fn imports(file: &Options<'_>, image: &Options<'_>) -> Vec<Import> {
    let (public, unused) = (file.numbers(10), image.numbers(4));
    let imports = file.texts(3).into_iter().zip(0_u64..).map(|(name, index)| Import {
        name: name.into(),
        is_public: public.contains(&index),
        is_unused: unused.contains(&index),
        is_option: false,
    });
    let for_options = file.texts(15).into_iter();
    let for_options =
        for_options.map(|name| Import { name: name.into(), is_public: false, is_unused: false, is_option: true });
    imports.chain(for_options).collect()
}

/// The places of some parts, sorted by a key.
fn sorted<T, K: Ord>(parts: &[T], key: impl Fn(&T) -> K) -> Box<[usize]> {
    let mut places: Vec<usize> = (0..parts.len()).collect();
    places.sort_by_cached_key(|place| key(&parts[*place]));
    places.into()
}

/// Ranges of numbers, both ends included; in messages the end is written one higher.
fn ranges(part: &Options<'_>, field: u64, beyond: i32) -> Vec<(i32, i32)> {
    let ranges = part.messages(field).into_iter();
    let ranges = ranges.map(|range| (number(&range, 1).unwrap_or(0), number(&range, 2).unwrap_or(0)));
    ranges.map(|(start, end)| (start, end.saturating_sub(beyond))).collect()
}

/// The name of a field in JSON, if it says none.
fn json_name(name: &str) -> Box<str> {
    let mut json = String::with_capacity(name.len());
    let mut is_next_upper = false;
    for letter in name.chars() {
        match letter {
            '_' => is_next_upper = true,
            _ if is_next_upper => {
                json.push(letter.to_ascii_uppercase());
                is_next_upper = false;
            }
            _ => json.push(letter),
        }
    }
    json.into()
}
