//! What share of answers come within how long, without keeping them. Pure: no clock, no lock.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// How far one answer moves the estimate, relative to it.
const STEP: f64 = 0.1;
/// Answers before which the estimate says nothing.
const SAMPLES_MIN: u32 = 20;

/// An estimate of a quantile of durations that arrive one after another: each above it pushes it up by the quantile's
/// share, each below pulls it down by the rest, so that it settles where the pushes balance. Follows changes within some
/// dozens of answers. After Ma, Muthukrishnan and Sandler, "Frugal Streaming for Estimating Quantiles" (2013), with
/// steps in proportion.
#[derive(Debug)]
pub(crate) struct Quantile {
    share: f64,
    /// Seconds, as the bits of an `f64`. A lost update among threads is one answer less.
    estimate: AtomicU64,
    samples: AtomicU32,
}

impl Quantile {
    /// Estimates the duration within which `share` (0 to 1) of answers come.
    pub(crate) const fn new(share: f64) -> Self {
        Self { share, estimate: AtomicU64::new(0), samples: AtomicU32::new(0) }
    }

    /// Takes how long an answer took.
    pub(crate) fn observe(&self, took: Duration) {
        let took = took.as_secs_f64().max(1e-6);
        let samples = self.samples.load(Ordering::Relaxed);
        if samples < SAMPLES_MIN {
            self.samples.store(samples + 1, Ordering::Relaxed);
        }
        let last = f64::from_bits(self.estimate.load(Ordering::Relaxed));
        let next = if samples == 0 {
            took
        } else if took > last {
            // Never beyond what was seen.
            (last * (1.0 + STEP * self.share)).min(took)
        } else {
            (last * (1.0 - STEP * (1.0 - self.share))).max(took)
        };
        self.estimate.store(next.to_bits(), Ordering::Relaxed);
    }

    /// The estimate. `None` before there were twenty answers.
    pub(crate) fn get(&self) -> Option<Duration> {
        if self.samples.load(Ordering::Relaxed) < SAMPLES_MIN {
            return None;
        }
        Duration::try_from_secs_f64(f64::from_bits(self.estimate.load(Ordering::Relaxed))).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_settles_near_the_quantile() {
        let (half, most) = (Quantile::new(0.5), Quantile::new(0.95));
        let mut random = fastrand::Rng::with_seed(7);
        assert_eq!(half.get(), None);
        for _ in 0..5_000 {
            let took = Duration::from_micros(random.u64(1_000..11_000));
            half.observe(took);
            most.observe(took);
        }
        let (half, most) = (half.get().unwrap().as_secs_f64() * 1e3, most.get().unwrap().as_secs_f64() * 1e3);
        assert!((4.5..7.5).contains(&half), "{half} ms");
        assert!((9.0..11.0).contains(&most), "{most} ms");
    }

    #[test]
    fn it_follows_a_change() {
        let most = Quantile::new(0.95);
        for _ in 0..100 {
            most.observe(Duration::from_millis(1));
        }
        for _ in 0..100 {
            most.observe(Duration::from_millis(100));
        }
        assert_eq!(most.get().unwrap(), Duration::from_millis(100));
    }
}
