//! What is routed where: built from the contracts that are there, whole, then never changed. Pure.
//!
//! A request loads one value of this and keeps it to its end. Rules:
//! - A template and verb belongs to one service. Of two that want it, the one that has it keeps it; where nobody has it
//!   yet, the one whose contract was handed in first gets it. The other is refused, and its owner named.
//! - Of several contracts of one service, the newest with a living instance says how a request is read; the request may
//!   then go to the instances of every contract whose binding agrees with that.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use ninefold_proto::ninefold::gateway::v1 as wire;

use crate::binding::Binding;
use crate::contract::{Contract, Method};
use crate::path::Path;
use crate::table::{Found, Table};

/// A contract that a service's instances keep, or kept until lately.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// The service.
    pub(crate) service: Arc<str>,
    /// Digest of the contract.
    pub(crate) digest: Arc<str>,
    /// Protobuf services that its instances answer.
    pub(crate) protobuf_services: Arc<BTreeSet<String>>,
    /// The contract, or why it gives no routes.
    pub(crate) contract: Result<Arc<Contract>, String>,
    /// When the contract was first handed in.
    pub(crate) created: SystemTime,
    /// Whether an instance keeps it now.
    pub(crate) is_live: bool,
}

/// Whether routes that are built from two are the same.
impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        let is_read_alike = match (&self.contract, &other.contract) {
            (Ok(one), Ok(two)) => Arc::ptr_eq(one, two) && self.created == other.created,
            (Err(one), Err(two)) => one == two,
            (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
        };
        is_read_alike
            && self.is_live == other.is_live
            && self.service == other.service
            && self.digest == other.digest
            && self.protobuf_services == other.protobuf_services
    }
}

/// A way in.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    /// Service whose instances answer.
    pub(crate) service: Arc<str>,
    /// Method that answers.
    pub(crate) method: Arc<Method>,
    /// How REST is read; none for gRPC and plain HTTP.
    pub(crate) binding: Option<Arc<Binding>>,
    /// Whether requests pass as they are, to a service that speaks plain HTTP.
    pub(crate) is_plain: bool,
    /// Digests of the contracts whose instances may answer.
    pub(crate) among: Arc<BTreeSet<String>>,
}

impl Route {
    /// The template, for logs and metrics; never a request's own path.
    pub(crate) fn template(&self) -> &str {
        self.binding.as_ref().map_or(self.method.path.as_str(), |binding| binding.pattern.text())
    }

    /// The route in the words of the contract.
    pub(crate) fn words(&self) -> wire::Route {
        let (verb, body, protocol) = match &self.binding {
            Some(binding) => (binding.verb.clone(), binding.body_text(), wire::RouteProtocol::Rest),
            None => ("POST".to_owned(), String::new(), wire::RouteProtocol::Grpc),
        };
        wire::Route {
            verb,
            template: self.template().to_owned(),
            method: self.method.name.clone(),
            service: self.service.to_string(),
            body,
            protocol: protocol.into(),
            server_streaming: self.method.is_server_streaming,
        }
    }
}

/// All routes.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    rest: Table<Arc<Route>>,
    grpc: HashMap<Arc<str>, Arc<Route>>,
    /// The route in each place.
    seats: HashMap<Arc<str>, Arc<Route>>,
    /// What gave no route, and why.
    pub(crate) refusals: Vec<wire::Refusal>,
    /// Whether the landscape is known; until then nothing can be said to be missing.
    pub(crate) is_known: bool,
}

/// Something that wants a place among the routes.
struct Candidate<'k> {
    key: &'k Arc<str>,
    kept: &'k Kept,
    method: &'k Arc<Method>,
    binding: Option<&'k Arc<Binding>>,
}

/// A place among the routes, while it is worked on.
struct Place<'k> {
    first: Candidate<'k>,
    among: Vec<&'k Arc<str>>,
}

/// Places in the order in which they were taken.
#[derive(Default)]
struct Places<'k> {
    all: Vec<Place<'k>>,
    numbers: HashMap<&'k str, usize>,
}

/// Sets of digests that routes share.
type Sets<'k> = HashMap<Vec<&'k Arc<str>>, Arc<BTreeSet<String>>>;

