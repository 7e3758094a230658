//! What is done in the background: memory to files, small files to larger ones, and old files away.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ninefold::fault;
use ninefold::lifecycle::Scope;
use parquet::errors::ParquetError;

use super::file::{Sheet, Writer};
use super::manifest::{Change, Entry};
use super::state::{JOURNAL, Pending, State, lock};
use super::{columns, copy, now, of_bucket, unreadable};
use crate::error::Error;
use crate::model::Nanos;
use crate::summary::Part;
use crate::tier::Signal;

/// How often it is looked whether something is to be done, unless settings ask for more.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// So many neighbours of one level are put together into one file of the next.
const TOGETHER: usize = 8;
/// A file of this level is not put together any more.
const LEVEL_MAX: i64 = 3;
/// A file that has grown so large is not put together any more.
const FILE_BYTES: u64 = 256 * 1024 * 1024;
/// Rows that are made into columns at a time.
const BATCH_ROWS: usize = 16 * 1024;

/// Starts the task. When it is asked to stop it writes what is in memory to files.
pub(crate) fn start(state: Arc<State>, scope: &Scope) {
    scope.run("monitor.upkeep", |stop| async move {
        let mut upkeep = Upkeep { state, prepared: None, unsure: None, is_told: false };
        let look_every = LOOK_EVERY.min(upkeep.state.config.file_every);
        let mut tidied = tokio::time::Instant::now();
        loop {
            let is_last = tokio::select! {
                () = stop.asked() => true,
                () = upkeep.state.wake.notified() => false,
                () = tokio::time::sleep(look_every) => false,
            };
            if is_last || upkeep.prepared.is_some() || upkeep.state.is_due() {
                let outcome = upkeep.file().await;
                upkeep.tell(outcome);
            }
            upkeep.obey().await;
            if is_last {
                upkeep.state.orders.close();
                if upkeep.state.place.bucket.is_none() {
                    upkeep.state.manifest.close().await;
                }
                upkeep.state.ended.send_replace(true);
                return;
            }
            if tidied.elapsed() >= upkeep.state.config.tidy_every {
                tidied = tokio::time::Instant::now();
                let outcome = upkeep.tidy().await;
                upkeep.tell(outcome);
            }
        }
    });
}

impl State {
    fn is_due(&self) -> bool {
        let pending = lock(&self.pending);
        pending.bytes >= self.config.unfiled_bytes_max / 2
            || pending.since.is_some_and(|since| since.elapsed() >= self.config.file_every)
    }
}

/// Whoever keeps the files up.
pub(crate) struct Upkeep {
    pub(crate) state: Arc<State>,
    /// Files that are written while it is not known whether the manifest has them.
    prepared: Option<Prepared>,
    /// A file that stands in for others, or none where nothing is left of them, while it is not known whether the manifest
    /// has it instead of them.
    unsure: Option<(Option<Entry>, Vec<i64>)>,
    is_told: bool,
}

/// Files of what was in memory, and the change of the manifest that makes them count.
struct Prepared {
    taken: Taken,
    change: Change,
}

/// How much of memory was taken.
#[derive(Clone, Copy)]
struct Taken {
    bytes: usize,
    lines_through: u64,
    spans: usize,
    measurements: usize,
    through: u64,
}

impl Upkeep {
    /// Tells of a failure once, until it is over.
    fn tell(&mut self, outcome: Result<(), Error>) {
        match outcome {
            Ok(()) if self.is_told => {
                self.state.trouble.is_over();
                tracing::info!("telemetry is written to files again");
                self.is_told = false;
            }
            Ok(()) => {}
            Err(failure) if self.is_told => {
                self.state.trouble.is(&failure);
                tracing::debug!(error = %fault::chain(&failure), "telemetry is still not written to files");
            }
            Err(failure) => {
                self.state.trouble.is(&failure);
                tracing::error!(error = %fault::chain(&failure), "telemetry stays in memory and in the journal");
                self.is_told = true;
            }
        }
    }

