//! Compiles the contract that the service keeps, and those that it calls.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    ninefold_build::compile_files(
        "../proto",
        &[
            "shop/composite/v1/composite_service.proto",
            "shop/product/v1/product_service.proto",
            "shop/recommendation/v1/recommendation_service.proto",
            "shop/review/v1/review_service.proto",
        ],
    )
}
