//! Series with their samples in memory. Pure: the time is given.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use ninefold_promql::{Labels, NAME, Point, Sample, Selection, Series};

use super::chunk::{CHUNK_SAMPLES, Chunk, cost};

/// What the indexes and the allocator take for a series, beside its labels.
const INDEX_BYTES: usize = 512;
/// What a label takes beside its text.
const LABEL_BYTES: usize = 64;
/// How much of the memory is free after samples had to be forgotten, as a part of all: so that it is not needed each time.
const FREED: usize = 10;

/// A measurement, by the names of Prometheus.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reading {
    /// What was measured.
    pub(crate) labels: Labels,
    /// When, in milliseconds since 1970.
    pub(crate) at: i64,
    /// What came out.
    pub(crate) point: Point,
    /// Whether it is what was added since the reading before, rather than the total.
    pub(crate) is_added: bool,
}

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Most bytes.
    pub(crate) bytes_max: usize,
    /// Most series. New ones beyond it are refused.
    pub(crate) series_max: usize,
    /// Samples older than this many milliseconds are forgotten.
    pub(crate) millis_max: i64,
}

/// What of some readings was not kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    /// Readings of series beyond the limit.
    pub(crate) series_full: u64,
    /// Readings older than what is kept.
    pub(crate) too_old: u64,
}

/// All series.
#[derive(Debug)]
pub(crate) struct Store {
    bounds: Bounds,
    ids: HashMap<Labels, u64>,
    entries: HashMap<u64, Entry>,
    names: BTreeMap<Arc<str>, BTreeSet<u64>>,
    next: u64,
    bytes: usize,
    samples: u64,
}

#[derive(Debug)]
struct Entry {
    labels: Labels,
    chunks: VecDeque<Chunk>,
    /// The newest, not packed yet.
    head: Vec<Sample>,
    /// What labels and indexes take, in bytes.
    own_bytes: usize,
    /// What the chunks take, in bytes.
    packed_bytes: usize,
    /// How many samples are in the chunks.
    packed: u64,
}

