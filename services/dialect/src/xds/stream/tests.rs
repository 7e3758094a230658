//! What a client hears on one stream.

use std::sync::Mutex;

use futures_util::stream::BoxStream;
use ninefold::lifecycle::Scope;
use ninefold_proto::ninefold::registry::v1 as registry;
use tokio::sync::mpsc;
use tokio_stream_like::from;

use super::*;
use crate::model::{Name, Service};
use crate::{Notice, Witness};

/// A stream of what is sent into a queue.
mod tokio_stream_like {
    use futures_util::StreamExt as _;
    use futures_util::stream::{self, BoxStream};
    use tokio::sync::mpsc;
    use tonic::Status;

    pub(super) fn from<T: Send + 'static>(queue: mpsc::Receiver<T>) -> BoxStream<'static, Result<T, Status>> {
        stream::unfold(queue, |mut queue| async move { queue.recv().await.map(|one| (Ok(one), queue)) }).boxed()
    }
}

#[derive(Default)]
struct Notices(Mutex<Vec<Notice>>);

impl Witness for Notices {
    fn note(&self, notice: Notice) {
        self.0.lock().unwrap().push(notice);
    }
}

struct House {
    told: watch::Sender<Arc<World>>,
    shared: Shared,
    notices: Arc<Notices>,
    _scope: Scope,
}

impl House {
    fn new() -> Self {
        let scope = Scope::root("test");
        let notices = Arc::new(Notices::default());
        let ledger = Arc::new(Ledger::new(2, notices.clone()));
        let (told, world) = watch::channel(Arc::<World>::default());
        let shared = Shared {
            world,
            catalogue: Arc::new(Catalogue::new(ledger.clone())),
            ledger,
            node: "node".into(),
            stop: scope.stop(),
        };
        let house = Self { told, shared, notices, _scope: scope };
        house.with(&["10.0.0.1"]);
        house
    }

    /// Tells of one service with instances at these addresses.
    fn with(&self, hosts: &[&str]) {
        self.with_policy(hosts, registry::Policy::default());
    }

    fn with_policy(&self, hosts: &[&str], policy: registry::Policy) {
        let instance = |host: &&str| {
            Arc::new(registry::Instance {
                service: "pump".to_owned(),
                instance_id: (*host).to_owned(),
                addresses: vec![registry::Address { host: (*host).to_owned(), port: 80 }],
                state: registry::InstanceState::Serving.into(),
                ..registry::Instance::default()
            })
        };
        let name = Name::new("pump", "");
        let instances = hosts.iter().map(instance).collect();
        let pump = Service::new(name.clone(), instances, policy, false);
        let moment = self.told.borrow().moment + 1;
        let services = [(name, Arc::new(pump))].into();
        self.told.send_replace(Arc::new(World { moment, is_known: true, is_settled: true, services }));
    }

    fn open(
        &self,
    ) -> (mpsc::Sender<wire::DiscoveryRequest>, BoxStream<'static, Result<wire::DiscoveryResponse, Error>>) {
        let (says, heard) = mpsc::channel(8);
        (says, tell::<Whole>(self.shared.clone(), from(heard), Caller::anybody()).boxed())
    }
}

fn ask(of: Type, names: &[&str]) -> wire::DiscoveryRequest {
    wire::DiscoveryRequest {
        type_url: of.url().to_owned(),
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        node: Some(core::Node { id: "shop-1".to_owned(), ..core::Node::default() }),
        ..wire::DiscoveryRequest::default()
    }
}

fn answer(response: &wire::DiscoveryResponse, names: &[&str], refused: Option<&str>) -> wire::DiscoveryRequest {
    let error_detail = refused.map(|message| rpc::Status { code: 3, message: message.to_owned(), details: Vec::new() });
    let version_info = if refused.is_some() { String::new() } else { response.version_info.clone() };
    wire::DiscoveryRequest {
        version_info,
        response_nonce: response.nonce.clone(),
        error_detail,
        ..ask(Type::of(&response.type_url).unwrap(), names)
    }
}

