//! The landscape as others see it: instances and policies by service. The only place that reads the registry's instances.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use ninefold_proto::ninefold::registry::v1 as words;

use crate::connect::breaker::Force;

/// What a weight of zero is read as.
const WEIGHT_USUAL: u32 = 100;

/// All known instances.
#[derive(Clone, Debug, Default)]
pub struct LandscapeView {
    /// Instances by service, ordered by id. A service without instances is not there.
    pub services: BTreeMap<Arc<str>, Arc<[Arc<Instance>]>>,
    /// Policies by service, as central config has them. A service without one is called by the defaults.
    pub policies: BTreeMap<Arc<str>, Arc<words::Policy>>,
    /// Revision of the registry's store up to which this is right. Zero while nothing is known.
    pub revision: i64,
    /// Whether the registry has told anything yet.
    pub is_known: bool,
}

impl LandscapeView {
    /// Instances of a service, ordered by id.
    pub fn instances(&self, service: &str) -> &[Arc<Instance>] {
        self.services.get(service).map_or(&[], |instances| instances)
    }

    /// Policy of a service, if it has one of its own. The same `Arc` as long as it does not change.
    pub fn policy(&self, service: &str) -> Option<Arc<words::Policy>> {
        self.policies.get(service).cloned()
    }
}

/// One process that keeps a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Name of the service.
    pub service: Arc<str>,
    /// Id of the instance, unique within its service.
    pub id: Arc<str>,
    /// Where it listens.
    pub addresses: Vec<Address>,
    /// Version of the program.
    pub version: String,
    /// Failure domain. Empty where the landscape has none.
    pub zone: String,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// Full names of the Protobuf services that it answers.
    pub protobuf_services: BTreeSet<String>,
    /// Digest of its contract. Empty where unknown.
    pub contract_digest: String,
    /// Relative share of calls; 100 is usual.
    pub weight: u32,
    /// Where it is in its life.
    pub state: State,
    /// What its addresses speak.
    pub protocol: Protocol,
    /// What an operator decided of callers' breakers.
    pub force: Force,
    /// Who decided so, and why.
    pub force_reason: String,
    /// Whether its addresses speak TLS; its certificate then proves the name of the service.
    pub is_tls: bool,
    /// Revision at which this version of it was written.
    pub revision: i64,
}

/// A place to connect to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Host name or IP address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(formatter, "[{}]:{}", self.host, self.port)
        } else {
            write!(formatter, "{}:{}", self.host, self.port)
        }
    }
}

/// Where an instance is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not yet ready for calls.
    Starting,
    /// Ready for calls.
    Serving,
    /// Takes no new calls.
    Draining,
    /// Silent; called only where nobody else can answer.
    Suspect,
    /// Gone for good.
    Gone,
}

/// What an address speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC over cleartext HTTP/2.
    Grpc,
    /// Plain HTTP: HTTP/1.1, or cleartext HTTP/2 where the label [`HTTP_LABEL`] says `h2c`.
    Http,
}

/// Label by which an instance that speaks plain HTTP says which: `h2c`, or what is usual, `1.1`.
pub const HTTP_LABEL: &str = "http";

impl Instance {
    /// Whether its addresses speak HTTP/2.
    pub(crate) fn speaks_http2(&self) -> bool {
        self.protocol == Protocol::Grpc || self.labels.get(HTTP_LABEL).is_some_and(|said| said == "h2c")
    }
}

impl From<words::Instance> for Instance {
    fn from(words: words::Instance) -> Self {
        let state = match words.state() {
            // A registry that grows a new state means, to us, an instance that is not to be called.
            words::InstanceState::Unspecified | words::InstanceState::Starting | words::InstanceState::NotServing => {
                State::Starting
            }
            words::InstanceState::Serving => State::Serving,
            words::InstanceState::Draining => State::Draining,
            words::InstanceState::Suspect => State::Suspect,
            words::InstanceState::Gone => State::Gone,
        };
        let protocol = match words.protocol() {
            words::Protocol::Unspecified | words::Protocol::Grpc => Protocol::Grpc,
            words::Protocol::Http => Protocol::Http,
        };
        let (force, force_reason) = forced(words.r#override.as_ref());
        let decided = words.r#override.as_ref();
        // An instance registered with weight 0 has the usual one; an operator who says 0 wants no calls there.
        let is_drained = decided.is_some_and(|decided| decided.drain || decided.weight == Some(0));
        let state = if is_drained { State::Draining } else { state };
        let weight = decided.and_then(|decided| decided.weight).unwrap_or(words.weight);
        let addresses = words.addresses.into_iter().filter_map(|address| {
            let port = u16::try_from(address.port).ok().filter(|port| *port > 0)?;
            Some(Address { host: address.host, port })
        });
        Self {
            service: words.service.into(),
            id: words.instance_id.into(),
            addresses: addresses.collect(),
            version: words.version,
            zone: words.zone,
            labels: words.labels.into_iter().collect(),
            protobuf_services: words.protobuf_services.into_iter().collect(),
            contract_digest: words.contract_digest,
            weight: if weight == 0 { WEIGHT_USUAL } else { weight },
            state,
            protocol,
            force,
            force_reason,
            is_tls: words.tls,
            revision: words.revision,
        }
    }
}

/// What an operator decided of callers' breakers, and the words for it.
fn forced(decided: Option<&words::Override>) -> (Force, String) {
    let Some(decided) = decided else { return (Force::None, String::new()) };
    let (force, what) = match decided.force() {
        words::BreakerForce::Unspecified => return (Force::None, String::new()),
        words::BreakerForce::Open => (Force::Open, "forced open"),
        words::BreakerForce::Closed => (Force::Closed, "forced closed"),
    };
    let author = if decided.author.is_empty() { "an operator" } else { decided.author.as_str() };
    let why = if decided.reason.is_empty() { String::new() } else { format!(": {}", decided.reason) };
    (force, format!("{what} by {author}{why}"))
}

/// Tells an instance in the registry's words, as far as it is known here.
impl From<&Instance> for words::Instance {
    fn from(instance: &Instance) -> Self {
        let state = match instance.state {
            State::Starting => words::InstanceState::Starting,
            State::Serving => words::InstanceState::Serving,
            State::Draining => words::InstanceState::Draining,
            State::Suspect => words::InstanceState::Suspect,
            State::Gone => words::InstanceState::Gone,
        };
        let protocol = match instance.protocol {
            Protocol::Grpc => words::Protocol::Grpc,
            Protocol::Http => words::Protocol::Http,
        };
        let addresses = instance
            .addresses
            .iter()
            .map(|address| words::Address { host: address.host.clone(), port: u32::from(address.port) });
        Self {
            service: instance.service.to_string(),
            instance_id: instance.id.to_string(),
            addresses: addresses.collect(),
            version: instance.version.clone(),
            zone: instance.zone.clone(),
            labels: instance.labels.clone().into_iter().collect(),
            protobuf_services: instance.protobuf_services.iter().cloned().collect(),
            contract_digest: instance.contract_digest.clone(),
            weight: instance.weight,
            state: state.into(),
            protocol: protocol.into(),
            revision: instance.revision,
            ..Self::default()
        }
    }
}
