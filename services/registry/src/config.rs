//! Settings of the registry.

use std::time::Duration;

use ninefold::fault::Violation;
use ninefold::settings::duration;
use serde::Deserialize;

/// How the registry holds, forgets and tells.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How long registrations outlive the node that holds their sessions, if it dies. At least 2 s, etcd's bound.
    #[serde(with = "duration")]
    pub lease: Duration,
    /// How often an instance is asked to beat; three beats missed count as a lost session.
    #[serde(with = "duration")]
    pub beat_interval: Duration,
    /// How long an instance stays, as suspect, after its session was lost.
    #[serde(with = "duration")]
    pub grace: Duration,
    /// Most instances of one service; stops a crash loop from filling the store.
    pub instances_max: usize,
    /// Most sessions of this node, those in their grace time included.
    pub sessions_max: usize,
    /// Most open watches of this node.
    pub watchers_max: usize,
    /// Most events that the node remembers.
    pub events_max: usize,
    /// How long changes are gathered before watchers are told; a burst then is one message.
    #[serde(with = "duration")]
    pub gather: Duration,
    /// How often a silent watch is told that it lives.
    #[serde(with = "duration")]
    pub heartbeat: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(10),
            beat_interval: Duration::from_secs(2),
            grace: Duration::from_millis(500),
            instances_max: 1000,
            sessions_max: 10_000,
            watchers_max: 10_000,
            events_max: 10_000,
            gather: Duration::from_millis(5),
            heartbeat: Duration::from_secs(5),
        }
    }
}

impl Config {
    /// Names every setting whose value cannot work. Empty when all is well.
    pub fn mistakes(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        let mut check = |holds: bool, field: &str, description: String| {
            if !holds {
                found.push(Violation::new(field, description));
            }
        };
        let text = duration::format;
        check(self.lease >= Duration::from_secs(2), "lease", format!("is {}, must be at least 2s", text(self.lease)));
        check(
            self.beat_interval >= Duration::from_millis(10),
            "beat_interval",
            format!("is {}, must be at least 10ms", text(self.beat_interval)),
        );
        check(
            self.heartbeat >= Duration::from_millis(10),
            "heartbeat",
            format!("is {}, must be at least 10ms", text(self.heartbeat)),
        );
        check(self.gather <= Duration::from_secs(1), "gather", format!("is {}, must be at most 1s", text(self.gather)));
        for (value, field) in [
            (self.instances_max, "instances_max"),
            (self.sessions_max, "sessions_max"),
            (self.watchers_max, "watchers_max"),
            (self.events_max, "events_max"),
        ] {
            check(value > 0, field, "is 0, must be at least 1".to_owned());
        }
        found
    }
}
