//! The deadlines of leases. They are in memory alone: after a restart every lease has its whole time again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::disk::Leases;
use crate::model::LeaseId;

#[derive(Clone, Copy, Debug)]
struct Lease {
    ttl: Duration,
    deadline: Instant,
    /// Its end is being written: it can no longer be kept alive.
    ending: bool,
}

/// The deadlines of all leases.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    leases: Mutex<HashMap<LeaseId, Lease>>,
    changed: Notify,
}

impl Deadlines {
    /// Starts the time of a lease that is granted.
    pub(super) fn start(&self, id: LeaseId, ttl: Duration, now: Instant) {
        self.with(|leases| leases.insert(id, Lease { ttl, deadline: now + ttl, ending: false }));
        self.changed.notify_one();
    }

    /// Keeps a lease for another time to live; false if it is gone.
    pub(super) fn extend(&self, id: LeaseId, now: Instant) -> bool {
        self.with(|leases| match leases.get_mut(&id) {
            Some(lease) if !lease.ending => {
                lease.deadline = now + lease.ttl;
                true
            }
            Some(_) | None => false,
        })
    }

    /// Marks a lease as ending if its time is up.
    pub(super) fn expire(&self, id: LeaseId, now: Instant) -> bool {
        self.with(|leases| match leases.get_mut(&id) {
            Some(lease) if lease.deadline <= now => {
                lease.ending = true;
                true
            }
            Some(_) | None => false,
        })
    }

    /// Forgets a lease that has ended.
    pub(super) fn end(&self, id: LeaseId) {
        self.with(|leases| leases.remove(&id));
    }

    /// Takes the leases of the file as the truth, after a failure left it open which changes went through.
    pub(super) fn reconcile(&self, found: &Leases, now: Instant) {
        self.with(|leases| {
            let known = std::mem::take(leases);
            for &(id, ttl) in found {
                let deadline = known.get(&id).map_or(now + ttl, |lease| lease.deadline);
                leases.insert(id, Lease { ttl, deadline, ending: false });
            }
        });
        self.changed.notify_one();
    }

    /// Waits until the time of some leases is up, and tells which, at most `max`. Cancel safe.
    pub(super) async fn due(&self, max: usize) -> Vec<LeaseId> {
        loop {
            let now = Instant::now();
            let (due, next) = self.with(|leases| {
                let due: Vec<_> =
                    leases.iter().filter(|(_, lease)| lease.deadline <= now).map(|(id, _)| *id).take(max).collect();
                (due, leases.values().map(|lease| lease.deadline).min())
            });
            if !due.is_empty() {
                return due;
            }
            match next {
                Some(deadline) => tokio::select! {
                    () = tokio::time::sleep_until(deadline) => {}
                    () = self.changed.notified() => {}
                },
                None => self.changed.notified().await,
            }
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut HashMap<LeaseId, Lease>) -> T) -> T {
        work(&mut self.leases.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_kept_alive_is_not_due() {
        let deadlines = Deadlines::default();
        let (kept, silent) = (LeaseId(1), LeaseId(2));
        deadlines.start(kept, Duration::from_secs(3), Instant::now());
        deadlines.start(silent, Duration::from_secs(4), Instant::now());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(deadlines.extend(kept, Instant::now()));
        assert_eq!(deadlines.due(9).await, [silent]);
        assert!(deadlines.expire(silent, Instant::now()));
        assert!(!deadlines.extend(silent, Instant::now()), "its end is being written");
        assert!(!deadlines.expire(kept, Instant::now()));
    }
}
