//! What an operator decides of one instance: its breakers, its share of calls, its leave; and what can be seen of it.

use anyhow::{Result, ensure};
use ninefold::proto::ninefold::registry::v1 as words;
use ninefold::tonic::transport::Endpoint;
use serde_json::Value;
use tests_landscape::{Landscape, ended, ninefold, until};
use words::registry_service_client::RegistryServiceClient;

use crate::policies::{SOON, Scene};
use crate::pump::FAULTY;

/// How often each pump is called by so many calls that all succeed.
async fn shares(scene: &Scene, calls: usize) -> Result<[u32; 2]> {
    let before = scene.pumps.each_ref().map(crate::pump::Instance::calls);
    ensure!(scene.calls(calls).await.iter().all(Result::is_ok), "all calls are answered");
    let after = scene.pumps.each_ref().map(crate::pump::Instance::calls);
    Ok([after[0] - before[0], after[1] - before[1]])
}

/// What a command prints for people.
async fn said(house: &Landscape, verb: &str, arguments: &[&str]) -> Result<String> {
    let mut command = ninefold(verb, arguments)?;
    command.args(["--endpoint", &house.endpoint()]);
    Ok(ended(command).await?.stdout)
}

/// How many of the pump's watchers have seen the newest of it, and how many there are.
async fn watchers(house: &Landscape) -> Result<(u64, u64)> {
    let view = house.ask(&["ps", "pump"]).await?;
    let pump = &view["services"][0];
    Ok((pump["watchersCurrent"].as_u64().unwrap_or_default(), pump["watchers"].as_u64().unwrap_or_default()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_opens_and_closes_the_breaker_of_an_instance() -> Result<()> {
    let scene = Scene::open().await?;
    let [one, two] = &scene.pumps;
    scene.house.ask(&["override", "one", "--breaker", "open", "--reason", "a bad build"]).await?;
    until("one is not called", SOON, || async {
        let before = (one.calls(), two.calls());
        let answers = scene.calls(20).await;
        Ok(answers.iter().all(Result::is_ok) && one.calls() == before.0 && two.calls() == before.1 + 20)
    })
    .await?;
    let story = scene.house.ask(&["describe", "one"]).await?.to_string();
    ensure!(story.contains("a bad build"), "the reason can be read: {story}");

    // Forced to be closed, not even an instance that fails is left alone.
    scene.house.ask(&["override", "one", "--breaker", "closed", "--reason", "we look at it"]).await?;
    scene.set(&["retry.attempts_max=1", "limits.throttling=false"]).await?;
    one.behave(FAULTY);
    until("one is called although it fails", SOON, || async {
        let before = one.calls();
        let answers = scene.calls(40).await;
        let failed = answers.iter().filter(|answer| answer.is_err()).count();
        Ok(failed >= 10 && one.calls() >= before + 10)
    })
    .await?;
    scene.house.ask(&["override", "one", "--clear"]).await?;
    until("its breaker opens by itself", SOON, || async {
        let before = one.calls();
        Ok(scene.calls(20).await.iter().all(Result::is_ok) && one.calls() == before)
    })
    .await?;
    scene.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_weight_that_an_operator_gives_is_the_share_of_calls() -> Result<()> {
    let scene = Scene::open().await?;
    scene.set(&["balancing.method=WEIGHTED_ROUND_ROBIN"]).await?;
    scene.house.ask(&["override", "one", "--weight", "0", "--reason", "a look at its disk"]).await?;
    until("an instance of weight 0 is not called", SOON, || async { Ok(shares(&scene, 20).await? == [0, 20]) }).await?;
    let view = scene.house.instances("pump").await?;
    let why = view.iter().find(|instance| instance["instanceId"] == "one").map(|one| &one["notPicked"]);
    ensure!(why == Some(&Value::from("an operator gave it weight 0")), "{view:?}");
    ensure!(said(&scene.house, "describe", &["one"]).await?.contains("an operator gave it weight 0"), "and to people");

    scene.house.ask(&["override", "one", "--weight", "25"]).await?;
    until("a weight of 25 beside the usual 100 is a fifth", SOON, || async {
        Ok(matches!(shares(&scene, 100).await?, [15..=25, 75..=85]))
    })
    .await?;
    scene.house.ask(&["override", "one", "--clear"]).await?;
    until("both have the same again", SOON, || async { Ok(matches!(shares(&scene, 100).await?, [45..=55, 45..=55])) })
        .await?;
    scene.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_drains_an_instance_and_sees_who_has_seen_it() -> Result<()> {
    let scene = Scene::open().await?;
    until("all watchers have seen the newest", SOON, || async {
        Ok(matches!(watchers(&scene.house).await?, (current, all) if all > 0 && current == all))
    })
    .await?;
    let (_, before) = watchers(&scene.house).await?;

    // One who reads what it is told, and never says that it has.
    let channel = Endpoint::from_shared(scene.house.endpoint())?.connect().await?;
    let (asks, asked) = tokio::sync::mpsc::channel(1);
    let open = words::OpenWatch {
        services: vec!["pump".to_owned()],
        watcher: "who-says-nothing".to_owned(),
        ..words::OpenWatch::default()
    };
    let open = words::hold_watch_request::Message::Open(open);
    asks.send(words::HoldWatchRequest { message: Some(open) }).await?;
    let asked = tokio_stream::wrappers::ReceiverStream::new(asked);
    let mut silent = RegistryServiceClient::new(channel).hold_watch(asked).await?.into_inner();
    let reads = async { while let Ok(Some(_)) = silent.message().await {} };
    let story = async {
        let of = before + 1;
        scene.house.ask(&["drain", "one", "--reason", "a new disk"]).await?;
        until("all but one have seen it", SOON, || async { Ok(watchers(&scene.house).await? == (before, of)) }).await?;
        ensure!(shares(&scene, 20).await? == [0, 20], "who has seen it calls the other");
        let text = said(&scene.house, "ps", &["pump"]).await?;
        ensure!(text.contains(&format!("pump: {before} of {of} watchers at revision ")), "{text}");
        let text = said(&scene.house, "describe", &["pump"]).await?;
        ensure!(text.contains(&format!("{before} of {of}")) && text.contains("a new disk"), "{text}");
        Ok(())
    };
    tokio::select! {
        () = reads => anyhow::bail!("the watch of who says nothing ended"),
        outcome = story => outcome?,
    }
    drop(asks);
    scene.house.ask(&["undrain", "one"]).await?;
    until("both are called again", SOON, || async { Ok(shares(&scene, 20).await?.iter().all(|calls| *calls > 0)) })
        .await?;
    scene.close().await
}
