//! A call that an endpoint has taken in.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tonic::Status;

use crate::connect::breaker::{Permit, Phase, Verdict};
use crate::connect::connection::Occupied;
use crate::connect::endpoint::{Endpoint, verdict};
use crate::connect::pool::MethodPermit;

/// A call that an endpoint has taken in. Dropped without [`Ticket::finish`], it counts as cancelled.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) line: Occupied,
    permit: Option<Permit>,
    /// Leave of the method's own breaker.
    method: Option<MethodPermit>,
    started: Instant,
}

impl Ticket {
    pub(super) fn new(endpoint: &Arc<Endpoint>, line: Occupied, mut permit: Permit) -> Self {
        endpoint.gauge.enter();
        let started = Instant::now();
        endpoint.breaker.begin(started.saturating_duration_since(endpoint.around.origin), &mut permit);
        Self { endpoint: endpoint.clone(), line, permit: Some(permit), method: None, started }
    }

    pub(crate) fn with_method(mut self, mut method: MethodPermit) -> Self {
        method.begin(self.started.saturating_duration_since(self.endpoint.around.origin));
        self.method = Some(method);
        self
    }

    /// Wakes the keeper of the connections: this one takes no more calls.
    pub(crate) fn line_is_over(&self) {
        self.endpoint.wake.notify_one();
    }

    /// The instance has answered, and did not fail at once: learns how long it took.
    pub(crate) fn answered(&mut self) {
        let took = self.observe();
        if let Some(permit) = &mut self.permit {
            self.endpoint.breaker.answered(permit, took);
        }
        if let Some(method) = &mut self.method {
            method.answered(took);
        }
    }

    /// Notes that an answer takes at least as long as it has taken until now.
    pub(crate) fn observe(&self) -> Duration {
        let now = Instant::now();
        let since = now.saturating_duration_since(self.endpoint.around.origin);
        let took = now.saturating_duration_since(self.started);
        self.endpoint.gauge.observe(since, took);
        took
    }

    /// The call is over.
    pub(crate) fn finish(mut self, verdict: Verdict<'_>) {
        self.give_back(verdict);
    }

    /// The call ended with this status.
    pub(crate) fn finish_with(self, status: &Status) {
        verdict(status, |verdict| self.finish(verdict));
    }

    fn give_back(&mut self, verdict: Verdict<'_>) {
        let Some(permit) = self.permit.take() else { return };
        let endpoint = &self.endpoint;
        endpoint.gauge.leave();
        let now = Instant::now();
        let since = now.saturating_duration_since(endpoint.around.origin);
        let took = now.saturating_duration_since(self.started);
        let transition = endpoint.breaker.record(since, permit, verdict, took, || endpoint.may_eject());
        endpoint.moved(transition);
        let Some(method) = self.method.take() else { return };
        // What an endpoint is blamed for, its method is not; and a lost connection says nothing of a method.
        let is_failure = matches!(verdict, Verdict::Failure(_));
        let is_blamed = is_failure && (endpoint.breaker.phase() != Phase::Closed || !self.line.is_usable());
        method.give_back(since, if is_blamed { Verdict::Nothing } else { verdict }, took, endpoint.number);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.give_back(Verdict::Nothing);
    }
}
