//! The endpoints of one service, and how a call finds its own.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use ninefold_proto::ninefold::registry::v1 as words;
use tokio::time::Instant;

use crate::connect::balance;
use crate::connect::budget::Budget;
use crate::connect::endpoint::{Endpoint, Key, Readiness, Surroundings, Ticket};
use crate::connect::error::Error;
use crate::connect::landscape::Instance;
use crate::connect::policy::{self, Policy};

/// The endpoints of one service, shared by its channels.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) around: Surroundings,
    endpoints: ArcSwap<Vec<Arc<Endpoint>>>,
    /// What the endpoints were made from. Held while they are replaced.
    instances: Mutex<Vec<Arc<Instance>>>,
    /// The policies of the channels, and what central configuration says to them.
    policies: Mutex<Policies>,
    budget: Mutex<Budget>,
    random: Mutex<fastrand::Rng>,
}

#[derive(Debug, Default)]
struct Policies {
    /// One for each policy in code; as few as a program has places where it makes channels.
    live: Vec<Arc<policy::Live>>,
    central: Option<Arc<words::Policy>>,
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
    pub(crate) fn new(around: Surroundings, seed: u64) -> Self {
        Self {
            around,
            endpoints: ArcSwap::default(),
            instances: Mutex::default(),
            policies: Mutex::default(),
            budget: Mutex::default(),
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
        }
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

    #[allow(dead_code, reason = "called by whoever follows policies")]
    /// Takes what central configuration says of the service from now on.
    pub(crate) fn take_policy(&self, central: Option<&Arc<words::Policy>>) {
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
        self.around.policy.take(central.map(|central| &**central));
        self.around.changed.send_replace(());
    }

    /// Takes the instances that are known now. What was learned of an endpoint stays while it is known.
    pub(crate) fn update(&self, instances: &[Arc<Instance>]) {
        let mut last = self.instances.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() == instances.len() && last.iter().zip(instances).all(|(last, new)| Arc::ptr_eq(last, new)) {
            return;
        }
        *last = instances.to_vec();
        let old = self.endpoints.load_full();
        let mut known: HashMap<Key, Arc<Endpoint>> =
            old.iter().map(|endpoint| (endpoint.key(), endpoint.clone())).collect();
        let mut endpoints = Vec::with_capacity(instances.len());
        for instance in instances {
            for address in &instance.addresses {
                let endpoint = match known.remove(&(instance.id.clone(), address.clone())) {
                    Some(endpoint) => {
                        endpoint.update(instance.clone());
                        endpoint
                    }
                    None => Endpoint::start(instance.clone(), address.clone(), self.around.clone()),
                };
                endpoints.push(endpoint);
            }
        }
        self.endpoints.store(Arc::new(endpoints));
        self.around.changed.send_replace(());
    }

    /// Finds an endpoint that was not tried and takes the call in, now or never.
    pub(crate) fn pick(&self, among: Option<&BTreeSet<String>>, tried: &[Key]) -> Option<Ticket> {
        self.try_pick(among, tried).ok()
    }

    /// Finds an endpoint and takes the call in; waits until `end` while none is ready, unless there is no hope.
    pub(crate) async fn pick_until(&self, among: Option<&BTreeSet<String>>, end: Instant) -> Result<Ticket, Error> {
        let mut changed = self.around.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let error = match self.try_pick(among, &[]) {
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

    /// Counts a call in the budget of retries.
    pub(crate) fn deposit(&self) {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner).deposit(self.around.origin.elapsed());
    }

    /// Takes a retry from the budget.
    pub(crate) fn withdraw(&self) -> bool {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner).withdraw(self.around.origin.elapsed())
    }

    fn try_pick(&self, among: Option<&BTreeSet<String>>, tried: &[Key]) -> Result<Ticket, Shortage> {
        let service = &self.around.service;
        let endpoints = self.endpoints.load();
        let mut ready = Vec::with_capacity(endpoints.len());
        let mut loads = Vec::with_capacity(endpoints.len());
        let mut barred = Vec::new();
        let mut connecting = None;
        let mut is_any_left_out = false;
        for endpoint in endpoints.iter() {
            if tried.iter().any(|(id, address)| *id == endpoint.instance_id && *address == endpoint.address) {
                continue;
            }
            let readiness = endpoint.readiness();
            if matches!(readiness, Readiness::Out) {
                continue;
            }
            if among.is_some_and(|among| !among.contains(&endpoint.instance().contract_digest)) {
                is_any_left_out = true;
                continue;
            }
            match readiness {
                Readiness::Ready(rank) => {
                    loads.push((rank, endpoint.load()));
                    ready.push(endpoint);
                }
                Readiness::Barred => barred.push(endpoint),
                Readiness::Connecting(cause) => connecting = Some(cause.or(connecting.flatten())),
                Readiness::Out => {}
            }
        }
        while !ready.is_empty() {
            let picked = {
                let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
                balance::pick(&loads, &mut random)
            };
            let Some(picked) = picked else { break };
            loads.swap_remove(picked);
            let endpoint = ready.swap_remove(picked);
            if let Some(ticket) = endpoint.admit() {
                return Ok(ticket);
            }
            // The connection has just ended, or somebody else took the last trial.
            match endpoint.readiness() {
                Readiness::Connecting(cause) => connecting = Some(cause.or(connecting.flatten())),
                Readiness::Ready(_) | Readiness::Barred => barred.push(endpoint),
                Readiness::Out => {}
            }
        }
        if let Some(source) = connecting {
            return Err(Shortage::Passing(Error::Unreachable { service: service.clone(), source }));
        }
        if let Some(ticket) = barred.iter().find_map(|endpoint| endpoint.admit_unprobed()) {
            return Ok(ticket);
        }
        if let Some(retry_after) = barred.iter().map(|endpoint| endpoint.barred_for()).min() {
            let retry_after = retry_after.max(Duration::from_millis(10));
            return Err(Shortage::Lasting(Error::BreakerOpen { service: service.clone(), retry_after }));
        }
        let service = service.clone();
        let error = if is_any_left_out { Error::NoInstanceAmong { service } } else { Error::NoInstance { service } };
        Err(Shortage::Passing(error))
    }
}
