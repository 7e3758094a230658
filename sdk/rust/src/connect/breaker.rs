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
//! Calls of a closed breaker take no lock: they load one word, and add to another. Everything else is rare.

mod policy;
mod window;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

pub use policy::Policy;
use window::Window;

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

/// Leave to make one call. Give it back to [`Breaker::record`].
#[derive(Debug)]
#[must_use = "a permit that is not given back blocks a trial call"]
pub struct Permit {
    generation: u32,
}

/// A breaker of one endpoint, or of one method. `now` is the time since any fixed moment, the same for all calls.
#[derive(Debug)]
pub struct Breaker {
    /// Generation in the upper half; [`Phase`] in the lowest two bits, [`Force`] in the two above.
    ///
    /// The generation counts changes: what was allowed in an earlier phase says nothing about this one.
    word: AtomicU64,
    in_a_row: AtomicU32,
    window: Window,
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

/// What a call, or a look at the window, gives cause to.
enum Cause {
    Row(u32),
    Share(String),
}

impl Breaker {
    /// Makes a closed breaker. `seed` decides the jitter of its waits.
    pub fn new(policy: Arc<Policy>, seed: u64) -> Self {
        let rest = Rest {
            state: State::Closed,
            openings: 0,
            closed_at: Duration::ZERO,
            is_partial: false,
            random: fastrand::Rng::with_seed(seed),
        };
        Self {
            word: AtomicU64::new(0),
            in_a_row: AtomicU32::new(0),
            window: Window::new(policy.window),
            slow_call: AtomicU64::new(slow_nanos(&policy)),
            policy: ArcSwap::new(policy),
            rest: Mutex::new(rest),
        }
    }

    /// Takes another policy. What was counted stays.
    pub fn set_policy(&self, now: Duration, policy: Arc<Policy>) {
        let _rest = self.lock();
        self.window.resize(nanos(now), policy.window);
        self.slow_call.store(slow_nanos(&policy), Ordering::Relaxed);
        self.policy.store(policy);
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
            Phase::Closed => Some(Permit { generation: generation(word) }),
            Phase::Open => None,
            Phase::HalfOpen => {
                let mut rest = self.lock();
                // It may have moved on before it was locked.
                rest.state = match rest.state {
                    State::HalfOpen { .. } => self.trial(now(), &rest)?,
                    State::Closed if self.phase() == Phase::Closed => State::Closed,
                    State::Closed | State::Open { .. } => return None,
                };
                Some(Permit { generation: self.generation() })
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
        Permit { generation: self.generation() }
    }

    /// Takes a permit back with how the call went and how long it took. `may_open` is asked before a share opens it;
    /// failures in a row always do.
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
        let is_slow = nanos(took) >= self.slow_call.load(Ordering::Relaxed);
        if phase(word) == Phase::Closed && verdict == Verdict::Success && !is_slow {
            // Nearly every call of nearly every breaker.
            if self.in_a_row.load(Ordering::Relaxed) != 0 {
                self.in_a_row.store(0, Ordering::Relaxed);
            }
            self.window.count(nanos(now), false, false);
            return None;
        }
        match phase(word) {
            Phase::Closed => self.count(now, verdict, is_slow, may_open),
            Phase::HalfOpen => self.tried(now, permit.generation, verdict),
            // Nothing was let through in this phase.
            Phase::Open => None,
        }
    }

    /// Counts a connection that could not be made.
    pub fn refused(&self, now: Duration, why: &str) -> Option<Transition> {
        match self.phase() {
            Phase::Closed => self.count(now, Verdict::Failure(why), false, || true),
            Phase::HalfOpen => {
                let mut rest = self.lock();
                let is_half_open = matches!(rest.state, State::HalfOpen { .. });
                is_half_open.then(|| self.open(&mut rest, now, format!("the connection was lost: {why}")))
            }
            Phase::Open => None,
        }
    }

