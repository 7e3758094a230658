//! Whatever the policy and the instances, what is told is what clients take.

use std::sync::Arc;

use policy as words;
use proptest::prelude::*;

use super::*;
use crate::model::Name;
use crate::xds::validate;

fn instance(id: usize, zone: &str, state: words::InstanceState, weight: u32) -> Arc<words::Instance> {
    Arc::new(words::Instance {
        service: "pump".to_owned(),
        instance_id: format!("pump-{id}"),
        addresses: vec![words::Address { host: format!("10.0.{}.{}", id / 256, id % 256), port: 7000 }],
        zone: zone.to_owned(),
        weight,
        state: state.into(),
        ..words::Instance::default()
    })
}

fn service(instances: Vec<Arc<words::Instance>>, policy: words::Policy) -> Service {
    Service::new(Name::new("pump", ""), instances, policy, false)
}

/// Zones, priorities and healths, as a client in `zone` sees them.
fn seen(service: &Service, zone: &str) -> Vec<(String, u32, Vec<i32>)> {
    let told = load_assignment(service, "", zone);
    told.endpoints
        .into_iter()
        .map(|one| {
            let healths = one.lb_endpoints.iter().map(|endpoint| endpoint.health_status).collect();
            (one.locality.unwrap().zone, one.priority, healths)
        })
        .collect()
}

#[test]
fn a_client_sees_its_own_zone_first_while_that_can_take_its_share() {
    use words::InstanceState::{Draining, Serving};
    let all = |own: words::InstanceState| {
        service(
            vec![instance(1, "east", Serving, 0), instance(2, "east", own, 0), instance(3, "west", Serving, 0)],
            words::Policy::default(),
        )
    };
    let priorities = |service: &Service, zone: &str| {
        seen(service, zone).into_iter().map(|(zone, priority, _)| (zone, priority)).collect::<Vec<_>>()
    };
    let zones = |east, west| vec![("east".to_owned(), east), ("west".to_owned(), west)];
    assert_eq!(priorities(&all(Serving), "east"), zones(0, 1));
    assert_eq!(priorities(&all(Serving), "west"), zones(1, 0));
    assert_eq!(priorities(&all(Serving), ""), zones(0, 0));
    assert_eq!(priorities(&all(Serving), "north"), zones(0, 0));
    assert_eq!(priorities(&all(Draining), "east"), zones(0, 0), "half of its capacity is less than 70 %");
}

#[test]
fn states_become_healths() {
    use words::InstanceState::{Draining, Serving, Starting, Suspect};
    let states = [Serving, Draining, Starting, Suspect];
    let instances = states.into_iter().enumerate().map(|(id, state)| instance(id, "", state, 0)).collect();
    let told = seen(&service(instances, words::Policy::default()), "");
    let healths = [
        core::HealthStatus::Healthy,
        core::HealthStatus::Draining,
        core::HealthStatus::Unhealthy,
        core::HealthStatus::Degraded,
    ];
    assert_eq!(told, [(String::new(), 0, healths.map(i32::from).to_vec())]);
}

#[test]
fn a_service_that_nobody_keeps_has_endpoints_that_are_none_rather_than_nothing() {
    let told = load_assignment(&service(Vec::new(), words::Policy::default()), "", "east");
    assert_eq!((told.cluster_name.as_str(), told.endpoints.len()), ("pump", 0));
    assert_eq!(validate::load_assignment(&told), []);
}

#[test]
fn limits_and_breakers_are_said_in_so_many_words() {
    let policy = words::Policy {
        limits: Some(words::Limits { in_flight_max: Some(7), ..words::Limits::default() }),
        breaker: Some(words::Breaker { failure_percent: Some(30), failures_in_a_row: Some(0), ..Default::default() }),
        ..words::Policy::default()
    };
    for audience in [Audience::Grpc, Audience::Envoy(None)] {
        let told = cluster(&service(Vec::new(), policy.clone()), &audience);
        assert_eq!(told.circuit_breakers.unwrap().thresholds[0].max_requests, Some(7));
        let outliers = told.outlier_detection.unwrap();
        assert_eq!(
            (outliers.failure_percentage_threshold, outliers.enforcing_failure_percentage),
            (Some(30), Some(100))
        );
        assert_eq!((outliers.enforcing_consecutive_5xx, outliers.enforcing_success_rate), (Some(0), Some(0)));
        let told = cluster(&service(Vec::new(), words::Policy::default()), &audience);
        assert_eq!(told.circuit_breakers.unwrap().thresholds[0].max_requests, Some(1024));
    }
}

