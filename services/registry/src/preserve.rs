//! Self-preservation: when too many instances of a service fall silent at once, it is the network that is ill, or this
//! node, and not they. Then none is removed for its silence. Pure: time comes in as an argument.
//!
//! Each service has its own. Whoever says goodbye goes at once; only silence is doubted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::model::{InstanceId, InstanceKey, ServiceKey};

/// When silence is doubted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    /// Silences are counted over this long. Zero: no silence is doubted.
    pub(crate) window: Duration,
    /// More than this share of a service, in percent, …
    pub(crate) percent: usize,
    /// … and more than this many.
    pub(crate) count: usize,
}

/// Who fell silent lately.
#[derive(Debug)]
pub(crate) struct Losses {
    rule: Rule,
    services: BTreeMap<ServiceKey, Silent>,
}

#[derive(Debug, Default)]
struct Silent {
    /// Since when; and whether it was removed already.
    instances: BTreeMap<InstanceId, (Duration, bool)>,
    is_kept: bool,
}

/// What is to become of the silent instances of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// They go.
    Remove,
    /// They stay: so many of so many fell silent.
    Keep {
        /// How many.
        lost: usize,
        /// Of how many.
        of: usize,
    },
}

impl Losses {
    /// Nobody is silent yet.
    pub(crate) fn new(rule: Rule) -> Self {
        Self { rule, services: BTreeMap::new() }
    }

    /// An instance fell silent.
    pub(crate) fn silent(&mut self, key: &InstanceKey, now: Duration) {
        self.forget(now);
        let silent = self.services.entry(key.service.clone()).or_default();
        silent.instances.entry(key.id.clone()).or_insert((now, false));
    }

    /// A silent instance was removed.
    pub(crate) fn removed(&mut self, key: &InstanceKey) {
        if let Some((_, removed)) =
            self.services.get_mut(&key.service).and_then(|silent| silent.instances.get_mut(&key.id))
        {
            *removed = true;
        }
    }

    /// An instance is heard again, or said goodbye.
    pub(crate) fn heard(&mut self, key: &InstanceKey) {
        if let Some(silent) = self.services.get_mut(&key.service) {
            silent.instances.remove(&key.id);
            if silent.instances.is_empty() && !silent.is_kept {
                self.services.remove(&key.service);
            }
        }
    }

    /// Services of which somebody fell silent lately, or whose instances are kept.
    pub(crate) fn concerned(&self) -> BTreeSet<ServiceKey> {
        self.services.keys().cloned().collect()
    }

    /// What is to become of the silent instances of a service that has `present` instances, the silent included; and
    /// whether that is news.
    pub(crate) fn judge(&mut self, service: &ServiceKey, present: usize, now: Duration) -> (Verdict, bool) {
        self.forget(now);
        let Some(silent) = self.services.get_mut(service) else { return (Verdict::Remove, false) };
        let lost = silent.instances.len();
        let of = present + silent.instances.values().filter(|(_, removed)| *removed).count();
        let is_many = lost > self.rule.count && lost * 100 > of * self.rule.percent;
        // Silence alone never empties a service that had several.
        let is_all = lost > 1 && lost >= of;
        let is_kept = is_many || is_all;
        let is_news = std::mem::replace(&mut silent.is_kept, is_kept) != is_kept;
        if silent.instances.is_empty() && !is_kept {
            self.services.remove(service);
        }
        (if is_kept { Verdict::Keep { lost, of } } else { Verdict::Remove }, is_news)
    }

    fn forget(&mut self, now: Duration) {
        let window = self.rule.window;
        self.services.retain(|_, silent| {
            silent.instances.retain(|_, (since, _)| now.saturating_sub(*since) < window);
            !silent.instances.is_empty() || silent.is_kept
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule { window: Duration::from_secs(60), percent: 15, count: 2 };

    fn key(number: usize) -> InstanceKey {
        InstanceKey::parse("", "pump", &format!("p-{number}")).unwrap()
    }

    fn judge(losses: &mut Losses, present: usize, at: u64) -> (Verdict, bool) {
        losses.judge(&key(0).service, present, Duration::from_secs(at))
    }

    fn silent(losses: &mut Losses, numbers: std::ops::Range<usize>, at: u64) {
        numbers.for_each(|number| losses.silent(&key(number), Duration::from_secs(at)));
    }

    #[test]
    fn a_few_silent_instances_go_and_many_stay_until_the_window_has_passed() {
        let mut losses = Losses::new(RULE);
        silent(&mut losses, 0..2, 0);
        assert_eq!(judge(&mut losses, 10, 1), (Verdict::Remove, false));
        silent(&mut losses, 2..5, 10);
        assert_eq!(judge(&mut losses, 10, 11), (Verdict::Keep { lost: 5, of: 10 }, true));
        assert_eq!(judge(&mut losses, 10, 59), (Verdict::Keep { lost: 5, of: 10 }, false));
        assert_eq!(judge(&mut losses, 10, 60), (Verdict::Keep { lost: 3, of: 10 }, false));
        assert_eq!(judge(&mut losses, 10, 70), (Verdict::Remove, true));
        assert!(losses.concerned().is_empty());
    }

    #[test]
    fn who_comes_back_or_says_goodbye_does_not_count() {
        let mut losses = Losses::new(RULE);
        silent(&mut losses, 0..3, 0);
        assert!(matches!(judge(&mut losses, 10, 1).0, Verdict::Keep { .. }));
        losses.heard(&key(0));
        assert_eq!(judge(&mut losses, 10, 1), (Verdict::Remove, true));
    }

    #[test]
    fn a_share_that_is_small_is_not_doubted() {
        let mut losses = Losses::new(RULE);
        silent(&mut losses, 0..15, 0);
        assert_eq!(judge(&mut losses, 100, 1).0, Verdict::Remove);
        silent(&mut losses, 15..16, 0);
        assert_eq!(judge(&mut losses, 100, 1).0, Verdict::Keep { lost: 16, of: 100 });
        // What was removed before counts on both sides.
        (0..16).for_each(|number| losses.removed(&key(number)));
        assert_eq!(judge(&mut losses, 84, 1).0, Verdict::Keep { lost: 16, of: 100 });
    }

    #[test]
    fn silence_empties_no_service_that_had_several_and_one_alone_may_go() {
        let mut losses = Losses::new(RULE);
        silent(&mut losses, 0..1, 0);
        assert_eq!(judge(&mut losses, 1, 1).0, Verdict::Remove);
        silent(&mut losses, 1..2, 0);
        assert_eq!(judge(&mut losses, 2, 1).0, Verdict::Keep { lost: 2, of: 2 });
        assert_eq!(judge(&mut losses, 4, 1).0, Verdict::Remove, "two others are well");
    }

    #[test]
    fn without_a_window_nothing_is_doubted() {
        let mut losses = Losses::new(Rule { window: Duration::ZERO, ..RULE });
        silent(&mut losses, 0..9, 0);
        assert_eq!(judge(&mut losses, 9, 0), (Verdict::Remove, false));
    }
}
