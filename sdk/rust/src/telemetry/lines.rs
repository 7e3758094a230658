//! Log lines on a standard stream: for people on a terminal, one JSON object a line for programs.

use std::fmt::{self, Write as _};
use std::io::IsTerminal as _;

use opentelemetry::Context as OtelContext;
use opentelemetry::trace::TraceContextExt as _;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::layer::{Context, Layer};

use super::printer::Printer;
use super::{Format, Identity, Output};

/// A layer that writes each event as a line.
pub(super) struct Lines {
    look: Look,
    service: String,
    instance_id: String,
    printer: Printer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Plain,
    Coloured,
    Json,
}

impl Lines {
    pub(super) fn new(output: Output, format: Format, identity: &Identity, printer: Printer) -> Self {
        let is_terminal = match output {
            Output::Stdout => std::io::stdout().is_terminal(),
            Output::Stderr => std::io::stderr().is_terminal(),
        };
        let colours = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let look = match format {
            Format::Json => Look::Json,
            Format::Auto if !is_terminal => Look::Json,
            Format::Auto | Format::Human if colours => Look::Coloured,
            Format::Auto | Format::Human => Look::Plain,
        };
        let Identity { service, instance_id, .. } = identity.clone();
        Self { look, service, instance_id, printer }
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut said = Said::default();
        event.record(&mut said);
        let ids = OtelContext::map_current(|context| {
            let span = context.span();
            let ids = span.span_context();
            ids.is_valid().then(|| (ids.trace_id().to_string(), ids.span_id().to_string()))
        });
        let mut time = String::new();
        // Writing to a string cannot fail.
        let _ = SystemTime.format_time(&mut Writer::new(&mut time));
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        self.printer.write(match self.look {
            Look::Json => self.json(&time, level, target, said, ids.as_ref()),
            Look::Plain => human(&time, level, target, &said, false),
            Look::Coloured => human(&time, level, target, &said, true),
        });
    }
}

impl Lines {
    fn json(&self, time: &str, level: Level, target: &str, said: Said, ids: Option<&(String, String)>) -> String {
        let mut line = Map::new();
        let mut put = |key: &str, value: &str| line.insert(key.to_owned(), Value::from(value));
        put("time", time);
        put("level", &level.as_str().to_ascii_lowercase());
        put("message", &said.message);
        put("target", target);
        put("service", &self.service);
        put("instance_id", &self.instance_id);
        if let Some((trace_id, span_id)) = ids {
            put("trace_id", trace_id);
            put("span_id", span_id);
        }
        for (key, value) in said.fields {
            // A field that bears the name of one of ours does not hide it.
            line.entry(key).or_insert(value);
        }
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        text
    }
}

fn human(time: &str, level: Level, target: &str, said: &Said, colours: bool) -> String {
    // The date is not news to somebody at a terminal: 2026-11-23T16:48:37.123456Z becomes 16:48:37.123.
    let clock = time.get(11..23).unwrap_or(time);
    let (dim, bold, reset) = if colours { ("\x1b[2m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
    let colour = match (colours, level) {
        (false, _) => "",
        (true, Level::ERROR) => "\x1b[31m",
        (true, Level::WARN) => "\x1b[33m",
        (true, Level::INFO) => "\x1b[32m",
        (true, _) => "\x1b[34m",
    };
    let mut line = format!("{dim}{clock}{reset} {colour}{level:>5}{reset} {bold}");
    push_printable(&mut line, &said.message);
    line.push_str(reset);
    for (key, value) in &said.fields {
        // Writing to a string cannot fail.
        let _ = write!(line, " {dim}{key}={reset}");
        match value {
            Value::String(text) => push_printable(&mut line, text),
            other => {
                let _ = write!(line, "{other}");
            }
        }
    }
    let _ = writeln!(line, " {dim}{target}{reset}");
    line
}

/// Adds a text with its control characters escaped, so that what a stranger sent cannot forge lines or colours.
fn push_printable(line: &mut String, text: &str) {
    for letter in text.chars() {
        if letter.is_control() {
            line.extend(letter.escape_default());
        } else {
            line.push(letter);
        }
    }
}

/// What an event says.
#[derive(Default)]
struct Said {
    message: String,
    fields: Vec<(String, Value)>,
}

impl Said {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            ("message", other) => self.message = other.to_string(),
            (name, value) => self.fields.push((name.to_owned(), value)),
        }
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, Value::from(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Value::from(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::from(value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, Value::from(crate::fault::chain(value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_people_cannot_be_forged() {
        let said = Said { message: "hello\nworld".into(), fields: vec![("name".into(), Value::from("\x1b[31mred"))] };
        let line = human("2026-11-23T16:48:37.123456Z", Level::INFO, "shop", &said, false);
        assert_eq!(line, "16:48:37.123  INFO hello\\nworld name=\\u{1b}[31mred shop\n");
    }
}
