//! What a document of a policy may say.

use super::*;

fn service() -> ServiceName {
    ServiceName::parse("pump").unwrap()
}

fn paths(content: &str) -> Vec<String> {
    match read(&service(), 1, content) {
        Ok(policy) => panic!("{policy:?} was read"),
        Err(Error::PolicyInvalid(found)) => found.into_iter().map(|one| one.field).collect(),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn both_ways_to_write_a_name_and_human_durations_are_read() {
    let snake = read(&service(), 3, r#"{"breaker": {"failure_percent": 30, "window": "5s", "wait_min": "250ms"}}"#);
    let camel = read(&service(), 3, r#"{"breaker": {"failurePercent": 30, "window": "5.000s", "waitMin": "0.250s"}}"#);
    let snake = snake.unwrap();
    assert_eq!(snake, camel.unwrap());
    let breaker = snake.breaker.unwrap();
    assert_eq!((breaker.failure_percent, breaker.window.unwrap().seconds), (Some(30), 5));
    assert_eq!(breaker.wait_min.unwrap().nanos, 250_000_000);
    assert_eq!((snake.revision, snake.service.as_str()), (3, "pump"));
}

#[test]
fn everything_that_is_wrong_is_told_with_its_path() {
    let content = r#"{
        "breaker": {"failure_percent": 130, "window": 5, "colour": "red", "waitMin": "2s", "wait_max": "1s"},
        "retry": {"codes": ["UNAVAILABLE", "SOON"], "attempts_max": 0},
        "balancing": {"method": "ring_hash"},
        "methods": [{"method": "a b"}, {"timeouts": {"call": "soon"}}],
        "limits": [],
        "lunch": true
    }"#;
    let mut found = paths(content);
    found.sort();
    assert_eq!(
        found,
        [
            "balancing.hash_header",
            "breaker.colour",
            "breaker.failure_percent",
            "breaker.wait_min",
            "breaker.window",
            "limits",
            "lunch",
            "methods[0].method",
            "methods[1].method",
            "methods[1].timeouts.call",
            "retry.attempts_max",
            "retry.codes[1]",
        ]
    );
    assert_eq!(paths("[]"), ["content"]);
    assert_eq!(paths("{"), ["content"]);
    let twice = r#"{"methods": [{"method": "a.B/C"}, {"method": "a.B/C"}]}"#;
    assert_eq!(paths(twice), ["methods"]);
}

#[test]
fn a_document_that_says_nothing_is_no_policy() {
    assert_eq!(parse(&service(), 1, "{}").unwrap(), None);
    assert!(parse(&service(), 1, r#"{"hedging": {}}"#).unwrap().is_some());
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let policy = read(&service(), 1, r#"{"limits": {"in_flight_max": 7}, "methods": [{"method": "a.B"}]}"#).unwrap();
    let effective = effective(&policy);
    assert_eq!(effective.limits.unwrap().waiting_max, Some(7));
    assert_eq!(effective.breaker.unwrap().calls_min, Some(20));
    assert_eq!(effective.retry.unwrap().codes, ["UNAVAILABLE"]);
    assert_eq!(effective.methods[0].breaker, None, "a method without a part of its own has the service's");
}