#[test]
fn only_what_may_be_repeated_is() {
    let method = |name: &str, idempotent| words::MethodPolicy {
        method: name.to_owned(),
        idempotent,
        ..words::MethodPolicy::default()
    };
    let policy = words::Policy {
        methods: vec![method("a.v1.A/Get", Some(true)), method("a.v1.A/Put", Some(false)), method("a.v1.A", None)],
        ..words::Policy::default()
    };
    let told = routes("pump", &service(Vec::new(), policy.clone()));
    let seen: Vec<_> = told.virtual_hosts[0]
        .routes
        .iter()
        .map(|one| {
            let Some(route::route::Action::Route(action)) = &one.action else { panic!("a route leads somewhere") };
            (one.r#match.clone().unwrap().path_specifier.unwrap(), action.retry_policy.is_some())
        })
        .collect();
    use route::route_match::PathSpecifier::{Path, Prefix};
    let expected = [
        (Path("/a.v1.A/Put".to_owned()), false),
        (Path("/a.v1.A/Get".to_owned()), true),
        (Prefix("/a.v1.A/".to_owned()), false),
        (Prefix(String::new()), false),
    ];
    assert_eq!(seen, expected);
    let retry =
        Some(words::Retry { codes: vec!["UNAVAILABLE".to_owned(), "INTERNAL".to_owned()], ..Default::default() });
    let told = routes("pump", &service(Vec::new(), words::Policy { retry, ..policy }));
    let Some(route::route::Action::Route(action)) = &told.virtual_hosts[0].routes[3].action else { panic!() };
    let retry = action.retry_policy.clone().unwrap();
    assert_eq!((retry.retry_on.as_str(), retry.num_retries), ("internal,unavailable", Some(2)));
}

fn span() -> impl Strategy<Value = Option<prost_types::Duration>> {
    let one = (-5_i64..100_000, -10_i32..1_000_000_000);
    proptest::option::of(one.prop_map(|(seconds, nanos)| prost_types::Duration { seconds, nanos }))
}

fn any_policy() -> impl Strategy<Value = words::Policy> {
    let number = || proptest::option::of(0..=u32::MAX);
    let balancing =
        (0..6_i32, "[a-z-]{0,8}", number(), span()).prop_map(|(method, hash_header, spill_percent, slow_start)| {
            words::Balancing { method, hash_header, spill_percent, slow_start, ..Default::default() }
        });
    let breaker = (span(), number(), number(), number(), span(), span(), number()).prop_map(
        |(window, calls_min, failure_percent, failures_in_a_row, wait_min, wait_max, ejection_percent_max)| {
            words::Breaker {
                window,
                calls_min,
                failure_percent,
                failures_in_a_row,
                wait_min,
                wait_max,
                ejection_percent_max,
                ..Default::default()
            }
        },
    );
    let retry = (number(), number(), span(), span()).prop_map(|(attempts_max, budget_percent, wait_min, wait_max)| {
        words::Retry { attempts_max, budget_percent, wait_min, wait_max, ..Default::default() }
    });
    let timeouts =
        (span(), span()).prop_map(|(call_max, attempt)| words::Timeouts { call_max, attempt, ..Default::default() });
    use proptest::option::of;
    (of(balancing), of(breaker), of(retry), of(timeouts)).prop_map(|(balancing, breaker, retry, timeouts)| {
        words::Policy { balancing, breaker, retry, timeouts, ..Default::default() }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_policy_makes_what_a_client_would_refuse(policy in any_policy(), weights in proptest::collection::vec(0..1000_u32, 0..20)) {
        let states = [words::InstanceState::Serving, words::InstanceState::Suspect, words::InstanceState::Draining];
        let instances = weights.iter().enumerate().map(|(id, weight)| {
            instance(id, ["", "east", "west"][id % 3], states[id % 3], *weight)
        });
        let service = service(instances.collect(), policy);
        for audience in [Audience::Grpc, Audience::Envoy(None)] {
            prop_assert_eq!(validate::cluster(&cluster(&service, &audience)), vec![]);
        }
        for zone in ["", "east", "north"] {
            prop_assert_eq!(validate::load_assignment(&load_assignment(&service, "", zone)), vec![]);
        }
        prop_assert_eq!(validate::routes(&routes("pump", &service)), vec![]);
        prop_assert_eq!(validate::routes(&envoy_routes([&service].into_iter())), vec![]);
    }
}
