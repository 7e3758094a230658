//! The review service: keeps the reviews of products.

mod error;
mod service;
mod table;
#[cfg(test)]
mod tests;
mod watch;

/// The contract, generated.
pub mod pb {
    ninefold::include_proto!("shop.review.v1");
}

use pb::review_service_server::ReviewServiceServer;
use shop_backend::Backend;

pub use error::Error;
pub use service::Service;

/// The schema of the database, and what the shop's first day brought.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();

/// Runs an instance until it is asked to stop.
///
/// # Errors
/// Those of [`Backend::join`] and [`ninefold::App::run`].
pub async fn run() -> ninefold::Result {
    let app = ninefold::app("review").version(env!("CARGO_PKG_VERSION")).contract(pb::DESCRIPTOR_SET);
    let backend = Backend::join(&app, "review", &MIGRATIONS).await?;
    let service = Service::new(backend, app.draining());
    app.service(ReviewServiceServer::new(service)).run().await
}
