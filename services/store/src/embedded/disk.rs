//! The file of the embedded backend: how it is opened, locked, read, and opened again after a failure.
//!
//! Everything here blocks; callers are on blocking threads.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use prost::Message as _;
use redb::{Database, DatabaseError, ReadTransaction, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use super::feed::Committed;
use super::record::Record;
use crate::Error;
use crate::model::{Entry, Key, LeaseId, Ranged, Revision};

/// Name of the file in the store's folder.
const FILE: &str = "store.redb";
/// Memory for pages. redb's own default is 1 GiB.
const CACHE_BYTES: usize = 16 * 1024 * 1024;
/// Layout of the tables below; another number is refused.
const FORMAT: i64 = 1;

/// Revision of creation, of the last put, lease or 0, value.
pub(super) type EntryRow = (i64, i64, i64, &'static [u8]);
/// The entries that are there now, by key.
pub(super) const ENTRIES: TableDefinition<'_, &str, EntryRow> = TableDefinition::new("entries");
/// What changed at each revision: every revision after [`Meta::compacted`], as a [`Record`].
pub(super) const LOG: TableDefinition<'_, i64, &[u8]> = TableDefinition::new("log");
/// Time to live of each lease, in milliseconds.
pub(super) const LEASES: TableDefinition<'_, i64, u64> = TableDefinition::new("leases");
/// The keys under each lease.
pub(super) const LEASED: TableDefinition<'_, (i64, &str), ()> = TableDefinition::new("leased");
/// The fields of [`Meta`], and the format.
pub(super) const META: TableDefinition<'_, &str, i64> = TableDefinition::new("meta");

/// What the file says about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Meta {
    /// The last revision.
    pub(super) revision: i64,
    /// The last revision whose changes are no longer in the log.
    pub(super) compacted: i64,
    /// Size of all records in the log.
    pub(super) log_bytes: i64,
    /// The last lease that was granted.
    pub(super) lease: i64,
}

impl Meta {
    /// Reads the fields through `get`; what is not there is 0.
    pub(super) fn load(get: impl Fn(&str) -> Result<Option<i64>, redb::Error>) -> Result<Self, redb::Error> {
        let field = |name| get(name).map(Option::unwrap_or_default);
        Ok(Self {
            revision: field("revision")?,
            compacted: field("compacted")?,
            log_bytes: field("log_bytes")?,
            lease: field("lease")?,
        })
    }

    /// The fields, by name.
    pub(super) const fn fields(&self) -> [(&'static str, i64); 4] {
        [
            ("revision", self.revision),
            ("compacted", self.compacted),
            ("log_bytes", self.log_bytes),
            ("lease", self.lease),
        ]
    }
}

/// Why a folder cannot be used, beside what the system and redb say.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("it is in use by another process; stop that, or choose another folder")]
    InUse,
    #[error("it was written by another version of ninefold (format {0}, this one reads {FORMAT})")]
    Format(i64),
}

/// A lease and its time to live, as the file has them.
pub(super) type Leases = Vec<(LeaseId, std::time::Duration)>;

/// What is found when the file is opened.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) revision: Revision,
    pub(super) leases: Leases,
}

/// What the log has after a revision.
pub(super) enum Logged {
    /// Some whole revisions, the next ones.
    Next(Vec<Committed>),
    /// They are gone.
    Compacted,
}

/// Why the file did not do what it should. Clones go to all whom it concerns.
#[derive(Clone, Debug)]
pub(super) enum Trouble {
    Closed,
    Damaged(String),
    Away(Arc<dyn std::error::Error + Send + Sync>),
}

#[derive(Debug)]
enum Slot {
    Open(Arc<Database>),
    /// redb refuses all work after one failure, so the file is opened anew for the next.
    Failed,
    Closed,
}

/// The file.
#[derive(Debug)]
pub(super) struct Disk {
    folder: PathBuf,
    slot: Mutex<Slot>,
}

impl Disk {
    /// Opens the file in `folder`, making both if needed, and locks it against other processes.
    pub(super) fn open(folder: &Path) -> Result<(Self, Found), Error> {
        let unopenable = |source| Error::Open { path: folder.to_owned(), source };
        make_folder(folder).map_err(|source| unopenable(source.into()))?;
        let (database, found) = open_file(folder).map_err(unopenable)?;
        // The file's name must survive a power cut as well as its content.
        std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(|source| unopenable(source.into()))?;
        Ok((Self { folder: folder.to_owned(), slot: Mutex::new(Slot::Open(Arc::new(database))) }, found))
    }

    /// Works on the open file. After a failure it is opened again; `on_reopen` is told what is in it then, before anybody
    /// reads.
    pub(super) fn with<T>(
        &self,
        on_reopen: impl FnOnce(Found),
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, Trouble> {
        let database = self.database(on_reopen)?;
        work(&database).map_err(|failure| self.failed(&database, failure))
    }

    fn database(&self, on_reopen: impl FnOnce(Found)) -> Result<Arc<Database>, Trouble> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        match &*slot {
            Slot::Open(database) => Ok(database.clone()),
            Slot::Closed => Err(Trouble::Closed),
            Slot::Failed => {
                let (database, found) = open_file(&self.folder).map_err(|source| Trouble::Away(source.into()))?;
                tracing::info!(folder = %self.folder.display(), "the store works again");
                on_reopen(found);
                let database = Arc::new(database);
                *slot = Slot::Open(database.clone());
                Ok(database)
            }
        }
    }

