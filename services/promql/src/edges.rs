//! `anchored` and `smoothed`: ranges that take what is known at their edges from samples outside.
//!
//! Anchored: the last sample before a range stands at its beginning, and nothing is drawn out. Smoothed: at both edges stands
//! what the line between the samples before and after says.

use crate::eval::Eval;
use crate::histogram::Histogram;
use crate::math::seconds;
use crate::model::{Point, Sample, Series};
use crate::syntax::Edges;
use crate::window::Window;

/// The point between two samples. A counter that was reset between them began again at zero.
fn between(before: &Sample, after: &Sample, at: i64, is_counter: bool) -> Option<Point> {
    let share = seconds(at - before.at) / seconds(after.at - before.at);
    match (&before.point, &after.point) {
        (Point::Float(left), Point::Float(right)) => {
            let left = if is_counter && right < left { 0.0 } else { *left };
            Some((left + (right - left) * share).into())
        }
        (Point::Histogram(left), Point::Histogram(right)) => {
            if is_counter && right.was_reset_since(left) {
                return Some(right.scaled(share).into());
            }
            Some(right.minus(left)?.scaled(share).plus(left)?.into())
        }
        _ => None,
    }
}

fn is_of_one_kind(samples: &[Sample]) -> bool {
    let is_float = |sample: &Sample| sample.point.float().is_some();
    samples.first().is_none_or(|first| samples.iter().all(|sample| is_float(sample) == is_float(first)))
}

/// What a smoothed selector says at a time, of samples as far around as it looks.
pub(crate) fn smoothed(samples: &[Sample], at: i64) -> Option<Point> {
    if !is_of_one_kind(samples) {
        return None;
    }
    let next = samples.partition_point(|sample| sample.at < at);
    if let Some(same) = samples.get(next).filter(|sample| sample.at == at) {
        return Some(same.point.clone());
    }
    let before = &samples[next.checked_sub(1)?];
    let Some(after) = samples.get(next) else { return Some(before.point.clone()) };
    if let (Point::Histogram(left), Point::Histogram(right)) = (&before.point, &after.point)
        && left.is_custom() != right.is_custom()
    {
        return None;
    }
    let is_gauge = |point: &Point| matches!(point, Point::Histogram(histogram) if histogram.is_gauge);
    let is_counter = before.point.float().is_none() && !(is_gauge(&before.point) && is_gauge(&after.point));
    between(before, after, at, is_counter)
}

/// A range with what stands at its edges.
struct Edged {
    left: Sample,
    right: Sample,
    /// What was measured between the edges.
    inner: Vec<Sample>,
}

