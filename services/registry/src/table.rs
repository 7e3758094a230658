//! All instances that a node knows of, and what changed lately. Pure.
//!
//! Fed with what the store tells, in the order of revisions. A reader that remembers a [`Moment`] is told what changed
//! since, or that it must begin anew: nothing is queued for anybody.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use ninefold_store::Revision;

use crate::model::{Instance, InstanceId, InstanceKey, Interest, Namespace, Override, ServiceKey, ServiceName, State};
use crate::roll::Roll;

/// Most changes that are remembered for readers that fell behind.
const CHANGES_MAX: usize = 8192;

/// A point in the table's own life. Unlike a revision it never goes back, whatever happens to the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

/// What the store tells of one instance.
#[derive(Clone, Debug)]
pub(crate) enum News {
    /// It was written.
    Written(Arc<Instance>),
    /// Its key is gone.
    Erased(InstanceKey, Revision),
    /// An operator decided this of it, or nothing any more.
    Decided(InstanceKey, Option<Arc<Override>>, Revision),
    /// Another instance reports it, or does not any more.
    Reported {
        /// Who is reported.
        of: InstanceKey,
        /// Who reports.
        by: InstanceKey,
        /// Whether it does.
        stands: bool,
    },
    /// So far have the watchers of a node got; `None` where it has none any more.
    Rolled(String, Option<Arc<Roll>>),
    /// One whose lease ran out stays all the same, and why. Said by this node, not by the store.
    Doubted(InstanceKey, String),
    /// One whose lease ran out goes. Said by this node, not by the store.
    GivenUp(InstanceKey),
}

/// What news changed in the table.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// Whom it concerns.
    pub(crate) key: InstanceKey,
    /// What was known before.
    pub(crate) before: Option<Arc<Instance>>,
    /// What is known now.
    pub(crate) now: Now,
}

/// What is known after a step.
#[derive(Clone, Debug)]
pub(crate) enum Now {
    /// The instance is there.
    Here(Arc<Instance>),
    /// It left and said why.
    Left(Arc<Instance>),
    /// Its key is gone, without a word.
    Vanished,
    /// The same; but who reports it has changed.
    Reported,
}

/// What changed since a moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    /// New or changed instances, by key.
    pub(crate) upserts: Vec<Arc<Instance>>,
    /// Instances that are gone, by key.
    pub(crate) removes: Vec<InstanceKey>,
}

impl Changes {
    /// Whether nothing changed.
    pub(crate) fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.removes.is_empty()
    }
}

/// How many instances a service has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Name of the service.
    pub(crate) service: ServiceKey,
    /// How many are registered.
    pub(crate) instances: usize,
    /// How many are serving.
    pub(crate) serving: usize,
    /// What they answer, each once.
    pub(crate) protobuf_services: BTreeSet<String>,
    /// When one of them last changed.
    pub(crate) revision: Revision,
}

/// All instances that a node knows of.
#[derive(Debug, Default)]
pub(crate) struct Table {
    services: BTreeMap<ServiceKey, BTreeMap<InstanceId, Arc<Instance>>>,
    /// What operators decided, of instances that are there or may come back.
    decided: BTreeMap<InstanceKey, Arc<Override>>,
    /// Who reports whom.
    reports: BTreeMap<InstanceKey, BTreeSet<InstanceKey>>,
    /// Those whose lease ran out, and who have not been given up yet.
    lapsed: BTreeSet<InstanceKey>,
    /// How far the watchers of each node have got.
    rolls: BTreeMap<String, Arc<Roll>>,
    revision: Revision,
    moment: Moment,
    /// Which instances changed when, oldest first.
    changes: VecDeque<(Moment, InstanceKey)>,
    /// The last moment that `changes` has forgotten something of.
    forgotten: Moment,
}

impl Table {
    /// Revision of the store up to which the table is right.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// The present moment.
    pub(crate) fn moment(&self) -> Moment {
        self.moment
    }

    /// Takes in what happened up to a revision. News that is older than what is known changes nothing.
    pub(crate) fn apply(&mut self, revision: Revision, news: impl IntoIterator<Item = News>) -> Vec<Step> {
        self.revision = self.revision.max(revision);
        let steps: Vec<Step> = news.into_iter().filter_map(|one| self.take(one)).collect();
        self.remember(&steps);
        steps
    }

