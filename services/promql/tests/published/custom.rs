//! Histograms of old as native ones with the same bounds, as `load_with_nhcb` wants them.

use std::collections::BTreeMap;

use ninefold_promql::{CUSTOM, Histogram, Labels, NAME, Point, STALE, Sample, Series, is_stale};

/// What one histogram says at one time.
#[derive(Default)]
struct Told {
    buckets: Vec<(f64, f64)>,
    sum: f64,
    count: Option<f64>,
    is_stale: bool,
}

/// The native histograms of all series that end in `_bucket`, `_sum`, `_count`.
pub(crate) fn of(all: &[Series]) -> Vec<Series> {
    let mut told = Vec::<(Labels, BTreeMap<i64, Told>)>::new();
    for series in all {
        let name = series.labels.get(NAME);
        let Some((base, kind)) = name.rsplit_once('_').filter(|(_, kind)| ["bucket", "sum", "count"].contains(kind))
        else {
            continue;
        };
        let bound = series.labels.get("le").replace("Inf", "inf").parse::<f64>();
        let labels = series.labels.with(NAME, base).without(&["le"]);
        let at = told.iter().position(|(other, _)| *other == labels).unwrap_or_else(|| {
            told.push((labels, BTreeMap::new()));
            told.len() - 1
        });
        for sample in &series.samples {
            let Some(value) = sample.point.float() else { continue };
            let one = told[at].1.entry(sample.at).or_default();
            one.is_stale |= is_stale(value);
            match (kind, &bound) {
                ("bucket", Ok(bound)) => one.buckets.push((*bound, value)),
                ("sum", _) => one.sum = value,
                ("count", _) => one.count = Some(value),
                _ => {}
            }
        }
    }
    told.retain(|(_, samples)| samples.values().any(|one| !one.buckets.is_empty()));
    told.into_iter()
        .map(|(labels, samples)| Series {
            labels,
            samples: samples.into_iter().map(|(at, one)| Sample { at, point: point(one) }).collect(),
        })
        .collect()
}

fn point(mut told: Told) -> Point {
    if told.is_stale {
        return Point::Float(f64::from_bits(STALE));
    }
    told.buckets.sort_by(|left, right| left.0.total_cmp(&right.0));
    let mut histogram = Histogram { schema: CUSTOM, sum: told.sum, ..Histogram::default() };
    let mut below = 0.0;
    for (place, (bound, count)) in (0..).zip(&told.buckets) {
        if bound.is_finite() {
            histogram.bounds.push(*bound);
        }
        if *count > below {
            histogram.positive.insert(place, count - below);
        }
        below = below.max(*count);
    }
    histogram.count = told.count.unwrap_or(below);
    if told.buckets.last().is_none_or(|(bound, _)| bound.is_finite()) && histogram.count > below {
        let last = i32::try_from(told.buckets.len()).unwrap_or_default();
        histogram.positive.insert(last, histogram.count - below);
    }
    histogram.into()
}
