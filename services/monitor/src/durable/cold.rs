//! Questions to files. Blocks; each question is bounded by rows and by time, and ends when nobody waits for it.
//!
//! A search looks at row groups from the newest time on. It reads the columns that its conditions need, notes the places
//! of the rows that are meant, and reads whole rows only of those that go into the answer.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{Array as _, AsArray as _, BooleanArray, RecordBatch};
use arrow::datatypes::Int32Type;
use arrow::error::ArrowError;

use super::columns::{
    ATTRIBUTES, BODY, INSTANCE, LEVEL, RESOURCE, Rows, SEQUENCE, SERVICE, TIME, TRACE, columns_of, level_of_word,
    line_in_part, pairs, text_at,
};
use super::file::{Condition, Group, Sheet};
use super::{columns, unreadable};
use crate::error::Error;
use crate::grammar::{Expression, Part, Value};
use crate::graph::Graph;
use crate::model::{Kept, LineFilter, Nanos, Needle, Span, SpanId, TraceFilter, TraceId};
use crate::tallies::Tallies;
use crate::tier::{Limit, LineCursor};

/// What one question may cost, and what it has cost.
#[derive(Debug)]
pub(crate) struct Question {
    rows: AtomicU64,
    rows_max: u64,
    wait: Duration,
    until: Instant,
    is_dropped: AtomicBool,
}

impl Question {
    /// A question that looks at no more than so many rows, for no longer than that.
    pub(crate) fn new(rows_max: u64, wait: Duration) -> Self {
        let until = Instant::now() + wait;
        Self { rows: AtomicU64::new(0), rows_max, wait, until, is_dropped: AtomicBool::new(false) }
    }

    /// Whoever waits for the answer holds this; when it is dropped the question ends.
    pub(crate) const fn held(self: Arc<Self>) -> Held {
        Held(self)
    }

    /// Says that so many more rows are looked at.
    pub(crate) fn look(&self, rows: u64) -> Result<(), Error> {
        let looked_at = self.rows.fetch_add(rows, Ordering::Relaxed).saturating_add(rows);
        if looked_at > self.rows_max {
            return Err(Error::QueryTooCostly(self.rows_max));
        }
        if self.is_dropped.load(Ordering::Relaxed) || Instant::now() >= self.until {
            return Err(Error::QueryTooSlow(self.wait));
        }
        Ok(())
    }
}

/// Somebody waits for the answer.
#[derive(Debug)]
pub(crate) struct Held(Arc<Question>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.is_dropped.store(true, Ordering::Relaxed);
    }
}

/// Which lines of files are asked for, beside the filter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    /// Only those before this place.
    pub(crate) before: Option<LineCursor>,
    /// Only those behind this place: memory was searched no further.
    pub(crate) floor: Option<LineCursor>,
    /// Only those with a smaller sequence number: memory has the rest.
    pub(crate) below: u64,
}

impl Range {
    fn admits(&self, at: LineCursor) -> bool {
        at.sequence < self.below
            && self.before.is_none_or(|before| at < before)
            && self.floor.is_none_or(|floor| floor < at)
    }

    fn overlaps(&self, filter: &LineFilter, time_min: Nanos, time_max: Nanos, first: u64) -> bool {
        first < self.below
            && self.before.is_none_or(|before| time_min <= before.time)
            && self.floor.is_none_or(|floor| floor.time <= time_max)
            && filter.start.is_none_or(|start| start <= time_max)
            && filter.end.is_none_or(|end| time_min < end)
    }
}

/// Whether a file may hold lines that are asked for.
pub(crate) fn may_have_lines(sheets: &[Arc<Sheet>], filter: &LineFilter, range: Range) -> bool {
    sheets.iter().any(|sheet| {
        let entry = &sheet.entry;
        range.overlaps(filter, entry.time_min, entry.time_max, entry.first)
    })
}

/// A line that is meant, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    at: LineCursor,
    sheet: usize,
    group: usize,
}

