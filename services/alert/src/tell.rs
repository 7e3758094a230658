//! Calls people: groups of alerts to webhooks and by e-mail, all alerts to an Alertmanager.
//!
//! A receiver has a task of its own and always looks at the newest alerts, so one that is away holds up nobody and costs no
//! memory. What it took in is known by the fact that it answered, and written down, so that a restart calls nobody twice
//! and forgets nobody who is to hear that something is over; until then it is told again, ever more seldom.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use ninefold::fetch::Fetcher;
use ninefold::lifecycle::Stop;
use ninefold_store::{Key, Op, Store, Txn};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::document::{Document, Receiver, Texts, matches};
use crate::letter::{Group, News};
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
/// What is not said at all for this long is not known any more. In seconds.
const TOLD_SECONDS_MAX: i64 = 7 * 86_400;

/// Groups by the labels that they have alike.
type Groups = BTreeMap<Texts, Group>;

/// Where it is written down who was told what.
#[derive(Clone, Debug)]
pub(crate) struct Desk {
    pub(crate) store: Arc<dyn Store>,
    /// What keys begin with.
    pub(crate) prefix: String,
}

/// What somebody took in, and when, in seconds since 1970.
type Taken = BTreeMap<Texts, (Group, i64)>;
/// The same, as it is written down.
type Written = Vec<(Texts, Vec<Alert>, i64)>;

/// Somebody who is called.
struct Called {
    receiver: Receiver,
    taken: Taken,
    failures: u32,
    not_before: Instant,
}

/// Calls whoever is to be called, until it is to stop.
pub(crate) async fn run(
    name: String,
    receiver: Receiver,
    document: watch::Receiver<Arc<Document>>,
    firing: watch::Receiver<Option<Arc<Vec<Alert>>>>,
    desk: Desk,
    stop: Stop,
) {
    let taken = desk.load(&name).await;
    let mut called = Called { receiver, taken, failures: 0, not_before: Instant::now() };
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.asked() => return,
        }
        // Before the first evaluation after a start nothing is known, which is not the same as that nothing fires.
        let Some(known) = firing.borrow().clone() else { continue };
        if Instant::now() < called.not_before {
            continue;
        }
        let groups = groups(&known, &document.borrow().clone(), &called.receiver);
        let before = called.taken.clone();
        called.hush(&known, &groups);
        let outcome = called.tell(&name, groups).await;
        if called.taken != before {
            desk.save(&name, &called.taken).await;
        }
        if let Err(error) = outcome {
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
    let all: Vec<&Texts> = firing.iter().map(|alert| &alert.labels).collect();
    let mut groups = Groups::new();
    for alert in firing {
        let is_meant = matches(&receiver.only, &alert.labels)
            && silence_of(document, &alert.labels).is_none()
            && inhibition_of(document, &alert.labels, &all).is_none();
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

/// The inhibition that keeps an alert from people, because another one fires that explains it.
pub(crate) fn inhibition_of<'a>(document: &'a Document, labels: &Texts, firing: &[&Texts]) -> Option<&'a str> {
    let mut inhibitions = document.inhibitions.iter();
    let is_on = |source: &Texts, one: &crate::document::Inhibition| one.explains(source, labels);
    inhibitions.find(|(_, one)| firing.iter().any(|source| is_on(source, one))).map(|(name, _)| name.as_str())
}

impl Called {
    /// Forgets that it was told of what fires on and is silenced, inhibited or not meant any more: nothing is said of that, and
    /// it is told anew once it is meant again.
    fn hush(&mut self, firing: &[Alert], groups: &Groups) {
        let fires: BTreeSet<&Texts> = firing.iter().map(|alert| &alert.labels).collect();
        let none = Group::new();
        for (key, (taken, _)) in &mut self.taken {
            let group = groups.get(key).unwrap_or(&none);
            taken.retain(|labels, _| group.contains_key(labels) || !fires.contains(labels));
        }
        self.taken.retain(|_, (taken, _)| !taken.is_empty());
    }

    async fn tell(&mut self, name: &str, groups: Groups) -> Result<(), String> {
        let keys: BTreeSet<Texts> = groups.keys().chain(self.taken.keys()).cloned().collect();
        let again = if self.receiver.alertmanager.is_some() { ALERTMANAGER_EVERY } else { self.receiver.repeat_every };
        let again = i64::try_from(again.as_secs()).unwrap_or(i64::MAX);
        for key in keys {
            let group = groups.get(&key).cloned().unwrap_or_default();
            let before = self.taken.get(&key);
            let same = before.is_some_and(|(taken, _)| taken.keys().eq(group.keys()));
            let is_due = before.is_none_or(|(_, at)| now().saturating_sub(*at) >= again);
            if same && !is_due {
                continue;
            }
            let over: Vec<Alert> = before
                .into_iter()
                .flat_map(|(taken, _)| taken.iter())
                .filter(|(labels, _)| !group.contains_key(*labels))
                .map(|(_, alert)| alert.clone())
                .collect();
            self.send(&News { receiver: name, key: &key, group: &group, over: &over, now: now() }).await?;
            if group.is_empty() {
                self.taken.remove(&key);
            } else {
                self.taken.insert(key, (group, now()));
            }
        }
        Ok(())
    }

