//! The door: REST, gRPC and gRPC-Web from outside to the services inside.
//!
//! Routes come from the contracts of the instances that are registered, while they are: a new version of a service with a
//! new route is reachable as soon as its first instance serves. Only what a contract exposes is there (`google.api.http`,
//! or `ninefold.gateway.v1.exposure`); everything else is unknown at the edge, though it works inside.
//!
//! REST becomes gRPC and comes back as JSON, by `google.api.http` as its specification says, and stricter where others
//! were bitten: a field that the path binds cannot be said otherwise in query or body, unknown parameters and fields are
//! refused, one request has one reading. Streams of answers come as NDJSON, server-sent events or a JSON array, by
//! `Accept`; streams of requests are read from lines, arrays and files as they arrive; both at once go over WebSocket too.
//! gRPC and gRPC-Web pass through as bytes, and so do requests of plain HTTP, to services that have no contract, by the
//! prefixes that settings name.
//!
//! Settings and routes are two values that are swapped whole: a request keeps those that it began with.
//!
//! What it never does: keep state that another edge would need, decode a gRPC message that merely passes, or route by a
//! contract it could not read whole.

mod access;
mod binding;
mod catalog;
mod codec;
mod config;
mod contract;
mod contracts;
mod edge;
mod error;
mod explain;
mod frames;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod guard;
mod journal;
mod limit;
mod live;
mod openapi;
mod path;
mod patience;
mod pattern;
mod proxy;
mod reply;
mod routes;
mod sample;
mod server;
mod service;
mod table;
#[cfg(test)]
mod testing;
mod traffic;
mod transcode;
mod value;

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use ninefold::Link;
use ninefold::connect::{self, Dialer, Discovery, Interest};
use ninefold::lifecycle::Scope;
use ninefold::telemetry::{Journal, Requests};
use ninefold::tonic::service::RoutesBuilder;
use ninefold_proto::ninefold::gateway::v1::gateway_service_server::GatewayServiceServer;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

pub use codec::Codec;
pub use config::{Certificate, Config, Inward, RateLimit, Tls};
pub use edge::bindings::Bindings;
pub use error::Error;
pub use guard::{
    Addresses, Algorithm, Auth, ClaimRule, External, Introspection, Issuer, Lack, Network, Refusal, Requirement,
};
pub use journal::Config as AccessLog;
pub use limit::{By, Counters, Limit, Per};
pub use proxy::Prefix;
pub use traffic::{
    Canary, Condition, Instances, Json, Maintenance, Method as MethodTraffic, Mirror, Service as ServiceTraffic,
    Source, Unknown,
};

use contracts::{Follower, Published};
use edge::Edge;
use proxy::Proxies;
use sample::Sampler;
use traffic::Traffic;
use traffic::mirror::Mirrors;

/// Who the edge is where calls are counted.
const CALLER: &str = "edge";

/// What happened to the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noticed {
    /// It has new settings.
    SettingsChanged,
    /// It was given settings with mistakes; those before them hold.
    SettingsRefused,
}

/// Something that happened to the edge, for whoever keeps the story of the landscape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What.
    pub noticed: Noticed,
    /// Why, as a sentence fragment.
    pub reason: String,
    /// Name of the node that the edge is a part of.
    pub observer: String,
}

/// Remembers notices. Must not block.
pub trait Witness: Send + Sync {
    /// Takes a notice.
    fn note(&self, notice: Notice);
}

/// What the edge needs of others.
#[derive(Clone)]
pub struct Deps {
    /// Where settings that change are kept.
    pub config: Link,
    /// Name of the node.
    pub node: String,
    /// Where notices go.
    pub witness: Arc<dyn Witness>,
    /// Where requests are told.
    pub journal: Journal,
    /// Where instances are known.
    pub registry: Link,
    /// Where contracts are kept.
    pub contract: Link,
    /// Where API keys are kept, and what this edge signs with is published.
    pub access: Link,
    /// When the first connection is taken.
    pub opening: Opening,
}

