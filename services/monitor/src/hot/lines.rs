//! Log lines in memory, by arrival, by time and by trace. Pure.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use crate::model::{Kept, Line, LineFilter, TraceId};
use crate::tier::{Followed, Limit, LineCursor, Lines, Page, Tally};

/// What the indexes and the allocator take for a line, beside its own bytes; measured by eye, on the safe side.
const INDEX_BYTES: usize = 160;

/// Log lines within a number of bytes; the first to come is the first to go.
#[derive(Debug)]
pub(crate) struct Store {
    /// Sequence numbers without gaps: the place of a line is its number less that of the first.
    arrived: VecDeque<Arc<Kept>>,
    timed: BTreeMap<LineCursor, Arc<Kept>>,
    traced: HashMap<TraceId, VecDeque<Arc<Kept>>>,
    /// Numbers of lines that were deleted; an empty line holds the place of each.
    deleted: HashSet<u64>,
    newest: u64,
    /// Lines up to this number are in files, and may be forgotten here. All, where there are no files.
    filed: u64,
    bytes: usize,
    bytes_max: usize,
    /// What is kept, for the answer.
    pub(crate) tally: Tally,
}

impl Store {
    /// Makes an empty store.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let tally = Tally { bytes_max: bytes_max as u64, ..Tally::default() };
        Self {
            arrived: VecDeque::new(),
            timed: BTreeMap::new(),
            traced: HashMap::new(),
            deleted: HashSet::new(),
            newest: 0,
            filed: u64::MAX,
            bytes: 0,
            bytes_max,
            tally,
        }
    }

    /// Goes on after a sequence number; lines are held until they are in files.
    pub(crate) fn resume(&mut self, newest: u64) {
        self.newest = newest;
        self.filed = newest;
    }

    /// The sequence number of the oldest line that is here; of the next to come where none is.
    pub(crate) fn first(&self) -> u64 {
        self.arrived.front().map_or(self.newest + 1, |kept| kept.sequence)
    }

    /// The sequence number of the newest line.
    pub(crate) const fn newest(&self) -> u64 {
        self.newest
    }

    /// Says that lines up to a sequence number are in files.
    pub(crate) fn filed_through(&mut self, sequence: u64) {
        self.filed = sequence;
        self.forget_beyond();
    }

    fn forget_beyond(&mut self) {
        while self.bytes > self.bytes_max && self.arrived.front().is_some_and(|kept| kept.sequence <= self.filed) {
            self.forget_oldest();
        }
        self.tally.records = self.arrived.len() as u64;
        self.tally.bytes = self.bytes as u64;
    }

    /// Takes lines in, and forgets the oldest beyond the limit. Answers them with their sequence numbers.
    pub(crate) fn append(&mut self, lines: Vec<Line>) -> Vec<Arc<Kept>> {
        let mut taken = Vec::with_capacity(lines.len());
        for line in lines {
            self.newest += 1;
            self.tally.received += 1;
            self.bytes += cost(&line);
            let kept = Arc::new(Kept { sequence: self.newest, line });
            if let Some(id) = kept.line.trace_id {
                self.traced.entry(id).or_default().push_back(kept.clone());
            }
            self.timed.insert(cursor(&kept), kept.clone());
            self.arrived.push_back(kept.clone());
            taken.push(kept);
            if self.bytes > self.bytes_max {
                self.forget_beyond();
            }
        }
        self.forget_beyond();
        taken
    }

    fn forget_oldest(&mut self) {
        let Some(kept) = self.arrived.pop_front() else { return };
        self.bytes -= cost(&kept.line);
        if self.deleted.remove(&kept.sequence) {
            return;
        }
        self.tally.forgotten += 1;
        self.timed.remove(&cursor(&kept));
        if let Some(id) = kept.line.trace_id
            && let Some(of_trace) = self.traced.get_mut(&id)
        {
            // The oldest of all is the oldest of its trace.
            of_trace.pop_front();
            if of_trace.is_empty() {
                self.traced.remove(&id);
            }
        }
    }

    /// Deletes the lines up to a sequence number that are meant; answers how many.
    pub(crate) fn delete(&mut self, filter: &LineFilter, through: u64) -> u64 {
        let mut count = 0;
        for kept in self.arrived.iter_mut().take_while(|kept| kept.sequence <= through) {
            if self.deleted.contains(&kept.sequence) || !filter.admits(&kept.line) {
                continue;
            }
            self.timed.remove(&cursor(kept));
            if let Some(id) = kept.line.trace_id
                && let Some(of_trace) = self.traced.get_mut(&id)
            {
                of_trace.retain(|known| known.sequence != kept.sequence);
                if of_trace.is_empty() {
                    self.traced.remove(&id);
                }
            }
            let empty = Kept { sequence: kept.sequence, line: Line::default() };
            self.bytes = self.bytes - cost(&kept.line) + cost(&empty.line);
            self.deleted.insert(kept.sequence);
            *kept = Arc::new(empty);
            count += 1;
        }
        self.tally.bytes = self.bytes as u64;
        count
    }

    /// Looks at up to `step` lines, newest first, and puts those that are meant into `found`. Answers whether the search
    /// is at its end.
    pub(crate) fn search(&self, filter: &LineFilter, found: &mut Search, step: usize) -> bool {
        if let Some(id) = filter.trace_id {
            return self.search_trace(id, filter, found);
        }
        let end = filter.end.map(|time| LineCursor { time, sequence: 0 });
        let before = match (found.before, end) {
            (Some(before), Some(end)) => Some(before.min(end)),
            (before, end) => before.or(end),
        };
        let older = match before {
            Some(before) => self.timed.range(..before),
            None => self.timed.range(..),
        };
        for (looked_at, (place, kept)) in older.rev().enumerate() {
            if filter.start.is_some_and(|start| place.time < start) {
                return true;
            }
            if looked_at == step {
                return false;
            }
            if filter.admits(&kept.line) && !found.take(kept) {
                return true;
            }
            found.before = Some(*place);
        }
        true
    }

    /// Looks at up to `step` lines after a place, oldest first, and puts those that are meant into `found`. Answers where to
    /// go on; `None` at the end, or when there are enough.
    pub(crate) fn search_after(
        &self,
        filter: &LineFilter,
        after: LineCursor,
        found: &mut Vec<Arc<Kept>>,
        limit: Limit,
        step: usize,
    ) -> Option<LineCursor> {
        let mut last = after;
        for (place, kept) in self.timed.range((Bound::Excluded(after), Bound::Unbounded)).take(step) {
            last = *place;
            if filter.admits(&kept.line) {
                found.push(kept.clone());
            }
            if found.len() >= limit.records_max {
                return None;
            }
        }
        Some(last).filter(|last| *last != after)
    }

    fn search_trace(&self, id: TraceId, filter: &LineFilter, found: &mut Search) -> bool {
        let mut lines = self.trace(id);
        lines.retain(|kept| found.before.is_none_or(|before| cursor(kept) < before) && filter.admits(&kept.line));
        lines.sort_by_key(|kept| std::cmp::Reverse(cursor(kept)));
        for kept in &lines {
            if !found.take(kept) {
                break;
            }
            found.before = Some(cursor(kept));
        }
        true
    }

    /// Reads lines as they came in, after a sequence number.
    pub(crate) fn follow(&self, filter: &LineFilter, after: u64, limit: Limit, step: usize) -> Followed {
        let first = self.first();
        let missed = first.saturating_sub(after.saturating_add(1));
        let skipped = after.saturating_add(1).saturating_sub(first);
        let mut followed = Followed { missed, through: after.saturating_add(missed), ..Followed::default() };
        let mut bytes = 0;
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX).min(self.arrived.len());
        for kept in self.arrived.range(skipped..).take(step) {
            if !self.deleted.contains(&kept.sequence) && filter.admits(&kept.line) {
                bytes += kept.line.bytes();
                let is_full = followed.records.len() == limit.records_max || bytes > limit.bytes_max;
                if is_full && !followed.records.is_empty() {
                    break;
                }
                followed.records.push(kept.clone());
            }
            followed.through = kept.sequence;
        }
        followed
    }

    /// All lines of a trace, as they came in.
    pub(crate) fn trace(&self, id: TraceId) -> Vec<Arc<Kept>> {
        self.traced.get(&id).map(|lines| lines.iter().cloned().collect()).unwrap_or_default()
    }
}

