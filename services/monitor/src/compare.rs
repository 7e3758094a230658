//! Two traces beside each other, step by step. Pure.
//!
//! A step is a service and a span's name below the steps that led there. Spans that are the same step count together: what
//! a loop did a hundred times is one row.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::model::{Nanos, Span, SpanId};

/// Most steps of a comparison.
pub const STEPS_MAX: usize = 5_000;
/// Deepest step; what lies deeper is counted there.
const DEPTH_MAX: usize = 256;

/// What a trace has of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// How many spans.
    pub spans: u32,
    /// How many of them failed.
    pub failed: u32,
    /// How long they took, in nanoseconds.
    pub nanos: u64,
    /// How much of that was not in steps below.
    pub own_nanos: u64,
}

/// A step in two traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// How many steps are above it.
    pub depth: usize,
    /// Its service.
    pub service: String,
    /// Its name.
    pub name: String,
    /// What each of the two has of it.
    pub times: [Time; 2],
}

/// Two traces beside each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// The steps, those under a step behind it.
    pub steps: Vec<Step>,
    /// Whether there were more.
    pub is_cut_off: bool,
}

#[derive(Default)]
struct Tree {
    steps: Vec<Step>,
    under: Vec<Vec<usize>>,
    places: HashMap<(Option<usize>, String, String), usize>,
    first: Vec<usize>,
    is_cut_off: bool,
}

impl Tree {
    fn step(&mut self, above: Option<usize>, span: &Span) -> Option<usize> {
        let key = (above, span.origin.service.clone(), span.name.clone());
        if let Some(place) = self.places.get(&key) {
            return Some(*place);
        }
        if self.steps.len() >= STEPS_MAX {
            self.is_cut_off = true;
            return None;
        }
        let place = self.steps.len();
        let depth = above.map_or(0, |above| self.steps[above].depth + 1);
        let (service, name) = (span.origin.service.clone(), span.name.clone());
        self.steps.push(Step { depth, service, name, times: [Time::default(); 2] });
        self.under.push(Vec::new());
        match above {
            Some(above) => self.under[above].push(place),
            None => self.first.push(place),
        }
        self.places.insert(key, place);
        Some(place)
    }

    /// The step of a span: those above it first.
    fn place(
        &mut self,
        span: &Span,
        known: &HashMap<SpanId, &Arc<Span>>,
        placed: &mut HashMap<SpanId, usize>,
    ) -> Option<usize> {
        let mut chain = vec![span];
        let mut seen = HashSet::from([span.span_id]);
        let mut above = None;
        while let Some(parent) = chain.last().and_then(|last| last.parent).and_then(|parent| known.get(&parent)) {
            if let Some(place) = placed.get(&parent.span_id) {
                above = Some(*place);
                break;
            }
            if !seen.insert(parent.span_id) {
                break;
            }
            chain.push(parent);
        }
        for span in chain.into_iter().rev() {
            let is_deep = above.is_some_and(|above: usize| self.steps[above].depth >= DEPTH_MAX);
            let place = if is_deep { above } else { self.step(above, span) };
            placed.insert(span.span_id, place?);
            above = place;
        }
        above
    }

    fn add(&mut self, spans: &[Arc<Span>], which: usize) {
        let known: HashMap<SpanId, &Arc<Span>> = spans.iter().map(|span| (span.span_id, span)).collect();
        let mut under: HashMap<SpanId, Vec<(Nanos, Nanos)>> = HashMap::new();
        for span in spans {
            if let Some(parent) = span.parent {
                under.entry(parent).or_default().push((span.start, span.end));
            }
        }
        let mut placed = HashMap::new();
        for span in spans {
            let place = placed.get(&span.span_id).copied().or_else(|| self.place(span, &known, &mut placed));
            let Some(step) = place.and_then(|place| self.steps.get_mut(place)) else { continue };
            let nanos = span.end.0.saturating_sub(span.start.0);
            let below = covered(span, under.remove(&span.span_id).unwrap_or_default());
            let time = &mut step.times[which];
            time.spans += 1;
            time.failed += u32::from(span.failed);
            time.nanos = time.nanos.saturating_add(nanos);
            time.own_nanos = time.own_nanos.saturating_add(nanos.saturating_sub(below));
        }
    }
}

/// How much of a span is covered by spans under it.
fn covered(span: &Span, mut under: Vec<(Nanos, Nanos)>) -> u64 {
    under.sort_unstable();
    let mut at = span.start;
    let mut covered = 0;
    for (start, end) in under {
        let (start, end) = (start.max(at), end.min(span.end));
        if start < end {
            covered += end.0 - start.0;
            at = end;
        }
    }
    covered
}

/// Holds two traces beside each other; their spans are in the order of their beginnings.
pub fn compare(one: &[Arc<Span>], other: &[Arc<Span>]) -> Comparison {
    let mut tree = Tree::default();
    tree.add(one, 0);
    tree.add(other, 1);
    let mut steps = Vec::with_capacity(tree.steps.len());
    let mut stack: Vec<usize> = tree.first.iter().rev().copied().collect();
    while let Some(place) = stack.pop() {
        steps.push(tree.steps[place].clone());
        stack.extend(tree.under[place].iter().rev());
    }
    Comparison { steps, is_cut_off: tree.is_cut_off }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Origin, SpanKind, TraceId};

    fn span(id: u8, parent: u8, service: &str, name: &str, start: u64, end: u64) -> Arc<Span> {
        Arc::new(Span {
            trace_id: TraceId([1; 16]),
            span_id: SpanId([id; 8]),
            parent: SpanId::from_bytes(&[parent; 8]),
            name: name.to_owned(),
            origin: Arc::new(Origin { service: service.to_owned(), ..Origin::default() }),
            kind: SpanKind::Internal,
            start: Nanos(start),
            end: Nanos(end),
            failed: name == "bad",
            status_message: String::new(),
            attributes: Vec::new(),
        })
    }

    #[test]
    fn steps_stand_beside_each_other_and_repeated_ones_count_together() {
        let one = [
            span(1, 0, "edge", "GET", 0, 100),
            span(2, 1, "cart", "read", 10, 30),
            span(3, 1, "cart", "read", 40, 60),
            span(4, 2, "db", "bad", 12, 20),
        ];
        let other = [span(1, 0, "edge", "GET", 0, 50), span(3, 1, "pay", "charge", 10, 80)];
        let comparison = compare(&one, &other);
        let told: Vec<_> = comparison
            .steps
            .iter()
            .map(|step| {
                let of = |time: Time| (time.spans, time.failed, time.nanos, time.own_nanos);
                (step.depth, step.name.as_str(), of(step.times[0]), of(step.times[1]))
            })
            .collect();
        let none = (0, 0, 0, 0);
        let expected = [
            (0, "GET", (1, 0, 100, 60), (1, 0, 50, 10)),
            (1, "read", (2, 0, 40, 32), none),
            (2, "bad", (1, 1, 8, 8), none),
            (1, "charge", none, (1, 0, 70, 70)),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_loop_of_parents_and_a_deep_trace_end() {
        let spans = [span(1, 2, "a", "x", 0, 1), span(2, 1, "a", "y", 0, 1)];
        assert_eq!(compare(&spans, &[]).steps.len(), 2);
        let deep: Vec<_> = (1..=255_u8).map(|id| span(id, id - 1, "a", "x", 0, 1)).rev().collect();
        assert_eq!(compare(&deep, &deep).steps.len(), 255);
    }
}
