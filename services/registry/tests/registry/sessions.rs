//! How an instance joins, lives and leaves.

use std::time::Duration;

use ninefold_proto::ninefold::registry::v1 as proto;
use ninefold_registry::Config;
use proto::InstanceState;
use proto::hold_session_request::Message as Say;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::house::{House, check, instance};

#[tokio::test(start_paused = true)]
async fn a_registered_instance_is_there_for_everybody_at_once() {
    let house = House::start().await;
    let mut watch = house.watch(&["pump"]).await;
    watch.until(&[]).await;
    let pump = house.join("pump", "p-1").await;

    let listed = house.instances("pump").await;
    assert_eq!(Some(&listed[0]), pump.registered.as_ref());
    assert_eq!((listed[0].node.as_str(), listed[0].weight, listed[0].state()), ("node-1", 100, InstanceState::Serving));
    assert!(listed[0].revision > 0 && listed[0].change_time.is_some());
    let request =
        proto::GetInstanceRequest { service: "pump".to_owned(), instance_id: "p-1".to_owned(), ..Default::default() };
    let got = house.client.clone().get_instance(request).await.unwrap().into_inner().instance;
    assert_eq!(got.as_ref(), listed.first());
    watch.until(&["p-1 SERVING"]).await;
    assert_eq!(watch.known.values().next(), listed.first());
    assert_eq!(house.story("pump").await, ["p-1 REGISTERED version 1.0.0", "p-1 SERVING"]);
}

#[tokio::test(start_paused = true)]
async fn an_instance_whose_session_breaks_is_suspect_at_once_and_gone_within_a_second() {
    let house = House::start().await;
    let pump = house.join("pump", "p-1").await;
    let broken = tokio::time::Instant::now();
    drop(pump);
    house.until("pump", &["p-1 SUSPECT"]).await;
    assert!(broken.elapsed() < Duration::from_millis(50), "took {:?}", broken.elapsed());
    house.until("pump", &[]).await;
    assert!(broken.elapsed() < Duration::from_secs(1), "took {:?}", broken.elapsed());
    let story = house.story("pump").await;
    assert!(story[2].starts_with("p-1 SUSPECT session lost: "), "{story:?}");
    assert!(story[3].starts_with("p-1 EXPIRED session lost: "), "{story:?}");
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_comes_back_within_its_grace_time_was_never_away() {
    let house = House::start().await;
    let mut watch = house.watch(&[]).await;
    drop(house.join("pump", "p-1").await);
    watch.until(&["p-1 SUSPECT"]).await;
    let _pump = house.join("pump", "p-1").await;
    watch.until(&["p-1 SERVING"]).await;
    for _ in 0..3 {
        tokio::time::advance(Duration::from_millis(400)).await;
        _pump.beat().await;
    }
    assert_eq!(house.states("pump").await, ["p-1 SERVING"]);
    watch.until(&["p-1 SERVING"]).await;
    assert_eq!(watch.removed, 0);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_leaves_is_gone_when_its_session_ends() {
    let house = House::start().await;
    let pump = house.join("pump", "p-1").await;
    pump.leave("scaled down").await;
    assert_eq!(house.states("pump").await, [] as [&str; 0]);
    assert_eq!(house.story("pump").await[2], "p-1 DEREGISTERED scaled down");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(house.story("pump").await.len(), 3, "it is told once");
    let _again = house.join("pump", "p-1").await;
    assert_eq!(house.states("pump").await, ["p-1 SERVING"]);
}

#[tokio::test(start_paused = true)]
async fn a_draining_instance_is_answered_when_everybody_can_see_it() {
    let house = House::start().await;
    let mut pump = house.join("pump", "p-1").await;
    let changed = pump.set(InstanceState::Draining, "stopping").await;
    assert_eq!((changed.state(), changed.state_reason.as_str()), (InstanceState::Draining, "stopping"));
    assert_eq!(house.instances("pump").await, [changed]);
    assert_eq!(house.story("pump").await[2], "p-1 DRAINING stopping");
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_misses_three_beats_is_lost() {
    let house = House::start().await;
    let mut pump = house.join("pump", "p-1").await;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(4)).await;
        pump.beat().await;
    }
    assert_eq!(house.states("pump").await, ["p-1 SERVING"]);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(house.states("pump").await, ["p-1 SERVING"]);
    check(&pump.refused().await, Code::DeadlineExceeded, "SESSION_SILENT");
    house.until("pump", &[]).await;
}

#[tokio::test(start_paused = true)]
async fn an_id_that_a_live_session_holds_is_taken() {
    let house = House::start().await;
    let pump = house.join("pump", "p-1").await;
    let refused = house.register(instance("pump", "p-1")).await.err().unwrap();
    check(&refused, Code::AlreadyExists, "INSTANCE_TAKEN");
    pump.beat().await;
    assert_eq!(house.states("pump").await, ["p-1 SERVING"]);
    let _other = house.join("valve", "p-1").await;
}

#[tokio::test(start_paused = true)]
async fn a_process_whose_lost_session_was_not_noticed_yet_takes_its_place_back() {
    let house = House::start().await;
    let start_time = Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 1 });
    let pump = proto::Instance { start_time, ..instance("pump", "p-1") };
    let mut old = house.register(pump.clone()).await.unwrap();
    let mut watch = house.watch(&[]).await;
    let new = house.register(pump).await.unwrap();
    check(&old.refused().await, Code::AlreadyExists, "INSTANCE_TAKEN");
    drop(old);
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        new.beat().await;
    }
    watch.until(&["p-1 SERVING"]).await;
    assert_eq!((house.states("pump").await, watch.removed), (vec!["p-1 SERVING".to_owned()], 0));
    let start_time = Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 2 });
    let other = proto::Instance { start_time, ..instance("pump", "p-1") };
    check(&house.register(other).await.err().unwrap(), Code::AlreadyExists, "INSTANCE_TAKEN");
}

