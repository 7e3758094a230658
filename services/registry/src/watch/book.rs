//! Who watches: whom to wake when a service changes, and how far each has got.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use ninefold_store::Revision;
use tokio::sync::{Notify, futures::Notified};
use tokio::time::Instant;

use crate::model::{Interest, Namespace, ServiceKey, ServiceName};

/// Who watches through this node.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pages: Arc<Mutex<Pages>>,
    /// Told when somebody acknowledges, or leaves.
    moved: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Pages {
    last: u64,
    cards: BTreeMap<u64, Arc<Card>>,
    /// Those that follow everything.
    all: BTreeMap<u64, Arc<Card>>,
    /// Those that follow everything of a namespace.
    within: HashMap<Namespace, BTreeMap<u64, Arc<Card>>>,
    named: HashMap<ServiceKey, BTreeMap<u64, Arc<Card>>>,
    /// Those that want to hear of the policy alone: sessions.
    listening: HashMap<ServiceName, BTreeMap<u64, Arc<Notify>>>,
}

/// Waits for changes of a service's policy; gone when dropped.
#[derive(Debug)]
pub(crate) struct Listening {
    pages: Arc<Mutex<Pages>>,
    id: u64,
    service: ServiceName,
    wake: Arc<Notify>,
}

impl Listening {
    /// Waits until the policy has changed since the last time. Cancel safe.
    pub(crate) fn woken(&self) -> Notified<'_> {
        self.wake.notified()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut pages = lock(&self.pages);
        if let Some(listening) = pages.listening.get_mut(&self.service) {
            listening.remove(&self.id);
            if listening.is_empty() {
                pages.listening.remove(&self.service);
            }
        }
    }
}

/// How many of those who follow a service have taken in a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    /// So many have.
    pub(crate) at: usize,
    /// Of so many that acknowledge.
    pub(crate) of: usize,
}

/// What a group of watchers follows.
#[derive(Clone, Debug)]
pub(crate) enum Follows {
    /// Everything.
    All,
    /// Everything of a namespace.
    Within(Namespace),
    /// One service, among others.
    Named(ServiceKey),
}

/// One who watches.
#[derive(Debug)]
struct Card {
    id: u64,
    who: String,
    interest: Interest,
    started: SystemTime,
    acknowledges: bool,
    wake: Notify,
    sent: AtomicI64,
    acknowledged: AtomicI64,
    /// Since when there is something sent that is not acknowledged.
    behind: Mutex<Option<Instant>>,
    snapshots: AtomicU64,
    deltas: AtomicU64,
}

/// What is known of one who watches.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    pub(crate) id: u64,
    pub(crate) who: String,
    pub(crate) interest: Interest,
    pub(crate) started: SystemTime,
    pub(crate) acknowledges: bool,
    pub(crate) sent: Revision,
    pub(crate) acknowledged: Revision,
    /// How long it owes an acknowledgement.
    pub(crate) lag: Option<Duration>,
    pub(crate) snapshots: u64,
    pub(crate) deltas: u64,
}

/// A watcher's entry in the book; gone when dropped.
#[derive(Debug)]
pub(crate) struct Enrolled {
    pages: Arc<Mutex<Pages>>,
    moved: Arc<Notify>,
    card: Arc<Card>,
}

