//! The embedded backend: one file of one process, durable at every acknowledged write.
//!
//! On redb (a copy-on-write B-tree with checksums): entries, leases, and a bounded log of changes that watches resume
//! from. All writes go through one writer, which commits what is queued together. Reads see the last commit. Nothing
//! blocks an async worker.

mod apply;
mod disk;
mod feed;
mod lease;
mod record;
mod write;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use ninefold::lifecycle::{Scope, Stop};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::model::{Batch, Entry, Key, LEASE_TTL_MIN, LeaseId, Outcome, Ranged, Revision, Txn};
use crate::{Config, Error, Store, limits};

use apply::History;
use disk::{Disk, Found};
use feed::{Feed, Follower};
use lease::Deadlines;
use write::{Done, Request, Work};

/// Most pieces of work in the queue, and the most memory that they take together.
const QUEUE_WORKS_MAX: usize = 1024;
const QUEUE_KIB_MAX: u32 = 64 * 1024;
/// Most reads at once; more wait.
const READS_MAX: usize = 16;
/// When a disk does not answer for so long, the caller is told that it is away.
const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// The embedded backend.
#[derive(Debug)]
pub(crate) struct Embedded {
    shared: Arc<Shared>,
    queue: Queue,
    stop: Stop,
}

/// What the store, its tasks and its watches have in common.
#[derive(Debug)]
struct Shared {
    disk: Disk,
    feed: Feed,
    deadlines: Deadlines,
    history: History,
    reads: Arc<Semaphore>,
}

/// The way to the writer.
#[derive(Clone, Debug)]
struct Queue {
    works: mpsc::Sender<Request>,
    kib: Arc<Semaphore>,
    what: Arc<str>,
}

/// Opens the store in the configured folder. Its tasks live in `scope`; the file is closed when that closes.
///
/// # Errors
/// [`Error::Open`] when the folder cannot be made, written or locked.
pub(crate) async fn open(config: &Config, scope: &Scope) -> Result<Embedded, Error> {
    let folder = config.path.clone();
    let (disk, found) = blocking(move || Disk::open(&folder)).await?;
    let what = Arc::from(disk.what());
    let shared = Arc::new(Shared {
        disk,
        feed: Feed::new(found.revision),
        deadlines: Deadlines::default(),
        history: History {
            revisions_max: i64::try_from(config.history_revisions_max).unwrap_or(i64::MAX),
            bytes_max: i64::try_from(config.history_bytes_max).unwrap_or(i64::MAX),
        },
        reads: Arc::new(Semaphore::new(READS_MAX)),
    });
    shared.deadlines.reconcile(&found.leases, Instant::now());
    tracing::info!(folder = %config.path.display(), revision = found.revision.0, "the store is open");

    let (works, taken) = mpsc::channel(QUEUE_WORKS_MAX);
    let kib = Arc::new(Semaphore::new(usize::try_from(QUEUE_KIB_MAX).expect("fits every usize we build for")));
    let queue = Queue { works, kib, what };
    let scope = scope.child("store");
    scope.run("store.write", |stop| write::run(shared.clone(), taken, stop));
    scope.run("store.expire", |stop| write::expire(shared.clone(), queue.clone(), stop));
    Ok(Embedded { shared, queue, stop: scope.stop() })
}

/// Runs what blocks, away from the async workers.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(value) => value,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime is going down, and this future with it.
        Err(Err(_)) => std::future::pending().await,
    }
}

/// What a call says whose time is up.
fn late(what: &str) -> Error {
    Error::Unavailable { what: format!("{what}: no answer within {} s", CALL_DEADLINE.as_secs()), source: None }
}

impl Shared {
    /// Takes over what was found in the file when it was opened again.
    fn found(&self, found: &Found) {
        self.deadlines.reconcile(&found.leases, Instant::now());
        self.feed.restart(found.revision);
    }

    /// Reads from the file, in turn with other reads.
    async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&redb::Database) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let read = async {
            let turn = self.reads.clone().acquire_owned().await.expect("nobody closes the semaphore");
            let shared = self.clone();
            // The turn goes with the work, which runs to its end even when the caller is gone.
            let work = move || (shared.disk.with(|found| shared.found(&found), work), turn).0;
            blocking(work).await.map_err(|trouble| self.disk.tell(trouble))
        };
        tokio::time::timeout(CALL_DEADLINE, read).await.unwrap_or_else(|_| Err(late(&self.disk.what())))
    }
}

impl Queue {
    /// Hands a piece of work of so many bytes to the writer and waits for its answer. Once it is in the queue it is done
    /// even if the caller goes away.
    async fn submit(&self, bytes: usize, work: Work) -> Result<Done, Error> {
        let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(QUEUE_KIB_MAX);
        let submit = async {
            let room = self.kib.clone().acquire_many_owned(kib).await.expect("nobody closes the semaphore");
            let (reply, answer) = oneshot::channel();
            self.works.send(Request { work, reply, room }).await.map_err(|_| Error::Closed)?;
            answer.await.unwrap_or(Err(Error::Closed))
        };
        tokio::time::timeout(CALL_DEADLINE, submit).await.unwrap_or_else(|_| Err(late(&self.what)))
    }
}

#[tonic::async_trait]
impl Store for Embedded {
    fn is_shared(&self) -> bool {
        false
    }

    async fn range(&self, prefix: &Key, after: Option<&Key>, limit: usize) -> Result<Ranged, Error> {
        limits::prefix_bytes(prefix)?;
        let (prefix, after) = (prefix.clone(), after.cloned());
        self.shared.read(move |database| disk::range(database, &prefix, after.as_ref(), limit)).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Entry>, Error> {
        limits::key_bytes(key)?;
        let key = key.clone();
        self.shared.read(move |database| disk::get(database, &key)).await
    }

    async fn txn(&self, txn: Txn) -> Result<Outcome, Error> {
        let bytes = limits::check(&txn)?;
        match self.queue.submit(bytes, Work::Txn(txn)).await? {
            Done::Txn(outcome) => Ok(outcome),
            Done::Granted(..) | Done::Ended(_) | Done::Kept => unreachable!("a transaction is answered as one"),
        }
    }

    async fn watch(&self, prefix: &Key, after: Revision) -> Result<BoxStream<'static, Result<Batch, Error>>, Error> {
        limits::prefix_bytes(prefix)?;
        let follower = Follower::new(self.shared.clone(), prefix.clone(), after, self.stop.clone());
        Ok(stream::unfold(Some(follower), async |follower| Some(follower?.next().await)).boxed())
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, Error> {
        match self.queue.submit(0, Work::Grant(ttl.max(LEASE_TTL_MIN))).await? {
            Done::Granted(lease, _) => Ok(lease),
            Done::Txn(_) | Done::Ended(_) | Done::Kept => unreachable!("a grant is answered as one"),
        }
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), Error> {
        if self.stop.is_asked() {
            return Err(Error::Closed);
        }
        if self.shared.deadlines.extend(lease, Instant::now()) { Ok(()) } else { Err(Error::LeaseUnknown(lease)) }
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), Error> {
        self.queue.submit(0, Work::Revoke(lease)).await.map(drop)
    }
}