    /// Takes in a whole reading of the store, and tells how it differs from what was known.
    pub(crate) fn replace(&mut self, revision: Revision, read: Vec<News>) -> Vec<Step> {
        // After the store was restored from an older copy its revisions begin anew; then so do ours.
        let restored = revision < self.revision;
        self.revision = revision;
        let mut steps = self.forget_unread(&read, revision);
        for news in read {
            if let News::Written(instance) = &news
                && restored
                && self.get(&instance.key).is_some_and(|before| before.revision > instance.revision)
            {
                self.remove(&instance.key, |_| Now::Vanished);
            }
            steps.extend(self.take(news));
        }
        self.remember(&steps);
        steps
    }

    /// Forgets what a whole reading of the store does not hold.
    fn forget_unread(&mut self, read: &[News], revision: Revision) -> Vec<Step> {
        let (mut written, mut decided, mut reports) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        self.rolls.clear();
        for news in read {
            match news {
                News::Written(instance) => _ = written.insert(&instance.key),
                News::Decided(key, ..) => _ = decided.insert(key),
                News::Reported { of, by, .. } => {
                    _ = reports.entry(of.clone()).or_insert_with(BTreeSet::new).insert(by.clone());
                }
                News::Erased(..) | News::Rolled(..) | News::Doubted(..) | News::GivenUp(_) => {}
            }
        }
        let erased: Vec<_> = self.all().map(|known| &known.key).filter(|key| !written.contains(key)).cloned().collect();
        let undecided: Vec<_> = self.decided.keys().filter(|key| !decided.contains(key)).cloned().collect();
        let reported: BTreeSet<_> = self.reports.keys().chain(reports.keys()).cloned().collect();
        self.reports = reports;
        let mut steps: Vec<Step> = erased.iter().filter_map(|key| self.lapse(key, revision)).collect();
        steps.extend(undecided.into_iter().filter_map(|key| self.decide(key, None, revision)));
        steps.extend(reported.into_iter().map(|key| Step { key, before: None, now: Now::Reported }));
        steps
    }

    fn take(&mut self, news: News) -> Option<Step> {
        match news {
            News::Written(instance) => self.write(instance),
            News::Erased(key, revision) => {
                if self.get(&key)?.written > revision {
                    return None;
                }
                self.lapse(&key, revision)
            }
            News::Rolled(node, roll) => {
                match roll {
                    Some(roll) => _ = self.rolls.insert(node, roll),
                    None => _ = self.rolls.remove(&node),
                }
                None
            }
            News::Doubted(key, reason) => self.doubt(&key, reason),
            News::GivenUp(key) => self.lapsed.contains(&key).then(|| self.remove(&key, |_| Now::Vanished)).flatten(),
            News::Decided(key, decided, revision) => self.decide(key, decided, revision),
            News::Reported { of, by, stands } => {
                let reporters = self.reports.entry(of.clone()).or_default();
                let changed = if stands { reporters.insert(by) } else { reporters.remove(&by) };
                if reporters.is_empty() {
                    self.reports.remove(&of);
                }
                changed.then_some(Step { key: of, before: None, now: Now::Reported })
            }
        }
    }

    fn write(&mut self, mut instance: Arc<Instance>) -> Option<Step> {
        let key = instance.key.clone();
        let before = self.get(&key).cloned();
        if before.as_ref().is_some_and(|before| before.written >= instance.written) {
            return None;
        }
        if instance.state == State::Gone {
            return self.remove(&key, |_| Now::Left(instance));
        }
        self.lapsed.remove(&key);
        if let Some(decided) = self.decided.get(&key) {
            Arc::make_mut(&mut instance).decided = Some(decided.clone());
        }
        self.services.entry(key.service.clone()).or_default().insert(key.id.clone(), instance.clone());
        Some(Step { key, before, now: Now::Here(instance) })
    }

