//! What becomes of a rule's answers over time: pending, firing, over. Pure: the time is given, in seconds since 1970.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::document::{Rule, Texts};
use crate::template::{Value, filled};

/// Label that names the rule.
pub(crate) const ALERTNAME: &str = "alertname";
/// Most alerts of one rule; more series of an answer are left out, and that is told.
pub(crate) const ALERTS_MAX: usize = 1000;

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Alert {
    /// Labels of the series without its metric's name, and those of the rule.
    pub(crate) labels: Texts,
    /// What people are told.
    pub(crate) annotations: Texts,
    /// The newest value.
    pub(crate) value: f64,
    /// Since when the condition holds.
    pub(crate) active: i64,
    /// When it held last.
    pub(crate) held: i64,
    /// Since when it fires.
    pub(crate) firing: Option<i64>,
}

/// All alerts of a rule, by their labels.
pub(crate) type Alerts = BTreeMap<Texts, Alert>;

/// What is said by a rule's question: labels with a value each.
pub(crate) type Said = Vec<(Texts, f64)>;

/// What is believed after a start although it is not seen, because what it is seen by may come back first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grace {
    /// When the watching began, in seconds since 1970.
    pub(crate) since: i64,
    /// Until when it is believed.
    pub(crate) until: i64,
}

impl Grace {
    /// Nothing is.
    #[cfg(test)]
    pub(crate) const NONE: Self = Self { since: 0, until: 0 };
}

/// What the alerts of a rule are after it was asked.
pub(crate) fn step(name: &str, rule: &Rule, before: &Alerts, said: Said, now: i64, grace: Grace) -> Alerts {
    let seconds = |duration: std::time::Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    let mut after = Alerts::new();
    for (series, value) in said.into_iter().take(ALERTS_MAX) {
        let mut labels = series;
        labels.remove("__name__");
        let more = rule.labels.iter().map(|(key, text)| (key.clone(), told(text, &labels, value)));
        let more: Vec<_> = more.collect();
        labels.extend(more);
        labels.insert(ALERTNAME.to_owned(), rule.alert.as_deref().unwrap_or(name).to_owned());
        let known = before.get(&labels);
        let active = known.map_or(now, |alert| alert.active);
        let is_due = now.saturating_sub(active) >= seconds(rule.wait);
        let firing = known.and_then(|alert| alert.firing).or(is_due.then_some(now));
        let annotations =
            rule.annotations.iter().map(|(key, text)| (key.clone(), told(text, &labels, value))).collect();
        after.insert(labels.clone(), Alert { labels, annotations, value, active, held: now, firing });
    }
    // What fired goes on for a while, so that a condition that comes and goes does not call people each time.
    for (labels, alert) in before {
        let is_kept = alert.firing.is_some() && now.saturating_sub(alert.held) < seconds(rule.keep_firing_for);
        // A node that dies and is back within a second leaves both times alike.
        let is_believed = alert.held <= grace.since && now < grace.until;
        if (is_kept || is_believed) && !after.contains_key(labels) {
            after.insert(labels.clone(), alert.clone());
        }
    }
    after
}

fn told(text: &str, labels: &Texts, value: f64) -> String {
    filled(text, &|name| match name {
        "value" => Some(Value::Number(value)),
        name => labels.get(name).map(|label| Value::Text(label)),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn rule(wait: u64, keep: u64) -> Rule {
        Rule {
            wait: Duration::from_secs(wait),
            keep_firing_for: Duration::from_secs(keep),
            annotations: Texts::from([("summary".to_owned(), "{{job}} is at {{value}}%".to_owned())]),
            ..Rule::default()
        }
    }

    fn said(job: &str) -> Said {
        vec![(Texts::from([("job".to_owned(), job.to_owned()), ("__name__".to_owned(), "m".to_owned())]), 0.25)]
    }

    #[test]
    fn an_alert_waits_fires_and_ends() {
        let rule = rule(60, 0);
        let first = step("r", &rule, &Alerts::new(), said("a"), 100, Grace::NONE);
        assert_eq!(first.values().next().map(|alert| (alert.active, alert.firing)), Some((100, None)));
        let second = step("r", &rule, &first, said("a"), 159, Grace::NONE);
        assert_eq!(second.values().next().and_then(|alert| alert.firing), None);
        let third = step("r", &rule, &second, said("a"), 160, Grace::NONE);
        let alert = third.values().next().expect("an alert");
        assert_eq!((alert.active, alert.firing), (100, Some(160)));
        assert_eq!(alert.annotations["summary"], "a is at 0.25%");
        assert_eq!(
            alert.labels,
            Texts::from([("job", "a"), (ALERTNAME, "r")].map(|(k, v)| (k.to_owned(), v.to_owned())))
        );
        assert!(step("r", &rule, &third, Vec::new(), 175, Grace::NONE).is_empty());
        let labels = Texts::from([("place".to_owned(), "house {{ $labels.job }}".to_owned())]);
        let named = Rule { alert: Some("named".to_owned()), labels, ..rule.clone() };
        let told = step("r", &named, &Alerts::new(), said("a"), 100, Grace::NONE);
        let labels = &told.values().next().expect("an alert").labels;
        assert_eq!((labels["place"].as_str(), labels[ALERTNAME].as_str()), ("house a", "named"));
        let again =
            step("r", &rule, &step("r", &rule, &first, Vec::new(), 130, Grace::NONE), said("a"), 161, Grace::NONE);
        assert_eq!(again.values().next().and_then(|alert| alert.firing), None, "a gap begins the wait anew");
    }

    #[test]
    fn an_alert_fires_on_for_a_while_but_does_not_wait_on() {
        let rule = rule(10, 60);
        let pending = step("r", &rule, &Alerts::new(), said("a"), 100, Grace::NONE);
        assert!(step("r", &rule, &pending, Vec::new(), 105, Grace::NONE).is_empty());
        let firing = step("r", &rule, &pending, said("a"), 110, Grace::NONE);
        let kept = step("r", &rule, &firing, Vec::new(), 169, Grace::NONE);
        assert_eq!(kept, firing);
        assert!(step("r", &rule, &kept, Vec::new(), 170, Grace::NONE).is_empty());
    }

    #[test]
    fn after_a_start_what_fired_is_believed_until_it_could_have_been_seen() {
        let rule = rule(10, 0);
        let pending = step("r", &rule, &Alerts::new(), said("a"), 100, Grace::NONE);
        let firing = step("r", &rule, &pending, said("a"), 110, Grace::NONE);
        let grace = Grace { since: 200, until: 260 };
        let at_once = Grace { since: 110, until: 170 };
        assert!(
            !step("r", &rule, &firing, Vec::new(), 110, at_once).is_empty(),
            "back within the second in which it held"
        );
        let believed = step("r", &rule, &firing, Vec::new(), 201, grace);
        assert_eq!(believed, firing);
        let seen = step("r", &rule, &believed, said("a"), 230, grace);
        assert_eq!(seen.values().next().and_then(|alert| alert.firing), Some(110), "as if nothing had been");
        assert!(step("r", &rule, &seen, Vec::new(), 240, grace).is_empty(), "seen, and over");
        assert!(step("r", &rule, &believed, Vec::new(), 260, grace).is_empty(), "never seen again");
    }
}
