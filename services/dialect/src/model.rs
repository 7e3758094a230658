//! The landscape as the dialects tell it: services, and the endpoints of each. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ninefold_proto::ninefold::registry::v1 as words;

use crate::xds::shelf::Shelf;

/// Namespace of services that name none.
pub(crate) const NAMESPACE_DEFAULT: &str = "default";
/// Share of calls of an instance that says nothing about it.
const WEIGHT_DEFAULT: u32 = 100;
/// Longest name of a service or a namespace.
const NAME_MAX: usize = 63;

/// Name of a service and of its namespace: `pump`, or `pump.plant` where the namespace is not "default".
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name {
    text: Arc<str>,
    service_len: usize,
}

impl Name {
    /// Makes a name of its parts; an empty namespace is the default one.
    pub(crate) fn new(service: &str, namespace: &str) -> Self {
        let text = match namespace {
            "" | NAMESPACE_DEFAULT => service.to_owned(),
            other => format!("{service}.{other}"),
        };
        Self { text: text.into(), service_len: service.len() }
    }

    /// Reads a text as a name, if it can be one: `pump`, `pump.plant`, `pump.default`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (service, namespace) = text.split_once('.').unwrap_or((text, ""));
        let is_legal = |part: &str| {
            (1..=NAME_MAX).contains(&part.len())
                && part.bytes().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'-')
        };
        (is_legal(service) && (is_legal(namespace) || !text.contains('.'))).then(|| Self::new(service, namespace))
    }

    /// The name as one text.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The service's own name.
    pub(crate) fn service(&self) -> &str {
        &self.text[..self.service_len]
    }

    /// The namespace.
    pub(crate) fn namespace(&self) -> &str {
        self.text.get(self.service_len + 1..).unwrap_or(NAMESPACE_DEFAULT)
    }
}

/// Whether calls may go to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// Yes.
    Healthy,
    /// Only where no other can answer.
    Suspect,
    /// No new ones.
    Draining,
    /// No.
    Unhealthy,
}

/// One address of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Id of the instance.
    pub(crate) instance_id: String,
    /// Host name or IP address, as the instance gave it.
    pub(crate) host: String,
    /// The address; none where the host is a name that only the instance's own machine may resolve.
    pub(crate) ip: Option<IpAddr>,
    /// TCP port.
    pub(crate) port: u16,
    /// Region, or empty.
    pub(crate) region: String,
    /// Zone, or empty.
    pub(crate) zone: String,
    /// Relative share of calls, at least 1.
    pub(crate) weight: u32,
    /// Whether calls may go there.
    pub(crate) health: Health,
    /// Whether it speaks gRPC; else it is plain HTTP/1.1.
    pub(crate) is_grpc: bool,
}

/// A service as the dialects tell it. Never changed; a change makes a new one.
#[derive(Debug)]
pub(crate) struct Service {
    /// Its name.
    pub(crate) name: Name,
    /// Its endpoints, by instance and address.
    pub(crate) endpoints: Vec<Endpoint>,
    /// The instances themselves, for those who tell more.
    pub(crate) instances: Vec<Arc<words::Instance>>,
    /// How it is to be called.
    pub(crate) policy: words::Policy,
    /// Whether its clusters are told, but no routes: the last step before it is forgotten.
    pub(crate) is_leaving: bool,
    /// What was encoded of it for xDS so far.
    pub(crate) shelf: Shelf,
}

impl Service {
    /// Tells a service by its instances.
    pub(crate) fn new(
        name: Name,
        instances: Vec<Arc<words::Instance>>,
        policy: words::Policy,
        is_leaving: bool,
    ) -> Self {
        let mut endpoints: Vec<Endpoint> = instances.iter().flat_map(|instance| endpoints(instance)).collect();
        // Suspects are called where nobody else can answer.
        if !endpoints.iter().any(|endpoint| endpoint.health == Health::Healthy) {
            for endpoint in endpoints.iter_mut().filter(|endpoint| endpoint.health == Health::Suspect) {
                endpoint.health = Health::Healthy;
            }
        }
        let endpoints = without_twins(endpoints);
        Self { name, endpoints, instances, policy, is_leaving, shelf: Shelf::default() }
    }

    /// A service that nobody keeps.
    pub(crate) fn nobodys(name: Name) -> Self {
        Self::new(name, Vec::new(), words::Policy::default(), false)
    }

    /// Whether it speaks plain HTTP/1.1 and nothing else.
    pub(crate) fn is_http(&self) -> bool {
        !self.endpoints.is_empty() && self.endpoints.iter().all(|endpoint| !endpoint.is_grpc)
    }
}

/// An address is given once: of two instances that claim it, the one that can be called has it, or else the later one.
fn without_twins(endpoints: Vec<Endpoint>) -> Vec<Endpoint> {
    let mut places: BTreeMap<(String, u16), usize> = BTreeMap::new();
    let mut kept: Vec<Endpoint> = Vec::with_capacity(endpoints.len());
    for endpoint in endpoints {
        let host = endpoint.ip.map_or_else(|| endpoint.host.clone(), |ip| ip.to_string());
        match places.entry((host, endpoint.port)) {
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(kept.len());
                kept.push(endpoint);
            }
            std::collections::btree_map::Entry::Occupied(place) => {
                let before = &mut kept[*place.get()];
                if before.health != Health::Healthy || endpoint.health == Health::Healthy {
                    *before = endpoint;
                }
            }
        }
    }
    kept
}

