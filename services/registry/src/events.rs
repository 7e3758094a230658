//! What happened, as far as the node remembers. Pure.

use std::collections::VecDeque;
use std::time::SystemTime;

use crate::model::{Event, EventKind, Instance, State};
use crate::table::{Now, Step};

/// Place of an event in a node's memory; later events have greater ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(pub(crate) u64);

/// A bounded memory of events.
#[derive(Debug)]
pub(crate) struct Log {
    /// Oldest first.
    events: VecDeque<Event>,
    /// Place of the first in `events`.
    first: u64,
    events_max: usize,
}

/// A page of events, newest first.
#[derive(Debug)]
pub(crate) struct Page {
    /// The events.
    pub(crate) events: Vec<Event>,
    /// Where to go on: events before this place. `None` at the end.
    pub(crate) rest: Option<Place>,
}

impl Log {
    /// An empty memory of at most `events_max` events.
    pub(crate) fn new(events_max: usize) -> Self {
        Self { events: VecDeque::new(), first: 0, events_max }
    }

    /// Remembers an event, and forgets the oldest if there are too many.
    pub(crate) fn push(&mut self, event: Event) {
        self.events.push_back(event);
        while self.events.len() > self.events_max {
            self.events.pop_front();
            self.first += 1;
        }
    }

    /// At most `limit` events that `wanted` says yes to, newest first, before a place if one is given.
    pub(crate) fn page(&self, before: Option<Place>, limit: usize, wanted: impl Fn(&Event) -> bool) -> Page {
        let after_last = self.first + u64::try_from(self.events.len()).unwrap_or(u64::MAX);
        let numbered = (self.first..after_last).rev().zip(self.events.iter().rev());
        let mut matching =
            numbered.filter(|(place, event)| before.is_none_or(|before| *place < before.0) && wanted(event)).peekable();
        let mut events = Vec::new();
        let mut last = None;
        while events.len() < limit {
            let Some((place, event)) = matching.next() else { break };
            events.push(event.clone());
            last = Some(Place(place));
        }
        Page { events, rest: last.filter(|_| matching.peek().is_some()) }
    }
}

/// Tells a step of the table as events; `now` is the time of what has no time of its own.
pub(crate) fn tell(step: &Step, now: SystemTime) -> Vec<Event> {
    let event = |kind, reason: &str, time| Event::of(&step.key, kind, reason.to_owned(), time);
    match &step.now {
        Now::Here(here) => {
            let told = changes(step.before.as_deref(), here, now);
            told.into_iter().map(|(kind, reason, time)| event(kind, &reason, time)).collect()
        }
        Now::Left(left) => {
            let was_lost = step.before.as_ref().is_some_and(|before| before.state == State::Suspect);
            let kind = if was_lost { EventKind::Expired } else { EventKind::Deregistered };
            vec![event(kind, &left.state_reason, left.changed)]
        }
        Now::Vanished => vec![event(EventKind::Expired, "its lease ran out", now)],
        Now::Reported => Vec::new(),
    }
}

/// What changed of an instance that is there: kind, reason and time of each thing.
fn changes(before: Option<&Instance>, here: &Instance, now: SystemTime) -> Vec<(EventKind, String, SystemTime)> {
    let mut told = Vec::new();
    match before {
        None => {
            let reason = if here.version.is_empty() { String::new() } else { format!("version {}", here.version) };
            // Now, not when its state last changed: one that lost its record comes back with its state of old.
            told.push((EventKind::Registered, reason, now));
        }
        Some(before) if before.node != here.node => {
            told.push((EventKind::Moved, format!("from {} to {}", before.node, here.node), now));
        }
        Some(_) => {}
    }
    let decided = before.and_then(|before| before.decided.as_ref());
    if decided != here.decided.as_ref() {
        told.push(match &here.decided {
            Some(decided) => (EventKind::OverrideSet, decided.to_string(), decided.time),
            None => (EventKind::OverrideCleared, String::new(), now),
        });
    }
    let ((state, reason), was) = (here.standing(), before.map(|before| before.standing().0));
    if was != Some(state) {
        let kind = match state {
            State::Serving => Some(EventKind::Serving),
            State::Draining => Some(EventKind::Draining),
            State::Suspect if here.state == State::Suspect => Some(EventKind::Suspect),
            State::Suspect => Some(EventKind::Reported),
            State::NotServing => Some(EventKind::NotServing),
            // Back after its session was lost; a new one has been told above.
            State::Starting => was.is_some().then_some(EventKind::Registered),
            State::Gone => None,
        };
        // The time of its own change, unless others changed it.
        let is_own = before.is_some_and(|before| before.state != here.state && before.changed != here.changed)
            && here.state == state;
        told.extend(kind.map(|kind| (kind, reason, if is_own { here.changed } else { now })));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::REGISTRY;

    fn event(number: usize) -> Event {
        Event {
            time: SystemTime::UNIX_EPOCH,
            namespace: "default".to_owned(),
            service: if number.is_multiple_of(2) { "even" } else { "odd" }.to_owned(),
            instance: number.to_string(),
            kind: EventKind::Serving,
            reason: String::new(),
            observer: REGISTRY.to_owned(),
        }
    }

    #[test]
    fn the_newest_events_come_first_and_the_oldest_are_forgotten() {
        let mut log = Log::new(4);
        (0..6).for_each(|number| log.push(event(number)));
        let numbers = |page: &Page| page.events.iter().map(|one| one.instance.clone()).collect::<Vec<_>>();
        let page = log.page(None, 3, |_| true);
        assert_eq!(numbers(&page), ["5", "4", "3"]);
        log.push(event(6));
        let rest = log.page(page.rest, 3, |_| true);
        assert_eq!(numbers(&rest), [] as [&str; 0], "what was forgotten meanwhile is not told");
        assert_eq!(rest.rest, None);
    }

    #[test]
    fn a_page_holds_only_what_is_wanted() {
        let mut log = Log::new(10);
        (0..6).for_each(|number| log.push(event(number)));
        let page = log.page(None, 2, |one| one.service == "odd");
        assert_eq!(page.events.iter().map(|one| one.instance.as_str()).collect::<Vec<_>>(), ["5", "3"]);
        let page = log.page(page.rest, 2, |one| one.service == "odd");
        assert_eq!(page.events.len(), 1);
        assert_eq!(page.rest, None);
    }
}