impl Routes {
    /// Builds the routes of the contracts that are there, on top of who has what.
    pub(crate) fn build(kept: &[Kept], before: &Self) -> Self {
        let mut routes = Self { is_known: true, ..Self::default() };
        let mut seniority: HashMap<&str, SystemTime> = HashMap::new();
        for one in kept {
            let since = seniority.entry(&one.service).or_insert(one.created);
            *since = one.created.min(*since);
        }
        let mut ordered: Vec<&Kept> = kept.iter().collect();
        ordered.sort_by(|one, two| {
            (seniority[&*one.service], &one.service, !one.is_live)
                .cmp(&(seniority[&*two.service], &two.service, !two.is_live))
                .then(two.created.cmp(&one.created))
                .then(one.digest.cmp(&two.digest))
        });
        let (owned, others) = ordered
            .into_iter()
            .flat_map(|kept| routes.candidates(kept))
            .partition::<Vec<_>, _>(|one| before.owner(one.key) == Some(&one.kept.service));
        let mut places = Places::default();
        for candidate in owned.into_iter().chain(others) {
            routes.seat(&mut places, candidate);
        }
        let mut sets = Sets::new();
        for place in places.all {
            routes.add(place, &mut sets);
        }
        routes
    }

    /// What a contract asks for; notes what it cannot have.
    fn candidates<'k>(&mut self, kept: &'k Kept) -> Vec<Candidate<'k>> {
        let contract = match &kept.contract {
            Ok(contract) => contract,
            Err(why) => {
                self.refuse(kept, why.clone());
                return Vec::new();
            }
        };
        for refusal in &contract.refusals {
            self.refuse(kept, refusal.clone());
        }
        let mut candidates = Vec::new();
        for method in contract.methods_of(&kept.protobuf_services) {
            candidates.push(Candidate { key: &method.place, kept, method, binding: None });
            let bound = method.bindings.iter();
            candidates.extend(bound.map(|one| Candidate { key: &one.place, kept, method, binding: Some(one) }));
        }
        candidates
    }

    fn seat<'k>(&mut self, places: &mut Places<'k>, candidate: Candidate<'k>) {
        let digest = &candidate.kept.digest;
        let Some(number) = places.numbers.get(&**candidate.key) else {
            places.numbers.insert(candidate.key, places.all.len());
            places.all.push(Place { among: vec![digest], first: candidate });
            return;
        };
        let place = &mut places.all[*number];
        let first = &place.first;
        let what = || match candidate.binding {
            Some(binding) => format!("{} {} of {}", binding.verb, binding.pattern.text(), candidate.method.name),
            None => candidate.method.name.clone(),
        };
        if first.kept.service != candidate.kept.service {
            let owner = format!("{} is taken by {} ({})", what(), first.kept.service, first.method.name);
            self.refuse(candidate.kept, owner);
        } else if first.kept.digest == candidate.kept.digest {
            self.refuse(candidate.kept, format!("{} is given twice, first for {}", what(), first.method.name));
        } else if first.method.name == candidate.method.name && agree(first, &candidate) {
            place.among.push(digest);
        } else {
            self.refuse(candidate.kept, format!("{} is read otherwise by a newer contract of the service", what()));
        }
    }

    fn add<'k>(&mut self, place: Place<'k>, sets: &mut Sets<'k>) {
        let Place { first: Candidate { key, kept, method, binding }, among } = place;
        let set = |among: &Vec<&Arc<str>>| Arc::new(among.iter().map(ToString::to_string).collect());
        let among = match sets.get(&among) {
            Some(known) => known.clone(),
            None => {
                let set: Arc<BTreeSet<String>> = set(&among);
                sets.entry(among).or_insert(set).clone()
            }
        };
        let (service, method, binding) = (kept.service.clone(), method.clone(), binding.cloned());
        let route = Arc::new(Route { service, method, binding, is_plain: false, among });
        match &route.binding {
            // Keys are templates, so the table has no place for a second one either.
            Some(binding) => _ = self.rest.insert(&binding.verb, &binding.pattern, route.clone()).is_ok(),
            None => _ = self.grpc.insert(route.method.path.as_str().into(), route.clone()),
        }
        self.seats.insert(key.clone(), route);
    }

    /// Which service has a place.
    fn owner(&self, place: &str) -> Option<&Arc<str>> {
        self.seats.get(place).map(|route| &route.service)
    }

    fn refuse(&mut self, kept: &Kept, reason: String) {
        self.refusals.push(wire::Refusal {
            service: kept.service.to_string(),
            contract_digest: kept.digest.to_string(),
            reason,
        });
    }

    /// The route of a REST request.
    pub(crate) fn rest(&self, verb: &str, path: Path) -> Found<'_, Arc<Route>> {
        self.rest.find(verb, path)
    }

    /// All routes of REST.
    pub(crate) fn rest_routes(&self) -> &[Arc<Route>] {
        self.rest.values()
    }

    /// The route of a gRPC call, by its path.
    pub(crate) fn grpc(&self, path: &str) -> Option<&Arc<Route>> {
        self.grpc.get(path)
    }

    /// All methods that are exposed.
    pub(crate) fn methods(&self) -> impl Iterator<Item = &Arc<Method>> {
        self.grpc.values().map(|route| &route.method)
    }

    /// Services that have routes.
    pub(crate) fn services(&self) -> BTreeSet<Arc<str>> {
        let services: HashSet<&Arc<str>> = self.seats.values().map(|route| &route.service).collect();
        services.into_iter().cloned().collect()
    }

    /// How many routes there are.
    pub(crate) fn len(&self) -> usize {
        self.rest.values().len() + self.grpc.len()
    }

    /// All routes of a service, or of all, and those of plain HTTP, by template and verb.
    pub(crate) fn words(&self, service: &str, plain: Vec<wire::Route>) -> Vec<wire::Route> {
        let all = self.rest.values().iter().chain(self.grpc.values());
        let mut words: Vec<_> =
            all.filter(|route| service.is_empty() || &*route.service == service).map(|route| route.words()).collect();
        words.extend(plain);
        words.sort_by(order);
        words
    }

    /// The route that a request would take, and what its path binds.
    pub(crate) fn matching(&self, verb: &str, path: Path) -> Option<(wire::Route, HashMap<String, String>)> {
        match self.rest.find(verb, path) {
            Found::Value { value, path } => {
                let binding = value.binding.as_ref().expect("routes in the REST table have a binding");
                let texts = binding.pattern.bind(&path).ok()?;
                let names = binding.variables.iter().map(ToString::to_string);
                Some((value.words(), names.zip(texts).collect()))
            }
            Found::OtherVerbs(_) | Found::Nothing => None,
        }
    }
}

