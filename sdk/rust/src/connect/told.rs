//! What a watcher has been told so far, and what it makes of that.
//!
//! A lost stream takes nothing away. A snapshot replaces all that was told, with one guard: what a snapshot does not name
//! is still believed in until the registry says that it is sure. A registry that has just started has not heard from
//! everybody yet, and one that lost its store knows no better; an address that does not answer costs less than a service
//! that is thrown away. A registry that does not say whether it is sure is believed after five seconds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ninefold_proto::ninefold::registry::v1 as words;
use tokio::time::Instant;

use crate::connect::digest::digest;
use crate::connect::landscape::{Instance, LandscapeView, State};

/// How long what vanished is still believed in, where the registry does not say whether it is sure.
const GRACE: Duration = Duration::from_secs(5);

/// One message of the registry.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) news: News,
    pub(crate) revision: i64,
    /// What the registry says that all instances come to; `None` from one that does not say.
    pub(crate) digest: Option<u64>,
    /// Whether what is not named is surely not there; `None` from a registry that does not say.
    pub(crate) is_sure: Option<bool>,
    /// Whether its policies are all that there are.
    pub(crate) all_policies: bool,
}

/// What a message tells.
#[derive(Debug)]
pub(crate) enum News {
    Snapshot(words::Snapshot),
    Delta(words::Delta),
    None,
}

impl From<words::WatchInstancesResponse> for Message {
    fn from(words: words::WatchInstancesResponse) -> Self {
        use words::watch_instances_response::Message as Told;
        let news = match words.message {
            Some(Told::Snapshot(snapshot)) => News::Snapshot(snapshot),
            Some(Told::Delta(delta)) => News::Delta(delta),
            Some(Told::Heartbeat(_)) | None => News::None,
        };
        let all_policies = matches!(news, News::Snapshot(_));
        Self { news, revision: words.revision, digest: None, is_sure: None, all_policies }
    }
}

impl From<words::HoldWatchResponse> for Message {
    fn from(words: words::HoldWatchResponse) -> Self {
        use words::hold_watch_response::Message as Told;
        let news = match words.message {
            Some(Told::Snapshot(snapshot)) => News::Snapshot(snapshot),
            Some(Told::Delta(delta)) => News::Delta(delta),
            Some(Told::Heartbeat(_)) | None => News::None,
        };
        Self {
            news,
            revision: words.revision,
            digest: words.digest,
            is_sure: Some(words.authoritative),
            all_policies: words.all_policies,
        }
    }
}

/// What is known does not come to what the registry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Diverged {
    /// What the registry says.
    pub(crate) told: u64,
    /// What is known.
    pub(crate) known: u64,
}

type ById<T> = BTreeMap<Arc<str>, T>;

#[derive(Clone, Debug)]
struct Known {
    instance: Arc<Instance>,
    digest: u64,
}

/// What a watcher has been told so far.
#[derive(Debug, Default)]
pub(crate) struct Told {
    services: ById<ById<Known>>,
    /// Instances that are no longer told of, and still believed in.
    believed: ById<ById<Arc<Instance>>>,
    /// Until when, where the registry does not say whether it is sure.
    believed_until: Option<Instant>,
    policies: ById<Arc<words::Policy>>,
    /// What is shown to others, made anew for services that changed.
    shown: ById<Arc<[Arc<Instance>]>>,
    touched: BTreeSet<Arc<str>>,
    digest: u64,
    revision: i64,
    is_known: bool,
}

impl Told {
    /// Takes what was known in a former life of the process: believed in until the registry says otherwise.
    pub(crate) fn remember(&mut self, snapshot: words::Snapshot) {
        for instance in snapshot.instances.into_iter().map(Instance::from) {
            if matches!(instance.state, State::Serving | State::Suspect) {
                self.believe(Arc::new(instance));
            }
        }
        self.take_policies(snapshot.policies, true);
    }

    /// Takes one message of the registry.
    ///
    /// # Errors
    /// [`Diverged`] when a message before this one must have been lost.
    pub(crate) fn take(&mut self, message: Message, now: Instant) -> Result<(), Diverged> {
        self.revision = message.revision;
        match message.news {
            News::Snapshot(snapshot) => {
                self.replace(snapshot.instances, message.is_sure, now);
                self.take_policies(snapshot.policies, message.all_policies);
            }
            News::Delta(delta) => {
                for key in delta.removes {
                    self.remove(&key.service, &key.instance_id);
                }
                for instance in delta.upserts {
                    self.upsert(instance);
                }
                self.take_policies(delta.policies, message.all_policies);
            }
            News::None => {}
        }
        if message.is_sure == Some(true) {
            self.forget_believed();
        }
        match message.digest {
            Some(told) if told != self.digest => Err(Diverged { told, known: self.digest }),
            Some(_) | None => Ok(()),
        }
    }

    /// Up to which revision the registry has told; zero before its first word.
    pub(crate) fn revision(&self) -> i64 {
        if self.is_known { self.revision } else { 0 }
    }

