//! What can go wrong in the store.

use ninefold::fault::{Fault, Kind, Violation};

use crate::model::{Key, LeaseId, Revision};

/// What can go wrong in the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The backend cannot be reached, or did not answer in time.
    #[error("the store cannot be reached ({what})")]
    Unavailable {
        /// What was tried.
        what: String,
        /// What the backend said.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The history before a revision is gone.
    #[error("the history after revision {} is compacted", after.0)]
    Compacted {
        /// Where the watch was to begin.
        after: Revision,
    },
    /// A watcher was too slow.
    #[error("the watcher fell behind at revision {}", at.0)]
    Lagged {
        /// The last revision it was given.
        at: Revision,
    },
    /// The lease has run out or was revoked.
    #[error("lease {} is gone", .0.0)]
    LeaseUnknown(LeaseId),
    /// A key, a value or a transaction is over its limit.
    #[error("{what} of {key} is too large: {size}, at most {max}")]
    TooLarge {
        /// Which limit.
        what: &'static str,
        /// Where.
        key: Key,
        /// How much.
        size: usize,
        /// How much is allowed.
        max: usize,
    },
    /// A transaction that no backend accepts.
    #[error("the transaction on {key:?} is malformed: {why}", key = .key.as_str())]
    Malformed {
        /// Where.
        key: Key,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// The settings cannot be used.
    #[error("the settings of the store are wrong: {}", told(.0))]
    Misconfigured(Vec<Violation>),
    /// Stored data cannot be read.
    #[error("the store's data is damaged: {0}")]
    Damaged(String),
    /// The store cannot be opened.
    #[error("cannot open the store in {path}")]
    Open {
        /// Where.
        path: std::path::PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

/// All mistakes in one line.
fn told(mistakes: &[Violation]) -> String {
    let each: Vec<_> = mistakes.iter().map(|mistake| format!("{} {}", mistake.field, mistake.description)).collect();
    each.join("; ")
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Unavailable { .. } | Self::Closed | Self::Lagged { .. } => Kind::Unavailable,
            Self::Compacted { .. } | Self::LeaseUnknown(_) | Self::Open { .. } => Kind::Precondition,
            Self::TooLarge { .. } | Self::Malformed { .. } | Self::Misconfigured(_) => Kind::InvalidInput,
            Self::Damaged(_) => Kind::DataLoss,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "STORE_UNAVAILABLE",
            Self::Compacted { .. } => "STORE_COMPACTED",
            Self::Lagged { .. } => "STORE_WATCHER_LAGGED",
            Self::LeaseUnknown(_) => "STORE_LEASE_UNKNOWN",
            Self::TooLarge { .. } => "STORE_VALUE_TOO_LARGE",
            Self::Malformed { .. } => "STORE_TXN_MALFORMED",
            Self::Misconfigured(_) => "STORE_MISCONFIGURED",
            Self::Damaged(_) => "STORE_DAMAGED",
            Self::Open { .. } => "STORE_UNOPENABLE",
            Self::Closed => "STORE_CLOSED",
        }
    }

    fn violations(&self) -> Vec<Violation> {
        match self {
            Self::Misconfigured(mistakes) => mistakes.clone(),
            Self::Unavailable { .. }
            | Self::Compacted { .. }
            | Self::Lagged { .. }
            | Self::LeaseUnknown(_)
            | Self::TooLarge { .. }
            | Self::Malformed { .. }
            | Self::Damaged(_)
            | Self::Open { .. }
            | Self::Closed => Vec::new(),
        }
    }
}
