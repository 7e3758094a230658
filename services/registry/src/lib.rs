//! Keeps who is alive, and where.
//!
//! An instance holds a session with one node; its record lies in the store, under a lease of that node; every node
//! follows the store and tells watchers what it sees there. While the store is away, the last known state is told on. An
//! instance that wants it is asked whether it is well; what callers find out, they report.

mod checks;
mod config;
mod error;
mod events;
mod follow;
mod known;
mod lapse;
mod lease;
mod life;
mod model;
mod observation;
mod overrides;
mod page;
mod policy;
mod preserve;
mod reach;
mod roll;
mod service;
mod session;
mod suspects;
mod table;
mod view;
mod watch;
mod wire;

use std::sync::Arc;

use ninefold::Link;
use ninefold::lifecycle::Scope;
use ninefold_store::{Remembered, Store};
use tonic::service::RoutesBuilder;

pub use config::Config;
pub use error::Error;
pub use model::{InstanceId, InstanceKey, Namespace, ServiceKey, ServiceName};
pub use observation::{Observation, Observed};

/// Largest message that is read: a report of 64 events, or an instance with all that it may have.
const MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// What the registry needs of its node.
#[derive(Clone, Debug)]
pub struct Deps {
    /// Where the instances lie.
    pub store: Arc<dyn Store>,
    /// Where contracts are judged: an instance serves with one that was accepted for its service. `None` to take them as
    /// they are.
    pub contract: Option<Link>,
    /// Id of this node, the same after a restart, and no other node's.
    pub node: String,
    /// Where this node remembers what it last saw of a store that others may take away. `None` for a store of its own.
    pub remembered: Option<Remembered>,
}

/// The registry of one node.
#[derive(Clone, Debug)]
pub struct Registry {
    service: service::Service,
}

impl Registry {
    /// Reads what the store knows, and starts to follow it. From the first answer on, nothing that is registered is
    /// missing. While the store is away it begins with what this node remembers, and says so.
    ///
    /// # Errors
    /// [`Error::Misconfigured`]; [`Error::Store`] when the store cannot be read, and nothing is remembered.
    pub async fn start(config: Config, deps: Deps, scope: &Scope) -> Result<Self, Error> {
        let mistakes = config.mistakes();
        if !mistakes.is_empty() {
            return Err(Error::Misconfigured(mistakes));
        }
        let begun = known::begin(deps.store.as_ref(), deps.remembered.as_ref()).await?;
        let must_reload = begun.away.is_some();
        let view = Arc::new(view::View::new(begun, deps.node.clone(), config.events_max, config.lease));
        let hub = Arc::new(session::Hub::new(
            config,
            deps.node,
            deps.store.clone(),
            view.clone(),
            session::Admission(deps.contract),
        ));

        let scope = scope.child("registry");
        let told = hub.clone();
        let (probed, seen) = (deps.store.clone(), view.clone());
        scope.run("registry.probe_store", |stop| follow::probe(probed, seen, stop));
        if let Some(remembered) = deps.remembered {
            let kept = view.clone();
            scope.run("registry.remember", |stop| known::keep(kept, remembered, stop));
        }
        let told = move |taken: follow::Taken<'_>| told.wake(taken);
        scope.run("registry.follow", |stop| follow::follow(deps.store, view, told, must_reload, stop));
        let (sweeper, roller) = (hub.clone(), hub.clone());
        scope.run("registry.sweep", |stop| lapse::sweep(sweeper, stop));
        scope.run("registry.roll", |stop| roll::keep(roller, stop));
        let keeper = hub.clone();
        scope.run("registry.keep_leases", |stop| async move { keeper.leases.keep(stop).await });
        Ok(Self { service: service::Service::new(hub, scope) })
    }

    /// Follows the policies that central config keeps in the environment "policy", and tells them to callers. While it is
    /// away, those that are known hold.
    pub fn follow_policies(&self, config: Link) {
        self.service.follow_policies(config);
    }

    /// Notes what happened to a service where the landscape is told in a dialect of others.
    pub fn observe(&self, seen: Observation) {
        self.service.observe(seen.into());
    }

    /// Adds the registry's service to a server.
    pub fn add_to(&self, routes: &mut RoutesBuilder) {
        routes.add_service(watch::Door::new(self.service.clone(), MESSAGE_BYTES_MAX));
    }
}
