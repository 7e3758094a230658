//! The document `alerts`: rules, objectives, receivers and silences, as people write them. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use http::Uri;
use ninefold::settings::duration;
use ninefold_promql::Query;
use prost_types::Timestamp;
use serde::Deserialize;

use crate::objective::Objective;
use crate::shipped;

/// Most rules, objectives, receivers, or silences.
const ENTRIES_MAX: usize = 500;
/// Longest time of a rule.
const TIME_MAX: Duration = Duration::from_secs(30 * 86_400);

/// Texts by name.
pub(crate) type Texts = BTreeMap<String, String>;

/// All that is written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Document {
    /// What is watched beside what is shipped. A rule by the name of a shipped one replaces it.
    pub(crate) rules: BTreeMap<String, Rule>,
    /// Names of shipped rules that are not wanted.
    pub(crate) off: BTreeSet<String>,
    /// How good services want to be.
    pub(crate) objectives: BTreeMap<String, Objective>,
    /// Who is called.
    pub(crate) receivers: BTreeMap<String, Receiver>,
    /// Who is not to be called about what.
    pub(crate) silences: BTreeMap<String, Silence>,
    /// Alerts that are told together have these labels alike.
    pub(crate) group_by: Option<Vec<String>>,
}

/// What is watched.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Rule {
    /// What is asked, in PromQL.
    pub(crate) expr: Option<String>,
    /// Which log lines are counted, where that is asked instead.
    pub(crate) logs: Option<Logs>,
    /// How long the condition holds before an alert fires.
    #[serde(rename = "for", with = "duration")]
    pub(crate) wait: Duration,
    /// How long an alert fires on after the condition ended.
    #[serde(with = "duration")]
    pub(crate) keep_firing_for: Duration,
    /// More labels.
    pub(crate) labels: Texts,
    /// What people are told: `{{label}}` and `{{value}}` are filled in.
    pub(crate) annotations: Texts,
}

/// Log lines that are counted.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Logs {
    /// Only of this service.
    #[serde(default)]
    pub(crate) service: String,
    /// Only at least as grave.
    #[serde(default)]
    pub(crate) level: String,
    /// Only with this in them.
    #[serde(default)]
    pub(crate) text: String,
    /// In the last while.
    #[serde(with = "duration")]
    pub(crate) within: Duration,
    /// The condition holds with more of them than this. At most 999.
    #[serde(default)]
    pub(crate) above: u32,
}

/// Who is called, by which way. Exactly one.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Receiver {
    /// Somebody who takes what Alertmanager's webhooks send.
    pub(crate) webhook: Option<String>,
    /// An Alertmanager, by its address: its API v2 is told of every alert.
    pub(crate) alertmanager: Option<String>,
    /// Only alerts with these labels.
    pub(crate) only: Texts,
    /// Called again after this time, while an alert fires.
    #[serde(with = "duration")]
    pub(crate) repeat_every: Duration,
}

impl Default for Receiver {
    fn default() -> Self {
        Self { webhook: None, alertmanager: None, only: Texts::new(), repeat_every: Duration::from_secs(4 * 3600) }
    }
}

/// What nobody is called about for a while.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Silence {
    /// Alerts with these labels.
    pub(crate) matching: Texts,
    /// Until when, after RFC 3339.
    pub(crate) until: String,
    /// Why.
    pub(crate) reason: String,
}

impl Silence {
    /// When it ends, in seconds since 1970.
    pub(crate) fn end(&self) -> Option<i64> {
        self.until.parse::<Timestamp>().ok().map(|time| time.seconds)
    }
}

/// Whether labels are among others.
pub(crate) fn matches(wanted: &Texts, labels: &Texts) -> bool {
    wanted.iter().all(|(name, value)| labels.get(name) == Some(value))
}

/// Reads a document.
///
/// # Errors
/// All that is wrong, each with its place.
pub(crate) fn read(content: &str) -> Result<Document, Vec<String>> {
    let reader = &mut serde_json::Deserializer::from_str(content);
    let document: Document = serde_path_to_error::deserialize(reader)
        .map_err(|error| vec![format!("{}: {}", error.path(), error.inner())])?;
    let wrong = mistakes(&document);
    if wrong.is_empty() { Ok(document) } else { Err(wrong) }
}

