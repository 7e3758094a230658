//! A small landscape: a registry and a contract store in the test's hands, and a service that answers `ConfigService`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use ninefold::Link;
use ninefold::fault::{self, Fault, Kind};
use ninefold::lifecycle::Scope;
use ninefold::proto::ninefold::config::v1 as config;
use ninefold::proto::ninefold::contract::v1 as contract;
use ninefold::proto::ninefold::registry::v1 as registry;
use ninefold::serve::{Listener, ServeConfig};
use ninefold::telemetry::Journal;
use ninefold::telemetry::journal::Entry;
use ninefold::tonic::service::Routes;
use ninefold::tonic::{Code, Request, Response, Status, Streaming, async_trait};
use ninefold_gateway::{Config, Deps, Gateway, Notice, Opening, Witness};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;

use crate::documents::Documents;
use crate::keys::Access;
use crate::talk::{self, Talk};

pub(crate) const CONFIG: &str = "ninefold.config.v1.ConfigService";
pub(crate) const CONTRACT: &str = "ninefold.contract.v1.ContractService";

/// The landscape of one test. Everything in it ends with the test.
pub(crate) struct Landscape {
    scope: Scope,
    /// What the edge runs in; closing it stops the edge and leaves the rest.
    pub(crate) door: Scope,
    pub(crate) edge: SocketAddr,
    pub(crate) backend: Arc<Backend>,
    pub(crate) gateway: Gateway,
    /// Central configuration.
    pub(crate) documents: Documents,
    /// API keys, and what edges sign with.
    pub(crate) access: Access,
    /// The access log.
    pub(crate) told: Arc<Mutex<Vec<Entry>>>,
    /// What the edge noticed.
    pub(crate) notices: Notices,
    instances: watch::Sender<Vec<registry::Instance>>,
    policies: Policies,
    contracts: Arc<Mutex<HashMap<String, Vec<u8>>>>,
}

impl Landscape {
    /// One edge and one instance of a service that keeps `ConfigService`, and nothing else, as `keeper`.
    pub(crate) async fn start() -> Self {
        Self::start_with(Config::default()).await
    }

    pub(crate) async fn start_with(config: Config) -> Self {
        let house = Self::empty(config).await;
        house.offer("sha256:1", ninefold::proto::DESCRIPTOR_SET);
        house.join("keeper", "a", "sha256:1", &[CONFIG]).await;
        house.until_routed("GET", "/v1/documents").await;
        house
    }

    /// One edge, and one instance of a service with every shape of stream, as `talker`.
    pub(crate) async fn talking(config: Config) -> Self {
        let house = Self::empty(config).await;
        house.offer("sha256:talk", &talk::contract());
        house.join("talker", "t", "sha256:talk", &[talk::TALK]).await;
        house.until_routed("GET", "/files/x").await;
        house
    }

