//! One HTTP/2 connection, or what stands for it where an address speaks HTTP/1.1, and how to make it.

mod plain;

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::Notify;
use tonic::body::Body;

use crate::connect::dialer::Dialer;
use crate::connect::error::Cause;
use crate::connect::landscape::Address;
use crate::lifecycle::Scope;
use plain::Plain;

/// How long an address has to answer.
const CONNECT_WAIT: Duration = Duration::from_secs(2);
/// How often the peer of a connection is asked whether it is there, even while idle: a partition leaves no other trace.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// How long it has to answer.
const PING_WAIT: Duration = Duration::from_secs(3);

/// How much one answer may send ahead of its reader.
pub(crate) const STREAM_WINDOW: u32 = 256 * 1024;
/// How much all answers on a connection may. Far more than their sum needs, because h2 (since 0.4.16) ends a connection
/// on which the small frames waiting to be read cost more than half of this, at 256 bytes each less their length: with
/// the usual 64 KiB, 130 short answers that arrive at once would do.
pub(crate) const CONNECTION_WINDOW: u32 = 64 * 1024 * 1024;

/// How to connect to an instance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way<'a> {
    pub(crate) dialer: &'a Dialer,
    pub(crate) service: &'a str,
    pub(crate) is_tls: bool,
    pub(crate) version: Version,
}

/// Which HTTP an address speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// HTTP/1.1.
    One,
    /// HTTP/2.
    Two,
}

/// An open HTTP/2 connection; of HTTP/1.1, all connections to the address.
#[derive(Debug)]
pub(crate) struct Line {
    sender: Sender,
    /// Woken when it takes no more calls.
    ended: Arc<Notify>,
    /// The peer as requests name it. `None` where no URI can hold it; the peer does not need it.
    authority: Option<Authority>,
    in_flight: AtomicU32,
    is_retired: AtomicBool,
}

#[derive(Debug)]
enum Sender {
    One(Plain),
    Two(SendRequest<Body>),
}

/// How a request failed before there were response headers.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) enum SendError {
    /// It was not sent, for want of a connection.
    Unreached(Cause),
    /// No server can have begun to work on it: it was not sent, was refused, or lies behind a GOAWAY.
    Unsent(hyper::Error),
    /// The server gave it up.
    Reset(hyper::Error),
    /// The connection broke.
    Lost(hyper::Error),
}

impl Line {
    /// Connects. `ended` is notified when the connection has ended.
    pub(crate) async fn open(
        way: Way<'_>,
        address: &Address,
        scope: &Scope,
        ended: Arc<Notify>,
    ) -> Result<Self, Cause> {
        let sender = match way.version {
            Version::One => Sender::One(Plain::open(way, address, scope).await?),
            Version::Two => Sender::Two(Self::shake_hands(way, address, scope, ended.clone()).await?),
        };
        Ok(Self {
            sender,
            ended,
            authority: address.to_string().parse().ok(),
            in_flight: AtomicU32::new(0),
            is_retired: AtomicBool::new(false),
        })
    }

    async fn shake_hands(
        way: Way<'_>,
        address: &Address,
        scope: &Scope,
        ended: Arc<Notify>,
    ) -> Result<SendRequest<Body>, Cause> {
        let handshake = async {
            let stream = way.dialer.dial(&way, address).await?;
            // A task for each call, which ends with its connection; the connection's own task has the owner.
            http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(PING_INTERVAL)
                .keep_alive_timeout(PING_WAIT)
                .keep_alive_while_idle(true)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .handshake(TokioIo::new(stream))
                .await
                .map_err(|error| Cause::Handshake(Arc::new(error)))
        };
        let made = tokio::time::timeout(CONNECT_WAIT, handshake).await;
        let (sender, connection) = made.map_err(|_| Cause::Timeout(CONNECT_WAIT))??;
        scope.run("connect.hold", |stop| async move {
            tokio::select! {
                outcome = connection => {
                    if let Err(error) = outcome {
                        tracing::debug!(error = %crate::fault::chain(&error), "a connection broke");
                    }
                }
                () = stop.asked() => {}
            }
            ended.notify_one();
        });
        Ok(sender)
    }

