//! The tier in memory: bounded by bytes, the oldest forgotten first.
//!
//! Each signal has one lock around a pure store. Nothing is awaited under a lock, and a search holds it only for a step
//! of a bounded number of records, so that a slow question does not stop what comes in.

pub(crate) mod lines;
pub(crate) mod series;
pub(crate) mod spans;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::Config;
use crate::error::Error;
use crate::grammar::Part;
use crate::graph::Graph;
use crate::model::{
    Kept, Line, LineFilter, Measurement, Nanos, Sample, SeriesKey, Span, Summary, TraceFilter, TraceId, Usage,
};
use crate::summary::Part as TracePart;
use crate::tallies::Tallies;
use crate::tier::{
    Deleted, Followed, Limit, LineCursor, Lines, MeantTraces, Page, Retention, Signal, TakeLine, TakeSpan, Tally, Tier,
    Trace, TraceCursor,
};

/// Records that one step of a search looks at under the lock.
const STEP_RECORDS: usize = 2048;

/// The tier in memory.
#[derive(Debug)]
pub(crate) struct Hot {
    lines: Mutex<lines::Store>,
    spans: Mutex<spans::Store>,
    series: Mutex<series::Store>,
    newest: watch::Sender<u64>,
    /// Freshness of series is told in seconds since then, by a clock that a test can hold.
    started: Instant,
}

impl Hot {
    /// Makes an empty tier with the bounds of the settings.
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            lines: Mutex::new(lines::Store::new(config.logs_bytes_max)),
            spans: Mutex::new(spans::Store::new(config.spans_bytes_max)),
            series: Mutex::new(series::Store::new(config.series_bytes_max, config.series_max)),
            newest: watch::Sender::new(0),
            started: Instant::now(),
        }
    }

    /// Makes an empty tier before files: lines go on after a sequence number, and what is not in a file is held.
    pub(crate) fn before_files(config: &Config, newest_line: u64) -> Self {
        let hot = Self::new(config);
        lock(&hot.lines).resume(newest_line);
        lock(&hot.spans).hold();
        hot.newest.send_replace(newest_line);
        hot
    }

    /// Takes lines in; answers them with their sequence numbers.
    pub(crate) fn put_lines(&self, lines: Vec<Line>) -> Vec<Arc<Kept>> {
        let (taken, newest) = {
            let mut store = lock(&self.lines);
            (store.append(lines), store.newest())
        };
        // Appends race here after the lock; the number only grows.
        self.newest.send_if_modified(|known| {
            let grows = newest > *known;
            *known = newest.max(*known);
            grows
        });
        taken
    }

    /// Takes spans in; answers those that were not there.
    pub(crate) fn put_spans(&self, spans: Vec<Span>) -> Vec<Arc<Span>> {
        lock(&self.spans).append(spans)
    }

    /// Takes measurements in.
    pub(crate) fn put_measurements(&self, measurements: Vec<Measurement>) {
        let now = self.now();
        lock(&self.series).append(measurements, now);
    }

    /// The sequence number of the oldest line that is here.
    pub(crate) fn first_line(&self) -> u64 {
        lock(&self.lines).first()
    }

    /// Says that lines up to a sequence number, and so many of the oldest spans, are in files.
    pub(crate) fn filed(&self, lines_through: u64, spans: usize) {
        lock(&self.lines).filed_through(lines_through);
        lock(&self.spans).forget(spans);
    }

    /// All of a trace that is here, unlimited, as it came in.
    pub(crate) fn whole_trace(&self, id: TraceId) -> (Vec<Arc<Span>>, Vec<Arc<Kept>>) {
        let spans = lock(&self.spans).trace(id).map(|(_, spans)| spans).unwrap_or_default();
        (spans, lock(&self.lines).trace(id))
    }

    /// All lines that match, newest first.
    pub(crate) async fn matching(&self, filter: &LineFilter) -> Vec<Arc<Kept>> {
        let mut found = lines::Search::new(None, Limit { records_max: usize::MAX, bytes_max: usize::MAX });
        while !lock(&self.lines).search(filter, &mut found, STEP_RECORDS) {
            tokio::task::yield_now().await;
        }
        found.into_page().records
    }

    /// All spans that are here, as they came in.
    pub(crate) fn held_spans(&self) -> Vec<Arc<Span>> {
        lock(&self.spans).held()
    }

    /// Deletes lines up to a sequence number; answers how many.
    pub(crate) fn delete_lines(&self, filter: &LineFilter, through: u64) -> u64 {
        lock(&self.lines).delete(filter, through)
    }

    fn now(&self) -> std::time::Duration {
        self.started.elapsed()
    }
}

