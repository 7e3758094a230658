//! How many requests may come: at a rate (GCRA), or in a window of the calendar; of an address, a caller, a key, a claim, or
//! of all together.
//!
//! An edge counts alone, or with its replicas in Redis. Redis may never stand in the way: one step of at most 50 ms (a setting)
//! for a request, and while it does not answer, each edge counts alone, so there are then as many allowances as there are
//! edges. Nothing that is counted outlives its effect.

mod calendar;
mod settings;
mod shared;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;

use crate::config::RateLimit;
use crate::error::Error;
pub(crate) use calendar::Window;
pub(crate) use settings::mistakes;
pub use settings::{By, Counters, Limit, Per};
pub(crate) use shared::Shared;

/// Most subjects that one limit remembers. More than that at once, and the newcomers are let through uncounted, with a
/// warning: to be refused for the crowd is worse than to be counted late.
const SUBJECTS_MAX: usize = 100_000;
/// What the limit of each client is called.
const CLIENT: &str = "client";

/// How fast and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Time that one request takes from the allowance.
    interval: Duration,
    /// How far ahead of its time a subject may be.
    ahead: Duration,
}

impl Rate {
    fn new(requests: u32, per: Duration, burst: u32) -> Self {
        let interval = (per / requests).max(Duration::from_micros(1));
        Self { interval, ahead: interval * burst }
    }

    /// The generic cell rate algorithm (ITU-T I.371): a subject's time runs ahead by one interval a request, and may not
    /// be further ahead than its burst. Times are since some beginning; gives the subject's new time, or how long to wait.
    fn admit(self, time: Duration, now: Duration) -> Result<Duration, Duration> {
        let next = time.max(now) + self.interval;
        match next.checked_sub(now + self.ahead) {
            Some(early) if !early.is_zero() => Err(early),
            Some(_) | None => Ok(next),
        }
    }
}

/// What is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Allowance {
    Rate(Rate),
    Quota { window: Window, max: u64 },
}

/// Whose requests are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    /// An IPv4 address.
    V4([u8; 4]),
    /// The /64 network of an IPv6 address, which is what one client gets.
    V6([u16; 4]),
    /// Something with a name, by half of its SHA-256.
    Named([u8; 16]),
    /// All together.
    Everybody,
}

impl Subject {
    /// An address.
    pub(crate) fn address(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [first, second, third, fourth, ..] = address.segments();
                Self::V6([first, second, third, fourth])
            }
        }
    }

    /// Something with a name, which is not remembered.
    pub(crate) fn named(parts: &[&str]) -> Self {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        for part in parts {
            context.update(&part.len().to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut half = [0; 16];
        half.copy_from_slice(&context.finish().as_ref()[..16]);
        Self::Named(half)
    }

    fn name(self) -> String {
        match self {
            Self::V4([first, second, third, fourth]) => format!("{first}.{second}.{third}.{fourth}"),
            Self::V6([first, second, third, fourth]) => format!("{first:x}:{second:x}:{third:x}:{fourth:x}"),
            Self::Named(half) => half.iter().map(|byte| format!("{byte:02x}")).collect(),
            Self::Everybody => "all".to_owned(),
        }
    }
}

/// What a limit says of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Name of the limit.
    pub(crate) name: Arc<str>,
    /// How many requests there may be at once, or in a window.
    pub(crate) max: u64,
    /// How long it takes until all may come again, or how long a window is.
    pub(crate) window: Duration,
    /// How many may still come.
    pub(crate) remaining: u64,
    /// When all may come again.
    pub(crate) reset: Duration,
    /// How long to wait, if it may not come.
    pub(crate) wait: Option<Duration>,
    /// Whether it is one of the calendar.
    pub(crate) is_quota: bool,
}

impl Verdict {
    /// As a result.
    ///
    /// # Errors
    /// [`Error::RateLimited`] and [`Error::QuotaSpent`].
    pub(crate) fn held(&self) -> Result<(), Error> {
        match self.wait {
            None => Ok(()),
            Some(wait) if self.is_quota => Err(Error::QuotaSpent(wait)),
            Some(wait) => Err(Error::RateLimited(wait)),
        }
    }
}

/// Tells verdicts in the headers of an answer (draft-ietf-httpapi-ratelimit-headers): names, numbers and seconds.
pub(crate) fn tell(verdicts: &[Verdict], headers: &mut HeaderMap) {
    if verdicts.is_empty() {
        return;
    }
    // Whole seconds are all that the headers have; rounded up, so that nobody comes too early.
    let seconds = |time: Duration| time.as_secs() + u64::from(time.subsec_nanos() > 0);
    let list = |one: &dyn Fn(&Verdict) -> String| {
        HeaderValue::try_from(verdicts.iter().map(one).collect::<Vec<_>>().join(", "))
    };
    let policy = list(&|one| format!("\"{}\";q={};w={}", one.name, one.max, seconds(one.window).max(1)));
    let state = list(&|one| format!("\"{}\";r={};t={}", one.name, one.remaining, seconds(one.reset)));
    if let (Ok(policy), Ok(state)) = (policy, state) {
        headers.insert("ratelimit-policy", policy);
        headers.insert("ratelimit", state);
    }
}

/// Counts requests against one limit.
#[derive(Debug)]
pub(crate) struct Limiter {
    name: Arc<str>,
    /// What its counters are called among replicas.
    place: String,
    allowance: Allowance,
    began: Instant,
    alone: Mutex<HashMap<Subject, Count>>,
    shared: Option<Arc<Shared>>,
}

