//! All instances that a node knows of, and what changed lately. Pure.
//!
//! Fed with what the store tells, in the order of revisions. A reader that remembers a [`Moment`] is told what changed
//! since, or that it must begin anew: nothing is queued for anybody.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use ninefold_store::Revision;

use crate::model::{Instance, InstanceId, InstanceKey, Interest, ServiceName, State};

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
}

/// What changed since a moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    /// New or changed instances, by key.
    pub(crate) upserts: Vec<Arc<Instance>>,
    /// Instances that are gone, by key.
    pub(crate) removes: Vec<InstanceKey>,
}

/// How many instances a service has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Name of the service.
    pub(crate) service: ServiceName,
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
    services: BTreeMap<ServiceName, BTreeMap<InstanceId, Arc<Instance>>>,
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
    pub(crate) fn replace(&mut self, revision: Revision, instances: Vec<Instance>) -> Vec<Step> {
        // After the store was restored from an older copy its revisions begin anew; then so do ours.
        let restored = revision < self.revision;
        self.revision = revision;
        let read: BTreeSet<InstanceKey> = instances.iter().map(|instance| instance.key.clone()).collect();
        let erased: Vec<_> = self.all().map(|known| known.key.clone()).filter(|key| !read.contains(key)).collect();
        let mut steps: Vec<Step> = erased.iter().filter_map(|key| self.remove(key, |_| Now::Vanished)).collect();
        for instance in instances {
            if restored {
                let before = self.get(instance.key.service.as_str(), instance.key.id.as_str());
                if before.is_some_and(|before| before.revision > instance.revision) {
                    self.remove(&instance.key, |_| Now::Vanished);
                }
            }
            steps.extend(self.take(News::Written(Arc::new(instance))));
        }
        self.remember(&steps);
        steps
    }

    fn take(&mut self, news: News) -> Option<Step> {
        match news {
            News::Written(instance) => {
                let key = instance.key.clone();
                let before = self.get(key.service.as_str(), key.id.as_str()).cloned();
                if before.as_ref().is_some_and(|before| before.revision >= instance.revision) {
                    return None;
                }
                if instance.state == State::Gone {
                    return self.remove(&key, |_| Now::Left(instance));
                }
                self.services.entry(key.service.clone()).or_default().insert(key.id.clone(), instance.clone());
                Some(Step { key, before, now: Now::Here(instance) })
            }
            News::Erased(key, revision) => {
                let before = self.get(key.service.as_str(), key.id.as_str())?;
                if before.revision > revision {
                    return None;
                }
                self.remove(&key, |_| Now::Vanished)
            }
        }
    }

    fn remove(&mut self, key: &InstanceKey, now: impl FnOnce(&Instance) -> Now) -> Option<Step> {
        let instances = self.services.get_mut(&key.service)?;
        let before = instances.remove(&key.id)?;
        if instances.is_empty() {
            self.services.remove(&key.service);
        }
        let now = now(&before);
        Some(Step { key: key.clone(), before: Some(before), now })
    }

    fn remember(&mut self, steps: &[Step]) {
        if steps.is_empty() {
            return;
        }
        self.moment.0 += 1;
        self.changes.extend(steps.iter().map(|step| (self.moment, step.key.clone())));
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
            match self.get(key.service.as_str(), key.id.as_str()) {
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
            Interest::Named(names) => {
                names.iter().filter_map(|name| self.services.get(name)).flat_map(BTreeMap::values).cloned().collect()
            }
        }
    }

    /// One instance.
    pub(crate) fn get(&self, service: &str, id: &str) -> Option<&Arc<Instance>> {
        self.services.get(service)?.get(id)
    }

    /// How many instances a service has.
    pub(crate) fn count(&self, service: &ServiceName) -> usize {
        self.services.get(service).map_or(0, BTreeMap::len)
    }

    /// At most `limit` instances, of one service or of all, by key, behind the key `after`.
    pub(crate) fn page(&self, service: Option<&str>, after: Option<&InstanceKey>, limit: usize) -> Vec<Arc<Instance>> {
        let first = match (service, after) {
            (_, Some(after)) => Bound::Included(after.service.as_str()),
            (Some(service), None) => Bound::Included(service),
            (None, None) => Bound::Unbounded,
        };
        self.services
            .range::<str, _>((first, Bound::Unbounded))
            .take_while(|(name, _)| service.is_none_or(|wanted| name.as_str() == wanted))
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

    /// At most `limit` services, by name, behind the name `after`.
    pub(crate) fn services(&self, after: Option<&ServiceName>, limit: usize) -> Vec<Summary> {
        let first = after.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.services.range::<ServiceName, _>((first, Bound::Unbounded));
        behind.take(limit).map(|(name, instances)| summary(name, instances.values())).collect()
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.services.values().flat_map(BTreeMap::values)
    }
}

fn summary<'a>(service: &ServiceName, instances: impl Iterator<Item = &'a Arc<Instance>>) -> Summary {
    let mut summary = Summary {
        service: service.clone(),
        instances: 0,
        serving: 0,
        protobuf_services: BTreeSet::new(),
        revision: Revision::default(),
    };
    for instance in instances {
        summary.instances += 1;
        summary.serving += usize::from(instance.state == State::Serving);
        summary.protobuf_services.extend(instance.protobuf_services.iter().cloned());
        summary.revision = summary.revision.max(instance.revision);
    }
    summary
}

#[cfg(test)]
mod tests;
