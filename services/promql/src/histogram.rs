//! Native histograms: exponential buckets, or bounds of one's own.
//!
//! As Prometheus 3 defines them: bucket `i` of a schema `s` ends at `2^(i · 2^-s)`, its end included.

mod gather;
mod trim;

use std::collections::BTreeMap;

/// Schema of histograms whose bounds are told.
pub const CUSTOM: i32 = -53;

/// A native histogram.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// How fine buckets are: -4 to 8, or [`CUSTOM`].
    pub schema: i32,
    /// Whether it may go down without having been reset.
    pub is_gauge: bool,
    /// Values not further from zero than this are in the zero bucket.
    pub zero_threshold: f64,
    /// How many are in the zero bucket.
    pub zero_count: f64,
    /// How many there are.
    pub count: f64,
    /// Their sum.
    pub sum: f64,
    /// Buckets above zero, by index.
    pub positive: BTreeMap<i32, f64>,
    /// Buckets below zero, by index.
    pub negative: BTreeMap<i32, f64>,
    /// Upper bounds, for [`CUSTOM`] alone. The last bucket has none.
    pub bounds: Vec<f64>,
}

/// A bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// Where it begins.
    pub lower: f64,
    /// Where it ends.
    pub upper: f64,
    /// How many are in it.
    pub count: f64,
}

impl Histogram {
    /// Whether its bounds are told.
    pub const fn is_custom(&self) -> bool {
        self.schema == CUSTOM
    }

    /// All buckets that hold something, from the least upwards.
    pub fn buckets(&self) -> Vec<Bucket> {
        let mut all = Vec::with_capacity(self.negative.len() + 1 + self.positive.len());
        for (index, count) in self.negative.iter().rev() {
            let (lower, upper) = self.edges(*index);
            all.push(Bucket { lower: -upper, upper: -lower, count: *count });
        }
        if self.zero_count > 0.0 {
            all.push(Bucket { lower: -self.zero_threshold, upper: self.zero_threshold, count: self.zero_count });
        }
        for (index, count) in &self.positive {
            let (lower, upper) = self.edges(*index);
            all.push(Bucket { lower, upper, count: *count });
        }
        all.retain(|bucket| bucket.count != 0.0);
        all
    }

    fn edges(&self, index: i32) -> (f64, f64) {
        if self.is_custom() {
            let at = usize::try_from(index).unwrap_or_default();
            let lower =
                if at == 0 { f64::NEG_INFINITY } else { self.bounds.get(at - 1).copied().unwrap_or(f64::INFINITY) };
            return (lower, self.bounds.get(at).copied().unwrap_or(f64::INFINITY));
        }
        let edge = |index: i32| (f64::from(index) * f64::from(-self.schema).exp2()).exp2();
        (edge(index.saturating_sub(1)), edge(index))
    }

