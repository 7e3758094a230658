//! One address of one instance: its connections, its breaker, its load.

mod blame;
mod probe;
mod report;
mod stock;
mod ticket;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::body::Body;

use crate::connect::balance::{Gauge, Gauged};
use crate::connect::breaker::{Breaker, Force, Permit, Phase, Transition};
use crate::connect::connection::{Backoff, Line, Occupied, Version, Way};
use crate::connect::declared::Declared;
use crate::connect::dialer::Dialer;
use crate::connect::error::Cause;
use crate::connect::landscape::{Address, Instance, Protocol, State};
use crate::connect::observer::Observer;
use crate::connect::policy;
use crate::lifecycle::Scope;
use report::{Report, Said};

pub use blame::FAILED_AT;
pub(crate) use blame::verdict;
pub(crate) use probe::due;
pub(crate) use report::Usual;
pub(crate) use stock::Stock;
pub(crate) use ticket::Ticket;

/// Most connections to one endpoint.
const LINES_MAX: usize = 16;
/// Connections that are made early, because one HTTP/2 connection is one mutex on either side.
const LINES_EARLY: usize = 4;
/// Calls on each connection at which another one is made early; servers commonly allow 100 or 200 streams.
const CALLS_PER_LINE: u32 = 64;
/// Calls on each connection at which yet another one is made.
const CALLS_PER_LINE_MANY: u32 = 512;
/// How often connections are looked at for those that nobody needs any more.
const SURPLUS_LOOK: Duration = Duration::from_secs(30);
/// The longest wait between two attempts to connect.
const RECONNECT_MAX: Duration = Duration::from_secs(2);
/// A connection that ends sooner did not work out: the next attempt waits.
const LINE_LIFE_MIN: Duration = Duration::from_secs(1);
/// The least share of its weight that an endpoint has while it starts slowly.
const RAMP_MIN: f32 = 0.1;
/// No slow start is under way.
const NO_RAMP: u64 = u64::MAX;

/// What the endpoints of a service share.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    pub(crate) service: Arc<str>,
    /// What is spoken with them; an instance that speaks otherwise is not called.
    pub(crate) speech: Protocol,
    pub(crate) scope: Scope,
    /// How connections are made.
    pub(crate) dialer: Dialer,
    /// What contracts say may be repeated.
    pub(crate) declared: Declared,
    pub(crate) observer: Observer,
    /// Wakes calls that wait for an endpoint.
    pub(crate) changed: watch::Sender<()>,
    /// The moment from which breakers and latencies count.
    pub(crate) origin: Instant,
    /// When to stop calling an endpoint, and whom to call.
    pub(crate) policy: Arc<policy::Live>,
    /// The caller's own zone. Empty where it has none.
    pub(crate) zone: Arc<str>,
    /// Decides the caller's subset.
    pub(crate) caller: u64,
    pub(crate) stock: Arc<Stock>,
}

impl Surroundings {
    pub(crate) fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Who can be picked has changed.
    pub(crate) fn change(&self) {
        self.stock.is_stale.store(true, Ordering::Release);
        self.changed.send_replace(());
    }
}

/// What makes two endpoints the same, from one snapshot to the next.
pub(crate) type Key = (Arc<str>, Address);

/// One address of one instance. Connects as soon as it is made; its connections end when it is dropped and the calls
/// on them are over.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) instance_id: Arc<str>,
    pub(crate) address: Address,
    pub(crate) authority: Arc<str>,
    /// Counts the endpoints of a service.
    pub(crate) number: u32,
    instance: ArcSwap<Instance>,
    lines: ArcSwap<Lines>,
    wake: Arc<Notify>,
    gauge: Gauge,
    breaker: Breaker,
    /// Since when it starts slowly, in milliseconds.
    ramp_from: AtomicU64,
    /// Whether its breaker is about to open because of a share of its calls.
    is_ejecting: AtomicBool,
    report: Report,
    /// Whether it is asked how it is, because the registry suspects it.
    is_doubted: AtomicBool,
    around: Surroundings,
    _gone: DropGuard,
}

/// The connections of an endpoint, or why there is none.
#[derive(Clone, Debug, Default)]
struct Lines {
    open: Vec<Arc<Line>>,
    failure: Option<Cause>,
}

/// How willingly an endpoint is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rank {
    /// Like any other.
    Usual,
    /// Only where no other can answer.
    Last,
}

/// Whether an endpoint can take a call.
#[derive(Clone, Debug)]
pub(crate) enum Readiness {
    Ready(Rank),
    /// Its breaker is open, but only a share of its calls failed: better than nothing.
    Partly,
    /// Its breaker keeps calls away; a connection may or may not be there.
    Barred,
    /// There is no connection yet, or no more.
    Connecting(Option<Cause>),
    /// The instance takes no calls.
    Out,
}

