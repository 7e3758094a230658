//! Random worlds: a few files of `.proto` that import each other, in any syntax, written out; random changes of them.
//!
//! What comes out is valid most of the time; whoever compiles it drops the rest. All names of a world lie below its tag, so
//! that many worlds fit into one run of a compiler.

mod change;
mod mend;
mod random;
mod write;

use std::collections::BTreeMap;

/// Options by name. What does not apply where it stands is not written.
type Options = BTreeMap<&'static str, String>;

/// How a file is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Syntax {
    Proto2,
    Proto3,
    Edition2023,
    Edition2024,
}

impl Syntax {
    const ALL: [Self; 4] = [Self::Proto2, Self::Proto3, Self::Edition2023, Self::Edition2024];

    fn is_edition(self) -> bool {
        matches!(self, Self::Edition2023 | Self::Edition2024)
    }
}

/// How often a field is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Label {
    Plain,
    Optional,
    Required,
    Repeated,
    Map,
    InOneof(u8),
}

/// What a field holds.
#[derive(Clone, PartialEq, Eq)]
enum Kind {
    Scalar(&'static str),
    /// Full name of a message or an enum, with a dot before it.
    Named(String),
    /// A group of proto2.
    Group,
}

#[derive(Clone)]
struct Field {
    name: String,
    number: u32,
    kind: Kind,
    label: Label,
    options: Options,
}

#[derive(Clone, Default)]
struct Message {
    name: String,
    fields: Vec<Field>,
    /// Names of the oneofs, by number.
    oneofs: [String; 2],
    messages: Vec<Message>,
    enums: Vec<Enum>,
    reserved: Vec<(u32, u32)>,
    reserved_names: Vec<String>,
    extension_ranges: Vec<(u32, u32)>,
    extensions: Vec<Extension>,
    options: Options,
}

#[derive(Clone, Default)]
struct Enum {
    name: String,
    values: Vec<(String, i32)>,
    reserved: Vec<(i32, i32)>,
    reserved_names: Vec<String>,
    options: Options,
}

#[derive(Clone)]
struct Extension {
    /// Full name of the message that is extended, with a dot before it.
    of: String,
    field: Field,
}

#[derive(Clone)]
struct Rpc {
    name: String,
    input: String,
    output: String,
    streams: (bool, bool),
    options: Options,
}

#[derive(Clone)]
struct Service {
    name: String,
    rpcs: Vec<Rpc>,
}

#[derive(Clone)]
struct File {
    /// Path below the world's folder.
    path: String,
    /// Package below the world's; not empty.
    package: String,
    syntax: Syntax,
    options: Options,
    messages: Vec<Message>,
    enums: Vec<Enum>,
    services: Vec<Service>,
    extensions: Vec<Extension>,
}

/// Some files that import each other. A file imports only from those before it.
#[derive(Clone)]
pub(crate) struct World {
    /// Folder of its files, and first part of its packages.
    pub(crate) tag: String,
    files: Vec<File>,
    /// How many names were given.
    named: usize,
}

const SCALARS: [&str; 15] = [
    "int32", "int64", "uint32", "uint64", "sint32", "sint64", "bool", "string", "bytes", "fixed32", "fixed64",
    "sfixed32", "sfixed64", "double", "float",
];

/// A message or an enum of a world.
struct Known {
    full: String,
    file: usize,
    is_enum: bool,
    /// Of an enum, whether its first value is zero.
    is_zero_first: bool,
    /// Numbers of a message that are open to extensions.
    ranges: Vec<(u32, u32)>,
}

impl World {
    /// All messages and enums.
    fn known(&self) -> Vec<Known> {
        let mut known = Vec::new();
        for (file, one) in self.files.iter().enumerate() {
            let scope = format!(".{}.{}", self.tag, one.package);
            know(&scope, file, &one.messages, &one.enums, &mut known);
        }
        known
    }
}

fn know(scope: &str, file: usize, messages: &[Message], enums: &[Enum], known: &mut Vec<Known>) {
    for one in enums {
        let is_zero_first = one.values.first().is_some_and(|(_, number)| *number == 0);
        let full = format!("{scope}.{}", one.name);
        known.push(Known { full, file, is_enum: true, is_zero_first, ranges: Vec::new() });
    }
    for one in messages {
        let full = format!("{scope}.{}", one.name);
        know(&full, file, &one.messages, &one.enums, known);
        known.push(Known { full, file, is_enum: false, is_zero_first: false, ranges: one.extension_ranges.clone() });
    }
}

/// Calls `visit` for each message, those within messages too.
fn each_message(messages: &mut [Message], visit: &mut impl FnMut(&mut Message)) {
    for message in messages {
        visit(message);
        each_message(&mut message.messages, visit);
    }
}