    /// Its lease ran out, or a whole reading does not hold it: nobody said that it left. It stays, as suspect, until it is
    /// written again or given up.
    fn lapse(&mut self, key: &InstanceKey, revision: Revision) -> Option<Step> {
        let known = self.services.get_mut(&key.service)?.get_mut(&key.id)?;
        if !self.lapsed.insert(key.clone()) {
            return None;
        }
        let before = known.clone();
        *known = Arc::new(Instance {
            state: State::Suspect,
            state_reason: format!("its lease ran out; it was held by {}", before.node),
            revision: revision.max(before.revision),
            // A store that was set back counts anew.
            written: revision,
            ..(*before).clone()
        });
        let now = Now::Here(known.clone());
        Some(Step { key: key.clone(), before: Some(before), now })
    }

    fn doubt(&mut self, key: &InstanceKey, reason: String) -> Option<Step> {
        if !self.lapsed.contains(key) {
            return None;
        }
        let known = self.services.get_mut(&key.service)?.get_mut(&key.id)?;
        let before = known.clone();
        Arc::make_mut(known).state_reason = reason;
        let now = Now::Here(known.clone());
        Some(Step { key: key.clone(), before: Some(before), now })
    }

    fn decide(&mut self, key: InstanceKey, decided: Option<Arc<Override>>, revision: Revision) -> Option<Step> {
        match &decided {
            Some(decided) => _ = self.decided.insert(key.clone(), decided.clone()),
            None => _ = self.decided.remove(&key),
        }
        let known = self.services.get_mut(&key.service)?.get_mut(&key.id)?;
        if known.decided == decided {
            return None;
        }
        let before = known.clone();
        let now = Instance { decided, revision: revision.max(known.revision), ..(**known).clone() };
        *known = Arc::new(now);
        let now = Now::Here(known.clone());
        Some(Step { key, before: Some(before), now })
    }

    fn remove(&mut self, key: &InstanceKey, now: impl FnOnce(&Instance) -> Now) -> Option<Step> {
        let instances = self.services.get_mut(&key.service)?;
        let before = instances.remove(&key.id)?;
        self.lapsed.remove(key);
        if instances.is_empty() {
            self.services.remove(&key.service);
        }
        let now = now(&before);
        Some(Step { key: key.clone(), before: Some(before), now })
    }

    fn remember(&mut self, steps: &[Step]) {
        // Who reports whom is nothing that a reader is told.
        let told = || steps.iter().filter(|step| !matches!(step.now, Now::Reported));
        if told().next().is_none() {
            return;
        }
        self.moment.0 += 1;
        self.changes.extend(told().map(|step| (self.moment, step.key.clone())));
        while self.changes.len() > CHANGES_MAX {
            if let Some((moment, _)) = self.changes.pop_front() {
                self.forgotten = moment;
            }
        }
    }

    /// What changed for those of `interest` since a moment; `None` if that is too long ago to tell.
    pub(crate) fn since(&self, then: Moment, interest: &Interest) -> Option<Changes> {
        if then < self.forgotten {
            return None;
        }
        let first = self.changes.partition_point(|(moment, _)| *moment <= then);
        let touched: BTreeSet<&InstanceKey> =
            self.changes.range(first..).map(|(_, key)| key).filter(|key| interest.covers(&key.service)).collect();
        let mut changes = Changes::default();
        for key in touched {
            match self.get(key) {
                Some(instance) => changes.upserts.push(instance.clone()),
                None => changes.removes.push(key.clone()),
            }
        }
        Some(changes)
    }

    /// All instances of `interest`, by key.
    pub(crate) fn snapshot(&self, interest: &Interest) -> Vec<Arc<Instance>> {
        match interest {
            Interest::All => self.all().cloned().collect(),
            Interest::Within(namespace) => self.page(Some(namespace), None, None, usize::MAX),
            Interest::Named(names) => {
                names.iter().filter_map(|name| self.services.get(name)).flat_map(BTreeMap::values).cloned().collect()
            }
        }
    }

    /// One instance.
    pub(crate) fn get(&self, key: &InstanceKey) -> Option<&Arc<Instance>> {
        self.services.get(&key.service)?.get(&key.id)
    }

    /// Those whose lease ran out, and who have not been given up yet.
    pub(crate) fn lapsed(&self) -> &BTreeSet<InstanceKey> {
        &self.lapsed
    }