impl Gauged for Arc<Endpoint> {
    fn gauge(&self) -> &Gauge {
        &self.gauge
    }
}

impl Endpoint {
    /// `is_late` for one that joins others: it starts slowly.
    pub(crate) fn start(instance: &Arc<Instance>, address: Address, is_late: bool, around: Surroundings) -> Arc<Self> {
        let gone = CancellationToken::new();
        let breaker = Breaker::new(Arc::new(around.policy.now().breaker.clone()), fastrand::u64(..));
        let authority: Arc<str> = address.to_string().into();
        let ramp_from = if is_late { milliseconds(around.now()) } else { NO_RAMP };
        let endpoint = Arc::new(Self {
            instance_id: instance.id.clone(),
            authority,
            address,
            number: around.stock.number(),
            instance: ArcSwap::new(instance.clone()),
            lines: ArcSwap::default(),
            wake: Arc::new(Notify::new()),
            gauge: Gauge::default(),
            breaker,
            ramp_from: AtomicU64::new(ramp_from),
            is_ejecting: AtomicBool::new(false),
            report: Report::default(),
            is_doubted: AtomicBool::new(false),
            around,
            _gone: gone.clone().drop_guard(),
        });
        endpoint.obey(instance);
        endpoint.doubt();
        let weak = Arc::downgrade(&endpoint);
        endpoint.around.scope.run("connect.keep", |stop| async move {
            tokio::select! {
                () = keep(&weak) => {}
                () = gone.cancelled() => {}
                () = stop.asked() => {}
            }
        });
        endpoint
    }

    pub(crate) fn key(&self) -> Key {
        (self.instance_id.clone(), self.address.clone())
    }

    pub(crate) fn is_key(&self, key: &Key) -> bool {
        key.0 == self.instance_id && key.1 == self.address
    }

    pub(crate) fn instance(&self) -> Arc<Instance> {
        self.instance.load_full()
    }

    /// Takes a newer version of the instance; what was learned of it stays.
    pub(crate) fn update(self: &Arc<Self>, instance: &Arc<Instance>) {
        self.instance.store(instance.clone());
        self.obey(instance);
        self.doubt();
    }

    /// Does what an operator decided of the instance.
    fn obey(self: &Arc<Self>, instance: &Instance) {
        self.moved(self.breaker.set_force(self.now(), instance.force, &instance.force_reason));
    }

    /// Takes another policy; what was counted stays.
    pub(crate) fn set_policy(self: &Arc<Self>, policy: &Arc<crate::connect::breaker::Policy>) {
        self.moved(self.breaker.set_policy(self.now(), policy.clone()));
    }

    /// Says what a slow call takes here, where the policy does not.
    pub(crate) fn set_slow_call(&self, slow_call: Option<Duration>) {
        self.breaker.set_slow_call(slow_call);
    }

    /// How long an answer takes, after the last ones. `None`: none has come of late.
    pub(crate) fn latency(&self) -> Option<Duration> {
        self.gauge.latency()
    }

    /// Takes the instance's own word on its load: calls a second, failed calls a second, and the share of what it can do
    /// that it does. Weighted round robin reckons with it.
    pub(crate) fn report_load(&self, calls_per_second: f64, failures_per_second: f64, utilization: f64) {
        self.report.take(calls_per_second, failures_per_second, utilization);
    }

    /// What it said of its load.
    pub(crate) fn said(&self) -> Option<Said> {
        self.report.said()
    }

    /// Lets time pass: forgives slowness, ends slow starts, forgets failures. `usual` is what endpoints say of their
    /// loads, where that is to count. Tells whether the endpoint weighs anything else now.
    pub(crate) fn refresh(self: &Arc<Self>, slow_start: Duration, usual: Option<Usual>) -> bool {
        let now = self.now();
        self.gauge.refresh(now);
        let transition = self.breaker.sweep(now, || self.may_eject());
        self.moved(transition);
        let instance = self.instance.load();
        // Several addresses of one instance share its weight.
        let addresses = u16::try_from(instance.addresses.len()).unwrap_or(u16::MAX).max(1);
        let said = self.report.factor(usual);
        let weight = instance.weight.max(1) as f32 / f32::from(addresses);
        self.gauge.set_weight(weight * said * self.ramp(now, slow_start))
    }

    /// Whether it is to be looked at again soon, calls or not.
    pub(crate) fn is_restless(&self) -> bool {
        self.ramp_from.load(Ordering::Relaxed) != NO_RAMP || self.breaker.phase() != Phase::Closed
    }

