//! What keeps a call from being answered.

use std::sync::Arc;
use std::time::Duration;

use crate::fault::{Fault, Kind};

/// Why no connection could be made. Clones share the cause.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Cause {
    /// The address refused, or could not be resolved or reached.
    #[error("{0}")]
    Io(Arc<std::io::Error>),
    /// The address did not answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The address does not speak HTTP/2.
    #[error("the address does not speak HTTP/2")]
    Handshake(#[source] Arc<hyper::Error>),
    /// The instance does not prove that it keeps the service, or refuses who this caller proves to be.
    #[error("TLS failed: {0}")]
    Tls(Arc<std::io::Error>),
    /// The instance asks for TLS, and this caller was not told whom to trust.
    #[error("the instance asks for TLS, and no certificate authority is named")]
    TlsMissing,
    /// The address accepts connections and ends them: it speaks another protocol, or has too many callers.
    #[error("the connection ended at once")]
    Ended,
}

/// What keeps a call from being answered.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The registry names no instance that is ready.
    #[error("no instance of {service:?} is ready")]
    NoInstance {
        /// Name of the service.
        service: Arc<str>,
    },
    /// Instances are ready, but none keeps a contract that the call asks for.
    #[error("no instance of {service:?} with the contract asked for is ready")]
    NoInstanceAmong {
        /// Name of the service.
        service: Arc<str>,
    },
    /// Instances are known, but none can be connected to.
    #[error("no instance of {service:?} can be reached")]
    Unreachable {
        /// Name of the service.
        service: Arc<str>,
        /// Why the last attempt failed; none while the first is under way.
        source: Option<Cause>,
    },
    /// The breakers of all instances are open.
    #[error("every instance of {service:?} has failed of late: its breaker is open")]
    BreakerOpen {
        /// Name of the service.
        service: Arc<str>,
        /// When calls are tried again, at the earliest.
        retry_after: Duration,
    },
    /// The breaker of the method is open: it failed wherever it was asked.
    #[error("{method:?} of {service:?} has failed of late wherever it was asked: its breaker is open")]
    MethodBreakerOpen {
        /// Name of the service.
        service: Arc<str>,
        /// Full name of the method.
        method: Arc<str>,
        /// When calls are tried again, at the earliest.
        retry_after: Duration,
    },
    /// As many calls are in flight to the service, or the method, as may be.
    #[error("{in_flight} calls to {service:?} are in flight, as many as may be")]
    CallsFull {
        /// Name of the service.
        service: Arc<str>,
        /// Calls in flight.
        in_flight: u32,
    },
    /// The service has refused so many calls of late that this one is not made.
    #[error("{service:?} has refused so many calls of late that this one was held back")]
    Throttled {
        /// Name of the service.
        service: Arc<str>,
    },
    /// The connection broke before the answer was complete. The call may have been processed.
    #[error("the connection to instance {instance_id:?} of {service:?} was lost")]
    ConnectionLost {
        /// Name of the service.
        service: Arc<str>,
        /// Id of the instance.
        instance_id: Arc<str>,
        /// How it broke.
        source: Arc<hyper::Error>,
    },
    /// The instance gave up the call without an answer.
    #[error("instance {instance_id:?} of {service:?} reset the call")]
    StreamReset {
        /// Name of the service.
        service: Arc<str>,
        /// Id of the instance.
        instance_id: Arc<str>,
        /// What the HTTP/2 error code means, as gRPC maps it.
        kind: Kind,
        /// The reset.
        source: Arc<hyper::Error>,
    },
    /// The call's time ran out.
    #[error("the call to {service:?} was not answered within {after:?}")]
    Deadline {
        /// Name of the service.
        service: Arc<str>,
        /// How long it was waited for.
        after: Duration,
    },
    /// No node of the platform can be reached.
    #[error("the platform cannot be reached at {endpoints}")]
    PlatformUnreachable {
        /// The nodes that were tried.
        endpoints: Arc<str>,
        /// How the attempt, or the connection, failed.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::NoInstance { .. }
            | Self::NoInstanceAmong { .. }
            | Self::Unreachable { .. }
            | Self::BreakerOpen { .. }
            | Self::MethodBreakerOpen { .. }
            | Self::ConnectionLost { .. }
            | Self::PlatformUnreachable { .. } => Kind::Unavailable,
            Self::CallsFull { .. } | Self::Throttled { .. } => Kind::Exhausted,
            Self::StreamReset { kind, .. } => *kind,
            Self::Deadline { .. } => Kind::Deadline,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::NoInstance { .. } | Self::NoInstanceAmong { .. } => "NO_INSTANCE",
            Self::Unreachable { .. } => "INSTANCE_UNREACHABLE",
            Self::BreakerOpen { .. } | Self::MethodBreakerOpen { .. } => "BREAKER_OPEN",
            Self::CallsFull { .. } => "CALLS_FULL",
            Self::Throttled { .. } => "CALL_THROTTLED",
            Self::ConnectionLost { .. } => "CONNECTION_LOST",
            Self::StreamReset { .. } => "STREAM_RESET",
            Self::Deadline { .. } => "CALL_DEADLINE",
            Self::PlatformUnreachable { .. } => "PLATFORM_UNREACHABLE",
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::BreakerOpen { retry_after, .. } | Self::MethodBreakerOpen { retry_after, .. } => Some(*retry_after),
            Self::NoInstance { .. }
            | Self::NoInstanceAmong { .. }
            | Self::Unreachable { .. }
            | Self::CallsFull { .. }
            | Self::Throttled { .. }
            | Self::ConnectionLost { .. }
            | Self::StreamReset { .. }
            | Self::Deadline { .. }
            | Self::PlatformUnreachable { .. } => None,
        }
    }
}
