//! Who calls whom, told by spans: a span whose parent is of another service is a call between the two. Pure.

use std::collections::{BTreeMap, HashMap};

use crate::model::{Nanos, Span, SpanId, TraceId};

/// Most spans that one graph is made from.
pub const SPANS_MAX: usize = 1_000_000;

/// Calls from one service to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Who calls; empty where nobody is known: a call from outside.
    pub caller: String,
    /// Who answers.
    pub callee: String,
    /// How many calls.
    pub calls: u64,
    /// How many of them failed.
    pub failed: u64,
    /// The time, in nanoseconds, that half of the calls stay below.
    pub half: u64,
    /// The time that 95 of 100 stay below.
    pub most: u64,
    /// The time that 99 of 100 stay below.
    pub nearly_all: u64,
}

/// What a graph needs of a span.
#[derive(Clone, Copy, Debug)]
struct Call {
    trace: TraceId,
    id: SpanId,
    parent: Option<SpanId>,
    service: u32,
    nanos: u64,
    failed: bool,
}

/// What was gathered of a span.
#[derive(Clone, Copy, Debug)]
pub struct Gathered<'a> {
    /// The trace.
    pub trace: TraceId,
    /// The span.
    pub id: SpanId,
    /// The span that it is part of.
    pub parent: Option<SpanId>,
    /// The service.
    pub service: &'a str,
    /// How long it took.
    pub nanos: u64,
    /// Whether it failed.
    pub failed: bool,
}

/// Spans while they are gathered.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    names: Vec<String>,
    numbers: HashMap<String, u32>,
    services: HashMap<(TraceId, SpanId), u32>,
    calls: Vec<Call>,
    /// Whether there were more spans than a graph is made from.
    pub is_truncated: bool,
}

impl Graph {
    /// Adds a span; one that is there already is left out.
    pub fn add(&mut self, span: &Span) {
        self.call(span.trace_id, span.span_id, span.parent, &span.origin.service, (span.start, span.end), span.failed);
    }

    /// Adds what a graph needs of a span. Answers whether there is room for more.
    pub fn call(
        &mut self,
        trace: TraceId,
        id: SpanId,
        parent: Option<SpanId>,
        service: &str,
        (start, end): (Nanos, Nanos),
        failed: bool,
    ) -> bool {
        if self.calls.len() >= SPANS_MAX {
            self.is_truncated = true;
            return false;
        }
        let number = match self.numbers.get(service) {
            Some(number) => *number,
            None => {
                let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
                self.names.push(service.to_owned());
                self.numbers.insert(service.to_owned(), number);
                number
            }
        };
        if self.services.insert((trace, id), number).is_none() {
            let nanos = end.0.saturating_sub(start.0);
            self.calls.push(Call { trace, id, parent, service: number, nanos, failed });
        }
        true
    }

    /// What was gathered, span by span.
    pub fn spans(&self) -> impl Iterator<Item = Gathered<'_>> {
        self.calls.iter().map(|call| Gathered {
            trace: call.trace,
            id: call.id,
            parent: call.parent,
            service: usize::try_from(call.service).ok().and_then(|at| self.names.get(at)).map_or("", String::as_str),
            nanos: call.nanos,
            failed: call.failed,
        })
    }

    /// The calls between services, by caller and callee.
    pub fn edges(&self) -> Vec<Edge> {
        let mut times: BTreeMap<(&str, &str), (u64, Vec<u64>)> = BTreeMap::new();
        for call in &self.calls {
            let caller = call.parent.and_then(|parent| self.services.get(&(call.trace, parent)));
            if caller == Some(&call.service) || (caller.is_none() && call.parent.is_some()) {
                // A step inside a service, or one whose parent nobody told of.
                continue;
            }
            let name = |number: u32| usize::try_from(number).ok().and_then(|number| self.names.get(number));
            let caller = caller.and_then(|caller| name(*caller)).map_or("", String::as_str);
            let callee = name(call.service).map_or("", String::as_str);
            let (failed, nanos) = times.entry((caller, callee)).or_default();
            *failed += u64::from(call.failed);
            nanos.push(call.nanos);
        }
        let edge = |((caller, callee), (failed, mut nanos)): ((&str, &str), (u64, Vec<u64>))| {
            nanos.sort_unstable();
            let at = |percent: usize| nanos[(nanos.len() * percent / 100).min(nanos.len() - 1)];
            let (caller, callee) = (caller.to_owned(), callee.to_owned());
            let (half, most, nearly_all) = (at(50), at(95), at(99));
            Edge { caller, callee, calls: nanos.len() as u64, failed, half, most, nearly_all }
        };
        times.into_iter().map(edge).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_whose_parent_is_of_another_service_is_a_call() {
        let mut graph = Graph::default();
        let id = |id: u8| SpanId([id; 8]);
        for trace in 1..=100_u8 {
            let trace_id = TraceId([trace; 16]);
            let took = |nanos: u64| (Nanos(0), Nanos(nanos));
            graph.call(trace_id, id(1), None, "edge", took(1000), false);
            graph.call(trace_id, id(2), Some(id(1)), "shop", took(u64::from(trace)), trace == 7);
            graph.call(trace_id, id(2), Some(id(1)), "shop", took(9999), true);
            graph.call(trace_id, id(3), Some(id(2)), "shop", took(5), true);
            graph.call(trace_id, id(4), Some(id(9)), "lost", took(5), false);
        }
        let edges = graph.edges();
        assert_eq!(edges.len(), 2, "{edges:?}");
        assert_eq!((edges[0].caller.as_str(), edges[0].callee.as_str(), edges[0].calls), ("", "edge", 100));
        let shop = Edge {
            caller: "edge".into(),
            callee: "shop".into(),
            calls: 100,
            failed: 1,
            half: 51,
            most: 96,
            nearly_all: 100,
        };
        assert_eq!(edges[1], shop);
    }
}
