//! What can go wrong in the monitor.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ninefold::fault::{Fault, Kind, Violation};
use ninefold::page::SizeInvalid;

/// How long a sender waits after a refusal for want of room.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What can go wrong in the monitor.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A question is malformed.
    #[error("the query is malformed")]
    QueryInvalid(Vec<Violation>),
    /// A page token was not given out by the monitor.
    #[error("the page token {0:?} is malformed")]
    PageTokenInvalid(String),
    /// A page of a negative size is asked for.
    #[error(transparent)]
    PageSize(#[from] SizeInvalid),
    /// No span and no log line of a trace is kept.
    #[error("no trace {0} is kept")]
    TraceUnknown(String),
    /// An OTLP request cannot be read.
    #[error("the {signal} cannot be read: {problem}")]
    TelemetryMalformed {
        /// Which signal: logs, traces or metrics.
        signal: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// An OTLP request is over the limit.
    #[error("the request is larger than {max} bytes")]
    TelemetryTooLarge {
        /// The limit.
        max: usize,
    },
    /// The body of an OTLP/HTTP request did not come in time.
    #[error("the body did not come within {0:?}")]
    TelemetryTooSlow(Duration),
    /// An OTLP/HTTP request is in a form that is not understood.
    #[error("the {what} {given:?} is not understood; send {expected}")]
    TelemetryTypeUnsupported {
        /// Which header.
        what: &'static str,
        /// Its value.
        given: String,
        /// What is understood.
        expected: &'static str,
    },
    /// Too much is coming in at a time.
    #[error("too much telemetry is coming in")]
    Overloaded,
    /// A service sends more than its share.
    #[error("{service} sends more than its share")]
    SenderTooLoud {
        /// The service.
        service: String,
        /// When it may come back.
        wait: Duration,
    },
    /// Telemetry could not be written to the disk, so nothing of it is kept.
    #[error("telemetry could not be written")]
    Unwritable(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// Files of the store could not be read.
    #[error("telemetry could not be read")]
    Unreadable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Files could not be read from the bucket.
    #[error("telemetry could not be read: {0}")]
    UnreadableElsewhere(String),
    /// The folder of telemetry cannot be used.
    #[error("telemetry cannot be kept in {}", path.display())]
    Unopenable {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An answer would need more rows than a question may look at.
    #[error("the query looks at more than {0} rows")]
    QueryTooCostly(u64),
    /// A statement of SQL would need more than one may take.
    #[error("the statement needs more than {0}: ask for less time, or search first for what is meant")]
    SqlTooCostly(String),
    /// An answer was not found in time.
    #[error("the query was not answered within {0:?}")]
    QueryTooSlow(Duration),
    /// No node of this name keeps telemetry.
    #[error("no node {0:?} keeps telemetry here")]
    NodeUnknown(String),
    /// Something is not there, but nodes that did not answer may have it.
    #[error("{what} by the nodes that answered; not by {nodes}")]
    NodesMissing {
        /// What is not there.
        what: String,
        /// Which nodes.
        nodes: String,
    },
    /// The store that nodes share.
    #[error("the store that names the nodes could not be used")]
    Store(#[from] ninefold_store::Error),
    /// Too many are following.
    #[error("more than {0} are following log lines")]
    FollowersFull(usize),
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::QueryInvalid(_)
            | Self::PageTokenInvalid(_)
            | Self::TelemetryMalformed { .. }
            | Self::TelemetryTooLarge { .. } => Kind::InvalidInput,
            Self::PageSize(wrong) => wrong.kind(),
            Self::TraceUnknown(_) | Self::NodeUnknown(_) => Kind::NotFound,
            Self::Store(source) => source.kind(),
            Self::TelemetryTooSlow(_) => Kind::Deadline,
            Self::TelemetryTypeUnsupported { .. } => Kind::Unimplemented,
            Self::Overloaded
            | Self::SenderTooLoud { .. }
            | Self::FollowersFull(_)
            | Self::QueryTooCostly(_)
            | Self::SqlTooCostly(_) => Kind::Exhausted,
            Self::Unwritable(_)
            | Self::Unreadable(_)
            | Self::UnreadableElsewhere(_)
            | Self::Unopenable { .. }
            | Self::NodesMissing { .. } => Kind::Unavailable,
            Self::QueryTooSlow(_) => Kind::Deadline,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::QueryInvalid(_) => "QUERY_INVALID",
            Self::PageTokenInvalid(_) => "PAGE_TOKEN_INVALID",
            Self::PageSize(wrong) => wrong.reason(),
            Self::TraceUnknown(_) => "TRACE_UNKNOWN",
            Self::TelemetryMalformed { .. } => "TELEMETRY_MALFORMED",
            Self::TelemetryTooLarge { .. } => "TELEMETRY_TOO_LARGE",
            Self::TelemetryTooSlow(_) => "TELEMETRY_TOO_SLOW",
            Self::TelemetryTypeUnsupported { .. } => "TELEMETRY_TYPE_UNSUPPORTED",
            Self::Overloaded => "MONITOR_OVERLOADED",
            Self::SenderTooLoud { .. } => "SENDER_TOO_LOUD",
            Self::FollowersFull(_) => "FOLLOWERS_FULL",
            Self::Unwritable(_) => "TELEMETRY_UNWRITABLE",
            Self::Unreadable(_) | Self::UnreadableElsewhere(_) => "TELEMETRY_UNREADABLE",
            Self::Unopenable { .. } => "TELEMETRY_UNOPENABLE",
            Self::QueryTooCostly(_) => "QUERY_TOO_COSTLY",
            Self::SqlTooCostly(_) => "SQL_TOO_COSTLY",
            Self::QueryTooSlow(_) => "QUERY_TOO_SLOW",
            Self::NodeUnknown(_) => "NODE_UNKNOWN",
            Self::NodesMissing { .. } => "NODES_MISSING",
            Self::Store(source) => source.reason(),
        }
    }

    fn violations(&self) -> Vec<Violation> {
        match self {
            Self::QueryInvalid(violations) => violations.clone(),
            Self::PageTokenInvalid(_) => {
                vec![Violation::new("page_token", "must come from an earlier answer to the same question")]
            }
            Self::PageSize(wrong) => wrong.violations(),
            Self::TraceUnknown(_)
            | Self::TelemetryMalformed { .. }
            | Self::TelemetryTooLarge { .. }
            | Self::TelemetryTooSlow(_)
            | Self::TelemetryTypeUnsupported { .. }
            | Self::Overloaded
            | Self::SenderTooLoud { .. }
            | Self::Unwritable(_)
            | Self::Unreadable(_)
            | Self::UnreadableElsewhere(_)
            | Self::Unopenable { .. }
            | Self::QueryTooCostly(_)
            | Self::SqlTooCostly(_)
            | Self::QueryTooSlow(_)
            | Self::NodeUnknown(_)
            | Self::NodesMissing { .. }
            | Self::Store(_)
            | Self::FollowersFull(_) => Vec::new(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        if let Self::SenderTooLoud { wait, .. } = self {
            return Some(*wait);
        }
        if let Self::Store(source) = self {
            return source.retry_after();
        }
        let may_pass =
            matches!(self, Self::NodesMissing { .. } | Self::Overloaded | Self::Unwritable(_) | Self::FollowersFull(_));
        may_pass.then_some(RETRY_AFTER)
    }
}