/// Searches lines, newest first; at most one more than the limit.
pub(crate) fn search_lines(
    sheets: &[Arc<Sheet>],
    filter: &LineFilter,
    range: Range,
    limit: Limit,
    question: &Question,
) -> Result<Vec<Kept>, Error> {
    let mut newest: BTreeSet<Found> = BTreeSet::new();
    for (sheet, group) in groups(sheets, filter, range)? {
        let is_full = newest.len() > limit.records_max;
        if is_full && newest.first().is_some_and(|oldest| group.time_max < oldest.at.time) {
            break;
        }
        question.look(group.rows)?;
        let conditions = conditions(filter);
        let read = sheets[sheet].read(vec![group.place], Some(&[TIME, SEQUENCE]), conditions).map_err(unreadable)?;
        for batch in read {
            let rows = Rows::new(&batch).map_err(unreadable)?;
            for row in 0..batch.num_rows() {
                let time = rows.time(TIME, row).map_err(unreadable)?;
                let sequence = rows.number(SEQUENCE, row).map_err(unreadable)?;
                let at = LineCursor { time, sequence };
                if range.admits(at) {
                    newest.insert(Found { at, sheet, group: group.place });
                    if newest.len() > limit.records_max + 1 {
                        newest.pop_first();
                    }
                }
            }
        }
    }
    whole_lines(sheets, &newest, limit, question)
}

/// Searches lines behind a place and with sequence numbers below one, oldest first.
pub(crate) fn lines_after(
    sheets: &[Arc<Sheet>],
    filter: &LineFilter,
    after: LineCursor,
    below: u64,
    limit: Limit,
    question: &Question,
) -> Result<Vec<Kept>, Error> {
    let range = Range { before: None, floor: Some(after), below };
    let filter = LineFilter { start: Some(filter.start.unwrap_or_default().max(after.time)), ..filter.clone() };
    let mut oldest: BTreeSet<Found> = BTreeSet::new();
    let mut groups = groups(sheets, &filter, range)?;
    groups.sort_by_key(|(_, group)| group.time_min);
    for (sheet, group) in groups {
        let is_full = oldest.len() >= limit.records_max;
        if is_full && oldest.last().is_some_and(|newest| newest.at.time < group.time_min) {
            break;
        }
        question.look(group.rows)?;
        let read = sheets[sheet].read(vec![group.place], Some(&[TIME, SEQUENCE]), conditions(&filter));
        for batch in read.map_err(unreadable)? {
            let rows = Rows::new(&batch).map_err(unreadable)?;
            for row in 0..batch.num_rows() {
                let time = rows.time(TIME, row).map_err(unreadable)?;
                let at = LineCursor { time, sequence: rows.number(SEQUENCE, row).map_err(unreadable)? };
                if range.admits(at) {
                    oldest.insert(Found { at, sheet, group: group.place });
                    if oldest.len() > limit.records_max {
                        oldest.pop_last();
                    }
                }
            }
        }
    }
    let mut lines = whole_lines(sheets, &oldest, limit, question)?;
    lines.reverse();
    Ok(lines)
}

/// The row groups that may hold lines that are asked for, the newest first.
fn groups(sheets: &[Arc<Sheet>], filter: &LineFilter, range: Range) -> Result<Vec<(usize, Group)>, Error> {
    let mut found = Vec::new();
    for (place, sheet) in sheets.iter().enumerate() {
        let entry = &sheet.entry;
        if !range.overlaps(filter, entry.time_min, entry.time_max, entry.first) {
            continue;
        }
        let of_trace = filter.trace_id.map(|id| sheet.groups_of_trace(&id.to_string())).transpose();
        let of_trace = of_trace.map_err(unreadable)?;
        let groups = sheet.groups().map_err(unreadable)?.into_iter().filter(|group| {
            range.overlaps(filter, group.time_min, group.time_max, group.first)
                && of_trace.as_ref().is_none_or(|places| places.contains(&group.place))
        });
        found.extend(groups.map(|group| (place, group)));
    }
    found.sort_by_key(|(_, group)| std::cmp::Reverse(group.time_max));
    Ok(found)
}