    /// How far the watchers of other nodes than this one have got.
    pub(crate) fn rolls(&self, own: &str) -> impl Iterator<Item = &Arc<Roll>> {
        self.rolls.iter().filter(move |(node, _)| node.as_str() != own).map(|(_, roll)| roll)
    }

    /// How many instances a service has.
    pub(crate) fn count(&self, service: &ServiceKey) -> usize {
        self.services.get(service).map_or(0, BTreeMap::len)
    }

    /// All instances of a service, by id.
    pub(crate) fn of(&self, service: &ServiceKey) -> impl Iterator<Item = &Arc<Instance>> {
        self.services.get(service).into_iter().flat_map(BTreeMap::values)
    }

    /// How many other instances report one.
    pub(crate) fn reporters(&self, key: &InstanceKey) -> usize {
        self.reports.get(key).map_or(0, BTreeSet::len)
    }

    /// What an operator decided of an instance, whether it is there or not.
    pub(crate) fn decided(&self, key: &InstanceKey) -> Option<&Arc<Override>> {
        self.decided.get(key)
    }

    /// All that operators decided, by instance.
    pub(crate) fn all_decided(&self) -> Vec<(InstanceKey, Arc<Override>)> {
        self.decided.iter().map(|(key, decided)| (key.clone(), decided.clone())).collect()
    }

    /// Of how many instances an operator decided something.
    pub(crate) fn decisions(&self) -> usize {
        self.decided.len()
    }

    /// At most `limit` instances, of one namespace or of all, of services of one name or of all, by key, behind the key
    /// `after`.
    pub(crate) fn page(
        &self,
        namespace: Option<&Namespace>,
        service: Option<&ServiceName>,
        after: Option<&InstanceKey>,
        limit: usize,
    ) -> Vec<Arc<Instance>> {
        self.range(namespace, service, after.map(|after| Bound::Included(&after.service)))
            .flat_map(|(name, instances)| {
                let first = match after {
                    Some(after) if after.service == *name => Bound::Excluded(after.id.as_str()),
                    _ => Bound::Unbounded,
                };
                instances.range::<str, _>((first, Bound::Unbounded)).map(|(_, instance)| instance.clone())
            })
            .take(limit)
            .collect()
    }

    /// At most `limit` services of one namespace or of all, by name, behind the service `after`.
    pub(crate) fn services(
        &self,
        namespace: Option<&Namespace>,
        after: Option<&ServiceKey>,
        limit: usize,
    ) -> Vec<Summary> {
        let behind = self.range(namespace, None, after.map(Bound::Excluded));
        behind.take(limit).map(|(name, instances)| summary(name, instances.values())).collect()
    }

    fn range<'a>(
        &'a self,
        namespace: Option<&'a Namespace>,
        service: Option<&'a ServiceName>,
        first: Option<Bound<&ServiceKey>>,
    ) -> impl Iterator<Item = (&'a ServiceKey, &'a BTreeMap<InstanceId, Arc<Instance>>)> + use<'a> {
        let start = namespace.map(|namespace| match service {
            Some(name) => ServiceKey { namespace: namespace.clone(), name: name.clone() },
            None => ServiceKey::before_all_of(namespace.clone()),
        });
        let first = first.or(start.as_ref().map(Bound::Included)).unwrap_or(Bound::Unbounded);
        self.services
            .range::<ServiceKey, _>((first, Bound::Unbounded))
            .take_while(move |(key, _)| {
                namespace.is_none_or(|wanted| key.namespace == *wanted && service.is_none_or(|name| key.name <= *name))
            })
            .filter(move |(key, _)| service.is_none_or(|wanted| key.name == *wanted))
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.services.values().flat_map(BTreeMap::values)
    }
}

fn summary<'a>(service: &ServiceKey, instances: impl Iterator<Item = &'a Arc<Instance>>) -> Summary {
    let mut summary = Summary {
        service: service.clone(),
        instances: 0,
        serving: 0,
        protobuf_services: BTreeSet::new(),
        revision: Revision::default(),
    };
    for instance in instances {
        summary.instances += 1;
        summary.serving += usize::from(instance.stands_as(State::Serving));
        summary.protobuf_services.extend(instance.protobuf_services.iter().cloned());
        summary.revision = summary.revision.max(instance.revision);
    }
    summary
}

#[cfg(test)]
mod tests;
