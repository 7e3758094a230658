//! Between the words of `ninefold.registry.v1` and the model. The only place that knows both.

pub(crate) mod policy;

mod decided;
mod register;
mod watch;

use std::time::Duration;

use bytes::Bytes;
use ninefold::fault::Violation;
use ninefold_proto::ninefold::registry::v1 as proto;
use ninefold_store::Revision;
use prost::Message as _;
use proto::hold_session_request::Message as Asked;
use proto::hold_session_response::Message as Answered;

pub(crate) use decided::{override_record, parse_override, read_override, to_override};
pub(crate) use register::instance as parse_instance;
pub(crate) use watch::{Heard, from_frame, heard, interest, to_frame, to_watcher};

use crate::error::Error;
use crate::model::{
    Address, Event, EventKind, Instance, InstanceKey, NAMESPACE_ALL, Namespace, Protocol, Report, ServiceName, State,
};
use crate::preserve::Verdict;
use crate::session::{Answer, Said};
use crate::table::Summary;
use crate::view::Stale;

/// Longest reason that is kept; the rest is cut off.
const REASON_CHARS_MAX: usize = 256;
/// Most events of one report; the rest is dropped.
const REPORT_EVENTS_MAX: usize = 64;

/// Writes an instance as it lies in the store.
pub(crate) fn record(instance: &Instance) -> Bytes {
    let own = Instance { decided: None, ..instance.clone() };
    let mut proto = to_instance(&own);
    // What it says of itself; what others say is joined by whoever reads.
    proto.state = to_state(instance.state).into();
    proto.state_reason.clone_from(&instance.state_reason);
    // The store knows the revision; written into the record it would be the one before.
    proto.revision = 0;
    proto.encode_to_vec().into()
}

/// Reads [`record`] back; `None` for what no registry wrote.
pub(crate) fn read_record(value: &[u8], revision: Revision) -> Option<Instance> {
    let proto = proto::Instance::decode(value).ok()?;
    let state = match proto.state() {
        proto::InstanceState::Starting => State::Starting,
        proto::InstanceState::Serving => State::Serving,
        proto::InstanceState::Draining => State::Draining,
        proto::InstanceState::Suspect => State::Suspect,
        proto::InstanceState::Gone => State::Gone,
        proto::InstanceState::NotServing => State::NotServing,
        proto::InstanceState::Unspecified => return None,
    };
    let changed = proto.change_time?.try_into().ok()?;
    let (node, state_reason, reported) = (proto.node.clone(), proto.state_reason.clone(), proto.reported.clone());
    let instance = parse_instance(proto, changed).ok()?;
    Some(Instance { state, state_reason, node, reported, revision, written: revision, ..instance })
}

/// Tells an instance.
pub(crate) fn to_instance(instance: &Instance) -> proto::Instance {
    let (state, state_reason) = instance.standing();
    proto::Instance {
        namespace: instance.key.service.namespace.to_string(),
        service: instance.key.service.name.to_string(),
        instance_id: instance.key.id.to_string(),
        addresses: instance.addresses.iter().map(to_address).collect(),
        version: instance.version.clone(),
        zone: instance.zone.clone(),
        labels: instance.labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        protobuf_services: instance.protobuf_services.clone(),
        contract_digest: instance.contract_digest.clone(),
        weight: instance.weight,
        state: to_state(state).into(),
        state_reason,
        start_time: instance.started.map(Into::into),
        change_time: Some(instance.changed.into()),
        revision: instance.revision.0,
        node: instance.node.clone(),
        protocol: match instance.protocol {
            Protocol::Grpc => proto::Protocol::Grpc,
            Protocol::Http => proto::Protocol::Http,
        }
        .into(),
        tls: instance.is_tls,
        region: instance.region.clone(),
        r#override: instance.decided.as_deref().map(to_override),
        health_check: instance.check.as_ref().map(decided::to_check),
        reported: instance.reported.clone(),
    }
}

fn to_address(address: &Address) -> proto::Address {
    proto::Address { host: address.host.clone(), port: address.port.into() }
}