    /// One edge, and nobody behind it.
    pub(crate) async fn empty(config: Config) -> Self {
        let scope = Scope::root("test");
        let instances = watch::Sender::new(Vec::new());
        let contracts: Arc<Mutex<HashMap<String, Vec<u8>>>> = Arc::default();
        let policies = Policies::default();
        let registry = Registry(instances.clone(), policies.clone());
        let registry = registry::registry_service_server::RegistryServiceServer::new(registry);
        let store = contract::contract_service_server::ContractServiceServer::new(Contracts(contracts.clone()));
        let documents = Documents::default();
        let access = Access::default();
        let settings = config::config_service_server::ConfigServiceServer::new(documents.clone());
        let (told, notices): (Arc<Mutex<Vec<Entry>>>, Notices) = Default::default();
        let journal = told.clone();
        let deps = Deps {
            registry: Link::from(Routes::new(registry)),
            contract: Link::from(Routes::new(store)),
            access: access.link(),
            config: Link::from(Routes::new(settings)),
            node: "node-1".to_owned(),
            opening: Opening::AtOnce,
            witness: Arc::new(notices.clone()),
            journal: Journal::to(move |entry| journal.lock().unwrap().push(entry)),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let edge = listener.local_addr().unwrap();
        let door = scope.child("gateway");
        let gateway = Gateway::start(config, deps, listener, &door).await.unwrap();
        let backend = Arc::default();
        Self { scope, door, edge, backend, gateway, instances, policies, contracts, documents, access, told, notices }
    }

    /// Hands a contract in.
    pub(crate) fn offer(&self, digest: &str, raw: &[u8]) {
        self.contracts.lock().unwrap().insert(digest.to_owned(), raw.to_vec());
    }

    /// Starts an instance and registers it.
    pub(crate) async fn join(&self, service: &str, id: &str, digest: &str, protobuf_services: &[&str]) {
        self.join_as(service, id, digest, protobuf_services, "").await;
    }

    /// As [`join`](Self::join), with a version.
    pub(crate) async fn join_as(
        &self,
        service: &str,
        id: &str,
        digest: &str,
        protobuf_services: &[&str],
        version: &str,
    ) {
        self.join_with(service, id, digest, protobuf_services, version, ServeConfig::default()).await;
    }

    /// As [`join_as`](Self::join_as), serving in its own way; with TLS it is registered as asking for it.
    pub(crate) async fn join_with(
        &self,
        service: &str,
        id: &str,
        digest: &str,
        protobuf_services: &[&str],
        version: &str,
        serve: ServeConfig,
    ) {
        let tls = serve.tls.is_some();
        let listener = Listener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.address();
        let keeper = Keeper { id: id.to_owned(), backend: self.backend.clone() };
        let mut routes = Routes::builder();
        routes.add_service(config::config_service_server::ConfigServiceServer::new(keeper));
        routes.add_service(contract::contract_service_server::ContractServiceServer::new(Contracts(
            self.contracts.clone(),
        )));
        routes.add_service(Talk(self.backend.clone()));
        let routes = routes.routes();
        self.scope.child("instance").spawn("test.serve", ninefold::lifecycle::OnError::Log, |stop| async move {
            ninefold::serve::run(listener, routes, serve, stop.asked()).await
        });
        self.register(registry::Instance {
            service: service.to_owned(),
            instance_id: id.to_owned(),
            addresses: vec![registry::Address { host: "127.0.0.1".to_owned(), port: address.port().into() }],
            protobuf_services: protobuf_services.iter().map(|name| (*name).to_owned()).collect(),
            contract_digest: digest.to_owned(),
            version: version.to_owned(),
            tls,
            state: registry::InstanceState::Serving.into(),
            ..registry::Instance::default()
        });
    }

    /// Registers an instance that somebody started.
    pub(crate) fn register(&self, instance: registry::Instance) {
        self.instances.send_modify(|instances| instances.push(instance));
    }

    /// A scope that ends with the test.
    pub(crate) fn scope(&self, name: &'static str) -> Scope {
        self.scope.child(name)
    }

    /// Says how a service is to be called.
    pub(crate) fn call_by(&self, policy: registry::Policy) {
        *self.policies.lock().unwrap() = vec![policy];
        self.instances.send_modify(|_| {});
    }

    /// Takes an instance out of the registry.
    pub(crate) fn leave(&self, id: &str) {
        self.instances.send_modify(|instances| instances.retain(|instance| instance.instance_id != id));
    }

    /// Waits until the edge routes a request.
    pub(crate) async fn until_routed(&self, verb: &str, path: &str) {
        self.until(verb, path, true).await;
    }

    /// Waits until the edge routes a request, or does not.
    pub(crate) async fn until(&self, verb: &str, path: &str, is_routed: bool) {
        let mut client = self.routes_client();
        let waited = tokio::time::timeout(Duration::from_secs(60), async {
            loop {
                let asked = ninefold::proto::ninefold::gateway::v1::MatchRouteRequest {
                    verb: verb.to_owned(),
                    path: path.to_owned(),
                    ..Default::default()
                };
                if client.match_route(asked).await.is_ok() == is_routed {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("{verb} {path} should be routed: {is_routed}"));
    }

    /// `GatewayService` of this edge.
    pub(crate) fn routes_client(
        &self,
    ) -> ninefold::proto::ninefold::gateway::v1::gateway_service_client::GatewayServiceClient<Link> {
        let mut routes = Routes::builder();
        self.gateway.add_to(&mut routes);
        ninefold::proto::ninefold::gateway::v1::gateway_service_client::GatewayServiceClient::new(Link::from(
            routes.routes(),
        ))
    }
}

/// What the edge noticed.
#[derive(Clone, Default)]
pub(crate) struct Notices(pub(crate) Arc<Mutex<Vec<Notice>>>);

impl Witness for Notices {
    fn note(&self, notice: Notice) {
        self.0.lock().unwrap().push(notice);
    }
}

/// How services are called.
type Policies = Arc<Mutex<Vec<registry::Policy>>>;

struct Registry(watch::Sender<Vec<registry::Instance>>, Policies);

pub(crate) fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not a part of this test"))
}

#[async_trait]
impl registry::registry_service_server::RegistryService for Registry {
    type HoldSessionStream = BoxStream<'static, Result<registry::HoldSessionResponse, Status>>;
    type WatchInstancesStream = BoxStream<'static, Result<registry::WatchInstancesResponse, Status>>;
    type HoldWatchStream = futures_util::stream::Pending<Result<registry::HoldWatchResponse, Status>>;

    async fn hold_session(
        &self,
        _: Request<Streaming<registry::HoldSessionRequest>>,
    ) -> Result<Response<Self::HoldSessionStream>, Status> {
        not_here()
    }

    async fn list_services(
        &self,
        _: Request<registry::ListServicesRequest>,
    ) -> Result<Response<registry::ListServicesResponse>, Status> {
        not_here()
    }

    async fn list_instances(
        &self,
        _: Request<registry::ListInstancesRequest>,
    ) -> Result<Response<registry::ListInstancesResponse>, Status> {
        not_here()
    }

    async fn get_instance(
        &self,
        _: Request<registry::GetInstanceRequest>,
    ) -> Result<Response<registry::GetInstanceResponse>, Status> {
        not_here()
    }

    async fn watch_instances(
        &self,
        _: Request<registry::WatchInstancesRequest>,
    ) -> Result<Response<Self::WatchInstancesStream>, Status> {
        use registry::watch_instances_response::Message;
        // The second and later messages are deltas that tell what left, as the real registry does.
        let mut known: Vec<registry::Instance> = Vec::new();
        let mut is_first = true;
        let policies = self.1.clone();
        let told = WatchStream::new(self.0.subscribe()).map(move |instances| {
            let removes = known
                .iter()
                .filter(|old| !instances.iter().any(|new| new.instance_id == old.instance_id))
                .map(|old| registry::InstanceKey {
                    service: old.service.clone(),
                    instance_id: old.instance_id.clone(),
                    namespace: old.namespace.clone(),
                });
            let policies = policies.lock().unwrap().clone();
            let message = if std::mem::take(&mut is_first) {
                Message::Snapshot(registry::Snapshot { instances: instances.clone(), policies })
            } else {
                Message::Delta(registry::Delta { upserts: instances.clone(), removes: removes.collect(), policies })
            };
            known = instances;
            Ok(registry::WatchInstancesResponse { revision: 1, message: Some(message) })
        });
        Ok(Response::new(told.boxed()))
    }

    async fn hold_watch(
        &self,
        _: Request<Streaming<registry::HoldWatchRequest>>,
    ) -> Result<Response<Self::HoldWatchStream>, Status> {
        not_here()
    }

    async fn list_watchers(
        &self,
        _: Request<registry::ListWatchersRequest>,
    ) -> Result<Response<registry::ListWatchersResponse>, Status> {
        not_here()
    }

    async fn check_policy(
        &self,
        _: Request<registry::CheckPolicyRequest>,
    ) -> Result<Response<registry::CheckPolicyResponse>, Status> {
        not_here()
    }

    async fn get_policy(
        &self,
        _: Request<registry::GetPolicyRequest>,
    ) -> Result<Response<registry::GetPolicyResponse>, Status> {
        not_here()
    }

    async fn list_events(
        &self,
        _: Request<registry::ListEventsRequest>,
    ) -> Result<Response<registry::ListEventsResponse>, Status> {
        not_here()
    }

    async fn set_override(
        &self,
        _: Request<registry::SetOverrideRequest>,
    ) -> Result<Response<registry::SetOverrideResponse>, Status> {
        not_here()
    }

    async fn clear_override(
        &self,
        _: Request<registry::ClearOverrideRequest>,
    ) -> Result<Response<registry::ClearOverrideResponse>, Status> {
        not_here()
    }
}

struct Contracts(Arc<Mutex<HashMap<String, Vec<u8>>>>);

#[async_trait]
impl contract::contract_service_server::ContractService for Contracts {
    async fn check_contract(
        &self,
        request: Request<contract::CheckContractRequest>,
    ) -> Result<Response<contract::CheckContractResponse>, Status> {
        let known = self.0.lock().unwrap().contains_key(&request.into_inner().digest);
        Ok(Response::new(contract::CheckContractResponse { known }))
    }

    async fn put_contract(
        &self,
        _: Request<contract::PutContractRequest>,
    ) -> Result<Response<contract::PutContractResponse>, Status> {
        not_here()
    }

    async fn get_contract(
        &self,
        request: Request<contract::GetContractRequest>,
    ) -> Result<Response<contract::GetContractResponse>, Status> {
        let digest = request.into_inner().digest;
        let raw = self.0.lock().unwrap().get(&digest).cloned();
        let descriptor_set = raw.ok_or_else(|| Status::not_found("no such contract"))?;
        Ok(Response::new(contract::GetContractResponse { contract: None, descriptor_set }))
    }

    async fn list_contracts(
        &self,
        _: Request<contract::ListContractsRequest>,
    ) -> Result<Response<contract::ListContractsResponse>, Status> {
        not_here()
    }
}

/// What the instances of the service share with the test.
#[derive(Default)]
pub(crate) struct Backend {
    /// Metadata of the last call.
    pub(crate) seen: Mutex<http::HeaderMap>,
    /// Id of the instance and metadata of each call to get a document.
    pub(crate) calls: Mutex<Vec<(String, http::HeaderMap)>>,
    /// Streams that are open.
    pub(crate) streams: Arc<()>,
}

/// An instance of the service. What it answers depends on the document's service name: `missing`, `slow`, `broken`,
/// `flaky` and `hesitant` (every other call fails, or is never answered), `lame` (never answers who only mirrors), and any
/// other, which is there.
struct Keeper {
    id: String,
    backend: Arc<Backend>,
}

#[derive(Debug, thiserror::Error)]
#[error("no document {0:?} is there")]
struct Missing(String);

impl Fault for Missing {
    fn kind(&self) -> Kind {
        Kind::NotFound
    }
    fn reason(&self) -> &'static str {
        "DOCUMENT_UNKNOWN"
    }
    fn retry_after(&self) -> Option<Duration> {
        Some(Duration::from_millis(1500))
    }
}

impl Keeper {
    fn note<T>(&self, request: &Request<T>) {
        *self.backend.seen.lock().unwrap() = request.metadata().clone().into_headers();
    }

    fn document(&self, service: String, environment: String, content: String) -> config::Document {
        config::Document { service, environment, content, revision: 7, author: self.id.clone(), ..Default::default() }
    }
}

#[async_trait]
impl config::config_service_server::ConfigService for Keeper {
    type WatchDocumentStream = BoxStream<'static, Result<config::WatchDocumentResponse, Status>>;
    type WatchDocumentsStream = BoxStream<'static, Result<config::WatchDocumentsResponse, Status>>;

    async fn get_document(
        &self,
        request: Request<config::GetDocumentRequest>,
    ) -> Result<Response<config::GetDocumentResponse>, Status> {
        self.note(&request);
        let call = (self.id.clone(), request.metadata().clone().into_headers());
        let is_mirrored = call.1.contains_key("x-ninefold-mirrored");
        let is_odd = {
            let mut calls = self.backend.calls.lock().unwrap();
            calls.push(call);
            calls.len() % 2 == 1
        };
        let request = request.into_inner();
        match request.service.as_str() {
            "missing" => return Err(fault::status(&Missing(request.service))),
            "behind" => {
                let mut status = Status::unavailable("the store is away");
                status.metadata_mut().insert("x-ninefold-failed-at", "store".parse().unwrap());
                return Err(status);
            }
            "slow" => tokio::time::sleep(Duration::from_secs(60)).await,
            "flaky" if is_odd => return Err(Status::unavailable("every other time")),
            "hesitant" if is_odd => tokio::time::sleep(Duration::from_secs(60)).await,
            "lame" if is_mirrored => tokio::time::sleep(Duration::from_secs(60)).await,
            "large" => {
                let document = self.document("large".into(), String::new(), "x".repeat(3 << 20));
                return Ok(Response::new(config::GetDocumentResponse { document: Some(document) }));
            }
            number if number.starts_with("code-") => {
                let code = Code::from_i32(number[5..].parse().unwrap());
                return Err(Status::new(code, "as asked"));
            }
            _ => {}
        }
        let content = request.revision.map_or_else(String::new, |revision| format!("revision {revision}"));
        let document = self.document(request.service, request.environment, content);
        let mut answer = Response::new(config::GetDocumentResponse { document: Some(document) });
        answer.metadata_mut().insert("x-answered-with", "metadata".parse().unwrap());
        Ok(answer)
    }

    async fn put_document(
        &self,
        request: Request<config::PutDocumentRequest>,
    ) -> Result<Response<config::PutDocumentResponse>, Status> {
        self.note(&request);
        let request = request.into_inner();
        let document = self.document(request.service, request.environment, request.content);
        Ok(Response::new(config::PutDocumentResponse { document: Some(document) }))
    }

    async fn list_documents(
        &self,
        _: Request<config::ListDocumentsRequest>,
    ) -> Result<Response<config::ListDocumentsResponse>, Status> {
        Ok(Response::new(config::ListDocumentsResponse::default()))
    }

    async fn list_revisions(
        &self,
        _: Request<config::ListRevisionsRequest>,
    ) -> Result<Response<config::ListRevisionsResponse>, Status> {
        not_here()
    }

    async fn diff_revisions(
        &self,
        _: Request<config::DiffRevisionsRequest>,
    ) -> Result<Response<config::DiffRevisionsResponse>, Status> {
        not_here()
    }

    async fn rollback_document(
        &self,
        _: Request<config::RollbackDocumentRequest>,
    ) -> Result<Response<config::RollbackDocumentResponse>, Status> {
        not_here()
    }

    async fn watch_document(
        &self,
        request: Request<config::WatchDocumentRequest>,
    ) -> Result<Response<Self::WatchDocumentStream>, Status> {
        let request = request.into_inner();
        if request.service == "missing" {
            return Err(fault::status(&Missing(request.service)));
        }
        let count = request.known_revision;
        let alive = self.backend.streams.clone();
        let revisions = futures_util::stream::iter(1..=count).map(move |revision| {
            let _ = &alive;
            let document = config::Document { revision, ..Default::default() };
            Ok(config::WatchDocumentResponse { document: Some(document) })
        });
        let end = match request.service.as_str() {
            "broken" => futures_util::stream::iter([Err(fault::status(&Missing("broken".into())))]).boxed(),
            "endless" => {
                let alive = self.backend.streams.clone();
                futures_util::stream::pending().inspect(move |_| drop(alive.clone())).boxed()
            }
            _ => futures_util::stream::empty().boxed(),
        };
        Ok(Response::new(revisions.chain(end).boxed()))
    }

    async fn watch_documents(
        &self,
        _: Request<config::WatchDocumentsRequest>,
    ) -> Result<Response<Self::WatchDocumentsStream>, Status> {
        not_here()
    }

    async fn acknowledge_document(
        &self,
        request: Request<config::AcknowledgeDocumentRequest>,
    ) -> Result<Response<config::AcknowledgeDocumentResponse>, Status> {
        let acknowledgement = request.into_inner().acknowledgement.unwrap_or_default();
        let is_right = (acknowledgement.service.as_str(), acknowledgement.revision) == ("shop", 3);
        if is_right {
            Ok(Response::new(config::AcknowledgeDocumentResponse {}))
        } else {
            Err(Status::invalid_argument(format!("{acknowledgement:?}")))
        }
    }

    async fn list_acknowledgements(
        &self,
        _: Request<config::ListAcknowledgementsRequest>,
    ) -> Result<Response<config::ListAcknowledgementsResponse>, Status> {
        not_here()
    }
}
