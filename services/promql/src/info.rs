//! `info`: what is known of whoever measures, joined to what was measured.

use std::collections::HashMap;

use crate::error::Error;
use crate::eval::{Eval, Latest, Row};
use crate::labels::{Labels, NAME};
use crate::model::Point;
use crate::syntax::{Call, Expr, Selector};

/// The metric that tells what is known, where a query names none.
const USUAL: &str = "target_info";
/// Labels that say whom an info metric is about.
const WHO: [&str; 2] = ["instance", "job"];

/// Which info metrics a call asks for.
pub(crate) fn selector(call: &Call) -> Result<Selector, Error> {
    let mut selector = match call.args.get(1) {
        Some(Expr::Selector(selector)) => selector.clone(),
        None => Selector { name: Some(USUAL.to_owned()), ..Selector::default() },
        Some(_) => {
            let what = "its second argument is a selector, such as {version=~\".+\"}".to_owned();
            return Err(Error::Argument { function: "info".to_owned(), what });
        }
    };
    let is_named = selector.name.is_some() || selector.matchers.iter().any(|matcher| matcher.name == NAME);
    if !is_named {
        selector.name = Some(USUAL.to_owned());
    }
    Ok(selector)
}

impl Eval<'_> {
    /// Series with the labels of the newest info metric that is about the same instance and job.
    pub(crate) fn info(&self, call: &Call) -> Result<Vec<Row>, Error> {
        let selector = selector(call)?;
        let known = self.latest(&selector)?;
        let asked: Vec<&str> = selector.matchers.iter().map(|matcher| matcher.name.as_str()).collect();
        let asked: Vec<&str> = asked.into_iter().filter(|name| *name != NAME).collect();
        let must = selector.matchers.iter().any(|one| one.name != NAME && !one.is_match(""));
        let mut by_who: HashMap<Labels, Vec<&Latest>> = HashMap::new();
        for one in &known {
            by_who.entry(one.0.only(&WHO)).or_default().push(one);
        }
        let mut answers: HashMap<Labels, Vec<Option<Point>>> = HashMap::new();
        let mut order: Vec<Labels> = Vec::new();
        for row in self.vector("info", &call.args[0])? {
            let about = by_who.get(&row.labels.only(&WHO)).map_or(&[][..], Vec::as_slice);
            let is_info = known.iter().any(|(labels, _)| *labels == row.labels);
            for (step, point) in row.points.into_iter().enumerate() {
                let Some(point) = point else { continue };
                let newest = about.iter().filter_map(|(labels, samples)| Some((samples[step].as_ref()?.at, labels)));
                let labels = match newest.max_by_key(|(at, _)| *at) {
                    _ if is_info => row.labels.clone(),
                    Some((_, labels)) => joined(&row.labels, labels, &asked),
                    None if must => continue,
                    None => row.labels.clone(),
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

/// Labels, with those of an info metric that are asked for, or all of them, where it has no such label itself.
fn joined(labels: &Labels, info: &Labels, asked: &[&str]) -> Labels {
    let more = info
        .iter()
        .filter(|(name, _)| *name != NAME && labels.get(name).is_empty() && (asked.is_empty() || asked.contains(name)));
    Labels::new(labels.iter().chain(more))
}
