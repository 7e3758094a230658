//! What can go wrong behind the composite, whichever the service.

use ninefold::fault::{Fault, Kind, Violation};

/// What can go wrong behind the composite, whichever the service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database cannot be opened, or its schema not brought up to date.
    #[error("cannot open the database of {service}")]
    Unopenable {
        /// Whose database.
        service: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database refused a statement.
    #[error("cannot {doing}")]
    Database {
        /// What was tried.
        doing: &'static str,
        /// What the database said.
        source: sqlx::Error,
    },
    /// No product can have this number.
    #[error("{0} is not the number of a product")]
    ProductIdInvalid(i32),
    /// The page that was asked for is malformed.
    #[error("the page is malformed")]
    PageInvalid(Violation),
    /// The service was told to fail.
    #[error("{service} was told to fail this call")]
    Mishap {
        /// Which service.
        service: String,
    },
}

impl Error {
    /// Says what was tried when the database refused, for `map_err`.
    pub fn doing(doing: &'static str) -> impl Fn(sqlx::Error) -> Self {
        move |source| Self::Database { doing, source }
    }
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::ProductIdInvalid(_) | Self::PageInvalid(_) => Kind::InvalidInput,
            Self::Unopenable { .. } | Self::Mishap { .. } => Kind::Unavailable,
            Self::Database { source, .. } => match source {
                sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Io(_) => Kind::Unavailable,
                // The type is open to growth, so the rest cannot be spelled out; it is a bug in a statement.
                _ => Kind::Internal,
            },
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Unopenable { .. } => "SHOP_DATABASE_UNOPENABLE",
            Self::Database { .. } => "SHOP_DATABASE_FAILED",
            Self::ProductIdInvalid(_) => "PRODUCT_ID_INVALID",
            Self::PageInvalid(_) => "PAGE_INVALID",
            Self::Mishap { .. } => "SHOP_MISHAP",
        }
    }

    fn violations(&self) -> Vec<Violation> {
        match self {
            Self::ProductIdInvalid(id) => vec![Violation::new("product_id", format!("is {id}, must be at least 1"))],
            Self::PageInvalid(violation) => vec![violation.clone()],
            Self::Unopenable { .. } | Self::Database { .. } | Self::Mishap { .. } => Vec::new(),
        }
    }
}
