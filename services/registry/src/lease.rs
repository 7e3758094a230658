//! The leases of this node: shards, so that neither one giant lease nor one a session burdens the store.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use ninefold::fault;
use ninefold::lifecycle::Stop;
use ninefold_store::{self as store, LeaseId, Store};

/// Most keys under one lease: a store deletes them together when it ends.
const KEYS_MAX: usize = 256;

/// The leases of this node.
#[derive(Debug)]
pub(crate) struct Leases {
    store: Arc<dyn Store>,
    ttl: Duration,
    shards: Mutex<Vec<Arc<Shard>>>,
    /// Held while a lease is granted, so that a crowd of sessions makes one lease and not one each.
    granting: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Shard {
    lease: LeaseId,
    keys: AtomicUsize,
}

/// A place for one key under a lease; free again when dropped.
#[derive(Debug)]
pub(crate) struct Slot(Arc<Shard>);

impl Slot {
    /// The lease to put the key under.
    pub(crate) fn lease(&self) -> LeaseId {
        self.0.lease
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.keys.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Leases {
    /// No leases yet; they are granted as sessions come.
    pub(crate) fn new(store: Arc<dyn Store>, ttl: Duration) -> Self {
        Self { store, ttl, shards: Mutex::new(Vec::new()), granting: tokio::sync::Mutex::new(()) }
    }

    /// A place for one key.
    ///
    /// # Errors
    /// Those of [`Store::grant`].
    pub(crate) async fn slot(&self) -> Result<Slot, store::Error> {
        if let Some(slot) = self.free() {
            return Ok(slot);
        }
        let _granting = self.granting.lock().await;
        if let Some(slot) = self.free() {
            return Ok(slot);
        }
        let lease = self.store.grant(self.ttl).await?;
        let shard = Arc::new(Shard { lease, keys: AtomicUsize::new(1) });
        self.shards.lock().unwrap_or_else(PoisonError::into_inner).push(shard.clone());
        Ok(Slot(shard))
    }

    fn free(&self) -> Option<Slot> {
        let shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        // Only this, under the lock, takes places, so the count cannot pass the limit.
        let shard = shards.iter().find(|shard| shard.keys.load(Ordering::Relaxed) < KEYS_MAX)?;
        shard.keys.fetch_add(1, Ordering::Relaxed);
        Some(Slot(shard.clone()))
    }

    /// Whether a lease is not known to be gone.
    pub(crate) fn has(&self, lease: LeaseId) -> bool {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|shard| shard.lease == lease)
    }

    /// Gives out no more places under a lease that is gone.
    pub(crate) fn forget(&self, lease: LeaseId) {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner).retain(|shard| shard.lease != lease);
    }

    /// Keeps all leases alive until asked to stop. They are left to run out then: the sessions move to another node, or
    /// back to this one, before they do.
    pub(crate) async fn keep(&self, stop: Stop) {
        let every = self.ttl / 3;
        loop {
            tokio::select! {
                () = stop.asked() => return,
                () = tokio::time::sleep(every) => {}
            }
            let leases: Vec<LeaseId> = {
                let shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
                shards.iter().map(|shard| shard.lease).collect()
            };
            let kept = join_all(leases.into_iter().map(|lease| self.keep_one(lease, every)));
            tokio::select! {
                () = stop.asked() => return,
                _ = kept => {}
            }
        }
    }

    async fn keep_one(&self, lease: LeaseId, within: Duration) {
        match tokio::time::timeout(within, self.store.keep_alive(lease)).await {
            Ok(Ok(())) => {}
            Ok(Err(store::Error::LeaseUnknown(_))) => {
                tracing::warn!(lease = lease.0, "a lease ran out; its sessions register again");
                self.forget(lease);
            }
            Ok(Err(error)) => {
                tracing::warn!(lease = lease.0, error = %fault::chain(&error), "could not keep a lease alive");
            }
            Err(_) => tracing::warn!(lease = lease.0, "could not keep a lease alive in time"),
        }
    }
}
