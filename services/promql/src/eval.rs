//! A query, and how its parts become rows of points.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};

use crate::edges;
use crate::error::Error;
use crate::labels::Labels;
use crate::model::{Answer, Limits, Point, Sample, Series, Span, is_stale};
use crate::scope::{Data, Scope, Selection};
use crate::syntax::{self, Edges, Expr, Selector, Subquery};

/// A query that could be read.
#[derive(Clone, Debug)]
pub struct Query {
    expr: Expr,
}

/// A series at each step.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) labels: Labels,
    pub(crate) points: Vec<Option<Point>>,
}

/// What a part of a query is.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    Scalar(Vec<f64>),
    Text(String),
    Vector(Vec<Row>),
}

impl Part {
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Scalar(_) => "a scalar",
            Self::Text(_) => "a string",
            Self::Vector(_) => "an instant vector",
        }
    }
}

/// A series' labels, and at each step the sample that speaks for it.
pub(crate) type Latest = (Labels, Vec<Option<Sample>>);

/// Series with the range that is looked at for each step.
pub(crate) struct Ranges {
    pub(crate) series: Vec<Series>,
    /// Length in milliseconds.
    pub(crate) range: i64,
    /// End of each step's range.
    pub(crate) ends: Vec<i64>,
    pub(crate) edges: Edges,
}

impl Query {
    /// Reads a query.
    ///
    /// # Errors
    /// [`Error::Syntax`] with what the text lacks and where; [`Error::Type`] and [`Error::Argument`] with what does not fit.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Ok(Self { expr: syntax::read(text)? })
    }

    /// Which series it needs, and from when.
    pub fn needs(&self, span: Span, limits: &Limits<'_>) -> Vec<Selection> {
        let mut all = Vec::new();
        Scope { span, whole: span, limits: *limits }.needs(&self.expr, &mut all);
        // The same selector twice is read once.
        let mut once: Vec<Selection> = Vec::with_capacity(all.len());
        for selection in all {
            if !once.contains(&selection) {
                once.push(selection);
            }
        }
        once
    }

    /// What it selects, if it is an instant selector and nothing else; without a time: whoever asks says it.
    pub fn selector(&self) -> Option<Selection> {
        matches!(self.expr.bare(), Expr::Selector(_))
            .then(|| self.needs(Span::instant(0), &Limits::default()).into_iter().next())?
    }

    /// The query as it was understood.
    pub fn text(&self) -> String {
        self.expr.to_string()
    }

    /// Evaluates at each time of a span. Beside the answer: remarks on what is probably not what was meant.
    ///
    /// # Errors
    /// All but [`Error::Syntax`].
    pub fn answer(&self, span: Span, limits: &Limits<'_>, data: &Data) -> Result<(Answer, Vec<String>), Error> {
        let eval = Eval {
            scope: Scope { span, whole: span, limits: *limits },
            data,
            samples: &Cell::new(0),
            remarks: &RefCell::default(),
        };
        eval.check_steps(span.steps())?;
        syntax::check::lengths(&self.expr, span)?;
        let bare = self.expr.bare();
        let answer = match bare {
            Expr::Range(_) | Expr::Subquery(_) if span.from == span.to => Answer::Raw(eval.raw(bare)?),
            _ => eval.whole(bare)?,
        };
        let remarks = eval.remarks.borrow().iter().cloned().collect();
        Ok((answer, remarks))
    }
}

/// An evaluation on its way.
#[derive(Clone, Copy)]
pub(crate) struct Eval<'a> {
    pub(crate) scope: Scope<'a>,
    data: &'a Data,
    samples: &'a Cell<usize>,
    remarks: &'a RefCell<BTreeSet<String>>,
}

impl<'a> Eval<'a> {
    pub(crate) fn steps(&self) -> usize {
        self.scope.span.steps()
    }

    pub(crate) fn remark(&self, text: String) {
        self.remarks.borrow_mut().insert(text);
    }

    fn check_steps(&self, steps: usize) -> Result<(), Error> {
        let max = self.scope.limits.steps_max;
        if steps > max { Err(Error::TooManySteps { steps, max }) } else { Ok(()) }
    }

    /// Counts what is touched.
    pub(crate) fn touch(&self, samples: usize) -> Result<(), Error> {
        if (self.scope.limits.is_over)() {
            return Err(Error::Deadline);
        }
        self.samples.set(self.samples.get().saturating_add(samples));
        let max = self.scope.limits.samples_max;
        if self.samples.get() > max { Err(Error::TooManySamples(max)) } else { Ok(()) }
    }

    fn whole(&self, expr: &Expr) -> Result<Answer, Error> {
        let at = |step| self.scope.span.at(step);
        Ok(match self.part(expr)? {
            Part::Scalar(values) => {
                Answer::Scalar(values.into_iter().enumerate().map(|(step, value)| (at(step), value)).collect())
            }
            Part::Text(text) => Answer::Text(text),
            Part::Vector(rows) => {
                let series = joined(rows)?.into_iter().map(|row| Series {
                    labels: row.labels,
                    samples: row
                        .points
                        .into_iter()
                        .enumerate()
                        .filter_map(|(step, point)| Some(Sample { at: at(step), point: point? }))
                        .collect(),
                });
                Answer::Series(series.filter(|series| !series.samples.is_empty()).collect())
            }
        })
    }

