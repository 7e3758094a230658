//! The plan in a world of its own: processes that come, serve, die and leave as a seed says, and a clock that jumps.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::*;

const RULES: Rules = Rules {
    backoff_max: Duration::from_secs(5),
    healthy_after: Duration::from_secs(30),
    crash_loop_after: 5,
    start_deadline: Duration::from_secs(60),
};

fn program(name: &str) -> Arc<Program> {
    let command = vec![name.to_owned()];
    Arc::new(Program { command, environment: BTreeMap::new(), working_directory: None, joins: true })
}

fn wanted(instances: u32, name: &str) -> Workload {
    Workload { service: "pump".into(), instances, program: program(name), grace: Duration::from_secs(10), revision: 1 }
}

struct World {
    seed: u64,
    rng: fastrand::Rng,
    now: Now,
    wanted: Option<Workload>,
    slots: Slots,
    /// When the process of a slot changes by itself: comes to serve, or has left.
    due: BTreeMap<u32, Instant>,
    /// Chance that a process dies within a tick.
    mortality: f64,
    started: usize,
}

impl World {
    fn new(seed: u64, wanted: Workload) -> Self {
        Self {
            seed,
            rng: fastrand::Rng::with_seed(seed),
            now: Now { instant: Instant::now(), time: SystemTime::UNIX_EPOCH },
            wanted: Some(wanted),
            slots: Slots::new(),
            due: BTreeMap::new(),
            mortality: 0.0,
            started: 0,
        }
    }

    fn wish(&mut self, instances: u32, name: &str) {
        self.wanted = Some(wanted(instances, name));
    }

    fn pass(&mut self, ticks: usize) {
        for _ in 0..ticks {
            let tick = Duration::from_millis(100);
            self.now = Now { instant: self.now.instant + tick, time: self.now.time + tick };
            self.live();
            self.settle();
        }
    }

    fn live(&mut self) {
        let now = self.now;
        for (number, slot) in &mut self.slots {
            let is_due = self.due.get(number).is_some_and(|due| *due <= now.instant);
            match slot.phase {
                Phase::Up { served, .. } if self.rng.f64() < self.mortality => {
                    let healthy = served.map_or(Duration::ZERO, |served| now.instant - served);
                    slot.enter(Phase::Ended { then: Then::Restart, healthy }, "exited with code 3", now);
                }
                Phase::Up { since, served: None, .. } if is_due && slot.program.command[0] != "broken" => {
                    slot.enter(Phase::Up { since, served: Some(now.instant), is_serving: true }, "", now);
                }
                Phase::Stopping { then } if is_due => {
                    slot.enter(Phase::Ended { then, healthy: Duration::ZERO }, "left", now);
                }
                Phase::Up { .. } | Phase::Stopping { .. } | Phase::Ended { .. } | Phase::Waiting { .. } => {}
            }
        }
    }

    fn settle(&mut self) {
        for _ in 0..20 {
            let observed = Observed { slots: &self.slots, heard_since: Some(self.now.instant - RULES.start_deadline) };
            let turn = step(&RULES, self.wanted.as_ref(), observed, self.now.instant, &mut self.rng);
            if turn.actions.is_empty() {
                assert!(turn.again.is_none_or(|again| again > self.now.instant), "seed {}", self.seed);
                return;
            }
            self.check(&turn.actions);
            for action in &turn.actions {
                self.carry_out(action);
            }
        }
        panic!("seed {}: there is no end of actions", self.seed);
    }

    fn carry_out(&mut self, action: &Action) {
        apply(&mut self.slots, action, "pump-x", self.now);
        if matches!(action, Action::Start { .. } | Action::Stop { .. }) {
            let takes = Duration::from_millis(self.rng.u64(50..2000));
            self.due.insert(action.slot(), self.now.instant + takes);
        }
        if let Action::Start { program, .. } = action {
            self.started += 1;
            let wanted = self.wanted.as_ref().expect("nothing is started that nobody wants");
            assert_eq!(*program, wanted.program, "seed {}: a former program was started", self.seed);
            let kept = self.slots.values().filter(|slot| slot.is_kept()).count();
            assert!(kept <= size(wanted) + 1, "seed {}: {kept} for {} wanted", self.seed, wanted.instances);
        }
    }

    /// Nobody who serves goes while somebody who does not could go first.
    fn check(&self, actions: &[Action]) {
        let leaving: BTreeMap<_, _> = actions
            .iter()
            .filter(|action| matches!(action, Action::Stop { then: Then::Forget, .. } | Action::Forget { .. }))
            .map(|action| (action.slot(), &self.slots[&action.slot()]))
            .collect();
        if leaving.values().any(|slot| slot.is_serving()) {
            let idle = self
                .slots
                .iter()
                .find(|(number, slot)| slot.is_kept() && !slot.is_serving() && !leaving.contains_key(*number));
            assert!(idle.is_none(), "seed {}: {idle:?} could have gone before {leaving:?}", self.seed);
        }
    }