    async fn send(&self, news: &News<'_>) -> Result<(), String> {
        if let Some(mail) = &self.receiver.mail {
            return mail.send(&news.subject(&self.receiver.subject), news.text(&self.receiver.text)).await;
        }
        let url = self.receiver.url().ok_or("the receiver has no address")?;
        let (url, body) = match self.receiver.alertmanager {
            Some(_) => (below(&url, "/api/v2/alerts")?, news.alertmanager().to_string()),
            None if self.receiver.text.is_empty() => (url, news.webhook().to_string()),
            None => (url, news.filled(&self.receiver.text)),
        };
        Fetcher::new(None).post(&url, "application/json", Bytes::from(body)).await.map(drop)
    }
}

impl Desk {
    fn key(&self, receiver: &str) -> Key {
        Key::new(format!("{}{receiver}", self.prefix))
    }

    async fn load(&self, receiver: &str) -> Taken {
        let read = match self.store.get(&self.key(receiver)).await {
            Ok(None) => return Taken::new(),
            Ok(Some(entry)) => serde_json::from_slice::<Written>(&entry.value).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match read {
            Ok(all) => {
                let by_labels = |alerts: Vec<Alert>| alerts.into_iter().map(|one| (one.labels.clone(), one)).collect();
                let recent = all.into_iter().filter(|(_, _, at)| now().saturating_sub(*at) < TOLD_SECONDS_MAX);
                recent.map(|(key, alerts, at)| (key, (by_labels(alerts), at))).collect()
            }
            Err(error) => {
                tracing::warn!(receiver, error, "what was told before is not known; it is told again");
                Taken::new()
            }
        }
    }

    async fn save(&self, receiver: &str, taken: &Taken) {
        let all: Vec<(&Texts, Vec<&Alert>, i64)> =
            taken.iter().map(|(key, (group, at))| (key, group.values().collect(), *at)).collect();
        let Ok(value) = serde_json::to_vec(&all) else { return };
        let op = Op::Put { key: self.key(receiver), value: Bytes::from(value), lease: None };
        if let Err(error) = self.store.txn(Txn { compares: Vec::new(), ops: vec![op] }).await {
            tracing::warn!(receiver, %error, "what was told is not written down; a restart would tell it again");
        }
    }
}

/// A path below an address.
fn below(url: &Uri, path: &str) -> Result<Uri, String> {
    format!("{}{path}", url.to_string().trim_end_matches('/')).parse().map_err(|_| format!("{url}{path} is no URL"))
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
    fn what_is_silenced_is_not_told_to_be_over() {
        let firing = [alert("slow", "a"), alert("slow", "b")];
        let told = groups(&firing, &Document::default(), &Receiver::default());
        let taken = told.into_iter().map(|(key, group)| (key, (group, 0))).collect();
        let mut called = Called { receiver: Receiver::default(), taken, failures: 0, not_before: Instant::now() };
        let silence =
            r#"{"silences": {"s": {"matching": {"job": "a"}, "until": "2999-01-01T00:00:00Z", "reason": "x"}}}"#;
        let document = crate::document::read(silence).expect("a document");
        called.hush(&firing, &groups(&firing, &document, &Receiver::default()));
        let left =
            |called: &Called| called.taken.values().flat_map(|(group, _)| group.keys()).cloned().collect::<Vec<_>>();
        assert_eq!(left(&called), [firing[1].labels.clone()]);
        called.hush(&[], &Groups::new());
        assert_eq!(left(&called), [firing[1].labels.clone()], "what is over is still to be told");
    }

    #[test]
    fn what_another_alert_explains_calls_nobody() {
        let inhibitions = r#"{"inhibitions": {"down": {
            "source": {"alertname": "down"}, "target": {"alertname": "slow"}, "equal": ["job"]
        }}}"#;
        let document = crate::document::read(inhibitions).expect("a document");
        let firing = [alert("slow", "a"), alert("slow", "b"), alert("down", "a")];
        let told = groups(&firing, &document, &Receiver::default());
        let told: Vec<&Texts> = told.values().flat_map(BTreeMap::keys).collect();
        assert_eq!(told, [&firing[2].labels, &firing[1].labels]);
        let all: Vec<&Texts> = firing.iter().map(|alert| &alert.labels).collect();
        assert_eq!(inhibition_of(&document, &firing[0].labels, &all), Some("down"));
    }
}
