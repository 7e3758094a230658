//! Lines that programs print, captured by whoever started them in this process.
//!
//! [`LineSink::append`] never waits and never fails: a child whose output is not read freezes. What a line means is
//! guessed: a JSON object is read by the names that loggers use, anything else is text that may begin with a level.

use std::collections::VecDeque;
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use ninefold::lifecycle::Scope;
use serde_json::{Map, Value};
use tokio::sync::Notify;

use crate::model::{
    ATTRIBUTES_MAX, Level, Line, NAME_BYTES_MAX, Nanos, Origin, SpanId, TEXT_BYTES_MAX, TraceId, VALUE_BYTES_MAX, cut,
};
use crate::tier::{Signal, Tier};

/// Where a program printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Which printed lines come to the monitor another way too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copies {
    /// None: the program exports no logs.
    Never,
    /// Those of the SDK's logger, which prints what it exports. They are JSON objects with `target`, `level` and
    /// `message` whose `service` and `instance_id` are those of the program, and are left out here. All else that the
    /// program prints, such as the text of a panic, is kept.
    OfSdk,
}

/// A line that a program printed.
#[derive(Clone, Debug)]
pub struct Printed {
    /// Name of the service.
    pub service: String,
    /// Id of the instance.
    pub instance_id: String,
    /// Where it was printed.
    pub stream: Stream,
    /// Whether it may come another way too.
    pub copies: Copies,
    /// The line, without its end.
    pub text: String,
    /// When it was read.
    pub time: SystemTime,
}

/// Takes printed lines. Clones are the same sink.
#[derive(Clone, Debug)]
pub struct LineSink(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    waiting: Mutex<Waiting>,
    wake: Notify,
    lines_max: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<Printed>,
    dropped: u64,
}

impl LineSink {
    /// Makes a sink whose lines a task of the scope takes to the tier. What waits when the scope closes is still taken.
    pub(crate) fn start(lines_max: usize, tier: Arc<dyn Tier>, scope: &Scope) -> Self {
        let inner = Inner { waiting: Mutex::default(), wake: Notify::new(), lines_max: lines_max.max(1) };
        let sink = Self(Arc::new(inner));
        let inner = sink.0.clone();
        scope.run("monitor.capture", |stop| async move {
            loop {
                let is_last = tokio::select! {
                    () = stop.asked() => true,
                    () = inner.wake.notified() => false,
                };
                inner.take_to(&*tier).await;
                if is_last {
                    return;
                }
            }
        });
        sink
    }

    /// Takes a line. Never waits: when too many wait, the oldest is dropped and counted among the refused.
    pub fn append(&self, printed: Printed) {
        {
            let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.lines.len() >= self.0.lines_max {
                waiting.lines.pop_front();
                waiting.dropped += 1;
            }
            waiting.lines.push_back(printed);
        }
        self.0.wake.notify_one();
    }
}

impl Inner {
    async fn take_to(&self, tier: &dyn Tier) {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let lines: Vec<Line> = waiting.lines.into_iter().filter_map(line).collect();
        let taken = lines.len() as u64;
        if waiting.dropped > 0 {
            tier.count_refused(Signal::Logs, waiting.dropped);
        }
        if taken > 0 && tier.append_lines(lines).await.is_err() {
            tier.count_refused(Signal::Logs, taken);
        }
    }
}

/// Reads a printed line; `None` for an empty one and for a copy.
fn line(printed: Printed) -> Option<Line> {
    let Printed { service, instance_id, stream, copies, text, time } = printed;
    let text = without_colours(text);
    if text.trim().is_empty() {
        return None;
    }
    let origin = Origin { service, instance_id, attributes: Vec::new() };
    let fields = match serde_json::from_str(&text) {
        Ok(Value::Object(fields)) => Some(fields),
        Ok(_) | Err(_) => None,
    };
    if copies == Copies::OfSdk && fields.as_ref().is_some_and(|fields| is_of_sdk(fields, &origin)) {
        return None;
    }
    let mut line = fields.map_or_else(|| plain(text), structured);
    let stream = match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    };
    line.attributes.push(("log.iostream".to_owned(), stream.to_owned()));
    line.attributes.sort();
    line.attributes.dedup_by(|second, first| second.0 == first.0);
    if line.time == Nanos(0) {
        line.time = nanos(time);
    }
    line.origin = Arc::new(origin);
    Some(line)
}

fn is_of_sdk(fields: &Map<String, Value>, origin: &Origin) -> bool {
    let is = |name: &str, value: &str| fields.get(name).and_then(Value::as_str) == Some(value);
    is("service", &origin.service)
        && is("instance_id", &origin.instance_id)
        && ["target", "level", "message"].iter().all(|name| fields.contains_key(*name))
}

fn plain(text: String) -> Line {
    Line { level: guess(&text), body: cut(text, TEXT_BYTES_MAX), ..Line::default() }
}

