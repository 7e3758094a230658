//! The document `alerts`: rules, objectives, receivers and silences, as people write them. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use http::Uri;
use ninefold::settings::duration;
use ninefold_promql::Query;
use prost_types::Timestamp;
use serde::Deserialize;

use crate::mail::Mail;
use crate::objective::Objective;
use crate::shipped;
use crate::template;

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
    /// What nobody is called about while something else fires.
    pub(crate) inhibitions: BTreeMap<String, Inhibition>,
    /// Alerts that are told together have these labels alike.
    pub(crate) group_by: Option<Vec<String>>,
}

/// What is watched.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Rule {
    /// What its alerts are called, where that is not its name: several rules may watch for one thing.
    pub(crate) alert: Option<String>,
    /// What is asked, in PromQL.
    pub(crate) expr: Option<String>,
    /// Which log lines are counted, where that is asked instead.
    pub(crate) logs: Option<Logs>,
    /// Which instances must not be silent, where that is asked instead.
    pub(crate) instances: Option<Instances>,
    /// The metric that the answer is kept as, where nobody is to be called.
    pub(crate) record: Option<String>,
    /// How long the condition holds before an alert fires.
    #[serde(rename = "for", with = "duration")]
    pub(crate) wait: Duration,
    /// How long an alert fires on after the condition ended.
    #[serde(with = "duration")]
    pub(crate) keep_firing_for: Duration,
    /// More labels, filled in as annotations are.
    pub(crate) labels: Texts,
    /// What people are told: `{{label}}` and `{{value}}` are filled in, and written as `{{value | humanize}}` says.
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
    /// Only those that a search for this finds, as `ninefold logs --query` says it.
    #[serde(default)]
    pub(crate) query: String,
    /// In the last while.
    #[serde(with = "duration")]
    pub(crate) within: Duration,
    /// The condition holds with more of them than this. At most 999.
    #[serde(default)]
    pub(crate) above: u32,
}

/// Instances that the registry doubts, or removed without their having said goodbye, and in whose place nobody came.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Instances {
    /// Only of this service.
    #[serde(default)]
    pub(crate) service: String,
    /// Removed in the last while.
    #[serde(with = "duration")]
    pub(crate) within: Duration,
}

/// Who is called, by which way. Exactly one.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Receiver {
    /// Somebody who takes what Alertmanager's webhooks send.
    pub(crate) webhook: Option<String>,
    /// An Alertmanager, by its address: its API v2 is told of every alert.
    pub(crate) alertmanager: Option<String>,
    /// Somebody who reads e-mail.
    pub(crate) mail: Option<Mail>,
    /// What a webhook is sent instead, with `{{status}}`, `{{alerts}}`, and labels and annotations that are alike filled in;
    /// or what a letter says.
    pub(crate) text: String,
    /// What a letter is headed by.
    pub(crate) subject: String,
    /// Only alerts with these labels.
    pub(crate) only: Texts,
    /// Called again after this time, while an alert fires.
    #[serde(with = "duration")]
    pub(crate) repeat_every: Duration,
}

