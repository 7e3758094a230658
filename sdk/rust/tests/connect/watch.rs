//! What the discovery makes of a registry that tells digests and hears acknowledgements.

use std::collections::BTreeSet;

use ninefold::connect::Dialer;
use ninefold::proto::ninefold::registry::v1 as words;
use tokio::time::timeout;
use words::EventKind;

use crate::fake::{Holding, Instance, Registry};
use crate::{Client, House, LONG, get, next, wait_for, warm};

fn start() -> (House, Holding) {
    let holding = Holding::default();
    (House::following(Registry::holding(&holding), Dialer::default()), holding)
}

/// A landscape with one instance, of which the registry has heard that it is known.
async fn start_with_one() -> (House, Holding, Client, Instance) {
    let (house, holding) = start();
    let client = house.client();
    let instance = Instance::start("first", &house.scope).await;
    house.registry.put(at(1, &instance));
    warm(&client, 1).await;
    is_acknowledged(&holding).await;
    (house, holding, client, instance)
}

/// Waits until the newest revision is acknowledged.
async fn is_acknowledged(holding: &Holding) {
    wait_for(|| holding.acknowledged().last() == Some(&holding.revision())).await;
}

/// An instance as the registry knows it at a revision.
fn at(revision: i64, instance: &Instance) -> words::Instance {
    words::Instance { revision, ..instance.words() }
}

async fn knows(house: &House, revisions: &[i64]) {
    let mut landscape = house.discovery.landscape();
    let wanted: BTreeSet<i64> = revisions.iter().copied().collect();
    let known = landscape.wait_for(|view| {
        view.instances("pump").iter().map(|instance| instance.revision).collect::<BTreeSet<_>>() == wanted
    });
    timeout(LONG, known).await.expect("the discovery hears of it").unwrap();
}

#[tokio::test]
async fn what_is_taken_in_is_acknowledged() {
    let (house, holding, _client, only) = start_with_one().await;
    for revision in 2..6 {
        house.registry.put(at(revision, &only));
        knows(&house, &[revision]).await;
        is_acknowledged(&holding).await;
    }
    let acknowledged = holding.acknowledged();
    assert!(acknowledged.is_sorted() && acknowledged.len() >= 5, "{acknowledged:?}");
    assert_eq!(holding.opened().len(), 1);
    assert_eq!(holding.opened()[0].services, ["pump"]);
}

#[tokio::test]
async fn a_lost_delta_is_noticed_with_the_next_message_and_all_is_asked_for_anew() {
    let (house, holding, client, _first) = start_with_one().await;
    let mut events = house.discovery.events();
    let second = Instance::start("second", &house.scope).await;
    let acknowledged = holding.acknowledged().len();

    holding.lose_next();
    let before = holding.revision();
    house.registry.put(at(2, &second));
    wait_for(|| holding.revision() > before).await;
    // Nobody can know yet.
    knows(&house, &[1]).await;
    assert!(events.try_recv().is_err());
    let third = Instance::start("third", &house.scope).await;
    house.registry.put(at(3, &third));

    let diverged = next(&mut events).await;
    assert_eq!(diverged.kind(), EventKind::WatchDiverged);
    assert!(diverged.reason.contains(&format!("at revision {}", before + 2)), "{}", diverged.reason);
    knows(&house, &[1, 2, 3]).await;
    warm(&client, 3).await;
    let opened = holding.opened();
    assert_eq!(opened.len(), 2);
    assert_eq!(opened[1].known_revision, 0, "what is known is not built upon");
    // What did not come to what it should was not acknowledged.
    is_acknowledged(&holding).await;
    assert_eq!(holding.acknowledged()[acknowledged..], [holding.revision()]);
    assert!(events.try_recv().is_err(), "it is right again");
}

#[tokio::test]
async fn a_watch_that_was_lost_goes_on_from_where_it_was() {
    let (house, holding, _client, _only) = start_with_one().await;
    let known = holding.revision();
    house.registry.go_away();
    house.registry.come_back();
    wait_for(|| holding.opened().len() == 2).await;
    assert_eq!(holding.opened()[1].known_revision, known);
}

#[tokio::test]
async fn what_is_not_named_is_believed_in_until_the_registry_is_sure() {
    let (house, holding) = start();
    let client = house.client();
    let (first, second) = (Instance::start("first", &house.scope).await, Instance::start("second", &house.scope).await);
    house.registry.put(at(1, &first));
    house.registry.put(at(2, &second));
    warm(&client, 2).await;
    house.registry.go_away();
    house.registry.forget_all();
    // As one that has just started.
    holding.be_sure(false);
    house.registry.come_back();
    let before = holding.acknowledged().len();
    wait_for(|| holding.opened().len() == 2 && holding.acknowledged().len() > before).await;
    knows(&house, &[1, 2]).await;
    for _ in 0..20 {
        get(&client).await.expect("calls go on");
    }
    house.registry.put(at(3, &first));
    knows(&house, &[2, 3]).await;
    holding.be_sure(true);
    house.registry.put(at(4, &first));
    knows(&house, &[4]).await;
}