/// Two values are the same if they are to every request.
impl PartialEq for Routes {
    fn eq(&self, other: &Self) -> bool {
        let is_same =
            |(place, route): (&Arc<str>, &Arc<Route>)| other.seats.get(place).is_some_and(|two| **two == **route);
        self.is_known == other.is_known
            && self.refusals == other.refusals
            && self.seats.len() == other.seats.len()
            && self.seats.iter().all(is_same)
    }
}

/// A method is read once from a contract, so what is the same lies at the same place.
impl PartialEq for Route {
    fn eq(&self, other: &Self) -> bool {
        let is_bound_alike = match (&self.binding, &other.binding) {
            (Some(one), Some(two)) => Arc::ptr_eq(one, two),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        is_bound_alike
            && self.service == other.service
            && Arc::ptr_eq(&self.method, &other.method)
            && self.among == other.among
    }
}

fn order(one: &wire::Route, two: &wire::Route) -> std::cmp::Ordering {
    (&one.template, &one.verb, one.protocol).cmp(&(&two.template, &two.verb, two.protocol))
}

fn agree(one: &Candidate<'_>, two: &Candidate<'_>) -> bool {
    let same_shape = one.method.is_server_streaming == two.method.is_server_streaming
        && one.method.is_client_streaming == two.method.is_client_streaming;
    match (one.binding, two.binding) {
        (Some(one), Some(two)) => same_shape && one.agrees_with(two),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::contract;
    use crate::testing;

    fn kept(service: &str, digest: &str, created: u64, methods: &str) -> Kept {
        let source = format!(
            "syntax = \"proto3\"; package shop.v1; import \"google/api/annotations.proto\";
             message Ask {{ string id = 1; string other = 2; }} message Answer {{}}
             service {} {{ {methods} }}",
            service.to_uppercase()
        );
        Kept {
            service: service.into(),
            digest: digest.into(),
            protobuf_services: Arc::new(BTreeSet::from([format!("shop.v1.{}", service.to_uppercase())])),
            contract: Ok(Arc::new(contract::read(&testing::compile(&source)).unwrap())),
            created: SystemTime::UNIX_EPOCH + Duration::from_secs(created),
            is_live: true,
        }
    }

    fn method(name: &str, rule: &str) -> String {
        format!("rpc {name}(Ask) returns (Answer) {{ option (google.api.http) = {{ {rule} }}; }}")
    }

    fn route(routes: &Routes, path: &str) -> Option<(String, String, Vec<String>)> {
        match routes.rest("GET", Path::parse(path).unwrap()) {
            Found::Value { value, .. } => {
                let method = value.method.name.rsplit('.').next().unwrap().to_owned();
                Some((value.service.to_string(), method, value.among.iter().cloned().collect()))
            }
            Found::OtherVerbs(_) | Found::Nothing => None,
        }
    }

    fn to(service: &str, method: &str, digests: &[&str]) -> Option<(String, String, Vec<String>)> {
        Some((service.to_owned(), method.to_owned(), digests.iter().map(|digest| (*digest).to_owned()).collect()))
    }

    #[test]
    fn rule_6_a_template_that_two_services_want_stays_with_the_first_and_the_other_is_told_whose_it_is() {
        let pump = kept("pump", "p", 2, &method("Get", r#"get: "/v1/{id}""#));
        let valve = kept("valve", "v", 1, &method("Read", r#"get: "/v1/{other}""#));
        let alone = Routes::build(std::slice::from_ref(&pump), &Routes::default());
        let both = Routes::build(&[valve.clone(), pump.clone()], &alone);
        assert_eq!(route(&both, "/v1/x"), to("pump", "Get", &["p"]), "who has it keeps it");
        assert_eq!(both.refusals.len(), 1);
        assert_eq!(both.refusals[0].service, "valve");
        assert_eq!(
            both.refusals[0].reason,
            "GET /v1/{other} of shop.v1.VALVE.Read is taken by pump (shop.v1.PUMP.Get)"
        );
        let fresh = Routes::build(&[pump, valve.clone()], &Routes::default());
        assert_eq!(route(&fresh, "/v1/x"), to("valve", "Read", &["v"]), "of two newcomers the elder gets it");
        let left = Routes::build(&[valve], &both);
        assert_eq!(route(&left, "/v1/x"), to("valve", "Read", &["v"]), "who leaves gives it up");
    }

    #[test]
    fn a_request_goes_to_every_version_that_reads_it_alike() {
        let old = kept("pump", "1", 1, &method("Get", r#"get: "/v1/{id}""#));
        let new = kept("pump", "2", 2, &(method("Get", r#"get: "/v1/{id}""#) + &method("New", r#"get: "/v1/new""#)));
        let other = kept("pump", "3", 3, &method("Get", r#"get: "/v1/{other}""#));
        let routes = Routes::build(&[old.clone(), new.clone()], &Routes::default());
        assert_eq!(route(&routes, "/v1/x"), to("pump", "Get", &["1", "2"]));
        assert_eq!(route(&routes, "/v1/new"), to("pump", "New", &["2"]));
        let mut routes = Routes::build(&[old.clone(), new.clone(), other.clone()], &routes);
        assert_eq!(route(&routes, "/v1/x"), to("pump", "Get", &["3"]), "the newest says how it is read");
        assert!(routes.refusals.iter().all(|refusal| refusal.reason.contains("newer contract")));
        let gone = Kept { is_live: false, ..other };
        routes = Routes::build(&[old, new, gone], &routes);
        assert_eq!(route(&routes, "/v1/x"), to("pump", "Get", &["1", "2"]), "but not after its last instance left");
    }

    #[test]
    fn a_template_given_twice_in_one_contract_is_told() {
        let twice = kept("pump", "1", 1, &(method("A", r#"get: "/v1/{id}""#) + &method("B", r#"get: "/v1/{id}""#)));
        let routes = Routes::build(&[twice], &Routes::default());
        assert_eq!(route(&routes, "/v1/x"), to("pump", "A", &["1"]));
        assert!(routes.refusals[0].reason.contains("given twice, first for shop.v1.PUMP.A"));
    }

    #[test]
    fn only_protobuf_services_that_an_instance_answers_have_routes() {
        let mut pump = kept("pump", "1", 1, &method("Get", r#"get: "/v1/{id}""#));
        pump.protobuf_services = Arc::default();
        assert_eq!(Routes::build(&[pump], &Routes::default()).len(), 0);
    }

    #[test]
    fn routes_are_listed_and_matched_in_words() {
        let pump = kept("pump", "1", 1, &method("Get", r#"get: "/v1/{id}""#));
        let routes = Routes::build(&[pump], &Routes::default());
        let words = routes.words("", Vec::new());
        assert_eq!(words.len(), 2, "one for REST, one for gRPC");
        assert_eq!(words[0].template, "/shop.v1.PUMP/Get");
        assert_eq!(words[1].template, "/v1/{id}");
        assert!(routes.words("valve", Vec::new()).is_empty());
        let (route, bindings) = routes.matching("GET", Path::parse("/v1/a%2Fb").unwrap()).unwrap();
        assert_eq!((route.method.as_str(), bindings["id"].as_str()), ("shop.v1.PUMP.Get", "a/b"));
    }
}
