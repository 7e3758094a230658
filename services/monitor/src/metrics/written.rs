//! What Prometheus' remote write 1.0 says, after <https://prometheus.io/docs/specs/prw/remote_write_spec/>. Pure.

use std::collections::BTreeMap;

use ninefold_promql::{Histogram, Labels, Point};
use prost::Message;

use super::about::{About, Type};
use super::exemplars::{Exemplar, Said};
use super::store::Reading;

/// Most buckets of one side of a histogram.
const BUCKETS_MAX: usize = 10_000;

/// A request: `prometheus.WriteRequest`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Written {
    #[prost(message, repeated, tag = "1")]
    series: Vec<TimeSeries>,
    #[prost(message, repeated, tag = "3")]
    metadata: Vec<Metadata>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    exemplars: Vec<Pointed>,
    #[prost(message, repeated, tag = "4")]
    histograms: Vec<Native>,
}

/// `prometheus.Exemplar`.
#[derive(Clone, PartialEq, Message)]
struct Pointed {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(int64, tag = "3")]
    at: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Sample {
    #[prost(double, tag = "1")]
    pub(super) value: f64,
    #[prost(int64, tag = "2")]
    pub(super) at: i64,
    /// When the counter began. Only version 2.0 says it.
    #[prost(int64, tag = "3")]
    pub(super) begin: i64,
}

/// `prometheus.Histogram`, in both versions. Whole numbers come as differences between buckets, others as they are.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Native {
    #[prost(uint64, optional, tag = "1")]
    count_whole: Option<u64>,
    #[prost(double, optional, tag = "2")]
    count: Option<f64>,
    #[prost(double, tag = "3")]
    sum: f64,
    #[prost(sint32, tag = "4")]
    schema: i32,
    #[prost(double, tag = "5")]
    zero_threshold: f64,
    #[prost(uint64, optional, tag = "6")]
    zero_whole: Option<u64>,
    #[prost(double, optional, tag = "7")]
    zero: Option<f64>,
    #[prost(message, repeated, tag = "8")]
    negative_spans: Vec<Run>,
    #[prost(sint64, repeated, tag = "9")]
    negative_deltas: Vec<i64>,
    #[prost(double, repeated, tag = "10")]
    negative_counts: Vec<f64>,
    #[prost(message, repeated, tag = "11")]
    positive_spans: Vec<Run>,
    #[prost(sint64, repeated, tag = "12")]
    positive_deltas: Vec<i64>,
    #[prost(double, repeated, tag = "13")]
    positive_counts: Vec<f64>,
    #[prost(int32, tag = "14")]
    reset_hint: i32,
    #[prost(int64, tag = "15")]
    pub(super) at: i64,
    #[prost(double, repeated, tag = "16")]
    bounds: Vec<f64>,
}

/// Buckets beside each other: how far behind the run before, and how many.
#[derive(Clone, PartialEq, Message)]
struct Run {
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(int32, tag = "1")]
    of: i32,
    #[prost(string, tag = "2")]
    metric: String,
    #[prost(string, tag = "4")]
    help: String,
    #[prost(string, tag = "5")]
    unit: String,
}

/// The reset hint of a histogram that may go down.
const GAUGE: i32 = 3;

impl Written {
    /// Single measurements that say more of themselves.
    pub(crate) fn exemplars(&self) -> Vec<Said> {
        let labels = |all: &[Label]| Labels::new(all.iter().map(|one| (one.name.as_str(), one.value.as_str())));
        let of = |series: &TimeSeries| -> Vec<Said> {
            let own = labels(&series.labels);
            let each = series.exemplars.iter();
            each.map(|one| (own.clone(), Exemplar { at: one.at, value: one.value, labels: labels(&one.labels) }))
                .collect()
        };
        self.series.iter().filter(|series| !series.exemplars.is_empty()).flat_map(of).collect()
    }

    /// What was measured, and what is known of it.
    pub(crate) fn readings(self) -> (Vec<Reading>, BTreeMap<String, About>) {
        let mut readings = Vec::new();
        for series in self.series {
            let labels = Labels::new(series.labels.into_iter().map(|label| (label.name, label.value)));
            let mut put = |at, point: Point| {
                readings.push(Reading { labels: labels.clone(), at, point, is_added: false });
            };
            series.samples.iter().for_each(|sample| put(sample.at, sample.value.into()));
            series.histograms.iter().for_each(|histogram| put(histogram.at, histogram.native().into()));
        }
        let about = self.metadata.into_iter().map(|one| {
            let of = match one.of {
                1 => Type::Counter,
                2 => Type::Gauge,
                3 | 4 => Type::Histogram,
                5 => Type::Summary,
                6 => Type::Info,
                _ => Type::Unknown,
            };
            (one.metric, About { of, unit: one.unit, help: one.help })
        });
        (readings, about.collect())
    }
}

impl Native {
    #[expect(clippy::cast_precision_loss, reason = "Prometheus knows no other numbers")]
    pub(super) fn native(&self) -> Histogram {
        let whole = |whole: Option<u64>, other: Option<f64>| whole.map(|n| n as f64).or(other).unwrap_or_default();
        Histogram {
            schema: self.schema,
            is_gauge: self.reset_hint == GAUGE,
            zero_threshold: self.zero_threshold,
            zero_count: whole(self.zero_whole, self.zero),
            count: whole(self.count_whole, self.count),
            sum: self.sum,
            positive: side(&self.positive_spans, &self.positive_deltas, &self.positive_counts),
            negative: side(&self.negative_spans, &self.negative_deltas, &self.negative_counts),
            bounds: self.bounds.clone(),
        }
    }
}

/// Buckets by index.
#[expect(clippy::cast_precision_loss, reason = "Prometheus knows no other numbers")]
fn side(runs: &[Run], deltas: &[i64], counts: &[f64]) -> BTreeMap<i32, f64> {
    let mut total = 0_i64;
    let summed = deltas.iter().map(|delta| {
        total = total.saturating_add(*delta);
        total as f64
    });
    let mut values = summed.chain(counts.iter().copied()).take(BUCKETS_MAX);
    let mut side = BTreeMap::new();
    let mut index = 0_i32;
    for run in runs {
        index = index.saturating_add(run.offset);
        for _ in 0..run.length {
            let Some(value) = values.next() else { return side };
            side.insert(index, value);
            index = index.saturating_add(1);
        }
    }
    side
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_buckets_are_laid_out() {
        let run = |offset, length| Run { offset, length };
        let laid = side(&[run(-2, 2), run(3, 1)], &[1, 2, -1], &[]);
        assert_eq!(laid, BTreeMap::from([(-2, 1.0), (-1, 3.0), (3, 2.0)]));
        assert_eq!(side(&[run(0, u32::MAX)], &[], &[0.5]), BTreeMap::from([(0, 0.5)]), "no more than there is");
    }
}
