//! What can go wrong in control.

use ninefold::fault::{Fault, Kind, Violation};
use ninefold::page::SizeInvalid;
use ninefold_store as store;

/// What can go wrong in control.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Settings of the role cannot work.
    #[error("the settings of control cannot work: {}", list(.0))]
    Misconfigured(Vec<Violation>),
    /// A workload is malformed or over a limit.
    #[error("the workload {service:?} is not valid: {}", list(violations))]
    Invalid {
        /// Name of the service, as it was sent.
        service: String,
        /// All that is wrong.
        violations: Vec<Violation>,
    },
    /// No workload has this name.
    #[error("no workload {0:?} is known")]
    Unknown(String),
    /// The workload has changed since the writer read it.
    #[error("workload {service:?} is at revision {found}, not {expected}")]
    RevisionConflict {
        /// Name of the service.
        service: String,
        /// What the writer expected.
        expected: i64,
        /// What is there; 0 if nothing is.
        found: i64,
    },
    /// Others wrote the workload again and again while this write was tried.
    #[error("workload {service:?} was written by others {attempts} times in a row")]
    Contended {
        /// Name of the service.
        service: String,
        /// How often the write was tried.
        attempts: usize,
    },
    /// A page token was not made by this service.
    #[error("{0:?} is not a page token of this list")]
    PageToken(String),
    /// A page of a negative size is asked for.
    #[error(transparent)]
    PageSize(#[from] SizeInvalid),
    /// The store failed.
    #[error("the store could not be used for {what}")]
    Store {
        /// What it was to do.
        what: String,
        /// What it said.
        source: store::Error,
    },
    /// What the store holds cannot be read.
    #[error("the stored value at {key} cannot be read")]
    Damaged {
        /// Where.
        key: String,
        /// Why.
        source: prost::DecodeError,
    },
    /// A program cannot be started.
    #[error("{program:?} cannot be started")]
    Program {
        /// The program.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The thread that starts processes cannot be made, or has ended.
    #[error("processes cannot be started here")]
    Unstartable(#[source] std::io::Error),
}

fn list(violations: &[Violation]) -> String {
    let texts: Vec<_> =
        violations.iter().map(|violation| format!("{} {}", violation.field, violation.description)).collect();
    texts.join("; ")
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Misconfigured(_) | Self::Invalid { .. } | Self::PageToken(_) => Kind::InvalidInput,
            Self::PageSize(wrong) => wrong.kind(),
            Self::Unknown(_) => Kind::NotFound,
            Self::RevisionConflict { .. } | Self::Contended { .. } => Kind::Conflict,
            Self::Store { source, .. } => source.kind(),
            Self::Damaged { .. } => Kind::DataLoss,
            Self::Program { .. } => Kind::Precondition,
            Self::Unstartable(_) => Kind::Internal,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Misconfigured(_) => "CONTROL_MISCONFIGURED",
            Self::Invalid { .. } => "WORKLOAD_INVALID",
            Self::Unknown(_) => "WORKLOAD_UNKNOWN",
            Self::RevisionConflict { .. } | Self::Contended { .. } => "REVISION_CONFLICT",
            Self::PageToken(_) => "PAGE_TOKEN_INVALID",
            Self::PageSize(wrong) => wrong.reason(),
            Self::Store { source, .. } => source.reason(),
            Self::Damaged { .. } => "WORKLOAD_DAMAGED",
            Self::Program { .. } => "PROGRAM_UNSTARTABLE",
            Self::Unstartable(_) => "CONTROL_UNSTARTABLE",
        }
    }

    fn violations(&self) -> Vec<Violation> {
        match self {
            Self::Misconfigured(violations) | Self::Invalid { violations, .. } => violations.clone(),
            Self::PageSize(wrong) => wrong.violations(),
            Self::Unknown(_)
            | Self::RevisionConflict { .. }
            | Self::Contended { .. }
            | Self::PageToken(_)
            | Self::Store { .. }
            | Self::Damaged { .. }
            | Self::Program { .. }
            | Self::Unstartable(_) => Vec::new(),
        }
    }
}
