//! The members of an etcd cluster, and how a call finds one that answers.
//!
//! One member is used at a time, over one connection of its own; when it fails, the next in the list is. etcd-client's
//! own balancing is not used: it goes on picking members that are away.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{Channel, Client, ConnectOptions};
use tokio::time::Instant;
use tonic::Code;
use tonic::transport::Endpoint;

use crate::Error;

/// The whole time of a call, over all tries. Shorter than the 5 s that callers of the platform wait by default, so that
/// they are told that the store is away, and not left to guess.
const CALL_DEADLINE: Duration = Duration::from_secs(4);
/// Time to make a connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);
/// Shortest time that a member gets to answer a call that another may be asked instead.
const TRY_MIN: Duration = Duration::from_secs(1);
/// Pause after all members were tried; doubled each round, with jitter.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(800);
/// HTTP/2 pings find connections that died in silence. etcd cuts off who pings more often than every 5 s.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_DEADLINE: Duration = Duration::from_secs(5);

/// Whether a call that failed may be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// Twice is as good as once.
    Always,
    /// Only when it is certain that no member has seen it.
    Unseen,
}

/// Why a call has no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// etcd refused it.
    Refused(tonic::Status),
    /// A lease that was to be kept alive is gone.
    LeaseGone,
    /// Nobody answered in time, or a connection broke.
    Away(Error),
}

/// The members.
#[derive(Debug)]
pub(super) struct Members {
    clients: Vec<Member>,
    current: AtomicUsize,
    what: String,
}

struct Member(Client);

impl std::fmt::Debug for Member {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Member")
    }
}

impl Members {
    /// Makes clients for all URLs. Nothing is connected before the first call.
    pub(super) async fn new(urls: &[String]) -> Result<Self, Error> {
        let what = format!("etcd at {}", urls.join(", "));
        let unusable = |source| Error::Unavailable { what: what.clone(), source: Some(source) };
        let mut clients = Vec::new();
        for url in urls {
            let endpoint = Endpoint::from_shared(url.clone()).map_err(|error| unusable(error.into()))?;
            let channel = endpoint
                .connect_timeout(CONNECT_DEADLINE)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(PING_EVERY)
                .keep_alive_timeout(PING_DEADLINE)
                .keep_alive_while_idle(true)
                .connect_lazy();
            // A member without a leader refuses watches instead of keeping silent.
            let options = ConnectOptions::new().with_require_leader(true);
            let client = Client::from_channel(Channel::Tonic(channel), Some(options)).await;
            clients.push(Member(client.map_err(|error| unusable(error.into()))?));
        }
        Ok(Self { clients, current: AtomicUsize::new(0), what })
    }

    /// The member in use, and its number for [`Members::leave`].
    pub(super) fn current(&self) -> (usize, Client) {
        let index = self.current.load(Ordering::Relaxed) % self.clients.len();
        (index, self.clients[index].0.clone())
    }

    /// Uses the next member from now on, if `index` is still the one in use.
    pub(super) fn leave(&self, index: usize) {
        let next = (index + 1) % self.clients.len();
        // When somebody else has left it already, theirs stands.
        let _ = self.current.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Says that nobody can be reached.
    pub(super) fn away(&self, source: Option<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::Unavailable { what: self.what.clone(), source }
    }

    /// Makes a call, on as many members as it takes, until the deadline.
    pub(super) async fn call<T, F>(&self, again: Again, call: impl Fn(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let end = Instant::now() + CALL_DEADLINE;
        let share = CALL_DEADLINE / u32::try_from(self.clients.len()).unwrap_or(u32::MAX);
        let mut pauses = Pauses::default();
        for tries in 1.. {
            let (index, client) = self.current();
            let try_end = match again {
                Again::Always => end.min(Instant::now() + share.max(TRY_MIN)),
                Again::Unseen => end,
            };
            let (seen, source) = match tokio::time::timeout_at(try_end, call(client)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => match Trouble::of(error) {
                    Trouble::Final(failure) => return Err(failure),
                    Trouble::Passing { unseen, source } => (!unseen, Some(source)),
                },
                Err(_) => (true, None),
            };
            self.leave(index);
            let pause = if tries % self.clients.len() == 0 { pauses.next() } else { Duration::ZERO };
            if (seen && again == Again::Unseen) || Instant::now() + pause >= end {
                return Err(Failure::Away(self.away(source)));
            }
            tokio::time::sleep(pause).await;
        }
        unreachable!("the tries end with the deadline")
    }
}

/// Pauses that grow, each with full jitter over its upper half.
#[derive(Debug)]
pub(super) struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(PAUSE_FIRST)
    }
}

impl Pauses {
    pub(super) fn next(&mut self) -> Duration {
        let full = self.0;
        self.0 = (full * 2).min(PAUSE_MAX);
        full.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

/// What an error of etcd-client means for the call.
enum Trouble {
    Final(Failure),
    Passing {
        /// No member has seen the call.
        unseen: bool,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Trouble {
    fn of(error: etcd_client::Error) -> Self {
        match error {
            etcd_client::Error::GRpcStatus(status) => match status.code() {
                Code::Unavailable
                | Code::DeadlineExceeded
                | Code::Cancelled
                | Code::Unknown
                | Code::Internal
                // Out of disk quota, or too many requests at once.
                | Code::ResourceExhausted => {
                    Self::Passing { unseen: never_connected(&status), source: Box::new(Said(status)) }
                }
                Code::Ok
                | Code::InvalidArgument
                | Code::NotFound
                | Code::AlreadyExists
                | Code::PermissionDenied
                | Code::FailedPrecondition
                | Code::Aborted
                | Code::OutOfRange
                | Code::Unimplemented
                | Code::DataLoss
                | Code::Unauthenticated => Self::Final(Failure::Refused(status)),
            },
            // etcd-client says so when etcd answers with a time to live of 0, and for nothing else here.
            etcd_client::Error::LeaseKeepAliveError(_) => Self::Final(Failure::LeaseGone),
            other => Self::Passing { unseen: false, source: other.into() },
        }
    }
}

/// Whether a call failed before there was a connection to send it on.
fn never_connected(status: &tonic::Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// A status as a source: its message alone, its causes behind it.
#[derive(Debug)]
pub(super) struct Said(pub(super) tonic::Status);

impl std::fmt::Display for Said {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.0.message())
    }
}

impl std::error::Error for Said {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.0)
    }
}
