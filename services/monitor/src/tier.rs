//! The seam between the doors and the memory of the monitor: where records are put, and where questions are asked.
//!
//! Two stand behind it: `hot`, in memory alone, and `durable`, which writes first, keeps files, and has a hot one before
//! them. Records are visible to every question once their append has returned.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use tokio::sync::watch;

use crate::error::Error;
use crate::grammar::Part;
use crate::graph::Graph;
use crate::model::{
    Kept, Line, LineFilter, Measurement, Nanos, Sample, SeriesKey, Span, Summary, TraceFilter, TraceId, Usage,
};
use crate::summary::Part as TracePart;
use crate::tallies::Tallies;

/// Keeps records in a bounded way and answers questions about them.
#[tonic::async_trait]
pub trait Tier: Debug + Send + Sync + 'static {
    /// Takes lines in, in this order, each under the next sequence number; fills what [`Tier::unfiled_bytes_max`] tells of up to so
    /// many bytes, and no further. A batch that is alone is taken whatever its size.
    ///
    /// # Errors
    /// [`Error::Overloaded`] when they cannot be kept now; then none of them is.
    async fn append_lines(&self, lines: Vec<Line>, up_to: usize) -> Result<(), Error>;

    /// Takes spans in. A span that is there already, by its ids, is not kept twice: senders repeat themselves when an
    /// answer is lost.
    ///
    /// # Errors
    /// As [`Tier::append_lines`].
    async fn append_spans(&self, spans: Vec<Span>, up_to: usize) -> Result<(), Error>;

    /// Takes measurements in; the newest of each series counts.
    ///
    /// # Errors
    /// As [`Tier::append_lines`].
    async fn append_measurements(&self, measurements: Vec<Measurement>, up_to: usize) -> Result<(), Error>;

    /// How much memory there is for what comes in, until it is in files. [`usize::MAX`] where nothing is kept so.
    fn unfiled_bytes_max(&self) -> usize;

    /// Counts records that were turned away at the door.
    fn count_refused(&self, signal: Signal, records: u64);

    /// Searches lines, newest first, those before `before` if it is given. Lines that come in meanwhile do not move the
    /// pages that follow.
    ///
    /// # Errors
    /// None in memory; a durable tier may be unreachable.
    async fn search_lines(&self, filter: &LineFilter, before: Option<LineCursor>, limit: Limit)
    -> Result<Lines, Error>;

    /// Searches lines that were written after a place, oldest first.
    ///
    /// # Errors
    /// As [`Tier::search_lines`].
    async fn lines_after(&self, filter: &LineFilter, after: LineCursor, limit: Limit) -> Result<Vec<Arc<Kept>>, Error>;

    /// Reads the lines taken in after the sequence number `after`, in that order. Looks at no more than a bounded number
    /// of lines: [`Followed::through`] tells how far it came.
    ///
    /// # Errors
    /// As [`Tier::search_lines`].
    async fn follow_lines(&self, filter: &LineFilter, after: u64, limit: Limit) -> Result<Followed, Error>;

    /// The sequence number of the newest line, as it grows.
    fn newest_line(&self) -> watch::Receiver<u64>;

    /// Reads a trace: its spans by start, its lines by time, the earliest up to the limit. `None` where nothing of it is
    /// kept.
    ///
    /// # Errors
    /// As [`Tier::search_lines`].
    async fn trace(&self, id: TraceId, limit: Limit) -> Result<Option<Trace>, Error>;

    /// Searches traces, newest first, those before `before` if it is given.
    ///
    /// # Errors
    /// As [`Tier::search_lines`].
    async fn search_traces(
        &self,
        filter: &TraceFilter,
        before: Option<TraceCursor>,
        records_max: usize,
    ) -> Result<Page<Summary, TraceCursor>, Error>;

    /// Tells what is known of traces, of each that something is known of; in no order.
    ///
    /// # Errors
    /// As [`Tier::search_lines`].
    async fn parts(&self, ids: &[TraceId]) -> Result<Vec<TracePart>, Error>;

    /// Counts lines: all that match, and adds them to what was counted.
    ///
    /// # Errors
    /// As [`Tier::search_lines`].
    async fn count_lines(&self, filter: &LineFilter, tallies: Tallies) -> Result<Tallies, Error>;

    /// Gives each line that matches, in no order: those parts of it that are asked for. Ends where the taker says so.
    ///
    /// # Errors
    /// As [`Tier::search_lines`], and what the taker says.
    async fn each_line(&self, filter: &LineFilter, parts: &BTreeSet<Part>, take: TakeLine) -> Result<(), Error>;

    /// Gives each span that began from a time on and before another, in no order, once. Ends where the taker says so.
    ///
    /// # Errors
    /// As [`Tier::search_lines`], and what the taker says.
    async fn each_span(&self, start: Nanos, end: Nanos, take: TakeSpan) -> Result<(), Error>;

    /// Tells who called whom between two times.
    ///
    /// # Errors
    /// As [`Tier::search_lines`].
    async fn graph(&self, start: Option<Nanos>, end: Option<Nanos>) -> Result<Graph, Error>;

    /// Deletes the lines that match, of those that are there; answers how many.
    ///
    /// # Errors
    /// None in memory; a durable tier may be busy, or fail to read or write. Then some may be gone.
    async fn delete_lines(&self, filter: &LineFilter) -> Result<u64, Error>;

    /// Deletes all spans of traces.
    ///
    /// # Errors
    /// As [`Tier::delete_lines`].
    async fn delete_traces(&self, meant: MeantTraces) -> Result<Deleted, Error>;

    /// Reads the newest samples by key, of one metric and one service if they are given, those behind `after`.
    ///
    /// # Errors
    /// As [`Tier::search_lines`].
    async fn samples(
        &self,
        metric: Option<&str>,
        service: Option<&str>,
        after: Option<&SeriesKey>,
        records_max: usize,
    ) -> Result<Page<(SeriesKey, Sample), SeriesKey>, Error>;

    /// Reads what instances use, of one service if it is given, by service and instance.
    ///
    /// # Errors
    /// As [`Tier::search_lines`].
    async fn usage(&self, service: Option<&str>) -> Result<Vec<Usage>, Error>;

    /// Tells how much is kept.
    fn retention(&self) -> Retention;
}

