//! Many histograms in the same buckets, and together.

use std::collections::{BTreeMap, BTreeSet};

use super::Histogram;

/// All in the finest buckets that all of them have. `None` of none, and if only some have bounds of their own.
pub(super) fn aligned(all: &[&Histogram]) -> Option<Vec<Histogram>> {
    let first = all.first()?;
    if all.iter().any(|other| other.is_custom() != first.is_custom()) {
        return None;
    }
    if first.is_custom() {
        let mut bounds = first.bounds.clone();
        for other in &all[1..] {
            bounds.retain(|bound| other.bounds.iter().any(|same| same.total_cmp(bound).is_eq()));
        }
        return Some(all.iter().map(|one| fitted(one, &bounds)).collect());
    }
    let schema = all.iter().map(|one| one.schema).min()?;
    let mut threshold = all.iter().map(|one| one.zero_threshold).fold(0.0, f64::max);
    loop {
        // A zero bucket grows to the end of a bucket that it would cut, and then the others grow with it.
        let made: Vec<Histogram> = all.iter().map(|one| one.coarser(schema, threshold)).collect();
        let widest = made.iter().map(|one| one.zero_threshold).fold(threshold, f64::max);
        if widest <= threshold {
            return Some(made);
        }
        threshold = widest;
    }
}

/// The same with fewer bounds.
fn fitted(histogram: &Histogram, bounds: &[f64]) -> Histogram {
    if histogram.bounds == bounds {
        return histogram.clone();
    }
    let mut positive = BTreeMap::new();
    for (index, count) in &histogram.positive {
        let (_, upper) = histogram.edges(*index);
        let at = bounds.iter().position(|bound| *bound >= upper).unwrap_or(bounds.len());
        *positive.entry(i32::try_from(at).unwrap_or(i32::MAX)).or_default() += count;
    }
    Histogram { positive, bounds: bounds.to_vec(), ..histogram.clone() }
}

impl Histogram {
    /// All together, each count and each sum by itself. `None` of none, and if only some have bounds of their own.
    pub(crate) fn folded(all: &[&Self], fold: impl Fn(&[f64]) -> f64) -> Option<Self> {
        let all = aligned(all)?;
        let of = |get: &dyn Fn(&Self) -> f64| fold(&all.iter().map(get).collect::<Vec<_>>());
        let buckets = |get: &dyn Fn(&Self) -> &BTreeMap<i32, f64>| -> BTreeMap<i32, f64> {
            let indexes: BTreeSet<i32> = all.iter().flat_map(|one| get(one).keys().copied()).collect();
            let count = |index| of(&|one| get(one).get(&index).copied().unwrap_or_default());
            indexes.into_iter().map(|index| (index, count(index))).collect()
        };
        Some(Self {
            is_gauge: all.iter().any(|one| one.is_gauge),
            zero_count: of(&|one| one.zero_count),
            count: of(&|one| one.count),
            sum: of(&|one| one.sum),
            positive: buckets(&|one| &one.positive),
            negative: buckets(&|one| &one.negative),
            ..all.first()?.clone()
        })
    }
}

impl std::fmt::Display for Histogram {
    /// Writes count, sum and buckets, as `count_values` tells them apart.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use crate::model::show;
        write!(f, "{{count:{}, sum:{}", show(self.count), show(self.sum))?;
        for bucket in self.buckets() {
            // The end at zero belongs to no bucket; the zero bucket has both of its ends.
            let is_zero = bucket.lower < 0.0 && bucket.upper > 0.0 && !self.is_custom();
            let open = if bucket.upper <= 0.0 && !self.is_custom() || is_zero { '[' } else { '(' };
            let close = if bucket.upper <= 0.0 && !self.is_custom() { ')' } else { ']' };
            write!(f, ", {open}{},{}{close}:{}", show(bucket.lower), show(bucket.upper), show(bucket.count))?;
        }
        f.write_str("}")
    }
}
