//! gRPC libraries that follow the landscape by `xds:///`.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests_landscape::{Landscape, until};

use crate::backend::Backend;
use crate::client::{Client, Library};

const SOON: Duration = Duration::from_secs(30);
const LIBRARIES: [Library; 2] = [Library::Python, Library::Node];

/// Waits until calls are answered by these, and nobody else.
async fn answered_by(client: &mut Client, names: &[&str]) -> Result<()> {
    let end = tokio::time::Instant::now() + SOON;
    loop {
        let tally = client.calls(20 * u32::try_from(names.len())?).await?;
        let seen: Vec<&str> = tally.by.keys().map(String::as_str).collect();
        if seen == names && tally.bad() == 0 {
            return Ok(());
        }
        ensure!(tokio::time::Instant::now() < end, "not answered by {names:?}: {tally:?}\n{}", client.said());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_library_finds_balances_and_follows_whoever_comes_and_goes() -> Result<()> {
    for library in LIBRARIES {
        let house = Landscape::up(&[]).await?;
        let one = Backend::start(&house.endpoint(), "pump", "one", "").await?;
        let two = Backend::start(&house.endpoint(), "pump", "two", "").await?;
        let mut client = Client::xds(library, &house, "pump", "").await?;
        answered_by(&mut client, &["one", "two"]).await.with_context(|| format!("{library:?}"))?;

        let three = Backend::start(&house.endpoint(), "pump", "three", "").await?;
        answered_by(&mut client, &["one", "three", "two"]).await?;

        client.begin().await?;
        three.drain().await;
        two.leave().await;
        let tally = client.end().await?;
        ensure!(tally.bad() == 0, "draining and leaving cost no call: {tally:?}");
        answered_by(&mut client, &["one"]).await?;
        one.die().await;
        three.die().await;
        house.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_nobody_keeps_is_answered_fast_and_works_once_somebody_does() -> Result<()> {
    let house = settled().await?;
    for library in LIBRARIES {
        let service = format!("late-{library:?}").to_lowercase();
        let mut client = Client::xds(library, &house, &service, "").await?;
        let tally = client.calls(1).await?;
        ensure!(tally.failed.contains_key("UNAVAILABLE"), "{library:?}: {tally:?}\n{}", client.said());
        ensure!(tally.seconds < 10.0, "a client that is told nothing waits for 15 s: {tally:?}");
        let one = Backend::start(&house.endpoint(), &service, "one", "").await?;
        let end = tokio::time::Instant::now() + SOON;
        while client.calls(1).await?.good() == 0 {
            ensure!(tokio::time::Instant::now() < end, "{library:?} does not find who came late");
        }
        one.die().await;
    }
    house.stop().await
}

/// A platform that has been up long enough to say that something is not there.
async fn settled() -> Result<Landscape> {
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("ninefold.toml");
    std::fs::write(&config, "[dialect]\nsettle = \"0s\"\n")?;
    Landscape::up(&["--config", &config.display().to_string()]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_that_is_killed_and_comes_back_costs_no_call() -> Result<()> {
    let mut house = Landscape::up(&[]).await?;
    let mut backends = Vec::new();
    for name in ["one", "two"] {
        backends.push(Backend::start(&house.endpoint(), "pump", name, "").await?);
    }
    let mut clients = Vec::new();
    for library in LIBRARIES {
        let mut client = Client::xds(library, &house, "pump", "").await?;
        answered_by(&mut client, &["one", "two"]).await?;
        client.begin().await?;
        clients.push(client);
    }
    house = house.restart_where_it_was().await?;
    until("the instances are back", SOON, || async { Ok(house.serving("pump").await? == 2) }).await?;
    // Through the time in which nobody is told that something is gone, and the whole of what comes then.
    until("the clients are back", SOON, || async {
        let view = house.ask(&["xds"]).await?;
        let streams = view["streams"].as_array().cloned().unwrap_or_default();
        let taken = |stream: &serde_json::Value| {
            let all = stream["subscriptions"].as_array().cloned().unwrap_or_default();
            all.len() == 4 && all.iter().all(|one| one["acknowledgedVersion"].is_string())
        };
        Ok(streams.len() == 2 && streams.iter().all(taken))
    })
    .await?;
    let three = Backend::start(&house.endpoint(), "pump", "three", "").await?;
    for client in &mut clients {
        let tally = client.end().await?;
        ensure!(tally.bad() == 0 && tally.good() > 50, "{tally:?}\n{}", client.said());
        answered_by(client, &["one", "three", "two"]).await?;
    }
    three.die().await;
    house.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_fails_is_left_out_by_the_librarys_own_outlier_detection() -> Result<()> {
    let house = Landscape::up(&[]).await?;
    let mut backends = Vec::new();
    for name in ["one", "two", "three"] {
        backends.push(Backend::start(&house.endpoint(), "pump", name, "").await?);
    }
    for library in LIBRARIES {
        let mut client = Client::xds(library, &house, "pump", "").await?;
        answered_by(&mut client, &["one", "three", "two"]).await?;
        backends[1].fail(true);
        client.begin().await?;
        // The window is 10 s: at the end of the first that is full of failures, the instance is left out.
        until("no calls reach the instance that fails", Duration::from_secs(60), || async {
            let before = backends[1].calls();
            tokio::time::sleep(Duration::from_millis(700)).await;
            Ok(backends[1].calls() == before)
        })
        .await
        .with_context(|| format!("{library:?}"))?;
        let tally = client.end().await?;
        ensure!(tally.good() > 0, "the others were called meanwhile: {tally:?}");
        backends[1].fail(false);
    }
    house.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_prefers_its_own_zone_and_goes_elsewhere_when_that_is_down() -> Result<()> {
    let house = Landscape::up(&[]).await?;
    let near = Backend::start(&house.endpoint(), "pump", "near", "east").await?;
    let far = Backend::start(&house.endpoint(), "pump", "far", "west").await?;
    for library in LIBRARIES {
        let mut client = Client::xds(library, &house, "pump", "west").await?;
        answered_by(&mut client, &["far"]).await.with_context(|| format!("{library:?}"))?;
    }
    let mut client = Client::xds(Library::Python, &house, "pump", "east").await?;
    answered_by(&mut client, &["near"]).await?;
    near.leave().await;
    answered_by(&mut client, &["far"]).await?;
    far.die().await;
    house.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn more_calls_at_once_than_the_limit_are_refused_by_the_library() -> Result<()> {
    let house = Landscape::up(&[]).await?;
    let one = Backend::start(&house.endpoint(), "pump", "one", "").await?;
    for library in LIBRARIES {
        let mut client = Client::xds(library, &house, "pump", "").await?;
        answered_by(&mut client, &["one"]).await?;
        one.hold(true);
        let before = one.calls();
        let (tally, seen) = tokio::join!(client.flood(1100), async {
            let full = until("the limit of 1024 is reached", SOON, || async { Ok(one.calls() - before >= 1024) }).await;
            // What is over the limit is refused at once; what is held must be let go for the flood to end.
            tokio::time::sleep(Duration::from_secs(2)).await;
            let seen = one.calls() - before;
            one.hold(false);
            full.map(|()| seen)
        });
        let (tally, seen) = (tally?, seen.with_context(|| format!("{library:?}"))?);
        ensure!(seen == 1024 && tally.failed.get("UNAVAILABLE") == Some(&76), "{library:?}: {seen} {tally:?}");
    }
    house.stop().await
}
