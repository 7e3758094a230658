//! JSON to Protobuf and back, by the binding of a route. Pure: no I/O.

mod amend;
pub(crate) mod direct;
pub(crate) mod elements;
pub(crate) mod mask;
pub(crate) mod notation;
pub(crate) mod query;
pub(crate) mod status;
pub(crate) mod stream;
#[cfg(test)]
mod tests;
mod times;
mod unique;

use std::borrow::Cow;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use ninefold::fault::Violation;
use prost::Message as _;
use prost_reflect::{
    DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _, Value,
};
use serde::de::DeserializeSeed as _;
use serde_json::Value as Json;

use self::notation::Notation;
use self::unique::Unique;
use crate::binding::{Binding, Body, FieldPath};
use crate::contract::Method;
use crate::error::Error;
use crate::{path, value};

/// A message that is not Protobuf to the outside, but a body with a type.
const HTTP_BODY: &str = "google.api.HttpBody";

/// What a body is that is nothing else.
pub(crate) const OCTETS: Cow<'static, str> = Cow::Borrowed("application/octet-stream");
/// What an answer is that is a message.
const JSON: Cow<'static, str> = Cow::Borrowed("application/json");
/// Most path variables of a usual request.
const BOUND_MAX: usize = 8;

/// What of an HTTP request becomes a message.
#[derive(Clone, Debug)]
pub(crate) struct Parts<'r> {
    /// The path, without the template's custom verb.
    pub(crate) path: &'r path::Path,
    /// The query, without the question mark.
    pub(crate) query: &'r str,
    /// The headers.
    pub(crate) headers: &'r HeaderMap,
    /// The body.
    pub(crate) body: Bytes,
    /// How what is unknown is read.
    pub(crate) notation: Notation,
}

/// Makes the message of a request.
///
/// The path wins: a field that it binds may be given elsewhere only with the same value. (A JSON body that holds the
/// default of a field without presence counts as not giving it: the two are the same message.) Parameters that the
/// binding does not know are refused.
///
/// # Errors
/// [`Error::RequestInvalid`] with every violation of path and query, or the first of the body;
/// [`Error::MediaTypeUnsupported`] for a body that is no JSON.
pub(crate) fn request(method: &Method, binding: &Binding, parts: &Parts<'_>) -> Result<Bytes, Error> {
    if let Some(message) = request_directly(method, binding, parts) {
        return Ok(message);
    }
    let message = read_body(method, &binding.body, parts)?;
    bind(message, binding, &binding.body, parts)
}

/// Makes one message of a stream of requests out of its JSON. Where the binding names no place for a body, which only
/// sockets can have, it is the whole message.
///
/// # Errors
/// As for [`request`].
pub(crate) fn element(method: &Method, binding: &Binding, parts: &Parts<'_>) -> Result<Bytes, Error> {
    if binding.body != Body::Nowhere {
        return request(method, binding, parts);
    }
    let message = read_body(method, &Body::Whole, parts)?;
    bind(message, binding, &Body::Whole, parts)
}

/// Makes one message of a stream of requests out of a whole message, to which the path has to agree.
///
/// # Errors
/// As for [`request`].
pub(crate) fn whole_element(method: &Method, binding: &Binding, parts: &Parts<'_>) -> Result<Bytes, Error> {
    let message = DynamicMessage::decode(method.input.clone(), parts.body.clone())
        .map_err(|error| Error::invalid("", format!("is no {}: {error}", method.input.full_name())))?;
    bind(message, binding, &Body::Whole, parts)
}

/// Sets what path and query say, and which fields a PATCH is about; `body` is where the body went.
fn bind(mut message: DynamicMessage, binding: &Binding, body: &Body, parts: &Parts<'_>) -> Result<Bytes, Error> {
    let mut violations = Vec::new();
    let bound = bind_path(binding, parts.path, &mut violations);
    let ground = query::Ground { body, bound: &bound, passes_unknown: parts.notation.passes_parameters() };
    query::apply(&mut message, &ground, parts.query, &mut violations);
    for (field, bound) in bound {
        match value::at(&message, field) {
            Some(given) if given != bound => {
                violations.push(Violation::new(field.to_string(), "differs from what the path says"));
            }
            _ => {
                if let Err(why) = value::set(&mut message, field, bound) {
                    violations.push(Violation::new(field.to_string(), why));
                }
            }
        }
    }
    if !violations.is_empty() {
        return Err(Error::RequestInvalid(violations));
    }
    mask::fill(&mut message, binding, &parts.body);
    Ok(message.encode_to_vec().into())
}

