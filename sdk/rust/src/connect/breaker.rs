//! When to stop calling an instance, and when to try again. Pure: no clock, no tokio.
//!
//! A breaker is *closed* while calls go well. Failures in a row, or too large a share of failures, *open* it: nobody
//! calls. After a while a health probe in the background asks the instance; if it is up, the breaker is *half open* and
//! lets a few trial calls through, whose success closes it. Two triggers, because a total outage must be seen within a
//! few calls and a partial one has no failures in a row; exact counts, because decayed averages hide bursts.
//!
//! A connection that cannot be made counts as one failure, so an address that refuses opens its breaker after five
//! attempts of the connection's own backoff, with or without calls.

use std::time::Duration;

/// When a breaker opens, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How far back calls are counted.
    pub window: Duration,
    /// Calls within the window below which shares say nothing.
    pub calls_min: u32,
    /// Share of failed calls within the window, in percent, that opens it. Zero for never.
    pub failure_percent: u32,
    /// Failures in a row that open it. Zero for never.
    pub failures_in_a_row: u32,
    /// A call that takes longer is slow. `None`: slow calls are not judged.
    pub slow_call: Option<Duration>,
    /// Share of slow calls within the window, in percent, that opens it.
    pub slow_percent: u32,
    /// How long it stays open at first. Doubles with every opening in a row. When every breaker of a service is open, a
    /// trial call goes through after this while, however often they have opened: waiting longer would spare no other
    /// instance, and keep away the callers of one that is back.
    pub wait_min: Duration,
    /// How long it stays open at most.
    pub wait_max: Duration,
    /// Trial calls at one time while half open, and successes that close it.
    pub trials: u32,
    /// Most endpoints, in percent of a service's, that may be open at once. One is always left.
    pub ejection_percent_max: u32,
    /// Whether it never opens.
    pub is_disabled: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(10),
            calls_min: 20,
            failure_percent: 50,
            failures_in_a_row: 5,
            slow_call: None,
            slow_percent: 80,
            wait_min: Duration::from_secs(1),
            wait_max: Duration::from_secs(60),
            trials: 3,
            ejection_percent_max: 50,
            is_disabled: false,
        }
    }
}

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

/// A breaker moved to another phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Where it is now.
    pub to: Phase,
    /// Why, in a sentence fragment.
    pub reason: String,
}

/// How a call went, as far as the instance's health is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// The instance answered, even if it refused: a mistake of the caller is no failure of the callee.
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

/// A breaker of one endpoint. `now` is the time since any fixed moment, the same for all calls.
#[derive(Debug)]
pub struct Breaker {
    policy: Policy,
    state: State,
    /// Counts changes of phase: what was allowed in an earlier phase says nothing about this one.
    generation: u32,
    in_a_row: u32,
    window: Window,
    /// Openings in a row without a good while between them.
    openings: u32,
    closed_at: Duration,
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
    pub fn new(policy: Policy, seed: u64) -> Self {
        let window = Window::new(policy.window);
        Self {
            policy,
            state: State::Closed,
            generation: 0,
            in_a_row: 0,
            window,
            openings: 0,
            closed_at: Duration::ZERO,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// Where the breaker is.
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Closed => Phase::Closed,
            State::Open { .. } => Phase::Open,
            State::HalfOpen { .. } => Phase::HalfOpen,
        }
    }

    /// How often the phase has changed.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Whether a call would be let through now.
    pub fn admits(&self, now: Duration) -> bool {
        match self.state {
            State::Closed => true,
            State::Open { .. } => false,
            // A trial call that is a long stream must not hold its permit for good.
            State::HalfOpen { out, granted_at, .. } => {
                out < self.policy.trials || now.saturating_sub(granted_at) >= self.policy.window
            }
        }
    }

    /// Lets a call through, if calls may go.
    pub fn admit(&mut self, now: Duration) -> Option<Permit> {
        if !self.admits(now) {
            return None;
        }
        let trial_calls = self.policy.trials;
        if let State::HalfOpen { out, granted_at, .. } = &mut self.state {
            *out = if *out < trial_calls { *out + 1 } else { 1 };
            *granted_at = now;
        }
        Some(Permit { generation: self.generation })
    }

    /// Lets a trial call through although no probe has succeeded, if the first wait is over: for when every breaker of
    /// a service is open, and refusing all would be worse than trying.
    pub fn admit_unprobed(&mut self, now: Duration) -> Option<(Permit, Transition)> {
        match self.state {
            State::Open { trial_at, .. } if trial_at <= now => {
                let transition = self.half_open(now, "every breaker of the service is open".to_owned());
                self.admit(now).map(|permit| (permit, transition))
            }
            State::Open { .. } | State::Closed | State::HalfOpen { .. } => None,
        }
    }

    /// Takes a permit back with how the call went.
    #[expect(clippy::needless_pass_by_value, reason = "a permit is given back once")]
    pub fn record(&mut self, now: Duration, permit: Permit, verdict: Verdict<'_>) -> Option<Transition> {
        if permit.generation != self.generation {
            return None;
        }
        match self.state {
            State::Closed => self.count(now, verdict),
            State::HalfOpen { out, successes, granted_at } => {
                let out = out.saturating_sub(1);
                match verdict {
                    Verdict::Success if successes + 1 >= self.policy.trials => {
                        Some(self.close(now, format!("{} trial calls succeeded", successes + 1)))
                    }
                    Verdict::Success => {
                        self.state = State::HalfOpen { out, successes: successes + 1, granted_at };
                        None
                    }
                    Verdict::Failure(why) | Verdict::Overload(why) => {
                        Some(self.open(now, format!("a trial call failed: {why}")))
                    }
                    Verdict::Nothing => {
                        self.state = State::HalfOpen { out, successes, granted_at };
                        None
                    }
                }
            }
            // Nothing was let through in this phase.
            State::Open { .. } => None,
        }
    }

