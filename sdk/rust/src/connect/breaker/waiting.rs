//! Calls that have not been answered yet, by when they began, so that a call that hangs is known to be slow before it ends.
//!
//! Sixteen slots, each between an eighth and a quarter of what a slow call takes. A call adds one to the slot it begins in
//! and takes it away when it is answered; what is left in a slot that is old enough has been slow. Counts are exact: each
//! call is found slow either here or by its answer, never by both.

use std::sync::atomic::{AtomicU64, Ordering};

const SLOTS: u64 = 16;
/// Bits of a word: calls that wait, then whether one that began in the slot was answered quickly, then the slot's name.
const COUNT_BITS: u32 = 20;
const COUNT: u64 = (1 << COUNT_BITS) - 1;
/// Where a slot takes no more calls: those beyond are judged when they end.
const COUNT_MAX: u64 = COUNT - 4096;
const IS_QUICK: u64 = 1 << COUNT_BITS;
const NAME_SHIFT: u32 = COUNT_BITS + 1;
/// A name is the binary logarithm of the slot's length in nanoseconds (6 bits), and its number (37 bits: half a year at
/// the least).
const NUMBER_BITS: u32 = 37;
const NUMBER: u64 = (1 << NUMBER_BITS) - 1;
/// The shortest slot: 2¹⁷ ns.
const LENGTH_MIN: u32 = 17;

/// Where a call waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u64);

/// Calls that turned out to be slow while they still wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Overdue {
    pub(super) calls: u32,
    /// Those of them that began after the last one that was answered quickly.
    pub(super) in_a_row: u32,
    /// Whether one that was answered quickly began no earlier than the first of them: not everything is slow.
    pub(super) is_mixed: bool,
}

#[derive(Debug, Default)]
pub(super) struct Waiting([AtomicU64; 16]);

impl Waiting {
    /// A call begins. `slow` is what a slow call takes. `None` where it is judged by its end alone.
    #[inline]
    pub(super) fn enter(&self, now: u64, slow: u64) -> Option<Place> {
        let length = length(slow);
        let number = now >> length & NUMBER;
        let name = u64::from(length) << NUMBER_BITS | number;
        let word = &self.0[index(number)];
        let mut seen = word.load(Ordering::Relaxed);
        loop {
            let next = if seen >> NAME_SHIFT == name {
                if seen & COUNT >= COUNT_MAX {
                    return None;
                }
                seen + 1
            } else if seen & COUNT == 0 {
                name << NAME_SHIFT | 1
            } else {
                // Somebody still waits there whom nobody has looked at yet.
                return None;
            };
            match word.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(Place(name)),
                Err(other) => seen = other,
            }
        }
    }

    /// A call is answered, or over. Tells whether it was still waited for: `false` if it has been found slow already.
    #[inline]
    pub(super) fn leave(&self, place: Place, is_quick: bool) -> bool {
        let word = &self.0[index(place.0 & NUMBER)];
        let mut seen = word.load(Ordering::Relaxed);
        loop {
            if seen >> NAME_SHIFT != place.0 || seen & COUNT == 0 {
                return false;
            }
            let next = (seen - 1) | if is_quick { IS_QUICK } else { 0 };
            match word.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(other) => seen = other,
            }
        }
    }

    /// Takes those out that have waited for as long as a slow call takes.
    pub(super) fn overdue(&self, now: u64, slow: u64) -> Overdue {
        let (mut found, mut quick) = ([(0, 0); 16], u64::MAX);
        for (word, found) in self.0.iter().zip(&mut found) {
            let mut seen = word.load(Ordering::Relaxed);
            if seen == 0 {
                continue;
            }
            let (age, length) = age(seen, now);
            if seen & IS_QUICK != 0 {
                quick = quick.min(age);
            }
            // Whoever began at the slot's end has waited for one slot less.
            while seen & COUNT > 0 && age.saturating_sub(length) >= slow {
                match word.compare_exchange_weak(seen, seen & !COUNT, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => {
                        *found = (age, u32::try_from(seen & COUNT).expect("twenty bits"));
                        break;
                    }
                    Err(other) => seen = other,
                }
            }
        }
        let slow_ones = || found.iter().filter(|(_, calls)| *calls > 0);
        Overdue {
            calls: slow_ones().map(|(_, calls)| calls).sum(),
            in_a_row: slow_ones().filter(|(age, _)| *age < quick).map(|(_, calls)| calls).sum(),
            is_mixed: slow_ones().any(|(age, _)| *age >= quick),
        }
    }

    /// Forgets who waits: what they find out is about another phase.
    pub(super) fn clear(&self) {
        for word in &self.0 {
            word.store(0, Ordering::Relaxed);
        }
    }
}

