//! The words of Connect: headers, the query of a GET, codes, errors. Pure.

use std::borrow::Cow;
use std::io::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::{BufMut as _, Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, header};
use ninefold::tonic::{Code, Status};
use prost_reflect::DescriptorPool;
use serde_json::{Map, Value as Json, json};

use super::super::write_timeout;
use crate::error::Error;
use crate::frames::Packing;
use crate::transcode::status;
use crate::{path, value};

/// Header that says how many milliseconds a call has.
pub(super) const TIMEOUT: &str = "connect-timeout-ms";
/// Header that says how the envelopes of a stream are packed.
pub(super) const STREAM_ENCODING: &str = "connect-content-encoding";
/// Header that says how the envelopes of an answer may be packed.
pub(super) const STREAM_ACCEPT: &str = "connect-accept-encoding";
/// Most digits of a timeout, as the protocol has it.
const TIMEOUT_DIGITS_MAX: usize = 10;
/// Messages below this gain nothing by being packed.
pub(super) const PACKED_BYTES_MIN: usize = 1024;
/// Flag of an envelope that is packed.
pub(super) const PACKED: u8 = 1;
/// Flag of the envelope that ends a stream of answers.
pub(super) const END: u8 = 2;

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    Json,
    Proto,
}

impl Written {
    /// Content type of a bare message.
    pub(super) const fn of_one(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Proto => "application/proto",
        }
    }

    /// Content type of a stream.
    pub(super) const fn of_stream(self) -> &'static str {
        match self {
            Self::Json => "application/connect+json",
            Self::Proto => "application/connect+proto",
        }
    }
}

/// The content type, without its parameters and in lower case.
pub(super) fn essence(headers: &HeaderMap) -> String {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default();
    String::from_utf8_lossy(kind).trim().to_ascii_lowercase()
}

/// Whether answers may be packed.
pub(super) fn accepts_gzip(headers: &HeaderMap, name: &str) -> bool {
    let said = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    said.flat_map(|value| value.split(',')).any(|one| {
        let (coding, weight) = one.split_once(';').unwrap_or((one, ""));
        coding.trim().eq_ignore_ascii_case("gzip") && !matches!(weight.trim(), "q=0" | "q=0.0")
    })
}

/// Refuses what is packed in a way that is not known here.
pub(super) fn check_encoding(headers: &HeaderMap, name: &str) -> Result<(), Error> {
    match headers.get(name).map(HeaderValue::as_bytes) {
        None | Some(b"" | b"identity" | b"gzip") => Ok(()),
        Some(other) => Err(Error::CompressionUnknown(String::from_utf8_lossy(other).into_owned())),
    }
}

/// Says the time of a call as gRPC does. What a caller says as gRPC does not count here.
pub(super) fn translate_timeout(headers: &mut HeaderMap) -> Result<(), Error> {
    let time = match headers.remove(TIMEOUT) {
        None => None,
        Some(text) => {
            let digits = text.to_str().ok().filter(|text| !text.is_empty() && text.len() <= TIMEOUT_DIGITS_MAX);
            let millis = digits.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let millis = millis.and_then(|text| text.parse().ok());
            let millis = millis.ok_or_else(|| Error::invalid(TIMEOUT, "is no number of at most 10 digits"))?;
            Some(Duration::from_millis(millis))
        }
    };
    write_timeout(headers, time);
    Ok(())
}

/// What the query of a GET says.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(super) written: Written,
    pub(super) message: Bytes,
    pub(super) packing: Packing,
}

impl Asked {
    /// Reads a query. Its parameters may come in any order, each once; those of others are not looked at.
    pub(crate) fn of(query: &str) -> Result<Self, Error> {
        let [mut version, mut encoding, mut message, mut base64, mut compression] = [const { None }; 5];
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, text) = parameter.split_once('=').unwrap_or((parameter, ""));
            let place = match name {
                "connect" => &mut version,
                "encoding" => &mut encoding,
                "message" => &mut message,
                "base64" => &mut base64,
                "compression" => &mut compression,
                _ => continue,
            };
            let decoded = if text.contains(['%', '+']) {
                let spaced = text.replace('+', " ");
                Cow::Owned(path::decode(&spaced).map_err(|path::Malformed(why)| Error::invalid(name, why))?)
            } else {
                Cow::Borrowed(text)
            };
            if place.replace(decoded).is_some() {
                return Err(Error::invalid(name, "is given twice"));
            }
        }
        if version.is_some_and(|version| version != "v1") {
            return Err(Error::invalid("connect", "is not \"v1\""));
        }
        let written = match encoding.as_deref() {
            Some("json") => Written::Json,
            Some("proto") => Written::Proto,
            Some(other) => return Err(Error::MediaTypeUnsupported(other.chars().take(64).collect())),
            None => return Err(Error::invalid("encoding", "is missing: \"json\" or \"proto\"")),
        };
        let message = message.ok_or_else(|| Error::invalid("message", "is missing"))?;
        let message = match base64.as_deref() {
            Some("1") => value::base64(&message).map_err(|why| Error::invalid("message", why))?.into(),
            None | Some("0" | "") => Bytes::copy_from_slice(message.as_bytes()),
            Some(_) => return Err(Error::invalid("base64", "is not \"1\"")),
        };
        let packing = match compression.as_deref() {
            None | Some("" | "identity") => Packing::Plain,
            Some("gzip") => Packing::Gzip,
            Some(other) => return Err(Error::CompressionUnknown(other.chars().take(64).collect())),
        };
        Ok(Self { written, message, packing })
    }
}

