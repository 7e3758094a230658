//! When and for how long the parts of a query look at their series.

use std::time::{Duration, SystemTime};

use promql_parser::label::Matchers;
use promql_parser::parser::{AtModifier, Expr, Offset, SubqueryExpr, VectorSelector};

use crate::error::Error;
use crate::info;
use crate::labels::{Labels, NAME};
use crate::model::{Limits, Series, Span};

/// Series that a query needs: those that match, with their samples after `from` and until `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    name: Option<String>,
    matchers: Matchers,
    /// Samples at this time or before are not needed. Milliseconds since 1970.
    pub from: i64,
    /// Samples after this time are not needed. Milliseconds since 1970.
    pub to: i64,
}

impl Selection {
    /// The name of the metric, if the query tells it.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Whether a series is one of them.
    pub fn matches(&self, labels: &Labels) -> bool {
        if self.name.as_ref().is_some_and(|name| labels.get(NAME) != name) {
            return false;
        }
        let all = |matchers: &[promql_parser::label::Matcher]| {
            matchers.iter().all(|matcher| matcher.is_match(labels.get(&matcher.name)))
        };
        let either = &self.matchers.or_matchers;
        all(&self.matchers.matchers) && (either.is_empty() || either.iter().any(|matchers| all(matchers)))
    }
}

/// Series with what asked for them. A query has few selectors, so that they are looked for one after the other.
pub type Data = Vec<(Selection, Vec<Series>)>;

/// Times at which a part of a query is evaluated.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub(crate) span: Span,
    /// Those of the whole query, for `@ start()` and `@ end()`.
    pub(crate) whole: Span,
    pub(crate) limits: Limits<'a>,
}

impl Scope<'_> {
    /// What is looked at for a time: the time that `@` says, or the step's own, moved by the offset.
    pub(crate) fn moved(&self, at: Option<&AtModifier>, offset: Option<&Offset>, step: usize) -> i64 {
        let time = match at {
            None => self.span.at(step),
            Some(AtModifier::Start) => self.whole.from,
            Some(AtModifier::End) => self.whole.to,
            Some(AtModifier::At(time)) => since_1970(*time),
        };
        match offset {
            None => time,
            Some(Offset::Pos(by)) => time.saturating_sub(millis(*by)),
            Some(Offset::Neg(by)) => time.saturating_add(millis(*by)),
        }
    }

    /// What a selector needs that looks back for `range`, or for the lookback.
    pub(crate) fn selection(&self, selector: &VectorSelector, range: Option<Duration>) -> Selection {
        let back = range.map_or(self.limits.lookback, millis);
        let last = self.span.steps().saturating_sub(1);
        let first = self.moved(selector.at.as_ref(), selector.offset.as_ref(), 0);
        Selection {
            name: selector.name.clone(),
            matchers: selector.matchers.clone(),
            from: first.saturating_sub(back),
            to: self.moved(selector.at.as_ref(), selector.offset.as_ref(), last),
        }
    }

    /// The times of a subquery: whole multiples of its step, after the earliest range begins.
    pub(crate) fn of_subquery(&self, sub: &SubqueryExpr) -> Self {
        let step = sub.step.map_or(self.limits.subquery_step, millis).max(1);
        let last = self.span.steps().saturating_sub(1);
        let begin = self.moved(sub.at.as_ref(), sub.offset.as_ref(), 0).saturating_sub(millis(sub.range));
        let to = self.moved(sub.at.as_ref(), sub.offset.as_ref(), last);
        let from = begin.div_euclid(step).saturating_add(1).saturating_mul(step);
        Self { span: Span { from, to, step }, ..*self }
    }

    /// All that an expression needs.
    pub(crate) fn needs(&self, expr: &Expr, into: &mut Vec<Selection>) {
        match expr {
            Expr::Aggregate(aggregate) => {
                if let Some(param) = &aggregate.param {
                    self.needs(param, into);
                }
                self.needs(&aggregate.expr, into);
            }
            Expr::Unary(unary) => self.needs(&unary.expr, into),
            Expr::Binary(binary) => {
                self.needs(&binary.lhs, into);
                self.needs(&binary.rhs, into);
            }
            Expr::Paren(paren) => self.needs(&paren.expr, into),
            Expr::Subquery(sub) => self.of_subquery(sub).needs(&sub.expr, into),
            Expr::VectorSelector(selector) => into.push(self.selection(selector, None)),
            Expr::MatrixSelector(selector) => into.push(self.selection(&selector.vs, Some(selector.range))),
            // What is known of others is asked for by its name, which the query need not say.
            Expr::Call(call) if call.func.name == "info" => {
                self.needs(&call.args.args[0], into);
                into.extend(info::selector(call).ok().map(|selector| self.selection(&selector, None)));
            }
            Expr::Call(call) => call.args.args.iter().for_each(|argument| self.needs(argument, into)),
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => {}
        }
    }
}

/// Reads a duration as PromQL writes it, such as `1h30m`.
///
/// # Errors
/// [`Error::Syntax`].
pub fn duration(text: &str) -> Result<Duration, Error> {
    promql_parser::util::parse_duration(text).map_err(Error::Syntax)
}

pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn since_1970(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => millis(after),
        Err(before) => millis(before.duration()).saturating_neg(),
    }
}
