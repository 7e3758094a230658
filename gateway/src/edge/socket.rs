//! Streams over WebSocket, for pages of browsers: each message of the socket is one of the call.
//!
//! A socket is asked for with GET at the path of any route whose method streams. Two subprotocols: `json` (text, what is
//! spoken if none is named) and `proto` (binary). An empty text ends the caller's side; closing the socket leaves the
//! call. The end of the answers closes the socket: 1000 after an OK, else 4000 + the gRPC code, with the whole status as
//! the last message of `json`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header};
use http_body::Frame;
use http_body_util::StreamBody;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use ninefold::fault;
use ninefold::lifecycle::Stop;
use ninefold::tonic::body::Body;
use ninefold::tonic::{Code, Status};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::error::Error as SocketError;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tower::ServiceExt as _;

use super::{Client, Edge, rest};
use crate::access::Record;
use crate::error::Error;
use crate::frames::{Broken, Frames, Packing, framed};
use crate::guard::Promise;
use crate::path::Path;
use crate::routes::Route;
use crate::table::Found;
use crate::transcode::notation::Notation;
use crate::transcode::{self, Parts as Said, status};

/// Messages of the caller that wait for the service; then the socket is not read.
const WAITING_MAX: usize = 4;
/// Signs of life that a caller may miss.
const SILENCES_MAX: u32 = 2;
/// Longest wait for the caller's answer to a close.
const GOODBYE_MAX: Duration = Duration::from_secs(2);
/// Most bytes of a close frame's reason.
const REASON_BYTES_MAX: usize = 123;
/// Close codes from here on are those of gRPC.
const CODES: u16 = 4000;
/// HTTP methods whose routes a socket may take, in this order.
const VERBS: [&str; 4] = ["GET", "POST", "PUT", "PATCH"];
/// Headers that are of the socket alone.
const OF_THE_SOCKET: [&str; 5] = [
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-protocol",
    "sec-websocket-extensions",
    "sec-websocket-accept",
];

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Json,
    Proto,
}

/// Whether a request asks for a WebSocket.
pub(super) fn is_asked(head: &Parts) -> bool {
    let upgrade = head.headers.get(header::UPGRADE).map(HeaderValue::as_bytes);
    head.method == Method::GET
        && head.version == Version::HTTP_11
        && upgrade.is_some_and(|upgrade| upgrade.eq_ignore_ascii_case(b"websocket"))
}

/// What the handshake says, or what is wrong with it.
fn handshake(headers: &HeaderMap) -> Result<(String, Option<&'static str>, Written), Error> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
    let connection = text(header::CONNECTION).to_ascii_lowercase();
    if !connection.split(',').any(|word| word.trim() == "upgrade") {
        return Err(Error::RequestMalformed("an upgrade needs Connection: upgrade"));
    }
    if text(header::SEC_WEBSOCKET_VERSION) != "13" {
        return Err(Error::RequestMalformed("the version of WebSocket is not 13"));
    }
    let key = text(header::SEC_WEBSOCKET_KEY);
    if key.len() != 24 || !key.ends_with("==") {
        return Err(Error::RequestMalformed("the key of WebSocket is malformed"));
    }
    let offered = text(header::SEC_WEBSOCKET_PROTOCOL);
    let known = offered.split(',').find_map(|one| match one.trim() {
        "json" => Some(("json", Written::Json)),
        "proto" => Some(("proto", Written::Proto)),
        _ => None,
    });
    match known {
        Some((name, written)) => Ok((derive_accept_key(key.as_bytes()), Some(name), written)),
        None if offered.is_empty() => Ok((derive_accept_key(key.as_bytes()), None, Written::Json)),
        None => Err(Error::RequestMalformed("no subprotocol is known: there are json and proto")),
    }
}

