//! How a service is called, and how it protects itself. Pure: no clock, no tokio.
//!
//! The author of a caller gives a [`Policy`] in code, or takes the default. Central configuration overlays it: what a
//! `ninefold.registry.v1.Policy` says holds, and what it leaves out is as the code has it. It is swapped while calls go
//! on; nothing that was learned of endpoints and methods is lost by that.

mod live;
mod wire;

use std::time::Duration;

use tonic::Code;

use crate::connect::breaker;

pub(crate) use live::Live;
pub use wire::violations;

/// Calls in flight to a service, from one caller, where nothing else is said.
const IN_FLIGHT_MAX: u32 = 1024;

/// Which calls may be repeated although an instance may have begun to work on them.
///
/// A call that surely reached nobody is repeated whatever this says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idempotency {
    /// None, save those with the request extension [`Idempotent`](crate::connect::Idempotent).
    Never,
    /// Those whose method's name begins with Get, List, Watch, Check, Search, Match or Describe.
    Reads,
    /// All.
    All,
}

impl Idempotency {
    /// Whether the method at `path` ("/package.Service/Method") may be repeated.
    pub(crate) fn allows(self, path: &str) -> bool {
        const READS: [&str; 7] = ["Get", "List", "Watch", "Check", "Search", "Match", "Describe"];
        match self {
            Self::Never => false,
            Self::All => true,
            Self::Reads => {
                let method = path.rsplit('/').next().unwrap_or_default();
                READS.iter().any(|verb| method.starts_with(verb))
            }
        }
    }
}

/// How a service is called. The default suits most services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Revision of the document in central configuration that overlays it. Zero where none does.
    pub revision: i64,
    /// Whom to call.
    pub balancing: Balancing,
    /// When to stop calling an endpoint, and a method.
    pub breaker: breaker::Policy,
    /// When to repeat a call.
    pub retry: Retry,
    /// When to ask a second instance without waiting for the first. Only idempotent methods are hedged.
    pub hedging: Hedging,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// How many calls at once.
    pub limits: Limits,
    /// What an instance takes in, on the callee's side.
    pub admission: Admission,
    /// Which calls may be repeated although an instance may have begun to work on them, where no method says otherwise.
    pub idempotent: Idempotency,
    /// Most bytes of a request kept for a repetition. A longer request is sent once.
    pub replay_bytes_max: usize,
    /// What is different for some methods. The longest name that matches holds.
    pub methods: Vec<MethodPolicy>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            revision: 0,
            balancing: Balancing::default(),
            breaker: breaker::Policy::default(),
            retry: Retry::default(),
            hedging: Hedging::default(),
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            admission: Admission::default(),
            idempotent: Idempotency::Reads,
            replay_bytes_max: 64 * 1024,
            methods: Vec::new(),
        }
    }
}

/// What is different for some methods. A part that is there replaces the service's whole part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MethodPolicy {
    /// Full name of a method such as `shop.product.v1.ProductService/GetProduct`, or of a Protobuf service, for all of
    /// its methods.
    pub method: String,
    /// When to stop calling the method.
    pub breaker: Option<breaker::Policy>,
    /// When to repeat a call.
    pub retry: Option<Retry>,
    /// When to ask a second instance.
    pub hedging: Option<Hedging>,
    /// How long to wait.
    pub timeouts: Option<Timeouts>,
    /// How many calls of the method at once, beside the service's own limits.
    pub limits: Option<Limits>,
    /// Whether calls may be repeated although an instance may have begun to work on them.
    pub is_idempotent: Option<bool>,
}

impl MethodPolicy {
    /// Whether it is meant for the method at `path` ("/package.Service/Method").
    fn is_for(&self, path: &str) -> bool {
        let rest = path.strip_prefix('/').unwrap_or(path).strip_prefix(self.method.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// What holds for one method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules<'a> {
    /// When to stop calling the method.
    pub breaker: &'a breaker::Policy,
    /// When to repeat a call.
    pub retry: &'a Retry,
    /// When to ask a second instance.
    pub hedging: &'a Hedging,
    /// How long to wait.
    pub timeouts: &'a Timeouts,
    /// How many calls to the service at once.
    pub limits: &'a Limits,
    /// How many calls of the method at once, where it has limits of its own.
    pub method_limits: Option<&'a Limits>,
    /// Whether calls may be repeated although an instance may have begun to work on them.
    pub is_idempotent: bool,
}

impl Policy {
    /// What is said of the method at `path` in so many words: whether its calls may be repeated.
    pub(crate) fn says_idempotent(&self, path: &str) -> Option<bool> {
        let said = self.methods.iter().filter(|method| method.is_for(path)).max_by_key(|method| method.method.len());
        said.and_then(|method| method.is_idempotent)
    }

    /// What holds for the method at `path` ("/package.Service/Method"). Allocates nothing; looks at each of
    /// [`methods`](Self::methods), so whoever calls a method often keeps the answer while the policy stays.
    pub fn rules(&self, path: &str) -> Rules<'_> {
        let own = self.methods.iter().filter(|method| method.is_for(path)).max_by_key(|method| method.method.len());
        Rules {
            breaker: own.and_then(|own| own.breaker.as_ref()).unwrap_or(&self.breaker),
            retry: own.and_then(|own| own.retry.as_ref()).unwrap_or(&self.retry),
            hedging: own.and_then(|own| own.hedging.as_ref()).unwrap_or(&self.hedging),
            timeouts: own.and_then(|own| own.timeouts.as_ref()).unwrap_or(&self.timeouts),
            limits: &self.limits,
            method_limits: own.and_then(|own| own.limits.as_ref()),
            is_idempotent: own.and_then(|own| own.is_idempotent).unwrap_or_else(|| self.idempotent.allows(path)),
        }
    }
}

/// Ways to choose an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BalancingMethod {
    /// The less loaded of two drawn at random; load is decayed peak latency × calls in flight.
    PeakEwma,
    /// One after the other.
    RoundRobin,
    /// One after the other, as often as their weights say.
    WeightedRoundRobin,
    /// The one of two drawn at random with fewer calls in flight.
    LeastRequest,
    /// The same endpoint for the same key, as far as endpoints stay.
    RingHash,
}

