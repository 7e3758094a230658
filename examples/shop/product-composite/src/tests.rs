//! What the shop promises, told with the real services behind it, in one process.

mod postgres;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use ninefold::fault;
use ninefold::lifecycle::Scope;
use ninefold::tonic::service::Routes;
use ninefold::tonic::{Code, Request, Status};
use ninefold::{Link, link};
use shop_backend::{Backend, Settings, Tuning};
use shop_product::pb::product_service_server::ProductServiceServer;
use shop_recommendation::pb::recommendation_service_server::RecommendationServiceServer;
use shop_review::pb::review_service_server::ReviewServiceServer;
use tower::ServiceExt as _;

use crate::parts::Parts;
use crate::pb::composite::composite_service_server::CompositeService as _;
use crate::pb::composite::watch_reviews_response::Change;
use crate::pb::composite::{
    CreateProductRequest, DeleteProductRequest, GetProductRequest, GetProductResponse, ListProductsRequest, Product,
    Recommendation, Review, WatchReviewsRequest,
};
use crate::service::Composite;
use postgres::Postgres;

/// The whole shop in one process.
struct Shop {
    composite: Composite,
    folder: tempfile::TempDir,
    /// Closes when the instance of review drains.
    review_scope: Scope,
    tuning: Arc<Mutex<Tuning>>,
    /// Where calls to review go.
    review: Arc<Mutex<Link>>,
}

impl Shop {
    /// With SQLite databases.
    async fn open() -> Self {
        Self::open_on(|_| None).await
    }

    /// With the databases that have these URLs.
    async fn open_on(database: impl Fn(&str) -> Option<String>) -> Self {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let review_scope = Scope::root("review");
        let tuning = Arc::new(Mutex::new(Tuning::default()));
        let as_told = {
            let tuning = tuning.clone();
            move || tuning.lock().expect("nobody panicked").clone()
        };
        let settings = |service: &str| Settings {
            database: database(service),
            data: Some(folder.path().to_owned()),
            ..Settings::default()
        };
        let product = backend("product", &settings, &shop_product::MIGRATIONS, Tuning::default).await;
        let recommendation =
            backend("recommendation", &settings, &shop_recommendation::MIGRATIONS, Tuning::default).await;
        let review = backend("review", &settings, &shop_review::MIGRATIONS, as_told).await;
        let product = Routes::new(ProductServiceServer::new(shop_product::Service::new(product)));
        let recommendation = shop_recommendation::Service::new(recommendation);
        let recommendation = Routes::new(RecommendationServiceServer::new(recommendation));
        let review = Arc::new(Mutex::new(review_link(review, &review_scope)));
        let parts = Parts::new(product.into(), recommendation.into(), redirected(review.clone()));
        let composite = Composite::new(parts, "product-composite-1", Scope::root("composite").stop());
        Self { composite, folder, review_scope, tuning, review }
    }

    /// Tells review how to behave, as the central configuration would.
    fn tell_review(&self, document: &str) {
        *self.tuning.lock().expect("nobody panicked") = serde_json::from_str(document).expect("the document is right");
    }

    async fn get(&self, product_id: i32) -> Result<GetProductResponse, Status> {
        Ok(self.composite.get_product(Request::new(GetProductRequest { product_id })).await?.into_inner())
    }

    async fn create(&self, product: Product) -> Result<Product, Status> {
        let request = Request::new(CreateProductRequest { product: Some(product) });
        let response = self.composite.create_product(request).await?.into_inner();
        assert_eq!(response.service_addresses.expect("instances are named").review, "review-1");
        Ok(response.product.expect("an answer has a product"))
    }

    async fn delete(&self, product_id: i32) -> Result<(), Status> {
        self.composite.delete_product(Request::new(DeleteProductRequest { product_id })).await.map(drop)
    }
}

async fn backend(
    service: &str,
    settings: impl Fn(&str) -> Settings,
    migrations: &sqlx::migrate::Migrator,
    tuning: impl Fn() -> Tuning + Send + Sync + 'static,
) -> Backend {
    let backend = Backend::open(service, &format!("{service}-1"), &settings(service), migrations, tuning).await;
    backend.expect("the database opens")
}

fn review_link(backend: Backend, scope: &Scope) -> Link {
    let service = shop_review::Service::new(backend, scope.stop());
    Routes::new(ReviewServiceServer::new(service)).into()
}

/// A link that leads where `target` leads at the moment of the call.
fn redirected(target: Arc<Mutex<Link>>) -> Link {
    Link::new(tower::service_fn(move |request| {
        let link = target.lock().expect("nobody panicked").clone();
        async move { link.oneshot(request).await }
    }))
}

/// A link that nobody listens behind.
fn nowhere() -> Link {
    Link::new(tower::service_fn(|_| async { Err::<http::Response<_>, link::BoxError>("nobody listens".into()) }))
}

fn kettle(product_id: i32) -> Product {
    let recommendation = Recommendation { recommendation_id: 1, author: "Ada".into(), rate: 5, content: "Buy.".into() };
    let review = Review { review_id: 1, author: "Grace".into(), subject: "Fine".into(), content: "It boils.".into() };
    Product {
        product_id,
        name: "Kettle".into(),
        weight_grams: 940,
        recommendations: vec![recommendation],
        reviews: vec![review],
    }
}

#[tokio::test]
async fn a_product_comes_with_its_parts_and_the_instances_that_told_them() {
    let shop = Shop::open().await;
    let answer = shop.get(1).await.unwrap();
    assert!(answer.degraded.is_empty());
    let product = answer.product.unwrap();
    assert_eq!((product.recommendations.len(), product.reviews.len()), (3, 3));
    let addresses = answer.service_addresses.unwrap();
    let told = [addresses.composite, addresses.product, addresses.recommendation, addresses.review];
    assert_eq!(told, ["product-composite-1", "product-1", "recommendation-1", "review-1"]);
}

