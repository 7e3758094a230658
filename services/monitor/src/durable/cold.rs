//! Questions to files. Blocks; each question is bounded by rows and by time, and ends when nobody waits for it.
//!
//! A search looks at pieces of files from the newest time on, of those that the index does not rule out. It reads the
//! columns that its conditions need, notes the places of the rows that are meant, and reads whole rows only of those that
//! go into the answer.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{Array as _, AsArray as _, BooleanArray, RecordBatch};
use arrow::datatypes::Int32Type;
use arrow::error::ArrowError;

use super::columns::{
    ATTRIBUTES, BODY, INSTANCE, LEVEL, NAME, RESOURCE, Rows, SEQUENCE, SERVICE, TIME, TRACE, columns_of, level_of_word,
    line_in_part, pairs, text_at,
};
use super::file::{Condition, Sheet};
use super::need::Need;
use super::reading::{Cost, Piece};
use super::{columns, unreadable};
use crate::error::Error;
use crate::grammar::{Expression, Part, Value};
use crate::graph::Graph;
use crate::model::{Kept, LineFilter, Nanos, Needle, Span, SpanId, TraceFilter, TraceId};
use crate::tier::{Limit, LineCursor};

pub(crate) mod count;
pub(crate) mod each;

/// What one question may cost, and what it has cost.
#[derive(Debug)]
pub(crate) struct Question {
    rows: AtomicU64,
    rows_max: u64,
    wait: Duration,
    until: Instant,
    is_dropped: AtomicBool,
    /// What it read.
    pub(crate) cost: Arc<Cost>,
}

/// Most pieces that are read in one go.
const STEP_MAX: usize = 8;

impl Question {
    /// A question that looks at no more than so many rows, for no longer than that.
    pub(crate) fn new(rows_max: u64, wait: Duration) -> Self {
        let until = Instant::now() + wait;
        Self {
            rows: AtomicU64::new(0),
            rows_max,
            wait,
            until,
            is_dropped: AtomicBool::new(false),
            cost: Arc::default(),
        }
    }

