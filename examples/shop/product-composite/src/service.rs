//! The calls: ask the parts, put them together.

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use ninefold::lifecycle::Stop;
use ninefold::tonic::{Request, Response, Status, async_trait};

use crate::error::{Error, refuse};
use crate::parts::{self, Parts};
use crate::pb::composite::composite_service_server::CompositeService;
use crate::pb::composite::{
    CreateProductRequest, CreateProductResponse, DeleteProductRequest, DeleteProductResponse, GetProductRequest,
    GetProductResponse, ListProductsRequest, ListProductsResponse, ServiceAddresses, WatchReviewsRequest,
    WatchReviewsResponse,
};
use crate::pb::product;
use crate::{watch, wire};

/// Answers the calls.
#[derive(Debug)]
pub(crate) struct Composite {
    parts: Parts,
    instance: String,
    stop: Stop,
}

impl Composite {
    /// Puts together what `parts` know. Streams end when `stop` is asked.
    pub(crate) fn new(parts: Parts, instance: impl Into<String>, stop: Stop) -> Self {
        Self { parts, instance: instance.into(), stop }
    }

    async fn get(&self, product_id: i32, own_address: String) -> Result<GetProductResponse, Error> {
        parts::check_id(product_id)?;
        let (product, recommendations, reviews) = tokio::join!(
            self.parts.product(product_id),
            self.parts.recommendations(product_id),
            self.parts.reviews(product_id),
        );
        let product = product?;
        let mut degraded = Vec::new();
        let recommendations = recommendations.unwrap_or_else(|missing| {
            degraded.push(missing);
            Default::default()
        });
        let reviews = reviews.unwrap_or_else(|missing| {
            degraded.push(missing);
            Default::default()
        });
        let service_addresses = Some(ServiceAddresses {
            composite: own_address,
            product: product.service_address,
            recommendation: recommendations.service_address,
            review: reviews.service_address,
        });
        let whole = wire::whole(product.product.unwrap_or_default(), recommendations.recommendations, reviews.reviews);
        Ok(GetProductResponse { product: Some(whole), service_addresses, degraded })
    }

    async fn list(&self, asked: ListProductsRequest) -> Result<ListProductsResponse, Error> {
        let asked = product::ListProductsRequest { page_size: asked.page_size, page_token: asked.page_token };
        let page = self.parts.products(asked).await?;
        let products = page.products.into_iter().map(Into::into).collect();
        Ok(ListProductsResponse { products, next_page_token: page.next_page_token })
    }

    async fn create(&self, asked: CreateProductRequest, own_address: String) -> Result<CreateProductResponse, Error> {
        let whole = asked.product.unwrap_or_default();
        let product_id = whole.product_id;
        let (product, recommendations, reviews) = wire::parts(whole.clone());
        let product = self.parts.create_product(product).await?;
        let (recommendation, review) = tokio::join!(
            self.parts.create_recommendations(product_id, recommendations),
            self.parts.create_reviews(product_id, reviews),
        );
        match recommendation.and_then(|recommendation| review.map(|review| (recommendation, review))) {
            Ok((recommendation, review)) => {
                let product = product.service_address;
                let service_addresses =
                    Some(ServiceAddresses { composite: own_address, product, recommendation, review });
                Ok(CreateProductResponse { product: Some(whole), service_addresses })
            }
            Err(error) => {
                if let Err(left) = self.parts.delete(product_id).await {
                    tracing::warn!(product_id, error = %left, "half a product was left behind");
                }
                Err(error)
            }
        }
    }

    fn own_address<T>(&self, request: &Request<T>) -> String {
        match request.local_addr() {
            Some(address) => format!("{}/{address}", self.instance),
            None => self.instance.clone(),
        }
    }
}

#[async_trait]
impl CompositeService for Composite {
    type WatchReviewsStream = BoxStream<'static, Result<WatchReviewsResponse, Status>>;

    async fn get_product(&self, request: Request<GetProductRequest>) -> Result<Response<GetProductResponse>, Status> {
        let own_address = self.own_address(&request);
        self.get(request.into_inner().product_id, own_address).await.map(Response::new).map_err(refuse)
    }

    async fn list_products(
        &self,
        request: Request<ListProductsRequest>,
    ) -> Result<Response<ListProductsResponse>, Status> {
        self.list(request.into_inner()).await.map(Response::new).map_err(refuse)
    }

    async fn create_product(
        &self,
        request: Request<CreateProductRequest>,
    ) -> Result<Response<CreateProductResponse>, Status> {
        let own_address = self.own_address(&request);
        self.create(request.into_inner(), own_address).await.map(Response::new).map_err(refuse)
    }

    async fn delete_product(
        &self,
        request: Request<DeleteProductRequest>,
    ) -> Result<Response<DeleteProductResponse>, Status> {
        self.parts.delete(request.into_inner().product_id).await.map_err(refuse)?;
        Ok(Response::new(DeleteProductResponse {}))
    }

    async fn watch_reviews(
        &self,
        request: Request<WatchReviewsRequest>,
    ) -> Result<Response<Self::WatchReviewsStream>, Status> {
        let product_id = request.into_inner().product_id;
        parts::check_id(product_id).map_err(refuse)?;
        self.parts.product(product_id).await.map_err(refuse)?;
        let changes = watch::follow(self.parts.clone(), product_id, self.stop.clone());
        Ok(Response::new(changes.map(|change| change.map_err(refuse)).boxed()))
    }
}
