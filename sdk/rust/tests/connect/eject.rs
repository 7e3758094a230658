//! How many may be left alone, how one that is new or back gets its share, and when it is known how a call went.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use ninefold::connect::policy::{Balancing, MethodPolicy};
use ninefold::connect::{Policy, breaker};
use ninefold::fault;
use ninefold::proto::ninefold::registry::v1::{Event, EventKind};
use ninefold::tonic::Code;
use tokio::sync::broadcast;

use crate::fake::{Instance, Manner};
use crate::held::Held;
use crate::{Client, House, get, next, put, warm};

const SLOW_START: Duration = Duration::from_secs(5);

/// A breaker that opens for a share of failed calls alone, and stays open for as long as a test takes.
fn by_share(ejection_percent_max: u32) -> breaker::Policy {
    let long = Duration::from_secs(3600);
    breaker::Policy {
        failures_in_a_row: 0,
        // Half of the calls fail, as near as can be.
        failure_percent: 40,
        wait_min: long,
        wait_max: long,
        ejection_percent_max,
        ..breaker::Policy::default()
    }
}

/// Endpoints alone are judged.
fn endpoints_only(breaker: breaker::Policy, panic_percent: u32) -> Policy {
    let never = breaker::Policy { is_disabled: true, ..breaker::Policy::default() };
    let method = "ninefold.config.v1.ConfigService".to_owned();
    Policy {
        balancing: Balancing { panic_percent, slow_start: SLOW_START, ..Balancing::default() },
        methods: vec![MethodPolicy { method, breaker: Some(never), ..MethodPolicy::default() }],
        breaker,
        ..Policy::default()
    }
}

async fn start<const N: usize>(house: &House, ids: [&str; N]) -> Vec<Instance> {
    join_all(ids.map(|id| house.instance(id))).await
}

/// The instances whose breakers have opened.
fn opened(events: &mut broadcast::Receiver<Event>) -> BTreeSet<String> {
    let mut opened = BTreeSet::new();
    while let Ok(event) = events.try_recv() {
        assert_eq!(event.kind(), EventKind::BreakerOpened, "{event:?}");
        opened.insert(event.instance_id);
    }
    opened
}

/// How many of so many calls, one after the other, an instance answers.
async fn share(client: &Client, id: &str, calls: u32) -> u32 {
    let mut shares = BTreeMap::<_, u32>::new();
    for _ in 0..calls {
        *shares.entry(get(client).await.unwrap().instance_id).or_default() += 1;
    }
    shares.get(id).copied().unwrap_or_default()
}

#[tokio::test]
async fn of_four_instances_of_which_three_are_ill_two_are_left_alone() {
    let house = House::new();
    let client = house.client_with(endpoints_only(by_share(50), 0));
    let mut events = house.discovery.events();
    let instances = start(&house, ["a", "b", "c", "well"]).await;
    warm(&client, 4).await;
    for ill in &instances[..3] {
        ill.behave(Manner::Half(Code::Internal));
    }
    for _ in 0..50 {
        join_all((0..16).map(|_| put(&client))).await;
    }
    let opened = opened(&mut events);
    assert_eq!(opened.len(), 2, "{opened:?}");
    assert!(!opened.contains("well"));
    // What is left goes on, the ill one among it.
    let before: Vec<_> = instances.iter().map(Instance::calls).collect();
    for _ in 0..100 {
        let _ = put(&client).await;
    }
    for (instance, before) in instances.iter().zip(before) {
        assert_eq!(instance.calls() > before, !opened.contains(&instance.id), "{}", instance.id);
    }
}

#[tokio::test]
async fn the_last_instance_is_never_left_alone_for_a_share() {
    let house = House::new();
    let client = house.client_with(endpoints_only(by_share(100), 0));
    let mut events = house.discovery.events();
    let instances = start(&house, ["a", "b", "c"]).await;
    warm(&client, 3).await;
    for ill in &instances {
        ill.behave(Manner::Half(Code::Internal));
    }
    for _ in 0..50 {
        join_all((0..16).map(|_| put(&client))).await;
    }
    let opened = opened(&mut events);
    assert_eq!(opened.len(), 2, "{opened:?}");
    let last = instances.iter().find(|instance| !opened.contains(&instance.id)).expect("one is left");
    let before = last.calls();
    for _ in 0..20 {
        let _ = put(&client).await;
    }
    assert_eq!(last.calls(), before + 20);
}

