//! Keeps what happened, and answers questions about it.
//!
//! Logs, spans and metrics come in by OTLP over gRPC and HTTP, and as lines that programs of this node print. They are
//! kept in memory within bounds, the oldest forgotten first, behind the seam [`tier::Tier`]. It knows which records
//! belong to one trace; it never asks anybody for telemetry, and never writes about its own intake above `debug`.

pub mod bucket;
pub mod compare;
pub mod config;
pub mod critical;
pub mod error;
pub mod forward;
pub mod grammar;
pub mod graph;
pub mod mask;
pub mod model;
pub mod parse;
pub mod pattern;
pub mod shares;
pub mod summary;
pub mod tallies;
pub mod tier;

mod captured;
mod context;
mod durable;
mod follow;
mod hot;
mod ingest;
mod intake;
mod jaeger;
mod live;
mod loki;
mod metrics;
mod neighbours;
mod origin;
mod red;
mod service;
mod sql;
mod wire;

use std::sync::Arc;

use ninefold::Link;
use ninefold::lifecycle::Scope;
use ninefold::telemetry::{Measure, Measured, measure};
use ninefold::tonic::Request;
use ninefold::tonic::codec::CompressionEncoding;
use ninefold::tonic::service::interceptor::InterceptedService;
use ninefold::tonic::service::{Routes, RoutesBuilder};
use ninefold_proto::ninefold::monitor::v1::metric_service_server::MetricServiceServer;
use ninefold_proto::ninefold::monitor::v1::monitor_service_server::MonitorServiceServer;
use ninefold_proto::ninefold::monitor::v1::neighbour_service_server::NeighbourServiceServer;
use ninefold_proto::ninefold::monitor::v1::sql_service_server::SqlServiceServer;
use tokio::sync::Semaphore;

pub use captured::{Copies, LineSink, Printed, Stream};
pub use config::Config;
pub use error::Error;
pub use neighbours::Among;

use durable::Durable;
use hot::Hot;
use ingest::Ingest;
use intake::Intake;
use metrics::Metrics;
use neighbours::Neighbours;
use neighbours::question::MESSAGE_BYTES_MAX;
use red::Red;
use service::Service;
use tier::{Tally, Tier};

/// Measures what is refused, and what is kept on the disk.
fn tell_of_itself(tier: &Arc<dyn Tier>, metrics: &Arc<Metrics>) {
    #[expect(clippy::cast_precision_loss, reason = "metrics know no other numbers")]
    fn each(tier: &Arc<dyn Tier>, pick: fn(&Tally) -> u64) -> Vec<Measured> {
        let kept = tier.retention();
        let all = [("logs", kept.lines), ("traces", kept.spans), ("metrics", kept.series)];
        all.iter().map(|(signal, tally)| (vec![("signal", (*signal).to_owned())], pick(tally) as f64)).collect()
    }
    let of = tier.clone();
    let about = "Records of telemetry that were refused";
    measure("ninefold_monitor_refused_total", about, Measure::Total, move || each(&of, |tally| tally.refused));
    let of = tier.clone();
    let about = "Records of telemetry that came in";
    measure("ninefold_monitor_received_total", about, Measure::Total, move || each(&of, |tally| tally.received));
    let (of, samples) = (tier.clone(), metrics.clone());
    let about = "Bytes that telemetry takes";
    measure("ninefold_monitor_kept_bytes", about, Measure::State, move || {
        let mut all = each(&of, |tally| tally.bytes);
        all.push((vec![("signal", "samples".to_owned())], samples.bytes_kept()));
        all
    });
}

/// The role.
#[derive(Clone, Debug)]
pub struct Monitor {
    service: Arc<Service>,
    shares: Arc<neighbours::service::Service>,
    neighbours: Arc<Neighbours>,
    ingest: Arc<Ingest>,
    lines: LineSink,
    metrics: Arc<Metrics>,
    intake: Arc<Intake>,
    config: Config,
    durable: Option<Arc<Durable>>,
}

impl Monitor {
    /// Starts in memory alone: what comes in is forgotten when the scope closes.
    pub fn start(config: Config, scope: &Scope) -> Self {
        let tier = Arc::new(Hot::new(&config));
        let metrics = Arc::new(Metrics::new(&config));
        Self::before(tier, metrics, config, scope)
    }

    /// Starts with what the folder of the settings holds, or in memory alone where there is none.
    ///
    /// # Errors
    /// [`Error::Unopenable`] where the folder cannot be used, or another process holds it.
    pub async fn open(config: Config, scope: &Scope) -> Result<Self, Error> {
        let Some(folder) = config.path.clone() else { return Ok(Self::start(config, scope)) };
        let tier = Arc::new(Durable::open(&config, folder.clone(), scope).await?);
        let metrics = Metrics::open(&config, &folder, scope).await?;
        Ok(Self { durable: Some(tier.clone()), ..Self::before(tier, metrics, config, scope) })
    }

