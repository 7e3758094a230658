//! What a service answers, as Connect writes it.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::StreamBody;
use ninefold::fault;
use ninefold::lifecycle::Stop;
use ninefold::tonic::Status;
use ninefold::tonic::body::Body;
use prost_reflect::DescriptorPool;
use serde_json::json;
use tokio::time::Instant;

use super::words::{self, END, PACKED, Written};
use super::{is_ok, rest, upload::Upload};
use crate::access::Outcome;
use crate::error::Error;
use crate::frames::{Broken, Frames};
use crate::reply;
use crate::routes::Route;
use crate::transcode;

/// What all answers to one call share.
pub(super) struct Answering {
    pub(super) written: Written,
    pub(super) takes_gzip: bool,
    pub(super) route: Route,
    pub(super) outcome: Outcome,
    /// What is still being said.
    pub(super) upload: Option<Upload>,
}

/// The answer to a call that is no stream.
pub(super) struct Unary {
    pub(super) response: Response<Body>,
    /// Whether it tells of a failure; its metadata is in it already.
    pub(super) is_failed: bool,
}

impl Answering {
    fn pool(&self) -> &DescriptorPool {
        self.route.method.output.parent_pool()
    }

    fn malformed(&self, what: &'static str) -> Error {
        Error::AnswerMalformed { service: self.route.service.to_string(), what }
    }

    /// Answers with the failure of a call before its first message, unless it failed for what the caller sent.
    pub(super) fn failed_at_once(
        &self,
        is_stream: bool,
        status: &Status,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, Error> {
        if let Some(error) = self.upload.as_ref().and_then(Upload::given_up) {
            return Err(error);
        }
        self.outcome.set(status.code());
        let mut metadata = HeaderMap::new();
        rest::copy_metadata(headers, &mut metadata);
        Ok(if is_stream {
            failed_stream(self.written, status, &metadata, Some(self.pool()))
        } else {
            failed(status, &metadata, Some(self.pool()))
        })
    }

    /// Answers with the one message of a call that is no stream.
    pub(super) async fn one(&self, mut frames: Frames, headers: &HeaderMap) -> Result<Unary, Error> {
        let message = match frames.next().await {
            Ok(message) => message,
            Err(broken) => return self.broken(broken, headers),
        };
        if message.is_some() {
            match frames.next().await {
                Ok(None) => {}
                Ok(Some(_)) => return Err(self.malformed("it answers with two messages where one is promised")),
                Err(broken) => return self.broken(broken, headers),
            }
        }
        let trailers = frames.trailers().cloned().unwrap_or_default();
        let status = frames.status();
        if !is_ok(status.code()) {
            return Ok(self.fail(&status, headers, &trailers));
        }
        let message = message.ok_or_else(|| self.malformed("it answers with no message where one is promised"))?;
        let body = self.message(message).map_err(|what| self.malformed(what))?;
        self.outcome.set(status.code());
        let packed = if self.takes_gzip { words::packed(&body) } else { None };
        let is_packed = packed.is_some();
        let mut response = Response::new(reply::body(packed.map_or(body, Bytes::from)));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.written.of_one()));
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        if is_packed {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        put_trailers(headers, &trailers);
        Ok(Unary { response, is_failed: false })
    }

    fn broken(&self, broken: Broken, headers: &HeaderMap) -> Result<Unary, Error> {
        match broken {
            Broken::Body(status) => Ok(self.fail(&status, headers, &HeaderMap::new())),
            Broken::Protocol(what) => Err(self.malformed(what)),
        }
    }

    fn fail(&self, status: &Status, headers: &HeaderMap, trailers: &HeaderMap) -> Unary {
        self.outcome.set(status.code());
        let mut metadata = HeaderMap::new();
        rest::copy_metadata(headers, &mut metadata);
        let mut response = failed(status, &metadata, Some(self.pool()));
        put_trailers(response.headers_mut(), trailers);
        Unary { response, is_failed: true }
    }

    /// One message, as it is written here.
    fn message(&self, message: Bytes) -> Result<Bytes, &'static str> {
        match self.written {
            Written::Proto => Ok(message),
            Written::Json => transcode::write_message(&self.route.method, message).map(Bytes::from),
        }
    }
}

/// Trailers of a call that is no stream are headers with names of their own.
fn put_trailers(headers: &mut HeaderMap, trailers: &HeaderMap) {
    let mut metadata = HeaderMap::new();
    rest::copy_metadata(trailers, &mut metadata);
    for (name, value) in &metadata {
        if let Ok(name) = HeaderName::try_from(format!("trailer-{name}")) {
            headers.append(name, value.clone());
        }
    }
}

