//! The parts of a query, as they were written. What they mean is told elsewhere.

pub(crate) mod check;
mod functions;
mod lex;
mod read;
mod show;

use regex::Regex;

use crate::error::Error;
use crate::labels::{Labels, NAME};
use crate::model::Span;

pub use lex::duration;
pub(crate) use read::read;

/// A part of a query.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expr {
    Number(f64),
    Text(String),
    Paren(Box<Self>),
    Negative(Box<Self>),
    Positive(Box<Self>),
    Binary(Box<Binary>),
    Fold(Box<Fold>),
    Call(Call),
    Selector(Selector),
    Range(Range),
    Subquery(Box<Subquery>),
}

impl Expr {
    /// What stands in parentheses, or itself.
    pub(crate) fn bare(&self) -> &Self {
        match self {
            Self::Paren(inner) => inner.bare(),
            other => other,
        }
    }

    /// The parts of which it is made, in the order in which they were written.
    pub(crate) fn parts(&self) -> Vec<&Self> {
        match self {
            Self::Number(_) | Self::Text(_) | Self::Selector(_) | Self::Range(_) => Vec::new(),
            Self::Paren(inner) | Self::Negative(inner) | Self::Positive(inner) => vec![inner],
            Self::Binary(binary) => vec![&binary.left, &binary.right],
            Self::Fold(fold) => fold.param.iter().chain([&fold.of]).collect(),
            Self::Call(call) => call.args.iter().collect(),
            Self::Subquery(sub) => vec![&sub.of],
        }
    }
}

/// An operator between two parts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Binary {
    pub(crate) op: &'static str,
    pub(crate) left: Expr,
    pub(crate) right: Expr,
    /// Whether a comparison tells 0 or 1, rather than to keep or to drop.
    pub(crate) is_bool: bool,
    /// `on` keeps only some labels for comparison, `ignoring` all but some.
    pub(crate) matching: Option<Grouping>,
    pub(crate) many: Many,
    /// Labels that the side with one row gives to the other.
    pub(crate) extra: Vec<String>,
    /// What stands in for a row that is missing left, and right.
    pub(crate) fill: [Option<f64>; 2],
}

/// Which labels count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Grouping {
    /// `by`, `on`.
    Only(Vec<String>),
    /// `without`, `ignoring`.
    Without(Vec<String>),
}

/// Which side of an operator may have many rows with the same labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Many {
    Neither,
    /// `group_left`.
    Left,
    /// `group_right`.
    Right,
}

/// An aggregation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fold {
    pub(crate) name: &'static str,
    pub(crate) param: Option<Expr>,
    pub(crate) of: Expr,
    pub(crate) grouping: Option<Grouping>,
}

/// A function and what it is given.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call {
    pub(crate) name: &'static str,
    pub(crate) args: Vec<Expr>,
}

/// Series by their labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Selector {
    pub(crate) name: Option<String>,
    pub(crate) matchers: Vec<Matcher>,
    pub(crate) when: When,
    pub(crate) edges: Edges,
}

/// What stands at the edges of a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Edges {
    /// Nothing: only what was measured within counts.
    #[default]
    Open,
    /// The last sample before.
    Anchored,
    /// The value on the line between the samples before and after.
    Smoothed,
}

/// When something is looked at.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct When {
    pub(crate) at: Option<At>,
    pub(crate) offset: Option<Length>,
}

/// A time that is the same at all steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum At {
    /// Milliseconds since 1970.
    Time(i64),
    Start,
    End,
}

/// A selector with a range.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Range {
    pub(crate) selector: Selector,
    pub(crate) length: Length,
}

/// A part that is evaluated again and again.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Subquery {
    pub(crate) of: Expr,
    pub(crate) length: Length,
    pub(crate) step: Option<Length>,
    pub(crate) when: When,
}

