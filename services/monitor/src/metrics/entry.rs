//! One series in memory: packed chunks, the newest samples as they are, and which of them are in no file yet. Pure.

use std::collections::VecDeque;
use std::sync::Arc;

use ninefold_promql::{Labels, Sample};

use super::chunk::{CHUNK_SAMPLES, Chunk, cost};
use super::disk::overlay;

/// What the indexes and the allocator take for a series, beside its labels.
const INDEX_BYTES: usize = 512;
/// What a label takes beside its text.
const LABEL_BYTES: usize = 64;

/// Samples of a series that are in no file.
#[derive(Debug)]
pub(crate) struct Unfiled {
    pub(crate) labels: Labels,
    chunks: Vec<Arc<Chunk>>,
    late: Vec<Sample>,
    /// Up to when samples were in files before.
    filed: i64,
}

impl Unfiled {
    /// The samples, in time order.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        let mut late = self.late.clone();
        late.sort_by_key(|sample| sample.at);
        let mut samples = Vec::new();
        overlay(&mut samples, late);
        for chunk in &self.chunks {
            overlay(&mut samples, chunk.samples());
        }
        samples
    }

    /// What it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.bytes()).sum::<usize>() + self.late.iter().map(cost).sum::<usize>()
    }
}

/// One series.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) labels: Labels,
    chunks: VecDeque<Arc<Chunk>>,
    /// The newest, not packed yet.
    head: Vec<Sample>,
    /// What labels and indexes take, in bytes.
    own_bytes: usize,
    /// What the chunks take, in bytes.
    packed_bytes: usize,
    /// How many samples are in the chunks.
    packed: u64,
    /// Samples up to here are in files, but for those that are late. Milliseconds since 1970.
    filed: i64,
    /// Samples that came behind that. They are in chunks too.
    late: Vec<Sample>,
}

impl Entry {
    /// A series without samples.
    pub(crate) fn of(labels: Labels) -> Self {
        let texts: usize = labels.iter().map(|(name, value)| name.len() + value.len() + LABEL_BYTES).sum();
        let own_bytes = INDEX_BYTES + texts;
        Self {
            labels,
            chunks: VecDeque::new(),
            head: Vec::new(),
            own_bytes,
            packed_bytes: 0,
            packed: 0,
            filed: i64::MIN,
            late: Vec::new(),
        }
    }

    fn recount(&mut self) {
        self.packed_bytes = self.chunks.iter().map(|chunk| chunk.bytes()).sum();
        self.packed = self.chunks.iter().map(|chunk| chunk.len() as u64).sum();
    }

    /// Puts a sample where it belongs.
    pub(crate) fn put(&mut self, sample: Sample) {
        if sample.at <= self.filed {
            self.late.push(sample.clone());
        }
        let is_behind = self.chunks.back().is_some_and(|chunk| sample.at <= chunk.to);
        if is_behind {
            self.put_behind(sample);
            return;
        }
        insert(&mut self.head, sample);
        if self.head.len() >= CHUNK_SAMPLES {
            self.seal();
        }
    }

    fn seal(&mut self) {
        if let Some(chunk) = Chunk::of(&std::mem::take(&mut self.head)) {
            self.packed_bytes += chunk.bytes();
            self.packed += chunk.len() as u64;
            self.chunks.push_back(Arc::new(chunk));
        }
    }

    /// What is in no file. It counts as filed from now on.
    pub(crate) fn cut(&mut self) -> Option<Unfiled> {
        self.seal();
        let chunks: Vec<_> = self.chunks.iter().filter(|chunk| chunk.to > self.filed).cloned().collect();
        let unfiled =
            Unfiled { labels: self.labels.clone(), chunks, late: std::mem::take(&mut self.late), filed: self.filed };
        self.filed = self.chunks.back().map_or(self.filed, |chunk| chunk.to.max(self.filed));
        (!unfiled.chunks.is_empty() || !unfiled.late.is_empty()).then_some(unfiled)
    }

