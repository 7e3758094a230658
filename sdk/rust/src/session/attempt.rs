//! One attempt to hold a session: contract, registration, beats, until the stream ends.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, Fuse};
use ninefold_proto::ninefold::contract::v1::contract_service_client::ContractServiceClient;
use ninefold_proto::ninefold::contract::v1::{CheckContractRequest, PutContractRequest};
use ninefold_proto::ninefold::registry::v1::hold_session_request::Message as Say;
use ninefold_proto::ninefold::registry::v1::hold_session_response::Message as Hear;
use ninefold_proto::ninefold::registry::v1::registry_service_client::RegistryServiceClient;
use ninefold_proto::ninefold::registry::v1::{
    Beat, Deregister, Event, HoldSessionRequest, HoldSessionResponse, InstanceState, Policy, Register, Registered,
    ReportEvents, SetState,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};
use tonic_types::StatusExt as _;

use super::{Known, Registration, Wanted, digest};
use crate::fault;
use crate::link::Link;

/// Longest wait for an answer before the session stands, and for the platform to read what is said.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Longest wait for an answer after earlier waits were in vain, each twice the one before: where a crowd comes at once, a
/// platform may need longer than usual for all of them, and giving up early only makes the crowd larger. A platform that is
/// dead and not slow is noticed by its connection.
const ANSWER_SLOW_MAX: Duration = Duration::from_secs(40);
/// Longest wait for the platform to end the stream after the instance left.
const FAREWELL_MAX: Duration = Duration::from_millis(500);
/// Messages that wait to leave. The platform reads at once; a queue that stays full means that it is gone.
const QUEUE_MAX: usize = 16;
/// Most events in one message, as the contract says.
const EVENTS_MAX: usize = 64;
/// Interval of beats where the platform names none.
const BEAT_EVERY: Duration = Duration::from_secs(1);
/// Pause before a contract that was refused is handed in again: somebody may have accepted it, or changed what it is held to.
const REFUSED_AGAIN: Duration = Duration::from_secs(5);
/// Longest wait for the answer to that; beats wait meanwhile.
const AGAIN_MAX: Duration = Duration::from_secs(3);
/// Reason of a contract that breaks what others rely on.
const BREAKS: &str = "CONTRACT_BREAKS";
/// Largest contract that is handed in. The platform has a limit of its own.
const CONTRACT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How an attempt ended.
pub(super) enum Ended {
    /// As the instance wished.
    Left,
    /// The platform is away, or broke the stream. Worth another attempt soon.
    Lost(Status),
    /// The platform said no, and will say it again.
    Refused(Status),
}

impl From<Status> for Ended {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated | Code::FailedPrecondition => {
                Self::Refused(status)
            }
            // ALREADY_EXISTS is INSTANCE_TAKEN: a node that does not know yet that the session before was lost.
            _ => Self::Lost(status),
        }
    }
}

/// What attempts share.
pub(super) struct Attempt {
    registration: Registration,
    platform: Link,
    events: Fuse<BoxStream<'static, Event>>,
    wanted: watch::Receiver<Wanted>,
    /// Keeps the watch open after the last handle of the session is gone.
    _wants: watch::Sender<Wanted>,
    tell: watch::Sender<Known>,
    /// How long the next answer is waited for.
    patience: Duration,
    /// Why the contract was refused, if it was: the instance stands in the landscape then, and takes no calls.
    refused: Option<String>,
}

/// An open stream: what is said, and what is heard.
struct Line {
    say: mpsc::Sender<HoldSessionRequest>,
    hear: Streaming<HoldSessionResponse>,
}

impl Attempt {
    pub(super) fn new(
        mut registration: Registration,
        platform: Link,
        events: BoxStream<'static, Event>,
        wants: watch::Sender<Wanted>,
        tell: watch::Sender<Known>,
    ) -> Self {
        if let Some(set) = &registration.descriptor_set {
            registration.instance.contract_digest = digest(set);
        }
        Self {
            registration,
            platform,
            events: events.fuse(),
            wanted: wants.subscribe(),
            _wants: wants,
            tell,
            patience: ANSWER_MAX,
            refused: None,
        }
    }

    /// Holds a session until it ends; tells how, and whether it ever stood.
    pub(super) async fn hold(&mut self) -> (Ended, bool) {
        let patience = self.patience;
        let open = async {
            let handed_in = self.hand_in_contract().await;
            self.judged(handed_in)?;
            self.register().await
        };
        let opened = match tokio::time::timeout(patience, open).await {
            Ok(opened) => {
                self.patience = ANSWER_MAX;
                opened
            }
            Err(_) => {
                self.patience = (patience * 2).min(ANSWER_SLOW_MAX);
                Err(Status::deadline_exceeded("the platform does not answer"))
            }
        };
        let (line, registered) = match opened {
            Ok(opened) => opened,
            Err(status) => return (status.into(), false),
        };
        let ended = self.stay(line, registered).await;
        self.tell.send_modify(|known| known.instance = None);
        (ended, true)
    }

