//! Follows the table for one watcher: a snapshot, then what changed since it last looked.
//!
//! A watcher is asked for nothing and has no queue: when its transport has room, it looks again. However slow it is, it
//! costs the memory of one moment.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream};
use ninefold::lifecycle::Stop;
use ninefold_store::Revision;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::Error;
use crate::model::{Instance, Interest};
use crate::session::Place;
use crate::table::{Changes, Moment};
use crate::view::View;

/// What a watcher is told.
#[derive(Debug)]
pub(crate) enum Told {
    /// All there is.
    Snapshot(Vec<Arc<Instance>>, Revision),
    /// What changed.
    Delta(Changes, Revision),
    /// Nothing new.
    Heartbeat(Revision),
}

/// How a watcher is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// How long changes are gathered.
    pub(crate) gather: Duration,
    /// How often a silent watch says that it lives.
    pub(crate) heartbeat: Duration,
}

struct Watcher {
    view: Arc<View>,
    interest: Interest,
    pace: Pace,
    pulse: watch::Receiver<(Moment, Revision)>,
    /// What the watcher knows; `None` before the first snapshot.
    knows: Option<Moment>,
    stop: Stop,
    _place: Place,
}

/// Follows the instances of `interest`. Ends with [`Error::Stopping`] when the node stops. Dropping it ends the watch.
pub(crate) fn watch(
    view: Arc<View>,
    interest: Interest,
    pace: Pace,
    place: Place,
    stop: Stop,
) -> impl Stream<Item = Result<Told, Error>> {
    let pulse = view.pulse();
    let watcher = Watcher { view, interest, pace, pulse, knows: None, stop, _place: place };
    stream::unfold(Some(watcher), |watcher| async move {
        let mut watcher = watcher?;
        let stop = watcher.stop.clone();
        tokio::select! {
            biased;
            () = stop.asked() => Some((Err(Error::Stopping), None)),
            told = watcher.next() => Some((Ok(told), Some(watcher))),
        }
    })
}

impl Watcher {
    async fn next(&mut self) -> Told {
        let heartbeat = Instant::now() + self.pace.heartbeat;
        loop {
            if let Some(knows) = self.knows {
                let is_late = tokio::select! {
                    // The sender lives in the view, which this holds; it cannot be gone.
                    _ = self.pulse.wait_for(|(moment, _)| *moment != knows) => false,
                    () = tokio::time::sleep_until(heartbeat) => true,
                };
                if is_late {
                    return self.look().unwrap_or_else(Told::Heartbeat);
                }
                tokio::time::sleep(self.pace.gather).await;
            }
            if let Ok(told) = self.look() {
                return told;
            }
        }
    }

    /// What is new to the watcher; if nothing is, up to which revision it is right.
    fn look(&mut self) -> Result<Told, Revision> {
        let table = self.view.table();
        let revision = table.revision();
        let changes = self.knows.map(|knows| table.since(knows, &self.interest));
        self.knows = Some(table.moment());
        match changes {
            None | Some(None) => Ok(Told::Snapshot(table.snapshot(&self.interest), revision)),
            Some(Some(changes)) if changes.is_empty() => Err(revision),
            Some(Some(changes)) => Ok(Told::Delta(changes, revision)),
        }
    }
}
