//! A registry in this process, and what a user does with it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ninefold::Link;
use ninefold::fault;
use ninefold::lifecycle::Scope;
use ninefold_proto::ninefold::registry::v1 as proto;
use ninefold_registry::{Config, Deps, Registry};
use ninefold_store::{Remembered, Store};
use proto::hold_session_request::Message as Say;
use proto::hold_session_response::Message as Heard;
use proto::registry_service_client::RegistryServiceClient;
use proto::watch_instances_response::Message as Told;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::{Routes, RoutesBuilder};
use tonic::{Code, Status, Streaming};

use crate::memory::Memory;

/// Longer than anything here takes; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node with a registry.
pub(crate) struct House<S = Memory> {
    pub(crate) store: S,
    pub(crate) client: RegistryServiceClient<Link>,
    scope: Scope,
}

impl House {
    pub(crate) async fn start() -> Self {
        Self::with(Config::default()).await
    }

    pub(crate) async fn with(config: Config) -> Self {
        Self::node("node-1", Memory::new(), config).await
    }

    pub(crate) async fn node(node: &str, store: Memory, config: Config) -> Self {
        let (client, scope) = serve(node, Arc::new(store.clone()), config).await;
        Self { store, client, scope }
    }
}

impl House<Arc<dyn Store>> {
    pub(crate) async fn on(node: &str, store: Arc<dyn Store>, config: Config) -> Self {
        let (client, scope) = serve(node, store.clone(), config).await;
        Self { store, client, scope }
    }

    /// A node that remembers what it last saw in a file.
    pub(crate) async fn remembering(node: &str, store: Arc<dyn Store>, config: Config, file: &Path) -> Self {
        let deps = Deps {
            store: store.clone(),
            contract: None,
            node: node.to_owned(),
            remembered: Some(Remembered::at(file)),
        };
        let scope = Scope::root("test");
        let routes = routes_of(deps, config, &scope).await;
        Self { store, client: RegistryServiceClient::new(Link::from(routes)), scope }
    }

    /// Why the node says that it may be wrong.
    pub(crate) async fn stale(&self) -> Option<proto::Staleness> {
        let request = proto::ListServicesRequest::default();
        self.client.clone().list_services(request).await.expect("services are answered").into_inner().stale
    }
}

impl<S> House<S> {
    /// Stops the node as a shutdown does.
    pub(crate) async fn stop(&self) {
        assert_eq!(self.scope.close(Duration::from_secs(5)).await, [] as [&str; 0], "every task stops in time");
    }

    pub(crate) async fn join(&self, service: &str, id: &str) -> Session {
        self.register(instance(service, id)).await.expect("the instance is welcome")
    }

    pub(crate) async fn register(&self, instance: proto::Instance) -> Result<Session, Status> {
        Session::register(self.client.clone(), instance).await
    }

    /// A stream on which nothing is said yet.
    pub(crate) async fn open(&self) -> Session {
        Session::open(self.client.clone()).await
    }

