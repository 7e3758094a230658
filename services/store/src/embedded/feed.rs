//! What watches are fed from: the last revisions in memory, the log behind them.
//!
//! A watch holds nothing but its place. It takes the next revisions when its reader asks, from memory if they are still
//! there, else from the log; so a slow reader costs nothing, and falls out only when the log has gone past it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use ninefold::lifecycle::Stop;
use tokio::sync::watch;

use super::Shared;
use super::disk::{self, Logged};
use crate::Error;
use crate::model::{Batch, Event, Key, Revision};

/// Most revisions, and most bytes of changes, kept in memory.
const RECENT_REVISIONS_MAX: usize = 1024;
const RECENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most revisions taken at once; and no more once so many bytes are taken.
const STEP_REVISIONS_MAX: usize = 256;
const STEP_BYTES: usize = 1024 * 1024;
/// What an event costs in memory beside its key and value, roughly.
const EVENT_BYTES: usize = 128;

/// The changes of one revision.
#[derive(Debug)]
pub(super) struct Committed {
    pub(super) revision: Revision,
    pub(super) events: Vec<Event>,
    /// Size in memory, roughly.
    pub(super) bytes: usize,
}

impl Committed {
    pub(super) fn new(revision: Revision, events: Vec<Event>) -> Self {
        let size = |event: &Event| {
            let value = match event {
                Event::Put(entry) => entry.value.len(),
                Event::Delete { .. } => 0,
            };
            EVENT_BYTES + event.key().as_str().len() + value
        };
        let bytes = events.iter().map(size).sum();
        Self { revision, events, bytes }
    }
}

/// The last revisions, without gaps, the youngest last.
#[derive(Debug, Default)]
struct Recent {
    revisions: VecDeque<Arc<Committed>>,
    bytes: usize,
}

/// The last revisions and the news of the next.
#[derive(Debug)]
pub(super) struct Feed {
    recent: Mutex<Recent>,
    head: watch::Sender<Revision>,
}

impl Feed {
    pub(super) fn new(head: Revision) -> Self {
        Self { recent: Mutex::default(), head: watch::Sender::new(head) }
    }

    /// Hands out what is committed, in order.
    pub(super) fn publish(&self, committed: Vec<Committed>) {
        let Some(last) = committed.last() else { return };
        let head = last.revision;
        {
            let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            for revision in committed {
                recent.bytes += revision.bytes;
                recent.revisions.push_back(Arc::new(revision));
            }
            while recent.revisions.len() > RECENT_REVISIONS_MAX || recent.bytes > RECENT_BYTES_MAX {
                let Some(oldest) = recent.revisions.pop_front() else { break };
                recent.bytes -= oldest.bytes;
            }
        }
        self.head.send_replace(head);
    }

    /// Begins anew at `head`, which was found in the file after a failure: a commit that seemed to fail may be in it.
    pub(super) fn restart(&self, head: Revision) {
        *self.recent.lock().unwrap_or_else(PoisonError::into_inner) = Recent::default();
        self.head.send_replace(head);
    }

    /// Some revisions after `after`, if memory has them. Empty when there are none.
    fn after(&self, after: Revision) -> Option<Vec<Arc<Committed>>> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = recent.revisions.front()?.revision;
        let skip = usize::try_from(after.0.checked_add(1)?.checked_sub(oldest.0)?).ok()?;
        let mut taken = 0;
        let next = recent.revisions.iter().skip(skip).take(STEP_REVISIONS_MAX).take_while(|committed| {
            let room = taken < STEP_BYTES;
            taken += committed.bytes;
            room
        });
        Some(next.cloned().collect())
    }
}

/// One watch.
pub(super) struct Follower {
    shared: Arc<Shared>,
    prefix: Key,
    at: Revision,
    /// Whether it has had a place in the history: then losing it means that the reader was too slow.
    placed: bool,
    head: watch::Receiver<Revision>,
    stop: Stop,
}

impl Follower {
    pub(super) fn new(shared: Arc<Shared>, prefix: Key, after: Revision, stop: Stop) -> Self {
        let head = shared.feed.head.subscribe();
        Self { shared, prefix, at: after, placed: false, head, stop }
    }

    /// Waits for the next changes; the state for those that follow is none after an error. Dropping loses nothing.
    pub(super) async fn next(mut self) -> (Result<Batch, Error>, Option<Self>) {
        loop {
            if self.stop.is_asked() {
                return (Err(Error::Closed), None);
            }
            // Marked as seen before the revisions are taken: what comes between wakes the wait below.
            let head = *self.head.borrow_and_update();
            if !self.placed || self.at < head {
                match self.step().await {
                    Ok(Some(batch)) => return (Ok(batch), Some(self)),
                    Ok(None) => continue,
                    Err(error) => return (Err(error), None),
                }
            }
            tokio::select! {
                () = self.stop.asked() => {}
                // The sender lives in `shared`, so this cannot fail.
                _ = self.head.changed() => {}
            }
        }
    }

    /// Takes some revisions and moves on past them. `None` when nothing in them is for this watch.
    async fn step(&mut self) -> Result<Option<Batch>, Error> {
        let next = match self.shared.feed.after(self.at) {
            Some(next) => next,
            None => self.step_from_log().await?,
        };
        self.placed = true;
        let Some(last) = next.last() else { return Ok(None) };
        self.at = last.revision;
        let mine = |event: &&Event| event.key().as_str().starts_with(self.prefix.as_str());
        let events: Vec<_> = next.iter().flat_map(|committed| &committed.events).filter(mine).cloned().collect();
        Ok((!events.is_empty()).then_some(Batch { revision: self.at, events }))
    }

    async fn step_from_log(&self) -> Result<Vec<Arc<Committed>>, Error> {
        let at = self.at;
        let logged =
            self.shared.read(move |database| disk::log_after(database, at, STEP_REVISIONS_MAX, STEP_BYTES)).await?;
        match logged {
            Logged::Next(next) => Ok(next.into_iter().map(Arc::new).collect()),
            Logged::Compacted if self.placed => Err(Error::Lagged { at }),
            Logged::Compacted => Err(Error::Compacted { after: at }),
        }
    }
}