    /// Looks at the window without a call: a share that is reached opens it, a row as old as the window is forgotten.
    pub fn sweep(&self, now: Duration, may_open: impl FnOnce() -> bool) -> Option<Transition> {
        if self.phase() != Phase::Closed {
            return None;
        }
        let sums = self.window.sweep(nanos(now));
        if sums.calls == 0 {
            self.in_a_row.store(0, Ordering::Relaxed);
            return None;
        }
        self.judge(now, 0, "", may_open)
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

    /// Takes the outcome of a probe: half open if the instance is up, a longer wait if not.
    pub fn probed(&self, now: Duration, is_up: bool) -> Option<Transition> {
        let mut rest = self.lock();
        let State::Open { trial_at, .. } = rest.state else { return None };
        if self.force() != Force::None {
            return None;
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
        self.in_a_row.store(0, Ordering::Relaxed);
        self.window.clear();
        (before != to).then(|| Transition { to, reason: why.to_owned() })
    }

    #[cold]
    fn count(
        &self,
        now: Duration,
        verdict: Verdict<'_>,
        is_slow: bool,
        may_open: impl FnOnce() -> bool,
    ) -> Option<Transition> {
        let (row, why) = match verdict {
            Verdict::Nothing => return None,
            Verdict::Success => {
                self.in_a_row.store(0, Ordering::Relaxed);
                self.window.count(nanos(now), false, is_slow);
                if !is_slow {
                    return None;
                }
                (0, "")
            }
            Verdict::Failure(why) => (self.in_a_row.fetch_add(1, Ordering::Relaxed) + 1, why),
            Verdict::Overload(why) => (0, why),
        };
        if verdict != Verdict::Success {
            self.window.count(nanos(now), true, is_slow);
        }
        self.judge(now, row, why, may_open)
    }

    /// Opens the breaker if there is cause to.
    fn judge(&self, now: Duration, row: u32, why: &str, may_open: impl FnOnce() -> bool) -> Option<Transition> {
        let policy = self.policy.load();
        if policy.is_disabled {
            return None;
        }
        let cause = self.cause(now, row, &policy)?;
        let mut rest = self.lock();
        // Somebody else may have opened it, or an operator decided.
        if !matches!(rest.state, State::Closed) || self.force() != Force::None {
            return None;
        }
        let (is_partial, reason) = match cause {
            Cause::Row(row) => (false, format!("{row} failures in a row")),
            Cause::Share(reason) if may_open() => (true, reason),
            Cause::Share(_) => return None,
        };
        rest.is_partial = is_partial;
        let reason = if why.is_empty() { reason } else { format!("{reason}: {why}") };
        Some(self.open(&mut rest, now, reason))
    }

    fn cause(&self, now: Duration, row: u32, policy: &Policy) -> Option<Cause> {
        if policy.failures_in_a_row > 0 && row >= policy.failures_in_a_row {
            return Some(Cause::Row(row));
        }
        let sums = self.window.sums(nanos(now));
        let is_share = |part: u64, percent: u32| {
            percent > 0 && sums.calls >= u64::from(policy.calls_min) && part * 100 >= sums.calls * u64::from(percent)
        };
        if is_share(sums.failures, policy.failure_percent) {
            Some(Cause::Share(format!("{} of {} calls failed", sums.failures, sums.calls)))
        } else if policy.slow_call.is_some() && is_share(sums.slow, policy.slow_percent) {
            Some(Cause::Share(format!("{} of {} calls were slow", sums.slow, sums.calls)))
        } else {
            None
        }
    }

    /// A trial call has ended.
    #[cold]
    fn tried(&self, now: Duration, permitted: u32, verdict: Verdict<'_>) -> Option<Transition> {
        let mut rest = self.lock();
        let State::HalfOpen { out, successes, granted_at } = rest.state else { return None };
        if permitted != self.generation() {
            return None;
        }
        let out = out.saturating_sub(1);
        match verdict {
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
        self.in_a_row.store(0, Ordering::Relaxed);
        self.window.clear();
        rest.closed_at = now;
        self.enter(rest, State::Closed, Force::None);
        Transition { to: Phase::Closed, reason }
    }

    fn enter(&self, rest: &mut Rest, state: State, force: Force) {
        rest.state = state;
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

fn phase(word: u64) -> Phase {
    match word & 3 {
        0 => Phase::Closed,
        1 => Phase::Open,
        _ => Phase::HalfOpen,
    }
}

fn force(word: u64) -> Force {
    match word >> 2 & 3 {
        0 => Force::None,
        1 => Force::Open,
        _ => Force::Closed,
    }
}

fn generation(word: u64) -> u32 {
    u32::try_from(word >> 32).expect("the upper half of a word")
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
