//! A platform small enough for a test: it takes sessions, contracts and config, and remembers what it was told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _};
use ninefold::lifecycle::{OnError, Scope};
use ninefold::proto::ninefold::config::v1::config_service_server::{ConfigService, ConfigServiceServer};
use ninefold::proto::ninefold::config::v1::{self as config, Acknowledgement, Document};
use ninefold::proto::ninefold::contract::v1::contract_service_server::{ContractService, ContractServiceServer};
use ninefold::proto::ninefold::contract::v1::{self as contract, Contract};
use ninefold::proto::ninefold::registry::v1::hold_session_request::Message as Said;
use ninefold::proto::ninefold::registry::v1::hold_session_response::Message as Answer;
use ninefold::proto::ninefold::registry::v1::registry_service_server::{RegistryService, RegistryServiceServer};
use ninefold::proto::ninefold::registry::v1::{self as registry, Instance, InstanceState};
use ninefold::serve::{self, Listener, ServeConfig};
use ninefold::tonic::{self, Request, Response, Status, Streaming, service::Routes};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, WatchStream};

/// Longest wait for anything in these tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What the platform knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes {
    /// Instances by id, with the states they went through.
    pub(crate) instances: BTreeMap<String, (Instance, Vec<InstanceState>)>,
    pub(crate) beats: usize,
    pub(crate) registrations: usize,
    pub(crate) farewells: Vec<String>,
    pub(crate) contracts: BTreeMap<String, usize>,
    pub(crate) puts: usize,
    pub(crate) document: Option<Document>,
    pub(crate) acknowledgements: Vec<Acknowledgement>,
    pub(crate) events: Vec<registry::Event>,
    pub(crate) drain: bool,
    /// Registrations that are answered with INSTANCE_TAKEN before one is accepted.
    pub(crate) taken: usize,
    /// Whether contracts are refused.
    pub(crate) refuses_contracts: bool,
}

/// A running platform.
pub(crate) struct Platform {
    pub(crate) address: SocketAddr,
    pub(crate) notes: watch::Sender<Notes>,
    scope: Scope,
}

impl Platform {
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0", watch::Sender::default()).await
    }

    /// Starts at an address, with notes of an earlier life.
    pub(crate) async fn start_at(address: &str, notes: watch::Sender<Notes>) -> Self {
        let listener = Listener::bind(address).await.unwrap();
        let address = listener.address();
        let fake = Fake(notes.clone());
        let routes = Routes::new(RegistryServiceServer::new(fake.clone()))
            .add_service(ContractServiceServer::new(fake.clone()))
            .add_service(ConfigServiceServer::new(fake));
        let scope = Scope::root("platform");
        let config = ServeConfig { drain: Duration::ZERO, ..ServeConfig::default() };
        scope.spawn("platform.serve", OnError::Shutdown, |stop| async move {
            serve::run(listener, routes, config, async move { stop.asked().await }).await
        });
        Self { address, notes, scope }
    }

    /// Ends at once; sessions break.
    pub(crate) async fn kill(self) -> (SocketAddr, watch::Sender<Notes>) {
        self.scope.close(PATIENCE).await;
        (self.address, self.notes)
    }

    /// Waits until the notes are as expected.
    pub(crate) async fn until(&self, what: &str, expected: impl FnMut(&Notes) -> bool) -> Notes {
        let mut notes = self.notes.subscribe();
        let found = tokio::time::timeout(PATIENCE, notes.wait_for(expected)).await;
        found.unwrap_or_else(|_| panic!("waited in vain for: {what}; {:?}", self.notes.borrow())).unwrap().clone()
    }

    /// Writes a config document.
    pub(crate) fn put(&self, content: &str) {
        self.notes.send_modify(|notes| {
            let revision = notes.document.as_ref().map_or(0, |document| document.revision) + 1;
            notes.document = Some(Document { content: content.to_owned(), revision, ..Document::default() });
        });
    }
}

#[derive(Clone)]
struct Fake(watch::Sender<Notes>);

