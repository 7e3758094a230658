//! Connect: calls over plain HTTP, as its web and mobile clients speak them. Unary calls are a request and an answer whose
//! bodies are the bare messages, in JSON or Protobuf, by POST or, where a method changes nothing, by GET; streams are
//! messages in envelopes.
//!
//! Every exposed method can be called so at the path of its gRPC calls, with or without an HTTP binding. To the service
//! all of it is gRPC. Messages in Protobuf pass as bytes; those in JSON are read and written as for REST.

mod answers;
pub(crate) mod envelopes;
pub(crate) mod words;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use ninefold::connect::Idempotent;
use ninefold::fault;
use ninefold::tonic::Code;
use ninefold::tonic::body::Body;
use tokio::time::Instant;

use answers::{Answering, Unary};
use envelopes::Envelopes;
use words::Written;

use super::rest::{self, Patience};
use super::upload::{self, Upload};
use super::{Client, Edge};
use crate::access::Record;
use crate::config::Config;
use crate::error::Error;
use crate::frames::{Frames, Packing, framed, unpack};
use crate::guard::Promise;
use crate::routes::{Route, Routes};
use crate::{contract, reply, transcode};

/// Header that says which Connect is spoken, and the only one there is.
const VERSION: (&str, &str) = ("connect-protocol-version", "1");
/// Headers that are of Connect alone.
const OF_CONNECT: [&str; 5] =
    [VERSION.0, words::TIMEOUT, words::STREAM_ENCODING, words::STREAM_ACCEPT, "access-control-request-headers"];

/// Whether a request speaks Connect: by its content type, by its version, or as it asks for the path of a method.
pub(super) fn is_spoken(head: &Parts, routes: &Routes) -> bool {
    let is_of_method = || routes.grpc(head.uri.path()).is_some();
    if head.method == Method::GET {
        let query = head.uri.query().unwrap_or_default();
        let asks = query.split('&').any(|parameter| parameter == "connect=v1" || parameter.starts_with("encoding="));
        return asks && !head.headers.contains_key(header::UPGRADE) && is_of_method();
    }
    if head.method != Method::POST {
        return false;
    }
    let kind = words::essence(&head.headers);
    kind.starts_with("application/connect+")
        || kind == "application/proto"
        || head.headers.contains_key(VERSION.0)
        || (kind == "application/json" && is_of_method())
}

/// What a request says of itself before its message.
#[derive(Clone, Copy, Debug)]
struct Ask {
    written: Written,
    shape: Shape,
    /// How its messages are packed.
    packing: Packing,
    /// Whether what it is answered may be packed.
    takes_gzip: bool,
}

/// How a call is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Post,
    Get,
    Stream,
}

impl Ask {
    /// Reads how a request is written. The first is what an answer to a request is written by that cannot be read.
    fn of(head: &Parts) -> (Self, Result<(), Error>) {
        let fallback = Self { written: Written::Json, shape: Shape::Post, packing: Packing::Plain, takes_gzip: false };
        if head.method == Method::GET {
            return match words::Asked::of(head.uri.query().unwrap_or_default()) {
                Ok(asked) => (Self { written: asked.written, shape: Shape::Get, ..fallback }, Ok(())),
                Err(error) => (fallback, Err(error)),
            };
        }
        let kind = words::essence(&head.headers);
        let (shape, written) = match kind.as_str() {
            "application/json" => (Shape::Post, Written::Json),
            "application/proto" => (Shape::Post, Written::Proto),
            "application/connect+json" => (Shape::Stream, Written::Json),
            "application/connect+proto" => (Shape::Stream, Written::Proto),
            _ => return (fallback, Err(Error::MediaTypeUnsupported(kind))),
        };
        let (encoding, accept) = match shape {
            Shape::Stream => (words::STREAM_ENCODING, words::STREAM_ACCEPT),
            Shape::Post | Shape::Get => (header::CONTENT_ENCODING.as_str(), header::ACCEPT_ENCODING.as_str()),
        };
        let takes_gzip = words::accepts_gzip(&head.headers, accept);
        let ask = Self { written, shape, packing: Packing::of(&head.headers, encoding), takes_gzip };
        (ask, words::check_encoding(&head.headers, encoding))
    }

