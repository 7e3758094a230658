//! The product service: keeps what the shop sells.

mod error;
mod service;
mod table;

/// The contract, generated.
pub mod pb {
    ninefold::include_proto!("shop.product.v1");
}

#[cfg(test)]
mod tests;

use pb::product_service_server::ProductServiceServer;
use shop_backend::Backend;

pub use error::Error;
pub use service::Service;

/// The schema of the database, and what the shop sells on its first day.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();

/// Runs an instance until it is asked to stop.
///
/// # Errors
/// Those of [`Backend::join`] and [`ninefold::App::run`].
pub async fn run() -> ninefold::Result {
    let app = ninefold::app("product").version(env!("CARGO_PKG_VERSION")).contract(pb::DESCRIPTOR_SET);
    let backend = Backend::join(&app, "product", &MIGRATIONS).await?;
    let service = Service::new(backend);
    app.service(ProductServiceServer::new(service)).run().await
}
