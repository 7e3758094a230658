//! A service small enough for a test. It borrows a contract of the platform's and answers it in its own way: the digest
//! that is asked for says what to do.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use ninefold::lifecycle::Scope;
use ninefold::proto::ninefold::contract::v1::contract_service_client::ContractServiceClient;
use ninefold::proto::ninefold::contract::v1::contract_service_server::{ContractService, ContractServiceServer};
use ninefold::proto::ninefold::contract::v1::{
    CheckContractRequest, CheckContractResponse, GetContractRequest, GetContractResponse, ListContractsRequest,
    ListContractsResponse, PutContractRequest, PutContractResponse,
};
use ninefold::tonic::body::Body;
use ninefold::tonic::{self, Request, Response, Status};
use ninefold::{App, Credentials, Link, SdkSettings, TlsFiles, telemetry};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// The name of the service that the greeter offers.
pub(crate) const GREETER: &str = "ninefold.contract.v1.ContractService";

/// Answers at once, unless it is asked for `slow`: then it answers when a permit is given.
#[derive(Clone)]
pub(crate) struct Greeter {
    pub(crate) begun: Arc<Semaphore>,
    pub(crate) permits: Arc<Semaphore>,
}

impl Greeter {
    pub(crate) fn new() -> Self {
        Self { begun: Arc::new(Semaphore::new(0)), permits: Arc::new(Semaphore::new(0)) }
    }

    pub(crate) fn server(&self) -> ContractServiceServer<Self> {
        ContractServiceServer::new(self.clone())
    }
}

#[tonic::async_trait]
impl ContractService for Greeter {
    async fn check_contract(
        &self,
        request: Request<CheckContractRequest>,
    ) -> Result<Response<CheckContractResponse>, Status> {
        if request.into_inner().digest == "slow" {
            self.begun.add_permits(1);
            self.permits.acquire().await.unwrap().forget();
        }
        Ok(Response::new(CheckContractResponse { known: true }))
    }

    async fn put_contract(&self, _: Request<PutContractRequest>) -> Result<Response<PutContractResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn get_contract(&self, _: Request<GetContractRequest>) -> Result<Response<GetContractResponse>, Status> {
        Err(Status::not_found("no such contract"))
    }

    async fn list_contracts(
        &self,
        _: Request<ListContractsRequest>,
    ) -> Result<Response<ListContractsResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
}

/// Settings of a service whose platform is at `endpoint`.
pub(crate) fn settings(endpoint: &str) -> SdkSettings {
    SdkSettings {
        endpoints: vec![endpoint.parse().unwrap()],
        listen: "127.0.0.1:0".to_owned(),
        advertise: None,
        instance_id: None,
        environment: "default".to_owned(),
        namespace: "default".to_owned(),
        region: String::new(),
        weight: 100,
        zone: "here".to_owned(),
        version: Some("1.2.3".to_owned()),
        cache_dir: None,
        cache_landscape: true,
        drain: Duration::from_secs(10),
        credentials: Credentials::default(),
        tls: TlsFiles::default(),
        telemetry: telemetry::Config { filter: "warn".to_owned(), ..telemetry::Config::default() },
    }
}

/// A greeter that is ready to run.
pub(crate) fn greeter(settings: SdkSettings, greeter: &Greeter) -> App {
    App::with_settings("greeter", Ok(settings)).contract(ninefold::proto::DESCRIPTOR_SET).service(greeter.server())
}

/// A client of the greeter at an address, without a timer of its own: tonic's channel would end a late call before the
/// server can.
pub(crate) async fn bare_client(host: &str, port: u32, scope: &Scope) -> ContractServiceClient<Link> {
    let stream = TcpStream::connect(format!("{host}:{port}")).await.unwrap();
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = handshake.await.unwrap();
    scope.run("test.connection", |_| async move { drop(connection.await) });
    let link = Link::new(tower::service_fn(move |request| {
        let mut sender = sender.clone();
        async move { Ok::<_, hyper::Error>(sender.send_request(request).await?.map(Body::new)) }
    }));
    ContractServiceClient::with_origin(link, format!("http://{host}:{port}").parse().unwrap())
}

/// Asks for something.
pub(crate) fn ask(digest: &str) -> CheckContractRequest {
    CheckContractRequest { digest: digest.to_owned(), service: String::new() }
}
