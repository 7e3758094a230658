//! What can go wrong in the product service.

use ninefold::fault::{Fault, Kind, Violation};

/// What can go wrong in the product service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The product to add is malformed.
    #[error("the product is malformed")]
    Invalid(Vec<Violation>),
    /// No product has this number.
    #[error("there is no product {0}")]
    Unknown(i32),
    /// A product has this number already.
    #[error("product {0} exists already")]
    Exists(i32),
    /// What every backend can suffer.
    #[error(transparent)]
    Backend(#[from] shop_backend::Error),
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Invalid(_) => Kind::InvalidInput,
            Self::Unknown(_) => Kind::NotFound,
            Self::Exists(_) => Kind::AlreadyExists,
            Self::Backend(error) => error.kind(),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "PRODUCT_INVALID",
            Self::Unknown(_) => "PRODUCT_UNKNOWN",
            Self::Exists(_) => "PRODUCT_EXISTS",
            Self::Backend(error) => error.reason(),
        }
    }

    fn violations(&self) -> Vec<Violation> {
        match self {
            Self::Invalid(violations) => violations.clone(),
            Self::Backend(error) => error.violations(),
            Self::Unknown(_) | Self::Exists(_) => Vec::new(),
        }
    }
}
