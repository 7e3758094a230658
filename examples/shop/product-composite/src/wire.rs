//! Between the words of the parts and those of the whole.

use crate::pb::{composite, product, recommendation, review};

pub(crate) fn whole(
    product: product::Product,
    recommendations: Vec<recommendation::Recommendation>,
    reviews: Vec<review::Review>,
) -> composite::Product {
    composite::Product {
        product_id: product.product_id,
        name: product.name,
        weight_grams: product.weight_grams,
        recommendations: recommendations.into_iter().map(Into::into).collect(),
        reviews: reviews.into_iter().map(Into::into).collect(),
    }
}

/// Takes a whole product apart.
pub(crate) fn parts(
    whole: composite::Product,
) -> (product::Product, Vec<recommendation::Recommendation>, Vec<review::Review>) {
    let product = product::Product { product_id: whole.product_id, name: whole.name, weight_grams: whole.weight_grams };
    let recommendations = whole.recommendations.into_iter().map(Into::into).collect();
    (product, recommendations, whole.reviews.into_iter().map(Into::into).collect())
}

impl From<product::Product> for composite::ProductSummary {
    fn from(product: product::Product) -> Self {
        Self { product_id: product.product_id, name: product.name, weight_grams: product.weight_grams }
    }
}

impl From<recommendation::Recommendation> for composite::Recommendation {
    fn from(part: recommendation::Recommendation) -> Self {
        Self { recommendation_id: part.recommendation_id, author: part.author, rate: part.rate, content: part.content }
    }
}

impl From<composite::Recommendation> for recommendation::Recommendation {
    fn from(part: composite::Recommendation) -> Self {
        Self { recommendation_id: part.recommendation_id, author: part.author, rate: part.rate, content: part.content }
    }
}

impl From<review::Review> for composite::Review {
    fn from(part: review::Review) -> Self {
        Self { review_id: part.review_id, author: part.author, subject: part.subject, content: part.content }
    }
}

impl From<composite::Review> for review::Review {
    fn from(part: composite::Review) -> Self {
        Self { review_id: part.review_id, author: part.author, subject: part.subject, content: part.content }
    }
}