    /// Whether a method can be called so.
    fn check(self, head: &Parts, route: &Route) -> Result<(), Error> {
        if head.headers.get(VERSION.0).is_some_and(|version| version != VERSION.1) {
            return Err(Error::invalid(VERSION.0, "is not \"1\""));
        }
        let method = &route.method;
        let streams = method.is_client_streaming || method.is_server_streaming;
        match (self.shape, streams) {
            (Shape::Stream, true) | (Shape::Post, false) => Ok(()),
            (Shape::Get, false) if method.is_safe => Ok(()),
            (Shape::Get, _) => {
                let allowed = vec![Method::POST.to_string()];
                Err(Error::VerbNotAllowed { verb: Method::GET.to_string(), allowed })
            }
            (Shape::Stream, false) | (Shape::Post, true) => {
                Err(Error::MediaTypeUnsupported(words::essence(&head.headers)))
            }
        }
    }

    /// An answer that the edge gives itself.
    fn refuse(self, error: &Error) -> Response<Body> {
        let status = fault::status(error);
        if self.shape == Shape::Stream && !matches!(error, Error::MediaTypeUnsupported(_)) {
            return answers::failed_stream(self.written, &status, &HeaderMap::new(), None);
        }
        let mut answer = answers::failed(&status, &HeaderMap::new(), None);
        match error {
            Error::MethodNotExposed(_) | Error::MediaTypeUnsupported(_) => *answer.status_mut() = error.http_status(),
            Error::VerbNotAllowed { .. } => {
                *answer.status_mut() = error.http_status();
                answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
            }
            Error::CallerUnknown { .. } | Error::CallerDenied(_) => reply::challenge(answer.headers_mut(), error),
            _ => {}
        }
        if matches!(error, Error::MediaTypeUnsupported(_)) {
            let kinds = "application/json, application/proto, application/connect+json, application/connect+proto";
            answer.headers_mut().insert("accept-post", HeaderValue::from_static(kinds));
        }
        answer
    }
}

/// An error of the edge as an answer to a request in Connect.
pub(super) fn refused(head: &Parts, error: &Error) -> Response<Body> {
    Ask::of(head).0.refuse(error)
}

impl Edge {
    /// Answers a call in Connect.
    pub(super) async fn connect(
        &self,
        head: Parts,
        body: Incoming,
        client: &Client,
        record: &mut Record,
    ) -> Response<Body> {
        let (ask, readable) = Ask::of(&head);
        let answered = match readable {
            Ok(()) => self.connected(ask, head, body, client, record).await,
            Err(error) => Err(error),
        };
        answered.unwrap_or_else(|error| {
            let chain = fault::chain(&error);
            if matches!(error, Error::AnswerMalformed { .. }) {
                tracing::warn!(error = chain, "an answer was refused");
            } else {
                tracing::debug!(error = chain, "a request was refused");
            }
            record.outcome.set(fault::status(&error).code());
            ask.refuse(&error)
        })
    }

    async fn connected(
        &self,
        ask: Ask,
        mut head: Parts,
        body: Incoming,
        client: &Client,
        record: &mut Record,
    ) -> Result<Response<Body>, Error> {
        let published = self.published.load_full();
        let path = head.uri.path();
        let Some(route) = published.routes.grpc(path) else {
            return Err(match published.routes.is_known {
                true => Error::MethodNotExposed(rest::shown(path)),
                false => Error::Starting,
            });
        };
        record.routed(route.template(), &route.method.name, &route.service);
        ask.check(&head, route)?;
        let talks = route.method.is_client_streaming && route.method.is_server_streaming;
        if talks && head.version < Version::HTTP_2 {
            // Over HTTP/1.1 nobody answers while they are still being asked.
            let status = fault::status(&Error::RequestMalformed("a stream both ways needs HTTP/2"));
            let mut answer = answers::failed(&status, &HeaderMap::new(), None);
            *answer.status_mut() = StatusCode::HTTP_VERSION_NOT_SUPPORTED;
            return Ok(answer);
        }
        words::translate_timeout(&mut head.headers)?;
        let steered = self.admit(&mut head, route, client, record).await?;
        let channel = published.channels.get(&route.service).cloned().ok_or(Error::Starting)?;
        let time = self.time_for(route, &head.headers, &steered);
        let body = record.received.counting(Body::new(body));
        let (mut message, upload) = said(&self.config, ask, route, &head, body, steered.promise.clone()).await?;
        let mut call = self.call((&head, &[]), route, client, &steered, record);
        for name in OF_CONNECT {
            call.headers_mut().remove(name);
        }
        rest::dress(call.headers_mut(), time);
        if let Some(copy) = self.copied(&steered, &call, route) {
            message = copy.follow(message);
        }
        let mut request = call.map(|()| message);
        if route.method.is_safe {
            // By the contract's own word.
            request.extensions_mut().insert(Idempotent);
        }
        let end = time.map(|time| (time, Instant::now() + time));
        let patience = Patience { deadline: self.config.deadline, end, upload };
        let answer = self.send(channel, request, &patience, record).await?;
        let answering = Answering {
            written: ask.written,
            takes_gzip: ask.takes_gzip,
            route: Route::clone(route),
            outcome: record.outcome.clone(),
            upload: patience.upload.clone(),
        };
        self.tell(ask, answering, answer, &patience).await
    }

