//! What watchers that acknowledge are told, and what is known of them.

use std::collections::BTreeMap;
use std::time::Duration;

use ninefold::connect::digest;
use ninefold_proto::ninefold::registry::v1 as proto;
use ninefold_registry::Config;
use proto::InstanceState;
use proto::hold_watch_request::Message as Say;
use proto::hold_watch_response::Message as Told;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::house::{House, check};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A watcher that keeps what it is told, and checks the digest of every message.
struct Held {
    say: mpsc::Sender<proto::HoldWatchRequest>,
    stream: Streaming<proto::HoldWatchResponse>,
    known: BTreeMap<(String, String), proto::Instance>,
    last: proto::HoldWatchResponse,
}

async fn open<S>(house: &House<S>, open: proto::OpenWatch) -> Result<Held, Status> {
    let (say, said) = mpsc::channel(16);
    say.try_send(proto::HoldWatchRequest { message: Some(Say::Open(open)) }).expect("the channel is empty");
    let stream = house.client.clone().hold_watch(ReceiverStream::new(said)).await?.into_inner();
    Ok(Held { say, stream, known: BTreeMap::new(), last: proto::HoldWatchResponse::default() })
}

fn following(services: &[&str], known_revision: i64) -> proto::OpenWatch {
    let services = services.iter().map(|&service| service.to_owned()).collect();
    proto::OpenWatch { services, watcher: "test/t-1".to_owned(), known_revision, ..Default::default() }
}

impl Held {
    async fn next(&mut self) -> Told {
        let told = tokio::time::timeout(PATIENCE, self.stream.message()).await.expect("the watch says something");
        self.last = told.expect("the watch lives").expect("the watch goes on");
        let message = self.last.message.clone().expect("it is one of the three");
        let key = |instance: &proto::Instance| (instance.service.clone(), instance.instance_id.clone());
        match &message {
            Told::Snapshot(snapshot) => {
                self.known = snapshot.instances.iter().map(|one| (key(one), one.clone())).collect();
            }
            Told::Delta(delta) => {
                for gone in &delta.removes {
                    self.known.remove(&(gone.service.clone(), gone.instance_id.clone()));
                }
                self.known.extend(delta.upserts.iter().map(|one| (key(one), one.clone())));
            }
            Told::Heartbeat(_) => {}
        }
        assert_eq!(Some(self.digest()), self.last.digest, "what is known is what the registry says");
        message
    }

    fn digest(&self) -> u64 {
        self.known
            .values()
            .fold(0, |sum, one| sum ^ digest(&one.namespace, &one.service, &one.instance_id, one.revision))
    }

    fn ids(&self) -> Vec<&str> {
        self.known.keys().map(|(_, id)| id.as_str()).collect()
    }

    async fn acknowledge(&self) {
        let revision = self.last.revision;
        let message = Some(Say::Acknowledge(proto::AcknowledgeRevision { revision }));
        self.say.send(proto::HoldWatchRequest { message }).await.expect("the watch listens");
    }
}

async fn watchers<S>(house: &House<S>, service: &str) -> proto::ListWatchersResponse {
    let request = proto::ListWatchersRequest { service: service.to_owned(), ..Default::default() };
    house.client.clone().list_watchers(request).await.expect("a list is answered").into_inner()
}

