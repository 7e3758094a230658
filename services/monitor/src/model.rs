//! The nouns of the monitor: lines, spans and samples as they are kept. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::grammar::Expression;

/// Longest text of a line, and longest status message of a span, in bytes. More is cut off.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Longest value of an attribute, in bytes. More is cut off.
pub const VALUE_BYTES_MAX: usize = 8 * 1024;
/// Longest name: of a service, an instance, a metric, a span or an attribute, in bytes. More is cut off.
pub const NAME_BYTES_MAX: usize = 512;
/// Most attributes of one record. More are left out.
pub const ATTRIBUTES_MAX: usize = 1024;
/// How far a sender's clock may be ahead of the node's.
pub const AHEAD_MAX: Duration = Duration::from_secs(3600);

/// A moment, in nanoseconds since 1970. It is what the sender said, whatever that was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub u64);

impl Nanos {
    /// The latest moment that is told apart: in the year 2262. Columns of files and of SQLite have numbers with a sign.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// Takes what a sender says; what is beyond [`Nanos::MAX`] is read as that.
    pub const fn said(nanos: u64) -> Self {
        if nanos > Self::MAX.0 { Self::MAX } else { Self(nanos) }
    }
}

/// Names a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId(pub [u8; 16]);

/// Names a span within its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId(pub [u8; 8]);

impl TraceId {
    /// Takes 16 bytes that are not all zero.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        <[u8; 16]>::try_from(bytes).ok().filter(|id| *id != [0; 16]).map(Self)
    }

    /// Reads 32 hex digits that are not all zero.
    pub fn parse(text: &str) -> Option<Self> {
        u128_of(text, 32).map(u128::to_be_bytes).and_then(|bytes| Self::from_bytes(&bytes))
    }
}

impl SpanId {
    /// Takes 8 bytes that are not all zero.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        <[u8; 8]>::try_from(bytes).ok().filter(|id| *id != [0; 8]).map(Self)
    }

    /// Reads 16 hex digits that are not all zero.
    pub fn parse(text: &str) -> Option<Self> {
        u128_of(text, 16).map(u128::to_be_bytes).and_then(|bytes| Self::from_bytes(&bytes[8..]))
    }
}

fn u128_of(text: &str, digits: usize) -> Option<u128> {
    let is_hex = text.len() == digits && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

impl fmt::Display for TraceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", u64::from_be_bytes(self.0))
    }
}

/// Names and their values as text, in the order of names.
pub type Attributes = Vec<(String, String)>;

/// Who sent a batch; shared by its records.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// Name of the service.
    pub service: String,
    /// Id of the instance.
    pub instance_id: String,
    /// What else is known of the sender.
    pub attributes: Attributes,
}

/// How grave a line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Nobody said.
    #[default]
    Unknown,
    /// Finest detail.
    Trace,
    /// For whoever mends a fault.
    Debug,
    /// Ordinary events.
    Info,
    /// Odd, but handled.
    Warn,
    /// A person must act.
    Error,
    /// The process cannot go on.
    Fatal,
}

impl Level {
    /// Reads the word that loggers of many languages use, whatever its case.
    pub fn of_word(word: &str) -> Option<Self> {
        const WORDS: [(Level, &[&str]); 6] = [
            (Level::Trace, &["trace", "trc", "finest", "verbose"]),
            (Level::Debug, &["debug", "dbg", "fine"]),
            (Level::Info, &["info", "inf", "information", "notice", "log"]),
            (Level::Warn, &["warn", "wrn", "warning"]),
            (Level::Error, &["error", "err", "severe", "alert"]),
            (Level::Fatal, &["fatal", "ftl", "critical", "crit", "panic", "emergency", "emerg"]),
        ];
        WORDS
            .iter()
            .find(|(_, words)| words.iter().any(|known| known.eq_ignore_ascii_case(word)))
            .map(|(level, _)| *level)
    }

    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Fatal => "fatal",
        }
    }

    /// Reads a severity number of OpenTelemetry: 1 to 24, four to a level.
    pub const fn of_severity(number: i32) -> Self {
        match number {
            1..=4 => Self::Trace,
            5..=8 => Self::Debug,
            9..=12 => Self::Info,
            13..=16 => Self::Warn,
            17..=20 => Self::Error,
            21..=24 => Self::Fatal,
            _ => Self::Unknown,
        }
    }
}

/// A log line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// When it was written.
    pub time: Nanos,
    /// Who wrote it.
    pub origin: Arc<Origin>,
    /// How grave it is.
    pub level: Level,
    /// The text.
    pub body: String,
    /// The trace it belongs to.
    pub trace_id: Option<TraceId>,
    /// The span it belongs to.
    pub span_id: Option<SpanId>,
    /// Its fields.
    pub attributes: Attributes,
}

impl Origin {
    /// What it takes in memory.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.service.len() + self.instance_id.len() + bytes_of(&self.attributes)
    }
}

