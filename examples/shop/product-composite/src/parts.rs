//! The services that know the parts, and how long they may take.

use std::time::Duration;

use ninefold::Link;
use ninefold::fault::{self, Violation};
use ninefold::tonic::{Code, Request, Status, Streaming};

use crate::error::{self, Error};
use crate::pb::composite::MissingPart;
use crate::pb::product::product_service_client::ProductServiceClient;
use crate::pb::product::{
    CreateProductRequest, CreateProductResponse, DeleteProductRequest, GetProductRequest, GetProductResponse,
    ListProductsRequest, ListProductsResponse, Product,
};
use crate::pb::recommendation::recommendation_service_client::RecommendationServiceClient;
use crate::pb::recommendation::{
    CreateRecommendationsRequest, DeleteRecommendationsRequest, ListRecommendationsRequest,
    ListRecommendationsResponse, Recommendation,
};
use crate::pb::review::review_service_client::ReviewServiceClient;
use crate::pb::review::{
    CreateReviewsRequest, DeleteReviewsRequest, ListReviewsRequest, ListReviewsResponse, Review, WatchReviewsRequest,
    WatchReviewsResponse,
};

/// How long recommendations and reviews may take before the product comes without them.
const EXTRAS_DEADLINE: Duration = Duration::from_millis(800);
/// How much longer to wait for a channel to say that the deadline is over, before giving up on the channel itself.
const EXTRAS_GRACE: Duration = Duration::from_millis(200);

/// The services that know the parts. Clones share their channels.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    product: ProductServiceClient<Link>,
    recommendation: RecommendationServiceClient<Link>,
    review: ReviewServiceClient<Link>,
}

impl Parts {
    pub(crate) fn new(product: Link, recommendation: Link, review: Link) -> Self {
        Self {
            product: ProductServiceClient::new(product),
            recommendation: RecommendationServiceClient::new(recommendation),
            review: ReviewServiceClient::new(review),
        }
    }

    pub(crate) async fn product(&self, product_id: i32) -> Result<GetProductResponse, Error> {
        match self.product.clone().get_product(GetProductRequest { product_id }).await {
            Ok(response) => Ok(response.into_inner()),
            Err(status) if status.code() == Code::NotFound => Err(Error::ProductUnknown(product_id)),
            Err(status) => Err(Error::part("product")(status)),
        }
    }

    pub(crate) async fn products(&self, request: ListProductsRequest) -> Result<ListProductsResponse, Error> {
        match self.product.clone().list_products(request).await {
            Ok(response) => Ok(response.into_inner()),
            Err(status) if status.code() == Code::InvalidArgument => {
                Err(Error::PageInvalid(fault::violations(&status)))
            }
            Err(status) => Err(Error::part("product")(status)),
        }
    }

    pub(crate) async fn recommendations(&self, product_id: i32) -> Result<ListRecommendationsResponse, MissingPart> {
        let request = ListRecommendationsRequest { product_id, ..ListRecommendationsRequest::default() };
        let mut client = self.recommendation.clone();
        extra("recommendations", client.list_recommendations(hasty(request))).await
    }

    pub(crate) async fn reviews(&self, product_id: i32) -> Result<ListReviewsResponse, MissingPart> {
        let request = ListReviewsRequest { product_id, ..ListReviewsRequest::default() };
        let mut client = self.review.clone();
        extra("reviews", client.list_reviews(hasty(request))).await
    }

    pub(crate) async fn watch_reviews(&self, product_id: i32) -> Result<Streaming<WatchReviewsResponse>, Status> {
        let response = self.review.clone().watch_reviews(WatchReviewsRequest { product_id }).await?;
        Ok(response.into_inner())
    }

    pub(crate) async fn create_product(&self, product: Product) -> Result<CreateProductResponse, Error> {
        let product_id = product.product_id;
        match self.product.clone().create_product(CreateProductRequest { product: Some(product) }).await {
            Ok(response) => Ok(response.into_inner()),
            Err(status) if status.code() == Code::AlreadyExists => Err(Error::ProductExists(product_id)),
            Err(status) => Err(not_created("product", status)),
        }
    }

    /// Adds recommendations, and answers which instance did.
    pub(crate) async fn create_recommendations(
        &self,
        product_id: i32,
        recommendations: Vec<Recommendation>,
    ) -> Result<String, Error> {
        let request = CreateRecommendationsRequest { product_id, recommendations };
        match self.recommendation.clone().create_recommendations(request).await {
            Ok(response) => Ok(response.into_inner().service_address),
            Err(status) => Err(not_created("recommendations", status)),
        }
    }

    /// Adds reviews, and answers which instance did.
    pub(crate) async fn create_reviews(&self, product_id: i32, reviews: Vec<Review>) -> Result<String, Error> {
        match self.review.clone().create_reviews(CreateReviewsRequest { product_id, reviews }).await {
            Ok(response) => Ok(response.into_inner().service_address),
            Err(status) => Err(not_created("reviews", status)),
        }
    }

    /// Removes a product everywhere. Tries all parts even if one fails, so that a repetition has less to do.
    pub(crate) async fn delete(&self, product_id: i32) -> Result<(), Error> {
        check_id(product_id)?;
        let (mut product, mut recommendation, mut review) =
            (self.product.clone(), self.recommendation.clone(), self.review.clone());
        let (product, recommendations, reviews) = tokio::join!(
            product.delete_product(DeleteProductRequest { product_id }),
            recommendation.delete_recommendations(DeleteRecommendationsRequest { product_id }),
            review.delete_reviews(DeleteReviewsRequest { product_id }),
        );
        product.map_err(Error::part("product"))?;
        recommendations.map_err(Error::part("recommendations"))?;
        reviews.map_err(Error::part("reviews"))?;
        Ok(())
    }
}

/// Refuses what is no number of a product before anybody is asked.
pub(crate) fn check_id(product_id: i32) -> Result<(), Error> {
    if product_id < 1 { Err(Error::ProductIdInvalid(product_id)) } else { Ok(()) }
}

/// A request that may take as long as extras may.
fn hasty<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(EXTRAS_DEADLINE);
    request
}

/// Waits for a part that a product can do without.
async fn extra<T>(
    part: &'static str,
    call: impl Future<Output = Result<ninefold::tonic::Response<T>, Status>>,
) -> Result<T, MissingPart> {
    let reason = match tokio::time::timeout(EXTRAS_DEADLINE + EXTRAS_GRACE, call).await {
        Ok(Ok(response)) => return Ok(response.into_inner()),
        Ok(Err(status)) => error::reason(&status),
        Err(_) => format!("no answer within {} ms", EXTRAS_DEADLINE.as_millis()),
    };
    tracing::warn!(part, %reason, "a product comes without a part");
    Err(MissingPart { part: part.to_owned(), reason })
}

/// What a service said about a part that it did not add. Its paths begin at the part, the caller's at the product.
fn not_created(part: &'static str, status: Status) -> Error {
    if status.code() != Code::InvalidArgument {
        return Error::part(part)(status);
    }
    let from_root = |violation: Violation| match violation.field.split('.').next() {
        Some("product" | "product_id") => violation,
        _ => Violation::new(format!("product.{}", violation.field), violation.description),
    };
    Error::ProductInvalid(fault::violations(&status).into_iter().map(from_root).collect())
}
