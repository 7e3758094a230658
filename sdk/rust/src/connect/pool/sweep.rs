//! Looks after a pool while calls are made: forgives slow endpoints, ends slow starts, opens and forgets by the clock.
//!
//! A pool that nobody calls sleeps, so that a caller that follows a thousand services is not busy with them.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::connect::endpoint::Usual;
use crate::connect::policy::BalancingMethod;
use crate::connect::pool::Pool;

/// How often a pool is looked after.
const EVERY: Duration = Duration::from_millis(100);
/// Looks without a call before a pool sleeps. Longer than the longest window of a breaker, so that it ends empty.
const QUIET_MAX: u32 = 700;

/// How many times as long as at the other endpoints a call takes that is slow, where no policy says what slow is.
const SLOW_FACTOR: u32 = 5;
/// The least that a slow call takes, however quick the others are.
const SLOW_MIN: Duration = Duration::from_millis(500);
/// Other endpoints that an endpoint is compared with, at least.
const PEERS_MIN: usize = 2;

/// Nobody looks after the pool.
const ASLEEP: u8 = 0;
/// No call since the last look.
pub(super) const IDLE: u8 = 1;
/// Calls since the last look.
const BUSY: u8 = 2;

pub(super) fn start(pool: &Arc<Pool>) {
    let weak = Arc::downgrade(pool);
    pool.around.scope.run("connect.sweep", |stop| async move {
        tokio::select! {
            () = sweep(&weak) => {}
            () = stop.asked() => {}
        }
    });
}

async fn sweep(pool: &Weak<Pool>) {
    let mut quiet = 0;
    loop {
        let wake = {
            let Some(live) = pool.upgrade() else { return };
            let is_restless = live.refresh();
            let was_busy = live.activity.swap(IDLE, Ordering::AcqRel) == BUSY;
            quiet = if was_busy || is_restless { 0 } else { quiet + 1 };
            let may_sleep = quiet > QUIET_MAX;
            // A call that comes just now makes it busy, and is seen at the next look.
            let is_asleep =
                may_sleep && live.activity.compare_exchange(IDLE, ASLEEP, Ordering::AcqRel, Ordering::Acquire).is_ok();
            is_asleep.then(|| live.wake.clone())
        };
        match wake {
            Some(wake) => wake.notified().await,
            None => tokio::time::sleep(EVERY).await,
        }
    }
}

impl Pool {
    /// A call is made.
    pub(super) fn stir(&self) {
        if self.activity.load(Ordering::Relaxed) != BUSY && self.activity.swap(BUSY, Ordering::AcqRel) == ASLEEP {
            self.wake.notify_one();
        }
    }

    /// Lets time pass. Tells whether the next look is needed, calls or not.
    pub(super) fn refresh(&self) -> bool {
        let policy = self.around.policy.now();
        let endpoints = self.endpoints.load();
        let usual = if policy.balancing.method == BalancingMethod::WeightedRoundRobin { self.usual() } else { None };
        self.compare();
        let (mut is_other, mut is_restless) = (false, false);
        for endpoint in endpoints.iter() {
            is_other |= endpoint.refresh(policy.balancing.slow_start, usual);
            is_restless |= endpoint.is_restless();
        }
        self.methods.sweep(self.now());
        if is_other {
            self.around.stock.is_stale.store(true, Ordering::Release);
        }
        is_restless || self.methods.are_restless()
    }

    /// Says what is slow at each endpoint, where the policy does not: what takes much longer than at the others. Where
    /// fewer than two others have answered of late, nobody can tell which of them is odd.
    fn compare(&self) {
        let policy = self.around.policy.now();
        if policy.breaker.slow_call.is_some() || policy.breaker.slow_calls_in_a_row == 0 {
            return;
        }
        let endpoints = self.endpoints.load();
        let latencies: Vec<_> = endpoints.iter().map(|endpoint| endpoint.latency()).collect();
        let mut known: Vec<Duration> = latencies.iter().flatten().copied().collect();
        known.sort_unstable();
        for (endpoint, own) in endpoints.iter().zip(&latencies) {
            endpoint.set_slow_call(peers_median(&known, *own).map(|usual| (usual * SLOW_FACTOR).max(SLOW_MIN)));
        }
    }

    /// What endpoints say of their loads, taken together.
    fn usual(&self) -> Option<Usual> {
        let said: Vec<_> = self.endpoints.load().iter().filter_map(|endpoint| endpoint.said()).collect();
        Usual::of(&said)
    }
}

/// The median of what is known, in order, without an endpoint's own. The lower one of two.
fn peers_median(known: &[Duration], own: Option<Duration>) -> Option<Duration> {
    let own = own.and_then(|own| known.binary_search(&own).ok());
    let others = known.len() - usize::from(own.is_some());
    if others < PEERS_MIN {
        return None;
    }
    let middle = (others - 1) / 2;
    let is_past = own.is_some_and(|own| own <= middle);
    known.get(middle + usize::from(is_past)).copied()
}

impl Drop for Pool {
    fn drop(&mut self) {
        // The task that sleeps finds nobody to look after.
        self.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn median(known: &[u64], own: Option<u64>) -> Option<u64> {
        let known: Vec<_> = known.iter().copied().map(Duration::from_millis).collect();
        let median = peers_median(&known, own.map(Duration::from_millis))?;
        u64::try_from(median.as_millis()).ok()
    }

    #[test]
    fn an_endpoint_is_compared_with_the_others_alone() {
        assert_eq!(median(&[1, 2, 900], Some(900)), Some(1));
        assert_eq!(median(&[1, 2, 900], Some(1)), Some(2));
        assert_eq!(median(&[1, 2, 3, 900], Some(2)), Some(3));
        assert_eq!(median(&[1, 2], None), Some(1), "it has never answered itself");
    }

    #[test]
    fn of_two_nobody_can_tell_which_is_odd() {
        assert_eq!(median(&[1, 900], Some(900)), None);
        assert_eq!(median(&[900], None), None);
        assert_eq!(median(&[], None), None);
    }
}
