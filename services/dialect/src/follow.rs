//! Follows the registry, and keeps the world that the dialects tell.
//!
//! When the registry is away, what was known stays. A service whose last instance left is told as one without endpoints
//! for a while, so that nobody's calls lose their route over a restart; then its routes go, then its clusters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ninefold::Link;
use ninefold::lifecycle::Stop;
use ninefold_proto::ninefold::registry::v1 as words;
use tokio::sync::watch;
use tokio::time::Instant;
use words::registry_service_client::RegistryServiceClient;
use words::watch_instances_response::Message;

use crate::model::{Name, Service, World};

/// A snapshot of a large landscape is larger than gRPC's usual 4 MiB.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// First and longest pause before the registry is asked again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// How long the clusters of a service are told after its routes.
const CLUSTERS_LINGER: Duration = Duration::from_secs(5);

/// What is known, and how it is told.
#[derive(Debug)]
pub(crate) struct Follower {
    world: watch::Sender<Arc<World>>,
    /// How long a service is told after its last instance left.
    linger: Duration,
    /// When what is not there is taken as not being there.
    settled: Instant,
    instances: BTreeMap<Name, BTreeMap<String, Arc<words::Instance>>>,
    policies: BTreeMap<Name, words::Policy>,
    /// Services without instances, and since when.
    left: BTreeMap<Name, Instant>,
}

impl Follower {
    /// Makes a follower that tells into `world`. `settle` is how long instances have to come back after a start.
    pub(crate) fn new(world: watch::Sender<Arc<World>>, linger: Duration, settle: Duration) -> Self {
        let (instances, policies, left) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { world, linger, settled: Instant::now() + settle, instances, policies, left }
    }