    pub(crate) async fn instances(&self, service: &str) -> Vec<proto::Instance> {
        let mut all = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = proto::ListInstancesRequest {
                service: service.to_owned(),
                page_size: 0,
                page_token,
                ..Default::default()
            };
            let page = self.client.clone().list_instances(request).await.expect("a list is answered").into_inner();
            all.extend(page.instances);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return all;
            }
        }
    }

    /// Ids and states of a service, such as `p-1 SERVING`.
    pub(crate) async fn states(&self, service: &str) -> Vec<String> {
        self.instances(service).await.iter().map(state).collect()
    }

    /// Waits until the states of a service are these.
    pub(crate) async fn until(&self, service: &str, wanted: &[&str]) {
        let mut seen = Vec::new();
        for _ in 0..PATIENCE.as_millis() / 10 {
            seen = self.states(service).await;
            if seen == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("expected {wanted:?}, still see {seen:?}");
    }

    /// Kinds and reasons of what happened to a service, oldest first.
    pub(crate) async fn story(&self, service: &str) -> Vec<String> {
        let mut events = self.events(service).await;
        events.reverse();
        let line = |event: &proto::Event| {
            let kind = event.kind().as_str_name().trim_start_matches("EVENT_KIND_");
            format!("{} {kind} {}", event.instance_id, event.reason).trim_end().to_owned()
        };
        events.iter().map(line).collect()
    }

    pub(crate) async fn events(&self, service: &str) -> Vec<proto::Event> {
        let request = proto::ListEventsRequest { service: service.to_owned(), page_size: 1000, ..Default::default() };
        self.client.clone().list_events(request).await.expect("events are answered").into_inner().events
    }

    pub(crate) async fn watch(&self, services: &[&str]) -> Watch {
        let services = services.iter().map(|&service| service.to_owned()).collect();
        let request = proto::WatchInstancesRequest { services, ..Default::default() };
        let stream = self.client.clone().watch_instances(request).await.expect("a watch is answered").into_inner();
        Watch { stream, known: std::collections::BTreeMap::new(), removed: 0, revision: 0 }
    }
}

async fn serve(node: &str, store: Arc<dyn Store>, config: Config) -> (RegistryServiceClient<Link>, Scope) {
    let scope = Scope::root("test");
    let routes = routes(node, store, config, &scope).await;
    (RegistryServiceClient::new(Link::from(routes)), scope)
}

/// A registry, to be served.
pub(crate) async fn routes(node: &str, store: Arc<dyn Store>, config: Config, scope: &Scope) -> Routes {
    routes_of(Deps { store, contract: None, node: node.to_owned(), remembered: None }, config, scope).await
}

async fn routes_of(deps: Deps, config: Config, scope: &Scope) -> Routes {
    let registry = Registry::start(config, deps, scope).await.expect("the registry starts");
    let mut routes = RoutesBuilder::default();
    registry.add_to(&mut routes);
    routes.routes()
}

/// The instance's side of a session.
pub(crate) struct Session {
    say: mpsc::Sender<proto::HoldSessionRequest>,
    answers: Streaming<proto::HoldSessionResponse>,
    pub(crate) registered: Option<proto::Instance>,
}

impl Session {
    pub(crate) async fn register(
        client: RegistryServiceClient<Link>,
        instance: proto::Instance,
    ) -> Result<Self, Status> {
        let mut session = Self::open(client).await;
        session.say(Say::Register(proto::Register { instance: Some(instance) })).await;
        match session.hear().await? {
            Some(Heard::Registered(registered)) => {
                session.registered = registered.instance;
                Ok(session)
            }
            other => panic!("expected to be registered, heard {other:?}"),
        }
    }

    async fn open(mut client: RegistryServiceClient<Link>) -> Self {
        let (say, said) = mpsc::channel(16);
        let answers = client.hold_session(ReceiverStream::new(said)).await.expect("a session can be opened");
        Self { say, answers: answers.into_inner(), registered: None }
    }

    pub(crate) async fn say(&self, message: Say) {
        let request = proto::HoldSessionRequest { message: Some(message) };
        self.say.send(request).await.expect("the session listens");
    }

    /// Whether the session still listens; a beat is as good as any word to find out.
    pub(crate) async fn beat(&self) {
        self.say(Say::Beat(proto::Beat {})).await;
    }

    /// Whether the registry still listens.
    pub(crate) fn is_open(&self) -> bool {
        !self.say.is_closed()
    }

    /// Beats, if the session still listens and has room.
    pub(crate) fn try_beat(&self) {
        let message = Some(Say::Beat(proto::Beat {}));
        let _ = self.say.try_send(proto::HoldSessionRequest { message });
    }

    pub(crate) async fn hear(&mut self) -> Result<Option<Heard>, Status> {
        let heard = tokio::time::timeout(PATIENCE, self.answers.message()).await.expect("an answer comes");
        Ok(heard?.map(|answer| answer.message.expect("an answer says something")))
    }

