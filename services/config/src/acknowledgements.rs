//! What instances say they run with, in the store, so that every node can tell.
//!
//! An acknowledgement is forgotten an hour after it was given. It lives under a lease that the node's acknowledgements
//! of about an hour share and that lasts two, so no key outlives its word by much and nobody need keep anything alive.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use ninefold_store::{LeaseId, Op, Store, Txn};
use tokio::time::Instant;

use crate::error::Error;
use crate::model::{Acknowledgement, DocumentId};
use crate::wire;

/// How long an acknowledgement counts.
const COUNTS_FOR: Duration = Duration::from_secs(3600);
/// How long a lease is given to new acknowledgements.
const LEASE_USED_FOR: Duration = Duration::from_secs(3600);
/// Most acknowledgements of one document that are told.
const TOLD_MAX: usize = 10_000;
/// Acknowledgements that are read at a time.
const PAGE_ENTRIES: usize = 500;
/// Most bytes of an answer: clients of gRPC refuse more than 4 MiB unless told otherwise.
const ANSWER_BYTES_MAX: usize = 3 * 1024 * 1024;

/// The acknowledgements in the store.
#[derive(Debug)]
pub(crate) struct Acknowledgements {
    store: Arc<dyn Store>,
    lease: Mutex<Option<(LeaseId, Instant)>>,
}

impl Acknowledgements {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, lease: Mutex::new(None) }
    }

    /// Keeps the newest word of an instance.
    pub(crate) async fn put(&self, told: &Acknowledgement) -> Result<(), Error> {
        let known = *self.lease.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((lease, granted)) = known
            && granted.elapsed() < LEASE_USED_FOR
        {
            match self.put_under(told, lease).await {
                // The store may have lost the lease; a new one is granted.
                Err(Error::Store { source: ninefold_store::Error::LeaseUnknown(_), .. }) => {}
                outcome => return outcome,
            }
        }
        let lease = self.store.grant(COUNTS_FOR + LEASE_USED_FOR).await.map_err(writing)?;
        // Where two calls grant at once, the lease of one is used for that call alone, and runs out.
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner) = Some((lease, Instant::now()));
        self.put_under(told, lease).await
    }

    async fn put_under(&self, told: &Acknowledgement, lease: LeaseId) -> Result<(), Error> {
        let (key, value) = (wire::acknowledgement_key(told), wire::acknowledgement_value(told));
        let ops = vec![Op::Put { key, value, lease: Some(lease) }];
        self.store.txn(Txn { compares: Vec::new(), ops }).await.map(drop).map_err(writing)
    }

    /// The words about a document that count, by instance.
    pub(crate) async fn list(&self, id: &DocumentId, now: SystemTime) -> Result<Vec<Acknowledgement>, Error> {
        let prefix = wire::acknowledgements_of(id);
        let mut told = Vec::new();
        let mut bytes = 0;
        let mut after = None;
        loop {
            let page = self.store.range(&prefix, after.as_ref(), PAGE_ENTRIES).await;
            let page = page.map_err(|source| Error::Store { what: "read the acknowledgements", source })?;
            after = page.entries.last().map(|entry| entry.key.clone());
            for entry in &page.entries {
                let acknowledgement = wire::kept_acknowledgement(&entry.key, &entry.value)?;
                let is_old = now.duration_since(acknowledgement.time).is_ok_and(|age| age > COUNTS_FOR);
                if is_old {
                    continue;
                }
                bytes += entry.value.len() + 16;
                if bytes > ANSWER_BYTES_MAX || told.len() == TOLD_MAX {
                    return Ok(told);
                }
                told.push(acknowledgement);
            }
            if !page.more {
                return Ok(told);
            }
        }
    }
}

fn writing(source: ninefold_store::Error) -> Error {
    Error::Store { what: "write the acknowledgement", source }
}
