//! Which messages calls are asked with and answered with. Pure.

use std::collections::HashSet;

use crate::schema::{Message, Schema};

/// Messages by what they are for.
#[derive(Debug)]
pub(super) struct Reach<'a> {
    requests: HashSet<&'a str>,
    responses: HashSet<&'a str>,
}

impl<'a> Reach<'a> {
    pub(super) fn new(schema: &'a Schema) -> Self {
        let methods = || schema.services().iter().flat_map(|service| &service.methods);
        Self {
            requests: closure(schema, methods().map(|method| &*method.input)),
            responses: closure(schema, methods().map(|method| &*method.output)),
        }
    }

    /// Whether old callers may still write it: it is asked with, or no call names it, so that it may be stored.
    pub(super) fn is_written_by_callers(&self, message: &Message) -> bool {
        self.requests.contains(&*message.full) || !self.is_of_a_call(message)
    }

    /// Whether old callers may still read it.
    pub(super) fn is_read_by_callers(&self, message: &Message) -> bool {
        self.responses.contains(&*message.full) || !self.is_of_a_call(message)
    }

    /// Whether some call is asked or answered with it, or with what contains it.
    pub(super) fn is_of_a_call(&self, message: &Message) -> bool {
        self.requests.contains(&*message.full) || self.responses.contains(&*message.full)
    }
}

/// The messages of some names, and all that are in their fields.
fn closure<'a>(schema: &'a Schema, names: impl Iterator<Item = &'a str>) -> HashSet<&'a str> {
    let mut reached = HashSet::new();
    let mut next: Vec<&str> = names.collect();
    while let Some(name) = next.pop() {
        if let Some(message) = schema.message(name)
            && reached.insert(&*message.full)
        {
            let named = message.fields.iter().filter(|field| field.kind.is_named());
            next.extend(named.map(|field| &*field.type_name));
        }
    }
    reached
}
