//! What the landscape holds its services to, in the store: packages, their revisions, who may join with what, and what
//! changed when.
//!
//! The records are the words of `ninefold.contract.v1` themselves. A package is a head, which is compared and replaced, and
//! one key for each revision, which never changes: whoever hands in a new revision must have seen the latest.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use ninefold_proto::ninefold::contract::v1 as proto;
use ninefold_store::{self as store, Compare, Key, Op, Outcome, Store, Txn};
use prost::Message;

use crate::error::Error;
use crate::model::Digest;

pub(crate) const PACKAGES: &str = "contract/package/";
pub(crate) const REVISIONS: &str = "contract/revision/";
const FORMS: &str = "contract/form/";
const ACCEPTED: &str = "contract/accepted/";
const REFUSED: &str = "contract/refused/";
pub(crate) const CHANGES: &str = "contract/change/";
/// Entries in one read.
const PAGE_ENTRIES: usize = 500;
/// Most operations of one transaction, below what the store takes.
pub(crate) const OPS_MAX: usize = 90;
/// Most findings that are kept with a change or a revision.
pub(crate) const FINDINGS_MAX: usize = 100;
/// One write in so many looks whether old changes are to be forgotten.
const PRUNE_EVERY: u32 = 32;

/// A package, and the moment of the store at which it was written.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) package: proto::Package,
    pub(crate) modified: store::Revision,
}

/// A contract that was refused: what is needed to judge it again.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Refused {
    /// The refusal.
    #[prost(message, optional, tag = "1")]
    pub(crate) change: Option<proto::Change>,
    /// What its service answers.
    #[prost(string, repeated, tag = "2")]
    pub(crate) protobuf_services: Vec<String>,
    /// Size of the contract.
    #[prost(uint64, tag = "3")]
    pub(crate) size: u64,
}

/// A page of a list, and where it goes on.
#[derive(Debug)]
pub(crate) struct Page<T> {
    pub(crate) rows: Vec<T>,
    pub(crate) rest: Option<Key>,
}

/// The records.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) changes_max: usize,
}

/// Where a package's head lies.
pub(crate) fn package_key(name: &str) -> Key {
    Key::new(format!("{PACKAGES}{name}"))
}

/// Where a revision lies, newest first. No revision lies where a number below 1 leads.
fn revision_key(name: &str, number: i64) -> Key {
    Key::new(format!("{REVISIONS}{name}/{:019}", i64::MAX - number.max(0)))
}

fn form_key(name: &str, digest: &str) -> Key {
    Key::new(format!("{FORMS}{name}/{digest}"))
}

fn accepted_key(digest: &Digest, service: &str) -> Key {
    Key::new(format!("{ACCEPTED}{digest}/{service}"))
}

fn refused_key(digest: &Digest) -> Key {
    Key::new(format!("{REFUSED}{digest}"))
}

/// A key for a change at `time`, newest first.
fn change_key(time: SystemTime) -> Key {
    let age = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let rank = u64::MAX - u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
    Key::new(format!("{CHANGES}{rank:020}-{:08x}", fastrand::u32(..)))
}

/// Writes a record.
pub(crate) fn put(key: Key, record: &impl Message) -> Op {
    Op::Put { key, value: record.encode_to_vec().into(), lease: None }
}

/// The operations that write a package with a new revision.
pub(crate) fn put_revision(package: &proto::Package, revision: &proto::Revision) -> [Op; 3] {
    let number: Bytes = revision.number.to_string().into();
    [
        put(package_key(&package.package), package),
        put(revision_key(&package.package, revision.number), revision),
        Op::Put { key: form_key(&package.package, &revision.package_digest), value: number, lease: None },
    ]
}

/// The operation that lets a service join with a contract.
pub(crate) fn put_accepted(digest: &Digest, service: &str) -> Op {
    Op::Put { key: accepted_key(digest, service), value: Bytes::new(), lease: None }
}

/// The operation that notes a change.
pub(crate) fn put_change(mut change: proto::Change) -> Op {
    let now = SystemTime::now();
    change.time = Some(now.into());
    change.findings.truncate(FINDINGS_MAX);
    put(change_key(now), &change)
}

/// The condition that a package is as it was read.
pub(crate) fn unchanged(name: &str, head: Option<&Head>) -> Compare {
    match head {
        Some(head) => Compare::Modified(package_key(name), head.modified),
        None => Compare::Absent(package_key(name)),
    }
}

impl Ledger {
    /// A package.
    pub(crate) async fn head(&self, name: &str) -> Result<Option<Head>, Error> {
        let entry = self.store.get(&package_key(name)).await.map_err(reading)?;
        Ok(entry.and_then(|entry| {
            let package = proto::Package::decode(entry.value).ok()?;
            Some(Head { package, modified: entry.modified })
        }))
    }

    /// A package that must be there.
    pub(crate) async fn known(&self, name: &str) -> Result<Head, Error> {
        self.head(name).await?.ok_or_else(|| Error::PackageUnknown(name.to_owned()))
    }

    /// All packages, by name.
    pub(crate) async fn packages(&self) -> Result<Vec<proto::Package>, Error> {
        self.all(&Key::new(PACKAGES)).await
    }

