//! What opens a breaker that is closed.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::permit::Speed;
use super::{Breaker, Force, Policy, State, Transition, Verdict, nanos};

/// What a call, or a look at the window, gives cause to.
enum Cause {
    Row(u32),
    Share(String),
}

impl Breaker {
    /// Forgets what was counted.
    pub(super) fn forget(&self) {
        self.in_a_row.store(0, Ordering::Relaxed);
        self.slow_in_a_row.store(0, Ordering::Relaxed);
        self.window.clear();
    }

    #[cold]
    pub(super) fn count(
        &self,
        now: Duration,
        verdict: Verdict<'_>,
        speed: Speed,
        may_open: impl FnOnce() -> bool,
    ) -> Option<Transition> {
        let (row, why) = match verdict {
            Verdict::Nothing => return None,
            Verdict::Success => {
                self.in_a_row.store(0, Ordering::Relaxed);
                (0, "")
            }
            Verdict::Failure(why) => (self.in_a_row.fetch_add(1, Ordering::Relaxed) + 1, why),
            Verdict::Overload(why) => (0, why),
        };
        let is_failure = verdict != Verdict::Success;
        match speed {
            Speed::Counted if is_failure => self.window.count_failure(nanos(now)),
            Speed::Counted => {}
            Speed::Quick | Speed::Slow => self.window.count(nanos(now), is_failure, speed == Speed::Slow),
        }
        if speed == Speed::Slow {
            self.slow_in_a_row.fetch_add(1, Ordering::Relaxed);
        }
        if speed == Speed::Quick && !is_failure {
            return None;
        }
        self.judge(now, row, why, may_open)
    }

    /// Opens the breaker if there is cause to.
    pub(super) fn judge(
        &self,
        now: Duration,
        row: u32,
        why: &str,
        may_open: impl FnOnce() -> bool,
    ) -> Option<Transition> {
        let policy = self.policy.load();
        if policy.is_disabled {
            return None;
        }
        let cause = self.cause(now, row, &policy)?;
        let mut rest = self.lock();
        // Somebody else may have opened it, or an operator or another policy decided.
        if !matches!(rest.state, State::Closed) || self.force() != Force::None || self.policy.load().is_disabled {
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
        let (slow, slow_row) = (self.slow_call.load(Ordering::Relaxed), self.slow_in_a_row.load(Ordering::Relaxed));
        let is_slow_judged = slow != u64::MAX;
        if is_slow_judged && policy.slow_calls_in_a_row > 0 && slow_row >= policy.slow_calls_in_a_row {
            let slow = Duration::from_millis(slow.div_ceil(1_000_000));
            return Some(Cause::Share(format!("{slow_row} calls in a row took longer than {slow:?}")));
        }
        let sums = self.window.sums(nanos(now));
        let is_share = |part: u64, percent: u32| {
            percent > 0 && sums.calls >= u64::from(policy.calls_min) && part * 100 >= sums.calls * u64::from(percent)
        };
        if is_share(sums.failures, policy.failure_percent) {
            Some(Cause::Share(format!("{} of {} calls failed", sums.failures, sums.calls)))
        } else if is_slow_judged && is_share(sums.slow, policy.slow_percent) {
            Some(Cause::Share(format!("{} of {} calls were slow", sums.slow, sums.calls)))
        } else {
            None
        }
    }
}