    /// Waits; tells whether the instance left meanwhile.
    pub(super) async fn leaves_within(&mut self, wait: Duration) -> bool {
        let leaves = tokio::time::timeout(wait, self.wanted.wait_for(|wanted| wanted.leaving.is_some()));
        let left = leaves.await.is_ok();
        if left {
            self.tell.send_modify(|known| known.left = true);
        }
        left
    }

    /// Takes what the platform says of the contract. Breaking what others rely on is no reason to stay away: the instance
    /// waits, in sight of everybody, until its contract is accepted.
    fn judged(&mut self, answer: Result<(), Status>) -> Result<(), Status> {
        match answer {
            Ok(()) => {
                if self.refused.take().is_some() {
                    tracing::info!("the contract is accepted now");
                    self.tell.send_modify(|known| known.refused.clear());
                }
                Ok(())
            }
            Err(status) if fault::reason(&status).as_deref() == Some(BREAKS) => {
                if self.refused.is_none() {
                    self.tell_refusal(&status);
                }
                self.refused = Some(format!("contract refused: {}", status.message()));
                Ok(())
            }
            Err(status) => Err(status),
        }
    }

    fn tell_refusal(&self, status: &Status) {
        let findings = fault::preconditions(status);
        for finding in &findings {
            tracing::error!(rule = finding.kind, element = finding.subject, "{}", finding.description);
        }
        tracing::error!(
            error = status.message(),
            "the platform refuses the contract; no calls come until it accepts it"
        );
        let lines = findings.into_iter().map(|one| format!("{} {}\n    {}", one.kind, one.subject, one.description));
        let mut lines: Vec<String> = lines.collect();
        if lines.is_empty() {
            lines.push(status.message().to_owned());
        }
        self.tell.send_modify(|known| known.refused = lines);
    }

    /// The state that the instance may have.
    fn allowed(&self, wanted: InstanceState) -> InstanceState {
        if self.refused.is_some() && wanted == InstanceState::Serving { InstanceState::Starting } else { wanted }
    }

    /// Hands a refused contract in again.
    async fn again(&mut self) {
        let answer = tokio::time::timeout(AGAIN_MAX, self.hand_in_contract()).await;
        if let Ok(answer) = answer
            && let Err(status) = self.judged(answer)
        {
            tracing::debug!(error = status.message(), "the contract could not be handed in again");
        }
    }

    async fn hand_in_contract(&mut self) -> Result<(), Status> {
        let Some(set) = &self.registration.descriptor_set else { return Ok(()) };
        let digest = self.registration.instance.contract_digest.clone();
        let mut contracts =
            ContractServiceClient::new(self.platform.clone()).max_encoding_message_size(CONTRACT_BYTES_MAX);
        let service = self.registration.instance.service.clone();
        let question = CheckContractRequest { digest, service: service.clone() };
        if contracts.check_contract(question).await?.into_inner().known {
            return Ok(());
        }
        let protobuf_services = self.registration.instance.protobuf_services.clone();
        let request = PutContractRequest { service, descriptor_set: set.to_vec(), protobuf_services };
        let answer = contracts.put_contract(request).await?.into_inner();
        tracing::info!(bytes = set.len(), "handed in the contract");
        for told in answer.warnings {
            tracing::warn!(
                rule = told.rule,
                element = told.element,
                told.message,
                "the gate has a word on the contract"
            );
        }
        Ok(())
    }

    async fn register(&mut self) -> Result<(Line, Registered), Status> {
        let mut instance = self.registration.instance.clone();
        // DRAINING is not taken at registration; it is told right after.
        let wanted = self.wanted.borrow().state;
        instance.set_state(match self.allowed(wanted) {
            InstanceState::Serving => InstanceState::Serving,
            _ => InstanceState::Starting,
        });
        instance.state_reason = self.refused.clone().unwrap_or_default();
        let (say, said) = mpsc::channel(QUEUE_MAX);
        let register = request(Say::Register(Register { instance: Some(instance) }));
        say.try_send(register).map_err(|_| Status::internal("a fresh queue is full"))?;
        let mut registry = RegistryServiceClient::new(self.platform.clone());
        let mut hear = registry.hold_session(Request::new(ReceiverStream::new(said))).await?.into_inner();
        match hear.message().await?.and_then(|response| response.message) {
            Some(Hear::Registered(registered)) => Ok((Line { say, hear }, registered)),
            _ => Err(Status::unavailable("the platform did not answer the registration")),
        }
    }

