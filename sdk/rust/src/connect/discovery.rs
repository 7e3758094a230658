//! Who is there: follows the registry, and makes channels from what it hears.

mod follow;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use ninefold_proto::ninefold::registry::v1 as words;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use crate::connect::balance;
use crate::connect::calls::Calls;
use crate::connect::channel::Channel;
use crate::connect::declared::Declared;
use crate::connect::dialer::Dialer;
use crate::connect::endpoint::Surroundings;
use crate::connect::landscape::{LandscapeView, Protocol};
use crate::connect::observer::Observer;
use crate::connect::policy::{self, Policy};
use crate::connect::pool::Pool;
use crate::connect::shelf::Shelf;
use crate::lifecycle::Scope;
use crate::link::Link;
use follow::Follower;

/// Which services to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// All of the landscape.
    All,
    /// Those for which a channel was made.
    Named,
}

/// Who follows, and what is kept of it.
#[derive(Clone, Debug, Default)]
pub struct Follow {
    /// Namespace of the services. Empty for the default.
    pub namespace: String,
    /// Who follows, for people who ask the registry: an instance such as "product-composite/p-1", or a part of the
    /// platform. At most 200 characters.
    pub watcher: String,
    /// File that the last known landscape is kept in, for a start while the platform is away. `None` for nowhere.
    pub file: Option<PathBuf>,
}

/// What is known of the landscape, kept up to date. Clones share it.
///
/// When the registry is away, what was known stays, and calls go on.
#[derive(Clone, Debug)]
pub struct Discovery(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    interest: Interest,
    dialer: ArcSwap<Dialer>,
    declared: Declared,
    scope: Scope,
    observer: Observer,
    origin: Instant,
    view: watch::Sender<Arc<LandscapeView>>,
    named: watch::Sender<BTreeSet<String>>,
    pools: Mutex<HashMap<String, Vec<Arc<Pool>>>>,
    place: OnceLock<Place>,
    seed: u64,
}

/// Where the caller is, and who.
#[derive(Debug)]
struct Place {
    zone: Arc<str>,
    caller: u64,
}

impl Discovery {
    /// Begins to follow the registry behind `registry`, in a task of `scope`; connections live there too. Does not wait
    /// for the registry. Must be called within a tokio runtime.
    pub fn start(registry: Link, interest: Interest, scope: &Scope) -> Self {
        Self::start_as(Follow::default(), registry, interest, scope)
    }

    /// As [`start`](Self::start), by name, and with a memory of what the landscape was.
    pub fn start_as(follow: Follow, registry: Link, interest: Interest, scope: &Scope) -> Self {
        let scope = scope.child("connect");
        let shared = Arc::new(Shared {
            interest,
            dialer: ArcSwap::default(),
            declared: Declared::default(),
            scope: scope.clone(),
            observer: Observer::new(),
            origin: Instant::now(),
            view: watch::Sender::new(Arc::default()),
            named: watch::Sender::new(BTreeSet::new()),
            pools: Mutex::default(),
            place: OnceLock::new(),
            seed: fastrand::u64(..),
        });
        let shelf = follow.file.map(Shelf::new);
        let follower = Follower::new(shared.clone(), registry, (follow.namespace, follow.watcher), shelf);
        scope.run("connect.follow", |stop| follower.run(stop));
        Self(shared)
    }

    /// Tells which zone the caller is in (empty for none), and its instance id, which decides whom it talks to where that
    /// is a subset. Holds for channels that are made afterwards; only the first word counts.
    #[must_use]
    pub fn placed(self, zone: &str, instance_id: &str) -> Self {
        let place = Place { zone: zone.into(), caller: balance::hash(instance_id.as_bytes()) };
        // Whoever says it twice is heard once.
        let _ = self.0.place.set(place);
        self
    }

    /// Connects otherwise than by TCP without TLS, in channels to services that no channel was made to before.
    #[must_use]
    pub fn dialing(self, dialer: Dialer) -> Self {
        self.0.dialer.store(Arc::new(dialer));
        self
    }

