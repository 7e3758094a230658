//! The tier that survives: a journal that is written before anything is acknowledged, memory for what is new, and
//! Parquet files for the rest.
//!
//! Records go into the journal, then into memory, then their sender is told. Every half minute memory is written to
//! files; the list of files and the mark up to which the journal is in them move in one transaction. Whoever asks is
//! answered from memory first, then from files; lines have sequence numbers and spans have ids, so that what is in both
//! counts once. Where a bucket is named, files go there too, and may then go from the disk.

mod batch;
mod cold;
mod columns;
mod commit;
mod copy;
mod delete;
mod file;
mod grams;
mod index;
pub(crate) mod journal;
mod manifest;
mod need;
mod place;
mod reading;
mod state;
mod upkeep;
mod upload;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use ninefold::lifecycle::Scope;
use ninefold::telemetry::{Measure, measure};
use tokio::sync::watch;

use crate::bucket::NAMED;
use crate::captured::nanos;
use crate::config::Config;
use crate::error::Error;
use crate::grammar;
use crate::graph::Graph;
use crate::hot::{is_within, shorten, whole};
use crate::model::{
    Kept, Line, LineFilter, Measurement, Nanos, Sample, SeriesKey, Span, Summary, TraceFilter, TraceId, Usage,
};
use crate::tallies::Tallies;
use crate::tier::{
    Deleted, Followed, Limit, LineCursor, Lines, MeantTraces, Page, Retention, Signal, TakeLine, TakeSpan, Tally, Tier,
    Trace, TraceCursor,
};
pub(crate) use columns::{kind_word, object};

use crate::summary::Part;
use batch::Batch;
use cold::Question;
use delete::Doomed;
use reading::Cost;
use state::State;

/// Most traces that a search by spans chooses from.
const TRACES_MAX: usize = 20_000;
/// How often a search of traces is begun anew because spans went from memory to files meanwhile.
const TRIES: usize = 5;
/// Traces in memory that one step of a search looks at.
const STEP_TRACES: usize = 200;

/// The durable tier.
#[derive(Debug)]
pub(crate) struct Durable(Arc<State>);

impl Durable {
    /// Opens the folder of the settings, reads what a death left in the journal, and keeps the folder up from then on.
    ///
    /// # Errors
    /// [`Error::Unopenable`].
    pub(crate) async fn open(config: &Config, folder: PathBuf, scope: &Scope) -> Result<Self, Error> {
        let state = Arc::new(State::open(config, folder).await?);
        upkeep::start(state.clone(), scope);
        upload::start(&state, scope);
        tell_of_reads(&state.cost);
        Ok(Self(state))
    }

    /// Lets another process have the folder; whoever hands something in from now on is refused.
    pub(crate) fn let_go(&self) {
        self.0.let_go();
    }

