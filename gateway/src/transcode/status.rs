//! A gRPC status as an HTTP answer: `google.rpc.Status` in JSON, its details spelled out where their type is known.

use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ninefold::fault;
use ninefold::tonic::Status;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Map, Value as Json, json};

use super::notation::Notation;

/// Most details that are spelled out.
const DETAILS_MAX: usize = 64;

/// The types that errors carry by custom: `google.rpc.ErrorInfo`, `BadRequest`, `RetryInfo` and their like.
static KNOWN: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(fault::DETAIL_DESCRIPTORS).expect("the descriptors are compiled in"));

/// `google.rpc.Status` as it travels.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// The details of a status, at most 64.
pub(crate) fn details(status: &Status) -> Vec<prost_types::Any> {
    let mut details = RpcStatus::decode(status.details()).unwrap_or_default().details;
    details.truncate(DETAILS_MAX);
    details
}

/// Writes a status as JSON. Types are looked for in `contract` first, then among those of `google.rpc`; a detail of an
/// unknown type keeps its bytes as base64.
pub(crate) fn json(status: &Status, contract: Option<&DescriptorPool>) -> Json {
    let details: Vec<Json> = details(status).iter().map(|detail| detail_json(detail, contract)).collect();
    let mut body = Map::new();
    body.insert("code".to_owned(), json!(i32::from(status.code())));
    body.insert("message".to_owned(), json!(status.message()));
    body.insert("details".to_owned(), Json::Array(details));
    Json::Object(body)
}

fn detail_json(detail: &prost_types::Any, contract: Option<&DescriptorPool>) -> Json {
    let mut object = Map::new();
    object.insert("@type".to_owned(), json!(detail.type_url));
    match spelled(detail, contract) {
        Some(Json::Object(fields)) => object.extend(fields),
        // A well-known type with a JSON form of its own, such as a Duration.
        Some(other) => _ = object.insert("value".to_owned(), other),
        None => _ = object.insert("value".to_owned(), json!(STANDARD.encode(&detail.value))),
    }
    Json::Object(object)
}

/// A detail in the JSON of its type, if that is known.
pub(crate) fn spelled(detail: &prost_types::Any, contract: Option<&DescriptorPool>) -> Option<Json> {
    let name = detail.type_url.rsplit('/').next().unwrap_or_default();
    let known = contract.and_then(|pool| pool.get_message_by_name(name)).or_else(|| KNOWN.get_message_by_name(name));
    known.and_then(|descriptor| DynamicMessage::decode(descriptor, detail.value.as_slice()).ok()).and_then(|message| {
        message.serialize_with_options(serde_json::value::Serializer, &Notation::default().writing()).ok()
    })
}

/// When to try again, if the status says.
pub(crate) fn retry_after(status: &Status) -> Option<Duration> {
    #[derive(Clone, PartialEq, prost::Message)]
    struct RetryInfo {
        #[prost(message, optional, tag = "1")]
        retry_delay: Option<prost_types::Duration>,
    }
    let detail = details(status).into_iter().find(|detail| detail.type_url.ends_with("/google.rpc.RetryInfo"))?;
    RetryInfo::decode(detail.value.as_slice()).ok()?.retry_delay?.try_into().ok()
}
