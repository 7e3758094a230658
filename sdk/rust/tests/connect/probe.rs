//! Whom the channel asks how they are before it risks a caller's request: instances that failed, and suspects.

use std::time::Duration;

use ninefold::connect::Policy;
use ninefold::fault;
use ninefold::proto::ninefold::registry::v1::{Event, EventKind, InstanceState};
use ninefold::serve::{Health, ServeConfig};
use ninefold::tonic::Code;
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::fake::{Instance, Manner};
use crate::held::Held;
use crate::{House, get, put, seen, warm};

/// An instance, and what it says of its health.
async fn with_health(house: &House, id: &str) -> (Instance, Health) {
    let health = Health::new();
    let config = ServeConfig { health: health.clone(), ..ServeConfig::default() };
    let instance = Instance::start_with(id, config, &house.scope).await;
    house.registry.put(instance.words());
    (instance, health)
}

async fn suspect(house: &House, instance: &Instance) {
    house.registry.put(instance.words_in(InstanceState::Suspect));
    seen(house, &instance.id, InstanceState::Suspect).await;
}

/// Lets time pass until a breaker has moved.
async fn moved(held: &Held, events: &mut broadcast::Receiver<Event>) -> Event {
    let mut moved = None;
    held.until("a breaker moves", async || {
        moved = events.try_recv().ok();
        moved.is_some()
    })
    .await;
    moved.expect("waited for")
}

#[tokio::test]
async fn whoever_says_that_it_does_not_serve_gets_no_call_however_well_it_would_answer() {
    let held = Held::hold();
    let house = House::new();
    let client = house.client();
    let mut events = house.discovery.events();
    let (ill, health) = with_health(&house, "ill").await;
    let well = house.instance("well").await;
    warm(&client, 2).await;
    health.drain().await;
    ill.behave(Manner::Refuse(Code::Internal));
    held.until("the breaker opens", async || {
        let _ = put(&client).await;
        events.try_recv().is_ok()
    })
    .await;
    ill.behave(Manner::Answer(Duration::ZERO));
    let before = ill.calls();
    for _ in 0..40 {
        held.pass(Duration::from_millis(500)).await;
        assert_eq!(*put(&client).await.unwrap().instance_id, *well.id);
    }
    assert_eq!(ill.calls(), before);
    assert!(events.try_recv().is_err(), "the breaker stays as it is");
    health.resume().await;
    held.until("it is called again", async || {
        put(&client).await.unwrap();
        ill.calls() > before + 10
    })
    .await;
    assert_eq!(events.try_recv().unwrap().kind(), EventKind::BreakerHalfOpened);
    assert_eq!(events.try_recv().unwrap().kind(), EventKind::BreakerClosed);
}

#[tokio::test]
async fn a_suspect_that_does_not_answer_costs_no_caller_its_time() {
    let held = Held::hold();
    let house = House::new();
    let client = house.client();
    let mut events = house.discovery.events();
    let (only, health) = with_health(&house, "only").await;
    warm(&client, 1).await;
    health.drain().await;
    only.behave(Manner::Hang);
    held.pass(Duration::from_secs(10)).await;
    assert!(events.try_recv().is_err(), "nobody asks as long as the registry has no doubt");

    suspect(&house, &only).await;
    let opened = moved(&held, &mut events).await;
    assert_eq!((opened.kind(), opened.instance_id.as_str()), (EventKind::BreakerOpened, "only"));
    assert_eq!(opened.reason, "the registry suspects it, and its health probe failed");
    let (before, since) = (only.calls(), Instant::now());
    for _ in 0..20 {
        let status = get(&client).await.unwrap_err();
        assert_eq!(fault::reason(&status).as_deref(), Some("BREAKER_OPEN"), "{status:?}");
    }
    assert_eq!((only.calls(), since.elapsed()), (before, Duration::ZERO), "nobody waits");

    // Nobody else is left, so now and then a call tries it.
    only.behave(Manner::Refuse(Code::Internal));
    held.until("a call tries it", async || put(&client).await.is_err_and(|status| status.code() == Code::Internal))
        .await;
    assert_eq!(only.calls(), before + 1);
}

#[tokio::test]
async fn a_suspect_that_answers_is_called_where_nobody_else_can() {
    let held = Held::hold();
    let house = House::new();
    let client = house.client();
    let mut events = house.discovery.events();
    let (first, health) = with_health(&house, "first").await;
    let second = house.instance("second").await;
    warm(&client, 2).await;
    suspect(&house, &first).await;
    // It is asked, says that it is well, and is the last all the same.
    held.pass(Duration::from_secs(10)).await;
    let before = first.calls();
    for _ in 0..50 {
        assert_eq!(*get(&client).await.unwrap().instance_id, *second.id);
    }
    assert_eq!(first.calls(), before);
    second.behave(Manner::Refuse(Code::Internal));
    for _ in 0..5 {
        put(&client).await.unwrap_err();
    }
    assert_eq!(events.try_recv().unwrap().instance_id, "second");
    for _ in 0..20 {
        assert_eq!(*put(&client).await.unwrap().instance_id, *first.id);
    }

    // One that does not is not called then either, as long as there is another.
    health.drain().await;
    held.until("the suspect's breaker opens", async || {
        events.try_recv().is_ok_and(|event| event.instance_id == "first" && event.kind() == EventKind::BreakerOpened)
    })
    .await;
    let before = first.calls();
    put(&client).await.unwrap_err();
    assert_eq!(first.calls(), before);
}

#[tokio::test]
async fn a_suspect_that_recovers_gets_its_share_when_the_registry_says_so() {
    let held = Held::hold();
    let house = House::new();
    let client = house.client_with(Policy::default());
    let mut events = house.discovery.events();
    let (first, health) = with_health(&house, "first").await;
    let second = house.instance("second").await;
    warm(&client, 2).await;
    health.drain().await;
    suspect(&house, &first).await;
    assert_eq!(moved(&held, &mut events).await.kind(), EventKind::BreakerOpened);
    health.resume().await;
    // No call had failed, so none is risked to find out; whoever counts open breakers hears of it.
    let closed = moved(&held, &mut events).await;
    assert_eq!((closed.kind(), closed.reason.as_str()), (EventKind::BreakerClosed, "the health probe succeeded"));
    held.pass(Duration::from_secs(10)).await;
    let before = first.calls();
    for _ in 0..20 {
        assert_eq!(*put(&client).await.unwrap().instance_id, *second.id);
    }
    assert_eq!(first.calls(), before);
    house.registry.put(first.words());
    held.until("it is called again", async || {
        put(&client).await.unwrap();
        first.calls() > before + 10
    })
    .await;
    assert!(events.try_recv().is_err());
}
