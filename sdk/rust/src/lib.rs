//! What a service says to join a Ninefold landscape.

pub mod fault;
pub mod lifecycle;
pub mod link;
pub mod settings;

pub use link::Link;
/// The platform's own contracts.
pub use ninefold_proto as proto;
pub use tonic;
