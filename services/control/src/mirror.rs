//! What the reconciler looks at: the wishes in the store and the instances in the registry, as last known.
//!
//! Either may be out of reach for a while; what was known then stays. Only the registry's view says since when it is
//! heard, because from its silence nothing may be concluded.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use ninefold::Link;
use ninefold::fault;
use ninefold::lifecycle::{Scope, Stop};
use ninefold_proto::ninefold::registry::v1::registry_service_client::RegistryServiceClient;
use ninefold_proto::ninefold::registry::v1::watch_instances_response::Message;
use ninefold_proto::ninefold::registry::v1::{Instance, InstanceState, WatchInstancesRequest, WatchInstancesResponse};
use tokio::sync::watch;

use crate::book::{Book, Wishes};

/// Waits after a first and after many failures.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// Silence after which a stream of the registry, which beats, is taken for dead.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// What the registry says of this node's services.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sightings {
    /// Since when it is heard without a break.
    pub(crate) heard_since: Option<Instant>,
    /// Ids of the instances that serve.
    pub(crate) serving: BTreeSet<String>,
}

/// Wishes as last read. `None` until they were read once.
pub(crate) type WishesSeen = watch::Receiver<Option<Arc<Wishes>>>;

/// Spreads a period by 20 % to both sides.
pub(crate) fn spread(period: Duration) -> Duration {
    period.mul_f64(0.8 + 0.4 * fastrand::f64())
}

struct Retry(Duration);

impl Retry {
    async fn wait(&mut self) {
        tokio::time::sleep(spread(self.0)).await;
        self.0 = (self.0 * 2).min(RETRY.1);
    }
}

/// Follows the wishes of all nodes.
pub(crate) fn wishes(book: Book, resync: Duration, scope: &Scope) -> WishesSeen {
    let (tell, seen) = watch::channel(None);
    scope.run("control.follow_wishes", |stop| async move {
        tokio::select! {
            () = stop.asked() => {}
            () = follow_wishes(&book, resync, &tell) => {}
        }
    });
    seen
}

async fn follow_wishes(book: &Book, resync: Duration, tell: &watch::Sender<Option<Arc<Wishes>>>) {
    let mut retry = Retry(RETRY.0);
    loop {
        if let Err(error) = follow_while_reachable(book, resync, tell, &mut retry).await {
            tracing::warn!(error = %fault::chain(&error), "wishes cannot be read; the last known stay in force");
        }
        retry.wait().await;
    }
}

async fn follow_while_reachable(
    book: &Book,
    resync: Duration,
    tell: &watch::Sender<Option<Arc<Wishes>>>,
    retry: &mut Retry,
) -> Result<(), crate::Error> {
    let (mut wishes, revision) = book.wishes().await?;
    let mut changes = book.changes(revision).await?;
    retry.0 = RETRY.0;
    loop {
        tell.send_if_modified(|told| {
            let is_new = told.as_deref() != Some(&wishes);
            if is_new {
                *told = Some(Arc::new(wishes));
            }
            is_new
        });
        tokio::select! {
            batch = changes.next() => match batch {
                Some(Ok(_)) => {}
                // Compaction and lagging are answered by reading everything again.
                Some(Err(_)) | None => return Ok(()),
            },
            () = tokio::time::sleep(spread(resync)) => {}
        }
        wishes = book.wishes().await?.0;
    }
}

/// Follows the instances of the services that `names` names.
pub(crate) fn sightings(
    registry: Link,
    names: watch::Receiver<BTreeSet<String>>,
    scope: &Scope,
) -> watch::Receiver<Sightings> {
    let (tell, seen) = watch::channel(Sightings::default());
    scope.run("control.follow_instances", |stop| follow_instances(registry, names, tell, stop));
    seen
}

async fn follow_instances(
    registry: Link,
    mut names: watch::Receiver<BTreeSet<String>>,
    tell: watch::Sender<Sightings>,
    stop: Stop,
) {
    let mut retry = Retry(RETRY.0);
    loop {
        let wanted: Vec<String> = names.borrow_and_update().iter().cloned().collect();
        let followed = async {
            if wanted.is_empty() {
                return std::future::pending().await;
            }
            follow_stream(registry.clone(), wanted, &tell, &mut retry).await;
            tell.send_modify(|sightings| sightings.heard_since = None);
            retry.wait().await;
        };
        tokio::select! {
            () = stop.asked() => return,
            changed = names.changed() => if changed.is_err() {
                return;
            },
            () = followed => {}
        }
    }
}

async fn follow_stream(registry: Link, services: Vec<String>, tell: &watch::Sender<Sightings>, retry: &mut Retry) {
    let mut client = RegistryServiceClient::new(registry);
    let mut stream =
        match client.watch_instances(WatchInstancesRequest { services, ..WatchInstancesRequest::default() }).await {
            Ok(stream) => stream.into_inner(),
            Err(status) => {
                tracing::debug!(%status, "the registry cannot be followed");
                return;
            }
        };
    while let Ok(Ok(Some(message))) = tokio::time::timeout(SILENCE_MAX, stream.message()).await {
        retry.0 = RETRY.0;
        tell.send_if_modified(|sightings| take_in(sightings, message));
    }
}

/// Takes a message in; tells whether it changed anything.
fn take_in(sightings: &mut Sightings, message: WatchInstancesResponse) -> bool {
    let is_first = sightings.heard_since.is_none();
    sightings.heard_since.get_or_insert_with(|| tokio::time::Instant::now().into_std());
    let is_serving = |instance: &Instance| instance.state() == InstanceState::Serving;
    let mut is_changed = is_first;
    match message.message {
        Some(Message::Snapshot(snapshot)) => {
            let serving = snapshot.instances.into_iter().filter(is_serving).map(|instance| instance.instance_id);
            let serving = serving.collect();
            is_changed |= sightings.serving != serving;
            sightings.serving = serving;
        }
        Some(Message::Delta(delta)) => {
            for key in delta.removes {
                is_changed |= sightings.serving.remove(&key.instance_id);
            }
            for instance in delta.upserts {
                is_changed |= if is_serving(&instance) {
                    sightings.serving.insert(instance.instance_id)
                } else {
                    sightings.serving.remove(&instance.instance_id)
                };
            }
        }
        Some(Message::Heartbeat(_)) | None => {}
    }
    is_changed
}
