//! An instance's record in the store, as its session last wrote it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ninefold::fault;
use ninefold_store::{self as store, Compare, Op, Outcome, Revision, Txn};

use super::hub::{Claim, Hub};
use crate::error::Error;
use crate::lease::Slot;
use crate::model::{Instance, State};
use crate::wire;

/// How often a write is fenced off by others before it gives up.
const ATTEMPTS_MAX: usize = 8;
/// How long the store may take for one step.
const STEP_WITHIN: Duration = Duration::from_secs(3);
const WRITING: &str = "write the registration";

/// With what right a session writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It registers: what another node, or a former life of this one, left there is its own now.
    Newcomer,
    /// It holds the instance: writes it again if it went missing, yields to another node.
    Holder,
    /// It cleans up: yields to another node, and lets lie what went missing.
    Heir,
}

/// What the table tells of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing that this session did not write.
    AsWritten,
    /// It is gone.
    Missing,
    /// It is not there, and the table is older than what was written: on its way, or lost by a store that was set back.
    Unseen,
    /// It is another node's.
    Overtaken,
}

/// An instance's record.
#[derive(Debug)]
pub(super) struct Record {
    hub: Arc<Hub>,
    instance: Instance,
    /// Revision of the record in the store, as far as known; `None` when there is none.
    held: Option<Revision>,
    slot: Option<Slot>,
}

impl Record {
    /// A record that is not written yet; `known` is the revision of what the table tells.
    pub(super) fn new(hub: Arc<Hub>, instance: Instance, known: Option<Revision>) -> Self {
        Self { hub, instance, held: known, slot: None }
    }

    pub(super) fn instance(&self) -> &Instance {
        &self.instance
    }

    /// Revision of the last write.
    pub(super) fn revision(&self) -> Revision {
        self.instance.revision
    }

    /// Changes the state, in memory.
    pub(super) fn set(&mut self, state: State, reason: String, now: SystemTime) {
        if self.instance.state != state {
            self.instance.changed = now;
        }
        self.instance.state = state;
        self.instance.state_reason = reason;
    }

    /// Takes in what callers report, in memory; tells whether that makes a difference.
    pub(super) fn set_reported(&mut self, reported: String) -> bool {
        let differs = self.instance.reported.is_empty() != reported.is_empty();
        if differs {
            self.instance.reported = reported;
        }
        differs
    }

    /// Writes the record. Others that write at the same time are looked at, and yielded to or overwritten as `standing`
    /// says.
    ///
    /// # Errors
    /// [`Error::InstanceTaken`] when the instance is another session's; [`Error::InstanceUnknown`] when there is nothing
    /// to clean up; [`Error::InstanceContended`]; [`Error::Store`], after which it may or may not be written.
    pub(super) async fn write(&mut self, standing: Standing, claim: &Claim) -> Result<(), Error> {
        let key = self.instance.key.path();
        for _ in 0..ATTEMPTS_MAX {
            let lease = self.lease().await?;
            let txn = Txn {
                compares: vec![match self.held {
                    Some(revision) => Compare::Modified(key.clone(), revision),
                    None => Compare::Absent(key.clone()),
                }],
                ops: vec![Op::Put { key: key.clone(), value: wire::record(&self.instance), lease: Some(lease) }],
            };
            match within(self.hub.store.txn(txn)).await {
                Ok(Outcome { committed: true, revision }) => {
                    self.held = Some(revision);
                    self.instance.revision = revision;
                    self.instance.written = revision;
                    return Ok(());
                }
                Ok(Outcome { committed: false, .. }) => self.look(standing, claim).await?,
                Err(store::Error::LeaseUnknown(lease)) => {
                    self.hub.leases.forget(lease);
                    self.slot = None;
                }
                Err(source) => return Err(Error::Store { doing: WRITING, source }),
            }
        }
        Err(Error::InstanceContended(self.instance.key.clone()))
    }

    async fn lease(&mut self) -> Result<store::LeaseId, Error> {
        if let Some(slot) = &self.slot {
            return Ok(slot.lease());
        }
        let slot = within(self.hub.leases.slot()).await;
        let slot = slot.map_err(|source| Error::Store { doing: "get a lease", source })?;
        Ok(self.slot.insert(slot).lease())
    }

    /// Reads who wrote the record, and takes its revision as the one to write over if that is allowed.
    async fn look(&mut self, standing: Standing, claim: &Claim) -> Result<(), Error> {
        let entry = within(self.hub.store.get(&self.instance.key.path())).await;
        let entry = entry.map_err(|source| Error::Store { doing: "read the registration", source })?;
        let Some(entry) = entry else {
            self.held = None;
            return if standing == Standing::Heir { Err(Error::unknown(&self.instance.key)) } else { Ok(()) };
        };
        let written = wire::read_record(&entry.value, entry.modified);
        let is_mine = written.as_ref().is_none_or(|written| written.node == self.hub.node);
        let has_left = written.is_some_and(|written| written.state == State::Gone);
        if claim.is_valid() && (is_mine || has_left || standing == Standing::Newcomer) {
            self.held = Some(entry.modified);
            return Ok(());
        }
        Err(Error::InstanceTaken(self.instance.key.clone()))
    }

    /// Compares what was written with what the table tells.
    pub(super) fn compare_with_view(&mut self) -> Seen {
        let table = self.hub.view.table();
        let key = &self.instance.key;
        let written = self.held.unwrap_or_default();
        // What only this node still shows, because its silence is doubted, lies in the store no more.
        match table.get(key).filter(|_| !table.lapsed().contains(key)) {
            Some(seen) if seen.written <= written || seen.node == self.hub.node => Seen::AsWritten,
            Some(_) => Seen::Overtaken,
            None if table.revision() < written => Seen::Unseen,
            None => {
                drop(table);
                self.held = None;
                Seen::Missing
            }
        }
    }

    /// Erases the record, if it is still the one that was written. If that fails it is only litter: no table shows it,
    /// and it goes with its lease.
    pub(super) async fn erase(&self) {
        let key = self.instance.key.path();
        let compares = vec![Compare::Modified(key.clone(), self.instance.revision)];
        let erased = within(self.hub.store.txn(Txn { compares, ops: vec![Op::Delete(key)] })).await;
        if let Err(error) = erased {
            tracing::warn!(instance = %self.instance.key, error = %fault::chain(&error), "left a record behind");
        }
    }
}

async fn within<T>(step: impl Future<Output = Result<T, store::Error>>) -> Result<T, store::Error> {
    tokio::time::timeout(STEP_WITHIN, step).await.unwrap_or_else(|_| {
        Err(store::Error::Unavailable { what: format!("no answer within {STEP_WITHIN:?}"), source: None })
    })
}
