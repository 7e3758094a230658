//! What can go wrong in the review service.

use ninefold::fault::{Fault, Kind, Violation};

/// What can go wrong in the review service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The reviews to add are malformed.
    #[error("the reviews are malformed")]
    Invalid(Vec<Violation>),
    /// One of the numbers is taken.
    #[error("product {product_id} has one of these reviews already")]
    Exists {
        /// Which product.
        product_id: i32,
    },
    /// What every backend can suffer.
    #[error(transparent)]
    Backend(#[from] shop_backend::Error),
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Invalid(_) => Kind::InvalidInput,
            Self::Exists { .. } => Kind::AlreadyExists,
            Self::Backend(error) => error.kind(),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "REVIEW_INVALID",
            Self::Exists { .. } => "REVIEW_EXISTS",
            Self::Backend(error) => error.reason(),
        }
    }

    fn violations(&self) -> Vec<Violation> {
        match self {
            Self::Invalid(violations) => violations.clone(),
            Self::Backend(error) => error.violations(),
            Self::Exists { .. } => Vec::new(),
        }
    }
}
