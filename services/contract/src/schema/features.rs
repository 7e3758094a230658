//! Features of editions, and what they are in proto2 and proto3. Pure.

use crate::read::{Reader, Value};

/// Whether a field tells that it is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It does.
    Explicit,
    /// It does not: absent and zero are the same.
    Implicit,
    /// It must not be absent.
    Required,
}

/// What the implementations of languages do with names that JSON cannot tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonFormat {
    /// There are none: JSON works.
    Allow,
    /// They may exist: JSON works as far as it does.
    LegacyBestEffort,
}

impl JsonFormat {
    /// Its name in `google.protobuf.FeatureSet`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "ALLOW",
            Self::LegacyBestEffort => "LEGACY_BEST_EFFORT",
        }
    }
}

/// What a text is in C++.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CppString {
    /// A view.
    View,
    /// A cord.
    Cord,
    /// A string.
    String,
}

impl CppString {
    /// Its name in `pb.CppFeatures`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::View => "VIEW",
            Self::Cord => "CORD",
            Self::String => "STRING",
        }
    }
}

/// What holds for a part of a schema, after all that surrounds it had its say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Presence of fields.
    pub presence: Presence,
    /// Whether enums take only the numbers that they name.
    pub is_enum_closed: bool,
    /// Whether repeated numbers are written as one.
    pub is_packed: bool,
    /// Whether texts are checked for UTF-8.
    pub is_utf8_verified: bool,
    /// Whether messages are written between two marks instead of after their length.
    pub is_delimited: bool,
    /// JSON.
    pub json_format: JsonFormat,
    /// Texts in C++.
    pub cpp_string: CppString,
    /// Whether Java checks texts for UTF-8 even if others do not.
    pub is_utf8_verified_in_java: bool,
}

/// The number that `google.protobuf.Edition` gives 2024.
const EDITION_2024: u32 = 1001;

impl Features {
    /// What holds if nothing is said.
    pub(super) fn of(edition: super::Edition) -> Self {
        let proto2 = Self {
            presence: Presence::Explicit,
            is_enum_closed: true,
            is_packed: false,
            is_utf8_verified: false,
            is_delimited: false,
            json_format: JsonFormat::LegacyBestEffort,
            cpp_string: CppString::String,
            is_utf8_verified_in_java: false,
        };
        let modern = Self {
            is_enum_closed: false,
            is_packed: true,
            is_utf8_verified: true,
            json_format: JsonFormat::Allow,
            ..proto2
        };
        match edition {
            super::Edition::Proto2 => proto2,
            super::Edition::Proto3 => Self { presence: Presence::Implicit, ..modern },
            super::Edition::Edition(number) if number < EDITION_2024 => modern,
            super::Edition::Edition(_) => Self { cpp_string: CppString::View, ..modern },
        }
    }

    /// Takes over what a serialized `google.protobuf.FeatureSet` says. What is not known in it is passed over.
    pub(super) fn take(&mut self, set: &[u8]) {
        let mut reader = Reader::new(set);
        while let Ok(Some((number, value))) = reader.next() {
            match (number, value) {
                (1, Value::Varint(1)) => self.presence = Presence::Explicit,
                (1, Value::Varint(2)) => self.presence = Presence::Implicit,
                (1, Value::Varint(3)) => self.presence = Presence::Required,
                (2, Value::Varint(kind @ 1..=2)) => self.is_enum_closed = kind == 2,
                (3, Value::Varint(kind @ 1..=2)) => self.is_packed = kind == 1,
                (4, Value::Varint(kind @ 2..=3)) => self.is_utf8_verified = kind == 2,
                (5, Value::Varint(kind @ 1..=2)) => self.is_delimited = kind == 2,
                (6, Value::Varint(1)) => self.json_format = JsonFormat::Allow,
                (6, Value::Varint(2)) => self.json_format = JsonFormat::LegacyBestEffort,
                (1000, Value::Bytes(cpp)) => self.take_cpp(cpp),
                (1001, Value::Bytes(java)) => self.take_java(java),
                _ => {}
            }
        }
    }

    fn take_cpp(&mut self, set: &[u8]) {
        let mut reader = Reader::new(set);
        while let Ok(Some(field)) = reader.next() {
            match field {
                (2, Value::Varint(1)) => self.cpp_string = CppString::View,
                (2, Value::Varint(2)) => self.cpp_string = CppString::Cord,
                (2, Value::Varint(3)) => self.cpp_string = CppString::String,
                _ => {}
            }
        }
    }

    fn take_java(&mut self, set: &[u8]) {
        let mut reader = Reader::new(set);
        while let Ok(Some(field)) = reader.next() {
            if let (2, Value::Varint(kind @ 1..=2)) = field {
                self.is_utf8_verified_in_java = kind == 2;
            }
        }
    }
}
