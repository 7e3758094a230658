//! What is known of the landscape: instances by service. The only place that reads the registry's words.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ninefold_proto::ninefold::registry::v1 as words;
use tokio::time::Instant;

/// How long a service that vanished while the registry was away is still believed in.
const GRACE: Duration = Duration::from_secs(5);
/// What a weight of zero is read as.
const WEIGHT_USUAL: u32 = 100;

/// All known instances.
#[derive(Clone, Debug, Default)]
pub struct LandscapeView {
    /// Instances by service, ordered by id. A service without instances is not there.
    pub services: BTreeMap<Arc<str>, Arc<[Arc<Instance>]>>,
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
    /// Plain HTTP/1.1.
    Http,
}

impl From<words::Instance> for Instance {
    fn from(words: words::Instance) -> Self {
        let state = match words.state() {
            // A registry that grows a new state means, to us, an instance that is not to be called.
            words::InstanceState::Unspecified | words::InstanceState::Starting => State::Starting,
            words::InstanceState::Serving => State::Serving,
            words::InstanceState::Draining => State::Draining,
            words::InstanceState::Suspect => State::Suspect,
            words::InstanceState::Gone => State::Gone,
        };
        let protocol = match words.protocol() {
            words::Protocol::Unspecified | words::Protocol::Grpc => Protocol::Grpc,
            words::Protocol::Http => Protocol::Http,
        };
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
            weight: if words.weight == 0 { WEIGHT_USUAL } else { words.weight },
            state,
            protocol,
            revision: words.revision,
        }
    }
}

type Services = BTreeMap<Arc<str>, BTreeMap<Arc<str>, Arc<Instance>>>;

/// What a watcher has been told so far.
///
/// A lost stream takes nothing away. A snapshot replaces all, with one guard: a service that vanished while the stream
/// was lost is still believed in for five seconds, because a registry that has just started has not heard from
/// everybody yet, and an address that does not answer costs less than a service that is thrown away.
#[derive(Debug, Default)]
pub(crate) struct Told {
    services: Services,
    /// Services that the last snapshot did not name, and until when they are believed in.
    vanished: BTreeMap<Arc<str>, Instant>,
    revision: i64,
    is_known: bool,
}

impl Told {
    /// Takes one message of the registry.
    pub(crate) fn take(&mut self, message: words::WatchInstancesResponse, now: Instant) {
        use words::watch_instances_response::Message;
        self.revision = message.revision;
        match message.message {
            Some(Message::Snapshot(snapshot)) => self.replace(snapshot.instances, now),
            Some(Message::Delta(delta)) => {
                for key in delta.removes {
                    self.remove(&key.service, &key.instance_id);
                }
                for instance in delta.upserts {
                    self.upsert(instance.into());
                }
            }
            Some(Message::Heartbeat(_)) | None => {}
        }
    }

    /// When a service that vanished is no longer believed in, if any did.
    pub(crate) fn expiry(&self) -> Option<Instant> {
        self.vanished.values().min().copied()
    }

    /// Forgets services that vanished and did not come back in time.
    pub(crate) fn expire(&mut self, now: Instant) {
        let services = &mut self.services;
        self.vanished.retain(|service, until| {
            let is_believed = now < *until;
            if !is_believed {
                services.remove(service);
            }
            is_believed
        });
    }

    /// Forgets services that nobody asks for.
    pub(crate) fn keep_only(&mut self, names: &BTreeSet<String>) {
        self.services.retain(|service, _| names.contains(&**service));
        self.vanished.retain(|service, _| names.contains(&**service));
    }

    /// The view to publish.
    pub(crate) fn view(&self) -> LandscapeView {
        let services = self.services.iter().map(|(service, instances)| {
            let instances: Arc<[Arc<Instance>]> = instances.values().cloned().collect();
            (service.clone(), instances)
        });
        LandscapeView { services: services.collect(), revision: self.revision, is_known: self.is_known }
    }

    fn replace(&mut self, instances: Vec<words::Instance>, now: Instant) {
        let mut old = std::mem::take(&mut self.services);
        let mut vanished = std::mem::take(&mut self.vanished);
        for instance in instances {
            self.upsert(instance.into());
        }
        old.retain(|service, _| !self.services.contains_key(service));
        for (service, instances) in old {
            let until = vanished.remove(&service).unwrap_or(now + GRACE);
            self.vanished.insert(service.clone(), until);
            self.services.insert(service, instances);
        }
        self.is_known = true;
    }

