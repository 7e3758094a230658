//! Calls, failures and slow calls of the last while, in ten slots, counted exactly and without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const SLOTS: u64 = 10;
/// Bits of a count of calls, and of failures, in one word; what is left above them names the slot.
const COUNT_BITS: u32 = 20;
const COUNT: u64 = (1 << COUNT_BITS) - 1;
/// Where a slot counts no more: the share that the first million calls have is known well enough. Less than the bits
/// hold, because calls that count at once may overshoot.
const COUNT_MAX: u64 = COUNT - 4096;
const NUMBER_SHIFT: u32 = 2 * COUNT_BITS;
const NUMBER: u64 = (1 << (64 - NUMBER_SHIFT)) - 1;

/// The sums of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) calls: u64,
    pub(super) failures: u64,
    pub(super) slow: u64,
}

/// Ten slots. Each has one word for the number of the slot, its calls and its failures, so that one addition counts a
/// call; slow calls, which are rare, have a word of their own.
///
/// A word is named by the lowest bits of its number. [`Window::sweep`] clears those that are old long before the bits
/// come round (46 hours at the shortest window).
#[derive(Debug)]
pub(super) struct Window {
    /// 2⁶⁴ divided by the length of a slot in nanoseconds: a multiplication is several times faster than a division.
    per_slot: AtomicU64,
    calls: [AtomicU64; 10],
    slow: [AtomicU64; 10],
}

impl Window {
    pub(super) fn new(length: Duration) -> Self {
        Self { per_slot: AtomicU64::new(per_slot(length)), calls: Default::default(), slow: Default::default() }
    }

    /// Counts a call that ended now.
    pub(super) fn count(&self, now: u64, is_failure: bool, is_slow: bool) {
        let number = self.number(now);
        let index = usize::try_from(number % SLOTS).expect("below ten");
        add(&self.calls[index], number, 1 << COUNT_BITS | u64::from(is_failure));
        if is_slow {
            add(&self.slow[index], number, 1 << COUNT_BITS);
        }
    }

    /// Counts calls that are slow by now, though they have not ended.
    pub(super) fn count_slow(&self, now: u64, calls: u32) {
        let number = self.number(now);
        let index = usize::try_from(number % SLOTS).expect("below ten");
        let mut left = u64::from(calls);
        while left > 0 {
            let some = left.min(COUNT - COUNT_MAX);
            add(&self.calls[index], number, some << COUNT_BITS);
            add(&self.slow[index], number, some << COUNT_BITS);
            left -= some;
        }
    }

    /// Counts the failure of a call that [`count_slow`](Self::count_slow) has counted.
    pub(super) fn count_failure(&self, now: u64) {
        let number = self.number(now);
        add(&self.calls[usize::try_from(number % SLOTS).expect("below ten")], number, 1);
    }

    /// What the window holds.
    pub(super) fn sums(&self, now: u64) -> Sums {
        let newest = self.number(now);
        let mut sums = Sums::default();
        for (calls, slow) in self.calls.iter().zip(&self.slow) {
            let (calls, slow) = (calls.load(Ordering::Relaxed), slow.load(Ordering::Relaxed));
            if is_within(calls, newest) {
                sums.calls += calls >> COUNT_BITS & COUNT;
                sums.failures += calls & COUNT;
            }
            if is_within(slow, newest) {
                sums.slow += slow >> COUNT_BITS & COUNT;
            }
        }
        sums
    }