/// Takes lines, one after the other.
pub type TakeLine = Box<dyn FnMut(&Line) -> Result<(), Error> + Send>;
/// Takes spans, one after the other.
pub type TakeSpan = Box<dyn FnMut(&Span) -> Result<(), Error> + Send>;

/// Traces that are to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MeantTraces {
    /// Those that have a span that is looked for; of one trace alone, where it is named.
    With(Option<TraceId>, TraceFilter),
    /// These.
    These(Vec<TraceId>),
}

/// What was deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// How many spans.
    pub spans: u64,
    /// Of which traces.
    pub traces: Vec<TraceId>,
}

/// A kind of telemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Log lines.
    Logs,
    /// Spans.
    Spans,
    /// Measurements.
    Measurements,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Logs, Self::Spans, Self::Measurements];

    /// Its name, as files and marks bear it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Logs => "logs",
            Self::Spans => "spans",
            Self::Measurements => "metrics",
        }
    }

    /// Reads what [`Signal::name`] wrote.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.name() == name)
    }
}

/// How much an answer may hold. It holds at least one record, if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Most records.
    pub records_max: usize,
    /// Most bytes of records, as [`Line::bytes`] and [`Span::bytes`] count them.
    pub bytes_max: usize,
}

/// A place among lines: everything before it is older.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LineCursor {
    /// When the line was written.
    pub time: Nanos,
    /// Which of several lines of that time.
    pub sequence: u64,
}

/// A place among traces: everything before it began earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TraceCursor {
    /// When the trace began.
    pub start: Nanos,
    /// Which of several traces of that time.
    pub trace_id: TraceId,
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T, C> {
    /// The records.
    pub records: Vec<T>,
    /// Where to go on; `None` at the end.
    pub next: Option<C>,
}

/// A page of lines.
pub type Lines = Page<Arc<Kept>, LineCursor>;

/// Lines as they came in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// Those that are meant.
    pub records: Vec<Arc<Kept>>,
    /// How many lines after the asked place are forgotten already, of whatever kind.
    pub missed: u64,
    /// Sequence number of the last line that was looked at.
    pub through: u64,
}

/// A trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The trace in a line; `None` where only lines are kept.
    pub summary: Option<Summary>,
    /// Its spans, by start.
    pub spans: Vec<Arc<Span>>,
    /// Its lines, by time.
    pub lines: Vec<Arc<Kept>>,
    /// Whether the limit left something out.
    pub truncated: bool,
}

/// How much is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Of log lines.
    pub lines: Tally,
    /// Of spans.
    pub spans: Tally,
    /// Of series.
    pub series: Tally,
    /// Deletions that were ordered and are not done.
    pub pending_deletions: u32,
    /// Why what comes in is refused or kept from files; empty where it is not.
    pub problem: String,
    /// Indexes of files that were found spoiled.
    pub spoiled_indexes: u64,
    /// What a bucket has of it; none where none is named.
    pub elsewhere: Option<Elsewhere>,
}

/// What a bucket has, and how it goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elsewhere {
    /// The bucket.
    pub url: String,
    /// Files that it has whole.
    pub kept_files: u64,
    /// Their bytes.
    pub kept_bytes: u64,
    /// Files that it has not taken yet.
    pub waiting_files: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// Bytes of the node's disk that copies take of what it has.
    pub copied_bytes: u64,
    /// Bytes that went there since the node started.
    pub sent_bytes: u64,
    /// Bytes that were read from there since the node started.
    pub read_bytes: u64,
    /// Requests that failed since the node started.
    pub failures: u64,
    /// Files that it does not have any more, or has as something else.
    pub spoiled_files: u64,
    /// Why the last attempt to put something there failed; empty where it did not.
    pub problem: String,
}

/// How much is kept of one signal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many records are kept.
    pub records: u64,
    /// How many bytes they take.
    pub bytes: u64,
    /// The limit of the bytes.
    pub bytes_max: u64,
    /// How many records came in.
    pub received: u64,
    /// How many were forgotten to make room.
    pub forgotten: u64,
    /// How many were refused at the door.
    pub refused: u64,
    /// How many are in the journal and in memory, and not in a file yet.
    pub unfiled: u64,
    /// How many files there are.
    pub files: u64,
    /// The earliest time in a file; zero where there is none.
    pub oldest: Nanos,
}