/// The endpoints of an instance: its first address, as all lead to the same process.
fn endpoints(instance: &words::Instance) -> Option<Endpoint> {
    let address = instance.addresses.first()?;
    let decided = instance.r#override.as_ref();
    let weight = decided.and_then(|decided| decided.weight);
    let health = match instance.state() {
        words::InstanceState::Gone | words::InstanceState::Unspecified => return None,
        words::InstanceState::Starting | words::InstanceState::NotServing => Health::Unhealthy,
        words::InstanceState::Draining => Health::Draining,
        words::InstanceState::Serving => Health::Healthy,
        words::InstanceState::Suspect => Health::Suspect,
    };
    let force = decided.map_or(words::BreakerForce::Unspecified, words::Override::force);
    let health = match (health, force) {
        // A share of nothing is no share: xDS has no weight of zero.
        (Health::Healthy | Health::Suspect, _) if decided.is_some_and(|decided| decided.drain) || weight == Some(0) => {
            Health::Draining
        }
        (Health::Healthy | Health::Suspect, words::BreakerForce::Open) => Health::Unhealthy,
        (Health::Suspect, words::BreakerForce::Closed) => Health::Healthy,
        (health, _) => health,
    };
    let ip = match address.host.as_str() {
        "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
        host => host.parse().ok(),
    };
    Some(Endpoint {
        instance_id: instance.instance_id.clone(),
        host: address.host.clone(),
        ip,
        port: u16::try_from(address.port).ok()?,
        region: instance.region.clone(),
        zone: instance.zone.clone(),
        weight: match weight.unwrap_or(instance.weight) {
            0 => WEIGHT_DEFAULT,
            given => given,
        },
        health,
        is_grpc: instance.protocol() != words::Protocol::Http,
    })
}

/// All services at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    /// Grows with every change.
    pub(crate) moment: u64,
    /// Whether the registry has been heard at all.
    pub(crate) is_known: bool,
    /// Whether those who lost their session when the platform went down have had the time to come back: what is not
    /// there now is not there at all.
    pub(crate) is_settled: bool,
    /// The services.
    pub(crate) services: BTreeMap<Name, Arc<Service>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(id: &str, state: words::InstanceState) -> words::Instance {
        words::Instance {
            service: "pump".to_owned(),
            instance_id: id.to_owned(),
            addresses: vec![words::Address { host: format!("10.0.0.{}", id.len()), port: 80 }],
            state: state.into(),
            ..words::Instance::default()
        }
    }

    fn healths(instances: Vec<words::Instance>) -> Vec<Health> {
        let instances = instances.into_iter().map(Arc::new).collect();
        let service = Service::new(Name::new("pump", ""), instances, words::Policy::default(), false);
        service.endpoints.iter().map(|endpoint| endpoint.health).collect()
    }

    #[test]
    fn a_name_is_one_text_and_is_read_back() {
        for (text, service, namespace) in
            [("pump", "pump", "default"), ("pump.plant", "pump", "plant"), ("pump.default", "pump", "default")]
        {
            let name = Name::parse(text).unwrap();
            assert_eq!((name.service(), name.namespace()), (service, namespace));
        }
        assert_eq!(Name::parse("pump.default"), Name::parse("pump"));
        for bad in ["", ".", "a.", ".a", "a.b.c", "A", "a_b", "a b", "ä", &"a".repeat(64)] {
            assert_eq!(Name::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn suspects_are_called_only_where_nobody_else_can_answer() {
        use words::InstanceState::{Draining, Serving, Suspect};
        assert_eq!(healths(vec![instance("a", Serving), instance("bb", Suspect)]), [Health::Healthy, Health::Suspect]);
        assert_eq!(
            healths(vec![instance("a", Draining), instance("bb", Suspect)]),
            [Health::Draining, Health::Healthy]
        );
    }

    #[test]
    fn an_address_is_given_once_to_whoever_can_be_called() {
        use words::InstanceState::{Serving, Suspect};
        for (first, second) in [(Suspect, Serving), (Serving, Suspect)] {
            assert_eq!(healths(vec![instance("a", first), instance("b", second)]), [Health::Healthy]);
        }
    }

    #[test]
    fn what_an_operator_decides_goes_before_what_the_instance_says() {
        let with = |decided: words::Override| {
            let mut one = instance("a", words::InstanceState::Serving);
            one.r#override = Some(decided);
            healths(vec![one])
        };
        assert_eq!(with(words::Override { drain: true, ..Default::default() }), [Health::Draining]);
        assert_eq!(with(words::Override { weight: Some(0), ..Default::default() }), [Health::Draining]);
        let force = words::BreakerForce::Open.into();
        assert_eq!(with(words::Override { force, ..Default::default() }), [Health::Unhealthy]);
    }
}
