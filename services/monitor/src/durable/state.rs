//! What the durable tier knows: its journal, its memory, and the list of its files.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};

use super::batch::Batch;
use super::commit::Queue;
use super::delete::Orders;
use super::file::{Sheet, sweep};
use super::journal::{Damage, Journal};
use super::manifest::Manifest;
use super::place::{Place, Sums};
use super::reading::Cost;
use super::{columns, now, unopenable};
use crate::bucket::Bucket;
use crate::config::Config;
use crate::error::Error;
use crate::hot::Hot;
use crate::model::{Kept, Measurement, Span};
use crate::summary::Part;
use crate::tier::{Signal, Tally};

/// The mark up to which the journal is in files.
pub(crate) const JOURNAL: &str = "journal";
/// Series that were heard of so long ago are known again after a start.
const SERIES_BACK: Duration = Duration::from_secs(300);

/// What the durable tier knows.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) config: Config,
    /// Where files lie.
    pub(crate) place: Arc<Place>,
    pub(crate) hot: Hot,
    pub(crate) manifest: Manifest,
    pub(crate) queue: Mutex<Queue>,
    pub(crate) journal: Mutex<Journal>,
    pub(crate) pending: Mutex<Pending>,
    /// Bytes of what waits for the journal, and of what is in it but not in a file.
    pub(crate) unfiled_bytes: AtomicUsize,
    pub(crate) queries: Arc<Semaphore>,
    /// What all questions have read.
    pub(crate) cost: Arc<Cost>,
    /// What keeps memory from files.
    pub(crate) trouble: Trouble,
    /// What keeps files from the bucket.
    pub(crate) bucket_trouble: Trouble,
    /// Objects that nobody reads any more; those that the list of files lost may be removed.
    pub(crate) unread_objects: tokio::sync::Mutex<BTreeSet<String>>,
    /// What is to be deleted.
    pub(crate) orders: Orders,
    /// Whether whoever keeps the files up is done for good.
    pub(crate) ended: watch::Sender<bool>,
    /// Wakes whoever writes files.
    pub(crate) wake: Notify,
    files: Mutex<HashMap<Signal, Arc<Vec<Arc<Sheet>>>>>,
    forgotten: Mutex<HashMap<Signal, u64>>,
    next_file: AtomicI64,
    filed_times: AtomicU64,
    /// Holds the folder against other processes, until it is let go of.
    hold: Mutex<Option<File>>,
}

/// What is acknowledged and not in a file, in the order of arrival.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pending {
    pub(crate) lines: Vec<Arc<Kept>>,
    pub(crate) spans: Vec<Arc<Span>>,
    pub(crate) measurements: Vec<Measurement>,
    /// Sequence numbers that the next span and the next measurement in a file get.
    pub(crate) next_span: u64,
    pub(crate) next_measurement: u64,
    /// Number of the last frame of the journal that is in here or in files.
    pub(crate) through: u64,
    pub(crate) bytes: usize,
    pub(crate) since: Option<tokio::time::Instant>,
}

impl Pending {
    fn add(&mut self, hot: &Hot, batch: Batch, number: u64) {
        self.bytes += batch.bytes();
        match batch {
            Batch::Lines(lines) => self.lines.extend(hot.put_lines(lines)),
            Batch::Spans(spans) => self.spans.extend(hot.put_spans(spans)),
            Batch::Measurements(measurements) => {
                self.measurements.extend(measurements.iter().cloned());
                hot.put_measurements(measurements);
            }
        }
        self.through = number;
        self.since.get_or_insert_with(tokio::time::Instant::now);
    }

    fn count(&self, signal: Signal) -> usize {
        match signal {
            Signal::Logs => self.lines.len(),
            Signal::Spans => self.spans.len(),
            Signal::Measurements => self.measurements.len(),
        }
    }
}