/// Reads a level off the beginning of a text: the first of its first words that is one, in brackets or not, unless it
/// is a word of ordinary speech in ordinary letters.
fn guess(text: &str) -> Level {
    const WORDS_LOOKED_AT: usize = 6;
    if text.starts_with("Traceback (") || (text.starts_with("thread '") && text.contains("panicked at")) {
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

fn structured(mut fields: Map<String, Value>) -> Line {
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
    let mut take = |names: &[&str]| {
        let name = names.iter().find(|name| fields.get(**name).is_some_and(Value::is_string))?;
        fields.remove(*name).map(as_text)
    };
    let level = take(&["level", "severity", "lvl", "levelname", "log.level", "severity_text"]);
    let body = take(&["message", "msg", "event", "body"]);
    let time = take(&["time", "timestamp", "@timestamp", "ts"]);
    let trace_id = take(&["trace_id", "traceId", "trace.id", "otelTraceID"]);
    let span_id = take(&["span_id", "spanId", "span.id", "otelSpanID"]);
    let mut attributes: Vec<(String, String)> = fields
        .into_iter()
        .take(ATTRIBUTES_MAX)
        .map(|(name, value)| (cut(name, NAME_BYTES_MAX), cut(as_text(value), VALUE_BYTES_MAX)))
        .collect();
    attributes.sort();
    Line {
        time: time.and_then(|text| moment(&text)).unwrap_or_default(),
        level: level.and_then(|word| Level::of_word(word.trim())).unwrap_or_default(),
        body: cut(body.unwrap_or_default(), TEXT_BYTES_MAX),
        trace_id: trace_id.and_then(|text| TraceId::parse(&text)),
        span_id: span_id.and_then(|text| SpanId::parse(&text)),
        attributes,
        ..Line::default()
    }
}

fn as_text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

/// Reads a time as RFC 3339 writes it.
fn moment(text: &str) -> Option<Nanos> {
    let time = prost_types::Timestamp::from_str(text).ok()?;
    let seconds = u64::try_from(time.seconds).ok()?.checked_mul(1_000_000_000)?;
    seconds.checked_add(u64::try_from(time.nanos).ok()?).map(Nanos)
}

/// A time of this machine's clock.
pub(crate) fn nanos(time: SystemTime) -> Nanos {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).map_or(Nanos::MAX, Nanos::said)
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
mod tests {
    use super::*;

    fn printed(text: &str, copies: Copies) -> Printed {
        Printed {
            service: "pump".to_owned(),
            instance_id: "p-1".to_owned(),
            stream: Stream::Stderr,
            copies,
            text: text.to_owned(),
            time: UNIX_EPOCH + std::time::Duration::from_secs(9),
        }
    }

    #[test]
    fn the_level_of_a_text_is_guessed_from_its_beginning() {
        for (text, level) in [
            ("[info] ready", Level::Info),
            ("INFO:root:ready", Level::Info),
            ("2026-11-23 12:00:00,123 - app - ERROR - no room", Level::Error),
            ("warning: unused", Level::Warn),
            ("\x1b[2m12:00:00\x1b[0m \x1b[33m WARN\x1b[0m odd", Level::Warn),
            ("thread 'main' panicked at src/main.rs:1:1:", Level::Error),
            ("Traceback (most recent call last):", Level::Error),
            ("listening for any error to come", Level::Unknown),
            ("log in at /", Level::Unknown),
            ("ready", Level::Unknown),
        ] {
            assert_eq!(line(printed(text, Copies::Never)).unwrap().level, level, "{text}");
        }
    }

    #[test]
    fn a_json_object_is_read_by_the_names_that_loggers_use() {
        let text = r#"{"timestamp":"2026-11-23T12:00:00.5Z","level":"WARN","fields":{"message":"odd","n":3},
            "target":"pump","span":{"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","span_id":"00f067aa0ba902b7"}}"#;
        let line = line(printed(text, Copies::OfSdk)).unwrap();
        assert_eq!((line.level, line.body.as_str()), (Level::Warn, "odd"));
        assert_eq!(line.time, Nanos(1_795_435_200_500_000_000));
        assert_eq!(line.trace_id.unwrap().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let names: Vec<_> = line.attributes.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["log.iostream", "n", "target"]);
    }

    #[test]
    fn what_the_sdk_exports_is_not_kept_twice() {
        let text = r#"{"level":"info","message":"hi","target":"a","service":"pump","instance_id":"p-1"}"#;
        assert_eq!(line(printed(text, Copies::OfSdk)), None);
        assert!(line(printed(text, Copies::Never)).is_some());
        assert!(line(printed(&text.replace("p-1", "p-2"), Copies::OfSdk)).is_some());
        assert!(line(printed("thread 'main' panicked at x", Copies::OfSdk)).is_some());
        assert_eq!(line(printed(" \t", Copies::Never)), None);
    }

    #[test]
    fn a_line_without_a_time_has_that_of_its_reading() {
        assert_eq!(line(printed("ready", Copies::Never)).unwrap().time, Nanos(9_000_000_000));
        assert_eq!(line(printed("\x1b[31", Copies::Never)), None);
    }
}
