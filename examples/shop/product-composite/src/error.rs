//! What can go wrong with a product as a whole.

use ninefold::fault::{self, Fault, Kind, Violation};
use ninefold::tonic::{Code, Status};

/// What can go wrong with a product as a whole.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No product can have this number.
    #[error("{0} is not the number of a product")]
    ProductIdInvalid(i32),
    /// No product has this number.
    #[error("there is no product {0}")]
    ProductUnknown(i32),
    /// A product has this number already.
    #[error("product {0} exists already")]
    ProductExists(i32),
    /// The product to add is malformed.
    #[error("the product is malformed")]
    ProductInvalid(Vec<Violation>),
    /// The page that was asked for is malformed.
    #[error("the page is malformed")]
    PageInvalid(Vec<Violation>),
    /// A part without which there is no answer cannot be had.
    #[error("{part} cannot be had: {}", reason(status))]
    PartUnavailable {
        /// Which part.
        part: &'static str,
        /// What was said about it.
        status: Box<Status>,
    },
}

impl Error {
    /// Says that a part could not be had, for `map_err`.
    pub(crate) fn part(part: &'static str) -> impl Fn(Status) -> Self {
        move |status| Self::PartUnavailable { part, status: Box::new(status) }
    }
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::ProductIdInvalid(_) | Self::ProductInvalid(_) | Self::PageInvalid(_) => Kind::InvalidInput,
            Self::ProductUnknown(_) => Kind::NotFound,
            Self::ProductExists(_) => Kind::AlreadyExists,
            Self::PartUnavailable { status, .. } if status.code() == Code::DeadlineExceeded => Kind::Deadline,
            Self::PartUnavailable { .. } => Kind::Unavailable,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::ProductIdInvalid(_) => "PRODUCT_ID_INVALID",
            Self::ProductUnknown(_) => "PRODUCT_UNKNOWN",
            Self::ProductExists(_) => "PRODUCT_EXISTS",
            Self::ProductInvalid(_) => "PRODUCT_INVALID",
            Self::PageInvalid(_) => "PAGE_INVALID",
            Self::PartUnavailable { .. } => "PART_UNAVAILABLE",
        }
    }

    fn violations(&self) -> Vec<Violation> {
        match self {
            Self::ProductIdInvalid(id) => vec![Violation::new("product_id", format!("is {id}, must be at least 1"))],
            Self::ProductInvalid(violations) | Self::PageInvalid(violations) => violations.clone(),
            Self::ProductUnknown(_) | Self::ProductExists(_) | Self::PartUnavailable { .. } => Vec::new(),
        }
    }
}

/// Why a part could not be had, in a few words.
pub(crate) fn reason(status: &Status) -> String {
    match status.message() {
        "" => status.code().description().to_lowercase(),
        message => message.to_owned(),
    }
}

/// Turns an error into the status that the caller gets; what is not the caller's mistake is logged.
#[expect(clippy::needless_pass_by_value, reason = "map_err hands the error over")]
pub(crate) fn refuse(error: Error) -> Status {
    match &error {
        Error::PartUnavailable { .. } => tracing::warn!(%error, "call failed"),
        Error::ProductIdInvalid(_)
        | Error::ProductUnknown(_)
        | Error::ProductExists(_)
        | Error::ProductInvalid(_)
        | Error::PageInvalid(_) => tracing::debug!(error = %fault::chain(&error), "call refused"),
    }
    fault::status(&error)
}