impl Edge {
    /// Answers the question for a socket, and leaves its conversation to the connection.
    pub(super) async fn socket(
        &self,
        mut head: Parts,
        path: &Path,
        client: &Client,
        record: &mut Record,
    ) -> Result<Response<Body>, Error> {
        let published = self.published.load_full();
        let found = VERBS.iter().find_map(|verb| match published.routes.rest(verb, path.clone()) {
            Found::Value { value, path } if value.method.is_client_streaming || value.method.is_server_streaming => {
                Some((value, path))
            }
            Found::Value { .. } | Found::OtherVerbs(_) | Found::Nothing => None,
        });
        let Some((route, path)) = found else {
            if !published.routes.is_known {
                return Err(Error::Starting);
            }
            return Err(Error::RouteUnknown { verb: "WebSocket".to_owned(), path: rest::shown(head.uri.path()) });
        };
        record.protocol = "websocket";
        record.routed(route.template(), &route.method.name, &route.service);
        let steered = self.admit(&mut head, route, client, record).await?;
        let channel = published.channels.get(&route.service).cloned().ok_or(Error::Starting)?;
        let (accept, subprotocol, written) = handshake(&head.headers)?;
        let upgrade = head.extensions.remove::<OnUpgrade>();
        let upgrade = upgrade.ok_or(Error::RequestMalformed("this connection cannot be upgraded"))?;

        let time = self.time_for(route, &head.headers, &steered);
        let mut call = self.call((&head, &[]), route, client, &steered, record);
        record.sent();
        for name in OF_THE_SOCKET {
            call.headers_mut().remove(name);
        }
        rest::dress(call.headers_mut(), time);
        let (sender, waiting) = mpsc::channel(WAITING_MAX);
        let body = Body::new(StreamBody::new(ReceiverStream::new(waiting)));
        let answer = channel.oneshot(call.map(|()| body)).map(|answer| {
            let Ok(answer) = answer;
            answer
        });
        let said = Caller {
            route: Route::clone(route),
            path,
            query: head.uri.query().unwrap_or_default().to_owned(),
            written,
            promise: steered.promise.clone(),
            notation: steered.notation,
            sender: Some(sender),
        };
        let conversation = Conversation {
            upstream: Upstream { answer: Some(answer.boxed()), frames: None, bytes_max: self.config.answer_bytes_max },
            end: time.map(|time| Instant::now() + time),
            message_bytes_max: self.config.body_bytes_max,
            patience: self.config.answer_timeout,
            heartbeat: self.config.heartbeat,
            stop: self.stop.clone(),
            record: record.hand_over(),
        };
        client.converse(async move { conversation.run(upgrade, said).await }.boxed());

        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, HeaderValue::try_from(accept).expect("base64 is a header value"));
        if let Some(subprotocol) = subprotocol {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
        }
        Ok(response)
    }
}

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// The caller's side of a conversation.
struct Caller {
    route: Route,
    path: Path,
    query: String,
    written: Written,
    /// What each message must hold to.
    promise: Option<Promise>,
    notation: Notation,
    /// Where messages go; none when the caller has said all.
    sender: Option<mpsc::Sender<Result<Frame<Bytes>, Status>>>,
}

/// Why a conversation ends.
enum Ending {
    /// The service has answered, or has not.
    Status(Status),
    /// The caller has gone.
    Left,
    /// The caller breaks the protocol.
    Refused(CloseCode, String),
}

