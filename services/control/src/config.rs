//! Settings of the control role.

use std::time::Duration;

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
