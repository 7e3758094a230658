//! What a client would refuse is refused here, and the field is named.

use std::sync::Arc;

use ninefold_proto::ninefold::registry::v1 as registry;

use super::*;
use crate::catalogue::Catalogue;
use crate::model::{Name, Service};
use crate::xds::ledger::Ledger;
use crate::xds::{Audience, Type, resources};

fn instance(id: u8, zone: &str) -> Arc<registry::Instance> {
    Arc::new(registry::Instance {
        service: "pump".to_owned(),
        instance_id: format!("pump-{id}"),
        addresses: vec![registry::Address { host: format!("10.0.0.{id}"), port: 7000 }],
        zone: zone.to_owned(),
        state: registry::InstanceState::Serving.into(),
        ..registry::Instance::default()
    })
}

/// A service whose policy says all that is told.
fn pump() -> Service {
    let second = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let policy = registry::Policy {
        retry: Some(registry::Retry {
            attempts_max: Some(3),
            wait_min: second,
            wait_max: second,
            ..Default::default()
        }),
        balancing: Some(registry::Balancing {
            method: registry::BalancingMethod::RingHash.into(),
            hash_header: "user".to_owned(),
            ..Default::default()
        }),
        methods: vec![registry::MethodPolicy {
            method: "a.v1.A/Get".to_owned(),
            idempotent: Some(true),
            ..Default::default()
        }],
        ..registry::Policy::default()
    };
    Service::new(Name::new("pump", ""), vec![instance(1, "east"), instance(2, "west")], policy, false)
}

/// The fields that are complained of once a change is made to what is fine without it.
fn complaints<M: Clone>(fine: &M, judge: impl Fn(&M) -> Vec<Violation>, change: impl Fn(&mut M)) -> Vec<String> {
    assert_eq!(judge(fine), [], "it is fine before the change");
    let mut changed = fine.clone();
    change(&mut changed);
    judge(&changed).into_iter().map(|violation| violation.field).collect()
}

#[test]
fn a_cluster_that_grpc_or_envoy_would_refuse_is_refused_by_its_field() {
    type Change = fn(&mut Cluster);
    let changes: [(&str, Change); 10] = [
        ("name", |it| it.name.clear()),
        ("eds_cluster_config.eds_config", |it| it.eds_cluster_config = None),
        ("lb_policy", |it| it.set_lb_policy(LbPolicy::LeastRequest)),
        ("load_balancing_policy.policies", |it| it.load_balancing_policy.as_mut().unwrap().policies.clear()),
        ("circuit_breakers.thresholds[0].max_requests", |it| {
            it.circuit_breakers.as_mut().unwrap().thresholds[0].max_requests = None;
        }),
        ("outlier_detection.max_ejection_percent", |it| {
            it.outlier_detection.as_mut().unwrap().max_ejection_percent = Some(101);
        }),
        ("outlier_detection.failure_percentage_threshold", |it| {
            it.outlier_detection.as_mut().unwrap().failure_percentage_threshold = Some(101);
        }),
        ("outlier_detection.enforcing_consecutive_5xx", |it| {
            it.outlier_detection.as_mut().unwrap().enforcing_consecutive_5xx = Some(101);
        }),
        ("outlier_detection.interval", |it| {
            it.outlier_detection.as_mut().unwrap().interval = Some(prost_types::Duration::default());
        }),
        ("outlier_detection.base_ejection_time", |it| {
            it.outlier_detection.as_mut().unwrap().base_ejection_time = Some(prost_types::Duration::default());
        }),
    ];
    for audience in [Audience::Grpc, Audience::Envoy(None)] {
        let fine = resources::cluster(&pump(), &audience);
        for (field, change) in changes {
            assert_eq!(complaints(&fine, cluster, change), [field], "{audience:?}");
        }
    }
}

