//! How the JSON of a method is read and written, as its contract says.

use ninefold_proto::ninefold::gateway::v1 as wire;
use prost_reflect::{DeserializeOptions, DynamicMessage, FieldDescriptor, SerializeOptions};
use serde_json::Value as Json;

use crate::traffic;

/// How JSON is read and written. The default is the Protobuf mapping as it stands, and strict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a word of the contract, and any of them may be said")]
pub(crate) struct Notation {
    proto_names: bool,
    enum_numbers: bool,
    defaults: bool,
    pretty: bool,
    /// Whether what a body names and the contract does not know is passed over.
    passes_fields: bool,
    /// Whether parameters that the contract does not know are passed over.
    passes_parameters: bool,
}

impl Notation {
    /// What a contract says. Messages of streams stand on one line each, so they are never indented.
    pub(crate) fn of(words: wire::Json, is_stream: bool) -> Self {
        Self {
            proto_names: words.proto_names,
            enum_numbers: words.enum_numbers,
            defaults: words.defaults,
            pretty: words.pretty && !is_stream,
            // A word of a later version of ours is no leave.
            passes_fields: words.unknown_fields() == wire::Unknown::Ignore,
            passes_parameters: words.unknown_parameters() == wire::Unknown::Ignore,
        }
    }

    /// The same, with what settings say instead.
    pub(crate) fn with(self, said: &traffic::Json, is_stream: bool) -> Self {
        let passes = |said: Option<traffic::Unknown>, by_contract| match said {
            Some(said) => said == traffic::Unknown::Ignore,
            None => by_contract,
        };
        Self {
            proto_names: said.proto_names.unwrap_or(self.proto_names),
            enum_numbers: said.enum_numbers.unwrap_or(self.enum_numbers),
            defaults: said.defaults.unwrap_or(self.defaults),
            pretty: said.pretty.unwrap_or(self.pretty) && !is_stream,
            passes_fields: passes(said.unknown_fields, self.passes_fields),
            passes_parameters: passes(said.unknown_parameters, self.passes_parameters),
        }
    }

    /// What is unlike the Protobuf mapping as it stands, as a sentence fragment. `None` if nothing is.
    pub(crate) fn words(self) -> Option<String> {
        let said = [
            (self.proto_names, "names of the contract"),
            (self.enum_numbers, "enums as numbers"),
            (self.defaults, "fields with their defaults"),
            (self.pretty, "indented"),
            (self.passes_fields, "unknown fields passed over"),
            (self.passes_parameters, "unknown parameters passed over"),
        ];
        let said: Vec<_> = said.into_iter().filter_map(|(holds, words)| holds.then_some(words)).collect();
        (!said.is_empty()).then(|| said.join(", "))
    }

    /// Whether answers are written as the Protobuf mapping has it unasked.
    pub(crate) const fn is_usual(self) -> bool {
        !(self.proto_names || self.enum_numbers || self.defaults || self.pretty)
    }

    /// Whether parameters that the contract does not know are passed over.
    pub(crate) const fn passes_parameters(self) -> bool {
        self.passes_parameters
    }

    /// The name of a field in answers.
    pub(crate) fn name(self, field: &FieldDescriptor) -> &str {
        if self.proto_names { field.name() } else { field.json_name() }
    }

    /// Whether enums are numbers in answers.
    pub(crate) const fn has_enum_numbers(self) -> bool {
        self.enum_numbers
    }

    /// What sets the names of things apart that are written so, in a document that also tells of the usual notation.
    pub(crate) const fn mark(self) -> &'static str {
        match (self.proto_names, self.enum_numbers) {
            (false, false) => "",
            (true, false) => ".proto_names",
            (false, true) => ".enum_numbers",
            (true, true) => ".proto_names.enum_numbers",
        }
    }

    pub(super) const fn reading(self) -> DeserializeOptions {
        DeserializeOptions::new().deny_unknown_fields(!self.passes_fields)
    }

    pub(super) const fn writing(self) -> SerializeOptions {
        SerializeOptions::new()
            .use_proto_field_name(self.proto_names)
            .use_enum_numbers(self.enum_numbers)
            .skip_default_fields(!self.defaults)
    }

    /// Writes a message as the reflection library does.
    pub(super) fn write(self, message: &DynamicMessage, text: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        if self.pretty {
            message.serialize_with_options(&mut serde_json::Serializer::pretty(text), &self.writing())
        } else {
            message.serialize_with_options(&mut serde_json::Serializer::new(text), &self.writing())
        }
    }

    /// Writes a value.
    pub(super) fn text(self, json: &Json) -> Result<Vec<u8>, serde_json::Error> {
        if self.pretty { serde_json::to_vec_pretty(json) } else { serde_json::to_vec(json) }
    }
}
