//! What keeps a caller from asking too much of a service: a budget of repetitions, bounds, and throttling.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Counter;
use tokio::time::Instant;

use crate::connect::budget::Budget;
use crate::connect::error::Error;
use crate::connect::method::Method;
use crate::connect::priority::Priority;
use crate::connect::throttle::Throttle;
use crate::gate::{Bounds, Gate, Limit, Pass};

/// Most calls in flight where the bound follows latency, before a policy says so.
const CEILING: u32 = 1024;

/// What all calls of this process to one service share.
#[derive(Debug)]
pub(crate) struct Restraint {
    service: Arc<str>,
    pub(crate) budget: Budget,
    throttle: Throttle,
    gate: Arc<Gate>,
    limit: Mutex<Limit>,
    /// [`Limit::get`] of `limit`, to be read without it.
    limit_now: AtomicU32,
    held_back: Counter<u64>,
    hedges: Counter<u64>,
}

/// Leave to make a call, until its response's headers are there.
#[derive(Debug)]
pub(crate) struct Leave {
    _method: Option<Pass>,
    _service: Pass,
}

impl Restraint {
    pub(crate) fn new(service: &Arc<str>) -> Self {
        let meter = opentelemetry::global::meter("ninefold");
        Self {
            service: service.clone(),
            budget: Budget::default(),
            throttle: Throttle::default(),
            gate: Arc::default(),
            limit: Mutex::new(Limit::new(CEILING)),
            limit_now: AtomicU32::new(CEILING),
            held_back: meter
                .u64_counter("ninefold_connect_held_back_total")
                .with_description("Calls that were not made, to spare the service")
                .build(),
            hedges: meter
                .u64_counter("ninefold_connect_hedges_total")
                .with_description("Second attempts made before the first was answered")
                .build(),
        }
    }

    /// Lets a call go out, or tells why not. Waits for a place until `until` at the longest.
    pub(crate) async fn leave(
        &self,
        method: &Method,
        priority: Priority,
        now: Duration,
        until: Instant,
    ) -> Result<Leave, Error> {
        let manners = &method.manners;
        if manners.is_throttled && self.throttle.holds_back(now, priority, fastrand::f64()) {
            self.count(priority, "throttled");
            return Err(Error::Throttled { service: self.service.clone() });
        }
        let mut bounds = manners.service_bounds;
        if manners.is_adaptive {
            bounds.in_flight_max = bounds.in_flight_max.min(self.limit_now.load(Ordering::Relaxed));
        }
        let own = match manners.method_bounds {
            Some(bounds) => Some(self.enter(&method.learned.gate, priority, bounds, until).await?),
            None => None,
        };
        let service = self.enter(&self.gate, priority, bounds, until).await?;
        Ok(Leave { _method: own, _service: service })
    }

    async fn enter(&self, gate: &Arc<Gate>, priority: Priority, bounds: Bounds, until: Instant) -> Result<Pass, Error> {
        gate.enter(priority, bounds, until).await.map_err(|_| {
            self.count(priority, "full");
            Error::CallsFull { service: self.service.clone(), in_flight: gate.in_flight() }
        })
    }

    /// The service took a call in, and its answer's headers took so long.
    pub(crate) fn accepted(&self, method: &Method, priority: Priority, now: Duration, took: Duration) {
        method.learned.half.observe(took);
        method.learned.most.observe(took);
        if method.manners.is_throttled {
            self.throttle.accepted(now, priority);
        }
        if method.manners.is_adaptive {
            let in_flight = self.gate.in_flight();
            let mut limit = lock(&self.limit);
            let slowness = lock(&method.learned.baseline).observe(now, took, limit.is_crowded(in_flight));
            limit.observe(now, slowness, in_flight, method.manners.service_bounds.in_flight_max);
            self.limit_now.store(limit.get(), Ordering::Relaxed);
        }
    }

    /// The service refused a call for want of room.
    pub(crate) fn refused(&self, now: Duration) {
        self.throttle.refused(now);
    }

    /// A second attempt is made before the first was answered.
    pub(crate) fn hedged(&self) {
        self.hedges.add(1, &[KeyValue::new("service", self.service.to_string())]);
    }

    fn count(&self, priority: Priority, why: &'static str) {
        let labels = [
            KeyValue::new("service", self.service.to_string()),
            KeyValue::new("priority", priority.as_str()),
            KeyValue::new("why", why),
        ];
        self.held_back.add(1, &labels);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
