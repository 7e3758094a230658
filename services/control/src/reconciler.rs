//! The control loop: reads what is wanted and what is there, acts once, says when to look again.
//!
//! A turn takes no input. The store's watch, the end of a process, the registry and the clock only wake it, and it finds
//! out for itself what is different; so a lost signal costs time, never truth.

mod driver;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use ninefold::fault;
use ninefold::lifecycle::Stop;
use ninefold::telemetry::Count;
use ninefold_proto::ninefold::control::v1::Action as Verb;
use tokio::sync::watch;

use crate::book::Wishes;
use crate::config::Config;
use crate::journal::{Entry, Journal};
use crate::mirror::{Sightings, WishesSeen, spread};
use crate::model::{Now, Phase, Slot, Slots, Then, Workload};
use crate::plan::{self, Action, Observed, Rules};
use crate::process::{Ended, Process, Step};
use crate::status::States;
use crate::wire;

pub(crate) use driver::Driver;

/// Steps of one service in one turn; the rest waits until the others had theirs.
const STEPS_MAX: usize = 8;

/// What the reconciler looks at.
#[derive(Debug)]
pub(crate) struct Eyes {
    pub(crate) wishes: WishesSeen,
    pub(crate) sightings: watch::Receiver<Sightings>,
    /// Whether all is to stay as it is.
    pub(crate) held: watch::Receiver<bool>,
}

/// Where the reconciler tells what it sees and does.
#[derive(Debug)]
pub(crate) struct Mouth {
    /// Services whose instances it wants to see.
    pub(crate) names: watch::Sender<BTreeSet<String>>,
    pub(crate) shown: watch::Sender<States>,
    pub(crate) journal: Arc<Journal>,
}

type Place = (String, u32);

/// The control loop of one node.
pub(crate) struct Reconciler {
    resync: Duration,
    rules: Rules,
    driver: Driver,
    node: String,
    eyes: Eyes,
    mouth: Mouth,
    rng: fastrand::Rng,
    slots: BTreeMap<String, Slots>,
    held: BTreeMap<Place, Holding>,
    ends: FuturesUnordered<BoxFuture<'static, (Place, Ended)>>,
    /// The revision of each wish that was last taken note of.
    accepted: BTreeMap<String, i64>,
    /// Counts programs that ended and are started again.
    restarts: Count,
}

/// A process and how long it may take to leave.
struct Holding {
    process: Process,
    grace: Duration,
}

fn now() -> Now {
    Now { instant: tokio::time::Instant::now().into_std(), time: SystemTime::now() }
}

impl Reconciler {
    pub(crate) fn new(config: &Config, node: String, driver: Driver, eyes: Eyes, mouth: Mouth) -> Self {
        Self {
            resync: config.resync,
            rules: Rules {
                backoff_max: config.backoff_max,
                healthy_after: config.healthy_after,
                crash_loop_after: config.crash_loop_after,
                start_deadline: config.start_deadline,
            },
            driver,
            node,
            eyes,
            mouth,
            rng: fastrand::Rng::new(),
            slots: BTreeMap::new(),
            held: BTreeMap::new(),
            ends: FuturesUnordered::new(),
            accepted: BTreeMap::new(),
            restarts: Count::new("ninefold_control_restarts_total", "Programs that ended and are started again"),
        }
    }

    /// Runs until asked to stop, then stops all processes and waits for them.
    pub(crate) async fn run(mut self, stop: Stop) {
        while !stop.is_asked() && !*self.eyes.held.borrow_and_update() {
            let again = self.turn().await;
            tokio::select! {
                () = stop.asked() => {}
                Ok(()) = self.eyes.held.changed() => {}
                Some((place, ended)) = self.ends.next(), if !self.ends.is_empty() => self.note_end(&place, &ended),
                Ok(()) = self.eyes.wishes.changed() => {}
                Ok(()) = self.eyes.sightings.changed() => {}
                () = tokio::time::sleep_until(again.into()) => {}
            }
        }
        while !stop.is_asked() {
            tokio::select! {
                () = stop.asked() => {}
                Some((place, ended)) = self.ends.next(), if !self.ends.is_empty() => self.note_end(&place, &ended),
            }
        }
        self.stop_all();
        while let Some((place, ended)) = self.ends.next().await {
            self.note_end(&place, &ended);
            self.show();
        }
    }

