//! SQL for people: a statement is asked of what a time holds.
//!
//! There is no engine for it in the house. What the time holds is copied into a SQLite database in memory, of the columns
//! that the statement reads, within bounds of records, bytes and time; then SQLite answers.

mod desk;
mod service;
mod tables;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ninefold::fault::Violation;
use ninefold_promql::Query;
use tokio::sync::Semaphore;

use crate::config::Config;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::model::{LineFilter, Nanos};
use crate::neighbours::question::Question;
use crate::service::ANSWER_BYTES_MAX;
use crate::tier::Tier as _;
use desk::{Desk, Room, Rows, Shared, Until, insert};
use tables::Table;

pub(crate) use service::Service;

/// Statements that are answered at a time: each has as much memory as its bounds allow.
const STATEMENTS_MAX: usize = 1;
/// All samples, in PromQL.
const ALL_SAMPLES: &str = "{__name__=~\".+\"}";

/// A statement, and what it is asked of.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// The statement.
    pub(crate) statement: String,
    /// From when on.
    pub(crate) start: Nanos,
    /// Before when.
    pub(crate) end: Nanos,
    /// Which lines.
    pub(crate) lines: LineFilter,
    /// Which samples, in PromQL; empty for all.
    pub(crate) selector: String,
    /// Most rows of the answer.
    pub(crate) rows_max: usize,
}

/// Answers statements.
#[derive(Debug)]
pub(crate) struct Sql {
    metrics: Arc<Metrics>,
    statements: Arc<Semaphore>,
    room: Room,
    wait: Duration,
}

/// Says, when whoever asked goes, that nobody waits.
struct Waiting(Arc<AtomicBool>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn held(desk: &Shared) -> MutexGuard<'_, Desk> {
    // A panic under the lock is a bug that has been told of; the desk is for one statement alone.
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sql {
    /// Answers from metrics, and from what a question is asked of.
    pub(crate) fn new(metrics: Arc<Metrics>, config: &Config) -> Self {
        let room = Room { records_max: config.sql_records_max, bytes_max: config.sql_bytes_max };
        Self { metrics, statements: Arc::new(Semaphore::new(STATEMENTS_MAX)), room, wait: config.query_wait }
    }

    /// Answers a statement, and says of how many records.
    ///
    /// # Errors
    /// [`Error::QueryInvalid`], [`Error::SqlTooCostly`], [`Error::QueryTooSlow`], [`Error::QueryTooCostly`].
    pub(crate) async fn answer(&self, asked: Asked, question: &Question) -> Result<(Rows, u64), Error> {
        let waiting = Waiting(Arc::default());
        let until = Until { at: Instant::now() + self.wait, wait: self.wait, is_dropped: waiting.0.clone() };
        let desk = Desk::new(&asked.statement, self.room)?;
        let permit = tokio::time::timeout(self.wait, self.statements.clone().acquire_owned()).await;
        let permit = permit.map_err(|_| Error::QueryTooSlow(self.wait))?;
        let desk: Shared = Arc::new(std::sync::Mutex::new(desk));
        lay_out_lines(&desk, &asked, &until, question).await?;
        lay_out_spans(&desk, &asked, &until, question).await?;
        self.lay_out_samples(&desk, &asked, &until, question).await?;
        let work = move || {
            let _permit = permit;
            let desk = held(&desk);
            let rows = desk.answer(&asked.statement, (asked.rows_max, ANSWER_BYTES_MAX), until)?;
            Ok((rows, desk.records()))
        };
        tokio::task::spawn_blocking(work).await.map_err(|panic| Error::Unreadable(Box::new(panic)))?
    }

    async fn lay_out_samples(
        &self,
        desk: &Shared,
        asked: &Asked,
        until: &Until,
        question: &Question,
    ) -> Result<(), Error> {
        let table = Table::Samples;
        let Some(columns) = held(desk).reads(table) else { return Ok(()) };
        let text = if asked.selector.is_empty() { ALL_SAMPLES } else { &asked.selector };
        let wrong = |why: String| Error::QueryInvalid(vec![Violation::new("selector", why)]);
        let query = Query::parse(text).map_err(|error| wrong(error.to_string()))?;
        let mut selection = query.selector().ok_or_else(|| wrong("must be a selector of series".to_owned()))?;
        let millis = |nanos: Nanos| i64::try_from(nanos.0 / 1_000_000).unwrap_or(i64::MAX);
        (selection.from, selection.to) = (millis(asked.start) - 1, millis(asked.end) - 1);
        let (metrics, to, until) = (self.metrics.clone(), desk.clone(), until.clone());
        let most = self.room.records_max;
        let samples_max = usize::try_from(most).unwrap_or(usize::MAX);
        let (mut others, _) = question.series(std::slice::from_ref(&selection), samples_max).await?;
        let work = move || {
            let names: Vec<&str> = columns.iter().map(|place| table.columns()[*place].0).collect();
            let statement = insert(table, &columns);
            let found = metrics.select(&selection, samples_max);
            let (series, _) = found.ok_or_else(|| Error::SqlTooCostly(format!("{most} samples")))?;
            let series = crate::metrics::joined(series, others.pop().unwrap_or_default());
            let mut desk = held(&to);
            desk.begin()?;
            for one in &series {
                until.check()?;
                for sample in &one.samples {
                    let value = |name: &&str| tables::of_sample(&one.labels, sample, name);
                    desk.put(table, &statement, names.iter().map(value).collect())?;
                }
            }
            desk.end()
        };
        tokio::task::spawn_blocking(work).await.map_err(|panic| Error::Unreadable(Box::new(panic)))?
    }
}

async fn lay_out_lines(desk: &Shared, asked: &Asked, until: &Until, question: &Question) -> Result<(), Error> {
    let table = Table::Logs;
    let Some(columns) = held(desk).reads(table) else { return Ok(()) };
    let names: Vec<&str> = columns.iter().map(|place| table.columns()[*place].0).collect();
    let parts: BTreeSet<_> = names.iter().filter_map(|name| tables::part(name)).collect();
    let (to, statement, until) = (desk.clone(), insert(table, &columns), until.clone());
    held(desk).begin()?;
    let give = move |line: &crate::model::Line| {
        until.check()?;
        held(&to).put(table, &statement, names.iter().map(|name| tables::of_line(line, name)).collect())
    };
    question.each_line(&asked.lines, &parts, Box::new(give)).await?;
    held(desk).end()
}

async fn lay_out_spans(desk: &Shared, asked: &Asked, until: &Until, question: &Question) -> Result<(), Error> {
    let table = Table::Spans;
    let Some(columns) = held(desk).reads(table) else { return Ok(()) };
    let names: Vec<&str> = columns.iter().map(|place| table.columns()[*place].0).collect();
    let (to, statement, until) = (desk.clone(), insert(table, &columns), until.clone());
    held(desk).begin()?;
    let give = move |span: &crate::model::Span| {
        until.check()?;
        held(&to).put(table, &statement, names.iter().map(|name| tables::of_span(span, name)).collect())
    };
    question.each_span(asked.start, asked.end, Box::new(give)).await?;
    held(desk).end()
}

impl Until {
    fn check(&self) -> Result<(), Error> {
        if self.is_over() { Err(Error::QueryTooSlow(self.wait)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