    /// Whether files are written of which it is not known whether they count.
    pub(crate) const fn is_prepared(&self) -> bool {
        self.prepared.is_some()
    }

    /// Says that a change of the manifest is begun: a file instead of others.
    pub(crate) fn not_sure(&mut self, entry: Option<Entry>, removed: Vec<i64>) {
        self.unsure = Some((entry, removed));
    }

    /// Writes memory to files.
    pub(crate) async fn file(&mut self) -> Result<(), Error> {
        let prepared = match self.prepared.take() {
            Some(prepared) => prepared,
            None => {
                let pending = lock(&self.state.pending).clone();
                if pending.since.is_none() {
                    return Ok(());
                }
                self.state.has_room()?;
                let state = self.state.clone();
                let work = tokio::task::spawn_blocking(move || write(&state, &pending));
                work.await.map_err(unreadable)?.map_err(|error| Error::Unwritable(Arc::new(error)))?
            }
        };
        // A transaction that seemed to fail may have happened; its mark tells.
        let mark = self.state.manifest.mark(JOURNAL).await;
        let is_done = mark.map(|mark| mark >= prepared.taken.through);
        self.state.filing();
        let outcome = match is_done {
            Ok(true) => Ok(()),
            Ok(false) => self.state.manifest.change(&prepared.change).await,
            Err(failure) => Err(failure),
        };
        if let Err(failure) = outcome {
            self.prepared = Some(prepared);
            return Err(Error::Unwritable(Arc::new(failure)));
        }
        self.done(prepared).await
    }

    /// What was taken is in files that count: memory may forget it, and so may the journal.
    async fn done(&self, prepared: Prepared) -> Result<(), Error> {
        let Prepared { taken, change } = prepared;
        let state = self.state.clone();
        let sheets = change.added.into_iter().map(|entry| Arc::new(Sheet::new(&state.place, entry)));
        state.list(&sheets.collect::<Vec<_>>(), &[]);
        {
            let mut pending = lock(&state.pending);
            pending.lines.retain(|kept| kept.sequence > taken.lines_through);
            pending.spans.drain(..taken.spans);
            pending.measurements.drain(..taken.measurements);
            pending.next_span += taken.spans as u64;
            pending.next_measurement += taken.measurements as u64;
            pending.bytes -= taken.bytes;
            pending.since = (pending.through > taken.through).then(tokio::time::Instant::now);
        }
        state.hot.filed(taken.lines_through, taken.spans);
        state.filing();
        state.unfiled_bytes.fetch_sub(taken.bytes, Ordering::AcqRel);
        let work = tokio::task::spawn_blocking(move || {
            let mut journal = lock(&state.journal);
            journal.rotate();
            journal.remove_through(taken.through)
        });
        work.await.map_err(unreadable)?.map_err(|error| Error::Unwritable(Arc::new(error)))
    }

    /// Removes what is too old or too much, and puts small files together.
    async fn tidy(&mut self) -> Result<(), Error> {
        self.make_sure().await?;
        for signal in Signal::ALL {
            self.forget(signal).await?;
            // What a bucket that is away has not would wait in larger files too.
            while self.state.bucket_trouble.is_none() && self.put_together(signal).await? {}
        }
        Ok(())
    }