    /// What a range selector says at the last step.
    fn raw(&self, expr: &Expr) -> Result<Vec<Series>, Error> {
        let ranges = self.ranges(expr)?;
        let end = ranges.ends.last().copied().unwrap_or_default();
        let mut all = ranges.series;
        let start = end.saturating_sub(ranges.range);
        for series in &mut all {
            if ranges.edges == Edges::Open {
                series.samples.retain(|sample| sample.at > start && sample.at <= end);
            } else {
                series.samples = self.edged(series, ranges.edges, start, end);
            }
        }
        all.retain(|series| !series.samples.is_empty());
        Ok(all)
    }

    /// Evaluates a part at all steps.
    pub(crate) fn part(&self, expr: &Expr) -> Result<Part, Error> {
        match expr {
            Expr::Paren(inner) | Expr::Positive(inner) => self.part(inner),
            Expr::Number(value) => Ok(Part::Scalar(vec![*value; self.steps()])),
            Expr::Text(text) => Ok(Part::Text(text.clone())),
            Expr::Negative(inner) => self.negated(inner),
            Expr::Binary(binary) => self.binary(binary),
            Expr::Fold(fold) => self.aggregate(fold),
            Expr::Selector(selector) => Ok(Part::Vector(self.instant(selector)?)),
            Expr::Call(call) => self.call(call),
            Expr::Range(_) | Expr::Subquery(_) => Err(Error::Type {
                place: expr.to_string(),
                wanted: "an instant vector in its place",
                given: "a range vector",
            }),
        }
    }

    fn negated(&self, expr: &Expr) -> Result<Part, Error> {
        match self.part(expr)? {
            Part::Scalar(values) => Ok(Part::Scalar(values.into_iter().map(|value| -value).collect())),
            Part::Vector(rows) => Ok(Part::Vector(mapped(rows, |point| {
                Some(match point {
                    Point::Float(value) => Point::Float(-value),
                    Point::Histogram(histogram) => histogram.scaled(-1.0).into(),
                })
            }))),
            part @ Part::Text(_) => Err(wrong("-", "a number or a vector", &part)),
        }
    }

    /// An instant vector.
    ///
    /// # Errors
    /// When it is something else.
    pub(crate) fn vector(&self, place: &str, expr: &Expr) -> Result<Vec<Row>, Error> {
        match self.part(expr)? {
            Part::Vector(rows) => Ok(rows),
            part => Err(wrong(place, "an instant vector", &part)),
        }
    }

    /// A number for each step.
    ///
    /// # Errors
    /// When it is something else.
    pub(crate) fn scalar(&self, place: &str, expr: &Expr) -> Result<Vec<f64>, Error> {
        match self.part(expr)? {
            Part::Scalar(values) => Ok(values),
            part => Err(wrong(place, "a scalar", &part)),
        }
    }

    /// A text.
    ///
    /// # Errors
    /// When it is something else.
    pub(crate) fn text(&self, place: &str, expr: &Expr) -> Result<String, Error> {
        match self.part(expr)? {
            Part::Text(text) => Ok(text),
            part => Err(wrong(place, "a string", &part)),
        }
    }

