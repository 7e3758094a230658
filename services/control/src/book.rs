//! What the store holds for control: wishes, states, and which nodes are there.
//!
//! ```text
//! control/workloads/<service>   the wish and the node that runs it
//! control/states/<service>      what is there of it, under its node's lease
//! control/nodes/<node>          that the node is there, under its lease
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::stream::BoxStream;
use ninefold_proto::ninefold::control::v1 as proto;
use ninefold_store::{Batch, Compare, Entry, Key, LeaseId, Op, Revision, Store, Txn};
use prost::Message as _;

use crate::error::Error;
use crate::model::{Wish, Workload};
use crate::wire;

const WORKLOADS: &str = "control/workloads/";
const STATES: &str = "control/states/";
const NODES: &str = "control/nodes/";
/// How often a write that others outran is tried again.
const ATTEMPTS_MAX: usize = 10;
/// Entries read at once.
const PAGE_ENTRIES: usize = 500;
/// Operations of one transaction; within the store's limit.
const OPS_MAX: usize = 64;

/// A wish as it is stored.
#[derive(Clone, PartialEq, prost::Message)]
struct StoredWish {
    #[prost(string, tag = "1")]
    node: String,
    #[prost(message, optional, tag = "2")]
    workload: Option<proto::Workload>,
}

/// The states of a service's slots as they are stored.
#[derive(Clone, PartialEq, prost::Message)]
struct StoredStates {
    #[prost(string, tag = "1")]
    node: String,
    #[prost(message, repeated, tag = "2")]
    slots: Vec<proto::Slot>,
}

/// Control's part of the store, seen from one node. Clones are the same book.
#[derive(Clone, Debug)]
pub(crate) struct Book {
    store: Arc<dyn Store>,
    node: String,
}

/// All wishes, by service, and the moment at which they were read.
pub(crate) type Wishes = BTreeMap<String, Wish>;

impl Book {
    pub(crate) fn new(store: Arc<dyn Store>, node: String) -> Self {
        Self { store, node }
    }

    /// Name of the node that this book belongs to.
    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    /// Reads all wishes.
    pub(crate) async fn wishes(&self) -> Result<(Wishes, Revision), Error> {
        let mut wishes = Wishes::new();
        let prefix = Key::new(WORKLOADS);
        let mut after = None;
        let mut first = None;
        loop {
            let page = self.store.range(&prefix, after.as_ref(), PAGE_ENTRIES).await.map_err(reading("workloads"))?;
            for entry in &page.entries {
                let wish = wish(entry)?;
                wishes.insert(wish.workload.service.clone(), wish);
            }
            // What changed while later pages were read is seen by a watch from the first.
            let revision = *first.get_or_insert(page.revision);
            match page.entries.last() {
                Some(last) if page.more => after = Some(last.key.clone()),
                _ => return Ok((wishes, revision)),
            }
        }
    }

    /// Reads some wishes, by service, beginning after one; tells whether there are more.
    pub(crate) async fn page(&self, after: Option<&str>, limit: usize) -> Result<(Vec<Wish>, bool), Error> {
        let after = after.map(|service| Key::new(format!("{WORKLOADS}{service}")));
        let page = self.store.range(&Key::new(WORKLOADS), after.as_ref(), limit).await.map_err(reading("workloads"))?;
        let wishes: Result<Vec<_>, _> = page.entries.iter().map(wish).collect();
        Ok((wishes?, page.more))
    }

