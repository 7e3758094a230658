//! The access log: which requests are told, and what is told of them.

use std::time::Duration;

use ninefold::settings::duration;
use ninefold::telemetry;
use serde::{Deserialize, Serialize};

/// Which requests are told in the access log.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Share of the requests that went well, in percent. Those that failed, or were slow, are told whatever this says.
    pub sample_percent: u32,
    /// A request that took as long as this is told.
    #[serde(with = "duration")]
    pub slow: Duration,
    /// Templates of routes, such as `/v1/health`, of which only failures are told.
    pub quiet: Vec<String>,
    /// Whether anything is told at all.
    pub enabled: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { sample_percent: 100, slow: Duration::from_secs(1), quiet: Vec::new(), enabled: true }
    }
}

impl Config {
    /// All that is wrong.
    pub(crate) fn mistakes(&self) -> Vec<String> {
        let is_wrong = self.sample_percent > 100;
        is_wrong.then(|| format!("sample_percent is {}, more than 100", self.sample_percent)).into_iter().collect()
    }
}

/// Where requests are told.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    config: Config,
    writer: telemetry::Journal,
}

impl Journal {
    /// Tells what `config` says to `writer`.
    pub(crate) const fn new(config: Config, writer: telemetry::Journal) -> Self {
        Self { config, writer }
    }

    /// The same, that tells other requests.
    pub(crate) fn renewed(&self, config: &Config) -> Self {
        Self::new(config.clone(), self.writer.clone())
    }

    /// Whether a request is told.
    pub(crate) fn tells(&self, template: &str, is_failure: bool, took: Duration) -> bool {
        let Config { sample_percent, slow, quiet, enabled } = &self.config;
        let draws = || *sample_percent >= 100 || fastrand::u32(..100) < *sample_percent;
        *enabled && (is_failure || (!quiet.iter().any(|quiet| quiet == template) && (took >= *slow || draws())))
    }

    /// Tells a request.
    pub(crate) fn write(&self, entry: telemetry::journal::Entry) {
        self.writer.write(entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_and_slow_requests_are_told_whatever_is_sampled() {
        let config = Config { sample_percent: 0, quiet: vec!["/health".to_owned()], ..Config::default() };
        let journal = Journal::new(config, telemetry::Journal::silent());
        let (quick, slow) = (Duration::from_millis(1), Duration::from_secs(2));
        assert!(!journal.tells("/v1/x", false, quick));
        assert!(journal.tells("/v1/x", false, slow) && journal.tells("/v1/x", true, quick));
        assert!(!journal.tells("/health", false, slow) && journal.tells("/health", true, quick));
    }
}
