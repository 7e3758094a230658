//! What is known of a trace from some of its spans. Parts join to the whole, in whatever order they come. Pure.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::model::{Nanos, Span, Summary, TraceId};

/// What some spans tell of their trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The trace.
    pub trace_id: TraceId,
    /// The earliest beginning.
    pub start: Nanos,
    /// The latest end.
    pub end: Nanos,
    /// Whether the first span has a parent; one without is first, whenever it began.
    pub has_parent: bool,
    /// When the first span began.
    pub first_start: Nanos,
    /// Service of the first span.
    pub service: String,
    /// Name of the first span.
    pub name: String,
    /// How many spans.
    pub spans: u64,
    /// How many of them failed.
    pub failed: u64,
    /// Services that took part.
    pub services: BTreeSet<String>,
}

impl Part {
    /// What one span tells.
    pub fn of_span(span: &Span) -> Self {
        Self {
            trace_id: span.trace_id,
            start: span.start,
            end: span.end,
            has_parent: span.parent.is_some(),
            first_start: span.start,
            service: span.origin.service.clone(),
            name: span.name.clone(),
            spans: 1,
            failed: u64::from(span.failed),
            services: BTreeSet::from([span.origin.service.replace('\n', " ")]),
        }
    }

    /// What spans tell, by trace.
    pub fn of_spans(spans: &[Arc<Span>]) -> Vec<Self> {
        let mut parts: HashMap<TraceId, Self> = HashMap::new();
        for span in spans {
            let part = Self::of_span(span);
            match parts.get_mut(&span.trace_id) {
                Some(known) => known.join(&part),
                None => drop(parts.insert(span.trace_id, part)),
            }
        }
        parts.into_values().collect()
    }

    /// Adds what other spans of the same trace tell.
    pub fn join(&mut self, other: &Self) {
        self.start = self.start.min(other.start);
        self.end = self.end.max(other.end);
        if (other.has_parent, other.first_start) < (self.has_parent, self.first_start) {
            self.has_parent = other.has_parent;
            self.first_start = other.first_start;
            self.service.clone_from(&other.service);
            self.name.clone_from(&other.name);
        }
        self.spans += other.spans;
        self.failed += other.failed;
        self.services.extend(other.services.iter().cloned());
    }

    /// The trace in a line.
    pub fn summary(&self) -> Summary {
        Summary {
            trace_id: self.trace_id,
            service: self.service.clone(),
            name: self.name.clone(),
            start: self.start,
            end: self.end,
            spans: self.spans,
            failed: self.failed > 0,
            services: self.services.clone(),
        }
    }

    /// The services in one text; none has a line end in its name.
    pub fn services_text(&self) -> String {
        self.services.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Origin, SpanId, SpanKind};

    #[test]
    fn parts_join_to_the_same_whole_in_whatever_order_they_come() {
        let span = |id: u8, parent: Option<u8>, start: u64, end: u64| {
            Arc::new(Span {
                trace_id: TraceId([1; 16]),
                span_id: SpanId([id; 8]),
                parent: parent.map(|parent| SpanId([parent; 8])),
                name: format!("step {id}"),
                origin: Arc::new(Origin { service: format!("service-{id}"), ..Origin::default() }),
                kind: SpanKind::Internal,
                start: Nanos(start),
                end: Nanos(end),
                failed: id == 3,
                status_message: String::new(),
                attributes: Vec::new(),
            })
        };
        let spans = [span(2, Some(1), 5, 50), span(1, None, 10, 60), span(3, Some(1), 15, 70)];
        let mut reversed = spans.clone();
        reversed.reverse();
        let whole = Part::of_spans(&spans).remove(0);
        assert_eq!(Part::of_spans(&reversed), std::slice::from_ref(&whole));
        let summary = whole.summary();
        assert_eq!((summary.name.as_str(), summary.start, summary.end), ("step 1", Nanos(5), Nanos(70)));
        assert_eq!((summary.spans, summary.failed, summary.services.len()), (3, true, 3));
    }
}