impl State {
    /// Opens a folder, and reads what a death left in its journal.
    pub(crate) async fn open(config: &Config, folder: PathBuf) -> Result<Self, Error> {
        let lock = hold(&folder)?;
        let path = folder.join("manifest.sqlite");
        let manifest = Manifest::open(&path).await.map_err(|error| unopenable(&folder, error))?;
        let mark = async |name| manifest.mark(name).await.map_err(|error| unopenable(&folder, error));
        let (through, last_line) = (mark(JOURNAL).await?, mark(Signal::Logs.name()).await?);
        let (last_span, last_measurement) =
            (mark(Signal::Spans.name()).await?, mark(Signal::Measurements.name()).await?);
        let place = Arc::new(place(config, &folder, &manifest).await?);
        let objects = manifest.objects().await.map_err(|error| unopenable(&folder, error))?;
        let mut objects: HashMap<i64, Vec<u8>> = objects.into_iter().collect();
        let fallen = manifest.fallen().await.map_err(|error| unopenable(&folder, error))?;
        let entries = manifest.files().await.map_err(|error| unopenable(&folder, error))?;
        let next_file = entries.iter().map(|entry| entry.id).max().unwrap_or(0) + 1;
        let mut files: HashMap<Signal, Vec<Arc<Sheet>>> = HashMap::new();
        for entry in entries {
            let sheet = Sheet::new(&place, entry);
            if let Some(sums) = objects.remove(&sheet.entry.id) {
                sheet.is_kept_as(Sums::read(&sums));
            }
            files.entry(sheet.entry.signal).or_default().push(Arc::new(sheet));
        }
        let known: Vec<PathBuf> = files.values().flatten().map(|sheet| sheet.path().to_owned()).collect();
        let swept = sweep(&folder, |path| known.iter().any(|known| known == path));
        let swept = swept.map_err(|error| unopenable(&folder, error))?;
        if swept > 0 {
            tracing::info!(files = swept, "files that were half written were removed");
        }

        let orders = Orders::left(&manifest).await.map_err(|error| unopenable(&folder, error))?;
        let hot = Hot::before_files(config, last_line);
        remember_series(&hot, files.get(&Signal::Measurements).map_or(&[], Vec::as_slice));
        let pending =
            Pending { next_span: last_span + 1, next_measurement: last_measurement + 1, through, ..Pending::default() };
        let (hot, pending, journal) = replay(hot, pending, &folder).await?;
        Ok(Self {
            config: config.clone(),
            hot,
            manifest,
            queue: Mutex::default(),
            journal: Mutex::new(journal),
            unfiled_bytes: AtomicUsize::new(pending.bytes),
            pending: Mutex::new(pending),
            queries: Arc::new(Semaphore::new(config.queries_max.clamp(1, Semaphore::MAX_PERMITS))),
            cost: Arc::default(),
            orders,
            trouble: Trouble::default(),
            bucket_trouble: Trouble::default(),
            unread_objects: tokio::sync::Mutex::new(fallen.into_iter().collect()),
            ended: watch::Sender::new(false),
            wake: Notify::new(),
            files: Mutex::new(files.into_iter().map(|(signal, sheets)| (signal, Arc::new(sheets))).collect()),
            forgotten: Mutex::default(),
            next_file: AtomicI64::new(next_file),
            filed_times: AtomicU64::new(0),
            place,
            hold: Mutex::new(Some(lock)),
        })
    }

    /// Lets another process have the folder. What is written is whole; from now on nothing is.
    pub(crate) fn let_go(&self) {
        let _nobody_writes = lock(&self.journal);
        lock(&self.hold).take();
    }

    /// Whether the folder is held, so that it may be written.
    pub(crate) fn is_held(&self) -> bool {
        lock(&self.hold).is_some()
    }

    /// Puts a batch that is in the journal into memory.
    pub(crate) fn apply(&self, batch: Batch, number: u64) {
        let is_much = {
            let mut pending = lock(&self.pending);
            pending.add(&self.hot, batch, number);
            pending.bytes >= self.config.unfiled_bytes_max / 2
        };
        if is_much {
            self.wake.notify_one();
        }
    }

    /// The files of a signal, as they are now.
    pub(crate) fn sheets(&self, signal: Signal) -> Arc<Vec<Arc<Sheet>>> {
        lock(&self.files).get(&signal).cloned().unwrap_or_default()
    }

