//! Leave to make a call, and how fast the call turns out to be.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::waiting::Place;
use super::{Breaker, nanos};

/// Leave to make one call. Give it back to [`Breaker::record`].
#[derive(Debug)]
#[must_use = "a permit that is not given back blocks a trial call"]
pub struct Permit {
    pub(super) generation: u32,
    pace: Pace,
}

/// What is known of how long a call takes.
#[derive(Clone, Copy, Debug)]
enum Pace {
    /// Its end will tell.
    Unwatched,
    /// It is not answered yet.
    Waits(Place),
    /// It was answered, or given up for slow.
    Known(Speed),
}

/// How fast a call was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speed {
    Quick,
    Slow,
    /// It was counted as slow before it ended.
    Counted,
}

impl Permit {
    pub(super) fn new(generation: u32) -> Self {
        Self { generation, pace: Pace::Unwatched }
    }
}

impl Breaker {
    /// The call is sent. From now on it counts as slow once it has waited for so long, answered or not.
    #[inline]
    pub fn begin(&self, now: Duration, permit: &mut Permit) {
        let slow = self.slow_call.load(Ordering::Relaxed);
        if slow != u64::MAX
            && let Some(place) = self.waiting.enter(nanos(now), slow)
        {
            permit.pace = Pace::Waits(place);
        }
    }

    /// The call is answered, though perhaps not over: a stream is judged up to here.
    #[inline]
    pub fn answered(&self, permit: &mut Permit, took: Duration) {
        permit.pace = Pace::Known(self.speed(permit, took, true));
    }

    /// How fast a call turned out to be. `is_answer` unless it failed or was given up.
    #[inline]
    pub(super) fn speed(&self, permit: &Permit, took: Duration, is_answer: bool) -> Speed {
        let is_slow = nanos(took) >= self.slow_call.load(Ordering::Relaxed);
        let judged = if is_slow { Speed::Slow } else { Speed::Quick };
        match permit.pace {
            Pace::Unwatched => judged,
            // Of an earlier phase: its place may belong to somebody else by now, and it counts nothing any more.
            Pace::Waits(_) if permit.generation != self.generation() => Speed::Counted,
            Pace::Waits(place) if self.waiting.leave(place, is_answer && !is_slow) => judged,
            Pace::Waits(_) => Speed::Counted,
            Pace::Known(speed) => speed,
        }
    }
}