    /// Counts a connection that could not be made.
    pub fn refused(&mut self, now: Duration, why: &str) -> Option<Transition> {
        match self.state {
            State::Closed => self.count(now, Verdict::Failure(why)),
            State::HalfOpen { .. } => Some(self.open(now, format!("the connection was lost: {why}"))),
            State::Open { .. } => None,
        }
    }

    /// When the instance is to be probed, while the breaker is open.
    pub fn probe_at(&self) -> Option<Duration> {
        match self.state {
            State::Open { probe_at, .. } => Some(probe_at),
            State::Closed | State::HalfOpen { .. } => None,
        }
    }

    /// When the next call may go through, while the breaker is open: a trial, or else one after the next probe.
    pub fn next_at(&self, now: Duration) -> Option<Duration> {
        match self.state {
            State::Open { probe_at, trial_at } => Some(if trial_at > now { trial_at } else { probe_at }),
            State::Closed | State::HalfOpen { .. } => None,
        }
    }

    /// Takes the outcome of a probe: half open if the instance is up, a longer wait if not.
    pub fn probed(&mut self, now: Duration, is_up: bool) -> Option<Transition> {
        let State::Open { trial_at, .. } = self.state else { return None };
        if is_up {
            return Some(self.half_open(now, "the health probe succeeded".to_owned()));
        }
        self.state = State::Open { probe_at: now + self.wait(), trial_at };
        None
    }

    fn count(&mut self, now: Duration, verdict: Verdict<'_>) -> Option<Transition> {
        let why = match verdict {
            Verdict::Nothing => return None,
            Verdict::Success => {
                self.in_a_row = 0;
                self.window.count(now, false);
                return None;
            }
            Verdict::Failure(why) => {
                self.in_a_row += 1;
                why
            }
            Verdict::Overload(why) => why,
        };
        self.window.count(now, true);
        let (calls, failures) = self.window.sums(now);
        let is_share_reached = calls >= self.policy.calls_min
            && u64::from(failures) * 100 >= u64::from(calls) * u64::from(self.policy.failure_percent);
        if self.in_a_row >= self.policy.failures_in_a_row {
            Some(self.open(now, format!("{} failures in a row: {why}", self.in_a_row)))
        } else if is_share_reached {
            Some(self.open(now, format!("{failures} of {calls} calls failed: {why}")))
        } else {
            None
        }
    }

    fn open(&mut self, now: Duration, reason: String) -> Transition {
        // An instance that has gone well for long enough starts anew.
        if matches!(self.state, State::Closed) && now.saturating_sub(self.closed_at) >= self.policy.wait_max {
            self.openings = 0;
        }
        let trial = self.jittered(self.policy.wait_min);
        let wait = self.wait();
        self.enter(State::Open { probe_at: now + wait, trial_at: now + wait.min(trial) });
        Transition { to: Phase::Open, reason }
    }

    fn half_open(&mut self, now: Duration, reason: String) -> Transition {
        self.enter(State::HalfOpen { out: 0, successes: 0, granted_at: now });
        Transition { to: Phase::HalfOpen, reason }
    }

    fn close(&mut self, now: Duration, reason: String) -> Transition {
        self.enter(State::Closed);
        self.closed_at = now;
        self.in_a_row = 0;
        self.window = Window::new(self.policy.window);
        Transition { to: Phase::Closed, reason }
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.generation = self.generation.wrapping_add(1);
    }

    /// The next wait: doubled each time, and up to a fifth longer or shorter so that callers do not come back at once.
    fn wait(&mut self) -> Duration {
        let doubled = self.policy.wait_min.saturating_mul(2_u32.saturating_pow(self.openings));
        self.openings = self.openings.saturating_add(1);
        self.jittered(doubled.min(self.policy.wait_max))
    }

    fn jittered(&mut self, wait: Duration) -> Duration {
        wait.mul_f64(0.8 + 0.4 * self.random.f64())
    }
}

const SLOTS: usize = 10;

/// Calls and failures of the last while, in ten slots.
#[derive(Debug)]
struct Window {
    slot: Duration,
    slots: [Slot; SLOTS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    number: u128,
    calls: u32,
    failures: u32,
}

impl Window {
    fn new(length: Duration) -> Self {
        let slot = (length / 10).max(Duration::from_millis(1));
        Self { slot, slots: [Slot::default(); SLOTS] }
    }

    fn number(&self, now: Duration) -> u128 {
        now.as_nanos() / self.slot.as_nanos()
    }

    fn count(&mut self, now: Duration, is_failure: bool) {
        let number = self.number(now);
        let index = usize::try_from(number % 10).expect("below ten");
        let slot = &mut self.slots[index];
        if slot.number != number {
            *slot = Slot { number, ..Slot::default() };
        }
        slot.calls = slot.calls.saturating_add(1);
        slot.failures = slot.failures.saturating_add(u32::from(is_failure));
    }

    /// Calls and failures in the window.
    fn sums(&self, now: Duration) -> (u32, u32) {
        let oldest = self.number(now).saturating_sub(9);
        self.slots.iter().filter(|slot| slot.number >= oldest).fold((0, 0), |(calls, failures), slot| {
            (calls.saturating_add(slot.calls), failures.saturating_add(slot.failures))
        })
    }
}

#[cfg(test)]
mod tests;
