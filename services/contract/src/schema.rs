//! A linked, fully resolved view of one descriptor set. Pure.
//!
//! It is read from raw bytes that the intake has looked at, so that every name that is referred to is there. Options
//! stay as they came, with all extensions; features of editions are resolved; comments and lines are found in the raw bytes
//! when they are asked for. proto2, proto3 and the editions 2023 and 2024 look the same from here.

mod build;
mod features;
mod options;
mod parts;
mod places;

use std::collections::{BTreeMap, HashMap};
use std::io::{Read as _, Write as _};

use bytes::Bytes;

pub use features::{CppString, Features, JsonFormat, Presence};
pub use options::Options;
pub use parts::{Enum, EnumValue, Field, File, Import, Kind, Label, Message, Method, Oneof, Service};

use crate::intake::{self, Flaw, Limits};

/// Syntax or edition of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edition {
    /// proto2, said or not.
    Proto2,
    /// proto3.
    Proto3,
    /// An edition, by the number that `google.protobuf.Edition` gives it: 1000 is 2023, 1001 is 2024.
    Edition(u32),
}

/// What a full name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Noun {
    Message(usize),
    Enum(usize),
    Service(usize),
    Extension(usize),
}

/// The comments beside a part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Comments<'a> {
    /// What stands before it.
    pub leading: &'a str,
    /// What stands after it on the same line, or below.
    pub trailing: &'a str,
}

/// A linked, fully resolved view of one descriptor set.
#[derive(Clone, Debug)]
pub struct Schema {
    bytes: Bytes,
    files: Vec<File>,
    messages: Vec<Message>,
    enums: Vec<Enum>,
    services: Vec<Service>,
    extensions: Vec<Field>,
    names: HashMap<Box<str>, Noun>,
}

impl Schema {
    /// Reads a serialized `google.protobuf.FileDescriptorSet`, with all imports in it.
    ///
    /// Time and memory are linear in the size of the input, and bounded by `limits`.
    ///
    /// # Errors
    /// The first flaw that is found: bytes that are cut off or broken, a limit that is passed, a name that does not resolve,
    /// imports in a cycle.
    pub fn parse(bytes: impl Into<Bytes>, limits: &Limits) -> Result<Self, Flaw> {
        let bytes = bytes.into();
        intake::look_within(&bytes, limits)?;
        Ok(build::schema(bytes))
    }

    /// The raw bytes that it was read from.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Its files, imports too, in the order of the set.
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// Its packages with the files of each, both sorted by name. A file without a package is in the package `""`.
    pub fn packages(&self) -> BTreeMap<&str, Vec<&File>> {
        let mut packages: BTreeMap<&str, Vec<&File>> = BTreeMap::new();
        for file in &self.files {
            packages.entry(&file.package).or_default().push(file);
        }
        for files in packages.values_mut() {
            files.sort_by(|one, other| one.name.cmp(&other.name));
        }
        packages
    }

    /// All messages, nested ones and the entries of maps too; each comes after the message that it is nested in.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// All enums, nested ones too.
    pub fn enums(&self) -> &[Enum] {
        &self.enums
    }

    /// All services.
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// All extensions, also those that are written inside of messages.
    pub fn extensions(&self) -> &[Field] {
        &self.extensions
    }

    /// A message by its full name, without a leading dot.
    pub fn message(&self, full: &str) -> Option<&Message> {
        match self.names.get(full) {
            Some(Noun::Message(index)) => self.messages.get(*index),
            _ => None,
        }
    }

    /// An enum by its full name.
    pub fn enumeration(&self, full: &str) -> Option<&Enum> {
        match self.names.get(full) {
            Some(Noun::Enum(index)) => self.enums.get(*index),
            _ => None,
        }
    }

    /// A service by its full name.
    pub fn service(&self, full: &str) -> Option<&Service> {
        match self.names.get(full) {
            Some(Noun::Service(index)) => self.services.get(*index),
            _ => None,
        }
    }

    /// An extension by its full name.
    pub fn extension(&self, full: &str) -> Option<&Field> {
        match self.names.get(full) {
            Some(Noun::Extension(index)) => self.extensions.get(*index),
            _ => None,
        }
    }