#[tokio::test]
async fn where_too_few_are_left_one_that_fails_now_and_then_is_called_all_the_same() {
    let house = House::new();
    let client = house.client_with(endpoints_only(by_share(100), 100));
    let mut events = house.discovery.events();
    let instances = start(&house, ["ill", "well"]).await;
    warm(&client, 2).await;
    instances[0].behave(Manner::Half(Code::Internal));
    for _ in 0..50 {
        join_all((0..4).map(|_| put(&client))).await;
    }
    let event = next(&mut events).await;
    assert_eq!((event.kind(), event.instance_id.as_str()), (EventKind::BreakerOpened, "ill"));
    assert!(event.reason.contains("calls failed"), "{}", event.reason);
    let before = instances[0].calls();
    for _ in 0..100 {
        let _ = put(&client).await;
    }
    assert!(instances[0].calls() > before + 20, "{} calls", instances[0].calls() - before);
    assert!(events.try_recv().is_err(), "it stays open");

    // The policy says how few are too few.
    let calm = house.client_with(endpoints_only(by_share(100), 50));
    let mut events = house.discovery.events();
    while events.try_recv().is_err() {
        join_all((0..4).map(|_| put(&calm))).await;
    }
    let before = instances[0].calls();
    for _ in 0..50 {
        put(&calm).await.unwrap();
    }
    assert_eq!(instances[0].calls(), before);
}

#[tokio::test]
async fn a_new_instance_starts_slowly() {
    // From the beginning, so that every answer is as quick as any other.
    let held = Held::hold();
    let house = House::new();
    let client = house.client_with(endpoints_only(breaker::Policy::default(), 50));
    let _first = house.instance("first").await;
    warm(&client, 1).await;
    let new = house.instance("new").await;
    held.until("it is connected to", async || {
        let _ = get(&client).await;
        new.calls() > 0
    })
    .await;
    // A tenth of a weight beside a whole one: 18 of 200; the first steps may have passed.
    let early = share(&client, "new", 200).await;
    assert!((1..50).contains(&early), "{early} of 200 calls at first");
    held.pass(SLOW_START / 2).await;
    // Half a weight: 67.
    let midway = share(&client, "new", 200).await;
    assert!((35..95).contains(&midway), "{midway} of 200 calls midway");
    held.pass(SLOW_START).await;
    let late = share(&client, "new", 200).await;
    assert!((65..135).contains(&late), "{late} of 200 calls after the start");
}

#[tokio::test]
async fn an_instance_whose_breaker_closes_starts_slowly_too() {
    // From the beginning, so that every answer is as quick as any other.
    let held = Held::hold();
    let house = House::new();
    let client = house.client_with(endpoints_only(breaker::Policy::default(), 50));
    let mut events = house.discovery.events();
    let instances = start(&house, ["ill", "well"]).await;
    warm(&client, 2).await;
    instances[0].behave(Manner::Refuse(Code::Internal));
    let mut kinds = Vec::new();
    held.until("the breaker closes again", async || {
        let _ = put(&client).await;
        while let Ok(event) = events.try_recv() {
            assert_eq!(event.instance_id, "ill");
            kinds.push(event.kind());
        }
        if kinds.contains(&EventKind::BreakerOpened) {
            instances[0].behave(Manner::Answer(Duration::ZERO));
        }
        kinds.contains(&EventKind::BreakerClosed)
    })
    .await;
    assert_eq!(kinds, [EventKind::BreakerOpened, EventKind::BreakerHalfOpened, EventKind::BreakerClosed]);
    let early = share(&client, "ill", 200).await;
    assert!((1..50).contains(&early), "{early} of 200 calls at first");
    held.pass(SLOW_START + SLOW_START / 2).await;
    let late = share(&client, "ill", 200).await;
    assert!((65..135).contains(&late), "{late} of 200 calls after the start");
}

#[tokio::test]
async fn a_failure_after_a_message_counts_as_one_at_once_does() {
    let house = House::new();
    let client = house.client();
    let mut events = house.discovery.events();
    let only = house.instance("only").await;
    warm(&client, 1).await;
    let before = only.calls();
    only.behave(Manner::FailLate(Code::Internal));
    for _ in 0..5 {
        let status = put(&client).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Internal, "as the test wants"));
    }
    assert_eq!(next(&mut events).await.reason, "5 failures in a row: Internal: as the test wants");
    let status = put(&client).await.unwrap_err();
    assert_eq!(fault::reason(&status).as_deref(), Some("BREAKER_OPEN"), "{status:?}");
    assert_eq!(only.calls(), before + 5);
}

#[tokio::test]
async fn an_answer_that_breaks_off_counts_as_a_failure() {
    let house = House::new();
    let client = house.client();
    let mut events = house.discovery.events();
    let only = house.instance("only").await;
    warm(&client, 1).await;
    let before = only.calls();
    only.behave(Manner::Reset);
    for _ in 0..5 {
        let status = put(&client).await.unwrap_err();
        assert_eq!(fault::reason(&status).as_deref(), Some("STREAM_RESET"), "{status:?}");
    }
    let status = put(&client).await.unwrap_err();
    assert_eq!(fault::reason(&status).as_deref(), Some("BREAKER_OPEN"), "{status:?}");
    let reason = next(&mut events).await.reason;
    let why = "5 failures in a row: instance \"only\" of \"pump\" reset the call";
    assert!(reason.starts_with(why), "{reason}");
    assert_eq!(only.calls(), before + 5);
}
