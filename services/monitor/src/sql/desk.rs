//! The desk on which a statement is answered: a SQLite database in memory, for one statement alone.
//!
//! Tables are laid out empty first, so that the statement says which columns it reads; only those are filled. While the
//! statement is read and answered it may select, and nothing else: no file is opened, none is written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ninefold::fault::Violation;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, ErrorCode, params_from_iter};

use super::tables::Table;
use crate::error::Error;

/// Longest statement, in bytes.
const STATEMENT_BYTES_MAX: i32 = 64 * 1024;
/// Largest value, and largest row, in bytes.
const VALUE_BYTES_MAX: i32 = 1024 * 1024;
/// Bounds of the statement's shape, and of what its program may be.
const LIMITS: [(Limit, i32); 9] = [
    (Limit::SQLITE_LIMIT_SQL_LENGTH, STATEMENT_BYTES_MAX),
    (Limit::SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX),
    (Limit::SQLITE_LIMIT_COLUMN, 200),
    (Limit::SQLITE_LIMIT_EXPR_DEPTH, 200),
    (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 20),
    (Limit::SQLITE_LIMIT_VDBE_OP, 100_000),
    (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1024),
    (Limit::SQLITE_LIMIT_ATTACHED, 0),
    (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
];
/// Pages of 4 KiB that are kept of interim results; more go to a temporary file.
const INTERIM_PAGES: i32 = 4096;
/// Steps of SQLite's machine between two looks at the clock.
const STEPS: i32 = 10_000;
/// What a row takes beside its values, and a value beside its bytes.
const OVERHEAD: usize = 16;
/// Tables beside ours that may be read.
const MORE_TABLES: [&str; 4] = ["json_each", "json_tree", "sqlite_master", "sqlite_schema"];
/// Functions that reach out of the statement.
const FORBIDDEN: [&str; 2] = ["load_extension", "fts3_tokenizer"];

/// How much may be laid on a desk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Most records.
    pub(crate) records_max: u64,
    /// Most bytes of them.
    pub(crate) bytes_max: usize,
}

/// What a statement was seen to do.
#[derive(Debug, Default)]
struct Seen {
    reads: BTreeMap<String, BTreeSet<String>>,
    refused: Option<String>,
}

/// A statement's answer.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    /// Names of its columns.
    pub(crate) columns: Vec<String>,
    /// Its rows.
    pub(crate) rows: Vec<Vec<Value>>,
    /// Whether there are more.
    pub(crate) is_cut_off: bool,
}

/// The desk.
#[derive(Debug)]
pub(crate) struct Desk {
    database: Connection,
    reads: BTreeMap<String, BTreeSet<String>>,
    words: BTreeSet<String>,
    room: Room,
    records: u64,
    bytes: usize,
}

/// A desk that is filled while others look for the records.
pub(crate) type Shared = Arc<Mutex<Desk>>;

fn broken(error: rusqlite::Error) -> Error {
    Error::Unreadable(Box::new(error))
}

impl Desk {
    /// Lays out empty tables, and looks at what the statement does.
    ///
    /// # Errors
    /// [`Error::QueryInvalid`] for a statement that is not understood, or does more than select.
    pub(crate) fn new(statement: &str, room: Room) -> Result<Self, Error> {
        let database = Connection::open_in_memory().map_err(broken)?;
        let tables: String = Table::ALL.iter().map(|table| table.created()).collect();
        let settings = format!("PRAGMA journal_mode = OFF; PRAGMA cache_size = {INTERIM_PAGES};");
        database.execute_batch(&(settings + &tables)).map_err(broken)?;
        for (limit, most) in LIMITS {
            database.set_limit(limit, most).map_err(broken)?;
        }
        let mut desk = Self { database, reads: BTreeMap::new(), words: words(statement), room, records: 0, bytes: 0 };
        desk.reads = desk.look_at(statement)?;
        Ok(desk)
    }

