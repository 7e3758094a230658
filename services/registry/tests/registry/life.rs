//! Namespaces, what operators decide, drains that are seen, silence that is doubted, and reports that count.

use std::time::Duration;

use ninefold_proto::ninefold::registry::v1 as proto;
use ninefold_registry::Config;
use proto::hold_session_request::Message as Say;
use proto::hold_session_response::Message as Heard;
use proto::hold_watch_request::Message as Watcher;
use proto::{BreakerForce, EventKind, InstanceState, Override};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::house::{House, Session, check, instance};
use crate::memory::Memory;

fn within(namespace: &str, service: &str, id: &str) -> proto::Instance {
    proto::Instance { namespace: namespace.to_owned(), ..instance(service, id) }
}

async fn ids(house: &House, namespace: &str) -> Vec<String> {
    let request = proto::ListInstancesRequest { namespace: namespace.to_owned(), ..Default::default() };
    let listed = house.client.clone().list_instances(request).await.expect("a list is answered").into_inner().instances;
    listed.into_iter().map(|one| format!("{}/{}/{}", one.namespace, one.service, one.instance_id)).collect()
}

#[tokio::test(start_paused = true)]
async fn services_of_the_same_name_in_two_namespaces_never_mix() {
    let house = House::start().await;
    let (_here, _there) = (house.join("pump", "p-1").await, house.register(within("eu", "pump", "p-1")).await.unwrap());
    let _other = house.register(within("eu", "valve", "v-1")).await.unwrap();
    assert_eq!(ids(&house, "").await, ["default/pump/p-1"]);
    assert_eq!(ids(&house, "eu").await, ["eu/pump/p-1", "eu/valve/v-1"]);
    assert_eq!(ids(&house, "-").await, ["default/pump/p-1", "eu/pump/p-1", "eu/valve/v-1"]);
    let request = proto::ListServicesRequest { namespace: "eu".to_owned(), page_size: 1, ..Default::default() };
    let page = house.client.clone().list_services(request).await.unwrap().into_inner();
    assert_eq!((page.services[0].service.as_str(), page.services[0].instances), ("pump", 1));
    assert!(!page.next_page_token.is_empty());

    let mut watch = house.watch(&["pump"]).await;
    watch.until(&["p-1 SERVING"]).await;
    house.register(within("eu", "pump", "p-2")).await.unwrap().leave("").await;
    assert_eq!(watch.known.values().next().unwrap().namespace, "default");
    let request = proto::ListEventsRequest { namespace: "eu".to_owned(), ..Default::default() };
    let events = house.client.clone().list_events(request).await.unwrap().into_inner().events;
    assert!(events.iter().all(|event| event.namespace == "eu") && events.len() >= 6, "{events:?}");
    let request = proto::ListInstancesRequest { namespace: "No!".to_owned(), ..Default::default() };
    let refused = house.client.clone().list_instances(request).await.unwrap_err();
    check(&refused, Code::InvalidArgument, "NAMESPACE_INVALID");
}

