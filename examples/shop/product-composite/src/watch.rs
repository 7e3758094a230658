//! Follows the reviews of a product, whichever instance of review tells them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use futures_util::{Stream, stream};
use ninefold::lifecycle::Stop;
use ninefold::tonic::{Status, Streaming};
use tokio::time::Instant;

use crate::error::Error;
use crate::parts::Parts;
use crate::pb::composite::WatchReviewsResponse;
use crate::pb::composite::watch_reviews_response::Change;
use crate::pb::review::{Review, WatchReviewsResponse as Told};

/// How long to look for another instance before the stream ends with an error.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait before the next try.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers the reviews that are there, then each change, until the service is asked to stop.
pub(crate) fn follow(
    parts: Parts,
    product_id: i32,
    stop: Stop,
) -> impl Stream<Item = Result<WatchReviewsResponse, Error>> + Send {
    let watch = Watch {
        parts,
        product_id,
        stop,
        source: None,
        lost: None,
        told: BTreeMap::new(),
        news: VecDeque::new(),
        ended: false,
    };
    stream::unfold(watch, |mut watch| async move { watch.next().await.map(|news| (news, watch)) })
}

struct Watch {
    parts: Parts,
    product_id: i32,
    stop: Stop,
    source: Option<Streaming<Told>>,
    /// Since when nobody tells anything.
    lost: Option<Instant>,
    /// What the caller knows.
    told: BTreeMap<i32, Review>,
    /// What the caller is to be told.
    news: VecDeque<WatchReviewsResponse>,
    ended: bool,
}

impl Watch {
    async fn next(&mut self) -> Option<Result<WatchReviewsResponse, Error>> {
        while !self.ended {
            if let Some(news) = self.news.pop_front() {
                return Some(Ok(news));
            }
            let stop = self.stop.clone();
            let told = tokio::select! {
                () = stop.asked() => return None,
                told = self.listen() => told,
            };
            match told {
                Ok(Some(told)) => {
                    self.lost = None;
                    self.compare(told);
                }
                Ok(None) => self.source = None,
                Err(status) => {
                    self.source = None;
                    let since = *self.lost.get_or_insert_with(Instant::now);
                    if since.elapsed() > PATIENCE {
                        self.ended = true;
                        return Some(Err(Error::part("reviews")(status)));
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        None
    }

    /// Waits for the next word of whoever tells; finds somebody first if nobody does. Dropping it loses at most a stream
    /// that was being opened.
    async fn listen(&mut self) -> Result<Option<Told>, Status> {
        if self.source.is_none() {
            self.source = Some(self.parts.watch_reviews(self.product_id).await?);
        }
        match &mut self.source {
            Some(source) => source.message().await,
            None => Ok(None),
        }
    }

    /// Makes news of what the reviews are now. A review that differs from what was told was removed and added again.
    fn compare(&mut self, told: Told) {
        let now: BTreeMap<i32, Review> = told.reviews.into_iter().map(|review| (review.review_id, review)).collect();
        let gone = self.told.iter().filter(|(id, review)| now.get(id) != Some(*review));
        let came = now.iter().filter(|(id, review)| self.told.get(id) != Some(*review));
        let changes = gone
            .map(|(id, _)| Change::RemovedReviewId(*id))
            .chain(came.map(|(_, review)| Change::Added(review.clone().into())));
        self.news.extend(changes.map(|change| WatchReviewsResponse {
            change: Some(change),
            service_address: told.service_address.clone(),
        }));
        self.told = now;
    }
}
