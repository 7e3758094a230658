//! The task that listens to the registry, and says how far it has got.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt as _};
use ninefold_proto::ninefold::registry::v1 as words;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::{Code, Status, Streaming};
use words::hold_watch_request::Message as Say;
use words::registry_service_client::RegistryServiceClient;

use super::{Interest, Shared};
use crate::connect::connection::Backoff;
use crate::connect::shelf::Shelf;
use crate::connect::told::{Message, News, Told};
use crate::lifecycle::Stop;
use crate::link::Link;

/// The longest wait before the registry is asked again.
const REOPEN_MAX: Duration = Duration::from_secs(1);
/// A snapshot of a large landscape is larger than gRPC's usual 4 MiB.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The task that listens to the registry.
pub(super) struct Follower {
    shared: Arc<Shared>,
    registry: Link,
    namespace: String,
    watcher: String,
    told: Told,
    /// The services that `told` is right about, if it is.
    resumes: Option<Vec<String>>,
    shelf: Option<Shelf>,
    /// Whether the registry is older than acknowledgements.
    is_old: bool,
}

/// Why a watch ended.
enum End {
    /// Other services are asked for.
    Renamed,
    /// The registry is away.
    Lost,
    /// A message was lost on the way.
    Diverged,
}

/// An open watch.
enum Line {
    /// That acknowledges: the sender takes the revision that is taken in.
    Held(Streaming<words::HoldWatchResponse>, watch::Sender<i64>),
    /// That only listens.
    Plain(Streaming<words::WatchInstancesResponse>),
}

impl Line {
    /// Cancel safe.
    async fn next(&mut self) -> Result<Option<Message>, Status> {
        match self {
            Self::Held(messages, _) => Ok(messages.message().await?.map(Message::from)),
            Self::Plain(messages) => Ok(messages.message().await?.map(Message::from)),
        }
    }

    fn acknowledge(&self, revision: i64) {
        if let Self::Held(_, acknowledged) = self {
            acknowledged.send_replace(revision);
        }
    }
}

impl Follower {
    pub(super) fn new(
        shared: Arc<Shared>,
        registry: Link,
        (namespace, watcher): (String, String),
        shelf: Option<Shelf>,
    ) -> Self {
        Self { shared, registry, namespace, watcher, told: Told::default(), resumes: None, shelf, is_old: false }
    }

