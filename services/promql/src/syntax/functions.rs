//! Functions and aggregations by name, with what they take and give.

/// What a part of a query is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Scalar,
    Text,
    Vector,
    Range,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "a scalar",
            Self::Text => "a string",
            Self::Vector => "an instant vector",
            Self::Range => "a range vector",
        }
    }
}

/// What a function takes and gives.
#[derive(Clone, Copy)]
pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) takes: &'static [Kind],
    /// How many of the last arguments may be left out.
    pub(crate) optional: usize,
    /// How often the last argument may be said again.
    pub(crate) more: usize,
    pub(crate) gives: Kind,
}

use Kind::{Range as R, Scalar as S, Text as T, Vector as V};

/// Names of functions that take the same and give a vector.
const ALIKE: &[(&[Kind], &str)] = &[
    (
        &[V],
        "abs absent acos acosh asin asinh atan atanh ceil cos cosh deg exp floor histogram_avg histogram_count \
         histogram_stddev histogram_stdvar histogram_sum ln log10 log2 rad sgn sin sinh sort sort_desc sqrt tan tanh \
         timestamp",
    ),
    (
        &[R],
        "absent_over_time avg_over_time changes count_over_time delta deriv first_over_time idelta increase irate \
         last_over_time mad_over_time max_over_time min_over_time present_over_time rate resets stddev_over_time \
         stdvar_over_time sum_over_time ts_of_first_over_time ts_of_last_over_time ts_of_max_over_time \
         ts_of_min_over_time",
    ),
    (&[V, S], "clamp_max clamp_min"),
    (&[V, S, S], "clamp"),
    (&[S, V], "histogram_quantile"),
    (&[S, S, V], "histogram_fraction"),
    (&[R, S, S], "double_exponential_smoothing"),
    (&[R, S], "predict_linear"),
    (&[S, R], "quantile_over_time"),
    (&[V, T, T, T, T], "label_replace"),
    (&[S], "vector"),
];

/// The others: name, what they take, how many may be left out, how often the last may be said again, what they give.
const APART: &[(&str, &[Kind], usize, usize, Kind)] = &[
    ("day_of_month", &[V], 1, 0, V),
    ("day_of_week", &[V], 1, 0, V),
    ("day_of_year", &[V], 1, 0, V),
    ("days_in_month", &[V], 1, 0, V),
    ("end", &[], 0, 0, S),
    ("histogram_quantiles", &[V, T, S], 0, 9, V),
    ("hour", &[V], 1, 0, V),
    ("info", &[V, V], 1, 0, V),
    ("integral", &[R, S], 1, 0, V),
    ("label_join", &[V, T, T, T], 1, usize::MAX, V),
    ("max_of", &[S, S], 0, 0, S),
    ("min_of", &[S, S], 0, 0, S),
    ("minute", &[V], 1, 0, V),
    ("month", &[V], 1, 0, V),
    ("pi", &[], 0, 0, S),
    ("range", &[], 0, 0, S),
    ("round", &[V, S], 1, 0, V),
    ("scalar", &[V], 0, 0, S),
    ("sort_by_label", &[V, T], 1, usize::MAX, V),
    ("sort_by_label_desc", &[V, T], 1, usize::MAX, V),
    ("start", &[], 0, 0, S),
    ("step", &[], 0, 0, S),
    ("time", &[], 0, 0, S),
    ("year", &[V], 1, 0, V),
];

/// The function of a name, in any case of letters.
pub(crate) fn function(name: &str) -> Option<Function> {
    for (takes, names) in ALIKE {
        if let Some(name) = names.split_whitespace().find(|other| other.eq_ignore_ascii_case(name)) {
            return Some(Function { name, takes, optional: 0, more: 0, gives: V });
        }
    }
    let (name, takes, optional, more, gives) = APART.iter().find(|(other, ..)| other.eq_ignore_ascii_case(name))?;
    Some(Function { name, takes, optional: *optional, more: *more, gives: *gives })
}

/// Aggregations, and what their parameter is.
const FOLDS: &[(&str, Option<Kind>)] = &[
    ("sum", None),
    ("avg", None),
    ("count", None),
    ("group", None),
    ("min", None),
    ("max", None),
    ("stddev", None),
    ("stdvar", None),
    ("topk", Some(S)),
    ("bottomk", Some(S)),
    ("quantile", Some(S)),
    ("limitk", Some(S)),
    ("limit_ratio", Some(S)),
    ("count_values", Some(T)),
];

/// The aggregation of a name, in any case of letters.
pub(crate) fn fold(name: &str) -> Option<(&'static str, Option<Kind>)> {
    FOLDS.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).copied()
}
