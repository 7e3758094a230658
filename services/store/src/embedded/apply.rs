//! Changes as they are made inside one redb transaction: every piece of work gets its own revision, or none if it
//! changes nothing. What fails here for the caller's sake has changed nothing; what fails for redb's sake takes the
//! whole redb transaction with it.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use redb::{ReadableTable as _, Table, WriteTransaction};

use super::disk::{ENTRIES, EntryRow, LEASED, LEASES, LOG, META, Meta};
use super::feed::Committed;
use super::record::Record;
use crate::Error;
use crate::model::{Compare, Entry, Event, Key, LeaseId, Op, Outcome, Revision, Txn};

/// How much of the log is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct History {
    pub(super) revisions_max: i64,
    pub(super) bytes_max: i64,
}

/// The tables of one redb transaction, and what has been done in it.
pub(super) struct Changes<'txn> {
    entries: Table<'txn, &'static str, EntryRow>,
    log: Table<'txn, i64, &'static [u8]>,
    leases: Table<'txn, i64, u64>,
    leased: Table<'txn, (i64, &'static str), ()>,
    meta_table: Table<'txn, &'static str, i64>,
    meta: Meta,
    committed: Vec<Committed>,
}

impl<'txn> Changes<'txn> {
    pub(super) fn begin(write: &'txn WriteTransaction) -> Result<Self, redb::Error> {
        let meta_table = write.open_table(META)?;
        let meta = Meta::load(|name| Ok(meta_table.get(name)?.map(|value| value.value())))?;
        Ok(Self {
            entries: write.open_table(ENTRIES)?,
            log: write.open_table(LOG)?,
            leases: write.open_table(LEASES)?,
            leased: write.open_table(LEASED)?,
            meta_table,
            meta,
            committed: Vec::new(),
        })
    }

    /// Does a transaction. The inner error is the caller's.
    pub(super) fn txn(&mut self, txn: &Txn) -> Result<Result<Outcome, Error>, redb::Error> {
        for compare in &txn.compares {
            if !self.holds(compare)? {
                return Ok(Ok(Outcome { committed: false, revision: Revision(self.meta.revision) }));
            }
        }
        for op in &txn.ops {
            if let Op::Put { lease: Some(lease), .. } = op
                && self.leases.get(lease.0)?.is_none()
            {
                return Ok(Err(Error::LeaseUnknown(*lease)));
            }
        }
        let at = self.next();
        let mut events = Vec::new();
        for op in &txn.ops {
            match op {
                Op::Put { key, value, lease } => events.push(self.put(key, value, *lease, at)?),
                Op::Delete(key) => events.extend(self.delete(key, at)?),
                Op::DeletePrefix(prefix) => {
                    for key in self.keys(prefix)? {
                        events.extend(self.delete(&key, at)?);
                    }
                }
            }
        }
        self.record(at, events)?;
        Ok(Ok(Outcome { committed: true, revision: Revision(self.meta.revision) }))
    }

    /// Makes a lease.
    pub(super) fn grant(&mut self, ttl: Duration) -> Result<LeaseId, redb::Error> {
        self.meta.lease += 1;
        let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        self.leases.insert(self.meta.lease, millis)?;
        Ok(LeaseId(self.meta.lease))
    }

    /// Ends a lease and deletes its keys.
    pub(super) fn revoke(&mut self, lease: LeaseId) -> Result<(), redb::Error> {
        if self.leases.remove(lease.0)?.is_none() {
            return Ok(());
        }
        let mut keys = Vec::new();
        for row in self.leased.range((lease.0, "")..(lease.0 + 1, ""))? {
            keys.push(Key::new(row?.0.value().1));
        }
        let at = self.next();
        let mut events = Vec::new();
        for key in keys {
            events.extend(self.delete(&key, at)?);
        }
        self.record(at, events)
    }

    /// Cuts the log to its bounds and writes the revision; the rest is up to redb's commit.
    pub(super) fn finish(mut self, history: History) -> Result<Vec<Committed>, redb::Error> {
        while self.meta.revision - self.meta.compacted > history.revisions_max
            || self.meta.log_bytes > history.bytes_max
        {
            let oldest = self.meta.compacted + 1;
            let Some(record) = self.log.remove(oldest)? else {
                return Err(redb::Error::Corrupted(format!("the log has no revision {oldest}")));
            };
            self.meta.log_bytes -= size(record.value());
            self.meta.compacted = oldest;
        }
        for (name, value) in self.meta.fields() {
            self.meta_table.insert(name, value)?;
        }
        Ok(self.committed)
    }

    fn next(&self) -> Revision {
        Revision(self.meta.revision + 1)
    }

    fn holds(&self, compare: &Compare) -> Result<bool, redb::Error> {
        let (Compare::Absent(key) | Compare::Present(key) | Compare::Modified(key, _) | Compare::Created(key, _)) =
            compare;
        // As in etcd, what is not there was made and modified at revision 0.
        let (created, modified) = self.entries.get(key.as_str())?.map_or((0, 0), |row| {
            let (created, modified, _, _) = row.value();
            (created, modified)
        });
        Ok(match compare {
            Compare::Absent(_) => created == 0,
            Compare::Present(_) => created != 0,
            Compare::Modified(_, revision) => modified == revision.0,
            Compare::Created(_, revision) => created == revision.0,
        })
    }

    fn put(&mut self, key: &Key, value: &Bytes, lease: Option<LeaseId>, at: Revision) -> Result<Event, redb::Error> {
        let id = lease.map_or(0, |lease| lease.0);
        let known = self.entries.get(key.as_str())?.map(|row| {
            let (created, _, lease, _) = row.value();
            (created, lease)
        });
        let created = known.map_or(at.0, |(created, _)| created);
        if let Some((_, before)) = known
            && before != 0
        {
            self.leased.remove((before, key.as_str()))?;
        }
        if id != 0 {
            self.leased.insert((id, key.as_str()), ())?;
        }
        self.entries.insert(key.as_str(), (created, at.0, id, value.as_ref()))?;
        let (key, value, created) = (key.clone(), value.clone(), Revision(created));
        Ok(Event::Put(Entry { key, value, created, modified: at, lease }))
    }

    fn delete(&mut self, key: &Key, at: Revision) -> Result<Option<Event>, redb::Error> {
        let Some(lease) = self.entries.remove(key.as_str())?.map(|row| row.value().2) else { return Ok(None) };
        if lease != 0 {
            self.leased.remove((lease, key.as_str()))?;
        }
        Ok(Some(Event::Delete { key: key.clone(), revision: at }))
    }

    fn keys(&self, prefix: &Key) -> Result<Vec<Key>, redb::Error> {
        let mut keys = Vec::new();
        for row in self.entries.range(prefix.as_str()..)? {
            let key = row?.0;
            if !key.value().starts_with(prefix.as_str()) {
                break;
            }
            keys.push(Key::new(key.value()));
        }
        Ok(keys)
    }

    /// Spends the revision if anything changed.
    fn record(&mut self, at: Revision, events: Vec<Event>) -> Result<(), redb::Error> {
        if events.is_empty() {
            return Ok(());
        }
        let record = Record::of(&events).encode_to_vec();
        self.log.insert(at.0, record.as_slice())?;
        self.meta.log_bytes += size(&record);
        self.meta.revision = at.0;
        self.committed.push(Committed::new(at, events));
        Ok(())
    }
}

fn size(record: &[u8]) -> i64 {
    i64::try_from(record.len()).expect("no record is larger than a transaction")
}