impl Line {
    /// What it takes in memory, and about what it takes in an answer. Its origin is counted in full, although lines of a
    /// batch share it: an answer repeats it.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.body.len() + bytes_of(&self.attributes) + self.origin.bytes()
    }
}

impl Line {
    /// Whether a text is in it, or in the value of one of its fields.
    pub fn has_text(&self, needle: &Needle) -> bool {
        let mut values = self.attributes.iter().chain(&self.origin.attributes);
        needle.is_in(&self.body) || values.any(|(_, value)| needle.is_in(value))
    }
}

/// What attributes take in memory.
pub fn bytes_of(attributes: &Attributes) -> usize {
    attributes.iter().map(|(name, value)| size_of::<(String, String)>() + name.len() + value.len()).sum()
}

/// A log line, and its place in the order in which lines were taken in, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its place.
    pub sequence: u64,
    /// The line.
    pub line: Line,
}

/// Which end of a call a span is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpanKind {
    /// Nobody said.
    #[default]
    Unknown,
    /// A step inside a process.
    Internal,
    /// The answering end.
    Server,
    /// The asking end.
    Client,
    /// The sending end of a message.
    Producer,
    /// The receiving end of a message.
    Consumer,
}

/// One step of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The trace.
    pub trace_id: TraceId,
    /// The span.
    pub span_id: SpanId,
    /// The span that it is part of.
    pub parent: Option<SpanId>,
    /// Name of the step.
    pub name: String,
    /// Who did it.
    pub origin: Arc<Origin>,
    /// Which end of a call it is.
    pub kind: SpanKind,
    /// When it began.
    pub start: Nanos,
    /// When it ended; not before it began.
    pub end: Nanos,
    /// Whether it failed.
    pub failed: bool,
    /// What is known of the failure.
    pub status_message: String,
    /// Its attributes.
    pub attributes: Attributes,
}

impl Span {
    /// What it takes in memory, and about what it takes in an answer; see [`Line::bytes`].
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.name.len()
            + self.status_message.len()
            + bytes_of(&self.attributes)
            + self.origin.bytes()
    }
}

/// A trace in a line. It tells of all spans that ever came in while one of the trace was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The trace.
    pub trace_id: TraceId,
    /// Service of its first span: the one without a parent, or else the one that began first.
    pub service: String,
    /// Name of its first span.
    pub name: String,
    /// When it began.
    pub start: Nanos,
    /// Its last end.
    pub end: Nanos,
    /// How many spans it has.
    pub spans: u64,
    /// Whether one of its spans failed.
    pub failed: bool,
    /// Services that took part.
    pub services: BTreeSet<String>,
}

/// What makes a series. The order is that of answers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesKey {
    /// Name of the metric.
    pub metric: String,
    /// Name of the service.
    pub service: String,
    /// Id of the instance.
    pub instance_id: String,
    /// Labels.
    pub labels: Attributes,
}

/// What a measurement says about the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temporality {
    /// A state: the newest says all.
    Gauge,
    /// A total since a beginning.
    Cumulative,
    /// What was added since the measurement before.
    Delta,
}

/// A measurement, as it comes in.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// Of which series.
    pub key: SeriesKey,
    /// What it says about the one before.
    pub temporality: Temporality,
    /// The value; for a histogram its sum.
    pub value: f64,
    /// Number of measurements behind it; zero unless it is a histogram.
    pub count: u64,
    /// From when on it counts; zero where nobody said.
    pub start: Nanos,
    /// When it was measured.
    pub time: Nanos,
}

impl Measurement {
    /// What it takes in memory.
    pub fn bytes(&self) -> usize {
        let key = &self.key;
        size_of::<Self>() + key.metric.len() + key.service.len() + key.instance_id.len() + bytes_of(&key.labels)
    }
}

/// The newest of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// The value; for a histogram its sum.
    pub value: f64,
    /// Number of measurements behind it; zero unless it is a histogram.
    pub count: u64,
    /// When it was measured.
    pub time: Nanos,
    /// How fast a total grew between the last two measurements, per second.
    pub rate: Option<f64>,
}

/// What an instance uses of its machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Usage {
    /// Name of the service.
    pub service: String,
    /// Id of the instance.
    pub instance_id: String,
    /// Processor use; 1.0 is one core.
    pub cpu_cores: f64,
    /// Resident memory.
    pub memory_bytes: u64,
    /// When it was measured.
    pub time: Nanos,
}

/// Which lines are meant. All that is said must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LineFilter {
    /// Only of this service.
    pub service: Option<String>,
    /// Only of this instance.
    pub instance_id: Option<String>,
    /// Only at least as grave.
    pub level: Level,
    /// Only with this in text or attributes, whatever the case.
    pub text: Option<Needle>,
    /// Only of this trace.
    pub trace_id: Option<TraceId>,
    /// Only from this time on.
    pub start: Option<Nanos>,
    /// Only before this time.
    pub end: Option<Nanos>,
    /// Only those that this says.
    pub query: Option<Expression>,
}

