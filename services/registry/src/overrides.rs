//! What operators decide of instances: a key of its own in the store, without a lease, so that it survives whatever
//! becomes of the instance.

use std::sync::Arc;
use std::time::Duration;

use ninefold_store::{self as store, Compare, Op, Txn};

use crate::error::Error;
use crate::model::{Instance, InstanceKey, Override};
use crate::session::Hub;
use crate::wire;

/// Most instances that something is decided of. Decisions are made by people, and forgotten by them.
const OVERRIDES_MAX: usize = 10_000;
/// How often a decision is fenced off by another one before it gives up.
const ATTEMPTS_MAX: usize = 8;
/// How long the store may take for one step.
const STEP_WITHIN: Duration = Duration::from_secs(3);
/// How long an answer waits for this node's own table to show what was written.
const SEEN_WITHIN: Duration = Duration::from_secs(1);

/// Decides something of an instance; tells how it is then, if it is there.
///
/// # Errors
/// [`Error::InstanceUnknown`] for one that is neither there nor decided of; [`Error::OverridesFull`];
/// [`Error::OverrideContended`]; [`Error::Store`], after which it may or may not be decided.
pub(crate) async fn set(hub: &Hub, key: InstanceKey, decided: Override) -> Result<Option<Arc<Instance>>, Error> {
    {
        let table = hub.view.table();
        if table.decided(&key).is_none() {
            if table.get(&key).is_none() {
                return Err(Error::unknown(&key));
            }
            if table.decisions() >= OVERRIDES_MAX {
                return Err(Error::OverridesFull { max: OVERRIDES_MAX });
            }
        }
    }
    let value = wire::override_record(&decided);
    write(hub, &key, Op::Put { key: key.override_path(), value, lease: None }).await
}

/// Takes back what was decided of an instance; tells how it is then, if it is there.
///
/// # Errors
/// [`Error::OverrideContended`]; [`Error::Store`], after which it may or may not be taken back.
pub(crate) async fn clear(hub: &Hub, key: InstanceKey) -> Result<Option<Arc<Instance>>, Error> {
    write(hub, &key, Op::Delete(key.override_path())).await
}

/// Writes over what was read just before, so that of two operators neither loses a word without either being told.
async fn write(hub: &Hub, key: &InstanceKey, op: Op) -> Result<Option<Arc<Instance>>, Error> {
    let path = key.override_path();
    for _ in 0..ATTEMPTS_MAX {
        let read = within(hub.store.get(&path)).await;
        let read = read.map_err(|source| Error::Store { doing: "read the override", source })?;
        let compare = match &read {
            Some(entry) => Compare::Modified(path.clone(), entry.modified),
            None if matches!(op, Op::Delete(_)) => return Ok(hub.view.table().get(key).cloned()),
            None => Compare::Absent(path.clone()),
        };
        let done = within(hub.store.txn(Txn { compares: vec![compare], ops: vec![op.clone()] })).await;
        let done = done.map_err(|source| Error::Store { doing: "write the override", source })?;
        if done.committed {
            hub.view.reached(done.revision, SEEN_WITHIN).await;
            tracing::info!(instance = %key, "an override was written");
            return Ok(hub.view.table().get(key).cloned());
        }
    }
    Err(Error::OverrideContended(key.clone()))
}

async fn within<T>(step: impl Future<Output = Result<T, store::Error>>) -> Result<T, store::Error> {
    tokio::time::timeout(STEP_WITHIN, step).await.unwrap_or_else(|_| {
        Err(store::Error::Unavailable { what: format!("no answer within {STEP_WITHIN:?}"), source: None })
    })
}
