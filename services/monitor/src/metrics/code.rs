//! How readings and samples are written as bytes: numbers that are small take little. Pure; reading never trusts a length.

use std::collections::BTreeMap;

use ninefold_promql::{Histogram, Labels, Point, STALE, Sample};

use super::store::Reading;

/// Whole numbers below this keep their value as a float.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
/// All values of a series are whole numbers, or its end.
const WHOLE: u8 = 0;
/// All values of a series are numbers.
const FLOATS: u8 = 1;
/// Some values of a series are histograms.
const MIXED: u8 = 2;

/// Writes a number: seven bits a byte, the low ones first.
pub(crate) fn put(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
}

/// Writes a number that may be below zero.
pub(crate) fn put_signed(bytes: &mut Vec<u8>, value: i64) {
    put(bytes, zigzag(value));
}

/// Writes how many there are of something.
pub(crate) fn put_len(bytes: &mut Vec<u8>, len: usize) {
    put(bytes, len as u64);
}

/// Writes a text.
pub(crate) fn put_text(bytes: &mut Vec<u8>, text: &str) {
    put_len(bytes, text.len());
    bytes.extend_from_slice(text.as_bytes());
}

/// Writes labels.
pub(crate) fn put_labels(bytes: &mut Vec<u8>, labels: &Labels) {
    put_len(bytes, labels.iter().count());
    for (name, value) in labels.iter() {
        put_text(bytes, name);
        put_text(bytes, value);
    }
}

const fn zigzag(value: i64) -> u64 {
    (value.wrapping_shl(1) ^ (value >> 63)).cast_unsigned()
}

const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ (value & 1).cast_signed().wrapping_neg()
}

/// Bytes that are read from the front. `None` where they end too early, or say what cannot be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    /// So many bytes.
    pub(crate) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.bytes(1).map(|bytes| bytes[0])
    }

    /// A number.
    pub(crate) fn number(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for at in 0..10 {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// A number that may be below zero.
    pub(crate) fn signed(&mut self) -> Option<i64> {
        self.number().map(unzigzag)
    }

    /// How many there are of something that takes at least a byte each.
    pub(crate) fn len(&mut self) -> Option<usize> {
        let len = usize::try_from(self.number()?).ok()?;
        (len <= self.0.len()).then_some(len)
    }

    /// A text.
    pub(crate) fn text(&mut self) -> Option<&'a str> {
        let len = self.len()?;
        std::str::from_utf8(self.bytes(len)?).ok()
    }

    /// Labels.
    pub(crate) fn labels(&mut self) -> Option<Labels> {
        let pairs = (0..self.len()?).map(|_| Some((self.text()?, self.text()?)));
        Some(Labels::new(pairs.collect::<Option<Vec<_>>>()?))
    }

    fn float(&mut self) -> Option<f64> {
        Some(f64::from_bits(u64::from_le_bytes(self.bytes(8)?.try_into().ok()?)))
    }
}

/// Packs samples of one series, in time order.
pub(crate) fn packed(samples: &[Sample]) -> Vec<u8> {
    let mut columns = Columns::default();
    columns.push(samples);
    columns.bytes()
}

/// Reads what [`packed`] wrote; `None` where that cannot be.
pub(crate) fn unpacked(bytes: &[u8]) -> Option<Vec<Sample>> {
    series(bytes)?.pop()
}

/// Writes readings, as the journal keeps them.
pub(crate) fn encode_readings(readings: &[Reading]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(readings.len() * 128);
    put_len(&mut bytes, readings.len());
    for reading in readings {
        put_labels(&mut bytes, &reading.labels);
        put_signed(&mut bytes, reading.at);
        bytes.push(u8::from(reading.is_added));
        put_point(&mut bytes, &reading.point);
    }
    bytes
}

/// Reads readings.
pub(crate) fn decode_readings(bytes: &[u8]) -> Option<Vec<Reading>> {
    let mut reader = Reader(bytes);
    let each = (0..reader.len()?).map(|_| {
        let (labels, at, is_added) = (reader.labels()?, reader.signed()?, reader.byte()? != 0);
        Some(Reading { labels, at, point: take_point(&mut reader)?, is_added })
    });
    each.collect()
}

fn put_point(bytes: &mut Vec<u8>, point: &Point) {
    match point {
        Point::Float(value) => {
            bytes.push(0);
            bytes.extend_from_slice(&value.to_bits().to_le_bytes());
        }
        Point::Histogram(histogram) => {
            bytes.push(1);
            put_histogram(bytes, histogram);
        }
    }
}

