//! `ninefold why`: the story of a service or an instance, from what the registry saw and what the control loop did.

use ninefold_proto::ninefold::contract::v1::Change;
use ninefold_proto::ninefold::control::v1::Decision;
use ninefold_proto::ninefold::monitor::v1::{Level, LogFilter, LogRecord, SearchLogsRequest};
use ninefold_proto::ninefold::registry::v1::Event;
use serde_json::{Value, json};

use crate::client::Platform;
use crate::exit::Failure;
use crate::output::{self, Format};

/// Newest grave log lines that are woven in.
const LOG_LINES: usize = 50;
/// Newest grave log lines that are looked at for them: an edge tells each failed request, and a story of those alone would
/// hide what happened to it.
const LOG_LINES_LOOKED_AT: i32 = 1000;
/// What only an entry of the access log has.
const OF_ACCESS_LOG: &str = "network.protocol";

/// One thing in a story.
pub(crate) struct Entry {
    time: Option<prost_types::Timestamp>,
    who: &'static str,
    service: String,
    instance_id: String,
    what: String,
    reason: String,
}

impl Entry {
    fn of_event(event: Event) -> Self {
        let what = output::word(event.kind().as_str_name(), "EVENT_KIND_");
        let reason = match event.observer.as_str() {
            "" | "registry" => event.reason,
            observer => format!("{} (seen by {observer})", event.reason),
        };
        Self { time: event.time, who: "registry", service: event.service, instance_id: event.instance_id, what, reason }
    }

    fn of_decision(decision: Decision) -> Self {
        let what = output::word(decision.action().as_str_name(), "ACTION_");
        let Decision { time, service, instance_id, reason, .. } = decision;
        Self { time, who: "control", service, instance_id, what, reason }
    }

    fn of_change(change: Change) -> Self {
        let what = format!("contract {}", output::word(change.kind().as_str_name(), "CHANGE_KIND_"));
        let by = if change.author.is_empty() { String::new() } else { format!(" (by {})", change.author) };
        let about = if change.package.is_empty() { String::new() } else { format!("{}: ", change.package) };
        let Change { time, service, reason, .. } = change;
        Self {
            time,
            who: "contract",
            service,
            instance_id: String::new(),
            what,
            reason: format!("{about}{reason}{by}"),
        }
    }

    fn of_record(record: LogRecord) -> Self {
        let what = output::word(record.level().as_str_name(), "LEVEL_");
        let LogRecord { time, service, instance_id, body, .. } = record;
        Self { time, who: "log", service, instance_id, what, reason: body }
    }

    /// The entry as a line for people.
    pub(crate) fn line(&self) -> String {
        let subject = if self.instance_id.is_empty() { &self.service } else { &self.instance_id };
        format!(
            "{}  {:<8}  {subject:<24}  {:<16}  {}",
            output::clock(self.time.as_ref()),
            self.who,
            self.what,
            output::cell(&self.reason)
        )
        .trim_end()
        .to_owned()
    }
}

/// Entries for programs.
pub(crate) fn json(entries: &[Entry]) -> Value {
    let one = |entry: &Entry| {
        json!({
            "time": entry.time.as_ref().map(ToString::to_string),
            "source": entry.who,
            "service": entry.service,
            "instanceId": entry.instance_id,
            "what": entry.what,
            "reason": entry.reason,
        })
    };
    Value::Array(entries.iter().map(one).collect())
}

/// Everything that is remembered of a service, or of the instance with this id, oldest first.
pub(crate) async fn story(platform: &Platform, name: &str) -> Result<Vec<Entry>, Failure> {
    let mut events = platform.events(name, "").await?;
    let mut decisions = platform.decisions(name, "").await.unwrap_or_default();
    let mut filter = LogFilter { service: name.to_owned(), level: Level::Warn.into(), ..LogFilter::default() };
    if events.is_empty() && decisions.is_empty() {
        events = platform.events("", name).await?;
        decisions = platform.decisions("", name).await.unwrap_or_default();
        filter = LogFilter { instance_id: name.to_owned(), level: Level::Warn.into(), ..LogFilter::default() };
    }
    let request =
        SearchLogsRequest { filter: Some(filter), page_size: LOG_LINES_LOOKED_AT, ..SearchLogsRequest::default() };
    let records =
        platform.search(platform.monitor().search_logs(request)).await.map(|answer| answer.records).unwrap_or_default();

    let changes = platform.changes(name, "").await.unwrap_or_default();

    let mut entries: Vec<Entry> = Vec::new();
    entries.extend(changes.into_iter().map(Entry::of_change));
    entries.extend(events.into_iter().map(Entry::of_event));
    entries.extend(decisions.into_iter().map(Entry::of_decision));
    let records = records.into_iter().filter(|record| !record.attributes.contains_key(OF_ACCESS_LOG));
    entries.extend(records.take(LOG_LINES).map(Entry::of_record));
    // Each source tells its newest first; of two at the same moment, the one that was noted first comes first.
    entries.reverse();
    entries.sort_by_key(|entry| output::instant(entry.time.as_ref()));
    Ok(entries)
}

/// Prints the newest `lines` entries of the story, oldest first.
pub(crate) async fn why(platform: &Platform, name: &str, lines: usize, format: Format) -> Result<(), Failure> {
    let story = story(platform, name).await?;
    if story.is_empty() {
        return Err(Failure::NotFound(format!(
            "nothing is remembered of {name:?}; `ninefold ps` lists services and instances"
        )));
    }
    let newest = &story[story.len().saturating_sub(lines)..];
    output::print(format, &json(newest), || newest.iter().map(Entry::line).collect::<Vec<_>>().join("\n"))
}
