//! Spans in memory, by arrival and by trace, and the traces by their beginning. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::model::{Nanos, Span, SpanId, Summary, TraceFilter, TraceId};
use crate::summary::Part;
use crate::tier::{Page, Tally, TraceCursor};

/// What the indexes and the allocator take for a span, beside its own bytes; measured by eye, on the safe side.
const INDEX_BYTES: usize = 320;

/// Spans within a number of bytes; the first to come is the first to go.
#[derive(Debug)]
pub(crate) struct Store {
    arrived: VecDeque<Arc<Span>>,
    traces: HashMap<TraceId, Entry>,
    begun: BTreeSet<TraceCursor>,
    bytes: usize,
    /// None where spans are held until they are in files.
    bytes_max: Option<usize>,
    /// What is kept, for the answer.
    pub(crate) tally: Tally,
}

/// What is kept of a trace. Beginning, end and first span stay known when the spans that told them are forgotten.
#[derive(Debug)]
struct Entry {
    spans: VecDeque<Arc<Span>>,
    ids: HashSet<SpanId>,
    start: Nanos,
    end: Nanos,
    first: First,
    failed: u64,
    services: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct First {
    /// False before true: a span without a parent is the first, whenever it began.
    has_parent: bool,
    start: Nanos,
    service: String,
    name: String,
}

impl Entry {
    fn new(span: &Span) -> Self {
        Self {
            spans: VecDeque::new(),
            ids: HashSet::new(),
            start: span.start,
            end: span.end,
            first: First::new(span),
            failed: 0,
            services: BTreeMap::new(),
        }
    }

    fn add(&mut self, span: Arc<Span>) {
        self.ids.insert(span.span_id);
        self.start = self.start.min(span.start);
        self.end = self.end.max(span.end);
        if (span.parent.is_some(), span.start) < (self.first.has_parent, self.first.start) {
            self.first = First::new(&span);
        }
        self.failed += u64::from(span.failed);
        match self.services.get_mut(&span.origin.service) {
            Some(spans) => *spans += 1,
            None => drop(self.services.insert(span.origin.service.clone(), 1)),
        }
        self.spans.push_back(span);
    }

    fn remove_oldest(&mut self) {
        let Some(span) = self.spans.pop_front() else { return };
        self.ids.remove(&span.span_id);
        self.failed -= u64::from(span.failed);
        if let Some(spans) = self.services.get_mut(&span.origin.service) {
            *spans -= 1;
            if *spans == 0 {
                self.services.remove(&span.origin.service);
            }
        }
    }

    fn summary(&self, trace_id: TraceId) -> Summary {
        Summary {
            trace_id,
            service: self.first.service.clone(),
            name: self.first.name.clone(),
            start: self.start,
            end: self.end,
            spans: self.spans.len() as u64,
            failed: self.failed > 0,
            services: self.services.keys().cloned().collect(),
        }
    }
}

impl First {
    fn new(span: &Span) -> Self {
        Self {
            has_parent: span.parent.is_some(),
            start: span.start,
            service: span.origin.service.clone(),
            name: span.name.clone(),
        }
    }
}

impl Store {
    /// Makes an empty store.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let tally = Tally { bytes_max: bytes_max as u64, ..Tally::default() };
        Self {
            arrived: VecDeque::new(),
            traces: HashMap::new(),
            begun: BTreeSet::new(),
            bytes: 0,
            bytes_max: Some(bytes_max),
            tally,
        }
    }

    /// Holds spans until [`Store::forget`] is called.
    pub(crate) fn hold(&mut self) {
        self.bytes_max = None;
    }

    /// All spans, as they came in.
    pub(crate) fn held(&self) -> Vec<Arc<Span>> {
        self.arrived.iter().cloned().collect()
    }

    /// Forgets so many of the oldest.
    pub(crate) fn forget(&mut self, count: usize) {
        for _ in 0..count {
            self.forget_oldest();
        }
        self.tally.records = self.arrived.len() as u64;
        self.tally.bytes = self.bytes as u64;
    }

