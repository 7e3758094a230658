//! When and for how long the parts of a query look at their series.

use crate::info;
use crate::labels::Labels;
use crate::model::{Limits, Series, Span};
use crate::syntax::{At, Edges, Expr, Length, Selector, Subquery, When};

/// Series that a query needs: those that match, with their samples after `from` and until `to`.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    selector: Selector,
    /// Samples at this time or before are not needed. Milliseconds since 1970.
    pub from: i64,
    /// Samples after this time are not needed. Milliseconds since 1970.
    pub to: i64,
}

impl Selection {
    /// The name of the metric, if the query tells it.
    pub fn name(&self) -> Option<&str> {
        self.selector.name.as_deref()
    }

    /// The selector as PromQL writes it, without its time.
    pub fn text(&self) -> String {
        let selector = Selector { when: When::default(), edges: Edges::Open, ..self.selector.clone() };
        Expr::Selector(selector).to_string()
    }

    /// Whether a series is one of them.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.selector.is_match(labels)
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
    /// Milliseconds of a length.
    pub(crate) fn millis(&self, length: &Length) -> i64 {
        length.millis(self.whole)
    }

    /// What is looked at for a time: the time that `@` says, or the step's own, moved by the offset.
    pub(crate) fn moved(&self, when: &When, step: usize) -> i64 {
        self.from(when, self.span.at(step))
    }

    /// The same for many times.
    pub(crate) fn moved_from(&self, when: &When, times: &[i64]) -> Vec<i64> {
        times.iter().map(|time| self.from(when, *time)).collect()
    }

    fn from(&self, when: &When, time: i64) -> i64 {
        let time = match when.at {
            None => time,
            Some(At::Start) => self.whole.from,
            Some(At::End) => self.whole.to,
            Some(At::Time(time)) => time,
        };
        time.saturating_sub(when.offset.as_ref().map_or(0, |offset| self.millis(offset)))
    }

    /// What a selector needs that looks back for `range`, or for the lookback. Edges that are not open are looked for as far
    /// as the lookback goes.
    pub(crate) fn selection(&self, selector: &Selector, range: Option<&Length>) -> Selection {
        let lookback = self.limits.lookback;
        let range = range.map(|range| self.millis(range));
        let (before, after) = match (range, selector.edges) {
            (Some(range), Edges::Open) => (range, 0),
            (Some(range), Edges::Anchored) => (range.saturating_add(lookback), 0),
            (Some(range), Edges::Smoothed) => (range.saturating_add(lookback), lookback),
            (None, Edges::Smoothed) => (lookback, lookback),
            (None, Edges::Open | Edges::Anchored) => (lookback, 0),
        };
        let last = self.span.steps().saturating_sub(1);
        Selection {
            selector: Selector { when: When::default(), edges: Edges::Open, ..selector.clone() },
            from: self.moved(&selector.when, 0).saturating_sub(before),
            to: self.moved(&selector.when, last).saturating_add(after),
        }
    }

    /// What a selector needs that is looked at at times of its own.
    pub(crate) fn selection_at(&self, selector: &Selector, times: &[i64]) -> Selection {
        Selection {
            selector: Selector { when: When::default(), edges: Edges::Open, ..selector.clone() },
            from: times.iter().min().copied().unwrap_or_default().saturating_sub(self.limits.lookback),
            to: times.iter().max().copied().unwrap_or_default(),
        }
    }

    /// The times of a subquery: whole multiples of its step, after the earliest range begins.
    pub(crate) fn of_subquery(&self, sub: &Subquery) -> Self {
        let step = sub.step.as_ref().map_or(self.limits.subquery_step, |step| self.millis(step)).max(1);
        let last = self.span.steps().saturating_sub(1);
        let begin = self.moved(&sub.when, 0).saturating_sub(self.millis(&sub.length));
        let to = self.moved(&sub.when, last);
        let from = begin.div_euclid(step).saturating_add(1).saturating_mul(step);
        Self { span: Span { from, to, step }, ..*self }
    }

    /// All that an expression needs.
    pub(crate) fn needs(&self, expr: &Expr, into: &mut Vec<Selection>) {
        match expr {
            Expr::Subquery(sub) => self.of_subquery(sub).needs(&sub.of, into),
            Expr::Selector(selector) => into.push(self.selection(selector, None)),
            Expr::Range(range) => into.push(self.selection(&range.selector, Some(&range.length))),
            // What is known of others is asked for by its name, which the query need not say.
            Expr::Call(call) if call.name == "info" => {
                self.needs(&call.args[0], into);
                let times = self.known_at(call);
                into.extend(info::selector(call).ok().map(|selector| self.selection_at(&selector, &times)));
            }
            other => other.parts().into_iter().for_each(|part| self.needs(part, into)),
        }
    }
}