fn to_state(state: State) -> proto::InstanceState {
    match state {
        State::Starting => proto::InstanceState::Starting,
        State::Serving => proto::InstanceState::Serving,
        State::Draining => proto::InstanceState::Draining,
        State::Suspect => proto::InstanceState::Suspect,
        State::Gone => proto::InstanceState::Gone,
        State::NotServing => proto::InstanceState::NotServing,
    }
}

fn to_key(key: &InstanceKey) -> proto::InstanceKey {
    proto::InstanceKey {
        namespace: key.service.namespace.to_string(),
        service: key.service.name.to_string(),
        instance_id: key.id.to_string(),
    }
}

/// Reads what an instance says. A message of a later version is heard as a beat.
pub(crate) fn said(request: proto::HoldSessionRequest) -> Result<Said, Error> {
    match request.message {
        Some(Asked::Register(register)) => {
            let now = std::time::SystemTime::now();
            let instance = register
                .instance
                .ok_or_else(|| Error::InstanceInvalid(vec![Violation::new("instance", "is missing")]))?;
            Ok(Said::Register(Box::new(parse_instance(instance, now)?)))
        }
        Some(Asked::SetState(set)) => {
            let state = match set.state() {
                proto::InstanceState::Starting => State::Starting,
                proto::InstanceState::Serving => State::Serving,
                proto::InstanceState::Draining => State::Draining,
                proto::InstanceState::NotServing => State::NotServing,
                proto::InstanceState::Unspecified | proto::InstanceState::Gone | proto::InstanceState::Suspect => {
                    return Err(Error::InstanceInvalid(vec![Violation::new(
                        "set_state.state",
                        "must be STARTING, SERVING, NOT_SERVING or DRAINING",
                    )]));
                }
            };
            Ok(Said::SetState(state, cut(set.reason)))
        }
        Some(Asked::ReportEvents(report)) => {
            Ok(Said::Report(report.events.into_iter().take(REPORT_EVENTS_MAX).filter_map(report_of).collect()))
        }
        Some(Asked::Deregister(deregister)) => Ok(Said::Deregister(cut(deregister.reason))),
        Some(Asked::Beat(_)) | None => Ok(Said::Beat),
    }
}

/// Breakers and their own watches are reported by callers; the registry sees everything else itself.
fn report_of(event: proto::Event) -> Option<Report> {
    let kind = match event.kind() {
        proto::EventKind::BreakerOpened => EventKind::BreakerOpened,
        proto::EventKind::BreakerHalfOpened => EventKind::BreakerHalfOpened,
        proto::EventKind::BreakerClosed => EventKind::BreakerClosed,
        proto::EventKind::WatchDiverged => EventKind::WatchDiverged,
        // The registry sees everything else itself.
        _ => return None,
    };
    Namespace::parse(&event.namespace)?;
    if kind != EventKind::WatchDiverged {
        ServiceName::parse(&event.service)?;
    }
    Some(Report {
        namespace: event.namespace,
        service: cut(event.service),
        instance: cut(event.instance_id),
        kind,
        reason: cut(event.reason),
    })
}

fn cut(mut reason: String) -> String {
    if let Some((end, _)) = reason.char_indices().nth(REASON_CHARS_MAX) {
        reason.truncate(end);
    }
    reason
}

/// Tells what a session is answered.
pub(crate) fn to_answer(answer: Answer) -> proto::HoldSessionResponse {
    let message = match answer {
        Answer::Registered { instance, beat_interval, lease } => Answered::Registered(proto::Registered {
            instance: Some(to_instance(&instance)),
            beat_interval: Some(to_duration(beat_interval)),
            lease: Some(to_duration(lease)),
        }),
        Answer::StateChanged { instance } => {
            Answered::StateChanged(proto::StateChanged { instance: Some(to_instance(&instance)) })
        }
        Answer::DrainRequested { reason } => Answered::DrainRequested(proto::DrainRequested { reason, stay: true }),
        Answer::DrainWithdrawn => Answered::DrainWithdrawn(proto::DrainWithdrawn {}),
    };
    proto::HoldSessionResponse { message: Some(message) }
}

