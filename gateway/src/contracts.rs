//! Follows the landscape: fetches the contracts of the instances that are there, and publishes the routes they give.
//!
//! Requests see whole values of [`Published`], old or new, never a half. A contract is fetched once for each digest and
//! again, more and more rarely, while that fails; meanwhile the routes of the others stay as they are.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use ninefold::Link;
use ninefold::connect::policy::Timeouts;
use ninefold::connect::{Channel, Discovery, LandscapeView, Policy, Protocol, State};
use ninefold::lifecycle::Stop;
use ninefold::tonic::Status;
use ninefold_proto::ninefold::contract::v1::GetContractRequest;
use ninefold_proto::ninefold::contract::v1::contract_service_client::ContractServiceClient;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::catalog::Catalog;
use crate::contract::{self, Contract};
use crate::openapi::Documents;
use crate::routes::{Kept, Routes};

/// Largest contract that is fetched; the contract store takes none that is larger.
const CONTRACT_BYTES_MAX: usize = 80 << 20;
/// Longest time for one fetch.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Pauses after a failed fetch: the first, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How long the routes that only an old version had are kept after its last instance left, while newer ones are there:
/// long enough for a restart, short enough that what was taken away is gone.
const LINGER_OF_VERSION: Duration = Duration::from_secs(10);

/// Longest wait for the head of an answer to a stream of requests, which may come only at its end. Calls that are no
/// streams have deadlines of their own.
pub(crate) const STREAM_START_MAX: Duration = Duration::from_secs(24 * 3600);

/// What requests are answered by.
#[derive(Debug, Default)]
pub(crate) struct Published {
    /// What is routed where.
    pub(crate) routes: Routes,
    /// What is told of them by reflection.
    pub(crate) catalog: Catalog,
    /// What is told of them as OpenAPI.
    pub(crate) documents: Documents,
    /// A channel to each service that has routes.
    pub(crate) channels: HashMap<Arc<str>, Channel>,
}

/// A service and the digest of a contract of it.
type Key = (Arc<str>, Arc<str>);

#[derive(Debug)]
struct Entry {
    protobuf_services: Arc<BTreeSet<String>>,
    presence: Presence,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    /// Instances start; none serves yet.
    Starting,
    /// Instances serve.
    Live,
    /// The last instance left then.
    Gone(Instant),
}

#[derive(Debug)]
enum Fetched {
    Ready { contract: Result<Arc<Contract>, String>, created: SystemTime },
    UnderWay { tries: u32 },
    Failed { tries: u32, again: Instant, why: String },
}

type Outcome = (Arc<str>, Result<(Result<Arc<Contract>, String>, SystemTime), Status>);

/// Follows the landscape.
#[derive(Debug)]
pub(crate) struct Follower {
    discovery: Discovery,
    contract: ContractServiceClient<Link>,
    published: Arc<ArcSwap<Published>>,
    known: watch::Sender<bool>,
    linger: Duration,
    /// What was published was built from.
    kept: Vec<Kept>,
    /// What was published before.
    before: Arc<Published>,
    entries: BTreeMap<Key, Entry>,
    contracts: HashMap<Arc<str>, Fetched>,
    channels: HashMap<Arc<str>, Channel>,
}

impl Follower {
    /// Makes a follower that publishes to `published`, and tells `known` when it has done so for the first time.
    pub(crate) fn new(
        discovery: Discovery,
        contract: Link,
        published: Arc<ArcSwap<Published>>,
        known: watch::Sender<bool>,
        linger: Duration,
    ) -> Self {
        let contract = ContractServiceClient::new(contract).max_decoding_message_size(CONTRACT_BYTES_MAX);
        Self {
            discovery,
            contract,
            published,
            known,
            linger,
            kept: Vec::new(),
            before: Arc::default(),
            entries: BTreeMap::new(),
            contracts: HashMap::new(),
            channels: HashMap::new(),
        }
    }

