//! Counters that replicas of the edge share, in Redis.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use bb8_redis::bb8::Pool;
use bb8_redis::{RedisConnectionManager, redis};
use tokio::time::{Instant, timeout};

use crate::error::Error;

/// How long Redis is left alone after it did not answer.
const PAUSE: Duration = Duration::from_secs(1);
/// Most connections to Redis.
const CONNECTIONS_MAX: u32 = 8;

/// GCRA in one step, by the clock of Redis, in microseconds: gives how long to wait, 0 to pass. A client's time is
/// forgotten when it lies in the past.
const STEP: &str = r"
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local interval, ahead = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = tonumber(redis.call('GET', KEYS[1]) or now)
if time < now then time = now end
local new = time + interval
local early = new - ahead - now
if early > 0 then return early end
redis.call('SET', KEYS[1], string.format('%.0f', new), 'PX', math.ceil((new - now) / 1000))
return 0
";

/// Counters in Redis.
#[derive(Debug)]
pub(super) struct Shared {
    pool: Pool<RedisConnectionManager>,
    interval_micros: u64,
    ahead_micros: u64,
    /// Longest time for one step.
    step_timeout: Duration,
    /// Until when Redis is left alone.
    away_until: Mutex<Option<Instant>>,
}

impl Shared {
    /// Prepares counters behind a `redis://` URL. Connects when there is something to count.
    pub(super) fn new(url: &str, interval: Duration, ahead: Duration, step_timeout: Duration) -> Result<Self, Error> {
        // The URL may hold a password, so it is not repeated.
        let malformed =
            |error| Error::SettingsInvalid(vec![format!("rate_limit.redis is no redis:// address: {error}")]);
        let manager = RedisConnectionManager::new(url).map_err(malformed)?;
        let pool = Pool::builder().max_size(CONNECTIONS_MAX).connection_timeout(step_timeout).build_unchecked(manager);
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
        Ok(Self {
            pool,
            interval_micros: micros(interval),
            ahead_micros: micros(ahead),
            step_timeout,
            away_until: Mutex::new(None),
        })
    }

    /// Counts a request of a client: how long it has to wait, if it has to. `None` if Redis does not answer.
    pub(super) async fn admit(&self, client: &str) -> Option<Option<Duration>> {
        let now = Instant::now();
        if self.away_until.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| now < until) {
            return None;
        }
        let outcome = match timeout(self.step_timeout, self.step(client)).await {
            Ok(Ok(micros)) => Ok(micros),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(format!("no answer within {} ms", self.step_timeout.as_millis())),
        };
        let mut away = self.away_until.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(micros) => {
                if away.take().is_some() {
                    tracing::info!("redis answers again; requests are counted together");
                }
                Some((micros > 0).then(|| Duration::from_micros(micros)))
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

    async fn step(&self, client: &str) -> Result<u64, String> {
        let mut connection = self.pool.get().await.map_err(|error| error.to_string())?;
        let step = redis::cmd("EVAL")
            .arg(STEP)
            .arg(1)
            .arg(format!("ninefold:limit:{client}"))
            .arg(self.interval_micros)
            .arg(self.ahead_micros)
            .to_owned();
        step.query_async(&mut *connection).await.map_err(|error| error.to_string())
    }
}