/// When the first connection is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// At once: until the landscape is known, requests are answered UNAVAILABLE.
    AtOnce,
    /// When the landscape is known: somebody else takes connections until then.
    WhenKnown,
}

impl fmt::Debug for Deps {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Deps").field("node", &self.node).finish_non_exhaustive()
    }
}

/// The edge, at work until its scope closes.
#[derive(Clone, Debug)]
pub struct Gateway {
    edge: Arc<ArcSwap<Edge>>,
    base: Arc<Config>,
    discovery: Discovery,
    known: watch::Receiver<bool>,
}

impl Gateway {
    /// Answers on `listener`, in tasks of `scope`. Does not wait for the registry; see [`Opening`].
    ///
    /// # Errors
    /// [`Error::SettingsInvalid`] with all that is wrong with the settings.
    #[expect(clippy::unused_async, reason = "roles start alike; what a start needs may come to wait")]
    pub async fn start(config: Config, deps: Deps, listener: TcpListener, scope: &Scope) -> Result<Self, Error> {
        config.check()?;
        let published: Arc<ArcSwap<Published>> = Arc::default();
        let (tell_known, known) = watch::channel(false);
        let mut discovery = Discovery::start(deps.registry, Interest::All, scope);
        if let Some(inward) = &config.inward {
            discovery = discovery.dialing(Dialer::default().secured(inward.open()?));
        }
        let (calling, contract) = (discovery.clone(), deps.contract.clone());
        let sampler = Sampler::start(config.sample_percent, contract.clone(), scope);
        scope.run("gateway.report_calls", |stop| connect::report_calls(calling, contract, CALLER.to_owned(), stop));
        let mirrors = Mirrors::start(scope);
        let following = scope.child("gateway.follow");
        // Youngest, so it closes first: no request loses its connection to a service while it drains.
        let door = scope.child("gateway.serve");
        let edge = Edge {
            config: Config { inward: config.inward.clone(), ..Config::default() },
            published: published.clone(),
            requests: Requests::new(),
            limiter: None,
            doorkeeper: guard::Doorkeeper::start(deps.access, scope.child("gateway.guard"))?,
            limits: guard::limits::Limits::none(),
            sampler,
            tls: None,
            traffic: Traffic::new(mirrors, discovery.clone()),
            proxies: Proxies::new(discovery.clone()),
            journal: journal::Journal::new(AccessLog::default(), deps.journal),
            stop: door.stop(),
        };
        let edge = Arc::new(ArcSwap::from_pointee(edge.renewed(config.clone())?));
        let base = Arc::new(config);
        let (first, is_first) = oneshot::channel();
        let settings = live::Follower {
            edge: edge.clone(),
            base: Config::clone(&base),
            config: deps.config,
            node: deps.node,
            witness: deps.witness,
        };
        let own = following.clone();
        following.run("gateway.follow_settings", |stop| settings.run(own, first, stop));
        let follower = Follower::new(discovery.clone(), deps.contract, published, tell_known, base.linger);
        following.run("gateway.follow", |stop| async move {
            // No request is routed before it is known by what it is answered.
            let _ = is_first.await;
            follower.run(stop).await;
        });
        let live = edge.clone();
        let (mut heard, opening) = (known.clone(), deps.opening);
        let opened = async move {
            if opening == Opening::WhenKnown {
                // It fails only when the follower has ended, and then so does this.
                let _ = heard.wait_for(|known| *known).await;
            }
        };
        door.run("gateway.serve", |stop| server::run(listener, live, opened, stop));
        Ok(Self { edge, base, discovery, known })
    }

    /// Waits until the landscape is known, and requests are answered by it. Cancel safe.
    pub async fn until_known(&self) {
        let _ = self.known.clone().wait_for(|known| *known).await;
    }

    /// Adds `GatewayService` to the routes of the platform.
    pub fn add_to(&self, routes: &mut RoutesBuilder) {
        routes.add_service(GatewayServiceServer::new(service::Service {
            edge: self.edge.clone(),
            base: self.base.clone(),
            discovery: self.discovery.clone(),
        }));
    }
}