    /// Compares and acts, until there is nothing to do; answers when to look again.
    async fn turn(&mut self) -> Instant {
        let mut again = now().instant + spread(self.resync);
        // Before the store was read once, nothing is known to be wanted, or not to be.
        let Some(wishes) = self.eyes.wishes.borrow_and_update().clone() else { return again };
        let wanted = self.own(&wishes);
        self.accept(&wanted);
        self.look();
        let services: BTreeSet<_> = wanted.keys().chain(self.slots.keys()).cloned().collect();
        self.mouth.names.send_if_modified(|names| {
            let is_new = *names != services;
            names.clone_from(&services);
            is_new
        });
        for service in services {
            if let Some(due) = self.settle(&service, wanted.get(&service)).await {
                again = again.min(due);
            }
        }
        self.show();
        again
    }

    fn own(&self, wishes: &Wishes) -> BTreeMap<String, Workload> {
        let own = wishes.iter().filter(|(_, wish)| wish.node == self.node);
        own.map(|(service, wish)| (service.clone(), wish.workload.clone())).collect()
    }

    /// Takes note of wishes that are new, and of those that are gone.
    fn accept(&mut self, wanted: &BTreeMap<String, Workload>) {
        for (service, workload) in wanted {
            if self.accepted.insert(service.clone(), workload.revision) != Some(workload.revision) {
                let reason = format!("revision {}: {} wanted", workload.revision, workload.instances);
                self.record(service, 0, Verb::Accept, &reason);
            }
        }
        let gone: Vec<_> = self.accepted.keys().filter(|service| !wanted.contains_key(*service)).cloned().collect();
        for service in gone {
            self.accepted.remove(&service);
            self.record(&service, 0, Verb::Accept, "no longer wanted here");
        }
    }

    /// Takes over what the registry says.
    fn look(&mut self) {
        let sightings = self.eyes.sightings.borrow_and_update().clone();
        let now = now();
        let mut came_to_serve = Vec::new();
        for (service, slots) in &mut self.slots {
            for (number, slot) in slots {
                let is_listed = sightings.serving.contains(&slot.instance_id);
                let Phase::Up { since, served, is_serving } = slot.phase else { continue };
                if is_listed == is_serving {
                    continue;
                }
                let phase = Phase::Up { since, served: served.or(Some(now.instant)), is_serving: is_listed };
                let reason = if is_listed { "listed as serving" } else { "no longer listed as serving" };
                slot.enter(phase, reason, now);
                if is_listed {
                    came_to_serve.push((service.clone(), *number, now.instant.saturating_duration_since(since)));
                }
            }
        }
        for (service, number, took) in came_to_serve {
            let reason = format!("listed as serving {:.1} s after its start", took.as_secs_f64());
            self.record(&service, number, Verb::ObserveServing, &reason);
        }
    }

    /// Steps one service until there is nothing to do; answers when to look again.
    async fn settle(&mut self, service: &str, wanted: Option<&Workload>) -> Option<Instant> {
        for _ in 0..STEPS_MAX {
            let now = now().instant;
            let heard_since = self.eyes.sightings.borrow().heard_since;
            let slots = self.slots.entry(service.to_owned()).or_default();
            let turn = plan::step(&self.rules, wanted, Observed { slots, heard_since }, now, &mut self.rng);
            if turn.actions.is_empty() {
                if slots.is_empty() {
                    self.slots.remove(service);
                }
                return turn.again;
            }
            for action in turn.actions {
                self.act(service, wanted, &action).await;
            }
        }
        Some(now().instant)
    }

