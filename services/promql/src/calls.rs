//! Functions.

use crate::buckets;
use crate::error::Error;
use crate::eval::{Eval, Part, Row, joined, mapped};
use crate::histogram::Histogram;
use crate::labels::{Labels, NAME};
use crate::math::{least_first, seconds};
use crate::model::{Point, show};
use crate::syntax::{self, Call, Expr, Sign};
use crate::time;
use crate::window::{self, Reader, Window};

/// A function of one number.
fn plain(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "abs" => f64::abs,
        "ceil" => f64::ceil,
        "floor" => f64::floor,
        "exp" => f64::exp,
        "sqrt" => f64::sqrt,
        "ln" => f64::ln,
        "log2" => f64::log2,
        "log10" => f64::log10,
        "sin" => f64::sin,
        "cos" => f64::cos,
        "tan" => f64::tan,
        "asin" => f64::asin,
        "acos" => f64::acos,
        "atan" => f64::atan,
        "sinh" => f64::sinh,
        "cosh" => f64::cosh,
        "tanh" => f64::tanh,
        "asinh" => f64::asinh,
        "acosh" => f64::acosh,
        "atanh" => f64::atanh,
        "deg" => f64::to_degrees,
        "rad" => f64::to_radians,
        "sgn" => |value| if value == 0.0 || value.is_nan() { value } else { value.signum() },
        _ => return None,
    })
}

/// A function of one native histogram.
fn of_histogram(name: &str) -> Option<fn(&Histogram) -> f64> {
    Some(match name {
        "histogram_count" => |histogram| histogram.count,
        "histogram_sum" => |histogram| histogram.sum,
        "histogram_avg" => |histogram| histogram.sum / histogram.count,
        "histogram_stdvar" => Histogram::variance,
        "histogram_stddev" => |histogram| histogram.variance().sqrt(),
        _ => return None,
    })
}

