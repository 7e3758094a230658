//! What every backend of the store keeps, as one list that all of them run; and what each does beyond it.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are tests too")]

mod changes;
mod embedded;
mod etcd;
mod leases;
mod reads;
mod watches;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{FutureExt as _, join_all};
use futures_util::stream::{BoxStream, StreamExt as _};
use ninefold_store::{Batch, Compare, Error, Event, Key, LeaseId, Op, Outcome, Revision, Store, Txn};

/// More than any case needs; a case that hangs fails with its name.
const CASE_DEADLINE: Duration = Duration::from_secs(60);

type Case = (&'static str, fn(Bed) -> Pin<Box<dyn Future<Output = ()>>>);

/// The list.
fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    cases.extend(reads::cases());
    cases.extend(changes::cases());
    cases.extend(watches::cases());
    cases.extend(leases::cases());
    cases
}

/// Runs the list on one store, all cases at the same time: each has a folder of keys of its own, and the writes of the
/// others make the revisions between its own.
async fn run_all(store: Arc<dyn Store>) {
    let runs = cases().into_iter().map(|(name, case)| {
        let bed = Bed { store: store.clone(), folder: name.replace(' ', "-") };
        async move {
            let run = AssertUnwindSafe(tokio::time::timeout(CASE_DEADLINE, case(bed))).catch_unwind();
            match run.await {
                Ok(Ok(())) => None,
                Ok(Err(_)) => Some(format!("{name}: did not end within {CASE_DEADLINE:?}")),
                Err(_) => Some(format!("{name}: see the panic above")),
            }
        }
    });
    let runs: Vec<_> = join_all(runs).await;
    let (count, failed): (_, Vec<_>) = (runs.len(), runs.into_iter().flatten().collect());
    println!("{count} cases, {} failed", failed.len());
    assert!(failed.is_empty(), "{failed:#?}");
}

/// A store and a folder of keys that one case has to itself.
#[derive(Clone)]
struct Bed {
    store: Arc<dyn Store>,
    folder: String,
}

impl Bed {
    fn key(&self, name: impl std::fmt::Display) -> Key {
        Key::new(format!("{}/{name}", self.folder))
    }

    /// All keys of the case.
    fn all(&self) -> Key {
        self.key("")
    }

    async fn change(&self, compares: Vec<Compare>, ops: Vec<Op>) -> Outcome {
        self.store.txn(Txn { compares, ops }).await.expect("the transaction is sound")
    }

    async fn put(&self, name: impl std::fmt::Display, value: &str) -> Revision {
        let outcome = self.change(Vec::new(), vec![put(self.key(name), value, None)]).await;
        assert!(outcome.committed);
        outcome.revision
    }

    async fn delete(&self, name: impl std::fmt::Display) -> Revision {
        self.change(Vec::new(), vec![Op::Delete(self.key(name))]).await.revision
    }

    async fn value(&self, name: impl std::fmt::Display) -> Option<String> {
        let entry = self.store.get(&self.key(name)).await.expect("the store reads")?;
        Some(String::from_utf8(entry.value.to_vec()).expect("values here are text"))
    }

    async fn watch(&self, after: Revision) -> Watch {
        let batches = self.store.watch(&self.all(), after).await.expect("the watch begins");
        Watch { batches, folder: self.folder.clone() }
    }

    async fn lease(&self) -> LeaseId {
        self.store.grant(Duration::from_secs(2)).await.expect("the lease is granted")
    }
}

/// A watch on all keys of a case.
struct Watch {
    batches: BoxStream<'static, Result<Batch, Error>>,
    folder: String,
}

impl Watch {
    async fn batch(&mut self) -> Result<Batch, Error> {
        let next = tokio::time::timeout(Duration::from_secs(20), self.batches.next());
        next.await.expect("a change comes within 20 s").expect("the watch goes on until it fails")
    }

    /// Waits for so many changes, as `name=value` and `name deleted`, checking that revisions never go back.
    async fn changes(&mut self, count: usize) -> Vec<String> {
        let mut changes = Vec::new();
        let mut last = Revision(0);
        while changes.len() < count {
            let batch = self.batch().await.expect("the watch has no reason to fail");
            for event in &batch.events {
                assert!(event.revision() >= last, "revisions go up");
                last = event.revision();
                changes.push(self.told(event));
            }
            assert!(batch.revision >= last, "a batch knows its last revision");
            assert!(!batch.events.is_empty(), "a batch has something to say");
        }
        changes
    }

    fn told(&self, event: &Event) -> String {
        let name = event.key().as_str().strip_prefix(&self.folder).expect("only what was asked for comes");
        let name = &name[1..];
        match event {
            Event::Put(entry) => format!("{name}={}", String::from_utf8_lossy(&entry.value)),
            Event::Delete { .. } => format!("{name} deleted"),
        }
    }
}

fn put(key: Key, value: &str, lease: Option<LeaseId>) -> Op {
    Op::Put { key, value: value.to_owned().into(), lease }
}
