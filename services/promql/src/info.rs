//! `info`: what is known of whoever measures, joined to what was measured.

use std::collections::{BTreeMap, HashMap};

use crate::error::Error;
use crate::eval::{Eval, Latest, Row};
use crate::labels::{Labels, NAME};
use crate::model::Point;
use crate::scope::Scope;
use crate::syntax::{Call, Expr, Matcher, Selector, Sign};

/// The metric that tells what is known, where a query names none.
const USUAL: &str = "target_info";
/// Names of metrics that tell what is known, where a query only says which do not.
const ALL: &str = ".+_info";
/// Labels that say whom an info metric is about.
const WHO: [&str; 2] = ["instance", "job"];

/// Which info metrics a call asks for.
pub(crate) fn selector(call: &Call) -> Result<Selector, Error> {
    let mut selector = match call.args.get(1) {
        Some(Expr::Selector(selector)) => selector.clone(),
        None => Selector::default(),
        Some(_) => {
            let what = "its second argument is a selector, such as {version=~\".+\"}".to_owned();
            return Err(Error::Argument { function: "info".to_owned(), what });
        }
    };
    let names: Vec<&Matcher> = selector.matchers.iter().filter(|matcher| matcher.name == NAME).collect();
    if selector.name.is_none() && names.is_empty() {
        selector.name = Some(USUAL.to_owned());
    } else if selector.name.is_none()
        && names.iter().all(|matcher| matches!(matcher.sign, Sign::NotEqual | Sign::NotLike))
    {
        selector.matchers.push(Matcher::new(NAME.to_owned(), Sign::Like, ALL.to_owned())?);
    }
    Ok(selector)
}

/// When the series of a part are looked at.
enum Reference {
    /// It has no series.
    Nothing,
    /// All at the same times.
    Times(Vec<i64>),
    /// At different ones, or at those at which it is evaluated.
    Own,
}

impl Scope<'_> {
    /// Times at which what is known is looked up for each step: those of the series that it is joined to, if all have the same.
    pub(crate) fn known_at(&self, call: &Call) -> Vec<i64> {
        let own: Vec<i64> = (0..self.span.steps()).map(|step| self.span.at(step)).collect();
        match self.reference(&call.args[0], &own) {
            Reference::Times(times) => times,
            Reference::Nothing | Reference::Own => own,
        }
    }

    fn reference(&self, expr: &Expr, times: &[i64]) -> Reference {
        match expr {
            Expr::Selector(selector) => Reference::Times(self.moved_from(&selector.when, times)),
            Expr::Range(range) => Reference::Times(self.moved_from(&range.selector.when, times)),
            Expr::Subquery(sub) => self.reference(&sub.of, &self.moved_from(&sub.when, times)),
            Expr::Call(call) if matches!(call.name, "scalar" | "time" | "pi" | "start" | "end" | "step" | "range") => {
                Reference::Nothing
            }
            Expr::Call(call) if call.name == "vector" || call.args.is_empty() => Reference::Own,
            Expr::Call(call) if call.name == "info" => self.reference(&call.args[0], times),
            other => other.parts().into_iter().fold(Reference::Nothing, |all, part| {
                match (all, self.reference(part, times)) {
                    (Reference::Nothing, other) | (other, Reference::Nothing) => other,
                    (Reference::Times(left), Reference::Times(right)) if left == right => Reference::Times(left),
                    _ => Reference::Own,
                }
            }),
        }
    }
}

impl Eval<'_> {
    /// Series with the labels of the newest info metric of each name that is about the same instance and job.
    pub(crate) fn info(&self, call: &Call) -> Result<Vec<Row>, Error> {
        let selector = selector(call)?;
        let known = self.latest_at(&selector, &self.scope.known_at(call))?;
        if known.iter().flat_map(|(_, samples)| samples).flatten().any(|sample| sample.point.float().is_none()) {
            let what = "what is known is told by numbers, not by histograms".to_owned();
            return Err(Error::Argument { function: "info".to_owned(), what });
        }
        let asked: Vec<&str> = selector.matchers.iter().map(|matcher| matcher.name.as_str()).collect();
        let asked: Vec<&str> = asked.into_iter().filter(|name| *name != NAME).collect();
        let must = selector.matchers.iter().any(|one| one.name != NAME && !one.is_match(""));
        // Only its name says whether a series is itself one that tells what is known.
        let names = Selector {
            matchers: selector.matchers.iter().filter(|matcher| matcher.name == NAME).cloned().collect(),
            ..selector.clone()
        };
        let mut by_who: HashMap<Labels, Vec<&Latest>> = HashMap::new();
        for one in &known {
            by_who.entry(one.0.only(&WHO)).or_default().push(one);
        }
        let mut answers: HashMap<Labels, Vec<Option<Point>>> = HashMap::new();
        let mut order: Vec<Labels> = Vec::new();
        for row in self.vector("info", &call.args[0])? {
            let about = by_who.get(&row.labels.only(&WHO)).map_or(&[][..], Vec::as_slice);
            let is_info = names.is_match(&row.labels);
            for (step, point) in row.points.into_iter().enumerate() {
                let Some(point) = point else { continue };
                let newest = newest(about, step);
                let labels = match newest.is_empty() {
                    _ if is_info => row.labels.clone(),
                    false => joined(&row.labels, &newest, &asked)?,
                    true if must => continue,
                    true => row.labels.clone(),
                };
                let points = answers.entry(labels.clone()).or_insert_with(|| {
                    order.push(labels.clone());
                    vec![None; self.steps()]
                });
                if points[step].replace(point).is_some() {
                    return Err(Error::Duplicate(labels));
                }
            }
        }
        Ok(order
            .into_iter()
            .filter_map(|labels| answers.remove(&labels).map(|points| Row { labels, points }))
            .collect())
    }
}

/// The newest of each name at a step.
fn newest<'k>(about: &[&'k Latest], step: usize) -> Vec<&'k Labels> {
    let mut by_name: BTreeMap<&str, (i64, &Labels)> = BTreeMap::new();
    for (labels, samples) in about {
        let Some(sample) = &samples[step] else { continue };
        let newest = by_name.entry(labels.get(NAME)).or_insert((sample.at, labels));
        if sample.at > newest.0 {
            *newest = (sample.at, labels);
        }
    }
    by_name.into_values().map(|(_, labels)| labels).collect()
}

/// Labels, with those of info metrics that are asked for, or all of them, where it has no such label itself.
///
/// # Errors
/// [`Error::Argument`] if two info metrics say different things by the same label.
fn joined(labels: &Labels, infos: &[&Labels], asked: &[&str]) -> Result<Labels, Error> {
    let mut more: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, value) in infos.iter().flat_map(|info| info.iter()) {
        if name == NAME || !labels.get(name).is_empty() || !asked.is_empty() && !asked.contains(&name) {
            continue;
        }
        if let Some(other) = more.insert(name, value).filter(|other| *other != value) {
            let what = format!("conflicting label {name:?}: one info metric says {other:?}, another {value:?}");
            return Err(Error::Argument { function: "info".to_owned(), what });
        }
    }
    Ok(Labels::new(labels.iter().chain(more)))
}
