//! What xDS clients are told under which name.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use ninefold::Caller;
use ninefold::fault::Violation;

use crate::model::{Name, Service, World};
use crate::words::Named;
use crate::xds::ledger::Ledger;
use crate::xds::shelf::{Kept, Place, Resource};
use crate::xds::stream::Client;
use crate::xds::subscription::Found;
use crate::xds::{Audience, Type, resources, validate};

/// Finds resources by name.
#[derive(Debug)]
pub(crate) struct Catalogue {
    ledger: Arc<Ledger>,
    /// The routes of all Envoys, of the world that they were made of last.
    envoy_routes: Mutex<(Weak<World>, Arc<OnceLock<Kept>>)>,
}

impl Catalogue {
    /// Makes a catalogue that notes what it withholds.
    pub(crate) fn new(ledger: Arc<Ledger>) -> Self {
        Self { ledger, envoy_routes: Mutex::default() }
    }

    /// Names of all resources of a type, for whoever asks for all.
    pub(crate) fn all<'w>(
        &self,
        world: &'w World,
        of: Type,
        client: &'w Client,
    ) -> Box<dyn Iterator<Item = String> + 'w> {
        match (of, &client.audience) {
            (Type::Cluster | Type::Endpoints, _) => {
                let seen = world.services.keys().filter(|name| client.caller.may_see(name.namespace()));
                Box::new(seen.map(|name| name.as_str().to_owned()))
            }
            (Type::Listener, Audience::Envoy(Some(_))) => Box::new(std::iter::once(resources::ENVOY_ROUTES.to_owned())),
            (Type::Listener | Type::Route, _) => Box::new(std::iter::empty()),
        }
    }

    /// What there is under a name.
    ///
    /// A gRPC client that asks for a service nobody keeps is told of it without endpoints: its calls fail at once instead
    /// of after the 15 s that it waits for an answer, and work as soon as somebody keeps it.
    pub(crate) fn find(&self, world: &Arc<World>, of: Type, name: &str, client: &Client) -> Found {
        if let Audience::Envoy(listen) = &client.audience
            && matches!(of, Type::Listener | Type::Route)
        {
            return match (of, listen) {
                (Type::Route, _) if name == resources::ENVOY_ROUTES => found(self.envoy_routes(world, &client.caller)),
                (Type::Listener, Some(listen)) if name == resources::ENVOY_ROUTES => {
                    found(self.judged(of, name, &resources::envoy_listener(*listen), validate::listener))
                }
                _ => Found::Missing,
            };
        }
        let asked = match of {
            Type::Listener | Type::Route => without_port(name),
            Type::Cluster | Type::Endpoints => name,
        };
        let Some(key) = Name::parse(asked) else { return Found::Missing };
        if matches!(of, Type::Cluster | Type::Endpoints) && key.as_str() != name {
            return Found::Missing;
        }
        if !client.caller.may_see(key.namespace()) {
            return Found::Missing;
        }
        match world.services.get(&key) {
            Some(service) => found(self.of_service(service, of, name, client)),
            None if !world.is_settled => Found::Unknown,
            None if of == Type::Cluster && client.audience != Audience::Grpc => Found::Missing,
            None => found(self.of_service(&Service::nobodys(key), of, name, client)),
        }
    }

    fn of_service(&self, service: &Service, of: Type, name: &str, client: &Client) -> Kept {
        let is_envoy = client.audience != Audience::Grpc;
        match of {
            Type::Cluster => service.shelf.take(Place::Cluster { is_envoy }, || {
                self.judged(of, name, &resources::cluster(service, &client.audience), validate::cluster)
            }),
            Type::Endpoints => {
                let place = Place::Endpoints { region: client.region.clone(), zone: client.zone.clone() };
                let make = || resources::load_assignment(service, &client.region, &client.zone);
                service.shelf.take(place, || self.judged(of, name, &make(), validate::load_assignment))
            }
            Type::Listener => service.shelf.take(Place::Listener(name.to_owned()), || {
                self.judged(of, name, &resources::api_listener(name), validate::listener)
            }),
            Type::Route => service.shelf.take(Place::Routes(name.to_owned()), || {
                self.judged(of, name, &resources::routes(name, service), validate::routes)
            }),
        }
    }

    fn envoy_routes(&self, world: &Arc<World>, caller: &Caller) -> Kept {
        let make = || {
            let seen = world.services.values().filter(|service| caller.may_see(service.name.namespace()));
            let routes = resources::envoy_routes(seen.map(AsRef::as_ref));
            self.judged(Type::Route, resources::ENVOY_ROUTES, &routes, validate::routes)
        };
        if !caller.namespaces.are_all() {
            return make();
        }
        let slot = {
            let mut made = self.envoy_routes.lock().unwrap_or_else(PoisonError::into_inner);
            if !std::ptr::eq(made.0.as_ptr(), Arc::as_ptr(world)) {
                *made = (Arc::downgrade(world), Arc::default());
            }
            made.1.clone()
        };
        slot.get_or_init(make).clone()
    }

    /// Encodes what clients would take; notes what they would not.
    pub(crate) fn judged<M>(&self, of: Type, name: &str, message: &M, judge: impl Fn(&M) -> Vec<Violation>) -> Kept
    where
        M: Named,
    {
        let violations = judge(message);
        let Some(first) = violations.first() else { return Ok(Arc::new(Resource::of(name, message))) };
        self.ledger.withheld(of, name, &first.field, &first.description);
        Err(format!("withheld: {} {}", first.field, first.description).into())
    }
}

fn found(kept: Kept) -> Found {
    match kept {
        Ok(resource) => Found::Here(resource),
        Err(why) => Found::Withheld(why),
    }
}

/// A channel may be told a port beside the name, which means nothing here.
fn without_port(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|letter| letter.is_ascii_digit()) => name,
        _ => name,
    }
}
