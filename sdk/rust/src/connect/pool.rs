//! The endpoints of one service, and how a call finds its own.

mod chart;
mod methods;
mod sweep;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderMap;
use ninefold_proto::ninefold::registry::v1 as words;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::connect::balance;
use crate::connect::endpoint::{Endpoint, Key, Readiness, Surroundings, Ticket};
use crate::connect::error::Error;
use crate::connect::landscape::{Instance, State};
use crate::connect::policy::{self, BalancingMethod, Policy};
use crate::connect::restraint::Restraint;
use crate::connect::subset::Subset;
use chart::Chart;
pub(crate) use methods::MethodPermit;
use methods::Methods;

/// The least time that a caller is told to wait while breakers are open.
const RETRY_AFTER_MIN: Duration = Duration::from_millis(10);

/// The endpoints of one service, shared by its channels.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) around: Surroundings,
    endpoints: ArcSwap<Vec<Arc<Endpoint>>>,
    /// Those of them that can be picked now.
    chart: ArcSwap<Chart>,
    turn: AtomicUsize,
    methods: Methods,
    /// What the endpoints were made from. Held while they are replaced.
    instances: Mutex<Vec<Arc<Instance>>>,
    /// The policies of the channels, and what central configuration says to them.
    policies: Mutex<Policies>,
    pub(crate) restraint: Restraint,
    /// Whether calls have been made of late; see [`sweep`].
    activity: AtomicU8,
    wake: Arc<Notify>,
    me: Weak<Self>,
}

#[derive(Debug, Default)]
struct Policies {
    /// One for each policy in code; as few as a program has places where it makes channels.
    live: Vec<Arc<policy::Live>>,
    central: Option<Arc<words::Policy>>,
}

/// What a call wants of its endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'a> {
    /// The method, as "/package.Service/Method".
    pub(crate) path: &'a str,
    /// Contract digests, of which the instance must keep one.
    pub(crate) among: Option<&'a BTreeSet<String>>,
    /// What the instance must say of itself.
    subset: Option<&'a Subset>,
    /// For consistent hashing.
    key: Option<u64>,
}

impl<'a> Ask<'a> {
    /// What the call with these headers wants, under this policy.
    pub(crate) fn new(
        path: &'a str,
        headers: &HeaderMap,
        policy: &Policy,
        among: Option<&'a BTreeSet<String>>,
    ) -> Self {
        let key = match policy.balancing.method {
            BalancingMethod::RingHash => headers.get(&policy.balancing.hash_header),
            BalancingMethod::PeakEwma
            | BalancingMethod::RoundRobin
            | BalancingMethod::WeightedRoundRobin
            | BalancingMethod::LeastRequest => None,
        };
        Self { path, among, subset: None, key: key.map(|value| balance::hash(value.as_bytes())) }
    }
}

impl<'a> Ask<'a> {
    /// The same, of instances of a subset.
    pub(crate) fn within(self, subset: Option<&'a Subset>) -> Self {
        Self { subset, ..self }
    }

    fn is_of(&self, instance: &Instance) -> bool {
        self.among.is_none_or(|among| among.contains(&instance.contract_digest))
            && self.subset.is_none_or(|subset| subset.has(instance))
    }
}

/// What kept a call from being taken in.
#[derive(Debug)]
enum Shortage {
    /// May pass soon: an instance comes, or a connection.
    Passing(Error),
    /// Will not pass soon enough to wait for.
    Lasting(Error),
}

