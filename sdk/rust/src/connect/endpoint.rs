//! One address of one instance: its connections, its breaker, its load.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tower::service_fn;

use crate::connect::balance::{Latency, Load, Rank};
use crate::connect::breaker::{Breaker, Permit, Phase, Transition, Verdict};
use crate::connect::connection::{Backoff, Line, Occupied, SendError};
use crate::connect::error::Cause;
use crate::connect::landscape::{Address, Instance, Protocol, State};
use crate::connect::observer::Observer;
use crate::connect::policy;
use crate::lifecycle::Scope;

/// Most connections to one endpoint: one HTTP/2 connection is one mutex on either side.
const LINES_MAX: usize = 4;
/// Calls on each connection at which another one is made; servers commonly allow 100 or 200 streams.
const CALLS_PER_LINE: u32 = 64;
/// The longest wait between two attempts to connect.
const RECONNECT_MAX: Duration = Duration::from_secs(2);
/// A connection that ends sooner did not work out: the next attempt waits.
const LINE_LIFE_MIN: Duration = Duration::from_secs(1);
/// How long a health probe may take.
const PROBE_WAIT: Duration = Duration::from_secs(1);

/// What the endpoints of a service share.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    pub(crate) service: Arc<str>,
    pub(crate) scope: Scope,
    pub(crate) observer: Observer,
    /// Wakes calls that wait for an endpoint.
    pub(crate) changed: watch::Sender<()>,
    /// The moment from which breakers and latencies count.
    pub(crate) origin: Instant,
    /// When to stop calling an endpoint, and whom to call.
    pub(crate) policy: Arc<policy::Live>,
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
    instance: ArcSwap<Instance>,
    lines: ArcSwap<Lines>,
    wake: Arc<Notify>,
    in_flight: AtomicU32,
    latency: Mutex<Latency>,
    breaker: Mutex<Breaker>,
    around: Surroundings,
    _gone: DropGuard,
}

/// The connections of an endpoint, or why there is none.
#[derive(Clone, Debug, Default)]
struct Lines {
    open: Vec<Arc<Line>>,
    failure: Option<Cause>,
}

/// Whether an endpoint can take a call.
#[derive(Clone, Debug)]
pub(crate) enum Readiness {
    Ready(Rank),
    /// Its breaker keeps calls away; a connection may or may not be there.
    Barred,
    /// There is no connection yet, or no more.
    Connecting(Option<Cause>),
    /// The instance takes no calls.
    Out,
}

