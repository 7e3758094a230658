//! How a policy is read from its document: everything that is wrong is told at once, with its path.

mod defaults;
mod part;

use std::time::Duration;

use bytes::Bytes;
use ninefold::fault::Violation;
use ninefold_proto::ninefold::registry::v1 as proto;
use prost::Message as _;
use serde_json::Value;

pub(crate) use defaults::effective;
use part::{Part, Wrong};

use super::register;
use crate::error::Error;
use crate::model::{Policy, ServiceName};

/// Most methods that one policy speaks of.
const METHODS_MAX: usize = 128;
/// Largest document of a policy, in bytes.
const CONTENT_BYTES_MAX: usize = 64 * 1024;
/// Longest name of a method or of a Protobuf service, in characters.
const METHOD_CHARS_MAX: usize = 255;
/// Longest name of a header, in characters.
const HEADER_CHARS_MAX: usize = 64;

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Reads the content of a document. `None` if it says nothing: the service has no policy of its own then.
///
/// Names may be written as in the contract or in lower camel case, durations as "250ms", "5s" or "1m".
///
/// # Errors
/// [`Error::PolicyInvalid`] with everything that is wrong.
pub(crate) fn parse(service: &ServiceName, revision: i64, content: &str) -> Result<Option<Policy>, Error> {
    let policy = read(service, revision, content)?;
    let says_nothing = policy == proto::Policy { service: service.to_string(), revision, ..proto::Policy::default() };
    let encoded = Bytes::from(policy.encode_to_vec());
    Ok((!says_nothing).then(|| Policy { service: service.clone(), revision, encoded }))
}

/// As [`parse`], as the contract's message.
pub(crate) fn read(service: &ServiceName, revision: i64, content: &str) -> Result<proto::Policy, Error> {
    let refuse = |description: String| Error::PolicyInvalid(vec![Violation::new("content", description)]);
    if content.len() > CONTENT_BYTES_MAX {
        return Err(refuse(format!("has {} bytes, at most {CONTENT_BYTES_MAX}", content.len())));
    }
    let value: Value = serde_json::from_str(content).map_err(|error| refuse(format!("must be JSON: {error}")))?;
    let mut wrong = Wrong::default();
    let mut whole = Part::new("", value, &mut wrong);
    let policy = proto::Policy {
        service: service.to_string(),
        revision,
        balancing: whole.part("balancing", &mut wrong, balancing),
        breaker: whole.part("breaker", &mut wrong, breaker),
        retry: whole.part("retry", &mut wrong, retry),
        hedging: whole.part("hedging", &mut wrong, hedging),
        timeouts: whole.part("timeouts", &mut wrong, timeouts),
        limits: whole.part("limits", &mut wrong, limits),
        admission: whole.part("admission", &mut wrong, admission),
        methods: whole.list("methods", METHODS_MAX, &mut wrong, method),
    };
    whole.end(&mut wrong);
    let named = policy.methods.iter().map(|method| method.method.as_str());
    // Those that cannot be read were told already.
    let mut names: Vec<&str> = named.filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        wrong.push("methods", format!("speak of {:?} twice", twice[0]));
    }
    wrong.none().map_err(Error::PolicyInvalid)?;
    Ok(policy)
}

/// Says that a name can be no service's.
pub(crate) fn no_service() -> Error {
    Error::PolicyInvalid(vec![Violation::new("service", register::SERVICE_NAME_RULE)])
}

/// Tells a policy that was read before.
pub(crate) fn to_policy(policy: &Policy) -> proto::Policy {
    proto::Policy::decode(policy.encoded.clone()).expect("the registry wrote it")
}

fn balancing(part: &mut Part, wrong: &mut Wrong) -> proto::Balancing {
    let balancing = proto::Balancing {
        method: part.word("method", wrong, |word| {
            let name = word.to_ascii_uppercase().replace('-', "_");
            let name = name.strip_prefix("BALANCING_METHOD_").unwrap_or(&name).to_owned();
            match proto::BalancingMethod::from_str_name(&format!("BALANCING_METHOD_{name}")) {
                Some(method) if method != proto::BalancingMethod::Unspecified => Ok(method.into()),
                Some(_) | None => {
                    Err("must be PEAK_EWMA, ROUND_ROBIN, WEIGHTED_ROUND_ROBIN, LEAST_REQUEST or RING_HASH".to_owned())
                }
            }
        }),
        hash_header: part.word("hash_header", wrong, |word| {
            let is_legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
            if (1..=HEADER_CHARS_MAX).contains(&word.len()) && word.bytes().all(is_legal) {
                Ok(word.to_owned())
            } else {
                Err("must be the lowercase name of a header".to_owned())
            }
        }),
        zone_aware: part.flag("zone_aware", wrong),
        spill_percent: part.count("spill_percent", 1..=100, wrong),
        subset_size: part.count("subset_size", 0..=10_000, wrong),
        slow_start: part.duration("slow_start", Duration::ZERO..=10 * MINUTE, wrong),
        panic_percent: part.count("panic_percent", 0..=100, wrong),
    };
    if balancing.method() == proto::BalancingMethod::RingHash && balancing.hash_header.is_empty() {
        part.refuse("hash_header", "is needed for RING_HASH".to_owned(), wrong);
    }
    balancing
}

