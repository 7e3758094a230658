//! One stream of xDS, in both forms.
//!
//! A client has no queue: when its transport has room, it is looked at what it lacks. Changes are told in the order
//! clusters, endpoints, listeners, routes, and routes only after the clusters were answered, so that no call is sent where
//! nobody is yet.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::stream::{self, BoxStream, Stream};
use futures_util::{FutureExt as _, StreamExt as _};
use ninefold::Caller;
use ninefold::lifecycle::Stop;
use ninefold_proto::ninefold::dialect::v1 as words;
use prost_types::value::Kind;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;

use super::ledger::{self, Ledger, Place};
use super::refusal::{self, Refusal};
use super::subscription::{Asked, AskedDelta, Batch, NAME_BYTES_MAX, NAMES_MAX, Subscription, Trouble};
use super::{Audience, Type, shelf};
use crate::catalogue::Catalogue;
use crate::error::Error;
use crate::model::World;
use crate::words::envoy::config::core::v3 as core;
use crate::words::envoy::service::discovery::v3 as wire;
use crate::words::google::rpc;

/// How long changes are gathered before a client is told; a burst then is one response.
const GATHER: Duration = Duration::from_millis(5);
/// Longest wait for the answer to clusters and endpoints before listeners and routes are told all the same.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// Names of a subscription that are shown.
const NAMES_SHOWN: usize = 100;
/// gRPC codes of `resource_errors`.
const NOT_FOUND: i32 = 5;
const UNAVAILABLE: i32 = 14;

/// A form of the protocol.
pub(crate) trait Form: Send + 'static {
    /// What a client says.
    type Request: Send + 'static;
    /// What it is told.
    type Response: Send + 'static;
    /// Whether only changes are told.
    const IS_DELTA: bool;
    /// Takes a request apart.
    fn read(request: Self::Request) -> Heard;
    /// Makes a response.
    fn write(of: Type, batch: Batch, version: String, nonce: u64, node: &str) -> Self::Response;
}

/// What a client says, in either form.
#[derive(Debug)]
pub(crate) struct Heard {
    node: Option<core::Node>,
    type_url: String,
    nonce: String,
    error: Option<String>,
    asked: Request,
}

#[derive(Debug)]
enum Request {
    World(Asked),
    Delta(AskedDelta),
}

/// State of the world.
#[derive(Debug)]
pub(crate) struct Whole;

/// Only what changed.
#[derive(Debug)]
pub(crate) struct Delta;

impl Form for Whole {
    type Request = wire::DiscoveryRequest;
    type Response = wire::DiscoveryResponse;
    const IS_DELTA: bool = false;

    fn read(request: Self::Request) -> Heard {
        Heard {
            node: request.node,
            type_url: request.type_url,
            nonce: request.response_nonce,
            error: request.error_detail.map(|status| status.message),
            asked: Request::World(Asked { names: request.resource_names, version: request.version_info }),
        }
    }

    fn write(of: Type, batch: Batch, version: String, nonce: u64, node: &str) -> Self::Response {
        wire::DiscoveryResponse {
            version_info: version,
            resources: batch.resources.iter().map(|resource| resource.any.clone()).collect(),
            type_url: of.url().to_owned(),
            nonce: nonce.to_string(),
            control_plane: Some(core::ControlPlane { identifier: node.to_owned() }),
            resource_errors: errors(batch.errors),
        }
    }
}

impl Form for Delta {
    type Request = wire::DeltaDiscoveryRequest;
    type Response = wire::DeltaDiscoveryResponse;
    const IS_DELTA: bool = true;

    fn read(request: Self::Request) -> Heard {
        Heard {
            node: request.node,
            type_url: request.type_url,
            nonce: request.response_nonce,
            error: request.error_detail.map(|status| status.message),
            asked: Request::Delta(AskedDelta {
                subscribe: request.resource_names_subscribe,
                unsubscribe: request.resource_names_unsubscribe,
                has: request.initial_resource_versions.into_iter().collect(),
            }),
        }
    }

    fn write(of: Type, batch: Batch, version: String, nonce: u64, node: &str) -> Self::Response {
        let resource = |resource: &Arc<shelf::Resource>| wire::Resource {
            version: resource.version.clone(),
            resource: Some(resource.any.clone()),
            name: resource.name.clone(),
        };
        wire::DeltaDiscoveryResponse {
            system_version_info: version,
            resources: batch.resources.iter().map(resource).collect(),
            type_url: of.url().to_owned(),
            nonce: nonce.to_string(),
            removed_resources: batch.removed,
            control_plane: Some(core::ControlPlane { identifier: node.to_owned() }),
            resource_errors: errors(batch.errors),
        }
    }
}

