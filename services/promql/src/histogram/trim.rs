//! `</` and `>/`: what of a histogram lies below a value, or above it.

use super::{Bucket, Histogram};

impl Histogram {
    /// What is not above a value, or not below it; of a bucket that the value cuts, the share that would lie there. Its sum
    /// becomes that of the middles of its buckets, if anything was cut.
    #[must_use]
    pub(crate) fn trimmed(&self, at: f64, keeps_lower: bool) -> Self {
        let mut trimmed = self.clone();
        let (mut count, mut sum, mut is_cut) = (0.0, 0.0, false);
        let mut keep = |bucket: Bucket| {
            let (kept, middle) = self.kept(&bucket, at, keeps_lower);
            count += kept;
            sum += middle * kept;
            is_cut |= (kept - bucket.count).abs() > 0.0;
            kept
        };
        for (index, of) in &mut trimmed.positive {
            let (lower, upper) = self.edges(*index);
            if *of != 0.0 {
                *of = keep(Bucket { lower, upper, count: *of });
            }
        }
        for (index, of) in &mut trimmed.negative {
            let (lower, upper) = self.edges(*index);
            if *of != 0.0 {
                *of = keep(Bucket { lower: -upper, upper: -lower, count: *of });
            }
        }
        if trimmed.zero_count > 0.0 {
            let whole = Bucket { lower: -self.zero_threshold, upper: self.zero_threshold, count: trimmed.zero_count };
            let (lower, upper) = self.sides(&whole);
            // Around zero all lies evenly.
            let (low, high) =
                if keeps_lower { (lower, at.clamp(lower, upper)) } else { (at.clamp(lower, upper), upper) };
            let kept = whole.count * if upper > lower { (high - low) / (upper - lower) } else { 0.0 };
            count += kept;
            sum += kept * f64::midpoint(low, high);
            is_cut |= (kept - whole.count).abs() > 0.0;
            trimmed.zero_count = kept;
        }
        if is_cut {
            trimmed.count = count;
            trimmed.sum = sum;
            trimmed.positive.retain(|_, count| *count != 0.0);
            trimmed.negative.retain(|_, count| *count != 0.0);
        }
        trimmed
    }

    /// How many of a bucket stay, and where their middle is.
    fn kept(&self, bucket: &Bucket, at: f64, keeps_lower: bool) -> (f64, f64) {
        let is_whole = if keeps_lower { bucket.upper <= at } else { bucket.lower >= at };
        if is_whole {
            return (bucket.count, self.middle(bucket.lower, bucket.upper));
        }
        let is_empty = if keeps_lower { bucket.lower >= at } else { bucket.upper <= at };
        if is_empty {
            return (0.0, 0.0);
        }
        if bucket.upper == f64::INFINITY || bucket.lower == f64::NEG_INFINITY && (bucket.upper <= 0.0 || at < 0.0) {
            return self.kept_of_endless(bucket, at, keeps_lower);
        }
        let (lower, upper) = self.sides(bucket);
        let cut = at.clamp(lower, upper);
        let below = self.share(bucket, cut);
        if keeps_lower {
            (bucket.count * below, self.middle(lower, cut))
        } else {
            (bucket.count * (1.0 - below), self.middle(cut, upper))
        }
    }

    /// Of a bucket without an end nobody knows where its values lie: they count where they surely are.
    fn kept_of_endless(&self, bucket: &Bucket, at: f64, keeps_lower: bool) -> (f64, f64) {
        let is_up = bucket.upper == f64::INFINITY;
        match (is_up, keeps_lower) {
            (true, true) => (0.0, 0.0),
            (true, false) if bucket.lower == f64::NEG_INFINITY => (0.0, 0.0),
            (true, false) => (bucket.count, at.max(bucket.lower)),
            (false, true) if bucket.upper <= 0.0 => (bucket.count, at),
            (false, true | false) => (0.0, 0.0),
        }
    }

    /// The middle between two edges: on the scale of the buckets.
    fn middle(&self, lower: f64, upper: f64) -> f64 {
        if lower == f64::NEG_INFINITY {
            return if upper == f64::INFINITY {
                0.0
            } else if upper > 0.0 {
                upper / 2.0
            } else {
                upper
            };
        }
        if upper == f64::INFINITY {
            return lower;
        }
        if self.is_custom() || lower <= 0.0 && upper >= 0.0 {
            return f64::midpoint(lower, upper);
        }
        let middle = (lower * upper).sqrt();
        if upper < 0.0 { -middle } else { middle }
    }
}
