//! The parts of a schema. Pure.

use super::options::Spans;
use super::places::Places;
use super::{Edition, Features};

/// A file.
#[derive(Clone, Debug)]
pub struct File {
    /// Its path, as imports name it.
    pub name: Box<str>,
    /// Its package; empty if it has none.
    pub package: Box<str>,
    /// Its syntax or edition.
    pub edition: Edition,
    /// Whether it says its syntax. Who compiled it may have lost that.
    pub has_syntax: bool,
    /// Whether it was compiled only because others import it, as far as who compiled it says.
    pub is_import: bool,
    /// What it imports.
    pub imports: Vec<Import>,
    /// What holds in it.
    pub features: Features,
    pub(super) options: Spans,
    pub(super) places: Places,
}

impl File {
    /// Its syntax as it is written: `proto2`, `proto3` or `editions`.
    pub fn syntax(&self) -> &'static str {
        match self.edition {
            Edition::Proto2 => "proto2",
            Edition::Proto3 => "proto3",
            Edition::Edition(_) => "editions",
        }
    }
}

/// An import of a file.
#[derive(Clone, Debug)]
pub struct Import {
    /// The path of what is imported.
    pub name: Box<str>,
    /// Whether who imports the importer gets it as well.
    pub is_public: bool,
    /// Whether nothing in it is used, as far as who compiled it says.
    pub is_unused: bool,
    /// Whether only options are taken from it.
    pub is_option: bool,
}

/// A message.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its full name, without a leading dot.
    pub full: Box<str>,
    /// How many bytes of the full name are its package and the dot after it.
    pub(super) package_bytes: usize,
    /// Place of its file in the schema.
    pub file: usize,
    /// Place in the schema of the message that it is nested in.
    pub parent: Option<usize>,
    /// Its path in its file, as `google.protobuf.SourceCodeInfo` has it.
    pub path: Box<[i32]>,
    /// Its fields, in the order in which they are written.
    pub fields: Vec<Field>,
    /// Its oneofs.
    pub oneofs: Vec<Oneof>,
    /// Numbers that no field may have, both ends included.
    pub reserved: Vec<(i32, i32)>,
    /// Names that no field may have.
    pub reserved_names: Vec<Box<str>>,
    /// Numbers that are left to extensions, both ends included.
    pub extension_ranges: Vec<(i32, i32)>,
    /// What holds in it.
    pub features: Features,
    /// Whether it is made by the compiler for a map.
    pub is_map_entry: bool,
    /// Places of its fields, sorted by their numbers.
    pub(super) by_number: Box<[usize]>,
    pub(super) options: Spans,
}

impl Message {
    /// Its own name.
    pub fn name(&self) -> &str {
        last(&self.full)
    }

    /// Its name in its package, with the messages that it is nested in.
    pub fn nested(&self) -> &str {
        &self.full[self.package_bytes..]
    }

    /// The field of a number.
    pub fn field(&self, number: i32) -> Option<&Field> {
        let place = self.by_number.binary_search_by_key(&number, |place| self.fields[*place].number).ok()?;
        self.fields.get(self.by_number[place])
    }
}

/// How often a field may be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// Once or not.
    Optional,
    /// Once. In editions this is a feature.
    Required,
    /// Any number of times.
    Repeated,
}

/// What a field holds, with features resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `double`.
    Double,
    /// `float`.
    Float,
    /// `int64`.
    Int64,
    /// `uint64`.
    Uint64,
    /// `int32`.
    Int32,
    /// `fixed64`.
    Fixed64,
    /// `fixed32`.
    Fixed32,
    /// `bool`.
    Bool,
    /// `string`.
    String,
    /// A message between two marks: a group of proto2, or a delimited message of an edition.
    Group,
    /// A message after its length.
    Message,
    /// `bytes`.
    Bytes,
    /// `uint32`.
    Uint32,
    /// An enum.
    Enum,
    /// `sfixed32`.
    Sfixed32,
    /// `sfixed64`.
    Sfixed64,
    /// `sint32`.
    Sint32,
    /// `sint64`.
    Sint64,
}

impl Kind {
    /// The kind of a number of `google.protobuf.FieldDescriptorProto.Type`.
    pub(super) fn of(number: i32) -> Option<Self> {
        const KINDS: [Kind; 18] = [
            Kind::Double,
            Kind::Float,
            Kind::Int64,
            Kind::Uint64,
            Kind::Int32,
            Kind::Fixed64,
            Kind::Fixed32,
            Kind::Bool,
            Kind::String,
            Kind::Group,
            Kind::Message,
            Kind::Bytes,
            Kind::Uint32,
            Kind::Enum,
            Kind::Sfixed32,
            Kind::Sfixed64,
            Kind::Sint32,
            Kind::Sint64,
        ];
        usize::try_from(number).ok()?.checked_sub(1).and_then(|index| KINDS.get(index).copied())
    }