/// What is remembered of a subject.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// Its time, of a rate.
    time: Duration,
    /// Its window and the number of its requests in it, of a quota.
    window: u64,
    requests: u64,
}

impl Limiter {
    /// Counts each client by its address. Does not wait for Redis.
    ///
    /// # Errors
    /// [`Error::SettingsInvalid`] for a malformed address of Redis.
    pub(crate) fn of_clients(limit: &RateLimit) -> Result<Self, Error> {
        let rate = Rate::new(limit.per_second, Duration::from_secs(1), limit.burst);
        let shared = |url: &str| Shared::new("rate_limit.redis", url, limit.redis_timeout).map(Arc::new);
        let shared = limit.redis.as_deref().map(shared).transpose()?;
        Ok(Self::new(CLIENT, String::new(), Allowance::Rate(rate), shared))
    }

    /// Counts against a limit, under the name of its place in the settings.
    pub(crate) fn of(name: &str, place: &str, limit: &Limit, shared: Option<Arc<Shared>>) -> Self {
        let allowance = match limit.per {
            Per::Time(per) => Allowance::Rate(Rate::new(limit.requests, per, limit.burst.unwrap_or(limit.requests))),
            Per::Day => Allowance::Quota { window: Window::Day, max: limit.requests.into() },
            Per::Month => Allowance::Quota { window: Window::Month, max: limit.requests.into() },
        };
        Self::new(name, format!("{place}:"), allowance, shared)
    }

    /// Counts against quotas that subjects bring along.
    pub(crate) fn of_quotas(name: &str, window: Window, shared: Option<Arc<Shared>>) -> Self {
        Self::new(name, format!("{name}:"), Allowance::Quota { window, max: 0 }, shared)
    }

    fn new(name: &str, place: String, allowance: Allowance, shared: Option<Arc<Shared>>) -> Self {
        Self { name: name.into(), place, allowance, began: Instant::now(), alone: Mutex::default(), shared }
    }

    /// Counts a request.
    pub(crate) async fn admit(&self, subject: Subject) -> Verdict {
        self.admit_up_to(subject, None).await
    }

    /// Counts a request against what its subject may have in a window.
    pub(crate) async fn admit_up_to(&self, subject: Subject, own_max: Option<u64>) -> Verdict {
        match self.allowance {
            Allowance::Rate(rate) => {
                let together = match &self.shared {
                    Some(shared) => shared.step(&format!("{}{}", self.place, subject.name()), rate).await,
                    None => None,
                };
                let counted = together.unwrap_or_else(|| self.step_alone(rate, subject, Instant::now() - self.began));
                self.verdict_of_rate(rate, counted)
            }
            Allowance::Quota { window, max } => {
                let max = own_max.unwrap_or(max);
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                let (number, left) = window.at(now);
                let together = match &self.shared {
                    Some(shared) => {
                        shared.count(&format!("{}{}:{number}", self.place, subject.name()), max, left).await
                    }
                    None => None,
                };
                let counted = together.unwrap_or_else(|| self.count_alone(subject, number, max));
                let left = Duration::from_secs(left);
                Verdict {
                    name: self.name.clone(),
                    max,
                    window: window.length(),
                    remaining: counted.map_or(0, |counted| max.saturating_sub(counted)),
                    reset: left,
                    wait: counted.is_none().then_some(left),
                    is_quota: true,
                }
            }
        }
    }

    fn verdict_of_rate(&self, rate: Rate, counted: Result<Duration, Duration>) -> Verdict {
        let times = |time: Duration| u64::try_from(time.as_nanos() / rate.interval.as_nanos()).unwrap_or(u64::MAX);
        let ahead = counted.unwrap_or(rate.ahead);
        Verdict {
            name: self.name.clone(),
            max: times(rate.ahead),
            window: rate.ahead,
            remaining: times(rate.ahead.saturating_sub(ahead)),
            reset: ahead,
            wait: counted.err(),
            is_quota: false,
        }
    }

    /// How far ahead of its time a subject is then, or how long it has to wait.
    fn step_alone(&self, rate: Rate, subject: Subject, now: Duration) -> Result<Duration, Duration> {
        let mut alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(count) = entry(&mut alone, subject, |count| count.time > now) else { return Ok(Duration::ZERO) };
        let next = rate.admit(count.time, now)?;
        count.time = next;
        Ok(next.saturating_sub(now))
    }

    fn count_alone(&self, subject: Subject, window: u64, max: u64) -> Option<u64> {
        let mut alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(count) = entry(&mut alone, subject, |count| count.window == window) else { return Some(0) };
        if count.window != window {
            *count = Count { window, ..Count::default() };
        }
        if count.requests >= max {
            return None;
        }
        count.requests += 1;
        Some(count.requests)
    }
}

/// What is remembered of a subject, if there is room; makes room of what means nothing any more.
fn entry(
    alone: &mut HashMap<Subject, Count>,
    subject: Subject,
    still_counts: impl Fn(&Count) -> bool,
) -> Option<&mut Count> {
    if alone.len() >= SUBJECTS_MAX && !alone.contains_key(&subject) {
        alone.retain(|_, count| still_counts(count));
        if alone.len() >= SUBJECTS_MAX {
            tracing::warn!(subjects = alone.len(), "too many subjects to count at once");
            return None;
        }
    }
    Some(alone.entry(subject).or_default())
}

#[cfg(test)]
mod tests;