    /// Follows until it is asked to stop.
    pub(crate) async fn run(mut self, registry: Link, stop: Stop) {
        let client = RegistryServiceClient::new(registry).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let mut pause = PAUSE.0;
        loop {
            let heard = tokio::select! {
                heard = self.listen(client.clone()) => heard,
                () = stop.asked() => return,
            };
            pause = if heard { PAUSE.0 } else { (pause * 2).min(PAUSE.1) };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.asked() => return,
            }
        }
    }

    /// Watches until the stream ends; answers whether anything was heard.
    async fn listen(&mut self, mut client: RegistryServiceClient<Link>) -> bool {
        let mut heard = false;
        let opened = client.watch_instances(words::WatchInstancesRequest::default()).await;
        let mut messages = match opened {
            Ok(messages) => messages.into_inner(),
            Err(status) => {
                tracing::debug!(code = ?status.code(), message = status.message(), "the registry does not answer");
                return heard;
            }
        };
        loop {
            let message = tokio::select! {
                message = messages.message() => message,
                () = tokio::time::sleep_until(self.wake()) => {
                    self.forget();
                    continue;
                }
            };
            match message {
                Ok(Some(message)) => {
                    heard = true;
                    self.take(message);
                }
                Ok(None) => return heard,
                Err(status) => {
                    tracing::debug!(code = ?status.code(), message = status.message(), "the registry is lost");
                    return heard;
                }
            }
        }
    }

    /// Takes in what the registry says.
    pub(crate) fn take(&mut self, message: words::WatchInstancesResponse) {
        let mut touched = BTreeSet::new();
        match message.message {
            Some(Message::Snapshot(snapshot)) => {
                touched.extend(std::mem::take(&mut self.instances).into_keys());
                touched.extend(std::mem::take(&mut self.policies).into_keys());
                self.upsert(snapshot.instances, &mut touched);
                self.set_policies(snapshot.policies, &mut touched);
            }
            Some(Message::Delta(delta)) => {
                self.upsert(delta.upserts, &mut touched);
                for key in delta.removes {
                    self.remove(&key, &mut touched);
                }
                self.set_policies(delta.policies, &mut touched);
            }
            Some(Message::Heartbeat(_)) | None => {}
        }
        self.tell(&touched);
    }

    fn upsert(&mut self, instances: Vec<words::Instance>, touched: &mut BTreeSet<Name>) {
        for instance in instances {
            let name = Name::new(&instance.service, &instance.namespace);
            let of_service = self.instances.entry(name.clone()).or_default();
            of_service.insert(instance.instance_id.clone(), Arc::new(instance));
            touched.insert(name);
        }
    }

    fn remove(&mut self, key: &words::InstanceKey, touched: &mut BTreeSet<Name>) {
        // A key names no namespace; ids are unique within a service's name.
        for (name, of_service) in self.instances.iter_mut().filter(|(name, _)| name.service() == key.service) {
            if of_service.remove(&key.instance_id).is_some() {
                touched.insert(name.clone());
            }
        }
        self.instances.retain(|_, of_service| !of_service.is_empty());
    }

    fn set_policies(&mut self, policies: Vec<words::Policy>, touched: &mut BTreeSet<Name>) {
        for policy in policies {
            let Some(name) = Name::parse(&policy.service) else { continue };
            touched.insert(name.clone());
            self.policies.insert(name, policy);
        }
    }

    /// When something is to be forgotten next; far away if nothing is.
    fn wake(&self) -> Instant {
        let now = Instant::now();
        let ends = self.left.values().flat_map(|since| {
            let routes = *since + self.linger;
            [routes, routes + CLUSTERS_LINGER]
        });
        let ends = ends.chain([self.settled]);
        ends.filter(|end| *end > now).min().unwrap_or(now + Duration::from_secs(3600))
    }

    fn forget(&mut self) {
        let now = Instant::now();
        let due = self.left.iter().filter(|(_, since)| now >= **since + self.linger).map(|(name, _)| name.clone());
        let touched = due.collect();
        self.tell(&touched);
    }

    /// Tells the services that changed anew.
    fn tell(&mut self, touched: &BTreeSet<Name>) {
        let before = self.world.borrow().clone();
        let now = Instant::now();
        let is_settled = now >= self.settled;
        if touched.is_empty() && before.is_known && before.is_settled == is_settled {
            return;
        }
        let services = before.services.clone();
        let mut world = World { moment: before.moment + 1, is_known: true, is_settled, services };
        for name in touched {
            let instances: Vec<_> =
                self.instances.get(name).map(|all| all.values().cloned().collect()).unwrap_or_default();
            let mut is_leaving = false;
            if instances.is_empty() {
                let since = *self.left.entry(name.clone()).or_insert(now);
                is_leaving = now >= since + self.linger;
                if now >= since + self.linger + CLUSTERS_LINGER || !before.services.contains_key(name) {
                    self.left.remove(name);
                    world.services.remove(name);
                    continue;
                }
            } else {
                self.left.remove(name);
            }
            let policy = self.policies.get(name).cloned().unwrap_or_default();
            let service = Service::new(name.clone(), instances, policy, is_leaving);
            world.services.insert(name.clone(), Arc::new(service));
        }
        self.world.send_replace(Arc::new(world));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(message: Message) -> words::WatchInstancesResponse {
        words::WatchInstancesResponse { message: Some(message), revision: 1 }
    }

    fn serving(id: &str) -> words::Instance {
        words::Instance {
            service: "pump".to_owned(),
            instance_id: id.to_owned(),
            addresses: vec![words::Address { host: "10.0.0.1".to_owned(), port: id.as_bytes()[0].into() }],
            state: words::InstanceState::Serving.into(),
            ..words::Instance::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_left_is_told_as_empty_then_without_routes_then_not_at_all() {
        let world = watch::Sender::new(Arc::<World>::default());
        let mut follower = Follower::new(world.clone(), Duration::from_secs(60), Duration::ZERO);
        let snapshot = words::Snapshot { instances: vec![serving("a")], policies: Vec::new() };
        follower.take(said(Message::Snapshot(snapshot)));
        let name = Name::new("pump", "");
        let seen = || world.borrow().services.get(&name).map(|pump| (pump.endpoints.len(), pump.is_leaving));
        assert_eq!(seen(), Some((1, false)));
        let removes = vec![words::InstanceKey {
            service: "pump".to_owned(),
            instance_id: "a".to_owned(),
            ..words::InstanceKey::default()
        }];
        follower.take(said(Message::Delta(words::Delta { removes, ..words::Delta::default() })));
        assert_eq!(seen(), Some((0, false)));
        for expected in [Some((0, true)), None] {
            tokio::time::advance(follower.wake() - Instant::now()).await;
            follower.forget();
            assert_eq!(seen(), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_snapshot_replaces_what_was_known() {
        let world = watch::Sender::new(Arc::<World>::default());
        let mut follower = Follower::new(world.clone(), Duration::from_secs(60), Duration::ZERO);
        for ids in [vec!["a", "b"], vec!["c"]] {
            let instances = ids.iter().map(|id| serving(id)).collect();
            follower.take(said(Message::Snapshot(words::Snapshot { instances, policies: Vec::new() })));
            let services = world.borrow().services.clone();
            let told: Vec<_> = services[&Name::new("pump", "")].endpoints.iter().map(|one| &one.instance_id).collect();
            assert_eq!(told, ids);
        }
    }
}
