//! Between the words of `ninefold.contract.v1` and the model. The only place that knows both.

use bytes::Bytes;
use ninefold_proto::ninefold::contract::v1 as proto;
use prost::Message as _;

use crate::model::{Contract, Digest, Promise};

/// Writes a contract as it lies in the store.
pub(crate) fn record(contract: &Contract) -> Bytes {
    to_contract(contract).encode_to_vec().into()
}

/// Reads [`record`] back; `None` for what no contract store wrote.
pub(crate) fn read_record(value: &[u8]) -> Option<Contract> {
    let proto = proto::Contract::decode(value).ok()?;
    Some(Contract {
        digest: Digest::parse(&proto.digest)?,
        service: proto.service,
        created: proto.create_time?.try_into().ok()?,
        size: proto.size_bytes.try_into().ok()?,
        promise: Promise {
            packages: proto.packages,
            protobuf_services: proto.protobuf_services,
            edition: proto.edition,
        },
    })
}

/// Tells a contract.
pub(crate) fn to_contract(contract: &Contract) -> proto::Contract {
    proto::Contract {
        digest: contract.digest.to_string(),
        service: contract.service.clone(),
        create_time: Some(contract.created.into()),
        size_bytes: i64::try_from(contract.size).unwrap_or(i64::MAX),
        packages: contract.promise.packages.clone(),
        protobuf_services: contract.promise.protobuf_services.clone(),
        edition: contract.promise.edition.clone(),
    }
}