    /// Whether a package had this form before.
    pub(crate) async fn has_form(&self, name: &str, digest: &Digest) -> Result<bool, Error> {
        Ok(self.store.get(&form_key(name, digest.as_str())).await.map_err(reading)?.is_some())
    }

    /// Whether a service may join with a contract.
    pub(crate) async fn is_accepted(&self, digest: &Digest, service: &str) -> Result<bool, Error> {
        Ok(self.store.get(&accepted_key(digest, service)).await.map_err(reading)?.is_some())
    }

    /// A revision; the latest for 0.
    pub(crate) async fn revision(&self, package: &proto::Package, number: i64) -> Result<proto::Revision, Error> {
        let number = if number == 0 { package.revisions } else { number };
        let entry = self.store.get(&revision_key(&package.package, number)).await.map_err(reading)?;
        let revision = entry.and_then(|entry| proto::Revision::decode(entry.value).ok());
        revision.ok_or_else(|| Error::RevisionUnknown { package: package.package.clone(), revision: number })
    }

    /// Revisions of a package, newest first.
    pub(crate) async fn revisions(
        &self,
        name: &str,
        after: Option<Key>,
        limit: usize,
    ) -> Result<Page<proto::Revision>, Error> {
        self.page(&Key::new(format!("{REVISIONS}{name}/")), after, limit, |_: &proto::Revision| true).await
    }

    /// Packages by name that `wanted` says yes to.
    pub(crate) async fn page_of_packages(
        &self,
        after: Option<Key>,
        limit: usize,
        wanted: impl Fn(&proto::Package) -> bool,
    ) -> Result<Page<proto::Package>, Error> {
        self.page(&Key::new(PACKAGES), after, limit, wanted).await
    }

    /// Changes, newest first, that `wanted` says yes to.
    pub(crate) async fn changes(
        &self,
        after: Option<Key>,
        limit: usize,
        wanted: impl Fn(&proto::Change) -> bool,
    ) -> Result<Page<proto::Change>, Error> {
        self.page(&Key::new(CHANGES), after, limit, wanted).await
    }

    /// A contract that was refused.
    pub(crate) async fn refused(&self, digest: &Digest) -> Result<Option<Refused>, Error> {
        let entry = self.store.get(&refused_key(digest)).await.map_err(reading)?;
        Ok(entry.and_then(|entry| Refused::decode(entry.value).ok()))
    }

    /// All contracts that were refused and are still kept.
    pub(crate) async fn all_refused(&self) -> Result<Vec<Refused>, Error> {
        self.all(&Key::new(REFUSED)).await
    }

    /// The operation that keeps a refused contract.
    pub(crate) fn put_refused(digest: &Digest, refused: &Refused) -> Op {
        put(refused_key(digest), refused)
    }

    /// The operation that forgets one.
    pub(crate) fn forget_refused(digest: &Digest) -> Op {
        Op::Delete(refused_key(digest))
    }

    /// Writes, if nobody else wrote before.
    pub(crate) async fn write(&self, compares: Vec<Compare>, ops: Vec<Op>) -> Result<bool, Error> {
        let written = self.store.txn(Txn { compares, ops }).await;
        let Outcome { committed, .. } =
            written.map_err(|source| Error::Store { doing: "write the contract", source })?;
        if committed && fastrand::u32(..PRUNE_EVERY) == 0 {
            self.prune().await?;
        }
        Ok(committed)
    }

    /// Forgets the oldest changes beyond the limit.
    async fn prune(&self) -> Result<(), Error> {
        let (mut count, mut after) = (0, None);
        loop {
            let page = self.store.range(&Key::new(CHANGES), after.as_ref(), PAGE_ENTRIES).await.map_err(reading)?;
            let keep = self.changes_max.saturating_sub(count).min(page.entries.len());
            count += page.entries.len();
            for old in page.entries[keep..].chunks(OPS_MAX) {
                let ops = old.iter().map(|entry| Op::Delete(entry.key.clone())).collect();
                self.store.txn(Txn { compares: Vec::new(), ops }).await.map_err(reading)?;
            }
            after = page.entries.last().map(|last| last.key.clone());
            if !page.more {
                return Ok(());
            }
        }
    }

    /// All records below a key.
    pub(crate) async fn all<T: Message + Default>(&self, prefix: &Key) -> Result<Vec<T>, Error> {
        Ok(self.page(prefix, None, usize::MAX - 1, |_| true).await?.rows)
    }

    async fn page<T: Message + Default>(
        &self,
        prefix: &Key,
        mut after: Option<Key>,
        limit: usize,
        wanted: impl Fn(&T) -> bool,
    ) -> Result<Page<T>, Error> {
        let mut rows = Vec::new();
        let mut last = None;
        loop {
            let page = self.store.range(prefix, after.as_ref(), PAGE_ENTRIES).await.map_err(reading)?;
            for entry in page.entries {
                after = Some(entry.key.clone());
                let Ok(row) = T::decode(entry.value) else { continue };
                if !wanted(&row) {
                    continue;
                }
                if rows.len() == limit {
                    return Ok(Page { rows, rest: last });
                }
                rows.push(row);
                last = Some(entry.key);
            }
            if !page.more {
                return Ok(Page { rows, rest: None });
            }
        }
    }
}

fn reading(source: store::Error) -> Error {
    Error::Store { doing: "read the contracts", source }
}
