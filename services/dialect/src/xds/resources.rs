//! A service as xDS resources. Pure.
//!
//! Every field that a client has a surprising default for is set: gRPC drops calls over 1024 where `max_requests` is
//! unset, ignores localities without weight, and Envoy ends calls after 15 s where `timeout` is unset.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use ninefold_proto::ninefold::registry::v1 as policy;
use prost_types::Any;

use super::Audience;
use crate::model::{Endpoint, Health, Service};
use crate::words::Named;
use crate::words::envoy::config::cluster::v3 as cluster;
use crate::words::envoy::config::core::v3 as core;
use crate::words::envoy::config::endpoint::v3 as endpoint;
use crate::words::envoy::config::listener::v3 as listener;
use crate::words::envoy::config::route::v3 as route;
use crate::words::envoy::extensions::filters::http::router::v3::Router;
use crate::words::envoy::extensions::filters::network::http_connection_manager::v3 as manager;
use crate::words::envoy::extensions::load_balancing_policies as balancing;
use crate::words::envoy::extensions::upstreams::http::v3 as upstream;
use crate::words::envoy::r#type::v3::Percent;

/// Name of the one route configuration that an Envoy listens with.
pub(crate) const ENVOY_ROUTES: &str = "ninefold";
/// Calls at once where the policy names no limit: the platform's own default for a service.
const IN_FLIGHT_DEFAULT: u32 = 1024;
/// Share of a zone's usual capacity, in percent, below which calls spill over, where the policy names none.
const SPILL_PERCENT_DEFAULT: u32 = 70;
/// How long Envoy waits for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How Envoy notices that a connection is dead although nothing says so.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
/// Conditions under which no instance has begun to work: repeating is harmless for every method. gRPC does so by itself.
const RETRY_HARMLESS: &str = "connect-failure,refused-stream";
/// How many times an Envoy looks for a host that was not asked yet.
const HOSTS_LOOKED_AT: i64 = 5;

/// A message as one that names its own type.
pub(crate) fn any<M: Named>(message: &M) -> Any {
    Any { type_url: format!("type.googleapis.com/{}", M::NAME), value: message.encode_to_vec() }
}

fn duration(duration: Duration) -> prost_types::Duration {
    duration.try_into().unwrap_or_default()
}

/// A duration of a policy; one that is absent or negative as `default`.
fn read(given: Option<prost_types::Duration>, default: Duration) -> Duration {
    given.and_then(|given| Duration::try_from(given).ok()).unwrap_or(default)
}

fn from_ads() -> core::ConfigSource {
    core::ConfigSource {
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(core::AggregatedConfigSource {})),
        resource_api_version: core::ApiVersion::V3.into(),
    }
}

fn extension<M: Named>(name: &str, message: &M) -> core::TypedExtensionConfig {
    core::TypedExtensionConfig { name: name.to_owned(), typed_config: Some(any(message)) }
}

fn http_connection_manager(routes: &str) -> manager::HttpConnectionManager {
    manager::HttpConnectionManager {
        stat_prefix: "ninefold".to_owned(),
        route_specifier: Some(manager::http_connection_manager::RouteSpecifier::Rds(manager::Rds {
            config_source: Some(from_ads()),
            route_config_name: routes.to_owned(),
        })),
        // The last filter must be the router, or gRPC refuses the whole listener.
        http_filters: vec![manager::HttpFilter {
            name: "router".to_owned(),
            config_type: Some(manager::http_filter::ConfigType::TypedConfig(any(&Router {}))),
        }],
    }
}

/// The listener of a gRPC channel to `xds:///NAME`; `name` is NAME as the channel asks for it.
pub(crate) fn api_listener(name: &str) -> listener::Listener {
    listener::Listener {
        name: name.to_owned(),
        api_listener: Some(listener::ApiListener { api_listener: Some(any(&http_connection_manager(name))) }),
        ..listener::Listener::default()
    }
}