    /// Its word in a `.proto` file; `group`, `message` and `enum` for what has a name of its own.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Double => "double",
            Self::Float => "float",
            Self::Int64 => "int64",
            Self::Uint64 => "uint64",
            Self::Int32 => "int32",
            Self::Fixed64 => "fixed64",
            Self::Fixed32 => "fixed32",
            Self::Bool => "bool",
            Self::String => "string",
            Self::Group => "group",
            Self::Message => "message",
            Self::Bytes => "bytes",
            Self::Uint32 => "uint32",
            Self::Enum => "enum",
            Self::Sfixed32 => "sfixed32",
            Self::Sfixed64 => "sfixed64",
            Self::Sint32 => "sint32",
            Self::Sint64 => "sint64",
        }
    }

    /// Whether the field names a type.
    pub fn is_named(self) -> bool {
        matches!(self, Self::Message | Self::Group | Self::Enum)
    }
}

/// A field, or an extension.
#[derive(Clone, Debug)]
pub struct Field {
    /// Its full name: of its message and its own, or of the scope that an extension is written in and its own.
    pub full: Box<str>,
    /// How many bytes of the full name are its package and the dot after it.
    pub(super) package_bytes: usize,
    /// Place of its file in the schema.
    pub file: usize,
    /// Place in the schema of the message that it is written in.
    pub parent: Option<usize>,
    /// Its path in its file.
    pub path: Box<[i32]>,
    /// Its number.
    pub number: i32,
    /// Its label, with features resolved.
    pub label: Label,
    /// Its label as it is written.
    pub written_label: Label,
    /// What it holds.
    pub kind: Kind,
    /// What it holds as it is written: a delimited message is a message.
    pub written_kind: Kind,
    /// The full name of its message or enum; empty for others.
    pub type_name: Box<str>,
    /// The full name of the message that it extends; empty if it is no extension.
    pub extendee: Box<str>,
    /// Place in its message of its oneof.
    pub oneof: Option<usize>,
    /// Whether it is an `optional` field of proto3.
    pub is_proto3_optional: bool,
    /// Whether it is a map.
    pub is_map: bool,
    /// Its name in JSON.
    pub json_name: Box<str>,
    /// Its default value as it is written.
    pub default: Option<Box<str>>,
    /// What holds for it.
    pub features: Features,
    pub(super) options: Spans,
}

impl Field {
    /// Its own name.
    pub fn name(&self) -> &str {
        last(&self.full)
    }

    /// Its name in its package, with the messages that it is written in.
    pub fn nested(&self) -> &str {
        &self.full[self.package_bytes..]
    }

    /// Whether it is an extension.
    pub fn is_extension(&self) -> bool {
        !self.extendee.is_empty()
    }
}

/// A oneof.
#[derive(Clone, Debug)]
pub struct Oneof {
    /// Its own name.
    pub name: Box<str>,
    /// Its path in its file.
    pub path: Box<[i32]>,
    /// Whether it is made by the compiler for an `optional` field of proto3.
    pub is_synthetic: bool,
    pub(super) options: Spans,
}

/// An enum.
#[derive(Clone, Debug)]
pub struct Enum {
    /// Its full name, without a leading dot.
    pub full: Box<str>,
    /// How many bytes of the full name are its package and the dot after it.
    pub(super) package_bytes: usize,
    /// Place of its file in the schema.
    pub file: usize,
    /// Place in the schema of the message that it is nested in.
    pub parent: Option<usize>,
    /// Its path in its file.
    pub path: Box<[i32]>,
    /// Its values, in the order in which they are written.
    pub values: Vec<EnumValue>,
    /// Numbers that no value may have, both ends included.
    pub reserved: Vec<(i32, i32)>,
    /// Names that no value may have.
    pub reserved_names: Vec<Box<str>>,
    /// What holds for it.
    pub features: Features,
    pub(super) options: Spans,
}

impl Enum {
    /// Its own name.
    pub fn name(&self) -> &str {
        last(&self.full)
    }

    /// Its name in its package, with the messages that it is nested in.
    pub fn nested(&self) -> &str {
        &self.full[self.package_bytes..]
    }
}

/// A value of an enum.
#[derive(Clone, Debug)]
pub struct EnumValue {
    /// Its own name.
    pub name: Box<str>,
    /// Its number.
    pub number: i32,
    /// Its path in its file.
    pub path: Box<[i32]>,
    pub(super) options: Spans,
}

/// A service.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its full name, without a leading dot.
    pub full: Box<str>,
    /// Place of its file in the schema.
    pub file: usize,
    /// Its path in its file.
    pub path: Box<[i32]>,
    /// Its methods.
    pub methods: Vec<Method>,
    /// Places of its methods, sorted by their names.
    pub(super) by_name: Box<[usize]>,
    pub(super) options: Spans,
}

impl Service {
    /// Its own name.
    pub fn name(&self) -> &str {
        last(&self.full)
    }

    /// The method of a name.
    pub fn method(&self, name: &str) -> Option<&Method> {
        let place = self.by_name.binary_search_by(|place| (*self.methods[*place].name).cmp(name)).ok()?;
        self.methods.get(self.by_name[place])
    }
}

/// A method of a service.
#[derive(Clone, Debug)]
pub struct Method {
    /// Its own name.
    pub name: Box<str>,
    /// Its path in its file.
    pub path: Box<[i32]>,
    /// The full name of its request.
    pub input: Box<str>,
    /// The full name of its response.
    pub output: Box<str>,
    /// Whether there may be many requests.
    pub is_client_streaming: bool,
    /// Whether there may be many responses.
    pub is_server_streaming: bool,
    pub(super) options: Spans,
}

fn last(full: &str) -> &str {
    full.rsplit('.').next().unwrap_or(full)
}
