//! What the program is told, and how this process ends.

use std::collections::BTreeSet;
use std::sync::Mutex;

use ninefold::Link;
use ninefold::lifecycle::OnError;
use ninefold::serve::{self, Listener, ServeConfig};
use ninefold_proto::ninefold::registry::v1::ListInstancesRequest;
use ninefold_registry::Registry;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use tonic::service::{Routes, RoutesBuilder};

use super::*;

fn args(name: &str) -> RunArgs {
    RunArgs {
        name: name.into(),
        instance_id: None,
        port: None,
        protocol: None,
        version: String::new(),
        labels: Vec::new(),
        health: None,
        health_interval: Duration::from_secs(5),
        weight: 100,
        grace: Duration::from_secs(10),
        wait: Duration::from_secs(60),
        command: vec!["true".into()],
    }
}

fn told(outer: impl Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let platform = Platform::at("http://127.0.0.1:9900,http://127.0.0.2:9900").unwrap();
    environment(&args("pump"), 4711, "pump-x", &platform, outer)
}

#[test]
fn a_program_is_told_where_it_is() {
    let told = told(|_| None);
    assert_eq!(told["PORT"], "4711");
    assert_eq!(told["NINEFOLD_INSTANCE_ID"], "pump-x");
    assert_eq!(told["NINEFOLD_ENDPOINT"], "http://127.0.0.1:9900,http://127.0.0.2:9900");
    assert_eq!(told["OTEL_SERVICE_NAME"], "pump");
    assert_eq!(told["OTEL_RESOURCE_ATTRIBUTES"], "service.instance.id=pump-x");
    assert_eq!(told["OTEL_EXPORTER_OTLP_ENDPOINT"], "http://127.0.0.1:9900");
    assert_eq!(told["OTEL_EXPORTER_OTLP_PROTOCOL"], "grpc");
}

#[test]
fn where_telemetry_goes_is_the_users_choice() {
    let told = told(|name| match name {
        "OTEL_EXPORTER_OTLP_ENDPOINT" => Some("http://collector:4318".into()),
        "OTEL_RESOURCE_ATTRIBUTES" => Some("team=pumps".into()),
        _ => None,
    });
    assert!(!told.contains_key("OTEL_EXPORTER_OTLP_ENDPOINT") && !told.contains_key("OTEL_EXPORTER_OTLP_PROTOCOL"));
    assert_eq!(told["OTEL_RESOURCE_ATTRIBUTES"], "service.instance.id=pump-x,team=pumps");
}

#[test]
fn this_process_ends_as_its_program_did() {
    let ended = |exit| Ended { exit, step: Step::ByItself, last_word: None };
    let code = |exit| outcome(&ended(exit)).map_err(|failure| failure.code());
    assert_eq!(code(Exit::Code(0)), Ok(()));
    assert_eq!(code(Exit::Code(3)), Err(3));
    assert_eq!(code(Exit::Signal(9)), Err(137));
}

#[test]
fn a_malformed_name_is_refused_with_the_rule() {
    assert!(service_name("pump-2").is_ok());
    assert!(service_name("Pump").unwrap_err().contains("lowercase"));
    assert!(label("team").is_err());
}

/// A platform that registers, and takes logs and measurements.
struct House {
    scope: Scope,
    platform: Platform,
    taken: Arc<Taken>,
    _folder: tempfile::TempDir,
}

#[derive(Default)]
struct Taken {
    lines: Mutex<Vec<LogRecord>>,
    metrics: Mutex<BTreeSet<String>>,
}

