//! Breakers of methods: a method that fails wherever it is asked is no fault of an endpoint.
//!
//! An endpoint is blamed first. What opens its breaker, or finds it open, is not counted against the method; and failures
//! in a row count against the method only when every endpoint that can be asked has failed since the last success.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::connect::breaker::{Breaker, Permit, Phase, Transition, Verdict};
use crate::connect::endpoint::{Readiness, Surroundings, due};
use crate::connect::policy::Policy;
use crate::connect::pool::Pool;

/// Methods that are remembered, at most. Paths may come from strangers, through the edge.
const METHODS_MAX: usize = 1024;
/// Endpoints that are told apart.
const ENDPOINTS_MAX: u32 = 64;

/// The methods of one service.
#[derive(Debug, Default)]
pub(super) struct Methods {
    known: ArcSwap<HashMap<Box<str>, Arc<Method>>>,
    growing: Mutex<()>,
}

/// One method of the service.
#[derive(Debug)]
pub(super) struct Method {
    path: Box<str>,
    breaker: Breaker,
    /// The endpoints that have failed since the last success, a bit each.
    failed: AtomicU64,
    around: Surroundings,
    pool: Weak<Pool>,
}

/// Leave of a method's breaker to make one call.
#[derive(Debug)]
pub(crate) struct MethodPermit {
    method: Arc<Method>,
    permit: Option<Permit>,
}

impl Methods {
    /// The method at `path`; `None` beyond the bound.
    pub(super) fn get(&self, path: &str, pool: &Pool) -> Option<Arc<Method>> {
        if let Some(known) = self.known.load().get(path) {
            return Some(known.clone());
        }
        let _growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.known.load();
        if let Some(known) = known.get(path) {
            return Some(known.clone());
        }
        if known.len() >= METHODS_MAX {
            return None;
        }
        let policy = Arc::new(pool.around.policy.now().rules(path).breaker.clone());
        let method = Arc::new(Method {
            path: path.into(),
            breaker: Breaker::new(policy, fastrand::u64(..)),
            failed: AtomicU64::new(0),
            around: pool.around.clone(),
            pool: pool.me.clone(),
        });
        let mut next = HashMap::clone(&known);
        next.insert(path.into(), method.clone());
        self.known.store(Arc::new(next));
        Some(method)
    }

    /// Takes another policy; what was counted stays.
    pub(super) fn set_policy(&self, now: Duration, policy: &Policy) {
        for (path, method) in self.known.load().iter() {
            let policy = Arc::new(policy.rules(path).breaker.clone());
            method.moved(method.breaker.set_policy(now, policy));
        }
    }

    pub(super) fn sweep(&self, now: Duration) {
        for method in self.known.load().values() {
            let transition = method.breaker.sweep(now, || true);
            method.moved(transition);
        }
    }

    /// Whether there is anything to look after, calls or not.
    pub(super) fn are_restless(&self) -> bool {
        self.known.load().values().any(|method| method.breaker.phase() != Phase::Closed)
    }
}

impl Method {
    /// Lets a call go out, or tells how long none will.
    pub(super) fn admit(self: Arc<Self>) -> Result<MethodPermit, Duration> {
        match self.breaker.admit(|| self.around.now()) {
            Some(permit) => Ok(MethodPermit { method: self, permit: Some(permit) }),
            None => {
                let now = self.around.now();
                Err(self.breaker.next_at(now).map_or(Duration::ZERO, |at| at.saturating_sub(now)))
            }
        }
    }

    fn record(
        self: &Arc<Self>,
        now: Duration,
        permit: Permit,
        verdict: Verdict<'_>,
        took: Duration,
        endpoint: Option<u32>,
    ) {
        let verdict = match (verdict, endpoint) {
            (Verdict::Success, _) => {
                if self.failed.load(Ordering::Relaxed) != 0 {
                    self.failed.store(0, Ordering::Relaxed);
                }
                verdict
            }
            (Verdict::Failure(why), Some(number)) if self.breaker.phase() == Phase::Closed => {
                let bit = 1 << (number % ENDPOINTS_MAX);
                let failed = (self.failed.fetch_or(bit, Ordering::Relaxed) | bit).count_ones();
                let usable = self.around.stock.usable.load(Ordering::Relaxed).min(ENDPOINTS_MAX);
                // Another endpoint may answer the method well: no row, but a share all the same.
                if failed < usable { Verdict::Overload(why) } else { verdict }
            }
            (other, _) => other,
        };
        let transition = self.breaker.record(now, permit, verdict, took, || true);
        self.moved(transition);
    }

    /// Tells of a move of the breaker, and starts to probe after an opening.
    fn moved(self: &Arc<Self>, transition: Option<Transition>) {
        let Some(transition) = transition else { return };
        if transition.to == Phase::Open {
            let weak = Arc::downgrade(self);
            let generation = self.breaker.generation();
            self.around.scope.run("connect.probe", |stop| async move {
                tokio::select! {
                    () = probe(&weak, generation) => {}
                    () = stop.asked() => {}
                }
            });
        }
        self.around.observer.method_moved(&self.around.service, &self.path, transition);
        self.around.changed.send_replace(());
    }
}

impl MethodPermit {
    /// The call is sent.
    pub(crate) fn begin(&mut self, now: Duration) {
        if let Some(permit) = &mut self.permit {
            self.method.breaker.begin(now, permit);
        }
    }

    /// The call is answered, though perhaps not over.
    pub(crate) fn answered(&mut self, took: Duration) {
        if let Some(permit) = &mut self.permit {
            self.method.breaker.answered(permit, took);
        }
    }

    /// The call is over.
    pub(crate) fn give_back(mut self, now: Duration, verdict: Verdict<'_>, took: Duration, endpoint: u32) {
        if let Some(permit) = self.permit.take() {
            self.method.record(now, permit, verdict, took, Some(endpoint));
        }
    }
}

impl Drop for MethodPermit {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.method.record(self.method.around.now(), permit, Verdict::Nothing, Duration::ZERO, None);
        }
    }
}

/// Asks the endpoints whether one of them is up, before any caller's request is risked.
async fn probe(method: &Weak<Method>, generation: u32) {
    while let Some(live) = due(method, generation, |live| (&live.breaker, live.around.now())).await {
        let Some(pool) = live.pool.upgrade() else { return };
        let endpoints = pool.endpoints.load_full();
        let ready = endpoints.iter().find(|endpoint| matches!(endpoint.readiness(), Readiness::Ready(_)));
        let is_up = match ready {
            Some(endpoint) => endpoint.is_up().await,
            None => false,
        };
        if live.breaker.generation() != generation {
            return;
        }
        let transition = live.breaker.probed(live.around.now(), is_up);
        live.moved(transition);
    }
}
