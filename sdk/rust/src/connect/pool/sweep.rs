//! Looks after a pool while calls are made: forgives slow endpoints, ends slow starts, opens and forgets by the clock.
//!
//! A pool that nobody calls sleeps, so that a caller that follows a thousand services is not busy with them.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::connect::policy::BalancingMethod;
use crate::connect::pool::Pool;

/// How often a pool is looked after.
const EVERY: Duration = Duration::from_millis(100);
/// Looks without a call before a pool sleeps. Longer than the longest window of a breaker, so that it ends empty.
const QUIET_MAX: u32 = 700;

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

    /// What endpoints say that they can do, on average. `None` while fewer than two have said it.
    fn usual(&self) -> Option<f32> {
        let said: Vec<f32> = self.endpoints.load().iter().filter_map(|endpoint| endpoint.capacity()).collect();
        (said.len() > 1).then(|| said.iter().sum::<f32>() / said.len() as f32)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // The task that sleeps finds nobody to look after.
        self.wake.notify_one();
    }
}
