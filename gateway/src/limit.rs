//! How many requests a client may send: GCRA, by address.
//!
//! An edge counts alone, or with its replicas in Redis. Redis may never stand in the way: one step of at most 50 ms (a setting)
//! for a request, and while it does not answer, each edge counts alone, so a client has then as many allowances as there are
//! edges. Nothing that is counted outlives its effect.

mod shared;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::RateLimit;
use crate::error::Error;
use shared::Shared;

/// Most clients that are remembered. More than that at once, and the newcomers are let through uncounted, with a warning:
/// to be refused for the crowd is worse than to be counted late.
const CLIENTS_MAX: usize = 100_000;

/// How fast and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rate {
    /// Time that one request takes from the allowance.
    interval: Duration,
    /// How far ahead of its time a client may be.
    ahead: Duration,
}

impl Rate {
    fn new(limit: &RateLimit) -> Self {
        let interval = Duration::from_secs(1) / limit.per_second;
        Self { interval, ahead: interval * limit.burst }
    }

    /// The generic cell rate algorithm (ITU-T I.371): a client's time runs ahead by one interval a request, and may not
    /// be further ahead than its burst. Times are since some beginning; gives the client's new time, or how long to wait.
    fn admit(self, time: Duration, now: Duration) -> Result<Duration, Duration> {
        let next = time.max(now) + self.interval;
        match next.checked_sub(now + self.ahead) {
            Some(early) if !early.is_zero() => Err(early),
            Some(_) | None => Ok(next),
        }
    }
}

/// Counts requests.
#[derive(Debug)]
pub(crate) struct Limiter {
    rate: Rate,
    began: Instant,
    alone: Mutex<HashMap<Client, Duration>>,
    shared: Option<Shared>,
}

/// What is counted as one client: an IPv4 address, or the /64 network of an IPv6 address, which is what one client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Client {
    V4([u8; 4]),
    V6([u16; 4]),
}

impl Client {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [first, second, third, fourth, ..] = address.segments();
                Self::V6([first, second, third, fourth])
            }
        }
    }

    fn name(self) -> String {
        match self {
            Self::V4([first, second, third, fourth]) => format!("{first}.{second}.{third}.{fourth}"),
            Self::V6([first, second, third, fourth]) => format!("{first:x}:{second:x}:{third:x}:{fourth:x}"),
        }
    }
}

impl Limiter {
    /// Begins to count. Does not wait for Redis.
    ///
    /// # Errors
    /// [`Error::SettingsInvalid`] for a malformed address of Redis.
    pub(crate) fn start(limit: &RateLimit) -> Result<Self, Error> {
        let rate = Rate::new(limit);
        let shared = |url| Shared::new(url, rate.interval, rate.ahead, limit.redis_timeout);
        let shared = limit.redis.as_deref().map(shared).transpose()?;
        Ok(Self { rate, began: Instant::now(), alone: Mutex::default(), shared })
    }

    /// Counts a request.
    ///
    /// # Errors
    /// [`Error::RateLimited`] with how long the client has to wait.
    pub(crate) async fn admit(&self, address: IpAddr) -> Result<(), Error> {
        let client = Client::of(address);
        let together = match &self.shared {
            Some(shared) => shared.admit(&client.name()).await,
            None => None,
        };
        let waits = match together {
            Some(waits) => waits,
            None => self.admit_alone(client, Instant::now() - self.began),
        };
        waits.map_or(Ok(()), |wait| Err(Error::RateLimited(wait)))
    }

    fn admit_alone(&self, client: Client, now: Duration) -> Option<Duration> {
        let mut clients = self.alone.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= CLIENTS_MAX && !clients.contains_key(&client) {
            clients.retain(|_, time| *time > now);
            if clients.len() >= CLIENTS_MAX {
                tracing::warn!(clients = clients.len(), "too many clients to count at once");
                return None;
            }
        }
        let time = clients.entry(client).or_default();
        match self.rate.admit(*time, now) {
            Ok(next) => {
                *time = next;
                None
            }
            Err(wait) => Some(wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(per_second: u32, burst: u32) -> Limiter {
        Limiter::start(&RateLimit::alone(per_second, burst)).unwrap()
    }

    fn at(limiter: &Limiter, address: &str, millis: u64) -> Option<u128> {
        let client = Client::of(address.parse().unwrap());
        limiter.admit_alone(client, Duration::from_millis(millis)).map(|wait| wait.as_millis())
    }

    #[test]
    fn a_client_may_send_its_burst_and_then_its_rate() {
        let limiter = limiter(10, 3);
        for _ in 0..3 {
            assert_eq!(at(&limiter, "10.0.0.1", 0), None);
        }
        assert_eq!(at(&limiter, "10.0.0.1", 0), Some(100));
        assert_eq!(at(&limiter, "10.0.0.1", 60), Some(40), "being refused costs nothing");
        assert_eq!(at(&limiter, "10.0.0.1", 100), None);
        assert_eq!(at(&limiter, "10.0.0.1", 100), Some(100));
        for _ in 0..3 {
            assert_eq!(at(&limiter, "10.0.0.1", 5000), None, "the whole burst is back");
        }
        assert!(at(&limiter, "10.0.0.1", 5000).is_some());
    }

    #[test]
    fn clients_are_counted_each_for_itself() {
        let limiter = limiter(1, 1);
        assert_eq!(at(&limiter, "10.0.0.1", 0), None);
        assert_eq!(at(&limiter, "10.0.0.2", 0), None);
        assert!(at(&limiter, "::ffff:10.0.0.1", 0).is_some(), "one client, however it is written");
        assert_eq!(at(&limiter, "2001:db8:1:2::1", 0), None);
        assert!(at(&limiter, "2001:db8:1:2:ffff::2", 0).is_some(), "one network");
        assert_eq!(at(&limiter, "2001:db8:1:3::1", 0), None);
    }

    #[test]
    fn memory_is_bounded() {
        let limiter = limiter(1, 1);
        for number in 0..u32::try_from(CLIENTS_MAX).unwrap() + 10 {
            let client = Client::V4(number.to_be_bytes());
            assert_eq!(limiter.admit_alone(client, Duration::ZERO), None);
        }
        assert_eq!(limiter.alone.lock().unwrap().len(), CLIENTS_MAX);
        assert_eq!(at(&limiter, "250.0.0.1", 60_000), None);
        assert_eq!(limiter.alone.lock().unwrap().len(), 1, "who has not come for long is forgotten");
    }

    #[test]
    fn a_malformed_address_of_redis_is_told_at_the_start() {
        let limit = RateLimit { redis: Some("nonsense".to_owned()), ..RateLimit::alone(1, 1) };
        assert!(matches!(Limiter::start(&limit), Err(Error::SettingsInvalid(_))));
    }
}
