//! REST: a request becomes one message, and the answer one message or a stream of them.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use ninefold::connect::{Channel, Idempotent};
use ninefold::fault;
use ninefold::lifecycle::Stop;
use ninefold::link::BoxError;
use ninefold::tonic::body::Body;
use ninefold::tonic::{Code, Status};
use tokio::time::{Instant, timeout};
use tower::ServiceExt as _;

use super::grpc::LOAD;
use super::upload::{self, Upload};
use super::{Client, Edge, write_timeout};
use crate::access::{Outcome, Record};
use crate::binding::Binding;
use crate::config::Config;
use crate::error::Error;
use crate::frames::{Broken, Frames, Packing, framed};
use crate::guard::Promise;
use crate::path::Path;
use crate::routes::Route;
use crate::table::Found;
use crate::transcode::notation::Notation;
use crate::transcode::stream::{Encoder, Form};
use crate::transcode::{self, status};
use crate::{guard, reply};

/// Longest part of a path that an answer repeats.
const SHOWN_MAX: usize = 256;

/// How often the longest pause fits into the time for a whole body: one that trickles in must end too.
const BODY_PAUSES_MAX: u32 = 10;

/// Headers that speak of the REST body or of its forms, and mean nothing to the call.
static OF_THE_BODY: [HeaderName; 9] = [
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::EXPECT,
    header::RANGE,
    header::ORIGIN,
    HeaderName::from_static("grpc-encoding"),
];

const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// A REST request on its way.
pub(super) struct Call<'r> {
    pub(super) route: &'r Route,
    pub(super) binding: &'r Binding,
    /// How its answer is written.
    pub(super) notation: Notation,
    pub(super) outcome: Outcome,
    /// What is still being said.
    pub(super) upload: Option<Upload>,
}

impl Edge {
    /// Answers a REST request.
    pub(super) async fn rest(
        &self,
        mut head: Parts,
        path: Path,
        body: Incoming,
        client: &Client,
        record: &mut Record,
    ) -> Result<Response<Body>, Error> {
        let published = self.published.load_full();
        let (route, path) = match published.routes.rest(head.method.as_str(), path) {
            Found::Value { value, path } => (value, path),
            _ if !published.routes.is_known => return Err(Error::Starting),
            Found::OtherVerbs(allowed) => {
                let verb = shown(head.method.as_str());
                return Err(Error::VerbNotAllowed { verb, allowed: allowed.into_iter().collect() });
            }
            Found::Nothing => {
                if let Some(answer) = self.documented(&head, &published, record) {
                    return Ok(answer);
                }
                return Err(Error::RouteUnknown { verb: shown(head.method.as_str()), path: shown(head.uri.path()) });
            }
        };
        record.routed(route.template(), &route.method.name, &route.service);
        let steered = self.admit(&mut head, route, client, record).await?;
        let binding = route.binding.as_deref().expect("routes in the REST table have a binding");
        let channel = published.channels.get(&route.service).cloned().ok_or(Error::Starting)?;
        check_encoding(&head.headers)?;
        let time = self.time_for(route, &head.headers, &steered);
        let body = record.received.counting(Body::new(body));
        let read = Reading { route, path: &path, notation: steered.notation, promise: steered.promise.as_ref() };
        let (mut message, upload) = message(&self.config, &read, &head, body).await?;
        let mut call = self.call((&head, &OF_THE_BODY), route, client, &steered, record);
        speak_grpc(call.headers_mut(), time);
        if let Some(copy) = self.copied(&steered, &call, route) {
            message = copy.follow(message);
        }
        let mut request = call.map(|()| message);
        if head.method == Method::GET {
            // Safe by HTTP's own word.
            request.extensions_mut().insert(Idempotent);
        }
        let patience =
            Patience { deadline: self.config.deadline, end: time.map(|time| (time, Instant::now() + time)), upload };
        let (outcome, upload) = (record.outcome.clone(), patience.upload.clone());
        let call = Call { route, binding, notation: steered.notation, outcome, upload };
        let answer = self.send(channel, request, &patience, record).await?;
        let (answer, mut body) = answer.into_parts();
        if self.sampler.draws() {
            body = self.sampler.watch(body, route, true);
        }
        if let Some(status) = failed_at_once(&answer) {
            return call.failed(&status);
        }
        let frames =
            Frames::new(body, self.config.answer_bytes_max).packed(Packing::of(&answer.headers, "grpc-encoding"));
        let mut response = if route.method.is_server_streaming {
            let end = patience.end.map(|(_, end)| end);
            let pace = Pace { stop: self.stop.clone(), heartbeat: self.config.heartbeat, end };
            Box::pin(stream(&call, frames, &head.headers, pace)).await?
        } else {
            patience.within(call.one(frames)).await??
        };
        copy_metadata(&answer.headers, response.headers_mut());
        Ok(response)
    }

