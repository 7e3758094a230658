//! The product-composite service: puts products, recommendations and reviews together. The shop's only public service.
//!
//! It keeps nothing: what it knows, it asks the other services, all at once, and does without what is not needed.

mod error;
mod parts;
pub mod pb;
mod service;
#[cfg(test)]
mod tests;
mod watch;
mod wire;

use ninefold::Link;
use parts::Parts;
use pb::composite::composite_service_server::CompositeServiceServer;
use service::Composite;

pub use error::Error;

/// Runs an instance until it is asked to stop.
///
/// # Errors
/// Those of [`ninefold::App::run`].
pub async fn run() -> ninefold::Result {
    let app =
        ninefold::app("product-composite").version(env!("CARGO_PKG_VERSION")).contract(pb::composite::DESCRIPTOR_SET);
    let link = |service| Link::new(app.channel(service));
    let parts = Parts::new(link("product"), link("recommendation"), link("review"));
    let composite = Composite::new(parts, app.instance_id(), app.draining());
    app.service(CompositeServiceServer::new(composite)).run().await
}
