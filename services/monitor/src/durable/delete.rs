//! Records that are to be gone: files are written anew without them.
//!
//! Whoever keeps the files up does it, between one thing and the next, so that nobody puts a file together that is being
//! replaced. What is in memory and in the journal goes to files first.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::{AsArray as _, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::UInt64Type;
use arrow::error::ArrowError;
use ninefold::fault;
use ninefold_proto::ninefold::monitor::v1 as proto;
use parquet::errors::ParquetError;
use prost::Message as _;
use tokio::sync::oneshot;

use super::cold::{self, Question};
use super::columns::SEQUENCE;
use super::file::{Sheet, Writer};
use super::manifest::{Change, Entry, Manifest};
use super::state::{State, lock};
use super::unreadable;
use super::upkeep::Upkeep;
use crate::error::Error;
use crate::model::{LineFilter, TraceId};
use crate::tier::{MeantTraces, Signal, Tier as _};
use crate::wire::neighbour as wire;

/// Kinds of orders, as the manifest has them.
const LINES: &str = "lines";
const TRACES: &str = "traces";
/// Most orders that wait.
const ORDERS_MAX: usize = 16;
/// Traces that are looked for at a time.
const TRACES_STEP: usize = 20_000;

/// What is to be gone.
#[derive(Clone, Debug)]
pub(crate) enum Doomed {
    /// Lines.
    Lines(LineFilter),
    /// Whole traces.
    Traces(MeantTraces),
}

/// What is gone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gone {
    /// How many records.
    pub(crate) records: u64,
    /// Of which traces, where traces were meant.
    pub(crate) traces: Vec<TraceId>,
}

/// Something is to be gone.
#[derive(Debug)]
pub(crate) struct Order {
    /// What names it in the manifest.
    id: i64,
    doomed: Doomed,
    /// Only what came in until then: the sequence number of the last line.
    through: u64,
    /// Who waits; nobody after a death.
    done: Option<oneshot::Sender<Result<Gone, Error>>>,
}

/// Orders that wait; none where nobody is left to obey.
#[derive(Debug)]
pub(crate) struct Orders {
    waiting: Mutex<Option<VecDeque<Order>>>,
    /// How many are not done, the one that is being done included.
    undone: AtomicU32,
}

impl Orders {
    /// Those that a death left undone.
    ///
    /// # Errors
    /// What SQLite says.
    pub(crate) async fn left(manifest: &Manifest) -> Result<Self, sqlx::Error> {
        let mut waiting = VecDeque::new();
        for (id, kind, what, through) in manifest.orders().await? {
            match Doomed::decode(&kind, &what) {
                Some(doomed) => waiting.push_back(Order { id, doomed, through, done: None }),
                None => tracing::error!(id, kind, "an order to delete cannot be read; give it again"),
            }
        }
        let undone = AtomicU32::new(u32::try_from(waiting.len()).unwrap_or(u32::MAX));
        Ok(Self { waiting: Mutex::new(Some(waiting)), undone })
    }

    fn next(&self) -> Option<Order> {
        lock(&self.waiting).as_mut().and_then(VecDeque::pop_front)
    }

    /// How many are not done.
    pub(crate) fn undone(&self) -> u32 {
        self.undone.load(Ordering::Relaxed)
    }

    /// Takes no more orders; whoever waits is told that it is not done yet.
    pub(crate) fn close(&self) {
        lock(&self.waiting).take();
    }

    fn put_back(&self, order: Order) {
        if let Some(waiting) = lock(&self.waiting).as_mut() {
            waiting.push_back(order);
        }
    }

    fn is_full(&self) -> Result<bool, Error> {
        let waiting = lock(&self.waiting);
        waiting.as_ref().map(|waiting| waiting.len() >= ORDERS_MAX).ok_or_else(ended)
    }

