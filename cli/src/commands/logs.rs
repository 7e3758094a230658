//! `ninefold logs`: the central logs, searched or followed.

pub(crate) mod delete;
mod origin;

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal as _;
use std::time::SystemTime;

use ninefold_proto::ninefold::monitor::v1::{
    CountLogsRequest, Level, LogFilter, LogRecord, SearchLogsRequest, TailLogsRequest,
};

use crate::args::LogsArgs;
use crate::client::Platform;
use crate::exit::Failure;
use crate::output::{self, Format, Table};

/// Prints matching lines, oldest first; with `--follow` goes on as they come.
pub(crate) async fn logs(platform: &Platform, args: LogsArgs, format: Format) -> Result<(), Failure> {
    let filter = filter(&args)?;
    if args.delete {
        return delete::lines(platform, filter, args.yes, format).await;
    }
    if !args.by.is_empty() {
        return count(platform, filter, args.by, format).await;
    }
    if args.follow {
        return follow(platform, filter, i32::from(args.lines), format).await;
    }
    let request = SearchLogsRequest {
        filter: Some(filter),
        page_size: i32::from(args.lines.max(1)),
        context_lines: i32::from(args.context),
        ..SearchLogsRequest::default()
    };
    let answer = platform.search(platform.monitor().search_logs(request)).await?;
    output::missing(&answer.missing_nodes);
    let mut records = answer.records;
    records.truncate(usize::from(args.lines));
    records.reverse();
    if records.is_empty() {
        output::talk("no matching lines");
    }
    if args.origin {
        return origin::tell(platform, &records, format).await;
    }
    if args.context > 0 {
        return in_context(&records, &answer.around, format);
    }
    output::print_painted(format, &output::json_all("ninefold.monitor.v1.LogRecord", &records), || {
        records.iter().map(text).collect::<Vec<_>>().join("\n")
    })
}

/// Prints lines with those around them; what was asked for is marked, and places apart are told apart.
fn in_context(meant: &[LogRecord], around: &[LogRecord], format: Format) -> Result<(), Failure> {
    // Nodes number lines each by itself.
    let place = |record: &LogRecord| (record.instance_id.clone(), record.sequence);
    let places: BTreeSet<_> = meant.iter().map(place).collect();
    let mut by_instance: BTreeMap<(&str, &str), Vec<&LogRecord>> = BTreeMap::new();
    let all = || meant.iter().chain(around);
    for record in all() {
        by_instance.entry((&record.service, &record.instance_id)).or_default().push(record);
    }
    let time = |record: &LogRecord| record.time.as_ref().map_or((0, 0), |time| (time.seconds, time.nanos));
    by_instance.values_mut().for_each(|records| records.sort_by_key(|record| (time(record), record.sequence)));
    let lines = |records: &Vec<&LogRecord>| {
        let mark = |record: &LogRecord| if places.contains(&place(record)) { '>' } else { ' ' };
        records.iter().map(|record| format!("{} {}", mark(record), text(record))).collect::<Vec<_>>().join("\n")
    };
    let mut sorted: Vec<&LogRecord> = all().collect();
    sorted.sort_by_key(|record| (time(record), record.sequence));
    let sorted: Vec<LogRecord> = sorted.into_iter().cloned().collect();
    output::print_painted(format, &output::json_all("ninefold.monitor.v1.LogRecord", &sorted), || {
        by_instance.values().map(lines).collect::<Vec<_>>().join("\n--\n")
    })
}

async fn count(platform: &Platform, filter: LogFilter, fields: Vec<String>, format: Format) -> Result<(), Failure> {
    let request = CountLogsRequest { filter: Some(filter), fields, ..CountLogsRequest::default() };
    let counted = platform.search(platform.monitor().count_logs(request)).await?;
    output::missing(&counted.missing_nodes);
    output::print(format, &output::json("ninefold.monitor.v1.CountLogsResponse", &counted), || {
        let mut table = Table::new(&["FIELD", "VALUE", "LINES"]);
        for facet in &counted.facets {
            for value in &facet.values {
                table.row([facet.field.clone(), output::cell(&value.value).to_string(), value.lines.to_string()]);
            }
            if facet.others > 0 {
                table.row([facet.field.clone(), "(others)".to_owned(), facet.others.to_string()]);
            }
        }
        table.row(["all".to_owned(), String::new(), counted.lines.to_string()]);
        table.render()
    })
}

