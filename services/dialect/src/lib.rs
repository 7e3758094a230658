//! Tells the landscape in the dialects of others: xDS for gRPC libraries and Envoy, DNS, and Prometheus' `http_sd`.
//!
//! All of them are projections of what the registry's watch says, which this role follows like any other watcher. It keeps
//! nothing of its own, and never changes the landscape.

mod catalogue;
mod config;
mod dns;
mod error;
mod follow;
mod model;
mod prometheus;
mod words;
mod xds;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use ninefold::Link;
use ninefold::lifecycle::Scope;
use ninefold_proto::ninefold::dialect::v1::dialect_service_server::DialectServiceServer;
use tokio::sync::watch;
use tonic::service::RoutesBuilder;

pub use config::Config;
pub use error::Error;

use catalogue::Catalogue;
use model::World;
use words::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use xds::ledger::Ledger;
use xds::service::Service;
use xds::stream::Shared;

/// Largest message of an xDS client that is read: ten thousand names.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// What is to be remembered among the events of the landscape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whether a client refused something; else it was withheld before any client saw it.
    pub is_refused: bool,
    /// The resource that it concerns, which is a service's name as a rule. Empty where it is not known.
    pub service: String,
    /// Why.
    pub reason: String,
    /// Who refused it.
    pub observer: String,
}

/// Remembers notices. Must not block.
pub trait Witness: Send + Sync {
    /// Takes a notice.
    fn note(&self, notice: Notice);
}

/// What the role needs of its node.
#[derive(Clone)]
pub struct Deps {
    /// Where instances are known.
    pub registry: Link,
    /// Name of this node.
    pub node: String,
    /// Where notices go.
    pub witness: Arc<dyn Witness>,
}

impl fmt::Debug for Deps {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Deps").field("node", &self.node).finish_non_exhaustive()
    }
}

/// The role, at work until its scope closes.
#[derive(Debug)]
pub struct Dialect {
    service: Service,
    world: watch::Receiver<Arc<World>>,
    dns: Option<SocketAddr>,
}

impl Dialect {
    /// Begins to follow the registry, in tasks of `scope`, and to answer DNS where the settings say so. Does not wait for
    /// the registry: until the landscape is known, nobody is told anything.
    ///
    /// # Errors
    /// [`Error::Misconfigured`]; [`Error::DnsUnbindable`].
    pub async fn start(config: Config, deps: Deps, scope: &Scope) -> Result<Self, Error> {
        let mistakes = config.mistakes();
        if !mistakes.is_empty() {
            return Err(Error::Misconfigured(mistakes));
        }
        let (told, world) = watch::channel(Arc::<World>::default());
        let scope = scope.child("dialect");
        let dns = dns::server::start(&config, world.clone(), &scope).await?;
        let follower = follow::Follower::new(told, config.linger, config.settle);
        scope.run("dialect.follow", |stop| follower.run(deps.registry, stop));
        let ledger = Arc::new(Ledger::new(config.xds_streams_max, deps.witness));
        let shared = Shared {
            world: world.clone(),
            catalogue: Arc::new(Catalogue::new(ledger.clone())),
            ledger,
            node: deps.node.into(),
            stop: scope.stop(),
        };
        Ok(Self { service: Service { shared }, world, dns })
    }

    /// Adds `DialectService`, and the aggregated discovery service of xDS v3.
    pub fn add_to(&self, routes: &mut RoutesBuilder) {
        routes.add_service(DialectServiceServer::new(self.service.clone()));
        let discovery = AggregatedDiscoveryServiceServer::new(self.service.clone());
        routes.add_service(discovery.max_decoding_message_size(MESSAGE_BYTES_MAX));
    }

    /// What is asked by plain HTTP: `GET /sd/prometheus`.
    pub fn http_router(&self) -> axum::Router {
        prometheus::router(self.world.clone())
    }

    /// Where DNS is answered, if it is.
    pub fn dns(&self) -> Option<SocketAddr> {
        self.dns
    }
}
