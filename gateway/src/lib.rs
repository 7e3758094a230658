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
//! gRPC and gRPC-Web pass through as bytes.
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
mod frames;
mod guard;
mod limit;
mod path;
mod pattern;
mod reply;
mod routes;
mod sample;
mod server;
mod service;
mod table;
#[cfg(test)]
mod testing;
mod transcode;
mod value;

use std::sync::Arc;

use arc_swap::ArcSwap;
use ninefold::Link;
use ninefold::connect::{self, Discovery, Interest};
use ninefold::lifecycle::Scope;
use ninefold::telemetry::Requests;
use ninefold::tonic::service::RoutesBuilder;
use ninefold_proto::ninefold::gateway::v1::gateway_service_server::GatewayServiceServer;
use tokio::net::TcpListener;

pub use codec::Codec;
pub use config::{Certificate, Config, RateLimit, Tls};
pub use edge::bindings::Bindings;
pub use error::Error;

use contracts::{Follower, Published};
use edge::Edge;
use limit::Limiter;
use sample::Sampler;

/// Who the edge is where calls are counted.
const CALLER: &str = "edge";

/// What the edge needs of others.
#[derive(Clone, Debug)]
pub struct Deps {
    /// Where instances are known.
    pub registry: Link,
    /// Where contracts are kept.
    pub contract: Link,
}

/// The edge, at work until its scope closes.
#[derive(Clone, Debug)]
pub struct Gateway {
    published: Arc<ArcSwap<Published>>,
}

impl Gateway {
    /// Answers on `listener`, in tasks of `scope`. Does not wait for the registry: until the landscape is known, requests
    /// are answered UNAVAILABLE.
    ///
    /// # Errors
    /// [`Error::SettingsInvalid`] with all that is wrong with the settings.
    #[expect(clippy::unused_async, reason = "roles start alike; what a start needs may come to wait")]
    pub async fn start(config: Config, deps: Deps, listener: TcpListener, scope: &Scope) -> Result<Self, Error> {
        config.check()?;
        let tls = config.tls.as_ref().map(Tls::open).transpose()?;
        let limiter = config.rate_limit.as_ref().map(Limiter::start).transpose()?;
        let published: Arc<ArcSwap<Published>> = Arc::default();
        let discovery = Discovery::start(deps.registry, Interest::All, scope);
        let (calling, contract) = (discovery.clone(), deps.contract.clone());
        let sampler = Sampler::start(config.sample_percent, contract.clone(), scope);
        scope.run("gateway.report_calls", |stop| connect::report_calls(calling, contract, CALLER.to_owned(), stop));
        let follower = Follower::new(discovery, deps.contract, published.clone(), config.linger);
        scope.child("gateway.follow").run("gateway.follow", |stop| follower.run(stop));
        // Youngest, so it closes first: no request loses its connection to a service while it drains.
        let door = scope.child("gateway.serve");
        let edge = Arc::new(Edge {
            config,
            published: published.clone(),
            requests: Requests::new(),
            limiter,
            sampler,
            tls,
            stop: door.stop(),
        });
        door.run("gateway.serve", |stop| server::run(listener, edge, stop));
        Ok(Self { published })
    }

    /// Adds `GatewayService` to the routes of the platform.
    pub fn add_to(&self, routes: &mut RoutesBuilder) {
        routes.add_service(GatewayServiceServer::new(service::Service { published: self.published.clone() }));
    }
}