/// The listener of an Envoy, for calls to all services, told apart by their authority.
pub(crate) fn envoy_listener(listen: SocketAddr) -> listener::Listener {
    let filter = listener::Filter {
        name: "envoy.filters.network.http_connection_manager".to_owned(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(any(&http_connection_manager(ENVOY_ROUTES)))),
    };
    listener::Listener {
        name: ENVOY_ROUTES.to_owned(),
        address: Some(socket(listen.ip().to_string(), listen.port())),
        filter_chains: vec![listener::FilterChain { filters: vec![filter] }],
        api_listener: None,
    }
}

fn socket(address: String, port: u16) -> core::Address {
    core::Address {
        address: Some(core::address::Address::SocketAddress(core::SocketAddress {
            address,
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port.into())),
        })),
    }
}

/// The routes of a gRPC channel.
pub(crate) fn routes(name: &str, service: &Service) -> route::RouteConfiguration {
    let host = virtual_host(service, vec!["*".to_owned()], &Audience::Grpc);
    route::RouteConfiguration { name: name.to_owned(), virtual_hosts: vec![host] }
}

/// The routes of an Envoy to all services: `pump`, `pump:80`, and the long forms of the name.
pub(crate) fn envoy_routes<'s>(services: impl Iterator<Item = &'s Service>) -> route::RouteConfiguration {
    let hosts = services.filter(|service| !service.is_leaving).map(|service| {
        let name = service.name.as_str();
        let mut domains = vec![name.to_owned(), format!("{name}:*")];
        if !name.contains('.') {
            domains.push(format!("{name}.{}", service.name.namespace()));
        }
        virtual_host(service, domains, &Audience::Envoy(None))
    });
    route::RouteConfiguration { name: ENVOY_ROUTES.to_owned(), virtual_hosts: hosts.collect() }
}

fn virtual_host(service: &Service, domains: Vec<String>, audience: &Audience) -> route::VirtualHost {
    let policy = &service.policy;
    let mut routes: Vec<route::Route> = methods(policy)
        .into_iter()
        .map(|(std::cmp::Reverse(place), method)| {
            let matched = if place.ends_with('/') {
                route::route_match::PathSpecifier::Prefix(place)
            } else {
                route::route_match::PathSpecifier::Path(place)
            };
            let retry = method.retry.as_ref().or(policy.retry.as_ref());
            // A method that may not be repeated is not, whatever the service says.
            let retry = (method.idempotent != Some(false))
                .then(|| retry.cloned().or_else(|| method.idempotent.map(|_| policy::Retry::default())))
                .flatten();
            let timeouts = method.timeouts.as_ref().or(policy.timeouts.as_ref());
            one_route(service, matched, retry.as_ref(), timeouts, audience)
        })
        .collect();
    let all = route::route_match::PathSpecifier::Prefix(String::new());
    // An Envoy wants a prefix of at least a slash.
    let all = if *audience == Audience::Grpc { all } else { route::route_match::PathSpecifier::Prefix("/".to_owned()) };
    routes.push(one_route(service, all, policy.retry.as_ref(), policy.timeouts.as_ref(), audience));
    route::VirtualHost { name: service.name.as_str().to_owned(), domains, routes }
}

/// Where the methods of a policy are found, longest first.
fn methods(policy: &policy::Policy) -> BTreeMap<std::cmp::Reverse<String>, &policy::MethodPolicy> {
    let path = |method: &str| {
        let method = method.trim_start_matches('/');
        if method.contains('/') { format!("/{method}") } else { format!("/{method}/") }
    };
    policy.methods.iter().map(|method| (std::cmp::Reverse(path(&method.method)), method)).collect()
}

