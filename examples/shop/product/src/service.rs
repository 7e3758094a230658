//! The calls: decode, ask the table, encode.

use ninefold::tonic::{Request, Response, Status, async_trait};
use shop_backend::{Backend, ProductId, refuse};

use crate::pb::product_service_server::ProductService;
use crate::pb::{
    CreateProductRequest, CreateProductResponse, DeleteProductRequest, DeleteProductResponse, GetProductRequest,
    GetProductResponse, ListProductsRequest, ListProductsResponse,
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

    async fn get(&self, product_id: i32, service_address: String) -> Result<GetProductResponse, Error> {
        self.0.mishap().await?;
        let product = table::get(self.0.pool(), ProductId::parse(product_id)?).await?;
        Ok(GetProductResponse { product: Some(product), service_address })
    }

    async fn list(&self, asked: &ListProductsRequest, service_address: String) -> Result<ListProductsResponse, Error> {
        self.0.mishap().await?;
        let page = self.0.page(asked.page_size, &asked.page_token)?;
        let (products, next_page_token) = table::list(self.0.pool(), page).await?;
        Ok(ListProductsResponse { products, next_page_token, service_address })
    }

    async fn create(
        &self,
        asked: CreateProductRequest,
        service_address: String,
    ) -> Result<CreateProductResponse, Error> {
        self.0.mishap().await?;
        let product = table::checked(asked.product)?;
        table::create(self.0.pool(), &product).await?;
        Ok(CreateProductResponse { product: Some(product), service_address })
    }

    async fn delete(&self, product_id: i32, service_address: String) -> Result<DeleteProductResponse, Error> {
        self.0.mishap().await?;
        table::delete(self.0.pool(), ProductId::parse(product_id)?).await?;
        Ok(DeleteProductResponse { service_address })
    }
}

#[async_trait]
impl ProductService for Service {
    async fn get_product(&self, request: Request<GetProductRequest>) -> Result<Response<GetProductResponse>, Status> {
        let address = self.0.service_address(&request);
        self.get(request.into_inner().product_id, address).await.map(Response::new).map_err(refuse)
    }

    async fn list_products(
        &self,
        request: Request<ListProductsRequest>,
    ) -> Result<Response<ListProductsResponse>, Status> {
        let address = self.0.service_address(&request);
        self.list(request.get_ref(), address).await.map(Response::new).map_err(refuse)
    }

    async fn create_product(
        &self,
        request: Request<CreateProductRequest>,
    ) -> Result<Response<CreateProductResponse>, Status> {
        let address = self.0.service_address(&request);
        self.create(request.into_inner(), address).await.map(Response::new).map_err(refuse)
    }

    async fn delete_product(
        &self,
        request: Request<DeleteProductRequest>,
    ) -> Result<Response<DeleteProductResponse>, Status> {
        let address = self.0.service_address(&request);
        self.delete(request.into_inner().product_id, address).await.map(Response::new).map_err(refuse)
    }
}
