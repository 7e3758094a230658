//! Measures what it costs to decide where a call goes and to learn from how it went, beside tower's `Balance` of
//! `PeakEwma`, in one run.
//!
//! `cargo run --release -p bench-decide`. The hearts of the SDK's channel are private to it; their files are compiled
//! here as they are, so that nothing is made public for being measured, and the bench is built in seconds. tower's
//! figures include its call of a service that does nothing; ours have no such call, so the same is measured alone, too.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use tower::balance::p2c::Balance;
use tower::discover::ServiceList;
use tower::load::{CompleteOnResponse, PeakEwma};
use tower::{Service, ServiceExt as _};

use connect::balance::{Gauge, Gauged, Method, Table};
use connect::breaker::{Breaker, Policy, Verdict};

#[path = "../../../sdk/rust/src/connect"]
#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "written for the channel, which uses and shows more of it"
)]
mod connect {
    pub(crate) mod balance;
    pub(crate) mod breaker;
}

/// Endpoints of the service that is called.
const ENDPOINTS: usize = 10;
/// Calls of one measurement, and measurements, of which the quickest counts: what disturbs them only adds.
const CALLS: u32 = 200_000;
const RUNS: usize = 25;

struct Endpoint {
    gauge: Gauge,
    breaker: Breaker,
    name: String,
}

struct Shared(Arc<Endpoint>);

impl Gauged for Shared {
    fn gauge(&self) -> &Gauge {
        &self.0.gauge
    }
}

fn table(method: Method, is_even: bool) -> Table<Shared> {
    let endpoint = |index: usize| {
        let gauge = Gauge::default();
        gauge.observe(Duration::ZERO, Duration::from_millis(1));
        if !is_even && index % 2 == 1 {
            gauge.set_weight(50.0);
        }
        let breaker = Breaker::new(Arc::new(Policy::default()), 1);
        // As where a service has three endpoints or more, and no policy says what is slow.
        breaker.set_slow_call(Some(Duration::from_millis(500)));
        Shared(Arc::new(Endpoint { gauge, breaker, name: format!("10.0.0.{index}:80") }))
    };
    Table::new((0..ENDPOINTS).map(endpoint).collect(), method, |endpoint: &Shared| &endpoint.0.name)
}

/// The time of one call, in nanoseconds.
fn measure(mut call: impl FnMut(u32)) -> f64 {
    (0..CALLS / 4).for_each(&mut call);
    let mut run = || {
        let began = Instant::now();
        (0..CALLS).for_each(&mut call);
        began.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
    };
    (0..RUNS).map(|_| run()).fold(f64::INFINITY, f64::min)
}

fn pick(method: Method, is_even: bool) -> f64 {
    let held = ArcSwap::from_pointee(table(method, is_even));
    let turn = AtomicUsize::new(0);
    measure(|call| {
        let table = held.load();
        let key = Some(u64::from(call).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        black_box(table.pick(&turn, fastrand::u64(..), key).map(|endpoint| &endpoint.0.gauge));
    })
}

fn breaker() -> f64 {
    let breaker = Breaker::new(Arc::new(Policy::default()), 1);
    let (now, took) = (Duration::from_secs(5), Duration::from_millis(1));
    measure(|_| {
        let permit = breaker.admit(|| now).expect("it is closed");
        black_box(breaker.record(black_box(now), permit, Verdict::Success, took, || true));
    })
}

/// What it costs beside that to know of calls that hang.
fn watched() -> f64 {
    let breaker =
        Breaker::new(Arc::new(Policy { slow_call: Some(Duration::from_millis(500)), ..Policy::default() }), 1);
    let (now, took) = (Duration::from_secs(5), Duration::from_millis(1));
    measure(|_| {
        let mut permit = breaker.admit(|| now).expect("it is closed");
        breaker.begin(black_box(now), &mut permit);
        black_box(breaker.record(black_box(now), permit, Verdict::Success, took, || true));
    })
}

fn clock() -> f64 {
    measure(|_| {
        black_box(Instant::now());
    })
}

/// All of it: pick, admit, count in and out, two looks at the clock, record, learn the latency. Twice the breaker, as in
/// a channel: the endpoint's and the method's.
fn whole() -> f64 {
    let held = ArcSwap::from_pointee(table(Method::PeakEwma, true));
    let method = Breaker::new(Arc::new(Policy::default()), 1);
    let (turn, origin) = (AtomicUsize::new(0), Instant::now());
    measure(|_| {
        let on_method = method.admit(|| origin.elapsed()).expect("it is closed");
        let table = held.load();
        let endpoint = table.pick(&turn, fastrand::u64(..), None).expect("there are ten").0.clone();
        let mut permit = endpoint.breaker.admit(|| origin.elapsed()).expect("it is closed");
        endpoint.gauge.enter();
        let started = Instant::now();
        endpoint.breaker.begin(started.duration_since(origin), &mut permit);
        black_box(&endpoint);
        let now = Instant::now();
        let (since, took) = (now.duration_since(origin), now.duration_since(started));
        endpoint.gauge.observe(since, took);
        endpoint.breaker.answered(&mut permit, took);
        endpoint.gauge.leave();
        black_box(endpoint.breaker.record(since, permit, Verdict::Success, took, || true));
        black_box(method.record(since, on_method, Verdict::Success, took, || true));
    })
}

/// A service that is always ready and answers at once.
#[derive(Clone)]
struct Nothing;

impl Service<()> for Nothing {
    type Response = ();
    type Error = Infallible;
    type Future = Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(()))
    }
}

fn nothing() -> f64 {
    let mut service = Nothing;
    measure(|_| {
        let answered = service.ready().now_or_never().and_then(|ready| ready.ok()?.call(()).now_or_never());
        assert!(black_box(answered).is_some());
    })
}

fn tower() -> f64 {
    let with_load = |_| PeakEwma::new(Nothing, Duration::from_millis(30), 1e10, CompleteOnResponse::default());
    let services: Vec<_> = (0..ENDPOINTS).map(with_load).collect();
    let mut balance = Balance::new(ServiceList::new::<()>(services));
    measure(|_| {
        let answered = balance.ready().now_or_never().and_then(|ready| ready.ok()?.call(()).now_or_never());
        assert!(black_box(answered).is_some(), "it answers at once");
    })
}

#[expect(clippy::print_stdout, reason = "the figures are what this program is for")]
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let peer = tower() - nothing();
    let whole = whole();
    println!("{ENDPOINTS} endpoints, {CALLS} calls, best of {RUNS} runs {:>14} {:>10}", "ns a call", "aim");
    let row = |name: &str, nanos: f64, aim: &str| println!("{name:<58} {nanos:>6.1} {aim:>10}");
    row("pick: peak EWMA, power of two", pick(Method::PeakEwma, true), "25");
    row("pick: the same, with unequal weights", pick(Method::PeakEwma, false), "25");
    row("pick: least request", pick(Method::LeastRequest, true), "25");
    row("pick: round robin", pick(Method::RoundRobin, true), "25");
    row("pick: weighted round robin", pick(Method::WeightedRoundRobin, false), "25");
    row("pick: ring hash", pick(Method::RingHash, true), "");
    row("breaker: admit and record, no clock", breaker(), "10");
    row("breaker: the same, and calls that hang are known", watched(), "");
    row("one look at the clock", clock(), "");
    row("the whole decision", whole, "150");
    row("tower: Balance of PeakEwma, without the empty call", peer, "");
    println!("tower takes {:.1} times as long (aim: at least 3)", peer / whole);
}