    fn selected(&self, selection: &Selection) -> Result<&'a [Series], Error> {
        let found = self.data.iter().find(|(asked, _)| asked == selection);
        let series = found.map_or(&[][..], |(_, series)| series.as_slice());
        self.touch(series.iter().map(|series| series.samples.len()).sum())?;
        Ok(series)
    }

    fn instant(&self, selector: &Selector) -> Result<Vec<Row>, Error> {
        match selector.edges {
            Edges::Open => {}
            Edges::Smoothed => return self.smoothed(selector),
            Edges::Anchored => {
                let (place, given) = (Expr::Selector(selector.clone()).to_string(), "a selector without a range");
                return Err(Error::Type { place, wanted: "a range", given });
            }
        }
        Ok(self
            .latest(selector)?
            .into_iter()
            .map(|(labels, samples)| Row {
                labels,
                points: samples.into_iter().map(|sample| Some(sample?.point)).collect(),
            })
            .collect())
    }

    /// What lies between the samples around each step.
    fn smoothed(&self, selector: &Selector) -> Result<Vec<Row>, Error> {
        let all = self.selected(&self.scope.selection(selector, None))?;
        let mut rows = Vec::with_capacity(all.len());
        for series in all {
            let living = |sample: &&Sample| !sample.point.float().is_some_and(is_stale);
            let samples = series.samples.iter().filter(living).cloned().collect();
            let series = Series { labels: series.labels.clone(), samples };
            let at = |step| {
                let time = self.scope.moved(&selector.when, step);
                edges::smoothed(self.within(&series, Edges::Smoothed, time, time), time)
            };
            let points: Vec<Option<Point>> = (0..self.steps()).map(at).collect();
            self.touch(points.len())?;
            rows.push(Row { labels: series.labels, points });
        }
        rows.retain(|row| row.points.iter().any(Option::is_some));
        Ok(rows)
    }

    /// The sample that speaks for each series at each step.
    pub(crate) fn latest(&self, selector: &Selector) -> Result<Vec<Latest>, Error> {
        let times: Vec<i64> = (0..self.steps()).map(|step| self.scope.moved(&selector.when, step)).collect();
        self.latest_of(self.selected(&self.scope.selection(selector, None))?, &times)
    }

    /// The sample that speaks for each series at times of its own, one for each step.
    pub(crate) fn latest_at(&self, selector: &Selector, times: &[i64]) -> Result<Vec<Latest>, Error> {
        self.latest_of(self.selected(&self.scope.selection_at(selector, times))?, times)
    }

    fn latest_of(&self, all: &[Series], times: &[i64]) -> Result<Vec<Latest>, Error> {
        let mut rows = Vec::with_capacity(all.len());
        for series in all {
            let samples: Vec<Option<Sample>> = { times.iter() }
                .map(|time| {
                    let time = *time;
                    let at = series.samples.partition_point(|sample| sample.at <= time).checked_sub(1)?;
                    let sample = &series.samples[at];
                    let is_old = sample.at <= time.saturating_sub(self.scope.limits.lookback);
                    (!is_old && !sample.point.float().is_some_and(is_stale)).then(|| sample.clone())
                })
                .collect();
            if samples.iter().any(Option::is_some) {
                self.touch(samples.len())?;
                rows.push((series.labels.clone(), samples));
            }
        }
        Ok(rows)
    }

    /// A range vector.
    pub(crate) fn ranges(&self, expr: &Expr) -> Result<Ranges, Error> {
        match expr {
            Expr::Paren(inner) => self.ranges(inner),
            Expr::Range(range) => {
                let all = self.selected(&self.scope.selection(&range.selector, Some(&range.length)))?;
                let living = |sample: &&Sample| !sample.point.float().is_some_and(is_stale);
                let series = all.iter().map(|series| Series {
                    labels: series.labels.clone(),
                    samples: series.samples.iter().filter(living).cloned().collect(),
                });
                let ends = (0..self.steps()).map(|step| self.scope.moved(&range.selector.when, step)).collect();
                let edges = range.selector.edges;
                Ok(Ranges { series: series.collect(), range: self.scope.millis(&range.length), ends, edges })
            }
            Expr::Subquery(sub) => self.subquery(sub),
            _ => Err(Error::Type {
                place: expr.to_string(),
                wanted: "a range vector in its place",
                given: "something without a range",
            }),
        }
    }

    fn subquery(&self, sub: &Subquery) -> Result<Ranges, Error> {
        let inner = Self { scope: self.scope.of_subquery(sub), ..*self };
        // Ranges may overlap a hundred times, yet each of their times is evaluated once.
        self.check_steps(inner.steps() / 10)?;
        let at = |step| inner.scope.span.at(step);
        let rows = match inner.part(&sub.of)? {
            Part::Vector(rows) => rows,
            Part::Scalar(values) => {
                let points = values.into_iter().map(|value| Some(Point::Float(value))).collect();
                vec![Row { labels: Labels::default(), points }]
            }
            part @ Part::Text(_) => return Err(wrong("a subquery", "a vector or a scalar", &part)),
        };
        let series = joined(rows)?.into_iter().map(|row| {
            let points = row.points.into_iter().enumerate();
            let samples = points.filter_map(|(step, point)| Some(Sample { at: at(step), point: point? })).collect();
            Series { labels: row.labels, samples }
        });
        let ends = (0..self.steps()).map(|step| self.scope.moved(&sub.when, step)).collect();
        let range = self.scope.millis(&sub.length);
        Ok(Ranges { series: series.collect(), range, ends, edges: Edges::Open })
    }
}

pub(crate) fn wrong(place: &str, wanted: &'static str, part: &Part) -> Error {
    Error::Type { place: place.to_owned(), wanted, given: part.kind() }
}

/// Rows with other points and without the name of their metric.
pub(crate) fn mapped(rows: Vec<Row>, make: impl Fn(Point) -> Option<Point>) -> Vec<Row> {
    rows.into_iter()
        .map(|row| Row {
            labels: row.labels.without_name(),
            points: row.points.into_iter().map(|point| make(point?)).collect(),
        })
        .collect()
}

/// Joins rows with the same labels into one.
///
/// # Errors
/// [`Error::Duplicate`] when they have a point at the same step.
pub(crate) fn joined(rows: Vec<Row>) -> Result<Vec<Row>, Error> {
    let mut places = HashMap::<Labels, usize>::new();
    let mut all = Vec::<Row>::with_capacity(rows.len());
    for row in rows {
        let Some(at) = places.get(&row.labels) else {
            places.insert(row.labels.clone(), all.len());
            all.push(row);
            continue;
        };
        for (into, point) in all[*at].points.iter_mut().zip(row.points) {
            match (&into, point) {
                (_, None) => {}
                (None, point) => *into = point,
                (Some(_), Some(_)) => return Err(Error::Duplicate(row.labels)),
            }
        }
    }
    Ok(all)
}