    /// Asks files, on a thread that may block, within the bounds of a question.
    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Question) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let wait = self.0.config.query_wait;
        let too_slow = || Error::QueryTooSlow(wait);
        let question = Arc::new(Question::new(self.0.config.query_rows_max, wait));
        // Dropped with the future of whoever asked, so that a thread does not go on for nobody.
        let asked = question.clone().held();
        let cost = self.0.cost.clone();
        let permit =
            tokio::time::timeout(wait, self.0.queries.clone().acquire_owned()).await.map_err(|_| too_slow())?;
        let outcome = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let outcome = work(&question);
            cost.add(&question.cost);
            outcome
        });
        let outcome = outcome.await.map_err(|panic| Error::Unreadable(Box::new(panic)))?;
        drop(asked);
        outcome
    }

    /// What is known of the traces of memory before a place, joined with what files tell of them, newest first: those
    /// that match until there are enough, and the ids of all that were looked at.
    async fn traces_in_memory(
        &self,
        filter: &TraceFilter,
        before: Option<TraceCursor>,
        records_max: usize,
    ) -> Result<Vec<Summary>, Error> {
        let mut found: Vec<Summary> = Vec::new();
        let parts = self.0.pending_traces();
        // What memory tells alone may lack the beginning, so the filter is asked about the whole.
        for some in parts.chunks(STEP_TRACES) {
            let ids: Vec<TraceId> = some.iter().map(|part| part.trace_id).collect();
            let filed = self.0.manifest.traces(&ids).await.map_err(unreadable)?;
            for part in some {
                let mut part = part.clone();
                if let Some(known) = filed.iter().find(|known| known.trace_id == part.trace_id) {
                    part.join(known);
                }
                let summary = part.summary();
                let is_before = before.is_none_or(|before| trace_cursor(&summary) < before);
                if is_before && filter.admits(&summary) {
                    found.push(summary);
                }
            }
            // A trace began no later than memory knows, so none of the rest can come before these.
            let next = parts.get(ids.len()).map(|part| part.start);
            let enough = found.iter().filter(|summary| next.is_none_or(|next| summary.start > next)).count();
            if enough > records_max {
                break;
            }
        }
        Ok(found)
    }

    /// Searches traces by one of their spans, among the newest [`TRACES_MAX`] that have such a span.
    async fn traces_by_spans(
        &self,
        filter: &TraceFilter,
        before: Option<TraceCursor>,
        records_max: usize,
    ) -> Result<Page<Summary, TraceCursor>, Error> {
        let parts = self.0.pending_traces();
        let held = self.0.hot.held_spans();
        let mut ids: HashSet<TraceId> =
            held.iter().filter(|span| filter.admits_span(span)).map(|span| span.trace_id).collect();
        let (sheets, asked) = (self.0.sheets(Signal::Spans), filter.clone());
        ids.extend(self.ask(move |question| cold::traces_with(&sheets, &asked, TRACES_MAX, question)).await?);
        let wanted = ids;
        let ids: Vec<TraceId> = wanted.iter().copied().collect();
        let mut known: HashMap<TraceId, Part> = HashMap::new();
        for some in ids.chunks(manifest::IDS_MAX) {
            let filed = self.0.manifest.traces(some).await.map_err(unreadable)?;
            known.extend(filed.into_iter().map(|part| (part.trace_id, part)));
        }
        for part in parts.iter().filter(|part| wanted.contains(&part.trace_id)) {
            match known.get_mut(&part.trace_id) {
                Some(known) => known.join(part),
                None => drop(known.insert(part.trace_id, part.clone())),
            }
        }
        let summaries = known.values().map(Part::summary).filter(|summary| filter.admits(summary));
        let mut records: Vec<_> =
            summaries.filter(|summary| before.is_none_or(|before| trace_cursor(summary) < before)).collect();
        records.sort_by_key(|summary| std::cmp::Reverse(trace_cursor(summary)));
        let is_cut_off = records.len() > records_max;
        records.truncate(records_max);
        let next = records.last().filter(|_| is_cut_off).map(trace_cursor);
        Ok(Page { records, next })
    }

    async fn traces_once(
        &self,
        filter: &TraceFilter,
        before: Option<TraceCursor>,
        records_max: usize,
    ) -> Result<Page<Summary, TraceCursor>, Error> {
        let hot: HashSet<TraceId> = self.0.pending_traces().iter().map(|part| part.trace_id).collect();
        let mut records = self.traces_in_memory(filter, before, records_max).await?;
        let filed = self.0.manifest.search(filter, before, records_max + 1, |id| hot.contains(id)).await;
        records.extend(filed.map_err(unreadable)?);
        records.sort_by_key(|summary| std::cmp::Reverse(trace_cursor(summary)));
        let is_cut_off = records.len() > records_max;
        records.truncate(records_max);
        let next = records.last().filter(|_| is_cut_off).map(trace_cursor);
        Ok(Page { records, next })
    }
}