    /// Sends a call, and waits for the head of its answer.
    pub(super) async fn send(
        &self,
        channel: Channel,
        request: http::Request<Body>,
        patience: &Patience,
        record: &mut Record,
    ) -> Result<Response<Body>, Error> {
        record.sent();
        let Ok(answer) = patience.within(channel.oneshot(request)).await?;
        record.answered_by(answer.extensions().get());
        Ok(answer)
    }
}

/// How long an answer may take.
pub(super) struct Patience {
    /// Longest time for an answer to begin, once all was said.
    pub(super) deadline: Duration,
    /// The time that the whole call has, and when it is over.
    pub(super) end: Option<(Duration, Instant)>,
    /// What is still being said.
    pub(super) upload: Option<Upload>,
}

impl Patience {
    /// Waits for a part of the answer.
    pub(super) async fn within<T>(&self, waited: impl Future<Output = T>) -> Result<T, Error> {
        let (time, end) = self.end.unwrap_or((self.deadline, Instant::now() + self.deadline));
        let late = async {
            match (&self.upload, self.end) {
                // A stream may go on for ever, but when all was said the answer must begin in time.
                (Some(upload), None) => {
                    upload.ended().await;
                    tokio::time::sleep(self.deadline).await;
                }
                (Some(_) | None, _) => tokio::time::sleep_until(end).await,
            }
        };
        tokio::select! {
            biased;
            waited = waited => Ok(waited),
            () = late => Err(Error::DeadlineExceeded(time)),
        }
    }
}

/// By what a request is read.
pub(super) struct Reading<'r> {
    pub(super) route: &'r Route,
    /// The path, without the template's custom verb.
    pub(super) path: &'r Path,
    pub(super) notation: Notation,
    /// What its message must hold to.
    pub(super) promise: Option<&'r Promise>,
}

/// The body of the call that a request becomes: one message, which is held to a promise, or a stream of them.
pub(super) async fn message<B>(
    config: &Config,
    read_by: &Reading<'_>,
    head: &Parts,
    body: B,
) -> Result<(Body, Option<Upload>), Error>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let Reading { route, path, notation, promise } = *read_by;
    let binding = route.binding.as_deref().expect("routes in the REST table have a binding");
    let query = head.uri.query().unwrap_or_default();
    if route.method.is_client_streaming {
        let around = upload::Around {
            route: route.clone(),
            path: path.clone(),
            query: query.to_owned(),
            headers: head.headers.clone(),
            notation,
        };
        let (body, upload) = upload::start(config, around, Body::new(body))?;
        return Ok((body, Some(upload)));
    }
    let body = read(config, body).await?;
    let parts = transcode::Parts { path, query, headers: &head.headers, body, notation };
    let message = transcode::request(&route.method, binding, &parts)?;
    if let Some(promise) = promise {
        promise.check(&route.method, &message)?;
    }
    Ok((reply::body(framed(&message)), None))
}

/// Makes the headers of a request those of a call.
pub(super) fn dress(headers: &mut HeaderMap, time: Option<Duration>) {
    for name in &OF_THE_BODY {
        headers.remove(name);
    }
    speak_grpc(headers, time);
}

