//! Records of files, given one after the other to whoever takes them.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::super::columns::{self, Rows, SEQUENCE, TIME, columns_of, line_in_part};
use super::super::file::Sheet;
use super::super::need::Need;
use super::super::reading::Piece;
use super::super::unreadable;
use super::{Question, Range, STEP_MAX, conditions, is_between, is_within, pieces, rows_where, run};
use crate::error::Error;
use crate::grammar::Part;
use crate::model::{Line, LineFilter, Nanos, SpanId, TraceId};
use crate::tier::TakeSpan;

/// Gives the lines with sequence numbers below one.
pub(crate) fn lines(
    sheets: &[Arc<Sheet>],
    filter: &LineFilter,
    parts: &BTreeSet<Part>,
    below: u64,
    question: &Question,
    mut take: impl FnMut(&Line) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut columns = columns_of(parts);
    columns.push(SEQUENCE);
    batches(sheets, filter, &columns, below, question, |rows| {
        for (row, sequence) in rows.numbers(SEQUENCE).map_err(unreadable)?.iter().enumerate() {
            if *sequence < below {
                take(&line_in_part(rows, row, parts).map_err(unreadable)?)?;
            }
        }
        Ok(())
    })
}

/// Gives columns of all rows that are meant, and perhaps of some with sequence numbers that are not below.
pub(super) fn batches(
    sheets: &[Arc<Sheet>],
    filter: &LineFilter,
    columns: &[&str],
    below: u64,
    question: &Question,
    mut give: impl FnMut(&Rows) -> Result<(), Error>,
) -> Result<(), Error> {
    let pieces = pieces(sheets, filter, Range { before: None, floor: None, below }, question)?;
    let mut next = 0;
    while next < pieces.len() {
        let run = run(&pieces[next..], STEP_MAX);
        next += run.len();
        let (sheet, some) = (run[0].0, run.iter().map(|(_, piece)| *piece).collect::<Vec<_>>());
        question.look(some.iter().map(|piece| piece.rows as u64).sum())?;
        let read = sheets[sheet].read(&some, Some(columns), conditions(filter), &question.cost);
        for batch in read.map_err(unreadable)? {
            give(&Rows::new(&batch).map_err(unreadable)?)?;
        }
    }
    Ok(())
}

/// Gives the spans of a time, but for those that are known.
pub(crate) fn spans(
    sheets: &[Arc<Sheet>],
    (start, end): (Nanos, Nanos),
    known: &HashSet<(TraceId, SpanId)>,
    mut take: TakeSpan,
    question: &Question,
) -> Result<(), Error> {
    let is_meant = |piece: &Piece| is_between(piece.time_min, piece.time_max, Some(start), Some(end));
    for sheet in sheets.iter().rev().filter(|sheet| is_within(sheet, Some(start), Some(end))) {
        let pieces = sheet.pieces(&Need::NOTHING, is_meant, &question.cost).map_err(unreadable)?;
        for run in pieces.chunk_by(|one, next| one.group == next.group) {
            question.look(run.iter().map(|piece| piece.rows as u64).sum())?;
            let condition = rows_where(&[TIME], move |rows, row| Ok((start..end).contains(&rows.time(TIME, row)?)));
            for batch in sheet.read(run, None, vec![condition], &question.cost).map_err(unreadable)? {
                for span in columns::spans(&batch).map_err(unreadable)? {
                    if !known.contains(&(span.trace_id, span.span_id)) {
                        take(&span)?;
                    }
                }
            }
        }
    }
    Ok(())
}
