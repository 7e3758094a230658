//! Counts of the last ten seconds, without a lock. Pure: no clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Seconds that are remembered; one slot each.
pub(crate) const SECONDS: u32 = 10;

/// A count of the last ten seconds. `now` is the time since any fixed moment, the same for all calls.
///
/// Each slot holds its second in the upper half and the count in the lower, so that one word is all there is to agree on.
#[derive(Debug, Default)]
pub(crate) struct Ring([AtomicU64; 10]);

impl Ring {
    /// Counts one more.
    pub(crate) fn add(&self, now: Duration) {
        let second = second(now);
        let slot = self.slot(second);
        let mut seen = slot.load(Ordering::Relaxed);
        loop {
            let next = if seen >> 32 == second { seen + 1 } else { second << 32 | 1 };
            match slot.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => seen = other,
            }
        }
    }

    /// How many there were in the last ten seconds.
    pub(crate) fn sum(&self, now: Duration) -> u64 {
        let oldest = second(now).saturating_sub(u64::from(SECONDS) - 1);
        let slots = self.0.iter().map(|slot| slot.load(Ordering::Relaxed));
        slots.filter(|slot| slot >> 32 >= oldest).map(count).sum()
    }

    /// How many there were in this second.
    pub(crate) fn this_second(&self, now: Duration) -> u64 {
        let second = second(now);
        let slot = self.slot(second).load(Ordering::Relaxed);
        if slot >> 32 == second { count(slot) } else { 0 }
    }

    fn slot(&self, second: u64) -> &AtomicU64 {
        &self.0[usize::try_from(second % u64::from(SECONDS)).expect("below ten")]
    }
}

fn count(slot: u64) -> u64 {
    slot & u64::from(u32::MAX)
}

/// Counted from one, so that a fresh slot belongs to no second.
fn second(now: Duration) -> u64 {
    now.as_secs() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_ten_seconds_is_forgotten() {
        let ring = Ring::default();
        let at = Duration::from_secs;
        assert_eq!(ring.sum(at(0)), 0);
        for _ in 0..3 {
            ring.add(at(0));
        }
        ring.add(at(5));
        assert_eq!((ring.sum(at(5)), ring.this_second(at(5))), (4, 1));
        assert_eq!((ring.sum(at(10)), ring.this_second(at(10))), (1, 0));
        ring.add(at(10));
        assert_eq!(ring.sum(at(10)), 2);
        assert_eq!(ring.sum(at(99)), 0);
    }
}