    /// Keeps an open session until it ends.
    async fn stay(&mut self, mut line: Line, registered: Registered) -> Ended {
        let every = registered.beat_interval.and_then(|interval| Duration::try_from(interval).ok());
        let every = every.filter(|every| !every.is_zero()).unwrap_or(BEAT_EVERY);
        let mut beat = next_beat(every);
        tracing::info!(instance_id = self.registration.instance.instance_id, "joined the landscape");
        // What is wanted may have changed since, and is compared with what is written.
        let mut told = registered.instance.as_ref().map_or(InstanceState::Unspecified, |instance| instance.state());
        // A drain that was taken back while there was no session is none any more; one that stands is told again.
        let drained = registered.instance.as_ref().and_then(|instance| instance.r#override.as_ref());
        let drained = drained.filter(|decided| decided.drain).map(|decided| decided.reason.clone());
        self.tell.send_modify(|known| {
            known.instance = registered.instance;
            known.drained = drained;
        });
        self.wanted.mark_changed();
        let mut again = interval(REFUSED_AGAIN);
        loop {
            // All arms are cancel safe: streams, a watch and an interval lose nothing when they are not polled on.
            let said = tokio::select! {
                heard = line.hear.message() => match heard {
                    Ok(Some(heard)) => {
                        self.heard(heard);
                        continue;
                    }
                    Ok(None) => return Ended::Lost(Status::unavailable("the platform ended the session")),
                    Err(status) => return status.into(),
                },
                _ = self.wanted.changed() => {
                    let wanted = self.wanted.borrow_and_update().clone();
                    if let Some(reason) = wanted.leaving {
                        return self.farewell(line, reason).await;
                    }
                    let state = self.allowed(wanted.state);
                    if state == told {
                        continue;
                    }
                    told = state;
                    Say::SetState(SetState { state: state.into(), reason: wanted.reason })
                },
                _ = again.tick(), if self.refused.is_some() => {
                    self.again().await;
                    // What was not allowed may be now.
                    self.wanted.mark_changed();
                    Say::Beat(Beat {})
                },
                Some(event) = self.events.next() => Say::ReportEvents(ReportEvents { events: self.more_events(event) }),
                () = tokio::time::sleep_until(beat) => {
                    beat = next_beat(every);
                    Say::Beat(Beat {})
                }
            };
            if !matches!(tokio::time::timeout(ANSWER_MAX, line.say.send(request(said))).await, Ok(Ok(()))) {
                return Ended::Lost(Status::unavailable("the platform does not read the session"));
            }
        }
    }

    fn heard(&self, heard: HoldSessionResponse) {
        match heard.message {
            Some(Hear::Registered(Registered { instance, .. })) => {
                self.tell.send_modify(|known| known.instance = instance);
            }
            Some(Hear::StateChanged(changed)) => self.tell.send_modify(|known| known.instance = changed.instance),
            Some(Hear::DrainRequested(drain)) if drain.stay => {
                tracing::info!(reason = drain.reason, "drained by an operator");
                self.tell.send_modify(|known| known.drained = Some(drain.reason));
            }
            Some(Hear::DrainWithdrawn(_)) => {
                tracing::info!("not drained any more");
                self.tell.send_modify(|known| known.drained = None);
            }
            Some(Hear::DrainRequested(drain)) => {
                tracing::info!(reason = drain.reason, "the platform asks to drain");
                self.tell.send_modify(|known| known.drain = Some(drain.reason));
            }
            Some(Hear::Policy(policy)) => {
                // One that only names its service is one that was taken back.
                let none = Policy { service: policy.service.clone(), ..Policy::default() };
                let policy = (policy != none).then(|| Arc::new(policy));
                self.tell.send_modify(|known| known.policy = policy);
            }
            // A word of a newer platform has no reader here.
            None => {}
        }
    }

    /// Takes the events that wait behind the first, as many as fit into one message.
    fn more_events(&mut self, first: Event) -> Vec<Event> {
        use futures_util::FutureExt as _;
        let mut events = vec![first];
        while events.len() < EVENTS_MAX {
            match self.events.next().now_or_never() {
                Some(Some(event)) => events.push(event),
                _ => break,
            }
        }
        events
    }

    async fn farewell(&mut self, mut line: Line, reason: String) -> Ended {
        // If it cannot be said any more, the platform notices the lost stream.
        let _ = line.say.try_send(request(Say::Deregister(Deregister { reason })));
        drop(line.say);
        let until_the_end = async { while let Ok(Some(_)) = line.hear.message().await {} };
        let _ = tokio::time::timeout(FAREWELL_MAX, until_the_end).await;
        self.tell.send_modify(|known| {
            known.instance = None;
            known.left = true;
        });
        Ended::Left
    }
}

fn request(message: Say) -> HoldSessionRequest {
    HoldSessionRequest { message: Some(message) }
}

fn interval(every: Duration) -> Interval {
    let mut interval = tokio::time::interval_at(Instant::now() + every, every);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    interval
}

/// When to beat next: early by up to a fifth, so that instances that joined together do not beat together.
fn next_beat(every: Duration) -> Instant {
    Instant::now() + every.mul_f64(0.8 + fastrand::f64() / 5.0)
}

/// What the platform says is wrong with a request, as one text.
pub(super) fn violations(status: &Status) -> String {
    let Some(request) = status.get_details_bad_request() else { return String::new() };
    let texts: Vec<_> =
        request.field_violations.iter().map(|one| format!("{} {}", one.field, one.description)).collect();
    texts.join("; ")
}