fn lock(pages: &Mutex<Pages>) -> MutexGuard<'_, Pages> {
    pages.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Book {
    /// Writes a watcher down.
    pub(crate) fn enrol(&self, who: String, interest: Interest, acknowledges: bool) -> Enrolled {
        let mut pages = lock(&self.pages);
        pages.last += 1;
        let card = Arc::new(Card {
            id: pages.last,
            who,
            interest,
            started: SystemTime::now(),
            acknowledges,
            wake: Notify::new(),
            sent: AtomicI64::new(0),
            acknowledged: AtomicI64::new(0),
            behind: Mutex::new(None),
            snapshots: AtomicU64::new(0),
            deltas: AtomicU64::new(0),
        });
        pages.cards.insert(card.id, card.clone());
        match &card.interest {
            Interest::All => _ = pages.all.insert(card.id, card.clone()),
            Interest::Within(namespace) => {
                pages.within.entry(namespace.clone()).or_default().insert(card.id, card.clone());
            }
            Interest::Named(names) => {
                for name in names {
                    pages.named.entry(name.clone()).or_default().insert(card.id, card.clone());
                }
            }
        }
        drop(pages);
        self.moved.notify_waiters();
        Enrolled { pages: self.pages.clone(), moved: self.moved.clone(), card }
    }

    /// How many watch.
    pub(crate) fn len(&self) -> usize {
        lock(&self.pages).cards.len()
    }

    /// Wakes those who follow one of the services.
    pub(crate) fn wake<'a>(&self, services: impl IntoIterator<Item = &'a ServiceKey>) {
        let pages = lock(&self.pages);
        let mut last: Option<&ServiceKey> = None;
        for service in services {
            if last.is_none() {
                pages.all.values().for_each(|card| card.wake.notify_one());
            }
            if last.is_none_or(|last| last.namespace != service.namespace) {
                let within = pages.within.get(&service.namespace).into_iter();
                within.flat_map(BTreeMap::values).for_each(|card| card.wake.notify_one());
            }
            if last != Some(service) {
                pages.named.get(service).into_iter().flat_map(BTreeMap::values).for_each(|card| card.wake.notify_one());
            }
            last = Some(service);
        }
    }

    /// Wakes those who follow services of a name, in whatever namespace.
    pub(crate) fn wake_by_name(&self, name: &ServiceName) {
        let pages = lock(&self.pages);
        pages.cards.values().filter(|card| card.interest.covers_name(name)).for_each(|card| card.wake.notify_one());
    }

    /// Listens for changes of a service's policy.
    pub(crate) fn listen(&self, service: &ServiceName) -> Listening {
        let mut pages = lock(&self.pages);
        pages.last += 1;
        let (id, wake) = (pages.last, Arc::new(Notify::new()));
        pages.listening.entry(service.clone()).or_default().insert(id, wake.clone());
        Listening { pages: self.pages.clone(), id, service: service.clone(), wake }
    }

    /// Wakes those who listen for a service's policy.
    pub(crate) fn wake_listening(&self, service: &ServiceName) {
        let pages = lock(&self.pages);
        pages.listening.get(service).into_iter().flat_map(BTreeMap::values).for_each(|wake| wake.notify_one());
    }

    /// Wakes everybody who watches.
    pub(crate) fn wake_all(&self) {
        lock(&self.pages).cards.values().for_each(|card| card.wake.notify_one());
    }

    /// How many of those who follow a service, or of those who follow everything, have taken in a revision. Only those who
    /// acknowledge count.
    pub(crate) fn acknowledged(&self, service: Option<&ServiceKey>, revision: Revision) -> Count {
        let pages = lock(&self.pages);
        let named = service.and_then(|service| pages.named.get(service)).into_iter().flat_map(BTreeMap::values);
        let within = service.and_then(|service| pages.within.get(&service.namespace));
        let within = within.into_iter().flat_map(BTreeMap::values);
        let mut count = Count { at: 0, of: 0 };
        for card in pages.all.values().chain(within).chain(named).filter(|card| card.acknowledges) {
            count.of += 1;
            count.at += usize::from(card.acknowledged.load(Ordering::Relaxed) >= revision.0);
        }
        count
    }

    /// Waits until somebody acknowledges, comes or leaves, or another node tells of its watchers.
    pub(crate) fn moved(&self) -> Notified<'_> {
        self.moved.notified()
    }

    /// Wakes those who wait for acknowledgements: there is news of another node's.
    pub(crate) fn count_again(&self) {
        self.moved.notify_waiters();
    }

    /// What those who acknowledge have acknowledged, by what they follow.
    pub(crate) fn groups(&self) -> Vec<(Follows, Vec<i64>)> {
        let pages = lock(&self.pages);
        let told = |cards: &BTreeMap<u64, Arc<Card>>| -> Vec<i64> {
            let told = cards.values().filter(|card| card.acknowledges);
            told.map(|card| card.acknowledged.load(Ordering::Relaxed)).collect()
        };
        let within = pages.within.iter().map(|(name, cards)| (Follows::Within(name.clone()), told(cards)));
        let named = pages.named.iter().map(|(name, cards)| (Follows::Named(name.clone()), told(cards)));
        let all = std::iter::once((Follows::All, told(&pages.all)));
        all.chain(within).chain(named).filter(|(_, told)| !told.is_empty()).collect()
    }

    /// At most `limit` of those who follow a service, or of all, by id, behind the id `after`.
    pub(crate) fn page(&self, service: Option<&ServiceKey>, after: Option<u64>, limit: usize) -> Vec<Seat> {
        let pages = lock(&self.pages);
        let first = after.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = pages.cards.range((first, Bound::Unbounded)).map(|(_, card)| card);
        let wanted = behind.filter(|card| service.is_none_or(|service| card.interest.covers(service)));
        wanted.take(limit).map(|card| card.seat()).collect()
    }
}

