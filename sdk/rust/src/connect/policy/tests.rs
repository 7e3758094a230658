//! What a policy says of a method, in code and from afar.

use std::time::Duration;

use ninefold_proto::ninefold::registry::v1 as words;
use tonic::Code;

use super::{BalancingMethod, Codes, Idempotency, Live, MethodPolicy, Policy, Timeouts, violations};

const LIST: &str = "/shop.product.v1.ProductService/ListProducts";
const CREATE: &str = "/shop.product.v1.ProductService/CreateProduct";

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

fn call_after(method: &str, seconds: u64) -> MethodPolicy {
    let timeouts = Timeouts { call: Duration::from_secs(seconds), ..Timeouts::default() };
    MethodPolicy { method: method.to_owned(), timeouts: Some(timeouts), ..MethodPolicy::default() }
}

#[test]
fn reads_are_told_by_the_method_not_by_the_service() {
    assert!(Idempotency::Reads.allows("/shop.product.v1.ProductService/GetProduct"));
    assert!(!Idempotency::Reads.allows("/shop.product.v1.GetService/CreateProduct"));
    assert!(!Idempotency::Never.allows("/shop.product.v1.ProductService/GetProduct"));
    assert!(Idempotency::All.allows("/shop.product.v1.ProductService/CreateProduct"));
}

#[test]
fn the_longest_name_that_matches_holds() {
    let methods = vec![
        call_after("shop.product.v1.ProductService", 7),
        call_after("shop.product.v1.ProductService/ListProducts", 9),
        call_after("shop.product.v1.Product", 1),
    ];
    let policy = Policy { methods, ..Policy::default() };
    assert_eq!(policy.rules(LIST).timeouts.call, Duration::from_secs(9));
    assert_eq!(policy.rules(CREATE).timeouts.call, Duration::from_secs(7));
    assert_eq!(policy.rules("/shop.review.v1.ReviewService/ListReviews").timeouts.call, Duration::from_secs(5));
}

#[test]
fn what_central_configuration_says_holds_and_the_rest_is_as_in_code() {
    let mut base = Policy { idempotent: Idempotency::Never, ..Policy::default() };
    base.retry.attempts_max = 7;
    base.timeouts.ready = Duration::from_secs(1);
    let central = words::Policy {
        revision: 12,
        retry: Some(words::Retry { codes: vec!["ABORTED".to_owned()], ..words::Retry::default() }),
        timeouts: Some(words::Timeouts { call: seconds(2), ..words::Timeouts::default() }),
        methods: vec![words::MethodPolicy {
            method: "shop.product.v1.ProductService/CreateProduct".to_owned(),
            idempotent: Some(true),
            ..words::MethodPolicy::default()
        }],
        ..words::Policy::default()
    };
    assert_eq!(violations(&central), []);
    let policy = base.overlaid(&central);
    assert_eq!((policy.revision, policy.retry.attempts_max), (12, 7));
    assert_eq!(policy.retry.codes, Codes::from_iter([Code::Aborted]));
    assert_eq!((policy.timeouts.call, policy.timeouts.ready), (Duration::from_secs(2), Duration::from_secs(1)));
    assert!(policy.rules(CREATE).is_idempotent && !policy.rules(LIST).is_idempotent);
}

#[test]
fn a_policy_survives_the_wire() {
    let mut policy = Policy { revision: 3, ..Policy::default() };
    policy.balancing.method = BalancingMethod::RingHash;
    policy.balancing.hash_header = "x-user".to_owned();
    policy.breaker.slow_call = Some(Duration::from_millis(1500));
    policy.hedging.attempts_max = 2;
    policy.limits.in_flight_max = Some(5);
    policy.methods = vec![call_after("shop.product.v1.ProductService", 7)];
    let words = policy.to_words("product");
    assert_eq!(violations(&words), []);
    assert_eq!(Policy::default().overlaid(&words), policy);
}

#[test]
fn what_is_out_of_range_is_told_and_read_as_the_nearest() {
    let breaker = words::Breaker {
        window: seconds(-1),
        failure_percent: Some(101),
        wait_min: seconds(9),
        wait_max: seconds(3),
        ..words::Breaker::default()
    };
    let method = words::MethodPolicy {
        method: "/a/b".to_owned(),
        limits: Some(words::Limits { in_flight_max: Some(0), ..words::Limits::default() }),
        ..words::MethodPolicy::default()
    };
    let central = words::Policy {
        balancing: Some(words::Balancing { method: 99, ..words::Balancing::default() }),
        breaker: Some(breaker),
        retry: Some(words::Retry { codes: vec!["OOPS".to_owned()], ..words::Retry::default() }),
        timeouts: Some(words::Timeouts { call: seconds(i64::MAX), ..words::Timeouts::default() }),
        methods: vec![method],
        ..words::Policy::default()
    };
    let fields: Vec<String> = violations(&central).into_iter().map(|violation| violation.field).collect();
    assert_eq!(
        fields,
        [
            "balancing.method",
            "breaker.wait_max",
            "breaker.window",
            "breaker.failure_percent",
            "retry.codes",
            "timeouts.call",
            "methods[0].method",
            "methods[0].limits.in_flight_max",
        ]
    );
    let policy = Policy::default().overlaid(&central);
    assert_eq!(policy.breaker.window, Duration::from_millis(100));
    assert_eq!(policy.breaker.wait_max, Duration::from_secs(9));
    assert_eq!(policy.timeouts.call, Duration::from_secs(24 * 3600));
    assert_eq!(policy.methods[0].limits.as_ref().and_then(|limits| limits.in_flight_max), Some(1));
}

#[test]
fn a_policy_follows_central_configuration_and_falls_back_to_the_code() {
    let live = Live::new(Policy::default(), None);
    let before = live.now().clone();
    assert!(!live.take(None));
    assert!(std::sync::Arc::ptr_eq(&before, &live.now()), "nothing changed");
    let hedging = words::Hedging { attempts_max: Some(2), delay: None };
    assert!(live.take(Some(&words::Policy { hedging: Some(hedging), ..words::Policy::default() })));
    assert_eq!(live.now().hedging.attempts_max, 2);
    assert!(live.take(None));
    assert_eq!(**live.now(), *live.base());
}
