//! A platform node reduced to its control role: embedded store, and a registry that takes the files in a folder for the
//! instances that serve.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::stream::BoxStream;
use ninefold::Link;
use ninefold::lifecycle::Scope;
use ninefold_control::{Config, Control, Deps, Discard};
use ninefold_proto::ninefold::control::v1::control_service_client::ControlServiceClient;
use ninefold_proto::ninefold::control::v1::{
    Action, Decision, GetWorkloadRequest, ListDecisionsRequest, PutWorkloadRequest, ScaleWorkloadRequest, Slot,
    SlotState, Workload,
};
use ninefold_proto::ninefold::registry::v1::registry_service_server::{RegistryService, RegistryServiceServer};
use ninefold_proto::ninefold::registry::v1::{self as registry, watch_instances_response as watched};
use ninefold_store::Store;
use tonic::{Request, Response, Status, Streaming};

/// Waits for a condition. Panics after 20 s.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    for _ in 0..2000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("20 s were not enough until {what}");
}

/// Whether a process runs; one that ended and was not taken note of does not.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// A program that says that it serves and, asked to leave, says that it does not and goes.
pub(crate) const POLITE: &str = "trap 'rm -f $BOARD/$NINEFOLD_INSTANCE_ID; exit 0' TERM; \
                                 touch $BOARD/$NINEFOLD_INSTANCE_ID; while :; do sleep 0.05; done";

/// Where nodes, stores and programs meet.
pub(crate) struct House {
    pub(crate) folder: tempfile::TempDir,
    store_scope: Scope,
    pub(crate) store: Arc<dyn Store>,
}

impl House {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("board")).unwrap();
        let store_scope = Scope::root("store");
        let config = ninefold_store::Config { path: folder.path().join("store"), ..Default::default() };
        let store = ninefold_store::open(&config, &store_scope).await.unwrap();
        Self { folder, store_scope, store }
    }

    pub(crate) fn board(&self) -> PathBuf {
        self.folder.path().join("board")
    }

    pub(crate) async fn node(&self, name: &str) -> Node {
        self.node_with(name, Config::default()).await
    }

    pub(crate) async fn node_with(&self, name: &str, config: Config) -> Node {
        let scope = Scope::root("node");
        let registry = Board { folder: self.board(), is_deaf: Arc::default() };
        let is_deaf = registry.is_deaf.clone();
        let deps = Deps {
            store: self.store.clone(),
            registry: Link::from(tonic::service::Routes::new(RegistryServiceServer::new(registry))),
            node: name.to_owned(),
            environment: BTreeMap::from([("BOARD".to_owned(), self.board().display().to_string())]),
            passes: Arc::new(ninefold_control::NoPasses),
            runner: self.runner(),
            logs: Arc::new(Discard),
        };
        let control = Control::start(config, deps, &scope).await.unwrap();
        let mut routes = tonic::service::RoutesBuilder::default();
        control.add_to(&mut routes);
        Node { scope, client: ControlServiceClient::new(Link::from(routes.routes())), is_deaf }
    }

    /// Something that takes the arguments of `ninefold run`, notes them, and runs the program behind `--`.
    fn runner(&self) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.folder.path().join("runner");
        if !path.exists() {
            let text = "#!/bin/sh\necho \"$@\" > \"$BOARD/../runner.args\"\n\
                        while [ \"$1\" != -- ]; do shift; done; shift; exec \"$@\"\n";
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        path
    }

    pub(crate) async fn close(self) {
        self.store_scope.close(Duration::from_secs(5)).await;
    }
}

/// One node.
pub(crate) struct Node {
    pub(crate) scope: Scope,
    pub(crate) client: ControlServiceClient<Link>,
    /// Whether its registry is out of reach.
    pub(crate) is_deaf: Arc<AtomicBool>,
}

/// A workload that runs a shell script.
pub(crate) fn workload(instances: u32, script: &str) -> Workload {
    Workload {
        service: "pump".into(),
        instances,
        command: vec!["sh".into(), "-c".into(), script.into()],
        joins: true,
        ..Default::default()
    }
}

impl Node {
    pub(crate) async fn put(&self, workload: Workload) -> Workload {
        let request = PutWorkloadRequest { workload: Some(workload), expected_revision: None };
        self.client.clone().put_workload(request).await.unwrap().into_inner().workload.unwrap()
    }

    pub(crate) async fn scale(&self, instances: u32) {
        let request = ScaleWorkloadRequest { service: "pump".into(), instances };
        self.client.clone().scale_workload(request).await.unwrap();
    }

    pub(crate) async fn slots(&self) -> Vec<Slot> {
        let request = GetWorkloadRequest { service: "pump".into() };
        let answer = self.client.clone().get_workload(request).await.unwrap();
        answer.into_inner().status.unwrap().slots
    }