/// The answer to a failed call that is no stream.
pub(super) fn failed(status: &Status, metadata: &HeaderMap, contract: Option<&DescriptorPool>) -> Response<Body> {
    let mut response = Response::new(reply::body(words::error(status, contract).to_string()));
    *response.status_mut() = fault::http_status(status.code());
    let headers = response.headers_mut();
    headers.extend(metadata.clone());
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(seconds) = reply::retry_after(status) {
        headers.insert(header::RETRY_AFTER, seconds);
    }
    response
}

/// The answer to a stream that failed before its first message.
pub(super) fn failed_stream(
    written: Written,
    status: &Status,
    metadata: &HeaderMap,
    contract: Option<&DescriptorPool>,
) -> Response<Body> {
    let mut response = Response::new(reply::body(ending(Some(status), metadata, contract)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(written.of_stream()));
    response
}

/// The last envelope of a stream.
fn ending(failed: Option<&Status>, metadata: &HeaderMap, contract: Option<&DescriptorPool>) -> Bytes {
    let mut end = json!({});
    if let Some(status) = failed {
        end["error"] = words::error(status, contract);
    }
    if !metadata.is_empty() {
        end["metadata"] = words::metadata(metadata);
    }
    words::envelope(END, end.to_string().as_bytes())
}

/// Answers with a stream.
pub(super) fn stream(
    answering: Answering,
    frames: Frames,
    headers: &HeaderMap,
    stop: Stop,
    end: Option<Instant>,
) -> Response<Body> {
    let (content_type, takes_gzip) = (answering.written.of_stream(), answering.takes_gzip);
    let writer = Writer { answering, frames, stop, end };
    let parts = futures_util::stream::unfold(Some(writer), |writer| async move {
        let mut writer = writer?;
        let (part, is_last) = writer.next().await;
        Some((Ok::<_, Status>(Frame::data(part)), (!is_last).then_some(writer)))
    });
    let mut response = Response::new(Body::new(StreamBody::new(parts)));
    rest::copy_metadata(headers, response.headers_mut());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if takes_gzip {
        headers.insert(words::STREAM_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// Writes a stream of answers, part by part. Dropped when the client goes away, which cancels the call.
struct Writer {
    answering: Answering,
    frames: Frames,
    stop: Stop,
    end: Option<Instant>,
}

impl Writer {
    /// The next part, and whether it is the last.
    async fn next(&mut self) -> (Bytes, bool) {
        let end = self.end.unwrap_or_else(Instant::now);
        // Nothing is lost when an arm is dropped: what was read of a message stays with the frames.
        let next = tokio::select! {
            next = self.frames.next() => next,
            () = tokio::time::sleep_until(end), if self.end.is_some() => {
                return self.fail(&Status::deadline_exceeded("the time for this stream ran out"));
            }
            () = self.stop.asked() => return self.fail(&fault::status(&Error::Draining)),
        };
        match next {
            Ok(Some(message)) => match self.answering.message(message) {
                Ok(message) => (self.wrap(&message), false),
                Err(what) => self.fail(&fault::status(&self.answering.malformed(what))),
            },
            Ok(None) => match self.frames.status() {
                status if is_ok(status.code()) => {
                    self.answering.outcome.set(status.code());
                    (ending(None, &self.metadata(), None), true)
                }
                status => self.fail(&status),
            },
            Err(Broken::Body(status)) => self.fail(&status),
            Err(Broken::Protocol(what)) => self.fail(&fault::status(&self.answering.malformed(what))),
        }
    }

    fn wrap(&self, message: &[u8]) -> Bytes {
        match self.answering.takes_gzip.then(|| words::packed(message)).flatten() {
            Some(packed) => words::envelope(PACKED, &packed),
            None => words::envelope(0, message),
        }
    }

    fn metadata(&self) -> HeaderMap {
        let mut metadata = HeaderMap::new();
        if let Some(trailers) = self.frames.trailers() {
            rest::copy_metadata(trailers, &mut metadata);
        }
        metadata
    }

    fn fail(&mut self, status: &Status) -> (Bytes, bool) {
        let given_up = self.answering.upload.as_ref().and_then(Upload::given_up).map(|error| fault::status(&error));
        let status = given_up.as_ref().unwrap_or(status);
        self.answering.outcome.set(status.code());
        (ending(Some(status), &self.metadata(), Some(self.answering.pool())), true)
    }
}
