//! Calls people: groups of alerts to webhooks, all alerts to an Alertmanager.
//!
//! A receiver has a task of its own and always looks at the newest alerts, so one that is away holds up nobody and costs no
//! memory. What it took in is known by the fact that it answered; until then it is told again, ever more seldom.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use ninefold::fetch::Fetcher;
use ninefold::lifecycle::Stop;
use prost_types::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::document::{Document, Receiver, Texts, matches};
use crate::state::{ALERTNAME, Alert};
use crate::watch::now;

/// How often receivers are looked after.
const EVERY: Duration = Duration::from_secs(1);
/// First wait after a failure; it doubles from there.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// Longest wait after a failure.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// How often an Alertmanager is told what still fires; it takes an alert for over some minutes after the last word.
const ALERTMANAGER_EVERY: Duration = Duration::from_secs(60);
/// How long an Alertmanager believes an alert to fire without a word.
const ALERTMANAGER_BELIEVES_SECONDS: i64 = 240;

/// The alerts of one group, by their labels.
type Group = BTreeMap<Texts, Alert>;
/// Groups by the labels that they have alike.
type Groups = BTreeMap<Texts, Group>;

/// Somebody who is called.
struct Called {
    receiver: Receiver,
    /// What it took in, and when.
    taken: BTreeMap<Texts, (Group, Instant)>,
    failures: u32,
    not_before: Instant,
}

/// Calls whoever is to be called, until it is to stop.
pub(crate) async fn run(
    name: String,
    receiver: Receiver,
    document: watch::Receiver<Arc<Document>>,
    firing: watch::Receiver<Arc<Vec<Alert>>>,
    stop: Stop,
) {
    let mut called = Called { receiver, taken: BTreeMap::new(), failures: 0, not_before: Instant::now() };
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.asked() => return,
        }
        if Instant::now() < called.not_before {
            continue;
        }
        let groups = groups(&firing.borrow().clone(), &document.borrow().clone(), &called.receiver);
        if let Err(error) = called.tell(&name, groups).await {
            called.failures = called.failures.saturating_add(1);
            let wait = RETRY_MIN.saturating_mul(1 << called.failures.min(10)).min(RETRY_MAX);
            called.not_before = Instant::now() + wait.mul_f64(0.5 + fastrand::f64() / 2.0);
            tracing::warn!(receiver = name, error, failures = called.failures, "nobody was called; it is tried again");
        } else {
            called.failures = 0;
        }
    }
}

/// What somebody is to know of what fires, in groups.
fn groups(firing: &[Alert], document: &Document, receiver: &Receiver) -> Groups {
    let usual = [ALERTNAME.to_owned()];
    let by = document.group_by.as_deref().unwrap_or(&usual);
    let mut groups = Groups::new();
    for alert in firing {
        let is_meant = matches(&receiver.only, &alert.labels) && silence_of(document, &alert.labels).is_none();
        if is_meant {
            let key = alert.labels.iter().filter(|(name, _)| by.contains(name));
            let key = key.map(|(name, value)| (name.clone(), value.clone())).collect();
            groups.entry(key).or_default().insert(alert.labels.clone(), alert.clone());
        }
    }
    groups
}

/// The silence that keeps an alert from people.
pub(crate) fn silence_of<'a>(document: &'a Document, labels: &Texts) -> Option<&'a str> {
    let now = now();
    let is_on = |end: Option<i64>| end.is_some_and(|end| now < end);
    let mut silences = document.silences.iter();
    silences.find(|(_, one)| is_on(one.end()) && matches(&one.matching, labels)).map(|(name, _)| name.as_str())
}

impl Called {
    async fn tell(&mut self, name: &str, groups: Groups) -> Result<(), String> {
        let keys: BTreeSet<Texts> = groups.keys().chain(self.taken.keys()).cloned().collect();
        for key in keys {
            let group = groups.get(&key).cloned().unwrap_or_default();
            let before = self.taken.get(&key);
            let same = before.is_some_and(|(taken, _)| taken.keys().eq(group.keys()));
            let again =
                if self.receiver.alertmanager.is_some() { ALERTMANAGER_EVERY } else { self.receiver.repeat_every };
            let is_due = before.is_none_or(|(_, at)| at.elapsed() >= again);
            if same && !is_due {
                continue;
            }
            let over: Vec<Alert> = before
                .into_iter()
                .flat_map(|(taken, _)| taken.iter())
                .filter(|(labels, _)| !group.contains_key(*labels))
                .map(|(_, alert)| alert.clone())
                .collect();
            self.send(name, &key, &group, &over).await?;
            if group.is_empty() {
                self.taken.remove(&key);
            } else {
                self.taken.insert(key, (group, Instant::now()));
            }
        }
        Ok(())
    }

