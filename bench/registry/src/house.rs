//! A node with a registry, behind a socket, and an instance's hold on it.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use ninefold::Link;
use ninefold::lifecycle::{OnError, Scope};
use ninefold::serve::{self, Listener, LiveAdmission, ServeConfig};
use ninefold_proto::ninefold::registry::v1 as words;
use ninefold_registry::{Config, Deps, Registry};
use ninefold_store::{Backend, Key, Op, Store, Txn};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::service::RoutesBuilder;
use words::hold_session_request::Message as Say;
use words::registry_service_client::RegistryServiceClient;

/// Instances that one transaction writes.
const WRITES: usize = 90;
/// Longest wait for etcd, and for what was written to be seen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node.
pub(crate) struct House {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) endpoint: http::Uri,
    link: Link,
    _scope: Scope,
    _folder: tempfile::TempDir,
    _etcd: Option<tokio::process::Child>,
}

impl House {
    /// On a store of its own.
    pub(crate) async fn embedded() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let config = ninefold_store::Config { path: folder.path().join("store"), ..Default::default() };
        Self::on(config, folder, None).await
    }

    /// On an etcd that is started for it; `None` where there is none on the path.
    pub(crate) async fn etcd() -> Result<Option<Self>> {
        let folder = tempfile::tempdir()?;
        let (client, peer) = (free_port()?, free_port()?);
        let mut command = tokio::process::Command::new("etcd");
        let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        command.arg("--data-dir").arg(folder.path().join("etcd"));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}"), "--log-level", "error"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let Ok(etcd) = command.spawn() else { return Ok(None) };
        let config = ninefold_store::Config { backend: Backend::Etcd, etcd: vec![client], ..Default::default() };
        // Opening waits for it, a few seconds at a time.
        let mut etcd = Some(etcd);
        for _ in 0..10 {
            let probe = Scope::root("probe");
            if ninefold_store::open(&config, &probe).await.is_ok() {
                return Self::on(config, folder, etcd.take()).await.map(Some);
            }
        }
        anyhow::bail!("etcd does not answer")
    }

    async fn on(
        config: ninefold_store::Config,
        folder: tempfile::TempDir,
        etcd: Option<tokio::process::Child>,
    ) -> Result<Self> {
        let scope = Scope::root("bench");
        let store = ninefold_store::open(&config, &scope).await?;
        let settings = Config { watchers_max: 20_000, lease: Duration::from_secs(60), ..Config::default() };
        let deps = Deps { store: store.clone(), contract: None, node: "bench".to_owned(), remembered: None };
        let registry = Registry::start(settings, deps, &scope).await?;
        let mut routes = RoutesBuilder::default();
        registry.add_to(&mut routes);
        let routes = routes.routes();
        let listener = Listener::bind("127.0.0.1:0").await?;
        let endpoint: http::Uri = format!("http://{}", listener.address()).parse()?;
        let serve_config = ServeConfig { admission: LiveAdmission::disabled(), ..ServeConfig::default() };
        scope.spawn("bench.serve", OnError::Shutdown, move |stop| {
            serve::run(listener, routes, serve_config, async move { stop.asked().await })
        });
        let link = ninefold::connect::platform(std::slice::from_ref(&endpoint));
        Ok(Self { store, endpoint, link, _scope: scope, _folder: folder, _etcd: etcd })
    }

    pub(crate) fn client(&self) -> RegistryServiceClient<Link> {
        RegistryServiceClient::new(self.link.clone())
    }

    /// Writes instances as another node would have.
    pub(crate) async fn fill(&self, services: usize, instances: usize) -> Result<()> {
        let all = (0..services).flat_map(|service| (0..instances).map(move |id| (service, id)));
        let puts: Vec<Op> = all
            .map(|(service, id)| {
                let instance = instance(&format!("service-{service}"), &format!("service-{service}-{id:03}"));
                let key = Key::new(format!("registry/instances/default/{}/{}", instance.service, instance.instance_id));
                Op::Put { key, value: instance.encode_to_vec().into(), lease: None }
            })
            .collect();
        for some in puts.chunks(WRITES) {
            self.store.txn(Txn { compares: Vec::new(), ops: some.to_vec() }).await?;
        }
        self.settle(services * instances).await
    }

    /// Waits until the node sees so many instances.
    pub(crate) async fn settle(&self, instances: usize) -> Result<()> {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let request = words::ListServicesRequest { page_size: 1000, ..Default::default() };
            let services = self.client().list_services(request).await?.into_inner().services;
            let seen: u32 = services.iter().map(|service| service.instances).sum();
            if usize::try_from(seen)? >= instances {
                return Ok(());
            }
            ensure!(tokio::time::Instant::now() < end, "{seen} of {instances} instances are seen");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn instance(service: &str, id: &str) -> words::Instance {
    words::Instance {
        service: service.to_owned(),
        instance_id: id.to_owned(),
        addresses: vec![words::Address { host: "10.20.30.40".to_owned(), port: 4711 }],
        version: "1.4.2".to_owned(),
        zone: "eu-1a".to_owned(),
        protobuf_services: vec!["shop.product.v1.ProductService".to_owned()],
        state: words::InstanceState::Serving.into(),
        change_time: Some(SystemTime::now().into()),
        weight: 100,
        node: "elsewhere".to_owned(),
        ..Default::default()
    }
}

/// An instance's hold.
pub(crate) struct Session {
    say: mpsc::Sender<words::HoldSessionRequest>,
    answers: Streaming<words::HoldSessionResponse>,
}

impl Session {
    /// Registers, and waits for the answer.
    pub(crate) async fn join(house: &House, service: &str, id: &str) -> Result<Self> {
        let (say, said) = mpsc::channel(2);
        let register = Say::Register(words::Register { instance: Some(instance(service, id)) });
        say.try_send(words::HoldSessionRequest { message: Some(register) })?;
        let mut answers = house.client().hold_session(ReceiverStream::new(said)).await?.into_inner();
        answers.message().await?.context("an answer comes")?;
        Ok(Self { say, answers })
    }

    /// Leaves, and waits until that is done.
    pub(crate) async fn leave(mut self) -> Result<()> {
        let message = Some(Say::Deregister(words::Deregister::default()));
        self.say.send(words::HoldSessionRequest { message }).await?;
        while self.answers.message().await?.is_some() {}
        Ok(())
    }
}
