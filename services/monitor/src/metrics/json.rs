//! Answers as Prometheus' HTTP API writes them. Pure.

use ninefold_promql::{Answer, Histogram, Labels, Point, Sample, Series, show};
use serde_json::{Map, Value, json};

use super::exemplars::Exemplar;

/// The data of an answer, at most so many series, and whether some were left out.
pub(crate) fn answer(answer: &Answer, is_instant: bool, series_max: usize) -> (Value, bool) {
    let (kind, result, was_cut) = match answer {
        Answer::Text(text) => ("string", json!([0, text]), false),
        Answer::Scalar(values) if is_instant => {
            let result = values.first().map(|(at, value)| json!([seconds(*at), show(*value)]));
            ("scalar", result.unwrap_or_default(), false)
        }
        Answer::Scalar(values) => {
            let values: Vec<Value> = values.iter().map(|(at, value)| json!([seconds(*at), show(*value)])).collect();
            ("matrix", json!([{ "metric": {}, "values": values }]), false)
        }
        Answer::Series(series) if is_instant => {
            let result = series.iter().take(series_max).filter_map(instant).collect();
            ("vector", result, series.len() > series_max)
        }
        Answer::Series(series) | Answer::Raw(series) => {
            ("matrix", series.iter().take(series_max).map(range).collect(), series.len() > series_max)
        }
    };
    (json!({ "resultType": kind, "result": result }), was_cut)
}

fn instant(series: &Series) -> Option<Value> {
    let sample = series.samples.first()?;
    let (field, value) = match &sample.point {
        Point::Float(value) => ("value", json!([seconds(sample.at), show(*value)])),
        Point::Histogram(of) => ("histogram", json!([seconds(sample.at), histogram(of)])),
    };
    Some(json!({ "metric": labels(&series.labels), field: value }))
}

fn range(series: &Series) -> Value {
    let mut object = Map::new();
    object.insert("metric".to_owned(), labels(&series.labels));
    let of =
        |pick: &dyn Fn(&Sample) -> Option<Value>| -> Vec<Value> { series.samples.iter().filter_map(pick).collect() };
    let values = of(&|sample| Some(json!([seconds(sample.at), show(sample.point.float()?)])));
    let histograms = of(&|sample| match &sample.point {
        Point::Float(_) => None,
        Point::Histogram(of) => Some(json!([seconds(sample.at), histogram(of)])),
    });
    for (field, all) in [("values", values), ("histograms", histograms)] {
        if !all.is_empty() {
            object.insert(field.to_owned(), all.into());
        }
    }
    object.into()
}

/// Which ends of a bucket belong to it: 0 the upper, 1 the lower, 3 both.
fn histogram(histogram: &Histogram) -> Value {
    let buckets: Vec<Value> = histogram
        .buckets()
        .iter()
        .filter(|bucket| bucket.count != 0.0)
        .map(|bucket| {
            let ends = match (bucket.lower < 0.0, bucket.upper > 0.0) {
                (true, true) => 3,
                (true, false) => 1,
                (false, _) => 0,
            };
            json!([ends, show(bucket.lower), show(bucket.upper), show(bucket.count)])
        })
        .collect();
    json!({ "count": show(histogram.count), "sum": show(histogram.sum), "buckets": buckets })
}

/// A series with its exemplars.
pub(crate) fn exemplars(of: &Labels, all: &[Exemplar]) -> Value {
    let each = all
        .iter()
        .map(|one| json!({ "labels": labels(&one.labels), "value": show(one.value), "timestamp": seconds(one.at) }));
    json!({ "seriesLabels": labels(of), "exemplars": each.collect::<Vec<_>>() })
}

/// Labels as an object.
pub(crate) fn labels(labels: &Labels) -> Value {
    labels.iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect::<Map<_, _>>().into()
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of this age fit")]
fn seconds(at: i64) -> f64 {
    at as f64 / 1000.0
}
