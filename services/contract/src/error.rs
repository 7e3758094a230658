//! What can go wrong in the contract store.

use ninefold::fault::{Fault, Kind, Violation};
use ninefold::page::SizeInvalid;
use ninefold_store as store;

use crate::intake::Flaw;
use crate::model::Digest;

/// What can go wrong in the contract store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A descriptor set is over the limit.
    #[error("the descriptor set has {size} bytes, at most {max}")]
    TooLarge {
        /// How much it is.
        size: usize,
        /// How much it may be.
        max: usize,
    },
    /// Bytes are not a well-formed, fully resolved descriptor set.
    #[error("the descriptor set is malformed: {0}")]
    Malformed(Flaw),
    /// A text is no digest.
    #[error("{0:?} is not a digest: it is sha256: and 64 lowercase hex digits")]
    DigestInvalid(String),
    /// A text is no name of a service.
    #[error("{0:?} is not the name of a service: it is 1 to 63 lowercase letters, digits and hyphens")]
    ServiceNameInvalid(String),
    /// No such contract is kept.
    #[error("no contract {0} is kept")]
    Unknown(Digest),
    /// As many contracts are kept as may be.
    #[error("{max} contracts are kept, as many as may be")]
    Full {
        /// The limit.
        max: usize,
    },
    /// What is kept of a contract is not what was handed in.
    #[error("the contract {0} is damaged in the store")]
    Damaged(Digest),
    /// A page token was not made by this list.
    #[error("the page token is not one of this list")]
    PageTokenInvalid,
    /// A page of a negative size is asked for.
    #[error(transparent)]
    PageSize(#[from] SizeInvalid),
    /// A setting has a value that cannot work.
    #[error("the settings of contracts cannot work: {}", list(.0))]
    Misconfigured(Vec<Violation>),
    /// The store failed.
    #[error("could not {doing}")]
    Store {
        /// What was being done.
        doing: &'static str,
        /// What the store said.
        source: store::Error,
    },
}

fn list(violations: &[Violation]) -> String {
    violations.iter().map(|one| format!("{} {}", one.field, one.description)).collect::<Vec<_>>().join("; ")
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::PageSize(wrong) => wrong.kind(),
            Self::TooLarge { .. }
            | Self::Malformed(_)
            | Self::DigestInvalid(_)
            | Self::ServiceNameInvalid(_)
            | Self::PageTokenInvalid
            | Self::Misconfigured(_) => Kind::InvalidInput,
            Self::Unknown(_) => Kind::NotFound,
            Self::Full { .. } => Kind::Precondition,
            Self::Damaged(_) => Kind::DataLoss,
            Self::Store { source, .. } => source.kind(),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "CONTRACT_TOO_LARGE",
            Self::Malformed(_) => "CONTRACT_MALFORMED",
            Self::DigestInvalid(_) => "DIGEST_INVALID",
            Self::ServiceNameInvalid(_) => "SERVICE_NAME_INVALID",
            Self::Unknown(_) => "CONTRACT_UNKNOWN",
            Self::Full { .. } => "CONTRACTS_FULL",
            Self::Damaged(_) => "CONTRACT_DAMAGED",
            Self::PageTokenInvalid => "PAGE_TOKEN_INVALID",
            Self::PageSize(wrong) => wrong.reason(),
            Self::Misconfigured(_) => "CONTRACT_MISCONFIGURED",
            Self::Store { source, .. } => source.reason(),
        }
    }

    fn violations(&self) -> Vec<Violation> {
        match self {
            Self::TooLarge { max, .. } => {
                vec![Violation::new("descriptor_set", format!("must have at most {max} bytes"))]
            }
            Self::Malformed(flaw) => vec![Violation::new("descriptor_set", flaw.to_string())],
            Self::DigestInvalid(_) => {
                vec![Violation::new("digest", "must be sha256: and 64 lowercase hex digits")]
            }
            Self::ServiceNameInvalid(_) => {
                vec![Violation::new("service", "must be 1 to 63 lowercase letters, digits and hyphens")]
            }
            Self::PageTokenInvalid => vec![Violation::new("page_token", "must come from the answer before, unchanged")],
            Self::PageSize(wrong) => wrong.violations(),
            Self::Misconfigured(found) => found.clone(),
            Self::Unknown(_) | Self::Full { .. } | Self::Damaged(_) | Self::Store { .. } => Vec::new(),
        }
    }
}