    /// Everything times a factor.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Self {
        let mut scaled = self.clone();
        scaled.zero_count *= factor;
        scaled.count *= factor;
        scaled.sum *= factor;
        scaled.positive.values_mut().chain(scaled.negative.values_mut()).for_each(|count| *count *= factor);
        scaled
    }

    /// Everything divided. By zero, no bucket stays: nobody knows what was in it.
    #[must_use]
    pub fn divided(&self, by: f64) -> Self {
        let mut divided = self.clone();
        divided.zero_count /= by;
        divided.count /= by;
        divided.sum /= by;
        if by == 0.0 {
            divided.positive.clear();
            divided.negative.clear();
        }
        divided.positive.values_mut().chain(divided.negative.values_mut()).for_each(|count| *count /= by);
        divided
    }

    /// Both together, in buckets that both have. `None` if only one has bounds of its own.
    pub fn plus(&self, other: &Self) -> Option<Self> {
        self.joined(other, 1.0)
    }

    /// This without another, in buckets that both have. `None` if only one has bounds of its own.
    pub fn minus(&self, other: &Self) -> Option<Self> {
        self.joined(other, -1.0)
    }

    fn joined(&self, other: &Self, sign: f64) -> Option<Self> {
        let [mut sum, other]: [Self; 2] = gather::aligned(&[self, other])?.try_into().ok()?;
        sum.zero_count += sign * other.zero_count;
        sum.count += sign * other.count;
        sum.sum += sign * other.sum;
        for (index, count) in &other.positive {
            *sum.positive.entry(*index).or_default() += sign * count;
        }
        for (index, count) in &other.negative {
            *sum.negative.entry(*index).or_default() += sign * count;
        }
        sum.is_gauge = self.is_gauge || other.is_gauge;
        Some(sum)
    }

    /// The same in wider buckets and with a wider zero bucket. The zero bucket grows to the end of each bucket that it
    /// would cut in two.
    fn coarser(&self, schema: i32, threshold: f64) -> Self {
        let mut coarse = self.clone();
        if !self.is_custom() && schema < self.schema {
            let shift = self.schema - schema;
            let widen = |buckets: &BTreeMap<i32, f64>| {
                let mut wide = BTreeMap::new();
                for (index, count) in buckets {
                    // An index counts from one for what ends above one: as `ceil(index / 2^shift)`.
                    *wide.entry(((index - 1) >> shift) + 1).or_default() += count;
                }
                wide
            };
            coarse.positive = widen(&self.positive);
            coarse.negative = widen(&self.negative);
            coarse.schema = schema;
        }
        if threshold > coarse.zero_threshold {
            coarse.zero_threshold = threshold;
            for is_positive in [true, false] {
                let buckets = if is_positive { coarse.positive.clone() } else { coarse.negative.clone() };
                for (index, count) in buckets {
                    let (lower, upper) = coarse.edges(index);
                    if lower >= coarse.zero_threshold {
                        break;
                    }
                    coarse.zero_threshold = coarse.zero_threshold.max(upper);
                    coarse.zero_count += count;
                    let of = if is_positive { &mut coarse.positive } else { &mut coarse.negative };
                    of.remove(&index);
                }
            }
        }
        coarse
    }

    /// Whether this cannot be what became of `before` without a reset in between.
    pub fn was_reset_since(&self, before: &Self) -> bool {
        if self.count < before.count || self.is_custom() != before.is_custom() {
            return true;
        }
        if self.schema > before.schema || self.zero_threshold < before.zero_threshold {
            return true;
        }
        if self.bounds != before.bounds {
            let both = gather::aligned(&[self, before]);
            return both.is_none_or(|both| both[0].was_reset_since(&both[1]));
        }
        let before = before.coarser(self.schema, self.zero_threshold);
        let less = |now: &BTreeMap<i32, f64>, then: &BTreeMap<i32, f64>| {
            then.iter().any(|(index, count)| now.get(index).copied().unwrap_or_default() < *count)
        };
        self.zero_count < before.zero_count
            || less(&self.positive, &before.positive)
            || less(&self.negative, &before.negative)
    }

    /// The value that a share `q` of all is not above. Not a number of an empty one.
    pub fn quantile(&self, q: f64) -> f64 {
        if q < 0.0 {
            return f64::NEG_INFINITY;
        }
        if q > 1.0 {
            return f64::INFINITY;
        }
        if self.count == 0.0 || q.is_nan() {
            return f64::NAN;
        }
        let mut buckets = self.buckets();
        // From the nearer end, so that the least is lost by adding up. What is no number counts, but lies in no bucket: then
        // from below, and what is above all buckets is no number.
        let is_from_below = self.sum.is_nan() || q < 0.5;
        let rank = if is_from_below { q } else { 1.0 - q } * self.count;
        if !is_from_below {
            buckets.reverse();
        }
        let mut passed = 0.0;
        for (at, bucket) in buckets.iter().enumerate() {
            let is_last = at + 1 == buckets.len() && !self.sum.is_nan();
            if passed + bucket.count >= rank || is_last {
                let share = ((rank - passed) / bucket.count).clamp(0.0, 1.0);
                return self.within(bucket, if is_from_below { share } else { 1.0 - share });
            }
            passed += bucket.count;
        }
        f64::NAN
    }

    /// Edges between which values of a bucket can be: the zero bucket of a histogram without values on one side has none there.
    fn sides(&self, bucket: &Bucket) -> (f64, f64) {
        let spans_zero = bucket.lower < 0.0 && bucket.upper > 0.0;
        if spans_zero && !self.is_custom() && self.negative.is_empty() != self.positive.is_empty() {
            if self.negative.is_empty() {
                return (0.0, bucket.upper);
            }
            return (bucket.lower, 0.0);
        }
        if self.is_custom() && bucket.lower == f64::NEG_INFINITY {
            return (if bucket.upper <= 0.0 { bucket.upper } else { 0.0 }, bucket.upper);
        }
        if bucket.upper == f64::INFINITY {
            return (bucket.lower, bucket.lower);
        }
        (bucket.lower, bucket.upper)
    }

    /// The value at a share of a bucket.
    fn within(&self, bucket: &Bucket, share: f64) -> f64 {
        let (lower, upper) = self.sides(bucket);
        if self.is_custom() || lower <= 0.0 && upper >= 0.0 {
            return lower + (upper - lower) * share;
        }
        let (low, high) = (lower.abs().log2(), upper.abs().log2());
        if lower > 0.0 { (low + (high - low) * share).exp2() } else { -(high + (low - high) * (1.0 - share)).exp2() }
    }

    /// Which share of a bucket is below a value.
    fn share(&self, bucket: &Bucket, value: f64) -> f64 {
        // Nobody knows where in a bucket without an end a value lies: all are at its inner edge.
        if bucket.upper == f64::INFINITY {
            return f64::from(u8::from(value == f64::INFINITY));
        }
        if bucket.lower == f64::NEG_INFINITY && bucket.upper <= 0.0 {
            return f64::from(u8::from(value > f64::NEG_INFINITY));
        }
        let (lower, upper) = self.sides(bucket);
        if value >= upper {
            return 1.0;
        }
        if value <= lower {
            return 0.0;
        }
        if self.is_custom() || lower <= 0.0 && upper >= 0.0 {
            return (value - lower) / (upper - lower);
        }
        let (low, high, at) = (lower.abs().log2(), upper.abs().log2(), value.abs().log2());
        if lower > 0.0 { (at - low) / (high - low) } else { (low - at) / (low - high) }
    }

    /// Which share of all is above `lower` and not above `upper`.
    pub fn fraction(&self, lower: f64, upper: f64) -> f64 {
        if self.count == 0.0 || lower.is_nan() || upper.is_nan() {
            return f64::NAN;
        }
        if lower >= upper {
            return 0.0;
        }
        let buckets = self.buckets();
        let below = |value: f64| -> f64 {
            buckets
                .iter()
                .map(|bucket| if bucket.lower >= value { 0.0 } else { bucket.count * self.share(bucket, value) })
                .sum()
        };
        (below(upper) - below(lower)) / self.count
    }

    /// How far values lie from their mean, squared, by the middle of each bucket.
    pub fn variance(&self) -> f64 {
        let mean = self.sum / self.count;
        let mut sum = 0.0;
        for bucket in self.buckets() {
            let middle = if self.is_custom() {
                let (lower, upper) = self.sides(&bucket);
                f64::midpoint(lower, upper)
            } else if bucket.lower <= 0.0 && bucket.upper >= 0.0 {
                0.0
            } else {
                let middle = (bucket.lower * bucket.upper).sqrt();
                if bucket.upper < 0.0 { -middle } else { middle }
            };
            sum += bucket.count * (middle - mean).powi(2);
        }
        sum / self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exponential(schema: i32, positive: &[(i32, f64)]) -> Histogram {
        let count = positive.iter().map(|(_, count)| count).sum();
        Histogram { schema, count, positive: positive.iter().copied().collect(), ..Histogram::default() }
    }

    #[test]
    fn a_quantile_lies_exponentially_between_the_edges_of_its_bucket() {
        // One bucket from 1 to 2: its middle is the square root of two.
        let histogram = exponential(0, &[(1, 4.0)]);
        assert!((histogram.quantile(0.5) - 2.0_f64.sqrt()).abs() < 1e-12);
        assert!((histogram.quantile(1.0) - 2.0).abs() < 1e-12);
        assert!((histogram.fraction(0.0, 2.0_f64.sqrt()) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn histograms_of_different_fineness_meet_in_the_coarser() {
        let fine = exponential(1, &[(1, 1.0), (2, 1.0), (3, 1.0)]);
        let coarse = exponential(0, &[(1, 5.0)]);
        let both = fine.plus(&coarse).expect("both are exponential");
        assert_eq!(both.schema, 0);
        assert_eq!(both.positive, BTreeMap::from([(1, 7.0), (2, 1.0)]));
        assert!((both.count - 8.0).abs() < f64::EPSILON);
        assert_eq!(both.minus(&coarse).expect("as before").positive, BTreeMap::from([(1, 2.0), (2, 1.0)]));
    }

    #[test]
    fn a_bucket_that_shrinks_tells_of_a_reset() {
        let (before, after) = (exponential(0, &[(1, 5.0)]), exponential(0, &[(1, 4.0), (2, 3.0)]));
        assert!(after.was_reset_since(&before));
        assert!(!exponential(0, &[(1, 6.0)]).was_reset_since(&before));
    }
}
