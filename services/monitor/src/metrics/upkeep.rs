//! Samples from the journal to files, and files kept in order, in the background.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ninefold::lifecycle::Scope;

use super::beside::Beside;
use super::commit::{Kept, lock, read};
use super::disk::{Disk, Keep};
use super::{Metrics, millis, now};
use crate::config::Config;
use crate::durable::journal::Journal;
use crate::error::Error;

/// Folder of samples, within that of telemetry.
const FOLDER: &str = "samples";
/// Folder of their journal.
const JOURNAL: &str = "journal";
/// How often it is looked whether something is to be done, unless settings ask for more.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often what stands beside samples is written, where it changed.
const BESIDE_EVERY: Duration = Duration::from_secs(5);
/// A journal that has grown by so much is filed before its time, so that a start does not take long.
const JOURNAL_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Steps of tidying in a row, before filing has its turn.
const STEPS_MAX: usize = 16;

impl Metrics {
    /// Opens the samples in a folder of telemetry, reads what a death left in their journal, and keeps them up from then
    /// on.
    ///
    /// # Errors
    /// [`Error::Unopenable`].
    pub(crate) async fn open(config: &Config, folder: &Path, scope: &Scope) -> Result<Arc<Self>, Error> {
        let folder = folder.join(FOLDER);
        let (settings, at) = (config.clone(), folder.clone());
        let opened = tokio::task::spawn_blocking(move || Self::read_folder(&settings, &at)).await;
        let unopenable = |source| Error::Unopenable { path: folder.clone(), source };
        let opened = opened.map_err(|panic| unopenable(Box::new(panic)))?;
        let metrics = Arc::new(opened.map_err(|error| unopenable(Box::new(error)))?);
        start(metrics.clone(), config, scope);
        Ok(metrics)
    }

    pub(super) fn read_folder(config: &Config, folder: &Path) -> std::io::Result<Self> {
        let keep = Keep {
            millis_max: millis(config.samples_age_max),
            fine_millis: millis(config.samples_fine_for),
            bytes_max: config.samples_disk_bytes_max,
        };
        let disk = Disk::open(folder)?;
        let (mark, newest) = (disk.mark(), disk.newest());
        let mut frames = Vec::new();
        let mut odd = 0_u64;
        let (journal, damage) = Journal::open(&folder.join(JOURNAL), mark, |frame| match read(&frame) {
            Some(_) => frames.push(frame),
            None => odd += 1,
        })?;
        if damage.torn_bytes + damage.lost_bytes + odd > 0 {
            let (torn, lost) = (damage.torn_bytes, damage.lost_bytes);
            tracing::warn!(torn, lost, odd, "the journal of samples was damaged; it was read around the damage");
        }
        let metrics = Self::with(config, Some(Kept::new(disk, keep, config.samples_bytes_max, journal)));
        metrics.write().begins_after(newest);
        for frame in frames {
            metrics.apply(read(&frame).unwrap_or_default());
        }
        metrics.remember(Beside::read(folder));
        Ok(metrics)
    }

    /// Writes what is in no file to one, and lets go of the journal up to there. Blocks.
    pub(super) fn file(&self) -> std::io::Result<()> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let (mark, unfiled) = {
            let mut journal = lock(&kept.journal);
            journal.rotate();
            *lock(&kept.journal_bytes) = 0;
            (journal.next() - 1, self.write().cut())
        };
        let series = unfiled.iter().map(|one| (one.labels.clone(), one.samples()));
        match kept.disk.write(mark, series) {
            Ok(()) => {
                self.write().settle();
                lock(&kept.journal).remove_through(mark)
            }
            Err(failure) => {
                self.write().undo(unfiled);
                Err(failure)
            }
        }
    }

    /// Writes what stands beside samples, if it changed. Blocks.
    fn save_beside(&self) -> std::io::Result<()> {
        let Some(kept) = &self.kept else { return Ok(()) };
        if !self.is_unsaid.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        self.beside().write(kept.disk.folder()).inspect_err(|_| self.is_unsaid.store(true, Ordering::Relaxed))
    }

    /// Takes some steps to keep files in order. Blocks.
    fn tidy(&self) -> std::io::Result<()> {
        let Some(kept) = &self.kept else { return Ok(()) };
        for _ in 0..STEPS_MAX {
            if !kept.disk.tidy(kept.keep, now())? {
                break;
            }
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        let is_much = |kept: &Kept| {
            self.read().unfiled_bytes() > kept.unfiled_bytes_max / 2 || *lock(&kept.journal_bytes) > JOURNAL_BYTES_MAX
        };
        self.kept.as_ref().is_some_and(is_much)
    }

    async fn woken(&self) {
        match &self.kept {
            Some(kept) => kept.wake.notified().await,
            None => std::future::pending().await,
        }
    }
}

/// Starts the task. When it is asked to stop it writes what is in the journal to a file.
fn start(metrics: Arc<Metrics>, config: &Config, scope: &Scope) {
    let (file_every, tidy_every) = (config.samples_file_every, config.tidy_every);
    scope.run("monitor.samples", move |stop| async move {
        let look_every = LOOK_EVERY.min(file_every).min(tidy_every).max(Duration::from_millis(1));
        let (mut filed, mut tidied) = (tokio::time::Instant::now(), tokio::time::Instant::now());
        let mut saved = tokio::time::Instant::now();
        let mut is_told = false;
        loop {
            let is_last = tokio::select! {
                () = stop.asked() => true,
                () = metrics.woken() => false,
                () = tokio::time::sleep(look_every) => false,
            };
            let is_due = is_last || filed.elapsed() >= file_every || metrics.is_full();
            if is_due {
                filed = tokio::time::Instant::now();
                tell(blocking(&metrics, Metrics::file).await, &mut is_told);
            }
            if is_last || saved.elapsed() >= BESIDE_EVERY {
                saved = tokio::time::Instant::now();
                tell(blocking(&metrics, Metrics::save_beside).await, &mut is_told);
            }
            if is_last {
                return;
            }
            if tidied.elapsed() >= tidy_every {
                tidied = tokio::time::Instant::now();
                tell(blocking(&metrics, Metrics::tidy).await, &mut is_told);
            }
        }
    });
}

async fn blocking(metrics: &Arc<Metrics>, work: fn(&Metrics) -> std::io::Result<()>) -> std::io::Result<()> {
    let metrics = metrics.clone();
    tokio::task::spawn_blocking(move || work(&metrics)).await.map_err(std::io::Error::other)?
}

/// Tells of a failure once, until something succeeds.
fn tell(outcome: std::io::Result<()>, is_told: &mut bool) {
    match outcome {
        Ok(()) => *is_told = false,
        Err(error) if !std::mem::replace(is_told, true) => {
            tracing::error!(%error, "samples could not be written to a file; they are in the journal");
        }
        Err(error) => tracing::debug!(%error, "samples could not be written to a file; they are in the journal"),
    }
}
