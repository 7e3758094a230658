//! Settings of the registry.

use std::time::Duration;

use ninefold::fault::Violation;
use ninefold::settings::duration;
use serde::Deserialize;

use crate::{preserve, suspects};

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
    /// How long a draining instance waits, at the longest, for its watchers to have seen it.
    #[serde(with = "duration")]
    pub drain_notice: Duration,
    /// Silences of a service are counted over this long, to tell a sick network from sick instances. Zero: not at all.
    #[serde(with = "duration")]
    pub preservation_window: Duration,
    /// If more than this share of a service, in percent, and more than two, fall silent within the window, none is removed.
    pub preservation_percent: usize,
    /// So many callers whose breakers opened make an instance suspect; 30 % of the callers do as well, if they are two.
    pub reporters_min: usize,
    /// How long a caller's report stands, unless its breaker closes before.
    #[serde(with = "duration")]
    pub report_time: Duration,
    /// Most of a service, in percent, that may be suspect because callers report it.
    pub reported_percent_max: usize,
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
            beat_interval: Duration::from_millis(1500),
            grace: Duration::from_millis(500),
            drain_notice: Duration::from_secs(2),
            preservation_window: Duration::from_secs(60),
            preservation_percent: 15,
            reporters_min: 3,
            report_time: Duration::from_secs(30),
            reported_percent_max: 30,
            instances_max: 1000,
            sessions_max: 10_000,
            watchers_max: 10_000,
            events_max: 10_000,
            gather: Duration::from_millis(5),
            heartbeat: Duration::from_secs(5),
        }
    }
}

/// Fewer silences than this are believed, whatever their share.
const SILENCES_BELIEVED: usize = 2;
/// Share of the callers, in percent, that makes a quorum.
const QUORUM_PERCENT: usize = 30;

impl Config {
    /// When silence is doubted.
    pub(crate) fn preservation(&self) -> preserve::Rule {
        let (window, percent) = (self.preservation_window, self.preservation_percent);
        preserve::Rule { window, percent, count: SILENCES_BELIEVED }
    }

    /// When reports count.
    pub(crate) fn suspicion(&self) -> suspects::Rule {
        let (quorum, share_percent) = (self.reporters_min, self.reported_percent_max);
        suspects::Rule { quorum, quorum_percent: QUORUM_PERCENT, share_percent }
    }

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
        check(
            self.drain_notice <= Duration::from_secs(60),
            "drain_notice",
            format!("is {}, must be at most 1m", text(self.drain_notice)),
        );
        for (value, field) in
            [(self.preservation_percent, "preservation_percent"), (self.reported_percent_max, "reported_percent_max")]
        {
            check(value <= 100, field, format!("is {value}, must be at most 100"));
        }
        for (value, field) in [
            (self.reporters_min, "reporters_min"),
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
