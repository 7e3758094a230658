//! An instance of the review service.

#[tokio::main]
async fn main() -> ninefold::Result {
    shop_review::run().await
}
