//! What is thrown at the edge's readers: any bytes, each reader behind one function that says what must hold of its answer.
//!
//! The targets in `fuzz/` call these for minutes, the tests below for a moment. A function that returns has found nothing;
//! a mistake panics.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use base64::Engine as _;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue, Method as Verb, Request, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ninefold::tonic::Status;
use ninefold::tonic::body::Body;
use prost_reflect::DynamicMessage;
use serde_json::Value as Json;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic_web::GrpcWebLayer;
use tower::{Layer as _, ServiceExt as _};

use crate::binding::Binding;
use crate::config::Config;
use crate::contract::{self, Method};
use crate::edge::connect::envelopes::Envelopes;
use crate::edge::connect::words::Asked;
use crate::error::Error;
use crate::frames::{Bounded, Broken, Frames, Packing, unpack};
use crate::guard::inspector::{Inspected, Inspector};
use crate::path::Path;
use crate::pattern::{Pattern, Segment};
use crate::table::{Found, Table};
use crate::transcode::elements::{Cutter, Shape};
use crate::transcode::{self, Parts};
use crate::{guard, reply, server, value};

/// Largest message, so that small inputs reach the bound.
const MESSAGE_BYTES_MAX: usize = 512;
/// Most templates of one table.
const TEMPLATES_MAX: usize = 16;
/// Where the method lies that takes a whole message as its body and answers one.
const WHOLE: (&str, &str) = ("POST", "/whole/7");

/// The contract that bodies and queries are read by.
#[derive(Debug)]
pub struct Ground {
    routes: Table<(Arc<Method>, Arc<Binding>)>,
}

impl Ground {
    /// Reads a descriptor set with `test.v1.EverythingService` in it.
    ///
    /// # Panics
    /// Where it is not in there.
    pub fn new(descriptor_set: &[u8]) -> Self {
        let contract = contract::read(descriptor_set).expect("the contract of tests can be read");
        let mut routes = Table::default();
        for method in &contract.methods {
            for binding in &method.bindings {
                let _ = routes.insert(&binding.verb, &binding.pattern, (method.clone(), binding.clone()));
            }
        }
        Self { routes }
    }

    fn route(&self, verb: &str, path: &str) -> Option<(&Arc<Method>, &Arc<Binding>, Path)> {
        match self.routes.find(verb, Path::parse(path).ok()?) {
            Found::Value { value: (method, binding), path } => Some((method, binding, path)),
            Found::OtherVerbs(_) | Found::Nothing => None,
        }
    }
}

/// A path on the first line, templates on those after it: the table finds one that matches exactly if there is one, and
/// every variable of it is bound.
pub fn path(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split('\n');
    let Ok(path) = Path::parse(lines.next().unwrap_or_default()) else { return };
    assert!(path.segments().iter().all(|segment| segment != "." && segment != ".."), "a dot segment came through");
    let mut table = Table::default();
    let mut patterns = Vec::new();
    for pattern in lines.take(TEMPLATES_MAX).filter_map(|line| Pattern::parse(line).ok()) {
        let _ = table.insert("GET", &pattern, pattern.clone());
        patterns.push(pattern);
    }
    let is_matched = patterns.iter().any(|pattern| matches(pattern, &path));
    match table.find("GET", path.clone()) {
        Found::Value { value, path: stem } => {
            assert!(matches(value, &path), "{} does not match {path:?}", value.text());
            if let Ok(bound) = value.bind(&stem) {
                assert_eq!(bound.len(), value.variables().len());
            }
        }
        Found::Nothing => assert!(!is_matched, "a template that matches was not found"),
        Found::OtherVerbs(verbs) => panic!("there is no other verb than GET: {verbs:?}"),
    }
}

/// Whether a template matches a path, said in the plainest way.
fn matches(pattern: &Pattern, path: &Path) -> bool {
    let stem = match (pattern.verb(), path.split_verb()) {
        (None, _) => path.clone(),
        (Some(verb), Some((stem, said))) if verb == said => stem,
        (Some(_), _) => return false,
    };
    let mut segments = stem.segments().iter();
    for wanted in pattern.segments() {
        let is_alike = match wanted {
            Segment::Rest => return segments.all(|segment| !segment.is_empty()),
            Segment::Any => segments.next().is_some_and(|segment| !segment.is_empty()),
            Segment::Literal(text) => segments.next() == Some(text),
        };
        if !is_alike {
            return false;
        }
    }
    segments.next().is_none()
}

