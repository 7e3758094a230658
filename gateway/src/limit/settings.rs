//! Limits as settings name them.

use std::collections::BTreeMap;
use std::time::Duration;

use ninefold::settings::duration;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Most limits in one place.
const LIMITS_MAX: usize = 16;
/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// Longest time of a rate; longer ones are quotas.
const TIME_MAX: Duration = Duration::from_secs(3600);

/// How many requests may come.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Whose requests are counted together.
    pub by: By,
    /// How many.
    pub requests: u32,
    /// In what time: at most `1h` for a rate, or `day` or `month` (by the calendar, in UTC) for a quota.
    #[serde(default = "second")]
    pub per: Per,
    /// How many at once, of a rate. As many as `requests` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
}

/// Whose requests are counted together. Who has no key or claim, or is not known, is counted by address.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// Those of an IP address (of IPv6, its /64 network).
    Address,
    /// Those of a known caller.
    Caller,
    /// Those with an API key.
    Key,
    /// Those with the same value of a claim.
    Claim(String),
    /// All.
    All,
}

/// In what time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// A time that moves on with each request.
    Time(Duration),
    /// A day of the calendar, in UTC.
    Day,
    /// A month of the calendar, in UTC.
    Month,
}

const fn second() -> Per {
    Per::Time(Duration::from_secs(1))
}

impl Serialize for Per {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Time(time) => serializer.serialize_str(&duration::format(*time)),
            Self::Day => serializer.serialize_str("day"),
            Self::Month => serializer.serialize_str("month"),
        }
    }
}

impl<'de> Deserialize<'de> for Per {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "day" => Ok(Self::Day),
            "month" => Ok(Self::Month),
            text => duration::parse(text).map(Self::Time).map_err(serde::de::Error::custom),
        }
    }
}

/// Where limits and quotas are counted. Without Redis each edge counts alone, and forgets with its end.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Counters {
    /// Where replicas of the edge share their counters, such as `redis://127.0.0.1:6379`. Absent to count alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<String>,
    /// Longest wait for Redis, for one step; an edge that waits longer counts alone for a second.
    #[serde(with = "duration")]
    pub redis_timeout: Duration,
}

impl Default for Counters {
    fn default() -> Self {
        Self { redis: None, redis_timeout: Duration::from_millis(50) }
    }
}

/// All that is wrong with the limits of one place.
pub(crate) fn mistakes(limits: &BTreeMap<String, Limit>) -> Vec<String> {
    let mut wrong = Vec::new();
    if limits.len() > LIMITS_MAX {
        wrong.push(format!("limits are {}, more than {LIMITS_MAX}", limits.len()));
    }
    for (name, limit) in limits {
        let is_name = |letter: u8| letter.is_ascii_alphanumeric() || matches!(letter, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_name) {
            wrong.push(format!("limits.{name:?} is no name: letters, digits, - _ . and at most {NAME_BYTES_MAX}"));
        }
        if limit.requests == 0 || limit.burst == Some(0) {
            wrong.push(format!("limits.{name}: requests and burst must be at least 1"));
        }
        match limit.per {
            Per::Time(time) if time.is_zero() || time > TIME_MAX => {
                wrong.push(format!("limits.{name}.per must be more than 0 and at most 1h, or day, or month"));
            }
            Per::Day | Per::Month if limit.burst.is_some() => {
                wrong.push(format!("limits.{name}.burst: a quota has none"));
            }
            Per::Time(_) | Per::Day | Per::Month => {}
        }
        if matches!(&limit.by, By::Claim(claim) if claim.is_empty()) {
            wrong.push(format!("limits.{name}.by.claim is empty"));
        }
    }
    wrong
}

impl Limit {
    /// In a sentence.
    pub(crate) fn words(&self) -> String {
        let whose = match &self.by {
            By::Address => "of one address".to_owned(),
            By::Caller => "of one caller".to_owned(),
            By::Key => "with one key".to_owned(),
            By::Claim(claim) => format!("with one {claim:?}"),
            By::All => "of all together".to_owned(),
        };
        match self.per {
            Per::Time(time) => {
                let burst = self.burst.unwrap_or(self.requests);
                format!("{} requests in {} {whose}, {burst} at once", self.requests, duration::format(time))
            }
            Per::Day => format!("{} requests a day {whose}", self.requests),
            Per::Month => format!("{} requests a month {whose}", self.requests),
        }
    }
}