fn breaker(part: &mut Part, wrong: &mut Wrong) -> proto::Breaker {
    let breaker = proto::Breaker {
        window: part.duration("window", 100 * MILLI..=MINUTE, wrong),
        calls_min: part.count("calls_min", 1..=1_000_000, wrong),
        failure_percent: part.count("failure_percent", 0..=100, wrong),
        failures_in_a_row: part.count("failures_in_a_row", 0..=10_000, wrong),
        slow_call: part.duration("slow_call", MILLI..=10 * MINUTE, wrong),
        slow_percent: part.count("slow_percent", 1..=100, wrong),
        slow_calls_in_a_row: part.count("slow_calls_in_a_row", 0..=10_000, wrong),
        wait_min: part.duration("wait_min", 10 * MILLI..=10 * MINUTE, wrong),
        wait_max: part.duration("wait_max", 10 * MILLI..=HOUR, wrong),
        trials: part.count("trials", 1..=100, wrong),
        ejection_percent_max: part.count("ejection_percent_max", 0..=100, wrong),
        disabled: part.flag("disabled", wrong).unwrap_or_default(),
    };
    part.in_order("wait_min", &breaker.wait_min, "wait_max", &breaker.wait_max, wrong);
    breaker
}

fn retry(part: &mut Part, wrong: &mut Wrong) -> proto::Retry {
    let retry = proto::Retry {
        attempts_max: part.count("attempts_max", 1..=10, wrong),
        budget_percent: part.count("budget_percent", 0..=100, wrong),
        budget_per_second: part.count("budget_per_second", 0..=10_000, wrong),
        wait_min: part.duration("wait_min", Duration::ZERO..=10 * SECOND, wrong),
        wait_max: part.duration("wait_max", MILLI..=MINUTE, wrong),
        codes: part.words("codes", 16, wrong, |word| {
            let name = word.to_ascii_uppercase();
            if CODES.contains(&name.as_str()) { Ok(name) } else { Err(format!("must be one of {}", CODES.join(", "))) }
        }),
    };
    part.in_order("wait_min", &retry.wait_min, "wait_max", &retry.wait_max, wrong);
    retry
}

/// Status codes that a call can fail with.
const CODES: [&str; 16] = [
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

fn hedging(part: &mut Part, wrong: &mut Wrong) -> proto::Hedging {
    proto::Hedging {
        attempts_max: part.count("attempts_max", 1..=5, wrong),
        delay: part.duration("delay", MILLI..=MINUTE, wrong),
    }
}

fn timeouts(part: &mut Part, wrong: &mut Wrong) -> proto::Timeouts {
    let timeouts = proto::Timeouts {
        call: part.duration("call", MILLI..=HOUR, wrong),
        call_max: part.duration("call_max", MILLI..=24 * HOUR, wrong),
        attempt: part.duration("attempt", MILLI..=HOUR, wrong),
        ready: part.duration("ready", Duration::ZERO..=MINUTE, wrong),
    };
    part.in_order("call", &timeouts.call, "call_max", &timeouts.call_max, wrong);
    timeouts
}

fn limits(part: &mut Part, wrong: &mut Wrong) -> proto::Limits {
    proto::Limits {
        in_flight_max: part.count("in_flight_max", 1..=1_000_000, wrong),
        waiting_max: part.count("waiting_max", 0..=1_000_000, wrong),
        adaptive: part.flag("adaptive", wrong).unwrap_or_default(),
        throttling: part.flag("throttling", wrong),
    }
}

fn admission(part: &mut Part, wrong: &mut Wrong) -> proto::Admission {
    proto::Admission {
        in_flight_max: part.count("in_flight_max", 1..=1_000_000, wrong),
        queue_wait_max: part.duration("queue_wait_max", Duration::ZERO..=10 * SECOND, wrong),
        queue_max: part.count("queue_max", 0..=100_000, wrong),
        disabled: part.flag("disabled", wrong).unwrap_or_default(),
    }
}

fn method(part: &mut Part, wrong: &mut Wrong) -> proto::MethodPolicy {
    let is_named = part.has("method");
    let name: String = part.word("method", wrong, |word| {
        if is_method(word) {
            Ok(word.to_owned())
        } else {
            Err("must be a full name such as shop.product.v1.ProductService/GetProduct, or of a service".to_owned())
        }
    });
    if !is_named {
        part.refuse("method", "is missing".to_owned(), wrong);
    }
    proto::MethodPolicy {
        method: name,
        breaker: part.part("breaker", wrong, breaker),
        retry: part.part("retry", wrong, retry),
        hedging: part.part("hedging", wrong, hedging),
        timeouts: part.part("timeouts", wrong, timeouts),
        limits: part.part("limits", wrong, limits),
        idempotent: part.flag("idempotent", wrong),
    }
}

fn is_method(name: &str) -> bool {
    let is_word = |word: &str| {
        word.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && word.bytes().all(|letter| letter.is_ascii_alphanumeric() || letter == b'_')
    };
    let (service, method) = name.split_once('/').map_or((name, None), |(service, method)| (service, Some(method)));
    name.len() <= METHOD_CHARS_MAX && service.split('.').all(is_word) && method.is_none_or(is_word)
}

#[cfg(test)]
mod tests;
