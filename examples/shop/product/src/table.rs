//! The products, as the database keeps them.

use shop_backend::{Checks, Error as BackendError, Page, ProductId};
use sqlx::{AnyPool, Row as _};

use crate::Error;
use crate::pb::Product;

/// Reads a product that was sent.
///
/// # Errors
/// [`Error::Invalid`] with everything that is wrong with it.
pub(crate) fn checked(product: Option<Product>) -> Result<Product, Error> {
    let mut checks = Checks::default();
    let product = product.unwrap_or_else(|| {
        checks.missing("product");
        Product { product_id: 1, name: "missing".into(), weight_grams: 0 }
    });
    checks.number("product.product_id", product.product_id, 1..=i32::MAX);
    checks.text("product.name", &product.name, 1..=100);
    checks.number("product.weight_grams", product.weight_grams, 0..=i32::MAX);
    checks.done().map_err(Error::Invalid)?;
    Ok(product)
}

pub(crate) async fn get(pool: &AnyPool, id: ProductId) -> Result<Product, Error> {
    let row = sqlx::query("SELECT product_id, name, weight_grams FROM products WHERE product_id = $1")
        .bind(id.number())
        .fetch_optional(pool)
        .await
        .and_then(|row| row.as_ref().map(product).transpose())
        .map_err(BackendError::doing("read a product"))?;
    row.ok_or(Error::Unknown(id.number()))
}

/// Answers the products of a page, and the token of the next.
pub(crate) async fn list(pool: &AnyPool, page: Page) -> Result<(Vec<Product>, String), Error> {
    let sql = "SELECT product_id, name, weight_grams FROM products WHERE product_id > $1 ORDER BY product_id LIMIT $2";
    let mut products = sqlx::query(sql)
        .bind(page.after)
        .bind(page.limit())
        .fetch_all(pool)
        .await
        .and_then(|rows| rows.iter().map(product).collect::<Result<Vec<_>, _>>())
        .map_err(BackendError::doing("list the products"))?;
    let token = page.cut(&mut products, |product| product.product_id);
    Ok((products, token))
}

pub(crate) async fn create(pool: &AnyPool, product: &Product) -> Result<(), Error> {
    let inserted = sqlx::query("INSERT INTO products (product_id, name, weight_grams) VALUES ($1, $2, $3)")
        .bind(product.product_id)
        .bind(product.name.as_str())
        .bind(product.weight_grams)
        .execute(pool)
        .await;
    match inserted {
        Ok(_) => Ok(()),
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Err(Error::Exists(product.product_id)),
        Err(error) => Err(BackendError::doing("add a product")(error).into()),
    }
}

pub(crate) async fn delete(pool: &AnyPool, id: ProductId) -> Result<(), Error> {
    sqlx::query("DELETE FROM products WHERE product_id = $1")
        .bind(id.number())
        .execute(pool)
        .await
        .map_err(BackendError::doing("remove a product"))?;
    Ok(())
}

fn product(row: &sqlx::any::AnyRow) -> Result<Product, sqlx::Error> {
    Ok(Product { product_id: row.try_get(0)?, name: row.try_get(1)?, weight_grams: row.try_get(2)? })
}
