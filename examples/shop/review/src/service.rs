//! The calls: decode, ask the table, encode.

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use ninefold::lifecycle::Stop;
use ninefold::tonic::{Request, Response, Status, async_trait};
use shop_backend::{Backend, ProductId, refuse};

use crate::pb::review_service_server::ReviewService;
use crate::pb::{
    CreateReviewsRequest, CreateReviewsResponse, DeleteReviewsRequest, DeleteReviewsResponse, ListReviewsRequest,
    ListReviewsResponse, WatchReviewsRequest, WatchReviewsResponse,
};
use crate::{Error, table, watch};

/// Answers the calls.
#[derive(Clone, Debug)]
pub struct Service {
    backend: Backend,
    stop: Stop,
}

impl Service {
    /// Answers from a backend's database. Streams end when `stop` is asked.
    pub fn new(backend: Backend, stop: Stop) -> Self {
        Self { backend, stop }
    }

    async fn list(&self, asked: &ListReviewsRequest, service_address: String) -> Result<ListReviewsResponse, Error> {
        self.backend.mishap().await?;
        let page = self.backend.page(asked.page_size, &asked.page_token)?;
        let product = ProductId::parse(asked.product_id)?;
        let (reviews, next_page_token) = table::list(self.backend.pool(), product, page).await?;
        Ok(ListReviewsResponse { reviews, next_page_token, service_address })
    }

    async fn create(
        &self,
        asked: &CreateReviewsRequest,
        service_address: String,
    ) -> Result<CreateReviewsResponse, Error> {
        self.backend.mishap().await?;
        table::check(asked.product_id, &asked.reviews)?;
        table::create(self.backend.pool(), asked.product_id, &asked.reviews).await?;
        Ok(CreateReviewsResponse { service_address })
    }

    async fn delete(&self, product_id: i32, service_address: String) -> Result<DeleteReviewsResponse, Error> {
        self.backend.mishap().await?;
        table::delete(self.backend.pool(), ProductId::parse(product_id)?).await?;
        Ok(DeleteReviewsResponse { service_address })
    }
}

#[async_trait]
impl ReviewService for Service {
    type WatchReviewsStream = BoxStream<'static, Result<WatchReviewsResponse, Status>>;

    async fn list_reviews(
        &self,
        request: Request<ListReviewsRequest>,
    ) -> Result<Response<ListReviewsResponse>, Status> {
        let address = self.backend.service_address(&request);
        self.list(request.get_ref(), address).await.map(Response::new).map_err(refuse)
    }

    async fn watch_reviews(
        &self,
        request: Request<WatchReviewsRequest>,
    ) -> Result<Response<Self::WatchReviewsStream>, Status> {
        let address = self.backend.service_address(&request);
        let product = ProductId::parse(request.get_ref().product_id).map_err(refuse)?;
        let changes = watch::follow(self.backend.clone(), product, address, self.stop.clone());
        Ok(Response::new(changes.map(|change| change.map_err(refuse)).boxed()))
    }

    async fn create_reviews(
        &self,
        request: Request<CreateReviewsRequest>,
    ) -> Result<Response<CreateReviewsResponse>, Status> {
        let address = self.backend.service_address(&request);
        self.create(request.get_ref(), address).await.map(Response::new).map_err(refuse)
    }

    async fn delete_reviews(
        &self,
        request: Request<DeleteReviewsRequest>,
    ) -> Result<Response<DeleteReviewsResponse>, Status> {
        let address = self.backend.service_address(&request);
        self.delete(request.into_inner().product_id, address).await.map(Response::new).map_err(refuse)
    }
}
