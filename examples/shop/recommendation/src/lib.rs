//! The recommendation service: keeps the recommendations of products.

mod error;
mod service;
mod table;
#[cfg(test)]
mod tests;

/// The contract, generated.
pub mod pb {
    tonic::include_proto!("shop.recommendation.v1");
}

pub use error::Error;
pub use service::Service;

/// The schema of the database, and what the shop's first day brought.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();
