//! Message types as flat tables.

use std::collections::HashMap;

use prost_reflect::{Cardinality, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, Syntax};

/// Numbers below this are found by index, others by search.
const DENSE: u32 = 64;
/// Most fields of one message, as their marks are bits.
const FIELDS_MAX: usize = 128;

/// Where a message type stands among its tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableId(u32);

/// Where an enum stands among its tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EnumId(u32);

/// All types that the messages of a contract are made of.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    messages: Vec<Table>,
    enums: Vec<EnumTable>,
    names: HashMap<String, TableId>,
}

/// One message type.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) form: Form,
    fields: Vec<Field>,
    /// Index of the field by number, plus one; zero where there is none.
    dense: Box<[u8]>,
    /// Index of the field by number, for high numbers, in order.
    sparse: Vec<(u32, u8)>,
    /// Index of the field by each of its names.
    by_name: HashMap<Box<str>, u8>,
}

/// What a message is in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// An object.
    Object,
    /// The value of its one field, number 1.
    Wrapper,
    Timestamp,
    Duration,
    FieldMask,
    /// Something that only the reflection library knows.
    Unusual,
}

/// One field.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) shape: Shape,
    /// Whether it is left out when it has its default.
    pub(super) is_implicit: bool,
    /// Mark of the oneof that it is of; no bit where it is of none.
    pub(super) oneof: u64,
    /// Its name in JSON.
    pub(super) name: Box<str>,
    /// Its key in JSON: name, quotes and colon.
    pub(super) key: Box<[u8]>,
}

/// How often a field may be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    One(Type),
    /// Whether the scalars are written in one piece.
    Many(Type, bool),
    Map(Type, Type),
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    String,
    Bytes,
    Enum(EnumId),
    Message(TableId),
}

/// Wire types.
pub(super) const VARINT: u32 = 0;
pub(super) const FIXED64: u32 = 1;
pub(super) const BYTES: u32 = 2;
pub(super) const FIXED32: u32 = 5;

impl Type {
    /// The wire type of a single value.
    pub(super) const fn wire(self) -> u32 {
        match self {
            Self::Double | Self::Fixed64 | Self::Sfixed64 => FIXED64,
            Self::Float | Self::Fixed32 | Self::Sfixed32 => FIXED32,
            Self::String | Self::Bytes | Self::Message(_) => BYTES,
            Self::Int32
            | Self::Int64
            | Self::Uint32
            | Self::Uint64
            | Self::Sint32
            | Self::Sint64
            | Self::Bool
            | Self::Enum(_) => VARINT,
        }
    }
}

/// Names and numbers of one open enum.
#[derive(Debug)]
pub(super) struct EnumTable {
    numbers: HashMap<Box<str>, i32>,
    /// The first name of each number, in order of the numbers.
    names: Vec<(i32, Box<str>)>,
}

impl EnumTable {
    pub(super) fn number(&self, name: &str) -> Option<i32> {
        self.numbers.get(name).copied()
    }

    pub(super) fn name(&self, number: i32) -> Option<&str> {
        let at = self.names.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some(&self.names[at].1)
    }
}

impl Table {
    /// Finds a field by either name. Fields mostly come in the order of their numbers, so `guess` is looked at first.
    pub(super) fn by_name(&self, name: &str, guess: usize) -> Option<(usize, &Field)> {
        if let Some(field) = self.fields.get(guess).filter(|field| *field.name == *name) {
            return Some((guess, field));
        }
        let at = usize::from(*self.by_name.get(name)?);
        Some((at, &self.fields[at]))
    }

    pub(super) fn by_number(&self, number: u32) -> Option<(usize, &Field)> {
        let at = if number < DENSE {
            usize::from(self.dense[number as usize].checked_sub(1)?)
        } else {
            let at = self.sparse.binary_search_by_key(&number, |(number, _)| *number).ok()?;
            usize::from(self.sparse[at].1)
        };
        Some((at, &self.fields[at]))
    }
}

impl Tables {
    pub(super) fn find(&self, full_name: &str) -> Option<TableId> {
        self.names.get(full_name).copied()
    }

    pub(super) fn table(&self, id: TableId) -> &Table {
        &self.messages[id.0 as usize]
    }

    pub(super) fn enumeration(&self, id: EnumId) -> &EnumTable {
        &self.enums[id.0 as usize]
    }
}

/// Compiles types to tables.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    tables: Tables,
    enums: HashMap<String, EnumId>,
    waiting: Vec<(TableId, MessageDescriptor)>,
}

impl Builder {
    /// Adds a message type and all that it is made of.
    pub(crate) fn add(&mut self, message: &MessageDescriptor) {
        self.table(message);
        while let Some((id, message)) = self.waiting.pop() {
            self.fill(id, &message);
        }
    }

    /// All types that were added.
    pub(crate) fn finish(self) -> Tables {
        self.tables
    }

    fn table(&mut self, message: &MessageDescriptor) -> TableId {
        if let Some(id) = self.tables.find(message.full_name()) {
            return id;
        }
        let id = TableId(u32::try_from(self.tables.messages.len()).expect("contracts have fewer messages"));
        self.tables.names.insert(message.full_name().to_owned(), id);
        self.tables.messages.push(Table {
            form: form(message),
            fields: Vec::new(),
            dense: Box::default(),
            sparse: Vec::new(),
            by_name: HashMap::new(),
        });
        self.waiting.push((id, message.clone()));
        id
    }

