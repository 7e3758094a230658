//! An instance of the product-composite service.

#[tokio::main]
async fn main() -> ninefold::Result {
    shop_product_composite::run().await
}
