//! The registry's words on policies, both ways: the only place that knows them, their ranges and what absence means.

use std::ops::RangeInclusive;
use std::time::Duration;

use ninefold_proto::ninefold::registry::v1 as words;
use tonic::Code;

use crate::connect::breaker;
use crate::connect::policy::{
    Admission, Balancing, BalancingMethod, Hedging, Limits, MethodPolicy, Policy, Retry, Timeouts,
};
use crate::fault::Violation;

const MILLISECOND: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Most calls that any limit may name.
const CALLS_MAX: u32 = 1_000_000;
/// Most methods that a policy may name.
const METHODS_MAX: usize = 256;

/// What is wrong with a policy, by its fields. Whoever writes one down refuses it then; whoever is told one takes the
/// nearest value that is legal, because a landscape must outlive a word that only its newest part understands.
pub fn violations(policy: &words::Policy) -> Vec<Violation> {
    let mut reader = Reader::default();
    reader.policy(&Policy::default(), policy);
    reader.violations
}

impl Policy {
    /// This policy, as central configuration changes it: what `central` says holds, and what it leaves out is as here.
    /// Values out of range become the nearest that are legal; see [`violations`].
    #[must_use]
    pub fn overlaid(&self, central: &words::Policy) -> Self {
        Reader::default().policy(self, central)
    }

    /// The policy in the registry's words, with nothing left out.
    pub fn to_words(&self, service: &str) -> words::Policy {
        words::Policy {
            service: service.to_owned(),
            revision: self.revision,
            balancing: Some((&self.balancing).into()),
            breaker: Some((&self.breaker).into()),
            retry: Some((&self.retry).into()),
            hedging: Some((&self.hedging).into()),
            timeouts: Some((&self.timeouts).into()),
            limits: Some((&self.limits).into()),
            admission: Some((&self.admission).into()),
            methods: self.methods.iter().map(Into::into).collect(),
        }
    }
}

impl From<&words::Admission> for Admission {
    fn from(words: &words::Admission) -> Self {
        Reader::default().admission(&Self::default(), words)
    }
}

/// Reads words, and notes what is wrong with them.
#[derive(Default)]
struct Reader {
    /// Path to what is read, such as `methods[2].`.
    at: String,
    violations: Vec<Violation>,
}

impl Reader {
    fn policy(&mut self, base: &Policy, words: &words::Policy) -> Policy {
        let mut policy = base.clone();
        policy.revision = words.revision;
        if let Some(balancing) = &words.balancing {
            policy.balancing = self.balancing(&base.balancing, balancing);
        }
        if let Some(breaker) = &words.breaker {
            policy.breaker = self.breaker(&base.breaker, breaker);
        }
        if let Some(retry) = &words.retry {
            policy.retry = self.retry(&base.retry, retry);
        }
        if let Some(hedging) = &words.hedging {
            policy.hedging = self.hedging(&base.hedging, hedging);
        }
        if let Some(timeouts) = &words.timeouts {
            policy.timeouts = self.timeouts(&base.timeouts, timeouts);
        }
        if let Some(limits) = &words.limits {
            policy.limits = self.limits(&base.limits, limits);
        }
        if let Some(admission) = &words.admission {
            policy.admission = self.admission(&base.admission, admission);
        }
        if words.methods.len() > METHODS_MAX {
            self.wrong("methods", format!("must be at most {METHODS_MAX}"));
        }
        for (index, method) in words.methods.iter().take(METHODS_MAX).enumerate() {
            self.at = format!("methods[{index}].");
            let own = self.method(base, method);
            match policy.methods.iter_mut().find(|known| known.method == own.method) {
                Some(known) => overlay(known, own),
                None => policy.methods.push(own),
            }
        }
        self.at.clear();
        policy
    }

