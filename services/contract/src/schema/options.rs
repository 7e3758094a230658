//! Options as they came: raw bytes, in which known and unknown fields and extensions are found by number. Pure.

use crate::read::{Reader, Value};

/// Where in a descriptor set some bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

/// Where a part's options are; empty when it has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Spans(pub(super) Box<[Span]>);

/// The options of a part, or a message inside of them.
///
/// A message may be written in pieces; later ones win, as decoders have it.
#[derive(Clone, Debug, Default)]
pub struct Options<'a> {
    pieces: Vec<&'a [u8]>,
}

impl<'a> Options<'a> {
    pub(crate) fn new(pieces: Vec<&'a [u8]>) -> Self {
        Self { pieces }
    }

    /// Reads a message that stands by itself.
    pub(crate) fn of(message: &'a [u8]) -> Self {
        Self { pieces: vec![message] }
    }

    /// All values of one field, in their order; nothing beyond broken bytes.
    pub(crate) fn values(&self, number: u64) -> Vec<Value<'a>> {
        let mut found = Vec::new();
        for piece in &self.pieces {
            let mut reader = Reader::new(piece);
            while let Ok(Some((field, value))) = reader.next() {
                if field == number {
                    found.push(value);
                }
            }
        }
        found
    }

    /// All fields, in their order.
    pub(crate) fn fields(&self) -> Vec<(u64, Value<'a>)> {
        let mut found = Vec::new();
        for piece in &self.pieces {
            let mut reader = Reader::new(piece);
            while let Ok(Some(field)) = reader.next() {
                found.push(field);
            }
        }
        found
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.pieces.iter().all(|piece| piece.is_empty())
    }

    /// A number, or the number of an enum's value.
    pub fn number(&self, field: u64) -> Option<u64> {
        self.last(field, |value| match value {
            Value::Varint(number) => Some(number),
            Value::Bytes(_) | Value::Fixed32(_) | Value::Fixed64(_) | Value::Group => None,
        })
    }

    /// The last value of a field that is of the right sort.
    fn last<T>(&self, field: u64, pick: impl Fn(Value<'a>) -> Option<T>) -> Option<T> {
        let mut last = None;
        for piece in &self.pieces {
            let mut reader = Reader::new(piece);
            while let Ok(Some((number, value))) = reader.next() {
                if number == field {
                    last = pick(value).or(last);
                }
            }
        }
        last
    }

    /// Numbers of a repeated field, packed or not.
    pub fn numbers(&self, field: u64) -> Vec<u64> {
        let mut found = Vec::new();
        for value in self.values(field) {
            match value {
                Value::Varint(number) => found.push(number),
                Value::Bytes(packed) => {
                    let mut reader = Reader::new(packed);
                    while !reader.is_empty() {
                        let Ok(number) = reader.varint() else { break };
                        found.push(number);
                    }
                }
                Value::Fixed32(_) | Value::Fixed64(_) | Value::Group => {}
            }
        }
        found
    }

    /// A truth.
    pub fn flag(&self, field: u64) -> Option<bool> {
        self.number(field).map(|number| number != 0)
    }

    /// A text; `None` too if it is not UTF-8.
    pub fn text(&self, field: u64) -> Option<&'a str> {
        let bytes = self.last(field, |value| match value {
            Value::Bytes(bytes) => Some(bytes),
            Value::Varint(_) | Value::Fixed32(_) | Value::Fixed64(_) | Value::Group => None,
        });
        std::str::from_utf8(bytes?).ok()
    }

    /// Texts of a repeated field.
    pub fn texts(&self, field: u64) -> Vec<&'a str> {
        self.bytes(field).into_iter().filter_map(|bytes| std::str::from_utf8(bytes).ok()).collect()
    }

    /// A message; empty if it is not there.
    pub fn message(&self, field: u64) -> Options<'a> {
        Options { pieces: self.bytes(field) }
    }

    /// A message, if it is there.
    pub fn message_if_set(&self, field: u64) -> Option<Options<'a>> {
        let pieces = self.bytes(field);
        (!pieces.is_empty()).then_some(Options { pieces })
    }

    /// Messages of a repeated field.
    pub fn messages(&self, field: u64) -> Vec<Options<'a>> {
        self.bytes(field).into_iter().map(|piece| Options { pieces: vec![piece] }).collect()
    }

    pub(super) fn bytes(&self, field: u64) -> Vec<&'a [u8]> {
        let bytes = self.values(field).into_iter().filter_map(|value| match value {
            Value::Bytes(bytes) => Some(bytes),
            Value::Varint(_) | Value::Fixed32(_) | Value::Fixed64(_) | Value::Group => None,
        });
        bytes.collect()
    }
}