impl Caller {
    /// Hears the caller until it leaves or is refused.
    async fn hear(&mut self, socket: &mut SplitStream<Socket>, heard: &AtomicBool) -> Ending {
        if !self.route.method.is_client_streaming && self.is_said_by_path() {
            // Path and query say all there is.
            if let Err(ending) = self.say(Bytes::new()).await {
                return ending;
            }
            self.sender = None;
        }
        loop {
            let message = socket.next().await;
            heard.store(true, Ordering::Relaxed);
            let spoken = match message {
                None | Some(Ok(Message::Close(_))) => return Ending::Left,
                Some(Ok(Message::Text(text))) if text.is_empty() => {
                    self.sender = None;
                    continue;
                }
                Some(Ok(Message::Text(text))) if self.written == Written::Json => Bytes::from(text),
                Some(Ok(Message::Binary(bytes))) if self.written == Written::Proto => bytes,
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Ok(Message::Text(_) | Message::Binary(_))) => {
                    return Ending::Refused(CloseCode::Unsupported, "json is text, proto is binary".to_owned());
                }
                Some(Err(SocketError::Capacity(error))) => return Ending::Refused(CloseCode::Size, error.to_string()),
                Some(Err(SocketError::Utf8(error))) => return Ending::Refused(CloseCode::Invalid, error),
                Some(Err(SocketError::Protocol(error))) => {
                    return Ending::Refused(CloseCode::Protocol, error.to_string());
                }
                Some(Err(_)) => return Ending::Left,
            };
            if let Err(ending) = self.say(spoken).await {
                return ending;
            }
        }
    }

    fn is_said_by_path(&self) -> bool {
        self.route.binding.as_ref().is_some_and(|binding| binding.body == crate::binding::Body::Nowhere)
    }

    /// Hands one message on, and waits while the service takes no more.
    async fn say(&mut self, body: Bytes) -> Result<(), Ending> {
        let Some(sender) = &self.sender else {
            let why = "the caller's side has ended";
            return Err(Ending::Refused(CloseCode::Policy, why.to_owned()));
        };
        let method = &self.route.method;
        let binding = self.route.binding.as_ref().expect("routes in the REST table have a binding");
        let headers = HeaderMap::new();
        let said = Said { path: &self.path, query: &self.query, headers: &headers, body, notation: self.notation };
        let made = match self.written {
            _ if !method.is_client_streaming && self.is_said_by_path() => transcode::request(method, binding, &said),
            Written::Json => transcode::element(method, binding, &said),
            Written::Proto => transcode::whole_element(method, binding, &said),
        };
        let kept = made.and_then(|message| {
            self.promise.as_ref().map_or(Ok(()), |promise| promise.check(method, &message)).map(|()| message)
        });
        let message = kept.map_err(|error| Ending::Status(fault::status(&error)))?;
        // Nobody listens when the call has ended; its status is on its way.
        let _ = sender.send(Ok(Frame::data(framed(&message)))).await;
        if !method.is_client_streaming {
            self.sender = None;
        }
        Ok(())
    }
}

/// The service's side of a conversation.
struct Upstream {
    answer: Option<BoxFuture<'static, Response<Body>>>,
    frames: Option<Frames>,
    bytes_max: usize,
}

impl Upstream {
    /// The next message, or the status at the end. Cancel safe: what is waited for stays.
    async fn next(&mut self) -> Result<Bytes, Result<Status, &'static str>> {
        if let Some(answer) = &mut self.answer {
            let (head, body) = answer.await.into_parts();
            self.answer = None;
            if let Some(status) = rest::failed_at_once(&head) {
                return Err(Ok(status));
            }
            self.frames = Some(Frames::new(body, self.bytes_max).packed(Packing::of(&head.headers, "grpc-encoding")));
        }
        let Some(frames) = &mut self.frames else { return Err(Ok(Status::unknown("the answer ended"))) };
        match frames.next().await {
            Ok(Some(message)) => Ok(message),
            Ok(None) => Err(Ok(frames.status())),
            Err(Broken::Body(status)) => Err(Ok(status)),
            Err(Broken::Protocol(what)) => Err(Err(what)),
        }
    }
}

struct Conversation {
    upstream: Upstream,
    end: Option<Instant>,
    message_bytes_max: usize,
    /// Longest time for a message to leave.
    patience: Duration,
    heartbeat: Duration,
    stop: Stop,
    record: Record,
}

impl Conversation {
    async fn run(mut self, upgrade: OnUpgrade, mut caller: Caller) {
        let Ok(upgraded) = upgrade.await else { return };
        let config = WebSocketConfig::default()
            .max_message_size(Some(self.message_bytes_max))
            .max_frame_size(Some(self.message_bytes_max))
            .read_buffer_size(8 << 10)
            .write_buffer_size(0);
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
        let (mut sink, mut stream) = socket.split();
        let (route, written) = (caller.route.clone(), (caller.written, caller.notation));
        let ending = {
            let heard = AtomicBool::new(true);
            let hearing = caller.hear(&mut stream, &heard);
            self.talk(&mut sink, hearing, &heard, &route, written).await
        };
        let leaving = !matches!(&ending, Ending::Status(status) if status.code() == Code::Ok);
        if let Some(sender) = caller.sender.take().filter(|_| leaving) {
            // Not an end, which the service might take for the caller's last word.
            let _ = sender.try_send(Err(Status::cancelled("the caller has left")));
        }
        drop(self.upstream);
        let goodbye = async {
            goodbye(&mut sink, ending, &route, written.0, &self.record).await;
            if let Ok(mut socket) = sink.reunite(stream) {
                // By TLS, an end that was not announced may be anybody's.
                let _ = socket.get_mut().shutdown().await;
            }
        };
        let _ = timeout(GOODBYE_MAX, goodbye).await;
        self.record.finish();
    }