    /// A question of the store itself, which has all the time.
    pub(crate) fn unbounded() -> Self {
        Self::new(u64::MAX, Duration::from_secs(24 * 3600))
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
    piece: usize,
}

/// A piece, and the place of its file among those that are asked.
type Placed = (usize, Piece);

/// Searches lines, newest first; at most one more than the limit.
pub(crate) fn search_lines(
    sheets: &[Arc<Sheet>],
    filter: &LineFilter,
    range: Range,
    limit: Limit,
    question: &Question,
) -> Result<Vec<Kept>, Error> {
    let mut newest: BTreeSet<Found> = BTreeSet::new();
    let mut pieces = pieces(sheets, filter, range, question)?;
    pieces.sort_by_key(|(_, piece)| std::cmp::Reverse(piece.time_max));
    let (mut next, mut step) = (0, 1);
    while let Some((_, piece)) = pieces.get(next) {
        let is_full = newest.len() > limit.records_max;
        if is_full && newest.first().is_some_and(|oldest| piece.time_max < oldest.at.time) {
            break;
        }
        let run = run(&pieces[next..], step);
        find(sheets, run, next, filter, range, question, |found| {
            newest.insert(found);
            if newest.len() > limit.records_max + 1 {
                newest.pop_first();
            }
        })?;
        next += run.len();
        // Who finds little in one piece reads more in one go.
        step = (step * 2).min(STEP_MAX);
    }
    whole_lines(sheets, &pieces, &newest, limit, question)
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
    let mut pieces = pieces(sheets, &filter, range, question)?;
    pieces.sort_by_key(|(_, piece)| piece.time_min);
    for (place, (_, piece)) in pieces.iter().enumerate() {
        let is_full = oldest.len() >= limit.records_max;
        if is_full && oldest.last().is_some_and(|newest| newest.at.time < piece.time_min) {
            break;
        }
        find(sheets, &pieces[place..=place], place, &filter, range, question, |found| {
            oldest.insert(found);
            if oldest.len() > limit.records_max {
                oldest.pop_last();
            }
        })?;
    }
    let mut lines = whole_lines(sheets, &pieces, &oldest, limit, question)?;
    lines.reverse();
    Ok(lines)
}

/// The first of some pieces, and those after it that are of the same row group; at most so many.
fn run(pieces: &[Placed], most: usize) -> &[Placed] {
    let is_near =
        |(sheet, piece): &&Placed| pieces.first().is_some_and(|(first, of)| first == sheet && of.group == piece.group);
    &pieces[..pieces.iter().take(most).take_while(is_near).count()]
}

/// Gives the places of lines of some pieces of one file that are meant; the first of them is the `place`th of all.
fn find(
    sheets: &[Arc<Sheet>],
    run: &[Placed],
    place: usize,
    filter: &LineFilter,
    range: Range,
    question: &Question,
    mut give: impl FnMut(Found),
) -> Result<(), Error> {
    let Some((sheet, _)) = run.first() else { return Ok(()) };
    let some: Vec<Piece> = run.iter().map(|(_, piece)| *piece).collect();
    question.look(some.iter().map(|piece| piece.rows as u64).sum())?;
    let read = sheets[*sheet].read(&some, Some(&[TIME, SEQUENCE]), conditions(filter), &question.cost);
    for batch in read.map_err(unreadable)? {
        let rows = Rows::new(&batch).map_err(unreadable)?;
        for row in 0..batch.num_rows() {
            let time = rows.time(TIME, row).map_err(unreadable)?;
            let at = LineCursor { time, sequence: rows.number(SEQUENCE, row).map_err(unreadable)? };
            if range.admits(at) {
                // Sequence numbers grow over the rows of a file: the last piece that begins before it is the one.
                let of = run.iter().enumerate().filter(|(_, (_, piece))| piece.first <= at.sequence);
                let of = of.max_by_key(|(_, (_, piece))| piece.first).map_or(0, |(of, _)| of);
                give(Found { at, sheet: *sheet, piece: place + of });
            }
        }
    }
    Ok(())
}

/// The pieces that may hold lines that are asked for.
fn pieces(sheets: &[Arc<Sheet>], filter: &LineFilter, range: Range, question: &Question) -> Result<Vec<Placed>, Error> {
    let need = Need::of_lines(filter);
    let mut found = Vec::new();
    for (place, sheet) in sheets.iter().enumerate() {
        let entry = &sheet.entry;
        if !range.overlaps(filter, entry.time_min, entry.time_max, entry.first) {
            continue;
        }
        question.look(0)?;
        let is_meant = |piece: &Piece| range.overlaps(filter, piece.time_min, piece.time_max, piece.first);
        let mut pieces = sheet.pieces(&need, is_meant, &question.cost).map_err(unreadable)?;
        if let Some(id) = filter.trace_id {
            pieces = sheet.of_trace(pieces, &id.to_string(), &question.cost).map_err(unreadable)?;
        }
        found.extend(pieces.into_iter().map(|piece| (place, piece)));
    }
    Ok(found)
}

/// Reads whole lines, newest first, until their bytes are beyond the limit.
fn whole_lines(
    sheets: &[Arc<Sheet>],
    pieces: &[Placed],
    newest: &BTreeSet<Found>,
    limit: Limit,
    question: &Question,
) -> Result<Vec<Kept>, Error> {
    let mut places: BTreeMap<(usize, usize), HashSet<u64>> = BTreeMap::new();
    for found in newest {
        places.entry((found.sheet, found.piece)).or_default().insert(found.at.sequence);
    }
    let mut lines = Vec::with_capacity(newest.len());
    for ((sheet, piece), sequences) in places {
        question.look(0)?;
        let condition = rows_where(&[SEQUENCE], move |rows, row| Ok(sequences.contains(&rows.number(SEQUENCE, row)?)));
        let read = sheets[sheet].read(&[pieces[piece].1], None, vec![condition], &question.cost);
        for batch in read.map_err(unreadable)? {
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
    let (text, need) = (id.to_string(), Need::of_trace(id));
    for sheet in sheets {
        question.look(0)?;
        let pieces = sheet.pieces(&need, |_| true, &question.cost);
        let pieces = pieces.and_then(|pieces| sheet.of_trace(pieces, &text, &question.cost)).map_err(unreadable)?;
        if pieces.is_empty() {
            continue;
        }
        question.look(pieces.iter().map(|piece| piece.rows as u64).sum())?;
        let condition = is_of_trace(text.clone());
        for batch in sheet.read(&pieces, None, vec![condition], &question.cost).map_err(unreadable)? {
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

/// The traces of spans that are looked for, of the newest files first; at most so many.
pub(crate) fn traces_with(
    sheets: &[Arc<Sheet>],
    filter: &TraceFilter,
    traces_max: usize,
    question: &Question,
) -> Result<HashSet<TraceId>, Error> {
    let mut found = HashSet::new();
    let need = Need::of_spans(filter);
    for sheet in sheets.iter().rev().filter(|sheet| is_within(sheet, filter.start, filter.end)) {
        for piece in sheet.pieces(&need, |_| true, &question.cost).map_err(unreadable)? {
            question.look(piece.rows as u64)?;
            let mut conditions = Vec::new();
            if let Some(name) = filter.operation.clone() {
                conditions.push(words_where(NAME, move |word| word == name));
            }
            if let Some(service) = filter.service.clone() {
                conditions.push(words_where(SERVICE, move |word| word == service));
            }
            for batch in sheet.read(&[piece], None, conditions, &question.cost).map_err(unreadable)? {
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

/// The places of the lines of a file that are meant.
pub(crate) fn lines_meant(sheet: &Sheet, filter: &LineFilter, question: &Question) -> Result<HashSet<u64>, Error> {
    let range = Range { before: None, floor: None, below: u64::MAX };
    let is_meant = |piece: &Piece| range.overlaps(filter, piece.time_min, piece.time_max, piece.first);
    let pieces = sheet.pieces(&Need::of_lines(filter), is_meant, &question.cost).map_err(unreadable)?;
    meant(sheet, &pieces, || conditions(filter), question)
}

/// The places of the spans of a file that belong to some traces.
pub(crate) fn spans_meant(sheet: &Sheet, ids: &HashSet<TraceId>, question: &Question) -> Result<HashSet<u64>, Error> {
    let texts: Arc<HashSet<String>> = Arc::new(ids.iter().map(TraceId::to_string).collect());
    let need = Need::Any(ids.iter().copied().map(Need::of_trace).collect());
    let pieces = sheet.pieces(&need, |_| true, &question.cost).map_err(unreadable)?;
    let condition = || {
        let texts = texts.clone();
        vec![rows_where(&[TRACE], move |rows, row| Ok(texts.contains(rows.text(TRACE, row)?)))]
    };
    meant(sheet, &pieces, condition, question)
}

fn meant(
    sheet: &Sheet,
    pieces: &[Piece],
    conditions: impl Fn() -> Vec<Condition>,
    question: &Question,
) -> Result<HashSet<u64>, Error> {
    let mut found = HashSet::new();
    for run in pieces.chunk_by(|one, next| one.group == next.group) {
        for batch in sheet.read(run, Some(&[SEQUENCE]), conditions(), &question.cost).map_err(unreadable)? {
            let rows = Rows::new(&batch).map_err(unreadable)?;
            for row in 0..batch.num_rows() {
                found.insert(rows.number(SEQUENCE, row).map_err(unreadable)?);
            }
        }
    }
    Ok(found)
}

fn is_within(sheet: &Sheet, start: Option<Nanos>, end: Option<Nanos>) -> bool {
    is_between(sheet.entry.time_min, sheet.entry.time_max, start, end)
}

fn is_between(time_min: Nanos, time_max: Nanos, start: Option<Nanos>, end: Option<Nanos>) -> bool {
    start.is_none_or(|start| start <= time_max) && end.is_none_or(|end| time_min < end)
}

/// Adds the spans of a time to a graph, of the newest files first.
pub(crate) fn graph(
    sheets: &[Arc<Sheet>],
    (start, end): (Option<Nanos>, Option<Nanos>),
    mut graph: Graph,
    question: &Question,
) -> Result<Graph, Error> {
    const COLUMNS: [&str; 7] = [TRACE, "span_id", "parent_span_id", SERVICE, TIME, "end", "failed"];
    let is_meant = |piece: &Piece| is_between(piece.time_min, piece.time_max, start, end);
    for sheet in sheets.iter().rev().filter(|sheet| is_within(sheet, start, end)) {
        let pieces = sheet.pieces(&Need::NOTHING, is_meant, &question.cost).map_err(unreadable)?;
        for run in pieces.chunk_by(|one, next| one.group == next.group) {
            question.look(run.iter().map(|piece| piece.rows as u64).sum())?;
            for batch in sheet.read(run, Some(&COLUMNS), Vec::new(), &question.cost).map_err(unreadable)? {
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

#[cfg(test)]
mod tests;
