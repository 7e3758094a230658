//! Loki's push API: `POST /loki/api/v1/push`, in JSON and as a snappy block of protobuf.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use flate2::read::MultiGzDecoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{Request, StatusCode};
use ninefold::fault::Fault as _;
use prost::Message;
use serde_json::Value;

use super::logql::{Query, Wanted};
use crate::captured::nanos;
use crate::error::Error;
use crate::ingest::http::{collect, http_status, plain, text, whole_seconds};
use crate::ingest::{Ingest, Room};
use crate::model::{
    ATTRIBUTES_MAX, Attributes, Level, Line, NAME_BYTES_MAX, Nanos, Origin, SpanId, TraceId, VALUE_BYTES_MAX, cut,
};
use crate::parse;
use crate::tier::Signal;

const SIGNAL: &str = "logs";
/// Names under which senders tell the service, the best first.
const SERVICES: [&str; 7] = ["service_name", "service", "app", "application", "container", "container_name", "job"];
/// Names under which senders tell the instance.
const INSTANCES: [&str; 5] = ["service_instance_id", "instance", "pod", "hostname", "host"];
const LEVELS: [&str; 4] = ["level", "severity", "detected_level", "lvl"];
const UNKNOWN_SERVICE: &str = "unknown_service";

/// A request, as Loki's `logproto` writes it.
#[derive(Clone, PartialEq, Message)]
struct Pushed {
    #[prost(message, repeated, tag = "1")]
    streams: Vec<Stream>,
}

#[derive(Clone, PartialEq, Message)]
struct Stream {
    /// Labels as a selector: `{app="shop"}`.
    #[prost(string, tag = "1")]
    labels: String,
    #[prost(message, repeated, tag = "2")]
    entries: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(message, optional, tag = "1")]
    time: Option<prost_types::Timestamp>,
    #[prost(string, tag = "2")]
    line: String,
    #[prost(message, repeated, tag = "3")]
    about: Vec<Label>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

pub(crate) fn routes() -> Router<Arc<Ingest>> {
    Router::new().route("/loki/api/v1/push", post(push))
}

async fn push(State(ingest): State<Arc<Ingest>>, request: Request<Body>) -> Response {
    let outcome = match read(&ingest, request).await {
        Ok((lines, _room)) => ingest.pushed(lines).await,
        Err(error) => {
            ingest.count_refused(Signal::Logs);
            Err(error)
        }
    };
    match outcome {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => {
            let mut response = (http_status(&error), format!("{error}\n")).into_response();
            if let Some(delay) = error.retry_after() {
                response.headers_mut().insert(RETRY_AFTER, whole_seconds(delay).into());
            }
            response
        }
    }
}

async fn read(ingest: &Ingest, request: Request<Body>) -> Result<(Vec<Line>, Room), Error> {
    let malformed = |problem: String| Error::TelemetryMalformed { signal: SIGNAL, problem };
    let kind = text(request.headers(), &CONTENT_TYPE).to_ascii_lowercase();
    let is_json = kind.split(';').next().is_some_and(|kind| kind.trim() == "application/json");
    let encoding = text(request.headers(), &CONTENT_ENCODING).to_ascii_lowercase();
    let (bytes_max, wait) = (ingest.body_bytes_max(), ingest.body_wait());
    let mut room = ingest.room();
    let body = tokio::time::timeout(wait, collect(request.into_body(), bytes_max, &mut room, SIGNAL))
        .await
        .map_err(|_| Error::TelemetryTooSlow(wait))??;
    let body = match encoding.as_str() {
        "gzip" => plain(MultiGzDecoder::new(body.as_slice()), bytes_max, &mut room, SIGNAL)?,
        // The block form of snappy is what protobuf is packed in, whatever the header says.
        "" | "identity" | "snappy" => body,
        _ => {
            let expected = "snappy, gzip or nothing";
            return Err(Error::TelemetryTypeUnsupported { what: "content encoding", given: encoding, expected });
        }
    };
    let (now, rules) = (nanos(SystemTime::now()), ingest.rules());
    let lines = if is_json {
        of_json(&body, now, &rules.lines).map_err(malformed)?
    } else {
        let bytes = snap::raw::decompress_len(&body).map_err(|error| malformed(error.to_string()))?;
        if bytes > bytes_max {
            return Err(Error::TelemetryTooLarge { max: bytes_max });
        }
        room.take(bytes)?;
        let plain = snap::raw::Decoder::new().decompress_vec(&body).map_err(|error| malformed(error.to_string()))?;
        let pushed = Pushed::decode(plain.as_slice()).map_err(|error| malformed(error.to_string()))?;
        of_protobuf(pushed, now, &rules.lines).map_err(malformed)?
    };
    Ok((lines, room))
}