/// Makes the message of a usual request: a JSON body that is the whole message, save what the path binds. `None` where
/// something is unusual, or wrong.
fn request_directly(method: &Method, binding: &Binding, parts: &Parts<'_>) -> Option<Bytes> {
    let plan = method.reading.as_ref()?;
    if binding.body != Body::Whole || parts.body.is_empty() || !parts.query.is_empty() {
        return None;
    }
    check_media_type(parts.headers).ok()?;
    let mut bound = [0; BOUND_MAX];
    for (number, variable) in bound.iter_mut().zip(&binding.variables) {
        *number = variable.number_of_one()?;
    }
    let bound = bound.get(..binding.variables.len())?;
    let mut message = Vec::with_capacity(parts.body.len());
    plan.read(&parts.body, bound, &mut message).ok()?;
    if !bound.is_empty() {
        let mut violations = Vec::new();
        let mut of_path = DynamicMessage::new(method.input.clone());
        for (field, value) in bind_path(binding, parts.path, &mut violations) {
            of_path.set_field(field.split().0, value);
        }
        of_path.encode(&mut message).ok().filter(|()| violations.is_empty())?;
    }
    Some(message.into())
}

/// The values that the path binds.
pub(crate) fn bind_path<'b>(
    binding: &'b Binding,
    path: &path::Path,
    violations: &mut Vec<Violation>,
) -> Vec<(&'b FieldPath, Value)> {
    let texts = match binding.pattern.bind(path) {
        Ok(texts) => texts,
        Err(path::Malformed(why)) => {
            violations.push(Violation::new("", why));
            return Vec::new();
        }
    };
    let mut bound = Vec::with_capacity(texts.len());
    for (field, text) in binding.variables.iter().zip(texts) {
        match value::parse(field.split().0, &text) {
            Ok(value) => bound.push((field, value)),
            Err(why) => violations.push(Violation::new(field.to_string(), why)),
        }
    }
    bound
}

fn read_body(method: &Method, rule: &Body, parts: &Parts<'_>) -> Result<DynamicMessage, Error> {
    let (input, reading) = (&method.input, parts.notation.reading());
    let empty = || DynamicMessage::new(input.clone());
    match rule {
        Body::Nowhere if parts.body.is_empty() => Ok(empty()),
        Body::Nowhere => Err(Error::invalid("", "this route takes no body")),
        Body::Whole if is_http_body(input) => Ok(http_body(input, parts)),
        // An empty body leaves its field unset; `{}` sets it.
        Body::Whole | Body::Field(_) if parts.body.is_empty() => Ok(empty()),
        Body::Whole => {
            check_media_type(parts.headers)?;
            read_json(input, &parts.body, "", &reading)
        }
        Body::Field(path) => {
            let mut message = empty();
            let (field, _) = path.split();
            let is_one = !field.is_list() && !field.is_map();
            let value = match field.kind() {
                Kind::Message(inner) if is_one && is_http_body(&inner) => Value::Message(http_body(&inner, parts)),
                Kind::Message(inner) if is_one => {
                    check_media_type(parts.headers)?;
                    Value::Message(read_json(&inner, &parts.body, &path.to_string(), &reading)?)
                }
                _ => {
                    check_media_type(parts.headers)?;
                    match read_field(field, &parts.body, &reading)? {
                        Some(value) => value,
                        None => return Ok(message),
                    }
                }
            };
            place(&mut message, path, value);
            Ok(message)
        }
    }
}

/// Sets the value at a path, whole, also if the field is repeated.
fn place(message: &mut DynamicMessage, path: &FieldPath, value: Value) {
    let (field, way) = path.split();
    let mut message = message;
    for step in way {
        message = message.get_field_mut(step).as_message_mut().expect("every step of a field path is a message");
    }
    message.set_field(field, value);
}

/// Reads a JSON object as a message; `prefix` is where it stands in the whole.
fn read_json(
    descriptor: &MessageDescriptor,
    body: &[u8],
    prefix: &str,
    reading: &DeserializeOptions,
) -> Result<DynamicMessage, Error> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut json, &mut track);
    let read = DynamicMessage::deserialize_with_options(descriptor.clone(), tracked, reading);
    let message = match read {
        Ok(message) => message,
        Err(error) => {
            let malformed = malformed_json(prefix, &track.path().to_string(), &error);
            return read_amended(descriptor, body, reading).ok_or(malformed);
        }
    };
    json.end().map_err(|error| malformed_json(prefix, "", &error))?;
    unique(descriptor, body, prefix)?;
    Ok(message)
}