fn take_point(reader: &mut Reader<'_>) -> Option<Point> {
    match reader.byte()? {
        0 => reader.float().map(Point::Float),
        1 => take_histogram(reader).map(Point::from),
        _ => None,
    }
}

fn put_histogram(bytes: &mut Vec<u8>, histogram: &Histogram) {
    put_signed(bytes, histogram.schema.into());
    bytes.push(u8::from(histogram.is_gauge));
    for value in [histogram.zero_threshold, histogram.zero_count, histogram.count, histogram.sum] {
        bytes.extend_from_slice(&value.to_bits().to_le_bytes());
    }
    for side in [&histogram.positive, &histogram.negative] {
        put_len(bytes, side.len());
        for (index, count) in side {
            put_signed(bytes, (*index).into());
            bytes.extend_from_slice(&count.to_bits().to_le_bytes());
        }
    }
    put_len(bytes, histogram.bounds.len());
    for bound in &histogram.bounds {
        bytes.extend_from_slice(&bound.to_bits().to_le_bytes());
    }
}

fn take_histogram(reader: &mut Reader<'_>) -> Option<Histogram> {
    let schema = i32::try_from(reader.signed()?).ok()?;
    let is_gauge = reader.byte()? != 0;
    let (zero_threshold, zero_count) = (reader.float()?, reader.float()?);
    let (count, sum) = (reader.float()?, reader.float()?);
    let mut side = || -> Option<BTreeMap<i32, f64>> {
        (0..reader.len()?).map(|_| Some((i32::try_from(reader.signed()?).ok()?, reader.float()?))).collect()
    };
    let (positive, negative) = (side()?, side()?);
    let bounds = (0..reader.len()?).map(|_| reader.float()).collect::<Option<_>>()?;
    Some(Histogram { schema, is_gauge, zero_threshold, zero_count, count, sum, positive, negative, bounds })
}

/// Samples of many series, what is alike beside each other, so that it packs well.
#[derive(Debug, Default)]
pub(crate) struct Columns {
    forms: Vec<u8>,
    times: Vec<u8>,
    values: Vec<u8>,
    series: usize,
    /// How many samples.
    pub(crate) samples: usize,
}

impl Columns {
    /// Adds a series: samples in time order.
    pub(crate) fn push(&mut self, samples: &[Sample]) {
        self.series += 1;
        self.samples += samples.len();
        let form = form(samples);
        self.forms.push(form);
        put_len(&mut self.forms, samples.len());
        let (mut at, mut distance, mut before, mut bits) = (0_i64, 0_i64, 0_i64, 0_u64);
        for sample in samples {
            let from_before = sample.at.wrapping_sub(at);
            put_signed(&mut self.times, from_before.wrapping_sub(distance));
            (at, distance) = (sample.at, from_before);
            match (&sample.point, form) {
                (Point::Float(value), WHOLE) => {
                    let Some(value) = whole(*value) else {
                        put(&mut self.values, 0);
                        continue;
                    };
                    put(&mut self.values, zigzag(value - before) + 1);
                    before = value;
                }
                (Point::Float(value), FLOATS) => {
                    put_change(&mut self.values, value.to_bits() ^ bits);
                    bits = value.to_bits();
                }
                (point, _) => put_point(&mut self.values, point),
            }
        }
    }

    /// All of it.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.forms.len() + self.times.len() + self.values.len() + 16);
        put_len(&mut bytes, self.series);
        for column in [&self.forms, &self.times, &self.values] {
            put_len(&mut bytes, column.len());
            bytes.extend_from_slice(column);
        }
        bytes
    }
}

/// Reads the series of some columns, in the order in which they were added.
pub(crate) fn series(bytes: &[u8]) -> Option<Vec<Vec<Sample>>> {
    let mut reader = Reader(bytes);
    let count = reader.len()?;
    let mut column = || {
        let len = reader.len()?;
        reader.bytes(len).map(Reader)
    };
    let (mut forms, mut times, mut values) = (column()?, column()?, column()?);
    (0..count)
        .map(|_| {
            let (form, len) = (forms.byte()?, usize::try_from(forms.number()?).ok()?);
            if len > times.0.len() {
                return None;
            }
            take_series(form, len, &mut times, &mut values)
        })
        .collect()
}

