//! Series with their samples in memory. Pure: the time is given.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use ninefold_promql::{Labels, NAME, Point, Sample, Selection, Series};

use super::entry::Entry;

pub(crate) use super::entry::Unfiled;

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
    /// Whether samples go to files: then none is forgotten before it is in one.
    pub(crate) is_filed: bool,
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
    /// About how much of it is in no file.
    unfiled_bytes: usize,
    /// After this time nothing was forgotten. Milliseconds since 1970.
    whole_after: i64,
    /// Whether something is being written to a file: until it is there nothing is forgotten.
    is_cutting: bool,
}

/// What is known of a series that is not in memory: its last sample.
pub(crate) type Before<'a> = &'a dyn Fn(&Labels) -> Option<Sample>;

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
            unfiled_bytes: 0,
            whole_after: i64::MIN,
            is_cutting: false,
        }
    }

    /// Takes readings in. A second reading of a series for one time replaces the first; they may come in any order. What
    /// was added to series that memory does not know is added to what `before` says.
    pub(crate) fn append(&mut self, readings: Vec<Reading>, now: i64, before: Before<'_>) -> Left {
        let mut left = Left::default();
        for reading in readings {
            if reading.at <= now.saturating_sub(self.bounds.millis_max) {
                left.too_old += 1;
            } else if !self.put(&reading, before) {
                left.series_full += 1;
            }
        }
        if self.bytes > self.bounds.bytes_max {
            self.make_room();
        }
        left
    }

    /// When the last sample in memory of a series is, in milliseconds since 1970.
    pub(crate) fn last_at(&self, labels: &Labels) -> Option<i64> {
        self.ids.get(labels).and_then(|id| self.entries.get(id)?.last()).map(|last| last.at)
    }

    fn put(&mut self, reading: &Reading, known_before: Before<'_>) -> bool {
        let id = match self.ids.get(&reading.labels) {
            Some(id) => *id,
            None if self.ids.len() >= self.bounds.series_max => return false,
            None => self.begin(reading.labels.clone()),
        };
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        let base = if reading.is_added { entry.last().or_else(|| known_before(&reading.labels)) } else { None };
        let point = base.map_or_else(|| reading.point.clone(), |base| added(&base.point, &reading.point));
        let before = (entry.bytes(), entry.len());
        entry.put(Sample { at: reading.at, point });
        self.unfiled_bytes += entry.bytes().saturating_sub(before.0);
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
        let mut ends: Vec<(i64, usize)> = self.entries.values().flat_map(Entry::ends).collect();
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
        if self.is_cutting {
            return;
        }
        let mut empty = Vec::new();
        for (id, entry) in &mut self.entries {
            let before = (entry.bytes(), entry.len());
            if let Some(forgotten) = entry.forget(until, self.bounds.is_filed) {
                self.whole_after = self.whole_after.max(forgotten);
            }
            self.bytes = (self.bytes + entry.bytes()).saturating_sub(before.0);
            self.samples = (self.samples + entry.len()).saturating_sub(before.1);
            if entry.len() == 0 {
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

    /// Takes what is in no file. It counts as filed from now on; nothing is forgotten until [`Self::settle`] or [`Self::undo`].
    pub(crate) fn cut(&mut self) -> Vec<Unfiled> {
        self.is_cutting = true;
        self.unfiled_bytes = 0;
        let mut all = Vec::new();
        for entry in self.entries.values_mut() {
            let before = entry.bytes();
            all.extend(entry.cut());
            self.bytes = (self.bytes + entry.bytes()).saturating_sub(before);
        }
        all.sort_by(|left, right| {
            left.labels.get(NAME).cmp(right.labels.get(NAME)).then_with(|| left.labels.cmp(&right.labels))
        });
        all
    }

    /// What was taken is in a file.
    pub(crate) const fn settle(&mut self) {
        self.is_cutting = false;
    }

    /// Takes back that something counts as filed, because it could not be written.
    pub(crate) fn undo(&mut self, all: Vec<Unfiled>) {
        self.is_cutting = false;
        for unfiled in all {
            self.unfiled_bytes += unfiled.bytes();
            if let Some(entry) = self.ids.get(&unfiled.labels).and_then(|id| self.entries.get_mut(id)) {
                entry.undo(unfiled);
            }
        }
    }

    /// About how many bytes are in no file.
    pub(crate) const fn unfiled_bytes(&self) -> usize {
        self.unfiled_bytes
    }

    /// After this time all that came is in memory. Milliseconds since 1970.
    pub(crate) const fn whole_after(&self) -> i64 {
        self.whole_after
    }

    /// Says that there are samples up to a time that are not in memory.
    pub(crate) fn begins_after(&mut self, time: i64) {
        self.whole_after = self.whole_after.max(time);
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
        Store::new(Bounds { bytes_max, series_max: 10, millis_max: HOUR, is_filed: false })
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
            store.append(vec![reading("m", "a", *at, *at as f64)], 500_000, &|_| None);
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
            store.append(vec![Reading { is_added: true, ..reading("m", "a", at, 2.0) }], 300, &|_| None);
        }
        assert_eq!(found(&store, "m", 298, 299), [(299, 600.0)]);
    }

    #[test]
    fn the_oldest_go_first_and_series_with_them() {
        let mut store = store(20_000);
        store.append(vec![reading("old", "a", 1, 1.0)], 1, &|_| None);
        for at in 2..20_000 {
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            store.append(vec![reading("new", "a", at * 10, (at as f64).sin())], at * 10, &|_| None);
        }
        assert!(store.bytes() <= 20_000, "{}", store.bytes());
        assert_eq!(store.series(), 1);
        assert!(found(&store, "new", 199_980, 200_000).len() == 1);
        store.forget_old(200_000 + HOUR);
        assert_eq!((store.series(), store.samples(), store.bytes()), (0, 0, 0));
        let left = store.append(vec![reading("late", "a", 1, 1.0)], 200_000 + HOUR, &|_| None);
        assert_eq!(left.too_old, 1);
    }

    #[test]
    fn series_beyond_the_limit_are_refused_and_counted() {
        let mut store = store(1 << 20);
        for mode in 0..12 {
            let left = store.append(vec![reading("m", &mode.to_string(), 1, 1.0)], 1, &|_| None);
            assert_eq!(left.series_full, u64::from(mode >= 10));
        }
    }
}