impl LineFilter {
    /// Whether the line is meant.
    pub fn admits(&self, line: &Line) -> bool {
        self.level <= line.level
            && self.start.is_none_or(|start| start <= line.time)
            && self.end.is_none_or(|end| line.time < end)
            && self.trace_id.is_none_or(|id| line.trace_id == Some(id))
            && self.service.as_ref().is_none_or(|service| *service == line.origin.service)
            && self.instance_id.as_ref().is_none_or(|id| *id == line.origin.instance_id)
            && self.text.as_ref().is_none_or(|needle| line.has_text(needle))
            && self.query.as_ref().is_none_or(|query| query.admits(line))
    }
}

/// Which traces are meant. All that is said must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceFilter {
    /// Only those in which this service took part.
    pub service: Option<String>,
    /// Only those that took at least as many nanoseconds.
    pub nanos_min: u64,
    /// Only those with a failed span.
    pub failed_only: bool,
    /// Only those that began at or after this time.
    pub start: Option<Nanos>,
    /// Only those that began before this time.
    pub end: Option<Nanos>,
    /// Only those that took at most as many nanoseconds.
    pub nanos_max: Option<u64>,
    /// Only those with a span of this name.
    pub operation: Option<String>,
    /// Only those with a span that has all of these; the same span that has the name, and is of the service.
    pub attributes: Attributes,
}

impl TraceFilter {
    /// Whether one span must be looked for: summaries do not tell.
    pub fn asks_spans(&self) -> bool {
        self.operation.is_some() || !self.attributes.is_empty()
    }

    /// Whether this is the span that is looked for.
    pub fn admits_span(&self, span: &Span) -> bool {
        self.operation.as_ref().is_none_or(|name| *name == span.name)
            && self.service.as_ref().is_none_or(|service| *service == span.origin.service)
            && self
                .attributes
                .iter()
                .all(|pair| span.attributes.contains(pair) || span.origin.attributes.contains(pair))
    }

    /// Whether the trace is meant.
    pub fn admits(&self, summary: &Summary) -> bool {
        self.start.is_none_or(|start| start <= summary.start)
            && self.end.is_none_or(|end| summary.start < end)
            && summary.end.0.saturating_sub(summary.start.0) >= self.nanos_min
            && self.nanos_max.is_none_or(|most| summary.end.0.saturating_sub(summary.start.0) <= most)
            && (summary.failed || !self.failed_only)
            && self.service.as_ref().is_none_or(|service| summary.services.contains(service))
    }
}

/// A text to look for, whatever the case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needle(String);

impl Needle {
    /// Takes a text; an empty one is in every other.
    pub fn new(text: &str) -> Self {
        Self(text.to_lowercase())
    }

    /// The text in lower case.
    pub(crate) fn lower(&self) -> &str {
        &self.0
    }

    /// Whether it is in a text.
    pub fn is_in(&self, text: &str) -> bool {
        // Most text is ASCII, and the scan of a full ring shows in its time whether each line allocates.
        if text.is_ascii() {
            let (needle, hay) = (self.0.as_bytes(), text.as_bytes());
            let Some(first) = needle.first() else { return true };
            return hay.len() >= needle.len()
                && (0..=hay.len() - needle.len()).any(|at| {
                    hay[at].to_ascii_lowercase() == *first && hay[at..at + needle.len()].eq_ignore_ascii_case(needle)
                });
        }
        text.to_lowercase().contains(&self.0)
    }
}

/// Cuts a text to at most `bytes_max` bytes, at the border of a character.
pub fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let end = (0..=bytes_max).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.shrink_to_fit();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_hex_of_their_length_and_never_zero() {
        let id = TraceId::parse("4bf92f3577b34da6a3ce929d0e0e4736").unwrap();
        assert_eq!(id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(TraceId::parse("4BF92F3577B34DA6A3CE929D0E0E4736"), Some(id));
        for text in ["", "+bf92f3577b34da6a3ce929d0e0e4736", "4bf9", "00000000000000000000000000000000", "ü"] {
            assert_eq!(TraceId::parse(text), None, "{text}");
        }
        assert_eq!(SpanId::parse("00f067aa0ba902b7").unwrap().to_string(), "00f067aa0ba902b7");
    }

    #[test]
    fn a_needle_is_found_whatever_the_case() {
        for (needle, text, found) in [
            ("", "anything", true),
            ("TimeOut", "connection timeout after 3 s", true),
            ("timeout", "time out", false),
            ("größe", "GRÖSSE", false),
            ("straße", "Die STRAßE", true),
            ("longer than", "the text", false),
        ] {
            assert_eq!(Needle::new(needle).is_in(text), found, "{needle:?} in {text:?}");
        }
    }

    #[test]
    fn a_text_is_cut_at_the_border_of_a_character() {
        assert_eq!(cut("aßc".to_owned(), 2), "a");
        assert_eq!(cut("aßc".to_owned(), 3), "aß");
        assert_eq!(cut("aßc".to_owned(), 9), "aßc");
    }
}
