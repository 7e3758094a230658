//! What a service says to join a Ninefold landscape.

pub mod connect;
mod error;
pub mod fault;
pub mod lifecycle;
pub mod link;
pub mod serve;
pub mod settings;
pub mod telemetry;

pub use connect::{Channel, is_unavailable};
pub use error::{Error, Mistake, Result};
pub use link::Link;
/// The platform's own contracts.
pub use ninefold_proto as proto;
pub use tonic;
