//! What can go wrong in central configuration.

use ninefold::fault::{Fault, Kind, Violation};
use ninefold::page::SizeInvalid;
use ninefold_store as store;

use crate::model::DocumentId;

/// What can go wrong in central configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A document, a name or an acknowledgement is malformed.
    #[error("the document is not valid: {}", list(.0))]
    Invalid(Vec<Violation>),
    /// No document has this name.
    #[error("no document {0} is known")]
    DocumentUnknown(String),
    /// The document has no such revision, or has it no more.
    #[error("document {id} has no revision {revision}")]
    RevisionUnknown {
        /// The document.
        id: DocumentId,
        /// What was asked for.
        revision: i64,
    },
    /// The newest revision is not the one that the writer knows.
    #[error("document {id} is at revision {found}, not {expected}")]
    RevisionConflict {
        /// The document.
        id: DocumentId,
        /// What the writer expected.
        expected: i64,
        /// What is there; 0 if nothing is.
        found: i64,
    },
    /// Others wrote the document again and again while this write was tried.
    #[error("document {id} was written by others {attempts} times in a row")]
    Contended {
        /// The document.
        id: DocumentId,
        /// How often the write was tried.
        attempts: usize,
    },
    /// A page token was not made by this service.
    #[error("{0:?} is not a page token of this list")]
    PageToken(String),
    /// A page of a negative size is asked for.
    #[error(transparent)]
    PageSize(#[from] SizeInvalid),
    /// Too many are watching.
    #[error("{0} are watching already")]
    WatchersFull(usize),
    /// The store failed.
    #[error("the store could not be used to {what}")]
    Store {
        /// What it was to do.
        what: &'static str,
        /// What it said.
        source: store::Error,
    },
    /// What the store holds cannot be read.
    #[error("what is stored at {key} is damaged: {problem}")]
    Damaged {
        /// Where.
        key: String,
        /// What is wrong.
        problem: String,
    },
}

fn list(violations: &[Violation]) -> String {
    let texts: Vec<_> =
        violations.iter().map(|violation| format!("{} {}", violation.field, violation.description)).collect();
    texts.join("; ")
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Invalid(_) | Self::PageToken(_) => Kind::InvalidInput,
            Self::PageSize(wrong) => wrong.kind(),
            Self::DocumentUnknown(_) | Self::RevisionUnknown { .. } => Kind::NotFound,
            Self::RevisionConflict { .. } | Self::Contended { .. } => Kind::Conflict,
            Self::WatchersFull(_) => Kind::Exhausted,
            Self::Store { source, .. } => source.kind(),
            Self::Damaged { .. } => Kind::DataLoss,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "DOCUMENT_INVALID",
            Self::PageToken(_) => "PAGE_TOKEN_INVALID",
            Self::PageSize(wrong) => wrong.reason(),
            Self::DocumentUnknown(_) => "DOCUMENT_UNKNOWN",
            Self::RevisionUnknown { .. } => "REVISION_UNKNOWN",
            Self::RevisionConflict { .. } | Self::Contended { .. } => "REVISION_CONFLICT",
            Self::WatchersFull(_) => "WATCHERS_FULL",
            Self::Store { source, .. } => source.reason(),
            Self::Damaged { .. } => "DOCUMENT_DAMAGED",
        }
    }

    fn violations(&self) -> Vec<Violation> {
        match self {
            Self::Invalid(violations) => violations.clone(),
            Self::PageToken(_) => vec![Violation::new("page_token", "must come from an earlier answer of this list")],
            Self::PageSize(wrong) => wrong.violations(),
            Self::DocumentUnknown(_)
            | Self::RevisionUnknown { .. }
            | Self::RevisionConflict { .. }
            | Self::Contended { .. }
            | Self::WatchersFull(_)
            | Self::Store { .. }
            | Self::Damaged { .. } => Vec::new(),
        }
    }
}