    fn push(&self, order: Order) -> Result<(), Error> {
        let mut waiting = lock(&self.waiting);
        waiting.as_mut().ok_or_else(ended)?.push_back(order);
        self.undone.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fn ended() -> Error {
    Error::Unwritable(Arc::new(std::io::Error::other("the node ends; what was ordered is done when it is back")))
}

impl Doomed {
    fn encode(&self) -> (&'static str, Vec<u8>) {
        match self {
            Self::Lines(filter) => {
                (LINES, proto::ForgetLinesRequest { filter: Some(wire::line_filter(filter)) }.encode_to_vec())
            }
            Self::Traces(meant) => (TRACES, wire::meant(meant).encode_to_vec()),
        }
    }

    fn decode(kind: &str, what: &[u8]) -> Option<Self> {
        match kind {
            LINES => {
                let request = proto::ForgetLinesRequest::decode(what).ok()?;
                wire::line_filter_of(request.filter).ok().map(Self::Lines)
            }
            TRACES => wire::meant_of(proto::ForgetTracesRequest::decode(what).ok()?).ok().map(Self::Traces),
            _ => None,
        }
    }
}

impl State {
    /// Deletes records, of those that are there. It goes on when nobody waits for it any more, and after a death.
    ///
    /// # Errors
    /// [`Error::Overloaded`]; [`Error::Unwritable`]; [`Error::Unreadable`]. Then some may be gone.
    pub(crate) async fn delete(&self, doomed: Doomed) -> Result<Gone, Error> {
        if self.orders.is_full()? {
            return Err(Error::Overloaded);
        }
        let (done, told) = oneshot::channel();
        let through = *self.hot.newest_line().borrow();
        let (kind, what) = doomed.encode();
        let kept = self.manifest.order(kind, what, through).await;
        let id = kept.map_err(|error| Error::Unwritable(Arc::new(error)))?;
        self.orders.push(Order { id, doomed, through, done: Some(done) })?;
        self.wake.notify_one();
        told.await.map_err(|_| ended())?
    }
}

impl Upkeep {
    /// Does what was ordered, one after the other.
    pub(crate) async fn obey(&mut self) {
        loop {
            let Some(order) = self.state.orders.next() else { return };
            let mut outcome = self.delete(&order.doomed, order.through).await;
            if outcome.is_ok()
                && let Err(still_there) = self.state.remove_fallen().await
            {
                // Nobody finds it any more, but the bucket has it until it answers.
                outcome = Err(still_there);
            }
            if let Ok(Gone { records, .. }) = &outcome {
                tracing::info!(records, "telemetry was deleted by order");
            }
            if let (Err(error), None) = (&outcome, &order.done) {
                tracing::warn!(error = %fault::chain(error), "a deletion from before a death is still not done");
                self.state.orders.put_back(order);
                return;
            }
            self.state.orders.undone.fetch_sub(1, Ordering::Relaxed);
            // Who waits is told how it ended; an order that nobody waits for is given up only when it is done.
            if let Err(error) = self.state.manifest.obeyed(order.id).await {
                tracing::warn!(error = %fault::chain(&error), "a deletion that is done will be done again");
            }
            // Nobody waits where the caller went away.
            let _ = order.done.map(|done| done.send(outcome));
        }
    }

    async fn delete(&mut self, doomed: &Doomed, through: u64) -> Result<Gone, Error> {
        self.make_sure().await?;
        // What was taken from memory before does not have all that came in before the order.
        if self.is_prepared() {
            self.file().await?;
        }
        self.file().await?;
        match doomed {
            Doomed::Lines(filter) => {
                let asked = filter.clone();
                let meant = move |sheet: &Sheet, question: &Question| {
                    let mut meant = cold::lines_meant(sheet, &asked, question)?;
                    meant.retain(|sequence| *sequence <= through);
                    Ok(meant)
                };
                let deleted = self.without(Signal::Logs, Arc::new(meant)).await?;
                self.state.hot.delete_lines(filter, through);
                Ok(Gone { records: deleted, traces: Vec::new() })
            }
            Doomed::Traces(meant) => self.delete_traces(meant).await,
        }
    }

    async fn delete_traces(&mut self, meant: &MeantTraces) -> Result<Gone, Error> {
        let mut deleted = Gone::default();
        loop {
            let (sheets, asked) = (self.state.sheets(Signal::Spans), meant.clone());
            let work = move || {
                let question = Question::unbounded();
                match asked {
                    MeantTraces::With(Some(id), filter) => {
                        let spans = cold::spans_of_trace(&sheets, id, &question)?;
                        let is_meant = spans.iter().any(|span| filter.admits_span(span));
                        Ok(is_meant.then_some(id).into_iter().collect())
                    }
                    MeantTraces::With(None, filter) => cold::traces_with(&sheets, &filter, TRACES_STEP, &question),
                    MeantTraces::These(ids) => Ok(ids.into_iter().collect()),
                }
            };
            let ids: HashSet<TraceId> = tokio::task::spawn_blocking(work).await.map_err(unreadable)??;
            if ids.is_empty() {
                return Ok(deleted);
            }
            let is_all = matches!(meant, MeantTraces::These(_));
            deleted.traces.extend(&ids);
            let ids = Arc::new(ids);
            let of = ids.clone();
            let meant = move |sheet: &Sheet, question: &Question| cold::spans_meant(sheet, &of, question);
            let spans = self.without(Signal::Spans, Arc::new(meant)).await?;
            deleted.records += spans;
            let change = Change { traces_gone: ids.iter().copied().collect(), ..Change::default() };
            self.state.manifest.change(&change).await.map_err(|error| Error::Unwritable(Arc::new(error)))?;
            if spans == 0 || is_all {
                return Ok(deleted);
            }
        }
    }

    /// Writes the files of a signal anew, those that have records that are meant, without these; answers how many.
    async fn without(&mut self, signal: Signal, meant: Arc<Meant>) -> Result<u64, Error> {
        let mut deleted = 0;
        for sheet in self.state.sheets(signal).iter() {
            let (state, old, meant) = (self.state.clone(), sheet.clone(), meant.clone());
            let work = tokio::task::spawn_blocking(move || rewrite(&state, &old, &*meant));
            let Some(Rewritten { entry, gone }) = work.await.map_err(unreadable)?? else { continue };
            let removed = vec![sheet.entry.id];
            let change =
                Change { added: entry.clone().into_iter().collect(), removed: removed.clone(), ..Change::default() };
            self.not_sure(entry, removed);
            let outcome = self.state.manifest.change(&change).await;
            self.make_sure().await?;
            outcome.map_err(|error| Error::Unwritable(Arc::new(error)))?;
            deleted += gone;
        }
        Ok(deleted)
    }
}

/// Tells the sequence numbers of the records of a file that are meant.
type Meant = dyn Fn(&Sheet, &Question) -> Result<HashSet<u64>, Error> + Send + Sync;

/// A file without what is to be gone; none where nothing is left of it.
struct Rewritten {
    entry: Option<Entry>,
    gone: u64,
}

fn rewrite(state: &State, sheet: &Sheet, meant: &Meant) -> Result<Option<Rewritten>, Error> {
    let gone = meant(sheet, &Question::unbounded())?;
    if gone.is_empty() {
        return Ok(None);
    }
    let count = gone.len() as u64;
    if count >= sheet.entry.records {
        return Ok(Some(Rewritten { entry: None, gone: count }));
    }
    let unwritable = |error: ParquetError| Error::Unwritable(Arc::new(error));
    let old = &sheet.entry;
    let mut writer = Writer::create(state.place.folder(), old.signal, state.new_file(), old.level, old.written)
        .map_err(unwritable)?;
    let copied = sheet.rows().and_then(|mut rows| {
        rows.try_for_each(|rows| {
            let rows = rows?;
            let column = rows.column_by_name(SEQUENCE);
            let sequences = column.and_then(|column| column.as_primitive_opt::<UInt64Type>());
            let sequences = sequences.ok_or_else(|| ArrowError::SchemaError("rows without places".to_owned()))?;
            let stays: BooleanArray =
                sequences.values().iter().map(|sequence| Some(!gone.contains(sequence))).collect();
            writer.write(&filter_record_batch(&rows, &stays)?)
        })
    });
    match copied {
        Ok(()) => {
            let entry = writer.finish().map_err(unwritable)?;
            Ok(Some(Rewritten { entry: Some(entry), gone: count }))
        }
        Err(failure) => {
            writer.abandon();
            Err(unwritable(failure))
        }
    }
}