fn one_route(
    service: &Service,
    matched: route::route_match::PathSpecifier,
    retry: Option<&policy::Retry>,
    timeouts: Option<&policy::Timeouts>,
    audience: &Audience,
) -> route::Route {
    let call_max = timeouts.and_then(|timeouts| timeouts.call_max);
    let balancing = service.policy.balancing.clone().unwrap_or_default();
    let hash_policy = if balancing.method() == policy::BalancingMethod::RingHash && !balancing.hash_header.is_empty() {
        let header = route::route_action::hash_policy::Header { header_name: balancing.hash_header };
        let specifier = Some(route::route_action::hash_policy::PolicySpecifier::Header(header));
        vec![route::route_action::HashPolicy { policy_specifier: specifier }]
    } else {
        Vec::new()
    };
    let action = route::RouteAction {
        cluster_specifier: Some(route::route_action::ClusterSpecifier::Cluster(service.name.as_str().to_owned())),
        // None: streams live long, and calls bring their own deadline.
        timeout: Some(prost_types::Duration::default()),
        retry_policy: retry_policy(retry, timeouts.and_then(|timeouts| timeouts.attempt), audience),
        hash_policy,
        max_stream_duration: Some(route::route_action::MaxStreamDuration {
            max_stream_duration: call_max,
            // Zero: the caller's own deadline, uncut.
            grpc_timeout_header_max: Some(call_max.unwrap_or_default()),
        }),
    };
    route::Route {
        r#match: Some(route::RouteMatch { path_specifier: Some(matched) }),
        action: Some(route::route::Action::Route(action)),
    }
}

/// An Envoy repeats a call at a host that was not asked for it yet, where it finds one: the one that died would be asked
/// again otherwise.
fn other_hosts() -> route::retry_policy::RetryHostPredicate {
    let kind = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate";
    let config = Any { type_url: format!("type.googleapis.com/{kind}"), value: Vec::new() };
    route::retry_policy::RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(route::retry_policy::retry_host_predicate::ConfigType::TypedConfig(config)),
    }
}

fn retry_policy(
    retry: Option<&policy::Retry>,
    attempt: Option<prost_types::Duration>,
    audience: &Audience,
) -> Option<route::RetryPolicy> {
    let is_envoy = *audience != Audience::Grpc;
    let Some(retry) = retry else {
        return is_envoy.then(|| route::RetryPolicy {
            retry_on: RETRY_HARMLESS.to_owned(),
            num_retries: Some(2),
            per_try_timeout: None,
            retry_back_off: None,
            retry_host_predicate: vec![other_hosts()],
            host_selection_retry_max_attempts: HOSTS_LOOKED_AT,
        });
    };
    let repetitions = retry.attempts_max.unwrap_or(3).saturating_sub(1);
    if repetitions == 0 {
        return None;
    }
    let known = ["CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED", "UNAVAILABLE"];
    let mut conditions: Vec<String> = known
        .into_iter()
        .filter(|code| retry.codes.iter().any(|given| given == code))
        .map(|code| code.to_ascii_lowercase().replace('_', "-"))
        .collect();
    if conditions.is_empty() {
        conditions.push("unavailable".to_owned());
    }
    if is_envoy {
        conditions.push(RETRY_HARMLESS.to_owned());
    }
    // Both sides refuse a wait of less than a millisecond, and a longest wait below the first.
    let wait_min = read(retry.wait_min, Duration::from_millis(10)).max(Duration::from_millis(1));
    let wait_max = read(retry.wait_max, Duration::from_millis(250)).max(wait_min);
    Some(route::RetryPolicy {
        retry_on: conditions.join(","),
        num_retries: Some(repetitions),
        per_try_timeout: attempt.filter(|_| is_envoy),
        retry_host_predicate: is_envoy.then(other_hosts).into_iter().collect(),
        host_selection_retry_max_attempts: if is_envoy { HOSTS_LOOKED_AT } else { 0 },
        retry_back_off: Some(route::retry_policy::RetryBackOff {
            base_interval: Some(duration(wait_min)),
            max_interval: Some(duration(wait_max)),
        }),
    })
}

