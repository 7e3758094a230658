//! Files to the bucket, one after the other, the oldest first; what the list of files lost, away from it; and copies away
//! from the disk, the longest unused first.
//!
//! A file counts as soon as it is in the folder: nobody who sends waits for the bucket, and a bucket that is away is tried
//! again and again. What it has not taken stays on the disk, and in the list of files that a start reads.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ninefold::fault;
use ninefold::lifecycle::Scope;
use ninefold::telemetry::{Measure, Measured, measure};

use super::file::Sheet;
use super::place::Sums;
use super::state::State;
use crate::bucket::{Bucket, Failure};
use crate::error::Error;
use crate::tier::{Elsewhere, Signal};

/// How often it is looked whether something is to be done.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest pause after failures.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long what waits may still go when the node ends.
const LAST_WITHIN: Duration = Duration::from_secs(5);

/// Starts the task, where there is a bucket. It ends after whoever keeps the files up.
pub(crate) fn start(state: &Arc<State>, scope: &Scope) {
    let Some(bucket) = state.place.bucket.clone() else { return };
    tell_of_itself(state, &bucket);
    let state = state.clone();
    scope.run("monitor.bucket", |_| async move {
        let mut ended = state.ended.subscribe();
        let look_every = LOOK_EVERY.min(state.config.file_every);
        let mut uploads = Uploads { state: state.clone(), bucket, is_told: false };
        let mut pause = look_every;
        loop {
            let is_last = tokio::select! {
                end = ended.wait_for(|ended| *ended) => { let _ = end; true }
                () = tokio::time::sleep(pause) => false,
            };
            if is_last {
                // What is left is sent after the next start. A bucket that is away is not waited for.
                if state.bucket_trouble.is_none() {
                    let _ = tokio::time::timeout(LAST_WITHIN, uploads.all()).await;
                }
                state.manifest.close().await;
                return;
            }
            // Stopping does not wait for a bucket that hangs: what is half sent is sent again.
            let outcome = tokio::select! {
                outcome = uploads.all() => outcome,
                _ = ended.wait_for(|ended| *ended) => continue,
            };
            pause = if outcome.is_ok() { look_every } else { longer(pause, look_every) };
            uploads.tell(outcome);
            uploads.make_room();
        }
    });
}

fn longer(pause: Duration, least: Duration) -> Duration {
    (pause * 2).clamp(least, PAUSE_MAX).mul_f64(0.75 + fastrand::f64() / 4.0)
}

struct Uploads {
    state: Arc<State>,
    bucket: Arc<Bucket>,
    is_told: bool,
}

impl Uploads {
    /// Puts all files there that are not there yet, and takes away what is to go.
    async fn all(&self) -> Result<(), Error> {
        let mut outcome = Ok(());
        for sheet in self.state.waiting() {
            match self.put(&sheet).await {
                Err(Failed::Here(failure)) => outcome = Err(unwritable(failure)),
                Err(Failed::There(failure)) => return Err(failure),
                Ok(()) => {}
            }
        }
        self.state.remove_fallen().await.and(outcome)
    }

    async fn put(&self, sheet: &Sheet) -> Result<(), Failed> {
        let (state, id) = (&self.state, sheet.entry.id);
        let name = state.place.name(&sheet.entry);
        let noted = |error| Failed::There(unwritable(error));
        if !state.manifest.put_begins(id, &name).await.map_err(noted)? {
            // It was put together with others meanwhile, or is too old.
            return Ok(());
        }
        let mut sums = Sums::default();
        let put = self.bucket.put(&name, sheet.path(), |bytes| sums.add(bytes)).await;
        put.map_err(|failure| match failure {
            Failure::Disk(_) => Failed::Here(failure),
            failure => Failed::There(unwritable(failure)),
        })?;
        let sums = sums.finish();
        if state.manifest.put_ended(id, &sums).await.map_err(noted)? {
            sheet.is_kept_as(Sums::read(&sums));
        }
        Ok(())
    }

    /// Tells of a failure once, until it is over.
    fn tell(&mut self, outcome: Result<(), Error>) {
        match outcome {
            Ok(()) => {
                self.state.bucket_trouble.is_over();
                if std::mem::take(&mut self.is_told) {
                    tracing::info!("the bucket takes files of telemetry again");
                }
            }
            Err(failure) => {
                self.state.bucket_trouble.is(&failure);
                if !std::mem::replace(&mut self.is_told, true) {
                    let error = fault::chain(&failure);
                    tracing::error!(error, "the bucket takes no files of telemetry; they wait on the disk");
                }
            }
        }
    }

    /// Gives disk free of what the bucket has, the longest unused first.
    fn make_room(&self) {
        let mut spare: Vec<(u64, u64, Arc<Sheet>)> = Vec::new();
        for signal in Signal::ALL {
            let sheets = self.state.sheets(signal);
            let of = sheets.iter().map(|sheet| (sheet.used(), sheet.spare_bytes(), sheet.clone()));
            spare.extend(of.filter(|(_, bytes, _)| *bytes > 0));
        }
        spare.sort_by_key(|(used, ..)| *used);
        let mut bytes: u64 = spare.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, its, sheet) in spare {
            if bytes <= self.state.config.bucket.cache_bytes_max {
                return;
            }
            match sheet.give_up_copies() {
                Ok(()) => bytes -= its,
                Err(error) => tracing::warn!(%error, "a copy of what the bucket has could not be removed"),
            }
        }
    }
}