/// Whom to call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balancing {
    /// How to choose.
    pub method: BalancingMethod,
    /// For [`BalancingMethod::RingHash`]: name of the request header whose value is the key, in lowercase. A call
    /// without it is spread at random.
    pub hash_header: String,
    /// Whether endpoints of the caller's own zone are preferred, where both sides name one.
    pub is_zone_aware: bool,
    /// Share of a zone's usual capacity, in percent, below which calls spill over to other zones.
    pub spill_percent: u32,
    /// How many endpoints one caller talks to, at most. Zero for all.
    pub subset_size: u32,
    /// How long an endpoint that is new, or back, gets less than its share.
    pub slow_start: Duration,
    /// Share of usable endpoints, in percent, below which all are called, usable or not.
    pub panic_percent: u32,
}

impl Default for Balancing {
    fn default() -> Self {
        Self {
            method: BalancingMethod::PeakEwma,
            hash_header: String::new(),
            is_zone_aware: true,
            spill_percent: 70,
            subset_size: 0,
            slow_start: Duration::from_secs(10),
            panic_percent: 50,
        }
    }
}

/// When to repeat a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Most attempts, the first included.
    pub attempts_max: u32,
    /// Repetitions for each hundred calls.
    pub budget_percent: u32,
    /// Repetitions each second that are allowed whatever the share.
    pub budget_per_second: u32,
    /// The first wait before a repetition. Doubles each time, with jitter.
    pub wait_min: Duration,
    /// The longest wait.
    pub wait_max: Duration,
    /// What is repeated for idempotent methods.
    pub codes: Codes,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts_max: 3,
            budget_percent: 20,
            budget_per_second: 10,
            wait_min: Duration::from_millis(10),
            wait_max: Duration::from_millis(250),
            codes: Codes::from_iter([Code::Unavailable]),
        }
    }
}

/// When to ask a second instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hedging {
    /// Most attempts at once, the first included. Below two: no hedging.
    pub attempts_max: u32,
    /// How long to wait for an answer before the next attempt. `None` for the 95th percentile of the method's latency.
    pub delay: Option<Duration>,
}

/// How long to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// How long to wait for response headers when neither the call nor the call around it has a deadline. It does not
    /// travel to the callee and does not cut a stream that has begun.
    pub call: Duration,
    /// The longest that a caller may ask for; later deadlines are cut. `None` for no bound.
    pub call_max: Option<Duration>,
    /// For one attempt, to its response headers. `None` for as long as the call has.
    pub attempt: Option<Duration>,
    /// How long a call waits for an instance when none is ready, at most; its deadline may be earlier.
    pub ready: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { call: Duration::from_secs(5), call_max: None, attempt: None, ready: Duration::from_secs(3) }
    }
}

/// How many calls at once, on the caller's side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most calls in flight to the service, or the method, from this process. `None` for 1024 to a service, and no bound
    /// to a method.
    pub in_flight_max: Option<u32>,
    /// Most calls that wait for a place. `None` for as many as may be in flight.
    pub waiting_max: Option<u32>,
    /// Whether the limit follows latency (gradient) instead of standing still. `in_flight_max` is its ceiling then.
    pub is_adaptive: bool,
    /// Whether calls are held back in proportion to how many the service refuses.
    pub is_throttled: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { in_flight_max: None, waiting_max: None, is_adaptive: false, is_throttled: true }
    }
}

impl Limits {
    /// Most calls in flight, and most that wait, for a whole service.
    pub fn of_service(&self) -> (u32, u32) {
        let in_flight_max = self.in_flight_max.unwrap_or(IN_FLIGHT_MAX);
        (in_flight_max, self.waiting_max.unwrap_or(in_flight_max))
    }

    /// Most calls in flight, and most that wait, for one method. `None` where it has no bound of its own.
    pub fn of_method(&self) -> Option<(u32, u32)> {
        self.in_flight_max.map(|in_flight_max| (in_flight_max, self.waiting_max.unwrap_or(in_flight_max)))
    }
}

/// What an instance takes in, on the callee's side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Most calls in work at once. `None`: found by latency (gradient).
    pub in_flight_max: Option<u32>,
    /// Longest time that a call waits for its turn.
    pub queue_wait_max: Duration,
    /// Most calls that wait for their turn.
    pub queue_max: u32,
    /// Whether everything is taken in.
    pub is_disabled: bool,
}

impl Default for Admission {
    fn default() -> Self {
        Self { in_flight_max: None, queue_wait_max: Duration::from_millis(20), queue_max: 64, is_disabled: false }
    }
}

/// A set of gRPC status codes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Codes(u32);

impl Codes {
    /// Whether the code is in the set.
    pub fn has(self, code: Code) -> bool {
        self.0 & bit(code) != 0
    }

    /// The codes of the set, in the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = Code> {
        (0..=16).map(Code::from_i32).filter(move |code| self.has(*code))
    }
}

impl FromIterator<Code> for Codes {
    fn from_iter<I: IntoIterator<Item = Code>>(codes: I) -> Self {
        Self(codes.into_iter().fold(0, |bits, code| bits | bit(code)))
    }
}

fn bit(code: Code) -> u32 {
    1 << (i32::from(code).unsigned_abs() & 31)
}

#[cfg(test)]
mod tests;
