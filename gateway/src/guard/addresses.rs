//! Where requests come from: which addresses are let in, and whose word on other addresses is taken.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use http::HeaderMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Error;

/// Most entries of a list.
const ENTRIES_MAX: usize = 10_000;
/// Most addresses of a header that are looked at.
const HOPS_MAX: usize = 32;

/// Which addresses are let in, and who is believed about addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Addresses {
    /// Networks that are let in. All, if there are none.
    pub allow: Vec<Network>,
    /// Networks that are turned away, also where they are let in.
    pub deny: Vec<Network>,
    /// Networks of proxies whose `x-forwarded-for` and `x-forwarded-proto` are believed.
    pub trusted_proxies: Vec<Network>,
}

/// A network: an address, and how many of its bits count. IPv4 counts as the IPv6 that maps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: u128,
    bits: u32,
}

fn mapped(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().into(),
        IpAddr::V6(address) => address.into(),
    }
}

impl Network {
    fn has(self, address: IpAddr) -> bool {
        let differing = self.address ^ mapped(address);
        self.bits == 0 || differing >> (128 - self.bits) == 0
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no network: write 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32");
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= most).ok_or_else(wrong)?,
            None => most,
        };
        Ok(Self { address: mapped(address), bits: bits + (128 - most) })
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let address = Ipv6Addr::from(self.address);
        match address.to_ipv4_mapped().filter(|_| self.bits >= 96) {
            Some(address) => write!(formatter, "{address}/{}", self.bits - 96),
            None => write!(formatter, "{address}/{}", self.bits),
        }
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Where a request comes from; among its extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The client's address, as far as it is believed.
    pub(crate) address: IpAddr,
    /// Whether the client came by TLS, as far as that is believed.
    pub(crate) is_secure: bool,
}

impl Addresses {
    /// All that is wrong, each with its place.
    pub(crate) fn mistakes(&self) -> Vec<String> {
        let lists = [("allow", &self.allow), ("deny", &self.deny), ("trusted_proxies", &self.trusted_proxies)];
        let long = lists.into_iter().filter(|(_, list)| list.len() > ENTRIES_MAX);
        long.map(|(name, list)| format!("{name} has {} entries, more than {ENTRIES_MAX}", list.len())).collect()
    }

    /// Where a request comes from: who is connected, or who it speaks for.
    ///
    /// # Errors
    /// [`Error::AddressDenied`] if nobody from there is let in.
    pub(crate) fn origin(&self, peer: IpAddr, is_secure: bool, headers: &HeaderMap) -> Result<Origin, Error> {
        let is_in = |list: &[Network], address| list.iter().any(|network| network.has(address));
        let mut origin = Origin { address: peer.to_canonical(), is_secure };
        if is_in(&self.trusted_proxies, peer) {
            let hops: Vec<&str> = headers
                .get_all("x-forwarded-for")
                .into_iter()
                .flat_map(|line| line.to_str().unwrap_or_default().split(','))
                .collect();
            // From the nearest outward: each is vouched for by the one before it, as long as that one is trusted.
            for hop in hops.iter().rev().take(HOPS_MAX) {
                let Ok(address) = hop.trim().parse::<IpAddr>() else { break };
                origin.address = address.to_canonical();
                if !is_in(&self.trusted_proxies, address) {
                    break;
                }
            }
            if let Some(proto) = headers.get("x-forwarded-proto") {
                origin.is_secure = proto.as_bytes().eq_ignore_ascii_case(b"https");
            }
        }
        let is_allowed = self.allow.is_empty() || is_in(&self.allow, origin.address);
        if is_allowed && !is_in(&self.deny, origin.address) { Ok(origin) } else { Err(Error::AddressDenied) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(json: &str) -> Addresses {
        serde_json::from_str(json).unwrap()
    }

    fn origin(addresses: &Addresses, peer: &str, forwarded: &[&'static str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append("x-forwarded-for", http::HeaderValue::from_static(line));
        }
        addresses.origin(peer.parse().unwrap(), false, &headers).ok().map(|origin| origin.address.to_string())
    }

    #[test]
    fn networks_are_written_and_read() {
        for text in ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32", "0.0.0.0/0", "::/0"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "a/8", "::/129", "10.0.0.0/-1"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
        let all: Network = "0.0.0.0/0".parse().unwrap();
        assert!(all.has("10.1.2.3".parse().unwrap()) && !all.has("2001:db8::1".parse().unwrap()));
        let ten: Network = "10.0.0.0/8".parse().unwrap();
        assert!(ten.has("::ffff:10.9.9.9".parse().unwrap()) && !ten.has("11.0.0.0".parse().unwrap()));
    }

    #[test]
    fn lists_say_who_is_let_in() {
        let lists = addresses(r#"{"allow": ["10.0.0.0/8"], "deny": ["10.6.6.0/24"]}"#);
        assert!(origin(&lists, "10.1.1.1", &[]).is_some());
        assert!(origin(&lists, "10.6.6.6", &[]).is_none() && origin(&lists, "192.0.2.1", &[]).is_none());
        assert!(origin(&Addresses::default(), "192.0.2.1", &[]).is_some());
    }

    #[test]
    fn only_proxies_that_are_trusted_are_believed() {
        let lists = addresses(r#"{"trusted_proxies": ["10.0.0.0/8"], "deny": ["203.0.113.0/24"]}"#);
        for (peer, forwarded, address) in [
            ("192.0.2.1", &["203.0.113.7"][..], Some("192.0.2.1")),
            ("10.0.0.1", &["198.51.100.9"], Some("198.51.100.9")),
            ("10.0.0.1", &["1.1.1.1, 198.51.100.9, 10.0.0.2"], Some("198.51.100.9")),
            ("10.0.0.1", &["1.1.1.1", "198.51.100.9"], Some("198.51.100.9")),
            ("10.0.0.1", &["198.51.100.9, nonsense"], Some("10.0.0.1")),
            ("10.0.0.1", &[], Some("10.0.0.1")),
            ("10.0.0.1", &["203.0.113.7"], None),
        ] {
            assert_eq!(origin(&lists, peer, forwarded).as_deref(), address, "{peer} {forwarded:?}");
        }
    }
}
