//! What is seen, in one place under one lock: the table, the policies, and a lane for each service. Pure.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use ninefold::connect::digest;
use ninefold_store::Revision;

use super::lane::{Cache, Lane, Span};
use super::policies::{Mark, Policies};
use crate::model::{Instance, InstanceKey, Interest, NAMESPACE_DEFAULT, Namespace, Policy, ServiceKey, ServiceName};
use crate::table::{Changes, Moment, News, Now, Step, Table};

/// Most revisions from which a watcher may resume.
const REVISIONS_MAX: usize = 8192;
/// Most services that are remembered although nobody keeps them any more.
const LANES_MAX: usize = 16_384;

/// All that is seen.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) table: Table,
    pub(super) policies: Policies,
    lanes: HashMap<ServiceKey, Lane>,
    /// What all instances come to.
    digest: u64,
    /// The last moment of which a lane was forgotten.
    forgotten: Moment,
    /// At which revisions the table changed, oldest first.
    revisions: VecDeque<(Revision, Moment)>,
    /// What the instances of each namespace come to.
    digests: HashMap<Namespace, u64>,
    /// What those who watch everything were told.
    cache: Arc<Cache>,
    /// What those who watch all of the default namespace were told: doors, and there may be many.
    default_cache: Arc<Cache>,
}

/// What a watcher knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Knows {
    /// The table as it was then.
    pub(crate) moment: Moment,
    /// The policies as they were then; `None` where that is not known.
    pub(crate) mark: Option<Mark>,
}

/// Part of a message: the instances of a service, or what changed there.
#[derive(Debug)]
pub(crate) enum Piece {
    /// As bytes that somebody made before.
    Made(Bytes),
    /// To be made, and left in the cache for others.
    Raw {
        /// The instances, and those that are gone.
        changes: Changes,
        /// Where to leave the bytes, and under which name; `None` where nobody will ask for them.
        keep: Option<(Arc<Cache>, Span)>,
    },
}

/// What is new for a watcher.
#[derive(Debug)]
pub(crate) struct Look {
    /// What the watcher knows once it is told.
    pub(crate) knows: Knows,
    /// Up to which revision it is right then.
    pub(crate) revision: Revision,
    /// What its instances come to then.
    pub(crate) digest: u64,
    /// Whether it begins anew.
    pub(crate) is_snapshot: bool,
    /// What it is told.
    pub(crate) pieces: Vec<Piece>,
    /// New policies, and services that have none any more.
    pub(crate) policies: Vec<Result<Policy, ServiceName>>,
    /// Whether `policies` are all that there are.
    pub(crate) all_policies: bool,
}

impl Look {
    /// Whether there is nothing to be told.
    pub(crate) fn is_empty(&self) -> bool {
        !self.is_snapshot && self.pieces.is_empty() && self.policies.is_empty() && !self.all_policies
    }
}

/// Those that a watcher is told of: who reports whom is not.
fn told(steps: &[Step]) -> impl Iterator<Item = &Step> {
    steps.iter().filter(|step| !matches!(step.now, Now::Reported))
}

fn weight(instance: &Instance) -> u64 {
    let ServiceKey { namespace, name } = &instance.key.service;
    digest(namespace.as_str(), name.as_str(), instance.key.id.as_str(), instance.revision.0)
}

impl Seen {
    pub(super) fn new(revision: Revision, read: Vec<News>) -> Self {
        let mut seen = Self {
            table: Table::default(),
            policies: Policies::default(),
            lanes: HashMap::new(),
            digest: 0,
            forgotten: Moment::default(),
            revisions: VecDeque::new(),
            digests: HashMap::new(),
            cache: Arc::default(),
            default_cache: Arc::default(),
        };
        seen.replace(revision, read);
        seen
    }

    pub(super) fn apply(&mut self, revision: Revision, news: Vec<News>) -> Vec<Step> {
        let steps = self.table.apply(revision, news);
        let moment = self.table.moment();
        for step in told(&steps) {
            let mut change = step.before.as_deref().map_or(0, weight);
            if let Now::Here(here) = &step.now {
                change ^= weight(here);
            }
            self.digest ^= change;
            *self.digests.entry(step.key.service.namespace.clone()).or_default() ^= change;
            let forgotten = self.forgotten;
            let lane = self.lanes.entry(step.key.service.clone()).or_insert_with(|| Lane::since(forgotten));
            lane.digest ^= change;
            lane.push(moment, step.key.clone());
            lane.revision = revision;
        }
        self.settle();
        steps
    }

    pub(super) fn replace(&mut self, revision: Revision, read: Vec<News>) -> Vec<Step> {
        let is_restored = revision < self.table.revision();
        let steps = self.table.replace(revision, read);
        if is_restored {
            self.revisions.clear();
        }
        // A store that was set back may have other instances under the same names: everything is counted again.
        let moment = self.table.moment();
        for step in told(&steps) {
            let forgotten = self.forgotten;
            let lane = self.lanes.entry(step.key.service.clone()).or_insert_with(|| Lane::since(forgotten));
            lane.push(moment, step.key.clone());
            lane.revision = revision;
        }
        self.digest = 0;
        self.digests.clear();
        self.lanes.values_mut().for_each(|lane| lane.digest = 0);
        for instance in self.table.snapshot(&Interest::All) {
            let weight = weight(&instance);
            self.digest ^= weight;
            *self.digests.entry(instance.key.service.namespace.clone()).or_default() ^= weight;
            let lane = self.lanes.entry(instance.key.service.clone()).or_insert_with(|| Lane::since(moment));
            lane.digest ^= weight;
        }
        self.settle();
        steps
    }

