//! Query parameters.
//!
//! Names are Protobuf or JSON names with dots between; values have the string forms of the JSON mapping; a repeated field
//! is given by repeating the parameter, an entry of a map as `labels[key]=value`. A plus is a space, as browsers write it.
//! What is doubled or bound elsewhere is refused, and so is what is unknown, unless the contract has it passed over.

use std::borrow::Cow;

use ninefold::fault::Violation;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, ReflectMessage as _, Value};

use crate::binding::{Body, FieldPath};
use crate::{path, value};

/// Most parameters of one request.
const PARAMETERS_MAX: usize = 1024;

/// What is said elsewhere, and how a query is read.
pub(crate) struct Ground<'g> {
    /// Where the body went.
    pub(crate) body: &'g Body,
    /// What the path binds.
    pub(crate) bound: &'g [(&'g FieldPath, Value)],
    /// Whether parameters that the contract does not know are passed over.
    pub(crate) passes_unknown: bool,
}

/// Sets the fields that a query names.
pub(crate) fn apply(message: &mut DynamicMessage, ground: &Ground<'_>, query: &str, violations: &mut Vec<Violation>) {
    let mut given: Vec<FieldPath> = Vec::new();
    for (at, parameter) in query.split('&').filter(|parameter| !parameter.is_empty()).enumerate() {
        if at == PARAMETERS_MAX {
            violations.push(Violation::new("", format!("more than {PARAMETERS_MAX} parameters")));
            return;
        }
        let (name, text) = parameter.split_once('=').unwrap_or((parameter, ""));
        let (name, text) = match (decode(name), decode(text)) {
            (Ok(name), Ok(text)) => (name, text),
            (Err(path::Malformed(why)), _) | (_, Err(path::Malformed(why))) => {
                violations.push(Violation::new(shown(name), why));
                continue;
            }
        };
        if let Err(why) = apply_one(message, ground, &mut given, &name, &text) {
            violations.push(Violation::new(shown(&name), why));
        }
    }
}

fn apply_one(
    message: &mut DynamicMessage,
    ground: &Ground<'_>,
    given: &mut Vec<FieldPath>,
    name: &str,
    text: &str,
) -> Result<(), String> {
    let (name, key) = name.split_once('[').map_or((name, None), |(name, key)| (name, Some(key)));
    let path = match FieldPath::find(&message.descriptor(), name.split('.')) {
        Ok(path) => path,
        Err(_) if ground.passes_unknown => return Ok(()),
        Err(why) => return Err(format!("is not a parameter of this route: {why}")),
    };
    let (field, _) = path.split();
    match key {
        Some(key) => {
            let key = key.strip_suffix(']').ok_or("has a bracket that is not closed")?;
            is_open(ground.body, &path)?;
            return value::put(message, &path, key, text);
        }
        None if field.is_map() => return Err(format!("is a map; name one of its keys, as in {name}[key]")),
        None => is_no_message(field)?,
    }
    let parsed = value::parse(field, text)?;
    if let Some((_, bound)) = ground.bound.iter().find(|(variable, _)| **variable == path) {
        return if *bound == parsed { Ok(()) } else { Err("differs from what the path says".to_owned()) };
    }
    is_open(ground.body, &path)?;
    if !field.is_list() {
        if given.contains(&path) {
            return Err("is given twice".to_owned());
        }
        given.push(path.clone());
    }
    value::set(message, &path, parsed)
}

fn is_no_message(field: &FieldDescriptor) -> Result<(), String> {
    let is_message = matches!(field.kind(), Kind::Message(inner) if !value::has_text(&inner));
    match (is_message, field.is_list()) {
        (true, true) => Err("is a list of messages, which a query cannot hold".to_owned()),
        (true, false) => Err("is a message; name one of its fields".to_owned()),
        (false, _) => Ok(()),
    }
}

/// Whether a field may stand in a query, and not in the body.
fn is_open(body: &Body, path: &FieldPath) -> Result<(), String> {
    match body {
        Body::Whole => Err("is not a parameter of this route: its fields are in the body".to_owned()),
        Body::Field(of_body) if path.is_within(of_body) => Err("is given in the body".to_owned()),
        Body::Field(_) | Body::Nowhere => Ok(()),
    }
}

/// Decodes percent signs and pluses.
fn decode(text: &str) -> Result<Cow<'_, str>, path::Malformed> {
    if !text.contains(['%', '+']) {
        return Ok(text.into());
    }
    path::decode(&text.replace('+', " ")).map(Cow::Owned)
}

/// A name as it goes into an answer: cut to a bearable length.
fn shown(name: &str) -> String {
    name.chars().take(128).collect()
}
