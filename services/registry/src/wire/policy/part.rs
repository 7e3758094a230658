//! One JSON object of a policy, from which fields are taken until nothing may be left.

use std::ops::RangeInclusive;
use std::time::Duration;

use ninefold::fault::Violation;
use ninefold::settings::duration;
use serde_json::{Map, Value};

/// Most mistakes that are told.
const MISTAKES_MAX: usize = 64;

/// What is wrong so far.
#[derive(Debug, Default)]
pub(super) struct Wrong(Vec<Violation>);

impl Wrong {
    pub(super) fn push(&mut self, path: &str, description: String) {
        if self.0.len() < MISTAKES_MAX {
            self.0.push(Violation::new(path, description));
        }
    }

    pub(super) fn none(self) -> Result<(), Vec<Violation>> {
        if self.0.is_empty() { Ok(()) } else { Err(self.0) }
    }
}

/// An object, and where it stands.
#[derive(Debug)]
pub(super) struct Part {
    path: String,
    rest: Map<String, Value>,
    known: Vec<&'static str>,
}

impl Part {
    pub(super) fn new(path: &str, value: Value, wrong: &mut Wrong) -> Self {
        let rest = match value {
            Value::Object(rest) => rest,
            other => {
                let name = if path.is_empty() { "content" } else { path };
                wrong.push(name, format!("must be an object, is {}", kind(&other)));
                Map::new()
            }
        };
        Self { path: path.to_owned(), rest, known: Vec::new() }
    }

    fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    pub(super) fn refuse(&self, name: &str, description: String, wrong: &mut Wrong) {
        wrong.push(&self.path(name), description);
    }

    /// Whether a field is there and was not taken yet.
    pub(super) fn has(&self, name: &'static str) -> bool {
        self.rest.contains_key(name)
    }

    /// Takes a field, by its name or the name in lower camel case. Null is as good as absent.
    fn take(&mut self, name: &'static str, wrong: &mut Wrong) -> Option<Value> {
        self.known.push(name);
        let (snake, camel) = (self.rest.remove(name), camel(name).and_then(|camel| self.rest.remove(&camel)));
        if snake.is_some() && camel.is_some() {
            self.refuse(name, "is there twice, in both ways to write it".to_owned(), wrong);
        }
        snake.or(camel).filter(|value| !value.is_null())
    }

    fn read<T>(
        &mut self,
        name: &'static str,
        wrong: &mut Wrong,
        read: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.take(name, wrong)?;
        match read(&value) {
            Ok(read) => Some(read),
            Err(description) => {
                self.refuse(name, description, wrong);
                None
            }
        }
    }

    pub(super) fn flag(&mut self, name: &'static str, wrong: &mut Wrong) -> Option<bool> {
        self.read(name, wrong, |value| value.as_bool().ok_or_else(|| format!("must be true or false, is {value}")))
    }

    pub(super) fn count(&mut self, name: &'static str, range: RangeInclusive<u32>, wrong: &mut Wrong) -> Option<u32> {
        self.read(name, wrong, |value| {
            let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
            number
                .filter(|number| range.contains(number))
                .ok_or_else(|| format!("must be a whole number from {} to {}, is {value}", range.start(), range.end()))
        })
    }

    pub(super) fn duration(
        &mut self,
        name: &'static str,
        range: RangeInclusive<Duration>,
        wrong: &mut Wrong,
    ) -> Option<prost_types::Duration> {
        self.read(name, wrong, |value| {
            let text = value.as_str().ok_or_else(|| format!("must be a duration such as \"250ms\", is {value}"))?;
            let read = duration::parse(text).ok().or_else(|| seconds(text));
            let read = read.ok_or_else(|| format!("must be a duration such as 250ms, 5s or 1m, is {text:?}"))?;
            if !range.contains(&read) {
                let (start, end) = (duration::format(*range.start()), duration::format(*range.end()));
                return Err(format!("must be {start} to {end}, is {text}"));
            }
            read.try_into().map_err(|_| format!("is too long: {text}"))
        })
    }