    fn before(tier: Arc<dyn Tier>, metrics: Arc<Metrics>, config: Config, scope: &Scope) -> Self {
        tell_of_itself(&tier, &metrics);
        let red = Red::start(metrics.clone(), scope);
        let intake = Arc::new(Intake::new(tier.clone(), &config, scope));
        let neighbours = Arc::new(Neighbours::new(tier.clone(), &config));
        let followers_max = config.followers_max;
        let followers = Arc::new(Semaphore::new(followers_max.min(Semaphore::MAX_PERMITS)));
        let shares = neighbours::service::Service {
            tier: tier.clone(),
            metrics: metrics.clone(),
            followers: followers.clone(),
            followers_max,
            room: (config.sql_records_max, config.sql_bytes_max),
            stop: scope.stop(),
        };
        let asked = ((tier, neighbours.clone()), (intake.clone(), metrics.clone()));
        Self {
            service: Arc::new(Service::new(asked.0, asked.1, (followers, followers_max), scope)),
            shares: Arc::new(shares),
            neighbours,
            lines: LineSink::start(config.captured_lines_max, intake.clone(), scope),
            ingest: Arc::new(Ingest::new(intake.clone(), metrics.clone(), red, config.clone())),
            intake,
            config,
            metrics,
            durable: None,
        }
    }

    /// Lets another process have the folder, once the scope is closed and nobody hands anything in any more. Links to the
    /// role may still be about; what comes by them is refused.
    pub fn let_go(&self) {
        if let Some(durable) = &self.durable {
            durable.let_go();
        }
    }

    /// Is one of several nodes from now on: it answers for all, and the others ask it. Where the store is nobody else's
    /// this changes nothing.
    pub fn join(&self, among: Among, scope: &Scope) {
        if !among.store.is_shared() {
            return;
        }
        self.neighbours.join(among);
        let neighbours = self.neighbours.clone();
        scope.run("monitor.neighbours", |stop| neighbours.keep(stop));
    }

    /// Follows the document `monitor` of central configuration, through a link to the platform: what is masked, how printed
    /// lines are read, who may send how much. Until it answers the settings hold.
    pub fn follow(&self, platform: Link, node: String, scope: &Scope) {
        let (config, intake, follows) = (self.config.clone(), self.intake.clone(), scope.child("follow"));
        scope.run("monitor.follow", move |stop| live::follow(platform, node, config, intake, follows, stop));
    }

    /// Adds the monitor's contract, and the three services of OTLP.
    pub fn add_to(&self, routes: &mut RoutesBuilder) {
        let service = MonitorServiceServer::from_arc(self.service.clone()).send_compressed(CompressionEncoding::Gzip);
        routes.add_service(service);
        let metrics = MetricServiceServer::new(metrics::Service(self.metrics.clone(), self.neighbours.clone()));
        routes.add_service(metrics.send_compressed(CompressionEncoding::Gzip));
        let sql = Arc::new(sql::Sql::new(self.metrics.clone(), &self.config));
        let sql = SqlServiceServer::new(sql::Service(sql, self.neighbours.clone()));
        routes.add_service(sql.send_compressed(CompressionEncoding::Gzip));
        let shares = NeighbourServiceServer::from_arc(self.shares.clone());
        let neighbours = self.neighbours.clone();
        let shares = shares.send_compressed(CompressionEncoding::Gzip).max_decoding_message_size(MESSAGE_BYTES_MAX);
        routes.add_service(InterceptedService::new(shares, move |request: Request<()>| neighbours.meant(request)));
        ingest::grpc::add_to(routes, &self.ingest);
    }

    /// OTLP over gRPC alone, for its own port.
    pub fn otlp_routes(&self) -> Routes {
        let mut routes = Routes::builder();
        ingest::grpc::add_to(&mut routes, &self.ingest);
        routes.routes()
    }

    /// OTLP over HTTP: `POST /v1/logs`, `/v1/traces` and `/v1/metrics`. And Prometheus' remote write: `POST /api/v1/write`, and
    /// Loki's push: `POST /loki/api/v1/push`.
    pub fn http_router(&self) -> axum::Router {
        ingest::http::router(self.ingest.clone())
    }

    /// Loki's query API, `/loki/api/v1/query` and what is beside it, and Jaeger's, `/api/traces` and what is beside it.
    pub fn guests_router(&self) -> axum::Router {
        let neighbours = self.neighbours.clone();
        loki::router(neighbours.clone(), self.config.query_wait).merge(jaeger::router(neighbours))
    }

    /// Prometheus' query API, `/api/v1/query` and what is beside it, and what a Prometheus scrapes: `/metrics`, `/federate`.
    pub fn query_router(&self) -> axum::Router {
        metrics::router(self.metrics.clone(), self.neighbours.clone())
            .merge(metrics::scrape_router(self.metrics.clone()))
    }

    /// Takes lines that programs of this node print.
    pub fn lines(&self) -> LineSink {
        self.lines.clone()
    }
}