    fn look_at(&self, statement: &str) -> Result<BTreeMap<String, BTreeSet<String>>, Error> {
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let noting = seen.clone();
        let judge = move |asked: AuthContext<'_>| {
            let mut seen = noting.lock().unwrap_or_else(PoisonError::into_inner);
            match judged(&asked.action) {
                Ok(Some((table, column))) => {
                    seen.reads.entry(table.to_owned()).or_default().insert(column.to_owned());
                    Authorization::Allow
                }
                Ok(None) => Authorization::Allow,
                Err(why) => {
                    seen.refused.get_or_insert(why);
                    Authorization::Deny
                }
            }
        };
        self.database.authorizer(Some(judge)).map_err(broken)?;
        let read = self.database.prepare(statement).map(|read| read.column_count());
        self.database.authorizer(None::<fn(AuthContext<'_>) -> Authorization>).map_err(broken)?;
        let seen = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
        match (seen.refused, read) {
            (Some(why), _) => Err(invalid(why)),
            (None, Err(error)) => Err(wrong(&error)),
            (None, Ok(0)) => Err(invalid("must be one SELECT".to_owned())),
            (None, Ok(_)) => Ok(seen.reads),
        }
    }

    /// The columns of a table that the statement reads, as their places; `None` where it does not touch the table.
    pub(crate) fn reads(&self, table: Table) -> Option<Vec<usize>> {
        let read = self.reads.get(table.name());
        // SQLite does not tell of columns that are joined by USING, or by NATURAL; those are in its words.
        let is_touched = read.is_some() || self.words.contains(table.name());
        let is_natural = self.words.contains("natural");
        let is_read =
            |name: &str| is_natural || self.words.contains(name) || read.is_some_and(|read| read.contains(name));
        let places = table.columns().iter().enumerate().filter(|(_, (name, ..))| is_read(name));
        is_touched.then(|| places.map(|(place, _)| place).collect())
    }

    /// Begins to lay out records of a table: those columns of it that are read.
    pub(crate) fn begin(&self) -> Result<(), Error> {
        self.database.execute_batch("BEGIN").map_err(broken)
    }

    /// Ends to lay out records.
    pub(crate) fn end(&self) -> Result<(), Error> {
        self.database.execute_batch("COMMIT").map_err(broken)
    }

    /// Lays a record out.
    ///
    /// # Errors
    /// [`Error::SqlTooCostly`] where there is no room for it.
    pub(crate) fn put(&mut self, table: Table, insert: &str, values: Vec<Value>) -> Result<(), Error> {
        self.records += 1;
        self.bytes += OVERHEAD + values.iter().map(|value| OVERHEAD + bytes_of(value)).sum::<usize>();
        if self.records > self.room.records_max {
            return Err(Error::SqlTooCostly(format!(
                "{} records ({} among them)",
                self.room.records_max,
                table.name()
            )));
        }
        if self.bytes > self.room.bytes_max {
            return Err(Error::SqlTooCostly(format!("{} MiB of records", self.room.bytes_max / (1024 * 1024))));
        }
        let mut put = self.database.prepare_cached(insert).map_err(broken)?;
        match put.execute(params_from_iter(values)) {
            Ok(_) => Ok(()),
            Err(error) => Err(wrong(&error)),
        }
    }

    /// How many records lie on it.
    pub(crate) const fn records(&self) -> u64 {
        self.records
    }

    /// Answers the statement, at most so many rows and bytes of it.
    ///
    /// # Errors
    /// [`Error::QueryTooSlow`] at the deadline or once nobody waits; [`Error::QueryInvalid`] where a value does not fit.
    pub(crate) fn answer(&self, statement: &str, most: (usize, usize), until: Until) -> Result<Rows, Error> {
        let (rows_max, bytes_max) = most;
        let wait = until.wait;
        self.database.progress_handler(STEPS, Some(move || until.is_over())).map_err(broken)?;
        let told = |error: rusqlite::Error| match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => Error::QueryTooSlow(wait),
            _ => wrong(&error),
        };
        let mut read = self.database.prepare(statement).map_err(told)?;
        let columns: Vec<String> = read.column_names().into_iter().map(str::to_owned).collect();
        let mut answer = Rows { columns, ..Rows::default() };
        let mut found = read.query(()).map_err(told)?;
        let mut bytes = 0;
        while let Some(row) = found.next().map_err(told)? {
            let values = (0..answer.columns.len()).map(|place| row.get_ref(place).map(owned));
            let values = values.collect::<Result<Vec<Value>, _>>().map_err(told)?;
            bytes += values.iter().map(|value| OVERHEAD + bytes_of(value)).sum::<usize>();
            if answer.rows.len() >= rows_max || (bytes > bytes_max && !answer.rows.is_empty()) {
                answer.is_cut_off = true;
                break;
            }
            answer.rows.push(values);
        }
        Ok(answer)
    }
}