    /// Takes spans in, those that are not there yet, and forgets the oldest beyond the limit. Answers those it took.
    pub(crate) fn append(&mut self, spans: Vec<Span>) -> Vec<Arc<Span>> {
        let mut taken = Vec::with_capacity(spans.len());
        for span in spans {
            self.tally.received += 1;
            let trace_id = span.trace_id;
            let entry = self.traces.entry(trace_id).or_insert_with(|| Entry::new(&span));
            if entry.ids.contains(&span.span_id) {
                continue;
            }
            self.bytes += cost(&span);
            let begun_before = entry.start;
            let span = Arc::new(span);
            entry.add(span.clone());
            let begins = entry.start;
            self.arrived.push_back(span.clone());
            taken.push(span);
            self.begun.remove(&TraceCursor { start: begun_before, trace_id });
            self.begun.insert(TraceCursor { start: begins, trace_id });
            while self.bytes_max.is_some_and(|bytes_max| self.bytes > bytes_max) {
                self.forget_oldest();
            }
        }
        self.tally.records = self.arrived.len() as u64;
        self.tally.bytes = self.bytes as u64;
        taken
    }

    fn forget_oldest(&mut self) {
        let Some(span) = self.arrived.pop_front() else { return };
        self.bytes -= cost(&span);
        self.tally.forgotten += 1;
        let Some(entry) = self.traces.get_mut(&span.trace_id) else { return };
        // The oldest of all is the oldest of its trace.
        entry.remove_oldest();
        if entry.spans.is_empty() {
            self.begun.remove(&TraceCursor { start: entry.start, trace_id: span.trace_id });
            self.traces.remove(&span.trace_id);
        }
    }

    /// The traces that have a span that is meant.
    pub(crate) fn with(&self, is_meant: impl Fn(&Span) -> bool) -> HashSet<TraceId> {
        self.arrived.iter().filter(|span| is_meant(span)).map(|span| span.trace_id).collect()
    }

    /// Deletes all spans of traces; answers how many. Not where spans are held.
    pub(crate) fn delete(&mut self, ids: &HashSet<TraceId>) -> u64 {
        let before = self.arrived.len();
        self.arrived.retain(|span| !ids.contains(&span.trace_id));
        for id in ids {
            if let Some(entry) = self.traces.remove(id) {
                self.begun.remove(&TraceCursor { start: entry.start, trace_id: *id });
                self.bytes -= entry.spans.iter().map(|span| cost(span)).sum::<usize>();
            }
        }
        self.tally.records = self.arrived.len() as u64;
        self.tally.bytes = self.bytes as u64;
        (before - self.arrived.len()) as u64
    }

    /// What is known of a trace.
    pub(crate) fn part(&self, trace_id: TraceId) -> Option<Part> {
        let entry = self.traces.get(&trace_id)?;
        Some(Part {
            trace_id,
            start: entry.start,
            end: entry.end,
            has_parent: entry.first.has_parent,
            first_start: entry.first.start,
            service: entry.first.service.clone(),
            name: entry.first.name.clone(),
            spans: entry.spans.len() as u64,
            failed: entry.failed,
            services: entry.services.keys().cloned().collect(),
        })
    }

    /// What is kept of a trace, its spans as they came in.
    pub(crate) fn trace(&self, id: TraceId) -> Option<(Summary, Vec<Arc<Span>>)> {
        let entry = self.traces.get(&id)?;
        Some((entry.summary(id), entry.spans.iter().cloned().collect()))
    }

    /// Looks at up to `step` traces, newest first, and puts those that are meant into `found`. Answers whether the search
    /// is at its end.
    pub(crate) fn search(&self, filter: &TraceFilter, found: &mut Search, step: usize) -> bool {
        let older = match found.before {
            Some(before) => self.begun.range(..before),
            None => self.begun.range(..),
        };
        for (looked_at, place) in older.rev().enumerate() {
            if filter.start.is_some_and(|start| place.start < start) {
                return true;
            }
            if looked_at == step {
                return false;
            }
            let Some(entry) = self.traces.get(&place.trace_id) else { continue };
            let summary = entry.summary(place.trace_id);
            let has_span = !filter.asks_spans() || entry.spans.iter().any(|span| filter.admits_span(span));
            if has_span && filter.admits(&summary) {
                if found.records.len() >= found.records_max {
                    found.is_cut_off = true;
                    return true;
                }
                found.records.push(summary);
            }
            found.before = Some(*place);
        }
        true
    }
}