    /// Waits for the end of the session, that must be an error.
    pub(crate) async fn refused(&mut self) -> Status {
        match self.hear().await {
            Err(status) => status,
            Ok(heard) => panic!("expected an error, heard {heard:?}"),
        }
    }

    pub(crate) async fn set(&mut self, state: proto::InstanceState, reason: &str) -> proto::Instance {
        self.say(Say::SetState(proto::SetState { state: state.into(), reason: reason.to_owned() })).await;
        match self.hear().await {
            Ok(Some(Heard::StateChanged(changed))) => changed.instance.expect("the answer holds the instance"),
            other => panic!("expected the new state, heard {other:?}"),
        }
    }

    pub(crate) async fn leave(mut self, reason: &str) {
        self.say(Say::Deregister(proto::Deregister { reason: reason.to_owned() })).await;
        while let Some(heard) = self.hear().await.expect("leaving is no error") {
            // What was said before it was heard that it leaves.
            assert!(matches!(heard, Heard::DrainRequested(_) | Heard::DrainWithdrawn(_)), "{heard:?}");
        }
    }
}

/// The watcher's side of a watch: what it would believe.
pub(crate) struct Watch {
    pub(crate) stream: Streaming<proto::WatchInstancesResponse>,
    pub(crate) known: std::collections::BTreeMap<(String, String), proto::Instance>,
    /// How many instances it was told to forget.
    pub(crate) removed: usize,
    pub(crate) revision: i64,
}

impl Watch {
    pub(crate) async fn next(&mut self) -> Told {
        let told = tokio::time::timeout(PATIENCE, self.stream.message()).await.expect("the watch says something");
        let told = told.expect("the watch lives").expect("the watch goes on");
        assert!(told.revision >= self.revision, "revisions never go back");
        self.revision = told.revision;
        let key = |instance: &proto::Instance| (instance.service.clone(), instance.instance_id.clone());
        let message = told.message.expect("it is one of the three");
        match &message {
            Told::Snapshot(snapshot) => {
                self.known = snapshot.instances.iter().map(|one| (key(one), one.clone())).collect();
            }
            Told::Delta(delta) => {
                for gone in &delta.removes {
                    self.removed += 1;
                    self.known.remove(&(gone.service.clone(), gone.instance_id.clone()));
                }
                self.known.extend(delta.upserts.iter().map(|one| (key(one), one.clone())));
            }
            Told::Heartbeat(_) => {}
        }
        message
    }

    /// Follows until the watcher believes this.
    pub(crate) async fn until(&mut self, wanted: &[&str]) {
        for _ in 0..10_000 {
            if self.states() == wanted {
                return;
            }
            self.next().await;
        }
        panic!("expected {wanted:?}, still see {:?}", self.states());
    }

    pub(crate) fn states(&self) -> Vec<String> {
        self.known.values().map(state).collect()
    }
}

pub(crate) fn instance(service: &str, id: &str) -> proto::Instance {
    proto::Instance {
        service: service.to_owned(),
        instance_id: id.to_owned(),
        addresses: vec![proto::Address { host: "127.0.0.1".to_owned(), port: 4711 }],
        version: "1.0.0".to_owned(),
        protobuf_services: vec!["shop.pump.v1.PumpService".to_owned()],
        state: proto::InstanceState::Serving.into(),
        ..Default::default()
    }
}

fn state(instance: &proto::Instance) -> String {
    let state = instance.state().as_str_name().trim_start_matches("INSTANCE_STATE_");
    format!("{} {state}", instance.instance_id)
}

/// The one check of refusals.
pub(crate) fn check(status: &Status, code: Code, reason: &str) {
    assert_eq!((status.code(), fault::reason(status).as_deref()), (code, Some(reason)), "{status:?}");
}