    async fn forget(&self, signal: Signal) -> Result<(), Error> {
        let sheets = self.state.sheets(signal);
        let age = u64::try_from(self.state.age_max(signal).as_nanos()).unwrap_or(u64::MAX);
        let (oldest, bytes_max) = (now().0.saturating_sub(age), self.state.disk_bytes_max(signal));
        let mut bytes: u64 = sheets.iter().map(|sheet| sheet.entry.bytes).sum();
        let mut gone = Vec::new();
        // In the order of arrival: the first to come is the first to go.
        for sheet in sheets.iter() {
            let entry = &sheet.entry;
            let is_old = entry.time_max.min(entry.written) < Nanos(oldest);
            if is_old || bytes > bytes_max {
                bytes -= entry.bytes;
                gone.push(entry.clone());
            }
        }
        if gone.is_empty() {
            return Ok(());
        }
        let left = sheets.iter().filter(|sheet| gone.iter().all(|entry| entry.id != sheet.entry.id));
        // A trace whose last span ended before all that is left has no span any more.
        let traces_before =
            (signal == Signal::Spans).then(|| left.map(|sheet| sheet.entry.time_min).min().unwrap_or(Nanos(oldest)));
        let removed: Vec<i64> = gone.iter().map(|entry| entry.id).collect();
        let change = Change { removed: removed.clone(), traces_before, ..Change::default() };
        self.state.manifest.change(&change).await.map_err(|error| Error::Unwritable(Arc::new(error)))?;
        self.state.list(&[], &removed);
        let records = gone.iter().map(|entry| entry.records).sum();
        self.state.count_forgotten(signal, records);
        tracing::info!(signal = signal.name(), files = removed.len(), records, "old telemetry was forgotten");
        Ok(())
    }

    /// Puts the first neighbours of one level together; answers whether there were some.
    async fn put_together(&mut self, signal: Signal) -> Result<bool, Error> {
        let sheets = self.state.sheets(signal);
        let Some(some) = neighbours(&sheets) else { return Ok(false) };
        let state = self.state.clone();
        let parts = some.clone();
        let work = tokio::task::spawn_blocking(move || join(&state, signal, &parts));
        let entry = match work.await.map_err(unreadable)? {
            Ok(entry) => entry,
            Err(failure) if of_bucket(&failure).is_some() => {
                // Small files wait until the bucket answers, or are too old; nothing is kept from files for that.
                tracing::debug!(error = %fault::chain(&failure), "files of the bucket were not put together");
                return Ok(false);
            }
            Err(failure) => return Err(Error::Unwritable(Arc::new(failure))),
        };
        let removed: Vec<i64> = some.iter().map(|sheet| sheet.entry.id).collect();
        let change = Change { added: vec![entry.clone()], removed: removed.clone(), ..Change::default() };
        self.not_sure(Some(entry), removed);
        let outcome = self.state.manifest.change(&change).await;
        let is_there = self.make_sure().await?;
        outcome.map_err(|error| Error::Unwritable(Arc::new(error)))?;
        Ok(is_there)
    }

    /// Finds out whether a transaction happened: one that seemed to fail may have, and if its files were put together
    /// once more their records would be there twice.
    pub(crate) async fn make_sure(&mut self) -> Result<bool, Error> {
        let Some((entry, removed)) = &self.unsure else { return Ok(false) };
        let has = async |id| self.state.manifest.has(id).await.map_err(unreadable);
        let is_there = match (entry, removed.first()) {
            (Some(entry), _) => has(entry.id).await?,
            (None, Some(first)) => !has(*first).await?,
            (None, None) => true,
        };
        let sheet = entry.clone().map(|entry| Arc::new(Sheet::new(&self.state.place, entry)));
        if is_there {
            self.state.list(&sheet.into_iter().collect::<Vec<_>>(), removed);
        } else if let Some(sheet) = sheet {
            // Its file goes when it is dropped.
            sheet.retire();
        }
        self.unsure = None;
        Ok(is_there)
    }
}

/// Neighbours of one level, as many as are put together.
fn neighbours(sheets: &[Arc<Sheet>]) -> Option<Vec<Arc<Sheet>>> {
    for level in 0..LEVEL_MAX {
        let mut run: Vec<Arc<Sheet>> = Vec::new();
        for sheet in sheets {
            if sheet.entry.level == level && sheet.entry.bytes < FILE_BYTES && !sheet.is_spoiled() {
                run.push(sheet.clone());
            } else {
                run.clear();
            }
            if run.len() == TOGETHER {
                return Some(run);
            }
        }
    }
    None
}