impl Eval<'_> {
    pub(crate) fn call(&self, call: &Call) -> Result<Part, Error> {
        let name = call.name;
        let args: Vec<&Expr> = call.args.iter().collect();
        if let Some((reader, keeps_name)) = window::reader(name) {
            return Ok(Part::Vector(self.over_ranges(name, reader, keeps_name, &args)?));
        }
        if let Some(function) = plain(name) {
            return Ok(Part::Vector(self.numbers(name, &args, |value, _| Some(function(value)))?));
        }
        if let Some(function) = time::part(name) {
            return self.date(name, &args, function).map(Part::Vector);
        }
        if let Some(function) = of_histogram(name) {
            let rows = self.vector(name, args[0])?;
            return Ok(Part::Vector(mapped(rows, |point| match point {
                Point::Histogram(histogram) => Some(function(&histogram).into()),
                Point::Float(_) => None,
            })));
        }
        match name {
            "time" => Ok(Part::Scalar((0..self.steps()).map(|step| seconds(self.scope.span.at(step))).collect())),
            "pi" => Ok(self.constant(std::f64::consts::PI)),
            "start" => Ok(self.constant(seconds(self.scope.whole.from))),
            "end" => Ok(self.constant(seconds(self.scope.whole.to))),
            "step" => Ok(self.constant(seconds(self.scope.whole.told_step()))),
            "range" => Ok(self.constant(seconds(self.scope.whole.to - self.scope.whole.from))),
            "scalar" => self.single(args[0]),
            "max_of" | "min_of" => self.one_of(name, &args),
            "info" => self.info(call).map(Part::Vector),
            "histogram_quantiles" => self.quantiles(&args).map(Part::Vector),
            "vector" => {
                let points = self.scalar(name, args[0])?.into_iter().map(|value| Some(value.into())).collect();
                Ok(Part::Vector(vec![Row { labels: Labels::default(), points }]))
            }
            "round" => {
                let rows = self.numbers(name, &args, |value, more| {
                    let inverse = 1.0 / more.first().copied().unwrap_or(1.0);
                    Some((value * inverse + 0.5).floor() / inverse)
                });
                rows.map(Part::Vector)
            }
            "clamp" | "clamp_min" | "clamp_max" => self.clamped(name, &args).map(Part::Vector),
            "absent" => self.absent(args[0]).map(Part::Vector),
            "absent_over_time" => self.absent_over_time(args[0]).map(Part::Vector),
            "timestamp" => self.timestamps(args[0]).map(Part::Vector),
            "sort" | "sort_desc" => self.sorted(name, args[0]).map(Part::Vector),
            "sort_by_label" | "sort_by_label_desc" => self.sorted_by_label(name, &args).map(Part::Vector),
            "label_replace" => self.label_replace(&args).map(Part::Vector),
            "label_join" => self.label_join(&args).map(Part::Vector),
            "histogram_quantile" | "histogram_fraction" => self.of_buckets(name, &args).map(Part::Vector),
            _ => Err(Error::Unsupported(name.to_owned())),
        }
    }

    /// The greater or the less of two numbers; no number if one of them is none.
    fn one_of(&self, name: &str, args: &[&Expr]) -> Result<Part, Error> {
        let (left, right) = (self.scalar(name, args[0])?, self.scalar(name, args[1])?);
        let pick = |(left, right): (f64, f64)| match (left.is_nan() || right.is_nan(), name) {
            (true, _) => f64::NAN,
            (false, "max_of") => left.max(right),
            (false, _) => left.min(right),
        };
        Ok(Part::Scalar(left.into_iter().zip(right).map(pick).collect()))
    }

    /// Several quantiles of histograms at once, told apart by a label.
    fn quantiles(&self, args: &[&Expr]) -> Result<Vec<Row>, Error> {
        const ME: &str = "histogram_quantiles";
        let [of, label, shares @ ..] = args else {
            let what = "takes a vector, a label and at least one share".to_owned();
            return Err(Error::Argument { function: ME.to_owned(), what });
        };
        let label = self.text(ME, label)?;
        let mut answers = Vec::new();
        for share in shares {
            let named = self.scalar(ME, share)?.first().copied().unwrap_or(f64::NAN);
            let rows = self.of_buckets("histogram_quantile", &[share, of])?;
            let labelled = |row: Row| Row { labels: row.labels.with(&label, &told(named)), points: row.points };
            answers.extend(rows.into_iter().map(labelled));
        }
        joined(answers)
    }

    fn constant(&self, value: f64) -> Part {
        Part::Scalar(vec![value; self.steps()])
    }

    /// A function of ranges. Its range may stand at any place among numbers.
    fn over_ranges(&self, name: &str, reader: Reader, keeps: bool, args: &[&Expr]) -> Result<Vec<Row>, Error> {
        let is_range = |expr: &&&Expr| matches!(expr.bare(), Expr::Range(_) | Expr::Subquery(_));
        let Some(of) = args.iter().find(is_range) else {
            return Err(Error::Type {
                place: name.to_owned(),
                wanted: "a range vector",
                given: "something without a range",
            });
        };
        let more = args.iter().filter(|expr| !is_range(expr)).map(|expr| self.scalar(name, expr));
        let more: Vec<Vec<f64>> = more.collect::<Result<_, _>>()?;
        if name == "double_exponential_smoothing" && more.iter().flatten().any(|factor| !(0.0..=1.0).contains(factor)) {
            let what = "its factors are between 0 and 1".to_owned();
            return Err(Error::Argument { function: name.to_owned(), what });
        }
        let ranges = self.ranges(of)?;
        let mut values = vec![0.0; more.len()];
        let mut rows = Vec::with_capacity(ranges.series.len());
        for series in &ranges.series {
            let mut points = Vec::with_capacity(ranges.ends.len());
            for (step, end) in ranges.ends.iter().enumerate() {
                let start = end.saturating_sub(ranges.range);
                let samples = self.within(series, ranges.edges, start, *end);
                self.touch(samples.len())?;
                values.iter_mut().zip(&more).for_each(|(value, of)| *value = of[step]);
                let window = Window { samples, start, end: *end, asked: self.scope.span.at(step), edges: ranges.edges };
                points.push(if samples.is_empty() { None } else { reader(&window, &values) });
            }
            if points.iter().any(Option::is_some) {
                let labels = if keeps { series.labels.clone() } else { series.labels.without_name() };
                rows.push(Row { labels, points });
            }
        }
        if matches!(name, "rate" | "increase" | "irate") {
            self.doubt_counters(name, &ranges.series);
        }
        Ok(rows)
    }

    fn doubt_counters(&self, name: &str, series: &[crate::model::Series]) {
        for series in series {
            let metric = series.labels.get(NAME);
            let is_counter = ["_total", "_sum", "_count", "_bucket"].iter().any(|end| metric.ends_with(end));
            let is_float = series.samples.first().is_some_and(|sample| sample.point.float().is_some());
            if !metric.is_empty() && is_float && !is_counter {
                self.remark(format!("{name}: {metric} is perhaps no counter, as its name does not end in _total, _sum, _count or _bucket"));
            }
        }
    }

    /// A function of numbers, with more numbers beside.
    fn numbers(
        &self,
        name: &str,
        args: &[&Expr],
        make: impl Fn(f64, &[f64]) -> Option<f64>,
    ) -> Result<Vec<Row>, Error> {
        let rows = self.vector(name, args[0])?;
        let more: Vec<Vec<f64>> = args[1..].iter().map(|expr| self.scalar(name, expr)).collect::<Result<_, _>>()?;
        let of = |row: Row| {
            let points = row.points.into_iter().enumerate().map(|(step, point)| {
                let more: Vec<f64> = more.iter().map(|values| values[step]).collect();
                make(point?.float()?, &more).map(Point::from)
            });
            Row { labels: row.labels.without_name(), points: points.collect() }
        };
        Ok(rows.into_iter().map(of).collect())
    }

    fn clamped(&self, name: &str, args: &[&Expr]) -> Result<Vec<Row>, Error> {
        self.numbers(name, args, |value, more| {
            let (least, most) = match (name, more) {
                ("clamp", [least, most]) => (*least, *most),
                ("clamp_min", [least, ..]) => (*least, f64::INFINITY),
                (_, [most, ..]) => (f64::NEG_INFINITY, *most),
                (_, []) => return Some(value),
            };
            if least > most {
                return None;
            }
            if least.is_nan() || most.is_nan() || value.is_nan() {
                Some(f64::NAN)
            } else {
                Some(value.clamp(least, most))
            }
        })
    }

    fn date(&self, name: &str, args: &[&Expr], part: fn(f64) -> f64) -> Result<Vec<Row>, Error> {
        if args.is_empty() {
            let points = (0..self.steps()).map(|step| Some(part(seconds(self.scope.span.at(step))).into())).collect();
            return Ok(vec![Row { labels: Labels::default(), points }]);
        }
        self.numbers(name, args, |value, _| Some(if value.is_finite() { part(value) } else { f64::NAN }))
    }

    fn single(&self, expr: &Expr) -> Result<Part, Error> {
        let rows = self.vector("scalar", expr)?;
        let at = |step: usize| {
            let mut points = rows.iter().filter_map(|row| row.points[step].as_ref()?.float());
            match (points.next(), points.next()) {
                (Some(value), None) => value,
                _ => f64::NAN,
            }
        };
        Ok(Part::Scalar((0..self.steps()).map(at).collect()))
    }

    fn absent(&self, expr: &Expr) -> Result<Vec<Row>, Error> {
        let rows = self.vector("absent", expr)?;
        let is_absent = |step: usize| rows.iter().all(|row| row.points[step].is_none());
        Ok(self.one_where(is_absent, expr))
    }

    fn absent_over_time(&self, expr: &Expr) -> Result<Vec<Row>, Error> {
        let ranges = self.ranges(expr)?;
        let is_absent = |step: usize| {
            let (start, end) = (ranges.ends[step].saturating_sub(ranges.range), ranges.ends[step]);
            let within = |sample: &crate::model::Sample| sample.at > start && sample.at <= end;
            !ranges.series.iter().any(|series| series.samples.iter().any(within))
        };
        Ok(self.one_where(is_absent, expr))
    }

    /// A row of ones, with the labels that a selector says must be there.
    fn one_where(&self, holds: impl Fn(usize) -> bool, expr: &Expr) -> Vec<Row> {
        let points: Vec<Option<Point>> = (0..self.steps()).map(|step| holds(step).then(|| 1.0.into())).collect();
        if points.iter().all(Option::is_none) {
            return Vec::new();
        }
        let selector = match expr.bare() {
            Expr::Selector(selector) => Some(selector),
            Expr::Range(range) => Some(&range.selector),
            _ => None,
        };
        let mut labels = Labels::default();
        if let Some(selector) = selector {
            let matchers = &selector.matchers;
            for matcher in matchers {
                let is_only = matchers.iter().filter(|other| other.name == matcher.name).count() == 1;
                if is_only && matcher.name != NAME && matcher.sign == Sign::Equal {
                    labels = labels.with(&matcher.name, &matcher.value);
                }
            }
        }
        vec![Row { labels, points }]
    }

    fn timestamps(&self, expr: &Expr) -> Result<Vec<Row>, Error> {
        if let Expr::Selector(selector) = expr.bare() {
            let rows = self.latest(selector)?.into_iter().map(|(labels, samples)| Row {
                labels: labels.without_name(),
                points: samples.into_iter().map(|sample| Some(seconds(sample?.at).into())).collect(),
            });
            return Ok(rows.collect());
        }
        let rows = self.vector("timestamp", expr)?.into_iter().map(|row| {
            let points = row.points.iter().enumerate();
            let points = points.map(|(step, point)| point.as_ref().map(|_| seconds(self.scope.span.at(step)).into()));
            Row { labels: row.labels.without_name(), points: points.collect() }
        });
        Ok(rows.collect())
    }

    fn sorted(&self, name: &str, expr: &Expr) -> Result<Vec<Row>, Error> {
        let mut rows = self.vector(name, expr)?;
        if self.steps() == 1 {
            rows.retain(|row| row.points[0].as_ref().is_some_and(|point| point.float().is_some()));
            let value = |row: &Row| row.points[0].as_ref().and_then(Point::float).unwrap_or(f64::NAN);
            rows.sort_by(|left, right| {
                let (left, right) = (value(left), value(right));
                let by_nan = left.is_nan().cmp(&right.is_nan());
                by_nan.then(if name == "sort" { least_first(&left, &right) } else { least_first(&right, &left) })
            });
        }
        Ok(rows)
    }

    fn sorted_by_label(&self, name: &str, args: &[&Expr]) -> Result<Vec<Row>, Error> {
        let mut rows = self.vector(name, args[0])?;
        let labels: Vec<String> = args[1..].iter().map(|expr| self.text(name, expr)).collect::<Result<_, _>>()?;
        if self.steps() == 1 {
            rows.sort_by(|left, right| {
                let by = |label: &String| natural(left.labels.get(label), right.labels.get(label));
                let order = labels.iter().map(by).find(|order| order.is_ne());
                let order = order.unwrap_or_else(|| left.labels.cmp(&right.labels));
                if name == "sort_by_label" { order } else { order.reverse() }
            });
        }
        Ok(rows)
    }

    fn label_replace(&self, args: &[&Expr]) -> Result<Vec<Row>, Error> {
        const ME: &str = "label_replace";
        let wrong = |what: String| Error::Argument { function: ME.to_owned(), what };
        let [of, into, replacement, from, pattern] = *args else {
            return Err(wrong("takes five arguments".to_owned()));
        };
        let rows = self.vector(ME, of)?;
        let (into, replacement) = (self.text(ME, into)?, self.text(ME, replacement)?);
        let (from, pattern) = (self.text(ME, from)?, self.text(ME, pattern)?);
        let pattern = syntax::pattern(&pattern).map_err(wrong)?;
        if into.is_empty() {
            return Err(wrong("the label to write has no name".to_owned()));
        }
        let of = |row: Row| {
            let Some(found) = pattern.captures(row.labels.get(&from)) else { return row };
            let mut value = String::new();
            found.expand(&replacement, &mut value);
            Row { labels: row.labels.with(&into, &value), points: row.points }
        };
        joined(rows.into_iter().map(of).collect())
    }

    fn label_join(&self, args: &[&Expr]) -> Result<Vec<Row>, Error> {
        const ME: &str = "label_join";
        let wrong = |what: &str| Error::Argument { function: ME.to_owned(), what: what.to_owned() };
        let [of, into, separator, from @ ..] = args else { return Err(wrong("takes at least three arguments")) };
        let rows = self.vector(ME, of)?;
        let (into, separator) = (self.text(ME, into)?, self.text(ME, separator)?);
        let from: Vec<String> = from.iter().map(|expr| self.text(ME, expr)).collect::<Result<_, _>>()?;
        if into.is_empty() {
            return Err(wrong("the label to write has no name"));
        }
        let of = |row: Row| {
            let values: Vec<&str> = from.iter().map(|name| row.labels.get(name)).collect();
            Row { labels: row.labels.with(&into, &values.join(&separator)), points: row.points }
        };
        joined(rows.into_iter().map(of).collect())
    }

    /// Functions of histograms of both kinds.
    fn of_buckets(&self, name: &str, args: &[&Expr]) -> Result<Vec<Row>, Error> {
        let (of, numbers) = args.split_last().expect("the parser counts arguments");
        let numbers: Vec<Vec<f64>> = numbers.iter().map(|expr| self.scalar(name, expr)).collect::<Result<_, _>>()?;
        let rows = self.vector(name, of)?;
        let is_quantile = name == "histogram_quantile";
        let mut answers = Vec::new();
        for row in &rows {
            let points = row.points.iter().enumerate().map(|(step, point)| match point {
                Some(Point::Histogram(histogram)) if is_quantile => Some(histogram.quantile(numbers[0][step]).into()),
                Some(Point::Histogram(histogram)) => {
                    Some(histogram.fraction(numbers[0][step], numbers[1][step]).into())
                }
                Some(Point::Float(_)) | None => None,
            });
            answers.push(Row { labels: row.labels.clone(), points: points.collect() });
        }
        for group in buckets::groups(&rows) {
            let points = (0..self.steps()).map(|step| {
                let buckets = group.at(step)?;
                Some(Point::Float(if is_quantile {
                    buckets::quantile(numbers[0][step], &buckets)
                } else {
                    buckets::fraction(numbers[0][step], numbers[1][step], &buckets)
                }))
            });
            let mut row = Row { points: points.collect(), labels: group.labels };
            // Where both kinds say something of the same, nobody knows which is meant.
            for other in answers.iter_mut().filter(|other| other.labels == row.labels) {
                for (left, right) in other.points.iter_mut().zip(&mut row.points) {
                    if left.is_some() && right.is_some() {
                        (*left, *right) = (None, None);
                    }
                }
            }
            answers.push(row);
        }
        answers.retain(|row| row.points.iter().any(Option::is_some));
        answers.iter_mut().for_each(|row| row.labels = row.labels.without_name());
        joined(answers)
    }
}

/// A share as the value of a label, as OpenMetrics writes numbers: with a point.
fn told(share: f64) -> String {
    let text = show(share);
    if share.is_finite() && !text.contains('.') { format!("{text}.0") } else { text }
}

/// Orders texts as people do: digits within them by the number they are.
fn natural(left: &str, right: &str) -> std::cmp::Ordering {
    fn parts(text: &str) -> impl Iterator<Item = (bool, &str)> {
        let bytes = text.as_bytes();
        let mut at = 0;
        std::iter::from_fn(move || {
            let is_digit = bytes.get(at)?.is_ascii_digit();
            let length = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit() == is_digit).count();
            at += length;
            Some((is_digit, &text[at - length..at]))
        })
    }
    let key = |text: &str| -> Vec<(bool, usize, String)> {
        let part = |(is_digit, part): (bool, &str)| {
            let part = if is_digit { part.trim_start_matches('0') } else { part };
            (!is_digit, if is_digit { part.len() } else { 0 }, part.to_owned())
        };
        parts(text).map(part).collect()
    };
    key(left).cmp(&key(right))
}
