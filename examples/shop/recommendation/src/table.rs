//! The recommendations, as the database keeps them.

use shop_backend::{Checks, Error as BackendError, Page, ProductId};
use sqlx::{AnyPool, Row as _};

use crate::Error;
use crate::pb::Recommendation;

/// Most recommendations that one call adds.
const ADDED_MAX: usize = 100;

/// Checks recommendations that were sent.
///
/// # Errors
/// [`Error::Invalid`] with everything that is wrong with them.
pub(crate) fn check(product_id: i32, recommendations: &[Recommendation]) -> Result<(), Error> {
    let mut checks = Checks::default();
    checks.number("product_id", product_id, 1..=i32::MAX);
    checks.list("recommendations", recommendations.len(), ADDED_MAX);
    checks.distinct("recommendations", recommendations.iter().map(|recommendation| recommendation.recommendation_id));
    for (index, recommendation) in recommendations.iter().take(ADDED_MAX).enumerate() {
        let field = |name: &str| format!("recommendations[{index}].{name}");
        checks.number(&field("recommendation_id"), recommendation.recommendation_id, 1..=i32::MAX);
        checks.text(&field("author"), &recommendation.author, 1..=100);
        checks.number(&field("rate"), recommendation.rate, 0..=5);
        checks.text(&field("content"), &recommendation.content, 0..=1000);
    }
    checks.done().map_err(Error::Invalid)
}

/// Answers the recommendations of a page, and the token of the next.
pub(crate) async fn list(
    pool: &AnyPool,
    product: ProductId,
    page: Page,
) -> Result<(Vec<Recommendation>, String), Error> {
    let sql = "SELECT recommendation_id, author, rate, content FROM recommendations \
               WHERE product_id = $1 AND recommendation_id > $2 ORDER BY recommendation_id LIMIT $3";
    let mut recommendations = sqlx::query(sql)
        .bind(product.number())
        .bind(page.after)
        .bind(page.limit())
        .fetch_all(pool)
        .await
        .and_then(|rows| rows.iter().map(recommendation).collect::<Result<Vec<_>, _>>())
        .map_err(BackendError::doing("list recommendations"))?;
    let token = page.cut(&mut recommendations, |recommendation| recommendation.recommendation_id);
    Ok((recommendations, token))
}

/// Adds all, or none.
pub(crate) async fn create(pool: &AnyPool, product_id: i32, recommendations: &[Recommendation]) -> Result<(), Error> {
    match insert(pool, product_id, recommendations).await {
        Ok(()) => Ok(()),
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Err(Error::Exists { product_id }),
        Err(error) => Err(BackendError::doing("add recommendations")(error).into()),
    }
}

async fn insert(pool: &AnyPool, product_id: i32, recommendations: &[Recommendation]) -> Result<(), sqlx::Error> {
    let sql = "INSERT INTO recommendations (product_id, recommendation_id, author, rate, content) \
               VALUES ($1, $2, $3, $4, $5)";
    let mut transaction = pool.begin().await?;
    for recommendation in recommendations {
        sqlx::query(sql)
            .bind(product_id)
            .bind(recommendation.recommendation_id)
            .bind(recommendation.author.as_str())
            .bind(recommendation.rate)
            .bind(recommendation.content.as_str())
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await
}

pub(crate) async fn delete(pool: &AnyPool, product: ProductId) -> Result<(), Error> {
    sqlx::query("DELETE FROM recommendations WHERE product_id = $1")
        .bind(product.number())
        .execute(pool)
        .await
        .map_err(BackendError::doing("remove recommendations"))?;
    Ok(())
}

fn recommendation(row: &sqlx::any::AnyRow) -> Result<Recommendation, sqlx::Error> {
    Ok(Recommendation {
        recommendation_id: row.try_get(0)?,
        author: row.try_get(1)?,
        rate: row.try_get(2)?,
        content: row.try_get(3)?,
    })
}
