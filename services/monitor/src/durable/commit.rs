//! Acknowledgement: what many senders hand in at a time is written and synced together, then put into memory.
//!
//! Whoever comes first writes for all who came meanwhile, on a thread that may block. It is not stopped halfway when its
//! sender goes away: what is in the journal is in memory too.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use super::batch::Batch;
use super::journal::PAYLOAD_BYTES_MAX;
use super::state::{State, lock};
use crate::error::Error;

/// Most batches that wait to be written; beyond them senders are refused.
const WAITING_MAX: usize = 4096;
/// Bytes that are written and synced at a time.
const GROUP_BYTES: usize = 8 * 1024 * 1024;

/// Batches that wait to be written.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: VecDeque<Job>,
    is_led: bool,
}

#[derive(Debug)]
struct Job {
    batch: Batch,
    payload: Vec<u8>,
    bytes: usize,
    done: oneshot::Sender<Result<(), Error>>,
}

impl State {
    /// Takes records in, where no more than so many bytes are unfiled then; they are on the disk and seen by every question
    /// when this returns.
    ///
    /// # Errors
    /// [`Error::Overloaded`] where too much waits to be written, to the journal or to files; [`Error::Unwritable`]. Then
    /// none of them is kept.
    pub(crate) async fn append(self: &Arc<Self>, batch: Batch, up_to: usize) -> Result<(), Error> {
        if batch.len() == 0 {
            return Ok(());
        }
        let bytes = batch.bytes();
        // What is refused is never counted, not even for a moment: it would keep out what fits.
        let up_to = up_to.min(self.config.unfiled_bytes_max);
        let fits = |before: usize| Some(before.saturating_add(bytes)).filter(|after| before == 0 || *after <= up_to);
        let outcome = match self.unfiled_bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits) {
            Ok(_) => self.write(batch, bytes).await,
            Err(_) => Err(Error::Overloaded),
        };
        if outcome.is_err() {
            self.wake.notify_one();
        }
        outcome
    }

    async fn write(self: &Arc<Self>, batch: Batch, bytes: usize) -> Result<(), Error> {
        let payload = batch.encode();
        let (done, told) = oneshot::channel();
        let leads = {
            let mut queue = lock(&self.queue);
            if payload.len() > PAYLOAD_BYTES_MAX || queue.waiting.len() >= WAITING_MAX {
                self.unfiled_bytes.fetch_sub(bytes, Ordering::AcqRel);
                return Err(Error::Overloaded);
            }
            queue.waiting.push_back(Job { batch, payload, bytes, done });
            !std::mem::replace(&mut queue.is_led, true)
        };
        if leads {
            let state = self.clone();
            tokio::task::spawn_blocking(move || state.lead());
        }
        told.await.map_err(|gone| Error::Unwritable(Arc::new(gone)))?
    }

    /// Writes until nothing waits.
    fn lead(&self) {
        let _led = Led(self);
        loop {
            let group = {
                let mut queue = lock(&self.queue);
                let mut bytes = 0;
                let mut group = Vec::new();
                while bytes < GROUP_BYTES
                    && let Some(job) = queue.waiting.pop_front()
                {
                    bytes += job.payload.len();
                    group.push(job);
                }
                if group.is_empty() {
                    queue.is_led = false;
                    return;
                }
                group
            };
            self.commit(group);
        }
    }

    fn commit(&self, group: Vec<Job>) {
        let payloads: Vec<&[u8]> = group.iter().map(|job| job.payload.as_slice()).collect();
        let (first, outcome) = {
            let mut journal = lock(&self.journal);
            let first = journal.next();
            let appended = match self.is_held() {
                true => journal.append(&payloads),
                false => Err(std::io::Error::other("another process has the folder")),
            };
            (first, appended)
        };
        match outcome {
            Ok(()) => {
                self.trouble.is_over();
                for (number, job) in (first..).zip(group) {
                    self.apply(job.batch, number);
                    // Nobody waits where the sender went away.
                    let _ = job.done.send(Ok(()));
                }
            }
            Err(failure) => {
                self.trouble.is(&failure);
                let failure: Arc<dyn std::error::Error + Send + Sync> = Arc::new(failure);
                for job in group {
                    self.unfiled_bytes.fetch_sub(job.bytes, Ordering::AcqRel);
                    let _ = job.done.send(Err(Error::Unwritable(failure.clone())));
                }
            }
        }
    }
}

/// Lets another lead where this one was ended by a panic; those who waited are told by their closed channels.
struct Led<'a>(&'a State);

impl Drop for Led<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut queue = lock(&self.0.queue);
            queue.is_led = false;
            let lost: usize = queue.waiting.drain(..).map(|job| job.bytes).sum();
            self.0.unfiled_bytes.fetch_sub(lost, Ordering::AcqRel);
        }
    }
}
