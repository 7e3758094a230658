//! Whom callers report, and when that counts. Pure.
//!
//! A report is a caller's word that its breaker opened. So many callers make an instance suspect, for as long as their
//! reports stand; but never more than a share of a service, and never the last that serves: reporters cannot empty it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{Instance, InstanceId, InstanceKey, ServiceKey, State};
use crate::table::Table;

/// When reports count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    /// So many callers are enough, however many there are.
    pub(crate) quorum: usize,
    /// This share of the callers, in percent, is enough as well, if they are two or more.
    pub(crate) quorum_percent: usize,
    /// Most of a service, in percent, that may be suspect by reports.
    pub(crate) share_percent: usize,
}

/// Fewest callers whose word counts.
const QUORUM_MIN: usize = 2;

impl Rule {
    /// How many callers it takes, of so many that are known. None known: the usual number.
    pub(crate) fn quorum(&self, callers: usize) -> usize {
        let share = (callers * self.quorum_percent).div_ceil(100);
        if callers == 0 { self.quorum } else { self.quorum.min(share).max(QUORUM_MIN) }
    }

    /// How many instances of a service with `count` may be suspect by reports.
    pub(crate) fn share(&self, count: usize) -> usize {
        count * self.share_percent / 100
    }
}

/// Whom this node holds suspect: its own table tells it only a moment after it has decided.
#[derive(Debug)]
pub(crate) struct Suspects {
    rule: Rule,
    held: BTreeMap<ServiceKey, BTreeSet<InstanceId>>,
}

impl Suspects {
    /// Nobody is suspect yet.
    pub(crate) fn new(rule: Rule) -> Self {
        Self { rule, held: BTreeMap::new() }
    }

    /// Decides whether an instance is suspect by reports; tells what is reported, or nothing. `callers` is how many callers
    /// of the service are known.
    pub(crate) fn judge(&mut self, table: &Table, key: &InstanceKey, callers: usize) -> String {
        let reporters = table.reporters(key);
        let is_suspect = reporters >= self.rule.quorum(callers) && self.has_room(table, key);
        if is_suspect {
            self.held.entry(key.service.clone()).or_default().insert(key.id.clone());
            format!("{reporters} callers report it: their breakers opened")
        } else {
            self.release(key);
            String::new()
        }
    }

    /// Forgets an instance that is not this node's any more.
    pub(crate) fn release(&mut self, key: &InstanceKey) {
        if let Some(held) = self.held.get_mut(&key.service) {
            held.remove(&key.id);
            if held.is_empty() {
                self.held.remove(&key.service);
            }
        }
    }

    /// Whether one more of the service may be suspect: the share allows it, and another one serves.
    fn has_room(&self, table: &Table, key: &InstanceKey) -> bool {
        let held = self.held.get(&key.service);
        let is_held = |one: &Arc<Instance>| held.is_some_and(|held| held.contains(&one.key.id));
        let others = || table.of(&key.service).filter(|one| one.key != *key);
        let suspect = others().filter(|one| !one.reported.is_empty() || is_held(one)).count();
        let serves = others().any(|one| one.stands_as(State::Serving) && !is_held(one));
        serves && suspect < self.rule.share(table.count(&key.service))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_is_three_callers_or_a_share_of_them_and_never_one() {
        let rule = Rule { quorum: 3, quorum_percent: 30, share_percent: 30 };
        let told = [0, 1, 2, 5, 6, 7, 10, 1000].map(|callers| rule.quorum(callers));
        assert_eq!(told, [3, 2, 2, 2, 2, 3, 3, 3]);
    }

    #[test]
    fn a_share_is_rounded_down() {
        let rule = Rule { quorum: 3, quorum_percent: 30, share_percent: 30 };
        assert_eq!([1, 3, 4, 6, 7, 10, 100].map(|count| rule.share(count)), [0, 0, 1, 1, 2, 3, 30]);
    }
}
