//! Who is there: follows the registry, and makes channels from what it hears.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ninefold_proto::ninefold::registry::v1 as words;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use words::registry_service_client::RegistryServiceClient;

use crate::connect::channel::Channel;
use crate::connect::connection::Backoff;
use crate::connect::endpoint::Surroundings;
use crate::connect::landscape::{LandscapeView, Told};
use crate::connect::observer::Observer;
use crate::connect::policy::{self, Policy};
use crate::connect::pool::Pool;
use crate::lifecycle::{Scope, Stop};
use crate::link::Link;

/// The longest wait before the registry is asked again.
const REOPEN_MAX: Duration = Duration::from_secs(1);
/// A snapshot of a large landscape is larger than gRPC's usual 4 MiB.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Which services to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// All of the landscape.
    All,
    /// Those for which a channel was made.
    Named,
}

/// What is known of the landscape, kept up to date. Clones share it.
///
/// When the registry is away, what was known stays, and calls go on.
#[derive(Clone, Debug)]
pub struct Discovery(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    interest: Interest,
    scope: Scope,
    observer: Observer,
    origin: Instant,
    view: watch::Sender<Arc<LandscapeView>>,
    named: watch::Sender<BTreeSet<String>>,
    pools: Mutex<HashMap<String, Vec<Arc<Pool>>>>,
}

impl Discovery {
    /// Begins to follow the registry behind `registry`, in a task of `scope`; connections live there too. Does not wait
    /// for the registry. Must be called within a tokio runtime.
    pub fn start(registry: Link, interest: Interest, scope: &Scope) -> Self {
        let scope = scope.child("connect");
        let shared = Arc::new(Shared {
            interest,
            scope: scope.clone(),
            observer: Observer::new(),
            origin: Instant::now(),
            view: watch::Sender::new(Arc::default()),
            named: watch::Sender::new(BTreeSet::new()),
            pools: Mutex::default(),
        });
        let follower = Follower { shared: shared.clone(), registry, told: Told::default() };
        scope.run("connect.follow", |stop| follower.run(stop));
        Self(shared)
    }

    /// Makes a channel to a service, whether or not anybody keeps it yet. Channels to one service share connections.
    /// Must be called within a tokio runtime.
    pub fn channel(&self, service: &str) -> Channel {
        self.channel_with(service, Policy::default())
    }

    /// Makes a channel that calls in its own way. Channels that balance and break alike share connections.
    /// Must be called within a tokio runtime.
    pub fn channel_with(&self, service: &str, policy: Policy) -> Channel {
        let shared = &self.0;
        shared.named.send_if_modified(|named| named.insert(service.to_owned()));
        let mut pools = shared.lock_pools();
        let pools = pools.entry(service.to_owned()).or_default();
        let pool = match pools.iter().find(|pool| pool.suits(&policy)) {
            Some(pool) => pool.clone(),
            None => {
                let pool = Arc::new(shared.new_pool(service, &policy));
                pools.push(pool.clone());
                pool
            }
        };
        Channel::new(pool, policy)
    }

    /// All known instances of the services that are followed, now and whenever they change.
    pub fn landscape(&self) -> watch::Receiver<Arc<LandscapeView>> {
        self.0.view.subscribe()
    }

    /// What the channels see from now on: breakers that open, half open and close. Time is set; the observer is left to
    /// whoever reports. A reader that lags behind 256 events loses the oldest.
    pub fn events(&self) -> broadcast::Receiver<words::Event> {
        self.0.observer.events()
    }
}

impl Shared {
    fn new_pool(&self, service: &str, policy: &Policy) -> Pool {
        let around = Surroundings {
            service: service.into(),
            scope: self.scope.clone(),
            observer: self.observer.clone(),
            changed: watch::Sender::new(()),
            origin: self.origin,
            policy: Arc::new(policy::Live::new(policy.clone(), None)),
        };
        let pool = Pool::new(around, fastrand::u64(..));
        pool.update(self.view.borrow().instances(service));
        pool
    }

    fn publish(&self, view: LandscapeView) {
        let view = Arc::new(view);
        self.view.send_replace(view.clone());
        // After the view: a pool that is made meanwhile has seen the view, or is updated here.
        let mut pools = self.lock_pools();
        pools.retain(|service, pools| {
            let instances = view.instances(service);
            pools.retain(|pool| !instances.is_empty() || Arc::strong_count(pool) > 1);
            for pool in &*pools {
                pool.update(instances);
            }
            !pools.is_empty()
        });
    }

    fn lock_pools(&self) -> MutexGuard<'_, HashMap<String, Vec<Arc<Pool>>>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task that listens to the registry.
struct Follower {
    shared: Arc<Shared>,
    registry: Link,
    told: Told,
}

/// Why a watch ended.
enum End {
    /// Other services are asked for.
    Renamed,
    /// The registry is away.
    Lost,
}

impl Follower {
    async fn run(mut self, stop: Stop) {
        let mut named = self.shared.named.subscribe();
        let mut backoff = Backoff::new(REOPEN_MAX, fastrand::u64(..));
        let work = async {
            loop {
                let names = named.borrow_and_update().clone();
                match self.follow(&names, &mut named, &mut backoff).await {
                    End::Renamed => {}
                    End::Lost => tokio::time::sleep(backoff.wait()).await,
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = stop.asked() => {}
        }
    }

    /// Watches until the stream ends. Keeps what was known.
    async fn follow(
        &mut self,
        names: &BTreeSet<String>,
        named: &mut watch::Receiver<BTreeSet<String>>,
        backoff: &mut Backoff,
    ) -> End {
        let services = match self.shared.interest {
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
        let mut client = RegistryServiceClient::new(self.registry.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let opened = tokio::select! {
            opened = client.watch_instances(words::WatchInstancesRequest { services }) => opened,
            () = renamed(self.shared.interest, named) => return End::Renamed,
        };
        let mut messages = match opened {
            Ok(response) => response.into_inner(),
            Err(status) => {
                tracing::debug!(code = ?status.code(), message = status.message(), "the registry does not answer");
                return End::Lost;
            }
        };
        loop {
            let expiry = self.told.expiry();
            tokio::select! {
                message = messages.message() => match message {
                    Ok(Some(message)) => {
                        backoff.reset();
                        self.told.take(message, Instant::now());
                    }
                    Ok(None) => return End::Lost,
                    Err(status) => {
                        tracing::debug!(code = ?status.code(), message = status.message(), "the registry is lost");
                        return End::Lost;
                    }
                },
                () = until(expiry) => self.told.expire(Instant::now()),
                () = renamed(self.shared.interest, named) => return End::Renamed,
            }
            self.shared.publish(self.told.view());
        }
    }
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
