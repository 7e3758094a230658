//! When to stop calling an endpoint or a method, and when to try again. Pure: no clock, no tokio.
//!
//! A breaker is *closed* while calls go well. Failures in a row, or too large a share of failures or of slow calls, *open*
//! it: nobody calls. After a while a health probe in the background asks the instance; if it is up, the breaker is *half
//! open* and lets a few trial calls through, whose success closes it. Two triggers, because a total outage must be seen
//! within a few calls and a partial one has no failures in a row; exact counts, because decayed averages hide bursts.
//!
//! A connection that cannot be made counts as one failure, so an address that refuses opens its breaker after five
//! attempts of the connection's own backoff, with or without calls.
//!
//! A call that hangs counts as slow as soon as it has taken as long as a slow one, not when it ends; see `waiting.rs`.
//!
//! Calls of a closed breaker take no lock: they load one word, and add to another. Everything else is rare.

mod judge;
mod permit;
mod policy;
mod waiting;
mod window;
mod word;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

pub use permit::Permit;
use permit::Speed;
pub use policy::Policy;
use waiting::{Overdue, Waiting};
use window::Window;
use word::{force, generation, phase};

/// Where a breaker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Calls go through.
    Closed,
    /// Calls are kept away.
    Open,
    /// A few trial calls go through.
    HalfOpen,
}

/// What an operator has decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Force {
    /// Nothing: the breaker decides by itself.
    #[default]
    None,
    /// No calls.
    Open,
    /// Calls, whatever comes of them.
    Closed,
}

/// A breaker moved to another phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Where it is now.
    pub to: Phase,
    /// Why, in a sentence fragment.
    pub reason: String,
}

