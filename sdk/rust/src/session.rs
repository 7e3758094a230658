//! Keeps an instance in the landscape: hands in its contract, registers it, beats, and comes back after every loss.
//!
//! Nothing here can stop the service that it speaks for. A platform that is away, or refuses, is tried again: soon where
//! that is worth it, slowly where somebody must change something first.

mod attempt;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use ninefold_proto::ninefold::registry::v1::{Event, Instance, InstanceState, Policy};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use crate::lifecycle::Scope;
use crate::link::Link;
use attempt::{Attempt, Ended};

/// Pause before the second attempt to join; doubles with each one.
const RETRY_MIN: Duration = Duration::from_millis(50);
/// Longest pause between attempts while the platform is away.
const RETRY_MAX: Duration = Duration::from_secs(1);
/// Pause after a refusal, which stands until somebody changes something.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);

/// What is registered.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The instance. Its state and its contract digest are set by the session.
    pub instance: Instance,
    /// Serialized `google.protobuf.FileDescriptorSet` of its contract, if it has one.
    pub descriptor_set: Option<Bytes>,
}

/// A place in the landscape that is being held. Dropping it changes nothing; see [`leave`](Self::leave).
#[derive(Clone, Debug)]
pub struct Session {
    wanted: watch::Sender<Wanted>,
    known: watch::Receiver<Known>,
}

/// What the instance wants the platform to know.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    state: InstanceState,
    reason: String,
    leaving: Option<String>,
}

/// What the platform has acknowledged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    /// The instance as the platform wrote it last. `None` while there is no session.
    pub instance: Option<Instance>,
    /// Why the platform asks the instance to drain and leave, if it does.
    pub drain: Option<String>,
    /// Why an operator wants that the instance takes no new calls, until further notice, if so.
    pub drained: Option<String>,
    /// Policy of the instance's own service, for what it takes in. `None` where it has none, or none is known yet; it
    /// stays while the platform is away.
    pub policy: Option<Arc<Policy>>,
    /// Whether the session has ended for good.
    pub left: bool,
    /// What the contract breaks, one text a finding, while the platform refuses it. The instance is registered all the
    /// same, as one that takes no calls.
    pub refused: Vec<String>,
}

/// Registers an instance and keeps it registered until the scope stops or [`Session::leave`] is called. `events` are told
/// to the platform as they come; those that come while it is away are forgotten.
///
/// Returns at once, whether the platform is there or not.
pub fn hold(registration: Registration, platform: Link, events: BoxStream<'static, Event>, scope: &Scope) -> Session {
    let state = match registration.instance.state() {
        InstanceState::Unspecified => InstanceState::Serving,
        known => known,
    };
    let wanted = watch::Sender::new(Wanted { state, reason: String::new(), leaving: None });
    let (tell, known) = watch::channel(Known::default());
    let mut attempt = Attempt::new(registration, platform, events, wanted.clone(), tell);
    scope.run("session.hold", |stop| async move {
        tokio::select! {
            () = keep(&mut attempt) => {}
            () = stop.asked() => {}
        }
    });
    Session { wanted, known }
}

impl Session {
    /// Says in which state the instance is, and waits until the platform has written it down, for `patience` at the
    /// longest. Tells whether it has; at once if there is no session. The state is told anew after a lost session.
    pub async fn set_state(&self, state: InstanceState, reason: &str, patience: Duration) -> bool {
        self.wanted.send_modify(|wanted| {
            wanted.state = state;
            wanted.reason = reason.to_owned();
        });
        if self.known.borrow().instance.is_none() {
            // Nobody is there to write it down; it is told with the next registration.
            return false;
        }
        let mut known = self.known.clone();
        let written = known.wait_for(|known| known.instance.as_ref().is_some_and(|instance| instance.state() == state));
        tokio::time::timeout(patience, written).await.is_ok_and(|written| written.is_ok())
    }

    /// Leaves the landscape for good; waits until the platform has heard it, for `patience` at the longest.
    pub async fn leave(&self, reason: &str, patience: Duration) {
        self.wanted.send_modify(|wanted| wanted.leaving = Some(reason.to_owned()));
        let mut known = self.known.clone();
        // A platform that is away forgets the instance by itself.
        let _ = tokio::time::timeout(patience, known.wait_for(|known| known.left)).await;
    }

    /// What the platform has acknowledged, as it changes.
    pub fn known(&self) -> watch::Receiver<Known> {
        self.known.clone()
    }

    /// Waits until the platform asks the instance to drain and leave; tells why. Cancel safe.
    pub async fn drain_requested(&self) -> String {
        let mut known = self.known.clone();
        let reason = match known.wait_for(|known| known.drain.is_some()).await {
            Ok(known) => known.drain.clone(),
            Err(_) => None,
        };
        match reason {
            Some(reason) => reason,
            // The session has ended; nobody will ask any more.
            None => std::future::pending().await,
        }
    }
}

/// Attempts to hold the session, over and over, until the instance leaves.
async fn keep(attempt: &mut Attempt) {
    let mut random = fastrand::Rng::new();
    let mut pause = RETRY_MIN;
    let mut silent = false;
    loop {
        let (ended, joined) = attempt.hold().await;
        if joined {
            pause = RETRY_MIN;
            silent = false;
        }
        let wait = match ended {
            Ended::Left => return,
            Ended::Lost(status) => {
                // Once per absence: a platform that is away is no news the tenth time.
                if !std::mem::replace(&mut silent, true) {
                    tracing::warn!(code = ?status.code(), error = status.message(), "the platform is away; serving on");
                }
                let wait = pause.mul_f64(0.5 + random.f64() / 2.0);
                pause = (pause * 2).min(RETRY_MAX);
                wait
            }
            Ended::Refused(status) => {
                if !std::mem::replace(&mut silent, true) {
                    let reason = crate::fault::reason(&status).unwrap_or_default();
                    let violations = attempt::violations(&status);
                    tracing::error!(
                        reason,
                        violations,
                        error = status.message(),
                        "the platform refused to register this"
                    );
                }
                REFUSED_PAUSE
            }
        };
        if attempt.leaves_within(wait).await {
            return;
        }
    }
}

/// The digest by which the platform knows a contract.
pub(crate) fn digest(descriptor_set: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(descriptor_set).iter().fold(String::from("sha256:"), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
