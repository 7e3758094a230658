//! Exemplars: single measurements that say which trace they were made in. In memory, within bounds, the oldest forgotten
//! first. Pure.

use std::collections::{HashMap, VecDeque};

use ninefold_promql::{Labels, Selection};

/// Most exemplars of one series.
const OF_SERIES_MAX: usize = 10;
/// Most exemplars of all series.
const ALL_MAX: usize = 20_000;

/// A measurement and what else is known of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Exemplar {
    /// When, in milliseconds since 1970.
    pub(crate) at: i64,
    /// What was measured.
    pub(crate) value: f64,
    /// Its trace and span, and attributes of its own.
    pub(crate) labels: Labels,
}

/// An exemplar and the series that it is of.
pub(crate) type Said = (Labels, Exemplar);

/// All exemplars.
#[derive(Debug, Default)]
pub(crate) struct Exemplars {
    series: HashMap<Labels, VecDeque<Exemplar>>,
    /// Series in the order in which exemplars came, one for each exemplar.
    order: VecDeque<Labels>,
}

impl Exemplars {
    /// Puts exemplars in. One that was said before is not there twice.
    pub(crate) fn put(&mut self, said: Vec<Said>) {
        for (labels, exemplar) in said {
            let of = self.series.entry(labels.clone()).or_default();
            if of.contains(&exemplar) {
                continue;
            }
            of.push_back(exemplar);
            if of.len() > OF_SERIES_MAX {
                of.pop_front();
            } else {
                self.order.push_back(labels);
            }
            while self.order.len() > ALL_MAX {
                self.forget_one();
            }
        }
    }

    /// All of them, as they came.
    pub(crate) fn all(&self) -> Vec<Said> {
        let of = |(labels, of): (&Labels, &VecDeque<Exemplar>)| -> Vec<Said> {
            of.iter().map(|one| (labels.clone(), one.clone())).collect()
        };
        let mut all: Vec<Said> = self.series.iter().flat_map(of).collect();
        all.sort_by_key(|(_, exemplar)| exemplar.at);
        all
    }

    fn forget_one(&mut self) {
        let Some(labels) = self.order.pop_front() else { return };
        if let Some(of) = self.series.get_mut(&labels) {
            of.pop_front();
            if of.is_empty() {
                self.series.remove(&labels);
            }
        }
    }

    /// Those of series that match one of the selections, from a time until another, by series and time.
    pub(crate) fn of(&self, selections: &[Selection], from: i64, to: i64) -> Vec<(Labels, Vec<Exemplar>)> {
        let matching = self.series.iter().filter(|(labels, _)| selections.iter().any(|one| one.matches(labels)));
        let mut found: Vec<(Labels, Vec<Exemplar>)> = matching
            .map(|(labels, of)| {
                let mut of: Vec<_> = of.iter().filter(|one| from <= one.at && one.at <= to).cloned().collect();
                of.sort_by_key(|one| one.at);
                (labels.clone(), of)
            })
            .filter(|(_, of)| !of.is_empty())
            .collect();
        found.sort_by(|(left, _), (right, _)| left.cmp(right));
        found
    }
}

#[cfg(test)]
mod tests {
    use ninefold_promql::NAME;

    use super::*;

    #[test]
    fn the_newest_of_a_series_stay_and_no_more_than_there_is_room_for() {
        let exemplar = |at| Exemplar { at, value: 1.0, labels: Labels::new([("trace_id", "t")]) };
        let labels = |of: usize| Labels::new([(NAME, "m"), ("of", of.to_string().as_str())]);
        let mut all = Exemplars::default();
        all.put((0..20).map(|at| (labels(0), exemplar(at))).collect());
        all.put(vec![(labels(0), exemplar(19))]);
        assert_eq!(all.series[&labels(0)].iter().map(|one| one.at).collect::<Vec<_>>(), (10..20).collect::<Vec<_>>());
        all.put((1..ALL_MAX + 5).map(|of| (labels(of), exemplar(1))).collect());
        assert_eq!(all.series.values().map(VecDeque::len).sum::<usize>(), ALL_MAX);
        assert!(!all.series.contains_key(&labels(0)), "the first came first");
    }
}
