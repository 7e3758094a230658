//! The way to the platform, which no registry can announce: a connection to one of its nodes.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::{self, Endpoint};
use tower::{Service, ServiceExt as _};

use crate::connect::answer::{Answer, End, Listener};
use crate::connect::error::Error;
use crate::connect::policy::Idempotency;
use crate::connect::replay::Replay;
use crate::connect::{CONNECTION_WINDOW, STREAM_WINDOW, deadline};
use crate::credentials::Credentials;
use crate::fault;
use crate::link::Link;
use crate::tls::Stream;

type Request = http::Request<Body>;
type Response = http::Response<Body>;

/// How long one node has to accept a connection before the next is tried.
const CONNECT_WAIT: Duration = Duration::from_secs(1);
/// How often the node is asked whether it is there, even while idle, and how long it has to answer.
const PING_INTERVAL: Duration = Duration::from_secs(3);
const PING_WAIT: Duration = Duration::from_secs(2);
/// How long response headers may take when the caller names no deadline.
const HEADERS_WAIT: Duration = Duration::from_secs(5);
/// Attempts of a read, the first included.
const READ_ATTEMPTS: u32 = 3;
/// Most bytes of a request kept for a repetition.
const REPLAY_BYTES_MAX: usize = 64 * 1024;
/// The port of a platform node.
const PORT: u16 = 9900;

/// Makes a link to the platform behind `endpoints`, of which any will do.
///
/// Connects at the first call and after each loss, to the node after the one that was lost; a node that refuses, or
/// does not accept within a second, is skipped at once. Calls fail with PLATFORM_UNREACHABLE while no node answers, and
/// with CALL_DEADLINE when response headers do not come within five seconds or the call's own `grpc-timeout`. Reads that
/// a lost connection cut off before their answer are repeated. Must be called within a tokio runtime.
pub fn platform(endpoints: &[Uri]) -> Link {
    platform_as(endpoints, &Credentials::default())
}

/// As [`platform`], for a caller who says who it is: a token with every request, a certificate with every connection to
/// an endpoint that begins with `https`.
pub fn platform_as(endpoints: &[Uri], credentials: &Credentials) -> Link {
    let names: Vec<_> = endpoints.iter().map(Uri::to_string).collect();
    let nodes: Arc<[Uri]> = endpoints.iter().filter(|uri| uri.host().is_some()).cloned().collect();
    let next = Arc::new(AtomicUsize::new(0));
    let connecting = credentials.clone();
    let connector = tower::service_fn(move |_: Uri| {
        let (nodes, next, credentials) = (nodes.clone(), next.clone(), connecting.clone());
        async move { connect(&nodes, &next, &credentials).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://platform.ninefold")
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_WAIT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .connect_with_connector_lazy(connector);
    Link::new(Platform { channel, names: names.join(", ").into(), credentials: credentials.clone() })
}

/// Connects to the first node that accepts, beginning after the one that was connected to last.
async fn connect(nodes: &[Uri], next: &AtomicUsize, credentials: &Credentials) -> io::Result<Stream> {
    let first = next.load(Ordering::Relaxed);
    let mut failure = io::Error::new(io::ErrorKind::InvalidInput, "no node is named");
    for turn in 0..nodes.len() {
        let index = (first.wrapping_add(turn)) % nodes.len();
        let host = nodes[index].host().unwrap_or_default().trim_matches(['[', ']']);
        let port = nodes[index].port_u16().unwrap_or(PORT);
        let connecting = async {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            credentials.secure(&nodes[index], stream).await
        };
        match tokio::time::timeout(CONNECT_WAIT, connecting).await {
            Ok(Ok(stream)) => {
                next.store(index + 1, Ordering::Relaxed);
                return Ok(stream);
            }
            Ok(Err(error)) => failure = error,
            Err(_) => failure = io::Error::new(io::ErrorKind::TimedOut, "no answer within one second"),
        }
    }
    Err(failure)
}

#[derive(Clone, Debug)]
struct Platform {
    channel: transport::Channel,
    names: Arc<str>,
    credentials: Credentials,
}

impl Service<Request> for Platform {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let inherited = deadline::current();
        let platform = self.clone();
        async move { Ok(platform.answer(request, inherited).await.unwrap_or_else(|e| fault::status(&e).into_http())) }
            .boxed()
    }
}

impl Platform {
    async fn answer(self, request: Request, inherited: Option<Instant>) -> Result<Response, Error> {
        let started = Instant::now();
        let (mut head, body) = request.into_parts();
        self.credentials.sign(&mut head.headers);
        let own = deadline::left(&head.headers).map(|left| started + left);
        let end = own.into_iter().chain(inherited).min();
        let headers_end = end.unwrap_or(started + HEADERS_WAIT);
        if let Some(end) = end {
            deadline::write(&mut head.headers, end.saturating_duration_since(started));
        }
        let body = Replay::new(body, REPLAY_BYTES_MAX).await;
        let attempts_max = if Idempotency::Reads.allows(head.uri.path()) { READ_ATTEMPTS } else { 1 };
        let mut attempts = 0;
        let response = loop {
            attempts += 1;
            let request = Request::from_parts(head.clone(), body.body());
            let sent = tokio::time::timeout_at(headers_end, self.channel.clone().oneshot(request)).await;
            match sent {
                Ok(Ok(response)) => break response,
                // tonic keeps the same time, and would answer CANCELLED.
                Ok(Err(_)) if headers_end <= Instant::now() => return Err(late(started)),
                Ok(Err(_)) if attempts < attempts_max && body.is_repeatable() => {}
                Ok(Err(error)) => {
                    return Err(Error::PlatformUnreachable { endpoints: self.names, source: Arc::new(error) });
                }
                Err(_) => return Err(late(started)),
            }
        };
        let (head, body) = response.into_parts();
        let answer = Answer::new(&head.headers, body, Watch { names: self.names, started }, end);
        Ok(Response::from_parts(head, Body::new(answer)))
    }
}

/// Watches an answer of the platform to its end.
struct Watch {
    names: Arc<str>,
    started: Instant,
}

impl Listener<Status> for Watch {
    fn broken(&self, error: Status) -> Error {
        Error::PlatformUnreachable { endpoints: self.names.clone(), source: Arc::new(error) }
    }

    fn late(&self) -> Error {
        late(self.started)
    }

    fn ended(&mut self, _: End<'_>) {}
}

fn late(started: Instant) -> Error {
    Error::Deadline { service: "platform".into(), after: started.elapsed() }
}
