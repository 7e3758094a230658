//! Refuses what a client would refuse, before any client sees it. Pure.
//!
//! gRPC and Envoy judge a response by different rules; these are both, as far as our own projection could ever break them.
//! A resource with a violation is withheld, and what clients had of it before stays.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ninefold::fault::Violation;

use crate::words::envoy::config::cluster::v3::{Cluster, cluster::LbPolicy};
use crate::words::envoy::config::core::v3 as core;
use crate::words::envoy::config::endpoint::v3::{ClusterLoadAssignment, lb_endpoint::HostIdentifier};
use crate::words::envoy::config::listener::v3::Listener;
use crate::words::envoy::config::route::v3::{RouteConfiguration, route, route_action};

/// Most endpoints of one resource; the registry keeps no more of one service.
const ENDPOINTS_MAX: usize = 100_000;

/// What gathers violations.
#[derive(Debug, Default)]
struct Findings(Vec<Violation>);

impl Findings {
    fn check(&mut self, holds: bool, field: impl Into<String>, description: impl Into<String>) {
        if !holds {
            self.0.push(Violation::new(field, description));
        }
    }
}

/// Judges a listener.
pub(crate) fn listener(listener: &Listener) -> Vec<Violation> {
    let mut found = Findings::default();
    found.check(!listener.name.is_empty(), "name", "must not be empty");
    let has_api = listener.api_listener.as_ref().is_some_and(|api| api.api_listener.is_some());
    let has_chain = !listener.filter_chains.is_empty() && listener.address.is_some();
    found.check(has_api || has_chain, "api_listener", "must be set, or an address with filter chains");
    found.0
}

/// Judges routes.
pub(crate) fn routes(routes: &RouteConfiguration) -> Vec<Violation> {
    let mut found = Findings::default();
    found.check(!routes.name.is_empty(), "name", "must not be empty");
    let mut domains = BTreeSet::new();
    for (at, host) in routes.virtual_hosts.iter().enumerate() {
        let place = format!("virtual_hosts[{at}]");
        found.check(!host.name.is_empty(), format!("{place}.name"), "must not be empty");
        found.check(!host.domains.is_empty(), format!("{place}.domains"), "must name at least one");
        for domain in &host.domains {
            found.check(domains.insert(domain), format!("{place}.domains"), format!("{domain:?} is given twice"));
        }
        for (number, route) in host.routes.iter().enumerate() {
            one_route(&mut found, &format!("{place}.routes[{number}]"), route);
        }
    }
    found.0
}

fn one_route(found: &mut Findings, place: &str, route: &crate::words::envoy::config::route::v3::Route) {
    let has_match = route.r#match.as_ref().is_some_and(|one| one.path_specifier.is_some());
    found.check(has_match, format!("{place}.match"), "must say a path or a prefix");
    let Some(route::Action::Route(action)) = &route.action else {
        found.check(false, format!("{place}.route"), "must be set");
        return;
    };
    let is_named =
        matches!(&action.cluster_specifier, Some(route_action::ClusterSpecifier::Cluster(name)) if !name.is_empty());
    found.check(is_named, format!("{place}.route.cluster"), "must not be empty");
    if let Some(retry) = &action.retry_policy {
        let place = format!("{place}.route.retry_policy");
        found.check(retry.num_retries != Some(0), format!("{place}.num_retries"), "must be at least 1");
        if let Some(back_off) = &retry.retry_back_off {
            let millis = |given: Option<prost_types::Duration>| {
                given.map_or(0, |given| given.seconds * 1000 + i64::from(given.nanos) / 1_000_000)
            };
            let (first, longest) = (millis(back_off.base_interval), millis(back_off.max_interval));
            found.check(first >= 1, format!("{place}.retry_back_off.base_interval"), "must be at least 1ms");
            found.check(
                longest >= first,
                format!("{place}.retry_back_off.max_interval"),
                "must not be below base_interval",
            );
        }
    }
    for (at, hash) in action.hash_policy.iter().enumerate() {
        let Some(route_action::hash_policy::PolicySpecifier::Header(header)) = &hash.policy_specifier else { continue };
        let is_legal = !header.header_name.is_empty()
            && header.header_name.bytes().all(|letter| letter.is_ascii_graphic() && letter != b':');
        found.check(is_legal, format!("{place}.route.hash_policy[{at}].header.header_name"), "is no name of a header");
    }
}