    /// Learns from a contract, a serialized `google.protobuf.FileDescriptorSet`, which methods may be repeated: those with
    /// an `idempotency_level`. For calls of methods that were not called before.
    pub fn learn(&self, descriptor_set: &[u8]) {
        self.0.declared.add(descriptor_set);
    }

    /// Makes a channel to a service, whether or not anybody keeps it yet. Channels to one service share connections.
    /// Must be called within a tokio runtime.
    pub fn channel(&self, service: &str) -> Channel {
        self.channel_with(service, Policy::default())
    }

    /// Makes a channel that calls in its own way. Channels that balance and break alike share connections.
    /// Must be called within a tokio runtime.
    pub fn channel_with(&self, service: &str, policy: Policy) -> Channel {
        self.channel_speaking(service, Protocol::Grpc, policy)
    }

    /// Makes a channel to instances that speak plain HTTP: it carries requests as they are, and calls for each of them
    /// balance, break, repeat and wait as calls of gRPC do. What stands for a method is the verb, such as `http/GET`.
    ///
    /// What an instance answers comes as it is, with the extension [`AnsweredBy`](crate::connect::AnsweredBy). An answer
    /// without that is the channel's own, and holds a gRPC status. A `grpc-timeout` of the request, which does not reach
    /// the instance, bounds the wait for the head of its answer. A request whose verb is not safe or idempotent by HTTP's
    /// word is repeated only where no instance can have begun to work on it.
    /// Must be called within a tokio runtime.
    pub fn http_channel(&self, service: &str, policy: Policy) -> Channel {
        self.channel_speaking(service, Protocol::Http, policy)
    }

    fn channel_speaking(&self, service: &str, speech: Protocol, policy: Policy) -> Channel {
        let shared = &self.0;
        shared.named.send_if_modified(|named| named.insert(service.to_owned()));
        let mut pools = shared.lock_pools();
        let pools = pools.entry(service.to_owned()).or_default();
        let pool = match pools.iter().find(|pool| pool.around.speech == speech && pool.suits(&policy)) {
            Some(pool) => pool.clone(),
            None => {
                let pool = shared.new_pool(service, speech, &policy);
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

    /// The policy of a service that is followed, if it has one of its own. [`landscape`](Self::landscape) tells when it
    /// changes.
    pub fn policy(&self, service: &str) -> Option<Arc<words::Policy>> {
        self.0.view.borrow().policy(service)
    }

    /// What the channels see from now on: breakers that open, half open and close. Time is set; the observer is left to
    /// whoever reports. A reader that lags behind 256 events loses the oldest.
    pub fn events(&self) -> broadcast::Receiver<words::Event> {
        self.0.observer.events()
    }

    /// How often the channels called each method.
    pub(crate) fn calls(&self) -> Calls {
        self.0.observer.calls().clone()
    }
}

impl Shared {
    fn new_pool(&self, service: &str, speech: Protocol, policy: &Policy) -> Arc<Pool> {
        let around = Surroundings {
            service: service.into(),
            speech,
            scope: self.scope.clone(),
            dialer: Dialer::clone(&self.dialer.load()),
            declared: self.declared.clone(),
            observer: self.observer.clone(),
            changed: watch::Sender::new(()),
            origin: self.origin,
            policy: Arc::new(policy::Live::new(policy.clone(), None)),
            zone: self.place.get().map_or_else(|| "".into(), |place| place.zone.clone()),
            caller: self.place.get().map_or(self.seed, |place| place.caller),
            stock: Arc::default(),
        };
        let pool = Pool::start(around);
        let view = self.view.borrow().clone();
        pool.take_policy(view.policy(service).as_ref());
        pool.update(view.instances(service));
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
            let policy = view.policy(service);
            for pool in &*pools {
                pool.take_policy(policy.as_ref());
                pool.update(instances);
            }
            !pools.is_empty()
        });
    }

    fn lock_pools(&self) -> MutexGuard<'_, HashMap<String, Vec<Arc<Pool>>>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
