//! Follows the view for one watcher: a snapshot, or what changed since the watcher was last right, then what changes.
//!
//! A watcher has no queue: when its transport has room, and something that it follows has changed, it looks again. However
//! slow it is, it costs the memory of one moment.

mod book;
mod door;
mod frame;

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream, Stream, StreamExt as _};
use ninefold::lifecycle::Stop;
use ninefold_store::Revision;
use tokio::time::Instant;

pub(crate) use book::{Book, Count, Enrolled, Follows, Listening, Seat};
pub(crate) use door::Door;
pub(crate) use frame::Frame;

use crate::error::Error;
use crate::session::Place;
use crate::view::{Knows, Look, View};
use crate::wire;

/// So many watchers are told of a change at the usual pace; more at a slower one.
const CROWD: usize = 1000;
/// How many times slower at the most.
const SLOWER_MAX: usize = 10;

/// How a watcher is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// How long changes are gathered after the one before was told. The first after a silence is told at once.
    pub(crate) gather: Duration,
    /// How often a silent watch says that it lives.
    pub(crate) heartbeat: Duration,
}

/// What a watcher has taken in, as it says.
pub(crate) type Acknowledgements = BoxStream<'static, Revision>;

/// One who watches.
pub(crate) struct Watcher {
    pub(crate) view: Arc<View>,
    pub(crate) enrolled: Enrolled,
    pub(crate) pace: Pace,
    /// Up to which revision the watcher says that it is right.
    pub(crate) resumes: Option<Revision>,
    pub(crate) acknowledgements: Acknowledgements,
    pub(crate) stop: Stop,
    /// Free again when the watch ends.
    pub(crate) _place: Place,
}

struct Following {
    watcher: Watcher,
    /// What the watcher knows; `None` before the first snapshot.
    knows: Option<Knows>,
    told: Option<Instant>,
}

/// Follows for a watcher. Ends with [`Error::Stopping`] when the node stops. Dropping it ends the watch.
pub(crate) fn watch(watcher: Watcher) -> impl Stream<Item = Result<Frame, Error>> {
    let knows = watcher.resumes.and_then(|revision| watcher.view.known_at(revision));
    let following = Following { watcher, knows, told: None };
    stream::unfold(Some(following), |following| async move {
        let mut following = following?;
        let stop = following.watcher.stop.clone();
        tokio::select! {
            biased;
            () = stop.asked() => Some((Err(Error::Stopping), None)),
            frame = following.next() => Some((Ok(frame), Some(following))),
        }
    })
}

impl Following {
    async fn next(&mut self) -> Frame {
        let Some(told) = self.told else {
            let look = self.look();
            return self.tell(look);
        };
        let heartbeat = told + self.watcher.pace.heartbeat;
        while self.is_woken_before(heartbeat).await {
            self.hear_until(told + self.spacing()).await;
            let look = self.look();
            if !look.is_empty() {
                return self.tell(look);
            }
            // Somebody woke it for what it was told already.
            self.knows = Some(look.knows);
        }
        let look = self.look();
        self.tell(look)
    }

    /// Waits for a change; tells whether one came in time.
    async fn is_woken_before(&mut self, end: Instant) -> bool {
        let Watcher { enrolled, acknowledgements, .. } = &mut self.watcher;
        let mut woken = std::pin::pin!(enrolled.woken());
        loop {
            tokio::select! {
                () = &mut woken => return true,
                () = tokio::time::sleep_until(end) => return false,
                Some(revision) = acknowledgements.next() => enrolled.acknowledged(revision),
            }
        }
    }

    async fn hear_until(&mut self, end: Instant) {
        let Watcher { enrolled, acknowledgements, .. } = &mut self.watcher;
        while Instant::now() < end {
            tokio::select! {
                () = tokio::time::sleep_until(end) => return,
                Some(revision) = acknowledgements.next() => enrolled.acknowledged(revision),
            }
        }
    }

    /// Least time between two messages of news: a crowd is told more at a time.
    fn spacing(&self) -> Duration {
        let crowd = (self.watcher.view.watchers().len() / CROWD).clamp(1, SLOWER_MAX);
        self.watcher.pace.gather * u32::try_from(crowd).unwrap_or(1)
    }

    fn look(&self) -> Look {
        self.watcher.view.look(self.knows, self.watcher.enrolled.interest())
    }

    fn tell(&mut self, look: Look) -> Frame {
        let enrolled = &self.watcher.enrolled;
        let is_first = self.told.is_none();
        if is_first || !look.is_empty() {
            enrolled.sent(look.revision, look.is_snapshot);
        }
        self.knows = Some(look.knows);
        self.told = Some(Instant::now());
        let watch_id = if is_first { enrolled.id().to_string() } else { String::new() };
        wire::to_frame(look, &watch_id, self.watcher.view.is_authoritative())
    }
}
