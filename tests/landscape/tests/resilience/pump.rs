//! A service that behaves as the test wants: well, slow or faulty; and instances of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use ninefold::proto::ninefold::contract::v1 as words;
use ninefold::tonic::{Request, Response, Status, async_trait};
use ninefold::{App, Credentials, SdkSettings, telemetry};
use words::contract_service_server::{ContractService, ContractServiceServer};

/// How long a call takes where all is well.
pub(crate) const TAKES: Duration = Duration::from_millis(20);

/// The header of an answer that says who gave it.
pub(crate) const WHO: &str = "x-pump";

/// How an instance behaves.
pub(crate) const WELL: u8 = 0;
pub(crate) const SLOW: u8 = 1;
pub(crate) const FAULTY: u8 = 2;

/// An instance of the service "pump" in a runtime of its own, so that it can die at once with all its sockets.
pub(crate) struct Instance {
    pub(crate) id: String,
    manner: Arc<AtomicU8>,
    calls: Arc<AtomicU32>,
    runtime: Option<tokio::runtime::Runtime>,
    /// Ends with the last call.
    life: tokio::task::JoinHandle<Result<(), ninefold::Error>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Instance {
    pub(crate) fn start(platform: &str, id: &str) -> Result<Self> {
        Self::start_as(settings(platform, id)?)
    }

    /// Starts an instance that says of itself what its settings have.
    pub(crate) fn start_as(settings: SdkSettings) -> Result<Self> {
        let id = settings.instance_id.clone().context("an instance has an id")?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (manner, calls) = (Arc::new(AtomicU8::new(WELL)), Arc::new(AtomicU32::new(0)));
        let pump = Pump { id: id.clone(), manner: manner.clone(), calls: calls.clone() };
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let life = runtime.spawn(async move {
            App::with_settings("pump", Ok(settings))
                .contract(ninefold::proto::DESCRIPTOR_SET)
                .service(ContractServiceServer::new(pump))
                .run_until(async { drop(stopped.await) })
                .await
        });
        Ok(Self { id, manner, calls, runtime: Some(runtime), life, stop: Some(stop) })
    }

    /// Has it leave as a process does that is asked to, and waits for its end.
    pub(crate) async fn leave(mut self) -> Result<()> {
        drop(self.stop.take());
        Ok((&mut self.life).await??)
    }

    pub(crate) fn behave(&self, manner: u8) {
        self.manner.store(manner, Ordering::Relaxed);
    }

    pub(crate) fn calls(&self) -> u32 {
        self.calls.load(Ordering::Relaxed)
    }

    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn settings(platform: &str, id: &str) -> Result<SdkSettings> {
    let settings = SdkSettings::from_env()?;
    Ok(SdkSettings {
        endpoints: vec![format!("http://{platform}").parse()?],
        listen: "127.0.0.1:0".to_owned(),
        instance_id: Some(id.to_owned()),
        cache_dir: None,
        credentials: Credentials::default(),
        telemetry: telemetry::Config { filter: "error".to_owned(), ..telemetry::Config::default() },
        ..settings
    })
}

#[derive(Clone)]
struct Pump {
    id: String,
    manner: Arc<AtomicU8>,
    calls: Arc<AtomicU32>,
}

#[async_trait]
impl ContractService for Pump {
    async fn check_contract(
        &self,
        _: Request<words::CheckContractRequest>,
    ) -> Result<Response<words::CheckContractResponse>, Status> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        match self.manner.load(Ordering::Relaxed) {
            // Less than a call may take, so that each is answered in the end.
            SLOW => tokio::time::sleep(Duration::from_secs(3)).await,
            FAULTY => return Err(Status::unavailable("as the test wants")),
            _ => tokio::time::sleep(TAKES).await,
        }
        let mut answer = Response::new(words::CheckContractResponse { known: true });
        answer.metadata_mut().insert(WHO, self.id.parse().map_err(|_| Status::internal("the id is no header"))?);
        Ok(answer)
    }

    async fn put_contract(
        &self,
        _: Request<words::PutContractRequest>,
    ) -> Result<Response<words::PutContractResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn get_contract(
        &self,
        _: Request<words::GetContractRequest>,
    ) -> Result<Response<words::GetContractResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn list_contracts(
        &self,
        _: Request<words::ListContractsRequest>,
    ) -> Result<Response<words::ListContractsResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
}