/// A path and a query with a question mark between: what comes of them is a message that says of each variable what the
/// path says, and says it twice alike.
pub fn query(ground: &Ground, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (path, query) = text.split_once('?').unwrap_or((&text, ""));
    let _ = Asked::of(query);
    let Some((method, binding, path)) = ground.route("GET", path) else { return };
    let headers = HeaderMap::new();
    let parts = Parts { path: &path, query, headers: &headers, body: Bytes::new(), notation: method.notation };
    let read = || {
        let wire = transcode::request(method, binding, &parts).ok()?;
        Some(DynamicMessage::decode(method.input.clone(), wire).expect("what the edge writes can be read"))
    };
    let Some(message) = read() else { return };
    let mut violations = Vec::new();
    for (field, bound) in transcode::bind_path(binding, &path, &mut violations) {
        let default = value::at(&DynamicMessage::new(method.input.clone()), field);
        let said = value::at(&message, field).or(default);
        assert!(said.is_none_or(|said| said == bound || is_odd(&bound)), "{field} is not what the path says");
    }
    assert!(violations.is_empty(), "a path that cannot be bound became a message");
    let again = read().expect("what was read once is read again");
    assert_eq!(spelled(&again), spelled(&message));
}

/// A number that is not the same as itself.
fn is_odd(value: &prost_reflect::Value) -> bool {
    value.as_f64().is_some_and(f64::is_nan) || value.as_f32().is_some_and(f32::is_nan)
}

/// The JSON of a message, by the reflection library alone. `None` for what has none.
fn spelled(message: &DynamicMessage) -> Option<Json> {
    let text = transcode::json(message, transcode::notation::Notation::default()).ok()?;
    Some(serde_json::from_slice(&text).expect("what the edge writes is JSON"))
}

/// A JSON body: read by the quick way, if at all, as by the reflection library; and what was read is written so that it is
/// read again as it was.
pub fn json(ground: &Ground, bytes: &[u8]) {
    let (method, binding, path) = ground.route(WHOLE.0, WHOLE.1).expect("the contract has it");
    let mut quick = Vec::new();
    let is_quick = method.reading.as_ref().is_some_and(|plan| plan.read(bytes, &[], &mut quick).is_ok());
    let slow = transcode::read_whole(&method.input, bytes);
    if is_quick {
        let quick = DynamicMessage::decode(method.input.clone(), quick.as_slice()).expect("it can be read");
        let slow = slow.as_ref().expect("only the quick way takes it");
        assert_eq!(spelled(&quick), spelled(slow), "the two ways read otherwise");
    }
    let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    let body = Bytes::copy_from_slice(bytes);
    let parts = Parts { path: &path, query: "", headers: &headers, body, notation: method.notation };
    let Ok(wire) = transcode::request(method, binding, &parts) else { return };
    let message = DynamicMessage::decode(method.input.clone(), wire.clone()).expect("it can be read");
    assert_eq!(message.get_field_by_name("id").and_then(|id| id.as_str().map(str::to_owned)).as_deref(), Some("7"));
    let Ok(answer) = transcode::answer(method, binding, method.notation, wire) else { return };
    let again = transcode::read_whole(&method.input, &answer.body).expect("what the edge writes it can read");
    assert_eq!(spelled(&again), spelled(&message), "what was written is read otherwise");
}

/// The bytes of an answer: written by the quick way, if at all, as by the reflection library.
pub fn answer(ground: &Ground, bytes: &[u8]) {
    let (method, binding, _) = ground.route(WHOLE.0, WHOLE.1).expect("the contract has it");
    let mut quick = Vec::new();
    if method.writing.as_ref().is_some_and(|plan| plan.write(bytes, &mut quick).is_ok()) {
        let mut quick: Json = serde_json::from_slice(&quick).expect("what the edge writes is JSON");
        let slow = DynamicMessage::decode(method.output.clone(), bytes).expect("only the quick way takes it");
        let mut slow = spelled(&slow).expect("only the quick way writes it");
        forget_negative_zeros(&mut quick);
        forget_negative_zeros(&mut slow);
        assert_eq!(quick, slow, "the two ways write otherwise");
    }
    if let Ok(answer) = transcode::answer(method, binding, method.notation, Bytes::copy_from_slice(bytes)) {
        let _: Json = serde_json::from_slice(&answer.body).expect("what the edge writes is JSON");
    }
}

