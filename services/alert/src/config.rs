//! Settings of alerting.

use std::time::Duration;

use serde::Deserialize;

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
}

impl Default for Config {
    fn default() -> Self {
        Self { every: Duration::from_secs(15), grace: Duration::from_secs(120) }
    }
}