async fn decide(house: &House, id: &str, decided: Option<Override>) -> Result<Option<proto::Instance>, tonic::Status> {
    let (service, instance_id) = ("pump".to_owned(), id.to_owned());
    let mut client = house.client.clone();
    match decided {
        Some(decided) => {
            let r#override = Some(decided);
            let request = proto::SetOverrideRequest { service, instance_id, r#override, ..Default::default() };
            Ok(client.set_override(request).await?.into_inner().instance)
        }
        None => {
            let request = proto::ClearOverrideRequest { service, instance_id, ..Default::default() };
            Ok(client.clear_override(request).await?.into_inner().instance)
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_decides_survives_the_instance_and_the_node() {
    let store = Memory::new();
    let house = House::node("node-1", store.clone(), Config::default()).await;
    let pump = house.join("pump", "p-1").await;
    let drain = Override { drain: true, author: "ann".to_owned(), reason: "disk".to_owned(), ..Default::default() };
    let now = decide(&house, "p-1", Some(drain)).await.unwrap().unwrap();
    assert_eq!((now.state(), now.state_reason.as_str()), (InstanceState::Draining, "drained by ann: disk"));
    pump.leave("restart").await;
    let pump = house.join("pump", "p-1").await;
    assert_eq!(house.states("pump").await, ["p-1 DRAINING"]);
    let other = House::node("node-2", store, Config::default()).await;
    assert_eq!(other.states("pump").await, ["p-1 DRAINING"], "a node that starts reads it");
    let weight = Override { weight: Some(7), force: BreakerForce::Open.into(), ..Default::default() };
    decide(&other, "p-1", Some(weight)).await.unwrap();
    house.until("pump", &["p-1 SERVING"]).await;
    let decided = house.instances("pump").await[0].r#override.clone().unwrap();
    assert_eq!((decided.weight, decided.force(), decided.time.is_some()), (Some(7), BreakerForce::Open, true));
    let cleared = decide(&house, "p-1", None).await.unwrap().unwrap();
    assert_eq!((&cleared.r#override, cleared.state()), (&None, InstanceState::Serving));
    assert_eq!(decide(&house, "p-1", None).await.unwrap().unwrap().state(), InstanceState::Serving);
    let story = house.story("pump").await;
    for line in ["p-1 OVERRIDE_SET drained by ann: disk", "p-1 DRAINING drained by ann: disk", "p-1 OVERRIDE_CLEARED"] {
        assert!(story.iter().any(|told| told == line), "{line} in {story:?}");
    }
    drop(pump);
}

#[tokio::test(start_paused = true)]
async fn an_override_that_makes_no_sense_is_refused() {
    let house = House::start().await;
    let _pump = house.join("pump", "p-1").await;
    for wrong in [Override::default(), Override { weight: Some(10_001), ..Default::default() }] {
        let refused = decide(&house, "p-1", Some(wrong)).await.unwrap_err();
        check(&refused, Code::InvalidArgument, "OVERRIDE_INVALID");
    }
    let drain = Override { drain: true, ..Default::default() };
    check(&decide(&house, "p-2", Some(drain)).await.unwrap_err(), Code::NotFound, "INSTANCE_UNKNOWN");
}

#[tokio::test(start_paused = true)]
async fn a_drain_is_answered_when_the_watchers_have_seen_it_or_were_waited_for() {
    let house = House::start().await;
    let mut pump = house.join("pump", "p-1").await;
    let (say, said) = mpsc::channel(4);
    let open = proto::OpenWatch { services: vec!["pump".to_owned()], ..Default::default() };
    say.send(proto::HoldWatchRequest { message: Some(Watcher::Open(open)) }).await.unwrap();
    let mut told = house.client.clone().hold_watch(ReceiverStream::new(said)).await.unwrap().into_inner();
    told.message().await.unwrap().unwrap();

    // It reads, and says nothing: it is waited for.
    let asked = tokio::time::Instant::now();
    pump.set(InstanceState::Draining, "stopping").await;
    assert!((Duration::from_secs(2)..Duration::from_secs(3)).contains(&asked.elapsed()), "{:?}", asked.elapsed());
    assert!(house.story("pump").await[3].starts_with("p-1 DRAIN_SEEN 0 of 1 watchers at revision "));

    pump.set(InstanceState::Serving, "").await;
    let acknowledge = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            let revision = told.message().await.unwrap().unwrap().revision;
            let message = Some(Watcher::Acknowledge(proto::AcknowledgeRevision { revision }));
            if say.send(proto::HoldWatchRequest { message }).await.is_err() {
                return;
            }
        }
    });
    let asked = tokio::time::Instant::now();
    tokio::select! {
        _ = acknowledge => panic!("the drain is answered"),
        _ = pump.set(InstanceState::Draining, "again") => {}
    }
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    let story = house.story("pump").await;
    assert!(story.last().unwrap().starts_with("p-1 DRAIN_SEEN 1 of 1 watchers"), "{story:?}");
}

async fn crowd(house: &House, count: usize) -> Vec<Session> {
    let mut sessions = Vec::new();
    for number in 0..count {
        sessions.push(house.join("pump", &format!("p-{number:02}")).await);
    }
    sessions
}

async fn preservation(house: &House) -> Option<proto::Preservation> {
    let services =
        house.client.clone().list_services(proto::ListServicesRequest::default()).await.expect("a list is answered");
    services.into_inner().services.into_iter().find(|one| one.service == "pump")?.preservation
}

#[tokio::test(start_paused = true)]
async fn when_many_fall_silent_at_once_none_is_removed_until_the_window_has_passed() {
    let house = House::start().await;
    let mut sessions = crowd(&house, 10).await;
    let leaver = sessions.pop().unwrap();
    drop(sessions.drain(..5));
    tokio::time::sleep(Duration::from_secs(3)).await;
    for session in &sessions {
        session.beat().await;
    }
    let states = house.states("pump").await;
    assert_eq!(states.iter().filter(|state| state.ends_with("SUSPECT")).count(), 5, "{states:?}");
    assert_eq!(preservation(&house).await, Some(proto::Preservation { lost: 5, of: 10 }));
    leaver.leave("scaled down").await;
    assert_eq!(house.states("pump").await.len(), 9, "who says goodbye goes at once");
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        for session in &sessions {
            session.beat().await;
        }
    }
    house.until("pump", &["p-05 SERVING", "p-06 SERVING", "p-07 SERVING", "p-08 SERVING"]).await;
    assert_eq!(preservation(&house).await, None);
    let story = house.story("pump").await;
    for kind in ["PRESERVATION_BEGAN", "PRESERVATION_ENDED"] {
        assert_eq!(story.iter().filter(|line| line.contains(kind)).count(), 1, "{story:?}");
    }
}

async fn report(session: &Session, kind: EventKind, id: &str) {
    let event = proto::Event {
        service: "pump".to_owned(),
        instance_id: id.to_owned(),
        kind: kind.into(),
        reason: "5 failures in a row".to_owned(),
        ..Default::default()
    };
    session.say(Say::ReportEvents(proto::ReportEvents { events: vec![event] })).await;
}

#[tokio::test(start_paused = true)]
async fn callers_make_an_instance_suspect_together_and_never_too_many() {
    let house = House::start().await;
    let pumps = crowd(&house, 4).await;
    let mut callers = Vec::new();
    for number in 0..3 {
        callers.push(house.join("valve", &format!("v-{number}")).await);
    }
    report(&callers[0], EventKind::BreakerOpened, "p-00").await;
    report(&callers[0], EventKind::BreakerOpened, "p-00").await;
    report(&callers[1], EventKind::BreakerOpened, "p-00").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(house.states("pump").await[0], "p-00 SERVING", "two of three is no quorum");
    report(&callers[2], EventKind::BreakerOpened, "p-00").await;
    let wanted = ["p-00 SUSPECT", "p-01 SERVING", "p-02 SERVING", "p-03 SERVING"];
    house.until("pump", &wanted).await;
    for caller in &callers {
        report(caller, EventKind::BreakerOpened, "p-01").await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(house.states("pump").await, wanted, "30 % of four is one");
    report(&callers[1], EventKind::BreakerClosed, "p-00").await;
    report(&callers[1], EventKind::BreakerClosed, "p-01").await;
    house.until("pump", &["p-00 SERVING", "p-01 SERVING", "p-02 SERVING", "p-03 SERVING"]).await;
    report(&callers[1], EventKind::BreakerOpened, "p-02").await;
    report(&callers[0], EventKind::BreakerOpened, "p-02").await;
    report(&callers[2], EventKind::BreakerOpened, "p-02").await;
    house.until("pump", &["p-00 SERVING", "p-01 SERVING", "p-02 SUSPECT", "p-03 SERVING"]).await;
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        for session in pumps.iter().chain(&callers) {
            session.beat().await;
        }
    }
    house.until("pump", &["p-00 SERVING", "p-01 SERVING", "p-02 SERVING", "p-03 SERVING"]).await;
    let story = house.story("pump").await;
    assert!(story.iter().any(|line| line.starts_with("p-00 REPORTED 3 callers report it")), "{story:?}");
}

#[tokio::test(start_paused = true)]
async fn an_operators_drain_is_told_to_the_instance_and_so_is_its_end() {
    let house = House::with(Config { beat_interval: Duration::from_secs(600), ..Config::default() }).await;
    let mut pump = house.join("pump", "p-1").await;
    let (say, mut watch) = acknowledging(&house, "p-2/caller").await;
    let drain = || Some(Override { drain: true, author: "ann".to_owned(), ..Default::default() });
    decide(&house, "p-1", drain()).await.unwrap();
    let Ok(Some(Heard::DrainRequested(asked))) = pump.hear().await else { panic!("the instance is asked to drain") };
    assert_eq!((asked.reason.as_str(), asked.stay), ("drained by ann", true));
    assert_eq!(house.states("pump").await, ["p-1 DRAINING"], "it stays");
    let seen = |story: &[String]| story.iter().filter(|line| line.contains("DRAIN_SEEN 1 of 1 watchers")).count();
    while seen(&house.story("pump").await) == 0 {
        let told = watch.message().await.unwrap().unwrap();
        acknowledge(&say, told.revision).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    decide(&house, "p-1", None).await.unwrap();
    assert!(matches!(pump.hear().await, Ok(Some(Heard::DrainWithdrawn(_)))));
    assert_eq!(house.states("pump").await, ["p-1 SERVING"]);

    // One that comes back to a decision is told of it again, and nobody has to see that again.
    decide(&house, "p-1", drain()).await.unwrap();
    pump.leave("restart").await;
    let count = seen(&house.story("pump").await);
    let mut pump = house.join("pump", "p-1").await;
    assert!(matches!(pump.hear().await, Ok(Some(Heard::DrainRequested(_)))));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(seen(&house.story("pump").await) <= count + 1);
}

/// A watcher of the pumps that acknowledges when it is told to.
async fn acknowledging(house: &House, who: &str) -> (mpsc::Sender<proto::HoldWatchRequest>, Answers) {
    let (say, said) = mpsc::channel(16);
    let open = proto::OpenWatch { services: vec!["pump".to_owned()], watcher: who.to_owned(), ..Default::default() };
    say.send(proto::HoldWatchRequest { message: Some(Watcher::Open(open)) }).await.expect("the watcher is heard");
    let answers = house.client.clone().hold_watch(ReceiverStream::new(said)).await.expect("a watch").into_inner();
    (say, answers)
}

async fn acknowledge(say: &mpsc::Sender<proto::HoldWatchRequest>, revision: i64) {
    let acknowledged = Watcher::Acknowledge(proto::AcknowledgeRevision { revision });
    say.send(proto::HoldWatchRequest { message: Some(acknowledged) }).await.expect("the watcher is heard");
}

type Answers = tonic::Streaming<proto::HoldWatchResponse>;

/// Listens for a moment: in one process what a watcher says is heard while it waits for an answer.
async fn listen(answers: &mut Answers) {
    let _ = tokio::time::timeout(Duration::from_millis(50), answers.message()).await;
}

/// How many watchers of the pumps are at their revision, of how many, as a node tells.
async fn watchers(house: &House) -> (u32, u32) {
    let request = proto::ListServicesRequest::default();
    let services = house.client.clone().list_services(request).await.expect("a list").into_inner().services;
    services.first().map_or((0, 0), |pump| (pump.watchers_current, pump.watchers))
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_the_watchers_of_every_node_and_all_are_counted_together() {
    let store = Memory::new();
    let config =
        Config { drain_notice: Duration::from_secs(20), beat_interval: Duration::from_secs(60), ..Config::default() };
    let first = House::node("node-1", store.clone(), config.clone()).await;
    let second = House::node("node-2", store, config).await;
    let mut pump = first.join("pump", "p-1").await;
    let (say_here, mut here) = acknowledging(&first, "here").await;
    let (say_there, mut there) = acknowledging(&second, "there").await;
    acknowledge(&say_here, here.message().await.unwrap().unwrap().revision).await;
    acknowledge(&say_there, there.message().await.unwrap().unwrap().revision).await;
    while watchers(&first).await != (2, 2) || watchers(&second).await != (2, 2) {
        listen(&mut here).await;
        listen(&mut there).await;
    }

    pump.say(Say::SetState(proto::SetState { state: InstanceState::Draining.into(), reason: "stop".to_owned() })).await;
    acknowledge(&say_here, here.message().await.unwrap().unwrap().revision).await;
    let there_at = there.message().await.unwrap().unwrap().revision;
    for _ in 0..20 {
        listen(&mut here).await;
    }
    assert_eq!((watchers(&first).await, watchers(&second).await), ((1, 2), (1, 2)));
    assert!(!first.story("pump").await.iter().any(|line| line.contains("DRAIN_SEEN")), "the other node is waited for");
    acknowledge(&say_there, there_at).await;
    let heard = tokio::select! {
        heard = pump.hear() => heard,
        () = async { loop { listen(&mut there).await } } => unreachable!("it listens for ever"),
    };
    assert!(matches!(heard, Ok(Some(Heard::StateChanged(_)))));
    let story = first.story("pump").await;
    assert!(story.iter().any(|line| line.contains("DRAIN_SEEN 2 of 2 watchers at revision")), "{story:?}");

    // A node that stops takes its watchers out of the count.
    second.stop().await;
    while watchers(&first).await != (1, 1) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn instances_whose_node_died_are_kept_while_there_are_too_many_and_go_by_themselves() {
    let store = Memory::new();
    let first = House::node("node-1", store.clone(), Config::default()).await;
    let config = Config { beat_interval: Duration::from_secs(600), ..Config::default() };
    let second = House::node("node-2", store, config).await;
    let mut watch = second.watch(&[]).await;
    let mut sessions = Vec::new();
    for number in 0..4 {
        sessions.push(first.join("pump", &format!("p-{number}")).await);
    }
    let _lives = second.join("pump", "p-9").await;
    first.stop().await;
    drop(sessions);
    tokio::time::sleep(Duration::from_secs(20)).await;
    let all = ["p-0 SUSPECT", "p-1 SUSPECT", "p-2 SUSPECT", "p-3 SUSPECT", "p-9 SERVING"];
    assert_eq!(second.states("pump").await, all, "four of five at once are not believed");
    watch.until(&all).await;
    assert_eq!(watch.removed, 0);
    let request = proto::ListServicesRequest::default();
    let services = second.client.clone().list_services(request).await.unwrap().into_inner().services;
    assert_eq!(services[0].preservation, Some(proto::Preservation { lost: 4, of: 5 }));
    let kept = second.instances("pump").await.swap_remove(0).state_reason;
    assert_eq!(kept, "kept, because too many fell silent at once; its lease ran out");

    // One is heard again, and one says goodbye: both count at once.
    let _back = second.join("pump", "p-0").await;
    second.join("pump", "p-1").await.leave("done").await;
    watch.until(&["p-0 SERVING", "p-2 SUSPECT", "p-3 SUSPECT", "p-9 SERVING"]).await;
    assert_eq!(watch.removed, 1);
    tokio::time::sleep(Duration::from_secs(70)).await;
    assert_eq!(second.states("pump").await, ["p-0 SERVING", "p-9 SERVING"]);
    assert!(second.story("pump").await.iter().any(|line| line.contains("PRESERVATION_ENDED")));
}

#[tokio::test(start_paused = true)]
async fn reporters_through_several_nodes_make_no_more_suspect_than_through_one() {
    for _ in 0..10 {
        let store = Memory::new();
        let config = Config { beat_interval: Duration::from_secs(600), ..Config::default() };
        let mut nodes = Vec::new();
        for number in 0..4 {
            nodes.push(House::node(&format!("node-{number}"), store.clone(), config.clone()).await);
        }
        let (mut pumps, mut callers) = (Vec::new(), Vec::new());
        for (number, node) in nodes.iter().enumerate() {
            pumps.push(node.join("pump", &format!("p-{number}")).await);
            callers.push(node.join("valve", &format!("v-{number}")).await);
        }
        // Everybody reports everybody at the same moment, and each pump's node decides for itself.
        for number in 0..4 {
            for caller in &callers {
                report(caller, EventKind::BreakerOpened, &format!("p-{number}")).await;
            }
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        let states = nodes[0].states("pump").await;
        let suspect = states.iter().filter(|state| state.ends_with("SUSPECT")).count();
        assert_eq!(suspect, 1, "30 % of four is one, whoever decides: {states:?}");
        drop((pumps, callers));
        for node in &nodes {
            node.stop().await;
        }
    }
}
