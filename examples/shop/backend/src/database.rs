//! Where a service keeps its data: SQLite unless told otherwise, or PostgreSQL, with the same statements.

use std::path::Path;
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::Migrator;
use sqlx::{AnyPool, Executor as _};
use tokio::time::Instant;

use crate::Error;

/// Most connections of one instance to its database.
const CONNECTIONS_MAX: u32 = 8;
/// How long a call waits for a connection.
const CONNECTION_WAIT: Duration = Duration::from_secs(3);
/// How long a starting service waits for its database.
const OPENING_WAIT: Duration = Duration::from_secs(20);
/// How long it waits before it tries again.
const OPENING_PAUSE: Duration = Duration::from_millis(100);

/// Opens the database at `url`, and brings its schema up to date.
///
/// Instances of one service share its database and may start at the same moment: the one that loses a race for a migration
/// finds it done when it tries again.
///
/// # Errors
/// [`Error::Unopenable`] if the database could not be had within 20 seconds.
pub async fn open(service: &str, url: &str, migrations: &Migrator) -> Result<AnyPool, Error> {
    sqlx::any::install_default_drivers();
    let end = Instant::now() + OPENING_WAIT;
    loop {
        match try_open(url, migrations).await {
            Ok(pool) => return Ok(pool),
            Err(source) if Instant::now() < end => {
                tracing::debug!(%source, "the database is not ready");
                tokio::time::sleep(OPENING_PAUSE).await;
            }
            Err(source) => return Err(Error::Unopenable { service: service.to_owned(), source }),
        }
    }
}

async fn try_open(url: &str, migrations: &Migrator) -> Result<AnyPool, Box<dyn std::error::Error + Send + Sync>> {
    let options: AnyConnectOptions = url.parse()?;
    let is_sqlite = url.starts_with("sqlite:");
    let pool = AnyPoolOptions::new()
        .max_connections(CONNECTIONS_MAX)
        .acquire_timeout(CONNECTION_WAIT)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                if is_sqlite {
                    // Readers and the writer of several processes do not wait for each other.
                    connection.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL").await?;
                }
                Ok(())
            })
        })
        .connect_with(options)
        .await?;
    migrations.run(&pool).await?;
    Ok(pool)
}

/// The URL of a service's own SQLite file: in `folder` if there is one, else in the temporary folder. Makes the folder.
///
/// # Errors
/// [`Error::Unopenable`] if the folder cannot be made.
pub fn sqlite_url(service: &str, folder: Option<&Path>) -> Result<String, Error> {
    let folder = folder.map_or_else(|| std::env::temp_dir().join("ninefold-shop"), Path::to_owned);
    std::fs::create_dir_all(&folder).map_err(|error| Error::Unopenable {
        service: service.to_owned(),
        source: format!("{}: {error}", folder.display()).into(),
    })?;
    Ok(file_url(&folder.join(format!("{service}.sqlite"))))
}

/// Writes a path as a URL that makes the file if it is not there.
fn file_url(file: &Path) -> String {
    let mut url = String::from("sqlite://");
    for letter in file.display().to_string().chars() {
        match letter {
            '%' => url.push_str("%25"),
            '?' => url.push_str("%3F"),
            '#' => url.push_str("%23"),
            ' ' => url.push_str("%20"),
            _ => url.push(letter),
        }
    }
    url.push_str("?mode=rwc");
    url
}
