//! Lines that are JSON objects, by the names that loggers use.

use serde_json::{Map, Value};

use super::{known_name, moment, put};
use crate::model::{Level, Line, Nanos};

/// Docker's own file of lines wraps the line that was printed in another.
const WRAPPED_MAX: usize = 2;

/// Reads a JSON object; `None` for anything else.
pub(super) fn read(text: &str, printed: Nanos) -> Option<Line> {
    read_wrapped(text, printed, 0)
}

fn read_wrapped(text: &str, printed: Nanos, depth: usize) -> Option<Line> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let Ok(Value::Object(fields)) = serde_json::from_str(text) else { return None };
    if let (Some(inner), true) = (wrapped(&fields), depth < WRAPPED_MAX) {
        let mut line = read_wrapped(&inner, printed, depth + 1)
            .or_else(|| super::formats::read(&inner, printed))
            .unwrap_or_else(|| Line { level: super::guess(&inner), body: inner, ..Line::default() });
        if line.time == Nanos(0) {
            let time = fields.get("time").and_then(Value::as_str);
            line.time = time.and_then(|text| moment::read(text, printed)).unwrap_or_default();
        }
        return Some(line);
    }
    Some(structured(fields, printed))
}

/// The line in Docker's own form: `{"log":"…\n","stream":"stdout","time":"…"}`.
fn wrapped(fields: &Map<String, Value>) -> Option<String> {
    let is_known = |name: &String| ["log", "stream", "time", "attrs"].contains(&name.as_str());
    let log = fields.get("log")?.as_str()?;
    (fields.contains_key("stream") && fields.keys().all(is_known)).then(|| log.trim_end_matches('\n').to_owned())
}

fn structured(mut fields: Map<String, Value>, printed: Nanos) -> Line {
    // The JSON of tracing-subscriber keeps fields and span one level down.
    for name in ["fields", "span"] {
        if let Some(Value::Object(inner)) = fields.get(name) {
            let inner = inner.clone();
            fields.remove(name);
            for (name, value) in inner {
                fields.entry(name).or_insert(value);
            }
        }
    }
    let mut line = Line::default();
    let mut told = Vec::new();
    for (name, value) in fields {
        let Some(known) = known_name(&name).filter(|known| !told.contains(known)) else {
            flatten(&mut line, name, value);
            continue;
        };
        match (known, &value) {
            ("level", Value::Number(number)) => match number.as_i64().and_then(level_of_number) {
                Some(level) => line.level = level,
                None => line.attributes.push((name, number.to_string())),
            },
            ("time", Value::Number(number)) => line.time = moment::number(&number.to_string()).unwrap_or_default(),
            (_, Value::String(text)) => {
                let text = text.clone();
                put(&mut line, known, text, printed);
                told.push(known);
            }
            _ => flatten(&mut line, name, value),
        }
    }
    line
}

/// Levels of loggers that number them in tens: 10 is trace, 60 is fatal.
const fn level_of_number(number: i64) -> Option<Level> {
    Some(match number {
        10 => Level::Trace,
        20 => Level::Debug,
        30 => Level::Info,
        40 => Level::Warn,
        50 => Level::Error,
        60 => Level::Fatal,
        _ => return None,
    })
}

/// Adds a value as an attribute; the fields of an object by their paths, one level deep.
fn flatten(line: &mut Line, name: String, value: Value) {
    match value {
        Value::String(text) => line.attributes.push((name, text)),
        Value::Null => {}
        Value::Object(inner) if inner.values().all(|value| !value.is_object() && !value.is_array()) => {
            for (inner, value) in inner {
                flatten(line, format!("{name}.{inner}"), value);
            }
        }
        other => line.attributes.push((name, other.to_string())),
    }
}
