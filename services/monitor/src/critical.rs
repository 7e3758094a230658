//! What a trace waited for: at each time the deepest span that the rest stood waiting on. Pure.
//!
//! From its end backwards: a span waited for that of its children which ended last, up to the child's beginning for what
//! the child itself waited for, and so on; where no child was under way it was busy itself. After Jaeger's critical path.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::model::{Nanos, Span, SpanId};

/// A part of the time of a trace, and the span that it passed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The span.
    pub span_id: SpanId,
    /// From when on.
    pub start: Nanos,
    /// Until when.
    pub end: Nanos,
}

/// Children that are yet to be looked at, the last to end first.
type Children<'a> = HashMap<Option<SpanId>, std::vec::IntoIter<&'a Span>>;

fn children(spans: &[Arc<Span>]) -> Children<'_> {
    let known: HashSet<SpanId> = spans.iter().map(|span| span.span_id).collect();
    let mut under: HashMap<Option<SpanId>, Vec<&Span>> = HashMap::new();
    for span in spans {
        // What nobody told the parent of stands beside the first.
        under.entry(span.parent.filter(|parent| known.contains(parent))).or_default().push(span);
    }
    for siblings in under.values_mut() {
        siblings.sort_by_key(|span| std::cmp::Reverse((span.end, span.start)));
    }
    under.into_iter().map(|(parent, siblings)| (parent, siblings.into_iter())).collect()
}

/// The critical path of a trace, in the order of time. Spans that are above themselves are left out.
pub fn path(spans: &[Arc<Span>]) -> Vec<Step> {
    let mut children = children(spans);
    let start = spans.iter().map(|span| span.start).min().unwrap_or_default();
    let end = spans.iter().map(|span| span.end).max().unwrap_or_default();
    let mut steps: Vec<Step> = Vec::new();
    // A stack, not recursion: a hostile trace may be deep. The latest time is on top.
    let mut stack: Vec<(Option<SpanId>, Nanos, Nanos, Nanos)> = vec![(None, end, start, end)];
    while let Some((owner, whole, low, high)) = stack.pop() {
        // A child that outlives its owner counts as long as the owner lives; one that was still under way when the next
        // began was not waited for. Times only move back, so a child that is too late for one of them is too late for all.
        let is_waited_for = |child: &&Span| child.start < high && child.end.min(whole) <= high && low < child.end;
        let child = children.get_mut(&owner).and_then(|under| under.find(is_waited_for));
        let until = child.map_or(low, |child| child.end.min(whole));
        if let Some(span_id) = owner.filter(|_| until < high) {
            put(&mut steps, Step { span_id, start: until, end: high });
        }
        if let Some(child) = child {
            let from = child.start.max(low);
            stack.push((owner, whole, low, from));
            stack.push((Some(child.span_id), until, from, until));
        }
    }
    steps.reverse();
    steps
}

/// Adds a step that ends where the one before began.
fn put(steps: &mut Vec<Step>, step: Step) {
    match steps.last_mut() {
        Some(last) if last.span_id == step.span_id && last.start == step.end => last.start = step.start,
        _ => steps.push(step),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TraceId;

    fn span(id: u8, parent: u8, start: u64, end: u64) -> Arc<Span> {
        Arc::new(Span {
            trace_id: TraceId([1; 16]),
            span_id: SpanId([id; 8]),
            parent: SpanId::from_bytes(&[parent; 8]),
            name: String::new(),
            origin: Arc::default(),
            kind: crate::model::SpanKind::Internal,
            start: Nanos(start),
            end: Nanos(end),
            failed: false,
            status_message: String::new(),
            attributes: Vec::new(),
        })
    }

    fn told(spans: &[Arc<Span>]) -> Vec<(u8, u64, u64)> {
        path(spans).iter().map(|step| (step.span_id.0[0], step.start.0, step.end.0)).collect()
    }

    #[test]
    fn a_trace_waits_for_the_child_that_ends_last_and_is_busy_between_them() {
        // 2 and 3 run side by side, 3 longer; 4 comes after, 5 within 4; 6 ends before 3 began and 7 is awaited by nobody.
        let spans = [
            span(1, 0, 0, 100),
            span(2, 1, 10, 30),
            span(3, 1, 12, 50),
            span(4, 1, 60, 90),
            span(5, 4, 65, 80),
            span(6, 1, 2, 8),
            span(7, 3, 20, 500),
        ];
        let expected =
            [(1, 0, 2), (6, 2, 8), (1, 8, 12), (3, 12, 20), (7, 20, 50), (1, 50, 60), (4, 60, 65), (5, 65, 80)];
        let all = told(&spans[..6]);
        assert_eq!(all[..3], expected[..3]);
        assert_eq!(all[3..5], [(3, 12, 50), (1, 50, 60)]);
        assert_eq!(all[5..], [(4, 60, 65), (5, 65, 80), (4, 80, 90), (1, 90, 100)]);
        // A child that outlives its parent counts as long as the parent does.
        assert_eq!(told(&spans)[3..5], expected[3..5]);
    }

    #[test]
    fn a_loop_of_parents_and_a_trace_without_a_beginning_end() {
        assert_eq!(told(&[span(1, 2, 0, 10), span(2, 1, 0, 10)]), []);
        assert_eq!(told(&[span(1, 9, 0, 10), span(2, 1, 10, 10)]), [(1, 0, 10)]);
        assert_eq!(told(&[]), []);
    }

    #[test]
    fn the_path_of_a_wide_and_deep_trace_covers_it_once() {
        let mut spans: Vec<_> = (1..=200_u8).map(|id| span(id, id - 1, u64::from(id), 1000 - u64::from(id))).collect();
        spans.extend((1..=50_u8).map(|id| span(200 + id, 7, 10 * u64::from(id), 10 * u64::from(id) + 5)));
        let path = path(&spans);
        assert!(path.windows(2).all(|two| two[0].end == two[1].start), "{path:?}");
        assert_eq!((path.first().map(|step| step.start.0), path.last().map(|step| step.end.0)), (Some(1), Some(999)));
    }
}