#[tokio::test]
async fn without_reviews_the_product_still_comes_and_says_so() {
    let shop = Shop::open().await;
    shop.tell_review(r#"{"fail": 1}"#);
    let answer = shop.get(1).await.unwrap();
    assert_eq!(answer.degraded[0].part, "reviews");
    assert_eq!(answer.degraded[0].reason, "review was told to fail this call");
    let product = answer.product.unwrap();
    assert_eq!((product.recommendations.len(), product.reviews.len()), (3, 0));
    assert_eq!(answer.service_addresses.unwrap().review, "");

    *shop.review.lock().unwrap() = nowhere();
    assert_eq!(shop.get(1).await.unwrap().degraded.len(), 1);
}

#[tokio::test]
async fn slow_reviews_are_not_waited_for() {
    let shop = Shop::open().await;
    shop.tell_review(r#"{"delay": "1m"}"#);
    let begin = Instant::now();
    let answer = shop.get(1).await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(10), "took {:?}", begin.elapsed());
    assert_eq!(answer.degraded[0].part, "reviews");
}

#[tokio::test]
async fn unknown_and_malformed_numbers_are_told_apart() {
    let shop = Shop::open().await;
    let unknown = shop.get(4711).await.unwrap_err();
    assert_eq!((unknown.code(), fault::reason(&unknown).as_deref()), (Code::NotFound, Some("PRODUCT_UNKNOWN")));
    for malformed in [shop.get(0).await.map(drop), shop.delete(-1).await] {
        let malformed = malformed.unwrap_err();
        assert_eq!(malformed.code(), Code::InvalidArgument);
        assert_eq!(fault::violations(&malformed)[0].field, "product_id");
    }
}

#[tokio::test]
async fn a_product_lives_from_create_to_delete() {
    let shop = Shop::open().await;
    assert_eq!(shop.create(kettle(77)).await.unwrap(), kettle(77));
    assert_eq!(shop.get(77).await.unwrap().product.unwrap(), kettle(77));
    assert_eq!(shop.create(kettle(77)).await.unwrap_err().code(), Code::AlreadyExists);
    shop.delete(77).await.unwrap();
    shop.delete(77).await.expect("removing what is not there succeeds");
    assert_eq!(shop.get(77).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn the_same_shop_stands_on_postgresql() {
    let postgres = Postgres::start(&["product", "recommendation", "review"]).await;
    let shop = Shop::open_on(|service| Some(postgres.url(service))).await;
    let again = Shop::open_on(|service| Some(postgres.url(service))).await;
    shop.create(kettle(77)).await.unwrap();
    assert_eq!(again.get(77).await.unwrap().product.unwrap(), kettle(77));
    assert_eq!(again.create(kettle(77)).await.unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(again.get(1).await.unwrap().product.unwrap().reviews.len(), 3);
    again.delete(77).await.unwrap();
    again.delete(77).await.unwrap();
    assert_eq!(shop.get(77).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn half_a_product_is_not_left_behind() {
    let shop = Shop::open().await;
    let mut product = kettle(77);
    product.reviews[0].author.clear();
    let refused = shop.create(product).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(fault::violations(&refused)[0].field, "product.reviews[0].author");
    assert_eq!(shop.get(77).await.unwrap_err().code(), Code::NotFound);
    shop.create(kettle(77)).await.expect("nothing is in the way");
}

#[tokio::test]
async fn pages_lead_through_the_shop() {
    let shop = Shop::open().await;
    let list = async |page_size, page_token| {
        let request = Request::new(ListProductsRequest { page_size, page_token });
        shop.composite.list_products(request).await.map(|response| response.into_inner())
    };
    let first = list(10, String::new()).await.unwrap();
    let second = list(10, first.next_page_token).await.unwrap();
    assert_eq!((first.products.len(), second.products.len(), second.next_page_token.as_str()), (10, 2, ""));
    let malformed = list(-1, "x".into()).await.unwrap_err();
    assert_eq!(fault::violations(&malformed)[0].field, "page_size");
}

#[tokio::test]
async fn a_watcher_does_not_notice_that_another_instance_tells_the_reviews() {
    let shop = Shop::open().await;
    shop.create(kettle(77)).await.unwrap();
    let request = Request::new(WatchReviewsRequest { product_id: 77 });
    let stream = shop.composite.watch_reviews(request).await.unwrap().into_inner();
    let mut told = stream.map(|told| told.expect("the stream goes on"));
    let first = told.next().await.unwrap();
    assert_eq!(first.change, Some(Change::Added(kettle(77).reviews.remove(0))));

    // The instance drains; its streams end. Another one of the same service takes over.
    let settings = |_: &str| Settings { data: Some(shop.folder.path().to_owned()), ..Settings::default() };
    let other = backend("review", settings, &shop_review::MIGRATIONS, Tuning::default).await;
    let scope = Scope::root("other");
    *shop.review.lock().unwrap() = review_link(other, &scope);
    shop.review_scope.close(Duration::from_secs(1)).await;
    shop.delete(77).await.unwrap();
    assert_eq!(told.next().await.unwrap().change, Some(Change::RemovedReviewId(1)));

    let unknown = shop.composite.watch_reviews(Request::new(WatchReviewsRequest { product_id: 4711 })).await;
    assert_eq!(unknown.err().expect("there is nothing to watch").code(), Code::NotFound);
}
