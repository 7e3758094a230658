//! Samples of one series, packed. Pure.
//!
//! Times as the change of their distance, values as what changed in their bits, after Gorilla
//! (<https://www.vldb.org/pvldb/vol8/p1816-teller.pdf>), in whole bytes: a steady series takes two bytes a sample.

use ninefold_promql::{Point, Sample};

/// How many samples a chunk is packed of.
pub(crate) const CHUNK_SAMPLES: usize = 120;

/// Samples in time order, packed.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// Time of the first, in milliseconds since 1970.
    pub(crate) from: i64,
    /// Time of the last.
    pub(crate) to: i64,
    kept: Kept,
}

#[derive(Debug)]
enum Kept {
    /// Numbers, and how many.
    Packed(Box<[u8]>, usize),
    /// Histograms, as they are.
    Plain(Box<[Sample]>),
}

impl Chunk {
    /// Packs samples in time order. `None` of nothing.
    pub(crate) fn of(samples: Vec<Sample>) -> Option<Self> {
        let (from, to) = (samples.first()?.at, samples.last()?.at);
        let kept = match numbers(&samples) {
            Some(numbers) => Kept::Packed(pack(&numbers).into_boxed_slice(), numbers.len()),
            None => Kept::Plain(samples.into_boxed_slice()),
        };
        Some(Self { from, to, kept })
    }

    /// The samples, in time order.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        match &self.kept {
            Kept::Packed(bytes, count) => unpack(bytes, *count),
            Kept::Plain(samples) => samples.to_vec(),
        }
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        match &self.kept {
            Kept::Packed(_, count) => *count,
            Kept::Plain(samples) => samples.len(),
        }
    }

    /// What it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>()
            + match &self.kept {
                Kept::Packed(bytes, _) => bytes.len(),
                Kept::Plain(samples) => samples.iter().map(cost).sum(),
            }
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

fn numbers(samples: &[Sample]) -> Option<Vec<(i64, u64)>> {
    samples.iter().map(|sample| sample.point.float().map(|value| (sample.at, value.to_bits()))).collect()
}

fn pack(samples: &[(i64, u64)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(samples.len() * 4);
    let (mut at, mut distance, mut bits) = (0_i64, 0_i64, 0_u64);
    for (time, value) in samples {
        let from_before = time.wrapping_sub(at);
        put(&mut bytes, zigzag(from_before.wrapping_sub(distance)));
        (at, distance) = (*time, from_before);
        let changed = value ^ bits;
        bits = *value;
        // How many bytes at the lower end did not change, and how many above them did: one byte tells both.
        let lower = if changed == 0 { 0 } else { changed.trailing_zeros() / 8 };
        let middle = (changed >> (8 * lower)).to_le_bytes();
        let long = middle.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        bytes.push(u8::try_from(lower).unwrap_or_default() << 4 | u8::try_from(long).unwrap_or_default());
        bytes.extend_from_slice(&middle[..long]);
    }
    bytes
}

fn unpack(bytes: &[u8], count: usize) -> Vec<Sample> {
    let mut samples = Vec::with_capacity(count);
    let mut rest = bytes;
    let (mut at, mut distance, mut bits) = (0_i64, 0_i64, 0_u64);
    while let Some((change, behind)) = take(rest) {
        distance = distance.wrapping_add(unzigzag(change));
        at = at.wrapping_add(distance);
        let Some((form, behind)) = behind.split_first() else { break };
        let (lower, long) = (u32::from(form >> 4), usize::from(form & 15));
        let Some((middle, behind)) = behind.split_at_checked(long) else { break };
        let changed = middle.iter().rev().fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
        bits ^= changed << (8 * lower.min(7));
        samples.push(Sample { at, point: Point::Float(f64::from_bits(bits)) });
        rest = behind;
    }
    samples
}

fn put(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
}

fn take(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

const fn zigzag(value: i64) -> u64 {
    (value.wrapping_shl(1) ^ (value >> 63)).cast_unsigned()
}

const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ (value & 1).cast_signed().wrapping_neg()
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
            let back = Chunk::of(given).map(|chunk| chunk.samples()).unwrap_or_default();
            let back: Vec<(i64, u64)> = back.iter().filter_map(|one| Some((one.at, one.point.float()?.to_bits()))).collect();
            prop_assert_eq!(back, samples);
        }
    }

    #[test]
    fn a_steady_series_takes_two_bytes_a_sample_and_a_counter_few() {
        let bytes = |value: fn(i64) -> f64| {
            let samples = (0..120).map(|turn| sample(1_700_000_000_000 + turn * 15_000, value(turn))).collect();
            Chunk::of(samples).map(|chunk| chunk.bytes() - size_of::<Chunk>())
        };
        assert!(bytes(|_| 0.25).is_some_and(|bytes| bytes < 120 * 2 + 20));
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let counter = bytes(|turn| (turn * 7) as f64);
        assert!(counter.is_some_and(|bytes| bytes < 120 * 5), "{counter:?}");
    }
}
