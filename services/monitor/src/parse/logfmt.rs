//! Lines of `name=value`.

use super::{known_name, put};
use crate::model::{Line, Nanos};

/// So many pairs make a line, where none has a name that loggers use.
const PAIRS_MIN: usize = 3;

/// Reads a line that is nothing but pairs: at least two and one that tells time, level or text, or at least three.
pub(super) fn read(text: &str, printed: Nanos) -> Option<Line> {
    let pairs = pairs(text.trim_end())?;
    let is_told = pairs.iter().any(|(name, _)| matches!(known_name(name), Some("time" | "level" | "body")));
    if pairs.len() < if is_told { 2 } else { PAIRS_MIN } {
        return None;
    }
    let mut line = Line::default();
    for (name, value) in pairs {
        let name = known_name(name).unwrap_or(name);
        put(&mut line, name, value, printed);
    }
    if line.body.is_empty() {
        text.clone_into(&mut line.body);
    }
    Some(line)
}

/// The pairs of a text that is made of them.
pub(super) fn pairs(text: &str) -> Option<Vec<(&str, String)>> {
    let mut pairs = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let is_name = |letter: char| letter.is_ascii_alphanumeric() || "_.@/-".contains(letter);
        if name.is_empty() || !name.chars().all(is_name) {
            return None;
        }
        let (value, after) = value(after)?;
        pairs.push((name, value));
        rest = after.trim_start_matches([' ', '\t']);
        // Values end where blanks begin.
        if !rest.is_empty() && rest.len() == after.len() {
            return None;
        }
    }
    Some(pairs)
}

/// A value in quotes or not, and what follows it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => match letters.next()?.1 {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                other => value.push(other),
            },
            letter => value.push(letter),
        }
    }
    None
}

/// The pairs at the end of a text, and the text before them.
pub(super) fn trailing(text: &str) -> (&str, Vec<(&str, String)>) {
    let starts = text.match_indices('=').filter_map(|(at, _)| {
        let start = text[..at].rfind([' ', '\t']).map_or(0, |blank| blank + 1);
        pairs(&text[start..]).map(|pairs| (start, pairs))
    });
    match starts.min_by_key(|(start, _)| *start) {
        Some((start, pairs)) => (text[..start].trim_end(), pairs),
        None => (text, Vec::new()),
    }
}