fn lock<T>(store: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic under the lock is a bug that has been told of; the store's records are each whole.
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

#[tonic::async_trait]
impl Tier for Hot {
    async fn append_lines(&self, lines: Vec<Line>, _up_to: usize) -> Result<(), Error> {
        self.put_lines(lines);
        Ok(())
    }

    async fn append_spans(&self, spans: Vec<Span>, _up_to: usize) -> Result<(), Error> {
        self.put_spans(spans);
        Ok(())
    }

    async fn append_measurements(&self, measurements: Vec<Measurement>, _up_to: usize) -> Result<(), Error> {
        self.put_measurements(measurements);
        Ok(())
    }

    /// What is too much is forgotten, so there is always room.
    fn unfiled_bytes_max(&self) -> usize {
        usize::MAX
    }

    fn count_refused(&self, signal: Signal, records: u64) {
        match signal {
            Signal::Logs => add(&mut lock(&self.lines).tally, records),
            Signal::Spans => add(&mut lock(&self.spans).tally, records),
            Signal::Measurements => add(&mut lock(&self.series).tally, records),
        }
    }

    async fn search_lines(
        &self,
        filter: &LineFilter,
        before: Option<LineCursor>,
        limit: Limit,
    ) -> Result<Lines, Error> {
        let mut found = lines::Search::new(before, limit);
        while !lock(&self.lines).search(filter, &mut found, STEP_RECORDS) {
            tokio::task::yield_now().await;
        }
        Ok(found.into_page())
    }

    async fn lines_after(&self, filter: &LineFilter, after: LineCursor, limit: Limit) -> Result<Vec<Arc<Kept>>, Error> {
        let (mut found, mut place) = (Vec::new(), Some(after));
        while let Some(after) = place {
            place = lock(&self.lines).search_after(filter, after, &mut found, limit, STEP_RECORDS);
            tokio::task::yield_now().await;
        }
        Ok(found)
    }

    async fn follow_lines(&self, filter: &LineFilter, after: u64, limit: Limit) -> Result<Followed, Error> {
        Ok(lock(&self.lines).follow(filter, after, limit, STEP_RECORDS))
    }

    fn newest_line(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    async fn trace(&self, id: TraceId, limit: Limit) -> Result<Option<Trace>, Error> {
        let (summary, spans) = match lock(&self.spans).trace(id) {
            Some((summary, spans)) => (Some(summary), spans),
            None => (None, Vec::new()),
        };
        let lines = lock(&self.lines).trace(id);
        if spans.is_empty() && lines.is_empty() {
            return Ok(None);
        }
        Ok(Some(whole(summary, spans, lines, limit)))
    }

    async fn search_traces(
        &self,
        filter: &TraceFilter,
        before: Option<TraceCursor>,
        records_max: usize,
    ) -> Result<Page<Summary, TraceCursor>, Error> {
        let mut found = spans::Search::new(before, records_max);
        while !lock(&self.spans).search(filter, &mut found, STEP_RECORDS) {
            tokio::task::yield_now().await;
        }
        Ok(found.into_page())
    }

    async fn parts(&self, ids: &[TraceId]) -> Result<Vec<TracePart>, Error> {
        let spans = lock(&self.spans);
        Ok(ids.iter().filter_map(|id| spans.part(*id)).collect())
    }

    async fn count_lines(&self, filter: &LineFilter, mut tallies: Tallies) -> Result<Tallies, Error> {
        self.matching(filter).await.iter().for_each(|kept| tallies.add(&kept.line));
        Ok(tallies)
    }

    async fn each_line(&self, filter: &LineFilter, _: &BTreeSet<Part>, mut take: TakeLine) -> Result<(), Error> {
        for some in self.matching(filter).await.chunks(STEP_RECORDS) {
            some.iter().try_for_each(|kept| take(&kept.line))?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn each_span(&self, start: Nanos, end: Nanos, mut take: TakeSpan) -> Result<(), Error> {
        for some in self.held_spans().chunks(STEP_RECORDS) {
            some.iter().filter(|span| is_within(span, Some(start), Some(end))).try_for_each(|span| take(span))?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn graph(&self, start: Option<Nanos>, end: Option<Nanos>) -> Result<Graph, Error> {
        let mut graph = Graph::default();
        self.held_spans().iter().filter(|span| is_within(span, start, end)).for_each(|span| graph.add(span));
        Ok(graph)
    }

    async fn delete_lines(&self, filter: &LineFilter) -> Result<u64, Error> {
        Ok(Self::delete_lines(self, filter, u64::MAX))
    }

    async fn delete_traces(&self, meant: MeantTraces) -> Result<Deleted, Error> {
        let mut spans = lock(&self.spans);
        let ids = match meant {
            MeantTraces::With(id, filter) => {
                spans.with(|span| id.is_none_or(|id| id == span.trace_id) && filter.admits_span(span))
            }
            MeantTraces::These(ids) => ids.into_iter().collect(),
        };
        Ok(Deleted { spans: spans.delete(&ids), traces: ids.into_iter().collect() })
    }

    async fn samples(
        &self,
        metric: Option<&str>,
        service: Option<&str>,
        after: Option<&SeriesKey>,
        records_max: usize,
    ) -> Result<Page<(SeriesKey, Sample), SeriesKey>, Error> {
        let now = self.now();
        Ok(lock(&self.series).samples(metric, service, after, records_max, now))
    }

    async fn usage(&self, service: Option<&str>) -> Result<Vec<Usage>, Error> {
        let now = self.now();
        Ok(lock(&self.series).usage(service, now))
    }

    fn retention(&self) -> Retention {
        Retention {
            lines: lock(&self.lines).tally,
            spans: lock(&self.spans).tally,
            series: lock(&self.series).tally,
            ..Retention::default()
        }
    }
}

/// Whether a span began between two times.
pub(crate) fn is_within(span: &Span, start: Option<Nanos>, end: Option<Nanos>) -> bool {
    start.is_none_or(|start| start <= span.start) && end.is_none_or(|end| span.start < end)
}

/// Puts a trace in order, as much of it as the limit allows.
pub(crate) fn whole(
    summary: Option<Summary>,
    mut spans: Vec<Arc<Span>>,
    mut lines: Vec<Arc<Kept>>,
    limit: Limit,
) -> Trace {
    spans.sort_by_key(|span| (span.start, span.end));
    lines.sort_by_key(|kept| (kept.line.time, kept.sequence));
    // Spans may take half; lines get what they leave.
    let half = Limit { bytes_max: limit.bytes_max / 2, ..limit };
    let (spans_left_out, bytes) = shorten(&mut spans, half, |span| span.bytes());
    let rest = Limit { bytes_max: limit.bytes_max - bytes.min(half.bytes_max), ..limit };
    let (lines_left_out, _) = shorten(&mut lines, rest, |kept| kept.line.bytes());
    Trace { summary, spans, lines, truncated: spans_left_out || lines_left_out }
}

fn add(tally: &mut Tally, refused: u64) {
    tally.refused = tally.refused.saturating_add(refused);
}

/// Leaves the first records that fit, at least one; tells whether some were left out, and how many bytes stay.
pub(crate) fn shorten<T>(records: &mut Vec<T>, limit: Limit, bytes_of: impl Fn(&T) -> usize) -> (bool, usize) {
    let mut bytes: usize = 0;
    let mut fitting = 0;
    for record in records.iter().take(limit.records_max) {
        let with_it = bytes.saturating_add(bytes_of(record));
        if fitting > 0 && with_it > limit.bytes_max {
            break;
        }
        bytes = with_it;
        fitting += 1;
    }
    let left_out = fitting < records.len();
    records.truncate(fitting);
    (left_out, bytes)
}
