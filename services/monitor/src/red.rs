//! Rate, errors and duration out of spans: what a service answered, counted as it comes in, for services that measure
//! nothing themselves. Spans that were sampled away are not in it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ninefold::lifecycle::Scope;
use ninefold_promql::{Labels, NAME, show};

use crate::metrics::{Metrics, Reading, now};
use crate::model::{Span, SpanKind};

/// How often what was counted becomes samples.
const EVERY: Duration = Duration::from_secs(15);
/// What was not seen for so long is forgotten.
const SILENT_MAX: Duration = Duration::from_secs(600);
/// Most operations of all services; more count as [`REST`].
const OPERATIONS_MAX: usize = 2000;
/// The operation of what is beyond that.
const REST: &str = "(others)";
/// Upper bounds of durations, in seconds.
const BOUNDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// A service and what it did.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Operation {
    service: String,
    name: String,
}

#[derive(Clone, Debug)]
struct Counted {
    good: u64,
    failed: u64,
    seconds: f64,
    /// How many took no longer than each bound.
    below: [u64; BOUNDS.len()],
    seen: Instant,
}

/// What spans tell of services.
#[derive(Debug, Default)]
pub(crate) struct Red(Mutex<HashMap<Operation, Counted>>);

impl Red {
    /// Begins to count; what was counted becomes samples of `metrics`.
    pub(crate) fn start(metrics: Arc<Metrics>, scope: &Scope) -> Arc<Self> {
        let red = Arc::new(Self::default());
        let this = red.clone();
        scope.run("monitor.red", move |stop| async move {
            let mut ticks = tokio::time::interval(EVERY);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = stop.asked() => return,
                }
                // Totals that could not be kept are told again, larger, with the next.
                if let Err(error) = metrics.take_own(this.readings(now())).await {
                    tracing::debug!(%error, "what was counted of spans is not kept");
                }
            }
        });
        red
    }

    /// Counts spans that are answers of a service.
    pub(crate) fn count<'a>(&self, spans: impl IntoIterator<Item = &'a Span>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answers = spans.into_iter().filter(|span| matches!(span.kind, SpanKind::Server | SpanKind::Consumer));
        for span in answers {
            let mut operation = Operation { service: span.origin.service.clone(), name: span.name.clone() };
            if all.len() >= OPERATIONS_MAX && !all.contains_key(&operation) {
                REST.clone_into(&mut operation.name);
            }
            let counted = all.entry(operation).or_insert_with(|| Counted {
                good: 0,
                failed: 0,
                seconds: 0.0,
                below: [0; BOUNDS.len()],
                seen: Instant::now(),
            });
            let seconds = Duration::from_nanos(span.end.0.saturating_sub(span.start.0)).as_secs_f64();
            counted.seen = Instant::now();
            counted.seconds += seconds;
            *(if span.failed { &mut counted.failed } else { &mut counted.good }) += 1;
            for (below, bound) in counted.below.iter_mut().zip(BOUNDS) {
                *below += u64::from(seconds <= bound);
            }
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "metrics know no other numbers")]
    fn readings(&self, at: i64) -> Vec<Reading> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, counted| counted.seen.elapsed() < SILENT_MAX);
        let mut readings = Vec::new();
        for (operation, counted) in all.iter() {
            let mut put = |name: &str, more: Option<(&str, &str)>, value: f64| {
                let labels = [(NAME, name), ("job", &operation.service), ("operation", &operation.name)];
                let labels = Labels::new(labels.into_iter().chain(more));
                readings.push(Reading { labels, at, point: value.into(), is_added: false });
            };
            put("span_calls_total", Some(("status", "ok")), counted.good as f64);
            put("span_calls_total", Some(("status", "error")), counted.failed as f64);
            let count = (counted.good + counted.failed) as f64;
            for (below, bound) in counted.below.iter().zip(BOUNDS) {
                put("span_duration_seconds_bucket", Some(("le", &show(bound))), *below as f64);
            }
            put("span_duration_seconds_bucket", Some(("le", "+Inf")), count);
            put("span_duration_seconds_count", None, count);
            put("span_duration_seconds_sum", None, counted.seconds);
        }
        readings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Nanos, Origin, SpanId, TraceId};

    fn span(name: &str, kind: SpanKind, millis: u64, failed: bool) -> Span {
        Span {
            trace_id: TraceId([1; 16]),
            span_id: SpanId([1; 8]),
            parent: None,
            name: name.to_owned(),
            origin: Arc::new(Origin { service: "cart".to_owned(), ..Origin::default() }),
            kind,
            start: Nanos(0),
            end: Nanos(millis * 1_000_000),
            failed,
            status_message: String::new(),
            attributes: Vec::new(),
        }
    }

    #[test]
    fn answers_are_counted_by_operation_outcome_and_duration() {
        let red = Red::default();
        red.count(&[
            span("GET /", SpanKind::Server, 30, false),
            span("GET /", SpanKind::Server, 700, true),
            span("SELECT", SpanKind::Client, 3, false),
        ]);
        let readings = red.readings(7);
        let value = |name: &str, label: &str, of: &str| {
            let found = readings.iter().find(|one| one.labels.get(NAME) == name && one.labels.get(label) == of);
            found.and_then(|one| one.point.float())
        };
        assert_eq!(value("span_calls_total", "status", "error"), Some(1.0));
        assert_eq!(value("span_calls_total", "status", "ok"), Some(1.0));
        assert_eq!(value("span_duration_seconds_bucket", "le", "0.05"), Some(1.0));
        assert_eq!(value("span_duration_seconds_bucket", "le", "1"), Some(2.0));
        assert_eq!(value("span_duration_seconds_count", "operation", "GET /"), Some(2.0));
        assert_eq!(value("span_duration_seconds_count", "operation", "SELECT"), None);
    }

    #[test]
    fn more_operations_than_can_be_kept_count_together() {
        let red = Red::default();
        let spans: Vec<Span> =
            (0..OPERATIONS_MAX + 10).map(|of| span(&of.to_string(), SpanKind::Server, 1, false)).collect();
        red.count(&spans);
        let rest = red
            .readings(1)
            .into_iter()
            .find(|one| one.labels.get("operation") == REST && one.labels.get(NAME) == "span_duration_seconds_count");
        assert_eq!(rest.and_then(|one| one.point.float()), Some(10.0));
    }
}