#[tokio::test(start_paused = true)]
async fn the_registry_knows_how_far_each_watcher_has_got() {
    // Nobody beats here, and nobody is to be lost for it.
    let house = House::with(Config { beat_interval: Duration::from_secs(60), ..Config::default() }).await;
    let mut pump = house.join("pump", "p-1").await;
    let mut watch = open(&house, following(&["pump"], 0)).await.unwrap();
    let _silent = house.watch(&["pump"]).await;
    assert!(matches!(watch.next().await, Told::Snapshot(_)));
    assert!(!watch.last.watch_id.is_empty());
    watch.acknowledge().await;
    let changed = pump.set(InstanceState::Draining, "").await;
    watch.next().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let list = watchers(&house, "pump").await;
    assert_eq!((list.acknowledging, list.acknowledged, list.revision), (1, 0, changed.revision));
    assert_eq!(list.watchers.len(), 2, "one that does not acknowledge is there and not waited for");
    let one = &list.watchers[0];
    assert_eq!(one.watcher.as_str(), "test/t-1");
    assert!(one.sent_revision >= changed.revision);
    assert!(one.acknowledges && one.lag.is_some() && one.acknowledged_revision < changed.revision);
    watch.acknowledge().await;
    // In one process an answer is made, and what was said heard, while somebody waits for it.
    while !matches!(watch.next().await, Told::Heartbeat(_)) {}
    assert_eq!(watchers(&house, "pump").await.acknowledged, 1);
    assert_eq!(watchers(&house, "pump").await.watchers[0].lag, None);
    assert_eq!(watchers(&house, "valve").await.watchers.len(), 0);
    drop(watch);
    while watchers(&house, "pump").await.acknowledging > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_comes_back_is_told_only_what_changed() {
    let house = House::start().await;
    let _pumps = (house.join("pump", "p-1").await, house.join("pump", "p-2").await);
    let third = house.join("pump", "p-3").await;
    let mut watch = open(&house, following(&["pump"], 0)).await.unwrap();
    watch.next().await;
    let (known, revision) = (watch.known.clone(), watch.last.revision);
    drop(watch);
    third.leave("").await;
    let _fourth = house.join("pump", "p-4").await;
    let mut watch = open(&house, following(&["pump"], revision)).await.unwrap();
    watch.known = known;
    let Told::Delta(delta) = watch.next().await else { panic!("the node remembers that far") };
    assert_eq!((delta.upserts.len(), delta.removes.len()), (1, 1));
    assert_eq!(watch.ids(), ["p-1", "p-2", "p-4"]);
    let mut future = open(&house, following(&["pump"], 1_000_000)).await.unwrap();
    assert!(matches!(future.next().await, Told::Snapshot(_)), "nobody can know what is still to come");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_has_just_started_is_not_sure_of_what_it_does_not_see() {
    let house = House::with(Config { lease: Duration::from_secs(10), ..Config::default() }).await;
    let mut watch = open(&house, following(&["pump"], 0)).await.unwrap();
    watch.next().await;
    assert!(!watch.last.authoritative);
    while !watch.last.authoritative {
        watch.next().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_not_opened_is_refused() {
    let house = House::start().await;
    let ask = async |message| {
        let (say, said) = mpsc::channel(1);
        say.try_send(proto::HoldWatchRequest { message }).unwrap();
        house.client.clone().hold_watch(ReceiverStream::new(said)).await.unwrap_err()
    };
    let early = Some(Say::Acknowledge(proto::AcknowledgeRevision { revision: 1 }));
    check(&ask(early).await, Code::FailedPrecondition, "WATCH_UNOPENED");
    check(&ask(None).await, Code::FailedPrecondition, "WATCH_UNOPENED");
    let wrong = Some(Say::Open(following(&["A b"], 0)));
    check(&ask(wrong).await, Code::InvalidArgument, "WATCH_INVALID");
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_replaying_what_is_told_is_what_is_there() {
    for seed in 0..8 {
        let mut random = fastrand::Rng::with_seed(seed);
        let house = House::with(Config { beat_interval: Duration::from_secs(3600), ..Config::default() }).await;
        let mut all = open(&house, following(&[], 0)).await.unwrap();
        let mut some = open(&house, following(&["s-0", "s-2"], 0)).await.unwrap();
        let mut sessions = BTreeMap::new();
        for _ in 0..200 {
            let key = (format!("s-{}", random.u8(0..3)), format!("i-{}", random.u8(0..4)));
            match (random.u8(0..8), sessions.remove(&key)) {
                (0..4, None) => _ = sessions.insert(key.clone(), house.join(&key.0, &key.1).await),
                (0..4, Some(mut session)) => {
                    session.set(InstanceState::Draining, "").await;
                    session.set(InstanceState::Serving, "").await;
                    sessions.insert(key, session);
                }
                (4, Some(session)) => session.leave("").await,
                (5, kept) => {
                    sessions.extend(kept.map(|session| (key, session)));
                    // Comes back, and knows what it knew.
                    let mut back = open(&house, following(&["s-0", "s-2"], some.last.revision)).await.unwrap();
                    back.known = std::mem::take(&mut some.known);
                    some = back;
                    some.next().await;
                }
                (_, kept) => {
                    sessions.extend(kept.map(|session| (key, session)));
                    all.next().await;
                }
            }
        }
        while !matches!(all.next().await, Told::Heartbeat(_)) {}
        while !matches!(some.next().await, Told::Heartbeat(_)) {}
        assert_eq!(all.known.values().cloned().collect::<Vec<_>>(), house.instances("").await, "seed {seed}");
    }
}
