//! Watches metrics and logs, and calls people.
//!
//! Rules are questions: PromQL, log lines that are counted, or instances that fell silent. Who is called, about what, and about what not, is the document
//! `alerts` of central configuration, so that every change of it has a revision and a way back. It keeps nothing but since
//! when what fires; it never asks another node.

pub mod config;
pub mod error;

mod document;
mod http;
mod letter;
mod mail;
mod objective;
mod service;
mod shipped;
mod silent;
mod state;
mod tell;
mod template;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ninefold::Link;
use ninefold::config::follow_document;
use ninefold::lifecycle::{Scope, Stop};
use ninefold::tonic::service::RoutesBuilder;
use ninefold_proto::ninefold::alert::v1::alert_service_server::AlertServiceServer;
use ninefold_store::{Key, Store};

pub use config::Config;
pub use error::Error;

use document::{Document, Receiver};
use service::Service;
use shipped::Pace;
use state::Alert;
use watch::{Board, Watcher};

/// Name of the document.
const DOCUMENT: &str = "alerts";
/// Environment of the document.
const ENVIRONMENT: &str = "default";
/// Rules are not asked more often.
const EVERY_MIN: Duration = Duration::from_millis(100);
/// Longest that those who call are waited for when they are called off.
const CLOSE_MAX: Duration = Duration::from_secs(6);

/// Tells whether a document `alerts` can be used: how many rules it makes with those that are shipped.
///
/// # Errors
/// All that is wrong, each with its place, such as `rules.slow.expr: ...`.
pub fn check(document: &str) -> Result<usize, Vec<String>> {
    document::read(document).map(|document| watch::rules(&document, Pace::USUAL).len())
}

/// What alerting needs of others.
#[derive(Clone, Debug)]
pub struct Deps {
    /// Where metrics, logs and documents are asked for.
    pub platform: Link,
    /// Where it keeps since when what fires.
    pub store: Arc<dyn Store>,
    /// Name of the node.
    pub node: String,
}

/// The role.
#[derive(Clone, Debug)]
pub struct Alerts(Arc<Board>, Documents, Pace);

impl Alerts {
    /// Starts watching. The document is followed once the platform answers; until then what is shipped holds.
    pub fn start(config: &Config, deps: Deps, scope: &Scope) -> Self {
        let Deps { platform, store, node } = deps;
        let board = Arc::new(Board::default());
        let (document, shown) = tokio::sync::watch::channel(Arc::new(Document::default()));
        let (firing, heard) = tokio::sync::watch::channel(None);
        let watcher = Watcher {
            platform: platform.clone(),
            store: store.clone(),
            key: Key::new(format!("alert/state/{node}")),
            board: board.clone(),
            firing,
            every: config.every.max(EVERY_MIN),
            grace: config.grace,
            pace: config.pace(),
        };
        let (rules, receivers) = (shown.clone(), shown.clone());
        let follows = scope.child("follow");
        scope.run("alert.watch", move |stop| watcher.run(rules, stop));
        let calls = scope.child("calls");
        let desk = tell::Desk { store, prefix: format!("alert/told/{node}/") };
        scope.run("alert.follow", move |stop| follow(platform, node, document, follows, stop));
        scope.run("alert.call", move |stop| call(receivers, heard, desk, calls, stop));
        Self(board, shown, config.pace())
    }

    /// Prometheus' HTTP API of rules and alerts.
    pub fn http_router(&self) -> axum::Router {
        http::router(self.0.clone())
    }

    /// Adds the contract.
    pub fn add_to(&self, routes: &mut RoutesBuilder) {
        routes.add_service(AlertServiceServer::new(Service {
            board: self.0.clone(),
            document: self.1.clone(),
            pace: self.2,
        }));
    }
}

/// The document as it is now.
type Documents = tokio::sync::watch::Receiver<Arc<Document>>;

/// Follows the document. A role is made before the platform can be asked, so the first answer may take a moment.
async fn follow(
    platform: Link,
    node: String,
    document: tokio::sync::watch::Sender<Arc<Document>>,
    scope: Scope,
    stop: Stop,
) {
    let read = |document: &ninefold_proto::ninefold::config::v1::Document| {
        document::read(&document.content).map_err(|wrong| wrong.join("; "))
    };
    let following = follow_document(DOCUMENT, ENVIRONMENT, &node, platform, &scope, read, Document::default());
    let mut live = tokio::select! {
        live = following => live,
        () = stop.asked() => return,
    };
    let mut now = live.get();
    loop {
        document.send_replace(now);
        now = tokio::select! {
            changed = live.changed() => changed,
            () = stop.asked() => return,
        };
    }
}

/// Has a task for every receiver. What each was told is known over restarts.
async fn call(
    mut document: Documents,
    firing: tokio::sync::watch::Receiver<Option<Arc<Vec<Alert>>>>,
    desk: tell::Desk,
    scope: Scope,
    stop: Stop,
) {
    let mut calling: BTreeMap<String, (Receiver, Scope)> = BTreeMap::new();
    loop {
        let wanted = document.borrow_and_update().receivers.clone();
        let over: Vec<String> = calling
            .iter()
            .filter(|(name, (receiver, _))| wanted.get(*name) != Some(receiver))
            .map(|(name, _)| name.clone())
            .collect();
        for name in over {
            if let Some((_, scope)) = calling.remove(&name) {
                scope.close(CLOSE_MAX).await;
            }
        }
        for (name, receiver) in wanted {
            if calling.contains_key(&name) {
                continue;
            }
            let own = scope.child(format!("to {name}"));
            let (told, of, hears) = (name.clone(), document.clone(), firing.clone());
            let (whom, desk) = (receiver.clone(), desk.clone());
            own.run("alert.tell", move |stop| tell::run(told, whom, of, hears, desk, stop));
            calling.insert(name, (receiver, own));
        }
        tokio::select! {
            changed = document.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = stop.asked() => return,
        }
    }
}