    /// Takes note of a failure, so that the file is opened again.
    fn failed(&self, database: &Arc<Database>, failure: redb::Error) -> Trouble {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        // A late failure of a file that was given up long ago says nothing about the one that is open now.
        if matches!(&*slot, Slot::Open(open) if Arc::ptr_eq(open, database)) {
            tracing::warn!(folder = %self.folder.display(), error = %failure, "the store's file failed");
            *slot = Slot::Failed;
        }
        match failure {
            redb::Error::Corrupted(what) => Trouble::Damaged(what),
            source => Trouble::Away(Arc::new(source)),
        }
    }

    /// Says to a caller what happened.
    pub(super) fn tell(&self, trouble: Trouble) -> Error {
        match trouble {
            Trouble::Closed => Error::Closed,
            Trouble::Damaged(what) => Error::Damaged(what),
            Trouble::Away(source) => Error::Unavailable { what: self.what(), source: Some(Box::new(source)) },
        }
    }

    /// Where the file is, as a part of a message.
    pub(super) fn what(&self) -> String {
        format!("in {}", self.folder.display())
    }

    /// Gives up the file and its lock, once the reads that go on have ended.
    pub(super) fn close(&self) {
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Slot::Closed;
    }
}

/// Makes the folder, for its owner only: values may be secrets.
fn make_folder(folder: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn open_file(folder: &Path) -> Result<(Database, Found), Box<dyn std::error::Error + Send + Sync>> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    let database = builder.create(folder.join(FILE)).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => Unusable::InUse.into(),
        other => Box::<dyn std::error::Error + Send + Sync>::from(other),
    })?;
    let format = prepare(&database)?;
    if format != FORMAT {
        return Err(Unusable::Format(format).into());
    }
    let found = boot(&database)?;
    Ok((database, found))
}

/// Makes the tables if they are not there; tells the format.
fn prepare(database: &Database) -> Result<i64, redb::Error> {
    let read = database.begin_read()?;
    match read.open_table(META) {
        Ok(meta) => return Ok(meta.get("format")?.map_or(0, |format| format.value())),
        Err(redb::TableError::TableDoesNotExist(_)) => {}
        Err(other) => return Err(other.into()),
    }
    let write = database.begin_write()?;
    write.open_table(META)?.insert("format", FORMAT)?;
    write.open_table(ENTRIES)?;
    write.open_table(LOG)?;
    write.open_table(LEASES)?;
    write.open_table(LEASED)?;
    write.commit()?;
    Ok(FORMAT)
}

fn boot(database: &Database) -> Result<Found, redb::Error> {
    let read = database.begin_read()?;
    let mut leases = Vec::new();
    for lease in read.open_table(LEASES)?.iter()? {
        let (id, ttl) = lease?;
        leases.push((LeaseId(id.value()), std::time::Duration::from_millis(ttl.value())));
    }
    Ok(Found { revision: Revision(meta(&read)?.revision), leases })
}

fn meta(read: &ReadTransaction) -> Result<Meta, redb::Error> {
    let table = read.open_table(META)?;
    Meta::load(|name| Ok(table.get(name)?.map(|value| value.value())))
}

fn entry(key: &str, (created, modified, lease, value): (i64, i64, i64, &[u8])) -> Entry {
    Entry {
        key: Key::new(key),
        value: Bytes::copy_from_slice(value),
        created: Revision(created),
        modified: Revision(modified),
        lease: (lease != 0).then_some(LeaseId(lease)),
    }
}

/// Reads one entry.
pub(super) fn get(database: &Database, key: &Key) -> Result<Option<Entry>, redb::Error> {
    let read = database.begin_read()?;
    let entries = read.open_table(ENTRIES)?;
    Ok(entries.get(key.as_str())?.map(|row| entry(key.as_str(), row.value())))
}

/// Reads a page of entries; see [`crate::Store::range`].
pub(super) fn range(
    database: &Database,
    prefix: &Key,
    after: Option<&Key>,
    limit: usize,
) -> Result<Ranged, redb::Error> {
    let read = database.begin_read()?;
    let revision = Revision(meta(&read)?.revision);
    let entries = read.open_table(ENTRIES)?;
    let start = after.map_or(prefix.as_str(), |after| after.as_str().max(prefix.as_str()));
    let mut found = Ranged { entries: Vec::new(), revision, more: false };
    for row in entries.range(start..)? {
        let (key, row) = row?;
        if !key.value().starts_with(prefix.as_str()) {
            break;
        }
        if after.is_some_and(|after| key.value() == after.as_str()) {
            continue;
        }
        if found.entries.len() == limit {
            found.more = true;
            break;
        }
        found.entries.push(entry(key.value(), row.value()));
    }
    Ok(found)
}

/// Reads what changed after a revision: at most `revisions` of them, and no more once `bytes` are read.
pub(super) fn log_after(
    database: &Database,
    after: Revision,
    revisions: usize,
    bytes: usize,
) -> Result<Logged, redb::Error> {
    let read = database.begin_read()?;
    if after.0 < meta(&read)?.compacted {
        return Ok(Logged::Compacted);
    }
    let log = read.open_table(LOG)?;
    let mut next = Vec::new();
    let mut taken = 0;
    for row in log.range(after.0.saturating_add(1)..)?.take(revisions) {
        let (revision, record) = row?;
        let revision = Revision(revision.value());
        let record = Record::decode(record.value())
            .map_err(|error| redb::Error::Corrupted(format!("the record of revision {}: {error}", revision.0)))?;
        let committed = Committed::new(revision, record.into_events(revision));
        taken += committed.bytes;
        next.push(committed);
        if taken >= bytes {
            break;
        }
    }
    Ok(Logged::Next(next))
}
