//! One instance turns slow, one turns faulty, one dies; the caller hardly notices, and the story can be read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use ninefold::proto::ninefold::contract::v1 as words;
use ninefold::tonic::{Request, Response, Status, async_trait};
use ninefold::{App, Channel, Credentials, SdkSettings, telemetry};
use tests_landscape::{Landscape, until};
use words::contract_service_client::ContractServiceClient;
use words::contract_service_server::{ContractService, ContractServiceServer};

const SOON: Duration = Duration::from_secs(30);
/// How soon a breaker is to open: within a second, with room for a machine that does other things, too.
const OPEN_MAX: Duration = Duration::from_secs(3);
/// How many times as late as the load itself a breaker may be, beyond that.
const LATE_FACTOR: u32 = 10;
/// Calls a second.
const RATE: u64 = 100;

/// How an instance behaves.
const WELL: u8 = 0;
const SLOW: u8 = 1;
const FAULTY: u8 = 2;

/// An instance of the service "pump" in a runtime of its own, so that it can die at once with all its sockets.
struct Instance {
    id: String,
    manner: Arc<AtomicU8>,
    calls: Arc<AtomicU32>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Instance {
    fn start(platform: &str, id: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (manner, calls) = (Arc::new(AtomicU8::new(WELL)), Arc::new(AtomicU32::new(0)));
        let pump = Pump { manner: manner.clone(), calls: calls.clone() };
        let settings = settings(platform, id)?;
        runtime.spawn(async move {
            App::with_settings("pump", Ok(settings))
                .contract(ninefold::proto::DESCRIPTOR_SET)
                .service(ContractServiceServer::new(pump))
                .run_until(std::future::pending())
                .await
        });
        Ok(Self { id: id.to_owned(), manner, calls, runtime: Some(runtime) })
    }

    fn behave(&self, manner: u8) {
        self.manner.store(manner, Ordering::Relaxed);
    }

    fn calls(&self) -> u32 {
        self.calls.load(Ordering::Relaxed)
    }

    fn kill(&mut self) {
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

fn settings(platform: &str, id: &str) -> Result<SdkSettings> {
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
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
        Ok(Response::new(words::CheckContractResponse { known: true }))
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

/// What became of the calls.
#[derive(Default)]
struct Tally {
    good: AtomicU32,
    failed: AtomicU32,
    /// The latest that a call was made after its turn, in milliseconds: what the machine is busy with besides.
    late: AtomicU32,
    words: std::sync::Mutex<Vec<String>>,
}

/// Calls at a steady rate, each on its own, until the handle is aborted: a slow answer does not slow the calls.
fn load(client: ContractServiceClient<Channel>, tally: Arc<Tally>) -> tokio::task::JoinHandle<()> {
    #[expect(clippy::disallowed_methods, reason = "the test owns the load and ends it")]
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_micros(1_000_000 / RATE));
        let mut calls = tokio::task::JoinSet::new();
        loop {
            let late = tick.tick().await.elapsed().as_millis();
            tally.late.fetch_max(u32::try_from(late).unwrap_or(u32::MAX), Ordering::Relaxed);
            while calls.try_join_next().is_some() {}
            let (mut client, tally) = (client.clone(), tally.clone());
            calls.spawn(async move {
                match client.check_contract(words::CheckContractRequest::default()).await {
                    Ok(_) => drop(tally.good.fetch_add(1, Ordering::Relaxed)),
                    Err(status) => {
                        tally.failed.fetch_add(1, Ordering::Relaxed);
                        let mut words = tally.words.lock().expect("nobody panics with it");
                        if words.len() < 5 {
                            words.push(format!("{:?}: {}", status.code(), status.message()));
                        }
                    }
                }
            });
        }
    })
}

/// How long after `since` the story of an instance, as `ninefold why` tells it, first says so, and the reason it gives.
async fn told(house: &Landscape, id: &str, what: &str, since: SystemTime) -> Result<(Duration, String)> {
    let told = std::cell::RefCell::new(None);
    until(&format!("{what} of {id} is told"), SOON, || async {
        let story = house.ask(&["why", id]).await.unwrap_or_default();
        let found = story.as_array().into_iter().flatten().filter(|entry| entry["what"] == what).find_map(|entry| {
            let time: prost_types::Timestamp = entry["time"].as_str()?.parse().ok()?;
            let after = SystemTime::try_from(time).ok()?.duration_since(since).ok()?;
            Some((after, entry["reason"].as_str().unwrap_or_default().to_owned()))
        });
        let is_told = found.is_some();
        told.replace(found);
        Ok(is_told)
    })
    .await?;
    told.into_inner().context("it was told")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_a_faulty_and_a_dead_instance_cost_the_caller_hardly_anything() -> Result<()> {
    let house = Landscape::up(&[]).await?;
    let platform = house.address("platform");
    let mut pumps = Vec::new();
    for id in ["well", "slow", "faulty", "dead"] {
        pumps.push(Instance::start(&platform, id)?);
    }
    let caller = App::with_settings("caller", Ok(settings(&platform, "caller-1")?));
    // With no configuration at all.
    let channel = caller.channel("pump");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    #[expect(clippy::disallowed_methods, reason = "the test owns the caller and stops it")]
    let calling = tokio::spawn(caller.run_until(async { drop(stopped.await) }));
    let tally = Arc::new(Tally::default());
    let load = load(ContractServiceClient::new(channel), tally.clone());
    let is_shared = || pumps.iter().all(|pump| pump.calls() > 50);
    until("all are called", SOON, || async { Ok(is_shared()) }).await?;
    // Only now it counts: the first calls may have waited for the first instance.
    let (good, failed) = (tally.good.load(Ordering::Relaxed), tally.failed.load(Ordering::Relaxed));

    let turned = SystemTime::now();
    pumps[1].behave(SLOW);
    pumps[2].behave(FAULTY);
    for id in ["faulty", "slow"] {
        let (after, reason) = told(&house, id, "breaker opened", turned).await?;
        let late = Duration::from_millis(tally.late.load(Ordering::Relaxed).into());
        println!("{id}: its breaker opened after {after:?}, calls being up to {late:?} late: {reason}");
        // On a busy machine a slow instance may first be told to have too much to do; it is left alone all the same.
        ensure!(after < OPEN_MAX + late * LATE_FACTOR, "{id} opened after {after:?}");
    }
    pumps[3].kill();
    until("the dead one is gone", SOON, || async {
        Ok(!house.instances("pump").await?.iter().any(|instance| instance["instanceId"] == "dead"))
    })
    .await?;
    let recovered = SystemTime::now();
    for pump in &pumps[1..3] {
        pump.behave(WELL);
    }
    for id in ["faulty", "slow"] {
        let (after, reason) = told(&house, id, "breaker closed", recovered).await?;
        println!("{id}: its breaker closed {after:?} after it was well again: {reason}");
    }
    let before: Vec<u32> = pumps.iter().map(Instance::calls).collect();
    until("both have calls again", SOON, || async {
        Ok(pumps[..3].iter().zip(&before).all(|(pump, before)| pump.calls() > before + 20))
    })
    .await?;

    load.abort();
    let good = tally.good.load(Ordering::Relaxed) - good;
    let failed = tally.failed.load(Ordering::Relaxed) - failed;
    let words = tally.words.lock().expect("nobody panics with it").clone();
    println!("{good} calls were answered, {failed} failed: {words:?}");
    ensure!(good > 500 && failed * 1000 < good, "{failed} of {good} calls failed: {words:?}");
    stop.send(()).ok().context("the caller runs")?;
    calling.await??;
    for pump in &mut pumps {
        println!("{}: {} calls", pump.id, pump.calls());
        pump.kill();
    }
    house.stop().await
}
