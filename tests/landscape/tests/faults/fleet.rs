//! Many instances at once, each with a session of its own, as the SDK holds them.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, TryStreamExt as _};
use ninefold::Link;
use ninefold::lifecycle::Scope;
use ninefold::session::{self, Registration, Session};
use ninefold_proto::ninefold::registry::v1::{Address, Instance, InstanceState};
use tokio::sync::{Mutex, MutexGuard};
use tonic::transport::Endpoint;

/// Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(300);
/// Instances that share a connection.
const PER_CONNECTION: usize = 10;
/// Crowds come one after the other: two at once would measure each other.
static TURN: Mutex<()> = Mutex::const_new(());

/// Waits until no other test has a crowd at work; holds until dropped.
pub(crate) async fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().await
}

/// A connection that nobody pings: a machine with more to do than it can would take its own crowd for dead.
fn patient(endpoint: &str) -> Result<Link> {
    Ok(Link::new(Endpoint::from_shared(endpoint.to_owned())?.connect_lazy()))
}

/// Instances of one service.
pub(crate) struct Fleet {
    sessions: Vec<Session>,
    scope: Scope,
}

impl Fleet {
    /// Registers `count` instances at once, and waits until each is told that it is.
    pub(crate) async fn register(endpoint: &str, service: &str, count: usize) -> Result<Self> {
        let scope = Scope::root("fleet");
        let mut sessions = Vec::with_capacity(count);
        let mut platform = patient(endpoint)?;
        for number in 0..count {
            if number % PER_CONNECTION == 0 {
                platform = patient(endpoint)?;
            }
            let instance = Instance {
                service: service.to_owned(),
                instance_id: format!("{service}-{number:04}"),
                addresses: vec![Address { host: "127.0.0.1".to_owned(), port: 20_000 + u32::try_from(number)? }],
                ..Instance::default()
            };
            let registration = Registration { instance, descriptor_set: None };
            sessions.push(session::hold(
                registration,
                platform.clone(),
                futures_util::stream::pending().boxed(),
                &scope,
            ));
        }
        let fleet = Self { sessions, scope };
        fleet.settle().await?;
        Ok(fleet)
    }

    /// Waits until each has a session.
    pub(crate) async fn settle(&self) -> Result<()> {
        let all = futures_util::stream::iter(&self.sessions).map(Ok).try_for_each_concurrent(None, async |session| {
            session.known().wait_for(|known| known.instance.is_some()).await?;
            anyhow::Ok(())
        });
        let settled = tokio::time::timeout(PATIENCE, all).await;
        settled.with_context(|| format!("{} of {} have a session", self.held(), self.sessions.len()))?
    }

    /// How many have a session now.
    pub(crate) fn held(&self) -> usize {
        self.sessions.iter().filter(|session| session.known().borrow().instance.is_some()).count()
    }

    /// Changes the state of one instance.
    pub(crate) async fn set_state(&self, number: usize, state: InstanceState) -> bool {
        self.sessions[number].set_state(state, "for the test", PATIENCE).await
    }

    /// Ends all connections without a word.
    pub(crate) async fn die(self) {
        self.scope.close(Duration::ZERO).await;
    }
}
