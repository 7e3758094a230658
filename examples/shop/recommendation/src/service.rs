//! The calls: decode, ask the table, encode.

use ninefold::tonic::{Request, Response, Status, async_trait};
use shop_backend::{Backend, ProductId, refuse};

use crate::pb::recommendation_service_server::RecommendationService;
use crate::pb::{
    CreateRecommendationsRequest, CreateRecommendationsResponse, DeleteRecommendationsRequest,
    DeleteRecommendationsResponse, ListRecommendationsRequest, ListRecommendationsResponse,
};
use crate::{Error, table};

/// Answers the calls.
#[derive(Clone, Debug)]
pub struct Service(Backend);

impl Service {
    /// Answers from a backend's database.
    pub fn new(backend: Backend) -> Self {
        Self(backend)
    }

    async fn list(
        &self,
        asked: &ListRecommendationsRequest,
        service_address: String,
    ) -> Result<ListRecommendationsResponse, Error> {
        self.0.mishap().await?;
        let page = self.0.page(asked.page_size, &asked.page_token)?;
        let product = ProductId::parse(asked.product_id)?;
        let (recommendations, next_page_token) = table::list(self.0.pool(), product, page).await?;
        Ok(ListRecommendationsResponse { recommendations, next_page_token, service_address })
    }

    async fn create(
        &self,
        asked: &CreateRecommendationsRequest,
        service_address: String,
    ) -> Result<CreateRecommendationsResponse, Error> {
        self.0.mishap().await?;
        table::check(asked.product_id, &asked.recommendations)?;
        table::create(self.0.pool(), asked.product_id, &asked.recommendations).await?;
        Ok(CreateRecommendationsResponse { service_address })
    }

    async fn delete(&self, product_id: i32, service_address: String) -> Result<DeleteRecommendationsResponse, Error> {
        self.0.mishap().await?;
        table::delete(self.0.pool(), ProductId::parse(product_id)?).await?;
        Ok(DeleteRecommendationsResponse { service_address })
    }
}

#[async_trait]
impl RecommendationService for Service {
    async fn list_recommendations(
        &self,
        request: Request<ListRecommendationsRequest>,
    ) -> Result<Response<ListRecommendationsResponse>, Status> {
        let address = self.0.service_address(&request);
        self.list(request.get_ref(), address).await.map(Response::new).map_err(refuse)
    }

    async fn create_recommendations(
        &self,
        request: Request<CreateRecommendationsRequest>,
    ) -> Result<Response<CreateRecommendationsResponse>, Status> {
        let address = self.0.service_address(&request);
        self.create(request.get_ref(), address).await.map(Response::new).map_err(refuse)
    }

    async fn delete_recommendations(
        &self,
        request: Request<DeleteRecommendationsRequest>,
    ) -> Result<Response<DeleteRecommendationsResponse>, Status> {
        let address = self.0.service_address(&request);
        self.delete(request.into_inner().product_id, address).await.map(Response::new).map_err(refuse)
    }
}
