//! Functions of a range: what samples within a window of time say together.

use std::sync::Arc;

use crate::histogram::Histogram;
use crate::math::{self, seconds};
use crate::model::{Point, Sample};
use crate::syntax::Edges;

/// Samples within a range, open to the left.
pub(crate) struct Window<'s> {
    pub(crate) samples: &'s [Sample],
    /// Where it begins, in milliseconds since 1970.
    pub(crate) start: i64,
    /// Where it ends, in milliseconds since 1970.
    pub(crate) end: i64,
    /// For when the question is asked: the end without the selector's offset, in milliseconds since 1970.
    pub(crate) asked: i64,
    /// What stands at its edges; if anything does, there are samples around the range too.
    pub(crate) edges: Edges,
}

/// How a function reads a window.
pub(crate) type Reader = fn(&Window<'_>, &[f64]) -> Option<Point>;

/// The function of a name, and whether its answer keeps the name of the metric.
pub(crate) fn reader(name: &str) -> Option<(Reader, bool)> {
    let plain = |reader: Reader| Some((reader, false));
    match name {
        "rate" => plain(|w, _| w.extrapolated(true, true)),
        "increase" => plain(|w, _| w.extrapolated(true, false)),
        "delta" => plain(|w, _| w.extrapolated(false, false)),
        "irate" => plain(|w, _| w.last_two(true)),
        "idelta" => plain(|w, _| w.last_two(false)),
        "deriv" => plain(|w, _| w.slope()),
        "predict_linear" => plain(|w, more| w.predicted(more[0])),
        "double_exponential_smoothing" => plain(|w, more| w.smoothed(more[0], more[1])),
        "changes" => plain(|w, _| w.steps_that(Change::Any)),
        "resets" => plain(|w, _| w.steps_that(Change::Reset)),
        "avg_over_time" => plain(|w, _| w.mean()),
        "sum_over_time" => plain(|w, _| w.total()),
        "count_over_time" => plain(|w, _| Some(math::count(w.samples.len()).into())),
        "present_over_time" => plain(|_, _| Some(1.0.into())),
        "min_over_time" => plain(|w, _| w.extreme(|new, old| new < old).map(|(_, value)| value.into())),
        "max_over_time" => plain(|w, _| w.extreme(|new, old| new > old).map(|(_, value)| value.into())),
        "quantile_over_time" => plain(|w, more| w.over(|values| math::quantile(more[0], values))),
        "stddev_over_time" => plain(|w, _| w.over(|values| math::variance(values).sqrt())),
        "stdvar_over_time" => plain(|w, _| w.over(|values| math::variance(values))),
        "integral" => plain(|w, more| w.integral(more.first().copied().unwrap_or(2.0))),
        "mad_over_time" => plain(|w, _| w.over(deviation)),
        "first_over_time" => Some((|w, _| w.samples.first().map(|sample| sample.point.clone()), true)),
        "last_over_time" => Some((|w, _| w.samples.last().map(|sample| sample.point.clone()), true)),
        "ts_of_first_over_time" => plain(|w, _| w.samples.first().map(|sample| seconds(sample.at).into())),
        "ts_of_last_over_time" => plain(|w, _| w.samples.last().map(|sample| seconds(sample.at).into())),
        "ts_of_min_over_time" => plain(|w, _| w.extreme(|new, old| new <= old).map(|(at, _)| seconds(at).into())),
        "ts_of_max_over_time" => plain(|w, _| w.extreme(|new, old| new >= old).map(|(at, _)| seconds(at).into())),
        _ => None,
    }
}

/// Half of all values are not further from their middle than this.
fn deviation(values: &mut [f64]) -> f64 {
    if values.iter().any(|value| value.is_nan()) {
        return f64::NAN;
    }
    let middle = math::quantile(0.5, values);
    values.iter_mut().for_each(|value| *value = (*value - middle).abs());
    math::quantile(0.5, values)
}

#[derive(Clone, Copy)]
enum Change {
    Any,
    Reset,
}

impl Window<'_> {
    fn floats(&self) -> impl Iterator<Item = (i64, f64)> {
        self.samples.iter().filter_map(|sample| Some((sample.at, sample.point.float()?)))
    }

    /// All samples, if all are floats.
    fn only_floats(&self) -> Option<Vec<(i64, f64)>> {
        self.samples.iter().map(|sample| Some((sample.at, sample.point.float()?))).collect()
    }

    fn only_histograms(&self) -> Option<Vec<&Histogram>> {
        self.samples
            .iter()
            .map(|sample| match &sample.point {
                Point::Histogram(histogram) => Some(Arc::as_ref(histogram)),
                Point::Float(_) => None,
            })
            .collect()
    }

    /// What the floats say; histograms between them are passed over.
    fn over(&self, make: impl Fn(&mut [f64]) -> f64) -> Option<Point> {
        let mut values: Vec<f64> = self.floats().map(|(_, value)| value).collect();
        if values.is_empty() { None } else { Some(make(&mut values).into()) }
    }

    fn mean(&self) -> Option<Point> {
        if let Some(all) = self.only_histograms() {
            return Histogram::folded(&all, math::mean).map(Point::from);
        }
        self.only_floats()?;
        self.over(|values| math::mean(values))
    }

    fn total(&self) -> Option<Point> {
        if let Some(all) = self.only_histograms() {
            return Histogram::folded(&all, |values| math::sum(values.iter().copied())).map(Point::from);
        }
        self.only_floats()?;
        self.over(|values| math::sum(values.iter().copied()))
    }

    fn extreme(&self, is_better: impl Fn(f64, f64) -> bool) -> Option<(i64, f64)> {
        self.floats().reduce(|best, next| if is_better(next.1, best.1) || best.1.is_nan() { next } else { best })
    }

    fn steps_that(&self, change: Change) -> Option<Point> {
        let changed = |(before, after): (&Sample, &Sample)| match (&before.point, &after.point) {
            (Point::Float(before), Point::Float(after)) => match change {
                Change::Any => after != before && !(after.is_nan() && before.is_nan()),
                Change::Reset => after < before,
            },
            (Point::Histogram(before), Point::Histogram(after)) => match change {
                Change::Any => after != before,
                Change::Reset => after.was_reset_since(before),
            },
            _ => true,
        };
        let samples = if self.edges == Edges::Open { self.samples } else { self.anchored()? };
        let many = samples.iter().zip(samples.iter().skip(1)).filter(|pair| changed(*pair)).count();
        (!samples.is_empty()).then(|| math::count(many).into())
    }

    /// The difference of the last two samples, of a counter by second.
    fn last_two(&self, is_rate: bool) -> Option<Point> {
        let [.., before, after] = self.samples else { return None };
        let time = seconds(after.at - before.at);
        if time == 0.0 {
            return None;
        }
        let difference: Point = match (&before.point, &after.point) {
            (Point::Float(before), Point::Float(last)) if is_rate && last < before => (*last).into(),
            (Point::Float(before), Point::Float(last)) => (last - before).into(),
            (Point::Histogram(before), Point::Histogram(last)) if is_rate && last.was_reset_since(before) => {
                Point::Histogram(last.clone())
            }
            (Point::Histogram(before), Point::Histogram(last)) => last.minus(before)?.into(),
            _ => return None,
        };
        Some(match difference {
            Point::Float(value) if is_rate => (value / time).into(),
            Point::Histogram(histogram) if is_rate => histogram.scaled(1.0 / time).into(),
            difference => difference,
        })
    }

    /// The growth from the first to the last sample, drawn out to the edges of the range where samples come near them.
    fn extrapolated(&self, is_counter: bool, is_rate: bool) -> Option<Point> {
        if self.edges != Edges::Open {
            return self.grown_by_edges(is_counter, is_rate);
        }
        let [first, .., last] = self.samples else { return None };
        let sampled = seconds(last.at - first.at);
        if sampled == 0.0 {
            return None;
        }
        let growth = self.growth(is_counter)?;
        let mean = sampled / math::count(self.samples.len() - 1);
        let mut before = seconds(first.at - self.start);
        let mut after = seconds(self.end - last.at);
        if before >= mean * 1.1 {
            before = mean / 2.0;
        }
        if is_counter {
            // A counter was not below zero: it is not drawn out past where it would have been.
            let (begin, grown) = match (&first.point, &growth) {
                (Point::Float(begin), Point::Float(grown)) => (*begin, *grown),
                (Point::Histogram(begin), Point::Histogram(grown)) => (begin.count, grown.count),
                _ => return None,
            };
            if grown > 0.0 && begin >= 0.0 {
                before = before.min(sampled * (begin / grown));
            }
        }
        if after >= mean * 1.1 {
            after = mean / 2.0;
        }
        let mut factor = (sampled + before + after) / sampled;
        if is_rate {
            factor /= seconds(self.end - self.start);
        }
        Some(match growth {
            Point::Float(value) => (value * factor).into(),
            Point::Histogram(histogram) => histogram.scaled(factor).into(),
        })
    }

    /// The last sample less the first; of a counter as if it had never been reset.
    fn growth(&self, is_counter: bool) -> Option<Point> {
        if let Some(floats) = self.only_floats() {
            let (first, last) = (floats.first()?.1, floats.last()?.1);
            let resets = floats.iter().zip(floats.iter().skip(1)).filter(|(before, after)| after.1 < before.1);
            let lost: f64 = if is_counter { resets.map(|(before, _)| before.1).sum() } else { 0.0 };
            return Some((last - first + lost).into());
        }
        let mut all = self.only_histograms()?;
        // A reset right behind the first sample leaves nothing of it but that it was there.
        let nothing;
        if let [first, second, ..] = all[..]
            && is_counter
            && second.was_reset_since(first)
        {
            nothing = Histogram { is_gauge: false, ..second.scaled(0.0) };
            all[0] = &nothing;
        }
        let mut growth = all.last()?.minus(all[0])?;
        if is_counter {
            for (before, after) in all.iter().zip(all.iter().skip(1)) {
                if after.was_reset_since(before) {
                    growth = growth.plus(before)?;
                }
            }
        }
        growth.is_gauge = true;
        Some(growth.into())
    }

    /// The area below the floats: by the value left of each step (0), right of it (1), or the line between them (2).
    fn integral(&self, strategy: f64) -> Option<Point> {
        let points: Vec<(i64, f64)> =
            self.floats().map(|(at, value)| (at, if value.is_nan() { 0.0 } else { value })).collect();
        points.first()?;
        // Both halves of a line are added by themselves, so that a great one takes nothing from the small ones.
        let (left_share, right_share) = match strategy {
            0.0 => (1.0, 0.0),
            1.0 => (0.0, 1.0),
            _ => (0.5, 0.5),
        };
        let areas = points.iter().zip(points.iter().skip(1)).flat_map(|((before, left), (after, right))| {
            let length = seconds(after - before);
            let part = |value: f64, share: f64| if share == 0.0 { 0.0 } else { value * share * length };
            [part(*left, left_share), part(*right, right_share)]
        });
        Some(math::sum(areas).into())
    }

    fn points_from(&self, zero: i64) -> Vec<(f64, f64)> {
        self.floats().map(|(at, value)| (seconds(at - zero), value)).collect()
    }

    fn slope(&self) -> Option<Point> {
        let (first, _) = self.floats().next()?;
        math::line(&self.points_from(first)).map(|(slope, _)| slope.into())
    }

    fn predicted(&self, after: f64) -> Option<Point> {
        math::line(&self.points_from(self.asked)).map(|(slope, height)| (height + slope * after).into())
    }

    /// Smoothed by Holt's linear method: `level` and `trend` say how much newer samples weigh.
    fn smoothed(&self, level: f64, trend: f64) -> Option<Point> {
        let values: Vec<f64> = self.floats().map(|(_, value)| value).collect();
        let [first, second, ..] = values[..] else { return None };
        let (mut before, mut now, mut slope) = (0.0, first, second - first);
        for (at, value) in values.iter().enumerate().skip(1) {
            if at > 1 {
                slope = trend * (now - before) + (1.0 - trend) * slope;
            }
            let next = level * value + (1.0 - level) * (now + slope);
            (before, now) = (now, next);
        }
        Some(now.into())
    }
}
