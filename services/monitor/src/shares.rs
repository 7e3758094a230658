//! Who may send how much: a limit for each service where one is set, and fair shares when there is little room. Pure.
//!
//! While there is room anybody may use it. A service that sent more than an equal share lately fills no more than half of
//! it, and one that is alone leaves an eighth: those who have sent little are heard beside a flood, and before it is known
//! for one. How far each may fill it is said here; that no one fills more is the tier's to see to, where it counts.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::Deserialize;

/// Services that are told apart; those beyond share one account.
const SERVICES_MAX: usize = 10_000;
/// What was sent so long ago counts half.
const HALF_LIFE: Duration = Duration::from_secs(10);
/// Below so many bytes of late nobody is loud.
const QUIET_BYTES: f64 = 64.0 * 1024.0;
/// The account of all services beyond the bound.
const OTHERS: &str = "(others)";

/// Limits of services.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Bytes a second that each service may send on average, ten seconds of it at once. Zero for no limit.
    pub bytes_per_second: u64,
    /// Bytes a second for single services, by name.
    pub services: BTreeMap<String, u64>,
}

/// What a service has sent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Account {
    /// Records that were taken in.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records that were refused for its share or its limit.
    pub refused: u64,
    /// Bytes of late: what is older counts less.
    late: f64,
    /// What it may send still, where it has a limit.
    budget: f64,
    /// When it was looked at last.
    seen: Duration,
}

/// The accounts of all services.
#[derive(Debug, Default)]
pub struct Shares {
    config: Config,
    accounts: HashMap<String, Account>,
}

/// How many seconds of its rate a service may send at once.
const BURST_SECONDS: f64 = 10.0;

impl Shares {
    /// Begins with limits.
    pub fn new(config: Config) -> Self {
        Self { config, accounts: HashMap::new() }
    }

    /// Goes on with other limits.
    pub fn limit(&mut self, config: Config) {
        self.config = config;
    }

    /// Asks whether a service may send a batch at a time, counted from any beginning: up to where it may fill a room of so
    /// many bytes, or when it may come back. What is not taken in then is [`Shares::refused`].
    ///
    /// # Errors
    /// How long to wait.
    pub fn ask(
        &mut self,
        service: &str,
        records: u64,
        bytes: usize,
        now: Duration,
        room: usize,
    ) -> Result<usize, Duration> {
        let up_to = self.up_to(service, bytes_of(bytes), now, room);
        let rate = to_float(self.config.services.get(service).copied().unwrap_or(self.config.bytes_per_second));
        let account = self.account(service, now);
        if rate > 0.0 {
            let missing = bytes_of(bytes).min(rate * BURST_SECONDS) - account.budget;
            if missing > 0.0 {
                account.refused += records;
                return Err(Duration::try_from_secs_f64(missing / rate).unwrap_or(HALF_LIFE));
            }
        }
        account.late += bytes_of(bytes);
        account.budget -= bytes_of(bytes);
        Ok(up_to)
    }

    /// Takes back what was asked for and not taken in.
    pub fn refused(&mut self, service: &str, records: u64, bytes: usize) {
        let account = self.account_as_seen(service);
        account.refused += records;
        account.late = (account.late - bytes_of(bytes)).max(0.0);
        account.budget += bytes_of(bytes);
    }

    /// Counts what was taken in.
    pub fn taken(&mut self, service: &str, records: u64, bytes: usize) {
        let account = self.account_as_seen(service);
        account.records += records;
        account.bytes += bytes as u64;
    }

    /// What services have sent, the loudest first.
    pub fn told(&self, services_max: usize) -> Vec<(String, Account)> {
        let mut told: Vec<_> = self.accounts.iter().map(|(service, account)| (service.clone(), *account)).collect();
        told.sort_by(|one, other| other.1.bytes.cmp(&one.1.bytes).then_with(|| one.0.cmp(&other.0)));
        told.truncate(services_max);
        told
    }

    fn up_to(&self, service: &str, bytes: f64, now: Duration, room: usize) -> usize {
        let late = |account: &Account| account.late * fading(now.saturating_sub(account.seen));
        let own = self.accounts.get(service).map_or(0.0, late);
        if own + bytes <= QUIET_BYTES {
            return room;
        }
        let (mut all, mut senders) = (own, 1.0);
        for (_, account) in self.accounts.iter().filter(|(name, _)| name.as_str() != service) {
            let late = late(account);
            if late > QUIET_BYTES {
                all += late;
                senders += 1.0;
            }
        }
        let is_alone = senders < 2.0;
        if !is_alone && own + bytes < (all + bytes) / senders {
            room
        } else if is_alone || own < all / senders {
            room - room / 8
        } else {
            room / 2
        }
    }

