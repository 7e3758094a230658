//! The recommendation service: keeps the recommendations of products.

mod error;
mod service;
mod table;
#[cfg(test)]
mod tests;

/// The contract, generated.
pub mod pb {
    ninefold::include_proto!("shop.recommendation.v1");
}

use pb::recommendation_service_server::RecommendationServiceServer;
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
    let app = ninefold::app("recommendation").version(env!("CARGO_PKG_VERSION")).contract(pb::DESCRIPTOR_SET);
    let backend = Backend::join(&app, "recommendation", &MIGRATIONS).await?;
    let service = Service::new(backend);
    app.service(RecommendationServiceServer::new(service)).run().await
}
