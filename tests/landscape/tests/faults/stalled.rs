//! Watchers that stop reading: the node keeps nothing for them, and others go on.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::StreamExt as _;
use ninefold_proto::ninefold::registry::v1 as words;
use rustix::process::Signal;
use tests_landscape::{Landscape, http, resident_mib, signal, until};
use tokio::process::{Child, Command};
use words::InstanceState::{Draining, Serving};
use words::registry_service_client::RegistryServiceClient;

use crate::fleet::{Fleet, turn};
use crate::watcher::Watcher;

const SOON: Duration = Duration::from_secs(60);
const INSTANCES: usize = 300;
const STALLED: usize = 100;
const STOPPED: usize = 10;
/// Changes a round.
const CHANGES: usize = 600;
/// How much a node may grow from one round of changes to the next but one.
const GROWN_MIB_MAX: u64 = 32;

/// A `curl` that follows everything, to be stopped: its socket fills up.
fn curl(house: &Landscape) -> Result<Child> {
    let url = format!("{}/v1/instances:watch", house.endpoint());
    Ok(Command::new("curl").args(["-sN", &url]).stdout(Stdio::null()).kill_on_drop(true).spawn()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_stops_reading_costs_no_memory_and_nobodys_news() -> Result<()> {
    let _turn = turn().await;
    let house = Landscape::up(&[]).await?;
    let fleet = Fleet::register(&house.endpoint(), "pump", INSTANCES).await?;
    let reads = Watcher::start(&house.endpoint(), "pump")?;
    until("the one who reads sees all", SOON, || async { Ok(reads.seen().serving() == INSTANCES) }).await?;
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        let link = ninefold::connect::platform(&[house.endpoint().parse()?]);
        let watch = RegistryServiceClient::new(link).watch_instances(words::WatchInstancesRequest::default()).await?;
        // Held, and never read.
        stalled.push(watch.into_inner());
    }
    let stopped: Vec<Child> = (0..STOPPED).map(|_| curl(&house)).collect::<Result<_>>()?;
    until("all watch", SOON, || async {
        let answer = http::request(&house.address("platform"), "GET", "/v1/watchers?page_size=1000", &[], None).await?;
        let watchers = answer.json()?["watchers"].as_array().map_or(0, Vec::len);
        Ok(watchers > STALLED + STOPPED)
    })
    .await?;
    for child in &stopped {
        signal(child.id().context("curl runs")?, Signal::STOP)?;
    }

    let mut resident = Vec::new();
    for round in 0..4 {
        let state = if round % 2 == 0 { Draining } else { Serving };
        for change in 0..CHANGES / INSTANCES {
            let state = if change % 2 == 0 { state } else { Serving };
            let changes = futures_util::stream::iter(0..INSTANCES).map(|number| fleet.set_state(number, state));
            let written: Vec<bool> = changes.buffer_unordered(16).collect().await;
            ensure!(written.iter().all(|written| *written), "every change is written");
        }
        resident.push(resident_mib(house.pid())?);
    }
    println!("with {STALLED} watchers that do not read and {STOPPED} that are stopped: {resident:?} MiB");
    ensure!(resident[3] < resident[1] + GROWN_MIB_MAX, "the node keeps what nobody reads: {resident:?} MiB");
    until("the one who reads has all the news", SOON, || async { Ok(reads.seen().serving() == INSTANCES) }).await?;
    ensure!(reads.seen().diverged == 0 && reads.seen().instances.len() == INSTANCES);

    // Who reads again is told the present, not the past.
    for child in &stopped {
        signal(child.id().context("curl runs")?, Signal::CONT)?;
    }
    let mut late = stalled.pop().context("there is one")?;
    let last = reads.seen().instances.values().map(|(revision, _)| *revision).max().context("there are some")?;
    let told = async {
        let mut messages = 0_usize;
        while let Some(message) = late.message().await? {
            messages += 1;
            if message.revision >= last {
                return anyhow::Ok(messages);
            }
        }
        anyhow::bail!("the stream ended")
    };
    let messages = tokio::time::timeout(SOON, told).await.context("who reads again gets to the present")??;
    println!(
        "who reads again is at the present after {messages} messages, of {} that others got",
        reads.seen().messages
    );
    drop(stalled);
    fleet.die().await;
    house.stop().await
}
