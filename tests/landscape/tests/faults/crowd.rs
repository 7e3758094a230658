//! Crowds: a thousand instances that join at once, and sessions that are opened and dropped.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _};
use ninefold_proto::ninefold::registry::v1 as words;
use tests_landscape::{Landscape, resident_mib, until};
use words::hold_session_request::Message as Say;
use words::registry_service_client::RegistryServiceClient;

use crate::fleet::{Fleet, turn};
use crate::watcher::Watcher;

/// Generous: the machine may have much else to do.
const SOON: Duration = Duration::from_secs(300);
/// Instances that register at once: as many as a service may have.
const CROWD: usize = 1000;
/// How much a node may grow while they do, for each of them.
const INSTANCE_KIB_MAX: u64 = 192;
/// Sessions that a flood opens and drops, a round; and how many at once.
const FLOOD: usize = 1000;
const AT_ONCE: usize = 64;
/// How much a node may grow from the second round of a flood to the fourth.
const GROWN_MIB_MAX: u64 = 48;

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_sessions_leaves_nobody_behind_and_takes_no_memory() -> Result<()> {
    let _turn = turn().await;
    let house = doubting("0s").await?;
    let steady = Fleet::register(&house.endpoint(), "steady", 20).await?;
    let watcher = Watcher::start(&house.endpoint(), "steady")?;
    let flood = Watcher::start(&house.endpoint(), "flood")?;
    until("the steady are seen", SOON, || async { Ok(watcher.seen().serving() == 20) }).await?;
    let link = ninefold::connect::platform(&[house.endpoint().parse()?]);
    let mut resident = Vec::new();
    for round in 0..4 {
        let begin = Instant::now();
        futures_util::stream::iter(0..FLOOD)
            .map(|number| open_and_drop(link.clone(), format!("flood-{round}-{number}")))
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<()>>()
            .await?;
        until("nobody of the flood is left", SOON, || async { Ok(house.instances("flood").await?.is_empty()) }).await?;
        resident.push(resident_mib(house.pid())?);
        println!("{FLOOD} sessions opened and dropped in {:?}; the node has {resident:?} MiB", begin.elapsed());
    }
    until("a watcher sees none of them", SOON, || async { Ok(flood.seen().instances.is_empty()) }).await?;
    ensure!(resident[3] < resident[1] + GROWN_MIB_MAX, "the node grows with every flood: {resident:?} MiB");
    ensure!(steady.held() == 20 && watcher.seen().fell.is_empty(), "others are not touched by it");
    ensure!(flood.seen().diverged == 0 && watcher.seen().diverged == 0);
    steady.die().await;
    house.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_instances_that_register_at_once_are_all_seen_and_all_leave() -> Result<()> {
    let _turn = turn().await;
    let house = doubting("0s").await?;
    let steady = Fleet::register(&house.endpoint(), "steady", 1).await?;
    let watchers = [Watcher::start(&house.endpoint(), "crowd")?, Watcher::start(&house.endpoint(), "crowd")?];
    let beside = Watcher::start(&house.endpoint(), "steady")?;
    // A platform that has only just begun does not say that whom it does not name is gone.
    until("the platform is sure of what it sees", SOON, || async { Ok(beside.seen().fewest == Some(1)) }).await?;
    let (before, begin) = (resident_mib(house.pid())?, Instant::now());
    let crowd = Fleet::register(&house.endpoint(), "crowd", CROWD).await?;
    until("all are seen", SOON, || async { Ok(watchers.iter().all(|one| one.seen().serving() == CROWD)) }).await?;
    let grown = resident_mib(house.pid())?.saturating_sub(before);
    println!("{CROWD} instances joined and were seen in {:?}; the node grew by {grown} MiB", begin.elapsed());
    ensure!(grown * 1024 < INSTANCE_KIB_MAX * u64::try_from(CROWD)?, "{grown} MiB for {CROWD} instances");
    ensure!(house.instances("crowd").await?.len() == CROWD && crowd.held() == CROWD, "nobody is lost or made up");
    crowd.die().await;
    until("all have left", SOON, || async { Ok(watchers.iter().all(|one| one.seen().instances.is_empty())) }).await?;
    ensure!(watchers.iter().all(|one| one.seen().diverged == 0) && beside.seen().diverged == 0);
    ensure!(
        steady.held() == 1 && beside.seen().fell.is_empty() && beside.seen().fewest == Some(1),
        "others are untouched"
    );
    steady.die().await;
    house.stop().await
}

/// A platform that doubts silences for so long, and asks for beats rarely, so that a slow machine does not take a crowd for
/// dead. Many that fall silent at once are doubted for a minute unless set.
async fn doubting(window: &str) -> Result<Landscape> {
    Landscape::up_with(&format!(
        "[registry]
preservation_window = \"{window}\"
beat_interval = \"5s\"
"
    ))
    .await
}

/// Registers, waits for the answer, and hangs up.
async fn open_and_drop(link: ninefold::Link, id: String) -> Result<()> {
    let instance = words::Instance {
        service: "flood".to_owned(),
        instance_id: id,
        addresses: vec![words::Address { host: "127.0.0.1".to_owned(), port: 4711 }],
        state: words::InstanceState::Serving.into(),
        ..words::Instance::default()
    };
    let register = Say::Register(words::Register { instance: Some(instance) });
    let said = futures_util::stream::iter([words::HoldSessionRequest { message: Some(register) }]);
    let said = said.chain(futures_util::stream::pending());
    let mut answers = RegistryServiceClient::new(link).hold_session(said).await?.into_inner();
    match answers.message().await {
        Ok(answer) => ensure!(answer.is_some(), "a session ended without a word"),
        // A service that is full says so; that is a bound, and no loss.
        Err(status) => ensure!(status.code() == tonic::Code::ResourceExhausted, "{status:?}"),
    }
    Ok(())
}