/// Until when somebody waits for an answer.
#[derive(Clone, Debug)]
pub(crate) struct Until {
    /// The deadline.
    pub(crate) at: Instant,
    /// How long it was in all.
    pub(crate) wait: Duration,
    /// Whether whoever asked has gone.
    pub(crate) is_dropped: Arc<AtomicBool>,
}

impl Until {
    /// Whether nobody waits any more.
    pub(crate) fn is_over(&self) -> bool {
        self.is_dropped.load(Ordering::Relaxed) || Instant::now() >= self.at
    }
}

/// The statement that lays out those columns of a table.
pub(crate) fn insert(table: Table, columns: &[usize]) -> String {
    if columns.is_empty() {
        return format!("INSERT INTO {} DEFAULT VALUES", table.name());
    }
    let names: Vec<&str> = columns.iter().filter_map(|place| Some(table.columns().get(*place)?.0)).collect();
    let places = vec!["?"; names.len()].join(", ");
    format!("INSERT INTO {} ({}) VALUES ({places})", table.name(), names.join(", "))
}

/// What a statement may do: which column of ours it reads, if one; or why not.
fn judged<'a>(action: &AuthAction<'a>) -> Result<Option<(&'a str, &'a str)>, String> {
    match action {
        AuthAction::Select => Ok(None),
        AuthAction::Read { table_name, column_name } => {
            let table = Table::ALL.iter().find(|table| table.name() == *table_name);
            let is_known = table.is_some() || MORE_TABLES.contains(table_name);
            if !is_known {
                return Err(format!("there is no table {table_name}: there are logs, spans and samples"));
            }
            Ok(table.map(|_| (*table_name, *column_name)))
        }
        AuthAction::Function { function_name } if !FORBIDDEN.contains(function_name) => Ok(None),
        AuthAction::Function { function_name } => Err(format!("the function {function_name} is not offered")),
        AuthAction::Recursive => Err("WITH RECURSIVE is not offered".to_owned()),
        _ => Err("must be one SELECT: nothing can be written, set or opened".to_owned()),
    }
}

/// The words of a statement, in small letters.
fn words(statement: &str) -> BTreeSet<String> {
    let words = statement.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| !word.is_empty()).map(str::to_ascii_lowercase).collect()
}

fn invalid(why: String) -> Error {
    Error::QueryInvalid(vec![Violation::new("statement", why)])
}

/// What SQLite says of a statement.
fn wrong(error: &rusqlite::Error) -> Error {
    if error.sqlite_error_code() == Some(ErrorCode::TooBig) {
        return Error::SqlTooCostly("1 MiB in one value, or 64 KiB of statement".to_owned());
    }
    invalid(match error {
        rusqlite::Error::SqlInputError { msg, offset, .. } if *offset >= 0 => format!("at byte {offset}: {msg}"),
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        rusqlite::Error::MultipleStatement => "must be one statement".to_owned(),
        rusqlite::Error::SqliteFailure(_, Some(said)) => said.clone(),
        other => other.to_string(),
    })
}

fn bytes_of(value: &Value) -> usize {
    match value {
        Value::Null | Value::Integer(_) | Value::Real(_) => 0,
        Value::Text(text) => text.len(),
        Value::Blob(blob) => blob.len(),
    }
}

fn owned(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::Real(number),
        ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(blob) => Value::Blob(blob.to_owned()),
    }
}
