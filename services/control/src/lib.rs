//! Keeps what runs as it is wanted.
//!
//! What is wanted lies in the store, by service; what is there is known from processes and from the registry. A
//! reconciler compares the two, acts once, and says when to look again ([`Control`]). Each action is recorded with what
//! was seen that led to it.
//!
//! A workload belongs to the node that first accepted it, because a process can only be held where it runs. Any node
//! answers for it: a change made through another node is written to the store, and the owner acts. Should the owner be
//! gone, the next write through a living node takes the workload over; nothing moves without a word. Node names must
//! therefore outlive the process. After a restart of the platform the processes of its former life are gone (they get
//! SIGTERM when their parent dies), and the reconciler starts them again.
//!
//! What it never does: schedule over machines, kill on doubt (a registry that cannot be reached says nothing about an
//! instance), or give up on a workload.

pub mod config;
pub mod error;
pub mod lines;
pub mod process;

mod book;
mod journal;
mod mirror;
mod model;
mod plan;
mod reconciler;
mod service;
mod status;
mod wire;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ninefold::Link;
use ninefold::lifecycle::Scope;
use ninefold_proto::ninefold::control::v1::control_service_server::ControlServiceServer;
use ninefold_store::Store;

pub use config::Config;
pub use error::Error;
pub use lines::{Discard, Line, LineSink, Output};

/// What control needs from the node.
#[derive(Clone, Debug)]
pub struct Deps {
    /// Where wishes and states are kept.
    pub store: Arc<dyn Store>,
    /// Who knows which instances serve.
    pub registry: Link,
    /// Name of this node. Must be the same after a restart: workloads belong to it.
    pub node: String,
    /// What children show to the platform.
    pub passes: Arc<dyn Passes>,
    /// Given to every child, such as `NINEFOLD_ENDPOINT`.
    pub environment: BTreeMap<String, String>,
    /// The `ninefold` binary, which registers and drains programs that do not join by themselves.
    pub runner: PathBuf,
    /// Where the lines of children go. Must not block.
    pub logs: Arc<dyn LineSink>,
}

/// How the children of a node say who they are to the platform.
pub trait Passes: std::fmt::Debug + Send + Sync {
    /// Variables for a child that keeps `service`, such as `NINEFOLD_TOKEN_FILE`. They are asked for before every start,
    /// and win over those of the workload.
    fn pass(&self, service: &str) -> BTreeMap<String, String>;
}

/// Children are asked nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoPasses;

impl Passes for NoPasses {
    fn pass(&self, _: &str) -> BTreeMap<String, String> {
        BTreeMap::new()
    }
}

/// The control role of a node.
#[derive(Clone, Debug)]
pub struct Control {
    service: service::Service,
    held: tokio::sync::watch::Sender<bool>,
    eyes: Scope,
}

impl Control {
    /// Starts the reconciler and its eyes in a child of `scope`. Closing the scope stops all children: SIGTERM to all at
    /// once, each with its own grace, then SIGKILL; what is left when the scope's deadline ends is killed at once.
    ///
    /// # Errors
    /// [`Error::Misconfigured`] with all mistakes in the settings; [`Error::Unstartable`] if the thread that starts processes cannot be made.
    #[expect(clippy::unused_async, reason = "roles are all started alike")]
    pub async fn start(config: Config, deps: Deps, scope: &Scope) -> Result<Self, Error> {
        let mistakes = config.mistakes();
        if !mistakes.is_empty() {
            return Err(Error::Misconfigured(mistakes));
        }
        // The eyes close after the reconciler: while children drain, their states are still followed and shown.
        let eyes_scope = scope.child("control.eyes");
        let hands = scope.child("control.hands");
        let spawner = process::Spawner::start(&hands)?;
        let book = book::Book::new(deps.store.clone(), deps.node.clone());
        let journal = Arc::new(journal::Journal::new(config.decisions_max));
        let (names, names_seen) = tokio::sync::watch::channel(Default::default());
        let wishes = mirror::wishes(book.clone(), config.resync, &eyes_scope);
        let sightings = mirror::sightings(deps.registry.clone(), names_seen, &eyes_scope);
        let (shown, shown_seen) = tokio::sync::watch::channel(Default::default());
        status::publish(book.clone(), shown_seen.clone(), config.lease, &eyes_scope);
        let driver = reconciler::Driver {
            spawner,
            passes: deps.passes,
            environment: deps.environment,
            runner: deps.runner,
            logs: deps.logs,
        };
        let held = tokio::sync::watch::Sender::new(false);
        let eyes = reconciler::Eyes { wishes, sightings, held: held.subscribe() };
        let mouth = reconciler::Mouth { names, shown, journal: journal.clone() };
        let reconciler = reconciler::Reconciler::new(&config, deps.node, driver, eyes, mouth);
        hands.run("control.reconcile", |stop| reconciler.run(stop));
        Ok(Self { service: service::Service::new(book, journal, shown_seen), held, eyes: eyes_scope })
    }

    /// Holds what runs as it is, and lets go of store and registry, within `deadline`: nothing is started any more, and
    /// nobody is told what runs. For a node that hands over; its children stop when the scope closes, as ever.
    pub async fn hold(&self, deadline: Duration) {
        self.held.send_replace(true);
        self.eyes.close(deadline).await;
    }

    /// Adds the role's service to the routes of a server.
    pub fn add_to(&self, routes: &mut tonic::service::RoutesBuilder) {
        routes.add_service(ControlServiceServer::new(self.service.clone()));
    }
}
