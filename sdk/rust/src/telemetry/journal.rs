//! A log of one kind of happening, written as OpenTelemetry log records under a name of its own: no lines for people, no
//! log filter, and cheap enough for one entry a request.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, Severity};
use opentelemetry::{SpanId, TraceFlags, TraceId};
use opentelemetry_sdk::logs::SdkLogger;

/// How grave an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gravity {
    /// As it should be.
    Info,
    /// Odd, or somebody's mistake.
    Warn,
    /// Ours to mend.
    Error,
}

/// A value of an entry.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A text that is known beforehand.
    Word(&'static str),
    /// A whole number.
    Number(i64),
    /// A number.
    Real(f64),
    /// Yes or no.
    Bool(bool),
}

/// What is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// How grave it is.
    pub gravity: Gravity,
    /// What happened, in a line.
    pub body: String,
    /// The trace that it belongs to, as 32 hex digits. Empty for none.
    pub trace_id: String,
    /// What is known of it.
    pub values: Vec<(&'static str, Value)>,
}

/// Where entries are written. Clones write to the same place.
#[derive(Clone)]
pub struct Journal(Arc<dyn Fn(Entry) + Send + Sync>);

impl Journal {
    /// One that hands its entries to `take`, which must not wait.
    pub fn to(take: impl Fn(Entry) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }

    /// One whose entries nobody reads.
    pub fn silent() -> Self {
        Self::to(drop)
    }

    pub(super) fn of(logger: SdkLogger) -> Self {
        Self::to(move |entry| emit(&logger, entry))
    }

    /// Writes an entry. Never waits; what finds no place is dropped.
    pub fn write(&self, entry: Entry) {
        (self.0)(entry);
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Journal")
    }
}

fn emit(logger: &SdkLogger, entry: Entry) {
    let mut record = logger.create_log_record();
    let (number, text) = match entry.gravity {
        Gravity::Info => (Severity::Info, "INFO"),
        Gravity::Warn => (Severity::Warn, "WARN"),
        Gravity::Error => (Severity::Error, "ERROR"),
    };
    record.set_timestamp(SystemTime::now());
    record.set_severity_number(number);
    record.set_severity_text(text);
    record.set_body(entry.body.into());
    if let Ok(trace) = TraceId::from_hex(&entry.trace_id) {
        record.set_trace_context(trace, SpanId::INVALID, Some(TraceFlags::SAMPLED));
    }
    for (name, value) in entry.values {
        record.add_attribute(
            name,
            match value {
                Value::Text(text) => AnyValue::from(text),
                Value::Word(text) => AnyValue::from(text),
                Value::Number(number) => AnyValue::Int(number),
                Value::Real(number) => AnyValue::Double(number),
                Value::Bool(value) => AnyValue::Boolean(value),
            },
        );
    }
    logger.emit(record);
}
