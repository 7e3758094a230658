//! The nodes of a landscape that keep telemetry, and how one of them answers for all.
//!
//! Each node keeps what came to it. Whoever is asked asks the others by `NeighbourService` in the time that is left,
//! joins what they say with its own, and names those that did not answer; a node that is asked by another asks nobody. Which
//! nodes there are is in the shared store, and stays there when a node is away: what it keeps is missed until it is back,
//! is too old to be kept, or an operator says that it will not come back.

pub(crate) mod joined;
pub(crate) mod question;
pub(crate) mod series;
pub(crate) mod service;
pub(crate) mod tail;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Uri};
use ninefold::connect::{deadline, platform_as};
use ninefold::lifecycle::Stop;
use ninefold::tonic::body::Body;
use ninefold::tonic::{Request, Status};
use ninefold::{Credentials, Link, fault};
use ninefold_store::{Compare, Key, Op, Store, Txn};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tower::ServiceExt as _;

use crate::config::Config;
use crate::error::Error;
use crate::tier::Tier;
use question::{Neighbour, Question};

/// Metadata of a request that is to be answered by this node for itself alone.
pub(crate) const ALONE: &str = "ninefold-alone";
/// Metadata of a question to another node: its name. An address may have become another's.
const MEANT: &str = "ninefold-node";
/// Where the nodes are in the store.
const NODES: &str = "monitor/nodes/";
/// Most nodes that are asked.
const NODES_MAX: usize = 256;
/// How long it is believed which nodes there are.
const BELIEVED: Duration = Duration::from_secs(2);
/// Longest wait for the store to say which nodes there are; then those that are known are asked.
const STORE_WAIT: Duration = Duration::from_secs(1);
/// Longest wait for the others to do what is ordered.
const ORDER_WAIT: Duration = Duration::from_secs(150);
/// How often a node looks whether the store still knows it.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How often a node says that it is there, in seconds.
const SAY_EVERY: u64 = 3600;
/// How long a node that was waited for in vain is waited for no longer than [`SHORT_WAIT`].
const DOUBTED: Duration = Duration::from_secs(10);
const SHORT_WAIT: Duration = Duration::from_millis(500);

/// What this node is to the others.
#[derive(Clone, Debug)]
pub struct Among {
    /// Where the nodes are named.
    pub store: Arc<dyn Store>,
    /// Name of this node.
    pub node: String,
    /// Where the others ask it.
    pub endpoint: String,
    /// Who it is to the others.
    pub credentials: Credentials,
}

/// What the store says of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Its name.
    #[serde(skip)]
    pub(crate) node: String,
    /// Where it is asked.
    pub(crate) endpoint: String,
    /// When it last said so, in seconds since 1970.
    pub(crate) seen: u64,
}

/// Which nodes there are, as far as is known.
#[derive(Debug, Default)]
struct Known {
    nodes: Vec<Entry>,
    read: Option<Instant>,
    /// Why it is not known; nothing once it was.
    unknown: Option<String>,
}

