//! What commands print: tables for people, JSON and YAML for programs. Data goes to stdout, talk to stderr.

use std::io::Write as _;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use clap::ValueEnum;
use ninefold_proto::ninefold::monitor::v1::MissingNode;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::Value;

use crate::exit::Failure;

/// The form of what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// One JSON value; one a line where the command follows something.
    Json,
    /// YAML.
    Yaml,
    /// SARIF, for code review; of `contract check` and `contract lint` alone.
    Sarif,
    /// Comma-separated values; of `query` alone.
    Csv,
}

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(ninefold_proto::DESCRIPTOR_SET).expect("our own contracts are well-formed proto3")
});

/// A message of ours as JSON. `name` is its full name, such as `ninefold.registry.v1.Instance`.
pub(crate) fn json(name: &str, message: &impl Message) -> Value {
    let descriptor = POOL.get_message_by_name(name).expect("the caller names a message of ours");
    let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())
        .expect("a message decodes as what it was encoded as");
    serde_json::to_value(&dynamic).expect("a message has a JSON form")
}

/// Messages of ours as a JSON array.
pub(crate) fn json_all(name: &str, messages: &[impl Message]) -> Value {
    Value::Array(messages.iter().map(|message| json(name, message)).collect())
}

/// Writes a line of data. A reader that went away is no error.
pub(crate) fn line(text: impl ToString) {
    let _ = row(text);
}

/// Writes a line of data for a command that goes on and on.
///
/// # Errors
/// [`Failure::ReaderGone`] if nobody reads any more, so that the command can end.
#[expect(clippy::needless_pass_by_value, reason = "callers format their line on the spot")]
pub(crate) fn row(text: impl ToString) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", text.to_string()).and_then(|()| out.flush()).map_err(|_| Failure::ReaderGone)
}

/// Writes a line of talk.
#[expect(clippy::needless_pass_by_value, reason = "callers format their line on the spot")]
pub(crate) fn talk(text: impl ToString) {
    let _ = writeln!(std::io::stderr(), "{}", tame(&text.to_string()));
}

/// Tells on stderr which nodes did not answer: what is printed is without their part.
pub(crate) fn missing(nodes: &[MissingNode]) {
    for missing in nodes {
        talk(format!("warning: the part of node {} is missing: {}", cell(&missing.node), cell(&missing.why)));
    }
}

/// A stranger's text within a line: control characters are written out, so that it moves no cursor, changes no colour or
/// title of a terminal, and forges no line.
pub(crate) fn cell(text: &str) -> String {
    written_out(text, |_| false)
}

/// A text of several lines with all other control characters written out, see [`cell`].
pub(crate) fn tame(text: &str) -> String {
    written_out(text, |letter| matches!(letter, '\n' | '\t'))
}

fn written_out(text: &str, is_kept: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() && !is_kept(letter) {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    shown
}

/// Prints a value for programs, or else what `table` makes.
pub(crate) fn print(format: Format, value: &Value, table: impl FnOnce() -> String) -> Result<(), Failure> {
    print_painted(format, value, || tame(&table()))
}

/// As [`print()`], for a table that holds colours of ours, and of strangers only what went through [`cell`].
pub(crate) fn print_painted(format: Format, value: &Value, table: impl FnOnce() -> String) -> Result<(), Failure> {
    match format {
        Format::Table => match table().trim_end() {
            "" => {}
            text => line(text),
        },
        Format::Json => line(serde_json::to_string_pretty(value).expect("a JSON value has a text form")),
        Format::Yaml => line(
            serde_norway::to_string(value)
                .map_err(|error| Failure::Failed(format!("cannot write YAML: {error}")))?
                .trim_end(),
        ),
        Format::Sarif => return Err(no_sarif()),
        Format::Csv => return Err(no_csv()),
    }
    Ok(())
}

/// Prints one value of a command that goes on and on: a line of JSON, a document of YAML, or else what `text` makes.
///
/// # Errors
/// [`Failure::ReaderGone`] if nobody reads any more.
pub(crate) fn next(format: Format, value: &Value, text: impl FnOnce() -> String) -> Result<(), Failure> {
    match format {
        Format::Table => row(text().trim_end()),
        Format::Json => row(value),
        Format::Yaml => {
            let text = serde_norway::to_string(value)
                .map_err(|error| Failure::Failed(format!("cannot write YAML: {error}")))?;
            row(format!("---\n{}", text.trim_end()))
        }
        Format::Sarif => Err(no_sarif()),
        Format::Csv => Err(no_csv()),
    }
}

fn no_sarif() -> Failure {
    Failure::Usage("sarif is for findings: ninefold contract check, ninefold contract lint".to_owned())
}

fn no_csv() -> Failure {
    Failure::Usage("csv is for rows: ninefold query".to_owned())
}

/// Columns of text, each as wide as its widest cell.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Begins a table with its head.
    pub(crate) fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|cell| (*cell).to_owned()).collect()] }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        self.rows.push(cells.into_iter().map(|text| cell(&text.into())).collect());
    }

    /// The table as text; nothing for a table without rows.
    pub(crate) fn render(&self) -> String {
        if self.rows.len() < 2 {
            return String::new();
        }
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}", width = *width)).collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

/// How long ago a moment was, such as `3s` or `2h`. `-` for none.
pub(crate) fn ago(time: Option<&prost_types::Timestamp>) -> String {
    let then = time.and_then(|time| SystemTime::try_from(*time).ok());
    match then.map(|then| SystemTime::now().duration_since(then).unwrap_or_default()) {
        None => "-".to_owned(),
        Some(past) => short(past),
    }
}

/// A duration in its largest fitting unit.
pub(crate) fn short(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{}ms", duration.as_millis()),
        seconds @ 1..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m", seconds / 60),
        seconds @ 3600..86_400 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// The time of day of a moment in UTC, to the millisecond.
pub(crate) fn clock(time: Option<&prost_types::Timestamp>) -> String {
    let Some(time) = time else { return "-".to_owned() };
    let second_of_day = time.seconds.rem_euclid(86_400);
    format!(
        "{:02}:{:02}:{:02}.{:03}",
        second_of_day / 3600,
        second_of_day / 60 % 60,
        second_of_day % 60,
        time.nanos / 1_000_000
    )
}

/// A moment as a number to sort by.
pub(crate) fn instant(time: Option<&prost_types::Timestamp>) -> (i64, i32) {
    time.map_or((0, 0), |time| (time.seconds, time.nanos))
}

/// The last part of an enum value's name, in small letters: `INSTANCE_STATE_SERVING` becomes `serving`.
pub(crate) fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase().replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["A", "LONG"]);
        table.row(["wide cell", "x"]);
        assert_eq!(table.render(), "A          LONG\nwide cell  x\n");
    }

    #[test]
    fn a_stranger_s_text_cannot_steer_the_terminal_or_forge_a_line() {
        assert_eq!(cell("a\x1b[2Jb\nc\u{9b}31m"), "a\\u{1b}[2Jb\\nc\\u{9b}31m");
        assert_eq!(tame("a\x1b]0;title\x07\n\tb\r"), "a\\u{1b}]0;title\\u{7}\n\tb\\r");
        let mut table = Table::new(&["A"]);
        table.row(["x\ny"]);
        assert_eq!(table.render(), "A\nx\\ny\n");
    }

    #[test]
    fn a_message_of_ours_has_a_json_form() {
        let instance =
            ninefold_proto::ninefold::registry::v1::Instance { service: "product".into(), ..Default::default() };
        assert_eq!(json("ninefold.registry.v1.Instance", &instance)["service"], "product");
    }
}
