//! Prometheus' remote write 1.0: `POST /api/v1/write`, a snappy block of protobuf.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{Request, StatusCode};
use ninefold::fault::Fault as _;
use prost::Message as _;

use super::http::{collect, http_status, text, whole_seconds};
use super::{Ingest, Room};
use crate::error::Error;
use crate::metrics::Written;
use crate::tier::Signal;

const PATH: &str = "/api/v1/write";
const PROTOBUF: &str = "application/x-protobuf";
/// The message that version 1.0 writes; named by senders that could write another.
const MESSAGE: &str = "prometheus.writerequest";
const SIGNAL: &str = "metrics";

pub(super) fn routes() -> Router<Arc<Ingest>> {
    Router::new().route(PATH, post(write))
}

/// What cannot be kept is lost when it is sent again too, so it is told as the sender's fault; it does not repeat that.
async fn write(State(ingest): State<Arc<Ingest>>, request: Request<Body>) -> Response {
    let outcome = match read(&ingest, request).await {
        Ok((written, _room)) => ingest.written(written).await,
        Err(error) => Err(error),
    };
    match outcome {
        Ok(unkept) if unkept.readings > 0 => {
            let why = format!("{} samples were not kept: {}\n", unkept.readings, unkept.why);
            (StatusCode::BAD_REQUEST, why).into_response()
        }
        Ok(_) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => {
            ingest.count_refused(Signal::Measurements);
            let mut response = (http_status(&error), format!("{error}\n")).into_response();
            if let Some(delay) = error.retry_after() {
                response.headers_mut().insert(RETRY_AFTER, whole_seconds(delay).into());
            }
            response
        }
    }
}

async fn read(ingest: &Ingest, request: Request<Body>) -> Result<(Written, Room), Error> {
    let kind = text(request.headers(), &CONTENT_TYPE).to_ascii_lowercase();
    let mut parts = kind.split(';').map(str::trim);
    let is_protobuf = parts.next().is_some_and(|first| first.is_empty() || first == PROTOBUF);
    let is_known = parts.all(|part| part.strip_prefix("proto=").is_none_or(|name| name == MESSAGE));
    if !is_protobuf || !is_known {
        let expected = "application/x-protobuf, and prometheus.WriteRequest";
        return Err(Error::TelemetryTypeUnsupported { what: "content type", given: kind, expected });
    }
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
    let written = Written::decode(plain.as_slice()).map_err(|error| malformed(error.to_string()))?;
    Ok((written, room))
}
