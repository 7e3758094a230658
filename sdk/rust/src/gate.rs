//! Lets so many calls in at a time, the important ones first; the rest wait, few and briefly, or are refused.

mod limit;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::Instant;

pub(crate) use limit::{Baseline, Limit};

use crate::connect::Priority;

/// How many may be in, and wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Most calls in at a time. Sheddable calls get four fifths of it, others than critical ones nineteen twentieths.
    pub(crate) in_flight_max: u32,
    /// Most calls that wait.
    pub(crate) waiting_max: u32,
}

impl Bounds {
    /// How many may be in for another of this priority to enter. At least one.
    fn share(self, priority: Priority) -> u32 {
        let twentieths = match priority {
            Priority::Critical => 20,
            Priority::Default => 19,
            Priority::Sheddable => 16,
        };
        let share = (u64::from(self.in_flight_max) * twentieths).div_ceil(20);
        u32::try_from(share).unwrap_or(u32::MAX).max(1)
    }
}

/// Why a call was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// As many wait as may, or a more important one took the place.
    Full,
    /// Its turn did not come in time.
    Late,
}

/// A gate. Bounds come with each call, so that they can change at any time.
#[derive(Debug, Default)]
pub(crate) struct Gate(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    in_flight: u32,
    waiting: [VecDeque<oneshot::Sender<Pass>>; 3],
    /// The bounds of the last call that waited.
    bounds: Option<Bounds>,
}

/// Leave to be in. Dropping it lets the next one in.
#[derive(Debug)]
pub(crate) struct Pass(Option<Arc<Gate>>);

impl Gate {
    /// Lets a call in, or lets it wait for its turn until `until`. Dropping the future gives the place back.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        priority: Priority,
        bounds: Bounds,
        until: Instant,
    ) -> Result<Pass, Refusal> {
        let turn = match self.try_enter(priority, bounds) {
            Ok(pass) => return Ok(pass),
            Err(turn) => turn.ok_or(Refusal::Full)?,
        };
        match tokio::time::timeout_at(until, turn).await {
            Ok(Ok(pass)) => Ok(pass),
            Ok(Err(_)) => Err(Refusal::Full),
            Err(_) => Err(Refusal::Late),
        }
    }

    /// Lets a call in now, or gives it a turn, or neither.
    fn try_enter(
        self: &Arc<Self>,
        priority: Priority,
        bounds: Bounds,
    ) -> Result<Pass, Option<oneshot::Receiver<Pass>>> {
        let mut state = self.lock();
        if state.in_flight < bounds.share(priority) {
            state.in_flight += 1;
            return Ok(Pass(Some(self.clone())));
        }
        state.bounds = Some(bounds);
        for queue in &mut state.waiting {
            queue.retain(|turn| !turn.is_closed());
        }
        let waiting: usize = state.waiting.iter().map(VecDeque::len).sum();
        if waiting >= usize::try_from(bounds.waiting_max).unwrap_or(usize::MAX) {
            let below = &mut state.waiting[priority.index() + 1..];
            let Some(least) = below.iter_mut().rev().find(|queue| !queue.is_empty()) else { return Err(None) };
            // The one that waits the shortest loses the least.
            least.pop_back();
        }
        let (turn, comes) = oneshot::channel();
        state.waiting[priority.index()].push_back(turn);
        Err(Some(comes))
    }

    /// Calls that are in.
    pub(crate) fn in_flight(&self) -> u32 {
        self.lock().in_flight
    }

    /// Calls that wait for their turn.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().waiting.iter().map(VecDeque::len).sum()
    }

    fn leave(self: &Arc<Self>) {
        let mut state = self.lock();
        state.in_flight -= 1;
        let Some(bounds) = state.bounds else { return };
        for priority in Priority::ALL {
            while state.in_flight < bounds.share(priority) {
                let Some(turn) = state.waiting[priority.index()].pop_front() else { break };
                state.in_flight += 1;
                if let Err(mut pass) = turn.send(Pass(Some(self.clone()))) {
                    // Nobody waits for it any more. It must not come back here while the state is held.
                    pass.0 = None;
                    state.in_flight -= 1;
                }
            }
        }
        if state.waiting.iter().all(VecDeque::is_empty) {
            state.bounds = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(gate) = self.0.take() {
            gate.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::*;

    const ONE: Bounds = Bounds { in_flight_max: 1, waiting_max: 2 };

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(20)
    }

    #[tokio::test(start_paused = true)]
    async fn the_important_one_is_next_and_the_unimportant_one_makes_room() {
        let gate = Arc::new(Gate::default());
        let first = gate.enter(Priority::Default, ONE, soon()).await.unwrap();
        let mut usual = Box::pin(gate.enter(Priority::Default, ONE, soon()));
        let mut least = Box::pin(gate.enter(Priority::Sheddable, ONE, soon()));
        assert!((&mut usual).now_or_never().is_none() && (&mut least).now_or_never().is_none());
        let mut most = Box::pin(gate.enter(Priority::Critical, ONE, soon()));
        assert!((&mut most).now_or_never().is_none());
        assert_eq!(least.await.unwrap_err(), Refusal::Full);
        drop(first);
        let most = most.await.unwrap();
        assert!((&mut usual).now_or_never().is_none());
        drop(most);
        drop(usual.await.unwrap());
        assert_eq!((gate.in_flight(), gate.waiting()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_does_not_come_in_time_is_given_up() {
        let gate = Arc::new(Gate::default());
        let first = gate.enter(Priority::Default, ONE, soon()).await.unwrap();
        assert_eq!(gate.enter(Priority::Default, ONE, soon()).await.unwrap_err(), Refusal::Late);
        drop(first);
        assert!(gate.enter(Priority::Default, ONE, soon()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_came_and_was_not_taken_goes_to_the_next() {
        let gate = Arc::new(Gate::default());
        let first = gate.enter(Priority::Default, ONE, soon()).await.unwrap();
        let mut second = Box::pin(gate.enter(Priority::Default, ONE, soon()));
        let mut third = Box::pin(gate.enter(Priority::Default, ONE, soon()));
        assert!((&mut second).now_or_never().is_none() && (&mut third).now_or_never().is_none());
        drop(first);
        drop(second);
        assert!(third.await.is_ok());
        assert_eq!(gate.in_flight(), 0);
    }

    #[test]
    fn the_last_places_are_kept_for_what_matters() {
        let bounds = Bounds { in_flight_max: 20, waiting_max: 0 };
        assert_eq!(Priority::ALL.map(|priority| bounds.share(priority)), [20, 19, 16]);
        assert_eq!(Priority::ALL.map(|priority| ONE.share(priority)), [1, 1, 1]);
    }
}