    fn account_as_seen(&mut self, service: &str) -> &mut Account {
        let seen = self.accounts.get(service).map_or(Duration::ZERO, |account| account.seen);
        self.account(service, seen)
    }

    fn account(&mut self, service: &str, now: Duration) -> &mut Account {
        let is_known = self.accounts.contains_key(service);
        let name = if is_known || self.accounts.len() < SERVICES_MAX { service } else { OTHERS };
        let rate = to_float(self.config.services.get(service).copied().unwrap_or(self.config.bytes_per_second));
        let account = self.accounts.entry(name.to_owned()).or_insert_with(|| Account {
            budget: rate * BURST_SECONDS,
            seen: now,
            ..Account::default()
        });
        let since = now.saturating_sub(account.seen);
        account.late *= fading(since);
        account.budget = (account.budget + rate * since.as_secs_f64()).min(rate * BURST_SECONDS);
        account.seen = account.seen.max(now);
        account
    }
}

fn fading(since: Duration) -> f64 {
    0.5_f64.powf(since.as_secs_f64() / HALF_LIFE.as_secs_f64())
}

#[expect(clippy::cast_precision_loss, reason = "bytes of batches and of rates are far below 2^53")]
const fn to_float(bytes: u64) -> f64 {
    bytes as f64
}

fn bytes_of(bytes: usize) -> f64 {
    to_float(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_service_with_a_limit_is_told_when_to_come_back() {
        let mut shares = Shares::new(serde_json::from_str(r#"{"services":{"loud":1000}}"#).unwrap());
        let (free, all) = (MIB, Ok(MIB));
        assert_eq!(shares.ask("loud", 1, 10_000, at(0), free), all, "ten seconds of it at once");
        let wait = shares.ask("loud", 3, 500, at(0), free).unwrap_err();
        assert_eq!(wait, Duration::from_millis(500));
        assert_eq!(shares.ask("other", 1, 50 * MIB, at(0), free), Ok(MIB - MIB / 8));
        assert_eq!(shares.ask("loud", 1, 500, at(1), free), all);
        shares.refused("loud", 0, 500);
        assert_eq!(shares.ask("loud", 1, 500, at(1), free), all, "what was not taken in is not spent");
        assert_eq!(shares.told(9)[0].1.refused + shares.told(9)[1].1.refused, 3);
        // One that is larger than the burst comes through when the burst is whole, rather than never.
        assert_eq!(shares.ask("loud", 1, 50_000, at(20), free), all);
        shares.limit(Config::default());
        assert!(shares.ask("loud", 1, 50_000, at(20), free).is_ok());
    }

    #[test]
    fn a_flood_leaves_room_for_others() {
        let mut shares = Shares::default();
        let (mut flood, mut small, mut used) = (0, 0, 0);
        for second in 0..60 {
            // Everything is written to files every 30 s, as a node does.
            if second % 30 == 0 {
                used = 0;
            }
            let mut sends = |service: &str, bytes: usize| {
                let up_to = shares.ask(service, 1, bytes, at(second), 64 * MIB).unwrap();
                let fits = used + bytes <= up_to;
                if fits {
                    used += bytes;
                } else {
                    shares.refused(service, 1, bytes);
                }
                u32::from(fits)
            };
            for _ in 0..100 {
                flood += sends("flood", MIB);
                small += sends("small", 1024);
            }
        }
        assert_eq!(small, 6000, "the small one is never refused");
        assert!(flood >= 60, "the flood gets what is free: {flood}");
    }

    #[test]
    fn whoever_sent_little_has_room_that_no_flood_takes() {
        let mut shares = Shares::default();
        let room = 64 * MIB;
        for _ in 0..100 {
            // Many at once, of whom none is known to be taken in, leave it alone too.
            assert_eq!(shares.ask("flood", 1, MIB, at(0), room), Ok(room - room / 8));
        }
        assert_eq!(shares.ask("small", 1, 1024, at(0), room), Ok(room));
        assert_eq!(shares.ask("middle", 1, MIB, at(0), room), Ok(room), "it is below an equal share");
        assert_eq!(shares.ask("flood", 1, MIB, at(0), room), Ok(room / 2), "it is not alone any more");
        assert_eq!(shares.ask("second", 1, 60 * MIB, at(0), room), Ok(room - room / 8), "a flood begins with a batch");
        assert_eq!(shares.ask("small", 1, 1024, at(1), room), Ok(room));
    }

    #[test]
    fn strangers_without_end_share_an_account() {
        let mut shares = Shares::default();
        for number in 0..2 * SERVICES_MAX {
            let name = format!("s{number}");
            assert_eq!(shares.ask(&name, 1, 1, at(0), 1), Ok(1));
            shares.taken(&name, 1, 1);
        }
        assert!(shares.accounts.len() <= SERVICES_MAX + 1);
        assert_eq!(shares.told(1)[0].0, OTHERS);
    }
}