    async fn send(&self, name: &str, key: &Texts, group: &Group, over: &[Alert]) -> Result<(), String> {
        let url = self.receiver.url().ok_or("the receiver has no address")?;
        let (url, body) = match self.receiver.alertmanager {
            Some(_) => (below(&url, "/api/v2/alerts")?, alertmanager(group, over)),
            None => (url, webhook(name, key, group, over)),
        };
        Fetcher::new(None).post(&url, "application/json", Bytes::from(body.to_string())).await.map(drop)
    }
}

/// A path below an address.
fn below(url: &Uri, path: &str) -> Result<Uri, String> {
    format!("{}{path}", url.to_string().trim_end_matches('/')).parse().map_err(|_| format!("{url}{path} is no URL"))
}

/// What Alertmanager's webhooks send, version 4: <https://prometheus.io/docs/alerting/latest/configuration/#webhook_config>.
fn webhook(receiver: &str, key: &Texts, group: &Group, over: &[Alert]) -> Value {
    let firing = group.values().map(|alert| one(alert, true));
    let alerts: Vec<Value> = firing.chain(over.iter().map(|alert| one(alert, false))).collect();
    let all = || group.values().chain(over);
    let alike = |of: fn(&Alert) -> &Texts| -> Texts {
        let first = all().next().map(of).cloned().unwrap_or_default();
        first.into_iter().filter(|(name, value)| all().all(|alert| of(alert).get(name) == Some(value))).collect()
    };
    json!({
        "version": "4",
        "groupKey": serde_json::to_string(key).unwrap_or_default(),
        "truncatedAlerts": 0,
        "status": if group.is_empty() { "resolved" } else { "firing" },
        "receiver": receiver,
        "groupLabels": key,
        "commonLabels": alike(|alert| &alert.labels),
        "commonAnnotations": alike(|alert| &alert.annotations),
        "externalURL": "",
        "alerts": alerts,
    })
}

fn one(alert: &Alert, fires: bool) -> Value {
    json!({
        "status": if fires { "firing" } else { "resolved" },
        "labels": alert.labels,
        "annotations": alert.annotations,
        "startsAt": time(alert.firing.unwrap_or(alert.active)),
        "endsAt": if fires { "0001-01-01T00:00:00Z".to_owned() } else { time(now()) },
        "generatorURL": "",
        "fingerprint": fingerprint(&alert.labels),
    })
}

/// What Alertmanager's API v2 takes.
fn alertmanager(group: &Group, over: &[Alert]) -> Value {
    let told = |alert: &Alert, end: i64| {
        json!({
            "labels": alert.labels, "annotations": alert.annotations,
            "startsAt": time(alert.firing.unwrap_or(alert.active)), "endsAt": time(end),
        })
    };
    let firing = group.values().map(|alert| told(alert, now() + ALERTMANAGER_BELIEVES_SECONDS));
    firing.chain(over.iter().map(|alert| told(alert, now()))).collect::<Vec<Value>>().into()
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

    fn alert(name: &str, job: &str) -> Alert {
        let labels = Texts::from([(ALERTNAME, name), ("job", job)].map(|(k, v)| (k.to_owned(), v.to_owned())));
        Alert { labels, annotations: Texts::new(), value: 1.0, active: 0, held: 0, firing: Some(0) }
    }

    #[test]
    fn alerts_are_told_in_groups_and_silenced_ones_are_not() {
        let silences = r#"{"silences": {
            "known": {"matching": {"job": "b"}, "until": "2999-01-01T00:00:00Z", "reason": "x"},
            "over": {"matching": {"job": "a"}, "until": "2001-01-01T00:00:00Z", "reason": "x"}
        }}"#;
        let document = crate::document::read(silences).expect("a document");
        let firing = [alert("slow", "a"), alert("slow", "b"), alert("slow", "c"), alert("wrong", "a")];
        let told = groups(&firing, &document, &Receiver::default());
        assert_eq!(told.values().map(BTreeMap::len).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(silence_of(&document, &firing[1].labels), Some("known"));
        let only = Receiver { only: Texts::from([("job".to_owned(), "c".to_owned())]), ..Receiver::default() };
        assert_eq!(groups(&firing, &document, &only).len(), 1);
    }

    #[test]
    fn a_webhook_says_what_is_alike() {
        let group: Group = [alert("slow", "a"), alert("slow", "b")].map(|one| (one.labels.clone(), one)).into();
        let body = webhook("people", &Texts::new(), &group, &[]);
        assert_eq!(body["commonLabels"], json!({ALERTNAME: "slow"}));
        assert_eq!((body["status"].as_str(), body["alerts"].as_array().map(Vec::len)), (Some("firing"), Some(2)));
        assert_eq!(webhook("people", &Texts::new(), &Group::new(), &[alert("slow", "a")])["status"], "resolved");
    }
}
