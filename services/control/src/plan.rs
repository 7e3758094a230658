//! The control loop's mind: what to do next about one service. Pure.
//!
//! [`step`] compares what is wanted with what is there and answers actions; [`apply`] tells what an action makes of the
//! slots. The caller carries them out and asks again until there is nothing to do, or until the moment that the answer
//! names. Nothing is remembered between steps but the slots themselves, so any of them may be the first.
//!
//! A changed program replaces instances one by one: one more than wanted is started, and when all serve, one of the old
//! leaves. If the new program does not come to serve, this stands still and the old instances go on.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::{Now, Phase, Program, Slot, Slots, Then, Workload};

/// Wait before the second restart in a row; doubles with each.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// Waits are spread by this share to both sides, so that what died together does not start together.
const JITTER: f64 = 0.2;

/// Bounds on what [`step`] decides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) backoff_max: Duration,
    pub(crate) healthy_after: Duration,
    pub(crate) crash_loop_after: u32,
    pub(crate) start_deadline: Duration,
}

/// What is there of one service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observed<'a> {
    pub(crate) slots: &'a Slots,
    /// Since when the registry is heard without a break. If it is not, that an instance is not listed says nothing.
    pub(crate) heard_since: Option<Instant>,
}

/// What to do, and when to look again if nothing happens.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turn {
    pub(crate) actions: Vec<Action>,
    pub(crate) again: Option<Instant>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start a process in a slot, which may be new.
    Start { slot: u32, program: Arc<Program>, restarts: u32, reason: String },
    /// Ask a process to leave.
    Stop { slot: u32, then: Then, reason: String },
    /// Put the next start off.
    BackOff { slot: u32, until: Instant, restarts: u32, is_crash_loop: bool },
    /// Give a slot without a process the program that is wanted now, and a clean record.
    Retarget { slot: u32, program: Arc<Program> },
    /// Forget the deaths of an instance that has been well for long.
    Settle { slot: u32 },
    /// Forget a slot that has no process.
    Forget { slot: u32 },
}

/// Decides what to do next about one service.
pub(crate) fn step(
    rules: &Rules,
    wanted: Option<&Workload>,
    observed: Observed<'_>,
    now: Instant,
    rng: &mut fastrand::Rng,
) -> Turn {
    let Some(wanted) = wanted else {
        return Turn { actions: retire_all(observed.slots), again: None };
    };
    let judged = judge(rules, wanted, observed.slots, now, rng);
    if !judged.is_empty() {
        return Turn { actions: judged, again: None };
    }
    let mut actions = surplus(wanted, observed.slots);
    if actions.is_empty() {
        actions = missing(wanted, observed.slots);
    }
    if !actions.is_empty() {
        return Turn { actions, again: None };
    }
    tend(rules, observed, now)
}

/// Changes the slots as an action does. `instance_id` names what a start starts.
pub(crate) fn apply(slots: &mut Slots, action: &Action, instance_id: &str, now: Now) {
    if let Action::Start { slot, program, restarts, reason } = action {
        let started = Slot {
            program: program.clone(),
            instance_id: instance_id.to_owned(),
            phase: Phase::Up { since: now.instant, served: None, is_serving: false },
            restarts: *restarts,
            reason: reason.clone(),
            change_time: now.time,
        };
        slots.insert(*slot, started);
        return;
    }
    if let Action::Forget { slot } = action {
        slots.remove(slot);
        return;
    }
    let Some(place) = slots.get_mut(&action.slot()) else { return };
    match action {
        Action::Stop { then, reason, .. } => place.enter(Phase::Stopping { then: *then }, reason, now),
        Action::BackOff { until, restarts, is_crash_loop, .. } => {
            let until_time = now.time + until.saturating_duration_since(now.instant);
            place.restarts = *restarts;
            place.phase = Phase::Waiting { until: *until, until_time, is_crash_loop: *is_crash_loop };
        }
        Action::Retarget { program, .. } => {
            place.program = program.clone();
            place.restarts = 0;
            place.instance_id.clear();
            let at_once = Phase::Waiting { until: now.instant, until_time: now.time, is_crash_loop: false };
            place.enter(at_once, "the program changed", now);
        }
        Action::Settle { .. } => place.restarts = 0,
        Action::Start { .. } | Action::Forget { .. } => {}
    }
}

