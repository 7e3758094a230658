//! Which files there are: a small SQLite database beside them.
//!
//! The list of files and the mark up to which the journal is in files change in one transaction. That is what keeps a
//! record from being lost, or there twice, whenever a node dies.

mod objects;

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous};
use sqlx::{Row as _, SqliteConnection, SqlitePool};

use crate::model::{Nanos, Summary, TraceFilter, TraceId};
use crate::summary::Part;
use crate::tier::{Signal, TraceCursor};

/// Connections: one writes, the others ask.
const CONNECTIONS_MAX: u32 = 4;
/// Longest wait for a connection, and for the file's lock.
const WAIT: Duration = Duration::from_secs(10);
/// Layout of the tables below; another number is refused.
const FORMAT: i64 = 1;
/// Traces that are asked for at a time.
pub(crate) const IDS_MAX: usize = 400;

const TABLES: &str = "
CREATE TABLE file (
    id INTEGER PRIMARY KEY,
    signal TEXT NOT NULL,
    level INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    time_min INTEGER NOT NULL,
    time_max INTEGER NOT NULL,
    records INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    written INTEGER NOT NULL
) STRICT;
CREATE TABLE mark (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
CREATE TABLE trace (
    trace_id BLOB PRIMARY KEY,
    start INTEGER NOT NULL,
    stop INTEGER NOT NULL,
    has_parent INTEGER NOT NULL,
    first_start INTEGER NOT NULL,
    service TEXT NOT NULL,
    name TEXT NOT NULL,
    spans INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    services TEXT NOT NULL
) STRICT;
CREATE INDEX trace_start ON trace (start, trace_id);
PRAGMA user_version = 1;
";

/// What came later: an older version that opens the file does not look at it.
const MORE_TABLES: &str = "
CREATE TABLE IF NOT EXISTS doomed (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    what BLOB NOT NULL,
    through INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS object (id INTEGER PRIMARY KEY, name TEXT NOT NULL, sums BLOB) STRICT;
CREATE TABLE IF NOT EXISTS fallen (name TEXT PRIMARY KEY) STRICT;
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
";

const TRACE_COLUMNS: &str = "trace_id, start, stop, has_parent, first_start, services, service, name, spans, failed";

/// A file, as the manifest has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Names the file.
    pub(crate) id: i64,
    /// What it holds.
    pub(crate) signal: Signal,
    /// How often its records were put together into larger files.
    pub(crate) level: i64,
    /// Sequence number of its first record.
    pub(crate) first: u64,
    /// Sequence number of its last record.
    pub(crate) last: u64,
    /// The earliest time in it.
    pub(crate) time_min: Nanos,
    /// The latest time in it.
    pub(crate) time_max: Nanos,
    /// How many records it has.
    pub(crate) records: u64,
    /// Its size.
    pub(crate) bytes: u64,
    /// When its records were first in a file. What counts for its age: times of records are what senders say.
    pub(crate) written: Nanos,
}

impl Entry {
    /// A file without a record yet.
    pub(crate) const fn empty(id: i64, signal: Signal, level: i64, written: Nanos) -> Self {
        let (time_min, time_max) = (Nanos(u64::MAX), Nanos(0));
        Self { id, signal, level, first: u64::MAX, last: 0, time_min, time_max, records: 0, bytes: 0, written }
    }

    /// Says that all records of another file are in this one, too; of its size it says nothing.
    pub(crate) fn take_in(&mut self, other: &Self) {
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.time_min = self.time_min.min(other.time_min);
        self.time_max = self.time_max.max(other.time_max);
        self.records += other.records;
    }
}

/// What changes at once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    /// Files that come.
    pub(crate) added: Vec<Entry>,
    /// Files that go.
    pub(crate) removed: Vec<i64>,
    /// What came to be known of traces.
    pub(crate) traces: Vec<Part>,
    /// Marks that move.
    pub(crate) marks: Vec<(&'static str, u64)>,
    /// Traces that ended before are forgotten.
    pub(crate) traces_before: Option<Nanos>,
    /// Traces that are forgotten.
    pub(crate) traces_gone: Vec<TraceId>,
}

/// The database.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    pool: SqlitePool,
}

impl Manifest {
    /// Opens it, making it if needed.
    ///
    /// # Errors
    /// What SQLite says, and a protocol error for a file of another layout.
    pub(crate) async fn open(path: &Path) -> Result<Self, sqlx::Error> {
        // The mark must be on the disk before the journal is cut: hence full synchronisation.
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(WAIT);
        let pool =
            SqlitePoolOptions::new().max_connections(CONNECTIONS_MAX).acquire_timeout(WAIT).connect_with(options);
        let pool = pool.await?;
        let format: i64 = sqlx::query("PRAGMA user_version").fetch_one(&pool).await?.try_get(0)?;
        match format {
            0 => {
                sqlx::raw_sql(TABLES).execute(&pool).await?;
            }
            FORMAT => {}
            other => {
                let told = format!("it was written by another version of ninefold (format {other}, not {FORMAT})");
                return Err(sqlx::Error::Protocol(told));
            }
        }
        sqlx::raw_sql(MORE_TABLES).execute(&pool).await?;
        Ok(Self { pool })
    }

