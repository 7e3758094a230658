//! Settings of the control role.

use std::time::Duration;

use ninefold::fault::Violation;
use ninefold::settings::duration;
use serde::Deserialize;

/// How the control loop behaves.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How often everything is compared again, whether or not something happened; ±20 %.
    #[serde(with = "duration")]
    pub resync: Duration,
    /// Longest wait between two starts of a program that keeps dying.
    #[serde(with = "duration")]
    pub backoff_max: Duration,
    /// An instance that served this long has its former deaths forgotten.
    #[serde(with = "duration")]
    pub healthy_after: Duration,
    /// From this many starts in a row without a healthy time between, a slot shows as a crash loop.
    pub crash_loop_after: u32,
    /// A started program that does not serve within this time is stopped and started again.
    #[serde(with = "duration")]
    pub start_deadline: Duration,
    /// Most decisions that the node remembers; the oldest go first.
    pub decisions_max: usize,
    /// How long this node's states are shown to other nodes after it fell silent. At least 2 s.
    #[serde(with = "duration")]
    pub lease: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            resync: Duration::from_secs(10),
            backoff_max: Duration::from_secs(5),
            healthy_after: Duration::from_secs(30),
            crash_loop_after: 5,
            start_deadline: Duration::from_secs(60),
            decisions_max: 10_000,
            lease: Duration::from_secs(10),
        }
    }
}

impl Config {
    /// Names every setting whose value cannot work. Empty when all is well.
    pub fn mistakes(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        for (value, least, field) in [
            (self.resync, Duration::from_millis(10), "resync"),
            (self.backoff_max, Duration::from_millis(10), "backoff_max"),
            (self.start_deadline, Duration::from_millis(10), "start_deadline"),
            (self.lease, Duration::from_secs(2), "lease"),
        ] {
            if value < least {
                let text = format!("is {}, must be at least {}", duration::format(value), duration::format(least));
                found.push(Violation::new(field, text));
            }
        }
        if self.decisions_max == 0 {
            found.push(Violation::new("decisions_max", "is 0, must be at least 1"));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_work_are_all_named() {
        assert!(Config::default().mistakes().is_empty());
        let wrong = Config { lease: Duration::from_secs(1), decisions_max: 0, ..Config::default() };
        let fields: Vec<_> = wrong.mistakes().into_iter().map(|mistake| mistake.field).collect();
        assert_eq!(fields, ["lease", "decisions_max"]);
    }
}