impl Action {
    /// The slot that it is about.
    pub(crate) const fn slot(&self) -> u32 {
        match self {
            Self::Start { slot, .. }
            | Self::Stop { slot, .. }
            | Self::BackOff { slot, .. }
            | Self::Retarget { slot, .. }
            | Self::Settle { slot }
            | Self::Forget { slot } => *slot,
        }
    }
}

/// Lets go of a slot. Nothing where its process is already on its way.
fn retire(number: u32, slot: &Slot, reason: &str) -> Option<Action> {
    match slot.phase {
        Phase::Up { .. } | Phase::Stopping { then: Then::Restart } => {
            Some(Action::Stop { slot: number, then: Then::Forget, reason: reason.to_owned() })
        }
        Phase::Stopping { then: Then::Forget } => None,
        Phase::Ended { .. } | Phase::Waiting { .. } => Some(Action::Forget { slot: number }),
    }
}

fn retire_all(slots: &Slots) -> Vec<Action> {
    slots.iter().filter_map(|(number, slot)| retire(*number, slot, "no longer wanted")).collect()
}

/// Decides what becomes of slots whose process has ended, and of waiting ones whose program is no longer wanted.
fn judge(rules: &Rules, wanted: &Workload, slots: &Slots, now: Instant, rng: &mut fastrand::Rng) -> Vec<Action> {
    let verdict = |number: u32, slot: &Slot, rng: &mut fastrand::Rng| {
        let is_current = slot.program == wanted.program;
        match slot.phase {
            Phase::Ended { then: Then::Forget, .. } => Some(Action::Forget { slot: number }),
            Phase::Ended { then: Then::Restart, .. } | Phase::Waiting { .. } if !is_current => {
                Some(Action::Retarget { slot: number, program: wanted.program.clone() })
            }
            Phase::Ended { then: Then::Restart, healthy } => Some(back_off(rules, number, slot, healthy, now, rng)),
            Phase::Up { .. } | Phase::Stopping { .. } | Phase::Waiting { .. } => None,
        }
    };
    slots.iter().filter_map(|(number, slot)| verdict(*number, slot, rng)).collect()
}

/// The first restart is immediate, the next wait 1 s, 2 s, 4 s … up to the bound.
fn back_off(
    rules: &Rules,
    number: u32,
    slot: &Slot,
    healthy: Duration,
    now: Instant,
    rng: &mut fastrand::Rng,
) -> Action {
    let restarts = if healthy >= rules.healthy_after { 0 } else { slot.restarts };
    let delay = match restarts {
        0 => Duration::ZERO,
        _ => BACKOFF_FIRST.saturating_mul(1 << (restarts - 1).min(16)).min(rules.backoff_max),
    };
    let delay = delay.mul_f64(1.0 - JITTER + 2.0 * JITTER * rng.f64());
    Action::BackOff { slot: number, until: now + delay, restarts, is_crash_loop: restarts >= rules.crash_loop_after }
}

/// Slots that count towards what is wanted, and whether some of them still run a former program.
struct Kept<'a> {
    slots: Vec<(u32, &'a Slot)>,
    is_rolling: bool,
}

impl<'a> Kept<'a> {
    fn of(wanted: &Workload, slots: &'a Slots) -> Self {
        let slots: Vec<_> =
            slots.iter().filter(|(_, slot)| slot.is_kept()).map(|(number, slot)| (*number, slot)).collect();
        let is_rolling = wanted.instances > 0 && slots.iter().any(|(_, slot)| slot.program != wanted.program);
        Self { slots, is_rolling }
    }

    fn count(&self) -> usize {
        self.slots.len()
    }

    fn serving(&self) -> usize {
        self.slots.iter().filter(|(_, slot)| slot.is_serving()).count()
    }
}

