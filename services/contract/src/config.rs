//! Settings of the contract store.

use std::time::Duration;

use ninefold::fault::Violation;
use ninefold::settings::duration;
use serde::Deserialize;

/// Least that `contract_bytes_max` can be; a contract with its imports is seldom smaller.
const CONTRACT_BYTES_LEAST: usize = 64 * 1024;
/// Most that `contract_bytes_max` can be: a contract is held in memory while it is looked at.
const CONTRACT_BYTES_MOST: usize = 64 * 1024 * 1024;

/// How much the contract store takes in.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Largest descriptor set, in bytes.
    pub contract_bytes_max: usize,
    /// Most contracts that are kept; stops a loop of builds from filling the store.
    pub contracts_max: usize,
    /// Most bytes of contracts that are held in memory, so that what is asked for often is not read again.
    pub cache_bytes_max: usize,
    /// How strictly packages are held that nobody set a level for. Those of alpha, beta and test versions only warn.
    pub level: Strictness,
    /// How far back the revisions of packages of messages are compared with a new one: messages lie in logs and stores.
    #[serde(with = "duration")]
    pub retention: Duration,
    /// How long nobody may have called a deprecated method, or a package, before it may go.
    #[serde(with = "duration")]
    pub unused: Duration,
    /// Most contracts that are kept although they were refused, so that they can be accepted.
    pub refused_max: usize,
    /// Most changes that are remembered.
    pub changes_max: usize,
}

/// How strictly packages are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strictness {
    /// What breaks callers or stored messages at run time is refused.
    Runtime,
    /// What breaks the building of callers is refused as well.
    Strict,
    /// All is told, nothing refused.
    Warn,
    /// Nothing is looked at.
    Off,
}

/// A day, as settings name days by hours.
const DAY: Duration = Duration::from_secs(24 * 3600);

impl Default for Config {
    fn default() -> Self {
        Self {
            contract_bytes_max: 8 * 1024 * 1024,
            contracts_max: 10_000,
            cache_bytes_max: 32 * 1024 * 1024,
            level: Strictness::Runtime,
            retention: 30 * DAY,
            unused: 30 * DAY,
            refused_max: 50,
            changes_max: 10_000,
        }
    }
}

impl Config {
    /// Names every setting whose value cannot work. Empty when all is well.
    pub fn mistakes(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        if !(CONTRACT_BYTES_LEAST..=CONTRACT_BYTES_MOST).contains(&self.contract_bytes_max) {
            found.push(Violation::new(
                "contract_bytes_max",
                format!("is {}, must be {CONTRACT_BYTES_LEAST} to {CONTRACT_BYTES_MOST}", self.contract_bytes_max),
            ));
        }
        let least = [
            ("contracts_max", self.contracts_max),
            ("refused_max", self.refused_max),
            ("changes_max", self.changes_max),
        ];
        for (name, _) in least.into_iter().filter(|(_, value)| *value == 0) {
            found.push(Violation::new(name, "is 0, must be at least 1"));
        }
        found
    }
}
