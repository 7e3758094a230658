//! Samples of one series, packed. Pure.
//!
//! Times as the change of their distance, whole numbers as their differences, others as what changed in their bits, after
//! Gorilla (<https://www.vldb.org/pvldb/vol8/p1816-teller.pdf>), in whole bytes: a steady series takes two bytes a sample.

use ninefold_promql::{Point, Sample};

use super::code::{Columns, series};

/// How many samples a chunk is packed of.
pub(crate) const CHUNK_SAMPLES: usize = 120;

/// Samples in time order, packed.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// Time of the first, in milliseconds since 1970.
    pub(crate) from: i64,
    /// Time of the last.
    pub(crate) to: i64,
    packed: Box<[u8]>,
    count: usize,
}

impl Chunk {
    /// Packs samples in time order. `None` of nothing.
    pub(crate) fn of(samples: &[Sample]) -> Option<Self> {
        let (from, to) = (samples.first()?.at, samples.last()?.at);
        let mut columns = Columns::default();
        columns.push(samples);
        Some(Self { from, to, packed: columns.bytes().into_boxed_slice(), count: samples.len() })
    }

    /// The samples, in time order.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        series(&self.packed).and_then(|mut all| all.pop()).unwrap_or_default()
    }

    /// How many.
    pub(crate) const fn len(&self) -> usize {
        self.count
    }

    /// What it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.packed.len()
    }
}

/// What a sample takes in memory while it is not packed.
pub(crate) fn cost(sample: &Sample) -> usize {
    size_of::<Sample>()
        + match &sample.point {
            Point::Float(_) => 0,
            // A leaf of a tree of buckets holds eleven of them; two thirds are used.
            Point::Histogram(histogram) => {
                size_of_val(&**histogram)
                    + 24 * (histogram.positive.len() + histogram.negative.len())
                    + 8 * histogram.bounds.len()
            }
        }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(at: i64, value: f64) -> Sample {
        Sample { at, point: Point::Float(value) }
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_out_to_the_bit(
            samples in proptest::collection::vec((any::<i64>(), any::<u64>()), 1..200),
        ) {
            let given: Vec<Sample> = samples.iter().map(|(at, bits)| sample(*at, f64::from_bits(*bits))).collect();
            let back = Chunk::of(&given).map(|chunk| chunk.samples()).unwrap_or_default();
            let back: Vec<(i64, u64)> = back.iter().filter_map(|one| Some((one.at, one.point.float()?.to_bits()))).collect();
            prop_assert_eq!(back, samples);
        }
    }

    #[test]
    fn a_steady_series_takes_two_bytes_a_sample_and_a_counter_few() {
        let bytes = |value: fn(i64) -> f64| {
            let samples: Vec<Sample> =
                (0..120).map(|turn| sample(1_700_000_000_000 + turn * 15_000, value(turn))).collect();
            Chunk::of(&samples).map(|chunk| chunk.bytes() - size_of::<Chunk>())
        };
        assert!(bytes(|_| 0.25).is_some_and(|bytes| bytes < 120 * 2 + 20));
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let counter = bytes(|turn| (turn * 7) as f64);
        assert!(counter.is_some_and(|bytes| bytes < 120 * 2 + 20), "{counter:?}");
    }
}
