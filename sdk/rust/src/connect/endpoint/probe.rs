//! Asks an instance how it is, in the background, before any caller's request is risked: while its breaker is open, and
//! while the registry suspects it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tonic::Code;
use tonic::body::Body;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tower::service_fn;

use super::{Endpoint, address_to};
use crate::connect::breaker::{Breaker, Phase};
use crate::connect::landscape::{Protocol, State};

/// How long a health probe may take.
const PROBE_WAIT: Duration = Duration::from_secs(1);
/// How often it is looked whether a probe is due: another policy may have shortened the wait.
const PROBE_LOOK: Duration = Duration::from_secs(1);
/// How long the first probe of a suspect waits at most, drawn for each: all callers hear of a suspect at once.
const DOUBT_FIRST: Duration = Duration::from_millis(250);
/// How often a suspect is probed, up to a fifth more or less.
const DOUBT_EVERY: Duration = Duration::from_secs(2);

impl Endpoint {
    /// Whether the instance says that it serves, and says so in time.
    pub(crate) async fn is_up(self: &Arc<Self>) -> bool {
        tokio::time::timeout(PROBE_WAIT, check(self)).await.unwrap_or(false)
    }

    /// Begins to ask whether the instance is up, until its breaker has moved on.
    pub(super) fn probe(self: &Arc<Self>) {
        let weak = Arc::downgrade(self);
        let generation = self.breaker.generation();
        self.around.scope.run("connect.probe", |stop| async move {
            tokio::select! {
                () = probe(&weak, generation) => {}
                () = stop.asked() => {}
            }
        });
    }

    fn is_suspect(&self) -> bool {
        self.instance.load().state == State::Suspect
    }

    /// Begins to ask how the instance is, if the registry suspects it and nobody asks yet.
    pub(super) fn doubt(self: &Arc<Self>) {
        // Of plain HTTP no more can be asked than whether it takes connections, which those who connect find out.
        if self.around.speech == Protocol::Http || !self.is_suspect() || self.is_doubted.swap(true, Ordering::AcqRel) {
            return;
        }
        let weak = Arc::downgrade(self);
        self.around.scope.run("connect.doubt", |stop| async move {
            tokio::select! {
                () = doubt(&weak) => {}
                () = stop.asked() => {}
            }
        });
    }
}

/// Asks an endpoint that the registry suspects how it is, for as long as it does. One that does not answer well has its
/// breaker opened at once, which keeps calls away, asks on, and lets one call try where nobody else is left. The registry
/// counts that breaker as a report until it closes, which is why the first probe that succeeds closes it, calls or not.
async fn doubt(endpoint: &Weak<Endpoint>) {
    let mut wait = DOUBT_FIRST.mul_f64(fastrand::f64());
    loop {
        tokio::time::sleep(wait).await;
        wait = DOUBT_EVERY.mul_f64(0.8 + 0.4 * fastrand::f64());
        let Some(live) = endpoint.upgrade() else { return };
        if !live.is_suspect() {
            live.is_doubted.store(false, Ordering::Release);
            // It may have become one again just now.
            if !live.is_suspect() || live.is_doubted.swap(true, Ordering::AcqRel) {
                return;
            }
        }
        // To whom there is no connection, those who connect will find out; and whose breaker has moved is asked anyhow.
        if !live.is_connected() || live.breaker.phase() != Phase::Closed || live.is_up().await {
            continue;
        }
        if live.is_suspect() && live.is_connected() {
            let why = "the registry suspects it, and its health probe failed";
            let transition = live.breaker.doubted(live.now(), why);
            live.moved(transition);
        }
    }
}

/// Waits until a breaker is to be probed, and gives what it is part of; `None` once nobody has it any more, or it has moved
/// on from this generation.
pub(crate) async fn due<T>(
    part: &Weak<T>,
    generation: u32,
    breaker: impl Fn(&T) -> (&Breaker, Duration),
) -> Option<Arc<T>> {
    loop {
        let live = part.upgrade()?;
        let wait = {
            let (breaker, now) = breaker(&live);
            breaker.probe_at().filter(|_| breaker.generation() == generation)?.saturating_sub(now)
        };
        if wait.is_zero() {
            return Some(live);
        }
        drop(live);
        tokio::time::sleep(wait.min(PROBE_LOOK)).await;
    }
}

/// Asks an endpoint whose breaker is open whether it is up, until it is, or until the breaker has moved otherwise.
async fn probe(endpoint: &Weak<Endpoint>, generation: u32) {
    while let Some(live) = due(endpoint, generation, |live| (&live.breaker, live.now())).await {
        let is_up = live.is_up().await;
        if live.breaker.generation() != generation {
            return;
        }
        let transition = live.breaker.probed(live.now(), is_up);
        live.moved(transition);
    }
}

/// Whether the instance says that it serves. One that does not speak `grpc.health.v1` but answers is up, and of plain HTTP
/// one that takes connections.
async fn check(endpoint: &Arc<Endpoint>) -> bool {
    let Some(line) = endpoint.line() else { return false };
    if endpoint.around.speech == Protocol::Http {
        return line.reaches().await.unwrap_or(true);
    }
    let authority = &endpoint.authority;
    let line = &line;
    let mut client = HealthClient::new(service_fn(async move |mut request: http::Request<Body>| {
        address_to(&mut request, authority);
        line.send(request).await
    }));
    match client.check(HealthCheckRequest::default()).await {
        Ok(answer) => answer.into_inner().status() == ServingStatus::Serving,
        Err(status) => status.code() == Code::Unimplemented,
    }
}
