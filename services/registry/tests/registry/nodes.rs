//! Several nodes on one store, nodes that restart, and a store that goes away.

use std::time::Duration;

use ninefold_proto::ninefold::registry::v1 as proto;
use ninefold_registry::Config;
use proto::InstanceState;
use proto::hold_session_request::Message as Say;
use tonic::Code;

use crate::house::{House, check, instance};
use crate::memory::Memory;

async fn two_nodes() -> (House, House) {
    let store = Memory::new();
    let first = House::node("node-1", store.clone(), Config::default()).await;
    let second = House::node("node-2", store, Config::default()).await;
    (first, second)
}

#[tokio::test(start_paused = true)]
async fn every_node_tells_the_same_story() {
    let (first, second) = two_nodes().await;
    let mut watch = second.watch(&[]).await;
    let mut pump = first.join("pump", "p-1").await;
    watch.until(&["p-1 SERVING"]).await;
    pump.set(InstanceState::Draining, "stopping").await;
    watch.until(&["p-1 DRAINING"]).await;
    pump.leave("stopped").await;
    watch.until(&[]).await;
    let story = second.story("pump").await;
    assert_eq!(story.last().unwrap(), "p-1 DEREGISTERED stopped");
    // Who had seen it drain is known to the node that asked alone.
    let mut told = first.story("pump").await;
    told.retain(|line| !line.contains("DRAIN_SEEN"));
    assert_eq!(story, told);
}

#[tokio::test(start_paused = true)]
async fn an_instance_whose_node_died_joins_another_at_once_and_is_never_away() {
    let (first, second) = two_nodes().await;
    let mut pump = first.join("pump", "p-1").await;
    let mut watch = second.watch(&[]).await;
    watch.until(&["p-1 SERVING"]).await;
    first.stop().await;
    check(&pump.refused().await, Code::Unavailable, "NODE_STOPPING");
    assert_eq!(second.states("pump").await, ["p-1 SERVING"], "the lease covers the while");
    let pump = second.join("pump", "p-1").await;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        pump.beat().await;
    }
    assert_eq!(second.states("pump").await, ["p-1 SERVING"], "it outlives the lease of the dead node");
    watch.until(&["p-1 SERVING"]).await;
    assert_eq!(watch.removed, 0);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_died_with_its_node_goes_with_the_lease() {
    let (first, second) = two_nodes().await;
    let _pump = first.join("pump", "p-1").await;
    first.stop().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(second.states("pump").await, ["p-1 SERVING"]);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(second.states("pump").await, [] as [&str; 0]);
    assert_eq!(second.story("pump").await.last().unwrap(), "p-1 EXPIRED its lease ran out");
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_moved_is_not_disturbed_by_its_old_session() {
    let (first, second) = two_nodes().await;
    let mut old = first.join("pump", "p-1").await;
    let new = second.join("pump", "p-1").await;
    check(&old.refused().await, Code::AlreadyExists, "INSTANCE_TAKEN");
    drop(old);
    tokio::time::sleep(Duration::from_secs(3)).await;
    new.beat().await;
    let listed = first.instances("pump").await;
    assert_eq!((listed[0].state(), listed[0].node.as_str()), (InstanceState::Serving, "node-2"));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_restarts_knows_its_instances_and_takes_them_back() {
    let store = Memory::new();
    let before = House::node("node-1", store.clone(), Config::default()).await;
    let _sessions = (before.join("pump", "p-1").await, before.join("pump", "p-2").await);
    before.stop().await;
    let after = House::node("node-1", store, Config::default()).await;
    assert_eq!(after.states("pump").await, ["p-1 SERVING", "p-2 SERVING"]);
    let back = after.join("pump", "p-1").await;
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        back.beat().await;
    }
    assert_eq!(after.states("pump").await, ["p-1 SERVING"], "the other one did not come back");
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_away_the_last_known_state_is_told_and_changes_wait() {
    let house = House::start().await;
    let mut pump = house.join("pump", "p-1").await;
    let valve = house.join("valve", "v-1").await;
    let mut watch = house.watch(&[]).await;
    watch.until(&["p-1 SERVING", "v-1 SERVING"]).await;
    house.store.set_away(true);
    let refused = house.register(instance("pump", "p-2")).await.err().unwrap();
    check(&refused, Code::Unavailable, "STORE_UNAVAILABLE");
    let draining = proto::SetState { state: InstanceState::Draining.into(), reason: String::new() };
    pump.say(Say::SetState(draining)).await;
    drop(valve);
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        pump.beat().await;
    }
    assert_eq!(house.states("").await, ["p-1 SERVING", "v-1 SERVING"]);
    house.store.set_away(false);
    assert!(pump.hear().await.unwrap().is_some(), "the change is answered when it is durable");
    house.until("", &["p-1 DRAINING"]).await;
    watch.until(&["p-1 DRAINING"]).await;
}

#[tokio::test(start_paused = true)]
async fn compaction_costs_a_reading_and_tells_no_watcher_to_forget() {
    let house = House::start().await;
    let _pump = house.join("pump", "p-1").await;
    let mut watch = house.watch(&[]).await;
    watch.until(&["p-1 SERVING"]).await;
    house.store.set_away(true);
    tokio::time::sleep(Duration::from_millis(10)).await;
    house.store.compact();
    house.store.set_away(false);
    let _next = house.join("pump", "p-2").await;
    watch.until(&["p-1 SERVING", "p-2 SERVING"]).await;
    assert_eq!(watch.removed, 0);
}

#[tokio::test(start_paused = true)]
async fn a_live_instance_whose_lease_ran_out_is_written_again() {
    let house = House::start().await;
    let pump = house.join("pump", "p-1").await;
    house.store.end_leases();
    tokio::time::sleep(Duration::from_millis(100)).await;
    house.until("pump", &["p-1 SERVING"]).await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        pump.beat().await;
    }
    assert_eq!(house.states("pump").await, ["p-1 SERVING"]);
}

#[tokio::test(start_paused = true)]
async fn a_live_instance_whose_record_came_and_went_unseen_is_written_again() {
    let house = House::start().await;
    let other = House::node("node-2", house.store.clone(), Config::default()).await;
    // The first node cannot see what it writes, and when it looks again, the history is gone: no step tells of it.
    house.store.set_deaf(true);
    let pump = house.join("pump", "p-1").await;
    house.store.end_leases();
    house.store.compact();
    house.store.set_deaf(false);
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        pump.beat().await;
    }
    house.until("pump", &["p-1 SERVING"]).await;
    other.until("pump", &["p-1 SERVING"]).await;
}