    /// Follows until it is asked to stop.
    pub(crate) async fn run(mut self, stop: Stop) {
        let mut landscape = self.discovery.landscape();
        let mut fetching: FuturesUnordered<BoxFuture<'static, Outcome>> = FuturesUnordered::new();
        loop {
            let view = landscape.borrow_and_update().clone();
            // A large landscape takes its time, and requests wait on these threads.
            let turn = tokio::task::spawn_blocking(move || {
                let due = self.turn(&view);
                (self, due)
            });
            let due;
            (self, due) = match turn.await {
                Ok(turned) => turned,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // The runtime is going down, and this task with it.
                    Err(_) => return,
                },
            };
            fetching.extend(due.into_iter().map(|digest| fetch(self.contract.clone(), digest).boxed()));
            let wake = self.wake();
            // Nothing is lost when an arm is dropped: the landscape is a watch, the fetches live in their set.
            tokio::select! {
                () = stop.asked() => return,
                changed = landscape.changed() => {
                    if changed.is_err() {
                        return stop.asked().await;
                    }
                }
                Some((digest, outcome)) = fetching.next(), if !fetching.is_empty() => self.take(&digest, outcome),
                () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
    }

    /// Compares, and publishes what is new; gives the contracts that are to be fetched.
    fn turn(&mut self, view: &LandscapeView) -> Vec<Arc<str>> {
        self.look(view, Instant::now());
        let due = self.due(Instant::now());
        self.publish(view.is_known);
        due
    }

    /// Compares what is kept with what is there.
    fn look(&mut self, view: &LandscapeView, now: Instant) {
        if !view.is_known {
            return;
        }
        let mut there: BTreeMap<Key, (BTreeSet<String>, bool)> = BTreeMap::new();
        for instance in view.services.values().flat_map(|instances| instances.iter()) {
            let is_live = match instance.state {
                State::Serving | State::Draining | State::Suspect => true,
                State::Starting => false,
                State::Gone => continue,
            };
            if instance.protocol != Protocol::Grpc {
                continue;
            }
            let key = (instance.service.clone(), Arc::from(instance.contract_digest.as_str()));
            let (services, any_live) = there.entry(key).or_default();
            services.extend(instance.protobuf_services.iter().cloned());
            *any_live |= is_live;
        }
        // Who never served leaves nothing behind.
        self.entries.retain(|key, entry| entry.presence != Presence::Starting || there.contains_key(key));
        for (key, entry) in &mut self.entries {
            if !there.contains_key(key) && !matches!(entry.presence, Presence::Gone(_)) {
                entry.presence = Presence::Gone(now);
            }
        }
        for (key, (protobuf_services, is_live)) in there {
            let was_live = self.entries.get(&key).is_some_and(|entry| entry.presence != Presence::Starting);
            let presence = if is_live || was_live { Presence::Live } else { Presence::Starting };
            let known = self.entries.get(&key).map(|entry| entry.protobuf_services.clone());
            let same = known.filter(|known| **known == protobuf_services);
            let protobuf_services = same.unwrap_or_else(|| Arc::new(protobuf_services));
            self.entries.insert(key, Entry { protobuf_services, presence });
        }
        let has_others: HashSet<Arc<str>> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.presence == Presence::Live)
            .map(|(key, _)| key.0.clone())
            .collect();
        let linger = self.linger;
        self.entries.retain(|(service, _), entry| match entry.presence {
            Presence::Starting | Presence::Live => true,
            Presence::Gone(since) => now < since + lingering(linger, has_others.contains(service)),
        });
        let wanted: HashSet<&Arc<str>> = self.entries.keys().map(|(_, digest)| digest).collect();
        self.contracts.retain(|digest, _| wanted.contains(digest));
    }

    /// Digests to fetch now; they count as under way from here on.
    fn due(&mut self, now: Instant) -> Vec<Arc<str>> {
        let mut due = Vec::new();
        for (_, digest) in self.entries.keys().filter(|(_, digest)| !digest.is_empty()) {
            let tries = match self.contracts.get(digest) {
                None => 0,
                Some(Fetched::Failed { tries, again, .. }) if *again <= now => *tries,
                Some(Fetched::Failed { .. } | Fetched::UnderWay { .. } | Fetched::Ready { .. }) => continue,
            };
            self.contracts.insert(digest.clone(), Fetched::UnderWay { tries });
            due.push(digest.clone());
        }
        due
    }

    fn take(&mut self, digest: &Arc<str>, outcome: Result<(Result<Arc<Contract>, String>, SystemTime), Status>) {
        // A digest that nobody has any more is not there; what was fetched for it is dropped.
        let Some(fetched) = self.contracts.get_mut(digest) else { return };
        let tries = if let Fetched::UnderWay { tries } = fetched { *tries } else { 0 };
        *fetched = match outcome {
            Ok((contract, created)) => Fetched::Ready { contract, created },
            Err(status) => {
                if tries == 0 {
                    tracing::warn!(%digest, code = ?status.code(), error = status.message(), "could not fetch a contract");
                }
                let pause = RETRY.0.saturating_mul(1 << tries.min(10)).min(RETRY.1);
                let why = format!("the contract could not be fetched yet: {}", status.message());
                Fetched::Failed { tries: tries.saturating_add(1), again: Instant::now() + pause, why }
            }
        };
    }

