//! The policies that hold, and when each last changed. Pure.

use std::collections::BTreeMap;

use crate::model::{Interest, Policy, ServiceName};

/// A point in the life of the policies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark(u64);

/// The policies that hold.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    /// A service whose policy was taken back stays, without one: documents are never deleted either.
    by_service: BTreeMap<ServiceName, (Mark, Option<Policy>)>,
    /// Documents that cannot be used, as long as they are the newest.
    refused: BTreeMap<ServiceName, (i64, String)>,
    mark: Mark,
    /// Whether central config has told all there is.
    pub(crate) is_complete: bool,
}

impl Policies {
    /// The present.
    pub(crate) fn mark(&self) -> Mark {
        self.mark
    }

    /// The services that have a policy.
    pub(crate) fn services(&self) -> Vec<ServiceName> {
        let with = self.by_service.iter().filter(|(_, (_, policy))| policy.is_some());
        with.map(|(service, _)| service.clone()).collect()
    }

    /// The policy of a service.
    pub(crate) fn get(&self, service: &str) -> Option<Policy> {
        self.by_service.get(service)?.1.clone()
    }

    /// Sets the policy of a service; tells whether it was another before.
    pub(crate) fn set(&mut self, service: &ServiceName, policy: Option<Policy>) -> bool {
        self.refused.remove(service);
        let before = self.by_service.get(service).and_then(|(_, policy)| policy.as_ref());
        if before == policy.as_ref() {
            return false;
        }
        self.mark.0 += 1;
        self.by_service.insert(service.clone(), (self.mark, policy));
        true
    }

    /// Notes why a document cannot be used; tells whether that is new.
    pub(crate) fn refuse(&mut self, service: &ServiceName, revision: i64, why: &str) -> bool {
        let before = self.refused.insert(service.clone(), (revision, why.to_owned()));
        before.is_none_or(|(before, _)| before != revision)
    }

    /// Why the newest document cannot be used, and its revision.
    pub(crate) fn refusal(&self, service: &str) -> Option<(i64, String)> {
        self.refused.get(service).cloned()
    }

    /// The policies of `interest`, by service.
    pub(crate) fn all(&self, interest: &Interest) -> Vec<Policy> {
        self.changed(Mark(0), interest).into_iter().filter_map(Result::ok).collect()
    }

    /// What changed after a mark: policies, or the services that have none any more.
    pub(crate) fn changed(&self, then: Mark, interest: &Interest) -> Vec<Result<Policy, ServiceName>> {
        if then == self.mark {
            return Vec::new();
        }
        let told = |(service, (mark, policy)): (&ServiceName, &(Mark, Option<Policy>))| {
            (*mark > then).then(|| policy.clone().ok_or_else(|| service.clone()))
        };
        match interest {
            Interest::All | Interest::Within(_) => self.by_service.iter().filter_map(told).collect(),
            Interest::Named(names) => {
                names.iter().filter_map(|key| self.by_service.get_key_value(&key.name)).filter_map(told).collect()
            }
        }
    }
}
