//! What the control loop did and why, as far as this node remembers.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use ninefold_proto::ninefold::control::v1::{Action, Decision};

/// Longest reason that is remembered, in characters; reasons hold lines that programs printed.
const REASON_CHARS_MAX: usize = 300;

/// A ring of decisions.
#[derive(Debug)]
pub(crate) struct Journal {
    decisions_max: usize,
    ring: Mutex<Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    decisions: VecDeque<Decision>,
    /// Number of the oldest that is still there; each has the number after its elder's.
    first: u64,
}

/// A decision without its time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) service: &'a str,
    pub(crate) slot: u32,
    pub(crate) instance_id: &'a str,
    pub(crate) action: Action,
    pub(crate) reason: &'a str,
}

/// Which decisions are asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query<'a> {
    /// Empty for all.
    pub(crate) service: &'a str,
    /// Empty for all.
    pub(crate) instance_id: &'a str,
    /// Only those with a smaller number.
    pub(crate) before: Option<u64>,
    pub(crate) limit: usize,
}

impl Journal {
    pub(crate) fn new(decisions_max: usize) -> Self {
        Self { decisions_max: decisions_max.max(1), ring: Mutex::default() }
    }

    /// Records a decision that is made now.
    pub(crate) fn record(&self, entry: Entry<'_>) {
        let reason: String = entry.reason.chars().take(REASON_CHARS_MAX).collect();
        let action = entry.action.as_str_name().trim_start_matches("ACTION_").to_lowercase();
        tracing::info!(service = entry.service, instance = entry.instance_id, action, reason, "decided");
        let decision = Decision {
            time: Some(SystemTime::now().into()),
            service: entry.service.to_owned(),
            slot: entry.slot,
            instance_id: entry.instance_id.to_owned(),
            action: entry.action.into(),
            reason,
        };
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.decisions.len() == self.decisions_max {
            ring.decisions.pop_front();
            ring.first += 1;
        }
        ring.decisions.push_back(decision);
    }

    /// Reads decisions, newest first, and where to go on if there are more.
    pub(crate) fn read(&self, query: Query<'_>) -> (Vec<Decision>, Option<u64>) {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let newest_first = ring.decisions.iter().enumerate().rev();
        let numbered = newest_first.map(|(index, decision)| (ring.first + index as u64, decision));
        let mut found = numbered.filter(|(number, decision)| {
            query.before.is_none_or(|before| *number < before)
                && (query.service.is_empty() || decision.service == query.service)
                && (query.instance_id.is_empty() || decision.instance_id == query.instance_id)
        });
        let page: Vec<_> = found.by_ref().take(query.limit).collect();
        let more = found.next().is_some();
        let last = page.last().map(|(number, _)| *number).filter(|_| more);
        (page.into_iter().map(|(_, decision)| decision.clone()).collect(), last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(count: u32, max: usize) -> Journal {
        let journal = Journal::new(max);
        for slot in 0..count {
            let service = if slot % 2 == 0 { "even" } else { "odd" };
            journal.record(Entry { service, slot, instance_id: "", action: Action::Start, reason: "2 wanted" });
        }
        journal
    }

    fn slots(decisions: &[Decision]) -> Vec<u32> {
        decisions.iter().map(|decision| decision.slot).collect()
    }

    #[test]
    fn the_newest_come_first_and_pages_go_on() {
        let journal = journal(5, 10);
        let query = Query { service: "even", instance_id: "", before: None, limit: 2 };
        let (page, next) = journal.read(query);
        assert_eq!(slots(&page), [4, 2]);
        let (page, next) = journal.read(Query { before: next, ..query });
        assert_eq!((slots(&page), next), (vec![0], None));
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let (page, _) = journal(5, 3).read(Query { service: "", instance_id: "", before: None, limit: 9 });
        assert_eq!(slots(&page), [4, 3, 2]);
    }
}