fn mistakes(document: &Document) -> Vec<String> {
    let mut wrong = Vec::new();
    let sizes = [
        ("rules", document.rules.len()),
        ("objectives", document.objectives.len()),
        ("receivers", document.receivers.len()),
        ("silences", document.silences.len()),
    ];
    wrong.extend(
        sizes
            .into_iter()
            .filter(|(_, size)| *size > ENTRIES_MAX)
            .map(|(what, size)| format!("{what}: there are {size}, more than {ENTRIES_MAX}")),
    );
    let shipped: BTreeSet<String> = shipped::rules().into_keys().collect();
    for name in document.off.difference(&shipped) {
        let known: Vec<&str> = shipped.iter().map(String::as_str).collect();
        wrong.push(format!("off: {name:?} is not shipped; there are {}", known.join(", ")));
    }
    for (name, rule) in &document.rules {
        wrong.extend(rule.mistakes().into_iter().map(|why| format!("rules.{name}{why}")));
    }
    for (name, objective) in &document.objectives {
        wrong.extend(objective.mistakes().into_iter().map(|why| format!("objectives.{name}.{why}")));
    }
    for (name, receiver) in &document.receivers {
        wrong.extend(receiver.mistakes().map(|why| format!("receivers.{name}{why}")));
    }
    for (name, silence) in &document.silences {
        if silence.end().is_none() {
            wrong.push(format!("silences.{name}.until: {:?} is no time such as 2027-01-01T00:00:00Z", silence.until));
        }
        if silence.matching.is_empty() {
            wrong.push(format!("silences.{name}.matching: would silence everything; name a label, such as alertname"));
        }
    }
    wrong
}

impl Rule {
    fn mistakes(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        match (&self.expr, &self.logs) {
            (Some(expr), None) => {
                wrong.extend(Query::parse(expr).err().map(|error| format!(".expr: {error}")));
            }
            (None, Some(logs)) => wrong.extend(logs.mistake().map(|why| format!(".logs.{why}"))),
            _ => wrong.push(": give expr or logs, one of them".to_owned()),
        }
        for (field, time) in [("for", self.wait), ("keep_firing_for", self.keep_firing_for)] {
            if time > TIME_MAX {
                wrong.push(format!(".{field}: at most 720h"));
            }
        }
        wrong
    }
}

/// Words for how grave a line is, from the least.
pub(crate) const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "fatal"];

impl Logs {
    fn mistake(&self) -> Option<String> {
        if !self.level.is_empty() && !LEVELS.contains(&self.level.as_str()) {
            return Some(format!("level: {:?} is none of {}", self.level, LEVELS.join(", ")));
        }
        if self.within.is_zero() || self.within > TIME_MAX {
            return Some("within: above zero, and at most 720h".to_owned());
        }
        (self.above > 999).then(|| "above: at most 999".to_owned())
    }
}

impl Receiver {
    /// Where it is.
    pub(crate) fn url(&self) -> Option<Uri> {
        let url: Uri = self.webhook.as_ref().or(self.alertmanager.as_ref())?.parse().ok()?;
        (matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some()).then_some(url)
    }

    fn mistakes(&self) -> impl Iterator<Item = String> + use<> {
        let one = (self.webhook.is_some() == self.alertmanager.is_some())
            .then(|| ": give webhook or alertmanager, one of them".to_owned());
        let two =
            (one.is_none() && self.url().is_none()).then(|| ": the address is no http:// or https:// URL".to_owned());
        let short = self.repeat_every < Duration::from_secs(1) || self.repeat_every > TIME_MAX;
        one.into_iter().chain(two).chain(short.then(|| ".repeat_every: 1s to 720h".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_told_with_its_place() {
        let text = r#"{
            "off": ["nothing_like_it"],
            "rules": {"a": {"expr": "up{"}, "b": {}, "c": {"logs": {"level": "loud", "within": "5m"}}},
            "objectives": {"o": {"service": "x", "objective": 101}},
            "receivers": {"r": {"webhook": "ftp://x"}, "s": {}},
            "silences": {"q": {"matching": {}, "until": "soon", "reason": "x"}}
        }"#;
        let wrong = read(text).expect_err("a document with mistakes").join("\n");
        for part in [
            "off: \"nothing_like_it\"",
            "rules.a.expr",
            "rules.b: give expr or logs",
            "rules.c.logs.level",
            "objectives.o.objective",
            "receivers.r: the address",
            "receivers.s: give webhook",
            "silences.q.until",
            "silences.q.matching",
        ] {
            assert!(wrong.contains(part), "{part} is not in\n{wrong}");
        }
        assert!(read(r#"{"rules": {"a": {"exrp": "up"}}}"#).expect_err("a typo")[0].starts_with("rules.a"));
        assert!(read("{}").is_ok());
    }
}
