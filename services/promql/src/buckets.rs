//! Histograms of old: a counter for each upper bound `le`.

use std::collections::HashMap;

use crate::eval::Row;
use crate::labels::Labels;
use crate::model::Point;

const BOUND: &str = "le";

/// How many values were not above a bound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UpTo {
    pub(crate) bound: f64,
    pub(crate) count: f64,
}

/// A histogram's rows.
pub(crate) struct Group<'r> {
    pub(crate) labels: Labels,
    rows: Vec<(f64, &'r Row)>,
}

/// Rows with a bound, by what else they are, the name of the metric too. Others are left out.
pub(crate) fn groups(rows: &[Row]) -> Vec<Group<'_>> {
    let mut places = HashMap::<Labels, usize>::new();
    let mut groups = Vec::<Group<'_>>::new();
    for row in rows {
        let bound = row.labels.get(BOUND).replace("Inf", "inf").parse::<f64>().ok().filter(|bound| !bound.is_nan());
        let Some(bound) = bound else { continue };
        let labels = row.labels.without(&[BOUND]);
        let at = *places.entry(labels.clone()).or_insert_with(|| {
            groups.push(Group { labels, rows: Vec::new() });
            groups.len() - 1
        });
        groups[at].rows.push((bound, row));
    }
    groups
}

impl Group<'_> {
    /// The buckets at a step, from the least bound upwards, none less than the one before. `None` without any.
    pub(crate) fn at(&self, step: usize) -> Option<Vec<UpTo>> {
        let points = self.rows.iter().filter_map(|(bound, row)| match row.points[step] {
            Some(Point::Float(count)) => Some(UpTo { bound: *bound, count }),
            Some(Point::Histogram(_)) | None => None,
        });
        let mut all: Vec<UpTo> = points.collect();
        all.sort_by(|left, right| left.bound.total_cmp(&right.bound));
        all.dedup_by(|later, kept| {
            let is_same = later.bound.total_cmp(&kept.bound).is_eq();
            if is_same {
                kept.count += later.count;
            }
            is_same
        });
        // Counters are read one after the other, so that a bucket may be ahead of the next.
        let mut least = f64::NEG_INFINITY;
        for bucket in &mut all {
            least = least.max(bucket.count);
            bucket.count = least;
        }
        (!all.is_empty()).then_some(all)
    }
}

/// The value that a share `q` of all is not above. Not a number without a last bucket for all, or of an empty one.
pub(crate) fn quantile(q: f64, buckets: &[UpTo]) -> f64 {
    if q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    let [.., before_last, last] = buckets else { return f64::NAN };
    if last.bound != f64::INFINITY || last.count == 0.0 || last.count.is_nan() {
        return f64::NAN;
    }
    let rank = q * last.count;
    let at = buckets.iter().position(|bucket| bucket.count >= rank).unwrap_or(buckets.len() - 1);
    if at == buckets.len() - 1 {
        return before_last.bound;
    }
    let bucket = buckets[at];
    let Some(before) = at.checked_sub(1).map(|before| buckets[before]) else {
        return if bucket.bound <= 0.0 { bucket.bound } else { bucket.bound * (rank / bucket.count) };
    };
    before.bound + (bucket.bound - before.bound) * ((rank - before.count) / (bucket.count - before.count))
}

/// Which share of all is above `lower` and not above `upper`.
pub(crate) fn fraction(lower: f64, upper: f64, buckets: &[UpTo]) -> f64 {
    let Some(last) = buckets.last() else { return f64::NAN };
    if last.bound != f64::INFINITY || last.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let below = |value: f64| {
        let at = buckets.partition_point(|bucket| bucket.bound <= value);
        let (start, below) = match at.checked_sub(1) {
            Some(before) => (buckets[before].bound, buckets[before].count),
            None if buckets[0].bound > 0.0 => (0.0_f64.min(value), 0.0),
            None => (f64::NEG_INFINITY, 0.0),
        };
        match buckets.get(at) {
            None => last.count,
            Some(_) if start.is_infinite() && value.is_infinite() => 0.0,
            Some(bucket) if start.is_infinite() => bucket.count,
            Some(bucket) if bucket.bound.is_infinite() => below,
            Some(bucket) => below + (bucket.count - below) * ((value - start) / (bucket.bound - start)),
        }
    };
    (below(upper) - below(lower)) / last.count
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUCKETS: [UpTo; 3] =
        [UpTo { bound: 1.0, count: 5.0 }, UpTo { bound: 2.0, count: 15.0 }, UpTo { bound: f64::INFINITY, count: 20.0 }];

    #[test]
    fn quantiles_lie_between_the_bounds() {
        assert!((quantile(0.5, &BUCKETS) - 1.5).abs() < 1e-12);
        assert!((quantile(0.125, &BUCKETS) - 0.5).abs() < 1e-12);
        assert!((quantile(0.99, &BUCKETS) - 2.0).abs() < 1e-12, "nothing is known beyond the last bound");
        assert!(quantile(0.5, &BUCKETS[..2]).is_nan(), "a bucket for all is missing");
    }

    #[test]
    fn fractions_are_the_other_way_round() {
        assert!((fraction(0.0, 1.5, &BUCKETS) - 0.5).abs() < 1e-12);
        assert!((fraction(f64::NEG_INFINITY, f64::INFINITY, &BUCKETS) - 1.0).abs() < 1e-12);
    }
}
