//! Whom a call goes to, and whom it is kept from.

use std::collections::BTreeSet;
use std::time::Duration;

use ninefold::connect::policy::{Balancing, BalancingMethod};
use ninefold::connect::{Discovery, Interest, Policy, breaker};
use ninefold::fault;
use ninefold::lifecycle::Scope;
use ninefold::proto::ninefold::config::v1 as config;
use ninefold::proto::ninefold::registry::v1::{BreakerForce, EventKind, Override};
use ninefold::tonic::{Code, Request, Status};
use tokio::time::timeout;

use crate::fake::{Instance, Manner, Registry};
use crate::{Client, House, LONG, get, next, put, quick, warm};

const PUT: &str = "ninefold.config.v1.ConfigService/PutDocument";

fn reason(status: &Status) -> Option<String> {
    fault::reason(status)
}

/// Calls until a call ends as wanted.
async fn until(what: &str, mut call: impl AsyncFnMut() -> bool) {
    let comes = async {
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        while !call().await {
            tick.tick().await;
        }
    };
    timeout(LONG, comes).await.unwrap_or_else(|_| panic!("{what} comes about"));
}

#[tokio::test]
async fn a_method_that_fails_everywhere_is_kept_from_and_the_others_go_on() {
    let house = House::new();
    let client = house.client_with(Policy { breaker: quick(), ..Policy::default() });
    let mut events = house.discovery.events();
    let instances = [house.instance("first").await, house.instance("second").await];
    warm(&client, 2).await;
    for instance in &instances {
        instance.behave_for("PutDocument", Manner::Refuse(Code::Internal));
    }
    until("the method's breaker opens", async || {
        // So many that no instance is drawn for five writes in a row without a read among them.
        for _ in 0..5 {
            get(&client).await.expect("reads go on");
        }
        put(&client).await.is_err_and(|status| reason(&status).as_deref() == Some("BREAKER_OPEN"))
    })
    .await;
    let opened = next(&mut events).await;
    assert_eq!((opened.kind(), opened.instance_id.as_str()), (EventKind::BreakerOpened, ""), "{}", opened.reason);
    assert!(opened.reason.starts_with(&format!("{PUT}: ")), "{}", opened.reason);
    for instance in &instances {
        instance.behave_for("PutDocument", Manner::Answer(Duration::ZERO));
    }
    until("writes go through again", async || put(&client).await.is_ok()).await;
}

#[tokio::test]
async fn one_bad_instance_costs_its_method_nothing() {
    let house = House::new();
    let client = house.client();
    let mut events = house.discovery.events();
    let (bad, good) = (house.instance("bad").await, house.instance("good").await);
    warm(&client, 2).await;
    bad.behave(Manner::Refuse(Code::Internal));
    let before = good.calls();
    until("the other has all calls", async || {
        // A write is not repeated, so some fail until the breaker is open.
        let _ = put(&client).await;
        good.calls() > before + 100
    })
    .await;
    let opened = next(&mut events).await;
    assert_eq!((opened.kind(), opened.instance_id.as_str()), (EventKind::BreakerOpened, "bad"));
    assert!(bad.calls() < 20, "{}", bad.calls());
}

#[tokio::test]
async fn a_failure_behind_an_instance_is_not_its_own() {
    let house = House::new();
    let client = house.client();
    let only = house.instance("only").await;
    warm(&client, 1).await;
    only.behave(Manner::PassOn);
    for _ in 0..30 {
        let status = put(&client).await.unwrap_err();
        assert_eq!((status.code(), reason(&status)), (Code::Unavailable, None));
        assert_eq!(status.metadata().get("x-ninefold-failed-at").unwrap(), "valve");
    }
    // Its own failures are marked for whoever they are passed on to, and count.
    only.behave(Manner::Refuse(Code::Internal));
    let status = put(&client).await.unwrap_err();
    assert_eq!(status.metadata().get("x-ninefold-failed-at").unwrap(), "pump");
    until("the breaker opens", async || {
        put(&client).await.is_err_and(|status| reason(&status).as_deref() == Some("BREAKER_OPEN"))
    })
    .await;
}

