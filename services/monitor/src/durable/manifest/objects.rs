//! What the manifest knows of a bucket: which files it has, and which objects are to go.
//!
//! An object is noted before it is sent, so that whatever a death leaves in the bucket is known: it is sent again under the
//! same name, or removed.

use sqlx::Row as _;

use super::Manifest;

impl Manifest {
    /// A word about the folder.
    pub(crate) async fn about(&self, name: &str) -> Result<Option<String>, sqlx::Error> {
        let row = sqlx::query("SELECT value FROM about WHERE name = ?").bind(name).fetch_optional(&self.pool).await?;
        row.map(|row| row.try_get(0)).transpose()
    }

    /// Keeps a word about the folder.
    pub(crate) async fn set_about(&self, name: &str, value: &str) -> Result<(), sqlx::Error> {
        let put = sqlx::query("INSERT OR REPLACE INTO about VALUES (?, ?)");
        put.bind(name.to_owned()).bind(value.to_owned()).execute(&self.pool).await.map(drop)
    }

    /// The files that the bucket has whole, each with its sums.
    pub(crate) async fn objects(&self) -> Result<Vec<(i64, Vec<u8>)>, sqlx::Error> {
        let rows = sqlx::query("SELECT id, sums FROM object WHERE sums IS NOT NULL").fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// Notes that a file is about to be put into the bucket; answers whether there is such a file.
    pub(crate) async fn put_begins(&self, id: i64, name: &str) -> Result<bool, sqlx::Error> {
        let note = "INSERT OR REPLACE INTO object SELECT id, ?, NULL FROM file WHERE id = ?";
        let done = sqlx::query(note).bind(name.to_owned()).bind(id).execute(&self.pool).await?;
        Ok(done.rows_affected() > 0)
    }

    /// Notes that the bucket has a file whole; answers whether that still counts.
    pub(crate) async fn put_ended(&self, id: i64, sums: &[u8]) -> Result<bool, sqlx::Error> {
        let note = sqlx::query("UPDATE object SET sums = ? WHERE id = ?").bind(sums.to_vec()).bind(id);
        Ok(note.execute(&self.pool).await?.rows_affected() > 0)
    }

    /// Objects that are to go.
    pub(crate) async fn fallen(&self) -> Result<Vec<String>, sqlx::Error> {
        let rows = sqlx::query("SELECT name FROM fallen").fetch_all(&self.pool).await?;
        rows.iter().map(|row| row.try_get(0)).collect()
    }

    /// Forgets an object that is gone.
    pub(crate) async fn is_gone(&self, name: &str) -> Result<(), sqlx::Error> {
        sqlx::query("DELETE FROM fallen WHERE name = ?").bind(name.to_owned()).execute(&self.pool).await.map(drop)
    }
}