/// A search under way.
#[derive(Debug)]
pub(crate) struct Search {
    before: Option<LineCursor>,
    limit: Limit,
    bytes: usize,
    records: Vec<Arc<Kept>>,
    is_cut_off: bool,
}

impl Search {
    /// Begins a search.
    pub(crate) fn new(before: Option<LineCursor>, limit: Limit) -> Self {
        Self { before, limit, bytes: 0, records: Vec::new(), is_cut_off: false }
    }

    /// Takes a line if there is room for it; answers whether there was.
    fn take(&mut self, kept: &Arc<Kept>) -> bool {
        let bytes = self.bytes + kept.line.bytes();
        let is_full = self.records.len() >= self.limit.records_max || bytes > self.limit.bytes_max;
        if is_full && !self.records.is_empty() {
            self.is_cut_off = true;
            return false;
        }
        self.bytes = bytes;
        self.records.push(kept.clone());
        true
    }

    /// The lines that were found, and where to go on.
    pub(crate) fn into_page(self) -> Lines {
        let next = self.records.last().filter(|_| self.is_cut_off).map(|kept| cursor(kept));
        Page { records: self.records, next }
    }
}

fn cursor(kept: &Kept) -> LineCursor {
    LineCursor { time: kept.line.time, sequence: kept.sequence }
}

