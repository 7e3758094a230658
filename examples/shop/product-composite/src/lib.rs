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

pub use error::Error;