    /// Puts files into the list, and takes others out, at once.
    pub(crate) fn list(&self, added: &[Arc<Sheet>], removed: &[i64]) {
        let mut files = lock(&self.files);
        for signal in Signal::ALL {
            let known = files.get(&signal).cloned().unwrap_or_default();
            let mut sheets = Vec::clone(&known);
            for sheet in sheets.iter().filter(|sheet| removed.contains(&sheet.entry.id)) {
                sheet.retire();
            }
            sheets.retain(|sheet| !removed.contains(&sheet.entry.id));
            sheets.extend(added.iter().filter(|sheet| sheet.entry.signal == signal).cloned());
            sheets.sort_by_key(|sheet| sheet.entry.first);
            files.insert(signal, Arc::new(sheets));
        }
    }

    /// A number that no file has.
    pub(crate) fn new_file(&self) -> i64 {
        self.next_file.fetch_add(1, Ordering::Relaxed)
    }

    /// How often memory went to files: a question that saw two numbers may have seen a record twice.
    pub(crate) fn filed_times(&self) -> u64 {
        self.filed_times.load(Ordering::Acquire)
    }

    /// Says that memory is about to go to files, or has gone.
    pub(crate) fn filing(&self) {
        self.filed_times.fetch_add(1, Ordering::AcqRel);
    }

    /// Counts records of files that were removed for their age or for want of room.
    pub(crate) fn count_forgotten(&self, signal: Signal, records: u64) {
        *lock(&self.forgotten).entry(signal).or_default() += records;
    }

    /// What memory knows of traces, newest first by that.
    pub(crate) fn pending_traces(&self) -> Vec<Part> {
        let mut parts = Part::of_spans(&self.hot.held_spans());
        parts.sort_by_key(|part| std::cmp::Reverse((part.start, part.trace_id)));
        parts
    }

    /// How much is kept of a signal.
    pub(crate) fn tally(&self, signal: Signal, hot: Tally) -> Tally {
        let sheets = self.sheets(signal);
        let unfiled = lock(&self.pending).count(signal) as u64;
        let sum = |of: fn(&Sheet) -> u64| sheets.iter().map(|sheet| of(sheet)).sum::<u64>();
        Tally {
            records: sum(|sheet| sheet.entry.records) + unfiled,
            bytes: sum(|sheet| sheet.entry.bytes),
            bytes_max: self.disk_bytes_max(signal),
            forgotten: lock(&self.forgotten).get(&signal).copied().unwrap_or(0),
            unfiled,
            files: sheets.len() as u64,
            oldest: sheets.iter().map(|sheet| sheet.entry.time_min).min().unwrap_or_default(),
            ..hot
        }
    }

    /// Most bytes of the files of a signal.
    pub(crate) const fn disk_bytes_max(&self, signal: Signal) -> u64 {
        match signal {
            Signal::Logs => self.config.logs_disk_bytes_max,
            Signal::Spans => self.config.spans_disk_bytes_max,
            Signal::Measurements => self.config.metrics_disk_bytes_max,
        }
    }

    /// How old the records of a signal get.
    pub(crate) const fn age_max(&self, signal: Signal) -> Duration {
        match signal {
            Signal::Logs => self.config.logs_age_max,
            Signal::Spans => self.config.spans_age_max,
            Signal::Measurements => self.config.metrics_age_max,
        }
    }
}

/// Why what comes in is refused, or stays in memory; nothing where it is not.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    is_there: AtomicBool,
    why: Mutex<String>,
}

impl Trouble {
    /// Says that something failed.
    pub(crate) fn is(&self, why: &dyn std::error::Error) {
        *lock(&self.why) = ninefold::fault::chain(why);
        self.is_there.store(true, Ordering::Release);
    }

    /// Says that all is well.
    pub(crate) fn is_over(&self) {
        if self.is_there.swap(false, Ordering::AcqRel) {
            lock(&self.why).clear();
        }
    }