#[tonic::async_trait]
impl LogsService for Taken {
    async fn export(
        &self,
        request: tonic::Request<ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<ExportLogsServiceResponse>, tonic::Status> {
        let scopes = request.into_inner().resource_logs.into_iter().flat_map(|logs| logs.scope_logs);
        self.lines.lock().unwrap().extend(scopes.flat_map(|scope| scope.log_records));
        Ok(tonic::Response::new(ExportLogsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Taken {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
        let scopes = request.into_inner().resource_metrics.into_iter().flat_map(|metrics| metrics.scope_metrics);
        self.metrics.lock().unwrap().extend(scopes.flat_map(|scope| scope.metrics).map(|metric| metric.name));
        Ok(tonic::Response::new(ExportMetricsServiceResponse::default()))
    }
}

impl House {
    async fn new() -> Self {
        let (folder, scope) = (tempfile::tempdir().unwrap(), Scope::root("house"));
        let store = ninefold_store::Config { path: folder.path().join("store"), ..Default::default() };
        let store = ninefold_store::open(&store, &scope.child("store")).await.unwrap();
        let deps = ninefold_registry::Deps { store, contract: None, node: "a".into(), remembered: None };
        let registry = Registry::start(ninefold_registry::Config::default(), deps, &scope).await.unwrap();
        let taken = Arc::new(Taken::default());
        let mut routes = RoutesBuilder::default();
        registry.add_to(&mut routes);
        routes.add_service(LogsServiceServer::from_arc(taken.clone()));
        routes.add_service(MetricsServiceServer::from_arc(taken.clone()));
        let platform = Platform::here(Link::from(routes.routes()), "http://127.0.0.1:9900".into());
        Self { scope, platform, taken, _folder: folder }
    }

    async fn instances(&self) -> Vec<Instance> {
        let request = ListInstancesRequest { service: "pump".into(), ..Default::default() };
        self.platform.registry().list_instances(request).await.unwrap().into_inner().instances
    }

    fn said(&self, word: &str) -> Option<String> {
        let lines = self.taken.lines.lock().unwrap();
        let mut texts = lines.iter().filter_map(|line| match line.body.clone()?.value? {
            Value::StringValue(text) => Some(text),
            _ => None,
        });
        texts.rfind(|text| text.contains(word))
    }

    async fn close(self) {
        assert!(self.scope.close(Duration::from_secs(10)).await.is_empty());
    }
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    for _ in 0..2000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("20 s were not enough until {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_without_anything_of_ours_is_registered_heard_and_measured() {
    let house = House::new().await;
    let mut args = args("pump");
    let script = "echo pid $$; echo 'warning: dry' >&2; exec python3 -m http.server $PORT --bind 127.0.0.1";
    args.command = vec!["sh".into(), "-c".into(), script.into()];
    let platform = house.platform.clone();
    let (tell, outcome) = tokio::sync::oneshot::channel();
    house.scope.run("test.run", |_| async move {
        let _ = tell.send(run(args, &platform).await);
    });
    until("it is registered", async || house.instances().await.len() == 1).await;
    let instance = house.instances().await.remove(0);
    assert_eq!(instance.state(), InstanceState::Serving);
    assert_eq!(instance.protocol(), Protocol::Http);
    let address = &instance.addresses[0];
    let connected = tokio::net::TcpStream::connect((address.host.as_str(), u16::try_from(address.port).unwrap())).await;
    assert!(connected.is_ok(), "it listens where it is said to");
    until("its lines have arrived", async || house.said("dry").is_some() && house.said("pid").is_some()).await;
    until("it is measured", async || house.taken.metrics.lock().unwrap().len() == 2).await;
    let pid = house.said("pid").unwrap().strip_prefix("pid ").unwrap().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let failure = outcome.await.unwrap().unwrap_err();
    assert_eq!(failure.code(), 137, "{failure}");
    assert!(house.instances().await.is_empty(), "it is gone the moment that this process ends");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_does_not_listen_is_stopped_in_time() {
    let house = House::new().await;
    let mut args = args("pump");
    args.command = vec!["sleep".into(), "68".into()];
    args.wait = Duration::from_millis(200);
    let failure = run(args, &house.platform).await.unwrap_err();
    assert_eq!((failure.code(), failure.to_string()), (5, "pump did not listen in time".into()));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_ends_with_its_code_and_its_last_words_arrive() {
    let house = House::new().await;
    let mut args = args("pump");
    args.command = vec!["sh".into(), "-c".into(), "echo the end; exit 3".into()];
    assert_eq!(run(args, &house.platform).await.unwrap_err().code(), 3);
    assert_eq!(house.said("the end").as_deref(), Some("the end"));
    house.close().await;
}

/// Every file of a set, as it lies there.
fn files(set: &[u8]) -> BTreeSet<Vec<u8>> {
    let mut rest = set;
    let mut files = BTreeSet::new();
    while !rest.is_empty() {
        let (tag, _) = prost::encoding::decode_key(&mut rest).unwrap();
        assert_eq!(tag, 1);
        let length = usize::try_from(prost::encoding::decode_varint(&mut rest).unwrap()).unwrap();
        files.insert(rest[..length].to_vec());
        rest = &rest[length..];
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contract_is_read_byte_for_byte_from_reflection() {
    let scope = Scope::root("program");
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.address().port();
    let config = ServeConfig { descriptor_sets: vec![ninefold_proto::DESCRIPTOR_SET.into()], ..ServeConfig::default() };
    scope.spawn("test.serve", OnError::Log, |stop| async move {
        serve::run(listener, Routes::default(), config, async move { stop.asked().await }).await
    });
    let spoken = ready::wait(port, None, Duration::from_secs(10)).await.unwrap();
    assert_eq!(spoken.protocol, Protocol::Grpc);
    let contract = reflection::read(spoken.address).await.unwrap();
    assert!(contract.services.contains(&"ninefold.registry.v1.RegistryService".to_owned()), "{:?}", contract.services);
    assert!(contract.services.iter().all(|service| !service.starts_with("grpc.")));
    let (read, known) = (files(&contract.set), files(ninefold_proto::DESCRIPTOR_SET));
    assert!(read.len() > 10 && read.is_subset(&known), "options and source info are as they were");
    scope.close(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn older_reflection_is_understood_too() {
    let scope = Scope::root("program");
    let incoming = tonic::transport::server::TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = incoming.local_addr().unwrap().port();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(ninefold_proto::DESCRIPTOR_SET)
        .build_v1alpha()
        .unwrap();
    let server = tonic::transport::Server::builder().add_service(reflection).serve_with_incoming(incoming);
    scope.run("test.serve", |stop| async move {
        tokio::select! {
            _ = server => {}
            () = stop.asked() => {}
        }
    });
    let spoken = ready::wait(port, None, Duration::from_secs(10)).await.unwrap();
    let contract = reflection::read(spoken.address).await.unwrap();
    assert!(contract.services.contains(&"ninefold.control.v1.ControlService".to_owned()));
    scope.close(Duration::from_secs(5)).await;
}
