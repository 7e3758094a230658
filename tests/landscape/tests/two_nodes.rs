//! Two nodes of the platform on one etcd.

use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use tests_landscape::load::Load;
use tests_landscape::tools::Etcd;
use tests_landscape::{Landscape, ninefold, signal, until};
use tokio::process::Child;

const SOON: Duration = Duration::from_secs(30);
const SHOP: [&str; 6] = ["product", "recommendation", "recommendation", "review", "review", "product-composite"];

/// Starts the shop as processes that nobody controls, told of both nodes.
fn shop(endpoints: &str, data: &Path, token: Option<&Path>) -> Result<Vec<Child>> {
    let start = |service: &&str| {
        let folder = data.join(service);
        std::fs::create_dir_all(&folder)?;
        let mut command = ninefold("demo-service", &[service])?;
        command.env("NINEFOLD_ENDPOINT", endpoints).env("NINEFOLD_DATA", folder);
        command.envs(token.map(|token| ("NINEFOLD_TOKEN_FILE", token)));
        Ok(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
    };
    SHOP.iter().map(start).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn when_one_of_two_nodes_is_killed_everything_keeps_working() -> Result<()> {
    let etcd = Etcd::start().await?;
    let arguments = ["--store", "etcd", "--etcd", &etcd.url];
    let first = Landscape::up(&arguments).await?;
    let second = Landscape::up(&arguments).await?;
    let data = tempfile::tempdir()?;
    let shop = shop(&format!("{},{}", first.endpoint(), second.endpoint()), data.path(), None)?;
    for house in [&first, &second] {
        until("both nodes know all instances", SOON, || async { Ok(house.serving("").await? == SHOP.len()) }).await?;
        until("both edges lead to the shop", SOON, || async { Ok(house.get("/v1/products/1").await?.status == 200) })
            .await?;
    }
    first.ask(&["config", "set", "review", "delay=1ms"]).await?;
    let seen = second.ask(&["config", "get", "review"]).await?;
    ensure!(seen["revision"] == "1", "what one node writes the other reads: {seen}");

    let load = Load::on(&second.address("edge"), "/v1/products/1");
    first.kill().await?;
    until("the load goes on", SOON, || async { Ok(load.tally().good.load(Ordering::Relaxed) > 100) }).await?;
    // The instances come over to the node that is left, and stay beyond the lease of the one that is gone.
    until("every instance has its session with the node that is left", SOON, || async {
        let instances = second.instances("").await?;
        let mut nodes: Vec<_> = instances.iter().map(|instance| instance["node"].to_string()).collect();
        nodes.sort();
        nodes.dedup();
        Ok(instances.len() == SHOP.len() && nodes.len() == 1)
    })
    .await?;
    second.ask(&["config", "set", "review", "delay=2ms"]).await?;
    until("a config change still arrives", SOON, || async {
        let acks = second.ask(&["config", "acks", "review"]).await?;
        let acks = acks.as_array().cloned().unwrap_or_default();
        Ok(acks.iter().filter(|ack| ack["revision"] == "2").count() == 2)
    })
    .await?;
    let (good, degraded, failed, words) = load.stop().await;
    println!("{good} good answers, {degraded} of them degraded, {failed} failed");
    ensure!(failed == 0, "{failed} requests failed: {words:?}");

    drop(shop);
    second.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn while_etcd_does_not_answer_the_shop_goes_on_and_a_write_says_why_it_cannot_be_done() -> Result<()> {
    let etcd = Etcd::start().await?;
    let house = Landscape::up(&["--store", "etcd", "--etcd", &etcd.url]).await?;
    let data = tempfile::tempdir()?;
    let shop = shop(&house.endpoint(), data.path(), None)?;
    until("all instances serve", SOON, || async { Ok(house.serving("").await? == SHOP.len()) }).await?;
    until("the edge leads to the shop", SOON, || async { Ok(house.get("/v1/products/1").await?.status == 200) })
        .await?;

    let load = Load::on(&house.address("edge"), "/v1/products/1");
    signal(etcd.pid(), Signal::STOP)?;
    let refused = house.run(&["config", "set", "review", "delay=1ms"]).await?;
    ensure!(refused.code == 5 && refused.stderr.contains("STORE_UNAVAILABLE"), "{refused:?}");
    ensure!(house.serving("").await? == SHOP.len(), "what is known stays known");
    signal(etcd.pid(), Signal::CONT)?;
    until("a write is taken again", SOON, || async {
        Ok(house.run(&["config", "set", "review", "delay=1ms"]).await?.code == 0)
    })
    .await?;
    until("all instances serve on", SOON, || async { Ok(house.serving("").await? == SHOP.len()) }).await?;
    let (good, degraded, failed, words) = load.stop().await;
    println!("{good} good answers, {degraded} of them degraded, {failed} failed");
    ensure!(good > 20 && failed == 0, "{failed} requests failed: {words:?}");

    drop(shop);
    house.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_while_etcd_is_away_knows_what_it_knew_and_says_how_old_that_is() -> Result<()> {
    let mut etcd = Etcd::start().await?;
    let url = etcd.url.clone();
    let arguments = ["--auth", "token", "--store", "etcd", "--etcd", &url];
    let house = Landscape::up(&arguments).await?;
    let data = tempfile::tempdir()?;
    let token = data.path().join("token");
    house
        .ask(&[
            "token",
            "create",
            "shop",
            "--write",
            &token.display().to_string(),
            "--role",
            "instance",
            "--service",
            "*",
        ])
        .await?;
    let shop = shop(&house.endpoint(), data.path(), Some(&token))?;
    until("all instances serve", SOON, || async { Ok(house.serving("").await? == SHOP.len()) }).await?;
    let known = Path::new(&house.data()).join("registry/known");
    until("the edge leads to the shop", SOON, || async { Ok(house.get("/v1/products/1").await?.status == 200) })
        .await?;
    until("they are remembered", SOON, || async {
        let kept = std::fs::read(&known).unwrap_or_default();
        let kept = String::from_utf8_lossy(&kept).into_owned();
        Ok(SHOP.iter().all(|service| kept.contains(&format!("default/{service}/"))))
    })
    .await?;

    etcd.kill().await?;
    let house = house.restart_where_it_was().await?;
    ensure!(house.said().contains("the store is away"), "{}", house.said());
    // The administrator's token and the contracts are known, too.
    let seen = house.ask(&["ps"]).await?;
    ensure!(seen["instances"].as_array().map(Vec::len) == Some(SHOP.len()), "{seen}");
    ensure!(seen["stale"]["reason"].as_str().is_some_and(|why| why.contains("remembered")), "{seen}");
    let told = house.run(&["ps"]).await?;
    ensure!(told.stderr.contains("the store is away since"), "{told:?}");
    until("the edge leads to the shop meanwhile", SOON, || async {
        Ok(house.get("/v1/products/1").await?.status == 200)
    })
    .await?;
    etcd.start_again().await?;
    until("the node follows the store again", SOON, || async { Ok(house.ask(&["ps"]).await?["stale"].is_null()) })
        .await?;
    until("all instances serve", SOON, || async { Ok(house.serving("").await? == SHOP.len()) }).await?;
    until("the edge leads to the shop", SOON, || async { Ok(house.get("/v1/products/1").await?.status == 200) })
        .await?;
    let load = Load::on(&house.address("edge"), "/v1/products/1");
    let begin = std::time::Instant::now();
    while begin.elapsed() < Duration::from_secs(12) {
        ensure!(house.instances("").await?.len() == SHOP.len(), "nobody is lost with the old lease");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let (good, degraded, failed, words) = load.stop().await;
    println!("{good} good answers, {degraded} of them degraded, {failed} failed");
    ensure!(good > 20 && failed == 0, "{failed} requests failed: {words:?}");

    drop(shop);
    house.stop().await
}
