//! How many calls at a time do good, found by what they do to latency. Pure: no clock.
//!
//! While more calls only wait longer for each other, latency grows and nothing else does. The limit follows the ratio of
//! the usual latency to the present one, as Netflix's Gradient2 and Envoy's gradient controller do, with two differences:
//! it begins at its ceiling, so that a service that waits for others is not held for one that is overloaded, and what it
//! compares with is each method's own past, so that a change of the mix is no sign of anything.

use std::time::Duration;

/// How long samples are gathered before they are judged, and how many there must be.
const WINDOW: Duration = Duration::from_millis(100);
const SAMPLES_MIN: u32 = 10;
/// How many times as slow as usual calls may be before that counts as a queue.
const TOLERANCE: f64 = 2.0;
/// The share of a new verdict in the limit.
const SMOOTHING: f64 = 0.2;
/// The limit is never lower. Below it, latency is noise.
const LIMIT_MIN: u32 = 20;
/// Differences of latency that small say nothing, in seconds.
const NOISE: f64 = 0.005;
/// Over how long what is usual is forgotten.
const MEMORY: Duration = Duration::from_secs(30);
/// The same while calls crowd at the limit: an overload that lasts must not become usual, but a service that waits for
/// one that has become slower for good must not be held for overloaded for ever.
const CROWDED_MEMORY: Duration = Duration::from_secs(600);

/// How long a method usually takes: the mean over half a minute.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Baseline {
    seconds: f64,
    at: Duration,
    samples: u32,
}

impl Baseline {
    /// Takes how long a call took, and whether calls crowd at the limit; tells how many times as long as usual it took.
    pub(crate) fn observe(&mut self, now: Duration, took: Duration, is_crowded: bool) -> f64 {
        let took = took.as_secs_f64();
        self.samples = self.samples.saturating_add(1);
        let since = now.saturating_sub(self.at).as_secs_f64();
        // The first ones count more, so that one of them alone decides little.
        let weight = if self.samples <= SAMPLES_MIN {
            1.0 / f64::from(self.samples)
        } else {
            let memory = if is_crowded { CROWDED_MEMORY } else { MEMORY };
            1.0 - (-since / memory.as_secs_f64()).exp()
        };
        let slowness = if self.samples == 1 { 1.0 } else { (took + NOISE) / (self.seconds + NOISE) };
        self.seconds += (took - self.seconds) * weight;
        self.at = now;
        slowness
    }
}

/// A limit that follows latency.
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    limit: f64,
    began: Duration,
    samples: u32,
    slowness: f64,
    peak: u32,
}

impl Limit {
    /// Begins at `most`.
    pub(crate) fn new(most: u32) -> Self {
        Self { limit: f64::from(most), began: Duration::ZERO, samples: 0, slowness: 0.0, peak: 0 }
    }

    /// Whether so many in flight are many.
    pub(crate) fn is_crowded(&self, in_flight: u32) -> bool {
        f64::from(in_flight) * 2.0 >= self.limit
    }

    /// The limit.
    pub(crate) fn get(&self) -> u32 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "kept between two of its kind")]
        let limit = self.limit as u32;
        limit
    }

    /// Takes how many times as slow as usual a call was, and how many were in flight; at most `most` ever may be.
    pub(crate) fn observe(&mut self, now: Duration, slowness: f64, in_flight: u32, most: u32) {
        self.samples += 1;
        self.slowness += slowness;
        self.peak = self.peak.max(in_flight);
        if self.samples < SAMPLES_MIN || now.saturating_sub(self.began) < WINDOW {
            return;
        }
        let gradient = (TOLERANCE * f64::from(self.samples) / self.slowness).clamp(0.5, 1.0);
        let peak = f64::from(self.peak);
        if gradient < 1.0 {
            // What is far above any use is no limit to start from.
            self.limit = self.limit.min(peak * 2.0);
        }
        // Room that nobody uses is no reason for more of it.
        let room = if self.is_crowded(self.peak) { self.limit.sqrt() } else { 0.0 };
        let target = self.limit * gradient + room;
        self.limit = (self.limit + (target - self.limit) * SMOOTHING).max(f64::from(LIMIT_MIN)).min(f64::from(most));
        (self.began, self.samples, self.slowness, self.peak) = (now, 0, 0.0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: u32 = 16_384;

    /// A server that works on `capacity` calls at a time, 10 ms each, under more callers than that: latency grows with
    /// those that are let in. Tells the limit after a minute, and what it was at its highest in the second half.
    fn settle(capacity: u32, callers: u32, service: Duration) -> u32 {
        let (mut baseline, mut limit) = (Baseline::default(), Limit::new(MOST));
        // It has known better times.
        let mut now = Duration::ZERO;
        for _ in 0..100 {
            now += Duration::from_millis(10);
            let slowness = baseline.observe(now, service, false);
            limit.observe(now, slowness, 1, MOST);
        }
        for _ in 0..6_000 {
            now += Duration::from_millis(10);
            let in_flight = limit.get().min(callers);
            let took = service.mul_f64((f64::from(in_flight) / f64::from(capacity)).max(1.0));
            for _ in 0..5 {
                let slowness = baseline.observe(now, took, limit.is_crowded(in_flight));
                limit.observe(now, slowness, in_flight, MOST);
            }
        }
        limit.get()
    }

    #[test]
    fn a_service_that_only_waits_is_not_limited() {
        assert_eq!(settle(100_000, 10_000, Duration::from_secs(5)), MOST);
    }

    #[test]
    fn an_overloaded_service_is_limited_to_a_few_times_what_it_can_do() {
        let limit = settle(50, 5_000, Duration::from_millis(10));
        assert!((50..1_000).contains(&limit), "{limit}");
    }

    #[test]
    fn a_burst_of_slow_calls_at_low_load_leaves_room() {
        let (mut baseline, mut limit) = (Baseline::default(), Limit::new(MOST));
        for second in 0..100 {
            let now = Duration::from_secs(second);
            let took = Duration::from_millis(if second == 50 { 900 } else { 3 });
            let slowness = baseline.observe(now, took, false);
            limit.observe(now, slowness, 1, MOST);
        }
        assert!(limit.get() >= LIMIT_MIN);
    }

    #[test]
    fn the_limit_grows_again_when_it_is_used() {
        let mut limit = Limit::new(MOST);
        let mut now = Duration::ZERO;
        let mut feed = |limit: &mut Limit, slowness: f64, windows: u32| {
            for _ in 0..windows * SAMPLES_MIN {
                now += WINDOW / SAMPLES_MIN;
                let in_flight = limit.get().min(500);
                limit.observe(now, slowness, in_flight, MOST);
            }
        };
        feed(&mut limit, 10.0, 200);
        assert_eq!(limit.get(), LIMIT_MIN);
        feed(&mut limit, 1.0, 600);
        assert!(limit.get() > 300, "{}", limit.get());
    }
}
