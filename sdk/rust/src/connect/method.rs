//! What a channel knows of each method: how its calls are made, and how long they take.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use crate::connect::budget::Allowance;
use crate::connect::declared::Declared;
use crate::connect::policy::{Hedging, Limits, Policy, Retry, Timeouts};
use crate::connect::quantile::Quantile;
use crate::gate::{Baseline, Bounds, Gate};

/// Methods that are remembered, at most. Paths may come from strangers, through the edge.
const METHODS_MAX: usize = 1024;

/// How calls of one method are made: a policy's word on it, kept while the policy stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manners {
    pub(crate) is_idempotent: bool,
    pub(crate) replay_bytes_max: usize,
    pub(crate) retry: Retry,
    /// `None` for calls that are not hedged.
    pub(crate) hedging: Option<Hedging>,
    pub(crate) timeouts: Timeouts,
    /// Of the service, from this process.
    pub(crate) service_bounds: Bounds,
    /// Of the method alone, where it has bounds of its own.
    pub(crate) method_bounds: Option<Bounds>,
    /// Whether the service's bound follows latency.
    pub(crate) is_adaptive: bool,
    pub(crate) is_throttled: bool,
}

impl Manners {
    /// What a policy says of the method at `path`, and what contracts declare of it.
    fn of(policy: &Policy, path: &str, declared: &Declared) -> Self {
        let rules = policy.rules(path);
        let bounds = |(in_flight_max, waiting_max)| Bounds { in_flight_max, waiting_max };
        Self {
            is_idempotent: policy.says_idempotent(path).unwrap_or(rules.is_idempotent || declared.has(path)),
            replay_bytes_max: policy.replay_bytes_max,
            retry: rules.retry.clone(),
            hedging: (rules.hedging.attempts_max > 1).then(|| rules.hedging.clone()),
            timeouts: rules.timeouts.clone(),
            service_bounds: bounds(rules.limits.of_service()),
            method_bounds: rules.method_limits.and_then(Limits::of_method).map(bounds),
            is_adaptive: rules.limits.is_adaptive,
            is_throttled: rules.limits.is_throttled,
        }
    }

    /// How many repetitions are allowed.
    pub(crate) fn allowance(&self) -> Allowance {
        Allowance { percent: self.retry.budget_percent, per_second: self.retry.budget_per_second }
    }

    /// How long to wait before attempt number `attempt`, the second being 2. Half of it is drawn.
    pub(crate) fn wait(&self, attempt: u32) -> Duration {
        let doubled = self.retry.wait_min.saturating_mul(1 << attempt.saturating_sub(2).min(16));
        doubled.min(self.retry.wait_max).mul_f64(0.5 + 0.5 * fastrand::f64())
    }
}

/// One method of the service.
#[derive(Debug)]
pub(crate) struct Method {
    pub(crate) manners: Manners,
    pub(crate) learned: Arc<Learned>,
    policy: Arc<Policy>,
}

/// What outlives a change of policy.
#[derive(Debug)]
pub(crate) struct Learned {
    /// Within which half of the answers come.
    pub(crate) half: Quantile,
    /// Within which 95 of 100 answers come.
    pub(crate) most: Quantile,
    pub(crate) gate: Arc<Gate>,
    pub(crate) baseline: Mutex<Baseline>,
}

impl Learned {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            half: Quantile::new(0.5),
            most: Quantile::new(0.95),
            gate: Arc::default(),
            baseline: Mutex::default(),
        })
    }
}

/// The methods of one channel.
#[derive(Debug, Default)]
pub(crate) struct Methods(RwLock<HashMap<Box<str>, Arc<Method>>>);

impl Methods {
    /// The method at `path`, as `policy` has it.
    pub(crate) fn get(&self, path: &str, policy: &Arc<Policy>, declared: &Declared) -> Arc<Method> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
        if let Some(known) = &known
            && Arc::ptr_eq(&known.policy, policy)
        {
            return known.clone();
        }
        let learned = known.as_ref().map_or_else(Learned::new, |known| known.learned.clone());
        let method = Arc::new(Method { manners: Manners::of(policy, path, declared), learned, policy: policy.clone() });
        let mut methods = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.is_some() || methods.len() < METHODS_MAX {
            methods.insert(path.into(), method.clone());
        }
        method
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_learned_of_a_method_outlives_its_policy() {
        let (methods, declared) = (Methods::default(), Declared::default());
        let retry = Retry { attempts_max: 9, ..Retry::default() };
        let (old, new) = (Arc::new(Policy::default()), Arc::new(Policy { retry, ..Policy::default() }));
        let before = methods.get("/a.B/C", &old, &declared);
        assert!(Arc::ptr_eq(&before, &methods.get("/a.B/C", &old, &declared)));
        let after = methods.get("/a.B/C", &new, &declared);
        assert_eq!(after.manners.retry.attempts_max, 9);
        assert!(Arc::ptr_eq(&before.learned, &after.learned));
    }

    #[test]
    fn waits_double_and_are_drawn() {
        let manners = Manners::of(&Policy::default(), "/a.B/C", &Declared::default());
        for (attempt, most) in [(2, 10), (3, 20), (4, 40), (9, 250), (99, 250)] {
            let wait = manners.wait(attempt);
            let most = Duration::from_millis(most);
            assert!(wait >= most / 2 && wait <= most, "{attempt}: {wait:?}");
        }
    }
}
