//! How an instance is read from what a stranger sent: everything that is wrong is told at once.

use std::collections::HashMap;
use std::time::SystemTime;

use ninefold::fault::Violation;
use ninefold_proto::ninefold::registry::v1 as proto;
use ninefold_store::Revision;

use super::decided;
use crate::error::Error;
use crate::model::{
    Address, Instance, InstanceId, InstanceKey, Namespace, Protocol, ServiceKey, ServiceName, State, WEIGHT_DEFAULT,
};

const ADDRESSES_MAX: usize = 8;
const HOST_CHARS_MAX: usize = 253;
const VERSION_CHARS_MAX: usize = 128;
const ZONE_CHARS_MAX: usize = 63;
const LABELS_MAX: usize = 32;
const LABEL_CHARS_MAX: usize = 256;
const PROTOBUF_SERVICES_MAX: usize = 256;
const PROTOBUF_NAME_CHARS_MAX: usize = 255;
/// A share above this says nothing more than this.
pub(super) const WEIGHT_MAX: u32 = 10_000;

pub(super) const SERVICE_NAME_RULE: &str = "must be 1 to 63 lowercase letters, digits and hyphens";

/// Reads an instance. What the registry sets is set as for a new one: state (STARTING unless it is SERVING; STARTING may
/// have a reason), changed at `now`, no revision, no node, no override, no reports.
///
/// # Errors
/// [`Error::InstanceInvalid`] with all that is wrong.
pub(crate) fn instance(proto: proto::Instance, now: SystemTime) -> Result<Instance, Error> {
    let mut wrong = Vec::new();
    let mut refuse = |field: String, rule: String| wrong.push(Violation::new(field, rule));

    let state = if proto.state() == proto::InstanceState::Serving { State::Serving } else { State::Starting };
    let protocol = match proto::Protocol::try_from(proto.protocol) {
        Ok(proto::Protocol::Grpc | proto::Protocol::Unspecified) => Protocol::Grpc,
        Ok(proto::Protocol::Http) => Protocol::Http,
        Err(_) => {
            refuse("instance.protocol".to_owned(), format!("is {}, which is no protocol known here", proto.protocol));
            Protocol::Grpc
        }
    };
    let service = ServiceName::parse(&proto.service);
    if service.is_none() {
        refuse("instance.service".to_owned(), SERVICE_NAME_RULE.to_owned());
    }
    let id = InstanceId::parse(&proto.instance_id);
    if id.is_none() {
        refuse("instance.instance_id".to_owned(), "must be 1 to 128 letters, digits, and . _ : -".to_owned());
    }
    let namespace = Namespace::parse(&proto.namespace);
    if namespace.is_none() {
        refuse("instance.namespace".to_owned(), format!("{SERVICE_NAME_RULE}, or empty"));
    }
    let addresses = addresses(proto.addresses, &mut refuse);
    longest("instance.version", &proto.version, VERSION_CHARS_MAX, &mut refuse);
    longest("instance.zone", &proto.zone, ZONE_CHARS_MAX, &mut refuse);
    longest("instance.region", &proto.region, ZONE_CHARS_MAX, &mut refuse);
    let check = decided::check(proto.health_check, &mut refuse);
    labels(&proto.labels, &mut refuse);
    protobuf_services(&proto.protobuf_services, &mut refuse);
    if !proto.contract_digest.is_empty() && !is_digest(&proto.contract_digest) {
        refuse("instance.contract_digest".to_owned(), "must be sha256: and 64 hex digits, or empty".to_owned());
    }
    if proto.weight > WEIGHT_MAX {
        refuse("instance.weight".to_owned(), format!("is {}, at most {WEIGHT_MAX}", proto.weight));
    }
    let started = proto.start_time.and_then(|time| {
        let moment = moment(time);
        if moment.is_none() {
            refuse("instance.start_time".to_owned(), "is not within the years 1970 to 9999".to_owned());
        }
        moment
    });

    match (namespace, service, id) {
        (Some(namespace), Some(name), Some(id)) if wrong.is_empty() => Ok(Instance {
            key: InstanceKey { service: ServiceKey { namespace, name }, id },
            addresses,
            version: proto.version,
            zone: proto.zone,
            labels: proto.labels.into_iter().collect(),
            protobuf_services: proto.protobuf_services,
            contract_digest: proto.contract_digest,
            weight: if proto.weight == 0 { WEIGHT_DEFAULT } else { proto.weight },
            protocol,
            is_tls: proto.tls,
            state,
            // One that starts may say what it waits for.
            state_reason: if state == State::Starting { super::cut(proto.state_reason) } else { String::new() },
            started,
            changed: now,
            revision: Revision::default(),
            node: String::new(),
            region: proto.region,
            check,
            reported: String::new(),
            decided: None,
            written: Revision::default(),
        }),
        _ => Err(Error::InstanceInvalid(wrong)),
    }
}

