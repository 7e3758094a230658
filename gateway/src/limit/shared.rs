//! Counters that replicas of the edge share, in Redis.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use bb8_redis::bb8::Pool;
use bb8_redis::{RedisConnectionManager, redis};
use tokio::time::{Instant, timeout};

use super::Rate;
use crate::error::Error;

/// How long Redis is left alone after it did not answer.
const PAUSE: Duration = Duration::from_secs(1);
/// Most connections to Redis.
const CONNECTIONS_MAX: u32 = 8;

/// GCRA in one step, by the clock of Redis, in microseconds: gives how long to wait as a negative number, or how far ahead
/// of its time the one who was let through is. A time is forgotten when it lies in the past.
const STEP: &str = r"
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local interval, ahead = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = tonumber(redis.call('GET', KEYS[1]) or now)
if time < now then time = now end
local new = time + interval
local early = new - ahead - now
if early > 0 then return -early end
redis.call('SET', KEYS[1], string.format('%.0f', new), 'PX', math.ceil((new - now) / 1000))
return new - now
";

/// Counts up to a limit: gives what was counted, or -1 if there was no more. The count is forgotten with its window.
const COUNT: &str = r"
local count = tonumber(redis.call('GET', KEYS[1]) or 0)
if count >= tonumber(ARGV[1]) then return -1 end
count = redis.call('INCR', KEYS[1])
if count == 1 then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
return count
";

/// Counters in Redis.
#[derive(Debug)]
pub(crate) struct Shared {
    pool: Pool<RedisConnectionManager>,
    /// Longest time for one step.
    step_timeout: Duration,
    /// Until when Redis is left alone.
    away_until: Mutex<Option<Instant>>,
}

impl Shared {
    /// Prepares counters behind a `redis://` URL. Connects when there is something to count.
    ///
    /// # Errors
    /// [`Error::SettingsInvalid`] for a malformed address, with the place of the setting.
    pub(crate) fn new(place: &str, url: &str, step_timeout: Duration) -> Result<Self, Error> {
        // The URL may hold a password, so it is not repeated.
        let malformed = |error| Error::SettingsInvalid(vec![format!("{place} is no redis:// address: {error}")]);
        let manager = RedisConnectionManager::new(url).map_err(malformed)?;
        let pool = Pool::builder().max_size(CONNECTIONS_MAX).connection_timeout(step_timeout).build_unchecked(manager);
        Ok(Self { pool, step_timeout, away_until: Mutex::new(None) })
    }

    /// Counts a request at a rate: how far ahead of its time its sender is then, or how long it has to wait. `None` if Redis
    /// does not answer.
    pub(super) async fn step(&self, key: &str, rate: Rate) -> Option<Result<Duration, Duration>> {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
        let mut step = redis::cmd("EVAL");
        step.arg(STEP).arg(1).arg(format!("ninefold:limit:{key}")).arg(micros(rate.interval)).arg(micros(rate.ahead));
        let micros = self.ask(step).await?;
        let time = Duration::from_micros(micros.unsigned_abs());
        Some(if micros < 0 { Err(time) } else { Ok(time) })
    }

    /// Counts a request in a window that has `seconds` left: how many there were, or nothing if there may be no more.
    /// `None` if Redis does not answer.
    pub(super) async fn count(&self, key: &str, max: u64, seconds: u64) -> Option<Option<u64>> {
        let mut count = redis::cmd("EVAL");
        count.arg(COUNT).arg(1).arg(format!("ninefold:quota:{key}")).arg(max).arg(seconds.max(1));
        let counted = self.ask(count).await?;
        Some(u64::try_from(counted).ok())
    }

    async fn ask(&self, command: redis::Cmd) -> Option<i64> {
        let now = Instant::now();
        if self.away_until.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| now < until) {
            return None;
        }
        let asked = async {
            let mut connection = self.pool.get().await.map_err(|error| error.to_string())?;
            command.query_async(&mut *connection).await.map_err(|error| error.to_string())
        };
        let outcome: Result<i64, String> = timeout(self.step_timeout, asked)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {} ms", self.step_timeout.as_millis())));
        let mut away = self.away_until.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(answer) => {
                if away.take().is_some() {
                    tracing::info!("redis answers again; requests are counted together");
                }
                Some(answer)
            }
            Err(error) => {
                if away.is_none() {
                    tracing::warn!(error, "redis does not answer; this edge counts requests alone");
                }
                *away = Some(Instant::now() + PAUSE);
                None
            }
        }
    }
}
