//! Where an instance is in its life: a machine that is fed with what its session hears, and tells one state. Pure.
//!
//! ```text
//!  STARTING ──says──▶ SERVING ◀──checks──▶ NOT_SERVING
//!      any ──says──▶ DRAINING        any ──session lost──▶ SUSPECT ──comes back──▶ what it says
//!      any ──leaves──▶ GONE          SUSPECT ──grace over──▶ GONE
//! ```
//! What operators decide, and what callers report, is laid over this by whoever reads: see
//! [`Instance::standing`](crate::model::Instance::standing).

use crate::model::{Check, State};

/// What is known of an instance's life.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    /// What it says of itself, and why.
    said: (State, String),
    /// Why it is not well, if its health check says so.
    unwell: Option<String>,
    /// Why its session is lost, if it is.
    lost: Option<String>,
    /// Why it left, if it did.
    left: Option<String>,
}

impl Life {
    /// Begins with what an instance says of itself.
    pub(crate) fn begin(state: State) -> Self {
        Self { said: (state, String::new()), unwell: None, lost: None, left: None }
    }

    /// It says something else of itself.
    pub(crate) fn say(&mut self, state: State, reason: String) {
        self.said = (state, reason);
    }

    /// Its health check found something.
    pub(crate) fn examine(&mut self, unwell: Option<String>) {
        self.unwell = unwell;
    }

    /// Its session is lost.
    pub(crate) fn lose(&mut self, why: String) {
        self.lost = Some(why);
    }

    /// It left, or is given up. Nothing changes after this.
    pub(crate) fn leave(&mut self, why: String) {
        self.left.get_or_insert(why);
    }

    /// Where it is, and why. What is graver counts first; one that drains is not called, well or not.
    pub(crate) fn standing(&self) -> (State, &str) {
        if let Some(why) = &self.left {
            return (State::Gone, why);
        }
        if let Some(why) = &self.lost {
            return (State::Suspect, why);
        }
        match (&self.said, &self.unwell) {
            ((State::Serving | State::Starting, _), Some(why)) => (State::NotServing, why),
            ((state, reason), _) => (*state, reason),
        }
    }
}

/// Counts a health check's answers. An instance is believed to be well until it fails often enough in a row.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    rise: u32,
    fall: u32,
    is_well: bool,
    /// How many answers in a row say the contrary.
    contrary: u32,
}

impl Tally {
    /// Nothing is asked yet.
    pub(crate) fn new(check: &Check) -> Self {
        Self { rise: check.rise, fall: check.fall, is_well: true, contrary: 0 }
    }

    /// Counts an answer; tells whether the instance is well, if that has changed.
    pub(crate) fn count(&mut self, is_well: bool) -> Option<bool> {
        if is_well == self.is_well {
            self.contrary = 0;
            return None;
        }
        self.contrary += 1;
        let enough = if is_well { self.rise } else { self.fall };
        if self.contrary < enough {
            return None;
        }
        self.settle(is_well)
    }

    /// Takes the instance's own word, which needs no repetition; tells whether that changes anything.
    pub(crate) fn settle(&mut self, is_well: bool) -> Option<bool> {
        self.contrary = 0;
        (std::mem::replace(&mut self.is_well, is_well) != is_well).then_some(is_well)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::CheckKind;

    fn state(life: &Life) -> (State, &str) {
        life.standing()
    }

    #[test]
    fn what_is_graver_counts_first() {
        let mut life = Life::begin(State::Serving);
        assert_eq!(state(&life), (State::Serving, ""));
        life.examine(Some("it refuses connections".to_owned()));
        assert_eq!(state(&life), (State::NotServing, "it refuses connections"));
        life.say(State::Draining, "stopping".to_owned());
        assert_eq!(state(&life), (State::Draining, "stopping"));
        life.lose("session lost".to_owned());
        assert_eq!(state(&life), (State::Suspect, "session lost"));
        life.leave("its grace is over".to_owned());
        life.leave("again".to_owned());
        assert_eq!(state(&life), (State::Gone, "its grace is over"));
    }

    #[test]
    fn one_that_is_well_again_is_what_it_says() {
        let mut life = Life::begin(State::Starting);
        life.examine(Some("no answer".to_owned()));
        life.say(State::Serving, String::new());
        assert_eq!(state(&life).0, State::NotServing);
        life.examine(None);
        assert_eq!(state(&life), (State::Serving, ""));
        life.say(State::NotServing, "the disk is full".to_owned());
        assert_eq!(state(&life), (State::NotServing, "the disk is full"));
    }

    #[test]
    fn answers_in_a_row_count_and_single_ones_do_not() {
        let duration = Duration::from_secs(1);
        let check = Check { kind: CheckKind::Tcp, interval: duration, timeout: duration, rise: 2, fall: 3 };
        let mut tally = Tally::new(&check);
        let told: Vec<_> = [false, false, true, false, false, false, false, true, false, true, true, true]
            .map(|is_well| tally.count(is_well))
            .into();
        let mut wanted = vec![None; 12];
        (wanted[5], wanted[10]) = (Some(false), Some(true));
        assert_eq!(told, wanted);
        assert_eq!(tally.settle(false), Some(false));
        assert_eq!(tally.settle(false), None);
    }
}
