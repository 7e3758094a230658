//! Samples on the disk before they are acknowledged: what many senders hand in at a time is written and synced together, then
//! put into memory.
//!
//! Whoever comes first writes for all who came meanwhile, on a thread that may block.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ninefold_promql::{Labels, Sample};
use tokio::sync::{Notify, oneshot};

use super::code::{decode_readings, encode_readings};
use super::disk::{Disk, Keep};
use super::store::Reading;
use super::{Metrics, Unkept};
use crate::durable::journal::{Frame, Journal, PAYLOAD_BYTES_MAX};
use crate::error::Error;

/// Most batches that wait to be written; beyond them senders are refused.
const WAITING_MAX: usize = 4096;
/// Bytes that are written and synced at a time.
const GROUP_BYTES: usize = 8 * 1024 * 1024;
/// How hard batches are packed: as fast as can be.
const ZSTD_LEVEL: i32 = 1;
/// What is added to a total that memory does not know is added to one on the disk that is not older than this, in
/// milliseconds.
const BEFORE_MILLIS: i64 = 2 * 3_600_000;

/// What keeps samples.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) disk: Disk,
    pub(crate) keep: Keep,
    /// Memory for what is in no file; beyond it senders are refused.
    pub(crate) unfiled_bytes_max: usize,
    /// Held while a frame is written and put into memory, so that whoever holds it knows that both say the same.
    pub(crate) journal: Mutex<Journal>,
    /// Bytes of frames since samples last went to a file.
    pub(crate) journal_bytes: Mutex<usize>,
    queue: Mutex<Queue>,
    /// Wakes whoever writes files.
    pub(crate) wake: Notify,
}

/// Batches that wait to be written.
#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Job>,
    is_led: bool,
}

#[derive(Debug)]
struct Job {
    readings: Vec<Reading>,
    payload: Vec<u8>,
    done: oneshot::Sender<Result<Unkept, Error>>,
}

impl Kept {
    /// Keeps samples in files and in a journal.
    pub(crate) fn new(disk: Disk, keep: Keep, unfiled_bytes_max: usize, journal: Journal) -> Self {
        Self {
            disk,
            keep,
            unfiled_bytes_max,
            journal: Mutex::new(journal),
            journal_bytes: Mutex::default(),
            queue: Mutex::default(),
            wake: Notify::new(),
        }
    }
}

/// A frame of the journal as readings. `None` if it is damaged in a way that its sum does not tell.
pub(crate) fn read(frame: &Frame) -> Option<Vec<Reading>> {
    let plain = zstd::zstd_safe::get_frame_content_size(&frame.payload).ok().flatten()?;
    let plain = usize::try_from(plain).ok().filter(|bytes| *bytes <= PAYLOAD_BYTES_MAX)?;
    decode_readings(&zstd::bulk::decompress(&frame.payload, plain).ok()?)
}

impl Metrics {
    /// Writes readings to the journal, then puts them into memory.
    ///
    /// # Errors
    /// [`Error::Overloaded`] where too much waits to be written, to the journal or to files; [`Error::Unwritable`].
    pub(super) async fn commit(self: &Arc<Self>, readings: Vec<Reading>) -> Result<Unkept, Error> {
        let Some(kept) = &self.kept else { return Ok(self.apply(readings)) };
        if readings.is_empty() {
            return Ok(Unkept::default());
        }
        if self.read().unfiled_bytes() > kept.unfiled_bytes_max {
            kept.wake.notify_one();
            return Err(Error::Overloaded);
        }
        let plain = encode_readings(&readings);
        let unwritable = |failure| Error::Unwritable(Arc::new(failure));
        let payload = zstd::bulk::compress(&plain, ZSTD_LEVEL).map_err(unwritable)?;
        let (done, told) = oneshot::channel();
        let leads = {
            let mut queue = lock(&kept.queue);
            if plain.len() > PAYLOAD_BYTES_MAX || queue.waiting.len() >= WAITING_MAX {
                return Err(Error::Overloaded);
            }
            queue.waiting.push_back(Job { readings, payload, done });
            !std::mem::replace(&mut queue.is_led, true)
        };
        if leads {
            let this = self.clone();
            tokio::task::spawn_blocking(move || this.lead());
        }
        told.await.map_err(|gone| Error::Unwritable(Arc::new(gone)))?
    }

    /// Writes until nothing waits.
    fn lead(&self) {
        let Some(kept) = &self.kept else { return };
        let _led = Led(kept);
        loop {
            let group = {
                let mut queue = lock(&kept.queue);
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
            self.settle(kept, group);
        }
    }

    fn settle(&self, kept: &Kept, group: Vec<Job>) {
        let payloads: Vec<&[u8]> = group.iter().map(|job| job.payload.as_slice()).collect();
        let bytes: usize = payloads.iter().map(|payload| payload.len()).sum();
        let mut journal = lock(&kept.journal);
        if let Err(failure) = journal.append(&payloads) {
            let failure: Arc<dyn std::error::Error + Send + Sync> = Arc::new(failure);
            for job in group {
                // Nobody waits where the sender went away.
                let _ = job.done.send(Err(Error::Unwritable(failure.clone())));
            }
            return;
        }
        *lock(&kept.journal_bytes) += bytes;
        for job in group {
            let _ = job.done.send(Ok(self.apply(job.readings)));
        }
        drop(journal);
        if self.read().unfiled_bytes() > kept.unfiled_bytes_max / 2 {
            kept.wake.notify_one();
        }
    }

    /// The last sample on the disk of a series that memory does not know.
    pub(super) fn before(&self, labels: &Labels, now: i64) -> Option<Sample> {
        self.kept.as_ref()?.disk.last(labels, now.saturating_sub(BEFORE_MILLIS))
    }
}

/// Lets another lead where this one was ended by a panic; those who waited are told by their closed channels.
struct Led<'a>(&'a Kept);

impl Drop for Led<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut queue = lock(&self.0.queue);
            queue.is_led = false;
            queue.waiting.clear();
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