/// The cluster of a service.
pub(crate) fn cluster(service: &Service, audience: &Audience) -> cluster::Cluster {
    let policy = &service.policy;
    let balancing = policy.balancing.clone().unwrap_or_default();
    let is_envoy = *audience != Audience::Grpc;
    let is_ring = balancing.method() == policy::BalancingMethod::RingHash;
    cluster::Cluster {
        name: service.name.as_str().to_owned(),
        cluster_discovery_type: Some(cluster::cluster::ClusterDiscoveryType::Type(
            cluster::cluster::DiscoveryType::Eds.into(),
        )),
        eds_cluster_config: Some(cluster::cluster::EdsClusterConfig {
            eds_config: Some(from_ads()),
            service_name: String::new(),
        }),
        connect_timeout: Some(duration(CONNECT_TIMEOUT)),
        // For clients that do not know `load_balancing_policy`. LEAST_REQUEST here is refused by gRPC's C core.
        lb_policy: if is_ring { cluster::cluster::LbPolicy::RingHash } else { cluster::cluster::LbPolicy::RoundRobin }
            .into(),
        load_balancing_policy: Some(if is_envoy { envoy_balancing(&balancing) } else { grpc_balancing(&balancing) }),
        circuit_breakers: Some(circuit_breakers(policy)),
        outlier_detection: outlier_detection(policy.breaker.as_ref()),
        common_lb_config: is_envoy.then(|| cluster::cluster::CommonLbConfig {
            healthy_panic_threshold: Some(Percent { value: balancing.panic_percent.unwrap_or(50).min(100).into() }),
        }),
        typed_extension_protocol_options: if is_envoy && !service.is_http() { spoken_as_http2() } else { [].into() },
    }
}