    /// Waits until exactly so many are there and all serve.
    pub(crate) async fn runs(&self, instances: usize) -> Vec<Slot> {
        let mut slots = Vec::new();
        until(&format!("{instances} run"), async || {
            slots = self.slots().await;
            slots.len() == instances && slots.iter().all(|slot| slot.state() == SlotState::Running)
        })
        .await;
        slots
    }

    /// All decisions, oldest first.
    pub(crate) async fn decisions(&self) -> Vec<Decision> {
        let request = ListDecisionsRequest { page_size: 1000, ..Default::default() };
        let mut decisions = self.client.clone().list_decisions(request).await.unwrap().into_inner().decisions;
        decisions.reverse();
        decisions
    }

    /// Reasons of all decisions of a kind, oldest first.
    pub(crate) async fn reasons(&self, action: Action) -> Vec<String> {
        let decisions = self.decisions().await.into_iter();
        decisions.filter(|decision| decision.action() == action).map(|decision| decision.reason).collect()
    }

    pub(crate) async fn close(self) {
        assert!(self.scope.close(Duration::from_secs(30)).await.is_empty());
    }
}

/// A registry that lists as serving what has a file in a folder.
#[derive(Clone)]
struct Board {
    folder: PathBuf,
    is_deaf: Arc<AtomicBool>,
}

fn names(folder: &Path) -> BTreeSet<String> {
    let files = std::fs::read_dir(folder).unwrap();
    files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl RegistryService for Board {
    type HoldSessionStream = BoxStream<'static, Result<registry::HoldSessionResponse, Status>>;
    type WatchInstancesStream = BoxStream<'static, Result<registry::WatchInstancesResponse, Status>>;
    type HoldWatchStream = futures_util::stream::Pending<Result<registry::HoldWatchResponse, Status>>;

    async fn watch_instances(&self, _: Request<registry::WatchInstancesRequest>) -> Answer<Self::WatchInstancesStream> {
        let start = (self.clone(), None);
        let stream = futures_util::stream::unfold(start, |(board, known)| async move {
            loop {
                if board.is_deaf.load(Ordering::SeqCst) {
                    return Some((Err(Status::unavailable("deaf")), (board, known)));
                }
                let found = names(&board.folder);
                if known.as_ref() != Some(&found) {
                    let instances = found.iter().map(|name| registry::Instance {
                        instance_id: name.clone(),
                        state: registry::InstanceState::Serving.into(),
                        start_time: Some(SystemTime::now().into()),
                        ..Default::default()
                    });
                    let message = watched::Message::Snapshot(registry::Snapshot {
                        instances: instances.collect(),
                        policies: Vec::new(),
                    });
                    let answer = registry::WatchInstancesResponse { message: Some(message), revision: 0 };
                    return Some((Ok(answer), (board, Some(found))));
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn hold_session(
        &self,
        _: Request<Streaming<registry::HoldSessionRequest>>,
    ) -> Answer<Self::HoldSessionStream> {
        Err(Status::unimplemented("not needed"))
    }

    async fn list_services(&self, _: Request<registry::ListServicesRequest>) -> Answer<registry::ListServicesResponse> {
        Err(Status::unimplemented("not needed"))
    }

    async fn list_instances(
        &self,
        _: Request<registry::ListInstancesRequest>,
    ) -> Answer<registry::ListInstancesResponse> {
        Err(Status::unimplemented("not needed"))
    }

    async fn get_instance(&self, _: Request<registry::GetInstanceRequest>) -> Answer<registry::GetInstanceResponse> {
        Err(Status::unimplemented("not needed"))
    }

    async fn hold_watch(
        &self,
        _: Request<Streaming<registry::HoldWatchRequest>>,
    ) -> Result<Response<Self::HoldWatchStream>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn list_watchers(
        &self,
        _: Request<registry::ListWatchersRequest>,
    ) -> Result<Response<registry::ListWatchersResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn check_policy(
        &self,
        _: Request<registry::CheckPolicyRequest>,
    ) -> Result<Response<registry::CheckPolicyResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn get_policy(
        &self,
        _: Request<registry::GetPolicyRequest>,
    ) -> Result<Response<registry::GetPolicyResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn list_events(&self, _: Request<registry::ListEventsRequest>) -> Answer<registry::ListEventsResponse> {
        Err(Status::unimplemented("not needed"))
    }

    async fn set_override(
        &self,
        _: Request<registry::SetOverrideRequest>,
    ) -> Result<Response<registry::SetOverrideResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn clear_override(
        &self,
        _: Request<registry::ClearOverrideRequest>,
    ) -> Result<Response<registry::ClearOverrideResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }
}
