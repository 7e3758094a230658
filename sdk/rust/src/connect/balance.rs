//! Which of several endpoints to ask. Pure: no clock, no tokio.

use std::time::Duration;

/// Latencies below this are all as good: their differences are noise of the machine, not load.
const LATENCY_FLOOR: f64 = 0.01;
/// Latencies that differ by less than this factor are as good, too: one hiccup must not silence an instance.
const LATENCY_FACTOR: f64 = 2.0;
/// Over how long a latency is forgotten. Short, for landscapes of few calls: an endpoint that was slow once is asked
/// again within seconds, and at many calls a second the average is over many all the same.
const DECAY: Duration = Duration::from_secs(3);
/// The weight that means "as much as any other".
const WEIGHT_USUAL: f64 = 100.0;

/// The latency of an endpoint: follows peaks at once, forgets them over seconds. After Finagle's peak EWMA.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Latency(Option<Sample>);

#[derive(Clone, Copy, Debug)]
struct Sample {
    seconds: f64,
    at: Duration,
}

impl Latency {
    /// Takes how long an answer took.
    pub(crate) fn observe(&mut self, now: Duration, took: Duration) {
        let took = took.as_secs_f64();
        let seconds = match self.0 {
            Some(last) if took < last.seconds => {
                let kept = kept(now, last.at);
                last.seconds * kept + took * (1.0 - kept)
            }
            Some(_) | None => took,
        };
        self.0 = Some(Sample { seconds, at: now });
    }

    /// The latency to reckon with, in seconds. An endpoint that is not asked is forgiven in time; `None` if it never
    /// answered.
    pub(crate) fn seconds(&self, now: Duration) -> Option<f64> {
        self.0.map(|last| last.seconds * kept(now, last.at))
    }
}

fn kept(now: Duration, then: Duration) -> f64 {
    (-now.saturating_sub(then).as_secs_f64() / DECAY.as_secs_f64()).exp()
}

/// What is known about one endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// [`Latency::seconds`].
    pub(crate) latency: Option<f64>,
    /// Calls not yet answered.
    pub(crate) in_flight: u32,
    /// Relative share of calls; 100 is usual.
    pub(crate) weight: f64,
}

impl Load {
    /// Whether one more call here costs less than there.
    ///
    /// The cost is latency × (in flight / weight + 1): in flight by weight, so that under load shares follow weights;
    /// but an idle endpoint costs its latency alone, so that the draw decides between idle ones, by weight, and a light
    /// endpoint gets its few calls too. Where one has never answered, latency says nothing about the other.
    fn is_below(&self, other: &Self) -> bool {
        let (mine, others) = match (self.latency, other.latency) {
            (Some(mine), Some(others)) => (mine.max(LATENCY_FLOOR), others.max(LATENCY_FLOOR)),
            (None, _) | (_, None) => (1.0, 1.0),
        };
        let is_alike = mine < others * LATENCY_FACTOR && others < mine * LATENCY_FACTOR;
        let (mine, others) = if is_alike { (1.0, 1.0) } else { (mine, others) };
        mine * self.queue() < others * other.queue()
    }

    fn queue(&self) -> f64 {
        f64::from(self.in_flight) * WEIGHT_USUAL / self.weight.max(f64::MIN_POSITIVE) + 1.0
    }
}

/// How willingly an endpoint is asked; only those of the best rank present are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// Like any other.
    Usual,
    /// Only where no other can answer.
    Last,
}