    /// Keeps a deletion that is ordered; answers what names it.
    pub(crate) async fn order(&self, kind: &str, what: Vec<u8>, through: u64) -> Result<i64, sqlx::Error> {
        let put = sqlx::query("INSERT INTO doomed (kind, what, through) VALUES (?, ?, ?)");
        let done = put.bind(kind.to_owned()).bind(what).bind(signed(through)).execute(&self.pool).await?;
        Ok(done.last_insert_rowid())
    }

    /// Forgets a deletion that is done, or that whoever ordered it knows to have failed.
    pub(crate) async fn obeyed(&self, id: i64) -> Result<(), sqlx::Error> {
        sqlx::query("DELETE FROM doomed WHERE id = ?").bind(id).execute(&self.pool).await.map(drop)
    }

    /// The deletions that a death left undone, first things first: what names each, its kind, what it is, and up to which
    /// record.
    pub(crate) async fn orders(&self) -> Result<Vec<(i64, String, Vec<u8>, u64)>, sqlx::Error> {
        let rows = sqlx::query("SELECT id, kind, what, through FROM doomed ORDER BY id").fetch_all(&self.pool).await?;
        let order =
            |row: &SqliteRow| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, unsigned(row.try_get(3)?)));
        rows.iter().map(order).collect()
    }

    /// All files, by what they hold and the order of their records.
    pub(crate) async fn files(&self) -> Result<Vec<Entry>, sqlx::Error> {
        let rows = sqlx::query("SELECT * FROM file ORDER BY signal, first").fetch_all(&self.pool).await?;
        rows.iter().map(entry).collect()
    }

    /// A mark; 0 where it was never set.
    pub(crate) async fn mark(&self, name: &str) -> Result<u64, sqlx::Error> {
        let row = sqlx::query("SELECT value FROM mark WHERE name = ?").bind(name).fetch_optional(&self.pool).await?;
        row.map_or(Ok(0), |row| row.try_get::<i64, _>(0).map(unsigned))
    }

    /// Changes what there is, all of it or nothing.
    pub(crate) async fn change(&self, change: &Change) -> Result<(), sqlx::Error> {
        let mut work = self.pool.begin().await?;
        for id in &change.removed {
            sqlx::query("DELETE FROM file WHERE id = ?").bind(id).execute(&mut *work).await?;
            // What the bucket has of it, or may have, is to go.
            let falls = "INSERT OR IGNORE INTO fallen SELECT name FROM object WHERE id = ?";
            sqlx::query(falls).bind(id).execute(&mut *work).await?;
            sqlx::query("DELETE FROM object WHERE id = ?").bind(id).execute(&mut *work).await?;
        }
        for file in &change.added {
            sqlx::query("INSERT INTO file VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
                .bind(file.id)
                .bind(file.signal.name())
                .bind(file.level)
                .bind(signed(file.first))
                .bind(signed(file.last))
                .bind(signed(file.time_min.0))
                .bind(signed(file.time_max.0))
                .bind(signed(file.records))
                .bind(signed(file.bytes))
                .bind(signed(file.written.0))
                .execute(&mut *work)
                .await?;
        }
        put_traces(&mut work, &change.traces).await?;
        for (name, value) in &change.marks {
            let put = sqlx::query("INSERT OR REPLACE INTO mark VALUES (?, ?)").bind(*name).bind(signed(*value));
            put.execute(&mut *work).await?;
        }
        if let Some(before) = change.traces_before {
            sqlx::query("DELETE FROM trace WHERE stop < ?").bind(signed(before.0)).execute(&mut *work).await?;
        }
        for some in change.traces_gone.chunks(IDS_MAX) {
            let places = vec!["?"; some.len()].join(",");
            let text = format!("DELETE FROM trace WHERE trace_id IN ({places})");
            let mut query = sqlx::query(sqlx::AssertSqlSafe(text));
            for id in some {
                query = query.bind(id.0.to_vec());
            }
            query.execute(&mut *work).await?;
        }
        work.commit().await
    }

    /// Whether it has a file.
    pub(crate) async fn has(&self, id: i64) -> Result<bool, sqlx::Error> {
        let row = sqlx::query("SELECT 1 FROM file WHERE id = ?").bind(id).fetch_optional(&self.pool).await?;
        Ok(row.is_some())
    }

    /// What is known of traces, of up to [`IDS_MAX`] of them.
    pub(crate) async fn traces(&self, ids: &[TraceId]) -> Result<Vec<Part>, sqlx::Error> {
        known_traces(&mut *self.pool.acquire().await?, ids).await
    }

    /// Traces that match, newest first, before a place; at most `records_max`, those in `but` left out.
    pub(crate) async fn search(
        &self,
        filter: &TraceFilter,
        before: Option<TraceCursor>,
        records_max: usize,
        but: impl Fn(&TraceId) -> bool,
    ) -> Result<Vec<Summary>, sqlx::Error> {
        use futures_util::TryStreamExt as _;
        let text = format!(
            "SELECT {TRACE_COLUMNS} FROM trace WHERE (start, trace_id) < (?, ?) AND start >= ? AND start < ?
             AND stop - start >= ? AND failed >= ? ORDER BY start DESC, trace_id DESC"
        );
        let (start, id) = before.map_or((i64::MAX, vec![0xff; 17]), |at| (signed(at.start.0), at.trace_id.0.to_vec()));
        let mut rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(start)
            .bind(id)
            .bind(filter.start.map_or(0, |start| signed(start.0)))
            .bind(filter.end.map_or(i64::MAX, |end| signed(end.0)))
            .bind(signed(filter.nanos_min))
            .bind(i64::from(filter.failed_only))
            .fetch(&self.pool);
        let mut found = Vec::new();
        while let Some(row) = rows.try_next().await? {
            let summary = part(&row)?.summary();
            if filter.admits(&summary) && !but(&summary.trace_id) {
                found.push(summary);
                if found.len() >= records_max {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// Closes the database, its own journal put into it.
    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}

async fn known_traces(connection: &mut SqliteConnection, ids: &[TraceId]) -> Result<Vec<Part>, sqlx::Error> {
    let places = vec!["?"; ids.len()].join(",");
    let text = format!("SELECT {TRACE_COLUMNS} FROM trace WHERE trace_id IN ({places})");
    let mut query = sqlx::query(sqlx::AssertSqlSafe(text));
    for id in ids {
        query = query.bind(id.0.to_vec());
    }
    query.fetch_all(connection).await?.iter().map(part).collect()
}

/// Joins what came to be known of traces with what is known, many at a time: a statement each would take minutes.
async fn put_traces(work: &mut SqliteConnection, traces: &[Part]) -> Result<(), sqlx::Error> {
    for some in traces.chunks(IDS_MAX) {
        let ids: Vec<TraceId> = some.iter().map(|part| part.trace_id).collect();
        let known = known_traces(work, &ids).await?;
        let mut known: HashMap<TraceId, Part> = known.into_iter().map(|part| (part.trace_id, part)).collect();
        let places = vec!["(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"; some.len()].join(",");
        let text = format!("INSERT OR REPLACE INTO trace ({TRACE_COLUMNS}) VALUES {places}");
        let mut query = sqlx::query(sqlx::AssertSqlSafe(text));
        for part in some {
            let mut whole = part.clone();
            if let Some(known) = known.remove(&part.trace_id) {
                whole.join(&known);
            }
            query = query
                .bind(whole.trace_id.0.to_vec())
                .bind(signed(whole.start.0))
                .bind(signed(whole.end.0))
                .bind(whole.has_parent)
                .bind(signed(whole.first_start.0))
                .bind(whole.services_text())
                .bind(whole.service)
                .bind(whole.name)
                .bind(signed(whole.spans))
                .bind(signed(whole.failed));
        }
        query.execute(&mut *work).await?;
    }
    Ok(())
}

fn entry(row: &SqliteRow) -> Result<Entry, sqlx::Error> {
    let number = |name: &str| row.try_get::<i64, _>(name).map(unsigned);
    let signal: String = row.try_get("signal")?;
    let signal = Signal::of_name(&signal)
        .ok_or_else(|| sqlx::Error::Protocol(format!("the manifest has a file of {signal:?}, which is no signal")))?;
    Ok(Entry {
        id: row.try_get("id")?,
        signal,
        level: row.try_get("level")?,
        first: number("first")?,
        last: number("last")?,
        time_min: Nanos(number("time_min")?),
        time_max: Nanos(number("time_max")?),
        records: number("records")?,
        bytes: number("bytes")?,
        written: Nanos(number("written")?),
    })
}

fn part(row: &SqliteRow) -> Result<Part, sqlx::Error> {
    let number = |name: &str| row.try_get::<i64, _>(name).map(unsigned);
    let id: Vec<u8> = row.try_get("trace_id")?;
    let services: String = row.try_get("services")?;
    Ok(Part {
        trace_id: TraceId::from_bytes(&id).ok_or_else(|| sqlx::Error::Protocol("a trace without an id".to_owned()))?,
        start: Nanos(number("start")?),
        end: Nanos(number("stop")?),
        has_parent: row.try_get("has_parent")?,
        first_start: Nanos(number("first_start")?),
        service: row.try_get("service")?,
        name: row.try_get("name")?,
        spans: number("spans")?,
        failed: number("failed")?,
        services: services.split('\n').map(str::to_owned).collect(),
    })
}

/// SQLite's numbers have a sign. Ours are below 2^63; a time after 2262 was taken for that.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
