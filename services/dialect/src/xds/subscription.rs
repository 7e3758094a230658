//! What one client has of one type, and what it lacks. Pure.
//!
//! One response of a type is under way at a time: until the client has answered it, what changes is gathered, so that a
//! client that is slow costs no memory and is told the latest. What was sent is not sent again, refused or not, until it
//! differs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Type;
use super::refusal::Refusal;
use super::shelf::Resource;

/// Most names that one client follows of one type.
pub(crate) const NAMES_MAX: usize = 10_000;
/// Longest name that is followed, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 512;
/// The name that means all.
const ALL: &str = "*";

/// What there is under a name.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    /// This.
    Here(Arc<Resource>),
    /// Nothing, and that is certain.
    Missing,
    /// It cannot be said yet.
    Unknown,
    /// Something that clients would refuse; what was told before holds.
    Withheld(Arc<str>),
}

/// What a client is to be told.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Batch {
    /// What is there.
    pub(crate) resources: Vec<Arc<Resource>>,
    /// What is not there any more (delta).
    pub(crate) removed: Vec<String>,
    /// Names that cannot be told, and why.
    pub(crate) errors: Vec<(String, Trouble)>,
}

/// Why a name cannot be told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Trouble {
    /// There is no such resource.
    Missing,
    /// It was held back.
    Withheld(Arc<str>),
}

/// What was sent of a name.
#[derive(Clone, Debug, PartialEq)]
enum Sent {
    /// A resource of this version; the resource itself unless another node sent it.
    Here(String, Option<Arc<Resource>>),
    /// That there is none, or none that may be seen.
    Nothing,
}

/// What a client asks for in state-of-the-world form.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    /// All names that it follows.
    pub(crate) names: Vec<String>,
    /// Version that it has.
    pub(crate) version: String,
}

/// What a client asks for in delta form.
#[derive(Clone, Debug, Default)]
pub(crate) struct AskedDelta {
    /// Names that it begins to follow.
    pub(crate) subscribe: Vec<String>,
    /// Names that it follows no more.
    pub(crate) unsubscribe: Vec<String>,
    /// What it has from an earlier stream.
    pub(crate) has: BTreeMap<String, String>,
}

/// What one client follows of one type.
#[derive(Debug)]
pub(crate) struct Subscription {
    of: Type,
    is_delta: bool,
    is_all: bool,
    names: BTreeSet<String>,
    /// Whether the client came with resources of an earlier stream, which it must not lose for want of an answer.
    had: bool,
    sent: BTreeMap<String, Sent>,
    /// Nonce of the last response; 0 before the first.
    nonce: u64,
    /// Whether that response is unanswered.
    pub(crate) is_awaiting: bool,
    /// Version that was sent last.
    pub(crate) sent_version: String,
    /// Version that was taken last.
    pub(crate) acknowledged_version: String,
    /// What was refused since.
    pub(crate) refusal: Option<Refusal>,
}

impl Subscription {
    /// Follows nothing yet.
    pub(crate) fn new(of: Type, is_delta: bool) -> Self {
        Self {
            of,
            is_delta,
            is_all: false,
            names: BTreeSet::new(),
            had: false,
            sent: BTreeMap::new(),
            nonce: 0,
            is_awaiting: false,
            sent_version: String::new(),
            acknowledged_version: String::new(),
            refusal: None,
        }
    }

    /// Names that are followed one by one.
    pub(crate) fn names(&self) -> &BTreeSet<String> {
        &self.names
    }

    /// Whether all resources of the type are followed.
    pub(crate) fn is_all(&self) -> bool {
        self.is_all
    }

    /// Names of resources that the client was sent.
    pub(crate) fn sent_names(&self) -> impl Iterator<Item = &str> {
        self.sent.keys().map(String::as_str)
    }

    /// Takes the answer to a response. Answers whether the response was the last one.
    pub(crate) fn answered(&mut self, nonce: &str, refusal: Option<Refusal>) -> bool {
        if self.nonce == 0 || nonce != self.nonce.to_string() {
            return false;
        }
        self.is_awaiting = false;
        match refusal {
            Some(refusal) => self.refusal = Some(refusal),
            None => {
                self.refusal = None;
                self.acknowledged_version.clone_from(&self.sent_version);
            }
        }
        true
    }

    /// Takes a request in state-of-the-world form, after [`Subscription::answered`]: the names that are followed now.
    pub(crate) fn ask(&mut self, asked: Asked, is_first: bool) {
        let mut names: BTreeSet<String> = asked.names.into_iter().collect();
        let is_star = names.remove(ALL);
        if is_first {
            self.had = !asked.version.is_empty();
            // Clients of old say "all" by naming nothing at first. Once something was named, nothing means nothing.
            self.is_all = is_star || (names.is_empty() && self.of.is_whole());
        } else if is_star {
            self.is_all = true;
        } else if !names.is_empty() || !self.names.is_empty() {
            self.is_all = false;
        }
        if !self.is_all {
            self.sent.retain(|name, _| names.contains(name));
        }
        self.names = names;
    }

