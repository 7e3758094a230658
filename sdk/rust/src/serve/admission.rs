//! Takes in as many calls as do good, the important ones first, and refuses the rest before they cost anything.
//!
//! A call is in from its first byte to its response's headers; a stream that has begun is the handler's own affair. A
//! call that is refused has not been begun, and carries `grpc-retry-pushback-ms`, so that callers go elsewhere.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, Response, header};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Meter};
use tokio::time::Instant;
use tonic::Code;
use tonic::body::Body;
use tower::{Service, ServiceExt as _};

use crate::connect::policy::Admission;
use crate::connect::priority::{self, Priority};
use crate::connect::{PUSHBACK, deadline};
use crate::fault::{self, Fault, Kind};
use crate::gate::{Baseline, Bounds, Gate, Limit, Pass, Refusal};
use crate::serve::deadline::Passed;
use crate::serve::load::Load;

/// Most calls in work where latency finds the limit.
const IN_FLIGHT_CEILING: u32 = 16_384;
/// Methods whose usual latency is known, at most.
const METHODS_MAX: usize = 1024;
/// When a refused caller may come again, in milliseconds, drawn so that they do not all come at once.
const PUSHBACK_MS: std::ops::Range<u64> = 50..150;
/// Calls that are always taken in: who asks whether an instance lives must be told.
const EXEMPT: [&str; 2] = ["/grpc.health.", "/grpc.reflection."];

/// What a server takes in; it may change while the server runs. Where latency finds the limit, it is below 16,384. The
/// last twentieth is for critical calls, the last fifth not for sheddable ones. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct LiveAdmission(Arc<ArcSwap<Admission>>);

impl LiveAdmission {
    /// Begins with an admission.
    pub fn new(admission: Admission) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(admission)))
    }

    /// Everything is taken in.
    pub fn disabled() -> Self {
        Self::new(Admission { is_disabled: true, ..Admission::default() })
    }

    /// Changes what is taken in from the next call on.
    pub fn set(&self, admission: Admission) {
        self.0.store(Arc::new(admission));
    }

    /// What is taken in now.
    pub fn get(&self) -> Arc<Admission> {
        self.0.load_full()
    }
}

/// The server has more to do than it can.
#[derive(Debug, thiserror::Error)]
#[error("the instance has too much to do: {in_flight} calls are in work")]
struct Overloaded {
    in_flight: u32,
    after: Duration,
}

impl Fault for Overloaded {
    fn kind(&self) -> Kind {
        Kind::Exhausted
    }

    fn reason(&self) -> &'static str {
        "INSTANCE_OVERLOADED"
    }

    fn retry_after(&self) -> Option<Duration> {
        Some(self.after)
    }
}

/// A service that takes in what it can.
#[derive(Clone, Debug)]
pub(super) struct Admitted<S> {
    inner: S,
    desk: Arc<Desk>,
}

/// What the calls of one server share.
#[derive(Debug)]
struct Desk {
    admission: LiveAdmission,
    gate: Arc<Gate>,
    limit: Mutex<Limit>,
    /// [`Limit::get`] of `limit`, to be read without it.
    limit_now: AtomicU32,
    methods: Mutex<HashMap<Box<str>, Baseline>>,
    origin: Instant,
    load: Load,
    refused: Counter<u64>,
}

impl<S> Admitted<S> {
    /// Admits the calls of `inner`. Make it after telemetry was started.
    pub(super) fn new(inner: S, admission: LiveAdmission) -> Self {
        let meter = opentelemetry::global::meter("ninefold");
        let desk = Arc::new(Desk {
            admission,
            gate: Arc::default(),
            limit: Mutex::new(Limit::new(IN_FLIGHT_CEILING)),
            limit_now: AtomicU32::new(IN_FLIGHT_CEILING),
            methods: Mutex::default(),
            origin: Instant::now(),
            load: Load::default(),
            refused: meter.u64_counter("ninefold_serve_refused_total").with_description("Calls not taken in").build(),
        });
        measure(&meter, &desk);
        Self { inner, desk }
    }
}

/// Registers what is read only when measurements leave.
fn measure(meter: &Meter, desk: &Arc<Desk>) {
    let gauge = |name: &'static str, description: &'static str, read: fn(&Desk) -> u64| {
        // Measurements live as long as the process, servers do not.
        let desk = Arc::downgrade(desk);
        let gauge = meter.u64_observable_gauge(name).with_description(description);
        gauge
            .with_callback(move |meter| {
                if let Some(desk) = desk.upgrade() {
                    meter.observe(read(&desk), &[]);
                }
            })
            .build();
    };
    gauge("ninefold_serve_in_flight", "Calls in work", |desk| desk.gate.in_flight().into());
    gauge("ninefold_serve_waiting", "Calls that wait for their turn", |desk| {
        u64::try_from(desk.gate.waiting()).unwrap_or(u64::MAX)
    });
    gauge("ninefold_serve_in_flight_limit", "Most calls in work", |desk| {
        desk.admission.0.load().in_flight_max.unwrap_or_else(|| desk.limit_now.load(Ordering::Relaxed)).into()
    });
}

