//! Two nodes, one store, and a dozen instances, to which things happen at random: the real registry, with time held.
//!
//! What must hold, whatever happens: nobody who lives is missing once things are quiet; nobody who is dead is there once
//! its lease is over; who said goodbye does not come back; a service with somebody alive was never told to be empty; and
//! a watcher knows what a list tells. Each seed is a story of its own, and is printed where it breaks.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use futures_util::FutureExt as _;
use ninefold_registry::Config;

use crate::house::{House, Session};
use crate::memory::Memory;

/// How many stories are told, and how long each is.
const SEEDS: u64 = 40;
const STEPS: usize = 60;
const INSTANCES: usize = 12;
/// Longer than a lease, a window of preservation, and every wait in between.
const QUIET: Duration = Duration::from_secs(90);

struct World {
    random: Rng,
    store: Memory,
    nodes: [House; 2],
    /// Sessions of those who live; `None` for one that is between two sessions.
    alive: BTreeMap<String, Option<Session>>,
}

impl World {
    async fn new(seed: u64) -> Self {
        fastrand::seed(seed);
        let store = Memory::new();
        let first = House::node("node-1", store.clone(), Config::default()).await;
        let second = House::node("node-2", store.clone(), Config::default()).await;
        Self { random: Rng::with_seed(seed), store, nodes: [first, second], alive: BTreeMap::new() }
    }

    async fn join(&mut self, id: &str) {
        let start_time = Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 0 });
        let instance =
            ninefold_proto::ninefold::registry::v1::Instance { start_time, ..crate::house::instance("pump", id) };
        let node = self.random.usize(..2);
        // A store that is away refuses; the instance tries again later.
        let session = self.nodes[node].register(instance).await.ok();
        self.alive.insert(id.to_owned(), session);
    }

    async fn step(&mut self) {
        let id = format!("p-{:02}", self.random.usize(..INSTANCES));
        match self.random.u32(..100) {
            // It starts; or its connection breaks and it joins again, perhaps at the other node.
            0..40 => self.join(&id).await,
            // It is killed, and somebody sees that its connection broke.
            40..50 => _ = self.alive.remove(&id),
            // Its connection breaks, and it is not back yet.
            50..60 => {
                if let Some(session) = self.alive.get_mut(&id) {
                    *session = None;
                }
            }
            60..70 => {
                if let Some(Some(session)) = self.alive.remove(&id) {
                    // While the store is away a farewell waits; it is not waited for here.
                    let _ = tokio::time::timeout(Duration::from_millis(50), session.leave("goodbye")).await;
                }
            }
            // The node dies, with all its sessions, and starts again.
            70..75 => {
                let node = self.random.usize(..2);
                self.nodes[node].stop().await;
                let name = if node == 0 { "node-1" } else { "node-2" };
                self.store.set_away(false);
                self.nodes[node] = House::node(name, self.store.clone(), Config::default()).await;
                self.rejoin().await;
            }
            75..82 => self.store.set_away(true),
            82..92 => self.store.set_away(false),
            92..95 => self.store.compact(),
            _ => self.store.end_leases(),
        }
        let pause = Duration::from_millis(self.random.u64(..1500));
        self.pass(pause).await;
    }

    /// Those who live and have no session, or one that has ended, join again; as the SDK does.
    async fn rejoin(&mut self) {
        let ids: Vec<String> = self.alive.keys().cloned().collect();
        for id in ids {
            let is_open = match self.alive.get(&id) {
                Some(Some(session)) => session.is_open(),
                _ => false,
            };
            if !is_open {
                self.join(&id).await;
            }
        }
    }

    /// Lets time pass, with beats.
    async fn pass(&mut self, time: Duration) {
        let end = tokio::time::Instant::now() + time;
        while tokio::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_secs(1).min(end - tokio::time::Instant::now())).await;
            for session in self.alive.values().flatten().filter(|session| session.is_open()) {
                session.try_beat();
            }
        }
    }
}

async fn story(seed: u64) {
    let mut world = World::new(seed).await;
    for _ in 0..STEPS {
        world.step().await;
    }
    world.store.set_away(false);
    // Registrations may have been refused, or their answers lost, while the store was away.
    for _ in 0..20 {
        world.pass(Duration::from_secs(1)).await;
        world.rejoin().await;
    }
    world.pass(QUIET).await;
    let wanted: Vec<String> = world.alive.keys().map(|id| format!("{id} SERVING")).collect();
    for node in &world.nodes {
        assert_eq!(node.states("pump").await, wanted, "seed {seed}: neither lost nor phantom");
        let mut watch = node.watch(&["pump"]).await;
        watch.next().await;
        assert_eq!(watch.states(), wanted, "seed {seed}: a watcher knows what a list tells");
    }
    for node in &world.nodes {
        node.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_nobody_is_lost_and_nobody_is_a_phantom() {
    for seed in 0..SEEDS {
        println!("seed {seed}");
        story(seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_instances_that_register_at_once_are_all_there() {
    let house = House::start().await;
    let ids: Vec<String> = (0..1000).map(|number| format!("p-{number:03}")).collect();
    let joins = ids.iter().map(|id| house.join("pump", id).boxed());
    let sessions = futures_util::future::join_all(joins).await;
    assert_eq!(house.states("pump").await.len(), 1000);
    assert!(house.store.leases() <= 5, "{} leases", house.store.leases());
    drop(sessions);
}
