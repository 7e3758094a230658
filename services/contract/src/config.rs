//! Settings of the contract store.

use ninefold::fault::Violation;
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
}

impl Default for Config {
    fn default() -> Self {
        Self { contract_bytes_max: 8 * 1024 * 1024, contracts_max: 10_000, cache_bytes_max: 32 * 1024 * 1024 }
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
        if self.contracts_max == 0 {
            found.push(Violation::new("contracts_max", "is 0, must be at least 1"));
        }
        found
    }
}