/// Reads what the library does not know. `None` where it is no such thing.
fn read_amended(descriptor: &MessageDescriptor, body: &[u8], reading: &DeserializeOptions) -> Option<DynamicMessage> {
    let mut json: Json = serde_json::from_slice(body).ok()?;
    if !amend::body(descriptor, &mut json) {
        return None;
    }
    unique(descriptor, body, "").ok()?;
    let mut message = DynamicMessage::deserialize_with_options(descriptor.clone(), json, reading).ok()?;
    amend::anys(&mut message, None);
    Some(message)
}

/// Refuses a field that is given twice.
fn unique(descriptor: &MessageDescriptor, body: &[u8], prefix: &str) -> Result<(), Error> {
    Unique::Message(descriptor.clone())
        .deserialize(&mut serde_json::Deserializer::from_slice(body))
        .map_err(|error| malformed_json(prefix, "", &error))
}

fn malformed_json(prefix: &str, path: &str, error: &serde_json::Error) -> Error {
    // The tracker writes "." for the whole and "?" for a place that it cannot name.
    let path = path.trim_end_matches(['.', '?']);
    let dot = if prefix.is_empty() || path.is_empty() { "" } else { "." };
    Error::invalid(format!("{prefix}{dot}{path}"), error.to_string())
}

/// Reads a field that is no single message: a scalar, a list or a map. `None` for `null`.
fn read_field(field: &FieldDescriptor, body: &[u8], reading: &DeserializeOptions) -> Result<Option<Value>, Error> {
    let json: Json = serde_json::from_slice(body).map_err(|error| malformed_json(field.name(), "", &error))?;
    let parent = field.parent_message().clone();
    let wrapped = Json::Object([(field.json_name().to_owned(), json)].into_iter().collect());
    let mut message = DynamicMessage::deserialize_with_options(parent, wrapped, reading)
        .map_err(|error| malformed_json(field.name(), "", &error))?;
    Ok(message.take_field(field))
}

/// A body must say that it is JSON. Else a page of a stranger could have a browser send one as plain text, without asking.
fn check_media_type(headers: &HeaderMap) -> Result<(), Error> {
    let Some(kind) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let text = String::from_utf8_lossy(kind.as_bytes());
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json")) {
        Ok(())
    } else {
        Err(Error::MediaTypeUnsupported(essence))
    }
}

/// Whether messages of this type are bodies with a type of their own.
pub(crate) fn is_http_body(message: &MessageDescriptor) -> bool {
    message.full_name() == HTTP_BODY
}

fn http_body(descriptor: &MessageDescriptor, parts: &Parts<'_>) -> DynamicMessage {
    let kind = parts.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let raw = HttpBody { content_type: kind.to_owned(), data: parts.body.clone() };
    DynamicMessage::decode(descriptor.clone(), raw.encode_to_vec().as_slice())
        .unwrap_or_else(|_| DynamicMessage::new(descriptor.clone()))
}

/// What of `google.api.HttpBody` the edge reads.
#[derive(Clone, PartialEq, prost::Message)]
struct HttpBody {
    #[prost(string, tag = "1")]
    content_type: String,
    #[prost(bytes = "bytes", tag = "2")]
    data: Bytes,
}

/// An answer's body and its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// `application/json`, or what the service said in an `HttpBody`.
    pub(crate) content_type: Cow<'static, str>,
    /// The body.
    pub(crate) body: Bytes,
}

/// Whether answers of a binding are bodies with a type of their own.
pub(crate) fn answers_http_body(output: &MessageDescriptor, binding: &Binding) -> bool {
    match &binding.response_body {
        None => is_http_body(output),
        Some(field) => match field.kind() {
            Kind::Message(message) => !field.is_list() && is_http_body(&message),
            _ => false,
        },
    }
}

