//! What a policy comes to where it says nothing: the defaults that the contract names.

use std::time::Duration;

use ninefold_proto::ninefold::registry::v1 as proto;

/// Fills in the defaults. What is off by default stays absent: slow calls, hedging, the longest deadline, a limit of its
/// own for each attempt.
pub(crate) fn effective(policy: &proto::Policy) -> proto::Policy {
    let part = policy.clone();
    proto::Policy {
        balancing: Some(balancing(part.balancing.unwrap_or_default())),
        breaker: Some(breaker(part.breaker.unwrap_or_default())),
        retry: Some(retry(part.retry.unwrap_or_default())),
        hedging: Some(part.hedging.unwrap_or_default()),
        timeouts: Some(timeouts(part.timeouts.unwrap_or_default())),
        limits: Some(limits(part.limits.unwrap_or_default())),
        admission: Some(admission(part.admission.unwrap_or_default())),
        methods: part.methods.into_iter().map(method).collect(),
        ..part
    }
}

fn method(method: proto::MethodPolicy) -> proto::MethodPolicy {
    proto::MethodPolicy {
        breaker: method.breaker.map(breaker),
        retry: method.retry.map(retry),
        timeouts: method.timeouts.map(timeouts),
        limits: method.limits.map(limits),
        ..method
    }
}

fn millis(millis: u64) -> Option<prost_types::Duration> {
    Duration::from_millis(millis).try_into().ok()
}

fn balancing(part: proto::Balancing) -> proto::Balancing {
    let method = match part.method() {
        proto::BalancingMethod::Unspecified => proto::BalancingMethod::PeakEwma,
        chosen => chosen,
    };
    proto::Balancing {
        method: method.into(),
        zone_aware: part.zone_aware.or(Some(true)),
        spill_percent: part.spill_percent.or(Some(70)),
        subset_size: part.subset_size.or(Some(0)),
        slow_start: part.slow_start.or(millis(10_000)),
        panic_percent: part.panic_percent.or(Some(50)),
        ..part
    }
}

fn breaker(part: proto::Breaker) -> proto::Breaker {
    proto::Breaker {
        window: part.window.or(millis(10_000)),
        calls_min: part.calls_min.or(Some(20)),
        failure_percent: part.failure_percent.or(Some(50)),
        failures_in_a_row: part.failures_in_a_row.or(Some(5)),
        slow_percent: part.slow_percent.or(Some(80)),
        slow_calls_in_a_row: part.slow_calls_in_a_row.or(Some(3)),
        wait_min: part.wait_min.or(millis(1000)),
        wait_max: part.wait_max.or(millis(60_000)),
        trials: part.trials.or(Some(3)),
        ejection_percent_max: part.ejection_percent_max.or(Some(50)),
        ..part
    }
}

fn retry(part: proto::Retry) -> proto::Retry {
    let codes = if part.codes.is_empty() { vec!["UNAVAILABLE".to_owned()] } else { part.codes };
    proto::Retry {
        attempts_max: part.attempts_max.or(Some(3)),
        budget_percent: part.budget_percent.or(Some(20)),
        budget_per_second: part.budget_per_second.or(Some(10)),
        wait_min: part.wait_min.or(millis(10)),
        wait_max: part.wait_max.or(millis(250)),
        codes,
    }
}

fn timeouts(part: proto::Timeouts) -> proto::Timeouts {
    proto::Timeouts { call: part.call.or(millis(5000)), ready: part.ready.or(millis(3000)), ..part }
}

fn limits(part: proto::Limits) -> proto::Limits {
    let in_flight_max = part.in_flight_max.or(Some(1024));
    proto::Limits {
        in_flight_max,
        waiting_max: part.waiting_max.or(in_flight_max),
        throttling: part.throttling.or(Some(true)),
        ..part
    }
}

fn admission(part: proto::Admission) -> proto::Admission {
    proto::Admission {
        queue_wait_max: part.queue_wait_max.or(millis(20)),
        queue_max: part.queue_max.or(Some(64)),
        ..part
    }
}
