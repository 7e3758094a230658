//! What the composite may rely on.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use ninefold::fault::{self, Fault as _};
use ninefold::lifecycle::Scope;
use ninefold::tonic::{Code, Request, Status};
use shop_backend::{Backend, Settings, Tuning};

use crate::pb::review_service_server::ReviewService as _;
use crate::pb::{CreateReviewsRequest, DeleteReviewsRequest, ListReviewsRequest, Review, WatchReviewsRequest};
use crate::{MIGRATIONS, Service};

struct Shop {
    service: Service,
    scope: Scope,
    tuning: Arc<Mutex<Tuning>>,
}

async fn shop(folder: &tempfile::TempDir) -> Shop {
    let settings = Settings { data: Some(folder.path().to_owned()), ..Settings::default() };
    let tuning = Arc::new(Mutex::new(Tuning::default()));
    let live = tuning.clone();
    let tune = move || live.lock().expect("nobody panicked").clone();
    let backend = Backend::open("review", "review-1", &settings, &MIGRATIONS, tune).await;
    let scope = Scope::root("test");
    Shop { service: Service::new(backend.expect("the database opens"), scope.stop()), scope, tuning }
}

impl Shop {
    async fn list(&self, product_id: i32) -> Result<Vec<Review>, Status> {
        let request = ListReviewsRequest { product_id, ..ListReviewsRequest::default() };
        Ok(self.service.list_reviews(Request::new(request)).await?.into_inner().reviews)
    }

    async fn create(&self, product_id: i32, reviews: Vec<Review>) -> Result<(), Status> {
        let request = CreateReviewsRequest { product_id, reviews };
        self.service.create_reviews(Request::new(request)).await.map(drop)
    }

    async fn delete(&self, product_id: i32) -> Result<(), Status> {
        self.service.delete_reviews(Request::new(DeleteReviewsRequest { product_id })).await.map(drop)
    }
}

fn fine(review_id: i32) -> Review {
    Review { review_id, author: "Ada".into(), subject: "Fine".into(), content: "It boils.".into() }
}

#[tokio::test]
async fn reviews_are_added_together_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let shop = shop(&folder).await;
    shop.create(77, vec![fine(1), fine(2)]).await.unwrap();
    let taken = shop.create(77, vec![fine(3), fine(2)]).await.unwrap_err();
    assert_eq!((taken.code(), fault::reason(&taken).as_deref()), (Code::AlreadyExists, Some("REVIEW_EXISTS")));
    assert_eq!(shop.list(77).await.unwrap(), [fine(1), fine(2)]);
}

#[tokio::test]
async fn removing_what_is_not_there_succeeds() {
    let folder = tempfile::tempdir().unwrap();
    let shop = shop(&folder).await;
    assert_eq!(shop.list(1).await.unwrap().len(), 3);
    shop.delete(1).await.unwrap();
    shop.delete(1).await.unwrap();
    assert!(shop.list(1).await.unwrap().is_empty());
}

#[tokio::test]
async fn malformed_reviews_are_refused_with_every_violation() {
    let folder = tempfile::tempdir().unwrap();
    let shop = shop(&folder).await;
    assert_eq!(shop.list(-3).await.unwrap_err().code(), Code::InvalidArgument);

    let long = Review { subject: "é".repeat(101), review_id: 0, ..fine(1) };
    let error = crate::table::check(5, &[long]).unwrap_err();
    let fields: Vec<_> = error.violations().into_iter().map(|violation| violation.field).collect();
    assert_eq!(fields, ["reviews[0].review_id", "reviews[0].subject"]);
    assert!(crate::table::check(5, &[fine(1), fine(1)]).is_err());
}

#[tokio::test]
async fn a_watcher_is_told_what_another_instance_writes() {
    let folder = tempfile::tempdir().unwrap();
    let (here, there) = tokio::join!(shop(&folder), shop(&folder));
    there.create(77, vec![fine(1)]).await.unwrap();
    let request = Request::new(WatchReviewsRequest { product_id: 77 });
    let stream = here.service.watch_reviews(request).await.unwrap().into_inner();
    let mut states = stream.map(|told| told.expect("the database answers").reviews);

    assert_eq!(states.next().await, Some(vec![fine(1)]));
    there.create(77, vec![fine(2)]).await.unwrap();
    assert_eq!(states.next().await, Some(vec![fine(1), fine(2)]));
    there.delete(77).await.unwrap();
    assert_eq!(states.next().await, Some(vec![]));

    let (end, late) = tokio::join!(states.next(), here.scope.close(Duration::from_secs(5)));
    assert_eq!((end, late), (None, vec![]), "a stream ends when the instance drains");
}

#[tokio::test]
async fn a_running_instance_can_be_told_to_be_slow_and_to_fail() {
    let folder = tempfile::tempdir().unwrap();
    let shop = shop(&folder).await;
    shop.list(1).await.expect("all is well at first");

    *shop.tuning.lock().unwrap() = serde_json::from_str(r#"{"delay": "50ms", "fail": 1}"#).unwrap();
    let begin = Instant::now();
    let failure = shop.list(1).await.unwrap_err();
    assert!(begin.elapsed() >= Duration::from_millis(50));
    assert_eq!((failure.code(), fault::reason(&failure).as_deref()), (Code::Unavailable, Some("SHOP_MISHAP")));

    *shop.tuning.lock().unwrap() = serde_json::from_str(r#"{"page_size": 2}"#).unwrap();
    assert_eq!(shop.list(1).await.unwrap().len(), 2);
}
