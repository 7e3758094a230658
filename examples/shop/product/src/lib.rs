//! The product service: keeps what the shop sells.

mod error;
mod service;
mod table;

/// The contract, generated.
pub mod pb {
    tonic::include_proto!("shop.product.v1");
}

#[cfg(test)]
mod tests;

pub use error::Error;
pub use service::Service;

/// The schema of the database, and what the shop sells on its first day.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();
