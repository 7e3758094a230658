//! Settings of central configuration.

use serde::Deserialize;

/// How much is kept, and how many may watch.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Most revisions of a document that are kept; the oldest are forgotten. At least two are, so that the newest can be
    /// rolled back.
    pub revisions_max: u32,
    /// Most watchers at a time.
    pub watchers_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { revisions_max: 1000, watchers_max: 10_000 }
    }
}
