//! Plain HTTP: a request goes to a service as it is, and its answer comes back so, save what is of one connection alone.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use ninefold::connect::AnsweredBy;
use ninefold::fault;
use ninefold::lifecycle::Stop;
use ninefold::tonic::body::Body;
use ninefold::tonic::{Code, Status};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, Sleep};
use tower::ServiceExt as _;

use super::{Client, Edge, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, socket, write_timeout};
use crate::access::Record;
use crate::error::Error;
use crate::path::Path;
use crate::proxy::Proxy;
use crate::table::Found;
use crate::{guard, reply};

/// Headers that the edge answers itself, or that are of gRPC.
static NOT_PASSED: [HeaderName; 3] =
    [header::EXPECT, HeaderName::from_static("grpc-encoding"), HeaderName::from_static("grpc-accept-encoding")];
/// How much of an upgraded connection is carried at a time, in each direction.
const CARRIED_BYTES: usize = 16 << 10;

impl Edge {
    /// Whether a request goes to a service of plain HTTP: a prefix names its path, and no contract and no page of the edge
    /// has a place there.
    pub(super) fn is_plain(&self, head: &Parts, path: &Path) -> bool {
        let is_named = || self.proxies.find(path).is_some();
        let published = self.published.load();
        is_named()
            && !self.is_documented(head, &published)
            && matches!(published.routes.rest(head.method.as_str(), path.clone()), Found::Nothing)
    }

    /// Passes a request of plain HTTP on.
    pub(super) async fn plain(
        &self,
        mut head: Parts,
        path: &Path,
        body: Incoming,
        client: &Client,
        record: &mut Record,
    ) -> Result<Response<Body>, Error> {
        if !self.published.load().routes.is_known {
            return Err(Error::Starting);
        }
        let proxy = self.proxies.find(path).ok_or(Error::Starting)?;
        record.protocol = "http";
        let route = proxy.route(head.method.as_str())?;
        record.routed(route.template(), "", &route.service);
        let steered = self.admit(&mut head, route, client, record).await?;
        if let Some(promise) = &steered.promise {
            // What is promised of a message holds of none.
            promise.check(&route.method, &[])?;
        }
        let upgrade = socket::is_asked(&head).then(|| head.extensions.remove::<OnUpgrade>()).flatten();
        let mut request = Request::new(());
        *request.method_mut() = head.method.clone();
        let target = head.uri.path_and_query().and_then(|raw| proxy.target(path, raw));
        *request.uri_mut() = target.ok_or(Error::RequestMalformed("the target has no path"))?.into();
        *request.version_mut() = Version::HTTP_11;
        let mut headers = self.headers((&head, &NOT_PASSED), route, client, record);
        introduce(&mut headers);
        write_timeout(&mut headers, self.time_for(route, &head.headers, &steered));
        if upgrade.is_some() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        } else if let Some(length) = length_of(&head.headers) {
            // Many a plain server takes no other word for where a body ends. Written anew: what it reads has one spelling.
            headers.insert(header::CONTENT_LENGTH, length.into());
        }
        *request.headers_mut() = headers;
        if let Some(subset) = &steered.subset {
            request.extensions_mut().insert(subset.clone());
        }
        let bytes_max = proxy.prefix.body_bytes_max.unwrap_or(self.config.body_bytes_max as u64);
        if body.size_hint().lower() > bytes_max {
            return Err(Error::BodyTooLarge(usize::try_from(bytes_max).unwrap_or(usize::MAX)));
        }
        let given_up = Arc::new(OnceLock::new());
        let mut body = record.received.counting(Body::new(Bounded {
            body,
            left: bytes_max,
            bytes_max,
            pause: Pause::new(self.config.body_timeout),
            given_up: given_up.clone(),
        }));
        if let Some(copy) = self.copied(&steered, &request, route) {
            body = copy.follow(body);
        }
        record.sent();
        let Ok(answer) = proxy.channel.clone().oneshot(request.map(|()| body)).await;
        record.answered_by(answer.extensions().get());
        if let Some(why) = given_up.get() {
            return Err(match why {
                GivenUp::TooLarge => Error::BodyTooLarge(usize::try_from(bytes_max).unwrap_or(usize::MAX)),
                GivenUp::Late => Error::BodyTimeout(self.config.body_timeout),
                GivenUp::Broken => Error::BodyBroken("the caller broke it off".into()),
            });
        }
        self.plain_answer(proxy, answer, upgrade, client, record)
    }

    fn plain_answer(
        &self,
        proxy: &Proxy,
        mut answer: Response<Body>,
        upgrade: Option<OnUpgrade>,
        client: &Client,
        record: &mut Record,
    ) -> Result<Response<Body>, Error> {
        if answer.extensions().get::<AnsweredBy>().is_none() {
            // Nobody answered; the channel says why.
            let status = Status::from_header_map(answer.headers());
            let status = status.unwrap_or_else(|| Status::unavailable("no answer"));
            record.outcome.set(status.code());
            return Ok(reply::of_status(&status, fault::http_status(status.code()), None));
        }
        let broken = |what| Error::AnswerMalformed { service: proxy.prefix.service.clone(), what };
        let is_upgraded = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
        let upstream = answer.extensions_mut().remove::<OnUpgrade>();
        come_out(answer.headers_mut());
        // An HTTP/1.0 of the service's is its own affair: the caller's connection lives on.
        *answer.version_mut() = Version::HTTP_11;
        if !is_upgraded {
            let idle = proxy.prefix.idle;
            return Ok(answer.map(|body| Body::new(Patient { body, pause: Pause::new(idle) })));
        }
        let (Some(outside), Some(inside)) = (upgrade, upstream) else {
            return Err(broken("it upgrades a connection that was not to be"));
        };
        record.protocol = "websocket";
        let conversation =
            Conversation { idle: proxy.prefix.idle, stop: self.stop.clone(), record: record.hand_over() };
        client.converse(async move { conversation.run(outside, inside).await }.boxed());
        let headers = answer.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        Ok(answer.map(|_| Body::empty()))
    }
}