#[test]
fn endpoints_that_grpc_or_envoy_would_refuse_are_refused_by_their_field() {
    fn socket(it: &mut ClusterLoadAssignment) -> &mut core::SocketAddress {
        let one = &mut it.endpoints[0].lb_endpoints[0];
        let Some(HostIdentifier::Endpoint(endpoint)) = &mut one.host_identifier else { panic!("an endpoint") };
        let core::address::Address::SocketAddress(socket) =
            endpoint.address.as_mut().unwrap().address.as_mut().unwrap();
        socket
    }
    type Change = fn(&mut ClusterLoadAssignment);
    let place = "endpoints[0].lb_endpoints[0].endpoint.address";
    let changes: [(&str, Change); 13] = [
        ("cluster_name", |it| it.cluster_name.clear()),
        ("endpoints[0].locality", |it| it.endpoints[0].locality = None),
        ("endpoints[1].locality", |it| {
            it.endpoints[1].priority = 0;
            it.endpoints[1].locality = it.endpoints[0].locality.clone();
        }),
        ("endpoints[0].load_balancing_weight", |it| it.endpoints[0].load_balancing_weight = Some(0)),
        ("endpoints[0].load_balancing_weight", |it| it.endpoints[0].load_balancing_weight = None),
        ("endpoints.load_balancing_weight", |it| it.endpoints[0].load_balancing_weight = Some(u32::MAX)),
        ("endpoints.priority", |it| it.endpoints[1].priority = 2),
        ("endpoints[0].lb_endpoints[0].load_balancing_weight", |it| {
            it.endpoints[0].lb_endpoints[0].load_balancing_weight = Some(0);
        }),
        ("endpoints[0].lb_endpoints[0].endpoint", |it| it.endpoints[0].lb_endpoints[0].host_identifier = None),
        ("{place}.socket_address.address", |it| socket(it).address = "pump.example".to_owned()),
        ("{place}.socket_address.port_value", |it| {
            socket(it).port_specifier = Some(core::socket_address::PortSpecifier::PortValue(65_536));
        }),
        ("{place}.socket_address.port_value", |it| socket(it).port_specifier = None),
        ("endpoints[1].lb_endpoints[0].endpoint.address.socket_address", |it| {
            socket(it).address = "10.0.0.2".to_owned();
        }),
    ];
    let fine = resources::load_assignment(&pump(), "", "east");
    for (field, change) in changes {
        assert_eq!(complaints(&fine, load_assignment, change), [field.replace("{place}", place)]);
    }
}

#[test]
fn routes_and_listeners_that_grpc_or_envoy_would_refuse_are_refused_by_their_field() {
    fn action(it: &mut RouteConfiguration) -> &mut crate::words::envoy::config::route::v3::RouteAction {
        match it.virtual_hosts[0].routes[0].action.as_mut() {
            Some(route::Action::Route(action)) => action,
            other => panic!("{other:?}"),
        }
    }
    type Change = fn(&mut RouteConfiguration);
    let changes: [(&str, Change); 9] = [
        ("name", |it| it.name.clear()),
        ("virtual_hosts[0].name", |it| it.virtual_hosts[0].name.clear()),
        ("virtual_hosts[0].domains", |it| it.virtual_hosts[0].domains.clear()),
        ("virtual_hosts[0].domains", |it| {
            let twice = it.virtual_hosts[0].domains[0].clone();
            it.virtual_hosts[0].domains.push(twice);
        }),
        ("virtual_hosts[0].routes[0].match", |it| it.virtual_hosts[0].routes[0].r#match = None),
        ("virtual_hosts[0].routes[0].route", |it| it.virtual_hosts[0].routes[0].action = None),
        ("virtual_hosts[0].routes[0].route.cluster", |it| action(it).cluster_specifier = None),
        ("virtual_hosts[0].routes[0].route.retry_policy.num_retries", |it| {
            action(it).retry_policy.as_mut().unwrap().num_retries = Some(0);
        }),
        ("virtual_hosts[0].routes[0].route.retry_policy.retry_back_off.max_interval", |it| {
            let retry = action(it).retry_policy.as_mut().unwrap();
            retry.retry_back_off.as_mut().unwrap().max_interval = Some(prost_types::Duration { seconds: 0, nanos: 1 });
        }),
    ];
    let fine = resources::routes("pump", &pump());
    for (field, change) in changes {
        assert_eq!(complaints(&fine, routes, change), [field]);
    }
    let fine = resources::api_listener("pump");
    assert_eq!(complaints(&fine, listener, |it| it.name.clear()), ["name"]);
    assert_eq!(complaints(&fine, listener, |it| it.api_listener = None), ["api_listener"]);
}

#[test]
fn what_is_refused_is_withheld_and_noted_with_its_field() {
    struct Deaf;
    impl crate::Witness for Deaf {
        fn note(&self, _: crate::Notice) {}
    }
    let ledger = Arc::new(Ledger::new(1, Arc::new(Deaf)));
    let catalogue = Catalogue::new(ledger.clone());
    let mut broken = resources::cluster(&pump(), &Audience::Grpc);
    broken.circuit_breakers.as_mut().unwrap().thresholds[0].max_requests = None;
    let why = catalogue.judged(Type::Cluster, "pump", &broken, cluster).expect_err("it is withheld");
    assert!(why.contains("circuit_breakers.thresholds[0].max_requests"), "{why}");
    let noted = ledger.refusals();
    let noted: Vec<_> =
        noted.iter().map(|one| (one.refused_by.as_str(), one.name.as_str(), one.field.as_str())).collect();
    assert_eq!(noted, [("validator", "pump", "circuit_breakers.thresholds[0].max_requests")]);
}
