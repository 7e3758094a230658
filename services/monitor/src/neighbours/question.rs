//! One question to all nodes: who is asked, until when, and who did not answer.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Formatter};
use std::future::Future;
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use ninefold::Link;
use ninefold::tonic::{Code, Request, Status, Streaming};
use ninefold_proto::ninefold::monitor::v1::MissingNode;
use ninefold_proto::ninefold::monitor::v1::neighbour_service_client::NeighbourServiceClient;
use tokio::time::Instant;

use super::{Neighbours, SHORT_WAIT, lock};
use crate::error::Error;
use crate::tier::Tier;

/// Largest message that is taken from another node. Streams come in messages of about 1 MiB.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Whose part is missing where it is not known which nodes there are.
const OTHERS: &str = "(others)";

/// Another node.
#[derive(Clone)]
pub(crate) struct Neighbour {
    /// Its name.
    pub(crate) name: String,
    /// The way to it; none where its address means nothing.
    pub(crate) link: Option<Link>,
}

impl Debug for Neighbour {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Neighbour").field(&self.name).finish()
    }
}

/// Whoever asks another node.
pub(crate) type Client = NeighbourServiceClient<Link>;

impl Neighbour {
    pub(crate) fn client(&self) -> Option<Client> {
        let link = self.link.clone()?;
        Some(NeighbourServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX))
    }
}

/// Why one node has no answer.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The node.
    Node(Status),
    /// Whoever takes the answer.
    Own(Error),
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        Self::Node(status)
    }
}

/// One question.
#[derive(Debug)]
pub(crate) struct Question {
    /// What this node keeps.
    pub(super) tier: Arc<dyn Tier>,
    neighbours: Arc<Neighbours>,
    others: Vec<Neighbour>,
    until: Instant,
    missing: Mutex<BTreeMap<String, String>>,
}

impl Question {
    pub(super) fn new(tier: Arc<dyn Tier>, neighbours: Arc<Neighbours>, until: Instant) -> Self {
        Self { tier, neighbours, others: Vec::new(), until, missing: Mutex::default() }
    }

    /// A question to a tier alone.
    #[cfg(test)]
    pub(crate) fn alone(tier: Arc<dyn Tier>) -> Self {
        let neighbours = Arc::new(Neighbours::new(tier.clone(), &crate::config::Config::default()));
        Self::new(tier, neighbours, Instant::now())
    }

    pub(super) fn among(self, others: Vec<Neighbour>, unknown: Option<String>) -> Self {
        lock(&self.missing).extend(unknown.map(|why| (OTHERS.to_owned(), why)));
        Self { others, ..self }
    }

    /// Whether nobody else is asked.
    pub(crate) const fn is_alone(&self) -> bool {
        self.others.is_empty()
    }

    /// A request in the time that is left.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.until.saturating_duration_since(Instant::now()));
        request
    }

    /// Asks all others at once; those that do not answer are noted, and not asked again for this question.
    ///
    /// # Errors
    /// What whoever takes the answers says.
    pub(crate) async fn each<T, F>(&self, ask: impl Fn(Client) -> F + Sync) -> Result<Vec<T>, Error>
    where
        T: Send,
        F: Future<Output = Result<T, Failed>> + Send,
    {
        let asked: Vec<&Neighbour> = {
            let missing = lock(&self.missing);
            self.others.iter().filter(|other| !missing.contains_key(&other.name)).collect()
        };
        let answers = join_all(asked.into_iter().map(|other| self.one(other, &ask))).await;
        answers.into_iter().filter_map(Result::transpose).collect()
    }

    async fn one<T, F>(&self, other: &Neighbour, ask: &(impl Fn(Client) -> F + Sync)) -> Result<Option<T>, Error>
    where
        T: Send,
        F: Future<Output = Result<T, Failed>> + Send,
    {
        let Some(client) = other.client() else {
            self.miss(&other.name, "its address means nothing");
            return Ok(None);
        };
        let (begun, until) = (Instant::now(), self.neighbours.until(&other.name, self.until));
        match tokio::time::timeout_at(until, ask(client)).await {
            Ok(Ok(answer)) => {
                self.neighbours.heard(&other.name, true);
                Ok(Some(answer))
            }
            Ok(Err(Failed::Own(error))) => Err(error),
            Ok(Err(Failed::Node(status))) => {
                // One that is gone says so at once; one that hangs is found out by its connection after a while.
                self.neighbours.heard(&other.name, begun.elapsed() < SHORT_WAIT);
                self.miss(&other.name, &why(&status));
                Ok(None)
            }
            Err(_) => {
                self.neighbours.heard(&other.name, false);
                self.miss(&other.name, "it did not answer in time");
                Ok(None)
            }
        }
    }

    fn miss(&self, node: &str, why: &str) {
        lock(&self.missing).insert(node.to_owned(), why.to_owned());
    }

    /// Those whose part is missing.
    pub(crate) fn missing(&self) -> Vec<MissingNode> {
        let missing = lock(&self.missing);
        missing.iter().map(|(node, why)| MissingNode { node: node.clone(), why: why.clone() }).collect()
    }

    /// The same as sentences.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let told = |missing: MissingNode| format!("the part of node {} is missing: {}", missing.node, missing.why);
        self.missing().into_iter().map(told).collect()
    }

    /// What is said instead of that something is not there, where those that did not answer may have it.
    pub(crate) fn or_missing(&self, not_there: Error) -> Error {
        let missing = self.missing();
        if missing.is_empty() {
            return not_there;
        }
        let nodes = missing.into_iter().map(|missing| missing.node).collect::<Vec<_>>().join(", ");
        Error::NodesMissing { what: not_there.to_string(), nodes }
    }
}

/// Why a node did not answer, in a fragment.
pub(crate) fn why(status: &Status) -> String {
    match status.code() {
        Code::DeadlineExceeded => "it did not answer in time".to_owned(),
        Code::Unimplemented => "it is of a version that cannot be asked".to_owned(),
        _ => status.message().to_owned(),
    }
}

/// Takes all messages of a stream.
///
/// # Errors
/// What the node says.
pub(crate) async fn drained<T>(stream: &mut Streaming<T>, mut take: impl FnMut(T)) -> Result<(), Failed> {
    while let Some(message) = stream.message().await? {
        take(message);
    }
    Ok(())
}
