//! What this node sees of the landscape: the table and the events, shared by those who read them.
//!
//! Written by one task alone ([`crate::follow`]); the locks are held for a look, never across a wait.

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, SystemTime};

use ninefold_store::Revision;
use tokio::sync::watch;

use crate::events::{self, Log};
use crate::model::{Event, Instance};
use crate::table::{Moment, News, Step, Table};

/// What this node sees of the landscape.
#[derive(Debug)]
pub(crate) struct View {
    table: RwLock<Table>,
    events: Mutex<Log>,
    /// The present of `table`; says "look" to those who wait.
    pulse: watch::Sender<(Moment, Revision)>,
}

impl View {
    /// Begins with a reading of the store. What is there already is no event.
    pub(crate) fn new(revision: Revision, instances: Vec<Instance>, events_max: usize) -> Self {
        let mut table = Table::default();
        table.replace(revision, instances);
        let pulse = watch::Sender::new((table.moment(), table.revision()));
        Self { table: RwLock::new(table), events: Mutex::new(Log::new(events_max)), pulse }
    }

    /// The table, to look at.
    pub(crate) fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The events, to look at.
    pub(crate) fn events(&self) -> MutexGuard<'_, Log> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers what somebody saw.
    pub(crate) fn report(&self, event: Event) {
        self.events().push(event);
    }

    /// Takes in what happened up to a revision.
    pub(crate) fn apply(&self, revision: Revision, news: Vec<News>) -> Vec<Step> {
        self.change(|table| table.apply(revision, news))
    }

    /// Takes in a whole reading of the store.
    pub(crate) fn replace(&self, revision: Revision, instances: Vec<Instance>) -> Vec<Step> {
        self.change(|table| table.replace(revision, instances))
    }

    fn change(&self, change: impl FnOnce(&mut Table) -> Vec<Step>) -> Vec<Step> {
        let (steps, present) = {
            let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
            let steps = change(&mut table);
            (steps, (table.moment(), table.revision()))
        };
        let now = SystemTime::now();
        {
            let mut events = self.events();
            steps.iter().flat_map(|step| events::tell(step, now)).for_each(|event| events.push(event));
        }
        self.pulse.send_replace(present);
        steps
    }

    /// Wakes whenever the table has changed.
    pub(crate) fn pulse(&self) -> watch::Receiver<(Moment, Revision)> {
        self.pulse.subscribe()
    }

    /// Waits until the table has seen a revision, so that whoever is answered can read what it wrote; at most `within`,
    /// as the write itself is done already.
    pub(crate) async fn reached(&self, revision: Revision, within: Duration) {
        let mut pulse = self.pulse.subscribe();
        let reached = pulse.wait_for(|(_, seen)| *seen >= revision);
        let _ = tokio::time::timeout(within, reached).await;
    }
}