/// Writes the answer of a message.
///
/// # Errors
/// What is wrong with the message, as a sentence fragment.
pub(crate) fn answer(
    method: &Method,
    binding: &Binding,
    notation: Notation,
    message: Bytes,
) -> Result<Answer, &'static str> {
    const UNREADABLE: &str = "its answer cannot be decoded";
    let output = &method.output;
    if answers_http_body(output, binding) {
        let raw = match &binding.response_body {
            None => message,
            Some(field) => match DynamicMessage::decode(output.clone(), message)
                .map_err(|_| UNREADABLE)?
                .get_field(field)
                .as_message()
            {
                Some(inner) => inner.encode_to_vec().into(),
                None => Bytes::new(),
            },
        };
        let HttpBody { content_type, data } = HttpBody::decode(raw).map_err(|_| UNREADABLE)?;
        let content_type = if content_type.is_empty() { OCTETS } else { content_type.into() };
        return Ok(Answer { content_type, body: data });
    }
    if let (Some(plan), None, true) = (&method.writing, &binding.response_body, notation.is_usual()) {
        let mut body = Vec::with_capacity(message.len() * 2 + 16);
        if plan.write(&message, &mut body).is_ok() {
            return Ok(Answer { content_type: JSON, body: body.into() });
        }
    }
    let message = DynamicMessage::decode(output.clone(), message).map_err(|_| UNREADABLE)?;
    let body = match &binding.response_body {
        None => json(&message, notation),
        Some(field) => json_of_field(&message, field, notation),
    };
    let body = body.map_err(|_| "its answer has no JSON form")?;
    Ok(Answer { content_type: JSON, body: body.into() })
}

/// Makes a message of the JSON that is all of it, outside of any binding.
///
/// # Errors
/// [`Error::RequestInvalid`] with the place and what is wrong there.
pub(crate) fn read_message(method: &Method, text: &[u8]) -> Result<Bytes, Error> {
    if let Some(plan) = &method.reading {
        let mut message = Vec::with_capacity(text.len());
        if plan.read(text, &[], &mut message).is_ok() {
            return Ok(message.into());
        }
    }
    Ok(read_whole(&method.input, text)?.encode_to_vec().into())
}

/// Writes all of an answer as JSON, outside of any binding.
///
/// # Errors
/// What is wrong with the message, as a sentence fragment.
pub(crate) fn write_message(method: &Method, message: Bytes) -> Result<Vec<u8>, &'static str> {
    if let Some(plan) = &method.writing {
        let mut text = Vec::with_capacity(message.len() * 2 + 16);
        if plan.write(&message, &mut text).is_ok() {
            return Ok(text);
        }
    }
    let message = DynamicMessage::decode(method.output.clone(), message).map_err(|_| "its answer cannot be decoded")?;
    json(&message, Notation::default()).map_err(|_| "its answer has no JSON form")
}

/// Reads a JSON object as a message, as the mapping has it.
///
/// # Errors
/// [`Error::RequestInvalid`] with the place and what is wrong there.
pub(crate) fn read_whole(descriptor: &MessageDescriptor, text: &[u8]) -> Result<DynamicMessage, Error> {
    read_json(descriptor, text, "", &Notation::default().reading())
}

/// Writes a message as JSON.
pub(crate) fn json(message: &DynamicMessage, notation: Notation) -> Result<Vec<u8>, serde_json::Error> {
    if !times::are_lawful(message) {
        return Err(serde::ser::Error::custom("a time is outside of what JSON can say"));
    }
    let mut text = Vec::with_capacity(256);
    let error = match notation.write(message, &mut text) {
        Ok(()) => return Ok(text),
        Err(error) => error,
    };
    // The library writes no `Any` that holds nothing; something that stands for it, it does.
    let mut amended = message.clone();
    amend::anys(&mut amended, Some(message.descriptor().full_name()));
    if amended == *message {
        return Err(error);
    }
    let mut json = amended.serialize_with_options(serde_json::value::Serializer, &notation.writing())?;
    amend::written(&mut json);
    notation.text(&json)
}

/// Writes one field as JSON; one that is not set as its default, so that there is always a value.
fn json_of_field(
    message: &DynamicMessage,
    field: &FieldDescriptor,
    notation: Notation,
) -> Result<Vec<u8>, serde_json::Error> {
    if let (Some(inner), false) = (message.get_field(field).as_message(), field.is_list()) {
        return json(inner, notation);
    }
    if !times::are_lawful(message) {
        return Err(serde::ser::Error::custom("a time is outside of what JSON can say"));
    }
    // Only where the field itself is left out, defaults are asked for, or all messages in it would tell theirs.
    let writing = notation.writing().skip_default_fields(message.has_field(field));
    let whole = message.serialize_with_options(serde_json::value::Serializer, &writing)?;
    notation.text(whole.get(notation.name(field)).unwrap_or(&Json::Null))
}
