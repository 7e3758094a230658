//! Old samples made few. Pure.
//!
//! Of each [`GRAIN_MILLIS`] the last sample stays, and what a question about extremes or totals would miss: of a state its least
//! and its greatest, of a total both sides of each reset. Ends of series stay. So `rate`, `increase`, `min_over_time` and
//! `max_over_time` over several grains answer as before.

use ninefold_promql::{Labels, NAME, Point, Sample, is_stale};

/// Samples of so long a time are made few together. Less than half of the usual lookback, so that no series has gaps.
pub(crate) const GRAIN_MILLIS: i64 = 120_000;
/// What the names of totals end in.
const TOTALS: [&str; 4] = ["_total", "_count", "_sum", "_bucket"];

/// Makes samples in time order few.
pub(crate) fn thin(labels: &Labels, samples: &[Sample]) -> Vec<Sample> {
    let is_total = TOTALS.iter().any(|end| labels.get(NAME).ends_with(end));
    let mut keeps = vec![false; samples.len()];
    let mut from = 0;
    for (at, sample) in samples.iter().enumerate() {
        let grain = sample.at.div_euclid(GRAIN_MILLIS);
        if samples.get(at + 1).is_none_or(|next| next.at.div_euclid(GRAIN_MILLIS) != grain) {
            keeps[at] = true;
            if !is_total {
                extremes(&samples[from..=at]).for_each(|place| keeps[from + place] = true);
            }
            from = at + 1;
        }
        let is_end = sample.point.float().is_some_and(is_stale);
        let was_reset = at > 0 && is_total && is_less(&sample.point, &samples[at - 1].point);
        if is_end || was_reset {
            keeps[at] = true;
            if at > 0 {
                keeps[at - 1] = true;
            }
        }
    }
    samples.iter().zip(keeps).filter(|(_, keeps)| *keeps).map(|(sample, _)| sample.clone()).collect()
}

fn is_less(now: &Point, before: &Point) -> bool {
    match (now, before) {
        (Point::Float(now), Point::Float(before)) => now < before,
        (Point::Histogram(now), Point::Histogram(before)) => now.was_reset_since(before),
        _ => true,
    }
}

/// Places of the least and the greatest number.
fn extremes(samples: &[Sample]) -> impl Iterator<Item = usize> {
    let value = |at: &usize| samples[*at].point.float().filter(|value| !value.is_nan());
    let numbers = || (0..samples.len()).filter_map(|at| value(&at).map(|value| (at, value)));
    let least = numbers().min_by(|(_, left), (_, right)| left.total_cmp(right));
    let greatest = numbers().max_by(|(_, left), (_, right)| left.total_cmp(right));
    [least, greatest].into_iter().flatten().map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use ninefold_promql::STALE;

    use super::*;

    fn samples(values: impl IntoIterator<Item = f64>) -> Vec<Sample> {
        (0..).zip(values).map(|(at, value)| Sample { at: at * 15_000, point: value.into() }).collect()
    }

    fn values(samples: &[Sample]) -> Vec<f64> {
        samples.iter().filter_map(|sample| sample.point.float()).collect()
    }

    #[test]
    fn a_state_keeps_its_last_least_and_greatest() {
        let labels = Labels::new([(NAME, "temperature")]);
        let thinned = thin(&labels, &samples([5.0, 9.0, 5.0, 5.0, 1.0, 5.0, 5.0, 6.0, 2.0, 2.0]));
        assert_eq!(values(&thinned), [9.0, 1.0, 6.0, 2.0, 2.0]);
        assert_eq!(values(&thin(&labels, &thinned)), [9.0, 1.0, 6.0, 2.0, 2.0], "once is enough");
    }

    #[test]
    fn a_total_grows_by_as_much_as_before() {
        let labels = Labels::new([(NAME, "requests_total")]);
        let given = samples([0.0, 1.0, 5.0, 7.0, 2.0, 3.0, 4.0, 9.0, 10.0, 1.0, 2.0]);
        let grown = |samples: &[Sample]| -> f64 {
            values(samples).windows(2).map(|pair| if pair[1] < pair[0] { pair[1] } else { pair[1] - pair[0] }).sum()
        };
        let thinned = thin(&labels, &given);
        assert!(thinned.len() < given.len());
        // The first sample of all may go: what it grew by before is nobody's.
        assert!((grown(&given) - grown(&thinned) - 7.0).abs() < 1e-9, "{thinned:?}");
    }

    #[test]
    fn the_end_of_a_series_stays() {
        let labels = Labels::new([(NAME, "up")]);
        let thinned = thin(&labels, &samples([1.0, 1.0, f64::from_bits(STALE), 1.0, 1.0]));
        assert!(thinned.iter().any(|sample| sample.point.float().is_some_and(is_stale)));
    }
}