    /// When what vanished is no longer believed in, if that is a matter of time.
    pub(crate) fn expiry(&self) -> Option<Instant> {
        self.believed_until
    }

    /// Forgets what vanished and did not come back in time.
    pub(crate) fn expire(&mut self, now: Instant) {
        if self.believed_until.is_some_and(|until| now >= until) {
            self.forget_believed();
        }
    }

    /// Forgets services that nobody asks for.
    pub(crate) fn keep_only(&mut self, names: &BTreeSet<String>) {
        let gone: Vec<_> = self.shown.keys().filter(|service| !names.contains(&***service)).cloned().collect();
        for service in gone {
            if let Some(instances) = self.services.remove(&service) {
                self.digest = instances.values().fold(self.digest, |sum, known| sum ^ known.digest);
            }
            self.believed.remove(&service);
            self.touched.insert(service);
        }
        self.policies.retain(|service, _| names.contains(&**service));
    }

    /// The view to publish.
    pub(crate) fn view(&mut self) -> LandscapeView {
        for service in std::mem::take(&mut self.touched) {
            let mut instances: ById<Arc<Instance>> = self.believed.get(&service).cloned().unwrap_or_default();
            let told = self.services.get(&service).into_iter().flatten();
            instances.extend(told.map(|(id, known)| (id.clone(), known.instance.clone())));
            if instances.is_empty() {
                self.shown.remove(&service);
            } else {
                self.shown.insert(service, instances.into_values().collect());
            }
        }
        LandscapeView {
            services: self.shown.clone(),
            policies: self.policies.clone(),
            revision: self.revision,
            is_known: self.is_known,
        }
    }

    fn replace(&mut self, instances: Vec<words::Instance>, is_sure: Option<bool>, now: Instant) {
        let old = std::mem::take(&mut self.services);
        self.digest = 0;
        self.touched.extend(old.keys().cloned());
        for instance in instances {
            self.upsert(instance);
        }
        self.is_known = true;
        if is_sure == Some(true) {
            return;
        }
        let was_believing = !self.believed.is_empty();
        for (service, known) in old.iter().flat_map(|(service, known)| known.iter().map(move |one| (service, one))) {
            let is_told = self.services.get(service).is_some_and(|told| told.contains_key(known.0));
            if !is_told {
                self.believe(known.1.instance.clone());
            }
        }
        let is_matter_of_time = is_sure.is_none() && !self.believed.is_empty();
        // A second snapshot does not make the wait longer.
        self.believed_until = match self.believed_until {
            Some(until) if was_believing && is_matter_of_time => Some(until),
            Some(_) | None => is_matter_of_time.then(|| now + GRACE),
        };
    }

    fn believe(&mut self, instance: Arc<Instance>) {
        self.touched.insert(instance.service.clone());
        self.believed.entry(instance.service.clone()).or_default().insert(instance.id.clone(), instance);
    }

    fn forget_believed(&mut self) {
        self.believed_until = None;
        self.touched.extend(std::mem::take(&mut self.believed).into_keys());
    }

    fn upsert(&mut self, words: words::Instance) {
        let digest = digest(&words.namespace, &words.service, &words.instance_id, words.revision);
        let instance = Instance::from(words);
        self.remove(&instance.service, &instance.id);
        if instance.state == State::Gone {
            return;
        }
        self.digest ^= digest;
        self.touched.insert(instance.service.clone());
        let instances = self.services.entry(instance.service.clone()).or_default();
        instances.insert(instance.id.clone(), Known { instance: Arc::new(instance), digest });
    }

    fn remove(&mut self, service: &str, id: &str) {
        if let Some(instances) = self.services.get_mut(service) {
            if let Some(known) = instances.remove(id) {
                self.digest ^= known.digest;
                self.touched.insert(known.instance.service.clone());
            }
            if instances.is_empty() {
                self.services.remove(service);
            }
        }
        if let Some(instances) = self.believed.get_mut(service) {
            if let Some(instance) = instances.remove(id) {
                self.touched.insert(instance.service.clone());
            }
            if instances.is_empty() {
                self.believed.remove(service);
            }
        }
        if self.believed.is_empty() {
            self.believed_until = None;
        }
    }

    fn take_policies(&mut self, policies: Vec<words::Policy>, are_all: bool) {
        let mut before = if are_all { std::mem::take(&mut self.policies) } else { BTreeMap::new() };
        for policy in policies {
            let service: Arc<str> = policy.service.as_str().into();
            let none = words::Policy { service: policy.service.clone(), ..words::Policy::default() };
            if policy == none {
                self.policies.remove(&service);
                continue;
            }
            // One that did not change stays the same to those who hold it.
            let known = before.remove(&service).or_else(|| self.policies.get(&service).cloned());
            let policy = known.filter(|known| **known == policy).unwrap_or_else(|| Arc::new(policy));
            self.policies.insert(service, policy);
        }
    }
}

#[cfg(test)]
mod tests;
