//! What a printed line means: when, how grave, of which trace, and what else it tells. Pure.
//!
//! Formats of one's own come first, then JSON, then those that loggers are known for, then `name=value`. What fits none is
//! text whose level is guessed. Where the text of the line is not all of it, the line as it was printed stays in the
//! attribute [`ORIGINAL`].

mod formats;
mod joined;
mod json;
mod logfmt;
mod moment;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;
use serde::Deserialize;

use crate::model::{
    ATTRIBUTES_MAX, Level, Line, NAME_BYTES_MAX, Nanos, SpanId, TEXT_BYTES_MAX, TraceId, VALUE_BYTES_MAX, cut,
};
use crate::pattern::Pattern;

pub use joined::{Joiner, Piece};

/// The attribute in which a line stays as it was printed.
pub const ORIGINAL: &str = "log.record.original";
/// Most formats of one's own.
pub const FORMATS_MAX: usize = 32;

/// How printed lines are read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Formats of one's own, tried by name before those that are known: patterns with named groups, of which `time`,
    /// `level`, `body`, `trace_id` and `span_id` mean what they say, and others become attributes. At most 32.
    pub formats: BTreeMap<String, Pattern>,
}

impl Config {
    /// What cannot work, although it can be read.
    pub fn mistakes(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.formats.len() > FORMATS_MAX {
            wrong.push(format!("lines.formats: there are {}, more than {FORMATS_MAX}", self.formats.len()));
        }
        let nameless =
            self.formats.iter().filter(|(_, pattern)| pattern.regex().capture_names().flatten().next().is_none());
        wrong.extend(
            nameless.map(|(name, _)| format!("lines.formats.{name}: it has no named group, such as (?<body>.*)")),
        );
        wrong
    }
}

/// Reads a line that was printed at a time, which is its own where it tells none. The sender is left open.
pub fn read(text: String, printed: Nanos, config: &Config) -> Line {
    let text = without_colours(text);
    let mut line = config
        .formats
        .values()
        .find_map(|pattern| formats::by_pattern(pattern.regex(), &text, printed))
        .or_else(|| json::read(&text, printed))
        .or_else(|| formats::read(&text, printed))
        .or_else(|| logfmt::read(&text, printed))
        .unwrap_or_else(|| Line { level: guess(&text), body: text.clone(), ..Line::default() });
    if line.time == Nanos(0) {
        line.time = printed;
    }
    if line.trace_id.is_none() {
        (line.trace_id, line.span_id) = trace_in(&text);
    }
    if line.body != text {
        line.attributes.push((ORIGINAL.to_owned(), text));
    }
    tidy(line)
}

/// How grave a line is that something may be appended to. Nothing is appended to a line of an access log.
fn read_level(text: &str) -> Level {
    let is_access = |line: &Line| line.attributes.iter().any(|(name, _)| name == "http.response.status_code");
    match formats::read(text, Nanos(0)) {
        Some(line) if is_access(&line) => Level::Unknown,
        Some(line) => line.level,
        None => guess(text),
    }
}

/// Keeps a line within the bounds of the model.
fn tidy(mut line: Line) -> Line {
    line.body = cut(line.body, TEXT_BYTES_MAX);
    let attributes = std::mem::take(&mut line.attributes).into_iter().filter(|(name, _)| !name.is_empty());
    line.attributes = attributes
        .map(|(name, value)| {
            let bytes_max = if name == ORIGINAL { TEXT_BYTES_MAX } else { VALUE_BYTES_MAX };
            (cut(name, NAME_BYTES_MAX), cut(value, bytes_max))
        })
        .collect();
    line.attributes.sort();
    line.attributes.dedup_by(|second, first| second.0 == first.0);
    line.attributes.truncate(ATTRIBUTES_MAX);
    line
}