type Labels = BTreeMap<String, String>;

fn of_protobuf(pushed: Pushed, now: Nanos, config: &parse::Config) -> Result<Vec<Line>, String> {
    let mut lines = Vec::new();
    for stream in pushed.streams {
        let (origin, level) = origin(labels_of(&stream.labels)?);
        for entry in stream.entries {
            let time = entry.time.and_then(|time| {
                let seconds = u64::try_from(time.seconds).ok()?.checked_mul(1_000_000_000)?;
                seconds.checked_add(u64::try_from(time.nanos).ok()?)
            });
            let about = entry.about.into_iter().map(|label| (label.name, label.value)).collect();
            lines.push(line(entry.line, time.map_or(now, Nanos::said), about, level, &origin, config));
        }
    }
    Ok(lines)
}

/// `{"streams":[{"stream":{…},"values":[["NANOS","LINE",{…}]]}]}`
fn of_json(body: &[u8], now: Nanos, config: &parse::Config) -> Result<Vec<Line>, String> {
    let body: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let streams = body["streams"].as_array().ok_or("streams are missing")?;
    let mut lines = Vec::new();
    for stream in streams {
        let (origin, level) = origin(texts(&stream["stream"]));
        for value in stream["values"].as_array().ok_or("values of a stream are missing")? {
            let text = value[1].as_str().ok_or("a value has no line")?;
            let time = value[0].as_str().ok_or("a value has no time")?;
            let time: u64 = time.parse().map_err(|_| format!("{time:?} is no time in nanoseconds"))?;
            let time = if time == 0 { now } else { Nanos::said(time) };
            lines.push(line(text.to_owned(), time, texts(&value[2]), level, &origin, config));
        }
    }
    Ok(lines)
}

fn texts(value: &Value) -> Labels {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    value.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), text(value))).collect()
}

/// Labels, written as a selector of equalities.
fn labels_of(text: &str) -> Result<Labels, String> {
    let Query::Lines(pipeline) = Query::parse(text)? else { return Err(format!("{text:?} are no labels")) };
    let pair = |matcher: super::logql::Matcher| match matcher.wanted {
        Wanted::Is(value) => Ok((matcher.name, value)),
        _ => Err(format!("{text:?} are no labels")),
    };
    pipeline.selector.into_iter().map(pair).collect()
}

/// Who a stream is of, and the level that it tells for all of its lines.
fn origin(mut labels: Labels) -> (Arc<Origin>, Level) {
    let mut take = |names: &[&str]| {
        let name = names.iter().find(|name| labels.get(**name).is_some_and(|value| !value.is_empty()))?;
        labels.remove(*name).map(|value| cut(value, NAME_BYTES_MAX))
    };
    let service = take(&SERVICES).unwrap_or_else(|| UNKNOWN_SERVICE.to_owned());
    let instance_id = take(&INSTANCES).unwrap_or_default();
    let level = take(&LEVELS).and_then(|word| Level::of_word(&word)).unwrap_or_default();
    let attributes = attributes(labels);
    (Arc::new(Origin { service, instance_id, attributes }), level)
}

fn attributes(labels: Labels) -> Attributes {
    let pairs = labels.into_iter().take(ATTRIBUTES_MAX);
    pairs.map(|(name, value)| (cut(name, NAME_BYTES_MAX), cut(value, VALUE_BYTES_MAX))).collect()
}

fn line(
    text: String,
    time: Nanos,
    mut about: Labels,
    level: Level,
    origin: &Arc<Origin>,
    config: &parse::Config,
) -> Line {
    let mut line = parse::read(text, time, config);
    // The stream's own time is what its sender ordered it by.
    line.time = time;
    let told = LEVELS.iter().find_map(|name| about.remove(*name)).and_then(|word| Level::of_word(&word));
    line.level = told.or(Some(level).filter(|level| *level > Level::Unknown)).unwrap_or(line.level);
    let trace = ["trace_id", "traceID", "traceId"].iter().find_map(|name| TraceId::parse(about.get(*name)?));
    let span = ["span_id", "spanID", "spanId"].iter().find_map(|name| SpanId::parse(about.get(*name)?));
    (line.trace_id, line.span_id) = (trace.or(line.trace_id), span.or(line.span_id));
    line.attributes.extend(attributes(about));
    line.attributes.sort();
    line.attributes.dedup_by(|second, first| second.0 == first.0);
    line.attributes.truncate(ATTRIBUTES_MAX);
    line.origin = origin.clone();
    line
}