impl<S> Service<Request<Body>> for Admitted<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let handler = self.inner.clone();
        if !is_judged(&request) {
            return handler.oneshot(request).boxed();
        }
        answer(handler, request, self.desk.clone()).boxed()
    }
}

fn is_judged(request: &Request<Body>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
        && !EXEMPT.iter().any(|prefix| request.uri().path().starts_with(prefix))
}

async fn answer<S>(handler: S, request: Request<Body>, desk: Arc<Desk>) -> Result<Response<Body>, Infallible>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let said = priority::of(request.headers());
    let began = Instant::now();
    let pass = match desk.admit(said.unwrap_or_default(), began).await {
        Ok(pass) => pass,
        Err(refused) => return Ok(refused),
    };
    let mut work = Work { desk: &desk, method: request.uri().path().into(), began, pass, is_known: true };
    let handled = handler.oneshot(request);
    let response = match said {
        Some(said) => priority::scope(said, handled).await?,
        None => handled.await?,
    };
    let code = response.headers().get("grpc-status").map(|status| Code::from_bytes(status.as_bytes()));
    // The names of methods that nobody offers come from strangers, and are not remembered.
    work.is_known = code != Some(Code::Unimplemented);
    drop(work);
    Ok(desk.load.tell(response, || desk.share(), said, desk.origin.elapsed()))
}

impl Desk {
    async fn admit(&self, priority: Priority, now: Instant) -> Result<Option<Pass>, Response<Body>> {
        let admission = self.admission.0.load();
        if admission.is_disabled {
            return Ok(None);
        }
        let in_flight_max = admission.in_flight_max.unwrap_or_else(|| self.limit_now.load(Ordering::Relaxed));
        let bounds = Bounds { in_flight_max, waiting_max: admission.queue_max };
        let turn = now + admission.queue_wait_max;
        let end = deadline::current();
        drop(admission);
        let until = end.map_or(turn, |end| end.min(turn));
        let entered = self.gate.enter(priority, bounds, until).await;
        // Nobody waits for the answer any more.
        if end.is_some_and(|end| end <= Instant::now()) {
            self.count(priority, "expired");
            return Err(fault::status(&Passed).into_http());
        }
        match entered {
            Ok(pass) => Ok(Some(pass)),
            Err(refusal) => Err(self.refuse(priority, refusal)),
        }
    }

    fn refuse(&self, priority: Priority, refusal: Refusal) -> Response<Body> {
        self.count(
            priority,
            match refusal {
                Refusal::Full => "full",
                Refusal::Late => "late",
            },
        );
        let wait = fastrand::u64(PUSHBACK_MS);
        let fault = Overloaded { in_flight: self.gate.in_flight(), after: Duration::from_millis(wait) };
        let mut response = fault::status(&fault).into_http();
        response.headers_mut().insert(PUSHBACK, HeaderValue::from(wait));
        response
    }

    fn count(&self, priority: Priority, why: &'static str) {
        self.refused.add(1, &[KeyValue::new("priority", priority.as_str()), KeyValue::new("why", why)]);
    }

    /// How much of what may be in work is.
    fn share(&self) -> f64 {
        let admission = self.admission.0.load();
        let most = admission.in_flight_max.unwrap_or_else(|| self.limit_now.load(Ordering::Relaxed));
        f64::from(self.gate.in_flight()) / f64::from(most.max(1))
    }

    /// Learns from a call that has left.
    fn learn(&self, method: &str, took: Duration) {
        let now = self.origin.elapsed();
        let in_flight = self.gate.in_flight().saturating_add(1);
        let mut limit = lock(&self.limit);
        let slowness = {
            let mut methods = lock(&self.methods);
            let (is_full, is_crowded) = (methods.len() >= METHODS_MAX, limit.is_crowded(in_flight));
            match methods.get_mut(method) {
                Some(baseline) => baseline.observe(now, took, is_crowded),
                None if is_full => return,
                None => methods.entry(method.into()).or_default().observe(now, took, is_crowded),
            }
        };
        limit.observe(now, slowness, in_flight, IN_FLIGHT_CEILING);
        self.limit_now.store(limit.get(), Ordering::Relaxed);
    }
}

/// A call in work. Dropped when it is answered, or given up.
struct Work<'a> {
    desk: &'a Desk,
    method: Box<str>,
    began: Instant,
    pass: Option<Pass>,
    is_known: bool,
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        let is_judged = self.pass.take().is_some();
        if is_judged && self.is_known {
            self.desk.learn(&self.method, self.began.elapsed());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
