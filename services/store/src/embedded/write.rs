//! The one writer. What is queued while a commit is on its way goes into the next, all in one: the disk's sync is paid
//! once for all of them.

use std::sync::Arc;
use std::time::Duration;

use ninefold::lifecycle::Stop;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;

use super::Shared;
use super::apply::Changes;
use super::disk::Trouble;
use super::feed::Committed;
use crate::Error;
use crate::model::{LeaseId, Outcome, Txn};

/// Most pieces of work in one commit.
const COMMIT_WORKS_MAX: usize = 256;
/// Most leases ended by the clock in one go.
const EXPIRY_LEASES_MAX: usize = 128;
/// How long to wait before ending leases again when the disk fails.
const EXPIRY_PAUSE: Duration = Duration::from_secs(1);

/// A piece of work.
#[derive(Debug)]
pub(super) enum Work {
    Txn(Txn),
    Grant(Duration),
    Revoke(LeaseId),
    /// As `Revoke`, if the lease's time is up when its turn comes.
    Expire(LeaseId),
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Done {
    Txn(Outcome),
    Granted(LeaseId, Duration),
    Ended(LeaseId),
    /// Somebody kept it alive meanwhile.
    Kept,
}

/// A piece of work in the queue.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) work: Work,
    pub(super) reply: oneshot::Sender<Result<Done, Error>>,
    /// Its share of the memory that the queue may hold.
    pub(super) room: OwnedSemaphorePermit,
}

/// Writes until the scope stops and the queue is empty, then closes the file.
pub(super) async fn run(shared: Arc<Shared>, mut queue: mpsc::Receiver<Request>, stop: Stop) {
    loop {
        let mut requests = Vec::with_capacity(COMMIT_WORKS_MAX);
        tokio::select! {
            biased;
            () = stop.asked(), if !queue.is_closed() => {
                queue.close();
                continue;
            }
            // Cancel safe: what it took would be in `requests`, and it takes nothing before it is ready.
            taken = queue.recv_many(&mut requests, COMMIT_WORKS_MAX) => {
                if taken == 0 {
                    break;
                }
            }
        }
        let worker = shared.clone();
        super::blocking(move || worker.commit_all(requests)).await;
    }
    super::blocking(move || shared.disk.close()).await;
}

/// Ends leases whose time is up.
pub(super) async fn expire(shared: Arc<Shared>, queue: super::Queue, stop: Stop) {
    loop {
        let due = tokio::select! {
            () = stop.asked() => return,
            due = shared.deadlines.due(EXPIRY_LEASES_MAX) => due,
        };
        let ends = futures_util::future::join_all(due.into_iter().map(|lease| queue.submit(0, Work::Expire(lease))));
        for end in ends.await {
            match end {
                Ok(_) => {}
                Err(Error::Closed) => return,
                Err(error) => {
                    tracing::warn!(error = %ninefold::fault::chain(&error), "leases cannot be ended; will try again");
                    tokio::time::sleep(EXPIRY_PAUSE).await;
                    break;
                }
            }
        }
    }
}

impl Shared {
    /// Does all the work in one commit and answers. Blocks.
    fn commit_all(&self, requests: Vec<Request>) {
        let commit = self.disk.with(
            |found| self.found(&found),
            |database| {
                let write = database.begin_write()?;
                let mut changes = Changes::begin(&write)?;
                let mut done = Vec::with_capacity(requests.len());
                for request in &requests {
                    done.push(self.apply(&mut changes, &request.work)?);
                }
                let committed = changes.finish(self.history)?;
                // Durable when it returns: immediate durability is redb's default.
                write.commit()?;
                Ok((done, committed))
            },
        );
        match commit {
            Ok((done, committed)) => self.answer(requests, done, committed),
            Err(trouble) => self.refuse(requests, &trouble),
        }
    }

    fn apply(&self, changes: &mut Changes<'_>, work: &Work) -> Result<Result<Done, Error>, redb::Error> {
        match work {
            Work::Txn(txn) => Ok(changes.txn(txn)?.map(Done::Txn)),
            Work::Grant(ttl) => Ok(Ok(Done::Granted(changes.grant(*ttl)?, *ttl))),
            Work::Expire(lease) if !self.deadlines.expire(*lease, Instant::now()) => Ok(Ok(Done::Kept)),
            Work::Revoke(lease) | Work::Expire(lease) => {
                changes.revoke(*lease)?;
                Ok(Ok(Done::Ended(*lease)))
            }
        }
    }

    /// Watches hear of it first, then the callers: who reads after an answer finds nothing older anywhere.
    fn answer(&self, requests: Vec<Request>, done: Vec<Result<Done, Error>>, committed: Vec<Committed>) {
        self.feed.publish(committed);
        for (request, done) in requests.into_iter().zip(done) {
            match &done {
                Ok(Done::Granted(lease, ttl)) => self.deadlines.start(*lease, *ttl, Instant::now()),
                Ok(Done::Ended(lease)) => self.deadlines.end(*lease),
                Ok(Done::Txn(_) | Done::Kept) | Err(_) => {}
            }
            // The caller may have gone; the change stands.
            let _ = request.reply.send(done);
            drop(request.room);
        }
    }

    fn refuse(&self, requests: Vec<Request>, trouble: &Trouble) {
        for request in requests {
            let _ = request.reply.send(Err(self.disk.tell(trouble.clone())));
        }
    }
}