    /// When there is something to do without anybody saying so.
    fn wake(&self) -> Option<Instant> {
        let retries = self.contracts.values().filter_map(|fetched| match fetched {
            Fetched::Failed { again, .. } => Some(*again),
            Fetched::UnderWay { .. } | Fetched::Ready { .. } => None,
        });
        let live: HashSet<&Arc<str>> =
            self.entries.iter().filter(|(_, entry)| entry.presence == Presence::Live).map(|(key, _)| &key.0).collect();
        let goodbyes = self.entries.iter().filter_map(|((service, _), entry)| match entry.presence {
            Presence::Gone(since) => Some(since + lingering(self.linger, live.contains(service))),
            Presence::Starting | Presence::Live => None,
        });
        retries.chain(goodbyes).min()
    }

    fn kept(&self) -> Vec<Kept> {
        let mut kept = Vec::new();
        for ((service, digest), entry) in &self.entries {
            if entry.presence == Presence::Starting {
                continue;
            }
            let (contract, created) = match self.contracts.get(digest) {
                Some(Fetched::Ready { contract, created }) => (contract.clone(), *created),
                Some(Fetched::Failed { why, .. }) => (Err(why.clone()), SystemTime::now()),
                Some(Fetched::UnderWay { .. }) => continue,
                None => (Err("its instances handed in no contract".to_owned()), SystemTime::UNIX_EPOCH),
            };
            kept.push(Kept {
                service: service.clone(),
                digest: digest.clone(),
                protobuf_services: entry.protobuf_services.clone(),
                contract,
                created,
                is_live: entry.presence == Presence::Live,
            });
        }
        kept
    }

    fn publish(&mut self, is_known: bool) {
        let before = self.published.load_full();
        let is_first_round = self.contracts.values().any(|fetched| matches!(fetched, Fetched::UnderWay { tries: 0 }));
        if !is_known || (is_first_round && !before.routes.is_known) {
            return;
        }
        let kept = self.kept();
        if before.routes.is_known && kept == self.kept {
            return;
        }
        let routes = Routes::build(&kept, &before.routes);
        self.kept = kept;
        if before.routes.is_known && routes == before.routes {
            return;
        }
        let services = routes.services();
        self.channels.retain(|service, _| services.contains(service));
        for service in services {
            let timeouts = Timeouts { call: STREAM_START_MAX, ..Timeouts::default() };
            let policy = Policy { timeouts, ..Policy::default() };
            let channel = || self.discovery.channel_with(&service, policy);
            self.channels.entry(service.clone()).or_insert_with(channel);
        }
        for refusal in routes.refusals.iter().filter(|refusal| !before.routes.refusals.contains(refusal)) {
            tracing::warn!(
                service = refusal.service,
                digest = refusal.contract_digest,
                reason = refusal.reason,
                "a contract gave no route"
            );
        }
        tracing::info!(routes = routes.len(), refusals = routes.refusals.len(), "routes changed");
        let catalog = Catalog::new(&routes);
        let (documents, channels) = (Documents::default(), self.channels.clone());
        self.published.store(Arc::new(Published { routes, catalog, documents, channels }));
        self.known.send_replace(true);
        // Held until the next turn, so that no request is the last to let go of it and has to take it down.
        self.before = before;
    }
}

fn lingering(of_service: Duration, has_others: bool) -> Duration {
    if has_others { LINGER_OF_VERSION.min(of_service) } else { of_service }
}

async fn fetch(mut contract: ContractServiceClient<Link>, digest: Arc<str>) -> Outcome {
    let asked = contract.get_contract(GetContractRequest { digest: digest.to_string() });
    let answer = match tokio::time::timeout(FETCH_TIMEOUT, asked).await {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) => return (digest, Err(status)),
        Err(_) => return (digest, Err(Status::deadline_exceeded("the contract store did not answer in time"))),
    };
    let created =
        answer.contract.and_then(|contract| contract.create_time).and_then(|time| SystemTime::try_from(time).ok());
    let raw = answer.descriptor_set;
    // Large contracts take their time, and other work waits on this thread.
    let read = tokio::task::spawn_blocking(move || contract::read(&raw)).await;
    let contract = read.unwrap_or_else(|_| Err("its descriptors cannot be resolved".to_owned())).map(Arc::new);
    (digest, Ok((contract, created.unwrap_or(SystemTime::UNIX_EPOCH))))
}