fn errors(errors: Vec<(String, Trouble)>) -> Vec<wire::ResourceError> {
    let one = |(name, trouble): (String, Trouble)| {
        let (code, message) = match trouble {
            Trouble::Missing => (NOT_FOUND, format!("there is no {name:?}")),
            Trouble::Withheld(why) => (UNAVAILABLE, why.to_string()),
        };
        wire::ResourceError {
            resource_name: Some(wire::ResourceName { name }),
            error_detail: Some(rpc::Status { code, message, details: Vec::new() }),
        }
    };
    errors.into_iter().map(one).collect()
}

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// What it is.
    pub(crate) audience: Audience,
    /// Where it is.
    pub(crate) region: String,
    /// Where it is.
    pub(crate) zone: String,
    /// Who it is to the platform: only namespaces that it may see are told.
    pub(crate) caller: Caller,
    id: String,
    user_agent: String,
}

impl Client {
    fn of(node: Option<core::Node>, caller: Caller) -> Self {
        let node = node.unwrap_or_default();
        let locality = node.locality.unwrap_or_default();
        let listen =
            node.metadata.and_then(|metadata| match metadata.fields.get("ninefold.listen")?.kind.as_ref()? {
                Kind::StringValue(text) => text.parse::<SocketAddr>().ok(),
                _ => None,
            });
        Self {
            audience: if node.user_agent_name == "envoy" { Audience::Envoy(listen) } else { Audience::Grpc },
            region: refusal::cut(&locality.region),
            zone: refusal::cut(&locality.zone),
            caller,
            id: refusal::cut(&node.id),
            user_agent: refusal::cut(&node.user_agent_name),
        }
    }

    fn words(&self, is_delta: bool) -> words::XdsStream {
        words::XdsStream {
            stream_id: 0,
            client_id: self.id.clone(),
            user_agent: self.user_agent.clone(),
            region: self.region.clone(),
            zone: self.zone.clone(),
            mode: if is_delta { words::XdsMode::Delta } else { words::XdsMode::World }.into(),
            start_time: Some(SystemTime::now().into()),
            subscriptions: Vec::new(),
        }
    }
}

/// What streams share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    /// The landscape.
    pub(crate) world: watch::Receiver<Arc<World>>,
    /// What of it a client is told.
    pub(crate) catalogue: Arc<Catalogue>,
    /// Who follows what.
    pub(crate) ledger: Arc<Ledger>,
    /// Name of this node.
    pub(crate) node: Arc<str>,
    /// Whether the node stops.
    pub(crate) stop: Stop,
}

struct Teller<F: Form> {
    shared: Shared,
    heard: BoxStream<'static, Result<F::Request, Status>>,
    caller: Caller,
    /// Known from the first message on.
    client: Option<(Client, Place)>,
    subscriptions: BTreeMap<Type, Subscription>,
    nonce: u64,
    /// When the clusters or endpoints under way were sent.
    since: Option<Instant>,
}

