//! How many calls may be repeated: a share of those made, so that retries never multiply an outage. Pure: no clock.

use std::time::Duration;

use crate::connect::ring::Ring;

/// How many repetitions are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowance {
    /// Repetitions for each hundred calls of the last ten seconds.
    pub(crate) percent: u32,
    /// Repetitions in each second, whatever the share: a service that is called now and then has no share to speak of.
    pub(crate) per_second: u32,
}

/// A budget of repetitions, retries and hedges alike. After Finagle's `RetryBudget`.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    calls: Ring,
    repetitions: Ring,
}

impl Budget {
    /// Counts a call.
    pub(crate) fn deposit(&self, now: Duration) {
        self.calls.add(now);
    }

    /// Takes a repetition. `false` where none is left. Two that come at the same instant may both get the last one.
    pub(crate) fn withdraw(&self, now: Duration, allowance: Allowance) -> bool {
        let is_left = self.repetitions.this_second(now) < u64::from(allowance.per_second)
            || self.repetitions.sum(now) < self.calls.sum(now) * u64::from(allowance.percent) / 100;
        if is_left {
            self.repetitions.add(now);
        }
        is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Allowance = Allowance { percent: 20, per_second: 10 };

    fn spend(budget: &Budget, now: Duration, allowance: Allowance) -> usize {
        (0..100).filter(|_| budget.withdraw(now, allowance)).count()
    }

    #[test]
    fn repetitions_are_a_few_each_second_or_a_fifth_of_the_calls() {
        let budget = Budget::default();
        let now = Duration::from_secs(100);
        assert_eq!(spend(&budget, now, USUAL), 10);
        for _ in 0..200 {
            budget.deposit(now);
        }
        // Ten of the forty are spent.
        assert_eq!(spend(&budget, now, USUAL), 30);
        assert_eq!(spend(&budget, now + Duration::from_secs(1), USUAL), 10);
    }

    #[test]
    fn an_allowance_of_nothing_allows_nothing() {
        let budget = Budget::default();
        budget.deposit(Duration::ZERO);
        assert_eq!(spend(&budget, Duration::ZERO, Allowance { percent: 0, per_second: 0 }), 0);
    }
}
