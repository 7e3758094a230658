//! Prometheus' remote write, 1.0 and 2.0: `POST /api/v1/write`, a snappy block of protobuf; the content type says which.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, Request, StatusCode};
use ninefold::fault::Fault as _;
use prost::Message as _;

use super::http::{collect, http_status, text, whole_seconds};
use super::{Ingest, Room};
use crate::error::Error;
use crate::metrics::{Unkept, Written, Written2};
use crate::tier::Signal;

const PATH: &str = "/api/v1/write";
const PROTOBUF: &str = "application/x-protobuf";
/// The message that version 1.0 writes; named by senders that could write another.
const MESSAGE: &str = "prometheus.writerequest";
/// The message that version 2.0 writes.
const MESSAGE_2: &str = "io.prometheus.write.v2.request";
const SIGNAL: &str = "metrics";
/// How much of a request of version 2.0 was written: samples, histograms, exemplars.
const COUNTS: [&str; 3] = [
    "x-prometheus-remote-write-samples-written",
    "x-prometheus-remote-write-histograms-written",
    "x-prometheus-remote-write-exemplars-written",
];

pub(super) fn routes() -> Router<Arc<Ingest>> {
    Router::new().route(PATH, post(write))
}

/// What a request may hold.
enum Version {
    One,
    Two,
}

/// What became of a request: what was not kept, and of version 2.0 how much was.
struct Outcome {
    unkept: Unkept,
    written: Option<[u64; 3]>,
}

/// What cannot be kept is lost when it is sent again too, so it is told as the sender's fault; it does not repeat that.
async fn write(State(ingest): State<Arc<Ingest>>, request: Request<Body>) -> Response {
    let version = version(&request);
    let is_two = matches!(version, Ok(Version::Two));
    let outcome = match version {
        Ok(version) => taken(&ingest, request, version).await,
        Err(error) => Err(error),
    };
    let (mut response, written) = match outcome {
        Ok(Outcome { unkept, written }) if unkept.readings > 0 => {
            let why = format!("{} samples were not kept: {}\n", unkept.readings, unkept.why);
            ((StatusCode::BAD_REQUEST, why).into_response(), written)
        }
        Ok(Outcome { written, .. }) => (StatusCode::NO_CONTENT.into_response(), written),
        Err(error) => {
            ingest.count_refused(Signal::Measurements);
            let mut response = (http_status(&error), format!("{error}\n")).into_response();
            if let Some(delay) = error.retry_after() {
                response.headers_mut().insert(RETRY_AFTER, whole_seconds(delay).into());
            }
            (response, is_two.then_some([0; 3]))
        }
    };
    // By these a sender of version 2.0 sees that it was understood.
    for (name, count) in COUNTS.into_iter().zip(written.into_iter().flatten()) {
        response.headers_mut().insert(HeaderName::from_static(name), count.into());
    }
    response
}

/// Which version the content type says.
fn version(request: &Request<Body>) -> Result<Version, Error> {
    let kind = text(request.headers(), &CONTENT_TYPE).to_ascii_lowercase();
    let mut parts = kind.split(';').map(str::trim);
    let is_protobuf = parts.next().is_some_and(|first| first.is_empty() || first == PROTOBUF);
    let message = parts.find_map(|part| part.strip_prefix("proto=")).unwrap_or(MESSAGE);
    match message.trim_matches('"') {
        MESSAGE if is_protobuf => Ok(Version::One),
        MESSAGE_2 if is_protobuf => Ok(Version::Two),
        _ => {
            let expected =
                "application/x-protobuf with proto=prometheus.WriteRequest or io.prometheus.write.v2.Request";
            Err(Error::TelemetryTypeUnsupported { what: "content type", given: kind, expected })
        }
    }
}

async fn taken(ingest: &Ingest, request: Request<Body>, version: Version) -> Result<Outcome, Error> {
    let (plain, _room) = read(ingest, request).await?;
    let malformed = |problem: String| Error::TelemetryMalformed { signal: SIGNAL, problem };
    match version {
        Version::One => {
            let written = Written::decode(plain.as_slice()).map_err(|error| malformed(error.to_string()))?;
            Ok(Outcome { unkept: ingest.written(written).await?, written: None })
        }
        Version::Two => {
            let written = Written2::decode(plain.as_slice()).map_err(|error| malformed(error.to_string()))?;
            let content = written.content().map_err(malformed)?;
            let exemplars = u64::try_from(content.exemplars.len()).unwrap_or(u64::MAX);
            let (samples, histograms) = (content.samples, content.histograms);
            let unkept = ingest.content(content).await?;
            // Which of both were left out is not known: the histograms are taken to be there.
            let samples = samples.saturating_sub(unkept.readings);
            Ok(Outcome { unkept, written: Some([samples, histograms, exemplars]) })
        }
    }
}

/// The message as it is without its wrapping.
async fn read(ingest: &Ingest, request: Request<Body>) -> Result<(Vec<u8>, Room), Error> {
    let encoding = text(request.headers(), &CONTENT_ENCODING);
    if !encoding.eq_ignore_ascii_case("snappy") {
        return Err(Error::TelemetryTypeUnsupported { what: "content encoding", given: encoding, expected: "snappy" });
    }
    let malformed = |problem: String| Error::TelemetryMalformed { signal: SIGNAL, problem };
    let (bytes_max, wait) = (ingest.config.body_bytes_max, ingest.config.body_wait);
    let mut room = ingest.room();
    let body = tokio::time::timeout(wait, collect(request.into_body(), bytes_max, &mut room, SIGNAL))
        .await
        .map_err(|_| Error::TelemetryTooSlow(wait))??;
    let plain_bytes = snap::raw::decompress_len(&body).map_err(|error| malformed(error.to_string()))?;
    if plain_bytes > bytes_max {
        return Err(Error::TelemetryTooLarge { max: bytes_max });
    }
    room.take(plain_bytes)?;
    let plain = snap::raw::Decoder::new().decompress_vec(&body).map_err(|error| malformed(error.to_string()))?;
    Ok((plain, room))
}