    fn ramp(&self, now: Duration, slow_start: Duration) -> f32 {
        let from = self.ramp_from.load(Ordering::Relaxed);
        if from == NO_RAMP {
            return 1.0;
        }
        let gone = Duration::from_millis(milliseconds(now).saturating_sub(from));
        if gone >= slow_start {
            self.ramp_from.store(NO_RAMP, Ordering::Relaxed);
            return 1.0;
        }
        (gone.as_secs_f32() / slow_start.as_secs_f32()).max(RAMP_MIN)
    }

    pub(crate) fn readiness(&self) -> Readiness {
        let instance = self.instance.load();
        let rank = match instance.state {
            _ if instance.protocol != self.around.speech => return Readiness::Out,
            State::Serving => Rank::Usual,
            State::Suspect => Rank::Last,
            State::Starting | State::Draining | State::Gone => return Readiness::Out,
        };
        let (is_admitted, is_connected) = (self.breaker.admits(self.now()), self.is_connected());
        match (is_admitted, is_connected) {
            (true, true) => Readiness::Ready(rank),
            (true, false) => Readiness::Connecting(self.lines.load().failure.clone()),
            (false, true) if self.breaker.is_partly_open() => Readiness::Partly,
            (false, _) => Readiness::Barred,
        }
    }

    /// Whether its breaker keeps calls away, or is about to.
    pub(crate) fn is_open(&self) -> bool {
        self.is_ejecting.load(Ordering::Relaxed) || self.breaker.phase() == Phase::Open
    }

    /// Whether its breaker may open because of a share of its calls. It is taken to be open from then on.
    fn may_eject(&self) -> bool {
        let percent = self.around.policy.now().breaker.ejection_percent_max;
        self.around.stock.may_eject(percent, &self.is_ejecting)
    }

    /// Takes a call in, if breaker and connections allow. `is_panic` where too few endpoints are left: then also one
    /// whose breaker is open because of a share of its calls.
    pub(crate) fn admit(self: &Arc<Self>, is_panic: bool) -> Option<Ticket> {
        let permit = match self.breaker.admit(|| self.now()) {
            Some(permit) => permit,
            None if is_panic && self.breaker.is_partly_open() => self.breaker.admit_regardless(),
            None => return None,
        };
        match self.line() {
            Some(line) => Some(Ticket::new(self, line, permit)),
            None => {
                self.unused(permit);
                None
            }
        }
    }

    /// Takes a trial call in although the breaker is open, if its first wait is over and a connection is there.
    pub(crate) fn admit_unprobed(self: &Arc<Self>) -> Option<Ticket> {
        let line = self.line()?;
        let (permit, transition) = self.breaker.admit_unprobed(self.now())?;
        self.moved(Some(transition));
        Some(Ticket::new(self, line, permit))
    }

    fn unused(&self, permit: Permit) {
        let verdict = crate::connect::breaker::Verdict::Nothing;
        let _ = self.breaker.record(self.now(), permit, verdict, Duration::ZERO, || false);
    }

    /// How long the breaker keeps calls away at least.
    pub(crate) fn barred_for(&self) -> Duration {
        let now = self.now();
        self.breaker.next_at(now).map_or(Duration::ZERO, |at| at.saturating_sub(now))
    }

    async fn connect(&self, ended: Arc<Notify>) -> Result<Line, Cause> {
        let around = &self.around;
        let instance = self.instance.load_full();
        let version = if instance.speaks_http2() { Version::Two } else { Version::One };
        let way = Way { dialer: &around.dialer, service: &around.service, is_tls: instance.is_tls, version };
        Line::open(way, &self.address, &around.scope, ended).await
    }

    fn is_connected(&self) -> bool {
        self.lines.load().open.iter().any(|line| line.is_usable())
    }

    /// The connection with the fewest calls.
    fn line(&self) -> Option<Occupied> {
        let lines = self.lines.load();
        let line = lines.open.iter().filter(|line| line.is_usable()).min_by_key(|line| line.in_flight())?;
        if line.is_crowded(crowd(lines.open.len())) && lines.open.len() < LINES_MAX {
            self.wake.notify_one();
        }
        Some(line.occupy())
    }

    /// Drops connections that take no calls; tells whether another one is wanted.
    fn tidy(&self) -> bool {
        let lines = self.lines.load_full();
        let open: Vec<_> = lines.open.iter().filter(|line| line.is_usable()).cloned().collect();
        let is_saturated = open.iter().all(|line| line.is_crowded(crowd(open.len())));
        let is_wanted = open.len() < LINES_MAX && is_saturated;
        if open.len() != lines.open.len() {
            self.lines.store(Arc::new(Lines { open, failure: lines.failure.clone() }));
            self.around.change();
        }
        is_wanted
    }

