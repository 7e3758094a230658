//! What watchers are told.

use std::time::Duration;

use ninefold_proto::ninefold::registry::v1 as proto;
use ninefold_registry::Config;
use proto::InstanceState;
use proto::watch_instances_response::Message as Told;
use tonic::Code;

use crate::house::{House, check};

#[tokio::test(start_paused = true)]
async fn a_watcher_is_told_of_the_services_it_named_only() {
    let house = House::start().await;
    let _pump = house.join("pump", "p-1").await;
    let mut watch = house.watch(&["valve", "tank"]).await;
    assert!(matches!(watch.next().await, Told::Snapshot(_)));
    assert_eq!(watch.states(), [] as [&str; 0]);
    let _pump = house.join("pump", "p-2").await;
    let valve = house.join("valve", "v-1").await;
    let Told::Delta(delta) = watch.next().await else { panic!("a delta follows a snapshot") };
    assert_eq!(delta.upserts.iter().map(|one| one.instance_id.as_str()).collect::<Vec<_>>(), ["v-1"]);
    valve.leave("").await;
    let Told::Delta(delta) = watch.next().await else { panic!("a delta follows a delta") };
    assert_eq!(
        delta.removes,
        [proto::InstanceKey {
            namespace: "default".to_owned(),
            service: "valve".to_owned(),
            instance_id: "v-1".to_owned(),
        }]
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_watch_says_that_it_lives() {
    // Nobody beats here, and nobody is to be lost for it.
    let house = House::with(Config { beat_interval: Duration::from_secs(60), ..Config::default() }).await;
    let mut watch = house.watch(&["valve"]).await;
    watch.next().await;
    let begin = tokio::time::Instant::now();
    let pump = house.join("pump", "p-1").await;
    assert!(matches!(watch.next().await, Told::Heartbeat(_)));
    assert_eq!(begin.elapsed().as_secs(), 5);
    assert_eq!(watch.revision, pump.registered.unwrap().revision, "it is right up to what concerned others");
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_one_message() {
    let house = House::start().await;
    let mut watch = house.watch(&[]).await;
    watch.next().await;
    let sessions = futures_util::future::join_all((0..50).map(|number| {
        let (house, id) = (&house, format!("p-{number:02}"));
        async move { house.join("pump", &id).await }
    }));
    let _sessions = sessions.await;
    let mut messages = 0;
    while watch.known.len() < 50 {
        watch.next().await;
        messages += 1;
    }
    assert!(messages <= 3, "50 registrations made {messages} messages");
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_falls_far_behind_gets_the_right_state_and_no_backlog() {
    let house = House::start().await;
    let mut slow = house.watch(&[]).await;
    slow.next().await;
    let mut pump = house.join("pump", "p-1").await;
    let valve = house.join("valve", "v-1").await;
    for _ in 0..5000 {
        pump.set(InstanceState::Draining, "").await;
        pump.set(InstanceState::Serving, "").await;
        valve.beat().await;
    }
    valve.leave("").await;
    // What was on its way when the watcher stopped reading comes first, then all the rest at once.
    let mut messages = 0;
    while slow.states() != ["p-1 SERVING"] {
        slow.next().await;
        messages += 1;
    }
    assert!(messages <= 10, "{messages} messages");
    assert_eq!(slow.known.values().cloned().collect::<Vec<_>>(), house.instances("").await);
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_a_watcher_believes_what_the_list_tells() {
    for seed in 0..8 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (grace, beat_interval) = (Duration::from_millis(100), Duration::from_secs(3600));
        let house = House::with(Config { grace, beat_interval, ..Config::default() }).await;
        let mut watch = house.watch(&[]).await;
        let mut named = house.watch(&["s-0", "s-2"]).await;
        let mut sessions = std::collections::BTreeMap::new();
        for _ in 0..150 {
            let key = (format!("s-{}", random.u8(0..3)), format!("i-{}", random.u8(0..4)));
            match (random.u8(0..10), sessions.remove(&key)) {
                (0..5, None) => {
                    let joined = house.join(&key.0, &key.1).await;
                    sessions.insert(key, joined);
                }
                (0..5, Some(mut session)) => {
                    let state = if random.bool() { InstanceState::Draining } else { InstanceState::Serving };
                    session.set(state, "").await;
                    sessions.insert(key, session);
                }
                (5, Some(session)) => session.leave("").await,
                (6, lost) => drop(lost),
                (7, kept) => {
                    sessions.extend(kept.map(|session| (key, session)));
                    house.store.lose_watches();
                }
                (8, kept) => {
                    sessions.extend(kept.map(|session| (key, session)));
                    tokio::time::sleep(Duration::from_millis(random.u64(1..120))).await;
                }
                (_, kept) => {
                    sessions.extend(kept.map(|session| (key, session)));
                    watch.next().await;
                }
            }
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        let listed = house.instances("").await;
        while !matches!(watch.next().await, Told::Heartbeat(_)) {}
        while !matches!(named.next().await, Told::Heartbeat(_)) {}
        assert_eq!(watch.known.into_values().collect::<Vec<_>>(), listed, "seed {seed}");
        let wanted: Vec<_> = listed.into_iter().filter(|one| one.service != "s-1").collect();
        assert_eq!(named.known.into_values().collect::<Vec<_>>(), wanted, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_cannot_be_is_refused() {
    let house = House::with(Config { watchers_max: 1, ..Config::default() }).await;
    let ask = async |services: Vec<String>| {
        house
            .client
            .clone()
            .watch_instances(proto::WatchInstancesRequest { services, ..Default::default() })
            .await
            .unwrap_err()
    };
    check(&ask(vec!["a".to_owned(); 1001]).await, Code::InvalidArgument, "WATCH_INVALID");
    check(&ask(vec!["A b".to_owned()]).await, Code::InvalidArgument, "WATCH_INVALID");
    let watch = house.watch(&[]).await;
    check(&ask(Vec::new()).await, Code::ResourceExhausted, "WATCHERS_FULL");
    drop(watch);
    let _next = house.watch(&[]).await;
}
