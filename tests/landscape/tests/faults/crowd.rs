//! Crowds: a thousand instances that come at once, sessions that are opened and dropped, a node that dies under them.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _};
use ninefold::connect::{Discovery, Interest};
use ninefold::lifecycle::Scope;
use ninefold_proto::ninefold::registry::v1 as words;
use tests_landscape::{Landscape, http, resident_mib, until};
use words::hold_session_request::Message as Say;
use words::registry_service_client::RegistryServiceClient;

use crate::fleet::{Fleet, turn};
use crate::watcher::Watcher;

const SOON: Duration = Duration::from_secs(120);
const CROWD: usize = 1000;
/// Sessions that a flood opens and drops, a round; and how many at once.
const FLOOD: usize = 1000;
const AT_ONCE: usize = 64;
/// How much a node may grow from the second round of a flood to the fourth.
const GROWN_MIB_MAX: u64 = 48;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_who_register_at_once_are_all_there_and_nobody_else() -> Result<()> {
    let _turn = turn().await;
    let house = doubting("5s").await?;
    let watchers = [(); 5].map(|()| Watcher::start(&house.endpoint(), "pump"));
    let watchers: Vec<Watcher> = watchers.into_iter().collect::<Result<_>>()?;
    let begin = Instant::now();
    let fleet = Fleet::register(&house.endpoint(), "pump", CROWD).await?;
    println!("{CROWD} registered in {:?}", begin.elapsed());
    for watcher in &watchers {
        until("a watcher sees all", SOON, || async { Ok(watcher.seen().serving() == CROWD) }).await?;
    }
    ensure!(house.serving("pump").await? == CROWD);
    // All at once they die: that is doubted for a while, then believed, and nothing of them is left.
    fleet.die().await;
    for watcher in &watchers {
        until("a watcher sees nobody", SOON, || async { Ok(watcher.seen().instances.is_empty()) }).await?;
        ensure!(watcher.seen().diverged == 0, "what watchers were told came to something else");
        println!("a watcher was told {} times", watcher.seen().messages);
    }
    ensure!(house.instances("pump").await?.is_empty());
    house.stop().await
}

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

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_under_a_thousand_instances_empties_nobodys_list() -> Result<()> {
    let _turn = turn().await;
    let mut house = doubting("60s").await?;
    let (endpoint, platform) = (house.endpoint(), house.address("platform"));
    let fleet = Fleet::register(&endpoint, "pump", CROWD).await?;
    let watcher = Watcher::start(&endpoint, "pump")?;
    let scope = Scope::root("caller");
    let link = ninefold::connect::platform(&[endpoint.parse()?]);
    let mut landscape = Discovery::start(link, Interest::All, &scope).landscape();
    let all = landscape.wait_for(|view| view.instances("pump").len() == CROWD);
    tokio::time::timeout(SOON, all).await??;
    until("the watcher sees all", SOON, || async { Ok(watcher.seen().serving() == CROWD) }).await?;

    let (fewest, told) = tokio::sync::watch::channel(CROWD);
    scope.run("caller.look", |stop| async move {
        while tokio::select! { () = stop.asked() => false, changed = landscape.changed() => changed.is_ok() } {
            let count = landscape.borrow_and_update().instances("pump").len();
            fewest.send_modify(|few| *few = count.min(*few));
        }
    });
    house = house.restart_where_it_was().await?;
    // Prometheus takes an empty list for the truth, and a refusal for a reason to wait.
    let listed = async || {
        let answer = http::request(&platform, "GET", "/sd/prometheus?service=pump", &[], None).await?;
        anyhow::Ok(
            (answer.status == 200).then(|| answer.json()).transpose()?.and_then(|list| Some(list.as_array()?.len())),
        )
    };
    let begin = Instant::now();
    until("all have a session again", SOON, || async {
        if let Some(count) = listed().await? {
            ensure!(count == CROWD, "http_sd names {count} of {CROWD}");
        }
        Ok(fleet.held() == CROWD && house.serving("pump").await? == CROWD)
    })
    .await?;
    println!("{CROWD} are back {:?} after the node", begin.elapsed());
    // Until the platform is sure again, which is after a lease, and a little longer.
    let end = tokio::time::Instant::now() + Duration::from_secs(12);
    until("a lease has passed", SOON, || async {
        ensure!(listed().await? == Some(CROWD), "http_sd lost some");
        Ok(tokio::time::Instant::now() > end)
    })
    .await?;
    let few = *told.borrow();
    ensure!(few == CROWD, "the SDK's list was down to {few}");
    {
        let seen = watcher.seen();
        ensure!(seen.fewest == Some(CROWD) && seen.serving() == CROWD && seen.diverged == 0, "{:?}", seen.fewest);
    }
    scope.close(Duration::ZERO).await;
    fleet.die().await;
    house.stop().await
}
