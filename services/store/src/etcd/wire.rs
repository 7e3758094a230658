//! The store's nouns in etcd's words, and back. Pure.

use bytes::Bytes;
use etcd_client as etcd;
use etcd_client::{CompareOp, EventType};

use crate::Error;
use crate::model::{Compare, Entry, Event, Key, LeaseId, Op, Revision, Txn};

/// Where this landscape's keys lie in etcd.
#[derive(Clone, Debug)]
pub(super) struct Folder(String);

impl Folder {
    pub(super) fn new(prefix: &str) -> Self {
        Self(prefix.to_owned())
    }

    /// A key, or a prefix, as etcd has it.
    pub(super) fn path(&self, key: &Key) -> Vec<u8> {
        format!("{}{key}", self.0).into_bytes()
    }

    /// The first key behind all that begin with a prefix.
    pub(super) fn end(&self, prefix: &Key) -> Vec<u8> {
        let mut end = self.path(prefix);
        while let Some(last) = end.pop() {
            if let Some(next) = last.checked_add(1) {
                end.push(next);
                return end;
            }
        }
        // Behind everything; never so, since paths are text.
        vec![0]
    }

    fn key(&self, path: &[u8]) -> Result<Key, Error> {
        let text = std::str::from_utf8(path).ok().and_then(|path| path.strip_prefix(self.0.as_str()));
        text.map(Key::new).ok_or_else(|| {
            Error::Damaged(format!("{:?} under {} is no key of ninefold", String::from_utf8_lossy(path), self.0))
        })
    }

    pub(super) fn entry(&self, row: &etcd::KeyValue) -> Result<Entry, Error> {
        Ok(Entry {
            key: self.key(row.key())?,
            value: Bytes::copy_from_slice(row.value()),
            created: Revision(row.create_revision()),
            modified: Revision(row.mod_revision()),
            lease: (row.lease() != 0).then_some(LeaseId(row.lease())),
        })
    }

    pub(super) fn event(&self, event: &etcd::Event) -> Result<Event, Error> {
        let row = event.kv().ok_or_else(|| Error::Damaged("an event of etcd has no key".to_owned()))?;
        Ok(match event.event_type() {
            EventType::Put => Event::Put(self.entry(row)?),
            EventType::Delete => Event::Delete { key: self.key(row.key())?, revision: Revision(row.mod_revision()) },
        })
    }

    pub(super) fn txn(&self, txn: &Txn) -> etcd::Txn {
        let compares: Vec<_> = txn.compares.iter().map(|compare| self.compare(compare)).collect();
        let ops: Vec<_> = txn.ops.iter().map(|op| self.op(op)).collect();
        etcd::Txn::new().when(compares).and_then(ops)
    }

    fn compare(&self, compare: &Compare) -> etcd::Compare {
        match compare {
            Compare::Absent(key) => etcd::Compare::create_revision(self.path(key), CompareOp::Equal, 0),
            Compare::Present(key) => etcd::Compare::create_revision(self.path(key), CompareOp::Greater, 0),
            Compare::Modified(key, at) => etcd::Compare::mod_revision(self.path(key), CompareOp::Equal, at.0),
            Compare::Created(key, at) => etcd::Compare::create_revision(self.path(key), CompareOp::Equal, at.0),
        }
    }

    fn op(&self, op: &Op) -> etcd::TxnOp {
        match op {
            Op::Put { key, value, lease } => {
                let lease = lease.map(|lease| etcd::PutOptions::new().with_lease(lease.0));
                etcd::TxnOp::put(self.path(key), value.as_ref(), lease)
            }
            Op::Delete(key) => etcd::TxnOp::delete(self.path(key), None),
            Op::DeletePrefix(prefix) => {
                let end = etcd::DeleteOptions::new().with_range(self.end(prefix));
                etcd::TxnOp::delete(self.path(prefix), Some(end))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_lie_under_the_prefix() {
        let folder = Folder::new("/ninefold/");
        assert_eq!(folder.path(&Key::new("a/b")), b"/ninefold/a/b");
        assert_eq!(folder.end(&Key::new("a/")), b"/ninefold/a0");
        assert_eq!(folder.end(&Key::new("")), b"/ninefold0");
        assert_eq!(folder.key(b"/ninefold/a/b").unwrap(), Key::new("a/b"));
        assert!(matches!(folder.key(b"/other/a"), Err(Error::Damaged(_))));
        assert!(matches!(folder.key(b"/ninefold/\xff"), Err(Error::Damaged(_))));
    }
}