    /// Turns what a service answers into what Connect has for it.
    async fn tell(
        &self,
        ask: Ask,
        answering: Answering,
        answer: Response<Body>,
        patience: &Patience,
    ) -> Result<Response<Body>, Error> {
        let (answer, mut body) = answer.into_parts();
        if self.sampler.draws() {
            body = self.sampler.watch(body, &answering.route, true);
        }
        if let Some(status) = rest::failed_at_once(&answer) {
            return answering.failed_at_once(ask.shape == Shape::Stream, &status, &answer.headers);
        }
        let packing = Packing::of(&answer.headers, "grpc-encoding");
        let frames = Frames::new(body, self.config.answer_bytes_max).packed(packing);
        if ask.shape == Shape::Stream {
            let end = patience.end.map(|(_, end)| end);
            return Ok(answers::stream(answering, frames, &answer.headers, self.stop.clone(), end));
        }
        let Unary { mut response, is_failed } = patience.within(answering.one(frames, &answer.headers)).await??;
        if !is_failed {
            rest::copy_metadata(&answer.headers, response.headers_mut());
        }
        Ok(response)
    }
}

/// The body of the call that a request becomes; each of its messages is held to a promise.
async fn said(
    config: &Config,
    ask: Ask,
    route: &Route,
    head: &Parts,
    body: Body,
    promise: Option<Promise>,
) -> Result<(Body, Option<Upload>), Error> {
    let message = match ask.shape {
        Shape::Stream => {
            // Where both sides talk, silence is no fault of the caller.
            let pause = (!route.method.is_server_streaming).then_some(config.body_timeout);
            let envelopes = Envelopes::new(body, ask.packing, config.body_bytes_max, pause);
            let method = route.method.clone();
            let messages = futures_util::stream::unfold(Some(envelopes), move |envelopes| {
                let (method, promise) = (method.clone(), promise.clone());
                async move {
                    let mut envelopes = envelopes?;
                    let message = match envelopes.next().await {
                        Ok(message) => message?,
                        Err(error) => return Some((Err(error), None)),
                    };
                    let read = match ask.written {
                        Written::Json => transcode::read_message(&method, &message),
                        Written::Proto => Ok(message),
                    };
                    let kept = read.and_then(|message| kept(promise.as_ref(), &method, message));
                    Some((kept.map(|message| framed(&message)), Some(envelopes)))
                }
            });
            let (body, upload) = upload::handed_on(messages);
            return Ok((body, Some(upload)));
        }
        Shape::Get => {
            let asked = words::Asked::of(head.uri.query().unwrap_or_default())?;
            unpacked(asked.message, asked.packing, config.body_bytes_max)?
        }
        Shape::Post => unpacked(rest::read(config, body).await?, ask.packing, config.body_bytes_max)?,
    };
    let message = match ask.written {
        Written::Json => transcode::read_message(&route.method, &message)?,
        Written::Proto => message,
    };
    let message = kept(promise.as_ref(), &route.method, message)?;
    Ok((reply::body(framed(&message)), None))
}

/// A message that keeps a promise, if there is one.
fn kept(promise: Option<&Promise>, method: &contract::Method, message: Bytes) -> Result<Bytes, Error> {
    promise.map_or(Ok(()), |promise| promise.check(method, &message))?;
    Ok(message)
}

fn unpacked(message: Bytes, packing: Packing, bytes_max: usize) -> Result<Bytes, Error> {
    match packing {
        Packing::Gzip if !message.is_empty() => {
            unpack(&message, bytes_max).ok_or_else(|| Error::invalid("", "cannot be unpacked, or is too large"))
        }
        Packing::Gzip | Packing::Plain => Ok(message),
    }
}

/// The code of a call that went well, or how it failed.
const fn is_ok(code: Code) -> bool {
    matches!(code, Code::Ok)
}