/// Measures what questions read.
fn tell_of_reads(cost: &Arc<Cost>) {
    #[expect(clippy::cast_precision_loss, reason = "metrics know no other numbers")]
    fn total(name: &'static str, about: &'static str, cost: &Arc<Cost>, of: fn(&Cost) -> &AtomicU64) {
        let cost = cost.clone();
        measure(name, about, Measure::Total, move || vec![(Vec::new(), of(&cost).load(Ordering::Relaxed) as f64)]);
    }
    let about = "Bytes of telemetry's files that questions have read";
    total("ninefold_monitor_query_read_bytes_total", about, cost, |cost| &cost.bytes);
    let about = "Rows of telemetry's files that questions have looked at";
    total("ninefold_monitor_query_rows_total", about, cost, |cost| &cost.rows);
    let about = "Indexes of telemetry's files that were found spoiled";
    total("ninefold_monitor_index_spoiled_total", about, cost, |cost| &cost.spoiled);
    let about = "Blocks of rows that questions have read";
    total("ninefold_monitor_query_blocks_total", about, cost, |cost| &cost.pieces);
    let about = "Blocks of rows that the index spared questions";
    total("ninefold_monitor_query_blocks_spared_total", about, cost, |cost| &cost.passed_over);
}

fn trace_cursor(summary: &Summary) -> TraceCursor {
    TraceCursor { start: summary.start, trace_id: summary.trace_id }
}

fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    match of_bucket(&error) {
        Some(told) => Error::UnreadableElsewhere(told),
        None => Error::Unreadable(Box::new(error)),
    }
}

/// What a bucket has to do with it. The readers of Parquet pass failures on as texts.
fn of_bucket(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let told = ninefold::fault::chain(error);
    let at = told.find(NAMED)?;
    Some(told[at..].to_owned())
}

#[tonic::async_trait]
impl Tier for Durable {
    async fn append_lines(&self, lines: Vec<Line>, up_to: usize) -> Result<(), Error> {
        self.0.append(Batch::Lines(lines), up_to).await
    }

    async fn append_spans(&self, spans: Vec<Span>, up_to: usize) -> Result<(), Error> {
        self.0.append(Batch::Spans(spans), up_to).await
    }

    async fn append_measurements(&self, measurements: Vec<Measurement>, up_to: usize) -> Result<(), Error> {
        self.0.append(Batch::Measurements(measurements), up_to).await
    }

    fn unfiled_bytes_max(&self) -> usize {
        self.0.config.unfiled_bytes_max
    }

    fn count_refused(&self, signal: Signal, records: u64) {
        self.0.hot.count_refused(signal, records);
    }

    async fn search_lines(
        &self,
        filter: &LineFilter,
        before: Option<LineCursor>,
        limit: Limit,
    ) -> Result<Lines, Error> {
        let hot = self.0.hot.search_lines(filter, before, limit).await?;
        // Read after memory was searched: all lines from here on were in memory throughout, all others are in files.
        let below = self.0.hot.first_line();
        let sheets = self.0.sheets(Signal::Logs);
        let (range, asked) = (cold::Range { before, floor: hot.next, below }, filter.clone());
        let cold = if cold::may_have_lines(&sheets, filter, range) {
            let work = move |question: &Question| cold::search_lines(&sheets, &asked, range, limit, question);
            self.ask(work).await?
        } else {
            Vec::new()
        };
        Ok(merge(hot, cold, limit))
    }

    async fn lines_after(&self, filter: &LineFilter, after: LineCursor, limit: Limit) -> Result<Vec<Arc<Kept>>, Error> {
        let hot = self.0.hot.lines_after(filter, after, limit).await?;
        let below = self.0.hot.first_line();
        let (sheets, asked) = (self.0.sheets(Signal::Logs), filter.clone());
        let cold = self.ask(move |question| cold::lines_after(&sheets, &asked, after, below, limit, question)).await?;
        let known: HashSet<u64> = hot.iter().map(|kept| kept.sequence).collect();
        let mut lines = hot;
        lines.extend(cold.into_iter().filter(|kept| !known.contains(&kept.sequence)).map(Arc::new));
        lines.sort_by_key(|kept| (kept.line.time, kept.sequence));
        lines.truncate(limit.records_max);
        Ok(lines)
    }

