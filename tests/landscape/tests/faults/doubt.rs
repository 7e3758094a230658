//! Silences that are not believed: of too many at once, and of a platform that has only just begun.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests_landscape::{Landscape, ended, ninefold, until};

use crate::fleet::{Fleet, turn};
use crate::watcher::Watcher;

/// Generous: the machine may have much else to do.
const SOON: Duration = Duration::from_secs(120);
const FLEET: usize = 20;

/// What `ps` tells people.
async fn ps(house: &Landscape) -> Result<String> {
    let mut command = ninefold("ps", &["pump"])?;
    command.args(["--endpoint", &house.endpoint()]);
    Ok(ended(command).await?.stdout)
}

#[tokio::test(flavor = "multi_thread")]
async fn many_that_fall_silent_at_once_are_kept_for_a_time_and_that_can_be_seen() -> Result<()> {
    let _turn = turn().await;
    let house = Landscape::up_with("[registry]\npreservation_window = \"20s\"\nbeat_interval = \"5s\"\n").await?;
    let fleet = Fleet::register(&house.endpoint(), "pump", FLEET).await?;
    let watcher = Watcher::start(&house.endpoint(), "pump")?;
    until("all are seen", SOON, || async { Ok(watcher.seen().serving() == FLEET) }).await?;

    fleet.die().await;
    until("it is said that they are kept", SOON, || async {
        Ok(ps(&house).await?.contains(&format!("{FLEET} of {FLEET} instances fell silent at once; none is removed")))
    })
    .await?;
    let view = house.ask(&["ps", "pump"]).await?;
    ensure!(view["services"][0]["preservation"]["lost"] == FLEET, "{view}");
    let kept = house.instances("pump").await?;
    ensure!(kept.len() == FLEET, "{} of {FLEET} are there", kept.len());
    ensure!(
        kept.iter().all(|one| one["state"] == "INSTANCE_STATE_SUSPECT" && one["notPicked"].is_string()),
        "{kept:?}"
    );
    ensure!(watcher.seen().instances.len() == FLEET, "watchers keep them too");

    // Whoever comes back is itself again, and nothing is held back any more.
    let fleet = Fleet::register(&house.endpoint(), "pump", FLEET).await?;
    until("all serve again", SOON, || async { Ok(house.serving("pump").await? == FLEET) }).await?;
    until("nothing is said of it", SOON, || async { Ok(!ps(&house).await?.contains("fell silent")) }).await?;

    // Whoever does not come back is gone when the doubt is over, without anybody's doing.
    fleet.die().await;
    until("they are gone after all", SOON, || async { Ok(house.instances("pump").await?.is_empty()) }).await?;
    ensure!(!ps(&house).await?.contains("fell silent") && watcher.seen().diverged == 0);
    house.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_that_is_killed_and_comes_back_tells_nobody_that_all_are_gone() -> Result<()> {
    let _turn = turn().await;
    let house = Landscape::up_with("[registry]\nbeat_interval = \"5s\"\n").await?;
    let fleet = Fleet::register(&house.endpoint(), "pump", FLEET).await?;
    let watcher = Watcher::start(&house.endpoint(), "pump")?;
    until("the platform is sure of what it sees", SOON, || async { Ok(watcher.seen().fewest == Some(FLEET)) }).await?;
    let before = watcher.seen().messages;

    let house = house.restart_where_it_was().await?;
    until("all are there", SOON, || async { Ok(house.serving("pump").await? == FLEET) }).await?;
    fleet.settle().await?;
    until("the watcher was told anew", SOON, || async { Ok(watcher.seen().messages > before) }).await?;
    let one_more = Fleet::register(&house.endpoint(), "valve", 1).await?;
    let valve = Watcher::start(&house.endpoint(), "valve")?;
    until("the new platform is sure, too", SOON, || async { Ok(valve.seen().fewest == Some(1)) }).await?;
    let (fewest, serving, diverged) = {
        let seen = watcher.seen();
        (seen.fewest, seen.serving(), seen.diverged)
    };
    ensure!((fewest, serving, diverged) == (Some(FLEET), FLEET, 0), "{fewest:?} {serving} {diverged}");
    for fleet in [fleet, one_more] {
        fleet.die().await;
    }
    house.stop().await
}