/// Puts neighbours into one file: copied where that serves, written anew where not.
fn join(state: &State, signal: Signal, some: &[Arc<Sheet>]) -> Result<Entry, ParquetError> {
    let level = some.iter().map(|sheet| sheet.entry.level).max().unwrap_or(0) + 1;
    let written = some.iter().map(|sheet| sheet.entry.written).max().unwrap_or_default();
    let id = state.new_file();
    if let Some(entry) = copy::copy(state.place.folder(), &Entry::empty(id, signal, level, written), some)? {
        return Ok(entry);
    }
    let mut writer = Writer::create(state.place.folder(), signal, id, level, written)?;
    let copied = some.iter().try_for_each(|sheet| sheet.rows()?.try_for_each(|rows| writer.write(&rows?)));
    match copied {
        Ok(()) => writer.finish(),
        Err(failure) => {
            writer.abandon();
            Err(failure)
        }
    }
}

/// Writes what is in memory to files, one a signal. After a failure none of them stays.
fn write(state: &State, pending: &Pending) -> Result<Prepared, ParquetError> {
    let mut added = Vec::new();
    for signal in Signal::ALL {
        match write_signal(state, pending, signal) {
            Ok(entry) => added.extend(entry),
            Err(failure) => {
                for entry in added {
                    // Dropping a retired sheet removes its file.
                    Sheet::new(&state.place, entry).retire();
                }
                return Err(failure);
            }
        }
    }
    let taken = Taken {
        bytes: pending.bytes,
        lines_through: pending.lines.last().map_or(0, |kept| kept.sequence),
        spans: pending.spans.len(),
        measurements: pending.measurements.len(),
        through: pending.through,
    };
    let mut marks = vec![
        (JOURNAL, taken.through),
        (Signal::Spans.name(), pending.next_span + taken.spans as u64 - 1),
        (Signal::Measurements.name(), pending.next_measurement + taken.measurements as u64 - 1),
    ];
    if taken.lines_through > 0 {
        marks.push((Signal::Logs.name(), taken.lines_through));
    }
    let change = Change { added, traces: Part::of_spans(&pending.spans), marks, ..Change::default() };
    Ok(Prepared { taken, change })
}

fn write_signal(state: &State, pending: &Pending, signal: Signal) -> Result<Option<Entry>, ParquetError> {
    let is_empty = match signal {
        Signal::Logs => pending.lines.is_empty(),
        Signal::Spans => pending.spans.is_empty(),
        Signal::Measurements => pending.measurements.is_empty(),
    };
    if is_empty {
        return Ok(None);
    }
    let mut writer = Writer::create(state.place.folder(), signal, state.new_file(), 0, now())?;
    match write_rows(&mut writer, pending, signal) {
        Ok(()) => writer.finish().map(Some),
        Err(failure) => {
            writer.abandon();
            Err(failure)
        }
    }
}

fn write_rows(writer: &mut Writer, pending: &Pending, signal: Signal) -> Result<(), ParquetError> {
    match signal {
        Signal::Logs => pending.lines.chunks(BATCH_ROWS).try_for_each(|some| writer.write(&columns::of_lines(some)?)),
        Signal::Spans => {
            let numbered = (pending.next_span..).step_by(BATCH_ROWS).zip(pending.spans.chunks(BATCH_ROWS));
            numbered.into_iter().try_for_each(|(first, some)| writer.write(&columns::of_spans(some, first)?))
        }
        Signal::Measurements => {
            let chunks = pending.measurements.chunks(BATCH_ROWS);
            let numbered = (pending.next_measurement..).step_by(BATCH_ROWS).zip(chunks);
            numbered.into_iter().try_for_each(|(first, some)| writer.write(&columns::of_measurements(some, first)?))
        }
    }
}