#[tokio::test]
async fn slow_calls_open_a_breaker_where_they_are_judged() {
    let house = House::new();
    let slow_call = Some(Duration::from_millis(200));
    let breaker = breaker::Policy { slow_call, calls_min: 4, ..quick() };
    let client = house.client_with(Policy { breaker, ..Policy::default() });
    let mut events = house.discovery.events();
    for instance in [house.instance("first").await, house.instance("second").await] {
        instance.behave(Manner::Answer(Duration::from_millis(300)));
    }
    let calls = async {
        loop {
            futures_util::future::join_all((0..8).map(|_| get(&client))).await;
            // Calls that are kept away wait for nothing.
            tokio::task::yield_now().await;
        }
    };
    let opened = tokio::select! {
        opened = next(&mut events) => opened,
        () = calls => unreachable!("it goes on"),
    };
    assert_eq!(opened.kind(), EventKind::BreakerOpened);
    assert!(opened.reason.contains("took longer than 200ms"), "{}", opened.reason);
}

#[tokio::test]
async fn an_instance_that_is_slower_than_the_others_is_left_alone_while_its_calls_hang() {
    let house = House::new();
    let client = house.client();
    let mut events = house.discovery.events();
    let names = ["slow", "first", "second"];
    let [slow, first, second] =
        [house.instance(names[0]).await, house.instance(names[1]).await, house.instance(names[2]).await];
    for instance in [&slow, &first, &second] {
        instance.behave(Manner::Answer(Duration::from_millis(20)));
    }
    warm(&client, 3).await;
    slow.behave(Manner::Answer(Duration::from_secs(30)));
    let turned = std::time::Instant::now();
    let calls = async {
        let mut under_way = futures_util::stream::FuturesUnordered::new();
        loop {
            under_way.push(get(&client));
            if under_way.len() >= 12 {
                let _ = futures_util::StreamExt::next(&mut under_way).await;
            }
        }
    };
    let opened = tokio::select! {
        opened = next(&mut events) => opened,
        () = calls => unreachable!("it goes on"),
    };
    assert_eq!((opened.kind(), opened.instance_id.as_str()), (EventKind::BreakerOpened, "slow"));
    assert!(opened.reason.contains("in a row took longer than"), "{}", opened.reason);
    // Their own deadline is five seconds: none of them has ended.
    assert!(turned.elapsed() < Duration::from_secs(4), "{:?}", turned.elapsed());
}