impl Window<'_> {
    /// `None` if nothing was measured after the beginning, or a smoothed range has nothing before its end.
    fn edged(&self, is_counter: bool) -> Option<Edged> {
        if !is_of_one_kind(self.samples) {
            return None;
        }
        let is_smoothed = self.edges == Edges::Smoothed;
        let first = self.samples.partition_point(|sample| sample.at <= self.start);
        let end = self.samples.partition_point(|sample| sample.at <= self.end);
        if first == self.samples.len() || is_smoothed && self.samples[0].at > self.end {
            return None;
        }
        let last_before = first.checked_sub(1).map(|at| &self.samples[at]);
        let left = match last_before {
            None => self.samples[first].point.clone(),
            Some(before) if is_smoothed && before.at < self.start => {
                between(before, &self.samples[first], self.start, is_counter)?
            }
            Some(before) => before.point.clone(),
        };
        let last = end.checked_sub(1).map(|at| &self.samples[at]);
        let right = match (last, self.samples.get(end)) {
            (Some(last), Some(after)) if is_smoothed && last.at < self.end => {
                between(last, after, self.end, is_counter)?
            }
            (Some(last), _) => last.point.clone(),
            (None, Some(after)) => after.point.clone(),
            (None, None) => return None,
        };
        let inner = self.samples.get(first..end).unwrap_or_default();
        let inner = inner.iter().filter(|sample| sample.at < self.end).cloned().collect();
        let (left, right) = (Sample { at: self.start, point: left }, Sample { at: self.end, point: right });
        Some(Edged { left, right, inner })
    }

    /// The growth from edge to edge.
    pub(crate) fn grown_by_edges(&self, is_counter: bool, is_rate: bool) -> Option<Point> {
        let edged = self.edged(is_counter)?;
        let length = seconds(self.end - self.start);
        match (&edged.left.point, &edged.right.point) {
            (Point::Float(left), Point::Float(right)) => {
                let mut growth = right - left;
                if is_counter {
                    let mut before = *left;
                    let inner = edged.inner.iter().filter_map(|sample| sample.point.float());
                    for value in inner.chain([*right]) {
                        growth += if value < before { before } else { 0.0 };
                        before = value;
                    }
                }
                Some(if is_rate { growth / length } else { growth }.into())
            }
            (Point::Histogram(left), Point::Histogram(right)) => {
                let mut growth = self.histograms_grown(&edged, left, right, is_counter)?;
                growth.is_gauge = true;
                Some(if is_rate { growth.scaled(1.0 / length) } else { growth }.into())
            }
            _ => None,
        }
    }

    fn histograms_grown(
        &self,
        edged: &Edged,
        left: &Histogram,
        right: &Histogram,
        is_counter: bool,
    ) -> Option<Histogram> {
        let mut growth = right.minus(left)?;
        if !is_counter {
            return Some(growth);
        }
        let mut before = left;
        let mut inner = edged.inner.iter().filter_map(|sample| match &sample.point {
            Point::Histogram(histogram) => Some(histogram.as_ref()),
            Point::Float(_) => None,
        });
        // The line to the left edge may have taken a reset into account: then its end is where counting goes on.
        let first = self.samples.partition_point(|sample| sample.at <= self.start);
        let crossed = first
            .checked_sub(1)
            .map(|at| &self.samples[at])
            .filter(|sample| self.edges == Edges::Smoothed && sample.at < self.start);
        if let (Some(Point::Histogram(outside)), Some(Point::Histogram(next))) =
            (crossed.map(|sample| &sample.point), self.samples.get(first).map(|sample| &sample.point))
            && next.was_reset_since(outside)
        {
            match inner.next() {
                Some(next) => before = next,
                None => return Some(growth),
            }
        }
        for histogram in inner.chain([right]) {
            if histogram.was_reset_since(before) {
                growth = growth.plus(before)?;
            }
            before = histogram;
        }
        Some(growth)
    }

    /// Without what an anchored range does not look at: all samples before the last one that is not within. `None` if nothing
    /// is within.
    pub(crate) fn anchored(&self) -> Option<&[Sample]> {
        let first = self.samples.partition_point(|sample| sample.at <= self.start);
        (first < self.samples.len()).then(|| &self.samples[first.saturating_sub(1)..])
    }
}

impl Eval<'_> {
    /// Samples of a window, as far around its range as its edges need.
    pub(crate) fn within<'s>(&self, series: &'s Series, edges: Edges, start: i64, end: i64) -> &'s [Sample] {
        let lookback = self.scope.limits.lookback;
        let (start, end) = match edges {
            Edges::Open => (start, end),
            Edges::Anchored => (start.saturating_sub(lookback), end),
            Edges::Smoothed => (start.saturating_sub(lookback), end.saturating_add(lookback)),
        };
        let first = series.samples.partition_point(|sample| sample.at <= start);
        let last = series.samples.partition_point(|sample| sample.at <= end);
        &series.samples[first..last.max(first)]
    }

    /// What a range with edges says by itself: the edges, and what lies between.
    pub(crate) fn edged(&self, series: &Series, edges: Edges, start: i64, end: i64) -> Vec<Sample> {
        let samples = self.within(series, edges, start, end);
        let window = Window { samples, start, end, asked: end, edges };
        let Some(edged) = window.edged(false) else { return Vec::new() };
        [edged.left].into_iter().chain(edged.inner).chain([edged.right]).collect()
    }
}
