//! Central configuration: a value of the service's own type that follows its document.

mod cache;

use std::sync::Arc;
use std::time::Duration;

use ninefold_proto::ninefold::config::v1::config_service_client::ConfigServiceClient;
use ninefold_proto::ninefold::config::v1::{
    AcknowledgeDocumentRequest, Acknowledgement, Document, GetDocumentRequest, WatchDocumentRequest,
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tonic::{Code, Status};

use crate::lifecycle::Scope;
use crate::link::Link;
pub(crate) use cache::Cache;

/// Longest wait for the platform before the service starts with what it has.
const FIRST_MAX: Duration = Duration::from_secs(1);
/// Pauses between attempts to follow the document.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// Longest wait for an acknowledgement to be taken.
const ACKNOWLEDGE_MAX: Duration = Duration::from_secs(2);
/// The platform forgets acknowledgements after an hour.
const ACKNOWLEDGE_EVERY: Duration = Duration::from_secs(20 * 60);

/// A value that follows central configuration. Clones follow the same value.
///
/// A document that cannot be read as a `T` is refused, and the value stays what it was; whoever wrote it sees why.
#[derive(Debug)]
pub struct Live<T>(watch::Receiver<Arc<T>>);

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Live<T> {
    /// The value as it is now. Cheap; take it once per request, so that the request sees one value.
    pub fn get(&self) -> Arc<T> {
        self.0.borrow().clone()
    }

    /// Waits until the value is another one than at the last call, and gives it. Cancel safe. Never returns once the
    /// service has stopped.
    pub async fn changed(&mut self) -> Arc<T> {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.0.borrow_and_update().clone()
    }

    /// A value that never changes, for tests of code that takes a live one.
    pub fn fixed(value: T) -> Self {
        // Without a sender, the receiver keeps the value it has.
        Self(watch::channel(Arc::new(value)).1)
    }
}

/// Which document is followed, for whom.
#[derive(Clone, Debug)]
pub(crate) struct Follow {
    pub(crate) service: String,
    pub(crate) environment: String,
    pub(crate) instance_id: String,
    pub(crate) cache: Option<Cache>,
}

/// Reads the document and follows it from then on.
///
/// Starts with the document if the platform answers within a second; otherwise with the last good one on disk; otherwise,
/// and where there is no document, with the default.
pub(crate) async fn follow<T>(follow: Follow, platform: Link, scope: &Scope) -> Live<T>
where
    T: DeserializeOwned + Default + Send + Sync + 'static,
{
    let read = |document: &Document| serde_json::from_str(&document.content).map_err(|error| error.to_string());
    follow_with(follow, platform, scope, read, T::default()).await
}

/// As [`follow`], with a reader that may refuse more than a type does, and with what holds while there is no document.
async fn follow_with<T, R>(follow: Follow, platform: Link, scope: &Scope, read: R, otherwise: T) -> Live<T>
where
    T: Send + Sync + 'static,
    R: Fn(&Document) -> Result<T, String> + Send + Sync + 'static,
{
    let client = ConfigServiceClient::new(platform);
    let mut follower = Follower { follow, client, read, revision: 0, verdict: None };
    let (value, known) = follower.first(otherwise).await;
    let (send, receive) = watch::channel(Arc::new(value));
    scope.run("config.follow", |stop| async move {
        tokio::select! {
            () = follower.keep(send, known) => {}
            () = stop.asked() => {}
        }
    });
    Live(receive)
}

/// Follows a document of a part of the platform itself, read by `read`, which tells why it refuses one: the value stays
/// what it was then, and whoever wrote the document sees why. Waits a second at the longest; `otherwise` holds while there
/// is no document that can be used.
pub async fn follow_document<T, R>(
    service: &str,
    environment: &str,
    instance_id: &str,
    platform: Link,
    scope: &Scope,
    read: R,
    otherwise: T,
) -> Live<T>
where
    T: Send + Sync + 'static,
    R: Fn(&Document) -> Result<T, String> + Send + Sync + 'static,
{
    let [service, environment, instance_id] = [service, environment, instance_id].map(str::to_owned);
    let follow = Follow { service, environment, instance_id, cache: None };
    follow_with(follow, platform, scope, read, otherwise).await
}

struct Follower<R> {
    follow: Follow,
    client: ConfigServiceClient<Link>,
    read: R,
    /// Newest revision that was offered.
    revision: i64,
    /// What was last said of it.
    verdict: Option<Acknowledgement>,
}

impl<R> Follower<R> {
    /// The value to start with, and whether it came from the platform.
    async fn first<T>(&mut self, otherwise: T) -> (T, bool)
    where
        R: Fn(&Document) -> Result<T, String>,
    {
        let request = GetDocumentRequest {
            service: self.follow.service.clone(),
            environment: self.follow.environment.clone(),
            revision: None,
        };
        let answer = tokio::time::timeout(FIRST_MAX, self.client.get_document(request)).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("the platform does not answer")));
        let refused = match answer.map(|response| response.into_inner().document) {
            Ok(Some(document)) => match self.read(&document).await {
                Some(value) => return (value, true),
                None => "the document was refused",
            },
            Ok(None) => return (otherwise, true),
            Err(status) if status.code() == Code::NotFound => return (otherwise, true),
            Err(_) => "the platform is away",
        };
        let Some(cache) = &self.follow.cache else {
            tracing::warn!(reason = refused, "starting with the default config");
            return (otherwise, false);
        };
        let kept = cache.load().await.and_then(|document| Some(((self.read)(&document).ok()?, document.revision)));
        match kept {
            Some((value, revision)) => {
                tracing::warn!(reason = refused, revision, "starting with the last good config");
                (value, false)
            }
            None => {
                tracing::warn!(reason = refused, "starting with the default config");
                (otherwise, false)
            }
        }
    }

    async fn keep<T>(mut self, send: watch::Sender<Arc<T>>, known: bool)
    where
        R: Fn(&Document) -> Result<T, String>,
    {
        let mut random = fastrand::Rng::new();
        let mut pause = RETRY_MIN;
        let mut warned = !known;
        loop {
            let (status, heard) = self.listen(&send).await;
            if heard {
                pause = RETRY_MIN;
                warned = false;
            }
            if !std::mem::replace(&mut warned, true) {
                tracing::warn!(code = ?status.code(), error = status.message(), "config is not followed; keeping what it is");
            }
            tokio::time::sleep(pause.mul_f64(0.5 + random.f64() / 2.0)).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// Follows the document until the stream ends; tells why, and whether anything was heard.
    async fn listen<T>(&mut self, send: &watch::Sender<Arc<T>>) -> (Status, bool)
    where
        R: Fn(&Document) -> Result<T, String>,
    {
        let request = WatchDocumentRequest {
            service: self.follow.service.clone(),
            environment: self.follow.environment.clone(),
            known_revision: self.revision,
        };
        let mut stream = match self.client.watch_document(request).await {
            Ok(response) => response.into_inner(),
            Err(status) => return (status, false),
        };
        // The first reminder is due at once: a new node may not have heard.
        let mut remind = tokio::time::interval(ACKNOWLEDGE_EVERY);
        loop {
            // Both arms are cancel safe.
            let heard = tokio::select! {
                heard = stream.message() => heard,
                _ = remind.tick() => {
                    self.acknowledge().await;
                    continue;
                }
            };
            let document = match heard {
                Ok(Some(heard)) => heard.document,
                Ok(None) => return (Status::unavailable("the platform ended the stream"), true),
                Err(status) => return (status, true),
            };
            let Some(document) = document else { continue };
            if let Some(value) = self.read(&document).await {
                tracing::info!(revision = document.revision, "config changed");
                send.send_replace(Arc::new(value));
            }
            self.acknowledge().await;
        }
    }

    /// Reads a document, keeps it if it is good, and notes what is to be said of it.
    async fn read<T>(&mut self, document: &Document) -> Option<T>
    where
        R: Fn(&Document) -> Result<T, String>,
    {
        let read = (self.read)(document);
        let refusal = read.as_ref().err().cloned().unwrap_or_default();
        self.revision = document.revision;
        if refusal.is_empty() {
            if let Some(cache) = &self.follow.cache {
                cache.save(document).await;
            }
        } else {
            tracing::error!(revision = document.revision, error = refusal, "config refused; keeping what it is");
        }
        if read.is_ok() {
            tell_revision(&self.follow, document.revision);
        }
        self.verdict = Some(Acknowledgement {
            service: self.follow.service.clone(),
            environment: self.follow.environment.clone(),
            instance_id: self.follow.instance_id.clone(),
            revision: document.revision,
            refusal,
            time: None,
        });
        read.ok()
    }

    /// Tells what this instance runs with. If that fails it is told again with the next reminder or revision.
    async fn acknowledge(&mut self) {
        let Some(verdict) = self.verdict.clone() else { return };
        let request = AcknowledgeDocumentRequest { acknowledgement: Some(verdict) };
        match tokio::time::timeout(ACKNOWLEDGE_MAX, self.client.acknowledge_document(request)).await {
            Ok(Ok(_)) => {}
            Ok(Err(status)) => tracing::debug!(error = status.message(), "config could not be acknowledged"),
            Err(_) => tracing::debug!("config could not be acknowledged in time"),
        }
    }
}

/// Measures which revision this instance runs with, so that what it said at some time can be held against it.
#[expect(clippy::cast_precision_loss, reason = "metrics know no other numbers; nobody writes a document 2^53 times")]
fn tell_revision(follow: &Follow, revision: i64) {
    use opentelemetry::KeyValue;
    let meter = opentelemetry::global::meter("ninefold");
    let gauge = meter.f64_gauge("ninefold_config_revision").with_description("Revision that the instance runs with");
    let labels =
        [KeyValue::new("document", follow.service.clone()), KeyValue::new("environment", follow.environment.clone())];
    gauge.build().record(revision as f64, &labels);
}