/// How a call went, as far as the callee's health is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// The instance answered, even if it refused: a mistake of the caller is no failure of the callee, and neither is the
    /// failure of somebody behind it.
    Success,
    /// The instance failed.
    Failure(&'a str),
    /// The instance has too much to do. Counts in the share, never in a row: an overloaded instance is alive.
    Overload(&'a str),
    /// Nothing was learned: the caller went away.
    Nothing,
}

/// A breaker of one endpoint, or of one method. `now` is the time since any fixed moment, the same for all calls.
#[derive(Debug)]
pub struct Breaker {
    /// Generation in the upper half; [`Phase`] in the lowest two bits, [`Force`] in the two above.
    ///
    /// The generation counts changes: what was allowed in an earlier phase says nothing about this one.
    word: AtomicU64,
    in_a_row: AtomicU32,
    /// Slow calls since the last quick one.
    slow_in_a_row: AtomicU32,
    window: Window,
    waiting: Waiting,
    /// What a slow call takes, in nanoseconds. `u64::MAX` for none.
    slow_call: AtomicU64,
    policy: ArcSwap<Policy>,
    rest: Mutex<Rest>,
}

/// What matters only while the breaker is not closed.
#[derive(Debug)]
struct Rest {
    state: State,
    /// Openings in a row without a good while between them.
    openings: u32,
    closed_at: Duration,
    /// Whether it opened because of a share: some calls still went well.
    is_partial: bool,
    /// Whether it opened although no call had failed.
    is_doubted: bool,
    random: fastrand::Rng,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed,
    /// `trial_at` does not grow from opening to opening, and stays where it was when a probe moves `probe_at` on.
    Open {
        probe_at: Duration,
        trial_at: Duration,
    },
    HalfOpen {
        out: u32,
        successes: u32,
        granted_at: Duration,
    },
}

impl Breaker {
    /// Makes a closed breaker. `seed` decides the jitter of its waits.
    pub fn new(policy: Arc<Policy>, seed: u64) -> Self {
        let rest = Rest {
            state: State::Closed,
            openings: 0,
            closed_at: Duration::ZERO,
            is_partial: false,
            is_doubted: false,
            random: fastrand::Rng::with_seed(seed),
        };
        Self {
            word: AtomicU64::new(0),
            in_a_row: AtomicU32::new(0),
            slow_in_a_row: AtomicU32::new(0),
            window: Window::new(policy.window),
            waiting: Waiting::default(),
            slow_call: AtomicU64::new(slow_nanos(&policy)),
            policy: ArcSwap::new(policy),
            rest: Mutex::new(rest),
        }
    }

    /// Takes another policy. What was counted stays. What is open waits no longer than if it opened by this policy, and
    /// closes where the policy wants it never to open.
    pub fn set_policy(&self, now: Duration, policy: Arc<Policy>) -> Option<Transition> {
        let mut rest = self.lock();
        self.window.resize(nanos(now), policy.window);
        self.slow_call.store(slow_nanos(&policy), Ordering::Relaxed);
        self.policy.store(policy);
        let policy = self.policy.load();
        if self.force() != Force::None || matches!(rest.state, State::Closed) {
            return None;
        }
        if policy.is_disabled {
            rest.openings = 0;
            return Some(self.close(&mut rest, now, "the policy says that it never opens".to_owned()));
        }
        if let State::Open { probe_at, trial_at } = rest.state {
            rest.openings = rest.openings.saturating_sub(1);
            let trial = rest.jittered(policy.wait_min);
            let wait = rest.wait(&policy);
            rest.state =
                State::Open { probe_at: probe_at.min(now + wait), trial_at: trial_at.min(now + wait.min(trial)) };
        }
        None
    }

    /// Says what a slow call takes, where the policy does not: `None` for nothing is slow. Until the next policy.
    pub fn set_slow_call(&self, slow_call: Option<Duration>) {
        self.slow_call.store(slow_call.map_or(u64::MAX, nanos), Ordering::Relaxed);
    }

    /// Where the breaker is, as callers see it.
    pub fn phase(&self) -> Phase {
        phase(self.word.load(Ordering::Acquire))
    }

    /// How often the phase has changed.
    pub fn generation(&self) -> u32 {
        generation(self.word.load(Ordering::Acquire))
    }

    /// What an operator has decided.
    pub fn force(&self) -> Force {
        force(self.word.load(Ordering::Acquire))
    }

    /// Whether it is open only because too large a share of calls failed or was slow, so that some went well.
    pub fn is_partly_open(&self) -> bool {
        self.phase() == Phase::Open && self.force() == Force::None && self.lock().is_partial
    }

    /// Whether a call would be let through now.
    pub fn admits(&self, now: Duration) -> bool {
        match self.phase() {
            Phase::Closed => true,
            Phase::Open => false,
            Phase::HalfOpen => self.trial(now, &self.lock()).is_some(),
        }
    }

    /// Lets a call through, if calls may go.
    #[inline]
    pub fn admit(&self, now: impl FnOnce() -> Duration) -> Option<Permit> {
        let word = self.word.load(Ordering::Acquire);
        match phase(word) {
            Phase::Closed => Some(Permit::new(generation(word))),
            Phase::Open => None,
            Phase::HalfOpen => {
                let mut rest = self.lock();
                // It may have moved on before it was locked.
                rest.state = match rest.state {
                    State::HalfOpen { .. } => self.trial(now(), &rest)?,
                    State::Closed if self.phase() == Phase::Closed => State::Closed,
                    State::Closed | State::Open { .. } => return None,
                };
                Some(Permit::new(self.generation()))
            }
        }
    }

    /// Lets a trial call through although no probe has succeeded, if the first wait is over: for when every breaker of
    /// a service is open, and refusing all would be worse than trying.
    pub fn admit_unprobed(&self, now: Duration) -> Option<(Permit, Transition)> {
        let transition = {
            let mut rest = self.lock();
            match rest.state {
                State::Open { trial_at, .. } if trial_at <= now && self.force() == Force::None => {
                    self.half_open(&mut rest, now, "every breaker of the service is open".to_owned())
                }
                State::Open { .. } | State::Closed | State::HalfOpen { .. } => return None,
            }
        };
        self.admit(|| now).map(|permit| (permit, transition))
    }

    /// Lets a call through that the breaker would keep away: for when too few endpoints are left.
    pub fn admit_regardless(&self) -> Permit {
        Permit::new(self.generation())
    }

    /// Takes a permit back with how the call went and how long it took. `may_open` is asked before a share opens it, or
    /// slow calls in a row; failures in a row always do.
    #[expect(clippy::needless_pass_by_value, reason = "a permit is given back once")]
    #[inline]
    pub fn record(
        &self,
        now: Duration,
        permit: Permit,
        verdict: Verdict<'_>,
        took: Duration,
        may_open: impl FnOnce() -> bool,
    ) -> Option<Transition> {
        let word = self.word.load(Ordering::Acquire);
        if permit.generation != generation(word) {
            return None;
        }
        let speed = self.speed(&permit, took, verdict == Verdict::Success);
        if let (Phase::Closed, Verdict::Success, Speed::Quick) = (phase(word), verdict, speed) {
            // Nearly every call of nearly every breaker.
            if self.in_a_row.load(Ordering::Relaxed) != 0 {
                self.in_a_row.store(0, Ordering::Relaxed);
            }
            if self.slow_in_a_row.load(Ordering::Relaxed) != 0 {
                self.slow_in_a_row.store(0, Ordering::Relaxed);
            }
            self.window.count(nanos(now), false, false);
            return None;
        }
        match phase(word) {
            Phase::Closed => self.count(now, verdict, speed, may_open),
            Phase::HalfOpen => self.tried(now, permit.generation, verdict, speed),
            // Nothing was let through in this phase.
            Phase::Open => None,
        }
    }

    /// Counts a connection that could not be made.
    pub fn refused(&self, now: Duration, why: &str) -> Option<Transition> {
        match self.phase() {
            Phase::Closed => self.count(now, Verdict::Failure(why), Speed::Quick, || true),
            Phase::HalfOpen => {
                let mut rest = self.lock();
                let is_half_open = matches!(rest.state, State::HalfOpen { .. });
                is_half_open.then(|| self.open(&mut rest, now, format!("the connection was lost: {why}")))
            }
            Phase::Open => None,
        }
    }

    /// Opens it without a call, if it is closed: others suspect the instance, and it does not answer a probe well. The
    /// first probe that succeeds closes it again.
    pub fn doubted(&self, now: Duration, why: &str) -> Option<Transition> {
        let mut rest = self.lock();
        let is_judged = self.force() == Force::None && !self.policy.load().is_disabled;
        if !is_judged || !matches!(rest.state, State::Closed) {
            return None;
        }
        rest.is_partial = false;
        let transition = self.open(&mut rest, now, why.to_owned());
        rest.is_doubted = true;
        Some(transition)
    }

    /// Looks at the calls without one of them: those that hang are counted as slow, a share that is reached opens it, a
    /// trial call that is overdue opens it again, a row as old as the window is forgotten.
    pub fn sweep(&self, now: Duration, may_open: impl FnOnce() -> bool) -> Option<Transition> {
        let phase = self.phase();
        if phase == Phase::Open {
            self.waiting.clear();
            return None;
        }
        let slow = self.slow_call.load(Ordering::Relaxed);
        let overdue = if slow == u64::MAX { Overdue::default() } else { self.waiting.overdue(nanos(now), slow) };
        if phase == Phase::HalfOpen {
            return (overdue.calls > 0).then(|| self.reopen_overdue(now, slow)).flatten();
        }
        if overdue.calls > 0 {
            self.window.count_slow(nanos(now), overdue.calls);
            if overdue.is_mixed {
                self.slow_in_a_row.store(overdue.in_a_row, Ordering::Relaxed);
            } else {
                self.slow_in_a_row.fetch_add(overdue.in_a_row, Ordering::Relaxed);
            }
        }
        let sums = self.window.sweep(nanos(now));
        if sums.calls == 0 {
            self.in_a_row.store(0, Ordering::Relaxed);
            self.slow_in_a_row.store(0, Ordering::Relaxed);
            return None;
        }
        self.judge(now, 0, "", may_open)
    }

    /// A trial call has not been answered for as long as a slow one takes.
    #[cold]
    fn reopen_overdue(&self, now: Duration, slow: u64) -> Option<Transition> {
        let mut rest = self.lock();
        let is_judged = matches!(rest.state, State::HalfOpen { .. }) && !self.policy.load().is_disabled;
        let reason = || format!("a trial call was not answered within {:?}", Duration::from_nanos(slow));
        is_judged.then(|| self.open(&mut rest, now, reason()))
    }

    /// When the instance is to be probed, while the breaker is open.
    pub fn probe_at(&self) -> Option<Duration> {
        match self.lock().state {
            State::Open { probe_at, .. } => Some(probe_at),
            State::Closed | State::HalfOpen { .. } => None,
        }
    }

    /// When the next call may go through, while the breaker is open: a trial, or else one after the next probe.
    pub fn next_at(&self, now: Duration) -> Option<Duration> {
        match self.lock().state {
            State::Open { probe_at, trial_at } => Some(if trial_at > now { trial_at } else { probe_at }),
            State::Closed | State::HalfOpen { .. } => None,
        }
    }

    /// Takes the outcome of a probe: half open if the instance is up (closed, if no call had failed), a longer wait if not.
    pub fn probed(&self, now: Duration, is_up: bool) -> Option<Transition> {
        let mut rest = self.lock();
        let State::Open { trial_at, .. } = rest.state else { return None };
        if self.force() != Force::None {
            return None;
        }
        if is_up && rest.is_doubted {
            return Some(self.close(&mut rest, now, "the health probe succeeded".to_owned()));
        }
        if is_up {
            return Some(self.half_open(&mut rest, now, "the health probe succeeded".to_owned()));
        }
        let wait = rest.wait(&self.policy.load());
        rest.state = State::Open { probe_at: now + wait, trial_at };
        None
    }

    /// Takes what an operator decided. What a breaker that was forced open would have done by itself is begun anew.
    pub fn set_force(&self, now: Duration, wanted: Force, why: &str) -> Option<Transition> {
        let mut rest = self.lock();
        let last = self.force();
        if last == wanted {
            return None;
        }
        let (to, state) = match wanted {
            Force::Open => (Phase::Open, State::Open { probe_at: Duration::MAX, trial_at: Duration::MAX }),
            Force::Closed | Force::None => (Phase::Closed, State::Closed),
        };
        let before = self.phase();
        if wanted == Force::None && last == Force::Closed {
            // It was closed, and stays so until calls say otherwise.
            self.enter(&mut rest, state, wanted);
            return None;
        }
        self.enter(&mut rest, state, wanted);
        rest.closed_at = now;
        rest.is_partial = false;
        self.forget();
        (before != to).then(|| Transition { to, reason: why.to_owned() })
    }

    /// A trial call has ended.
    #[cold]
    fn tried(&self, now: Duration, permitted: u32, verdict: Verdict<'_>, speed: Speed) -> Option<Transition> {
        let mut rest = self.lock();
        let State::HalfOpen { out, successes, granted_at } = rest.state else { return None };
        if permitted != self.generation() {
            return None;
        }
        let out = out.saturating_sub(1);
        match verdict {
            Verdict::Success if speed != Speed::Quick => {
                Some(self.open(&mut rest, now, "a trial call was slow".to_owned()))
            }
            Verdict::Success if successes + 1 >= self.policy.load().trials => {
                Some(self.close(&mut rest, now, format!("{} trial calls succeeded", successes + 1)))
            }
            Verdict::Success => {
                rest.state = State::HalfOpen { out, successes: successes + 1, granted_at };
                None
            }
            Verdict::Failure(why) | Verdict::Overload(why) => {
                Some(self.open(&mut rest, now, format!("a trial call failed: {why}")))
            }
            Verdict::Nothing => {
                rest.state = State::HalfOpen { out, successes, granted_at };
                None
            }
        }
    }

    /// The state after one more trial call, if one may go.
    fn trial(&self, now: Duration, rest: &Rest) -> Option<State> {
        let State::HalfOpen { out, successes, granted_at } = rest.state else { return None };
        let policy = self.policy.load();
        if out < policy.trials {
            return Some(State::HalfOpen { out: out + 1, successes, granted_at: now });
        }
        // A trial call that is a long stream must not hold its permit for good.
        let is_over = now.saturating_sub(granted_at) >= policy.window;
        is_over.then_some(State::HalfOpen { out: 1, successes, granted_at: now })
    }

    fn open(&self, rest: &mut Rest, now: Duration, reason: String) -> Transition {
        let policy = self.policy.load();
        // An instance that has gone well for long enough starts anew.
        if matches!(rest.state, State::Closed) && now.saturating_sub(rest.closed_at) >= policy.wait_max {
            rest.openings = 0;
        }
        let trial = rest.jittered(policy.wait_min);
        let wait = rest.wait(&policy);
        self.enter(rest, State::Open { probe_at: now + wait, trial_at: now + wait.min(trial) }, Force::None);
        Transition { to: Phase::Open, reason }
    }

    fn half_open(&self, rest: &mut Rest, now: Duration, reason: String) -> Transition {
        self.enter(rest, State::HalfOpen { out: 0, successes: 0, granted_at: now }, Force::None);
        Transition { to: Phase::HalfOpen, reason }
    }

    fn close(&self, rest: &mut Rest, now: Duration, reason: String) -> Transition {
        self.forget();
        rest.closed_at = now;
        self.enter(rest, State::Closed, Force::None);
        Transition { to: Phase::Closed, reason }
    }

    fn enter(&self, rest: &mut Rest, state: State, force: Force) {
        rest.state = state;
        rest.is_doubted = false;
        // Those who wait were let through in another phase.
        self.waiting.clear();
        let phase = match state {
            State::Closed => 0,
            State::Open { .. } => 1,
            State::HalfOpen { .. } => 2,
        };
        let force = match force {
            Force::None => 0,
            Force::Open => 1 << 2,
            Force::Closed => 2 << 2,
        };
        let next = self.generation().wrapping_add(1);
        self.word.store(u64::from(next) << 32 | force | phase, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Rest> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rest {
    /// The next wait: doubled each time, and up to a fifth longer or shorter so that callers do not come back at once.
    fn wait(&mut self, policy: &Policy) -> Duration {
        let doubled = policy.wait_min.saturating_mul(2_u32.saturating_pow(self.openings));
        self.openings = self.openings.saturating_add(1);
        self.jittered(doubled.min(policy.wait_max))
    }

    fn jittered(&mut self, wait: Duration) -> Duration {
        wait.mul_f64(0.8 + 0.4 * self.random.f64())
    }
}

/// Good for 584 years.
fn nanos(time: Duration) -> u64 {
    time.as_secs().wrapping_mul(1_000_000_000).wrapping_add(u64::from(time.subsec_nanos()))
}

fn slow_nanos(policy: &Policy) -> u64 {
    policy.slow_call.map_or(u64::MAX, nanos)
}

#[cfg(test)]
mod tests;