/// Reads whole lines, newest first, until their bytes are beyond the limit.
fn whole_lines(
    sheets: &[Arc<Sheet>],
    newest: &BTreeSet<Found>,
    limit: Limit,
    question: &Question,
) -> Result<Vec<Kept>, Error> {
    let mut places: BTreeMap<(usize, usize), HashSet<u64>> = BTreeMap::new();
    for found in newest {
        places.entry((found.sheet, found.group)).or_default().insert(found.at.sequence);
    }
    let mut lines = Vec::with_capacity(newest.len());
    for ((sheet, group), sequences) in places {
        question.look(0)?;
        let condition = rows_where(&[SEQUENCE], move |rows, row| Ok(sequences.contains(&rows.number(SEQUENCE, row)?)));
        for batch in sheets[sheet].read(vec![group], None, vec![condition]).map_err(unreadable)? {
            lines.extend(columns::lines(&batch).map_err(unreadable)?);
        }
    }
    lines.sort_by_key(|kept| std::cmp::Reverse((kept.line.time, kept.sequence)));
    let mut bytes = 0;
    // The first that is beyond the limit stays, so that whoever cuts knows that there is more.
    let fitting = lines.iter().take_while(|kept| {
        let fits = bytes <= limit.bytes_max;
        bytes += kept.line.bytes();
        fits
    });
    let fitting = fitting.count();
    lines.truncate(fitting);
    Ok(lines)
}

/// All lines of a trace.
pub(crate) fn lines_of_trace(sheets: &[Arc<Sheet>], id: TraceId, question: &Question) -> Result<Vec<Kept>, Error> {
    let mut lines = Vec::new();
    of_trace(sheets, id, question, |batch| {
        lines.extend(columns::lines(batch)?);
        Ok(())
    })?;
    Ok(lines)
}

/// All spans of a trace.
pub(crate) fn spans_of_trace(sheets: &[Arc<Sheet>], id: TraceId, question: &Question) -> Result<Vec<Span>, Error> {
    let mut spans = Vec::new();
    of_trace(sheets, id, question, |batch| {
        spans.extend(columns::spans(batch)?);
        Ok(())
    })?;
    Ok(spans)
}

fn of_trace(
    sheets: &[Arc<Sheet>],
    id: TraceId,
    question: &Question,
    mut give: impl FnMut(&RecordBatch) -> Result<(), ArrowError>,
) -> Result<(), Error> {
    let text = id.to_string();
    for sheet in sheets {
        question.look(0)?;
        let groups = sheet.groups_of_trace(&text).map_err(unreadable)?;
        if groups.is_empty() {
            continue;
        }
        let known = sheet.groups().map_err(unreadable)?;
        question.look(known.iter().filter(|group| groups.contains(&group.place)).map(|group| group.rows).sum())?;
        let condition = is_of_trace(text.clone());
        for batch in sheet.read(groups, None, vec![condition]).map_err(unreadable)? {
            give(&batch).map_err(unreadable)?;
        }
    }
    Ok(())
}

/// What a filter asks of rows, the cheapest and the narrowest first.
fn conditions(filter: &LineFilter) -> Vec<Condition> {
    let mut conditions = Vec::new();
    if let Some(id) = filter.trace_id {
        conditions.push(is_of_trace(id.to_string()));
    }
    if let Some(service) = filter.service.clone() {
        conditions.push(words_where(SERVICE, move |word| word == service));
    }
    if let Some(instance) = filter.instance_id.clone() {
        conditions.push(words_where(INSTANCE, move |word| word == instance));
    }
    if filter.level > crate::model::Level::Unknown {
        let level = filter.level;
        conditions.push(words_where(LEVEL, move |word| level <= level_of_word(word)));
    }
    if filter.start.is_some() || filter.end.is_some() {
        let (start, end) = (filter.start, filter.end);
        conditions.push(rows_where(&[TIME], move |rows, row| {
            let time = rows.time(TIME, row)?;
            Ok(start.is_none_or(|start| start <= time) && end.is_none_or(|end| time < end))
        }));
    }
    if let Some(needle) = filter.text.clone() {
        conditions.push(has_text(needle));
    }
    if let Some(query) = filter.query.clone() {
        let mut slow = Vec::new();
        of_expression(query, &mut conditions, &mut slow);
        conditions.extend(slow);
    }
    conditions
}

