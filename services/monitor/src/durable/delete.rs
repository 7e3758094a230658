//! Records that are to be gone: files are written anew without them.
//!
//! Whoever keeps the files up does it, between one thing and the next, so that nobody puts a file together that is being
//! replaced. What is in memory and in the journal goes to files first.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex};

use arrow::array::{AsArray as _, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::UInt64Type;
use arrow::error::ArrowError;
use parquet::errors::ParquetError;
use tokio::sync::oneshot;

use super::cold::{self, Question};
use super::columns::SEQUENCE;
use super::file::{Sheet, Writer};
use super::manifest::{Change, Entry};
use super::state::{State, lock};
use super::unreadable;
use super::upkeep::Upkeep;
use crate::error::Error;
use crate::model::{LineFilter, TraceFilter, TraceId};
use crate::tier::Signal;

/// Most orders that wait.
const ORDERS_MAX: usize = 16;
/// Traces that are looked for at a time.
const TRACES_STEP: usize = 20_000;

/// What is to be gone.
#[derive(Clone, Debug)]
pub(crate) enum Doomed {
    /// Lines.
    Lines(LineFilter),
    /// Whole traces that have such a span; of one trace alone, where it is named.
    Traces(Option<TraceId>, TraceFilter),
}

/// Somebody waits until something is gone.
#[derive(Debug)]
pub(crate) struct Order {
    doomed: Doomed,
    done: oneshot::Sender<Result<u64, Error>>,
}

/// Orders that wait; none where nobody is left to obey.
#[derive(Debug)]
pub(crate) struct Orders(Mutex<Option<VecDeque<Order>>>);

impl Default for Orders {
    fn default() -> Self {
        Self(Mutex::new(Some(VecDeque::new())))
    }
}

impl Orders {
    fn next(&self) -> Option<Order> {
        lock(&self.0).as_mut().and_then(VecDeque::pop_front)
    }

    /// Takes no more orders; whoever waits is told that it failed.
    pub(crate) fn close(&self) {
        lock(&self.0).take();
    }
}

impl State {
    /// Deletes records, of those that are there; answers how many. It goes on when nobody waits for it any more.
    ///
    /// # Errors
    /// [`Error::Overloaded`]; [`Error::Unwritable`]; [`Error::Unreadable`]. Then some may be gone.
    pub(crate) async fn delete(&self, doomed: Doomed) -> Result<u64, Error> {
        let (done, told) = oneshot::channel();
        {
            let mut orders = lock(&self.orders.0);
            let closed = || Error::Unwritable(Arc::new(std::io::Error::other("the node ends")));
            let orders = orders.as_mut().ok_or_else(closed)?;
            if orders.len() >= ORDERS_MAX {
                return Err(Error::Overloaded);
            }
            orders.push_back(Order { doomed, done });
        }
        self.wake.notify_one();
        told.await.map_err(|gone| Error::Unwritable(Arc::new(gone)))?
    }
}

impl Upkeep {
    /// Does what was ordered, one after the other.
    pub(crate) async fn obey(&mut self) {
        loop {
            let Some(order) = self.state.orders.next() else { return };
            let outcome = self.delete(&order.doomed).await;
            if let Ok(records) = &outcome {
                tracing::info!(records, "telemetry was deleted by order");
            }
            // Nobody waits where the caller went away.
            let _ = order.done.send(outcome);
        }
    }

    async fn delete(&mut self, doomed: &Doomed) -> Result<u64, Error> {
        self.make_sure().await?;
        // What was taken from memory before does not have all that came in before the order.
        if self.is_prepared() {
            self.file().await?;
        }
        self.file().await?;
        match doomed {
            Doomed::Lines(filter) => {
                let through = self.state.sheets(Signal::Logs).iter().map(|sheet| sheet.entry.last).max().unwrap_or(0);
                let asked = filter.clone();
                let meant = move |sheet: &Sheet, question: &Question| cold::lines_meant(sheet, &asked, question);
                let deleted = self.without(Signal::Logs, Arc::new(meant)).await?;
                self.state.hot.delete_lines(filter, through);
                Ok(deleted)
            }
            Doomed::Traces(id, filter) => self.delete_traces(*id, filter).await,
        }
    }

    async fn delete_traces(&mut self, id: Option<TraceId>, filter: &TraceFilter) -> Result<u64, Error> {
        let mut deleted = 0;
        loop {
            let (sheets, asked) = (self.state.sheets(Signal::Spans), filter.clone());
            let work = move || {
                let question = Question::unbounded();
                match id {
                    Some(id) => {
                        let spans = cold::spans_of_trace(&sheets, id, &question)?;
                        let is_meant = spans.iter().any(|span| asked.admits_span(span));
                        Ok(is_meant.then_some(id).into_iter().collect())
                    }
                    None => cold::traces_with(&sheets, &asked, TRACES_STEP, &question),
                }
            };
            let ids: HashSet<TraceId> = tokio::task::spawn_blocking(work).await.map_err(unreadable)??;
            if ids.is_empty() {
                return Ok(deleted);
            }
            let ids = Arc::new(ids);
            let of = ids.clone();
            let meant = move |sheet: &Sheet, question: &Question| cold::spans_meant(sheet, &of, question);
            let spans = self.without(Signal::Spans, Arc::new(meant)).await?;
            deleted += spans;
            let change = Change { traces_gone: ids.iter().copied().collect(), ..Change::default() };
            self.state.manifest.change(&change).await.map_err(|error| Error::Unwritable(Arc::new(error)))?;
            if spans == 0 {
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
    let mut writer =
        Writer::create(&state.folder, old.signal, state.new_file(), old.level, old.written).map_err(unwritable)?;
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
