//! What watchers say and are told.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use ninefold::fault::Violation;
use ninefold_proto::ninefold::registry::v1 as proto;
use ninefold_store::Revision;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use proto::hold_watch_request::Message as Said;

use super::{cut, reach, register, to_duration, to_instance, to_key};
use crate::error::Error;
use crate::model::{Interest, NAMESPACE_ALL, Policy, ServiceKey, ServiceName};
use crate::table::Changes;
use crate::view::{Look, Piece};
use crate::watch::{Frame, Seat};

/// Most services that one watch names.
const WATCH_SERVICES_MAX: usize = 1000;
/// Longest name that a watcher gives itself; the rest is cut off.
const WATCHER_CHARS_MAX: usize = 200;

/// Numbers of the fields of `Snapshot` and `Delta`. Both have their instances first, so that the bytes of an instance fit
/// into either.
const UPSERTS: u32 = 1;
const REMOVES: u32 = 2;
const SNAPSHOT_POLICIES: u32 = 2;
const DELTA_POLICIES: u32 = 3;

/// What a watcher says.
#[derive(Debug)]
pub(crate) enum Heard {
    /// It opens its watch: what it follows, who it is, what it knows.
    Open(Interest, String, Option<Revision>),
    /// It has taken in everything up to a revision.
    Acknowledged(Revision),
    /// Something that is not understood.
    Nothing,
}

/// Reads what a watcher says. What a later version says is not understood.
pub(crate) fn heard(request: proto::HoldWatchRequest) -> Result<Heard, Error> {
    match request.message {
        Some(Said::Open(open)) => {
            let known = Some(Revision(open.known_revision)).filter(|revision| revision.0 > 0);
            let mut watcher = cut(open.watcher);
            if let Some((end, _)) = watcher.char_indices().nth(WATCHER_CHARS_MAX) {
                watcher.truncate(end);
            }
            Ok(Heard::Open(interest(&open.namespace, &open.services)?, watcher, known))
        }
        Some(Said::Acknowledge(acknowledged)) => Ok(Heard::Acknowledged(Revision(acknowledged.revision))),
        None => Ok(Heard::Nothing),
    }
}

/// Reads which services are asked for.
pub(crate) fn interest(namespace: &str, services: &[String]) -> Result<Interest, Error> {
    let refused = |field: &str, rule: String| Err(Error::WatchInvalid(vec![Violation::new(field, rule)]));
    let Ok(reach) = reach(namespace) else {
        return refused("namespace", format!("{} or -", register::SERVICE_NAME_RULE));
    };
    let Some(namespace) = reach else {
        if services.is_empty() {
            return Ok(Interest::All);
        }
        return refused("namespace", "must be one where services are named".to_owned());
    };
    if services.is_empty() {
        return Ok(Interest::Within(namespace));
    }
    if services.len() > WATCH_SERVICES_MAX {
        return refused("services", format!("names {} services, at most {WATCH_SERVICES_MAX}", services.len()));
    }
    let mut violations = Vec::new();
    let mut names = BTreeSet::new();
    for (index, text) in services.iter().enumerate() {
        match ServiceName::parse(text) {
            Some(name) => _ = names.insert(ServiceKey { namespace: namespace.clone(), name }),
            None => violations.push(Violation::new(format!("services[{index}]"), register::SERVICE_NAME_RULE)),
        }
    }
    if violations.is_empty() { Ok(Interest::Named(names)) } else { Err(Error::WatchInvalid(violations)) }
}

/// Makes a message. What others are told as well is made once, and taken from where it was left.
pub(crate) fn to_frame(look: Look, watch_id: &str, is_authoritative: bool) -> Frame {
    let is_heartbeat = look.is_empty();
    let mut parts: Vec<Bytes> = look.pieces.into_iter().map(made).filter(|part| !part.is_empty()).collect();
    let policies = policies(&look.policies, look.is_snapshot);
    if !policies.is_empty() {
        parts.push(policies);
    }
    Frame {
        kind: match (look.is_snapshot, is_heartbeat) {
            (true, _) => Frame::SNAPSHOT,
            (false, true) => Frame::HEARTBEAT,
            (false, false) => Frame::DELTA,
        },
        parts,
        revision: look.revision,
        digest: Some(look.digest),
        is_authoritative,
        all_policies: look.all_policies && !is_heartbeat,
        watch_id: watch_id.to_owned(),
    }
}

fn made(piece: Piece) -> Bytes {
    match piece {
        Piece::Made(bytes) => bytes,
        Piece::Raw { changes, keep } => {
            let bytes = changed(&changes);
            if let Some((cache, span)) = keep {
                cache.put(span, bytes.clone());
            }
            bytes
        }
    }
}

fn changed(changes: &Changes) -> Bytes {
    let mut bytes = BytesMut::new();
    changes.upserts.iter().for_each(|instance| field(UPSERTS, &to_instance(instance), &mut bytes));
    changes.removes.iter().for_each(|key| field(REMOVES, &to_key(key), &mut bytes));
    bytes.freeze()
}

fn policies(policies: &[Result<Policy, ServiceName>], is_snapshot: bool) -> Bytes {
    let number = if is_snapshot { SNAPSHOT_POLICIES } else { DELTA_POLICIES };
    let mut bytes = BytesMut::new();
    for policy in policies {
        match policy {
            Ok(policy) => {
                encode_key(number, WireType::LengthDelimited, &mut bytes);
                encode_varint(length(policy.encoded.len()), &mut bytes);
                bytes.put_slice(&policy.encoded);
            }
            Err(service) => {
                let none = proto::Policy { service: service.to_string(), ..proto::Policy::default() };
                field(number, &none, &mut bytes);
            }
        }
    }
    bytes.freeze()
}

fn field(number: u32, message: &impl Message, into: &mut BytesMut) {
    encode_key(number, WireType::LengthDelimited, into);
    message.encode_length_delimited(into).expect("BytesMut grows");
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).expect("fits every usize we build for")
}

/// Reads a message back, for callers that want it whole.
pub(crate) fn from_frame<T: Message + Default>(frame: &Frame, is_whole: bool) -> T {
    let mut bytes = BytesMut::new();
    frame.write(is_whole, &mut bytes);
    T::decode(bytes.freeze()).expect("what was just written can be read")
}

/// Tells who watches.
pub(crate) fn to_watcher(seat: Seat, node: &str) -> proto::Watcher {
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    proto::Watcher {
        watch_id: seat.id.to_string(),
        node: node.to_owned(),
        watcher: seat.who,
        namespace: match &seat.interest {
            Interest::All => NAMESPACE_ALL.to_owned(),
            Interest::Within(namespace) => namespace.to_string(),
            Interest::Named(names) => names.first().map(|first| first.namespace.to_string()).unwrap_or_default(),
        },
        services: match &seat.interest {
            Interest::All | Interest::Within(_) => Vec::new(),
            Interest::Named(names) => names.iter().map(|key| key.name.to_string()).collect(),
        },
        start_time: Some(seat.started.into()),
        sent_revision: seat.sent.0,
        acknowledged_revision: seat.acknowledged.0,
        acknowledges: seat.acknowledges,
        lag: seat.lag.filter(|lag| *lag > Duration::ZERO).map(to_duration),
        snapshots: count(seat.snapshots),
        deltas: count(seat.deltas),
    }
}
