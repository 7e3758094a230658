//! Follows the reviews of one product.
//!
//! Instances share the database of their service and tell each other nothing, so each looks for itself, twice a second.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream;
use ninefold::lifecycle::Stop;
use shop_backend::{Backend, Page, ProductId, SIZE_MAX};

use crate::pb::watch_reviews_response::Change;
use crate::pb::{Review, WatchReviewsResponse};
use crate::{Error, table};

/// How long to wait between two looks.
const PAUSE: Duration = Duration::from_millis(400);
/// Most reviews of one product that are followed; later ones are not seen.
const FOLLOWED_MAX: usize = 1000;

/// Answers what is there, then what changes, until the instance is asked to stop or the database fails.
pub(crate) fn follow(
    backend: Backend,
    product: ProductId,
    service_address: String,
    stop: Stop,
) -> impl Stream<Item = Result<WatchReviewsResponse, Error>> + Send {
    let watch = Watch { backend, product, service_address, stop, told: BTreeMap::new(), news: None, ended: false };
    stream::unfold(watch, |mut watch| async move { watch.next().await.map(|news| (news, watch)) })
}

struct Watch {
    backend: Backend,
    product: ProductId,
    service_address: String,
    stop: Stop,
    /// What the watcher knows.
    told: BTreeMap<i32, Review>,
    /// What it is to be told. `None` before the first look.
    news: Option<VecDeque<Change>>,
    ended: bool,
}

impl Watch {
    async fn next(&mut self) -> Option<Result<WatchReviewsResponse, Error>> {
        loop {
            if self.ended {
                return None;
            }
            match &mut self.news {
                Some(news) => {
                    if let Some(change) = news.pop_front() {
                        let service_address = self.service_address.clone();
                        return Some(Ok(WatchReviewsResponse { change: Some(change), service_address }));
                    }
                    tokio::select! {
                        () = self.stop.asked() => return None,
                        () = tokio::time::sleep(PAUSE) => {}
                    }
                }
                None => self.news = Some(VecDeque::new()),
            }
            match self.look().await {
                Ok(now) => self.news = Some(self.compare(now)),
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
    }

    async fn look(&self) -> Result<BTreeMap<i32, Review>, Error> {
        let mut reviews = BTreeMap::new();
        let mut token = String::new();
        while reviews.len() < FOLLOWED_MAX {
            let page = Page::parse(SIZE_MAX, &token, SIZE_MAX)?;
            let (found, next) = table::list(self.backend.pool(), self.product, page).await?;
            reviews.extend(found.into_iter().map(|review| (review.review_id, review)));
            token = next;
            if token.is_empty() {
                break;
            }
        }
        Ok(reviews)
    }

    /// Makes the news of what is there now. A review that differs from what was told was removed and added again.
    fn compare(&mut self, now: BTreeMap<i32, Review>) -> VecDeque<Change> {
        let gone = self.told.iter().filter(|(id, review)| now.get(id) != Some(*review));
        let came = now.iter().filter(|(id, review)| self.told.get(id) != Some(*review));
        let news = gone
            .map(|(id, _)| Change::RemovedReviewId(*id))
            .chain(came.map(|(_, review)| Change::Added(review.clone())))
            .collect();
        self.told = now;
        news
    }
}
