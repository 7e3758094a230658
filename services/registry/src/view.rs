//! What this node sees of the landscape: the table, the policies, the events, shared by those who read them.
//!
//! Written by the tasks that follow the store and central config; the locks are held for a look, never across a wait.

mod lane;
mod policies;
mod seen;

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, SystemTime};

use ninefold_store::Revision;
use tokio::sync::watch;
use tokio::time::Instant;

pub(crate) use seen::{Knows, Look, Piece};

use crate::events::{self, Log};
use crate::known::{Beginning, Kept};
use crate::model::{Event, EventKind, Interest, NAMESPACE_DEFAULT, Policy, REGISTRY, ServiceKey, ServiceName};
use crate::roll::{self, Group, Roll};
use crate::table::{Moment, News, Now, Step, Table};
use crate::watch::{Book, Count, Follows};
use seen::Seen;

/// How often those who wait for acknowledgements count anew, at most.
const COUNT_EVERY: Duration = Duration::from_millis(2);

/// What this node sees of the landscape.
#[derive(Debug)]
pub(crate) struct View {
    seen: RwLock<Seen>,
    events: Mutex<Log>,
    /// The present of the table; says "look" to those who wait for a revision.
    pulse: watch::Sender<(Moment, Revision)>,
    /// Who watches, to be woken.
    book: Book,
    trust: Mutex<Trust>,
    /// Name of this node.
    own: String,
}

/// Whether what is not seen is surely not there.
#[derive(Clone, Debug)]
struct Trust {
    /// Before, those who live may not have had the time to come back.
    sure_from: Instant,
    /// How long that takes.
    warm_up: Duration,
    /// Why the store cannot be read, and since when, if it cannot.
    stale: Option<Stale>,
    /// Whether what is seen is only remembered: the store has not been read since the start.
    is_remembered: bool,
}

/// Why what is seen may be old.
#[derive(Clone, Debug)]
pub(crate) struct Stale {
    /// A sentence fragment.
    pub(crate) reason: String,
    /// Since when.
    pub(crate) since: SystemTime,
}

/// The present of the table, whenever it moves.
pub(crate) type Pulse = watch::Receiver<(Moment, Revision)>;

/// The table, held to be looked at.
pub(crate) struct Held<'view>(RwLockReadGuard<'view, Seen>);

impl Deref for Held<'_> {
    type Target = Table;

    fn deref(&self) -> &Table {
        &self.0.table
    }
}

impl View {
    /// Begins with a reading of the store, or with what is remembered of it. What is there already is no event. For a
    /// `warm_up` from now on, or from the first reading, it is not sure that what it does not see is not there.
    pub(crate) fn new(begun: Beginning, own: String, events_max: usize, warm_up: Duration) -> Self {
        let seen = Seen::new(begun.revision, begun.read);
        let pulse = watch::Sender::new((seen.table.moment(), seen.table.revision()));
        let (sure_from, is_remembered) = (Instant::now() + warm_up, begun.away.is_some());
        let trust = Mutex::new(Trust { sure_from, warm_up, stale: None, is_remembered });
        let (seen, events) = (RwLock::new(seen), Mutex::new(Log::new(events_max)));
        let view = Self { seen, events, pulse, book: Book::default(), trust, own };
        if let Some(why) = begun.away {
            view.set_stale(true, &why);
        }
        view
    }

    fn trust(&self) -> MutexGuard<'_, Trust> {
        self.trust.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present of the table, whenever it moves.
    pub(crate) fn pulse(&self) -> Pulse {
        self.pulse.subscribe()
    }

    /// What is to be remembered; `None` while what is seen is itself only remembered.
    pub(crate) fn kept(&self) -> Option<Kept> {
        if self.trust().is_remembered {
            return None;
        }
        let table = self.table();
        let (instances, decided) = (table.snapshot(&Interest::All), table.all_decided());
        Some(Kept { revision: table.revision(), instances, decided })
    }