/// Says what the body of a call is, and how long it may take.
fn speak_grpc(headers: &mut HeaderMap, time: Option<Duration>) {
    headers.insert(GRPC_ACCEPT_ENCODING, HeaderValue::from_static("identity,gzip"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    write_timeout(headers, time);
}

/// Reads a body whole, within its bounds.
pub(super) async fn read<B>(config: &Config, body: B) -> Result<Bytes, Error>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let whole = config.body_timeout * BODY_PAUSES_MAX;
    timeout(whole, read_frames(config, body)).await.map_err(|_| Error::BodyTimeout(whole))?
}

async fn read_frames<B>(config: &Config, mut body: B) -> Result<Bytes, Error>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let bytes_max = config.body_bytes_max;
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(Error::BodyTooLarge(bytes_max));
    }
    let mut read = bytes::BytesMut::new();
    let mut first = Bytes::new();
    loop {
        let frame = timeout(config.body_timeout, body.frame()).await;
        let frame = frame.map_err(|_| Error::BodyTimeout(config.body_timeout))?;
        let Some(frame) = frame else { return Ok(if read.is_empty() { first } else { read.freeze() }) };
        let frame = frame.map_err(|error| Error::BodyBroken(error.into()))?;
        // Trailers of a request mean nothing to a call.
        let Ok(data) = frame.into_data() else { continue };
        if read.len().max(first.len()) + data.len() > bytes_max {
            return Err(Error::BodyTooLarge(bytes_max));
        }
        // A body that comes in one piece is not copied.
        if first.is_empty() {
            first = data;
            continue;
        }
        if read.is_empty() {
            read.extend_from_slice(&first);
        }
        read.extend_from_slice(&data);
    }
}

/// How long a stream goes on, and how it says meanwhile that it lives.
pub(super) struct Pace {
    pub(super) stop: Stop,
    pub(super) heartbeat: Duration,
    pub(super) end: Option<Instant>,
}

/// Answers with a stream, in the form that the client asked for.
pub(super) async fn stream(
    call: &Call<'_>,
    frames: Frames,
    asked: &HeaderMap,
    pace: Pace,
) -> Result<Response<Body>, Error> {
    if transcode::answers_http_body(&call.route.method.output, call.binding) {
        return call.pieces(frames, pace).await;
    }
    let form = Form::chosen_by(asked);
    let writer = Writer {
        frames,
        encoder: Encoder::new(form),
        form,
        route: call.route.clone(),
        notation: call.notation,
        outcome: call.outcome.clone(),
        upload: call.upload.clone(),
        pace,
    };
    let parts = futures_util::stream::unfold(Some(writer), |writer| async move {
        let mut writer = writer?;
        let (part, is_last) = writer.next().await;
        Some((Ok::<_, Status>(Frame::data(part)), (!is_last).then_some(writer)))
    });
    let mut response = Response::new(Body::new(StreamBody::new(parts)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(form.content_type()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Asks proxies in front to hand on each message as it comes.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

impl Call<'_> {
    /// Answers with the one message of a call that is no stream.
    pub(super) async fn one(&self, mut frames: Frames) -> Result<Response<Body>, Error> {
        let broken = |what| Error::AnswerMalformed { service: self.route.service.to_string(), what };
        let message = match frames.next().await {
            Ok(message) => message,
            Err(broken) => return self.broken(broken),
        };
        if message.is_some() {
            match frames.next().await {
                Ok(None) => {}
                Ok(Some(_)) => return Err(broken("it answers with two messages where one is promised")),
                Err(broken) => return self.broken(broken),
            }
        }
        let status = frames.status();
        if status.code() != Code::Ok {
            return self.failed(&status);
        }
        let message = message.ok_or_else(|| broken("it answers with no message where one is promised"))?;
        let answer = transcode::answer(&self.route.method, self.binding, self.notation, message).map_err(broken)?;
        self.outcome.set(Code::Ok);
        let mut response = Response::new(reply::body(answer.body));
        let kind = match answer.content_type {
            Cow::Borrowed(known) => Ok(HeaderValue::from_static(known)),
            Cow::Owned(said) => HeaderValue::try_from(said),
        };
        let kind = kind.map_err(|_| broken("the type of its answer is malformed"))?;
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        Ok(response)
    }

    fn broken(&self, broken: Broken) -> Result<Response<Body>, Error> {
        match broken {
            Broken::Body(status) => self.failed(&status),
            Broken::Protocol(what) => Err(Error::AnswerMalformed { service: self.route.service.to_string(), what }),
        }
    }

    /// Answers with the status that a call failed with, unless it failed for what the caller sent.
    pub(super) fn failed(&self, status: &Status) -> Result<Response<Body>, Error> {
        match self.upload.as_ref().and_then(Upload::given_up) {
            Some(error) => Err(error),
            None => Ok(self.fail(status)),
        }
    }

    /// Answers with the status that a call failed with.
    pub(super) fn fail(&self, status: &Status) -> Response<Body> {
        self.outcome.set(status.code());
        let contract = self.route.method.output.parent_pool();
        reply::of_status(status, fault::http_status(status.code()), Some(contract))
    }
}

/// Writes a stream of answers, part by part. Dropped when the client goes away, which cancels the call.
struct Writer {
    frames: Frames,
    encoder: Encoder,
    form: Form,
    route: Route,
    notation: Notation,
    outcome: Outcome,
    upload: Option<Upload>,
    pace: Pace,
}

impl Writer {
    /// The next part, and whether it is the last.
    async fn next(&mut self) -> (Bytes, bool) {
        let beat = tokio::time::sleep(self.pace.heartbeat);
        let end = self.pace.end.unwrap_or_else(|| Instant::now() + self.pace.heartbeat);
        // Nothing is lost when an arm is dropped: what was read of a message stays with the frames.
        let next = tokio::select! {
            next = self.frames.next() => next,
            () = beat, if self.form.heartbeat().is_some() => {
                return (Bytes::from_static(self.form.heartbeat().unwrap_or_default()), false);
            }
            () = tokio::time::sleep_until(end), if self.pace.end.is_some() => {
                return self.fail(&Status::deadline_exceeded("the time for this stream ran out"));
            }
            () = self.pace.stop.asked() => return self.fail(&fault::status(&Error::Draining)),
        };
        match next {
            Ok(Some(message)) => match self.write(message) {
                Ok(part) => (part, false),
                Err(what) => self.fail(&self.malformed(what)),
            },
            Ok(None) => {
                let status = self.frames.status();
                if status.code() == Code::Ok {
                    self.outcome.set(Code::Ok);
                    (self.encoder.end(), true)
                } else {
                    self.fail(&status)
                }
            }
            Err(Broken::Body(status)) => self.fail(&status),
            Err(Broken::Protocol(what)) => self.fail(&self.malformed(what)),
        }
    }

    fn write(&mut self, message: Bytes) -> Result<Bytes, &'static str> {
        let binding = self.route.binding.as_ref().expect("routes in the REST table have a binding");
        let answer = transcode::answer(&self.route.method, binding, self.notation, message)?;
        Ok(self.encoder.message(&answer.body))
    }

    fn malformed(&self, what: &'static str) -> Status {
        fault::status(&Error::AnswerMalformed { service: self.route.service.to_string(), what })
    }

    fn fail(&mut self, status: &Status) -> (Bytes, bool) {
        let given_up = self.upload.as_ref().and_then(Upload::given_up).map(|error| fault::status(&error));
        let status = given_up.as_ref().unwrap_or(status);
        self.outcome.set(status.code());
        let contract = self.route.method.output.parent_pool();
        (self.encoder.error(&status::json(status, Some(contract))), true)
    }
}

/// What an answer repeats of a request.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(SHOWN_MAX).collect()
}

/// A body that is packed would be read as it is.
pub(super) fn check_encoding(headers: &HeaderMap) -> Result<(), Error> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            Err(Error::MediaTypeUnsupported(format!("packed with {}", String::from_utf8_lossy(encoding.as_bytes()))))
        }
        Some(_) | None => Ok(()),
    }
}