    /// Lets an idle connection go where the others have room enough. Its last calls, if any have just begun, end well.
    fn retire_surplus(&self) {
        let lines = self.lines.load_full();
        for line in &lines.open {
            line.tidy();
        }
        let in_flight: u32 = lines.open.iter().map(|line| line.in_flight()).sum();
        let room = u32::try_from(lines.open.len().saturating_sub(1)).unwrap_or(u32::MAX).saturating_mul(CALLS_PER_LINE);
        let idle = lines.open.iter().rposition(|line| line.in_flight() == 0);
        if let Some(idle) = idle.filter(|_| in_flight.saturating_mul(2) < room) {
            let mut open = lines.open.clone();
            open.remove(idle);
            self.lines.store(Arc::new(Lines { open, failure: lines.failure.clone() }));
        }
    }

    /// Only the task that keeps the connections writes them.
    fn opened(&self, line: Line) {
        let mut open = self.lines.load().open.clone();
        open.push(Arc::new(line));
        self.lines.store(Arc::new(Lines { open, failure: None }));
        self.around.change();
    }

    fn refused(self: &Arc<Self>, cause: Cause) {
        tracing::debug!(service = %self.around.service, address = %self.authority, error = %cause, "could not connect");
        let why = cause.to_string();
        let open = self.lines.load().open.clone();
        self.lines.store(Arc::new(Lines { open, failure: Some(cause) }));
        // An instance that leaves may well refuse.
        let is_expected = matches!(self.instance.load().state, State::Draining | State::Gone | State::Starting);
        let transition = if is_expected { None } else { self.breaker.refused(self.now(), &why) };
        self.moved(transition);
        self.around.change();
    }

    /// Tells of a move of the breaker, starts to probe after an opening, and slowly after a closing.
    fn moved(self: &Arc<Self>, transition: Option<Transition>) {
        let Some(transition) = transition else { return };
        self.is_ejecting.store(false, Ordering::Relaxed);
        match transition.to {
            Phase::Open if self.breaker.force() == Force::None => self.probe(),
            Phase::Closed => {
                let now = self.now();
                self.ramp_from.store(milliseconds(now), Ordering::Relaxed);
                // At once, and not only when the pool is looked after next.
                let ramp = self.ramp(now, self.around.policy.now().balancing.slow_start);
                self.gauge.set_weight(self.gauge.weight() * ramp);
            }
            // What it was slow at before is not to keep the trial calls away.
            Phase::HalfOpen => self.gauge.forget(),
            Phase::Open => {}
        }
        self.around.observer.moved(&self.around.service, &self.instance_id, transition);
        self.around.change();
    }

    fn now(&self) -> Duration {
        self.around.now()
    }
}

/// How many calls on each of so many connections make another one worth its while.
fn crowd(lines: usize) -> u32 {
    if lines < LINES_EARLY { CALLS_PER_LINE } else { CALLS_PER_LINE_MANY }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(NO_RAMP - 1)
}

/// Keeps one connection open, and more while calls crowd on them.
async fn keep(endpoint: &Weak<Endpoint>) {
    let mut backoff = Backoff::new(RECONNECT_MAX, fastrand::u64(..));
    let mut opened_at: Option<Instant> = None;
    loop {
        let Some(live) = endpoint.upgrade() else { return };
        let wake = live.wake.clone();
        if !live.tidy() {
            drop(live);
            if tokio::time::timeout(SURPLUS_LOOK, wake.notified()).await.is_err()
                && let Some(live) = endpoint.upgrade()
            {
                live.retire_surplus();
            }
            continue;
        }
        if !live.is_connected() && opened_at.is_some_and(|at| at.elapsed() < LINE_LIFE_MIN) {
            opened_at = None;
            live.refused(Cause::Ended);
            drop(live);
            tokio::time::sleep(backoff.wait()).await;
            continue;
        }
        match live.connect(wake).await {
            Ok(line) => {
                live.opened(line);
                if opened_at.is_none_or(|at| at.elapsed() >= LINE_LIFE_MIN) {
                    backoff.reset();
                }
                opened_at = Some(Instant::now());
            }
            Err(cause) => {
                live.refused(cause);
                drop(live);
                tokio::time::sleep(backoff.wait()).await;
            }
        }
    }
}

/// Makes the request's target absolute.
pub(crate) fn address_to(request: &mut http::Request<Body>, authority: &str) {
    let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
    let uri = http::Uri::builder().scheme("http").authority(authority).path_and_query(path).build();
    // A host name that no URI can hold came from the registry; the peer does not need it.
    *request.uri_mut() = uri.unwrap_or_else(|_| http::Uri::from_static("http://localhost/"));
}
