//! An instance of the product service.

#[tokio::main]
async fn main() -> ninefold::Result {
    shop_product::run().await
}
