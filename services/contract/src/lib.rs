//! Keeps what services promise: raw descriptor sets by digest.
//!
//! What is handed in comes from strangers. It is looked at byte by byte before it is kept, and kept as it came; nothing
//! here builds a reflection pool from it. [`Schema`] reads it, [`rules`] hold a new one against an old one, [`mod@lint`] looks
//! at its style: all three are pure, and work without a platform.

mod cache;
mod config;
mod error;
mod intake;
pub mod lint;
mod model;
mod page;
mod read;
pub mod rules;
pub mod schema;
mod service;
mod shelf;
mod wire;

use std::sync::Arc;

use ninefold::lifecycle::Scope;
use ninefold_proto::ninefold::contract::v1::contract_service_server::ContractServiceServer;
use ninefold_store::Store;
use tonic::service::RoutesBuilder;

pub use config::Config;
pub use error::Error;
pub use intake::{Flaw, Limits};
pub use model::Digest;
pub use rules::{Category, Finding, Level, Rule, RuleSet};
pub use schema::Schema;

/// What a request may have beyond the contract itself, so that one slightly too large is refused by name; beyond that the
/// transport refuses.
const REQUEST_BYTES_MORE: usize = 64 * 1024;

/// The contract store of one node.
#[derive(Clone, Debug)]
pub struct Contract {
    service: service::Service,
    request_bytes_max: usize,
}

impl Contract {
    /// Makes the contract store on a store that is open. It has no tasks of its own, so `scope` stays as it is.
    ///
    /// # Errors
    /// [`Error::Misconfigured`].
    pub async fn start(config: Config, store: Arc<dyn Store>, _scope: &Scope) -> Result<Self, Error> {
        let mistakes = config.mistakes();
        if !mistakes.is_empty() {
            return Err(Error::Misconfigured(mistakes));
        }
        let request_bytes_max = config.contract_bytes_max + REQUEST_BYTES_MORE;
        let shelf = Arc::new(shelf::Shelf::new(config, store));
        Ok(Self { service: service::Service::new(shelf), request_bytes_max })
    }

    /// Adds the contract service to a server.
    pub fn add_to(&self, routes: &mut RoutesBuilder) {
        let server = ContractServiceServer::new(self.service.clone());
        routes.add_service(server.max_decoding_message_size(self.request_bytes_max));
    }
}