impl Store {
    /// Makes an empty store.
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            ids: HashMap::new(),
            entries: HashMap::new(),
            names: BTreeMap::new(),
            next: 0,
            bytes: 0,
            samples: 0,
        }
    }

    /// Takes readings in. A second reading of a series for one time replaces the first; they may come in any order.
    pub(crate) fn append(&mut self, readings: Vec<Reading>, now: i64) -> Left {
        let mut left = Left::default();
        for reading in readings {
            if reading.at <= now.saturating_sub(self.bounds.millis_max) {
                left.too_old += 1;
            } else if !self.put(reading) {
                left.series_full += 1;
            }
        }
        if self.bytes > self.bounds.bytes_max {
            self.make_room();
        }
        left
    }

    fn put(&mut self, reading: Reading) -> bool {
        let id = match self.ids.get(&reading.labels) {
            Some(id) => *id,
            None if self.ids.len() >= self.bounds.series_max => return false,
            None => self.begin(reading.labels.clone()),
        };
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        let point = match (reading.is_added, entry.last()) {
            (true, Some(before)) => added(&before.point, &reading.point),
            _ => reading.point,
        };
        let before = (entry.bytes(), entry.len());
        entry.put(Sample { at: reading.at, point });
        self.bytes = (self.bytes + entry.bytes()).saturating_sub(before.0);
        self.samples = (self.samples + entry.len()).saturating_sub(before.1);
        true
    }

    fn begin(&mut self, labels: Labels) -> u64 {
        let id = self.next;
        self.next += 1;
        self.names.entry(Arc::from(labels.get(NAME))).or_default().insert(id);
        self.ids.insert(labels.clone(), id);
        let entry = Entry::of(labels);
        self.bytes += entry.bytes();
        self.entries.insert(id, entry);
        id
    }

    fn end(&mut self, id: u64) {
        let Some(entry) = self.entries.remove(&id) else { return };
        self.bytes = self.bytes.saturating_sub(entry.bytes());
        self.samples = self.samples.saturating_sub(entry.len());
        self.ids.remove(&entry.labels);
        let name = entry.labels.get(NAME);
        if let Some(of_name) = self.names.get_mut(name) {
            of_name.remove(&id);
            if of_name.is_empty() {
                self.names.remove(name);
            }
        }
    }

    /// Forgets what is too old.
    pub(crate) fn forget_old(&mut self, now: i64) {
        self.forget_until(now.saturating_sub(self.bounds.millis_max));
    }

    /// Forgets the oldest samples of all, so that some memory is free again.
    fn make_room(&mut self) {
        let aim = self.bounds.bytes_max - self.bounds.bytes_max / FREED;
        let mut ends: Vec<(i64, usize)> = Vec::new();
        for entry in self.entries.values() {
            ends.extend(entry.chunks.iter().map(|chunk| (chunk.to, chunk.bytes())));
            ends.extend(entry.head.last().map(|sample| (sample.at, entry.head_bytes())));
        }
        ends.sort_unstable_by_key(|(to, _)| *to);
        let mut bytes = self.bytes;
        let until = ends.iter().find_map(|(to, freed)| {
            bytes = bytes.saturating_sub(*freed);
            (bytes <= aim).then_some(*to)
        });
        self.forget_until(until.unwrap_or(i64::MAX));
    }

    /// Forgets chunks that end at a time or before, and series of which nothing is left.
    fn forget_until(&mut self, until: i64) {
        let mut empty = Vec::new();
        for (id, entry) in &mut self.entries {
            let before = (entry.bytes(), entry.len());
            while entry.chunks.front().is_some_and(|chunk| chunk.to <= until) {
                entry.chunks.pop_front();
            }
            entry.recount();
            if entry.head.last().is_some_and(|sample| sample.at <= until) {
                entry.head = Vec::new();
            }
            self.bytes = (self.bytes + entry.bytes()).saturating_sub(before.0);
            self.samples = (self.samples + entry.len()).saturating_sub(before.1);
            if entry.head.is_empty() && entry.chunks.is_empty() {
                empty.push(*id);
            }
        }
        for id in empty {
            self.end(id);
        }
    }

    /// Series that match, with their samples. `None` if there are more than `samples_max`.
    pub(crate) fn select(&self, selection: &Selection, samples_max: usize) -> Option<Vec<Series>> {
        let mut found = Vec::new();
        let mut left = samples_max;
        for entry in self.of_name(selection.name()).filter(|entry| selection.matches(&entry.labels)) {
            let samples = entry.samples(selection.from, selection.to);
            if samples.is_empty() {
                continue;
            }
            left = left.checked_sub(samples.len())?;
            found.push(Series { labels: entry.labels.clone(), samples });
        }
        Some(found)
    }

    /// Labels of series that match one of the selections, and have a sample in its time. All series, if there are none.
    pub(crate) fn labels<'a>(&'a self, selections: &'a [Selection]) -> impl Iterator<Item = &'a Labels> {
        let matches = move |entry: &&Entry| {
            selections.is_empty()
                || selections.iter().any(|one| one.matches(&entry.labels) && entry.is_within(one.from, one.to))
        };
        self.entries.values().filter(matches).map(|entry| &entry.labels)
    }

    fn of_name(&self, name: Option<&str>) -> Box<dyn Iterator<Item = &Entry> + '_> {
        match name {
            Some(name) => Box::new(self.names.get(name).into_iter().flatten().filter_map(|id| self.entries.get(id))),
            None => Box::new(self.entries.values()),
        }
    }

    /// How many series.
    pub(crate) fn series(&self) -> usize {
        self.entries.len()
    }

    /// How many samples.
    pub(crate) const fn samples(&self) -> u64 {
        self.samples
    }

    /// How many bytes of memory.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Entry {
    fn of(labels: Labels) -> Self {
        let texts: usize = labels.iter().map(|(name, value)| name.len() + value.len() + LABEL_BYTES).sum();
        let own_bytes = INDEX_BYTES + texts;
        Self { labels, chunks: VecDeque::new(), head: Vec::new(), own_bytes, packed_bytes: 0, packed: 0 }
    }

    fn recount(&mut self) {
        self.packed_bytes = self.chunks.iter().map(Chunk::bytes).sum();
        self.packed = self.chunks.iter().map(|chunk| chunk.len() as u64).sum();
    }

    fn put(&mut self, sample: Sample) {
        let is_behind = self.chunks.back().is_some_and(|chunk| sample.at <= chunk.to);
        if is_behind {
            self.put_behind(sample);
            return;
        }
        insert(&mut self.head, sample);
        if self.head.len() >= CHUNK_SAMPLES
            && let Some(chunk) = Chunk::of(std::mem::take(&mut self.head))
        {
            self.packed_bytes += chunk.bytes();
            self.packed += chunk.len() as u64;
            self.chunks.push_back(chunk);
        }
    }

    /// Opens the chunk that a late sample belongs to.
    fn put_behind(&mut self, sample: Sample) {
        let at = self.chunks.partition_point(|chunk| chunk.to < sample.at);
        let Some(chunk) = self.chunks.get_mut(at) else { return };
        let mut samples = chunk.samples();
        insert(&mut samples, sample);
        // Late samples that go on and on make a chunk of two.
        let rest = if samples.len() >= 2 * CHUNK_SAMPLES { samples.split_off(CHUNK_SAMPLES) } else { Vec::new() };
        if let Some(packed) = Chunk::of(samples) {
            *chunk = packed;
        }
        if let Some(second) = Chunk::of(rest) {
            self.chunks.insert(at + 1, second);
        }
        self.recount();
    }

    fn last(&self) -> Option<Sample> {
        self.head.last().cloned().or_else(|| self.chunks.back().and_then(|chunk| chunk.samples().pop()))
    }

    /// Samples after `from` and until `to`.
    fn samples(&self, from: i64, to: i64) -> Vec<Sample> {
        let meant = |sample: &Sample| from < sample.at && sample.at <= to;
        let chunks = self.chunks.iter().filter(|chunk| from < chunk.to && chunk.from <= to);
        let packed = chunks.flat_map(Chunk::samples);
        packed.chain(self.head.iter().cloned()).filter(meant).collect()
    }

    fn is_within(&self, from: i64, to: i64) -> bool {
        let first = self.chunks.front().map(|chunk| chunk.from).or_else(|| self.head.first().map(|sample| sample.at));
        let last = self.head.last().map(|sample| sample.at).or_else(|| self.chunks.back().map(|chunk| chunk.to));
        first.is_some_and(|first| first <= to) && last.is_some_and(|last| from < last)
    }

    const fn len(&self) -> u64 {
        self.packed + self.head.len() as u64
    }

    fn head_bytes(&self) -> usize {
        self.head.iter().map(cost).sum()
    }

    fn bytes(&self) -> usize {
        self.own_bytes + self.head_bytes() + self.packed_bytes
    }
}