/// Takes out what is -0.0: it is no default, and the quick way writes it as it should, but the reflection library does not.
fn forget_negative_zeros(json: &mut Json) {
    match json {
        Json::Object(members) => {
            members.retain(|_, value| !value.as_f64().is_some_and(|number| number == 0.0 && number.is_sign_negative()));
            members.values_mut().for_each(forget_negative_zeros);
        }
        Json::Array(elements) => elements.iter_mut().for_each(forget_negative_zeros),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

/// What the rest of a body says, cut into pieces of a size that its first bytes say, as gRPC, gRPC-Web, Connect or JSON:
/// where it is cut changes nothing, and no message is larger than allowed.
pub fn frames(bytes: &[u8]) {
    let [mode, size, body @ ..] = bytes else { return };
    let pieces = |size: u8| pieces(body, usize::from(size % 32) + 1);
    match mode % 6 {
        flags @ (0 | 1) => {
            let packing = if flags == 0 { Packing::Plain } else { Packing::Gzip };
            let unpacked = |message: &[u8]| match packing {
                Packing::Plain => None,
                Packing::Gzip => unpack(message, MESSAGE_BYTES_MAX),
            };
            assert_eq!(of_grpc(pieces(*size), packing), plainly(body, unpacked));
            // Connect leaves a message that is empty as it is, whatever its flag says.
            let is_left = |message: &[u8]| packing == Packing::Gzip && message.is_empty();
            let unpacked = |message: &[u8]| if is_left(message) { Some(Bytes::new()) } else { unpacked(message) };
            assert_eq!(of_connect(pieces(*size), packing), plainly(body, unpacked));
        }
        2 => {
            // Text may be padded between pieces, so there it matters where they end.
            let _ = of_web(pieces(*size), true);
            assert_web(of_web(pieces(*size), false), body);
        }
        3 => {
            let encoded = base64::engine::general_purpose::STANDARD.encode(body);
            let cut = self::pieces(encoded.as_bytes(), usize::from(size % 32) + 1);
            assert_web(of_web(cut, true), body);
        }
        shape => {
            let shape = if shape == 4 { Shape::Lines } else { Shape::Json };
            assert_eq!(elements(shape, body, usize::from(size % 32) + 1), elements(shape, body, usize::MAX));
        }
    }
}

/// Messages, and whether they end as they should.
type Read = (Vec<Bytes>, bool);

fn pieces(bytes: &[u8], size: usize) -> Body {
    let pieces: Vec<_> =
        bytes.chunks(size).map(|piece| Ok::<_, Status>(Frame::data(Bytes::copy_from_slice(piece)))).collect();
    Body::new(StreamBody::new(futures_util::stream::iter(pieces)))
}

/// Frames, said in the plainest way.
fn plainly(mut bytes: &[u8], unpacked: impl Fn(&[u8]) -> Option<Bytes>) -> Read {
    let mut messages = Vec::new();
    while let Some(([flag, length @ ..], rest)) = bytes.split_first_chunk::<5>() {
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > MESSAGE_BYTES_MAX || rest.len() < length {
            return (messages, false);
        }
        let (message, rest) = rest.split_at(length);
        let plain = match flag {
            0 => Some(Bytes::copy_from_slice(message)),
            1 => unpacked(message),
            _ => None,
        };
        let Some(plain) = plain else { return (messages, false) };
        assert!(plain.len() <= MESSAGE_BYTES_MAX);
        messages.push(plain);
        bytes = rest;
    }
    (messages, bytes.is_empty())
}

fn of_grpc(body: Body, packing: Packing) -> Read {
    let mut frames = Frames::new(body, MESSAGE_BYTES_MAX).packed(packing);
    let mut messages = Vec::new();
    loop {
        match frames.next().now_or_never().expect("all of it is there") {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => return (messages, true),
            Err(Broken::Body(_) | Broken::Protocol(_)) => return (messages, false),
        }
    }
}

fn of_connect(body: Body, packing: Packing) -> Read {
    let mut envelopes = Envelopes::new(body, packing, MESSAGE_BYTES_MAX, None);
    let mut messages = Vec::new();
    loop {
        match envelopes.next().now_or_never().expect("all of it is there") {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => return (messages, true),
            Err(_) => return (messages, false),
        }
    }
}

/// A call is given up as soon as it is seen that one of its messages is too large, so some before that may not be heard.
fn assert_web((heard, is_whole): Read, body: &[u8]) {
    let (said, is_said_whole) = plainly(body, |_| None);
    assert_eq!(is_whole, is_said_whole, "gRPC-Web ends otherwise in pieces");
    assert!(heard.len() == said.len() || !is_whole, "a message of gRPC-Web was lost");
    assert!(said.starts_with(&heard), "gRPC-Web is read otherwise in pieces");
}

/// What a service hears of a call of gRPC-Web.
fn of_web(body: Body, is_text: bool) -> Read {
    let kind = if is_text { "application/grpc-web-text" } else { "application/grpc-web" };
    let mut request = Request::new(body);
    *request.method_mut() = Verb::POST;
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    let mut heard = None;
    let inner = tower::service_fn(|request: Request<Body>| {
        let body = Body::new(Bounded::new(request.into_body(), MESSAGE_BYTES_MAX, Arc::<AtomicBool>::default()));
        heard = Some(of_grpc(body, Packing::Plain));
        std::future::ready(Ok::<_, Infallible>(Response::new(Body::empty())))
    });
    let answered = GrpcWebLayer::new().layer(inner).oneshot(request).now_or_never();
    let Ok(answer) = answered.expect("nothing is waited for");
    let _ = answer.into_body().collect().now_or_never();
    heard.unwrap_or_default()
}

fn elements(shape: Shape, body: &[u8], size: usize) -> Read {
    let mut cutter = Cutter::new(shape, MESSAGE_BYTES_MAX);
    let mut messages = Vec::new();
    let mut ends = body.chunks(size).map(Some).chain([None]);
    let is_whole = ends.all(|piece| {
        cutter.push(piece.unwrap_or_default());
        loop {
            match cutter.next(piece.is_none()) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    });
    assert!(messages.iter().all(|message| message.len() <= MESSAGE_BYTES_MAX), "a message is too large");
    (messages, is_whole)
}

/// The bytes of a connection of HTTP/1, cut into pieces of a size that the first says: where they are cut changes nothing
/// for the strict layer; hyper finds no request in them that the layer did not see begin; and a body that is taken is as
/// long as its head says.
///
/// # Panics
/// As the others; also where no runtime can be made.
pub fn connection(bytes: &[u8]) {
    let [size, bytes @ ..] = bytes else { return };
    let config = Config::default();
    let inspect = |size: usize| {
        let inspector = Inspector::new(config.headers_bytes_max + config.target_bytes_max);
        bytes.chunks(size).for_each(|piece| inspector.take(piece));
        inspector
    };
    let size = usize::from(size % 64) + 1;
    assert_eq!(inspect(size).first_violation(), inspect(usize::MAX).first_violation(), "pieces are read otherwise");

    let inspector = Inspector::new(config.headers_bytes_max + config.target_bytes_max);
    let found = AtomicU64::new(0);
    let service = service_fn(|request: Request<Incoming>| {
        let number = found.fetch_add(1, Ordering::Relaxed) + 1;
        let (inspector, config) = (inspector.clone(), config.clone());
        async move { Ok::<_, Infallible>(served(request, number, &inspector, &config).await) }
    });
    let stream = TokioIo::new(Inspected::new(Said { bytes: Bytes::copy_from_slice(bytes), size }, inspector.clone()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime can be made");
    let _ = runtime.block_on(server::builder(&config).http1_only().serve_connection(stream, service));
    assert!(found.load(Ordering::Relaxed) <= inspector.heads(), "a request was found where none began");
}

/// Answers a request as the edge does before it knows any route.
async fn served(request: Request<Incoming>, number: u64, inspector: &Inspector, config: &Config) -> Response<Body> {
    if let Some(why) = inspector.violation(number) {
        return reply::of_error(&Error::RequestMalformed(why));
    }
    let (head, body) = request.into_parts();
    if let Err(error) = guard::check(&head, config) {
        return reply::of_error(&error);
    }
    let said = head.headers.get(header::CONTENT_LENGTH).map(|length| length.to_str().unwrap_or_default().to_owned());
    if let Ok(body) = body.collect().await {
        let length = body.to_bytes().len();
        assert!(said.is_none_or(|said| said.parse() == Ok(length)), "a body is not as long as its head says");
    }
    Response::new(Body::empty())
}

/// A connection that says its bytes in pieces and then no more, and to which everything can be said.
struct Said {
    bytes: Bytes,
    size: usize,
}

impl AsyncRead for Said {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let length = self.size.min(self.bytes.len()).min(buffer.remaining());
        buffer.put_slice(&self.bytes.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Said {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