/// A code as Connect writes it.
const fn word(code: Code) -> &'static str {
    match code {
        Code::Cancelled => "canceled",
        // An OK is no error; who says it is one, says nothing.
        Code::Ok | Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

/// A status as Connect writes errors. Details keep their bytes, and are spelled out beside them where their type is known.
pub(super) fn error(status: &Status, contract: Option<&DescriptorPool>) -> Json {
    let mut error = Map::new();
    error.insert("code".to_owned(), json!(word(status.code())));
    if !status.message().is_empty() {
        error.insert("message".to_owned(), json!(status.message()));
    }
    let details: Vec<Json> = status::details(status)
        .iter()
        .map(|detail| {
            let name = detail.type_url.rsplit('/').next().unwrap_or_default();
            let mut object = Map::new();
            object.insert("type".to_owned(), json!(name));
            object.insert("value".to_owned(), json!(STANDARD_NO_PAD.encode(&detail.value)));
            if let Some(spelled) = status::spelled(detail, contract) {
                object.insert("debug".to_owned(), spelled);
            }
            Json::Object(object)
        })
        .collect();
    if !details.is_empty() {
        error.insert("details".to_owned(), Json::Array(details));
    }
    Json::Object(error)
}

/// What a service says beside its messages, in the words of the end of a stream.
pub(super) fn metadata(headers: &HeaderMap) -> Json {
    let mut metadata: Map<String, Json> = Map::new();
    for (name, value) in headers {
        let Ok(text) = value.to_str() else { continue };
        if let Json::Array(values) = metadata.entry(name.as_str()).or_insert_with(|| json!([])) {
            values.push(json!(text));
        }
    }
    Json::Object(metadata)
}

/// Puts a message into an envelope.
pub(super) fn envelope(flag: u8, message: &[u8]) -> Bytes {
    let mut whole = BytesMut::with_capacity(5 + message.len());
    whole.put_u8(flag);
    whole.put_u32(u32::try_from(message.len()).expect("answers are limited to far less than 4 GiB"));
    whole.put_slice(message);
    whole.freeze()
}

/// Packs a message, where that may gain something.
pub(super) fn packed(message: &[u8]) -> Option<Vec<u8>> {
    if message.len() < PACKED_BYTES_MIN {
        return None;
    }
    let mut encoder = GzEncoder::new(Vec::with_capacity(message.len() / 2), Compression::fast());
    encoder.write_all(message).ok()?;
    encoder.finish().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_of_a_get_is_read_in_any_order() {
        let asked = Asked::of("message=%7B%22id%22%3A%221%22%7D&encoding=json&connect=v1").unwrap();
        assert_eq!((asked.written, &asked.message[..]), (Written::Json, &br#"{"id":"1"}"#[..]));
        for text in ["CgE_", "CgE/", "CgE%2F"] {
            let asked = Asked::of(&format!("encoding=proto&base64=1&message={text}&other=x")).unwrap();
            assert_eq!(&asked.message[..], b"\x0a\x01\x3f", "{text}");
        }
        for wrong in [
            "encoding=json",
            "message=x",
            "encoding=json&message=x&connect=v2",
            "encoding=json&message=x&message=y",
            "encoding=proto&message=*&base64=1",
            "encoding=json&message=x&compression=zstd",
        ] {
            assert!(Asked::of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_timeout_is_said_as_grpc_says_it() {
        let translated = |text: &'static str| {
            let mut headers = HeaderMap::from_iter([(TIMEOUT.parse().unwrap(), HeaderValue::from_static(text))]);
            translate_timeout(&mut headers).ok().map(|()| headers["grpc-timeout"].to_str().unwrap().to_owned())
        };
        assert_eq!(translated("1500").as_deref(), Some("1500m"));
        assert_eq!(translated("9999999999").as_deref(), Some("9999999S"));
        for wrong in ["", "-1", "1s", "12345678901"] {
            assert_eq!(translated(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_error_has_its_details() {
        let status = Status::not_found("no such pump");
        assert_eq!(error(&status, None), json!({"code": "not_found", "message": "no such pump"}));
        let failed = ninefold::fault::status(&Error::invalid("size", "is no number"));
        let told = error(&failed, None);
        assert_eq!(told["code"], "invalid_argument");
        assert!(told["details"][0]["type"].as_str().unwrap().starts_with("google.rpc."));
        assert!(told["details"][0]["debug"].is_object() && told["details"][0]["value"].is_string());
    }
}