    /// Takes a request in delta form.
    pub(crate) fn ask_delta(&mut self, asked: AskedDelta, is_first: bool) {
        if is_first {
            self.had = !asked.has.is_empty();
            self.is_all = self.of.is_whole() && asked.subscribe.is_empty();
            self.sent.extend(asked.has.into_iter().map(|(name, version)| (name, Sent::Here(version, None))));
        }
        for name in asked.subscribe {
            if name == ALL {
                self.is_all = true;
            } else {
                if !is_first {
                    // Whoever asks again has lost it.
                    self.sent.remove(&name);
                }
                self.names.insert(name);
            }
        }
        for name in asked.unsubscribe {
            if name == ALL {
                self.is_all = false;
                let names = &self.names;
                self.sent.retain(|name, _| names.contains(name));
            } else if self.names.remove(&name) && !self.is_all {
                self.sent.remove(&name);
            }
        }
    }

    /// What the client is to be told now, if anything. `all` are the names of all resources of the type.
    pub(crate) fn due(
        &self,
        all: impl Iterator<Item = String>,
        is_settled: bool,
        find: impl Fn(&str) -> Found,
    ) -> Option<Batch> {
        if self.is_awaiting || (self.is_all && self.had && !is_settled) {
            return None;
        }
        let mut wanted = self.names.clone();
        if self.is_all {
            wanted.extend(all);
        }
        let mut batch = Batch::default();
        let mut changed = self.nonce == 0 && self.of.is_whole();
        let mut unchanged = Vec::new();
        for name in &wanted {
            let sent = self.sent.get(name);
            match (find(name), sent) {
                (Found::Here(resource), Some(Sent::Here(version, _))) if resource.version == *version => {
                    unchanged.push(resource);
                }
                (Found::Here(resource), _) => {
                    changed = true;
                    batch.resources.push(resource);
                }
                (Found::Missing, Some(Sent::Here(..))) => {
                    changed = true;
                    batch.removed.push(name.clone());
                    batch.errors.push((name.clone(), Trouble::Missing));
                }
                (Found::Missing, None) => {
                    changed = true;
                    batch.removed.push(name.clone());
                    batch.errors.push((name.clone(), Trouble::Missing));
                }
                (Found::Withheld(_), Some(Sent::Here(_, Some(before)))) => unchanged.push(before.clone()),
                (Found::Withheld(why), None) => {
                    changed = true;
                    batch.errors.push((name.clone(), Trouble::Withheld(why)));
                }
                // A whole response without it would delete it.
                (Found::Unknown, _) if self.of.is_whole() && self.had && !self.is_delta => return None,
                (Found::Missing | Found::Withheld(_) | Found::Unknown, _) => {}
            }
        }
        for name in self.sent.iter().filter(|(_, sent)| **sent != Sent::Nothing).map(|(name, _)| name) {
            if !wanted.contains(name) {
                changed = true;
                batch.removed.push(name.clone());
            }
        }
        if self.of.is_whole() && !self.is_delta {
            batch.resources.append(&mut unchanged);
        }
        (changed && (self.nonce == 0 || self.is_delta || self.of.is_whole() || !batch.is_silent())).then_some(batch)
    }

    /// Names in a batch that the client was sent in another version before.
    pub(crate) fn renewed(&self, batch: &Batch) -> Vec<String> {
        let is_renewed = |resource: &&Arc<Resource>| match self.sent.get(&resource.name) {
            Some(Sent::Here(version, _)) => resource.version != *version,
            Some(Sent::Nothing) | None => false,
        };
        batch.resources.iter().filter(is_renewed).map(|resource| resource.name.clone()).collect()
    }

    /// Has these sent again, if they are followed.
    pub(crate) fn forget(&mut self, names: &[String]) {
        names.iter().for_each(|name| drop(self.sent.remove(name)));
    }

    /// Notes that a batch was sent.
    pub(crate) fn sent(&mut self, batch: &Batch, nonce: u64, version: String) {
        for name in &batch.removed {
            if self.names.contains(name) {
                self.sent.insert(name.clone(), Sent::Nothing);
            } else {
                self.sent.remove(name);
            }
        }
        for (name, _) in &batch.errors {
            self.sent.insert(name.clone(), Sent::Nothing);
        }
        for resource in &batch.resources {
            self.sent.insert(resource.name.clone(), Sent::Here(resource.version.clone(), Some(resource.clone())));
        }
        self.nonce = nonce;
        self.is_awaiting = true;
        self.sent_version = version;
    }
}

impl Batch {
    /// Whether a client in state-of-the-world form would learn nothing of it.
    fn is_silent(&self) -> bool {
        self.resources.is_empty() && self.errors.is_empty()
    }
}

#[cfg(test)]
mod tests;