    fn serving(&self) -> usize {
        self.slots.values().filter(|slot| slot.is_serving()).count()
    }

    fn assert_settled(&self, instances: usize) {
        assert_eq!(self.slots.len(), instances, "seed {}: {:?}", self.seed, self.slots);
        assert_eq!(self.serving(), instances, "seed {}: {:?}", self.seed, self.slots);
        let wanted = self.wanted.as_ref().map(|wanted| wanted.program.clone());
        assert!(self.slots.values().all(|slot| Some(&slot.program) == wanted.as_ref()), "seed {}", self.seed);
    }
}

#[test]
fn whatever_happens_in_the_end_there_is_what_is_wanted() {
    for seed in 0..300 {
        let mut world = World::new(seed, wanted(2, "v0"));
        for change in 0..8 {
            world.mortality = if world.rng.bool() { 0.02 } else { 0.0 };
            let instances = world.rng.u32(0..6);
            let name = ["v0", "v1", "v2", "broken"][world.rng.usize(0..4)];
            world.wish(instances, name);
            if change == 5 {
                world.wanted = None;
            }
            let ticks = world.rng.usize(1..200);
            world.pass(ticks);
        }
        world.mortality = 0.0;
        world.wish(3, "v9");
        world.pass(2000);
        world.assert_settled(3);
    }
}

#[test]
fn scaling_down_takes_the_highest_slots() {
    let mut world = World::new(1, wanted(4, "v0"));
    world.pass(50);
    world.wish(2, "v0");
    world.pass(50);
    world.assert_settled(2);
    assert_eq!(world.slots.keys().copied().collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn a_new_program_replaces_the_old_without_a_gap() {
    for seed in 0..50 {
        let mut world = World::new(seed, wanted(3, "v0"));
        world.pass(50);
        world.wish(3, "v1");
        for _ in 0..400 {
            world.pass(1);
            assert!(world.serving() >= 3, "seed {seed}: {:?}", world.slots);
            assert!(world.slots.len() <= 4, "seed {seed}: {:?}", world.slots);
        }
        world.assert_settled(3);
    }
}

#[test]
fn a_program_that_never_serves_does_not_take_the_old_one_down() {
    let mut world = World::new(7, wanted(2, "v0"));
    world.pass(50);
    world.wish(2, "broken");
    world.pass(5000);
    assert_eq!(world.serving(), 2);
    world.wish(2, "v0");
    world.pass(100);
    world.assert_settled(2);
}

#[test]
fn what_dies_again_and_again_waits_longer_and_shows_as_a_crash_loop() {
    let mut world = World::new(3, wanted(1, "v0"));
    world.mortality = 1.0;
    world.pass(600);
    let slot = &world.slots[&0];
    assert!(slot.restarts >= 5, "{slot:?}");
    // 60 s: at once, 1, 2, 4, and then every 5 s, ±20 %.
    assert!((10..=20).contains(&world.started), "{} starts", world.started);
    assert!(matches!(slot.phase, Phase::Waiting { is_crash_loop: true, .. }), "{slot:?}");
    world.mortality = 0.0;
    world.pass(500);
    world.assert_settled(1);
    assert_eq!(world.slots[&0].restarts, 0, "30 s of health are enough to be trusted again");
}

#[test]
fn a_first_death_is_answered_at_once() {
    let mut world = World::new(3, wanted(1, "v0"));
    world.pass(50);
    world.mortality = 1.0;
    world.pass(1);
    world.mortality = 0.0;
    assert_eq!(world.started, 2);
    assert_eq!(world.slots[&0].restarts, 1);
}

#[test]
fn silence_of_the_registry_stops_nobody() {
    let mut world = World::new(3, wanted(1, "broken"));
    world.settle();
    let hour = Duration::from_secs(3600);
    let late = world.now.instant + hour;
    let deaf = Observed { slots: &world.slots, heard_since: None };
    assert!(step(&RULES, world.wanted.as_ref(), deaf, late, &mut world.rng).actions.is_empty());
    let just_heard = Observed { slots: &world.slots, heard_since: Some(late) };
    let turn = step(&RULES, world.wanted.as_ref(), just_heard, late, &mut world.rng);
    assert_eq!((turn.actions, turn.again), (Vec::new(), Some(late + RULES.start_deadline)));
}

#[test]
fn what_nobody_wants_goes() {
    let mut world = World::new(3, wanted(3, "v0"));
    world.pass(50);
    world.wanted = None;
    world.pass(50);
    assert!(world.slots.is_empty());
}
