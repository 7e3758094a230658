//! What a service says to join a Ninefold landscape: listen, call, configure, trace.
//!
//! ```no_run
//! # async fn example() -> ninefold::Result {
//! let app = ninefold::app("product-composite");
//! let product = app.channel("product"); // ProductServiceClient::new(product)
//! app.run().await // .contract(pb::DESCRIPTOR_SET).service(CompositeServiceServer::new(..))
//! # }
//! ```
//!
//! That is a process that listens on a free port, is found by its name and version, follows central configuration, is
//! traced, logged and measured, answers health and reflection, and drains when it is asked to stop. It starts when the
//! platform is down, and joins later.
//!
//! What only the platform needs is not here.

mod app;
pub mod caller;
pub mod config;
pub mod connect;
pub mod credentials;
pub mod edge;
mod error;
pub mod fault;
pub mod fetch;
mod gate;
pub mod lifecycle;
pub mod link;
pub mod page;
pub mod serve;
pub mod session;
pub mod settings;
pub mod telemetry;
pub mod tls;

pub use app::App;
pub use caller::Caller;
pub use config::Live;
pub use connect::{Channel, Policy, is_unavailable};
pub use credentials::Credentials;
pub use error::{Error, Mistake, Result};
pub use link::Link;
/// The platform's own contracts.
pub use ninefold_proto as proto;
pub use settings::{SdkSettings, TlsFiles};
pub use tonic;

/// Begins a service. Call it within a tokio runtime, first thing in `main`: it starts logs and traces.
///
/// `name` is what others call it by: lowercase letters, digits and hyphens, 1 to 63 characters.
pub fn app(name: &str) -> App {
    App::new(name)
}

/// Includes what the build script made of a Protobuf package: its messages, clients and servers, and `DESCRIPTOR_SET`, the
/// raw descriptors of all contracts of the crate, for [`App::contract`].
///
/// `mod pb { ninefold::include_proto!("shop.product.v1"); }`
#[macro_export]
macro_rules! include_proto {
    ($package:tt) => {
        $crate::tonic::include_proto!($package);
        /// The serialized `google.protobuf.FileDescriptorSet` of the crate's contracts.
        pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor_set.binpb"));
    };
}