fn insert(samples: &mut Vec<Sample>, sample: Sample) {
    match samples.binary_search_by_key(&sample.at, |known| known.at) {
        Ok(at) => samples[at] = sample,
        Err(at) => samples.insert(at, sample),
    }
}

/// What was added, on top of what there was. What does not fit begins anew.
fn added(before: &Point, more: &Point) -> Point {
    match (before, more) {
        (Point::Float(before), Point::Float(more)) => Point::Float(before + more),
        (Point::Histogram(before), Point::Histogram(more)) => {
            before.plus(more).map_or_else(|| Point::Histogram(more.clone()), Point::from)
        }
        (_, more) => more.clone(),
    }
}

#[cfg(test)]
mod tests {
    use ninefold_promql::{Limits, Query, Span};

    use super::*;

    const HOUR: i64 = 3_600_000;

    fn reading(name: &str, mode: &str, at: i64, value: f64) -> Reading {
        let labels = Labels::new([(NAME, name), ("mode", mode)]);
        Reading { labels, at, point: Point::Float(value), is_added: false }
    }

    fn store(bytes_max: usize) -> Store {
        Store::new(Bounds { bytes_max, series_max: 10, millis_max: HOUR })
    }

    fn found(store: &Store, query: &str, from: i64, to: i64) -> Vec<(i64, f64)> {
        let query = Query::parse(query).expect("a query");
        let mut selection = query.needs(Span::instant(0), &Limits::default()).remove(0);
        (selection.from, selection.to) = (from, to);
        let series = store.select(&selection, 10_000).expect("few");
        series.iter().flat_map(|one| &one.samples).map(|one| (one.at, one.point.float().expect("a number"))).collect()
    }

    #[test]
    fn samples_come_back_in_order_whatever_order_they_came_in() {
        let mut store = store(1 << 20);
        let times: Vec<i64> = (0..500).map(|turn| turn * 1000).collect();
        for at in times.iter().rev().chain(times.iter().step_by(7)) {
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            store.append(vec![reading("m", "a", *at, *at as f64)], 500_000);
        }
        let all = found(&store, "m", -1, HOUR);
        assert_eq!(all.iter().map(|(at, _)| *at).collect::<Vec<_>>(), times);
        assert!(all.iter().all(|(at, value)| *at as f64 == *value));
        assert_eq!(store.samples(), 500);
        assert_eq!(found(&store, "m", 1000, 3000).len(), 2, "open to the left, closed to the right");
    }

    #[test]
    fn additions_become_totals() {
        let mut store = store(1 << 20);
        for at in 0..300 {
            store.append(vec![Reading { is_added: true, ..reading("m", "a", at, 2.0) }], 300);
        }
        assert_eq!(found(&store, "m", 298, 299), [(299, 600.0)]);
    }

    #[test]
    fn the_oldest_go_first_and_series_with_them() {
        let mut store = store(20_000);
        store.append(vec![reading("old", "a", 1, 1.0)], 1);
        for at in 2..20_000 {
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            store.append(vec![reading("new", "a", at * 10, (at as f64).sin())], at * 10);
        }
        assert!(store.bytes() <= 20_000, "{}", store.bytes());
        assert_eq!(store.series(), 1);
        assert!(found(&store, "new", 199_980, 200_000).len() == 1);
        store.forget_old(200_000 + HOUR);
        assert_eq!((store.series(), store.samples(), store.bytes()), (0, 0, 0));
        let left = store.append(vec![reading("late", "a", 1, 1.0)], 200_000 + HOUR);
        assert_eq!(left.too_old, 1);
    }

    #[test]
    fn series_beyond_the_limit_are_refused_and_counted() {
        let mut store = store(1 << 20);
        for mode in 0..12 {
            let left = store.append(vec![reading("m", &mode.to_string(), 1, 1.0)], 1);
            assert_eq!(left.series_full, u64::from(mode >= 10));
        }
    }
}