/// Takes an expression apart: what is asked of words is looked at before what is asked of texts.
fn of_expression(query: Expression, quick: &mut Vec<Condition>, slow: &mut Vec<Condition>) {
    match query {
        Expression::All(parts) => parts.into_iter().for_each(|part| of_expression(part, quick, slow)),
        Expression::Text(needle) => slow.push(has_text(needle)),
        Expression::Field(_, comparison, Value::Level(level)) => {
            quick.push(words_where(LEVEL, move |word| comparison.admits(level_of_word(word).cmp(&level))));
        }
        Expression::Field(name, comparison, value) if Part::of_field(&name) == Part::Service => {
            quick.push(words_where(SERVICE, move |word| value.admits(comparison, word)));
        }
        Expression::Field(name, comparison, value) if Part::of_field(&name) == Part::Instance => {
            quick.push(words_where(INSTANCE, move |word| value.admits(comparison, word)));
        }
        other => {
            let mut parts = BTreeSet::new();
            other.looks_at(&mut parts);
            if parts.is_empty() {
                // A condition needs a column; this one is the cheapest.
                parts.insert(Part::Level);
            }
            let columns = columns_of(&parts);
            slow.push(rows_where(&columns, move |rows, row| Ok(other.admits(&line_in_part(rows, row, &parts)?))));
        }
    }
}

/// Counts lines with sequence numbers below one.
pub(crate) fn count_lines(
    sheets: &[Arc<Sheet>],
    filter: &LineFilter,
    below: u64,
    mut tallies: Tallies,
    question: &Question,
) -> Result<Tallies, Error> {
    let mut parts: BTreeSet<Part> = tallies.fields().map(Part::of_field).collect();
    parts.extend([Part::Time, Part::Level]);
    let mut columns = columns_of(&parts);
    columns.push(SEQUENCE);
    for (sheet, group) in groups(sheets, filter, Range { before: None, floor: None, below })? {
        question.look(group.rows)?;
        let read = sheets[sheet].read(vec![group.place], Some(&columns), conditions(filter)).map_err(unreadable)?;
        for batch in read {
            let rows = Rows::new(&batch).map_err(unreadable)?;
            for row in 0..batch.num_rows() {
                if rows.number(SEQUENCE, row).map_err(unreadable)? < below {
                    tallies.add(&line_in_part(&rows, row, &parts).map_err(unreadable)?);
                }
            }
        }
    }
    Ok(tallies)
}

/// The traces of spans that are looked for, of the newest files first; at most so many.
pub(crate) fn traces_with(
    sheets: &[Arc<Sheet>],
    filter: &TraceFilter,
    traces_max: usize,
    question: &Question,
) -> Result<HashSet<TraceId>, Error> {
    let mut found = HashSet::new();
    for sheet in sheets.iter().rev().filter(|sheet| is_within(sheet, filter.start, filter.end)) {
        for group in sheet.groups().map_err(unreadable)? {
            question.look(group.rows)?;
            let mut conditions = Vec::new();
            if let Some(name) = filter.operation.clone() {
                conditions.push(words_where("name", move |word| word == name));
            }
            if let Some(service) = filter.service.clone() {
                conditions.push(words_where(SERVICE, move |word| word == service));
            }
            for batch in sheet.read(vec![group.place], None, conditions).map_err(unreadable)? {
                let spans = columns::spans(&batch).map_err(unreadable)?;
                found.extend(spans.iter().filter(|span| filter.admits_span(span)).map(|span| span.trace_id));
            }
            if found.len() >= traces_max {
                return Ok(found);
            }
        }
    }
    Ok(found)
}

fn is_within(sheet: &Sheet, start: Option<Nanos>, end: Option<Nanos>) -> bool {
    start.is_none_or(|start| start <= sheet.entry.time_max) && end.is_none_or(|end| sheet.entry.time_min < end)
}