#[tokio::test]
async fn an_operator_forces_breakers_open_and_closed() {
    let house = House::new();
    let client = house.client();
    let mut events = house.discovery.events();
    let (first, second) = (house.instance("first").await, house.instance("second").await);
    warm(&client, 2).await;
    let decide = |force: BreakerForce| {
        let decided = Override {
            force: force.into(),
            author: "anna".to_owned(),
            reason: "a bad disk".to_owned(),
            ..Override::default()
        };
        house
            .registry
            .put(ninefold::proto::ninefold::registry::v1::Instance { r#override: Some(decided), ..first.words() });
    };
    decide(BreakerForce::Open);
    assert_eq!(next(&mut events).await.reason, "forced open by anna: a bad disk");
    let before = first.calls();
    for _ in 0..50 {
        assert_eq!(*get(&client).await.unwrap().instance_id, *second.id);
    }
    assert_eq!(first.calls(), before);
    first.behave(Manner::Refuse(Code::Internal));
    decide(BreakerForce::Closed);
    assert_eq!(next(&mut events).await.kind(), EventKind::BreakerClosed);
    let before = first.calls();
    until("calls go there, whatever comes of them", async || {
        let _ = put(&client).await;
        first.calls() > before + 10
    })
    .await;
}

#[tokio::test]
async fn what_was_learned_of_an_endpoint_survives_snapshots() {
    let house = House::new();
    let client = house.client();
    let mut events = house.discovery.events();
    let only = house.instance("only").await;
    only.behave(Manner::Refuse(Code::Internal));
    for turn in 0..4 {
        assert_eq!(put(&client).await.unwrap_err().code(), Code::Internal);
        let mut words = only.words();
        words.version = turn.to_string();
        house.registry.put(words);
        let mut landscape = house.discovery.landscape();
        let seen =
            landscape.wait_for(|view| view.instances("pump").iter().any(|known| known.version == turn.to_string()));
        timeout(LONG, seen).await.expect("the discovery hears of it").unwrap();
    }
    house.registry.go_away();
    house.registry.come_back();
    assert_eq!(put(&client).await.unwrap_err().code(), Code::Internal);
    assert_eq!(next(&mut events).await.reason, "5 failures in a row: Internal: as the test wants");
}

#[tokio::test]
async fn calls_stay_in_their_zone_while_it_has_enough_left() {
    let (scope, registry) = (Scope::root("test"), Registry::new());
    let discovery = Discovery::start(registry.link(), Interest::Named, &scope).placed("here", "caller");
    let client = Client::new(discovery.channel("pump"));
    let start = async |id: &str, zone: &str| {
        let instance = Instance::start(id, &scope).await;
        let mut words = instance.words();
        words.zone = zone.to_owned();
        registry.put(words);
        instance
    };
    let there = start("there", "there").await;
    warm(&client, 1).await;
    let here = [start("here-1", "here").await, start("here-2", "here").await];
    until("the zone's own answer", async || {
        get(&client).await.unwrap();
        here.iter().all(|instance| instance.calls() > 3)
    })
    .await;
    let before = there.calls();
    for _ in 0..50 {
        assert!(get(&client).await.unwrap().instance_id.starts_with("here"));
    }
    assert_eq!(there.calls(), before);
    // Half of the zone is not enough for all of its calls.
    here[0].kill();
    until("some calls go elsewhere", async || {
        get(&client).await.unwrap();
        there.calls() > before
    })
    .await;
    let (near, far) = (here[1].calls(), there.calls());
    for _ in 0..200 {
        get(&client).await.unwrap();
    }
    assert!(here[1].calls() > near && there.calls() > far);
}

#[tokio::test]
async fn a_caller_keeps_to_its_subset() {
    let house = House::new();
    let balancing = Balancing { subset_size: 2, ..Balancing::default() };
    let mut instances = Vec::new();
    for id in ["a", "b", "c", "d", "e"] {
        instances.push(house.instance(id).await);
    }
    // A channel makes the discovery follow; the one that counts is made when all are known.
    let _follows = house.client();
    house.knows(5).await;
    let client = house.client_with(Policy { balancing, ..Policy::default() });
    let mut answered = BTreeSet::new();
    for _ in 0..100 {
        answered.insert(get(&client).await.unwrap().instance_id);
    }
    assert_eq!(answered.len(), 2, "{answered:?}");
}

#[tokio::test]
async fn the_same_key_finds_the_same_instance() {
    let house = House::new();
    let balancing =
        Balancing { method: BalancingMethod::RingHash, hash_header: "x-user".to_owned(), ..Balancing::default() };
    let client = house.client_with(Policy { balancing, ..Policy::default() });
    let _instances = [house.instance("a").await, house.instance("b").await, house.instance("c").await];
    warm(&client, 3).await;
    let ask = async |user: &str| {
        let mut request = Request::new(config::GetDocumentRequest::default());
        request.metadata_mut().insert("x-user", user.parse().unwrap());
        let response = client.clone().get_document(request).await.unwrap();
        response.extensions().get::<ninefold::connect::AnsweredBy>().unwrap().instance_id.clone()
    };
    let mut all = BTreeSet::new();
    for user in 0..30 {
        let user = user.to_string();
        let first = ask(&user).await;
        assert_eq!(ask(&user).await, first);
        all.insert(first);
    }
    assert_eq!(all.len(), 3);
}