impl Default for Receiver {
    fn default() -> Self {
        Self {
            webhook: None,
            alertmanager: None,
            mail: None,
            text: String::new(),
            subject: String::new(),
            only: Texts::new(),
            repeat_every: Duration::from_secs(4 * 3600),
        }
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

/// What nobody is called about while something graver fires that explains it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inhibition {
    /// While an alert with these labels fires,
    pub(crate) source: Texts,
    /// nobody is called about alerts with these,
    pub(crate) target: Texts,
    /// that have these labels alike with it.
    #[serde(default)]
    pub(crate) equal: Vec<String>,
}

impl Inhibition {
    /// Whether an alert explains another.
    pub(crate) fn explains(&self, source: &Texts, target: &Texts) -> bool {
        source != target
            && matches(&self.source, source)
            && matches(&self.target, target)
            && self.equal.iter().all(|name| source.get(name) == target.get(name))
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
        ("inhibitions", document.inhibitions.len()),
    ];
    wrong.extend(
        sizes
            .into_iter()
            .filter(|(_, size)| *size > ENTRIES_MAX)
            .map(|(what, size)| format!("{what}: there are {size}, more than {ENTRIES_MAX}")),
    );
    let shipped: BTreeSet<String> = shipped::names();
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
    for (name, inhibition) in &document.inhibitions {
        if inhibition.source.is_empty() || inhibition.target.is_empty() {
            wrong.push(format!("inhibitions.{name}: name labels of source and target, such as severity"));
        }
    }
    wrong
}

impl Rule {
    fn mistakes(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if let Some(metric) = &self.record {
            wrong.extend(self.mistakes_of_record(metric));
        }
        match (&self.expr, &self.logs, &self.instances) {
            (Some(expr), None, None) => {
                wrong.extend(Query::parse(expr).err().map(|error| format!(".expr: {error}")));
            }
            (None, Some(logs), None) => wrong.extend(logs.mistake().map(|why| format!(".logs.{why}"))),
            (None, None, Some(instances)) if instances.within <= TIME_MAX => {}
            (None, None, Some(_)) => wrong.push(".instances.within: must be at most 30 days".to_owned()),
            _ => wrong.push(": give expr, logs or instances, one of them".to_owned()),
        }
        for (field, texts) in [("labels", &self.labels), ("annotations", &self.annotations)] {
            for (name, text) in texts {
                wrong.extend(template::mistakes(text).into_iter().map(|why| format!(".{field}.{name}: {why}")));
            }
        }
        for (field, time) in [("for", self.wait), ("keep_firing_for", self.keep_firing_for)] {
            if time > TIME_MAX {
                wrong.push(format!(".{field}: at most 720h"));
            }
        }
        wrong
    }
}

impl Rule {
    /// What a rule that keeps answers may not say.
    fn mistakes_of_record(&self, metric: &str) -> Vec<String> {
        let is_name = |text: &str, colons: bool| {
            let fits = |sign: char| sign.is_ascii_alphanumeric() || sign == '_' || colons && sign == ':';
            !text.is_empty() && !text.starts_with(|first: char| first.is_ascii_digit()) && text.chars().all(fits)
        };
        let mut wrong = Vec::new();
        if !is_name(metric, true) {
            wrong.push(format!(".record: {metric:?} is no name of a metric, such as job:http_requests:rate5m"));
        }
        if self.expr.is_none() {
            wrong.push(".record: only an expr can be kept".to_owned());
        }
        let calls = self.alert.is_some() || !self.annotations.is_empty();
        if calls || !self.wait.is_zero() || !self.keep_firing_for.is_zero() {
            let why = "nobody is called, so alert, for, keep_firing_for and annotations have no meaning";
            wrong.push(format!(".record: {why}"));
        }
        for name in self.labels.keys().filter(|name| !is_name(name, false) || *name == "__name__") {
            wrong.push(format!(".labels: {name:?} is no name of a label"));
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
        let ways = [self.webhook.is_some(), self.alertmanager.is_some(), self.mail.is_some()];
        let one = (ways.into_iter().filter(|is_given| *is_given).count() != 1)
            .then(|| ": give webhook, alertmanager or mail, one of them".to_owned());
        let two = match &self.mail {
            Some(mail) => mail.mistake().map(|why| format!(".mail.{why}")),
            None => (one.is_none() && self.url().is_none())
                .then(|| ": the address is no http:// or https:// URL".to_owned()),
        };
        let texts = [("text", &self.text), ("subject", &self.subject)];
        let texts =
            texts.map(|(field, text)| template::mistakes(text).into_iter().map(move |why| format!(".{field}: {why}")));
        let texts: Vec<String> = texts.into_iter().flatten().collect();
        let short = self.repeat_every < Duration::from_secs(1) || self.repeat_every > TIME_MAX;
        one.into_iter().chain(two).chain(texts).chain(short.then(|| ".repeat_every: 1s to 720h".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_told_with_its_place() {
        let text = r#"{
            "off": ["nothing_like_it"],
            "rules": {"a": {"expr": "up{", "annotations": {"summary": "{{value | shout}}"}}, "b": {}, "k": {"record": "5m rate", "expr": "up", "for": "1m"}, "c": {"logs": {"level": "loud", "within": "5m"}}},
            "objectives": {"o": {"service": "x", "objective": 101}},
            "receivers": {
                "r": {"webhook": "ftp://x"}, "s": {},
                "m": {"mail": {"server": "mail:25", "from": "a@b.example", "to": ["nobody"]}, "text": "{{open"}
            },
            "inhibitions": {"i": {"source": {}, "target": {"severity": "warning"}}},
            "silences": {"q": {"matching": {}, "until": "soon", "reason": "x"}}
        }"#;
        let wrong = read(text).expect_err("a document with mistakes").join("\n");
        for part in [
            "off: \"nothing_like_it\"",
            "rules.a.expr",
            "rules.a.annotations.summary: \"shout\"",
            "receivers.m.mail.\"nobody\" is no address",
            "receivers.m.text: braces",
            "inhibitions.i: name labels",
            "rules.k.record: \"5m rate\"",
            "rules.k.record: nobody is called",
            "rules.b: give expr, logs or instances",
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
