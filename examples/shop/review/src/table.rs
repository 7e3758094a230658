//! The reviews, as the database keeps them.

use shop_backend::{Checks, Error as BackendError, Page, ProductId};
use sqlx::{AnyPool, Row as _};

use crate::Error;
use crate::pb::Review;

/// Most reviews that one call adds.
const ADDED_MAX: usize = 100;

/// Checks reviews that were sent.
///
/// # Errors
/// [`Error::Invalid`] with everything that is wrong with them.
pub(crate) fn check(product_id: i32, reviews: &[Review]) -> Result<(), Error> {
    let mut checks = Checks::default();
    checks.number("product_id", product_id, 1..=i32::MAX);
    checks.list("reviews", reviews.len(), ADDED_MAX);
    checks.distinct("reviews", reviews.iter().map(|review| review.review_id));
    for (index, review) in reviews.iter().take(ADDED_MAX).enumerate() {
        let field = |name: &str| format!("reviews[{index}].{name}");
        checks.number(&field("review_id"), review.review_id, 1..=i32::MAX);
        checks.text(&field("author"), &review.author, 1..=100);
        checks.text(&field("subject"), &review.subject, 1..=100);
        checks.text(&field("content"), &review.content, 0..=1000);
    }
    checks.done().map_err(Error::Invalid)
}

/// Answers the reviews of a page, and the token of the next.
pub(crate) async fn list(pool: &AnyPool, product: ProductId, page: Page) -> Result<(Vec<Review>, String), Error> {
    let sql = "SELECT review_id, author, subject, content FROM reviews \
               WHERE product_id = $1 AND review_id > $2 ORDER BY review_id LIMIT $3";
    let mut reviews = sqlx::query(sql)
        .bind(product.number())
        .bind(page.after)
        .bind(page.limit())
        .fetch_all(pool)
        .await
        .and_then(|rows| rows.iter().map(review).collect::<Result<Vec<_>, _>>())
        .map_err(BackendError::doing("list reviews"))?;
    let token = page.cut(&mut reviews, |review| review.review_id);
    Ok((reviews, token))
}

/// Adds all, or none.
pub(crate) async fn create(pool: &AnyPool, product_id: i32, reviews: &[Review]) -> Result<(), Error> {
    match insert(pool, product_id, reviews).await {
        Ok(()) => Ok(()),
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Err(Error::Exists { product_id }),
        Err(error) => Err(BackendError::doing("add reviews")(error).into()),
    }
}

async fn insert(pool: &AnyPool, product_id: i32, reviews: &[Review]) -> Result<(), sqlx::Error> {
    let sql = "INSERT INTO reviews (product_id, review_id, author, subject, content) VALUES ($1, $2, $3, $4, $5)";
    let mut transaction = pool.begin().await?;
    for review in reviews {
        sqlx::query(sql)
            .bind(product_id)
            .bind(review.review_id)
            .bind(review.author.as_str())
            .bind(review.subject.as_str())
            .bind(review.content.as_str())
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await
}

pub(crate) async fn delete(pool: &AnyPool, product: ProductId) -> Result<(), Error> {
    sqlx::query("DELETE FROM reviews WHERE product_id = $1")
        .bind(product.number())
        .execute(pool)
        .await
        .map_err(BackendError::doing("remove reviews"))?;
    Ok(())
}

fn review(row: &sqlx::any::AnyRow) -> Result<Review, sqlx::Error> {
    Ok(Review {
        review_id: row.try_get(0)?,
        author: row.try_get(1)?,
        subject: row.try_get(2)?,
        content: row.try_get(3)?,
    })
}