type Refuse<'a> = &'a mut dyn FnMut(String, String);

fn addresses(addresses: Vec<proto::Address>, refuse: Refuse<'_>) -> Vec<Address> {
    if addresses.is_empty() || addresses.len() > ADDRESSES_MAX {
        refuse(
            "instance.addresses".to_owned(),
            format!("has {} entries, must have 1 to {ADDRESSES_MAX}", addresses.len()),
        );
    }
    let mut read = Vec::new();
    for (index, address) in addresses.into_iter().take(ADDRESSES_MAX).enumerate() {
        let is_legal = |letter: char| letter.is_ascii_graphic() && !matches!(letter, '/' | '[' | ']' | '@' | '?' | '#');
        let host = &address.host;
        if host.is_empty() || host.len() > HOST_CHARS_MAX || !host.chars().all(is_legal) {
            refuse(
                format!("instance.addresses[{index}].host"),
                "must be a host name or an IP address without brackets, at most 253 characters".to_owned(),
            );
        }
        match u16::try_from(address.port) {
            Ok(port) if port > 0 => read.push(Address { host: address.host, port }),
            _ => {
                refuse(format!("instance.addresses[{index}].port"), format!("is {}, must be 1 to 65535", address.port));
            }
        }
    }
    read
}

fn labels(labels: &HashMap<String, String>, refuse: Refuse<'_>) {
    if labels.len() > LABELS_MAX {
        refuse("instance.labels".to_owned(), format!("has {} entries, at most {LABELS_MAX}", labels.len()));
        return;
    }
    for (name, value) in labels {
        if name.is_empty() {
            refuse("instance.labels".to_owned(), "has a label without a name".to_owned());
        } else if name.chars().count() > LABEL_CHARS_MAX {
            refuse("instance.labels".to_owned(), format!("has a name of more than {LABEL_CHARS_MAX} characters"));
        } else {
            longest(&format!("instance.labels[{name:?}]"), value, LABEL_CHARS_MAX, refuse);
        }
    }
}

fn protobuf_services(names: &[String], refuse: Refuse<'_>) {
    if names.len() > PROTOBUF_SERVICES_MAX {
        refuse(
            "instance.protobuf_services".to_owned(),
            format!("has {} entries, at most {PROTOBUF_SERVICES_MAX}", names.len()),
        );
        return;
    }
    for (index, name) in names.iter().enumerate() {
        if !is_full_name(name) {
            refuse(
                format!("instance.protobuf_services[{index}]"),
                "must be a full name such as shop.product.v1.ProductService".to_owned(),
            );
        }
    }
}

fn moment(time: prost_types::Timestamp) -> Option<SystemTime> {
    // The first second of the year 10000, where timestamps end.
    let is_legal = (0..253_402_300_800).contains(&time.seconds) && (0..1_000_000_000).contains(&time.nanos);
    is_legal.then(|| time.try_into().ok()).flatten()
}

fn longest(field: &str, text: &str, chars_max: usize, refuse: Refuse<'_>) {
    let chars = text.chars().count();
    if chars > chars_max {
        refuse(field.to_owned(), format!("has {chars} characters, at most {chars_max}"));
    }
}

pub(super) fn is_full_name(name: &str) -> bool {
    name.len() <= PROTOBUF_NAME_CHARS_MAX
        && name.split('.').all(|part| {
            part.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
                && part.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
        })
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')))
}
