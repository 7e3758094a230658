//! A store in memory, that can be made to fail. Its time is tokio's, so a test can hold it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use ninefold_store::{Batch, Compare, Entry, Error, Event, Key, LeaseId, Op, Outcome, Ranged, Revision, Store, Txn};
use tokio::sync::watch;
use tokio::time::Instant;

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<Key, Entry>,
    history: Vec<Batch>,
    compacted: Revision,
    revision: Revision,
    leases: BTreeMap<LeaseId, (Duration, Instant)>,
    /// The last lease that was granted: as in every store, none is granted twice, or one that ran out would be kept alive
    /// by whoever still believes in it.
    granted: i64,
    is_away: bool,
    /// Whether watches tell nothing.
    is_deaf: bool,
    /// Counts how often all watches were lost.
    lost: u64,
}

/// A store in memory. Clones are the same store.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    state: Arc<Mutex<State>>,
    pulse: Arc<watch::Sender<u64>>,
}

fn away() -> Error {
    Error::Unavailable { what: "it is away".to_owned(), source: None }
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self { state: Arc::default(), pulse: Arc::new(watch::Sender::new(0)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds the lock")
    }

    /// Makes every call fail, and ends all watches; or makes it work again.
    pub(crate) fn set_away(&self, is_away: bool) {
        self.lock().is_away = is_away;
        self.pulse.send_modify(|count| *count += 1);
    }

    /// Keeps all watches silent, while everything else works; or lets them tell again.
    pub(crate) fn set_deaf(&self, is_deaf: bool) {
        self.lock().is_deaf = is_deaf;
        self.pulse.send_modify(|count| *count += 1);
    }

    /// Forgets all history, and ends all watches as etcd does.
    pub(crate) fn compact(&self) {
        let mut state = self.lock();
        state.compacted = state.revision;
        state.history.clear();
        drop(state);
        self.pulse.send_modify(|count| *count += 1);
    }

    /// Ends all watches, as a store does with readers that are too slow.
    pub(crate) fn lose_watches(&self) {
        self.lock().lost += 1;
        self.pulse.send_modify(|count| *count += 1);
    }

    /// Ends all leases at once.
    pub(crate) fn end_leases(&self) {
        let mut state = self.lock();
        state.leases.values_mut().for_each(|(_, end)| *end = Instant::now());
        expire(&mut state);
        drop(state);
        self.pulse.send_modify(|count| *count += 1);
    }

    pub(crate) fn leases(&self) -> usize {
        self.lock().leases.len()
    }

    fn state(&self) -> Result<MutexGuard<'_, State>, Error> {
        let mut state = self.lock();
        if state.is_away {
            return Err(away());
        }
        if expire(&mut state) {
            self.pulse.send_modify(|count| *count += 1);
        }
        Ok(state)
    }
}

fn expire(state: &mut State) -> bool {
    let now = Instant::now();
    let ended: Vec<LeaseId> = state.leases.iter().filter(|(_, (_, end))| *end <= now).map(|(id, _)| *id).collect();
    state.leases.retain(|_, (_, end)| *end > now);
    let ops: Vec<Op> = state
        .entries
        .values()
        .filter(|entry| entry.lease.is_some_and(|lease| ended.contains(&lease)))
        .map(|entry| Op::Delete(entry.key.clone()))
        .collect();
    change(state, ops);
    !ended.is_empty()
}

fn change(state: &mut State, ops: Vec<Op>) {
    let revision = Revision(state.revision.0 + 1);
    let mut events = Vec::new();
    for op in ops {
        match op {
            Op::Put { key, value, lease } => {
                let created = state.entries.get(&key).map_or(revision, |entry| entry.created);
                let entry = Entry { key: key.clone(), value, created, modified: revision, lease };
                state.entries.insert(key, entry.clone());
                events.push(Event::Put(entry));
            }
            Op::Delete(key) => {
                if state.entries.remove(&key).is_some() {
                    events.push(Event::Delete { key, revision });
                }
            }
            Op::DeletePrefix(_) => unreachable!("the registry deletes key by key"),
        }
    }
    if !events.is_empty() {
        state.revision = revision;
        state.history.push(Batch { revision, events });
    }
}

