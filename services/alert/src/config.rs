//! Settings of alerting.

use std::time::Duration;

use serde::Deserialize;

use crate::shipped::Pace;

/// How often the node looks.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How often every rule is asked.
    #[serde(with = "ninefold::settings::duration")]
    pub every: Duration,
    /// So long after a start, what was pending or fired before is believed although it is not seen.
    #[serde(with = "ninefold::settings::duration")]
    pub grace: Duration,
    /// How far back the shipped rules look.
    #[serde(with = "ninefold::settings::duration")]
    pub shipped_window: Duration,
    /// What a shipped rule asks after must hold no longer than this before it fires; some wait less by themselves.
    #[serde(with = "ninefold::settings::duration")]
    pub shipped_wait_max: Duration,
}

impl Config {
    /// The pace of the shipped rules.
    pub(crate) const fn pace(&self) -> Pace {
        Pace { window: self.shipped_window, wait_max: self.shipped_wait_max }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(15),
            grace: Duration::from_secs(120),
            shipped_window: Pace::USUAL.window,
            shipped_wait_max: Pace::USUAL.wait_max,
        }
    }
}
