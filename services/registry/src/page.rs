//! Page tokens: opaque outside, the last thing told inside. Pure.

use crate::error::Error;
use crate::events::Place;
use crate::model::{InstanceKey, ServiceKey};

/// Longest token that is looked at: hex of three names and a mark.
const TOKEN_BYTES_MAX: usize = 1024;

/// Where a list of services goes on.
pub(crate) fn services_token(last: &ServiceKey) -> String {
    seal(&format!("s/{}/{}", last.namespace, last.name))
}

/// Reads [`services_token`].
pub(crate) fn read_services(token: &str) -> Result<Option<ServiceKey>, Error> {
    read(token, |text| {
        let (namespace, name) = text.strip_prefix("s/")?.split_once('/')?;
        ServiceKey::parse(namespace, name)
    })
}

/// Where a list of instances goes on.
pub(crate) fn instances_token(last: &InstanceKey) -> String {
    let InstanceKey { service: ServiceKey { namespace, name }, id } = last;
    seal(&format!("i/{namespace}/{name}/{id}"))
}

/// Reads [`instances_token`]. It belongs to a list of services of one name, or of all.
pub(crate) fn read_instances(token: &str, service: Option<&str>) -> Result<Option<InstanceKey>, Error> {
    read(token, |text| {
        let (namespace, rest) = text.strip_prefix("i/")?.split_once('/')?;
        let (name, id) = rest.split_once('/')?;
        let key = InstanceKey::parse(namespace, name, id)?;
        service.is_none_or(|wanted| wanted == name).then_some(key)
    })
}

/// Where a list of events goes on.
pub(crate) fn events_token(last: Place) -> String {
    seal(&format!("e/{}", last.0))
}

/// Reads [`events_token`].
pub(crate) fn read_events(token: &str) -> Result<Option<Place>, Error> {
    read(token, |text| text.strip_prefix("e/")?.parse().ok().map(Place))
}

/// Where a list of watchers goes on.
pub(crate) fn watchers_token(last: u64) -> String {
    seal(&format!("w/{last}"))
}

/// Reads [`watchers_token`].
pub(crate) fn read_watchers(token: &str) -> Result<Option<u64>, Error> {
    read(token, |text| text.strip_prefix("w/")?.parse().ok())
}

fn read<T>(token: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, Error> {
    if token.is_empty() {
        return Ok(None);
    }
    open(token).and_then(|text| parse(&text)).map(Some).ok_or(Error::PageTokenInvalid)
}

fn seal(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn open(token: &str) -> Option<String> {
    if token.len() > TOKEN_BYTES_MAX || !token.len().is_multiple_of(2) {
        return None;
    }
    let digit = |letter: &u8| char::from(*letter).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes = token.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    });
    String::from_utf8(bytes.collect::<Option<Vec<u8>>>()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_by_its_own_list_only() {
        let key = InstanceKey::parse("eu", "pump", "p-1").unwrap();
        let service = key.service.clone();
        let token = instances_token(&key);
        assert_eq!(read_instances(&token, None).unwrap(), Some(key.clone()));
        assert_eq!(read_instances(&token, Some("pump")).unwrap(), Some(key));
        assert!(read_instances(&token, Some("valve")).is_err());
        assert!(read_services(&token).is_err());
        assert!(read_events(&token).is_err());
        assert_eq!(read_services(&services_token(&service)).unwrap(), Some(service));
        assert_eq!(read_events(&events_token(Place(7))).unwrap(), Some(Place(7)));
    }

    #[test]
    fn nonsense_is_no_token() {
        for bad in ["x", "zz", "ff", "äö", "732f", &"00".repeat(1000)] {
            assert!(read_services(bad).is_err(), "{bad:?}");
        }
        assert_eq!(read_services("").unwrap(), None);
    }
}