    async fn act(&mut self, service: &str, wanted: Option<&Workload>, action: &Action) {
        let now = now();
        let slot = action.slot();
        let instance_id = match action {
            Action::Start { .. } => format!("{service}-{slot}-{}", self.short_id()),
            Action::Stop { .. }
            | Action::BackOff { .. }
            | Action::Retarget { .. }
            | Action::Settle { .. }
            | Action::Forget { .. } => String::new(),
        };
        plan::apply(self.slots.entry(service.to_owned()).or_default(), action, &instance_id, now);
        match action {
            Action::Start { reason, .. } => {
                self.record(service, slot, Verb::Start, reason);
                if let Some(workload) = wanted {
                    self.start(workload, slot, &instance_id).await;
                }
            }
            Action::Stop { reason, .. } => {
                self.record(service, slot, Verb::Stop, reason);
                if let Some(holding) = self.held.get(&(service.to_owned(), slot)) {
                    holding.process.stop(holding.grace);
                }
            }
            Action::BackOff { until, is_crash_loop, .. } => {
                let wait = until.saturating_duration_since(now.instant).as_secs_f64();
                let name = if *is_crash_loop { "crash loop: " } else { "" };
                let looping = if *is_crash_loop { "true" } else { "false" };
                self.restarts.add(&[("service", service), ("looping", looping)]);
                self.record(service, slot, Verb::BackOff, &format!("{name}next start in {wait:.1} s"));
            }
            Action::Retarget { .. } | Action::Settle { .. } | Action::Forget { .. } => {}
        }
    }

    async fn start(&mut self, workload: &Workload, slot: u32, instance_id: &str) {
        let place = (workload.service.clone(), slot);
        match self.driver.start(workload, instance_id).await {
            Ok(process) => {
                let ended = process.ended();
                self.ends.push(Box::pin({
                    let place = place.clone();
                    async move { (place, ended.await) }
                }));
                let grace = Driver::grace(workload);
                self.held.insert(place, Holding { process, grace });
            }
            Err(error) => self.end(&place, Verb::ObserveExit, &fault::chain(&error)),
        }
    }

    fn note_end(&mut self, place: &Place, ended: &Ended) {
        self.held.remove(place);
        if ended.step == Step::Killed {
            self.record(&place.0, place.1, Verb::Kill, "did not leave within its grace time");
        }
        self.end(place, Verb::ObserveExit, &ended.to_string());
    }

    /// Takes note that a slot's process has ended, or could not be started.
    fn end(&mut self, place: &Place, verb: Verb, reason: &str) {
        self.record(&place.0, place.1, verb, reason);
        let now = now();
        let Some(slot) = self.slots.get_mut(&place.0).and_then(|slots| slots.get_mut(&place.1)) else { return };
        let (then, healthy, reason) = match &slot.phase {
            Phase::Up { served: Some(served), .. } => {
                (Then::Restart, now.instant.saturating_duration_since(*served), reason.to_owned())
            }
            Phase::Up { served: None, .. } => (Then::Restart, Duration::ZERO, reason.to_owned()),
            Phase::Stopping { then } => (*then, Duration::ZERO, format!("{}; {reason}", slot.reason)),
            Phase::Ended { .. } | Phase::Waiting { .. } => return,
        };
        slot.enter(Phase::Ended { then, healthy }, reason, now);
    }

    fn stop_all(&mut self) {
        let places: Vec<_> = self.held.keys().cloned().collect();
        for (service, slot) in places {
            let stop = Action::Stop { slot, then: Then::Forget, reason: "the platform is stopping".into() };
            plan::apply(self.slots.entry(service.clone()).or_default(), &stop, "", now());
            self.record(&service, slot, Verb::Stop, "the platform is stopping");
            if let Some(holding) = self.held.get(&(service, slot)) {
                holding.process.stop(holding.grace);
            }
        }
        self.show();
    }

    fn record(&self, service: &str, slot: u32, action: Verb, reason: &str) {
        let place = self.slots.get(service).and_then(|slots| slots.get(&slot));
        let instance_id = place.filter(|_| action != Verb::Accept).map_or("", |slot| slot.instance_id.as_str());
        self.mouth.journal.record(Entry { service, slot, instance_id, action, reason });
    }

    /// Shows what is there to whoever asks.
    fn show(&self) {
        let slots = |service: &str, slots: &Slots| {
            let message = |(number, slot): (&u32, &Slot)| {
                let pid = self.held.get(&(service.to_owned(), *number)).map(|holding| holding.process.pid());
                wire::slot_message(*number, slot, pid)
            };
            slots.iter().map(message).collect::<Vec<_>>()
        };
        let states: BTreeMap<_, _> =
            self.slots.iter().map(|(service, held)| (service.clone(), slots(service, held))).collect();
        self.mouth.shown.send_if_modified(|shown| {
            let is_new = **shown != states;
            if is_new {
                *shown = Arc::new(states);
            }
            is_new
        });
    }

    fn short_id(&mut self) -> String {
        std::iter::repeat_with(|| self.rng.lowercase()).take(5).collect()
    }
}
