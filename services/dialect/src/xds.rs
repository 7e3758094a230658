//! xDS v3: what gRPC libraries and Envoy follow.
//!
//! `resources` projects a service to listeners, routes, clusters and endpoints; `validate` refuses what a client would
//! refuse; `shelf` keeps what was encoded, shared by all streams; `subscription` knows what a client has and lacks (pure);
//! `stream` speaks both forms of the protocol; `ledger` remembers who follows what, and what was refused.

pub(crate) mod ledger;
pub(crate) mod refusal;
pub(crate) mod resources;
pub(crate) mod service;
pub(crate) mod shelf;
pub(crate) mod stream;
pub(crate) mod subscription;
pub(crate) mod validate;

/// Types of resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Type {
    /// Clusters: how a service is called.
    Cluster,
    /// Endpoints: where it is.
    Endpoints,
    /// Listeners: which names can be called.
    Listener,
    /// Routes: which service answers.
    Route,
}

impl Type {
    /// All, in the order in which a change is told, so that nothing is pointed to before it is there.
    pub(crate) const ALL: [Self; 4] = [Self::Cluster, Self::Endpoints, Self::Listener, Self::Route];

    /// The URL that names the type.
    pub(crate) const fn url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        }
    }

    /// Reads [`Type::url`] back.
    pub(crate) fn of(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.url() == url)
    }

    /// A word for people.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Endpoints => "endpoints",
            Self::Listener => "listener",
            Self::Route => "route",
        }
    }

    /// Whether each response holds all that is subscribed to, as what it lacks counts as deleted (state of the world).
    pub(crate) const fn is_whole(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }
}

/// What a client is. The two kinds understand different parts of the same messages.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Audience {
    /// A gRPC library: names what it wants.
    Grpc,
    /// An Envoy. It listens at this address for calls to all services, where its node's metadata names one
    /// (`ninefold.listen`).
    Envoy(Option<std::net::SocketAddr>),
}
