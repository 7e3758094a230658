//! The words of xDS, generated: the part of Envoy's contracts that is spoken here.

#![expect(clippy::all, unreachable_pub)]

/// A message that is sent as one that names its own type.
pub(crate) trait Named: prost::Message {
    /// Its full name.
    const NAME: &'static str;
}

macro_rules! named {
    ($($message:path = $name:literal,)*) => { $(impl Named for $message { const NAME: &'static str = $name; })* };
}

named! {
    envoy::config::cluster::v3::Cluster = "envoy.config.cluster.v3.Cluster",
    envoy::config::endpoint::v3::ClusterLoadAssignment = "envoy.config.endpoint.v3.ClusterLoadAssignment",
    envoy::config::listener::v3::Listener = "envoy.config.listener.v3.Listener",
    envoy::config::route::v3::RouteConfiguration = "envoy.config.route.v3.RouteConfiguration",
    envoy::extensions::filters::http::router::v3::Router = "envoy.extensions.filters.http.router.v3.Router",
    envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager =
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    envoy::extensions::load_balancing_policies::least_request::v3::LeastRequest =
        "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest",
    envoy::extensions::load_balancing_policies::ring_hash::v3::RingHash =
        "envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash",
    envoy::extensions::load_balancing_policies::round_robin::v3::RoundRobin =
        "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin",
    envoy::extensions::load_balancing_policies::wrr_locality::v3::WrrLocality =
        "envoy.extensions.load_balancing_policies.wrr_locality.v3.WrrLocality",
    envoy::extensions::upstreams::http::v3::HttpProtocolOptions =
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
}

pub(crate) mod envoy {
    pub(crate) mod config {
        pub(crate) mod cluster {
            pub(crate) mod v3 {
                tonic::include_proto!("envoy.config.cluster.v3");
            }
        }
        pub(crate) mod core {
            pub(crate) mod v3 {
                tonic::include_proto!("envoy.config.core.v3");
            }
        }
        pub(crate) mod endpoint {
            pub(crate) mod v3 {
                tonic::include_proto!("envoy.config.endpoint.v3");
            }
        }
        pub(crate) mod listener {
            pub(crate) mod v3 {
                tonic::include_proto!("envoy.config.listener.v3");
            }
        }
        pub(crate) mod route {
            pub(crate) mod v3 {
                tonic::include_proto!("envoy.config.route.v3");
            }
        }
    }
    pub(crate) mod extensions {
        pub(crate) mod filters {
            pub(crate) mod http {
                pub(crate) mod router {
                    pub(crate) mod v3 {
                        tonic::include_proto!("envoy.extensions.filters.http.router.v3");
                    }
                }
            }
            pub(crate) mod network {
                pub(crate) mod http_connection_manager {
                    pub(crate) mod v3 {
                        tonic::include_proto!("envoy.extensions.filters.network.http_connection_manager.v3");
                    }
                }
            }
        }
        pub(crate) mod load_balancing_policies {
            pub(crate) mod common {
                pub(crate) mod v3 {
                    tonic::include_proto!("envoy.extensions.load_balancing_policies.common.v3");
                }
            }
            pub(crate) mod least_request {
                pub(crate) mod v3 {
                    tonic::include_proto!("envoy.extensions.load_balancing_policies.least_request.v3");
                }
            }
            pub(crate) mod ring_hash {
                pub(crate) mod v3 {
                    tonic::include_proto!("envoy.extensions.load_balancing_policies.ring_hash.v3");
                }
            }
            pub(crate) mod round_robin {
                pub(crate) mod v3 {
                    tonic::include_proto!("envoy.extensions.load_balancing_policies.round_robin.v3");
                }
            }
            pub(crate) mod wrr_locality {
                pub(crate) mod v3 {
                    tonic::include_proto!("envoy.extensions.load_balancing_policies.wrr_locality.v3");
                }
            }
        }
        pub(crate) mod upstreams {
            pub(crate) mod http {
                pub(crate) mod v3 {
                    tonic::include_proto!("envoy.extensions.upstreams.http.v3");
                }
            }
        }
    }
    pub(crate) mod service {
        pub(crate) mod discovery {
            pub(crate) mod v3 {
                tonic::include_proto!("envoy.service.discovery.v3");
            }
        }
    }
    pub(crate) mod r#type {
        pub(crate) mod v3 {
            tonic::include_proto!("envoy.r#type.v3");
        }
    }
}
pub(crate) mod google {
    pub(crate) mod rpc {
        tonic::include_proto!("google.rpc");
    }
}
