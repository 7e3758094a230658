//! One instance turns slow, one turns faulty, one dies; the caller hardly notices, and the story can be read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use ninefold::proto::ninefold::contract::v1 as words;
use ninefold::{App, Channel};
use tests_landscape::{Landscape, until};
use words::contract_service_client::ContractServiceClient;

use crate::pump::{FAULTY, Instance, SLOW, WELL, settings};

const SOON: Duration = Duration::from_secs(30);
/// How soon a breaker is to open: within a second, with room for a machine that does other things, too.
const OPEN_MAX: Duration = Duration::from_secs(3);
/// How many times as late as the load itself a breaker may be, beyond that.
const LATE_FACTOR: u32 = 10;
/// Calls a second.
const RATE: u64 = 100;

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