    fn method(&mut self, base: &Policy, words: &words::MethodPolicy) -> MethodPolicy {
        let is_name = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || "._".contains(c));
        let parts: Vec<&str> = words.method.split('/').collect();
        if parts.len() > 2 || !parts.iter().all(|part| is_name(part)) {
            self.wrong("method", "must be a full name such as shop.product.v1.ProductService/GetProduct".to_owned());
        }
        MethodPolicy {
            method: words.method.clone(),
            breaker: words.breaker.as_ref().map(|words| self.breaker(&base.breaker, words)),
            retry: words.retry.as_ref().map(|words| self.retry(&base.retry, words)),
            hedging: words.hedging.as_ref().map(|words| self.hedging(&base.hedging, words)),
            timeouts: words.timeouts.as_ref().map(|words| self.timeouts(&base.timeouts, words)),
            limits: words.limits.as_ref().map(|words| self.limits(&Limits::default(), words)),
            is_idempotent: words.idempotent,
        }
    }

    fn balancing(&mut self, base: &Balancing, words: &words::Balancing) -> Balancing {
        let method = match words::BalancingMethod::try_from(words.method) {
            Ok(words::BalancingMethod::Unspecified) => base.method,
            Ok(words::BalancingMethod::PeakEwma) => BalancingMethod::PeakEwma,
            Ok(words::BalancingMethod::RoundRobin) => BalancingMethod::RoundRobin,
            Ok(words::BalancingMethod::WeightedRoundRobin) => BalancingMethod::WeightedRoundRobin,
            Ok(words::BalancingMethod::LeastRequest) => BalancingMethod::LeastRequest,
            Ok(words::BalancingMethod::RingHash) => BalancingMethod::RingHash,
            Err(_) => {
                self.wrong("balancing.method", format!("must be one of the known methods, not {}", words.method));
                base.method
            }
        };
        let hash_header = if words.hash_header.is_empty() { &base.hash_header } else { &words.hash_header };
        let hash_header = hash_header.to_ascii_lowercase();
        if method == BalancingMethod::RingHash && hash_header.parse::<http::HeaderName>().is_err() {
            self.wrong("balancing.hash_header", "must be the name of a header, for RING_HASH".to_owned());
        }
        Balancing {
            method,
            hash_header,
            is_zone_aware: words.zone_aware.unwrap_or(base.is_zone_aware),
            spill_percent: self.number("balancing.spill_percent", words.spill_percent, base.spill_percent, 0..=100),
            subset_size: self.number("balancing.subset_size", words.subset_size, base.subset_size, 0..=CALLS_MAX),
            slow_start: self.time(
                "balancing.slow_start",
                words.slow_start.as_ref(),
                base.slow_start,
                Duration::ZERO..=10 * MINUTE,
            ),
            panic_percent: self.number("balancing.panic_percent", words.panic_percent, base.panic_percent, 0..=100),
        }
    }

    fn breaker(&mut self, base: &breaker::Policy, words: &words::Breaker) -> breaker::Policy {
        let wait = 10 * MILLISECOND..=HOUR;
        let wait_min = self.time("breaker.wait_min", words.wait_min.as_ref(), base.wait_min, wait.clone());
        let wait_max = self.time("breaker.wait_max", words.wait_max.as_ref(), base.wait_max.max(wait_min), wait);
        if wait_max < wait_min {
            self.wrong("breaker.wait_max", "must be no less than wait_min".to_owned());
        }
        breaker::Policy {
            window: self.time("breaker.window", words.window.as_ref(), base.window, 100 * MILLISECOND..=MINUTE),
            calls_min: self.number("breaker.calls_min", words.calls_min, base.calls_min, 1..=100_000),
            failure_percent: self.number(
                "breaker.failure_percent",
                words.failure_percent,
                base.failure_percent,
                0..=100,
            ),
            failures_in_a_row: self.number(
                "breaker.failures_in_a_row",
                words.failures_in_a_row,
                base.failures_in_a_row,
                0..=1000,
            ),
            slow_call: self.time_or("breaker.slow_call", words.slow_call.as_ref(), base.slow_call, MILLISECOND..=HOUR),
            slow_calls_in_a_row: self.number(
                "breaker.slow_calls_in_a_row",
                words.slow_calls_in_a_row,
                base.slow_calls_in_a_row,
                0..=1000,
            ),
            slow_percent: self.number("breaker.slow_percent", words.slow_percent, base.slow_percent, 1..=100),
            wait_min,
            wait_max: wait_max.max(wait_min),
            trials: self.number("breaker.trials", words.trials, base.trials, 1..=100),
            ejection_percent_max: self.number(
                "breaker.ejection_percent_max",
                words.ejection_percent_max,
                base.ejection_percent_max,
                0..=100,
            ),
            is_disabled: words.disabled || base.is_disabled,
        }
    }

    fn retry(&mut self, base: &Retry, words: &words::Retry) -> Retry {
        let wait = Duration::ZERO..=MINUTE;
        let wait_min = self.time("retry.wait_min", words.wait_min.as_ref(), base.wait_min, wait.clone());
        let wait_max = self.time("retry.wait_max", words.wait_max.as_ref(), base.wait_max.max(wait_min), wait);
        if wait_max < wait_min {
            self.wrong("retry.wait_max", "must be no less than wait_min".to_owned());
        }
        let codes: Vec<Code> = words.codes.iter().filter_map(|name| code(name)).collect();
        if codes.len() < words.codes.len() {
            self.wrong("retry.codes", "must be names of gRPC status codes such as UNAVAILABLE".to_owned());
        }
        let per_second = (words.budget_per_second, base.budget_per_second);
        Retry {
            attempts_max: self.number("retry.attempts_max", words.attempts_max, base.attempts_max, 1..=10),
            budget_percent: self.number("retry.budget_percent", words.budget_percent, base.budget_percent, 0..=100),
            budget_per_second: self.number("retry.budget_per_second", per_second.0, per_second.1, 0..=10_000),
            wait_min,
            wait_max: wait_max.max(wait_min),
            codes: if codes.is_empty() { base.codes } else { codes.into_iter().collect() },
        }
    }

    fn hedging(&mut self, base: &Hedging, words: &words::Hedging) -> Hedging {
        Hedging {
            attempts_max: self.number("hedging.attempts_max", words.attempts_max, base.attempts_max, 0..=10),
            delay: self.time_or("hedging.delay", words.delay.as_ref(), base.delay, Duration::ZERO..=MINUTE),
        }
    }

    fn timeouts(&mut self, base: &Timeouts, words: &words::Timeouts) -> Timeouts {
        let any = MILLISECOND..=DAY;
        Timeouts {
            call: self.time("timeouts.call", words.call.as_ref(), base.call, any.clone()),
            call_max: self.time_or("timeouts.call_max", words.call_max.as_ref(), base.call_max, any.clone()),
            attempt: self.time_or("timeouts.attempt", words.attempt.as_ref(), base.attempt, any),
            ready: self.time("timeouts.ready", words.ready.as_ref(), base.ready, Duration::ZERO..=5 * MINUTE),
        }
    }

    fn limits(&mut self, base: &Limits, words: &words::Limits) -> Limits {
        Limits {
            in_flight_max: self.number_or("limits.in_flight_max", words.in_flight_max, base.in_flight_max, 1),
            waiting_max: self.number_or("limits.waiting_max", words.waiting_max, base.waiting_max, 0),
            is_adaptive: words.adaptive || base.is_adaptive,
            is_throttled: words.throttling.unwrap_or(base.is_throttled),
        }
    }

    fn admission(&mut self, base: &Admission, words: &words::Admission) -> Admission {
        let wait = Duration::ZERO..=10 * Duration::from_secs(1);
        Admission {
            in_flight_max: self.number_or("admission.in_flight_max", words.in_flight_max, base.in_flight_max, 1),
            queue_wait_max: self.time(
                "admission.queue_wait_max",
                words.queue_wait_max.as_ref(),
                base.queue_wait_max,
                wait,
            ),
            queue_max: self.number("admission.queue_max", words.queue_max, base.queue_max, 0..=CALLS_MAX),
            is_disabled: words.disabled || base.is_disabled,
        }
    }

    fn number(&mut self, field: &str, said: Option<u32>, base: u32, range: RangeInclusive<u32>) -> u32 {
        let Some(said) = said else { return base };
        if !range.contains(&said) {
            self.wrong(field, format!("must be from {} to {}, not {said}", range.start(), range.end()));
        }
        said.clamp(*range.start(), *range.end())
    }

    fn number_or(&mut self, field: &str, said: Option<u32>, base: Option<u32>, least: u32) -> Option<u32> {
        said.map_or(base, |said| Some(self.number(field, Some(said), said, least..=CALLS_MAX)))
    }

    fn time(
        &mut self,
        field: &str,
        said: Option<&prost_types::Duration>,
        base: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        let Some(said) = said else { return base };
        let (least, most) = (*range.start(), *range.end());
        let time = Duration::try_from(*said).unwrap_or(if said.seconds < 0 { Duration::ZERO } else { most });
        let is_negative = said.seconds < 0 || said.nanos < 0;
        if is_negative || !range.contains(&time) {
            self.wrong(field, format!("must be from {least:?} to {most:?}"));
        }
        time.clamp(least, most)
    }

    fn time_or(
        &mut self,
        field: &str,
        said: Option<&prost_types::Duration>,
        base: Option<Duration>,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        said.map_or(base, |said| Some(self.time(field, Some(said), Duration::ZERO, range)))
    }

    fn wrong(&mut self, field: &str, description: String) {
        self.violations.push(Violation::new(format!("{}{field}", self.at), description));
    }
}