/// The status of a call that failed before its first message, or of an answer that is no gRPC.
pub(super) fn failed_at_once(answer: &http::response::Parts) -> Option<Status> {
    if let Some(status) = Status::from_header_map(&answer.headers) {
        // An OK without a message is told apart by whoever waits for one.
        return (status.code() != Code::Ok).then_some(status);
    }
    let code = match answer.status.as_u16() {
        200 => {
            let kind = answer.headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
            if kind.starts_with(b"application/grpc") {
                return None;
            }
            Code::Unknown
        }
        // As gRPC maps the statuses of proxies that do not speak it.
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502..=504 => Code::Unavailable,
        _ => Code::Unknown,
    };
    Some(Status::new(code, format!("the service answered with HTTP status {} and no gRPC", answer.status.as_u16())))
}

/// Hands on what the service says beside its message, save what is of gRPC or of the connection.
pub(super) fn copy_metadata(from: &HeaderMap, to: &mut HeaderMap) {
    for (name, value) in guard::let_out(from) {
        let text = name.as_str();
        let is_ours = text.starts_with("grpc-")
            || text.starts_with("x-ninefold-")
            || matches!(text, "content-type" | "content-encoding" | "date" | "server" | "x-trace-id" | "traceparent")
            || LOAD.contains(&text);
        if !is_ours {
            to.append(name.clone(), value.clone());
        }
    }
}