async fn follow(platform: &Platform, filter: LogFilter, backlog: i32, format: Format) -> Result<(), Failure> {
    let mut monitor = platform.monitor();
    let mut stream = platform.ask(monitor.tail_logs(TailLogsRequest { filter: Some(filter), backlog })).await?;
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    loop {
        let message = tokio::select! {
            message = stream.message() => message,
            _ = &mut interrupt => return Ok(()),
        };
        let Some(batch) = message.map_err(|status| Failure::of_status(platform.endpoint(), &status))? else {
            return Ok(());
        };
        output::missing(&batch.missing_nodes);
        if batch.missed > 0 {
            output::talk(format!("{} lines were missed", batch.missed));
        }
        for record in &batch.records {
            output::next(format, &output::json("ninefold.monitor.v1.LogRecord", record), || text(record))?;
        }
    }
}

fn filter(args: &LogsArgs) -> Result<LogFilter, Failure> {
    let level = match args.level.to_lowercase().as_str() {
        "" => Level::Unspecified,
        "trace" => Level::Trace,
        "debug" => Level::Debug,
        "info" => Level::Info,
        "warn" | "warning" => Level::Warn,
        "error" => Level::Error,
        "fatal" => Level::Fatal,
        other => {
            return Err(Failure::Usage(format!("{other:?} is no level: use trace, debug, info, warn, error or fatal")));
        }
    };
    Ok(LogFilter {
        service: args.service.clone(),
        instance_id: args.instance.clone(),
        level: level.into(),
        text: args.text.clone(),
        trace_id: args.trace.clone(),
        start_time: args.since.map(|past| prost_types::Timestamp::from(SystemTime::now() - past)),
        end_time: None,
        query: args.query.clone(),
    })
}

/// One line for people, in the colour of its service where the reader is a person.
pub(crate) fn text(record: &LogRecord) -> String {
    let who = output::cell(if record.instance_id.is_empty() { &record.service } else { &record.instance_id });
    let level = output::word(record.level().as_str_name(), "LEVEL_").to_uppercase();
    let level = if level == "UNSPECIFIED" { "-" } else { level.as_str() };
    let mut attributes: Vec<_> = record.attributes.iter().filter(|(key, _)| is_for_people(key)).collect();
    attributes.sort();
    let fields: String =
        attributes.iter().map(|(key, value)| format!(" {}={}", output::cell(key), output::cell(value))).collect();
    let trace =
        if record.trace_id.is_empty() { String::new() } else { format!(" trace={}", output::cell(&record.trace_id)) };
    let (start, end) = if std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        (format!("\x1b[3{}m", 1 + record.service.bytes().map(u32::from).sum::<u32>() % 6), "\x1b[0m")
    } else {
        (String::new(), "")
    };
    // A body of several lines, such as a stack trace, stays readable; indented, none of them looks like a line of its own.
    let body = output::tame(record.body.trim_end()).replace('\n', "\n    ");
    format!("{} {start}{who:<24}{end} {level:<5} {body}{fields}{trace}", output::clock(record.time.as_ref()))
}

/// Whether an attribute says something to a reader, unlike the source position of a line or what is true of every line of
/// a process. `-o json` has them all.
fn is_for_people(key: &str) -> bool {
    let is_of_process =
        ["code.", "host.", "log.", "otel.", "process.", "resource.", "service.", "telemetry.", "thread."];
    key != "trace_id" && !is_of_process.iter().any(|prefix| key.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logged_text_cannot_steer_the_terminal_or_forge_a_line() {
        let record = LogRecord {
            instance_id: "pump-1".into(),
            body: "\x1b[2Jgone\n12:00:00.000 other-1 INFO all is well\n".into(),
            attributes: [("key".to_owned(), "a\x1b]0;b\x07\nc".to_owned())].into(),
            ..LogRecord::default()
        };
        let shown = text(&record);
        assert!(!shown.contains('\x1b') && !shown.contains('\x07'), "{shown:?}");
        assert_eq!(shown.lines().filter(|line| !line.starts_with("    ")).count(), 1, "{shown:?}");
    }
}