/// What central configuration says of a method holds; what it leaves out is as the code has it.
fn overlay(known: &mut MethodPolicy, own: MethodPolicy) {
    known.breaker = own.breaker.or(known.breaker.take());
    known.retry = own.retry.or(known.retry.take());
    known.hedging = own.hedging.or(known.hedging.take());
    known.timeouts = own.timeouts.or(known.timeouts.take());
    known.limits = own.limits.or(known.limits.take());
    known.is_idempotent = own.is_idempotent.or(known.is_idempotent);
}

const CODES: [(Code, &str); 17] = [
    (Code::Ok, "OK"),
    (Code::Cancelled, "CANCELLED"),
    (Code::Unknown, "UNKNOWN"),
    (Code::InvalidArgument, "INVALID_ARGUMENT"),
    (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
    (Code::NotFound, "NOT_FOUND"),
    (Code::AlreadyExists, "ALREADY_EXISTS"),
    (Code::PermissionDenied, "PERMISSION_DENIED"),
    (Code::ResourceExhausted, "RESOURCE_EXHAUSTED"),
    (Code::FailedPrecondition, "FAILED_PRECONDITION"),
    (Code::Aborted, "ABORTED"),
    (Code::OutOfRange, "OUT_OF_RANGE"),
    (Code::Unimplemented, "UNIMPLEMENTED"),
    (Code::Internal, "INTERNAL"),
    (Code::Unavailable, "UNAVAILABLE"),
    (Code::DataLoss, "DATA_LOSS"),
    (Code::Unauthenticated, "UNAUTHENTICATED"),
];

fn code(name: &str) -> Option<Code> {
    CODES.into_iter().find(|(_, known)| *known == name).map(|(code, _)| code)
}

fn name(code: Code) -> String {
    CODES.into_iter().find(|(known, _)| *known == code).map_or_else(String::new, |(_, name)| name.to_owned())
}

fn time(time: Duration) -> Option<prost_types::Duration> {
    // What a range allows, a message can hold.
    prost_types::Duration::try_from(time).ok()
}

impl From<&Balancing> for words::Balancing {
    fn from(balancing: &Balancing) -> Self {
        let method = match balancing.method {
            BalancingMethod::PeakEwma => words::BalancingMethod::PeakEwma,
            BalancingMethod::RoundRobin => words::BalancingMethod::RoundRobin,
            BalancingMethod::WeightedRoundRobin => words::BalancingMethod::WeightedRoundRobin,
            BalancingMethod::LeastRequest => words::BalancingMethod::LeastRequest,
            BalancingMethod::RingHash => words::BalancingMethod::RingHash,
        };
        Self {
            method: method.into(),
            hash_header: balancing.hash_header.clone(),
            zone_aware: Some(balancing.is_zone_aware),
            spill_percent: Some(balancing.spill_percent),
            subset_size: Some(balancing.subset_size),
            slow_start: time(balancing.slow_start),
            panic_percent: Some(balancing.panic_percent),
        }
    }
}

impl From<&breaker::Policy> for words::Breaker {
    fn from(breaker: &breaker::Policy) -> Self {
        Self {
            window: time(breaker.window),
            calls_min: Some(breaker.calls_min),
            failure_percent: Some(breaker.failure_percent),
            failures_in_a_row: Some(breaker.failures_in_a_row),
            slow_call: breaker.slow_call.and_then(time),
            slow_calls_in_a_row: Some(breaker.slow_calls_in_a_row),
            slow_percent: Some(breaker.slow_percent),
            wait_min: time(breaker.wait_min),
            wait_max: time(breaker.wait_max),
            trials: Some(breaker.trials),
            ejection_percent_max: Some(breaker.ejection_percent_max),
            disabled: breaker.is_disabled,
        }
    }
}

impl From<&Retry> for words::Retry {
    fn from(retry: &Retry) -> Self {
        Self {
            attempts_max: Some(retry.attempts_max),
            budget_percent: Some(retry.budget_percent),
            budget_per_second: Some(retry.budget_per_second),
            wait_min: time(retry.wait_min),
            wait_max: time(retry.wait_max),
            codes: retry.codes.iter().map(name).collect(),
        }
    }
}

impl From<&Hedging> for words::Hedging {
    fn from(hedging: &Hedging) -> Self {
        Self { attempts_max: Some(hedging.attempts_max), delay: hedging.delay.and_then(time) }
    }
}

impl From<&Timeouts> for words::Timeouts {
    fn from(timeouts: &Timeouts) -> Self {
        Self {
            call: time(timeouts.call),
            call_max: timeouts.call_max.and_then(time),
            attempt: timeouts.attempt.and_then(time),
            ready: time(timeouts.ready),
        }
    }
}

impl From<&Limits> for words::Limits {
    fn from(limits: &Limits) -> Self {
        Self {
            in_flight_max: limits.in_flight_max,
            waiting_max: limits.waiting_max,
            adaptive: limits.is_adaptive,
            throttling: Some(limits.is_throttled),
        }
    }
}

impl From<&Admission> for words::Admission {
    fn from(admission: &Admission) -> Self {
        Self {
            in_flight_max: admission.in_flight_max,
            queue_wait_max: time(admission.queue_wait_max),
            queue_max: Some(admission.queue_max),
            disabled: admission.is_disabled,
        }
    }
}

impl From<&MethodPolicy> for words::MethodPolicy {
    fn from(method: &MethodPolicy) -> Self {
        Self {
            method: method.method.clone(),
            breaker: method.breaker.as_ref().map(Into::into),
            retry: method.retry.as_ref().map(Into::into),
            hedging: method.hedging.as_ref().map(Into::into),
            timeouts: method.timeouts.as_ref().map(Into::into),
            limits: method.limits.as_ref().map(Into::into),
            idempotent: method.is_idempotent,
        }
    }
}