/// Why a file is not in the bucket.
enum Failed {
    /// The file itself; others may go there.
    Here(Failure),
    /// The bucket, or the list of files.
    There(Error),
}

fn unwritable(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Unwritable(Arc::new(error))
}

impl State {
    /// Files that the bucket has not, the oldest first.
    pub(crate) fn waiting(&self) -> Vec<Arc<Sheet>> {
        let mut waiting: Vec<Arc<Sheet>> = Vec::new();
        if self.place.bucket.is_some() {
            for signal in Signal::ALL {
                waiting.extend(self.sheets(signal).iter().filter(|sheet| !sheet.is_kept()).cloned());
            }
        }
        waiting.sort_by_key(|sheet| sheet.entry.id);
        waiting
    }

    fn waiting_bytes(&self) -> u64 {
        self.waiting().iter().map(|sheet| sheet.entry.bytes).sum()
    }

    /// Refuses to write another file while too many wait for the bucket.
    ///
    /// # Errors
    /// Why they wait.
    pub(crate) fn has_room(&self) -> Result<(), Error> {
        let (waiting, most) = (self.waiting_bytes(), self.config.bucket.waiting_bytes_max);
        if waiting < most {
            return Ok(());
        }
        let why = self.bucket_trouble.why();
        let why = if why.is_empty() { "it is slower than what comes in".to_owned() } else { why };
        let told = format!("{waiting} bytes wait for the bucket, which is more than waiting_bytes_max: {why}");
        Err(unwritable(std::io::Error::other(told)))
    }

    /// Removes objects that the list of files lost, and that nobody reads any more.
    ///
    /// # Errors
    /// Why some are still there.
    pub(crate) async fn remove_fallen(&self) -> Result<(), Error> {
        let Some(bucket) = &self.place.bucket else { return Ok(()) };
        let mut unread = self.unread_objects.lock().await;
        unread.extend(self.place.take_let_go());
        if unread.is_empty() {
            return Ok(());
        }
        let fallen = self.manifest.fallen().await.map_err(unwritable)?;
        let fallen: BTreeSet<String> = fallen.into_iter().collect();
        unread.retain(|name| fallen.contains(name));
        let mut outcome: Result<(), Failure> = Ok(());
        for name in unread.clone() {
            match bucket.remove(&name).await {
                Ok(()) => {
                    self.manifest.is_gone(&name).await.map_err(unwritable)?;
                    unread.remove(&name);
                }
                Err(failure) => {
                    outcome = Err(failure);
                    break;
                }
            }
        }
        outcome.map_err(unwritable)
    }

    /// What the bucket has, and how it goes.
    pub(crate) fn elsewhere(&self) -> Option<Elsewhere> {
        let bucket = self.place.bucket.as_ref()?;
        let mut told = Elsewhere {
            url: self.config.bucket.url.clone(),
            problem: self.bucket_trouble.why(),
            sent_bytes: bucket.counts.sent_bytes.load(Ordering::Relaxed),
            read_bytes: bucket.counts.read_bytes.load(Ordering::Relaxed),
            failures: bucket.counts.failures.load(Ordering::Relaxed),
            ..Elsewhere::default()
        };
        for signal in Signal::ALL {
            for sheet in self.sheets(signal).iter() {
                let (files, bytes) = match sheet.is_kept() {
                    true => (&mut told.kept_files, &mut told.kept_bytes),
                    false => (&mut told.waiting_files, &mut told.waiting_bytes),
                };
                *files += 1;
                *bytes += sheet.entry.bytes;
                told.copied_bytes += sheet.spare_bytes();
                told.spoiled_files += u64::from(sheet.is_spoiled());
            }
        }
        Some(told)
    }
}

/// Measures what waits for the bucket, and what went to and fro.
fn tell_of_itself(state: &Arc<State>, bucket: &Arc<Bucket>) {
    #[expect(clippy::cast_precision_loss, reason = "metrics know no other numbers")]
    fn one(number: u64) -> Vec<Measured> {
        vec![(Vec::new(), number as f64)]
    }
    let of = state.clone();
    let about = "Bytes of telemetry's files that the bucket has not taken yet";
    measure("ninefold_monitor_bucket_waiting_bytes", about, Measure::State, move || one(of.waiting_bytes()));
    let total = |name, about, of: fn(&Bucket) -> &AtomicU64| {
        let bucket = bucket.clone();
        measure(name, about, Measure::Total, move || one(of(&bucket).load(Ordering::Relaxed)));
    };
    let about = "Bytes of telemetry's files that went to the bucket";
    total("ninefold_monitor_bucket_sent_bytes_total", about, |bucket| &bucket.counts.sent_bytes);
    let about = "Bytes that questions fetched from the bucket";
    total("ninefold_monitor_bucket_read_bytes_total", about, |bucket| &bucket.counts.read_bytes);
    let about = "Requests to the bucket that failed";
    total("ninefold_monitor_bucket_failures_total", about, |bucket| &bucket.counts.failures);
}
