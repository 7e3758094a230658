//! An instance of the recommendation service.

#[tokio::main]
async fn main() -> ninefold::Result {
    shop_recommendation::run().await
}
