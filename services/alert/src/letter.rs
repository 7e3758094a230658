//! What people are told of a group of alerts: webhooks, Alertmanager's API, letters. Pure: the time is given.

use std::collections::BTreeMap;

use prost_types::Timestamp;
use serde_json::{Value, json};

use crate::document::Texts;
use crate::state::Alert;
use crate::template::{self, filled};

/// How long an Alertmanager believes an alert to fire without a word.
const ALERTMANAGER_BELIEVES_SECONDS: i64 = 240;
/// Most alerts that a letter tells one by one.
const LINES_MAX: usize = 100;
/// What a letter is headed by where a receiver says nothing else.
const SUBJECT: &str = "[{{status | upper}}{{count}}] {{alertname | default \"alerts\"}} {{job}}";

/// The alerts of one group, by their labels.
pub(crate) type Group = BTreeMap<Texts, Alert>;

/// What there is to say.
pub(crate) struct News<'a> {
    /// Who is told.
    pub(crate) receiver: &'a str,
    /// What the alerts have alike.
    pub(crate) key: &'a Texts,
    /// What fires.
    pub(crate) group: &'a Group,
    /// What is over.
    pub(crate) over: &'a [Alert],
    /// Now, in seconds since 1970.
    pub(crate) now: i64,
}

impl News<'_> {
    fn status(&self) -> &'static str {
        if self.group.is_empty() { "resolved" } else { "firing" }
    }

    fn alike(&self, of: fn(&Alert) -> &Texts) -> Texts {
        let all = || self.group.values().chain(self.over);
        let first = all().next().map(of).cloned().unwrap_or_default();
        first.into_iter().filter(|(name, value)| all().all(|alert| of(alert).get(name) == Some(value))).collect()
    }

    /// What Alertmanager's webhooks send, version 4:
    /// <https://prometheus.io/docs/alerting/latest/configuration/#webhook_config>.
    pub(crate) fn webhook(&self) -> Value {
        let firing = self.group.values().map(|alert| self.one(alert, true));
        let alerts: Vec<Value> = firing.chain(self.over.iter().map(|alert| self.one(alert, false))).collect();
        json!({
            "version": "4",
            "groupKey": serde_json::to_string(self.key).unwrap_or_default(),
            "truncatedAlerts": 0,
            "status": self.status(),
            "receiver": self.receiver,
            "groupLabels": self.key,
            "commonLabels": self.alike(|alert| &alert.labels),
            "commonAnnotations": self.alike(|alert| &alert.annotations),
            "externalURL": "",
            "alerts": alerts,
        })
    }

    fn one(&self, alert: &Alert, fires: bool) -> Value {
        json!({
            "status": if fires { "firing" } else { "resolved" },
            "labels": alert.labels,
            "annotations": alert.annotations,
            "startsAt": time(alert.firing.unwrap_or(alert.active)),
            "endsAt": if fires { "0001-01-01T00:00:00Z".to_owned() } else { time(self.now) },
            "generatorURL": "",
            "fingerprint": fingerprint(&alert.labels),
        })
    }

    /// What Alertmanager's API v2 takes.
    pub(crate) fn alertmanager(&self) -> Value {
        let told = |alert: &Alert, end: i64| {
            json!({
                "labels": alert.labels, "annotations": alert.annotations,
                "startsAt": time(alert.firing.unwrap_or(alert.active)), "endsAt": time(end),
            })
        };
        let firing = self.group.values().map(|alert| told(alert, self.now + ALERTMANAGER_BELIEVES_SECONDS));
        firing.chain(self.over.iter().map(|alert| told(alert, self.now))).collect::<Vec<Value>>().into()
    }

    /// A text of a receiver with what is alike filled in; `alerts` is a line for each, `status`, `count` and `receiver`
    /// say themselves.
    pub(crate) fn filled(&self, text: &str) -> String {
        let (labels, annotations) = (self.alike(|alert| &alert.labels), self.alike(|alert| &alert.annotations));
        let (lines, count) = (self.lines(), self.group.len().max(self.over.len()).to_string());
        let of = |name: &str| {
            let text = match name {
                "status" => self.status(),
                "count" => &count,
                "alerts" => &lines,
                "receiver" => self.receiver,
                name => match name.strip_prefix("annotations.") {
                    Some(name) => annotations.get(name)?,
                    None => labels.get(name).or_else(|| annotations.get(name))?,
                },
            };
            Some(template::Value::Text(text))
        };
        filled(text, &of)
    }

    /// What a letter is headed by.
    pub(crate) fn subject(&self, own: &str) -> String {
        self.filled(if own.is_empty() { SUBJECT } else { own }).trim_end().to_owned()
    }

    /// What a letter says.
    pub(crate) fn text(&self, own: &str) -> String {
        if own.is_empty() { self.lines() } else { self.filled(own) }
    }

    fn lines(&self) -> String {
        let firing = self.group.values().map(|alert| line("FIRING", alert, alert.firing.unwrap_or(alert.active)));
        let over = self.over.iter().map(|alert| line("RESOLVED", alert, self.now));
        let mut lines: Vec<String> = firing.chain(over).take(LINES_MAX).collect();
        let all = self.group.len() + self.over.len();
        if all > LINES_MAX {
            lines.push(format!("and {} more", all - LINES_MAX));
        }
        lines.join("\n")
    }
}

fn line(status: &str, alert: &Alert, since: i64) -> String {
    let labels: Vec<String> = alert.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let said: Vec<&str> = alert.annotations.values().map(String::as_str).collect();
    format!("{status} since {}: {}\n    {}", time(since), said.join("; "), labels.join(" "))
}

/// FNV-1a over the labels: the same alert has the same one for ever.
fn fingerprint(labels: &Texts) -> String {
    let bytes = labels.iter().flat_map(|(name, value)| name.bytes().chain([0xff]).chain(value.bytes()).chain([0xff]));
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

fn time(seconds: i64) -> String {
    Timestamp { seconds, nanos: 0 }.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::ALERTNAME;

    fn alert(job: &str) -> Alert {
        let labels = Texts::from([(ALERTNAME, "slow"), ("job", job)].map(|(k, v)| (k.to_owned(), v.to_owned())));
        let annotations = Texts::from([("summary".to_owned(), format!("{job} is slow"))]);
        Alert { labels, annotations, value: 1.0, active: 0, held: 0, firing: Some(0) }
    }

    #[test]
    fn a_webhook_and_a_letter_say_what_is_alike() {
        let group: Group = [alert("a"), alert("b")].map(|one| (one.labels.clone(), one)).into();
        let key = Texts::new();
        let news = News { receiver: "people", key: &key, group: &group, over: &[], now: 60 };
        let body = news.webhook();
        assert_eq!(body["commonLabels"], json!({ALERTNAME: "slow"}));
        assert_eq!((body["status"].as_str(), body["alerts"].as_array().map(Vec::len)), (Some("firing"), Some(2)));
        assert_eq!(news.subject(""), "[FIRING2] slow");
        assert!(news.text("").contains("FIRING since 1970-01-01T00:00:00Z: b is slow"));
        assert_eq!(news.filled("{\"text\": {{alertname | json}}}"), "{\"text\": \"slow\"}");
        let news = News { group: &Group::new(), over: &[alert("a")], ..news };
        assert_eq!(news.webhook()["status"], "resolved");
        assert_eq!(news.subject("{{job}}: {{status}}"), "a: resolved");
    }
}
