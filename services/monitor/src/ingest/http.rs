//! OTLP over HTTP, in protobuf and in JSON, after <https://opentelemetry.io/docs/specs/otlp/#otlphttp>.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use flate2::read::MultiGzDecoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::BodyExt as _;
use ninefold::fault::{self, Fault as _};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{Ingest, Refused, Room};
use crate::error::Error;
use crate::tier::Signal;
use crate::wire::json;

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

/// The routes of OTLP over HTTP.
pub(crate) fn router(ingest: Arc<Ingest>) -> Router {
    Router::new()
        .route("/v1/logs", post(logs))
        .route("/v1/traces", post(traces))
        .route("/v1/metrics", post(metrics))
        .merge(super::remote_write::routes())
        .merge(crate::loki::push::routes())
        .with_state(ingest)
}

async fn logs(State(ingest): State<Arc<Ingest>>, request: Request<Body>) -> Response {
    let form = Form::of(request.headers());
    let outcome = match read::<ExportLogsServiceRequest>(&ingest, &form, request, "logs").await {
        Ok((request, _room)) => ingest.logs(request).await,
        Err(error) => refuse(&ingest, Signal::Logs, error),
    };
    answer(&form, outcome, "rejectedLogRecords")
}

async fn traces(State(ingest): State<Arc<Ingest>>, request: Request<Body>) -> Response {
    let form = Form::of(request.headers());
    let outcome = match read::<ExportTraceServiceRequest>(&ingest, &form, request, "traces").await {
        Ok((request, _room)) => ingest.spans(request).await,
        Err(error) => refuse(&ingest, Signal::Spans, error),
    };
    answer(&form, outcome, "rejectedSpans")
}

async fn metrics(State(ingest): State<Arc<Ingest>>, request: Request<Body>) -> Response {
    let form = Form::of(request.headers());
    let outcome = match read::<ExportMetricsServiceRequest>(&ingest, &form, request, "metrics").await {
        Ok((request, _room)) => ingest.metrics(request).await,
        Err(error) => refuse(&ingest, Signal::Measurements, error),
    };
    answer(&form, outcome, "rejectedDataPoints")
}

/// In which form a request is written, and its answer.
#[derive(Debug, PartialEq, Eq)]
enum Form {
    Protobuf,
    Json,
    Other(String),
}

impl Form {
    fn of(headers: &HeaderMap) -> Self {
        let given = text(headers, &CONTENT_TYPE);
        match given.split(';').next().unwrap_or_default().trim() {
            kind if kind.eq_ignore_ascii_case(PROTOBUF) => Self::Protobuf,
            kind if kind.eq_ignore_ascii_case(JSON) => Self::Json,
            _ => Self::Other(given),
        }
    }

    fn decode<T: Message + Default + DeserializeOwned>(&self, body: &[u8]) -> Result<T, String> {
        match self {
            Self::Json => json::decode(body).map_err(|error| error.to_string()),
            Self::Protobuf | Self::Other(_) => T::decode(body).map_err(|error| error.to_string()),
        }
    }
}

pub(crate) fn text(headers: &HeaderMap, name: &HeaderName) -> String {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).unwrap_or_default()
}

fn refuse(ingest: &Ingest, signal: Signal, error: Error) -> Result<Refused, Error> {
    ingest.count_refused(signal);
    Err(error)
}

async fn read<T: Message + Default + DeserializeOwned>(
    ingest: &Ingest,
    form: &Form,
    request: Request<Body>,
    signal: &'static str,
) -> Result<(T, Room), Error> {
    if let Form::Other(given) = form {
        let expected = "application/x-protobuf or application/json";
        return Err(Error::TelemetryTypeUnsupported { what: "content type", given: given.clone(), expected });
    }
    let encoding = text(request.headers(), &CONTENT_ENCODING);
    let malformed = |problem: String| Error::TelemetryMalformed { signal, problem };
    let mut room = ingest.room();
    let bytes_max = ingest.config.body_bytes_max;
    let wait = ingest.config.body_wait;
    let body = tokio::time::timeout(wait, collect(request.into_body(), bytes_max, &mut room, signal))
        .await
        .map_err(|_| Error::TelemetryTooSlow(wait))??;
    let body = match encoding.to_ascii_lowercase().as_str() {
        "" | "identity" => body,
        "gzip" => plain(MultiGzDecoder::new(body.as_slice()), bytes_max, &mut room, signal)?,
        "zstd" => {
            let decoder = zstd::Decoder::with_buffer(body.as_slice()).map_err(|error| malformed(error.to_string()))?;
            plain(decoder, bytes_max, &mut room, signal)?
        }
        _ => {
            let expected = "gzip, zstd or nothing";
            return Err(Error::TelemetryTypeUnsupported { what: "content encoding", given: encoding, expected });
        }
    };
    let request = form.decode(&body).map_err(malformed)?;
    Ok((request, room))
}