/// The binary logarithm of a slot's length.
fn length(slow: u64) -> u32 {
    (slow / 4).checked_ilog2().unwrap_or(0).clamp(LENGTH_MIN, 63)
}

fn index(number: u64) -> usize {
    usize::try_from(number % SLOTS).expect("below sixteen")
}

/// How long ago the slot of a word began, and how long it is.
fn age(word: u64, now: u64) -> (u64, u64) {
    let name = word >> NAME_SHIFT;
    let length = u32::try_from(name >> NUMBER_BITS).expect("six bits");
    let slots = (now >> length).wrapping_sub(name & NUMBER) & NUMBER;
    if slots > NUMBER / 2 {
        // A call has begun since `now` was read.
        return (0, 1 << length);
    }
    let within = now & ((1 << length) - 1);
    ((slots << length).saturating_add(within), 1 << length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: u64 = 1_000_000;
    const SLOW: u64 = 300 * MILLI;

    #[test]
    fn who_waits_for_too_long_is_found_once() {
        let waiting = Waiting::default();
        let places: Vec<_> = (0..5).map(|call| waiting.enter(call * 10 * MILLI, SLOW).unwrap()).collect();
        assert!(waiting.leave(places[0], false), "answered in time");
        assert_eq!(waiting.overdue(290 * MILLI, SLOW).calls, 0);
        assert_eq!(waiting.overdue(450 * MILLI, SLOW).calls, 4);
        assert_eq!(waiting.overdue(460 * MILLI, SLOW).calls, 0);
        assert!(!waiting.leave(places[1], false), "it was found already");
    }

    #[test]
    fn a_quick_call_that_began_later_tells_that_not_all_is_slow() {
        let waiting = Waiting::default();
        let before = waiting.enter(0, SLOW).unwrap();
        waiting.leave(before, true);
        let _hangs = waiting.enter(100 * MILLI, SLOW).unwrap();
        assert_eq!(waiting.overdue(550 * MILLI, SLOW), Overdue { calls: 1, in_a_row: 1, is_mixed: false });
        let _hangs = waiting.enter(600 * MILLI, SLOW).unwrap();
        let after = waiting.enter(800 * MILLI, SLOW).unwrap();
        waiting.leave(after, true);
        assert_eq!(waiting.overdue(1100 * MILLI, SLOW), Overdue { calls: 1, in_a_row: 0, is_mixed: true });
    }

    #[test]
    fn a_call_that_began_after_the_look_is_not_overdue() {
        let waiting = Waiting::default();
        let _waits = waiting.enter(500 * MILLI, SLOW).unwrap();
        assert_eq!(waiting.overdue(400 * MILLI, SLOW).calls, 0);
    }

    #[test]
    fn a_slot_that_comes_round_waits_for_who_is_in_it() {
        let waiting = Waiting::default();
        let first = waiting.enter(0, SLOW).unwrap();
        let round = SLOTS << length(SLOW);
        assert_eq!(waiting.enter(round, SLOW), None, "judged by its end alone");
        assert_eq!(waiting.overdue(round, SLOW).calls, 1);
        assert!(waiting.enter(round, SLOW).is_some());
        assert!(!waiting.leave(first, true));
    }

    #[test]
    fn what_is_slow_may_change_while_calls_wait() {
        let waiting = Waiting::default();
        let early = waiting.enter(100 * MILLI, SLOW).unwrap();
        let late = waiting.enter(200 * MILLI, 20 * SLOW).unwrap();
        assert!(waiting.leave(early, true) && waiting.leave(late, true));
        let _hangs = waiting.enter(300 * MILLI, 20 * SLOW).unwrap();
        assert_eq!(waiting.overdue(500 * MILLI, SLOW).calls, 0, "a long slot must have passed whole");
        assert_eq!(waiting.overdue(2200 * MILLI, SLOW).calls, 1);
    }

    #[test]
    fn calls_of_many_threads_are_found_exactly() {
        let waiting = Waiting::default();
        let left = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    for call in 0..20_000_u64 {
                        let place = waiting.enter(call * 1000, SLOW).expect("the ring is long enough");
                        if call % 4 == 0 {
                            left.fetch_add(1, Ordering::Relaxed);
                        } else {
                            assert!(waiting.leave(place, true), "nobody has looked");
                        }
                    }
                });
            }
        });
        assert_eq!(waiting.overdue(10 * SLOW, SLOW).calls, left.into_inner());
    }
}