/// The nodes.
#[derive(Debug)]
pub(crate) struct Neighbours {
    tier: Arc<dyn Tier>,
    wait: Duration,
    /// A node that said nothing for so long keeps nothing that is not too old, in seconds.
    forgotten_after: u64,
    among: OnceLock<Among>,
    known: tokio::sync::Mutex<Known>,
    links: Mutex<HashMap<String, Link>>,
    doubted: Mutex<HashMap<String, Instant>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic under the lock is a bug that has been told of; what it guards is whole between statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Neighbours {
    /// A node without others, until it [joins](Self::join) some.
    pub(crate) fn new(tier: Arc<dyn Tier>, config: &Config) -> Self {
        let ages = [config.logs_age_max, config.spans_age_max, config.metrics_age_max, config.samples_age_max];
        Self {
            tier,
            wait: config.query_wait,
            forgotten_after: ages.iter().map(Duration::as_secs).max().unwrap_or_default() + SAY_EVERY,
            among: OnceLock::new(),
            known: tokio::sync::Mutex::default(),
            links: Mutex::default(),
            doubted: Mutex::default(),
        }
    }

    /// Is one of several from now on.
    pub(crate) fn join(&self, among: Among) {
        // Once is all that a node does it.
        let _ = self.among.set(among);
    }

    /// Sees to it that the store names this node, until it is asked to stop. It goes on being named when it is away.
    pub(crate) async fn keep(self: Arc<Self>, stop: Stop) {
        let Some(among) = self.among.get() else { return };
        let key = Key::new(format!("{NODES}{}", among.node));
        let mut pause = Duration::ZERO;
        loop {
            tokio::select! {
                () = stop.asked() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = match self.say(among, &key).await {
                Ok(()) => LOOK_EVERY,
                Err(error) => {
                    tracing::debug!(error = %fault::chain(&error), "could not tell the others that this node is there");
                    STORE_WAIT
                }
            };
        }
    }

    async fn say(&self, among: &Among, key: &Key) -> Result<(), Error> {
        let told = among.store.get(key).await?.and_then(|entry| read(&entry.value, &among.node));
        let is_told = |told: &Entry| told.endpoint == among.endpoint && told.seen.saturating_add(SAY_EVERY) > now();
        if told.as_ref().is_some_and(is_told) {
            return Ok(());
        }
        let entry = Entry { node: among.node.clone(), endpoint: among.endpoint.clone(), seen: now() };
        let value: Bytes = serde_json::to_vec(&entry).expect("texts and a number are JSON").into();
        let mut ops = vec![Op::Put { key: key.clone(), value, lease: None }];
        // Those that keep nothing any more go, a few at a time.
        let old = self.read(among).await?.into_iter().filter(|entry| self.is_forgotten(entry));
        let old = old.filter(|entry| entry.node != among.node).take(16);
        ops.extend(old.map(|entry| Op::Delete(Key::new(format!("{NODES}{}", entry.node)))));
        among.store.txn(Txn { compares: Vec::new(), ops }).await?;
        Ok(())
    }

    fn is_forgotten(&self, entry: &Entry) -> bool {
        entry.seen.saturating_add(self.forgotten_after) < now()
    }

    async fn read(&self, among: &Among) -> Result<Vec<Entry>, Error> {
        let found = among.store.range(&Key::new(NODES), None, NODES_MAX).await?;
        let name = |key: &Key| key.as_str().strip_prefix(NODES).map(str::to_owned);
        let entries = found.entries.iter().filter_map(|entry| read(&entry.value, &name(&entry.key)?));
        Ok(entries.collect())
    }

    /// All nodes that are known, by name, and why that may not be all.
    pub(crate) async fn nodes(&self) -> (Vec<Entry>, Option<String>) {
        let Some(among) = self.among.get() else { return (Vec::new(), None) };
        let mut known = self.known.lock().await;
        if known.read.is_none_or(|read| read.elapsed() >= BELIEVED) {
            let why = match tokio::time::timeout(STORE_WAIT, self.read(among)).await {
                Ok(Ok(mut nodes)) => {
                    nodes.retain(|entry| !self.is_forgotten(entry));
                    known.nodes = nodes;
                    known.unknown = None;
                    None
                }
                Ok(Err(error)) => Some(fault::chain(&error)),
                Err(_) => Some("the store does not answer".to_owned()),
            };
            if let Some(why) = why.filter(|_| known.read.is_none() || known.unknown.is_some()) {
                known.unknown = Some(why);
            }
            known.read = Some(Instant::now());
        }
        (known.nodes.clone(), known.unknown.clone())
    }

    /// A question to all nodes, in the time that whoever asks has left; to this node alone, if that is said.
    pub(crate) async fn question(self: &Arc<Self>, is_alone: bool) -> Question {
        self.question_within(is_alone, self.wait).await
    }

    /// An order to all nodes, which may take longer.
    pub(crate) async fn order(self: &Arc<Self>, is_alone: bool) -> Question {
        self.question_within(is_alone, ORDER_WAIT).await
    }

    async fn question_within(self: &Arc<Self>, is_alone: bool, wait: Duration) -> Question {
        let begun = Instant::now();
        let end = deadline::current().map_or(begun + wait, |end| end.min(begun + wait));
        // What is left is for joining the answers, and for the way back.
        let until = begun + end.saturating_duration_since(begun) * 4 / 5;
        let question = Question::new(self.tier.clone(), self.clone(), until);
        if is_alone {
            return question;
        }
        let (nodes, unknown) = self.nodes().await;
        question.among(self.others(&nodes), unknown)
    }

    /// The others among nodes.
    pub(crate) fn others(&self, nodes: &[Entry]) -> Vec<Neighbour> {
        let Some(among) = self.among.get() else { return Vec::new() };
        let others = nodes.iter().filter(|entry| entry.node != among.node);
        others.map(|entry| Neighbour { name: entry.node.clone(), link: self.link(among, entry) }).collect()
    }

    fn link(&self, among: &Among, entry: &Entry) -> Option<Link> {
        let mut links = lock(&self.links);
        let whose = format!("{} {}", entry.node, entry.endpoint);
        if let Some(link) = links.get(&whose) {
            return Some(link.clone());
        }
        let uri: Uri = entry.endpoint.parse().ok()?;
        let node = HeaderValue::from_str(&entry.node).ok()?;
        if links.len() >= 2 * NODES_MAX {
            links.clear();
        }
        let link = platform_as(&[uri], &among.credentials);
        let name = move |mut request: http::Request<Body>| {
            request.headers_mut().insert(MEANT, node.clone());
            request
        };
        let link = Link::new(link.map_request(name));
        links.insert(whose, link.clone());
        Some(link)
    }

    /// Refuses what is meant for another node, which had this one's address before.
    ///
    /// # Errors
    /// NODE_UNKNOWN.
    pub(crate) fn meant(&self, request: Request<()>) -> Result<Request<()>, Status> {
        let meant = request.metadata().get(MEANT).and_then(|name| name.to_str().ok());
        match (meant, self.among.get()) {
            (Some(meant), Some(among)) if meant != among.node => {
                Err(fault::status(&Error::NodeUnknown(meant.to_owned())))
            }
            _ => Ok(request),
        }
    }

    /// Until when a node is waited for: not long, if it was waited for in vain just now.
    fn until(&self, node: &str, until: Instant) -> Instant {
        let is_doubted = lock(&self.doubted).get(node).is_some_and(|since| since.elapsed() < DOUBTED);
        if is_doubted { until.min(Instant::now() + SHORT_WAIT) } else { until }
    }

    /// Notes whether a node answered in time.
    fn heard(&self, node: &str, in_time: bool) {
        let mut doubted = lock(&self.doubted);
        if in_time {
            doubted.remove(node);
        } else {
            doubted.entry(node.to_owned()).or_insert_with(Instant::now);
            doubted.retain(|_, since| since.elapsed() < DOUBTED);
        }
    }

    /// Name and endpoint of this node, if it has others.
    pub(crate) fn own(&self) -> Option<&Among> {
        self.among.get()
    }

    /// Forgets a node that will not come back.
    ///
    /// # Errors
    /// [`Error::NodeUnknown`]; [`Error::Store`].
    pub(crate) async fn forget(&self, node: &str) -> Result<(), Error> {
        let unknown = || Error::NodeUnknown(node.to_owned());
        let among = self.among.get().ok_or_else(unknown)?;
        if node.is_empty() || node.contains('/') {
            return Err(unknown());
        }
        let key = Key::new(format!("{NODES}{node}"));
        let txn = Txn { compares: vec![Compare::Present(key.clone())], ops: vec![Op::Delete(key)] };
        if !among.store.txn(txn).await?.committed {
            return Err(unknown());
        }
        self.known.lock().await.read = None;
        Ok(())
    }
}

fn read(value: &[u8], node: &str) -> Option<Entry> {
    let entry: Entry = serde_json::from_slice(value).ok()?;
    Some(Entry { node: node.to_owned(), ..entry })
}
