//! Samples, series, spans of time, and answers.

use std::sync::Arc;

use crate::histogram::Histogram;
use crate::labels::Labels;

/// Bits of the not-a-number that marks the end of a series.
pub const STALE: u64 = 0x7ff0_0000_0000_0002;

/// Whether a value marks the end of a series.
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE
}

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub enum Point {
    /// A number.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<Histogram>),
}

impl Point {
    /// The number, if it is one.
    pub const fn float(&self) -> Option<f64> {
        match self {
            Self::Float(value) => Some(*value),
            Self::Histogram(_) => None,
        }
    }
}

impl From<f64> for Point {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<Histogram> for Point {
    fn from(histogram: Histogram) -> Self {
        Self::Histogram(Arc::new(histogram))
    }
}

/// What was measured when.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Milliseconds since 1970.
    pub at: i64,
    /// What was measured.
    pub point: Point,
}

/// Samples of one thing.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What it is.
    pub labels: Labels,
    /// Its samples, in time order, at most one for each time.
    pub samples: Vec<Sample>,
}

/// When a query is evaluated: once, or at each step of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First time, in milliseconds since 1970.
    pub from: i64,
    /// Last time, in milliseconds since 1970; evaluated only if a step meets it.
    pub to: i64,
    /// Milliseconds from one time to the next. At least 1.
    pub step: i64,
}

impl Span {
    /// One time.
    pub const fn instant(at: i64) -> Self {
        Self { from: at, to: at, step: 1 }
    }

    /// How many times.
    pub fn steps(&self) -> usize {
        let steps = self.to.saturating_sub(self.from) / self.step.max(1);
        usize::try_from(steps).map_or(0, |steps| steps.saturating_add(1))
    }

    /// From one time to the next, in milliseconds; nothing where there is only one time.
    pub(crate) const fn told_step(&self) -> i64 {
        if self.from == self.to { 0 } else { self.step }
    }

    /// The time of a step.
    pub(crate) fn at(&self, step: usize) -> i64 {
        let step = i64::try_from(step).unwrap_or(i64::MAX);
        self.from.saturating_add(step.saturating_mul(self.step))
    }
}

/// What a query may use.
#[derive(Clone, Copy)]
pub struct Limits<'a> {
    /// How long a sample speaks for its series, in milliseconds.
    pub lookback: i64,
    /// Step of subqueries that name none, in milliseconds.
    pub subquery_step: i64,
    /// Most steps, subqueries included.
    pub steps_max: usize,
    /// Most samples that are read and made.
    pub samples_max: usize,
    /// Whether to give up. Asked now and then.
    pub is_over: &'a dyn Fn() -> bool,
}

impl Default for Limits<'_> {
    /// Those of Prometheus: 5 min of lookback, 11,000 steps, 50 million samples; subqueries each minute. Never over.
    fn default() -> Self {
        Self {
            lookback: 300_000,
            subquery_step: 60_000,
            steps_max: 11_000,
            samples_max: 50_000_000,
            is_over: &|| false,
        }
    }
}

/// What a query says.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// A number for each time.
    Scalar(Vec<(i64, f64)>),
    /// A text.
    Text(String),
    /// Series with a sample for each time that they have one at. For one time: a vector, in the order that was asked for.
    Series(Vec<Series>),
    /// Samples as they were measured: what a range selector says.
    Raw(Vec<Series>),
}

/// Writes a number as Prometheus does: the shortest text that is read back as the same number, no exponent.
pub fn show(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        format!("{value}")
    }
}
