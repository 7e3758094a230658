//! What can go wrong in alerting.

use ninefold::fault::{Fault, Kind, Violation};

/// What can go wrong in alerting.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A document has mistakes.
    #[error("the document is not valid: {}", .0.join("; "))]
    Invalid(Vec<String>),
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Invalid(_) => Kind::InvalidInput,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "ALERTS_INVALID",
        }
    }

    fn violations(&self) -> Vec<Violation> {
        match self {
            Self::Invalid(wrong) => wrong.iter().map(|why| Violation::new("document", why.as_str())).collect(),
        }
    }
}
