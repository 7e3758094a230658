//! JSON to Protobuf bytes and back in one walk, without a message in between. Pure: no I/O.
//!
//! Contracts are compiled to flat tables ([`plan`]) when they arrive; a body is then read ([`read`]) or written ([`write`])
//! by them, straight from bytes to bytes. The walk knows the common forms only. Whatever is unusual, be it wrong or just
//! rare, makes it give up: [`Unusual`]. The reflection library then does the work, and finds the words for what is wrong.
//! So the two must agree wherever this one answers, which the tests hold them to; it never needs to explain a refusal.
//!
//! What is unusual: an error of any kind, an escaped name, a field given twice, a message in pieces, proto2, groups,
//! `Any`, `Struct` and its like, more fields or map entries than the marks on the stack hold.

mod plan;
mod read;
mod scan;
#[cfg(test)]
mod tests;
mod text;
mod time;
mod write;

use std::sync::Arc;

pub(crate) use plan::{Builder, Tables};

/// The walk gives up; whoever knows all forms has to do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unusual;

/// The way to read and write the messages of one type.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    tables: Arc<Tables>,
    root: plan::TableId,
}

impl Plan {
    /// A plan for a type that a builder was told of.
    pub(crate) fn new(tables: &Arc<Tables>, full_name: &str) -> Option<Self> {
        Some(Self { tables: tables.clone(), root: tables.find(full_name)? })
    }

    /// Appends the message that a JSON body says to `out`, unless it names one of the fields whose numbers are `bound`.
    /// What was appended before giving up has to be cut off again.
    ///
    /// # Errors
    /// [`Unusual`].
    pub(crate) fn read(&self, body: &[u8], bound: &[u32], out: &mut Vec<u8>) -> Result<(), Unusual> {
        let named = read::message(&self.tables, self.root, body, out)?;
        let table = self.tables.table(self.root);
        let is_named = |number: &u32| table.by_number(*number).is_none_or(|(at, _)| named & (1 << at) != 0);
        if bound.iter().any(is_named) { Err(Unusual) } else { Ok(()) }
    }

    /// Appends the JSON of a message to `out`. What was appended before giving up has to be cut off again.
    ///
    /// # Errors
    /// [`Unusual`].
    pub(crate) fn write(&self, message: &[u8], out: &mut Vec<u8>) -> Result<(), Unusual> {
        write::message(&self.tables, self.root, message, out)
    }
}