/// Adds the spans of a time to a graph, of the newest files first.
pub(crate) fn graph(
    sheets: &[Arc<Sheet>],
    (start, end): (Option<Nanos>, Option<Nanos>),
    mut graph: Graph,
    question: &Question,
) -> Result<Graph, Error> {
    const COLUMNS: [&str; 7] = [TRACE, "span_id", "parent_span_id", SERVICE, TIME, "end", "failed"];
    for sheet in sheets.iter().rev().filter(|sheet| is_within(sheet, start, end)) {
        for group in sheet.groups().map_err(unreadable)? {
            question.look(group.rows)?;
            for batch in sheet.read(vec![group.place], Some(&COLUMNS), Vec::new()).map_err(unreadable)? {
                if !add_calls(&batch, (start, end), &mut graph).map_err(unreadable)? {
                    return Ok(graph);
                }
            }
        }
    }
    Ok(graph)
}

fn add_calls(
    batch: &RecordBatch,
    (start, end): (Option<Nanos>, Option<Nanos>),
    graph: &mut Graph,
) -> Result<bool, ArrowError> {
    let rows = Rows::new(batch)?;
    for row in 0..batch.num_rows() {
        let (began, ended) = (rows.time(TIME, row)?, rows.time("end", row)?);
        let ids = TraceId::parse(rows.text(TRACE, row)?).zip(SpanId::parse(rows.text("span_id", row)?));
        let is_meant = start.is_none_or(|start| start <= began) && end.is_none_or(|end| began < end);
        let Some((trace, id)) = ids.filter(|_| is_meant) else { continue };
        let parent = SpanId::parse(rows.text("parent_span_id", row)?);
        let has_room =
            graph.call(trace, id, parent, rows.text(SERVICE, row)?, (began, ended), rows.flag("failed", row)?);
        if !has_room {
            return Ok(false);
        }
    }
    Ok(true)
}

fn has_text(needle: Needle) -> Condition {
    rows_where(&[BODY, ATTRIBUTES, RESOURCE], move |rows, row| {
        let has = |object: &str| object != "{}" && pairs(object).iter().any(|(_, value)| needle.is_in(value));
        Ok(needle.is_in(rows.text(BODY, row)?) || has(rows.text(ATTRIBUTES, row)?) || has(rows.text(RESOURCE, row)?))
    })
}

fn is_of_trace(id: String) -> Condition {
    rows_where(&[TRACE], move |rows, row| Ok(rows.text(TRACE, row)? == id))
}

fn rows_where(
    columns: &[&'static str],
    is_meant: impl Fn(&Rows, usize) -> Result<bool, ArrowError> + Send + Sync + 'static,
) -> Condition {
    let test = move |batch: &RecordBatch| {
        let rows = Rows::new(batch)?;
        (0..batch.num_rows()).map(|row| is_meant(&rows, row).map(Some)).collect::<Result<BooleanArray, _>>()
    };
    Condition { columns: columns.to_vec(), test: Box::new(test) }
}

/// A condition on a column of words; each word is looked at once.
fn words_where(column: &'static str, is_meant: impl Fn(&str) -> bool + Send + Sync + 'static) -> Condition {
    let test = move |batch: &RecordBatch| {
        let words = batch.column(0);
        let Some(dictionary) = words.as_dictionary_opt::<Int32Type>() else {
            let meant = |row| Some(text_at(words, row).is_some_and(&is_meant));
            return Ok((0..batch.num_rows()).map(meant).collect());
        };
        let values = dictionary.values();
        let meant: Vec<bool> = (0..values.len()).map(|place| text_at(values, place).is_some_and(&is_meant)).collect();
        let of_key = |key: &i32| usize::try_from(*key).ok().and_then(|place| meant.get(place)).copied();
        Ok(dictionary.keys().values().iter().map(|key| Some(of_key(key).unwrap_or(false))).collect())
    };
    Condition { columns: vec![column], test: Box::new(test) }
}
