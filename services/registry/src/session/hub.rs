//! Who holds which instance on this node.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use ninefold_store::{Revision, Store};
use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};
use tokio::time::Instant;

use super::Admission;
use crate::checks;
use crate::config::Config;
use crate::error::Error;
use crate::follow::Taken;
use crate::lease::Leases;
use crate::model::{Event, EventKind, InstanceKey, ServiceKey, State};
use crate::preserve::{Losses, Verdict};
use crate::suspects::Suspects;
use crate::table::{News, Now, Step};
use crate::view::View;

/// Most sessions whose registration is being written at once; more wait their turn. A crowd that wrote all at once would
/// wait for the store longer than it is willing to, come again, and leave it with the writes that nobody waits for.
const OPENING_MAX: usize = 64;

/// What all sessions of this node share.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) config: Config,
    pub(crate) node: String,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) view: Arc<View>,
    pub(crate) leases: Leases,
    pub(crate) admission: Admission,
    /// Places for those that are asked whether they are well.
    pub(crate) asked: Semaphore,
    opening: Semaphore,
    holders: Mutex<HashMap<InstanceKey, Holder>>,
    open: Arc<AtomicUsize>,
    /// Who fell silent lately; its time is counted from `origin`.
    losses: Mutex<Losses>,
    origin: Instant,
    suspects: Mutex<Suspects>,
}

#[derive(Debug)]
struct Holder {
    wake: Arc<Notify>,
    /// Set to false when another session takes over.
    valid: watch::Sender<bool>,
    is_live: bool,
    /// When the process started, if it said so. Tells a process that comes back from another one with the same id.
    started: Option<SystemTime>,
}

/// A session's right to an instance on this node.
#[derive(Debug)]
pub(crate) struct Claim {
    key: InstanceKey,
    wake: Arc<Notify>,
    valid: watch::Receiver<bool>,
}

impl Claim {
    /// The instance.
    pub(crate) fn key(&self) -> &InstanceKey {
        &self.key
    }

    /// Whether no other session of this node has taken over.
    pub(crate) fn is_valid(&self) -> bool {
        *self.valid.borrow()
    }

    /// Waits until the table has something new about the instance. Cancel safe.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Waits until another session of this node has taken over. Cancel safe.
    pub(crate) async fn passed_on(&self) {
        let mut valid = self.valid.clone();
        // An error means that the holder is gone from the map, which only its own session does.
        if valid.wait_for(|valid| !valid).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// One of the sessions that a node may hold; free again when dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes one of `max` places that are counted in `taken`.
pub(crate) fn take_place(taken: &Arc<AtomicUsize>, max: usize) -> Option<Place> {
    let took = taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < max).then_some(count + 1));
    took.is_ok().then(|| Place(taken.clone()))
}

impl Hub {
    pub(crate) fn new(
        config: Config,
        node: String,
        store: Arc<dyn Store>,
        view: Arc<View>,
        admission: Admission,
    ) -> Self {
        let leases = Leases::new(store.clone(), config.lease);
        let (holders, open) = (Mutex::new(HashMap::new()), Arc::new(AtomicUsize::new(0)));
        let losses = Mutex::new(Losses::new(config.preservation()));
        let suspects = Mutex::new(Suspects::new(config.suspicion()));
        let (asked, origin) = (Semaphore::new(checks::ASKED_MAX), Instant::now());
        let opening = Semaphore::new(OPENING_MAX);
        Self { config, node, store, view, leases, admission, asked, opening, holders, open, losses, origin, suspects }
    }

    /// Takes one of the places that this node has for sessions.
    ///
    /// # Errors
    /// [`Error::SessionsFull`].
    pub(crate) fn place(&self) -> Result<Place, Error> {
        let max = self.config.sessions_max;
        take_place(&self.open, max).ok_or(Error::SessionsFull { max })
    }

