//! Keeps what services are to run with.
//!
//! A document is a JSON object by service and environment. Every write is a new revision that never changes; a rollback
//! is a write too. Whoever watches a document is given its newest revision, and says what became of it. It knows nothing
//! of what the content means.

pub mod config;
pub mod error;

mod acknowledgements;
mod diff;
mod follow;
mod history;
mod model;
mod service;
mod wire;

use std::sync::Arc;

use ninefold::lifecycle::Scope;
use ninefold::tonic::service::RoutesBuilder;
use ninefold_proto::ninefold::config::v1::config_service_server::ConfigServiceServer;
use ninefold_store::Store;

pub use config::Config;
pub use error::Error;
pub use model::DocumentId;

use acknowledgements::Acknowledgements;
use follow::Board;
use history::History;
use service::Service;

/// The role.
#[derive(Clone, Debug)]
pub struct Documents(Arc<Service>);

impl Documents {
    /// Starts on a store, which need not be reachable yet.
    pub fn start(config: Config, store: Arc<dyn Store>, scope: &Scope) -> Self {
        let history = Arc::new(History::new(store.clone(), config.revisions_max));
        let board = Board::start(store.clone(), history.clone(), config.watchers_max, scope);
        let acknowledgements = Acknowledgements::new(store);
        Self(Arc::new(Service { history, acknowledgements, board }))
    }

    /// Adds the contract.
    pub fn add_to(&self, routes: &mut RoutesBuilder) {
        routes.add_service(ConfigServiceServer::from_arc(self.0.clone()));
    }
}
