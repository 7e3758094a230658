//! Tells what a channel saw: events for the registry, a line in the log, counters.

use std::sync::Arc;

use ninefold_proto::ninefold::registry::v1 as words;
use opentelemetry::KeyValue;
use opentelemetry::metrics::Counter;
use tokio::sync::broadcast;

use crate::connect::breaker::{Phase, Transition};
use crate::connect::calls::Calls;

/// Events kept for a reader that is slow; older ones are lost to it.
const EVENTS_MAX: usize = 256;

/// Where observations go. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Observer {
    events: broadcast::Sender<words::Event>,
    transitions: Counter<u64>,
    retries: Counter<u64>,
    divergences: Counter<u64>,
    calls: Calls,
}

impl Observer {
    pub(crate) fn new() -> Self {
        let meter = opentelemetry::global::meter("ninefold");
        Self {
            events: broadcast::Sender::new(EVENTS_MAX),
            transitions: meter.u64_counter("ninefold_call_breaker_transitions_total").build(),
            retries: meter.u64_counter("ninefold_connect_retries_total").build(),
            divergences: meter.u64_counter("ninefold_connect_watch_divergences_total").build(),
            calls: Calls::default(),
        }
    }

    /// How often each method was called.
    pub(crate) fn calls(&self) -> &Calls {
        &self.calls
    }

    pub(crate) fn events(&self) -> broadcast::Receiver<words::Event> {
        self.events.subscribe()
    }

    /// The breaker of an endpoint moved on.
    pub(crate) fn moved(&self, service: &Arc<str>, instance_id: &Arc<str>, transition: Transition) {
        let (_, phase) = names(transition.to);
        tracing::warn!(service = %service, instance = %instance_id, phase, reason = %transition.reason, "a breaker moved");
        self.tell(service, instance_id, "endpoint", transition);
    }

    /// The breaker of a method moved on. It concerns the whole service.
    pub(crate) fn method_moved(&self, service: &Arc<str>, path: &str, mut transition: Transition) {
        let method = path.trim_start_matches('/');
        let (_, phase) = names(transition.to);
        tracing::warn!(service = %service, method, phase, reason = %transition.reason, "a breaker moved");
        transition.reason = format!("{method}: {}", transition.reason);
        self.tell(service, "", "method", transition);
    }

    fn tell(&self, service: &Arc<str>, instance_id: &str, scope: &'static str, transition: Transition) {
        let (kind, phase) = names(transition.to);
        let service_label = KeyValue::new("service", service.to_string());
        self.transitions.add(1, &[service_label, KeyValue::new("scope", scope), KeyValue::new("phase", phase)]);
        // Nobody has to listen.
        let _ = self.events.send(words::Event {
            time: Some(std::time::SystemTime::now().into()),
            service: service.to_string(),
            instance_id: instance_id.to_owned(),
            kind: kind.into(),
            reason: transition.reason,
            observer: String::new(),
            // That of whoever reports.
            namespace: String::new(),
        });
    }

    /// What is known of the landscape is not what the registry told to know.
    pub(crate) fn diverged(&self, reason: String) {
        tracing::warn!(reason, "the landscape diverged; following anew");
        self.divergences.add(1, &[]);
        let _ = self.events.send(words::Event {
            time: Some(std::time::SystemTime::now().into()),
            kind: words::EventKind::WatchDiverged.into(),
            reason,
            ..words::Event::default()
        });
    }

    /// A call is repeated.
    pub(crate) fn repeated(&self, service: &Arc<str>) {
        self.retries.add(1, &[KeyValue::new("service", service.to_string())]);
    }
}

fn names(phase: Phase) -> (words::EventKind, &'static str) {
    match phase {
        Phase::Open => (words::EventKind::BreakerOpened, "open"),
        Phase::HalfOpen => (words::EventKind::BreakerHalfOpened, "half_open"),
        Phase::Closed => (words::EventKind::BreakerClosed, "closed"),
    }
}