    /// A file by its path.
    pub fn file(&self, name: &str) -> Option<&File> {
        self.files.iter().find(|file| &*file.name == name)
    }

    /// The file at a place in [`Schema::files`], where parts say that they are.
    pub fn file_at(&self, index: usize) -> &File {
        &self.files[index]
    }

    /// The options of a file.
    pub fn file_options(&self, file: &File) -> Options<'_> {
        self.options_at(&file.options)
    }

    /// The options of a message.
    pub fn message_options(&self, message: &Message) -> Options<'_> {
        self.options_at(&message.options)
    }

    /// The options of a field or an extension.
    pub fn field_options(&self, field: &Field) -> Options<'_> {
        self.options_at(&field.options)
    }

    /// The options of a oneof.
    pub fn oneof_options(&self, oneof: &Oneof) -> Options<'_> {
        self.options_at(&oneof.options)
    }

    /// The options of an enum.
    pub fn enum_options(&self, one: &Enum) -> Options<'_> {
        self.options_at(&one.options)
    }

    /// The options of a value of an enum.
    pub fn value_options(&self, value: &EnumValue) -> Options<'_> {
        self.options_at(&value.options)
    }

    /// The options of a service.
    pub fn service_options(&self, service: &Service) -> Options<'_> {
        self.options_at(&service.options)
    }

    /// The options of a method.
    pub fn method_options(&self, method: &Method) -> Options<'_> {
        self.options_at(&method.options)
    }

    fn options_at(&self, spans: &options::Spans) -> Options<'_> {
        let pieces = spans.0.iter().filter_map(|span| self.bytes.get(span.start as usize..span.end as usize));
        Options::new(pieces.collect())
    }

    /// The line, counted from 1, on which a part was written; `None` if the set has no source info for it. `file` is a place
    /// in [`Schema::files`], `path` as in `google.protobuf.SourceCodeInfo`.
    pub fn line(&self, file: usize, path: &[i32]) -> Option<u32> {
        self.files.get(file)?.places.find(&self.bytes, path).map(|location| location.line)
    }

    /// The comments beside a part; empty if there are none.
    pub fn comments(&self, file: usize, path: &[i32]) -> Comments<'_> {
        let found = self.files.get(file).and_then(|file| file.places.find(&self.bytes, path));
        found.map_or(Comments::default(), |location| Comments {
            leading: location.leading.unwrap_or_default(),
            trailing: location.trailing.unwrap_or_default(),
        })
    }

    /// The line of an option, or of what is nearest to it: options may be written as parts of a message, or as the whole.
    /// `least` is how many steps of `path` must be met.
    pub(crate) fn line_near(&self, file: usize, path: &[i32], least: usize) -> Option<u32> {
        let places = &self.files.get(file)?.places;
        let exact = places.find(&self.bytes, path).map(|location| location.line);
        exact.or_else(|| places.near(&self.bytes, path, least))
    }

    pub(crate) fn has_places(&self, file: usize) -> bool {
        self.files.get(file).is_some_and(|file| !file.places.is_empty())
    }

    /// A form that takes a small part of the memory, for who must hold many.
    pub fn pack(&self) -> Packed {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        let zipped = encoder.write_all(&self.bytes).and_then(|()| encoder.finish());
        Packed { size: self.bytes.len(), zipped: zipped.expect("memory takes what is written to it").into() }
    }
}

/// A schema in a form that takes little memory: its raw bytes, compressed.
#[derive(Clone, Debug)]
pub struct Packed {
    size: usize,
    zipped: Bytes,
}

impl Packed {
    /// How many bytes it holds.
    pub fn held_bytes(&self) -> usize {
        self.zipped.len()
    }

    /// Reads the schema again. It was looked at when it was packed.
    pub fn unpack(&self) -> Schema {
        let mut bytes = Vec::with_capacity(self.size);
        let mut decoder = flate2::read::ZlibDecoder::new(&self.zipped[..]);
        decoder.read_to_end(&mut bytes).expect("what was compressed here is whole");
        build::schema(bytes.into())
    }
}