impl Fake {
    async fn session(
        self,
        mut said: Streaming<registry::HoldSessionRequest>,
        answer: mpsc::Sender<Result<registry::HoldSessionResponse, Status>>,
    ) {
        let mut id = String::new();
        let mut notes = self.0.subscribe();
        loop {
            let said = tokio::select! {
                said = said.message() => said,
                _ = async { notes.wait_for(|notes| notes.drain).await.map(drop) } => {
                    let drain = registry::DrainRequested { reason: "told to".to_owned(), stay: false };
                    let _ = answer.send(Ok(registry::HoldSessionResponse { message: Some(Answer::DrainRequested(drain)) })).await;
                    self.0.send_modify(|notes| notes.drain = false);
                    continue;
                }
            };
            let Ok(Some(said)) = said else { return };
            let reply = match said.message.unwrap() {
                Said::Register(register) => {
                    let instance = register.instance.unwrap();
                    id.clone_from(&instance.instance_id);
                    self.note_state(&id, Some(instance.clone()), instance.state());
                    self.0.send_modify(|notes| notes.registrations += 1);
                    Answer::Registered(registry::Registered {
                        instance: Some(instance),
                        beat_interval: Some(Duration::from_millis(20).try_into().unwrap()),
                        lease: None,
                    })
                }
                Said::SetState(set) => {
                    let instance = self.note_state(&id, None, set.state());
                    Answer::StateChanged(registry::StateChanged { instance: Some(instance) })
                }
                Said::Deregister(farewell) => {
                    self.0.send_modify(|notes| notes.farewells.push(farewell.reason));
                    return;
                }
                Said::Beat(_) => {
                    self.0.send_modify(|notes| notes.beats += 1);
                    continue;
                }
                Said::ReportEvents(report) => {
                    self.0.send_modify(|notes| notes.events.extend(report.events));
                    continue;
                }
            };
            let _ = answer.send(Ok(registry::HoldSessionResponse { message: Some(reply) })).await;
        }
    }

    fn note_state(&self, id: &str, instance: Option<Instance>, state: InstanceState) -> Instance {
        let mut written = Instance::default();
        self.0.send_modify(|notes| {
            let entry = notes.instances.entry(id.to_owned()).or_default();
            if let Some(instance) = instance {
                entry.0 = instance;
            }
            entry.0.set_state(state);
            entry.1.push(state);
            written = entry.0.clone();
        });
        written
    }
}

fn not_here<T>() -> Result<T, Status> {
    Err(Status::unimplemented("not in this test"))
}