/// Who goes first when somebody must: without a process, then not serving, then of a former program, then the highest.
fn dispensability(wanted: &Workload, number: u32, slot: &Slot) -> impl Ord + use<> {
    let use_of_it = match slot.phase {
        Phase::Ended { .. } | Phase::Waiting { .. } => 0,
        Phase::Stopping { .. } => 1,
        Phase::Up { is_serving: false, .. } => 2,
        Phase::Up { is_serving: true, .. } => 3,
    };
    (use_of_it, slot.program == wanted.program, Reverse(number))
}

/// Stops what is too much, and, while a program is replaced, the old instance that a new one stands in for.
fn surplus(wanted: &Workload, slots: &Slots) -> Vec<Action> {
    let mut kept = Kept::of(wanted, slots);
    kept.slots.sort_by_key(|(number, slot)| dispensability(wanted, *number, slot));
    let room = size(wanted) + usize::from(kept.is_rolling);
    if kept.count() > room {
        let reason = format!("{} wanted, {} running", wanted.instances, kept.count());
        let victims = kept.slots.iter().take(kept.count() - room);
        return victims.filter_map(|(number, slot)| retire(*number, slot, &reason)).collect();
    }
    if !kept.is_rolling || kept.count() < room {
        return Vec::new();
    }
    let everybody_serves = kept.serving() > size(wanted);
    let old = kept.slots.iter().find(|(_, slot)| slot.program != wanted.program);
    let reason = format!("replaced: the program changed with revision {}", wanted.revision);
    let replaced = old.filter(|(_, slot)| everybody_serves || !slot.is_serving());
    replaced.and_then(|(number, slot)| retire(*number, slot, &reason)).into_iter().collect()
}

/// Starts what is too few, and, while a program is replaced, one more.
fn missing(wanted: &Workload, slots: &Slots) -> Vec<Action> {
    let kept = Kept::of(wanted, slots);
    let missing = if kept.is_rolling {
        // Instances that are leaving still hold memory and files; the next is not started on top of them.
        (size(wanted) + 1).saturating_sub(slots.len())
    } else {
        size(wanted).saturating_sub(kept.count())
    };
    let reason = if kept.is_rolling {
        format!("the program changed with revision {}", wanted.revision)
    } else {
        format!("{} wanted, {} running", wanted.instances, kept.count())
    };
    let free = (0..).filter(|number| !slots.contains_key(number)).take(missing);
    free.map(|slot| Action::Start { slot, program: wanted.program.clone(), restarts: 0, reason: reason.clone() })
        .collect()
}

/// Looks after each slot by itself: starts those whose wait is over, stops those that do not come to serve, forgets the
/// deaths of those that are well.
fn tend(rules: &Rules, observed: Observed<'_>, now: Instant) -> Turn {
    let mut turn = Turn::default();
    for (number, slot) in observed.slots {
        let (due, action) = match &slot.phase {
            Phase::Waiting { until, .. } => {
                let is_first = slot.instance_id.is_empty();
                let restarts = if is_first { 0 } else { slot.restarts.saturating_add(1) };
                let reason =
                    if is_first { slot.reason.clone() } else { format!("restart {restarts}: {}", slot.reason) };
                (*until, Action::Start { slot: *number, program: slot.program.clone(), restarts, reason })
            }
            Phase::Up { since, served: None, .. } => {
                let Some(heard) = observed.heard_since else { continue };
                let reason = format!("not serving after {} s", rules.start_deadline.as_secs_f64());
                let due = heard.max(*since) + rules.start_deadline;
                (due, Action::Stop { slot: *number, then: Then::Restart, reason })
            }
            Phase::Up { served: Some(served), is_serving: true, .. } if slot.restarts > 0 => {
                (*served + rules.healthy_after, Action::Settle { slot: *number })
            }
            Phase::Up { .. } | Phase::Stopping { .. } | Phase::Ended { .. } => continue,
        };
        if due <= now {
            turn.actions.push(action);
        } else {
            turn.again = Some(turn.again.map_or(due, |again| again.min(due)));
        }
    }
    turn
}

/// How many are wanted, as a size.
fn size(wanted: &Workload) -> usize {
    usize::try_from(wanted.instances).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
