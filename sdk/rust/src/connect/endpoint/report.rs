//! What instances say of their own load, and how far that moves their weights.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bounds of how far an endpoint's word on its load moves its weight.
const FACTOR: RangeInclusive<f32> = 0.1..=10.0;
/// Shares in use of the busiest endpoint at which words on load begin to count, and count in full.
const SHARE_HEEDED: RangeInclusive<f32> = 0.3..=0.6;

/// The last word of an endpoint, as two `f32`.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// What it could do, in calls a second. Zero: it has not said.
    capacity: AtomicU32,
    /// The share of it that is in use.
    share: AtomicU32,
}

/// What an endpoint said: what it could do, in calls a second, and the share of it that is in use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said {
    capacity: f32,
    share: f32,
}

/// What the endpoints of a service said, taken together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usual {
    /// What they can do on average.
    capacity: f32,
    /// How far it counts what each can do.
    heed: f32,
}

impl Report {
    /// Takes calls a second, failed calls a second, and the share of what it can do that it does.
    pub(super) fn take(&self, calls_per_second: f64, failures_per_second: f64, utilization: f64) {
        let share = utilization + failures_per_second.max(0.0) / calls_per_second;
        let capacity = calls_per_second / share;
        if calls_per_second > 0.0 && utilization > 0.0 && capacity.is_finite() {
            #[expect(clippy::cast_possible_truncation, reason = "a weight needs no more digits")]
            let (capacity, share) = (capacity as f32, share as f32);
            self.capacity.store(capacity.to_bits(), Ordering::Relaxed);
            self.share.store(share.to_bits(), Ordering::Relaxed);
        }
    }

    /// What it said.
    pub(super) fn said(&self) -> Option<Said> {
        let [capacity, share] = [&self.capacity, &self.share].map(|bits| f32::from_bits(bits.load(Ordering::Relaxed)));
        (capacity > 0.0).then_some(Said { capacity, share })
    }

    /// How much more, or less, it is to be called for its word.
    pub(super) fn factor(&self, usual: Option<Usual>) -> f32 {
        match (self.said(), usual) {
            (Some(own), Some(usual)) => {
                (own.capacity / usual.capacity).clamp(*FACTOR.start(), *FACTOR.end()).powf(usual.heed)
            }
            (Some(_) | None, _) => 1.0,
        }
    }
}

impl Usual {
    /// What they said together. `None` while fewer than two have said anything.
    ///
    /// While all have plenty of room, their words do not count: an idle instance is busy with itself, and what it could do,
    /// reckoned by that, grows with the calls that it gets, so whoever has a larger weight would be given ever more.
    pub(crate) fn of(said: &[Said]) -> Option<Self> {
        if said.len() < 2 {
            return None;
        }
        let busiest = said.iter().map(|said| said.share).fold(0.0, f32::max);
        let heed = (busiest - SHARE_HEEDED.start()) / (SHARE_HEEDED.end() - SHARE_HEEDED.start());
        let capacity = said.iter().map(|said| said.capacity).sum::<f32>() / said.len() as f32;
        Some(Self { capacity, heed: heed.clamp(0.0, 1.0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The factors of two endpoints that get ten and a hundred calls a second, with these shares of them in use.
    fn factors(shares: [f64; 2]) -> [f32; 2] {
        let reports = [Report::default(), Report::default()];
        for ((report, calls), share) in reports.iter().zip([10.0, 100.0]).zip(shares) {
            report.take(calls, 0.0, share);
        }
        let said: Vec<Said> = reports.iter().filter_map(Report::said).collect();
        reports.map(|report| report.factor(Usual::of(&said)))
    }

    #[test]
    fn what_instances_say_counts_once_one_of_them_is_busy() {
        let is = |factors: [f32; 2], wanted: [f32; 2]| {
            factors.iter().zip(wanted).all(|(factor, wanted)| (factor - wanted).abs() < 0.01)
        };
        assert!(is(factors([0.02, 0.03]), [1.0, 1.0]), "all have plenty of room");
        assert!(is(factors([0.05, 0.5]), [1.0, 1.0]), "they can do the same");
        assert!(is(factors([0.1, 0.9]), [0.947, 1.053]), "one is busy");
        assert!(is(factors([0.2, 0.3]), [1.0, 1.0]));
    }
}