    /// Waits until a registration may be written; who came first is first. Cancel safe.
    pub(crate) async fn turn(&self) -> SemaphorePermit<'_> {
        self.opening.acquire().await.expect("it is never closed")
    }

    fn holders(&self) -> MutexGuard<'_, HashMap<InstanceKey, Holder>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims an instance: from a session that was lost, or from one of the same process, whose loss has not been noticed
    /// yet because the network did not say so.
    ///
    /// # Errors
    /// [`Error::InstanceTaken`] if a live session of another process holds it on this node.
    pub(crate) fn claim(&self, key: &InstanceKey, started: Option<SystemTime>) -> Result<Claim, Error> {
        let mut holders = self.holders();
        if let Some(holder) = holders.get(key) {
            let is_same_process = started.is_some() && started == holder.started;
            if holder.is_live && !is_same_process {
                return Err(Error::InstanceTaken(key.clone()));
            }
            holder.valid.send_replace(false);
        }
        let wake = Arc::new(Notify::new());
        let (valid, receiver) = watch::channel(true);
        holders.insert(key.clone(), Holder { wake: wake.clone(), valid, is_live: true, started });
        Ok(Claim { key: key.clone(), wake, valid: receiver })
    }

    /// Lets others claim the instance, while its session still cleans up.
    pub(crate) fn lose(&self, claim: &Claim) {
        if let Some(holder) = self.holders().get_mut(&claim.key)
            && claim.is_valid()
        {
            holder.is_live = false;
        }
    }

    /// Gives a claim back.
    pub(crate) fn release(&self, claim: &Claim) {
        let mut holders = self.holders();
        // Once passed on, the place in the map is another session's.
        if claim.is_valid() {
            holders.remove(&claim.key);
            self.suspects().release(&claim.key);
        }
    }

    fn losses(&self) -> MutexGuard<'_, Losses> {
        self.losses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn suspects(&self) -> MutexGuard<'_, Suspects> {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to become of the silent instances of a service. An event tells of a change.
    pub(crate) fn judge(&self, service: &ServiceKey) -> Verdict {
        let present = self.view.table().count(service);
        let (verdict, is_news) = self.losses().judge(service, present, self.origin.elapsed());
        if is_news {
            let (kind, reason) = match verdict {
                Verdict::Keep { lost, of } => {
                    (EventKind::PreservationBegan, format!("{lost} of {of} fell silent at once; none is removed"))
                }
                Verdict::Remove => (EventKind::PreservationEnded, "who is still silent is removed".to_owned()),
            };
            tracing::warn!(service = %service, reason, "preservation of a service changed");
            self.view.report(Event::of_service(service, kind, reason, SystemTime::now()));
        }
        verdict
    }

    /// What so many callers report of an instance that it is suspect; empty if they do not.
    pub(crate) fn suspicion(&self, key: &InstanceKey) -> String {
        let callers = self.view.acknowledged(Some(&key.service), Revision::default()).of;
        let table = self.view.table();
        self.suspects().judge(&table, key, callers)
    }

    /// There is no room for it among the suspect.
    pub(crate) fn clear(&self, key: &InstanceKey) {
        self.suspects().release(key);
    }

    /// Takes in what this node itself has decided of those whose lease ran out.
    pub(crate) fn take(&self, news: Vec<News>) {
        let revision = self.view.table().revision();
        let steps = self.view.apply(revision, news);
        self.wake(Taken::News(&steps));
    }

    fn count_losses(&self, steps: &[Step]) {
        let now = self.origin.elapsed();
        let mut losses = self.losses();
        for step in steps {
            let was_silent = step.before.as_ref().is_some_and(|before| before.state == State::Suspect);
            match &step.now {
                Now::Here(here) if here.state == State::Suspect => {
                    if !was_silent {
                        losses.silent(&step.key, now);
                    }
                }
                Now::Left(_) if was_silent => losses.removed(&step.key),
                Now::Vanished => {
                    losses.silent(&step.key, now);
                    losses.removed(&step.key);
                }
                Now::Here(_) | Now::Left(_) => losses.heard(&step.key),
                Now::Reported => {}
            }
        }
        let concerned = losses.concerned();
        drop(losses);
        concerned.iter().for_each(|service| _ = self.judge(service));
    }

    /// Wakes the sessions whose instances changed. After a whole reading that is every one: a record that was written
    /// and lost while nobody looked is in no step.
    pub(crate) fn wake(&self, taken: Taken<'_>) {
        let (Taken::News(steps) | Taken::Reading(steps)) = taken;
        self.count_losses(steps);
        let holders = self.holders();
        match taken {
            Taken::News(steps) => {
                steps.iter().filter_map(|step| holders.get(&step.key)).for_each(|holder| holder.wake.notify_one());
            }
            Taken::Reading(_) => holders.values().for_each(|holder| holder.wake.notify_one()),
        }
    }
}