    fn fill(&mut self, id: TableId, message: &MessageDescriptor) {
        let mut dense = vec![0; DENSE as usize];
        let (mut sparse, mut fields, mut by_name) = (Vec::new(), Vec::new(), HashMap::new());
        if self.tables.table(id).form != Form::Unusual {
            let mut descriptors: Vec<_> = message.fields().collect();
            descriptors.sort_by_key(FieldDescriptor::number);
            for (at, descriptor) in descriptors.iter().enumerate() {
                let at = u8::try_from(at).expect("tables have at most 128 fields");
                match dense.get_mut(descriptor.number() as usize) {
                    Some(place) => *place = at + 1,
                    None => sparse.push((descriptor.number(), at)),
                }
                by_name.insert(descriptor.name().into(), at);
                fields.push(self.field(descriptor));
            }
            // The JSON name wins where it is the Protobuf name of another field, as it does for the reflection library.
            for (at, descriptor) in descriptors.iter().enumerate() {
                by_name.insert(descriptor.json_name().into(), u8::try_from(at).expect("as above"));
            }
        }
        let table = &mut self.tables.messages[id.0 as usize];
        table.dense = dense.into();
        (table.sparse, table.fields, table.by_name) = (sparse, fields, by_name);
    }

    fn field(&mut self, descriptor: &FieldDescriptor) -> Field {
        let shape = match descriptor.kind() {
            Kind::Message(entry) if descriptor.is_map() => Shape::Map(
                self.kind(entry.map_entry_key_field().kind()),
                self.kind(entry.map_entry_value_field().kind()),
            ),
            kind if descriptor.cardinality() == Cardinality::Repeated => {
                Shape::Many(self.kind(kind), descriptor.is_packed())
            }
            kind => Shape::One(self.kind(kind)),
        };
        let oneof = descriptor.containing_oneof().filter(|oneof| !oneof.is_synthetic());
        let place = oneof.and_then(|oneof| descriptor.parent_message().oneofs().position(|other| other == oneof));
        let key = serde_json::to_string(descriptor.json_name()).expect("a text is written to memory");
        Field {
            number: descriptor.number(),
            shape,
            is_implicit: !descriptor.supports_presence(),
            oneof: place.map_or(0, |place| 1 << place),
            name: descriptor.json_name().into(),
            key: format!("{key}:").into_bytes().into(),
        }
    }

    fn kind(&mut self, kind: Kind) -> Type {
        match kind {
            Kind::Double => Type::Double,
            Kind::Float => Type::Float,
            Kind::Int32 => Type::Int32,
            Kind::Int64 => Type::Int64,
            Kind::Uint32 => Type::Uint32,
            Kind::Uint64 => Type::Uint64,
            Kind::Sint32 => Type::Sint32,
            Kind::Sint64 => Type::Sint64,
            Kind::Fixed32 => Type::Fixed32,
            Kind::Fixed64 => Type::Fixed64,
            Kind::Sfixed32 => Type::Sfixed32,
            Kind::Sfixed64 => Type::Sfixed64,
            Kind::Bool => Type::Bool,
            Kind::String => Type::String,
            Kind::Bytes => Type::Bytes,
            Kind::Enum(descriptor) => Type::Enum(self.enumeration(&descriptor)),
            Kind::Message(message) => Type::Message(self.table(&message)),
        }
    }

    fn enumeration(&mut self, descriptor: &EnumDescriptor) -> EnumId {
        if let Some(id) = self.enums.get(descriptor.full_name()) {
            return *id;
        }
        let id = EnumId(u32::try_from(self.tables.enums.len()).expect("contracts have fewer enums"));
        let numbers = descriptor.values().map(|value| (value.name().into(), value.number())).collect();
        // Of several names of a number, the one that the reflection library writes.
        let name = |number| descriptor.get_value(number).map(|value| (number, value.name().into()));
        let mut names: Vec<_> = descriptor.values().filter_map(|value| name(value.number())).collect();
        names.sort();
        names.dedup();
        self.tables.enums.push(EnumTable { numbers, names });
        self.enums.insert(descriptor.full_name().to_owned(), id);
        id
    }
}

fn form(message: &MessageDescriptor) -> Form {
    match message.full_name() {
        "google.protobuf.Timestamp" => return Form::Timestamp,
        "google.protobuf.Duration" => return Form::Duration,
        "google.protobuf.FieldMask" => return Form::FieldMask,
        "google.protobuf.DoubleValue"
        | "google.protobuf.FloatValue"
        | "google.protobuf.Int64Value"
        | "google.protobuf.UInt64Value"
        | "google.protobuf.Int32Value"
        | "google.protobuf.UInt32Value"
        | "google.protobuf.BoolValue"
        | "google.protobuf.StringValue"
        | "google.protobuf.BytesValue" => return Form::Wrapper,
        "google.protobuf.Any" | "google.protobuf.Struct" | "google.protobuf.Value" | "google.protobuf.ListValue" => {
            return Form::Unusual;
        }
        _ => {}
    }
    let is_plain = |field: FieldDescriptor| {
        let is_open = match field.kind() {
            Kind::Enum(kind) => {
                kind.full_name() != "google.protobuf.NullValue" && kind.parent_file().syntax() == Syntax::Proto3
            }
            _ => true,
        };
        is_open && !field.is_group()
    };
    let is_usual = message.parent_file().syntax() == Syntax::Proto3
        && message.fields().len() <= FIELDS_MAX
        && message.oneofs().len() <= 64
        && message.extension_ranges().len() == 0
        && message.fields().all(is_plain);
    if is_usual { Form::Object } else { Form::Unusual }
}
