//! The nouns of the store. Pure.

use std::time::Duration;

use bytes::Bytes;

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 512;
/// Largest value, in bytes. etcd's default limit for a whole request is 1.5 MiB.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;
/// Most compares and operations of one transaction; etcd's default is 128.
pub const TXN_OPS_MAX: usize = 100;
/// Most bytes of one transaction: its keys and values, and 64 for each compare and operation. Stays below etcd's 1.5 MiB.
pub const TXN_BYTES_MAX: usize = 1_400 * 1024;
/// Shortest lease; a shorter one is made this long. etcd's own floor.
pub const LEASE_TTL_MIN: Duration = Duration::from_secs(2);

/// A key: path segments joined by slashes, such as `registry/instances/product/p-1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// Takes a path as a key.
    pub fn new(path: impl Into<String>) -> Self {
        Self(path.into())
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A moment of the whole store; 0 is before the first write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub i64);

/// Names a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// The value.
    pub value: Bytes,
    /// Revision at which the key was made; unchanged by later puts, new after a delete.
    pub created: Revision,
    /// Revision of the last put.
    pub modified: Revision,
    /// Lease that the key lives under.
    pub lease: Option<LeaseId>,
}

/// What a range read found.
#[derive(Clone, Debug)]
pub struct Ranged {
    /// The entries, by key.
    pub entries: Vec<Entry>,
    /// Revision at which they were read: a watch after it misses nothing.
    pub revision: Revision,
    /// Whether there are more behind the limit.
    pub more: bool,
}

/// A condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The key is not there.
    Absent(Key),
    /// The key is there.
    Present(Key),
    /// The key's last put was at this revision. Revision 0 means that it is not there.
    Modified(Key, Revision),
    /// The key was made at this revision; 0 means that it is not there. Fences out whoever held it before.
    Created(Key, Revision),
}

/// A change of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes a value; `lease` replaces the lease the key had.
    Put {
        /// Where.
        key: Key,
        /// What.
        value: Bytes,
        /// Under which lease, if any.
        lease: Option<LeaseId>,
    },
    /// Deletes a key. Deleting what is not there changes nothing.
    Delete(Key),
    /// Deletes every key that begins with this.
    DeletePrefix(Key),
}

/// Changes that happen together, if all conditions hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// The conditions.
    pub compares: Vec<Compare>,
    /// The changes. A key that is put must not be changed by another operation, nor lie under a prefix that is deleted.
    pub ops: Vec<Op>,
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether all conditions held and the changes were made.
    pub committed: bool,
    /// Revision of the changes; or at which a condition did not hold; or, if nothing had to change, of the last change.
    pub revision: Revision,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A key has a new value.
    Put(Entry),
    /// A key is gone, by a delete or with its lease.
    Delete {
        /// The key.
        key: Key,
        /// When it went.
        revision: Revision,
    },
}

impl Event {
    /// The key that changed.
    pub const fn key(&self) -> &Key {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Delete { key, .. } => key,
        }
    }

    /// When it changed.
    pub const fn revision(&self) -> Revision {
        match self {
            Self::Put(entry) => entry.modified,
            Self::Delete { revision, .. } => *revision,
        }
    }
}

/// All changes of one or more whole revisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The last revision in it: a watch after it gets the rest. No less than that of the last event.
    pub revision: Revision,
    /// The changes, in order.
    pub events: Vec<Event>,
}