/// Says where a request came from as RFC 7239 does, too, and names its host.
fn introduce(headers: &mut HeaderMap) {
    let text =
        |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let (address, host, scheme) = (text(&X_FORWARDED_FOR), text(&X_FORWARDED_HOST), text(&X_FORWARDED_PROTO));
    let address = if address.contains(':') { format!("\"[{address}]\"") } else { address };
    let mut forwarded = format!("for={address};proto={scheme}");
    if !host.is_empty() && !host.contains(['"', '\\']) {
        forwarded.push_str(&format!(";host=\"{host}\""));
    }
    if let Ok(forwarded) = HeaderValue::try_from(forwarded) {
        headers.insert(header::FORWARDED, forwarded);
    }
    if let Some(host) = HeaderValue::try_from(host).ok().filter(|host| !host.is_empty()) {
        headers.insert(header::HOST, host);
    }
}

fn length_of(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// Takes out of an answer what is of its connection, and what only the edge says.
fn come_out(headers: &mut HeaderMap) {
    let is_chunked = headers.contains_key(header::TRANSFER_ENCODING);
    let length = headers.get(header::CONTENT_LENGTH).filter(|_| !is_chunked).cloned();
    guard::strip_hop_by_hop(headers);
    let ours: Vec<_> = headers
        .keys()
        .filter(|name| ["grpc-", "x-ninefold-"].iter().any(|ours| name.as_str().starts_with(ours)))
        .cloned()
        .collect();
    for name in ours {
        headers.remove(name);
    }
    if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, length);
    }
}

/// Waits no longer than so long for something to happen.
struct Pause {
    longest: Duration,
    /// Made when there is something to wait for.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Pause {
    const fn new(longest: Duration) -> Self {
        Self { longest, alarm: None }
    }

    /// Something happened.
    fn end(&mut self) {
        self.alarm = None;
    }

    /// Nothing has happened yet; tells whether it is too late.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let end = Instant::now() + self.longest;
        self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end))).as_mut().poll(context)
    }
}

/// Why a body was given up.
#[derive(Clone, Copy, Debug)]
enum GivenUp {
    TooLarge,
    Late,
    Broken,
}

/// The body of a request, within its bounds.
struct Bounded {
    body: Incoming,
    left: u64,
    bytes_max: u64,
    pause: Pause,
    given_up: Arc<OnceLock<GivenUp>>,
}

impl Bounded {
    fn give_up(&self, why: GivenUp) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let _ = self.given_up.set(why);
        Poll::Ready(Some(Err(Status::cancelled("the caller's body was given up"))))
    }
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let frame = match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                ready!(this.pause.poll(context));
                return this.give_up(GivenUp::Late);
            }
        };
        this.pause.end();
        match frame {
            None => Poll::Ready(None),
            Some(Err(_)) => this.give_up(GivenUp::Broken),
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
                match this.left.checked_sub(bytes) {
                    Some(left) => this.left = left,
                    None => return this.give_up(GivenUp::TooLarge),
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.body.size_hint();
        if hint.upper().is_some_and(|upper| upper > self.bytes_max) { SizeHint::default() } else { hint }
    }
}

/// The body of an answer that may not pause for ever.
struct Patient {
    body: Body,
    pause: Pause,
}

impl http_body::Body for Patient {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            this.pause.end();
            return Poll::Ready(frame);
        }
        ready!(this.pause.poll(context));
        Poll::Ready(Some(Err(Status::deadline_exceeded("the answer paused for too long"))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What goes on over an upgraded connection.
struct Conversation {
    idle: Duration,
    stop: Stop,
    record: Record,
}

impl Conversation {
    async fn run(self, outside: OnUpgrade, inside: OnUpgrade) {
        let Self { idle, stop, record } = self;
        let carried = async {
            let (outside, inside) = tokio::try_join!(outside, inside).ok()?;
            carry(TokioIo::new(outside), TokioIo::new(inside), idle).await;
            Some(())
        };
        let carried = tokio::select! {
            carried = carried => carried,
            () = stop.asked() => Some(()),
        };
        record.outcome.set(if carried.is_some() { Code::Ok } else { Code::Unavailable });
        record.finish();
    }
}

/// Carries bytes both ways until both sides have ended, one breaks, or none has said anything for `idle`.
async fn carry<A, B>(one: A, two: B, idle: Duration)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let carried = AtomicU64::new(0);
    let (one_says, one_hears) = tokio::io::split(one);
    let (two_says, two_hears) = tokio::io::split(two);
    let both = async {
        let ways = (pump(one_says, two_hears, &carried), pump(two_says, one_hears, &carried));
        let _ = tokio::try_join!(ways.0, ways.1);
    };
    let silence = async {
        loop {
            let before = carried.load(Ordering::Relaxed);
            tokio::time::sleep(idle).await;
            if carried.load(Ordering::Relaxed) == before {
                return;
            }
        }
    };
    tokio::select! {
        () = both => {}
        () = silence => {}
    }
}

async fn pump<R, W>(mut from: R, mut to: W, carried: &AtomicU64) -> std::io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; CARRIED_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        to.flush().await?;
        carried.fetch_add(read as u64, Ordering::Relaxed);
    }
}