    async fn follow_lines(&self, filter: &LineFilter, after: u64, limit: Limit) -> Result<Followed, Error> {
        self.0.hot.follow_lines(filter, after, limit).await
    }

    fn newest_line(&self) -> watch::Receiver<u64> {
        self.0.hot.newest_line()
    }

    async fn trace(&self, id: TraceId, limit: Limit) -> Result<Option<Trace>, Error> {
        // Memory before files: what goes from one to the other meanwhile is in both, and counts once.
        let (mut spans, mut lines) = self.0.hot.whole_trace(id);
        let (span_sheets, line_sheets) = (self.0.sheets(Signal::Spans), self.0.sheets(Signal::Logs));
        if !span_sheets.is_empty() || !line_sheets.is_empty() {
            let work = move |question: &Question| {
                let spans = cold::spans_of_trace(&span_sheets, id, question)?;
                Ok((spans, cold::lines_of_trace(&line_sheets, id, question)?))
            };
            let (cold_spans, cold_lines) = self.ask(work).await?;
            let known: HashSet<u64> = lines.iter().map(|kept| kept.sequence).collect();
            lines.extend(cold_lines.into_iter().filter(|kept| !known.contains(&kept.sequence)).map(Arc::new));
            spans.extend(cold_spans.into_iter().map(Arc::new));
        }
        let mut seen = HashSet::new();
        spans.retain(|span| seen.insert(span.span_id));
        if spans.is_empty() && lines.is_empty() {
            return Ok(None);
        }
        let summary = Part::of_spans(&spans).first().map(Part::summary);
        Ok(Some(whole(summary, spans, lines, limit)))
    }

    async fn parts(&self, ids: &[TraceId]) -> Result<Vec<Part>, Error> {
        let mut tries = 1;
        loop {
            let filed = self.0.filed_times();
            let mut known: HashMap<TraceId, Part> = HashMap::new();
            let wanted: HashSet<&TraceId> = ids.iter().collect();
            let pending = self.0.pending_traces().into_iter().filter(|part| wanted.contains(&part.trace_id));
            known.extend(pending.map(|part| (part.trace_id, part)));
            for some in ids.chunks(manifest::IDS_MAX) {
                for part in self.0.manifest.traces(some).await.map_err(unreadable)? {
                    match known.get_mut(&part.trace_id) {
                        Some(known) => known.join(&part),
                        None => drop(known.insert(part.trace_id, part)),
                    }
                }
            }
            if filed == self.0.filed_times() || tries >= TRIES {
                return Ok(known.into_values().collect());
            }
            tries += 1;
        }
    }

    async fn count_lines(&self, filter: &LineFilter, mut tallies: Tallies) -> Result<Tallies, Error> {
        let hot = self.0.hot.matching(filter).await;
        // As in a search: from here on lines were in memory throughout, all others are in files.
        let below = self.0.hot.first_line();
        let sheets = self.0.sheets(Signal::Logs);
        let (asked, filter) = (hot, filter.clone());
        self.ask(move |question| {
            asked.iter().filter(|kept| kept.sequence >= below).for_each(|kept| tallies.add(&kept.line));
            cold::count::lines(&sheets, &filter, below, tallies, question)
        })
        .await
    }

    async fn each_line(
        &self,
        filter: &LineFilter,
        parts: &BTreeSet<grammar::Part>,
        mut take: TakeLine,
    ) -> Result<(), Error> {
        let hot = self.0.hot.matching(filter).await;
        // As in a search: from here on lines were in memory throughout, all others are in files.
        let below = self.0.hot.first_line();
        let (sheets, filter, parts) = (self.0.sheets(Signal::Logs), filter.clone(), parts.clone());
        self.ask(move |question| {
            hot.iter().filter(|kept| kept.sequence >= below).try_for_each(|kept| take(&kept.line))?;
            cold::each::lines(&sheets, &filter, &parts, below, question, take)
        })
        .await
    }