    /// Hands answers on until somebody ends it.
    async fn talk(
        &mut self,
        sink: &mut SplitSink<Socket, Message>,
        hearing: impl Future<Output = Ending>,
        heard: &AtomicBool,
        route: &Route,
        written: (Written, Notation),
    ) -> Ending {
        let mut hearing = std::pin::pin!(hearing);
        let mut beat = tokio::time::interval(self.heartbeat);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let end = self.end.unwrap_or_else(Instant::now);
        let mut silences = 0;
        loop {
            // Nothing is lost when an arm is dropped: the first is pinned, the second cancel safe, the others only wait.
            let message = tokio::select! {
                ending = &mut hearing => return ending,
                next = self.upstream.next() => match next.map_err(|end| end.unwrap_or_else(|what| malformed(route, what))) {
                    Ok(message) => match written_as(route, written, message) {
                        Ok(message) => message,
                        Err(what) => return Ending::Status(malformed(route, what)),
                    },
                    Err(status) => return Ending::Status(status),
                },
                _ = beat.tick() => {
                    silences = if heard.swap(false, Ordering::Relaxed) { 0 } else { silences + 1 };
                    if silences > SILENCES_MAX {
                        return Ending::Left;
                    }
                    Message::Ping(Bytes::new())
                }
                () = tokio::time::sleep_until(end), if self.end.is_some() => {
                    return Ending::Status(Status::deadline_exceeded("the time for this stream ran out"));
                }
                () = self.stop.asked() => return Ending::Status(fault::status(&Error::Draining)),
            };
            // A caller that does not read holds one message, and that not for ever.
            if !matches!(timeout(self.patience, sink.send(message)).await, Ok(Ok(()))) {
                return Ending::Left;
            }
        }
    }
}

fn malformed(route: &Route, what: &'static str) -> Status {
    fault::status(&Error::AnswerMalformed { service: route.service.to_string(), what })
}

fn written_as(
    route: &Route,
    (written, notation): (Written, Notation),
    message: Bytes,
) -> Result<Message, &'static str> {
    if written == Written::Proto {
        return Ok(Message::Binary(message));
    }
    let binding = route.binding.as_ref().expect("routes in the REST table have a binding");
    let answer = transcode::answer(&route.method, binding, notation, message)?;
    if transcode::answers_http_body(&route.method.output, binding) {
        return Ok(Message::Binary(answer.body));
    }
    let text = answer.body.try_into().map_err(|_| "its answer is no text")?;
    Ok(Message::Text(text))
}

/// Says why it ends, and waits for the caller to close.
async fn goodbye(
    sink: &mut SplitSink<Socket, Message>,
    ending: Ending,
    route: &Route,
    written: Written,
    record: &Record,
) {
    let (code, reason) = match ending {
        Ending::Left => {
            record.outcome.set(Code::Cancelled);
            let _ = sink.close().await;
            return;
        }
        Ending::Refused(code, reason) => {
            record.outcome.set(Code::InvalidArgument);
            (code, reason)
        }
        Ending::Status(status) => {
            record.outcome.set(status.code());
            if status.code() == Code::Ok {
                (CloseCode::Normal, String::new())
            } else {
                if written == Written::Json {
                    let pool = route.method.output.parent_pool();
                    let text = format!("{{\"error\":{}}}", status::json(&status, Some(pool)));
                    let _ = sink.send(Message::text(text)).await;
                }
                let code = CODES + u16::try_from(i32::from(status.code())).unwrap_or_default();
                (CloseCode::from(code), status.message().to_owned())
            }
        }
    };
    let mut cut = reason.len().min(REASON_BYTES_MAX);
    while !reason.is_char_boundary(cut) {
        cut -= 1;
    }
    let frame = CloseFrame { code, reason: reason[..cut].into() };
    let _ = sink.send(Message::Close(Some(frame))).await;
    let _ = sink.close().await;
}