    fn upsert(&mut self, instance: Instance) {
        if instance.state == State::Gone {
            self.remove(&instance.service, &instance.id);
            return;
        }
        if self.vanished.remove(&instance.service).is_some() {
            self.services.remove(&instance.service);
        }
        let instances = self.services.entry(instance.service.clone()).or_default();
        instances.insert(instance.id.clone(), Arc::new(instance));
    }

    fn remove(&mut self, service: &str, id: &str) {
        if let Some(instances) = self.services.get_mut(service) {
            instances.remove(id);
            if instances.is_empty() {
                self.services.remove(service);
                self.vanished.remove(service);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use words::watch_instances_response::Message;

    fn instance(service: &str, id: &str) -> words::Instance {
        let address = words::Address { host: "127.0.0.1".to_owned(), port: 1 };
        words::Instance {
            service: service.to_owned(),
            instance_id: id.to_owned(),
            addresses: vec![address],
            state: words::InstanceState::Serving.into(),
            ..words::Instance::default()
        }
    }

    fn snapshot(instances: &[words::Instance]) -> words::WatchInstancesResponse {
        let snapshot = words::Snapshot { instances: instances.to_vec(), ..words::Snapshot::default() };
        words::WatchInstancesResponse { message: Some(Message::Snapshot(snapshot)), revision: 1 }
    }

    fn delta(upserts: &[words::Instance], removes: &[(&str, &str)]) -> words::WatchInstancesResponse {
        let removes = removes
            .iter()
            .map(|(service, id)| words::InstanceKey { service: (*service).to_owned(), instance_id: (*id).to_owned() });
        let delta = words::Delta { upserts: upserts.to_vec(), removes: removes.collect(), policies: Vec::new() };
        words::WatchInstancesResponse { message: Some(Message::Delta(delta)), revision: 2 }
    }

    fn ids(told: &Told, service: &str) -> Vec<String> {
        told.view().instances(service).iter().map(|instance| instance.id.to_string()).collect()
    }

    #[test]
    fn a_delta_adds_and_removes() {
        let mut told = Told::default();
        let now = Instant::now();
        told.take(snapshot(&[instance("pump", "a")]), now);
        told.take(delta(&[instance("pump", "b")], &[("pump", "a"), ("valve", "x")]), now);
        assert_eq!(ids(&told, "pump"), ["b"]);
        told.take(delta(&[], &[("pump", "b")]), now);
        assert!(told.view().services.is_empty());
    }

    #[test]
    fn a_snapshot_replaces_instances_of_a_service_at_once() {
        let mut told = Told::default();
        let now = Instant::now();
        told.take(snapshot(&[instance("pump", "a"), instance("pump", "b")]), now);
        told.take(snapshot(&[instance("pump", "b")]), now);
        assert_eq!(ids(&told, "pump"), ["b"]);
    }

    #[test]
    fn a_service_that_vanished_is_believed_in_for_a_while() {
        let mut told = Told::default();
        let now = Instant::now();
        told.take(snapshot(&[instance("pump", "a")]), now);
        told.take(snapshot(&[]), now);
        // A second empty snapshot does not make the wait longer.
        told.take(snapshot(&[]), now + GRACE / 2);
        told.expire(now + GRACE / 2);
        assert_eq!(ids(&told, "pump"), ["a"]);
        assert_eq!(told.expiry(), Some(now + GRACE));
        told.expire(now + GRACE);
        assert!(told.view().services.is_empty());
        assert!(told.view().is_known);
    }

    #[test]
    fn the_first_sign_of_a_vanished_service_replaces_what_was_believed() {
        let mut told = Told::default();
        let now = Instant::now();
        told.take(snapshot(&[instance("pump", "a")]), now);
        told.take(snapshot(&[]), now);
        told.take(delta(&[instance("pump", "b")], &[]), now);
        assert_eq!(ids(&told, "pump"), ["b"]);
        assert_eq!(told.expiry(), None);
    }
}
