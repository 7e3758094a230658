//! What is known of a service's endpoints as a whole: among others, how many of them may be left alone.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is known of a service's endpoints as a whole.
#[derive(Debug, Default)]
pub(crate) struct Stock {
    /// Whether who can be picked has changed since it was last found out.
    pub(crate) is_stale: AtomicBool,
    /// Endpoints that can be picked.
    pub(crate) usable: AtomicU32,
    /// Number of the next endpoint.
    number: AtomicU32,
    ejections: Mutex<Ejections>,
}

#[derive(Debug, Default)]
struct Ejections {
    /// Endpoints that serve.
    serving: u32,
    /// Those of them whose breaker is open, or about to be.
    open: u32,
}

impl Stock {
    /// The number of one more endpoint.
    pub(super) fn number(&self) -> u32 {
        self.number.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether one more breaker may open because of a share of its calls: at most `percent` of those that serve, and never
    /// the last. `is_ejecting` is set then, for whoever counts before the breaker has opened. Calls that end at the same
    /// instant are asked one after the other, or each of them might take the last place.
    pub(crate) fn may_eject(&self, percent: u32, is_ejecting: &AtomicBool) -> bool {
        let mut ejections = self.lock();
        let (serving, next) = (ejections.serving, ejections.open + 1);
        let is_allowed = next < serving && u64::from(next) * 100 <= u64::from(percent) * u64::from(serving);
        if is_allowed {
            ejections.open = next;
            is_ejecting.store(true, Ordering::Relaxed);
        }
        is_allowed
    }

    /// Counts endpoints that serve: for each, whether its breaker is open or about to be.
    pub(crate) fn count(&self, serving: impl Iterator<Item = bool>) -> u32 {
        let mut ejections = self.lock();
        *ejections = Ejections::default();
        for is_open in serving {
            ejections.serving += 1;
            ejections.open += u32::from(is_open);
        }
        ejections.serving
    }

    fn lock(&self) -> MutexGuard<'_, Ejections> {
        self.ejections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn no_more_are_left_alone_than_may_be_however_many_fail_at_once() {
        const ENDPOINTS: usize = 8;
        let stock = Stock::default();
        let flags: [AtomicBool; ENDPOINTS] = Default::default();
        let barrier = Barrier::new(ENDPOINTS);
        let is_exceeded = AtomicBool::new(false);
        let open = || flags.iter().map(|flag| flag.load(Ordering::Relaxed));
        std::thread::scope(|threads| {
            for (index, flag) in flags.iter().enumerate() {
                let (stock, barrier, open, is_exceeded) = (&stock, &barrier, &open, &is_exceeded);
                threads.spawn(move || {
                    for _ in 0..2_000 {
                        if barrier.wait().is_leader() {
                            stock.count([false; ENDPOINTS].into_iter());
                        }
                        flag.store(false, Ordering::Relaxed);
                        barrier.wait();
                        // Some count while others ask.
                        if index % 2 == 0 {
                            stock.count(open());
                        }
                        stock.may_eject(50, flag);
                        barrier.wait();
                        if open().filter(|is_open| *is_open).count() > ENDPOINTS / 2 {
                            is_exceeded.store(true, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert!(!is_exceeded.into_inner());
    }

    #[test]
    fn the_last_one_is_never_left_alone() {
        let (stock, flag) = (Stock::default(), AtomicBool::new(false));
        assert!(!stock.may_eject(100, &flag), "nobody is known to serve");
        stock.count([false].into_iter());
        assert!(!stock.may_eject(100, &flag));
        stock.count([true, false, false].into_iter());
        assert!(stock.may_eject(100, &flag));
        assert!(!stock.may_eject(100, &flag));
    }
}
