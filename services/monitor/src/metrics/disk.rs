//! The files of samples: which there are, what they answer together, how small ones become large ones, and which go.
//!
//! There is no list beside the files. A file that stands in for others names them, so that after a death the others go.
//! Blocks; callers are on threads that may.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::iter::Peekable;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use ninefold_promql::{Labels, NAME, Sample, Selection, Series};

use super::block::{Block, Facts, Walk, Writer, id};
use super::thin::thin;

/// So many neighbours of one level are put together.
const TOGETHER: usize = 8;
/// A file of this level is not put together any more.
const LEVEL_MAX: u64 = 3;

/// How much is kept, and how fine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keep {
    /// Samples older than this many milliseconds go.
    pub(crate) millis_max: i64,
    /// Samples older than this many milliseconds are thinned.
    pub(crate) fine_millis: i64,
    /// Most bytes; the oldest files go.
    pub(crate) bytes_max: u64,
}

/// All files.
#[derive(Debug)]
pub(crate) struct Disk {
    folder: PathBuf,
    blocks: RwLock<Arc<Vec<Arc<Block>>>>,
    next: AtomicU64,
}

/// What files say together.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Series, those of later files laid over those of earlier ones.
    pub(crate) series: HashMap<Labels, Vec<Sample>>,
    /// Files that could not be read.
    pub(crate) unread: usize,
}

impl Disk {
    /// Opens a folder. Files that are half written, or that others stand in for, go; damaged ones are passed over.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut blocks = Vec::new();
        let mut last = 0;
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == "part") {
                std::fs::remove_file(&path)?;
                continue;
            }
            let Some(id) = id(&path) else { continue };
            last = last.max(id);
            match Block::open(&path) {
                Ok(block) => blocks.push(Arc::new(block)),
                Err(error) => tracing::error!(%error, path = %path.display(), "a file of samples cannot be read"),
            }
        }
        let replaced: BTreeSet<u64> = blocks.iter().flat_map(|block| block.facts.replaces.clone()).collect();
        for block in blocks.iter().filter(|block| replaced.contains(&block.facts.id)) {
            block.remove()?;
        }
        blocks.retain(|block| !replaced.contains(&block.facts.id));
        blocks.sort_by_key(|block| block.facts.order);
        let blocks = RwLock::new(Arc::new(blocks));
        Ok(Self { folder: folder.to_owned(), blocks, next: AtomicU64::new(last + 1) })
    }

    /// Where the files are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Up to which frame the journal is in files.
    pub(crate) fn mark(&self) -> u64 {
        self.blocks().iter().map(|block| block.facts.mark).max().unwrap_or_default()
    }

    /// Time of the newest sample.
    pub(crate) fn newest(&self) -> i64 {
        self.blocks().iter().map(|block| block.facts.to).max().unwrap_or(i64::MIN)
    }

    /// Bytes and samples.
    pub(crate) fn sizes(&self) -> (u64, u64) {
        let blocks = self.blocks();
        (blocks.iter().map(|one| one.bytes).sum(), blocks.iter().map(|one| one.facts.samples).sum())
    }

    fn blocks(&self) -> Arc<Vec<Arc<Block>>> {
        self.blocks.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Arc<Block>>)) {
        let mut blocks = self.blocks.write().unwrap_or_else(PoisonError::into_inner);
        let mut all = Vec::clone(&blocks);
        change(&mut all);
        all.sort_by_key(|block| block.facts.order);
        *blocks = Arc::new(all);
    }

    /// What files have of series that match. `None` if there are more than `samples_max` samples.
    pub(crate) fn select(&self, selection: &Selection, samples_max: usize) -> Option<Found> {
        let mut found = Found::default();
        let mut left = samples_max;
        for block in self.blocks().iter().filter(|block| block.may_have(selection.from, selection.to)) {
            match block.select(selection, left) {
                Ok(None) => return None,
                Ok(Some(all)) => {
                    for Series { labels, samples } in all {
                        left = left.saturating_sub(samples.len());
                        overlay(found.series.entry(labels).or_default(), samples);
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "a file of samples cannot be read");
                    found.unread += 1;
                }
            }
        }
        Some(found)
    }

    /// Labels of series that match one of the selections; of all, if there are none.
    pub(crate) fn labels(&self, selections: &[Selection]) -> BTreeSet<Labels> {
        let mut found = BTreeSet::new();
        for block in self.blocks().iter() {
            let asked: Vec<Option<&Selection>> = match selections {
                [] => vec![None],
                some => some.iter().filter(|one| block.may_have(one.from, one.to)).map(Some).collect(),
            };
            for selection in asked {
                match block.labels(selection) {
                    Ok(labels) => found.extend(labels),
                    Err(error) => tracing::debug!(%error, "a file of samples cannot be read"),
                }
            }
        }
        found
    }

    /// The last sample of a series after a time.
    pub(crate) fn last(&self, labels: &Labels, after: i64) -> Option<Sample> {
        let blocks = self.blocks();
        let some = blocks.iter().rev().filter(|block| block.facts.to > after);
        some.filter_map(|block| block.last(labels).ok().flatten()).find(|sample| sample.at > after)
    }

    /// Writes what was in memory to a file, which then counts.
    pub(crate) fn write(&self, mark: u64, series: impl IntoIterator<Item = (Labels, Vec<Sample>)>) -> io::Result<()> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut writer = Writer::new(&self.folder, Facts { id, order: mark, mark, ..Facts::default() })?;
        for (labels, samples) in series {
            writer.push(&labels, &samples)?;
        }
        if let Some(block) = writer.finish()? {
            self.change(|all| all.push(Arc::new(block)));
        }
        Ok(())
    }

    /// Puts small files together, thins old ones, and removes those that are too old or too many. One step at a time:
    /// whether there may be more to do.
    pub(crate) fn tidy(&self, keep: Keep, now: i64) -> io::Result<bool> {
        self.forget(keep, now)?;
        let blocks = self.blocks();
        let is_old = |block: &&Arc<Block>| block.facts.to < now.saturating_sub(keep.fine_millis);
        if let Some(block) = blocks.iter().filter(is_old).find(|block| !block.facts.is_thin) {
            self.join(std::slice::from_ref(block), true)?;
            return Ok(true);
        }
        let like = |block: &Arc<Block>| (block.facts.level, block.facts.is_thin);
        let alike = |some: &&[Arc<Block>]| {
            some[0].facts.level < LEVEL_MAX && some.iter().all(|block| like(block) == like(&some[0]))
        };
        let Some(some) = blocks.windows(TOGETHER).find(alike) else { return Ok(false) };
        self.join(some, some[0].facts.is_thin)?;
        Ok(true)
    }

    fn forget(&self, keep: Keep, now: i64) -> io::Result<()> {
        let blocks = self.blocks();
        let mut by_age: Vec<_> = blocks.iter().collect();
        by_age.sort_by_key(|block| std::cmp::Reverse(block.facts.to));
        let mut bytes = 0_u64;
        let mut gone = BTreeSet::new();
        // The newest stays: it tells up to where the journal is in files.
        let newest = blocks.iter().map(|block| block.facts.mark).max();
        for block in by_age {
            bytes += block.bytes;
            let is_old = block.facts.to < now.saturating_sub(keep.millis_max);
            if (is_old || bytes > keep.bytes_max) && Some(block.facts.mark) != newest {
                block.remove()?;
                gone.insert(block.facts.id);
            }
        }
        if !gone.is_empty() {
            self.change(|all| all.retain(|block| !gone.contains(&block.facts.id)));
        }
        Ok(())
    }

    /// Puts files together into one, the later laid over the earlier.
    fn join(&self, some: &[Arc<Block>], is_thin: bool) -> io::Result<()> {
        let of = |pick: fn(&Facts) -> u64| some.iter().map(|block| pick(&block.facts)).max().unwrap_or_default();
        let replaces: Vec<u64> = some.iter().map(|block| block.facts.id).collect();
        let facts = Facts {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            order: of(|facts| facts.order),
            mark: of(|facts| facts.mark),
            level: of(|facts| facts.level) + u64::from(some.len() > 1),
            is_thin,
            replaces: replaces.clone(),
            ..Facts::default()
        };
        let mut writer = Writer::new(&self.folder, facts)?;
        let mut walks: Vec<Peekable<Walk>> = some.iter().map(|block| block.walk().peekable()).collect();
        while let Some((labels, samples)) = next(&mut walks)? {
            let samples = if is_thin { thin(&labels, &samples) } else { samples };
            writer.push(&labels, &samples)?;
        }
        let joined = writer.finish()?;
        self.change(|all| {
            all.retain(|block| !replaces.contains(&block.facts.id));
            all.extend(joined.map(Arc::new));
        });
        some.iter().try_for_each(|block| block.remove())
    }
}