type Answers<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl RegistryService for Fake {
    type HoldSessionStream = Answers<registry::HoldSessionResponse>;
    type WatchInstancesStream = Answers<registry::WatchInstancesResponse>;
    type HoldWatchStream = futures_util::stream::Pending<Result<registry::HoldWatchResponse, Status>>;

    async fn hold_session(
        &self,
        request: Request<Streaming<registry::HoldSessionRequest>>,
    ) -> Result<Response<Self::HoldSessionStream>, Status> {
        let mut is_taken = false;
        self.0.send_if_modified(|notes| {
            is_taken = notes.taken > 0;
            notes.taken = notes.taken.saturating_sub(1);
            is_taken
        });
        if is_taken {
            return Err(Status::already_exists("a live session holds the id"));
        }
        let (answer, answers) = mpsc::channel(8);
        let session = self.clone().session(request.into_inner(), answer);
        // The session ends with the stream that is read: whoever drops the answers drops the work.
        let answers = ReceiverStream::new(answers);
        Ok(Response::new(alongside(answers, session).boxed()))
    }

    async fn watch_instances(
        &self,
        _: Request<registry::WatchInstancesRequest>,
    ) -> Result<Response<Self::WatchInstancesStream>, Status> {
        let snapshot = registry::WatchInstancesResponse {
            message: Some(registry::watch_instances_response::Message::Snapshot(registry::Snapshot::default())),
            revision: 1,
        };
        let stream = futures_util::stream::iter([Ok(snapshot)]).chain(futures_util::stream::pending());
        Ok(Response::new(stream.boxed()))
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

/// Yields the items of a stream while some work runs beside it; both end with the work.
fn alongside<T: Send + 'static>(
    items: impl Stream<Item = T> + Unpin + Send + 'static,
    work: impl Future<Output = ()> + Send + 'static,
) -> impl Stream<Item = T> + Send {
    let work = Box::pin(work);
    futures_util::stream::unfold((items, Some(work)), |(mut items, work)| async move {
        let Some(mut work) = work else { return items.next().await.map(|item| (item, (items, None))) };
        tokio::select! {
            biased;
            item = items.next() => item.map(|item| (item, (items, Some(work)))),
            () = &mut work => items.next().await.map(|item| (item, (items, None))),
        }
    })
}

#[tonic::async_trait]
impl ContractService for Fake {
    async fn check_contract(
        &self,
        request: Request<contract::CheckContractRequest>,
    ) -> Result<Response<contract::CheckContractResponse>, Status> {
        let known = self.0.borrow().contracts.contains_key(&request.into_inner().digest);
        Ok(Response::new(contract::CheckContractResponse { known }))
    }

    async fn put_contract(
        &self,
        request: Request<contract::PutContractRequest>,
    ) -> Result<Response<contract::PutContractResponse>, Status> {
        use sha2::Digest as _;
        if self.0.borrow().refuses_contracts {
            return Err(Status::invalid_argument("the contract is malformed"));
        }
        let set = request.into_inner().descriptor_set;
        let digest =
            sha2::Sha256::digest(&set).iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"));
        self.0.send_modify(|notes| {
            notes.puts += 1;
            notes.contracts.insert(digest.clone(), set.len());
        });
        Ok(Response::new(contract::PutContractResponse {
            contract: Some(Contract { digest, ..Contract::default() }),
            ..contract::PutContractResponse::default()
        }))
    }

    async fn get_contract(
        &self,
        _: Request<contract::GetContractRequest>,
    ) -> Result<Response<contract::GetContractResponse>, Status> {
        not_here()
    }

    async fn list_contracts(
        &self,
        _: Request<contract::ListContractsRequest>,
    ) -> Result<Response<contract::ListContractsResponse>, Status> {
        not_here()
    }
}

#[tonic::async_trait]
impl ConfigService for Fake {
    type WatchDocumentStream = Answers<config::WatchDocumentResponse>;

    async fn get_document(
        &self,
        _: Request<config::GetDocumentRequest>,
    ) -> Result<Response<config::GetDocumentResponse>, Status> {
        match self.0.borrow().document.clone() {
            Some(document) => Ok(Response::new(config::GetDocumentResponse { document: Some(document) })),
            None => Err(Status::not_found("no document")),
        }
    }

    async fn watch_document(
        &self,
        request: Request<config::WatchDocumentRequest>,
    ) -> Result<Response<Self::WatchDocumentStream>, Status> {
        let mut known = request.into_inner().known_revision;
        let documents = WatchStream::new(self.0.subscribe()).filter_map(move |notes| {
            let news = notes.document.filter(|document| document.revision > known);
            known = news.as_ref().map_or(known, |document| document.revision);
            std::future::ready(news.map(|document| Ok(config::WatchDocumentResponse { document: Some(document) })))
        });
        Ok(Response::new(documents.boxed()))
    }

    type WatchDocumentsStream = futures_util::stream::Pending<Result<config::WatchDocumentsResponse, Status>>;

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
        let acknowledgement = request.into_inner().acknowledgement.unwrap();
        self.0.send_modify(|notes| notes.acknowledgements.push(acknowledgement));
        Ok(Response::new(config::AcknowledgeDocumentResponse {}))
    }

    async fn put_document(
        &self,
        _: Request<config::PutDocumentRequest>,
    ) -> Result<Response<config::PutDocumentResponse>, Status> {
        not_here()
    }

    async fn list_documents(
        &self,
        _: Request<config::ListDocumentsRequest>,
    ) -> Result<Response<config::ListDocumentsResponse>, Status> {
        not_here()
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

    async fn list_acknowledgements(
        &self,
        _: Request<config::ListAcknowledgementsRequest>,
    ) -> Result<Response<config::ListAcknowledgementsResponse>, Status> {
        not_here()
    }
}
