//! Nodes on a real etcd.

use std::time::Duration;

use ninefold::lifecycle::Scope;
use ninefold_registry::Config;
use tonic::Code;

use crate::cluster::{Etcd, compact, open, open_away};
use crate::house::{House, check, instance};

/// Settings for instances that nobody lets beat.
fn unhurried() -> Config {
    Config { beat_interval: Duration::from_secs(60), ..Config::default() }
}

/// Longest time for stores to close.
const CLOSE_MAX: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_agree_through_etcd_and_one_may_die() {
    let etcd = Etcd::start();
    let scope = Scope::root("stores");
    let config = Config { lease: Duration::from_secs(2), ..Config::default() };
    let first = House::on("node-1", open(&[&etcd.url], &scope).await, config.clone()).await;
    let second = House::on("node-2", open(&[&etcd.url], &scope).await, config).await;
    let mut watch = second.watch(&[]).await;
    let (stays, dies) = (first.join("pump", "p-1").await, first.join("pump", "p-2").await);
    let leaves = second.join("pump", "p-3").await;
    watch.until(&["p-1 SERVING", "p-2 SERVING", "p-3 SERVING"]).await;
    leaves.leave("done").await;
    first.until("pump", &["p-1 SERVING", "p-2 SERVING"]).await;

    first.stop().await;
    drop((stays, dies));
    let back = second.join("pump", "p-1").await;
    watch.until(&["p-1 SERVING"]).await;
    assert_eq!(second.story("pump").await.last().unwrap(), "p-2 EXPIRED its lease ran out");
    assert_eq!(watch.removed, 2, "p-1 was never away");
    back.leave("done").await;
    watch.until(&[]).await;
    second.stop().await;
    scope.close(CLOSE_MAX).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_restarts_while_etcd_is_away_tells_what_it_remembers_and_loses_nobody() {
    let mut etcd = Etcd::start();
    let scope = Scope::root("stores");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registry/known");
    let config = Config { lease: Duration::from_secs(4), ..unhurried() };
    let store = open(&[&etcd.url], &scope).await;
    let house = House::remembering("node-1", store, config.clone(), &file).await;
    let sessions = [house.join("pump", "p-1").await, house.join("pump", "p-2").await, house.join("pump", "dies").await];
    house.join("pump", "gone").await.leave("done").await;
    assert_eq!(house.stale().await, None);
    house.stop().await;
    drop(sessions);

    etcd.kill().await;
    let house = House::remembering("node-1", open_away(&[&etcd.url], &scope).await, config, &file).await;
    let all = ["dies SERVING", "p-1 SERVING", "p-2 SERVING"];
    assert_eq!(house.states("pump").await, all);
    let stale = house.stale().await.expect("it says that it may be wrong");
    assert!(stale.reason.starts_with("began with 3 entries that are remembered: the store"), "{stale:?}");
    assert!(stale.since.is_some() && stale.revision > 0, "{stale:?}");
    let mut watch = house.watch(&[]).await;
    watch.until(&all).await;
    let refused = house.register(instance("pump", "p-1")).await.map(drop).unwrap_err();
    check(&refused, Code::Unavailable, "STORE_UNAVAILABLE");

    etcd.start_again();
    let back = [come_back(&house, "p-1").await, come_back(&house, "p-2").await];
    watch.until(&["p-1 SERVING", "p-2 SERVING"]).await;
    assert_eq!(watch.removed, 1, "only the one whose lease ran out was taken away, and nobody else, ever");
    for _ in 0..600 {
        if house.stale().await.is_none() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(house.stale().await, None);
    drop(back);
    house.stop().await;
    scope.close(CLOSE_MAX).await;
}

/// Registers as an instance does that finds its node again: until it is taken.
async fn come_back(house: &House<std::sync::Arc<dyn ninefold_store::Store>>, id: &str) -> crate::house::Session {
    for _ in 0..600 {
        match house.register(instance("pump", id)).await {
            Ok(session) => return session,
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{id} does not come back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_that_is_compacted_while_nobody_looks_costs_no_change() {
    let mut etcd = Etcd::start();
    let scope = Scope::root("stores");
    let config = Config { lease: Duration::from_secs(30), ..unhurried() };
    let first = House::on("node-1", open(&[&etcd.url], &scope).await, config.clone()).await;
    let mut watch = first.watch(&[]).await;
    let stays = first.join("pump", "p-1").await;
    watch.until(&["p-1 SERVING"]).await;

    // Where the first node does not find it, the second changes much, and the history of that is thrown away.
    etcd.kill().await;
    let url = etcd.start_elsewhere();
    let second = House::on("node-2", open(&[&url], &scope).await, config).await;
    second.join("pump", "p-2").await.leave("done").await;
    let new = second.join("pump", "p-3").await;
    compact(&url).await;
    etcd.kill().await;
    assert_eq!(first.states("pump").await, ["p-1 SERVING"], "what is known stays known");

    etcd.start_again();
    watch.until(&["p-1 SERVING", "p-3 SERVING"]).await;
    assert_eq!(watch.removed, 0);
    stays.leave("done").await;
    watch.until(&["p-3 SERVING"]).await;
    drop(new);
    first.stop().await;
    second.stop().await;
    scope.close(CLOSE_MAX).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_three_may_lose_any_one() {
    let mut members = Etcd::cluster(3);
    let scope = Scope::root("stores");
    let config = Config { lease: Duration::from_secs(30), ..unhurried() };
    let urls: Vec<String> = members.iter().map(|member| member.url.clone()).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let first = House::on("node-1", open(&urls, &scope).await, config.clone()).await;
    let second = House::on("node-2", open(&urls[1..], &scope).await, config).await;
    let mut watch = second.watch(&[]).await;
    let mut sessions = vec![first.join("pump", "p-0").await];
    let mut wanted = vec!["p-0 SERVING".to_owned()];
    // One after the other, so that the leader is among them.
    for (number, member) in members.iter_mut().enumerate() {
        member.kill().await;
        let id = format!("p-{}", number + 1);
        sessions.push(come_back(&first, &id).await);
        wanted.push(format!("{id} SERVING"));
        let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        watch.until(&wanted).await;
        member.start_again();
    }
    assert_eq!(watch.removed, 0);
    assert_eq!(first.states("pump").await, wanted);
    drop(sessions);
    first.stop().await;
    second.stop().await;
    scope.close(CLOSE_MAX).await;
}