    /// Whether new calls may go here.
    pub(crate) fn is_usable(&self) -> bool {
        let is_closed = match &self.sender {
            Sender::One(_) => false,
            Sender::Two(sender) => sender.is_closed(),
        };
        !is_closed && !self.is_retired.load(Ordering::Relaxed)
    }

    /// Whether another one is worth its while with so many calls on this one. HTTP/1.1 connects for each call anyhow.
    pub(crate) fn is_crowded(&self, crowd: u32) -> bool {
        matches!(self.sender, Sender::Two(_)) && self.in_flight() >= crowd
    }

    /// Whether somebody takes connections, where no more can be asked; `None` for HTTP/2, over which it can.
    pub(crate) async fn reaches(&self) -> Option<bool> {
        match &self.sender {
            Sender::One(plain) => Some(plain.reaches().await),
            Sender::Two(_) => None,
        }
    }

    /// Lets go of what lay idle too long.
    pub(crate) fn tidy(&self) {
        if let Sender::One(plain) = &self.sender {
            plain.tidy();
        }
    }

    /// Calls on this connection that are not over.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Makes a request's target what the peer expects: absolute for HTTP/2, with the host that a plain request names.
    pub(crate) fn address(&self, request: &mut http::request::Parts) {
        if matches!(self.sender, Sender::One(_)) {
            return;
        }
        let named = request.headers.remove(HOST).and_then(|host| host.to_str().ok()?.parse().ok());
        let target = &mut request.uri;
        let mut parts = std::mem::take(target).into_parts();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = named.or_else(|| self.authority.clone());
        if parts.authority.is_none() {
            parts.authority = Some(Authority::from_static("localhost"));
        }
        parts.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
        *target = Uri::from_parts(parts).expect("scheme, authority and path make a URI");
    }

    /// Counts a call until the guard is dropped.
    pub(crate) fn occupy(self: &Arc<Self>) -> Occupied {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Occupied(self.clone())
    }

    /// Sends a request and waits for the response's headers. Dropping it cancels the call at the peer.
    pub(crate) async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, SendError> {
        let sender = match &self.sender {
            Sender::One(plain) => {
                let sent = plain.send(request).await;
                if matches!(sent, Err(SendError::Unreached(_))) {
                    self.is_retired.store(true, Ordering::Relaxed);
                    self.ended.notify_one();
                }
                return sent;
            }
            Sender::Two(sender) => sender,
        };
        let mut failure = match sender.clone().try_send_request(request).await {
            Ok(response) => return Ok(response),
            Err(failure) => failure,
        };
        let is_unsent = failure.take_message().is_some();
        let error = failure.into_error();
        let cause = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
        let is_going_away = cause.is_some_and(|cause| cause.is_go_away() && cause.is_remote());
        let is_refused =
            cause.is_some_and(|cause| cause.is_remote() && cause.reason() == Some(h2::Reason::REFUSED_STREAM));
        if is_unsent || is_going_away {
            // The peer takes no more calls here; those that it has may end.
            self.is_retired.store(true, Ordering::Relaxed);
        }
        if is_unsent || is_going_away || is_refused {
            Err(SendError::Unsent(error))
        } else if cause.is_some_and(h2::Error::is_reset) {
            Err(SendError::Reset(error))
        } else {
            Err(SendError::Lost(error))
        }
    }
}

/// A call on a connection.
#[derive(Debug)]
pub(crate) struct Occupied(Arc<Line>);

impl std::ops::Deref for Occupied {
    type Target = Line;

    fn deref(&self) -> &Line {
        &self.0
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Waits that double, with jitter, from 50 ms to a most.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    most: Duration,
    random: fastrand::Rng,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(50);

    pub(crate) fn new(most: Duration, seed: u64) -> Self {
        Self { next: Self::FIRST, most, random: fastrand::Rng::with_seed(seed) }
    }

    /// The next wait: half of it is sure, half is drawn.
    pub(crate) fn wait(&mut self) -> Duration {
        let wait = self.next.mul_f64(0.5 + 0.5 * self.random.f64());
        self.next = (self.next * 2).min(self.most);
        wait
    }

    pub(crate) fn reset(&mut self) {
        self.next = Self::FIRST;
    }
}