    pub(super) async fn run(mut self, stop: Stop) {
        let mut named = self.shared.named.subscribe();
        let mut backoff = Backoff::new(REOPEN_MAX, fastrand::u64(..));
        let work = async {
            let mut may_remember = true;
            loop {
                let names = named.borrow_and_update().clone();
                match self.follow(&names, &mut named, &mut backoff).await {
                    End::Renamed => {}
                    End::Lost | End::Diverged => {
                        // What was known in a former life helps only while nobody tells anything newer.
                        if std::mem::take(&mut may_remember) {
                            self.remember().await;
                        }
                        tokio::time::sleep(backoff.wait()).await;
                    }
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = stop.asked() => {}
        }
    }

    /// Begins with what was known in a former life of the process, if nothing was told in this one.
    async fn remember(&mut self) {
        if self.told.revision() > 0 {
            return;
        }
        if let Some(remembered) = async { self.shelf.as_ref()?.load().await }.await {
            self.told.remember(remembered);
            self.shared.publish(self.told.view());
        }
    }

    /// Watches until the stream ends. Keeps what was known.
    async fn follow(
        &mut self,
        names: &BTreeSet<String>,
        named: &mut watch::Receiver<BTreeSet<String>>,
        backoff: &mut Backoff,
    ) -> End {
        let services: Vec<String> = match self.shared.interest {
            Interest::All => Vec::new(),
            Interest::Named if names.is_empty() => {
                // No names would mean all.
                renamed(Interest::Named, named).await;
                return End::Renamed;
            }
            Interest::Named => {
                self.told.keep_only(names);
                names.iter().cloned().collect()
            }
        };
        let known_revision = if self.resumes.as_ref() == Some(&services) { self.told.revision() } else { 0 };
        let interest = self.shared.interest;
        let opened = tokio::select! {
            opened = self.open(services.clone(), known_revision) => opened,
            () = renamed(interest, named) => return End::Renamed,
        };
        let mut line = match opened {
            Ok(line) => line,
            Err(status) => {
                tracing::debug!(code = ?status.code(), message = status.message(), "the registry does not answer");
                return End::Lost;
            }
        };
        loop {
            let (expiry, due) = (self.told.expiry(), self.shelf.as_ref().and_then(Shelf::due));
            tokio::select! {
                message = line.next() => match message {
                    Ok(Some(message)) => {
                        let (is_news, revision) = (!matches!(message.news, News::None), message.revision);
                        if let Err(diverged) = self.told.take(message, Instant::now()) {
                            self.resumes = None;
                            let (told, known) = (diverged.told, diverged.known);
                            let reason = format!("at revision {revision} it comes to {known:016x}, not to {told:016x}");
                            self.shared.observer.diverged(reason);
                            return End::Diverged;
                        }
                        backoff.reset();
                        self.resumes = Some(services.clone());
                        self.publish();
                        if is_news {
                            line.acknowledge(revision);
                        }
                    }
                    Ok(None) => return End::Lost,
                    Err(status) => {
                        tracing::debug!(code = ?status.code(), message = status.message(), "the registry is lost");
                        return End::Lost;
                    }
                },
                () = until(expiry) => {
                    self.told.expire(Instant::now());
                    self.publish();
                }
                () = until(due) => self.keep().await,
                () = renamed(self.shared.interest, named) => return End::Renamed,
            }
        }
    }

    fn publish(&mut self) {
        self.shared.publish(self.told.view());
        if let Some(shelf) = &mut self.shelf {
            shelf.note();
        }
    }

    async fn keep(&mut self) {
        let view = self.told.view();
        if let Some(shelf) = &mut self.shelf {
            shelf.save(&view).await;
        }
    }

    async fn open(&mut self, services: Vec<String>, known_revision: i64) -> Result<Line, Status> {
        let mut client = RegistryServiceClient::new(self.registry.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        if !self.is_old {
            let open = words::OpenWatch {
                services: services.clone(),
                watcher: self.watcher.clone(),
                known_revision,
                namespace: self.namespace.clone(),
            };
            let (acknowledged, acknowledgements) = watch::channel(0);
            match client.hold_watch(said(open, acknowledgements)).await {
                Ok(response) => return Ok(Line::Held(response.into_inner(), acknowledged)),
                Err(status) if status.code() == Code::Unimplemented => self.is_old = true,
                Err(status) => return Err(status),
            }
        }
        let opened =
            client.watch_instances(words::WatchInstancesRequest { services, namespace: self.namespace.clone() }).await;
        // The next node that is asked may be a newer one.
        self.is_old = opened.is_ok();
        opened.map(|response| Line::Plain(response.into_inner()))
    }
}

/// What a watcher says: what it follows, and then how far it has got, the newest only.
fn said(
    open: words::OpenWatch,
    acknowledgements: watch::Receiver<i64>,
) -> impl Stream<Item = words::HoldWatchRequest> + Send + 'static {
    let request = |message| words::HoldWatchRequest { message: Some(message) };
    let later = stream::unfold(acknowledgements, move |mut acknowledgements| async move {
        acknowledgements.changed().await.ok()?;
        let revision = *acknowledgements.borrow_and_update();
        Some((request(Say::Acknowledge(words::AcknowledgeRevision { revision })), acknowledgements))
    });
    stream::iter([request(Say::Open(open))]).chain(later)
}

/// Waits until other services are asked for; forever where all are followed. Cancel safe.
async fn renamed(interest: Interest, named: &mut watch::Receiver<BTreeSet<String>>) {
    match interest {
        Interest::All => std::future::pending().await,
        // The sender lives in what this task shares.
        Interest::Named => drop(named.changed().await),
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}
