//! Follows log lines. The tier's memory is the queue: a follower that reads slowly holds back nobody and costs nothing.

use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use ninefold::lifecycle::Stop;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::Error;
use crate::model::LineFilter;
use crate::service::ANSWER_BYTES_MAX;
use crate::tier::{Followed, Limit, Tier};

/// How long a follower hears nothing before it gets a sign of life.
const SIGN_OF_LIFE_EVERY: Duration = Duration::from_secs(5);
/// Most lines of a message.
const MESSAGE_RECORDS_MAX: usize = 500;
/// A follower further behind than this many lines goes on with the newest and is told how many it missed.
const BEHIND_MAX: u64 = 50_000;

/// A follower of log lines.
#[derive(Debug)]
pub(crate) struct Follower {
    tier: Arc<dyn Tier>,
    filter: LineFilter,
    /// The first message, until it is sent.
    first: Option<Followed>,
    newest: watch::Receiver<u64>,
    /// Sequence number up to which lines were looked at.
    through: u64,
    missed: u64,
    heard: Instant,
    stop: Stop,
}

impl Follower {
    /// Begins with the newest `backlog` of the lines that are there.
    ///
    /// # Errors
    /// Those of [`Tier::search_lines`].
    pub(crate) async fn start(
        tier: Arc<dyn Tier>,
        filter: LineFilter,
        backlog: usize,
        stop: Stop,
    ) -> Result<Self, Error> {
        let newest = tier.newest_line();
        let through = *newest.borrow();
        let mut first = Followed { through, ..Followed::default() };
        if backlog > 0 {
            let limit = Limit { records_max: backlog, bytes_max: ANSWER_BYTES_MAX };
            first.records = tier.search_lines(&filter, None, limit).await?.records;
            // What came in since then is sent when it is followed.
            first.records.retain(|kept| kept.sequence <= through);
            first.records.reverse();
        }
        Ok(Self { tier, filter, first: Some(first), newest, through, missed: 0, heard: Instant::now(), stop })
    }

    /// The backlog, then lines as they come. The first message comes at once, even if it is empty. Ends when the monitor
    /// stops, or after an error.
    pub(crate) fn stream(self) -> impl Stream<Item = Result<Followed, Error>> + Send + 'static {
        futures_util::stream::unfold(Some(self), |follower| async move {
            let mut follower = follower?;
            match follower.next().await {
                Ok(Some(followed)) => {
                    follower.heard = Instant::now();
                    Some((Ok(followed), Some(follower)))
                }
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    async fn next(&mut self) -> Result<Option<Followed>, Error> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        let limit = Limit { records_max: MESSAGE_RECORDS_MAX, bytes_max: ANSWER_BYTES_MAX };
        loop {
            let newest = *self.newest.borrow_and_update();
            if newest.saturating_sub(self.through) > BEHIND_MAX {
                self.missed += newest - self.through;
                self.through = newest;
            }
            if self.through < newest {
                let followed = self.tier.follow_lines(&self.filter, self.through, limit).await?;
                self.through = followed.through;
                self.missed += followed.missed;
                if !followed.records.is_empty() || self.missed > 0 {
                    return Ok(Some(Followed { missed: std::mem::take(&mut self.missed), ..followed }));
                }
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                () = self.stop.asked() => return Ok(None),
                () = tokio::time::sleep_until(self.heard + SIGN_OF_LIFE_EVERY) => return Ok(Some(Followed::default())),
                changed = self.newest.changed() => {
                    if changed.is_err() {
                        return Ok(None);
                    }
                }
            }
        }
    }
}