impl Endpoint {
    pub(crate) fn start(instance: Arc<Instance>, address: Address, around: Surroundings) -> Arc<Self> {
        let gone = CancellationToken::new();
        let endpoint = Arc::new(Self {
            instance_id: instance.id.clone(),
            authority: address.to_string().into(),
            address,
            instance: ArcSwap::new(instance),
            lines: ArcSwap::default(),
            wake: Arc::new(Notify::new()),
            in_flight: AtomicU32::new(0),
            latency: Mutex::default(),
            breaker: Mutex::new(Breaker::new(around.policy.now().breaker.clone(), fastrand::u64(..))),
            around,
            _gone: gone.clone().drop_guard(),
        });
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

    pub(crate) fn instance(&self) -> Arc<Instance> {
        self.instance.load_full()
    }

    /// Takes a newer version of the instance; what was learned of it stays.
    pub(crate) fn update(&self, instance: Arc<Instance>) {
        self.instance.store(instance);
    }

    pub(crate) fn readiness(&self) -> Readiness {
        let instance = self.instance.load();
        let rank = match (instance.protocol, instance.state) {
            (Protocol::Grpc, State::Serving) => Rank::Usual,
            (Protocol::Grpc, State::Suspect) => Rank::Last,
            (Protocol::Grpc, State::Starting | State::Draining | State::Gone) | (Protocol::Http, _) => {
                return Readiness::Out;
            }
        };
        if !self.lock_breaker().admits(self.now()) {
            return Readiness::Barred;
        }
        if self.is_connected() {
            return Readiness::Ready(rank);
        }
        Readiness::Connecting(self.lines.load().failure.clone())
    }

    pub(crate) fn load(&self) -> Load {
        let instance = self.instance.load();
        // Several addresses of one instance share its weight.
        let addresses = u32::try_from(instance.addresses.len()).unwrap_or(u32::MAX).max(1);
        Load {
            latency: lock(&self.latency).seconds(self.now()),
            in_flight: self.in_flight.load(Ordering::Relaxed),
            weight: f64::from(instance.weight.max(1)) / f64::from(addresses),
        }
    }

    /// Takes a call in, if breaker and connections allow.
    pub(crate) fn admit(self: &Arc<Self>) -> Option<Ticket> {
        let line = self.line()?;
        let permit = self.lock_breaker().admit(self.now())?;
        Some(self.ticket(line, permit))
    }

    /// Takes a trial call in although the breaker is open, if its first wait is over and a connection is there.
    pub(crate) fn admit_unprobed(self: &Arc<Self>) -> Option<Ticket> {
        let line = self.line()?;
        let (permit, transition) = self.lock_breaker().admit_unprobed(self.now())?;
        self.moved(Some(transition));
        Some(self.ticket(line, permit))
    }

    /// How long the breaker keeps calls away at least.
    pub(crate) fn barred_for(&self) -> Duration {
        let now = self.now();
        self.lock_breaker().next_at(now).map_or(Duration::ZERO, |at| at.saturating_sub(now))
    }

    fn ticket(self: &Arc<Self>, line: Occupied, permit: Permit) -> Ticket {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Ticket { endpoint: self.clone(), line, permit: Some(permit), started: Instant::now() }
    }

    fn is_connected(&self) -> bool {
        self.lines.load().open.iter().any(|line| line.is_usable())
    }

    /// The connection with the fewest calls.
    fn line(&self) -> Option<Occupied> {
        let lines = self.lines.load();
        let line = lines.open.iter().filter(|line| line.is_usable()).min_by_key(|line| line.in_flight())?;
        if line.in_flight() >= CALLS_PER_LINE && lines.open.len() < LINES_MAX {
            self.wake.notify_one();
        }
        Some(line.occupy())
    }

    /// Drops connections that take no calls; tells whether another one is wanted.
    fn tidy(&self) -> bool {
        let lines = self.lines.load_full();
        let open: Vec<_> = lines.open.iter().filter(|line| line.is_usable()).cloned().collect();
        let is_saturated = open.iter().all(|line| line.in_flight() >= CALLS_PER_LINE);
        let is_wanted = open.len() < LINES_MAX && is_saturated;
        if open.len() != lines.open.len() {
            self.lines.store(Arc::new(Lines { open, failure: lines.failure.clone() }));
        }
        is_wanted
    }

    /// Only the task that keeps the connections writes them.
    fn opened(&self, line: Line) {
        let mut open = self.lines.load().open.clone();
        open.push(Arc::new(line));
        self.lines.store(Arc::new(Lines { open, failure: None }));
        self.around.changed.send_replace(());
    }

    fn refused(self: &Arc<Self>, cause: Cause) {
        tracing::debug!(service = %self.around.service, address = %self.authority, error = %cause, "could not connect");
        let why = cause.to_string();
        let open = self.lines.load().open.clone();
        self.lines.store(Arc::new(Lines { open, failure: Some(cause) }));
        // An instance that leaves may well refuse.
        let is_expected = matches!(self.instance.load().state, State::Draining | State::Gone | State::Starting);
        let now = self.now();
        let transition = if is_expected { None } else { self.lock_breaker().refused(now, &why) };
        self.moved(transition);
        self.around.changed.send_replace(());
    }

    /// Tells of a move of the breaker, and starts to probe after an opening.
    fn moved(self: &Arc<Self>, transition: Option<Transition>) {
        let Some(transition) = transition else { return };
        if transition.to == Phase::Open {
            let weak = Arc::downgrade(self);
            let generation = self.lock_breaker().generation();
            self.around.scope.run("connect.probe", |stop| async move {
                tokio::select! {
                    () = probe(&weak, generation) => {}
                    () = stop.asked() => {}
                }
            });
        }
        self.around.observer.moved(&self.around.service, &self.instance_id, transition);
        self.around.changed.send_replace(());
    }

    fn lock_breaker(&self) -> MutexGuard<'_, Breaker> {
        lock(&self.breaker)
    }

