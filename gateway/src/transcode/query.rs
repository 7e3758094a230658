//! Query parameters.
//!
//! Names are Protobuf or JSON names with dots between; values have the string forms of the JSON mapping; a repeated field
//! is given by repeating the parameter. A plus is a space, as browsers write it. What is unknown, doubled or bound
//! elsewhere is refused.

use std::borrow::Cow;

use ninefold::fault::Violation;
use prost_reflect::{DynamicMessage, Kind, ReflectMessage as _, Value};

use crate::binding::{Body, FieldPath};
use crate::{path, value};

/// Most parameters of one request.
const PARAMETERS_MAX: usize = 1024;

/// Sets the fields that a query names.
pub(crate) fn apply(
    message: &mut DynamicMessage,
    body: &Body,
    bound: &[(&FieldPath, Value)],
    query: &str,
    violations: &mut Vec<Violation>,
) {
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
        if let Err(why) = apply_one(message, body, bound, &mut given, &name, &text) {
            violations.push(Violation::new(shown(&name), why));
        }
    }
}

fn apply_one(
    message: &mut DynamicMessage,
    body: &Body,
    bound: &[(&FieldPath, Value)],
    given: &mut Vec<FieldPath>,
    name: &str,
    text: &str,
) -> Result<(), String> {
    let path = FieldPath::find(&message.descriptor(), name.split('.'))
        .map_err(|why| format!("is not a parameter of this route: {why}"))?;
    let (field, _) = path.split();
    if field.is_map() {
        return Err("is a map, which a query cannot hold".to_owned());
    }
    let is_message = matches!(field.kind(), Kind::Message(inner) if !value::has_text(&inner));
    if is_message {
        return Err(if field.is_list() {
            "is a list of messages, which a query cannot hold".to_owned()
        } else {
            "is a message; name one of its fields".to_owned()
        });
    }
    let parsed = value::parse(field, text)?;
    if let Some((_, bound)) = bound.iter().find(|(variable, _)| **variable == path) {
        return if *bound == parsed { Ok(()) } else { Err("differs from what the path says".to_owned()) };
    }
    match body {
        Body::Whole => return Err("is not a parameter of this route: its fields are in the body".to_owned()),
        Body::Field(of_body) if path.is_within(of_body) => return Err("is given in the body".to_owned()),
        Body::Field(_) | Body::Nowhere => {}
    }
    if !field.is_list() {
        if given.contains(&path) {
            return Err("is given twice".to_owned());
        }
        given.push(path.clone());
    }
    value::set(message, &path, parsed)
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