    fn settle(&mut self) {
        let (revision, moment) = (self.table.revision(), self.table.moment());
        match self.revisions.back_mut() {
            // Later revisions that changed nothing here are as good as this one.
            Some(last) if last.1 == moment => {}
            Some(last) if last.0 == revision => last.1 = moment,
            Some(_) | None => self.revisions.push_back((revision, moment)),
        }
        while self.revisions.len() > REVISIONS_MAX {
            self.revisions.pop_front();
        }
        if self.lanes.len() > LANES_MAX {
            let table = &self.table;
            self.lanes.retain(|service, _| table.count(service) > 0);
            self.forgotten = moment;
        }
    }

    pub(super) fn changed_at(&self, service: Option<&ServiceKey>) -> Revision {
        match service {
            Some(service) => self.lanes.get(service).map(|lane| lane.revision),
            None => self.revisions.back().map(|(revision, _)| *revision),
        }
        .unwrap_or_default()
    }

    pub(super) fn known_at(&self, revision: Revision) -> Option<Knows> {
        if revision > self.table.revision() {
            return None;
        }
        let behind = self.revisions.partition_point(|(known, _)| *known <= revision);
        let (_, moment) = self.revisions.get(behind.checked_sub(1)?)?;
        Some(Knows { moment: *moment, mark: None })
    }

    pub(super) fn look(&self, knows: Option<Knows>, interest: &Interest) -> Look {
        let changes = knows.and_then(|knows| self.changes(knows.moment, interest));
        let is_snapshot = changes.is_none();
        let pieces = changes.unwrap_or_else(|| self.snapshot(interest));
        let mark = knows.and_then(|knows| knows.mark).filter(|_| !is_snapshot);
        let policies = match mark {
            Some(mark) => self.policies.changed(mark, interest),
            None => self.policies.all(interest).into_iter().map(Ok).collect(),
        };
        let is_complete = self.policies.is_complete;
        Look {
            // Until all policies are known they are told again and again, and never as all there are.
            knows: Knows { moment: self.table.moment(), mark: is_complete.then(|| self.policies.mark()) },
            revision: self.table.revision(),
            digest: self.digest(interest),
            is_snapshot,
            pieces,
            policies,
            all_policies: is_complete && mark.is_none(),
        }
    }

    fn digest(&self, interest: &Interest) -> u64 {
        match interest {
            Interest::All => self.digest,
            Interest::Within(namespace) => self.digests.get(namespace).copied().unwrap_or_default(),
            Interest::Named(names) => {
                names.iter().filter_map(|name| self.lanes.get(name)).fold(0, |sum, lane| sum ^ lane.digest)
            }
        }
    }

    /// What changed since a moment; `None` if that is too long ago.
    fn changes(&self, then: Moment, interest: &Interest) -> Option<Vec<Piece>> {
        let Interest::Named(names) = interest else {
            let to = self.table.moment();
            if then == to {
                return Some(Vec::new());
            }
            let span = Span { from: Some(then), to };
            let cache = match interest {
                Interest::Within(namespace) if namespace.as_str() == NAMESPACE_DEFAULT => Some(&self.default_cache),
                Interest::Within(_) => None,
                Interest::All | Interest::Named(_) => Some(&self.cache),
            };
            if let Some(made) = cache.and_then(|cache| cache.get(span)) {
                return Some(vec![Piece::Made(made)]);
            }
            let changes = self.table.since(then, interest)?;
            if changes.is_empty() {
                return Some(Vec::new());
            }
            return Some(vec![Piece::Raw { changes, keep: cache.map(|cache| (cache.clone(), span)) }]);
        };
        let mut pieces = Vec::new();
        for name in names {
            let Some(lane) = self.lanes.get(name) else {
                if then < self.forgotten {
                    return None;
                }
                continue;
            };
            if lane.last() <= then {
                continue;
            }
            let (touched, before) = lane.changed(then)?;
            let span = Span { from: Some(before), to: lane.last() };
            let cache = lane.cache();
            pieces.push(match cache.get(span) {
                Some(made) => Piece::Made(made),
                None => Piece::Raw { changes: self.now(touched), keep: Some((cache, span)) },
            });
        }
        Some(pieces)
    }

    fn now<'a>(&self, touched: impl IntoIterator<Item = &'a InstanceKey>) -> Changes {
        let mut changes = Changes::default();
        for key in touched {
            match self.table.get(key) {
                Some(instance) => changes.upserts.push(instance.clone()),
                None => changes.removes.push(key.clone()),
            }
        }
        changes
    }

    fn snapshot(&self, interest: &Interest) -> Vec<Piece> {
        let Interest::Named(names) = interest else {
            // Large, and asked for by few.
            let changes = Changes { upserts: self.table.snapshot(interest), removes: Vec::new() };
            return vec![Piece::Raw { changes, keep: None }];
        };
        let piece = |(name, lane): (&ServiceKey, &Lane)| {
            let (span, cache) = (Span { from: None, to: lane.last() }, lane.cache());
            cache.get(span).map_or_else(
                || {
                    let one = Interest::Named([name.clone()].into());
                    let changes = Changes { upserts: self.table.snapshot(&one), removes: Vec::new() };
                    Piece::Raw { changes, keep: Some((cache.clone(), span)) }
                },
                Piece::Made,
            )
        };
        names.iter().filter_map(|name| self.lanes.get_key_value(name)).map(piece).collect()
    }
}

#[cfg(test)]
mod tests;
