//! How many calls may be repeated: a share of those made, so that retries never multiply an outage.

use std::time::Duration;

/// Retries allowed whatever the traffic, in one window.
const BURST: u64 = 10;
/// Calls that earn one more retry.
const CALLS_PER_RETRY: u64 = 5;
/// One slot of the window; ten of them are remembered.
const SLOT: Duration = Duration::from_secs(1);
const SLOTS: u64 = 10;

/// A budget of retries: in any ten seconds, ten and a fifth of the calls made. After Finagle's `RetryBudget`.
///
/// Knows no clock: `now` is the time since any fixed moment.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    slots: [Slot; 10],
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    number: u64,
    calls: u64,
    retries: u64,
}

impl Budget {
    /// Counts a call.
    pub(crate) fn deposit(&mut self, now: Duration) {
        self.slot(now).calls += 1;
    }

    /// Takes a retry. `false` where none is left.
    pub(crate) fn withdraw(&mut self, now: Duration) -> bool {
        let oldest = number(now).saturating_sub(SLOTS - 1);
        let (mut calls, mut retries) = (0, 0);
        for slot in self.slots.iter().filter(|slot| slot.number >= oldest) {
            calls += slot.calls;
            retries += slot.retries;
        }
        let is_left = retries < BURST + calls / CALLS_PER_RETRY;
        if is_left {
            self.slot(now).retries += 1;
        }
        is_left
    }

    fn slot(&mut self, now: Duration) -> &mut Slot {
        let number = number(now);
        let index = usize::try_from(number % SLOTS).expect("below ten");
        let slot = &mut self.slots[index];
        if slot.number != number {
            *slot = Slot { number, ..Slot::default() };
        }
        slot
    }
}

fn number(now: Duration) -> u64 {
    now.as_secs() / SLOT.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_burst_and_a_fifth_of_the_calls() {
        let mut budget = Budget::default();
        let now = Duration::from_secs(100);
        for _ in 0..50 {
            budget.deposit(now);
        }
        assert_eq!((0..100).filter(|_| budget.withdraw(now)).count(), 20);
        // What was spent is earned back when the window has passed.
        assert_eq!((0..100).filter(|_| budget.withdraw(now + Duration::from_secs(10))).count(), 10);
    }
}
