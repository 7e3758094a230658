//! The nouns of the registry. Pure: time comes in as an argument.

mod name;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use ninefold_store::Revision;

pub(crate) use name::{ALL, NAMESPACE_ALL, NAMESPACE_DEFAULT, Place, ROLLS};
pub use name::{InstanceId, InstanceKey, Namespace, ServiceKey, ServiceName};

/// Who saw what the registry saw.
pub(crate) const REGISTRY: &str = "registry";
/// Share of calls of an instance that names none.
pub(crate) const WEIGHT_DEFAULT: u32 = 100;

/// One process that keeps a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Instance {
    /// Its name.
    pub(crate) key: InstanceKey,
    /// Where it listens: 1 to 8.
    pub(crate) addresses: Vec<Address>,
    /// Version of the program.
    pub(crate) version: String,
    /// Failure domain.
    pub(crate) zone: String,
    /// Free labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// Full names of the Protobuf services that it answers.
    pub(crate) protobuf_services: Vec<String>,
    /// Digest of its contract, or empty.
    pub(crate) contract_digest: String,
    /// Relative share of calls.
    pub(crate) weight: u32,
    /// What its addresses speak.
    pub(crate) protocol: Protocol,
    /// Whether they speak it over TLS.
    pub(crate) is_tls: bool,
    /// Where it is in its life.
    pub(crate) state: State,
    /// Why it is there.
    pub(crate) state_reason: String,
    /// When the process started, if it said so.
    pub(crate) started: Option<SystemTime>,
    /// When the state last changed.
    pub(crate) changed: SystemTime,
    /// Revision of its last write.
    pub(crate) revision: Revision,
    /// The node that holds its session.
    pub(crate) node: String,
    /// The larger place that the zone is in.
    pub(crate) region: String,
    /// How it is asked whether it is well, if it wants to be.
    pub(crate) check: Option<Check>,
    /// What so many callers report of it that it is suspect. Empty where they do not.
    pub(crate) reported: String,
    /// What an operator decided of it. Lies elsewhere in the store; only the table joins the two.
    pub(crate) decided: Option<Arc<Override>>,
    /// Revision of the last write of its own record; `revision` counts what an operator decided too.
    pub(crate) written: Revision,
}

impl Instance {
    /// Where it is in its life for everybody else: what it says of itself, unless an operator or its callers say otherwise.
    /// With the reason.
    pub(crate) fn standing(&self) -> (State, String) {
        match (self.state, &self.decided) {
            (State::Gone, _) => (State::Gone, self.state_reason.clone()),
            (_, Some(decided)) if decided.drain => (State::Draining, decided.why("drained")),
            (State::Serving, _) if !self.reported.is_empty() => (State::Suspect, self.reported.clone()),
            (state, _) => (state, self.state_reason.clone()),
        }
    }

    /// Whether it is in the state of [`standing`](Self::standing).
    pub(crate) fn stands_as(&self, state: State) -> bool {
        self.standing().0 == state
    }
}

/// What an operator decided of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Override {
    /// Whether it takes no new calls.
    pub(crate) drain: bool,
    /// Its share of calls, instead of its own.
    pub(crate) weight: Option<u32>,
    /// What callers' breakers do.
    pub(crate) force: Force,
    /// Who decided.
    pub(crate) author: String,
    /// Why.
    pub(crate) reason: String,
    /// When.
    pub(crate) time: SystemTime,
}

impl Override {
    /// A sentence fragment: what was done, by whom, and why.
    pub(crate) fn why(&self, what: &str) -> String {
        let author = if self.author.is_empty() { "an operator" } else { &self.author };
        let reason = if self.reason.is_empty() { String::new() } else { format!(": {}", self.reason) };
        format!("{what} by {author}{reason}")
    }
}

impl fmt::Display for Override {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut what = Vec::new();
        if self.drain {
            what.push("drained".to_owned());
        }
        what.extend(self.weight.map(|weight| format!("weight {weight}")));
        match self.force {
            Force::None => {}
            Force::Open => what.push("breakers forced open".to_owned()),
            Force::Closed => what.push("breakers forced closed".to_owned()),
        }
        formatter.write_str(&self.why(&what.join(", ")))
    }
}

/// What an operator decided of the breakers around an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Force {
    /// They decide by themselves.
    None,
    /// They are open.
    Open,
    /// They are closed.
    Closed,
}

/// How an instance is asked whether it is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    /// What is asked.
    pub(crate) kind: CheckKind,
    /// How often.
    pub(crate) interval: Duration,
    /// How long an answer may take.
    pub(crate) timeout: Duration,
    /// Answers in a row that make it well again.
    pub(crate) rise: u32,
    /// Failures in a row that make it unwell.
    pub(crate) fall: u32,
}

/// What an instance is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CheckKind {
    /// grpc.health.v1, about this Protobuf service; empty for all.
    Grpc(String),
    /// GET of this path.
    Http(String),
    /// To take a connection.
    Tcp,
}