    /// Follows changes of wishes. What they are is to be read; the stream only tells that there are some.
    pub(crate) async fn changes(
        &self,
        after: Revision,
    ) -> Result<BoxStream<'static, Result<Batch, ninefold_store::Error>>, Error> {
        self.store.watch(&Key::new(WORKLOADS), after).await.map_err(reading("changes of workloads"))
    }

    /// Reads one wish.
    pub(crate) async fn wish(&self, service: &str) -> Result<Wish, Error> {
        let (_, held) = self.held(service).await?;
        held.ok_or_else(|| Error::Unknown(service.to_owned()))
    }

    async fn held(&self, service: &str) -> Result<(Option<Entry>, Option<Wish>), Error> {
        let key = Key::new(format!("{WORKLOADS}{service}"));
        let entry = self.store.get(&key).await.map_err(reading(service))?;
        let held = entry.as_ref().map(wish).transpose()?;
        Ok((entry, held))
    }

    /// Writes what `change` makes of a wish, if it is at the expected revision. Nothing is written when `change` fails.
    ///
    /// The node that holds the wish keeps it, unless it is gone: then this node takes it over.
    pub(crate) async fn write(
        &self,
        service: &str,
        expected: Option<i64>,
        change: impl Fn(Option<Workload>) -> Result<Workload, Error>,
    ) -> Result<Workload, Error> {
        let key = Key::new(format!("{WORKLOADS}{service}"));
        for _ in 0..ATTEMPTS_MAX {
            let (entry, held) = self.held(service).await?;
            let found = held.as_ref().map_or(0, |wish| wish.workload.revision);
            if let Some(expected) = expected.filter(|expected| *expected != found) {
                return Err(Error::RevisionConflict { service: service.to_owned(), expected, found });
            }
            let node = self.holder(held.as_ref()).await?;
            let mut workload = change(held.map(|wish| wish.workload))?;
            workload.revision = found + 1;
            let stored = StoredWish { node, workload: Some(wire::workload_message(&workload)) };
            let compare = match entry {
                Some(entry) => Compare::Modified(key.clone(), entry.modified),
                None => Compare::Absent(key.clone()),
            };
            let put = Op::Put { key: key.clone(), value: stored.encode_to_vec().into(), lease: None };
            let txn = Txn { compares: vec![compare], ops: vec![put] };
            if self.store.txn(txn).await.map_err(writing(service))?.committed {
                return Ok(workload);
            }
        }
        Err(Error::Contended { service: service.to_owned(), attempts: ATTEMPTS_MAX })
    }

    async fn holder(&self, held: Option<&Wish>) -> Result<String, Error> {
        let Some(held) = held.filter(|held| held.node != self.node) else { return Ok(self.node.clone()) };
        let key = Key::new(format!("{NODES}{}", held.node));
        let is_there = self.store.get(&key).await.map_err(reading(&held.node))?.is_some();
        Ok(if is_there { held.node.clone() } else { self.node.clone() })
    }

    /// Deletes a wish. Deleting what is not there changes nothing.
    pub(crate) async fn delete(&self, service: &str) -> Result<(), Error> {
        let key = Key::new(format!("{WORKLOADS}{service}"));
        let txn = Txn { compares: Vec::new(), ops: vec![Op::Delete(key)] };
        self.store.txn(txn).await.map_err(writing(service))?;
        Ok(())
    }

    /// Reads what is there of a service, as its node last told. Nothing if the node is gone.
    pub(crate) async fn states(&self, service: &str) -> Result<Vec<proto::Slot>, Error> {
        let key = Key::new(format!("{STATES}{service}"));
        let Some(entry) = self.store.get(&key).await.map_err(reading(service))? else { return Ok(Vec::new()) };
        let stored = StoredStates::decode(entry.value)
            .map_err(|source| Error::Damaged { key: key.as_str().to_owned(), source })?;
        Ok(stored.slots)
    }

    /// Grants a lease and tells under it that this node is there.
    pub(crate) async fn appear(&self, ttl: std::time::Duration) -> Result<LeaseId, Error> {
        let lease = self.store.grant(ttl).await.map_err(writing(&self.node))?;
        let key = Key::new(format!("{NODES}{}", self.node));
        let put = Op::Put { key, value: bytes::Bytes::new(), lease: Some(lease) };
        self.store.txn(Txn { compares: Vec::new(), ops: vec![put] }).await.map_err(writing(&self.node))?;
        Ok(lease)
    }

    /// Keeps the node's lease.
    pub(crate) async fn stay(&self, lease: LeaseId) -> Result<(), Error> {
        self.store.keep_alive(lease).await.map_err(writing(&self.node))
    }

    /// Ends the node's lease, and with it all that it told.
    pub(crate) async fn vanish(&self, lease: LeaseId) -> Result<(), Error> {
        self.store.revoke(lease).await.map_err(writing(&self.node))
    }

    /// Tells what is there of some services; `None` for a service of which nothing is.
    pub(crate) async fn tell(
        &self,
        lease: LeaseId,
        states: impl Iterator<Item = (&String, Option<&Vec<proto::Slot>>)>,
    ) -> Result<(), Error> {
        let ops: Vec<_> = states
            .map(|(service, slots)| {
                let key = Key::new(format!("{STATES}{service}"));
                match slots {
                    Some(slots) => {
                        let stored = StoredStates { node: self.node.clone(), slots: slots.clone() };
                        Op::Put { key, value: stored.encode_to_vec().into(), lease: Some(lease) }
                    }
                    None => Op::Delete(key),
                }
            })
            .collect();
        for ops in ops.chunks(OPS_MAX) {
            let txn = Txn { compares: Vec::new(), ops: ops.to_vec() };
            self.store.txn(txn).await.map_err(writing("states"))?;
        }
        Ok(())
    }
}

fn wish(entry: &Entry) -> Result<Wish, Error> {
    let damaged = |source| Error::Damaged { key: entry.key.as_str().to_owned(), source };
    let stored = StoredWish::decode(entry.value.clone()).map_err(damaged)?;
    let workload = wire::workload(&stored.workload.unwrap_or_default())?;
    Ok(Wish { node: stored.node, workload })
}

fn reading(what: &str) -> impl FnOnce(ninefold_store::Error) -> Error + use<> {
    let what = format!("reading {what}");
    |source| Error::Store { what, source }
}

fn writing(what: &str) -> impl FnOnce(ninefold_store::Error) -> Error + use<> {
    let what = format!("writing {what}");
    |source| Error::Store { what, source }
}
