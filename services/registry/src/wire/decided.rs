//! What operators decide, and how instances want to be asked whether they are well: between words and model.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use ninefold::fault::Violation;
use ninefold_proto::ninefold::registry::v1 as proto;
use prost::Message as _;
use proto::health_check::Kind;

use super::register::{WEIGHT_MAX, is_full_name};
use super::{cut, to_duration};
use crate::error::Error;
use crate::model::{Check, CheckKind, Force, Override};

/// Longest name of an operator, in characters.
const AUTHOR_CHARS_MAX: usize = 128;
/// Longest path that is asked for.
const PATH_CHARS_MAX: usize = 256;
/// How often an instance is asked that does not say how often.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long an answer of it may take.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Answers in a row that count, unless told otherwise: up, and down.
const RISE_AND_FALL: (u32, u32) = (2, 3);
/// Most answers in a row.
const IN_A_ROW_MAX: u32 = 100;

/// Reads what an operator decided, at `now`.
///
/// # Errors
/// [`Error::OverrideInvalid`] with all that is wrong.
pub(crate) fn parse_override(proto: Option<proto::Override>, now: SystemTime) -> Result<Override, Error> {
    let mut wrong = Vec::new();
    let proto = proto.unwrap_or_default();
    let force = match proto::BreakerForce::try_from(proto.force) {
        Ok(proto::BreakerForce::Unspecified) => Force::None,
        Ok(proto::BreakerForce::Open) => Force::Open,
        Ok(proto::BreakerForce::Closed) => Force::Closed,
        Err(_) => {
            wrong.push(Violation::new("override.force", format!("is {}, which is none known here", proto.force)));
            Force::None
        }
    };
    if let Some(weight) = proto.weight.filter(|weight| *weight > WEIGHT_MAX) {
        wrong.push(Violation::new("override.weight", format!("is {weight}, at most {WEIGHT_MAX}")));
    }
    if proto.author.chars().count() > AUTHOR_CHARS_MAX {
        wrong.push(Violation::new("override.author", format!("has more than {AUTHOR_CHARS_MAX} characters")));
    }
    if wrong.is_empty() && !proto.drain && proto.weight.is_none() && force == Force::None {
        wrong.push(Violation::new("override", "decides nothing: name drain, weight or force"));
    }
    if !wrong.is_empty() {
        return Err(Error::OverrideInvalid(wrong));
    }
    Ok(Override {
        drain: proto.drain,
        weight: proto.weight,
        force,
        author: proto.author,
        reason: cut(proto.reason),
        time: now,
    })
}

/// Tells what an operator decided.
pub(crate) fn to_override(decided: &Override) -> proto::Override {
    let force = match decided.force {
        Force::None => proto::BreakerForce::Unspecified,
        Force::Open => proto::BreakerForce::Open,
        Force::Closed => proto::BreakerForce::Closed,
    };
    proto::Override {
        drain: decided.drain,
        weight: decided.weight,
        force: force.into(),
        author: decided.author.clone(),
        reason: decided.reason.clone(),
        time: Some(decided.time.into()),
    }
}

/// Writes what an operator decided as it lies in the store.
pub(crate) fn override_record(decided: &Override) -> Bytes {
    to_override(decided).encode_to_vec().into()
}

/// Reads [`override_record`] back; `None` for what no registry wrote.
pub(crate) fn read_override(value: &[u8]) -> Option<Override> {
    let proto = proto::Override::decode(value).ok()?;
    let time = proto.time?.try_into().ok()?;
    parse_override(Some(proto), time).ok()
}

/// Reads how an instance wants to be asked.
pub(super) fn check(proto: Option<proto::HealthCheck>, refuse: &mut dyn FnMut(String, String)) -> Option<Check> {
    let proto = proto?;
    let mut refuse = |field: &str, rule: String| refuse(format!("instance.health_check.{field}"), rule);
    let kind = match proto.kind {
        Some(Kind::Grpc(grpc)) => {
            if !grpc.service.is_empty() && !is_full_name(&grpc.service) {
                refuse("grpc.service", "must be a full name such as shop.product.v1.ProductService".to_owned());
            }
            CheckKind::Grpc(grpc.service)
        }
        Some(Kind::Http(http)) => {
            let path = if http.path.is_empty() { "/".to_owned() } else { http.path };
            let is_plain = path.chars().all(|letter| letter.is_ascii_graphic());
            if !path.starts_with('/') || path.len() > PATH_CHARS_MAX || !is_plain {
                refuse("http.path", format!("must begin with / and have at most {PATH_CHARS_MAX} plain characters"));
            }
            CheckKind::Http(path)
        }
        Some(Kind::Tcp(_)) => CheckKind::Tcp,
        None => {
            refuse("kind", "is missing: grpc, http or tcp".to_owned());
            CheckKind::Tcp
        }
    };
    let mut duration =
        |field: &str, given: Option<prost_types::Duration>, usual, (least, most): (Duration, Duration)| {
            let Some(given) = given else { return usual };
            let read = Duration::try_from(given).ok().filter(|read| (least..=most).contains(read));
            if read.is_none() {
                refuse(field, format!("must be {least:?} to {most:?}"));
            }
            read.unwrap_or(usual)
        };
    let interval =
        duration("interval", proto.interval, INTERVAL, (Duration::from_millis(100), Duration::from_secs(600)));
    let timeout = duration("timeout", proto.timeout, TIMEOUT, (Duration::from_millis(10), Duration::from_secs(60)));
    let mut in_a_row = |field: &str, given: u32, usual| {
        if given > IN_A_ROW_MAX {
            refuse(field, format!("is {given}, at most {IN_A_ROW_MAX}"));
        }
        if given == 0 { usual } else { given }
    };
    let (rise, fall) = (in_a_row("rise", proto.rise, RISE_AND_FALL.0), in_a_row("fall", proto.fall, RISE_AND_FALL.1));
    Some(Check { kind, interval, timeout, rise, fall })
}

/// Tells how an instance wants to be asked.
pub(super) fn to_check(check: &Check) -> proto::HealthCheck {
    let kind = match &check.kind {
        CheckKind::Grpc(service) => Kind::Grpc(proto::GrpcHealthCheck { service: service.clone() }),
        CheckKind::Http(path) => Kind::Http(proto::HttpHealthCheck { path: path.clone() }),
        CheckKind::Tcp => Kind::Tcp(proto::TcpHealthCheck {}),
    };
    proto::HealthCheck {
        kind: Some(kind),
        interval: Some(to_duration(check.interval)),
        timeout: Some(to_duration(check.timeout)),
        rise: check.rise,
        fall: check.fall,
    }
}