/// Unpacks a body; no further than the limit, whatever it claims.
pub(crate) fn plain(
    packed: impl Read,
    bytes_max: usize,
    room: &mut Room,
    signal: &'static str,
) -> Result<Vec<u8>, Error> {
    let mut plain = Vec::new();
    let read = packed.take(bytes_max as u64 + 1).read_to_end(&mut plain);
    read.map_err(|error| Error::TelemetryMalformed { signal, problem: error.to_string() })?;
    if plain.len() > bytes_max {
        return Err(Error::TelemetryTooLarge { max: bytes_max });
    }
    room.take(plain.len())?;
    Ok(plain)
}

pub(crate) async fn collect(
    mut body: Body,
    bytes_max: usize,
    room: &mut Room,
    signal: &'static str,
) -> Result<Vec<u8>, Error> {
    let mut collected = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Error::TelemetryMalformed { signal, problem: error.to_string() })?;
        let Some(data) = frame.data_ref() else { continue };
        if collected.len() + data.len() > bytes_max {
            return Err(Error::TelemetryTooLarge { max: bytes_max });
        }
        room.take(data.len())?;
        collected.extend_from_slice(data);
    }
    Ok(collected)
}

/// `Retry-After` knows whole seconds only; earlier would be too early.
pub(crate) fn whole_seconds(delay: Duration) -> u64 {
    delay.as_secs() + u64::from(delay.subsec_nanos() > 0)
}

/// Writes the answer in the form of the request; in protobuf where that form is unknown.
fn answer(form: &Form, outcome: Result<Refused, Error>, refused_name: &str) -> Response {
    let (status, retry_after, body) = match outcome {
        Ok(refused) => (StatusCode::OK, None, accepted(form, refused, refused_name)),
        Err(error) => {
            let retry_after = error.retry_after().map(whole_seconds);
            (http_status(&error), retry_after, refusal(form, &error))
        }
    };
    let kind = if *form == Form::Json { JSON } else { PROTOBUF };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

fn accepted(form: &Form, refused: Refused, refused_name: &str) -> Vec<u8> {
    let partial = (refused.records > 0).then(|| ExportLogsPartialSuccess {
        rejected_log_records: refused.records,
        error_message: refused.why.to_owned(),
    });
    match (form, partial) {
        (Form::Json, None) => b"{}".to_vec(),
        (Form::Json, Some(partial)) => {
            let (records, why) = (partial.rejected_log_records.to_string(), partial.error_message);
            json!({ "partialSuccess": { refused_name: records, "errorMessage": why } }).to_string().into_bytes()
        }
        // The answers for the three signals differ in names alone, which protobuf does not write.
        (Form::Protobuf | Form::Other(_), partial_success) => {
            ExportLogsServiceResponse { partial_success }.encode_to_vec()
        }
    }
}

/// A `google.rpc.Status`.
fn refusal(form: &Form, error: &Error) -> Vec<u8> {
    let status = fault::status(error);
    match form {
        Form::Protobuf | Form::Other(_) => status.details().to_vec(),
        Form::Json => {
            let info = json!({
                "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": error.reason(), "domain": fault::DOMAIN,
            });
            let retry = error.retry_after().map(|delay| {
                let delay = format!("{}s", delay.as_secs_f64());
                json!({ "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay })
            });
            let details: Vec<_> = std::iter::once(info).chain(retry).collect();
            let code = i32::from(status.code());
            json!({ "code": code, "message": status.message(), "details": details }).to_string().into_bytes()
        }
    }
}

/// HTTP has closer words than the codes of gRPC for what can be wrong with a body.
pub(crate) fn http_status(error: &Error) -> StatusCode {
    match error {
        Error::TelemetryTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Error::TelemetryTypeUnsupported { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Error::TelemetryTooSlow(_) => StatusCode::REQUEST_TIMEOUT,
        Error::QueryInvalid(_)
        | Error::PageTokenInvalid(_)
        | Error::PageSize(_)
        | Error::TraceUnknown(_)
        | Error::TelemetryMalformed { .. }
        | Error::Overloaded
        | Error::SenderTooLoud { .. }
        | Error::Unwritable(_)
        | Error::Unreadable(_)
        | Error::UnreadableElsewhere(_)
        | Error::Unopenable { .. }
        | Error::QueryTooCostly(_)
        | Error::QueryTooSlow(_)
        | Error::SqlTooCostly(_)
        | Error::NodeUnknown(_)
        | Error::NodesMissing { .. }
        | Error::Store(_)
        | Error::FollowersFull(_) => fault::http_status(error.kind().code()),
    }
}