/// Picks the less loaded of two endpoints drawn at random, by weight, among those of the best rank. `None` where none
/// has a rank. After Mitzenmacher, "The Power of Two Choices" (2001).
pub(crate) fn pick(candidates: &[(Rank, Load)], random: &mut fastrand::Rng) -> Option<usize> {
    let best = candidates.iter().map(|(rank, _)| *rank).min()?;
    let draw = |besides: Option<usize>, random: &mut fastrand::Rng| {
        let eligible =
            || candidates.iter().enumerate().filter(move |(index, (rank, _))| *rank == best && Some(*index) != besides);
        let total: f64 = eligible().map(|(_, (_, load))| load.weight).sum();
        let mut point = random.f64() * total;
        let mut last = None;
        for (index, (_, load)) in eligible() {
            last = Some(index);
            point -= load.weight;
            if point < 0.0 {
                break;
            }
        }
        last
    };
    let first = draw(None, random)?;
    match draw(Some(first), random) {
        Some(second) if candidates[second].1.is_below(&candidates[first].1) => Some(second),
        Some(_) | None => Some(first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(weight: f64) -> Load {
        Load { latency: Some(0.001), in_flight: 0, weight }
    }

    fn shares(candidates: &[(Rank, Load)]) -> Vec<u32> {
        let mut random = fastrand::Rng::with_seed(1);
        let mut shares = vec![0; candidates.len()];
        for _ in 0..10_000 {
            shares[pick(candidates, &mut random).unwrap()] += 1;
        }
        shares
    }

    #[test]
    fn idle_endpoints_share_calls_by_weight() {
        let even = shares(&[(Rank::Usual, load(100.0)), (Rank::Usual, load(100.0))]);
        assert!((4_700..5_300).contains(&even[0]), "{even:?}");
        let canary = shares(&[(Rank::Usual, load(90.0)), (Rank::Usual, load(10.0))]);
        assert!((800..1_200).contains(&canary[1]), "{canary:?}");
    }

    #[test]
    fn under_load_shares_follow_weights_too() {
        let mut random = fastrand::Rng::with_seed(3);
        let mut candidates = [(Rank::Usual, load(75.0)), (Rank::Usual, load(25.0))];
        for _ in 0..400 {
            let picked = pick(&candidates, &mut random).unwrap();
            candidates[picked].1.in_flight += 1;
        }
        assert!((280..320).contains(&candidates[0].1.in_flight), "{candidates:?}");
    }

    #[test]
    fn the_slower_of_two_is_left_alone_until_it_is_forgiven() {
        let mut latency = Latency::default();
        latency.observe(Duration::ZERO, Duration::from_secs(1));
        let slow = |seconds| Load { latency: latency.seconds(Duration::from_secs(seconds)), ..load(100.0) };
        assert_eq!(shares(&[(Rank::Usual, slow(0)), (Rank::Usual, load(100.0))])[0], 0);
        assert!(shares(&[(Rank::Usual, slow(20)), (Rank::Usual, load(100.0))])[0] > 4_000);
    }

    #[test]
    fn one_that_never_answered_is_judged_by_its_queue() {
        let fresh = Load { latency: None, in_flight: 1, weight: 100.0 };
        assert_eq!(shares(&[(Rank::Usual, fresh), (Rank::Usual, load(100.0))])[0], 0);
    }

    #[test]
    fn the_last_resort_is_used_only_where_there_is_no_other() {
        let busy = Load { latency: Some(9.0), in_flight: 1_000, weight: 100.0 };
        assert_eq!(shares(&[(Rank::Last, load(100.0)), (Rank::Usual, busy)]), [0, 10_000]);
        assert_eq!(shares(&[(Rank::Last, load(100.0))]), [10_000]);
        assert_eq!(pick(&[], &mut fastrand::Rng::with_seed(0)), None);
    }

    #[test]
    fn a_peak_counts_at_once_and_fades() {
        let mut latency = Latency::default();
        let now = Duration::from_secs(1);
        latency.observe(now, Duration::from_millis(10));
        latency.observe(now, Duration::from_millis(500));
        assert_eq!(latency.seconds(now), Some(0.5));
        latency.observe(now + Duration::from_secs(3), Duration::from_millis(10));
        assert!(latency.seconds(now + Duration::from_secs(3)).unwrap() < 0.25);
    }
}
