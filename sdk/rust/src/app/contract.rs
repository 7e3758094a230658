//! Puts the contract of a service together from what was handed in.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message as _;

use crate::error::Error;
use crate::serve::services_of;

/// A descriptor set whose files stay the bytes they are, because decoding and encoding them would lose their options.
#[derive(Clone, PartialEq, prost::Message)]
struct RawSet {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    files: Vec<Bytes>,
}

/// Joins descriptor sets into one, each file once, and checks that it describes every service that is offered.
///
/// # Errors
/// [`Error::Descriptors`] for bytes that are no descriptor set; [`Error::ContractMissing`] for a service that no file
/// describes.
pub(super) fn join(sets: &[&'static [u8]], services: &[String]) -> Result<Option<Bytes>, Error> {
    let joined = match sets {
        [] => None,
        [one] => Some(Bytes::from_static(one)),
        several => Some(join_files(several)?),
    };
    let described: BTreeSet<String> = match &joined {
        Some(set) => services_of(set)?.into_iter().collect(),
        None => BTreeSet::new(),
    };
    match services.iter().find(|service| !described.contains(*service)) {
        Some(service) => Err(Error::ContractMissing { service: service.clone() }),
        None => Ok(joined),
    }
}

fn join_files(sets: &[&'static [u8]]) -> Result<Bytes, Error> {
    let malformed = |error: prost::DecodeError| Error::Descriptors { source: error.into() };
    let mut known = BTreeSet::new();
    let mut joined = RawSet::default();
    for set in sets {
        for raw in RawSet::decode(Bytes::from_static(set)).map_err(malformed)?.files {
            let file = prost_types::FileDescriptorProto::decode(raw.clone()).map_err(malformed)?;
            if known.insert(file.name().to_owned()) {
                joined.files.push(raw);
            }
        }
    }
    Ok(joined.encode_to_vec().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET: &[u8] = ninefold_proto::DESCRIPTOR_SET;
    const SERVICE: &str = "ninefold.registry.v1.RegistryService";

    #[test]
    fn a_file_that_two_contracts_bring_is_kept_once_and_as_it_was() {
        assert_eq!(join(&[SET, SET], &[SERVICE.to_owned()]).unwrap().unwrap(), SET);
    }

    #[test]
    fn a_service_without_a_contract_is_named() {
        let error = join(&[SET], &["shop.v1.Unknown".to_owned()]).unwrap_err();
        assert!(matches!(error, Error::ContractMissing { service } if service == "shop.v1.Unknown"));
    }

    #[test]
    fn garbage_is_no_contract() {
        assert!(matches!(join(&[b"garbage"], &[]), Err(Error::Descriptors { .. })));
    }
}