impl Pool {
    /// A pool, and the task that looks after it.
    pub(crate) fn start(around: Surroundings) -> Arc<Self> {
        let pool = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            endpoints: ArcSwap::default(),
            chart: ArcSwap::default(),
            turn: AtomicUsize::new(fastrand::usize(..1024)),
            methods: Methods::default(),
            instances: Mutex::default(),
            policies: Mutex::default(),
            restraint: Restraint::new(&around.service),
            activity: AtomicU8::new(sweep::IDLE),
            wake: Arc::new(Notify::new()),
            around,
        });
        sweep::start(&pool);
        pool
    }

    /// Whether channels with this policy in code may share the endpoints.
    pub(crate) fn suits(&self, policy: &Policy) -> bool {
        let base = self.around.policy.base();
        base.breaker == policy.breaker && base.balancing == policy.balancing
    }

    /// The policy in code, as central configuration changes it from now on.
    pub(crate) fn policy(&self, base: Policy) -> Arc<policy::Live> {
        let mut policies = self.policies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = policies.live.iter().find(|known| *known.base() == base) {
            return known.clone();
        }
        let live = Arc::new(policy::Live::new(base, policies.central.as_deref()));
        policies.live.push(live.clone());
        live
    }

    /// Takes what central configuration says of the service from now on. What was learned of endpoints and methods stays.
    pub(crate) fn take_policy(&self, central: Option<&Arc<words::Policy>>) {
        {
            let mut policies = self.policies.lock().unwrap_or_else(PoisonError::into_inner);
            let is_same = match (&policies.central, central) {
                (Some(last), Some(new)) => Arc::ptr_eq(last, new),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            if is_same {
                return;
            }
            policies.central = central.cloned();
            for live in &policies.live {
                live.take(central.map(|central| &**central));
            }
        }
        if !self.around.policy.take(central.map(|central| &**central)) {
            return;
        }
        let breaker = Arc::new(self.around.policy.now().breaker.clone());
        for endpoint in self.endpoints.load().iter() {
            endpoint.set_policy(&breaker);
        }
        self.methods.set_policy(self.now(), &self.around.policy.now());
        // Another subset, perhaps.
        let instances = self.instances.lock().unwrap_or_else(PoisonError::into_inner);
        self.replace(&instances);
    }

    /// Takes the instances that are known now. What was learned of an endpoint stays while it is known.
    pub(crate) fn update(&self, instances: &[Arc<Instance>]) {
        let mut last = self.instances.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() == instances.len() && last.iter().zip(instances).all(|(last, new)| Arc::ptr_eq(last, new)) {
            return;
        }
        *last = instances.to_vec();
        self.replace(&last);
    }

    /// Makes the endpoints of some instances. Called by one at a time.
    fn replace(&self, instances: &[Arc<Instance>]) {
        let old = self.endpoints.load_full();
        let mut known: HashMap<Key, Arc<Endpoint>> =
            old.iter().map(|endpoint| (endpoint.key(), endpoint.clone())).collect();
        let is_late = !old.is_empty();
        let mut endpoints = Vec::with_capacity(instances.len());
        for instance in self.subset(instances) {
            for address in &instance.addresses {
                let endpoint = match known.remove(&(instance.id.clone(), address.clone())) {
                    Some(endpoint) => {
                        endpoint.update(&instance);
                        endpoint
                    }
                    None => Endpoint::start(&instance, address.clone(), is_late, self.around.clone()),
                };
                endpoints.push(endpoint);
            }
        }
        self.endpoints.store(Arc::new(endpoints));
        self.refresh();
        self.around.change();
    }

    /// The instances that this caller talks to. Those that serve come first.
    fn subset(&self, instances: &[Arc<Instance>]) -> Vec<Arc<Instance>> {
        let most = usize::try_from(self.around.policy.now().balancing.subset_size).unwrap_or(0);
        if most == 0 {
            return instances.to_vec();
        }
        let (serving, others): (Vec<_>, Vec<_>) =
            instances.iter().cloned().partition(|instance| instance.state == State::Serving);
        let hash = |instance: &Arc<Instance>| balance::hash(instance.id.as_bytes());
        let mut chosen = balance::subset(serving, most, self.around.caller, hash);
        if chosen.len() < most {
            chosen.extend(balance::subset(others, most - chosen.len(), self.around.caller, hash));
        }
        chosen
    }

    /// Finds an endpoint that was not tried and takes the call in, now or never.
    pub(crate) fn pick(&self, ask: &Ask<'_>, tried: &[Key]) -> Option<Ticket> {
        self.try_pick(ask, tried).ok()
    }

    /// Finds an endpoint and takes the call in; waits until `end` while none is ready, unless there is no hope.
    pub(crate) async fn pick_until(&self, ask: &Ask<'_>, end: Instant) -> Result<Ticket, Error> {
        // Nearly always there is one, and nobody has to be told of changes.
        match self.try_pick(ask, &[]) {
            Ok(ticket) => return Ok(ticket),
            Err(Shortage::Lasting(error)) => return Err(error),
            Err(Shortage::Passing(_)) => {}
        }
        let mut changed = self.around.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let error = match self.try_pick(ask, &[]) {
                Ok(ticket) => return Ok(ticket),
                Err(Shortage::Lasting(error)) => return Err(error),
                Err(Shortage::Passing(error)) => error,
            };
            // The sender lives in this pool, so only time can end the wait.
            if tokio::time::timeout_at(end, changed.changed()).await.is_err() {
                return Err(error);
            }
        }
    }

    /// The time since the moment from which everything here counts.
    pub(crate) fn now(&self) -> Duration {
        self.around.now()
    }

    fn try_pick(&self, ask: &Ask<'_>, tried: &[Key]) -> Result<Ticket, Shortage> {
        self.stir();
        let method = self.methods.get(ask.path, self);
        let permit = match method.map(methods::Method::admit) {
            Some(Ok(permit)) => Some(permit),
            Some(Err(retry_after)) => return Err(Shortage::Lasting(self.method_is_open(ask.path, retry_after))),
            None => None,
        };
        let ticket = match self.quick_pick(ask, tried) {
            Some(ticket) => ticket,
            None => match (self.seek(ask, tried), ask.subset) {
                // Rather another one than none.
                (Err(_), Some(subset)) if !subset.is_strict => self.seek(&ask.within(None), tried)?,
                (sought, _) => sought?,
            },
        };
        Ok(match permit {
            Some(permit) => ticket.with_method(permit),
            None => ticket,
        })
    }

    /// The usual case: takes no lock and allocates nothing. A call that not everybody may answer has it too, as long as
    /// the endpoint that is picked may.
    fn quick_pick(&self, ask: &Ask<'_>, tried: &[Key]) -> Option<Ticket> {
        if !tried.is_empty() {
            return None;
        }
        self.freshen();
        let chart = self.chart.load();
        let endpoint = chart.pick(&self.turn, fastrand::u64(..), ask.key)?;
        let is_choosy = ask.among.is_some() || ask.subset.is_some();
        if is_choosy && !ask.is_of(&endpoint.instance()) {
            return None;
        }
        endpoint.admit(chart.is_panic)
    }

    /// The unusual case: looks at every endpoint, and finds out why there is none.
    fn seek(&self, ask: &Ask<'_>, tried: &[Key]) -> Result<Ticket, Shortage> {
        self.freshen();
        let mut refused: Vec<Arc<Endpoint>> = Vec::new();
        let chart = self.chart.load();
        loop {
            let is_eligible = |endpoint: &Arc<Endpoint>| {
                !tried.iter().any(|key| endpoint.is_key(key))
                    && !refused.iter().any(|other| Arc::ptr_eq(other, endpoint))
                    && ask.is_of(&endpoint.instance())
            };
            let Some(endpoint) = chart.pick_among(fastrand::u64(..), is_eligible) else { break };
            if let Some(ticket) = endpoint.admit(chart.is_panic) {
                return Ok(ticket);
            }
            // The connection has just ended, or somebody else took the last trial.
            let endpoint = endpoint.clone();
            refused.push(endpoint);
        }
        drop(chart);
        self.last_resort(ask, tried)
    }

    /// No endpoint that is usable takes the call: a trial where every breaker is open, or else the reason.
    fn last_resort(&self, ask: &Ask<'_>, tried: &[Key]) -> Result<Ticket, Shortage> {
        let service = &self.around.service;
        let endpoints = self.endpoints.load();
        let (mut barred, mut connecting, mut is_any_left_out) = (Vec::new(), None, false);
        for endpoint in endpoints.iter().filter(|endpoint| !tried.iter().any(|key| endpoint.is_key(key))) {
            let readiness = endpoint.readiness();
            if matches!(readiness, Readiness::Out) {
                continue;
            }
            if !ask.is_of(&endpoint.instance()) {
                is_any_left_out = true;
                continue;
            }
            match readiness {
                // Became ready just now: the next look finds it.
                Readiness::Ready(_) => connecting = connecting.or(Some(None)),
                Readiness::Partly | Readiness::Barred => barred.push(endpoint),
                Readiness::Connecting(cause) => connecting = Some(cause.or(connecting.flatten())),
                Readiness::Out => {}
            }
        }
        if let Some(source) = connecting {
            return Err(Shortage::Passing(Error::Unreachable { service: service.clone(), source }));
        }
        // Rather one that the registry does not suspect, too.
        barred.sort_by_key(|endpoint| endpoint.instance().state == State::Suspect);
        if let Some(ticket) = barred.iter().find_map(|endpoint| endpoint.admit_unprobed()) {
            return Ok(ticket);
        }
        if let Some(retry_after) = barred.iter().map(|endpoint| endpoint.barred_for()).min() {
            let retry_after = retry_after.max(RETRY_AFTER_MIN);
            return Err(Shortage::Lasting(Error::BreakerOpen { service: service.clone(), retry_after }));
        }
        let service = service.clone();
        let error = if is_any_left_out { Error::NoInstanceAmong { service } } else { Error::NoInstance { service } };
        Err(Shortage::Passing(error))
    }

    fn method_is_open(&self, path: &str, retry_after: Duration) -> Error {
        let service = self.around.service.clone();
        let method = path.trim_start_matches('/').into();
        Error::MethodBreakerOpen { service, method, retry_after: retry_after.max(RETRY_AFTER_MIN) }
    }

    /// Finds out who can be picked, if that has changed.
    fn freshen(&self) {
        let is_stale = &self.around.stock.is_stale;
        if is_stale.load(Ordering::Acquire) && is_stale.swap(false, Ordering::AcqRel) {
            self.draw_chart();
        }
    }

    fn draw_chart(&self) {
        let endpoints = self.endpoints.load();
        self.chart.store(Arc::new(Chart::new(&endpoints, &self.around)));
    }
}