impl Card {
    fn seat(&self) -> Seat {
        Seat {
            id: self.id,
            who: self.who.clone(),
            interest: self.interest.clone(),
            started: self.started,
            acknowledges: self.acknowledges,
            sent: Revision(self.sent.load(Ordering::Relaxed)),
            acknowledged: Revision(self.acknowledged.load(Ordering::Relaxed)),
            lag: self.behind.lock().unwrap_or_else(PoisonError::into_inner).map(|since| since.elapsed()),
            snapshots: self.snapshots.load(Ordering::Relaxed),
            deltas: self.deltas.load(Ordering::Relaxed),
        }
    }
}

impl Enrolled {
    /// Number of the watch.
    pub(crate) fn id(&self) -> u64 {
        self.card.id
    }

    /// What is followed.
    pub(crate) fn interest(&self) -> &Interest {
        &self.card.interest
    }

    /// Waits until something that is followed has changed since the last time. Cancel safe.
    pub(crate) fn woken(&self) -> Notified<'_> {
        self.card.wake.notified()
    }

    /// Notes that the watcher was sent news.
    pub(crate) fn sent(&self, revision: Revision, is_snapshot: bool) {
        let card = &self.card;
        let counter = if is_snapshot { &card.snapshots } else { &card.deltas };
        counter.fetch_add(1, Ordering::Relaxed);
        card.sent.store(revision.0, Ordering::Relaxed);
        if card.acknowledges {
            card.behind.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
        }
    }

    /// Notes that the watcher has taken in everything up to a revision; what it was never sent does not count.
    pub(crate) fn acknowledged(&self, revision: Revision) {
        let card = &self.card;
        let sent = card.sent.load(Ordering::Relaxed);
        card.acknowledged.fetch_max(revision.0.min(sent), Ordering::Relaxed);
        if revision.0 >= sent {
            *card.behind.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        self.moved.notify_waiters();
    }
}

impl Drop for Enrolled {
    fn drop(&mut self) {
        let mut pages = lock(&self.pages);
        let id = self.card.id;
        pages.cards.remove(&id);
        pages.all.remove(&id);
        if let Interest::Within(namespace) = &self.card.interest
            && let Some(cards) = pages.within.get_mut(namespace)
        {
            cards.remove(&id);
            if cards.is_empty() {
                pages.within.remove(namespace);
            }
        }
        if let Interest::Named(names) = &self.card.interest {
            for name in names {
                if let Some(cards) = pages.named.get_mut(name) {
                    cards.remove(&id);
                    if cards.is_empty() {
                        pages.named.remove(name);
                    }
                }
            }
        }
        drop(pages);
        self.moved.notify_waiters();
    }
}
