//! Holds calls back in proportion to how many a service refuses, before they cost it anything. Pure: no clock.
//!
//! After "Handling Overload" in Google's "Site Reliability Engineering": a call is held back with the probability
//! (requests − 2 × accepts) / (requests + 1), counted over the last ten seconds, for each priority by itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::connect::priority::Priority;
use crate::connect::ring::{Ring, SECONDS};

/// How many calls are made for each one that is accepted: a service that recovers must have something to accept.
const CALLS_PER_ACCEPT: f64 = 2.0;
/// Refusals that are no pattern yet.
const SLACK: f64 = 10.0;

/// What is known of a service's refusals.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    counts: [Counts; 3],
    /// The second after the last refusal; zero for never. While it is long ago there is nothing to reckon.
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Counts {
    requests: Ring,
    accepts: Ring,
}

impl Throttle {
    /// Counts a call that somebody wants to make, and tells whether to hold it back. `draw` is from 0 up to 1.
    pub(crate) fn holds_back(&self, now: Duration, priority: Priority, draw: f64) -> bool {
        let counts = &self.counts[priority.index()];
        counts.requests.add(now);
        if !self.is_refused(now) {
            return false;
        }
        draw < probability(counts.requests.sum(now), counts.accepts.sum(now))
    }

    /// The service took a call in, whatever came of it.
    pub(crate) fn accepted(&self, now: Duration, priority: Priority) {
        self.counts[priority.index()].accepts.add(now);
    }

    /// The service refused a call for want of room.
    pub(crate) fn refused(&self, now: Duration) {
        self.refused.store(now.as_secs() + 1, Ordering::Relaxed);
    }

    fn is_refused(&self, now: Duration) -> bool {
        let refused = self.refused.load(Ordering::Relaxed);
        refused > 0 && now.as_secs() + 1 < refused + u64::from(SECONDS)
    }
}

fn probability(requests: u64, accepts: u64) -> f64 {
    let count = |number: u64| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
    ((count(requests) - CALLS_PER_ACCEPT * count(accepts) - SLACK) / (count(requests) + 1.0)).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offers `offered` calls a second to a service that takes in `capacity`; tells how many reach it in the last second.
    fn reaching(offered: u32, capacity: u32) -> u32 {
        let throttle = Throttle::default();
        let mut random = fastrand::Rng::with_seed(1);
        let mut sent = 0;
        for second in 0..30 {
            let now = Duration::from_secs(second);
            sent = 0;
            for _ in 0..offered {
                if throttle.holds_back(now, Priority::Default, random.f64()) {
                    continue;
                }
                sent += 1;
                if sent <= capacity { throttle.accepted(now, Priority::Default) } else { throttle.refused(now) }
            }
        }
        sent
    }

    #[test]
    fn a_service_that_takes_all_gets_all() {
        assert_eq!(reaching(1_000, 1_000), 1_000);
    }

    #[test]
    fn a_service_that_refuses_gets_about_twice_what_it_takes() {
        let sent = reaching(1_000, 100);
        assert!((150..320).contains(&sent), "{sent}");
    }

    #[test]
    fn refusals_of_one_priority_hold_back_no_other() {
        let throttle = Throttle::default();
        let now = Duration::from_secs(1);
        for _ in 0..100 {
            throttle.holds_back(now, Priority::Sheddable, 1.0);
            throttle.refused(now);
        }
        assert!(throttle.holds_back(now, Priority::Sheddable, 0.5));
        assert!(!throttle.holds_back(now, Priority::Critical, 0.5));
        // What was long ago is forgotten.
        assert!(!throttle.holds_back(now + Duration::from_secs(30), Priority::Sheddable, 0.5));
    }
}
