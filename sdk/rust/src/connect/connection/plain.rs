//! HTTP/1.1 to one address: a connection for each request at a time, kept for the next one.
//!
//! What is known of an address that only speaks HTTP/1.1 is whether it could be connected to lately: servers close idle
//! connections as they please, and that says nothing about them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::{HOST, HeaderValue};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use tonic::body::Body;

use super::{CONNECT_WAIT, SendError, Version, Way};
use crate::connect::dialer::Dialer;
use crate::connect::error::Cause;
use crate::connect::landscape::Address;
use crate::lifecycle::Scope;

/// Most connections that are kept for later, busy ones among them.
const KEPT_MAX: usize = 256;
/// How long an idle connection is kept: less than what servers commonly give one, so that a request seldom meets its end.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// Most bytes of the head of an answer, and of what is read ahead of its body.
const BUFFER_BYTES: usize = 64 << 10;

/// The connections to one address.
#[derive(Debug)]
pub(super) struct Plain {
    dialer: Dialer,
    service: Arc<str>,
    address: Address,
    is_tls: bool,
    scope: Scope,
    /// The youngest last.
    kept: Mutex<Vec<Kept>>,
}

#[derive(Debug)]
struct Kept {
    sender: SendRequest<Body>,
    since: Instant,
}

impl Kept {
    fn is_fresh(&self, now: Instant) -> bool {
        !self.sender.is_closed() && (!self.sender.is_ready() || now < self.since + IDLE_MAX)
    }
}

impl Plain {
    /// Connects once, so that it is known that somebody is there.
    pub(super) async fn open(way: Way<'_>, address: &Address, scope: &Scope) -> Result<Self, Cause> {
        let plain = Self {
            dialer: way.dialer.clone(),
            service: way.service.into(),
            address: address.clone(),
            is_tls: way.is_tls,
            scope: scope.clone(),
            kept: Mutex::default(),
        };
        let first = plain.connect().await?;
        plain.keep(first);
        Ok(plain)
    }

    async fn connect(&self) -> Result<SendRequest<Body>, Cause> {
        let handshake = async {
            let way = Way { dialer: &self.dialer, service: &self.service, is_tls: self.is_tls, version: Version::One };
            let stream = self.dialer.dial(&way, &self.address).await?;
            http1::Builder::new()
                .max_buf_size(BUFFER_BYTES)
                .handshake(TokioIo::new(stream))
                .await
                .map_err(|error| Cause::Handshake(Arc::new(error)))
        };
        let made = tokio::time::timeout(CONNECT_WAIT, handshake).await;
        let (sender, connection) = made.map_err(|_| Cause::Timeout(CONNECT_WAIT))??;
        self.scope.run("connect.hold", |stop| async move {
            tokio::select! {
                outcome = connection.with_upgrades() => {
                    if let Err(error) = outcome {
                        tracing::debug!(error = %crate::fault::chain(&error), "a connection broke");
                    }
                }
                () = stop.asked() => {}
            }
        });
        Ok(sender)
    }

    /// Whether somebody takes connections there.
    pub(super) async fn reaches(&self) -> bool {
        match self.connect().await {
            Ok(sender) => {
                self.keep(sender);
                true
            }
            Err(_) => false,
        }
    }

    /// Sends a request and waits for the response's headers. Dropping it ends the connection.
    pub(super) async fn send(&self, mut request: Request<Body>) -> Result<Response<Incoming>, SendError> {
        let name = || HeaderValue::try_from(self.address.to_string()).unwrap_or(HeaderValue::from_static("localhost"));
        request.headers_mut().entry(HOST).or_insert_with(name);
        while let Some(mut sender) = self.take() {
            match sender.try_send_request(request).await {
                Ok(response) => {
                    self.keep(sender);
                    return Ok(response);
                }
                // The server closed it while it lay idle.
                Err(mut failure) => match failure.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(SendError::Lost(failure.into_error())),
                },
            }
        }
        let mut sender = self.connect().await.map_err(SendError::Unreached)?;
        match sender.try_send_request(request).await {
            Ok(response) => {
                self.keep(sender);
                Ok(response)
            }
            Err(mut failure) => {
                let is_unsent = failure.take_message().is_some();
                let error = failure.into_error();
                Err(if is_unsent { SendError::Unsent(error) } else { SendError::Lost(error) })
            }
        }
    }

    /// The connection that was used last of those that have nothing to do.
    fn take(&self) -> Option<SendRequest<Body>> {
        let now = Instant::now();
        let mut kept = self.lock();
        let ready = kept.iter().rposition(|one| one.sender.is_ready() && one.is_fresh(now))?;
        Some(kept.remove(ready).sender)
    }

    /// Keeps a connection that has been answered on, if only in part; it is taken again when it is ready.
    fn keep(&self, sender: SendRequest<Body>) {
        let now = Instant::now();
        let mut kept = self.lock();
        if kept.len() >= KEPT_MAX {
            kept.retain(|one| one.is_fresh(now));
        }
        if kept.len() < KEPT_MAX {
            kept.push(Kept { sender, since: now });
        }
    }

    /// Lets connections go that lay idle too long.
    pub(super) fn tidy(&self) {
        let now = Instant::now();
        self.lock().retain(|one| one.is_fresh(now));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
