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
use crate::model::{Event, EventKind, Interest, NAMESPACE_DEFAULT, Policy, REGISTRY, ServiceKey, ServiceName};
use crate::table::{Moment, News, Now, Step, Table};
use crate::watch::Book;
use seen::Seen;

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
}

/// Whether what is not seen is surely not there.
#[derive(Clone, Copy, Debug)]
struct Trust {
    /// Before, those who live may not have had the time to come back.
    sure_from: Instant,
    /// Whether the store is away, or has not been read yet.
    is_stale: bool,
}

/// The table, held to be looked at.
pub(crate) struct Held<'view>(RwLockReadGuard<'view, Seen>);

impl Deref for Held<'_> {
    type Target = Table;

    fn deref(&self) -> &Table {
        &self.0.table
    }
}

impl View {
    /// Begins with a reading of the store. What is there already is no event. For a `warm_up` from now on, it is not sure
    /// that what it does not see is not there.
    pub(crate) fn new(revision: Revision, read: Vec<News>, events_max: usize, warm_up: Duration) -> Self {
        let seen = Seen::new(revision, read);
        let pulse = watch::Sender::new((seen.table.moment(), seen.table.revision()));
        let trust = Mutex::new(Trust { sure_from: Instant::now() + warm_up, is_stale: false });
        Self { seen: RwLock::new(seen), events: Mutex::new(Log::new(events_max)), pulse, book: Book::default(), trust }
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
        self.change(|seen| seen.apply(revision, news))
    }

    /// Takes in a whole reading of the store.
    pub(crate) fn replace(&self, revision: Revision, read: Vec<News>) -> Vec<Step> {
        self.change(|seen| seen.replace(revision, read))
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

    /// Says whether the store can be read; an event tells of a change.
    pub(crate) fn set_stale(&self, is_stale: bool, why: &str) {
        let before = {
            let mut trust = self.trust.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut trust.is_stale, is_stale)
        };
        if before != is_stale {
            let kind = if is_stale { EventKind::StoreLost } else { EventKind::StoreFound };
            self.note("", kind, why.to_owned());
        }
    }

    /// Whether what is not seen is surely not there.
    pub(crate) fn is_authoritative(&self) -> bool {
        let trust = *self.trust.lock().unwrap_or_else(PoisonError::into_inner);
        !trust.is_stale && Instant::now() >= trust.sure_from
    }

    /// Revision of the last change of a service, or of all.
    pub(crate) fn changed_at(&self, service: Option<&ServiceKey>) -> Revision {
        self.seen().changed_at(service)
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