/// A place to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// Host name or IP address.
    pub(crate) host: String,
    /// TCP port, never 0.
    pub(crate) port: u16,
}

/// What an address speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// gRPC over cleartext HTTP/2.
    Grpc,
    /// Plain HTTP/1.1.
    Http,
}

/// Where an instance is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Not yet ready for calls.
    Starting,
    /// Ready.
    Serving,
    /// Takes no new calls.
    Draining,
    /// Its session is lost.
    Suspect,
    /// Heard, but not well.
    NotServing,
    /// Left. In the store for a moment only, so that every node learns why; in no table.
    Gone,
}

/// Which services somebody wants to hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    /// All, of all namespaces.
    All,
    /// All of one namespace.
    Within(Namespace),
    /// These.
    Named(BTreeSet<ServiceKey>),
}

impl Interest {
    /// Whether a service of this name is among them, in whatever namespace: policies are for all of a name.
    pub(crate) fn covers_name(&self, name: &ServiceName) -> bool {
        match self {
            Self::All | Self::Within(_) => true,
            // A watch names services of one namespace.
            Self::Named(names) => names.first().is_some_and(|first| {
                names.contains(&ServiceKey { namespace: first.namespace.clone(), name: name.clone() })
            }),
        }
    }

    /// Whether a service is among them.
    pub(crate) fn covers(&self, service: &ServiceKey) -> bool {
        match self {
            Self::All => true,
            Self::Within(namespace) => service.namespace == *namespace,
            Self::Named(names) => names.contains(service),
        }
    }
}

/// How a service is to be called, as its callers are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    /// Name of the service.
    pub(crate) service: ServiceName,
    /// Revision of its document.
    pub(crate) revision: i64,
    /// The contract's message, as bytes: nothing here reads it.
    pub(crate) encoded: Bytes,
}

/// Something that happened to an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// When.
    pub(crate) time: SystemTime,
    /// In this namespace.
    pub(crate) namespace: String,
    /// To an instance of this service.
    pub(crate) service: String,
    /// To this instance; empty where it concerns the whole service.
    pub(crate) instance: String,
    /// What.
    pub(crate) kind: EventKind,
    /// Why.
    pub(crate) reason: String,
    /// Who saw it: "registry" or the id of an instance.
    pub(crate) observer: String,
}

impl Event {
    /// What the registry saw of an instance.
    pub(crate) fn of(key: &InstanceKey, kind: EventKind, reason: String, time: SystemTime) -> Self {
        Self { instance: key.id.to_string(), ..Self::of_service(&key.service, kind, reason, time) }
    }

    /// What the registry saw of a whole service.
    pub(crate) fn of_service(service: &ServiceKey, kind: EventKind, reason: String, time: SystemTime) -> Self {
        Self {
            time,
            namespace: service.namespace.to_string(),
            service: service.name.to_string(),
            instance: String::new(),
            kind,
            reason,
            observer: REGISTRY.to_owned(),
        }
    }
}

/// Kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventKind {
    /// It registered.
    Registered,
    /// It became ready.
    Serving,
    /// It began to drain.
    Draining,
    /// Its session was lost.
    Suspect,
    /// It left by itself.
    Deregistered,
    /// It was removed.
    Expired,
    /// A caller's breaker opened.
    BreakerOpened,
    /// A caller's breaker tries.
    BreakerHalfOpened,
    /// A caller's breaker closed.
    BreakerClosed,
    /// A watcher had missed something, and began anew.
    WatchDiverged,
    /// The service has a new policy.
    PolicyChanged,
    /// A document of a policy cannot be used.
    PolicyRefused,
    /// The node has lost its store.
    StoreLost,
    /// The node has its store again.
    StoreFound,
    /// A client of xDS refused what it was told.
    XdsRefused,
    /// Something was not told by xDS, as its clients would refuse it.
    XdsWithheld,
    /// The edge has new settings.
    EdgeChanged,
    /// The edge was given settings with mistakes.
    EdgeRefused,
    /// Its contract is not accepted.
    ContractRefused,
    /// It is not well.
    NotServing,
    /// An operator decided something of it.
    OverrideSet,
    /// What an operator decided of it is taken back.
    OverrideCleared,
    /// Silent instances are kept.
    PreservationBegan,
    /// Silent instances are removed again.
    PreservationEnded,
    /// So many callers report it that it is suspect.
    Reported,
    /// Its watchers have seen that it drains.
    DrainSeen,
    /// Its session moved to another node.
    Moved,
}

/// What a caller reports of another instance; who reports and when is known from the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// The namespace of the service; empty for the reporter's own.
    pub(crate) namespace: String,
    /// The service it concerns.
    pub(crate) service: String,
    /// The instance it concerns, or empty.
    pub(crate) instance: String,
    /// What happened.
    pub(crate) kind: EventKind,
    /// Why.
    pub(crate) reason: String,
}
