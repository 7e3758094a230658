//! Room for those whom reports make suspect. Each node decides for the instances whose sessions it holds; so that two nodes
//! do not take the last place of a service at the same time, who takes one writes it into a key of the service, and the
//! store lets one of them do so at a time.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ninefold_store::{self as store, Compare, Entry, Op, Txn};

use super::hub::Hub;
use crate::model::{InstanceKey, State};
use crate::table::Table;

/// How often others may be first before it is given up.
const ATTEMPTS_MAX: usize = 4;
/// How long the store may take for one step.
const STEP_WITHIN: Duration = Duration::from_secs(1);
/// How long a place is held for one that is not known as suspect: its node writes that next, or has died.
const HELD_MILLIS: u64 = 10_000;

/// Who holds a place, by id, since when in Unix milliseconds.
type Places = BTreeMap<String, u64>;

/// Takes a place for an instance; tells whether there was one. There is none while the store is away.
pub(super) async fn take(hub: &Hub, key: &InstanceKey) -> bool {
    change(hub, key, |table, places| {
        places.retain(|id, since| id != key.id.as_str() && is_held(table, key, id, *since));
        let serves = |one: &crate::model::Instance| {
            one.key != *key && one.stands_as(State::Serving) && !places.contains_key(one.key.id.as_str())
        };
        let has_other = table.of(&key.service).any(|one| serves(one));
        let is_free = has_other && places.len() < hub.config.suspicion().share(table.count(&key.service));
        if is_free {
            places.insert(key.id.to_string(), now());
        }
        is_free
    })
    .await
    .unwrap_or(false)
}

/// Gives a place back. One that cannot be given back now is not held for long.
pub(super) async fn give(hub: &Hub, key: &InstanceKey) {
    change(hub, key, |_, places| places.remove(key.id.as_str()).is_some()).await;
}

/// Whether somebody's place is still taken.
fn is_held(table: &Table, key: &InstanceKey, id: &str, since: u64) -> bool {
    let other = InstanceKey::parse(key.service.namespace.as_str(), key.service.name.as_str(), id);
    let known = other.as_ref().and_then(|other| table.get(other));
    known.is_some_and(|known| !known.reported.is_empty() || now().saturating_sub(since) < HELD_MILLIS)
}

/// Changes who holds places, if `change` says that something is to be changed; tells what it said. `None` when the store is
/// away, or others were first again and again.
async fn change(hub: &Hub, key: &InstanceKey, mut change: impl FnMut(&Table, &mut Places) -> bool) -> Option<bool> {
    let path = key.service.room_path();
    for _ in 0..ATTEMPTS_MAX {
        let read: Option<Entry> = within(hub.store.get(&path)).await?;
        let mut places: Places =
            read.as_ref().and_then(|entry| serde_json::from_slice(&entry.value).ok()).unwrap_or_default();
        if !change(&hub.view.table(), &mut places) {
            return Some(false);
        }
        let compare = match &read {
            Some(entry) => Compare::Modified(path.clone(), entry.modified),
            None => Compare::Absent(path.clone()),
        };
        let op = if places.is_empty() {
            Op::Delete(path.clone())
        } else {
            let value = serde_json::to_vec(&places).expect("numbers under texts are JSON").into();
            Op::Put { key: path.clone(), value, lease: None }
        };
        if within(hub.store.txn(Txn { compares: vec![compare], ops: vec![op] })).await?.committed {
            return Some(true);
        }
    }
    None
}

async fn within<T>(step: impl Future<Output = Result<T, store::Error>>) -> Option<T> {
    tokio::time::timeout(STEP_WITHIN, step).await.ok()?.ok()
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