fn spoken_as_http2() -> std::collections::HashMap<String, Any> {
    let http2 = core::Http2ProtocolOptions {
        connection_keepalive: Some(core::KeepaliveSettings {
            interval: Some(duration(KEEP_ALIVE.0)),
            timeout: Some(duration(KEEP_ALIVE.1)),
        }),
    };
    let options = upstream::HttpProtocolOptions {
        upstream_protocol_options: Some(upstream::http_protocol_options::UpstreamProtocolOptions::ExplicitHttpConfig(
            upstream::http_protocol_options::ExplicitHttpConfig {
                protocol_config: Some(
                    upstream::http_protocol_options::explicit_http_config::ProtocolConfig::Http2ProtocolOptions(http2),
                ),
            },
        )),
    };
    [("envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned(), any(&options))].into()
}

fn policies(list: Vec<core::TypedExtensionConfig>) -> cluster::LoadBalancingPolicy {
    let policies =
        list.into_iter().map(|one| cluster::load_balancing_policy::Policy { typed_extension_config: Some(one) });
    cluster::LoadBalancingPolicy { policies: policies.collect() }
}

const ROUND_ROBIN: &str = "envoy.load_balancing_policies.round_robin";
const LEAST_REQUEST: &str = "envoy.load_balancing_policies.least_request";
const RING_HASH: &str = "envoy.load_balancing_policies.ring_hash";
const WRR_LOCALITY: &str = "envoy.load_balancing_policies.wrr_locality";

/// gRPC takes the first policy of a list that it knows.
fn grpc_balancing(balancing: &policy::Balancing) -> cluster::LoadBalancingPolicy {
    use policy::BalancingMethod as Method;
    let round_robin = || extension(ROUND_ROBIN, &balancing::round_robin::v3::RoundRobin::default());
    let picking = match balancing.method() {
        Method::RingHash => {
            let ring = balancing::ring_hash::v3::RingHash {
                hash_function: balancing::ring_hash::v3::ring_hash::HashFunction::XxHash.into(),
                locality_weighted_lb_config: None,
            };
            return policies(vec![extension(RING_HASH, &ring)]);
        }
        Method::Unspecified | Method::PeakEwma | Method::LeastRequest => {
            let least = balancing::least_request::v3::LeastRequest { choice_count: Some(2), ..Default::default() };
            vec![extension(LEAST_REQUEST, &least), round_robin()]
        }
        Method::RoundRobin | Method::WeightedRoundRobin => vec![round_robin()],
    };
    let by_locality = balancing::wrr_locality::v3::WrrLocality { endpoint_picking_policy: Some(policies(picking)) };
    policies(vec![extension(WRR_LOCALITY, &by_locality)])
}

fn envoy_balancing(balancing: &policy::Balancing) -> cluster::LoadBalancingPolicy {
    use balancing::common::v3 as shared;
    use policy::BalancingMethod as Method;
    let weighted = shared::locality_lb_config::LocalityWeightedLbConfig {};
    let by_locality = Some(shared::LocalityLbConfig {
        locality_config_specifier: Some(shared::locality_lb_config::LocalityConfigSpecifier::LocalityWeightedLbConfig(
            weighted,
        )),
    });
    let window = read(balancing.slow_start, Duration::from_secs(10));
    let slow_start_config =
        (!window.is_zero()).then(|| shared::SlowStartConfig { slow_start_window: Some(duration(window)) });
    let one = match balancing.method() {
        Method::Unspecified | Method::PeakEwma | Method::LeastRequest => extension(
            LEAST_REQUEST,
            &balancing::least_request::v3::LeastRequest {
                choice_count: Some(2),
                slow_start_config,
                locality_lb_config: by_locality,
            },
        ),
        Method::RoundRobin | Method::WeightedRoundRobin => extension(
            ROUND_ROBIN,
            &balancing::round_robin::v3::RoundRobin { slow_start_config, locality_lb_config: by_locality },
        ),
        Method::RingHash => extension(
            RING_HASH,
            &balancing::ring_hash::v3::RingHash {
                hash_function: balancing::ring_hash::v3::ring_hash::HashFunction::XxHash.into(),
                locality_weighted_lb_config: Some(weighted),
            },
        ),
    };
    policies(vec![one])
}

fn circuit_breakers(policy: &policy::Policy) -> cluster::CircuitBreakers {
    let limits = policy.limits.unwrap_or_default();
    let in_flight = limits.in_flight_max.unwrap_or(IN_FLIGHT_DEFAULT);
    let retry = policy.retry.clone().unwrap_or_default();
    let thresholds = cluster::circuit_breakers::Thresholds {
        max_connections: Some(u32::MAX),
        max_pending_requests: Some(limits.waiting_max.unwrap_or(in_flight)),
        max_requests: Some(in_flight),
        max_retries: None,
        retry_budget: Some(cluster::circuit_breakers::thresholds::RetryBudget {
            budget_percent: Some(Percent { value: retry.budget_percent.unwrap_or(20).min(100).into() }),
            min_retry_concurrency: Some(retry.budget_per_second.unwrap_or(10)),
        }),
    };
    cluster::CircuitBreakers { thresholds: vec![thresholds] }
}

fn outlier_detection(breaker: Option<&policy::Breaker>) -> Option<cluster::OutlierDetection> {
    let breaker = breaker.cloned().unwrap_or_default();
    if breaker.disabled {
        return None;
    }
    let in_a_row = breaker.failures_in_a_row.unwrap_or(5);
    let percent = breaker.failure_percent.unwrap_or(50);
    let wait_min = read(breaker.wait_min, Duration::from_secs(1)).max(Duration::from_millis(1));
    let enforced = |is_on: bool| Some(if is_on { 100 } else { 0 });
    Some(cluster::OutlierDetection {
        interval: Some(duration(read(breaker.window, Duration::from_secs(10)).max(Duration::from_millis(100)))),
        base_ejection_time: Some(duration(wait_min)),
        max_ejection_time: Some(duration(read(breaker.wait_max, Duration::from_secs(60)).max(wait_min))),
        max_ejection_percent: Some(breaker.ejection_percent_max.unwrap_or(50).min(100)),
        consecutive_5xx: Some(in_a_row.max(1)),
        enforcing_consecutive_5xx: enforced(in_a_row > 0),
        consecutive_gateway_failure: Some(in_a_row.max(1)),
        enforcing_consecutive_gateway_failure: enforced(in_a_row > 0),
        // Compares endpoints with each other, which no breaker of ours does. On by default in gRPC.
        enforcing_success_rate: Some(0),
        failure_percentage_threshold: Some(percent.min(100)),
        enforcing_failure_percentage: enforced(percent > 0),
        failure_percentage_minimum_hosts: Some(1),
        failure_percentage_request_volume: Some(breaker.calls_min.unwrap_or(20)),
    })
}

/// The endpoints of a service, as a client in a zone should see them: its own zone first while that can take its share,
/// then all; gRPC itself has no spill-over.
pub(crate) fn load_assignment(service: &Service, region: &str, zone: &str) -> endpoint::ClusterLoadAssignment {
    let mut localities: BTreeMap<(&str, &str), Vec<&Endpoint>> = BTreeMap::new();
    for one in service.endpoints.iter().filter(|one| one.ip.is_some()) {
        localities.entry((&one.region, &one.zone)).or_default().push(one);
    }
    let own = |place: &(&str, &str)| place.1 == zone && (region.is_empty() || place.0 == region);
    let prefers_own =
        prefers_own_zone(service, zone, localities.iter().filter(|(place, _)| own(place)).flat_map(|(_, all)| all));
    let endpoints = localities.into_iter().map(|(place, all)| {
        let weight = all.iter().fold(0_u32, |sum, one| sum.saturating_add(one.weight));
        endpoint::LocalityLbEndpoints {
            locality: Some(core::Locality {
                region: place.0.to_owned(),
                zone: place.1.to_owned(),
                sub_zone: String::new(),
            }),
            load_balancing_weight: Some(weight.max(1)),
            priority: u32::from(prefers_own && !own(&place)),
            lb_endpoints: all.into_iter().filter_map(lb_endpoint).collect(),
        }
    });
    endpoint::ClusterLoadAssignment { cluster_name: service.name.as_str().to_owned(), endpoints: endpoints.collect() }
}

/// Whether the endpoints of the client's own zone can take what they usually do.
fn prefers_own_zone<'e>(service: &Service, zone: &str, own: impl Iterator<Item = &'e &'e Endpoint>) -> bool {
    let balancing = service.policy.balancing.clone().unwrap_or_default();
    if zone.is_empty() || balancing.zone_aware == Some(false) {
        return false;
    }
    let (mut usable, mut usual) = (0_u64, 0_u64);
    for one in own {
        usual += u64::from(one.weight);
        usable += if one.health == Health::Healthy { u64::from(one.weight) } else { 0 };
    }
    let least = u64::from(balancing.spill_percent.unwrap_or(SPILL_PERCENT_DEFAULT));
    usable > 0 && usable * 100 >= usual * least
}

fn lb_endpoint(one: &Endpoint) -> Option<endpoint::LbEndpoint> {
    let health = match one.health {
        Health::Healthy => core::HealthStatus::Healthy,
        // Envoy calls these where too few others are left; gRPC does not.
        Health::Suspect => core::HealthStatus::Degraded,
        Health::Draining => core::HealthStatus::Draining,
        Health::Unhealthy => core::HealthStatus::Unhealthy,
    };
    Some(endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint::Endpoint {
            address: Some(socket(one.ip?.to_string(), one.port)),
        })),
        health_status: health.into(),
        load_balancing_weight: Some(one.weight.max(1)),
    })
}

#[cfg(test)]
mod tests;