/// Where a value that a line tells by a name belongs.
fn put(line: &mut Line, name: &str, value: String, printed: Nanos) {
    match name {
        "time" => line.time = moment::read(&value, printed).unwrap_or(line.time),
        "level" => match Level::of_word(value.trim()) {
            Some(level) => line.level = level,
            None => line.attributes.push((name.to_owned(), value)),
        },
        "body" => line.body = value,
        "trace_id" => match TraceId::parse(&value) {
            Some(id) => line.trace_id = Some(id),
            None => line.attributes.push((name.to_owned(), value)),
        },
        "span_id" => match SpanId::parse(&value) {
            Some(id) => line.span_id = Some(id),
            None => line.attributes.push((name.to_owned(), value)),
        },
        name => line.attributes.push((name.to_owned(), value)),
    }
}

/// The name under which [`put`] knows what loggers call by many.
fn known_name(name: &str) -> Option<&'static str> {
    const NAMES: [(&str, &[&str]); 5] = [
        ("time", &["time", "timestamp", "@timestamp", "ts", "asctime", "t"]),
        ("level", &["level", "severity", "lvl", "levelname", "log.level", "severity_text", "loglevel"]),
        ("body", &["message", "msg", "body", "event", "@message"]),
        ("trace_id", &["trace_id", "traceId", "traceid", "trace.id", "otelTraceID", "TraceId"]),
        ("span_id", &["span_id", "spanId", "spanid", "span.id", "otelSpanID", "SpanId"]),
    ];
    NAMES.iter().find(|(_, names)| names.contains(&name)).map(|(known, _)| *known)
}

/// A trace that a text names: `trace_id=…`, or a `traceparent` of W3C.
fn trace_in(text: &str) -> (Option<TraceId>, Option<SpanId>) {
    static NAMED: LazyLock<Regex> = LazyLock::new(|| {
        known(
            r#"(?i)\btrace[_.]?id["']?\s*[=:]\s*["']?([0-9a-f]{32})\b(?:.*?\bspan[_.]?id["']?\s*[=:]\s*["']?([0-9a-f]{16})\b)?"#,
        )
    });
    static PARENT: LazyLock<Regex> = LazyLock::new(|| known(r"\b([0-9a-f]{32})-([0-9a-f]{16})\b"));
    let lower = text.contains("race") || text.contains("RACE");
    let named = if lower { NAMED.captures(text) } else { None };
    let Some(found) = named.or_else(|| PARENT.captures(text)) else { return (None, None) };
    let id = |group: usize| found.get(group).map(|part| part.as_str().to_ascii_lowercase());
    (id(1).and_then(|id| TraceId::parse(&id)), id(2).and_then(|id| SpanId::parse(&id)))
}

fn known(text: &str) -> Regex {
    Regex::new(text).expect("a pattern that is shipped can be read")
}

/// Reads a level off the beginning of a text: the first of its first words that is one, in brackets or not, unless it
/// is a word of ordinary speech in ordinary letters.
fn guess(text: &str) -> Level {
    const WORDS_LOOKED_AT: usize = 6;
    let is_death = ["Traceback (", "Exception in thread", "panic: ", "fatal error: "];
    if is_death.iter().any(|start| text.starts_with(start))
        || (text.starts_with("thread '") && text.contains("panicked at"))
    {
        return Level::Error;
    }
    let words = text.split([' ', '\t', '|']).filter(|word| !word.is_empty()).take(WORDS_LOOKED_AT);
    for (at, word) in words.enumerate() {
        let bare = word.trim_matches(|letter: char| !letter.is_ascii_alphabetic());
        let is_marked = bare != word || bare.chars().all(|letter| letter.is_ascii_uppercase());
        // "[info] ready", "2026-11-23 12:00:00 ERROR …", "INFO:root:ready", "warning: unused".
        let head = bare.split(':').next().unwrap_or_default();
        if (is_marked || (at == 0 && word.ends_with(':')) || head.len() < bare.len())
            && let Some(level) = Level::of_word(head)
        {
            return level;
        }
    }
    Level::Unknown
}

/// Takes out the escape sequences by which programs colour their lines (ECMA-48 control sequences).
fn without_colours(text: String) -> String {
    if !text.contains('\x1b') {
        return text;
    }
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\x1b' {
            plain.push(letter);
        } else if letters.next() == Some('[') {
            // Parameters, then one final letter.
            let _ = letters.by_ref().find(|letter| ('\x40'..='\x7e').contains(letter));
        }
    }
    plain
}

#[cfg(test)]
mod tests;