/// The next series of all walks.
fn next(walks: &mut [Peekable<Walk>]) -> io::Result<Option<(Labels, Vec<Sample>)>> {
    let place = |labels: &Labels| (labels.get(NAME).to_owned(), labels.clone());
    let mut first: Option<(String, Labels)> = None;
    for walk in &mut *walks {
        if let Some(Err(failure)) = walk.next_if(Result::is_err) {
            return Err(failure);
        }
        let Some(Ok((labels, _))) = walk.peek() else { continue };
        let this = place(labels);
        if first.as_ref().is_none_or(|first| this < *first) {
            first = Some(this);
        }
    }
    let Some((_, labels)) = first else { return Ok(None) };
    let mut all = Vec::new();
    for walk in walks {
        if let Some(Ok((_, samples))) = walk.next_if(|one| one.as_ref().is_ok_and(|(other, _)| *other == labels)) {
            overlay(&mut all, samples);
        }
    }
    Ok(Some((labels, all)))
}

/// Lays later samples over earlier ones: of two for one time the later is right.
pub(crate) fn overlay(samples: &mut Vec<Sample>, later: Vec<Sample>) {
    let is_behind = match (samples.last(), later.first()) {
        (Some(last), Some(first)) => last.at < first.at,
        _ => true,
    };
    if is_behind {
        samples.extend(later);
        return;
    }
    let mut by_time: BTreeMap<i64, Sample> = samples.drain(..).map(|sample| (sample.at, sample)).collect();
    by_time.extend(later.into_iter().map(|sample| (sample.at, sample)));
    samples.extend(by_time.into_values());
}

#[cfg(test)]
#[path = "disk/tests.rs"]
mod tests;
