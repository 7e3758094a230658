//! Things go wrong, or change, under load: the sample landscape's readers hardly notice.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tests_landscape::load::Load;
use tests_landscape::{Landscape, signal, until};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_instance_costs_no_reader_anything() -> Result<()> {
    let house = Landscape::demo(&["--no-traffic"]).await?;
    let load = Load::on(&house.address("edge"), "/v1/products/1");
    until("the load runs", SOON, || async { Ok(load.tally().good.load(std::sync::atomic::Ordering::Relaxed) > 20) })
        .await?;

    let before = house.instances("review").await?;
    let ids: Vec<String> =
        before.iter().filter_map(|instance| instance["instanceId"].as_str().map(ToOwned::to_owned)).collect();
    let victim = *house.pids("review").await?.first().context("review runs")?;
    signal(victim, Signal::KILL)?;
    let killed = Instant::now();
    until("the instance is gone from ps", SOON, || async {
        let now = house.instances("review").await?;
        Ok(ids.iter().any(|id| !now.iter().any(|instance| instance["instanceId"] == id.as_str())))
    })
    .await?;
    // A figure for whoever reads the output: the promise is a second, on a machine that is not busy.
    println!("gone from ps {:?} after kill -9", killed.elapsed());
    until("the control loop brings it back", SOON, || async { Ok(house.serving("review").await? == 2) }).await?;
    println!("two serve again {:?} after kill -9", killed.elapsed());

    let (good, degraded, failed, words) = load.stop().await;
    println!("{good} good answers, {degraded} of them degraded, {failed} failed");
    ensure!(failed == 0, "{failed} requests failed: {words:?}");
    let story = house.ask(&["why", "review"]).await?.to_string();
    for part in ["suspect", "expired", "observe exit", "signal 9", "start", "registered", "serving"] {
        ensure!(story.contains(part), "the story tells of {part:?}: {story}");
    }
    house.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn scaling_up_and_down_fails_no_call() -> Result<()> {
    let house = Landscape::demo(&["--no-traffic"]).await?;
    let load = Load::on(&house.address("edge"), "/v1/products/1");
    house.ask(&["scale", "review", "3"]).await?;
    ensure!(house.serving("review").await? == 3);
    house.ask(&["scale", "review", "1"]).await?;
    until("one is left", SOON, || async { Ok(house.instances("review").await?.len() == 1) }).await?;
    let (good, degraded, failed, words) = load.stop().await;
    ensure!(good > 20 && failed == 0 && degraded == 0, "{good} good, {degraded} degraded, {failed} failed: {words:?}");
    house.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_reviews_cost_the_reviews_and_not_the_product() -> Result<()> {
    let house = Landscape::demo(&["--no-traffic"]).await?;
    house.ask(&["config", "set", "review", "delay=5s"]).await?;
    until("the product comes without reviews", SOON, || async {
        let answer = house.get("/v1/products/1").await?;
        ensure!(answer.status == 200, "{}", answer.text());
        Ok(answer.json()?["degraded"].to_string().contains("reviews"))
    })
    .await?;
    until("a breaker opens, and it is told", SOON, || async {
        house.get("/v1/products/1").await?;
        Ok(house.ask(&["why", "review"]).await?.to_string().contains("breaker opened"))
    })
    .await?;

    house.ask(&["config", "rollback", "review"]).await.err().context("there is nothing before the first revision")?;
    house.ask(&["config", "set", "review", "delay="]).await?;
    until("reviews are back", SOON, || async {
        let body = house.get("/v1/products/1").await?.json()?;
        Ok(body["degraded"].as_array().is_none_or(Vec::is_empty) && body["product"]["reviews"].is_array())
    })
    .await?;
    house.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_change_and_a_rollback_reach_a_running_service() -> Result<()> {
    let house = Landscape::demo(&["--no-traffic"]).await?;
    let runs_with = async |revision: &str| {
        until("both instances run with the revision", Duration::from_secs(5), || async {
            let acks = house.ask(&["config", "acks", "review"]).await?;
            let acks = acks.as_array().cloned().unwrap_or_default();
            let fitting = acks.iter().filter(|ack| ack["revision"] == revision);
            Ok(fitting.filter(|ack| ack["refusal"].as_str().is_none_or(str::is_empty)).count() == 2)
        })
        .await
    };
    house.ask(&["config", "set", "review", "delay=10ms"]).await?;
    runs_with("1").await?;
    house.ask(&["config", "set", "review", "delay=20ms", "--reason", "slower"]).await?;
    runs_with("2").await?;
    house.ask(&["config", "rollback", "review"]).await?;
    runs_with("3").await?;
    let document = house.ask(&["config", "get", "review"]).await?;
    ensure!(
        document["rollbackOf"] == "1" && document["content"].as_str().is_some_and(|text| text.contains("10ms")),
        "{document}"
    );
    let history = house.ask(&["config", "history", "review"]).await?;
    ensure!(history.as_array().is_some_and(|revisions| revisions.len() == 3), "{history}");
    let diff = house.ask(&["config", "diff", "review", "1", "2"]).await?;
    ensure!(diff["changes"][0]["path"] == "/delay", "{diff}");
    let lost = house.run(&["config", "set", "review", "delay=1s", "--expect", "1"]).await?;
    ensure!(lost.code == 1 && lost.stderr.contains("REVISION_CONFLICT"), "{lost:?}");

    house.ask(&["config", "set", "review", "colour=blue"]).await?;
    until("a document that does not fit is refused, and the last good one stays", SOON, || async {
        let acks = house.ask(&["config", "acks", "review"]).await?;
        Ok(acks.to_string().contains("colour"))
    })
    .await?;
    ensure!(house.get("/v1/products/1").await?.status == 200);
    house.stop().await
}