/// A length of time, which may depend on the step and the span of the query.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Length {
    /// Seconds, and whether they were written as a duration such as `5m`.
    Seconds(f64, bool),
    Step,
    Range,
    Paren(Box<Self>),
    Negative(Box<Self>),
    Made(&'static str, Box<[Self; 2]>),
    /// `min_of` or `max_of`.
    Of(&'static str, Box<[Self; 2]>),
}

impl Length {
    /// Milliseconds, for a query at the times of a span.
    pub(crate) fn millis(&self, whole: Span) -> i64 {
        let millis = (self.seconds(whole) * 1000.0).round();
        #[expect(clippy::cast_possible_truncation, reason = "saturates; what is longer than time is all of it")]
        let millis = millis as i64;
        millis
    }

    fn seconds(&self, whole: Span) -> f64 {
        let of = |pair: &[Self; 2]| (pair[0].seconds(whole), pair[1].seconds(whole));
        match self {
            Self::Seconds(seconds, _) => *seconds,
            Self::Step => crate::math::seconds(whole.told_step()),
            Self::Range => crate::math::seconds(whole.to - whole.from),
            Self::Paren(inner) => inner.seconds(whole),
            Self::Negative(inner) => -inner.seconds(whole),
            Self::Of(name, pair) => {
                let (left, right) = of(pair);
                if *name == "min_of" { left.min(right) } else { left.max(right) }
            }
            Self::Made(op, pair) => {
                let (left, right) = of(pair);
                match *op {
                    "+" => left + right,
                    "-" => left - right,
                    "*" => left * right,
                    "/" => left / right,
                    "%" => left % right,
                    _ => left.powf(right),
                }
            }
        }
    }
}

/// How a label is matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    Equal,
    NotEqual,
    Like,
    NotLike,
}

/// What the value of a label must be.
#[derive(Clone, Debug)]
pub(crate) struct Matcher {
    pub(crate) name: String,
    pub(crate) sign: Sign,
    pub(crate) value: String,
    pattern: Option<Regex>,
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.sign, &self.value) == (&other.name, other.sign, &other.value)
    }
}

impl Eq for Matcher {}

impl Matcher {
    /// Reads the pattern, if the sign wants one.
    ///
    /// # Errors
    /// [`Error::Syntax`] if it cannot be read.
    pub(crate) fn new(name: String, sign: Sign, value: String) -> Result<Self, Error> {
        let pattern = match sign {
            Sign::Equal | Sign::NotEqual => None,
            Sign::Like | Sign::NotLike => Some(pattern(&value).map_err(Error::Syntax)?),
        };
        Ok(Self { name, sign, value, pattern })
    }

    /// Whether a value fits. A label that is not there is an empty one.
    pub(crate) fn is_match(&self, value: &str) -> bool {
        let fits = match &self.pattern {
            None => self.value == value,
            Some(pattern) => pattern.is_match(value),
        };
        fits == matches!(self.sign, Sign::Equal | Sign::Like)
    }
}

impl Selector {
    /// Whether it says anything that not every series fulfils.
    pub(crate) fn selects(&self) -> bool {
        self.name.is_some() || self.matchers.iter().any(|matcher| !matcher.is_match(""))
    }

    /// Whether a series is one of them.
    pub(crate) fn is_match(&self, labels: &Labels) -> bool {
        self.name.as_ref().is_none_or(|name| labels.get(NAME) == name)
            && self.matchers.iter().all(|matcher| matcher.is_match(labels.get(&matcher.name)))
    }
}

/// A pattern that fits whole values. A brace that opens no repetition means itself, as it does in RE2.
pub(crate) fn pattern(text: &str) -> Result<Regex, String> {
    let whole = |text: &str| Regex::new(&format!("^(?s:{text})$"));
    whole(text).or_else(|error| {
        let mut mended = String::with_capacity(text.len() + 2);
        let mut is_escaped = false;
        for (at, sign) in text.char_indices() {
            let opens = sign == '{' && !is_escaped && {
                let inner = text[at + 1..].split('}').next().unwrap_or_default();
                inner.is_empty() || !inner.bytes().all(|byte| byte.is_ascii_digit() || byte == b',')
            };
            is_escaped = sign == '\\' && !is_escaped;
            if opens {
                mended.push('\\');
            }
            mended.push(sign);
        }
        whole(&mended).map_err(|_| format!("the pattern {text:?} cannot be read: {error}"))
    })
}