/// A search under way.
#[derive(Debug)]
pub(crate) struct Search {
    before: Option<TraceCursor>,
    records_max: usize,
    records: Vec<Summary>,
    is_cut_off: bool,
}

impl Search {
    /// Begins a search.
    pub(crate) fn new(before: Option<TraceCursor>, records_max: usize) -> Self {
        Self { before, records_max, records: Vec::new(), is_cut_off: false }
    }

    /// The traces that were found, and where to go on.
    pub(crate) fn into_page(self) -> Page<Summary, TraceCursor> {
        Page { records: self.records, next: self.before.filter(|_| self.is_cut_off) }
    }
}

fn cost(span: &Span) -> usize {
    span.bytes() + INDEX_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Origin, SpanKind};

    fn span(trace: u8, id: u8, parent: Option<u8>, start: u64, end: u64) -> Span {
        Span {
            trace_id: TraceId([trace; 16]),
            span_id: SpanId([id; 8]),
            parent: parent.map(|parent| SpanId([parent; 8])),
            name: format!("step {id}"),
            origin: Arc::new(Origin { service: format!("service-{id}"), ..Origin::default() }),
            kind: SpanKind::Server,
            start: Nanos(start),
            end: Nanos(end),
            failed: id == 9,
            status_message: String::new(),
            attributes: Vec::new(),
        }
    }

    fn found(store: &Store, filter: &TraceFilter) -> Vec<u8> {
        let mut found = Search::new(None, 100);
        while !store.search(filter, &mut found, 1) {}
        found.into_page().records.iter().map(|summary| summary.trace_id.0[0]).collect()
    }

    #[test]
    fn a_trace_is_named_by_its_first_span_although_that_comes_last() {
        let mut store = Store::new(1 << 20);
        store.append(vec![span(1, 3, Some(2), 20, 40), span(1, 2, Some(1), 5, 50)]);
        assert_eq!(store.trace(TraceId([1; 16])).unwrap().0.name, "step 2");
        store.append(vec![span(1, 1, None, 10, 60), span(1, 9, Some(1), 15, 70), span(1, 1, None, 10, 60)]);
        let (summary, spans) = store.trace(TraceId([1; 16])).unwrap();
        assert_eq!((summary.name.as_str(), summary.start, summary.end), ("step 1", Nanos(5), Nanos(70)));
        assert_eq!((summary.spans, spans.len(), summary.failed, summary.services.len()), (4, 4, true, 4));
    }

    #[test]
    fn traces_are_found_newest_first_by_what_is_known_of_all_their_spans() {
        let mut store = Store::new(1 << 20);
        store.append(vec![span(1, 1, None, 100, 110), span(2, 1, None, 50, 500), span(3, 9, None, 300, 301)]);
        assert_eq!(found(&store, &TraceFilter::default()), [3, 1, 2]);
        assert_eq!(found(&store, &TraceFilter { failed_only: true, ..TraceFilter::default() }), [3]);
        assert_eq!(found(&store, &TraceFilter { nanos_min: 10, ..TraceFilter::default() }), [1, 2]);
        let early = TraceFilter { start: Some(Nanos(60)), end: Some(Nanos(300)), ..TraceFilter::default() };
        assert_eq!(found(&store, &early), [1]);
        let service = TraceFilter { service: Some("service-9".to_owned()), ..TraceFilter::default() };
        assert_eq!(found(&store, &service), [3]);
        store.append(vec![span(1, 2, Some(1), 10, 20)]);
        assert_eq!(found(&store, &TraceFilter::default()), [3, 2, 1]);
    }

    #[test]
    fn a_trace_goes_with_its_last_span_and_leaves_nothing_behind() {
        let mut store = Store::new(5 * cost(&span(1, 100, None, 0, 0)));
        for id in 1..=100 {
            store.append(vec![span(id % 3 + 1, id, None, u64::from(id), 200)]);
        }
        assert_eq!(store.arrived.len(), 5);
        assert_eq!(store.traces.values().map(|entry| entry.ids.len()).sum::<usize>(), 5);
        assert_eq!(store.begun.len(), store.traces.len());
        store.append(vec![Span { name: "x".repeat(1 << 14), ..span(7, 7, None, 1, 2) }]);
        assert!(store.traces.is_empty() && store.begun.is_empty());
        assert_eq!((store.bytes, store.tally.forgotten), (0, 101));
    }
}