/// Judges a cluster.
pub(crate) fn cluster(cluster: &Cluster) -> Vec<Violation> {
    let mut found = Findings::default();
    found.check(!cluster.name.is_empty(), "name", "must not be empty");
    let source = cluster.eds_cluster_config.as_ref().and_then(|config| config.eds_config.as_ref());
    let is_ads = source.is_some_and(|source| {
        matches!(source.config_source_specifier, Some(core::config_source::ConfigSourceSpecifier::Ads(_)))
    });
    found.check(is_ads, "eds_cluster_config.eds_config", "must be ads");
    found.check(
        cluster.lb_policy() != LbPolicy::LeastRequest,
        "lb_policy",
        "LEAST_REQUEST is refused by gRPC's C core; load_balancing_policy says it",
    );
    let has_balancing = cluster.load_balancing_policy.as_ref().is_some_and(|one| !one.policies.is_empty());
    found.check(has_balancing, "load_balancing_policy.policies", "must name at least one");
    let thresholds = cluster.circuit_breakers.iter().flat_map(|breakers| &breakers.thresholds);
    for (at, threshold) in thresholds.enumerate() {
        found.check(
            threshold.max_requests.is_some(),
            format!("circuit_breakers.thresholds[{at}].max_requests"),
            "must be said: clients read none as 1024",
        );
    }
    if let Some(outliers) = &cluster.outlier_detection {
        let percents = [
            ("max_ejection_percent", outliers.max_ejection_percent),
            ("failure_percentage_threshold", outliers.failure_percentage_threshold),
            ("enforcing_failure_percentage", outliers.enforcing_failure_percentage),
            ("enforcing_consecutive_5xx", outliers.enforcing_consecutive_5xx),
        ];
        for (field, percent) in percents {
            found.check(
                percent.is_none_or(|percent| percent <= 100),
                format!("outlier_detection.{field}"),
                "must be at most 100",
            );
        }
        let is_positive =
            |given: Option<prost_types::Duration>| given.is_none_or(|given| given.seconds > 0 || given.nanos > 0);
        for (field, given) in [("interval", outliers.interval), ("base_ejection_time", outliers.base_ejection_time)] {
            found.check(is_positive(given), format!("outlier_detection.{field}"), "must be more than zero");
        }
    }
    found.0
}

/// Judges endpoints.
pub(crate) fn load_assignment(assignment: &ClusterLoadAssignment) -> Vec<Violation> {
    let mut found = Findings::default();
    found.check(!assignment.cluster_name.is_empty(), "cluster_name", "must not be empty");
    let (mut addresses, mut places, mut priorities) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let (mut total, mut weights) = (0, 0_u64);
    for (at, locality) in assignment.endpoints.iter().enumerate() {
        let place = format!("endpoints[{at}]");
        match &locality.locality {
            Some(named) => {
                let key = (locality.priority, &named.region, &named.zone, &named.sub_zone);
                found.check(places.insert(key), format!("{place}.locality"), "is given twice");
            }
            None => found.check(false, format!("{place}.locality"), "must be set"),
        }
        priorities.insert(locality.priority);
        let weight = locality.load_balancing_weight.unwrap_or_default();
        found.check(weight > 0, format!("{place}.load_balancing_weight"), "must be at least 1, or gRPC ignores it");
        weights += u64::from(weight);
        for (number, one) in locality.lb_endpoints.iter().enumerate() {
            total += 1;
            let place = format!("{place}.lb_endpoints[{number}]");
            found.check(
                one.load_balancing_weight != Some(0),
                format!("{place}.load_balancing_weight"),
                "must not be 0",
            );
            let Some(HostIdentifier::Endpoint(endpoint)) = &one.host_identifier else {
                found.check(false, format!("{place}.endpoint"), "must be set");
                continue;
            };
            let socket = endpoint.address.as_ref().and_then(|address| address.address.as_ref());
            let Some(core::address::Address::SocketAddress(socket)) = socket else {
                found.check(false, format!("{place}.endpoint.address"), "must be a socket address");
                continue;
            };
            let Some(core::socket_address::PortSpecifier::PortValue(port)) = socket.port_specifier else {
                found.check(false, format!("{place}.endpoint.address.socket_address.port_value"), "must be set");
                continue;
            };
            let field = format!("{place}.endpoint.address.socket_address");
            found.check(socket.address.parse::<IpAddr>().is_ok(), format!("{field}.address"), "must be an IP address");
            found.check((1..=65535).contains(&port), format!("{field}.port_value"), "must be 1 to 65535");
            found.check(
                addresses.insert((&socket.address, port)),
                field,
                format!("{}:{port} is given twice", socket.address),
            );
        }
    }
    let is_dense = priorities.iter().enumerate().all(|(at, priority)| usize::try_from(*priority) == Ok(at));
    found.check(is_dense, "endpoints.priority", "must be 0 and up without a gap");
    found.check(weights <= u64::from(u32::MAX), "endpoints.load_balancing_weight", "must not add up to 2^32 or more");
    found.check(total <= ENDPOINTS_MAX, "endpoints", format!("must be at most {ENDPOINTS_MAX}"));
    found.0
}

#[cfg(test)]
mod tests;