/// Tells a client what it asks for. Ends when the client does, with [`Error::Stopping`] when the node stops, and with
/// [`Error::XdsFull`] or [`Error::XdsInvalid`] where a bound is passed.
pub(crate) fn tell<F: Form>(
    shared: Shared,
    heard: BoxStream<'static, Result<F::Request, Status>>,
    caller: Caller,
) -> impl Stream<Item = Result<F::Response, Error>> {
    let teller =
        Teller::<F> { shared, heard, caller, client: None, subscriptions: BTreeMap::new(), nonce: 0, since: None };
    stream::unfold(Some(teller), |teller| async move {
        let mut teller = teller?;
        match teller.next().await {
            Ok(Some(response)) => Some((Ok(response), Some(teller))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    })
}

impl<F: Form> Teller<F> {
    async fn next(&mut self) -> Result<Option<F::Response>, Error> {
        let stop = self.shared.stop.clone();
        loop {
            if let Some(response) = self.due() {
                return Ok(Some(response));
            }
            let patience = match self.since {
                Some(since) => tokio::time::sleep_until(since + ANSWER_WAIT).boxed(),
                None => std::future::pending().boxed(),
            };
            // Nothing is lost when an arm is dropped: the world is a watch, and requests stay in their stream.
            tokio::select! {
                biased;
                () = stop.asked() => return Err(Error::Stopping),
                heard = self.heard.next() => match heard {
                    Some(Ok(request)) => self.take(F::read(request))?,
                    // Whoever says nothing more has gone.
                    Some(Err(_)) | None => return Ok(None),
                },
                changed = self.shared.world.changed() => {
                    if changed.is_err() {
                        return Err(Error::Stopping);
                    }
                    tokio::time::sleep(GATHER).await;
                }
                () = patience => self.since = None,
            }
        }
    }

    fn take(&mut self, heard: Heard) -> Result<(), Error> {
        if self.client.is_none() {
            let client = Client::of(heard.node, self.caller.clone());
            let max = self.shared.ledger.streams_max();
            let place = self.shared.ledger.enter(client.words(F::IS_DELTA)).ok_or(Error::XdsFull { max })?;
            self.client = Some((client, place));
        }
        // What this node does not tell is left unanswered, as the protocol has it.
        let Some(of) = Type::of(&heard.type_url) else { return Ok(()) };
        check(&heard.asked)?;
        let is_first = !self.subscriptions.contains_key(&of);
        let subscription = self.subscriptions.entry(of).or_insert_with(|| Subscription::new(of, F::IS_DELTA));
        let refusal = heard.error.map(|message| {
            let (client, _) = self.client.as_ref().expect("made above");
            Refusal {
                time: SystemTime::now(),
                by: client.id.clone(),
                of: of.word(),
                name: refusal::name_of(&message, subscription.sent_names()),
                field: refusal::field_of(&message),
                reason: refusal::cut(&message),
                version: subscription.sent_version.clone(),
            }
        });
        let is_answer = subscription.answered(&heard.nonce, refusal.clone());
        match heard.asked {
            // Said before the last response was read; what is said after it counts.
            Request::World(_) if !heard.nonce.is_empty() && !is_answer && !is_first => {}
            Request::World(asked) => subscription.ask(asked, is_first),
            Request::Delta(asked) => subscription.ask_delta(asked, is_first),
        }
        if subscription.names().len() > NAMES_MAX {
            return Err(Error::XdsInvalid(format!(
                "{} names are followed, at most {NAMES_MAX}",
                subscription.names().len()
            )));
        }
        if let Some(refusal) = refusal.filter(|_| is_answer) {
            self.shared.ledger.refused(refusal);
        }
        if !self.is_making() {
            self.since = None;
        }
        self.write_down();
        Ok(())
    }

    /// Whether clusters or endpoints are under way.
    fn is_making(&self) -> bool {
        let is_awaiting = |of| self.subscriptions.get(of).is_some_and(|one: &Subscription| one.is_awaiting);
        [Type::Cluster, Type::Endpoints].iter().any(is_awaiting)
    }

    fn due(&mut self) -> Option<F::Response> {
        let world = self.shared.world.borrow_and_update().clone();
        if !world.is_known {
            return None;
        }
        let (client, _) = self.client.as_ref()?;
        let (of, batch) = Type::ALL.into_iter().find_map(|of| {
            let subscription = self.subscriptions.get(&of)?;
            if matches!(of, Type::Listener | Type::Route) && self.since.is_some() && self.is_making() {
                return None;
            }
            let catalogue = &self.shared.catalogue;
            let all = catalogue.all(&world, of, client);
            let batch = subscription.due(all, world.is_settled, |name| catalogue.find(&world, of, name, client))?;
            Some((of, batch))
        })?;
        // An Envoy makes a cluster that changed anew, and does not use it until it hears of its endpoints again; it does not
        // ask for those it follows already, but waits for 15 s.
        let is_remade = of == Type::Cluster && client.audience != Audience::Grpc;
        self.nonce += 1;
        let nonce = self.nonce;
        let version = version(world.moment, &batch);
        let subscription = self.subscriptions.get_mut(&of)?;
        let remade = if is_remade { subscription.renewed(&batch) } else { Vec::new() };
        subscription.sent(&batch, nonce, version.clone());
        if let Some(endpoints) = self.subscriptions.get_mut(&Type::Endpoints) {
            endpoints.forget(&remade);
        }
        if matches!(of, Type::Cluster | Type::Endpoints) {
            self.since = Some(Instant::now());
        }
        self.shared.ledger.responded(of);
        self.write_down();
        Some(F::write(of, batch, version, nonce, &self.shared.node))
    }

    fn write_down(&self) {
        let Some((_, place)) = &self.client else { return };
        let one = |(of, one): (&Type, &Subscription)| words::XdsSubscription {
            r#type: of.word().to_owned(),
            names: one.names().iter().take(NAMES_SHOWN).cloned().collect(),
            names_total: u32::try_from(one.names().len()).unwrap_or(u32::MAX),
            is_all: one.is_all(),
            sent_version: one.sent_version.clone(),
            acknowledged_version: one.acknowledged_version.clone(),
            refusal: one.refusal.as_ref().map(ledger::to_words),
        };
        place.write(self.subscriptions.iter().map(one).collect());
    }
}

fn check(asked: &Request) -> Result<(), Error> {
    let names: Vec<&String> = match asked {
        Request::World(asked) => asked.names.iter().collect(),
        Request::Delta(asked) => asked.subscribe.iter().chain(asked.has.keys()).collect(),
    };
    if names.len() > NAMES_MAX {
        return Err(Error::XdsInvalid(format!("{} names are given, at most {NAMES_MAX}", names.len())));
    }
    match names.iter().find(|name| name.len() > NAME_BYTES_MAX) {
        Some(name) => {
            Err(Error::XdsInvalid(format!("a name of {} bytes is given, at most {NAME_BYTES_MAX}", name.len())))
        }
        None => Ok(()),
    }
}

/// A version that tells what was sent: the moment, and a print of the resources' own versions.
fn version(moment: u64, batch: &Batch) -> String {
    let all: String = batch.resources.iter().map(|resource| resource.version.as_str()).collect();
    format!("{moment}-{:08x}", shelf::fingerprint(all.as_bytes()) & 0xffff_ffff)
}

#[cfg(test)]
mod tests;