    /// Takes back that something counts as filed.
    pub(crate) fn undo(&mut self, mut unfiled: Unfiled) {
        self.filed = unfiled.filed;
        unfiled.late.append(&mut self.late);
        self.late = unfiled.late;
    }

    /// Forgets what ends at a time or before; where there are files, nothing that is not in one. The time of the last
    /// sample that was forgotten.
    pub(crate) fn forget(&mut self, until: i64, is_filed: bool) -> Option<i64> {
        let until_filed = if is_filed { until.min(self.filed) } else { until };
        let mut forgotten = None;
        if self.late.is_empty() {
            while let Some(to) = self.chunks.front().map(|chunk| chunk.to).filter(|to| *to <= until_filed) {
                self.chunks.pop_front();
                forgotten = Some(to);
            }
        }
        self.recount();
        if !is_filed && self.head.last().is_some_and(|sample| sample.at <= until) {
            forgotten = self.head.pop().map(|sample| sample.at);
            self.head = Vec::new();
        }
        forgotten
    }

    /// When chunks end, and what is freed by forgetting each.
    pub(crate) fn ends(&self) -> impl Iterator<Item = (i64, usize)> {
        let chunks = self.chunks.iter().map(|chunk| (chunk.to, chunk.bytes()));
        chunks.chain(self.head.last().map(|sample| (sample.at, self.head_bytes())))
    }

    /// Opens the chunk that a late sample belongs to.
    fn put_behind(&mut self, sample: Sample) {
        let at = self.chunks.partition_point(|chunk| chunk.to < sample.at);
        let Some(chunk) = self.chunks.get_mut(at) else { return };
        let mut samples = chunk.samples();
        insert(&mut samples, sample);
        // Late samples that go on and on make a chunk of two.
        let rest = if samples.len() >= 2 * CHUNK_SAMPLES { samples.split_off(CHUNK_SAMPLES) } else { Vec::new() };
        if let Some(packed) = Chunk::of(&samples) {
            *chunk = Arc::new(packed);
        }
        if let Some(second) = Chunk::of(&rest) {
            self.chunks.insert(at + 1, Arc::new(second));
        }
        self.recount();
    }

    /// The newest sample.
    pub(crate) fn last(&self) -> Option<Sample> {
        self.head.last().cloned().or_else(|| self.chunks.back().and_then(|chunk| chunk.samples().pop()))
    }

    /// Samples after `from` and until `to`.
    pub(crate) fn samples(&self, from: i64, to: i64) -> Vec<Sample> {
        let meant = |sample: &Sample| from < sample.at && sample.at <= to;
        let chunks = self.chunks.iter().filter(|chunk| from < chunk.to && chunk.from <= to);
        let packed = chunks.flat_map(|chunk| chunk.samples());
        packed.chain(self.head.iter().cloned()).filter(meant).collect()
    }

    /// Whether a sample may be after `from` and until `to`.
    pub(crate) fn is_within(&self, from: i64, to: i64) -> bool {
        let first = self.chunks.front().map(|chunk| chunk.from).or_else(|| self.head.first().map(|sample| sample.at));
        let last = self.head.last().map(|sample| sample.at).or_else(|| self.chunks.back().map(|chunk| chunk.to));
        first.is_some_and(|first| first <= to) && last.is_some_and(|last| from < last)
    }

    /// How many samples.
    pub(crate) const fn len(&self) -> u64 {
        self.packed + self.head.len() as u64
    }

    fn head_bytes(&self) -> usize {
        self.head.iter().chain(&self.late).map(cost).sum()
    }

    /// What it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.own_bytes + self.head_bytes() + self.packed_bytes
    }
}

fn insert(samples: &mut Vec<Sample>, sample: Sample) {
    match samples.binary_search_by_key(&sample.at, |known| known.at) {
        Ok(at) => samples[at] = sample,
        Err(at) => samples.insert(at, sample),
    }
}