async fn hear(
    told: &mut BoxStream<'static, Result<wire::DiscoveryResponse, Error>>,
) -> Option<wire::DiscoveryResponse> {
    // Time is held: this passes as soon as nobody has anything to do.
    match tokio::time::timeout(Duration::from_secs(60), told.next()).await {
        Ok(Some(Ok(response))) => Some(response),
        Ok(Some(Err(error))) => panic!("{error}"),
        Ok(None) | Err(_) => None,
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_client_refused_is_told_to_people_and_not_sent_again() {
    let house = House::new();
    let (says, mut told) = house.open();
    says.send(ask(Type::Cluster, &["pump"])).await.unwrap();
    let first = hear(&mut told).await.unwrap();
    let message = "errors validating: [resource pump: [field:lb_policy error:not supported]]";
    says.send(answer(&first, &["pump"], Some(message))).await.unwrap();
    assert_eq!(hear(&mut told).await, None, "the same bytes would be refused again");
    let notices = house.notices.0.lock().unwrap().clone();
    assert_eq!(notices.len(), 1);
    assert_eq!((notices[0].service.as_str(), notices[0].observer.as_str()), ("pump", "shop-1"));
    assert!(notices[0].reason.starts_with("cluster at lb_policy"), "{}", notices[0].reason);
    let streams = house.shared.ledger.streams(0, 10);
    let refusal = streams[0].subscriptions[0].refusal.as_ref().unwrap();
    assert_eq!((refusal.field.as_str(), refusal.version.as_str()), ("lb_policy", first.version_info.as_str()));
    drop((says, told));
    assert!(house.shared.ledger.streams(0, 10).is_empty(), "who leaves is not listed any more");
    assert_eq!(house.shared.ledger.refusals().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stale_answer_counts_for_nothing() {
    let house = House::new();
    let (says, mut told) = house.open();
    says.send(ask(Type::Endpoints, &["pump"])).await.unwrap();
    let first = hear(&mut told).await.unwrap();
    says.send(wire::DiscoveryRequest { response_nonce: "77".to_owned(), ..answer(&first, &[], None) }).await.unwrap();
    house.with(&["10.0.0.1", "10.0.0.2"]);
    assert_eq!(hear(&mut told).await, None, "the first response is still unanswered");
    says.send(answer(&first, &["pump"], None)).await.unwrap();
    let second = hear(&mut told).await.unwrap();
    assert_ne!(first.resources, second.resources);
}

#[tokio::test(start_paused = true)]
async fn routes_wait_for_clusters_but_not_for_ever() {
    let house = House::new();
    let (says, mut told) = house.open();
    for request in [ask(Type::Listener, &["pump"]), ask(Type::Cluster, &["pump"])] {
        says.send(request).await.unwrap();
    }
    let mut heard = Vec::new();
    while let Some(response) = hear(&mut told).await {
        heard.push(Type::of(&response.type_url).unwrap());
    }
    assert_eq!(heard.len(), 2, "{heard:?}");
    says.send(ask(Type::Endpoints, &["pump"])).await.unwrap();
    says.send(ask(Type::Route, &["pump"])).await.unwrap();
    let began = Instant::now();
    assert_eq!(hear(&mut told).await.unwrap().type_url, Type::Endpoints.url());
    assert_eq!(hear(&mut told).await.unwrap().type_url, Type::Route.url());
    assert!(began.elapsed() >= ANSWER_WAIT, "the endpoints were not answered");
}

#[tokio::test(start_paused = true)]
async fn an_envoy_hears_of_the_endpoints_again_of_a_cluster_that_changed() {
    for (agent, is_told) in [("envoy", true), ("grpc-c++", false)] {
        let house = House::new();
        let (says, mut told) = house.open();
        let ask = |of| {
            let node = core::Node { user_agent_name: agent.to_owned(), ..core::Node::default() };
            wire::DiscoveryRequest { node: Some(node), ..ask(of, &["pump"]) }
        };
        for of in [Type::Cluster, Type::Endpoints] {
            says.send(ask(of)).await.unwrap();
            let response = hear(&mut told).await.unwrap();
            says.send(answer(&response, &["pump"], None)).await.unwrap();
        }
        assert_eq!(hear(&mut told).await, None, "all is told");
        let limits = Some(registry::Limits { in_flight_max: Some(7), ..registry::Limits::default() });
        house.with_policy(&["10.0.0.1"], registry::Policy { limits, ..registry::Policy::default() });
        let cluster = hear(&mut told).await.unwrap();
        assert_eq!(cluster.type_url, Type::Cluster.url());
        let endpoints = hear(&mut told).await.map(|response| response.type_url);
        assert_eq!(endpoints, is_told.then(|| Type::Endpoints.url().to_owned()), "{agent}");
    }
}

#[tokio::test(start_paused = true)]
async fn names_without_end_and_streams_without_end_are_refused() {
    let house = House::new();
    let names: Vec<String> = (0..=NAMES_MAX).map(|number| format!("s{number}")).collect();
    let (says, mut told) = house.open();
    says.send(wire::DiscoveryRequest { resource_names: names, ..ask(Type::Endpoints, &[]) }).await.unwrap();
    assert!(matches!(told.next().await, Some(Err(Error::XdsInvalid(_)))));
    drop((says, told));
    let mut open = Vec::new();
    for _ in 0..2 {
        let (says, mut told) = house.open();
        says.send(ask(Type::Cluster, &[])).await.unwrap();
        hear(&mut told).await.unwrap();
        open.push((says, told));
    }
    let (says, mut told) = house.open();
    says.send(ask(Type::Cluster, &[])).await.unwrap();
    assert!(matches!(told.next().await, Some(Err(Error::XdsFull { max: 2 }))));
}

#[tokio::test(start_paused = true)]
async fn only_namespaces_that_a_client_may_see_are_told() {
    let house = House::new();
    let (says, heard) = mpsc::channel(8);
    let namespaces = ninefold::caller::Names::of(&["plant".to_owned()]);
    let caller = Caller { namespaces, ..Caller::anybody() };
    let mut told = tell::<Whole>(house.shared.clone(), from(heard), caller).boxed();
    says.send(ask(Type::Cluster, &[])).await.unwrap();
    assert_eq!(hear(&mut told).await.unwrap().resources.len(), 0);
    says.send(ask(Type::Endpoints, &["pump"])).await.unwrap();
    let response = hear(&mut told).await.unwrap();
    assert_eq!((response.resources.len(), response.resource_errors.len()), (0, 1));
}