    async fn each_span(&self, start: Nanos, end: Nanos, mut take: TakeSpan) -> Result<(), Error> {
        // Memory before files; a span that is in both is given once.
        let (hot, sheets) = (self.0.hot.held_spans(), self.0.sheets(Signal::Spans));
        self.ask(move |question| {
            let hot: Vec<_> = hot.iter().filter(|span| is_within(span, Some(start), Some(end))).collect();
            hot.iter().try_for_each(|span| take(span))?;
            let known = hot.iter().map(|span| (span.trace_id, span.span_id)).collect();
            cold::each::spans(&sheets, (start, end), &known, take, question)
        })
        .await
    }

    async fn graph(&self, start: Option<Nanos>, end: Option<Nanos>) -> Result<Graph, Error> {
        // A span that is in both counts once.
        let graph = self.0.hot.graph(start, end).await?;
        let sheets = self.0.sheets(Signal::Spans);
        self.ask(move |question| cold::graph(&sheets, (start, end), graph, question)).await
    }

    async fn search_traces(
        &self,
        filter: &TraceFilter,
        before: Option<TraceCursor>,
        records_max: usize,
    ) -> Result<Page<Summary, TraceCursor>, Error> {
        let mut tries = 1;
        loop {
            let filed = self.0.filed_times();
            let page = if filter.asks_spans() {
                self.traces_by_spans(filter, before, records_max).await?
            } else {
                self.traces_once(filter, before, records_max).await?
            };
            if filed == self.0.filed_times() || tries >= TRIES {
                return Ok(page);
            }
            tries += 1;
        }
    }

    async fn delete_lines(&self, filter: &LineFilter) -> Result<u64, Error> {
        Ok(self.0.delete(Doomed::Lines(filter.clone())).await?.records)
    }

    async fn delete_traces(&self, meant: MeantTraces) -> Result<Deleted, Error> {
        let gone = self.0.delete(Doomed::Traces(meant)).await?;
        Ok(Deleted { spans: gone.records, traces: gone.traces })
    }

    async fn samples(
        &self,
        metric: Option<&str>,
        service: Option<&str>,
        after: Option<&SeriesKey>,
        records_max: usize,
    ) -> Result<Page<(SeriesKey, Sample), SeriesKey>, Error> {
        self.0.hot.samples(metric, service, after, records_max).await
    }

    async fn usage(&self, service: Option<&str>) -> Result<Vec<Usage>, Error> {
        self.0.hot.usage(service).await
    }

    fn retention(&self) -> Retention {
        let hot = self.0.hot.retention();
        let told = |signal: Signal, hot: Tally| self.0.tally(signal, hot);
        Retention {
            lines: told(Signal::Logs, hot.lines),
            spans: told(Signal::Spans, hot.spans),
            series: told(Signal::Measurements, hot.series),
            pending_deletions: self.0.orders.undone(),
            problem: self.0.trouble.why(),
            spoiled_indexes: self.0.cost.spoiled.load(Ordering::Relaxed),
            elsewhere: self.0.elsewhere(),
        }
    }
}

/// Joins what memory and files have, newest first.
fn merge(hot: Lines, cold: Vec<Kept>, limit: Limit) -> Lines {
    let cursor = |kept: &Kept| LineCursor { time: kept.line.time, sequence: kept.sequence };
    let known: HashSet<u64> = hot.records.iter().map(|kept| kept.sequence).collect();
    let mut records = hot.records;
    // Where memory was not searched to its end, nothing older than its last line can be told yet.
    let told = |kept: &Kept| !known.contains(&kept.sequence) && hot.next.is_none_or(|floor| cursor(kept) > floor);
    records.extend(cold.into_iter().filter(told).map(Arc::new));
    records.sort_by_key(|kept| std::cmp::Reverse(cursor(kept)));
    let (is_cut_off, _) = shorten(&mut records, limit, |kept| kept.line.bytes());
    let next = records.last().filter(|_| is_cut_off || hot.next.is_some()).map(|kept| cursor(kept));
    Page { records, next }
}

/// The time of this machine's clock.
fn now() -> Nanos {
    nanos(SystemTime::now())
}

fn unopenable(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Unopenable { path: path.to_owned(), source: Box::new(error) }
}
