//! Follows the reviews of one product.
//!
//! Instances share the database of their service and tell each other nothing, so each looks for itself, again and again.

use std::time::Duration;

use futures_util::Stream;
use futures_util::stream;
use ninefold::lifecycle::Stop;
use shop_backend::{Backend, Page, ProductId, SIZE_MAX};

use crate::pb::{Review, WatchReviewsResponse};
use crate::{Error, table};

/// How long to wait between two looks.
const PAUSE: Duration = Duration::from_millis(400);
/// Most reviews of one product that are followed; later ones are not seen.
const FOLLOWED_MAX: usize = 1000;

/// Answers what is there, and again whenever it changes, until the instance is asked to stop or the database fails.
pub(crate) fn follow(
    backend: Backend,
    product: ProductId,
    service_address: String,
    stop: Stop,
) -> impl Stream<Item = Result<WatchReviewsResponse, Error>> + Send {
    let watch = Watch { backend, product, service_address, stop, told: None, ended: false };
    stream::unfold(watch, |mut watch| async move { watch.next().await.map(|news| (news, watch)) })
}

struct Watch {
    backend: Backend,
    product: ProductId,
    service_address: String,
    stop: Stop,
    /// What the watcher knows. `None` before the first look.
    told: Option<Vec<Review>>,
    ended: bool,
}

impl Watch {
    async fn next(&mut self) -> Option<Result<WatchReviewsResponse, Error>> {
        while !self.ended {
            if self.told.is_some() {
                tokio::select! {
                    () = self.stop.asked() => return None,
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
            match self.look().await {
                Ok(now) if self.told.as_ref() == Some(&now) => {}
                Ok(now) => {
                    self.told = Some(now.clone());
                    return Some(Ok(WatchReviewsResponse {
                        reviews: now,
                        service_address: self.service_address.clone(),
                    }));
                }
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }

    async fn look(&self) -> Result<Vec<Review>, Error> {
        let mut reviews = Vec::new();
        let mut token = String::new();
        while reviews.len() < FOLLOWED_MAX {
            let page = Page::parse(SIZE_MAX, &token, SIZE_MAX)?;
            let (found, next) = table::list(self.backend.pool(), self.product, page).await?;
            reviews.extend(found);
            token = next;
            if token.is_empty() {
                break;
            }
        }
        Ok(reviews)
    }
}
