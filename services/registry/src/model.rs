//! The nouns of the registry. Pure: time comes in as an argument.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use ninefold_store::{Key, Revision};

/// Where instances lie in the store.
pub(crate) const INSTANCES: &str = "registry/instances/";
/// Longest name of a service, in characters.
pub(crate) const SERVICE_NAME_MAX: usize = 63;
/// Longest id of an instance, in characters.
pub(crate) const INSTANCE_ID_MAX: usize = 128;
/// Share of calls of an instance that names none.
pub(crate) const WEIGHT_DEFAULT: u32 = 100;

/// Name of a service: 1 to 63 lowercase letters, digits and hyphens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(Arc<str>);

impl ServiceName {
    /// Takes a text as a name, if it is one.
    pub fn parse(text: &str) -> Option<Self> {
        let is_legal = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
        ((1..=SERVICE_NAME_MAX).contains(&text.len()) && text.chars().all(is_legal)).then(|| Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ServiceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Id of an instance: 1 to 128 letters, digits, and `.`, `_`, `:`, `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(Arc<str>);

impl InstanceId {
    /// Takes a text as an id, if it is one.
    pub fn parse(text: &str) -> Option<Self> {
        let is_legal = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | ':' | '-');
        ((1..=INSTANCE_ID_MAX).contains(&text.len()) && text.chars().all(is_legal)).then(|| Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for InstanceId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Names an instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceKey {
    /// Its service.
    pub service: ServiceName,
    /// Its id within the service.
    pub id: InstanceId,
}

impl InstanceKey {
    /// Where the instance lies in the store.
    pub fn path(&self) -> Key {
        Key::new(format!("{INSTANCES}{}/{}", self.service, self.id))
    }

    /// Reads [`InstanceKey::path`] back.
    pub fn from_path(path: &Key) -> Option<Self> {
        let (service, id) = path.as_str().strip_prefix(INSTANCES)?.split_once('/')?;
        Some(Self { service: ServiceName::parse(service)?, id: InstanceId::parse(id)? })
    }
}

impl fmt::Display for InstanceKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.service, self.id)
    }
}

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
    /// Left. In the store for a moment only, so that every node learns why; in no table.
    Gone,
}

/// Which services somebody wants to hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    /// All.
    All,
    /// These.
    Named(BTreeSet<ServiceName>),
}

impl Interest {
    /// Whether a service is among them.
    pub(crate) fn covers(&self, service: &ServiceName) -> bool {
        match self {
            Self::All => true,
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
    /// Its contract is not accepted.
    ContractRefused,
}

/// What a caller reports of another instance; who reports and when is known from the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// The service it concerns.
    pub(crate) service: String,
    /// The instance it concerns, or empty.
    pub(crate) instance: String,
    /// What happened.
    pub(crate) kind: EventKind,
    /// Why.
    pub(crate) reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_name_is_lowercase_letters_digits_and_hyphens() {
        for good in ["a", "product-composite", "x1", &"a".repeat(63)] {
            assert_eq!(ServiceName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "A", "a_b", "a/b", "a.b", "ä", " a", &"a".repeat(64)] {
            assert_eq!(ServiceName::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_key_is_read_back_from_its_path() {
        let key = InstanceKey {
            service: ServiceName::parse("pump").unwrap(),
            id: InstanceId::parse("10.0.0.1:80-a_B").unwrap(),
        };
        assert_eq!(InstanceKey::from_path(&key.path()), Some(key));
        for bad in ["registry/instances/pump", "registry/instances/pump/", "registry/instances/pump/a/b", "other/x/y"] {
            assert_eq!(InstanceKey::from_path(&Key::new(bad)), None, "{bad}");
        }
    }
}