    pub(super) fn word<T: Default>(
        &mut self,
        name: &'static str,
        wrong: &mut Wrong,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> T {
        self.read(name, wrong, |value| read_word(value, read)).unwrap_or_default()
    }

    pub(super) fn words<T>(
        &mut self,
        name: &'static str,
        max: usize,
        wrong: &mut Wrong,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let list = self.read(name, wrong, |value| read_list(value, max)).unwrap_or_default();
        let mut words = Vec::new();
        for (index, value) in list.iter().enumerate() {
            match read_word(value, &read) {
                Ok(word) => words.push(word),
                Err(description) => wrong.push(&format!("{}[{index}]", self.path(name)), description),
            }
        }
        words
    }

    pub(super) fn part<T>(
        &mut self,
        name: &'static str,
        wrong: &mut Wrong,
        read: impl FnOnce(&mut Self, &mut Wrong) -> T,
    ) -> Option<T> {
        let value = self.take(name, wrong)?;
        Some(whole(&self.path(name), value, wrong, read))
    }

    pub(super) fn list<T>(
        &mut self,
        name: &'static str,
        max: usize,
        wrong: &mut Wrong,
        read: impl Fn(&mut Self, &mut Wrong) -> T,
    ) -> Vec<T> {
        let list = self.read(name, wrong, |value| read_list(value, max)).unwrap_or_default();
        let path = self.path(name);
        let indexed = list.into_iter().enumerate();
        indexed.map(|(index, value)| whole(&format!("{path}[{index}]"), value, wrong, &read)).collect()
    }

    /// Refuses two durations, of which the first must not be the longer.
    pub(super) fn in_order(
        &self,
        first: &str,
        short: &Option<prost_types::Duration>,
        second: &str,
        long: &Option<prost_types::Duration>,
        wrong: &mut Wrong,
    ) {
        if let (Some(short), Some(long)) = (short, long)
            && (short.seconds, short.nanos) > (long.seconds, long.nanos)
        {
            self.refuse(first, format!("must not be longer than {second}"), wrong);
        }
    }

    /// Refuses what was not taken.
    pub(super) fn end(self, wrong: &mut Wrong) {
        for name in self.rest.keys() {
            self.refuse(name, format!("is not known; known are {}", self.known.join(", ")), wrong);
        }
    }
}

fn whole<T>(path: &str, value: Value, wrong: &mut Wrong, read: impl FnOnce(&mut Part, &mut Wrong) -> T) -> T {
    let mut part = Part::new(path, value, wrong);
    let read = read(&mut part, wrong);
    part.end(wrong);
    read
}

fn read_word<T>(value: &Value, read: impl FnOnce(&str) -> Result<T, String>) -> Result<T, String> {
    let word = value.as_str().ok_or_else(|| format!("must be text, is {value}"))?;
    read(word).map_err(|description| format!("{description}, is {word:?}"))
}

fn read_list(value: &Value, max: usize) -> Result<Vec<Value>, String> {
    let list = value.as_array().ok_or_else(|| format!("must be a list, is {}", kind(value)))?;
    if list.len() > max {
        return Err(format!("has {} entries, at most {max}", list.len()));
    }
    Ok(list.clone())
}

/// A duration as Protobuf's JSON has it: decimal seconds.
fn seconds(text: &str) -> Option<Duration> {
    let number = text.strip_suffix('s')?;
    let is_legal = number.bytes().all(|digit| digit.is_ascii_digit() || digit == b'.');
    if is_legal { Duration::try_from_secs_f64(number.parse().ok()?).ok() } else { None }
}

fn camel(name: &str) -> Option<String> {
    let mut words = name.split('_');
    let first = words.next()?.to_owned();
    let camel = words.fold(first, |mut camel, word| {
        let (head, tail) = word.split_at(1);
        camel.push_str(&head.to_ascii_uppercase());
        camel.push_str(tail);
        camel
    });
    (camel != name).then_some(camel)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