fn cost(line: &Line) -> usize {
    line.bytes() + INDEX_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Level, Nanos};

    const ALL: Limit = Limit { records_max: 1000, bytes_max: usize::MAX };

    fn line(time: u64, body: &str) -> Line {
        Line { time: Nanos(time), body: body.to_owned(), trace_id: TraceId::from_bytes(&[1; 16]), ..Line::default() }
    }

    fn bodies(store: &Store, filter: &LineFilter) -> Vec<String> {
        let mut found = Search::new(None, ALL);
        while !store.search(filter, &mut found, 2) {}
        found.into_page().records.iter().map(|kept| kept.line.body.clone()).collect()
    }

    #[test]
    fn lines_are_found_newest_first_whatever_the_order_of_arrival() {
        let mut store = Store::new(1 << 20);
        store.append(vec![line(3, "c"), line(1, "a"), line(4, "d"), line(2, "b"), line(4, "e")]);
        assert_eq!(bodies(&store, &LineFilter::default()), ["e", "d", "c", "b", "a"]);
        let middle = LineFilter { start: Some(Nanos(2)), end: Some(Nanos(4)), ..LineFilter::default() };
        assert_eq!(bodies(&store, &middle), ["c", "b"]);
        let grave = LineFilter { level: Level::Warn, ..LineFilter::default() };
        assert!(bodies(&store, &grave).is_empty());
        let of_trace = LineFilter { trace_id: TraceId::from_bytes(&[1; 16]), ..middle };
        assert_eq!(bodies(&store, &of_trace), ["c", "b"]);
    }

    #[test]
    fn the_first_to_come_is_the_first_to_go_and_every_index_forgets_it() {
        let room = 10 * cost(&line(0, "x"));
        let mut store = Store::new(room);
        for time in 0..100 {
            store.append(vec![line(100 - time, "x")]);
            assert!(store.bytes <= room);
        }
        assert_eq!((store.arrived.len(), store.timed.len()), (10, 10));
        assert_eq!(store.traced.values().map(VecDeque::len).sum::<usize>(), 10);
        assert_eq!((store.tally.received, store.tally.forgotten, store.tally.records), (100, 90, 10));
        store.append(vec![Line { body: "y".repeat(room), ..line(0, "") }]);
        assert!(store.arrived.is_empty() && store.timed.is_empty() && store.traced.is_empty());
        assert_eq!((store.bytes, store.tally.bytes), (0, 0));
    }

    #[test]
    fn a_follower_is_told_what_it_missed_and_reads_the_rest() {
        let mut store = Store::new(3 * cost(&line(0, "x")));
        assert_eq!(store.follow(&LineFilter::default(), 0, ALL, 10), Followed::default());
        store.append((1..=8).map(|time| line(time, "x")).collect());
        let followed = store.follow(&LineFilter::default(), 2, ALL, 10);
        assert_eq!((followed.missed, followed.through, followed.records.len()), (3, 8, 3));
        let followed = store.follow(&LineFilter::default(), 6, ALL, 1);
        assert_eq!((followed.missed, followed.through, followed.records.len()), (0, 7, 1));
        let at_the_end = store.follow(&LineFilter::default(), 8, ALL, 10);
        assert_eq!((at_the_end.missed, at_the_end.through, at_the_end.records.len()), (0, 8, 0));
    }

    #[test]
    fn what_is_deleted_is_found_by_nobody_and_its_place_stays() {
        let room = 8 * cost(&line(0, "xx"));
        let mut store = Store::new(room);
        store.append((1..=6).map(|time| line(time, if time % 2 == 0 { "ab" } else { "cd" })).collect());
        let doomed = LineFilter { text: Some(crate::model::Needle::new("a")), ..LineFilter::default() };
        assert_eq!((store.delete(&doomed, 4), store.delete(&doomed, 4)), (2, 0), "those up to the fourth, once");
        assert_eq!(bodies(&store, &LineFilter::default()), ["ab", "cd", "cd", "cd"]);
        assert_eq!(store.trace(TraceId::from_bytes(&[1; 16]).unwrap()).len(), 4);
        let followed = store.follow(&LineFilter::default(), 0, ALL, 10);
        assert_eq!((followed.missed, followed.through, followed.records.len()), (0, 6, 4));
        store.append((7..=60).map(|time| line(time, "xx")).collect());
        assert!(store.deleted.is_empty() && store.bytes <= room, "{} bytes", store.bytes);
        assert_eq!(store.tally.forgotten + store.tally.records + 2, store.tally.received);
    }
}