    fn now(&self) -> Duration {
        self.around.origin.elapsed()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
            wake.notified().await;
            continue;
        }
        if !live.is_connected() && opened_at.is_some_and(|at| at.elapsed() < LINE_LIFE_MIN) {
            opened_at = None;
            live.refused(Cause::Ended);
            drop(live);
            tokio::time::sleep(backoff.wait()).await;
            continue;
        }
        match Line::open(&live.address, &live.around.scope, wake).await {
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

/// Asks an endpoint whose breaker is open whether it is up, until it is, or until the breaker has moved otherwise.
async fn probe(endpoint: &Weak<Endpoint>, generation: u32) {
    loop {
        let wait = {
            let Some(live) = endpoint.upgrade() else { return };
            let breaker = live.lock_breaker();
            let Some(at) = breaker.probe_at().filter(|_| breaker.generation() == generation) else { return };
            at.saturating_sub(live.now())
        };
        tokio::time::sleep(wait).await;
        let Some(live) = endpoint.upgrade() else { return };
        let is_up = tokio::time::timeout(PROBE_WAIT, check(&live)).await.unwrap_or(false);
        let now = live.now();
        let transition = {
            let mut breaker = live.lock_breaker();
            if breaker.generation() == generation { breaker.probed(now, is_up) } else { None }
        };
        live.moved(transition);
    }
}

/// Whether the instance says that it serves. One that does not speak `grpc.health.v1` but answers is up.
async fn check(endpoint: &Arc<Endpoint>) -> bool {
    let Some(line) = endpoint.line() else { return false };
    let authority = &endpoint.authority;
    let line = &line;
    let mut client = HealthClient::new(service_fn(async move |mut request: http::Request<Body>| {
        address_to(&mut request, authority);
        line.send(request).await.map_err(|failure| match failure {
            SendError::Unsent(error) | SendError::Reset(error) | SendError::Lost(error) => error,
        })
    }));
    match client.check(HealthCheckRequest::default()).await {
        Ok(answer) => answer.into_inner().status() == ServingStatus::Serving,
        Err(status) => status.code() == Code::Unimplemented,
    }
}

/// Makes the request's target absolute.
pub(crate) fn address_to(request: &mut http::Request<Body>, authority: &str) {
    let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
    let uri = http::Uri::builder().scheme("http").authority(authority).path_and_query(path).build();
    // A host name that no URI can hold came from the registry; the peer does not need it.
    *request.uri_mut() = uri.unwrap_or_else(|_| http::Uri::from_static("http://localhost/"));
}

/// A call that an endpoint has taken in. Dropped without [`Ticket::finish`], it counts as cancelled.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) line: Occupied,
    permit: Option<Permit>,
    started: Instant,
}

impl Ticket {
    /// Wakes the keeper of the connections: this one takes no more calls.
    pub(crate) fn line_is_over(&self) {
        self.endpoint.wake.notify_one();
    }

    /// The instance has answered, and did not fail at once: learns how long it took.
    pub(crate) fn answered(&self) {
        lock(&self.endpoint.latency).observe(self.endpoint.now(), self.started.elapsed());
    }

    /// The call is over.
    pub(crate) fn finish(mut self, verdict: Verdict<'_>) {
        self.give_back(verdict);
    }

    /// The call ended with this status.
    pub(crate) fn finish_with(self, status: &Status) {
        let text = format!("{:?}: {}", status.code(), status.message());
        self.finish(verdict(status.code(), &text));
    }

    fn give_back(&mut self, verdict: Verdict<'_>) {
        let Some(permit) = self.permit.take() else { return };
        self.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
        let now = self.endpoint.now();
        let transition = self.endpoint.lock_breaker().record(now, permit, verdict);
        self.endpoint.moved(transition);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.give_back(Verdict::Nothing);
    }
}

/// What a status says about the health of the instance that sent it.
pub(crate) fn verdict(code: Code, why: &str) -> Verdict<'_> {
    match code {
        Code::Unavailable | Code::Internal | Code::Unknown | Code::DeadlineExceeded | Code::DataLoss => {
            Verdict::Failure(why)
        }
        Code::ResourceExhausted => Verdict::Overload(why),
        Code::Cancelled => Verdict::Nothing,
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Unauthenticated => Verdict::Success,
    }
}