#[tonic::async_trait]
impl Store for Memory {
    async fn range(&self, prefix: &Key, after: Option<&Key>, limit: usize) -> Result<Ranged, Error> {
        let state = self.state()?;
        let mut entries: Vec<Entry> = state
            .entries
            .values()
            .filter(|entry| entry.key.as_str().starts_with(prefix.as_str()) && after.is_none_or(|key| entry.key > *key))
            .take(limit + 1)
            .cloned()
            .collect();
        let more = entries.len() > limit;
        entries.truncate(limit);
        Ok(Ranged { entries, revision: state.revision, more })
    }

    async fn get(&self, key: &Key) -> Result<Option<Entry>, Error> {
        Ok(self.state()?.entries.get(key).cloned())
    }

    async fn txn(&self, txn: Txn) -> Result<Outcome, Error> {
        let mut state = self.state()?;
        let committed = txn.compares.iter().all(|compare| match compare {
            Compare::Absent(key) => !state.entries.contains_key(key),
            Compare::Present(key) => state.entries.contains_key(key),
            Compare::Modified(key, revision) => state.entries.get(key).is_some_and(|entry| entry.modified == *revision),
            Compare::Created(key, revision) => state.entries.get(key).is_some_and(|entry| entry.created == *revision),
        });
        for op in &txn.ops {
            if let Op::Put { lease: Some(lease), .. } = op
                && !state.leases.contains_key(lease)
            {
                return Err(Error::LeaseUnknown(*lease));
            }
        }
        if committed {
            change(&mut state, txn.ops);
        }
        let outcome = Outcome { committed, revision: state.revision };
        drop(state);
        self.pulse.send_modify(|count| *count += 1);
        Ok(outcome)
    }

    async fn watch(&self, prefix: &Key, after: Revision) -> Result<BoxStream<'static, Result<Batch, Error>>, Error> {
        let lost = self.state()?.lost;
        let (store, prefix, pulse) = (self.clone(), prefix.clone(), self.pulse.subscribe());
        let watcher = Some((store, prefix, pulse, after));
        Ok(stream::unfold(watcher, move |watcher| async move {
            let (store, prefix, mut pulse, after) = watcher?;
            loop {
                pulse.mark_unchanged();
                match store.next(&prefix, after, lost) {
                    Ok(Some(batch)) => {
                        let after = batch.revision;
                        return Some((Ok(batch), Some((store, prefix, pulse, after))));
                    }
                    Ok(None) => {
                        // Leases end while nobody calls; look now and then.
                        let _ = tokio::time::timeout(Duration::from_millis(500), pulse.changed()).await;
                    }
                    Err(error) => return Some((Err(error), None)),
                }
            }
        })
        .boxed())
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, Error> {
        let mut state = self.state()?;
        state.granted += 1;
        let lease = LeaseId(state.granted);
        state.leases.insert(lease, (ttl, Instant::now() + ttl));
        Ok(lease)
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), Error> {
        let mut state = self.state()?;
        let (ttl, end) = state.leases.get_mut(&lease).ok_or(Error::LeaseUnknown(lease))?;
        *end = Instant::now() + *ttl;
        Ok(())
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), Error> {
        let mut state = self.state()?;
        if let Some((_, end)) = state.leases.get_mut(&lease) {
            *end = Instant::now();
        }
        expire(&mut state);
        Ok(())
    }
}

impl Memory {
    fn next(&self, prefix: &Key, after: Revision, lost: u64) -> Result<Option<Batch>, Error> {
        let state = self.state()?;
        if state.is_deaf {
            return Ok(None);
        }
        if lost != state.lost {
            return Err(Error::Lagged { at: after });
        }
        if after < state.compacted {
            return Err(Error::Compacted { after });
        }
        let first = state.history.partition_point(|batch| batch.revision <= after);
        Ok(state.history[first..].iter().find_map(|batch| {
            let is_mine = |event: &&Event| match event {
                Event::Put(entry) => entry.key.as_str().starts_with(prefix.as_str()),
                Event::Delete { key, .. } => key.as_str().starts_with(prefix.as_str()),
            };
            let events: Vec<Event> = batch.events.iter().filter(is_mine).cloned().collect();
            (!events.is_empty()).then_some(Batch { revision: batch.revision, events })
        }))
    }
}
