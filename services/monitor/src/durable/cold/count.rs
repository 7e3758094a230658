//! Lines of files counted. Where only words are asked for - services, instances, levels - lines that are alike are counted
//! by the places of their words, and no line is made of them.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;

use arrow::error::ArrowError;

use super::super::columns::{Rows, SEQUENCE, TIME, columns_of, line_in_part};
use super::super::file::Sheet;
use super::super::grams::mix;
use super::super::index::Plain;
use super::super::unreadable;
use super::{Question, each};
use crate::error::Error;
use crate::grammar::Part;
use crate::model::LineFilter;
use crate::tallies::Tallies;

/// Counts lines with sequence numbers below one.
pub(crate) fn lines(
    sheets: &[Arc<Sheet>],
    filter: &LineFilter,
    below: u64,
    mut tallies: Tallies,
    question: &Question,
) -> Result<Tallies, Error> {
    let mut words: BTreeSet<Part> = tallies.fields().map(Part::of_field).collect();
    words.insert(Part::Level);
    let are_words = words.iter().all(|part| matches!(part, Part::Service | Part::Instance | Part::Level));
    let parts: BTreeSet<Part> = words.iter().copied().chain([Part::Time]).collect();
    if !are_words {
        each::lines(sheets, filter, &parts, below, question, |line| {
            tallies.add(line);
            Ok(())
        })?;
        return Ok(tallies);
    }
    let words = columns_of(&words);
    let columns: Vec<&str> = words.iter().copied().chain([TIME, SEQUENCE]).collect();
    each::batches(sheets, filter, &columns, below, question, |rows| {
        count(rows, &words, &parts, below, &mut tallies).map_err(unreadable)
    })?;
    Ok(tallies)
}

/// What lines that are alike have in common: the step of time, and the places of all words as one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Alike {
    step: u64,
    words: u64,
}

impl Hash for Alike {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(mix(mix(self.step) ^ self.words));
    }
}

fn count(
    rows: &Rows,
    words: &[&str],
    parts: &BTreeSet<Part>,
    below: u64,
    tallies: &mut Tallies,
) -> Result<(), ArrowError> {
    let places = words.iter().map(|name| rows.places(name)).collect::<Result<Vec<_>, _>>()?;
    // The first row of those that are alike, and how many there are.
    let mut alike: HashMap<Alike, (usize, u64), BuildHasherDefault<Plain>> = HashMap::default();
    let times = rows.times(TIME)?;
    let sequences = rows.numbers(SEQUENCE)?;
    for row in (0..sequences.len()).filter(|row| sequences[*row] < below) {
        let place = |of: &[i32]| u64::try_from(of[row]).unwrap_or(0);
        let words = places.iter().fold(0, |all, (of, count)| all * *count as u64 + place(of));
        let time = u64::try_from(times[row]).unwrap_or(0);
        let step = time.checked_div(tallies.step()).unwrap_or(0);
        alike.entry(Alike { step, words }).or_insert((row, 0)).1 += 1;
    }
    for (row, lines) in alike.into_values() {
        tallies.add_alike(&line_in_part(rows, row, parts)?, lines);
    }
    Ok(())
}
