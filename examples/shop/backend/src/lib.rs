//! What the services behind the composite have in common: how they open a database of their own, cut pages, check what
//! they are sent, and misbehave when told to.
//!
//! It holds no data and knows no contract: the services share these habits, never a database or a message.

mod check;
mod database;
mod error;
mod page;
mod settings;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use ninefold::App;
use ninefold::fault::{self, Fault, Kind};
use ninefold::tonic::{Request, Status};
use sqlx::AnyPool;
use sqlx::migrate::Migrator;

pub use check::{Checks, ProductId};
pub use database::{open, sqlite_url};
pub use error::Error;
pub use page::{Page, SIZE_MAX};
pub use settings::{Settings, Share, Tuning};

/// What a service behind the composite has while it runs. Clones are the same backend.
#[derive(Clone)]
pub struct Backend {
    service: Arc<str>,
    instance: Arc<str>,
    pool: AnyPool,
    tuning: Arc<dyn Fn() -> Tuning + Send + Sync>,
}

impl Backend {
    /// Opens the database of `service` as this process was told to, tuned by the central configuration.
    ///
    /// # Errors
    /// [`ninefold::Error::Settings`] with all mistakes; [`ninefold::Error::Start`] if the database cannot be had.
    pub async fn join(app: &App, service: &str, migrations: &Migrator) -> ninefold::Result<Self> {
        let settings = Settings::of_process()?;
        let central = app.config::<Tuning>().await?;
        let started = settings.tuning.clone();
        let tuning = move || central.get().or(&started);
        let backend = Self::open(service, app.instance_id(), &settings, migrations, tuning).await;
        backend.map_err(|error| ninefold::Error::start("start the backend", error))
    }

    /// Opens the service's database and brings its schema up to date. `tuning` answers what holds at the moment.
    ///
    /// # Errors
    /// [`Error::Unopenable`].
    pub async fn open(
        service: &str,
        instance: &str,
        settings: &Settings,
        migrations: &Migrator,
        tuning: impl Fn() -> Tuning + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let url = match &settings.database {
            Some(url) => url.clone(),
            None => sqlite_url(service, settings.data.as_deref())?,
        };
        let pool = open(service, &url, migrations).await?;
        Ok(Self { service: service.into(), instance: instance.into(), pool, tuning: Arc::new(tuning) })
    }

    /// The service's database.
    pub fn pool(&self) -> &AnyPool {
        &self.pool
    }

    /// Names the instance that answers a request: its id, and the address that the request came to if it is known.
    pub fn service_address<T>(&self, request: &Request<T>) -> String {
        service_address(&self.instance, request.local_addr())
    }

    /// Reads a page that was asked for.
    ///
    /// # Errors
    /// [`Error::PageInvalid`].
    pub fn page(&self, size: i32, token: &str) -> Result<Page, Error> {
        Page::parse(size, token, (self.tuning)().page_size())
    }

    /// Waits and fails as the service was told to; does nothing otherwise.
    ///
    /// # Errors
    /// [`Error::Mishap`].
    pub async fn mishap(&self) -> Result<(), Error> {
        let tuning = (self.tuning)();
        if let Some(delay) = tuning.delay {
            tokio::time::sleep(delay).await;
        }
        if tuning.fail.is_some_and(Share::draw) {
            return Err(Error::Mishap { service: self.service.to_string() });
        }
        Ok(())
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Backend").field("instance", &self.instance).finish_non_exhaustive()
    }
}

/// Names an instance: its id, and its address if it is known, such as "review-7k2f/127.0.0.1:41233".
pub fn service_address(instance: &str, address: Option<SocketAddr>) -> String {
    match address {
        Some(address) => format!("{instance}/{address}"),
        None => instance.to_owned(),
    }
}

/// Turns an error into the status that the caller gets; what is not the caller's mistake is logged.
#[expect(clippy::needless_pass_by_value, reason = "map_err hands the error over")]
pub fn refuse(error: impl Fault) -> Status {
    match error.kind() {
        Kind::Internal | Kind::DataLoss => tracing::error!(error = %fault::chain(&error), "call failed"),
        Kind::Unavailable | Kind::Deadline => tracing::warn!(error = %fault::chain(&error), "call failed"),
        Kind::InvalidInput
        | Kind::NotFound
        | Kind::AlreadyExists
        | Kind::Conflict
        | Kind::Precondition
        | Kind::Exhausted
        | Kind::Unauthenticated
        | Kind::Denied
        | Kind::Cancelled
        | Kind::Unimplemented => tracing::debug!(error = %fault::chain(&error), "call refused"),
    }
    fault::status(&error)
}