fn to_duration(duration: Duration) -> prost_types::Duration {
    // Fails only over ten thousand years, and settings in hours do not get there.
    duration.try_into().unwrap_or_default()
}

/// Reads which namespace a listing is of; `None` for all.
pub(crate) fn reach(namespace: &str) -> Result<Option<Namespace>, Error> {
    if namespace == NAMESPACE_ALL {
        return Ok(None);
    }
    Namespace::parse(namespace).map(Some).ok_or_else(|| {
        Error::NamespaceInvalid(vec![Violation::new("namespace", format!("{} or -", register::SERVICE_NAME_RULE))])
    })
}

/// Tells how many instances a service has, how many `(at, of)` of its watchers are at its revision, and what becomes of its
/// silent instances.
pub(crate) fn to_service(summary: Summary, (at, of): (usize, usize), verdict: Verdict) -> proto::Service {
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    proto::Service {
        namespace: summary.service.namespace.to_string(),
        service: summary.service.name.to_string(),
        instances: number(summary.instances),
        serving: number(summary.serving),
        protobuf_services: summary.protobuf_services.into_iter().collect(),
        revision: summary.revision.0,
        watchers: number(of),
        watchers_current: number(at),
        preservation: match verdict {
            Verdict::Keep { lost, of } => Some(proto::Preservation { lost: number(lost), of: number(of) }),
            Verdict::Remove => None,
        },
    }
}

/// Tells why an answer may be old, that is right up to `revision`.
pub(crate) fn to_staleness(stale: Stale, revision: Revision) -> proto::Staleness {
    proto::Staleness { reason: stale.reason, since: Some(stale.since.into()), revision: revision.0 }
}

/// Tells an event.
pub(crate) fn to_event(event: Event) -> proto::Event {
    let kind = match event.kind {
        EventKind::Registered => proto::EventKind::Registered,
        EventKind::Serving => proto::EventKind::Serving,
        EventKind::Draining => proto::EventKind::Draining,
        EventKind::Suspect => proto::EventKind::Suspect,
        EventKind::Deregistered => proto::EventKind::Deregistered,
        EventKind::Expired => proto::EventKind::Expired,
        EventKind::BreakerOpened => proto::EventKind::BreakerOpened,
        EventKind::BreakerHalfOpened => proto::EventKind::BreakerHalfOpened,
        EventKind::BreakerClosed => proto::EventKind::BreakerClosed,
        EventKind::WatchDiverged => proto::EventKind::WatchDiverged,
        EventKind::PolicyChanged => proto::EventKind::PolicyChanged,
        EventKind::PolicyRefused => proto::EventKind::PolicyRefused,
        EventKind::StoreLost => proto::EventKind::StoreLost,
        EventKind::StoreFound => proto::EventKind::StoreFound,
        EventKind::XdsRefused => proto::EventKind::XdsRefused,
        EventKind::XdsWithheld => proto::EventKind::XdsWithheld,
        EventKind::EdgeChanged => proto::EventKind::EdgeChanged,
        EventKind::EdgeRefused => proto::EventKind::EdgeRefused,
        EventKind::ContractRefused => proto::EventKind::ContractRefused,
        EventKind::NotServing => proto::EventKind::NotServing,
        EventKind::OverrideSet => proto::EventKind::OverrideSet,
        EventKind::OverrideCleared => proto::EventKind::OverrideCleared,
        EventKind::PreservationBegan => proto::EventKind::PreservationBegan,
        EventKind::PreservationEnded => proto::EventKind::PreservationEnded,
        EventKind::Reported => proto::EventKind::Reported,
        EventKind::DrainSeen => proto::EventKind::DrainSeen,
        EventKind::Moved => proto::EventKind::Moved,
    };
    proto::Event {
        namespace: event.namespace,
        time: Some(event.time.into()),
        service: event.service,
        instance_id: event.instance,
        kind: kind.into(),
        reason: event.reason,
        observer: event.observer,
    }
}
