//! Keeps what services promise, and holds them to it: raw descriptor sets by digest, packages with their revisions, and a
//! gate that lets no contract in that breaks what others rely on.
//!
//! What is handed in comes from strangers. It is looked at byte by byte before it is kept, and kept as it came; nothing
//! here builds a reflection pool from it. [`Schema`] reads it, [`rules`] hold a new one against an old one, [`mod@lint`] looks
//! at its style: all three are pure, and work without a platform.

mod beside;
mod cache;
mod config;
mod document;
mod error;
mod export;
mod gate;
mod intake;
mod ledger;
pub mod lint;
mod live;
mod model;
mod names;
mod page;
mod print;
mod read;
pub mod rules;
pub mod schema;
mod service;
mod sets;
mod shelf;
mod steward;
mod usage;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;

use ninefold::Link;
use ninefold::lifecycle::Scope;
use ninefold::telemetry::Count;
use ninefold_proto::ninefold::contract::v1::contract_service_server::ContractServiceServer;
use ninefold_proto::ninefold::contract::v1::package_service_server::PackageServiceServer;
use ninefold_store::Store;
use tonic::service::RoutesBuilder;

pub use config::{Config, Strictness};
pub use error::Error;
pub use gate::compare::{style, verdict};
pub use intake::{Flaw, Limits};
pub use model::Digest;
pub use rules::{Category, Finding, Level, Rule, RuleSet};
pub use schema::Schema;

/// What a request may have beyond the contract itself, so that one slightly too large is refused by name; beyond that the
/// transport refuses.
const REQUEST_BYTES_MORE: usize = 64 * 1024;

/// What the contract store needs of its node.
#[derive(Clone, Debug)]
pub struct Deps {
    /// Where contracts and packages lie.
    pub store: Arc<dyn Store>,
    /// Where instances are known: a change must not break what runs. `None` to judge by what was accepted alone.
    pub registry: Option<Link>,
    /// The folder where this node remembers the contracts that it read, for a time when the store is away; `None` for a
    /// store of its own.
    pub remembered: Option<PathBuf>,
}

/// The contract store of one node.
#[derive(Clone, Debug)]
pub struct Contract {
    service: service::Service,
    request_bytes_max: usize,
}

impl Contract {
    /// Makes the contract store on a store that is open.
    ///
    /// # Errors
    /// [`Error::Misconfigured`].
    pub async fn start(config: Config, deps: Deps, scope: &Scope) -> Result<Self, Error> {
        let mistakes = config.mistakes();
        if !mistakes.is_empty() {
            return Err(Error::Misconfigured(mistakes));
        }
        let request_bytes_max = config.contract_bytes_max + REQUEST_BYTES_MORE;
        let Deps { store, registry, remembered } = deps;
        let ledger = ledger::Ledger { store: store.clone(), changes_max: config.changes_max };
        let usage = Arc::new(usage::Usage::new(ledger.clone()));
        let kept = usage.clone();
        scope.run("contract.keep_usage", |stop| kept.keep(stop));
        let shelf = Arc::new(shelf::Shelf::new(config.clone(), store, remembered.map(beside::Beside::at)));
        let judged = Count::new("ninefold_contract_judged_total", "Contracts handed in, by what became of them");
        let gate = Arc::new(gate::Gate { config, ledger, shelf, usage, registry, judged });
        Ok(Self { service: service::Service::new(gate), request_bytes_max })
    }

    /// Adds the services of contracts and of packages to a server.
    pub fn add_to(&self, routes: &mut RoutesBuilder) {
        let server = ContractServiceServer::new(self.service.clone());
        routes.add_service(server.max_decoding_message_size(self.request_bytes_max));
        let packages = PackageServiceServer::new(self.service.clone());
        routes.add_service(packages.max_decoding_message_size(self.request_bytes_max));
    }
}
