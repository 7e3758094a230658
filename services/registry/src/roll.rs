//! How far the watchers of one node have got: written by each node under its lease, read by all, so that a drain waits for
//! the watchers of every node, and people are told of all of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ninefold::fault;
use ninefold::lifecycle::Stop;
use ninefold_store::{self as store, Key, Op, Revision, Txn};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::lease::Slot;
use crate::model::{ROLLS, ServiceKey};
use crate::session::Hub;
use crate::watch::Count;

/// How long acknowledgements are gathered before they are written.
const GATHER: Duration = Duration::from_millis(100);
/// Pause between two writes, in times of how long the one before took.
const PAUSE_TIMES: u32 = 10;
/// How long the store may take.
const STEP_WITHIN: Duration = Duration::from_secs(1);
/// Most services whose own watchers are told of; a value of the store has its bounds. The others' count at their node alone.
const SERVICES_MAX: usize = 5_000;

/// How far those of one kind have got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group {
    /// The last change of what they follow, as their node knows it.
    pub(crate) revision: i64,
    /// What all of them have acknowledged.
    pub(crate) least: i64,
    /// How many have acknowledged `revision`.
    pub(crate) at: usize,
    /// How many there are.
    pub(crate) of: usize,
}

impl Group {
    /// How many have certainly acknowledged a revision.
    fn count(self, revision: Revision) -> Count {
        let at = if self.least >= revision.0 {
            self.of
        } else if self.revision >= revision.0 {
            self.at
        } else {
            0
        };
        Count { at, of: self.of }
    }
}

/// How far the watchers of one node have got, by what they follow. Only those who acknowledge are told of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Roll {
    /// Those who follow everything.
    pub(crate) all: Option<Group>,
    /// Those who follow everything of a namespace.
    pub(crate) within: BTreeMap<String, Group>,
    /// Those who follow a service, by namespace and name with a slash between.
    pub(crate) named: BTreeMap<String, Group>,
}

impl Roll {
    /// How many of those who follow a service, or of those who follow everything, have acknowledged a revision.
    pub(crate) fn count(&self, service: Option<&ServiceKey>, revision: Revision) -> Count {
        let within = service.and_then(|service| self.within.get(service.namespace.as_str()));
        let named = service.and_then(|service| self.named.get(&path(service)));
        self.all.iter().chain(within).chain(named).fold(Count { at: 0, of: 0 }, |sum, group| {
            let count = group.count(revision);
            Count { at: sum.at + count.at, of: sum.of + count.of }
        })
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Reads what a node wrote; `None` for what none did.
    pub(crate) fn read(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }

    fn write(&self) -> Bytes {
        let mut bounded = self.clone();
        while bounded.named.len() > SERVICES_MAX {
            bounded.named.pop_last();
        }
        serde_json::to_vec(&bounded).expect("numbers under texts are JSON").into()
    }
}

/// How a service is called in a roll.
pub(crate) fn path(service: &ServiceKey) -> String {
    format!("{}/{}", service.namespace, service.name)
}

/// What lies in the store of this node.
struct Told {
    roll: Roll,
    slot: Slot,
}

/// Keeps what the store tells of this node's watchers as new as they are, until asked to stop; then takes it back. Nothing
/// is written to a store that nobody shares.
pub(crate) async fn keep(hub: Arc<Hub>, stop: Stop) {
    if !hub.store.is_shared() {
        return;
    }
    let key = Key::new(format!("{ROLLS}{}", hub.node));
    let mut told = None;
    let mut pause = GATHER;
    loop {
        let moved = hub.view.watchers().moved();
        let mut moved = std::pin::pin!(moved);
        // From here on nothing is missed.
        moved.as_mut().enable();
        let begin = Instant::now();
        tell(&hub, &key, &mut told).await;
        pause = GATHER.max(begin.elapsed() * PAUSE_TIMES).max(if told.is_some() { pause / 2 } else { GATHER });
        let look = async {
            // Now and then it is looked whether the lease still stands.
            let _ = tokio::time::timeout(hub.config.lease / 3, moved).await;
            tokio::time::sleep(pause).await;
        };
        tokio::select! {
            () = stop.asked() => break,
            () = look => {}
        }
    }
    if told.is_some() {
        let txn = Txn { compares: Vec::new(), ops: vec![Op::Delete(key)] };
        // What is left behind goes with its lease.
        let _ = tokio::time::timeout(STEP_WITHIN, hub.store.txn(txn)).await;
    }
}

/// Writes how far the watchers are, if the store does not tell that. What fails is tried again with the next look.
async fn tell(hub: &Hub, key: &Key, told: &mut Option<Told>) {
    let roll = hub.view.roll();
    let stands = told.as_ref().is_some_and(|told| told.roll == roll && hub.leases.has(told.slot.lease()));
    if stands || (told.is_none() && roll.is_empty()) {
        return;
    }
    let slot = match told.take().map(|told| told.slot).filter(|slot| hub.leases.has(slot.lease())) {
        Some(slot) => slot,
        None => match tokio::time::timeout(STEP_WITHIN, hub.leases.slot()).await {
            Ok(Ok(slot)) => slot,
            Ok(Err(_)) | Err(_) => return,
        },
    };
    let op = Op::Put { key: key.clone(), value: roll.write(), lease: Some(slot.lease()) };
    match tokio::time::timeout(STEP_WITHIN, hub.store.txn(Txn { compares: Vec::new(), ops: vec![op] })).await {
        Ok(Ok(_)) => *told = Some(Told { roll, slot }),
        Ok(Err(store::Error::LeaseUnknown(lease))) => hub.leases.forget(lease),
        Ok(Err(error)) => {
            tracing::debug!(error = %fault::chain(&error), "could not tell how far the watchers are");
        }
        Err(_) => tracing::debug!("could not tell in time how far the watchers are"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watchers_of_a_service_of_its_namespace_and_of_everything_add_up() {
        let group = |revision, least, at, of| Group { revision, least, at, of };
        let roll = Roll {
            all: Some(group(9, 9, 1, 1)),
            within: [("eu".to_owned(), group(9, 4, 2, 3))].into(),
            named: [("eu/pump".to_owned(), group(7, 5, 1, 4))].into(),
        };
        let pump = ServiceKey::parse("eu", "pump").unwrap();
        let told = |revision| roll.count(Some(&pump), Revision(revision));
        assert_eq!(told(4), Count { at: 8, of: 8 });
        assert_eq!(told(7), Count { at: 4, of: 8 });
        assert_eq!(told(8), Count { at: 3, of: 8 }, "what a node has not seen, its watchers have not");
        assert_eq!(roll.count(None, Revision(9)), Count { at: 1, of: 1 });
        assert_eq!(roll.count(Some(&ServiceKey::parse("", "pump").unwrap()), Revision(1)), Count { at: 1, of: 1 });
        assert_eq!(Roll::read(&roll.write()), Some(roll));
    }
}
