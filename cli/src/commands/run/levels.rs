//! What a printed line means: its level, its text, and the trace that it belongs to, where it tells.

use serde_json::{Map, Value};

/// How grave a line is; the numbers are those of OTLP's `SeverityNumber`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Level {
    #[default]
    Unknown = 0,
    Trace = 1,
    Debug = 5,
    Info = 9,
    Warn = 13,
    Error = 17,
    Fatal = 21,
}

/// A line, understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Meaning {
    pub(super) level: Level,
    pub(super) text: String,
    /// 16 bytes, or none.
    pub(super) trace_id: Vec<u8>,
    /// 8 bytes, or none.
    pub(super) span_id: Vec<u8>,
    /// What else a JSON line holds.
    pub(super) fields: Vec<(String, String)>,
}

/// Words at the beginning of a line among which a level is looked for.
const WORDS_LOOKED_AT: usize = 5;

impl Level {
    fn of_word(word: &str) -> Option<Self> {
        Some(match word.to_ascii_uppercase().as_str() {
            "TRACE" => Self::Trace,
            "DEBUG" => Self::Debug,
            "INFO" | "NOTICE" => Self::Info,
            "WARN" | "WARNING" => Self::Warn,
            "ERROR" | "ERR" => Self::Error,
            "FATAL" | "CRITICAL" | "PANIC" => Self::Fatal,
            _ => return None,
        })
    }
}

/// Reads a line: a JSON object by the names that loggers use, anything else as text that may begin with a level.
pub(super) fn read(line: &str) -> Meaning {
    match serde_json::from_str(line) {
        Ok(Value::Object(fields)) => structured(fields, line),
        Ok(_) | Err(_) => Meaning { level: guess(line), text: line.to_owned(), ..Meaning::default() },
    }
}

fn structured(mut fields: Map<String, Value>, line: &str) -> Meaning {
    let mut take = |names: &[&str]| {
        let name = names.iter().find(|name| fields.get(**name).is_some_and(Value::is_string))?;
        fields.remove(*name).map(as_text)
    };
    let level = take(&["level", "severity", "levelname", "lvl", "severity_text"]);
    let text = take(&["message", "msg", "event", "body"]);
    let trace_id = take(&["trace_id", "traceId", "trace.id", "otelTraceID"]);
    let span_id = take(&["span_id", "spanId", "span.id", "otelSpanID"]);
    Meaning {
        level: level.and_then(|word| Level::of_word(word.trim())).unwrap_or_default(),
        text: text.unwrap_or_else(|| line.to_owned()),
        trace_id: trace_id.and_then(|text| hex(&text, 16)).unwrap_or_default(),
        span_id: span_id.and_then(|text| hex(&text, 8)).unwrap_or_default(),
        fields: fields.into_iter().map(|(name, value)| (name, as_text(value))).collect(),
    }
}

fn as_text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

/// A level in capitals, or in any letters before a colon or in brackets: `INFO:root:ready`, `[warn] odd`, `error: no`.
fn guess(line: &str) -> Level {
    if line.starts_with("Traceback (") || (line.starts_with("thread '") && line.contains("panicked at")) {
        return Level::Error;
    }
    let words = line.split([' ', '\t', '|']).filter(|word| !word.is_empty()).take(WORDS_LOOKED_AT);
    let level = |word: &str| {
        let head = word.trim_start_matches(['[', '(', '<']).split([':', ']', ')', '>']).next()?;
        let is_marked = head.len() < word.len() || head.chars().all(|letter| letter.is_ascii_uppercase());
        Level::of_word(head).filter(|_| is_marked)
    };
    words.filter_map(level).next().unwrap_or_default()
}

fn hex(text: &str, bytes: usize) -> Option<Vec<u8>> {
    if text.len() != 2 * bytes || !text.is_ascii() {
        return None;
    }
    let read: Option<Vec<u8>> = (0..bytes).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()).collect();
    read.filter(|read| read.iter().any(|byte| *byte != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_of_a_text_is_at_its_beginning() {
        for (line, level) in [
            ("INFO:root:ready", Level::Info),
            ("[warn] odd", Level::Warn),
            ("error: no such file", Level::Error),
            ("2026-11-23 12:00:00,123 CRITICAL over", Level::Fatal),
            ("Traceback (most recent call last):", Level::Error),
            ("no error was found", Level::Unknown),
        ] {
            assert_eq!(read(line).level, level, "{line}");
        }
    }

    #[test]
    fn a_json_line_brings_its_trace() {
        let line = r#"{"level":"warning","msg":"odd","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","n":3}"#;
        let meaning = read(line);
        assert_eq!((meaning.level, meaning.text.as_str()), (Level::Warn, "odd"));
        assert_eq!(meaning.trace_id[..2], [0x4b, 0xf9]);
        assert_eq!(meaning.fields, [("n".to_owned(), "3".to_owned())]);
        assert!(read(r#"{"trace_id":"00000000000000000000000000000000"}"#).trace_id.is_empty());
    }
}