    /// Whether all is well.
    pub(crate) fn is_none(&self) -> bool {
        !self.is_there.load(Ordering::Acquire)
    }

    /// What failed last; empty where all is well.
    pub(crate) fn why(&self) -> String {
        lock(&self.why).clone()
    }
}

/// Takes a lock. A panic under it is a bug that has been told of; what it guards is whole between statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where files lie, by the settings and by what was so before.
async fn place(config: &Config, folder: &Path, manifest: &Manifest) -> Result<Place, Error> {
    const URL: &str = "bucket";
    const OWNER: &str = "owner";
    let broken = |error| unopenable(folder, error);
    let refused = |told: String| unopenable(folder, std::io::Error::other(told));
    let bucket = Bucket::of(&config.bucket).map_err(|error| unopenable(folder, error))?;
    let (url, before) = (config.bucket.url.as_str(), manifest.about(URL).await.map_err(broken)?);
    if let Some(before) = before.filter(|before| before != url) {
        let kept = manifest.objects().await.map_err(broken)?.len();
        if kept > 0 {
            let said = if url.is_empty() { "none" } else { url };
            return Err(refused(format!("{kept} files are in the bucket {before}, and the settings name {said}")));
        }
    }
    let owner = match manifest.about(OWNER).await.map_err(broken)? {
        Some(owner) => owner,
        None => {
            let owner = format!("{:016x}", fastrand::u64(..));
            manifest.set_about(OWNER, &owner).await.map_err(broken)?;
            owner
        }
    };
    manifest.set_about(URL, url).await.map_err(broken)?;
    let place = Place::new(folder.to_owned(), bucket.map(Arc::new), owner);
    place.clean().map_err(|error| unopenable(folder, error))?;
    Ok(place)
}

/// Makes the folder, for its owner only, and holds it against other processes.
fn hold(folder: &Path) -> Result<File, Error> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|error| unopenable(folder, error))?;
    let lock = File::create(folder.join("lock")).map_err(|error| unopenable(folder, error))?;
    let held = rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive);
    held.map_err(|error| unopenable(folder, std::io::Error::from(error)))?;
    Ok(lock)
}

/// Reads what is in the journal and not in files.
async fn replay(hot: Hot, mut pending: Pending, folder: &Path) -> Result<(Hot, Pending, Journal), Error> {
    let path = folder.join("journal");
    let work = move || {
        let after = pending.through;
        let mut unread = 0_u64;
        let opened = Journal::open(&path, after, |frame| match Batch::decode(&frame.payload) {
            Some(batch) => pending.add(&hot, batch, frame.number),
            None => unread += 1,
        });
        opened.map(|(journal, damage)| (hot, pending, journal, damage, unread))
    };
    let outcome = tokio::task::spawn_blocking(work).await.map_err(|panic| unopenable(folder, panic))?;
    let (hot, pending, journal, damage, unread) = outcome.map_err(|error| unopenable(folder, error))?;
    let Damage { torn_bytes, lost_bytes } = damage;
    if torn_bytes > 0 {
        tracing::info!(torn_bytes, "the journal's tail was torn; nothing of it had been acknowledged");
    }
    if lost_bytes > 0 || unread > 0 {
        tracing::error!(lost_bytes, unread, "the journal is damaged; telemetry that was acknowledged is lost");
    }
    Ok((hot, pending, journal))
}

/// Tells memory the newest of each series that was heard of lately. What cannot be read is not worth a failed start.
fn remember_series(hot: &Hot, sheets: &[Arc<Sheet>]) {
    let back = u64::try_from(SERIES_BACK.as_nanos()).unwrap_or(u64::MAX);
    let since = now().0.saturating_sub(back);
    for sheet in sheets.iter().filter(|sheet| sheet.entry.time_max.0 >= since && sheet.is_here()) {
        let Ok(rows) = sheet.rows() else { continue };
        for batch in rows.flatten() {
            let mut measurements = columns::measurements(&batch).unwrap_or_default();
            measurements.retain(|measured| measured.time.0 >= since);
            hot.put_measurements(measurements);
        }
    }
}