    fn seen(&self) -> RwLockReadGuard<'_, Seen> {
        self.seen.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table, to look at.
    pub(crate) fn table(&self) -> Held<'_> {
        Held(self.seen())
    }

    /// Who watches through this node.
    pub(crate) fn watchers(&self) -> &Book {
        &self.book
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
        let is_counted_anew = news.iter().any(|one| matches!(one, News::Rolled(..)));
        let steps = self.change(|seen| seen.apply(revision, news));
        if is_counted_anew {
            self.book.count_again();
        }
        steps
    }

    /// Takes in a whole reading of the store.
    pub(crate) fn replace(&self, revision: Revision, read: Vec<News>) -> Vec<Step> {
        let steps = self.change(|seen| seen.replace(revision, read));
        self.book.count_again();
        let mut trust = self.trust();
        if std::mem::take(&mut trust.is_remembered) {
            // Those who lived on while nobody could write them down have yet to come back.
            trust.sure_from = Instant::now() + trust.warm_up;
        }
        steps
    }

    fn change(&self, change: impl FnOnce(&mut Seen) -> Vec<Step>) -> Vec<Step> {
        let (steps, present) = {
            let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
            let steps = change(&mut seen);
            (steps, (seen.table.moment(), seen.table.revision()))
        };
        let now = SystemTime::now();
        {
            let mut events = self.events();
            steps.iter().flat_map(|step| events::tell(step, now)).for_each(|event| events.push(event));
        }
        self.pulse.send_replace(present);
        let told = steps.iter().filter(|step| !matches!(step.now, Now::Reported));
        self.book.wake(told.map(|step| &step.key.service));
        steps
    }

    /// Takes in the policy of a service, or that it has none; an event tells of a change.
    pub(crate) fn set_policy(&self, service: &ServiceName, policy: Option<Policy>) {
        let reason = match &policy {
            Some(policy) => format!("revision {} of its document", policy.revision),
            None => "its document says nothing any more".to_owned(),
        };
        let has_changed = {
            let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
            seen.policies.set(service, policy)
        };
        if has_changed {
            self.note(service.as_str(), EventKind::PolicyChanged, reason);
            self.book.wake_by_name(service);
            self.book.wake_listening(service);
        }
    }

    /// The policy of a service, if it has one.
    pub(crate) fn policy(&self, service: &str) -> Option<Policy> {
        self.seen().policies.get(service)
    }

    /// Notes that all policies are known: those of other services than `found` are taken back.
    pub(crate) fn complete_policies(&self, found: &BTreeSet<ServiceName>) {
        let known = self.seen().policies.services();
        for service in known.iter().filter(|service| !found.contains(*service)) {
            self.set_policy(service, None);
        }
        let is_first = {
            let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
            !std::mem::replace(&mut seen.policies.is_complete, true)
        };
        if is_first {
            self.book.wake_all();
        }
    }

    /// Remembers why the newest document of a service's policy cannot be used; an event tells it. The policy stays.
    pub(crate) fn refuse_policy(&self, service: &ServiceName, revision: i64, why: &str) {
        let is_new = {
            let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
            seen.policies.refuse(service, revision, why)
        };
        if is_new {
            let reason = format!("revision {revision} of its document cannot be used: {why}");
            self.note(service.as_str(), EventKind::PolicyRefused, reason);
        }
    }

    /// Which document of a service's policy was refused last, and why, if it is the newest.
    pub(crate) fn refusal(&self, service: &str) -> Option<(i64, String)> {
        self.seen().policies.refusal(service)
    }

    /// Remembers what the registry itself saw.
    pub(crate) fn note(&self, service: &str, kind: EventKind, reason: String) {
        self.report(Event {
            time: SystemTime::now(),
            namespace: NAMESPACE_DEFAULT.to_owned(),
            service: service.to_owned(),
            instance: String::new(),
            kind,
            reason,
            observer: REGISTRY.to_owned(),
        });
    }

    /// Says whether the store can be read; an event tells of a change. What is only remembered stays stale until it was
    /// read.
    pub(crate) fn set_stale(&self, is_stale: bool, why: &str) {
        {
            let mut trust = self.trust();
            if trust.stale.is_some() == is_stale || (!is_stale && trust.is_remembered) {
                return;
            }
            trust.stale = is_stale.then(|| Stale { reason: why.to_owned(), since: SystemTime::now() });
        }
        let kind = if is_stale { EventKind::StoreLost } else { EventKind::StoreFound };
        self.note("", kind, why.to_owned());
    }

    /// Why what is seen may be old, if it may.
    pub(crate) fn stale(&self) -> Option<Stale> {
        self.trust().stale.clone()
    }

    /// Whether what is not seen is surely not there.
    pub(crate) fn is_authoritative(&self) -> bool {
        let trust = self.trust();
        trust.stale.is_none() && Instant::now() >= trust.sure_from
    }

    /// Revision of the last change of a service, or of all.
    pub(crate) fn changed_at(&self, service: Option<&ServiceKey>) -> Revision {
        self.seen().changed_at(service)
    }

    /// How many of those who follow a service, or of those who follow everything, have taken in a revision: those of this
    /// node, and those of the others as far as they have told.
    pub(crate) fn acknowledged(&self, service: Option<&ServiceKey>, revision: Revision) -> Count {
        let here = self.book.acknowledged(service, revision);
        self.table().rolls(&self.own).fold(here, |sum, roll| {
            let count = roll.count(service, revision);
            Count { at: sum.at + count.at, of: sum.of + count.of }
        })
    }

    /// Waits until all who follow a service, through whatever node, have taken in a revision, at most `within`; tells how
    /// many have. Cancel safe.
    pub(crate) async fn until_acknowledged(&self, service: &ServiceKey, revision: Revision, within: Duration) -> Count {
        let end = Instant::now() + within;
        loop {
            let mut moved = std::pin::pin!(self.book.moved());
            // From here on nothing is missed.
            moved.as_mut().enable();
            let count = self.acknowledged(Some(service), revision);
            if count.at >= count.of || tokio::time::timeout_at(end, moved).await.is_err() {
                return count;
            }
            tokio::time::sleep(COUNT_EVERY).await;
        }
    }

    /// How far the watchers of this node have got.
    pub(crate) fn roll(&self) -> Roll {
        let groups = self.book.groups();
        let seen = self.seen();
        let group = |service: Option<&ServiceKey>, acknowledged: Vec<i64>| {
            let revision = seen.changed_at(service).0;
            let at = acknowledged.iter().filter(|one| **one >= revision).count();
            let least = acknowledged.iter().min().copied().unwrap_or_default();
            Group { revision, least, at, of: acknowledged.len() }
        };
        let mut roll = Roll::default();
        for (follows, acknowledged) in groups {
            match follows {
                Follows::All => roll.all = Some(group(None, acknowledged)),
                Follows::Within(namespace) => {
                    _ = roll.within.insert(namespace.to_string(), group(None, acknowledged));
                }
                Follows::Named(service) => {
                    _ = roll.named.insert(roll::path(&service), group(Some(&service), acknowledged));
                }
            }
        }
        roll
    }

    /// What is new for one who `knows` so much of `interest`.
    pub(crate) fn look(&self, knows: Option<Knows>, interest: &Interest) -> Look {
        self.seen().look(knows, interest)
    }

    /// What one knows who was right up to a revision; `None` if that is too long ago, or still to come.
    pub(crate) fn known_at(&self, revision: Revision) -> Option<Knows> {
        self.seen().known_at(revision)
    }

    /// Waits until the table has seen a revision, so that whoever is answered can read what it wrote; at most `within`,
    /// as the write itself is done already.
    pub(crate) async fn reached(&self, revision: Revision, within: Duration) {
        let mut pulse = self.pulse.subscribe();
        let reached = pulse.wait_for(|(_, seen)| *seen >= revision);
        let _ = tokio::time::timeout(within, reached).await;
    }
}
