//! The contracts, generated: the one that the service keeps, and those that it calls.

/// What the service keeps.
pub mod composite {
    ninefold::include_proto!("shop.composite.v1");
}

/// Who knows the products.
pub mod product {
    tonic::include_proto!("shop.product.v1");
}

/// Who knows the recommendations.
pub mod recommendation {
    tonic::include_proto!("shop.recommendation.v1");
}

/// Who knows the reviews.
pub mod review {
    tonic::include_proto!("shop.review.v1");
}