    /// As [`sums`](Self::sums); clears what is too old.
    pub(super) fn sweep(&self, now: u64) -> Sums {
        let newest = self.number(now);
        for word in self.calls.iter().chain(&self.slow) {
            let seen = word.load(Ordering::Relaxed);
            if seen != 0 && !is_within(seen, newest) {
                // Who counted meanwhile has made it new.
                let _ = word.compare_exchange(seen, 0, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
        self.sums(now)
    }

    /// Makes the window longer or shorter. What it holds stays in it, as if it had just happened.
    pub(super) fn resize(&self, now: u64, length: Duration) {
        let per_slot = per_slot(length);
        if self.per_slot.load(Ordering::Relaxed) == per_slot {
            return;
        }
        let sums = self.sums(now);
        self.clear();
        self.per_slot.store(per_slot, Ordering::Relaxed);
        let number = self.number(now);
        let index = usize::try_from(number % SLOTS).expect("below ten");
        let most = |count: u64| count.min(COUNT_MAX);
        add(&self.calls[index], number, most(sums.calls) << COUNT_BITS | most(sums.failures));
        add(&self.slow[index], number, most(sums.slow) << COUNT_BITS);
    }

    pub(super) fn clear(&self) {
        for word in self.calls.iter().chain(&self.slow) {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// The number of the slot that a moment lies in. Counted from one, so that an empty word belongs to no slot.
    fn number(&self, now: u64) -> u64 {
        let product = u128::from(now) * u128::from(self.per_slot.load(Ordering::Relaxed));
        u64::try_from(product >> 64).expect("the upper half of a product") + 1
    }
}

/// A slot is at least 10 ms long, so nothing is divided by zero.
fn per_slot(window: Duration) -> u64 {
    let slot = (window / 10).max(Duration::from_millis(1));
    u64::MAX / u64::try_from(slot.as_nanos()).unwrap_or(u64::MAX)
}

/// Whether a word belongs to one of the ten slots that end with `newest`.
fn is_within(word: u64, newest: u64) -> bool {
    word != 0 && (newest.wrapping_sub(word >> NUMBER_SHIFT) & NUMBER) < SLOTS
}

fn add(word: &AtomicU64, number: u64, count: u64) {
    let name = number & NUMBER;
    loop {
        let seen = word.load(Ordering::Relaxed);
        if seen >> NUMBER_SHIFT == name && seen != 0 {
            if seen >> COUNT_BITS & COUNT < COUNT_MAX {
                // Should the slot be taken over just now, the call counts in the one after: it ended between the two.
                word.fetch_add(count, Ordering::Relaxed);
            }
            return;
        }
        let fresh = name << NUMBER_SHIFT | count;
        if word.compare_exchange_weak(seen, fresh, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn what_is_older_than_the_window_is_forgotten_slot_by_slot() {
        let window = Window::new(Duration::from_secs(10));
        for second in 0..20 {
            window.count(second * SECOND + SECOND / 2, second % 2 == 0, second % 4 == 0);
        }
        let at = |second: u64| window.sums(second * SECOND + SECOND / 2);
        assert_eq!(at(19), Sums { calls: 10, failures: 5, slow: 2 });
        assert_eq!(at(24), Sums { calls: 5, failures: 2, slow: 1 });
        assert_eq!(at(29), Sums::default());
        // The bits that name a slot have come round.
        window.sweep(40 * SECOND);
        assert_eq!(window.sums((1 << 24) * SECOND + 19 * SECOND), Sums::default());
    }

    #[test]
    fn calls_from_many_threads_are_counted_exactly() {
        let window = Window::new(Duration::from_secs(10));
        std::thread::scope(|threads| {
            for thread in 0..4_u64 {
                let window = &window;
                threads.spawn(move || {
                    for call in 0..50_000_u64 {
                        window.count(call * 100_000, call % 2 == 0, thread == 0);
                    }
                });
            }
        });
        assert_eq!(window.sums(5 * SECOND), Sums { calls: 200_000, failures: 100_000, slow: 50_000 });
    }

    #[test]
    fn a_window_of_another_length_keeps_what_it_counted() {
        let window = Window::new(Duration::from_secs(10));
        for call in 0..30 {
            window.count(call * SECOND / 5, call % 3 == 0, false);
        }
        window.resize(6 * SECOND, Duration::from_secs(1));
        assert_eq!(window.sums(6 * SECOND), Sums { calls: 30, failures: 10, slow: 0 });
        assert_eq!(window.sums(8 * SECOND), Sums::default());
    }

    #[test]
    fn a_full_slot_counts_no_more() {
        let window = Window::new(Duration::from_secs(10));
        for _ in 0..COUNT + 10 {
            window.count(SECOND, true, false);
        }
        let sums = window.sums(SECOND);
        assert_eq!((sums.calls, sums.failures), (COUNT_MAX, COUNT_MAX));
    }
}