#[tokio::test(start_paused = true)]
async fn a_service_has_no_more_instances_than_it_may_have() {
    let house = House::with(Config { instances_max: 2, ..Config::default() }).await;
    let (_first, second) = (house.join("pump", "p-1").await, house.join("pump", "p-2").await);
    let refused = house.register(instance("pump", "p-3")).await.err().unwrap();
    check(&refused, Code::ResourceExhausted, "SERVICE_FULL");
    let _other = house.join("valve", "v-1").await;
    drop(second);
    house.until("pump", &["p-1 SERVING", "p-2 SUSPECT"]).await;
    let back = house.join("pump", "p-2").await;
    back.leave("").await;
    let _third = house.join("pump", "p-3").await;
}

#[tokio::test(start_paused = true)]
async fn a_node_holds_no_more_sessions_than_it_may_hold() {
    let house = House::with(Config { sessions_max: 1, ..Config::default() }).await;
    let pump = house.join("pump", "p-1").await;
    let say = tokio_stream::pending();
    let refused = house.client.clone().hold_session(say).await.unwrap_err();
    check(&refused, Code::ResourceExhausted, "SESSIONS_FULL");
    pump.leave("").await;
    let _next = house.join("pump", "p-2").await;
}

#[tokio::test(start_paused = true)]
async fn everything_that_is_wrong_with_an_instance_is_told_at_once() {
    let house = House::start().await;
    let address = |host: &str, port| proto::Address { host: host.to_owned(), port };
    let wrong = proto::Instance {
        service: "Pump!".to_owned(),
        instance_id: "a/b".to_owned(),
        addresses: vec![address("127.0.0.1", 0), address("", 80), address("[::1]", 70_000)],
        version: "x".repeat(129),
        namespace: "No!".to_owned(),
        zone: "z".repeat(64),
        region: "r".repeat(64),
        health_check: Some(proto::HealthCheck {
            kind: Some(proto::health_check::Kind::Http(proto::HttpHealthCheck { path: "healthz".to_owned() })),
            interval: Some(prost_types::Duration { seconds: 0, nanos: 1 }),
            timeout: Some(prost_types::Duration { seconds: -1, nanos: 0 }),
            rise: 101,
            fall: 101,
        }),
        labels: [("l".to_owned(), "ä".repeat(257))].into(),
        protobuf_services: vec!["a..b".to_owned()],
        contract_digest: "sha256:xyz".to_owned(),
        weight: 10_001,
        protocol: 99,
        start_time: Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }),
        ..Default::default()
    };
    let refused = house.register(wrong).await.err().unwrap();
    check(&refused, Code::InvalidArgument, "INSTANCE_INVALID");
    let mut fields: Vec<_> =
        refused.get_details_bad_request().unwrap().field_violations.into_iter().map(|one| one.field).collect();
    fields.sort();
    assert_eq!(
        fields,
        [
            "instance.addresses[0].port",
            "instance.addresses[1].host",
            "instance.addresses[2].host",
            "instance.addresses[2].port",
            "instance.contract_digest",
            "instance.health_check.fall",
            "instance.health_check.http.path",
            "instance.health_check.interval",
            "instance.health_check.rise",
            "instance.health_check.timeout",
            "instance.instance_id",
            "instance.labels[\"l\"]",
            "instance.namespace",
            "instance.protobuf_services[0]",
            "instance.protocol",
            "instance.region",
            "instance.service",
            "instance.start_time",
            "instance.version",
            "instance.weight",
            "instance.zone",
        ]
    );
    for count in [0, 9] {
        let addresses = vec![address("localhost", 80); count];
        let refused = house.register(proto::Instance { addresses, ..instance("pump", "p") }).await.err().unwrap();
        check(&refused, Code::InvalidArgument, "INSTANCE_INVALID");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_begins_with_a_registration_and_holds_one_only() {
    let house = House::start().await;
    let mut early = house.open().await;
    early.beat().await;
    check(&early.refused().await, Code::FailedPrecondition, "SESSION_UNOPENED");
    let mut mute = house.open().await;
    check(&mute.refused().await, Code::FailedPrecondition, "SESSION_UNOPENED");
    let mut twice = house.join("pump", "p-1").await;
    twice.say(Say::Register(proto::Register { instance: Some(instance("pump", "p-2")) })).await;
    check(&twice.refused().await, Code::FailedPrecondition, "SESSION_REOPENED");
    house.until("pump", &[]).await;
    let mut odd = house.join("pump", "p-3").await;
    odd.say(Say::SetState(proto::SetState { state: InstanceState::Gone.into(), reason: String::new() })).await;
    check(&odd.refused().await, Code::InvalidArgument, "INSTANCE_INVALID");
}

#[tokio::test(start_paused = true)]
async fn what_an_instance_reports_is_told_under_its_name() {
    let house = House::start().await;
    let _pump = house.join("pump", "p-1").await;
    let valve = house.join("valve", "v-1").await;
    let event = |kind: proto::EventKind, service: &str| proto::Event {
        service: service.to_owned(),
        instance_id: "p-1".to_owned(),
        kind: kind.into(),
        reason: "5 failures in a row".to_owned(),
        observer: "somebody else".to_owned(),
        ..Default::default()
    };
    let events = vec![
        event(proto::EventKind::BreakerOpened, "pump"),
        event(proto::EventKind::Expired, "pump"),
        event(proto::EventKind::BreakerOpened, "no service"),
    ];
    valve.say(Say::ReportEvents(proto::ReportEvents { events })).await;
    valve.leave("").await;
    let told = house.events("pump").await;
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!((told[0].kind(), told[0].observer.as_str()), (proto::EventKind::BreakerOpened, "v-1"));
    assert!(told[0].time.is_some());
    assert_eq!(told[1].observer, "registry");
}

#[tokio::test(start_paused = true)]
async fn three_hundred_instances_share_two_leases() {
    let house = House::start().await;
    let mut sessions = Vec::new();
    for number in 0..300 {
        sessions.push(house.join("pump", &format!("p-{number:03}")).await);
    }
    assert_eq!(house.store.leases(), 2);
    for session in sessions.drain(..) {
        session.leave("").await;
    }
    let _again = house.join("pump", "p").await;
    assert_eq!(house.store.leases(), 2, "places that became free are used again");
}