fn take_series(form: u8, len: usize, times: &mut Reader<'_>, values: &mut Reader<'_>) -> Option<Vec<Sample>> {
    let (mut at, mut distance, mut before, mut bits) = (0_i64, 0_i64, 0_i64, 0_u64);
    let each = (0..len).map(|_| {
        distance = distance.wrapping_add(times.signed()?);
        at = at.wrapping_add(distance);
        let point = match form {
            WHOLE => match values.number()? {
                0 => Point::Float(f64::from_bits(STALE)),
                change => {
                    before = before.wrapping_add(unzigzag(change - 1));
                    #[expect(clippy::cast_precision_loss, reason = "it was a float before")]
                    Point::Float(before as f64)
                }
            },
            FLOATS => {
                bits ^= take_change(values)?;
                Point::Float(f64::from_bits(bits))
            }
            MIXED => take_point(values)?,
            _ => return None,
        };
        Some(Sample { at, point })
    });
    each.collect()
}

fn form(samples: &[Sample]) -> u8 {
    let mut form = WHOLE;
    for sample in samples {
        match sample.point.float() {
            None => return MIXED,
            Some(value) if value.to_bits() == STALE || whole(value).is_some() => {}
            Some(_) => form = FLOATS,
        }
    }
    form
}

#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "it is compared to the bit")]
fn whole(value: f64) -> Option<i64> {
    let whole = value as i64;
    (value.abs() < WHOLE_MAX && (whole as f64).to_bits() == value.to_bits()).then_some(whole)
}

/// Writes which bits changed: how many bytes at the lower end did not, how many above them did, and those.
fn put_change(bytes: &mut Vec<u8>, changed: u64) {
    let lower = if changed == 0 { 0 } else { changed.trailing_zeros() / 8 };
    let middle = (changed >> (8 * lower)).to_le_bytes();
    let long = middle.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes.push(u8::try_from(lower).unwrap_or_default() << 4 | u8::try_from(long).unwrap_or_default());
    bytes.extend_from_slice(&middle[..long]);
}

fn take_change(reader: &mut Reader<'_>) -> Option<u64> {
    let form = reader.byte()?;
    let (lower, long) = (u32::from(form >> 4), usize::from(form & 15));
    let middle = reader.bytes(long.min(8))?;
    let changed = middle.iter().rev().fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
    Some(changed << (8 * lower.min(7)))
}

#[cfg(test)]
mod tests {
    use ninefold_promql::NAME;
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = u64> {
        prop_oneof![any::<u64>(), Just(STALE), any::<i32>().prop_map(|whole| f64::from(whole).to_bits())]
    }

    proptest! {
        #[test]
        fn series_come_back_to_the_bit(
            all in proptest::collection::vec(proptest::collection::vec((any::<i64>(), value()), 0..50), 0..8),
        ) {
            let mut columns = Columns::default();
            for one in &all {
                let sample = |(at, bits): &(i64, u64)| Sample { at: *at, point: Point::Float(f64::from_bits(*bits)) };
                columns.push(&one.iter().map(sample).collect::<Vec<_>>());
            }
            let back = series(&columns.bytes()).unwrap_or_default();
            let bits = |one: &Sample| (one.at, one.point.float().map_or(0, f64::to_bits));
            let back: Vec<Vec<_>> = back.iter().map(|one| one.iter().map(bits).collect()).collect();
            prop_assert_eq!(back, all);
        }

        #[test]
        fn whatever_is_read_nothing_breaks(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = (series(&bytes), decode_readings(&bytes));
        }
    }

    #[test]
    fn readings_come_back_histograms_too() {
        let histogram = Histogram {
            schema: 3,
            count: 4.0,
            sum: -0.5,
            positive: BTreeMap::from([(-2, 1.0), (7, 2.0)]),
            negative: BTreeMap::from([(0, 1.0)]),
            ..Histogram::default()
        };
        let labels = Labels::new([(NAME, "m"), ("a", "ü")]);
        let point = Point::from(histogram);
        let given = vec![
            Reading { labels: labels.clone(), at: -5, point: point.clone(), is_added: true },
            Reading { labels, at: 7, point: Point::Float(0.1), is_added: false },
        ];
        assert_eq!(decode_readings(&encode_readings(&given)), Some(given));
        let mut columns = Columns::default();
        let samples = [Sample { at: 1, point }, Sample { at: 2, point: Point::Float(1.0) }];
        columns.push(&samples);
        assert_eq!(series(&columns.bytes()), Some(vec![samples.to_vec()]));
    }
}
