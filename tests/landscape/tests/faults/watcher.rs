//! A watcher that keeps what it is told, checks it against the digest, and never believes an empty list lightly.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ninefold::connect::digest;
use ninefold::lifecycle::{Scope, Stop};
use ninefold_proto::ninefold::registry::v1 as words;
use tokio_stream::StreamExt as _;
use words::hold_watch_request::Message as Say;
use words::hold_watch_response::Message as Told;
use words::registry_service_client::RegistryServiceClient;

const AGAIN: Duration = Duration::from_millis(50);
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a watcher was told.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Instances by id, with their revisions and states.
    pub(crate) instances: BTreeMap<String, (i64, words::InstanceState)>,
    /// When each was first seen no longer serving since it was last.
    pub(crate) fell: BTreeMap<String, Instant>,
    /// Fewest instances in any whole list that was said to be sure, once there were some.
    pub(crate) fewest: Option<usize>,
    /// Messages whose digest did not fit.
    pub(crate) diverged: usize,
    /// Messages of news.
    pub(crate) messages: usize,
}

impl Seen {
    /// How many serve.
    pub(crate) fn serving(&self) -> usize {
        self.instances.values().filter(|(_, state)| *state == words::InstanceState::Serving).count()
    }

    fn take(&mut self, service: &str, message: words::HoldWatchResponse) {
        let is_sure = message.authoritative;
        match message.message {
            Some(Told::Snapshot(snapshot)) => {
                self.messages += 1;
                if !is_sure {
                    // What a platform that has only just begun does not name may be on its way back.
                    for instance in snapshot.instances {
                        self.upsert(instance);
                    }
                    return;
                }
                self.instances.clear();
                snapshot.instances.into_iter().for_each(|instance| self.upsert(instance));
            }
            Some(Told::Delta(delta)) => {
                self.messages += 1;
                for key in delta.removes {
                    self.fell.entry(key.instance_id.clone()).or_insert_with(Instant::now);
                    self.instances.remove(&key.instance_id);
                }
                delta.upserts.into_iter().for_each(|instance| self.upsert(instance));
            }
            Some(Told::Heartbeat(_)) | None => {}
        }
        if is_sure && let Some(told) = message.digest {
            let known =
                self.instances.iter().fold(0, |sum, (id, (revision, _))| sum ^ digest("", service, id, *revision));
            self.diverged += usize::from(known != told);
            let count = self.instances.len();
            self.fewest = if count > 0 || self.fewest.is_some() {
                Some(self.fewest.map_or(count, |few| few.min(count)))
            } else {
                None
            };
        }
    }

    fn upsert(&mut self, instance: words::Instance) {
        let state = instance.state();
        if state == words::InstanceState::Serving {
            self.fell.remove(&instance.instance_id);
        } else {
            self.fell.entry(instance.instance_id.clone()).or_insert_with(Instant::now);
        }
        self.instances.insert(instance.instance_id, (instance.revision, state));
    }
}

/// A watcher at work until it is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Watcher {
    seen: Arc<Mutex<Seen>>,
    _scope: Scope,
}

impl Watcher {
    /// Follows a service at the platform, again and again if it is lost.
    pub(crate) fn start(endpoint: &str, service: &str) -> anyhow::Result<Self> {
        let scope = Scope::root("watcher");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let link = ninefold::connect::platform(&[endpoint.parse()?]);
        let client = RegistryServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let (service, told) = (service.to_owned(), seen.clone());
        scope.run("watcher.follow", |stop| follow(client, service, told, stop));
        Ok(Self { seen, _scope: scope })
    }

    /// What it was told so far.
    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn follow(
    mut client: RegistryServiceClient<ninefold::Link>,
    service: String,
    seen: Arc<Mutex<Seen>>,
    stop: Stop,
) {
    loop {
        let open = words::OpenWatch {
            services: vec![service.clone()],
            watcher: "test".to_owned(),
            known_revision: 0,
            ..words::OpenWatch::default()
        };
        let said = tokio_stream::once(words::HoldWatchRequest { message: Some(Say::Open(open)) });
        let round = async {
            let mut told = client.hold_watch(said.chain(tokio_stream::pending())).await?.into_inner();
            while let Some(message) = told.message().await? {
                seen.lock().unwrap_or_else(PoisonError::into_inner).take(&service, message);
            }
            Ok::<(), tonic::Status>(())
        };
        tokio::select! {
            () = stop.asked() => return,
            _ = round => {}
        }
        tokio::time::sleep(AGAIN).await;
    }
}
